//! SPEC section 12: TLS on every port.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use support::stream::long_broadcasts;
use support::{Certificates, DEADLINE, Launch, Server, Signal, launch, raise_own_limit, skipped};

/// A server with TLS on the given ports.
fn launch(certificates: &Certificates, ports: &str) -> Launch {
    launch!(adminPort = 0, streamPort = 0)
        .set("tlsCertificate", &certificates.file("server.pem"))
        .set("tlsKey", &certificates.file("server.key"))
        .set("tlsPorts", ports)
}

fn connect(certificates: &Certificates, address: SocketAddr) -> Client {
    Client::new(address, certificates.client_config(rustls::ALL_VERSIONS, false), b"")
}

fn user(certificates: &Certificates, server: &Server, id: u64) -> Client {
    let mut client = connect(certificates, server.users);
    client.send(format!("{id}\r\n"));
    client
}

struct Client(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    /// Connects; `clear` goes ahead of the handshake.
    fn new(address: SocketAddr, config: ClientConfig, clear: &[u8]) -> Client {
        let mut socket = TcpStream::connect(address).expect("a connection");
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(clear).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Client(StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).expect("bytes sent");
        self.0.flush().expect("bytes sent");
    }

    #[track_caller]
    fn expect(&mut self, wanted: impl AsRef<[u8]>) {
        let mut got = vec![0; wanted.as_ref().len()];
        self.0.read_exact(&mut got).expect("what is wanted");
        assert!(got == wanted.as_ref(), "something else came");
    }

    fn line(&mut self) -> String {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\n") {
            self.0.read_exact(&mut byte).expect("a line");
            line.extend(byte);
        }
        String::from_utf8(line).unwrap()
    }

    /// Ends this side, and expects that the other side ends in good order too: with a word, not with a cut.
    #[track_caller]
    fn finish(mut self) {
        self.0.conn.send_close_notify();
        self.0.flush().expect("the end sent");
        self.expect_end();
    }

    #[track_caller]
    fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("an end in good order");
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }

    /// Expects that the connection is refused, in whatever way.
    #[track_caller]
    fn expect_refused(mut self) {
        let refused =
            self.0.write_all(b"7\n").and_then(|()| self.0.flush()).and_then(|()| self.0.read(&mut [0; 64]));
        assert!(!matches!(refused, Ok(1..)), "it was let in");
        if let Err(error) = refused {
            assert!(
                !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                "nothing came of it: {error}"
            );
        }
    }
}

fn refused(server: &Server, reason: &str) -> f64 {
    server.metric(&format!("fortnight_connections_refused_total{{reason=\"{reason}\"}}"))
}

#[test]
fn events_go_from_source_to_users_in_both_versions() {
    let certificates = Certificates::new("versions");
    let server = launch(&certificates, "users,sources").start();
    let mut users = [&rustls::version::TLS13, &rustls::version::TLS12].map(|version| {
        let mut user = Client::new(server.users, certificates.client_config(&[version], false), b"");
        user.send(if version.version == rustls::ProtocolVersion::TLSv1_3 { "7\n" } else { "8\n" });
        user
    });
    let mut source = connect(&certificates, server.sources);
    source.send("2|P|1|7\n1|B\n3|F|8|7\n4|S|7\n");
    users[0].expect("1|B\n2|P|1|7\n3|F|8|7\n");
    users[1].expect("1|B\n4|S|7\n");
    source.finish();
    for user in users {
        user.finish();
    }
    assert_eq!(server.metric("fortnight_users_disconnected_total{reason=\"left\"}"), 2.0);
}

#[test]
fn a_long_stream_arrives_whole_where_the_reader_is_slow() {
    let certificates = Certificates::new("long");
    let server = launch(&certificates, "users,sources").set("userBufferBytes", "65536").start();
    let mut user = user(&certificates, &server, 7);
    let mut source = connect(&certificates, server.sources);
    // More than all buffers on the way hold: nothing is read until nothing more can be sent.
    let stream = long_broadcasts(1..=30_000, 1000);
    let sent = stream.clone();
    let sender = std::thread::spawn(move || {
        source.send(&sent);
        source.finish();
    });
    server.wait_for_metric("fortnight_output_buffered_bytes", |bytes| bytes > 0.0);
    for piece in stream.chunks(100_001) {
        user.expect(piece);
    }
    sender.join().unwrap();
    server.stop();
    user.expect_end();
}

