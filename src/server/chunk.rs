//! The bytes of one read of a source.

use crate::engine::{AFTER, BEFORE};
use std::ops::Range;

/// Bytes of one read of a source.
pub(super) const READ_BYTES: usize = 256 << 10;

/// Bytes from a source that are being worked on, in a buffer with the margins that the engine likes.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) unread: Range<usize>,
}

impl Chunk {
    /// A buffer for one read after a carried line of at most `carry_bytes`.
    pub(super) fn new(carry_bytes: usize) -> Self {
        Self { bytes: vec![0; BEFORE + carry_bytes + READ_BYTES + AFTER], unread: BEFORE..BEFORE }
    }

    /// Empties the chunk, puts `carry` at its start, and returns where the next bytes can be read to.
    pub(super) fn start_with(&mut self, carry: &[u8]) -> &mut [u8] {
        let start = BEFORE + carry.len();
        self.bytes[BEFORE..start].copy_from_slice(carry);
        self.unread = BEFORE..start;
        &mut self.bytes[start..start + READ_BYTES]
    }

    /// The bytes that have not been fed.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.unread.clone()]
    }
}
