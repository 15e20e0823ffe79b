//! The model's half of SPEC section 2: what has arrived, what waits, and what may be released or given up when.
//!
//! The model is told which bytes were read from which source and, after every turn, how many lines the server says it has taken
//! and where its cursor is. It says whether that can be: with a sorted map, and a look through all of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use fortnight::internals::time::{MILLISECOND, Micros};
use support::{
    grammar::{Framing, Meaning, Piece, meaning},
    model::Event,
};

use crate::people::People;

/// A line of a source that has been read.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) number: Option<u64>,
    /// An event, or why it is none.
    pub(crate) event: Result<Event, &'static str>,
    pub(crate) text: Vec<u8>,
    /// When its last byte arrived, by the order of arrivals.
    pub(crate) arrived: u64,
    /// When it was read.
    read: Moment,
}

/// A time, and how long of it sources were not read for slow users.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Micros,
    pub(crate) paused: Micros,
}

/// Since when a line waits: the server may count from when it was read, or from when it was taken, later in the turn.
#[derive(Clone, Copy, Debug)]
struct Since {
    read: Moment,
    taken: Moment,
}

/// An event source.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    framing: Framing,
    /// Bytes read.
    read: u64,
    /// Read, but not taken by the server.
    lines: VecDeque<Rc<Line>>,
    /// Since when its next line is too far ahead for the ring.
    held_back: Option<Since>,
    /// It has ended or failed.
    pub(crate) over: bool,
}

/// What the model has counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) received: u64,
    pub(crate) rejected: BTreeMap<&'static str, u64>,
    /// Surely late, surely duplicates, and those that depend on when exactly an event was released.
    pub(crate) late: u64,
    pub(crate) duplicate: u64,
    pub(crate) either: u64,
    pub(crate) skipped: u64,
    /// Lines that a source was in the middle of when the server closed it: truncated, perhaps.
    pub(crate) cut_off: u64,
    /// Rejected lines whose numbers wait to be used up.
    pub(crate) voids_waiting: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    capacity: u128,
    first: u128,
    line_bytes_max: usize,
    /// In microseconds; `None`: for ever.
    timeout: Option<Micros>,
    pub(crate) cursor: u128,
    waiting: BTreeMap<u64, (Since, Rc<Line>)>,
    /// Holes below this number have been given up.
    pub(crate) skip_before: u128,
    pub(crate) sources: BTreeMap<usize, Source>,
    /// The source whose lines are being taken.
    current: Option<usize>,
    /// Sources that are held back, in the order in which that began.
    held: Vec<usize>,
    /// Numbers that had arrived and were held back, and since when, whatever came of their lines.
    gone: Vec<(u64, Since)>,
    pub(crate) counted: Counted,
}

/// Lines that are looked through to tell late events from duplicates.
const LOOKED_THROUGH: u128 = 300;

impl Line {
    fn since(&self, taken: Moment) -> Since {
        Since { read: self.read, taken }
    }
}

impl Ring {
    pub(crate) fn new(config: &fortnight::internals::config::Config) -> Ring {
        let first = u128::from(config.first_sequence);
        Ring {
            capacity: config.reorder_capacity as u128,
            first,
            line_bytes_max: config.max_event_bytes,
            timeout: u64::try_from(config.event_timeout_ms).ok().map(|ms| ms * MILLISECOND),
            cursor: first,
            waiting: BTreeMap::new(),
            skip_before: first,
            sources: BTreeMap::new(),
            current: None,
            held: Vec::new(),
            gone: Vec::new(),
            counted: Counted::default(),
        }
    }

    pub(crate) fn connect(&mut self, peer: usize) {
        let framing = Framing::new(self.line_bytes_max);
        let source = Source { framing, read: 0, lines: VecDeque::new(), held_back: None, over: false };
        self.sources.insert(peer, source);
    }

