//! The id of a user (docs/SPEC.md section 1).

#![forbid(unsafe_code)]

use std::fmt;

/// A user's id: any 64-bit number. It has a type of its own because sequence numbers are 64-bit numbers as well.
///
/// Inside the engine's kernels (`engine::arch`) ids stay plain numbers. There they are lanes of a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct UserId(u64);

impl UserId {
    /// The id with this number.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
