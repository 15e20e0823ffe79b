//! Blocks: a piece of the source's bytes together with exactly what every user must receive for it.
//!
//! A run is a list of blocks. A block holds whole batches, so the users' parts of it can be worked out before
//! the first of its bytes is sent, and checking is comparing memory. Users who are owed the same bytes share
//! them, which is what lets 10,000 users' worth of broadcasts fit.

use crate::graph::Graph;
use crate::rng::Rng;
use crate::script::{Fate, Kind, Pen, Script};
use crate::workload::Workload;

/// The expected bytes of users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// What the protocol says.
    Protocol,
    /// As many bytes as the protocol says, from the pattern of `maze limit`.
    Pattern,
    /// Every byte of the source, as `maze limit --forward` does.
    Forward,
}

/// The end of a line in the source's bytes, and its number.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Position among all lines of the block, in the order of sending.
    pub order: u32,
    /// Offset of the byte after the line.
    pub end: u32,
    /// Number of the event, less the block's first; lines without one repeat the one before.
    pub seq_offset: u32,
}

/// The bytes for one source connection.
#[derive(Debug, Default)]
pub struct Wire {
    /// What is sent.
    pub bytes: Vec<u8>,
    /// Its lines, where the run asked for them.
    pub marks: Vec<Mark>,
}

/// What one or more users are owed.
#[derive(Debug)]
pub struct Text {
    /// The bytes.
    pub bytes: Box<[u8]>,
    /// How many events they are.
    pub lines: u32,
}

/// A piece of a run.
#[derive(Debug)]
pub struct Block {
    /// The first number.
    pub first_seq: u64,
    /// One past the last number.
    pub end_seq: u64,
    /// One per source connection.
    pub wires: Vec<Wire>,
    /// Lines in all wires together.
    pub lines: u32,
    /// Events among them that a server has to release.
    pub events: u32,
    /// The clock starts when everybody has received this block and those before it.
    pub preamble: bool,
    texts: Vec<Text>,
    text_of: Vec<u32>,
}

impl Block {
    /// What the user of `slot` is owed.
    #[inline]
    pub fn text(&self, slot: usize) -> &Text {
        &self.texts[self.text_of[slot] as usize]
    }

    /// Forgets all but what the users of these slots are owed.
    pub fn keep_only(&mut self, slots: &[usize]) {
        let mut is_kept = vec![false; self.texts.len()];
        slots.iter().for_each(|&slot| is_kept[self.text_of[slot] as usize] = true);
        for (text, is_kept) in self.texts.iter_mut().zip(is_kept) {
            if !is_kept {
                text.bytes = Box::default();
            }
        }
        self.wires.iter_mut().for_each(|wire| *wire = Wire::default());
    }

    /// Memory held, roughly.
    pub fn bytes_held(&self) -> u64 {
        let texts: usize = self.texts.iter().map(|t| t.bytes.len() + size_of::<Text>()).sum();
        let wires: usize = self.wires.iter().map(|w| w.bytes.len() + w.marks.len() * size_of::<Mark>()).sum();
        (texts + wires + self.text_of.len() * 4) as u64
    }
}

/// The bytes that `maze limit` sends, over and over.
pub fn pattern() -> Box<[u8]> {
    let mut rng = Rng::new(0, 99);
    (0..PATTERN_BYTES).map(|n| if n % 16 == 15 { b'\n' } else { b'a' + rng.below(26) as u8 }).collect()
}

/// Length of [`pattern`]: stays in the first-level cache.
pub const PATTERN_BYTES: usize = 16 * 1024;

/// Room after the end of what is owed, so that short lines are copied as blocks of a fixed size: it is the difference
/// between a call and two instructions, a hundred million times over.
const SHORT: usize = 32;

/// What one user is owed in the block that is being made.
#[derive(Default)]
struct Owed {
    bytes: Vec<u8>,
    length: usize,
    lines: u32,
}

