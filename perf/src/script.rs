//! The events of a run, one after the other, in the order of their numbers.

use crate::rng::Rng;
use crate::workload::{LineEnd, Shape, Workload};

/// The fields of an event. Users are given by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `from` follows `to` from now on; `to` is told.
    Follow {
        /// The follower.
        from: u64,
        /// The followed.
        to: u64,
    },
    /// `from` stops following `to`; nobody is told.
    Unfollow {
        /// The follower.
        from: u64,
        /// The followed.
        to: u64,
    },
    /// Everybody is told.
    Broadcast,
    /// `to` is told.
    Private {
        /// The sender.
        from: u64,
        /// The receiver.
        to: u64,
    },
    /// The followers of `from` are told.
    Status {
        /// The followed.
        from: u64,
    },
}

/// The fate of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is sent as an event.
    Event(Kind),
    /// It is never sent.
    Hole,
    /// A line with this number is sent, but it is no event: the number is used up, nobody is told.
    Broken,
}

/// One number of the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The number.
    pub seq: u64,
    /// What becomes of it.
    pub fate: Fate,
    /// The last number of the preamble: the clock starts after it.
    pub ends_preamble: bool,
}

/// Draws the items of a workload. A clone continues independently from the same place.
#[derive(Clone, Debug)]
pub struct Script {
    load: Workload,
    preamble: u64,
    position: u64,
    few: Vec<u64>,
    events: Rng,
    faults: Rng,
}

impl Script {
    /// The script of `load`, at its beginning.
    pub fn new(load: &Workload) -> Script {
        let few = if load.shape == Shape::CelebrityFew { load.ids() } else { Vec::new() };
        let follows = match load.shape {
            Shape::Celebrity => load.users - 1,
            Shape::CelebrityFew => few.len() as u64,
            _ => 0,
        };
        Script {
            load: load.clone(),
            preamble: if follows > 0 { follows + 1 } else { 0 },
            position: 0,
            few,
            events: Rng::new(load.seed, 1),
            faults: Rng::new(load.seed, 2),
        }
    }

    /// How many numbers there are in all, the preamble included.
    pub fn len(&self) -> u64 {
        self.load.events.saturating_add(self.preamble)
    }

    /// Whether there is nothing to send at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn draw_kind(&mut self) -> Kind {
        if self.load.shape.is_celebrity() {
            return Kind::Status { from: 1 };
        }
        let users = self.load.users;
        let weights = self.load.mix.weights;
        let mut pick = self.events.below(self.load.mix.total().into()) as u32;
        let mut which = 0;
        while pick >= weights[which] {
            pick -= weights[which];
            which += 1;
        }
        let from = 1 + self.events.below(users);
        // Somebody else, unless there is nobody else.
        let mut another = || if users == 1 { 1 } else { 1 + (from + self.events.below(users - 1)) % users };
        match which {
            0 => Kind::Follow { from, to: another() },
            1 => Kind::Unfollow { from, to: another() },
            2 => Kind::Broadcast,
            3 => Kind::Private { from, to: another() },
            _ => Kind::Status { from },
        }
    }

    fn preamble_kind(&self) -> Kind {
        if self.position + 1 == self.preamble {
            // Everybody gets this one: when it has arrived, the graph has been built.
            Kind::Broadcast
        } else if self.load.shape == Shape::CelebrityFew {
            Kind::Follow { from: self.few[self.position as usize], to: 1 }
        } else {
            Kind::Follow { from: self.position + 2, to: 1 }
        }
    }
}

impl Iterator for Script {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if self.position >= self.len() {
            return None;
        }
        let seq = self.load.first_sequence + self.position;
        let in_preamble = self.position < self.preamble;
        let fate = if in_preamble {
            Fate::Event(self.preamble_kind())
        } else {
            let kind = self.draw_kind();
            if self.faults.chance(self.load.holes) {
                Fate::Hole
            } else if self.faults.chance(self.load.garbage / 2.0) {
                Fate::Broken
            } else {
                Fate::Event(kind)
            }
        };
        self.position += 1;
        Some(Item { seq, fate, ends_preamble: in_preamble && self.position == self.preamble })
    }
}

/// Turns items into lines.
#[derive(Clone)]
pub struct Pen {
    line_end: LineEnd,
    ends: Rng,
    garbage: Rng,
    digits: itoa::Buffer,
}

impl Pen {
    /// The pen of `load`, at the beginning of its script.
    pub fn new(load: &Workload) -> Pen {
        let ends = Rng::new(load.seed, 3);
        Pen { line_end: load.line_end, ends, garbage: Rng::new(load.seed, 4), digits: itoa::Buffer::new() }
    }

