//! The sockets of users that have gone, closed little by little.
//!
//! Closing a socket is most of what a user costs that comes and goes: some 25 µs, all of it the system's work. A crowd that leaves at
//! once, or clients that log in and out without end, must not put off the events of others by that.

use super::{linger::Lingering, net::Net};
use crate::time::Micros;
use std::{collections::VecDeque, io::Read};

/// Sockets that are closed in a turn, or an eighth of those that wait if that is more: so they cannot pile up. The most are some 10 ms
/// of work, and more than the users that a turn has time to let in.
const CLOSES_PER_TURN: std::ops::RangeInclusive<usize> = 64..=400;
/// While events wait for users that log in before them, so many sockets may wait, too.
const PUT_OFF_MAX: usize = 4096;

/// How urgent it is to close sockets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Urgency {
    /// Nobody can be accepted before descriptors are free, or this is the server's last turn.
    AtOnce,
    /// Events have been read, and wait for users that log in before them.
    EventsWait,
    Ordinary,
}

/// The socket of a user that has gone.
#[derive(Debug)]
pub(super) struct Gone<S> {
    pub(super) socket: S,
    /// What it has been sent may still be on its way.
    pub(super) lingers: bool,
    pub(super) is_talking: bool,
}

/// Sockets that wait to be closed. Their keys may be others' by now.
#[derive(Debug)]
pub(super) struct Closing<S> {
    waiting: VecDeque<Gone<S>>,
}

impl<S> Closing<S> {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many of those that wait, and of some `more`, are closed in this turn.
    fn budget(&self, more: usize, urgency: Urgency) -> usize {
        let all = self.waiting.len() + more;
        match urgency {
            Urgency::AtOnce => all,
            Urgency::EventsWait if all < PUT_OFF_MAX => 0,
            Urgency::EventsWait | Urgency::Ordinary => {
                (all / 8).clamp(*CLOSES_PER_TURN.start(), *CLOSES_PER_TURN.end()).min(all)
            }
        }
    }
}

impl<S: Read> Closing<S> {
    /// Closes sockets: those that wait, then those of users that have `gone` in this turn. Who is left waits. Says whether any was closed.
    pub(super) fn close<N: Net<Socket = S>>(
        &mut self,
        gone: impl ExactSizeIterator<Item = Gone<S>>,
        urgency: Urgency,
        lingering: &mut Lingering<S>,
        (net, now): (&mut N, Micros),
    ) -> bool {
        let budget = self.budget(gone.len(), urgency);
        let mut close = |gone: Gone<S>, net: &mut N| {
            if gone.lingers {
                lingering.close(gone.socket, gone.is_talking, net, now);
            }
        };
        let waited = self.waiting.len().min(budget);
        for waiting in self.waiting.drain(..waited) {
            close(waiting, net);
        }
        for (index, mut gone) in gone.enumerate() {
            if index < budget - waited {
                close(gone, net);
            } else {
                // Whoever gets the key must not be told what becomes of this one.
                net.forget(&mut gone.socket);
                self.waiting.push_back(gone);
            }
        }
        budget > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_closed_in_slices_unless_that_is_urgent() {
        let closing = Closing::<()>::new();
        let budget = |gone, urgency| closing.budget(gone, urgency);
        assert_eq!([10, 300, 1600, 10_000].map(|gone| budget(gone, Urgency::Ordinary)), [10, 64, 200, 400]);
        assert_eq!([10, 4095, 4096].map(|gone| budget(gone, Urgency::EventsWait)), [0, 0, 400]);
        assert_eq!(budget(10_000, Urgency::AtOnce), 10_000);
    }
}
