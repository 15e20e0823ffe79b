//! The operator's view: current waits with their start, the last minutes, health, and all numbers at one moment.

use super::{
    catch_up::CatchUp, congestion::Congestion, health::Standstill, journal::Journal, sources::Sources,
    users::Users,
};
use crate::{
    admin::{
        Health, Hole, Pause, SlowUser, Snapshot, Stream,
        history::{History, Sample},
        people::{Page, People},
    },
    config::Config,
    counters::{Counters, DoorCounters},
    engine::Engine,
    latency::{Histogram, Latency},
    process::Process,
    sequence::Cursor,
    time::Micros,
    warning::Warning,
};

/// Slow users that are named.
const SLOW_NAMED: usize = 8;

/// Values that are known only by watching over time.
#[derive(Debug)]
pub(super) struct Watch {
    /// The cursor that the ring waits at, and since when.
    gap: Option<(Cursor, Micros)>,
    /// Since when there has always been a source that waits for room in the ring.
    ring_full_since: Option<Micros>,
    standstill: Standstill,
    history: History,
    /// Delivery times at the last sample of the history.
    delivery_before: Histogram,
    counters: WatchCounters,
    pub(super) latency: Latency,
}

/// Times and turns.
#[derive(Debug, Default)]
pub(super) struct WatchCounters {
    /// Time in which sources were not read because of a slow user.
    pub(super) paused_slow_user: Micros,
    /// Time in which a source was not read because the ring was full.
    pub(super) paused_ring_full: Micros,
    /// Time in which sources were not read because the journal was not written.
    pub(super) paused_journal: Micros,
    /// Time in which all sources waited for the replicated log.
    pub(super) paused_stream: Micros,
    /// Time without the stream that this server follows.
    pub(super) stream_away: Micros,
    /// Turns of the event loop.
    pub(super) loop_turns: u64,
}

impl Watch {
    pub(super) fn new(config: &Config, now: Micros) -> Self {
        Self {
            gap: None,
            ring_full_since: None,
            standstill: Standstill::default(),
            history: History::new(config.admin_port.is_some(), now),
            delivery_before: Histogram::default(),
            counters: WatchCounters::default(),
            latency: Latency::default(),
        }
    }

    /// Time goes on from `from` to `to`, with everything as it is. Whatever is measured in time is measured here.
    pub(super) fn pass_time(
        &mut self,
        from: Micros,
        to: Micros,
        paused: Option<PauseReason>,
        any_blocked: bool,
        stream_away: bool,
    ) {
        let counters = &mut self.counters;
        match paused {
            Some(PauseReason::SlowUser) => counters.paused_slow_user += to - from,
            Some(PauseReason::Journal) => counters.paused_journal += to - from,
            Some(PauseReason::Stream) => counters.paused_stream += to - from,
            None if any_blocked => counters.paused_ring_full += to - from,
            None => {}
        }
        if stream_away {
            counters.stream_away += to - from;
        }
    }

    /// Whether the history takes a sample now.
    pub(super) fn wants_sample(&self, now: Micros) -> bool {
        self.history.is_due(now)
    }

    /// Adds a sample to the history, with the totals at time `at`. `from` is the time of the turn before.
    pub(super) fn record(&mut self, from: Micros, at: Micros, released: u64, deliveries: u64) {
        let (now, before) = (&self.latency.delivery, &self.delivery_before);
        let (median, p99) = (now.quantile(0.5, before), now.quantile(0.99, before));
        self.delivery_before.clone_from(now);
        self.history.record(from, Sample { at, released, deliveries, median, p99 });
    }

    /// A turn of the event loop begins.
    pub(super) fn count_turn(&mut self) {
        self.counters.loop_turns += 1;
    }

    pub(super) fn counters(&self) -> &WatchCounters {
        &self.counters
    }

    /// Notes since when the server waits for which number.
    pub(super) fn look(&mut self, engine: &Engine, any_blocked: bool, is_paused: bool, now: Micros) {
        let misses = (any_blocked || engine.waiting() > 0) && engine.misses_cursor();
        let cursor = engine.cursor();
        match self.gap {
            Some((gap, _)) if misses && gap == cursor => {}
            // While sources are held up nobody knows: it may be in what has not been read.
            _ => self.gap = (misses && !is_paused).then_some((cursor, now)),
        }
        self.ring_full_since = any_blocked.then_some(self.ring_full_since.unwrap_or(now));
        self.standstill.look(any_blocked && !is_paused, cursor, now);
    }

