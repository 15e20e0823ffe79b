//! Holds every turn of the server against SPEC sections 1 to 5.
//!
//! The [`Model`] gets the log of what the server did to its network in a turn and what it says about itself afterwards, and
//! checks that this is what it had to do. Where the SPEC leaves it to the server when exactly to do something, the
//! model may not know what it has done: then a turn leads to more than one model, and the next turns tell.
//!
//! Before the server sleeps, everything must have been done: time only goes on while it sleeps.

mod clients;
mod order;

use std::{collections::BTreeMap, io::ErrorKind, ops::Range, rc::Rc};

use fortnight::internals::{
    config::Config,
    counters::{Counters, DisconnectReason},
    engine::event::Reject,
    server::{Phase, net::Port},
    time::{MILLISECOND, Micros, SECOND},
};

pub(crate) use order::CANNOT_TELL;
use order::{Order, any};

use crate::{
    chaos::Arrivals,
    coverage::Coverage,
    people::People,
    ring::{Moment, Ring},
    share::HeldUp,
    watch::Seen,
};

/// Most that is read of a source at once.
const READ_BYTES: usize = 256 << 10;

/// A turn that owes less is never full.
const FULL_TURN_BYTES: usize = 4096;

/// What the server says about itself after a turn, and what the network knows.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) counters: Counters,
    pub(crate) cursor: u128,
    pub(crate) waiting: usize,
    /// Slow users hold up the sources.
    pub(crate) paused: bool,
    pub(crate) buffered_bytes: usize,
    pub(crate) users: usize,
    pub(crate) sources: usize,
    pub(crate) edges: u64,
    pub(crate) phase: Phase,
    /// Connections with unread bytes that the server has been told of.
    pub(crate) unread: Vec<usize>,
    /// Connections with unread bytes, also if the server knows nothing of them.
    pub(crate) lying: Vec<usize>,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Model {
    config: Rc<Config>,
    now: Moment,
    turn: u64,
    /// When the turn began. What is due later is decided in the next one, after a look at all sockets.
    turn_began: Micros,
    ring: Ring,
    people: People,
    last: Report,
    /// Accepted, and not registered.
    fresh: Vec<(Port, usize)>,
    /// Registering failed.
    dropped: Vec<usize>,
    /// Connections of users that are over and whose sockets are open: the turn since which that is so.
    ending: BTreeMap<usize, u64>,
    /// Sources that the server has closed of its own accord.
    closing: Vec<usize>,
    rejected: [u64; 2],
    closed: [u64; DisconnectReason::ALL.len()],
    written: u64,
    reset_due: bool,
    /// When accepting failed for lack of descriptors.
    refused_at: [Option<Micros>; 2],
    /// Whatever arrived on the user port up to then, by [`Arrivals::clock`], may have waited for that.
    accepting_since: u64,
    shutdown_at: Option<Micros>,
    /// What must not be left undone when the server sleeps.
    undone: Option<String>,
    /// Sources have been read in this turn.
    has_read: bool,
    /// When the first byte arrived that a source has sent, and that was not read in this turn.
    overlooked_since: Option<Micros>,
    /// When the server saw on the clock that the time of a hole is up. The look that decides about it begins then, or later.
    due_seen_at: Option<Micros>,
    held_up: HeldUp,
}

impl Model {
    pub(crate) fn new(config: Config, first: Report) -> Model {
        Model {
            ring: Ring::new(&config),
            config: Rc::new(config),
            now: Moment { now: 0, paused: 0 },
            turn: 0,
            turn_began: 0,
            people: People::default(),
            last: first,
            fresh: Vec::new(),
            dropped: Vec::new(),
            ending: BTreeMap::new(),
            closing: Vec::new(),
            rejected: [0; 2],
            closed: [0; DisconnectReason::ALL.len()],
            written: 0,
            reset_due: false,
            refused_at: [None; 2],
            accepting_since: 0,
            shutdown_at: None,
            undone: None,
            has_read: false,
            overlooked_since: None,
            due_seen_at: None,
            held_up: HeldUp::default(),
        }
    }

