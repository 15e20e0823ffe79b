//! Opening a journal: the newest snapshot, the events after it, and the meaning of a bad block.

#![forbid(unsafe_code)]

use super::{
    JournalError, Log,
    block::{Header, Kind},
    catalog::{Catalog, Segment, Start},
    meta::Meta,
    segment::{Room, SEGMENT_HEADER, SegmentHeader},
    settings::Opening,
    snapshot::{SnapshotInfo, SnapshotRead, SnapshotReader, Trailer, read_mark},
    waiting::WaitingLines,
    walk::{WalkEnd, walk},
};
use crate::{
    disk::{Disk, Identity},
    epoch::Epoch,
    sequence::{Cursor, SequenceNumber},
    user_id::UserId,
};
use std::io;

/// The steps of a recovery, in this order: edges, then the cursor, then lines, then waiting events.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Edges of the graph: (follower, followed).
    Edges(&'a [(UserId, UserId)]),
    /// The cursor at which the following lines begin.
    Cursor(Cursor),
    /// Released lines.
    Lines {
        /// The cursor before them.
        from: Cursor,
        /// The cursor behind them.
        to: Cursor,
        /// The lines.
        lines: &'a [u8],
    },
    /// An event that waited at a graceful end. An empty line: a rejected one, which uses up its number.
    Waiting(SequenceNumber, &'a [u8]),
}

impl Step<'_> {
    /// Bytes that have been read for it, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            // They are read twice. The first time nothing is handed out.
            Step::Edges([]) => 64 << 10,
            Step::Edges(edges) => size_of_val(*edges),
            Step::Cursor(_) => 0,
            Step::Lines { lines, .. } | Step::Waiting(_, lines) => lines.len(),
        }
    }
}

/// An opened journal.
#[derive(Debug)]
pub struct Recovered {
    /// Ready to append, with everything that was recovered durable.
    pub log: Log,
    /// The report for the log.
    pub report: Report,
}

/// The report of a recovery.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The journal was made now.
    pub is_new: bool,
    /// It holds nothing: `firstSequence` counted.
    pub is_empty: bool,
    /// The snapshot that it began with.
    pub snapshot: Option<SnapshotInfo>,
    /// Bytes of segments that were read.
    pub bytes: u64,
    /// Bytes of the torn tail, which was cut. What is left in a recycled file of an older segment is not counted.
    pub cut_bytes: u64,
    /// Events that waited.
    pub waiting: usize,
    /// This file system does not tell a file from its copy.
    pub is_identity_unknown: bool,
    /// Snapshots that are damaged, and could be done without.
    pub damaged_snapshots: Vec<String>,
    /// Snapshots of a new beginning that nobody finished ([`Log::found`](super::Log::found)). They were removed.
    pub foreign_snapshots: Vec<String>,
}

