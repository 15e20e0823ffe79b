//! Who is connected: the tables of `fortnight top`, and the order in which users stand there.

use super::{
    model::{Model, SourceRow, Status, UserRow},
    order::{ORDERS, Order},
};
use crate::cli::format::{bytes, grouped, rate, span};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    symbols::border,
    text::Line,
    widgets::{Block, Cell, Row, Table},
};
use std::{cmp::Reverse, time::Duration};

fn sort(order: Order, is_reversed: bool, users: &mut [UserRow]) {
    match order {
        Order::Rate => users.sort_by_key(|user| Reverse(user.byte_rate)),
        Order::Waiting => users.sort_by_key(|user| Reverse(user.waiting_bytes)),
        Order::Behind => users.sort_by_key(|user| Reverse(behind(user))),
        Order::Bytes => users.sort_by_key(|user| Reverse(user.bytes)),
        Order::Age => users.sort_by_key(|user| Reverse(user.age_us)),
        Order::Id => users.sort_by_key(|user| user.id.as_deref().and_then(|id| id.parse::<u64>().ok())),
    }
    if is_reversed {
        users.reverse();
    }
}

fn sort_sources(order: Order, is_reversed: bool, sources: &mut [SourceRow]) {
    match order {
        Order::Rate => sources.sort_by_key(|source| Reverse(source.line_rate)),
        // Who was never heard of has been silent for longest.
        Order::Waiting | Order::Behind => {
            sources.sort_by_key(|source| Reverse(source.silent_for_us.unwrap_or(u64::MAX)));
        }
        Order::Bytes => sources.sort_by_key(|source| Reverse(source.lines)),
        Order::Age => sources.sort_by_key(|source| Reverse(source.age_us)),
        Order::Id => sources.sort_by_key(name_of),
    }
    if is_reversed {
        sources.reverse();
    }
}

fn name_of(source: &SourceRow) -> String {
    source.name.clone().unwrap_or_else(|| source.peer.clone())
}

fn behind(user: &UserRow) -> u128 {
    user.behind.as_deref().and_then(|behind| behind.parse().ok()).unwrap_or(0)
}

/// Draws both tables.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, status: &Status) {
    let sources = status.people.sources.len().clamp(1, 8) as u16 + 3;
    let [above, below] =
        Layout::vertical([Constraint::Length(sources.min(area.height / 3)), Constraint::Fill(1)]).areas(area);
    draw_sources(frame, above, model, status);
    draw_users(frame, below, model, status);
}

fn block(title: String) -> Block<'static> {
    Block::bordered().border_set(border::ROUNDED).border_style(Style::new().dim()).title(title)
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

fn micros(time: u64) -> String {
    span(Duration::from_micros(time))
}

fn draw_sources(frame: &mut Frame<'_>, area: Rect, model: &Model, status: &Status) {
    let mut sources = status.people.sources.clone();
    sort_sources(model.order, model.is_reversed, &mut sources);
    let rows = sources.into_iter().map(|source| {
        Row::new([
            Cell::from(name_of(&source)),
            right(rate(source.line_rate as f64)),
            right(grouped(&source.lines)),
            right(micros(source.age_us)),
            right(heard(&source)),
        ])
    });
    let head = ["Source", "events/s", "events", "connected", "heard"];
    let widths = [
        Constraint::Min(16),
        Constraint::Length(11),
        Constraint::Length(15),
        Constraint::Length(12),
        Constraint::Length(20),
    ];
    let title = format!(" Event sources: {} ", grouped(&status.sources));
    frame.render_widget(Table::new(rows, widths).header(header(&head, None)).block(block(title)), area);
}

fn heard(source: &SourceRow) -> String {
    match (&source.waits_with, source.silent_for_us) {
        (Some(number), _) => format!("waits with {}", grouped(number)),
        _ if source.has_finished => "has finished".to_owned(),
        (None, None) => "never".to_owned(),
        (None, Some(silence)) if silence < 2_000_000 => "now".to_owned(),
        (None, Some(silence)) => format!("{} ago", micros(silence)),
    }
}

fn draw_users(frame: &mut Frame<'_>, area: Rect, model: &Model, status: &Status) {
    let mut users = status.people.users.clone();
    sort(model.order, model.is_reversed, &mut users);
    let shown = users.len();
    let rows = users.into_iter().map(|user| {
        let lags = user.is_slow;
        let row = Row::new([
            Cell::from(user.id.clone().unwrap_or_default()),
            right(bytes(user.byte_rate)),
            right(bytes(user.waiting_bytes)),
            right(grouped(&behind(&user))),
            right(bytes(user.bytes)),
            right(micros(user.age_us)),
            right(user.peer),
        ]);
        if lags { row.style(Style::new().fg(Color::Yellow).bold()) } else { row }
    });
    let mut head: Vec<&str> = ORDERS.iter().map(|&(_, _, name)| name).collect();
    head.push("from");
    let at = ORDERS.iter().position(|&(of_column, ..)| of_column == model.order);
    let widths = [
        Constraint::Min(8),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(12),
        Constraint::Length(10),
        Constraint::Length(12),
        Constraint::Length(22),
    ];
    let title = format!(" Users: {shown} of {} ", grouped(&status.users));
    let head = header(&head, at.map(|at| (at, model.is_reversed)));
    frame.render_widget(Table::new(rows, widths).header(head).block(block(title)), area);
}

/// The names of the columns; the one that is sorted by has a mark.
fn header(names: &[&str], sorted: Option<(usize, bool)>) -> Row<'static> {
    let cells = names.iter().enumerate().map(|(column, name)| {
        let mark =
            sorted.filter(|&(of, _)| of == column).map(|(_, reversed)| if reversed { '▴' } else { '▾' });
        let name = mark.map_or_else(|| (*name).to_owned(), |mark| format!("{name} {mark}"));
        let line = if column == 0 { Line::from(name) } else { Line::from(name).right_aligned() };
        Cell::from(if mark.is_some() { line.bold() } else { line.dim() })
    });
    Row::new(cells.collect::<Vec<_>>())
}
