//! Users that come back: what catching up costs, beside delivering the same live, and what it takes from others.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::metrics::{Metrics, free_port};
use super::returning::{Crowd, Place};
use super::{Bench, Prepared, Spread};
use crate::block::Expect;
use crate::drive::{self, Failure};
use crate::plot::{Curve, Labels, lines};
use crate::process::{Addresses, Server, cpu_ns};
use crate::report::Figures;
use crate::rng::Rng;
use crate::workload::{Mix, Shape, Workload};

/// Events per second while users come back.
const RATE: f64 = 20_000.0;
/// What follows on other events: it does not depend on the follow graph that they leave.
const LATER: Mix = Mix { weights: [0, 0, 1, 30, 0] };

/// The users that are live have lower ids.
const LIVE_IDS: u64 = 500;

/// What others do, and how to end it.
type Meanwhile = (Arc<AtomicBool>, JoinHandle<Result<(), String>>);

#[derive(Debug, Serialize)]
struct Row {
    what: String,
    /// The quotient, and what it may be.
    ratio: Spread,
    target: f64,
    is_met: bool,
}

#[derive(Debug, Serialize)]
struct Point {
    users: u64,
    events: u64,
    /// Of the server, per delivery.
    cpu_ns: f64,
}

/// A server with a journal in a folder of its own.
struct Kept {
    server: Server,
    folder: PathBuf,
    admin: u16,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.server.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Kept {
    fn start(bench: &Bench) -> Result<Kept, String> {
        let folder = std::env::temp_dir().join(format!("maze-bench-resume-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let path = folder.to_string_lossy();
        let path = shlex::try_quote(&path).map_err(|error| format!("{}: {error}", folder.display()))?;
        let admin = free_port()?;
        let options = format!(
            "--journal-retention-bytes 68719476736 --user-mark-ms 0 --max-event-source-clients 8 --max-user-clients 12000 --admin-port {admin}"
        );
        let command = format!("{} --journal-directory {path} {options}", bench.servers[0].command);
        let fallback = Addresses::resolve("127.0.0.1", 9090, 9099)?;
        let server = Server::start(&command, &[], bench.server_core, fallback)?;
        Ok(Kept { server, folder, admin })
    }

    /// A server that has released events already, which users can come back for.
    fn with_past(bench: &Bench) -> Result<Kept, String> {
        let kept = Kept::start(bench)?;
        let past = Workload { connected: 1, ..Workload::of_shape(Shape::Maze, 0.3 * bench.scale) };
        kept.run(&mut bench.prepare(&past, Expect::Protocol, None)?)?;
        Ok(kept)
    }

    fn users(&self) -> SocketAddr {
        self.server.addresses.users
    }

    fn place(&self) -> Result<Place, String> {
        Place::of(self.server.addresses.source)
    }

    /// Runs a workload on it, with everybody live.
    fn run(&self, prepared: &mut Prepared) -> Result<Figures, String> {
        let settings = &mut prepared.settings;
        (settings.addresses, settings.pid) = (self.server.addresses, Some(self.server.pid()));
        drive::run(settings, &mut prepared.book, &mut |_| {}).map_err(|trouble| match trouble {
            Failure::Fault(fault) => format!("resume:\n{fault}"),
            Failure::Failed(sentence) => format!("resume: {sentence}"),
        })
    }

    fn send(&self, text: &[u8]) -> Result<(), String> {
        let stream = TcpStream::connect(self.server.addresses.source);
        let sent = stream.and_then(|mut stream| stream.write_all(text));
        sent.map_err(|error| format!("the event source: {error}"))
    }

    fn cpu(&self) -> u64 {
        cpu_ns(self.server.pid()).unwrap_or(0)
    }

    /// These users come back at these places and get everything. Returns CPU time per delivery in nanoseconds.
    fn come_back(&self, users: impl Iterator<Item = (u64, u64)>, place: &mut Place) -> Result<f64, String> {
        let last = format!("{}|B\n", place.next);
        let mut crowd = Crowd::new(&last)?;
        let before = self.cpu();
        for (id, next) in users {
            crowd.add(self.users(), &place.login(id, next), None)?;
        }
        self.send(last.as_bytes())?;
        place.next += 1;
        crowd.read_all()?;
        Ok((self.cpu() - before) as f64 / crowd.deliveries as f64)
    }
}

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    let maze = Workload::of_shape(Shape::Maze, bench.scale);
    let many = Workload {
        events: (6e6 * bench.scale) as u64,
        users: 10_000,
        connected: 10_000,
        mix: Mix::DEFAULT,
        ..Workload::of_shape(Shape::Dense, 1.0)
    };
    let mut rows = vec![
        against_live(bench, "catching up, `maze`, 100 users: CPU per delivery × live", &maze, 2.0)?,
        against_live(bench, "10,000 users over 6 M events: CPU × live", &many, 3.0)?,
    ];
    rows.push(again_and_again(bench)?);
    rows.extend(crowd_comes_back(bench)?);
    rows.push(far_behind(bench)?);
    rows.extend(slow_readers(bench)?);
    let points = curves(bench)?;
    let mut text = String::from("| what | measured | target | |\n| --- | --- | --- | --- |\n");
    for Row { what, ratio, target, is_met } in &rows {
        let _ = writeln!(text, "| {what} | {} | {target} | {} |", ratio.told(), bench.verdict(*is_met));
    }
    text.push_str("\n| users | events behind | CPU ns per delivery |\n| --- | --- | --- |\n");
    for Point { users, events, cpu_ns } in &points {
        let _ = writeln!(text, "| {users} | {events} | {cpu_ns:.1} |");
    }
    bench.store("resume", &(rows, points), &text)
}

fn row(what: &str, values: impl IntoIterator<Item = f64>, target: f64) -> Row {
    let ratio = Spread::of(values);
    println!("{what}: {} (target {target})", ratio.told());
    Row { what: what.to_owned(), ratio, target, is_met: ratio.median <= target }
}

/// Everybody is live; then everybody comes back and gets the same again.
fn against_live(bench: &Bench, what: &str, load: &Workload, target: f64) -> Result<Row, String> {
    let mut ratios = Vec::new();
    for _ in 0..bench.pairs {
        let mut prepared = bench.prepare(load, Expect::Protocol, None)?;
        let kept = Kept::start(bench)?;
        let figures = kept.run(&mut prepared)?;
        let live = figures.cpu_ns_per_delivery().ok_or("resume: the server's CPU time cannot be read")?;
        drop(prepared);
        let mut place = kept.place()?;
        let users = load.ids().into_iter().take(load.connected as usize).map(|id| (id, load.first_sequence));
        let late = kept.come_back(users, &mut place)?;
        println!("{what}: {live:.1} ns live, {late:.1} ns for those who come back");
        ratios.push(late / live);
    }
    Ok(row(what, ratios, target))
}

/// What others do meanwhile, in a thread of their own.
fn meanwhile(work: impl FnOnce(&dyn Fn() -> bool) -> Result<(), String> + Send + 'static) -> Meanwhile {
    let stop = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&stop);
    (stop, std::thread::spawn(move || work(&|| !is_over.load(Ordering::Relaxed))))
}

/// Has this thread give way to the one that measures. One of a low priority only would keep the core to the end of its slice.
fn give_way() -> Result<(), String> {
    schedule("--idle", "0")
}

/// Has the kernel schedule this thread, and those that it begins, in another way.
fn schedule(policy: &str, priority: &str) -> Result<(), String> {
    let own = rustix::thread::gettid().as_raw_nonzero().to_string();
    match Command::new("chrt").args([policy, "--pid", priority, &own]).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("resume: `chrt {policy}` is not allowed for this user")),
        Err(_) => Err("resume: `chrt`, of the package util-linux, is needed to let others give way".into()),
    }
}

