//! The admin interface's connections (SPEC section 6), on the same loop as everything else.
//!
//! Requests cost the events next to nothing, even a flood of them. There is at most one *step* a millisecond, at the
//! end of a turn. A step looks once at each connection that has something to do, until it has given one answer. It
//! accepts [`ACCEPTS_PER_STEP`] connections, and answers them at once if their requests are there. The number of
//! connections is limited, each has a deadline, and a request is never longer than [`HEAD_BYTES_MAX`]. While nobody
//! asks there is nothing to do.

use super::{
    key::AdminKey,
    net::{Net, Port},
    socket::{is_interrupted, would_block},
};
use crate::{
    admin::{
        hosts::Hosts,
        http::{HEAD_BYTES_MAX, Request},
    },
    config::Config,
    time::{MILLISECOND, Micros, SECOND},
};
use slab::Slab;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
};

/// Connections at once.
const CLIENTS_MAX: usize = 8;
/// A connection that has taken longer than this over its request makes room even while more of it comes.
const HURRY: Micros = 100 * MILLISECOND;
/// Time between two steps.
const PACE: Micros = MILLISECOND;
/// Connections accepted in a step.
const ACCEPTS_PER_STEP: usize = 2;
/// Limit for a connection's silence, for its request, and for taking the answer.
const PATIENCE: Micros = 5 * SECOND;
/// How long the other side may go on sending after the answer that ends its connection.
const LINGER: Micros = SECOND;
/// The pause after a failed accept.
const ACCEPT_RETRY: Micros = SECOND;
/// Bytes of one read.
const SCRATCH_BYTES: usize = 4096;

/// The connections of the admin interface.
#[derive(Debug)]
pub(super) struct Admin<S> {
    clients: Slab<AdminClient<S>>,
    /// In the order in which they were accepted.
    keys: Vec<AdminKey>,
    /// Those that have something to do.
    queue: VecDeque<AdminKey>,
    /// Connections that are over, and only have to be closed.
    ended: Vec<AdminKey>,
    /// Answers given so far.
    answers: u64,
    /// Connections that were closed in the middle of something to make room.
    displaced: u64,
    /// The time to accept: the listener was ready and has not said since that accepting would block.
    accept_at: Option<Micros>,
    /// When the next step may be taken.
    next_at: Micros,
    scratch: Vec<u8>,
    /// The hosts that may be asked.
    hosts: Hosts,
}

/// A connection to the admin interface.
#[derive(Debug)]
struct AdminClient<S> {
    socket: S,
    /// It is on the list of those that have something to do.
    queued: bool,
    /// Bytes that have been read and not been answered.
    input: Vec<u8>,
    /// The answer, and how much of it has been written.
    output: Vec<u8>,
    written: usize,
    /// Being writable is told.
    wants_write: bool,
    /// The answer is the last one.
    closes: bool,
    /// The last answer has been written: what still comes is thrown away, so that closing does not reset the
    /// connection before the answer has been read.
    lingers: bool,
    /// The time at which it is closed unless something happens.
    deadline: Micros,
    /// Since when it has been connected, or has had its last answer.
    since: Micros,
}

impl<S> AdminClient<S> {
    /// Whether it makes room for another connection, and when: the lowest comes first. One that is idle or in the middle of a
    /// request comes before one that is closing, and that before one that does not read its answer; of several the oldest.
    fn makes_room(&self, now: Micros) -> Option<(u8, Micros)> {
        let asks = self.output.is_empty() && !self.lingers;
        if self.queued && (!asks || now < self.since + HURRY) {
            // Its request may be there.
            return None;
        }
        let order = if asks { 0 } else { 2 - u8::from(self.lingers) };
        Some((order, self.since))
    }

    /// It has got an answer to everything that it has asked for.
    fn is_idle(&self) -> bool {
        self.input.is_empty() && self.output.is_empty()
    }
}

/// The rest of a connection's step.
enum Progress {
    /// There is more to do at once.
    More,
    /// Nothing until the socket is ready.
    Waits,
    /// The connection is over.
    Over,
}

impl<S> Admin<S> {
    pub(super) fn new(config: &Config, now: Micros) -> Self {
        Self {
            clients: Slab::new(),
            keys: Vec::new(),
            queue: VecDeque::new(),
            ended: Vec::new(),
            answers: 0,
            displaced: 0,
            accept_at: None,
            next_at: now,
            scratch: vec![0; SCRATCH_BYTES],
            hosts: Hosts::on(config.admin_bind_address, &config.admin_hosts),
        }
    }

