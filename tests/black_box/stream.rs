//! docs/SPEC.md section 11: the stream port, and edges over TCP.

use std::net::SocketAddr;

use crate::journal::Folder;
use support::stream::{each, long_broadcasts};
use support::{Server, Signal, User, launch, private_address, server};

/// A line of a client of the stream, taken apart: epoch and number.
fn place(line: &[u8]) -> (String, u64) {
    let line = std::str::from_utf8(line).unwrap();
    let fields: Vec<_> = line.trim_end().split('|').collect();
    assert_eq!((fields[0], fields.len()), ("+", 3), "{line}");
    assert!(
        fields[1].len() == 16 && fields[1].bytes().all(|digit| b"0123456789abcdef".contains(&digit)),
        "{line}"
    );
    (fields[1].to_owned(), fields[2].parse().unwrap())
}

/// A client that follows from the cursor on, and the epoch and number that it has been told.
fn follow(server: &Server, request: &str) -> (User, String, u64) {
    let mut client = server.stream_client(request);
    let (epoch, next) = place(&client.read_through("\n"));
    (client, epoch, next)
}

/// What comes for a client of the stream up to the end of `wanted`, without marks.
fn expect_events(client: &mut User, wanted: &str) {
    let mut got = String::new();
    while got.len() < wanted.len() {
        let lines = String::from_utf8(client.read_through("\n")).unwrap();
        got.extend(lines.split_inclusive('\n').filter(|line| !line.starts_with('+')));
    }
    assert_eq!(got, wanted);
}

/// An edge of a server's stream.
fn edge(of: &Server) -> Server {
    edge_at(of.stream())
}

fn edge_at(stream: SocketAddr) -> Server {
    server!(role = "edge", stream = format!("tcp://{stream}"), streamPort = 0, adminPort = 0)
}

/// Users that have logged in there before anything is sent from now on.
fn users<const N: usize>(edge: &Server, ids: [u64; N]) -> [User; N] {
    let users = ids.map(|id| edge.user(id));
    edge.pass();
    users
}

#[test]
fn every_released_line_is_handed_out_byte_for_byte() {
    let server = server!(streamPort = 0, eventTimeoutMs = 0);
    let (mut client, epoch, next) = follow(&server, "*|now");
    assert_eq!(next, 1);
    let mut user = server.user(50);
    let mut source = server.source();
    source.send("3|B\r\n002|U|60|50\n1|F|60|50\n4|P|1|999\n");
    user.expect("1|F|60|50\n3|B\r\n");
    // 5 is given up, 6 is no event, 8 is a status update without followers.
    source.send("8|S|3\n6|X\n10|P|1|50\n");
    user.expect("10|P|1|50\n");
    expect_events(&mut client, "1|F|60|50\n002|U|60|50\n3|B\r\n4|P|1|999\n8|S|3\n10|P|1|50\n");
    // A mark comes without anything being released.
    assert_eq!(place(&client.read_through("\n")), (epoch, 11));
}

#[test]
fn requests_are_answered_as_users_that_resume_are() {
    let server = server!(streamPort = 0);
    let (mut source, mut user) = (server.source(), server.user(7));
    source.send("1|B\n2|B\n3|P|1|7\n");
    user.expect("1|B\n2|B\n3|P|1|7\n");
    let (_client, epoch, next) = follow(&server, "*|now\r");
    assert_eq!(next, 4);
    assert_eq!(follow(&server, "*|oldest").2, 4);
    let (mut ahead, _, next) = follow(&server, &format!("*|6|{epoch}"));
    assert_eq!(next, 6);
    source.send("4|B\n5|B\n6|B\n7|B\n");
    expect_events(&mut ahead, "6|B\n7|B\n");
    let cases = [
        (format!("*|3|{epoch}"), format!("-|{epoch}|8|gone\n")),
        ("*|9|ffffffffffffffff".to_owned(), format!("-|{epoch}|8|epoch\n")),
    ];
    user.expect("4|B\n5|B\n6|B\n7|B\n");
    for (request, answer) in cases {
        let mut client = server.stream_client(&request);
        client.expect(answer);
        client.expect_eof();
    }
    for request in ["7|now", "*", "*|later", "GET / HTTP/1.1", &"*".repeat(70)] {
        server.stream_client(request).expect_closed();
    }
}