    /// The server has read bytes of a source; `arrived` says when which of them did. Before that it must have taken
    /// everything that fits.
    pub(crate) fn read(
        &mut self,
        peer: usize,
        bytes: &[u8],
        arrived: &[(u64, u64)],
        read: Moment,
    ) -> Result<(), String> {
        let source = self.sources.get_mut(&peer).ok_or("a source was read that is not there")?;
        if !source.lines.is_empty() {
            return Err(format!("source {peer} was read while its next event waits for room in the ring"));
        }
        for &byte in bytes {
            source.read += 1;
            let Some(piece) = source.framing.push(byte) else { continue };
            let (number, event) = match meaning(&piece) {
                Meaning::Empty => continue,
                Meaning::Event { number, event } => (Some(number), Ok(event)),
                Meaning::Rejected { number, reason } => (number, Err(reason)),
            };
            let (Piece::Line(text) | Piece::Overlong(text)) = piece;
            let at = arrived.partition_point(|&(end, _)| end < source.read);
            let arrived = arrived.get(at).map_or(u64::MAX, |&(_, clock)| clock);
            source.lines.push_back(Rc::new(Line { number, event, text, arrived, read }));
        }
        self.current = Some(peer);
        Ok(())
    }

    /// A source has ended. What it has begun is truncated.
    pub(crate) fn end(&mut self, peer: usize) {
        if let Some(source) = self.sources.get_mut(&peer)
            && !std::mem::replace(&mut source.over, true)
            && source.framing.is_inside_a_line()
        {
            *self.counted.rejected.entry("truncated").or_default() += 1;
        }
    }

    /// The server has closed a source. Says whether it had lines that could have been taken.
    pub(crate) fn close(&mut self, peer: usize, now: Moment) -> bool {
        let Some(Source { framing, lines, held_back, over, .. }) = self.sources.remove(&peer) else {
            return false;
        };
        self.held.retain(|&held| held != peer);
        self.current = self.current.filter(|&current| current != peer);
        self.counted.cut_off += u64::from(!over && lines.is_empty() && framing.is_inside_a_line());
        let Some(next) = lines.front() else {
            return false;
        };
        // It is lost, but its number has arrived.
        self.gone.extend(next.number.map(|number| (number, held_back.unwrap_or(next.since(now)))));
        self.fits(next, self.cursor)
    }

    /// Bytes that have been read and not been taken, of the source that has most.
    pub(crate) fn held_bytes(&self) -> usize {
        let bytes = |source: &Source| source.lines.iter().map(|line| line.text.len()).sum();
        self.sources.values().map(bytes).max().unwrap_or(0)
    }

    fn next_line(&self, peer: usize) -> Option<&Rc<Line>> {
        self.sources.get(&peer)?.lines.front()
    }

    fn fits(&self, line: &Line, cursor: u128) -> bool {
        line.number.is_none_or(|number| u128::from(number) < cursor + self.capacity)
    }

    /// How far events can be released if holes below `skip_before` are given up.
    pub(crate) fn reach(&self, skip_before: u128) -> u128 {
        let mut cursor = self.cursor;
        for &number in self.waiting.keys() {
            let number = u128::from(number);
            if number > cursor && number > skip_before {
                break;
            }
            cursor = number + 1;
        }
        cursor.max(skip_before)
    }

    /// Releases as much as it takes for a number to fit. The server may have come further, but not surely.
    fn make_room(&mut self, number: Option<u64>, people: &mut People) -> Result<(), String> {
        let needed = number.map_or(0, |number| (u128::from(number) + 1).saturating_sub(self.capacity));
        let mut cursor = self.cursor;
        for &waiting in self.waiting.keys() {
            if cursor >= needed {
                break;
            }
            cursor = u128::from(waiting) + 1;
        }
        let most = self.reach(self.skip_before);
        self.release(if cursor < needed { most } else { cursor.min(most) }, people)
    }

