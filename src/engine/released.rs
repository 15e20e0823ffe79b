//! The released stream: everything that the sequencer releases, in its order.
//!
//! Each run of events, each unusual event and each new run of numbers passes one seam, `Engine::release`. The fan-out is
//! one listener there. The [`Record`] is the other: it keeps the lines of *all* events, also of those that nobody gets,
//! one behind the other, until somebody takes them. A journal, a stream port and a publisher read from it.
//!
//! Without anybody who takes it the record is off. Then it costs one comparison per run.

#![forbid(unsafe_code)]

use super::{event::Kind, packed::Packed, text::Text};

/// Lines of events that were released one behind the other, and the numbers that they cover.
///
/// A number from [`Released::from`] to [`Released::to`] without a line was given up, or belongs to a line that was rejected.
#[derive(Debug, Default)]
pub struct Released {
    /// The cursor before the first of them.
    pub from: u128,
    /// The cursor behind the last of them, up to 2^64.
    pub to: u128,
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

    /// The buffer that holds the lines: first the zero bytes that [`Engine::record`](super::Engine::record) was asked
    /// to leave in front, then the lines. The buffer may be changed and may be taken away.
    pub fn with_headroom(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// Keeps what is released until it is taken.
#[derive(Debug)]
pub(crate) struct Record {
    is_on: bool,
    /// From here on the turn is full. Nothing is written while the record is off, so it is never reached then.
    bytes_max: usize,
    /// The zero bytes in front of the lines.
    headroom: usize,
    bytes: Vec<u8>,
    from: u128,
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
            bytes: Vec::new(),
            from: 0,
            events: 0,
            restarted: false,
        }
    }

    /// Turns the record on, with the cursor there. The turn is full after `bytes_max` bytes of lines.
    pub(crate) fn turn_on(&mut self, cursor: u128, bytes_max: usize, headroom: usize) {
        *self = Self {
            is_on: true,
            bytes_max: headroom + bytes_max.max(1),
            headroom,
            from: cursor,
            ..Self::off()
        };
        self.bytes.resize(headroom, 0);
    }

    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// The record must be taken before more is released.
    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= self.bytes_max
    }

    /// Nothing has been released since the record was last taken.
    pub(crate) fn is_empty(&self, cursor: u128) -> bool {
        !self.is_on || (cursor == self.from && !self.restarted)
    }

    /// Appends the lines of a run. A rejected line that only uses up its number has no text.
    #[inline(never)]
    pub(crate) fn push_run<'a>(&mut self, run: &[Packed], text: impl Fn(usize, Packed) -> Text<'a>) {
        let mut end = self.bytes.len();
        let len: usize = run.iter().map(|event| event.len()).sum();
        // Short texts are copied as whole blocks, the last of which may reach behind the lines.
        self.bytes.resize(end + len + Text::OVERCOPY, 0);
        for (place, &event) in run.iter().enumerate() {
            let text = text(place, event);
            text.copy_to(&mut self.bytes, end);
            end += text.len;
            self.events += u64::from(event.kind() != Kind::Void as u8);
        }
        self.bytes.truncate(end);
    }

    /// Appends the line of one event.
    pub(crate) fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.events += 1;
    }

    /// A new run begins, with the cursor there. What was released before must have been taken.
    pub(crate) fn restart(&mut self, cursor: u128) {
        debug_assert_eq!(self.events, 0);
        self.restarted |= self.is_on;
        self.from = cursor;
    }

    /// The cursor was set, without anything being released.
    pub(crate) fn move_to(&mut self, cursor: u128) {
        self.from = cursor;
    }

    /// Swaps out what was released up to the cursor. Says whether that is anything.
    pub(crate) fn take(&mut self, cursor: u128, block: &mut Released) -> bool {
        if self.is_empty(cursor) {
            return false;
        }
        let mut spare = std::mem::take(&mut block.bytes);
        spare.clear();
        spare.resize(self.headroom, 0);
        *block = Released {
            from: self.from,
            to: cursor,
            events: std::mem::take(&mut self.events),
            restarted: std::mem::take(&mut self.restarted),
            headroom: self.headroom,
            bytes: std::mem::replace(&mut self.bytes, spare),
        };
        self.from = cursor;
        true
    }
}
