//! Reads a segment's blocks, one after the other, and believes none that the chain of hashes does not prove.

#![forbid(unsafe_code)]

use super::{
    JournalError,
    block::{self, ALIGNMENT, BLOCK_HEADER, Header},
    meta::JournalId,
    segment::{Room, SEGMENT_HEADER, SegmentHeader},
    snapshot::{fill, read},
};
use crate::disk::{Disk, FileId, ReadAhead};
use crate::sequence::Cursor;
use std::{io, ops::Range};

/// Bytes that are read at once. A block that is longer is read in as many pieces as it takes.
const WINDOW: usize = 256 << 10;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Here is a block.
    Block(Header),
    /// The segment ends here.
    End,
    /// The next block is not in memory yet.
    Later,
    /// A part of the next block has been read.
    Part,
    /// The bytes here are no block that continues the chain.
    Bad,
}

/// What is at an offset of the file.
enum Found {
    /// A block that its own hash proves.
    Block(Header, u64),
    NoBlock,
    /// As in [`Step`].
    Later,
    Part,
}

/// The link of the chain that the next block must continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) previous: u64,
    pub(crate) cursor: Cursor,
    /// The position of the next byte.
    pub(crate) position: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct SegmentScan {
    id: JournalId,
    pub(crate) name: String,
    file: FileId,
    pub(crate) header: SegmentHeader,
    pub(crate) chain: Chain,
    /// Where the next block begins, and where the file ends.
    pub(crate) offset: u64,
    end: u64,
    /// Of the window, so many bytes have been read, from an offset of the file on.
    window: Vec<u8>,
    filled: usize,
    window_at: u64,
    payload: Range<usize>,
    /// Bytes that have been read.
    pub(crate) bytes_read: u64,
    /// It is a part of much that is read.
    pub(crate) is_long: bool,
}

impl SegmentScan {
    /// Opens a segment of `len` bytes. `None`: its header is none of this journal.
    pub(crate) fn open(
        disk: &mut dyn Disk,
        id: JournalId,
        name: &str,
        len: u64,
    ) -> Result<Option<Self>, JournalError> {
        let file = disk.open(name).map_err(|error| JournalError::io("cannot open", name, &error))?;
        let mut bytes = [0; SEGMENT_HEADER];
        let whole = match read(disk, file, 0, &mut bytes, true) {
            Ok(whole) => whole,
            Err(error) => {
                disk.close(file);
                return Err(JournalError::io("cannot read", name, &error));
            }
        };
        let Some(header) = SegmentHeader::decode(&bytes, id).filter(|_| whole) else {
            disk.close(file);
            return Ok(None);
        };
        Ok(Some(Self::new(id, name, len, file, header)))
    }

    /// Opens a segment whose header cannot be read, but should begin at this position, to look for marks.
    pub(crate) fn open_without_header(
        disk: &mut dyn Disk,
        id: JournalId,
        name: &str,
        len: u64,
        base: u64,
    ) -> Result<Self, JournalError> {
        let file = disk.open(name).map_err(|error| JournalError::io("cannot open", name, &error))?;
        let header = SegmentHeader {
            id,
            first: Cursor::START,
            base,
            previous: 0,
            durable: 0,
            time_ms: 0,
            is_origin: false,
            room: Room::Absent,
        };
        Ok(Self::new(id, name, len, file, header))
    }

    fn new(id: JournalId, name: &str, len: u64, file: FileId, header: SegmentHeader) -> Self {
        let offset = SEGMENT_HEADER as u64;
        let chain = Chain {
            previous: header.previous,
            cursor: header.first,
            position: header.base.saturating_add(offset),
        };
        let name = name.to_owned();
        Self {
            id,
            name,
            file,
            header,
            chain,
            offset,
            end: len,
            window: Vec::new(),
            filled: 0,
            window_at: 0,
            payload: 0..0,
            bytes_read: 0,
            is_long: false,
        }
    }

    /// Closes the file.
    pub(crate) fn close(self, disk: &mut dyn Disk) {
        disk.close(self.file);
    }

    /// More blocks have been written behind the former end.
    pub(crate) fn extend(&mut self, end: u64) {
        self.end = end;
    }

