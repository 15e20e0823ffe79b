//! The engine: lines in, *(user, bytes)* out. Pure: no sockets, no clock, no logging.
//!
//! A turn goes through it in one direction:
//!
//! ```text
//!  chunk of bytes ── scan ──▶ sequencer ── run ──▶ graph ──▶ fan-out ── deliver ──▶ (user slot, bytes)
//!  [`scan`], [`event`]        [`sequencer`]  [`run`]  [`graph`]  [`fanout`]
//! ```
//!
//! 1. [`Engine::feed`] reads the lines of a chunk in small batches: each batch is put into the ring, then everything
//!    at the cursor leaves it in [runs](run), is applied to the graph, and noted in the fan-out. The chunk, the slots
//!    that the batch touches and the end of the tape are in the first-level cache all the time.
//! 2. When it says [`Stop::TurnFull`], or there is nothing more to feed, [`Engine::deliver`] hands out one piece of bytes
//!    per user.
//! 3. Before the chunk's buffer is used again, [`Engine::settle`] saves what waits.
//!
//! Scanning, sorting a run, and gathering a user's bytes exist several times: as portable code, and in [`cpu`] for processors
//! with AVX2 or AVX-512. Nothing else knows which of them is used.
//!
//! Time only ever comes in as an argument.
//!
//! # What was tried, and what it was worth
//!
//! Shape `maze` of `perf/README.md`, one core, nanoseconds per event of the pure engine (`cargo bench`) unless said
//! otherwise; each line against the state before it, on the same machine in the same hour.
//!
//! | tried | worth | kept |
//! | --- | --- | --- |
//! | appending each event to each recipient's buffer, the simplest design | about 7 ns per delivery, an estimate | no |
//! | tape, rows of bits, transposition, gather event by event with a 32-byte copy | the base of what follows | yes |
//! | a slot of the ring as two words instead of seven small fields | 37.4 → 36.3 | yes |
//! | checking a line's structure by mask arithmetic instead of position by position | 157 → 130 instructions per line | yes |
//! | gathering runs of neighbours, between arrays of constant size | 48 → 29 instructions per copy | yes |
//! | no branch on whether a follow or unfollow changes anything | 50.4 → 44.8 | yes |
//! | one header per run instead of per event in [`mail`] | `private`: 1.65 → 1.3 × the limit | yes |
//! | 32, 64, 128, 256 KiB owed per user before a turn is delivered | 8.0, 7.6, 7.9, 8.0 ns per delivery, whole server | 64 |
//! | compiling all of it for AVX2, or for AVX-512 | nothing that shows | no |
//! | AVX-512: eight lines side by side ([`cpu`]) | scan: 14.5 → 4.2; all: 43.9 → 39.7 | yes |
//! | AVX-512: gathering by compression, block by block | 44 → 47 | no |
//! | … over the whole tape, without a branch | gather: 17.7 → 10.4; all: 39.7 → 37.0 | yes |
//! | applying events in runs, sorted by what they do | 37.0 → 33.3 | yes |
//! | … with edges asked for before they are changed | whole server: 5.7 → 5.4 ns per delivery | yes |
//! | … asking for the ring's slots before lines are put there; for tape and output before the gather | nothing that shows | no |
//! | … sorting sixteen events side by side | without users: 19.1 → 17.9; with: 33.8 → 33.1 | yes |
//! | … runs of up to 64, 128, 256 events | 32.4, 32.0, 32.0 | 256 |
//! | 32, 40, 48, 56, 60, 64, 120 KiB owed per user before a turn is delivered | 5.88, 5.58, 5.49, 5.36, 5.40, 5.57, 5.52 ns per delivery, whole server | 56: a piece of it fits one packet of the loopback (65,483 bytes) |
//! | gathering for two, three, four users in one pass over the tape (from here on Zen 4, where all was 38.3) | 36.5, 35.9, 35.4; whole server: 7.4 → 6.4 ns per delivery | four |
//! | … with masks of eight pieces taken at a time, with stores that are aligned, or of 32 bytes at a time | slower, each | no |
//! | a ring as long as is needed of late, instead of the full capacity (second-level cache of 1 MiB) | whole server: 6.6 → 6.45 ns per delivery, and 3.7 MiB | yes |
//! | putting a batch into the ring in a loop that writes to nothing else | 35.7 → 33.9 | yes |
//! | one table for whom an id is instead of two | 34.1 → 33.5 | yes |
//! | digits picked out of a register by a permutation instead of out of memory by gathers | 33.5 → 31.3 | yes |
//! | counting kinds in fields of a vector; small bit sets in place | nothing; slower | no |
//! | reads of 32, 64, 128, 256, 512 KiB | 6.7, 6.8, 6.4, 6.5, 6.4 ns per delivery, whole server | 256 |
//! | who gets everything: from what a block's rows have in common instead of from each user's words | `broadcast`, `crowd`: 3.5 % | yes |
//! | gathering abreast for users with mail, too: inserting it on the way | `dense`, whole server: 8.2 → 7.0 ns per delivery | yes |
//! | … merging it in afterwards; gathering from one run of mail to the next | 8.3 → 7.9; nothing that shows | no |
//! | AVX2: lines column by column ([`cpu`]; from here on Zen 3, all without AVX-512, where all was 65) | scan: 21 → 10; without users: 35 → 26 | yes |
//! | … the same compiled without AVX2 | without users: 35 → 49 | no |
//! | … numbers as two halves of 32 bits instead of as 64 bits | scan: 11 → 10 | yes |
//! | gather, sorting and transposition compiled for AVX2 (counting zeros and shifting are faster, too) | 57 → 51 | yes |
//! | … all of [`Engine::feed`] | nothing that shows | no |
//! | gathering event by event instead of by runs of neighbours | 51 → 48.5 | yes |
//! | … from a list of events, so that no loop's end is guessed wrong | 48.5 → 62 | no |
//! | … with start and length in one word, four events at a time | 49 → 46.5 | yes |
//! | … copying 24 bytes at once instead of 32 | nothing that shows | no |
//! | sorting: the slot out of the table of ids, kinds counted in a register | 47.4 → 45.6 | yes |
//! | 28, 40, 56 KiB owed per user before a turn is delivered (second-level cache of 512 KiB) | 11.8, 11.2, 10.0 ns per delivery, whole server | 56 |
//! | AVX2: masks of 32 bytes, and numbers out of digits, by instructions for it, not by loops that the compiler makes vectors of | 45.6 → 44.2; without users: 24.5 → 23.2 | yes |
//! | looking up the ends of an edge without a branch on whether it comes or goes | 44.4 → 42.1 | yes |
//! | whether a line of a span is no ordinary one: from all of them at once | without users: 21.8 → 21.3 | yes |
//! | sorting eight events side by side | 41.5 → 40.0 | yes |
//! | looking for the end of a run eight slots at a time | 39.9 → 39.1 | yes |
//! | gathering: what is to be looked up once for eight blocks, not for each; positions that need no check | 39.2 → 38.3 | yes |
//! | a user's mail merged in by code that is compiled for AVX2, too (a closure that is not inlined was not); the next words of a user asked for | `dense`, whole server: 11.7 → 9.7 ns per delivery | yes |
//! | changing edges in a function of its own, which has the registers to itself | 12 instructions per event; nothing else that shows | yes |
//! | gathering eight blocks in one loop without a branch at a block's end | 41.3 → 43.7 | no |
//! | … copying 16 bytes, and 16 more of the few that are longer | nothing that shows | no |
//! | … for two or four users in turn, part by part of the tape; with that or without 88, 120 KiB owed per user | nothing that shows, whole server | no |
//! | sets of members below 128 as bits in place | nothing that shows | no |
//! | the graph as matrices of bits while it is small, instead of a set per node (from here on Zen 4 again, with AVX-512 and without) | 27.9 → 26.8; 29.0 → 27.4 | yes |
//! | … one count of edges per node instead of two; the slot of who follows looked up together with the node | 26.8 → 26.1; 27.4 → 27.1 | yes |
//! | … finding audiences and asking for them before they are needed | nothing that shows, whole server | no |
//!
//! Times with users grow with the deliveries per event: this benchmark has 7.4, the whole shape 12.1. What is left there of
//! the server's time is the kernel's by one half; the rest is feeding (a half of it), gathering (a third) and scanning.

