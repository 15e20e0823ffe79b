//! Every shape, next to the limit.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Bench, Spread};
use crate::block::Expect;
use crate::report::Figures;
use crate::workload::{Shape, Workload};

#[derive(Debug, Serialize)]
struct Row {
    shape: Shape,
    server: String,
    events: u64,
    deliveries: u64,
    /// CPU nanoseconds per delivery.
    ns: Spread,
    limit_ns: Spread,
    /// Of CPU time per delivery, pair by pair.
    cpu_ratio: Spread,
    /// Of wall time, pair by pair.
    wall_ratio: Spread,
    events_per_second: Spread,
    deliveries_per_second: Spread,
    peak_bytes: u64,
    /// How busy the load was: near 1, wall time says more about it than about the server.
    tool_busy: Spread,
    target: Option<f64>,
}

/// At most this many times the limit. With fewer events or more there is none: the graph has another size, and an event
/// another number of deliveries.
fn target(shape: Shape, scale: f64) -> Option<f64> {
    match shape {
        _ if (scale - 1.0).abs() > f64::EPSILON => None,
        Shape::Maze | Shape::Dense => Some(2.0),
        Shape::Broadcast | Shape::Private => Some(1.3),
        Shape::Crowd => Some(1.5),
        Shape::Celebrity | Shape::CelebrityFew => None,
    }
}

const CELEBRITY_TARGET: f64 = 2.0;

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    let mut rows = Vec::new();
    for shape in &bench.shapes {
        rows.extend(shape_rows(bench, *shape)?);
    }
    bench.store("shapes", &rows, &table(bench, &rows))
}

fn ns(figures: &Figures) -> f64 {
    figures.cpu_ns_per_delivery().unwrap_or(f64::NAN)
}

fn shape_rows(bench: &Bench, shape: Shape) -> Result<Vec<Row>, String> {
    let load = Workload::of_shape(shape, bench.scale);
    let mut protocol = bench.prepare(&load, Expect::Protocol, None)?;
    let mut pattern = bench.prepare(&load, Expect::Pattern, None)?;
    let mut runs: Vec<Vec<(Figures, Figures)>> = bench.servers.iter().map(|_| Vec::new()).collect();
    for pair in 0..bench.pairs {
        for (server, runs) in bench.servers.iter().zip(&mut runs) {
            let own = bench.measure(server, &mut protocol)?;
            let limit = bench.measure(&bench.limit, &mut pattern)?;
            println!(
                "{} {}/{}: {} {:.2} ns, limit {:.2} ns per delivery",
                shape.name(),
                pair + 1,
                bench.pairs,
                server.name,
                ns(&own),
                ns(&limit)
            );
            runs.push((own, limit));
        }
    }
    let rows = bench.servers.iter().zip(runs).map(|(server, runs)| {
        let of = |pick: &dyn Fn(&(Figures, Figures)) -> f64| Spread::of(runs.iter().map(pick));
        Row {
            shape,
            server: server.name.clone(),
            events: runs[0].0.events,
            deliveries: runs[0].0.deliveries,
            ns: of(&|(own, _)| ns(own)),
            limit_ns: of(&|(_, limit)| ns(limit)),
            cpu_ratio: of(&|(own, limit)| ns(own) / ns(limit)),
            wall_ratio: of(&|(own, limit)| own.seconds / limit.seconds),
            events_per_second: of(&|(own, _)| own.per_second(own.events)),
            deliveries_per_second: of(&|(own, _)| own.per_second(own.deliveries)),
            peak_bytes: runs.iter().filter_map(|(own, _)| own.server_peak_bytes).max().unwrap_or(0),
            tool_busy: of(&|(own, _)| own.tool_busy()),
            target: target(shape, bench.scale),
        }
    });
    Ok(rows.collect())
}

fn table(bench: &Bench, rows: &[Row]) -> String {
    let mut text = String::from(
        "| shape | server | ns per delivery | limit | × limit, CPU | target | × limit, wall | M events/s | M deliveries/s | peak MiB | load busy |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        let target = row.target.map_or("–".to_owned(), |target| {
            format!("{target:.1} {}", if row.cpu_ratio.median <= target { "met" } else { "missed" })
        });
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {target} | {} | {:.2} | {:.0} | {:.1} | {:.0} % |",
            row.shape.name(),
            row.server,
            row.ns.told(),
            row.limit_ns.told(),
            row.cpu_ratio.told(),
            row.wall_ratio.told(),
            row.events_per_second.median / 1e6,
            row.deliveries_per_second.median / 1e6,
            row.peak_bytes as f64 / f64::from(1 << 20),
            row.tool_busy.median * 100.0,
        );
    }
    text.push_str("\nMedian (least to most). Ratios are those of neighbouring runs.\n");
    for many in rows.iter().filter(|row| row.shape == Shape::Celebrity) {
        let same = |row: &&Row| row.shape == Shape::CelebrityFew && row.server == many.server;
        if let Some(few) = rows.iter().find(same) {
            let ratio = many.ns.median / few.ns.median;
            let of_limit = many.limit_ns.median / few.limit_ns.median;
            let verdict = bench.verdict(ratio <= CELEBRITY_TARGET);
            let _ = writeln!(
                text,
                "\n{}: a status update of the celebrity costs {ratio:.2} times what it costs when only \
                the connected users follow (target {CELEBRITY_TARGET:.1}: {verdict}); the limit's {of_limit:.2} times.",
                many.server
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_for_scale_1() {
        assert_eq!(target(Shape::Maze, 1.0), Some(2.0));
        assert_eq!(target(Shape::Celebrity, 1.0), None);
        for scale in [0.1, 0.99, 2.0] {
            assert_eq!(target(Shape::Maze, scale), None);
        }
    }
}
