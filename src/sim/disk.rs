//! A simulated disk: a folder that loses, tears, refuses and is slow, the same way for the same seed.
//!
//! A [`SimFolder`] is what is left when a server ends: [`SimFolder::end_process`] keeps everything that was written,
//! [`SimFolder::end_machine`] only what was synced, and of the rest any part: writes that were not synced reach the disk whole, in sectors, or
//! not at all, in any order, and so do names that the folder was not synced with. A [`SimDisk`] is one server's view of it.

use crate::{
    disk::{Completion, Disk, FileId, Identity, Ticket},
    time::Micros,
};
use slab::Slab;
use std::{
    cell::{RefCell, RefMut},
    collections::{BTreeMap, VecDeque},
    io,
    rc::Rc,
};

/// What the disk writes at once or not at all.
const SECTOR: usize = 512;

/// What goes wrong. Probabilities are of one in 2^16.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFaults {
    /// A submitted write is cut short.
    pub short_write: u16,
    /// Bytes that fit before the disk is full. `None`: as many as you like.
    pub room: Option<u64>,
    /// A write fails (`EIO`).
    pub write_error: u16,
    /// A sync fails (`EIO`).
    pub sync_error: u16,
    /// Opening or making a file fails (`EIO`).
    pub open_error: u16,
    /// A rename fails (`EIO`).
    pub rename_error: u16,
    /// How long a submitted operation takes at most, in microseconds. 0: it is complete at once.
    pub delay_max: Micros,
}

