//! The view of the server that metrics, health and the status page show.

use super::{admin::Admin, journal::Journal, lifecycle::Phase, net::Net, state::Server, watch::View};
use crate::{
    admin::{
        Health, Snapshot, Stream, answer,
        http::Resource,
        people::{Page, People},
    },
    time::{MILLISECOND, Micros},
};

impl<N: Net> Server<N> {
    /// Answers whoever asks how it is going, if it is time.
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
        self.engine.counters.admin_rejected += self.admin.take_displaced();
    }

    /// The numbers as they are now.
    pub fn snapshot(&mut self) -> Snapshot<'_> {
        let (_, _, view) = self.view();
        view.snapshot()
    }

    pub(super) fn view(&mut self) -> (&mut Admin<N::Socket>, &mut N, View<'_, N::Socket>) {
        // The numbers that were skipped last may not have been counted yet.
        self.reports.given_up(&mut self.engine, self.now);
        let health = self.health();
        let given_up_at = self.gap_deadline();
        let stream = self.stream_view().or_else(|| self.log_view());
        let view = View {
            watch: &self.watch,
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
            given_up_at,
            warnings: self.net.warnings(),
            now: self.now,
        };
        (&mut self.admin, &mut self.net, view)
    }

    /// When the log is to say that the ring is full, unless somebody moves the cursor.
    pub(super) fn full_ring_deadline(&self) -> Option<Micros> {
        let is_told = self.config.event_timeout_ms < 0 && log::log_enabled!(log::Level::Warn);
        self.watch.ring_is_full_at().filter(|&at| is_told && at > self.now)
    }

    pub(super) fn health(&self) -> Health {
        let sources_are_read = !self.is_paused() && self.sources.blocked() == 0;
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
        let may_give_up = !self.is_paused() && self.phase() == Phase::Running;
        self.engine.next_deadline().filter(|_| may_give_up)
    }
}