    /// A turn of the server: what can have come of it, or what is wrong with it.
    pub(crate) fn turn(
        mut self,
        log: &[Seen],
        report: &Report,
        arrivals: &Arrivals,
        coverage: &mut Coverage,
    ) -> Result<Vec<Model>, String> {
        self.turn += 1;
        self.check_ending()?;
        self.has_read = false;
        self.people.begin_turn();
        if let Some(Seen::Poll { wait, now }) = log.first() {
            if *wait != Some(0) {
                self.check_sleep()?;
            }
            self.turn_began = *now;
        }
        let (usual, others) = self.orders(log);
        let mut pass = |order| self.clone().passes(log, order, report, arrivals, coverage);
        // The others only where the usual ones explain nothing: or there would be too many possibilities.
        any(usual.into_iter().map(&mut pass))
            .or_else(|problem| match any(others.into_iter().map(&mut pass)) {
                Ok(models) if !models.is_empty() => Ok(models),
                _ => Err(problem),
            })
            .or_else(|problem| {
                let in_between = self.in_between(log).ok_or(problem.clone())?;
                let puts_off = self.config.busy_poll;
                let models = self.passes(log, in_between, report, arrivals, coverage);
                models.map_err(|_| if puts_off { format!("{CANNOT_TELL}: {problem}") } else { problem })
            })
    }

    /// A turn in which things happen in this order.
    fn passes(
        mut self,
        log: &[Seen],
        Order { taken_at, released_at, is_in_between }: Order,
        report: &Report,
        arrivals: &Arrivals,
        coverage: &mut Coverage,
    ) -> Result<Vec<Model>, String> {
        let see = |model: &mut Model, range: Range<usize>, coverage: &mut Coverage| {
            range
                .into_iter()
                .try_for_each(|index| model.see(&log[index], &log[index..], report, arrivals, coverage))
        };
        self.people.splits_turns = is_in_between;
        if let Some(at) = taken_at {
            see(&mut self, 0..at, coverage)?;
            self.ring.take(None, self.now, &mut self.people)?;
        }
        see(&mut self, taken_at.unwrap_or(0)..released_at, coverage)?;
        let rest = |model: &mut Model, coverage: &mut Coverage| see(model, released_at..log.len(), coverage);
        self.ring.take(Some(report.counters.events_received), self.now, &mut self.people)?;
        self.ring.note_held_back(self.now);
        self.overlooked_since = self.ring.overlooked_since(&report.lying, &arrivals.times);
        let mut held_back = self.clone();
        let matters = held_back.ring.hold_back_current(self.now);
        let models = held_back.decide(report, coverage, rest);
        let is_full = |model: &Model| model.people.told_bytes >= FULL_TURN_BYTES;
        if matters && models.as_ref().map_or(true, |models| models.iter().any(is_full)) {
            // The turn may have been full before the server looked at the next line.
            return any([models, self.decide(report, coverage, rest)].into_iter());
        }
        models
    }

    fn see(
        &mut self,
        seen: &Seen,
        rest: &[Seen],
        report: &Report,
        arrivals: &Arrivals,
        coverage: &mut Coverage,
    ) -> Result<(), String> {
        match seen {
            Seen::Poll { now, .. } => {
                self.now = Moment { now: *now, paused: report.counters.paused_slow_user };
                let is_due = self.ring.has_due_hole(self.now);
                self.due_seen_at = is_due.then(|| self.due_seen_at.unwrap_or(*now));
            }
            &Seen::Accepted(port, peer) => {
                self.fresh.push((port, peer));
                self.accepting_again(port, arrivals, coverage);
            }
            &Seen::NotAccepted(port, number) => {
                self.accepting_again(port, arrivals, coverage);
                let errno = rustix::io::Errno::from_raw_os_error(number);
                use rustix::io::Errno;
                if [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&errno) {
                    self.refused_at[port as usize] = Some(self.now.now);
                }
            }
            &Seen::Registered(peer, done) => self.registered(peer, done),
            &Seen::WantWrite(peer, on, outcome) => {
                if let Some(client) = self.people.clients.get_mut(&peer) {
                    match outcome {
                        Ok(()) => client.wants_write = on,
                        Err(kind) => client.cause(clients::end_of(kind)),
                    }
                }
            }
            Seen::Read(peer, outcome) if self.ring.sources.contains_key(peer) => {
                self.source_read(*peer, outcome, arrivals, coverage)?;
            }
            Seen::Read(peer, outcome) => {
                self.client_read(*peer, outcome, rest, report, arrivals, coverage)?;
            }
            Seen::Wrote(peer, offered, outcome) => self.wrote(*peer, *offered, outcome)?,
            Seen::Forgotten(peer) => self.client_ends(*peer),
            Seen::Finished(peer) => self.client_lingers(*peer, coverage),
            Seen::Closed(peer) if self.ending.contains_key(peer) => self.client_closes(*peer, coverage),
            &Seen::Closed(peer) => self.closes(peer, report, coverage)?,
        }
        Ok(())
    }

