//! Event sources: reading them, feeding the engine, full rings, and what happens when one has gone.

use super::{
    Chunk, Net, Phase, READ_BYTES, Server,
    connection::{Connection, Role, Source},
    is_interrupted,
    report::Trouble,
    would_block,
};
use crate::engine::{Stop, event::Reject};
use std::io::{self, Read};

/// Reads before the turn is delivered, whatever is owed: nobody waits longer than that, however small the pieces are in which
/// sources send.
const READS_PER_TURN: usize = 64;

/// What came of reading a source.
enum Outcome {
    Read(usize),
    Ended,
    Failed,
    NothingYet,
}

impl<N: Net> Server<N> {
    /// Sources can be read: nobody holds them up. Before a new run what has been read is worked on to its end, and no more.
    pub(super) fn may_read(&self) -> bool {
        !self.is_paused() && !self.release_due && (!self.reset_due || self.current.is_some())
    }

    /// Some source has bytes to be looked at.
    pub(super) fn has_bytes(&self) -> bool {
        self.current.is_some() || !self.readable_sources.is_empty() || self.unblockable().is_some()
    }

    /// Sources that can still send something. Those that have hung up and only have to be read to their ends keep nobody
    /// out; but no more of them than there may be sources, so that they cannot pile up behind a full ring.
    pub(super) fn live_sources(&self) -> usize {
        let unread = self.readable_sources.iter().chain(&self.blocked_sources);
        let hung_up = unread.filter(|&&key| self.has_hung_up(key)).count();
        self.source_clients - hung_up.min(self.config.max_event_source_clients as usize)
    }

    /// Whether a source has hung up and only has to be read to its end. None is accepted before it is gone, unless the
    /// ring holds it back.
    pub(super) fn any_source_leaving(&self) -> bool {
        self.readable_sources.iter().any(|&key| self.has_hung_up(key))
    }

    fn has_hung_up(&self, key: usize) -> bool {
        self.source(key).is_some_and(|source| source.hung_up)
    }

    /// Reads the sources that can be read, in turn, until there is nothing left or the turn is full. Returns how many
    /// reads that were.
    pub(super) fn read_sources(&mut self) -> io::Result<usize> {
        self.accept_sources()?;
        self.release();
        // Where users take turns, a source that can be read comes round soon enough; unless the end is near.
        let once_round = self.config.busy_poll && self.phase == Phase::Running;
        let ready = self.readable_sources.len();
        let most = if once_round { ready.min(READS_PER_TURN) } else { READS_PER_TURN };
        let mut reads_left = most;
        while self.may_read() && self.has_chunk(&mut reads_left)? && self.may_read() {
            self.feed();
            if self.current.is_some() {
                break;
            }
            self.resolve_full_ring();
        }
        Ok(most - reads_left)
    }

    /// Makes sure that there is a chunk to feed, if there is anything to read and it may be read.
    fn has_chunk(&mut self, reads_left: &mut usize) -> io::Result<bool> {
        loop {
            self.unblock_sources();
            if self.current.is_some() {
                return Ok(true);
            }
            if *reads_left == 0 {
                return Ok(false);
            }
            let Some(key) = self.readable_sources.pop_front() else {
                return Ok(false);
            };
            *reads_left -= 1;
            let new = || Chunk::new(self.config.max_event_bytes, READ_BYTES);
            let chunk = self.spare_chunks.pop().unwrap_or_else(new);
            self.read_source(key, chunk);
            // Logins that were there before the bytes just read are served before them.
            self.poll(Some(0))?;
            self.serve_users()?;
        }
    }

    /// Reads a source once; what was read becomes the current chunk.
    fn read_source(&mut self, key: usize, mut chunk: Chunk) {
        let Some(connection) = self.connections.get_mut(key) else {
            self.spare_chunks.push(chunk);
            return;
        };
        connection.queued = false;
        let Role::Source(source) = &mut connection.role else {
            self.spare_chunks.push(chunk);
            return;
        };
        let target = chunk.start_with(&source.carry, READ_BYTES);
        let outcome = read_once(&mut connection.socket, target);
        if let Outcome::Read(len) = outcome {
            source.carry.clear();
            chunk.unread.end += len;
            // A short read has emptied the socket, unless there is an end behind it that has been told already.
            connection.readable = len == READ_BYTES || source.hung_up;
            if connection.readable {
                connection.queued = true;
                self.readable_sources.push_back(key);
            }
            drop_overlong(source, &mut chunk);
            self.current = Some((key, chunk));
            return;
        }
        connection.readable = false;
        self.spare_chunks.push(chunk);
        if !matches!(outcome, Outcome::NothingYet) {
            self.close_source(key);
        }
    }

    /// Feeds the current chunk to the engine, up to its end or until the turn is full.
    fn feed(&mut self) {
        let Some((key, mut chunk)) = self.current.take() else {
            return;
        };
        let before = (self.engine.counters.events_received, self.engine.counters.events_late);
        let (at, stop) = self.engine.feed(&chunk.bytes, chunk.unread.clone());
        chunk.unread.start = at;
        self.engine.settle(&chunk.bytes, self.now);
        self.report_rejects(key);
        self.hint_at_reset(key, before);
        match stop {
            Stop::TurnFull => {
                self.current = Some((key, chunk));
                return;
            }
            Stop::Blocked(seq) => {
                self.block_source(key, seq, chunk);
                return;
            }
            Stop::Drained | Stop::Overlong => {}
        }
        if let Some(Connection { role: Role::Source(source), .. }) = self.connections.get_mut(key) {
            source.discarding |= stop == Stop::Overlong;
            source.carry.extend_from_slice(&chunk.bytes[chunk.unread.clone()]);
        }
        self.spare_chunks.push(chunk);
        self.release();
    }

