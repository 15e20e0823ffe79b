//! The server: connections in, output buffers out, logins, limits, congestion, deadlines.
//!
//! It owns every connection and the [`Engine`], and runs on whatever implements [`Net`]: sockets of the operating
//! system or simulated ones. It is made of parts that keep their state to themselves:
//!
//! - [`accept`]: the listeners; [`admit`]: who is let in;
//! - [`users`]: connections on the user port, who logs in and who leaves; [`delivery`]: what they are sent, through
//!   [`output`] buffers, with `busyPoll` a few at a time ([`rotation`]);
//! - [`resuming`]: users that log in with a place; [`catch_up`]: users that are served from the journal, by a [`pass`] over it;
//! - [`sources`]: event sources, what they have sent, and which of them wait for room in the ring;
//! - [`congestion`]: slow users, which hold up the sources, and for how long in all ([`share`]);
//! - [`journal`]: what was released is on disk before anybody is sent it; [`barrier`]: where the turn waits for that;
//! - [`grace`]: sources that resume and are expected back;
//! - [`lifecycle`]: the end; [`linger`]: closing connections so that nothing is lost;
//! - [`admin`]: the connections of those who ask how it is going, and [`watch`] and [`health`], what they are told;
//! - [`stream_clients`]: who is handed the whole released stream; [`upstream`]: the stream that an edge takes in place of
//!   event sources; [`streaming`]: how both have their turns;
//! - [`replicated`]: the connection to the replicated log; [`replication`]: following it, leading it, publishing to it;
//! - [`report`]: the log.
//!
//! [`Server::turn`] is the order in which the parts have their turns. [`release`] is the way of the events from part to
//! part.
//!
//! Three rules shape the order. *Collect, then act*: [`Server::collect`] only notes down what is ready. *Logins that
//! reached the server before an event did are served before it*: after every read of a source, and before its bytes are
//! looked at, the world is asked once more what is ready, and users are served ([`Server::look_again`]). *Users come
//! and go between turns of the engine*: [`Server::deliver`] hands out what has been released, and only then lets users
//! in and out.
//!
//! Readiness is edge-triggered. So it is kept with the connection until an operation would block. A connection whose
//! budget ran out stays on a list and comes round again.

mod accept;
mod admin;
mod admit;
mod barrier;
mod catch_up;
mod chunk;
mod congestion;
mod delivery;
mod grace;
mod health;
mod journal;
mod key;
mod lifecycle;
mod linger;
mod lost;
pub mod net;
mod output;
mod pass;
mod release;
mod replicated;
mod replication;
mod report;
mod resuming;
mod rotation;
mod share;
mod sizing;
mod sources;
mod stream_clients;
mod streaming;
mod takeovers;
mod token_desk;
mod upstream;
mod users;
mod watch;

use crate::{
    admin::{Snapshot, answer},
    config::{Config, ServerRole},
    counters::{Counters, DisconnectReason},
    disk::Disk,
    engine::{Engine, Released},
    epoch::Epoch,
    identity::Tokens,
    journal::{JournalError, Log},
    nats::log::Part,
    stream::{address::StreamAddress, follower::Follower},
    time::Micros,
};
use accept::Accepting;
use admin::Admin;
use catch_up::CatchUp;
use congestion::Congestion;
use grace::Grace;
use journal::{Journal, Opened};
use key::{Key, SourceKey, StreamKey};
use lifecycle::Lifecycle;
use net::{Net, Port, Ready};
use release::Releasing;
use replicated::Replicated;
use replication::BLOCK_BYTES_MAX;
use report::Reports;
use sizing::engine_config;
use sources::{Admission, Sources};
use std::io::{self, ErrorKind};
use stream_clients::StreamClients;
use streaming::RECORD_BYTES;
use upstream::Upstream;
use users::Users;
use watch::{PauseReason, View, Watch};

pub use lifecycle::Phase;

/// Reads before the turn is delivered, whatever is owed. So nobody waits for longer, however small the pieces are in
/// which sources send.
const READS_PER_TURN: usize = 64;
/// How often connections are accepted before events get their turn: once, and then their logins are read.
const ACCEPT_ROUNDS: usize = 2;

