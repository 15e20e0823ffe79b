//! Walks over all blocks from a segment on, in order, and says how that ended: at the end, in a torn tail, or at damage.

#![forbid(unsafe_code)]

use super::{
    JournalError,
    block::Header,
    catalog::Segment,
    meta::JournalId,
    scan::{Chain, SegmentScan, Step},
    segment::Room,
};
use crate::disk::Disk;
use crate::sequence::Cursor;

/// The place of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The file.
    pub(crate) file: &'a str,
    /// The block's offset in it.
    pub(crate) offset: u64,
}

/// Bytes that do not continue the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    /// The segment, by its index, and the offset in it.
    pub(crate) segment: usize,
    pub(crate) offset: u64,
    /// The position of the first bad byte.
    pub(crate) position: u64,
    /// What there may be in place of a block.
    pub(crate) room: Room,
}

/// How a walk ended.
#[derive(Clone, Debug)]
pub(crate) struct WalkEnd {
    /// The link of the chain that the next block must continue. `None`: not one segment could be read.
    pub(crate) chain: Option<Chain>,
    /// The highest mark of all that could be read.
    pub(crate) mark: u64,
    pub(crate) bad: Option<Bad>,
    /// Bytes that were read.
    pub(crate) bytes: u64,
}

impl WalkEnd {
    /// The position at which the walk ended is below a mark: what stood there was durable.
    pub(crate) fn is_damaged(&self) -> bool {
        let end = self.chain.map_or(0, |chain| chain.position);
        self.bad.as_ref().map_or(end, |bad| bad.position) < self.mark
    }
}

/// Is shown every block: its header, its payload, and where it stands.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&Header, &[u8], Place<'_>) -> Result<(), JournalError>;

/// Walks over the blocks of `segments[start..]`, and of one or more before it where its header cannot be read: only what comes before
/// says whether it should be there. `mark`: a position that is known to have been durable.
pub(crate) fn walk(
    disk: &mut dyn Disk,
    id: JournalId,
    segments: &mut [Segment],
    start: usize,
    mark: u64,
    visit: Visit<'_>,
) -> Result<WalkEnd, JournalError> {
    let mut end = WalkEnd { chain: None, mark, bad: None, bytes: 0 };
    let mut start = start;
    while start > 0 && !has_header(disk, id, &segments[start])? {
        start -= 1;
    }
    for (index, segment) in segments.iter_mut().enumerate().skip(start) {
        let name = segment.name();
        let scan = SegmentScan::open(disk, id, &name, segment.len)?;
        let Some(mut scan) = scan.filter(|scan| continues(scan, segment.first, end.chain)) else {
            let position = end.chain.map_or(0, |chain| chain.position);
            end.bad = Some(Bad { segment: index, offset: 0, position, room: Room::Absent });
            break;
        };
        end.mark = end.mark.max(scan.header.durable);
        let walked = walk_segment(disk, segment, &mut scan, &mut end, visit);
        if let Ok(false) = walked {
            let (offset, position) = (scan.offset, scan.chain.position);
            end.bad = Some(Bad { segment: index, offset, position, room: scan.header.room });
        }
        end.bytes += scan.offset;
        scan.close(disk);
        if !walked? {
            break;
        }
    }
    if let Some(bad) = &end.bad {
        for (index, segment) in segments.iter().enumerate().skip(bad.segment) {
            // One whose header is bad should have begun here.
            let base = bad.position - bad.offset.min(bad.position);
            let base = if index == bad.segment { Some(base) } else { None };
            end.mark = end.mark.max(highest_mark(disk, id, segment, base)?);
        }
        if end.is_damaged() && goes_on_meanwhile(disk, id, &segments[bad.segment], bad, end.chain)? {
            end.mark = bad.position;
        }
    }
    Ok(end)
}

/// Whether there is a block now where there was none: a server is writing to the room of this segment. Blocks behind that one may have
/// been seen, whose marks say that it was durable.
fn goes_on_meanwhile(
    disk: &mut dyn Disk,
    id: JournalId,
    segment: &Segment,
    bad: &Bad,
    chain: Option<Chain>,
) -> Result<bool, JournalError> {
    let Some(chain) = chain.filter(|_| bad.room != Room::Absent) else { return Ok(false) };
    let Some(mut scan) = SegmentScan::open(disk, id, &segment.name(), segment.len)? else { return Ok(false) };
    (scan.offset, scan.chain) = (bad.offset, chain);
    let step = scan.next(disk, true);
    scan.close(disk);
    Ok(matches!(step?, Step::Block(_)))
}

fn has_header(disk: &mut dyn Disk, id: JournalId, segment: &Segment) -> Result<bool, JournalError> {
    let scan = SegmentScan::open(disk, id, &segment.name(), segment.len)?;
    // One that has been recycled may still have its old one.
    Ok(scan.is_some_and(|scan| {
        let first = scan.header.first;
        scan.close(disk);
        first == segment.first
    }))
}

fn continues(scan: &SegmentScan, first: Cursor, chain: Option<Chain>) -> bool {
    let header = &scan.header;
    header.first == first
        && chain.is_none_or(|chain| {
            (header.first, header.base, header.previous) == (chain.cursor, chain.position, chain.previous)
        })
}

/// False: there is something that is no block.
fn walk_segment(
    disk: &mut dyn Disk,
    segment: &mut Segment,
    scan: &mut SegmentScan,
    end: &mut WalkEnd,
    visit: Visit<'_>,
) -> Result<bool, JournalError> {
    segment.time_ms = scan.header.time_ms;
    end.chain = Some(scan.chain);
    loop {
        let offset = scan.offset;
        match scan.next(disk, true)? {
            Step::Block(header) => {
                end.mark = end.mark.max(header.durable);
                end.chain = Some(scan.chain);
                segment.time_ms = header.time_ms;
                visit(&header, scan.payload(), Place { file: &scan.name, offset })?;
            }
            Step::End => return Ok(true),
            Step::Bad | Step::Later | Step::Part => return Ok(false),
        }
    }
}

/// The highest mark in a segment that does not continue the chain. `base`: where it should begin, if its header does not say.
fn highest_mark(
    disk: &mut dyn Disk,
    id: JournalId,
    segment: &Segment,
    base: Option<u64>,
) -> Result<u64, JournalError> {
    let name = segment.name();
    let scan = SegmentScan::open(disk, id, &name, segment.len)?;
    let mut scan = match (scan, base) {
        (Some(scan), None) => scan,
        (Some(scan), Some(_)) if scan.header.first == segment.first => scan,
        (Some(scan), Some(base)) => {
            // It was recycled, and its header did not come to be written.
            scan.close(disk);
            SegmentScan::open_without_header(disk, id, &name, segment.len, base)?
        }
        (None, Some(base)) => SegmentScan::open_without_header(disk, id, &name, segment.len, base)?,
        (None, None) => return Ok(0),
    };
    let mark = scan.highest_mark(disk);
    scan.close(disk);
    mark
}
