//! SPEC section 6: every metric, against traffic that is known.

use std::collections::HashMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::stream::{each, long_broadcasts};
use support::{Server, Signal, server};

/// Every metric with its type, every label with its values.
const METRICS: [(&str, &str, &str, &[&str]); 23] = [
    ("events_received_total", "counter", "", &[]),
    ("events_released_total", "counter", "type", &["F", "U", "B", "P", "S"]),
    ("events_late_total", "counter", "", &[]),
    ("events_duplicate_total", "counter", "", &[]),
    (
        "events_rejected_total",
        "counter",
        "reason",
        &["sequence", "type", "fields", "user_id", "too_long", "truncated", "too_far"],
    ),
    ("sequence_skipped_total", "counter", "", &[]),
    ("cursor", "gauge", "", &[]),
    ("reorder_waiting", "gauge", "", &[]),
    ("reorder_capacity", "gauge", "", &[]),
    ("deliveries_total", "counter", "", &[]),
    ("delivered_bytes_total", "counter", "", &[]),
    ("output_buffered_bytes", "gauge", "", &[]),
    ("users_connected", "gauge", "", &[]),
    ("sources_connected", "gauge", "", &[]),
    ("connections_rejected_total", "counter", "listener", &["source", "user", "admin", "stream"]),
    ("connections_refused_total", "counter", "reason", &["proxy", "tls", "timeout", "error"]),
    (
        "users_disconnected_total",
        "counter",
        "reason",
        &[
            "closed",
            "left",
            "slow",
            "replaced",
            "login_timeout",
            "bad_login",
            "error",
            "gone",
            "epoch",
            "bad_token",
            "token_expired",
        ],
    ),
    ("users_catching_up", "gauge", "", &[]),
    ("users_farthest_behind", "gauge", "", &[]),
    ("resumed_total", "counter", "result", &["ok", "gone", "epoch"]),
    ("source_paused_seconds_total", "counter", "reason", &["slow_user", "ring_full", "journal", "stream"]),
    ("follow_edges", "gauge", "", &[]),
    ("loop_turns_total", "counter", "", &[]),
];

