//! Reading event sources, in turn.

use super::{lifecycle::Phase, net::Net, state::Server};
use std::io;

/// Reads before the turn is delivered, whatever is owed. So nobody waits for longer, however small the pieces are in
/// which sources send. Where they are large, the turn is full before that, in bytes. A limit of 5 ms was tried: where each event is
/// for one user, a delivery then costs half as much again, because more and smaller pieces are written.
const READS_PER_TURN: usize = 64;

impl<N: Net> Server<N> {
    /// Reads the sources that can be read, in turn, until there is nothing left or the turn is full. Returns how many
    /// reads that were.
    pub(super) fn read_sources(&mut self) -> io::Result<usize> {
        self.accept_sources()?;
        self.release();
        self.feed_kept();
        let most = self.reads_per_turn();
        let mut reads = 0;
        while self.may_read() {
            if self.sources.unblock(&self.engine) {
                if self.feed() {
                    break;
                }
            } else if reads < most && self.accepting.has_time() && self.read_source() {
                reads += 1;
                self.look_again()?;
            } else {
                break;
            }
        }
        Ok(reads)
    }

    /// With `busyPoll` the server reads each source once a turn, unless the end has begun, and so it does where a pass over the journal does
    /// not keep up.
    pub(super) fn reads_per_turn(&self) -> usize {
        let once_round = self.config.busy_poll && self.phase() == Phase::Running;
        if once_round || self.catch_up.lets_sources_through() {
            self.sources.readable().min(READS_PER_TURN)
        } else {
            READS_PER_TURN
        }
    }

    /// Reads of the stream or the log in a turn.
    pub(super) fn link_reads_per_turn(&self) -> usize {
        if !self.accepting.has_time() {
            0
        } else if self.catch_up.lets_sources_through() {
            1
        } else {
            READS_PER_TURN
        }
    }

    pub(super) fn read_source(&mut self) -> bool {
        let before = self.sources.connected();
        let read = self.sources.read_next(&mut self.engine, &mut self.reports, self.now);
        self.note_sources_gone(before);
        read
    }

    /// Some sources may have gone. The last one takes its run with it, where that is wanted.
    pub(super) fn note_sources_gone(&mut self, before: usize) {
        let all_gone = before > 0 && self.sources.connected() == 0;
        self.releasing.run_over |= all_gone && self.config.reset_on_source_eof;
    }

    /// Whether sources can be read: neither users nor a pass over the journal hold them up, and nobody comes before what has been read.
    /// Before a new run the chunk that was read is fed to its end, and no other is read.
    pub(super) fn may_read(&self) -> bool {
        self.reads_sources()
            && self.accepting.first() == 0
            && !self.releasing.interrupted
            && (!self.releasing.run_over || self.sources.has_chunk())
    }

    /// A run is over, and nothing keeps the next one from beginning.
    pub(super) fn run_can_end(&self) -> bool {
        self.releasing.run_over && (self.phase() == Phase::Running || self.engine.waiting() == 0)
    }
}
