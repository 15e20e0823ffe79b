//! Tools for the journal of a folder that work without a server (docs/SPEC.md section 8).

#![forbid(unsafe_code)]

mod folder;
mod repair;

pub use repair::{Cut, find_cut, repair};

use super::{
    JournalError, Opening, Step, Waiting,
    block::{BLOCK_HEADER, Kind},
    catalog::{Catalog, Segment},
    meta::Meta,
    open,
    recover::{self, Report},
    segment::Room,
    snapshot::SnapshotInfo,
    walk::{WalkEnd, walk},
};
use crate::{
    disk::Disk,
    epoch::Epoch,
    sequence::{Cursor, SequenceNumber},
};
use folder::{again_while_files_go, draw, finish, load, number_of};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write},
};

/// Ranges of numbers that are printed.
const RANGES_MAX: usize = 1000;
/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;

/// Adjacent numbers.
#[derive(Debug, Default)]
struct Ranges {
    ranges: Vec<(SequenceNumber, SequenceNumber)>,
    left_out: u64,
}

impl Ranges {
    fn push(&mut self, number: SequenceNumber) {
        if let Some((_, last)) = self.ranges.last_mut()
            && Cursor::behind(*last) == Cursor::before(number)
        {
            *last = number;
        } else if self.ranges.len() < RANGES_MAX {
            self.ranges.push((number, number));
        } else {
            self.left_out += 1;
        }
    }
}

/// Verifies every byte, and describes the contents.
///
/// # Errors
///
/// The place of the damage.
pub fn check(disk: &mut dyn Disk) -> Result<String, JournalError> {
    again_while_files_go(disk, check_once)
}

fn check_once(disk: &mut dyn Disk) -> Result<String, JournalError> {
    let (meta, mut catalog) = load(disk)?;
    let mut text = format!("epoch {}\n", meta.epoch);
    for ancestor in &meta.ancestors {
        let _ = writeln!(text, "forked from epoch {} at {}", ancestor.epoch, ancestor.cursor);
    }
    let mut mark = 0;
    for info in &catalog.snapshots {
        let trailer = recover::verify(disk, &meta, *info, &mut |_| Ok(()))?;
        mark = mark.max(trailer.position);
        let _ =
            writeln!(text, "snapshot {}: {} edges, exact from {} on", info.name(), trailer.edges, trailer.to);
    }
    let mut ranges = Ranges::default();
    let mut waiting = 0;
    let segments = catalog.segments.make_contiguous();
    let end = walk(disk, meta.id, segments, 0, mark, &mut |header, payload, _| {
        match header.kind {
            Kind::Events => {
                waiting = 0;
                let lines = payload.split_inclusive(|&byte| byte == b'\n');
                lines.filter_map(number_of).for_each(|number| ranges.push(number));
            }
            Kind::WaitingFirst => waiting = header.events,
            Kind::Waiting => waiting += header.events,
            Kind::Mark => {}
        }
        Ok(())
    })?;
    if end.is_damaged() {
        return Err(recover::damage(&catalog, &end));
    }
    describe(&mut text, &catalog, &end, &ranges, waiting);
    Ok(text)
}

fn describe(text: &mut String, catalog: &Catalog, end: &WalkEnd, ranges: &Ranges, waiting: u32) {
    let _ = writeln!(text, "{} segments, {} bytes", catalog.segments.len(), catalog.bytes());
    let mut expected = catalog.segments.front().map(|segment| segment.first);
    for &(first, last) in &ranges.ranges {
        if let Some(gap) = expected.filter(|&gap| gap < Cursor::before(first)) {
            let _ = writeln!(text, "gap {gap}-{}", first.get() - 1);
        }
        let _ = writeln!(text, "events {first}-{last}");
        expected = Some(Cursor::behind(last));
    }
    let cursor = end.chain.map_or(Cursor::START, |chain| chain.cursor);
    if ranges.left_out > 0 {
        let _ = writeln!(text, "and {} events in more ranges", ranges.left_out);
    } else if let Some(gap) = expected.filter(|&gap| gap < cursor) {
        let _ = writeln!(text, "gap {gap}-{}", cursor.get() - 1);
    }
    let _ = writeln!(text, "cursor {cursor}");
    if waiting > 0 {
        let _ = writeln!(text, "{waiting} events wait for missing ones");
    }
    if let Some(bad) = &end.bad {
        let name = catalog.segments[bad.segment].name();
        let bytes: u64 = catalog.segments.iter().skip(bad.segment).map(|segment| segment.len).sum();
        let what = if bad.room != Room::Absent { "torn tail, or room for more blocks," } else { "torn tail" };
        let _ = writeln!(text, "{what} of {} bytes: {name}, offset {}", bytes - bad.offset, bad.offset);
    }
}