/// What tells of times, of memory and of the version: nobody knows the values before.
const OF_THE_MOMENT: [(&str, &str); 11] = [
    ("fortnight_delivery_seconds", "histogram"),
    ("fortnight_reorder_wait_seconds", "histogram"),
    ("fortnight_loop_turn_seconds", "histogram"),
    ("fortnight_build_info", "gauge"),
    ("fortnight_uptime_seconds", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_max_fds", "gauge"),
    ("process_start_time_seconds", "gauge"),
];

fn is_of_the_moment(name: &str) -> bool {
    OF_THE_MOMENT.iter().any(|(moment, _)| name.starts_with(moment))
}

/// Compares metrics; what is not named must be 0, except the turns of the loop and what is of the moment.
#[track_caller]
fn expect(server: &Server, wanted: &[(&str, f64)]) {
    let wanted: HashMap<_, _> =
        wanted.iter().map(|(name, value)| (format!("fortnight_{name}"), *value)).collect();
    let metrics = server.metrics();
    for name in wanted.keys() {
        assert!(metrics.contains_key(name), "no metric {name}");
    }
    for (name, value) in metrics {
        let is_of_tls = support::over_tls() && name == "fortnight_tls_certificate_expiry_timestamp_seconds";
        if name != "fortnight_loop_turns_total" && !is_of_tls && !is_of_the_moment(&name) {
            assert_eq!(value, wanted.get(&name).copied().unwrap_or(0.0), "{name}");
        }
    }
}

fn disconnected(reason: &str) -> String {
    format!("fortnight_users_disconnected_total{{reason=\"{reason}\"}}")
}

fn paused(reason: &str) -> String {
    format!("fortnight_source_paused_seconds_total{{reason=\"{reason}\"}}")
}

#[test]
fn every_metric_is_there_from_the_start_and_nothing_else() {
    if support::only_in_clear("there is one metric more, when the certificate runs out") {
        return;
    }
    let server = server!(adminPort = 0);
    let body = server.get("/metrics").body;
    let mut wanted = Vec::new();
    let mut types = Vec::new();
    for (name, kind, label, values) in METRICS {
        types.push(format!("# TYPE fortnight_{name} {kind}"));
        if values.is_empty() {
            wanted.push(format!("fortnight_{name}"));
        }
        wanted.extend(values.iter().map(|value| format!("fortnight_{name}{{{label}=\"{value}\"}}")));
    }
    let names: Vec<_> = body
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .filter(|name| !is_of_the_moment(name))
        .collect();
    assert_eq!(names, wanted);
    types.extend(OF_THE_MOMENT.map(|(name, kind)| format!("# TYPE {name} {kind}")));
    assert_eq!(body.lines().filter(|line| line.starts_with("# TYPE ")).collect::<Vec<_>>(), types);
    assert_eq!(body.lines().filter(|line| line.starts_with("# HELP ")).count(), types.len());
    expect(&server, &[("cursor", 1.0), ("reorder_capacity", 65_536.0)]);
}

#[test]
fn delays_are_counted_for_every_event_and_waiting_for_those_that_had_to() {
    let server = server!(adminPort = 0, eventTimeoutMs = 40);
    let mut user = server.user(1);
    let mut source = server.source();
    // 2 comes too late for nobody, 5 does not come at all; 6 is no event.
    source.send("1|B\n3|B\n4|P|9|9\n");
    user.expect("1|B\n");
    source.send("2|B\n");
    user.expect("2|B\n3|B\n");
    source.send("6|X\n7|B\n");
    user.expect("7|B\n");
    let metrics = server.metrics();
    assert_eq!(metrics["fortnight_delivery_seconds_count"], 5.0);
    assert_eq!(metrics["fortnight_delivery_seconds_bucket{le=\"+Inf\"}"], 5.0);
    assert_eq!(metrics["fortnight_reorder_wait_seconds_count"], 3.0, "3, 4 and 7");
    assert!(metrics["fortnight_reorder_wait_seconds_sum"] >= 0.04, "7 waited for the timeout");
    assert!(metrics["fortnight_delivery_seconds_sum"] >= metrics["fortnight_reorder_wait_seconds_sum"]);
    assert!(metrics["fortnight_loop_turn_seconds_count"] >= 3.0);
    assert!(metrics["fortnight_uptime_seconds"] > 0.0);
    assert_eq!(metrics[&format!("fortnight_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], 1.0);
    assert!(metrics["process_resident_memory_bytes"] > 0.0);
    assert!(metrics["process_open_fds"] >= 6.0 && metrics["process_max_fds"] >= metrics["process_open_fds"]);
    assert!(metrics["process_start_time_seconds"] > 1e9 && metrics["process_cpu_seconds_total"] >= 0.0);
}

#[test]
fn prometheus_own_checker_finds_nothing_wrong() {
    let server = server!(adminPort = 0);
    let checker = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut checker) = checker else {
        support::skipped("promtool is not installed (Debian package prometheus)");
        return;
    };
    checker.stdin.take().unwrap().write_all(server.get("/metrics").body.as_bytes()).unwrap();
    let output = checker.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn events_and_deliveries_are_counted() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1, maxEventBytes = 64, firstSequence = 10);
    let (mut one, mut two) = (server.user(1), server.user(2));
    let mut source = server.source();
    // 2 follows 1, 3 follows 1, 3 no longer does.
    source.send("10|F|2|1\n11|F|3|1\r\n12|U|3|1\n13|B\n14|P|2|1\n15|P|2|9\n16|S|1\n17|S|9\n");
    // Late, waiting, duplicate, an empty line.
    source.send("9|B\n16|B\n20|B\n21|P|1|2\n20|B\n\n");
    one.expect("10|F|2|1\n11|F|3|1\r\n13|B\n14|P|2|1\n");
    two.expect("13|B\n16|S|1\n");
    server.wait_for_metric("fortnight_events_received_total", |received| received == 13.0);
    let sent_bytes = (9 + 10 + 5 + 9 + 5 + 7) as f64;
    let counts = [
        ("events_received_total", 13.0),
        ("events_released_total{type=\"F\"}", 2.0),
        ("events_released_total{type=\"U\"}", 1.0),
        ("events_released_total{type=\"B\"}", 1.0),
        ("events_released_total{type=\"P\"}", 2.0),
        ("events_released_total{type=\"S\"}", 2.0),
        ("events_late_total", 2.0),
        ("events_duplicate_total", 1.0),
        ("cursor", 18.0),
        ("reorder_waiting", 2.0),
        ("reorder_capacity", 65_536.0),
        ("deliveries_total", 6.0),
        ("delivered_bytes_total", sent_bytes),
        ("users_connected", 2.0),
        ("sources_connected", 1.0),
        ("follow_edges", 1.0),
    ];
    expect(&server, &counts);
    // Lines that are no events. Their numbers, where they have one, are used up.
    let long = "x".repeat(64);
    source.send(format!("x|B\n18|X\n19|B|1\n22|P|a|b\n23|{long}\n24|B"));
    source.finish();
    two.expect("20|B\n21|P|1|2\n");
    let mut after = counts.to_vec();
    after.retain(|(name, _)| {
        ![
            "events_received_total",
            "cursor",
            "sources_connected",
            "reorder_waiting",
            "events_released_total{type=\"B\"}",
            "events_released_total{type=\"P\"}",
            "deliveries_total",
            "delivered_bytes_total",
        ]
        .contains(name)
    });
    after.extend([
        ("events_received_total", 18.0),
        ("events_released_total{type=\"B\"}", 2.0),
        ("events_released_total{type=\"P\"}", 3.0),
        ("events_rejected_total{reason=\"sequence\"}", 1.0),
        ("events_rejected_total{reason=\"type\"}", 1.0),
        ("events_rejected_total{reason=\"fields\"}", 1.0),
        ("events_rejected_total{reason=\"user_id\"}", 1.0),
        ("events_rejected_total{reason=\"too_long\"}", 1.0),
        ("events_rejected_total{reason=\"truncated\"}", 1.0),
        ("cursor", 24.0),
        ("deliveries_total", 9.0),
        ("delivered_bytes_total", sent_bytes + 5.0 + 5.0 + 9.0),
    ]);
    expect(&server, &after);
}

#[test]
fn numbers_given_up_on_are_counted() {
    let server = server!(adminPort = 0, eventTimeoutMs = 50);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("3|B\n7|B\n");
    user.expect("3|B\n7|B\n");
    assert_eq!(server.metric("fortnight_sequence_skipped_total"), 5.0);
    assert_eq!(server.metric("fortnight_cursor"), 8.0);
}

#[test]
fn the_largest_numbers_are_exact() {
    let server = server!(adminPort = 0, firstSequence = u64::MAX);
    let (mut user, mut source) = (server.user(1), server.source());
    assert!(server.get("/metrics").body.contains("\nfortnight_cursor 18446744073709551615\n"));
    source.send("18446744073709551615|B\n");
    user.expect("18446744073709551615|B\n");
    assert!(server.get("/metrics").body.contains("\nfortnight_cursor 18446744073709551616\n"));
    assert!(server.get("/status.json").body.contains("\"cursor\":\"18446744073709551616\""));
}

#[test]
fn connections_are_counted_and_why_they_ended() {
    let server = server!(adminPort = 0, maxUserClients = 2, eventTimeoutMs = -1);
    let mut first = server.user(1);
    let mut source = server.source();
    source.send("1|B\n");
    first.expect("1|B\n");
    // Replaced.
    let mut second = server.user(1);
    first.expect_eof();
    source.send("2|B\n");
    second.expect("2|B\n");
    assert_eq!(server.metric(&disconnected("replaced")), 1.0);
    // Not logged in.
    let mut bad = server.stranger();
    bad.send("one\n");
    bad.expect_closed();
    assert_eq!(server.metric(&disconnected("bad_login")), 1.0);
    // One too many of each.
    let mut third = server.user(3);
    source.send("3|B\n");
    third.expect("3|B\n");
    server.stranger().expect_closed();
    server.source().expect_closed();
    assert_eq!(server.metric("fortnight_connections_rejected_total{listener=\"user\"}"), 1.0);
    assert_eq!(server.metric("fortnight_connections_rejected_total{listener=\"source\"}"), 1.0);
    assert_eq!(server.metric("fortnight_users_connected"), 2.0);
    // Left: in an orderly way, and not.
    second.finish();
    second.read_to_close();
    third.vanish();
    server.wait_for_metric(&disconnected("left"), |left| left == 2.0);
    assert_eq!(server.metric("fortnight_users_connected"), 0.0);
    source.finish();
    assert_eq!(server.metric("fortnight_sources_connected"), 0.0);
    assert_eq!(server.metric(&disconnected("error")), 0.0);
}

#[test]
fn logins_that_did_not_come_are_counted() {
    let server = server!(adminPort = 0, loginTimeoutMs = 50);
    server.stranger().expect_closed();
    assert_eq!(server.metric(&disconnected("login_timeout")), 1.0);
}

#[test]
fn a_slow_user_is_seen_in_every_number_that_it_changes() {
    let server =
        server!(adminPort = 0, eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 4000);
    let (mut slow, mut fast) = (server.narrow_user(1), server.user(2));
    let stream = long_broadcasts(1..=32_000, 1000);
    let began = Instant::now();
    let writer = server.source().send_in_background(stream.clone());
    let got = fast.expect_until_quiet(&stream, Duration::from_millis(300));
    // In the middle of the pause its time is told as it is.
    let asked = Instant::now();
    let early = server.wait_for_metric(&paused("slow_user"), |seconds| seconds > 0.0);
    let later = server.wait_for_metric(&paused("slow_user"), |seconds| seconds > early + 0.2);
    assert!(later - early <= asked.elapsed().as_secs_f64(), "faster than time");
    assert!(server.metric("fortnight_output_buffered_bytes") > 65_536.0);
    let status = server.get("/status.json").body;
    assert!(status.contains("\"slow_users\":1,\"slow\":[{\"id\":\"1\",\"buffered_bytes\":"), "{status}");
    assert!(status.contains("\"pauses\":[{\"reason\":\"slow_user\",\"sources\":1,"), "{status}");
    // It is healthy: the pause ends by itself.
    assert_eq!(server.get("/healthz").status, 200);
    fast.expect(&stream[got..]);
    writer.join().unwrap().unwrap();
    assert_eq!(server.metric(&disconnected("slow")), 1.0);
    assert_eq!(server.metric("fortnight_output_buffered_bytes"), 0.0);
    let total = server.metric(&paused("slow_user"));
    assert!(total >= 4.0 && total <= began.elapsed().as_secs_f64(), "paused for {total} s");
    assert_eq!(server.metric(&paused("slow_user")), total, "it is over");
    assert_eq!(server.metric(&paused("ring_full")), 0.0);
    slow.read_to_close();
}

#[test]
fn a_full_ring_is_seen_in_every_number_that_it_changes() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1, reorderCapacity = 8, maxEventSourceClients = 2);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send(each(2..=20, |number| format!("{number}|B\n")));
    server.wait_for_log("the ring is full");
    let metrics = server.metrics();
    assert_eq!(metrics["fortnight_reorder_waiting"], 7.0);
    assert_eq!(metrics["fortnight_reorder_capacity"], 8.0);
    assert_eq!(metrics["fortnight_cursor"], 1.0);
    let early = metrics[&paused("ring_full")];
    server.wait_for_metric(&paused("ring_full"), |seconds| seconds > early + 0.2);
    let status = server.get("/status.json").body;
    assert!(status.contains("\"pauses\":[{\"reason\":\"ring_full\",\"sources\":1,"), "{status}");
    assert!(status.contains("\"hole\":{\"waited_us\":"), "{status}");
    assert!(status.contains("\"given_up_in_us\":null"), "{status}");
    server.source().send("1|B\n");
    user.expect(each(1..=20, |number| format!("{number}|B\n")));
    let total = server.metric(&paused("ring_full"));
    assert_eq!(server.metric(&paused("ring_full")), total, "it is over");
    assert_eq!(server.metric(&paused("slow_user")), 0.0);
    assert!(server.get("/status.json").body.contains("\"hole\":null"));
}