#[cfg(target_arch = "x86_64")]
mod cpu;
#[cfg(not(target_arch = "x86_64"))]
#[path = "cpu/none.rs"]
mod cpu;
pub mod event;
mod fanout;
mod gather;
mod given_up;
mod graph;
mod idset;
mod mail;
mod relation;
mod released;
mod replay;
mod ring;
mod run;
mod scan;
mod sequencer;
mod settling;
#[cfg(feature = "stages")]
#[doc(hidden)]
pub mod stages;
#[cfg(test)]
mod tests;
mod text;
mod transpose;

use crate::{counters::Counters, time::Micros};
use cpu::{Cpu, Lines};
use event::{Event, Kind, Reject, Rejected, leading_number, parse_line};
use fanout::{FanOut, TurnLimits};
use graph::{Graph, NONE, Walk};
use released::Record;
use run::{Runner, apply_one};
use scan::Scanned;
use sequencer::{BOXED, FRESH, INLINE_BYTES, LONG, Place, Sequencer, Slot, WIDE};
use std::ops::Range;
use text::Text;

pub use given_up::GivenUp;
pub use released::Released;
pub use replay::{Damage, DamageReason, Replay};
pub(crate) use scan::{AFTER, BEFORE};

/// Lines that are put into the ring before the next look at its cursor.
const BATCH_LINES: usize = 256;

