//! `/metrics`: the Prometheus text format, version 0.0.4.
//!
//! Every metric of SPEC section 6. Each has all of its label values from the start. So a rate shows even the first
//! event of its kind.

use super::{JournalNumbers, Snapshot};
use crate::{
    counters::{DisconnectReason, Refusal},
    engine::event::{Kind, Reject},
    latency::{BOUNDS, Histogram, Latency},
    process::Process,
    time::{Micros, SECOND},
};
use std::fmt::{Display, Write};

/// The media type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics as text.
#[must_use]
pub(crate) fn text(snapshot: &Snapshot<'_>) -> String {
    let counters = &snapshot.counters;
    let mut out = Metrics(String::with_capacity(8 << 10));
    out.counter("events_received_total", "Event lines read.", counters.events_received);
    out.counters(
        "events_released_total",
        "Events released, by type.",
        "type",
        Kind::EVENTS.map(|(kind, letter)| (letter, counters.events_released[kind as usize])),
    );
    out.counter("events_late_total", "Events dropped: below the cursor.", counters.events_late);
    out.counter("events_duplicate_total", "Events dropped: already waiting.", counters.events_duplicate);
    out.counters(
        "events_rejected_total",
        "Lines that were no events, by what is wrong with them.",
        "reason",
        Reject::ALL.map(|reason| (reason.name(), counters.events_rejected[reason as usize])),
    );
    out.counter("sequence_skipped_total", "Sequence numbers given up on.", counters.sequence_skipped);
    out.gauge("cursor", "Next sequence number to release.", snapshot.cursor);
    out.gauge("reorder_waiting", "Events waiting in the ring.", snapshot.waiting);
    out.gauge("reorder_capacity", "Slots of the ring.", snapshot.capacity);
    out.counter("deliveries_total", "Events handed to users.", counters.deliveries);
    out.counter("delivered_bytes_total", "Bytes written to users.", counters.delivered_bytes);
    out.gauge("output_buffered_bytes", "Bytes waiting for users.", snapshot.buffered_bytes);
    out.gauge("users_connected", "Logged-in users.", snapshot.users);
    out.gauge("sources_connected", "Event sources.", snapshot.sources);
    connection_metrics(&mut out, snapshot);
    resume_metrics(&mut out, snapshot);
    out.counters(
        "source_paused_seconds_total",
        "Time that sources were not read, by reason.",
        "reason",
        [
            ("slow_user", Seconds(counters.paused_slow_user)),
            ("ring_full", Seconds(counters.paused_ring_full)),
            ("journal", Seconds(counters.paused_journal)),
            ("stream", Seconds(counters.paused_stream)),
        ],
    );
    out.gauge("follow_edges", "Edges of the follow graph.", snapshot.follow_edges);
    if let Some(stream) = &snapshot.stream {
        if let Some(leads) = stream.leads {
            out.gauge("stream_leader", "1: this sequencer leads.", u8::from(leads));
        }
        if let Some(term) = stream.term {
            out.gauge("stream_term", "Grows with every takeover.", term);
        }
        let help = "Everything below is confirmed by the stream (sequencer), or has come from it (edge).";
        out.gauge("stream_cursor", help, stream.cursor);
        let lag = stream.lag.or(stream.away_for).unwrap_or(0);
        out.gauge("stream_lag_seconds", "Time since something last came from the stream.", Seconds(lag));
        let away = Seconds(counters.stream_away);
        out.head("stream_disconnected_seconds_total", "counter", "Time without the stream.");
        out.line("stream_disconnected_seconds_total", away);
    }
    out.counter("loop_turns_total", "Turns of the event loop.", counters.loop_turns);
    latency_metrics(&mut out, snapshot.latency);
    build_metrics(&mut out, snapshot);
    if let Some(journal) = &snapshot.journal {
        journal_metrics(&mut out, journal);
    }
    let mut out = out.0;
    if let Some(process) = &snapshot.process {
        process_metrics(&mut out, process);
    }
    out
}

/// How long things take.
fn latency_metrics(out: &mut Metrics, latency: &Latency) {
    out.histogram(
        "delivery_seconds",
        "Time from an event's arrival to its being handed to its users' sockets.",
        &latency.delivery,
    );
    out.histogram(
        "reorder_wait_seconds",
        "Time that events waited for missing ones, for those that had to.",
        &latency.reorder,
    );
    out.histogram("loop_turn_seconds", "Time that a turn of the event loop took.", &latency.turn);
}

/// What is running, and for how long.
fn build_metrics(out: &mut Metrics, snapshot: &Snapshot<'_>) {
    let version = env!("CARGO_PKG_VERSION");
    out.head("build_info", "gauge", "Always 1; the label says what is running.");
    out.line(&format!("build_info{{version=\"{version}\"}}"), 1);
    out.gauge("uptime_seconds", "Time since the start.", Seconds(snapshot.now));
}

