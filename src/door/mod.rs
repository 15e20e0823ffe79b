//! The door: what a connection has to show before the server hears of it (SPEC section 12).
//!
//! It is a [`Net`] around another one. A connection from a proxy first sends a PROXY header ([`proxy`]). The
//! door reads it, and hands the connection on with the real peer as its address. Until then the connection is a
//! *visitor*: the server above does not know it, so it takes no place there, and the time to log in has not begun. The
//! door closes a visitor that shows something else, or nothing within `loginTimeoutMs`.
//!
//! Where a port speaks TLS, the handshake comes next ([`session`]). A crowd of handshakes does not hold up the events: while
//! the server has other work, only a few are gone on with in a millisecond. Behind the door nobody knows of TLS.
//!
//! A connection that has nothing to show passes at once.
//!
//! The server's own connection to its stream goes out by the same door: [`Net::start_tls`].

mod certificates;
mod rules;
mod session;
mod socket;

pub(crate) use certificates::{client_config, server_name};
pub(crate) use rules::Rules;
pub(crate) use socket::Guest;

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

/// Visitors at once. While there are more, they wait in the backlog.
const VISITORS_MAX: usize = 4096;
/// Visitors that are let in before something else gets a turn.
const LET_IN_AT_ONCE: usize = 64;
/// Keys of visitors begin here: above all those of the server.
const FIRST_KEY: usize = 1 << 40;
/// A warning about refused visitors may be written this often.
const WARNING_INTERVAL: Micros = 10 * SECOND;

/// Steps of handshakes in one look, while the server has nothing else to do.
const STEPS_WHEN_IDLE: usize = 8;
/// The same while it has, for each [`PACE`].
const STEPS_WHEN_BUSY: usize = 2;
const PACE: Micros = MILLISECOND;
/// A certificate that runs out within this is warned of, in seconds.
const EXPIRY_NEAR: u64 = 14 * 24 * 3600;
/// How often that is looked at.
const EXPIRY_INTERVAL: Micros = 24 * 3600 * SECOND;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Door<N: Net> {
    net: N,
    rules: Rules,
    visitors: Slab<Visitor<N::Socket>>,
    /// Those that can be read.
    queue: VecDeque<usize>,
    /// When each must have shown everything, in order of time; some have, or are gone.
    deadlines: VecDeque<(Micros, usize, u64)>,
    /// Those who have shown everything, and wait to be accepted.
    admitted: VecDeque<(Port, Guest<N::Socket>, SocketAddr)>,
    /// Listeners at which a connection may wait.
    crowded: Vec<Port>,
    /// Numbers visitors, so that a place that is used again is not taken for the one before.
    serial: u64,
    counters: DoorCounters,
    warnings: RateLimit,
    /// Sockets whose readiness the server must be told.
    wakes: Wakes,
    /// When handshakes may be gone on with while the server has other work.
    paced_until: Micros,
    /// When the certificate's end is looked at next.
    expiry_due: Option<Micros>,
    now: Micros,
}

/// A connection that the server does not know yet.
#[derive(Debug)]
struct Visitor<S: Read + Write> {
    guest: Guest<S>,
    port: Port,
    peer: SocketAddr,
    serial: u64,
    queued: bool,
    stage: Stage,
}

/// The next thing that a new connection must show.
#[derive(Debug)]
enum Stage {
    /// A PROXY header, and the part of it that has arrived.
    Header(Vec<u8>),
    /// The end of its handshake.
    Handshake,
    /// Nothing.
    Over,
}

/// How far a visitor has come.
enum Step {
    /// It has to show more.
    Waits,
    /// It has shown everything.
    Passes,
    /// It may not pass.
    Refused(Refusal, String),
}

impl<N: Net> Door<N> {
    /// A door in front of the listeners of `net`.
    #[must_use]
    pub(crate) fn new(net: N, rules: Rules, now: Micros) -> Self {
        Self {
            net,
            rules,
            visitors: Slab::new(),
            queue: VecDeque::new(),
            deadlines: VecDeque::new(),
            admitted: VecDeque::new(),
            crowded: Vec::new(),
            serial: 0,
            counters: DoorCounters::default(),
            warnings: RateLimit::new(3, WARNING_INTERVAL),
            wakes: Wakes::default(),
            paced_until: now,
            expiry_due: Some(now),
            now,
        }
    }