/// So much is done at a time for users who follow very many others and have come or gone: less than a millisecond.
const SETTLE_STEPS: usize = if cfg!(test) { 5 } else { 4096 };

/// What the engine needs to know.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Slots of the ring, a power of two.
    pub capacity: usize,
    /// Number of the first event.
    pub first_sequence: u64,
    /// How long an event waits for missing ones; `None`: for ever.
    pub timeout: Option<Micros>,
    /// Longest line in bytes, terminator included.
    pub event_bytes_max: usize,
    /// Bytes that one user may be owed by one turn, give or take an event.
    pub turn_bytes_max: usize,
    /// Bytes per connected user after which a turn is worth being delivered.
    pub turn_bytes_mean: usize,
    /// How far above the cursor a number may be; `None`: as far as there are numbers (SPEC section 2).
    pub max_sequence_jump: Option<u64>,
}

/// Why [`Engine::feed`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Every whole line has been read.
    Drained,
    /// What is left has no end in sight and is too long for an event already: it is rejected, and everything
    /// up to the next line end is to be dropped.
    Overlong,
    /// The turn has reached its limits: deliver, then go on.
    TurnFull,
    /// The next line's number is too far ahead for the ring.
    Blocked(u64),
}

/// See the [module](self).
#[derive(Debug)]
pub struct Engine {
    sequencer: Sequencer,
    graph: Graph,
    fanout: FanOut,
    record: Record,
    /// The walk over the graph that is under way.
    walk: Option<Walk>,
    event_bytes_max: usize,
    first_sequence: u64,
    /// What has been counted so far. The server adds its own.
    pub counters: Counters,
    last_reject: Option<(Reject, Option<u64>)>,
    runner: Runner,
    cpu: Cpu,
    lines: Box<Lines>,
}

impl Engine {
    /// An engine with an empty graph, its cursor at the first number.
    ///
    /// # Panics
    ///
    /// If the capacity is no power of two.
    #[must_use]
    pub fn new(config: &EngineConfig) -> Self {
        Self::on(config, Cpu::detect())
    }

