//! Hostile clients on the user port and the source port, while one client sends one event at a time and another one asks for health.
//!
//! What is asserted is that everybody is served. How long that took is printed: these figures depend on the machine. In a release
//! build on a quiet machine the 99th percentile of the events' delay is to be at most 50 ms, and of health checks 100 ms. The server
//! has one core, and all clients share another, so that the attackers do not take its time by running in its place:
//!
//! ```text
//! cargo test --release --test black_box floods -- --nocapture --test-threads=1
//! ```

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use socket2::{Domain, Socket, Type};
use support::stream::each;
use support::{Certificates, Line, Server, launch, raise_own_limit, server, skipped};

/// Events that are sent one at a time, each after the one before has arrived.
const EVENTS: u64 = 300;

/// Has attackers work while events and health checks pass, and prints how long these took.
fn under_attack<'a>(
    name: &str,
    server: &'a Server,
    first: u64,
    attack: impl for<'scope> FnOnce(&'scope Scope<'scope, 'a>, &'a AtomicBool),
) {
    measure(name, server, first, attack, |_| String::new());
}

/// The same, with lines that the source sends right before each event. They take their numbers from the counter.
fn measure<'a>(
    name: &str,
    server: &'a Server,
    first: u64,
    attack: impl for<'scope> FnOnce(&'scope Scope<'scope, 'a>, &'a AtomicBool),
    mut before: impl FnMut(&mut u64) -> String,
) {
    let done: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    take_a_core_each(server);
    let (events, checks) = std::thread::scope(|scope| {
        let (mut source, mut witness) = (server.source(), server.user(u64::MAX));
        attack(scope, done);
        let checks = scope.spawn(move || check_health(server, done));
        let (mut delays, mut next) = (Vec::new(), first);
        for _ in 0..EVENTS {
            let lines = before(&mut next);
            let (event, began) = (format!("{next}|P|1|{}\n", u64::MAX), Instant::now());
            next += 1;
            source.send(lines + &event);
            witness.expect(&event);
            delays.push(began.elapsed());
            std::thread::sleep(Duration::from_millis(2));
        }
        done.store(true, Ordering::Relaxed);
        (delays, checks.join().unwrap())
    });
    println!("{name}: events {}, health {}", shown(events), shown(checks));
}

/// The server gets a core. This thread and those that it starts get another one, if there are two.
fn take_a_core_each(server: &Server) {
    let allowed = sched_getaffinity(None).unwrap();
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).map(|core| {
        let mut set = CpuSet::new();
        set.set(core);
        set
    });
    if let (Some(first), Some(second)) = (cores.next(), cores.next()) {
        sched_setaffinity(Pid::from_raw(server.pid().cast_signed()), &first).unwrap();
        sched_setaffinity(None, &second).unwrap();
    }
}

/// Asks for health until it is over; says how long each answer took.
fn check_health(server: &Server, done: &AtomicBool) -> Vec<Duration> {
    let mut delays = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = server.get("/healthz");
        assert_eq!(answer.status, 200, "{}", answer.body);
        delays.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    delays
}

fn shown(mut delays: Vec<Duration>) -> String {
    delays.sort();
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms", at(0.5), at(0.99), at(1.0))
}

/// Two clients that do nothing but log in and out, each time with another id, or both with the same.
fn log_in_and_out(server: &Server, same: bool) {
    under_attack(if same { "takeovers" } else { "logins" }, server, 1, |scope, done| {
        for client in 1..=2 {
            let users = server.users;
            scope.spawn(move || {
                let mut number = 0;
                while !done.load(Ordering::Relaxed) {
                    number += 2;
                    let id = if same { 7 } else { number + client };
                    log_in_once(users, number + client, id);
                }
            });
        }
    });
}

/// Logs in and hangs up. Each time from another address: from one, a client soon has no ports left.
fn log_in_once(users: SocketAddr, number: u64, id: u64) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let [.., low] = number.to_be_bytes();
    socket.bind(&SocketAddr::from(([127, 1, 1, low.max(1)], 0)).into()).expect("an address");
    if socket.connect(&users.into()).is_ok() {
        let _ = TcpStream::from(socket).write_all(format!("{id}\n").as_bytes());
    }
}