/// What every exporter says of its process, under the names that they all use.
fn process_metrics(out: &mut String, process: &Process) {
    let mut line = |name: &str, kind: &str, help: &str, value: &dyn Display| {
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}\n"
        );
    };
    line("cpu_seconds_total", "counter", "User and system CPU time.", &process.cpu_seconds);
    line("resident_memory_bytes", "gauge", "Bytes in memory.", &process.resident_bytes);
    line("virtual_memory_bytes", "gauge", "Bytes of address space.", &process.virtual_bytes);
    line("open_fds", "gauge", "Open file descriptors.", &process.open_fds);
    line("max_fds", "gauge", "File descriptors that may be open.", &process.max_fds);
    line("start_time_seconds", "gauge", "When it was started, in seconds since 1970.", &process.start_time);
}

/// How connections were turned away and ended.
fn connection_metrics(out: &mut Metrics, snapshot: &Snapshot<'_>) {
    let counters = &snapshot.counters;
    out.counters(
        "connections_rejected_total",
        "Connections closed for being one too many, by listener.",
        "listener",
        [
            ("source", counters.sources_rejected),
            ("user", counters.users_rejected),
            ("admin", counters.admin_rejected),
            ("stream", counters.streams_rejected),
        ],
    );
    out.counters(
        "connections_refused_total",
        "Connections closed before they were let in, by reason.",
        "reason",
        Refusal::ALL.map(|reason| (reason.name(), snapshot.door.refused[reason as usize])),
    );
    if let Some(at) = snapshot.door.certificate_expires {
        out.gauge("tls_certificate_expiry_timestamp_seconds", "When the server's certificate runs out.", at);
    }
    out.counters(
        "users_disconnected_total",
        "Connections on the user port that have ended, by reason.",
        "reason",
        DisconnectReason::ALL.map(|end| (end.name(), counters.users_disconnected[end as usize])),
    );
}

/// Users that resume (docs/SPEC.md section 8).
fn resume_metrics(out: &mut Metrics, snapshot: &Snapshot<'_>) {
    let counters = &snapshot.counters;
    out.gauge("users_catching_up", "Users that are served from the journal.", snapshot.catching_up);
    out.gauge(
        "users_farthest_behind",
        "Numbers that the farthest of them is behind the cursor.",
        snapshot.farthest_behind,
    );
    out.counters(
        "resumed_total",
        "Logins of users that resume, by result.",
        "result",
        [("ok", counters.resumed_ok), ("gone", counters.resumed_gone), ("epoch", counters.resumed_epoch)],
    );
}

/// The metrics of docs/SPEC.md section 8.
fn journal_metrics(out: &mut Metrics, journal: &JournalNumbers) {
    out.gauge("journal_bytes", "Bytes of the journal on disk.", journal.bytes);
    out.gauge(
        "journal_first_sequence",
        "Lowest sequence number that can still be resumed from.",
        journal.first_sequence,
    );
    out.gauge("journal_durable_cursor", "Every number below is durable.", journal.durable_cursor);
    out.counter("journal_appended_bytes_total", "Bytes appended to the journal.", journal.appended_bytes);
    out.counter("journal_syncs_total", "Syncs of the journal.", journal.syncs);
}

struct Metrics(String);

impl Metrics {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# HELP fortnight_{name} {help}\n# TYPE fortnight_{name} {kind}\n");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        let _ = writeln!(self.0, "fortnight_{name} {value}");
    }

    fn line(&mut self, name: &str, value: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "fortnight_{name} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        let _ = writeln!(self.0, "fortnight_{name} {value}");
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(histogram.counts()) {
            below += count;
            self.line(&format!("{name}_bucket{{le=\"{}\"}}", *bound as f64 / SECOND as f64), below);
        }
        self.line(&format!("{name}_bucket{{le=\"+Inf\"}}"), histogram.count());
        self.line(&format!("{name}_sum"), Seconds(histogram.sum()));
        self.line(&format!("{name}_count"), histogram.count());
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: [(impl Display, impl Display); N],
    ) {
        self.head(name, "counter", help);
        for (label_value, value) in values {
            let _ = writeln!(self.0, "fortnight_{name}{{{label}=\"{label_value}\"}} {value}");
        }
    }
}

/// A time in seconds, exactly.
struct Seconds(Micros);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / SECOND, self.0 % SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact() {
        assert_eq!(Seconds(0).to_string(), "0.000000");
        assert_eq!(Seconds(61_000_042).to_string(), "61.000042");
    }
}
