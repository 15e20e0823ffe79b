//! `fortnight replay`: replays traces and compares the outcomes with those that are stored.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};

use super::{
    exit::{Exit, missing, refuse},
    junit::{self, Case, Verdict},
    output::{DAMAGED, DIFFERENT, OK, complain, open, print, printable},
    value::{file_argument, flag},
};
use crate::{
    engine::event::parse_number,
    trace::{Expectation, Keep, Outcome, Replayed, Report, Shown, replay},
};

pub(super) const NAME: &str = "replay";
const TRACES: &str = "TRACE";
const EXPECT: &str = "expect";
const BLESS: &str = "bless";
const QUIET: &str = "quiet";
const SHOW: &str = "show";
const JUNIT: &str = "junit";

/// What [`EXPECT`], [`SHOW`] and [`JUNIT`] accept.
const EXPECTED_FOLDER: &str = "the name of a folder";
const EXPECTED_USER: &str = "a user's id, its number in the trace, or all";
const EXPECTED_FILE: &str = "the name of a file";

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
        .arg(flag(SHOW).value_name("USER").help(
            "Print what a user received, line by line, with the time of each: the user who has this id, or this \
             number in the trace; all: every user",
        ))
        .arg(
            flag(JUNIT)
                .value_name("FILE")
                .value_hint(ValueHint::FilePath)
                .help("Write the verdict of each trace to this file, as JUnit XML"),
        )
}

/// What a flag of this subcommand accepts. `None`: it has no such flag.
pub(super) fn expected(flag: &str) -> Option<&'static str> {
    match flag {
        "--expect" => Some(EXPECTED_FOLDER),
        "--show" => Some(EXPECTED_USER),
        "--junit" => Some(EXPECTED_FILE),
        _ => None,
    }
}

/// The arguments of `fortnight replay`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The traces.
    pub traces: Vec<PathBuf>,
    /// The folder of the expectations: a file `NAME.expected` for each `NAME.trace`.
    pub expect: Option<PathBuf>,
    /// Write the expectations rather than compare with them.
    pub bless: bool,
    /// Print differences and the verdict only.
    pub quiet: bool,
    /// Print what these users received.
    pub show: Option<Shown>,
    /// Write the verdicts to this file as well.
    pub junit: Option<PathBuf>,
}

impl Replay {
    /// The arguments on the command line.
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
        let show = match matches.get_one::<OsString>(SHOW) {
            None => None,
            Some(_) if bless => {
                return Err(Exit::refused("--bless: not accepted with --show; expected one of them"));
            }
            Some(user) if user == "all" => Some(Shown::All),
            Some(user) => {
                let number = user.to_str().and_then(|user| parse_number(user.as_bytes()));
                Some(Shown::One(number.ok_or_else(|| refuse("--show", user, EXPECTED_USER))?))
            }
        };
        let junit = match matches.get_one::<OsString>(JUNIT) {
            Some(file) if file.is_empty() => return Err(refuse("--junit", file, EXPECTED_FILE)),
            file => file.map(PathBuf::from),
        };
        Ok(Self { traces, expect, bless, quiet: matches.get_flag(QUIET), show, junit })
    }
}

/// Replays traces. Outcomes go to standard output, then the verdict and the differences; errors go to standard error.
///
/// Returns the exit status: 0; 1 if something is not as expected, or cannot be written; 2 if a file is no trace, or is
/// damaged.
pub fn run(options: &Replay) -> u8 {
    let mut cases = Vec::with_capacity(options.traces.len());
    let mut status = OK;
    for path in &options.traces {
        let name = printable(path);
        let (verdict, printed) = replay_one(path, &name, options);
        status = status.max(verdict.status()).max(printed);
        cases.push(Case { name, verdict });
    }
    if options.expect.is_some() && !options.bless {
        status = status.max(print(&verdict_of(&cases)));
    }
    if let Some(file) = &options.junit
        && let Err(error) = fs::write(file, junit::report(&cases))
    {
        let sentence = format!("--junit: cannot write {}: {error}", printable(file));
        status = status.max(complain(DIFFERENT, &sentence));
    }
    status
}

