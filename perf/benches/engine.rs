//! The pure engine on a stream in shape `maze`, without sockets: how long an event takes, stage by stage.
//!
//! `cargo bench --bench engine` prints nanoseconds per event and per delivery, the best of several runs:
//!
//! - `sequence`: nobody is connected; lines are read, put in order and applied to the graph.
//! - `deliver`: everything, the bytes of each user being gathered and thrown away.
//!
//! With `--once` it runs `deliver` a single time, for instruction counters.

use fortnight::engine::{Engine, EngineConfig, Stop};
use std::{hint::black_box, time::Instant};

const EVENTS: usize = 3_000_000;
const USERS: u64 = 1000;
const CONNECTED: u64 = 100;
const CHUNK_BYTES: usize = 256 << 10;
const MARGIN: usize = 64;

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators".
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// The stream, shuffled in batches of up to `batch` events, cut into chunks.
fn stream(first: u64, batch: u64) -> Vec<Vec<u8>> {
    let mut random = SplitMix(666);
    let mut lines: Vec<String> = (first..)
        .take(EVENTS)
        .map(|seq| {
            let (from, to) = (random.below(USERS) + 1, random.below(USERS) + 1);
            match random.below(100) {
                0..25 => format!("{seq}|F|{from}|{to}\r\n"),
                25..44 => format!("{seq}|U|{from}|{to}\r\n"),
                44 => format!("{seq}|B\r\n"),
                45..75 => format!("{seq}|P|{from}|{to}\r\n"),
                _ => format!("{seq}|S|{from}\r\n"),
            }
        })
        .collect();
    let mut rest = &mut lines[..];
    while !rest.is_empty() {
        let len = (random.below(batch) + 1).min(rest.len() as u64) as usize;
        let (now, later) = rest.split_at_mut(len);
        for at in (1..len).rev() {
            now.swap(at, random.below(at as u64 + 1) as usize);
        }
        rest = later;
    }
    let mut chunks = vec![vec![b' '; MARGIN]];
    for line in &lines {
        let last = chunks.len() - 1;
        chunks[last].extend_from_slice(line.as_bytes());
        if chunks[last].len() > CHUNK_BYTES {
            chunks.push(vec![b' '; MARGIN]);
        }
    }
    for chunk in &mut chunks {
        chunk.resize(chunk.len() + MARGIN, b' ');
    }
    chunks
}

struct Run {
    connected: u64,
}

/// Feeds the stream to a new engine; returns nanoseconds and deliveries.
fn run(chunks: &[Vec<u8>], first: u64, run: &Run) -> (u128, u64) {
    let mut engine = Engine::new(&EngineConfig {
        capacity: 65_536,
        first_sequence: first,
        timeout: Some(1_000_000),
        event_bytes_max: 1024,
        turn_bytes_max: 512 << 10,
        turn_bytes_mean: 64 << 10,
    });
    for id in 1..=run.connected {
        engine.connect(id * (USERS / CONNECTED));
    }
    let start = Instant::now();
    drive(&mut engine, chunks);
    let elapsed = start.elapsed().as_nanos();
    assert_eq!(engine.counters.events_released_total(), EVENTS as u64);
    (elapsed, engine.counters.deliveries)
}

/// All that is measured. `perf/instructions` knows it by its name.
#[inline(never)]
fn drive(engine: &mut Engine, chunks: &[Vec<u8>]) {
    let mut bytes = 0;
    for chunk in chunks {
        let mut unread = MARGIN..chunk.len() - MARGIN;
        loop {
            let (at, stop) = engine.feed(chunk, unread.clone());
            unread.start = at;
            if stop != Stop::TurnFull {
                break;
            }
            engine.deliver(|_, piece| bytes += black_box(piece).len());
        }
        engine.settle(chunk, 0);
    }
    engine.deliver(|_, piece| bytes += black_box(piece).len());
    black_box(bytes);
}

fn main() {
    let once = std::env::args().any(|arg| arg == "--once");
    let first = 5_000_000;
    let chunks = stream(first, 100);
    if once {
        run(&chunks, first, &Run { connected: CONNECTED });
        return;
    }
    for (name, what) in [("sequence", Run { connected: 0 }), ("deliver", Run { connected: CONNECTED })] {
        let (ns, deliveries) = (0..10).map(|_| run(&chunks, first, &what)).min().unwrap_or_default();
        println!(
            "{name:10} {:6.1} ns/event {:6.2} ns/delivery",
            ns as f64 / EVENTS as f64,
            ns as f64 / deliveries.max(1) as f64
        );
    }
}
