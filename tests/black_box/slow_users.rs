//! SPEC section 3: users that cannot keep up, under both policies.
//!
//! A *narrow* user's side of the connection takes in little ahead of its reader, so a user that does not read
//! is soon behind. The streams are longer than everything that the sockets could hold.

use std::time::Duration;

use support::stream::{long_broadcast, long_broadcasts};
use support::{Source, User, server};

/// Bytes of an event in these tests.
const EVENT_BYTES: usize = 1000;

/// How long nothing must come before a user is taken to be held up. Too short a time would only make a test
/// show less than it could.
const QUIET: Duration = Duration::from_millis(400);

#[test]
fn while_a_user_is_behind_sources_are_not_read() {
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 600_000);
    let (mut slow, mut fast) = (server.narrow_user(1), server.user(2));
    let source = server.source();
    let before = server.peak_memory();
    let stream = long_broadcasts(1..=32_000, EVENT_BYTES);
    let writer = source.send_in_background(stream.clone());
    // The fast one is held up with the slow one.
    let got = fast.expect_until_quiet(&stream, QUIET);
    assert!(got < stream.len(), "sources were read while a user was behind");
    assert!(!writer.is_finished());
    let grown = server.peak_memory() - before;
    assert!(grown < 12 << 20, "the server grew by {grown} bytes");
    // Reading resumes with the slow one, and nothing is lost for either.
    let reader = read_in_background(slow, &stream);
    fast.expect(&stream[got..]);
    slow = reader.join().unwrap();
    writer.join().unwrap().unwrap();
    let mut source = source;
    source.send("32001|B\n");
    slow.expect("32001|B\n");
    fast.expect("32001|B\n");
}

#[test]
fn no_event_is_dropped_for_a_user_that_reads_slowly() {
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 10_000, slowUserTimeoutMs = 600_000);
    let mut users: Vec<_> = (1..=5).map(|id| server.narrow_user(id)).collect();
    let stream = long_broadcasts(1..=3000, EVENT_BYTES);
    let writer = server.source().send_in_background(stream.clone());
    // Each in turn reads a few bytes, and so all of them are behind most of the time.
    for part in stream.chunks(7777) {
        for user in &mut users {
            user.expect(part);
        }
    }
    writer.join().unwrap().unwrap();
}

#[test]
fn a_user_that_stays_behind_is_disconnected_and_the_others_go_on() {
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 300);
    let (mut slow, mut fast) = (server.narrow_user(1), server.user(2));
    let source = server.source();
    let stream = long_broadcasts(1..=32_000, EVENT_BYTES);
    let writer = source.send_in_background(stream.clone());
    // The fast one gets everything, which it could not while the slow one was there: see above.
    fast.expect(&stream);
    writer.join().unwrap().unwrap();
    server.wait_for_log_of(&["slow", "behind"]);
    expect_cut_off(&mut slow, &stream);
    // It may come back.
    let mut slow = server.user(1);
    let mut source = source;
    source.send("32001|B\n");
    slow.expect("32001|B\n");
    fast.expect("32001|B\n");
}

#[test]
fn several_users_that_stay_behind_are_disconnected() {
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 300);
    let mut slow: Vec<_> = (1..=20).map(|id| server.narrow_user(id)).collect();
    let mut fast = server.user(21);
    let stream = long_broadcasts(1..=16_000, EVENT_BYTES);
    let writer = server.source().send_in_background(stream.clone());
    fast.expect(&stream);
    writer.join().unwrap().unwrap();
    for user in &mut slow {
        expect_cut_off(user, &stream);
    }
}

#[test]
fn a_user_that_is_behind_again_and_again_but_never_for_long_stays() {
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 3000);
    let (mut slow, mut fast) = (server.narrow_user(1), server.user(2));
    let mut source = server.source();
    let mut behind = Duration::ZERO;
    let mut next = 1;
    // Behind for longer than slowUserTimeoutMs in all, but with breaks.
    while behind < Duration::from_millis(3600) {
        let last = next + 15_999;
        let stream = long_broadcasts(next..=last, EVENT_BYTES);
        let writer = source.send_in_background(stream.clone());
        let got = fast.expect_until_quiet(&stream, QUIET);
        if got < stream.len() {
            behind += QUIET;
        }
        let reader = read_in_background(slow, &stream);
        fast.expect(&stream[got..]);
        slow = reader.join().unwrap();
        writer.join().unwrap().unwrap();
        next = last + 1;
    }
    source.send(long_broadcast(next, EVENT_BYTES));
    slow.expect(long_broadcast(next, EVENT_BYTES));
    fast.expect(long_broadcast(next, EVENT_BYTES));
}

