//! docs/SPEC.md section 8 as the operating system sees it: the order of calls, and a disk that is full.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::journal::Folder;
use support::{Server, Signal, server, stream::long_broadcasts};

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
            eprintln!("skipped: strace is not installed (Debian package strace)");
            return None;
        };
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        if !line.contains("attached") {
            eprintln!("skipped: strace may not watch another process here: {line}");
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
    let server = server!(journalDirectory = folder.show(), journalSync = mode);
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
        eprintln!("skipped: only root can make a small file system");
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