#[test]
fn clients_that_only_log_in_and_out_keep_nobody_waiting() {
    let server = server!(eventTimeoutMs = -1, adminPort = 0, maxUserClients = 10_000);
    log_in_and_out(&server, false);
}

#[test]
fn clients_that_only_log_in_and_out_where_all_places_are_taken_keep_nobody_waiting() {
    let server = server!(eventTimeoutMs = -1, adminPort = 0, maxUserClients = 2);
    log_in_and_out(&server, false);
}

#[test]
fn clients_that_take_an_id_from_each_other_keep_nobody_waiting() {
    let server = server!(eventTimeoutMs = -1, adminPort = 0, maxUserClients = 10_000);
    log_in_and_out(&server, true);
}

/// What a login costs does not depend on how many the user follows.
#[test]
fn a_user_that_follows_many_and_logs_in_and_out_keeps_nobody_waiting() {
    const FOLLOWS: u64 = 100_000;
    let server = server!(eventTimeoutMs = -1, adminPort = 0);
    server.source().send(each(1..=FOLLOWS, |number| format!("{number}|F|7|{}\n", 10 + number)));
    log_in_with_follows(&server, FOLLOWS + 1);
}

fn log_in_with_follows(server: &Server, first: u64) {
    server.wait_for_hang_ups(server.sources);
    under_attack("a user with many follows", server, first, |scope, done| {
        let users = server.users;
        scope.spawn(move || {
            for number in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                log_in_once(users, number, 7);
            }
        });
    });
}

/// Most connections of a flood.
const FLOOD: usize = 5_000;

/// How many connections this process may open.
fn flood_size() -> usize {
    usize::try_from(raise_own_limit().saturating_sub(2_000)).map_or(FLOOD, |room| room.min(FLOOD))
}

/// The first half of a handshake's first part.
fn half_a_hello() -> Vec<u8> {
    let certificates = Certificates::new("flood");
    let config = certificates.client_config(rustls::ALL_VERSIONS, false);
    let name = ServerName::try_from("localhost").unwrap();
    let mut hello = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut hello).unwrap();
    hello.truncate(hello.len() / 2);
    hello
}

/// Whoever is connected already is served while five thousand begin a handshake and say nothing more.
#[test]
fn handshakes_that_do_not_end_keep_nobody_waiting() {
    let server = launch!(eventTimeoutMs = -1, adminPort = 0).over_tls().start();
    let (size, hello) = (flood_size(), half_a_hello());
    under_attack("half handshakes", &server, 1, |scope, done| {
        let users = server.users;
        scope.spawn(move || {
            let mut open = Vec::new();
            while open.len() < size && !done.load(Ordering::Relaxed) {
                let Ok(mut socket) = TcpStream::connect(users) else { continue };
                let _ = socket.write_all(&hello);
                open.push(socket);
            }
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            println!("{} connections", open.len());
        });
    });
}

/// Whoever comes while more than 4,096 have begun a handshake gets in, long before their time to log in is over.
#[test]
fn handshakes_that_do_not_end_make_room_for_newcomers() {
    const BEGUN: usize = 4_200;
    if flood_size() < BEGUN {
        return skipped("a flood of 4,200 handshakes needs a limit of 6,200 open files");
    }
    let server = launch!(eventTimeoutMs = -1, adminPort = 0, loginTimeoutMs = 600_000).over_tls().start();
    let hello = half_a_hello();
    let begin = |_| {
        let mut socket = TcpStream::connect(server.users).unwrap();
        socket.write_all(&hello).unwrap();
        socket
    };
    let begun: Vec<TcpStream> = (0..BEGUN).map(begin).collect();
    let (mut user, mut source) = (server.user(7), server.source());
    source.send("1|P|1|7\n");
    user.expect("1|P|1|7\n");
    let made_room = server.metric("fortnight_connections_refused_total{reason=\"timeout\"}");
    assert!(made_room >= 1.0 && made_room < BEGUN as f64, "{made_room} made room");
    drop(begun);
}

