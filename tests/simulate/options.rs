//! What a seed's run is like: the server's options, and the temper of its world.

use fortnight::internals::{
    config::{Config, SlowUserPolicy},
    time::Micros,
};

use crate::dice::Dice;

/// Options of the server, small and odd ones preferred.
pub(crate) fn config(dice: &mut Dice) -> Config {
    let near_the_end = u64::MAX - dice.below(100);
    Config {
        event_timeout_ms: match dice.below(10) {
            0 | 1 => -1,
            2 | 3 => 0,
            4..=8 => dice.range(1..60) as i64,
            _ => 1000,
        },
        first_sequence: dice.pick(&[1, 1, 1, 1, 0, (1 << 32) - 5, near_the_end]),
        reorder_capacity: 1 << dice.pick(&[0, 1, 2, 3, 4, 5, 6, 6, 8, 12]),
        reset_on_source_eof: dice.in_1000(400),
        max_event_bytes: dice.pick(&[4, 12, 20, 24, 47, 48, 49, 64, 100, 1024]),
        login_timeout_ms: dice.range(1..2000),
        user_buffer_bytes: match dice.below(6) {
            0 => dice.range(1..40) as usize,
            1 | 2 => dice.range(40..1000) as usize,
            3 => dice.range(1000..10_000) as usize,
            4 => dice.range(10_000..100_000) as usize,
            _ => 4 << 20,
        },
        slow_user_policy: dice.pick(&[
            SlowUserPolicy::Wait,
            SlowUserPolicy::Wait,
            SlowUserPolicy::Disconnect,
        ]),
        slow_user_timeout_ms: match dice.below(5) {
            0 => 0,
            1 | 2 => dice.range(1..40),
            3 => dice.range(40..1000),
            _ => 5000,
        },
        shutdown_timeout_ms: dice.pick(&[0, 1, 50, 5000]),
        max_event_source_clients: dice.pick(&[1, 1, 2, 3, 4]),
        max_user_clients: dice.pick(&[1, 3, 6, 12, 1000, 1000]),
        log_interval_ms: dice.pick(&[0, 0, 10, 10_000]),
        busy_poll: dice.in_1000(300),
        ..Config::default()
    }
}

/// How the world behaves. Chances are so many in a thousand.
#[derive(Clone, Debug)]
pub(crate) struct Temper {
    /// Things that happen before everybody calms down.
    pub(crate) actions: u64,
    /// Longest time between two of them.
    pub(crate) gap: Micros,
    /// Two of them at once.
    pub(crate) together: u64,
    /// Reads and writes that are cut short.
    pub(crate) cuts: u64,
    /// Reads and writes that have to be tried again.
    pub(crate) retries: u64,
    /// Reads and writes that break the connection.
    pub(crate) breaks: u64,
    /// Accepting, registering and changing interest that fails.
    pub(crate) refusals: u64,
    /// The server sleeps longer than it meant to.
    pub(crate) oversleeps: u64,
    /// Letting a user in takes long.
    pub(crate) slow_logins: u64,
    /// User ids in use.
    pub(crate) ids: u64,
    /// Users that are slow at reading.
    pub(crate) slow: u64,
    /// Numbers that are never sent, or later.
    pub(crate) lost: u64,
    /// Numbers that are sent twice.
    pub(crate) twice: u64,
    /// Lines that are no events.
    pub(crate) garbage: u64,
    /// Events that are shuffled among themselves.
    pub(crate) window: u64,
    /// Bytes that sources send at once, at most.
    pub(crate) burst: u64,
    /// Connections on the user port that do not log in as they should.
    pub(crate) strangers: u64,
    /// The run ends with a signal.
    pub(crate) signal: u64,
    /// The number of users that come at once.
    pub(crate) crowd: u64,
}

/// Draws the temper of a world that suits the options.
pub(crate) fn temper(dice: &mut Dice, config: &Config) -> Temper {
    let mut rate = |rates: &[u64]| dice.pick(rates);
    let lost = if config.event_timeout_ms < 0 { rate(&[0, 0, 0, 10]) } else { rate(&[0, 10, 50, 200]) };
    Temper {
        actions: 0,
        gap: rate(&[10, 300, 3000, 30_000, 300_000]),
        together: rate(&[100, 400, 800]),
        cuts: rate(&[0, 50, 300]),
        retries: rate(&[0, 20, 150]),
        breaks: rate(&[0, 0, 2, 10]),
        refusals: rate(&[0, 0, 30, 200]),
        oversleeps: rate(&[0, 0, 50]),
        slow_logins: rate(&[0, 0, 50, 300]),
        ids: rate(&[2, 5, 12, 80]),
        slow: rate(&[0, 100, 500]),
        lost,
        twice: rate(&[0, 20, 200]),
        garbage: rate(&[0, 20, 200]),
        window: rate(&[1, 4, 30, 100]),
        burst: rate(&[30, 300, 3000, 3000]),
        strangers: rate(&[0, 50, 200]),
        signal: 700,
        crowd: 1,
    }
    .with_actions(dice)
}

impl Temper {
    fn with_actions(mut self, dice: &mut Dice) -> Temper {
        self.actions = dice.range(20..250);
        self.crowd = dice.pick(&[1, 1, 1, 1, 10]);
        if dice.in_1000(20) {
            // More than the server reads at once.
            self.burst = 700_000;
            self.actions = 25;
        }
        self
    }
}
