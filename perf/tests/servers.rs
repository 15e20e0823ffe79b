//! `maze` drives Fortnight itself and the limit server, in every shape, and measures both; and the naive server.

#[path = "support/binary.rs"]
mod binary;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::Duration;

use maze::process::{Addresses, Server};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SHAPES: [&str; 7] = ["maze", "broadcast", "dense", "private", "crowd", "celebrity", "celebrity-few"];
const MAZE: &str = env!("CARGO_BIN_EXE_maze");

fn fortnight() -> String {
    let ports = "--event-source-server-port 0 --user-server-port 0";
    format!(
        "'{}' {ports} --max-user-clients 12000 --max-event-source-clients 8 --log-level warn",
        binary::fortnight().display()
    )
}

fn limit(more: &str) -> String {
    format!("'{MAZE}' limit --event-source-server-port 0 --user-server-port 0 {more}")
}

fn naive() -> String {
    format!("'{MAZE}' naive --event-source-server-port 0 --user-server-port 0")
}

fn run(command: &str, server: &str, extra: &[&str]) -> (Output, Value) {
    let mut maze = Command::new(MAZE);
    maze.args([command, "--json", "--log-level", "warn", "--spawn", server]).args(extra);
    let output = maze.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{server} {extra:?}: {told}");
    assert!(told.contains("\\o/ ALL NOTIFICATIONS RECEIVED \\o/"), "{told}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["passed"], true);
    (output, json)
}

#[test]
fn fortnight_passes_every_shape() {
    for shape in SHAPES {
        let (_, json) = run("run", &fortnight(), &["--shape", shape, "--scale", "0.005"]);
        for figure in ["events", "deliveries", "server_cpu_ns", "server_peak_bytes"] {
            assert!(json[figure].as_u64().unwrap() > 0, "{shape}: {figure} {json:#}");
        }
    }
}

#[test]
fn fortnight_and_the_limit_pass_over_tls() {
    let folder = std::env::temp_dir().join(format!("maze-servers-tls-{}", std::process::id()));
    maze::access::make_certificates(&folder, &rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let file = |name: &str| folder.join(name).display().to_string();
    let certificate = format!("--tls-certificate {} --tls-key {}", file("server.pem"), file("server.key"));
    let tokens = format!("--user-token-key {}", file("token.pem"));
    let (authority, key) = (file("ca.pem"), file("token.key"));
    let journal = format!("--journal-directory {}", file("journal"));
    let server = format!("{} {certificate} --tls-ports users,sources", fortnight());
    let over_tls = ["--tls-ca", &authority, "--scale", "0.005"];
    for shape in ["maze", "private"] {
        run("run", &server, &[&over_tls[..], &["--shape", shape]].concat());
    }
    let events = ["--tls-ca", &authority, "--total-events", "40000", "--token-key", &key];
    for extra in [
        &["--slow", "3", "--slow-rate", "200000"][..],
        &["--churn", "20", "--churn-stay", "20", "--rate", "40000"],
    ] {
        run("run", &format!("{server} {tokens}"), &[&events[..], extra].concat());
    }
    let resumed = ["--resume", "--churn", "10"];
    run("run", &format!("{server} {tokens} {journal}"), &[&events[..], &resumed].concat());
    run("run", &limit(&certificate), &[&over_tls[..], &["--shape", "broadcast"]].concat());
    run("latency", &server, &["--tls-ca", &authority, "--rate", "20000", "--seconds", "0.2"]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn fortnight_passes_everything_that_the_original_never_had() {
    let quick = format!("{} --event-timeout-ms 200", fortnight());
    let events = ["--total-events", "40000"];
    for extra in [
        &["--line-end", "mixed"][..],
        &["--max-event-source-batch-size", "20000"],
        &["--max-event-source-batch-size", "1"],
        &["--holes", "0.01"],
        &["--duplicates", "0.1", "--garbage", "0.1"],
        &[
            "--holes",
            "0.001",
            "--duplicates",
            "0.05",
            "--garbage",
            "0.05",
            "--line-end",
            "mixed",
            "--sources",
            "4",
        ],
        &["--mix", "F1,U1,S8", "--number-of-users", "100"],
        &["--memory", "0"],
        &["--random-seed", "7", "--rate", "200000"],
        &["--slow", "3", "--slow-rate", "200000"],
        &["--churn", "20", "--churn-stay", "20", "--rate", "40000"],
    ] {
        run("run", &quick, &[&events[..], extra].concat());
    }
}

#[test]
fn with_a_journal_visitors_resume_and_slow_users_receive_everything() {
    let folder = std::env::temp_dir().join(format!("maze-servers-journal-{}", std::process::id()));
    let server =
        format!("{} --journal-directory {} --user-buffer-bytes 20000", fortnight(), folder.display());
    let visitors = ["--churn", "20", "--churn-stay", "20", "--rate", "100000", "--total-events", "100000"];
    let slow = ["--slow", "3", "--slow-rate", "30000"];
    let (_, json) = run("run", &server, &[&visitors[..], &slow].concat());
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(json["resumes"].as_u64().unwrap() > 100, "{json:#}");
    assert_eq!(json["cut_off"], 0, "{json:#}");
}

#[test]
fn limit_moves_the_same_bytes_in_every_shape() {
    for shape in SHAPES {
        let (_, own) = run("run", &fortnight(), &["--shape", shape, "--scale", "0.002"]);
        let (_, limit) = run("run", &limit(""), &["--shape", shape, "--scale", "0.002"]);
        // What moved before the clock started differs where the limit's shares are rounded down.
        let same = |name: &str| own[name].as_u64().unwrap().abs_diff(limit[name].as_u64().unwrap());
        assert_eq!(same("deliveries"), 0, "{shape}");
        assert_eq!(same("bytes"), 0, "{shape}");
        assert_eq!(same("source_bytes"), 0, "{shape}");
    }
}

#[test]
fn limit_works_out_its_own_plan() {
    let load = ["--total-events", "20000", "--random-seed", "5"];
    // Given the same options it needs no plan from the outside.
    let server = limit(&load.join(" ")).replace("limit", "limit --plan=/dev/null");
    let output = Command::new(MAZE).args(["run", "--spawn", &server]).args(load).output().unwrap();
    assert!(!output.status.success(), "a plan that is no plan is refused");
    run("run", &limit(&load.join(" ")), &load);
}

#[test]
fn naive_passes_what_the_original_had_and_users_who_come_and_go() {
    let events = ["--total-events", "20000"];
    for extra in [
        &[][..],
        &["--line-end", "mixed", "--max-event-source-batch-size", "5000"],
        &["--sources", "4"],
        &["--mix", "F1,U1,S8", "--number-of-users", "100"],
        &["--churn", "20", "--churn-stay", "20", "--rate", "20000"],
    ] {
        run("run", &naive(), &[&events[..], extra].concat());
    }
}

#[test]
fn naive_begins_anew_when_everybody_has_gone() {
    let nowhere = Addresses::resolve("127.0.0.1", 1, 1).unwrap();
    let server = Server::start(&naive(), &[], None, nowhere).unwrap();
    let ports = [server.addresses.source, server.addresses.users].map(|at| at.port().to_string());
    for seed in ["1", "2", "3"] {
        let output = Command::new(MAZE)
            .args(["run", "--total-events", "3000", "--log-level", "warn", "--random-seed", seed])
            .args(["--event-listener-port", &ports[0], "--client-listener-port", &ports[1]])
            .output()
            .unwrap();
        assert!(output.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

/// Of what a busy machine leaves to be seen at once, the end of the last run is first.
#[test]
fn naive_begins_anew_when_the_next_run_comes_at_once() {
    let nowhere = Addresses::resolve("127.0.0.1", 1, 1).unwrap();
    let server = Server::start(&naive(), &[], None, nowhere).unwrap();
    let pid = Pid::from_raw(server.pid().try_into().unwrap()).unwrap();
    let run = || {
        let mut user = TcpStream::connect(server.addresses.users).unwrap();
        user.write_all(b"1\n").unwrap();
        let mut source = TcpStream::connect(server.addresses.source).unwrap();
        source.write_all(b"1|B\n").unwrap();
        (user, source)
    };
    let received = |(mut user, source): (TcpStream, TcpStream)| {
        user.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut line = [0; 4];
        user.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"1|B\n");
        (user, source)
    };
    let first = received(run());
    kill_process(pid, Signal::STOP).unwrap();
    drop(first);
    let next = run();
    kill_process(pid, Signal::CONT).unwrap();
    received(next);
}

#[test]
fn latency_is_measured_of_both() {
    for server in [fortnight(), limit("--forward")] {
        let svg = std::env::temp_dir().join(format!("maze-latency-{}.svg", std::process::id()));
        let more = ["--rate", "20000", "--seconds", "0.5", "--sleep", "--svg", svg.to_str().unwrap()];
        let (output, json) = run("latency", &server, &more);
        let picture = std::fs::read_to_string(&svg).unwrap();
        std::fs::remove_file(&svg).unwrap();
        assert!(picture.starts_with("<svg") && picture.contains("microseconds"));
        let latency = &json["latency"];
        assert_eq!(latency["count"], json["deliveries"], "{json:#}");
        let value = |name: &str| latency[name].as_u64().unwrap();
        assert!(
            value("p50_ns") > 0 && value("p50_ns") <= value("p99_ns") && value("p99_ns") <= value("max_ns")
        );
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(["p50 ", "p99.99 ", "max "].iter().all(|name| told.contains(name)), "{told}");
    }
}

#[test]
fn latency_of_a_server_that_is_not_there_fails() {
    let output = Command::new(MAZE).args(["latency", "--client-listener-port", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn bench_writes_tables_figures_and_plots() {
    let out = std::env::temp_dir().join(format!("maze-bench-{}", std::process::id()));
    let output = Command::new(MAZE)
        .args(["bench", "shapes", "batches", "--scale", "0.001", "--pairs", "1", "--shapes", "maze,private"])
        .args(["--server", &fortnight(), "--out", out.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shapes: Value = serde_json::from_slice(&std::fs::read(out.join("shapes.json")).unwrap()).unwrap();
    let rows = shapes["figures"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    // So little work can take no time at all by the system's clock: the figures are there, whatever they are.
    assert!(rows.iter().all(|row| row["cpu_ratio"].is_object()), "{rows:#?}");
    assert!(rows.iter().all(|row| row["deliveries"].as_u64().unwrap() > 0), "{rows:#?}");
    assert!(!shapes["machine"]["commit"].as_str().unwrap().is_empty());
    assert!(std::fs::read_to_string(out.join("shapes.md")).unwrap().contains("| `private` |"));
    assert!(std::fs::read_to_string(out.join("batches.svg")).unwrap().starts_with("<svg"));
    std::fs::remove_dir_all(&out).unwrap();
}

#[test]
fn a_server_that_prints_nothing_is_found_on_its_ports() {
    // It prints, but nobody sees it.
    let free =
        || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let (source, users) = (free(), free());
    let load = "--total-events 1000";
    let server = format!(
        "sh -c 'exec {MAZE} limit {load} --event-source-server-port {source} --user-server-port {users} >/dev/null'"
    );
    let ports = ["--event-listener-port", &source, "--client-listener-port", &users];
    run("run", &server, &[&ports[..], &["--total-events", "1000", "--expect-pattern"]].concat());
}
