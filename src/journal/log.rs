//! The running journal: takes released events, and tells when users may be sent them and when they are durable.

#![forbid(unsafe_code)]

use super::{
    JournalError, Start, Waiting,
    block::{BLOCK_HEADER, Header, Kind},
    catalog::{Catalog, Segment},
    meta::{JournalId, Meta},
    scan::{Chain, SegmentScan},
    segment::{Room, segment_name},
    settings::{Opening, Settings, SyncMode},
    snapshot::{SnapshotInfo, SnapshotReader},
};
use crate::{
    disk::{Completion, Disk, FileId, Ticket, is_full},
    epoch::Epoch,
    sequence::Cursor,
    time::{MILLISECOND, Micros, SECOND},
};
use std::{collections::VecDeque, fmt, io};

mod founding;
mod note;
mod retention;
mod segments;
mod snapshots;
mod snapshotting;
mod syncing;
mod unsynced;

use snapshotting::Snapshotting;
use unsynced::{Syncing, UNSYNCED_MAX, Unsynced};

/// How long after a sync an idle journal writes a mark.
const MARK_DELAY: Micros = 100 * MILLISECOND;
/// How often a full disk is tried again.
const RETRY: Micros = SECOND;

/// A block on its way to the disk.
#[derive(Debug)]
struct Pending {
    header: Header,
    /// What is still to be written stands from `start` on.
    bytes: Vec<u8>,
    start: usize,
    /// The buffer that it came in, and where it stood there, where it stands in that of the room now.
    came_in: Option<(Vec<u8>, usize)>,
    /// Where, and the block's hash: known once it has its place.
    sealed: Option<Sealed>,
    ticket: Option<Ticket>,
}

#[derive(Clone, Copy, Debug)]
struct Sealed {
    offset: u64,
    hash: u64,
}

/// The disk is full.
#[derive(Debug)]
struct Stall {
    reason: String,
    retry_at: Micros,
}

/// See the [module](self).
pub struct Log {
    disk: Box<dyn Disk>,
    meta: Meta,
    settings: Settings,
    catalog: Catalog,
    /// The segment that is written to, and where. `None`: it must be made.
    active: Option<FileId>,
    offset: u64,
    /// The length of the file. Behind `offset` are zeros, or the remains of the segment that it was before.
    file_len: u64,
    /// The header of the segment says so.
    may_have_room: bool,
    /// The end of the completed writes.
    chain: Chain,
    pending: Option<Pending>,
    /// Blocks of the end, which wait for their turn.
    queue: VecDeque<(Kind, Vec<u8>, u32)>,
    syncing: Option<Syncing>,
    /// Segments that are complete, and not durable yet.
    unsynced: VecDeque<Unsynced>,
    /// Names of the folder are not durable yet; a segment's removal is among them.
    is_folder_dirty: bool,
    has_removed: bool,
    durable: u64,
    durable_cursor: Cursor,
    /// When the first appended byte that is not durable was appended, or when the sync before it began.
    undurable_since: Option<Micros>,
    /// Syncs go on until this position is durable.
    sync_goal: u64,
    sync_due: Option<Micros>,
    mark_due: Option<Micros>,
    /// The last block is a mark.
    is_marked: bool,
    snapshots: Snapshotting,
    retention_due: Option<Micros>,
    /// The wall clock when it was last looked at, and at the start.
    clock_ms: u64,
    begun_ms: u64,
    stall: Option<Stall>,
    is_ending: bool,
    /// The buffers of the last block of events, of the last mark, and of the last block with room behind it.
    spare: Vec<u8>,
    spare_mark: Vec<u8>,
    spare_room: Vec<u8>,
    appended_bytes: u64,
    syncs: u64,
    now: Micros,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("chain", &self.chain)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// A journal that continues behind the recovered events, which are all durable. Without segments it makes the first one.
    pub(crate) fn start(
        mut disk: Box<dyn Disk>,
        meta: Meta,
        catalog: Catalog,
        chain: Option<Chain>,
        opening: &Opening,
    ) -> Result<Self, JournalError> {
        let mut may_have_room = false;
        let active = match catalog.segments.back() {
            Some(segment) => {
                let name = segment.name();
                if let Some(scan) = SegmentScan::open(&mut *disk, meta.id, &name, segment.len)? {
                    may_have_room = scan.header.room != Room::Absent;
                    scan.close(&mut *disk);
                }
                Some(disk.open(&name).map_err(|error| JournalError::io("cannot open", &name, &error))?)
            }
            None => None,
        };
        let first = meta.base.unwrap_or(opening.first_sequence);
        let chain = chain.unwrap_or(Chain { previous: 0, cursor: first, position: 0 });
        let offset = catalog.segments.back().map_or(0, |segment| segment.len);
        let clock_ms = disk.clock_ms();
        let mut log = Self {
            clock_ms,
            begun_ms: clock_ms,
            snapshots: Snapshotting::new(&catalog, chain.position),
            disk,
            meta,
            settings: opening.settings,
            catalog,
            active,
            offset,
            file_len: offset,
            may_have_room,
            chain,
            pending: None,
            queue: VecDeque::new(),
            syncing: None,
            unsynced: VecDeque::new(),
            is_folder_dirty: false,
            has_removed: false,
            durable: chain.position,
            durable_cursor: chain.cursor,
            undurable_since: None,
            sync_goal: 0,
            sync_due: None,
            mark_due: Some(opening.now + MARK_DELAY),
            is_marked: false,
            retention_due: opening.settings.retention_ms.map(|_| opening.now),
            stall: None,
            is_ending: false,
            spare: Vec::new(),
            spare_mark: Vec::new(),
            spare_room: Self::room_buffer(opening.settings.sync),
            appended_bytes: 0,
            syncs: 0,
            now: opening.now,
        };
        if log.active.is_none() {
            log.begin().map_err(|error| JournalError::io("cannot make", "the first segment", &error))?;
        }
        Ok(log)
    }

