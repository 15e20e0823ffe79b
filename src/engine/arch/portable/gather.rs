//! Gathering event by event: the innermost loop of all.
//!
//! For each block of the tape a user has a word whose bits say which of its events are for it. Each is copied from the tape
//! to the end of the last one. Each copy moves 32 or 64 bytes, whatever the length, and the next copy overwrites the excess.
//! One word holds all facts about an event. Sizes are constants. Positions have 16 bits, and the buffers are long enough for
//! all of them. So no bounds have to be checked.
//!
//! The number of a block's events for a user is unpredictable, and a misprediction at the end of the loop costs as much
//! as several copies. So events are copied four at a time. The last of the four may be the event behind the block, which
//! has no bytes.

#![forbid(unsafe_code)]

use crate::engine::{arch::prefetch::prefetch, bits::for_each_bit, mail::Mail};
use std::array;

/// Words of one user that lie side by side: a cache line.
pub(crate) const GROUP: usize = 8;
const EVENTS_OF_GROUP: usize = GROUP * EVENTS;

/// Events of a block.
pub(crate) const EVENTS: usize = 64;
/// Copied at once, if no event of the block is longer: two sizes, for ordinary ids and for those of 64 bits.
const SHORT: usize = 32;
const LONGER: usize = 64;
/// Events that are copied without a look at whether there is another one.
const AT_A_TIME: usize = 4;
/// Room for excess copies. It must be behind the end of the tape and behind a user's bytes.
/// It is as much as positions of 16 bits reach, so that they need no check.
pub(crate) const SLACK: usize = (1 << 16) + LONGER;

/// The place of a block's events on the tape.
#[derive(Debug)]
pub(crate) struct Block {
    /// The offset of the block on the tape.
    start: u32,
    /// Which event of the tape is its first.
    first: u32,
    /// For each event, in the lower half of the word, where in the block it begins; in the upper half its length. One more,
    /// of no length.
    texts: [u32; EVENTS + 1],
    longest: usize,
}

impl Block {
    /// A block that begins on the tape where `ends` does, and whose events end where the others are. There are at least
    /// [`SLACK`] bytes behind its beginning.
    #[inline(always)]
    pub(crate) fn new(first: usize, ends: &[u32; EVENTS + 1]) -> Self {
        let len = |event: usize| ends[event + 1] - ends[event];
        let text = |event: usize| (ends[event] - ends[0]) & 0xFFFF | len(event) << 16;
        let longest = (0..EVENTS).map(len).fold(0, u32::max) as usize;
        Self {
            start: ends[0],
            first: first as u32,
            texts: array::from_fn(|event| if event < EVENTS { text(event) } else { 0 }),
            longest,
        }
    }

    /// Copies the events whose bits are set to `out[at..]`; returns where they end. `ends` are those of all of the tape.
    #[inline(always)]
    pub(crate) fn gather(&self, tape: &[u8], ends: &[u32], events: u64, out: &mut [u8], at: usize) -> usize {
        let start = self.start as usize;
        if let Some(tape) = tape[start..].first_chunk()
            && let Some(out) = out[at..].first_chunk_mut()
            && self.longest <= LONGER
        {
            at + if self.longest <= SHORT {
                self.gather_short::<SHORT>(tape, events, out)
            } else {
                self.gather_short::<LONGER>(tape, events, out)
            }
        } else {
            gather_long(tape, &ends[self.first as usize..], events, out, at)
        }
    }

    /// Copies events of at most `COPY` bytes each.
    #[inline(always)]
    fn gather_short<const COPY: usize>(
        &self,
        tape: &[u8; SLACK],
        events: u64,
        out: &mut [u8; SLACK],
    ) -> usize {
        let mut rest = events;
        let mut at = 0;
        while rest != 0 {
            for _ in 0..AT_A_TIME {
                let text = self.texts[rest.trailing_zeros() as usize];
                rest &= rest.wrapping_sub(1);
                let (from, to) = (usize::from(text as u16), usize::from(at as u16));
                out[to..to + COPY].copy_from_slice(&tape[from..from + COPY]);
                at += (text >> 16) as usize;
            }
        }
        at
    }
}

