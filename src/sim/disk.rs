//! A simulated disk: a folder that loses, tears, refuses and is slow, the same way for the same seed.
//!
//! A [`SimFolder`] outlives a server. [`SimFolder::end_process`] keeps all written bytes.
//! [`SimFolder::end_machine`] keeps synced bytes and any part of the others: such writes reach the disk whole, in sectors, or
//! not at all, in any order. The same holds for names of the folder. A [`SimDisk`] is one server's view of the folder.
//!
//! A submitted write or sync takes effect when it is complete. An operation that is under way when the process ends takes effect, or in part, or not at all.

use crate::{
    disk::{Completion, Disk, FileId, Identity, ReadAhead, Ticket},
    time::Micros,
};
use slab::Slab;
use std::{
    cell::{RefCell, RefMut},
    collections::{BTreeMap, VecDeque},
    io,
    panic::resume_unwind,
    rc::Rc,
};

/// Bytes that are fetched at once for a reader that does not wait.
const AHEAD_BYTES: u64 = 16 << 10;
/// The unit that the disk writes as a whole or not at all.
const SECTOR: usize = 512;

/// The faults of the disk. Probabilities are of one in 2^16.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFaults {
    /// A submitted write is cut short.
    pub short_write: u16,
    /// Bytes that fit before the disk is full. `None`: no limit.
    pub room: Option<u64>,
    /// A write fails (`EIO`).
    pub write_error: u16,
    /// A sync fails (`EIO`).
    pub sync_error: u16,
    /// Opening or making a file fails (`EIO`).
    pub open_error: u16,
    /// A rename fails (`EIO`).
    pub rename_error: u16,
    /// What a reader that does not wait asks for is not in memory yet: it is told to come back.
    pub not_in_memory: u16,
    /// Bytes that a reader which does not wait gets in a second, at most. `None`: no limit.
    pub read_rate: Option<u64>,
    /// How long a submitted operation takes at most, in microseconds. 0: it is complete at once.
    pub delay_max: Micros,
    /// After this number of operations that change something, the process ends in the middle of the next one.
    pub ends_after: Option<u64>,
}

/// The panic payload when [`DiskFaults::ends_after`] ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessEnd;

/// Counts of what has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Writes that were cut short.
    pub short_writes: u64,
    /// Writes that found no room.
    pub full: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Syncs that failed.
    pub sync_errors: u64,
    /// Files that could not be opened or made.
    pub open_errors: u64,
    /// Renames that failed.
    pub rename_errors: u64,
    /// Processes that ended in the middle of an operation.
    pub ends: u64,
    /// Readers that were told to come back.
    pub not_in_memory: u64,
    /// Operations that were complete later.
    pub slow: u64,
    /// Writes that a machine lost, or kept in parts.
    pub lost: u64,
    /// Writes that a machine kept only partly.
    pub torn: u64,
    /// Changes of names that a machine lost.
    pub lost_names: u64,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The contents that the process sees.
    bytes: Vec<u8>,
    /// The contents that certainly survive the end of the machine.
    durable: Vec<u8>,
    /// The changes since the last sync, each with its number.
    unsynced: Vec<(u64, Change)>,
    changes: u64,
}

impl Node {
    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.bytes);
        self.unsynced.push((self.changes, change));
        self.changes += 1;
    }

    /// Makes this number of the first changes durable.
    fn sync(&mut self, changes: u64) {
        let later = self.unsynced.partition_point(|&(number, _)| number < changes);
        for (_, change) in self.unsynced.drain(..later) {
            change.apply(&mut self.durable);
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(self, file: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => write_into(file, offset, &bytes),
            Self::Length(len) => file.resize(len, 0),
        }
    }
}

/// A submitted operation.
#[derive(Debug)]
struct Submitted {
    at: Micros,
    ticket: Ticket,
    node: usize,
    /// Whether its completion has been reported.
    is_told: bool,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Of these bytes `len` from `start` on are written at an offset.
    Write { offset: u64, start: usize, len: usize, bytes: Vec<u8> },
    /// The first so many changes are made durable.
    Sync(u64),
    /// It fails, and gives a buffer back.
    Fail(Vec<u8>),
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(String, usize),
    Remove(String),
    Rename(String, String),
}

