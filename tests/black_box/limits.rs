//! SPEC sections 1.2, 4 and 5: limits on connections and open files.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::journal::Folder;
use support::stream::long_broadcasts;
use support::{User, launch, server};

#[test]
fn one_user_too_many_is_accepted_and_closed() {
    let server = server!(eventTimeoutMs = -1, maxUserClients = 3);
    let mut source = server.source();
    let mut users: Vec<_> = (1..=3).map(|id| server.user(id)).collect();
    source.send("1|B\n");
    for user in &mut users {
        user.expect("1|B\n");
    }
    for _ in 0..10 {
        let mut extra = server.stranger();
        extra.offer("4\n");
        extra.expect_closed();
    }
    source.send("2|B\n3|P|1|4\n4|B\n");
    for user in &mut users {
        user.expect("2|B\n4|B\n");
    }
}

#[test]
fn when_a_user_leaves_there_is_room_for_another() {
    let server = server!(eventTimeoutMs = -1, maxUserClients = 2);
    let mut source = server.source();
    let mut staying = server.user(1);
    for number in 1..=100 {
        let mut guest = server.user(2);
        source.send(format!("{number}|B\n"));
        staying.expect(format!("{number}|B\n"));
        guest.expect(format!("{number}|B\n"));
        guest.finish();
        guest.expect_eof();
    }
}

#[test]
fn by_default_there_are_1000_users() {
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    let mut users: Vec<_> = (1..=1000).map(|id| server.user(id)).collect();
    source.send("1|B\n");
    for user in &mut users {
        user.expect("1|B\n");
    }
    let mut extra = server.stranger();
    extra.offer("1001\n");
    extra.expect_closed();
    source.send("2|B\n");
    for user in &mut users {
        user.expect("2|B\n");
    }
}

#[test]
fn the_open_files_limit_is_raised_as_far_as_the_system_allows() {
    let server = launch!(maxUserClients = 100).limit("-S -n 64").start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("/proc");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let mut figures = line.split_whitespace().skip(3);
    let (soft, hard) = (figures.next().unwrap(), figures.next().unwrap());
    assert_ne!(soft, "64");
    assert_eq!(soft, hard);
}

#[test]
fn a_limit_below_what_max_user_clients_needs_is_warned_of() {
    let server = launch!(maxUserClients = 1000).limit("-n 64").start();
    server.wait_for_log("maxUserClients");
    let log = server.log();
    let warning = log.lines().find(|line| line.contains("maxUserClients")).unwrap();
    assert!(warning.to_lowercase().contains("warn") && warning.contains("64"), "{warning}");
}

#[test]
fn a_limit_that_is_high_enough_is_not_warned_of() {
    let server = launch!(maxUserClients = 10).limit("-n 256").start();
    server.pass();
    let log = server.stop();
    let is_warning = |line: &str| line.contains("WARN") && line.contains("maxUserClients");
    assert!(!log.lines().any(is_warning), "{log}");
}

#[test]
fn running_out_of_file_descriptors_pauses_accepting_but_not_the_service() {
    let server = launch!(eventTimeoutMs = -1, maxUserClients = 1000).limit("-n 64").start();
    let mut source = server.source();
    // Known to be accepted, because it has been heard of.
    let mut first = server.user(0);
    source.send("1|B\n");
    first.expect("1|B\n");
    let mut users: Vec<User> = (1..=150).map(|id| server.user(id)).collect();
    server.wait_for_log_of(&["descriptor", "open files", "EMFILE"]);
    // Those connected are served; the others wait in the backlog.
    source.send("2|B\n");
    first.expect("2|B\n");
    let mut accepted: Vec<User> = Vec::new();
    while let Some(mut user) = (!users.is_empty()).then(|| users.remove(0)) {
        if user.expect_until_quiet(b"2|B\n", Duration::from_millis(500)) == 0 {
            users.insert(0, user);
            break;
        }
        accepted.push(user);
    }
    assert!(accepted.len() >= 20, "only {} users were accepted", accepted.len());
    assert!(!users.is_empty(), "64 files were enough for all: nothing was shown");
    source.send("3|B\n");
    for user in accepted.iter_mut().chain([&mut first]) {
        user.expect("3|B\n");
    }
    // When users leave, those who wait are accepted, in their order.
    let leaving = accepted.len();
    drop(accepted);
    let mut number = 4;
    for mut user in users.drain(..leaving.min(users.len())) {
        // Accepting may resume at its own pace: until then the user is not connected and is skipped.
        loop {
            let event = format!("{number}|P|9|{}\n", user.name.trim_start_matches("user "));
            let barrier = format!("{}|P|9|0\n", number + 1);
            source.send(event.clone() + &barrier);
            first.expect(&barrier);
            number += 2;
            if user.expect_until_quiet(event.as_bytes(), Duration::from_millis(200)) > 0 {
                break;
            }
        }
    }
    source.send(format!("{number}|P|9|0\n"));
    first.expect(format!("{number}|P|9|0\n"));
}