fn end(stop: &AtomicBool, thread: JoinHandle<Result<(), String>>) -> Result<(), String> {
    stop.store(true, Ordering::Relaxed);
    thread.join().map_err(|_| "resume: the thread of the others has panicked".to_owned())?
}

/// p99 of 100 live users at a fixed rate: beside 500 other live users, and beside the same users who come back all the time.
fn again_and_again(bench: &Bench) -> Result<Row, String> {
    let mut ratios = Vec::new();
    for _ in 0..bench.pairs {
        let kept = Kept::with_past(bench)?;
        let users = kept.users();
        let p99 = [false, true].map(|come_back| {
            let place = kept.place()?;
            let target = place.clone();
            let others = move |go_on: &dyn Fn() -> bool| {
                give_way()?;
                let mut rng = Rng::new(666, 77);
                while go_on() {
                    // Until the last number of before: what comes now is for those who are live.
                    let mut crowd = Crowd::new("")?;
                    for id in LIVE_IDS..Shape::Maze.dimensions().users {
                        let back = if come_back { rng.below(target.next - 1) + 1 } else { 0 };
                        crowd.add(users, &target.login(id, target.next - back), Some(4e6))?;
                    }
                    let began = Instant::now();
                    crowd.read_slowly(&|| go_on() && !(come_back && began.elapsed().as_millis() >= 2000))?;
                }
                Ok(())
            };
            p99_of_live(bench, &kept, &place, Some(others), || ())
        });
        let [without, with] = p99;
        ratios.push(compare(&without?, &with?, "come back again and again")[0]);
    }
    let what = "p99 of 100 live users at 20,000 events/s while 500 others come back again and again × while those are live";
    Ok(row(what, ratios, 2.0))
}