    /// An engine for a processor of which so much is known.
    fn on(config: &EngineConfig, cpu: Cpu) -> Self {
        let limits = TurnLimits {
            user_bytes: config.turn_bytes_max,
            mean_bytes: config.turn_bytes_mean,
            event_bytes: config.event_bytes_max,
        };
        Self {
            sequencer: Sequencer::new(
                config.capacity,
                config.first_sequence,
                config.timeout,
                config.max_sequence_jump.unwrap_or(u64::MAX),
            ),
            graph: Graph::default(),
            fanout: FanOut::new(limits, cpu),
            record: Record::off(),
            walk: None,
            event_bytes_max: config.event_bytes_max,
            first_sequence: config.first_sequence,
            counters: Counters::default(),
            last_reject: None,
            runner: Runner::new(cpu),
            cpu,
            lines: Box::default(),
        }
    }

    /// The user `id` has logged in; it must not be connected already. Returns its slot: a small number, free again once
    /// it has gone. Everything owed must have been delivered.
    pub fn connect(&mut self, id: u64) -> u32 {
        self.settle_users();
        let slot = self.fanout.connect();
        self.graph.connect(id, slot);
        slot
    }

    /// The user `id` has gone from `slot`. Everything owed must have been delivered.
    pub fn disconnect(&mut self, id: u64, slot: u32) {
        self.settle_users();
        self.fanout.disconnect(slot);
        if self.graph.disconnect(id) {
            self.fanout.free(slot);
        }
    }

    /// Between turns: goes on with what logins, logouts and a graph that has become smaller have left to be done.
    fn begin_turn(&mut self) {
        if self.fanout.is_empty() {
            self.settle_users();
            if self.walk.is_none() {
                self.graph.shrink();
            }
        }
    }

    fn settle_users(&mut self) {
        if self.graph.is_settling() {
            let Self { graph, fanout, .. } = self;
            graph.settle(SETTLE_STEPS, |slot| fanout.free(slot));
        }
    }

    /// Whether a user of that id is connected, and its slot.
    #[must_use]
    pub fn slot(&self, id: u64) -> Option<u32> {
        Some(self.graph.slot(id)).filter(|&slot| slot != NONE)
    }

    /// Reads lines from `chunk[range]` and releases what can be released. Returns how far it came and why it
    /// stopped there. Whatever the reason, the turn may be full, and [`Engine::release_waiting`] have more to do. The bytes
    /// of the chunk outside the range are never interpreted, but lines are read fastest with 16 bytes in front of the range
    /// and 48 behind it.
    pub fn feed(&mut self, chunk: &[u8], range: Range<usize>) -> (usize, Stop) {
        self.begin_turn();
        let mut at = range.start;
        loop {
            if self.release(chunk) {
                return (at, Stop::TurnFull);
            }
            let (next, stop) = self.put_batch(chunk, at..range.end);
            at = next;
            match stop {
                None => {}
                Some(Stop::Blocked(seq)) => {
                    if self.release(chunk) {
                        return (at, Stop::TurnFull);
                    }
                    if self.sequencer.is_beyond_jump(seq) {
                        let (next, stop) = self.reject_beyond_jump(chunk, at..range.end);
                        at = next;
                        if let Some(stop) = stop {
                            return (at, stop);
                        }
                    } else if !self.sequencer.takes(seq) {
                        return (at, Stop::Blocked(seq));
                    }
                }
                Some(stop) => {
                    self.release(chunk);
                    return (at, stop);
                }
            }
        }
    }

    /// Releases what can be released without any new line. Says whether the turn is full and there may be more:
    /// deliver, then go on.
    pub fn release_waiting(&mut self) -> bool {
        self.begin_turn();
        self.release(&[])
    }

