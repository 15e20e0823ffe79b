//! The measurements of a run, for people and for programs.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::settings::Settings;

/// One look at the server while it ran.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Since the clock started.
    pub seconds: f64,
    /// Events sent by then.
    pub events: u64,
    /// Memory that the server held.
    pub resident_bytes: u64,
    /// Descriptors that it had open.
    pub descriptors: u64,
}

/// What was counted from the first byte sent (after the preamble) to the last byte received.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Wall time.
    pub seconds: f64,
    /// Events sent that a server has to release.
    pub events: u64,
    /// Bytes sent.
    pub source_bytes: u64,
    /// Events received, over all users.
    pub deliveries: u64,
    /// Bytes received, over all users.
    pub bytes: u64,
    /// CPU time of the server.
    pub server_cpu_ns: Option<u64>,
    /// Peak memory of the server, since its start.
    pub server_peak_bytes: Option<u64>,
    /// CPU time of this tool.
    pub tool_cpu_ns: u64,
    /// Peak memory of this tool, since its start.
    pub tool_peak_bytes: u64,
    /// Slow users that the server disconnected.
    pub cut_off: u64,
    /// How often users came while events flowed.
    pub visits: u64,
    /// What those received, contained in `deliveries`.
    pub visit_deliveries: u64,
    /// How often the server was killed and started again.
    pub kills: u64,
    /// How often users came back with the number that they wanted next.
    pub resumes: u64,
    /// How often a user that comes back had left in the middle of a line.
    pub cut_lines: u64,
    /// Whether everything had been worked out before the clock started.
    pub prepared: bool,
    /// Looks at the server.
    pub samples: Vec<Sample>,
    /// Times of the deliveries in nanoseconds.
    pub latency: Option<Histogram<u64>>,
}

impl Figures {
    /// A count per second of the run.
    pub fn per_second(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }

    /// CPU time of the server per delivery, in nanoseconds.
    pub fn cpu_ns_per_delivery(&self) -> Option<f64> {
        self.server_cpu_ns.filter(|_| self.deliveries > 0).map(|ns| ns as f64 / self.deliveries as f64)
    }

    /// Share of the run in which this tool was busy.
    pub fn tool_busy(&self) -> f64 {
        if self.seconds > 0.0 { self.tool_cpu_ns as f64 / 1e9 / self.seconds } else { 0.0 }
    }

    /// Share of the run in which the server was busy; above 1 with several threads.
    pub fn server_busy(&self) -> Option<f64> {
        self.server_cpu_ns.filter(|_| self.seconds > 0.0).map(|ns| ns as f64 / 1e9 / self.seconds)
    }
}

/// A count with a unit prefix, three digits: `12.3 M`.
pub fn short(count: f64) -> String {
    let steps = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match steps.iter().find(|(step, _)| count >= *step) {
        Some((step, prefix)) => {
            let value = count / step;
            let digits = if value >= 100.0 {
                0
            } else if value >= 10.0 {
                1
            } else {
                2
            };
            format!("{value:.digits$} {prefix}")
        }
        None => format!("{count:.0} "),
    }
}

/// The summary for people.
pub fn summary(settings: &Settings, figures: &Figures) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12}{value}");
    };
    let load = &settings.load;
    let how = if figures.prepared { "prepared" } else { "streamed" };
    line(
        "shape",
        format!("{}, seed {}, {} users connected, {how}", load.shape.name(), load.seed, load.connected),
    );
    line("time", format!("{:.3} s", figures.seconds));
    let rate = |count: u64, unit: &str| format!("{count}, {}{unit}/s", short(figures.per_second(count)));
    line("events", rate(figures.events, "events"));
    line("deliveries", rate(figures.deliveries, "deliveries"));
    line(
        "bytes",
        format!(
            "{} sent, {}B/s; {} received, {}B/s",
            figures.source_bytes,
            short(figures.per_second(figures.source_bytes)),
            figures.bytes,
            short(figures.per_second(figures.bytes)),
        ),
    );
    if let (Some(cpu), Some(busy)) = (figures.server_cpu_ns, figures.server_busy()) {
        let each =
            figures.cpu_ns_per_delivery().map_or(String::new(), |ns| format!(", {ns:.2} ns per delivery"));
        let peak = figures.server_peak_bytes.map_or(String::new(), |bytes| {
            format!(", peak memory {:.1} MiB", bytes as f64 / (1 << 20) as f64)
        });
        line("server", format!("{:.3} s of CPU, {:.0} % busy{each}{peak}", cpu as f64 / 1e9, busy * 100.0));
    }
    line("this tool", tool(figures));
    if let Some(histogram) = &figures.latency {
        for (name, ns) in percentiles(histogram) {
            line(name, format!("{:.1} µs", ns as f64 / 1e3));
        }
    }
    if settings.resume {
        line("resumed", format!("{} times, the server was killed {} times", figures.resumes, figures.kills));
    } else if load.churning > 0 && settings.churn_resumes {
        line(
            "visitors",
            format!(
                "{} users resumed {} times, {} times after half a line; each received one uninterrupted stream, in all {} events",
                load.churning, figures.resumes, figures.cut_lines, figures.visit_deliveries
            ),
        );
    } else if load.churning > 0 {
        line(
            "visitors",
            format!(
                "{} users came {} times and received {} events, checked",
                load.churning, figures.visits, figures.visit_deliveries
            ),
        );
    }
    if settings.slow_users > 0 {
        line(
            "slow users",
            format!(
                "{}, the server disconnected {} of them, each after an exact prefix",
                settings.slow_users, figures.cut_off
            ),
        );
    }
    text
}

