//! Log output on standard error: for people on a terminal, as `key=value` lines anywhere else.
//!
//! The server logs through the `log` facade. The message says what happened, key-value pairs have the particulars:
//!
//! ```
//! log::info!(user = 7, reason = "slow"; "user disconnected");
//! ```
//!
//! - On a terminal `simple_logger` prints it, in colours unless `NO_COLOR` is set or `TERM` is `dumb`:
//!   `2001-02-03T04:05:06.789Z INFO  [fortnight::server] user disconnected user=7 reason=slow`
//! - Otherwise: `time=2001-02-03T04:05:06.789012Z level=info msg="user disconnected" user=7 reason=slow`
//!
//! One record is always one line: values are quoted where they need it, control characters are escaped, long values are
//! cut. The log neither holds up the server nor ends it. When standard error takes nothing (a full pipe, a stopped or
//! closed terminal), lines are left out, and the next line that gets through says how many. One case remains: a
//! terminal program that freezes can hold up the line that fills the terminal's last bytes.

mod line;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    io::{self, IsTerminal, Write},
    time::{Duration, SystemTime},
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl},
};
use simple_logger::SimpleLogger;

thread_local! {
    /// Lines left out since the last one that was written.
    static LEFT_OUT: Cell<u64> = const { Cell::new(0) };
}

/// Starts logging to standard error, up to `level`. Called again, it only changes the level.
pub fn init(level: LevelFilter) {
    log::set_max_level(level);
    let logger = if io::stderr().is_terminal() { Logger::for_people() } else { Logger { terminal: None } };
    // An error says that there is a logger already.
    let _ = log::set_boxed_logger(Box::new(logger));
}

struct Logger {
    /// Prints for people, where there are any.
    terminal: Option<SimpleLogger>,
}

impl Logger {
    fn for_people() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let colours = set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb");
        // The crate behind simple_logger's colours would decide by standard output.
        colored::control::set_override(colours);
        Self { terminal: Some(SimpleLogger::new().with_colors(colours)) }
    }

    fn write(&self, record: &Record) {
        match &self.terminal {
            // simple_logger panics when a write fails, which is why it is only asked to print where it will not.
            Some(simple) if blocks() => simple.log(
                &Record::builder()
                    .metadata(record.metadata().clone())
                    .args(format_args!("{}", line::for_people(record)))
                    .build(),
            ),
            _ => {
                let line = line::key_value(SystemTime::now(), record);
                // Nobody is there to be told of an error.
                let _ = io::stderr().write_all(line.as_bytes());
            }
        }
    }

    fn confess(&self) {
        let count = LEFT_OUT.take();
        if count > 0 {
            self.write(
                &Record::builder()
                    .level(Level::Warn)
                    .target(module_path!())
                    .key_values(&[("count", count)])
                    .args(format_args!("log lines left out: standard error took no more"))
                    .build(),
            );
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if takes_a_line() {
            self.confess();
            self.write(record);
        } else {
            LEFT_OUT.set(LEFT_OUT.get() + 1);
        }
    }

    fn flush(&self) {}
}

/// Whether a line can be written to standard error now, without waiting and to somebody.
fn takes_a_line() -> bool {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = Timespec::try_from(Duration::ZERO).ok();
    poll(&mut fds, now.as_ref()).is_ok() && fds[0].revents() == PollFlags::OUT
}

/// Whether a write to standard error waits for room, rather than fail half-way: another process that has the same
/// terminal can change that at any time.
fn blocks() -> bool {
    fcntl_getfl(io::stderr()).is_ok_and(|flags| !flags.contains(OFlags::NONBLOCK))
}
