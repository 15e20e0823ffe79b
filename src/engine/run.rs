//! Applying a run: events that follow each other in the ring and leave it together.
//!
//! The type of an event is unpredictable: a branch on it is mispredicted for two events out of three. But an event does
//! at most two things, and most do one. A follow or an unfollow changes an edge. Every event but an unfollow is *due*
//! to somebody. So a run is *partitioned* first, without a branch, into changes of edges and events that are due. Then
//! each part has a loop of its own:
//!
//! 1. Edges are changed. Those of connected followers change an audience, which is noted but not done yet.
//! 2. Events that are due are put into the fan-out, in order. Before each event, the audience learns the changes up to
//!    there.
//!
//! So every status update meets exactly the audience that it would have met if events had been applied one by one.
//! Users come and go between runs only.

#![forbid(unsafe_code)]

use super::counters::EngineCounters;
use super::{
    arch::{
        Cpu,
        partition::{Partition, RUN},
        portable,
    },
    event::Kind,
    fanout::FanOut,
    graph::{Edge, Graph},
    packed::Packed,
    text::Text,
    user_slot::NO_SLOT,
};
use crate::user_id::UserId;

const FOLLOW: u8 = Kind::Follow as u8;
const UNFOLLOW: u8 = Kind::Unfollow as u8;
const BROADCAST: u8 = Kind::Broadcast as u8;
const PRIVATE: u8 = Kind::Private as u8;
const STATUS: u8 = Kind::Status as u8;

/// Applies runs. It keeps only buffers from one run to the next.
#[derive(Debug)]
pub(crate) struct Runner {
    cpu: Cpu,
    partition: Partition,
    edges: [Edge; RUN],
    /// What audiences are to be told: where the edge is in `edges`, and the place of its event. One more, behind all places.
    news: [(u32, u32); RUN + 1],
}

impl Runner {
    pub(crate) fn new(cpu: Cpu) -> Self {
        Self { cpu, partition: Partition::EMPTY, edges: [Edge::default(); RUN], news: [(0, 0); RUN + 1] }
    }

    /// Applies a run of at most [`RUN`] ordinary events; `text` is the text of the one at a place.
    #[inline(always)]
    pub(crate) fn apply<'a>(
        &mut self,
        run: &[Packed],
        graph: &mut Graph,
        fanout: &mut FanOut,
        counters: &mut EngineCounters,
        text: impl Fn(usize, Packed) -> Text<'a>,
    ) {
        self.partition(run, graph, counters);
        self.change_edges(run, graph);
        let mut told = 0;
        let due = self.partition.due.iter().zip(&self.partition.targets).take(self.partition.due_count);
        for (&place, &target) in due {
            self.tell(&mut told, place, graph);
            let slot = run[place as usize];
            let text = text(place as usize, slot);
            counters.deliveries += match slot.kind() {
                STATUS => fanout.multicast(graph.audience(UserId::new(slot.from())), text),
                BROADCAST => fanout.broadcast(text),
                _ => fanout.unicast(target, text),
            } as u64;
        }
        self.tell(&mut told, RUN as u32, graph);
        graph.forget();
    }

    /// Updates audiences by the changes before a place. `told` counts the changes that are done.
    #[inline(always)]
    fn tell(&self, told: &mut usize, place: u32, graph: &mut Graph) {
        while let Some(&(edge, at)) = self.news.get(*told)
            && at < place
        {
            graph.tell(&self.edges[edge as usize % RUN]);
            *told += 1;
        }
    }

    #[inline(always)]
    fn partition(&mut self, run: &[Packed], graph: &Graph, counters: &mut EngineCounters) {
        partition(self.cpu, run, graph, &mut self.partition);
        for (count, more) in counters.events_released.iter_mut().zip(&mut self.partition.kinds) {
            *count += std::mem::take(more);
        }
    }

    /// Changes the edges, and notes what audiences have to learn. The edges are found first: they are all over the memory,
    /// and are on their way to the cache while the next ones are found. On its own, it has all registers to itself.
    #[inline(never)]
    fn change_edges(&mut self, run: &[Packed], graph: &mut Graph) {
        let places = &self.partition.edges[..self.partition.edge_count];
        for (&place, edge) in places.iter().zip(&mut self.edges) {
            let slot = run[place as usize];
            *edge = graph.locate(UserId::new(slot.from()), UserId::new(slot.to()), slot.kind() == FOLLOW);
        }
        let mut count = 0;
        for (at, (&place, edge)) in places.iter().zip(&self.edges).enumerate() {
            self.news[count % RUN] = (at as u32, place);
            count += usize::from(graph.set(edge));
        }
        self.news[count] = (0, u32::MAX);
    }
}

