//! Options: the command line and the environment become a [`Config`] (SPEC section 4).
//!
//! `table` defines each option once: its variable, what it means, what it accepts and where its value goes.
//! Flag, default, help, man page, completions and the sentence for a bad value all follow from that line.
//!
//! Rules that hold for every option:
//!
//! - A flag beats the variable, the variable beats the default.
//! - A flag given twice: the last one counts, so that a wrapper's flags can be overridden.
//! - An empty variable counts as unset, as `${eventTimeoutMs:-}` in a script or a Compose file leaves it. An empty
//!   flag (`--event-timeout-ms=`) is a bad value.
//! - A bad value ends the program with exit status 2 and one sentence that names the flag or the variable
//!   that brought it, the value, and what is accepted.
//!
//! `main` calls [`from_process`] and does what the [`Invocation`] says; of an [`Exit`] it returns [`Exit::report`],
//! which prints what there is to say.

mod field;
mod refusal;
mod table;
#[cfg(test)]
mod tests;
mod traces;

use std::{
    ffi::{OsStr, OsString},
    io::Write,
    net::IpAddr,
    process::ExitCode,
};

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, error::ErrorKind, parser::ValueSource};

use crate::{
    config::Config,
    health::AdminUrl,
    trace::command::{Replay, Trace},
};
use field::AnyValue;
use table::{Definition, OPTIONS};

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Run the server: what happens without a subcommand.
    Serve(Config),
    /// Ask a running server whether it is well: `fortnight health`.
    Health(AdminUrl),
    /// Show a running server's numbers in a terminal: `fortnight top`.
    #[cfg(feature = "top")]
    Top(AdminUrl),
    /// Replay traces: `fortnight replay`.
    Replay(Replay),
    /// Look into a trace: `fortnight trace`.
    Trace(Trace),
}

/// The program ends here: `--help`, `--version`, or a refused command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit status: 0 if the user asked for `text`, 2 if the command line or a variable is refused.
    pub status: u8,
    /// What to print, line end included: to standard output if `status` is 0, to standard error otherwise.
    pub text: String,
}

impl Exit {
    fn refused(sentence: impl std::fmt::Display) -> Self {
        Self { status: 2, text: format!("fortnight: {sentence}\n") }
    }

    /// Prints the text and returns the status for `main` to return. A closed stream is no error: Nobody is
    /// there to be told.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        let bytes = self.text.as_bytes();
        let _ = match self.status {
            0 => std::io::stdout().write_all(bytes),
            _ => std::io::stderr().write_all(bytes),
        };
        ExitCode::from(self.status)
    }
}

const HEALTH: &str = "health";
#[cfg(feature = "top")]
const TOP: &str = "top";
const ADMIN: &str = "admin";

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
        .args(OPTIONS.iter().map(argument))
        .args_override_self(true)
        .next_line_help(true)
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .subcommands(subcommands())
}

/// Everything else that the program can do: one entry here and one arm in [`parse`].
fn subcommands() -> Vec<Command> {
    let health = Command::new(HEALTH)
        .about("Ask a running server whether it is well: exit status 0 if so, 1 if not")
        .arg(admin_argument());
    #[cfg(feature = "top")]
    let top = Command::new(TOP)
        .about("Show a running server's numbers in this terminal, live; q quits")
        .arg(admin_argument());
    vec![
        health,
        #[cfg(feature = "top")]
        top,
        traces::replay_command(),
        traces::trace_command(),
    ]
}

/// `--admin URL`, for subcommands that talk to a running server; [`admin_url`] reads it.
fn admin_argument() -> Arg {
    Arg::new(ADMIN)
        .long(ADMIN)
        .value_name("URL")
        .help(
            "Where its admin interface is, as http://HOST:PORT; without, adminPort and adminBindAddress say",
        )
        .value_parser(AnyValue { choices: &[] })
        .value_hint(ValueHint::Url)
}

fn argument(option: &Definition) -> Arg {
    let choices = option.field.choices();
    let argument = Arg::new(option.variable)
        .long(kebab_case(option.variable))
        .env(option.variable)
        .hide_env_values(true)
        .help(option.help)
        .help_heading(option.heading)
        .value_name(option.field.value_name())
        .value_parser(AnyValue { choices })
        .value_hint(option.field.hint())
        .action(ArgAction::Set)
        .allow_negative_numbers(true);
    let argument = match option.field.show(&mut Config::default()) {
        Some(default) => argument.default_value(default),
        None => argument,
    };
    if option.field.is_switch() { argument.num_args(0..=1).default_missing_value("true") } else { argument }
}

/// `eventTimeoutMs` becomes `event-timeout-ms`.
fn kebab_case(variable: &str) -> String {
    let mut kebab = String::with_capacity(variable.len() + 4);
    for character in variable.chars() {
        if character.is_ascii_uppercase() {
            kebab.push('-');
        }
        kebab.push(character.to_ascii_lowercase());
    }
    kebab
}

/// Sets one option, by the name of its variable.
///
/// # Errors
///
/// What is accepted. The option is as it was.
pub fn set(config: &mut Config, variable: &str, value: &str) -> Result<(), String> {
    let option = OPTIONS.iter().find(|option| option.variable == variable);
    let option = option.ok_or_else(|| "the name of an option".to_owned())?;
    option.field.read(config, OsStr::new(value)).ok_or_else(|| option.field.expected())
}

