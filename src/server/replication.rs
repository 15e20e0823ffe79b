//! The replicated log in the turn: following it, leading it, and publishing to it (`docs/SPEC.md` section 11).
//!
//! A sequencer has no journal: the log is it. What is released is published before anything else is done with it, and sources are told only
//! of what the log has confirmed. While the log does not take more, sources are not read.

use super::{
    grace::Grace,
    lifecycle::Phase,
    net::{Net, Port},
    releasing::Releasing,
    replicated::{Replicated, Taken},
    sizing::engine_config,
    state::Server,
};
use crate::{
    engine::Engine,
    epoch::Epoch,
    nats::block::{BLOCK_HEADER, Kind, push_edge},
    sequence::Cursor,
    stream::{follower::Loss, reader::Place},
    time::Micros,
};
use std::io;

/// Bytes of released lines after which the turn is full: what one block holds, give or take a run of 256 events.
const BLOCK_BYTES: usize = 192 << 10;
/// Steps of a snapshot's walk in one turn: one block of edges.
const SNAPSHOT_STEPS: usize = 4096;

impl<N: Net> Server<N> {
    /// Connects to the log again, when it is time, and lets it know that this server is there. A leader does so to its end.
    pub(super) fn keep_up_log(&mut self) {
        let is_wanted = self.phase() == Phase::Running || self.is_sequencer();
        let Some(deadline) = self.replicated.as_ref().filter(|_| is_wanted).map(Replicated::deadline) else {
            return;
        };
        if deadline <= self.now {
            let moment = self.moment();
            if let Some(replicated) = &mut self.replicated {
                replicated.meet_deadlines(&mut self.net, moment);
            }
        }
        self.flush_log();
    }

    /// When there is something to do about the log.
    pub(super) fn log_deadline(&self) -> Option<Micros> {
        let is_wanted = self.phase() == Phase::Running || self.is_sequencer();
        self.replicated.as_ref().filter(|_| is_wanted).map(Replicated::deadline)
    }

    /// Whether there is something of the log to be read or applied. A leader reads confirmations whatever holds up its sources.
    pub(super) fn may_read_log(&self) -> bool {
        let may_edge = self.phase() == Phase::Running && self.reads_sources();
        let is_free = self.is_sequencer() || may_edge;
        is_free && self.accepting.first() == 0 && self.replicated.as_ref().is_some_and(Replicated::has_work)
    }

    /// Whether there is more of a snapshot to be published at once.
    pub(super) fn may_walk(&self) -> bool {
        let leader = self.replicated.as_ref().and_then(|replicated| replicated.log().leader());
        leader.is_some_and(|leader| leader.is_open() && leader.is_walking())
    }

    /// Reads and applies the log until there is nothing left or the turn is full. Returns how many reads that were.
    ///
    /// # Errors
    ///
    /// If it is not the log that this server has followed.
    pub(super) fn read_log(&mut self) -> io::Result<usize> {
        let mut reads = 0;
        while self.may_read_log() {
            let most = self.link_reads_per_turn();
            if self.apply_log()? {
                break;
            }
            let Some(replicated) = self.replicated.as_mut().filter(|_| reads < most) else { break };
            if !replicated.read(self.now) {
                break;
            }
            reads += 1;
            self.look_again()?;
        }
        if let Some(replicated) = &mut self.replicated
            && let Some(closed) = replicated.reopened(self.now)
        {
            self.engine.postpone(closed);
        }
        self.keep_place();
        self.flush_log();
        Ok(reads)
    }

    /// Applies the blocks that have been read. Returns whether the turn is full.
    fn apply_log(&mut self) -> io::Result<bool> {
        while let Some(replicated) = &mut self.replicated {
            let taken = replicated.apply(&mut self.engine, self.now);
            if !replicated.serves() && matches!(taken, Taken::More | Taken::TurnFull) {
                // Nobody is served before the end of the log has been reached.
                self.engine.deliver(|_, _| {});
                self.engine.take_released(&mut self.released);
                continue;
            }
            match taken {
                Taken::All => break,
                Taken::TurnFull => return Ok(true),
                Taken::More => {}
                Taken::Anew(loss) => {
                    if !self.begin_log_anew(loss) {
                        return Ok(true);
                    }
                }
                Taken::Reached(epoch) => {
                    self.engine.deliver(|_, _| {});
                    self.engine.take_released(&mut self.released);
                    let address = replicated.link().address();
                    log::info!(stream:% = address, epoch:%, cursor = self.engine.cursor(); "the stream has been reached");
                    self.begin_journal(epoch)?;
                }
                Taken::Leads => self.lead()?,
                Taken::Deposed(reason) => self.end_term(&reason)?,
                Taken::Broken(reason) => {
                    let address = replicated.link().address();
                    return Err(io::Error::other(format!(
                        "stream: {address} is not the stream that it was: {reason}"
                    )));
                }
            }
        }
        Ok(false)
    }

    /// Returns false if a journal has to take first what came before.
    fn begin_log_anew(&mut self, loss: Option<Loss>) -> bool {
        if self.is_sequencer() {
            self.forget();
            return true;
        }
        self.begin_anew(loss)
    }