#[test]
fn the_graph_comes_before_the_events() {
    let server = server!(streamPort = 0);
    let (mut source, mut user) = (server.source(), server.user(50));
    source.send("1|F|60|50\n2|F|61|50\n3|U|60|50\n4|F|60|51\n5|P|1|50\n");
    user.expect("1|F|60|50\n2|F|61|50\n5|P|1|50\n");
    let mut client = server.stream_client("*|graph");
    let answer = client.read_through("\n");
    let (epoch, next) = place(answer.split_inclusive(|&byte| byte == b'\n').next().unwrap());
    assert_eq!(next, 6);
    let mark = format!("+|{epoch}|6\n");
    let mut all = answer;
    while all.windows(mark.len()).filter(|window| *window == mark.as_bytes()).count() < 2 {
        all.extend(client.read_through("\n"));
    }
    assert_eq!(String::from_utf8(all).unwrap(), format!("{mark}=|60|51\n=|61|50\n{mark}"));
    source.send("6|S|51\n");
    expect_events(&mut client, "6|S|51\n");
}

#[test]
fn one_client_too_many_is_closed() {
    let server = server!(streamPort = 0, maxStreamClients = 1, adminPort = 0);
    let (_client, _, _) = follow(&server, "*|now");
    server.stream_client("*|now").expect_closed();
    assert_eq!(server.metric("fortnight_connections_rejected_total{listener=\"stream\"}"), 1.0);
}

#[test]
fn a_client_that_does_not_keep_up_is_cut_off_and_holds_up_nobody() {
    let server = server!(streamPort = 0, userBufferBytes = 100_000, eventTimeoutMs = -1);
    let mut slow = server.narrow_stream_client("*|now");
    slow.read_through("\n");
    let mut user = server.user(1);
    let stream = long_broadcasts(1..=20_000, 1000);
    let writer = server.source().send_in_background(stream.clone());
    user.expect(&stream);
    writer.join().unwrap().unwrap();
    let (bytes, _) = slow.read_to_close();
    assert!(bytes.len() < stream.len());
    server.wait_for_log("slow");
}

#[test]
fn at_the_end_clients_of_the_stream_have_everything() {
    let mut server = server!(streamPort = 0);
    let (mut client, epoch, _) = follow(&server, "*|now");
    let mut source = server.source();
    source.send("1|B\n2|F|1|2\n");
    expect_events(&mut client, "1|B\n2|F|1|2\n");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_status(), 0);
    let (rest, orderly) = client.read_to_close();
    assert!(orderly && String::from_utf8_lossy(&rest).ends_with(&format!("-|{epoch}|3|closed\n")));
}

#[test]
fn an_edge_serves_its_users_as_the_server_does() {
    let server = server!(streamPort = 0, eventTimeoutMs = 0);
    let (mut source, mut local) = (server.source(), server.user(9));
    source.send("1|F|60|50\n2|F|61|50\n3|P|1|9\n");
    local.expect("3|P|1|9\n");
    let edge = edge(&server);
    assert!(edge.ready.contains("source=off"), "{}", edge.ready);
    edge.wait_for_log("has been reached");
    let [mut user, mut follower] = users(&edge, [50, 60]);
    source.send("4|S|50\n5|B\r\n6|U|60|50\n7|S|50\n8|F|60|50\n10|S|50\n");
    follower.expect("4|S|50\n5|B\r\n10|S|50\n");
    user.expect("5|B\r\n8|F|60|50\n");
    assert_eq!(edge.metric("fortnight_stream_cursor"), 11.0);
    assert_eq!(edge.get("/healthz").status, 200);
    assert_eq!(edge.get("/leader").status, 404);
}

#[test]
fn edges_make_a_chain() {
    let server = server!(streamPort = 0);
    let first = edge(&server);
    let second = edge(&first);
    second.wait_for_log("has been reached");
    let (mut user, mut source) = (second.user(7), server.source());
    second.pass();
    let stream = each(1..=50_000, |number| format!("{number}|P|1|7\n"));
    source.send(&stream);
    user.expect(&stream);
    // An archive at the end of the chain knows the same epoch.
    let epoch = follow(&server, "*|now").1;
    assert_eq!(follow(&second, "*|now").1, epoch);
}

#[test]
fn an_edge_that_cannot_reach_its_stream_says_so_and_goes_on_when_it_can() {
    let address = private_address();
    let port = free_port(address);
    let edge = edge_at(SocketAddr::from((address, port)));
    edge.wait_for_log("away");
    let health = edge.get("/healthz");
    assert_eq!((health.status, health.body.trim()), (503, "the stream is away"));
    let mut user = edge.user(7);
    edge.pass();
    let server = server!(streamPort = port, streamBindAddress = address);
    edge.wait_for_log("has been reached");
    let mut source = server.source();
    source.send("1|P|1|7\n");
    user.expect("1|P|1|7\n");
    assert_eq!(edge.get("/healthz").status, 200);
}

