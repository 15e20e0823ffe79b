//! What the tools have in common.

#![forbid(unsafe_code)]

use crate::{
    disk::Disk,
    epoch::Epoch,
    journal::{
        JournalError, Log, Opening, Waiting,
        catalog::Catalog,
        meta::{META, Meta},
        recover,
    },
};

/// The number that a released line begins with.
pub(super) fn number_of(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b'|').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What the journal is, and its files.
pub(super) fn load(disk: &mut dyn Disk) -> Result<(Meta, Catalog), JournalError> {
    let meta = Meta::load(disk)?
        .ok_or_else(|| JournalError::new(format!("there is no journal ({META} is missing)")))?;
    let mut catalog = Catalog::list(disk)?;
    catalog.has_origin = recover::is_origin(disk, &meta, &catalog)?;
    Ok((meta, catalog))
}

/// An epoch that was never used.
pub(super) fn draw(disk: &mut dyn Disk) -> Result<Epoch, JournalError> {
    disk.random().map(Epoch::new).map_err(|error| JournalError::io("cannot draw", "an epoch", &error))
}

/// Makes everything durable, with the events that wait.
pub(super) fn finish(mut log: Log, waiting: Waiting, opening: &Opening) -> Result<(), JournalError> {
    log.end(waiting);
    log.proceed(opening.now)?;
    if log.has_ended() {
        return Ok(());
    }
    Err(JournalError::new(log.stalled().unwrap_or("the disk did not finish").to_owned()))
}
