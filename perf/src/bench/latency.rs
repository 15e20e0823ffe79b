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
    /// Microseconds: run by run.
    runs: Vec<Run>,
    /// Times that were measured, in all runs.
    deliveries: u64,
    /// Microseconds: of all runs together.
    percentiles: Vec<(String, f64)>,
    /// `p99` divided by that of the limit's run beside it.
    p99_ratio: Option<Spread>,
    /// With `busyPoll`: divided by those of the run without it beside it.
    without_busy_poll: Option<Ratios>,
}

#[derive(Debug, Serialize)]
struct Run {
    p50: f64,
    p99: f64,
}

/// Quotients of two contenders' runs.
#[derive(Debug, Serialize)]
struct Ratios {
    p50: Spread,
    p99: Spread,
}

impl Ratios {
    fn of(own: &[Histogram<u64>], others: &[Histogram<u64>]) -> Ratios {
        let at = |share| {
            let pairs = own.iter().zip(others);
            Spread::of(pairs.map(|(own, other)| micros(own, share) / micros(other, share)))
        };
        Ratios { p50: at(0.5), p99: at(0.99) }
    }
}

fn micros(times: &Histogram<u64>, share: f64) -> f64 {
    times.value_at_quantile(share) as f64 / 1e3
}

/// A contender and the histograms of its runs.
type Runs = (Contender, Vec<Histogram<u64>>);

pub(super) fn run(bench: &Bench) -> Result<(), String> {
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
    let seconds = measure(bench, bench.rate, &mut runs)?;
    let mut rows: Vec<Row> = runs.iter().map(|own| row(own, runs.last())).collect();
    // The server itself, with and without.
    if let [(_, without), (_, with), ..] = &runs[..] {
        rows[1].without_busy_poll = Some(Ratios::of(with, without));
    }
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

/// Everybody in turns at this rate, as often as there are pairs. Returns how many seconds a run took.
fn measure(bench: &Bench, rate: f64, runs: &mut [Runs]) -> Result<f64, String> {
    let seconds = (10.0 * bench.scale).max(0.5);
    let events = (rate * seconds).ceil() as u64;
    let load = Workload { events, ..Workload::of_shape(Shape::Maze, 1.0) };
    for pair in 0..bench.pairs {
        for (who, histograms) in &mut *runs {
            // Prepared each time: the times that follow must not depend on what ran before.
            let mut prepared = bench.prepare(&load, who.expect, Some(rate))?;
            let figures = bench.measure(who, &mut prepared)?;
            let times = figures.latency.ok_or("latency: it was not measured")?;
            let (p50, p99) = (micros(&times, 0.5), micros(&times, 0.99));
            println!("latency {}/{}: {} p50 {p50:.1} µs, p99 {p99:.1} µs", pair + 1, bench.pairs, who.name);
            histograms.push(times);
        }
    }
    Ok(seconds)
}

/// Events a second at which a turn has few events: a server that writes each of them at once is quick there.
const CALM_RATE: f64 = 20_000.0;

/// Latency at a low rate, beside a server that writes each event at once.
pub(super) fn calm(bench: &Bench) -> Result<(), String> {
    let mut runs: Vec<Runs> =
        [bench.servers[0].clone(), bench.naive()].into_iter().map(|who| (who, Vec::new())).collect();
    let seconds = measure(bench, CALM_RATE, &mut runs)?;
    let rows: Vec<Row> = runs.iter().map(|own| row(own, None)).collect();
    let mut text = format!(
        "{CALM_RATE} events/s offered for {seconds:.1} s, shape `maze`, 100 users, no `busyPoll`. Microseconds, of all runs \
         together.\n\n| server | p50 | p99 |\n| --- | --- | --- |\n"
    );
    for (who, histograms) in &runs {
        let all = together(histograms);
        let _ = writeln!(text, "| {} | {:.1} | {:.1} |", who.name, micros(&all, 0.5), micros(&all, 0.99));
    }
    let Ratios { p50, p99 } = Ratios::of(&runs[0].1, &runs[1].1);
    let _ = writeln!(
        text,
        "\nDivided by `maze naive`, median over neighbouring runs (least to most): p50 {} (target at most 1.0: {}), \
         p99 {} (target below 1.0: {}).",
        p50.told(),
        bench.verdict(p50.median <= 1.0),
        p99.told(),
        bench.verdict(p99.median < 1.0)
    );
    bench.store("calm", &rows, &text)
}

fn together(histograms: &[Histogram<u64>]) -> Histogram<u64> {
    let mut all = histogram();
    for one in histograms {
        all.add(one).expect("all have the same bounds");
    }
    all
}

fn row((who, histograms): &Runs, limit: Option<&Runs>) -> Row {
    let beside = limit.filter(|(limit, _)| limit.name != who.name);
    let all = together(histograms);
    let run = |times| Run { p50: micros(times, 0.5), p99: micros(times, 0.99) };
    Row {
        server: who.name.clone(),
        p50: Spread::of(histograms.iter().map(|times| micros(times, 0.5))),
        p99: Spread::of(histograms.iter().map(|times| micros(times, 0.99))),
        runs: histograms.iter().map(run).collect(),
        deliveries: all.len(),
        percentiles: percentiles(&all)
            .into_iter()
            .map(|(name, ns)| (name.to_owned(), ns as f64 / 1e3))
            .collect(),
        p99_ratio: beside.map(|(_, limits)| Ratios::of(histograms, limits).p99),
        without_busy_poll: None,
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
    if let Some(ratio) = rows.first().and_then(|row| row.p99_ratio) {
        let verdict = bench.verdict(ratio.median <= 2.0);
        let _ = writeln!(text, "p99 is {:.2} times the limit's (target 2.0: {verdict}).", ratio.median);
    }
    for row in rows {
        if let Some(ratios) = &row.without_busy_poll {
            let (p50, p99) = (ratios.p50.told(), ratios.p99.told());
            let _ = writeln!(text, "With `busyPoll` divided by without, likewise: p50 {p50}, p99 {p99}.");
        }
    }
    if let [server, .., limit] = rows {
        let times = limit.deliveries as f64 / server.deliveries as f64;
        let _ = writeln!(
            text,
            "The limit sends each user all that it reads: {times:.0} times the deliveries of the server."
        );
    }
    text
}
