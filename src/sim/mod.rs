//! A simulated network: virtual sockets, virtual time, and whatever can go wrong, exactly the same on every run.
//!
//! [`SimNet`] is the [`Net`] of a [`Server`](crate::server::Server) that touches no operating system. Behind it are a
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
//! use fortnight::{config::Config, server::{Server, net::Port}, sim::{Schedule, SimNet}};
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
mod schedule;
mod socket;
#[cfg(test)]
mod tests;
mod world;

use crate::{
    counters::DoorCounters,
    server::net::{Net, Port, Ready},
    time::Micros,
};
pub use disk::{DiskCounts, DiskFaults, ProcessEnd, SimDisk, SimFolder};
pub use schedule::Schedule;
pub use socket::SimSocket;
use std::{
    cell::{RefCell, RefMut},
    io,
    net::SocketAddr,
    rc::Rc,
};
pub use world::{ServerEnd, World};

/// A connection, seen from the far end. Keys are used again after [`World::forget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer(pub(crate) usize);

impl Peer {
    /// The connection's number, small and unique among those that have not been forgotten.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// What the server does to its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Accepts from a listener that has a connection waiting.
    Accept(Port),
    /// Registers a new connection.
    Register(Peer),
    /// Changes what it wants to be told of a connection.
    WantWrite(Peer),
    /// Reads so many bytes at most.
    Read(Peer, usize),
    /// Writes so many bytes at most.
    Write(Peer, usize),
}

/// What goes wrong with an [`Operation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A read or write moves so many bytes at most (and at least one).
    Cut(usize),
    /// It fails with this error number and does nothing. Accepting with `ECONNABORTED` uses the connection up.
    Errno(i32),
}

impl Fault {
    fn error(self) -> Option<io::Error> {
        match self {
            Self::Cut(_) => None,
            Self::Errno(number) => Some(io::Error::from_raw_os_error(number)),
        }
    }
}

/// Decides what happens in the world, and when.
pub trait Script {
    /// When the next thing happens; `None`: nothing will. What is due already happens at the server's next poll.
    fn next_at(&mut self, world: &World) -> Option<Micros>;

    /// Lets the next thing happen. Called when its time has come, and must get on: Afterwards [`Script::next_at`] tells
    /// of the thing after it.
    fn happen(&mut self, world: &mut World);

    /// The server is about to do something: what happens now happens in the middle of its turn, unnoticed until it asks.
    fn meanwhile(&mut self, world: &mut World, operation: Operation) {
        let _ = (world, operation);
    }

    /// For how long the process is stopped between the end of a wait that has found nothing and the look at the clock: what
    /// happens meanwhile is not told.
    fn stall(&mut self) -> Micros {
        0
    }

    /// Whether something goes wrong with an operation of the server.
    fn fault(&mut self, operation: Operation) -> Option<Fault> {
        let _ = operation;
        None
    }
}

/// What a [`SimNet`] and its sockets have in common.
#[derive(Debug)]
pub struct Shared<S> {
    /// The connections and the time.
    pub world: World,
    /// What decides what happens.
    pub script: S,
    /// Whose completions wake the server.
    folder: Option<SimFolder>,
}

/// See the [module](self). A clone is another handle to the same network.
#[derive(Debug)]
pub struct SimNet<S> {
    shared: Rc<RefCell<Shared<S>>>,
}

impl<S> Clone for SimNet<S> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared) }
    }
}

impl<S: Script> SimNet<S> {
    /// A network with its listeners up, at time 0.
    #[must_use]
    pub fn new(script: S) -> Self {
        Self { shared: Rc::new(RefCell::new(Shared { world: World::default(), script, folder: None })) }
    }

    /// The same, for a server that keeps a journal there: what its disk has done wakes it.
    #[must_use]
    pub fn with_disk(script: S, folder: SimFolder) -> Self {
        let net = Self::new(script);
        net.shared().folder = Some(folder);
        net
    }

