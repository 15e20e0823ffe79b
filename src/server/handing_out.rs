//! The way of released events to the log, the journal, clients of the stream, and users.
//!
//! The journal is a barrier: users are sent only what it has. What the journal is and when the barrier is closed stands in
//! [`journal`](super::journal).

use super::{lifecycle::Phase, net::Net, sizing::BLOCK_BYTES_MAX, state::Server};
use crate::{
    config::ServerRole,
    engine::event::leading_number,
    epoch::Epoch,
    nats::{
        block::{BLOCK_HEADER, Kind},
        log::Moment,
    },
    sequence::{Cursor, SequenceNumber},
};

impl<N: Net> Server<N> {
    /// Hands out released events, once the journal has them. Then, and only then, users come and go.
    pub(super) fn deliver(&mut self) {
        if !self.pass_barrier() {
            return;
        }
        self.hand_out();
        let (users, mut context) = self.users();
        users.deliver(&mut context);
        users.come_and_go(&mut context);
        self.note_delivery();
        self.control_congestion();
    }

    /// Appends released events. Returns whether users may be sent them.
    #[inline]
    pub(super) fn pass_barrier(&mut self) -> bool {
        let Some(journal) = &mut self.journal else { return true };
        let is_open = journal.pass(&mut self.engine, self.now);
        if let Some(closed) = journal.reopened(self.now)
            && !self.congestion.is_paused()
        {
            self.engine.postpone(closed);
        }
        is_open
    }

    /// Hands the events that were released since the last call to the clients of the stream.
    pub(super) fn hand_out(&mut self) {
        if self.publish() || self.config.stream_port.is_none() {
            return;
        }
        if let Some(journal) = &mut self.journal {
            let (stream_clients, net) = (&mut self.stream_clients, &mut self.net);
            return journal.hand_out(|lines, to| stream_clients.hand_out(lines, to, net));
        }
        if !self.engine.take_released(&mut self.released) {
            return;
        }
        // An edge has ended them already: clients that came since then have begun with the new stream.
        if self.released.restarted && self.config.role != ServerRole::Edge {
            self.stream_clients.end_all("epoch");
        }
        self.stream_clients.hand_out(self.released.lines(), self.released.to, &mut self.net);
    }

    /// Has sources wait for slow users, or go on.
    pub(super) fn control_congestion(&mut self) {
        if self.congestion.must_pause() {
            self.congestion.pause(self.users.paces(), self.now);
        } else if let Some(paused) = self.congestion.resume(self.now) {
            self.engine.postpone(paused);
        }
    }

    /// Handles completed writes and syncs of the disk.
    pub(super) fn pass_journal(&mut self) {
        if self.journal.is_some() {
            self.deliver();
        }
        if let Some(journal) = &self.journal {
            journal.report(&mut self.reports, self.now);
        }
    }
}

/// A sequencer publishes the events that it has released.
impl<N: Net> Server<N> {
    /// Publishes released events. Returns whether this server has a log to publish to.
    pub(super) fn publish(&mut self) -> bool {
        if !self.is_sequencer() {
            return false;
        }
        let is_leader =
            self.replicated.as_ref().is_some_and(|replicated| replicated.log().leader().is_some());
        if is_leader && self.engine.take_released(&mut self.released) {
            let to = self.released.to;
            let mut block = std::mem::take(self.released.with_headroom());
            let moment = self.moment();
            let Some(replicated) = &mut self.replicated else { return true };
            while block.len() > BLOCK_HEADER + BLOCK_BYTES_MAX
                && let Some((at, number)) = cut(&block)
            {
                let rest = [&[0; BLOCK_HEADER][..], &block[at..]].concat();
                block.truncate(at);
                replicated.log_mut().publish(Kind::Events, block, Cursor::behind(number), moment);
                block = rest;
            }
            replicated.log_mut().publish(Kind::Events, block, to, moment);
            self.flush_log();
        }
        true
    }

    pub(super) fn moment(&mut self) -> Moment {
        Moment { now: self.now, time_ms: self.net.time_ms(), random: self.net.random() }
    }

    pub(super) fn flush_log(&mut self) {
        if let Some(replicated) = &mut self.replicated {
            replicated.flush(&mut self.net, self.now);
        }
    }
}

/// Users that resume.
impl<N: Net> Server<N> {
    /// Tells users that resume their places, where it is time.
    pub(super) fn send_marks(&mut self) {
        if self.users.marks.deadline().is_some_and(|at| at <= self.now) && !self.is_barred() {
            let durable = self.acknowledgeable();
            let (users, mut context) = self.users();
            users.send_marks(durable, &mut context);
        }
    }

    /// A new run has begun, with an epoch of its own.
    pub(super) fn begin_epoch(&mut self) {
        self.epoch = Epoch::new(self.net.random());
        let epoch = self.epoch;
        let (users, mut context) = self.users();
        users.begin_run(epoch, &mut context);
    }

    /// Has users that are served from the journal catch up. `is_live`: events flow. They also do while the disk or the log holds them up.
    pub(super) fn catch_up(&mut self, is_live: bool) {
        let is_live = is_live || self.is_barred() || self.is_log_closed();
        let is_running = self.phase() == Phase::Running;
        let (users, mut context) = self.users();
        if is_running {
            users.catch_up(is_live, &mut context);
        } else {
            users.stop_catching_up(&mut context);
        }
    }
}

/// The place to cut a block that is too large: behind a line in its middle, and that line's number.
fn cut(block: &[u8]) -> Option<(usize, SequenceNumber)> {
    let within = &block[..BLOCK_HEADER + BLOCK_BYTES_MAX];
    let end = memchr::memrchr(b'\n', within).filter(|&end| end >= BLOCK_HEADER)? + 1;
    let start = memchr::memrchr(b'\n', &block[BLOCK_HEADER..end - 1])
        .map_or(BLOCK_HEADER, |at| BLOCK_HEADER + at + 1);
    Some((end, leading_number(&block[start..end])?))
}