/// The folder itself, shared between the lives of a server.
#[derive(Clone, Debug, Default)]
pub struct SimFolder(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    faults: DiskFaults,
    counts: DiskCounts,
    submitted: VecDeque<Submitted>,
    dice: u64,
    now: Micros,
    /// When the next bytes that are read arrive, if there is a limit to them.
    reads_at: Micros,
}

impl Inner {
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.dice;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn happens(&mut self, probability: u16) -> bool {
        probability > 0 && self.roll() as u16 <= probability
    }

    /// An error, with the probability of its kind.
    fn fail(&mut self, kind: ErrorOf) -> io::Result<()> {
        let faults = self.faults;
        let probability = match kind {
            ErrorOf::Write => faults.write_error,
            ErrorOf::Sync => faults.sync_error,
            ErrorOf::Open => faults.open_error,
            ErrorOf::Rename => faults.rename_error,
        };
        if !self.happens(probability) {
            return Ok(());
        }
        let count = match kind {
            ErrorOf::Write => &mut self.counts.write_errors,
            ErrorOf::Sync => &mut self.counts.sync_errors,
            ErrorOf::Open => &mut self.counts.open_errors,
            ErrorOf::Rename => &mut self.counts.rename_errors,
        };
        *count += 1;
        Err(io::Error::other("simulated input/output error"))
    }

    fn write(&mut self, node: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = offset as usize;
        let grows = (offset + bytes.len()).saturating_sub(self.nodes[node].bytes.len()) as u64;
        if self.faults.room.is_some_and(|room| room < grows) {
            self.counts.full += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.faults.room = self.faults.room.map(|room| room - grows);
        self.nodes[node].change(Change::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.sync(node.changes);
    }

    /// Gives a submitted operation its effect.
    fn work(&mut self, submitted: Submitted) -> Completion {
        let Submitted { ticket, node, work, .. } = submitted;
        let (result, bytes) = match work {
            Work::Write { offset, start, len, bytes } => {
                (self.write(node, offset, &bytes[start..start + len]).map(|()| len), bytes)
            }
            Work::Sync(changes) => {
                self.nodes[node].sync(changes);
                (Ok(0), Vec::new())
            }
            Work::Fail(bytes) => (Err(io::Error::other("simulated input/output error")), bytes),
        };
        Completion { ticket, result, bytes }
    }

    fn lose(&mut self) {
        for index in 0..self.nodes.len() {
            let changes = std::mem::take(&mut self.nodes[index].unsynced);
            let mut kept = std::mem::take(&mut self.nodes[index].durable);
            // Any order: the pages of one write may come before those of an older one.
            for (_, change) in changes {
                match (change, self.roll() % 4) {
                    (Change::Length(len), 0 | 1) => kept.resize(len, 0),
                    (Change::Write(offset, bytes), 0) => write_into(&mut kept, offset, &bytes),
                    (Change::Write(offset, bytes), 1) => {
                        self.counts.torn += 1;
                        self.tear(&mut kept, offset, &bytes);
                    }
                    _ => self.counts.lost += 1,
                }
            }
            self.nodes[index].bytes.clone_from(&kept);
            self.nodes[index].durable = kept;
        }
        let mut names = std::mem::take(&mut self.durable_names);
        for change in std::mem::take(&mut self.unsynced_names) {
            if self.roll() & 1 == 0 {
                self.counts.lost_names += 1;
                continue;
            }
            apply(&mut names, change);
        }
        self.durable_names.clone_from(&names);
        self.names = names;
    }

    /// Keeps some sectors of a write.
    fn tear(&mut self, kept: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + SECTOR - (offset + at) % SECTOR).min(bytes.len());
            if self.roll() & 1 == 0 {
                write_into(kept, offset + at, &bytes[at..end]);
            }
            at = end;
        }
    }
}