/// See the [module](self).
#[derive(Debug)]
pub struct Server<N: Net> {
    config: Config,
    net: N,
    engine: Engine,
    accepting: Accepting<N::Socket>,
    users: Users<N::Socket>,
    sources: Sources<N::Socket>,
    /// Clients of the stream that this server hands out.
    stream_clients: StreamClients<N::Socket>,
    /// The stream that this server follows, if it is an edge.
    upstream: Option<Upstream<N::Socket>>,
    /// The replicated log that this server follows or leads.
    replicated: Option<Replicated<N::Socket>>,
    /// The name of this server's sequence of events; an edge has that of its stream.
    epoch: Epoch,
    /// What has been released and is being handed out.
    released: Released,
    releasing: Releasing,
    congestion: Congestion,
    catch_up: CatchUp,
    /// `None`: nothing is kept.
    journal: Option<Journal>,
    grace: Grace,
    lifecycle: Lifecycle,
    admin: Admin<N::Socket>,
    watch: Watch,
    reports: Reports,
    /// What the net said last.
    ready: Vec<Ready>,
    now: Micros,
}

/// The parts that take note when a user comes, goes, or is written to.
struct Context<'a, N> {
    engine: &'a mut Engine,
    net: &'a mut N,
    congestion: &'a mut Congestion,
    catch_up: &'a mut CatchUp,
    reports: &'a mut Reports,
    log: Option<&'a mut Log>,
    /// `None`: this server has not reached its stream yet.
    epoch: Option<Epoch>,
    first_sequence: u64,
    now: Micros,
}

impl<N: Net> Server<N> {
    /// A server on listeners that are up. `now` is the time of the start.
    #[must_use]
    pub fn new(config: Config, mut net: N, now: Micros) -> Self {
        let mut engine = Engine::new(&engine_config(&config));
        if config.stream_port.is_some() {
            engine.record(RECORD_BYTES, 0);
        }
        let part = match config.role {
            ServerRole::Sequencer => Part::Sequencer { first_sequence: config.first_sequence },
            _ => Part::Edge,
        };
        let block_bytes_max = BLOCK_BYTES_MAX + config.max_event_bytes;
        let replicated = Replicated::new(&config, block_bytes_max, part, now);
        let follow = |address| Upstream::new(address, Follower::new(None, false, now));
        let is_tcp = |address: &StreamAddress| matches!(address, StreamAddress::Tcp(_));
        let upstream = config.stream.clone().filter(is_tcp).map(follow);
        let epoch = Epoch::new(net.random());
        Self {
            engine,
            grace: Grace::new(&config),
            net,
            accepting: Accepting::new(),
            users: Users::new(&config),
            sources: Sources::new(&config),
            stream_clients: StreamClients::new(&config),
            upstream,
            replicated,
            epoch,
            released: Released::default(),
            releasing: Releasing::default(),
            congestion: Congestion::new(&config),
            catch_up: CatchUp::new(&config),
            journal: None,
            lifecycle: Lifecycle::new(&config),
            admin: Admin::new(&config, now),
            watch: Watch::new(&config, now),
            reports: Reports::new(&config, now),
            config,
            ready: Vec::new(),
            now,
        }
    }

    /// A server that goes on where the journal on this disk ends, and keeps everything there. `clock` tells the time: to say how
    /// long that took.
    ///
    /// # Errors
    ///
    /// If the journal is damaged, is a copy, or cannot be read or written: one sentence.
    pub fn recover(
        config: Config,
        net: N,
        disk: Box<dyn Disk>,
        clock: impl Fn() -> Micros,
    ) -> Result<Self, JournalError> {
        let began = clock();
        let mut server = Self::new(config, net, began);
        let Opened { mut journal, report } = Journal::open(disk, &server.config, &mut server.engine, began)?;
        server.now = clock();
        journal.note_recovery(server.now - began);
        journal::report_recovery(&journal, &report, server.now - began);
        server.epoch = journal.log().epoch();
        if let Some(upstream) = &mut server.upstream {
            upstream.resume(journal.stream(), began);
        } else if server.engine.cursor() != u128::from(server.config.first_sequence) {
            // Sources that were connected before are expected back.
            server.grace.begin(&mut server.engine, server.now);
        }
        server.journal = Some(journal);
        Ok(server)
    }