    /// Admits a connection that has something to show. Returns it if it has shown that already.
    fn receive(
        &mut self,
        port: Port,
        socket: N::Socket,
        peer: SocketAddr,
    ) -> Option<(Guest<N::Socket>, SocketAddr)> {
        self.serial += 1;
        let entry = self.visitors.vacant_entry();
        let index = entry.key();
        let mut guest = Guest::new(socket);
        let watched = guest.inner().map(|socket| self.net.register(socket, FIRST_KEY + index));
        if let Some(Err(error)) = watched {
            self.refuse(peer, Refusal::Error, &error.to_string());
            return None;
        }
        guest.is_watched = true;
        let serial = self.serial;
        let has_header = self.rules.has_header(port, peer.ip());
        let stage = if has_header { Stage::Header(Vec::new()) } else { Stage::Over };
        entry.insert(Visitor { guest, port, peer, serial, queued: false, stage });
        self.deadlines.push_back((self.now.saturating_add(self.rules.patience), index, serial));
        self.advance(index)
    }

    /// Goes on with a visitor. Gives it if it has shown everything.
    fn advance(&mut self, index: usize) -> Option<(Guest<N::Socket>, SocketAddr)> {
        let visitor = self.visitors.get_mut(index)?;
        visitor.queued = false;
        let mut step = visitor.step();
        if matches!((&step, &visitor.stage), (Step::Passes, Stage::Over))
            && let Some(tls) = self.rules.tls(visitor.port)
        {
            visitor.stage = Stage::Handshake;
            step = match visitor.guest.speak_tls(tls.clone(), self.wakes.clone()) {
                Ok(()) => Step::Waits,
                Err(reason) => Step::Refused(Refusal::Tls, reason),
            };
            // Its first bytes may be there already.
            if !std::mem::replace(&mut visitor.queued, true) {
                self.queue.push_back(index);
            }
        }
        match step {
            Step::Waits => None,
            Step::Passes => {
                let visitor = self.leave(index)?;
                Some((visitor.guest, visitor.peer))
            }
            Step::Refused(refusal, reason) => {
                let visitor = self.leave(index)?;
                self.refuse(visitor.peer, refusal, &reason);
                None
            }
        }
    }

    /// A visitor is one no more.
    fn leave(&mut self, index: usize) -> Option<Visitor<N::Socket>> {
        let visitor = self.visitors.try_remove(index)?;
        if visitor.queued {
            self.queue.retain(|&other| other != index);
        }
        Some(visitor)
    }

    fn refuse(&mut self, peer: SocketAddr, refusal: Refusal, reason: &str) {
        self.counters.refused[refusal as usize] += 1;
        if let Some(left_out) = self.warnings.allow(self.now) {
            log::warn!(peer:%, reason, left_out; "connection refused before its login");
        }
    }

    /// Visitors have sent something: goes on with them, up to this number of handshakes.
    fn advance_all(&mut self, mut handshakes: usize) {
        for _ in 0..self.queue.len() {
            let Some(index) = self.queue.pop_front() else { break };
            let Some(visitor) = self.visitors.get(index) else { continue };
            if matches!(visitor.stage, Stage::Handshake) {
                if handshakes == 0 {
                    self.queue.push_back(index);
                    continue;
                }
                handshakes -= 1;
            }
            let port = visitor.port;
            if let Some((guest, peer)) = self.advance(index) {
                self.admitted.push_back((port, guest, peer));
            }
        }
    }

    /// How many handshakes may be gone on with now.
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

    /// When the next visitor has had its time.
    fn deadline(&mut self) -> Option<Micros> {
        while let Some(&(at, index, serial)) = self.deadlines.front() {
            if self.visitors.get(index).is_some_and(|visitor| visitor.serial == serial) {
                return Some(at);
            }
            self.deadlines.pop_front();
        }
        None
    }

    /// Closes visitors that have had their time.
    fn turn_out_overdue(&mut self) {
        while let Some(at) = self.deadline()
            && at <= self.now
        {
            let Some((_, index, _)) = self.deadlines.pop_front() else { break };
            if let Some(visitor) = self.leave(index) {
                self.refuse(visitor.peer, Refusal::Timeout, "it has not shown in time what is asked for");
            }
        }
    }

    /// Takes readiness of visitors out of what is told to the server.
    fn take_note(&mut self, ready: &mut Vec<Ready>) {
        let (visitors, queue) = (&mut self.visitors, &mut self.queue);
        ready.retain(|what| {
            let Ready::Socket { key, .. } = *what else { return true };
            let Some(index) = key.checked_sub(FIRST_KEY) else { return true };
            if let Some(visitor) = visitors.get_mut(index)
                && !std::mem::replace(&mut visitor.queued, true)
            {
                queue.push_back(index);
            }
            false
        });
    }
}

