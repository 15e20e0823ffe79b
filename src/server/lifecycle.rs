//! The end (SPEC section 5): bytes that have arrived are released, and output buffers are flushed, for a limited time.

use crate::{
    config::Config,
    time::{MILLISECOND, Micros},
};

/// The part of `shutdownTimeoutMs` that is kept for flushing.
const FLUSHING_SHARE: u64 = 2;

/// The phase of the server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Running,
    /// No connection is accepted any more. The bytes of sources are read to their end and released.
    Draining {
        /// When everything is closed at the latest.
        deadline: Micros,
        /// Until when it is read and released at the latest: the rest of the time is for users.
        read_until: Micros,
    },
    /// Sources are gone. Users are closed as soon as their output buffers are empty.
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
                self.phase = Phase::Draining {
                    deadline: now + self.timeout,
                    read_until: now + self.timeout / FLUSHING_SHARE,
                };
                begins = true;
            } else {
                log::warn!("second signal: ending at once");
                self.phase = Phase::Done { forced: true };
            }
        }
        begins
    }

    /// When the next step towards the end is due at the latest, if it has begun.
    pub(super) fn deadline(&self) -> Option<Micros> {
        match self.phase {
            Phase::Draining { read_until, .. } => Some(read_until),
            Phase::Flushing { deadline } => Some(deadline),
            Phase::Running | Phase::Done { .. } => None,
        }
    }

    /// While bytes that had arrived are read: whether the time for that is up.
    pub(super) fn draining(&self, now: Micros) -> Option<bool> {
        match self.phase {
            Phase::Draining { read_until, .. } => Some(read_until <= now),
            _ => None,
        }
    }

    /// Nothing is read any more.
    pub(super) fn stop_reading(&mut self) {
        if let Phase::Draining { deadline, .. } = self.phase {
            self.phase = Phase::Flushing { deadline };
        }
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