    /// Takes lines in the order in which the server does, up to as many as it has taken in all, or everything that fits.
    pub(crate) fn take(
        &mut self,
        received: Option<u64>,
        now: Moment,
        people: &mut People,
    ) -> Result<(), String> {
        while Some(self.counted.received) != received {
            let Some(peer) = self.current else {
                let reach = self.reach(self.skip_before);
                let fits = |&peer: &usize| self.next_line(peer).is_some_and(|line| self.fits(line, reach));
                let Some(index) = self.held.iter().position(fits) else {
                    // The server may not wait with giving up what nobody can fill.
                    let Some(lowest) = self.stuck_before(reach) else { break };
                    self.release(reach, people)?;
                    self.skip_before = lowest;
                    continue;
                };
                self.current = Some(self.held.remove(index));
                self.release(reach, people)?;
                continue;
            };
            let Some(line) = self.next_line(peer).cloned() else {
                self.current = None;
                continue;
            };
            if !self.fits(&line, self.cursor) {
                let reach = self.reach(self.skip_before);
                if self.fits(&line, reach) {
                    self.make_room(line.number, people)?;
                } else {
                    self.hold_back(peer, now);
                }
                continue;
            }
            self.put(peer, &line, now);
        }
        match received {
            None => self.release(self.reach(self.skip_before), people),
            Some(received) if received > self.counted.received => Err(format!(
                "{received} lines have been taken, but only {} can have been",
                self.counted.received
            )),
            Some(_) => Ok(()),
        }
    }

    fn hold_back(&mut self, peer: usize, now: Moment) {
        self.current = None;
        if let Some(source) = self.sources.get_mut(&peer)
            && let Some(next) = source.lines.front()
        {
            source.held_back.get_or_insert(next.since(now));
            self.held.push(peer);
        }
    }

    fn put(&mut self, peer: usize, line: &Rc<Line>, now: Moment) {
        let source = self.sources.get_mut(&peer).expect("the line is from it");
        source.lines.pop_front();
        let held_back = source.held_back.take();
        self.counted.received += 1;
        if let Err(reason) = line.event {
            *self.counted.rejected.entry(reason).or_default() += 1;
        }
        let Some(number) = line.number else {
            return;
        };
        // The number arrived when it was held back, from whichever source.
        self.gone.extend(held_back.map(|since| (number, since)));
        let dropped = if u128::from(number) < self.cursor {
            &mut self.counted.late
        } else if !self.waiting.contains_key(&number) {
            self.counted.voids_waiting += u64::from(line.event.is_err());
            self.waiting.insert(number, (held_back.unwrap_or(line.since(now)), Rc::clone(line)));
            return;
        } else if self.is_released_at_once(number) {
            &mut self.counted.either
        } else {
            &mut self.counted.duplicate
        };
        *dropped += u64::from(line.event.is_ok());
    }

    /// Whether nothing is missing before a waiting number (or nobody has looked).
    fn is_released_at_once(&self, number: u64) -> bool {
        let number = u128::from(number);
        let missing = |before: u128| !self.waiting.contains_key(&(before as u64));
        number < self.skip_before
            || number - self.cursor > LOOKED_THROUGH
            || !(self.cursor.max(self.skip_before)..number).any(missing)
    }

    /// Releases events up to a number; what is missing must have been given up.
    pub(crate) fn release(&mut self, to: u128, people: &mut People) -> Result<(), String> {
        while self.cursor < to {
            match self.waiting.first_key_value() {
                Some((&number, (_, line))) if u128::from(number) == self.cursor => {
                    self.counted.voids_waiting -= u64::from(line.event.is_err());
                    people.release(line);
                    self.waiting.remove(&number);
                    self.cursor += 1;
                }
                first => {
                    let next = first.map_or(to, |(&number, _)| u128::from(number)).min(to);
                    if next > self.skip_before {
                        return Err(format!(
                            "{} was skipped before its time",
                            self.cursor.max(self.skip_before)
                        ));
                    }
                    self.counted.skipped = self.counted.skipped.saturating_add((next - self.cursor) as u64);
                    self.cursor = next;
                }
            }
        }
        Ok(())
    }

    /// The highest number whose time is up, after which no hole before it is waited for.
    fn due(&self, now: Moment) -> Option<u128> {
        self.dues(now, |since| since.taken).into_iter().next_back()
    }

