//! The door: PROXY headers and TLS handshakes, before the server sees a connection (SPEC section 12).
//!
//! The door is a [`Net`] around another [`Net`]. A new connection takes these steps:
//!
//! 1. A connection from a proxy sends a PROXY header ([`proxy`]). The door reads the header. From then on the address of
//!    the connection is the address of the real peer.
//! 2. Where the port speaks TLS, the handshake follows ([`session`]).
//! 3. The door hands the connection to the server. A connection that needs neither header nor handshake gets here at once.
//!
//! Until step 3 the connection is *pending*. The server does not know it. It takes no place there, and the time to log in
//! has not begun. The door closes a pending connection that sends something else, or that is not done within
//! `loginTimeoutMs`. Where all places of pending connections are taken, those that have been silent for a second make room.
//!
//! Many handshakes at once do not hold up the events: while the server has other work, the door takes two steps of
//! handshakes in a millisecond. The server does not know whether a connection speaks TLS.
//!
//! The server's own connection to its stream passes the door as well: [`Net::start_tls`].

mod certificates;
mod rules;
mod session;
mod socket;

pub(crate) use certificates::{client_config, server_name};
pub(crate) use rules::Rules;
pub(crate) use socket::MaybeTlsSocket;

use crate::{
    counters::{DoorCounters, Refusal},
    identity::time_of_day,
    process::Process,
    proxy,
    rate_limit::RateLimit,
    server::net::{Net, Port, Ready},
    time::{MILLISECOND, Micros, SECOND},
    warning::Warning,
};
use session::Wakes;
use slab::Slab;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

/// Pending connections at once. More of them wait in the backlog, until one is done or makes room.
const PENDING_MAX: usize = 4096;
/// Where there is no place, a connection makes room from which nothing has come for this time.
const SILENCE_MAX: Micros = SECOND;
/// Connections that make room at once.
const MAKE_ROOM_AT_ONCE: usize = 64;
/// Connections that are accepted from the backlog before something else gets a turn.
const LET_IN_AT_ONCE: usize = 64;
/// The lowest key of a pending connection. Keys of the server are below it.
const FIRST_KEY: usize = 1 << 40;
/// The least time between two warnings about refused connections, after the first few.
const WARNING_INTERVAL: Micros = 10 * SECOND;

/// Steps of handshakes in one poll, while the server has nothing else to do.
const STEPS_WHEN_IDLE: usize = 8;
/// Steps of handshakes in each [`PACE`], while the server has other work.
const STEPS_WHEN_BUSY: usize = 2;
const PACE: Micros = MILLISECOND;
/// The log warns of a certificate that expires within this time, in seconds.
const EXPIRY_NEAR: u64 = 14 * 24 * 3600;
/// How often the door checks when certificates expire.
const EXPIRY_INTERVAL: Micros = 24 * 3600 * SECOND;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Door<N: Net> {
    net: N,
    rules: Rules,
    pending: Slab<PendingConnection<N::Socket>>,
    /// Pending connections that can be read.
    queue: VecDeque<usize>,
    /// The time at which each pending connection is closed, in order of time. Some of them are not pending any more.
    deadlines: VecDeque<(Micros, usize, u64)>,
    /// Connections that are not pending any more, and wait for the server to accept them.
    admitted: VecDeque<(Port, MaybeTlsSocket<N::Socket>, SocketAddr)>,
    /// Listeners at which a connection may wait.
    crowded: Vec<Port>,
    /// Numbers the pending connections: a key that is used again belongs to another connection.
    serial: u64,
    counters: DoorCounters,
    warnings: RateLimit,
    /// Sockets that are ready, and the server has not been told.
    wakes: Wakes,
    /// Where there is no place: when the next connection makes room, at the earliest.
    room_at: Micros,
    /// The time of the next handshake steps, while the server has other work.
    paced_until: Micros,
    /// When the door checks next whether a certificate expires.
    expiry_due: Option<Micros>,
    now: Micros,
}

