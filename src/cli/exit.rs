//! How the program ends when there is nothing to run, and the form of its refusals.

use crate::options::refusal;
use std::{ffi::OsStr, fmt, io::Write, process::ExitCode};

/// The end of the program: `--help`, `--version`, or a refused command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit status: 0 if the user asked for `text`, 2 if the command line or a variable is refused; 1 if that is so of a
    /// health check.
    pub status: u8,
    /// What to print, line end included: to standard output if `status` is 0, to standard error otherwise.
    pub text: String,
}

impl Exit {
    /// The end of a program that is refused for what the sentence says.
    #[must_use]
    pub fn refused(sentence: impl fmt::Display) -> Self {
        Self { status: 2, text: format!("fortnight: {sentence}\n") }
    }

    /// The end of a health check that cannot ask: container engines know 0 and 1, and reserve 2.
    pub(super) fn of_check(self) -> Self {
        Self { status: self.status.min(1), ..self }
    }

    /// Prints the text and returns the status for `main` to return. A closed stream is no error: nobody would read
    /// about it.
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

/// The refusal of a value. `name` is that of the flag or of the variable that brought it.
pub(super) fn refuse(name: &str, value: &OsStr, expected: &str) -> Exit {
    Exit::refused(refusal(name, value, expected))
}

/// The refusal of something that has no value.
pub(super) fn missing(what: &str, expected: &str) -> Exit {
    Exit::refused(missing_sentence(what, expected))
}

/// The sentence for something that has no value.
pub(super) fn missing_sentence(what: &str, expected: &str) -> String {
    format!("{what}: a value is missing; expected {expected}")
}
