//! The parts of the server, and questions about its state at a moment.

use super::{
    accept::Accepting,
    admin::Admin,
    catch_up::CatchUp,
    census::Census,
    congestion::Congestion,
    context::Context,
    grace::Grace,
    journal::{self, Journal, Opened, Pace},
    lifecycle::{Lifecycle, Phase},
    linger::Lingering,
    liveness::LivenessRounds,
    net::{Net, Ready},
    releasing::Releasing,
    replicated::Replicated,
    report::Reports,
    sizing::{BLOCK_BYTES_MAX, RECORD_BYTES, engine_config},
    sources::Sources,
    stream_clients::StreamClients,
    upstream::Upstream,
    users::Users,
    watch::Watch,
};
use crate::{
    config::{Config, ServerRole},
    disk::Disk,
    engine::{Engine, Released},
    epoch::Epoch,
    identity::Tokens,
    journal::JournalError,
    nats::{leader::Leader, log::Part},
    sequence::{Cursor, SequenceNumber},
    stream::{address::StreamAddress, follower::Follower},
    time::Micros,
};

/// See the [module](super).
#[derive(Debug)]
pub struct Server<N: Net> {
    pub(super) config: Config,
    pub(super) net: N,
    pub(super) engine: Engine,
    pub(super) accepting: Accepting<N::Socket>,
    pub(super) users: Users<N::Socket>,
    pub(super) sources: Sources<N::Socket>,
    /// Clients of the stream that this server hands out.
    pub(super) stream_clients: StreamClients<N::Socket>,
    /// The stream that this server follows, if it is an edge.
    pub(super) upstream: Option<Upstream<N::Socket>>,
    /// The replicated log that this server follows or leads.
    pub(super) replicated: Option<Replicated<N::Socket>>,
    /// The name of this server's sequence of events; an edge has that of its stream.
    pub(super) epoch: Epoch,
    /// Released lines that are being handed out.
    pub(super) released: Released,
    pub(super) releasing: Releasing,
    pub(super) congestion: Congestion,
    pub(super) catch_up: CatchUp,
    /// `None`: nothing is kept.
    pub(super) journal: Option<Journal>,
    pub(super) grace: Grace,
    pub(super) lifecycle: Lifecycle,
    pub(super) admin: Admin<N::Socket>,
    /// Connections that are closed on this side.
    pub(super) lingering: Lingering<N::Socket>,
    /// When the server looks for peers that have vanished.
    pub(super) rounds: LivenessRounds,
    pub(super) watch: Watch,
    pub(super) census: Census,
    pub(super) reports: Reports,
    /// The last answer of the net.
    pub(super) ready: Vec<Ready>,
    pub(super) now: Micros,
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
            ServerRole::Sequencer => {
                Part::Sequencer { first_sequence: SequenceNumber::new(config.first_sequence) }
            }
            _ => Part::Edge,
        };
        let block_bytes_max = BLOCK_BYTES_MAX + config.max_event_bytes;
        let replicated = Replicated::new(&config, block_bytes_max, part, now);
        let follow = |address| Upstream::new(address, Follower::new(None, false, now));
        let is_server = |address: &StreamAddress| !matches!(address, StreamAddress::Nats { .. });
        let upstream = config.stream.clone().filter(is_server).map(follow);
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
            catch_up: CatchUp::new(&config, Pace::default()),
            journal: None,
            lifecycle: Lifecycle::new(&config),
            admin: Admin::new(&config, now),
            lingering: Lingering::new(),
            rounds: LivenessRounds::default(),
            watch: Watch::new(&config, now),
            census: Census::default(),
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
    /// If the journal is damaged, is a copy, or cannot be read or written: one sentence. If the net tells the server to end
    /// meanwhile, and the journal has been read only in part.
    pub fn recover(
        config: Config,
        net: N,
        disk: Box<dyn Disk>,
        clock: impl Fn() -> Micros,
    ) -> Result<Self, JournalError> {
        Self::recover_at(Pace::default(), config, net, disk, clock)
    }

    /// The same, at another pace.
    ///
    /// # Errors
    ///
    /// As [`Server::recover`].
    pub fn recover_at(
        pace: Pace,
        config: Config,
        net: N,
        disk: Box<dyn Disk>,
        clock: impl Fn() -> Micros,
    ) -> Result<Self, JournalError> {
        let began = clock();
        let mut server = Self::new(config, net, began);
        let Self { config, engine, net, .. } = &mut server;
        let told_to_end = &mut || net.told_to_end();
        let Opened { mut journal, report } = Journal::open(disk, config, engine, (began, pace), told_to_end)?;
        server.catch_up = CatchUp::new(&server.config, pace);
        server.now = clock();
        journal.note_recovery(server.now - began);
        journal::report_recovery(&journal, &report, server.now - began);
        server.epoch = journal.log().epoch();
        if let Some(upstream) = &mut server.upstream {
            upstream.resume(journal.stream(), began);
        } else if let Some(replicated) = &mut server.replicated {
            let note = journal.log_mut().note();
            replicated.resume(journal.stream(), note.as_deref(), server.engine.cursor());
        } else if server.engine.cursor() != Cursor::before(SequenceNumber::new(server.config.first_sequence))
        {
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

    pub(super) fn users(&mut self) -> (&mut Users<N::Socket>, Context<'_, N>) {
        let epoch = self.epoch();
        let context = Context {
            engine: &mut self.engine,
            net: &mut self.net,
            congestion: &mut self.congestion,
            catch_up: &mut self.catch_up,
            reports: &mut self.reports,
            log: self.journal.as_mut().map(Journal::log_mut),
            epoch,
            first_sequence: SequenceNumber::new(if self.config.role == ServerRole::Edge {
                0
            } else {
                self.config.first_sequence
            }),
            now: self.now,
        };
        (&mut self.users, context)
    }

    /// The phase of the server's life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.lifecycle.phase()
    }

    /// The world that it runs in.
    pub fn net_mut(&mut self) -> &mut N {
        &mut self.net
    }
}

