//! What is known about lines that are read column by column.

#![forbid(unsafe_code)]

/// Lines that are read side by side: with more, their columns don't stay in the first-level cache.
pub(super) const SPAN: usize = 32;

pub(super) type Column<T> = [T; SPAN];

/// What is known about the lines of a span.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    /// Bit *i*: byte *i* of the line is one of these.
    pub(super) separators: Column<u32>,
    pub(super) digits: Column<u32>,
    pub(super) returns: Column<u32>,
    /// Where the number, the first id, and the last field end.
    pub(super) first: Column<u32>,
    pub(super) from_end: Column<u32>,
    pub(super) end: Column<u32>,
    /// How many digits these fields have, of a sequence number the last eight. What is above 8 belongs to no field.
    pub(super) seq_len: Column<u32>,
    pub(super) from_len: Column<u32>,
    pub(super) to_len: Column<u32>,
    /// A bit for each id, as in the upper half of [`SHAPE`](crate::engine::arch::scan::SHAPE).
    pub(super) ids: Column<u32>,
    /// Not zero: this is no ordinary line.
    pub(super) misfit: Column<u32>,
    /// As [`SHAPE`](crate::engine::arch::scan::SHAPE) has it.
    pub(super) shape: Column<u32>,
    /// The eight bytes in front of each of those ends.
    pub(super) seq_bytes: Column<u64>,
    pub(super) from_bytes: Column<u64>,
    pub(super) to_bytes: Column<u64>,
}
