//! The journal's interface to a disk, as one trait. The operating system's disk implements it, and a simulated one.

use super::identity::Identity;
use std::io;

/// Bytes that [`Disk::read_now`] is asked for at most.
pub const READ_NOW_MAX: usize = 512 << 10;

/// What a reader that does not wait will want next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAhead {
    /// Nothing at this offset or above: it may still be written.
    pub end: u64,
    /// So much is read that it would only take the memory of others: it is not kept.
    pub is_long: bool,
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub usize);

/// Names a submitted operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The result of a submitted operation.
#[derive(Debug)]
pub struct Completion {
    /// The operation.
    pub ticket: Ticket,
    /// For a write: how many bytes were written, perhaps fewer than there are. For a sync: 0.
    pub result: io::Result<usize>,
    /// The buffer of a write.
    pub bytes: Vec<u8>,
}

/// Files in one folder.
pub trait Disk {
    /// The files of the folder, with their lengths in bytes.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    fn names(&mut self) -> io::Result<Vec<(String, u64)>>;

    /// Makes a file, or empties it, and opens it for reading and writing.
    ///
    /// # Errors
    ///
    /// As `open(2)`.
    fn create(&mut self, name: &str) -> io::Result<FileId>;

    /// Opens a file that is there, for reading and writing where the folder may be written.
    ///
    /// # Errors
    ///
    /// As `open(2)`.
    fn open(&mut self, name: &str) -> io::Result<FileId>;

    /// Closes a file.
    fn close(&mut self, file: FileId);

    /// Gives a file another name. A file that had this name is removed.
    ///
    /// # Errors
    ///
    /// As `rename(2)`.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// As `unlink(2)`.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Sets a file's length.
    ///
    /// # Errors
    ///
    /// As `ftruncate(2)`.
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()>;

    /// Makes new, changed and removed names durable.
    ///
    /// # Errors
    ///
    /// As `fsync(2)`.
    fn sync_folder(&mut self) -> io::Result<()>;

    /// Reads into `bytes`; fewer only at the end of the file. Waits for the disk.
    ///
    /// # Errors
    ///
    /// As `pread(2)`.
    fn read_at(&mut self, file: FileId, offset: u64, bytes: &mut [u8]) -> io::Result<usize>;

    /// Reads the bytes that are in memory, and has the rest fetched, and perhaps what comes next. What has been fetched stays until
    /// a read begins behind it. So whoever asks again gets [`READ_NOW_MAX`] bytes, sooner or later.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing of it is in memory yet; else as `pread(2)`.
    fn read_now(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: &mut [u8],
        ahead: ReadAhead,
    ) -> io::Result<usize>;

    /// Writes all bytes, and waits for it.
    ///
    /// # Errors
    ///
    /// As `pwrite(2)`. Some may have been written.
    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the written bytes of a file durable, and waits for it.
    ///
    /// # Errors
    ///
    /// As `fdatasync(2)`. The contents of the disk are unknown then.
    fn sync_at_once(&mut self, file: FileId) -> io::Result<()>;

    /// Submits a write of what stands in `bytes` from `start` on. Only one at a time is in flight in a file.
    fn write(&mut self, file: FileId, offset: u64, bytes: Vec<u8>, start: usize) -> Ticket;

    /// Submits a sync, which makes the written bytes of a file durable.
    fn sync(&mut self, file: FileId) -> Ticket;

    /// The next operation that is complete.
    fn completion(&mut self) -> Option<Completion>;

    /// Milliseconds since 1970, for the age of a block.
    fn clock_ms(&mut self) -> u64;

    /// Random bits.
    ///
    /// # Errors
    ///
    /// If the operating system has none.
    fn random(&mut self) -> io::Result<u64>;

    /// The identity of the lock file, which a copy does not have.
    ///
    /// # Errors
    ///
    /// As `statx(2)`.
    fn identity(&mut self) -> io::Result<Identity>;

    /// How it writes and syncs, for the log.
    fn description(&self) -> &'static str;
}

/// Whether the error says that the disk is full: `ENOSPC` or `EDQUOT`.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