fn write_into(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn apply(names: &mut BTreeMap<String, usize>, change: NameChange) {
    match change {
        NameChange::Add(name, node) => {
            names.insert(name, node);
        }
        NameChange::Remove(name) => {
            names.remove(&name);
        }
        NameChange::Rename(from, to) => {
            if let Some(node) = names.remove(&from) {
                names.insert(to, node);
            }
        }
    }
}

impl SimFolder {
    /// An empty folder, whose random choices are drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let folder = Self::default();
        folder.inner().dice = seed;
        folder
    }

    fn inner(&self) -> RefMut<'_, Inner> {
        self.0.borrow_mut()
    }

    /// A server's view of it.
    #[must_use]
    pub fn disk(&self) -> SimDisk {
        SimDisk { folder: self.clone(), files: Slab::new(), tickets: 0, is_observer: false, fetched: None }
    }

    /// A view of it for observers: no operation fails there.
    #[must_use]
    pub fn observer(&self) -> SimDisk {
        SimDisk { is_observer: true, ..self.disk() }
    }

    /// A new folder with the contents that a reader of this one sees now. All of them are durable there.
    #[must_use]
    pub fn copy(&self) -> Self {
        let inner = self.inner();
        let mut nodes = inner.nodes.clone();
        for node in &mut nodes {
            node.durable.clone_from(&node.bytes);
            node.unsynced.clear();
        }
        let names = inner.names.clone();
        let copy = Inner { nodes, durable_names: names.clone(), names, dice: inner.dice, ..Inner::default() };
        Self(Rc::new(RefCell::new(copy)))
    }

    /// The faults from now on.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.inner().faults = faults;
    }

    /// The time.
    pub fn set_now(&self, now: Micros) {
        self.inner().now = now;
    }

    /// Counts of what has happened.
    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        self.inner().counts
    }

    /// When the next submitted operation completes whose completion has not been reported.
    #[must_use]
    pub fn next_completion(&self) -> Option<Micros> {
        let inner = self.inner();
        inner.submitted.iter().find(|submitted| !submitted.is_told).map(|submitted| submitted.at)
    }

    /// Whether there is a completion that has not been reported.
    pub fn tell(&self) -> bool {
        let mut inner = self.inner();
        let now = inner.now;
        let due = |submitted: &&mut Submitted| submitted.at <= now && !submitted.is_told;
        let news = inner.submitted.iter_mut().filter(due).map(|submitted| submitted.is_told = true);
        news.count() > 0
    }

    /// The process has ended: completed writes are kept, and any part of the writes under way.
    pub fn end_process(&self) {
        let mut inner = self.inner();
        inner.faults = DiskFaults::default();
        for mut submitted in std::mem::take(&mut inner.submitted) {
            if let Work::Write { len, .. } = &mut submitted.work {
                *len = inner.roll() as usize % (*len + 1);
            }
            if inner.roll() & 1 == 0 {
                inner.work(submitted);
            }
        }
    }

    /// The machine has ended: any part of the bytes that were not synced is kept.
    pub fn end_machine(&self) {
        self.end_process();
        self.inner().lose();
    }

    /// The files and their lengths.
    #[must_use]
    pub fn names(&self) -> Vec<(String, u64)> {
        let inner = self.inner();
        inner.names.iter().map(|(name, &node)| (name.clone(), inner.nodes[node].bytes.len() as u64)).collect()
    }

    /// Flips a bit of a file, durably.
    pub fn flip(&self, name: &str, bit: u64) {
        let mut inner = self.inner();
        let Some(&node) = inner.names.get(name) else { return };
        let node = &mut inner.nodes[node];
        node.bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        node.durable.clone_from(&node.bytes);
    }
}

/// An operation that may fail.
#[derive(Clone, Copy, Debug)]
enum ErrorOf {
    Write,
    Sync,
    Open,
    Rename,
}

/// One server's view of a [`SimFolder`].
#[derive(Debug)]
pub struct SimDisk {
    folder: SimFolder,
    /// The node of each open file.
    files: Slab<usize>,
    tickets: u64,
    /// No operation fails.
    is_observer: bool,
    /// What has been fetched ahead of a reader: the file, from which offset on, and the bytes as they were then.
    fetched: Option<(FileId, usize, Vec<u8>)>,
}