/// What an option is set to, as one would write it. `None`: to nothing, or there is no such option.
#[must_use]
pub fn get(config: &Config, variable: &str) -> Option<String> {
    OPTIONS.iter().find(|option| option.variable == variable)?.field.show(&mut config.clone())
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
    let matches = command().try_get_matches_from(args).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Exit { status: 0, text: error.render().to_string() }
        }
        _ => Exit::refused(refusal::sentence(&error)),
    })?;
    match matches.subcommand() {
        Some((HEALTH, health)) => admin_url(health, variable).map(Invocation::Health),
        #[cfg(feature = "top")]
        Some((TOP, top)) => admin_url(top, variable).map(Invocation::Top),
        Some((traces::REPLAY, replay)) => traces::replay(replay).map(Invocation::Replay),
        Some((traces::TRACE, trace)) => traces::trace(trace).map(Invocation::Trace),
        _ => resolve(&matches, variable).map(Invocation::Serve),
    }
}

/// What `--admin` says, and else the server's own variables.
fn admin_url(matches: &ArgMatches, variable: impl Fn(&str) -> Option<OsString>) -> Result<AdminUrl, Exit> {
    const EXPECTED: &str = "http://HOST:PORT";
    if let Some(url) = matches.get_one::<OsString>(ADMIN) {
        let admin = url.to_str().and_then(|url| url.parse().ok());
        return admin.ok_or_else(|| refuse("--admin", url, EXPECTED));
    }
    let mut config = Config::default();
    for option in OPTIONS.iter().filter(|option| ["adminPort", "adminBindAddress"].contains(&option.variable))
    {
        if let Some(value) = variable(option.variable).filter(|value| !value.is_empty()) {
            read(option, &Origin::Variable, &value, &mut config)?;
        }
    }
    match config.admin_port {
        Some(port) if port != 0 => Ok(AdminUrl::local(config.admin_bind_address, port)),
        _ => Err(Exit::refused(format_args!(
            "--admin: a value is missing; expected {EXPECTED}, or a port in adminPort"
        ))),
    }
}

fn read(option: &Definition, origin: &Origin, value: &OsStr, config: &mut Config) -> Result<(), Exit> {
    let refused = || refuse(&name(option.variable, origin), value, &option.field.expected());
    option.field.read(config, value).ok_or_else(refused)
}

/// Where a value comes from: this is how a refusal names the option.
enum Origin {
    Flag,
    Variable,
    Default,
}

fn resolve(matches: &ArgMatches, variable: impl Fn(&str) -> Option<OsString>) -> Result<Config, Exit> {
    let mut config = Config::default();
    for option in OPTIONS {
        let (origin, value) = lookup(option.variable, matches, &variable);
        if let Some(value) = value {
            read(option, &origin, &value, &mut config)?;
        }
    }
    check_ports(&config, |option| lookup(option, matches, &variable).0)?;
    Ok(config)
}

fn lookup(
    option: &str,
    matches: &ArgMatches,
    variable: impl Fn(&str) -> Option<OsString>,
) -> (Origin, Option<OsString>) {
    if matches.value_source(option) == Some(ValueSource::CommandLine) {
        return (Origin::Flag, matches.get_one::<OsString>(option).cloned());
    }
    match variable(option) {
        Some(value) if !value.is_empty() => (Origin::Variable, Some(value)),
        _ => (Origin::Default, None),
    }
}

fn name(option: &str, origin: &Origin) -> String {
    match origin {
        Origin::Flag => format!("--{}", kebab_case(option)),
        Origin::Variable | Origin::Default => option.to_owned(),
    }
}

fn refuse(name: &str, value: &OsStr, expected: &str) -> Exit {
    Exit::refused(format_args!("{name}: {} is not accepted; expected {expected}", refusal::quoted(value)))
}

/// Two listeners cannot share a port: that is known here, and said better than by a failed bind.
fn check_ports(config: &Config, origin: impl Fn(&str) -> Origin) -> Result<(), Exit> {
    let listeners = [
        ("eventSourceServerPort", Some(config.event_source_server_port), config.event_source_bind_address),
        ("userServerPort", Some(config.user_server_port), config.user_bind_address),
        ("adminPort", config.admin_port, config.admin_bind_address),
    ];
    for (index, (second, port, address)) in listeners.iter().enumerate() {
        let Some(port) = port.filter(|&port| port != 0) else { continue };
        for (first, other_port, other_address) in &listeners[..index] {
            if *other_port != Some(port) || !overlap(*address, *other_address) {
                continue;
            }
            let (blamed, other) = match origin(second) {
                Origin::Default => (first, second),
                _ => (second, first),
            };
            return Err(refuse(
                &name(blamed, &origin(blamed)),
                OsStr::new(&port.to_string()),
                &format!("a port that {} does not use on the same address", name(other, &origin(other))),
            ));
        }
    }
    Ok(())
}

/// Whether the kernel would refuse to listen on one port of both addresses.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
}
