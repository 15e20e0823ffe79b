//! Large writes of the journal that go to the disk without being copied, where the system can do that.

use std::{fs, os::fd::OwnedFd, path::PathBuf};

use fortnight::internals::disk::{Completion, Disk, FileId, RealDisk};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

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
