//! How many lines are read together.

#![forbid(unsafe_code)]

/// Lines that are put into the ring before the next look at its cursor.
pub(crate) const BATCH_LINES: usize = 256;
