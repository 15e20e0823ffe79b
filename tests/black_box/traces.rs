//! SPEC section 7: the collection of traces, and everything that is done with a trace.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use support::stream::each;
use support::{Signal, launch, server};

fn fortnight(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fortnight")).args(arguments).output().expect("fortnight")
}

/// Runs it, which must succeed, and gives what it prints.
#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = fortnight(arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}\n{text}\n{trouble}");
    assert_eq!(trouble, "");
    text
}

fn collection() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces")
}

/// The names, without their ends, of the collection's files that end so.
fn names(end: &str) -> BTreeSet<String> {
    let files = fs::read_dir(collection()).expect("tests/traces");
    let names = files.map(|file| file.unwrap().file_name().into_string().expect("a name"));
    names.filter_map(|name| name.strip_suffix(end).map(str::to_owned)).collect()
}

/// A folder of its own that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fortnight-traces-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_trace_has_an_expectation_and_every_expectation_a_trace() {
    let traces = names(".trace");
    assert_eq!(
        traces,
        names(".expected"),
        "`make bless` stores what is missing, git rm removes what is left over"
    );
    assert!(traces.len() >= 20);
    for file in fs::read_dir(collection()).unwrap() {
        let path = file.unwrap().path();
        let end = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        assert!(["trace", "expected"].contains(&end.as_str()), "what is {}?", path.display());
        assert!(fs::metadata(&path).unwrap().len() < 100_000, "too large to be reviewed: {}", path.display());
    }
}

#[test]
fn every_trace_does_what_is_expected_twice() {
    let folder = collection().to_str().unwrap().to_owned();
    let traces: Vec<String> = names(".trace").iter().map(|name| format!("{folder}/{name}.trace")).collect();
    let mut arguments = vec!["replay", "--expect", &folder];
    arguments.extend(traces.iter().map(String::as_str));
    let first = printed(&arguments);
    assert_eq!(first, printed(&arguments));
    assert_eq!(first.matches(" of virtual time\n").count(), traces.len());
}

#[test]
fn the_report_tells_events_deliveries_streams_and_counters() {
    let trace = collection().join("one-hole.trace");
    let report = printed(&["replay", trace.to_str().unwrap()]);
    let report = report.replace(trace.to_str().unwrap(), "FILE");
    assert_eq!(
        report,
        "FILE: 5 events, 4 deliveries to 1 users in 0.600000 s of virtual time\n  \
         user 1 id 1 open lines 4 bytes 20 digest 742c8226a6e52d0c\n  \
         counters events_received=5 events_released_B=4 events_late=1 sequence_skipped=1 deliveries=4 \
         delivered_bytes=20\n"
    );
}

#[test]
fn a_difference_is_shown_and_ends_with_status_1_and_bless_accepts_it() {
    let folder = Folder::new("bless");
    let text = fs::read_to_string(collection().join("order.trace")).unwrap();
    let trace = folder.write("order.trace", &text);
    let expect = folder.path("");
    let missing = fortnight(&["replay", &trace, "--expect", &expect]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("order.expected"));

    printed(&["replay", &trace, "--expect", &expect, "--bless"]);
    let stored = fs::read(collection().join("order.expected")).unwrap();
    assert_eq!(fs::read(folder.path("order.expected")).unwrap(), stored);
    printed(&["replay", &trace, "--expect", &expect]);

    folder.write("order.trace", text.replace("=7|P|2|1", "=7|P|3|1"));
    let different = fortnight(&["replay", &trace, "--expect", &expect]);
    assert_eq!(different.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&different.stdout).into_owned();
    let shown = shown.lines().rev().take(3).collect::<Vec<_>>();
    assert_eq!(
        shown,
        [
            "    got      7|P|3|1\\r\\n at 1110",
            "    expected 7|P|2|1\\r\\n at 1110",
            &format!("{trace}: user 1 (id 1), line 7")
        ]
    );
}

