//! What of a running journal is not durable yet: the sync on its way, and the segments that wait for theirs.

use crate::{
    disk::{FileId, Ticket},
    sequence::Cursor,
    time::Micros,
};

/// Complete segments that are open because they are not durable yet. If there are half as many, they are synced before it is time. If
/// there are so many, the next segment waits for a sync.
pub(super) const UNSYNCED_MAX: usize = 8;

/// A sync on its way.
#[derive(Debug)]
pub(super) struct Syncing {
    pub(super) ticket: Ticket,
    pub(super) file: FileId,
    pub(super) began: Micros,
    /// The position that is durable when it is complete.
    pub(super) position: u64,
    pub(super) cursor: Cursor,
    /// The file is complete: nothing more is written to it.
    pub(super) is_closing: bool,
}

/// A segment that is complete, and not durable yet.
#[derive(Debug)]
pub(super) struct Unsynced {
    /// `None`: it has been closed, because nobody relies on its syncs (`journalSync=never`). Elsewhere it stays open: a file that is opened
    /// again does not tell of every failed write.
    pub(super) file: Option<FileId>,
    /// The cursor that its name says.
    pub(super) first: Cursor,
    /// The position and the cursor behind it.
    pub(super) position: u64,
    pub(super) cursor: Cursor,
}