/// SPEC section 5: those who are connected are served, also where the journal has to open files for that: new segments, their
/// folder, snapshots, and what a user that is far behind has to be told.
#[test]
fn without_descriptors_the_journal_goes_on() {
    let folder = Folder::new("descriptors");
    let launch = launch!(
        eventTimeoutMs = -1,
        adminPort = 0,
        maxUserClients = 1000,
        journalDirectory = folder.show(),
        journalSegmentBytes = 65_536,
        userBufferBytes = 65_536
    );
    let server = launch.limit("-n 64").start();
    let mut source = server.source();
    let (mut quick, mut slow) = (server.user(0), server.narrow_user(7));
    source.send("1|B\n");
    quick.expect("1|B\n");
    slow.expect("1|B\n");
    let _waiting: Vec<User> = (100..250).map(|id| server.user(id)).collect();
    server.wait_for_log("accepting is paused");
    // A hundred and fifty segments, most of them while the slow user does not read.
    let mut number = 1;
    while number < 20_000 {
        let stream = long_broadcasts(number + 1..=number + 1000, 500);
        number += 1000;
        let sending = source.send_in_background(stream.clone());
        quick.expect(&stream);
        sending.join().unwrap().unwrap();
    }
    assert!(server.metric("fortnight_users_catching_up") > 0.0);
    slow.expect(long_broadcasts(2..=number, 500));
    source.send(format!("{}|B\n", number + 1));
    slow.expect(format!("{}|B\n", number + 1));
    quick.expect(format!("{}|B\n", number + 1));
}

/// SPEC section 5: peers that vanish without a word are noticed within two minutes, on every port. The kernel says which timer
/// of a connection runs and when it is over.
#[test]
fn on_every_port_a_silent_peer_is_asked_for_a_sign_of_life() {
    let server = server!(eventTimeoutMs = -1, adminPort = 0, streamPort = 0);
    for port in [server.sources, server.users, server.admin(), server.stream()] {
        let client = TcpStream::connect(port).unwrap();
        expect_to_be_asked(port, client.local_addr().unwrap());
    }
}

/// The same for the server at the other end of an edge's stream.
#[test]
fn a_silent_server_of_a_stream_is_asked_for_a_sign_of_life() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap();
    let _edge = server!(role = "edge", stream = format!("tcp://{port}"));
    let (_stream, edge) = listener.accept().unwrap();
    expect_to_be_asked(edge, port);
}

/// Waits until the kernel says that it asks for a sign of life on the connection from `here` to `there` after a minute at most.
fn expect_to_be_asked(here: SocketAddr, there: SocketAddr) {
    let ports = format!(":{:04X} 0100007F:{:04X} 01 ", here.port(), there.port());
    let deadline = Instant::now() + support::DEADLINE;
    loop {
        let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = connections.lines().find(|line| line.contains(&ports));
        let timer = line.and_then(|line| line.split_whitespace().nth(5)).unwrap_or("none");
        // 02: keepalive; then hundredths of a second.
        if let Some(("02", left)) = timer.split_once(':') {
            let left = u64::from_str_radix(left, 16).unwrap();
            assert!(left <= 6000, "{here}: it is asked in {left} hundredths of a second");
            break;
        }
        assert!(Instant::now() < deadline, "{here}: its timer is {timer}");
        std::thread::yield_now();
    }
}

/// SPEC section 6: health checks are answered whatever else is going on.
#[test]
fn without_descriptors_health_checks_are_answered() {
    let server = launch!(eventTimeoutMs = -1, adminPort = 0, maxUserClients = 1000).limit("-n 64").start();
    let mut source = server.source();
    let mut first = server.user(0);
    source.send("1|B\n");
    first.expect("1|B\n");
    let users: Vec<User> = (1..=150).map(|id| server.user(id)).collect();
    server.wait_for_log_of(&["descriptor", "open files", "EMFILE"]);
    for _ in 0..10 {
        assert_eq!(server.get("/healthz").status, 200);
    }
    // One that holds the last descriptor makes room.
    let mut held: Vec<_> = (0..10).map(|_| support::http::AdminClient::connect(server.admin())).collect();
    assert_eq!(server.get("/healthz").status, 200);
    held.clear();
    drop(users);
    // Users that wait do not take it away.
    let users: Vec<User> = (1..=150).map(|id| server.user(id)).collect();
    for _ in 0..10 {
        assert_eq!(server.get("/healthz").status, 200);
    }
    drop(users);
    source.send("2|B\n");
    first.expect("2|B\n");
}
