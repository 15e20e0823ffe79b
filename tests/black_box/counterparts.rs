//! docs/SPEC.md section 12 with counterparts that others have made: openssl, curl, Python and HAProxy. A browser looks at the page over
//! https in `tests/status_page`.
//!
//! A counterpart that is not installed is skipped, with a message.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use support::{Certificates, DEADLINE, Launch, Server, launch, private_address, skipped};

/// A server with TLS on the given ports.
fn launch(certificates: &Certificates, ports: &str) -> Launch {
    launch!(adminPort = 0)
        .set("tlsCertificate", &certificates.file("server.pem"))
        .set("tlsKey", &certificates.file("server.key"))
        .set("tlsPorts", ports)
}

/// A program that runs, and is killed when it is dropped.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts a program, if it is here.
    fn start(command: &mut Command) -> Option<Running> {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut child) = started else {
            skipped(&format!("{} is not installed; .ci/run installs it", command.get_program().display()));
            return None;
        };
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Some(Running { child, output })
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line
    }

    /// Reads until a line that contains this.
    #[track_caller]
    fn read_to(&mut self, wanted: &str) {
        let mut read = String::new();
        while !read.lines().last().is_some_and(|line| line.contains(wanted)) {
            let line = self.line();
            assert!(!line.is_empty(), "it has ended without {wanted}: {read}");
            read += &line;
        }
    }

    /// Gives it a part of its input.
    fn say(&mut self, input: &str) {
        self.child.stdin.as_mut().expect("its input").write_all(input.as_bytes()).expect("its input");
    }

    /// Gives it its input, and returns all of its output.
    fn finish(mut self, input: &str) -> String {
        let mut stdin = self.child.stdin.take().expect("its input");
        stdin.write_all(input.as_bytes()).expect("its input");
        drop(stdin);
        let mut output = String::new();
        self.output.read_to_string(&mut output).expect("its output");
        output
    }
}

/// Connects over TLS, through whatever is at this address.
fn connect(certificates: &Certificates, address: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
    let socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let config = certificates.client_config(rustls::ALL_VERSIONS, false);
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

/// A user over TLS, whose login has reached the server.
fn user(certificates: &Certificates, server: &Server, id: u64) -> StreamOwned<ClientConnection, TcpStream> {
    let connected = |count: f64| server.wait_for_metric("fortnight_users_connected", move |now| now == count);
    connected(0.0);
    let mut user = connect(certificates, server.users);
    user.write_all(format!("{id}\n").as_bytes()).unwrap();
    connected(1.0);
    user
}

fn expect(user: &mut impl Read, wanted: &str) {
    let mut got = vec![0; wanted.len()];
    user.read_exact(&mut got).expect("what is wanted");
    assert_eq!(String::from_utf8_lossy(&got), wanted);
}

#[test]
fn openssl_sends_events_in_both_versions() {
    let certificates = Certificates::new("openssl");
    let server = launch(&certificates, "users,sources").start();
    for (version, number) in [("-tls1_3", 1), ("-tls1_2", 2)] {
        let mut user = user(&certificates, &server, 7);
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-quiet", "-no_ign_eof", "-verify_return_error", version]).args([
            "-CAfile",
            &certificates.file("ca.pem"),
            "-connect",
            &server.sources.to_string(),
        ]);
        let Some(openssl) = Running::start(&mut openssl) else { return };
        openssl.finish(&format!("{number}|B\n"));
        expect(&mut user, &format!("{number}|B\n"));
    }
}

/// `openssl s_client` that obeys letters: R and K at the beginning of what it reads. It says on its output what it does.
fn openssl(certificates: &Certificates, version: &str, at: SocketAddr) -> Option<Running> {
    drop(Running::start(Command::new("openssl").arg("version"))?);
    let authority = certificates.file("ca.pem");
    let command = format!("exec openssl s_client {version} -CAfile '{authority}' -connect {at} 2>&1");
    let mut openssl = Running::start(Command::new("sh").args(["-c", &command]))?;
    // The handshake has come to its end.
    openssl.read_to("Verify return code: 0 (ok)");
    Some(openssl)
}

/// TLS 1.2 lets a client ask for a second handshake on a connection: each costs the server as much as a new connection.
#[test]
fn a_second_handshake_is_refused_and_takes_nothing_from_others() {
    let certificates = Certificates::new("renegotiation");
    let server = launch(&certificates, "users,sources").start();
    let mut witness = user(&certificates, &server, 7);
    let Some(mut source) = openssl(&certificates, "-tls1_2", server.sources) else { return };
    source.say("1|B\n");
    expect(&mut witness, "1|B\n");
    source.say("R\n");
    source.read_to("no renegotiation");
    drop(source);

    let mut user = openssl(&certificates, "-tls1_2", server.users).expect("openssl");
    user.say("8\n");
    server.wait_for_metric("fortnight_users_connected", |users| users == 2.0);
    user.say("R\n");
    user.read_to("no renegotiation");
    server.wait_for_metric("fortnight_users_connected", |users| users == 1.0);

    let mut source = connect(&certificates, server.sources);
    source.write_all(b"2|B\n3|P|1|7\n").unwrap();
    expect(&mut witness, "2|B\n3|P|1|7\n");
}

