//! Letting connections in: as many in a turn as leave time for the others, each where there is a place for it.

use super::{
    key::SourceKey,
    net::{Net, Port},
    sources::Admission,
    state::Server,
};
use std::io;

/// Connections accepted before something else gets a turn: no backlog is longer.
const ACCEPTS_PER_TURN: usize = 8192;
/// Event sources that are accepted or turned away in a turn.
const SOURCES_PER_TURN: usize = 256;

/// How often connections are accepted before events get their turn: once, and then their logins are read.
const ACCEPT_ROUNDS: usize = 2;

impl<N: Net> Server<N> {
    pub(super) fn may_accept_sources(&self) -> bool {
        self.accepting.may_accept(Port::Source, self.now) && self.sources.admission() != Admission::Later
    }

    /// Accepts event sources. Who has hung up is known only to those who ask; and one that waits may have connected after
    /// that. So the net is asked before and after accepting one.
    pub(super) fn accept_sources(&mut self) -> io::Result<()> {
        for _ in 0..SOURCES_PER_TURN {
            if !self.may_accept_sources() {
                break;
            }
            self.collect(Some(0))?;
            if self.sources.admission() == Admission::Later {
                break;
            }
            let accepted = self.accepting.accept(&mut self.net, Port::Source, &mut self.reports, self.now);
            let Some((socket, peer)) = accepted else {
                break;
            };
            if self.sources.admission() == Admission::Never || self.config.reset_on_source_eof {
                self.collect(Some(0))?;
            }
            match self.sources.admission() {
                Admission::Now | Admission::OnTrial => {
                    match self.sources.admit(socket, peer, &mut self.net, self.now) {
                        Ok(()) => self.reports.source_connected(peer, self.now),
                        Err(error) => self.reports.not_watched(peer, &error, self.now),
                    }
                }
                Admission::Later => self.accepting.hold(socket, peer),
                Admission::Never => {
                    self.sources.silence.turned_away(self.now);
                    let counters = &mut self.engine.counters;
                    self.reports.turned_away(Port::Source, peer, counters, self.now);
                }
            }
        }
        Ok(())
    }

    /// Accepts the users, or the clients of the stream, that wait; says whether there were any.
    pub(super) fn accept(&mut self, port: Port) -> io::Result<bool> {
        for accepted in 0..ACCEPTS_PER_TURN {
            let next = self.accepting.accept(&mut self.net, port, &mut self.reports, self.now);
            let Some((socket, peer)) = next else {
                return Ok(accepted > 0);
            };
            if self.is_full(port) {
                // Perhaps somebody has gone since the net was last asked.
                self.collect(Some(0))?;
                self.read_users();
            }
            if self.is_full(port) {
                self.reports.turned_away(port, peer, &mut self.engine.counters, self.now);
                continue;
            }
            let admitted = match port {
                Port::Stream => self.stream_clients.admit(socket, peer, &mut self.net, self.now),
                _ => self.users.admit(socket, peer, &mut self.net, self.now),
            };
            if let Err(error) = admitted {
                self.reports.not_watched(peer, &error, self.now);
            }
        }
        Ok(true)
    }

    pub(super) fn is_full(&self, port: Port) -> bool {
        match port {
            Port::Stream => self.stream_clients.is_full(),
            _ => self.users.is_full(),
        }
    }

    /// Everything that users want: to be written to, hang-ups, logins, connections; in the order in which they came.
    ///
    /// A new connection is not read right away, even if its login is probably there: the login of an older connection
    /// may have come before, unnoticed so far. So the net is asked again. It tells of both in their order.
    pub(super) fn serve_users(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPT_ROUNDS {
            self.read_users();
            if !self.accept(Port::User)? {
                break;
            }
            self.collect(Some(0))?;
        }
        Ok(())
    }

    pub(super) fn read_users(&mut self) {
        let (users, mut context) = self.users();
        users.flush_writable(&mut context);
        users.read(context.now);
        if self.users.has_changes() {
            self.deliver();
        } else {
            self.control_congestion();
        }
    }

    /// Between reading a source and looking at the bytes: logins that were there before are served first.
    pub(super) fn look_again(&mut self) -> io::Result<()> {
        self.collect(Some(0))?;
        self.serve_users()
    }

    /// A source that has not given the name of one that is connected is one too many.
    pub(super) fn turn_source_away(&mut self, key: SourceKey) {
        if let Some(peer) = self.sources.turn_away(key) {
            self.sources.silence.turned_away(self.now);
            self.reports.turned_away(Port::Source, peer, &mut self.engine.counters, self.now);
        }
    }
}
