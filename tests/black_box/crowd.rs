//! Many users, and nothing to do: what a server costs that is big or idle (SPEC sections 3 to 5).

use std::time::{Duration, Instant};

use support::{Server, User, raise_own_limit, server};

const CROWD: u64 = 10_000;

/// Files that this process needs for the crowd: its sockets, and some more for everything else.
const FILES: u64 = CROWD + 200;

#[test]
fn ten_thousand_users_connected_at_once_are_logged_in_and_served() {
    let limit = raise_own_limit();
    if limit < FILES {
        support::skipped(&format!("it needs {FILES} open files, and {limit} are allowed"));
        return;
    }
    let server = server!(eventTimeoutMs = -1, maxUserClients = CROWD);
    let mut source = server.source();
    let started = Instant::now();
    let mut users: Vec<User> = (1..=CROWD).map(|id| server.user(id)).collect();
    let connected = started.elapsed();
    source.send("1|B\n");
    for user in &mut users {
        user.expect("1|B\n");
    }
    println!("{CROWD} users: connected after {connected:.2?}, all told after {:.2?}", started.elapsed());
    // Each is served as itself.
    let mut stream = String::new();
    for id in 1..=CROWD {
        stream += &format!("{}|P|9|{id}\n", 1 + id);
    }
    let writer = source.send_in_background((stream + "10002|B\n").into_bytes());
    for (id, user) in (1..).zip(&mut users) {
        user.expect(format!("{}|P|9|{id}\n10002|B\n", 1 + id));
    }
    writer.join().unwrap().unwrap();
    // TLS takes some 5 KB a connection.
    let allowed = if support::over_tls() { 128 << 20 } else { 64 << 20 };
    assert!(server.peak_memory() < allowed, "{} bytes", server.peak_memory());
    // Half of the users hang up at once; the others are served on.
    let mut staying = users.split_off(users.len() / 2);
    drop(users);
    source.send("10003|B\n");
    for user in &mut staying {
        user.expect("10003|B\n");
    }
}

#[test]
fn an_idle_server_makes_no_system_calls() {
    let server = server!();
    let mut users: Vec<_> = (1..=100).map(|id| server.user(id)).collect();
    let mut source = server.source();
    source.send("1|B\n3|B\n2|B\n");
    for user in &mut users {
        user.expect("1|B\n2|B\n3|B\n");
    }
    expect_idleness(&server);
    // And it is wide awake when something happens.
    source.send("4|B\n");
    for user in &mut users {
        user.expect("4|B\n");
    }
}

#[test]
fn a_server_that_waits_for_a_hole_for_ever_is_idle() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("2|B\n3|B\n");
    server.pass();
    expect_idleness(&server);
    source.send("1|B\n");
    user.expect("1|B\n2|B\n3|B\n");
}

#[test]
fn a_server_that_waits_for_a_user_that_reads_nothing_is_idle() {
    let server = server!(userBufferBytes = 65_536, slowUserTimeoutMs = 600_000, logIntervalMs = 0);
    let mut slow = server.narrow_user(1);
    let stream = support::stream::long_broadcasts(1..=10_000, 1000);
    let writer = server.source().send_in_background(stream.clone());
    expect_idleness(&server);
    slow.expect(stream);
    writer.join().unwrap().unwrap();
}

/// Expects that the process soon stays asleep for a second and a half: a process that never sleeps and wakes
/// makes no system calls, and one that polls is not still for so long.
#[track_caller]
fn expect_idleness(server: &Server) {
    let switches = || server.status("voluntary_ctxt_switches") + server.status("nonvoluntary_ctxt_switches");
    let mut before = switches();
    let mut woken = Vec::new();
    // A timer that was set while there was work may still fire.
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(1500));
        let after = switches();
        if after == before {
            return;
        }
        woken.push(after - before);
        before = after;
    }
    panic!("woken up in each 1.5 s: {woken:?} times");
}
