//! `fortnight journal`: looks into a journal, copies it, and mends it.

use std::{
    ffi::OsString,
    io::{self, BufWriter, Write, stdout},
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{
    exit::{Exit, missing, refuse},
    output::complain,
    value::{file_argument, flag},
};
use crate::{
    config::Config,
    disk::RealDisk,
    journal::{Opening, Settings, tools},
    sequence::{Cursor, SequenceNumber},
    time::MILLISECOND,
};

pub(super) const NAME: &str = "journal";
const FOLDER: &str = "DIR";
const TARGET: &str = "TO";
const FROM: &str = "from";
const TO: &str = "to";
const AT: &str = "at";
const YES: &str = "yes";
const NUMBER: &str = "a whole number from 0 to 18446744073709551615";
/// The exit status where something is damaged, or cannot be done.
const FAILED: u8 = 1;

pub(super) fn command() -> Command {
    let folder = || file_argument(FOLDER).help("The folder of the journal");
    let check = Command::new("check")
        .about("Verify every byte of a journal, also beside a running server; say what there is")
        .arg(folder());
    let dump = Command::new("dump")
        .about("Print events as they were released, also beside a running server")
        .arg(folder())
        .arg(flag(FROM).value_name("N").help("The first number; without, the oldest"))
        .arg(flag(TO).value_name("N").help("The last number; without, the newest"));
    let copy = Command::new("copy")
        .about("Make a consistent copy, also beside a running server; the copy gets an epoch of its own")
        .arg(folder())
        .arg(file_argument(TARGET).help("The folder of the copy"));
    let fork = Command::new("fork")
        .about("Begin a new epoch at the cursor: after a restore, or on a folder that was copied")
        .arg(folder());
    let skip = Command::new("skip")
        .about("Give up all numbers below N that have not come; without --yes, say what that would be")
        .arg(folder())
        .arg(flag(TO).value_name("N").help("The number to go on with"))
        .arg(Arg::new(YES).long(YES).action(ArgAction::SetTrue).help("Do it"));
    let repair = Command::new("repair")
        .about("Cut a journal at the first damage or before a number, and fork it; without --yes, say what would be lost")
        .arg(folder())
        .arg(flag(AT).value_name("N").help("The lowest number that is cut off; without, at the first damage"))
        .arg(Arg::new(YES).long(YES).action(ArgAction::SetTrue).help("Do it"));
    Command::new(NAME)
        .about("Look into a journal, copy it, and mend it")
        .after_help(
            "Exit status: 0, 1 if it is damaged or cannot be used, 2 if the command line is not accepted.",
        )
        .subcommands([check, dump, copy, fork, repair, skip])
}

/// The arguments of `fortnight journal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Journal {
    /// Verify every byte.
    Check(PathBuf),
    /// Print the events of these numbers, both included.
    Dump(PathBuf, u64, u64),
    /// Copy a folder to another, and fork the copy.
    Copy(PathBuf, PathBuf),
    /// Begin a new epoch.
    Fork(PathBuf),
    /// Cut at the first damage or before a number, and fork. False: only say what would be lost.
    Repair(PathBuf, Option<u64>, bool),
    /// Give up all numbers below this one that have not come. False: only say so.
    Skip(PathBuf, u64, bool),
}

impl Journal {
    /// The arguments on the command line.
    pub(super) fn from_matches(matches: &ArgMatches) -> Result<Self, Exit> {
        let Some((name, matches)) = matches.subcommand() else {
            return Err(missing("journal", "fortnight journal check, dump, copy, fork, repair or skip"));
        };
        let path = |name: &str, what: &str| {
            let path = matches.get_one::<OsString>(name).filter(|path| !path.is_empty());
            path.map(PathBuf::from).ok_or_else(|| missing(name, what))
        };
        let folder = path(FOLDER, "the folder of a journal")?;
        Ok(match name {
            "check" => Self::Check(folder),
            "dump" => {
                let from = number(matches, FROM)?.unwrap_or(0);
                Self::Dump(folder, from, number(matches, TO)?.unwrap_or(u64::MAX))
            }
            "copy" => Self::Copy(folder, path(TARGET, "the folder of the copy")?),
            "fork" => Self::Fork(folder),
            "repair" => Self::Repair(folder, number(matches, AT)?, matches.get_flag(YES)),
            _ => {
                let to = number(matches, TO)?.ok_or_else(|| missing("--to", NUMBER))?;
                Self::Skip(folder, to, matches.get_flag(YES))
            }
        })
    }
}

fn number(matches: &ArgMatches, name: &str) -> Result<Option<u64>, Exit> {
    let Some(text) = matches.get_one::<OsString>(name) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| refuse(&format!("--{name}"), text, NUMBER))
}