    /// When a full ring has held back a source for long enough to be told, if it does.
    pub(super) fn ring_is_full_at(&self) -> Option<Micros> {
        self.standstill.is_full_at()
    }
}

/// The reason for which all sources are held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PauseReason {
    SlowUser,
    Journal,
    Stream,
}

/// The contents of a snapshot.
pub(super) struct View<'a, S> {
    pub(super) watch: &'a Watch,
    pub(super) counters: Counters,
    pub(super) engine: &'a Engine,
    pub(super) sources: &'a Sources<S>,
    pub(super) users: &'a Users<S>,
    pub(super) congestion: &'a Congestion,
    pub(super) catch_up: &'a CatchUp,
    pub(super) journal: Option<&'a Journal>,
    pub(super) door: DoorCounters,
    pub(super) process: Option<Process>,
    pub(super) health: Health,
    pub(super) config: &'a Config,
    pub(super) stream: Option<Stream>,
    /// For how long sources have waited for the replicated log, if they do.
    pub(super) held_by_log: Option<Micros>,
    /// When the gap at the cursor is given up by itself.
    pub(super) given_up_at: Option<Micros>,
    pub(super) warnings: Vec<Warning>,
    pub(super) now: Micros,
}

impl<'a, S> View<'a, S> {
    /// The numbers as they are now.
    pub(super) fn snapshot(&self) -> Snapshot<'a> {
        self.snapshot_with(People::default(), Page::default())
    }

    /// The same, with somebody who is connected.
    pub(super) fn snapshot_with(&self, people: People, page: Page) -> Snapshot<'a> {
        let now = self.now;
        let since = |since: Micros| now.saturating_sub(since);
        let hole = self.watch.gap.map(|(_, began)| Hole {
            waited: since(began),
            given_up_in: self.given_up_at.map(|at| at.saturating_sub(now)),
        });
        let slow_user = self.congestion.paused_since().map(|began| Pause {
            reason: "slow_user",
            sources: self.sources.connected(),
            paused_for: since(began),
        });
        let ring_full = self.watch.ring_full_since.map(|began| Pause {
            reason: "ring_full",
            sources: self.sources.blocked(),
            paused_for: since(began),
        });
        let journal = self.journal.map(|journal| journal.numbers(now));
        let stalled = journal.as_ref().and_then(|journal| journal.stalled_for).map(|paused_for| Pause {
            reason: "journal",
            sources: self.sources.connected(),
            paused_for,
        });
        let log = self.held_by_log.map(|paused_for| Pause {
            reason: "stream",
            sources: self.sources.connected(),
            paused_for,
        });
        let slow = self.congestion.slow().iter().filter_map(|slow| {
            let (id, buffered_bytes) = self.users.waiting_of(slow.key)?;
            Some(SlowUser { id, buffered_bytes, slow_for: since(slow.since) })
        });
        Snapshot {
            now,
            counters: self.counters.clone(),
            health: self.health,
            cursor: self.engine.cursor(),
            waiting: self.engine.waiting(),
            capacity: self.engine.capacity(),
            hole,
            buffered_bytes: self.users.output_bytes(),
            users: self.engine.users() + self.catch_up.users(),
            catching_up: self.catch_up.users(),
            farthest_behind: self.catch_up.farthest_behind(self.engine.cursor()),
            sources: self.sources.connected(),
            follow_edges: self.engine.follow_edges(),
            slow_users: self.congestion.slow().len(),
            slow: slow.take(SLOW_NAMED).collect(),
            pauses: slow_user.into_iter().chain(ring_full).chain(stalled).chain(log).collect(),
            stream: self.stream.clone(),
            journal,
            door: self.door,
            process: self.process,
            latency: &self.watch.latency,
            config: self.config,
            history: &self.watch.history,
            people,
            page,
            warnings: self.warnings.clone(),
        }
    }
}
