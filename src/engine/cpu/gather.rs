//! Gathering by compression.
//!
//! Every event on the tape ends with a line feed, so that one comparison of 64 bytes of it says where events end there. A
//! user's bits, one per event, are *deposited* where events begin, and added to a number that has a zero where one ends and
//! ones everywhere else: from each beginning a carry runs through the ones of its event, up to the zero at its end.
//! The bits that this changes are the bytes of the user's events. (The carry of an event that goes on behind the 64 bytes is
//! lost there, as it should be.) Then one instruction moves those bytes together. It costs the same however many events
//! the user gets, and nothing in it branches.

use super::{compress, for_avx512, load};
use std::arch::x86_64::*;

/// Bytes that are done at once.
const PIECE: usize = 64;

/// 64 bytes of the tape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// A bit for each byte that ends an event.
    ends: u64,
    /// Place of its first event: as many have ended before it.
    pub(super) first: u32,
}

/// Where the events on the tape end, and which of them a user gets.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    pieces: Vec<Piece>,
    /// The user's bits, one per event, and a word more.
    events: Vec<u64>,
}

impl Marks {
    /// Whether a user that gets so many events is served faster by [`gather`] than event by event.
    pub(crate) fn is_dense(&self, events: usize) -> bool {
        3 * events > self.pieces.len()
    }
}

for_avx512! {
    /// Notes where the events on the tape end. Behind them there may be anything, but in whole pieces.
    pub(super) fn mark(tape: &[u8], marks: &mut Marks) {
        let mut first = 0;
        marks.pieces.clear();
        for piece in tape.as_chunks::<PIECE>().0 {
            let ends = _mm512_cmpeq_epi8_mask(load(piece), _mm512_set1_epi8(b'\n'.cast_signed()));
            marks.pieces.push(Piece { ends, first });
            first += ends.count_ones();
        }
    }

    /// Takes the first `count` words of a user's bits, which come eight at a time. Returns how many ones they have.
    pub(super) fn choose<'a>(words: impl Iterator<Item = &'a [u64; 8]>, count: usize, marks: &mut Marks) -> usize {
        marks.events.clear();
        for words in words.take(count.div_ceil(8)) {
            marks.events.extend_from_slice(words);
        }
        marks.events.truncate(count);
        let ones = marks.events.iter().map(|word| word.count_ones() as usize).sum();
        marks.events.push(0);
        ones
    }

    /// Copies the user's events to `out`, which has room for all of the tape. Returns how many bytes they have.
    pub(super) fn gather(tape: &[u8], marks: &Marks, out: &mut [u8]) -> usize {
        let tape = tape.as_chunks().0;
        compress(tape, &marks.pieces, &marks.events, out, |piece, events| {
            let others = !piece.ends;
            others ^ others.wrapping_add(_pdep_u64(events, piece.ends << 1 | 1))
        })
    }
}
