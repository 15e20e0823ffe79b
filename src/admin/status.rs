//! `/` and `/status.json`: the numbers for people.

use super::{
    Hole, JournalNumbers, Pause, SlowUser, Snapshot, Stream,
    json::{Object, escaped, list, object, or_null},
    memory, people,
};
use crate::{
    config::Config,
    counters::DisconnectReason,
    engine::event::{Kind, Reject},
    latency::{BOUNDS, Histogram, Latency},
    options,
    process::Process,
    time::SECOND,
    warning::Warning,
};

/// The status page: one file, which needs nothing from anywhere else.
pub(crate) const PAGE: &str = include_str!("status.html");
/// Its media type.
pub(crate) const PAGE_TYPE: &str = "text/html; charset=utf-8";

/// The page's policy: only the script and the style sheet with these SHA-256 sums may run.
const SCRIPT_SHA256: &str = "Im2qYc92dZ13/5R/wBhwjq0mRD5aU/cNwxwMhsorg1E=";
const STYLE_SHA256: &str = "hJnrDVc4v9yalBUaZhG3c31h//jpjRr2nIueHqT92UM=";

/// Headers of the page: what it may do.
#[must_use]
pub(crate) fn page_headers() -> String {
    format!(
        "Content-Security-Policy: default-src 'none'; script-src 'sha256-{SCRIPT_SHA256}'; \
         style-src 'sha256-{STYLE_SHA256}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'\r\nReferrer-Policy: no-referrer\r\n"
    )
}

/// The data of the page and of `fortnight top`, as one JSON object. Times are in microseconds.
/// Numbers that may be above 2^53 are strings, because JavaScript cannot hold them.
#[must_use]
pub(crate) fn json(snapshot: &Snapshot<'_>) -> String {
    let counters = &snapshot.counters;
    let released = Kind::EVENTS.map(|(kind, letter)| (letter, counters.events_released[kind as usize]));
    let rejected = Reject::ALL.map(|reason| (reason.name(), counters.events_rejected[reason as usize]));
    let disconnected =
        DisconnectReason::ALL.map(|end| (end.name(), counters.users_disconnected[end as usize]));
    let mut json = Object::new();
    json.text("version", env!("CARGO_PKG_VERSION"));
    json.field("now_us", snapshot.now);
    json.text("health", snapshot.health.sentence());
    json.text("cursor", snapshot.cursor);
    json.field("waiting", snapshot.waiting);
    json.field("capacity", snapshot.capacity);
    json.field("hole", or_null(snapshot.hole.map(hole)));
    json.field("received", counters.events_received);
    json.field("released", object(&released));
    json.field("late", counters.events_late);
    json.field("duplicate", counters.events_duplicate);
    json.field("rejected", object(&rejected));
    json.text("skipped", counters.sequence_skipped);
    json.field("deliveries", counters.deliveries);
    json.field("delivered_bytes", counters.delivered_bytes);
    json.field("buffered_bytes", snapshot.buffered_bytes);
    json.field("users", snapshot.users);
    json.field("catching_up", snapshot.catching_up);
    json.text("farthest_behind", snapshot.farthest_behind);
    json.field("sources", snapshot.sources);
    json.field("slow_users", snapshot.slow_users);
    json.field("slow", list(&snapshot.slow, slow_user));
    json.field("pauses", list(&snapshot.pauses, pause));
    let paused = [
        ("slow_user", counters.paused_slow_user),
        ("ring_full", counters.paused_ring_full),
        ("journal", counters.paused_journal),
        ("stream", counters.paused_stream),
    ];
    json.field("paused_us", object(&paused));
    json.field("journal", or_null(snapshot.journal.as_ref().map(journal)));
    json.field("disconnected", object(&disconnected));
    json.field("follow_edges", snapshot.follow_edges);
    json.field("turns", counters.loop_turns);
    json.field("latency", latency(snapshot.latency));
    json.field("process", or_null(snapshot.process.as_ref().map(process)));
    json.field("memory_bound_bytes", memory::bound(snapshot.config, snapshot.follow_edges));
    json.field("people", people::people(&snapshot.people));
    json.field("stream", or_null(snapshot.stream.as_ref().map(stream)));
    json.field("warnings", list(&snapshot.warnings, warning));
    json.field("options", in_force(snapshot.config));
    json.field("changed", list(&options::changed(snapshot.config), |(name, _)| format!("\"{name}\"")));
    json.end() + "\n"
}