    /// Of the numbers whose time is up, those of which none above it had been waiting for longer: each was the highest one at some
    /// time up to now. The server gives up what was due when it began to look at the sockets.
    fn dues(&self, now: Moment, from: fn(Since) -> Moment) -> BTreeSet<u128> {
        let Some(timeout) = self.timeout else { return BTreeSet::new() };
        let ring = self.waiting.iter().map(|(&number, &(since, _))| (number, since));
        let held = self.sources.values();
        let held = held.filter_map(|source| Some((source.lines.front()?.number?, source.held_back?)));
        let up = ring.chain(held).chain(self.gone.iter().copied()).filter_map(|(number, since)| {
            let since = from(since);
            let at = since.now + timeout + (now.paused - since.paused);
            (at <= now.now).then_some((at, number))
        });
        let mut up: Vec<_> = up.collect();
        up.sort_unstable_by_key(|&(at, number)| (at, std::cmp::Reverse(number)));
        let mut dues = BTreeSet::new();
        for (_, number) in up {
            if dues.last().is_none_or(|&last| u128::from(number) > last) {
                dues.insert(u128::from(number));
            }
        }
        dues
    }

    /// Whether the time of a hole is up that has not been given up.
    pub(crate) fn has_due_hole(&self, now: Moment) -> bool {
        self.due(now).is_some_and(|due| due > self.skip_before && due >= self.cursor)
    }

    /// When the first byte arrived that has not been read of a source that the ring does not hold back.
    pub(crate) fn overlooked_since(
        &self,
        lying: &[usize],
        times: &BTreeMap<usize, Vec<(u64, Micros)>>,
    ) -> Option<Micros> {
        let first = |peer: &usize| {
            let source = self.sources.get(peer).filter(|source| !source.over && source.lines.is_empty())?;
            let sent = times.get(peer)?;
            sent.get(sent.partition_point(|&(end, _)| end <= source.read)).map(|&(_, at)| at)
        };
        lying.iter().filter_map(first).min()
    }

    /// Whether every source is held back by a ring with this cursor.
    fn is_stuck_at(&self, cursor: u128) -> bool {
        let held = |source: &Source| source.lines.front().is_some_and(|line| !self.fits(line, cursor));
        self.live().count() > 0 && self.live().all(held)
    }

