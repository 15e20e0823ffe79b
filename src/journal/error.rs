//! Why a journal cannot be used, as one sentence.

use std::{fmt, io};

/// One sentence, without the folder and without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalError {
    sentence: String,
    damage: Option<(String, u64)>,
}

impl JournalError {
    /// An error of this sentence.
    pub(crate) fn new(sentence: String) -> Self {
        Self { sentence, damage: None }
    }

    /// The operating system refuses something.
    pub(crate) fn io(what: &str, file: &str, error: &io::Error) -> Self {
        Self::new(format!("{what} {file}: {error}"))
    }

    /// Bytes on the disk differ from the bytes that were written.
    pub(crate) fn damage(file: &str, offset: u64, what: &str) -> Self {
        let sentence = format!(
            "{file}, offset {offset}: damaged: {what}; restore a backup, or cut the journal there with `fortnight journal repair`"
        );
        Self { sentence, damage: Some((file.to_owned(), offset)) }
    }

    /// The place of the damage: file and offset.
    #[must_use]
    pub fn damage_place(&self) -> Option<(&str, u64)> {
        self.damage.as_ref().map(|(file, offset)| (file.as_str(), *offset))
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for JournalError {}
