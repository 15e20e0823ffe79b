//! The layout of the screen. Colours are the terminal's own, so that they fit dark and light ones.

use super::{
    model::{Model, Pause, Series, Shown, Status, Stream, Timed},
    options,
    order::ORDERS,
    people,
    verdict::{ORDINARY_US, TROUBLE_US, Verdict},
};
use crate::{
    admin::Health,
    cli::format::{brief, bytes, grouped, rate, span},
    counters::DisconnectReason,
    engine::event::{Kind, Reject},
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    symbols::border,
    text::{Line, Span},
    widgets::{Block, Paragraph, Sparkline, Wrap},
};
use std::time::{Duration, Instant};

/// From this width on there is room for blocks next to each other.
const WIDE: u16 = 76;

/// What stands before the remedy.
const TO_DO: &str = "What to do: ";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, now: Instant) {
    let verdict = Verdict::of(model, now);
    let width = usize::from(frame.area().width);
    let rows = rows(&verdict.what, width)
        + rows(&verdict.cause, width)
        + rows(&format!("{TO_DO}{}", verdict.remedy), width) * usize::from(!verdict.remedy.is_empty());
    let [head, state, times, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(rows as u16),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, model);
    frame.render_widget(lines_of(&verdict), state);
    frame.render_widget(keys(model), foot);
    let Some(status) = &model.status else { return };
    frame.render_widget(times_of(model, status), times);
    match model.shown {
        Shown::People => people::draw(frame, body, model, status),
        Shown::Options => options::draw(frame, body, status),
        Shown::Numbers if body.width >= WIDE => draw_wide(frame, body, model, status),
        Shown::Numbers => draw_narrow(frame, body, model, status),
    }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let (health, colour) = match (&model.failure, &model.status) {
        (Some(_), _) => ("no answer", Color::Red),
        (None, None) => ("connecting", Color::Reset),
        (None, Some(status)) if status.health == Health::Ok.sentence() => ("healthy", Color::Green),
        (None, Some(status)) => (status.health.as_str(), Color::Red),
    };
    let mut parts = vec![
        "Fortnight ".bold(),
        Span::raw(format!("{} ", model.url)),
        Span::styled(format!("● {health}"), Style::new().fg(colour).bold()),
    ];
    if let Some(status) = &model.status {
        if let Some(stream) = &status.stream {
            parts.push(place_of(stream));
        }
        parts.push(format!("  up {}  version {}", span(micros(status.now_us)), status.version).dim());
    }
    frame.render_widget(Line::from(parts), area);
}

/// The keys that do something now.
fn keys(model: &Model) -> Line<'static> {
    let named = |key: &str, name: &str, is_on: bool| {
        let name = Span::raw(format!(" {name}  "));
        [Span::raw(key.to_owned()).bold(), if is_on { name.reversed() } else { name.dim() }]
    };
    let mut parts = Vec::new();
    parts.extend(named("q", "quit", false));
    parts.extend(named("c", "connections", model.shown == Shown::People));
    parts.extend(named("o", "options, warnings", model.shown == Shown::Options));
    if model.shown == Shown::People {
        parts.push("sort (again: reverse): ".dim());
        for (order, key, name) in ORDERS {
            parts.extend(named(&key.to_string(), name, order == model.order));
        }
    }
    Line::from(parts)
}

/// One sentence on how it is going, its cause, and what to do.
fn lines_of(verdict: &Verdict) -> Paragraph<'static> {
    let what = Span::styled(verdict.what.clone(), Style::new().fg(verdict.colour).bold());
    let mut lines = vec![Line::from(what)];
    lines.extend((!verdict.cause.is_empty()).then(|| Line::from(verdict.cause.clone())));
    let remedy = || Line::from(vec![TO_DO.bold(), Span::raw(verdict.remedy.clone())]);
    lines.extend((!verdict.remedy.is_empty()).then(remedy));
    Paragraph::new(lines).wrap(Wrap { trim: true })
}

/// Rows that a text needs where lines end between words.
fn rows(text: &str, width: usize) -> usize {
    let (mut rows, mut used) = (0, width);
    for word in text.split_whitespace().map(|word| word.chars().count()) {
        if used + 1 + word > width {
            (rows, used) = (rows + word.div_ceil(width.max(1)).max(1), word);
        } else {
            used += 1 + word;
        }
    }
    rows
}

/// The role of a server that is one of several.
fn place_of(stream: &Stream) -> Span<'static> {
    let role = match stream.leads {
        None => "edge",
        Some(true) => "leader",
        Some(false) => "standby",
    };
    let term = stream.term.map_or_else(String::new, |term| format!(", term {term}"));
    let lag = match (stream.away_for_us, stream.lag_us) {
        (Some(away), _) => format!(", stream away for {}", span(micros(away))),
        (None, Some(lag)) => format!(", lag {}", span(micros(lag))),
        (None, None) => String::new(),
    };
    Span::raw(format!("  {role}{term}{lag}"))
}

