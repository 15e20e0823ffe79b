//! The follow graph, as far as it matters: only followers who may be connected are kept, one bit each.

const NOBODY: u32 = u32::MAX;

/// The follow graph, seen from the users who may be connected. Those are given by *slot*, all others by id.
pub struct Graph {
    slot_of: Vec<u32>,
    slots: usize,
    rows: Vec<Box<[u64]>>,
}

impl Graph {
    /// Nobody follows anybody among `users` users, of whom `ids` have the slots 0, 1, ….
    pub fn new(users: u64, ids: &[u64]) -> Graph {
        let mut slot_of = vec![NOBODY; users as usize + 1];
        for (slot, id) in ids.iter().enumerate() {
            slot_of[*id as usize] = slot as u32;
        }
        Graph { slot_of, slots: ids.len(), rows: vec![Box::default(); users as usize + 1] }
    }

    /// How many users have a slot.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The slot of a user.
    pub fn slot(&self, id: u64) -> Option<usize> {
        let slot = *self.slot_of.get(id as usize)?;
        (slot != NOBODY).then_some(slot as usize)
    }

    /// `from` follows `to` from now on.
    pub fn follow(&mut self, from: u64, to: u64) {
        let Some(slot) = self.slot(from) else { return };
        let row = &mut self.rows[to as usize];
        if row.is_empty() {
            *row = vec![0; self.slots.div_ceil(64)].into();
        }
        row[slot / 64] |= 1 << (slot % 64);
    }

    /// `from` no longer follows `to`.
    pub fn unfollow(&mut self, from: u64, to: u64) {
        let Some(slot) = self.slot(from) else { return };
        if let Some(word) = self.rows[to as usize].get_mut(slot / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    /// Whether the user of `slot` follows `to`.
    pub fn follows(&self, slot: usize, to: u64) -> bool {
        self.rows
            .get(to as usize)
            .and_then(|row| row.get(slot / 64))
            .is_some_and(|w| w >> (slot % 64) & 1 == 1)
    }

    /// Calls `give` with the slot of each follower of `from`.
    pub fn each_follower(&self, from: u64, give: &mut impl FnMut(usize)) {
        for (at, word) in self.rows[from as usize].iter().enumerate() {
            let mut word = *word;
            while word != 0 {
                give(at * 64 + word.trailing_zeros() as usize);
                word &= word - 1;
            }
        }
    }
}
