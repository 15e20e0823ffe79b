//! A folder of the operating system.
//!
//! With io_uring the kernel does submitted operations while the loop goes on ([`RealDisk::submit_to_a_ring`]). Elsewhere
//! `pwrite(2)` and `fdatasync(2)` do it at once.
//!
//! After every [`WRITEBACK_BYTES`] it begins to write pages back, so that a sync has little left to do.
//!
//! With a ring, a large write that begins and ends at pages, in memory and in the file, goes to the disk without being copied
//! (`O_DIRECT`), where the file system can do that. At full load that copy, into new pages, cost more than all the rest of
//! appending. So does a read that does not wait, if it is a part of a long one, and does not find its bytes in memory ([`Ahead`]).

use super::{
    Completion, Disk, FileId, Identity, ReadAhead, Ticket,
    ahead::{Ahead, CHUNK_BYTES, PAGE, Wanted},
    ring::Ring,
};
use rustix::{
    fs::{Advice, AtFlags, CWD, FlockOperation, OFlags, StatxFlags, fadvise, flock, statx},
    io::{Errno, ReadWriteFlags, preadv2},
    rand::{GetRandomFlags, getrandom},
};
use slab::Slab;
use std::{
    collections::VecDeque,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, IoSliceMut},
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Bytes after which writing back begins.
const WRITEBACK_BYTES: u64 = 1 << 20;
/// Bytes that are fetched ahead of a reader.
const READ_AHEAD_BYTES: u64 = 1 << 20;
/// A write is large, and worth waiting for the disk itself, from so many bytes on.
const DIRECT_BYTES: usize = 256 << 10;
/// The file that is locked by the process that may write to the folder.
const LOCK: &str = "journal.lock";

/// See the [module](self).
#[derive(Debug)]
pub struct RealDisk {
    folder: PathBuf,
    files: Slab<Open>,
    /// Held for as long as it is open.
    lock: Option<File>,
    completions: VecDeque<Completion>,
    tickets: u64,
    ring: Option<Ring>,
    /// The write under way that is not copied.
    direct: Option<DirectWrite>,
    /// The reads under way, and where in its buffer each has its bytes.
    fetching: Vec<(Ticket, FileId, usize)>,
}

/// A write that is not copied, and where to repeat it from if the file system refuses it.
#[derive(Clone, Copy, Debug)]
struct DirectWrite {
    ticket: Ticket,
    file: FileId,
    offset: u64,
    start: usize,
}

/// The same file for reads and writes that are not copied.
#[derive(Debug)]
enum Direct {
    /// Nobody has asked yet. The name that it was opened with.
    Unknown(String),
    Impossible,
    Open(Rc<File>),
}

#[derive(Debug)]
struct Open {
    file: Rc<File>,
    /// Which file it is, whatever its name. 0: the system does not tell.
    inode: u64,
    is_written_to: bool,
    direct: Direct,
    /// The end of the bytes whose write-back has begun, and the end of all bytes.
    written_back: u64,
    written: u64,
    ahead: Ahead,
}

