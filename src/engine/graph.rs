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

use super::{cpu::Cpu, idset::IdSet, run::Sorted, sequencer::Slot};
use hashbrown::HashMap;

/// No node, or no slot.
pub(crate) const NONE: u32 = u32::MAX;

/// Ids below this are looked up in an array, which is faster than a hash table and takes at most 8 MiB.
const DIRECT_IDS: u64 = 1 << 20;

/// The node of every id that is not known. It has no connection, no followers, and follows nobody.
pub(crate) const NOBODY: usize = 0;

/// An edge of the graph that comes or goes, by the nodes at its ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Edge {
    from: u32,
    to: u32,
    follows: bool,
}

/// The follow graph with its connected users.
#[derive(Debug)]
pub(crate) struct Graph {
    /// Node of each small id, and the slot of its connection.
    direct: Vec<[u32; 2]>,
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
    /// Nodes that may have become unused.
    fading: Vec<u32>,
    edges: u64,
}

impl Default for Graph {
    fn default() -> Self {
        Self {
            direct: Vec::new(),
            hashed: HashMap::new(),
            slots: vec![NONE],
            audience: vec![IdSet::default()],
            following: vec![IdSet::default()],
            followers: vec![0],
            ids: vec![0],
            free: Vec::new(),
            fading: Vec::new(),
            edges: 0,
        }
    }
}

impl Graph {
    /// What is known about an id that is small.
    #[inline(always)]
    fn direct(&self, id: u64) -> Option<&[u32; 2]> {
        self.direct.get(usize::try_from(id).ok()?)
    }

    /// The node of an id.
    #[inline(always)]
    fn node(&self, id: u64) -> usize {
        let node = self.direct(id).map(|[node, _]| node).or_else(|| self.hashed.get(&id));
        node.map_or(NOBODY, |&node| node as usize)
    }

    /// The slot of a user, `NONE` if it is not connected.
    #[inline(always)]
    pub(crate) fn slot(&self, id: u64) -> u32 {
        match self.direct(id) {
            Some(&[_, slot]) => slot,
            None => self.hashed.get(&id).map_or(NONE, |&node| self.slots[node as usize]),
        }
    }

    /// The slots of the connected followers of a user.
    #[inline(always)]
    pub(crate) fn audience(&self, id: u64) -> &IdSet {
        &self.audience[self.node(id)]
    }

    /// Edges of the graph.
    pub(crate) fn edges(&self) -> u64 {
        self.edges
    }

    /// Sorts a run several events at a time. Says whether it could.
    #[inline(always)]
    pub(crate) fn sort(&self, cpu: Cpu, run: &[Slot], sorted: &mut Sorted) -> bool {
        cpu.sort(run, &self.direct, self.hashed.is_empty(), sorted)
    }

    /// Finds the ends of an edge, and asks for it to be brought into the cache. Unless it is to be removed, they are made
    /// known; otherwise both are nobody if either is not known.
    #[inline(always)]
    pub(crate) fn locate(&mut self, from: u64, to: u64, follows: bool) -> Edge {
        let (mut from_node, mut to_node) = (self.node(from), self.node(to));
        if from_node.min(to_node) == NOBODY {
            (from_node, to_node) = self.make_known(from, to, follows);
        }
        self.following[from_node].prefetch(to_node as u32);
        Edge { from: from_node as u32, to: to_node as u32, follows }
    }

    /// The nodes of two ids of which one at least is not known.
    #[cold]
    fn make_known(&mut self, from: u64, to: u64, follows: bool) -> (usize, usize) {
        if follows { (self.intern(from), self.intern(to)) } else { (NOBODY, NOBODY) }
    }

    /// Adds or removes an edge. Says whether its audience is to be told: it stays as it is until then, so that edges can run
    /// ahead of the events that they concern. [`Graph::forget`] comes after that.
    #[inline(always)]
    pub(crate) fn set(&mut self, edge: &Edge) -> bool {
        let &Edge { from, to, follows } = edge;
        if from.min(to) == NOBODY as u32 {
            return false;
        }
        let following = &mut self.following[from as usize];
        let more = following.set(to, follows);
        let followers = &mut self.followers[to as usize];
        *followers = followers.wrapping_add_signed(more);
        if *followers == 0 || following.is_empty() {
            self.fading.extend([from, to]);
        }
        self.edges = self.edges.wrapping_add_signed(more.into());
        self.slots[from as usize] != NONE
    }