    /// Sources that have not been read to their ends. The others are closed at the end of the turn.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Source> {
        self.sources.values().filter(|source| !source.over)
    }

    /// Whether every source is held back.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck_at(self.cursor)
    }

    /// Some line can be taken if the cursor is there.
    pub(crate) fn has_lines_at(&self, cursor: u128) -> bool {
        let fits = |source: &Source| source.lines.front().is_some_and(|line| self.fits(line, cursor));
        self.sources.values().any(fits)
    }

    /// Whether a source has lines that have not been taken.
    pub(crate) fn holds(&self, peer: usize) -> bool {
        self.next_line(peer).is_some()
    }

    /// Numbers below which holes may be given up by now, and why: first, below which they have been already.
    pub(crate) fn options(&self, now: Moment) -> Vec<(u128, &'static str)> {
        let mut options = vec![(self.skip_before, "")];
        if self.timeout != Some(0) || !self.has_lines_at(self.cursor) {
            let mut dues = self.dues(now, |since| since.taken);
            dues.append(&mut self.dues(now, |since| since.read));
            let open = dues.into_iter().rev().filter(|&due| due > self.skip_before && due >= self.cursor);
            let why = if self.timeout == Some(0) { "deadline: hole, timeout 0" } else { "deadline: hole" };
            options.extend(open.map(|due| (due, why)));
        }
        let mut at = 0;
        while let Some(&(skip_before, _)) = options.get(at) {
            at += 1;
            if let Some(lowest) = self.stuck_before(self.reach(skip_before)) {
                options.push((lowest, "ring full: hole given up"));
            }
        }
        options
    }

    /// Where a full ring holds every source back: the next number that has arrived, if it may be released.
    fn stuck_before(&self, cursor: u128) -> Option<u128> {
        if self.timeout.is_none() || !self.is_stuck_at(cursor) {
            return None;
        }
        let lowest = self.waiting.keys().copied().find(|&number| u128::from(number) >= cursor);
        let held = self.sources.values().filter_map(|source| source.lines.front()?.number).min();
        lowest.or(held).map(u128::from)
    }

    /// The highest number that waits.
    pub(crate) fn highest(&self) -> Option<u128> {
        self.waiting.last_key_value().map(|(&number, _)| u128::from(number))
    }

    /// Events that wait if the cursor is there.
    pub(crate) fn waiting_at(&self, cursor: u128) -> usize {
        u64::try_from(cursor).map_or(0, |cursor| self.waiting.range(cursor..).count())
    }

    /// Whether a cursor is one at which releasing can have been interrupted.
    pub(crate) fn is_resting_place(&self, cursor: u128) -> bool {
        cursor == self.cursor || cursor > self.cursor && self.waiting.contains_key(&((cursor - 1) as u64))
    }

    /// A new run.
    pub(crate) fn restart(&mut self) {
        self.cursor = self.first;
        self.skip_before = self.first;
        self.gone.clear();
    }

    /// The source whose next line does not fit is held back from now on: the others are read before it. Says whether
    /// there is such a source, and another one to make it matter.
    pub(crate) fn hold_back_current(&mut self, now: Moment) -> bool {
        let reach = self.reach(self.skip_before);
        let Some(peer) = self.current else {
            return false;
        };
        if self.next_line(peer).is_none_or(|line| self.fits(line, reach)) {
            return false;
        }
        self.hold_back(peer, now);
        self.live().count() > 1
    }

    /// Whether it makes no difference to the future which of two this is.
    pub(crate) fn is_like(&self, other: &Ring) -> bool {
        self.cursor == other.cursor
            && self.skip_before.max(self.cursor) == other.skip_before.max(other.cursor)
            && self.current == other.current
            && self.held == other.held
            && self.waiting.len() == other.waiting.len()
            && self.waiting.keys().eq(other.waiting.keys())
            && self
                .waiting
                .values()
                .zip(other.waiting.values())
                .all(|(one, other)| Rc::ptr_eq(&one.1, &other.1))
    }

    /// Open sources.
    pub(crate) fn open(&self) -> impl Iterator<Item = usize> {
        self.sources.keys().copied()
    }

    /// Notes since when sources are held back; forgets what does not matter any more.
    pub(crate) fn note_held_back(&mut self, now: Moment) {
        let reach = self.reach(self.skip_before);
        let Ring { sources, cursor, capacity, .. } = self;
        for source in sources.values_mut() {
            if let Some(next) = source.lines.front()
                && next.number.is_some_and(|number| u128::from(number) >= reach + *capacity)
            {
                source.held_back.get_or_insert(next.since(now));
            }
        }
        self.gone.retain(|&(number, _)| u128::from(number) >= *cursor);
    }

    /// The sources, for finding the reason of a failure.
    pub(crate) fn sources_told(&self) -> String {
        let next = |(&peer, source): (&usize, &Source)| {
            let number = source.lines.front().map(|line| line.number);
            format!("source {peer} ({} lines, next {number:?})", source.lines.len())
        };
        let all: Vec<String> = self.sources.iter().map(next).collect();
        format!("{}; being taken {:?}, held back {:?}", all.join(", "), self.current, self.held)
    }

    /// What a server that has nothing to do must not have left undone.
    pub(crate) fn undone(&self, now: Moment) -> Option<String> {
        if self.has_lines_at(self.cursor) {
            return Some("a line that fits the ring is not taken".to_owned());
        }
        if self.reach(self.skip_before) > self.cursor {
            return Some(format!("{} could be released", self.cursor));
        }
        if let Some(due) = self.due(now).filter(|&due| due >= self.cursor) {
            return Some(format!("{due} has waited for longer than eventTimeoutMs"));
        }
        (self.is_stuck() && self.timeout.is_some())
            .then(|| "every source is held back by a full ring".to_owned())
    }
}
