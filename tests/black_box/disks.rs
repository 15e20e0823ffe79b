//! docs/SPEC.md section 8 as the operating system sees it: the order of calls, and a disk that is full.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::journal::Folder;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use support::{Server, Signal, launch, server, skipped, stream::long_broadcasts};

#[cfg(target_arch = "x86_64")]
const TARGET_ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const TARGET_ARCH: TargetArch = TargetArch::aarch64;

/// Watches the calls of a server.
struct Strace {
    child: Child,
    file: PathBuf,
}

impl Strace {
    /// `None`, with a message: it cannot be watched here.
    fn attach(server: &Server, folder: &Folder) -> Option<Strace> {
        let file = PathBuf::from(format!("{}.strace", folder.show()));
        let started = Command::new("strace")
            .args(["-s", "65536", "-e", "trace=pwrite64,fdatasync,fsync,write,writev,sendto,sendmsg"])
            .arg("-o")
            .arg(&file)
            .args(["-p", &server.pid().to_string()])
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = started else {
            skipped("strace is not installed (Debian package strace)");
            return None;
        };
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        if !line.contains("attached") {
            skipped(&format!("strace may not watch another process here: {}", line.trim_end()));
            let _ = child.wait();
            return None;
        }
        Some(Strace { child, file })
    }

    /// What was called, one call a line.
    fn finish(mut self) -> Vec<String> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, Signal::INT).unwrap();
        self.child.wait().unwrap();
        let text = fs::read_to_string(&self.file).unwrap();
        fs::remove_file(&self.file).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// The calls of a server that is sent ten events, one after the other.
fn calls(mode: &str) -> Option<Vec<String>> {
    let folder = Folder::new(&format!("order-{mode}"));
    // What a ring is handed cannot be seen from outside; the order is made in the same place for both.
    let server = without_io_uring(|| server!(journalDirectory = folder.show(), journalSync = mode));
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("1|B\n");
    user.expect("1|B\n");
    let strace = Strace::attach(&server, &folder)?;
    for number in 2..=11 {
        source.send(format!("{number}|B\n"));
        user.expect(format!("{number}|B\n"));
    }
    Some(strace.finish())
}

#[test]
fn an_event_is_appended_before_it_is_sent_and_with_always_synced_between() {
    if support::only_in_clear("strace sees records, not events") {
        return;
    }
    for mode in ["always", "interval", "never"] {
        let Some(calls) = calls(mode) else { return };
        for number in 2..=11 {
            let event = format!("{number}|B\\n");
            let first = |names: &[&str]| {
                let is =
                    |call: &String| call.contains(&event) && names.iter().any(|name| call.starts_with(name));
                calls.iter().position(is).unwrap_or_else(|| panic!("{mode}, {number}, {names:?}: {calls:#?}"))
            };
            let appended = first(&["pwrite64"]);
            let sent = first(&["write(", "writev", "sendto", "sendmsg"]);
            assert!(appended < sent, "{mode}, {number}: {calls:#?}");
            let is_synced = calls[appended..sent].iter().any(|call| call.starts_with("fdatasync"));
            assert!(is_synced || mode != "always", "{mode}, {number}: {calls:#?}");
        }
    }
}

/// Starts a server that may not use io_uring, as in many containers.
fn without_io_uring(start: impl FnOnce() -> Server + Send) -> Server {
    // A filter counts for the thread that sets it and for the processes that it starts.
    std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            // `io_uring_setup`, the same number on every architecture.
            let forbidden = [(425, Vec::new())].into_iter().collect();
            let refuse = SeccompAction::Errno(1);
            let filter = SeccompFilter::new(forbidden, SeccompAction::Allow, refuse, TARGET_ARCH).unwrap();
            apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
            start()
        });
        started.join().unwrap()
    })
}

#[test]
fn without_io_uring_the_server_says_so_once_and_serves_as_well() {
    for mode in ["always", "interval", "never"] {
        let folder = Folder::new(&format!("no-ring-{mode}"));
        let mut server = without_io_uring(|| server!(journalDirectory = folder.show(), journalSync = mode));
        server.wait_for_log("io_uring cannot be used here");
        server.wait_for_log("pwrite and fdatasync, writing back early");
        let mut user = server.user(1);
        let mut source = server.source();
        let events = long_broadcasts(1..=400, 1000);
        source.send(&events);
        user.expect(&events);
        server.signal(Signal::TERM);
        assert_eq!(server.exit_status(), 0);
        assert_eq!(server.log().matches("io_uring").count(), 1, "{}", server.log());
    }
}

#[test]
fn with_io_uring_nothing_is_written_or_synced_between_turns() {
    let folder = Folder::new("ring");
    let server = server!(journalDirectory = folder.show(), journalSync = "always");
    server.wait_for_log("a journal was made");
    if !server.log().contains("disk=io_uring") {
        skipped("io_uring cannot be used here");
        return;
    }
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("1|B\n");
    user.expect("1|B\n");
    let Some(strace) = Strace::attach(&server, &folder) else { return };
    for number in 2..=11 {
        source.send(format!("{number}|B\n"));
        user.expect(format!("{number}|B\n"));
    }
    let calls = strace.finish();
    let waits = |call: &&String| ["pwrite64", "fdatasync", "fsync"].iter().any(|name| call.starts_with(name));
    assert_eq!(calls.iter().find(waits), None, "{calls:#?}");
}