    /// The follow graph is complete: the journal of an edge, if it has one, begins with it.
    fn begin_journal(&mut self, epoch: Epoch) -> io::Result<()> {
        let (Some(journal), Some(replicated)) = (&self.journal, &self.replicated) else { return Ok(()) };
        if journal.stream().is_some_and(|kept| kept != epoch) {
            let address = replicated.link().address();
            return Err(io::Error::other(format!(
                "stream: {address} is another stream, of epoch {epoch}; start this edge with an empty journalDirectory to follow it"
            )));
        }
        self.found_journal(Place { epoch, next: self.engine.cursor() });
        Ok(())
    }

    /// Notes down beside the journal where in the log it ends.
    fn keep_place(&mut self) {
        let kept = self.acknowledgeable();
        let (Some(journal), Some(replicated)) = (&mut self.journal, &mut self.replicated) else { return };
        if let Some(place) = replicated.place_to_keep(kept, self.now)
            && let Err(error) = journal.log_mut().keep_note(&place)
        {
            // The older one serves as well: from there more is read again.
            log::debug!(error:%; "the place in the log cannot be written");
        }
    }

    /// The engine is as at the start: what it knows is not what the log says.
    fn forget(&mut self) {
        let counters = std::mem::take(&mut self.engine.counters);
        self.engine = Engine::new(&engine_config(&self.config));
        self.engine.counters = counters;
        // What the other engine released has been handed out.
        self.engine.take_arrivals(self.now, |_| ());
        self.releasing = Releasing::default();
        self.grace = Grace::new(&self.config);
    }

    /// From here on this server puts events in order.
    fn lead(&mut self) -> io::Result<()> {
        let Some(place) = self.replicated.as_ref().and_then(|replicated| replicated.log().place()) else {
            return Ok(());
        };
        let replicas = self.replicated.as_ref().map_or(0, |replicated| replicated.log().replicas());
        if replicas < 3 {
            log::warn!(replicas; "the stream has fewer than three replicas: what it has confirmed may be lost with a machine");
        }
        if let Some(version) =
            self.replicated.as_ref().and_then(|replicated| replicated.log().unsafe_version())
        {
            log::warn!(version; "this NATS server loses in a crash what it has confirmed; expected is 2.10.23 or later");
        }
        self.engine.record(BLOCK_BYTES, BLOCK_HEADER);
        if place.term > 1 {
            // Sources that were connected to the leader before are expected back.
            self.grace.begin(&mut self.engine, self.now);
        }
        if self.phase() == Phase::Running {
            self.net.listen(Port::Source, true)?;
        }
        log::info!(
            term = place.term, cursor = self.engine.cursor(), epoch:% = place.epoch;
            "this sequencer leads; NATS does not say when it syncs: it must be configured with sync_interval: always"
        );
        Ok(())
    }

    /// This server does not lead any more: its sources have to find who does.
    fn end_term(&mut self, reason: &str) -> io::Result<()> {
        log::warn!(reason, cursor = self.engine.cursor(); "this sequencer does not lead any more: its sources are disconnected");
        self.sources.close_all();
        self.accepting.forget_sources();
        self.forget();
        if self.phase() == Phase::Running { self.net.listen(Port::Source, false) } else { Ok(()) }
    }

    /// Publishes a part of a snapshot of the graph, if one is wanted; at the end, that this server leads no more.
    pub(super) fn publish_graph(&mut self) {
        let Some(leader) = self.replicated.as_ref().and_then(|replicated| replicated.log().leader()) else {
            return;
        };
        let cursor = self.engine.cursor();
        if matches!(self.phase(), Phase::Flushing { .. }) {
            if leader.is_idle() && !leader.has_ended() {
                self.publish_blocks([Kind::Resigned].map(|kind| (kind, vec![0; BLOCK_HEADER])), cursor);
            }
            return;
        }
        if !leader.is_open() || !leader.wants_graph() || leader.tail().cursor != cursor {
            return;
        }
        if !leader.is_walking() {
            self.engine.begin_snapshot();
            return self.publish_blocks([(Kind::GraphFirst, vec![0; BLOCK_HEADER])], cursor);
        }
        let mut block = vec![0; BLOCK_HEADER];
        let is_whole = self
            .engine
            .walk_snapshot(SNAPSHOT_STEPS, |follower, followed| push_edge(&mut block, follower, followed));
        if block.len() > BLOCK_HEADER {
            self.publish_blocks([(Kind::Graph, block)], cursor);
        }
        if is_whole {
            self.publish_blocks([(Kind::GraphLast, vec![0; BLOCK_HEADER])], cursor);
        }
    }

    fn publish_blocks<const B: usize>(&mut self, blocks: [(Kind, Vec<u8>); B], cursor: Cursor) {
        let moment = self.moment();
        if let Some(replicated) = &mut self.replicated {
            for (kind, block) in blocks {
                replicated.log_mut().publish(kind, block, cursor, moment);
            }
        }
        self.flush_log();
    }
}
