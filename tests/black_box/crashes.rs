//! docs/SPEC.md sections 8 to 10 on the real thing: a server that is ended again and again under load, sources and users that go on.
//!
//! A few rounds in `make test`; the variable `CRASHES` says how many there are in all.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    thread,
    time::Duration,
};

use crate::journal::Folder;
use support::{
    DEADLINE, Line, Server, Signal,
    model::{Model, number_of},
    server,
    stream::{Random, excerpt},
};

/// Users that are connected all the time but for the crashes.
const USERS: u64 = 6;
/// Events for each round: more than a server gets through in one.
const EVENTS: u64 = 20_000;
/// Events that are shuffled among themselves.
const SHUFFLED: usize = 300;

/// This number of events, in the order of their numbers.
fn events(count: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(count);
    let mut line = |number: u64| {
        let (from, to) = (random.below(USERS), random.below(USERS));
        let content = match random.below(10) {
            0 | 1 => format!("F|{from}|{to}"),
            2 => format!("U|{from}|{to}"),
            3 => "B".to_owned(),
            4 | 5 => format!("P|{from}|{to}"),
            _ => format!("S|{from}"),
        };
        format!("{number}|{content}\n").into_bytes()
    };
    (1..=count).map(&mut line).collect()
}

/// A user that comes back with its place each time.
struct Follower {
    id: u64,
    /// The epoch, once it is known.
    epoch: Option<String>,
    next: u128,
    received: Vec<u8>,
}

impl Follower {
    /// Logs in, and reads whole lines until the connection ends or `all` has come.
    fn follow(&mut self, address: SocketAddr, all: usize) {
        let Ok(mut stream) = Line::connect(address) else { return };
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let login = match &self.epoch {
            Some(epoch) => format!("{}|{}|{epoch}\n", self.id, self.next),
            None => format!("{}|oldest\n", self.id),
        };
        if stream.write_all(login.as_bytes()).is_err() {
            return;
        }
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while self.received.len() < all {
            line.clear();
            // A connection that breaks takes what had not been read with it: it is sent again.
            if reader.read_until(b'\n', &mut line).is_err() || !line.ends_with(b"\n") {
                return;
            }
            match line[0] {
                b'+' => self.note_place(&line),
                b'-' => assert!(line.ends_with(b"|closed\n"), "{}", String::from_utf8_lossy(&line)),
                _ => {
                    let number = number_of(&line).expect("an event");
                    assert!(u128::from(number) >= self.next, "user {}: {number} came twice", self.id);
                    self.next = u128::from(number) + 1;
                    self.received.extend_from_slice(&line);
                }
            }
        }
    }

    fn note_place(&mut self, line: &[u8]) {
        let text = std::str::from_utf8(line).unwrap().trim_end();
        let fields: Vec<&str> = text.split('|').collect();
        let ["+", epoch, next] = fields[..] else { panic!("{text} is no place") };
        let known = self.epoch.get_or_insert_with(|| epoch.to_owned());
        assert_eq!(known, epoch, "the epoch stays");
        self.next = self.next.max(next.parse().unwrap());
    }
}

/// Sends everything from what was acknowledged on, until the connection ends or everything is acknowledged.
fn feed(address: SocketAddr, events: &[Vec<u8>]) {
    let Ok(mut stream) = Line::connect(address) else { return };
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut next_place = move || {
        let mut line = String::new();
        let read = reader.read_line(&mut line).unwrap_or(0);
        let number = line.trim_end().rsplit('|').next().map(str::parse::<u128>);
        (read > 0 && line.ends_with('\n')).then(|| number.unwrap().unwrap())
    };
    if stream.write_all(b"?|ack|feed\n").is_err() {
        return;
    }
    let all = events.len() as u128 + 1;
    let Some(from) = next_place() else { return };
    thread::scope(|scope| {
        let mut stream = stream.try_clone().unwrap();
        scope.spawn(move || {
            let mut random = Random::new(from as u64);
            events[from as usize - 1..].chunks(SHUFFLED).all(|chunk| {
                let mut chunk: Vec<&[u8]> = chunk.iter().map(Vec::as_slice).collect();
                random.shuffle(&mut chunk);
                stream.write_all(&chunk.concat()).is_ok()
            })
        });
        let mut place = Some(from);
        while place.is_some_and(|place| place < all) {
            place = next_place();
        }
    });
    stream.cut();
}

/// Ends a loaded server `rounds` times and starts it again, then lets everything arrive.
fn crash(rounds: u64, mode: &str, signal: Signal) {
    let folder = Folder::new(&format!("crashes-{mode}-{}", signal.as_raw()));
    let events = events(EVENTS * (rounds + 1));
    let mut model = Model::new();
    (0..USERS).for_each(|id| drop(model.login(id)));
    events.iter().for_each(|line| model.release(line));
    let follower = |id| Follower { id, epoch: None, next: 0, received: Vec::new() };
    let mut followers: Vec<Follower> = (0..USERS).map(follower).collect();
    let mut random = Random::new(rounds);
    for round in 0..=rounds {
        let mut server = Some(start(&folder, mode));
        let is_last = round == rounds;
        thread::scope(|scope| {
            let (users, sources) = server.as_ref().map(|server| (server.users, server.sources)).unwrap();
            for follower in &mut followers {
                let all = model.told(follower.id).unwrap().len();
                scope.spawn(move || follower.follow(users, if is_last { all } else { usize::MAX }));
            }
            let events = &events;
            scope.spawn(move || feed(sources, events));
            if !is_last {
                // The moment does not matter.
                thread::sleep(Duration::from_micros(2000 + random.below(60_000)));
                let mut server = server.take().unwrap();
                server.signal(signal);
                if signal == Signal::TERM {
                    assert_eq!(server.exit_status(), 0);
                }
            }
        });
    }
    for follower in &followers {
        let wanted = model.told(follower.id).unwrap();
        let same =
            follower.received.iter().zip(wanted).take_while(|(received, wanted)| received == wanted).count();
        assert!(
            follower.received == wanted,
            "user {}: {} in place of {}",
            follower.id,
            excerpt(&follower.received, (same + 40).min(follower.received.len())),
            excerpt(wanted, (same + 40).min(wanted.len()))
        );
    }
}

fn start(folder: &Folder, mode: &str) -> Server {
    server!(
        journalDirectory = folder.show(),
        journalSync = mode,
        journalSyncIntervalMs = 5,
        journalSegmentBytes = 100_000,
        eventTimeoutMs = -1,
    )
}

fn rounds(few: u64) -> u64 {
    std::env::var("CRASHES").map_or(few, |rounds| rounds.parse().expect("CRASHES is a number"))
}

#[test]
fn every_stream_is_whole_however_often_the_server_is_killed() {
    for mode in ["interval", "always", "never"] {
        crash(rounds(12) / 3, mode, Signal::KILL);
    }
}

#[test]
fn every_stream_is_whole_however_often_the_server_is_asked_to_end() {
    crash(rounds(5), "interval", Signal::TERM);
}
