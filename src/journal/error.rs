//! Why a journal cannot be used, as one sentence.

use std::{fmt, io};

/// One sentence, without the folder and without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalError {
    sentence: String,
    damage: Option<(String, u64)>,
    ended: Option<Ended>,
}

/// A start was told to end before the journal had been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// It was told so twice.
    pub forced: bool,
}

impl JournalError {
    /// An error of this sentence.
    pub(crate) fn new(sentence: String) -> Self {
        Self { sentence, damage: None, ended: None }
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
        Self { damage: Some((file.to_owned(), offset)), ..Self::new(sentence) }
    }

    /// The start was told to end. It has changed nothing that a later one needs.
    pub(crate) fn ended(ended: Ended) -> Self {
        let sentence = "the server was told to end before the journal had been read".to_owned();
        Self { ended: Some(ended), ..Self::new(sentence) }
    }

    /// The start was told to end: nothing is wrong with the journal.
    #[must_use]
    pub fn is_end(&self) -> Option<Ended> {
        self.ended
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