    /// Makes the first segment, durably: without it the others could not be read.
    fn begin(&mut self) -> io::Result<()> {
        self.catalog.has_origin = self.meta.base.is_none();
        let file = self.make_segment(false)?;
        self.disk.sync_at_once(file)?;
        self.disk.sync_folder()?;
        self.is_folder_dirty = false;
        self.durable = self.chain.position;
        Ok(())
    }

    /// The name of this sequence of events.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.meta.epoch
    }

    /// Whether a place is a place of this journal: of this epoch, or of an older epoch up to its fork.
    #[must_use]
    pub fn shares(&self, epoch: Epoch, next: Cursor) -> bool {
        self.meta.shares(epoch, next)
    }

    /// Nothing has ever been appended.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.catalog.has_origin && self.catalog.segments[0].first == self.chain.cursor
    }

    /// Everything below is in the journal.
    #[must_use]
    pub fn appended_cursor(&self) -> Cursor {
        self.chain.cursor
    }

    /// Everything below is durable.
    #[must_use]
    pub fn durable_cursor(&self) -> Cursor {
        self.durable_cursor
    }

    /// Everything below can be acknowledged: it is durable or, with [`SyncMode::Never`], appended.
    #[must_use]
    pub fn acknowledgeable(&self) -> Cursor {
        match self.settings.sync {
            SyncMode::Never => self.chain.cursor,
            SyncMode::Always | SyncMode::Interval => self.durable_cursor,
        }
    }

    /// Everything below may be sent to users: it is appended or, with [`SyncMode::Always`], durable.
    #[must_use]
    pub fn servable_cursor(&self) -> Cursor {
        match self.settings.sync {
            SyncMode::Always => self.durable_cursor,
            SyncMode::Interval | SyncMode::Never => self.chain.cursor,
        }
    }

    /// The lowest place that can be resumed from.
    #[must_use]
    pub fn first(&self) -> Cursor {
        self.catalog.first().unwrap_or(self.chain.cursor)
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.catalog.bytes()
    }

    /// Bytes appended since the start.
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// Bytes that have been appended and are not durable yet.
    #[must_use]
    pub fn undurable_bytes(&self) -> u64 {
        self.chain.position - self.durable
    }

    /// The age of the first of these bytes, give or take a sync. 0: everything is durable.
    #[must_use]
    pub fn sync_lag(&self, now: Micros) -> Micros {
        self.undurable_since.map_or(0, |since| now.saturating_sub(since))
    }

    /// Syncs since the start.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    /// How the disk is written to.
    #[must_use]
    pub fn description(&self) -> &'static str {
        self.disk.description()
    }

    /// The error of a full disk, while nothing can be written.
    #[must_use]
    pub fn stalled(&self) -> Option<&str> {
        self.stall.as_ref().map(|stall| stall.reason.as_str())
    }

    /// The barrier: everything that was given to [`Log::append`] may be sent to users, and more may be appended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let is_durable = self.settings.sync != SyncMode::Always || self.durable_cursor >= self.chain.cursor;
        self.pending.is_none() && self.queue.is_empty() && is_durable
    }

    /// Appends released lines, which stand in `bytes` behind `headroom` bytes of room, [`BLOCK_HEADER`] at least. The barrier must be open.
    /// Where the last [`BLOCK_HEADER`] of those begin at a page in memory, a large block need not be copied.
    ///
    /// # Errors
    ///
    /// If a write or a sync has failed. The contents of the disk are unknown then, and the journal must not be used any more.
    pub fn append(
        &mut self,
        (bytes, headroom): (Vec<u8>, usize),
        (from, to): (Cursor, Cursor),
        events: u64,
        now: Micros,
    ) -> Result<(), JournalError> {
        assert!(self.pending.is_none(), "one block at a time is appended");
        assert_eq!(from, self.chain.cursor, "blocks are contiguous");
        self.begin_block(Kind::Events, (bytes, headroom - BLOCK_HEADER), to, events as u32);
        self.proceed(now)
    }

    /// The buffer of the block before, to be used again.
    pub fn take_spare(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spare)
    }

    /// Continues all operations that are under way or due. Call it every turn.
    ///
    /// # Errors
    ///
    /// As [`Log::append`].
    pub fn proceed(&mut self, now: Micros) -> Result<(), JournalError> {
        self.now = now;
        loop {
            let mut has_moved = false;
            while let Some(completion) = self.disk.completion() {
                self.complete(completion)?;
                has_moved = true;
            }
            has_moved |= self.begin_next();
            has_moved |= self.start_write()?;
            has_moved |= self.start_sync()?;
            has_moved |= self.publish_snapshot()?;
            if !has_moved {
                break;
            }
        }
        self.retain_in_time()
    }

    /// When [`Log::proceed`] has something to do even if nothing completes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Micros> {
        let is_under_way = self.pending.as_ref().is_some_and(|pending| pending.ticket.is_some());
        let retry = self.stall.as_ref().filter(|_| !is_under_way).map(|stall| stall.retry_at);
        let mark = self.mark_due.filter(|_| self.stall.is_none() && self.can_mark());
        let sync = self.sync_due.filter(|_| self.syncing.is_none());
        [retry, mark, sync, self.retention_due].into_iter().flatten().min()
    }

    /// Makes everything durable, with the events that wait behind it. The barrier must be open.
    pub fn end(&mut self, waiting: Waiting) {
        self.is_ending = true;
        self.abandon_snapshot();
        // If that fails, the next start does it.
        let _ = self.cut_rest();
        for (index, (block, lines)) in waiting.blocks.into_iter().enumerate() {
            let kind = if index == 0 { Kind::WaitingFirst } else { Kind::Waiting };
            self.queue.push_back((kind, block, lines));
        }
    }

    /// [`Log::end`] has been called.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// After [`Log::end`]: all of it is durable, and a mark says so.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.is_ending
            && self.pending.is_none()
            && self.queue.is_empty()
            && self.is_marked
            && self.durable == self.chain.position
    }

    /// The snapshot and block from which the state of a place can be made. `None`: the place is not kept any more.
    #[must_use]
    pub fn start_for(&self, next: Cursor) -> Option<Start> {
        self.catalog.start_for(next)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn snapshot_reader(&mut self, info: SnapshotInfo) -> Result<SnapshotReader, JournalError> {
        SnapshotReader::open(&mut *self.disk, self.meta.id, info)
    }

    /// A snapshot is damaged or cannot be read: nothing begins with it any more, and what an older one needs is kept.
    pub fn distrust(&mut self, info: SnapshotInfo) {
        self.catalog.distrusted.push(info);
    }

    /// What readers read from.
    pub fn disk(&mut self) -> &mut dyn Disk {
        &mut *self.disk
    }

    /// Opens the segment that holds the block at a cursor.
    pub(crate) fn open_segment(&mut self, cursor: Cursor) -> Result<SegmentScan, JournalError> {
        let gone = || JournalError::new(format!("the block of number {cursor} is not kept any more"));
        let index = self.catalog.segment_of(cursor).ok_or_else(gone)?;
        let segment = &self.catalog.segments[index];
        let (name, len) = (segment.name(), segment.len);
        let scan = SegmentScan::open(&mut *self.disk, self.meta.id, &name, len)?;
        scan.ok_or_else(|| JournalError::damage(&name, 0, "no segment of this journal"))
    }

    /// Bytes of a segment that are complete.
    pub(crate) fn segment_len(&self, first: Cursor) -> Option<u64> {
        let index = self.catalog.segment_of(first)?;
        let segment = &self.catalog.segments[index];
        (segment.first == first).then_some(segment.len)
    }

    fn id(&self) -> JournalId {
        self.meta.id
    }

    fn begin_block(&mut self, kind: Kind, (bytes, start): (Vec<u8>, usize), to: Cursor, events: u32) {
        self.clock_ms = self.disk.clock_ms();
        let header = Header {
            kind,
            len: (bytes.len() - start - BLOCK_HEADER) as u32,
            events,
            from: self.chain.cursor,
            to,
            durable: 0,
            time_ms: self.clock_ms,
            previous: 0,
        };
        self.mark_due = None;
        self.pending = Some(Pending { header, bytes, start, came_in: None, sealed: None, ticket: None });
    }

    /// Begins a block of the journal's own: of the end, or a mark.
    fn begin_next(&mut self) -> bool {
        if self.pending.is_some() {
            return false;
        }
        if let Some((kind, block, lines)) = self.queue.pop_front() {
            self.begin_block(kind, (block, 0), self.chain.cursor, lines);
            return true;
        }
        let is_due = self.is_ending || self.mark_due.is_some_and(|at| at <= self.now);
        if is_due && self.can_mark() {
            let mut mark = std::mem::take(&mut self.spare_mark);
            mark.clear();
            mark.resize(BLOCK_HEADER, 0);
            self.begin_block(Kind::Mark, (mark, 0), self.chain.cursor, 0);
            return true;
        }
        false
    }

    /// Everything is durable, no mark says so, and no block is on its way.
    fn can_mark(&self) -> bool {
        self.durable == self.chain.position
            && self.syncing.is_none()
            && self.pending.is_none()
            && !self.is_marked
    }

    /// Submits the rest of the pending block.
    fn start_write(&mut self) -> Result<bool, JournalError> {
        let is_stalled = self.stall.as_ref().is_some_and(|stall| stall.retry_at > self.now);
        let has_too_many = self.unsynced_files() >= UNSYNCED_MAX;
        let must_wait = |pending: &Pending| {
            is_stalled || (has_too_many && pending.sealed.is_none() && self.must_roll(&pending.header))
        };
        let is_waiting = self.pending.as_ref().is_none_or(must_wait);
        let Some(mut pending) = self.pending.take_if(|pending| pending.ticket.is_none() && !is_waiting)
        else {
            return Ok(false);
        };
        match self.place(&mut pending) {
            Ok(file) => {
                let at = pending.sealed.map_or(0, |sealed| sealed.offset);
                let bytes = std::mem::take(&mut pending.bytes);
                pending.ticket = Some(self.disk.write(file, at, bytes, pending.start));
                self.pending = Some(pending);
                Ok(true)
            }
            Err(error) => {
                self.pending = Some(pending);
                self.fail_or_stall(&error, "cannot make", &segment_name(self.chain.cursor))?;
                Ok(false)
            }
        }
    }

    /// Gives the pending block its place, in a new segment if need be.
    fn place(&mut self, pending: &mut Pending) -> io::Result<FileId> {
        if let (Some(file), Some(_)) = (self.active, pending.sealed) {
            return Ok(file);
        }
        if self.must_roll(&pending.header) {
            self.close_segment()?;
        }
        let file = match self.active {
            Some(file) => file,
            None => self.make_segment(pending.header.is_large())?,
        };
        pending.header.durable = self.durable;
        pending.header.previous = self.chain.previous;
        let block = (&mut pending.bytes, pending.start);
        let hash = pending.header.seal(block, self.meta.id, self.offset, self.chain.position);
        pending.sealed = Some(Sealed { offset: self.offset, hash });
        self.write_ahead(pending);
        Ok(file)
    }

    fn complete(&mut self, completion: Completion) -> Result<(), JournalError> {
        if self.pending.as_ref().is_some_and(|pending| pending.ticket == Some(completion.ticket)) {
            self.complete_write(completion)
        } else if self.syncing.as_ref().is_some_and(|syncing| syncing.ticket == completion.ticket) {
            self.complete_sync(completion)
        } else {
            self.complete_snapshot_sync(completion)
        }
    }

    fn complete_write(&mut self, completion: Completion) -> Result<(), JournalError> {
        let Some(mut pending) = self.pending.take() else { return Ok(()) };
        pending.ticket = None;
        pending.bytes = completion.bytes;
        let written = match completion.result {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            result => result,
        };
        match (written, &mut pending.sealed) {
            (Ok(written), Some(sealed)) if written < pending.bytes.len() - pending.start => {
                sealed.offset += written as u64;
                pending.start += written;
                self.pending = Some(pending);
                Ok(())
            }
            (Ok(_), sealed) => {
                let hash = sealed.map_or(0, |sealed| sealed.hash);
                self.finish_block(&pending.header, hash);
                if let Some((buffer, _)) = pending.came_in.take() {
                    self.spare_room = std::mem::replace(&mut pending.bytes, buffer);
                }
                match pending.header.kind {
                    Kind::Mark => self.spare_mark = pending.bytes,
                    Kind::Events | Kind::WaitingFirst | Kind::Waiting => self.spare = pending.bytes,
                }
                Ok(())
            }
            (Err(error), Some(sealed)) if is_full(&error) && pending.came_in.is_some() => {
                let written = (sealed.offset - self.offset) as usize;
                self.do_without_room(pending, written);
                Ok(())
            }
            (Err(error), _) => {
                self.pending = Some(pending);
                let name = self.catalog.segments.back().map(Segment::name).unwrap_or_default();
                self.fail_or_stall(&error, "cannot write to", &name)
            }
        }
    }

    /// The block is in the file.
    fn finish_block(&mut self, header: &Header, hash: u64) {
        let len = header.block_len(self.offset);
        self.offset += len;
        self.file_len = self.file_len.max(self.offset);
        self.chain = Chain { previous: hash, cursor: header.to, position: self.chain.position + len };
        if let Some(segment) = self.catalog.segments.back_mut() {
            segment.len = self.offset;
            segment.time_ms = header.time_ms;
        }
        self.appended_bytes += len;
        self.undurable_since.get_or_insert(self.now);
        self.stall = None;
        self.is_marked = header.kind == Kind::Mark;
        match self.settings.sync {
            _ if self.is_ending || self.is_marked => self.sync_goal = self.chain.position,
            SyncMode::Always => self.sync_goal = self.chain.position,
            SyncMode::Interval => {
                self.sync_due.get_or_insert(self.now + self.settings.interval);
            }
            SyncMode::Never => {}
        }
    }

    /// Handles a failed write. With a full disk, the journal waits and tries again. Any other error ends it.
    fn fail_or_stall(&mut self, error: &io::Error, what: &str, file: &str) -> Result<(), JournalError> {
        let sentence = JournalError::io(what, file, error);
        if !is_full(error) {
            return Err(sentence);
        }
        self.stall = Some(Stall { reason: sentence.to_string(), retry_at: self.now + RETRY });
        Ok(())
    }
}
