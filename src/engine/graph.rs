//! The follow graph, and the users in it that are connected.
//!
//! User ids, any 64-bit numbers, are turned into dense *nodes* at the edge; everything behind that is an array. The graph
//! proper is a [relation](super::relation) of nodes, `following`. From it and from who is connected follows `audience`: the
//! connected followers of a node, as *user slots*, the small numbers that fan-out knows its recipients by. It is kept
//! up to date on every follow, unfollow, login and logout, so that a status update costs as much as
//! it has connected followers, not followers. A login or logout costs as much as the user follows; where that is much, it is
//! [spread](super::settling) over several turns. (In a small graph either costs a row of a matrix, at most 256 bytes.)
//!
//! A node that is neither connected nor part of an edge is given back. So memory depends on the graph, not on all ids
//! that were ever seen. When more than three quarters of the nodes have been given back, the graph is made anew without
//! them, as soon as it has few enough edges for that to be done at once.

#![forbid(unsafe_code)]

use super::{
    relation::{Columns, Relation},
    settling::{AT_ONCE_MAX, Node, Settling},
    user_slot::NO_SLOT,
};
use crate::user_id::UserId;
use hashbrown::HashMap;

/// Ids below this are looked up in an array, which is faster than a hash table and takes at most 8 MiB.
const DIRECT_IDS: u64 = 1 << 20;

/// Fewer nodes that have been given back than this are kept for the next ones.
const UNUSED_MIN: usize = if cfg!(test) { 8 } else { 4096 };
/// With more edges than this, making the graph anew would take too long at once: some 10 ms.
const SHRINK_EDGES_MAX: u64 = 1 << 16;

/// The node of every id that is not known. It has no connection, no followers, and follows nobody.
pub(crate) const NOBODY: u32 = 0;

/// An edge of the graph that comes or goes, by the nodes at its ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Edge {
    from: u32,
    to: u32,
    /// The slot of `from`. It stays the same for as long as an edge is on its way: users come and go between runs only.
    slot: u32,
    follows: bool,
}

/// The connected followers of a user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Audience<'a> {
    pub(crate) slots: Columns<'a>,
    /// How many they are.
    pub(crate) len: usize,
}

/// The connected followers of all nodes.
#[derive(Debug)]
struct Audiences {
    /// Per node: their slots. There are columns for all that are connected.
    slots: Relation,
    /// Per node: how many they are.
    sizes: Vec<u32>,
}

impl Audiences {
    #[inline(always)]
    fn of(&self, node: u32) -> Audience<'_> {
        Audience { slots: self.slots.row(node), len: self.sizes[node as usize] as usize }
    }

    #[inline(always)]
    fn set(&mut self, node: u32, slot: u32, follows: bool) {
        let more = self.slots.set(node, slot, follows);
        let size = &mut self.sizes[node as usize];
        *size = size.wrapping_add_signed(more);
    }
}

/// How far a walk over the edges has come: the next edge is the node's first one from the column on. Nodes stay where they
/// are as long as they have edges, and a row is always walked in the order of its columns. So the walk meets every edge that
/// is there from its beginning to its end, whatever changes meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk {
    node: u32,
    column: u32,
}

/// The follow graph with its connected users.
#[derive(Debug)]
pub(crate) struct Graph {
    /// Node of each small id, and the slot of its connection.
    direct: Vec<[u32; 2]>,
    /// Node of each large id.
    hashed: HashMap<UserId, u32>,
    /// Per node: the slot of its connection, or `NO_SLOT`.
    slots: Vec<u32>,
    audiences: Audiences,
    /// Per node: the nodes that it follows. There are columns for all nodes.
    following: Relation,
    /// Per node: how many ends of edges are at it.
    degrees: Vec<u32>,
    /// Per node: the user's id.
    ids: Vec<UserId>,
    free: Vec<u32>,
    /// Nodes that may have become unused.
    fading: Vec<u32>,
    edges: u64,
    /// Users whose audiences do not know yet that they have come or gone.
    settling: Settling,
}

