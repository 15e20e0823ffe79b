//! What the journal costs beside a server without one, how a start goes, and how long turns are while a snapshot is taken.
//!
//! Folders are made below `TMPDIR`, or `/var/tmp`: that disk is measured.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::metrics::{Metrics, free_port};
use super::{Bench, Contender, Spread};
use crate::block::Expect;
use crate::process::{Addresses, Server, pin};
use crate::report::Figures;
use crate::workload::{Shape, Workload};

const MIB: f64 = (1 << 20) as f64;
/// Programs that only write and sync: their file, for how long they run, and the bytes of an event.
const FILE_BYTES: usize = 16 << 20;
const YARDSTICK_SECONDS: f64 = 2.0;
const EVENT_BYTES: usize = 20;
/// Events per second that come one at a time: further apart than a sync takes.
const SELDOM: f64 = 1_000.0;
/// Edges of the follow graph where starts and snapshots are measured.
const EDGES: u64 = 1_000_000;
/// With so little kept, snapshots are made often: as soon as the journal has grown by the size of one.
const SMALL: &str = "--journal-retention-bytes 16777216 --journal-segment-bytes 4194304";
/// Turns longer than this are counted, in seconds: the bound of a bucket of the histogram.
const TURN_MAX: f64 = 0.002;

#[derive(Debug, Serialize)]
struct Row {
    what: String,
    measured: Spread,
    target: f64,
    /// The target is the least that it may be, not the most.
    at_least: bool,
    is_met: bool,
}

impl Row {
    fn at_most(what: &str, values: impl IntoIterator<Item = f64>, target: f64) -> Row {
        Row::new(what, Spread::of(values), target, false)
    }

    fn at_least(what: &str, values: impl IntoIterator<Item = f64>, target: f64) -> Row {
        Row::new(what, Spread::of(values), target, true)
    }

    fn new(what: &str, measured: Spread, target: f64, at_least: bool) -> Row {
        let is_met = if at_least { measured.median >= target } else { measured.median <= target };
        println!("{what}: {} (target {target:.2})", measured.told());
        Row { what: what.to_owned(), measured, target, at_least, is_met }
    }
}

