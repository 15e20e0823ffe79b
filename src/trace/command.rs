//! The subcommands: `fortnight replay` and `fortnight trace`.

use super::{
    cut,
    expectation::Expectation,
    outcome::Report,
    replay::{Replayed, replay},
    show,
};
use crate::time::Micros;
use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write, stderr, stdin, stdout},
    ops::Range,
    path::{Path, PathBuf},
};

/// Everything is well.
const OK: u8 = 0;
/// Something is not as expected, or could not be written.
const DIFFERENT: u8 = 1;
/// A file is no trace, or is damaged.
const DAMAGED: u8 = 2;

/// What `fortnight replay` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The traces.
    pub traces: Vec<PathBuf>,
    /// Where the expectations are: a file `NAME.expected` for each `NAME.trace`.
    pub expect: Option<PathBuf>,
    /// Write the expectations rather than compare with them.
    pub bless: bool,
}

/// What `fortnight trace` is told.
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

/// Replays traces and says what came of them, on standard output; trouble goes to standard error.
///
/// Returns the exit status: 0; 1 if something is not as expected; 2 if a file is no trace, or is damaged.
pub fn run_replay(options: &Replay) -> u8 {
    options.traces.iter().map(|path| replay_one(path, options)).max().unwrap_or(OK)
}

fn replay_one(path: &Path, options: &Replay) -> u8 {
    let name = path.display().to_string();
    let replayed = open(path)
        .and_then(|input| replay(input, options.expect.is_some()).map_err(|damage| damage.to_string()));
    let Replayed { outcome, time, damage } = match replayed {
        Ok(replayed) => replayed,
        Err(reason) => return complain(DAMAGED, &format!("{name}: {reason}")),
    };
    if damage.as_ref().is_none_or(|damage| damage.cut) {
        print(&Report { name: &name, outcome: &outcome, time }.to_string());
    }
    if let Some(damage) = damage {
        return complain(DAMAGED, &format!("{name}: {damage}"));
    }
    let Some(folder) = &options.expect else {
        return OK;
    };
    let file = expectation_of(folder, path);
    if options.bless {
        return match fs::write(&file, Expectation::from(outcome).to_text()) {
            Ok(()) => OK,
            Err(error) => complain(DIFFERENT, &format!("--bless: cannot write {}: {error}", file.display())),
        };
    }
    let expectation = fs::read_to_string(&file)
        .map_err(|error| format!("--expect: cannot read {}: {error}; --bless would store it", file.display()))
        .and_then(|text| Expectation::parse(&text).map_err(|error| format!("{}: {error}", file.display())));
    match expectation {
        Err(reason) => complain(DIFFERENT, &reason),
        Ok(expectation) => {
            let differences = expectation.compare(&outcome);
            for difference in &differences {
                print(&format!("{name}: {difference}\n"));
            }
            if differences.is_empty() { OK } else { DIFFERENT }
        }
    }
}

/// Where the expectation of a trace is stored.
#[must_use]
pub fn expectation_of(folder: &Path, trace: &Path) -> PathBuf {
    folder.join(trace.file_name().unwrap_or_default()).with_extension("expected")
}

/// Prints a trace, or a piece of it. Returns the exit status: 0; 1 if it cannot be printed; 2 if it is no trace, or is
/// damaged.
pub fn run_trace(options: &Trace) -> u8 {
    let (Trace::Show { file } | Trace::Cut { file, .. }) = options;
    let mut output = BufWriter::new(stdout().lock());
    let printed = open(file).map(|input| match options {
        Trace::Show { .. } => show(input, &mut output),
        Trace::Cut { range, .. } => cut(input, range.clone(), &mut output),
    });
    match printed {
        Err(reason) => complain(DAMAGED, &format!("{}: {reason}", file.display())),
        Ok(Ok(Err(damage))) => complain(DAMAGED, &format!("{}: {damage}", file.display())),
        // Whoever reads it has read enough.
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => OK,
        Ok(Err(error)) => complain(DIFFERENT, &format!("cannot write to standard output: {error}")),
        Ok(Ok(Ok(()))) => OK,
    }
}

fn open(path: &Path) -> Result<Box<dyn Read>, String> {
    if path == Path::new("-") {
        return Ok(Box::new(stdin().lock()));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(format!("cannot be read: {error}")),
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

fn print(text: &str) {
    // Whoever reads it may have gone by now; the exit status still counts.
    let _ = stdout().write_all(text.as_bytes());
}

fn complain(status: u8, sentence: &str) -> u8 {
    let _ = writeln!(stderr(), "fortnight: {sentence}");
    status
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
