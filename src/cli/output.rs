//! Exit statuses, and where the subcommands that work on files read and write.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write, stderr, stdin, stdout},
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

/// Prints to standard output. Returns the exit status: 1 if that cannot be written.
pub(super) fn print(text: &str) -> u8 {
    match stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()) {
        Ok(()) => OK,
        // The reader has closed its end.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => OK,
        Err(error) => complain(DIFFERENT, &format!("cannot write to standard output: {error}")),
    }
}

/// The name of a file as text that commands no terminal and reorders nothing.
pub(super) fn printable(path: &Path) -> String {
    let is_harmful = |character: char| {
        character.is_control()
            || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let name = path.to_string_lossy();
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if is_harmful(character) {
            text.extend(character.escape_unicode());
        } else {
            text.push(character);
        }
    }
    text
}

pub(super) fn complain(status: u8, sentence: &str) -> u8 {
    let _ = writeln!(stderr(), "fortnight: {sentence}");
    status
}
