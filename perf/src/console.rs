//! The messages of all commands, and their verbosity.

use std::process::ExitCode;

use clap::ValueEnum;

/// The line that ends a run in which everything was right.
pub const ALL_RECEIVED: &str = "\\o/ ALL NOTIFICATIONS RECEIVED \\o/";

/// An option that makes no sense: exit status 2.
pub fn refuse(sentence: &str) -> ExitCode {
    eprintln!("maze: {sentence}");
    ExitCode::from(2)
}

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    /// Nothing but the result
    Off,
    /// Errors
    Error,
    /// Warnings too
    Warn,
    /// Progress too
    Info,
    /// Steps too
    Debug,
    /// Everything
    Trace,
}

/// Starts logging to standard error.
pub fn start_log(level: LogLevel) {
    let level = match level {
        LogLevel::Off => log::LevelFilter::Off,
        LogLevel::Error => log::LevelFilter::Error,
        LogLevel::Warn => log::LevelFilter::Warn,
        LogLevel::Info => log::LevelFilter::Info,
        LogLevel::Debug => log::LevelFilter::Debug,
        LogLevel::Trace => log::LevelFilter::Trace,
    };
    // Only the first call in a process sets it; a second one changes nothing that matters.
    let _ = simple_logger::SimpleLogger::new().with_level(level).init();
}
