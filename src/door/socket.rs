//! A connection as the door hands it to the server.

use std::io::{self, IoSlice, Read, Write};

/// A connection that has passed the door.
#[derive(Debug)]
pub struct Guest<S> {
    socket: S,
    /// The net below has been asked to watch it.
    pub(super) is_watched: bool,
}

impl<S> Guest<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, is_watched: false }
    }

    /// The socket of the net below.
    pub(super) fn inner(&mut self) -> &mut S {
        &mut self.socket
    }
}

impl<S: Read> Read for Guest<S> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        self.socket.read(target)
    }
}

impl<S: Write> Write for Guest<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.socket.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}