/// The same while others shake hands to the end, and say nothing more.
#[test]
fn handshakes_one_after_the_other_keep_nobody_waiting() {
    let server = launch!(eventTimeoutMs = -1, adminPort = 0, maxUserClients = 10_000).over_tls().start();
    let size = flood_size();
    under_attack("full handshakes", &server, 1, |scope, done| {
        let users = server.users;
        scope.spawn(move || {
            let mut open = Vec::new();
            while open.len() < size && !done.load(Ordering::Relaxed) {
                open.extend(Line::connect(users));
            }
            println!("{} connections", open.len());
        });
    });
}

/// A user that a million follow, or that follows a million, and one follow that comes and goes: around the sizes at which the set of
/// them could be stored in another way.
#[test]
fn one_follow_that_comes_and_goes_among_a_million_keeps_nobody_waiting() {
    for (name, is_followed) in [("followed by a million", true), ("follows a million", false)] {
        let server = server!(eventTimeoutMs = -1, adminPort = 0);
        let pair = |other: u64| if is_followed { format!("{other}|7") } else { format!("7|{other}") };
        let (mut next, mut members) = (1, 0);
        for size in [7 << 17, 1_000_000, 1 << 20] {
            let offset = next - members - 1;
            let follow = |member| format!("{}|F|{}\n", member + offset, pair(10 + member));
            server.source().send(each(members + 1..=size, follow));
            server.wait_for_hang_ups(server.sources);
            (next, members) = (size + offset + 1, size);
            let toggles = |next: &mut u64| {
                let first = *next;
                *next += 8;
                // Two come, and both go again.
                let toggle = |step: u64| ["F", "F", "U", "U"][step as usize % 4];
                each(0..=7, |step| {
                    format!("{}|{}|{}\n", first + step, toggle(step), pair((1 << 40) + step % 2))
                })
            };
            measure(&format!("{name}, {size}"), &server, next, |_, _| (), toggles);
            next += 9 * EVENTS;
            server.wait_for_hang_ups(server.sources);
        }
    }
}

/// Sends on many connections, on each as much as it takes, until it is over.
fn send_without_end(connections: &[TcpStream], bytes: &[u8], done: &AtomicBool) {
    for connection in connections {
        connection.set_nonblocking(true).expect("a socket that does not block");
    }
    while !done.load(Ordering::Relaxed) {
        for mut connection in connections {
            // It takes what it takes.
            let _ = connection.write(bytes);
        }
    }
}

#[test]
fn users_that_send_without_end_keep_nobody_waiting() {
    const USERS: u64 = 500;
    let server = server!(eventTimeoutMs = -1, adminPort = 0);
    under_attack("500 users of rubbish", &server, 1, |scope, done| {
        let users = server.users;
        scope.spawn(move || {
            let login = |id: u64| {
                let mut user = TcpStream::connect(users).expect("a connection");
                user.write_all(format!("{id}\n").as_bytes()).expect("a login");
                user
            };
            let connections: Vec<TcpStream> = (1..=USERS).map(login).collect();
            send_without_end(&connections, &[b'x'; 1 << 16], done);
        });
    });
}

/// A source whose line never ends, in packets of a byte.
#[test]
fn a_source_of_single_bytes_keeps_nobody_waiting() {
    let server = server!(
        eventTimeoutMs = -1,
        adminPort = 0,
        maxEventSourceClients = 2,
        maxEventBytes = 1 << 20,
        maxUserClients = 10,
    );
    under_attack("single bytes of a line of a MiB", &server, 1, |scope, done| {
        let sources = server.sources;
        scope.spawn(move || {
            let source = TcpStream::connect(sources).expect("a connection");
            source.set_nodelay(true).expect("small packets");
            send_without_end(&[source], b"0", done);
        });
    });
}

/// Duplicates in the largest ring: what they cost does not depend on its size.
#[test]
fn duplicates_far_ahead_keep_nobody_waiting() {
    const SLOTS: u64 = 1 << 24;
    const DUPLICATES: usize = 250;
    let server = server!(eventTimeoutMs = 3_600_000, adminPort = 0, reorderCapacity = SLOTS);
    measure(
        "250 duplicates in 16 M slots",
        &server,
        1,
        |_, _| (),
        |next| format!("{}|B\n", *next + SLOTS - 10 - *next % 64).repeat(DUPLICATES),
    );
}