    fn number(&mut self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.digits.format(number).as_bytes());
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let crlf = match self.line_end {
            LineEnd::Crlf => true,
            LineEnd::Lf => false,
            LineEnd::Mixed => self.ends.next() & 1 == 1,
        };
        out.extend_from_slice(if crlf { b"\r\n" } else { b"\n" });
    }

    /// Writes an event.
    pub fn event(&mut self, seq: u64, kind: Kind, out: &mut Vec<u8>) {
        self.number(seq, out);
        let (letter, first, second) = match kind {
            Kind::Follow { from, to } => (b"|F", Some(from), Some(to)),
            Kind::Unfollow { from, to } => (b"|U", Some(from), Some(to)),
            Kind::Broadcast => (b"|B", None, None),
            Kind::Private { from, to } => (b"|P", Some(from), Some(to)),
            Kind::Status { from } => (b"|S", Some(from), None),
        };
        out.extend_from_slice(letter);
        for id in [first, second].into_iter().flatten() {
            out.push(b'|');
            self.number(id, out);
        }
        self.end(out);
    }

    /// Writes a line whose number can be read but which is no event.
    pub fn broken(&mut self, seq: u64, out: &mut Vec<u8>) {
        self.number(seq, out);
        match self.garbage.below(8) {
            0 => out.extend_from_slice(b"|X"),
            1 => out.extend_from_slice(b"|F|60"),
            2 => out.extend_from_slice(b"|P|1|two"),
            3 => out.extend_from_slice(b"|S|"),
            4 => out.extend_from_slice(b"|b"),
            5 => out.extend_from_slice(b"|U|1|99999999999999999999999"),
            6 => out.extend_from_slice(b"|S|-1"),
            _ => {
                // Longer than any server should hold.
                out.extend_from_slice(b"|P|1|");
                out.resize(out.len() + 1500, b'7');
            }
        }
        self.end(out);
    }

    /// Writes a line without any number that could be read.
    pub fn stray(&mut self, out: &mut Vec<u8>) {
        match self.garbage.below(8) {
            0 => {}
            1 => out.extend_from_slice(b"GET / HTTP/1.1"),
            2 => out.extend_from_slice(b"|B"),
            3 => out.extend_from_slice(b"-7|B"),
            4 => out.extend_from_slice(b" 7|B"),
            5 => out.extend_from_slice(b"99999999999999999999999|B"),
            6 => {
                let noise = self.garbage.next().to_le_bytes();
                out.push(b'?');
                out.extend(noise.into_iter().filter(|b| *b != b'\n'));
            }
            _ => out.resize(out.len() + 3000, b'x'),
        }
        self.end(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_items() {
        let load = Workload { holes: 0.1, garbage: 0.1, ..Workload::of_shape(Shape::Maze, 0.001) };
        let items: Vec<Item> = Script::new(&load).collect();
        assert_eq!(items.len(), 10_000);
        assert_eq!(items, Script::new(&load).collect::<Vec<_>>());
        assert_ne!(items, Script::new(&Workload { seed: 7, ..load }).collect::<Vec<_>>());
    }

    #[test]
    fn holes_leave_the_other_events_as_they_are() {
        let plain = Workload::of_shape(Shape::Maze, 0.001);
        let holed = Workload { holes: 0.5, ..plain.clone() };
        let (mut same, mut holes) = (0, 0);
        for (a, b) in Script::new(&plain).zip(Script::new(&holed)) {
            match b.fate {
                Fate::Hole => holes += 1,
                _ => same += usize::from(a == b),
            }
        }
        assert!((4_500..5_500).contains(&holes));
        assert_eq!(same + holes, 10_000);
    }

    #[test]
    fn the_celebrity_is_followed_first() {
        let load = Workload::of_shape(Shape::Celebrity, 0.001);
        let items: Vec<Item> = Script::new(&load).collect();
        assert_eq!(items.len(), 1_000 + 1 + 500);
        assert_eq!(items[0].fate, Fate::Event(Kind::Follow { from: 2, to: 1 }));
        assert_eq!(items[999].fate, Fate::Event(Kind::Follow { from: 1_001, to: 1 }));
        assert!(items[1000].ends_preamble && items[1000].fate == Fate::Event(Kind::Broadcast));
        assert!(items[1001..].iter().all(|i| i.fate == Fate::Event(Kind::Status { from: 1 })));
    }

    #[test]
    fn nobody_follows_themselves() {
        for item in Script::new(&Workload::of_shape(Shape::Maze, 0.01)) {
            if let Fate::Event(Kind::Follow { from, to } | Kind::Private { from, to }) = item.fate {
                assert!(from != to && (1..=1000).contains(&from) && (1..=1000).contains(&to));
            }
        }
    }

    #[test]
    fn lines_are_those_of_the_protocol() {
        let mut pen = Pen::new(&Workload { line_end: LineEnd::Lf, ..Workload::of_shape(Shape::Maze, 1.0) });
        let mut out = Vec::new();
        pen.event(666, Kind::Follow { from: 60, to: 50 }, &mut out);
        pen.event(1, Kind::Unfollow { from: 12, to: 9 }, &mut out);
        pen.event(542_532, Kind::Broadcast, &mut out);
        pen.event(43, Kind::Private { from: 32, to: 56 }, &mut out);
        pen.event(634, Kind::Status { from: 32 }, &mut out);
        assert_eq!(out, b"666|F|60|50\n1|U|12|9\n542532|B\n43|P|32|56\n634|S|32\n");
    }

    #[test]
    fn garbage_is_one_line_each() {
        let mut pen = Pen::new(&Workload::of_shape(Shape::Maze, 1.0));
        for seq in 0..500 {
            let mut out = Vec::new();
            pen.stray(&mut out);
            pen.broken(seq, &mut out);
            assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 2);
        }
    }
}