/// How often what has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Writes that were cut short.
    pub short_writes: u64,
    /// Writes that found no room.
    pub full: u64,
    /// Writes, syncs, openings and renames that failed.
    pub errors: u64,
    /// Operations that were complete later.
    pub slow: u64,
    /// Writes that a machine lost, or kept in parts.
    pub lost: u64,
    /// Writes of which a machine kept a part.
    pub torn: u64,
    /// Changes of names that a machine lost.
    pub lost_names: u64,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// What the process sees.
    bytes: Vec<u8>,
    /// What a machine that ends keeps for certain.
    durable: Vec<u8>,
    /// What happened since the last sync: a write at an offset, or a new length.
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
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
    dice: u64,
    now: Micros,
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

    /// An error, with this probability.
    fn fail(&mut self, probability: u16) -> io::Result<()> {
        if self.happens(probability) {
            self.counts.errors += 1;
            return Err(io::Error::other("simulated input/output error"));
        }
        Ok(())
    }

    fn write(&mut self, node: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = offset as usize;
        let grows = (offset + bytes.len()).saturating_sub(self.nodes[node].bytes.len()) as u64;
        if self.faults.room.is_some_and(|room| room < grows) {
            self.counts.full += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.faults.room = self.faults.room.map(|room| room - grows);
        let node = &mut self.nodes[node];
        write_into(&mut node.bytes, offset, bytes);
        node.unsynced.push(Change::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.durable.clone_from(&node.bytes);
        node.unsynced.clear();
    }

    fn lose(&mut self) {
        for index in 0..self.nodes.len() {
            let changes = std::mem::take(&mut self.nodes[index].unsynced);
            let mut kept = std::mem::take(&mut self.nodes[index].durable);
            // Any order: the pages of one write may come before those of an older one.
            for change in changes {
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
    /// An empty folder, with all that is random drawn from `seed`.
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
        SimDisk { folder: self.clone(), files: Slab::new(), submitted: VecDeque::new(), tickets: 0 }
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.inner().faults = faults;
    }

    /// The time.
    pub fn set_now(&self, now: Micros) {
        self.inner().now = now;
    }

    /// How often what has happened.
    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        self.inner().counts
    }

    /// The process has ended: what was written is there.
    pub fn end_process(&self) {
        self.inner().faults = DiskFaults::default();
    }

    /// The machine has ended: of what was not synced any part is there.
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

/// One server's view of a [`SimFolder`].
#[derive(Debug)]
pub struct SimDisk {
    folder: SimFolder,
    /// The node of each open file.
    files: Slab<usize>,
    /// Operations and when they are complete.
    submitted: VecDeque<(Micros, Completion)>,
    tickets: u64,
}

impl SimDisk {
    /// When the next operation is complete.
    #[must_use]
    pub fn next_completion(&self) -> Option<Micros> {
        self.submitted.front().map(|&(at, _)| at)
    }

    fn add(&mut self, node: usize) -> FileId {
        FileId(self.files.insert(node))
    }

    fn submit(&mut self, result: io::Result<usize>, bytes: Vec<u8>) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let mut inner = self.folder.inner();
        let mut at = inner.now;
        if inner.faults.delay_max > 0 {
            at += 1 + inner.roll() % inner.faults.delay_max;
            inner.counts.slow += 1;
        }
        // They complete in their order.
        at = at.max(self.submitted.back().map_or(0, |&(at, _)| at));
        self.submitted.push_back((at, Completion { ticket, result, bytes }));
        ticket
    }
}

impl Disk for SimDisk {
    fn names(&mut self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.folder.names())
    }

    fn create(&mut self, name: &str) -> io::Result<FileId> {
        let node = {
            let mut inner = self.folder.inner();
            let probability = inner.faults.open_error;
            inner.fail(probability)?;
            inner.nodes.push(Node::default());
            let node = inner.nodes.len() - 1;
            inner.names.insert(name.to_owned(), node);
            inner.unsynced_names.push(NameChange::Add(name.to_owned(), node));
            node
        };
        Ok(self.add(node))
    }

    fn open(&mut self, name: &str) -> io::Result<FileId> {
        let node = {
            let mut inner = self.folder.inner();
            let probability = inner.faults.open_error;
            inner.fail(probability)?;
            *inner.names.get(name).ok_or(io::ErrorKind::NotFound)?
        };
        Ok(self.add(node))
    }

    fn close(&mut self, file: FileId) {
        self.files.remove(file.0);
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.folder.inner();
        let probability = inner.faults.rename_error;
        inner.fail(probability)?;
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        apply(&mut inner.names, change.clone());
        inner.unsynced_names.push(change);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut inner = self.folder.inner();
        inner.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        inner.unsynced_names.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        let mut inner = self.folder.inner();
        let node = &mut inner.nodes[self.files[file.0]];
        node.bytes.resize(len as usize, 0);
        node.unsynced.push(Change::Length(len as usize));
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        let mut inner = self.folder.inner();
        let probability = inner.faults.sync_error;
        inner.fail(probability)?;
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

    fn read_now(&mut self, file: FileId, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.read_at(file, offset, bytes)
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.folder.inner();
        let probability = inner.faults.write_error;
        inner.fail(probability)?;
        inner.write(self.files[file.0], offset, bytes)
    }

    fn sync_at_once(&mut self, file: FileId) -> io::Result<()> {
        let mut inner = self.folder.inner();
        let probability = inner.faults.sync_error;
        inner.fail(probability)?;
        inner.sync(self.files[file.0]);
        Ok(())
    }

    fn write(&mut self, file: FileId, offset: u64, bytes: Vec<u8>) -> Ticket {
        let node = self.files[file.0];
        let result = {
            let mut inner = self.folder.inner();
            let (error, short) = (inner.faults.write_error, inner.faults.short_write);
            let mut len = bytes.len();
            if len > 1 && inner.happens(short) {
                inner.counts.short_writes += 1;
                len = 1 + (inner.roll() as usize) % (len - 1);
            }
            inner.fail(error).and_then(|()| inner.write(node, offset, &bytes[..len])).map(|()| len)
        };
        self.submit(result, bytes)
    }

    fn sync(&mut self, file: FileId) -> Ticket {
        let result = self.sync_at_once(file).map(|()| 0);
        self.submit(result, Vec::new())
    }

    fn completion(&mut self) -> Option<Completion> {
        let now = self.folder.inner().now;
        self.submitted.pop_front_if(|(at, _)| *at <= now).map(|(_, completion)| completion)
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
