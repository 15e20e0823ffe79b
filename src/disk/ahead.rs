//! What is fetched ahead of a reader that does not wait: chunks of a file, one behind the other, past the page cache.
//!
//! A pass over the journal reads gigabytes once. Through the page cache each byte cost a new page, and the pages of others.

use super::Ticket;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
};

/// What addresses, offsets and lengths of reads and writes past the page cache are multiples of.
pub(super) const PAGE: usize = 4096;
/// Bytes of a chunk.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// Chunks of a reader. What it asks for at once lies in two of them, while the others are fetched.
const CHUNKS: usize = 4;

/// The chunks of one open file. The default has none.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    chunks: VecDeque<Chunk>,
    free: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Chunk {
    /// Its offset in the file, and where what may be used of it ends.
    offset: u64,
    end: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Fetching(Ticket),
    /// In this buffer, from here on.
    Here(Vec<u8>, usize),
}

/// The next chunk to be fetched: from where, and the buffer with the place in it that is a multiple of a page.
pub(super) struct Wanted {
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
}

impl Ahead {
    /// Reads what is here of these bytes. `None`: nobody has asked for what stands there.
    pub(super) fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Option<io::Result<usize>> {
        while self.chunks.front().is_some_and(|chunk| chunk.end <= offset) {
            self.drop_first();
        }
        // Who goes to another place begins anew.
        if self.chunks.front().is_none_or(|first| first.offset > offset) {
            self.forget();
            return None;
        }
        let mut filled = 0;
        for chunk in &self.chunks {
            let at = offset + filled as u64;
            match &chunk.state {
                State::Here(buffer, start) if (chunk.offset..chunk.end).contains(&at) => {
                    let from = start + (at - chunk.offset) as usize;
                    let len = (bytes.len() - filled).min((chunk.end - at) as usize);
                    bytes[filled..filled + len].copy_from_slice(&buffer[from..from + len]);
                    filled += len;
                }
                State::Here(..) | State::Fetching(_) => break,
            }
        }
        Some(if filled > 0 { Ok(filled) } else { Err(ErrorKind::WouldBlock.into()) })
    }

    /// The chunk to fetch next, if there is room: behind the others, or with this offset where there are none. Those behind others are
    /// whole: what stands just below `end` has only been written, and is in memory.
    pub(super) fn wanted(&mut self, offset: u64, end: u64) -> Option<Wanted> {
        let behind = self.chunks.back().map(|last| (last.end, last.end.saturating_add(CHUNK_BYTES as u64)));
        let (offset, up_to) = behind.unwrap_or((offset / PAGE as u64 * PAGE as u64, offset + 1));
        if self.chunks.len() == CHUNKS || up_to > end || !offset.is_multiple_of(PAGE as u64) {
            return None;
        }
        let bytes = self.free.pop().unwrap_or_else(|| vec![0; CHUNK_BYTES + PAGE]);
        let start = bytes.as_ptr().align_offset(PAGE);
        Some(Wanted { offset, bytes, start })
    }

    /// A chunk is being fetched. What stands at `end` or above is not used.
    pub(super) fn note_fetching(&mut self, offset: u64, end: u64, ticket: Ticket) {
        let end = end.min(offset + CHUNK_BYTES as u64);
        self.chunks.push_back(Chunk { offset, end, state: State::Fetching(ticket) });
    }

    /// So many bytes of a chunk have been fetched. Without any, it and all that follow are forgotten. False: nobody wants it any more.
    pub(super) fn arrived(&mut self, ticket: Ticket, len: usize, bytes: Vec<u8>, start: usize) -> bool {
        let is_it = |chunk: &Chunk| matches!(chunk.state, State::Fetching(other) if other == ticket);
        let Some(index) = self.chunks.iter().position(is_it) else { return false };
        let chunk = &mut self.chunks[index];
        let came = chunk.offset + len as u64;
        if came < chunk.end {
            chunk.end = came;
            self.chunks.truncate(index + usize::from(len > 0));
        }
        if let Some(chunk) = self.chunks.get_mut(index) {
            chunk.state = State::Here(bytes, start);
        }
        true
    }

    fn drop_first(&mut self) {
        if let Some(Chunk { state: State::Here(bytes, _), .. }) = self.chunks.pop_front() {
            self.free.push(bytes);
        }
    }

    fn forget(&mut self) {
        while !self.chunks.is_empty() {
            self.drop_first();
        }
    }
}