    /// Puts a batch of lines into the ring.
    fn put_batch(&mut self, chunk: &[u8], range: Range<usize>) -> (usize, Option<Stop>) {
        let mut at = range.start;
        // The last lines of a chunk take the long way: nothing of a window may lie behind the end.
        let whole = &chunk[..if self.event_bytes_max < scan::AFTER { 0 } else { range.end }];
        let mut room = BATCH_LINES;
        if let Some(next) = self.cpu.scan(whole, at, &mut self.lines) {
            let seqs = self.lines.seqs();
            let mut line = self.sequencer.put_many(seqs, self.lines.slots(0));
            while let (Some(&seq), Some(slot)) = (seqs.get(line), self.lines.slots(line).next()) {
                match self.sequencer.put(seq, slot) {
                    Place::Waiting => {}
                    Place::TooFar => {
                        self.counters.events_received += line as u64;
                        return (slot.text(), Some(Stop::Blocked(seq)));
                    }
                    place => count_dropped(&mut self.counters, place),
                }
                line += 1;
                line += self.sequencer.put_many(&seqs[line..], self.lines.slots(line));
            }
            self.counters.events_received += self.lines.len() as u64;
            at = next;
            room -= self.lines.len();
        }
        let mut ordinary = 0;
        let mut stop = None;
        for _ in 0..room {
            if let Some(scanned) = scan::window(whole, at).and_then(scan::scan_line) {
                let Scanned { seq, kind, from, to, len } = scanned;
                match self.sequencer.put(seq, Slot::new(kind, FRESH, from, to, at as u32, len as u16)) {
                    Place::Waiting => {}
                    Place::TooFar => {
                        stop = Some(Stop::Blocked(seq));
                        break;
                    }
                    place => count_dropped(&mut self.counters, place),
                }
                ordinary += 1;
                at += len;
            } else {
                let len;
                (len, stop) = self.put_any_line(chunk, at..range.end);
                at += len;
                if stop.is_some() {
                    break;
                }
            }
        }
        self.counters.events_received += ordinary;
        (at, stop)
    }

    /// Puts the next line, whatever it is, into the ring; returns its length.
    #[cold]
    fn put_any_line(&mut self, chunk: &[u8], range: Range<usize>) -> (usize, Option<Stop>) {
        let rest = &chunk[range.clone()];
        let window = &rest[..rest.len().min(self.event_bytes_max)];
        let Some(newline) = memchr::memchr(b'\n', window) else {
            if rest.len() < self.event_bytes_max {
                return (0, Some(Stop::Drained));
            }
            return self.put_overlong(window, rest);
        };
        let content = &window[..newline];
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        let len = newline + 1;
        if content.is_empty() {
            return (len, None);
        }
        let (seq, event) = match parse_line(content) {
            Ok(event) => (event.seq, event),
            Err(Rejected { seq, reason }) => {
                let Some(seq) = seq else {
                    self.count_rejected(reason, None);
                    self.counters.events_received += 1;
                    return (len, None);
                };
                let place = self.put_void(seq);
                if place == Place::TooFar {
                    return (0, Some(Stop::Blocked(seq)));
                }
                self.count_rejected(reason, Some(seq));
                self.counters.events_received += 1;
                return (len, None);
            }
        };
        let place = self.put_event(&event, range.start, &window[..len]);
        match place {
            Place::TooFar => return (0, Some(Stop::Blocked(seq))),
            Place::Waiting => {}
            place => count_dropped(&mut self.counters, place),
        }
        self.counters.events_received += 1;
        (len, None)
    }

    fn put_event(&mut self, event: &Event, at: usize, text: &[u8]) -> Place {
        let narrow = (u32::try_from(event.from), u32::try_from(event.to));
        let (from, to, wide) = if let (Ok(from), Ok(to)) = narrow { (from, to, 0) } else { (0, 0, WIDE) };
        let kind = event.kind as u8;
        let long = if text.len() > INLINE_BYTES { LONG } else { 0 };
        match (u32::try_from(at), u16::try_from(text.len())) {
            (Ok(at), Ok(len)) => {
                self.sequencer.put(event.seq, Slot::new(kind, FRESH | wide | long, from, to, at, len))
            }
            _ => self.sequencer.put_boxed(event.seq, Slot::new(kind, wide | long, from, to, 0, 0), text),
        }
    }

