//! A set of small integers that costs what its members cost.
//!
//! Most users follow a few others, some follow nearly everyone. A set starts as a list in place, becomes a
//! hash table when it grows, and a bit set as soon as that takes no more room than the members written out
//! would; it shrinks back the same way. Bits are what fan-out wants: a status update of a user with many
//! followers is one copy of a few words.

use super::cpu::prefetch;
use hashbrown::HashSet;
use smallvec::SmallVec;

/// Members that are searched one by one.
const LIST_MAX: usize = 16;

/// A set of `u32`.
#[derive(Debug)]
pub(crate) enum IdSet {
    List(SmallVec<[u32; 4]>),
    Hash(Box<HashSet<u32>>),
    Bits(Bits),
}

/// Members as bits, with their number.
#[derive(Debug)]
pub(crate) struct Bits {
    words: Vec<u64>,
    count: u32,
}

impl Default for IdSet {
    fn default() -> Self {
        Self::List(SmallVec::new())
    }
}

impl IdSet {
    /// The set whose members' bits are set.
    pub(crate) fn of_bits(words: &[u64]) -> Self {
        let count = words.iter().map(|word| word.count_ones()).sum();
        let mut set = Self::Bits(Bits { words: words.to_vec(), count });
        if (count as usize) < words.len() {
            set.become_sparse();
        }
        set
    }

    /// Number of members.
    #[inline(always)]
    fn len(&self) -> usize {
        match self {
            Self::Bits(bits) => bits.count as usize,
            Self::List(list) => list.len(),
            Self::Hash(hash) => hash.len(),
        }
    }

    /// The members as bits, if they are.
    #[inline(always)]
    pub(crate) fn bits(&self) -> Option<&[u64]> {
        if let Self::Bits(bits) = self { Some(&bits.words) } else { None }
    }

    /// Adds or removes `id`; says how many members more there are: one, none, or -1. Which of the two it is, and whether it
    /// changes anything, are as good as random where many ids come and go, so nothing here branches on either.
    #[inline(always)]
    pub(crate) fn set(&mut self, id: u32, member: bool) -> i32 {
        if let Self::Bits(Bits { words, count }) = self
            && let Some(word) = words.get_mut(id as usize / 64)
        {
            let more = set_bit(word, id, member);
            *count = count.wrapping_add_signed(more);
            if (*count as usize) < words.len() / 4 {
                self.become_sparse();
            }
            return more;
        }
        self.set_slowly(id, member)
    }

    #[cold]
    fn set_slowly(&mut self, id: u32, member: bool) -> i32 {
        if member { i32::from(self.insert_slowly(id)) } else { -i32::from(self.remove_slowly(id)) }
    }

    #[inline(always)]
    pub(crate) fn prefetch(&self, id: u32) {
        if let Self::Bits(bits) = self
            && let Some(word) = bits.words.get(id as usize / 64)
        {
            prefetch(word);
        }
    }

    fn remove_slowly(&mut self, id: u32) -> bool {
        match self {
            Self::List(list) => {
                let Some(at) = list.iter().position(|&member| member == id) else {
                    return false;
                };
                list.swap_remove(at);
                true
            }
            Self::Hash(hash) => {
                let was = hash.remove(&id);
                if hash.len() < LIST_MAX / 2 {
                    *self = Self::List(hash.iter().copied().collect());
                }
                was
            }
            Self::Bits(_) => false,
        }
    }

    /// Calls `f` with every member, in no particular order.
    pub(crate) fn for_each(&self, mut f: impl FnMut(u32)) {
        match self {
            Self::List(list) => list.iter().copied().for_each(f),
            Self::Hash(hash) => hash.iter().copied().for_each(f),
            Self::Bits(bits) => for_each_bit(&bits.words, |id| f(id as u32)),
        }
    }

