//! A simulated network: virtual sockets, virtual time, and whatever can go wrong, exactly the same on every run.
//!
//! [`SimNet`] is the [`Net`](crate::server::net::Net) of a [`Server`](crate::server::Server) that touches no operating system. Behind it are a
//! [`World`], which holds the connections and the time, and a [`Script`], which decides what happens when: a recorded
//! trace, a random generator, or a [`Schedule`] written down in a test.
//!
//! ```text
//!  Server ── Net, Read, Write ──▶ SimNet ──▶ World ◀── connect, send, reset, … ── Script
//! ```
//!
//! - Time stands still while the server works. It moves when the server waits: to the next thing in the script or to
//!   the server's own deadline, whichever is first. So a run takes no longer than the work in it.
//! - Readiness is edge-triggered, as epoll tells it: once for whatever arrives, with everything that holds at that moment.
//! - A [`Fault`] cuts a read or a write short or makes an operation fail. After a fault that leaves a socket
//!   ready there is always another edge, as there is in reality.
//! - [`World::is_idle`] says that the server waits for something that will never come: the script has ended, and
//!   no deadline is left.
//!
//! ```
//! use fortnight::{Config, Server, internals::{server::net::Port, sim::{Schedule, SimNet}}};
//!
//! let mut schedule = Schedule::default();
//! schedule.at(0, |world| {
//!     let user = world.connect(Port::User).unwrap();
//!     world.send(user, b"7\r\n");
//!     let source = world.connect(Port::Source).unwrap();
//!     world.send(source, b"2|P|1|7\n1|B\n");
//! });
//! let net = SimNet::new(schedule);
//! let mut server = Server::new(Config::default(), net.clone(), 0);
//! while !net.shared().world.is_idle() {
//!     server.turn().unwrap();
//! }
//! let peer = net.shared().world.peers().next().unwrap();
//! assert_eq!(net.shared().world.received(peer), b"1|B\n2|P|1|7\n");
//! ```

mod connection;
mod disk;
mod net;
mod operation;
mod schedule;
mod script;
#[cfg(test)]
mod tests;
mod world;

pub use disk::{DiskCounts, DiskFaults, ProcessEnd, SimDisk, SimFolder};
pub use net::{Shared, SimNet, SimSocket};
pub use operation::{Fault, Operation, Peer};
pub use schedule::Schedule;
pub use script::Script;
pub use world::{ServerEnd, World};
