//! The server: connections in, output buffers out, logins, limits, congestion, deadlines.
//!
//! It owns every connection and the [`Engine`](crate::engine::Engine), and runs on whatever implements [`Net`]: sockets of the
//! operating system or simulated ones. Its modules stand on three levels. A module uses those below it only.
//!
//! 1. *The turn.* [`Server::turn`] here is the order in which everything has its turn.
//! 2. *Steps of the turn*, on all parts ([`state`]):
//!    [`collect`]: which connections are ready; [`admit`]: connections and logins; [`reading`]: event sources;
//!    [`release`]: from bytes read to events released; [`handing_out`]: from there to the journal, the log, clients of the
//!    stream and users; [`streaming`]: an edge's stream, and clients of the stream; [`replication`]: the replicated log;
//!    [`timing`]: how long that took; [`view`]: the answers to operators.
//! 3. *Parts*, which keep their state to themselves:
//!    - [`accept`]: the listeners;
//!    - [`users`]: connections on the user port. A connection is a [`user`] or has yet to [`login`](mod@login). [`audience`]: who
//!      comes and who goes. [`delivery`]: what users are sent, through [`output`] buffers, with `busyPoll` a few at a time
//!      ([`rotation`]). [`resuming`]: the lines that users are sent beside events, when their [`marks`] are due;
//!    - [`catch_up`]: users that are served from the journal, by a [`pass`] over it;
//!    - [`sources`]: event sources, the bytes of each [`source`], and which of them wait for room in the ring;
//!    - [`congestion`]: slow users, which hold up the sources, and for how long in all ([`share`]);
//!    - [`journal`]: a released event is on disk before a user is sent it;
//!    - [`grace`]: sources that resume and are expected back;
//!    - [`lifecycle`]: the end; [`linger`]: closing connections so that nothing is lost;
//!      [`liveness`]: peers that have vanished;
//!    - [`admin`]: connections of operators; [`watch`], [`health`] and [`census`]: the numbers that they ask for;
//!    - [`stream_clients`]: who is handed the whole released stream; [`upstream`]: the stream that an edge takes in place of
//!      event sources; [`replicated`]: the replicated log; [`link`]: the connection that either
//!      of both needs;
//!    - [`report`]: the log.
//!
//! Three rules shape the order. *Collect, then act*: [`collect`] only notes down which connections are ready. *Logins that
//! reached the server before an event did are served before it*: after every read of a source, and before its bytes are
//! looked at, the net is asked once more which connections are ready, and users are served (`look_again` in [`admit`]).
//! *Users come and go between turns of the engine*: `deliver` in [`handing_out`] hands out released events, and only then
//! lets users in and out.
//!
//! Readiness is edge-triggered. So it is kept with the connection until an operation would block. A connection whose
//! budget ran out stays on a list and comes round again.

mod accept;
mod admin;
mod admit;
mod audience;
mod catch_up;
mod census;
mod chunk;
mod closing;
mod collect;
mod congestion;
mod context;
mod delivery;
mod grace;
mod handing_out;
mod health;
mod journal;
mod key;
mod lifecycle;
mod linger;
mod link;
mod liveness;
mod login;
mod lost;
mod marks;
pub mod net;
mod output;
mod pass;
mod question;
mod reading;
mod release;
mod releasing;
mod replicated;
mod replication;
mod report;
mod resuming;
mod rotation;
mod share;
mod sizing;
mod socket;
mod source;
mod sources;
mod state;
mod stream_clients;
mod streaming;
mod takeovers;
mod timing;
mod token_checks;
mod upstream;
mod user;
mod users;
mod view;
mod watch;

use crate::{counters::DisconnectReason, time::Micros};
use closing::Urgency;
use journal::Journal;
use net::{Net, Port};
use sources::Admission;
use std::io;
use users::ENDS_PER_TURN;

pub use journal::Pace;
pub use lifecycle::Phase;
pub use state::Server;

impl<N: Net> Server<N> {
    /// One turn of the loop. [`Server::phase`] says when it was the last one.
    ///
    /// # Errors
    ///
    /// If the server cannot go on, in a sentence: the operating system does not wait for readiness any more, the journal cannot be
    /// written, or an edge's stream is another one than before.
    pub fn turn(&mut self) -> io::Result<()> {
        self.watch.count_turn();
        let wait = self.wait();
        self.collect(wait)?;
        let began = self.now;
        self.accepting.begin_turn();
        self.heed_signals();
        // A completion of the disk may let other parts go on.
        self.pass_journal();
        // Users first: a user that logs in now receives the events that are read now.
        self.serve_users()?;
        self.keep_up_stream();
        self.keep_up_log();
        let reads = self.read_log()? + self.read_sources()? + self.read_stream()?;
        // One write per user for everything that the turn owes it.
        self.deliver();
        self.meet_deadlines()?;
        self.resolve_full_ring();
        self.deliver();
        self.write_due(reads);
        self.catch_up(reads > 0);
        self.send_marks();
        self.finish_run();
        self.serve_stream_clients()?;
        self.snapshot_graph();
        self.publish_graph();
        self.keep_grace();
        self.serve_admin();
        self.close_down();
        self.acknowledge();
        // Sockets are closed in this place only: their keys are free from here on.
        self.reap();
        self.note_turn(began);
        if let Some(journal) = &mut self.journal {
            journal.note_end_of_turn(self.now);
        }
        let behind = (self.catch_up.users(), self.catch_up.farthest_behind(self.engine.cursor()));
        let handed_out = self.deliveries();
        self.reports.progress(&self.engine, (self.sources.connected(), handed_out), behind, self.now);
        self.fail_with_journal()
    }

