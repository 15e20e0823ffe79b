//! The journal's interface to the world: files in one folder, as one trait with two implementations.
//!
//! [`RealDisk`] is a folder of the operating system, the simulator's is one that loses, tears, refuses and is slow.
//!
//! Two kinds of operations. *At run time*, [`Disk::write`] and [`Disk::sync`] are submitted and completed later: what they came to is
//! fetched with [`Disk::completion`]. A disk that works at once has the completion ready when the call returns.
//! *At the start, in tools, and for metadata*, operations wait for the disk.
//!
//! What has been written survives the end of the process. What has been written *and then synced* survives the end of the machine. A new
//! name, a rename and a removal survive it after [`Disk::sync_folder`].

mod ahead;
mod device;
mod identity;
mod real;
mod ring;
mod writeback;

pub use device::{Completion, Disk, FileId, READ_NOW_MAX, ReadAhead, Ticket, is_full};
pub use identity::Identity;
pub use real::{OpenError, RealDisk};
