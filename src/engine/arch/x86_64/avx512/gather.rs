//! Gathering by compression.
//!
//! Every event on the tape ends with a line feed. So one comparison of 64 bytes of the tape finds the ends of the events
//! there. A user's bits, one per event, are *deposited* at the beginnings of the events. They are added to a number with a
//! zero at each end of an event and ones everywhere else. From each deposited bit a carry runs through the ones of its
//! event, up to the zero at its end. The bits that the addition changes stand for the bytes of the user's events. (If an
//! event continues behind the 64 bytes, its carry is lost, which is right.) Then one instruction moves these bytes
//! together. The cost does not depend on the number of the user's events, and nothing branches. Four users are served in one pass: the tape, longer than the first-level cache,
//! is read once for all of them.

#![forbid(unsafe_code)]

use super::{
    super::{
        features::for_avx512,
        vector::{compress, load},
    },
    piece::Piece,
};
use crate::engine::text::Text;
use std::{arch::x86_64::*, array, ops::Range};

/// Bytes that are done at once.
const PIECE: usize = 64;

/// Users that are served in one pass over the tape. Work that does not depend on the user is done once.
pub(crate) const ABREAST: usize = 4;

/// The ends of the events on the tape, and which of them the next users receive.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    pieces: Vec<Piece>,
    /// Each user's bits, one per event, and a word more.
    events: [Vec<u64>; ABREAST],
}

impl Marks {
    /// Whether a user that gets so many events of the tape, and so many bytes of mail in between, is served faster by
    /// [`gather`] than event by event: a piece costs a third of an event, and a run of mail as much more as some thirty pieces.
    pub(crate) fn is_dense(&self, events: usize, mail: usize) -> bool {
        3 * events > self.pieces.len() + mail
    }

    /// The bits of the user at a place, from a piece's first event on.
    fn events_of(&self, place: usize, piece: Piece) -> u64 {
        let (word, bit) = (piece.first as usize / 64, piece.first % 64);
        let [low, high] = [word, word + 1].map(|word| self.events[place].get(word).copied().unwrap_or(0));
        low >> bit | high << 1 << (63 - bit)
    }
}

/// Bytes that one of the users gets in between, which are not on the tape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Insert {
    /// Byte of the tape that they come before.
    before: u32,
    /// Their places.
    start: u32,
    len: u32,
    user: u32,
}

impl Insert {
    /// Bytes for a user that come before a byte of the tape, at which an event begins.
    pub(crate) fn new(before: u32, user: usize, bytes: Range<usize>) -> Self {
        Self { before, start: bytes.start as u32, len: bytes.len() as u32, user: user as u32 }
    }

    /// The keys of the order.
    pub(crate) fn order(&self) -> u64 {
        u64::from(self.before) << 32 | u64::from(self.start)
    }
}

for_avx512! {
    /// Notes where the events on the tape end. Behind them there may be anything, but in whole pieces.
    pub(crate) fn mark(tape: &[u8], marks: &mut Marks) {
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
    pub(crate) fn choose<'a>(
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

    /// Copies the events of `N` users, from the place `first` on, to `outs`, and what is to be inserted in between, from
    /// `bytes`. Each of them has room for all of that and a piece more. Returns how many bytes there are.
    ///
    /// The tape is gone over up to the piece in which something is to be inserted, that one included. What the user has got
    /// of it from there on then makes room.
    pub(crate) fn gather<const N: usize>(
        tape: &[u8],
        marks: &Marks,
        first: usize,
        (inserts, bytes): (&[Insert], &[u8]),
        outs: &mut [&mut [u8]; N],
    ) -> [usize; N] {
        let tape = tape.as_chunks().0;
        let events = array::from_fn(|place| &marks.events[first + place][..]);
        let (mut done, mut lens) = (0, [0; N]);
        let go_on = |pieces: Range<usize>, outs: &mut _, lens: &mut _| {
            let tape = &tape[pieces.clone()];
            compress(tape, &marks.pieces[pieces], events, outs, lens, |piece, events| bytes_of(piece, events));
        };
        for insert in inserts {
            let (user, len) = (insert.user as usize, insert.len as usize);
            let (piece, byte) = (insert.before as usize / PIECE, insert.before as usize % PIECE);
            let next = piece + usize::from(byte > 0);
            go_on(done..next, outs, &mut lens);
            done = next;
            let behind = marks.pieces.get(piece).filter(|_| byte > 0).map_or(0, |&piece| {
                (bytes_of(piece, marks.events_of(first + user, piece)) >> byte).count_ones()
            });
            let out = &mut outs[user][lens[user] - behind as usize..];
            let mut rest = [0; PIECE];
            rest.copy_from_slice(&out[..PIECE]);
            Text { bytes: &bytes[insert.start as usize..], len }.copy_to(out, 0);
            out[len..len + PIECE].copy_from_slice(&rest);
            lens[user] += len;
        }
        go_on(done..marks.pieces.len(), outs, &mut lens);
        lens
    }

    /// The bytes of a piece that belong to events which have a one in `events`.
    fn bytes_of(piece: Piece, events: u64) -> u64 {
        let others = !piece.ends;
        others ^ others.wrapping_add(_pdep_u64(events, piece.ends << 1 | 1))
    }
}
