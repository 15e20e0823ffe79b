//! Peers that have vanished while something was on its way to them: their machines, or the way there.
//!
//! Keepalive finds vanished peers that nothing is sent to. Where something has been sent, the operating system sends it again for a
//! quarter of an hour. `TCP_USER_TIMEOUT` would end that earlier, but it would also close connections of peers that are alive and
//! have not read for that long. So the server asks the operating system from time to time ([`Net::silence`](super::net::Net::silence)).

use crate::sequence::Cursor;
use crate::time::{Micros, SECOND};
use std::net::SocketAddr;

/// How often a connection is looked at.
const LOOK_INTERVAL: Micros = 15 * SECOND;
/// A peer is silent if it has acknowledged nothing for this time.
const SILENCE: Micros = 75 * SECOND;
/// A peer has vanished if so many looks in a row find it silent. After one look the answer may still be on its way.
const SILENT_LOOKS: u8 = 2;
/// Users that one turn looks at.
pub(super) const USERS_AT_ONCE: usize = 256;

/// What was found out about one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Liveness {
    silent_looks: u8,
}

impl Liveness {
    /// Notes the time since which the peer has acknowledged nothing. `None`: everything is acknowledged. Returns whether the peer has
    /// vanished.
    pub(super) fn note_silence(&mut self, silence: Option<Micros>) -> bool {
        let is_silent = silence.is_some_and(|silence| silence >= SILENCE);
        self.silent_looks = if is_silent { self.silent_looks.saturating_add(1) } else { 0 };
        self.silent_looks >= SILENT_LOOKS
    }
}

/// When connections are looked at. A round looks at all of them, a few in each turn. While nothing is on its way there are no rounds.
#[derive(Debug, Default)]
pub(super) struct LivenessRounds {
    /// When the next round begins, if there is one.
    next: Option<Micros>,
    /// Index of the first user that this round has not looked at yet.
    at: Option<usize>,
    /// Bytes were on their way to a peer in this round.
    is_needed: bool,
    /// The cursor and the number of bytes written to users, at the last check whether something is sent.
    pub(super) seen: (Cursor, u64),
}

impl LivenessRounds {
    /// Something is sent.
    pub(super) fn note_sent(&mut self, now: Micros) {
        self.is_needed = true;
        if self.at.is_none() {
            self.next.get_or_insert(now + LOOK_INTERVAL);
        }
    }

    /// Notes how long a peer has been silent. Returns whether it has vanished.
    pub(super) fn note_silence(
        &mut self,
        liveness: &mut Liveness,
        silence: Option<Micros>,
        peer: SocketAddr,
    ) -> bool {
        self.is_needed |= silence.is_some();
        let has_vanished = liveness.note_silence(silence);
        if has_vanished {
            let seconds = silence.unwrap_or_default() / SECOND;
            log::info!(peer:%, seconds; "connection closed: what was sent has not been acknowledged, so the peer has vanished");
        }
        has_vanished
    }

    /// When to look next.
    pub(super) fn deadline(&self) -> Option<Micros> {
        if self.at.is_some() { Some(0) } else { self.next }
    }

    /// The index of the first user to look at now. 0: a round begins.
    pub(super) fn look(&mut self, now: Micros) -> Option<usize> {
        if self.at.is_none() && self.next.is_some_and(|at| at <= now) {
            self.next = None;
            self.at = Some(0);
            self.is_needed = false;
        }
        self.at
    }

    /// The users of this turn have been looked at. `users` is the number of users at most.
    pub(super) fn looked(&mut self, users: usize, now: Micros) {
        self.at = self.at.map(|at| at + USERS_AT_ONCE).filter(|&at| at < users);
        if self.at.is_none() && self.is_needed {
            self.next = Some(now + LOOK_INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Liveness, LivenessRounds, USERS_AT_ONCE};
    use crate::time::SECOND;

    #[test]
    fn a_peer_has_vanished_that_is_found_silent_twice_in_a_row() {
        let mut liveness = Liveness::default();
        for silence in [None, Some(0), Some(75 * SECOND), Some(0), Some(90 * SECOND), None, Some(75 * SECOND)]
        {
            assert!(!liveness.note_silence(silence), "{silence:?}");
        }
        assert!(liveness.note_silence(Some(90 * SECOND)));
    }

    #[test]
    fn rounds_go_on_while_something_is_on_its_way() {
        let mut rounds = LivenessRounds::default();
        assert_eq!((rounds.deadline(), rounds.look(1)), (None, None));
        rounds.note_sent(5);
        rounds.note_sent(9);
        assert_eq!(rounds.deadline(), Some(5 + 15 * SECOND));
        assert_eq!(rounds.look(15 * SECOND), None);
        // A round over more users than one turn looks at.
        assert_eq!(rounds.look(16 * SECOND), Some(0));
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(!rounds.note_silence(&mut Liveness::default(), Some(0), peer));
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