    /// How long the next turn may wait for something to happen: not at all while there is work left.
    fn wait(&mut self) -> Option<Micros> {
        if self.config.busy_poll || self.has_work() {
            return Some(0);
        }
        self.nearest_deadline().map(|at| at.saturating_sub(self.now))
    }

    fn has_work(&self) -> bool {
        self.lifecycle.has_signals()
            || (matches!(self.phase(), Phase::Flushing { .. }) && self.have_all_gone())
            || self.users.has_work(self.is_barred())
            || (self.phase() == Phase::Running && self.catch_up.has_work(self.now))
            || self.journal.as_ref().is_some_and(|journal| journal.has_work(&self.engine))
            || self.accepting.may_accept(Port::User, self.now)
            || self.accepting.may_accept(Port::Stream, self.now)
            || self.stream_clients.has_work()
            || self.may_read_stream()
            || self.may_read_log()
            || self.may_walk()
            || self.may_accept_sources()
            || (!self.is_paused() && (self.releasing.interrupted || self.run_can_end()))
            || (self.may_read() && self.sources.has_bytes(&self.engine))
    }

    /// When there is something to do next if nothing becomes ready.
    fn nearest_deadline(&mut self) -> Option<Micros> {
        let gaps = self.gap_deadline();
        let may_come = self.sources.admission() != Admission::Later;
        let sources = self.accepting.retry_at(Port::Source).filter(|_| may_come);
        [
            gaps,
            sources,
            self.accepting.retry_at(Port::User),
            self.users.login_deadline(),
            self.users.tokens.deadline(),
            self.lingering.deadline(),
            self.rounds.deadline(),
            // No user is told a place while the journal lacks released events. The journal wakes the server when it is ready.
            self.users.marks.deadline().filter(|_| !self.is_barred()),
            self.slow_user_deadline(),
            self.catch_up.deadline(self.now).filter(|_| self.phase() == Phase::Running),
            self.stalled_deadline(),
            self.reports.next_due(),
            self.full_ring_deadline(),
            self.lifecycle.deadline(),
            self.journal.as_ref().and_then(Journal::next_deadline),
            self.grace.deadline().filter(|_| self.phase() == Phase::Running),
            self.sources.acknowledgement_deadline(),
            self.admin.deadline(),
            self.accepting.retry_at(Port::Stream),
            self.stream_clients.deadline(),
            self.stream_deadline(),
            self.log_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn heed_signals(&mut self) {
        if self.lifecycle.has_signals() && self.lifecycle.heed_signals(self.now) {
            self.accepting.close(&mut self.net, &mut self.reports, self.now);
            self.sources.read_only_what_has_arrived();
            self.sources.look(&mut self.net);
            if self.journal.is_some() {
                // The journal keeps events that wait for missing ones for the next start.
                self.engine.hold_gaps(true, self.now);
            }
        }
    }

    /// With `busyPoll`: writes to the users whose turn it is.
    fn write_due(&mut self, reads: usize) {
        let (users, mut context) = self.users();
        users.write_due(reads, &mut context);
        users.read_chatter(context.now);
        self.deliver();
    }

    /// Acts on deadlines that have passed. It first polls all sockets once more: a server that was held up
    /// itself must not blame clients for being late.
    fn meet_deadlines(&mut self) -> io::Result<()> {
        let slow = self.slow_user_deadline().into_iter().chain(self.stalled_deadline());
        let due = slow.chain(self.users.login_deadline()).min();
        if due.is_some_and(|at| at <= self.now) {
            let began = self.now;
            self.look_again()?;
            for key in self.congestion.overdue(began).take(ENDS_PER_TURN) {
                self.users.leaves(key, DisconnectReason::Slow);
            }
            let is_barred = self.is_barred();
            let (users, mut context) = self.users();
            if !is_barred {
                users.end_stalled(began, &mut context);
            }
            users.end_overdue_logins(began);
            self.deliver();
        }
        if self.users.end_overdue_tokens(self.now) {
            self.deliver();
        }
        self.look_for_vanished_peers();
        self.give_up_gaps()
    }

    /// Closes connections whose peers have vanished while something was on its way to them.
    fn look_for_vanished_peers(&mut self) {
        let seen = (self.engine.cursor(), self.users.counters.delivered_bytes);
        let is_sent = self.rounds.seen != seen || !self.stream_clients.is_empty();
        if is_sent && self.net.peers_may_vanish() {
            self.rounds.seen = seen;
            self.rounds.note_sent(self.now);
        }
        let Some(at) = self.rounds.look(self.now) else { return };
        if at == 0 {
            let noted = (&mut self.engine, &mut self.reports, self.now);
            self.sources.look_for_vanished(&mut self.rounds, &mut self.net, noted);
            self.stream_clients.look(&mut self.rounds, &mut self.net);
        }
        self.users.look_at(at, &mut self.rounds, &mut self.net);
        self.rounds.looked(self.users.keys_end(), self.now);
        if self.users.has_changes() {
            self.deliver();
        }
    }

    /// Takes the next step of the shutdown, if it has begun. Bytes that had arrived are read and released, then users are sent what
    /// they are owed, each for a part of the time.
    fn close_down(&mut self) {
        if let Some(no_more_time) = self.lifecycle.draining(self.now) {
            let lost = self.sources.end_drained(no_more_time, &mut self.engine, &mut self.reports, self.now);
            if self.journal.is_none() {
                self.reports.note_lost(lost);
            }
            let next_run = self.accepting.held() > 0 && (!self.releasing.run_over || self.run_can_end());
            let drained = self.sources.connected() == 0
                && !next_run
                && !self.sources.has_chunk()
                && !self.releasing.interrupted;
            if drained || no_more_time {
                self.reports.note_unread_sources(self.accepting.drop_held());
                self.lifecycle.stop_reading();
            }
        }
        if let Some(no_more_time) = self.lifecycle.flushing(self.now) {
            self.end_journal();
            let unsent = self.users.end_flushed(no_more_time);
            self.reports.note_unsent(unsent);
            self.deliver();
            self.stream_clients.end_flushed(no_more_time);
            // Users are closed once they have their events. No user is sent an event that a stalled journal lacks.
            if self.have_all_gone() || (no_more_time && (self.clients_have_gone() || self.is_barred())) {
                self.engine.take_given_up();
                self.reports.summary(&self.engine, &self.counters());
                self.lifecycle.finish();
            }
        }
    }

    /// Sends acknowledgements to the sources that asked for them.
    fn acknowledge(&mut self) {
        self.sources.retire_replaced(&mut self.net);
        while let Some(key) = self.sources.overdue_trial(self.now) {
            self.turn_source_away(key);
        }
        let Some(epoch) = self.epoch() else { return };
        let is_last = matches!(self.phase(), Phase::Flushing { .. }) && self.is_all_kept();
        let place = (epoch, self.acknowledgeable());
        self.sources.acknowledge(place, is_last, &mut self.net, self.now);
    }

    /// While a source that resumes is expected back, no gap is given up.
    fn keep_grace(&mut self) {
        if self.phase() != Phase::Running {
            return;
        }
        if self.sources.take_asker_gone() {
            self.grace.begin(&mut self.engine, self.now);
        }
        self.grace.end_if_over(self.sources.heard(), &mut self.engine, self.now);
    }

    /// Closes the sockets of connections that have come to their ends.
    fn reap(&mut self) {
        let is_over = matches!(self.phase(), Phase::Done { .. });
        let urgency = if is_over { Urgency::AtOnce } else { self.accepting.urgency_of_closing() };
        let (lingering, net, now) = (&mut self.lingering, &mut self.net, self.now);
        let freed = lingering.look(now)
            | self.users.reap(urgency, lingering, (net, now))
            | self.sources.reap(lingering, net, now)
            | self.admin.reap();
        if freed {
            self.accepting.descriptor_freed();
        }
    }

    pub(super) fn snapshot_graph(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.snapshot(&mut self.engine);
        }
    }

    /// Nothing is read or released any more: what waits is kept, once everything that was released has been appended.
    pub(super) fn end_journal(&mut self) {
        if let Some(journal) = &mut self.journal
            && !journal.is_ending()
            && !journal.is_behind(self.engine.cursor())
        {
            journal.end(&self.engine, self.sources.left(), self.now);
        }
    }

    /// A journal that cannot be written ends the server.
    pub(super) fn fail_with_journal(&mut self) -> io::Result<()> {
        let Some(error) = self.journal.as_mut().and_then(Journal::take_failure) else { return Ok(()) };
        let folder = self.config.journal_directory.clone().unwrap_or_default();
        Err(io::Error::other(format!(
            "journalDirectory: {}: {error}; the next start finds out what is on the disk",
            folder.display()
        )))
    }

    /// When a slow user's time is up. No user comes or goes while the journal lacks released events.
    fn slow_user_deadline(&self) -> Option<Micros> {
        self.congestion.deadline().filter(|_| !self.is_barred())
    }

    /// When a user that is served from the journal may have to be cut off. The same holds for it.
    fn stalled_deadline(&self) -> Option<Micros> {
        self.catch_up.check_deadline().filter(|_| !self.is_barred())
    }
}
