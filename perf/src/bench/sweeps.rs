//! One thing varied, everything else kept: users, events, batch sizes.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Bench, Spread};
use crate::access::Access;
use crate::block::Expect;
use crate::plot::{Curve, Labels, lines};
use crate::process::memory_bytes;
use crate::report::{Figures, short};
use crate::user::log_in;
use crate::workload::{Mix, Shape, Workload};

const MIB: f64 = (1 << 20) as f64;

fn ns(figures: &Figures) -> f64 {
    figures.cpu_ns_per_delivery().unwrap_or(f64::NAN)
}

#[derive(Debug, Serialize)]
struct Point {
    series: String,
    x: u64,
    ns: Spread,
    limit_ns: Spread,
    cpu_ratio: Spread,
}

/// Runs the first server and the limit in turns.
fn point(bench: &Bench, series: &str, x: u64, load: &Workload) -> Result<Point, String> {
    let mut protocol = bench.prepare(load, Expect::Protocol, None)?;
    let mut pattern = bench.prepare(load, Expect::Pattern, None)?;
    let mut runs = Vec::new();
    for _ in 0..bench.pairs {
        runs.push((
            bench.measure(&bench.servers[0], &mut protocol)?,
            bench.measure(&bench.limit, &mut pattern)?,
        ));
    }
    let point = Point {
        series: series.to_owned(),
        x,
        ns: Spread::of(runs.iter().map(|(own, _)| ns(own))),
        limit_ns: Spread::of(runs.iter().map(|(_, limit)| ns(limit))),
        cpu_ratio: Spread::of(runs.iter().map(|(own, limit)| ns(own) / ns(limit))),
    };
    println!("{series} {x}: {:.2} ns, limit {:.2} ns per delivery", point.ns.median, point.limit_ns.median);
    Ok(point)
}

fn curves(points: &[Point], name: &str) -> Vec<Curve> {
    let mut series: Vec<&str> = points.iter().map(|point| point.series.as_str()).collect();
    series.dedup();
    let curve = |series: &str, name: &str, pick: &dyn Fn(&Point) -> f64| {
        let own = points.iter().filter(|point| point.series == series);
        Curve {
            name: format!("{name}, {series}"),
            points: own.map(|point| (point.x as f64, pick(point))).collect(),
        }
    };
    let both = |series: &&str| {
        [
            curve(series, name, &|point| point.ns.median),
            curve(series, "limit", &|point| point.limit_ns.median),
        ]
    };
    series.iter().flat_map(both).collect()
}

fn table(what: &str, points: &[Point]) -> String {
    let mut text =
        format!("| series | {what} | ns per delivery | limit | × limit |\n| --- | --- | --- | --- | --- |\n");
    for point in points {
        let Point { series, x, ns, limit_ns, cpu_ratio } = point;
        let _ =
            writeln!(text, "| {series} | {x} | {} | {} | {} |", ns.told(), limit_ns.told(), cpu_ratio.told());
    }
    text
}

/// Cost per delivery against the number of connected users.
pub(super) fn users(bench: &Bench) -> Result<(), String> {
    let mut points = Vec::new();
    for (series, mix) in [("broadcast", Mix::BROADCAST), ("mix", Mix::DEFAULT)] {
        for users in [100, 300, 1_000, 3_000, 10_000] {
            // As many deliveries at every size: half a billion broadcasts, as in `crowd`, or 200 million of the mix, in
            // which they come from one broadcast in a hundred events and from the followers of status updates, few
            // among many users.
            let (deliveries, per_event) = match mix {
                Mix::BROADCAST => (5e8, users as f64),
                _ => (2e8, 0.01 * users as f64 + 14.0),
            };
            let events = (deliveries * bench.scale / per_event).ceil() as u64;
            let load =
                Workload { events, users, connected: users, mix, ..Workload::of_shape(Shape::Dense, 1.0) };
            points.push(point(bench, series, users, &load)?);
        }
    }
    let mut text = table("connected users", &points);
    for series in ["broadcast", "mix"] {
        let at = |users| points.iter().find(|point| point.series == series && point.x == users);
        if let (Some(few), Some(many)) = (at(100), at(10_000)) {
            let growth = many.ns.median / few.ns.median;
            let of_limit = many.limit_ns.median / few.limit_ns.median;
            let verdict = bench.verdict(growth <= 1.25);
            let of_series = || points.iter().filter(|point| point.series == series);
            let farthest =
                of_series().max_by(|a, b| a.cpu_ratio.median.total_cmp(&b.cpu_ratio.median)).unwrap_or(many);
            let own = of_series();
            let dearest = own.max_by(|a, b| a.ns.median.total_cmp(&b.ns.median)).unwrap_or(many);
            let _ = writeln!(
                text,
                "\n{series}: from 100 to 10,000 users, the cost per delivery grows {growth:.2} times \
                (target 1.25: {verdict}); the limit's grows {of_limit:.2} times. It is dearest at {} users: {:.2} \
                times what it is at 100, the limit's {:.2} times.",
                dearest.x,
                dearest.ns.median / few.ns.median,
                dearest.limit_ns.median / few.limit_ns.median
            );
            let _ = writeln!(
                text,
                "It is farthest from the limit at {} users: {:.2} times the limit's cost there (target at every point 1.2: {}).",
                farthest.x,
                farthest.cpu_ratio.median,
                bench.verdict(farthest.cpu_ratio.median <= 1.2)
            );
        }
    }
    let labels = Labels {
        title: "Cost per delivery against users",
        x: "connected users",
        y: "CPU nanoseconds per delivery",
    };
    lines(&bench.file("users.svg"), labels, &curves(&points, &bench.servers[0].name))?;
    bench.store("users", &points, &text)
}

