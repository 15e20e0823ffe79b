//! Starting a journal again: an edge whose place in the stream is not kept any more drops its events, and begins with the follow
//! graph at a later place (docs/SPEC.md section 11).
//!
//! The new beginning has an id of its own, so nothing of the old journal is ever taken for a part of it. What happens when the
//! process or the machine ends:
//!
//! | at this moment | the next start |
//! | --- | --- |
//! | before `journal.meta` is replaced | goes on with the old journal; the new snapshot is none of its own, and is passed over |
//! | after that | begins with the new snapshot, and removes the rest of the old journal |

use super::{Chain, JournalError, Log, Snapshotting};
use crate::{
    epoch::Epoch,
    journal::{
        catalog::Catalog,
        meta::{JournalId, Meta},
        snapshot::{SnapshotInfo, SnapshotWriter, TEMPORARY},
    },
    sequence::Cursor,
    user_id::UserId,
};
use std::{collections::VecDeque, io};

impl Log {
    /// The journal has been founded at a later place than the first.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        self.meta.base.is_some()
    }

    /// Drops everything, and goes on at `cursor` of `epoch`, with the edges of the follow graph that `walk` hands out. It waits for the
    /// disk. The barrier must be open.
    ///
    /// # Errors
    ///
    /// If it cannot be written. The disk then has the old journal or the new one.
    pub fn found(
        &mut self,
        epoch: Epoch,
        cursor: Cursor,
        walk: impl FnOnce(&mut dyn FnMut(UserId, UserId)),
    ) -> Result<(), JournalError> {
        assert!(self.is_open(), "nothing is under way");
        self.abandon_snapshot();
        let failed = |error: io::Error| JournalError::io("cannot begin", "the journal again", &error);
        let id =
            self.disk.random().and_then(|high| Ok(u128::from(high) << 64 | u128::from(self.disk.random()?)));
        let id = JournalId(id.map_err(failed)?);
        let info = self.write_foundation(id, cursor, walk).map_err(failed)?;
        let meta = Meta { id, epoch, lock: self.meta.lock, ancestors: Vec::new(), base: Some(cursor) };
        meta.store(&mut *self.disk)?;
        self.meta = meta;
        self.drop_old(info).map_err(failed)?;
        self.chain = Chain { previous: 0, cursor, position: 0 };
        (self.durable, self.durable_cursor, self.sync_goal) = (0, cursor, 0);
        self.snapshots = Snapshotting::new(&self.catalog, 0);
        self.begin().map_err(failed)?;
        self.is_marked = false;
        self.mark_due = Some(self.now + super::MARK_DELAY);
        Ok(())
    }

    fn write_foundation(
        &mut self,
        id: JournalId,
        cursor: Cursor,
        walk: impl FnOnce(&mut dyn FnMut(UserId, UserId)),
    ) -> io::Result<SnapshotInfo> {
        let mut writer = SnapshotWriter::new(id, cursor);
        walk(&mut |follower, followed| writer.push(follower, followed));
        let disk = &mut *self.disk;
        let file = disk.create(TEMPORARY)?;
        let written = writer.finish(disk, file, cursor, 0).and_then(|()| disk.sync_at_once(file));
        disk.close(file);
        written?;
        let info = SnapshotInfo { from: cursor, to: cursor, len: writer.len() };
        disk.rename(TEMPORARY, &info.name())?;
        disk.sync_folder()?;
        Ok(info)
    }

    fn drop_old(&mut self, info: SnapshotInfo) -> io::Result<()> {
        if let Some(file) = self.active.take() {
            self.disk.close(file);
        }
        for file in std::mem::take(&mut self.unsynced).iter().filter_map(|unsynced| unsynced.file) {
            self.disk.close(file);
        }
        if let Some(syncing) = self.syncing.take_if(|syncing| syncing.is_closing) {
            self.disk.close(syncing.file);
        }
        self.syncing = None;
        let catalog = std::mem::take(&mut self.catalog);
        for segment in &catalog.segments {
            self.disk.remove(&segment.name())?;
        }
        for old in catalog.snapshots.iter().filter(|old| old.name() != info.name()) {
            self.disk.remove(&old.name())?;
        }
        self.catalog = Catalog {
            segments: VecDeque::new(),
            snapshots: vec![info],
            spare: catalog.spare,
            ..Catalog::default()
        };
        Ok(())
    }
}