#[test]
fn damaged_traces_end_with_status_2_and_name_the_line() {
    let folder = Folder::new("damaged");
    let good = fs::read_to_string(collection().join("order.trace")).unwrap();
    let cases = [
        ("empty", String::new().into_bytes(), "line 1: this is no trace"),
        ("version", good.replace("trace 1", "trace 9").into_bytes(), "line 1: version \"9\""),
        ("noise", (0..=255).cycle().take(5000).collect(), "line 1: this is no trace"),
        ("cut", good.as_bytes()[..good.len() - 3].to_vec(), "line 30: the file ends in the middle"),
        ("noise-inside", good.replace("=11|P", "=11\u{1}P").into_bytes(), "line 10: the byte 0x01"),
        (
            "backwards",
            good.replace("1050 source", "1030 source").into_bytes(),
            "line 17: time runs backwards",
        ),
        (
            "unknown",
            good.replace("1050 source 1 sends", "1050 source 1 sings").into_bytes(),
            "line 17: \"1050 source 1 sings\" is no record",
        ),
    ];
    for (name, bytes, sentence) in cases {
        let trace = folder.write(name, bytes);
        for arguments in [vec!["replay", &trace], vec!["trace", "show", &trace], vec!["trace", "cut", &trace]]
        {
            let output = fortnight(&arguments);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}");
            let trouble = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(trouble.starts_with(&format!("fortnight: {trace}: {sentence}")), "{trouble}");
            assert_eq!(trouble.lines().count(), 1, "{trouble}");
        }
    }
    // The whole lines are played: the eleven events before the one that is cut.
    let cut = fortnight(&["replay", &folder.path("cut")]);
    assert!(String::from_utf8_lossy(&cut.stdout).contains("11 events"), "{cut:?}");
    let missing = fortnight(&["replay", &folder.path("missing")]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn show_tells_what_happened() {
    let trace = collection().join("takeover.trace");
    let shown = printed(&["trace", "show", trace.to_str().unwrap()]);
    let told: Vec<&str> = shown.lines().map(str::trim).collect();
    for line in [
        "0.000000                 user 1       connects",
        "7\\r\\n                        logs in as 7",
        "0.001000      +0.001000  source 1     sends 14 bytes",
        "1|P|1|7\\r\\n                  from 1 to 7",
        "2|B\\r\\n                      for everyone",
        "0.004000      +0.001000  user 3       connects",
        "0.004000                 user 3       closes",
    ] {
        assert!(told.contains(&line), "{line:?} is missing in:\n{shown}");
    }
}

#[test]
fn a_piece_is_a_trace_with_the_connections_that_were_there() {
    let folder = Folder::new("cut");
    let trace = collection().join("takeover.trace");
    let trace = trace.to_str().unwrap();
    let whole = folder.write("takeover.trace", printed(&["trace", "cut", trace]));
    printed(&["replay", &whole, "--expect", collection().to_str().unwrap()]);
    let piece = printed(&["trace", "cut", trace, "--from", "3ms", "--to", "0.005s"]);
    let records: Vec<&str> = piece.lines().filter(|line| !line.starts_with("option")).skip(2).collect();
    assert_eq!(
        records,
        [
            "3000 user 1 connects",
            "3000 user 1 sends",
            "=7",
            "3000 source 1 connects",
            "3000 user 2 connects",
            "3000 user 2 sends",
            "=7",
            "3000 source 1 sends",
            "=3|P|1|7",
            "=4|B",
            "4000 user 3 connects",
            "4000 user 3 sends",
            "=7",
            "4000 user 3 closes",
        ]
    );
    printed(&["replay", &folder.write("piece", piece)]);
}

#[test]
fn what_a_server_records_replays_as_it_was() {
    let folder = Folder::new("record");
    let trace = folder.path("recorded.trace");
    let server = server!(recordTrace = trace, eventTimeoutMs = -1, maxEventSourceClients = 2);
    let (mut first, mut second) = (server.user(1), server.user(2));
    server.pass();
    let mut source = server.source();
    // More than a record's worth of lines, and less.
    let events = each(1..=5000, |seq| format!("{seq}|B\r\n"));
    source.send(&events);
    source.send("5001|F|2|1\n5002|P|0|2\r\n5003|nonsense\\\u{7f}\n");
    first.expect(&events);
    first.expect("5001|F|2|1\n");
    second.expect(&events);
    second.expect("5002|P|0|2\r\n");
    drop(second);
    let mut again = server.user(2);
    let mut other = server.source();
    other.send("5004|S|1\n");
    again.expect("5004|S|1\n");
    server.stop();

    let report = printed(&["replay", &trace]);
    let (first, second) = (each(1..=5000, |seq| format!("{seq}|B\r\n")).len() + 11, events.len() + 12);
    for line in [
        format!("user 1 id 1 closed lines 5001 bytes {first}"),
        format!("user 2 id 2 closed lines 5001 bytes {second}"),
        "id 2 closed lines 1 bytes 9".to_owned(),
        "events_received=5004".to_owned(),
        "events_rejected_type=1".to_owned(),
        "users_disconnected_bad_login=3".to_owned(),
    ] {
        assert!(report.contains(&line), "{line:?} is missing in:\n{report}");
    }
    assert_eq!(report, printed(&["replay", &trace]));
    printed(&["trace", "show", &trace]);
}

#[test]
fn a_slow_user_is_recorded_and_replayed_as_one() {
    let folder = Folder::new("slow");
    let trace = folder.path("slow.trace");
    let server =
        server!(recordTrace = trace, eventTimeoutMs = -1, userBufferBytes = 1000, slowUserTimeoutMs = 100);
    let slow = server.narrow_user(1);
    let mut fast = server.user(2);
    server.pass();
    let source = server.source();
    let stream = support::stream::long_broadcasts(1..=20_000, 1000);
    let writer = source.send_in_background(stream.clone());
    fast.expect(&stream);
    writer.join().unwrap().unwrap();
    drop(slow);
    server.stop();
    let report = printed(&["replay", &trace]);
    assert!(report.contains("users_disconnected_slow=1"), "{report}");
    assert!(report.contains(&format!("user 2 id 2 closed lines 20000 bytes {}", stream.len())), "{report}");
}

#[test]
fn a_killed_server_leaves_a_whole_trace() {
    let folder = Folder::new("killed");
    let trace = folder.path("killed.trace");
    let mut server = server!(recordTrace = trace, eventTimeoutMs = -1);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send(each(1..=1000, |seq| format!("{seq}|P|2|1\n")));
    user.expect(each(1..=1000, |seq| format!("{seq}|P|2|1\n")));
    server.signal(Signal::KILL);
    while server.is_running() {
        std::thread::yield_now();
    }
    let report = printed(&["replay", &trace]);
    assert!(report.contains("events_received=1000 events_released_P=1000"), "{report}");
}

#[test]
fn a_replay_has_a_verdict_and_says_when_it_cannot_be_written() {
    let folder = Folder::new("verdict");
    let trace = folder.write("a.trace", "fortnight trace 1\n");
    let expect = folder.path("made/when/needed");
    printed(&["replay", &trace, "--expect", &expect, "--bless"]);
    assert_eq!(printed(&["replay", "--quiet", &trace, "--expect", &expect]), "1 trace, 0 differ\n");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_fortnight")).args(["replay", &trace]).stdout(full).status();
    assert_eq!(status.unwrap().code(), Some(1));
}

#[test]
fn verdict_and_differences_stand_at_the_end_and_in_a_file_for_build_servers() {
    let folder = Folder::new("junit");
    let text = fs::read_to_string(collection().join("order.trace")).unwrap();
    let (good, bad) = (folder.write("good.trace", &text), folder.write("bad.trace", &text));
    let damaged = folder.write("damaged.trace", "fortnight trace 1\nnonsense\n");
    let (expect, junit) = (folder.path(""), folder.path("junit.xml"));
    printed(&["replay", &good, &bad, "--expect", &expect, "--bless"]);
    folder.write("bad.trace", text.replace("=7|P|2|1", "=7|P|3|1"));
    let arguments = ["replay", &good, &bad, &damaged, "--expect", &expect, "--junit", &junit];
    let output = fortnight(&arguments);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stdout).unwrap();
    let difference =
        "user 1 (id 1), line 7\n    expected 7|P|2|1\\r\\n at 1110\n    got      7|P|3|1\\r\\n at 1110\n";
    assert!(said.ends_with(&format!("3 traces, 1 differ, 1 damaged\n{bad}: {difference}")), "{said}");
    let xml = fs::read_to_string(&junit).unwrap();
    for part in [
        "<testsuite name=\"fortnight replay\" tests=\"3\" failures=\"1\" errors=\"1\" skipped=\"0\">\n"
            .to_owned(),
        format!("<testcase classname=\"fortnight replay\" name=\"{good}\"/>\n"),
        format!("<failure message=\"user 1 (id 1), line 7\">{}</failure>", difference.trim_end()),
        "<error message=\"line 2: ".to_owned(),
    ] {
        assert!(xml.contains(&part), "{part} is missing in:\n{xml}");
    }
    let nowhere = fortnight(&["replay", &good, "--junit", "/nowhere/at/all.xml"]);
    assert_eq!(nowhere.status.code(), Some(1));
    let sentence = String::from_utf8(nowhere.stderr).unwrap();
    assert!(sentence.starts_with("fortnight: --junit: cannot write /nowhere/at/all.xml: "), "{sentence}");
}

