//! A piece of the tape.

#![forbid(unsafe_code)]

/// 64 bytes of the tape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// A bit for each byte that ends an event.
    pub(super) ends: u64,
    /// Place of its first event: as many have ended before it.
    pub(crate) first: u32,
}
