//! Holds every turn of the server against SPEC sections 1 to 5.
//!
//! The [`Model`] gets the log of what the server did to its network in a turn and what it says about itself afterwards, and
//! checks that this is what it had to do. Where the SPEC leaves it to the server when exactly to do something, the
//! model may not know what it has done: then a turn leads to more than one model, and the next turns tell.
//!
//! Before the server sleeps, everything must have been done: time only goes on while it sleeps.

use std::{io::ErrorKind, rc::Rc};

use fortnight::{
    config::{Config, SlowUserPolicy},
    counters::{Counters, UserEnd},
    engine::event::Reject,
    server::{Phase, net::Port},
    time::{MILLISECOND, Micros, SECOND},
};

use crate::{
    chaos::Arrivals,
    coverage::Coverage,
    people::{Client, People, Stage},
    ring::{Moment, Ring},
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
    /// Connections with unread bytes of which the server has been told.
    pub(crate) unread: Vec<usize>,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Model {
    config: Rc<Config>,
    now: Moment,
    turn: u64,
    ring: Ring,
    people: People,
    last: Report,
    /// Accepted, and not registered.
    fresh: Vec<(Port, usize)>,
    /// Registering failed.
    dropped: Vec<usize>,
    /// Sources that the server has closed of its own accord.
    closing: Vec<usize>,
    rejected: [u64; 2],
    closed: [u64; UserEnd::ALL.len()],
    written: u64,
    reset_due: bool,
    /// When accepting failed for want of descriptors.
    refused_at: Option<Micros>,
    last_refused_at: Option<Micros>,
    /// Connections may have waited for that at the beginning of the turn.
    was_refused: bool,
    shutdown_at: Option<Micros>,
    /// What must not be left undone when the server sleeps.
    undone: Option<String>,
    /// Sources have been read in this turn.
    has_read: bool,
}

impl Model {
    pub(crate) fn new(config: Config, first: Report) -> Model {
        Model {
            ring: Ring::new(&config),
            config: Rc::new(config),
            now: Moment { now: 0, paused: 0 },
            turn: 0,
            people: People::default(),
            last: first,
            fresh: Vec::new(),
            dropped: Vec::new(),
            closing: Vec::new(),
            rejected: [0; 2],
            closed: [0; UserEnd::ALL.len()],
            written: 0,
            reset_due: false,
            refused_at: None,
            last_refused_at: None,
            was_refused: false,
            shutdown_at: None,
            undone: None,
            has_read: false,
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
        self.has_read = false;
        self.people.told_bytes = 0;
        self.was_refused = self.refused_at.is_some();
        if let Some(Seen::Poll { wait, now }) = log.first()
            && (*wait != Some(0) || *now != self.now.now)
            && let Some(undone) = self.undone.take()
        {
            return Err(format!("the server sleeps, but {undone}"));
        }
        for (index, seen) in log.iter().enumerate() {
            self.see(seen, &log[index..], report, arrivals, coverage)?;
        }
        self.ring.take(Some(report.counters.events_received), self.now, &mut self.people)?;
        self.ring.note_held_back(self.now);
        let mut held_back = self.clone();
        let matters = held_back.ring.hold_back_current(self.now);
        let models = held_back.decide(report, coverage);
        let is_full = |model: &Model| model.people.told_bytes >= FULL_TURN_BYTES;
        if matters && models.as_ref().map_or(true, |models| models.iter().any(is_full)) {
            // The turn may have been full before the server looked at the next line.
            return either([models, self.decide(report, coverage)]);
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
            }
            &Seen::Accepted(port, peer) => {
                self.fresh.push((port, peer));
                self.accepting_again(coverage);
            }
            Seen::NotAccepted(number) => {
                self.accepting_again(coverage);
                let errno = rustix::io::Errno::from_raw_os_error(*number);
                use rustix::io::Errno;
                if [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&errno) {
                    self.refused_at = Some(self.now.now);
                    self.last_refused_at = self.refused_at;
                }
            }
            &Seen::Registered(peer, done) => self.registered(peer, done),
            &Seen::WantWrite(peer, on, outcome) => {
                if let Some(client) = self.people.clients.get_mut(&peer) {
                    match outcome {
                        Ok(()) => client.wants_write = on,
                        Err(kind) => client.cause(end_of(kind)),
                    }
                }
            }
            Seen::Read(peer, outcome) if self.ring.sources.contains_key(peer) => {
                self.source_read(*peer, outcome, arrivals, coverage)?;
            }
            Seen::Read(peer, outcome) => {
                self.client_read(*peer, outcome, rest, report, arrivals, coverage)?
            }
            Seen::Wrote(peer, offered, outcome) => self.wrote(*peer, *offered, outcome)?,
            &Seen::Closed(peer) => self.closes(peer, report, coverage)?,
        }
        Ok(())
    }

    fn close_source(&mut self, peer: usize) {
        self.ring.close(peer);
        self.reset_due |= self.config.reset_on_source_eof && self.ring.open().next().is_none();
    }

    fn accepting_again(&mut self, coverage: &mut Coverage) {
        if self.refused_at.take().is_some_and(|at| self.now.now >= at + SECOND) {
            coverage.count("deadline: accepting again");
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
        if self.reset_due {
            return Err(format!("source {peer} was read before the last run was over"));
        }
        self.ring.take(None, self.now, &mut self.people)?;
        match outcome {
            Ok(bytes) if bytes.is_empty() => self.ring.end(peer),
            Ok(bytes) => {
                if bytes.len() == READ_BYTES {
                    coverage.count("sources: budget used up");
                }
                self.ring.read(peer, bytes, arrivals.sources.get(&peer).map_or(&[], Vec::as_slice))?;
            }
            Err(ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.ring.end(peer),
        }
        Ok(())
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

    fn client_read(
        &mut self,
        peer: usize,
        outcome: &Result<Vec<u8>, ErrorKind>,
        rest: &[Seen],
        report: &Report,
        arrivals: &Arrivals,
        coverage: &mut Coverage,
    ) -> Result<(), String> {
        let is_over = self.people.clients.get(&peer).is_some_and(|client| {
            !client.is_user() && (client.deadline <= self.now.now || report.phase != Phase::Running)
        });
        if is_over && is_read_off(peer, rest) {
            // Nobody looks at it any more; but perhaps it was that which ended it.
            if let Some(client) = self.people.clients.get_mut(&peer) {
                note_end(client, outcome);
            }
            return Ok(());
        }
        let Ok(bytes) = outcome else {
            if let Some(client) = self.people.clients.get_mut(&peer) {
                note_end(client, outcome);
            }
            return Ok(());
        };
        if bytes.is_empty() {
            if let Some(client) = self.people.clients.get_mut(&peer) {
                client.cause(UserEnd::Left);
            }
            return Ok(());
        }
        if is_budget_used_up(peer, rest) {
            coverage.count("users: budget used up");
        }
        let connected = self.people.users();
        if self.people.read(peer, bytes) {
            if self.people.users() == connected {
                coverage.count("users: takes over an id");
            }
            let arrived = arrivals.logins.get(&peer).copied().unwrap_or(u64::MAX);
            let refused =
                self.was_refused || self.last_refused_at.is_some_and(|at| self.now.now <= at + SECOND);
            if arrived < self.people.latest && arrivals.trouble < arrived && !refused {
                return Err(format!(
                    "an event that arrived after the login of connection {peer} was served before it"
                ));
            }
        }
        Ok(())
    }

    fn wrote(
        &mut self,
        peer: usize,
        offered: usize,
        outcome: &Result<Vec<u8>, ErrorKind>,
    ) -> Result<(), String> {
        let client = self.people.clients.get_mut(&peer).filter(|client| client.is_user());
        let client = client.ok_or(format!("connection {peer} was written to, and has not logged in"))?;
        match outcome {
            Ok(bytes) => {
                client.written.extend_from_slice(bytes);
                client.short = bytes.len() < offered;
                self.written += bytes.len() as u64;
                if client.level() <= self.config.user_buffer_bytes {
                    client.behind_since = None;
                }
            }
            Err(ErrorKind::WouldBlock) => client.short = true,
            Err(ErrorKind::Interrupted) => {}
            Err(kind) => client.cause(end_of(*kind)),
        }
        Ok(())
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
                self.close_source(peer);
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
    fn decide(self, report: &Report, coverage: &mut Coverage) -> Result<Vec<Model>, String> {
        let all_read = !self.ring.has_lines()
            && !report
                .unread
                .iter()
                .any(|&peer| self.ring.sources.contains_key(&peer) && !self.ring.holds(peer));
        let mut models = Vec::new();
        let mut wrong = None;
        let mut options = self.ring.options(self.now, all_read);
        if self.reset_due
            && let Some(highest) = self.ring.highest().filter(|&highest| highest > self.ring.skip_before)
        {
            // The last run is being brought to its end.
            options.push((highest, ""));
        }
        for (skip_before, why) in options {
            let reach = self.ring.reach(skip_before);
            let possible = if report.cursor == reach {
                true
            } else {
                // Releasing stops before the end only where a turn is full or a pause begins.
                report.cursor < reach
                    && self.ring.is_resting_place(report.cursor)
                    && (report.paused
                        || (why.is_empty() && self.ring.has_lines())
                        || skip_before == self.ring.skip_before)
            };
            if possible && self.ring.waiting_at(report.cursor) == report.waiting {
                let mut model = self.clone();
                model.ring.skip_before = skip_before;
                match model
                    .ring
                    .release(report.cursor, &mut model.people)
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
            match model.begin_run().and_then(|()| model.settle(report, coverage)) {
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
                        .options(self.now, all_read)
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
            self.close_source(peer);
        }
        self.check_counters(report)?;
        self.check_sources(report)?;
        self.check_clients(report, coverage)?;
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
        // What was released after somebody had been closed in the same turn was not delivered to it.
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

    fn check_clients(&mut self, report: &Report, coverage: &mut Coverage) -> Result<(), String> {
        let before: u64 = self.closed.iter().sum();
        let after: u64 = report.counters.users_disconnected.iter().sum();
        let mut causes = Vec::new();
        let mut buffered = 0;
        let peers: Vec<usize> = self.people.clients.keys().copied().collect();
        for peer in peers {
            self.check_stream(peer)?;
            if let Some(found) = self.check_end(peer, report, coverage)? {
                causes.push(found);
                self.people.forget(peer);
            } else {
                buffered += self.check_buffer(peer, report)?;
            }
        }
        if buffered != report.buffered_bytes {
            return Err(format!(
                "{} bytes are said to wait for users, but it is {buffered}",
                report.buffered_bytes
            ));
        }
        if after - before != causes.len() as u64 {
            return Err(format!(
                "{} users are said to have gone, but it is {}",
                after - before,
                causes.len()
            ));
        }
        for end in UserEnd::ALL {
            let said =
                (report.counters.users_disconnected[end as usize] - self.closed[end as usize]) as usize;
            let surely = causes.iter().filter(|causes| **causes == [end as usize]).count();
            let perhaps = causes.iter().filter(|causes| causes.contains(&(end as usize))).count();
            if said < surely || said > perhaps {
                return Err(format!(
                    "{said} users are said to have gone as \"{}\", but it is {surely} to {perhaps}",
                    end.name()
                ));
            }
            self.closed[end as usize] = report.counters.users_disconnected[end as usize];
        }
        Ok(())
    }

    /// What was written must be the beginning of what was owed.
    fn check_stream(&mut self, peer: usize) -> Result<(), String> {
        let Some(client) = self.people.clients.get_mut(&peer) else {
            return Ok(());
        };
        if !client.owed.starts_with(&client.written) {
            let same =
                client.owed.iter().zip(&client.written).take_while(|(owed, written)| owed == written).count();
            let from = same.saturating_sub(20);
            let part = |bytes: &[u8]| {
                bytes[from.min(bytes.len())..bytes.len().min(same + 60)].escape_ascii().to_string()
            };
            return Err(format!(
                "connection {peer} was sent \"{}\" where it was owed \"{}\"",
                part(&client.written),
                part(&client.owed)
            ));
        }
        client.owed.drain(..client.written.len());
        client.written.clear();
        Ok(())
    }

    /// If a connection is closed: what for it may be. Nobody is closed without a reason, and nobody who has to be stays.
    fn check_end(
        &mut self,
        peer: usize,
        report: &Report,
        coverage: &mut Coverage,
    ) -> Result<Option<Vec<usize>>, String> {
        let now = self.now.now;
        let timeout = self.config.slow_user_timeout_ms * MILLISECOND;
        let turn = self.turn;
        let client = self.people.clients.get_mut(&peer).expect("it has been looked up");
        let level = client.owed.len();
        let (half, most) = (self.config.user_buffer_bytes / 2, self.config.user_buffer_bytes);
        if level <= half {
            client.above_half_since = None;
        } else {
            client.above_half_since.get_or_insert(now);
        }
        if level <= most {
            client.behind_since = None;
        } else {
            client.behind_since.get_or_insert((now, turn));
        }
        if !client.closed {
            if !client.causes.is_empty() {
                return Err(format!("connection {peer} should have been closed"));
            }
            if !client.is_user() && client.deadline <= now && report.phase == Phase::Running {
                return Err(format!("connection {peer} should have logged in by now"));
            }
            let waits = self.config.slow_user_policy == SlowUserPolicy::Wait;
            if waits
                && client.behind_since.is_some_and(|(since, began)| began < turn && since + timeout <= now)
            {
                return Err(format!("connection {peer} has been behind for longer than slowUserTimeoutMs"));
            }
            return Ok(None);
        }
        if client.stage == Stage::Login(Vec::new()) || !client.is_user() {
            if client.deadline <= now {
                client.cause(UserEnd::LoginTimeout);
                coverage.count("deadline: login");
            }
        }
        match self.config.slow_user_policy {
            SlowUserPolicy::Disconnect if level > most => {
                client.cause(UserEnd::Slow);
                coverage.count("users: cut off by policy");
            }
            SlowUserPolicy::Wait if client.above_half_since.is_some_and(|since| since + timeout <= now) => {
                client.cause(UserEnd::Slow);
                coverage.count("deadline: slow user");
            }
            _ => {}
        }
        if report.phase != Phase::Running {
            let due = self.shutdown_at.unwrap_or(now + self.config.shutdown_timeout_ms * MILLISECOND) <= now;
            if level == 0 || due {
                client.cause(UserEnd::Closed);
            }
            if level > 0 && due {
                coverage.count("deadline: shutdown");
            }
        }
        if client.causes.is_empty() {
            return Err(format!(
                "connection {peer} was closed without a reason, {level} bytes being owed to it"
            ));
        }
        if client.causes.iter().all(|&cause| cause == UserEnd::Replaced as usize)
            && level > 0
            && !client.short
        {
            return Err(format!("connection {peer} was replaced before it had what it was owed"));
        }
        Ok(Some(client.causes.iter().copied().collect()))
    }

    /// Checks what waits for a connection, and returns how much that is.
    fn check_buffer(&self, peer: usize, report: &Report) -> Result<usize, String> {
        let client = &self.people.clients[&peer];
        let level = client.owed.len();
        let most = self.config.user_buffer_bytes;
        if level > 0 && !client.short {
            return Err(format!(
                "{level} bytes wait for connection {peer}, whose socket has not refused them"
            ));
        }
        if client.wants_write != (level > 0) {
            return Err(format!(
                "{level} bytes wait for connection {peer}, and whether being writable is told is {}",
                client.wants_write
            ));
        }
        let turn = (most / 2).clamp(4096, 512 << 10) + self.config.max_event_bytes;
        if level > most + 2 * turn {
            return Err(format!(
                "{level} bytes wait for connection {peer}, more than {most} and what two turns may add"
            ));
        }
        if level > most && !report.paused && report.phase == Phase::Running {
            return Err(format!("{level} bytes wait for connection {peer}, and nothing is done about it"));
        }
        Ok(level)
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

    /// Whether the ring holds a source back.
    pub(crate) fn holds(&self, peer: usize) -> bool {
        self.ring.holds(peer)
    }
}

/// What is possible of two possibilities.
fn either(models: [Result<Vec<Model>, String>; 2]) -> Result<Vec<Model>, String> {
    match models {
        [Err(problem), Err(_)] => Err(problem),
        models => Ok(models.into_iter().flatten().flatten().collect()),
    }
}

/// Whether a read of a connection is one of those right before it is closed.
fn is_read_off(peer: usize, rest: &[Seen]) -> bool {
    let next = rest.iter().find(|seen| !matches!(seen, Seen::Read(other, _) if *other == peer));
    matches!(next, Some(Seen::Closed(other)) if *other == peer)
}

/// Whether a connection has been read as often as is allowed at once.
fn is_budget_used_up(peer: usize, rest: &[Seen]) -> bool {
    let read =
        |seen: &&Seen| matches!(seen, Seen::Read(other, Ok(bytes)) if *other == peer && !bytes.is_empty());
    rest.iter().take_while(read).count() == 16
}

fn note_end(client: &mut Client, outcome: &Result<Vec<u8>, ErrorKind>) {
    match outcome {
        Ok(bytes) if bytes.is_empty() => client.cause(UserEnd::Left),
        Ok(_) | Err(ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        Err(kind) => client.cause(end_of(*kind)),
    }
}

/// What an error says about how a user went.
fn end_of(kind: ErrorKind) -> UserEnd {
    match kind {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => UserEnd::Left,
        _ => UserEnd::Error,
    }
}
