//! Begins to write a file's pages back to the disk, without waiting for it.
//!
//! The only file of the disk with `unsafe`: no safe crate that the project uses offers `sync_file_range(2)`. The call takes a file
//! descriptor, which is borrowed from an open file, and numbers. It reads and writes no memory of this process, so no argument can
//! make it unsound.

#![expect(unsafe_code, reason = "the module's documentation says why it is sound")]

use std::{fs::File, os::fd::AsRawFd};

/// Begins to write back `len` bytes from `offset` on. It is a hint: an error has no effect.
pub(super) fn begin(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else { return };
    // SAFETY: the descriptor is open, and the call touches no memory.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}
