//! Everything that happens because time has passed.

use super::{
    Net, Server,
    connection::{Login, Role},
};
use crate::{counters::UserEnd, time::Micros};

impl<N: Net> Server<N> {
    /// When there is something to do next if nothing becomes ready.
    pub(super) fn nearest_deadline(&mut self) -> Option<Micros> {
        let holes = if self.is_paused() { None } else { self.engine.next_deadline() };
        [
            holes,
            self.login_deadline(),
            self.slow_deadline(),
            self.accept_deadline(),
            self.reports.next_due(),
            self.shutdown_deadline(),
            self.admin_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub(super) fn meet_deadlines(&mut self) {
        // Who was found to be gone when the net was last asked must not wait for the next turn.
        self.close_failed();
        self.cut_off_slow_users();
        while let Some(at) = self.login_deadline()
            && at <= self.now
        {
            if let Some((_, key)) = self.logins.pop_front() {
                self.close_user(key, UserEnd::LoginTimeout);
            }
        }
        self.give_up_holes();
    }

    /// Notes when a new connection must have logged in.
    pub(super) fn note_login_deadline(&mut self, deadline: Micros, key: usize) {
        self.logins.push_back((deadline, key));
        // Behind one that says nothing for long, those that have logged in are not kept for as long.
        if self.logins.len() > 2 * self.user_clients + 64 {
            let mut logins = std::mem::take(&mut self.logins);
            logins.retain(|&(at, key)| self.is_expected_to_log_in(at, key));
            self.logins = logins;
        }
    }

    fn is_expected_to_log_in(&self, at: Micros, key: usize) -> bool {
        let role = self.connections.get(key).map(|connection| &connection.role);
        matches!(role, Some(Role::Login(Login { deadline, .. })) if *deadline == at)
    }

    /// When the first connection that has not logged in must have.
    fn login_deadline(&mut self) -> Option<Micros> {
        while let Some(&(at, key)) = self.logins.front() {
            if self.is_expected_to_log_in(at, key) {
                return Some(at);
            }
            self.logins.pop_front();
        }
        None
    }

    /// Skips the holes whose time has come. With a timeout of 0 that is when everything that could be read
    /// has been read.
    fn give_up_holes(&mut self) {
        let unread = self.release_due || self.has_bytes();
        if self.is_paused() || (self.config.event_timeout_ms == 0 && unread) {
            return;
        }
        if self.engine.next_deadline().is_some_and(|at| at <= self.now) {
            self.engine.expire(self.now);
            self.release();
            self.deliver();
            self.report_skipped();
        }
    }

    /// Releases what can be released without reading, as long as nobody gets behind.
    pub(super) fn release(&mut self) {
        self.release_due = self.is_paused();
        while !self.release_due && self.engine.release_waiting() {
            self.deliver();
            self.release_due = self.is_paused();
        }
    }
}
