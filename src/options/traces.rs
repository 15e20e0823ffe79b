//! The subcommands that work on traces: `fortnight replay` and `fortnight trace`.

use super::{AnyValue, Exit, refusal, refuse};
use crate::{
    time::Micros,
    trace::command::{Replay, Trace, parse_time},
};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};
use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

pub(super) const REPLAY: &str = "replay";
pub(super) const TRACE: &str = "trace";
const TRACES: &str = "TRACE";
const FILE: &str = "FILE";
const EXPECT: &str = "expect";
const BLESS: &str = "bless";
const SHOW: &str = "show";
const CUT: &str = "cut";
const FROM: &str = "from";
const TO: &str = "to";

/// What [`FROM`] and [`TO`] accept.
pub(super) const EXPECTED_TIME: &str = "a time since the start such as 1200 (microseconds), 35ms or 1.5s";
/// What [`EXPECT`] accepts.
pub(super) const EXPECTED_FOLDER: &str = "the name of a folder";

pub(super) fn replay_command() -> Command {
    Command::new(REPLAY)
        .about("Replay recorded traces on the real server code, without ports and without waiting")
        .long_about(
            "Replay recorded traces on the real server code, with simulated sockets and virtual time: \
             the same result on every run. Prints what every user received, as a digest, and what was counted.",
        )
        .after_help(
            "Exit status: 0, 1 if something is not as expected, 2 if a file is no trace or is damaged.",
        )
        .arg(file_argument(TRACES).num_args(1..).action(ArgAction::Append).help("Traces; - is standard input"))
        .arg(
            flag(EXPECT)
                .value_name("DIR")
                .value_hint(ValueHint::DirPath)
                .help("Compare with what is stored in this folder, NAME.expected for NAME.trace"),
        )
        .arg(
            Arg::new(BLESS)
                .long(BLESS)
                .action(ArgAction::SetTrue)
                .help("Store what comes out in the folder of --expect rather than compare with it"),
        )
}

pub(super) fn trace_command() -> Command {
    let show = Command::new(SHOW)
        .about("Print a trace as a timeline for people")
        .arg(file_argument(FILE).help("The trace; - is standard input"));
    let cut = Command::new(CUT)
        .about("Print a piece of a trace, as a trace, with the connections that were there before")
        .arg(file_argument(FILE).help("The trace; - is standard input"))
        .arg(
            flag(FROM)
                .value_name("TIME")
                .help("Where it begins: microseconds since the start, or with a unit: us, ms or s; without, at the start"),
        )
        .arg(flag(TO).value_name("TIME").help("Where it ends; what happened then is left out; without, at the end"));
    Command::new(TRACE)
        .about("Look into recorded traces")
        .after_help(
            "Exit status: 0, 1 if the output cannot be written, 2 if the file is no trace or is damaged.",
        )
        .disable_help_subcommand(true)
        .subcommands([show, cut])
}

fn file_argument(name: &'static str) -> Arg {
    Arg::new(name).value_name(name).value_parser(AnyValue { choices: &[] }).value_hint(ValueHint::FilePath)
}

fn flag(name: &'static str) -> Arg {
    Arg::new(name).long(name).value_parser(AnyValue { choices: &[] })
}

/// What `fortnight replay` is told.
pub(super) fn replay(matches: &ArgMatches) -> Result<Replay, Exit> {
    let traces: Vec<PathBuf> =
        matches.get_many::<OsString>(TRACES).into_iter().flatten().map(PathBuf::from).collect();
    if traces.is_empty() {
        return Err(missing(TRACES, "the names of traces"));
    }
    let expect = match matches.get_one::<OsString>(EXPECT) {
        Some(folder) if folder.is_empty() => return Err(refuse("--expect", folder, EXPECTED_FOLDER)),
        folder => folder.map(PathBuf::from),
    };
    let bless = matches.get_flag(BLESS);
    if bless && expect.is_none() {
        return Err(Exit::refused("--bless: not accepted alone; expected --expect DIR as well"));
    }
    Ok(Replay { traces, expect, bless })
}

/// What `fortnight trace` is told.
pub(super) fn trace(matches: &ArgMatches) -> Result<Trace, Exit> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(missing("trace", "fortnight trace show or fortnight trace cut"));
    };
    let Some(file) = matches.get_one::<OsString>(FILE).map(PathBuf::from) else {
        return Err(missing(FILE, "the name of a trace"));
    };
    if name == SHOW {
        return Ok(Trace::Show { file });
    }
    let from = time(matches, FROM)?.unwrap_or(0);
    let to = time(matches, TO)?.unwrap_or(Micros::MAX);
    if to < from {
        let to = matches.get_one::<OsString>(TO).map_or(OsStr::new(""), OsString::as_os_str);
        return Err(refuse("--to", to, "a time not before that of --from"));
    }
    Ok(Trace::Cut { file, range: from..to })
}

fn time(matches: &ArgMatches, name: &str) -> Result<Option<Micros>, Exit> {
    let Some(value) = matches.get_one::<OsString>(name) else {
        return Ok(None);
    };
    let time = value.to_str().and_then(parse_time);
    time.map(Some).ok_or_else(|| refuse(&format!("--{name}"), value, EXPECTED_TIME))
}

fn missing(what: &str, expected: &str) -> Exit {
    Exit::refused(refusal::missing(what, expected))
}