#[test]
fn a_user_that_holds_up_the_others_again_and_again_is_cut_off() {
    let server =
        server!(eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 1000, adminPort = 0);
    let mut idle: Vec<_> = (2..=5).map(|id| server.user(id)).collect();
    let mut source = server.source();
    let private = |number: u64| format!("{number:0993}|P|2|1\n").into_bytes();
    let stream: Vec<u8> = (1..=40_000).flat_map(private).collect();
    // It comes down to userBufferBytes all the time, and so is never behind for long.
    let mut slow = server.narrow_user(1);
    let writer = source.send_in_background(stream.clone());
    let mut got = 0;
    for part in stream.chunks(200_000) {
        let (length, is_open) = slow.expect_or_close(part);
        got += length;
        if !is_open {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(got < stream.len(), "it was never cut off");
    server.wait_for_log_of(&["slow", "user=1"]);
    writer.join().unwrap().unwrap();
    source.send("40001|B\n");
    idle.iter_mut().for_each(|user| user.expect("40001|B\n"));
    // The time is charged to its id, and to all slow users together: nobody waits for the next one.
    for id in [1, 6] {
        let paused = server.metric("fortnight_source_paused_seconds_total{reason=\"slow_user\"}");
        let mut again = server.narrow_user(id);
        let first = 40_002 + 20_000 * u64::from(id == 6);
        let private = |number: u64| format!("{number:0993}|P|2|{id}\n").into_bytes();
        let stream: Vec<u8> = (first..first + 20_000).flat_map(private).collect();
        source.send(&stream);
        expect_cut_off(&mut again, &stream);
        let now = server.metric("fortnight_source_paused_seconds_total{reason=\"slow_user\"}");
        assert_eq!(now, paused, "user {id}");
    }
}

#[test]
fn with_policy_disconnect_a_user_that_gets_behind_is_disconnected_there_and_then() {
    let server = server!(
        eventTimeoutMs = -1,
        userBufferBytes = 1_000_000,
        slowUserPolicy = "disconnect",
        slowUserTimeoutMs = 600_000
    );
    let (mut slow, mut fast) = (server.narrow_user(1), server.user(2));
    let mut source = server.source();
    let stream = long_broadcasts(1..=32_000, EVENT_BYTES);
    in_step(&mut source, &mut fast, &stream);
    server.wait_for_log_of(&["slow", "behind"]);
    expect_cut_off(&mut slow, &stream);
    source.send("32001|B\n");
    fast.expect("32001|B\n");
}

#[test]
fn with_policy_disconnect_a_user_that_keeps_up_stays() {
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 1_000_000, slowUserPolicy = "disconnect");
    let mut users: Vec<_> = (1..=3).map(|id| server.user(id)).collect();
    let mut source = server.source();
    let stream = long_broadcasts(1..=20_000, EVENT_BYTES);
    for part in stream.chunks(50_000) {
        source.send(part);
        for user in &mut users {
            user.expect(part);
        }
    }
}

#[test]
fn a_user_that_is_told_nothing_is_never_behind() {
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 4096, slowUserTimeoutMs = 100);
    let (mut silent, mut fast) = (server.narrow_user(1), server.user(2));
    let mut source = server.source();
    let private = |number: u64| format!("{number:0990}|P|1|2\n").into_bytes();
    let stream: Vec<u8> = (1..=10_000).flat_map(private).collect();
    let writer = source.send_in_background(stream.clone());
    fast.expect(&stream);
    writer.join().unwrap().unwrap();
    source.send("10001|B\n");
    silent.expect("10001|B\n");
}

