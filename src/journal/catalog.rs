//! The catalog of segments and snapshots. It knows which of them are still needed.

#![forbid(unsafe_code)]

use super::{
    JournalError, segment,
    snapshot::{self, SnapshotInfo},
};
use crate::disk::Disk;
use crate::sequence::Cursor;
use std::collections::VecDeque;

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The cursor before its first block.
    pub(crate) first: Cursor,
    /// Bytes of the file.
    pub(crate) len: u64,
    /// When its last block was made, in milliseconds since 1970. 0: not known.
    pub(crate) time_ms: u64,
}

impl Segment {
    pub(crate) fn name(&self) -> String {
        segment::segment_name(self.first)
    }
}

/// The start of a replay that makes the state of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The edges to begin with. `None`: none.
    pub snapshot: Option<SnapshotInfo>,
    /// The first cursor of the blocks to replay.
    pub from: Cursor,
}

/// The files of a journal, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) snapshots: Vec<SnapshotInfo>,
    /// Some of them have turned out to be damaged, or could not be read.
    pub(crate) distrusted: Vec<SnapshotInfo>,
    /// The graph is empty before the first segment.
    pub(crate) has_origin: bool,
    /// Files that an earlier process has left behind, and nobody needs.
    pub(crate) leftovers: Vec<String>,
    /// A segment that has gone, and is written over by the next one.
    pub(crate) spare: Option<Spare>,
}

/// See [`segment::SPARE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spare {
    /// Bytes of the file.
    pub(crate) len: u64,
    /// Its name is: the old one cannot come back.
    pub(crate) is_durable: bool,
}

impl Catalog {
    /// Lists the folder. Whether the first segment is the origin must be read from its header.
    pub(crate) fn list(disk: &mut dyn Disk) -> Result<Self, JournalError> {
        let names = disk.names().map_err(|error| JournalError::io("cannot list", "the folder", &error))?;
        let mut catalog = Self::default();
        for (name, len) in names {
            if let Some(first) = segment::parse_segment_name(&name) {
                catalog.segments.push_back(Segment { first, len, time_ms: 0 });
            } else if let Some(info) = SnapshotInfo::parse(&name, len) {
                catalog.snapshots.push(info);
            } else if name == segment::SPARE || name == snapshot::TEMPORARY {
                catalog.leftovers.push(name);
            }
        }
        catalog.segments.make_contiguous().sort_by_key(|segment| segment.first);
        catalog.snapshots.sort_by_key(|info| (info.to, info.from));
        Ok(catalog)
    }

    /// The journal was founded at this cursor. Files below it are the rest of an older journal.
    pub(crate) fn leave_below(&mut self, base: Cursor) {
        let old = self.segments.iter().filter(|segment| segment.first < base).map(Segment::name);
        self.leftovers.extend(old);
        let old = self.snapshots.iter().filter(|info| info.from < base).map(SnapshotInfo::name);
        self.leftovers.extend(old);
        self.segments.retain(|segment| segment.first >= base);
        self.snapshots.retain(|info| info.from >= base);
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(|segment| segment.len).sum();
        segments + self.snapshots.iter().map(|snapshot| snapshot.len).sum::<u64>()
    }

    /// The cursor before the oldest block.
    fn oldest(&self) -> Cursor {
        self.segments.front().map_or(Cursor::START, |segment| segment.first)
    }

    /// Snapshots that nothing is known against, the oldest first.
    fn usable(&self) -> impl DoubleEndedIterator<Item = &SnapshotInfo> {
        self.snapshots.iter().filter(|info| !self.distrusted.contains(info))
    }

    /// Where to begin for a place. `None`: that is not kept any more.
    pub(crate) fn start_for(&self, next: Cursor) -> Option<Start> {
        let oldest = self.oldest();
        let fits = |info: &&SnapshotInfo| info.to <= next && info.from >= oldest;
        match self.usable().rev().find(fits) {
            Some(&info) => Some(Start { snapshot: Some(info), from: info.from }),
            None => (self.has_origin && next >= oldest).then_some(Start { snapshot: None, from: oldest }),
        }
    }

    /// The lowest place that something can be begun for.
    pub(crate) fn first(&self) -> Option<Cursor> {
        let oldest = self.oldest();
        if self.has_origin {
            return Some(oldest);
        }
        self.usable().find(|info| info.from >= oldest).map(|info| info.to)
    }

    /// The index of the segment that has the block at a cursor.
    pub(crate) fn segment_of(&self, cursor: Cursor) -> Option<usize> {
        self.segments.partition_point(|segment| segment.first <= cursor).checked_sub(1)
    }

    /// The oldest file that the next start does not need: a segment, or a snapshot that is older than what is left of the segments.
    pub(crate) fn oldest_unneeded(&self) -> Option<Unneeded> {
        let oldest = self.oldest();
        if let Some(index) = self.snapshots.iter().position(|info| info.from < oldest) {
            return (self.snapshots.len() > 1).then_some(Unneeded::Snapshot(index));
        }
        let newest = self.usable().next_back()?;
        let behind = self.segments.get(1);
        if behind.is_some_and(|behind| behind.first <= newest.from) {
            return Some(Unneeded::Segment);
        }
        self.snapshots.iter().position(|info| info != newest).map(Unneeded::Snapshot)
    }
}

/// The files that may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unneeded {
    /// The oldest segment.
    Segment,
    /// The snapshot of this index.
    Snapshot(usize),
}
