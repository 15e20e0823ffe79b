//! The random numbers that every run is made of.
//!
//! SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): a 64-bit
//! counter with a mixing function. It is written out here, and not taken from a crate, because the bytes of a
//! run are a promise: the same seed gives the same bytes with every version of this tool.

/// A stream of random numbers. Equal seeds and equal purposes give equal streams.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A stream for one `purpose` of a run. Different purposes are independent, so that turning an option on
    /// does not change what the others draw.
    pub fn new(seed: u64, purpose: u64) -> Rng {
        let mut rng = Rng { state: seed ^ purpose.wrapping_mul(0xD6E8_FEB8_6659_FD93) };
        rng.state = rng.next();
        rng
    }

    /// The next 64 random bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be zero. Multiply and shift: the bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True with a probability of `rate`.
    pub fn chance(&mut self, rate: f64) -> bool {
        rate > 0.0 && ((self.next() >> 11) as f64) * (1.0 / (1u64 << 53) as f64) < rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_numbers_of_the_published_generator() {
        // From the reference implementation, seed 1234567.
        let mut rng = Rng { state: 1_234_567 };
        assert_eq!(rng.next(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next(), 3_203_168_211_198_807_973);
        assert_eq!(rng.next(), 9_817_491_932_198_370_423);
    }

    #[test]
    fn purposes_are_independent_and_seeds_repeat() {
        let draw = |seed, purpose| {
            let mut rng = Rng::new(seed, purpose);
            (0..4).map(|_| rng.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(666, 1), draw(666, 1));
        assert_ne!(draw(666, 1), draw(666, 2));
        assert_ne!(draw(666, 1), draw(667, 1));
    }

    #[test]
    fn below_and_chance_keep_their_bounds() {
        let mut rng = Rng::new(1, 1);
        assert!((0..10_000).all(|_| rng.below(7) < 7));
        assert!((0..1000).all(|_| !rng.chance(0.0)));
        assert!((0..1000).all(|_| rng.chance(1.0)));
        let hits = (0..100_000).filter(|_| rng.chance(0.1)).count();
        assert!((9_000..11_000).contains(&hits), "{hits}");
    }
}