/// A connection that the server does not know yet.
#[derive(Debug)]
struct PendingConnection<S: Read + Write> {
    socket: MaybeTlsSocket<S>,
    port: Port,
    peer: SocketAddr,
    serial: u64,
    /// Something has come that the door has not looked at.
    queued: bool,
    /// When something came last, or when it was accepted.
    heard_at: Micros,
    stage: Stage,
}

/// What a pending connection must send next.
#[derive(Debug)]
enum Stage {
    /// A PROXY header, and the part of it that has arrived.
    Header(Vec<u8>),
    /// The rest of its handshake.
    Handshake,
    /// Nothing.
    Over,
}

/// The result of a step of a pending connection.
enum Step {
    /// More bytes must come.
    Waits,
    /// The server may have it.
    Passes,
    /// It is closed.
    Refused(Refusal, String),
}

impl<N: Net> Door<N> {
    /// A door in front of the listeners of `net`.
    #[must_use]
    pub(crate) fn new(net: N, rules: Rules, now: Micros) -> Self {
        Self {
            net,
            rules,
            pending: Slab::new(),
            queue: VecDeque::new(),
            deadlines: VecDeque::new(),
            admitted: VecDeque::new(),
            crowded: Vec::new(),
            serial: 0,
            counters: DoorCounters::default(),
            warnings: RateLimit::new(3, WARNING_INTERVAL),
            wakes: Wakes::default(),
            room_at: now,
            paced_until: now,
            expiry_due: Some(now),
            now,
        }
    }

    /// Makes a new connection pending. Returns the connection if all that it must send is there already.
    fn receive(
        &mut self,
        port: Port,
        socket: N::Socket,
        peer: SocketAddr,
    ) -> Option<(MaybeTlsSocket<N::Socket>, SocketAddr)> {
        self.serial += 1;
        let entry = self.pending.vacant_entry();
        let index = entry.key();
        let mut socket = MaybeTlsSocket::new(socket);
        let watched = socket.inner().map(|socket| self.net.register(socket, FIRST_KEY + index));
        if let Some(Err(error)) = watched {
            self.refuse(peer, Refusal::Error, &error.to_string());
            return None;
        }
        socket.is_watched = true;
        let serial = self.serial;
        let has_header = self.rules.has_header(port, peer.ip());
        let stage = if has_header { Stage::Header(Vec::new()) } else { Stage::Over };
        let heard_at = self.now;
        entry.insert(PendingConnection { socket, port, peer, serial, queued: false, heard_at, stage });
        self.deadlines.push_back((self.now.saturating_add(self.rules.patience), index, serial));
        self.advance(index)
    }

    /// Takes the next step of a pending connection. Returns the connection if that was the last step.
    fn advance(&mut self, index: usize) -> Option<(MaybeTlsSocket<N::Socket>, SocketAddr)> {
        let connection = self.pending.get_mut(index)?;
        connection.queued = false;
        connection.heard_at = self.now;
        let mut step = connection.step();
        if matches!((&step, &connection.stage), (Step::Passes, Stage::Over))
            && let Some(tls) = self.rules.tls(connection.port)
        {
            connection.stage = Stage::Handshake;
            step = match connection.socket.speak_tls(tls.clone(), self.wakes.clone()) {
                Ok(()) => Step::Waits,
                Err(reason) => Step::Refused(Refusal::Tls, reason),
            };
            // Its first bytes may be there already.
            if !std::mem::replace(&mut connection.queued, true) {
                self.queue.push_back(index);
            }
        }
        match step {
            Step::Waits => None,
            Step::Passes => {
                let connection = self.leave(index)?;
                Some((connection.socket, connection.peer))
            }
            Step::Refused(refusal, reason) => {
                let connection = self.leave(index)?;
                self.refuse(connection.peer, refusal, &reason);
                None
            }
        }
    }

    /// Removes a connection from the pending ones.
    fn leave(&mut self, index: usize) -> Option<PendingConnection<N::Socket>> {
        let connection = self.pending.try_remove(index)?;
        if connection.queued {
            self.queue.retain(|&other| other != index);
        }
        Some(connection)
    }