    fn insert_slowly(&mut self, id: u32) -> bool {
        let new = match self {
            Self::List(list) if list.contains(&id) => false,
            Self::List(list) if list.len() < LIST_MAX => {
                list.push(id);
                true
            }
            Self::List(list) => {
                let mut hash: HashSet<u32> = list.iter().copied().collect();
                hash.insert(id);
                *self = Self::Hash(Box::new(hash));
                true
            }
            Self::Hash(hash) => hash.insert(id),
            Self::Bits(Bits { words, count }) => {
                // Past the last word: either the bits grow by a reasonable step, or they are too few for it.
                let needed = id as usize / 64 + 1;
                if needed > (*count as usize + 1) * 2 {
                    self.become_sparse();
                    return self.insert_slowly(id);
                }
                words.resize(needed, 0);
                words[needed - 1] |= 1 << (id % 64);
                *count += 1;
                return true;
            }
        };
        if new {
            self.become_bits_if_dense(id);
        }
        new
    }

    /// Members written out take 4 bytes each, bits 8 for every 64 ids. `newest` saves the look at every
    /// member where it alone is too large.
    fn become_bits_if_dense(&mut self, newest: u32) {
        let words_max = self.len();
        // Looking at every member is worth it now and then only.
        if words_max > LIST_MAX && !words_max.is_multiple_of(32) {
            return;
        }
        if newest as usize / 64 + 1 > words_max {
            return;
        }
        let mut largest = 0;
        self.for_each(|id| largest = largest.max(id));
        let needed = largest as usize / 64 + 1;
        if needed > words_max {
            return;
        }
        let mut words = vec![0; needed];
        self.for_each(|id| words[id as usize / 64] |= 1 << (id % 64));
        *self = Self::Bits(Bits { words, count: self.len() as u32 });
    }

    #[cold]
    fn become_sparse(&mut self) {
        let mut members = HashSet::with_capacity(self.len());
        self.for_each(|id| {
            members.insert(id);
        });
        *self = if members.len() <= LIST_MAX {
            Self::List(members.into_iter().collect())
        } else {
            Self::Hash(Box::new(members))
        };
    }
}

/// Sets the bit of a member, or clears it; says how many members more there are.
#[inline(always)]
pub(crate) fn set_bit(word: &mut u64, id: u32, member: bool) -> i32 {
    let was = *word >> (id % 64) & 1;
    *word ^= (was ^ u64::from(member)) << (id % 64);
    i32::from(member) - was as i32
}

/// Calls `f` with the index of every bit that is set.
#[inline]
pub(crate) fn for_each_bit(words: &[u64], mut f: impl FnMut(usize)) {
    for (at, &word) in words.iter().enumerate() {
        let mut rest = word;
        while rest != 0 {
            f(at * 64 + rest.trailing_zeros() as usize);
            rest &= rest - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(
            steps in prop::collection::vec((any::<bool>(), prop_oneof![0..300u32, 0..100_000u32]), 0..2000),
            drain in any::<bool>(),
        ) {
            let mut set = IdSet::default();
            let mut model = BTreeSet::new();
            for &(insert, id) in &steps {
                let more = if insert { i32::from(model.insert(id)) } else { -i32::from(model.remove(&id)) };
                prop_assert_eq!(set.set(id, insert), more);
                prop_assert_eq!(set.len(), model.len());
            }
            let mut members = Vec::new();
            set.for_each(|id| members.push(id));
            members.sort_unstable();
            prop_assert!(members.iter().eq(&model));
            if drain {
                for id in members {
                    prop_assert_eq!(set.set(id, false), -1);
                }
                prop_assert_eq!(set.len(), 0);
            }
        }
    }

    #[test]
    fn it_takes_the_form_that_is_smallest() {
        let mut set = IdSet::default();
        (0..1000).for_each(|id| assert_eq!(set.set(id, true), 1));
        assert!(matches!(set, IdSet::Bits(_)));
        (0..999).for_each(|id| assert_eq!(set.set(id, false), -1));
        assert!(matches!(set, IdSet::List(_)));
        (0..1000).for_each(|id| assert_eq!(set.set(id * 1_000_000, true), 1));
        assert!(matches!(set, IdSet::Hash(_)));
        let dense = IdSet::of_bits(&[0b11, 0]);
        assert!(matches!(dense, IdSet::Bits(_)) && dense.len() == 2);
        let sparse = IdSet::of_bits(&[0, 0b10]);
        assert!(matches!(sparse, IdSet::List(_)) && sparse.len() == 1);
    }
}
