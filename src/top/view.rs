//! The layout of the screen. Colours are the terminal's own, so that they fit dark and light ones.

use super::{
    model::{Model, Pause, Series, Status, Stream, Timed},
    people,
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

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, now: Instant) {
    let [head, state, times, body] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, model);
    frame.render_widget(state_of(model, now), state);
    let Some(status) = &model.status else { return };
    frame.render_widget(times_of(model, status), times);
    if model.shows_people {
        people::draw(frame, body, model, status);
    } else if body.width >= WIDE {
        draw_wide(frame, body, model, status);
    } else {
        draw_narrow(frame, body, model, status);
    }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let (health, colour) = match (&model.failure, &model.status) {
        (Some(_), _) => ("no answer", Color::Red),
        (None, None) => ("connecting", Color::Reset),
        (None, Some(status)) if status.health == "ok" => ("healthy", Color::Green),
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
    let hint = Line::from(" c connections, q quits").dim().right_aligned();
    if area.width > 100 {
        frame.render_widget(hint, area);
    }
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

/// One sentence on how it is going, as on the status page.
fn state_of(model: &Model, now: Instant) -> Line<'static> {
    let said =
        |sentence: &'static str, colour| Line::from(Span::styled(sentence, Style::new().fg(colour).bold()));
    if let Some(failure) = &model.failure {
        let since = model.heard_at.map_or_else(
            || ". It is asked again every second.".to_owned(),
            |at| format!(". Last heard of {} ago.", span(now.saturating_duration_since(at))),
        );
        let mut line = said("The server cannot be reached: ", Color::Red);
        line.push_span(Span::raw(failure.clone() + &since));
        return line;
    }
    let Some(status) = &model.status else {
        return Line::from("Asking the server.");
    };
    let flowing = model.rate(Series::Released) > 0.0;
    if status.health == "shutting down" {
        said("The server is shutting down.", Color::Yellow)
    } else if status.health == Health::RingFull.sentence() {
        said("The ring is full, and every source waits for a missing event.", Color::Red)
    } else if status.health != Health::Ok.sentence() {
        let sentence = format!("The server is not healthy: {}.", status.health);
        Line::from(Span::styled(sentence, Style::new().fg(Color::Red).bold()))
    } else if status.pauses.iter().any(|pause| pause.reason == "slow_user") {
        said("Sources are held up by slow users.", Color::Yellow)
    } else if !status.pauses.is_empty() {
        said("A source waits for room in the ring.", Color::Yellow)
    } else if status.hole.as_ref().is_some_and(|hole| !flowing || hole.waited_us > 2_000_000) {
        said("Events wait for a missing one.", Color::Yellow)
    } else if flowing {
        said("Events flow.", Color::Reset)
    } else if status.sources == 0 {
        said("No event source is connected.", Color::Reset)
    } else {
        said("All quiet.", Color::Reset)
    }
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
    let detail = 2 + 7;
    let [charts, numbers, counts] =
        Layout::vertical([Constraint::Min(4), Constraint::Length(8), Constraint::Length(detail)]).areas(area);
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(charts);
    draw_chart(frame, left, model, Series::Released);
    draw_chart(frame, right, model, Series::Deliveries);
    for (area, (title, rows)) in
        thirds(numbers).into_iter().zip([order(model, status), users(model, status), sources(model, status)])
    {
        draw_rows(frame, area, title, rows);
    }
    for (area, (title, rows)) in thirds(counts).into_iter().zip([
        released(model, status),
        disconnected(model, status),
        rejected(model, status),
    ]) {
        draw_rows(frame, area, title, rows);
    }
}

