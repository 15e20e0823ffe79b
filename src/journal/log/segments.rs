//! The segments of a running journal: when the next one begins, how it is made, and how one is closed.

use super::{
    Log, Pending,
    unsynced::{UNSYNCED_MAX, Unsynced},
};
use crate::{
    disk::FileId,
    journal::{
        block::{BLOCK_HEADER, Header, Kind, PAGE},
        catalog::Segment,
        segment::{Room, SEGMENT_HEADER, SPARE, SegmentHeader, segment_name},
        settings::SyncMode,
    },
};
use std::io;

/// Bytes of room that are made at once.
const ROOM: u64 = 1 << 20;
/// A block behind which room is made is shorter than this.
const SMALL: u64 = ROOM / 4;

impl Log {
    /// Writes more than the block, where that saves time later. In what is left of an older segment, a page that the block only begins
    /// is written whole: or it would have to be read first. Where users wait for every sync, room for more blocks is made behind a
    /// small one: a sync of a file that grows takes about twice as long.
    pub(super) fn write_ahead(&mut self, pending: &mut Pending) {
        let len = (pending.bytes.len() - pending.start) as u64;
        let end = self.offset + len;
        let page_end = end.next_multiple_of(PAGE);
        if end > self.file_len && self.makes_room() && len < SMALL {
            let room_end = (end + ROOM).min(self.settings.segment_bytes).max(end).next_multiple_of(PAGE);
            let mut bytes = std::mem::take(&mut self.spare_room);
            bytes.clear();
            bytes.extend_from_slice(&pending.bytes[pending.start..]);
            bytes.resize((room_end - self.offset) as usize, 0);
            pending.came_in = Some((std::mem::replace(&mut pending.bytes, bytes), pending.start));
            (pending.start, self.file_len) = (0, room_end);
        } else if end < self.file_len && page_end - self.offset >= PAGE {
            pending.bytes.resize(pending.start + (page_end - self.offset) as usize, 0);
            self.file_len = self.file_len.max(page_end);
        }
    }

    /// The disk is full, perhaps only for the room behind a block, of which this number of bytes have been written. The rest of the block
    /// is written alone, and no more room is made in this segment.
    pub(super) fn do_without_room(&mut self, mut pending: Pending, written: usize) {
        let Some((buffer, start)) = pending.came_in.take() else { return };
        self.spare_room = std::mem::replace(&mut pending.bytes, buffer);
        self.may_have_room = false;
        self.file_len = self.offset + written as u64;
        pending.start = (start + written).min(pending.bytes.len());
        if pending.start < pending.bytes.len() {
            self.pending = Some(pending);
            return;
        }
        let hash = pending.sealed.map_or(0, |sealed| sealed.hash);
        self.spare = std::mem::take(&mut pending.bytes);
        self.finish_block(&pending.header, hash);
    }

    /// The buffer of a block with room behind it.
    pub(super) fn room_buffer(sync: SyncMode) -> Vec<u8> {
        let capacity = if sync == SyncMode::Always { SMALL + ROOM + PAGE } else { 0 };
        Vec::with_capacity(capacity as usize)
    }

    fn makes_room(&self) -> bool {
        self.may_have_room && self.settings.sync == SyncMode::Always && !self.is_ending
    }

    /// A block that moves the cursor begins a new segment if it does not fit the active one.
    pub(super) fn must_roll(&self, header: &Header) -> bool {
        let Some(segment) = self.catalog.segments.back() else { return true };
        let is_too_long = self.offset + header.block_len(self.offset) > self.settings.segment_bytes;
        header.kind == Kind::Events
            && self.active.is_some()
            && segment.first < self.chain.cursor
            && (is_too_long || self.is_segment_old())
    }

