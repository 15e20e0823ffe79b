//! The identity of a file, which a copy of the file does not have.

use std::fmt;

/// Inode and time of birth of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The inode's number.
    pub inode: u64,
    /// When the file was made, in nanoseconds since 1970. `None`: this file system does not say.
    pub birth: Option<u64>,
}

impl Identity {
    /// Whether a file system that says this can tell a file from its copy.
    #[must_use]
    pub fn is_stable(self) -> bool {
        self.birth.is_some()
    }

    /// Reads what `Display` has written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (inode, birth) = text.split_once(' ')?;
        let birth = if birth == "none" { None } else { Some(birth.parse().ok()?) };
        Some(Self { inode: inode.parse().ok()?, birth })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.birth {
            Some(birth) => write!(f, "{} {birth}", self.inode),
            None => write!(f, "{} none", self.inode),
        }
    }
}
