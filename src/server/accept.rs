//! Accepting connections, within the limits, and without descriptors.

use super::{
    Listener, Net, Server,
    connection::{Connection, Login, Role, Source},
    net::Port,
    would_block,
};
use crate::time::{MILLISECOND, Micros, SECOND};
use rustix::io::Errno;
use std::{io, net::SocketAddr};

/// Connections accepted before something else gets a turn: no backlog is longer.
const ACCEPTS_PER_TURN: usize = 8192;
/// Where accepting has failed for want of descriptors, it is tried again after this.
const ACCEPT_RETRY: u64 = SECOND;

impl<N: Net> Server<N> {
    /// Whether some connection waits to be accepted.
    pub(super) fn can_accept(&self) -> bool {
        self.waiting().any(|listener| listener.may_try(self.now))
    }

    /// When accepting is to be tried again after it has failed for want of descriptors.
    pub(super) fn accept_deadline(&self) -> Option<Micros> {
        self.waiting().filter_map(|listener| listener.retry_at).min()
    }

    /// The listeners on which somebody waits who may come in: no source before one that has hung up is gone.
    fn waiting(&self) -> impl Iterator<Item = &Listener> {
        let [sources, users] = &self.listeners;
        let sources = Some(sources).filter(|listener| listener.ready && !self.any_source_leaving());
        sources.into_iter().chain(Some(users).filter(|listener| listener.ready))
    }

    fn can_accept_on(&self, port: Port) -> bool {
        let listener = &self.listeners[usize::from(port == Port::User)];
        listener.ready && listener.may_try(self.now)
    }

    /// Accepts what is waiting on a listener; says whether that was anything.
    pub(super) fn accept(&mut self, port: Port) -> io::Result<bool> {
        let mut accepted = false;
        if !self.can_accept_on(port) {
            return Ok(accepted);
        }
        self.listener(port).retry_at = None;
        for _ in 0..ACCEPTS_PER_TURN {
            match self.net.accept(port) {
                Ok((socket, peer)) => {
                    self.admit(port, socket, peer)?;
                    accepted = true;
                }
                Err(error) if would_block(&error) => {
                    self.listener(port).ready = false;
                    break;
                }
                Err(error) if is_exhausted(&error) => {
                    self.listener(port).retry_at = Some(self.now + ACCEPT_RETRY);
                    self.warn_accept(&error);
                    break;
                }
                // The connection failed before it was accepted: that is its own affair.
                Err(_) => {}
            }
        }
        Ok(accepted)
    }

    /// Accepts event sources, after those have gone that hung up before.
    pub(super) fn accept_sources(&mut self) -> io::Result<()> {
        if self.can_accept_on(Port::Source) {
            self.poll(Some(0))?;
            if !self.any_source_leaving() {
                self.accept(Port::Source)?;
            }
        }
        Ok(())
    }

    fn is_full(&self, port: Port) -> bool {
        match port {
            Port::Source => self.live_sources() >= self.config.max_event_source_clients as usize,
            _ => self.user_clients >= self.config.max_user_clients as usize,
        }
    }

    /// A new connection: takes it in, or closes it if it is one too many.
    fn admit(&mut self, port: Port, socket: N::Socket, peer: SocketAddr) -> io::Result<()> {
        if self.is_full(port) {
            // Perhaps somebody has gone since the net was last asked.
            self.poll(Some(0))?;
            self.read_users();
        }
        if self.is_full(port) {
            self.reject_connection(port, peer);
            return Ok(());
        }
        let deadline = self.now + self.config.login_timeout_ms * MILLISECOND;
        let role = match port {
            Port::Source => Role::Source(Source { late_so_far: true, ..Source::default() }),
            _ => Role::Login(Login { line: Vec::new(), deadline }),
        };
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        let mut connection = Connection { socket, peer, readable: false, queued: false, role };
        if let Err(error) = self.net.register(&mut connection.socket, key) {
            self.warn_not_watched(peer, &error);
            return Ok(());
        }
        entry.insert(connection);
        if port == Port::Source {
            self.source_clients += 1;
            log::debug!(peer:%; "event source connected");
        } else {
            self.user_clients += 1;
            self.note_login_deadline(deadline, key);
        }
        Ok(())
    }

    /// A descriptor is free again: accepting may work.
    pub(super) fn descriptor_freed(&mut self) {
        for listener in &mut self.listeners {
            listener.retry_at = None;
        }
    }
}

/// Out of descriptors or memory, for this process or the whole system.
fn is_exhausted(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
