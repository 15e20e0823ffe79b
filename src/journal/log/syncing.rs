//! The syncs of a running journal: which is due, and what it makes durable.

use super::{
    Log, MARK_DELAY,
    unsynced::{Syncing, Unsynced},
};
use crate::{
    disk::{Completion, FileId},
    journal::{JournalError, segment::segment_name},
};

impl Log {
    /// Submits the next sync that is due.
    pub(super) fn start_sync(&mut self) -> Result<bool, JournalError> {
        if self.sync_due.is_some_and(|at| at <= self.now) {
            self.sync_due = None;
            self.sync_goal = self.chain.position;
        }
        if self.syncing.is_some() || self.durable >= self.sync_goal {
            return Ok(false);
        }
        let next = match self.unsynced.pop_front() {
            Some(unsynced) => Some((self.opened(&unsynced)?, unsynced.position, unsynced.cursor, true)),
            None => self.active.map(|file| (file, self.chain.position, self.chain.cursor, false)),
        };
        let Some((file, position, cursor, is_closing)) = next else { return Ok(false) };
        self.sync_folder()?;
        let ticket = self.disk.sync(file);
        self.syncing = Some(Syncing { ticket, file, began: self.now, position, cursor, is_closing });
        Ok(true)
    }

    pub(super) fn unsynced_files(&self) -> usize {
        self.unsynced.iter().filter(|unsynced| unsynced.file.is_some()).count()
    }

    /// The file of a segment that is to be synced.
    fn opened(&mut self, unsynced: &Unsynced) -> Result<FileId, JournalError> {
        let name = segment_name(unsynced.first);
        let file = unsynced.file.map_or_else(|| self.disk.open(&name), Ok);
        file.map_err(|error| JournalError::io("cannot open", &name, &error))
    }

    pub(super) fn sync_folder(&mut self) -> Result<(), JournalError> {
        if std::mem::take(&mut self.is_folder_dirty) {
            self.has_removed = false;
            self.disk.sync_folder().map_err(|error| JournalError::io("cannot sync", "the folder", &error))?;
            if let Some(spare) = &mut self.catalog.spare {
                spare.is_durable = true;
            }
        }
        Ok(())
    }

    pub(super) fn complete_sync(&mut self, completion: Completion) -> Result<(), JournalError> {
        let Some(syncing) = self.syncing.take() else { return Ok(()) };
        if let Err(error) = completion.result {
            return Err(JournalError::io("cannot sync", "a segment", &error));
        }
        self.syncs += 1;
        self.durable = self.durable.max(syncing.position);
        self.durable_cursor = self.durable_cursor.max(syncing.cursor);
        self.undurable_since = (self.durable < self.chain.position).then_some(syncing.began);
        if syncing.is_closing {
            self.disk.close(syncing.file);
            self.retain()?;
        }
        if self.durable == self.chain.position && !self.is_marked {
            self.mark_due = Some(self.now + MARK_DELAY);
        }
        Ok(())
    }
}
