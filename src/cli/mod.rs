//! The command line (SPEC section 4): what the program is told, as an [`Invocation`].
//!
//! It stands on top of everything that it starts; nothing below knows of it. The options of the server are defined in
//! [`options`](crate::options). Rules that hold for every one of them:
//!
//! - A flag beats the variable, the variable beats the default.
//! - A flag given twice: the last one counts, so that a wrapper's flags can be overridden.
//! - An empty variable counts as unset, as `${eventTimeoutMs:-}` in a script or a Compose file leaves it. An empty
//!   flag (`--event-timeout-ms=`) is a bad value.
//! - A bad value ends the program with exit status 2 and one sentence that names the flag or the variable
//!   that brought it, the value, and what is accepted.
//!
//! `main` calls [`from_process`] and carries out the [`Invocation`]. For an [`Exit`] it returns [`Exit::report`], which
//! prints the sentence.
//!
//! A subcommand has a file of its own here: its [`Command`], its arguments as a type, and its work. It has an entry in
//! `subcommands`, an arm in [`parse`] and an arm in `main`.

mod admin;
pub mod clients;
mod exit;
pub mod format;
pub mod journal;
mod junit;
mod output;
mod refusal;
pub mod replay;
mod serve;
#[cfg(test)]
mod tests;
pub mod trace;
mod value;

use std::ffi::OsString;

use clap::{Command, error::ErrorKind};

use crate::{config::Config, http_client::AdminUrl};
use clients::Clients;
pub use exit::Exit;
use journal::Journal;
use replay::Replay;
use trace::Trace;

/// The command that the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Run the server: what happens without a subcommand.
    Serve(Box<Config>),
    /// Ask a running server whether it is well: `fortnight health`.
    Health(AdminUrl),
    /// Show a running server's numbers in a terminal: `fortnight top`.
    #[cfg(feature = "top")]
    Top(AdminUrl),
    /// List a running server's connections: `fortnight clients`.
    Clients(Clients),
    /// Replay traces: `fortnight replay`.
    Replay(Replay),
    /// Look into a journal, copy it, and mend it: `fortnight journal`.
    Journal(Journal),
    /// Look into a trace: `fortnight trace`.
    Trace(Trace),
}

const HEALTH: &str = "health";
#[cfg(feature = "top")]
const TOP: &str = "top";

/// The whole command line, for parsing, the man page and shell completions.
#[must_use]
pub fn command() -> Command {
    Command::new("fortnight")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help(
            "Every option is also an environment variable, which is named with it. A flag beats the \
             variable, the variable beats the default. An empty variable counts as unset; of a flag given twice \
             the last one counts.\n\n\
             Exit status: 0 after SIGTERM or SIGINT, 1 if a port cannot be opened or on a second signal, \
             2 if a value is not accepted.",
        )
        .args(serve::arguments())
        .args_override_self(true)
        .next_line_help(true)
        .args_conflicts_with_subcommands(true)
        .subcommands(subcommands())
}

/// Everything else that the program can do: one entry here and one arm in [`parse`].
fn subcommands() -> Vec<Command> {
    let health = Command::new(HEALTH)
        .about("Ask a running server whether it is well: exit status 0 if so, 1 if not")
        .args(admin::arguments());
    #[cfg(feature = "top")]
    let top = Command::new(TOP)
        .about("Show a running server's numbers in this terminal, live")
        .long_about(
            "Show a running server's numbers in this terminal, live. Keys: c shows who is connected, and there i, r, w, b, t \
             and a sort; o shows recent warnings and the options in force; q quits.",
        )
        .args(admin::arguments());
    vec![
        health,
        #[cfg(feature = "top")]
        top,
        clients::command(),
        journal::command(),
        replay::command(),
        trace::command(),
    ]
}

/// The accepted values of a flag: one of the server's options, or one of a subcommand's.
fn expected(flag: &str) -> String {
    serve::expected(flag)
        .or_else(|| replay::expected(flag).map(str::to_owned))
        .or_else(|| clients::expected(flag).map(str::to_owned))
        .or_else(|| trace::expected(flag).map(str::to_owned))
        .or_else(|| admin::expected(flag).map(str::to_owned))
        .unwrap_or_else(|| admin::EXPECTED_URL.to_owned())
}

/// Reads the command line and the environment of this process.
///
/// # Errors
///
/// As [`parse`].
pub fn from_process() -> Result<Invocation, Exit> {
    parse(std::env::args_os(), |variable| std::env::var_os(variable))
}

/// Reads a command line (program name first) and looks variables up in `variable`.
///
/// # Errors
///
/// An [`Exit`] of status 0 with the text for `--help` and `--version`, of status 2 with one sentence for anything
/// that is not accepted.
pub fn parse<A>(args: A, variable: impl Fn(&str) -> Option<OsString>) -> Result<Invocation, Exit>
where
    A: IntoIterator<Item = OsString>,
{
    let args: Vec<OsString> = args.into_iter().collect();
    let is_check = args.get(1).is_some_and(|word| word == HEALTH);
    let matches = command().try_get_matches_from(args).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Exit { status: 0, text: error.render().to_string() }
        }
        _ => {
            let is_subcommand =
                |word: &str| word == "help" || subcommands().iter().any(|known| known.get_name() == word);
            let exit = Exit::refused(refusal::sentence(&error, expected, is_subcommand));
            if is_check { exit.of_check() } else { exit }
        }
    })?;
    match matches.subcommand() {
        Some((HEALTH, health)) => {
            admin::url(health, variable).map(Invocation::Health).map_err(Exit::of_check)
        }
        #[cfg(feature = "top")]
        Some((TOP, top)) => admin::url(top, variable).map(Invocation::Top),
        Some((clients::NAME, matches)) => Clients::from_matches(matches, variable).map(Invocation::Clients),
        Some((replay::NAME, replay)) => Replay::from_matches(replay).map(Invocation::Replay),
        Some((journal::NAME, matches)) => Journal::from_matches(matches).map(Invocation::Journal),
        Some((trace::NAME, trace)) => Trace::from_matches(trace).map(Invocation::Trace),
        _ => serve::resolve(&matches, variable).map(|config| Invocation::Serve(Box::new(config))),
    }
}
