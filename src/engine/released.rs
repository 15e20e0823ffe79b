//! The released stream: everything that the sequencer releases, in its order.
//!
//! Each run of events, each unusual event and each new run of numbers passes one seam, `Engine::release`. Two listeners are
//! there. The fan-out is one. The [`Record`] is the other: it keeps the lines of *all* events, also of events that no user
//! gets, until they are taken. A journal, a stream port and a publisher read from it.
//!
//! If nothing takes the lines, the record is off. Then it costs one comparison per run.

#![forbid(unsafe_code)]

use super::{event::Kind, packed::Packed, text::Text};
use crate::sequence::Cursor;

/// Lines of events that were released one behind the other, and the numbers that they cover.
///
/// A number from [`Released::from`] to [`Released::to`] without a line was given up, or belongs to a line that was rejected.
#[derive(Debug, Default)]
pub struct Released {
    /// The cursor before the first of them.
    pub from: Cursor,
    /// The cursor behind the last of them, up to 2^64.
    pub to: Cursor,
    /// How many lines there are.
    pub events: u64,
    /// A new run began: the graph lost all its edges before `from`.
    pub restarted: bool,
    headroom: usize,
    bytes: Vec<u8>,
}

impl Released {
    /// The lines, exactly as they arrived, in ascending order of their numbers.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        &self.bytes[self.headroom.min(self.bytes.len())..]
    }

    /// How many bytes stand in front of the lines: those that [`Engine::record`](super::Engine::record) was asked to leave, and more
    /// before them where an alignment was asked for.
    #[must_use]
    pub fn headroom(&self) -> usize {
        self.headroom
    }

    /// The buffer that holds the lines, behind [`Released::headroom`] zero bytes. The buffer may be changed and may be taken away.
    pub fn with_headroom(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// Keeps the lines of released events until they are taken.
#[derive(Debug)]
pub(crate) struct Record {
    is_on: bool,
    /// After so many bytes the turn is full. Nothing is written while the record is off, so it is never reached then.
    bytes_max: usize,
    /// The zero bytes in front of the lines, and the multiple at which they begin in memory, if the buffer need not grow.
    headroom: usize,
    alignment: usize,
    bytes: Vec<u8>,
    /// Where the lines begin and end. What is behind them is left of what the buffer held before: it need not be zeroed.
    begin: usize,
    end: usize,
    from: Cursor,
    events: u64,
    restarted: bool,
}

impl Record {
    /// A record that is off.
    pub(crate) fn off() -> Self {
        Self {
            is_on: false,
            bytes_max: usize::MAX,
            headroom: 0,
            alignment: 1,
            bytes: Vec::new(),
            begin: 0,
            end: 0,
            from: Cursor::START,
            events: 0,
            restarted: false,
        }
    }

    /// Turns the record on, with the cursor there. The turn is full after `bytes_max` bytes of lines.
    pub(crate) fn turn_on(&mut self, cursor: Cursor, bytes_max: usize, headroom: usize, alignment: usize) {
        let bytes_max = bytes_max.max(1);
        *self = Self { is_on: true, bytes_max, headroom, alignment, from: cursor, ..Self::off() };
        self.begin_in(Vec::new());
    }

    /// What comes next is kept in this buffer. Returns the one before.
    fn begin_in(&mut self, buffer: Vec<u8>) -> Vec<u8> {
        let before = std::mem::replace(&mut self.bytes, buffer);
        // A miss of the alignment costs time where it matters, and nothing else.
        self.begin = self.headroom + self.bytes.as_ptr().align_offset(self.alignment).min(self.alignment);
        self.end = self.begin;
        if self.bytes.len() < self.begin {
            self.bytes.resize(self.begin, 0);
        }
        self.bytes[..self.begin].fill(0);
        before
    }

    /// Makes room for so many bytes behind the lines.
    #[inline(always)]
    fn reserve(&mut self, len: usize) {
        if self.bytes.len() < self.end + len {
            self.bytes.resize(self.end + len, 0);
        }
    }

    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// The record must be taken before more is released.
    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        self.end - self.begin >= self.bytes_max
    }

    /// Nothing has been released since the record was last taken.
    pub(crate) fn is_empty(&self, cursor: Cursor) -> bool {
        !self.is_on || (cursor == self.from && !self.restarted)
    }

    /// Appends the lines of a run. A rejected line that only uses up its number has no text.
    #[inline(never)]
    pub(crate) fn push_run<'a>(&mut self, run: &[Packed], text: impl Fn(usize, Packed) -> Text<'a>) {
        let mut end = self.end;
        let len: usize = run.iter().map(|event| event.len()).sum();
        // Short texts are copied as whole blocks, the last of which may reach behind the lines.
        self.reserve(len + Text::OVERCOPY);
        for (place, &event) in run.iter().enumerate() {
            let text = text(place, event);
            text.copy_to(&mut self.bytes, end);
            end += text.len;
            self.events += u64::from(event.kind() != Kind::Void as u8);
        }
        self.end = end;
    }

    /// Appends the line of one event.
    pub(crate) fn push(&mut self, text: &[u8]) {
        self.reserve(text.len());
        self.bytes[self.end..self.end + text.len()].copy_from_slice(text);
        self.end += text.len();
        self.events += 1;
    }

    /// A new run begins, with the cursor there. What was released before must have been taken.
    pub(crate) fn restart(&mut self, cursor: Cursor) {
        debug_assert_eq!(self.events, 0);
        self.restarted |= self.is_on;
        self.from = cursor;
    }

    /// The cursor was set, without anything being released.
    pub(crate) fn move_to(&mut self, cursor: Cursor) {
        self.from = cursor;
    }

    /// Swaps out the lines that were released up to the cursor. Returns whether the cursor has moved.
    pub(crate) fn take(&mut self, cursor: Cursor, block: &mut Released) -> bool {
        if self.is_empty(cursor) {
            return false;
        }
        let (headroom, end) = (self.begin, self.end);
        let mut bytes = self.begin_in(std::mem::take(&mut block.bytes));
        bytes.truncate(end);
        *block = Released {
            from: self.from,
            to: cursor,
            events: std::mem::take(&mut self.events),
            restarted: std::mem::take(&mut self.restarted),
            headroom,
            bytes,
        };
        self.from = cursor;
        true
    }
}
