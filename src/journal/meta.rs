//! The identity of the journal as a whole: its id, its epoch, the epochs that it comes from, and the lock file that it belongs to.
//!
//! It stands in `journal.meta`, as text with a checksum, and is replaced as a whole: a temporary file, synced, renamed, and the
//! folder synced.

#![forbid(unsafe_code)]

use super::JournalError;
use crate::{
    disk::{Disk, Identity},
    epoch::Epoch,
    sequence::Cursor,
};
use std::{fmt::Write, io};
use xxhash_rust::xxh3::xxh3_64;

/// The file's name.
pub(crate) const META: &str = "journal.meta";
const TEMPORARY: &str = "journal.meta.tmp";
const TITLE: &str = "fortnight journal 2";
/// Longest file that is read.
const BYTES_MAX: usize = 1 << 20;

/// 128 random bits that tell a journal from any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalId(pub(crate) u128);

impl JournalId {
    /// The seed of a hash at a position.
    pub(crate) fn seed(self, position: u64) -> u64 {
        let mixed = (self.0 as u64) ^ ((self.0 >> 64) as u64).rotate_left(32);
        mixed ^ position.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// An older epoch, and where it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// The epoch.
    pub epoch: Epoch,
    /// Places up to this number mean the same in the epoch that followed.
    pub cursor: Cursor,
}

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Tells the journal from any other.
    pub id: JournalId,
    /// Names the sequence of events.
    pub epoch: Epoch,
    /// The lock file's identity.
    pub lock: Identity,
    /// Older epochs, oldest first.
    pub ancestors: Vec<Ancestor>,
    /// It was founded at this cursor, with a snapshot. Everything below belongs to an older journal.
    pub base: Option<Cursor>,
}

impl Meta {
    /// The description of a new journal.
    pub(crate) fn draw(disk: &mut dyn Disk) -> io::Result<Self> {
        let id = JournalId(u128::from(disk.random()?) << 64 | u128::from(disk.random()?));
        let epoch = Epoch::new(disk.random()?);
        Ok(Self { id, epoch, lock: disk.identity()?, ancestors: Vec::new(), base: None })
    }

    /// Begins a new epoch at a cursor. The old one is remembered, and no place above the cursor is valid any more.
    pub fn fork(&mut self, epoch: Epoch, cursor: Cursor) {
        self.ancestors.push(Ancestor { epoch: self.epoch, cursor });
        for ancestor in &mut self.ancestors {
            ancestor.cursor = ancestor.cursor.min(cursor);
        }
        self.epoch = epoch;
    }

    /// Whether a place means the same here: of this epoch, or of an older one up to where that was left.
    #[must_use]
    pub fn shares(&self, epoch: Epoch, next: Cursor) -> bool {
        epoch == self.epoch
            || self.ancestors.iter().any(|ancestor| ancestor.epoch == epoch && next <= ancestor.cursor)
    }

    fn to_text(&self) -> String {
        let mut text = format!("{TITLE}\nid {:032x}\nepoch {}\nlock {}\n", self.id.0, self.epoch, self.lock);
        if let Some(base) = self.base {
            let _ = writeln!(text, "base {base}");
        }
        for Ancestor { epoch, cursor } in &self.ancestors {
            let _ = writeln!(text, "fork {epoch} {cursor}");
        }
        let sum = xxh3_64(text.as_bytes());
        let _ = writeln!(text, "sum {sum:016x}");
        text
    }

    /// Reads the result of `to_text`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (body, sum) = text.strip_suffix('\n')?.rsplit_once("\nsum ")?;
        let body = &text[..=body.len()];
        if u64::from_str_radix(sum, 16).ok()? != xxh3_64(body.as_bytes()) {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let id = JournalId(u128::from_str_radix(lines.next()?.strip_prefix("id ")?, 16).ok()?);
        let epoch = Epoch::parse(lines.next()?.strip_prefix("epoch ")?.as_bytes())?;
        let lock = Identity::parse(lines.next()?.strip_prefix("lock ")?)?;
        let mut lines = lines.peekable();
        let base = match lines.next_if(|line| line.starts_with("base ")) {
            Some(line) => Some(Cursor::parse(line.strip_prefix("base ")?.as_bytes())?),
            None => None,
        };
        let ancestors = lines
            .map(|line| {
                let (epoch, cursor) = line.strip_prefix("fork ")?.split_once(' ')?;
                Some(Ancestor {
                    epoch: Epoch::parse(epoch.as_bytes())?,
                    cursor: Cursor::parse(cursor.as_bytes())?,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self { id, epoch, lock, ancestors, base })
    }

    /// Reads the file. `None`: there is none.
    pub(crate) fn load(disk: &mut dyn Disk) -> Result<Option<Self>, JournalError> {
        let file = match disk.open(META) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(JournalError::io("cannot open", META, &error)),
        };
        let mut bytes = vec![0; BYTES_MAX];
        let read = disk.read_at(file, 0, &mut bytes);
        disk.close(file);
        let read = read.map_err(|error| JournalError::io("cannot read", META, &error))?;
        let meta = Self::parse(&bytes[..read]).ok_or_else(|| {
            JournalError::new(format!(
                "{META}: the file is damaged (its checksum is wrong, or it is of another version); restore it from a backup of this journal"
            ))
        })?;
        Ok(Some(meta))
    }

    /// Replaces the file, durably.
    pub(crate) fn store(&self, disk: &mut dyn Disk) -> Result<(), JournalError> {
        let written = (|| {
            let file = disk.create(TEMPORARY)?;
            let written =
                disk.write_at(file, 0, self.to_text().as_bytes()).and_then(|()| disk.sync_at_once(file));
            disk.close(file);
            written?;
            disk.rename(TEMPORARY, META)?;
            disk.sync_folder()
        })();
        written.map_err(|error: io::Error| JournalError::io("cannot write", META, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::{Ancestor, Cursor, Epoch, Identity, JournalId, Meta};

    fn meta() -> Meta {
        Meta {
            id: JournalId(7 << 90),
            epoch: Epoch::new(1),
            lock: Identity { inode: 3, birth: None },
            ancestors: Vec::new(),
            base: None,
        }
    }

    #[test]
    fn a_fork_remembers_the_old_epoch_up_to_its_cursor() {
        let mut meta = meta();
        meta.fork(Epoch::new(2), Cursor::new(100));
        meta.fork(Epoch::new(3), Cursor::new(50));
        assert_eq!(
            meta.ancestors,
            [
                Ancestor { epoch: Epoch::new(1), cursor: Cursor::new(50) },
                Ancestor { epoch: Epoch::new(2), cursor: Cursor::new(50) }
            ]
        );
        assert!(meta.shares(Epoch::new(3), Cursor::new(1000)));
        assert!(meta.shares(Epoch::new(1), Cursor::new(50)));
        assert!(!meta.shares(Epoch::new(1), Cursor::new(51)));
        assert!(!meta.shares(Epoch::new(4), Cursor::new(1)));
    }

    #[test]
    fn what_is_written_is_read_and_every_flipped_bit_is_noticed() {
        let mut meta = meta();
        meta.fork(Epoch::new(2), Cursor::END);
        meta.base = Some(Cursor::new(17));
        let text = meta.to_text();
        assert_eq!(Meta::parse(text.as_bytes()), Some(meta));
        for at in 0..text.len() * 8 {
            let mut flipped = text.clone().into_bytes();
            flipped[at / 8] ^= 1 << (at % 8);
            // Only the case of a digit of the sum may change without a loss.
            if let Some(read) = Meta::parse(&flipped) {
                assert_eq!(read.to_text(), text);
            }
        }
    }
}
