//! Retention: files that exceed the limits of age and size are removed, oldest first. A file that the next start needs stays.

use super::{JournalError, Log};
use crate::{
    journal::{
        catalog::{Segment, Spare, Unneeded},
        segment::{SEGMENT_HEADER, SPARE},
    },
    time::SECOND,
};
use std::io;

impl Log {
    /// The active segment covers a quarter of `journalRetentionMs`.
    pub(super) fn is_segment_old(&self) -> bool {
        let Some(limit_ms) = self.settings.retention_ms else { return false };
        let before =
            self.catalog.segments.len().checked_sub(2).map(|index| self.catalog.segments[index].time_ms);
        let begun = before.unwrap_or(self.begun_ms);
        self.clock_ms.saturating_sub(begun) > limit_ms / 4
    }

    /// Time wants a segment to go that the next start still needs.
    pub(super) fn time_wants_snapshot(&self) -> bool {
        self.catalog.segments.len() > 1
            && self.catalog.segments.front().is_some_and(|segment| self.is_expired(segment))
            && self.catalog.oldest_unneeded().is_none()
    }

    fn is_expired(&self, segment: &Segment) -> bool {
        let limit = self.settings.retention_ms;
        limit.is_some_and(|limit| segment.time_ms.saturating_add(limit) < self.clock_ms)
    }

    /// Checks once a second whether files have become too old.
    pub(super) fn retain_in_time(&mut self) -> Result<(), JournalError> {
        if self.retention_due.is_some_and(|at| at <= self.now) {
            self.retention_due = Some(self.now + SECOND);
            self.clock_ms = self.disk.clock_ms();
            self.retain()?;
        }
        Ok(())
    }

    /// Removes files that exceed the limits of size and age.
    pub(super) fn retain(&mut self) -> Result<(), JournalError> {
        while let Some(unneeded) = self.catalog.oldest_unneeded() {
            let is_too_much = self.catalog.bytes() > self.settings.retention_bytes;
            let is_too_old = self.catalog.segments.front().is_some_and(|segment| self.is_expired(segment));
            let is_useless = matches!(unneeded, Unneeded::Snapshot(index)
                if self.catalog.snapshots[index].from < self.catalog.segments[0].first);
            let goes = match unneeded {
                Unneeded::Segment => (is_too_much || is_too_old) && self.is_second_durable(),
                Unneeded::Snapshot(_) => is_too_much || is_useless,
            };
            if !goes {
                break;
            }
            self.remove(unneeded)?;
        }
        Ok(())
    }

    /// The segment that would be the oldest one is durable, with its header and its name: the next start begins there.
    fn is_second_durable(&self) -> bool {
        let behind: u64 = self.catalog.segments.iter().skip(1).map(|segment| segment.len).sum();
        self.durable >= self.chain.position - behind + SEGMENT_HEADER as u64
    }

    /// Keeps a segment's file for the next one.
    fn set_aside(&mut self, segment: &Segment) -> Result<(), JournalError> {
        let name = segment.name();
        match self.disk.rename(&name, SPARE) {
            Ok(()) => self.catalog.spare = Some(Spare { len: segment.len, is_durable: false }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(JournalError::io("cannot rename", &name, &error)),
        }
        Ok(())
    }

    fn remove(&mut self, unneeded: Unneeded) -> Result<(), JournalError> {
        let name = match unneeded {
            Unneeded::Segment => {
                if self.has_removed {
                    // Or the machine could keep an older one than the one that goes now, and there would be a gap.
                    self.sync_folder()?;
                }
                (self.has_removed, self.is_folder_dirty) = (true, true);
                self.catalog.has_origin = false;
                let Some(segment) = self.catalog.segments.pop_front() else { return Ok(()) };
                if self.catalog.spare.is_none() && segment.len >= self.settings.segment_bytes / 2 {
                    return self.set_aside(&segment);
                }
                segment.name()
            }
            Unneeded::Snapshot(index) => self.catalog.snapshots.remove(index).name(),
        };
        match self.disk.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(JournalError::io("cannot remove", &name, &error))
            }
            _ => Ok(()),
        }
    }
}
