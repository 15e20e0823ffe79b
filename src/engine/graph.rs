//! Who follows whom, and which of them are connected.
//!
//! User ids, any 64-bit numbers, are turned into dense *nodes* at the edge; everything behind that is an array. The graph
//! proper is one set per node, `following`. From it and from who is connected follows `audience`: the
//! connected followers of a node, as *user slots*, the small numbers that fan-out knows its recipients by. It is kept
//! up to date on every follow, unfollow, login and logout, so that a status update costs as much as
//! it has connected followers, not followers; a login costs as much as the user follows.
//!
//! A node that is neither connected nor part of any edge is given back, so memory is the graph's, not that
//! of every id ever seen.

use super::idset::IdSet;
use hashbrown::HashMap;

/// No node, or no slot.
pub(crate) const NONE: u32 = u32::MAX;

/// Ids below this are looked up in an array, which is faster than a hash table and takes at most 4 MiB.
const DIRECT_IDS: u64 = 1 << 20;

/// The follow graph with its connected users.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// Node of each small id.
    direct: Vec<u32>,
    /// Node of each large id.
    hashed: HashMap<u64, u32>,
    /// Per node: the slot of its connection, or `NONE`.
    slots: Vec<u32>,
    /// Per node: the slots of its connected followers.
    audience: Vec<IdSet>,
    /// Per node: the nodes that it follows.
    following: Vec<IdSet>,
    /// Per node: how many follow it, connected or not.
    followers: Vec<u32>,
    /// Per node: the user's id.
    ids: Vec<u64>,
    free: Vec<u32>,
    edges: u64,
}

impl Graph {
    /// The node of a user that is known.
    #[inline(always)]
    pub(crate) fn node(&self, id: u64) -> Option<usize> {
        let node = if id < DIRECT_IDS {
            self.direct.get(id as usize).copied().unwrap_or(NONE)
        } else {
            self.hashed.get(&id).copied().unwrap_or(NONE)
        };
        (node != NONE).then_some(node as usize)
    }

    /// The slot of a connected user.
    #[inline(always)]
    pub(crate) fn slot(&self, id: u64) -> Option<u32> {
        let slot = self.slots[self.node(id)?];
        (slot != NONE).then_some(slot)
    }

    /// The slots of the connected followers of a node.
    #[inline]
    pub(crate) fn audience(&self, node: usize) -> &IdSet {
        &self.audience[node]
    }

    /// Edges of the graph.
    pub(crate) fn edges(&self) -> u64 {
        self.edges
    }

    /// `from` follows `to`. Returns the slot of `to`, `NONE` if it is not connected.
    ///
    /// Whether the edge is new is as good as random, so nothing here branches on it.
    #[inline(always)]
    pub(crate) fn follow(&mut self, from: u64, to: u64) -> u32 {
        let from = self.intern(from);
        let to = self.intern(to);
        let new = self.following[from].insert(to as u32);
        self.edges += u64::from(new);
        self.followers[to] += u32::from(new);
        if self.slots[from] != NONE {
            self.audience[to].insert(self.slots[from]);
        }
        self.slots[to]
    }

    /// `from` stops following `to`.
    #[inline(always)]
    pub(crate) fn unfollow(&mut self, from: u64, to: u64) {
        let (Some(from), Some(to)) = (self.node(from), self.node(to)) else {
            return;
        };
        let was = self.following[from].remove(to as u32);
        self.edges -= u64::from(was);
        self.followers[to] -= u32::from(was);
        if self.slots[from] != NONE {
            self.audience[to].remove(self.slots[from]);
        }
        if self.followers[to] == 0 || self.following[from].is_empty() {
            self.forget_if_unused(from);
            self.forget_if_unused(to);
        }
    }

    /// The user `id` is connected, as `slot`. It must not be connected already.
    pub(crate) fn connect(&mut self, id: u64, slot: u32) {
        let node = self.intern(id);
        debug_assert_eq!(self.slots[node], NONE);
        self.slots[node] = slot;
        let Self { following, audience, .. } = self;
        following[node].for_each(|followed| {
            audience[followed as usize].insert(slot);
        });
    }

    /// The user `id` is not connected any more.
    pub(crate) fn disconnect(&mut self, id: u64) {
        let Some(node) = self.node(id) else {
            return;
        };
        let slot = std::mem::replace(&mut self.slots[node], NONE);
        let Self { following, audience, .. } = self;
        following[node].for_each(|followed| {
            audience[followed as usize].remove(slot);
        });
        self.forget_if_unused(node);
    }

