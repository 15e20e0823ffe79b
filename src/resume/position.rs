//! Positions: the next number that is wanted.

/// The position behind the last number.
pub const POSITION_MAX: u128 = 1 << 64;