#[test]
fn what_the_ring_waits_for_is_told_with_its_time() {
    let server = server!(adminPort = 0, eventTimeoutMs = 600_000);
    let (mut user, mut source) = (server.user(1), server.source());
    source.send("1|B\n3|B\n");
    user.expect("1|B\n");
    server.wait_for_metric("fortnight_reorder_waiting", |waiting| waiting == 1.0);
    let field = |name: &str| {
        let status: serde_json::Value = serde_json::from_str(&server.get("/status.json").body).unwrap();
        assert_eq!(status["cursor"], "2");
        status["hole"][name].as_u64().unwrap()
    };
    let (waited, left) = (field("waited_us"), field("given_up_in_us"));
    std::thread::sleep(Duration::from_millis(20));
    assert!(field("waited_us") >= waited + 20_000);
    assert!(field("given_up_in_us") + 20_000 <= left);
    assert!(left <= 600_000_000 && left > 500_000_000);
}

#[test]
fn the_loop_turns_only_when_there_is_something_to_do() {
    let server = server!(adminPort = 0);
    let turns = || server.metric("fortnight_loop_turns_total");
    let first = turns();
    std::thread::sleep(Duration::from_millis(300));
    let second = turns();
    assert!(second > first && second < first + 100.0, "{first} to {second}");
}