/// A folder for a journal, which goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder, String> {
        let parent = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let folder = Folder(parent.join(format!("maze-bench-journal-{}", std::process::id())));
        folder.empty()?;
        Ok(folder)
    }

    fn empty(&self) -> Result<(), String> {
        let _ = std::fs::remove_dir_all(&self.0);
        std::fs::create_dir_all(&self.0).map_err(|error| format!("{}: {error}", self.0.display()))
    }

    /// A server like the first one that is measured, with a journal there.
    fn server(&self, bench: &Bench, options: &str) -> Result<Contender, String> {
        let path = self.0.to_string_lossy();
        let path = shlex::try_quote(&path).map_err(|error| format!("{}: {error}", self.0.display()))?;
        let own = &bench.servers[0];
        let command = format!("{} --slow-user-policy wait --journal-directory {path} {options}", own.command);
        Ok(Contender { command, ..own.clone() })
    }

    /// A file that has been written before, as most segments of a journal have.
    fn file(&self) -> io::Result<File> {
        let path = self.0.join("yardstick");
        let file = File::create(&path)?;
        // It goes with the last handle.
        std::fs::remove_file(&path)?;
        file.write_all_at(&vec![0; FILE_BYTES], 0)?;
        file.sync_all()?;
        Ok(file)
    }

    /// Microseconds that a write and a sync of it take on this disk, so many times a second.
    fn sync_micros(&self, rate: f64) -> io::Result<f64> {
        let (file, page) = (self.file()?, [b'x'; 4096]);
        let mut times = Vec::new();
        for index in 0..(rate * YARDSTICK_SECONDS) as usize {
            std::thread::sleep(Duration::from_secs_f64(1.0 / rate));
            let began = Instant::now();
            file.write_all_at(&page, (index * page.len() % FILE_BYTES) as u64)?;
            file.sync_data()?;
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
        Ok(Spread::of(times).median)
    }

    /// Microseconds from an event to the end of the sync that covers it, the median, in a program that only appends: it
    /// writes what has come meanwhile, syncs it, and begins anew.
    fn append_micros(&self, rate: f64) -> io::Result<f64> {
        let file = self.file()?;
        let (mut times, mut position, mut durable) = (Vec::new(), 0, 0_u64);
        let began = Instant::now();
        let due = |event: u64| event as f64 / rate;
        while due(durable) < YARDSTICK_SECONDS {
            let come = (began.elapsed().as_secs_f64() * rate) as u64;
            if come == durable {
                continue;
            }
            let bytes = vec![b'x'; (come - durable) as usize * EVENT_BYTES];
            position = if position + bytes.len() > FILE_BYTES { 0 } else { position };
            file.write_all_at(&bytes, position as u64)?;
            file.sync_data()?;
            position += bytes.len();
            let now = began.elapsed().as_secs_f64();
            times.extend((durable..come).map(|event| (now - due(event)) * 1e6));
            durable = come;
        }
        Ok(Spread::of(times).median)
    }

    /// Measures the disk on the server's core. Where interrupts of the disk go to another core, a sync takes longer there.
    fn on_core(
        &self,
        bench: &Bench,
        measure: impl Fn(&Folder) -> io::Result<f64> + Send,
    ) -> Result<f64, String> {
        std::thread::scope(|scope| {
            let measuring = scope.spawn(move || {
                bench.server_core.map_or(Ok(()), pin)?;
                measure(self).map_err(|error| format!("{}: {error}", self.0.display()))
            });
            measuring.join().unwrap_or_else(|_| Err("the disk could not be measured".to_owned()))
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    let folder = Folder::new()?;
    let mut rows = Vec::new();
    costs(bench, &folder, &mut rows)?;
    latency(bench, &folder, &mut rows)?;
    latency_alone(bench, &folder, &mut rows)?;
    recovery(bench, &folder, &mut rows)?;
    start(bench, &folder, &mut rows)?;
    turns(bench, &folder, &mut rows)?;
    let mut text = String::from("| what | measured | target | |\n| --- | --- | --- | --- |\n");
    for Row { what, measured, target, at_least, is_met } in &rows {
        let bound = if *at_least { "at least" } else { "at most" };
        let _ = writeln!(
            text,
            "| {what} | {} | {bound} {target:.2} | {} |",
            measured.told(),
            bench.verdict(*is_met)
        );
    }
    bench.store("journal", &rows, &text)
}

/// The server without a journal, under the same policy.
fn without(bench: &Bench) -> Contender {
    let own = &bench.servers[0];
    Contender { command: format!("{} --slow-user-policy wait", own.command), ..own.clone() }
}

/// Without, with `interval`, and with `always` in turns.
fn in_turns(
    bench: &Bench,
    folder: &Folder,
    load: &Workload,
    rate: Option<f64>,
) -> Result<Vec<[Figures; 3]>, String> {
    let who = [
        without(bench),
        folder.server(bench, "--journal-sync interval")?,
        folder.server(bench, "--journal-sync always")?,
    ];
    let mut pairs = Vec::new();
    // Single runs differ by half where CPU time is compared, with a journal and without: it takes more of them.
    let count = if rate.is_some() { bench.pairs } else { 3 * bench.pairs };
    for _ in 0..count {
        let run = |who: &Contender| {
            folder.empty()?;
            let mut prepared = bench.prepare(load, who.expect, rate)?;
            // A load that sleeps has to be woken up by the server. That is the more often, the longer the server itself waits.
            prepared.settings.spin = true;
            bench.measure(who, &mut prepared)
        };
        pairs.push([run(&who[0])?, run(&who[1])?, run(&who[2])?]);
    }
    Ok(pairs)
}

fn costs(bench: &Bench, folder: &Folder, rows: &mut Vec<Row>) -> Result<(), String> {
    let cpu = |figures: &Figures| figures.cpu_ns_per_delivery().unwrap_or(f64::NAN);
    for (shape, target) in [(Shape::Maze, 1.10), (Shape::Private, 1.25)] {
        let pairs = in_turns(bench, folder, &Workload::of_shape(shape, bench.scale), None)?;
        rows.push(Row::at_most(
            &format!("`{}`: CPU per delivery with `interval` × without", shape.name()),
            pairs.iter().map(|[off, interval, _]| cpu(interval) / cpu(off)),
            target,
        ));
        if shape != Shape::Maze {
            continue;
        }
        let rate = |figures: &Figures| figures.per_second(figures.deliveries);
        rows.push(Row::at_least(
            "`maze`: deliveries a second with `always` × with `interval`",
            pairs.iter().map(|[_, interval, always]| rate(always) / rate(interval)),
            0.5,
        ));
        let peak = |figures: &Figures| figures.server_peak_bytes.unwrap_or(0) as f64 / MIB;
        rows.push(Row::at_most(
            "`maze`: MiB of memory more with `interval` than without, at most three blocks and a window of the graph",
            pairs.iter().map(|[off, interval, _]| peak(interval) - peak(off)),
            16.0,
        ));
    }
    Ok(())
}

/// A latency of a run, in microseconds.
fn micros(figures: &Figures, share: f64) -> f64 {
    figures.latency.as_ref().map_or(f64::NAN, |times| times.value_at_quantile(share) as f64 / 1e3)
}

fn at_rate(bench: &Bench, shape: Shape, rate: f64) -> Workload {
    let events = (rate * (10.0 * bench.scale).max(0.5)).ceil() as u64;
    Workload { events, ..Workload::of_shape(shape, 1.0) }
}

/// At the rate of the bench many events share a sync, and an event comes while another sync is under way.
fn latency(bench: &Bench, folder: &Folder, rows: &mut Vec<Row>) -> Result<(), String> {
    let rate = bench.rate;
    let append = folder.on_core(bench, |folder| folder.append_micros(rate))?;
    let pairs = in_turns(bench, folder, &at_rate(bench, Shape::Maze, rate), Some(rate))?;
    rows.push(Row::at_most(
        &format!("p99 at {rate} events/s with `interval` × without"),
        pairs.iter().map(|[off, interval, _]| micros(interval, 0.99) / micros(off, 0.99)),
        1.25,
    ));
    let off = Spread::of(pairs.iter().map(|[off, ..]| micros(off, 0.5))).median;
    rows.push(Row::at_most(
        &format!(
            "p50 at {rate} events/s with `always`, µs; without it is {off:.0}, and a program that only appends and syncs takes {append:.0}"
        ),
        pairs.iter().map(|[_, _, always]| micros(always, 0.5)),
        off + append,
    ));
    Ok(())
}

/// One event at a time, for one user: each has a sync of its own.
fn latency_alone(bench: &Bench, folder: &Folder, rows: &mut Vec<Row>) -> Result<(), String> {
    let sync = folder.on_core(bench, |folder| folder.sync_micros(SELDOM))?;
    let load = Workload { connected: 1, users: 1, batch_max: 1, ..at_rate(bench, Shape::Broadcast, SELDOM) };
    let pairs = in_turns(bench, folder, &load, Some(SELDOM))?;
    let off = Spread::of(pairs.iter().map(|[off, ..]| micros(off, 0.5))).median;
    rows.push(Row::at_most(
        &format!(
            "p50 of one event at a time with `always`, {SELDOM} a second, µs; without it is {off:.0}, and one sync of this disk {sync:.0}"
        ),
        pairs.iter().map(|[_, _, always]| micros(always, 0.5)),
        off + sync,
    ));
    Ok(())
}

/// Seconds until a server listens.
fn seconds_to_start(bench: &Bench, who: &Contender) -> Result<(Server, f64), String> {
    let fallback = Addresses::resolve("127.0.0.1", 9090, 9099)?;
    let began = Instant::now();
    let server = Server::start(&who.command, &[], bench.server_core, fallback)?;
    Ok((server, began.elapsed().as_secs_f64()))
}

/// A journal whose tail is as long as it gets, without a snapshot.
fn recovery(bench: &Bench, folder: &Folder, rows: &mut Vec<Row>) -> Result<(), String> {
    let who = folder.server(bench, "")?;
    let load = Workload::of_shape(Shape::Maze, 0.3 * bench.scale.min(1.0));
    let mut rates = Vec::new();
    for _ in 0..bench.pairs {
        folder.empty()?;
        let empty = seconds_to_start(bench, &who)?.1;
        folder.empty()?;
        bench.measure(&who, &mut bench.prepare(&load, who.expect, None)?)?;
        let whole = seconds_to_start(bench, &who)?.1;
        rates.push(load.events as f64 / (whole - empty).max(1e-6) / 1e6);
    }
    rows.push(Row::at_least("recovery: million events of the tail a second", rates, 10.0));
    Ok(())
}

/// Sends follows, and waits until all are durable.
fn follow(server: &Server, edges: u64) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the event source: {error}");
    let mut stream = TcpStream::connect(server.addresses.source).map_err(failed)?;
    let mut text = String::from("?|ack\n");
    for number in 1..=edges {
        let _ = writeln!(text, "{number}|F|{}|{}", number % 1000, number / 1000);
    }
    stream.write_all(text.as_bytes()).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(failed)?;
    let last = format!("|{}\n", edges + 1);
    let (mut told, mut buffer) = (Vec::new(), [0; 4096]);
    while !told.ends_with(last.as_bytes()) {
        match stream.read(&mut buffer).map_err(failed)? {
            0 => return Err("the event source was closed".to_owned()),
            length => told.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(())
}

/// A million edges in a snapshot, and hardly any tail.
fn start(bench: &Bench, folder: &Folder, rows: &mut Vec<Row>) -> Result<(), String> {
    let who = folder.server(bench, SMALL)?;
    let mut seconds = Vec::new();
    for _ in 0..bench.pairs {
        folder.empty()?;
        follow(&seconds_to_start(bench, &who)?.0, EDGES)?;
        seconds.push(seconds_to_start(bench, &who)?.1);
    }
    rows.push(Row::at_most("a start with 1 M edges and next to no tail, seconds", seconds, 0.3));
    Ok(())
}

/// How many of a server's turns were longer than [`TURN_MAX`], and all of them.
fn long_turns(port: u16) -> Result<(u64, u64), String> {
    let metrics = Metrics::of(port)?;
    let short = metrics.value(&format!("fortnight_loop_turn_seconds_bucket{{le=\"{TURN_MAX}\"}}"))?;
    let all = metrics.value("fortnight_loop_turn_seconds_count")?;
    Ok(((all - short) as u64, all as u64))
}

/// Turns longer than 2 ms at a fixed rate over a graph of a million edges, of which snapshots are taken all the time.
fn turns(bench: &Bench, folder: &Folder, rows: &mut Vec<Row>) -> Result<(), String> {
    let port = free_port()?;
    let mut more = Vec::new();
    for _ in 0..bench.pairs {
        let mut counts = [0.0; 2];
        let admin = format!("--admin-port {port}");
        let with = folder.server(bench, &format!("{SMALL} {admin}"))?;
        let off = without(bench);
        let off = Contender { command: format!("{} {admin}", off.command), ..off };
        for (who, count) in [off, with].into_iter().zip(&mut counts) {
            folder.empty()?;
            let server = seconds_to_start(bench, &who)?.0;
            follow(&server, EDGES)?;
            let before = long_turns(port)?;
            let events = (bench.rate * (20.0 * bench.scale).max(2.0)) as u64;
            let load =
                Workload { events, first_sequence: EDGES + 1, ..Workload::of_shape(Shape::Private, 1.0) };
            let mut prepared = bench.prepare(&load, Expect::Protocol, Some(bench.rate))?;
            bench.run_on(&server, &mut prepared)?;
            let after = long_turns(port)?;
            println!("turns longer than 2 ms: {} of {}", after.0 - before.0, after.1 - before.1);
            *count = (after.0 - before.0) as f64;
        }
        more.push(counts[1] - counts[0]);
    }
    rows.push(Row::at_most(
        "turns longer than 2 ms, more with snapshots of 1 M edges than without",
        more,
        0.0,
    ));
    Ok(())
}
