//! Slow users (SPEC section 3): sources are held up while anyone is behind, and nobody may be for too long.
//!
//! A user is *behind* while its output buffer is above `userBufferBytes`. That begins a *pause*: sources are
//! not read and nothing is released until no user is above half of that. So during a pause the users above half hold
//! everybody up just as much, and are on the same clock: `slowUserTimeoutMs` from when they came onto the list of slow
//! users, or came back below `userBufferBytes`, whichever was later.
//!
//! The time of a pause does not count for holes: what is missing may lie unread in a source's socket.

use super::{
    Net, Server,
    connection::{Connection, Role, User},
};
use crate::{
    config::SlowUserPolicy,
    counters::UserEnd,
    time::{MILLISECOND, Micros},
};

impl<N: Net> Server<N> {
    /// Whether sources are held up by slow users.
    pub(super) fn is_paused(&self) -> bool {
        self.paused_since.is_some()
    }

    /// Begins or ends a pause according to who is slow; under the other policy, disconnects whoever is.
    pub(super) fn control_congestion(&mut self) {
        if self.config.slow_user_policy == SlowUserPolicy::Disconnect {
            self.failed.extend(self.slow.drain(..).map(|key| (key, UserEnd::Slow)));
        } else if self.paused_since.is_none() && !self.slow.is_empty() {
            self.pause();
        } else if let Some(since) = self.paused_since
            && self.slow.is_empty()
        {
            self.paused_since = None;
            self.engine.postpone(self.now - since);
            log::debug!(paused_us = self.now - since; "sources are read again");
        }
    }

    /// Counts the time in which sources were not read.
    pub(super) fn account_pauses(&mut self, elapsed: Micros) {
        if self.is_paused() {
            self.engine.counters.paused_slow_user += elapsed;
        } else if !self.blocked_sources.is_empty() {
            self.engine.counters.paused_ring_full += elapsed;
        }
    }

    fn pause(&mut self) {
        self.paused_since = Some(self.now);
        let half = self.config.user_buffer_bytes / 2;
        for (key, connection) in &mut self.connections {
            if let Role::User(user) = &mut connection.role
                && user.output.len() > half
                && user.slow_since.is_none()
            {
                user.slow_since = Some(self.now);
                self.slow.push(key);
            }
        }
        log::debug!(slow_users = self.slow.len(); "sources are held up by slow users");
    }

    /// A user's output buffer has shrunk.
    pub(super) fn after_flush(&mut self, key: usize) {
        let limit = self.config.user_buffer_bytes;
        let paused = self.is_paused();
        let Some(Connection { role: Role::User(user), .. }) = self.connections.get_mut(key) else {
            return;
        };
        if user.slow_since.is_none() {
            return;
        }
        let len = user.output.len();
        if user.behind && len <= limit {
            user.behind = false;
            user.slow_since = Some(self.now);
        }
        let holds_up = if paused { len > limit / 2 } else { len > limit };
        if !holds_up {
            user.slow_since = None;
            self.slow.retain(|&slow| slow != key);
            self.control_congestion();
        }
    }

    /// When the first slow user's time is up.
    pub(super) fn slow_deadline(&self) -> Option<Micros> {
        let timeout = self.config.slow_user_timeout_ms * MILLISECOND;
        self.slow.iter().filter_map(|&key| self.slow_since(key)).min().map(|since| since + timeout)
    }

    /// Disconnects those whose time is up.
    pub(super) fn cut_off_slow_users(&mut self) {
        if self.slow_deadline().is_none_or(|at| at > self.now) {
            return;
        }
        let timeout = self.config.slow_user_timeout_ms * MILLISECOND;
        for index in 0..self.slow.len() {
            let key = self.slow[index];
            if self.slow_since(key).is_some_and(|since| since + timeout <= self.now) {
                self.fail(key, UserEnd::Slow);
            }
        }
        self.close_failed();
    }

    fn slow_since(&self, key: usize) -> Option<Micros> {
        match self.connections.get(key) {
            Some(Connection { role: Role::User(User { slow_since, .. }), .. }) => *slow_since,
            _ => None,
        }
    }
}
