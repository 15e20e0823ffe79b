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
mod tests {
    use super::super::{model::HISTORY, order::Order};
    use super::*;
    use crate::{
        admin::{
            Hole, JournalNumbers, Pause, SlowUser, Snapshot, history::History, history::Sample,
            people::UserRow, status::json,
        },
        config::Config,
        counters::Counters,
        latency::Latency,
        sequence::Cursor,
        user_id::UserId,
    };
    use ratatui::{Terminal, backend::TestBackend};

    /// The screen as text.
    fn screen(model: &Model, now: Instant, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model, now)).unwrap();
        terminal.backend().to_string()
    }

    /// A model of a server with the numbers that `change` leaves, as the server itself writes them down.
    fn model(change: impl Fn(&mut Snapshot<'_>)) -> Model {
        let mut counters = Counters { events_late: 41, deliveries: 2_000_000, ..Counters::default() };
        counters.events_released[Kind::Status as usize] = 1_234_567;
        counters.users_disconnected[DisconnectReason::Replaced as usize] = 17;
        counters.events_rejected[Reject::TooLong as usize] = 99;
        let mut history = History::new(true, 0);
        for second in 0..=60 {
            let sample = Sample {
                at: second * 1_000_000,
                released: second * 20_000,
                deliveries: second * 30_000,
                median: Some(300),
                p99: Some(900),
            };
            history.record(sample.at, sample);
        }
        let config = Config::default();
        let mut snapshot = Snapshot {
            now: 61_000_000,
            counters,
            health: Health::Ok,
            cursor: Cursor::new(1_234_568),
            waiting: 0,
            capacity: 65_536,
            hole: None,
            buffered_bytes: 0,
            users: 250,
            catching_up: 0,
            farthest_behind: 0,
            sources: 1,
            follow_edges: 777,
            slow_users: 0,
            slow: Vec::new(),
            pauses: Vec::new(),
            stream: None,
            door: Default::default(),
            process: None,
            latency: &Default::default(),
            journal: None,
            config: &config,
            history: &history,
            people: Default::default(),
            page: Default::default(),
            warnings: Vec::new(),
        };
        change(&mut snapshot);
        let mut model = Model::new("http://127.0.0.1:9095".to_owned());
        model.take(HISTORY, Ok(history.json().into_bytes()), Instant::now());
        hear(&mut model, json(&snapshot));
        model
    }

    /// The server says how it is going.
    fn hear(model: &mut Model, status: String) {
        model.take("/status.json", Ok(status.into_bytes()), Instant::now());
        assert_eq!(model.failure, None);
    }

    #[test]
    fn it_shows_how_fast_totals_grow() {
        let (said, before) = (std::cell::RefCell::new(String::new()), Instant::now());
        let mut model = model(|snapshot| drop(said.replace(json(snapshot))));
        let calm = screen(&model, before, 160, 40);
        assert!(!calm.contains("/s"), "nothing is known yet:\n{calm}");
        let later = said
            .into_inner()
            .replace("\"now_us\":61000000", "\"now_us\":63000000")
            .replace("\"late\":41", "\"late\":46")
            .replace("\"too_long\":99", "\"too_long\":10099");
        hear(&mut model, later.clone());
        expect(&screen(&model, before, 160, 40), &["46 2.5/s", "10,099 5,000/s"]);
        assert!(!screen(&model, before, 160, 40).contains("17 "), "nobody is replaced now");
        // It has stopped. Where there is no room, the total alone is shown.
        hear(&mut model, later.replace("63000000", "64000000"));
        assert!(!screen(&model, before, 160, 40).contains("/s"));
    }

    #[track_caller]
    fn expect(screen: &str, parts: &[&str]) {
        for part in parts {
            assert!(screen.contains(part), "no {part:?} in\n{screen}");
        }
    }

    #[test]
    fn it_shows_who_catches_up() {
        let screen = screen(
            &model(|snapshot| {
                snapshot.catching_up = 1200;
                snapshot.farthest_behind = 1_200_000;
            }),
            Instant::now(),
            110,
            30,
        );
        expect(&screen, &["1,200 catch up", "farthest 1,200,000"]);
    }

    #[test]
    fn it_shows_how_durable_the_journal_is_and_that_the_disk_is_full() {
        let journal = |stall: Option<&str>| JournalNumbers {
            bytes: 5 << 20,
            first_sequence: Cursor::new(1),
            durable_cursor: Cursor::new(1_234_000),
            appended_bytes: 77,
            syncs: 3,
            sync_lag: 400_000,
            recovery: 2_000,
            stalled_for: None,
            stall: stall.map(str::to_owned),
        };
        let fine = model(|snapshot| snapshot.journal = Some(journal(None)));
        expect(
            &screen(&fine, Instant::now(), 120, 40),
            &["Durable", "1,234,000", "0.4 s", "Late, duplicate"],
        );
        let full = model(|snapshot| snapshot.journal = Some(journal(Some("cannot write \"x\": no space"))));
        expect(&screen(&full, Instant::now(), 120, 40), &["1,234,000", "full disk"]);
    }

    #[test]
    fn it_shows_the_role_of_a_server_that_is_one_of_several() {
        let stream = |leads, lag, away_for| crate::admin::Stream {
            address: "nats://a:1/x".to_owned(),
            away_for,
            lag,
            leads,
            term: Some(7),
            cursor: Cursor::new(5),
        };
        for (stream, wanted) in [
            (stream(Some(true), None, None), "  leader, term 7  up"),
            (stream(Some(false), None, Some(2_000_000)), "  standby, term 7, stream away for 2.0 s"),
            (stream(None, Some(300_000), None), "  edge, term 7, lag 0.3 s"),
        ] {
            let model = model(|snapshot| snapshot.stream = Some(stream.clone()));
            expect(&screen(&model, Instant::now(), 120, 30), &[wanted]);
        }
    }

    #[test]
    fn it_shows_the_numbers() {
        let screen = screen(&model(|_| {}), Instant::now(), 110, 30);
        let parts = [
            "Fortnight http://127.0.0.1:9095 ● healthy  up 1 min 01 s",
            "Events flow.",
            "Events released 34,567 per second",
            "Deliveries 200,000 per second",
            "1,234,568",
            "Nothing is missing.",
            "0 of 65,536",
            "All keep up.",
            "1,234,567",
            "2,000,000",
            "777",
            "█",
        ];
        expect(&screen, &parts);
        let row = |name: &str, value: &str| {
            screen.lines().any(|line| {
                line.split('│')
                    .any(|cell| cell.trim().strip_prefix(name).is_some_and(|rest| rest.trim() == value))
            })
        };
        for (name, value) in [
            ("Late", "41"),
            ("replaced", "17"),
            ("too long", "99"),
            ("Status", "1,234,567"),
            ("Connected", "250"),
        ] {
            assert!(row(name, value), "no {name} {value} in\n{screen}");
        }
    }

    #[test]
    fn it_shows_percentiles_and_who_is_connected() {
        let user = |id, byte_rate, waiting_bytes| UserRow {
            id: Some(UserId::new(id)),
            peer: "192.0.2.1:5".parse().unwrap(),
            age: 61_000_000,
            bytes: 5000,
            byte_rate,
            waiting_bytes,
            behind: None,
            is_slow: waiting_bytes > 0,
        };
        let mut latency = Latency::default();
        latency.delivery.observe(1500, 100);
        let mut model = model(|snapshot| {
            snapshot.people.users = vec![user(7, 10, 5 << 20), user(50, 4096, 0)];
            // It lives as long as the test.
            snapshot.latency = Box::leak(Box::new(latency.clone()));
        });
        let now = Instant::now();
        expect(&screen(&model, now, 110, 30), &["Delivery 1.5 ms 99% 2.0 ms", "c connections"]);
        model.shows_people = true;
        let place = |screen: &str, id: &str| {
            screen.lines().position(|line| line.split('│').any(|cell| cell.starts_with(id))).unwrap()
        };
        let by_rate = screen(&model, now, 110, 30);
        expect(
            &by_rate,
            &["bytes/s ▾", "4.0 KiB", "5.0 MiB", "192.0.2.1:5", "Users: 2 of 250", "1 min 01 s"],
        );
        assert!(place(&by_rate, "50 ") < place(&by_rate, "7 "), "{by_rate}");
        model.order = Order::of_key('w').unwrap();
        let by_waiting = screen(&model, now, 110, 30);
        expect(&by_waiting, &["waiting ▾"]);
        assert!(place(&by_waiting, "7 ") < place(&by_waiting, "50 "), "{by_waiting}");
        for width in [1, 10, 60, 200] {
            screen(&model, now, width, 12);
        }
    }

    #[test]
    fn it_shows_trouble() {
        let now = Instant::now();
        let hole = model(|snapshot| {
            snapshot.waiting = 60_000;
            snapshot.hole = Some(Hole { waited: 2_500_000, given_up_in: Some(700_000) });
        });
        expect(
            &screen(&hole, now, 110, 30),
            &["Events wait for a missing one.", "2.5 s, 0.7 s left", "60,000 of 65,536"],
        );
        let slow = model(|snapshot| {
            snapshot.slow_users = 3;
            snapshot.slow =
                vec![SlowUser { id: UserId::new(4711), buffered_bytes: 5 << 20, slow_for: 1_200_000 }];
            snapshot.pauses = vec![Pause { reason: "slow_user", sources: 2, paused_for: 1_100_000 }];
        });
        let parts =
            ["Sources are held up by slow users.", "User 4711", "5.0 MiB for 1.2 s", "2 paused: slow users"];
        expect(&screen(&slow, now, 110, 30), &parts);
        let full = model(|snapshot| snapshot.health = Health::RingFull);
        expect(&screen(&full, now, 110, 30), &["The ring is full", "● waiting on a full ring"]);
        let silent = model(|snapshot| snapshot.health = Health::SourcesSilent);
        expect(&screen(&silent, now, 110, 30), &["The server is not healthy: event sources are turned away"]);
        let ending = model(|snapshot| snapshot.health = Health::ShuttingDown);
        expect(&screen(&ending, now, 110, 30), &["The server is shutting down."]);
    }

    #[test]
    fn it_says_that_the_server_cannot_be_reached() {
        let mut lost = model(|_| {});
        lost.take("/status.json", Err("Connection refused".to_owned()), Instant::now());
        let later = lost.heard_at.unwrap() + Duration::from_secs(12);
        let parts = [
            "The server cannot be reached: Connection refused. Last heard of 12 s ago.",
            "● no answer",
            "1,234,568",
        ];
        expect(&screen(&lost, later, 110, 30), &parts);
        let mut never = Model::new("http://127.0.0.1:9095".to_owned());
        expect(&screen(&never, later, 110, 30), &["Asking the server."]);
        never.take(HISTORY, Err("Connection refused".to_owned()), later);
        expect(
            &screen(&never, later, 110, 30),
            &["The server cannot be reached: Connection refused. It is asked again every second."],
        );
    }

    #[test]
    fn it_fits_any_screen() {
        let model = model(|snapshot| snapshot.cursor = Cursor::END);
        for width in [1, 2, 10, 40, 75, 76, 80, 200] {
            for height in [1, 2, 3, 10, 24, 60] {
                screen(&model, Instant::now(), width, height);
            }
        }
        let parts = ["Events released", "Deliveries", "Cursor", "18,446,744,073,709,551,616", "Waiting"];
        expect(&screen(&model, Instant::now(), 40, 24), &parts);
        let parts = ["Cursor", "Event sources", "Rejected lines", "bad login", "truncated", "Connected"];
        expect(&screen(&model, Instant::now(), 80, 24), &parts);
    }
}
