//! The parts of the server that take note when a user comes, goes, or is written to.

use super::{catch_up::CatchUp, congestion::Congestion, net::Net, report::Reports};
use crate::{
    engine::Engine,
    epoch::Epoch,
    journal::Log,
    resume::{Answer, History, Start},
    sequence::SequenceNumber,
    time::Micros,
};

/// See the [module](self).
pub(super) struct Context<'a, N> {
    pub(super) engine: &'a mut Engine,
    pub(super) net: &'a mut N,
    pub(super) congestion: &'a mut Congestion,
    pub(super) catch_up: &'a mut CatchUp,
    pub(super) reports: &'a mut Reports,
    pub(super) log: Option<&'a mut Log>,
    /// `None`: this server has not reached its stream yet.
    pub(super) epoch: Option<Epoch>,
    pub(super) first_sequence: SequenceNumber,
    pub(super) now: Micros,
}

impl<N: Net> Context<'_, N> {
    /// The server's past, if the server has an epoch.
    pub(super) fn answer(&self, start: Start, epoch: Epoch) -> Answer {
        let cursor = self.engine.cursor();
        let log = self.log.as_deref();
        let first_kept = log.map_or(cursor, Log::first);
        // It counts for an empty journal only.
        let first_sequence = first_kept.number().unwrap_or(SequenceNumber::MAX).min(self.first_sequence);
        let history = History { first_kept, cursor, first_sequence };
        history.answer(start, |other, next| log.map_or(other == epoch, |log| log.shares(other, next)))
    }

    /// A pass that has come to the end of the journal is at the cursor, and everything that was released has been delivered.
    pub(super) fn is_at_the_cursor(&self) -> bool {
        let log = self.log.as_deref();
        self.engine.is_delivered()
            && log.is_some_and(|log| log.is_open() && log.servable_cursor() == self.engine.cursor())
    }
}