/// The deliveries of a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owed<'a> {
    pub(crate) tape: &'a [u8],
    /// Where on it the first event begins, and how many bytes all events have.
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// How many events there are on the tape.
    pub(crate) events: usize,
    /// Where on the tape each event ends, after where the first one begins.
    pub(crate) ends: &'a [u32],
    pub(crate) blocks: &'a [Block],
    /// The events of each user: `[group of blocks][slot][block in group]`.
    pub(crate) matrix: &'a [[u64; GROUP]],
    /// Slots of a group.
    pub(crate) slots: usize,
    pub(crate) mail: &'a Mail,
}

impl Owed<'_> {
    /// Merges a user's mail with its events on the tape. Returns the number of bytes.
    #[inline(always)]
    pub(crate) fn gather(&self, slot: usize, out: &mut [u8]) -> usize {
        let mut len = 0;
        let mut place = 0;
        let rest = (self.events as u32, 0..0);
        for (before, run) in self.mail.runs(slot).chain([rest]) {
            let run = &self.mail.all_bytes()[run];
            len = self.gather_tape(slot, place, before as usize, out, len);
            place = before as usize;
            out[len..len + run.len()].copy_from_slice(run);
            len += run.len();
        }
        len
    }

    /// Copies what a user gets of the events `from..to` on the tape to `out[len..]`; returns where that ends.
    #[inline(always)]
    fn gather_tape(&self, slot: usize, from: usize, to: usize, out: &mut [u8], mut len: usize) -> usize {
        let slots = self.slots;
        let groups = self.blocks.chunks(GROUP).zip(self.matrix.chunks(slots)).enumerate();
        let wanted = from / EVENTS_OF_GROUP..to.div_ceil(EVENTS_OF_GROUP);
        for (group, (blocks, words)) in groups.skip(wanted.start).take(wanted.len()) {
            if let Some(next) = self.matrix.get((group + 1) * slots + slot) {
                prefetch(next);
            }
            let mut words = words[slot];
            let first = group * EVENTS_OF_GROUP;
            if first < from || first + EVENTS_OF_GROUP > to {
                for (word, first) in words.iter_mut().zip((first..).step_by(64)) {
                    *word &= bits_from(from.saturating_sub(first)) & !bits_from(to.saturating_sub(first));
                }
            }
            for (block, &word) in blocks.iter().zip(&words) {
                if word != 0 {
                    len = block.gather(self.tape, self.ends, word, out, len);
                }
            }
        }
        len
    }
}

/// The bits from one on.
#[inline(always)]
fn bits_from(bit: usize) -> u64 {
    if bit < 64 { u64::MAX << bit } else { 0 }
}

#[cold]
fn gather_long(tape: &[u8], ends: &[u32], events: u64, out: &mut [u8], mut at: usize) -> usize {
    for_each_bit(&[events], |event| {
        let text = &tape[ends[event] as usize..ends[event + 1] as usize];
        out[at..at + text.len()].copy_from_slice(text);
        at += text.len();
    });
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_chosen_is_copied_and_nothing_else(
            longest in prop_oneof![Just(SHORT), Just(SHORT + 1), Just(LONGER), Just(LONGER + 1), Just(3000)],
            lens in prop::collection::vec(any::<prop::sample::Index>(), EVENTS),
            all_are_longest in any::<bool>(),
            events in prop_oneof![any::<u64>(), Just(u64::MAX), Just(1 << 63), Just(0)],
            (start, at) in (0..100usize, 0..100usize),
        ) {
            let lens: Vec<usize> =
                lens.iter().map(|len| if all_are_longest { longest } else { 1 + len.index(longest) }).collect();
            let mut end = start;
            let mut ends = [start as u32; EVENTS + 1];
            for (&len, known) in lens.iter().zip(&mut ends[1..]) {
                end += len;
                *known = end as u32;
            }
            let tape: Vec<u8> = (0..end + SLACK).map(|byte| (byte * 7 / 3) as u8).collect();
            let mut out = vec![0; at + end + SLACK];
            out[..at].fill(b'x');
            let to = Block::new(0, &ends).gather(&tape, &ends, events, &mut out, at);
            let chosen = (0..EVENTS).filter(|event| events >> event & 1 != 0);
            let expected: Vec<u8> =
                chosen.flat_map(|event| &tape[ends[event] as usize..ends[event + 1] as usize]).copied().collect();
            prop_assert_eq!(&out[..at], vec![b'x'; at]);
            prop_assert_eq!(&out[at..to], expected);
        }
    }
}