    /// The payload of the block that was found last.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.window[self.payload.clone()]
    }

    /// The next block, which must continue the chain. `wait`: for the disk. Otherwise not much is read at once.
    pub(crate) fn next(&mut self, disk: &mut dyn Disk, wait: bool) -> Result<Step, JournalError> {
        if self.offset >= self.end {
            return Ok(Step::End);
        }
        match self.look(disk, self.offset, self.chain.position, wait) {
            Ok(Found::Block(header, hash))
                if header.previous == self.chain.previous && header.from == self.chain.cursor =>
            {
                let len = header.block_len(self.offset);
                self.offset += len;
                self.chain.position += len;
                self.chain.previous = hash;
                self.chain.cursor = header.to;
                Ok(Step::Block(header))
            }
            Ok(Found::Block(..) | Found::NoBlock) => Ok(Step::Bad),
            Ok(Found::Later) => Ok(Step::Later),
            Ok(Found::Part) => Ok(Step::Part),
            Err(error) => Err(JournalError::io("cannot read", &self.name, &error)),
        }
    }

    /// What is at an offset.
    fn look(&mut self, disk: &mut dyn Disk, offset: u64, position: u64, wait: bool) -> io::Result<Found> {
        if let Some(found) = self.fetch(disk, offset, BLOCK_HEADER as u64, wait)? {
            return Ok(found);
        }
        let bytes = &self.window[(offset - self.window_at) as usize..self.filled];
        let Some((header, hash)) = bytes.first_chunk().and_then(Header::decode) else {
            return Ok(Found::NoBlock);
        };
        let len = header.block_len(offset);
        if let Some(found) = self.fetch(disk, offset, len, wait)? {
            return Ok(found);
        }
        let at = (offset - self.window_at) as usize;
        if block::hash(&self.window[at..at + len as usize], self.id, position) != hash {
            return Ok(Found::NoBlock);
        }
        self.payload = at + BLOCK_HEADER..at + BLOCK_HEADER + header.len as usize;
        Ok(Found::Block(header, hash))
    }

    /// Takes bytes of the file into the window. `None`: they are there. Never more memory than the file has bytes.
    fn fetch(&mut self, disk: &mut dyn Disk, offset: u64, len: u64, wait: bool) -> io::Result<Option<Found>> {
        if len > self.end.saturating_sub(offset) {
            return Ok(Some(Found::NoBlock));
        }
        let len = len as usize;
        let at = offset.checked_sub(self.window_at).map(|at| at as usize);
        let have = match at.filter(|&at| at <= self.filled) {
            Some(at) if at + len <= self.filled => return Ok(None),
            // What has been read of it stays.
            Some(at) => {
                self.window.copy_within(at..self.filled, 0);
                self.filled - at
            }
            None => 0,
        };
        (self.window_at, self.filled) = (offset, have);
        let wanted = (self.end - offset).min(len.max(WINDOW) as u64) as usize;
        let most = if wait { wanted } else { wanted.min(have + WINDOW) };
        if most > self.window.len() {
            self.window.reserve_exact(wanted - self.window.len());
            self.window.resize(most, 0);
        }
        let ahead = ReadAhead { end: self.end, is_long: self.is_long };
        let to_fill = &mut self.window[have..most];
        let (filled, result) = fill(disk, self.file, offset + have as u64, to_fill, (wait, ahead));
        self.filled += filled;
        self.bytes_read += filled as u64;
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(Found::Later)),
            Err(error) => Err(error),
            Ok(()) if self.filled >= len => Ok(None),
            Ok(()) if self.filled < most => Ok(Some(Found::NoBlock)),
            Ok(()) => Ok(Some(Found::Part)),
        }
    }

    /// Looks from here on for blocks whose own hash proves them, and for the highest of their marks. A mark says that everything
    /// below it was durable.
    pub(crate) fn highest_mark(&mut self, disk: &mut dyn Disk) -> Result<u64, JournalError> {
        let mut mark = self.header.durable;
        let mut offset = self.offset;
        while offset + BLOCK_HEADER as u64 <= self.end {
            let position = self.header.base.saturating_add(offset);
            let found = self
                .look(disk, offset, position, true)
                .map_err(|error| JournalError::io("cannot read", &self.name, &error))?;
            offset += match found {
                Found::Block(header, _) => {
                    mark = mark.max(header.durable);
                    header.block_len(offset)
                }
                Found::NoBlock | Found::Later | Found::Part => ALIGNMENT,
            };
        }
        Ok(mark)
    }
}
