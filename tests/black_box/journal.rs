//! docs/SPEC.md section 8: what was released survives the process.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use support::{Signal, launch, server};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fortnight-journal-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn show(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
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
fn a_graceful_end_keeps_what_waits_in_the_ring_and_in_blocked_sources() {
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
