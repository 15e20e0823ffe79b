//! SPEC section 6: the admin interface, as HTTP. What the numbers say is in `metrics.rs`.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::http::{AdminClient, Answer};
use support::stream::long_broadcasts;
use support::{Server, Signal, server};

const PATHS: [(&str, &str); 5] = [
    ("/", "text/html; charset=utf-8"),
    ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
    ("/healthz", "text/plain; charset=utf-8"),
    ("/status.json", "application/json"),
    ("/history.json", "application/json"),
];

/// Connections that the admin interface keeps.
const CLIENTS_MAX: usize = 8;

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Sends a request on a connection of its own, which the server must end with the answer.
#[track_caller]
fn last_answer(server: &Server, request: impl AsRef<[u8]>) -> Answer {
    let mut client = AdminClient::connect(server.admin());
    client.send(request);
    let answer = client.answer();
    assert_eq!(answer.header("Connection"), Some("close"));
    client.expect_eof();
    answer
}

#[test]
fn without_admin_port_there_is_no_admin_interface() {
    assert!(server!().ready.ends_with(" admin=off"));
}

#[test]
fn every_path_answers_with_its_type() {
    let server = server!(adminPort = 0);
    for (path, media_type) in PATHS {
        for target in [path.to_owned(), format!("{path}?a=b&c"), format!("http://localhost:1{path}")] {
            let answer = server.get(&target);
            assert_eq!(answer.status, 200, "{target}");
            assert_eq!(answer.header("Content-Type"), Some(media_type));
            assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
            assert_eq!(answer.header("Cache-Control"), Some("no-store"));
            assert!(!answer.body.is_empty());
        }
    }
    assert_eq!(server.get("/healthz").body, "ok\n");
}

#[test]
fn head_is_get_without_the_body() {
    let server = server!(adminPort = 0);
    let mut client = AdminClient::connect(server.admin());
    // What the others say changes its length with the numbers in it.
    for path in ["/", "/healthz", "/nothing"] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let head = client.head();
        client.send(get(path));
        let full = client.answer();
        assert_eq!((head.status, head.headers), (full.status, full.headers), "{path}");
    }
}

