//! The outcome of a replay.

use super::{
    stream::{Content, Shown, Stream},
    text::escaped,
};
use crate::{
    counters::{Counters, DisconnectReason},
    engine::event::{Kind, Reject},
    sequence::{Cursor, SequenceNumber},
    time::Micros,
};
use std::fmt;

/// The bytes that each user received, and the counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The connections on the user port, in the order in which they came, and behind them the sources that were sent something.
    pub streams: Vec<Stream>,
    /// Counters by name, without those that are zero.
    pub counters: Vec<(String, u64)>,
}

impl Outcome {
    /// A counter's value.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.iter().find(|(known, _)| known == name).map_or(0, |&(_, value)| value)
    }
}

/// The counters that depend on the trace alone. The number of turns does not: the server may need more or fewer.
pub(super) fn named(counters: &Counters) -> Vec<(String, u64)> {
    let Counters {
        events_received,
        events_released,
        events_late,
        events_duplicate,
        events_rejected,
        sequence_skipped,
        deliveries,
        delivered_bytes,
        sources_rejected,
        users_rejected,
        users_disconnected,
        resumed_ok,
        resumed_gone,
        resumed_epoch,
        paused_slow_user,
        paused_ring_full,
        paused_journal: _,
        paused_stream: _,
        admin_rejected: _,
        streams_rejected: _,
        stream_away: _,
        loop_turns: _,
    } = counters;
    let mut named = vec![("events_received".to_owned(), *events_received)];
    for (kind, letter) in Kind::EVENTS {
        named.push((format!("events_released_{letter}"), events_released[kind as usize]));
    }
    named.push(("events_late".to_owned(), *events_late));
    named.push(("events_duplicate".to_owned(), *events_duplicate));
    for reason in Reject::ALL {
        named.push((format!("events_rejected_{}", reason.name()), events_rejected[reason as usize]));
    }
    named.push(("sequence_skipped".to_owned(), *sequence_skipped));
    named.push(("deliveries".to_owned(), *deliveries));
    named.push(("delivered_bytes".to_owned(), *delivered_bytes));
    named.push(("sources_rejected".to_owned(), *sources_rejected));
    named.push(("users_rejected".to_owned(), *users_rejected));
    for reason in DisconnectReason::ALL {
        named.push((format!("users_disconnected_{}", reason.name()), users_disconnected[reason as usize]));
    }
    named.push(("resumed_ok".to_owned(), *resumed_ok));
    named.push(("resumed_gone".to_owned(), *resumed_gone));
    named.push(("resumed_epoch".to_owned(), *resumed_epoch));
    named.push(("paused_us_slow_user".to_owned(), *paused_slow_user));
    named.push(("paused_us_ring_full".to_owned(), *paused_ring_full));
    named.retain(|(_, value)| *value != 0);
    named
}

/// The report of `fortnight replay`.
pub(crate) struct Report<'a> {
    pub(crate) name: &'a str,
    pub(crate) outcome: &'a Outcome,
    pub(crate) time: Micros,
    /// Whose lines are printed, in place of digests and counters.
    pub(crate) shown: Option<Shown>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, outcome, time, shown } = self;
        writeln!(
            f,
            "{name}: {} events, {} deliveries to {} users in {}.{:06} s of virtual time",
            outcome.counter("events_received"),
            outcome.counter("deliveries"),
            outcome.streams.iter().filter(|stream| !stream.is_source).count(),
            time / 1_000_000,
            time % 1_000_000,
        )?;
        for stream in &outcome.streams {
            if !shown.is_none_or(|shown| shown.includes(stream.user, stream.id)) {
                continue;
            }
            writeln!(f, "  {}", StreamHead(stream))?;
            if let (Some(_), Content::Lines(lines)) = (shown, &stream.content) {
                for (at, line) in lines {
                    let time = format!("{}.{:06}", at / 1_000_000, at % 1_000_000);
                    writeln!(f, "{time:>16}  {}", escaped(line))?;
                }
            }
        }
        if shown.is_some() {
            return Ok(());
        }
        write!(f, "  counters")?;
        for (name, value) in &outcome.counters {
            write!(f, " {name}={value}")?;
        }
        writeln!(f)
    }
}

/// The line that begins a stream in an expectation, and all of it in a report.
pub(super) struct StreamHead<'a>(pub(super) &'a Stream);

impl fmt::Display for StreamHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stream { is_source, user, id, end, lines, bytes, digest, content: _ } = self.0;
        if *is_source {
            return write!(f, "source {user} {end} lines {lines} bytes {bytes} digest {digest:016x}");
        }
        write!(f, "user {user} id ")?;
        match id {
            Some(id) => write!(f, "{id}")?,
            None => write!(f, "none")?,
        }
        write!(f, " {end} lines {lines} bytes {bytes} digest {digest:016x}")
    }
}

impl Content {
    /// Sequence numbers as rows of ranges that fit a line each.
    pub(super) fn rows(numbers: &[SequenceNumber]) -> Vec<String> {
        const ROW_CHARACTERS: usize = 96;
        let mut rows: Vec<String> = Vec::new();
        for run in numbers.chunk_by(|&before, &after| Cursor::behind(before) == Cursor::before(after)) {
            let (first, last) = (run[0], run[run.len() - 1]);
            let item = if first == last { format!(" {first}") } else { format!(" {first}-{last}") };
            match rows.last_mut() {
                Some(row) if row.len() + item.len() <= ROW_CHARACTERS => row.push_str(&item),
                _ => rows.push(item),
            }
        }
        rows
    }
}
