//! What a run of several lives is like: the server's options, what sources have to say, and what goes wrong.

use fortnight::internals::{
    config::{Config, SlowUserPolicy},
    journal::SyncMode,
    server::Pace,
    time::{MILLISECOND, Micros},
};

use crate::dice::Dice;

/// Ids of users are below.
pub(crate) const IDS_MAX: u64 = 8;

/// How sources and disk behave. Chances are so many in a thousand, those of the disk so many in 2^16.
#[derive(Clone, Debug)]
pub(crate) struct Temper {
    pub(crate) config: Config,
    pub(crate) mode: SyncMode,
    /// What the events are drawn from.
    events: u64,
    /// Events in all.
    pub(crate) total: u64,
    /// Sources; each has its share of the numbers.
    pub(crate) lanes: u64,
    /// Lives before the last one.
    pub(crate) lives: u64,
    /// Things that happen in a life, at most.
    pub(crate) actions: u64,
    /// Longest time between two of them.
    pub(crate) gap: Micros,
    /// User ids in use.
    ids: u64,
    /// Longest line.
    padding: u64,
    /// Events that are shuffled among themselves.
    pub(crate) window: u64,
    /// Events that a source sends at once, at most.
    pub(crate) burst: u64,
    /// Numbers that are never sent.
    lost: u64,
    /// Sources ask for acknowledgements and go on from there. Else they never send anything twice, and every end is graceful.
    pub(crate) asks: bool,
    /// They give names.
    pub(crate) names: bool,
    /// They do not wait for the first acknowledgement.
    pub(crate) eager: u64,
    /// Reads and writes that are cut short or have to be tried again.
    pub(crate) cuts: u64,
    /// The disk becomes full.
    pub(crate) full: u64,
    /// The longest time that the disk takes.
    pub(crate) delay_max: Micros,
    pub(crate) short_write: u16,
    pub(crate) errors: u16,
    /// Errors while the server starts.
    pub(crate) start_errors: u64,
    /// What is to be read is not in memory yet.
    pub(crate) not_in_memory: u16,
    /// The time that a turn takes.
    pub(crate) work: Micros,
    /// How often snapshots are made, and how much of one in a turn.
    pub(crate) pace: Pace,
    /// Users that resume.
    pub(crate) visitors: u64,
    /// Turns after which the tools are used.
    pub(crate) tools: u64,
}