/// How many traces differ, and how.
fn verdict_of(cases: &[Case]) -> String {
    let count = |verdict: fn(&Verdict) -> bool| cases.iter().filter(|case| verdict(&case.verdict)).count();
    let differ = count(|verdict| matches!(verdict, Verdict::Different(_)));
    let damaged = count(|verdict| matches!(verdict, Verdict::Damaged(_)));
    let traces = if cases.len() == 1 { "trace" } else { "traces" };
    let mut text = format!("{} {traces}, {differ} differ", cases.len());
    if damaged > 0 {
        text.push_str(&format!(", {damaged} damaged"));
    }
    text.push('\n');
    for Case { name, verdict } in cases {
        if let Verdict::Different(differences) = verdict {
            differences.iter().for_each(|difference| text.push_str(&format!("{name}: {difference}\n")));
        }
    }
    text
}

/// Gives the verdict, and the exit status of printing.
fn replay_one(path: &Path, name: &str, options: &Replay) -> (Verdict, u8) {
    let damaged = |reason: String| {
        complain(DAMAGED, &format!("{name}: {reason}"));
        Verdict::Damaged(reason)
    };
    let keep = match (options.show, &options.expect) {
        (Some(shown), _) => Keep::Lines(shown),
        (None, Some(_)) => Keep::Numbers,
        (None, None) => Keep::Digests,
    };
    let replayed = open(path).and_then(|input| replay(input, keep).map_err(|damage| damage.to_string()));
    let Replayed { outcome, time, damage } = match replayed {
        Ok(replayed) => replayed,
        Err(reason) => return (damaged(reason), OK),
    };
    let mut printed = OK;
    let is_wanted = !options.quiet || options.show.is_some();
    if is_wanted && damage.as_ref().is_none_or(|damage| damage.cut) {
        printed = print(&Report { name, outcome: &outcome, time, shown: options.show }.to_string());
    }
    if let Some(damage) = damage {
        return (damaged(damage.to_string()), printed);
    }
    if let Some(shown) = options.show
        && !outcome.streams.iter().any(|stream| shown.includes(stream.user, stream.id))
    {
        printed = complain(DIFFERENT, &format!("--show: there is no such user in {name}"));
    }
    let Some(folder) = &options.expect else {
        return (Verdict::Same, printed);
    };
    let file = expectation_of(folder, path);
    let compared = if options.bless { bless(folder, &file, outcome) } else { compare(&file, &outcome) };
    let verdict = compared.unwrap_or_else(|sentence| {
        complain(DIFFERENT, &sentence);
        Verdict::Different(vec![sentence])
    });
    (verdict, printed)
}

fn bless(folder: &Path, file: &Path, outcome: Outcome) -> Result<Verdict, String> {
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(file, Expectation::from(outcome).to_text()))
        .map(|()| Verdict::Same)
        .map_err(|error| format!("--bless: cannot write {}: {error}", printable(file)))
}

fn compare(file: &Path, outcome: &Outcome) -> Result<Verdict, String> {
    let text = fs::read_to_string(file).map_err(|error| {
        format!("--expect: cannot read {}: {error}; --bless would store it", printable(file))
    })?;
    let expectation = Expectation::parse(&text).map_err(|error| format!("{}: {error}", printable(file)))?;
    let differences: Vec<String> = expectation.compare(outcome).iter().map(ToString::to_string).collect();
    Ok(if differences.is_empty() { Verdict::Same } else { Verdict::Different(differences) })
}

/// The path of the expectation of a trace.
#[must_use]
pub fn expectation_of(folder: &Path, trace: &Path) -> PathBuf {
    folder.join(trace.file_name().unwrap_or_default()).with_extension("expected")
}