/// p99 of 100 live users at a fixed rate: alone, and while 10,000 users come back at once.
fn crowd_comes_back(bench: &Bench) -> Result<[Row; 2], String> {
    const COMING: std::ops::RangeInclusive<u64> = 1001..=11_000;
    let mut ratios = [Vec::new(), Vec::new()];
    for _ in 0..bench.pairs {
        let past = Workload {
            events: (6e6 * bench.scale) as u64,
            users: *COMING.end(),
            connected: 1,
            mix: Mix::DEFAULT,
            ..Workload::of_shape(Shape::Dense, 1.0)
        };
        let kept = Kept::start(bench)?;
        kept.run(&mut bench.prepare(&past, Expect::Protocol, None)?)?;
        let (users, place) = (kept.users(), kept.place()?);
        let nobody = None::<fn(&dyn Fn() -> bool) -> Result<(), String>>;
        let without = p99_of_live(bench, &kept, &place, nobody, || ())?;
        let place = kept.place()?;
        let target = place.clone();
        let (has_come, is_there) = mpsc::channel();
        let others = move |go_on: &dyn Fn() -> bool| {
            give_way()?;
            let (mut crowd, mut rng) = (Crowd::new("")?, Rng::new(666, 79));
            for id in COMING {
                let next = 1 + rng.below(target.next - 1);
                crowd.add(users, &target.login(id, next), None)?;
            }
            let _ = has_come.send(());
            crowd.discard(go_on)
        };
        // Logins come before later events, so events have to wait for thousands of them.
        let begin = move || _ = is_there.recv_timeout(Duration::from_secs(60));
        let with = p99_of_live(bench, &kept, &place, Some(others), begin)?;
        for (ratios, ratio) in ratios.iter_mut().zip(compare(&without, &with, "come back at once")) {
            ratios.push(ratio);
        }
    }
    let what =
        "p99 of 100 live users at 20,000 events/s while 10,000 others come back to 6 M events × without";
    let [of_load, of_server] = ratios;
    let own = "the same until the server has handed the events out, by its own histogram";
    Ok([row(what, of_load, 2.0), row(own, of_server, 2.0)])
}

