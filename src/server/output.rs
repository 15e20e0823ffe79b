//! The bytes that a user's socket has not taken yet.
//!
//! A queue of fixed-size blocks from a common pool. So an output buffer costs nothing while it is empty, and growing it
//! never moves its bytes.

use smallvec::SmallVec;
use std::{
    collections::VecDeque,
    io::{self, IoSlice, Write},
};

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// Blocks handed to the kernel by one call.
const BLOCKS_PER_WRITE: usize = 256;
/// Length of the queue that an empty buffer keeps.
const QUEUE_KEPT: usize = 8;
/// Free blocks that are kept for the next time.
const POOL_BLOCKS_MAX: usize = 1024;

/// It never grows above its capacity of [`BLOCK_BYTES`].
type Block = Vec<u8>;

/// Free blocks.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Vec<Block>,
}

impl Pool {
    fn take(&mut self) -> Block {
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES))
    }

    fn give(&mut self, mut block: Block) {
        if self.free.len() < POOL_BLOCKS_MAX {
            block.clear();
            self.free.push(block);
        }
    }
}

/// The total number of bytes in all output buffers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) bytes: usize,
    /// Buffers that are not empty.
    pub(crate) buffers: usize,
}

impl Backlog {
    /// The length of one of them has changed.
    #[inline]
    pub(crate) fn note(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes - before + after;
        self.buffers = self.buffers + usize::from(after > 0) - usize::from(before > 0);
    }
}

/// One user's output buffer.
#[derive(Debug, Default)]
pub(crate) struct Output {
    blocks: VecDeque<Block>,
    /// The offset of the first unwritten byte in the first block.
    start: usize,
    len: usize,
    /// Bytes that have been written so far, past the buffer or from it.
    written: u64,
    /// The last byte that was written is not the end of a line.
    inside_a_line: bool,
}

impl Output {
    /// Whether a part of a line has been written, and the rest of it waits.
    pub(crate) fn is_inside_a_line(&self) -> bool {
        self.inside_a_line
    }

    /// Bytes that have been written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes have been written past the buffer, which was empty.
    #[inline]
    pub(crate) fn note_written(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        self.inside_a_line = bytes.last() != Some(&b'\n');
    }

    /// Writes the rest of the first line, or as much of it as the socket takes in one call; returns how much that was.
    pub(crate) fn write_line_to(&mut self, socket: &mut impl Write, pool: &mut Pool) -> io::Result<usize> {
        let mut line = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let from = if index == 0 { self.start } else { 0 };
            let to = (self.start + self.len - index * BLOCK_BYTES).min(BLOCK_BYTES);
            let part = &block[from..to];
            let end = memchr::memchr(b'\n', part);
            line.extend_from_slice(&part[..end.map_or(part.len(), |end| end + 1)]);
            if end.is_some() {
                break;
            }
        }
        let written = socket.write(&line)?;
        self.written += written as u64;
        self.consume(written, pool);
        Ok(written)
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends bytes.
    pub(crate) fn push(&mut self, mut bytes: &[u8], pool: &mut Pool) {
        while !bytes.is_empty() {
            if self.blocks.back().is_none_or(|last| last.len() == BLOCK_BYTES) {
                self.blocks.push_back(pool.take());
            }
            let Some(last) = self.blocks.back_mut() else { return };
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - last.len()));
            last.extend_from_slice(now);
            self.len += now.len();
            bytes = later;
        }
    }

    /// Writes as much as the socket takes in one call; returns how much that was.
    pub(crate) fn write_to(&mut self, socket: &mut impl Write, pool: &mut Pool) -> io::Result<usize> {
        let end = self.start + self.len;
        let blocks = self.blocks.iter().take(BLOCKS_PER_WRITE).enumerate();
        let slices = blocks.map(|(index, block)| {
            let from = if index == 0 { self.start } else { 0 };
            let to = (end - index * BLOCK_BYTES).min(BLOCK_BYTES);
            IoSlice::new(&block[from..to])
        });
        let written = match &slices.collect::<SmallVec<[IoSlice<'_>; 4]>>()[..] {
            // The kernel takes a few percent more time to gather small writes.
            [block] => socket.write(block),
            blocks => socket.write_vectored(blocks),
        }?;
        self.written += written as u64;
        self.consume(written, pool);
        Ok(written)
    }

    fn consume(&mut self, written: usize, pool: &mut Pool) {
        if let Some(last) = (self.start + written).checked_sub(1).filter(|_| written > 0) {
            self.inside_a_line = self.blocks[last / BLOCK_BYTES][last % BLOCK_BYTES] != b'\n';
        }
        self.start += written;
        self.len -= written;
        while self.start >= BLOCK_BYTES || (self.len == 0 && !self.blocks.is_empty()) {
            if let Some(block) = self.blocks.pop_front() {
                pool.give(block);
            }
            self.start = self.start.saturating_sub(BLOCK_BYTES);
        }
        if self.len == 0 {
            self.start = 0;
            self.blocks.shrink_to(QUEUE_KEPT);
        }
    }

    /// Drops the bytes that were pushed last, so that `len` bytes are left.
    pub(crate) fn truncate(&mut self, len: usize, pool: &mut Pool) {
        self.len = self.len.min(len);
        let blocks = (self.start + self.len).div_ceil(BLOCK_BYTES);
        while self.blocks.len() > blocks {
            if let Some(block) = self.blocks.pop_back() {
                pool.give(block);
            }
        }
        if let Some(last) = self.blocks.back_mut() {
            last.truncate(self.start + self.len - (blocks - 1) * BLOCK_BYTES);
        }
        self.consume(0, pool);
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.consume(self.len, pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Takes a given number of bytes per call.
    struct Sink {
        taken: Vec<u8>,
        budget: usize,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.budget);
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            self.write(&all)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(steps in prop::collection::vec((0..20_000usize, 0..20_000usize), 1..40)) {
            let (mut output, mut pool) = (Output::default(), Pool::default());
            let mut sink = Sink { taken: Vec::new(), budget: 0 };
            let mut pushed = Vec::new();
            for (index, (push, write)) in steps.into_iter().enumerate() {
                let bytes: Vec<u8> = (0..push).map(|byte| (byte + index) as u8).collect();
                output.push(&bytes, &mut pool);
                pushed.extend(bytes);
                sink.budget = write;
                output.write_to(&mut sink, &mut pool).unwrap();
                prop_assert_eq!(output.len(), pushed.len() - sink.taken.len());
                prop_assert!(output.blocks.len() * BLOCK_BYTES < output.len() + 2 * BLOCK_BYTES);
                prop_assert!(!output.is_empty() || output.blocks.capacity() <= QUEUE_KEPT);
            }
            sink.budget = usize::MAX;
            while !output.is_empty() {
                output.write_to(&mut sink, &mut pool).unwrap();
            }
            prop_assert_eq!(sink.taken, pushed);
        }
    }
}
