//! Ids that are taken over again and again. Two clients use one id, and each connects again when the server closes it.

use crate::time::{Micros, SECOND};
use crate::user_id::UserId;

/// Ids that are watched at once.
const WATCHED_MAX: usize = 16;
/// This number of takeovers of one id within [`WINDOW`] is a loop.
const LOOP: u32 = 5;
const WINDOW: Micros = 60 * SECOND;

/// The ids that were taken over last.
#[derive(Debug, Default)]
pub(super) struct Takeovers(Vec<Watched>);

#[derive(Debug)]
struct Watched {
    id: UserId,
    since: Micros,
    count: u32,
}

impl Takeovers {
    /// An id has been taken over. Says how many times it was, if that looks like a loop, and since when.
    pub(super) fn note(&mut self, id: UserId, now: Micros) -> Option<(u32, Micros)> {
        self.0.retain(|watched| watched.id == id || watched.since + WINDOW > now);
        let at = self.0.iter().position(|watched| watched.id == id);
        let mut watched = match at {
            Some(at) => self.0.remove(at),
            None => Watched { id, since: now, count: 0 },
        };
        if watched.since + WINDOW <= now {
            watched = Watched { id, since: now, count: 0 };
        }
        watched.count += 1;
        let is_loop = watched.count >= LOOP;
        let found = is_loop.then_some((watched.count, watched.since));
        // The one that was taken over longest ago makes room.
        if self.0.len() >= WATCHED_MAX {
            self.0.remove(0);
        }
        self.0.push(watched);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_seen_among_others_who_come_back_once() {
        let mut takeovers = Takeovers::default();
        for round in 1..=20 {
            let now = u64::from(round) * SECOND;
            for other in 0..10 {
                assert_eq!(takeovers.note(UserId::new(u64::from(round) * 100 + other), now), None);
            }
            let wanted = (round >= LOOP).then_some((round, SECOND));
            assert_eq!(takeovers.note(UserId::new(7), now), wanted);
        }
        assert!(takeovers.0.len() <= WATCHED_MAX);
    }

    #[test]
    fn one_takeover_a_minute_is_no_loop() {
        let mut takeovers = Takeovers::default();
        for minute in 1..100 {
            assert_eq!(takeovers.note(UserId::new(7), minute * WINDOW), None);
        }
    }
}
