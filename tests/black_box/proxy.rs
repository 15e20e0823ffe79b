//! SPEC section 12: connections that come through a proxy, and begin with a PROXY header.

use support::{Server, server};

const V1: &str = "PROXY TCP4 192.0.2.7 127.0.0.1 4711 9099\r\n";

/// A header of version 2, with the given command, family and rest.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    header.extend(rest);
    header
}

/// From 192.0.2.9:258, with a field behind the addresses.
fn v2() -> Vec<u8> {
    binary(0x21, 0x11, &[192, 0, 2, 9, 127, 0, 0, 1, 1, 2, 35, 131, 0x20, 0, 3, b'a', b'b', b'c'])
}

fn refused(server: &Server, reason: &str) -> f64 {
    server.metric(&format!("fortnight_connections_refused_total{{reason=\"{reason}\"}}"))
}

#[test]
fn the_real_peer_is_in_the_log() {
    let server = server!(proxyProtocolFrom = "127.0.0.0/8", logLevel = "debug");
    let mut first = server.stranger();
    first.send(format!("{V1}1\r\n"));
    let mut second = server.stranger();
    second.send([&v2()[..], b"2\r\n"].concat());
    server.wait_for_log("peer=192.0.2.7:4711");
    server.wait_for_log("peer=192.0.2.9:258");
    let mut source = server.source();
    source.send(format!("{}1|B\nrubbish\n", V1.replace("4711", "4712")));
    first.expect("1|B\n");
    second.expect("1|B\n");
    server.wait_for_log("peer=192.0.2.7:4712");
    source.finish();
}

#[test]
fn a_header_may_come_in_any_pieces() {
    let server = server!(proxyProtocolFrom = "127.0.0.1");
    let mut users = Vec::new();
    for (id, header) in [V1.as_bytes().to_vec(), v2(), binary(0x20, 0, b"")].into_iter().enumerate() {
        let mut user = server.stranger();
        for byte in [&header[..], format!("{id}\n").as_bytes()].concat() {
            user.send([byte]);
        }
        users.push(user);
    }
    let mut source = server.source();
    for byte in format!("{V1}1|B\n").bytes() {
        source.send([byte]);
    }
    for user in &mut users {
        user.expect("1|B\n");
    }
}

#[test]
fn a_proxy_that_speaks_for_itself_is_let_in() {
    let server = server!(proxyProtocolFrom = "127.0.0.1", logLevel = "debug");
    let headers =
        [binary(0x20, 0x11, b"whatever it says"), binary(0x21, 0, b""), b"PROXY UNKNOWN\r\n".to_vec()];
    let mut users = headers.map(|header| {
        let mut user = server.stranger();
        user.send([&header[..], b"7\n"].concat());
        server.wait_for_log("peer=127.0.0.1:");
        user
    });
    let mut source = server.source();
    source.send(format!("{V1}1|P|1|7\n"));
    users[2].expect("1|P|1|7\n");
}

#[test]
fn what_is_no_header_is_refused() {
    let server = server!(proxyProtocolFrom = "127.0.0.1", adminPort = 0);
    let cases: [&[u8]; 9] = [
        b"2932\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 4711\r\n2932\r\n",
        b"PROXY TCP9 192.0.2.7 127.0.0.1 4711 9099\r\n2932\r\n",
        &[b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n2932\r\n"].concat(),
        &binary(0x21, 0x41, &[0; 12]),
        &binary(0x21, 0x11, &[0; 11]),
        &binary(0x31, 0x11, &[0; 12]),
        &binary(0x21, 0x11, &[0; 4097]),
        b"\x16\x03\x01\x02\x00",
    ];
    for (index, case) in cases.into_iter().enumerate() {
        let mut user = server.stranger();
        user.offer(case);
        user.expect_closed();
        let mut source = server.source();
        source.offer(case);
        source.expect_closed();
        assert_eq!(refused(&server, "proxy"), 2.0 * (index + 1) as f64);
    }
    server.wait_for_log("connection refused before its login");
    // A header that is cut.
    let mut user = server.stranger();
    user.send(&V1[..20]);
    user.finish();
    user.expect_closed();
    // They have taken no place, and nothing of theirs is counted elsewhere.
    assert_eq!(server.metric("fortnight_users_disconnected_total{reason=\"bad_login\"}"), 0.0);
    assert_eq!(server.metric("fortnight_events_received_total"), 0.0);
    let mut source = server.source();
    source.send(V1);
    source.finish();
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for() {
    let server = server!(proxyProtocolFrom = "127.0.0.1", loginTimeoutMs = 50, adminPort = 0);
    let mut silent = server.stranger();
    let source = server.source();
    silent.expect_closed();
    source.expect_closed();
    let mut halting = server.stranger();
    halting.send("PROXY TCP4");
    halting.expect_closed();
    assert_eq!(refused(&server, "timeout"), 3.0);
}

#[test]
fn from_anywhere_else_a_header_is_refused() {
    let server = server!(proxyProtocolFrom = "192.0.2.0/24, ::1", adminPort = 0);
    let mut user = server.stranger();
    user.send(format!("{V1}1\r\n"));
    user.expect_closed();
    assert_eq!(server.metric("fortnight_users_disconnected_total{reason=\"bad_login\"}"), 1.0);
    let (mut source, mut user) = (server.source(), server.user(7));
    source.send("1|B\n");
    user.expect("1|B\n");
}

#[test]
fn the_admin_interface_and_the_stream_have_no_header() {
    let server = server!(proxyProtocolFrom = "127.0.0.1", adminPort = 0, streamPort = 0);
    assert_eq!(server.get("/healthz").status, 200);
    assert!(server.stream_client("*|now").read_line().starts_with(b"+|"));
}

#[test]
fn many_pending_connections_wait_for_their_places() {
    let server = server!(proxyProtocolFrom = "127.0.0.1", maxUserClients = 2, adminPort = 0);
    // They have shown nothing, and so take no place.
    let silent: Vec<_> = (0..50).map(|_| server.stranger()).collect();
    let mut users: Vec<_> = (0..2)
        .map(|id| {
            let mut user = server.stranger();
            user.send(format!("{V1}{id}\n"));
            user
        })
        .collect();
    let mut source = server.source();
    source.send(format!("{V1}1|B\n"));
    for user in &mut users {
        user.expect("1|B\n");
    }
    let mut third = server.stranger();
    third.send(format!("{V1}3\n"));
    third.expect_closed();
    assert_eq!(server.metric("fortnight_connections_rejected_total{listener=\"user\"}"), 1.0);
    drop(silent);
    server
        .wait_for_metric("fortnight_connections_refused_total{reason=\"proxy\"}", |refused| refused == 50.0);
    let log = server.stop();
    assert!(log.contains("connection refused before its login"), "{log}");
}

#[test]
fn it_stops_in_good_order_with_pending_connections() {
    let server = server!(proxyProtocolFrom = "127.0.0.1");
    let silent = server.stranger();
    let mut user = server.stranger();
    user.send(format!("{V1}7\n"));
    let mut source = server.source();
    source.send(format!("{V1}1|B\n"));
    user.expect("1|B\n");
    server.stop();
    user.expect_eof();
    drop(silent);
}

#[test]
fn addresses_of_other_kinds_are_no_networks() {
    let refused = support::launch!(proxyProtocolFrom = "10.0.0.0/40").run();
    assert_eq!(refused.status, 2);
    assert!(
        refused.stderr.contains("proxyProtocolFrom")
            && refused.stderr.contains("addresses or networks such as 10.0.0.0/8"),
        "{}",
        refused.stderr
    );
}
