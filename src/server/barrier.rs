//! The barrier in the turn: users are sent only what the journal has, and the turn does what the journal asks for.
//!
//! What the journal is and when the barrier is closed stands in [`journal`](super::journal).

use super::{Server, journal::Journal, net::Net};
use crate::time::Micros;
use std::io;

impl<N: Net> Server<N> {
    /// The journal does not have yet what was released: nobody may be sent it, and nothing more may be released.
    pub(super) fn is_barred(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::is_closed)
    }

    /// When a slow user's time is up. Nobody comes or goes while the journal does not have what was released.
    pub(super) fn slow_user_deadline(&self) -> Option<Micros> {
        self.congestion.deadline().filter(|_| !self.is_barred())
    }

    /// Appends what was released. Says whether users may be sent it.
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

    /// Goes on with what the disk has done.
    pub(super) fn pass_journal(&mut self) {
        if self.journal.is_some() {
            self.deliver();
        }
        if let Some(journal) = &self.journal {
            journal.report(&mut self.reports, self.now);
        }
    }

    /// Hands the engine what the last graceful end has kept.
    pub(super) fn feed_kept(&mut self) {
        while !self.is_paused()
            && let Some(journal) = &mut self.journal
            && journal.feed_kept(&mut self.engine, self.now)
        {
            self.release();
        }
    }

    pub(super) fn snapshot_graph(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.snapshot(&mut self.engine);
        }
    }

    /// Nothing is read or released any more: what waits is kept, once everything that was released has been appended.
    pub(super) fn end_journal(&mut self) {
        if let Some(journal) = &mut self.journal
            && !journal.is_ending()
            && !journal.is_behind(self.engine.cursor())
        {
            journal.end(&self.engine, self.sources.left(), self.now);
        }
    }

    /// Everything below is dealt with, and as durable as it gets here.
    pub(super) fn acknowledgeable(&self) -> u128 {
        let kept = self.journal.as_ref().map(|journal| journal.log().acknowledgeable());
        kept.or_else(|| self.confirmed()).unwrap_or_else(|| self.engine.cursor())
    }

    pub(super) fn journal_has_ended(&self) -> bool {
        self.journal.as_ref().is_none_or(Journal::has_ended)
    }

    /// Users and clients of the stream have.
    pub(super) fn clients_have_gone(&self) -> bool {
        self.users.connected() == 0 && self.stream_clients.is_empty()
    }

    /// Journal and log have everything that they will be given.
    pub(super) fn is_all_kept(&self) -> bool {
        self.journal_has_ended() && self.log_has_ended()
    }

    /// While the server ends: nobody is owed anything any more.
    pub(super) fn have_all_gone(&self) -> bool {
        self.clients_have_gone()
            && self.is_all_kept()
            && !self.sources.wait_for_acknowledgements()
            && self.users.nobody_lingers()
    }

    /// A journal that cannot be written ends the server.
    pub(super) fn fail_with_journal(&mut self) -> io::Result<()> {
        let Some(error) = self.journal.as_mut().and_then(Journal::take_failure) else { return Ok(()) };
        let folder = self.config.journal_directory.clone().unwrap_or_default();
        Err(io::Error::other(format!(
            "journalDirectory: {}: {error}; the next start finds out what is on the disk",
            folder.display()
        )))
    }
}
