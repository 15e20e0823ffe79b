//! Reads blocks of a running journal, for users that resume: in pieces, and without waiting for the disk.

#![forbid(unsafe_code)]

use super::{JournalError, block::Kind, log::Log, scan};
use crate::sequence::Cursor;

/// Whoever reads more than this does not leave it in memory. Less is left there for those who come back again and again, and for
/// the next pass.
const LONG_BYTES: u64 = 256 << 20;
/// Blocks below its place are looked at by a reader. So many bytes of them are one step.
const SKIPPED_AT_ONCE: u64 = 256 << 10;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Here is a block: [`Reader::lines`].
    Block,
    /// The next block is not in memory yet: come back next turn.
    Later,
    /// Blocks below its place have been skipped, or a part of the next one has been read: ask again.
    Part,
    /// That was all that has been appended.
    End,
}

/// See the [module](self). It holds a file open: [`Reader::close`] it.
#[derive(Debug)]
pub struct Reader {
    /// The cursor behind the last block.
    from: Cursor,
    scan: Option<scan::SegmentScan>,
    /// Bytes of the segments that have been read to their ends.
    past_bytes: u64,
}

impl Reader {
    /// Reads blocks from a cursor on.
    #[must_use]
    pub fn new(from: Cursor) -> Self {
        Self { from, scan: None, past_bytes: 0 }
    }

    /// Closes the file.
    pub fn close(self, log: &mut Log) {
        if let Some(scan) = self.scan {
            scan.close(log.disk());
        }
    }

    /// Bytes that have been read since this was asked last.
    pub fn take_bytes_read(&mut self) -> u64 {
        self.scan.as_mut().map_or(0, |scan| std::mem::take(&mut scan.bytes_read))
    }

    /// The lines of the last block, as they were released. Numbers in between without a line were given up, or rejected.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        self.scan.as_ref().map_or(&[], scan::SegmentScan::payload)
    }

    /// The cursor behind the last block.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.from
    }

    /// The next block that ends above the place where the reader begins. Only appended blocks are handed out.
    ///
    /// # Errors
    ///
    /// If the next block is not kept any more, cannot be read, or is damaged.
    pub fn next(&mut self, log: &mut Log) -> Result<Read, JournalError> {
        let mut skipped = 0;
        loop {
            if self.from >= log.appended_cursor() {
                return Ok(Read::End);
            }
            let Some(scan) = &mut self.scan else {
                self.scan = Some(log.open_segment(self.from)?);
                continue;
            };
            scan.is_long = self.past_bytes + scan.offset >= LONG_BYTES;
            if let Some(len) = log.segment_len(scan.header.first) {
                scan.extend(len);
            }
            let before = scan.offset;
            match scan.next(log.disk(), false)? {
                scan::Step::Block(header) if header.kind == Kind::Events && header.to > self.from => {
                    self.from = header.to;
                    return Ok(Read::Block);
                }
                scan::Step::Block(_) => {
                    skipped += scan.offset - before;
                    if skipped >= SKIPPED_AT_ONCE {
                        return Ok(Read::Part);
                    }
                }
                scan::Step::Later => return Ok(Read::Later),
                scan::Step::Part => return Ok(Read::Part),
                scan::Step::End => {
                    if let Some(scan) = self.scan.take() {
                        self.past_bytes += scan.offset;
                        scan.close(log.disk());
                    }
                }
                scan::Step::Bad if log.segment_len(scan.header.first).is_none() => {
                    // It has gone, and its file is written over.
                    let what = format!("the block of number {} is not kept any more", self.from);
                    return Err(JournalError::new(what));
                }
                scan::Step::Bad => {
                    return Err(JournalError::damage(
                        &scan.name,
                        scan.offset,
                        "no block that continues the journal",
                    ));
                }
            }
        }
    }
}
