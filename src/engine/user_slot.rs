//! User slots: the small numbers by which the engine knows the users who are connected.

#![forbid(unsafe_code)]

/// The number by which an engine knows a connected user. It is small, and free again once the user has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserSlot(pub(crate) u32);

impl UserSlot {
    /// The index of the slot in a table.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// No slot: the user is not connected.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// The slots, and the user in each.
#[derive(Debug, Default)]
pub(crate) struct UserSlots {
    /// Bit per slot: connected.
    connected: Vec<u64>,
    /// Bit per slot: connected, or not free yet.
    taken: Vec<u64>,
    users: usize,
}

impl UserSlots {
    /// Connected users.
    #[inline(always)]
    pub(crate) fn users(&self) -> usize {
        self.users
    }

    /// Bit per slot: connected.
    #[inline(always)]
    pub(crate) fn connected(&self) -> &[u64] {
        &self.connected
    }

    /// Words that have a bit for every slot that is taken.
    pub(crate) fn words(&self) -> usize {
        self.taken.len()
    }

    /// Gives a user the lowest slot that is free.
    pub(crate) fn connect(&mut self) -> u32 {
        let word = self.taken.iter().position(|&word| word != u64::MAX).unwrap_or(self.taken.len());
        if word == self.taken.len() {
            self.set_words(word + 1);
        }
        let bit = self.taken[word].trailing_ones();
        self.taken[word] |= 1 << bit;
        self.connected[word] |= 1 << bit;
        self.users += 1;
        word as u32 * 64 + bit
    }

    /// The user has gone; its slot is not free yet.
    pub(crate) fn disconnect(&mut self, slot: u32) {
        self.connected[slot as usize / 64] &= !(1 << (slot % 64));
        self.users -= 1;
    }

    /// Takes back the slot of a user that has gone.
    pub(crate) fn free(&mut self, slot: u32) {
        self.taken[slot as usize / 64] &= !(1 << (slot % 64));
        let used = self.taken.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1);
        self.set_words(used);
    }

    fn set_words(&mut self, words: usize) {
        self.connected.resize(words, 0);
        self.taken.resize(words, 0);
    }
}