    pub(super) fn close_segment(&mut self) -> io::Result<()> {
        let is_cut = self.cut_rest()?;
        let Some(file) = self.active.take() else { return Ok(()) };
        let is_durable = !is_cut && self.durable >= self.chain.position && !self.is_syncing(file);
        let is_closed = is_durable || (self.settings.sync == SyncMode::Never && !self.is_syncing(file));
        if is_closed {
            self.disk.close(file);
        } else if 2 * self.unsynced_files() >= UNSYNCED_MAX {
            // They take descriptors until they are durable, and have to be synced anyway.
            self.sync_goal = self.sync_goal.max(self.chain.position);
        }
        if !is_durable {
            self.unsynced.push_back(Unsynced {
                file: (!is_closed).then_some(file),
                first: self.catalog.segments.back().map_or(self.chain.cursor, |segment| segment.first),
                position: self.chain.position,
                cursor: self.chain.cursor,
            });
        }
        Ok(())
    }

    /// Cuts off the room behind the last block. Returns whether there was room.
    pub(super) fn cut_rest(&mut self) -> io::Result<bool> {
        let Some(file) = self.active.filter(|_| self.file_len > self.offset) else { return Ok(false) };
        self.disk.truncate(file, self.offset)?;
        self.file_len = self.offset;
        Ok(true)
    }

    pub(super) fn is_syncing(&self, file: FileId) -> bool {
        self.syncing.as_ref().is_some_and(|syncing| syncing.file == file)
    }

    /// Makes the next segment. `for_large`: a large block comes first in it. Then a mark fills the first page, so that the block
    /// begins at a page and need not be copied.
    pub(super) fn make_segment(&mut self, for_large: bool) -> io::Result<FileId> {
        let name = segment_name(self.chain.cursor);
        let time_ms = self.clock_ms;
        let is_recycled = self.catalog.spare.is_some_and(|spare| spare.is_durable);
        let room = match self.settings.sync {
            _ if is_recycled => Room::Recycled,
            SyncMode::Always => Room::Zeros,
            SyncMode::Interval | SyncMode::Never => Room::Absent,
        };
        let header = SegmentHeader {
            id: self.id(),
            first: self.chain.cursor,
            base: self.chain.position,
            previous: self.chain.previous,
            durable: self.durable,
            time_ms,
            is_origin: self.catalog.segments.is_empty() && self.meta.base.is_none(),
            room,
        };
        let (file, file_len) = match self.catalog.spare.take_if(|_| is_recycled) {
            Some(spare) => {
                self.disk.rename(SPARE, &name)?;
                (self.disk.open(&name)?, spare.len)
            }
            None => (self.disk.create(&name)?, 0),
        };
        let mut bytes = header.encode().to_vec();
        let mut previous = self.chain.previous;
        if for_large {
            let (mark, hash) = self.mark_to_the_page();
            bytes.extend_from_slice(&mark);
            previous = hash;
        }
        if let Err(error) = self.disk.write_at(file, 0, &bytes) {
            self.disk.close(file);
            return Err(error);
        }
        let len = bytes.len() as u64;
        self.chain.previous = previous;
        self.catalog.segments.push_back(Segment { first: header.first, len, time_ms });
        (self.active, self.may_have_room) = (Some(file), room != Room::Absent);
        self.offset = len;
        self.file_len = file_len.max(len);
        self.chain.position += len;
        self.is_folder_dirty = true;
        Ok(file)
    }

    /// A mark behind the header of a segment that reaches to the end of the page, and its hash.
    pub(super) fn mark_to_the_page(&self) -> (Vec<u8>, u64) {
        let header = Header {
            kind: Kind::Mark,
            len: (PAGE as usize - SEGMENT_HEADER - BLOCK_HEADER) as u32,
            events: 0,
            from: self.chain.cursor,
            to: self.chain.cursor,
            durable: self.durable,
            time_ms: self.clock_ms,
            previous: self.chain.previous,
        };
        let (mut block, offset) = (Vec::new(), SEGMENT_HEADER as u64);
        let hash = header.seal((&mut block, 0), self.meta.id, offset, self.chain.position + offset);
        (block, hash)
    }
}