    /// Tells the audience that somebody connected has begun or ceased to follow.
    #[inline(always)]
    pub(crate) fn tell(&mut self, edge: &Edge) {
        self.audience[edge.to as usize].set(self.slots[edge.from as usize], edge.follows);
    }

    /// Gives back the nodes that have become unused.
    #[inline(always)]
    pub(crate) fn forget(&mut self) {
        while let Some(node) = self.fading.pop() {
            self.forget_if_unused(node as usize);
        }
    }

    /// The user `id` is connected, as `slot`. It must not be connected already.
    pub(crate) fn connect(&mut self, id: u64, slot: u32) {
        let node = self.intern(id);
        debug_assert_eq!(self.slots[node], NONE);
        self.set_slot(node, slot);
        let Self { following, audience, .. } = self;
        following[node].for_each(|followed| {
            audience[followed as usize].insert(slot);
        });
    }

    /// The user `id` is not connected any more.
    pub(crate) fn disconnect(&mut self, id: u64) {
        let node = self.node(id);
        if node == NOBODY {
            return;
        }
        let slot = self.slots[node];
        self.set_slot(node, NONE);
        let Self { following, audience, .. } = self;
        following[node].for_each(|followed| {
            audience[followed as usize].remove(slot);
        });
        self.forget_if_unused(node);
    }

    fn set_slot(&mut self, node: usize, slot: u32) {
        self.slots[node] = slot;
        if let Some([_, direct]) = self.direct.get_mut(self.ids[node] as usize) {
            *direct = slot;
        }
    }

    /// Removes every edge.
    pub(crate) fn clear_edges(&mut self) {
        for node in NOBODY + 1..self.ids.len() {
            self.audience[node] = IdSet::default();
            self.following[node] = IdSet::default();
            self.followers[node] = 0;
        }
        self.edges = 0;
        for node in NOBODY + 1..self.ids.len() {
            self.forget_if_unused(node);
        }
    }

    fn intern(&mut self, id: u64) -> usize {
        match self.node(id) {
            NOBODY => self.add_node(id),
            node => node,
        }
    }

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
                self.direct.resize((id as usize + 1).next_power_of_two(), [NOBODY as u32, NONE]);
            }
            self.direct[id as usize] = [index, NONE];
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
        if used || self.node(id) != node {
            return;
        }
        if id < DIRECT_IDS {
            self.direct[id as usize] = [NOBODY as u32, NONE];
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

    fn change(graph: &mut Graph, from: u64, to: u64, follows: bool) {
        let edge = graph.locate(from, to, follows);
        if graph.set(&edge) {
            graph.tell(&edge);
        }
        graph.forget();
    }

    #[test]
    fn whoever_is_not_known_is_nobody() {
        let mut graph = Graph::default();
        change(&mut graph, 0, 1, false);
        graph.disconnect(0);
        for id in [0, 1, DIRECT_IDS, u64::MAX] {
            assert_eq!(graph.slot(id), NONE);
            assert!(graph.audience(id).is_empty());
        }
        assert_eq!(graph.edges(), 0);
        graph.connect(0, 7);
        assert_eq!((graph.slot(0), graph.slot(1)), (7, NONE));
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
                        change(&mut graph, from, to, true);
                    }
                    Step::Unfollow(from, to) => {
                        edges.remove(&(from, to));
                        change(&mut graph, from, to, false);
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
                prop_assert_eq!(graph.ids.len() - 1 - graph.free.len(), known.len(), "nodes are given back");
                for &id in &known {
                    prop_assert_eq!(graph.slot(id), connected.get(&id).copied().unwrap_or(NONE));
                    let mut audience = Vec::new();
                    graph.audience(id).for_each(|slot| audience.push(slot));
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
