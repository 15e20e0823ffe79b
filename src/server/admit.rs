//! Letting connections in: as many in a turn as leave time for the others, each where there is a place for it.

use super::{
    key::SourceKey,
    net::{Net, Port},
    sources::Admission,
    state::Server,
};
use std::io;

/// Connections that are accepted before the net is asked what is ready and how late it is.
const ACCEPTS_AT_ONCE: usize = 64;
/// Event sources that are accepted or turned away in a turn.
const SOURCES_PER_TURN: usize = 256;

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
                    self.accepting.turn_away(Port::Source, peer, &mut self.reports, self.now);
                }
            }
        }
        Ok(())
    }

    /// Everything that users want: to be written to, hang-ups, logins, connections; in the order in which they came.
    ///
    /// A new connection is not read right away, even if its login is probably there: the login of an older connection
    /// may have come before, unnoticed so far. So the net is asked again. It tells of both in their order.
    ///
    /// Those are let in who wait when this is called. Who connects meanwhile comes next time: otherwise clients that connect
    /// again and again would put off the events for ever. If they are so many that they need more than their part of the turn,
    /// they come round again, and until then nothing is looked at that has been read.
    pub(super) fn serve_users(&mut self) -> io::Result<()> {
        self.read_users();
        self.accepting.mark_users(&mut self.net, self.now);
        while self.accepting.first() > 0 && self.accepting.has_time() {
            let (began, most) = (self.now, self.accepting.first().min(ACCEPTS_AT_ONCE));
            let accepted = self.accept(Port::User, most)?;
            self.accepting.note_let_in(accepted, accepted < most);
            if accepted > 0 {
                self.collect(Some(0))?;
                self.read_users();
            }
            self.accepting.note_time(self.now - began);
        }
        Ok(())
    }

    /// Accepts users or clients of the stream that wait, up to `most`. Returns how many there were.
    pub(super) fn accept(&mut self, port: Port, most: usize) -> io::Result<usize> {
        for accepted in 0..most {
            let next = self.accepting.accept(&mut self.net, port, &mut self.reports, self.now);
            let Some((socket, peer)) = next else {
                return Ok(accepted);
            };
            if self.is_full(port) {
                // A connection may have ended since the net was last asked.
                self.collect(Some(0))?;
                self.read_users();
            }
            if self.is_full(port) {
                self.accepting.turn_away(port, peer, &mut self.reports, self.now);
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
        Ok(most)
    }

    /// Accepts clients of the stream, as many as one turn has time for.
    pub(super) fn accept_stream_clients(&mut self) -> io::Result<()> {
        self.accept(Port::Stream, ACCEPTS_AT_ONCE).map(|_| ())
    }

    pub(super) fn is_full(&self, port: Port) -> bool {
        match port {
            Port::Stream => self.stream_clients.is_full(),
            _ => self.users.is_full(),
        }
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
            self.accepting.turn_away(Port::Source, peer, &mut self.reports, self.now);
        }
    }
}