    fn refuse(&mut self, peer: SocketAddr, refusal: Refusal, reason: &str) {
        self.counters.refused[refusal as usize] += 1;
        if let Some(left_out) = self.warnings.allow(self.now) {
            log::warn!(peer:%, reason, left_out; "connection refused before its login");
        }
    }

    /// Takes steps of the pending connections that can be read: all of them, but at most this number of handshake steps.
    fn advance_all(&mut self, mut handshakes: usize) {
        for _ in 0..self.queue.len() {
            let Some(index) = self.queue.pop_front() else { break };
            let Some(connection) = self.pending.get(index) else { continue };
            if matches!(connection.stage, Stage::Handshake) {
                if handshakes == 0 {
                    self.queue.push_back(index);
                    continue;
                }
                handshakes -= 1;
            }
            let port = connection.port;
            if let Some((socket, peer)) = self.advance(index) {
                self.admitted.push_back((port, socket, peer));
            }
        }
    }

    /// How many handshake steps may be taken now.
    fn handshakes(&mut self, is_idle: bool) -> usize {
        if is_idle {
            return STEPS_WHEN_IDLE;
        }
        if self.paced_until > self.now {
            return 0;
        }
        self.paced_until = self.now + PACE;
        STEPS_WHEN_BUSY
    }

    /// Once a day: warns of a certificate that runs out soon.
    fn look_at_expiry(&mut self) {
        if self.expiry_due.is_none_or(|due| due > self.now) {
            return;
        }
        self.counters.certificate_expires = self.rules.expiries().map(|(_, at)| at).min();
        self.expiry_due = self.counters.certificate_expires.map(|_| self.now + EXPIRY_INTERVAL);
        let today = time_of_day().as_secs();
        for (option, at) in self.rules.expiries().filter(|&(_, at)| at < today + EXPIRY_NEAR) {
            let days = at.saturating_sub(today) / (24 * 3600);
            log::warn!(days; "the certificate in {option} runs out soon");
        }
    }

    /// When the time of the next pending connection is up.
    fn deadline(&mut self) -> Option<Micros> {
        while let Some(&(at, index, serial)) = self.deadlines.front() {
            if self.pending.get(index).is_some_and(|connection| connection.serial == serial) {
                return Some(at);
            }
            self.deadlines.pop_front();
        }
        None
    }

    /// Closes pending connections whose time is up.
    fn turn_out_overdue(&mut self) {
        while let Some(at) = self.deadline()
            && at <= self.now
        {
            let Some((_, index, _)) = self.deadlines.pop_front() else { break };
            if let Some(connection) = self.leave(index) {
                self.refuse(connection.peer, Refusal::Timeout, "it has not shown in time what is asked for");
            }
        }
    }

    /// Somebody waits at a listener, and there is no place.
    fn is_full(&self) -> bool {
        !self.crowded.is_empty() && self.pending.len() >= PENDING_MAX
    }

    /// Where there is no place, connections that have been silent for long make room for newcomers. So a crowd of those that begin a
    /// handshake and do not go on keeps nobody out for longer than that.
    fn make_room(&mut self) {
        if !self.is_full() || self.room_at > self.now {
            return;
        }
        let until = |connection: &PendingConnection<N::Socket>| connection.heard_at + SILENCE_MAX;
        let waiting = self.pending.iter().filter(|(_, connection)| !connection.queued);
        let silent = waiting.clone().filter(|(_, connection)| until(connection) <= self.now);
        let silent: Vec<usize> = silent.map(|(index, _)| index).take(MAKE_ROOM_AT_ONCE).collect();
        if silent.is_empty() {
            let next = waiting.map(|(_, connection)| until(connection)).min();
            self.room_at = next.unwrap_or(self.now + SILENCE_MAX);
        }
        for index in silent {
            if let Some(connection) = self.leave(index) {
                self.refuse(
                    connection.peer,
                    Refusal::Timeout,
                    "it has been silent for long, and others need its place",
                );
            }
        }
    }

