//! docs/SPEC.md section 11: sequencers and edges on NATS JetStream. Skipped, with a message, where nats-server is not installed.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::model::Model;
use support::nats::Nats;
use support::stream::{Random, each};
use support::{DEADLINE, Line, Server, Signal, User, launch, private_address, server};

/// NATS sets so much aside on the disk.
pub(crate) const RETENTION: u64 = 256 << 20;

/// A sequencer of a stream that it may make.
pub(crate) fn sequencer(nats: &Nats, name: &str) -> Server {
    server!(
        role = "sequencer",
        // It may listen there again: nobody else may have been given the port meanwhile.
        eventSourceBindAddress = private_address(),
        stream = nats.stream(name),
        streamReplicas = nats.len(),
        streamRetentionBytes = RETENTION,
        streamTakeoverMs = 3000,
        eventTimeoutMs = -1,
        adminPort = 0,
    )
}

fn edge(nats: &Nats, name: &str) -> Server {
    let edge = server!(role = "edge", stream = nats.stream(name), adminPort = 0, streamPort = 0);
    edge.wait_for_log("has been reached");
    edge
}

pub(crate) fn leads(server: &Server) -> bool {
    server.get("/leader").status == 200
}

/// Waits until the server leads.
pub(crate) fn wait_to_lead(server: &Server) {
    server.wait_for_log("this sequencer leads");
}

/// A source that keeps what is not acknowledged, and goes on from there at whichever sequencer listens.
pub(crate) struct Feed(JoinHandle<Vec<(String, u64)>>);

impl Feed {
    /// Sends the lines of the numbers from 1 on, all of them at the end. Gives every acknowledgement.
    pub(crate) fn start(servers: &[&Server], lines: Vec<String>) -> Feed {
        let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.sources).collect();
        Feed(std::thread::spawn(move || {
            let mut told = Vec::new();
            let deadline = Instant::now() + 3 * DEADLINE;
            for address in addresses.iter().cycle() {
                assert!(Instant::now() < deadline, "not all was acknowledged: {:?}", told.last());
                if told.last().is_some_and(|&(_, next)| next > lines.len() as u64) {
                    break;
                }
                // A sequencer that does not listen does not lead.
                let _ = serve(*address, &lines, &mut told);
                std::thread::sleep(Duration::from_millis(20));
            }
            told
        }))
    }

    /// All has been acknowledged: in one epoch, and never less than before.
    pub(crate) fn finish(self) {
        let told = self.0.join().expect("the feed");
        assert!(told.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[0].1 <= pair[1].1), "{told:?}");
    }
}

fn serve(address: SocketAddr, lines: &[String], told: &mut Vec<(String, u64)>) -> std::io::Result<()> {
    let mut socket = Line::new(TcpStream::connect_timeout(&address, Duration::from_secs(1))?, address)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.write_all(b"?|ack|feed\n")?;
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut next = |told: &mut Vec<(String, u64)>| -> std::io::Result<u64> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let fields: Vec<&str> = line.trim_end().split('|').collect();
        let number = fields[2].parse().expect("a number");
        told.push((fields[1].to_owned(), number));
        Ok(number)
    };
    let from = usize::try_from(next(told)?).expect("a number") - 1;
    let rest: Vec<u8> = lines[from..].concat().into_bytes();
    let writer = std::thread::spawn(move || socket.write_all(&rest));
    while next(told)? <= lines.len() as u64 {}
    writer.join().expect("the writer")
}

/// Events of all types among the users 1 to `users`, and what each user gets who is connected all the time.
pub(crate) fn events(count: u64, users: u64, seed: u64) -> (Vec<String>, Model) {
    let (mut random, mut model) = (Random::new(seed), Model::new());
    for user in 1..=users {
        model.login(user);
    }
    let lines: Vec<String> = (1..=count)
        .map(|number| {
            let (a, b) = (1 + random.below(users), 1 + random.below(users));
            match random.below(10) {
                0..=2 => format!("{number}|F|{a}|{b}\n"),
                3 => format!("{number}|U|{a}|{b}\r\n"),
                4 => format!("{number}|B\n"),
                5 | 6 => format!("{number}|P|{a}|{b}\n"),
                _ => format!("{number}|S|{a}\n"),
            }
        })
        .collect();
    lines.iter().for_each(|line| model.release(line.as_bytes()));
    (lines, model)
}

fn connect(edge: &Server, users: u64) -> Vec<User> {
    let users = (1..=users).map(|id| edge.user(id)).collect();
    edge.pass();
    users
}

/// Every user gets exactly what the model says.
pub(crate) fn expect_all(users: &mut [User], model: &Model) {
    for (index, user) in users.iter_mut().enumerate() {
        user.expect(model.told(index as u64 + 1).expect("a user"));
    }
}

