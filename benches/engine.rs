//! The pure engine on a stream in shape `maze`, without sockets: how long an event takes, stage by stage.
//!
//! `cargo bench --bench engine` prints nanoseconds per event and per delivery, the best of several runs:
//!
//! - `sequence`: nobody is connected; lines are read, put in order and applied to the graph.
//! - `record`: the same, and all that is released is recorded and taken.
//! - `replay`: what was recorded is applied once more, without the ring.
//! - `deliver`: everything, the bytes of each user being gathered and thrown away.
//!
//! `--once` runs `deliver` a single time, for instruction counters. `--once TRACE` does so with what the sources of a
//! recorded trace sent, for the users who log in there, [`PASSES`] times from its beginning.

#[path = "stream.rs"]
mod stream;

use fortnight::internals::{
    engine::{Engine, EngineConfig, InstructionSet, Released, Replay, Stop},
    server::net::Port,
    trace::{Action, Reader, Record},
};
use fortnight::{Cursor, UserId};
use std::{collections::HashMap, error::Error, fs::File, hint::black_box, time::Instant};
use stream::{FIRST, MARGIN};

const EVENTS: usize = 3_000_000;
/// How often a recorded trace is fed.
const PASSES: usize = 10;

/// What is fed, and for whom.
struct Load {
    first: u64,
    chunks: Vec<Vec<u8>>,
    users: Vec<u64>,
    passes: usize,
}

/// Three million events, shuffled in batches of up to a hundred.
fn generated() -> Load {
    let lines = stream::lines(FIRST, EVENTS, 100);
    let chunks = stream::cut(lines.iter().map(String::as_bytes));
    Load { first: FIRST, chunks, users: stream::connected(), passes: 1 }
}

/// What a recorded trace says that sources sent, and who logged in.
fn recorded(path: &str) -> Result<Load, Box<dyn Error>> {
    let mut reader = Reader::new(File::open(path)?)?;
    let (mut sent, mut logins, mut data) = (Vec::new(), HashMap::<_, Vec<u8>>::new(), Vec::new());
    while let Some((_, record)) = reader.next(&mut data)? {
        match record {
            Record::Connection { id, action: Action::Sends } if id.port() == Port::Source => {
                sent.append(&mut data);
            }
            Record::Connection { id, action: Action::Sends } => {
                logins.entry(id).or_default().append(&mut data);
            }
            _ => {}
        }
    }
    let ids: Result<Vec<u64>, _> =
        logins.into_values().map(|line| String::from_utf8_lossy(&line).trim().parse()).collect();
    let mut users = ids?;
    users.sort_unstable();
    users.dedup();
    let chunks = stream::cut(sent.split_inclusive(|&byte| byte == b'\n'));
    Ok(Load { first: reader.config().first_sequence, chunks, users, passes: PASSES })
}

fn engine(first: u64) -> Engine {
    Engine::new(&EngineConfig {
        capacity: 65_536,
        first_sequence: first,
        timeout: Some(1_000_000),
        event_bytes_max: 1024,
        turn_bytes_max: 512 << 10,
        turn_bytes_mean: 56 << 10,
        max_sequence_jump: None,
        instruction_set: InstructionSet::default(),
    })
}

/// Feeds the load to a new engine; returns nanoseconds, events and deliveries.
fn run(load: &Load, users: &[u64]) -> (u128, u64, u64) {
    let mut engine = engine(load.first);
    for &id in users {
        engine.connect(UserId::new(id));
    }
    let start = Instant::now();
    for _ in 0..load.passes {
        engine.restart();
        drive(&mut engine, &load.chunks);
    }
    let elapsed = start.elapsed().as_nanos();
    assert_eq!(engine.waiting(), 0, "the load has no holes");
    (elapsed, engine.counters.events_released_total(), engine.counters.deliveries)
}

/// All that is measured. `perf/instructions` knows it by its name.
#[inline(never)]
fn drive(engine: &mut Engine, chunks: &[Vec<u8>]) {
    let (mut bytes, mut events, mut now) = (0, 0, 0);
    for chunk in chunks {
        let mut unread = MARGIN..chunk.len() - MARGIN;
        loop {
            let (at, stop) = engine.feed(chunk, unread.clone());
            unread.start = at;
            if stop != Stop::TurnFull {
                break;
            }
            engine.deliver(|_, piece| bytes += black_box(piece).len());
            engine.take_arrivals(now, |arrival| events += black_box(arrival).events);
        }
        engine.settle(chunk, now, now);
        now += 1;
    }
    engine.deliver(|_, piece| bytes += black_box(piece).len());
    engine.take_arrivals(now, |arrival| events += black_box(arrival).events);
    black_box((bytes, events));
}

/// Feeds the load with the record on; returns nanoseconds, and what was released: up to which number, and its lines.
fn record(load: &Load) -> (u128, Vec<(Cursor, Vec<u8>)>) {
    let mut engine = engine(load.first);
    engine.record(256 << 10, 0);
    let (mut block, mut blocks) = (Released::default(), Vec::new());
    let mut ns = 0;
    for chunk in &load.chunks {
        let mut unread = MARGIN..chunk.len() - MARGIN;
        loop {
            let start = Instant::now();
            let (at, stop) = engine.feed(chunk, unread.clone());
            engine.settle(chunk, 0, 0);
            let is_any = engine.take_released(&mut block);
            ns += start.elapsed().as_nanos();
            unread.start = at;
            if is_any {
                blocks.push((block.to, block.lines().to_vec()));
            }
            if stop != Stop::TurnFull {
                break;
            }
        }
    }
    (ns, blocks)
}

/// Replays what was recorded; returns nanoseconds.
fn replay(load: &Load, blocks: &[(Cursor, Vec<u8>)]) -> u128 {
    let mut engine = engine(load.first);
    let start = Instant::now();
    for (to, lines) in blocks {
        let end = engine.replay(lines, 0..lines.len(), *to);
        assert_eq!(end, Ok((lines.len(), Replay::Done)));
    }
    start.elapsed().as_nanos()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(once) = arguments.iter().position(|argument| argument == "--once") {
        let load = match arguments.get(once + 1).filter(|next| !next.starts_with('-')) {
            Some(trace) => recorded(trace)?,
            None => generated(),
        };
        let (_, events, deliveries) = run(&load, &load.users);
        println!("{events} events, {deliveries} deliveries");
        return Ok(());
    }
    let load = generated();
    let events = EVENTS as f64;
    let recorded = (0..5).map(|_| record(&load).0).min().unwrap_or_default();
    println!("{:10} {:6.1} ns/event", "record", recorded as f64 / events);
    let (_, blocks) = record(&load);
    let replayed = (0..5).map(|_| replay(&load, &blocks)).min().unwrap_or_default();
    println!("{:10} {:6.1} ns/event", "replay", replayed as f64 / events);
    for (name, users) in [("sequence", &[][..]), ("deliver", &load.users)] {
        let (ns, events, deliveries) = (0..10).map(|_| run(&load, users)).min().unwrap_or_default();
        println!(
            "{name:10} {:6.1} ns/event {:6.2} ns/delivery",
            ns as f64 / events as f64,
            ns as f64 / deliveries.max(1) as f64
        );
    }
    Ok(())
}