fn stream(stream: &Stream) -> String {
    let mut json = Object::new();
    json.text("address", escaped(&stream.address));
    json.field("away_for_us", or_null(stream.away_for));
    json.field("lag_us", or_null(stream.lag));
    json.field("leads", or_null(stream.leads));
    json.field("term", or_null(stream.term));
    json.text("cursor", stream.cursor);
    json.end()
}

fn warning(warning: &Warning) -> String {
    let mut json = Object::new();
    json.field("at_ms", warning.at_ms);
    json.text("level", warning.level.as_str().to_ascii_lowercase());
    json.text("text", escaped(&warning.text));
    json.end()
}

/// Every option by the name of its variable, with its value as text, or null.
fn in_force(config: &Config) -> String {
    let mut json = Object::new();
    for (name, value) in options::all(config) {
        match value {
            Some(value) => json.text(name, escaped(&value)),
            None => json.field(name, "null"),
        }
    }
    json.end()
}

/// Histograms: the buckets' bounds, how often each was met since the start, and the sum of all times.
fn latency(latency: &Latency) -> String {
    let numbers = |numbers: &[u64]| list(numbers, u64::to_string);
    let histogram = |histogram: &Histogram| {
        let mut json = Object::new();
        json.field("counts", numbers(histogram.counts()));
        json.field("sum_us", histogram.sum());
        json.end()
    };
    let mut json = Object::new();
    json.field("bounds_us", numbers(&BOUNDS));
    json.field("delivery", histogram(&latency.delivery));
    json.field("reorder", histogram(&latency.reorder));
    json.field("turn", histogram(&latency.turn));
    json.end()
}

fn process(process: &Process) -> String {
    let mut json = Object::new();
    json.field("cpu_us", (process.cpu_seconds * SECOND as f64) as u64);
    json.field("resident_bytes", process.resident_bytes);
    json.field("open_fds", process.open_fds);
    json.field("max_fds", process.max_fds);
    json.end()
}

fn journal(journal: &JournalNumbers) -> String {
    let mut json = Object::new();
    json.text("durable_cursor", journal.durable_cursor);
    json.text("first_sequence", journal.first_sequence);
    json.field("bytes", journal.bytes);
    json.field("appended_bytes", journal.appended_bytes);
    json.field("syncs", journal.syncs);
    json.field("sync_lag_us", journal.sync_lag);
    json.field("recovery_us", journal.recovery);
    json.text("stall", escaped(journal.stall.as_deref().unwrap_or_default()));
    json.end()
}

fn hole(hole: Hole) -> String {
    let mut json = Object::new();
    json.field("waited_us", hole.waited);
    json.field("given_up_in_us", or_null(hole.given_up_in));
    json.end()
}

fn slow_user(user: &SlowUser) -> String {
    let mut json = Object::new();
    json.text("id", user.id);
    json.field("buffered_bytes", user.buffered_bytes);
    json.field("slow_for_us", user.slow_for);
    json.end()
}

fn pause(pause: &Pause) -> String {
    let mut json = Object::new();
    json.text("reason", pause.reason);
    json.field("sources", pause.sources);
    json.field("paused_for_us", pause.paused_for);
    json.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64;
    use sha2::{Digest, Sha256};

    /// The sum of what stands between the tags of the only element of that name.
    fn sum_of(element: &str) -> String {
        let (start, end) = (format!("<{element}>"), format!("</{element}>"));
        assert_eq!((PAGE.matches(&start).count(), PAGE.matches(&end).count()), (1, 1), "{element}");
        let content = PAGE.split(&start).nth(1).and_then(|rest| rest.split(&end).next()).unwrap();
        BASE64.encode(&Sha256::digest(content))
    }

    #[test]
    fn the_policy_names_the_sums_of_the_script_and_the_style_sheet() {
        assert_eq!(SCRIPT_SHA256, sum_of("script"));
        assert_eq!(STYLE_SHA256, sum_of("style"));
    }

    #[test]
    fn the_page_needs_nothing_that_its_policy_forbids() {
        for forbidden in [" style=", " onclick=", " onload=", "javascript:", "eval(", "@import", "url("] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
        // The one address in it names a namespace.
        assert_eq!(PAGE.matches("http").count(), PAGE.matches("http://www.w3.org/2000/svg").count());
    }
}