    /// The source's next event does not fit the ring: it is not read any further until it does.
    fn block_source(&mut self, key: usize, seq: u64, chunk: Chunk) {
        self.engine.set_deadline(seq, self.now);
        if let Some(Connection { role: Role::Source(source), queued, .. }) = self.connections.get_mut(key) {
            source.blocked = Some((seq, chunk));
            *queued = false;
            self.readable_sources.retain(|&other| other != key);
            self.blocked_sources.push(key);
        } else {
            self.spare_chunks.push(chunk);
        }
    }

    /// A blocked source whose event fits the ring by now, by its index among the blocked ones.
    fn unblockable(&self) -> Option<usize> {
        self.blocked_sources
            .iter()
            .position(|&key| self.blocked_at(key).is_some_and(|seq| self.engine.takes(seq)))
    }

    /// Goes on with a source whose event fits the ring by now: of several, with the one that has waited longest.
    fn unblock_sources(&mut self) {
        if self.current.is_some() {
            return;
        }
        let Some(index) = self.unblockable() else {
            return;
        };
        let key = self.blocked_sources.remove(index);
        if let Some(connection) = self.connections.get_mut(key)
            && let Role::Source(source) = &mut connection.role
        {
            self.current = source.blocked.take().map(|(_, chunk)| (key, chunk));
            if connection.readable && !connection.queued {
                connection.queued = true;
                self.readable_sources.push_back(key);
            }
        }
    }

    /// Whether every connected source waits for room in the ring: the hole cannot be filled by any of them.
    pub(super) fn is_stuck(&self) -> bool {
        self.source_clients > 0 && self.blocked_sources.len() == self.source_clients
    }

    /// Where every source is blocked, the hole that they wait for is given up at once, or (with a negative
    /// timeout) the log says what is going on.
    pub(super) fn resolve_full_ring(&mut self) {
        while self.is_stuck() && !self.is_paused() && self.current.is_none() {
            self.unblock_sources();
            if self.current.is_some() {
                break;
            }
            if self.config.event_timeout_ms < 0 {
                break;
            }
            let lowest = self.blocked_sources.iter().filter_map(|&key| self.blocked_at(key)).min();
            if !self.engine.skip_hole(lowest) {
                break;
            }
            self.release();
            self.report_skipped();
        }
        self.report_stuck();
    }

    fn blocked_at(&self, key: usize) -> Option<u64> {
        self.source(key)?.blocked.as_ref().map(|&(seq, _)| seq)
    }

    fn source(&self, key: usize) -> Option<&Source> {
        match self.connections.get(key) {
            Some(Connection { role: Role::Source(source), .. }) => Some(source),
            _ => None,
        }
    }

    /// The one way in which an event source ends.
    pub(super) fn close_source(&mut self, key: usize) {
        let Some(source) = self.source(key) else {
            return;
        };
        if !source.carry.is_empty() {
            self.engine.count_rejected(Reject::Truncated, None);
            self.report_rejects(key);
        }
        let peer = self.connections.remove(key).peer;
        self.source_clients -= 1;
        self.readable_sources.retain(|&other| other != key);
        self.blocked_sources.retain(|&other| other != key);
        log::debug!(peer:%; "event source gone");
        if self.source_clients == 0 && self.config.reset_on_source_eof {
            self.reset_due = true;
        }
        self.descriptor_freed();
    }

    /// Where a run ends with its last source: once everything has been released, a new one begins.
    pub(super) fn finish_run(&mut self) {
        if !self.reset_due || self.is_paused() || self.current.is_some() {
            return;
        }
        self.engine.skip_all_holes();
        self.release();
        self.deliver();
        self.report_skipped();
        if !self.release_due && !self.is_paused() {
            log::info!(cursor = self.engine.cursor(); "the last event source has gone: a new run begins");
            self.engine.restart();
            self.reset_due = false;
        }
    }

    /// A new source's first events are all late: somebody has probably expected a new run.
    fn hint_at_reset(&mut self, key: usize, (received, late): (u64, u64)) {
        let received = self.engine.counters.events_received - received;
        let late = self.engine.counters.events_late - late;
        let Some(Connection { role: Role::Source(source), peer, .. }) = self.connections.get_mut(key) else {
            return;
        };
        if received == 0 || !std::mem::take(&mut source.late_so_far) || late < received {
            return;
        }
        let peer = *peer;
        let Some(left_out) = self.may_warn(Trouble::Late) else {
            return;
        };
        log::warn!(
            peer:%, cursor = self.engine.cursor(), left_out;
            "the first events of this event source are all below the cursor and are dropped as late; \
             if every source is meant to start a new run, set resetOnSourceEof=true"
        );
    }
}

fn read_once(socket: &mut impl Read, target: &mut [u8]) -> Outcome {
    loop {
        match socket.read(target) {
            Ok(0) => return Outcome::Ended,
            Ok(len) => return Outcome::Read(len),
            Err(error) if is_interrupted(&error) => {}
            Err(error) if would_block(&error) => return Outcome::NothingYet,
            Err(_) => return Outcome::Failed,
        }
    }
}

/// In the middle of an overlong line: drops what still belongs to it.
fn drop_overlong(source: &mut Source, chunk: &mut Chunk) {
    if source.discarding {
        match memchr::memchr(b'\n', &chunk.bytes[chunk.unread.clone()]) {
            Some(newline) => {
                chunk.unread.start += newline + 1;
                source.discarding = false;
            }
            None => chunk.unread.start = chunk.unread.end,
        }
    }
}