    /// Uses up the number of a rejected line.
    fn put_void(&mut self, seq: u64) -> Place {
        self.sequencer.put(seq, Slot::new(Kind::Void as u8, FRESH, 0, 0, 0, 0))
    }

    fn put_overlong(&mut self, prefix: &[u8], rest: &[u8]) -> (usize, Option<Stop>) {
        let seq = leading_number(prefix);
        if let Some(seq) = seq
            && self.put_void(seq) == Place::TooFar
        {
            return (0, Some(Stop::Blocked(seq)));
        }
        self.count_rejected(Reject::TooLong, seq);
        self.counters.events_received += 1;
        match memchr::memchr(b'\n', rest) {
            Some(newline) => (newline + 1, None),
            None => (rest.len(), Some(Stop::Overlong)),
        }
    }

    /// Rejects the next line, whose number is farther above the cursor than any may be, and those behind it that are so,
    /// too. Returns where it stopped, and whether that is in the middle of a line.
    #[cold]
    fn reject_beyond_jump(&mut self, chunk: &[u8], range: Range<usize>) -> (usize, Option<Stop>) {
        let mut at = range.start;
        while at < range.end {
            let window = &chunk[at..range.end.min(at.saturating_add(self.event_bytes_max))];
            let line = memchr::memchr(b'\n', window).map(|newline| &window[..newline]);
            if line.is_none() && window.len() < self.event_bytes_max {
                break;
            }
            let seq = match line {
                Some(line) => parse_line(line.strip_suffix(b"\r").unwrap_or(line))
                    .map_or_else(|bad| bad.seq, |event| Some(event.seq)),
                None => leading_number(window),
            };
            if !seq.is_some_and(|seq| self.sequencer.is_beyond_jump(seq)) {
                break;
            }
            self.count_rejected(Reject::TooFar, seq);
            self.counters.events_received += 1;
            match memchr::memchr(b'\n', &chunk[at..range.end]) {
                Some(newline) => at += newline + 1,
                None => return (range.end, Some(Stop::Overlong)),
            }
        }
        (at, None)
    }

    /// Counts a line that was no event.
    pub fn count_rejected(&mut self, reason: Reject, seq: Option<u64>) {
        self.counters.events_rejected[reason as usize] += 1;
        self.last_reject = Some((reason, seq));
    }

    /// The last line that was rejected since the last call, for the log: why, and its number.
    pub fn take_last_reject(&mut self) -> Option<(Reject, Option<u64>)> {
        self.last_reject.take()
    }

    /// Releases events while the one at the cursor is there and the turn has room. Says whether room is what
    /// ended it.
    #[inline(always)]
    fn release(&mut self, chunk: &[u8]) -> bool {
        let full = loop {
            let room = self.room();
            if room == 0 {
                break true;
            }
            let Self { sequencer, graph, fanout, record, counters, runner, .. } = self;
            let (index, run) = sequencer.run(room);
            let len = run.len();
            if len > 0 {
                let text = |place, slot: Slot| Text {
                    bytes: if slot.has(FRESH) {
                        &chunk[slot.text()..]
                    } else {
                        sequencer.text_at(index + place)
                    },
                    len: slot.len(),
                };
                if record.is_on() {
                    record.push_run(run, text);
                }
                runner.apply(run, graph, fanout, counters, text);
                sequencer.take(len);
            } else if let Some((number, slot)) = self.sequencer.pop() {
                self.apply_unusual(number, slot, chunk);
            } else if !self.sequencer.pass_holes() {
                break false;
            }
        };
        self.sequencer.update_reach();
        full
    }

    /// How many events may be released before the turn is full for one of those who listen.
    #[inline(always)]
    fn room(&self) -> usize {
        if self.record.is_full() {
            0
        } else if self.graph.is_settling() {
            self.fanout.room().min(1)
        } else {
            self.fanout.room()
        }
    }