fn draw_narrow(frame: &mut Frame<'_>, area: Rect, model: &Model, status: &Status) {
    let [first, second, rest] =
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
    let mut rest = rest;
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
        Series::Released => ("Events released", Color::Blue),
        Series::Deliveries => ("Deliveries", Color::Cyan),
    };
    let rates = model.rates(series, usize::from(area.width.saturating_sub(2)));
    let most = rates.iter().copied().flatten().max().unwrap_or(0);
    let title = Line::from(vec![
        Span::raw(format!(" {name} ")),
        Span::styled(rate(model.rate(series)), Style::new().fg(colour).bold()),
        Span::raw(" per second "),
    ]);
    let peak = Line::from(format!(" at most {} ", rate(most as f64))).dim().right_aligned();
    let chart = Sparkline::default()
        .block(block(title).title_bottom(peak))
        .data(rates)
        .max(most.max(1))
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

fn micros(time: u64) -> Duration {
    Duration::from_micros(time)
}

fn order(model: &Model, status: &Status) -> (&'static str, Vec<Row>) {
    let hole = status.hole.as_ref().map_or_else(
        || Row::new("Nothing is missing.", "", false),
        |hole| {
            let end =
                hole.given_up_in_us.map_or(String::new(), |left| format!(", {} left", span(micros(left))));
            Row::new("Missing for", format!("{}{end}", span(micros(hole.waited_us))), true)
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
        // As many rows as without a journal.
        rows.truncate(4);
        let dropped = format!("{}, {}", grouped(&status.late), grouped(&status.duplicate));
        let pace = model.pace(|status| u128::from(status.late) + u128::from(status.duplicate));
        rows.push(Row::new("Late, duplicate", dropped, false).with_pace(pace));
        rows.insert(1, durable);
    }
    ("Order", rows)
}

fn users(model: &Model, status: &Status) -> (&'static str, Vec<Row>) {
    let slow = status.slow.first().map_or_else(
        || Row::new("All keep up.", "", false),
        |user| {
            let what = format!("{} for {}", bytes(user.buffered_bytes), span(micros(user.slow_for_us)));
            Row::new(format!("User {}", user.id), what, true)
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
        Row::count("Connected", &status.users),
        Row::new("Slow", grouped(&status.slow_users), status.slow_users > 0),
        if status.catching_up > 0 { catching_up } else { slow },
        Row::new("Bytes waiting", bytes(status.buffered_bytes), false),
        Row::total("Deliveries", model, status, |status| status.deliveries.into()),
        delivered_bytes,
    ];
    ("Users", rows)
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
                "stream" => "stream",
                _ => "full ring",
            };
            Row::new(format!("{sources} paused: {why}"), span(micros(*paused_for_us)), true)
        },
    );
    let rows = vec![
        Row::count("Connected", &status.sources),
        now,
        Row::total("Received", model, status, |status| status.received.into()),
        paused("Slow users, in all", "slow_user"),
        paused("Full ring, in all", "ring_full"),
        Row::count("Follow edges", &status.follow_edges),
    ];
    ("Event sources", rows)
}

fn released(model: &Model, status: &Status) -> (&'static str, Vec<Row>) {
    let rows = Kind::EVENTS.iter().map(|(kind, letter)| {
        let letter = letter.to_string();
        let count = |status: &Status| status.released.get(&letter).copied().unwrap_or_default().into();
        Row::total(&format!("{kind:?}"), model, status, count)
    });
    ("Released", rows.collect())
}

fn disconnected(model: &Model, status: &Status) -> (&'static str, Vec<Row>) {
    let rows = DisconnectReason::ALL.iter().map(|end| {
        let count = |status: &Status| status.disconnected.get(end.name()).copied().unwrap_or_default().into();
        Row::total(&end.name().replace('_', " "), model, status, count)
    });
    ("Disconnected", rows.collect())
}

fn rejected(model: &Model, status: &Status) -> (&'static str, Vec<Row>) {
    let rows = Reject::ALL.iter().map(|reason| {
        let count = |status: &Status| status.rejected.get(reason.name()).copied().unwrap_or_default().into();
        Row::total(&reason.name().replace('_', " "), model, status, count).bad()
    });
    ("Rejected lines", rows.collect())
}

#[cfg(test)]
mod tests;