    /// Removes pending connections from the sockets that the server is told about, and notes that they can be read.
    fn take_note(&mut self, ready: &mut Vec<Ready>) {
        let (pending, queue) = (&mut self.pending, &mut self.queue);
        ready.retain(|what| {
            let Ready::Socket { key, .. } = *what else { return true };
            let Some(index) = key.checked_sub(FIRST_KEY) else { return true };
            if let Some(connection) = pending.get_mut(index)
                && !std::mem::replace(&mut connection.queued, true)
            {
                queue.push_back(index);
            }
            false
        });
    }
}

impl<S: Read + Write> PendingConnection<S> {
    fn step(&mut self) -> Step {
        match &mut self.stage {
            Stage::Header(_) => self.read_header(),
            Stage::Handshake => match self.socket.session().map(session::Session::shake) {
                Some(Ok(false)) => Step::Waits,
                Some(Err(reason)) => Step::Refused(Refusal::Tls, reason),
                Some(Ok(true)) | None => Step::Passes,
            },
            Stage::Over => Step::Passes,
        }
    }

    /// Reads the part of the PROXY header that has arrived.
    fn read_header(&mut self) -> Step {
        let (Stage::Header(header), Some(socket)) = (&mut self.stage, self.socket.inner()) else {
            return Step::Passes;
        };
        loop {
            let missing = match proxy::read(header) {
                proxy::Progress::Needs(missing) => missing,
                proxy::Progress::Whole(peer) => {
                    self.peer = peer.unwrap_or(self.peer);
                    self.stage = Stage::Over;
                    return Step::Passes;
                }
                proxy::Progress::Bad(reason) => return Step::Refused(Refusal::Proxy, reason.to_owned()),
            };
            let len = header.len();
            header.resize(len + missing, 0);
            let read = socket.read(&mut header[len..]);
            header.truncate(len + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => {
                    return Step::Refused(Refusal::Proxy, "it has ended within its PROXY header".to_owned());
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Step::Refused(Refusal::Error, error.to_string()),
            }
        }
    }
}

impl<N: Net> Net for Door<N> {
    type Socket = MaybeTlsSocket<N::Socket>;

    fn poll(&mut self, wait: Option<Micros>, ready: &mut Vec<Ready>) -> io::Result<Micros> {
        let is_idle = wait != Some(0);
        let room_at = self.is_full().then_some(self.room_at);
        let due = self.deadline().into_iter().chain(self.expiry_due).chain(room_at).min();
        let due = due.map(|at| at.saturating_sub(self.now));
        let woken = self.wakes.take();
        let may_let_in = !self.crowded.is_empty() && self.pending.len() < PENDING_MAX;
        let at_once = (!woken.is_empty() || !self.queue.is_empty() || may_let_in).then_some(0);
        let wait = wait.into_iter().chain(due).chain(at_once).min();
        ready.extend(woken.into_iter().map(|(key, hung_up)| Ready::Socket {
            key,
            readable: true,
            writable: false,
            hung_up,
            urgent: false,
        }));
        self.now = self.net.poll(wait, ready)?;
        self.take_note(ready);
        let before = self.admitted.len();
        let handshakes = self.handshakes(is_idle);
        self.advance_all(handshakes);
        self.turn_out_overdue();
        self.make_room();
        if ready.contains(&Ready::Reload) {
            self.rules.reload();
            self.expiry_due = Some(self.now);
        }
        self.look_at_expiry();
        let crowded =
            if self.pending.len() < PENDING_MAX { std::mem::take(&mut self.crowded) } else { Vec::new() };
        let admitted = self.admitted.iter().skip(before).map(|(port, ..)| *port);
        ready.extend(admitted.chain(crowded).map(Ready::Listener));
        Ok(self.now)
    }

    fn told_to_end(&mut self) -> usize {
        self.net.told_to_end()
    }

    fn accept(&mut self, port: Port) -> io::Result<(Self::Socket, SocketAddr)> {
        if let Some(index) = self.admitted.iter().position(|(at, ..)| *at == port)
            && let Some((_, socket, peer)) = self.admitted.remove(index)
        {
            return Ok((socket, peer));
        }
        for _ in 0..LET_IN_AT_ONCE {
            // A crowd at one port keeps nobody from another at which nothing has to be shown.
            if self.pending.len() >= PENDING_MAX && self.rules.asks_something(port) {
                break;
            }
            let (socket, peer) = self.net.accept(port)?;
            if !self.rules.has_header(port, peer.ip()) && self.rules.tls(port).is_none() {
                return Ok((MaybeTlsSocket::new(socket), peer));
            }
            if let Some(admitted) = self.receive(port, socket, peer) {
                return Ok(admitted);
            }
        }
        if !self.crowded.contains(&port) {
            self.crowded.push(port);
        }
        Err(ErrorKind::WouldBlock.into())
    }

