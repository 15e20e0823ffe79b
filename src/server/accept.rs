//! The listeners for sources and users: whether a connection waits there, and accepting without descriptors.

use super::{
    closing::Urgency,
    net::{Net, Port},
    report::Reports,
    socket::would_block,
};
use crate::time::{MILLISECOND, Micros, SECOND};
use rustix::io::Errno;
use std::{collections::VecDeque, io, net::SocketAddr};

/// The pause after a failed accept.
const RETRY: Micros = SECOND;

/// Time of a turn in which users are let in. When it is over, others get their turns.
const LOGINS_PER_TURN: Micros = 5 * MILLISECOND;

/// Sources of the backlog that are read at the end: as many as it may hold.
const HELD_MAX: usize = 4096;

/// The listeners for sources and users.
#[derive(Debug)]
pub(super) struct Accepting<S> {
    source: Listener,
    user: Listener,
    stream: Listener,
    /// Users that have to be let in before anything else is looked at that has been read.
    first: usize,
    /// For how long users have been let in, in this turn.
    took: Micros,
    /// Sources that are accepted, and have to wait until one that has hung up before them is read to its end.
    held: VecDeque<(S, SocketAddr)>,
    /// Connections closed for being one too many, by [`Port`] as a number.
    turned_away: [u64; 4],
}

/// A listener's state.
#[derive(Debug, Default)]
struct Listener {
    /// It was ready and has not said since that accepting would block.
    ready: bool,
    /// Accepting failed for lack of descriptors or memory. It is not tried again before this time.
    retry_at: Option<Micros>,
}

impl<S> Accepting<S> {
    pub(super) fn new() -> Self {
        Self {
            source: Listener::default(),
            user: Listener::default(),
            stream: Listener::default(),
            first: 0,
            took: 0,
            held: VecDeque::new(),
            turned_away: [0; 4],
        }
    }

    /// A connection is closed because there are as many as are allowed.
    pub(super) fn turn_away(&mut self, port: Port, peer: SocketAddr, reports: &mut Reports, now: Micros) {
        self.turned_away[port as usize] += 1;
        reports.turned_away(port, peer, now);
    }

    /// Connections closed for being one too many.
    pub(super) fn turned_away(&self, port: Port) -> u64 {
        self.turned_away[port as usize]
    }

    /// A connection waits to be accepted.
    pub(super) fn note_ready(&mut self, port: Port) {
        self.listener_mut(port).ready = true;
    }

    /// Whether it is worth a try to accept.
    pub(super) fn may_accept(&self, port: Port, now: Micros) -> bool {
        let listener = self.listener(port);
        if port == Port::Source && !self.held.is_empty() {
            return true;
        }
        listener.ready && listener.retry_at.is_none_or(|at| at <= now)
    }

    /// How many wait to be accepted, as far as that can be known.
    pub(super) fn waiting<N: Net<Socket = S>>(&self, net: &mut N, port: Port, now: Micros) -> usize {
        // That nobody waits is learnt by trying.
        if self.may_accept(port, now) { net.backlog(port).max(1) } else { 0 }
    }

    /// Connections in the users' backlog now come before everything that has been read. Later ones do not.
    pub(super) fn mark_users<N: Net<Socket = S>>(&mut self, net: &mut N, now: Micros) {
        if self.first == 0 {
            self.first = self.waiting(net, Port::User, now);
        }
    }

    /// Users that have waited since they were marked, and have to be let in first.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    /// This number of the marked connections has been admitted, or no connection waits any more.
    pub(super) fn note_let_in(&mut self, users: usize, all: bool) {
        self.first = if all { 0 } else { self.first.saturating_sub(users) };
    }

    /// A turn begins, with time to let in users.
    pub(super) fn begin_turn(&mut self) {
        self.took = 0;
    }

    /// Letting in users has taken so long.
    pub(super) fn note_time(&mut self, took: Micros) {
        self.took += took;
    }

