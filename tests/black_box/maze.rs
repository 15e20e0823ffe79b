//! The main job on realistic input, from end to end: every byte that every user gets is the model's.

use support::model::{Model, in_order};
use support::stream::{Random, lines};
use support::{User, server};

/// Events of a stream, in all.
const EVENTS: u64 = 200_000;

/// Users that events speak of.
const USERS: u64 = 1000;

/// Numbers are shuffled within batches of up to this many.
const BATCH: u64 = 100;

/// One event of any of the five types about any two users. Follows outnumber unfollows, so the graph grows.
fn event(number: u64, random: &mut Random) -> Vec<u8> {
    let (from, to) = (1 + random.below(USERS), 1 + random.below(USERS));
    let body = match random.below(1000) {
        0..300 => format!("F|{from}|{to}"),
        300..450 => format!("U|{from}|{to}"),
        450..480 => "B".to_owned(),
        480..750 => format!("P|{from}|{to}"),
        _ => format!("S|{from}"),
    };
    let end = if random.below(10) == 0 { "\r\n" } else { "\n" };
    format!("{number}|{body}{end}").into_bytes()
}

/// Lines numbered from 1, shuffled in batches.
fn shuffled_stream(seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    let mut stream = Vec::new();
    let mut next = 1;
    while next <= EVENTS {
        let batch = (1 + random.below(BATCH)).min(EVENTS + 1 - next);
        let mut lines: Vec<_> = (next..next + batch).map(|number| event(number, &mut random)).collect();
        random.shuffle(&mut lines);
        stream.append(&mut lines);
        next += batch;
    }
    stream
}

/// The ids of the users who are connected: one in ten of all.
fn connected() -> impl Iterator<Item = u64> {
    (1..=USERS).step_by(10)
}

/// What each connected user must get.
fn told(stream: &[Vec<u8>]) -> Model {
    let mut model = Model::new();
    for user in connected() {
        model.login(user);
    }
    for line in in_order(stream.iter().map(Vec::as_slice)) {
        model.release(line);
    }
    model
}

/// Reads everything that the users must get, all of them at the same time, since none may be kept waiting.
fn expect_all(users: Vec<(u64, User)>, model: &Model) {
    let end = format!("{}|B\n", EVENTS + 1).into_bytes();
    std::thread::scope(|scope| {
        for (id, mut user) in users {
            let wanted = [model.told(id).unwrap(), &end].concat();
            scope.spawn(move || user.expect(wanted));
        }
    });
}

#[test]
fn every_byte_that_every_user_gets_is_the_models() {
    let stream = shuffled_stream(1);
    let model = told(&stream);
    let deliveries: usize = connected().map(|id| lines(model.told(id).unwrap()).count()).sum();
    assert!(deliveries > 500_000, "only {deliveries} deliveries");
    let server = server!(eventTimeoutMs = -1);
    let users = connected().map(|id| (id, server.user(id))).collect();
    let mut bytes = stream.concat();
    bytes.extend(format!("{}|B\n", EVENTS + 1).bytes());
    let writer = server.source().send_in_background(bytes);
    expect_all(users, &model);
    writer.join().unwrap().unwrap();
    assert!(server.peak_memory() < 64 << 20, "{} bytes", server.peak_memory());
}

#[test]
fn three_sources_that_share_a_stream_make_no_difference() {
    let stream = shuffled_stream(2);
    let model = told(&stream);
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 3, reorderCapacity = 256);
    let users = connected().map(|id| (id, server.user(id))).collect();
    let mut shares = vec![Vec::new(); 3];
    for (at, line) in stream.iter().enumerate() {
        shares[at % 3].extend_from_slice(line);
    }
    shares[0].extend(format!("{}|B\n", EVENTS + 1).bytes());
    let sources: Vec<_> = shares.iter().map(|_| server.source()).collect();
    let writers: Vec<_> =
        sources.iter().zip(shares).map(|(source, share)| source.send_in_background(share)).collect();
    expect_all(users, &model);
    for writer in writers {
        writer.join().unwrap().unwrap();
    }
}

#[test]
fn noise_in_the_stream_makes_no_difference() {
    let stream = shuffled_stream(3);
    let model = told(&stream);
    let mut random = Random::new(4);
    let mut noisy = Vec::new();
    for line in &stream {
        noisy.extend_from_slice(line);
        match random.below(20) {
            // A duplicate, or late already.
            0 => noisy.extend_from_slice(line),
            1 => noisy.extend_from_slice(b"\r\n"),
            2 => noisy.extend_from_slice(b"this is not an event\n"),
            3 => noisy.extend(vec![b'x'; 3000].into_iter().chain([b'\n'])),
            _ => {}
        }
    }
    noisy.extend(format!("{}|B\n", EVENTS + 1).bytes());
    let server = server!(eventTimeoutMs = -1);
    let users = connected().map(|id| (id, server.user(id))).collect();
    let writer = server.source().send_in_background(noisy);
    expect_all(users, &model);
    writer.join().unwrap().unwrap();
}

#[test]
fn users_that_come_and_go_get_what_is_released_while_they_are_there() {
    const PART: u64 = 500;
    let mut random = Random::new(5);
    // The last event of each part is told to the barrier: then the part has been released.
    let line = |number: u64| {
        let event = event(number, &mut random);
        if number.is_multiple_of(PART) { format!("{number}|P|0|0\n").into_bytes() } else { event }
    };
    let events: Vec<_> = (1..=EVENTS).map(line).collect();
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    let mut model = Model::new();
    let mut barrier = server.user(0);
    model.login(0);
    let mut users: Vec<(u64, User)> = Vec::new();
    let mut got = 0;
    for part in events.chunks(usize::try_from(PART).unwrap()) {
        // Some go: what they got is compared up to here. Some come; a few take over from themselves.
        for _ in 0..random.below(4).min(users.len() as u64) {
            let leaving = usize::try_from(random.below(users.len() as u64)).unwrap();
            let (id, mut user) = users.swap_remove(leaving);
            user.expect(model.logout(id).unwrap());
            user.finish();
            user.expect_eof();
        }
        for _ in 0..random.below(5) {
            let id = 1 + random.below(50);
            let user = server.user(id);
            if let Some(told) = model.login(id) {
                let at = users.iter().position(|(other, _)| *other == id).unwrap();
                let (_, mut first) = std::mem::replace(&mut users[at], (id, user));
                first.expect(told);
                first.expect_eof();
            } else {
                users.push((id, user));
            }
        }
        let mut lines = part.to_vec();
        random.shuffle(&mut lines);
        source.send(lines.concat());
        for line in part {
            model.release(line);
        }
        barrier.expect(&model.told(0).unwrap()[got..]);
        got = model.told(0).unwrap().len();
    }
    for (id, mut user) in users {
        user.expect(model.told(id).unwrap());
    }
}
