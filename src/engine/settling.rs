//! Users who follow so many others that their logins and logouts are spread over several turns.
//!
//! A login adds the user to the audiences of all users that it follows, and a logout removes it again. For a user that
//! follows a hundred thousand others this takes longer than a turn may. So it is done piece by piece, in the order of
//! the columns of the user's row, and an [`Entry`] says how far it has come. Meanwhile each status update's audience is
//! corrected, and events are applied one at a time, so that the graph is never ahead of the event. Users notice no
//! difference.

#![forbid(unsafe_code)]

use super::relation::Columns;
use std::collections::VecDeque;

/// A user who follows no more than this many comes and goes at once.
pub(crate) const AT_ONCE_MAX: usize = if cfg!(test) { 3 } else { 4096 };

/// The node of a user in the follow graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node(pub(crate) u32);

/// A user that is being added to the audiences of those it follows, or removed from them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) node: Node,
    /// The user's slot. Of one that leaves it is not free before the entry is gone.
    pub(crate) slot: u32,
    pub(crate) leaves: bool,
    /// The user is in the audience of exactly those it follows with columns from `low` on and below `high`.
    pub(crate) low: u32,
    pub(crate) high: u32,
}

impl Entry {
    pub(crate) fn covers(&self, column: u32) -> bool {
        (self.low..self.high).contains(&column)
    }

    /// The columns that are left to be done.
    pub(crate) fn left(&self) -> std::ops::Range<u32> {
        if self.leaves { self.low..self.high } else { self.high..u32::MAX }
    }

    /// All columns below this one have been done.
    pub(crate) fn done_below(&mut self, column: u32) {
        if self.leaves {
            self.low = column;
        } else {
            self.high = column;
        }
    }
}

/// All of them, the longest waiting first.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    pub(crate) entries: VecDeque<Entry>,
    /// The slots of an audience that has been corrected.
    corrected: Vec<u64>,
}

impl Settling {
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The user has begun to come.
    pub(crate) fn come(&mut self, node: Node, slot: u32) {
        self.entries.push_back(Entry { node, slot, leaves: false, low: 0, high: 0 });
    }

    /// The user, who has come altogether, has begun to go.
    pub(crate) fn go(&mut self, node: Node, slot: u32) {
        self.entries.push_back(Entry { node, slot, leaves: true, low: 0, high: u32::MAX });
    }

    /// A user that may still be coming goes. Says whether it was, and whether its slot is free already.
    pub(crate) fn turn_back(&mut self, slot: u32) -> Option<bool> {
        let at = self.entries.iter().position(|entry| entry.slot == slot && !entry.leaves)?;
        if self.entries[at].high == 0 {
            self.entries.remove(at);
            return Some(true);
        }
        self.entries[at].leaves = true;
        Some(false)
    }

    /// A node has been given back: it has no edges, so those who left as this node are in no audience any more.
    pub(crate) fn forget(&mut self, node: Node) {
        for entry in self.entries.iter_mut().filter(|entry| entry.node == node) {
            entry.low = entry.high;
        }
    }

    /// The audience of a node as it ought to be. `follows` says whether another node follows this one.
    pub(crate) fn correct(
        &mut self,
        node: Node,
        (slots, mut len): (Columns<'_>, usize),
        follows: impl Fn(Node) -> bool,
    ) -> (&[u64], usize) {
        let words = &mut self.corrected;
        words.clear();
        let mut set = |slot: u32, member: bool| {
            let word = slot as usize / 64;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            let bit = 1 << (slot % 64);
            let was = words[word] & bit != 0;
            if member {
                words[word] |= bit;
            } else {
                words[word] &= !bit;
            }
            was
        };
        slots.for_each(|slot| _ = set(slot, true));
        for entry in &self.entries {
            if entry.leaves {
                len -= usize::from(set(entry.slot, false));
            } else if !entry.covers(node.0) && follows(entry.node) {
                len += usize::from(!set(entry.slot, true));
            }
        }
        (words, len)
    }
}
