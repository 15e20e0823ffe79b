//! The view of the server that metrics, health and the status page show.

use super::{
    admin::Admin,
    journal::Journal,
    lifecycle::Phase,
    net::{Net, Port},
    state::Server,
    upstream::Upstream,
    users::UserCounters,
    watch::View,
};
use crate::{
    admin::{
        Health, Snapshot, Stream, answer,
        http::Resource,
        people::{Page, People},
    },
    counters::Counters,
    time::{MILLISECOND, Micros},
};

impl<N: Net> Server<N> {
    /// Answers requests of the admin interface, if it is time.
    pub(super) fn serve_admin(&mut self) {
        self.watch.look(&self.engine, self.sources.blocked() > 0, self.is_paused(), self.now);
        if self.admin.deadline().is_none_or(|at| at > self.now) {
            return;
        }
        let mut census = std::mem::take(&mut self.census);
        let (admin, net, view) = self.view();
        let (now, at) = (view.now, (view.engine.cursor(), view.now));
        admin.serve(net, now, |request| {
            let (mut people, mut page) = (People::default(), Page::default());
            match request.resource {
                Ok(Resource::Status) => {
                    people = census.people(view.sources, view.users, view.catch_up, at);
                }
                Ok(Resource::Clients { from }) => {
                    page = census.page(from, view.sources, view.users, view.catch_up, at);
                }
                _ => {}
            }
            answer(request, &view.snapshot_with(people, page))
        });
        self.census = census;
    }

    /// The numbers as they are now.
    pub fn snapshot(&mut self) -> Snapshot<'_> {
        let (_, _, view) = self.view();
        view.snapshot()
    }

    /// Everything that is counted, collected from the parts that count it.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let engine = &self.engine.counters;
        let users = &self.users.counters;
        let watch = self.watch.counters();
        Counters {
            events_received: engine.events_received,
            events_released: engine.events_released,
            events_late: engine.events_late + self.upstream.as_ref().map_or(0, Upstream::late),
            events_duplicate: engine.events_duplicate,
            events_rejected: engine.events_rejected,
            sequence_skipped: engine.sequence_skipped,
            deliveries: self.deliveries(),
            delivered_bytes: users.delivered_bytes,
            sources_rejected: self.accepting.turned_away(Port::Source),
            users_rejected: self.accepting.turned_away(Port::User),
            streams_rejected: self.accepting.turned_away(Port::Stream),
            stream_away: watch.stream_away,
            admin_rejected: self.admin.displaced(),
            users_disconnected: users.disconnected,
            resumed_ok: users.resumed_ok,
            resumed_gone: users.resumed_gone,
            resumed_epoch: users.resumed_epoch,
            paused_slow_user: watch.paused_slow_user,
            paused_ring_full: watch.paused_ring_full,
            paused_journal: watch.paused_journal,
            paused_stream: watch.paused_stream,
            loop_turns: watch.loop_turns,
        }
    }

    /// Events handed to users.
    pub(super) fn deliveries(&self) -> u64 {
        let UserCounters { withheld, caught_up, .. } = self.users.counters;
        self.engine.counters.deliveries + caught_up - withheld
    }

    pub(super) fn view(&mut self) -> (&mut Admin<N::Socket>, &mut N, View<'_, N::Socket>) {
        // The numbers that were skipped last may not have been counted yet.
        self.reports.given_up(&mut self.engine, self.now);
        let health = self.health();
        let given_up_at = self.gap_deadline();
        let stream = self.stream_view().or_else(|| self.log_view());
        let held_by_log = self.replicated.as_ref().and_then(|replicated| replicated.held_for(self.now));
        let view = View {
            watch: &self.watch,
            counters: self.counters(),
            engine: &self.engine,
            sources: &self.sources,
            users: &self.users,
            congestion: &self.congestion,
            catch_up: &self.catch_up,
            journal: self.journal.as_ref(),
            door: self.net.door(),
            process: self.net.process(),
            health,
            config: &self.config,
            stream,
            held_by_log,
            given_up_at,
            warnings: self.net.warnings(),
            now: self.now,
        };
        (&mut self.admin, &mut self.net, view)
    }

    /// When the log must say that the ring is full, unless the cursor moves.
    pub(super) fn full_ring_deadline(&self) -> Option<Micros> {
        let is_told = self.config.event_timeout_ms < 0 && log::log_enabled!(log::Level::Warn);
        self.watch.ring_is_full_at().filter(|&at| is_told && at > self.now)
    }

    pub(super) fn health(&self) -> Health {
        let sources_are_read = self.reads_sources() && self.sources.blocked() == 0;
        if self.phase() != Phase::Running {
            Health::ShuttingDown
        } else if self.journal.as_ref().is_some_and(Journal::is_stalled) {
            Health::JournalFull
        } else if self.waits_for_ever() || self.watch.ring_is_full_at().is_some_and(|at| at < self.now) {
            Health::RingFull
        } else if self.stream_away() {
            Health::StreamAway
        } else if sources_are_read
            && self.sources.are_all_places_taken()
            && self.sources.silence.keeps_others_out(self.now)
        {
            Health::SourcesSilent
        } else {
            Health::Ok
        }
    }

    /// The state of the stream for operators.
    pub(super) fn stream_view(&self) -> Option<Stream> {
        let upstream = self.upstream.as_ref()?;
        Some(Stream {
            address: upstream.link().address().to_string(),
            away_for: upstream.away_since().map(|since| self.now.saturating_sub(since)),
            lag: upstream.heard().map(|heard| self.now.saturating_sub(heard)),
            leads: None,
            term: None,
            cursor: self.engine.cursor(),
        })
    }

    /// The state of the replicated log for operators.
    pub(super) fn log_view(&mut self) -> Option<Stream> {
        let time_ms = self.net.time_ms();
        let log = self.replicated.as_ref()?.log();
        let place = log.known_place();
        let is_leader = log.leader().is_some();
        Some(Stream {
            address: self.replicated.as_ref()?.link().address().to_string(),
            away_for: log.away_since().map(|since| self.now.saturating_sub(since)),
            lag: place
                .filter(|_| !self.is_sequencer())
                .map(|place| time_ms.saturating_sub(place.time_ms) * MILLISECOND),
            leads: self.is_sequencer().then_some(is_leader),
            term: place.map(|place| place.term),
            cursor: self.confirmed().unwrap_or_else(|| self.engine.cursor()),
        })
    }

    /// When the next gap is given up, if one is: not while slow users hold up the sources, and not at the end.
    pub(super) fn gap_deadline(&mut self) -> Option<Micros> {
        let may_give_up = self.reads_sources() && self.phase() == Phase::Running;
        self.engine.next_deadline().filter(|_| may_give_up)
    }
}
