//! Latency at a fixed rate, next to a server that only forwards.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Bench, Contender, Spread};
use crate::arrivals::histogram;
use crate::plot::{Curve, distributions};
use crate::report::{distribution, percentiles};
use crate::workload::{Shape, Workload};

#[derive(Debug, Serialize)]
struct Row {
    server: String,
    /// Microseconds: median over the runs, with spread.
    p50: Spread,
    p99: Spread,
    /// Microseconds: of all runs together.
    percentiles: Vec<(String, f64)>,
    /// `p99` divided by that of the limit's run beside it.
    p99_ratio: Option<Spread>,
}

/// A contender and the histograms of its runs.
type Runs = (Contender, Vec<Histogram<u64>>);

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    let seconds = (10.0 * bench.scale).max(0.5);
    let events = (bench.rate * seconds).ceil() as u64;
    let load = Workload { events, ..Workload::of_shape(Shape::Maze, 1.0) };
    let limit = bench.forwarding_limit();
    let mut runs: Vec<Runs> = Vec::new();
    for (index, server) in bench.servers.iter().enumerate() {
        runs.push((server.clone(), Vec::new()));
        if index == 0 {
            let command = format!("busyPoll=true {}", server.command);
            let name = format!("{} busyPoll", server.name);
            runs.push((Contender { name, command, ..server.clone() }, Vec::new()));
        }
    }
    runs.push((limit, Vec::new()));
    for pair in 0..bench.pairs {
        for (who, histograms) in &mut runs {
            // Prepared each time: the times that follow must not depend on what ran before.
            let mut prepared = bench.prepare(&load, who.expect, Some(bench.rate))?;
            let figures = bench.measure(who, &mut prepared)?;
            let times = figures.latency.ok_or("latency: it was not measured")?;
            let (p50, p99) =
                (times.value_at_quantile(0.5) as f64 / 1e3, times.value_at_quantile(0.99) as f64 / 1e3);
            println!("latency {}/{}: {} p50 {p50:.1} µs, p99 {p99:.1} µs", pair + 1, bench.pairs, who.name);
            histograms.push(times);
        }
    }
    let rows: Vec<Row> = runs.iter().map(|own| row(own, runs.last())).collect();
    let curves: Vec<Curve> = runs
        .iter()
        .map(|(who, histograms)| Curve {
            name: who.name.clone(),
            points: distribution(&together(histograms)),
        })
        .collect();
    let title = format!("Time per delivery at {} events/s, 100 users", bench.rate);
    distributions(&bench.file("latency.svg"), &title, &curves)?;
    bench.store("latency", &rows, &table(bench, seconds, &rows))
}

fn together(histograms: &[Histogram<u64>]) -> Histogram<u64> {
    let mut all = histogram();
    for one in histograms {
        all.add(one).expect("all have the same bounds");
    }
    all
}

fn row((who, histograms): &Runs, limit: Option<&Runs>) -> Row {
    let at = |times: &Histogram<u64>, share| times.value_at_quantile(share) as f64 / 1e3;
    let beside = limit.filter(|(limit, _)| limit.name != who.name);
    let ratio = |(_, limits): &Runs| {
        let pairs = histograms.iter().zip(limits);
        Spread::of(pairs.map(|(own, limit)| at(own, 0.99) / at(limit, 0.99)))
    };
    let all = percentiles(&together(histograms));
    Row {
        server: who.name.clone(),
        p50: Spread::of(histograms.iter().map(|times| at(times, 0.5))),
        p99: Spread::of(histograms.iter().map(|times| at(times, 0.99))),
        percentiles: all.into_iter().map(|(name, ns)| (name.to_owned(), ns as f64 / 1e3)).collect(),
        p99_ratio: beside.map(ratio),
    }
}

fn table(bench: &Bench, seconds: f64, rows: &[Row]) -> String {
    let mut text = format!(
        "{} events/s offered for {seconds:.1} s, shape `maze`, 100 users. Microseconds.\n\n",
        bench.rate
    );
    let names =
        rows.first().map(|row| row.percentiles.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
    let names = names.unwrap_or_default();
    let _ = writeln!(text, "| server | {} | p99 × limit |", names.join(" | "));
    let _ = writeln!(text, "| --- |{}", " --- |".repeat(names.len() + 1));
    for row in rows {
        let values: Vec<String> = row.percentiles.iter().map(|(_, us)| format!("{us:.1}")).collect();
        let ratio = row.p99_ratio.map_or("–".to_owned(), |ratio| ratio.told());
        let _ = writeln!(text, "| {} | {} | {ratio} |", row.server, values.join(" | "));
    }
    text.push_str("\nPercentiles are of all runs together; the ratio is the median over neighbouring runs (least to most).\n");
    text
}