/// Writes the events of these numbers, both included, as they were released.
///
/// # Errors
///
/// The place of damage, or that `out` cannot be written.
pub fn dump(
    disk: &mut dyn Disk,
    from: SequenceNumber,
    to: SequenceNumber,
    out: &mut dyn Write,
) -> Result<(), JournalError> {
    let mut next = Next { number: Cursor::before(from), has_begun: false };
    let mut written = Ok(());
    again_while_files_go(disk, |disk| {
        dump_once(disk, &mut next, to, &mut |line| {
            if written.is_ok() {
                written = out.write_all(line);
            }
        })
    })?;
    match written.and_then(|()| out.flush()) {
        // The reader has closed its end.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(JournalError::io("cannot write to", "standard output", &error)),
        Ok(()) => Ok(()),
    }
}

/// How far a dump is.
struct Next {
    /// Everything below has been handed out.
    number: Cursor,
    has_begun: bool,
}

fn dump_once(
    disk: &mut dyn Disk,
    next: &mut Next,
    to: SequenceNumber,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), JournalError> {
    let (meta, mut catalog) = load(disk)?;
    let oldest = catalog.segments.front().map_or(Cursor::START, |segment| segment.first);
    if next.has_begun && oldest > next.number {
        return Err(JournalError::new(format!(
            "retention was faster than the dump: from number {} on nothing was kept any more before {oldest}; raise journalRetentionBytes, or write to a faster place",
            next.number
        )));
    }
    let start = catalog.segment_of(next.number).unwrap_or(0);
    let segments = catalog.segments.make_contiguous();
    let end = walk(disk, meta.id, segments, start, 0, &mut |header, payload, _| {
        if header.kind == Kind::Events && header.to > next.number && header.from <= Cursor::before(to) {
            let wanted = next.number..=Cursor::before(to);
            let is_wanted =
                |line: &&[u8]| number_of(line).is_some_and(|number| wanted.contains(&Cursor::before(number)));
            payload.split_inclusive(|&byte| byte == b'\n').filter(is_wanted).for_each(&mut *take);
            *next = Next { number: header.to, has_begun: true };
        }
        Ok(())
    })?;
    if end.is_damaged() { Err(recover::damage(&catalog, &end)) } else { Ok(()) }
}

/// Begins a new epoch at the cursor. Returns it and the cursor.
///
/// # Errors
///
/// If the journal is damaged, or cannot be written.
pub fn fork(disk: &mut dyn Disk) -> Result<(Epoch, Cursor), JournalError> {
    let (mut meta, mut catalog) = load(disk)?;
    let end = recover::recover(disk, &meta, &mut catalog, &mut |_| Ok(()), &mut Report::default())?;
    if end.is_damaged() {
        return Err(recover::damage(&catalog, &end));
    }
    let cursor = end.chain.map_or(Cursor::START, |chain| chain.cursor);
    meta.fork(draw(disk)?, cursor);
    meta.lock =
        disk.identity().map_err(|error| JournalError::io("cannot look at", "journal.lock", &error))?;
    meta.store(disk)?;
    Ok((meta.epoch, cursor))
}

/// Copies a journal, which a server may be writing to, into an empty folder, and forks the copy. Returns its epoch and cursor.
///
/// # Errors
///
/// If the journal is damaged, or a file cannot be read or written.
pub fn copy(from: &mut dyn Disk, to: &mut dyn Disk) -> Result<(Epoch, Cursor), JournalError> {
    if Meta::load(to)?.is_some() {
        return Err(JournalError::new("there is a journal already where the copy should go".to_owned()));
    }
    again_while_files_go(from, |from| {
        remove_copied(to)?;
        copy_once(from, to)
    })
}

