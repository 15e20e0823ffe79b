//! What the log says: progress while events flow, trouble (rate-limited), and a summary at the end.

use super::{Net, Server, connection::Connection, net::Port};
use crate::{
    config::Config,
    counters::UserEnd,
    rate_limit::RateLimit,
    time::{MILLISECOND, Micros, SECOND},
};
use std::{io, net::SocketAddr};

/// How often the log says that a full ring waits for a hole that nobody can fill.
const STUCK_INTERVAL: Micros = 60 * SECOND;

/// What goes wrong often when it goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    Rejected,
    Skipped,
    Late,
    Slow,
    Full,
    NoDescriptors,
    NotWatched,
}

impl Trouble {
    const ALL: [Trouble; 7] = [
        Trouble::Rejected,
        Trouble::Skipped,
        Trouble::Late,
        Trouble::Slow,
        Trouble::Full,
        Trouble::NoDescriptors,
        Trouble::NotWatched,
    ];

    /// In the words of the log.
    fn name(self) -> &'static str {
        match self {
            Trouble::Rejected => "rejected lines",
            Trouble::Skipped => "missing events",
            Trouble::Late => "event sources that begin below the cursor",
            Trouble::Slow => "users that did not keep up",
            Trouble::Full => "connections that were too many",
            Trouble::NoDescriptors => "failures to accept connections",
            Trouble::NotWatched => "connections that cannot be watched",
        }
    }
}

/// When what was last said.
#[derive(Debug)]
pub(crate) struct Reports {
    interval: Micros,
    /// When the next progress line is due; only while there has been progress.
    progress_at: Option<Micros>,
    last_at: Micros,
    last_released: u64,
    last_deliveries: u64,
    /// When the log will next say that every source waits for a full ring.
    stuck_at: Option<Micros>,
    /// By [`Trouble`].
    limits: [RateLimit; Trouble::ALL.len()],
}

impl Reports {
    pub(crate) fn new(config: &Config, now: Micros) -> Self {
        Self {
            interval: config.log_interval_ms * MILLISECOND,
            progress_at: None,
            last_at: now,
            last_released: 0,
            last_deliveries: 0,
            stuck_at: None,
            limits: Default::default(),
        }
    }

    /// When something is to be said next.
    pub(crate) fn next_due(&self) -> Option<Micros> {
        let left_out = self.limits.iter().filter_map(RateLimit::due_us);
        self.progress_at.into_iter().chain(self.stuck_at).chain(left_out).min()
    }
}

impl<N: Net> Server<N> {
    /// A progress line every interval in which there was progress, and what was left out of the log.
    pub(super) fn report_progress(&mut self) {
        self.report_left_out(self.now);
        let counters = &self.engine.counters;
        let released = counters.events_released_total();
        let reports = &mut self.reports;
        if reports.interval == 0 || released == reports.last_released {
            return;
        }
        let Some(due) = reports.progress_at else {
            // The first progress after a silence: the interval begins here.
            reports.progress_at = Some(self.now + reports.interval);
            reports.last_at = self.now;
            return;
        };
        if self.now < due {
            return;
        }
        let elapsed = (self.now - reports.last_at).max(1);
        let per_second = |count: u64| u128::from(count) * u128::from(SECOND) / u128::from(elapsed);
        log::info!(
            events_per_s = per_second(released - reports.last_released),
            deliveries_per_s = per_second(counters.deliveries - reports.last_deliveries),
            cursor = self.engine.cursor(),
            waiting = self.engine.waiting(),
            users = self.engine.users(),
            sources = self.source_clients;
            "progress"
        );
        reports.last_released = released;
        reports.last_deliveries = counters.deliveries;
        reports.last_at = self.now;
        reports.progress_at = None;
    }

    /// Whether a line about trouble may be written now; if so, how many like it were left out since the last one.
    pub(super) fn may_warn(&mut self, trouble: Trouble) -> Option<u64> {
        self.reports.limits[trouble as usize].allow(self.now)
    }

    /// Says how many lines were left out of the log, once the trouble has stopped or, at the end, at once.
    fn report_left_out(&mut self, now: Micros) {
        for trouble in Trouble::ALL {
            if let Some(left_out) = self.reports.limits[trouble as usize].overdue(now) {
                log::warn!(what = trouble.name(), left_out; "more of the same was left out of the log");
            }
        }
    }

