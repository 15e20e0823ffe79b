//! The admin interface's connections (SPEC section 6), on the same loop as everything else.
//!
//! Whoever asks, and however badly, it costs the events next to nothing: there is one *step* a millisecond at most, at
//! the end of a turn. A step looks at each connection that has something to do once, until it has given one answer,
//! and accepts [`ACCEPTS_PER_STEP`] connections, which are answered at once if their requests are there. A few
//! connections are kept, each may take its time only up to a deadline, and a request is never longer than
//! [`HEAD_BYTES_MAX`]. While nobody asks there is nothing to do.

use super::{
    Net, Server,
    connection::{Asker, Connection, Role, User},
    is_interrupted,
    lifecycle::Phase,
    net::Port,
    would_block,
};
use crate::{
    admin::{
        self, Health, Hole, Pause, SlowUser, Snapshot,
        history::{History, Sample},
        http::{HEAD_BYTES_MAX, Request, Status},
    },
    time::{MILLISECOND, Micros, SECOND},
};
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
};

/// Connections at once.
const ASKERS_MAX: usize = 8;
/// Time between two steps.
const PACE: Micros = MILLISECOND;
/// Connections accepted in a step.
const ACCEPTS_PER_STEP: usize = 2;
/// How long a connection may be silent, take for a request, or take for receiving the answer.
const PATIENCE: Micros = 5 * SECOND;
/// How long the other side may go on sending after the answer that ends its connection.
const LINGER: Micros = SECOND;
/// Where accepting has failed, it is tried again after this.
const ACCEPT_RETRY: Micros = SECOND;
/// Slow users that are named.
const SLOW_NAMED: usize = 8;

/// The state of the admin interface.
#[derive(Debug)]
pub(crate) struct Admin {
    /// Keys of its connections.
    askers: Vec<usize>,
    /// Those that have something to do.
    queue: VecDeque<usize>,
    /// Answers given so far.
    answers: u64,
    /// When to accept: its listener was ready and has not said since that accepting would block.
    accept_at: Option<Micros>,
    /// When the next step may be taken.
    next_at: Micros,
    /// The cursor that the ring waits at, and since when.
    hole: Option<(u128, Micros)>,
    /// Since when there has always been a source that waits for room in the ring.
    ring_full_since: Option<Micros>,
    history: History,
}

impl Admin {
    pub(crate) fn new(enabled: bool, now: Micros) -> Self {
        Self {
            askers: Vec::new(),
            queue: VecDeque::new(),
            answers: 0,
            accept_at: None,
            next_at: now,
            hole: None,
            ring_full_since: None,
            history: History::new(enabled, now),
        }
    }
}

/// What is left of a step.
enum Progress {
    /// There is more to do at once.
    More,
    /// Nothing until the socket is ready.
    Waits,
    /// The connection is over.
    Over,
}

impl<N: Net> Server<N> {
    pub(super) fn note_admin_listener(&mut self) {
        self.admin.accept_at.get_or_insert(self.now);
    }

    /// A connection's socket is ready.
    pub(super) fn queue_asker(&mut self, key: usize) {
        if let Some(Connection { role: Role::Admin(_), queued, .. }) = self.connections.get_mut(key)
            && !std::mem::replace(queued, true)
        {
            self.admin.queue.push_back(key);
        }
    }

    /// Time goes on, up to `now`, with everything as it is. Whatever is measured in time is measured here.
    pub(super) fn pass_time(&mut self, now: Micros) {
        self.account_pauses(now - self.now);
        if self.admin.history.is_due(now) {
            let counters = &self.engine.counters;
            let released = counters.events_released_total();
            let sample = Sample { at: now, released, deliveries: counters.deliveries };
            self.admin.history.record(self.now, sample);
        }
        self.now = now;
    }

    /// Notes since when what is waited for.
    fn note_waits(&mut self) {
        let full = !self.blocked_sources.is_empty();
        let waits = full || self.engine.waiting() > 0;
        let cursor = self.engine.cursor();
        match self.admin.hole {
            Some((hole, _)) if waits && hole == cursor => {}
            _ => self.admin.hole = waits.then_some((cursor, self.now)),
        }
        self.admin.ring_full_since = full.then_some(self.admin.ring_full_since.unwrap_or(self.now));
    }

