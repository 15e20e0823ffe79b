//! Peers that have vanished while something was on its way to them: their machines, or the way there.
//!
//! Keepalive finds out about those to whom nothing is sent. Where something has been sent, the system goes on sending it again for a
//! quarter of an hour. `TCP_USER_TIMEOUT` would end that, and also connections of peers that are alive and do not read for that
//! long. So it is looked now and then at what the system knows ([`Net::silence`](super::net::Net::silence)).

use crate::time::{Micros, SECOND};
use std::net::SocketAddr;

/// How often a connection is looked at.
const LOOK_INTERVAL: Micros = 15 * SECOND;
/// A peer is silent that has acknowledged nothing for so long.
const SILENCE: Micros = 75 * SECOND;
/// Looks in a row that find a peer silent before it is given up: one alone may have met the moment before an answer.
const SILENT_LOOKS: u8 = 2;
/// Users that are looked at in a turn.
pub(super) const USERS_AT_ONCE: usize = 256;

/// What was found out about one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pulse {
    silent_looks: u8,
}

impl Pulse {
    /// Takes note of for how long the peer has left unanswered what it was sent; `None`: nothing is unanswered. Says whether it
    /// has vanished.
    pub(super) fn feel(&mut self, silence: Option<Micros>) -> bool {
        let is_silent = silence.is_some_and(|silence| silence >= SILENCE);
        self.silent_looks = if is_silent { self.silent_looks.saturating_add(1) } else { 0 };
        self.silent_looks >= SILENT_LOOKS
    }
}

/// When connections are looked at: all of them in a round, some in each turn. While nothing is on its way there are no rounds.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// When the next round begins, if there is one.
    next: Option<Micros>,
    /// Where the users are of which the round has looked at those before.
    at: Option<usize>,
    /// Something was on its way to somebody in this round.
    is_needed: bool,
    /// The cursor, and the bytes that were written to users, when it was last asked whether something is sent.
    pub(super) seen: (u128, u64),
}

impl Rounds {
    /// Something is sent.
    pub(super) fn note_sent(&mut self, now: Micros) {
        self.is_needed = true;
        if self.at.is_none() {
            self.next.get_or_insert(now + LOOK_INTERVAL);
        }
    }

    /// Takes note of for how long a peer has been silent. Says whether it has vanished.
    pub(super) fn feel(&mut self, pulse: &mut Pulse, silence: Option<Micros>, peer: SocketAddr) -> bool {
        self.is_needed |= silence.is_some();
        let has_vanished = pulse.feel(silence);
        if has_vanished {
            let seconds = silence.unwrap_or_default() / SECOND;
            log::info!(peer:%, seconds; "connection closed: what was sent has not been acknowledged, so the peer has vanished");
        }
        has_vanished
    }

    /// When it is to be looked.
    pub(super) fn deadline(&self) -> Option<Micros> {
        if self.at.is_some() { Some(0) } else { self.next }
    }

    /// The users that are to be looked at now: those from there on. 0: a round begins.
    pub(super) fn look(&mut self, now: Micros) -> Option<usize> {
        if self.at.is_none() && self.next.is_some_and(|at| at <= now) {
            self.next = None;
            self.at = Some(0);
            self.is_needed = false;
        }
        self.at
    }

    /// They have been looked at. `users` is how many there may be.
    pub(super) fn looked(&mut self, users: usize, now: Micros) {
        self.at = self.at.map(|at| at + USERS_AT_ONCE).filter(|&at| at < users);
        if self.at.is_none() && self.is_needed {
            self.next = Some(now + LOOK_INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pulse, Rounds, USERS_AT_ONCE};
    use crate::time::SECOND;

    #[test]
    fn a_peer_has_vanished_that_is_found_silent_twice_in_a_row() {
        let mut pulse = Pulse::default();
        for silence in [None, Some(0), Some(75 * SECOND), Some(0), Some(90 * SECOND), None, Some(75 * SECOND)]
        {
            assert!(!pulse.feel(silence), "{silence:?}");
        }
        assert!(pulse.feel(Some(90 * SECOND)));
    }

    #[test]
    fn rounds_go_on_while_something_is_on_its_way() {
        let mut rounds = Rounds::default();
        assert_eq!((rounds.deadline(), rounds.look(1)), (None, None));
        rounds.note_sent(5);
        rounds.note_sent(9);
        assert_eq!(rounds.deadline(), Some(5 + 15 * SECOND));
        assert_eq!(rounds.look(15 * SECOND), None);
        // A round over more users than one turn looks at.
        assert_eq!(rounds.look(16 * SECOND), Some(0));
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(!rounds.feel(&mut Pulse::default(), Some(0), peer));
        rounds.looked(USERS_AT_ONCE + 1, 16 * SECOND);
        assert_eq!(rounds.look(16 * SECOND), Some(USERS_AT_ONCE));
        rounds.looked(USERS_AT_ONCE + 1, 16 * SECOND);
        assert_eq!(rounds.deadline(), Some(31 * SECOND));
        // Nothing is on its way any more, and nothing is sent.
        assert_eq!(rounds.look(31 * SECOND), Some(0));
        rounds.looked(1, 31 * SECOND);
        assert_eq!(rounds.deadline(), None);
    }
}