impl SimDisk {
    fn add(&mut self, node: usize) -> FileId {
        FileId(self.files.insert(node))
    }

    fn fail(&self, kind: ErrorOf) -> io::Result<()> {
        if self.is_observer { Ok(()) } else { self.folder.inner().fail(kind) }
    }

    /// Notes a change. Returns how many of `len` bytes are changed before the process ends, if it ends here.
    fn ends_now(&self, len: usize) -> Option<usize> {
        let mut inner = self.folder.inner();
        let left = inner.faults.ends_after.as_mut()?;
        if *left > 0 {
            *left -= 1;
            return None;
        }
        inner.counts.ends += 1;
        Some(inner.roll() as usize % (len + 1))
    }

    /// An operation that happens whole or not at all.
    fn may_end(&self) {
        if self.ends_now(0).is_some() {
            resume_unwind(Box::new(ProcessEnd));
        }
    }

    /// Fetches what stands from this offset on, up to `end`, and a part of what is being written there. What is written later is not
    /// seen by the reader.
    fn fetch_ahead(&mut self, file: FileId, offset: u64, end: u64) {
        let (node, inner) = (self.files[file.0], self.folder.inner());
        let mut bytes = inner.nodes[node].bytes.clone();
        for submitted in inner.submitted.iter().filter(|submitted| submitted.node == node) {
            if let Work::Write { offset, start, len, bytes: written } = &submitted.work {
                write_into(&mut bytes, *offset as usize, &written[*start..start + len / 2]);
            }
        }
        let to = end.min(offset.saturating_add(AHEAD_BYTES)).min(bytes.len() as u64) as usize;
        bytes.truncate(to);
        drop(inner);
        self.fetched = Some((file, offset as usize, bytes.split_off(to.min(offset as usize))));
    }

    /// Reads what has been fetched, if it has this offset.
    fn read_fetched(&self, file: FileId, offset: u64, bytes: &mut [u8]) -> Option<usize> {
        let (_, from, fetched) = self.fetched.as_ref().filter(|(of, ..)| *of == file)?;
        let rest = fetched.get((offset as usize).checked_sub(*from)?..).filter(|rest| !rest.is_empty())?;
        let len = rest.len().min(bytes.len());
        bytes[..len].copy_from_slice(&rest[..len]);
        Some(len)
    }

    /// Reads what has arrived. What was read last took its time.
    fn read_slowly(&mut self, file: FileId, offset: u64, bytes: &mut [u8], rate: u64) -> io::Result<usize> {
        let now = {
            let inner = self.folder.inner();
            if inner.reads_at > inner.now {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            inner.now
        };
        let read = self.read_at(file, offset, bytes)?;
        self.folder.inner().reads_at = now + read as Micros * 1_000_000 / rate;
        Ok(read)
    }

    fn submit(&mut self, node: usize, work: Work) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let mut inner = self.folder.inner();
        let mut at = inner.now;
        if inner.faults.delay_max > 0 {
            at += 1 + inner.roll() % inner.faults.delay_max;
            inner.counts.slow += 1;
        }
        // They complete in their order.
        at = at.max(inner.submitted.back().map_or(0, |submitted| submitted.at));
        inner.submitted.push_back(Submitted { at, ticket, node, is_told: false, work });
        ticket
    }
}

