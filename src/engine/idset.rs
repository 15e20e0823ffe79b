//! A set of small integers. Its memory depends on its members, not on the highest of them.
//!
//! Most users follow a few others, some follow nearly everyone. A set starts as a list in place, becomes a
//! tree when it grows, and a bit set when that takes no more room than the members written out
//! would. It shrinks back the same way. Bits are what fan-out wants: a status update of a user with many
//! followers is one copy of a few words.
//!
//! A tree gives back memory as it shrinks, never has to move all members at once, and knows its largest member.
//!
//! A change of the form costs a step for each member. Two rules keep changes rare. The bound for growing is above the bound
//! for shrinking. A tree becomes bits only after many changes: a quarter of the number of its members. So members that
//! come and go around a bound cause at most one change of form in that many steps.

#![forbid(unsafe_code)]

use super::{
    arch::prefetch,
    bits::{for_each_bit, for_each_bit_from, set_bit},
};
use smallvec::SmallVec;
use std::collections::BTreeSet;

/// Members that are searched one by one.
const LIST_MAX: usize = 16;

/// A set of `u32`.
#[derive(Debug)]
pub(crate) enum IdSet {
    List(SmallVec<[u32; 4]>),
    Tree(Tree),
    Bits(Bits),
}

/// Members in their order.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    members: BTreeSet<u32>,
    /// Changes since it became a tree.
    changes: u32,
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
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bits(bits) => bits.count as usize,
            Self::List(list) => list.len(),
            Self::Tree(tree) => tree.members.len(),
        }
    }

    /// Whether `id` is a member.
    pub(crate) fn contains(&self, id: u32) -> bool {
        match self {
            Self::Bits(Bits { words, .. }) => {
                words.get(id as usize / 64).is_some_and(|word| word >> (id % 64) & 1 != 0)
            }
            Self::List(list) => list.contains(&id),
            Self::Tree(tree) => tree.members.contains(&id),
        }
    }

    /// The members as bits, if they are.
    #[inline(always)]
    pub(crate) fn bits(&self) -> Option<&[u64]> {
        if let Self::Bits(bits) = self { Some(&bits.words) } else { None }
    }

    /// Adds or removes `id`. Returns the change of the number of members: 1, 0 or -1. Branch-free: where many ids come
    /// and go, insert or remove is unpredictable, and so is whether it changes anything.
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
            Self::Tree(Tree { members, changes }) => {
                let was = members.remove(&id);
                *changes = changes.saturating_add(was.into());
                if members.len() < LIST_MAX / 2 {
                    *self = Self::List(members.iter().copied().collect());
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
            Self::Tree(tree) => tree.members.iter().copied().for_each(f),
            Self::Bits(bits) => for_each_bit(&bits.words, |id| f(id as u32)),
        }
    }

    /// Calls `f` with the members from `first` on, in their order, as long as there are steps left. The few of a list are done
    /// at once. Returns where to go on, or nothing if those were all.
    pub(crate) fn for_each_from(&self, first: u32, left: &mut usize, mut f: impl FnMut(u32)) -> Option<u32> {
        match self {
            Self::List(list) => {
                list.iter().copied().filter(|&id| id >= first).for_each(f);
                *left = left.saturating_sub(list.len());
                None
            }
            Self::Tree(tree) => {
                for &id in tree.members.range(first..) {
                    if *left == 0 {
                        return Some(id);
                    }
                    *left -= 1;
                    f(id);
                }
                None
            }
            Self::Bits(bits) => for_each_bit_from(&bits.words, first, left, f),
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
                let members = list.iter().copied().chain([id]).collect();
                *self = Self::Tree(Tree { members, changes: 0 });
                true
            }
            Self::Tree(Tree { members, changes }) => {
                let new = members.insert(id);
                *changes = changes.saturating_add(new.into());
                new
            }
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
            self.become_bits_if_dense();
        }
        new
    }

    /// Members written out take 4 bytes each, bits 8 for every 64 ids.
    fn become_bits_if_dense(&mut self) {
        let words_max = self.len();
        let largest = match self {
            Self::Tree(Tree { members, changes }) if *changes as usize >= members.len() / 4 => {
                members.last().copied()
            }
            Self::List(list) => list.iter().copied().max(),
            _ => None,
        };
        let Some(needed) =
            largest.map(|largest| largest as usize / 64 + 1).filter(|&needed| needed <= words_max)
        else {
            return;
        };
        let mut words = vec![0; needed];
        self.for_each(|id| words[id as usize / 64] |= 1 << (id % 64));
        *self = Self::Bits(Bits { words, count: words_max as u32 });
    }

    #[cold]
    fn become_sparse(&mut self) {
        *self = if self.len() <= LIST_MAX {
            let mut list = SmallVec::new();
            self.for_each(|id| list.push(id));
            Self::List(list)
        } else {
            let mut members = Vec::with_capacity(self.len());
            self.for_each(|id| members.push(id));
            Self::Tree(Tree { members: BTreeSet::from_iter(members), changes: 0 })
        };
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

    /// How often the form changes with these changes.
    fn form_changes(set: &mut IdSet, changes: impl Iterator<Item = (u32, bool)>) -> usize {
        let mut form = std::mem::discriminant(set);
        let mut count = 0;
        for (id, member) in changes {
            set.set(id, member);
            let now = std::mem::discriminant(set);
            count += usize::from(now != form);
            form = now;
        }
        count
    }

    #[test]
    fn whoever_toggles_members_around_a_bound_does_not_change_the_form_each_time() {
        const MEMBERS: u32 = 10_000;
        // A member that is too far away for bits, and one near by, come and go.
        let far_and_near = [(u32::MAX - 9, true), (u32::MAX - 9, false), (0, false), (0, true)];
        for bound in [MEMBERS, 1000] {
            let mut set = IdSet::default();
            (0..bound).for_each(|id| _ = set.set(id, true));
            let toggles = far_and_near.iter().copied().cycle().take(1000);
            assert!(form_changes(&mut set, toggles) <= 2 + 2000 / (bound as usize / 4), "{bound}");
        }
        // A member for each word; too few are left for bits, then one comes and goes.
        let mut set = IdSet::of_bits(&[1; MEMBERS as usize]);
        assert!(matches!(set, IdSet::Bits(_)));
        let leave = (0..MEMBERS * 3 / 4).map(|word| (64 * word, false));
        let last = 64 * (MEMBERS - 1);
        let toggles = (0..1000).map(|step| (last, step % 2 == 1));
        assert!(form_changes(&mut set, leave.chain(toggles)) <= 1);
    }

    #[test]
    fn a_set_takes_as_much_as_the_documentation_says() {
        assert_eq!(size_of::<IdSet>(), 40);
    }

    #[test]
    fn it_takes_the_form_that_is_smallest() {
        let mut set = IdSet::default();
        (0..1000).for_each(|id| assert_eq!(set.set(id, true), 1));
        assert!(matches!(set, IdSet::Bits(_)));
        (0..999).for_each(|id| assert_eq!(set.set(id, false), -1));
        assert!(matches!(set, IdSet::List(_)));
        (0..1000).for_each(|id| assert_eq!(set.set(id * 1_000_000, true), 1));
        assert!(matches!(set, IdSet::Tree(_)));
        let dense = IdSet::of_bits(&[0b11, 0]);
        assert!(matches!(dense, IdSet::Bits(_)) && dense.len() == 2);
        let sparse = IdSet::of_bits(&[0, 0b10]);
        assert!(matches!(sparse, IdSet::List(_)) && sparse.len() == 1);
    }
}