/// Cost per delivery against the batch size.
pub(super) fn batches(bench: &Bench) -> Result<(), String> {
    let mut points = Vec::new();
    for batch_max in [1, 100, 10_000, 60_000] {
        let load = Workload { batch_max, ..Workload::of_shape(Shape::Maze, bench.scale) };
        points.push(point(bench, "maze", batch_max, &load)?);
    }
    let mut text = table("batch size", &points);
    let costs = Spread::of(points.iter().map(|point| point.ns.median));
    let factor = costs.most / costs.least;
    let verdict = bench.verdict(factor <= 2.0);
    let _ = writeln!(
        text,
        "\nThe dearest batch size costs {factor:.2} times the cheapest (target 2.0: {verdict})."
    );
    let labels = Labels {
        title: "Cost per delivery against shuffling",
        x: "events shuffled in batches up to",
        y: "CPU nanoseconds per delivery",
    };
    lines(&bench.file("batches.svg"), labels, &curves(&points, &bench.servers[0].name))?;
    bench.store("batches", &points, &text)
}

#[derive(Debug, Serialize)]
struct Memory {
    start_bytes: u64,
    idle_users: u64,
    idle_user_bytes: f64,
    /// Events, and the peak of the process that took them.
    peaks: Vec<(u64, u64)>,
}

/// Peak memory against events; memory at the start, and per idle user.
pub(super) fn memory(bench: &Bench) -> Result<(), String> {
    let (start_bytes, idle_users, idle_user_bytes) = idle(bench)?;
    let mut peaks = Vec::new();
    for events in [1e6, 3e6, 1e7, 3e7, 1e8] {
        let events = (events * bench.scale).ceil() as u64;
        let load = Workload { events, ..Workload::of_shape(Shape::Maze, 1.0) };
        let mut prepared = bench.prepare(&load, Expect::Protocol, None)?;
        let figures = bench.measure(&bench.servers[0], &mut prepared)?;
        let peak = figures.server_peak_bytes.unwrap_or(0);
        println!("memory {}events: {:.1} MiB", short(events as f64), peak as f64 / MIB);
        peaks.push((events, peak));
    }
    let mut text = String::from("| events | peak MiB |\n| --- | --- |\n");
    for (events, peak) in &peaks {
        let _ = writeln!(text, "| {events} | {:.1} |", *peak as f64 / MIB);
    }
    let growth = peaks[4].1 as f64 / peaks[2].1 as f64;
    let verdict = |is_met| bench.verdict(is_met);
    let _ = writeln!(
        text,
        "\nTen times the events, {growth:.3} times the peak (target 1.05: {}).",
        verdict(growth <= 1.05)
    );
    let start = start_bytes as f64 / MIB;
    let _ = writeln!(text, "At the start {start:.1} MiB (target below 16: {}).", verdict(start < 16.0));
    let _ = writeln!(
        text,
        "An idle user, logged in, costs {idle_user_bytes:.0} bytes, measured over {idle_users} \
        (target 1024: {}).",
        verdict(idle_user_bytes <= 1024.0)
    );
    let points = peaks.iter().map(|(events, peak)| (*events as f64, *peak as f64 / MIB)).collect();
    let labels = Labels { title: "Peak memory against events", x: "events", y: "MiB" };
    lines(&bench.file("memory.svg"), labels, &[Curve { name: bench.servers[0].name.clone(), points }])?;
    bench.store("memory", &Memory { start_bytes, idle_users, idle_user_bytes, peaks }, &text)
}

/// Memory at the start with defaults, idle users connected, and memory that each of them adds.
fn idle(bench: &Bench) -> Result<(u64, u64, f64), String> {
    let start = {
        let plain = bench.idle(&bench.plain)?;
        settled(&|| memory_bytes(plain.pid(), "VmRSS").unwrap_or(0))
    };
    let server = bench.idle(&bench.servers[0])?;
    let resident = || memory_bytes(server.pid(), "VmRSS").unwrap_or(0);
    let before = settled(&resident);
    let mut users = Vec::new();
    for id in 1..=10_000 {
        users.push(
            log_in(&Access::default(), server.addresses.users, id, None)
                .map_err(|e| format!("idle user {id}: {e}"))?,
        );
    }
    let after = settled(&resident);
    let count = users.len() as u64;
    Ok((start, count, after.saturating_sub(before) as f64 / count as f64))
}

/// A number, once it has been the same for half a second; the last one after ten.
fn settled(look: &dyn Fn() -> u64) -> u64 {
    let begin = Instant::now();
    let mut last = (look(), Instant::now());
    while last.1.elapsed() < Duration::from_millis(500) && begin.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
        let now = look();
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    last.0
}