/// The reasons for which the server waits.
impl<N: Net> Server<N> {
    /// Slow users or the journal hold up the sources, or this turn is to be a quiet one: nothing is read or released.
    pub(super) fn is_paused(&self) -> bool {
        let is_quiet = || self.journal.as_ref().is_some_and(|journal| journal.wants_quiet_turn(self.now));
        self.congestion.is_paused() || self.is_barred() || self.is_log_closed() || is_quiet()
    }

    /// Neither are sources held up, nor do they have to wait for a pass over the journal.
    pub(super) fn reads_sources(&self) -> bool {
        !self.is_paused() && !self.catch_up.holds_sources()
    }

    /// The journal lacks released events: no user may be sent them, and nothing more may be released.
    pub(super) fn is_barred(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::is_closed)
    }

    /// The log does not take more: nothing may be released.
    pub(super) fn is_log_closed(&self) -> bool {
        self.replicated.as_ref().is_some_and(Replicated::is_closed)
    }

    /// The stream that this server follows or leads cannot be reached.
    pub(super) fn stream_away(&self) -> bool {
        self.upstream.as_ref().is_some_and(|upstream| upstream.away_since().is_some())
            || self.replicated.as_ref().is_some_and(|replicated| replicated.log().away_since().is_some())
    }

    /// Whether every source waits for a gap that is never given up.
    pub(super) fn waits_for_ever(&self) -> bool {
        self.config.event_timeout_ms < 0 && self.sources.is_stuck()
    }
}

/// How far everything is.
impl<N: Net> Server<N> {
    pub(super) fn is_sequencer(&self) -> bool {
        self.config.role == ServerRole::Sequencer
    }

    /// The name of this server's sequence of events. `None`: an edge that has not reached its stream yet.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        match (&self.upstream, &self.replicated) {
            (Some(upstream), _) => upstream.epoch(),
            // While an edge starts again, no client can name a place.
            (None, Some(replicated)) => {
                replicated.log().epoch().filter(|_| self.is_sequencer() || replicated.serves())
            }
            (None, None) => Some(self.epoch),
        }
    }

    /// Everything below is dealt with, and as durable as it gets here.
    pub(super) fn acknowledgeable(&self) -> Cursor {
        let kept = self.journal.as_ref().map(|journal| journal.log().acknowledgeable());
        kept.or_else(|| self.confirmed()).unwrap_or_else(|| self.engine.cursor())
    }

    /// Everything below is confirmed by the log. `None`: there is none that this server publishes to.
    pub(super) fn confirmed(&self) -> Option<Cursor> {
        let log = self.replicated.as_ref().filter(|_| self.is_sequencer())?.log();
        Some(
            log.known_place()
                .map_or(Cursor::before(SequenceNumber::new(self.config.first_sequence)), |place| {
                    place.cursor
                }),
        )
    }

    pub(super) fn journal_has_ended(&self) -> bool {
        self.journal.as_ref().is_none_or(Journal::has_ended)
    }

    /// At the end: the log has everything, and knows that this server leads no more.
    pub(super) fn log_has_ended(&self) -> bool {
        let leader = self.replicated.as_ref().and_then(|replicated| replicated.log().leader());
        leader.is_none_or(Leader::has_ended)
    }

    /// Journal and log have everything that they will be given.
    pub(super) fn is_all_kept(&self) -> bool {
        self.journal_has_ended() && self.log_has_ended()
    }

    /// Users and clients of the stream have.
    pub(super) fn clients_have_gone(&self) -> bool {
        self.users.connected() == 0 && self.stream_clients.is_empty()
    }

    /// While the server ends: nobody is owed anything any more.
    pub(super) fn have_all_gone(&self) -> bool {
        self.clients_have_gone()
            && self.is_all_kept()
            && !self.sources.wait_for_acknowledgements()
            && self.users.have_all_been_closed()
            && self.lingering.is_empty()
    }
}
