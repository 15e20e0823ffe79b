//! `maze replay`: the collection of recorded traces over real sockets.

#[path = "support/binary.rs"]
mod binary;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

const TRACES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/traces");

/// Those in which nothing depends on how much time passes, or on how much a socket takes.
const TIMELESS: [&str; 15] = [
    "every-reject",
    "full-ring",
    "late-and-duplicate",
    "line-ends",
    "login-between-events",
    "maze",
    "maze-users-come-and-go",
    "offline-users",
    "one-byte-at-a-time",
    "order",
    "protocol-table",
    "source-reconnect",
    "takeover",
    "too-many-connections",
    "unfollow-before-status",
];

fn replay(trace: &str, extra: &[&str]) -> Output {
    let ports = "--event-source-server-port 0 --user-server-port 0";
    let server = format!("'{}' {ports} --log-level warn", binary::fortnight().display());
    let mut maze = Command::new(env!("CARGO_BIN_EXE_maze"));
    maze.args(["replay", trace, "--spawn", &server]).args(extra);
    maze.output().unwrap()
}

/// A file that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("maze-replay-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        Scratch(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn users_receive_the_bytes_that_the_replay_expects_over_real_sockets() {
    for name in TIMELESS {
        let output = replay(&format!("{TRACES}/{name}.trace"), &["--fast", "--expect", TRACES]);
        let told = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{name}\n{printed}{told}");
        assert!(told.contains("\\o/ ALL NOTIFICATIONS RECEIVED \\o/"), "{name}: {told}");
    }
}

#[test]
fn the_recorded_speed_is_kept() {
    let output = replay(&format!("{TRACES}/maze.trace"), &["--expect", TRACES]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let (_, told) = told.split_once("10 users in ").expect("how long it took");
    let seconds: f64 = told.split(' ').next().unwrap().parse().unwrap();
    // Its last record is of that time.
    assert!(seconds >= 0.1, "{seconds}");
}

#[test]
fn a_difference_is_the_user_the_line_and_both_sides() {
    let text = fs::read_to_string(format!("{TRACES}/order.trace")).unwrap();
    let name = format!("order-{}.trace", std::process::id());
    let changed = Scratch::new(&name, &text.replace("=7|P|2|1", "=7|P|3|1"));
    let expected = fs::read_to_string(format!("{TRACES}/order.expected")).unwrap();
    let stored = Scratch::new(&name.replace(".trace", ".expected"), &expected);
    let folder = stored.0.parent().unwrap().to_str().unwrap();
    let output = replay(changed.path(), &["--fast", "--expect", folder]);
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&output.stdout);
    let difference = "user 1, line 7\n    expected 7|P|2|1\\r\\n\n    got      7|P|3|1\\r\\n\n";
    assert!(printed.ends_with(difference), "{printed}");
}

#[test]
fn a_damaged_trace_ends_with_status_2_and_names_the_line() {
    let damaged = Scratch::new("damaged.trace", "fortnight trace 1\n0 user 1 connects\n0 user 1 jumps\n");
    for (trace, sentence) in [
        (damaged.path(), "line 3: \"0 user 1 jumps\" is no record"),
        (&format!("{TRACES}/order.expected"), "line 1: this is no trace"),
        ("/nowhere/at/all.trace", "cannot be read"),
    ] {
        let output = replay(trace, &["--fast"]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(&format!("maze: {trace}: {sentence}")), "{told}");
    }
}