#[test]
fn history_goes_back_to_the_start_and_agrees_with_the_counters() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1);
    let (mut user, mut source) = (server.user(1), server.source());
    source.send(each(1..=1000, |number| format!("{number}|B\n")));
    user.expect(each(1..=1000, |number| format!("{number}|B\n")));
    type Sample = (u64, u64, u64, Option<u64>, Option<u64>);
    let history = || -> Vec<Sample> { serde_json::from_str(&server.get("/history.json").body).unwrap() };
    let deadline = Instant::now() + support::DEADLINE;
    while history().last().unwrap().1 < 1000 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    let history = history();
    assert_eq!((history[0].1, history[0].2), (0, 0));
    let last = history.last().unwrap();
    assert_eq!((last.1, last.2), (1000, 1000));
    assert!(history.is_sorted_by_key(|sample| sample.0));
    // The percentiles stand with the sample in whose second the events were handed out.
    let (_, _, _, median, p99) = history.iter().find(|sample| sample.1 == 1000).unwrap();
    assert!(median.unwrap() <= p99.unwrap());
}

#[test]
fn metrics_are_served_while_the_server_drains() {
    let mut server = server!(
        adminPort = 0,
        eventTimeoutMs = -1,
        userBufferBytes = 100_000_000,
        shutdownTimeoutMs = 600_000
    );
    let (mut slow, mut fast) = (server.narrow_user(1), server.user(2));
    let stream = long_broadcasts(1..=20_000, 1000);
    let source = server.source();
    let writer = source.send_in_background(stream.clone());
    fast.expect(&stream);
    writer.join().unwrap().unwrap();
    server.signal(Signal::TERM);
    source.expect_eof();
    let before = server.metric("fortnight_output_buffered_bytes");
    assert!(before > 0.0);
    slow.expect(&stream[..10_000_000]);
    server.wait_for_metric("fortnight_output_buffered_bytes", |bytes| bytes < before);
    slow.expect(&stream[10_000_000..]);
    assert_eq!(server.exit_status(), 0);
}
