//! Whether a figure stayed as it was.
//!
//! What comes first is warm-up: buffers and tables grow to what the load needs. The third of the time that follows is
//! compared with the last third. Medians, so that one odd look at the server decides nothing. A small server grows by
//! a large share when its allocator takes one more piece from the system, so a growth that is small in itself counts
//! as none.

use serde::Serialize;

use crate::report::Sample;

/// How much more there may be at the end, as a share.
const GROWTH_MAX: f64 = 0.05;
/// Warm-up, as a share of the time.
const WARM_UP_SHARE: f64 = 0.25;
/// Warm-up is at least this long in seconds, where half of the time is.
const WARM_UP_SECONDS: f64 = 30.0;

/// One figure after the warm-up and at the end.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Trend {
    /// What it is.
    pub name: &'static str,
    /// Median of the first third after the warm-up.
    pub after_warm_up: f64,
    /// Median of the last third.
    pub at_the_end: f64,
    /// How much more at the end counts as none, whatever share that is.
    pub allowance: f64,
}

impl Trend {
    /// The trend of a figure over samples in the order of time. `None` if there are too few to tell.
    pub(super) fn of(
        name: &'static str,
        allowance: f64,
        samples: &[Sample],
        pick: impl Fn(&Sample) -> f64,
    ) -> Option<Trend> {
        let (first, last) = (samples.first()?.seconds, samples.last()?.seconds);
        let time = last - first;
        let warm_up = (time * WARM_UP_SHARE).max(WARM_UP_SECONDS.min(time / 2.0));
        let third = (time - warm_up) / 3.0;
        let between = |from: f64, to: f64| {
            let within = samples.iter().filter(|sample| (from..to).contains(&sample.seconds));
            median(within.map(&pick).collect())
        };
        let begin = first + warm_up;
        let after_warm_up = between(begin, begin + third)?;
        let at_the_end = between(last - third, f64::INFINITY)?;
        Some(Trend { name, after_warm_up, at_the_end, allowance })
    }

    /// How much more there was at the end, as a share: 0.01 is one in a hundred.
    pub(super) fn growth(&self) -> f64 {
        if self.after_warm_up > 0.0 { self.at_the_end / self.after_warm_up - 1.0 } else { 0.0 }
    }

    /// Whether it stayed as it was.
    pub(super) fn is_flat(&self) -> bool {
        self.growth() <= GROWTH_MAX || self.at_the_end - self.after_warm_up <= self.allowance
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(memory: impl Fn(u64) -> u64) -> Vec<Sample> {
        let one = |second| Sample {
            seconds: second as f64,
            events: 0,
            resident_bytes: memory(second),
            descriptors: 100 + second % 3,
        };
        (0..600).map(one).collect()
    }

    const MIB: u64 = 1 << 20;

    fn trend(memory: impl Fn(u64) -> u64) -> Trend {
        let allowance = 2.0 * MIB as f64;
        Trend::of("memory", allowance, &samples(memory), |sample| sample.resident_bytes as f64).unwrap()
    }

    #[test]
    fn a_leak_is_not_flat() {
        let leak = trend(|second| 30_000_000 + 10_000 * second);
        assert!(!leak.is_flat(), "{leak:?}");
        assert!((0.08..0.12).contains(&leak.growth()), "{leak:?}");
    }

    #[test]
    fn warm_up_noise_and_shrinking_are_flat() {
        assert!(trend(|second| 30_000_000 - 20_000_000 / (second + 1)).is_flat());
        assert!(trend(|second| if second % 10 == 0 { 90_000_000 } else { 30_000_000 }).is_flat());
        assert!(trend(|second| 30_000_000 - 10_000 * second).is_flat());
        let descriptors =
            Trend::of("descriptors", 0.0, &samples(|_| 1), |sample| sample.descriptors as f64).unwrap();
        assert!(descriptors.is_flat() && descriptors.at_the_end == 101.0);
    }

    #[test]
    fn one_more_piece_of_memory_is_flat_and_two_leaks_are_not() {
        let step = |bytes: u64| trend(move |second| 6 * MIB + if second > 400 { bytes } else { 0 });
        assert!(step(MIB).is_flat(), "a sixth more, but a megabyte");
        assert!(!step(3 * MIB).is_flat());
    }

    #[test]
    fn a_minute_warms_up_for_half_of_it() {
        let minute = |warm: u64| {
            let samples: Vec<Sample> = samples(|second| if second < warm { MIB } else { 100 * MIB });
            Trend::of("memory", 0.0, &samples[..60], |sample| sample.resident_bytes as f64).unwrap()
        };
        assert!(minute(29).is_flat());
        assert!(!minute(45).is_flat());
    }

    #[test]
    fn too_few_samples_are_no_trend() {
        let few = samples(|_| 1);
        assert!(Trend::of("memory", 0.0, &few[..0], |_| 1.0).is_none());
        assert!(Trend::of("memory", 0.0, &few[..2], |_| 1.0).is_none());
    }
}