/// Percentiles of the last minute, and what the server takes.
fn times_of(model: &Model, status: &Status) -> Line<'static> {
    let mut parts = Vec::new();
    let named =
        [(Timed::Delivery, "Delivery"), (Timed::Reorder, "Waiting for missing ones"), (Timed::Turn, "Turn")];
    for (what, name) in named {
        if let (Some(half), Some(most)) = (model.quantile(what, 0.5), model.quantile(what, 0.99)) {
            parts.push(Span::raw(format!("{name} ")));
            parts.push(format!("{} ", brief(half)).bold());
            parts.push("99% ".dim());
            parts.push(format!("{}  ", brief(most)).bold());
        }
    }
    if let Some(process) = &status.process {
        if let Some(busy) = model.busy() {
            parts.push(Span::raw("Busy "));
            parts.push(format!("{:.0}%  ", busy * 100.0).bold());
        }
        parts.push(Span::raw("Memory "));
        parts.push(bytes(process.resident_bytes).bold());
        parts.push(format!(" of {}", bytes(status.memory_bound_bytes)).dim());
    }
    Line::from(parts)
}

fn draw_wide(frame: &mut Frame<'_>, area: Rect, model: &Model, status: &Status) {
    let numbers = [order(model, status), users(model, status), sources(model, status)];
    let counts = [released(model, status), disconnected(model, status), rejected(model, status)];
    let height = |blocks: &[(&str, Vec<Row>); 3]| {
        let rows = blocks.iter().map(|(_, rows)| rows.len()).max().unwrap_or(0);
        Constraint::Length(rows as u16 + 2)
    };
    let [charts, above, below] =
        Layout::vertical([Constraint::Min(4), height(&numbers), height(&counts)]).areas(area);
    let [released, deliveries, delays] = thirds(charts);
    draw_chart(frame, released, model, Series::Released);
    draw_chart(frame, deliveries, model, Series::Deliveries);
    draw_delays(frame, delays, model);
    for (area, blocks) in [(above, numbers), (below, counts)] {
        for (area, (title, rows)) in thirds(area).into_iter().zip(blocks) {
            draw_rows(frame, area, title, rows);
        }
    }
}

fn draw_narrow(frame: &mut Frame<'_>, area: Rect, model: &Model, status: &Status) {
    let [first, second, mut rest] =
        Layout::vertical([Constraint::Length(5), Constraint::Length(5), Constraint::Fill(1)]).areas(area);
    draw_chart(frame, first, model, Series::Released);
    draw_chart(frame, second, model, Series::Deliveries);
    let blocks = [
        order(model, status),
        users(model, status),
        sources(model, status),
        released(model, status),
        disconnected(model, status),
        rejected(model, status),
    ];
    for (title, rows) in blocks {
        let [area, below] =
            Layout::vertical([Constraint::Length(rows.len() as u16 + 2), Constraint::Fill(1)]).areas(rest);
        draw_rows(frame, area, title, rows);
        rest = below;
    }
}

fn thirds(area: Rect) -> [Rect; 3] {
    Layout::horizontal([Constraint::Fill(1); 3]).areas(area)
}