/// Opens the journal of a folder that this process alone may write to, and makes it if there is none. `apply` is handed what the
/// state is made of, and may refuse a line with the reason.
///
/// # Errors
///
/// If it is a copy, damaged, or cannot be read or written: one sentence.
pub fn open(
    mut disk: Box<dyn Disk>,
    opening: &Opening,
    apply: &mut dyn FnMut(Step<'_>) -> Result<(), String>,
) -> Result<Recovered, JournalError> {
    let mut report = Report::default();
    let mut catalog = Catalog::list(&mut *disk)?;
    let meta = match Meta::load(&mut *disk)? {
        Some(meta) => {
            check_identity(&mut *disk, meta.lock, &mut report)?;
            meta
        }
        None => make(&mut *disk, &catalog, opening.epoch, &mut report)?,
    };
    if let Some(base) = meta.base {
        catalog.leave_below(base);
    }
    for leftover in std::mem::take(&mut catalog.leftovers) {
        disk.remove(&leftover).map_err(|error| JournalError::io("cannot remove", &leftover, &error))?;
    }
    let files: Vec<u64> = catalog.segments.iter().map(|segment| segment.len).collect();
    end_where_the_next_begins(&mut *disk, &meta, &mut catalog)?;
    let end = recover(&mut *disk, &meta, &mut catalog, apply, &mut report)?;
    if end.is_damaged() {
        return Err(damage(&catalog, &end));
    }
    remove_foreign(&mut *disk, &mut catalog, &end, &mut report)?;
    cut(&mut *disk, &mut catalog, &end, &mut report)?;
    cut_remains(&mut *disk, &catalog, &files)?;
    report.is_empty = catalog.segments.is_empty();
    report.bytes = end.bytes;
    make_durable(&mut *disk, &catalog, &end)?;
    if report.is_empty && meta.base.is_none() {
        apply(Step::Cursor(opening.first_sequence)).map_err(JournalError::new)?;
    }
    let log = Log::start(disk, meta, catalog, end.chain, opening)?;
    report.is_empty |= log.is_fresh();
    Ok(Recovered { log, report })
}

fn check_identity(disk: &mut dyn Disk, recorded: Identity, report: &mut Report) -> Result<(), JournalError> {
    let found =
        disk.identity().map_err(|error| JournalError::io("cannot look at", "journal.lock", &error))?;
    if !found.is_stable() || !recorded.is_stable() {
        report.is_identity_unknown = true;
        return Ok(());
    }
    if found == recorded {
        return Ok(());
    }
    Err(JournalError::new(
        "the folder is a copy of a journal (its journal.lock is another file than the one recorded); to go on with the copy under an epoch of its own, run `fortnight journal fork` on it"
            .to_owned(),
    ))
}

fn make(
    disk: &mut dyn Disk,
    catalog: &Catalog,
    epoch: Option<Epoch>,
    report: &mut Report,
) -> Result<Meta, JournalError> {
    if !catalog.segments.is_empty() || !catalog.snapshots.is_empty() {
        return Err(JournalError::new(
            "journal.meta is missing, but there are segments; restore it from a backup of this journal"
                .to_owned(),
        ));
    }
    let mut meta =
        Meta::draw(disk).map_err(|error| JournalError::io("cannot make", "journal.meta", &error))?;
    meta.epoch = epoch.unwrap_or(meta.epoch);
    meta.store(disk)?;
    report.is_new = true;
    report.is_identity_unknown = !meta.lock.is_stable();
    Ok(meta)
}

/// Reads the newest snapshot that is whole, and all blocks after it.
pub(crate) fn recover(
    disk: &mut dyn Disk,
    meta: &Meta,
    catalog: &mut Catalog,
    apply: &mut dyn FnMut(Step<'_>) -> Result<(), String>,
    report: &mut Report,
) -> Result<WalkEnd, JournalError> {
    if catalog.segments.is_empty() {
        if let Some(info) = catalog.snapshots.last().filter(|info| meta.base == Some(info.to)) {
            // It was founded, and ended before its first segment was made.
            verify(disk, meta, *info, &mut |_| Ok(()))?;
            load(disk, meta, *info, apply)?;
            apply(Step::Cursor(info.to)).map_err(JournalError::new)?;
        } else if let Some(info) = catalog.snapshots.last() {
            let what = "there is a snapshot, but no segment";
            return Err(JournalError::damage(&info.name(), 0, what));
        }
        return Ok(WalkEnd { chain: None, mark: 0, bad: None, bytes: 0 });
    }
    catalog.has_origin = is_origin(disk, meta, catalog)?;
    let (start, mark) = choose_start(disk, meta, catalog, apply, report)?;
    // Retention must not take what an older snapshot needs.
    let is_damaged = |info: &&SnapshotInfo| report.damaged_snapshots.contains(&info.name());
    catalog.distrusted = catalog.snapshots.iter().filter(is_damaged).copied().collect();
    if let Some(info) = start.snapshot {
        load(disk, meta, info, apply)?;
    }
    report.snapshot = start.snapshot;
    apply(Step::Cursor(start.from)).map_err(JournalError::new)?;
    let first = first_to_read(disk, meta, catalog, start.from, mark)?;
    let mut waiting: Vec<Vec<u8>> = Vec::new();
    let segments = catalog.segments.make_contiguous();
    let end = walk(disk, meta.id, segments, first, mark, &mut |header, payload, place| {
        match header.kind {
            Kind::Events => waiting.clear(),
            Kind::WaitingFirst => waiting = vec![payload.to_vec()],
            Kind::Waiting => waiting.push(payload.to_vec()),
            Kind::Mark => {}
        }
        apply_block(header, payload, start.from, apply)
            .map_err(|reason| JournalError::damage(place.file, place.offset, &reason))
    })?;
    for (number, line) in waiting.iter().flat_map(|payload| WaitingLines::new(payload)) {
        report.waiting += 1;
        apply(Step::Waiting(number, line)).map_err(JournalError::new)?;
    }
    Ok(end)
}

/// The segment that holds `from`, or an earlier one: whatever may not have been durable is read, from the segment on that holds the mark.
/// Or something could be missing before `from`, and whoever reads from further back would come to an end there.
fn first_to_read(
    disk: &mut dyn Disk,
    meta: &Meta,
    catalog: &Catalog,
    from: Cursor,
    mark: u64,
) -> Result<usize, JournalError> {
    let mut first = catalog.segment_of(from).unwrap_or(0);
    while first > 0 {
        let header = read_header(disk, meta, &catalog.segments[first])?;
        if header.is_some_and(|header| header.base <= mark) {
            break;
        }
        first -= 1;
    }
    Ok(first)
}

fn apply_block(
    header: &Header,
    lines: &[u8],
    from: Cursor,
    apply: &mut dyn FnMut(Step<'_>) -> Result<(), String>,
) -> Result<(), String> {
    if header.kind != Kind::Events || header.to <= from {
        return Ok(());
    }
    apply(Step::Lines { from: header.from, to: header.to, lines })
}

/// A segment ends where the next one begins, whose header says so. Behind that there may still be the remains of an older segment:
/// they were cut off, but the machine ended before that was durable.
pub(crate) fn end_where_the_next_begins(
    disk: &mut dyn Disk,
    meta: &Meta,
    catalog: &mut Catalog,
) -> Result<(), JournalError> {
    let mut behind: Option<SegmentHeader> = None;
    for segment in catalog.segments.iter_mut().rev() {
        let header = read_header(disk, meta, segment)?;
        if let (Some(header), Some(behind)) = (header, behind) {
            // A shorter file has lost something: that is found when it is read.
            let len = behind.base.saturating_sub(header.base);
            segment.len = segment.len.min(len.max(SEGMENT_HEADER as u64));
        }
        behind = header;
    }
    Ok(())
}

/// The header of a segment, if it is its own.
fn read_header(
    disk: &mut dyn Disk,
    meta: &Meta,
    segment: &Segment,
) -> Result<Option<SegmentHeader>, JournalError> {
    let name = segment.name();
    let failed = |error: io::Error| JournalError::io("cannot read", &name, &error);
    let file = disk.open(&name).map_err(failed)?;
    let mut bytes = [0; SEGMENT_HEADER];
    let read = disk.read_at(file, 0, &mut bytes);
    disk.close(file);
    read.map_err(failed)?;
    Ok(SegmentHeader::decode(&bytes, meta.id).filter(|header| header.first == segment.first))
}

/// A snapshot above the end of the journal is none of it: a new beginning has left it that was not finished.
fn remove_foreign(
    disk: &mut dyn Disk,
    catalog: &mut Catalog,
    end: &WalkEnd,
    report: &mut Report,
) -> Result<(), JournalError> {
    let Some(chain) = end.chain else { return Ok(()) };
    let (kept, foreign) = catalog.snapshots.iter().partition(|info| info.to <= chain.cursor);
    catalog.snapshots = kept;
    let foreign: Vec<SnapshotInfo> = foreign;
    for info in foreign {
        let name = info.name();
        disk.remove(&name).map_err(|error| JournalError::io("cannot remove", &name, &error))?;
        catalog.distrusted.retain(|other| *other != info);
        report.damaged_snapshots.retain(|other| *other != name);
        report.foreign_snapshots.push(name);
    }
    Ok(())
}

/// Whether the graph is empty before the oldest segment.
pub(crate) fn is_origin(disk: &mut dyn Disk, meta: &Meta, catalog: &Catalog) -> Result<bool, JournalError> {
    let Some(segment) = catalog.segments.front() else { return Ok(false) };
    let header = read_header(disk, meta, segment)?;
    // A segment that nobody finished making is the only one, and begins the journal.
    Ok(header.map_or(catalog.segments.len() == 1 && catalog.snapshots.is_empty(), |header| header.is_origin))
}

/// The newest snapshot that is whole, or the origin; and up to where that says the journal was durable.
fn choose_start(
    disk: &mut dyn Disk,
    meta: &Meta,
    catalog: &Catalog,
    apply: &mut dyn FnMut(Step<'_>) -> Result<(), String>,
    report: &mut Report,
) -> Result<(Start, u64), JournalError> {
    let oldest = catalog.segments.front().map_or(Cursor::START, |segment| segment.first);
    let (mut damage, mut mark) = (None, 0);
    for &info in catalog.snapshots.iter().rev().filter(|info| info.from >= oldest) {
        // Nothing is taken from it before it is known to be whole. But whoever is told may have it ended here.
        match verify(disk, meta, info, &mut |_| apply(Step::Edges(&[]))) {
            Ok(trailer) => {
                return Ok((Start { snapshot: Some(info), from: info.from }, trailer.position.max(mark)));
            }
            Err(error) if error.damage_place().is_some() => {
                report.damaged_snapshots.push(info.name());
                // Its end may be whole, and says up to where the journal was durable.
                mark = mark.max(read_mark(disk, meta.id, info)?);
                damage = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    if catalog.has_origin {
        return Ok((Start { snapshot: None, from: oldest }, mark));
    }
    Err(damage.unwrap_or_else(|| {
        let what = "the segments before it are gone, and there is no snapshot to begin with";
        JournalError::damage(&catalog.segments[0].name(), 0, what)
    }))
}

/// Reads a whole snapshot.
pub(crate) fn verify(
    disk: &mut dyn Disk,
    meta: &Meta,
    info: SnapshotInfo,
    each: EachEdges<'_>,
) -> Result<Trailer, JournalError> {
    let mut trailer = None;
    read_snapshot(disk, meta, info, each, &mut trailer)?;
    trailer.ok_or_else(|| JournalError::damage(&info.name(), 0, "it has no end"))
}

fn load(
    disk: &mut dyn Disk,
    meta: &Meta,
    info: SnapshotInfo,
    apply: &mut dyn FnMut(Step<'_>) -> Result<(), String>,
) -> Result<(), JournalError> {
    read_snapshot(disk, meta, info, &mut |edges| apply(Step::Edges(edges)), &mut None)
}

/// Is handed edges, and may refuse them with the reason.
pub(crate) type EachEdges<'a> = &'a mut dyn FnMut(&[(UserId, UserId)]) -> Result<(), String>;

fn read_snapshot(
    disk: &mut dyn Disk,
    meta: &Meta,
    info: SnapshotInfo,
    each: EachEdges<'_>,
    trailer: &mut Option<Trailer>,
) -> Result<(), JournalError> {
    let mut reader = SnapshotReader::open(disk, meta.id, info)?;
    let mut edges = Vec::new();
    let read = loop {
        match reader.next(disk, true, &mut edges) {
            Ok(SnapshotRead::Edges) => match each(&edges) {
                Ok(()) => {}
                Err(reason) => break Err(JournalError::new(reason)),
            },
            Ok(SnapshotRead::Later) => {}
            Ok(SnapshotRead::Done(found)) => {
                *trailer = Some(found);
                break Ok(());
            }
            Err(error) => break Err(error),
        }
    };
    reader.close(disk);
    read
}

/// The sentence for a journal that ends below a mark.
pub(crate) fn damage(catalog: &Catalog, end: &WalkEnd) -> JournalError {
    match &end.bad {
        Some(bad) => {
            let name = catalog.segments[bad.segment].name();
            JournalError::damage(
                &name,
                bad.offset,
                "what stands there is not what was written, and it was durable",
            )
        }
        None => {
            let last = catalog.segments.back();
            let (name, len) =
                last.map_or_else(|| (String::new(), 0), |segment| (segment.name(), segment.len));
            JournalError::damage(&name, len, "the journal ends there, and it was durable beyond that")
        }
    }
}

/// Erases the torn tail.
pub(crate) fn cut(
    disk: &mut dyn Disk,
    catalog: &mut Catalog,
    end: &WalkEnd,
    report: &mut Report,
) -> Result<(), JournalError> {
    let Some(bad) = &end.bad else { return Ok(()) };
    let keeps_part = bad.offset > 0;
    let keep = bad.segment + usize::from(keeps_part);
    while catalog.segments.len() > keep {
        let Some(segment) = catalog.segments.pop_back() else { break };
        report.cut_bytes += segment.len;
        let name = segment.name();
        disk.remove(&name).map_err(|error| JournalError::io("cannot remove", &name, &error))?;
    }
    if keeps_part && let Some(segment) = catalog.segments.back_mut() {
        report.cut_bytes += match bad.room {
            Room::Absent => segment.len - bad.offset,
            Room::Recycled => 0,
            Room::Zeros => bytes_before_zeros(disk, &segment.name(), bad.offset)?,
        };
        segment.len = bad.offset;
        truncate(disk, &segment.name(), bad.offset)?;
    }
    disk.sync_folder().map_err(|error| JournalError::io("cannot sync", "the folder", &error))
}

/// How many bytes of a file there are from an offset on, without zeros at its end.
fn bytes_before_zeros(disk: &mut dyn Disk, name: &str, offset: u64) -> Result<u64, JournalError> {
    let failed = |error: io::Error| JournalError::io("cannot read", name, &error);
    let file = disk.open(name).map_err(failed)?;
    let (mut bytes, mut at, mut last) = (vec![0; 64 << 10], offset, offset);
    let result = loop {
        match disk.read_at(file, at, &mut bytes) {
            Ok(0) => break Ok(last - offset),
            Ok(read) => {
                let end = bytes[..read].iter().rposition(|&byte| byte != 0);
                last = end.map_or(last, |end| at + end as u64 + 1);
                at += read as u64;
            }
            Err(error) => break Err(failed(error)),
        }
    };
    disk.close(file);
    result
}

/// Cuts off what stands behind the ends of segments that others follow. Or it would be damage, if the header of the next one could not be
/// read any more: only that one says where the segment ends.
/// `files`: how long the files of the segments were.
fn cut_remains(disk: &mut dyn Disk, catalog: &Catalog, files: &[u64]) -> Result<(), JournalError> {
    let followed = catalog.segments.len().saturating_sub(1);
    for (segment, &len) in catalog.segments.iter().zip(files).take(followed) {
        if len > segment.len {
            truncate(disk, &segment.name(), segment.len)?;
        }
    }
    Ok(())
}

/// Cuts a file off at an offset, durably.
pub(crate) fn truncate(disk: &mut dyn Disk, name: &str, len: u64) -> Result<(), JournalError> {
    let truncated = disk.open(name).and_then(|file| {
        let truncated = disk.truncate(file, len).and_then(|()| disk.sync_at_once(file));
        disk.close(file);
        truncated
    });
    truncated.map_err(|error| JournalError::io("cannot cut", name, &error))
}

/// Makes everything that was recovered durable: all segments that end above the highest mark.
fn make_durable(disk: &mut dyn Disk, catalog: &Catalog, end: &WalkEnd) -> Result<(), JournalError> {
    let mut position = end.chain.map_or(0, |chain| chain.position);
    for segment in catalog.segments.iter().rev() {
        if position < end.mark {
            break;
        }
        let name = segment.name();
        let synced = disk.open(&name).and_then(|file| {
            let synced = disk.sync_at_once(file);
            disk.close(file);
            synced
        });
        synced.map_err(|error| JournalError::io("cannot sync", &name, &error))?;
        position = position.saturating_sub(segment.len);
    }
    disk.sync_folder().map_err(|error| JournalError::io("cannot sync", "the folder", &error))
}