    /// The world and the script, between the server's turns.
    ///
    /// # Panics
    ///
    /// If what an earlier call returned is still alive.
    #[must_use]
    pub fn shared(&self) -> RefMut<'_, Shared<S>> {
        self.shared.borrow_mut()
    }

    /// The world and the fault that befalls an operation.
    fn fault(&self, operation: Operation) -> (RefMut<'_, Shared<S>>, Option<Fault>) {
        let mut shared = self.shared.borrow_mut();
        let Shared { world, script, .. } = &mut *shared;
        script.meanwhile(world, operation);
        let fault = script.fault(operation);
        (shared, fault)
    }
}

impl<S: Script> Net for SimNet<S> {
    type Socket = SimSocket<S>;

    fn poll(&mut self, wait: Option<Micros>, ready: &mut Vec<Ready>) -> io::Result<Micros> {
        let Shared { world, script, folder } = &mut *self.shared.borrow_mut();
        let deadline = wait.map(|wait| world.now().saturating_add(wait));
        loop {
            while script.next_at(world).is_some_and(|at| at <= world.now()) {
                script.happen(world);
            }
            world.tell(ready);
            if let Some(folder) = folder {
                folder.set_now(world.now());
                ready.extend(folder.tell().then_some(Ready::Disk));
            }
            let completion = folder.as_ref().and_then(SimFolder::next_completion);
            if !ready.is_empty() || deadline.is_some_and(|at| at <= world.now()) {
                return Ok(world.now());
            }
            match script.next_at(world).into_iter().chain(completion).chain(deadline).min() {
                Some(at) if Some(at) == deadline => {
                    world.advance_to(at);
                    let stall = script.stall();
                    if stall > 0 {
                        // The wait is over and has found nothing; before the clock is looked at, the process is stopped.
                        world.advance_to(at + stall);
                        return Ok(world.now());
                    }
                }
                Some(at) => world.advance_to(at),
                None => {
                    world.set_idle();
                    return Ok(world.now());
                }
            }
        }
    }

    fn accept(&mut self, port: Port) -> io::Result<(Self::Socket, SocketAddr)> {
        if !self.shared.borrow().world.can_accept(port) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (mut shared, fault) = self.fault(Operation::Accept(port));
        let (peer, address) = shared.world.accept(port, fault)?;
        Ok((SimSocket::new(self.clone(), peer), address))
    }

    /// The same on every run.
    fn random(&mut self) -> u64 {
        0x0123_4567_89ab_cdef
    }

    fn door(&self) -> DoorCounters {
        DoorCounters::default()
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<Self::Socket> {
        let peer = self.shared.borrow_mut().world.call(to);
        Ok(SimSocket::new(self.clone(), peer))
    }

    fn register(&mut self, socket: &mut Self::Socket, key: usize) -> io::Result<()> {
        let (mut shared, fault) = self.fault(Operation::Register(socket.peer()));
        shared.world.register(socket.peer(), key, fault)
    }

    fn want_write(&mut self, socket: &mut Self::Socket, key: usize, on: bool) -> io::Result<()> {
        let (mut shared, fault) = self.fault(Operation::WantWrite(socket.peer()));
        shared.world.want_write(socket.peer(), key, on, fault)
    }

    fn finish(&mut self, socket: &mut Self::Socket) {
        self.shared.borrow_mut().world.server_finished(socket.peer());
    }

    fn unread(&mut self, socket: &mut Self::Socket) -> usize {
        self.shared.borrow().world.unread(socket.peer())
    }

    /// Time begins in 1970.
    fn time_ms(&mut self) -> u64 {
        self.shared.borrow().world.now() / crate::time::MILLISECOND
    }

    /// What is simulated always listens.
    fn listen(&mut self, _port: Port, _on: bool) -> io::Result<()> {
        Ok(())
    }

    fn close_listener(&mut self, port: Port) {
        self.shared.borrow_mut().world.close_listener(port);
    }
}
