//! Progress: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::console::LogLevel;
use crate::drive::Progress;
use crate::options::OutputOptions;
use crate::report::short;
use crate::settings::Settings;

/// Shows how a run goes on.
pub struct Display {
    bar: Option<ProgressBar>,
    quiet: bool,
    interval: Duration,
    total: u64,
    duration: Option<Duration>,
    last: Instant,
    last_deliveries: (u64, Duration),
}

impl Display {
    /// A display for one run.
    pub fn new(settings: &Settings, output: &OutputOptions) -> Display {
        let quiet = output.log_level < LogLevel::Info;
        let bar = (!quiet && stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(1000);
            let style = ProgressStyle::with_template("{prefix:>10} [{bar:40}] {percent:>3} % {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            bar
        });
        Display {
            bar,
            quiet,
            interval: Duration::from_millis(output.log_interval.max(1)),
            total: settings.load.events,
            duration: settings.duration,
            last: Instant::now(),
            last_deliveries: (0, Duration::ZERO),
        }
    }

    /// Shows `progress`, if it is time to.
    pub fn show(&mut self, users: u64, progress: Progress) {
        let pace = if self.bar.is_some() { Duration::from_millis(100) } else { self.interval };
        if self.quiet || self.last.elapsed() < pace {
            return;
        }
        self.last = Instant::now();
        let (what, share, message) = match progress {
            Progress::Preparing(done) => {
                ("preparing", done as f64 / self.total as f64, format!("{}events", short(done as f64)))
            }
            Progress::Connecting(done) => ("connecting", done as f64 / users as f64, format!("{done} users")),
            Progress::Running { events, deliveries, bytes, elapsed } => {
                ("running", self.share(events, elapsed), self.running(events, deliveries, bytes, elapsed))
            }
        };
        let share = share.clamp(0.0, 1.0);
        if let Some(bar) = &self.bar {
            bar.set_prefix(what);
            bar.set_position((share * 1000.0) as u64);
            bar.set_message(message);
        } else {
            eprintln!("{what} {:.0} %: {message}", share * 100.0);
        }
    }

    fn share(&self, events: u64, elapsed: Duration) -> f64 {
        match self.duration {
            Some(duration) => elapsed.as_secs_f64() / duration.as_secs_f64(),
            None => events as f64 / self.total as f64,
        }
    }

    fn running(&mut self, events: u64, deliveries: u64, bytes: u64, elapsed: Duration) -> String {
        let (before, at) = std::mem::replace(&mut self.last_deliveries, (deliveries, elapsed));
        let span = elapsed.saturating_sub(at).as_secs_f64().max(1e-9);
        let now = deliveries.saturating_sub(before) as f64 / span;
        let share = self.share(events, elapsed);
        let left = if share > 0.0 { elapsed.as_secs_f64() * (1.0 - share).max(0.0) / share } else { 0.0 };
        format!(
            "{}events, {}deliveries, {}B, {}deliveries/s, {left:.0} s left",
            short(events as f64),
            short(deliveries as f64),
            short(bytes as f64),
            short(now)
        )
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
