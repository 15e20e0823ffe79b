//! The released stream between servers: handing it out on the stream port, and taking it from another server at an edge.
//!
//! What has been released passes [`Server::hand_out`] before it is delivered to users. At an edge
//! [`Server::read_stream`] takes the place of reading event sources.

use super::{
    journal::Journal,
    lifecycle::Phase,
    net::Net,
    state::Server,
    stream_clients::Now,
    upstream::{Applied, Upstream},
};
use crate::{
    counters::DisconnectReason,
    sequence::{Cursor, SequenceNumber},
    stream::{follower::Loss, reader::Place},
    time::Micros,
};
use std::io;

impl<N: Net> Server<N> {
    /// The work for clients of the stream beside sending them released events.
    pub(super) fn serve_stream_clients(&mut self) -> io::Result<()> {
        if self.config.stream_port.is_none() {
            return Ok(());
        }
        self.accept_stream_clients()?;
        self.hand_out();
        let cursor = self.engine.cursor();
        if self.journal.as_ref().is_some_and(|journal| journal.is_behind(cursor)) {
            // A client that is admitted now would receive events before the journal has them.
            return Ok(());
        }
        let now = Now {
            time: self.now,
            epoch: self.epoch(),
            durable: self.acknowledgeable(),
            first_sequence: Cursor::before(SequenceNumber::new(self.config.first_sequence)),
        };
        let log = self.journal.as_mut().map(Journal::log_mut);
        self.stream_clients.serve(&mut self.engine, &mut self.net, log, &mut self.lingering, now);
        Ok(())
    }

    /// Connects to the stream again, when it is time.
    pub(super) fn keep_up_stream(&mut self) {
        if let Some(upstream) = &mut self.upstream
            && self.lifecycle.phase() == Phase::Running
        {
            upstream.meet_deadlines(&mut self.net, self.now);
            upstream.greet(&mut self.net, self.engine.cursor(), self.now);
        }
    }

    /// When there is something to do about the connection to the stream. At the end nothing is done about it any more.
    pub(super) fn stream_deadline(&self) -> Option<Micros> {
        let upstream = self.upstream.as_ref().filter(|_| self.phase() == Phase::Running);
        upstream.map(Upstream::deadline)
    }

    /// Whether there is something of the stream to be read or applied.
    pub(super) fn may_read_stream(&self) -> bool {
        let running = self.phase() == Phase::Running && self.reads_sources();
        running && self.accepting.first() == 0 && self.upstream.as_ref().is_some_and(Upstream::has_work)
    }

    /// Reads and applies the stream until there is nothing left or the turn is full. Returns how many reads that were.
    ///
    /// # Errors
    ///
    /// If it is not the stream that this edge has followed, and has kept in its journal.
    pub(super) fn read_stream(&mut self) -> io::Result<usize> {
        let mut reads = 0;
        while self.may_read_stream() {
            let most = self.link_reads_per_turn();
            if self.apply_stream()? {
                break;
            }
            let Some(upstream) = self.upstream.as_mut().filter(|_| reads < most) else { break };
            if !upstream.read(self.now) {
                break;
            }
            reads += 1;
            self.look_again()?;
        }
        Ok(reads)
    }

    /// Applies the lines that have been read. Returns whether the turn is full.
    fn apply_stream(&mut self) -> io::Result<bool> {
        while let Some(upstream) = &mut self.upstream {
            match upstream.apply(&mut self.engine, self.now) {
                Applied::All => break,
                Applied::TurnFull => return Ok(true),
                Applied::More => {}
                Applied::Anew(loss) => {
                    if !self.begin_anew(loss) {
                        return Ok(true);
                    }
                }
                Applied::Complete(place) => self.found_journal(place),
                Applied::AnotherStream(epoch) => {
                    let address = upstream.link().address();
                    return Err(io::Error::other(format!(
                        "stream: {address} is another stream, of epoch {epoch}; start this edge with an empty journalDirectory to follow it"
                    )));
                }
            }
        }
        Ok(false)
    }

    /// The stream does not go on where this edge was: it begins with a graph that follows, and nobody stays who would miss
    /// something without a word. Returns false if the journal has to take first what came before.
    pub(super) fn begin_anew(&mut self, loss: Option<Loss>) -> bool {
        self.deliver();
        if self.is_barred() {
            if let Some(upstream) = &mut self.upstream {
                upstream.link_mut().postponed = Some(loss);
            }
            if let Some(replicated) = &mut self.replicated {
                replicated.link_mut().postponed = Some(loss);
            }
            return false;
        }
        let reason = match loss {
            None => None,
            Some(Loss::Gone) => Some(DisconnectReason::Gone),
            Some(Loss::Epoch) => Some(DisconnectReason::Epoch),
        };
        if let Some(reason) = reason {
            self.stream_clients.end_all(reason.name());
            log::warn!(reason = reason.name(), cursor = self.engine.cursor(); "this edge starts again from the graph: its users are disconnected");
            self.users.end_all(reason);
            self.stream_clients.end_all(reason.name());
            self.deliver();
        }
        self.engine.restart();
        if self.journal.is_some() {
            // A journal does not take the beginning of a run: it starts again itself.
            self.engine.take_released(&mut self.released);
        }
        self.hand_out();
        self.engine.set_cursor(Cursor::START);
        true
    }

    /// The follow graph of the stream is complete: the journal, if there is one, begins with it.
    pub(super) fn found_journal(&mut self, place: Place) {
        if let Some(journal) = &mut self.journal {
            journal.found(place, &mut self.engine);
        }
    }
}
