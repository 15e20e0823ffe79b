//! The server's answers, and the time of each.

use super::order::Order;
use crate::latency::quantile;
use serde::Deserialize;
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

/// The present.
const STATUS: &str = "/status.json";
/// The last minutes.
pub(super) const HISTORY: &str = "/history.json";
/// After a silence of this length the server is asked for the last minutes again.
const SILENCE: Duration = Duration::from_secs(3);
/// The time that percentiles are of.
const MINUTE_US: u64 = 60_000_000;
/// How long samples are kept.
const KEPT_US: u64 = 600_000_000;
/// What has happened within this time has happened of late: a single line that is rejected does not flicker.
const LATELY_US: u64 = 10_000_000;

/// The contents of `/status.json`. Times are in microseconds, large numbers are text.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) now_us: u64,
    pub(super) health: String,
    pub(super) cursor: String,
    pub(super) waiting: u64,
    pub(super) capacity: u64,
    pub(super) hole: Option<Hole>,
    pub(super) received: u64,
    pub(super) released: HashMap<String, u64>,
    pub(super) late: u64,
    pub(super) duplicate: u64,
    pub(super) rejected: HashMap<String, u64>,
    pub(super) skipped: String,
    pub(super) deliveries: u64,
    pub(super) delivered_bytes: u64,
    pub(super) buffered_bytes: u64,
    pub(super) users: u64,
    pub(super) catching_up: u64,
    pub(super) farthest_behind: String,
    pub(super) sources: u64,
    pub(super) slow_users: u64,
    pub(super) slow: Vec<SlowUser>,
    pub(super) pauses: Vec<Pause>,
    pub(super) paused_us: HashMap<String, u64>,
    pub(super) disconnected: HashMap<String, u64>,
    pub(super) follow_edges: u64,
    pub(super) journal: Option<Journal>,
    pub(super) stream: Option<Stream>,
    pub(super) latency: Latency,
    pub(super) process: Option<Process>,
    pub(super) memory_bound_bytes: u64,
    pub(super) people: People,
    pub(super) warnings: Vec<Warning>,
    /// Every option by its name; no value: it is not set.
    options: HashMap<String, Option<String>>,
    /// Names of the options that are not defaults.
    changed: Vec<String>,
}

impl Status {
    /// An option in force; empty: it is not set.
    pub(super) fn option(&self, name: &str) -> &str {
        self.options.get(name).and_then(Option::as_deref).unwrap_or_default()
    }

    /// The options in force, with whether they are not defaults: those come first.
    pub(super) fn options(&self) -> Vec<(&str, &str, bool)> {
        let is_changed = |name: &str| self.changed.iter().any(|changed| changed == name);
        let mut options: Vec<_> =
            self.options.keys().map(|name| (name.as_str(), self.option(name), is_changed(name))).collect();
        options.sort_by_key(|&(name, _, changed)| (!changed, name));
        options
    }
}

/// A line of the log.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Warning {
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
    pub(super) level: String,
    pub(super) text: String,
}

