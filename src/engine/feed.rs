//! Feeding: a source's bytes become events in the ring.

#![forbid(unsafe_code)]

use super::counters::EngineCounters;
use super::{
    arch::{
        batch::BATCH_LINES,
        scan::{AFTER, Scanned, scan_line, window},
    },
    config::Stop,
    event::{Event, Kind, Reject, Rejected, leading_number, parse_line},
    packed::{FRESH, INLINE_BYTES, LONG, Packed, WIDE},
    pipeline::Engine,
    sequencer::Insertion,
};
use crate::sequence::SequenceNumber;
use std::ops::Range;

impl Engine {
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
                    if self.sequencer.is_beyond_jump(seq.get()) {
                        let (next, stop) = self.reject_beyond_jump(chunk, at..range.end);
                        at = next;
                        if let Some(stop) = stop {
                            return (at, stop);
                        }
                    } else if !self.sequencer.takes(seq.get()) {
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

    /// Puts a batch of lines into the ring.
    fn put_batch(&mut self, chunk: &[u8], range: Range<usize>) -> (usize, Option<Stop>) {
        let mut at = range.start;
        // The last lines of a chunk take the long way: nothing of a window may lie behind the end.
        let whole = &chunk[..if self.event_bytes_max < AFTER { 0 } else { range.end }];
        let mut room = BATCH_LINES;
        if let Some(next) = self.cpu.scan(whole, at, &mut self.lines) {
            let seqs = self.lines.seqs();
            let mut line = self.sequencer.put_many(seqs, self.lines.slots(0));
            while let (Some(&seq), Some(slot)) = (seqs.get(line), self.lines.slots(line).next()) {
                match self.sequencer.put(seq, slot) {
                    Insertion::Waiting => {}
                    Insertion::TooFar => {
                        self.counters.events_received += line as u64;
                        return (slot.text(), Some(Stop::Blocked(SequenceNumber::new(seq))));
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
            if let Some(scanned) = window(whole, at).and_then(scan_line) {
                let Scanned { seq, kind, from, to, len } = scanned;
                match self.sequencer.put(seq, Packed::new(kind, FRESH, from, to, at as u32, len as u16)) {
                    Insertion::Waiting => {}
                    Insertion::TooFar => {
                        stop = Some(Stop::Blocked(SequenceNumber::new(seq)));
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

    /// Puts the next line into the ring, an event or not. Returns its length.
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
                    self.count_rejected(reason, None, content);
                    self.counters.events_received += 1;
                    return (len, None);
                };
                let place = self.put_void(seq);
                if place == Insertion::TooFar {
                    return (0, Some(Stop::Blocked(seq)));
                }
                self.count_rejected(reason, Some(seq), content);
                self.counters.events_received += 1;
                return (len, None);
            }
        };
        let place = self.put_event(&event, range.start, &window[..len]);
        match place {
            Insertion::TooFar => return (0, Some(Stop::Blocked(seq))),
            Insertion::Waiting => {}
            place => count_dropped(&mut self.counters, place),
        }
        self.counters.events_received += 1;
        (len, None)
    }

    fn put_event(&mut self, event: &Event, at: usize, text: &[u8]) -> Insertion {
        let narrow = (u32::try_from(event.from.get()), u32::try_from(event.to.get()));
        let (from, to, wide) = if let (Ok(from), Ok(to)) = narrow { (from, to, 0) } else { (0, 0, WIDE) };
        let kind = event.kind as u8;
        let long = if text.len() > INLINE_BYTES { LONG } else { 0 };
        match (u32::try_from(at), u16::try_from(text.len())) {
            (Ok(at), Ok(len)) => {
                self.sequencer.put(event.seq.get(), Packed::new(kind, FRESH | wide | long, from, to, at, len))
            }
            _ => self.sequencer.put_boxed(
                event.seq.get(),
                Packed::new(kind, wide | long, from, to, 0, 0),
                text,
            ),
        }
    }

    /// Uses up the number of a rejected line.
    pub(super) fn put_void(&mut self, seq: SequenceNumber) -> Insertion {
        self.sequencer.put(seq.get(), Packed::new(Kind::Void as u8, FRESH, 0, 0, 0, 0))
    }

    fn put_overlong(&mut self, prefix: &[u8], rest: &[u8]) -> (usize, Option<Stop>) {
        let seq = leading_number(prefix);
        if let Some(seq) = seq
            && self.put_void(seq) == Insertion::TooFar
        {
            return (0, Some(Stop::Blocked(seq)));
        }
        self.count_rejected(Reject::TooLong, seq, prefix);
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
            if !seq.is_some_and(|seq| self.sequencer.is_beyond_jump(seq.get())) {
                break;
            }
            self.count_rejected(
                Reject::TooFar,
                seq,
                line.map_or(window, |line| line.strip_suffix(b"\r").unwrap_or(line)),
            );
            self.counters.events_received += 1;
            match memchr::memchr(b'\n', &chunk[at..range.end]) {
                Some(newline) => at += newline + 1,
                None => return (range.end, Some(Stop::Overlong)),
            }
        }
        (at, None)
    }
}

#[cold]
fn count_dropped(counters: &mut EngineCounters, place: Insertion) {
    match place {
        Insertion::Late => counters.events_late += 1,
        Insertion::Duplicate => counters.events_duplicate += 1,
        Insertion::Waiting | Insertion::TooFar => {}
    }
}