    /// Asks users for tokens from now on.
    pub fn ask_for_tokens(&mut self, tokens: Tokens) {
        self.users.tokens.ask_for(tokens);
    }

    /// One turn of the loop. [`Server::phase`] says when it was the last one.
    ///
    /// # Errors
    ///
    /// If the server cannot go on, in a sentence: the operating system does not wait for readiness any more, the journal cannot be
    /// written, or an edge's stream is another one than before.
    pub fn turn(&mut self) -> io::Result<()> {
        self.engine.counters.loop_turns += 1;
        let wait = self.wait();
        self.collect(wait)?;
        self.heed_signals();
        // What the disk has done may let others go on.
        self.pass_journal();
        // Users first: who logs in now is told of what is read now.
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
        self.reports.progress(&self.engine, self.sources.connected(), self.now);
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
            self.users.lingering.deadline(),
            self.users.marks.deadline(),
            self.slow_user_deadline(),
            self.catch_up.deadline(),
            self.catch_up.check_deadline(),
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

    /// When the next gap is given up, if one is: not while slow users hold up the sources, and not at the end.
    fn gap_deadline(&mut self) -> Option<Micros> {
        let may_give_up = !self.is_paused() && self.phase() == Phase::Running;
        self.engine.next_deadline().filter(|_| may_give_up)
    }

    /// Asks the net what is ready, and notes it down. Nothing is done about it.
    fn collect(&mut self, wait: Option<Micros>) -> io::Result<()> {
        self.ready.clear();
        let polled = self.net.poll(wait, &mut self.ready);
        let now = polled.map_err(|error| io::Error::other(format!("cannot wait for events: {error}")))?;
        self.pass_time(now);
        for index in 0..self.ready.len() {
            match self.ready[index] {
                Ready::Listener(Port::Admin) => self.admin.note_listener(now),
                Ready::Listener(port) => self.accepting.note_ready(port),
                Ready::Signal => self.lifecycle.note_signal(),
                Ready::Reload => self.users.tokens.reload(&self.config),
                // The next turn of the journal looks at what that is.
                Ready::Disk => {}
                Ready::Socket { key, readable, writable, hung_up, urgent } => match Key::of(key) {
                    Key::Source(key) => self.sources.note_ready(key, hung_up, urgent),
                    Key::User(key) => self.users.note_ready(key, readable, hung_up, writable),
                    Key::Admin(key) => self.admin.note_ready(key),
                    Key::Stream(StreamKey::UPSTREAM) => {
                        if let Some(upstream) = &mut self.upstream {
                            upstream.note_ready(readable || hung_up, writable);
                        }
                        if let Some(replicated) = &mut self.replicated {
                            replicated.note_ready(readable || hung_up, writable);
                        }
                    }
                    Key::Stream(key) => self.stream_clients.note_ready(key, readable || hung_up, writable),
                },
            }
        }
        Ok(())
    }

    fn pass_time(&mut self, now: Micros) {
        let paused = if self.congestion.is_paused() {
            Some(PauseReason::SlowUser)
        } else if self.is_log_closed() {
            Some(PauseReason::Stream)
        } else {
            self.is_barred().then_some(PauseReason::Journal)
        };
        let any_blocked = self.sources.blocked() > 0;
        let stream_away = self.stream_away();
        self.watch.pass_time(self.now, now, paused, any_blocked, stream_away, &mut self.engine.counters);
        let most_wait_for_nothing = self.users.most_have_nothing_waiting(self.engine.users());
        self.congestion.pass_time(most_wait_for_nothing && !self.is_barred(), now);
        self.now = now;
    }

    fn heed_signals(&mut self) {
        if self.lifecycle.has_signals() && self.lifecycle.heed_signals(self.now) {
            self.accepting.close(&mut self.net, &mut self.reports, self.now);
            self.sources.read_only_what_has_arrived();
            self.sources.look(&mut self.net);
            if self.journal.is_some() {
                // What waits for missing events is kept for the next start.
                self.engine.hold_gaps(true, self.now);
            }
        }
    }

    /// Everything that users want: to be written to, hang-ups, logins, connections; in the order in which they came.
    ///
    /// A new connection is not read right away, even if its login is probably there: the login of an older connection
    /// may have come before, unnoticed so far. So the net is asked again. It tells of both in their order.
    fn serve_users(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPT_ROUNDS {
            self.read_users();
            if !self.accept(Port::User)? {
                break;
            }
            self.collect(Some(0))?;
        }
        Ok(())
    }

    fn read_users(&mut self) {
        let (users, mut context) = self.users();
        users.flush_writable(&mut context);
        users.read(context.now);
        if self.users.has_changes() {
            self.deliver();
        } else {
            self.control_congestion();
        }
    }

    /// Between reading a source and looking at the bytes: logins that were there before are served first.
    fn look_again(&mut self) -> io::Result<()> {
        self.collect(Some(0))?;
        self.serve_users()
    }

    /// Reads the sources that can be read, in turn, until there is nothing left or the turn is full. Returns how many
    /// reads that were.
    fn read_sources(&mut self) -> io::Result<usize> {
        self.accept_sources()?;
        self.release();
        self.feed_kept();
        let most = self.reads_per_turn();
        let mut reads = 0;
        while self.may_read() {
            if self.sources.unblock(&self.engine) {
                if self.feed() {
                    break;
                }
            } else if reads < most && self.read_source() {
                reads += 1;
                self.look_again()?;
            } else {
                break;
            }
        }
        Ok(reads)
    }

    /// Where users take turns, each source is read once a turn, unless the end has begun.
    fn reads_per_turn(&self) -> usize {
        let once_round = self.config.busy_poll && self.phase() == Phase::Running;
        if once_round { self.sources.readable().min(READS_PER_TURN) } else { READS_PER_TURN }
    }

    fn read_source(&mut self) -> bool {
        let before = self.sources.connected();
        let read = self.sources.read_next(&mut self.engine, &mut self.reports, self.now);
        self.note_sources_gone(before);
        read
    }

    /// Some sources may have gone. The last one takes its run with it, where that is wanted.
    fn note_sources_gone(&mut self, before: usize) {
        let all_gone = before > 0 && self.sources.connected() == 0;
        self.releasing.run_over |= all_gone && self.config.reset_on_source_eof;
    }

    /// Whether sources can be read: nobody holds them up. Before a new run the chunk that was read is fed to its end,
    /// and no other is read.
    fn may_read(&self) -> bool {
        !self.is_paused()
            && !self.releasing.interrupted
            && (!self.releasing.run_over || self.sources.has_chunk())
    }

    /// A run is over, and nothing keeps the next one from beginning.
    fn run_can_end(&self) -> bool {
        self.releasing.run_over && (self.phase() == Phase::Running || self.engine.waiting() == 0)
    }

    /// Slow users or the journal hold up the sources.
    fn is_paused(&self) -> bool {
        self.congestion.is_paused() || self.is_barred() || self.is_log_closed()
    }

    /// Hands out what has been released, once the journal has it. Then, and only then, users come and go.
    fn deliver(&mut self) {
        if !self.pass_barrier() {
            return;
        }
        self.hand_out();
        let (users, mut context) = self.users();
        users.deliver(&mut context);
        users.come_and_go(&mut context);
        self.control_congestion();
    }

    /// Has sources wait for slow users, or go on.
    fn control_congestion(&mut self) {
        if self.congestion.must_pause() {
            self.congestion.pause(self.users.paces(), self.now);
        } else if let Some(paused) = self.congestion.resume(self.now) {
            self.engine.postpone(paused);
        }
    }

    /// With `busyPoll`: writes to the users whose turn it is.
    fn write_due(&mut self, reads: usize) {
        let (users, mut context) = self.users();
        users.write_due(reads, &mut context);
        users.read_chatter(context.now);
        self.deliver();
    }

    /// Does what is due. What is due is judged after a look at all sockets that began after its time was up: who was stopped
    /// itself must not blame others for being late.
    fn meet_deadlines(&mut self) -> io::Result<()> {
        let slow = self.slow_user_deadline().into_iter().chain(self.catch_up.check_deadline());
        let due = slow.chain(self.users.login_deadline()).min();
        if due.is_some_and(|at| at <= self.now) {
            let began = self.now;
            self.look_again()?;
            for key in self.congestion.overdue(began) {
                self.users.leaves(key, DisconnectReason::Slow);
            }
            let (users, mut context) = self.users();
            users.end_stalled(began, &mut context);
            users.end_overdue_logins(began);
            self.deliver();
        }
        if self.users.end_overdue_tokens(self.now) {
            self.deliver();
        }
        self.give_up_gaps()
    }

    /// Takes the next step towards the end, if it has begun: what had arrived is read and released, then users are sent what
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
            // Users go once they have what they are owed; nobody is sent what a stalled journal does not have.
            if self.have_all_gone() || (no_more_time && (self.clients_have_gone() || self.is_barred())) {
                self.reports.summary(&mut self.engine);
                self.lifecycle.finish();
            }
        }
    }

    /// Tells the sources that asked what is dealt with.
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

    /// A source that has not given the name of one that is connected is one too many.
    fn turn_source_away(&mut self, key: SourceKey) {
        if let Some(peer) = self.sources.turn_away(key) {
            self.sources.silence.turned_away(self.now);
            self.reports.turned_away(Port::Source, peer, &mut self.engine.counters, self.now);
        }
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

    /// Closes the sockets of all connections that have come to their ends.
    fn reap(&mut self) {
        let freed = self.users.reap(&mut self.net, self.now) | self.sources.reap() | self.admin.reap();
        if freed {
            self.accepting.descriptor_freed();
        }
    }

    /// Answers whoever asks how it is going, if it is time.
    fn serve_admin(&mut self) {
        self.watch.look(&self.engine, self.sources.blocked() > 0, self.is_paused(), self.now);
        if self.admin.deadline().is_none_or(|at| at > self.now) {
            return;
        }
        let (admin, net, view) = self.view();
        let now = view.now;
        admin.serve(net, now, |request| answer(request, &view.snapshot()));
        self.engine.counters.admin_rejected += self.admin.take_displaced();
    }

    /// The numbers as they are now.
    pub fn snapshot(&mut self) -> Snapshot<'_> {
        let (_, _, view) = self.view();
        view.snapshot()
    }

    fn view(&mut self) -> (&mut Admin<N::Socket>, &mut N, View<'_, N::Socket>) {
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
            health,
            config: &self.config,
            stream,
            given_up_at,
            now: self.now,
        };
        (&mut self.admin, &mut self.net, view)
    }

    fn users(&mut self) -> (&mut Users<N::Socket>, Context<'_, N>) {
        let epoch = self.epoch();
        let context = Context {
            engine: &mut self.engine,
            net: &mut self.net,
            congestion: &mut self.congestion,
            catch_up: &mut self.catch_up,
            reports: &mut self.reports,
            log: self.journal.as_mut().map(Journal::log_mut),
            epoch,
            first_sequence: if self.upstream.is_some() { 0 } else { self.config.first_sequence },
            now: self.now,
        };
        (&mut self.users, context)
    }

    /// Where the server is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.lifecycle.phase()
    }

    /// Everything that is counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.engine.counters
    }

    /// The world that it runs in.
    pub fn net_mut(&mut self) -> &mut N {
        &mut self.net
    }
}

/// An error that says that it may be tried again at once.
fn is_interrupted(error: &io::Error) -> bool {
    error.kind() == ErrorKind::Interrupted
}

/// An error that says that there is nothing to do now.
fn would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}