#[test]
fn what_the_server_owes_is_sent_at_its_end() {
    let certificates = Certificates::new("end");
    let server = launch(&certificates, "users").start();
    let mut user = user(&certificates, &server, 7);
    let mut source = server.source();
    let stream = long_broadcasts(1..=3_000, 1000);
    source.send(&stream);
    source.finish();
    server.wait_for_metric("fortnight_deliveries_total", |deliveries| deliveries == 3000.0);
    server.signal(Signal::TERM);
    user.expect(&stream);
    user.expect_end();
}

#[test]
fn a_source_that_is_cut_off_sends_half_a_line_for_nothing() {
    let certificates = Certificates::new("cut");
    let server = launch(&certificates, "users,sources").start();
    let mut user = user(&certificates, &server, 7);
    let mut source = connect(&certificates, server.sources);
    source.send("1|B\n2|B");
    user.expect("1|B\n");
    // The connection ends without a word of TLS.
    drop(source.0.sock);
    server.wait_for_metric("fortnight_events_rejected_total{reason=\"truncated\"}", |count| count == 1.0);
    let mut source = connect(&certificates, server.sources);
    source.send("2|B\n");
    user.expect("2|B\n");
}

#[test]
fn the_source_port_acknowledges_and_the_stream_port_streams() {
    let certificates = Certificates::new("stream");
    let server = launch(&certificates, "sources,stream").start();
    let mut client = connect(&certificates, server.stream());
    client.send("*|now\n");
    assert!(client.line().starts_with("+|"));
    let mut source = connect(&certificates, server.sources);
    source.send("?|ack\n");
    assert!(source.line().starts_with("+|"));
    source.send("1|B\n");
    client.expect("1|B\n");
    assert!(source.line().ends_with("|2\n"));
}

#[test]
fn the_admin_interface_answers_over_tls() {
    let certificates = Certificates::new("admin");
    let server = launch(&certificates, "admin").set("adminHosts", "fortnight.example").start();
    let mut client = connect(&certificates, server.admin());
    client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    client.0.read_to_string(&mut answer).expect("an answer with an end in good order");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let expiry = answer
        .lines()
        .find_map(|line| line.strip_prefix("fortnight_tls_certificate_expiry_timestamp_seconds "));
    // rcgen's certificates are good for thousands of years.
    assert!(expiry.expect("when the certificate runs out").parse::<u64>().unwrap() > 4_000_000_000);
}

#[test]
fn clients_without_a_certificate_are_not_let_in_where_one_is_asked_for() {
    let certificates = Certificates::new("client");
    let server =
        launch(&certificates, "sources,stream").set("sourceClientCa", &certificates.file("ca.pem")).start();
    connect(&certificates, server.sources).expect_refused();
    // One of another authority.
    let stranger = Certificates::new("stranger");
    std::fs::copy(certificates.folder.join("ca.pem"), stranger.folder.join("ca.pem")).unwrap();
    Client::new(server.sources, stranger.client_config(rustls::ALL_VERSIONS, true), b"").expect_refused();
    assert_eq!(refused(&server, "tls"), 2.0);
    server.wait_for_log("connection refused before its login");
    let config = certificates.client_config(rustls::ALL_VERSIONS, true);
    let mut source = Client::new(server.sources, config, b"");
    source.send("1|B\n");
    server.wait_for_metric("fortnight_cursor", |cursor| cursor == 2.0);
    // The stream port asks for no certificate.
    let mut client = connect(&certificates, server.stream());
    client.send("*|now\n");
    assert!(client.line().starts_with("+|"));
}

#[test]
fn what_is_no_handshake_is_refused_and_takes_no_place() {
    let certificates = Certificates::new("garbage");
    let server = launch(&certificates, "users").set("maxUserClients", "1").start();
    for garbage in [&b"7\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff\x01", &[0; 70_000]] {
        let mut stranger = server.stranger();
        stranger.offer(garbage);
        stranger.read_to_close();
    }
    server.wait_for_metric("fortnight_connections_refused_total{reason=\"tls\"}", |count| count == 4.0);
    let silent: Vec<_> = (0..100).map(|_| server.stranger()).collect();
    let mut user = user(&certificates, &server, 7);
    server.source().send("1|B\n");
    user.expect("1|B\n");
    drop(silent);
}