#[test]
fn a_replay_prints_what_users_received() {
    let folder = Folder::new("shown");
    let mut text = String::from(
        "fortnight trace 1\n0 user 1 connects\n0 user 1 sends\n=60\n0 user 2 connects\n0 user 2 sends\n=7\n\
         1000 source 1 connects\n1000 source 1 sends\n-1|P|7|60\n=2|P|60|7\n1500000 source 1 sends\n",
    );
    let many = each(3..=302, |seq| format!("-{seq}|P|7|60\n"));
    text.push_str(&many);
    let trace = folder.write("a.trace", &text);
    let all = printed(&["replay", &trace, "--show", "all"]);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(
        lines[0],
        format!("{trace}: 302 events, 302 deliveries to 2 users in 1.500000 s of virtual time")
    );
    assert!(lines[1].starts_with("  user 1 id 60 open lines 301 "), "{all}");
    assert_eq!(lines[2..4], ["        0.001000  1|P|7|60\\n", "        1.500000  3|P|7|60\\n"]);
    assert_eq!(lines[302], "        1.500000  302|P|7|60\\n");
    assert_eq!(lines.len(), 305);
    // By the id, and by the number in the trace.
    for user in ["7", "2"] {
        let one = printed(&["replay", "--quiet", &trace, "--show", user]);
        let lines: Vec<&str> = one.lines().collect();
        assert_eq!(lines.len(), 3, "{one}");
        assert!(lines[1].starts_with("  user 2 id 7 open lines 1 "), "{one}");
        assert_eq!(lines[2], "        0.001000  2|P|60|7\\r\\n");
    }
    let nobody = fortnight(&["replay", &trace, "--show", "8"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(nobody.stderr).unwrap(),
        format!("fortnight: --show: there is no such user in {trace}\n")
    );
}

#[test]
fn an_expectation_without_end_and_a_name_that_commands_the_terminal_do_no_harm() {
    let folder = Folder::new("harm");
    let trace = folder.write("\u{1b}[2J\u{202e}.trace", "fortnight trace 1\n");
    let lines = u64::MAX;
    folder.write(
        "\u{1b}[2J\u{202e}.expected",
        format!(
            "fortnight expectation 1\nuser 1 id 1 open lines {lines} bytes 1 digest 0\nevents 0-{lines}\ncounters\n"
        ),
    );
    let folder = folder.path("");
    let output = fortnight(&["replay", &trace, "--expect", &folder]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("line 3") && !said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
}

#[test]
fn a_trace_that_cannot_be_written_any_further_is_no_reason_not_to_serve() {
    let folder = Folder::new("broken");
    let trace = folder.path("recorded.trace");
    let server = server!(recordTrace = trace, eventTimeoutMs = -1);
    // What would be SIGXFSZ, and the end of the server.
    let limit = Rlimit { current: Some(1000), maximum: None };
    let pid = Pid::from_raw(server.pid() as i32).unwrap();
    let unlimited = prlimit(Some(pid), Resource::Fsize, limit).unwrap();
    assert_eq!(unlimited.current, None, "the test needs no limit of its own");
    let mut user = server.user(1);
    let mut source = server.source();
    for seq in 1..=100 {
        source.send(format!("{seq}|P|2|1\n"));
        user.expect(format!("{seq}|P|2|1\n"));
    }
    let log = server.stop();
    assert_eq!(log.matches("recordTrace: the trace cannot be written any further").count(), 1, "{log}");
}

#[test]
fn a_trace_that_cannot_be_opened_is_a_reason_not_to_start() {
    let finished = launch!(recordTrace = "/nowhere/at/all").run();
    assert_eq!(finished.status, 1);
    assert!(finished.stderr.contains("recordTrace: cannot write /nowhere/at/all: "), "{}", finished.stderr);
}
