//! docs/SPEC.md sections 11 and 12: `streamCa`, `streamCertificate` and `streamKey`, towards another server and towards NATS.

use std::net::SocketAddr;

use support::nats::Nats;
use support::stream::long_broadcasts;
use support::{Certificates, Launch, Server, Signal, launch, private_address};

/// A server with a stream port that speaks TLS.
fn hub(certificates: &Certificates) -> Launch {
    launch!(adminPort = 0, streamPort = 0)
        .set("tlsCertificate", &certificates.file("server.pem"))
        .set("tlsKey", &certificates.file("server.key"))
        .set("tlsPorts", "stream")
}

/// An edge of the stream at this address, which trusts this authority.
fn edge(stream: SocketAddr, certificates: &Certificates) -> Launch {
    launch!(role = "edge", stream = format!("tls://{stream}"), adminPort = 0)
        .set("streamCa", &certificates.file("ca.pem"))
}

/// With the client's certificate.
fn named(launch: Launch, certificates: &Certificates) -> Launch {
    launch
        .set("streamCertificate", &certificates.file("client.pem"))
        .set("streamKey", &certificates.file("client.key"))
}

fn is_away(edge: &Server, reason: &str) {
    edge.wait_for_log(reason);
    assert_eq!(edge.get("/healthz").body.trim(), "the stream is away");
}

#[test]
fn an_edge_follows_a_stream_over_tls() {
    let certificates = Certificates::new("edge");
    let server = hub(&certificates).start();
    let mut source = server.source();
    source.send("1|F|7|8\n");
    server.wait_for_metric("fortnight_cursor", |cursor| cursor == 2.0);
    let edge = edge(server.stream(), &certificates).start();
    edge.wait_for_log("the stream has been reached");
    let mut users = [edge.user(7), edge.user(9)];
    edge.pass();
    let stream = long_broadcasts(2..=2_000, 1000);
    source.send("2002|S|8\n");
    source.send(&stream);
    source.send("2001|P|1|9\n");
    for user in &mut users {
        user.expect(&stream);
    }
    // The follow graph came over TLS, too.
    users[0].expect("2002|S|8\n");
    users[1].expect("2001|P|1|9\n");
    edge.stop();
    server.stop();
}

#[test]
fn an_edge_without_the_right_certificate_is_not_let_in() {
    let certificates = Certificates::new("edge-client");
    let server = hub(&certificates).set("streamClientCa", &certificates.file("ca.pem")).start();
    let stranger = edge(server.stream(), &certificates).start();
    is_away(&stranger, "CertificateRequired");
    let other = Certificates::new("edge-other");
    std::fs::copy(other.file("client.pem"), certificates.file("other.pem")).unwrap();
    let impostor = named(edge(server.stream(), &certificates), &other).start();
    is_away(&impostor, "the connection to the stream is away");
    let known = named(edge(server.stream(), &certificates), &certificates).start();
    known.wait_for_log("the stream has been reached");
    assert!(server.metric("fortnight_connections_refused_total{reason=\"tls\"}") >= 2.0);
}

#[test]
fn a_stream_that_is_not_trusted_is_not_followed_until_its_authority_is_read_anew() {
    let certificates = Certificates::new("hub");
    let server = hub(&certificates).start();
    let other = Certificates::new("hub-other");
    let edge = edge(server.stream(), &other).start();
    is_away(&edge, "invalid peer certificate");
    // An authority that is none changes nothing.
    let authority = std::fs::read(certificates.file("ca.pem")).unwrap();
    std::fs::write(other.file("ca.pem"), "nothing").unwrap();
    edge.signal(Signal::HUP);
    edge.wait_for_log("certificates stay as they were");
    std::fs::write(other.file("ca.pem"), authority).unwrap();
    edge.signal(Signal::HUP);
    edge.wait_for_log("certificates have been read again");
    edge.wait_for_log("the stream has been reached");
    let mut user = edge.user(7);
    edge.pass();
    server.source().send("1|B\n");
    user.expect("1|B\n");
}

