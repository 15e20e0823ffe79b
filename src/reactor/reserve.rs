//! Descriptors that sources and users may not have, so that those who are connected are served where there are none left
//! (SPEC section 5), and health checks are answered (section 6).
//!
//! The operating system gives the lowest number that is free. So the highest numbers below the limit are free for everybody else if
//! no connection gets one of them: the journal opens a file now and then, the log is connected to again, certificates are read again.
//! Nothing is held, and nothing has to be given back.

use crate::config::Config;
use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    process::{Resource, getrlimit},
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// What any server may open later: a connection to the log or to its server, a file of certificates, a folder of the system.
const FOR_ALL: u64 = 2;
/// The segment that is written to and those that are synced, a snapshot that is written and one that is read, a segment that is read:
/// each also for what is not copied; their folder.
const FOR_JOURNAL: u64 = 28;
/// Connections to the admin interface that need not wait for others.
const FOR_ADMIN: u64 = 4;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Reserve {
    from_admin: u64,
    from_clients: u64,
}

impl Reserve {
    pub(super) fn new(config: &Config) -> Self {
        let for_journal = if config.journal_directory.is_some() { FOR_JOURNAL } else { 0 };
        let for_admin = if config.admin_port.is_some() { FOR_ADMIN } else { 0 };
        let from_admin = FOR_ALL + for_journal;
        Self { from_admin, from_clients: from_admin + for_admin }
    }

    /// Whether the admin interface may have another connection. `any` is any open descriptor.
    ///
    /// # Errors
    ///
    /// As accept(2) where descriptors have run out: if the next one is kept for others, or there is none.
    pub(super) fn admit_admin(&self, any: impl AsFd) -> io::Result<()> {
        has_below(self.from_admin, any)
    }

    /// Whether a source, a user or a stream's client may have another connection. `any` is any open descriptor.
    ///
    /// # Errors
    ///
    /// As [`Reserve::admit_admin`].
    pub(super) fn admit_client(&self, any: impl AsFd) -> io::Result<()> {
        has_below(self.from_clients, any)
    }
}

/// Whether the next descriptor is none of the last `kept`. They are no more than half of all: with a low limit, too, somebody is
/// served.
fn has_below(kept: u64, any: impl AsFd) -> io::Result<()> {
    let next = fcntl_dupfd_cloexec(any, 0)?.as_raw_fd();
    match getrlimit(Resource::Nofile).current {
        Some(limit) if next as u64 >= limit - kept.min(limit / 2) => Err(Errno::MFILE.into()),
        _ => Ok(()),
    }
}
