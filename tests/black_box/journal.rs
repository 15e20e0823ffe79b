//! docs/SPEC.md section 8: what was released survives the process.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use rustix::process::{Pid, kill_process};
use support::{
    Signal, launch, server,
    stream::{each, long_broadcasts},
};

/// A folder that goes with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fortnight-journal-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    pub(crate) fn show(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Files that are complete are closed, whatever `journalSync` is.
#[test]
fn few_files_of_a_journal_are_open() {
    for mode in ["always", "interval", "never"] {
        let folder = Folder::new(&format!("open-{mode}"));
        let server = server!(
            journalDirectory = folder.show(),
            journalSegmentBytes = 4096,
            journalSync = mode,
            journalSyncIntervalMs = 600_000,
            adminPort = 0
        );
        let mut source = server.source();
        for round in 0..100 {
            source.send(long_broadcasts(10 * round + 1..=10 * round + 10, 500));
            server.wait_for_metric("fortnight_cursor", |cursor| cursor > (10 * round + 10) as f64);
        }
        let segments = fs::read_dir(folder.show()).unwrap().count();
        let open = server.metric("process_open_fds");
        assert!(segments > 90 && open < 50.0, "{mode}: {open} descriptors, and {segments} files");
    }
}

#[test]
fn a_killed_server_goes_on_where_it_was_with_its_graph() {
    for mode in ["always", "interval", "never"] {
        let folder = Folder::new(mode);
        let first = server!(journalDirectory = folder.show(), journalSync = mode);
        let mut followed = first.user(50);
        let mut source = first.source();
        source.send("1|F|60|50\n2|F|61|50\n3|U|61|50\n");
        followed.expect("1|F|60|50\n2|F|61|50\n");
        source.send("4|P|1|50\n");
        followed.expect("4|P|1|50\n");
        // With SIGKILL.
        drop(first);
        let mut second = server!(journalDirectory = folder.show(), journalSync = mode, firstSequence = 77);
        let (mut follower, mut other) = (second.user(60), second.user(61));
        let mut source = second.source();
        source.send("4|B\n5|S|50\n6|B\n");
        follower.expect("5|S|50\n6|B\n");
        other.expect("6|B\n");
        second.signal(Signal::TERM);
        assert_eq!(second.exit_status(), 0);
    }
}

#[test]
fn a_server_with_a_stream_port_goes_on_from_a_long_journal() {
    let folder = Folder::new("long");
    let first = server!(journalDirectory = folder.show(), streamPort = 0);
    let mut user = first.user(7);
    first.pass();
    let mut source = first.source();
    // More than is kept for the clients of the stream in one turn.
    source.send(each(1..=150_000, |number| format!("{number}|S|1234567\n")));
    source.send("150001|B\n");
    user.expect("150001|B\n");
    // With SIGKILL.
    drop(first);
    let second = server!(journalDirectory = folder.show(), streamPort = 0);
    let mut user = second.user(7);
    second.pass();
    second.source().send("150001|B\n150002|B\n");
    user.expect("150002|B\n");
}

