//! The stages of the engine one by one, so that `benches/stages.rs` can measure each alone. Part of the library only
//! with the feature `stages`, which nothing but that benchmark turns on.
//!
//! They are the engine's own parts, called in the order and in the portions in which [`Engine`](super::Engine) calls them.

#![forbid(unsafe_code)]

use super::counters::EngineCounters;
use super::{
    arch::{
        Cpu, Lines,
        batch::BATCH_LINES,
        instruction_set::InstructionSet,
        partition::RUN,
        scan::{scan_line, window},
    },
    event::parse_line,
    fanout::{FanOut, TurnLimits},
    graph::Graph,
    packed::{FRESH, Packed},
    run::Runner,
    sequencer::Sequencer,
    text::Text,
};
use crate::user_id::UserId;
use std::{iter, ops::Range};

/// Parse: reads the ordinary lines in `chunk[range]`, up to the first other one. Returns how many there are, and the sum
/// of their numbers.
#[must_use]
pub fn parse(chunk: &[u8], range: Range<usize>) -> (usize, u64) {
    let (mut lines, mut sum) = (0, 0u64);
    let mut at = range.start;
    let chunk = &chunk[..range.end];
    let (cpu, mut batch) = (Cpu::up_to(InstructionSet::default()), Lines::default());
    while let Some(next) = cpu.scan(chunk, at, &mut batch) {
        at = next;
        lines += batch.len();
        let lines = batch.seqs().iter().zip(batch.slots(0));
        sum = lines.fold(sum, |sum, (seq, slot)| sum.wrapping_add(seq ^ slot.from() ^ slot.to()));
        if batch.len() < BATCH_LINES {
            break;
        }
    }
    while at < chunk.len()
        && let Some(scanned) = window(chunk, at).and_then(scan_line)
    {
        lines += 1;
        sum = sum.wrapping_add(scanned.seq ^ u64::from(scanned.from) ^ u64::from(scanned.to));
        at += scanned.len;
    }
    (lines, sum)
}

/// Sequence: the ring, for events that are nothing but a number.
#[derive(Debug)]
pub struct Ring(Sequencer);

impl Ring {
    /// An empty ring of `capacity` slots, a power of two, its cursor at 0.
    ///
    /// # Panics
    ///
    /// If the capacity is no power of two.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(Sequencer::new(capacity, 0, None, u64::MAX))
    }

    /// Puts events into the ring, numbered from the cursor on, and takes out those that are at the cursor. Returns how many
    /// came out.
    pub fn sequence(&mut self, numbers: &[u64]) -> usize {
        let first = self.0.cursor() as u64;
        let mut released = 0;
        for batch in numbers.chunks(BATCH_LINES) {
            let mut seqs = [0; BATCH_LINES];
            let seqs = &mut seqs[..batch.len()];
            for (seq, number) in seqs.iter_mut().zip(batch) {
                *seq = first + number;
            }
            let slot = Packed::new(3, FRESH, 0, 0, 0, 1);
            let mut done = self.0.put_many(seqs, iter::repeat(slot));
            while let Some(&seq) = seqs.get(done) {
                self.0.put(seq, slot);
                done += 1;
                done += self.0.put_many(&seqs[done..], iter::repeat(slot));
            }
            loop {
                let len = self.0.run(RUN).1.len();
                if len == 0 {
                    break;
                }
                self.0.take(len);
                released += len;
            }
            self.0.update_reach();
        }
        // One byte of text is enough for all that wait.
        self.0.settle(&[0], 0, 0);
        released
    }
}

/// Events in the order of their numbers, and their lines.
#[derive(Clone, Debug, Default)]
pub struct Events {
    slots: Vec<Packed>,
    text: Vec<u8>,
}

impl Events {
    /// The events of `lines`, each with its line end. Lines that are no events are left out.
    ///
    /// # Panics
    ///
    /// If a user id does not fit 32 bits.
    pub fn new<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut events: Vec<_> = lines
            .into_iter()
            .filter_map(|line| parse_line(line.trim_ascii_end()).ok().map(|event| (event, line)))
            .collect();
        events.sort_unstable_by_key(|(event, _)| event.seq);
        let mut all = Self::default();
        for (event, line) in events {
            let [from, to] =
                [event.from, event.to].map(|id| u32::try_from(id.get()).expect("ids of 32 bits"));
            let (at, len) = (all.text.len() as u32, line.len() as u16);
            all.slots.push(Packed::new(event.kind as u8, FRESH, from, to, at, len));
            all.text.extend_from_slice(line);
        }
        // The engine copies more than a short line has.
        all.text.extend_from_slice(&[0; 64]);
        all
    }
}

/// Route and gather: the graph and the fan-out, for one turn after the other, however long it is.
#[derive(Debug)]
pub struct Turn {
    graph: Graph,
    fanout: FanOut,
    counters: EngineCounters,
    runner: Runner,
}

impl Turn {
    /// No edges; the users with these ids are connected. Lines of one turn take at most `bytes`.
    #[must_use]
    pub fn new(users: &[u64], bytes: usize) -> Self {
        let limits = TurnLimits { user_bytes: bytes, mean_bytes: bytes, event_bytes: 1024 };
        let cpu = Cpu::up_to(InstructionSet::default());
        let mut turn = Self {
            graph: Graph::default(),
            fanout: FanOut::new(limits, cpu),
            counters: EngineCounters::default(),
            runner: Runner::new(cpu),
        };
        for &id in users {
            turn.graph.connect(UserId::new(id), turn.fanout.connect());
        }
        turn
    }

    /// Route: applies events to the graph and notes in the turn who gets them. Returns the deliveries noted so far.
    pub fn route(&mut self, events: &Events) -> u64 {
        let Self { graph, fanout, counters, runner } = self;
        for run in events.slots.chunks(RUN) {
            runner.apply(run, graph, fanout, counters, |_, slot| Text {
                bytes: &events.text[slot.text()..],
                len: slot.len(),
            });
        }
        counters.deliveries
    }

    /// Whether the turn has become longer than was said.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.fanout.room() == 0
    }

    /// Gather: hands the bytes of its events to every user, and ends the turn.
    pub fn gather(&mut self, write: impl FnMut(u32, &[u8])) {
        self.fanout.deliver(usize::MAX, write);
    }
}
