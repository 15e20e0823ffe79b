//! Exit statuses, and where the subcommands that work on files read and write.

use std::{
    fs::File,
    io::{Read, Write, stderr, stdin, stdout},
    path::Path,
};

/// Everything is well.
pub(super) const OK: u8 = 0;
/// Something is not as expected, or could not be written.
pub(super) const DIFFERENT: u8 = 1;
/// A file is no trace, or is damaged.
pub(super) const DAMAGED: u8 = 2;

/// Opens a file; `-` is standard input.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>, String> {
    if path == Path::new("-") {
        return Ok(Box::new(stdin().lock()));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

pub(super) fn print(text: &str) {
    // Whoever reads it may have gone by now; the exit status still counts.
    let _ = stdout().write_all(text.as_bytes());
}

pub(super) fn complain(status: u8, sentence: &str) -> u8 {
    let _ = writeln!(stderr(), "fortnight: {sentence}");
    status
}
