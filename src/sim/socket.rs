//! The server's end of a simulated connection.

use super::{Operation, Peer, Script, SimNet};
use std::io::{self, IoSlice, Read, Write};

/// A non-blocking virtual socket. Dropping it closes the connection.
#[derive(Debug)]
pub struct SimSocket<S: Script> {
    net: SimNet<S>,
    peer: Peer,
}

impl<S: Script> SimSocket<S> {
    pub(super) fn new(net: SimNet<S>, peer: Peer) -> Self {
        Self { net, peer }
    }

    /// The connection that this is the server's end of.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }
}

impl<S: Script> Read for SimSocket<S> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let (mut shared, fault) = self.net.fault(Operation::Read(self.peer, target.len()));
        shared.world.read(self.peer, target, fault)
    }
}

impl<S: Script> Write for SimSocket<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        let (mut shared, fault) = self.net.fault(Operation::Write(self.peer, len));
        shared.world.write(self.peer, slices, len, fault)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Script> Drop for SimSocket<S> {
    fn drop(&mut self) {
        self.net.shared().world.server_closed(self.peer);
    }
}