/// Runs the command. Returns the exit status.
#[must_use]
pub fn run(journal: &Journal) -> u8 {
    let (folder, done) = match journal {
        Journal::Check(folder) => (folder, check(folder)),
        Journal::Dump(folder, from, to) => (folder, dump(folder, *from, *to)),
        Journal::Copy(folder, to) => (folder, copy(folder, to)),
        Journal::Fork(folder) => (folder, fork(folder)),
        Journal::Repair(folder, at, yes) => (folder, repair(folder, *at, *yes)),
        Journal::Skip(folder, to, yes) => (folder, skip(folder, *to, *yes)),
    };
    match done {
        Ok(text) => match stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                complain(FAILED, &format!("cannot write to standard output: {error}"))
            }
            _ => 0,
        },
        Err(reason) => complain(FAILED, &format!("{}: {reason}", folder.display())),
    }
}

fn check(folder: &Path) -> Result<String, String> {
    let mut disk = RealDisk::read_only(folder).map_err(|error| error.to_string())?;
    tools::check(&mut disk).map_err(|error| error.to_string())
}

fn dump(folder: &Path, from: u64, to: u64) -> Result<String, String> {
    let mut disk = RealDisk::read_only(folder).map_err(|error| error.to_string())?;
    let mut out = BufWriter::new(stdout().lock());
    tools::dump(&mut disk, SequenceNumber::new(from), SequenceNumber::new(to), &mut out)
        .map_err(|error| error.to_string())?;
    Ok(String::new())
}

fn copy(folder: &Path, to: &Path) -> Result<String, String> {
    let mut disk = RealDisk::read_only(folder).map_err(|error| error.to_string())?;
    let mut target = RealDisk::lock(to).map_err(|error| format!("{}: {error}", to.display()))?;
    let (epoch, cursor) = tools::copy(&mut disk, &mut target).map_err(|error| error.to_string())?;
    Ok(format!("copied up to {cursor}; the copy's epoch is {epoch}\n"))
}

fn fork(folder: &Path) -> Result<String, String> {
    let mut disk = lock(folder)?;
    let (epoch, cursor) = tools::fork(&mut disk).map_err(|error| error.to_string())?;
    Ok(format!("epoch {epoch} begins at {cursor}\n"))
}

/// A folder that is there, for this process alone.
fn lock(folder: &Path) -> Result<RealDisk, String> {
    RealDisk::read_only(folder).map_err(|error| error.to_string())?;
    RealDisk::lock(folder).map_err(|error| error.to_string())
}

fn repair(folder: &Path, at: Option<u64>, yes: bool) -> Result<String, String> {
    let mut disk = lock(folder)?;
    let cut = tools::find_cut(&mut disk, at.map(SequenceNumber::new).map(Cursor::before))
        .map_err(|error| error.to_string())?;
    let Some(cut) = cut else { return Ok("there is nothing to cut off\n".to_owned()) };
    let lost = match cut.snapshots() {
        snapshots @ 1.. if cut.bytes == 0 => format!("{snapshots} damaged snapshots"),
        _ => format!("{} bytes with every number from {} on", cut.bytes, cut.cursor),
    };
    if !yes {
        return Ok(format!("would remove {lost}, and fork; add --yes to do it\n"));
    }
    tools::repair(Box::new(disk), &cut, &opening()).map_err(|error| error.to_string())?;
    Ok(format!("removed {lost}; the cursor is {}, under a new epoch\n", cut.cursor))
}

/// How a journal is opened to append a block or two.
fn opening() -> Opening {
    let config = Config::default();
    let settings = Settings {
        sync: config.journal_sync,
        interval: config.journal_sync_interval_ms * MILLISECOND,
        segment_bytes: u64::MAX,
        retention_bytes: u64::MAX,
        retention_ms: None,
        snapshot_bytes_least: Settings::SNAPSHOT_BYTES_LEAST,
    };
    Opening { settings, first_sequence: Cursor::START, epoch: None, now: 0 }
}

fn skip(folder: &Path, to: u64, yes: bool) -> Result<String, String> {
    if !yes {
        return Ok(format!("would give up all numbers below {to} that have not come; add --yes to do it\n"));
    }
    let disk = lock(folder)?;
    tools::check(&mut RealDisk::read_only(folder).map_err(|error| error.to_string())?)
        .map_err(|error| error.to_string())?;
    let end = Cursor::before(SequenceNumber::new(to));
    let skipped = tools::skip(Box::new(disk), &opening(), end).map_err(|error| error.to_string())?;
    if skipped.from >= end {
        return Ok(format!("nothing to give up: the cursor is {} already\n", skipped.from));
    }
    Ok(format!(
        "gave up {} numbers from {} on, released {} events that waited; the cursor is {to}\n",
        skipped.numbers, skipped.from, skipped.released
    ))
}
