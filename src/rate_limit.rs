//! Keeps repeated warnings from flooding the log, and counts those that are left out.

/// Decides which of many equal log lines are written: a few at once, then one per interval. Counts the lines that are
/// left out in between.
///
/// Time is an argument, in microseconds of any clock that does not go back. Keep one limit per kind of warning.
///
/// ```
/// use fortnight::internals::rate_limit::RateLimit;
///
/// let mut limit = RateLimit::new(2, 1_000_000);
/// assert_eq!(limit.allow(0), Some(0));
/// assert_eq!(limit.allow(10), Some(0));
/// assert_eq!(limit.allow(20), None);
/// assert_eq!(limit.allow(30), None);
/// assert_eq!(limit.allow(1_000_000), Some(2), "two were left out before this one");
/// ```
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// How far ahead of the time `full_us` may run.
    allowance_us: u64,
    interval_us: u64,
    /// When the whole burst will be there again: each line moves it on by one interval.
    full_us: u64,
    left_out: u64,
}

impl RateLimit {
    /// `burst` lines at once (at least one), and one more for each `interval_us` that passes.
    #[must_use]
    pub const fn new(burst: u32, interval_us: u64) -> Self {
        let allowance_us = interval_us.saturating_mul(burst.saturating_sub(1) as u64);
        Self { allowance_us, interval_us, full_us: 0, left_out: 0 }
    }

    /// Whether a line may be written at `now_us`. If so: the number of lines left out since the last one that was
    /// written. If not, the line counts as left out.
    pub fn allow(&mut self, now_us: u64) -> Option<u64> {
        if self.room_us() > now_us {
            self.left_out += 1;
            return None;
        }
        self.full_us = self.full_us.max(now_us).saturating_add(self.interval_us);
        Some(std::mem::take(&mut self.left_out))
    }

    /// Counts lines that are left out.
    pub fn leave_out(&mut self, lines: u64) {
        self.left_out += lines;
    }

    /// The time from which a line may say how many were left out. `None`: none were, or it has been said. For warnings
    /// that have stopped meanwhile.
    #[must_use]
    pub fn due_us(&self) -> Option<u64> {
        (self.left_out > 0).then(|| self.room_us())
    }

    /// Takes the number of lines that were left out, if there are any and if a line about them may be written at
    /// `now_us`.
    pub fn overdue(&mut self, now_us: u64) -> Option<u64> {
        self.due_us().filter(|&at| at <= now_us).and_then(|_| self.allow(now_us))
    }

    /// From when on another line may be written.
    fn room_us(&self) -> u64 {
        self.full_us.saturating_sub(self.allowance_us)
    }
}

impl Default for RateLimit {
    /// Five at once, then one a second.
    fn default() -> Self {
        Self::new(5, 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::RateLimit;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_burst_then_one_per_interval_with_the_count() {
        let mut limit = RateLimit::default();
        let start = 7 * SECOND;
        let told: Vec<_> = (0..8).map(|_| limit.allow(start)).collect();
        assert_eq!(told, [Some(0), Some(0), Some(0), Some(0), Some(0), None, None, None]);
        assert_eq!(limit.allow(start + SECOND - 1), None);
        assert_eq!(limit.allow(start + SECOND), Some(4));
        assert_eq!(limit.allow(start + SECOND), None);
        assert_eq!(limit.allow(start + 2 * SECOND), Some(1));
    }

    #[test]
    fn after_a_quiet_time_the_whole_burst_is_there_again_and_no_more() {
        let mut limit = RateLimit::new(3, SECOND);
        for start in [0, 100 * SECOND, 200 * SECOND] {
            let allowed = (0..10).filter(|_| limit.allow(start).is_some()).count();
            assert_eq!(allowed, 3);
        }
    }

    #[test]
    fn every_line_is_either_written_or_counted() {
        let mut limit = RateLimit::new(4, 1000);
        let (mut written, mut counted) = (0, 0);
        for now in (0..100_000).step_by(37) {
            if let Some(left_out) = limit.allow(now) {
                written += 1;
                counted += left_out;
            }
        }
        let overdue = limit.overdue(200_000).unwrap_or(0);
        assert_eq!(written + counted + overdue, 100_000_u64.div_ceil(37));
        assert!((100..=104).contains(&written), "{written}");
    }

    #[test]
    fn what_was_left_out_last_is_told_once_and_when_there_is_room() {
        let mut limit = RateLimit::new(1, SECOND);
        assert_eq!(limit.overdue(0), None);
        assert_eq!((limit.allow(0), limit.allow(1), limit.allow(2)), (Some(0), None, None));
        assert_eq!(limit.overdue(3), None);
        assert_eq!(limit.overdue(SECOND), Some(2));
        assert_eq!(limit.overdue(9 * SECOND), None);
    }

    #[test]
    fn extreme_times_and_settings_do_not_overflow() {
        let mut limit = RateLimit::new(u32::MAX, u64::MAX);
        assert_eq!(limit.allow(u64::MAX), Some(0));
        assert_eq!(limit.allow(0), Some(0), "time that goes back is no trouble either");
        let mut limit = RateLimit::new(0, SECOND);
        assert_eq!((limit.allow(u64::MAX), limit.allow(0)), (Some(0), None), "a burst of 0 counts as 1");
    }
}