/// Why a folder cannot be used.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it.
    Locked,
    /// The operating system refuses an operation, for a reason.
    System(&'static str, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("another process is using it; one server may use a folder"),
            Self::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl RealDisk {
    /// A folder that this process alone may write to. The folder and its lock file are made if they are not there.
    ///
    /// # Errors
    ///
    /// If another process has it, or the operating system refuses.
    pub fn lock(folder: &Path) -> Result<Self, OpenError> {
        let system = |what| move |error| OpenError::System(what, error);
        fs::create_dir_all(folder).map_err(system("cannot make the folder"))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(folder.join(LOCK))
            .map_err(system("cannot open its file journal.lock for writing"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(OpenError::Locked),
            Err(error) => return Err(OpenError::System("cannot lock its file journal.lock", error.into())),
        }
        Ok(Self { lock: Some(lock), ..Self::unlocked(folder) })
    }

    /// A folder that is only read, perhaps beside a server that writes to it.
    ///
    /// # Errors
    ///
    /// If it is no folder or cannot be read.
    pub fn read_only(folder: &Path) -> Result<Self, OpenError> {
        fs::read_dir(folder).map_err(|error| OpenError::System("cannot read the folder", error))?;
        Ok(Self::unlocked(folder))
    }

    fn unlocked(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            files: Slab::new(),
            lock: None,
            completions: VecDeque::new(),
            tickets: 0,
            ring: None,
            direct: None,
            fetching: Vec::new(),
        }
    }

    /// From now on the kernel does submitted operations while the loop goes on. It signals completions on `waker`, an eventfd.
    ///
    /// # Errors
    ///
    /// If this system has no io_uring, or forbids it. Then operations are done at once.
    pub fn submit_to_a_ring(&mut self, waker: OwnedFd) -> io::Result<()> {
        self.ring = Some(Ring::new(waker)?);
        Ok(())
    }

    /// Whether another process holds the folder's lock.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        let Ok(lock) = File::open(self.folder.join(LOCK)) else { return false };
        flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    }

    fn add(&mut self, name: &str, file: File) -> FileId {
        let direct = Direct::Unknown(name.to_owned());
        FileId(self.files.insert(Open {
            inode: file.metadata().map_or(0, |metadata| metadata.ino()),
            is_written_to: false,
            file: Rc::new(file),
            direct,
            written_back: 0,
            written: 0,
            ahead: Ahead::default(),
        }))
    }

    /// The file for reads and writes that are not copied, if there can be any.
    fn direct(&mut self, file: FileId) -> Option<Rc<File>> {
        self.ring.as_ref()?;
        let direct = &mut self.files[file.0].direct;
        if let Direct::Unknown(name) = direct {
            let flags = OFlags::DIRECT.bits() as i32;
            let mut options = OpenOptions::new();
            let options = options.read(true).write(self.lock.is_some()).custom_flags(flags);
            let opened = options.open(self.folder.join(name));
            *direct = opened.map_or(Direct::Impossible, |file| Direct::Open(Rc::new(file)));
        }
        match direct {
            Direct::Open(file) => Some(Rc::clone(file)),
            Direct::Unknown(_) | Direct::Impossible => None,
        }
    }

    /// The file to write this to without copying it, if that is possible and worth it.
    fn direct_for(&mut self, file: FileId, offset: u64, to_write: &[u8]) -> Option<Rc<File>> {
        let is_aligned = offset.is_multiple_of(PAGE as u64)
            && to_write.len().is_multiple_of(PAGE)
            && to_write.as_ptr().align_offset(PAGE) == 0;
        if to_write.len() < DIRECT_BYTES || !is_aligned {
            return None;
        }
        self.direct(file)
    }

    /// Whether somebody has this file open who has written to it.
    fn is_being_written(&self, file: FileId) -> bool {
        let inode = self.files[file.0].inode;
        self.files.iter().any(|(_, open)| open.inode == inode && open.is_written_to)
    }

    /// Has what stands below `end` fetched: from this offset on, or behind what has been fetched. False: it cannot be done so. A file
    /// that is being written to is read through the page cache: such a read waits for its dirty pages, with the file locked,
    /// and so do writes.
    fn fetch(&mut self, file: FileId, offset: u64, end: u64) -> bool {
        if self.is_being_written(file) {
            return false;
        }
        let Some(direct) = self.direct(file) else { return false };
        while let Some(Wanted { offset, bytes, start }) = self.files[file.0].ahead.wanted(offset, end) {
            let ticket = self.ticket();
            let Some(ring) = &mut self.ring else { return false };
            ring.read(ticket, Rc::clone(&direct), offset, bytes, start..start + CHUNK_BYTES);
            self.fetching.push((ticket, file, start));
            self.files[file.0].ahead.note_fetching(offset, end, ticket);
        }
        true
    }

    /// Takes what has been fetched. A file system that opens a file for such reads may still refuse one, or the disk fails: then it
    /// is read in the other way, which says why.
    fn take_fetched(&mut self, completion: Completion) -> Option<Completion> {
        let Some(index) = self.fetching.iter().position(|(ticket, ..)| *ticket == completion.ticket) else {
            return Some(completion);
        };
        let (ticket, file, start) = self.fetching.swap_remove(index);
        // The file may have been closed, and its number given to another.
        if let Some(open) = self.files.get_mut(file.0) {
            let len = completion.result.unwrap_or(0);
            if open.ahead.arrived(ticket, len, completion.bytes, start) && len == 0 {
                open.direct = Direct::Impossible;
            }
        }
        None
    }

    /// A file system that opens a file for such writes may still refuse one: then it is copied, this one and all that come.
    fn repeat_refused(&mut self, completion: Completion) -> Option<Completion> {
        let Some(DirectWrite { ticket, file, offset, start }) =
            self.direct.take_if(|direct| direct.ticket == completion.ticket)
        else {
            return Some(completion);
        };
        let is_refused =
            completion.result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput);
        match &mut self.ring {
            Some(ring) if is_refused => {
                let open = &mut self.files[file.0];
                open.direct = Direct::Impossible;
                ring.write(ticket, Rc::clone(&open.file), offset, completion.bytes, start);
                None
            }
            _ => Some(completion),
        }
    }

    fn file(&self, file: FileId) -> &File {
        &self.files[file.0].file
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Begins to write pages back, if there are enough.
    fn write_back(&mut self, file: FileId, end: u64) {
        let open = &mut self.files[file.0];
        open.is_written_to = true;
        open.written = open.written.max(end);
        let begin = open.written_back.min(end);
        if open.written - begin >= WRITEBACK_BYTES {
            match &mut self.ring {
                Some(ring) => ring.write_back(Rc::clone(&open.file), begin, open.written - begin),
                None => super::writeback::begin(&open.file, begin, open.written - begin),
            }
            open.written_back = open.written;
        }
    }
}

