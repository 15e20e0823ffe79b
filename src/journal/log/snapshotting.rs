//! How far the next snapshot of a running journal is.

use crate::{
    disk::{FileId, Ticket},
    journal::{
        catalog::Catalog,
        snapshot::{SnapshotInfo, SnapshotWriter},
    },
    time::Micros,
};

/// The progress of the next snapshot.
#[derive(Debug)]
pub(super) struct Snapshotting {
    /// The position of the last one's beginning.
    pub(super) last: u64,
    /// When it began. 0: before this start.
    pub(super) began: Micros,
    /// Bytes of the last one.
    pub(super) last_len: u64,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    Idle,
    /// Edges are handed over.
    Walking {
        writer: SnapshotWriter,
        file: FileId,
    },
    /// It is whole. It must become durable, and the journal up to `position`.
    Ending {
        info: SnapshotInfo,
        file: FileId,
        ticket: Option<Ticket>,
        position: u64,
    },
}

impl Snapshotting {
    pub(super) fn new(catalog: &Catalog, position: u64) -> Self {
        let newest = catalog.snapshots.last();
        // What came after the newest one counts: everything from the segment on that has its beginning.
        let behind = newest.and_then(|info| catalog.segment_of(info.from)).unwrap_or(0);
        let tail: u64 = catalog.segments.iter().skip(behind).map(|segment| segment.len).sum();
        let last_len = newest.map_or(0, |info| info.len);
        Self { last: position.saturating_sub(tail), began: 0, last_len, state: State::Idle }
    }
}