impl Temper {
    pub(crate) fn new(dice: &mut Dice) -> Temper {
        let asks = dice.in_1000(850);
        let is_patient = !asks || dice.in_1000(600);
        let total = dice.range(20..400);
        let is_long = dice.in_1000(250);
        let lanes = dice.pick(&[1, 1, 2, 3]);
        let capacity = if asks { dice.pick(&[8, 16, 64, 1024]) } else { 1024 };
        let first = dice.pick(&[1, 1, 1, 0, (1 << 32) - 50, u64::MAX - (total - 1)]);
        let mode = dice.pick(&[SyncMode::Always, SyncMode::Interval, SyncMode::Interval, SyncMode::Never]);
        let config = Config {
            event_timeout_ms: if is_patient { -1 } else { dice.pick(&[0, 1, 20, 1000]) },
            first_sequence: first,
            reorder_capacity: capacity,
            max_event_source_clients: 2 * lanes as u32,
            max_event_bytes: 1024,
            restart_grace_ms: dice.pick(&[0, 20, 5000]),
            shutdown_timeout_ms: if asks { dice.pick(&[50, 5000, 5000]) } else { 60_000 },
            log_interval_ms: 0,
            journal_sync: mode,
            journal_sync_interval_ms: dice.pick(&[1, 20, 200, 1000]),
            journal_segment_bytes: dice.pick(&[200, 2000, 20_000, 1 << 20]),
            journal_retention_bytes: dice.pick(&[0, 2000, 100_000, 1 << 30]),
            journal_retention_ms: dice.pick(&[None, None, None, Some(50), Some(3000)]),
            ..Config::default()
        };
        let mut temper = Temper {
            config,
            mode,
            events: dice.below(u64::MAX),
            total,
            lanes,
            lives: dice.range(1..6),
            actions: dice.range(5..80),
            gap: dice.pick(&[10, 1000, 30 * MILLISECOND, 700 * MILLISECOND]),
            ids: dice.pick(&[2, 4, IDS_MAX]),
            padding: if is_long { 900 } else { 40 },
            window: dice.range(1..capacity as u64 / 4),
            burst: dice.pick(&[1, 5, 40]),
            lost: if is_patient { 0 } else { dice.pick(&[0, 20, 200]) },
            asks,
            names: dice.in_1000(500),
            eager: dice.pick(&[0, 300]),
            cuts: dice.pick(&[0, 100]),
            full: if asks { dice.pick(&[0, 0, 60]) } else { 0 },
            delay_max: dice.pick(&[0, 300, 30 * MILLISECOND]),
            short_write: dice.pick(&[0, 0, 20_000]),
            errors: if asks { dice.pick(&[0, 0, 0, 300]) } else { 0 },
            start_errors: if asks { dice.pick(&[0, 150]) } else { 0 },
            // Never 0: what is read is always fetched ahead.
            not_in_memory: dice.pick(&[1, 1000, 30_000]),
            work: dice.pick(&[0, 20, 500]),
            pace: Pace {
                bytes_least: dice.pick(&[500, 500, 64 << 10]),
                steps: dice.pick(&[1, 3, 20_000]),
                users: dice.pick(&[1, 2, 256]),
                slice_ns: dice.pick(&[1000, 5000, 150_000]),
            },
            visitors: 0,
            tools: 0,
        };
        if dice.in_1000(600) {
            temper.visitors = dice.pick(&[100, 500]);
            let config = &mut temper.config;
            config.slow_user_policy =
                dice.pick(&[SlowUserPolicy::Journal, SlowUserPolicy::Journal, SlowUserPolicy::Wait]);
            config.user_buffer_bytes = dice.pick(&[100, 1000, 1 << 20]);
            config.slow_user_timeout_ms = dice.pick(&[200, 5000, 1_000_000]);
            // Not so often that a long life has too many turns for it.
            let often = if temper.gap <= MILLISECOND { 1 } else { 100 };
            config.user_mark_ms = dice.pick(&[0, often, 3000]);
        }
        temper.tools = dice.pick(&[0, 0, 0, 10]);
        temper
    }

    /// No number is ever given up.
    pub(crate) fn is_patient(&self) -> bool {
        self.config.event_timeout_ms < 0
    }

    /// The cursor when everything has been released.
    pub(crate) fn end(&self) -> u128 {
        u128::from(self.config.first_sequence) + u128::from(self.total)
    }

    /// The numbers of a source.
    pub(crate) fn numbers(&self, lane: u64) -> impl Iterator<Item = u64> {
        let (first, lanes) = (self.config.first_sequence, self.lanes);
        let all = (0..self.total).map(move |index| first + index);
        all.filter(move |number| number % lanes == lane && !self.is_lost(*number))
    }

    fn dice(&self, number: u64) -> Dice {
        Dice::new(self.events ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Never sent. The last one always is.
    fn is_lost(&self, number: u64) -> bool {
        u128::from(number) + 1 != self.end() && self.dice(number).in_1000(self.lost)
    }

    /// An id of a user.
    pub(crate) fn id(&self, dice: &mut Dice) -> u64 {
        dice.below(self.ids)
    }

    /// The event of a number: always the same.
    pub(crate) fn line(&self, number: u64) -> Vec<u8> {
        let mut dice = self.dice(number);
        dice.below(2);
        let zeros = dice.length(self.padding) as usize;
        let (from, to) = (self.id(&mut dice), self.id(&mut dice));
        let content = match dice.below(10) {
            0..=2 => format!("F|{from}|{to}"),
            3 => format!("U|{from}|{to}"),
            4 | 5 => "B".to_owned(),
            6 => format!("P|{from}|{to}"),
            _ => format!("S|{from}"),
        };
        format!("{number:0zeros$}|{content}\n").into_bytes()
    }
}