    fn backlog(&mut self, port: Port) -> usize {
        let admitted = self.admitted.iter().filter(|(at, ..)| *at == port).count();
        self.net.backlog(port).saturating_add(admitted)
    }

    fn random(&mut self) -> u64 {
        self.net.random()
    }

    fn door(&self) -> DoorCounters {
        self.counters
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<Self::Socket> {
        self.net.connect(to).map(MaybeTlsSocket::new)
    }

    fn start_tls(&mut self, socket: &mut Self::Socket, key: usize, name: &str) -> io::Result<()> {
        let config = self.rules.stream_tls().ok_or(ErrorKind::Unsupported)?;
        socket.call_tls(Arc::clone(config), server_name(name)?, Rc::clone(&self.wakes), key)
    }

    fn register(&mut self, socket: &mut Self::Socket, key: usize) -> io::Result<()> {
        if let Some(session) = socket.session() {
            session.know_as(key);
        }
        let is_watched = std::mem::replace(&mut socket.is_watched, true);
        let socket = socket.inner().ok_or(ErrorKind::NotConnected)?;
        if is_watched {
            // So far it was watched under the key of a pending connection.
            self.net.want_write(socket, key, false)
        } else {
            self.net.register(socket, key)
        }
    }

    fn want_write(&mut self, socket: &mut Self::Socket, key: usize, on: bool) -> io::Result<()> {
        self.net.want_write(socket.inner().ok_or(ErrorKind::NotConnected)?, key, on)
    }

    fn forget(&mut self, socket: &mut Self::Socket) {
        if let Some(session) = socket.session() {
            session.forget_key();
        }
        if let Some(socket) = socket.inner() {
            self.net.forget(socket);
        }
    }

    fn finish(&mut self, socket: &mut Self::Socket) {
        let is_told = socket.session().is_none_or(session::Session::finish);
        if let Some(socket) = socket.inner().filter(|_| is_told) {
            self.net.finish(socket);
        }
    }

    fn hold_little_unsent(&mut self, socket: &mut Self::Socket, on: bool) {
        if let Some(socket) = socket.inner() {
            self.net.hold_little_unsent(socket, on);
        }
    }

    fn unread(&mut self, socket: &mut Self::Socket) -> usize {
        let decrypted = socket.session().map_or(0, session::Session::unread);
        decrypted + socket.inner().map_or(0, |socket| self.net.unread(socket))
    }

    fn clock(&self) -> Micros {
        self.net.clock()
    }

    fn warnings(&self) -> Vec<Warning> {
        self.net.warnings()
    }

    fn process(&mut self) -> Option<Process> {
        self.net.process()
    }

    fn peers_may_vanish(&self) -> bool {
        self.net.peers_may_vanish()
    }

    fn silence(&mut self, socket: &mut Self::Socket) -> Option<Micros> {
        socket.inner().and_then(|socket| self.net.silence(socket))
    }

    fn time_ms(&mut self) -> u64 {
        self.net.time_ms()
    }

    fn listen(&mut self, port: Port, on: bool) -> io::Result<()> {
        self.net.listen(port, on)?;
        if !on {
            self.forget(port);
        }
        Ok(())
    }

    fn close_listener(&mut self, port: Port) {
        self.net.close_listener(port);
        self.forget(port);
    }
}

impl<N: Net> Door<N> {
    /// Nobody waits at this port any more.
    fn forget(&mut self, port: Port) {
        self.admitted.retain(|(at, ..)| *at != port);
        let (pending, queue) = (&mut self.pending, &mut self.queue);
        pending.retain(|_, connection| connection.port != port);
        queue.retain(|&index| pending.contains(index));
    }
}
