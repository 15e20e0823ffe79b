//! A line of text beside the journal, for the owner of the journal. An edge of NATS keeps its place in the log there.
//!
//! It is replaced as a whole and not synced. So it must be about something that the journal has already: what is older than that is
//! of use as well, and a machine that ends may leave an older one, a torn one or none.

use super::Log;
use std::io;

const NOTE: &str = "stream.place";
const TEMPORARY: &str = "stream.place.tmp";
/// Longest text that is read.
const BYTES_MAX: usize = 1024;

impl Log {
    /// Replaces the note.
    ///
    /// # Errors
    ///
    /// If it cannot be written: the old one is still there.
    pub fn keep_note(&mut self, text: &str) -> io::Result<()> {
        let file = self.disk.create(TEMPORARY)?;
        let written = self.disk.write_at(file, 0, text.as_bytes());
        self.disk.close(file);
        written?;
        self.disk.rename(TEMPORARY, NOTE)
    }

    /// The note, if there is one that can be read.
    pub fn note(&mut self) -> Option<String> {
        let file = self.disk.open(NOTE).ok()?;
        let mut bytes = vec![0; BYTES_MAX];
        let read = self.disk.read_at(file, 0, &mut bytes);
        self.disk.close(file);
        bytes.truncate(read.ok()?);
        String::from_utf8(bytes).ok()
    }
}
