//! The journal: every released event is on disk before a user is sent it (docs/SPEC.md section 8).
//!
//! Pure, like the engine: no file descriptor and no clock. Its caller gives it a [`Disk`](crate::disk::Disk) and the time.
//!
//! # Files
//!
//! | file | what it is | module |
//! | --- | --- | --- |
//! | `journal.lock` | locked by the process that may write; its inode and birth tell the folder from a copy | [`disk`](crate::disk) |
//! | `stream.place` | at an edge of NATS: its place in the log, not above the durable cursor of the journal | `log::note` |
//! | `journal.meta` | id, epoch, older epochs, identity of the lock file; replaced as a whole | [`meta`] |
//! | `FIRST.fnj` | a segment: a header, then blocks | [`segment`], [`block`] |
//! | `spare.fnj` | a segment that has gone; the next one is written over it | [`segment`] |
//! | `A-B.fns` | a snapshot of the follow graph | [`snapshot`] |
//!
//! FIRST, A and B are cursors with 20 digits. A *position* counts the bytes of all segments since the journal was made. The hash of
//! a block is seeded with the journal's id and the position. It covers the hash of the block before. So it proves that the block is whole,
//! stands in its place, and follows the right blocks.
//!
//! # Life of a block
//!
//! 1. [`Log::append`] takes the events that were released in a turn. The block is *pending*: the barrier is closed.
//! 2. Its write is complete: it is *appended*, and survives the end of the process. With `interval` and `never` the barrier opens: users
//!    receive the events.
//! 3. A sync that began after that is complete: it is *durable*, and survives the end of the machine. With `always` the barrier opens now.
//!    Durable events are acknowledged to sources.
//!
//! One block is in flight at a time. While the barrier is closed, sources are not read. So memory does not grow.
//!
//! # Ends of the process and of the machine
//!
//! | at this moment | the next start |
//! | --- | --- |
//! | the process, before a write is complete | the written part of the block is a torn tail, and is cut; no user was sent any of it |
//! | the process, later | finds the block |
//! | the machine, before a sync is complete | finds a prefix of the bytes that were not synced; the rest is a torn tail |
//! | either, while a segment is made | the new file has no whole header, or is not there: it is removed, and made again |
//! | either, while a snapshot is written | a temporary file, which is removed |
//! | either, while a segment is removed | it is there or not: the journal begins at the oldest segment |
//! | either, while the torn tail is cut | cuts it again: nothing is appended before the cut is durable |
//! | either, while `journal.meta` is replaced | finds the old one or the new one |
//!
//! An edge whose place in its stream is gone starts its journal again, with a new id: see `log/founding.rs`.
//!
//! # Torn tail or damage
//!
//! Pages that were not synced reach the disk in any order, so a bad block may be followed by a good one after a power cut. Each block and
//! each segment header carries a *mark*: the position up to which the journal was durable when it was written. A bad block above every
//! mark that can be read is the torn tail. A bad block below a mark is damage, and the server refuses to start ([`recover`]).
//!
//! # Limits
//!
//! Memory: one block in flight, and one that is being filled (the events of a turn: 16 MiB at most). For each reader a window of 256 KiB,
//! or a block. With `always` 1.25 MiB for a block with room behind it. One piece of a snapshot. Reading a file never takes more memory
//! than the file has bytes, even if the file is damaged.
//!
//! Disk: `journalRetentionBytes`, one segment more, one segment to be recycled, and one snapshot that is being written. With `always`
//! the last segment has up to 1 MiB of room for more blocks. The files that the next start needs are kept in any case.

#![forbid(unsafe_code)]

pub mod block;
mod catalog;
mod error;
mod log;
pub mod meta;
mod number;
mod reader;
pub mod recover;
mod scan;
mod segment;
mod settings;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod tools;
mod waiting;
mod walk;

pub(crate) use block::PAGE;
pub use catalog::Start;
pub use error::{Ended, JournalError};
pub use log::Log;
pub use reader::{Read, Reader};
pub use recover::{Recovered, Report, Step, open};
pub use settings::{Opening, Settings, SyncMode};
pub use snapshot::SnapshotInfo;
pub(crate) use snapshot::{SnapshotRead, SnapshotReader};
pub use waiting::{Waiting, WaitingLines};