impl<S: Read + Write> Visitor<S> {
    fn step(&mut self) -> Step {
        match &mut self.stage {
            Stage::Header(_) => self.read_header(),
            Stage::Handshake => match self.guest.session().map(session::Session::shake) {
                Some(Ok(false)) => Step::Waits,
                Some(Err(reason)) => Step::Refused(Refusal::Tls, reason),
                Some(Ok(true)) | None => Step::Passes,
            },
            Stage::Over => Step::Passes,
        }
    }

    /// Reads of the PROXY header what is there.
    fn read_header(&mut self) -> Step {
        let (Stage::Header(header), Some(socket)) = (&mut self.stage, self.guest.inner()) else {
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
    type Socket = Guest<N::Socket>;

    fn poll(&mut self, wait: Option<Micros>, ready: &mut Vec<Ready>) -> io::Result<Micros> {
        let is_idle = wait != Some(0);
        let due = self.deadline().into_iter().chain(self.expiry_due).min();
        let due = due.map(|at| at.saturating_sub(self.now));
        let woken = self.wakes.take();
        let may_let_in = !self.crowded.is_empty() && self.visitors.len() < VISITORS_MAX;
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
        if ready.contains(&Ready::Reload) {
            self.rules.reload();
            self.expiry_due = Some(self.now);
        }
        self.look_at_expiry();
        let crowded =
            if self.visitors.len() < VISITORS_MAX { std::mem::take(&mut self.crowded) } else { Vec::new() };
        let admitted = self.admitted.iter().skip(before).map(|(port, ..)| *port);
        ready.extend(admitted.chain(crowded).map(Ready::Listener));
        Ok(self.now)
    }

    fn accept(&mut self, port: Port) -> io::Result<(Self::Socket, SocketAddr)> {
        if let Some(index) = self.admitted.iter().position(|(at, ..)| *at == port)
            && let Some((_, guest, peer)) = self.admitted.remove(index)
        {
            return Ok((guest, peer));
        }
        for _ in 0..LET_IN_AT_ONCE {
            if self.visitors.len() >= VISITORS_MAX {
                break;
            }
            let (socket, peer) = self.net.accept(port)?;
            if !self.rules.has_header(port, peer.ip()) && self.rules.tls(port).is_none() {
                return Ok((Guest::new(socket), peer));
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
        self.net.connect(to).map(Guest::new)
    }

    fn start_tls(&mut self, guest: &mut Self::Socket, key: usize, name: &str) -> io::Result<()> {
        let config = self.rules.stream_tls().ok_or(ErrorKind::Unsupported)?;
        guest.call_tls(Arc::clone(config), server_name(name)?, Rc::clone(&self.wakes), key)
    }

    fn register(&mut self, guest: &mut Self::Socket, key: usize) -> io::Result<()> {
        if let Some(session) = guest.session() {
            session.know_as(key);
        }
        let is_watched = std::mem::replace(&mut guest.is_watched, true);
        let socket = guest.inner().ok_or(ErrorKind::NotConnected)?;
        if is_watched {
            // It is watched under the key of a visitor: from now on under this one.
            self.net.want_write(socket, key, false)
        } else {
            self.net.register(socket, key)
        }
    }

    fn want_write(&mut self, guest: &mut Self::Socket, key: usize, on: bool) -> io::Result<()> {
        self.net.want_write(guest.inner().ok_or(ErrorKind::NotConnected)?, key, on)
    }

    fn forget(&mut self, guest: &mut Self::Socket) {
        if let Some(session) = guest.session() {
            session.forget_key();
        }
        if let Some(socket) = guest.inner() {
            self.net.forget(socket);
        }
    }

    fn finish(&mut self, guest: &mut Self::Socket) {
        let is_told = guest.session().is_none_or(session::Session::finish);
        if let Some(socket) = guest.inner().filter(|_| is_told) {
            self.net.finish(socket);
        }
    }

    fn unread(&mut self, guest: &mut Self::Socket) -> usize {
        let decrypted = guest.session().map_or(0, session::Session::unread);
        decrypted + guest.inner().map_or(0, |socket| self.net.unread(socket))
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

    fn silence(&mut self, guest: &mut Self::Socket) -> Option<Micros> {
        guest.inner().and_then(|socket| self.net.silence(socket))
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
        let (visitors, queue) = (&mut self.visitors, &mut self.queue);
        visitors.retain(|_, visitor| visitor.port != port);
        queue.retain(|&index| visitors.contains(index));
    }
}
