//! Log output on standard error: for people on a terminal, as `key=value` lines anywhere else.
//!
//! The server logs through the `log` facade. The message says what happened, key-value pairs have the particulars:
//!
//! ```
//! log::info!(user = 7, reason = "slow"; "user disconnected");
//! ```
//!
//! - On a terminal, in colours unless `NO_COLOR` is set or `TERM` is `dumb`:
//!   `2001-02-03T04:05:06.789Z INFO  [fortnight::server] user disconnected user=7 reason=slow`
//! - Otherwise: `time=2001-02-03T04:05:06.789012Z level=info msg="user disconnected" user=7 reason=slow`
//! - The same after `<6>`, the priority, where standard error is systemd's journal: `JOURNAL_STREAM` says so.
//!
//! One record is always one line: values are quoted where they need it, control characters are escaped, long values are
//! cut. The log neither holds up the server nor ends it. When standard error takes nothing (a full pipe, a full disk, a
//! stopped or closed terminal), lines are left out, and the next line that gets through says how many. A line that was
//! written in part is finished first.

mod line;
mod sink;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    io::{self, IsTerminal},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::warning::{self, Warning};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::fstat;
use sink::Sink;

thread_local! {
    static SINK: RefCell<Sink> = RefCell::new(Sink::of_standard_error());
}

/// Keeps a warning for the admin interface.
fn remember(record: &Record) {
    let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    warning::remember(Warning { at_ms, level: record.level(), text: line::text(record) });
}

/// Starts logging to standard error, up to `level`. Called again, it only changes the level.
pub(crate) fn init(level: LevelFilter) {
    log::set_max_level(level);
    // An error says that there is a logger already.
    let _ = log::set_boxed_logger(Box::new(Logger::for_standard_error()));
}

/// How a record is written.
enum Logger {
    /// For people.
    Terminal {
        colours: bool,
    },
    KeyValue,
    /// Key and value, after the priority.
    Journal,
}

impl Logger {
    fn for_standard_error() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if io::stderr().is_terminal() {
            let colours = set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb");
            return Self::Terminal { colours };
        }
        // A child of a service may have another standard error than the one that the variable speaks of.
        let place = fstat(io::stderr()).map(|status| format!("{}:{}", status.st_dev, status.st_ino));
        match (set("JOURNAL_STREAM"), place) {
            (Some(stream), Ok(place)) if stream == place.as_str() => Self::Journal,
            _ => Self::KeyValue,
        }
    }

    fn line(&self, record: &Record) -> String {
        let now = SystemTime::now();
        match self {
            Self::Terminal { colours } => line::for_people(now, record, *colours),
            Self::KeyValue => line::key_value(now, record),
            Self::Journal => format!("<{}>{}", priority(record.level()), line::key_value(now, record)),
        }
    }

    /// The line that says how many were left out.
    fn confession(&self, count: u64) -> String {
        self.line(
            &Record::builder()
                .level(Level::Warn)
                .target(module_path!())
                .key_values(&[("count", count)])
                .args(format_args!("log lines left out: standard error took no more"))
                .build(),
        )
    }
}

/// The priority of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            if record.level() <= Level::Warn {
                remember(record);
            }
            let line = self.line(record);
            SINK.with_borrow_mut(|sink| sink.write(&line, |count| self.confession(count)));
        }
    }

    /// Every line is written at once, as far as standard error takes it: nothing is left to be flushed.
    fn flush(&self) {}
}
