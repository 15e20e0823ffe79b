//! Users take turns, with `busyPoll`: the sources are looked at in between writes.
//!
//! A write costs microseconds whatever it carries, so a turn that owes something to each of a hundred users takes half a
//! millisecond. What arrives meanwhile waits for its end, and then for its users' places in the next turn. Where latency is
//! what counts, pieces are *put off* instead: they go into output buffers, a user with something there is *due*, and a turn
//! writes to the few who have been due for longest, before the sources are looked at again. Each gets along with it what
//! has come in the meantime. So an event waits for half a round of the users on average, not for half a turn and half of
//! another one, and there are fewer writes.
//!
//! It costs a copy, and a look at the sources for every few writes. Large pieces are worth neither and are written
//! there and then, after what was put off before. A user that is due is not slow: its socket has not refused anything; and if it
//! goes, it is written to once more.
//!
//! Whoever is due for longest comes first. Tried and not kept: whoever is owed most comes first. Of the deliveries, half
//! took a seventh less time, but the slowest hundredth as long as without taking turns; and nothing says that somebody who is
//! owed little ever comes.

use super::{key::UserKey, output::Pool, users::User};
use crate::config::Config;
use std::collections::VecDeque;

/// More than this is not put off for one user.
const PUT_OFF_BYTES_MAX: usize = 16 << 10;
/// Writes for each read of a source. With fewer of them more time goes into looking, with more of them what arrives waits for
/// longer; 8, 16 and 32 differ by little.
pub(super) const WRITES_PER_READ: usize = 16;

/// The users that are due.
#[derive(Debug)]
pub(super) struct Rotation {
    /// Most bytes that are put off for one user; 0: nobody is ever due.
    put_off_bytes_max: usize,
    due: VecDeque<UserKey>,
}

impl Rotation {
    pub(super) fn new(config: &Config) -> Self {
        // No more than what does not make a user slow.
        let most = PUT_OFF_BYTES_MAX.min(config.user_buffer_bytes / 2);
        Self { put_off_bytes_max: if config.busy_poll { most } else { 0 }, due: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Puts bytes off for the user with the key `key`, who is not blocked, unless they are too many. Says whether it did.
    pub(super) fn put_off(&mut self, key: UserKey, user: &mut User, bytes: &[u8], pool: &mut Pool) -> bool {
        if user.output.len() + bytes.len() > self.put_off_bytes_max {
            return false;
        }
        user.output.push(bytes, pool);
        if !std::mem::replace(&mut user.due, true) {
            self.due.push_back(key);
        }
        true
    }

    /// The user that has been due for longest.
    pub(super) fn next(&mut self) -> Option<UserKey> {
        self.due.pop_front()
    }

    /// The user is gone: somebody else may get its key, and is not to be taken for due instead.
    pub(super) fn forget(&mut self, key: UserKey) {
        self.due.retain(|&due| due != key);
    }
}