impl Owed {
    #[inline]
    fn push(&mut self, line: &Padded) {
        let end = self.length + SHORT.max(line.length);
        if self.bytes.len() < end {
            self.bytes.resize((end * 2).max(1024), 0);
        }
        match self.bytes[self.length..].first_chunk_mut::<SHORT>() {
            Some(room) if line.length <= SHORT => *room = line.short,
            _ => self.bytes[self.length..self.length + line.length].copy_from_slice(&line.long),
        }
        self.length += line.length;
        self.lines += 1;
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// A line, twice: padded if it is short, as it is if it is long.
struct Padded {
    length: usize,
    short: [u8; SHORT],
    long: Vec<u8>,
}

impl Padded {
    fn new(line: &[u8]) -> Padded {
        let mut short = [0; SHORT];
        let length = line.len();
        match short.get_mut(..length) {
            Some(room) => {
                room.copy_from_slice(line);
                Padded { length, short, long: Vec::new() }
            }
            None => Padded { length, short, long: line.to_vec() },
        }
    }
}

struct Line {
    start: usize,
    end: usize,
    source: usize,
    seq_offset: u32,
}

/// Makes the blocks of a workload, one after the other.
pub struct Builder {
    script: std::iter::Peekable<Script>,
    pen: Pen,
    graph: Graph,
    batches: Rng,
    shuffle: Rng,
    faults: Rng,
    load: Workload,
    expect: Expect,
    marks: bool,
    block_events: u64,
    owed: Vec<Owed>,
    pattern: Box<[u8]>,
    positions: Vec<u64>,
    in_preamble: bool,
}

impl Builder {
    /// A builder at the start of `load`. With `marks`, blocks say where their lines are.
    pub fn new(load: &Workload, expect: Expect, marks: bool) -> Builder {
        let ids = load.ids();
        let slots = ids.len();
        Builder {
            script: Script::new(load).peekable(),
            pen: Pen::new(load),
            graph: Graph::new(load.users, &ids),
            batches: Rng::new(load.seed, 5),
            shuffle: Rng::new(load.seed, 6),
            faults: Rng::new(load.seed, 7),
            load: load.clone(),
            expect,
            marks,
            // Few enough that one block's texts stay small, enough that a block is many reads.
            block_events: (16_000_000 / slots.max(1) as u64).clamp(512, 65_536),
            owed: (0..slots).map(|_| Owed::default()).collect(),
            pattern: pattern(),
            positions: vec![0; slots],
            in_preamble: load.shape.is_celebrity(),
        }
    }

    /// The next block; `None` after the last one.
    pub fn next_block(&mut self) -> Option<Block> {
        let first_seq = self.script.peek()?.seq;
        let mut block = Block {
            first_seq,
            end_seq: first_seq,
            wires: (0..self.load.sources).map(|_| Wire::default()).collect(),
            lines: 0,
            events: 0,
            preamble: self.in_preamble,
            texts: Vec::new(),
            text_of: Vec::new(),
        };
        let mut ink = Vec::new();
        let mut lines = Vec::new();
        while block.end_seq - first_seq < self.block_events && self.batch(&mut block, &mut ink, &mut lines) {}
        self.finish(&mut block);
        Some(block)
    }

    /// Adds a batch to `block`; false when the block must end here.
    fn batch(&mut self, block: &mut Block, ink: &mut Vec<u8>, lines: &mut Vec<Line>) -> bool {
        let size = 1 + self.batches.below(self.load.batch_max.max(1));
        ink.clear();
        lines.clear();
        let mut repeats = Vec::new();
        let mut go_on = false;
        for _ in 0..size {
            let Some(item) = self.script.next() else { break };
            go_on = true;
            block.end_seq = item.seq + 1;
            let seq_offset = (item.seq - block.first_seq) as u32;
            let source =
                if self.load.sources > 1 { self.shuffle.below(self.load.sources as u64) as usize } else { 0 };
            let start = ink.len();
            match item.fate {
                Fate::Hole => continue,
                Fate::Broken => self.pen.broken(item.seq, ink),
                Fate::Event(kind) => {
                    self.pen.event(item.seq, kind, ink);
                    block.events += 1;
                    self.deliver(kind, &ink[start..]);
                }
            }
            lines.push(Line { start, end: ink.len(), source, seq_offset });
            if self.faults.chance(self.load.duplicates) && !self.in_preamble {
                // Another event with the same number, which everybody would notice: the first one must stay.
                let start = ink.len();
                self.pen.event(item.seq, Kind::Broadcast, ink);
                repeats.push(Line { start, end: ink.len(), source, seq_offset });
            }
            if self.faults.chance(self.load.garbage / 2.0) && !self.in_preamble {
                let start = ink.len();
                self.pen.stray(ink);
                lines.push(Line { start, end: ink.len(), source, seq_offset });
            }
            if item.ends_preamble {
                self.in_preamble = false;
                go_on = false;
                break;
            }
        }
        for last in (1..lines.len()).rev() {
            lines.swap(last, self.shuffle.below(last as u64 + 1) as usize);
        }
        for line in lines.iter().chain(&repeats) {
            let wire = &mut block.wires[line.source];
            wire.bytes.extend_from_slice(&ink[line.start..line.end]);
            if self.marks {
                let end = wire.bytes.len() as u32;
                wire.marks.push(Mark { order: block.lines, end, seq_offset: line.seq_offset });
            }
            block.lines += 1;
        }
        go_on
    }

    fn deliver(&mut self, kind: Kind, line: &[u8]) {
        let Builder { owed, graph, .. } = self;
        let line = Padded::new(line);
        let mut give = |slot: usize| owed[slot].push(&line);
        match kind {
            Kind::Broadcast => (0..graph.slots()).for_each(give),
            Kind::Follow { from, to } => {
                graph.follow(from, to);
                graph.slot(to).into_iter().for_each(give);
            }
            Kind::Unfollow { from, to } => graph.unfollow(from, to),
            Kind::Private { to, .. } => graph.slot(to).into_iter().for_each(give),
            Kind::Status { from } => graph.each_follower(from, &mut give),
        }
    }

    /// Moves what every user is owed into the block, once where neighbours are owed the same.
    fn finish(&mut self, block: &mut Block) {
        if self.expect == Expect::Forward {
            let bytes = block.wires[0].bytes.clone().into_boxed_slice();
            block.texts.push(Text { bytes, lines: block.lines });
            block.text_of = vec![0; self.owed.len()];
        }
        let mut shared_position = 0;
        for (slot, owed) in self.owed.iter_mut().enumerate() {
            if self.expect != Expect::Forward {
                let position = self.positions[slot];
                let same = |last: &Text| match self.expect {
                    Expect::Pattern => {
                        let as_long = last.bytes.len() == owed.length && last.lines == owed.lines;
                        as_long && shared_position == position
                    }
                    _ => *last.bytes == *owed.text(),
                };
                if !block.texts.last().is_some_and(same) {
                    if self.expect == Expect::Pattern {
                        fill(&mut owed.bytes[..owed.length], &self.pattern, position);
                        shared_position = position;
                    }
                    block.texts.push(Text { bytes: owed.text().into(), lines: owed.lines });
                }
                block.text_of.push(block.texts.len() as u32 - 1);
                self.positions[slot] += owed.length as u64;
            }
            (owed.length, owed.lines) = (0, 0);
        }
    }
}

fn fill(bytes: &mut [u8], pattern: &[u8], position: u64) {
    let mut at = position as usize % pattern.len();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at_mut(rest.len().min(pattern.len() - at));
        now.copy_from_slice(&pattern[at..at + now.len()]);
        (rest, at) = (later, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{LineEnd, Shape};

    fn blocks(load: &Workload) -> Vec<Block> {
        let mut builder = Builder::new(load, Expect::Protocol, true);
        std::iter::from_fn(|| builder.next_block()).collect()
    }

    fn joined(blocks: &[Block], slot: usize) -> Vec<u8> {
        blocks.iter().flat_map(|b| b.text(slot).bytes.iter().copied()).collect()
    }

    #[test]
    fn in_order_wire_is_the_sorted_shuffled_one() {
        let shuffled = Workload { line_end: LineEnd::Lf, ..Workload::of_shape(Shape::Maze, 0.01) };
        let ordered = Workload { batch_max: 1, ..shuffled.clone() };
        let lines = |load| {
            let wires: Vec<u8> = blocks(load).iter().flat_map(|b| b.wires[0].bytes.clone()).collect();
            String::from_utf8(wires).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let (mut a, b) = (lines(&shuffled), lines(&ordered));
        assert_ne!(a, b);
        a.sort_by_key(|line| line.split('|').next().unwrap().parse::<u64>().unwrap());
        assert_eq!(a, b);
    }

    #[test]
    fn expectation_agrees_with_the_rules_written_naively() {
        let load = Workload {
            line_end: LineEnd::Mixed,
            users: 40,
            connected: 7,
            ..Workload::of_shape(Shape::Maze, 0.001)
        };
        let ids = load.ids();
        let (mut pen, mut follows) = (Pen::new(&load), std::collections::HashSet::new());
        let mut owed = vec![Vec::new(); ids.len()];
        for item in Script::new(&load) {
            let Fate::Event(kind) = item.fate else { unreachable!() };
            let mut line = Vec::new();
            pen.event(item.seq, kind, &mut line);
            if let Kind::Follow { from, to } = kind {
                follows.insert((from, to));
            } else if let Kind::Unfollow { from, to } = kind {
                follows.remove(&(from, to));
            }
            for (slot, id) in ids.iter().enumerate() {
                let told = match kind {
                    Kind::Follow { to, .. } | Kind::Private { to, .. } => to == *id,
                    Kind::Unfollow { .. } => false,
                    Kind::Broadcast => true,
                    Kind::Status { from } => follows.contains(&(*id, from)),
                };
                if told {
                    owed[slot].extend_from_slice(&line);
                }
            }
        }
        let blocks = blocks(&load);
        for (slot, owed) in owed.iter().enumerate() {
            assert_eq!(joined(&blocks, slot), *owed, "slot {slot}");
        }
    }

    #[test]
    fn broadcasts_are_held_once() {
        let blocks = blocks(&Workload::of_shape(Shape::Crowd, 0.1));
        assert!(blocks.iter().all(|b| b.texts.len() == 1 && b.text_of.len() == 10_000));
        assert_eq!(blocks.iter().map(|b| b.text(9_999).lines).sum::<u32>(), 5_000);
    }

    #[test]
    fn marks_cover_the_wires() {
        let load =
            Workload { sources: 3, duplicates: 0.1, garbage: 0.1, ..Workload::of_shape(Shape::Maze, 0.01) };
        for block in blocks(&load) {
            let mut orders: Vec<u32> = Vec::new();
            for wire in &block.wires {
                assert_eq!(wire.marks.last().unwrap().end as usize, wire.bytes.len());
                orders.extend(wire.marks.iter().map(|m| m.order));
            }
            orders.sort_unstable();
            assert!(orders.iter().copied().eq(0..block.lines));
        }
    }

    #[test]
    fn deliveries_per_event_of_the_shapes() {
        for (shape, scale, least, most) in [(Shape::Maze, 0.1, 3.6, 4.0), (Shape::Private, 0.02, 1.0, 1.0)] {
            let load = Workload::of_shape(shape, scale);
            let mut builder = Builder::new(&load, Expect::Protocol, false);
            let mut lines = 0;
            while let Some(block) = builder.next_block() {
                lines +=
                    (0..load.connected as usize).map(|slot| u64::from(block.text(slot).lines)).sum::<u64>();
            }
            let per_event = lines as f64 / load.events as f64;
            assert!((least..=most).contains(&per_event), "{shape:?}: {per_event}");
        }
    }
}