    /// A connection waits to be accepted.
    pub(super) fn note_listener(&mut self, now: Micros) {
        self.accept_at.get_or_insert(now);
    }

    /// A connection's socket is ready.
    pub(super) fn note_ready(&mut self, key: AdminKey) {
        if let Some(client) = self.clients.get_mut(key.index())
            && !std::mem::replace(&mut client.queued, true)
        {
            self.queue.push_back(key);
        }
    }

    /// When there is something to do next, if nothing becomes ready.
    pub(super) fn deadline(&self) -> Option<Micros> {
        let overdue = self.clients.iter().map(|(_, client)| client.deadline);
        let accept = self.accept_at.map(|at| at.max(self.next_at));
        let step = (!self.queue.is_empty()).then_some(self.next_at);
        overdue.chain(accept).chain(step).min()
    }

    /// Closes the sockets of connections that are over. Says whether there were any.
    pub(super) fn reap(&mut self) -> bool {
        let any = !self.ended.is_empty();
        for key in self.ended.drain(..) {
            self.clients.try_remove(key.index());
        }
        any
    }

    /// Connections closed in the middle of something to make room.
    pub(super) fn displaced(&self) -> u64 {
        self.displaced
    }

    /// A connection is over.
    fn end(&mut self, key: AdminKey) {
        self.keys.retain(|&other| other != key);
        self.queue.retain(|&other| other != key);
        self.ended.push(key);
    }

    fn can_make_room(&self, key: AdminKey, now: Micros) -> bool {
        self.clients.get(key.index()).is_some_and(|client| client.makes_room(now).is_some())
    }

    /// Closes the connection that is the next one to make room. Says whether there was one.
    fn make_room(&mut self, now: Micros) -> bool {
        let room = |key: &AdminKey| Some((self.clients.get(key.index())?.makes_room(now)?, *key));
        let Some((_, key)) = self.keys.iter().filter_map(room).min_by_key(|&(order, _)| order) else {
            return false;
        };
        let is_idle = self.clients.get(key.index()).is_some_and(AdminClient::is_idle);
        self.displaced += u64::from(!is_idle);
        self.end(key);
        true
    }

    /// The same, but for connections that have come just now.
    fn make_room_among_old(&mut self, now: Micros) -> bool {
        let is_young =
            |key: &AdminKey| self.clients.get(key.index()).is_some_and(|client| now < client.since + HURRY);
        !self.keys.iter().any(is_young) && self.make_room(now)
    }

    fn end_overdue(&mut self, now: Micros) {
        for index in (0..self.keys.len()).rev() {
            let key = self.keys[index];
            if self.clients.get(key.index()).is_some_and(|client| client.deadline <= now) {
                self.end(key);
            }
        }
    }
}

impl<S: Read + Write> Admin<S> {
    /// Takes a step, if it is time. `answer` makes the answer to a request.
    pub(super) fn serve<N: Net<Socket = S>>(
        &mut self,
        net: &mut N,
        now: Micros,
        mut answer: impl FnMut(&Request) -> Vec<u8>,
    ) {
        self.end_overdue(now);
        if self.next_at > now {
            return;
        }
        self.next_at = now + PACE;
        let answers = self.answers;
        for _ in 0..self.queue.len() {
            if let Some(key) = self.queue.pop_front() {
                self.go_on(key, net, now, &mut answer);
            }
            if self.answers != answers {
                break;
            }
        }
        for _ in 0..ACCEPTS_PER_STEP {
            if self.accept_at.is_some_and(|at| at <= now)
                && let Some(key) = self.accept(net, now)
            {
                // Its request is there already if it had to wait.
                self.go_on(key, net, now, &mut answer);
            }
        }
    }

    fn go_on<N: Net<Socket = S>>(
        &mut self,
        key: AdminKey,
        net: &mut N,
        now: Micros,
        answer: &mut impl FnMut(&Request) -> Vec<u8>,
    ) {
        let Some(client) = self.clients.get_mut(key.index()) else {
            return;
        };
        client.queued = false;
        let answers = &mut self.answers;
        let mut count = |request: &Request| {
            *answers += 1;
            answer(request)
        };
        match client.step(key, net, now, &mut self.scratch, &self.hosts, &mut count) {
            Ok(Progress::More) => self.note_ready(key),
            Ok(Progress::Waits) => {}
            Err(error) if would_block(&error) => {}
            Err(error) if is_interrupted(&error) => self.note_ready(key),
            Ok(Progress::Over) | Err(_) => self.end(key),
        }
    }

