//! The server's operations on its network, and their faults.

use crate::server::net::Port;
use std::io;

/// A connection, seen from the far end. Keys are used again after [`World::forget`](super::World::forget).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer(pub(crate) usize);

impl Peer {
    /// The connection's number, small and unique among those that have not been forgotten.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// An operation of the server on its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Accepts from a listener that has a connection waiting.
    Accept(Port),
    /// Registers a new connection.
    Register(Peer),
    /// Changes what it wants to be told of a connection.
    WantWrite(Peer),
    /// Reads at most this number of bytes.
    Read(Peer, usize),
    /// Writes at most this number of bytes.
    Write(Peer, usize),
}

/// The fault of an [`Operation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A read or write moves at most this number of bytes (and at least one).
    Cut(usize),
    /// It fails with this error number and does nothing. Accepting with `ECONNABORTED` uses the connection up.
    Errno(i32),
}

impl Fault {
    pub(super) fn error(self) -> Option<io::Error> {
        match self {
            Self::Cut(_) => None,
            Self::Errno(number) => Some(io::Error::from_raw_os_error(number)),
        }
    }
}
