//! The last minutes, so that the status page's charts begin full.
//!
//! It needs no timer: a sample is taken when the loop turns and the last sample is old enough. While the loop does not
//! turn, nothing happens. Two samples with the same counts, one at each end, then stand for the silence.

use super::json::or_null;
use crate::time::{Micros, SECOND};
use std::{collections::VecDeque, fmt::Write};

/// Least time between two samples.
const INTERVAL: Micros = SECOND;
/// Time that is kept.
const KEPT: Micros = 300 * SECOND;

/// Counts at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Since the start.
    pub at: Micros,
    /// Events released until then.
    pub released: u64,
    /// Deliveries until then.
    pub deliveries: u64,
    /// Time until events were handed to their users, since the sample before: half of them took no longer.
    pub median: Option<Micros>,
    /// The same for 99 of 100.
    pub p99: Option<Micros>,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct History {
    samples: VecDeque<Sample>,
    next_at: Micros,
}

impl History {
    /// The history of a server that has begun at `now`, or one that stays empty.
    #[must_use]
    pub fn new(enabled: bool, now: Micros) -> Self {
        Self { samples: VecDeque::new(), next_at: if enabled { now } else { Micros::MAX } }
    }

    /// Whether [`History::record`] has something to do.
    #[must_use]
    pub fn is_due(&self, now: Micros) -> bool {
        now >= self.next_at
    }

    /// Takes a sample. The counts have been the same since `before`.
    pub fn record(&mut self, before: Micros, sample: Sample) {
        if let Some(last) = self.samples.back()
            && sample.at - before > INTERVAL / 2
            && before > last.at
        {
            self.samples.push_back(Sample { at: before, median: None, p99: None, ..sample });
        }
        self.samples.push_back(sample);
        while self.samples.get(1).is_some_and(|second| second.at + KEPT <= sample.at) {
            self.samples.pop_front();
        }
        self.next_at = sample.at + INTERVAL;
    }

    /// `[[microseconds, released, deliveries, median, p99], …]`, oldest first.
    #[must_use]
    pub fn json(&self) -> String {
        let mut json = String::from("[");
        for Sample { at, released, deliveries, median, p99 } in &self.samples {
            let (median, p99) = (or_null(*median), or_null(*p99));
            let comma = if json.len() == 1 { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(json, "{comma}[{at},{released},{deliveries},{median},{p99}]");
        }
        json + "]\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Micros, released: u64) -> Sample {
        Sample { at, released, deliveries: 2 * released, median: Some(20), p99: Some(70) }
    }

    #[test]
    fn a_silence_has_two_ends() {
        let mut history = History::new(true, 0);
        assert!(history.is_due(0));
        history.record(0, sample(0, 0));
        assert!(!history.is_due(SECOND - 1));
        history.record(SECOND - 50, sample(SECOND, 10));
        history.record(SECOND + 400, sample(60 * SECOND, 15));
        assert_eq!(
            history.json(),
            "[[0,0,0,20,70],[1000000,10,20,20,70],[1000400,15,30,null,null],[60000000,15,30,20,70]]\n"
        );
    }

    #[test]
    fn it_covers_five_minutes_and_no_more() {
        let mut history = History::new(true, 0);
        for second in 0..2000 {
            history.record(second * SECOND, sample(second * SECOND, second));
        }
        assert_eq!(history.samples.len(), 301);
        assert_eq!(history.samples[0].at + KEPT, 1999 * SECOND);
        history.record(1999 * SECOND, sample(9999 * SECOND, 2000));
        assert_eq!(history.samples.len(), 2, "what is older than five minutes is only where the line begins");
    }

    #[test]
    fn it_can_be_off() {
        assert!(!History::new(false, 0).is_due(1 << 60));
    }
}