/// p99 in microseconds: of the users, as the load has measured it, and of the server until it has handed an event out.
struct Latency {
    load: f64,
    server: f64,
}

fn compare(without: &Latency, with: &Latency, how: &str) -> [f64; 2] {
    for (whose, without, with) in
        [("live users", without.load, with.load), ("the server", without.server, with.server)]
    {
        println!("p99 of {whose}: {without:.0} µs, {with:.0} µs while others {how}");
    }
    [with.load / without.load, with.server / without.server]
}

/// p99 at a fixed rate, while others do something. `begin` says when events may begin.
///
/// The load's threads have real-time priority meanwhile. Others only give way to them: but what the kernel does for the sockets of
/// others, it does in a thread of its own (`ksoftirqd`), which would share the load's core with it.
fn p99_of_live(
    bench: &Bench,
    kept: &Kept,
    place: &Place,
    others: Option<impl FnOnce(&dyn Fn() -> bool) -> Result<(), String> + Send + 'static>,
    begin: impl FnOnce(),
) -> Result<Latency, String> {
    let load = Workload {
        events: (RATE * (10.0 * bench.scale).max(1.0)) as u64,
        first_sequence: place.next,
        mix: LATER,
        // In order: the server's own histogram has no time in which events wait for others.
        batch_max: 1,
        ..Workload::of_shape(Shape::Maze, 1.0)
    };
    let mut prepared = bench.prepare(&load, Expect::Protocol, Some(RATE))?;
    prepared.settings.spin = false;
    let others = others.map(meanwhile);
    begin();
    let before = Metrics::of(kept.admin)?;
    if let Err(error) = schedule("--fifo", "1") {
        println!("{error}: p99 of the load is also that of its core");
    }
    let figures = kept.run(&mut prepared);
    let _ = schedule("--other", "0");
    let figures = figures?;
    let server = Metrics::of(kept.admin)?.quantile("fortnight_delivery_seconds", 0.99, &before)? * 1e6;
    if let Some((stop, thread)) = others {
        end(&stop, thread)?;
    }
    let times = figures.latency.ok_or("resume: latency was not measured")?;
    Ok(Latency { load: times.value_at_quantile(0.99) as f64 / 1e3, server })
}

/// Seconds until a user is live that is 10 M private events behind, none of which are for it.
fn far_behind(bench: &Bench) -> Result<Row, String> {
    let count = (10e6 * bench.scale) as u64;
    let mut seconds = Vec::new();
    for _ in 0..bench.pairs {
        let kept = Kept::start(bench)?;
        let text: String = (1..=count).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "{number}|P|1|2");
            text
        });
        kept.send(text.as_bytes())?;
        let place = kept.place()?;
        let last = format!("{}|B\n", place.next);
        let mut crowd = Crowd::new(&last)?;
        let began = Instant::now();
        crowd.add(kept.users(), &place.login(7, 1), None)?;
        kept.send(last.as_bytes())?;
        crowd.read_all()?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    Ok(row("one user 10 M private events behind: seconds until it is live", seconds, 1.0))
}

