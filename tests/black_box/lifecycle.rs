//! SPEC section 5: signals, the end of a run, and clients that fail.

use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use support::stream::{each, long_broadcasts};
use support::{Signal, launch, private_address, server};

#[test]
fn sigterm_and_sigint_end_the_server_with_status_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = server!();
        server.pass();
        server.signal(signal);
        assert_eq!(server.exit_status(), 0);
    }
}

#[test]
fn a_service_manager_is_told_when_it_serves_and_when_it_ends() {
    let place = std::env::temp_dir().join(format!("fortnight-ready-{}", std::process::id()));
    let manager = UnixDatagram::bind(&place).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let told = || {
        let mut state = [0; 64];
        let len = manager.recv(&mut state).unwrap();
        String::from_utf8_lossy(&state[..len]).into_owned()
    };
    let mut server = launch!().set("NOTIFY_SOCKET", &place.display()).start();
    assert_eq!(told(), "READY=1");
    server.pass();
    server.signal(Signal::TERM);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(server.exit_status(), 0);
    std::fs::remove_file(place).unwrap();
}

#[test]
fn a_terminal_that_goes_away_ends_nothing() {
    let server = server!();
    server.pass();
    server.signal(Signal::HUP);
    server.pass();
    server.stop();
}

#[test]
fn a_signal_right_after_the_start_ends_the_server_with_status_0() {
    for _ in 0..20 {
        let mut server = server!();
        server.signal(Signal::TERM);
        assert_eq!(server.exit_status(), 0);
    }
}

#[test]
fn at_the_end_every_connection_is_closed_and_nobody_is_owed_anything() {
    let mut server = server!(eventTimeoutMs = -1);
    let mut users: Vec<_> = (1..=100).map(|id| server.user(id)).collect();
    let mut barrier = server.user(0);
    let mut silent = server.stranger();
    let mut source = server.source();
    source.send(each(1..=1000, |number| format!("{number}|B\n")) + "1001|P|1|0\n");
    barrier.expect(each(1..=1000, |number| format!("{number}|B\n")) + "1001|P|1|0\n");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_status(), 0);
    for user in &mut users {
        user.expect(each(1..=1000, |number| format!("{number}|B\n")));
        user.expect_eof();
    }
    silent.expect_eof();
    source.expect_eof();
    assert!(TcpStream::connect(server.users).is_err());
    assert!(TcpStream::connect(server.sources).is_err());
}

#[test]
fn output_that_is_still_buffered_is_flushed() {
    let mut server = server!(eventTimeoutMs = -1, userBufferBytes = 100_000_000, shutdownTimeoutMs = 600_000);
    let (mut slow, mut fast) = (server.narrow_user(1), server.user(2));
    let source = server.source();
    let stream = long_broadcasts(1..=20_000, 1000);
    let writer = source.send_in_background(stream.clone());
    // By now everything has been released, and most of it is buffered for the slow user.
    fast.expect(&stream);
    writer.join().unwrap().unwrap();
    server.signal(Signal::TERM);
    // Listeners and sources are closed while the output is flushed.
    source.expect_eof();
    assert!(server.is_running(), "ended without waiting for the slow user");
    assert!(TcpStream::connect(server.users).is_err());
    assert!(TcpStream::connect(server.sources).is_err());
    slow.expect(&stream);
    slow.expect_eof();
    fast.expect_eof();
    assert_eq!(server.exit_status(), 0);
}

#[test]
fn output_is_flushed_for_at_most_shutdown_timeout_ms() {
    let mut server = server!(eventTimeoutMs = -1, userBufferBytes = 100_000_000, shutdownTimeoutMs = 300);
    let (mut slow, mut fast) = (server.narrow_user(1), server.user(2));
    let stream = long_broadcasts(1..=20_000, 1000);
    let source = server.source();
    let writer = source.send_in_background(stream.clone());
    fast.expect(&stream);
    writer.join().unwrap().unwrap();
    let asked = Instant::now();
    server.signal(Signal::TERM);
    // The slow one never reads.
    assert_eq!(server.exit_status(), 0);
    assert!(asked.elapsed() >= Duration::from_millis(295), "gave up after {:?}", asked.elapsed());
    let (got, _) = slow.read_to_close();
    assert!(stream.starts_with(&got) && got.len() < stream.len());
}

