//! Replaying: released lines are applied once more, without the ring.
//!
//! A journal or another server hands over lines that a sequencer has put in order before. They are read as fast as the
//! lines of a source, and go straight to the graph and the fan-out. They come from a disk or a network and may be damaged.
//! Any bytes are accepted here: they are applied, or refused with a reason.

#![forbid(unsafe_code)]

use super::{
    arch::{
        partition::RUN,
        scan::{Scanned, scan_line, window},
    },
    damage::{Damage, DamageReason, Replay},
    event::{Event, parse_line},
    packed::{FRESH, Packed},
    pipeline::Engine,
    text::Text,
};
use crate::sequence::Cursor;
use std::ops::Range;

/// Ordinary events that are applied together.
struct Run {
    slots: [Packed; RUN],
    len: usize,
}

impl Engine {
    /// Applies the lines of `chunk[range]`, a part of a block of released lines, or all of it. Their numbers must ascend, and must
    /// be at the cursor or above and below `to`, the cursor behind the block. Once every line has been applied, the cursor
    /// is at `to`. Nothing may wait in the ring. Returns how far it came in the chunk, and why it stopped there.
    ///
    /// Counts events as released and delivered. Counts no line as received, and no number as given up.
    ///
    /// # Errors
    ///
    /// The first line that cannot be replayed. The lines before it have been applied, and the cursor is behind them.
    ///
    /// # Panics
    ///
    /// If events are waiting.
    pub fn replay(
        &mut self,
        chunk: &[u8],
        range: Range<usize>,
        to: Cursor,
    ) -> Result<(usize, Replay), Damage> {
        assert_eq!(self.waiting(), 0, "replayed lines do not pass the ring");
        self.begin_turn();
        let mut at = range.start;
        if to < self.cursor() || to > Cursor::END {
            return Err(Damage { at, reason: DamageReason::WrongEnd(to) });
        }
        let to = to.get();
        // The last lines take the long way: nothing of a window may lie behind the end.
        let whole = &chunk[..range.end];
        let mut run = Run { slots: [Packed::default(); RUN], len: 0 };
        while at < range.end {
            let room = self.room();
            if room == 0 {
                return Ok((at, Replay::TurnFull));
            }
            let next = self.read_run(whole, at, (room, to), &mut run);
            if run.len > 0 {
                self.apply_run(chunk, &run);
                at = next;
            } else if let Some(next) = self.replay_any_line(whole, at, to)? {
                at = next;
            } else {
                return Ok((at, Replay::TurnFull));
            }
        }
        self.sequencer.set_cursor(to);
        Ok((at, Replay::Done))
    }

    /// Reads ordinary lines, up to the first other one or as many as there is room for. Moves the cursor behind them. Returns
    /// where they end.
    fn read_run(&mut self, chunk: &[u8], start: usize, (room, to): (usize, u128), run: &mut Run) -> usize {
        let mut cursor = self.sequencer.cursor();
        let mut at = start;
        run.len = 0;
        if let Some(next) = self.cpu.scan(chunk, at, &mut self.lines) {
            let seqs = self.lines.seqs();
            let taken = seqs.len().min(room);
            let ascending = ascending(&seqs[..taken], cursor, to);
            for (target, slot) in run.slots[..ascending].iter_mut().zip(self.lines.slots(0)) {
                *target = slot;
            }
            run.len = ascending;
            if let Some(&last) = seqs[..ascending].last() {
                cursor = u128::from(last) + 1;
                at = if ascending == seqs.len() {
                    next
                } else {
                    run.slots[ascending - 1].text() + run.slots[ascending - 1].len()
                };
            }
        }
        // A line out of order ends the run as well. Its fault is named when it is read alone.
        while run.len < room.min(RUN)
            && let Some(scanned) = window(chunk, at).and_then(scan_line)
        {
            let Scanned { seq, kind, from, to: acted_upon, len } = scanned;
            if u128::from(seq) < cursor || u128::from(seq) >= to {
                break;
            }
            run.slots[run.len] = Packed::new(kind, FRESH, from, acted_upon, at as u32, len as u16);
            run.len += 1;
            cursor = u128::from(seq) + 1;
            at += len;
        }
        self.sequencer.set_cursor(cursor);
        at
    }

    fn apply_run(&mut self, chunk: &[u8], run: &Run) {
        let run = &run.slots[..run.len];
        let text = |_, slot: Packed| Text { bytes: &chunk[slot.text()..], len: slot.len() };
        let Self { graph, fanout, record, counters, runner, .. } = self;
        if record.is_on() {
            record.push_run(run, text);
        }
        runner.apply(run, graph, fanout, counters, text);
    }

    /// Applies the line that begins at a byte, whatever it is. Returns where it ends, or nothing if it needs a turn of
    /// its own.
    #[cold]
    fn replay_any_line(&mut self, chunk: &[u8], at: usize, to: u128) -> Result<Option<usize>, Damage> {
        let damage = |reason| Damage { at, reason };
        let newline = memchr::memchr(b'\n', &chunk[at..]).ok_or(damage(DamageReason::Truncated))?;
        let text = &chunk[at..=at + newline];
        let content = &text[..newline];
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        let event: Event = parse_line(content).map_err(|bad| damage(DamageReason::NoEvent(bad.reason)))?;
        let seq = u128::from(event.seq.get());
        if seq < self.sequencer.cursor() {
            return Err(damage(DamageReason::OutOfOrder(event.seq)));
        }
        if seq >= to {
            return Err(damage(DamageReason::BehindTheEnd(event.seq)));
        }
        if !self.fanout.fits(text.len()) {
            if !self.fanout.is_empty() {
                return Ok(None);
            }
            self.fanout.make_fit(text.len());
        }
        self.sequencer.set_cursor(seq + 1);
        self.apply_event(&event, text);
        Ok(Some(at + newline + 1))
    }
}

/// How many numbers, from the first one on, ascend from the cursor and are below the end.
#[inline(always)]
fn ascending(seqs: &[u64], cursor: u128, to: u128) -> usize {
    let (Some(&first), Some(&last)) = (seqs.first(), seqs.last()) else { return 0 };
    let in_order = seqs.windows(2).fold(true, |all, pair| all & (pair[0] < pair[1]));
    if in_order && u128::from(first) >= cursor && u128::from(last) < to {
        return seqs.len();
    }
    let mut least = cursor;
    seqs.iter()
        .take_while(|&&seq| {
            let seq = u128::from(seq);
            let fits = seq >= least && seq < to;
            least = seq + 1;
            fits
        })
        .count()
}
