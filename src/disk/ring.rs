//! Reads, writes and syncs by io_uring: the kernel does them while the loop goes on.
//!
//! This is the only file with `unsafe` code for io_uring. The kernel may work on memory and files of this process because:
//!
//! - An operation's buffer is in [`Ring::under_way`] from before it is submitted until its completion has been taken. A vector that is
//!   moved leaves its bytes in place, and no other code can reach it there.
//! - Its file stays open until then, because the entry holds it.
//! - A ring that is dropped waits for the operations under way. If it cannot, it never frees their buffers.

#![expect(unsafe_code, reason = "the module's documentation says why it is sound")]

use super::{Completion, Ticket};
use io_uring::{IoUring, Probe, opcode, squeue::Entry, types};
use slab::Slab;
use std::{
    fmt,
    fs::File,
    io, mem,
    ops::Range,
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
};

/// Operations that fit: a write, a sync, one of a snapshot, and early write-backs.
const ENTRIES: u32 = 32;

/// See the [module](self).
pub(super) struct Ring {
    ring: IoUring,
    under_way: Slab<UnderWay>,
    /// Completions of operations that the kernel did not take.
    failed: Vec<Completion>,
    /// Open for as long as completions come. The kernel keeps the count of an eventfd, but a poll forgets a file that is closed.
    _waker: OwnedFd,
}

/// The operations that the kernel works on.
struct UnderWay {
    /// `None`: the result is not needed.
    ticket: Option<Ticket>,
    bytes: Vec<u8>,
    file: Rc<File>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("under_way", &self.under_way.len()).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring that signals `waker`, an eventfd, with every completion.
    ///
    /// # Errors
    ///
    /// If this system has no io_uring, or forbids it.
    pub(super) fn new(waker: OwnedFd) -> io::Result<Self> {
        let ring = IoUring::new(ENTRIES)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let needed =
            [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE, opcode::SyncFileRange::CODE];
        if !needed.into_iter().all(|code| probe.is_supported(code)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        ring.submitter().register_eventfd(waker.as_raw_fd())?;
        Ok(Self { ring, under_way: Slab::new(), failed: Vec::new(), _waker: waker })
    }

    /// Submits a write of what stands in `bytes` from `start` on.
    pub(super) fn write(
        &mut self,
        ticket: Ticket,
        file: Rc<File>,
        offset: u64,
        bytes: Vec<u8>,
        start: usize,
    ) {
        let fd = types::Fd(file.as_raw_fd());
        let to_write = &bytes[start..];
        let len = u32::try_from(to_write.len()).unwrap_or(u32::MAX);
        let entry = opcode::Write::new(fd, to_write.as_ptr(), len).offset(offset).build();
        self.submit(UnderWay { ticket: Some(ticket), bytes, file }, entry);
    }

    /// Submits a read into a part of `bytes`.
    pub(super) fn read(
        &mut self,
        ticket: Ticket,
        file: Rc<File>,
        offset: u64,
        mut bytes: Vec<u8>,
        part: Range<usize>,
    ) {
        let fd = types::Fd(file.as_raw_fd());
        let to_fill = &mut bytes[part];
        let len = u32::try_from(to_fill.len()).unwrap_or(u32::MAX);
        let entry = opcode::Read::new(fd, to_fill.as_mut_ptr(), len).offset(offset).build();
        self.submit(UnderWay { ticket: Some(ticket), bytes, file }, entry);
    }

    /// Submits that a file's data become durable.
    pub(super) fn sync(&mut self, ticket: Ticket, file: Rc<File>) {
        let flags = types::FsyncFlags::DATASYNC;
        let entry = opcode::Fsync::new(types::Fd(file.as_raw_fd())).flags(flags).build();
        self.submit(UnderWay { ticket: Some(ticket), bytes: Vec::new(), file }, entry);
    }

    /// Begins to write pages back. The result is not reported.
    pub(super) fn write_back(&mut self, file: Rc<File>, offset: u64, len: u64) {
        let Ok(len) = u32::try_from(len) else { return };
        let fd = types::Fd(file.as_raw_fd());
        let flags = libc::SYNC_FILE_RANGE_WRITE;
        let entry = opcode::SyncFileRange::new(fd, len).offset(offset).flags(flags).build();
        self.submit(UnderWay { ticket: None, bytes: Vec::new(), file }, entry);
    }

    fn submit(&mut self, work: UnderWay, entry: Entry) {
        let key = self.under_way.insert(work);
        let entry = entry.user_data(key as u64);
        // SAFETY: the buffer and the file stay in `under_way`, untouched, until the completion with this key is taken.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            // The kernel will never complete it, so dropping the ring must not wait for it.
            let ticket = self.under_way.remove(key).ticket;
            return self.fail(ticket, io::Error::other("the ring is full"));
        }
        if let Err(error) = self.enter(0) {
            // Whether the kernel has it is unknown: its buffer stays where it is.
            let ticket = self.under_way[key].ticket.take();
            self.fail(ticket, error);
        }
    }

    fn fail(&mut self, ticket: Option<Ticket>, error: io::Error) {
        self.failed.extend(ticket.map(|ticket| Completion { ticket, result: Err(error), bytes: Vec::new() }));
    }

    fn enter(&self, wait_for: usize) -> io::Result<()> {
        loop {
            match self.ring.submit_and_wait(wait_for) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                entered => return entered.map(drop),
            }
        }
    }

    /// The next operation that is complete.
    pub(super) fn completion(&mut self) -> Option<Completion> {
        if let Some(failed) = self.failed.pop() {
            return Some(failed);
        }
        loop {
            let entry = self.ring.completion().next()?;
            let UnderWay { ticket, bytes, file } = self.under_way.remove(entry.user_data() as usize);
            drop(file);
            let Some(ticket) = ticket else { continue };
            let result =
                usize::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()));
            return Some(Completion { ticket, result, bytes });
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while !self.under_way.is_empty() {
            if self.enter(1).is_err() {
                mem::forget(mem::take(&mut self.under_way));
                return;
            }
            while self.completion().is_some() {}
        }
    }
}
