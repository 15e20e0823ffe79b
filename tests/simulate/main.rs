//! The simulator: the real server in worlds in which everything goes wrong, each of them drawn from one number.
//!
//! A seed decides on the options, on what sources and users do, and on what fails and when ([`chaos`]). The server runs
//! on simulated sockets under virtual time. After each of its turns a model checks what it did ([`model`], which knows
//! the SPEC's order ([`ring`]) and users ([`people`]) and nothing of the server).
//!
//! A seed also decides on a server with a journal that dies and is started again, several times, on a simulated disk ([`lives`]).
//!
//! - `cargo test` runs 2,000 seeds. `make simulate SEEDS=N` runs N of the same build and prints what they came across;
//!   with `PROFILE=release` it builds for minutes and runs ten times as fast.
//! - `SEED=n` runs one. `FIRST_SEED=n` begins with another one than 0.
//! - A seed that fails is printed, and its run is written to a file that `fortnight replay` replays, without `busyPoll` if the
//!   seed has that.

mod chaos;
mod coverage;
mod deck;
mod dice;
mod lives;
mod model;
mod options;
mod people;
mod replay;
mod ring;
mod run;
mod share;
mod watch;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use coverage::Coverage;

/// Seeds that `cargo test` runs.
const SEEDS: u64 = 2000;
/// Of so many seeds one may be given up.
const GIVEN_UP_OF: u64 = 10_000;
/// Failures that are told before giving up.
const FAILURES: usize = 3;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name}: {text} is no number")))
}

#[test]
fn nothing_is_lost_whatever_goes_wrong() {
    let one = variable("SEED");
    let first = one.or_else(|| variable("FIRST_SEED")).unwrap_or(0);
    let seeds = if one.is_some() { 1 } else { variable("SEEDS").unwrap_or(SEEDS) };
    let traces = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let began = Instant::now();
    let (coverage, failures) = run_all(first, seeds, &traces);
    let per_second = seeds as f64 / began.elapsed().as_secs_f64();
    println!("{coverage}\n{seeds} seeds from {first} on, {per_second:.0} a second");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let given_up = coverage.times(run::GIVEN_UP);
    assert!(given_up <= seeds.div_ceil(GIVEN_UP_OF), "{given_up} of {seeds} runs were given up");
    let missing = coverage.missing();
    assert!(seeds < SEEDS || missing.is_empty(), "never happened: {missing:?}");
}

/// Runs seeds on every core.
fn run_all(first: u64, seeds: u64, traces: &std::path::Path) -> (Coverage, Vec<String>) {
    let next = AtomicU64::new(first);
    let worker = || {
        let mut coverage = Coverage::default();
        let mut failures = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds || failures.len() >= FAILURES {
                return (coverage, failures);
            }
            if let Err(failure) = run::run(seed, traces, &mut coverage) {
                failures.push(failure);
            }
            if let Err(problem) = run::catch(|| lives::run(seed, &mut coverage)) {
                failures.push(format!("seed {seed}: {problem}\nmake simulate SEED={seed} repeats it"));
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from).min(seeds as usize);
    let mut all = Coverage::default();
    let mut failures = Vec::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            let (coverage, failed) = worker.join().expect("runs catch their panics");
            all.merge(&coverage);
            failures.extend(failed);
        }
    });
    (all, failures)
}
