//! The tape: the bytes of a turn's events, once, one event behind the other.

#![forbid(unsafe_code)]

use super::{
    arch::gather::{Block, EVENTS, SLACK},
    text::Text,
};

/// The tape begins where a cache line does: reading it is a matter of whole ones.
pub(crate) const CACHE_LINE: usize = 64;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Tape {
    bytes: Vec<u8>,
    /// The range in `bytes`.
    start: usize,
    end: usize,
    /// Where each event ends, after where the first one begins.
    ends: Vec<u32>,
    /// The blocks of 64 events that are done.
    blocks: Vec<Block>,
}

impl Default for Tape {
    fn default() -> Self {
        Self { bytes: Vec::new(), start: 0, end: 0, ends: vec![0], blocks: Vec::new() }
    }
}

impl Tape {
    /// There is no room yet.
    pub(crate) fn is_unmade(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Makes room for so many bytes. The tape must be empty.
    pub(crate) fn make(&mut self, bytes: usize) {
        self.bytes.resize(bytes + SLACK + CACHE_LINE, 0);
        self.start = self.bytes.as_ptr().align_offset(CACHE_LINE).min(CACHE_LINE);
        self.reset();
    }

    /// Empties the tape.
    pub(crate) fn reset(&mut self) {
        self.end = self.start;
        self.ends.truncate(1);
        self.ends[0] = self.start as u32;
        self.blocks.clear();
    }

    /// Bytes of all events.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Events so far: the place of the next one.
    #[inline(always)]
    pub(crate) fn events(&self) -> usize {
        self.ends.len() - 1
    }

    /// Puts an event on the tape and returns its place there.
    #[inline(always)]
    pub(crate) fn push(&mut self, text: Text<'_>) -> usize {
        let place = self.events();
        text.copy_to(&mut self.bytes, self.end);
        self.end += text.len;
        self.ends.push(self.end as u32);
        place
    }

    /// A block is full.
    pub(crate) fn block_done(&mut self, block: usize) {
        if let Some(ends) = self.ends[block * EVENTS..].first_chunk() {
            self.blocks.push(Block::new(block * EVENTS, ends));
        }
    }

    /// Fills the last block up with events of no length, if it is not full. Returns which one it is, and how many events
    /// it has.
    pub(crate) fn pad(&mut self) -> Option<(usize, usize)> {
        let (block, events) = (self.events() / EVENTS, self.events() % EVENTS);
        if events == 0 {
            return None;
        }
        self.ends.resize((block + 1) * EVENTS + 1, self.end as u32);
        Some((block, events))
    }

    /// The bytes of all events.
    pub(crate) fn events_bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Where in [`Tape::bytes`] the first event begins.
    #[inline(always)]
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// The memory that [`Tape::ends`] and [`Tape::blocks`] refer to.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[inline(always)]
    pub(crate) fn ends(&self) -> &[u32] {
        &self.ends
    }

    #[inline(always)]
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }
}
