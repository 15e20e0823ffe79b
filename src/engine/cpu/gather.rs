//! Gathering by compression.
//!
//! Every event on the tape ends with a line feed, so that one comparison of 64 bytes of it says where events end there. A
//! user's bits, one per event, are *deposited* where events begin, and added to a number that has a zero where one ends and
//! ones everywhere else: from each beginning a carry runs through the ones of its event, up to the zero at its end.
//! The bits that this changes are the bytes of the user's events. (The carry of an event that goes on behind the 64 bytes is
//! lost there, as it should be.) Then one instruction moves those bytes together. It costs the same however many events
//! the user gets, and nothing in it branches. Four users are served in one pass: the tape, longer than the first-level cache,
//! is read once for all of them.

use super::{compress, for_avx512, load};
use std::{arch::x86_64::*, array};

/// Bytes that are done at once.
const PIECE: usize = 64;

/// Users that are served in one pass over the tape: what does not depend on them is done once.
pub(crate) const ABREAST: usize = 4;

/// 64 bytes of the tape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// A bit for each byte that ends an event.
    ends: u64,
    /// Place of its first event: as many have ended before it.
    pub(super) first: u32,
}

/// Where the events on the tape end, and which of them the users get that are served next.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    pieces: Vec<Piece>,
    /// Each user's bits, one per event, and a word more.
    events: [Vec<u64>; ABREAST],
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

    /// Takes the first `count` words of a user's bits, which come eight at a time, as those of the user at a place. Returns
    /// how many ones they have.
    pub(super) fn choose<'a>(
        words: impl Iterator<Item = &'a [u64; 8]>,
        count: usize,
        place: usize,
        marks: &mut Marks,
    ) -> usize {
        let events = &mut marks.events[place];
        events.clear();
        for words in words.take(count.div_ceil(8)) {
            events.extend_from_slice(words);
        }
        events.truncate(count);
        let ones = events.iter().map(|word| word.count_ones() as usize).sum();
        events.push(0);
        ones
    }

    /// Copies the events of `N` users, from the place `first` on, to `outs`, each of which has room for all of the tape.
    /// Returns how many bytes they have.
    pub(super) fn gather<const N: usize>(
        tape: &[u8],
        marks: &Marks,
        first: usize,
        outs: [&mut [u8]; N],
    ) -> [usize; N] {
        let tape = tape.as_chunks().0;
        let events = array::from_fn(|place| &marks.events[first + place][..]);
        compress(tape, &marks.pieces, events, outs, |piece, events| {
            let others = !piece.ends;
            others ^ others.wrapping_add(_pdep_u64(events, piece.ends << 1 | 1))
        })
    }
}
