//! Whether the server can serve: the answer to `/healthz` (SPEC section 6).

use crate::sequence::Cursor;
use crate::time::{Micros, SECOND};

/// A ring that holds back a source for longer than this, while the cursor stands still, is waited on.
const RING_FULL_AFTER: Micros = SECOND;
/// Sources that have sent nothing for longer than this are silent.
const SILENT_AFTER: Micros = 2 * SECOND;
/// A rejected source tries again. After this time without a rejection the server counts as open to sources.
const TRIES_AGAIN_WITHIN: Micros = 60 * SECOND;

/// Whether the sources that are connected say anything while others are turned away.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silence {
    /// When one of them last sent something, or was let in.
    heard_at: Micros,
    /// When a connection was last turned away since then.
    turned_away_at: Option<Micros>,
}

impl Silence {
    /// A source has sent something, or has been let in: there was a place.
    pub(super) fn heard(&mut self, now: Micros) {
        *self = Self { heard_at: now, turned_away_at: None };
    }

    /// A source is one too many.
    pub(super) fn turned_away(&mut self, now: Micros) {
        self.turned_away_at = Some(now);
    }

    /// A connection is turned away because of sources that are silent.
    pub(super) fn keeps_others_out(self, now: Micros) -> bool {
        now > self.heard_at + SILENT_AFTER
            && self.turned_away_at.is_some_and(|at| now <= at + TRIES_AGAIN_WITHIN)
    }
}

/// Since when the ring has held back a source, with the cursor at the same place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standstill {
    since: Option<(Cursor, Micros)>,
}

impl Standstill {
    /// `is_held_back`: some source waits for room in the ring, and for nothing else.
    pub(super) fn look(&mut self, is_held_back: bool, cursor: Cursor, now: Micros) {
        let since = self.since.filter(|&(at, _)| at == cursor).map_or(now, |(_, since)| since);
        self.since = is_held_back.then_some((cursor, since));
    }

    /// When that has lasted for long enough to be told.
    pub(super) fn is_full_at(self) -> Option<Micros> {
        self.since.map(|(_, since)| since + RING_FULL_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_turned_away_by_silent_sources_is_seen_while_it_tries_again() {
        let mut silence = Silence::default();
        silence.heard(1);
        assert!(!silence.keeps_others_out(10 * SECOND));
        silence.turned_away(10 * SECOND);
        assert!(silence.keeps_others_out(10 * SECOND));
        assert!(silence.keeps_others_out(70 * SECOND));
        assert!(!silence.keeps_others_out(71 * SECOND));
        silence.turned_away(80 * SECOND);
        silence.heard(81 * SECOND);
        assert!(!silence.keeps_others_out(90 * SECOND));
        silence.turned_away(82 * SECOND);
        assert!(!silence.keeps_others_out(82 * SECOND));
        assert!(silence.keeps_others_out(84 * SECOND));
    }

    #[test]
    fn a_ring_is_waited_on_while_the_cursor_stands_still() {
        let mut standstill = Standstill::default();
        standstill.look(true, Cursor::new(7), 100);
        standstill.look(true, Cursor::new(7), 200);
        assert_eq!(standstill.is_full_at(), Some(100 + SECOND));
        standstill.look(true, Cursor::new(8), 300);
        assert_eq!(standstill.is_full_at(), Some(300 + SECOND));
        standstill.look(false, Cursor::new(8), 400);
        assert_eq!(standstill.is_full_at(), None);
    }
}
