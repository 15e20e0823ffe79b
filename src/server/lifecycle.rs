//! The end (SPEC section 5): what has arrived is released, what is owed is flushed, for a limited time.

use crate::{
    config::Config,
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

/// The phase, and the signals that move it on.
#[derive(Debug)]
pub(super) struct Lifecycle {
    phase: Phase,
    /// Signals that have come and have not been heeded.
    signals: u32,
    timeout: Micros,
}

impl Lifecycle {
    pub(super) fn new(config: &Config) -> Self {
        Self { phase: Phase::Running, signals: 0, timeout: config.shutdown_timeout_ms * MILLISECOND }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn note_signal(&mut self) {
        self.signals += 1;
    }

    pub(super) fn has_signals(&self) -> bool {
        self.signals > 0
    }

    /// Heeds the signals that have come. Says whether the end begins.
    pub(super) fn heed_signals(&mut self, now: Micros) -> bool {
        let mut begins = false;
        for _ in 0..std::mem::take(&mut self.signals) {
            if self.phase == Phase::Running {
                log::info!("shutting down");
                self.phase = Phase::Draining { deadline: now + self.timeout, reads_left: LAST_READS };
                begins = true;
            } else {
                log::warn!("second signal: ending at once");
                self.phase = Phase::Done { forced: true };
            }
        }
        begins
    }

    /// When everything is closed at the latest, if the end has begun.
    pub(super) fn deadline(&self) -> Option<Micros> {
        match self.phase {
            Phase::Draining { deadline, .. } | Phase::Flushing { deadline } => Some(deadline),
            Phase::Running | Phase::Done { .. } => None,
        }
    }

    /// While sources are still read: notes that a turn has passed in which they could be, and says whether it was the last
    /// one.
    pub(super) fn spend_read(&mut self, could_read: bool) -> Option<bool> {
        let Phase::Draining { reads_left, .. } = &mut self.phase else {
            return None;
        };
        let was_last = *reads_left == 0;
        *reads_left = reads_left.saturating_sub(u32::from(could_read));
        Some(was_last)
    }

    /// Nothing is read any more, if nothing is left to read or time is up. Says whether that begins now.
    pub(super) fn stop_reading(&mut self, drained: bool, now: Micros) -> bool {
        if let Phase::Draining { deadline, .. } = self.phase
            && (drained || deadline <= now)
        {
            self.phase = Phase::Flushing { deadline };
            return true;
        }
        false
    }

    /// While users are flushed: whether time is up.
    pub(super) fn flushing(&self, now: Micros) -> Option<bool> {
        match self.phase {
            Phase::Flushing { deadline } => Some(deadline <= now),
            _ => None,
        }
    }

    /// Everybody has gone.
    pub(super) fn finish(&mut self) {
        self.phase = Phase::Done { forced: false };
    }
}
