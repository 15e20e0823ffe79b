//! `fortnight trace`: shows a trace, or cuts a piece out of one.

use std::{
    ffi::{OsStr, OsString},
    io::{self, BufWriter, stdout},
    ops::Range,
    path::PathBuf,
};

use clap::{ArgMatches, Command};

use super::{
    exit::{Exit, missing, refuse},
    output::{DAMAGED, DIFFERENT, OK, complain, open, printable},
    value::{file_argument, flag},
};
use crate::{
    time::Micros,
    trace::{cut, show},
};

pub(super) const NAME: &str = "trace";
const FILE: &str = "FILE";
const SHOW: &str = "show";
const CUT: &str = "cut";
const FROM: &str = "from";
const TO: &str = "to";

/// What [`FROM`] and [`TO`] accept.
const EXPECTED_TIME: &str = "a time since the start such as 1200 (microseconds), 35ms or 1.5s";

pub(super) fn command() -> Command {
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
    Command::new(NAME)
        .about("Look into recorded traces")
        .after_help(
            "Exit status: 0, 1 if the output cannot be written, 2 if the file is no trace or is damaged.",
        )
        .subcommands([show, cut])
}

/// What a flag of this subcommand accepts. `None`: it has no such flag.
pub(super) fn expected(flag: &str) -> Option<&'static str> {
    ["--from", "--to"].contains(&flag).then_some(EXPECTED_TIME)
}

/// The arguments of `fortnight trace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trace {
    /// Print a trace as a timeline.
    Show {
        /// The trace; `-` is standard input.
        file: PathBuf,
    },
    /// Print a piece of a trace, as a trace.
    Cut {
        /// The trace; `-` is standard input.
        file: PathBuf,
        /// The times that are in the piece.
        range: Range<Micros>,
    },
}

impl Trace {
    /// The arguments on the command line.
    pub(super) fn from_matches(matches: &ArgMatches) -> Result<Self, Exit> {
        let Some((name, matches)) = matches.subcommand() else {
            return Err(missing("trace", "fortnight trace show or fortnight trace cut"));
        };
        let Some(file) = matches.get_one::<OsString>(FILE).map(PathBuf::from) else {
            return Err(missing(FILE, "the name of a trace"));
        };
        if name == SHOW {
            return Ok(Self::Show { file });
        }
        let from = time(matches, FROM)?.unwrap_or(0);
        let to = time(matches, TO)?.unwrap_or(Micros::MAX);
        if to < from {
            let to = matches.get_one::<OsString>(TO).map_or(OsStr::new(""), OsString::as_os_str);
            return Err(refuse("--to", to, "a time not before that of --from"));
        }
        Ok(Self::Cut { file, range: from..to })
    }
}

fn time(matches: &ArgMatches, name: &str) -> Result<Option<Micros>, Exit> {
    let Some(value) = matches.get_one::<OsString>(name) else {
        return Ok(None);
    };
    let time = value.to_str().and_then(parse_time);
    time.map(Some).ok_or_else(|| refuse(&format!("--{name}"), value, EXPECTED_TIME))
}

/// Prints a trace, or a piece of it. Returns the exit status: 0; 1 if it cannot be printed; 2 if it is no trace, or is
/// damaged.
pub fn run(options: &Trace) -> u8 {
    let (Trace::Show { file } | Trace::Cut { file, .. }) = options;
    let mut output = BufWriter::new(stdout().lock());
    let printed = open(file).map(|input| match options {
        Trace::Show { .. } => show(input, &mut output),
        Trace::Cut { range, .. } => cut(input, range.clone(), &mut output),
    });
    match printed {
        Err(reason) => complain(DAMAGED, &format!("{}: {reason}", printable(file))),
        Ok(Ok(Err(damage))) => complain(DAMAGED, &format!("{}: {damage}", printable(file))),
        // The reader has closed its end.
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => OK,
        Ok(Err(error)) => complain(DIFFERENT, &format!("cannot write to standard output: {error}")),
        Ok(Ok(Ok(()))) => OK,
    }
}

/// Reads a time: microseconds, or a number with the unit `us`, `ms` or `s`.
#[must_use]
pub fn parse_time(text: &str) -> Option<Micros> {
    let (number, unit) = match text.find(|character: char| character.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, "us"),
    };
    let digits = match unit {
        "us" => 0,
        "ms" => 3,
        "s" => 6,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || fraction.len() > digits {
        return None;
    }
    format!("{whole}{fraction:0<digits$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_time;

    #[test]
    fn times_have_units() {
        for (text, time) in
            [("0", 0), ("1200", 1200), ("7us", 7), ("1.5ms", 1500), ("2s", 2_000_000), ("0.000001s", 1)]
        {
            assert_eq!(parse_time(text), Some(time), "{text}");
        }
        for text in ["", "s", "-1", "1.5", "1.0000001s", "1m", "1 s", "99999999999999999999"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