/// A port in clear is open while all places for handshakes are taken at another one: nobody has to make room for its sources.
#[test]
fn handshakes_at_one_port_keep_nobody_from_another() {
    const PLACES: usize = 4096;
    if raise_own_limit() < PLACES as u64 + 1000 {
        return skipped("4,096 handshakes need a limit of 5,096 open files");
    }
    let certificates = Certificates::new("places");
    let server = launch(&certificates, "users").set("loginTimeoutMs", "600000").start();
    let silent: Vec<TcpStream> = (0..PLACES).map(|_| TcpStream::connect(server.users).unwrap()).collect();
    let mut source = server.source();
    source.send("?|ack\n1|B\n");
    server.wait_for_metric("fortnight_cursor", |cursor| cursor == 2.0);
    assert_eq!(refused(&server, "timeout"), 0.0);
    drop(silent);
}

#[test]
fn a_handshake_that_does_not_end_is_not_waited_for() {
    let certificates = Certificates::new("silent");
    let server = launch(&certificates, "users").set("loginTimeoutMs", "100").start();
    let mut silent = server.stranger();
    silent.expect_closed();
    let mut halting = server.stranger();
    halting.send(b"\x16\x03\x01\x02\x00\x01");
    halting.read_to_close();
    assert_eq!(refused(&server, "timeout"), 2.0);
    // The time to log in begins behind the handshake, which has a time of its own.
    let server = launch(&certificates, "users").set("loginTimeoutMs", "2000").start();
    let mut user = connect(&certificates, server.users);
    user.0.flush().unwrap();
    user.expect_end();
    assert_eq!(server.metric("fortnight_users_disconnected_total{reason=\"login_timeout\"}"), 1.0);
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let certificates = Certificates::new("proxy");
    let server =
        launch(&certificates, "users").set("proxyProtocolFrom", "127.0.0.1").set("logLevel", "debug").start();
    let config = certificates.client_config(rustls::ALL_VERSIONS, false);
    let mut user = Client::new(server.users, config, b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 9099\r\n");
    user.send("7\n");
    server.wait_for_log("peer=192.0.2.7:4711");
    connect(&certificates, server.users).expect_refused();
    assert_eq!(refused(&server, "proxy"), 1.0);
}

#[test]
fn certificates_are_read_anew_and_bad_ones_change_nothing() {
    let certificates = Certificates::new("reload");
    let server = launch(&certificates, "users").start();
    let mut first = user(&certificates, &server, 1);
    let other = Certificates::new("reload-other");
    // The key does not go with the certificate.
    std::fs::copy(other.folder.join("server.pem"), certificates.folder.join("server.pem")).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_log("certificates stay as they were");
    let mut second = user(&certificates, &server, 2);
    let mut source = server.source();
    source.send("1|B\n");
    first.expect("1|B\n");
    second.expect("1|B\n");
    std::fs::copy(other.folder.join("server.key"), certificates.folder.join("server.key")).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_log("certificates have been read again");
    connect(&certificates, server.users).expect_refused();
    let mut third = user(&other, &server, 3);
    source.send("2|B\n");
    third.expect("2|B\n");
    first.expect("2|B\n");
    second.expect("2|B\n");
}

/// Gives the server a certificate of its own that is good for so long.
fn renew(certificates: &Certificates, left: Duration) {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970 + left;
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(certificates.folder.join("server.pem"), certificate.pem()).unwrap();
    std::fs::write(certificates.folder.join("server.key"), key.serialize_pem()).unwrap();
}

#[test]
fn a_certificate_that_runs_out_soon_is_warned_of() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let certificates = Certificates::new("expiry");
    renew(&certificates, 15 * DAY);
    let server = launch(&certificates, "users").start();
    let expiry = || server.metric("fortnight_tls_certificate_expiry_timestamp_seconds");
    let late = expiry();
    assert!(late > 0.0);
    assert!(!server.log().contains("runs out soon"));
    renew(&certificates, 10 * DAY - DAY / 2);
    server.signal(Signal::HUP);
    server.wait_for_log("the certificate in tlsCertificate runs out soon");
    assert!(server.log().contains("days=9"), "{}", server.log());
    let soon = expiry();
    assert!((5.4..5.6).contains(&((late - soon) / 86_400.0)), "{soon} to {late}");
}

