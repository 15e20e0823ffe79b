//! The place at which a client goes on, or the reason why it cannot.

use super::login::Start;
use crate::epoch::Epoch;
use crate::sequence::{Cursor, SequenceNumber};

/// The past of a server.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// The lowest number that is kept; the cursor, where nothing is.
    pub first_kept: Cursor,
    /// The number of the next event to release.
    pub cursor: Cursor,
    /// The number of the first event that there can be.
    pub first_sequence: SequenceNumber,
}

/// The answer to a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: it begins at the cursor.
    Silent,
    /// It begins at this position, which may be below the cursor or above it.
    Resumed(Cursor),
    /// What it asked for is not kept any more; this is the lowest number that is.
    Gone(Cursor),
    /// It asked for another sequence of events; this is the cursor.
    OtherEpoch(Cursor),
}

impl History {
    /// The answer to a login that wants to begin there. `shares` says whether everything below a position of an epoch
    /// is in this sequence of events, too: of its own epoch all of it is, and of one that it was forked from what was
    /// released before.
    #[must_use]
    pub fn answer(&self, start: Start, shares: impl FnOnce(Epoch, Cursor) -> bool) -> Answer {
        match start {
            Start::Plain => Answer::Silent,
            Start::Now => Answer::Resumed(self.cursor),
            Start::Oldest => Answer::Resumed(self.first_kept.max(Cursor::before(self.first_sequence))),
            Start::At(next, epoch) if shares(epoch, next) => {
                let next = next.max(Cursor::before(self.first_sequence));
                if next < self.first_kept { Answer::Gone(self.first_kept) } else { Answer::Resumed(next) }
            }
            Start::At(..) => Answer::OtherEpoch(self.cursor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Epoch = Epoch::new(2);
    const OLD: Epoch = Epoch::new(1);
    const FORK: Cursor = Cursor::new(50);

    fn answer(first_kept: Cursor, start: Start) -> Answer {
        let shares = |epoch, next| epoch == NOW || epoch == OLD && next <= FORK;
        History { first_kept, cursor: Cursor::new(100), first_sequence: SequenceNumber::new(10) }
            .answer(start, shares)
    }

    #[test]
    fn plain_logins_and_those_without_a_position_always_succeed() {
        assert_eq!(answer(Cursor::new(40), Start::Plain), Answer::Silent);
        assert_eq!(answer(Cursor::new(40), Start::Now), Answer::Resumed(Cursor::new(100)));
        assert_eq!(answer(Cursor::new(40), Start::Oldest), Answer::Resumed(Cursor::new(40)));
        assert_eq!(answer(Cursor::new(100), Start::Oldest), Answer::Resumed(Cursor::new(100)));
    }

    #[test]
    fn a_position_is_kept_or_gone() {
        let at = |next| answer(Cursor::new(40), Start::At(next, NOW));
        assert_eq!(at(Cursor::new(39)), Answer::Gone(Cursor::new(40)));
        for next in [40, 41, 99, 100, 101, 1 << 64] {
            assert_eq!(at(Cursor::new(next)), Answer::Resumed(Cursor::new(next)));
        }
    }

    #[test]
    fn no_position_is_below_the_first_number() {
        let at = |next| answer(Cursor::new(10), Start::At(next, NOW));
        assert_eq!(at(Cursor::new(0)), Answer::Resumed(Cursor::new(10)));
        assert_eq!(at(Cursor::new(9)), Answer::Resumed(Cursor::new(10)));
        assert_eq!(answer(Cursor::new(40), Start::At(Cursor::new(0), NOW)), Answer::Gone(Cursor::new(40)));
    }

    #[test]
    fn an_older_epoch_counts_up_to_the_fork() {
        let at = |next, epoch| answer(Cursor::new(40), Start::At(next, epoch));
        assert_eq!(at(Cursor::new(39), OLD), Answer::Gone(Cursor::new(40)));
        assert_eq!(at(Cursor::new(49), OLD), Answer::Resumed(Cursor::new(49)));
        assert_eq!(
            at(Cursor::new(50), OLD),
            Answer::Resumed(Cursor::new(50)),
            "everything below the fork is shared"
        );
        assert_eq!(at(Cursor::new(51), OLD), Answer::OtherEpoch(Cursor::new(100)));
        assert_eq!(at(Cursor::new(49), Epoch::new(3)), Answer::OtherEpoch(Cursor::new(100)));
    }
}
