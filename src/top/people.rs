//! Who is connected: the tables of `fortnight top`, and the order in which users stand there.

use super::model::{Model, SourceRow, Status, UserRow};
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

/// What users are sorted by, largest first; ids the other way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Rate,
    Waiting,
    Behind,
    Bytes,
    Age,
    Id,
}

/// Every order with its key and the head of its column.
const ORDERS: [(Order, char, &str); 6] = [
    (Order::Id, 'i', "User"),
    (Order::Rate, 'r', "bytes/s"),
    (Order::Waiting, 'w', "waiting"),
    (Order::Behind, 'b', "behind"),
    (Order::Bytes, 't', "total"),
    (Order::Age, 'a', "connected"),
];

impl Order {
    /// The order that a key asks for.
    pub(super) fn of_key(key: char) -> Option<Self> {
        ORDERS.iter().find(|(_, of_order, _)| *of_order == key).map(|&(order, ..)| order)
    }

    fn sort(self, users: &mut [UserRow]) {
        match self {
            Self::Rate => users.sort_by_key(|user| Reverse(user.byte_rate)),
            Self::Waiting => users.sort_by_key(|user| Reverse(user.waiting_bytes)),
            Self::Behind => users.sort_by_key(|user| Reverse(behind(user))),
            Self::Bytes => users.sort_by_key(|user| Reverse(user.bytes)),
            Self::Age => users.sort_by_key(|user| Reverse(user.age_us)),
            Self::Id => users.sort_by_key(|user| user.id.as_deref().and_then(|id| id.parse::<u64>().ok())),
        }
    }
}

fn behind(user: &UserRow) -> u128 {
    user.behind.as_deref().and_then(|behind| behind.parse().ok()).unwrap_or(0)
}

/// Draws both tables.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, status: &Status) {
    let sources = status.people.sources.len().clamp(1, 8) as u16 + 3;
    let [above, below] =
        Layout::vertical([Constraint::Length(sources.min(area.height / 3)), Constraint::Fill(1)]).areas(area);
    draw_sources(frame, above, status);
    draw_users(frame, below, model.order, status);
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

fn draw_sources(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let rows = status.people.sources.iter().map(|source| {
        Row::new([
            Cell::from(source.name.clone().unwrap_or_else(|| source.peer.clone())),
            right(rate(source.line_rate as f64)),
            right(grouped(&source.lines)),
            right(micros(source.age_us)),
            right(heard(source)),
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

fn draw_users(frame: &mut Frame<'_>, area: Rect, order: Order, status: &Status) {
    let mut users = status.people.users.clone();
    order.sort(&mut users);
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
    let at = ORDERS.iter().position(|&(of_column, ..)| of_column == order);
    let widths = [
        Constraint::Min(8),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(12),
        Constraint::Length(10),
        Constraint::Length(12),
        Constraint::Length(22),
    ];
    let keys = ORDERS.iter().map(|(_, key, name)| format!("{key} {name}")).collect::<Vec<_>>().join(", ");
    let title = format!(" Users: {shown} of {}; sort by {keys} ", grouped(&status.users));
    frame.render_widget(Table::new(rows, widths).header(header(&head, at)).block(block(title)), area);
}

/// The names of the columns; the one that is sorted by has a mark.
fn header(names: &[&str], sorted: Option<usize>) -> Row<'static> {
    let cells = names.iter().enumerate().map(|(column, name)| {
        let name = if sorted == Some(column) { format!("{name} ▾") } else { (*name).to_owned() };
        let line = if column == 0 { Line::from(name) } else { Line::from(name).right_aligned() };
        Cell::from(if sorted == Some(column) { line.bold() } else { line.dim() })
    });
    Row::new(cells.collect::<Vec<_>>())
}