#[test]
fn a_second_signal_ends_the_server_at_once_with_status_1() {
    for (first, second) in
        [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM), (Signal::TERM, Signal::INT)]
    {
        let mut server =
            server!(eventTimeoutMs = -1, userBufferBytes = 100_000_000, shutdownTimeoutMs = 600_000);
        let (_slow, mut fast) = (server.narrow_user(1), server.user(2));
        let source = server.source();
        let stream = long_broadcasts(1..=20_000, 1000);
        let writer = source.send_in_background(stream.clone());
        fast.expect(&stream);
        writer.join().unwrap().unwrap();
        server.signal(first);
        // The source is closed, so the first signal has been seen.
        source.expect_eof();
        assert!(server.is_running());
        server.signal(second);
        assert_eq!(server.exit_status(), 1);
    }
}

#[test]
fn events_that_can_be_released_at_the_end_are() {
    let mut server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    let source = server.source();
    let stream = each(1..=200_000, |number| format!("{number}|B\n")).into_bytes();
    let writer = source.send_in_background(stream.clone());
    user.expect(&stream[..100_000]);
    server.signal(Signal::TERM);
    // The source may be cut off anywhere; what the user gets is the stream up to a whole event.
    let (rest, orderly) = user.read_to_close();
    assert!(orderly, "reset instead of closed");
    assert!(stream[100_000..].starts_with(&rest));
    assert!(rest.is_empty() || rest.ends_with(b"\n"));
    assert_eq!(server.exit_status(), 0);
    let _ = writer.join().unwrap();
}

#[test]
fn the_end_does_not_wait_for_a_hole() {
    let mut server = server!(eventTimeoutMs = 600_000, shutdownTimeoutMs = 600_000);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("1|B\n3|B\n");
    user.expect("1|B\n");
    server.pass();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_status(), 0);
    // Whether number 3 could be released is for the server to say; nothing else can come.
    let (rest, _) = user.read_to_close();
    assert!(rest.is_empty() || rest == b"3|B\n", "{}", rest.escape_ascii());
}

#[test]
fn the_end_does_not_wait_for_a_stopped_source() {
    let mut server = server!(eventTimeoutMs = -1, reorderCapacity = 8, shutdownTimeoutMs = 600_000);
    let mut source = server.source();
    source.send(each(2..=1000, |number| format!("{number}|B\n")));
    server.wait_for_log_of(&["ring", "full", "reorderCapacity"]);
    server.signal(Signal::TERM);
    assert_eq!(server.exit_status(), 0);
}

#[test]
fn the_ports_can_be_opened_again_at_once() {
    let address = private_address();
    let start = |sources: u16, users: u16| {
        server!(
            eventTimeoutMs = -1,
            eventSourceBindAddress = address,
            userBindAddress = address,
            eventSourceServerPort = sources,
            userServerPort = users
        )
    };
    let mut ports = (0, 0);
    for _ in 0..3 {
        let server = start(ports.0, ports.1);
        ports = (server.sources.port(), server.users.port());
        let (mut source, mut user) = (server.source(), server.user(1));
        source.send("1|B\n");
        user.expect("1|B\n");
        // The server's side closes first, and so it is the one whose ports linger in the system.
        server.stop();
        user.expect_eof();
    }
}

#[test]
fn a_client_that_fails_ends_at_most_its_own_connection() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 2);
    let mut user = server.user(1);
    let mut source = server.source();
    for number in 1..=100 {
        // Users: reset before, in the middle of and after the login; garbage.
        server.stranger().vanish();
        let mut half = server.stranger();
        half.send("12");
        half.vanish();
        server.user(2).vanish();
        let mut garbage = server.stranger();
        garbage.send([0xff; 64]);
        drop(garbage);
        // Sources: reset before, in the middle of and after a line; garbage.
        let mut other = server.source();
        match number % 4 {
            0 => {}
            1 => other.send("999|P|"),
            2 => other.send("1|P|1|1\n"),
            _ => other.send([0xff; 3000]),
        }
        other.vanish();
        source.send(format!("{number}|B\n"));
        user.expect(format!("{number}|B\n"));
    }
}

#[test]
fn a_server_that_nobody_ever_connected_to_ends_cleanly() {
    let log = server!(logLevel = "debug").stop();
    assert!(!log.is_empty());
}
