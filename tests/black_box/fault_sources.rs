//! Real sockets, real faults, on the sources' side: endless lines, single bytes, and a port scan's worth of junk
//! (SPEC sections 1 and 5).

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

use support::model::{Model, in_order};
use support::stream::{Random, each, lines};
use support::{Server, server};

/// Bytes of a block of the endless line.
const BLOCK_BYTES: usize = 1 << 20;

#[test]
fn a_line_of_a_gigabyte_is_never_held_in_memory() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 2);
    let (mut endless, mut other, mut user) = (server.source(), server.source(), server.user(7));
    other.send("1|B\n");
    user.expect("1|B\n");
    let before = server.peak_memory();
    let block = vec![b'x'; BLOCK_BYTES];
    // Its number can be read, and is used up.
    endless.send("2|");
    for number in 0..1024 {
        endless.send(&block);
        // The other source is served all the while.
        if number % 16 == 0 {
            let event = format!("{}|B\n", 3 + number / 16);
            other.send(&event);
            user.expect(&event);
        }
    }
    // The line goes on, and what comes behind its end is an event again.
    endless.send("67|B\n67|P|1|7\n");
    user.expect("67|P|1|7\n");
    let grown = server.peak_memory().saturating_sub(before);
    println!("a line of 1 GiB: {} KiB more at the peak", grown >> 10);
    assert!(grown < 4 << 20, "the server grew by {grown} bytes");
}

#[test]
fn a_source_that_sends_one_byte_at_a_time_is_as_good_as_any() {
    const EVENTS: u64 = 40_000;
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 2, reorderCapacity = 1024);
    let mut users: Vec<_> = (1..=5).map(|id| server.user(id)).collect();
    let (mut dribbling, fast) = (server.source(), server.source());
    // Every hundredth event comes in single bytes; the others fill the ring and have to wait for it.
    let event = |number: u64| format!("{number}|B\r\n");
    let dribble = each((1..=EVENTS).filter(|number| number % 100 == 0), event);
    let rest = each((1..=EVENTS).filter(|number| number % 100 != 0), event);
    let stream = each(1..=EVENTS, event);
    let writer = fast.send_in_background(rest.into_bytes());
    std::thread::scope(|scope| {
        scope.spawn(|| dribble.as_bytes().chunks(1).for_each(|byte| dribbling.send(byte)));
        users.iter_mut().for_each(|user| user.expect(&stream));
    });
    writer.join().unwrap().unwrap();
}

const USERS: u64 = 40;
const SCANS: u64 = 18_000;
const SCANNERS: u64 = 3;
const EVENTS_PER_ROUND: u64 = 3000;
const ROUNDS_AT_LEAST: u64 = 5;

#[test]
fn junk_on_both_ports_at_full_load_changes_no_stream() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 30);
    let source = server.source();
    let mut users: Vec<_> = (0..USERS).map(|id| server.user(id)).collect();
    let mut model = Model::new();
    (0..USERS).for_each(|id| assert!(model.login(id).is_none()));
    let mut random = Random::new(4);
    let (mut next, mut rounds) = (1, 0);
    let (mut scanned, mut bytes) = (0, 0);
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (server, done) = (&server, &done);
        let scanners: Vec<_> =
            (1..=SCANNERS).map(|seed| scope.spawn(move || scan(server, seed, done))).collect();
        // Rounds, one behind the other without a break, for as long as junk comes.
        while rounds < ROUNDS_AT_LEAST || !scanners.iter().all(ScopedJoinHandle::is_finished) {
            let stream = round(&mut random, next);
            next += EVENTS_PER_ROUND;
            rounds += 1;
            in_order(lines(&stream)).into_iter().for_each(|line| model.release(line));
            let writer = source.send_in_background(stream.clone());
            for (id, user) in (0..).zip(&mut users) {
                let told = model.login(id).expect("a user");
                bytes += told.len();
                user.expect(told);
            }
            writer.join().unwrap().unwrap();
            if !scanners.iter().all(ScopedJoinHandle::is_finished) {
                scanned = next - 1;
            }
        }
    });
    assert_eq!(done.load(Ordering::SeqCst), SCANS);
    assert!(scanned > 0, "the junk was over before the first round");
    println!(
        "{SCANS} connections with junk during the first {scanned} of {} events, {bytes} bytes told",
        next - 1
    );
}

/// The events of a round in an order of their own.
fn round(random: &mut Random, first: u64) -> Vec<u8> {
    let mut events: Vec<String> = (first..first + EVENTS_PER_ROUND)
        .map(|number| {
            let (from, to) = (random.below(USERS), random.below(USERS));
            match random.below(10) {
                0 => format!("{number}|B\n"),
                1..3 => format!("{number}|F|{from}|{to}\n"),
                3 => format!("{number}|U|{from}|{to}\n"),
                4..7 => format!("{number}|S|{from}\r\n"),
                _ => format!("{number}|P|{from}|{to}\n"),
            }
        })
        .collect();
    events.chunks_mut(300).for_each(|chunk| random.shuffle(chunk));
    events.concat().into_bytes()
}

/// Connects again and again, to both ports, says something that is not of this protocol, and goes.
fn scan(server: &Server, seed: u64, done: &AtomicU64) {
    let mut random = Random::new(seed);
    for number in 0..SCANS / SCANNERS {
        let junk = junk(&mut random);
        if number % 2 == 0 {
            let mut stranger = server.stranger();
            // It may have been closed in the middle.
            stranger.offer(junk);
            match random.below(3) {
                0 => stranger.vanish(),
                1 => drop(stranger),
                _ => drop(stranger.offer("\n")),
            }
        } else {
            let mut source = server.source();
            source.offer(junk);
            match random.below(2) {
                0 => source.vanish(),
                _ => drop(source),
            }
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
}

/// What scanners say. No line of it begins with a digit, so that it uses up no number.
fn junk(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => Vec::new(),
        1 => b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec(),
        2 => b"SSH-2.0-scanner\r\n".to_vec(),
        3 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        4 => b"\r\n".repeat(500),
        5 => vec![0; 10_000],
        6 => b"EHLO scanner\r\nMAIL FROM:<>\r\n|P|x|y\r\n-|B\n".repeat(20),
        _ => {
            let length = random.below(5000);
            let byte = |byte: u8| if byte.is_ascii_digit() { b'x' } else { byte };
            (0..length).map(|_| byte(random.next_u64() as u8)).collect()
        }
    }
}

/// Empty lines in front of a byte that is a type letter. With the bytes before them they look like an event: 58 is what
/// seven zeros and a line end are if the line end is taken for a digit.
const BLANKS: [&str; 4] =
    ["\n0000000\n\nB", "\n0000000\n\nB\n", "\n0000000\r\n\r\nB|", "\n\r\n|\n||B\nx|B\n"];

#[test]
fn an_empty_line_never_becomes_an_event_of_its_neighbours() {
    for blanks in BLANKS {
        let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 2);
        let (mut source, mut user) = (server.source(), server.user(7));
        source.send("1|B\n");
        user.expect("1|B\n");
        let mut scanner = server.source();
        // Enough before and behind for the line to be looked at in one piece with its neighbours.
        scanner.send(["x".repeat(40), blanks.to_owned(), "y".repeat(200)].concat());
        scanner.finish();
        let stream = each(2..=100, |number| format!("{number}|P|1|7\n"));
        source.send(&stream);
        user.expect(&stream);
    }
}