impl Default for Graph {
    fn default() -> Self {
        Self {
            direct: Vec::new(),
            hashed: HashMap::new(),
            slots: vec![NO_SLOT],
            audiences: Audiences { slots: Relation::default(), sizes: vec![0] },
            following: Relation::default(),
            degrees: vec![0],
            ids: vec![UserId::default()],
            free: Vec::new(),
            fading: Vec::new(),
            edges: 0,
            settling: Settling::default(),
        }
    }
}

impl Graph {
    /// The node of an id, and the slot of its connection.
    #[inline(always)]
    fn look_up(&self, id: UserId) -> [u32; 2] {
        match usize::try_from(id.get()).ok().and_then(|id| self.direct.get(id)) {
            Some(&known) => known,
            None => self.look_up_far(id),
        }
    }

    #[inline(never)]
    fn look_up_far(&self, id: UserId) -> [u32; 2] {
        self.hashed.get(&id).map_or([NOBODY, NO_SLOT], |&node| [node, self.slots[node as usize]])
    }

    /// The node of an id.
    #[inline(always)]
    fn node(&self, id: UserId) -> u32 {
        self.look_up(id)[0]
    }

    /// The slot of a user, `NO_SLOT` if it is not connected.
    #[inline(always)]
    pub(crate) fn slot(&self, id: UserId) -> u32 {
        self.look_up(id)[1]
    }

