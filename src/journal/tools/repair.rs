//! Cutting a journal at damage, or at a number (docs/SPEC.md section 8).

#![forbid(unsafe_code)]

use super::folder::{draw, finish, load, number_of};
use crate::{
    disk::Disk,
    journal::{
        JournalError, Opening, Waiting,
        block::{BLOCK_HEADER, Kind},
        catalog::{Catalog, Segment},
        meta::Meta,
        open, recover,
        segment::Room,
        snapshot::SnapshotInfo,
        walk::walk,
    },
    sequence::Cursor,
};

/// The place at which a journal must be cut, and the loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    segment: usize,
    offset: u64,
    /// The cursor before the first block that is cut off.
    from: Cursor,
    /// The cursor that will be left.
    pub cursor: Cursor,
    /// Bytes of segments that are cut off.
    pub bytes: u64,
    /// Lines of the first block that are below the cursor.
    kept: Vec<Vec<u8>>,
    /// Snapshots that are damaged, or made later.
    snapshots: Vec<SnapshotInfo>,
}

impl Cut {
    /// How many snapshots go as well.
    #[must_use]
    pub fn snapshots(&self) -> usize {
        self.snapshots.len()
    }
}

/// Where to cut: at the first damage, or before number `at`. `None`: there is nothing to cut off.
///
/// # Errors
///
/// If a file cannot be read, or nothing would be left that a start could begin with.
pub fn find_cut(disk: &mut dyn Disk, at: Option<Cursor>) -> Result<Option<Cut>, JournalError> {
    let (meta, mut catalog) = load(disk)?;
    let mut found: Option<(String, u64, Cursor, Vec<u8>)> = None;
    let segments = catalog.segments.make_contiguous();
    let end = walk(disk, meta.id, segments, 0, 0, &mut |header, lines, place| {
        let is_cut = header.kind == Kind::Events && at.is_some_and(|at| header.to > at);
        if is_cut && found.is_none() {
            found = Some((place.file.to_owned(), place.offset, header.from, lines.to_vec()));
        }
        Ok(())
    })?;
    let cursor = end.chain.map_or(Cursor::START, |chain| chain.cursor);
    let room = end.bad.as_ref().filter(|bad| bad.room != Room::Absent && !end.is_damaged());
    if let Some(bad) = room {
        // What is left there of an older segment is nothing that is lost.
        catalog.segments.truncate(bad.segment + 1);
        catalog.segments[bad.segment].len = bad.offset;
    }
    let (segment, offset) = match &end.bad {
        Some(bad) if room.is_none() => (bad.segment, bad.offset),
        _ => {
            let len = catalog.segments.back().map_or(0, |segment| segment.len);
            (catalog.segments.len().saturating_sub(1), len)
        }
    };
    let (kept, snapshots) = (Vec::new(), Vec::new());
    let mut cut = Cut { segment, offset, from: cursor, cursor, bytes: 0, kept, snapshots };
    if let (Some((file, offset, from, lines)), Some(at)) = (found, at) {
        let below = |line: &&[u8]| number_of(line).is_some_and(|number| Cursor::before(number) < at);
        let kept = lines.split_inclusive(|&byte| byte == b'\n').filter(below);
        cut.kept = kept.map(<[u8]>::to_vec).collect();
        cut.segment = catalog.segments.iter().position(|segment| segment.name() == file).unwrap_or(0);
        cut.offset = offset;
        cut.from = from;
        cut.cursor = at.max(from);
    }
    let behind = catalog.segments.iter().skip(cut.segment).map(|segment| segment.len).sum::<u64>();
    cut.bytes = behind - cut.offset;
    check_rest(disk, &meta, &mut catalog, &mut cut)?;
    Ok((cut.bytes > 0 || !cut.snapshots.is_empty()).then_some(cut))
}

/// Finds the snapshots that go as well, and whether a start has something to begin with then.
fn check_rest(
    disk: &mut dyn Disk,
    meta: &Meta,
    catalog: &mut Catalog,
    cut: &mut Cut,
) -> Result<(), JournalError> {
    // What is left ends there.
    let before: u64 = catalog.segments.iter().take(cut.segment).map(|segment| segment.len).sum();
    let base = base_of(disk, meta, catalog)?;
    let left = base + before + cut.offset;
    for info in std::mem::take(&mut catalog.snapshots) {
        match recover::verify(disk, meta, info, &mut |_| Ok(())) {
            Ok(trailer) if trailer.position <= left && info.to <= cut.from => catalog.snapshots.push(info),
            Ok(_) => cut.snapshots.push(info),
            Err(error) if error.damage_place().is_some() => cut.snapshots.push(info),
            Err(error) => return Err(error),
        }
    }
    catalog.segments.truncate(cut.segment + usize::from(cut.offset > 0));
    if catalog.start_for(cut.from).is_none() || catalog.segments.is_empty() {
        let what = "nothing would be left that a start could begin with; restore a backup";
        return Err(JournalError::new(what.to_owned()));
    }
    Ok(())
}

/// The position of the oldest segment's first byte. 0: its header cannot be read.
fn base_of(disk: &mut dyn Disk, meta: &Meta, catalog: &Catalog) -> Result<u64, JournalError> {
    let Some(segment) = catalog.segments.front() else { return Ok(0) };
    let scan = crate::journal::scan::SegmentScan::open(disk, meta.id, &segment.name(), segment.len)?;
    Ok(scan.map_or(0, |scan| {
        let base = scan.header.base;
        scan.close(disk);
        base
    }))
}

/// Forks the journal, and cuts it there.
///
/// The fork comes first. So no number is used twice in one epoch, even if the repair is interrupted.
///
/// # Errors
///
/// If a file cannot be written. It can be tried again.
pub fn repair(mut disk: Box<dyn Disk>, cut: &Cut, opening: &Opening) -> Result<(), JournalError> {
    let (mut meta, catalog) = load(&mut *disk)?;
    meta.fork(draw(&mut *disk)?, cut.cursor);
    meta.lock =
        disk.identity().map_err(|error| JournalError::io("cannot look at", "journal.lock", &error))?;
    meta.store(&mut *disk)?;
    for info in &cut.snapshots {
        remove(&mut *disk, &info.name())?;
    }
    let keep = cut.segment + usize::from(cut.offset > 0);
    for segment in catalog.segments.iter().skip(keep).rev() {
        remove(&mut *disk, &segment.name())?;
    }
    if cut.offset > 0
        && let Some(name) = catalog.segments.get(cut.segment).map(Segment::name)
    {
        recover::truncate(&mut *disk, &name, cut.offset)?;
    }
    disk.sync_folder().map_err(|error| JournalError::io("cannot sync", "the folder", &error))?;
    if cut.cursor == cut.from {
        return Ok(());
    }
    // A part of the first block that was cut off is below the number.
    let mut log = open(disk, opening, &mut |_| Ok(()))?.log;
    let mut block = vec![0; BLOCK_HEADER];
    block.extend(cut.kept.concat());
    log.append((block, BLOCK_HEADER), (cut.from, cut.cursor), cut.kept.len() as u64, opening.now)?;
    finish(log, Waiting::default(), opening)
}

fn remove(disk: &mut dyn Disk, name: &str) -> Result<(), JournalError> {
    disk.remove(name).map_err(|error| JournalError::io("cannot remove", name, &error))
}
