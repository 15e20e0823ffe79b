//! What the server keeps per connection.

use super::output::Output;
use crate::{
    engine::{AFTER, BEFORE},
    time::Micros,
};
use std::{net::SocketAddr, ops::Range};

/// An entry of the slab.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    pub(crate) socket: S,
    pub(crate) peer: SocketAddr,
    /// The socket was readable and has not said since that reading would block.
    pub(crate) readable: bool,
    /// It is on the list of those to be read.
    pub(crate) queued: bool,
    pub(crate) role: Role,
}

/// Who is at the other end.
#[derive(Debug)]
pub(crate) enum Role {
    Source(Source),
    Login(Login),
    User(User),
    Admin(Asker),
}

/// An event source.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// The start of a line whose end has not been read.
    pub(crate) carry: Vec<u8>,
    /// The number of the next line is too far ahead for the ring: it and all that came with it.
    pub(crate) blocked: Option<(u64, Chunk)>,
    /// In the middle of an overlong line, which is dropped up to its end.
    pub(crate) discarding: bool,
    /// It will send nothing more.
    pub(crate) hung_up: bool,
    /// Nothing of what it sent was anything but late so far.
    pub(crate) late_so_far: bool,
}

/// A connection on the user port that has not logged in.
#[derive(Debug, Default)]
pub(crate) struct Login {
    pub(crate) line: Vec<u8>,
    /// When it is closed if it has not logged in.
    pub(crate) deadline: Micros,
}

/// A logged-in user.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) id: u64,
    /// Its slot in the engine.
    pub(crate) slot: u32,
    /// What its socket has not taken, or has not been offered yet because it was put off.
    pub(crate) output: Output,
    /// Its socket has not taken everything, and tells when it takes more.
    pub(crate) blocked: bool,
    /// It is on the list of those to be written to.
    pub(crate) due: bool,
    /// Since when it has been on the list of slow users, without a break.
    pub(crate) slow_since: Option<Micros>,
    /// Its output buffer is above `userBufferBytes`.
    pub(crate) behind: bool,
}

/// Somebody at the admin interface.
#[derive(Debug, Default)]
pub(crate) struct Asker {
    /// What has been read and not been answered.
    pub(crate) input: Vec<u8>,
    /// The answer, and how much of it has been written.
    pub(crate) output: Vec<u8>,
    pub(crate) written: usize,
    /// Being writable is told.
    pub(crate) wants_write: bool,
    /// The answer is the last one.
    pub(crate) closes: bool,
    /// The last answer has been written: what still comes is thrown away, so that closing does not reset the
    /// connection before the answer has been read.
    pub(crate) lingers: bool,
    /// When it is closed if it is still as it is.
    pub(crate) deadline: Micros,
}

impl Asker {
    /// It has asked for nothing that it has not got.
    pub(crate) fn is_idle(&self) -> bool {
        self.input.is_empty() && self.output.is_empty()
    }
}

/// Bytes from a source that are being worked on, in a buffer with the margins that the engine likes.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    pub(crate) unread: Range<usize>,
}

impl Chunk {
    /// A buffer for one read of `read_bytes` after a carried line of at most `carry_bytes`.
    pub(crate) fn new(carry_bytes: usize, read_bytes: usize) -> Self {
        Self { bytes: vec![0; BEFORE + carry_bytes + read_bytes + AFTER], unread: BEFORE..BEFORE }
    }

    /// Empties the chunk, puts `carry` at its start, and returns where the next bytes can be read to.
    pub(crate) fn start_with(&mut self, carry: &[u8], read_bytes: usize) -> &mut [u8] {
        let start = BEFORE + carry.len();
        self.bytes[BEFORE..start].copy_from_slice(carry);
        self.unread = BEFORE..start;
        &mut self.bytes[start..start + read_bytes]
    }
}