#[test]
fn an_edge_whose_stream_begins_anew_closes_its_users_and_follows() {
    let address = private_address();
    let port = free_port(address);
    let start = || launch!(streamPort = port, streamBindAddress = address).start();
    let mut server = start();
    let edge = edge_at(SocketAddr::from((address, port)));
    edge.wait_for_log("has been reached");
    let [mut user, _other] = users(&edge, [7, 8]);
    server.source().send("1|F|1|7\n2|P|1|7\n");
    user.expect("1|F|1|7\n2|P|1|7\n");
    let (mut below, epoch, _) = follow(&edge, "*|now");
    server.signal(Signal::KILL);
    while server.is_running() {
        std::thread::yield_now();
    }
    let server = start();
    user.expect_closed();
    let (rest, _) = below.read_to_close();
    assert!(String::from_utf8_lossy(&rest).contains(&format!("-|{epoch}|3|epoch\n")));
    let mut user = edge.user(7);
    edge.pass();
    // The old graph is forgotten: nobody follows 7.
    server.source().send("1|S|7\n2|P|1|7\n");
    user.expect("2|P|1|7\n");
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let cases = [
        launch!(role = "edge"),
        launch!(stream = "tcp://127.0.0.1:1"),
        launch!(streamPort = 0, resetOnSourceEof = true),
        launch!(role = "edge", stream = "tcp://127.0.0.1:1", resetOnSourceEof = true),
        launch!(role = "leader"),
        launch!(role = "edge", stream = "http://127.0.0.1:1"),
        launch!(role = "edge", stream = "tcp://127.0.0.1:1", recordTrace = "/dev/null"),
    ];
    for launch in cases {
        let finished = launch.run();
        assert_eq!(finished.status, 2, "{}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
}

/// A port that nobody listens on.
fn free_port(address: std::net::Ipv4Addr) -> u16 {
    std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn with_a_journal_clients_are_served_from_where_they_want() {
    let folder = Folder::new("stream-clients");
    let server = server!(streamPort = 0, journalDirectory = folder.show(), userBufferBytes = 100_000);
    let stream = String::from_utf8(long_broadcasts(1..=20_000, 1000)).unwrap();
    let (mut user, mut slow) = (server.user(1), server.narrow_stream_client("*|now"));
    let epoch = place(&slow.read_through("\n")).0;
    let writer = server.source().send_in_background(stream.clone().into_bytes());
    user.expect(&stream);
    writer.join().unwrap().unwrap();
    // It has been far behind, and nothing is missing.
    expect_events(&mut slow, &stream);
    let (mut all, _, next) = follow_all(&server, "*|oldest");
    assert_eq!(next, 1);
    expect_events(&mut all, &stream);
    let (mut end, _, next) = follow_all(&server, &format!("*|20000|{epoch}"));
    assert_eq!(next, 20_000);
    expect_events(&mut end, &stream[19_999 * 1000..]);
}

#[test]
fn an_edge_goes_on_where_it_was_when_its_server_comes_back_with_its_journal() {
    let folder = Folder::new("stream-edge");
    let address = private_address();
    let port = free_port(address);
    let start = || {
        let launch = launch!(streamPort = port, streamBindAddress = address, restartGraceMs = 0);
        launch.set("journalDirectory", &folder.show()).start()
    };
    let mut server = start();
    let edge = edge_at(SocketAddr::from((address, port)));
    edge.wait_for_log("has been reached");
    let [mut user, mut other] = users(&edge, [7, 8]);
    server.source().send("1|F|8|7\n2|P|1|7\n");
    user.expect("1|F|8|7\n2|P|1|7\n");
    server.signal(Signal::KILL);
    while server.is_running() {
        std::thread::yield_now();
    }
    let server = start();
    server.source().send("3|S|7\n4|P|1|7\n");
    user.expect("4|P|1|7\n");
    other.expect("3|S|7\n");
}

/// As [`follow`], where events may come along with the answer: it is read alone.
fn follow_all(server: &Server, request: &str) -> (User, String, u64) {
    let mut client = server.stream_client(request);
    let answer = client.read_line();
    let (epoch, next) = place(&answer);
    (client, epoch, next)
}