/// How often what took how long, since the start.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Latency {
    delivery: Times,
    reorder: Times,
    turn: Times,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Times {
    counts: Vec<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Process {
    pub(super) cpu_us: u64,
    pub(super) resident_bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct People {
    pub(super) sources: Vec<SourceRow>,
    pub(super) users: Vec<UserRow>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct SourceRow {
    pub(super) peer: String,
    pub(super) name: Option<String>,
    pub(super) age_us: u64,
    pub(super) silent_for_us: Option<u64>,
    pub(super) lines: u64,
    pub(super) line_rate: u64,
    pub(super) waits_with: Option<String>,
    pub(super) has_finished: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct UserRow {
    pub(super) id: Option<String>,
    pub(super) peer: String,
    pub(super) age_us: u64,
    pub(super) bytes: u64,
    pub(super) byte_rate: u64,
    pub(super) waiting_bytes: u64,
    pub(super) behind: Option<String>,
    pub(super) is_slow: bool,
}

/// A time that is measured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timed {
    /// From an event's arrival to its being handed to its users.
    Delivery,
    /// Of events that had to wait for missing ones.
    Reorder,
    /// A turn of the loop.
    Turn,
}

impl Timed {
    fn of(self, latency: &Latency) -> &[u64] {
        match self {
            Self::Delivery => &latency.delivery.counts,
            Self::Reorder => &latency.reorder.counts,
            Self::Turn => &latency.turn.counts,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Stream {
    pub(super) address: String,
    /// Whether this sequencer leads; `None`: it is an edge.
    pub(super) leads: Option<bool>,
    pub(super) term: Option<u64>,
    pub(super) lag_us: Option<u64>,
    /// For how long the stream has been away; `None`: it is there.
    pub(super) away_for_us: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Journal {
    pub(super) durable_cursor: String,
    pub(super) bytes: u64,
    pub(super) sync_lag_us: u64,
    /// Why it cannot be written; empty: it can.
    pub(super) stall: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Hole {
    pub(super) waited_us: u64,
    pub(super) given_up_in_us: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct SlowUser {
    pub(super) id: String,
    pub(super) buffered_bytes: u64,
    pub(super) slow_for_us: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pause {
    pub(super) reason: String,
    pub(super) sources: u64,
    pub(super) paused_for_us: u64,
}

/// Counts at a moment: microseconds, events released, deliveries.
type Sample = [u64; 3];
/// The same as the server tells it, with two percentiles.
type Told = (u64, u64, u64, Option<u64>, Option<u64>);

/// A count that has a rate.
#[derive(Clone, Copy, Debug)]
pub(super) enum Series {
    Released = 1,
    Deliveries = 2,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Model {
    /// The server that is asked.
    pub(super) url: String,
    /// The last answer of the server.
    pub(super) status: Option<Status>,
    /// What it said about a second before that.
    before: Option<Status>,
    /// When it was heard last.
    pub(super) heard_at: Option<Instant>,
    /// Why there was no answer since.
    pub(super) failure: Option<String>,
    samples: VecDeque<Sample>,
    /// The time until delivery that 99 % did not take longer than, in microseconds, of the second that ended at a time.
    delays: VecDeque<(u64, u64)>,
    has_history: bool,
    /// What the histograms were in the last minute, for percentiles of that time.
    latencies: VecDeque<(u64, Latency)>,
    /// The answers of the last seconds, oldest first.
    recent: VecDeque<Status>,
    pub(super) shown: Shown,
    pub(super) order: Order,
    /// What would be last stands first.
    pub(super) is_reversed: bool,
}

/// What the screen shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shown {
    #[default]
    Numbers,
    /// Who is connected.
    People,
    /// The options in force and recent warnings.
    Options,
}

impl Model {
    pub(super) fn new(url: String) -> Self {
        Self { url, ..Self::default() }
    }

    /// Shows this, or the numbers again.
    pub(super) fn show(&mut self, what: Shown) {
        self.shown = if self.shown == what { Shown::Numbers } else { what };
    }

    /// Sorts by this. If the tables are sorted by it already: the other way round.
    pub(super) fn sort_by(&mut self, order: Order) {
        self.is_reversed = order == self.order && !self.is_reversed;
        self.order = order;
    }

    /// The next request.
    pub(super) fn next_question(&self) -> &'static str {
        if self.has_history { STATUS } else { HISTORY }
    }

    /// Takes in an answer, or notes that there was none.
    pub(super) fn take(&mut self, path: &str, outcome: Result<Vec<u8>, String>, now: Instant) {
        let taken = outcome.and_then(|body| {
            let read = if path == HISTORY { self.read_history(&body) } else { self.read_status(&body) };
            read.map_err(|_| "what answers is no admin interface of this version".to_owned())
        });
        match taken {
            Ok(()) if path == HISTORY => {}
            Ok(()) => {
                self.heard_at = Some(now);
                self.failure = None;
            }
            Err(failure) => {
                self.failure = Some(failure);
                self.has_history &= self.heard_at.is_some_and(|at| now - at < SILENCE);
            }
        }
    }

    fn read_history(&mut self, body: &[u8]) -> serde_json::Result<()> {
        let told: Vec<Told> = serde_json::from_slice(body)?;
        self.delays = told.iter().filter_map(|&(at, .., p99)| Some((at, p99?))).collect();
        self.samples =
            told.into_iter().map(|(at, released, deliveries, ..)| [at, released, deliveries]).collect();
        self.has_history = true;
        Ok(())
    }

    fn read_status(&mut self, body: &[u8]) -> serde_json::Result<()> {
        let status: Status = serde_json::from_slice(body)?;
        let sample = [status.now_us, status.released.values().sum(), status.deliveries];
        match self.samples.back() {
            // Another server by now.
            Some(last) if sample[0] < last[0] => self.samples.clear(),
            // Too close to tell a rate.
            Some(last) if sample[0] - last[0] < 500_000 && self.samples.len() > 1 => {
                self.samples.pop_back();
            }
            _ => {}
        }
        self.samples.push_back(sample);
        while self.samples.get(1).is_some_and(|second| second[0] + KEPT_US < sample[0]) {
            self.samples.pop_front();
        }
        if self.latencies.back().is_some_and(|&(at, _)| at > status.now_us) {
            self.latencies.clear();
            self.recent.clear();
            self.delays.clear();
        }
        self.note_delay(&status);
        self.latencies.push_back((status.now_us, status.latency.clone()));
        while self.latencies.get(1).is_some_and(|&(at, _)| at + MINUTE_US < status.now_us) {
            self.latencies.pop_front();
        }
        match self.status.take() {
            // Too close to tell how fast totals grow.
            Some(last) if self.before.is_some() && status.now_us.abs_diff(last.now_us) < 500_000 => {}
            last => self.before = last.filter(|last| last.now_us < status.now_us),
        }
        self.recent.push_back(status.clone());
        while self.recent.front().is_some_and(|first| first.now_us + LATELY_US < status.now_us) {
            self.recent.pop_front();
        }
        self.status = Some(status);
        Ok(())
    }

    /// Notes how long deliveries took since the last answer.
    fn note_delay(&mut self, status: &Status) {
        let Some((_, before)) = self.latencies.back() else { return };
        let of = |latency: &Latency| latency.delivery.counts.clone();
        if let Some(p99) = quantile(&of(&status.latency), &of(before), 0.99) {
            self.delays.push_back((status.now_us, p99));
        }
        while self.delays.front().is_some_and(|&(at, _)| at + KEPT_US < status.now_us) {
            self.delays.pop_front();
        }
    }

    /// How much a total has grown in the last seconds.
    pub(super) fn lately(&self, total: impl Fn(&Status) -> u64) -> u64 {
        match (self.recent.front(), &self.status) {
            (Some(first), Some(status)) => total(status).saturating_sub(total(first)),
            _ => 0,
        }
    }

    /// The time that a part of what was measured in the last minute did not take longer than.
    pub(super) fn quantile(&self, what: Timed, part: f64) -> Option<Duration> {
        let now = self.status.as_ref()?;
        // At the first answer: since the start of the server.
        let before = if self.latencies.len() > 1 { self.latencies.front() } else { None };
        let before = before.map_or(&[][..], |(_, latency)| what.of(latency));
        quantile(what.of(&now.latency), before, part).map(Duration::from_micros)
    }

    /// How much of a core the server takes now, where that is known.
    pub(super) fn busy(&self) -> Option<f64> {
        let (status, before) = (self.status.as_ref()?, self.before.as_ref()?);
        let spent = status.process.as_ref()?.cpu_us.saturating_sub(before.process.as_ref()?.cpu_us);
        Some(spent as f64 / status.now_us.saturating_sub(before.now_us).max(1) as f64)
    }

    /// The rate per second between the last two samples.
    pub(super) fn rate(&self, series: Series) -> f64 {
        let count = self.samples.len();
        if count < 2 { 0.0 } else { slope(self.samples[count - 2], self.samples[count - 1], series) }
    }

    /// The rate per second in the last seconds, or in as many of them as are known.
    pub(super) fn mean(&self, series: Series, seconds: u64) -> Option<f64> {
        let last = *self.samples.back()?;
        let from = last[0].saturating_sub(seconds * 1_000_000);
        let first =
            self.samples.iter().find(|sample| sample[0] >= from).filter(|first| first[0] < last[0])?;
        Some(slope(*first, last, series))
    }

    /// The time until delivery, in microseconds, that 99 % did not take longer than in each of the last seconds, oldest first; `None`
    /// where nothing was delivered.
    pub(super) fn delays(&self, seconds: usize) -> Vec<Option<u64>> {
        let end = self.samples.back().map_or(0, |last| last[0]);
        let mut delays = vec![None; seconds];
        for &(at, p99) in &self.delays {
            let ago = end.saturating_sub(at) / 1_000_000;
            if let Some(place) = seconds.checked_sub(1 + ago as usize) {
                delays[place] = delays[place].max(Some(p99));
            }
        }
        delays
    }

    /// How fast a total grows now, per second.
    pub(super) fn pace(&self, total: impl Fn(&Status) -> u128) -> f64 {
        let (Some(status), Some(before)) = (&self.status, &self.before) else { return 0.0 };
        let grown = total(status).saturating_sub(total(before));
        grown as f64 * 1e6 / status.now_us.saturating_sub(before.now_us).max(1) as f64
    }

    /// The rate in each of the last `seconds` seconds, oldest first; `None` where nothing is known.
    pub(super) fn rates(&self, series: Series, seconds: usize) -> Vec<Option<u64>> {
        let end = self.samples.back().map_or(0, |last| last[0]);
        let mut later = self.samples.len();
        let mut rates: Vec<_> = (0..seconds as u64)
            .map(|ago| {
                let at = end.checked_sub(ago * 1_000_000 + 500_000)?;
                while later > 0 && self.samples[later - 1][0] > at {
                    later -= 1;
                }
                let (from, to) = (later.checked_sub(1)?, later);
                Some(slope(self.samples[from], *self.samples.get(to)?, series).round() as u64)
            })
            .collect();
        rates.reverse();
        rates
    }
}

fn slope(from: Sample, to: Sample, series: Series) -> f64 {
    let count = to[series as usize].saturating_sub(from[series as usize]);
    count as f64 * 1e6 / (to[0] - from[0]).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_slopes_per_second() {
        let mut model = Model::new(String::new());
        model
            .read_history(b"[[0,0,0,null,null],[1000000,10,20,1,2],[2000000,30,60,1,2],[5000000,30,60,1,2],[6000000,31,62,1,2]]")
            .unwrap();
        assert_eq!(model.rate(Series::Released), 1.0);
        let known = [10, 20, 0, 0, 0, 1].map(Some);
        assert_eq!(model.rates(Series::Released, 6), known);
        assert_eq!(model.rates(Series::Deliveries, 8)[..3], [None, None, Some(20)]);
    }

    #[test]
    fn without_samples_nothing_is_known() {
        let model = Model::new(String::new());
        assert_eq!(model.rates(Series::Released, 2), [None, None]);
        assert_eq!(model.rate(Series::Released), 0.0);
    }

    #[test]
    fn after_a_silence_the_history_is_asked_for() {
        let mut model = Model::new(String::new());
        let start = Instant::now();
        assert_eq!(model.next_question(), HISTORY);
        model.take(HISTORY, Ok(b"[[0,0,0,null,null]]".to_vec()), start);
        assert_eq!(model.next_question(), STATUS);
        model.take(STATUS, Ok(b"{}".to_vec()), start);
        assert!(model.failure.as_ref().is_some_and(|failure| failure.contains("no admin interface")));
        assert_eq!(model.next_question(), HISTORY);
    }
}
