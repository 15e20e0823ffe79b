//! Whether a figure stayed as it was.
//!
//! The second quarter of the run is compared with the last one: the first is warm-up. Medians, so that one odd look at the
//! server decides nothing.

use serde::Serialize;

use crate::report::Sample;

/// How much more the last quarter may have than the second.
const GROWTH_MAX: f64 = 0.05;

/// One figure in the second and in the last quarter of the run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Trend {
    /// What it is.
    pub name: &'static str,
    /// Median of the second quarter.
    pub second_quarter: f64,
    /// Median of the last quarter.
    pub last_quarter: f64,
}

impl Trend {
    /// The trend of a figure over samples in the order of time. `None` if there are too few to tell.
    pub(super) fn of(name: &'static str, samples: &[Sample], pick: impl Fn(&Sample) -> f64) -> Option<Trend> {
        let (first, last) = (samples.first()?.seconds, samples.last()?.seconds);
        let quarter = |number: f64| {
            let from = first + (last - first) * number / 4.0;
            let within = samples.iter().filter(|sample| {
                sample.seconds >= from && (number > 2.5 || sample.seconds < from + (last - first) / 4.0)
            });
            median(within.map(&pick).collect())
        };
        Some(Trend { name, second_quarter: quarter(1.0)?, last_quarter: quarter(3.0)? })
    }

    /// How much more there was at the end, as a share: 0.01 is one in a hundred.
    pub(super) fn growth(&self) -> f64 {
        if self.second_quarter > 0.0 { self.last_quarter / self.second_quarter - 1.0 } else { 0.0 }
    }

    /// Whether it stayed as it was.
    pub(super) fn is_flat(&self) -> bool {
        self.growth() <= GROWTH_MAX
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

    fn trend(memory: impl Fn(u64) -> u64) -> Trend {
        Trend::of("memory", &samples(memory), |sample| sample.resident_bytes as f64).unwrap()
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
            Trend::of("descriptors", &samples(|_| 1), |sample| sample.descriptors as f64).unwrap();
        assert!(descriptors.is_flat() && descriptors.last_quarter == 101.0);
    }

    #[test]
    fn too_few_samples_are_no_trend() {
        let few = samples(|_| 1);
        assert!(Trend::of("memory", &few[..0], |_| 1.0).is_none());
        assert!(Trend::of("memory", &few[..2], |_| 1.0).is_none());
    }
}
