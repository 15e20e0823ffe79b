//! How long things take, counted into buckets (histograms in Prometheus' sense).
//!
//! Times are observed in groups that share one: events that were read together, a turn. So the clock is read a few
//! times a turn, whatever the number of events.

use crate::time::{MILLISECOND, Micros, SECOND};

/// The upper bounds of the buckets, each included, in microseconds; there is one more bucket for what took longer.
pub(crate) const BOUNDS: [Micros; 19] = [
    10,
    20,
    50,
    100,
    200,
    500,
    MILLISECOND,
    2 * MILLISECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    20 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    200 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
];

/// How often what took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    /// Of all times.
    sum: u64,
}

impl Histogram {
    /// Counts `time`, `times` times.
    pub fn observe(&mut self, time: Micros, times: u64) {
        self.counts[BOUNDS.partition_point(|&bound| bound < time)] += times;
        self.sum = self.sum.saturating_add(time.saturating_mul(times));
    }

    /// For each bucket, those of shorter times not included, how often that was; the last one has no bound.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How often in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time that the share `part` of all did not take longer than, between the bounds of its bucket by its place in it.
    /// `before`: what had been observed earlier does not count. `None`: there is nothing else.
    #[must_use]
    pub fn quantile(&self, part: f64, before: &Self) -> Option<Micros> {
        quantile(&self.counts, &before.counts, part)
    }

    /// All times together.
    #[must_use]
    pub fn sum(&self) -> Micros {
        self.sum
    }
}

/// The same of the counts alone, as they are told to operators. `before` may be empty.
#[must_use]
pub(crate) fn quantile(counts: &[u64], before: &[u64], part: f64) -> Option<Micros> {
    let before = before.iter().copied().chain(std::iter::repeat(0));
    let counts = counts.iter().zip(before).map(|(now, before)| now.saturating_sub(before));
    let wanted = counts.clone().sum::<u64>() as f64 * part;
    let (mut below, mut lower) = (0, 0);
    for (bucket, count) in counts.enumerate() {
        let upper = BOUNDS.get(bucket).copied().unwrap_or(2 * BOUNDS[BOUNDS.len() - 1]);
        if count > 0 && (below + count) as f64 >= wanted {
            let place = ((wanted - below as f64) / count as f64).clamp(0.0, 1.0);
            return Some(lower + (upper.saturating_sub(lower) as f64 * place) as Micros);
        }
        (below, lower) = (below + count, upper);
    }
    None
}

/// What operators are told of delays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// From the read that an event came with to its being handed to its users' sockets, for each event released.
    pub delivery: Histogram,
    /// For events that had to wait for missing ones: from the read that an event came with to its being released.
    pub reorder: Histogram,
    /// Turns of the loop, without the time in which it waited for something to do.
    pub turn: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_goes_into_the_first_bucket_that_has_room_for_it() {
        let mut histogram = Histogram::default();
        for (time, times) in [(0, 3), (10, 1), (11, 1), (10 * SECOND, 1), (10 * SECOND + 1, 2)] {
            histogram.observe(time, times);
        }
        assert_eq!(histogram.counts()[..2], [4, 1]);
        assert_eq!(histogram.counts()[18..], [1, 2]);
        assert_eq!((histogram.count(), histogram.sum()), (8, 21 + 30 * SECOND + 2));
    }

    #[test]
    fn a_quantile_is_between_the_bounds_of_its_bucket() {
        let (mut histogram, nothing) = (Histogram::default(), Histogram::default());
        assert_eq!(histogram.quantile(0.5, &nothing), None);
        histogram.observe(15, 50);
        histogram.observe(1500, 50);
        assert_eq!(histogram.quantile(0.5, &nothing), Some(20));
        assert_eq!(histogram.quantile(0.99, &nothing), Some(1980));
        let before = histogram.clone();
        assert_eq!(histogram.quantile(0.99, &before), None);
        histogram.observe(8, 1);
        assert_eq!(histogram.quantile(0.99, &before), Some(9));
        histogram.observe(60 * SECOND, 1000);
        assert_eq!(histogram.quantile(1.0, &before), Some(20 * SECOND));
    }
}