impl Disk for SimDisk {
    fn names(&mut self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.folder.names())
    }

    fn create(&mut self, name: &str) -> io::Result<FileId> {
        self.may_end();
        self.fail(ErrorOf::Open)?;
        let node = {
            let mut inner = self.folder.inner();
            inner.nodes.push(Node::default());
            let node = inner.nodes.len() - 1;
            inner.names.insert(name.to_owned(), node);
            inner.unsynced_names.push(NameChange::Add(name.to_owned(), node));
            node
        };
        Ok(self.add(node))
    }

    fn open(&mut self, name: &str) -> io::Result<FileId> {
        self.fail(ErrorOf::Open)?;
        let node = *self.folder.inner().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.add(node))
    }

    fn close(&mut self, file: FileId) {
        self.files.remove(file.0);
        self.fetched.take_if(|(of, ..)| *of == file);
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.may_end();
        self.fail(ErrorOf::Rename)?;
        let mut inner = self.folder.inner();
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        apply(&mut inner.names, change.clone());
        inner.unsynced_names.push(change);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.may_end();
        let mut inner = self.folder.inner();
        inner.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        inner.unsynced_names.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.may_end();
        self.folder.inner().nodes[self.files[file.0]].change(Change::Length(len as usize));
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.may_end();
        self.fail(ErrorOf::Sync)?;
        let mut inner = self.folder.inner();
        inner.durable_names = inner.names.clone();
        inner.unsynced_names.clear();
        Ok(())
    }

    fn read_at(&mut self, file: FileId, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let inner = self.folder.inner();
        let rest = inner.nodes[self.files[file.0]].bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(bytes.len());
        bytes[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn read_now(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: &mut [u8],
        ahead: ReadAhead,
    ) -> io::Result<usize> {
        let faults = self.folder.inner().faults;
        if let Some(rate) = faults.read_rate.filter(|_| !self.is_observer) {
            return self.read_slowly(file, offset, bytes, rate);
        }
        let chance = faults.not_in_memory;
        if chance == 0 || self.is_observer {
            return self.read_at(file, offset, bytes);
        }
        if self.folder.inner().happens(chance) {
            self.folder.inner().counts.not_in_memory += 1;
            self.fetch_ahead(file, offset, ahead.end);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if let Some(read) = self.read_fetched(file, offset, bytes) {
            return Ok(read);
        }
        self.fetch_ahead(file, offset, ahead.end);
        Ok(self.read_fetched(file, offset, bytes).unwrap_or(0))
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let node = self.files[file.0];
        if let Some(len) = self.ends_now(bytes.len()) {
            let _ = self.folder.inner().write(node, offset, &bytes[..len]);
            resume_unwind(Box::new(ProcessEnd));
        }
        self.fail(ErrorOf::Write)?;
        self.folder.inner().write(node, offset, bytes)
    }

    fn sync_at_once(&mut self, file: FileId) -> io::Result<()> {
        self.may_end();
        self.fail(ErrorOf::Sync)?;
        self.folder.inner().sync(self.files[file.0]);
        Ok(())
    }

    fn write(&mut self, file: FileId, offset: u64, bytes: Vec<u8>, start: usize) -> Ticket {
        let node = self.files[file.0];
        if let Some(len) = self.ends_now(bytes.len() - start) {
            let _ = self.folder.inner().write(node, offset, &bytes[start..start + len]);
            resume_unwind(Box::new(ProcessEnd));
        }
        if self.fail(ErrorOf::Write).is_err() {
            return self.submit(node, Work::Fail(bytes));
        }
        let len = {
            let mut inner = self.folder.inner();
            let (mut len, short) = (bytes.len() - start, inner.faults.short_write);
            if len > 1 && inner.happens(short) {
                inner.counts.short_writes += 1;
                len = 1 + (inner.roll() as usize) % (len - 1);
            }
            len
        };
        self.submit(node, Work::Write { offset, start, len, bytes })
    }

    fn sync(&mut self, file: FileId) -> Ticket {
        self.may_end();
        let node = self.files[file.0];
        if self.fail(ErrorOf::Sync).is_err() {
            return self.submit(node, Work::Fail(Vec::new()));
        }
        let changes = self.folder.inner().nodes[node].changes;
        self.submit(node, Work::Sync(changes))
    }

    fn completion(&mut self) -> Option<Completion> {
        let mut inner = self.folder.inner();
        let now = inner.now;
        let submitted = inner.submitted.pop_front_if(|submitted| submitted.at <= now)?;
        Some(inner.work(submitted))
    }

    fn clock_ms(&mut self) -> u64 {
        self.folder.inner().now / 1000
    }

    fn random(&mut self) -> io::Result<u64> {
        Ok(self.folder.inner().roll())
    }

    fn identity(&mut self) -> io::Result<Identity> {
        Ok(Identity { inode: 1, birth: Some(1) })
    }

    fn description(&self) -> &'static str {
        "a simulated disk"
    }
}