    /// An event whose ids or text do not fit a slot.
    #[cold]
    fn apply_unusual(&mut self, number: u64, slot: Slot, chunk: &[u8]) {
        let len = slot.len();
        let (boxed, settled);
        let text = if slot.has(BOXED) {
            boxed = self.sequencer.take_boxed(number);
            &boxed[..]
        } else if slot.has(FRESH) {
            &chunk[slot.text()..][..len]
        } else {
            settled = *self.sequencer.text(number);
            &settled[..len]
        };
        let content = text.strip_suffix(b"\n").unwrap_or(text);
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        let event = parse_line(content);
        debug_assert!(event.is_ok(), "it was an event when it arrived");
        if let Ok(event) = event {
            self.apply_event(&event, text);
        }
    }

    /// Releases an event by itself.
    fn apply_event(&mut self, event: &Event, text: &[u8]) {
        if self.record.is_on() {
            self.record.push(text);
        }
        let Self { graph, fanout, counters, .. } = self;
        let text = Text { bytes: text, len: text.len() };
        apply_one(event.kind as u8, (event.from, event.to), text, graph, fanout, counters);
    }

    /// Turns the record of what is released on. After `bytes_max` bytes of lines, give or take a run of 256, the turn is full until
    /// [`Engine::take_released`] has been called. The lines are kept behind `headroom` zero bytes: a header may be
    /// written there in place.
    pub fn record(&mut self, bytes_max: usize, headroom: usize) {
        self.record.turn_on(self.cursor(), bytes_max, headroom);
    }

    /// Swaps out what was released since the last call. The buffer of `block` is used for what comes next. Returns false,
    /// with `block` unchanged, if the cursor has not moved, or if there is no record.
    pub fn take_released(&mut self, block: &mut Released) -> bool {
        self.record.take(self.cursor(), block)
    }

    /// Hands every user that is owed something its bytes, in one piece each, and ends the turn.
    pub fn deliver(&mut self, write: impl FnMut(u32, &[u8])) {
        if !self.fanout.is_empty() {
            self.fanout.deliver(write);
        }
    }

