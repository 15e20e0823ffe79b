//! A batch of lines that are read together, and the room that reading takes.

#![forbid(unsafe_code)]

use super::avx2::columns::Columns;
use crate::engine::{arch::batch::BATCH_LINES as LINES, packed::Packed};

/// Lines that are read side by side.
pub(super) const LANES: usize = 8;
pub(super) const GROUPS: usize = LINES / LANES;
/// Groups whose masks are taken before the first of them is read: bytes that have just been written in small parts can't be read
/// as a whole at once.
pub(super) const SPAN: usize = 4;
/// Lines whose windows lie side by side.
pub(super) const PAIR: usize = 2;
/// Pairs of a group.
pub(super) const PAIRS: usize = LANES / PAIR;
/// Bytes that are searched for line feeds at once.
pub(super) const PIECE: usize = 64;
/// Bytes of a line that are looked at.
pub(super) const WINDOW: usize = 32;
/// The most ordinary lines that can end in one piece, of at least 4 bytes each; the room that is written to for it.
pub(super) const LINES_PER_PIECE: usize = 16;

/// A batch of ordinary lines, and the facts about them that are known before they are read.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(super) len: usize,
    pub(super) seqs: [[u64; LANES]; GROUPS],
    /// The words of their slots.
    pub(super) low: [[u64; LANES]; GROUPS],
    pub(super) high: [[u64; LANES]; GROUPS],
    /// The byte in front of the first line, then each line's line feed.
    pub(super) ends: [u32; 1 + LINES + LINES_PER_PIECE],
    /// Windows of the lines of a span, in pairs, and the positions of their parts.
    pub(super) windows: [[[u8; PAIR * WINDOW]; PAIRS]; SPAN],
    pub(super) separators: [[u64; PAIRS]; SPAN],
    pub(super) non_digits: [[u64; PAIRS]; SPAN],
    pub(super) returns: [[u64; PAIRS]; SPAN],
    pub(super) columns: Columns,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            len: 0,
            seqs: [[0; LANES]; GROUPS],
            low: [[0; LANES]; GROUPS],
            high: [[0; LANES]; GROUPS],
            ends: [0; 1 + LINES + LINES_PER_PIECE],
            windows: [[[0; PAIR * WINDOW]; PAIRS]; SPAN],
            separators: [[0; PAIRS]; SPAN],
            non_digits: [[0; PAIRS]; SPAN],
            returns: [[0; PAIRS]; SPAN],
            columns: Columns::default(),
        }
    }
}

impl Lines {
    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Their numbers.
    #[inline(always)]
    pub(crate) fn seqs(&self) -> &[u64] {
        &self.seqs.as_flattened()[..self.len]
    }

    /// Their slots, from a line on.
    #[inline(always)]
    pub(crate) fn slots(&self, first: usize) -> impl Iterator<Item = Packed> {
        let [low, high] = [&self.low, &self.high].map(|words| &words.as_flattened()[first..self.len]);
        low.iter().zip(high).map(|(&low, &high)| Packed::of_words([low, high]))
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Packed)> {
        self.seqs().iter().copied().zip(self.slots(0))
    }
}
