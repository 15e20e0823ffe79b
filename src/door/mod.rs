//! The door: what a connection has to show before the server hears of it (SPEC section 12).
//!
//! It is a [`Net`] around another one. A connection from a proxy first sends a PROXY header ([`proxy`](crate::proxy)). The
//! door reads it, and hands the connection on with the real peer as its address. Until then the connection is a
//! *visitor*: the server above does not know it, so it takes no place there, and the time to log in has not begun. The
//! door closes a visitor that shows something else, or nothing within `loginTimeoutMs`.
//!
//! A connection that has nothing to show passes at once.

mod rules;
mod socket;

pub use rules::Rules;
pub use socket::Guest;

use crate::{
    counters::{DoorCounters, Refusal},
    proxy,
    rate_limit::RateLimit,
    server::net::{Net, Port, Ready},
    time::{Micros, SECOND},
};
use rules::Shows;
use slab::Slab;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read},
    net::SocketAddr,
};

/// Visitors at once. While there are more, they wait in the backlog.
const VISITORS_MAX: usize = 4096;
/// Keys of visitors begin here: above all those of the server.
const FIRST_KEY: usize = 1 << 40;
/// A warning about refused visitors may be written this often.
const WARNING_INTERVAL: Micros = 10 * SECOND;

/// See the [module](self).
#[derive(Debug)]
pub struct Door<N: Net> {
    net: N,
    rules: Rules,
    visitors: Slab<Visitor<N::Socket>>,
    /// Those that can be read.
    queue: VecDeque<usize>,
    /// When each must have shown everything, in order of time; some have, or are gone.
    deadlines: VecDeque<(Micros, usize, u64)>,
    /// Those who have shown everything, and wait to be accepted.
    admitted: VecDeque<(Port, Guest<N::Socket>, SocketAddr)>,
    /// Listeners at which somebody may wait for a place among the visitors.
    crowded: Vec<Port>,
    /// Numbers visitors, so that a place that is used again is not taken for the one before.
    serial: u64,
    counters: DoorCounters,
    warnings: RateLimit,
    now: Micros,
}

/// A connection that the server does not know yet.
#[derive(Debug)]
struct Visitor<S> {
    guest: Guest<S>,
    port: Port,
    peer: SocketAddr,
    serial: u64,
    queued: bool,
    /// What has come of the PROXY header.
    header: Vec<u8>,
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
    pub fn new(net: N, rules: Rules, now: Micros) -> Self {
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
            now,
        }
    }

    /// Lets somebody in who has something to show. Gives it back if it has shown that already.
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
        if let Err(error) = self.net.register(guest.inner(), FIRST_KEY + index) {
            self.refuse(peer, Refusal::Error, &error.to_string());
            return None;
        }
        guest.is_watched = true;
        let serial = self.serial;
        entry.insert(Visitor { guest, port, peer, serial, queued: false, header: Vec::new() });
        self.deadlines.push_back((self.now.saturating_add(self.rules.patience), index, serial));
        self.advance(index)
    }

    /// Goes on with a visitor. Gives it if it has shown everything.
    fn advance(&mut self, index: usize) -> Option<(Guest<N::Socket>, SocketAddr)> {
        let visitor = self.visitors.get_mut(index)?;
        visitor.queued = false;
        match visitor.step() {
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

    /// Visitors have sent something: goes on with them.
    fn advance_all(&mut self) {
        for _ in 0..self.queue.len() {
            let Some(index) = self.queue.pop_front() else { break };
            let Some(port) = self.visitors.get(index).map(|visitor| visitor.port) else { continue };
            if let Some((guest, peer)) = self.advance(index) {
                self.admitted.push_back((port, guest, peer));
            }
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

impl<S: Read> Visitor<S> {
    /// Reads of the PROXY header what is there.
    fn step(&mut self) -> Step {
        loop {
            let missing = match proxy::read(&self.header) {
                proxy::Progress::Needs(missing) => missing,
                proxy::Progress::Whole(peer) => {
                    self.peer = peer.unwrap_or(self.peer);
                    return Step::Passes;
                }
                proxy::Progress::Bad(reason) => return Step::Refused(Refusal::Proxy, reason.to_owned()),
            };
            let len = self.header.len();
            self.header.resize(len + missing, 0);
            let read = self.guest.inner().read(&mut self.header[len..]);
            self.header.truncate(len + *read.as_ref().unwrap_or(&0));
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
        let due = self.deadline().map(|at| at.saturating_sub(self.now));
        let wait = wait.into_iter().chain(due).min();
        self.now = self.net.poll(wait, ready)?;
        self.take_note(ready);
        let before = self.admitted.len();
        self.advance_all();
        self.turn_out_overdue();
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
        while self.visitors.len() < VISITORS_MAX {
            let (socket, peer) = self.net.accept(port)?;
            if self.rules.shows(port, peer.ip()) == Shows::Nothing {
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

    fn random(&mut self) -> u64 {
        self.net.random()
    }

    fn door(&self) -> DoorCounters {
        self.counters
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<Self::Socket> {
        self.net.connect(to).map(Guest::new)
    }

    fn register(&mut self, guest: &mut Self::Socket, key: usize) -> io::Result<()> {
        if std::mem::replace(&mut guest.is_watched, true) {
            // It is watched under the key of a visitor: from now on under this one.
            self.net.want_write(guest.inner(), key, false)
        } else {
            self.net.register(guest.inner(), key)
        }
    }

    fn want_write(&mut self, guest: &mut Self::Socket, key: usize, on: bool) -> io::Result<()> {
        self.net.want_write(guest.inner(), key, on)
    }

    fn finish(&mut self, guest: &mut Self::Socket) {
        self.net.finish(guest.inner());
    }

    fn unread(&mut self, guest: &mut Self::Socket) -> usize {
        self.net.unread(guest.inner())
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
