//! Large writes and reads of the journal past the page cache, where the system can do that.

use std::{
    fs,
    io::{ErrorKind, IoSliceMut},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use fortnight::internals::disk::{Completion, Disk, FileId, READ_NOW_MAX, ReadAhead, RealDisk};
use rustix::{
    event::{EventfdFlags, Timespec, epoll, eventfd},
    io::{Errno, ReadWriteFlags, preadv2},
};

const PAGE: usize = 4096;
const LEN: usize = 1 << 20;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Some bytes, and where a page begins in them.
fn bytes(seed: usize) -> (Vec<u8>, usize) {
    let mut bytes: Vec<u8> = (0..LEN + 2 * PAGE).map(|index| (index * 31 / 7 + seed) as u8).collect();
    bytes.shrink_to_fit();
    let start = bytes.as_ptr().align_offset(PAGE);
    bytes.truncate(start + LEN);
    (bytes, start)
}

/// Writes what stands from `start` on, and waits until that is complete.
fn write(
    disk: &mut RealDisk,
    waker: &OwnedFd,
    (file, offset): (FileId, u64),
    bytes: Vec<u8>,
    start: usize,
) -> Completion {
    let ticket = disk.write(file, offset, bytes, start);
    loop {
        if let Some(completion) = disk.completion() {
            assert_eq!(completion.ticket, ticket);
            return completion;
        }
        rustix::io::read(waker, &mut [0; 8]).expect("the eventfd");
    }
}

#[test]
fn what_is_written_without_being_copied_is_there_beside_what_is_copied() {
    let folder = Folder(std::env::temp_dir().join(format!("fortnight-direct-{}", std::process::id())));
    let mut disk = RealDisk::lock(&folder.0).expect("a folder");
    let waker = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
    if disk.submit_to_a_ring(waker.try_clone().expect("a descriptor")).is_err() {
        support::skipped("io_uring cannot be used here: no write goes to the disk without being copied");
        return;
    }
    let file = disk.create("segment").expect("a file");
    let mut wanted = vec![7; PAGE];
    disk.write_at(file, 0, &wanted).expect("a small write");
    // At pages; from an odd address; at an odd place, behind that; at pages again, over what is there.
    for (round, (offset, shift)) in
        [(PAGE, 0), (PAGE + LEN, 1), (PAGE + 2 * LEN - 1, 0), (PAGE + LEN, 0)].into_iter().enumerate()
    {
        let (bytes, start) = bytes(round);
        let (start, copy) = (start + shift, bytes[start + shift..].to_vec());
        let completion = write(&mut disk, &waker, (file, offset as u64), bytes, start);
        assert_eq!(completion.result.expect("a write"), copy.len());
        assert_eq!(completion.bytes[start..], copy, "the buffer comes back as it was");
        wanted.resize(wanted.len().max(offset + copy.len()), 0);
        wanted[offset..offset + copy.len()].copy_from_slice(&copy);
        let mut read = vec![0; wanted.len() + 1];
        assert_eq!(disk.read_at(file, 0, &mut read).expect("a read"), wanted.len());
        assert!(read.starts_with(&wanted), "round {round}");
    }
    disk.sync_at_once(file).expect("a sync");
    assert!(fs::read(folder.0.join("segment")).expect("the file") == wanted);
}

/// The kernel interrupts a poll when an operation is complete. One that is complete before the poll begins must be told by the eventfd.
#[test]
fn what_is_complete_before_a_poll_begins_is_told_by_the_poll() {
    let folder = Folder(std::env::temp_dir().join(format!("fortnight-told-{}", std::process::id())));
    let mut disk = RealDisk::lock(&folder.0).expect("a folder");
    let waker = eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd");
    let poll = epoll::create(epoll::CreateFlags::empty()).expect("a poll");
    let data = epoll::EventData::new_u64(5);
    epoll::add(&poll, &waker, data, epoll::EventFlags::IN | epoll::EventFlags::ET).expect("watched");
    if disk.submit_to_a_ring(waker).is_err() {
        support::skipped("io_uring cannot be used here: no completion is told by an eventfd");
        return;
    }
    let file = disk.create("segment").expect("a file");
    for round in 0..20 {
        let (bytes, start) = bytes(round);
        disk.write(file, 0, bytes, start);
        while disk.completion().is_none() {
            std::thread::yield_now();
        }
        disk.sync(file);
        while disk.completion().is_none() {
            std::thread::yield_now();
        }
        let mut events = Vec::with_capacity(2);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&at_once)).expect("a poll");
        assert_eq!(events.len(), 1, "round {round}: two operations are complete, and the poll tells of it");
    }
}

fn long(end: u64) -> ReadAhead {
    ReadAhead { end, is_long: true }
}

