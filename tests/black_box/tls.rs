//! SPEC section 12: TLS on every port.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use support::stream::long_broadcasts;
use support::{Certificates, DEADLINE, Launch, Server, Signal, launch};

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
    // The time to log in begins behind the handshake.
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
    server.wait_for_log("certificates have been read anew");
    connect(&certificates, server.users).expect_refused();
    let mut third = user(&other, &server, 3);
    source.send("2|B\n");
    third.expect("2|B\n");
    first.expect("2|B\n");
    second.expect("2|B\n");
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

/// Runs a counterpart, if it is here. `None`, and a word about it: it is not.
fn counterpart(command: &mut Command, input: &str) -> Option<String> {
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = started else {
        eprintln!("NOT RUN: {} is not installed here", command.get_program().display());
        return None;
    };
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("its input");
    let output = child.wait_with_output().expect("its output");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn openssl_and_curl_are_served() {
    let certificates = Certificates::new("counterparts");
    let server = launch(&certificates, "users,sources,admin").start();
    let authority = certificates.file("ca.pem");
    for (version, seq) in [("-tls1_3", 1), ("-tls1_2", 2)] {
        let mut user = user(&certificates, &server, 7);
        let address = server.sources.to_string();
        let sent = counterpart(
            Command::new("openssl")
                .args(["s_client", "-quiet", "-no_ign_eof", "-verify_return_error", version])
                .args(["-CAfile", &authority, "-connect", &address]),
            &format!("{seq}|B\n"),
        );
        if sent.is_some() {
            user.expect(format!("{seq}|B\n"));
        }
    }
    let url = format!("https://localhost:{}/healthz", server.admin().port());
    let answer = counterpart(Command::new("curl").args(["--silent", "--cacert", &authority, &url]), "");
    if let Some(answer) = answer {
        assert_eq!(answer, "ok\n");
    }
}