    /// Whether the turn has time left to let in users.
    pub(super) fn has_time(&self) -> bool {
        self.took < LOGINS_PER_TURN
    }

    /// When to try accepting again after it has failed.
    pub(super) fn retry_at(&self, port: Port) -> Option<Micros> {
        let listener = self.listener(port);
        listener.retry_at.filter(|_| listener.ready)
    }

    /// Accepts a connection. `None`: there is none, or no way to accept it for now.
    pub(super) fn accept<N: Net<Socket = S>>(
        &mut self,
        net: &mut N,
        port: Port,
        reports: &mut Reports,
        now: Micros,
    ) -> Option<(N::Socket, SocketAddr)> {
        if port == Port::Source
            && let Some(held) = self.held.pop_front()
        {
            return Some(held);
        }
        if !self.may_accept(port, now) {
            return None;
        }
        let listener = self.listener_mut(port);
        listener.retry_at = None;
        loop {
            match net.accept(port) {
                Ok(accepted) => return Some(accepted),
                Err(error) if would_block(&error) => {
                    listener.ready = false;
                    return None;
                }
                // The connection failed before it was accepted. Nobody else is concerned.
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    listener.retry_at = Some(now + RETRY);
                    reports.not_accepted(&error, now);
                    return None;
                }
            }
        }
    }

    /// How urgent it is to close sockets, and so to free their descriptors.
    pub(super) fn urgency_of_closing(&self) -> Urgency {
        if [&self.source, &self.user, &self.stream].iter().any(|listener| listener.retry_at.is_some()) {
            Urgency::AtOnce
        } else if self.first > 0 {
            Urgency::EventsWait
        } else {
            Urgency::Ordinary
        }
    }

    /// A descriptor is free again: accepting may work.
    pub(super) fn descriptor_freed(&mut self) {
        self.source.retry_at = None;
        self.user.retry_at = None;
        self.stream.retry_at = None;
    }

    /// A source that has been accepted has to wait. It is the next one.
    pub(super) fn hold(&mut self, socket: S, peer: SocketAddr) {
        self.held.push_front((socket, peer));
    }

    /// Sources that have been accepted and have to wait.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Only sources that wait in the backlog are still accepted: their bytes have arrived already.
    pub(super) fn close<N: Net<Socket = S>>(&mut self, net: &mut N, reports: &mut Reports, now: Micros) {
        let mut waiting = std::mem::take(&mut self.held);
        while waiting.len() < HELD_MAX
            && let Some(next) = self.accept(net, Port::Source, reports, now)
        {
            waiting.push_back(next);
        }
        net.close_listener(Port::Source);
        net.close_listener(Port::User);
        net.close_listener(Port::Stream);
        *self = Self { held: waiting, turned_away: self.turned_away, ..Self::new() };
    }

    /// Sources are not listened for any more. Those that wait are given up.
    pub(super) fn forget_sources(&mut self) {
        self.source = Listener::default();
        self.held.clear();
    }

    /// Those that still wait are given up. Says how many they are.
    pub(super) fn drop_held(&mut self) -> usize {
        std::mem::take(&mut self.held).len()
    }

    fn listener(&self, port: Port) -> &Listener {
        match port {
            Port::Source => &self.source,
            Port::Stream => &self.stream,
            _ => &self.user,
        }
    }

    fn listener_mut(&mut self, port: Port) -> &mut Listener {
        match port {
            Port::Source => &mut self.source,
            Port::Stream => &mut self.stream,
            _ => &mut self.user,
        }
    }
}

/// Errors of accept(2) that concern only the connection that was to be accepted. That connection is gone then. Any
/// other error may come again at once, for ever.
fn is_of_the_connection(error: &io::Error) -> bool {
    const OF_THE_CONNECTION: [Errno; 10] = [
        Errno::CONNABORTED,
        Errno::INTR,
        Errno::PROTO,
        Errno::NETDOWN,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        Errno::NONET,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::PERM,
    ];
    OF_THE_CONNECTION.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