/// How busy this tool was, and whether that was the limit.
fn tool(figures: &Figures) -> String {
    let busy = figures.tool_busy();
    let limit = match figures.server_busy() {
        Some(server) if busy > 0.9 && server < 0.9 => ": this tool was the limit, not the server",
        None if busy > 0.9 => ": this tool may have been the limit",
        _ => "",
    };
    format!(
        "{:.0} % busy{limit}, peak memory {:.1} MiB",
        busy * 100.0,
        figures.tool_peak_bytes as f64 / (1 << 20) as f64
    )
}

/// The percentiles that are told, in nanoseconds.
pub fn percentiles(histogram: &Histogram<u64>) -> [(&'static str, u64); 7] {
    let at = |share| histogram.value_at_quantile(share);
    [
        ("p50", at(0.5)),
        ("p90", at(0.9)),
        ("p95", at(0.95)),
        ("p99", at(0.99)),
        ("p99.9", at(0.999)),
        ("p99.99", at(0.9999)),
        ("max", histogram.max()),
    ]
}

/// A distribution as points: share of deliveries, and the nanoseconds that they did not exceed.
pub fn distribution(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let steps = histogram.iter_quantiles(8);
    let points = steps.map(|step| (step.quantile_iterated_to(), step.value_iterated_to() as f64));
    points.filter(|(share, _)| *share < 1.0 && (1.0 - share) * histogram.len() as f64 >= 1.0).collect()
}

fn latency_json(histogram: &Histogram<u64>) -> Value {
    let named = percentiles(histogram).into_iter().map(|(name, ns)| (format!("{name}_ns"), json!(ns)));
    let mut all: serde_json::Map<String, Value> = named.collect();
    all.insert("count".into(), json!(histogram.len()));
    all.insert("distribution".into(), json!(distribution(histogram)));
    Value::Object(all)
}

/// The result for programs.
pub fn to_json(settings: &Settings, outcome: Result<&Figures, &Fault>) -> Value {
    let load = &settings.load;
    let mut value = json!({
        "passed": outcome.is_ok(),
        "shape": load.shape,
        "seed": load.seed,
        "connected_users": load.connected,
        "users": load.users,
        "batch_max": load.batch_max,
        "mix": load.mix.to_string(),
        "line_end": load.line_end,
        "holes": load.holes,
        "duplicates": load.duplicates,
        "garbage": load.garbage,
        "sources": load.sources,
        "rate": settings.rate,
    });
    let more = match outcome {
        Err(fault) => json!({ "fault": fault }),
        Ok(figures) => json!({
            "seconds": figures.seconds,
            "events": figures.events,
            "events_per_second": figures.per_second(figures.events),
            "deliveries": figures.deliveries,
            "deliveries_per_second": figures.per_second(figures.deliveries),
            "source_bytes": figures.source_bytes,
            "bytes": figures.bytes,
            "bytes_per_second": figures.per_second(figures.bytes),
            "server_cpu_ns": figures.server_cpu_ns,
            "server_peak_bytes": figures.server_peak_bytes,
            "server_busy": figures.server_busy(),
            "cpu_ns_per_delivery": figures.cpu_ns_per_delivery(),
            "tool_cpu_ns": figures.tool_cpu_ns,
            "tool_busy": figures.tool_busy(),
            "tool_peak_bytes": figures.tool_peak_bytes,
            "prepared": figures.prepared,
            "cut_off": figures.cut_off,
            "visits": figures.visits,
            "visit_deliveries": figures.visit_deliveries,
            "kills": figures.kills,
            "resumes": figures.resumes,
            "cut_lines": figures.cut_lines,
            "samples": figures.samples,
            "latency": figures.latency.as_ref().map(latency_json),
        }),
    };
    if let (Value::Object(all), Value::Object(more)) = (&mut value, more) {
        all.extend(more);
    }
    value
}
