//! Time as a number.

/// Microseconds: a duration, or a point in time since an arbitrary start. Nothing below the reactor reads
/// a clock; the time of a turn is passed in.
pub type Micros = u64;

/// Microseconds in a millisecond, the unit of the options.
pub const MILLISECOND: Micros = 1000;
/// Microseconds in a second.
pub const SECOND: Micros = 1_000_000;
