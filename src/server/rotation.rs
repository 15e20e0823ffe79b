//! Users take turns, with `busyPoll`: the sources are looked at in between writes.
//!
//! A write costs microseconds, whatever it carries. So a turn that owes something to each of a hundred users takes half
//! a millisecond. An event that arrives meanwhile waits for the end of the turn, and then for its users' places in the
//! next turn. Where latency counts, pieces are *put off* instead: they go into output buffers, and a user with
//! something there is *due*. A turn writes to the few users that have been due for longest, and then looks at the
//! sources again. A user is sent everything that has come for it until then. So an event waits for half a round of the
//! users on average, not for half a turn and half of another one, and there are fewer writes.
//!
//! The price is a copy, and a look at the sources for every few writes. Large pieces are not put off: they are written
//! at once, behind the pieces that were put off before. A user that is due is not slow, because its socket has not
//! refused anything. If the server closes its connection, it is written to once more.
//!
//! The user that has been due for longest comes first. Tried and not kept: the user that is owed most comes first. The
//! median delivery took a seventh less time. But the slowest hundredth took as long as without taking turns, and a user
//! that is owed little might never come.

use super::{key::UserKey, output::Pool, user::User};
use crate::config::Config;
use std::collections::VecDeque;

/// More than this is not put off for one user.
const PUT_OFF_BYTES_MAX: usize = 16 << 10;
/// Writes for each read of a source. Fewer writes: more time goes into looking at sources. More writes: events wait for
/// longer. 8, 16 and 32 differ by little.
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

    /// The user is gone. Its key may be given to another user, which is not due.
    pub(super) fn forget(&mut self, key: UserKey) {
        self.due.retain(|&due| due != key);
    }
}
