//! The server's interface to the world: sockets, readiness and the time, as one trait with two implementations.
//!
//! [`reactor`](crate::reactor) implements it on mio, the simulator on virtual sockets and virtual time.

use crate::{counters::DoorCounters, process::Process, time::Micros, warning::Warning};
use std::{
    io::{self, Read, Write},
    net::SocketAddr,
};

/// A listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// For event sources.
    Source,
    /// For users.
    User,
    /// For the admin interface.
    Admin,
    /// For clients of the stream.
    Stream,
}

/// Something that has happened or has become possible. Readiness is edge-triggered: it is told once and holds until an
/// operation would block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Connections can be accepted.
    Listener(Port),
    /// A registered socket is ready.
    Socket {
        /// The key that it was registered with.
        key: usize,
        /// It can be read, has ended, or has failed.
        readable: bool,
        /// It can be written.
        writable: bool,
        /// Its peer will send nothing more.
        hung_up: bool,
        /// Urgent data is among what can be read: a read may come short in front of it, and of what lies behind it nothing
        /// more is told.
        urgent: bool,
    },
    /// The process has been asked to end.
    Signal,
    /// The process has been asked to read its certificates and keys again.
    Reload,
    /// The disk of the journal has done something that was submitted.
    Disk,
}

/// Sockets, readiness and the time.
pub trait Net {
    /// A non-blocking connection. Dropping it closes it. A read that comes short has emptied it, unless urgent data has
    /// been told of.
    type Socket: Read + Write;

    /// Waits until something is ready, at most for `wait` microseconds (0: just looks; `None`: for ever),
    /// appends what is ready, and returns the time.
    ///
    /// # Errors
    ///
    /// If the operating system cannot wait: there is no way to go on.
    fn poll(&mut self, wait: Option<Micros>, ready: &mut Vec<Ready>) -> io::Result<Micros>;

    /// Accepts a connection.
    ///
    /// # Errors
    ///
    /// As `accept(2)` does; `WouldBlock` when there is none.
    fn accept(&mut self, port: Port) -> io::Result<(Self::Socket, SocketAddr)>;

    /// How many connections wait to be accepted. What connects after that comes behind them. `usize::MAX` if that cannot be known.
    fn backlog(&mut self, port: Port) -> usize;

    /// Sixty-four random bits.
    fn random(&mut self) -> u64;

    /// Connections that were refused before the server heard of them.
    fn door(&self) -> DoorCounters;

    /// How many times the server has been told to end since the last poll, which the next poll tells all the same. While a start
    /// takes long, nobody polls.
    fn told_to_end(&mut self) -> usize;

    /// The time now, as [`Net::poll`] would return it.
    fn clock(&self) -> Micros;

    /// What the operating system says of this process, where there is one.
    fn process(&mut self) -> Option<Process>;

    /// The last warnings and errors of the log, the newest first.
    fn warnings(&self) -> Vec<Warning>;

    /// Milliseconds since 1970.
    fn time_ms(&mut self) -> u64;

    /// Begins to listen, or ends it for a time: the address stays this server's own.
    ///
    /// # Errors
    ///
    /// As `listen(2)` does.
    fn listen(&mut self, port: Port, on: bool) -> io::Result<()>;

    /// Opens a connection. It is up, or has failed, when being writable is told for the first time; reading and writing say
    /// which.
    ///
    /// # Errors
    ///
    /// As `connect(2)` does, if that is known at once.
    fn connect(&mut self, to: SocketAddr) -> io::Result<Self::Socket>;

    /// Speaks TLS from now on, on a connection that this server has opened: `name` is who must be at its other end. The handshake
    /// goes on while it is read. Until it is over, a write would block.
    ///
    /// # Errors
    ///
    /// If this world has no TLS, or nobody has said whom to trust, or the name is none that a certificate can have.
    fn start_tls(&mut self, socket: &mut Self::Socket, key: usize, name: &str) -> io::Result<()> {
        let _ = (socket, key, name);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Readiness of `socket` is told from now on, under `key`; of being readable only.
    ///
    /// # Errors
    ///
    /// As `epoll_ctl(2)` does.
    fn register(&mut self, socket: &mut Self::Socket, key: usize) -> io::Result<()>;

    /// Whether being writable is told as well. From now on everything is told under this key.
    ///
    /// # Errors
    ///
    /// As `epoll_ctl(2)` does.
    fn want_write(&mut self, socket: &mut Self::Socket, key: usize, on: bool) -> io::Result<()>;

    /// Nothing more is told of `socket`: its key is free for another connection. It can still be read, and is closed when it is
    /// dropped.
    fn forget(&mut self, socket: &mut Self::Socket);

    /// Tells the other side that nothing more will be sent, if there is another side. It may go on sending.
    fn finish(&mut self, socket: &mut Self::Socket);

    /// While `on`, the operating system holds only little that cannot be sent yet: what does not fit waits in this process. For a
    /// user that is served from the journal, megabytes there would only take memory from the others' sockets.
    fn hold_little_unsent(&mut self, socket: &mut Self::Socket, on: bool) {
        let _ = (socket, on);
    }

    /// Bytes that have arrived on `socket` and have not been read. 0 if that cannot be known.
    fn unread(&mut self, socket: &mut Self::Socket) -> usize;

    /// Whether peers can vanish in this world. If not, [`Net::silence`] is always `None`.
    fn peers_may_vanish(&self) -> bool;

    /// For how long the other side has left unanswered what was sent to it. `None`: nothing is unanswered, or it cannot be known. A
    /// peer that is alive and does not read answers too.
    fn silence(&mut self, socket: &mut Self::Socket) -> Option<Micros>;

    /// Stops listening.
    fn close_listener(&mut self, port: Port);
}