#[test]
fn a_certificate_of_another_name_is_not_trusted() {
    let certificates = Certificates::for_names("name", &["elsewhere.example"]);
    let server = hub(&certificates).start();
    let edge = edge(server.stream(), &certificates).start();
    is_away(&edge, "certificate not valid for name");
}

#[test]
fn a_stream_in_clear_is_no_stream_over_tls() {
    let certificates = Certificates::new("clear");
    let server = launch!(streamPort = 0).start();
    let edge = edge(server.stream(), &certificates).start();
    is_away(&edge, "the connection to the stream is away");
}

#[test]
fn files_for_the_stream_that_make_no_sense_are_refused_at_the_start() {
    let certificates = Certificates::new("stream-files");
    let other = Certificates::new("stream-files-other");
    std::fs::write(certificates.folder.join("empty.pem"), "").unwrap();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    for (option, value, part) in [
        ("streamCa", certificates.file("empty.pem"), "streamCa: there is no certificate in"),
        ("streamCa", "/nowhere".to_owned(), "streamCa: cannot read certificates from /nowhere"),
        ("streamKey", other.file("client.key"), "does not go with the key"),
        ("streamKey", certificates.file("ca.pem"), "streamKey: cannot read a private key from"),
        (
            "streamCertificate",
            certificates.file("empty.pem"),
            "streamCertificate: there is no certificate in",
        ),
        ("stream", "tls://no_name_-:1".to_owned(), "stream: no_name_-:1: no certificate can have this name"),
        ("stream", format!("tcp://{nowhere}"), "streamCa: no stream is spoken to over TLS"),
    ] {
        let refused = named(edge(nowhere, &certificates), &certificates).set(option, &value).run();
        assert_eq!((refused.status, refused.stderr.lines().count()), (2, 1), "{}", refused.stderr);
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    let blind = launch!(role = "edge", stream = "tls://localhost:1").run();
    assert_eq!(blind.status, 2);
    assert!(
        blind.stderr.contains("stream: nobody has said which authority is trusted there"),
        "{}",
        blind.stderr
    );
}

/// Certificates for the address of NATS, and the part of its configuration that names them.
fn of_nats() -> (Certificates, String) {
    let certificates = Certificates::for_names("nats", &[&private_address().to_string()]);
    let file = |name| certificates.file(name);
    let tls = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true, timeout: 10 }}",
        file("server.pem"),
        file("server.key"),
        file("ca.pem"),
    );
    (certificates, tls)
}

fn sequencer(nats: &Nats) -> Launch {
    launch!(role = "sequencer", stream = nats.stream("tls"), streamReplicas = 1, adminPort = 0)
        .set("streamRetentionBytes", &(64 << 20))
}

#[test]
fn the_replicated_log_is_spoken_to_over_tls() {
    let (certificates, tls) = of_nats();
    let Some(nats) = Nats::start_with(1, &tls) else { return };
    let trusting = |launch: Launch| launch.set("streamCa", &certificates.file("ca.pem"));
    let sequencer = named(trusting(self::sequencer(&nats)), &certificates).start();
    sequencer.wait_for_metric("fortnight_stream_leader", |leads| leads == 1.0);
    let edge = launch!(role = "edge", stream = nats.stream("tls"), adminPort = 0);
    let edge = named(trusting(edge), &certificates).start();
    edge.wait_for_log("the stream has been reached");
    let mut user = edge.user(7);
    edge.pass();
    let mut source = sequencer.source();
    let stream = long_broadcasts(1..=2_000, 1000);
    source.send(&stream);
    user.expect(&stream);
    // Without a certificate, and without TLS.
    let unnamed = trusting(self::sequencer(&nats)).start();
    is_away(&unnamed, "the connection to the stream is away");
    let plain = self::sequencer(&nats).start();
    is_away(&plain, "the server asks for TLS; set streamCa");
}

#[test]
fn nats_in_clear_is_refused_where_an_authority_is_set() {
    let Some(nats) = Nats::start(1) else { return };
    let certificates = Certificates::new("nats-clear");
    let sequencer = sequencer(&nats).set("streamCa", &certificates.file("ca.pem")).start();
    is_away(&sequencer, "the server speaks no TLS, and streamCa is set");
}