/// How many eventfds the poll of a server watches.
fn watched_eventfds(server: &Server) -> usize {
    let process = format!("/proc/{}", server.pid());
    let is_eventfd = |fd: &str| {
        fs::read_link(format!("{process}/fd/{fd}")).is_ok_and(|file| file.ends_with("anon_inode:[eventfd]"))
    };
    let files = fs::read_dir(format!("{process}/fdinfo")).unwrap();
    let texts = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok()).collect::<String>();
    let watched = texts.lines().filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next());
    watched.filter(|fd| is_eventfd(fd)).count()
}

/// A write that is complete after a turn and before the next poll interrupts nothing: only this eventfd tells of it.
#[test]
fn the_poll_watches_what_the_ring_signals() {
    let folder = Folder::new("watched");
    let with = server!(journalDirectory = folder.show());
    with.wait_for_log("a journal was made");
    if !with.log().contains("disk=io_uring") {
        skipped("io_uring cannot be used here");
        return;
    }
    let folder = Folder::new("unwatched");
    let without = without_io_uring(|| server!(journalDirectory = folder.show()));
    without.wait_for_log("a journal was made");
    assert_eq!(watched_eventfds(&with), watched_eventfds(&without) + 1);
}

/// A file system of its own, a small one.
struct SmallDisk(Folder);

impl SmallDisk {
    /// `None`, with a message: this process may not make one.
    fn new(name: &str, bytes: u64) -> Option<SmallDisk> {
        let folder = Folder::new(name);
        fs::create_dir_all(folder.show()).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", &folder.show()])
            .output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(SmallDisk(folder));
        }
        skipped("only root can make a small file system");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.show()).status();
    }
}

#[test]
fn a_full_disk_holds_up_the_sources_and_then_everything_goes_on() {
    let Some(disk) = SmallDisk::new("full", 1 << 20) else { return };
    let filler = PathBuf::from(disk.0.show()).join("filler");
    fs::write(&filler, vec![0; 900_000]).unwrap();
    let mut server =
        server!(journalDirectory = format!("{}/journal", disk.0.show()), adminPort = 0, eventTimeoutMs = -1,);
    let mut user = server.user(1);
    let mut source = server.source();
    let events = long_broadcasts(1..=400, 1000);
    source.send(&events);
    server.wait_for_log("no space");
    assert_eq!(server.get("/healthz").status, 503);
    let answer = server.get("/healthz");
    assert!(answer.body.contains("journal"), "{}", answer.body);
    let answer = server.get("/status.json");
    assert!(answer.body.contains("\"stall\":\"cannot "), "{}", answer.body);
    // Who logs in meanwhile is served as well, from where things go on.
    let mut late = server.user(2);
    fs::remove_file(&filler).unwrap();
    user.expect(&events);
    late.read_through(&events[events.len() - 1000..]);
    assert_eq!(server.get("/healthz").status, 200);
    server.signal(Signal::TERM);
    assert_eq!(server.exit_status(), 0);
}

/// Users log in, and then hang up, until the server has noticed all of it.
fn log_in(server: &Server, ids: std::ops::Range<u64>) {
    let users: Vec<_> = ids.map(|id| server.user(id)).collect();
    server.pass();
    drop(users);
    server.wait_for_hang_ups(server.users);
}

/// A limit of the file's size stands for a disk that is full, and then has room again.
#[test]
fn a_log_on_a_full_disk_has_whole_lines_and_counts_those_left_out() {
    let log = std::env::temp_dir().join(format!("fortnight-log-{}", std::process::id()));
    // Of 512 bytes each: the log cannot be longer than these blocks.
    let limit = format!("-S -f 8 && exec 2> '{}'", log.display());
    let mut server = launch!(logLevel = "debug").limit(&limit).start();
    log_in(&server, 1000..1100);
    let full = fs::read_to_string(&log).unwrap();
    assert_eq!(full.len(), 8 * 512, "the limit has not been reached, or counts for nothing");
    let maximum = getrlimit(Resource::Fsize).maximum;
    let room = Rlimit { current: maximum, maximum };
    prlimit(Some(Pid::from_raw(server.pid() as i32).unwrap()), Resource::Fsize, room).unwrap();
    log_in(&server, 2000..2100);
    server.signal(Signal::TERM);
    assert_eq!(server.exit_status(), 0);
    let text = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    for line in text.lines() {
        assert!(line.starts_with("time=") && line.contains(" level="), "{line:?}");
        assert_eq!(line.matches("time=20").count(), 1, "lines are glued together: {line:?}");
    }
    let is_missing = |id: &u64| !text.contains(&format!("user={id} "));
    let missing = (1000..1100).chain(2000..2100).filter(is_missing).count();
    let count = text.split("standard error took no more").nth(1).and_then(|rest| rest.split("count=").nth(1));
    let count: usize =
        count.and_then(|rest| rest.lines().next()).expect("what was left out").parse().unwrap();
    assert!(missing > 0 && missing <= count, "{missing} logins are missing, {count} lines");
}
