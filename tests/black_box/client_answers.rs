//! The programs of `examples/clients` one by one: each answer of a server, each option, TLS, a damaged state file, and
//! servers that say nothing more.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::{
    clients::{EVENTS, Example, Language, Program, USER, expected, input, wait_for_place},
    journal::Folder,
    tokens::{KeyFile, SECRET, token},
};
use support::{Certificates, DEADLINE, Server, launch, only_in_clear};

/// What `--timeout` is given, in seconds.
const TIMEOUT: &str = "1";
/// Longer than that. Rust's source needs up to twice the time to notice.
const LONGER: Duration = Duration::from_millis(2500);

/// A server of the test's own: it says only what it is told to say.
struct Puppet {
    listener: TcpListener,
    address: String,
}

impl Puppet {
    fn new() -> Puppet {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Puppet { listener, address }
    }

    /// The next connection, whose first line is this.
    #[track_caller]
    fn accept(&self, first_line: &str) -> Peer {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(DEADLINE)).unwrap();
                    let mut peer = Peer(BufReader::new(stream));
                    peer.expect(first_line);
                    return peer;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            assert!(Instant::now() < deadline, "nobody connects again");
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[track_caller]
    fn expect_nobody(&self) {
        assert_eq!(self.listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

/// A client of a puppet.
struct Peer(BufReader<TcpStream>);

impl Peer {
    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn expect(&mut self, line: &str) {
        let mut got = String::new();
        self.0.read_line(&mut got).unwrap();
        assert_eq!(got.trim_end(), line);
    }
}

/// Waits until the kernel will ask the peer of a connection to `address` whether it is there, within a minute.
#[track_caller]
fn expect_keepalive(address: &str) {
    let port: SocketAddr = address.parse().unwrap();
    let port = format!(":{:04X}", port.port());
    // The timer 02 is keepalive's. Its time is in hundredths of a second.
    let is_watched = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let left = fields[5].strip_prefix("02:").map(|left| u32::from_str_radix(left, 16).unwrap());
        fields[2].ends_with(&port) && left.is_some_and(|left| left <= 6100)
    };
    let deadline = Instant::now() + DEADLINE;
    while !fs::read_to_string("/proc/net/tcp").unwrap().lines().skip(1).any(is_watched) {
        assert!(Instant::now() < deadline, "no keepalive at {address}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the standard library of the language has TLS, and keepalive.
fn is_rich(language: &Language) -> bool {
    language.name != "rust"
}

fn a_user_leaves_a_server_that_says_nothing_more(language: &Language) {
    let puppet = Puppet::new();
    let user = Program::start(&language.user, &["--timeout", TIMEOUT, "7", &puppet.address]);
    let mut first = puppet.accept("7|now");
    first.say("+|abc|5\n5|B\n6|");
    user.expect(&["5|B".to_owned()]);
    if is_rich(language) {
        expect_keepalive(&puppet.address);
    }
    let mut second = puppet.accept("7|6|abc");
    // Marks are enough to keep it.
    let end = Instant::now() + LONGER;
    while Instant::now() < end {
        second.say("+|abc|6\n");
        thread::sleep(Duration::from_millis(50));
    }
    second.say("6|B\n");
    user.expect(&["6|B".to_owned()]);
    puppet.expect_nobody();
}

fn a_source_leaves_a_server_that_acknowledges_nothing_more(language: &Language) {
    let puppet = Puppet::new();
    let mut source = Program::start(&language.source, &["--timeout", TIMEOUT, "feed", &puppet.address]);
    source.give("B\n");
    let mut first = puppet.accept("?|ack|feed");
    first.say("+|abc|1\n");
    first.expect("1|B");
    if is_rich(language) {
        expect_keepalive(&puppet.address);
    }
    let mut second = puppet.accept("?|ack|feed");
    second.say("+|abc|1\n");
    second.expect("1|B");
    second.say("+|abc|2\n");
    // Where everything is acknowledged, a server may be quiet.
    thread::sleep(LONGER);
    puppet.expect_nobody();
    // It leaves a server that does not even read, too.
    source.give(&format!("{}\n", "x".repeat(1000)).repeat(20_000));
    let mut third = puppet.accept("?|ack|feed");
    // The server lost what it had acknowledged.
    third.say("+|abc|1\n");
    source.expect_failure(&["lost its past", "number 2 became epoch abc, number 1", "person must decide"]);
}

fn a_source_stops_at_another_epoch(language: &Language) {
    let puppet = Puppet::new();
    let mut source = Program::start(&language.source, &["--first", "5", "feed", &puppet.address]);
    source.give("B\n");
    let mut first = puppet.accept("?|ack|feed");
    first.say("+|abc|5\r\n");
    first.expect("5|B");
    drop(first);
    puppet.accept("?|ack|feed").say("+|def|5\r\n");
    source.expect_failure(&["lost its past", "epoch abc", "epoch def"]);
}

fn only_a_missing_state_file_means_no_place(language: &Language) {
    let folder = Folder::new(&format!("client-state-{}", language.name));
    fs::create_dir_all(folder.show()).unwrap();
    let puppet = Puppet::new();
    let start =
        |file: &str| Program::start(&language.user, &["--state", file, &USER.to_string(), &puppet.address]);
    let file = folder.show() + "/place";
    for damaged in ["", "12\n", "x abc\n", "-1 abc\n", "12 \n", "12 a b\n", "12 abc\n13 def\n", "12 a|b\n"] {
        fs::write(&file, damaged).unwrap();
        start(&file).expect_failure(&[&file, "is damaged"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), damaged);
    }
    // A folder can be opened, but not be read.
    start(&folder.show()).expect_failure(&[&folder.show(), "cannot be read"]);
    puppet.expect_nobody();
    fs::write(&file, "18446744073709551616 abc\n").unwrap();
    let user = start(&file);
    puppet.accept("7|18446744073709551616|abc");
    drop(user);
    fs::remove_file(&file).unwrap();
    let _user = start(&file);
    puppet.accept("7|now");
}

/// Waits until so many users are logged in.
#[track_caller]
fn wait_for_users(server: &Server, count: usize) {
    server.wait_for_metric("fortnight_users_connected", |connected| connected == count as f64);
}

fn a_user_takes_every_answer(language: &Language) {
    let folder = Folder::new(&format!("client-answers-{}", language.name));
    fs::create_dir_all(folder.show()).unwrap();
    let file = folder.show() + "/place";
    // Without a journal what is below the cursor is gone.
    let server = launch!(eventTimeoutMs = -1, adminPort = 0).start();
    let users = server.users.to_string();
    let id = USER.to_string();
    let (mut source, mut other) = (server.source(), server.stranger());
    other.send("1|now\n");
    let answer = String::from_utf8(other.read_line()).unwrap();
    let epoch = answer.split('|').nth(1).unwrap();
    source.send("1|B\n2|B\n");
    other.expect("1|B\n2|B\n");
    let mut next = 3;
    for (reason, stored) in
        [("(gone)", format!("1 {epoch}\n")), ("(epoch)", "1 0123456789abcdef\n".to_owned())]
    {
        fs::write(&file, &stored).unwrap();
        Program::start(&language.user, &["--state", &file, &id, &users]).expect_failure(&[reason]);
        assert_eq!(fs::read_to_string(&file).unwrap(), stored);
        wait_for_users(&server, 1);
        let user = Program::start(&language.user, &["--continue", "--state", &file, &id, &users]);
        wait_for_users(&server, 2);
        user.expect_to_say(reason);
        source.send(format!("{next}|B\n"));
        user.expect(&[format!("{next}|B")]);
        next += 1;
        wait_for_place(file.as_ref(), next);
        drop(user);
        wait_for_users(&server, 1);
    }

    let user = Program::start(&language.user, &[&id, &users]);
    wait_for_users(&server, 2);
    let mut newer = server.stranger();
    newer.send(format!("{id}|now\n"));
    newer.read_line();
    user.expect_failure(&["replaced"]);
    drop(newer);
    wait_for_users(&server, 1);

    let user = Program::start(&language.user, &["--plain", &id, &users]);
    wait_for_users(&server, 2);
    source.send(format!("{next}|B\n"));
    user.expect(&[format!("{next}|B")]);
}

fn a_user_shows_its_token(language: &Language) {
    let keys = KeyFile::new(&format!("client-{}", language.name), &format!("hs256:{SECRET}\n"));
    let server = launch!(adminPort = 0).set("userTokenKey", &keys.path().display()).start();
    let users = server.users.to_string();
    let start = |plain: &[&str], seconds: i64| {
        let id = USER.to_string();
        let more = ["--token", &token(USER, seconds), &id, &users];
        let user = Program::start(&language.user, &[plain, &more].concat());
        wait_for_users(&server, 1);
        user
    };
    start(&[], 5).expect_failure(&["token_expired"]);
    let mut source = server.source();
    for (number, plain) in [(1, &["--plain"][..]), (2, &[])] {
        wait_for_users(&server, 0);
        let user = start(plain, 600);
        source.send(format!("{number}|B\n"));
        user.expect(&[format!("{number}|B")]);
    }
}

/// A server with TLS that asks for tokens.
fn launch_tls(certificates: &Certificates, keys: &KeyFile) -> Server {
    launch!(adminPort = 0)
        .set("userTokenKey", &keys.path().display())
        .set("tlsCertificate", &certificates.file("server.pem"))
        .set("tlsKey", &certificates.file("server.key"))
        .set("tlsPorts", "users,sources")
        .start()
}

/// The same program, with this authority among those of the system.
fn trusting(authority: &str, example: &Example) -> Example {
    let variables = [format!("SSL_CERT_FILE={authority}"), format!("NODE_EXTRA_CA_CERTS={authority}")];
    ["env".to_owned()].into_iter().chain(variables).chain(example.iter().cloned()).collect()
}

fn everything_goes_over_tls(language: &Language) {
    if !is_rich(language) {
        for example in [&language.user, &language.source] {
            Program::start(example, &["--tls", "7", "127.0.0.1:1"]).expect_failure(&["has no TLS"]);
        }
        return;
    }
    let keys = KeyFile::new(&format!("client-tls-{}", language.name), &format!("hs256:{SECRET}\n"));
    let certificates = Certificates::new("client");
    let authority = certificates.file("ca.pem");
    let server = launch_tls(&certificates, &keys);
    let (id, users, sources) = (USER.to_string(), server.users.to_string(), server.sources.to_string());
    let with_token = ["--token", &token(USER, 600), &id, &users];
    let user = Program::start(&language.user, &[&["--ca", &authority], &with_token[..]].concat());
    wait_for_users(&server, 1);
    let mut source = Program::start(&language.source, &["--ca", &authority, "feed", &sources]);
    source.give(&input(1..=EVENTS));
    user.expect(&expected(EVENTS));
    source.expect_success();
    expect_keepalive(&users);
    drop(user);
    wait_for_users(&server, 0);

    let user = Program::start(&trusting(&authority, &language.user), &[&["--tls"], &with_token[..]].concat());
    wait_for_users(&server, 1);
    let source = Program::start(&trusting(&authority, &language.source), &["--tls", "feed", &sources]);
    source.expect_success();
    drop(user);

    // The authority is unknown. Then the authority is right and the name is not.
    let other = Certificates::for_names("client-other", &["fortnight.example"]);
    let elsewhere = launch_tls(&other, &keys);
    let there = (elsewhere.users.to_string(), elsewhere.sources.to_string());
    let other_authority = other.file("ca.pem");
    for (trust, (users, sources)) in
        [(&["--tls"][..], (users.clone(), sources)), (&["--ca", &other_authority], there)]
    {
        let user = Program::start(&language.user, &[trust, &["--token", "secret", &id, &users]].concat());
        let source = Program::start(&language.source, &[trust, &["feed", &sources]].concat());
        user.expect_to_say("certificate");
        source.expect_to_say("certificate");
    }
    let missing = certificates.file("missing.pem");
    Program::start(&language.user, &["--ca", &missing, &id, &users]).expect_failure(&[&missing]);
    // Nobody has shown a token to a server that it does not trust.
    let bad = "fortnight_users_disconnected_total{reason=\"bad_token\"}";
    assert_eq!((server.metric(bad), elsewhere.metric(bad)), (0.0, 0.0));
}

fn everything(language: Option<Language>) {
    let Some(language) = language else { return };
    let parts: [fn(&Language); 7] = [
        a_user_leaves_a_server_that_says_nothing_more,
        a_source_leaves_a_server_that_acknowledges_nothing_more,
        a_source_stops_at_another_epoch,
        only_a_missing_state_file_means_no_place,
        a_user_takes_every_answer,
        a_user_shows_its_token,
        everything_goes_over_tls,
    ];
    for part in parts {
        part(&language);
    }
}

#[test]
fn python() {
    if !only_in_clear("the example clients say themselves what they speak") {
        everything(Language::python());
    }
}

#[test]
fn javascript() {
    if !only_in_clear("the example clients say themselves what they speak") {
        everything(Language::javascript());
    }
}

#[test]
fn go() {
    if !only_in_clear("the example clients say themselves what they speak") {
        everything(Language::go("answers"));
    }
}

#[test]
fn rust() {
    if !only_in_clear("the example clients say themselves what they speak") {
        everything(Language::rust("answers"));
    }
}
