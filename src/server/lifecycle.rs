//! The end (SPEC section 5): what has arrived is released, what is owed is flushed, for a limited time.

use super::{
    Net, Server,
    connection::{Connection, Role, Source},
    net::Port,
};
use crate::{
    counters::UserEnd,
    time::{MILLISECOND, Micros},
};

/// Turns in which sources are still read after the signal: what they had sent before it has arrived, but
/// nobody who goes on sending can put off the end.
const LAST_READS: u32 = 4;

/// Where the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Running,
    /// Nobody is accepted any more; what sources have sent is read to its end and released.
    Draining {
        /// When everything is closed at the latest.
        deadline: Micros,
        /// Turns in which sources are still read.
        reads_left: u32,
    },
    /// Sources are gone; users are closed as soon as they have what they are owed.
    Flushing {
        /// When everything is closed at the latest.
        deadline: Micros,
    },
    /// It is over.
    Done {
        /// It was told so twice, and has not waited for anything.
        forced: bool,
    },
}

impl<N: Net> Server<N> {
    /// Where the server is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn on_signal(&mut self) {
        if self.phase != Phase::Running {
            log::warn!("second signal: ending at once");
            self.phase = Phase::Done { forced: true };
            return;
        }
        log::info!("shutting down");
        self.net.close_listener(Port::Source);
        self.net.close_listener(Port::User);
        self.listeners = Default::default();
        let deadline = self.now + self.config.shutdown_timeout_ms * MILLISECOND;
        self.phase = Phase::Draining { deadline, reads_left: LAST_READS };
    }

    pub(super) fn shutdown_deadline(&self) -> Option<Micros> {
        match self.phase {
            Phase::Draining { deadline, .. } | Phase::Flushing { deadline } => Some(deadline),
            Phase::Running | Phase::Done { .. } => None,
        }
    }

    /// Takes the next step towards the end, if it has begun.
    pub(super) fn progress_shutdown(&mut self) {
        if let Phase::Draining { deadline, reads_left } = self.phase {
            let spent = u32::from(!self.is_paused());
            self.phase = Phase::Draining { deadline, reads_left: reads_left.saturating_sub(spent) };
            self.close_drained_sources(reads_left == 0);
            let drained =
                self.source_clients == 0 && self.current.is_none() && !self.release_due && !self.reset_due;
            if drained || deadline <= self.now {
                self.phase = Phase::Flushing { deadline };
            }
        }
        if let Phase::Flushing { deadline } = self.phase {
            self.close_flushed_users(deadline <= self.now);
            if self.user_clients == 0 {
                self.close_all_sources();
                self.report_summary();
                self.phase = Phase::Done { forced: false };
            }
        }
    }

    /// Closes the sources that have nothing more to be read or, if there are `no_more_reads`, may not be read any more.
    /// What has been read of one and fits the ring is waited for.
    fn close_drained_sources(&mut self, no_more_reads: bool) {
        let current = self.current.as_ref().map(|&(key, _)| key);
        let sources = self.keys(|key, connection| match &connection.role {
            Role::Source(_) if current == Some(key) => false,
            Role::Source(Source { blocked: Some((seq, _)), .. }) => !self.engine.takes(*seq),
            Role::Source(_) => no_more_reads || !connection.queued || !connection.readable,
            _ => false,
        });
        for key in sources {
            self.close_source(key);
        }
    }

    fn close_all_sources(&mut self) {
        for key in self.keys(|_, connection| matches!(connection.role, Role::Source(_))) {
            self.close_source(key);
        }
    }

    /// Closes the users that are owed nothing more, or all.
    fn close_flushed_users(&mut self, all: bool) {
        let users = self.keys(|_, connection| match &connection.role {
            Role::Login(_) => true,
            Role::User(user) => all || user.output.is_empty(),
            Role::Source(_) | Role::Admin(_) => false,
        });
        for key in users {
            self.close_user(key, UserEnd::Closed);
        }
    }

    fn keys(&self, which: impl Fn(usize, &Connection<N::Socket>) -> bool) -> Vec<usize> {
        self.connections
            .iter()
            .filter(|&(key, connection)| which(key, connection))
            .map(|(key, _)| key)
            .collect()
    }
}
