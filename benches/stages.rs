//! The stages of the engine, one by one, each on inputs that its name states.
//!
//! `cargo bench --bench stages --features stages [-- NAME]`. What is counted as an element:
//!
//! | benchmark | what it does | element | inputs |
//! | --- | --- | --- | --- |
//! | `parse` | recognises lines and reads their numbers | line | of shape `maze`; broadcasts; private messages with ids of eight digits |
//! | `sequence` | puts numbers into the ring and takes out what is at the cursor | event | in order; shuffled in batches of up to 100, and 8,192 |
//! | `route` | applies events to the graph, notes who gets them | event | shape `maze`; private messages, one in ten to a connected user; status updates |
//! | `gather` | puts each user's bytes together | delivery | what `route` left |
//!
//! `route` and `gather` have 100 of 1,000 users connected, and a graph that 4.9 M events of shape `maze` have built; a
//! turn is 8,192 events. Numbers have seven digits.

#[path = "stream.rs"]
mod stream;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fortnight::internals::engine::stages::{Events, Ring, Turn, parse};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};
use stream::{FIRST, MARGIN, connected, cut, lines};

/// They fit a chunk.
const LINES: usize = 8_192;
/// Events that build the graph.
const GRAPH: usize = 4_900_000;
/// More than the lines of any turn here take.
const TURN_BYTES: usize = 1 << 20;

/// The same line for every number.
fn each(line: impl Fn(u64) -> String) -> Vec<String> {
    (FIRST..).take(LINES).map(line).collect()
}

fn measure_parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(LINES as u64));
    let inputs = [
        ("maze", lines(FIRST, LINES, 100)),
        ("broadcasts", each(|seq| format!("{seq}|B\r\n"))),
        ("private, 8-digit ids", each(|seq| format!("{seq}|P|{}|{}\r\n", 10 * seq + 1, 10 * seq + 7))),
    ];
    for (name, lines) in inputs {
        let chunk = cut(lines.iter().map(String::as_bytes)).swap_remove(0);
        let end = chunk.len() - MARGIN;
        let (count, _) = parse(&chunk, MARGIN..end);
        // The last lines of a chunk are left to the grammar.
        assert!(count > LINES - 5, "{count} of {LINES} lines are ordinary ones");
        group.bench_function(name, |bencher| {
            bencher.iter(|| parse(black_box(&chunk), MARGIN..end));
        });
    }
}

fn measure_sequence(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sequence");
    group.throughput(Throughput::Elements(LINES as u64));
    for batch in [1, 100, 8_192] {
        let number =
            |line: &String| line.split('|').next().and_then(|field| field.parse().ok()).unwrap_or(FIRST);
        let numbers: Vec<u64> = lines(FIRST, LINES, batch).iter().map(|line| number(line) - FIRST).collect();
        let mut ring = Ring::new(65_536);
        assert_eq!(ring.sequence(&numbers), LINES, "everything comes out");
        group.bench_function(BenchmarkId::new("batches of up to", batch), |bencher| {
            bencher.iter(|| ring.sequence(black_box(&numbers)));
        });
    }
}

/// What is routed and gathered, by name.
fn turns() -> [(&'static str, Vec<String>); 3] {
    let user = |seq: u64| seq * 7919 % 1000 + 1;
    [
        ("maze", lines(FIRST, LINES, 100)),
        ("private", each(|seq| format!("{seq}|P|{}|{}\r\n", user(seq + 3), user(seq)))),
        ("status", each(|seq| format!("{seq}|S|{}\r\n", user(seq)))),
    ]
}

/// A turn with a graph behind it, and the events for it.
fn prepare(events: &[String]) -> (Turn, Events) {
    let mut turn = Turn::new(&connected(), TURN_BYTES);
    for part in lines(FIRST - GRAPH as u64, GRAPH, 1).chunks(LINES) {
        turn.route(&Events::new(part.iter().map(String::as_bytes)));
        turn.gather(|_, bytes| _ = black_box(bytes));
    }
    let events = Events::new(events.iter().map(String::as_bytes));
    turn.route(&events);
    assert!(!turn.is_full(), "the turn is as long as it was said to be");
    turn.gather(|_, bytes| _ = black_box(bytes));
    (turn, events)
}

fn measure_route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    group.throughput(Throughput::Elements(LINES as u64));
    for (name, lines) in turns() {
        let (mut turn, events) = prepare(&lines);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let mut elapsed = Duration::ZERO;
                for _ in 0..times {
                    let start = Instant::now();
                    turn.route(black_box(&events));
                    elapsed += start.elapsed();
                    turn.gather(|_, bytes| _ = black_box(bytes));
                }
                elapsed
            });
        });
    }
}

fn measure_gather(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gather");
    for (name, lines) in turns() {
        let (mut turn, events) = prepare(&lines);
        // Follows and unfollows are the same every time: from the second time on the deliveries are as well.
        let before = turn.route(&events);
        turn.gather(|_, _| ());
        let deliveries = turn.route(&events) - before;
        turn.gather(|_, _| ());
        group.throughput(Throughput::Elements(deliveries));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let mut elapsed = Duration::ZERO;
                for _ in 0..times {
                    turn.route(&events);
                    let start = Instant::now();
                    turn.gather(|_, bytes| _ = black_box(bytes));
                    elapsed += start.elapsed();
                }
                elapsed
            });
        });
    }
}

criterion_group! {
    name = stages;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = measure_parse, measure_sequence, measure_route, measure_gather
}
criterion_main!(stages);