/// What an attempt has left that did not succeed: it was overtaken.
fn remove_copied(to: &mut dyn Disk) -> Result<(), JournalError> {
    let copied = Catalog::list(to)?;
    let segments = copied.segments.iter().map(Segment::name);
    for name in segments.chain(copied.snapshots.iter().map(SnapshotInfo::name)) {
        to.remove(&name).map_err(|error| JournalError::io("cannot remove", &name, &error))?;
    }
    Ok(())
}

fn copy_once(from: &mut dyn Disk, to: &mut dyn Disk) -> Result<(Epoch, Cursor), JournalError> {
    let (mut meta, mut catalog) = load(from)?;
    let mut mark = 0;
    for info in &catalog.snapshots {
        mark = mark.max(recover::verify(from, &meta, *info, &mut |_| Ok(()))?.position);
    }
    let segments = catalog.segments.make_contiguous();
    let end = walk(from, meta.id, segments, 0, mark, &mut |_, _, _| Ok(()))?;
    if end.is_damaged() {
        return Err(recover::damage(&catalog, &end));
    }
    if let Some(bad) = &end.bad {
        catalog.segments.truncate(bad.segment + usize::from(bad.offset > 0));
        if bad.offset > 0
            && let Some(segment) = catalog.segments.back_mut()
        {
            segment.len = bad.offset;
        }
    }
    let cursor = end.chain.map_or(Cursor::START, |chain| chain.cursor);
    catalog.snapshots.retain(|info| info.to <= cursor);
    let snapshots = catalog.snapshots.iter().map(|info| (info.name(), info.len));
    for (name, len) in catalog.segments.iter().map(|segment| (segment.name(), segment.len)).chain(snapshots) {
        copy_file(from, to, &name, len).map_err(|error| JournalError::io("cannot copy", &name, &error))?;
    }
    meta.fork(draw(to)?, cursor);
    meta.lock = to.identity().map_err(|error| JournalError::io("cannot look at", "journal.lock", &error))?;
    meta.store(to)?;
    Ok((meta.epoch, cursor))
}

fn copy_file(from: &mut dyn Disk, to: &mut dyn Disk, name: &str, len: u64) -> io::Result<()> {
    let source = from.open(name)?;
    let target = to.create(name)?;
    let mut bytes = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < len {
        let wanted = (len - at).min(COPY_BYTES as u64) as usize;
        let read = from.read_at(source, at, &mut bytes[..wanted])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_at(target, at, &bytes[..read])?;
        at += read as u64;
    }
    let synced = to.sync_at_once(target);
    from.close(source);
    to.close(target);
    synced
}

/// The effect of giving up numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The cursor before.
    pub from: Cursor,
    /// Numbers that are given up.
    pub numbers: u128,
    /// Events below the number that waited, and are released.
    pub released: usize,
}

/// Gives up all numbers below `to` that have not come. Events that wait below it are released. `opening`: how to open it.
///
/// # Errors
///
/// If the journal is damaged, a copy, or cannot be written.
pub fn skip(disk: Box<dyn Disk>, opening: &Opening, to: Cursor) -> Result<Skipped, JournalError> {
    let mut waiting: BTreeMap<SequenceNumber, Vec<u8>> = BTreeMap::new();
    let mut later = Waiting::default();
    let recovered = open(disk, opening, &mut |step| {
        if let Step::Waiting(number, line) = step {
            waiting.entry(number_of(line).unwrap_or(number)).or_insert_with(|| line.to_vec());
        }
        Ok(())
    })?;
    let mut log = recovered.log;
    let from = log.appended_cursor();
    let mut block = vec![0; BLOCK_HEADER];
    let (mut released, mut used) = (0, 0);
    for (&number, line) in waiting.range(from.number().unwrap_or(SequenceNumber::MAX)..) {
        if Cursor::before(number) >= to {
            later.push(number, line);
        } else {
            block.extend_from_slice(line);
            used += 1;
            released += usize::from(!line.is_empty());
        }
    }
    let numbers = to.since(from).saturating_sub(used);
    if to > from {
        log.append((block, BLOCK_HEADER), (from, to), released as u64, opening.now)?;
        finish(log, later, opening)?;
    }
    Ok(Skipped { from, numbers, released })
}