    /// Accepts a connection; gives its key, if it may stay. Where there are too many, one of them makes room first. If every one
    /// of them has a request that is about to be answered, the next one waits for that.
    fn accept<N: Net<Socket = S>>(&mut self, net: &mut N, now: Micros) -> Option<AdminKey> {
        let is_full = self.keys.len() >= CLIENTS_MAX;
        if is_full && !self.keys.iter().any(|key| self.can_make_room(*key, now)) {
            return None;
        }
        match net.accept(Port::Admin) {
            Ok((socket, _)) => {
                if is_full {
                    self.make_room(now);
                }
                return self.admit(socket, net, now);
            }
            Err(error) if would_block(&error) => self.accept_at = None,
            // Out of descriptors, perhaps: one of these connections may have the one that is kept for them. The system says so even
            // if nobody waits. So who has come just now stays.
            Err(_) => {
                let soon = self.make_room_among_old(now) || !self.keys.is_empty() || !self.ended.is_empty();
                self.accept_at = Some(now + if soon { PACE } else { ACCEPT_RETRY });
            }
        }
        None
    }

    /// Takes a connection in.
    fn admit<N: Net<Socket = S>>(&mut self, mut socket: S, net: &mut N, now: Micros) -> Option<AdminKey> {
        let entry = self.clients.vacant_entry();
        let key = AdminKey::new(entry.key());
        net.register(&mut socket, key.number()).ok()?;
        entry.insert(AdminClient {
            socket,
            queued: false,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            wants_write: false,
            closes: false,
            lingers: false,
            deadline: now + PATIENCE,
            since: now,
        });
        self.keys.push(key);
        Some(key)
    }
}

impl<S: Read + Write> AdminClient<S> {
    /// Continues with a connection: writes the rest of an answer, or reads and answers a request.
    fn step<N: Net<Socket = S>>(
        &mut self,
        key: AdminKey,
        net: &mut N,
        now: Micros,
        scratch: &mut [u8],
        hosts: &Hosts,
        answer: &mut impl FnMut(&Request) -> Vec<u8>,
    ) -> io::Result<Progress> {
        if self.lingers {
            return match self.socket.read(scratch)? {
                0 => Ok(Progress::Over),
                _ => Ok(Progress::More),
            };
        }
        if !self.output.is_empty() {
            return self.write_answer(key, net, now);
        }
        let mut request = Request::read(&self.input, hosts);
        if request.is_none() {
            let room = HEAD_BYTES_MAX - self.input.len();
            let limit = room.min(scratch.len());
            let len = self.socket.read(&mut scratch[..limit])?;
            if len == 0 {
                return Ok(Progress::Over);
            }
            self.input.extend_from_slice(&scratch[..len]);
            request = Request::read(&self.input, hosts);
        }
        let Some(request) = request else {
            return Ok(Progress::More);
        };
        self.input.drain(..request.len);
        self.output = answer(&request);
        self.closes = request.close;
        self.deadline = now + PATIENCE;
        self.since = now;
        self.write_answer(key, net, now)
    }

    /// Writes as much as the socket takes.
    fn write_answer<N: Net<Socket = S>>(
        &mut self,
        key: AdminKey,
        net: &mut N,
        now: Micros,
    ) -> io::Result<Progress> {
        match self.socket.write(&self.output[self.written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => self.written += len,
            Err(error) if would_block(&error) => {}
            Err(error) => return Err(error),
        }
        if self.written < self.output.len() {
            if !std::mem::replace(&mut self.wants_write, true) {
                net.want_write(&mut self.socket, key.number(), true)?;
            }
            return Ok(Progress::Waits);
        }
        if std::mem::take(&mut self.wants_write) {
            net.want_write(&mut self.socket, key.number(), false)?;
        }
        self.output = Vec::new();
        self.written = 0;
        if self.closes {
            self.lingers = true;
            self.deadline = now + LINGER;
            net.finish(&mut self.socket);
        } else {
            self.deadline = now + PATIENCE;
        }
        Ok(Progress::More)
    }
}
