//! The bytes of one read of a source.

use crate::{
    engine::{AFTER, BEFORE},
    time::Micros,
};
use std::ops::Range;

/// Bytes of one read of a source.
pub(super) const READ_BYTES: usize = 256 << 10;

/// Bytes from a source that are being worked on, in a buffer with the margins that the engine likes.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) unread: Range<usize>,
    pub(super) read_at: Micros,
}

impl Chunk {
    /// A buffer for one read after a carried line of at most `carry_bytes`.
    pub(super) fn new(carry_bytes: usize) -> Self {
        Self { bytes: vec![0; BEFORE + carry_bytes + READ_BYTES + AFTER], unread: BEFORE..BEFORE, read_at: 0 }
    }

    /// Empties the chunk, and returns where the next bytes can be read to so that `carry_bytes` fit in front of them.
    pub(super) fn start_after(&mut self, carry_bytes: usize) -> &mut [u8] {
        let start = BEFORE + carry_bytes;
        self.unread = start..start;
        &mut self.bytes[start..start + READ_BYTES]
    }

    /// The bytes that were read come after `carry`.
    pub(super) fn put_in_front(&mut self, carry: &[u8]) {
        self.unread.start -= carry.len();
        self.bytes[self.unread.start..][..carry.len()].copy_from_slice(carry);
    }

    /// The bytes that have not been fed.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.unread.clone()]
    }
}