    /// Whether nothing waits to be delivered.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        self.fanout.is_empty()
    }

    /// Must be called at time `now` before the chunk last fed is changed: what waits in the ring is saved
    /// and gets its deadline.
    pub fn settle(&mut self, chunk: &[u8], now: Micros) {
        self.sequencer.settle(chunk, now);
    }

    /// Tells that an event which does not fit the ring has arrived, so that it does not wait for ever either.
    pub fn set_deadline(&mut self, seq: u64, now: Micros) {
        self.sequencer.set_deadline(seq, now);
    }

    /// When [`Engine::expire`] has something to do next.
    pub fn next_deadline(&mut self) -> Option<Micros> {
        self.sequencer.next_deadline()
    }

    /// Gives up the holes whose time has come; [`Engine::release_waiting`] releases what was behind them.
    pub fn expire(&mut self, now: Micros) {
        self.sequencer.expire(now);
    }

    /// Nothing was read for `by`: holes get that much more time.
    pub fn postpone(&mut self, by: Micros) {
        self.sequencer.postpone(by);
    }

    /// Gives up the hole at the cursor, up to the lowest waiting number or, if none is waiting, to `otherwise`. Returns
    /// whether there was one to give up; while holes are held there is none.
    pub fn skip_hole(&mut self, otherwise: Option<u64>) -> bool {
        self.sequencer.skip_hole(otherwise)
    }

    /// Gives up every number below `number` that has not come, whatever else holds holes.
    pub fn skip_to(&mut self, number: u128) {
        self.sequencer.skip_to(number);
    }

    /// While holes are held, no rule gives one up (SPEC section 2, *Grace*). When that ends, at time `now`, everything that
    /// waits counts as arriving then.
    pub fn hold_gaps(&mut self, hold: bool, now: Micros) {
        self.sequencer.hold_gaps(hold, now);
    }

    /// Whether holes are held.
    #[must_use]
    pub fn holds_gaps(&self) -> bool {
        self.sequencer.holds_gaps()
    }

    /// Gives up all holes below the highest waiting number.
    pub fn skip_all_holes(&mut self) {
        self.sequencer.skip_all_holes();
    }

    /// Whether the line that [`Stop::Blocked`] named can be fed by now.
    #[must_use]
    pub fn takes(&self, seq: u64) -> bool {
        self.sequencer.takes(seq)
    }

    /// Begins a new run: cursor at the first number, no edges. Nothing may be waiting, and what the record has must have been
    /// taken. A walk over the graph ends.
    ///
    /// # Panics
    ///
    /// If events are waiting, or in the record.
    pub fn restart(&mut self) {
        assert!(self.record.is_empty(self.cursor()), "what was released has been taken");
        self.sequencer.set_cursor(self.first_sequence.into());
        self.record.restart(self.first_sequence.into());
        let Self { graph, fanout, .. } = self;
        graph.clear_edges(|slot| fanout.free(slot));
        self.walk = None;
    }

    /// Goes to a number, up to 2^64, without releasing anything or giving up a number: for what was released before, by
    /// another engine. Nothing may be waiting, and what the record has must have been taken.
    ///
    /// # Panics
    ///
    /// If the number is above 2^64, if events are waiting, or in the record.
    pub fn set_cursor(&mut self, cursor: u128) {
        assert!(self.record.is_empty(self.cursor()), "what was released has been taken");
        self.sequencer.set_cursor(cursor);
        self.record.move_to(cursor);
    }

    /// Adds an edge to the follow graph without an event: for edges of a snapshot.
    pub fn add_edge(&mut self, follower: u64, followed: u64) {
        self.graph.change(follower, followed, true);
    }

    /// Begins a walk over the follow graph, which [`Engine::walk_snapshot`] goes on with; one that is under way is dropped.
    /// Returns the cursor. The edges that the walk hands out are those at this cursor, except that the events released
    /// until its end may or may not be taken into account. Replaying these events on top makes it exact, because the
    /// last event of an edge decides whether it is there.
    pub fn begin_snapshot(&mut self) -> u128 {
        self.walk = Some(Walk::default());
        self.cursor()
    }

    /// Goes on with the walk: hands out up to `budget` edges as *(follower, followed)*, some of them perhaps twice. A user
    /// and 64 bits of a user's set count as much as an edge. Returns whether the walk is over; so it is if there is none.
    pub fn walk_snapshot(&mut self, budget: usize, edge: impl FnMut(u64, u64)) -> bool {
        let done = self.walk.as_mut().is_none_or(|walk| self.graph.walk(walk, budget, edge));
        if done {
            self.walk = None;
        }
        done
    }

    /// The next number to release; 2^64 after the last one.
    #[must_use]
    pub fn cursor(&self) -> u128 {
        self.sequencer.cursor()
    }

    /// Events that wait in the ring.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.sequencer.waiting()
    }

    /// What waits in the ring, in the order of the numbers: each number and its line. An empty line stands for a line that was
    /// rejected and only uses up its number. The chunks must have been [settled](Engine::settle).
    pub fn waiting_lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.sequencer.waiting_lines()
    }

    /// Uses up a number, as a rejected line does, if the ring takes it.
    pub fn use_up(&mut self, number: u64) {
        self.put_void(number);
    }

    /// Slots of the ring.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.sequencer.capacity()
    }

    /// Edges of the follow graph.
    #[must_use]
    pub fn follow_edges(&self) -> u64 {
        self.graph.edges()
    }

    /// Connected users.
    #[must_use]
    pub fn users(&self) -> usize {
        self.fanout.users()
    }

    /// The numbers given up since the last call. Adds them to the counters.
    pub fn take_given_up(&mut self) -> GivenUp {
        let given_up = self.sequencer.take_given_up();
        self.counters.sequence_skipped = self.counters.sequence_skipped.saturating_add(given_up.numbers);
        given_up
    }
}

#[cold]
fn count_dropped(counters: &mut Counters, place: Place) {
    match place {
        Place::Late => counters.events_late += 1,
        Place::Duplicate => counters.events_duplicate += 1,
        Place::Waiting | Place::TooFar => {}
    }
}