#[test]
fn a_sequencer_and_two_edges_serve_as_one_server_does() {
    let Some(nats) = Nats::start(1) else { return };
    let sequencer = sequencer(&nats, "one");
    assert!(sequencer.ready.contains("users=off"), "{}", sequencer.ready);
    wait_to_lead(&sequencer);
    let edges = [edge(&nats, "one"), edge(&nats, "one")];
    let mut users = [connect(&edges[0], 10), connect(&edges[1], 10)];
    let (lines, model) = events(50_000, 10, 1);
    let feed = Feed::start(&[&sequencer], lines);
    users.iter_mut().for_each(|users| expect_all(users, &model));
    feed.finish();
    assert!(leads(&sequencer));
    assert_eq!(edges[0].get("/leader").status, 404);
    for (server, leads) in [(&sequencer, "true"), (&edges[0], "null")] {
        let status = server.get("/status.json").body;
        assert!(status.contains(&format!("\"leads\":{leads},\"term\":1,\"cursor\":\"50001\"")), "{status}");
    }
    assert_eq!(sequencer.metric("fortnight_stream_leader"), 1.0);
    assert_eq!(sequencer.metric("fortnight_stream_term"), 1.0);
    assert_eq!(sequencer.metric("fortnight_stream_cursor"), 50_001.0);
    assert_eq!(edges[0].metric("fortnight_stream_cursor"), 50_001.0);
    assert_eq!(sequencer.get("/healthz").status, 200);
}

#[test]
fn an_edge_that_comes_later_has_the_graph() {
    let Some(nats) = Nats::start(1) else { return };
    let sequencer = sequencer(&nats, "later");
    wait_to_lead(&sequencer);
    let mut source = sequencer.source();
    source.send("?|ack\n");
    source.send(each(1..=5000, |number| format!("{number}|F|{number}|{}\n", number % 10 + 100_000)));
    source.send("5001|U|3|100003\n5002|F|9|100003\n");
    source.acknowledged(5003);
    let edge = edge(&nats, "later");
    let mut users = [3, 9, 13].map(|id| edge.user(id));
    edge.pass();
    source.send("5003|S|100003\n5004|P|1|3\n");
    users[0].expect("5004|P|1|3\n");
    users[1].expect("5003|S|100003\n");
    users[2].expect("5003|S|100003\n");
    assert_eq!(edge.metric("fortnight_follow_edges"), 5000.0);
    assert!(edge.metric("fortnight_stream_lag_seconds") < 30.0);
}

#[test]
fn a_standby_takes_over_from_a_leader_that_was_killed() {
    let Some(nats) = Nats::start(1) else { return };
    let mut first = sequencer(&nats, "takeover");
    wait_to_lead(&first);
    let second = sequencer(&nats, "takeover");
    let edge = edge(&nats, "takeover");
    let mut users = connect(&edge, 10);
    let (lines, model) = events(300_000, 10, 2);
    let feed = Feed::start(&[&first, &second], lines);
    // Somewhere in the middle.
    users[0].read_line();
    assert!(!leads(&second));
    first.signal(Signal::KILL);
    while first.is_running() {
        std::thread::yield_now();
    }
    wait_to_lead(&second);
    feed.finish();
    let told = model.told(2).expect("a user");
    users[1].expect(told);
    assert_eq!(second.metric("fortnight_stream_term"), 2.0);
    assert_eq!(second.metric("fortnight_stream_cursor"), 300_001.0);
}

#[test]
fn a_leader_that_was_stopped_for_too_long_finds_that_it_does_not_lead() {
    let Some(nats) = Nats::start(1) else { return };
    let first = sequencer(&nats, "stopped");
    wait_to_lead(&first);
    let second = sequencer(&nats, "stopped");
    let edge = edge(&nats, "stopped");
    let mut users = connect(&edge, 5);
    let (lines, model) = events(100_000, 5, 3);
    let mut hung = first.source();
    hung.send("?|ack\n1");
    first.signal(Signal::STOP);
    wait_to_lead(&second);
    let feed = Feed::start(&[&second], lines);
    expect_all(&mut users, &model);
    feed.finish();
    first.signal(Signal::CONT);
    first.wait_for_log("does not lead any more");
    assert!(!leads(&first));
    let _ = hung.offer("|B\n");
    assert_eq!(second.metric("fortnight_stream_cursor"), 100_001.0);
}