    /// Removes every edge.
    pub(crate) fn clear_edges(&mut self) {
        for node in 0..self.ids.len() {
            self.audience[node] = IdSet::default();
            self.following[node] = IdSet::default();
            self.followers[node] = 0;
        }
        self.edges = 0;
        for node in 0..self.ids.len() {
            self.forget_if_unused(node);
        }
    }

    #[inline(always)]
    fn intern(&mut self, id: u64) -> usize {
        match self.node(id) {
            Some(node) => node,
            None => self.add_node(id),
        }
    }

    #[cold]
    fn add_node(&mut self, id: u64) -> usize {
        let index = if let Some(index) = self.free.pop() {
            self.ids[index as usize] = id;
            index
        } else {
            self.ids.push(id);
            self.followers.push(0);
            self.slots.push(NONE);
            self.audience.push(IdSet::default());
            self.following.push(IdSet::default());
            self.ids.len() as u32 - 1
        };
        if id < DIRECT_IDS {
            if self.direct.len() <= id as usize {
                self.direct.resize((id as usize + 1).next_power_of_two(), NONE);
            }
            self.direct[id as usize] = index;
        } else {
            self.hashed.insert(id, index);
        }
        index as usize
    }

    #[cold]
    fn forget_if_unused(&mut self, node: usize) {
        let id = self.ids[node];
        let used = self.slots[node] != NONE || self.followers[node] != 0 || !self.following[node].is_empty();
        // A node that has been given back keeps its last id, which may be another one's by now.
        if used || self.node(id) != Some(node) {
            return;
        }
        if id < DIRECT_IDS {
            self.direct[id as usize] = NONE;
        } else {
            self.hashed.remove(&id);
        }
        self.audience[node] = IdSet::default();
        self.following[node] = IdSet::default();
        self.free.push(node as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[derive(Clone, Debug)]
    enum Step {
        Follow(u64, u64),
        Unfollow(u64, u64),
        Connect(u64),
        Disconnect(u64),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        let id = || prop_oneof![0..30u64, DIRECT_IDS - 2..DIRECT_IDS + 3, Just(u64::MAX)];
        prop_oneof![
            8 => (id(), id()).prop_map(|(from, to)| Step::Follow(from, to)),
            6 => (id(), id()).prop_map(|(from, to)| Step::Unfollow(from, to)),
            3 => id().prop_map(Step::Connect),
            3 => id().prop_map(Step::Disconnect),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn the_audience_is_the_connected_followers(steps in prop::collection::vec(step(), 0..300)) {
            let mut graph = Graph::default();
            let mut edges: BTreeSet<(u64, u64)> = BTreeSet::new();
            let mut connected: BTreeMap<u64, u32> = BTreeMap::new();
            let mut free: Vec<u32> = (0..100).rev().collect();
            for step in steps {
                match step {
                    Step::Follow(from, to) => {
                        edges.insert((from, to));
                        prop_assert_eq!(graph.follow(from, to), connected.get(&to).copied().unwrap_or(NONE));
                    }
                    Step::Unfollow(from, to) => {
                        edges.remove(&(from, to));
                        graph.unfollow(from, to);
                    }
                    Step::Connect(id) => {
                        if let std::collections::btree_map::Entry::Vacant(entry) = connected.entry(id) {
                            let slot = *entry.insert(free.pop().unwrap());
                            graph.connect(id, slot);
                        }
                    }
                    Step::Disconnect(id) => {
                        if let Some(slot) = connected.remove(&id) {
                            free.push(slot);
                            graph.disconnect(id);
                        }
                    }
                    Step::Clear => {
                        edges.clear();
                        graph.clear_edges();
                    }
                }
                prop_assert_eq!(graph.edges(), edges.len() as u64);
                let known: BTreeSet<u64> =
                    edges.iter().flat_map(|&(from, to)| [from, to]).chain(connected.keys().copied()).collect();
                prop_assert_eq!(graph.ids.len() - graph.free.len(), known.len(), "nodes are given back");
                for &id in &known {
                    prop_assert_eq!(graph.slot(id), connected.get(&id).copied());
                    let mut audience = Vec::new();
                    graph.audience(graph.node(id).unwrap()).for_each(|slot| audience.push(slot));
                    audience.sort_unstable();
                    let mut expected: Vec<u32> = edges
                        .iter()
                        .filter(|&&(_, to)| to == id)
                        .filter_map(|(from, _)| connected.get(from).copied())
                        .collect();
                    expected.sort_unstable();
                    prop_assert_eq!(audience, expected);
                }
            }
        }
    }
}
