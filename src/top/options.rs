//! The options in force, and recent warnings of the log.

use super::model::{Status, Warning};
use crate::cli::format::span;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    symbols::border,
    text::{Line, Span},
    widgets::{Block, Paragraph, Wrap},
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Draws both.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let [above, below] = Layout::vertical([Constraint::Fill(1); 2]).areas(area);
    frame.render_widget(titled(" Recent warnings of the log ", warnings(&status.warnings, now)), above);
    frame.render_widget(
        titled(" Options in force: those that are not defaults first ", options(status)),
        below,
    );
}

fn titled(title: &'static str, lines: Vec<Line<'static>>) -> Paragraph<'static> {
    let block = Block::bordered().border_set(border::ROUNDED).border_style(Style::new().dim()).title(title);
    Paragraph::new(lines).wrap(Wrap { trim: true }).block(block)
}

/// The latest first, as the server has them.
fn warnings(warnings: &[Warning], now: Duration) -> Vec<Line<'static>> {
    if warnings.is_empty() {
        return vec![Line::from("None.")];
    }
    let line = |warning: &Warning| {
        let ago = now.saturating_sub(Duration::from_millis(warning.at_ms));
        let colour = if warning.level == "error" { Color::Red } else { Color::Yellow };
        Line::from(vec![
            Span::raw(format!("{} ago ", span(ago))).dim(),
            Span::styled(format!("{} ", warning.level), Style::new().fg(colour)),
            Span::raw(warning.text.clone()),
        ])
    };
    warnings.iter().map(line).collect()
}

/// One behind the other, as many as fit.
fn options(status: &Status) -> Vec<Line<'static>> {
    let spans = status.options().into_iter().flat_map(|(name, value, is_changed)| {
        let value = if value.is_empty() { "(not set)" } else { value };
        let text = Span::raw(format!("{name}={value}"));
        [if is_changed { text.bold() } else { text.dim() }, Span::raw("  ")]
    });
    vec![Line::from(spans.collect::<Vec<_>>())]
}