#[test]
fn a_user_that_vanishes_in_the_middle_of_a_write_harms_nobody() {
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 600_000);
    let mut fast = server.user(99);
    let mut source = server.source();
    for round in 0..5 {
        let vanishing: Vec<_> = (1..=4).map(|id| server.narrow_user(id)).collect();
        let stream = long_broadcasts(round * 16_000 + 1..=(round + 1) * 16_000, EVENT_BYTES);
        let writer = source.send_in_background(stream.clone());
        let got = fast.expect_until_quiet(&stream, Duration::from_millis(100));
        for user in vanishing {
            user.vanish();
        }
        fast.expect(&stream[got..]);
        writer.join().unwrap().unwrap();
    }
    source.send("80001|B\n");
    fast.expect("80001|B\n");
}

#[test]
fn a_user_that_hangs_up_while_behind_lets_the_sources_go_on() {
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 600_000);
    let (mut slow, mut fast) = (server.narrow_user(1), server.user(2));
    let stream = long_broadcasts(1..=16_000, EVENT_BYTES);
    let writer = server.source().send_in_background(stream.clone());
    let got = fast.expect_until_quiet(&stream, QUIET);
    slow.finish();
    fast.expect(&stream[got..]);
    writer.join().unwrap().unwrap();
}

#[test]
fn a_user_that_is_taken_over_while_behind_lets_the_sources_go_on() {
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 600_000);
    let (_slow, mut fast) = (server.narrow_user(1), server.user(2));
    let stream = long_broadcasts(1..=16_000, EVENT_BYTES);
    let writer = server.source().send_in_background(stream.clone());
    let got = fast.expect_until_quiet(&stream, QUIET);
    let mut second = server.user(1);
    let last = long_broadcast(16_000, EVENT_BYTES);
    let rest = std::thread::spawn(move || second.read_through(last));
    fast.expect(&stream[got..]);
    writer.join().unwrap().unwrap();
    // What the second one got is the rest of the stream, from a whole event on.
    let rest = rest.join().unwrap();
    assert!(stream.ends_with(&rest));
    assert_eq!(rest.len() % EVENT_BYTES, 0);
}

#[test]
fn memory_does_not_grow_with_the_length_of_the_stream() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    let source = server.source();
    let mut peak = 0;
    for round in 0..4 {
        let stream = long_broadcasts(round * 30_000 + 1..=(round + 1) * 30_000, EVENT_BYTES);
        let writer = source.send_in_background(stream.clone());
        user.expect(&stream);
        writer.join().unwrap().unwrap();
        if round == 0 {
            peak = server.peak_memory();
        }
    }
    // The ring, the buffers and one turn may still fill up a little further than they did the first time.
    let grown = server.peak_memory() - peak;
    assert!(grown < 10 << 20, "grew by {grown} bytes over {peak}");
    assert!(server.peak_memory() < 64 << 20, "{} bytes", server.peak_memory());
}

/// Reads `stream` on behalf of the user in a thread that gives the user back.
fn read_in_background(mut user: User, stream: &[u8]) -> std::thread::JoinHandle<User> {
    let stream = stream.to_vec();
    std::thread::spawn(move || {
        user.expect(&stream);
        user
    })
}

/// Sends a stream in parts, each only when the user has got the one before, so that this user never gets behind.
fn in_step(source: &mut Source, user: &mut User, stream: &[u8]) {
    for part in stream.chunks(50_000) {
        source.send(part);
        user.expect(part);
    }
}

/// Expects that the connection has been ended part of the way through the stream.
#[track_caller]
fn expect_cut_off(user: &mut User, stream: &[u8]) {
    let (got, _) = user.read_to_close();
    assert!(got.len() < stream.len(), "got everything");
    assert!(stream.starts_with(&got), "not the beginning of the stream");
}

#[test]
fn while_slow_users_hold_up_the_sources_nothing_is_said_to_be_missing() {
    let server =
        server!(eventTimeoutMs = -1, userBufferBytes = 1000, slowUserTimeoutMs = 60_000, adminPort = 0);
    let slow = server.narrow_user(1);
    server.pass();
    let source = server.source();
    let _writer = source.send_in_background(support::stream::long_broadcasts(1..=20_000, 1000));
    while server.metric("fortnight_source_paused_seconds_total{reason=\"slow_user\"}") == 0.0 {
        std::thread::yield_now();
    }
    let status = server.get("/status.json").body;
    assert!(status.contains("\"reason\":\"slow_user\"") && status.contains("\"hole\":null"), "{status}");
    drop(slow);
}