    /// A source is closed. Says whether it had lines that could have been taken.
    fn close_source(&mut self, peer: usize) -> bool {
        self.ring.close(peer, self.now)
    }

    fn accepting_again(&mut self, port: Port, arrivals: &Arrivals, coverage: &mut Coverage) {
        let Some(at) = self.refused_at[port as usize].take() else { return };
        coverage.add("deadline: accepting again", u64::from(self.now.now >= at + SECOND));
        if port == Port::User {
            self.accepting_since = arrivals.clock;
        }
    }

    fn registered(&mut self, peer: usize, done: bool) {
        let Some(at) = self.fresh.iter().position(|&(_, fresh)| fresh == peer) else {
            return;
        };
        let (port, _) = self.fresh.swap_remove(at);
        if !done {
            self.dropped.push(peer);
        } else if port == Port::Source {
            self.ring.connect(peer);
        } else {
            self.people.connect(peer, self.now.now + self.config.login_timeout_ms * MILLISECOND);
        }
    }

    fn source_read(
        &mut self,
        peer: usize,
        outcome: &Result<Vec<u8>, ErrorKind>,
        arrivals: &Arrivals,
        coverage: &mut Coverage,
    ) -> Result<(), String> {
        if self.last.paused && !self.has_read {
            self.check_resumed()?;
        }
        self.has_read = true;
        self.people.is_late = true;
        if self.reset_due {
            return Err(format!("source {peer} was read before the last run was over"));
        }
        self.ring.take(None, self.now, &mut self.people)?;
        match outcome {
            Ok(bytes) if bytes.is_empty() => self.source_ends(peer),
            Ok(bytes) => {
                if bytes.len() == READ_BYTES {
                    coverage.count("sources: budget used up");
                }
                let arrived = arrivals.sources.get(&peer).map_or(&[][..], Vec::as_slice);
                self.ring.read(peer, bytes, arrived, self.now)?;
            }
            Err(ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.source_ends(peer),
        }
        Ok(())
    }

    /// A source has been read to its end. With the last one its run is over.
    fn source_ends(&mut self, peer: usize) {
        self.ring.end(peer);
        self.reset_due |= self.config.reset_on_source_eof && self.ring.live().next().is_none();
    }

    /// Sources are read again after a pause: nobody may be above half of its buffer.
    fn check_resumed(&self) -> Result<(), String> {
        let half = self.config.user_buffer_bytes / 2;
        let slow = self.people.clients.iter().find(|(_, client)| {
            client.is_user() && !client.closed && client.causes.is_empty() && client.level() > half
        });
        match slow {
            Some((peer, client)) => Err(format!(
                "sources are read again while {} bytes wait for user connection {peer}, which is more than half of userBufferBytes",
                client.level()
            )),
            None => Ok(()),
        }
    }

    fn closes(&mut self, peer: usize, report: &Report, coverage: &mut Coverage) -> Result<(), String> {
        if let Some(client) = self.people.clients.get_mut(&peer) {
            client.closed = true;
            return Ok(());
        }
        if let Some(source) = self.ring.sources.get(&peer) {
            if !source.over && report.phase == Phase::Running {
                return Err(format!("source {peer} was closed without a reason"));
            }
            if source.over {
                if self.close_source(peer) {
                    return Err(format!("source {peer} was closed before everything was taken that fits"));
                }
            } else {
                // That is the last thing in a turn.
                self.closing.push(peer);
            }
            return Ok(());
        }
        if let Some(at) = self.dropped.iter().position(|&dropped| dropped == peer) {
            self.dropped.swap_remove(at);
            return Ok(());
        }
        let Some(at) = self.fresh.iter().position(|&(_, fresh)| fresh == peer) else {
            return Ok(());
        };
        let (port, _) = self.fresh.swap_remove(at);
        if port == Port::Source && report.phase != Phase::Running {
            // It waited for one that had hung up, and either the time is over or it is one too many.
            self.rejected[0] = self.rejected[0].max(report.counters.sources_rejected);
            return Ok(());
        }
        let (connected, most) = if port == Port::Source {
            coverage.count("connections: source too many");
            (self.ring.open().count(), self.config.max_event_source_clients)
        } else {
            coverage.count("connections: user too many");
            let open = self.people.clients.values().filter(|client| !client.closed).count();
            (open, self.config.max_user_clients)
        };
        self.rejected[usize::from(port == Port::User)] += 1;
        if connected < most as usize {
            return Err(format!(
                "connection {peer} was rejected, but only {connected} of {most} are connected"
            ));
        }
        Ok(())
    }

    /// Finds out what the server has given up and released, and checks the turn for each possibility.
    /// `rest` is what happened after that.
    fn decide(
        self,
        report: &Report,
        coverage: &mut Coverage,
        rest: impl Fn(&mut Model, &mut Coverage) -> Result<(), String>,
    ) -> Result<Vec<Model>, String> {
        let mut models = Vec::new();
        let mut wrong = None;
        let mut options = self.ring.options(self.now);
        if self.reset_due
            && let Some(highest) = self.ring.highest().filter(|&highest| highest > self.ring.skip_before)
        {
            // The last run is being brought to its end.
            options.push((highest, ""));
        }
        for (skip_before, why) in options {
            if why == "deadline: hole"
                && let (Some(since), Some(seen)) = (self.overlooked_since, self.due_seen_at)
                && since < seen
            {
                // Holes are given up at the end of a turn: what is unread then had not been read before.
                wrong = Some(format!(
                    "holes below {skip_before} were given up by the clock of {seen}, though a byte lies unread since {since}"
                ));
                continue;
            }
            let reach = self.ring.reach(skip_before);
            let possible = if report.cursor == reach {
                true
            } else {
                // Releasing stops before the end only where a turn is full or a pause begins. The pause may be over again: a user
                // has gone, or one whose time was up at once was looked at once more and took what it was owed.
                report.cursor < reach
                    && self.ring.is_resting_place(report.cursor)
                    && (report.paused
                        || self.people.clients.values().any(|client| client.closed)
                        || self.config.slow_user_timeout_ms == 0
                        || (why.is_empty() && self.ring.has_lines_at(self.ring.cursor))
                        // A hole has been given up, and now a line fits that a source was held back with.
                        || self.ring.has_lines_at(report.cursor)
                        || skip_before == self.ring.skip_before)
            };
            if !possible || self.ring.waiting_at(report.cursor) != report.waiting {
                continue;
            }
            // Where a held back line fits again, what lies behind the cursor may not have been given up.
            let less =
                (report.cursor < reach && self.ring.has_lines_at(report.cursor)).then_some(report.cursor);
            for skip_before in
                [Some(skip_before), less.filter(|&less| less < skip_before)].into_iter().flatten()
            {
                let mut model = self.clone();
                model.ring.skip_before = skip_before;
                match model
                    .ring
                    .release(report.cursor, &mut model.people)
                    .and_then(|()| rest(&mut model, coverage))
                    .and_then(|()| model.settle(report, coverage))
                {
                    Ok(()) => {
                        coverage.add(why, u64::from(!why.is_empty()));
                        models.push(model);
                    }
                    Err(error) => _ = wrong.get_or_insert(error),
                }
            }
        }
        if self.reset_due && report.cursor == u128::from(self.config.first_sequence) && report.waiting == 0 {
            let mut model = self.clone();
            match model
                .begin_run()
                .and_then(|()| rest(&mut model, coverage))
                .and_then(|()| model.settle(report, coverage))
            {
                Ok(()) => {
                    coverage.count("run: new one begins");
                    models.push(model);
                }
                Err(error) => _ = wrong.get_or_insert(error),
            }
        }
        if models.is_empty() {
            return Err(wrong.unwrap_or_else(|| {
                format!(
                    "the cursor is at {} with {} waiting, but can only be at one of {:?}; {}",
                    report.cursor,
                    report.waiting,
                    self.ring
                        .options(self.now)
                        .iter()
                        .map(|&(skip_before, _)| {
                            let reach = self.ring.reach(skip_before);
                            (reach, self.ring.waiting_at(reach))
                        })
                        .collect::<Vec<_>>(),
                    self.ring.sources_told()
                )
            }));
        }
        Ok(models)
    }

    /// The last run is over: everything is released, and a new one begins.
    fn begin_run(&mut self) -> Result<(), String> {
        let all = self.ring.highest().unwrap_or(0).max(self.ring.skip_before);
        self.ring.skip_before = all;
        self.ring.release(self.ring.reach(all), &mut self.people)?;
        self.ring.restart();
        self.people.forget_graph();
        self.reset_due = false;
        Ok(())
    }

    /// Checks everything at the end of a turn.
    fn settle(&mut self, report: &Report, coverage: &mut Coverage) -> Result<(), String> {
        let now = self.now;
        for peer in std::mem::take(&mut self.closing) {
            // Half of the time is kept for flushing.
            let half = self.config.shutdown_timeout_ms * MILLISECOND / 2;
            let is_time_up = self.shutdown_at.map_or(half == 0, |at| now.now + half >= at);
            if self.close_source(peer) && !is_time_up && !matches!(report.phase, Phase::Done { .. }) {
                return Err(format!("source {peer} was closed before everything was taken that fits"));
            }
        }
        self.check_counters(report)?;
        self.check_sources(report)?;
        self.check_clients(report, coverage)?;
        self.check_share(report)?;
        let users = self.people.users();
        if users != report.users {
            return Err(format!("{} users are said to be connected, but it is {users}", report.users));
        }
        if self.people.edges() != report.edges {
            return Err(format!(
                "the graph is said to have {} edges, but it has {}",
                report.edges,
                self.people.edges()
            ));
        }
        if self.shutdown_at.is_none() && report.phase != Phase::Running {
            self.shutdown_at = Some(now.now + self.config.shutdown_timeout_ms * MILLISECOND);
        }
        match (self.last.paused, report.paused) {
            (false, true) => coverage.count("users: pause begins"),
            (true, false) => coverage.count("users: pause ends"),
            _ => {}
        }
        self.undone = self.what_is_undone(report);
        if self.undone.is_none() && self.ring.is_stuck() && !report.paused {
            coverage.count("ring full: waits for ever");
        }
        if report.cursor > u128::from(u64::MAX) && self.last.cursor <= u128::from(u64::MAX) {
            coverage.count("run: there are no more numbers");
        }
        self.last = report.clone();
        Ok(())
    }

    fn check_counters(&mut self, report: &Report) -> Result<(), String> {
        let counters = &report.counters;
        let counted = &mut self.ring.counted;
        let truncated = counters.events_rejected[Reject::Truncated as usize];
        let surely = counted.rejected.entry("truncated").or_default();
        if *surely < truncated && truncated <= *surely + std::mem::take(&mut counted.cut_off) {
            *surely = truncated;
        }
        let same = |what: &str, said: u64, is: u64| {
            if said == is { Ok(()) } else { Err(format!("{what}: the server counts {said}, but it is {is}")) }
        };
        for reason in Reject::ALL {
            let is = counted.rejected.get(reason.name()).copied().unwrap_or(0);
            same(
                &format!("rejected lines ({})", reason.name()),
                counters.events_rejected[reason as usize],
                is,
            )?;
        }
        for kind in 1..6 {
            same("events released", counters.events_released[kind], self.people.released[kind])?;
        }
        let dropped = counted.late + counted.duplicate + counted.either;
        same("late events and duplicates", counters.events_late + counters.events_duplicate, dropped)?;
        if counters.events_late < counted.late || counters.events_duplicate < counted.duplicate {
            return Err(format!(
                "{} late events and {} duplicates are counted, but at least {} and {} are",
                counters.events_late, counters.events_duplicate, counted.late, counted.duplicate
            ));
        }
        let accounted = counters.events_released_total()
            + counters.events_late
            + counters.events_duplicate
            + counters.events_rejected_total()
            - truncated
            + report.waiting as u64
            - counted.voids_waiting;
        same("released, late, duplicate, rejected and waiting", accounted, counters.events_received)?;
        if counters.sequence_skipped > counted.skipped {
            return Err(format!(
                "{} numbers are said to be skipped, but it is {}",
                counters.sequence_skipped, counted.skipped
            ));
        }
        same("bytes written", counters.delivered_bytes, self.written)?;
        same("sources too many", counters.sources_rejected, self.rejected[0])?;
        same("users too many", counters.users_rejected, self.rejected[1])?;
        if counters.deliveries > self.people.deliveries {
            return Err(format!(
                "{} deliveries are counted, but it is {}",
                counters.deliveries, self.people.deliveries
            ));
        }
        // Events released after a user had been closed in the same turn were not delivered to it.
        self.people.deliveries = counters.deliveries;
        Ok(())
    }

    fn check_sources(&mut self, report: &Report) -> Result<(), String> {
        self.ring.note_held_back(self.now);
        let open = self.ring.open().count();
        if open != report.sources {
            return Err(format!("{} sources are said to be connected, but it is {open}", report.sources));
        }
        if let Some((peer, _)) = self.ring.sources.iter().find(|(_, source)| source.over)
            && self.ring.open().any(|open| open == *peer)
        {
            return Err(format!("source {peer} has ended and should have been closed"));
        }
        let most = READ_BYTES + self.config.max_event_bytes;
        if self.ring.held_bytes() > most {
            return Err(format!("{} bytes of a source are held, more than {most}", self.ring.held_bytes()));
        }
        Ok(())
    }

    /// Nothing is left undone when the server sleeps, or finds nothing to do. (Time may also pass while it works.)
    pub(crate) fn check_sleep(&self) -> Result<(), String> {
        match &self.undone {
            Some(undone) => Err(format!("the server sleeps, but {undone}")),
            None => Ok(()),
        }
    }

    fn what_is_undone(&self, report: &Report) -> Option<String> {
        if report.phase != Phase::Running {
            let late = self.shutdown_at.is_some_and(|at| at <= self.now.now);
            return (late && !matches!(report.phase, Phase::Done { .. }))
                .then(|| "it should have ended".to_owned());
        }
        let is_source = |peer: &usize| self.ring.sources.contains_key(peer);
        if let Some(peer) = report.unread.iter().find(|&peer| self.people.clients.contains_key(peer)) {
            return Some(format!("user connection {peer} has bytes to be read"));
        }
        if let Some((peer, _)) = self.people.clients.iter().find(|(_, client)| client.is_put_off()) {
            return Some(format!("what was put off for connection {peer} has not been written"));
        }
        if report.paused {
            return None;
        }
        if self.reset_due {
            return Some("the next run has not begun".to_owned());
        }
        if let Some(peer) = report.unread.iter().find(|&peer| is_source(peer) && !self.ring.holds(*peer)) {
            return Some(format!("source {peer} has bytes to be read"));
        }
        self.ring.undone(self.now)
    }

    /// Checks that nothing is left to do, at the end of a run in which nobody has asked the server to end.
    pub(crate) fn check_rest(&self) -> Result<(), String> {
        match &self.undone {
            Some(undone) => Err(format!("the server rests, but {undone}")),
            None => Ok(()),
        }
    }

    /// Whether it makes no difference to the future which of two this is.
    pub(crate) fn is_like(&self, other: &Model) -> bool {
        let owed =
            |model: &Model| model.people.clients.values().map(|client| client.owed.len()).sum::<usize>();
        self.reset_due == other.reset_due && owed(self) == owed(other) && self.ring.is_like(&other.ring)
    }

    /// Connections that are still open, and what is owed to each.
    pub(crate) fn open(&self) -> impl Iterator<Item = (usize, usize)> {
        let clients = self.people.clients.iter().map(|(&peer, client)| (peer, client.owed.len()));
        clients.chain(self.ring.open().map(|peer| (peer, 0)))
    }

    /// Sources that are connected, and how many connections on the user port.
    pub(crate) fn connected(&self) -> (impl Iterator<Item = usize>, usize) {
        (self.ring.open(), self.people.clients.len())
    }

    /// Whether the ring holds some source back: for ever, or until more holes have been given up than there was time for.
    pub(crate) fn holds_any(&self) -> bool {
        self.ring.open().any(|peer| self.ring.holds(peer))
    }

    /// Whether the ring holds a source back.
    pub(crate) fn holds(&self, peer: usize) -> bool {
        self.ring.holds(peer)
    }
}