/// Takes a run apart, several events at a time if the processor can and the graph allows it.
#[inline(always)]
fn partition(cpu: Cpu, run: &[Packed], graph: &Graph, partition: &mut Partition) {
    let (users, is_all) = graph.users();
    if !cpu.partition(run, users, is_all, partition) {
        portable::partition::partition(run, |id| graph.slot(UserId::new(id)), partition);
    }
}

/// Applies an event whose ids or text do not fit a slot of the ring.
pub(crate) fn apply_one(
    kind: u8,
    (from, to): (UserId, UserId),
    text: Text<'_>,
    graph: &mut Graph,
    fanout: &mut FanOut,
    counters: &mut EngineCounters,
) {
    counters.events_released[usize::from(kind)] += 1;
    if kind <= UNFOLLOW {
        graph.change(from, to, kind == FOLLOW);
    }
    counters.deliveries += match kind {
        STATUS => fanout.multicast(graph.audience(from), text),
        BROADCAST => fanout.broadcast(text),
        FOLLOW | PRIVATE if graph.slot(to) != NO_SLOT => fanout.unicast(graph.slot(to), text),
        _ => 0,
    } as u64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::packed::FRESH;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn side_by_side_or_one_by_one_a_run_is_the_same(
            events in prop::collection::vec((1..7u8, any::<u32>(), prop_oneof![0..70u32, Just(u32::MAX)]), 1..=RUN),
            connected in prop::collection::vec(any::<bool>(), 39),
            far in any::<bool>(),
        ) {
            let mut graph = Graph::default();
            for (id, slot) in (0..).zip(0..).zip(connected).filter_map(|(user, connected)| connected.then_some(user)) {
                graph.connect(UserId::new(id), slot);
            }
            graph.connect(UserId::new(39), 99);
            if far {
                graph.connect(UserId::new(u32::MAX.into()), 100);
            }
            let run: Vec<Packed> = events.iter().map(|&(kind, from, to)| Packed::new(kind, FRESH, from, to, 0, 9)).collect();
            let mut alone = Partition::EMPTY;
            portable::partition::partition(&run, |id| graph.slot(UserId::new(id)), &mut alone);
            for kind in 1..7 {
                let count = events.iter().filter(|event| event.0 == kind).count();
                prop_assert_eq!(alone.kinds[usize::from(kind)], count as u64);
            }
            for (version, cpu) in Cpu::all().into_iter().enumerate() {
                let mut together = Partition::EMPTY;
                let (users, is_all) = graph.users();
                if !cpu.partition(&run, users, is_all, &mut together) {
                    // There is room for 64 ids where they are looked up.
                    let is_elsewhere = |&(kind, _, to): &(u8, u32, u32)| to >= 64 && matches!(kind, FOLLOW | PRIVATE);
                    prop_assert!(version == 0 || far && events.iter().any(is_elsewhere));
                    prop_assert_eq!(together.kinds, [0; 8], "nothing has been done");
                    continue;
                }
                prop_assert_eq!(together.kinds, alone.kinds);
                let edges = |partition: &Partition| partition.edges[..partition.edge_count].to_vec();
                prop_assert_eq!(edges(&together), edges(&alone));
                let due = |partition: &Partition| {
                    let due = partition.due[..partition.due_count].iter().zip(&partition.targets);
                    // The recipients of a broadcast or a status update are not known yet.
                    due.map(|(&place, &target)| {
                        let one = matches!(run[place as usize].kind(), FOLLOW | PRIVATE);
                        (place, if one { target } else { 0 })
                    }).collect::<Vec<_>>()
                };
                prop_assert_eq!(due(&together), due(&alone));
            }
        }
    }

    #[test]
    fn a_run_that_is_all_of_a_kind_is_counted() {
        let mut graph = Graph::default();
        graph.connect(UserId::new(2), 0);
        for kind in 1..7 {
            let run = [Packed::new(kind, FRESH, 1, 2, 0, 9); RUN];
            let mut expected = [0; 8];
            expected[usize::from(kind)] = RUN as u64;
            let mut alone = Partition::EMPTY;
            portable::partition::partition(&run, |id| graph.slot(UserId::new(id)), &mut alone);
            assert_eq!(alone.kinds, expected);
            for cpu in Cpu::all().into_iter().skip(1) {
                let mut together = Partition::EMPTY;
                let (users, is_all) = graph.users();
                assert!(cpu.partition(&run, users, is_all, &mut together));
                assert_eq!(together.kinds, expected);
            }
        }
    }
}