    /// What happened, in numbers.
    pub(super) fn report_summary(&mut self) {
        self.engine.take_given_up();
        self.report_left_out(Micros::MAX);
        let counters = &self.engine.counters;
        let waiting = self.engine.waiting();
        if waiting > 0 {
            log::warn!(waiting, cursor = self.engine.cursor(); "events still waited for missing ones and were not released");
        }
        log::info!(
            received = counters.events_received,
            released = counters.events_released_total(),
            late = counters.events_late,
            duplicate = counters.events_duplicate,
            rejected = counters.events_rejected_total(),
            skipped = counters.sequence_skipped,
            deliveries = counters.deliveries,
            delivered_bytes = counters.delivered_bytes,
            cursor = self.engine.cursor();
            "summary"
        );
    }

    /// Lines that were no events.
    pub(super) fn report_rejects(&mut self, key: usize) {
        let Some((reason, seq)) = self.engine.take_last_reject() else {
            return;
        };
        let Some(left_out) = self.may_warn(Trouble::Rejected) else {
            return;
        };
        let rejected = self.engine.counters.events_rejected_total();
        let peer =
            self.connections.get(key).map_or_else(String::new, |Connection { peer, .. }| peer.to_string());
        let seq = seq.map_or_else(|| "unreadable".to_owned(), |seq| seq.to_string());
        log::warn!(peer, reason = reason.name(), seq, rejected, left_out; "lines that are no events were rejected");
    }

    /// Numbers that were given up on.
    pub(super) fn report_skipped(&mut self) {
        let skipped = self.engine.take_given_up().numbers;
        if skipped > 0
            && let Some(left_out) = self.may_warn(Trouble::Skipped)
        {
            log::warn!(skipped, cursor = self.engine.cursor(), left_out; "missing events were given up on");
        }
    }

    /// Every source waits for a full ring, and nothing is ever skipped: says so once a minute.
    pub(super) fn report_stuck(&mut self) {
        if !self.is_stuck() || self.config.event_timeout_ms >= 0 {
            self.reports.stuck_at = None;
        } else if self.reports.stuck_at.is_none_or(|at| at <= self.now) {
            self.reports.stuck_at = Some(self.now + STUCK_INTERVAL);
            log::warn!(
                cursor = self.engine.cursor(), waiting = self.engine.waiting();
                "the ring is full and every event source waits for the event at the cursor; \
                 as eventTimeoutMs is negative it is not skipped, and only another source can send it"
            );
        }
    }

    /// A user's connection has ended.
    pub(super) fn report_user_end(&mut self, user: u64, peer: SocketAddr, end: UserEnd, unsent_bytes: usize) {
        if end != UserEnd::Slow {
            log::debug!(user, peer:%, reason = end.name(), unsent_bytes; "user disconnected");
        } else if let Some(left_out) = self.may_warn(Trouble::Slow) {
            log::warn!(user, peer:%, reason = end.name(), unsent_bytes, left_out; "user disconnected: it did not keep up");
        }
    }

    /// Closes a connection that is one too many.
    pub(super) fn reject_connection(&mut self, port: Port, peer: SocketAddr) {
        let (rejected, what) = match port {
            Port::Source => (&mut self.engine.counters.sources_rejected, "maxEventSourceClients"),
            _ => (&mut self.engine.counters.users_rejected, "maxUserClients"),
        };
        *rejected += 1;
        if let Some(left_out) = self.may_warn(Trouble::Full) {
            log::warn!(peer:%, limit = what, left_out; "connection closed: there are as many as are allowed");
        }
    }

    /// A connection that the operating system does not watch.
    pub(super) fn warn_not_watched(&mut self, peer: SocketAddr, error: &io::Error) {
        if let Some(left_out) = self.may_warn(Trouble::NotWatched) {
            log::warn!(peer:%, error:%, left_out; "connection dropped: it cannot be watched");
        }
    }

    /// There is no descriptor for another connection.
    pub(super) fn warn_accept(&mut self, error: &io::Error) {
        if let Some(left_out) = self.may_warn(Trouble::NoDescriptors) {
            log::warn!(error:%, left_out; "accepting is paused: connections wait until a descriptor is free");
        }
    }
}