#[test]
fn what_is_not_there_is_404() {
    let server = server!(adminPort = 0);
    for target in ["/nothing", "/metrics/", "/../metrics", "//", "*", "/%2e", "/metricsx"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
}

#[test]
fn on_a_loopback_address_no_web_page_reaches_it_by_a_name_of_its_own() {
    let server = server!(adminPort = 0, adminHosts = "fortnight.example, other");
    let mut client = AdminClient::connect(server.admin());
    let mut ask = |target: &str, host: &str| {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.answer()
    };
    let port = server.admin().port();
    for host in
        [&format!("127.0.0.1:{port}"), "LOCALHOST", "[::1]:80", "192.0.2.1", "fortnight.example", "OTHER:1"]
    {
        assert_eq!(ask("/healthz", host).status, 200, "{host}");
    }
    for host in
        ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "evil.localhost", "x@localhost", ""]
    {
        let answer = ask("/metrics", host);
        assert_eq!(answer.status, 421, "{host}");
        assert_eq!(
            answer.body,
            "421 Misdirected Request: expected an address, localhost or one of adminHosts as the host that is asked\n"
        );
    }
    // Of a target in absolute form, the host in it counts as well.
    assert_eq!(ask("http://evil.example/metrics", "localhost").status, 421);
    assert_eq!(ask("http://localhost/healthz", "localhost").status, 200);
    // What has no host at all is no browser.
    let mut old = AdminClient::connect(server.admin());
    old.send("GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(old.answer().status, 200);
}

#[test]
fn on_other_addresses_every_host_name_is_accepted() {
    let server = server!(adminPort = 0, adminBindAddress = "0.0.0.0");
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], server.admin().port()));
    let mut client = AdminClient::connect(address);
    client.send("GET /healthz HTTP/1.1\r\nHost: scraped.example\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn other_methods_are_405_and_told_what_is_allowed() {
    let server = server!(adminPort = 0);
    let mut client = AdminClient::connect(server.admin());
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "SUBSCRIBE"] {
        client.send(format!("{method} /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let with_body = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(last_answer(&server, with_body).status, 405);
}

#[test]
fn garbage_is_400() {
    let server = server!(adminPort = 0);
    for garbage in [
        "\0\0\0\0",
        "\u{16}\u{3}\u{1}\u{2}\0",
        "GET\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/x\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        "1|B\n2|B\n",
    ] {
        assert_eq!(last_answer(&server, garbage).status, 400, "{garbage:?}");
    }
    assert_eq!(last_answer(&server, "GET / HTTP/3.0\r\n\r\n").status, 505);
}

#[test]
fn a_request_with_a_body_is_refused() {
    let server = server!(adminPort = 0);
    for length in
        ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 5\r\nExpect: 100-continue"]
    {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\nhello");
        assert_eq!(last_answer(&server, request).status, 413, "{length}");
    }
    let mut client = AdminClient::connect(server.admin());
    client.send(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_long_head_is_431_even_to_a_client_that_goes_on_sending() {
    let server = server!(adminPort = 0);
    let many = "A: b\r\n".repeat(65);
    assert_eq!(last_answer(&server, format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n")).status, 431);
    // The rest of what was sent must not reset the connection before the answer has been read.
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(last_answer(&server, long).status, 431);
    // The longest that is accepted.
    let mut longest = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(8192));
    longest.truncate(8188);
    let mut client = AdminClient::connect(server.admin());
    client.send(longest + "\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_connection_serves_many_requests_one_after_the_other_or_all_at_once() {
    let server = server!(adminPort = 0);
    let mut client = AdminClient::connect(server.admin());
    for _ in 0..30 {
        client.send(get("/healthz"));
        assert_eq!(client.answer().body, "ok\n");
    }
    client.send(["/healthz", "/nothing"].map(get).concat().repeat(50));
    for _ in 0..50 {
        assert_eq!(client.answer().status, 200);
        assert_eq!(client.answer().status, 404);
    }
    // In pieces.
    for byte in get("/healthz").bytes() {
        client.send([byte]);
    }
    assert_eq!(client.answer().status, 200);
    client
        .send("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned() + &get("/"));
    assert_eq!(client.answer().status, 200);
    client.expect_eof();
}

#[test]
fn a_client_that_closes_its_side_after_the_request_is_answered() {
    let server = server!(adminPort = 0);
    let mut client = AdminClient::connect(server.admin());
    client.send(get("/healthz"));
    client.finish();
    assert_eq!(client.answer().status, 200);
    client.expect_eof();
    let mut half = AdminClient::connect(server.admin());
    half.send("GET /heal");
    half.finish();
    half.expect_eof();
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let server = server!(adminPort = 0);
    assert_eq!(last_answer(&server, "GET /healthz HTTP/1.0\r\n\r\n").body, "ok\n");
}

#[test]
fn slow_clients_are_closed() {
    let server = server!(adminPort = 0);
    let mut silent = AdminClient::connect(server.admin());
    let mut half = AdminClient::connect(server.admin());
    half.send("GET / HT");
    // One that takes a second for a byte is no better.
    let mut dripping = AdminClient::connect(server.admin());
    let began = Instant::now();
    let request = get("/healthz");
    let mut bytes = request.bytes();
    while dripping.offer([bytes.next().expect("closed before the end of the request")]) {
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());
    silent.expect_eof();
    half.expect_eof();
}

#[test]
fn a_client_that_does_not_read_its_answers_is_closed_and_others_are_served() {
    let server = server!(adminPort = 0);
    let mut deaf = AdminClient::connect(server.admin());
    // Until its socket takes no more requests, because the server's takes no more answers.
    let page = get("/").repeat(1000);
    let mut deaf_is_open = true;
    let writer = std::thread::spawn(move || {
        while deaf_is_open {
            deaf_is_open = deaf.offer(&page);
        }
    });
    while !writer.is_finished() {
        assert_eq!(server.get("/healthz").body, "ok\n");
        std::thread::sleep(Duration::from_millis(50));
    }
    writer.join().unwrap();
}

#[test]
fn incomplete_requests_make_room_oldest_first() {
    let server = server!(adminPort = 0);
    // Each is in the middle of a request.
    let mut clients: Vec<_> = (0..CLIENTS_MAX)
        .map(|_| {
            let mut client = AdminClient::connect(server.admin());
            client.send(get("/healthz") + "GET /heal");
            assert_eq!(client.answer().status, 200);
            client
        })
        .collect();
    for mut oldest in clients.drain(..3) {
        let mut more = AdminClient::connect(server.admin());
        more.send(get("/healthz") + "GET /heal");
        assert_eq!(more.answer().status, 200);
        oldest.expect_eof();
        std::mem::forget(more);
    }
    for client in &mut clients {
        client.send("thz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(server.metric("fortnight_connections_rejected_total{listener=\"admin\"}"), 3.0);
}

#[test]
fn half_sent_requests_without_end_keep_no_health_check_waiting() {
    let server = server!(adminPort = 0);
    let admin = server.admin();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut held: std::collections::VecDeque<AdminClient> = std::collections::VecDeque::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let mut client = AdminClient::connect(admin);
                client.offer("GET /metrics HTTP/1.1\r\nX-Half:");
                held.push_back(client);
                // Bytes go on coming.
                held.iter_mut().for_each(|client| _ = client.offer("x"));
                if held.len() > CLIENTS_MAX {
                    held.pop_front();
                }
            }
        });
        for _ in 0..20 {
            assert_eq!(server.get("/healthz").status, 200);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn idle_connections_make_room() {
    let server = server!(adminPort = 0);
    let mut clients: Vec<_> = (0..CLIENTS_MAX).map(|_| AdminClient::connect(server.admin())).collect();
    for _ in 0..3 * CLIENTS_MAX {
        let mut client = AdminClient::connect(server.admin());
        client.send(get("/healthz"));
        assert_eq!(client.answer().status, 200);
        clients.push(client);
    }
    for client in clients.iter_mut().take(CLIENTS_MAX) {
        client.expect_eof();
    }
}

#[test]
fn asking_badly_does_not_keep_events_waiting() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1);
    let admin = server.admin();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let mut client = AdminClient::connect(admin);
                    client.offer(get("/metrics").repeat(20));
                }
            });
        }
        let (mut source, mut user) = (server.source(), server.user(1));
        for number in 1..=2000 {
            let event = format!("{number}|B\n");
            source.send(&event);
            user.expect(&event);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn health_says_that_the_ring_is_full() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1, reorderCapacity = 8, maxEventSourceClients = 2);
    assert_eq!(server.get("/healthz").status, 200);
    let mut source = server.source();
    source.send("2|B\n100|B\n");
    server.wait_for_log("the ring is full");
    let answer = server.get("/healthz");
    assert_eq!((answer.status, answer.body.as_str()), (503, "waiting on a full ring\n"));
    // Another source could fill the hole, and does not.
    let mut other = server.source();
    server.wait_for_metric("fortnight_sources_connected", |sources| sources == 2.0);
    wait_for_health(&server, 503);
    other.send("1|B\n");
    wait_for_health(&server, 200);
}

/// A second source is there that could fill the hole. It is silent from the beginning.
#[test]
fn a_full_ring_and_a_silent_source_are_told() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1, reorderCapacity = 8, maxEventSourceClients = 2);
    let (mut source, _silent) = (server.source(), server.source());
    server.wait_for_metric("fortnight_sources_connected", |sources| sources == 2.0);
    source.send("2|B\n100|B\n");
    wait_for_health(&server, 503);
    assert_eq!(server.get("/healthz").body, "waiting on a full ring\n");
    server.wait_for_log_of(&["the ring is full", "sources=1"]);
    assert_eq!(server.log().matches("the ring is full").count(), 1);
    source.vanish();
}