/// K sends new keys and asks for new ones of the server, which are those of what it sends next; k only sends them.
#[test]
fn new_keys_of_openssl_change_nothing() {
    let certificates = Certificates::new("new-keys");
    let server = launch(&certificates, "users,sources").start();
    let Some(mut user) = openssl(&certificates, "-tls1_3", server.users) else { return };
    user.say("7\n");
    server.wait_for_metric("fortnight_users_connected", |users| users == 1.0);
    let mut source = openssl(&certificates, "-tls1_3", server.sources).expect("openssl");
    for (number, letter) in (1..).zip(["", "K", "k", "K"]) {
        for program in [&mut user, &mut source] {
            if !letter.is_empty() {
                program.say(&format!("{letter}\n"));
                program.read_to("KEYUPDATE");
            }
        }
        source.say(&format!("{number}|P|1|7\n"));
        user.read_to(&format!("{number}|P|1|7"));
    }
    assert_eq!(server.metric("fortnight_users_connected"), 1.0);
}

#[test]
fn curl_asks_for_health() {
    let certificates = Certificates::new("curl");
    let server = launch(&certificates, "admin").start();
    let url = format!("https://localhost:{}/healthz", server.admin().port());
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--cacert", &certificates.file("ca.pem"), &url]);
    let Some(curl) = Running::start(&mut curl) else { return };
    assert_eq!(curl.finish(""), "ok\n");
}

/// Logs in, says so, prints two lines, and ends in good order: `unwrap` waits for the server's last word.
const PYTHON: &str = "
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
context.maximum_version = getattr(ssl.TLSVersion, sys.argv[3])
plain = socket.create_connection(('127.0.0.1', int(sys.argv[2])))
user = context.wrap_socket(plain, server_hostname='localhost')
user.sendall(b'7\\r\\n')
print(user.version(), flush=True)
lines = user.makefile()
print(lines.readline() + lines.readline(), end='', flush=True)
user.unwrap()
print('ended', flush=True)
";

#[test]
fn python_receives_events_in_both_versions() {
    let certificates = Certificates::new("python");
    let server = launch(&certificates, "users").start();
    let mut source = server.source();
    for (version, name, first) in [("TLSv1_3", "TLSv1.3", 1), ("TLSv1_2", "TLSv1.2", 3)] {
        let mut python = Command::new("python3");
        python
            .args(["-c", PYTHON, &certificates.file("ca.pem")])
            .args([&server.users.port().to_string(), version]);
        let Some(mut python) = Running::start(&mut python) else { return };
        let said = python.line();
        if said.is_empty() {
            return skipped("this python3 has no module ssl");
        }
        assert_eq!(said.trim(), name);
        server.wait_for_metric("fortnight_users_connected", |users| users == 1.0);
        let events = format!("{first}|B\n{}|P|1|7\n", first + 1);
        source.send(&events);
        assert_eq!(python.line() + &python.line(), events);
        assert_eq!(python.line(), "ended\n");
        server.wait_for_metric("fortnight_users_connected", |users| users == 0.0);
    }
}

/// HAProxy in front of a server's user port, which sends the PROXY header that this word of its configuration names.
fn haproxy(server: &Server, word: &str) -> Option<(Running, SocketAddr)> {
    let at = TcpListener::bind((private_address(), 0)).unwrap().local_addr().unwrap();
    let users = server.users;
    let config = format!(
        "defaults\n mode tcp\n timeout connect 30s\n timeout client 60s\n timeout server 60s\n\
         frontend users\n bind {at}\n default_backend fortnight\n\
         backend fortnight\n server one {users} {word} check inter 20ms\n"
    );
    let name = format!("fortnight-haproxy-{}-{}.cfg", std::process::id(), at.port());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, config).unwrap();
    let running = Running::start(Command::new("haproxy").arg("-db").arg("-f").arg(&file))?;
    let mut running = running;
    let deadline = std::time::Instant::now() + DEADLINE;
    while TcpStream::connect(at).is_err() {
        assert!(running.child.try_wait().unwrap().is_none(), "haproxy has ended");
        assert!(std::time::Instant::now() < deadline, "haproxy does not listen");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::fs::remove_file(file).unwrap();
    Some((running, at))
}

#[test]
fn haproxy_names_the_real_peer_in_both_versions() {
    let certificates = Certificates::new("haproxy");
    for word in ["send-proxy", "send-proxy-v2"] {
        // Its checks, which speak for itself, come and go all the time: they take no place of users.
        let server = launch(&certificates, "users")
            .set("proxyProtocolFrom", "127.0.0.0/8")
            .set("maxUserClients", "1")
            .set("logLevel", "debug")
            .start();
        let Some((haproxy, at)) = haproxy(&server, word) else { return };
        let mut user = connect(&certificates, at);
        user.write_all(b"7\n").unwrap();
        let peer = user.sock.local_addr().unwrap();
        server.wait_for_log(&format!("peer={peer}"));
        server.wait_for_metric("fortnight_users_connected", |users| users == 1.0);
        let mut proxied = PROXIED.to_vec();
        proxied.extend(b"1|B\n");
        TcpStream::connect(server.sources).unwrap().write_all(&proxied).unwrap();
        expect(&mut user, "1|B\n");
        assert_eq!(server.metric("fortnight_connections_refused_total{reason=\"proxy\"}"), 0.0, "{word}");
        drop(haproxy);
    }
}

/// Sources come through the proxy, too.
const PROXIED: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