fn block(title: impl Into<Line<'static>>) -> Block<'static> {
    Block::bordered().border_set(border::ROUNDED).border_style(Style::new().dim()).title(title)
}

fn draw_chart(frame: &mut Frame<'_>, area: Rect, model: &Model, series: Series) {
    let (name, colour) = match series {
        Series::Released => ("Events", Color::Blue),
        Series::Deliveries => ("Deliveries", Color::Cyan),
    };
    let rates = model.rates(series, usize::from(area.width.saturating_sub(2)));
    let now = format!("{}/s", rate(model.rate(series)));
    let known = |minutes: u64| Some(format!("{minutes} min {}", rate(model.mean(series, 60 * minutes)?)));
    let means: Vec<String> = [1, 5].into_iter().filter_map(known).collect();
    let most = rates.iter().copied().flatten().max().unwrap_or(0).max(1);
    draw_bars(frame, area, (name, now, means.join(", ")), (rates, most), colour);
}

/// The time until delivery: where it is ten times as long, a bar is higher by a fixed part.
fn draw_delays(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let delays = model.delays(usize::from(area.width.saturating_sub(2)));
    let told = |delay: Option<u64>| delay.map_or_else(|| "–".to_owned(), |delay| brief(micros(delay)));
    // The last second may not be over.
    let last = told(delays.iter().rev().take(2).copied().flatten().next());
    let most = format!("at most {}", told(delays.iter().copied().flatten().max()));
    let bars =
        delays.into_iter().map(|delay| Some((f64::from(delay? as u32).max(1.0).log10() * 100.0) as u64));
    // The highest bar is a delay of ten seconds.
    draw_bars(frame, area, ("Delay, 99 %", last, most), (bars.collect(), 700), Color::Magenta);
}

/// A chart with its name, its value now, and what is to be said below.
fn draw_bars(
    frame: &mut Frame<'_>,
    area: Rect,
    (name, now, below): (&'static str, String, String),
    (bars, most): (Vec<Option<u64>>, u64),
    colour: Color,
) {
    let title = Line::from(vec![
        Span::raw(format!(" {name} ")),
        Span::styled(format!("{now} "), Style::new().fg(colour).bold()),
    ]);
    let chart = Sparkline::default()
        .block(block(title).title_bottom(Line::from(format!(" {below} ")).dim().right_aligned()))
        .data(bars)
        .max(most)
        .style(Style::new().fg(colour))
        .absent_value_style(Style::new().add_modifier(Modifier::DIM));
    frame.render_widget(chart, area);
}

/// A line of a block.
#[derive(Debug)]
struct Row {
    name: String,
    value: String,
    /// How fast the value grows, where it is a total that grows. It is left out where there is no room.
    pace: String,
    /// The value is a reason to worry.
    worrying: bool,
}

impl Row {
    fn new(name: impl Into<String>, value: impl Into<String>, worrying: bool) -> Self {
        Self { name: name.into(), value: value.into(), pace: String::new(), worrying }
    }

    fn count(name: &str, value: &impl ToString) -> Self {
        Self::new(name, grouped(value), false)
    }

    /// A total, and how fast it grows.
    fn total(name: &str, model: &Model, status: &Status, of: impl Fn(&Status) -> u128) -> Self {
        Self::count(name, &of(status)).with_pace(model.pace(of))
    }

    fn with_pace(mut self, pace: f64) -> Self {
        if pace > 0.0 {
            self.pace = format!(" {}/s", rate(pace));
        }
        self
    }

    /// A zero says nothing.
    fn is_zero(&self) -> bool {
        ["0", "0 B", "0.0 s"].contains(&self.value.as_str())
    }

    /// Of what should not happen at all: it is a reason to worry while it goes on.
    fn bad(mut self) -> Self {
        self.worrying |= !self.pace.is_empty();
        self
    }
}

fn draw_rows(frame: &mut Frame<'_>, area: Rect, title: &'static str, rows: Vec<Row>) {
    let inner = usize::from(area.width.saturating_sub(2));
    let lines: Vec<Line<'_>> = rows
        .into_iter()
        .map(|Row { name, value, pace, worrying }| {
            let style = if worrying { Style::new().fg(Color::Yellow).bold() } else { Style::new().bold() };
            if value.is_empty() {
                return Line::from(Span::styled(name, style));
            }
            let room = inner.saturating_sub(name.chars().count() + value.chars().count());
            let pace = if room > pace.len() { pace } else { String::new() };
            let gap = " ".repeat((room - pace.len().min(room)).max(1));
            Line::from(vec![Span::raw(name), Span::raw(gap), Span::styled(value, style), pace.dim()])
        })
        .collect();
    frame.render_widget(
        Paragraph::new(lines).wrap(Wrap { trim: true }).block(block(format!(" {title} "))),
        area,
    );
}

fn or_nobody(count: u64) -> String {
    if count == 0 { "nobody".to_owned() } else { grouped(&count) }
}

fn micros(time: u64) -> Duration {
    Duration::from_micros(time)
}

/// Without the totals that are zero.
fn told(title: &'static str, mut rows: Vec<Row>, if_none: &str) -> (&'static str, Vec<Row>) {
    rows.retain(|row| !row.is_zero());
    if rows.is_empty() {
        rows.push(Row::new(if_none, "", false));
    }
    (title, rows)
}

fn order(model: &Model, status: &Status) -> (&'static str, Vec<Row>) {
    let hole = status.hole.as_ref().map_or_else(
        || Row::new("Nothing is missing.", "", false),
        |hole| {
            let is_trouble = hole.waited_us > TROUBLE_US;
            let end =
                hole.given_up_in_us.map_or(String::new(), |left| format!(", {} left", span(micros(left))));
            Row::new("Missing for", format!("{}{end}", span(micros(hole.waited_us))), is_trouble)
        },
    );
    let fill = format!("{} of {}", grouped(&status.waiting), grouped(&status.capacity));
    let durable = status.journal.as_ref().map(|journal| {
        let lag = span(micros(journal.sync_lag_us));
        let said = if journal.stall.is_empty() { lag } else { "full disk".to_owned() };
        let value = format!("{}, {said}, {}", grouped(&journal.durable_cursor), bytes(journal.bytes));
        Row::new("Durable", value, !journal.stall.is_empty())
    });
    let mut rows = vec![
        Row::count("Cursor", &status.cursor),
        hole,
        Row::new("Waiting", fill, status.waiting * 5 > status.capacity * 4),
        Row::total("Skipped", model, status, |status| status.skipped.parse().unwrap_or_default()).bad(),
        Row::total("Late", model, status, |status| status.late.into()).bad(),
        Row::total("Duplicate", model, status, |status| status.duplicate.into()),
    ];
    if let Some(durable) = durable {
        rows.insert(1, durable);
    }
    told("Order", rows, "")
}

fn users(model: &Model, status: &Status) -> (&'static str, Vec<Row>) {
    let slow = status.slow.first().map_or_else(
        || Row::new("All keep up.", "", false),
        |user| {
            let what = format!("{} for {}", bytes(user.buffered_bytes), span(micros(user.slow_for_us)));
            Row::new(format!("User {}", user.id), what, user.slow_for_us > ORDINARY_US)
        },
    );
    let farthest = format!("farthest {}", grouped(&status.farthest_behind));
    let catching_up = Row::new(format!("{} catch up", grouped(&status.catching_up)), farthest, false);
    let delivered = model.pace(|status| status.delivered_bytes.into());
    let mut delivered_bytes = Row::new("Bytes delivered", bytes(status.delivered_bytes), false);
    if delivered > 0.0 {
        delivered_bytes.pace = format!(" {}/s", bytes(delivered as u64));
    }
    let rows = vec![
        Row::new("Connected", or_nobody(status.users), false),
        Row::new("Slow", grouped(&status.slow_users), false),
        if status.catching_up > 0 { catching_up } else { slow },
        Row::new("Bytes waiting", bytes(status.buffered_bytes), false),
        Row::total("Deliveries", model, status, |status| status.deliveries.into()),
        delivered_bytes,
    ];
    told("Users", rows, "")
}

fn sources(model: &Model, status: &Status) -> (&'static str, Vec<Row>) {
    let total = |reason: &str| status.paused_us.get(reason).copied().unwrap_or_default();
    let paused = |name: &str, reason: &str| Row::new(name, span(micros(total(reason))), false);
    let now = status.pauses.first().map_or_else(
        || Row::new(if status.sources > 0 { "All are read." } else { "Nobody sends." }, "", false),
        |Pause { reason, sources, paused_for_us }| {
            let why = match reason.as_str() {
                "slow_user" => "slow users",
                "journal" => "journal",
                "ring_full" => "full ring",
                other => other,
            };
            let what = format!("{sources} paused: {why}");
            Row::new(what, span(micros(*paused_for_us)), *paused_for_us > ORDINARY_US)
        },
    );
    let rows = vec![
        Row::new("Connected", or_nobody(status.sources), false),
        now,
        Row::total("Received", model, status, |status| status.received.into()),
        paused("Slow users, in all", "slow_user"),
        paused("Full ring, in all", "ring_full"),
        paused("Journal, in all", "journal"),
        Row::count("Follow edges", &status.follow_edges),
    ];
    told("Event sources", rows, "")
}

fn released(model: &Model, status: &Status) -> (&'static str, Vec<Row>) {
    let rows = Kind::EVENTS.iter().map(|(kind, letter)| {
        let letter = letter.to_string();
        let count = |status: &Status| status.released.get(&letter).copied().unwrap_or_default().into();
        Row::total(&format!("{kind:?}"), model, status, count)
    });
    told("Released", rows.collect(), "Nothing yet.")
}

fn disconnected(model: &Model, status: &Status) -> (&'static str, Vec<Row>) {
    let rows = DisconnectReason::ALL.iter().map(|end| {
        let count = |status: &Status| status.disconnected.get(end.name()).copied().unwrap_or_default().into();
        Row::total(&end.name().replace('_', " "), model, status, count)
    });
    told("Disconnected", rows.collect(), "Nobody.")
}

fn rejected(model: &Model, status: &Status) -> (&'static str, Vec<Row>) {
    let rows = Reject::ALL.iter().map(|reason| {
        let count = |status: &Status| status.rejected.get(reason.name()).copied().unwrap_or_default().into();
        Row::total(&reason.name().replace('_', " "), model, status, count).bad()
    });
    told("Rejected lines", rows.collect(), "None.")
}

#[cfg(test)]
mod tests;