#[test]
fn sources_that_silent_ones_keep_out_are_told() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1, maxEventSourceClients = 2);
    let (mut first, _second) = (server.source(), server.source());
    let mut user = server.user(1);
    first.send("1|B\n");
    user.expect("1|B\n");
    server.source().expect_closed();
    wait_for_health(&server, 503);
    let body = server.get("/healthz").body;
    assert_eq!(body, "event sources are turned away because silent ones hold every place\n");
    // One of them says something.
    first.send("2|B\n");
    user.expect("2|B\n");
    assert_eq!(server.get("/healthz").status, 200);
    // There is a place again.
    server.source().expect_closed();
    wait_for_health(&server, 503);
    first.finish();
    wait_for_health(&server, 200);
}

#[track_caller]
fn wait_for_health(server: &support::Server, status: u16) {
    let deadline = Instant::now() + support::DEADLINE;
    while server.get("/healthz").status != status {
        assert!(Instant::now() < deadline, "health does not become {status}");
        std::thread::yield_now();
    }
}

#[test]
fn health_is_answered_until_the_end_of_a_shutdown() {
    let mut server = server!(
        adminPort = 0,
        eventTimeoutMs = -1,
        userBufferBytes = 100_000_000,
        shutdownTimeoutMs = 600_000
    );
    let (mut slow, mut fast) = (server.narrow_user(1), server.user(2));
    let source = server.source();
    let stream = long_broadcasts(1..=20_000, 1000);
    let writer = source.send_in_background(stream.clone());
    fast.expect(&stream);
    writer.join().unwrap().unwrap();
    let mut kept = AdminClient::connect(server.admin());
    kept.send(get("/healthz"));
    assert_eq!(kept.answer().status, 200);
    server.signal(Signal::TERM);
    source.expect_eof();
    let answer = server.get("/healthz");
    assert_eq!((answer.status, answer.body.as_str()), (503, "shutting down\n"));
    kept.send(get("/healthz"));
    assert_eq!(kept.answer().status, 503);
    assert_eq!(server.metric("fortnight_users_connected"), 1.0);
    assert_eq!(server.metric("fortnight_users_disconnected_total{reason=\"closed\"}"), 1.0);
    slow.expect(&stream);
    assert_eq!(server.exit_status(), 0);
    assert!(TcpStream::connect(server.admin()).is_err());
}

#[test]
fn admin_connections_do_not_keep_the_server_from_ending() {
    let server = server!(adminPort = 0);
    let mut half = AdminClient::connect(server.admin());
    half.send("GET / HT");
    server.get("/");
    server.stop();
    half.expect_eof();
}