/// Bytes that a process has read from files.
fn bytes_read(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[test]
fn who_is_told_to_end_while_it_recovers_ends_at_once() {
    let folder = Folder::new("recovery");
    let first = server!(journalDirectory = folder.show(), journalSync = "never");
    let mut source = first.source();
    for million in 0..6 {
        let lines = (1..=1_000_000).map(|number| format!("{}|P|1|2\n", million * 1_000_000 + number));
        source.send(lines.collect::<String>());
    }
    let mut user = first.user(9);
    source.send("6000001|B\n");
    user.expect("6000001|B\n");
    drop(first);
    let files = fs::read_dir(&folder.0).unwrap();
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    for signal in [Signal::TERM, Signal::INT] {
        // Where the recovery was over first, or nearly so, nothing is shown.
        let shown = (0..20).any(|_| {
            let mut told_at = None;
            let finished =
                launch!(journalDirectory = folder.show(), journalSync = "never").run_beside(|pid| {
                    let read = bytes_read(pid);
                    if told_at.is_none() && read > 1 << 20 {
                        told_at = Some(read);
                        kill_process(Pid::from_raw(pid as i32).expect("a pid"), signal).expect("kill");
                    }
                });
            assert_eq!(finished.status, 0, "{finished:?}");
            told_at.is_some_and(|read| read < bytes / 2) && !finished.stdout.contains("listening")
        });
        assert!(shown, "no recovery was ended by {signal:?}");
    }
    // Nothing is lost.
    let next = server!(journalDirectory = folder.show(), journalSync = "never");
    let mut user = next.user(9);
    next.source().send("6000002|B\n");
    user.expect("6000002|B\n");
}

#[test]
fn a_graceful_end_keeps_events_of_the_ring_and_of_blocked_sources() {
    let folder = Folder::new("waits");
    let mut first = server!(journalDirectory = folder.show(), reorderCapacity = 4, eventTimeoutMs = -1);
    let mut source = first.source();
    let mut user = first.user(1);
    source.send("1|B\n3|B\n4|B\n6|B\n9|P|2|1\n7|B\n");
    user.expect("1|B\n");
    first.signal(Signal::TERM);
    assert_eq!(first.exit_status(), 0);
    let second = server!(journalDirectory = folder.show(), reorderCapacity = 4, eventTimeoutMs = -1);
    let mut user = second.user(1);
    let mut source = second.source();
    source.send("2|B\n5|B\n");
    user.expect("2|B\n3|B\n4|B\n5|B\n6|B\n7|B\n");
    source.send("8|B\n");
    user.expect("8|B\n9|P|2|1\n");
}

#[test]
fn a_second_server_and_a_copied_folder_are_refused() {
    let folder = Folder::new("refused");
    let mut first = server!(journalDirectory = folder.show());
    let finished = launch!(journalDirectory = folder.show()).run();
    assert_eq!(finished.status, 1);
    assert!(finished.stderr.contains("journalDirectory") && finished.stderr.contains(&folder.show()));
    first.signal(Signal::TERM);
    assert_eq!(first.exit_status(), 0);
    let copy = Folder::new("copy");
    copy_files(&folder.0, &copy.0);
    let finished = launch!(journalDirectory = copy.show()).run();
    assert_eq!(finished.status, 1);
    assert!(finished.stderr.contains("fork"), "{}", finished.stderr);
    let finished = launch!(journalDirectory = folder.show(), resetOnSourceEof = true).run();
    assert_eq!(finished.status, 2);
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn tool(folder: &Folder, verb: &str, more: &[&str]) -> (i32, String, String) {
    let output = process::Command::new(env!("CARGO_BIN_EXE_fortnight"))
        .args(["journal", verb, &folder.show()])
        .args(more)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_journal_can_be_checked_dumped_copied_and_forked_beside_its_server() {
    let folder = Folder::new("tools");
    let server = server!(journalDirectory = folder.show(), eventTimeoutMs = 0);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("1|B\n2|F|3|1\n3|U|3|1\n007|B\r\n");
    user.expect("1|B\n2|F|3|1\n007|B\r\n");
    let (status, text, _) = tool(&folder, "check", &[]);
    assert_eq!(status, 0);
    assert!(text.contains("events 1-3\ngap 4-6\nevents 7-7\ncursor 8\n"), "{text}");
    assert_eq!(tool(&folder, "dump", &[]).1, "1|B\n2|F|3|1\n3|U|3|1\n007|B\r\n");
    assert_eq!(tool(&folder, "dump", &["--from", "3", "--to", "7"]).1, "3|U|3|1\n007|B\r\n");
    let copy = Folder::new("tools-copy");
    assert_eq!(tool(&folder, "copy", &[&copy.show()]).0, 0);
    assert_eq!(tool(&copy, "dump", &[]).1, tool(&folder, "dump", &[]).1);
    assert_eq!(tool(&folder, "fork", &[]).0, 1, "a server is using it");
    let second = server!(journalDirectory = copy.show());
    let mut user = second.user(1);
    second.source().send("8|B\n");
    user.expect("8|B\n");
}

#[test]
fn a_journal_can_be_checked_and_copied_while_its_server_writes_to_it() {
    let folder = Folder::new("busy");
    let server = server!(journalDirectory = folder.show(), journalSync = "always");
    let mut user = server.user(9);
    let mut source = server.source();
    // It takes some milliseconds to read them.
    source.send((1..=600_000).map(|number| format!("{number}|P|1|2\n")).collect::<String>());
    let writer = std::thread::spawn(move || {
        for number in 600_001..=601_500 {
            source.send(format!("{number}|P|1|9\n"));
            user.expect(format!("{number}|P|1|9\n"));
        }
        source
    });
    let mut looks = 0;
    while !writer.is_finished() || looks == 0 {
        let (status, told, error) = tool(&folder, "check", &[]);
        assert_eq!(status, 0, "{told}{error}");
        let copy = Folder::new("busy-copy");
        let (status, told, error) = tool(&folder, "copy", &[&copy.show()]);
        assert_eq!(status, 0, "{told}{error}");
        looks += 1;
    }
    writer.join().unwrap();
}

#[test]
fn a_copied_folder_can_be_forked_and_numbers_can_be_skipped() {
    let folder = Folder::new("skip");
    let mut first = server!(journalDirectory = folder.show(), eventTimeoutMs = -1);
    let mut user = first.user(1);
    first.source().send("1|B\n3|B\n6|B\n");
    user.expect("1|B\n");
    first.signal(Signal::TERM);
    assert_eq!(first.exit_status(), 0);
    let copy = Folder::new("skip-copy");
    copy_files(&folder.0, &copy.0);
    assert_eq!(tool(&copy, "fork", &[]).0, 0);
    assert_eq!(tool(&copy, "skip", &["--to", "5"]).0, 0);
    assert_eq!(tool(&copy, "dump", &[]).1, "1|B\n", "without --yes nothing is done");
    assert_eq!(tool(&copy, "skip", &["--to", "5", "--yes"]).0, 0);
    assert_eq!(tool(&copy, "dump", &[]).1, "1|B\n3|B\n");
    let second = server!(journalDirectory = copy.show(), eventTimeoutMs = -1);
    let mut user = second.user(1);
    second.source().send("5|B\n");
    user.expect("5|B\n6|B\n");
}

#[test]
fn damage_is_named_by_check_and_refused_by_the_server() {
    let folder = Folder::new("damage");
    let mut first = server!(journalDirectory = folder.show());
    let mut user = first.user(1);
    first.source().send("1|B\n");
    user.expect("1|B\n");
    first.signal(Signal::TERM);
    assert_eq!(first.exit_status(), 0);
    let segment = folder.0.join("00000000000000000001.fnj");
    let mut bytes = fs::read(&segment).unwrap();
    // The event follows the 80 bytes of its block's header. A mark may come before that block: it is written when nothing has been
    // released for a moment.
    let event = bytes.windows(4).position(|piece| piece == b"1|B\n").expect("the event");
    let offset = format!("offset {}", event - 80);
    bytes[event] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (status, _, sentence) = tool(&folder, "check", &[]);
    assert_eq!(status, 1);
    assert!(sentence.contains(&format!("00000000000000000001.fnj, {offset}")), "{sentence}");
    let finished = launch!(journalDirectory = folder.show()).run();
    assert_eq!(finished.status, 1);
    assert!(finished.stderr.contains(&offset), "{}", finished.stderr);
}

#[test]
fn a_repair_cuts_at_the_damage_or_at_a_number() {
    let folder = Folder::new("repair");
    let mut first = server!(journalDirectory = folder.show());
    let mut user = first.user(1);
    first.source().send("1|B\n2|B\n3|B\n4|B\n");
    user.expect("1|B\n2|B\n3|B\n4|B\n");
    first.signal(Signal::TERM);
    assert_eq!(first.exit_status(), 0);
    assert_eq!(tool(&folder, "repair", &["--yes"]).1, "there is nothing to cut off\n");
    let (status, text, _) = tool(&folder, "repair", &["--at", "3"]);
    assert_eq!(status, 0);
    assert!(text.contains("with every number from 3 on") && text.contains("add --yes"), "{text}");
    assert_eq!(tool(&folder, "dump", &[]).1, "1|B\n2|B\n3|B\n4|B\n", "without --yes nothing is done");
    assert_eq!(tool(&folder, "repair", &["--at", "3", "--yes"]).0, 0);
    assert_eq!(tool(&folder, "dump", &[]).1, "1|B\n2|B\n");
    let segment = folder.0.join("00000000000000000001.fnj");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[128 + 80] ^= 1;
    fs::write(&segment, bytes).unwrap();
    assert_eq!(tool(&folder, "check", &[]).0, 1);
    assert_eq!(launch!(journalDirectory = folder.show()).run().status, 1);
    let (status, text, _) = tool(&folder, "repair", &[]);
    assert_eq!(status, 0);
    assert!(text.contains("with every number from 1 on"), "{text}");
    assert_eq!(tool(&folder, "check", &[]).0, 1, "without --yes nothing is done");
    assert_eq!(tool(&folder, "repair", &["--yes"]).0, 0);
    let (status, text, _) = tool(&folder, "check", &[]);
    assert_eq!(status, 0);
    assert_eq!(text.matches("forked from epoch").count(), 2, "{text}");
    let second = server!(journalDirectory = folder.show());
    let mut user = second.user(1);
    second.source().send("1|B\n");
    user.expect("1|B\n");
    assert_eq!(tool(&folder, "repair", &["--yes"]).0, 1, "a server is using it");
}
