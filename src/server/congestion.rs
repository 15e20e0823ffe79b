//! Slow users (SPEC section 3): sources are held up while anyone is behind, and nobody may be for too long.
//!
//! A user is *behind* while its output buffer is above `userBufferBytes`. Then a *pause* begins: sources are not read
//! and nothing is released until no user is above half the limit. During a pause, users above half the limit run on the
//! same timeout: `slowUserTimeoutMs` from the time at which they came onto the list of slow users, or fell below
//! `userBufferBytes`, whichever was later. What users take of the others' time in many pauses is limited by their
//! [`Shares`].
//!
//! The time of a pause does not count towards `eventTimeoutMs`: a missing event may lie unread in a source's socket.

use super::{key::UserKey, share::Shares};
use crate::{
    config::{Config, SlowUserPolicy},
    time::{MILLISECOND, Micros},
    user_id::UserId,
};

/// The users that hold up the sources, and the time since they do.
#[derive(Debug)]
pub(super) struct Congestion {
    limit: usize,
    timeout: Micros,
    policy: SlowUserPolicy,
    /// Users that are behind or, during a pause, more than half behind, and since when without a break.
    slow: Vec<Slow>,
    shares: Shares,
    /// Since when sources are not read because of them.
    paused_since: Option<Micros>,
}

/// A user that holds up the sources.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slow {
    pub(super) key: UserKey,
    id: UserId,
    /// Since when without a break.
    pub(super) since: Micros,
}

/// How a user keeps up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The user's id.
    id: UserId,
    /// It is on the list of slow users.
    slow: bool,
    /// Its output buffer is above `userBufferBytes`.
    behind: bool,
}

/// The decision about a user whose output buffer has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grown {
    /// Nothing.
    Stays,
    /// It is disconnected.
    IsCutOff,
    /// From now on it is served from the journal.
    FallsBehind,
}

impl Pace {
    pub(super) fn new(id: UserId) -> Self {
        Self { id, slow: false, behind: false }
    }

    /// Whether it holds up the sources.
    pub(super) fn is_slow(&self) -> bool {
        self.slow
    }
}

impl Congestion {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            limit: config.user_buffer_bytes,
            timeout: config.slow_user_timeout_ms * MILLISECOND,
            policy: config.slow_user_policy,
            slow: Vec::new(),
            shares: Shares::new(config.slow_user_timeout_ms * MILLISECOND),
            paused_since: None,
        }
    }

    /// Whether sources are held up by slow users.
    pub(super) fn is_paused(&self) -> bool {
        self.paused_since.is_some()
    }

    /// Since when they are.
    pub(super) fn paused_since(&self) -> Option<Micros> {
        self.paused_since
    }

    /// The users that hold up the sources.
    pub(super) fn slow(&self) -> &[Slow] {
        &self.slow
    }

    /// Bytes that may wait for one user before it is behind.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A user's output buffer has grown to `len` bytes.
    #[inline]
    pub(super) fn grew(&mut self, key: UserKey, pace: &mut Pace, len: usize, now: Micros) -> Grown {
        if len <= self.limit || pace.behind {
            return Grown::Stays;
        }
        match self.policy {
            SlowUserPolicy::Wait => {}
            SlowUserPolicy::Disconnect => return Grown::IsCutOff,
            SlowUserPolicy::Journal => return Grown::FallsBehind,
        }
        // Once slow users have had their share of the others' time, nobody is waited for.
        if self.shares.is_all_used_up(now) {
            return Grown::IsCutOff;
        }
        pace.behind = true;
        if std::mem::replace(&mut pace.slow, true) {
            self.restart_clock(key, now);
        } else {
            self.slow.push(Slow { key, id: pace.id, since: now });
        }
        Grown::Stays
    }

    /// A user's output buffer has shrunk to `len` bytes.
    pub(super) fn shrank(&mut self, key: UserKey, pace: &mut Pace, len: usize, now: Micros) {
        if !pace.slow {
            return;
        }
        if pace.behind && len <= self.limit {
            pace.behind = false;
            self.restart_clock(key, now);
        }
        let holds_up = if self.is_paused() { len > self.limit / 2 } else { len > self.limit };
        if !holds_up {
            pace.slow = false;
            self.gone(key);
        }
    }

    fn restart_clock(&mut self, key: UserKey, now: Micros) {
        if let Some(slow) = self.slow.iter_mut().find(|slow| slow.key == key) {
            slow.since = now;
        }
    }

    /// A user holds up nobody any more.
    pub(super) fn gone(&mut self, key: UserKey) {
        self.slow.retain(|slow| slow.key != key);
    }

    /// Whether a pause must begin because of a slow user.
    pub(super) fn must_pause(&self) -> bool {
        self.paused_since.is_none() && !self.slow.is_empty()
    }

    /// Begins a pause. `users` are all of them, with the lengths of their output buffers.
    pub(super) fn pause<'a>(
        &mut self,
        users: impl Iterator<Item = (UserKey, usize, &'a mut Pace)>,
        now: Micros,
    ) {
        self.paused_since = Some(now);
        self.shares.begin(now);
        for (key, len, pace) in users {
            if len > self.limit / 2 && !std::mem::replace(&mut pace.slow, true) {
                self.slow.push(Slow { key, id: pace.id, since: now });
            }
        }
        log::debug!(slow_users = self.slow.len(); "sources are held up by slow users");
    }

    /// Ends a pause if nobody is slow any more; returns how long it was.
    pub(super) fn resume(&mut self, now: Micros) -> Option<Micros> {
        let since = self.paused_since.take_if(|_| self.slow.is_empty())?;
        log::debug!(paused_us = now - since; "sources are read again");
        Some(now - since)
    }

    /// Time goes on, up to `now`. `counts`: most users have nothing waiting, so that a pause is the fault of those who are slow.
    pub(super) fn pass_time(&mut self, counts: bool, now: Micros) {
        if self.is_paused() {
            self.shares.pass_time(self.slow.iter().map(|slow| slow.id), counts, now);
        }
    }

    /// When to check next whether a slow user's time is up.
    pub(super) fn deadline(&self) -> Option<Micros> {
        let due = |slow: &Slow| {
            let stays_behind = slow.since + self.timeout;
            if self.is_paused() { stays_behind.min(self.shares.look_at(slow.id)) } else { stays_behind }
        };
        self.slow.iter().map(due).min()
    }

    /// Those whose time is up.
    pub(super) fn overdue(&self, now: Micros) -> impl Iterator<Item = UserKey> {
        let is_up =
            move |slow: &&Slow| slow.since + self.timeout <= now || self.shares.is_used_up(slow.id, now);
        self.slow.iter().filter(is_up).map(|slow| slow.key)
    }
}