    /// The slots of the connected followers of a user.
    #[inline(always)]
    pub(crate) fn audience(&mut self, id: UserId) -> Audience<'_> {
        let node = self.node(id);
        if self.settling.is_empty() { self.audiences.of(node) } else { self.corrected_audience(node) }
    }

    /// The audience with users that have come or gone, though it has not been told yet.
    #[cold]
    fn corrected_audience(&mut self, node: u32) -> Audience<'_> {
        let Self { audiences, following, settling, .. } = self;
        let Audience { slots, len } = audiences.of(node);
        let (words, len) =
            settling.correct(Node(node), (slots, len), |Node(other)| following.contains(other, node));
        Audience { slots: Columns::Bits(words), len }
    }

    /// Edges of the graph.
    pub(crate) fn edges(&self) -> u64 {
        self.edges
    }

    /// Nodes and slots of the users with small ids, and whether those are all that are known.
    #[inline(always)]
    pub(crate) fn users(&self) -> (&[[u32; 2]], bool) {
        (&self.direct, self.hashed.is_empty())
    }

    /// Finds the ends of an edge, and asks for it to be brought into the cache. Unless it is to be removed, they are made
    /// known; otherwise both are nobody if either is not known.
    #[inline(always)]
    pub(crate) fn locate(&mut self, from: UserId, to: UserId, follows: bool) -> Edge {
        let ([mut from_node, slot], [mut to_node, _]) = (self.look_up(from), self.look_up(to));
        if from_node.min(to_node) == NOBODY {
            [from_node, to_node] = self.make_known(from, to, follows);
        }
        self.following.prefetch(from_node, to_node);
        Edge { from: from_node, to: to_node, slot, follows }
    }

    /// The nodes of two ids. At least one of the ids is not known.
    #[cold]
    fn make_known(&mut self, from: UserId, to: UserId, follows: bool) -> [u32; 2] {
        if follows { [self.intern(from).0, self.intern(to).0] } else { [NOBODY; 2] }
    }

    /// Adds or removes an edge. Says whether its audience is to be told: it stays as it is until then, so that edges can run
    /// ahead of the events that they concern. [`Graph::forget`] comes after that.
    #[inline(always)]
    pub(crate) fn set(&mut self, edge: &Edge) -> bool {
        let &Edge { from, to, slot, follows } = edge;
        if from.min(to) == NOBODY {
            return false;
        }
        let more = self.following.set(from, to, follows);
        let [from_degree, to_degree] = [from, to].map(|node| {
            let degree = &mut self.degrees[node as usize];
            *degree = degree.wrapping_add_signed(more);
            *degree
        });
        if from_degree.min(to_degree) == 0 {
            self.fading.extend([from, to]);
        }
        self.edges = self.edges.wrapping_add_signed(more.into());
        if self.settling.is_empty() { slot != NO_SLOT } else { self.set_while_settling(edge) }
    }

    /// An audience that has the user learns it at once; an audience that has not yet will learn it later. Says whether
    /// the user has come altogether, so that the audience has to be told as usual.
    #[cold]
    fn set_while_settling(&mut self, edge: &Edge) -> bool {
        let Self { audiences, settling, .. } = self;
        let mut has_come = edge.slot != NO_SLOT;
        for entry in settling.entries.iter().filter(|entry| entry.node == Node(edge.from)) {
            has_come &= entry.slot != edge.slot;
            if entry.covers(edge.to) {
                audiences.set(edge.to, entry.slot, edge.follows);
            }
        }
        has_come
    }

    /// Tells the audience that somebody connected has begun or ceased to follow.
    #[inline(always)]
    pub(crate) fn tell(&mut self, edge: &Edge) {
        self.audiences.set(edge.to, edge.slot, edge.follows);
    }

    /// Gives back the nodes that have become unused.
    #[inline(always)]
    pub(crate) fn forget(&mut self) {
        while let Some(node) = self.fading.pop() {
            self.forget_if_unused(Node(node));
        }
    }

    /// Adds or removes an edge that is not part of a run.
    pub(crate) fn change(&mut self, from: UserId, to: UserId, follows: bool) {
        let edge = self.locate(from, to, follows);
        if self.set(&edge) {
            self.tell(&edge);
        }
        self.forget();
    }

    /// Goes on with a walk over all edges, by `budget` steps, give or take a few. Says whether it is over.
    pub(crate) fn walk(&self, walk: &mut Walk, budget: usize, mut edge: impl FnMut(UserId, UserId)) -> bool {
        let mut left = budget.max(2);
        while let Some(&from) = self.ids.get(walk.node as usize) {
            if left == 0 {
                return false;
            }
            left -= 1;
            let row = self.following.row(walk.node);
            if let Some(next) =
                row.for_each_from(walk.column, &mut left, |to| edge(from, self.ids[to as usize]))
            {
                walk.column = next;
                return false;
            }
            *walk = Walk { node: walk.node + 1, column: 0 };
        }
        true
    }

    /// The user `id` is connected, as `slot`. It must not be connected already.
    pub(crate) fn connect(&mut self, id: UserId, slot: u32) {
        let node = self.intern(id);
        debug_assert_eq!(self.slots[node.0 as usize], NO_SLOT);
        self.set_slot(node, slot);
        self.audiences.slots.fit_columns(slot as usize + 1);
        if self.comes_and_goes_at_once(node) {
            self.tell_everyone(node, slot, true);
        } else {
            self.settling.come(node, slot);
        }
    }

    /// The user `id` is not connected any more. Says whether its slot is free; if not, [`Graph::settle`] will say so.
    pub(crate) fn disconnect(&mut self, id: UserId) -> bool {
        let [node, slot] = self.look_up(id);
        if slot == NO_SLOT {
            return true;
        }
        let node = Node(node);
        self.set_slot(node, NO_SLOT);
        let is_free = self.settling.turn_back(slot).unwrap_or_else(|| {
            let at_once = self.comes_and_goes_at_once(node);
            if at_once {
                self.tell_everyone(node, slot, false);
            } else {
                self.settling.go(node, slot);
            }
            at_once
        });
        self.forget_if_unused(node);
        is_free
    }

    fn comes_and_goes_at_once(&self, Node(node): Node) -> bool {
        self.following.row(node).len() <= AT_ONCE_MAX
    }

    /// Users have come or gone, and some audiences have not learnt it yet. Events must be applied one at a time until
    /// they have.
    #[inline(always)]
    pub(crate) fn is_settling(&self) -> bool {
        !self.settling.is_empty()
    }

    /// Continues to update audiences about users that have come or gone, in about `steps` steps. `free` is called with the
    /// slot of each user that has left its last audience.
    pub(crate) fn settle(&mut self, steps: usize, mut free: impl FnMut(u32)) {
        let Self { following, audiences, settling, .. } = self;
        let mut left = steps;
        while left > 0
            && let Some(entry) = settling.entries.front_mut()
        {
            let columns = entry.left();
            let tell = |column| {
                if columns.contains(&column) {
                    audiences.set(column, entry.slot, !entry.leaves);
                }
            };
            let next = following.row(entry.node.0).for_each_from(columns.start, &mut left, tell);
            match next.filter(|next| columns.contains(next)) {
                Some(next) => entry.done_below(next),
                None => {
                    if entry.leaves {
                        free(entry.slot);
                    }
                    settling.entries.pop_front();
                }
            }
        }
    }

    /// A user has come or gone. Updates the audiences of all users that it follows.
    fn tell_everyone(&mut self, Node(node): Node, slot: u32, follows: bool) {
        let Self { following, audiences, .. } = self;
        following.row(node).for_each(|followed| audiences.set(followed, slot, follows));
    }

    fn set_slot(&mut self, Node(node): Node, slot: u32) {
        self.slots[node as usize] = slot;
        let id = usize::try_from(self.ids[node as usize].get()).ok();
        if let Some([_, direct]) = id.and_then(|id| self.direct.get_mut(id)) {
            *direct = slot;
        }
    }

    /// Removes every edge. Only the connected users stay. `free` is called with the slots of users that have gone.
    pub(crate) fn clear_edges(&mut self, free: impl FnMut(u32)) {
        let old = std::mem::take(self);
        old.settling.entries.iter().filter(|entry| entry.leaves).map(|entry| entry.slot).for_each(free);
        for (id, slot) in old.ids.into_iter().zip(old.slots).filter(|&(_, slot)| slot != NO_SLOT) {
            self.connect(id, slot);
        }
    }

    /// Rebuilds the graph without the nodes that have been given back, if most nodes have been, and if that takes few steps.
    /// Whoever walks over the edges must begin again.
    pub(crate) fn shrink(&mut self) {
        let unused = self.free.len();
        let is_due = unused > UNUSED_MIN && 4 * unused > 3 * self.ids.len();
        if !is_due || self.edges > SHRINK_EDGES_MAX.min(16 * unused as u64) || self.is_settling() {
            return;
        }
        let old = std::mem::take(self);
        for (&id, &slot) in old.ids.iter().zip(&old.slots).filter(|&(_, &slot)| slot != NO_SLOT) {
            self.connect(id, slot);
        }
        let mut walk = Walk::default();
        old.walk(&mut walk, usize::MAX, |from, to| self.change(from, to, true));
    }

    /// From here on follows or audiences are kept in the form for large graphs, until the graph is cleared.
    #[cfg(test)]
    pub(crate) fn become_large(&mut self, following: bool, audiences: bool) {
        if following {
            self.following.become_large();
        }
        if audiences {
            self.audiences.slots.become_large();
        }
    }

    fn intern(&mut self, id: UserId) -> Node {
        match self.node(id) {
            NOBODY => self.add_node(id),
            node => Node(node),
        }
    }

    fn add_node(&mut self, id: UserId) -> Node {
        let node = if let Some(node) = self.free.pop() {
            self.ids[node as usize] = id;
            node
        } else {
            self.ids.push(id);
            self.degrees.push(0);
            self.slots.push(NO_SLOT);
            self.audiences.sizes.push(0);
            self.following.fit_columns(self.ids.len());
            self.ids.len() as u32 - 1
        };
        if id.get() < DIRECT_IDS {
            let at = id.get() as usize;
            if self.direct.len() <= at {
                self.direct.resize((at + 1).next_power_of_two(), [NOBODY, NO_SLOT]);
            }
            self.direct[at] = [node, NO_SLOT];
        } else {
            self.hashed.insert(id, node);
        }
        Node(node)
    }

    #[cold]
    fn forget_if_unused(&mut self, Node(node): Node) {
        let at = node as usize;
        let id = self.ids[at];
        let used = self.slots[at] != NO_SLOT || self.degrees[at] != 0;
        // A node that has been given back keeps its last id, which may be another one's by now.
        if used || self.node(id) != node {
            return;
        }
        debug_assert_eq!(self.audiences.sizes[at], 0, "who has no edges has no followers");
        if id.get() < DIRECT_IDS {
            self.direct[id.get() as usize] = [NOBODY, NO_SLOT];
        } else {
            self.hashed.remove(&id);
        }
        self.audiences.slots.forget(node);
        self.following.forget(node);
        self.settling.forget(Node(node));
        self.free.push(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn user(number: u64) -> UserId {
        UserId::new(number)
    }

    /// The ids of users that do nothing.
    const IDLE: u64 = 1000;

    #[derive(Clone, Debug)]
    enum Step {
        Follow(u64, u64),
        Unfollow(u64, u64),
        Connect(u64),
        Disconnect(u64),
        Clear,
        BecomeLarge(bool, bool),
        Settle(usize),
        Shrink,
    }

    fn step() -> impl Strategy<Value = Step> {
        let id = || prop_oneof![0..30u64, DIRECT_IDS - 2..DIRECT_IDS + 3, Just(u64::MAX)];
        prop_oneof![
            8 => (id(), id()).prop_map(|(from, to)| Step::Follow(from, to)),
            6 => (id(), id()).prop_map(|(from, to)| Step::Unfollow(from, to)),
            3 => id().prop_map(Step::Connect),
            3 => id().prop_map(Step::Disconnect),
            1 => Just(Step::Clear),
            1 => any::<(bool, bool)>().prop_map(|(following, audiences)| Step::BecomeLarge(following, audiences)),
            3 => (1..8usize).prop_map(Step::Settle),
            1 => Just(Step::Shrink),
        ]
    }

    /// A graph with this number of connected users that do nothing.
    fn graph_with(idle: u32) -> Graph {
        let mut graph = Graph::default();
        for slot in 0..idle {
            graph.connect(user(IDLE + u64::from(slot)), slot);
        }
        graph
    }

    #[test]
    fn whoever_is_not_known_is_nobody() {
        let mut graph = Graph::default();
        graph.change(user(0), user(1), false);
        graph.disconnect(user(0));
        graph.change(user(2), user(3), true);
        graph.disconnect(user(2));
        graph.change(user(2), user(3), false);
        for id in [0, 1, DIRECT_IDS, u64::MAX] {
            assert_eq!(graph.slot(user(id)), NO_SLOT);
            assert_eq!(graph.audience(user(id)).len, 0);
        }
        assert_eq!(graph.edges(), 0);
        graph.connect(user(0), 7);
        assert_eq!((graph.slot(user(0)), graph.slot(user(1))), (7, NO_SLOT));
    }

    /// How many pairs of a user and a connected follower all audiences know.
    fn told(graph: &Graph) -> u32 {
        graph.audiences.sizes.iter().sum()
    }

    #[test]
    fn a_login_and_a_logout_take_no_more_steps_at_once_than_they_may() {
        // A word of bits and its members are done together.
        const STEPS: u32 = 66;
        for large in [false, true] {
            let mut graph = graph_with(10);
            graph.become_large(large, large);
            (0..1000).for_each(|to| graph.change(user(5000), user(to), true));
            graph.connect(user(5000), 20);
            assert_eq!(told(&graph), 0);
            for id in [0, 999] {
                assert_eq!(graph.audience(user(id)).len, 1, "nobody can tell the difference");
            }
            let mut turns = 0;
            while graph.is_settling() {
                let before = told(&graph);
                graph.settle(1, |_| panic!("nobody has gone"));
                assert!(told(&graph) - before <= STEPS);
                turns += 1;
            }
            assert!(turns >= 1000 / STEPS);
            assert_eq!(told(&graph), 1000);
            assert!(!graph.disconnect(user(5000)), "the slot is not free yet");
            assert_eq!((told(&graph), graph.audience(user(0)).len), (1000, 0));
            let mut freed = Vec::new();
            while graph.is_settling() {
                graph.settle(1, |slot| freed.push(slot));
            }
            assert_eq!((told(&graph), freed), (0, vec![20]));
        }
    }

    #[test]
    fn who_only_comes_and_goes_leaves_nothing_to_be_done() {
        let mut graph = graph_with(10);
        (0..1000).for_each(|to| graph.change(user(5000), user(to), true));
        for _ in 0..1000 {
            graph.connect(user(5000), 20);
            graph.settle(1, |_| ());
            if graph.disconnect(user(5000)) {
                continue;
            }
            graph.connect(user(5000), 21);
            assert!(graph.disconnect(user(5000)), "it has not begun to come");
            while graph.is_settling() {
                graph.settle(1, |_| ());
            }
        }
        assert!(graph.settling.entries.capacity() < 16);
    }

    #[test]
    fn a_graph_that_has_become_small_is_made_anew() {
        let mut graph = graph_with(10);
        (0..5000).for_each(|id| graph.change(user(DIRECT_IDS + id), user(2 * DIRECT_IDS + id), true));
        let mut shrunk = 0;
        for id in 0..4999 {
            graph.change(user(DIRECT_IDS + id), user(2 * DIRECT_IDS + id), false);
            let nodes = graph.ids.len();
            graph.shrink();
            shrunk += u32::from(graph.ids.len() < nodes);
        }
        assert!((2..20).contains(&shrunk), "made anew {shrunk} times: now and then, not at every step");
        assert_eq!((graph.edges(), graph.audience(user(2 * DIRECT_IDS + 4999)).len), (1, 0));
        assert!(graph.ids.len() < 64 && graph.hashed.capacity() < 128);
        graph.connect(user(DIRECT_IDS + 4999), 77);
        assert_eq!(graph.audience(user(2 * DIRECT_IDS + 4999)).len, 1);
    }

    proptest! {
        #[test]
        fn the_audience_is_the_connected_followers(
            steps in prop::collection::vec(step(), 0..300),
            idle in prop_oneof![Just(0), 0..200u32],
        ) {
            let mut graph = graph_with(idle);
            let mut edges: BTreeSet<(u64, u64)> = BTreeSet::new();
            let mut connected: BTreeMap<u64, u32> = BTreeMap::new();
            let mut free: Vec<u32> = (idle..idle + 100).rev().collect();
            for step in steps {
                match step {
                    Step::Follow(from, to) => {
                        edges.insert((from, to));
                        graph.change(user(from), user(to), true);
                    }
                    Step::Unfollow(from, to) => {
                        edges.remove(&(from, to));
                        graph.change(user(from), user(to), false);
                    }
                    Step::Connect(id) => {
                        if let std::collections::btree_map::Entry::Vacant(entry) = connected.entry(id) {
                            let slot = *entry.insert(free.pop().unwrap());
                            graph.connect(user(id), slot);
                        }
                    }
                    Step::Disconnect(id) => {
                        if let Some(slot) = connected.remove(&id)
                            && graph.disconnect(user(id))
                        {
                            free.push(slot);
                        }
                    }
                    Step::Clear => {
                        edges.clear();
                        graph.clear_edges(|slot| free.push(slot));
                    }
                    Step::BecomeLarge(following, audiences) => graph.become_large(following, audiences),
                    Step::Settle(steps) => graph.settle(steps, |slot| free.push(slot)),
                    Step::Shrink => graph.shrink(),
                }
                prop_assert_eq!(graph.edges(), edges.len() as u64);
                let known: BTreeSet<u64> =
                    edges.iter().flat_map(|&(from, to)| [from, to]).chain(connected.keys().copied()).collect();
                prop_assert_eq!(graph.ids.len() - 1 - graph.free.len(), idle as usize + known.len(), "nodes are given back");
                for &id in &known {
                    prop_assert_eq!(graph.slot(user(id)), connected.get(&id).copied().unwrap_or(NO_SLOT));
                    let mut audience = Vec::new();
                    graph.audience(user(id)).slots.for_each(|slot| audience.push(slot));
                    prop_assert_eq!(graph.audience(user(id)).len, audience.len());
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
