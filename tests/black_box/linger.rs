//! SPEC sections 1.2, 3 and 5: a user that the server closes receives what was written for it, even if it sends bytes itself.
//!
//! The system throws away what it has not delivered yet when bytes come for a socket that is closed.

use std::time::Duration;

use support::stream::long_broadcasts;
use support::{Signal, User, server};

const EVENT_BYTES: usize = 1000;

/// Reads little by little, and sends a heartbeat each time, until the connection ends. Gives what came, and whether the end was an
/// orderly one.
fn read_and_talk(mut user: User) -> (Vec<u8>, bool) {
    let mut got = Vec::new();
    for _ in 0..20 {
        let mut part = [0; 1000];
        match user.read_some(&mut part) {
            Some(0) => return (got, true),
            Some(length) => got.extend_from_slice(&part[..length]),
            None => return (got, false),
        }
        user.offer("heartbeat\n");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (rest, is_orderly) = user.read_to_close();
    got.extend(rest);
    (got, is_orderly)
}

#[test]
fn at_the_end_a_user_that_sends_heartbeats_gets_everything() {
    let mut server = server!(eventTimeoutMs = -1);
    let (mut user, mut other) = (server.narrow_user(1), server.user(2));
    let stream = long_broadcasts(1..=500, EVENT_BYTES);
    server.source().send(&stream);
    other.expect(&stream);
    user.send("heartbeat\n");
    server.signal(Signal::TERM);
    other.expect_eof();
    drop(other);
    let (got, is_orderly) = read_and_talk(user);
    assert_eq!((got.len(), is_orderly), (stream.len(), true));
    assert!(got == stream);
    assert_eq!(server.exit_status(), 0);
}

#[test]
fn a_user_that_is_replaced_gets_everything_although_it_sends_heartbeats() {
    let server = server!(eventTimeoutMs = -1);
    let (mut user, mut other) = (server.narrow_user(1), server.user(2));
    let mut source = server.source();
    let stream = long_broadcasts(1..=500, EVENT_BYTES);
    source.send(&stream);
    other.expect(&stream);
    user.send("heartbeat\n");
    let mut second = server.user(1);
    source.send("501|P|2|1\n");
    second.expect("501|P|2|1\n");
    let (got, is_orderly) = read_and_talk(user);
    assert_eq!((got.len(), is_orderly), (stream.len(), true));
    assert!(got == stream);
}

#[test]
fn a_user_that_is_cut_off_gets_whole_lines_although_it_sends_heartbeats() {
    let server = server!(eventTimeoutMs = -1, slowUserPolicy = "disconnect", userBufferBytes = 65_536);
    let (mut user, mut other) = (server.narrow_user(1), server.user(2));
    let mut source = server.source();
    user.send("heartbeat\n");
    let stream = long_broadcasts(1..=8000, EVENT_BYTES);
    for part in stream.chunks(20_000) {
        source.send(part);
        other.expect(part);
    }
    server.wait_for_log_of(&["slow", "user=1"]);
    let (got, is_orderly) = read_and_talk(user);
    assert!(is_orderly, "reset after {} bytes", got.len());
    assert!(got.len() < stream.len() && stream.starts_with(&got));
}

/// Who is silent is not waited for.
#[test]
fn at_the_end_nobody_waits_for_users_that_never_sent_anything() {
    let mut server = server!(eventTimeoutMs = -1, shutdownTimeoutMs = 600_000);
    let mut users: Vec<_> = (1..=5).map(|id| server.user(id)).collect();
    server.source().send("1|B\n");
    users.iter_mut().for_each(|user| user.expect("1|B\n"));
    server.signal(Signal::TERM);
    assert_eq!(server.exit_status(), 0);
    users.iter_mut().for_each(User::expect_eof);
}