#[test]
fn a_chain_in_the_wrong_order_is_refused_at_the_start() {
    let certificates = Certificates::new("chain");
    let file = |name: &str| std::fs::read_to_string(certificates.file(name)).unwrap();
    let (own, authority) = (file("server.pem"), file("ca.pem"));
    let chain = certificates.folder.join("chain.pem");
    std::fs::write(&chain, format!("{authority}{own}")).unwrap();
    let wrong = launch(&certificates, "users").set("tlsCertificate", &chain.display()).run();
    assert_eq!((wrong.status, wrong.stderr.lines().count()), (2, 1), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("expected this server's own certificate first"), "{}", wrong.stderr);
    std::fs::write(&chain, format!("{own}{authority}")).unwrap();
    let server = launch(&certificates, "users").set("tlsCertificate", &chain.display()).start();
    let mut user = user(&certificates, &server, 7);
    server.source().send("1|B\n");
    user.expect("1|B\n");
}

#[test]
fn files_that_make_no_sense_are_refused_at_the_start() {
    let certificates = Certificates::new("files");
    let other = Certificates::new("files-other");
    std::fs::write(certificates.folder.join("empty.pem"), "").unwrap();
    for (option, value, part) in [
        ("tlsKey", other.file("server.key"), "does not go with the key"),
        ("tlsKey", certificates.file("server.pem"), "tlsKey: cannot read a private key from"),
        ("tlsKey", "/nowhere".to_owned(), "tlsKey: cannot read a private key from /nowhere"),
        ("tlsCertificate", certificates.file("empty.pem"), "tlsCertificate: "),
        ("tlsCertificate", "/nowhere".to_owned(), "tlsCertificate: cannot read certificates from /nowhere"),
        ("sourceClientCa", certificates.file("empty.pem"), "sourceClientCa: "),
    ] {
        let refused = launch(&certificates, "users,sources").set(option, &value).run();
        assert_eq!((refused.status, refused.stderr.lines().count()), (2, 1), "{}", refused.stderr);
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    let alone = launch!(tlsCertificate = "a.pem").run();
    assert_eq!(alone.status, 2, "{}", alone.stderr);
    let alone = launch!(tlsKey = "a.pem").run();
    assert_eq!(alone.status, 2, "{}", alone.stderr);
    let plain = launch(&certificates, "users").set("adminClientCa", &certificates.file("ca.pem")).run();
    assert_eq!(plain.status, 2, "{}", plain.stderr);
}

#[test]
fn health_is_asked_for_over_tls() {
    let certificates = Certificates::new("health");
    let server = launch(&certificates, "admin").start();
    let health = |authority: &str| {
        let url = format!("https://localhost:{}", server.admin().port());
        launch!().flag("health").flag("--admin").flag(url).flag("--tls-ca").flag(authority).run()
    };
    let well = health(&certificates.file("ca.pem"));
    assert_eq!((well.status, well.stdout.as_str()), (0, "ok\n"), "{}", well.stderr);
    let other = Certificates::new("health-other");
    let strange = health(&other.file("ca.pem"));
    assert_eq!(strange.status, 1);
    assert!(strange.stderr.contains("invalid peer certificate"), "{}", strange.stderr);
    let blind = health("/nowhere");
    assert_eq!(blind.status, 1);
    assert!(blind.stderr.contains("--tls-ca: cannot read certificates from /nowhere"), "{}", blind.stderr);
}

#[test]
fn connections_are_listed_over_tls() {
    let certificates = Certificates::new("clients");
    let server = launch(&certificates, "admin,users").start();
    let connected = user(&certificates, &server, 11);
    let clients = |authority: &str| {
        let url = format!("https://localhost:{}", server.admin().port());
        launch!().flag("clients").flag("--admin").flag(url).flag("--tls-ca").flag(authority).run()
    };
    let deadline = Instant::now() + DEADLINE;
    // Its login may still be on its way.
    loop {
        let listed = clients(&certificates.file("ca.pem"));
        assert_eq!(listed.status, 0, "{}", listed.stderr);
        if listed.stdout.contains("\n11  ") {
            break;
        }
        assert!(Instant::now() < deadline, "{}", listed.stdout);
    }
    drop(connected);
    let other = Certificates::new("clients-other");
    let strange = clients(&other.file("ca.pem"));
    assert_eq!(strange.status, 1);
    assert!(strange.stderr.contains("invalid peer certificate"), "{}", strange.stderr);
}
