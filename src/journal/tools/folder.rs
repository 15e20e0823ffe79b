//! The common part of the tools.

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
    sequence::SequenceNumber,
};

/// The number that a released line begins with.
pub(super) fn number_of(line: &[u8]) -> Option<SequenceNumber> {
    let digits = line.split(|&byte| byte == b'|').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(SequenceNumber::new)
}

/// The identity of the journal, and its files.
pub(super) fn load(disk: &mut dyn Disk) -> Result<(Meta, Catalog), JournalError> {
    let meta = Meta::load(disk)?
        .ok_or_else(|| JournalError::new(format!("there is no journal ({META} is missing)")))?;
    let mut catalog = Catalog::list(disk)?;
    recover::end_where_the_next_begins(disk, &meta, &mut catalog)?;
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

/// How often a tool starts again because a server removes files.
const ATTEMPTS: usize = 20;

/// Does something with a folder that a server may be writing to, and does it again if it failed and a file has gone meanwhile: retention
/// removes segments and snapshots, and writes the next segment over an old one.
pub(super) fn again_while_files_go<T>(
    disk: &mut dyn Disk,
    mut work: impl FnMut(&mut dyn Disk) -> Result<T, JournalError>,
) -> Result<T, JournalError> {
    let mut attempt = 1;
    loop {
        let before = names(disk)?;
        let done = work(disk);
        let Err(error) = done else { return done };
        let now = names(disk)?;
        if attempt == ATTEMPTS || before.iter().all(|name| now.contains(name)) {
            return Err(error);
        }
        attempt += 1;
    }
}

fn names(disk: &mut dyn Disk) -> Result<Vec<String>, JournalError> {
    let names = disk.names().map_err(|error| JournalError::io("cannot list", "the folder", &error))?;
    Ok(names.into_iter().map(|(name, _)| name).collect())
}

#[cfg(test)]
mod tests {
    use super::{ATTEMPTS, JournalError, again_while_files_go};
    use crate::{disk::Disk, sim::SimFolder};

    #[test]
    fn a_tool_that_a_server_overtakes_begins_anew_and_damage_is_told_at_once() {
        let mut disk = SimFolder::new(1).disk();
        for index in 0..3 {
            let _ = disk.create(&format!("{index}.fnj"));
        }
        let overtaken = || JournalError::new("the file has gone".to_owned());
        let mut attempts = 0;
        let done = again_while_files_go(&mut disk, |disk| {
            attempts += 1;
            if attempts == 3 {
                Ok(())
            } else {
                disk.remove(&format!("{attempts}.fnj")).map_err(|_| overtaken()).and(Err(overtaken()))
            }
        });
        assert!(done.is_ok());
        assert_eq!(attempts, 3);
        let mut attempts = 0;
        let damage = again_while_files_go(&mut disk, |_| -> Result<(), _> {
            attempts += 1;
            Err(overtaken())
        });
        assert!(damage.is_err());
        assert_eq!(attempts, 1);
        let mut attempts = 0;
        let restless = again_while_files_go(&mut disk, |disk| -> Result<(), _> {
            attempts += 1;
            let _ = disk.remove(&format!("{}.new", attempts - 1));
            let _ = disk.create(&format!("{attempts}.new"));
            let _ = disk.remove("0.fnj");
            Err(overtaken())
        });
        assert!(restless.is_err());
        assert_eq!(attempts, ATTEMPTS);
    }
}
