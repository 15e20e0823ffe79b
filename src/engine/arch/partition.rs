//! A run of events, partitioned by the effect of each event.

#![forbid(unsafe_code)]

/// Most events of a run.
pub(crate) const RUN: usize = 256;

/// The parts of a run: places of its events, in order. There is room for the excess of a vector write.
#[derive(Debug)]
pub(crate) struct Partition {
    /// Events that change an edge.
    pub(crate) edges: [u32; RUN + 16],
    pub(crate) edge_count: usize,
    /// Events that some user receives.
    pub(crate) due: [u32; RUN + 16],
    /// The slot of the recipient of each of those events, if it has one recipient.
    pub(crate) targets: [u32; RUN + 16],
    pub(crate) due_count: usize,
    /// Events by kind.
    pub(crate) kinds: [u64; 8],
}

impl Partition {
    pub(crate) const EMPTY: Self = Self {
        edges: [0; RUN + 16],
        edge_count: 0,
        due: [0; RUN + 16],
        targets: [0; RUN + 16],
        due_count: 0,
        kinds: [0; 8],
    };
}
