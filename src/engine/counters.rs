//! The counters of the engine.

#![forbid(unsafe_code)]

use super::event::Reject;

/// Everything that an engine counts. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineCounters {
    /// Event lines read.
    pub events_received: u64,
    /// Events released, by [`Kind`](super::event::Kind) as a number.
    pub events_released: [u64; 8],
    /// Dropped: below the cursor.
    pub events_late: u64,
    /// Dropped: already waiting.
    pub events_duplicate: u64,
    /// Lines that were no events, by [`Reject`] as a number.
    pub events_rejected: [u64; Reject::ALL.len()],
    /// Numbers given up.
    pub sequence_skipped: u64,
    /// Events handed out to users.
    pub deliveries: u64,
}

impl EngineCounters {
    /// Events released, of all types.
    #[must_use]
    pub fn events_released_total(&self) -> u64 {
        self.events_released[1..6].iter().sum()
    }
}
