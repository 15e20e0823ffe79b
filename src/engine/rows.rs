//! The recipients of the events on the tape: a row of bits for each event, which becomes a row of bits for each user.

#![forbid(unsafe_code)]

use super::arch::{Cpu, gather::GROUP, transpose::Transposed};

/// Memory that the transposed rows may take; with very many users it ends the turn early.
const MATRIX_BYTES_MAX: usize = 16 << 20;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// The block that is being filled: word *w* of row *j* is at `64 * w + j`.
    rows: Vec<[u64; 64]>,
    /// Transposed blocks: `[group of blocks][slot][block in group]`.
    matrix: Vec<[u64; GROUP]>,
    /// Bit per slot: it gets something.
    owed: Vec<u64>,
    /// Bit per slot: it gets all that is on the tape, up to the last block that is done.
    all: Vec<u64>,
}

impl Rows {
    /// Makes room for this number of words of slots. Nothing may be owed.
    pub(crate) fn set_words(&mut self, words: usize) {
        self.rows.resize(words, [0; 64]);
        self.owed.resize(words, 0);
        self.all.resize(words, u64::MAX);
        self.matrix.clear();
    }

    /// Words of a row.
    #[inline(always)]
    pub(crate) fn words(&self) -> usize {
        self.rows.len()
    }

    /// Writes the row of the event at a place. What is behind the words is nobody.
    #[inline(always)]
    pub(crate) fn set(&mut self, place: usize, words: &[u64]) {
        let mut words = words.iter();
        for row in &mut self.rows {
            row[place % 64] = words.next().copied().unwrap_or(0);
        }
    }

    /// Adds a slot to the row of the event at a place.
    #[inline(always)]
    pub(crate) fn add(&mut self, place: usize, slot: usize) {
        self.rows[slot / 64][place % 64] |= 1 << (slot % 64);
    }

    /// A slot gets something that is not on the tape.
    #[inline(always)]
    pub(crate) fn owe(&mut self, slot: usize) {
        self.owed[slot / 64] |= 1 << (slot % 64);
    }

    /// The block has its `events`: gives everyone its word of it. Says whether there is no room for another group of blocks.
    pub(crate) fn block_done(&mut self, cpu: Cpu, block: usize, events: usize) -> bool {
        let slots = self.rows.len() * 64;
        let group = block / GROUP * slots;
        if self.matrix.len() < group + slots {
            self.matrix.resize(group + slots, [0; GROUP]);
        }
        cpu.transpose(
            &mut self.rows,
            events,
            &mut Transposed {
                users: &mut self.matrix[group..group + slots],
                block: block % GROUP,
                owed: &mut self.owed,
                all: &mut self.all,
            },
        );
        block % GROUP == GROUP - 1 && (group + 2 * slots) * size_of::<[u64; GROUP]>() > MATRIX_BYTES_MAX
    }

    /// Takes the bits of the users that get an event. [`Rows::reset`] takes them back.
    pub(crate) fn take_owed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.owed)
    }

    /// Takes back those of the bits whose users have not been handed anything yet.
    pub(crate) fn give_back(&mut self, owed: Vec<u64>) {
        self.owed = owed;
    }

    /// Whether a slot gets something.
    pub(crate) fn owes(&self, slot: usize) -> bool {
        self.owed.get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 != 0)
    }

    /// Whether a slot gets all that is on the tape.
    #[inline(always)]
    pub(crate) fn gets_all(&self, slot: usize) -> bool {
        self.all[slot / 64] >> (slot % 64) & 1 != 0
    }

    /// The transposed blocks, and how many slots each group of them has.
    #[inline(always)]
    pub(crate) fn matrix(&self) -> (&[[u64; GROUP]], usize) {
        (&self.matrix, self.rows.len() * 64)
    }

    /// Begins the next turn: no user gets an event yet. `owed` is the result of [`Rows::take_owed`].
    pub(crate) fn reset(&mut self, mut owed: Vec<u64>) {
        owed.fill(0);
        self.owed = owed;
        self.all.fill(u64::MAX);
    }
}
