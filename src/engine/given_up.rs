//! The numbers that were given up, for counters and log.

#![forbid(unsafe_code)]

use smallvec::SmallVec;
use std::fmt;

/// Ranges that are kept by their numbers. Of further ones only the count is known.
const RANGES_MAX: usize = 4;

/// Numbers that were given up since somebody last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// How many numbers.
    pub numbers: u64,
    /// The first ranges of them, from the first number to the last one.
    pub ranges: SmallVec<[(u64, u64); RANGES_MAX]>,
    /// How many ranges there are besides.
    pub more_ranges: u64,
    /// Behind the last number; the next one continues its range.
    end: Option<u64>,
}

impl GivenUp {
    /// Adds the numbers from `first` to `last`, all above those so far.
    pub(crate) fn add(&mut self, first: u64, last: u64) {
        self.numbers = self.numbers.saturating_add((last - first).saturating_add(1));
        let continues = self.end == Some(first);
        self.end = last.checked_add(1);
        if continues {
            if self.more_ranges == 0
                && let Some((_, end)) = self.ranges.last_mut()
            {
                *end = last;
            }
        } else if self.ranges.len() < RANGES_MAX {
            self.ranges.push((first, last));
        } else {
            self.more_ranges += 1;
        }
    }
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.ranges.iter().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            if first == last {
                write!(f, "{separator}{first}")?;
            } else {
                write!(f, "{separator}{first}-{last}")?;
            }
        }
        match self.more_ranges {
            0 => Ok(()),
            1 => f.write_str(" and 1 more range"),
            more => write!(f, " and {more} more ranges"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ranges_are_named_and_the_others_counted() {
        let mut given_up = GivenUp::default();
        assert_eq!(given_up.to_string(), "");
        for (first, last) in [(5, 5), (7, 8), (9, 9), (12, 12), (14, 20)] {
            given_up.add(first, last);
        }
        assert_eq!(given_up.to_string(), "5, 7-9, 12, 14-20");
        given_up.add(30, 30);
        given_up.add(31, 31);
        assert_eq!(given_up.to_string(), "5, 7-9, 12, 14-20 and 1 more range");
        given_up.add(u64::MAX, u64::MAX);
        assert_eq!(given_up.to_string(), "5, 7-9, 12, 14-20 and 2 more ranges");
        assert_eq!(given_up.numbers, 15);
    }

    #[test]
    fn all_numbers_can_be_given_up() {
        let mut given_up = GivenUp::default();
        given_up.add(0, u64::MAX);
        assert_eq!((given_up.numbers, given_up.to_string().as_str()), (u64::MAX, "0-18446744073709551615"));
    }
}