impl Disk for RealDisk {
    fn names(&mut self) -> io::Result<Vec<(String, u64)>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => names.push((name, metadata.len())),
                // It was removed meanwhile, or is no file.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&mut self, name: &str) -> io::Result<FileId> {
        let path = self.folder.join(name);
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        Ok(self.add(name, file))
    }

    fn open(&mut self, name: &str) -> io::Result<FileId> {
        let file = OpenOptions::new().read(true).write(self.lock.is_some()).open(self.folder.join(name))?;
        Ok(self.add(name, file))
    }

    fn close(&mut self, file: FileId) {
        self.files.remove(file.0);
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.file(file).set_len(len)
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn read_at(&mut self, file: FileId, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file(file).read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn read_now(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: &mut [u8],
        ahead: ReadAhead,
    ) -> io::Result<usize> {
        if let Some(read) = self.files[file.0].ahead.read(offset, bytes) {
            self.fetch(file, offset, ahead.end);
            return read;
        }
        let len = bytes.len() as u64;
        let mut slices = [IoSliceMut::new(bytes)];
        match preadv2(self.file(file), &mut slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read),
            Err(Errno::AGAIN) => {
                if !(ahead.is_long && self.fetch(file, offset, ahead.end)) {
                    let ahead = std::num::NonZeroU64::new(len.max(READ_AHEAD_BYTES));
                    fadvise(self.file(file), offset, ahead, Advice::WillNeed)?;
                }
                Err(io::ErrorKind::WouldBlock.into())
            }
            // A file system that cannot tell, or a signal.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => {
                let [bytes] = slices;
                self.file(file).read_at(&mut { bytes }, offset)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(file).write_all_at(bytes, offset)?;
        self.write_back(file, offset + bytes.len() as u64);
        Ok(())
    }

    fn sync_at_once(&mut self, file: FileId) -> io::Result<()> {
        self.file(file).sync_data()
    }

    fn write(&mut self, file: FileId, offset: u64, bytes: Vec<u8>, start: usize) -> Ticket {
        let ticket = self.ticket();
        let direct = self.direct_for(file, offset, &bytes[start..]);
        if self.ring.is_some() {
            // Everything before it is complete.
            self.write_back(file, offset);
        }
        if let Some(ring) = &mut self.ring {
            let open = &mut self.files[file.0];
            if direct.is_some() {
                self.direct = Some(DirectWrite { ticket, file, offset, start });
                // Nothing of it will have to be written back.
                open.written = offset + (bytes.len() - start) as u64;
                open.written_back = open.written;
            }
            let target = direct.unwrap_or_else(|| Rc::clone(&open.file));
            ring.write(ticket, target, offset, bytes, start);
            return ticket;
        }
        let result = loop {
            match self.file(file).write_at(&bytes[start..], offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        if let Ok(written) = result {
            self.write_back(file, offset + written as u64);
        }
        self.completions.push_back(Completion { ticket, result, bytes });
        ticket
    }

    fn sync(&mut self, file: FileId) -> Ticket {
        let ticket = self.ticket();
        if let Some(ring) = &mut self.ring {
            ring.sync(ticket, Rc::clone(&self.files[file.0].file));
            return ticket;
        }
        let result = self.file(file).sync_data().map(|()| 0);
        self.completions.push_back(Completion { ticket, result, bytes: Vec::new() });
        ticket
    }

    fn completion(&mut self) -> Option<Completion> {
        if let Some(completion) = self.completions.pop_front() {
            return Some(completion);
        }
        loop {
            let completion = self.ring.as_mut()?.completion()?;
            let completion = self.take_fetched(completion).and_then(|other| self.repeat_refused(other));
            if completion.is_some() {
                return completion;
            }
        }
    }

    fn clock_ms(&mut self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
    }

    fn random(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn identity(&mut self) -> io::Result<Identity> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let path = self.folder.join(LOCK);
        let found = statx(CWD, path, AtFlags::empty(), wanted)?;
        let has_birth = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        let birth = has_birth
            .then(|| found.stx_btime.tv_sec as u64 * 1_000_000_000 + u64::from(found.stx_btime.tv_nsec));
        Ok(Identity { inode: found.stx_ino, birth })
    }

    fn description(&self) -> &'static str {
        match self.ring {
            Some(_) => "io_uring",
            None => "pwrite and fdatasync, writing back early",
        }
    }
}
