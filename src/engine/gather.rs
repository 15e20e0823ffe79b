//! Gathering event by event: the innermost loop of all.
//!
//! For each block of the tape a user has a word whose bits say which of its events are for it. Each is copied from the tape
//! to where the last one ended, whatever its length as [`COPY`] bytes, of which the next one overwrites what is too much.
//! What there is to know about an event is in one word, which is looked up; sizes are constants and positions are masked, so
//! that nothing is left to be checked. How many events of a block are for a user is as good as random, and to have guessed
//! wrong when the loop ends costs as much as several copies: so they are copied four at a time, the last of which may be
//! the event behind the block, which has no bytes.

use super::idset::for_each_bit;
use std::array;

/// Events of a block.
pub(crate) const EVENTS: usize = 64;
/// A block of fewer bytes, none of whose events is longer than what is copied at once, is copied in this way.
const SHORT: usize = 2048;
const COPY: usize = 32;
/// Events that are copied without a look at whether there is another one.
const AT_A_TIME: usize = 4;
/// Room for what is copied too much, which must be behind the end of the tape and of what a user gets.
pub(crate) const SLACK: usize = SHORT + COPY;

/// Where on the tape the events of a block are.
#[derive(Debug)]
pub(crate) struct Block {
    /// Where it begins on the tape.
    start: u32,
    /// For each event, in the lower half of the word, where in the block it begins; in the upper half its length. One more,
    /// of no length.
    texts: [u32; EVENTS + 1],
    is_short: bool,
}

impl Block {
    /// A block that begins on the tape where `ends` does, and whose events end where the others are. There are at least
    /// [`SLACK`] bytes behind its beginning.
    #[inline(always)]
    pub(crate) fn new(ends: &[u32; EVENTS + 1]) -> Self {
        let len = |event: usize| ends[event + 1] - ends[event];
        let text = |event: usize| (ends[event] - ends[0]) & 0xFFFF | len(event) << 16;
        let longest = (0..EVENTS).map(len).fold(0, u32::max) as usize;
        Self {
            start: ends[0],
            texts: array::from_fn(|event| if event < EVENTS { text(event) } else { 0 }),
            is_short: ((ends[EVENTS] - ends[0]) as usize) < SHORT && longest <= COPY,
        }
    }

    /// Copies the events whose bits are set to `out[at..]`; returns where they end. `ends` are those of the block and perhaps
    /// others.
    #[inline(always)]
    pub(crate) fn gather(&self, tape: &[u8], ends: &[u32], events: u64, out: &mut [u8], at: usize) -> usize {
        if self.is_short
            && let Some(tape) = tape[self.start as usize..].first_chunk()
            && let Some(out) = out[at..].first_chunk_mut()
        {
            at + self.gather_short(tape, events, out)
        } else {
            gather_long(tape, ends, events, out, at)
        }
    }

    #[inline(always)]
    fn gather_short(&self, tape: &[u8; SLACK], events: u64, out: &mut [u8; SLACK]) -> usize {
        let mut rest = events;
        let mut at = 0;
        while rest != 0 {
            for _ in 0..AT_A_TIME {
                let text = self.texts[rest.trailing_zeros() as usize];
                rest &= rest.wrapping_sub(1);
                let from = text as usize & (SHORT - 1);
                let to = at & (SHORT - 1);
                out[to..to + COPY].copy_from_slice(&tape[from..from + COPY]);
                at += (text >> 16) as usize;
            }
        }
        at
    }
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