/// Waits until something has been fetched.
fn come_back(disk: &mut RealDisk, waker: &OwnedFd) {
    rustix::io::read(waker, &mut [0; 8]).expect("the eventfd");
    assert!(disk.completion().is_none(), "what was fetched is nobody's completion");
}

/// Reads forward without waiting, in pieces of any size. Returns what it has read, and how often it had to come back.
fn read_on(
    disk: &mut RealDisk,
    waker: &OwnedFd,
    (file, mut offset): (FileId, u64),
    (to, end): (u64, u64),
) -> (Vec<u8>, usize) {
    let (mut read, mut later, mut len) = (Vec::new(), 0, 1);
    while offset < to {
        len = (len * 7 + 13) % READ_NOW_MAX + 1;
        let mut piece = vec![0; len.min((to - offset) as usize)];
        match disk.read_now(file, offset, &mut piece, long(end)) {
            Ok(got) => {
                assert!(got > 0, "nothing at {offset} of {to}");
                read.extend_from_slice(&piece[..got]);
                offset += got as u64;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                later += 1;
                come_back(disk, waker);
            }
        }
    }
    (read, later)
}

/// Whether the system has a page of the file in memory.
fn is_in_memory(path: &Path, offset: u64) -> bool {
    let file = fs::File::open(path).expect("the file");
    let mut page = [0; PAGE];
    let read = preadv2(&file, &mut [IoSliceMut::new(&mut page)], offset, ReadWriteFlags::NOWAIT);
    read != Err(Errno::AGAIN)
}

#[test]
fn what_is_read_without_waiting_is_all_there_and_leaves_nothing_in_memory() {
    let folder = Folder(std::env::temp_dir().join(format!("fortnight-ahead-{}", std::process::id())));
    let mut disk = RealDisk::lock(&folder.0).expect("a folder");
    let waker = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
    if disk.submit_to_a_ring(waker.try_clone().expect("a descriptor")).is_err() {
        support::skipped("io_uring cannot be used here: nothing is fetched past the page cache");
        return;
    }
    let file = disk.create("segment").expect("a file");
    let mut wanted = Vec::new();
    for round in 0..5 {
        let (bytes, start) = bytes(round);
        wanted.extend_from_slice(&bytes[start..]);
        let written = write(&mut disk, &waker, (file, (round * LEN) as u64), bytes, start);
        assert_eq!(written.result.expect("a write"), LEN);
    }
    let path = folder.0.join("segment");
    let is_kept = is_in_memory(&path, LEN as u64);
    // While somebody writes to it, it is read through memory: else reads and writes would wait for one another.
    let reader = disk.open("segment").expect("the file");
    let mut read = vec![0; 100];
    while disk.read_now(reader, 4 * LEN as u64, &mut read, long(5 * LEN as u64)).is_err() {
        std::thread::yield_now();
    }
    assert!(read == wanted[4 * LEN..4 * LEN + 100] && is_in_memory(&path, 4 * LEN as u64));
    disk.close(reader);
    disk.close(file);
    if is_kept {
        support::skipped("this file system keeps in memory what is written: nothing is fetched past it");
        return;
    }
    let (total, half) = (wanted.len() as u64, (2 * LEN + PAGE + 5) as u64);
    // Up to the end of what may be read; the rest is written anew meanwhile.
    let reader = disk.open("segment").expect("the file");
    let (read, later) = read_on(&mut disk, &waker, (reader, 3), (half, half));
    assert!(read == wanted[3..half as usize] && later > 0);
    let (fresh, start) = bytes(77);
    wanted[2 * LEN + PAGE..3 * LEN + PAGE].copy_from_slice(&fresh[start..]);
    let file = disk.open("segment").expect("the file");
    write(&mut disk, &waker, (file, (2 * LEN + PAGE) as u64), fresh, start).result.expect("a write");
    disk.close(file);
    let (read, _) = read_on(&mut disk, &waker, (reader, half), (total, total));
    assert!(read == wanted[half as usize..], "what was written later is seen");
    // At another place, and there the file is closed while more is being fetched. Its number goes to the next one.
    let (read, _) = read_on(&mut disk, &waker, (reader, 12_345), (12_346, total));
    assert_eq!(read, wanted[12_345..12_346]);
    disk.close(reader);
    let reader = disk.open("segment").expect("the file");
    let (read, _) = read_on(&mut disk, &waker, (reader, LEN as u64), (total, u64::MAX));
    assert!(read == wanted[LEN..]);
    let end = loop {
        match disk.read_now(reader, total, &mut [0; 9], long(u64::MAX)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => come_back(&mut disk, &waker),
            end => break end,
        }
    };
    assert_eq!(end.expect("the end of the file"), 0);
    disk.close(reader);
    assert!(!is_in_memory(&path, 3 * LEN as u64), "nothing of it takes memory");
}
