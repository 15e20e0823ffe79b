//! A descriptor that is kept for the admin interface, so that it answers where there are none left (SPEC section 6).

use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};
use std::{io, os::fd::OwnedFd};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Reserve {
    is_wanted: bool,
    kept: Option<OwnedFd>,
}

impl Reserve {
    /// Nothing is kept where there is no admin interface.
    pub(super) fn new(is_wanted: bool) -> Self {
        Self { is_wanted, kept: None }
    }

    /// Keeps a descriptor, if none is kept.
    ///
    /// # Errors
    ///
    /// If there is none: then nobody else may have the next one.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        if self.is_wanted && self.kept.is_none() {
            // It needs no file: an empty root directory has not even /dev/null.
            self.kept = Some(eventfd(0, EventfdFlags::CLOEXEC)?);
        }
        Ok(())
    }

    /// Accepts for the admin interface.
    pub(super) fn accept<T>(&mut self, mut accept: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        // If it cannot be had now, it can be when a connection of the admin interface has been closed.
        let _ = self.fill();
        match accept() {
            Err(error) if is_out_of_descriptors(&error) && self.kept.take().is_some() => accept(),
            outcome => outcome,
        }
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
