//! Who is connected: `/status.json` and `/clients.json`.

use serde_json::Value;
use std::time::{Duration, Instant};
use support::{
    DEADLINE, Server, server,
    stream::{each, long_broadcasts},
};

fn get(server: &Server, path: &str) -> Value {
    serde_json::from_str(&server.get(path).body).unwrap()
}

/// Waits until the status is as expected.
#[track_caller]
fn wait_for_status(server: &Server, is_right: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let status = get(server, "/status.json");
        if is_right(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn users(status: &Value) -> &[Value] {
    status["people"]["users"].as_array().unwrap()
}

#[test]
fn the_status_names_the_source_and_the_users_that_take_most() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1, maxUserClients = 100);
    let mut connected: Vec<_> = (1..=60).map(|id| server.user(id)).collect();
    let mut source = server.source();
    source.send(each(1..=300, |number| {
        format!("{number}|P|1|{}\n", if number > 100 { 7 } else { number % 60 + 1 })
    }));
    connected[6].read_through("\n300|P|1|7\n");
    let status = wait_for_status(&server, |status| status["people"]["sources"][0]["lines"] == 300);
    let named = users(&status);
    assert!(named.len() < 60, "{} users are named", named.len());
    let most = named.iter().find(|user| user["id"] == "7").unwrap();
    assert!(most["bytes"].as_u64().unwrap() > 2000 && most["waiting_bytes"] == 0, "{most}");
    assert!(named.iter().all(|other| other["bytes"].as_u64() <= most["bytes"].as_u64()));
    let source = &status["people"]["sources"][0];
    assert!(source["bytes"].as_u64().unwrap() > 2900 && source["name"].is_null(), "{source}");
    assert!(source["age_us"].as_u64() >= source["silent_for_us"].as_u64(), "{source}");
    assert!(status["people"]["looked_at"].as_u64().unwrap() >= 60);
    assert!(status["memory_bound_bytes"].as_u64().unwrap() > status["buffered_bytes"].as_u64().unwrap());
}

#[test]
fn a_user_that_does_not_read_is_listed_first_with_its_waiting_bytes() {
    let server =
        server!(adminPort = 0, eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 600_000);
    let (slow, source) = (server.narrow_user(77), server.source());
    let writer = source.send_in_background(long_broadcasts(1..=32_000, 1000));
    let waits = |user: &Value| user["id"] == "77" && user["waiting_bytes"].as_u64() > Some(65_536);
    let status = wait_for_status(&server, |status| users(status).iter().any(waits));
    assert_eq!(users(&status)[0]["is_slow"], true);
    drop((slow, source));
    let _ = writer.join().unwrap();
}

#[test]
fn every_connection_is_on_some_page() {
    let server = server!(adminPort = 0, maxUserClients = 3000);
    let connected: Vec<_> = (1..=1500).map(|id| server.user(id)).collect();
    server.wait_for_metric("fortnight_users_connected", |users| users == 1500.0);
    let (mut from, mut ids, mut pages) = (0, Vec::<u64>::new(), 0);
    loop {
        let page = get(&server, &format!("/clients.json?from={from}"));
        for user in page["users"].as_array().unwrap() {
            ids.push(user["id"].as_str().unwrap().parse().unwrap());
        }
        pages += 1;
        match page["next"].as_u64() {
            Some(next) => from = next,
            None => break,
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=1500).collect::<Vec<u64>>());
    assert_eq!(pages, 2);
    drop(connected);
}

#[test]
fn the_command_lists_every_connection_in_the_order_that_is_asked_for() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1);
    let (mut one, mut two, mut source) = (server.user(11), server.user(2), server.source());
    source.send("?|ack|feed\n1|B\n2|P|1|2\n");
    one.expect("1|B\n");
    two.expect("1|B\n2|P|1|2\n");
    let authority = support::line::authority_of(server.admin());
    let scheme = if authority.is_some() { "https" } else { "http" };
    let admin = format!("{scheme}://{}", server.admin());
    let clients = |arguments: &[&str]| {
        let mut launch = support::launch!().flag("clients").flag("--admin").flag(&admin);
        if let Some(authority) = &authority {
            launch = launch.flag("--tls-ca").flag(authority);
        }
        for argument in arguments {
            launch = launch.flag(argument);
        }
        launch.run()
    };
    let listed = clients(&["--sort", "id"]);
    assert_eq!(listed.status, 0, "{}", listed.stderr);
    let lines: Vec<Vec<&str>> = listed.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..2], ["SOURCE", "NAME"]);
    assert_eq!((lines[1][1], lines[1][5]), ("feed", "2"), "{}", listed.stdout);
    assert_eq!((lines[3][0], lines[4][0], lines[5][0]), ("USER", "2", "11"), "{}", listed.stdout);
    assert_eq!(lines[4].last(), Some(&"live"));
    let first = clients(&["--sort", "bytes", "--limit", "1"]);
    assert!(first.stdout.ends_with("live\nand 1 more\n"), "{}", first.stdout);
    assert!(first.stdout.contains("\n2  "), "{}", first.stdout);
    let json: Value = serde_json::from_str(&clients(&["--json"]).stdout).unwrap();
    assert_eq!(json["users"].as_array().unwrap().len(), 2);
    let refused = clients(&["--sort", "height"]);
    assert_eq!(refused.status, 2);
    assert_eq!(
        refused.stderr,
        "fortnight: --sort: \"height\" is not accepted; expected rate, waiting, behind, bytes, age or id\n"
    );
    server.stop();
    assert_eq!(clients(&[]).status, 1);
}

#[test]
fn warnings_of_the_log_are_in_the_status() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1);
    assert_eq!(get(&server, "/status.json")["warnings"], Value::Array(Vec::new()));
    let mut source = server.source();
    source.send("nonsense\n");
    let status = wait_for_status(&server, |status| status["warnings"] != Value::Array(Vec::new()));
    let warning = &status["warnings"][0];
    assert_eq!(warning["level"], "warn");
    assert!(warning["text"].as_str().unwrap().contains("nonsense"), "{warning}");
    assert!(warning["at_ms"].as_u64().unwrap() > 1_500_000_000_000);
}
