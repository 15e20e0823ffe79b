//! Grace (docs/SPEC.md section 2): while a source that resumes is expected back, no rule gives up a gap.
//!
//! A grace begins where a source that asked for acknowledgements has gone, and where the server starts with a past. It ends when
//! as many sources as are allowed have each sent a whole line, or when its time is up. So neither the first source that is back
//! nor a source's own reconnecting costs anybody an event.

use crate::{
    config::Config,
    engine::Engine,
    time::{MILLISECOND, Micros},
};

/// The grace, if there is one.
#[derive(Debug)]
pub(super) struct Grace {
    /// Sources that are expected.
    sources: usize,
    longest: Micros,
    until: Option<Micros>,
}

impl Grace {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            sources: config.max_event_source_clients as usize,
            longest: config.restart_grace_ms * MILLISECOND,
            until: None,
        }
    }

    /// Begins a grace, or begins it again.
    pub(super) fn begin(&mut self, engine: &mut Engine, now: Micros) {
        if self.longest == 0 {
            return;
        }
        self.until = Some(now.saturating_add(self.longest));
        engine.hold_gaps(true, now);
    }

    /// When it ends at the latest.
    pub(super) fn deadline(&self) -> Option<Micros> {
        self.until
    }

    /// Ends it if `heard` sources, which have each sent a whole line, are all that are expected, or if its time is up. What waits
    /// counts as arriving now.
    pub(super) fn end_if_over(&mut self, heard: usize, engine: &mut Engine, now: Micros) {
        if self.until.is_some_and(|until| until <= now || heard >= self.sources) {
            self.until = None;
            engine.hold_gaps(false, now);
        }
    }
}
