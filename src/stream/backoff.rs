//! When to try again what has failed: after a pause that grows.

use crate::time::{MILLISECOND, Micros, SECOND};

/// The first pause.
pub(crate) const PAUSE_MIN: Micros = 50 * MILLISECOND;
/// The longest pause (`docs/SPEC.md` section 11).
const PAUSE_MAX: Micros = 5 * SECOND;

/// Pauses that double with every failure, up to five seconds.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Micros,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { pause: PAUSE_MIN }
    }
}

impl Backoff {
    /// It has failed: how long to wait before the next attempt.
    pub(crate) fn fail(&mut self) -> Micros {
        let pause = self.pause;
        self.pause = (2 * pause).min(PAUSE_MAX);
        pause
    }

    /// It has worked: the next pause is a short one again.
    pub(crate) fn succeed(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_seconds() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Micros> = (0..9).map(|_| backoff.fail() / MILLISECOND).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.succeed();
        assert_eq!(backoff.fail(), PAUSE_MIN);
    }
}
