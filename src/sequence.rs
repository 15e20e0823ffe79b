//! Sequence numbers, and cursors, which are the places between them (docs/SPEC.md sections 2, 8 and 10).
//!
//! Both have types of their own because user ids, times and lengths are integers as well. Inside the sequencer and the
//! loops of the engine they stay plain integers.

#![forbid(unsafe_code)]

use std::fmt;

/// The number of an event: any 64-bit number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct SequenceNumber(u64);

impl SequenceNumber {
    /// The highest number.
    pub const MAX: Self = Self(u64::MAX);

    /// The sequence number with this value.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its value.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place between two events: the number of the next event. It goes up to 2^64, the place behind the highest number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Cursor(u128);

impl Cursor {
    /// The place before number 0.
    pub const START: Self = Self(0);
    /// The place behind the highest number.
    pub const END: Self = Self(1 << 64);

    /// The place with this next number. Whoever reads one from outside checks that it is not above [`Cursor::END`].
    #[inline(always)]
    #[must_use]
    pub const fn new(next: u128) -> Self {
        Self(next)
    }

    /// The place before the event with this number.
    #[inline(always)]
    #[must_use]
    pub const fn before(number: SequenceNumber) -> Self {
        Self(number.0 as u128)
    }

    /// The place behind the event with this number.
    #[inline(always)]
    #[must_use]
    pub const fn behind(number: SequenceNumber) -> Self {
        Self(number.0 as u128 + 1)
    }

    /// The next number, from 0 to 2^64.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The number of the next event. `None`: there is no number behind this place.
    #[must_use]
    pub fn number(self) -> Option<SequenceNumber> {
        u64::try_from(self.0).ok().map(SequenceNumber)
    }

    /// How many numbers lie between an earlier place and this one. 0 if the other place is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u128 {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads a place: digits only, at least one, leading zeros allowed, at most 2^64.
    #[must_use]
    pub fn parse(digits: &[u8]) -> Option<Self> {
        if digits.is_empty() {
            return None;
        }
        digits
            .iter()
            .try_fold(0u128, |next, digit| {
                let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
                Some(next * 10 + u128::from(digit)).filter(|&next| next <= Self::END.0)
            })
            .map(Self)
    }
}

impl log::kv::ToValue for Cursor {
    fn to_value(&self) -> log::kv::Value<'_> {
        self.0.to_value()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_behind_the_highest_number_is_the_last_one() {
        let highest = SequenceNumber::MAX;
        assert_eq!(Cursor::behind(highest), Cursor::END);
        assert_eq!(Cursor::END.number(), None);
        assert_eq!(Cursor::before(highest).number(), Some(highest));
        assert_eq!(Cursor::behind(SequenceNumber::new(4)), Cursor::before(SequenceNumber::new(5)));
        assert_eq!((Cursor::new(9).since(Cursor::new(4)), Cursor::new(4).since(Cursor::new(9))), (5, 0));
    }

    #[test]
    fn the_written_form_is_read() {
        for (digits, cursor) in [
            ("0", Some(0)),
            ("00000000000000000000017", Some(17)),
            ("18446744073709551616", Some(1 << 64)),
            ("18446744073709551617", None),
            ("99999999999999999999999999999999999999999999", None),
            ("", None),
            ("+1", None),
            ("1 ", None),
        ] {
            assert_eq!(Cursor::parse(digits.as_bytes()), cursor.map(Cursor::new), "{digits:?}");
        }
    }
}