    /// Takes a step, if there is anything to do and it is time.
    pub(super) fn serve_admin(&mut self) {
        self.note_waits();
        if self.admin_deadline().is_none_or(|at| at > self.now) {
            return;
        }
        self.close_overdue_askers();
        if self.admin.next_at > self.now {
            return;
        }
        self.admin.next_at = self.now + PACE;
        let answers = self.admin.answers;
        for _ in 0..self.admin.queue.len() {
            if let Some(key) = self.admin.queue.pop_front() {
                self.go_on(key);
            }
            if self.admin.answers != answers {
                break;
            }
        }
        for _ in 0..ACCEPTS_PER_STEP {
            if self.admin.accept_at.is_some_and(|at| at <= self.now)
                && let Some(key) = self.accept_asker()
            {
                // Its request is there already if it had to wait.
                self.go_on(key);
            }
        }
    }

    fn go_on(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.queued = false;
        }
        match self.step(key) {
            Ok(Progress::More) => self.queue_asker(key),
            Ok(Progress::Waits) => {}
            Err(error) if would_block(&error) => {}
            Err(error) if is_interrupted(&error) => self.queue_asker(key),
            Ok(Progress::Over) | Err(_) => self.close_asker(key),
        }
    }

    /// When there is something to do next, if nothing becomes ready.
    pub(super) fn admin_deadline(&self) -> Option<Micros> {
        let overdue = self.admin.askers.iter().filter_map(|&key| self.asker(key)).map(|asker| asker.deadline);
        let accept = self.admin.accept_at.map(|at| at.max(self.admin.next_at));
        let step = (!self.admin.queue.is_empty()).then_some(self.admin.next_at);
        overdue.chain(accept).chain(step).min()
    }

    fn asker(&self, key: usize) -> Option<&Asker> {
        match self.connections.get(key) {
            Some(Connection { role: Role::Admin(asker), .. }) => Some(asker),
            _ => None,
        }
    }

    /// Accepts a connection; gives its key, if it may stay.
    fn accept_asker(&mut self) -> Option<usize> {
        match self.net.accept(Port::Admin) {
            Ok((socket, peer)) => return self.admit_asker(socket, peer),
            Err(error) if would_block(&error) => self.admin.accept_at = None,
            // Out of descriptors, perhaps.
            Err(_) => self.admin.accept_at = Some(self.now + ACCEPT_RETRY),
        }
        None
    }

    /// Takes a connection in. Where there are too many, one that has nothing to ask makes room for it.
    fn admit_asker(&mut self, mut socket: N::Socket, peer: SocketAddr) -> Option<usize> {
        if self.admin.askers.len() >= ASKERS_MAX {
            let idle = |key: &&usize| {
                !self.admin.queue.contains(*key) && self.asker(**key).is_some_and(Asker::is_idle)
            };
            let Some(&key) = self.admin.askers.iter().find(idle) else {
                self.engine.counters.admin_rejected += 1;
                let request = Request::refused(Status::ServiceUnavailable);
                let refusal = admin::answer(&request, &self.snapshot());
                // It is short, and nothing has been written before: the socket takes it, or it is gone.
                let _ = socket.write(&refusal);
                self.net.finish(&mut socket);
                self.read_off(&mut socket);
                return None;
            };
            self.close_asker(key);
        }
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        let asker = Asker { deadline: self.now + PATIENCE, ..Asker::default() };
        let mut connection =
            Connection { socket, peer, readable: true, queued: false, role: Role::Admin(asker) };
        self.net.register(&mut connection.socket, key).ok()?;
        entry.insert(connection);
        self.admin.askers.push(key);
        Some(key)
    }

    fn close_asker(&mut self, key: usize) {
        self.admin.askers.retain(|&asker| asker != key);
        self.admin.queue.retain(|&asker| asker != key);
        self.connections.try_remove(key);
        self.descriptor_freed();
    }

    fn close_overdue_askers(&mut self) {
        for index in (0..self.admin.askers.len()).rev() {
            let key = self.admin.askers[index];
            if self.asker(key).is_some_and(|asker| asker.deadline <= self.now) {
                self.close_asker(key);
            }
        }
    }

    /// Goes on with a connection: writes what is owed, or reads and answers.
    fn step(&mut self, key: usize) -> io::Result<Progress> {
        let Some(Connection { socket, role: Role::Admin(asker), .. }) = self.connections.get_mut(key) else {
            return Ok(Progress::Waits);
        };
        if asker.lingers {
            return match socket.read(&mut self.trash)? {
                0 => Ok(Progress::Over),
                _ => Ok(Progress::More),
            };
        }
        if !asker.output.is_empty() {
            return self.write_answer(key);
        }
        let mut request = Request::read(&asker.input);
        if request.is_none() {
            let room = HEAD_BYTES_MAX - asker.input.len();
            let limit = room.min(self.trash.len());
            let len = socket.read(&mut self.trash[..limit])?;
            if len == 0 {
                return Ok(Progress::Over);
            }
            asker.input.extend_from_slice(&self.trash[..len]);
            request = Request::read(&asker.input);
        }
        match request {
            None => Ok(Progress::More),
            Some(request) => {
                asker.input.drain(..request.len);
                self.answer(key, &request)
            }
        }
    }

    fn answer(&mut self, key: usize, request: &Request) -> io::Result<Progress> {
        self.admin.answers += 1;
        let now = self.now;
        let answer = admin::answer(request, &self.snapshot());
        if let Some(Connection { role: Role::Admin(asker), .. }) = self.connections.get_mut(key) {
            asker.output = answer;
            asker.closes = request.close;
            asker.deadline = now + PATIENCE;
        }
        self.write_answer(key)
    }

    /// Writes what the socket takes.
    fn write_answer(&mut self, key: usize) -> io::Result<Progress> {
        let Some(Connection { socket, role: Role::Admin(asker), .. }) = self.connections.get_mut(key) else {
            return Ok(Progress::Waits);
        };
        match socket.write(&asker.output[asker.written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => asker.written += len,
            Err(error) if would_block(&error) => {}
            Err(error) => return Err(error),
        }
        if asker.written < asker.output.len() {
            if !std::mem::replace(&mut asker.wants_write, true) {
                self.net.want_write(socket, key, true)?;
            }
            return Ok(Progress::Waits);
        }
        if std::mem::take(&mut asker.wants_write) {
            self.net.want_write(socket, key, false)?;
        }
        asker.output = Vec::new();
        asker.written = 0;
        if asker.closes {
            asker.lingers = true;
            asker.deadline = self.now + LINGER;
            self.net.finish(socket);
        } else {
            asker.deadline = self.now + PATIENCE;
        }
        Ok(Progress::More)
    }

    /// The numbers as they are now.
    pub fn snapshot(&mut self) -> Snapshot<'_> {
        // The numbers that were skipped last may not have been counted yet.
        self.report_skipped();
        let now = self.now;
        let since = |since: Micros| now.saturating_sub(since);
        let given_up_at = if self.is_paused() { None } else { self.engine.next_deadline() };
        let hole = self.admin.hole.map(|(_, began)| Hole {
            waited: since(began),
            given_up_in: given_up_at.map(|at| at.saturating_sub(now)),
        });
        let slow_user = self.paused_since.map(|began| Pause {
            reason: "slow_user",
            sources: self.source_clients,
            paused_for: since(began),
        });
        let ring_full = self.admin.ring_full_since.map(|began| Pause {
            reason: "ring_full",
            sources: self.blocked_sources.len(),
            paused_for: since(began),
        });
        let slow = self.slow.iter().filter_map(|&key| match &self.connections.get(key)?.role {
            Role::User(User { id, output, slow_since, .. }) => Some(SlowUser {
                id: *id,
                buffered_bytes: output.len(),
                slow_for: since(slow_since.unwrap_or(now)),
            }),
            _ => None,
        });
        Snapshot {
            now,
            counters: &self.engine.counters,
            health: self.health(),
            cursor: self.engine.cursor(),
            waiting: self.engine.waiting(),
            capacity: self.engine.capacity(),
            hole,
            buffered_bytes: self.output_bytes,
            users: self.engine.users(),
            sources: self.source_clients,
            follow_edges: self.engine.follow_edges(),
            slow_users: self.slow.len(),
            slow: slow.take(SLOW_NAMED).collect(),
            pauses: slow_user.into_iter().chain(ring_full).collect(),
            history: &self.admin.history,
        }
    }

    fn health(&self) -> Health {
        if self.phase != Phase::Running {
            Health::ShuttingDown
        } else if self.is_stuck() && self.config.event_timeout_ms < 0 {
            Health::RingFull
        } else {
            Health::Ok
        }
    }
}
