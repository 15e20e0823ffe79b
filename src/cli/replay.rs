//! `fortnight replay`: replays traces and compares the outcomes with those that are stored.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};

use super::{
    exit::{Exit, missing, refuse},
    output::{DAMAGED, DIFFERENT, OK, complain, open, print, printable},
    value::{file_argument, flag},
};
use crate::trace::{Expectation, Replayed, Report, replay};

pub(super) const NAME: &str = "replay";
const TRACES: &str = "TRACE";
const EXPECT: &str = "expect";
const BLESS: &str = "bless";
const QUIET: &str = "quiet";

/// What [`EXPECT`] accepts.
const EXPECTED_FOLDER: &str = "the name of a folder";

pub(super) fn command() -> Command {
    Command::new(NAME)
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
        .arg(
            Arg::new(QUIET)
                .long(QUIET)
                .action(ArgAction::SetTrue)
                .help("Print differences and the verdict only, not what came of each trace"),
        )
}

/// What a flag of this subcommand accepts. `None`: it has no such flag.
pub(super) fn expected(flag: &str) -> Option<&'static str> {
    (flag == "--expect").then_some(EXPECTED_FOLDER)
}

/// What `fortnight replay` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The traces.
    pub traces: Vec<PathBuf>,
    /// Where the expectations are: a file `NAME.expected` for each `NAME.trace`.
    pub expect: Option<PathBuf>,
    /// Write the expectations rather than compare with them.
    pub bless: bool,
    /// Print differences and the verdict only.
    pub quiet: bool,
}

impl Replay {
    /// What the command line says.
    pub(super) fn from_matches(matches: &ArgMatches) -> Result<Self, Exit> {
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
        Ok(Self { traces, expect, bless, quiet: matches.get_flag(QUIET) })
    }
}

/// Replays traces. Outcomes go to standard output, then the verdict and the differences; errors go to standard error.
///
/// Returns the exit status: 0; 1 if something is not as expected, or cannot be written; 2 if a file is no trace, or is
/// damaged.
pub fn run(options: &Replay) -> u8 {
    let mut status = OK;
    let mut differing = 0;
    let mut differences = String::new();
    for path in &options.traces {
        let outcome = replay_one(path, options, &mut differences);
        differing += u32::from(outcome == DIFFERENT);
        status = status.max(outcome);
    }
    if options.expect.is_some() && !options.bless {
        let count = options.traces.len();
        let traces = if count == 1 { "trace" } else { "traces" };
        differences.insert_str(0, &format!("{count} {traces}, {differing} differ\n"));
    }
    status.max(print(&differences))
}

fn replay_one(path: &Path, options: &Replay, differences: &mut String) -> u8 {
    let name = printable(path);
    let replayed = open(path)
        .and_then(|input| replay(input, options.expect.is_some()).map_err(|damage| damage.to_string()));
    let Replayed { outcome, time, damage } = match replayed {
        Ok(replayed) => replayed,
        Err(reason) => return complain(DAMAGED, &format!("{name}: {reason}")),
    };
    let mut status = OK;
    if !options.quiet && damage.as_ref().is_none_or(|damage| damage.cut) {
        status = print(&Report { name: &name, outcome: &outcome, time }.to_string());
    }
    if let Some(damage) = damage {
        return complain(DAMAGED, &format!("{name}: {damage}"));
    }
    let Some(folder) = &options.expect else {
        return status;
    };
    let file = expectation_of(folder, path);
    if options.bless {
        let stored =
            fs::create_dir_all(folder).and_then(|()| fs::write(&file, Expectation::from(outcome).to_text()));
        return match stored {
            Ok(()) => status,
            Err(error) => {
                complain(DIFFERENT, &format!("--bless: cannot write {}: {error}", printable(&file)))
            }
        };
    }
    let expectation = fs::read_to_string(&file)
        .map_err(|error| {
            format!("--expect: cannot read {}: {error}; --bless would store it", printable(&file))
        })
        .and_then(|text| Expectation::parse(&text).map_err(|error| format!("{}: {error}", printable(&file))));
    match expectation {
        Err(reason) => complain(DIFFERENT, &reason),
        Ok(expectation) => {
            for difference in expectation.compare(&outcome) {
                differences.push_str(&format!("{name}: {difference}\n"));
                status = DIFFERENT;
            }
            status
        }
    }
}

/// Where the expectation of a trace is stored.
#[must_use]
pub fn expectation_of(folder: &Path, trace: &Path) -> PathBuf {
    folder.join(trace.file_name().unwrap_or_default()).with_extension("expected")
}
