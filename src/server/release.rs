//! Releasing waiting events: after a read, when a gap has been given up, and at the end of a run.
//!
//! Nothing is released while slow users hold up the sources. What was interrupted by that is gone on with afterwards, before
//! anything else is read.

use super::{lifecycle::Phase, net::Net, releasing::Look, sources::Fed, state::Server};
use std::io;

impl<N: Net> Server<N> {
    /// Feeds the last read to the engine, and releases all events that can be released. Returns whether the turn is full.
    pub(super) fn feed(&mut self) -> bool {
        let fed = self.sources.feed(&mut self.engine, &mut self.reports, self.now);
        match fed {
            Fed::TurnFull => return true,
            Fed::Blocked => {}
            Fed::Whole => self.release(),
            Fed::TurnedAway(key) => self.turn_source_away(key),
        }
        self.resolve_full_ring();
        false
    }

    /// Releases all events that can be released without reading, as long as no user gets behind.
    pub(super) fn release(&mut self) {
        self.releasing.interrupted = self.is_paused();
        while !self.releasing.interrupted && self.engine.release_waiting() {
            self.deliver();
            self.releasing.interrupted = self.is_paused();
        }
    }

    /// Where every source is blocked, the gap that they wait for is given up at once, or (with a negative
    /// timeout) the log says what is going on.
    pub(super) fn resolve_full_ring(&mut self) {
        while self.sources.is_stuck() && !self.is_paused() && !self.sources.unblock(&self.engine) {
            if self.config.event_timeout_ms < 0
                || self.phase() != Phase::Running
                || !self.engine.skip_hole(self.sources.lowest_blocked())
            {
                break;
            }
            self.release();
            self.reports.given_up(&mut self.engine, self.now);
        }
        let is_full = self.watch.ring_is_full_at().is_some_and(|at| at <= self.now);
        let is_stuck = self.waits_for_ever() || (self.config.event_timeout_ms < 0 && is_full);
        self.reports.stuck(is_stuck, self.sources.blocked(), &self.engine, self.now);
    }

    /// Gives up the gaps whose time has come; with a timeout of 0 that is at once.
    ///
    /// The missing event may lie unread in a socket, as long as the server was busy, or was stopped. So a gap is given up only
    /// after a look at all sockets that began after its time was up, and when all has been taken that had arrived by then. At
    /// the end none is given up: the next server may receive what is missing.
    pub(super) fn give_up_gaps(&mut self) -> io::Result<()> {
        if !self.reads_sources() || self.releasing.interrupted || self.phase() != Phase::Running {
            self.releasing.look = Look::NotDue;
            return Ok(());
        }
        if self.releasing.look == Look::NotDue {
            if self.engine.next_deadline().is_none_or(|at| at > self.now) {
                return Ok(());
            }
            self.releasing.look = Look::Began(self.now);
            self.collect(Some(0))?;
            if self.may_accept_sources() {
                return Ok(());
            }
        }
        if let Look::Began(at) = self.releasing.look {
            self.sources.look(&mut self.net);
            self.releasing.look = Look::Noted(at);
        }
        if let Look::Noted(began) = self.releasing.look
            && self.sources.has_taken_what_had_arrived(&self.engine)
        {
            self.releasing.look = Look::NotDue;
            self.engine.expire(began);
            self.release();
            self.deliver();
            self.reports.given_up(&mut self.engine, self.now);
        }
        Ok(())
    }

    /// Where a run ends with its last source: once everything has been released, a new one begins. At the end no gap is
    /// given up for that.
    pub(super) fn finish_run(&mut self) {
        if !self.releasing.run_over || self.is_paused() || self.sources.has_chunk() {
            return;
        }
        if self.phase() == Phase::Running {
            self.engine.skip_all_holes();
        }
        self.release();
        self.deliver();
        self.reports.given_up(&mut self.engine, self.now);
        if !self.releasing.interrupted && !self.is_paused() && self.engine.waiting() == 0 {
            log::info!(cursor = self.engine.cursor(); "the last event source has gone: a new run begins");
            self.engine.restart();
            self.begin_epoch();
            self.releasing.run_over = false;
        }
    }

    /// Hands the engine the lines that the last graceful end has kept.
    pub(super) fn feed_kept(&mut self) {
        while !self.is_paused()
            && let Some(journal) = &mut self.journal
            && journal.feed_kept(&mut self.engine, self.now)
        {
            self.release();
        }
    }
}