/// The part of the server's time that a thousand slow readers take while there is live work: from when they come, and after
/// that. Filling their buffers for the first time takes gigabytes.
fn slow_readers(bench: &Bench) -> Result<[Row; 2], String> {
    let mut shares = [Vec::new(), Vec::new()];
    for _ in 0..bench.pairs {
        let kept = Kept::with_past(bench)?;
        let alone = live_work(&kept, &mut long_load(bench, &kept)?)?;
        let mut first = long_load(bench, &kept)?;
        let (place, users) = (kept.place()?, kept.users());
        let (stop, thread) = meanwhile(move |go_on| {
            // Before, there is no live work, and whoever comes may have the whole loop.
            std::thread::sleep(Duration::from_millis(100));
            let (mut crowd, mut rng) = (Crowd::new("")?, Rng::new(666, 78));
            for id in 0..1000 {
                let next = 1 + rng.below(place.next - 1);
                let rate = 2000.0 + rng.below(20_000) as f64;
                crowd.add(users, &place.login(1_000_000 + id, next), Some(rate))?;
            }
            // They come as fast as they can. Only what they read gives way to what is measured.
            give_way()?;
            crowd.read_slowly(go_on)
        });
        let first = live_work(&kept, &mut first)?;
        let with = [first, live_work(&kept, &mut long_load(bench, &kept)?)?];
        end(&stop, thread)?;
        for (with, shares) in with.into_iter().zip(&mut shares) {
            println!(
                "the server's CPU: {:.2} s, {:.2} s with slow readers, of {:.2} s",
                alone.0, with.0, with.1
            );
            shares.push((with.0 - alone.0) / with.1);
        }
    }
    let [first, later] = shares;
    let what = "a thousand slow readers at a thousand places: their part of the loop";
    let whats = [format!("{what}, the first 25 seconds"), format!("{what}, the next 25 seconds")];
    Ok([row(&whats[0], first, 0.25), row(&whats[1], later, 0.25)])
}

/// Live work for some 25 seconds.
fn long_load(bench: &Bench, kept: &Kept) -> Result<Prepared, String> {
    let load = Workload {
        first_sequence: kept.place()?.next,
        mix: LATER,
        ..Workload::of_shape(Shape::Maze, 24.0 * bench.scale)
    };
    bench.prepare(&load, Expect::Protocol, None)
}

/// The CPU time of the server for live work, and how long it took, in seconds.
fn live_work(kept: &Kept, prepared: &mut Prepared) -> Result<(f64, f64), String> {
    let figures = kept.run(prepared)?;
    let spent = figures.server_cpu_ns.ok_or("resume: the server's CPU time cannot be read")?;
    Ok((spent as f64 / 1e9, figures.seconds))
}

/// Cost per delivery against the number of users, and against distance.
fn curves(bench: &Bench) -> Result<Vec<Point>, String> {
    let kept = Kept::start(bench)?;
    let load = Workload { connected: 1, ..Workload::of_shape(Shape::Dense, 1.5 * bench.scale) };
    kept.run(&mut bench.prepare(&load, Expect::Protocol, None)?)?;
    let mut place = kept.place()?;
    let mut points = Vec::new();
    for users in [1, 10, 100, 1000] {
        let events = place.next - 1;
        let cpu_ns = kept.come_back((1..=users).map(|id| (id, 1)), &mut place)?;
        points.push(Point { users, events, cpu_ns });
    }
    for share in [1000, 100, 10, 3] {
        let events = (place.next - 1) / share;
        let next = place.next - events;
        let cpu_ns = kept.come_back((1..=100).map(|id| (id, next)), &mut place)?;
        points.push(Point { users: 100, events, cpu_ns });
    }
    let curve = |name: &str, points: Vec<(f64, f64)>| vec![Curve { name: name.to_owned(), points }];
    let users = points[..4].iter().map(|point| (point.users as f64, point.cpu_ns)).collect();
    let labels = Labels {
        title: "Catching up against users",
        x: "users that come back",
        y: "CPU nanoseconds per delivery",
    };
    lines(&bench.file("resume-users.svg"), labels, &curve("from the beginning", users))?;
    let mut distance: Vec<(f64, f64)> =
        points[4..].iter().chain(&points[2..3]).map(|point| (point.events as f64, point.cpu_ns)).collect();
    distance.sort_by(|a, b| a.0.total_cmp(&b.0));
    let labels = Labels {
        title: "Catching up against distance",
        x: "events behind",
        y: "CPU nanoseconds per delivery",
    };
    lines(&bench.file("resume-distance.svg"), labels, &curve("100 users", distance))?;
    Ok(points)
}
