//! How a journal is kept, and how it is opened.

#![forbid(unsafe_code)]

use crate::{epoch::Epoch, sequence::Cursor, time::Micros};

/// When appended events are made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// Before anybody is sent it.
    Always,
    /// Every [`Settings::interval`].
    #[default]
    Interval,
    /// When the operating system sees fit.
    Never,
}

/// How a journal is kept: the options of docs/SPEC.md section 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When appended events are made durable.
    pub sync: SyncMode,
    /// How often, with [`SyncMode::Interval`].
    pub interval: Micros,
    /// Bytes of a segment. One block is never split, so a segment may be longer.
    pub segment_bytes: u64,
    /// Bytes that are kept.
    pub retention_bytes: u64,
    /// How long blocks are kept, in milliseconds.
    pub retention_ms: Option<u64>,
    /// However little is kept, no snapshot is made before so many bytes of blocks. Usually [`Settings::SNAPSHOT_BYTES_LEAST`].
    pub snapshot_bytes_least: u64,
}

impl Settings {
    /// See [`Settings::snapshot_bytes_least`].
    pub const SNAPSHOT_BYTES_LEAST: u64 = 64 << 10;
}

/// The settings to open a journal with.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// How it is kept.
    pub settings: Settings,
    /// The first number of an empty journal.
    pub first_sequence: Cursor,
    /// The epoch of a new journal. `None`: drawn at random.
    pub epoch: Option<Epoch>,
    /// The time.
    pub now: Micros,
}