#[test]
fn a_sequencer_that_leads_again_listens_again_whatever_its_sources_do() {
    let Some(nats) = Nats::start(1) else { return };
    let sequencer = server!(
        role = "sequencer",
        eventSourceBindAddress = private_address(),
        stream = nats.stream("again"),
        streamReplicas = 1,
        streamRetentionBytes = RETENTION,
        streamTakeoverMs = 3000,
        eventTimeoutMs = -1,
        maxEventSourceClients = 2,
        adminPort = 0,
    );
    wait_to_lead(&sequencer);
    let mut held = Vec::new();
    for term in 1..=2_u32 {
        let deadline = Instant::now() + DEADLINE;
        while sequencer.metric("fortnight_stream_term") < f64::from(term) || !leads(&sequencer) {
            assert!(Instant::now() < deadline, "it does not lead again");
            std::thread::sleep(Duration::from_millis(20));
        }
        let (mut asking, mut plain) = (sequencer.source(), sequencer.source());
        asking.send("?|ack\n");
        asking.acknowledged(term.into());
        plain.send(format!("{term}|B\n"));
        asking.acknowledged(u128::from(term) + 1);
        nats.signal(0, Signal::STOP);
        // They are disconnected, and do not close their side: their connections hold the port.
        while asking.line().is_some() {}
        while plain.line().is_some() {}
        held.extend([asking, plain]);
        while TcpStream::connect(sequencer.sources).is_ok() {
            assert!(Instant::now() < deadline, "it goes on listening");
        }
        assert!(!leads(&sequencer));
        nats.signal(0, Signal::CONT);
    }
    while !leads(&sequencer) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_leader_that_ends_in_good_order_leaves_at_once() {
    let Some(nats) = Nats::start(1) else { return };
    let first = sequencer(&nats, "rolling");
    wait_to_lead(&first);
    let second = server!(
        role = "sequencer",
        stream = nats.stream("rolling"),
        streamReplicas = 1,
        streamRetentionBytes = RETENTION,
        streamTakeoverMs = 1_000_000,
        adminPort = 0,
    );
    let mut source = first.source();
    source.send("?|ack\n1|F|1|2\n");
    source.acknowledged(2);
    first.stop();
    // Not after the silence, which would be too long.
    wait_to_lead(&second);
    assert_eq!(second.metric("fortnight_follow_edges"), 1.0);
}

#[test]
fn nothing_is_lost_while_nats_nodes_are_killed() {
    let Some(mut nats) = Nats::start(3) else { return };
    let sequencer = sequencer(&nats, "nodes");
    wait_to_lead(&sequencer);
    let edge = edge(&nats, "nodes");
    let mut users = connect(&edge, 10);
    let (lines, model) = events(200_000, 10, 4);
    let feed = Feed::start(&[&sequencer], lines);
    for index in 0..3 {
        users[0].read_line();
        nats.kill(index);
        let (cursor, deadline) = (sequencer.metric("fortnight_stream_cursor"), Instant::now() + 3 * DEADLINE);
        // Two of three go on. Choosing a leader takes them up to half a minute on a machine that is busy.
        while sequencer.metric("fortnight_stream_cursor") <= cursor.min(200_000.0) {
            assert!(Instant::now() < deadline, "the log does not go on");
            std::thread::sleep(Duration::from_millis(20));
        }
        nats.restart(index);
        nats.wait_until_well(index);
    }
    feed.finish();
    for (index, user) in users.iter_mut().enumerate().skip(1) {
        user.expect(model.told(index as u64 + 1).expect("a user"));
    }
}

#[test]
fn a_log_that_was_wiped_is_another_one() {
    let Some(mut nats) = Nats::start(1) else { return };
    let mut sequencer = sequencer(&nats, "wiped");
    wait_to_lead(&sequencer);
    let edge = edge(&nats, "wiped");
    let mut user = edge.user(7);
    edge.pass();
    let mut source = sequencer.source();
    source.send("?|ack\n1|P|1|7\n");
    source.acknowledged(2);
    user.expect("1|P|1|7\n");
    sequencer.signal(Signal::KILL);
    while sequencer.is_running() {
        std::thread::yield_now();
    }
    nats.kill(0);
    nats.wipe(0);
    nats.restart(0);
    let next = self::sequencer(&nats, "wiped");
    wait_to_lead(&next);
    // The edge has no journal: it starts again, with the new epoch.
    user.expect_closed();
    let mut source = next.source();
    source.send("?|ack\n");
    let epoch = source.acknowledged(1);
    // What it reads before it has reached the end of the log goes to nobody.
    edge.wait_for_log(&format!("epoch={epoch}"));
    let mut user = edge.user(7);
    edge.pass();
    source.send("1|P|2|7\n");
    source.acknowledged(2);
    user.expect("1|P|2|7\n");
}

#[test]
fn nats_may_ask_for_a_password() {
    let users = "authorization { users: [{ user: fortnight, password: \"a:b\" }] }";
    let Some(nats) = Nats::start_with(1, users) else { return };
    let file = std::env::temp_dir().join(format!("fortnight-credentials-{}", std::process::id()));
    std::fs::write(&file, "fortnight:a:b\n").unwrap();
    let start = |credentials: bool| {
        let launch =
            launch!(role = "sequencer", stream = nats.stream("secret"), streamReplicas = 1, adminPort = 0);
        let launch = launch.set("streamRetentionBytes", &RETENTION);
        let launch = if credentials { launch.set("streamCredentials", &file.display()) } else { launch };
        launch.start()
    };
    let sequencer = start(true);
    wait_to_lead(&sequencer);
    let stranger = start(false);
    stranger.wait_for_log("Authorization Violation");
    assert_eq!(stranger.get("/healthz").body.trim(), "the stream is away");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn options_of_a_sequencer_that_do_not_go_together_are_refused() {
    let nats = "nats://127.0.0.1:1/a";
    let cases = [
        launch!(role = "sequencer"),
        launch!(role = "sequencer", stream = "tcp://127.0.0.1:1"),
        launch!(role = "sequencer", stream = "nats://127.0.0.1:1"),
        launch!(role = "sequencer", stream = nats, journalDirectory = "/tmp/never-made"),
        launch!(role = "sequencer", stream = nats, streamPort = 0),
        launch!(role = "sequencer", stream = nats, resetOnSourceEof = true),
        launch!(role = "sequencer", stream = nats, maxEventBytes = 1_000_000),
        launch!(role = "sequencer", stream = nats, recordTrace = "/dev/null"),
        launch!(role = "sequencer", stream = nats, streamTakeoverMs = 100),
        launch!(role = "sequencer", stream = nats, streamCredentials = "/no/such/file"),
        launch!(role = "edge", stream = nats, streamCredentials = "/dev/null"),
        launch!(stream = nats),
    ];
    for launch in cases {
        let finished = launch.run();
        assert_eq!(finished.status, 2, "{}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
}

#[test]
fn without_its_log_a_sequencer_does_not_listen() {
    let sequencer = server!(role = "sequencer", stream = "nats://127.0.0.1:1/a", adminPort = 0);
    sequencer.wait_for_log("away");
    let health = sequencer.get("/healthz");
    assert_eq!((health.status, health.body.trim()), (503, "the stream is away"));
    assert_eq!(sequencer.get("/leader").status, 503);
    TcpStream::connect(sequencer.sources).unwrap_err();
    // The port is taken nevertheless.
    let second = launch!(eventSourceServerPort = sequencer.sources.port()).run();
    assert_eq!(second.status, 1, "{}", second.stderr);
}

#[test]
fn the_demonstration_of_a_cluster_shows_that_nothing_is_lost() {
    let Some(nats) = support::nats::program() else {
        return support::skipped("nats-server is not installed; .ci/run installs it, or set NATS_SERVER");
    };
    let folder = std::env::temp_dir().join(format!("fortnight-cluster-{}", std::process::id()));
    let output = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cluster/run"))
        .arg("--demo")
        .env("ADDRESS", private_address().to_string())
        .env("FOLDER", &folder)
        .env("FORTNIGHT", env!("CARGO_BIN_EXE_fortnight"))
        .env("NATS_SERVER", nats)
        .env("EVENTS", "30000")
        .output()
        .expect("the script");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for part in
        ["killing the leader", "all 30000 events are acknowledged", "the user at edge 2 has every event once"]
    {
        assert!(said.contains(part), "{said}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_follow_graph_of_a_single_server_goes_along_into_a_cluster() {
    let Some(nats) = Nats::start(1) else { return };
    let single = server!(streamPort = 0, adminPort = 0);
    let mut source = single.source();
    source.send(each(1..=1000, |number| format!("{number}|F|{}|{}\n", number % 50, number)));
    single.wait_for_metric("fortnight_follow_edges", |edges| edges == 1000.0);
    // As the operations page says: the graph as follow events, numbered from 1 on.
    let mut stream = single.stream_client("*|graph");
    let mut graph = String::new();
    while graph.matches('+').count() < 2 {
        graph += &String::from_utf8(stream.read_line()).unwrap();
    }
    let edges = graph.lines().filter_map(|line| line.strip_prefix('='));
    let lines: Vec<String> = (1..).zip(edges).map(|(number, edge)| format!("{number}|F{edge}\n")).collect();
    assert_eq!(lines.len(), 1000);
    drop(single);
    let sequencer = sequencer(&nats, "along");
    wait_to_lead(&sequencer);
    let edge = edge(&nats, "along");
    Feed::start(&[&sequencer], lines).finish();
    let mut user = edge.user(7);
    edge.pass();
    let mut source = sequencer.source();
    source.send("1001|S|57\n1002|S|58\n1003|B\n");
    user.expect("1001|S|57\n1003|B\n");
}
