//! Snapshots of a running journal: written while the server goes on, published when they and the journal up to them are durable.

use super::{JournalError, Log, snapshotting::State};
use crate::{
    disk::{Completion, is_full},
    journal::snapshot::{SnapshotInfo, SnapshotWriter, TEMPORARY},
    time::{Micros, SECOND},
    user_id::UserId,
};
use std::io;

/// Bytes of blocks after which the next snapshot is made, if retention does not want one sooner.
const BYTES_MIN: u64 = 64 << 20;
/// At full load there is a snapshot each second, if retention does not want one sooner: what was written in a second is read in less.
const SPACING: Micros = SECOND;

impl Log {
    /// It is time for a snapshot, which must begin at the cursor of the journal, with the barrier open.
    #[must_use]
    pub fn wants_snapshot(&self) -> bool {
        self.is_open() && self.is_snapshot_due()
    }

    /// It is time for a snapshot, whatever is on its way.
    #[must_use]
    pub fn is_snapshot_due(&self) -> bool {
        let usual = BYTES_MIN.max(2 * self.snapshots.last_len);
        let least = self.settings.snapshot_bytes_least.max(self.snapshots.last_len);
        let most = (self.settings.retention_bytes / 4).max(least);
        let written = self.chain.position - self.snapshots.last;
        let is_soon = self.now.saturating_sub(self.snapshots.began) < SPACING;
        let is_enough = written >= most || (written >= usual.max(least) && !is_soon);
        matches!(self.snapshots.state, State::Idle)
            && !self.is_ending
            && self.has_events_behind_snapshot()
            && (is_enough || self.time_wants_snapshot())
    }

    /// Begins a snapshot at the cursor of the journal. False: there is no room, or another one is under way.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written to any more.
    pub fn begin_snapshot(&mut self) -> Result<bool, JournalError> {
        if !matches!(self.snapshots.state, State::Idle) {
            return Ok(false);
        }
        self.snapshots.last = self.chain.position;
        self.snapshots.began = self.now;
        match self.disk.create(TEMPORARY) {
            Ok(file) => {
                let writer = SnapshotWriter::new(self.id(), self.chain.cursor);
                self.snapshots.state = State::Walking { writer, file };
                Ok(true)
            }
            Err(error) => self.fail_snapshot(&error).map(|()| false),
        }
    }

    /// A snapshot's edges are being handed over.
    #[must_use]
    pub fn is_walking(&self) -> bool {
        matches!(self.snapshots.state, State::Walking { .. })
    }

    /// Takes one edge of the snapshot.
    pub fn push_edge(&mut self, follower: UserId, followed: UserId) {
        if let State::Walking { writer, .. } = &mut self.snapshots.state {
            writer.push(follower, followed);
        }
    }

    /// Writes the edges that were handed over. `is_last`: that was the last edge, and the snapshot is exact from the journal's cursor on.
    ///
    /// # Errors
    ///
    /// If a write fails for another reason than a full disk. With a full disk the snapshot is given up, and made later.
    pub fn write_snapshot(&mut self, is_last: bool) -> Result<(), JournalError> {
        let State::Walking { writer, file } = &mut self.snapshots.state else { return Ok(()) };
        let file = *file;
        let (to, end) = (self.chain.cursor, self.chain.position);
        let written = if is_last {
            writer.finish(&mut *self.disk, file, to, end)
        } else {
            writer.write_full(&mut *self.disk, file)
        };
        if let Err(error) = written {
            return self.fail_snapshot(&error);
        }
        if is_last {
            let info = SnapshotInfo { from: writer.from(), to, len: writer.len() };
            let ticket = Some(self.disk.sync(file));
            self.snapshots.state = State::Ending { info, file, ticket, position: end };
            self.sync_goal = self.sync_goal.max(end);
        }
        Ok(())
    }

    fn fail_snapshot(&mut self, error: &io::Error) -> Result<(), JournalError> {
        self.abandon_snapshot();
        if is_full(error) { Ok(()) } else { Err(JournalError::io("cannot write", TEMPORARY, error)) }
    }

    /// Gives up a snapshot that is under way. What was written of it is removed by the next start, if not now.
    pub(super) fn abandon_snapshot(&mut self) {
        let state = std::mem::replace(&mut self.snapshots.state, State::Idle);
        if let State::Walking { file, .. } | State::Ending { file, .. } = state {
            self.disk.close(file);
            let _ = self.disk.remove(TEMPORARY);
        }
    }

    pub(super) fn complete_snapshot_sync(&mut self, completion: Completion) -> Result<(), JournalError> {
        let State::Ending { ticket, .. } = &mut self.snapshots.state else { return Ok(()) };
        if *ticket != Some(completion.ticket) {
            return Ok(());
        }
        *ticket = None;
        completion.result.map_err(|error| JournalError::io("cannot sync", TEMPORARY, &error))?;
        Ok(())
    }

    /// Gives a snapshot its name once everything that it needs is durable.
    pub(super) fn publish_snapshot(&mut self) -> Result<bool, JournalError> {
        let State::Ending { info, file, ticket: None, position } = self.snapshots.state else {
            return Ok(false);
        };
        if self.durable < position {
            return Ok(false);
        }
        self.snapshots.state = State::Idle;
        self.snapshots.last_len = info.len;
        self.disk.close(file);
        let name = info.name();
        let published = self.disk.rename(TEMPORARY, &name).and_then(|()| self.disk.sync_folder());
        if let Err(error) = published {
            return if is_full(&error) {
                Ok(true)
            } else {
                Err(JournalError::io("cannot make", &name, &error))
            };
        }
        // One of the same cursors has been replaced.
        self.catalog.snapshots.retain(|other| other.name() != name);
        self.catalog.snapshots.push(info);
        self.catalog.distrusted.retain(|other| other.name() != name);
        self.retain()?;
        Ok(true)
    }

    /// Whether there is a block of events behind the newest snapshot.
    pub(super) fn has_events_behind_snapshot(&self) -> bool {
        let newest = self.catalog.snapshots.last().map(|info| info.from);
        let oldest = self.catalog.segments.front().map(|segment| segment.first);
        newest.or(oldest).is_some_and(|from| from < self.chain.cursor)
    }
}
