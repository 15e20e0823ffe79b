//! Marks: the places that users that resume have been told, and the time of the next mark (`docs/SPEC.md` section 10).

use super::{key::UserKey, login::Arrival};
use crate::{
    epoch::Epoch,
    resume::Terminator,
    sequence::Cursor,
    stream::first_line_from,
    time::{MILLISECOND, Micros},
};
use std::{cmp::Reverse, collections::BinaryHeap};

/// The last mark of a user that resumes, and the events that it must not be sent.
#[derive(Debug)]
pub(super) struct Resume {
    pub(super) epoch: Epoch,
    pub(super) terminator: Terminator,
    /// Events below this number are not for it. 0: all are.
    pub(super) floor: Cursor,
    /// The place that it was told last.
    pub(super) told: Cursor,
    /// When it was sent something last.
    pub(super) sent_at: Micros,
    /// Tells it from others that have had its key.
    pub(super) serial: u64,
}

impl Resume {
    /// It is handed bytes; returns those that are for it.
    pub(super) fn receive<'a>(&mut self, bytes: &'a [u8], now: Micros) -> &'a [u8] {
        self.sent_at = now;
        if self.floor == Cursor::START {
            return bytes;
        }
        let rest = &bytes[first_line_from(bytes, self.floor)..];
        if !rest.is_empty() {
            self.floor = Cursor::START;
        }
        rest
    }
}

/// When users that resume are told their places.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) every: Micros,
    /// When a user may be due, with its serial number and its key.
    pub(super) due: BinaryHeap<Reverse<(Micros, u64, UserKey)>>,
    serial: u64,
    /// Logins that wait for an epoch.
    pub(super) held: Vec<(UserKey, Arrival)>,
}

impl Marks {
    pub(super) fn new(every_ms: u64) -> Self {
        Self { every: every_ms * MILLISECOND, due: BinaryHeap::new(), serial: 0, held: Vec::new() }
    }

    /// When a user may be due.
    pub(super) fn deadline(&self) -> Option<Micros> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// A connection has ended before its login was answered.
    pub(super) fn forget(&mut self, key: UserKey) {
        self.held.retain(|&(held, _)| held != key);
    }

    /// Logins that have waited for an epoch, now that there is one.
    pub(super) fn take_held(&mut self) -> Vec<(UserKey, Arrival)> {
        std::mem::take(&mut self.held)
    }

    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    pub(super) fn begin(&mut self, key: UserKey, now: Micros) -> u64 {
        self.serial += 1;
        if self.every > 0 {
            self.due.push(Reverse((now + self.every, self.serial, key)));
        }
        self.serial
    }
}
