//! The losses at the end of the server, for the log.

/// Lines and bytes that sources sent and the server did not release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// Whole lines that had been read.
    pub(super) lines: usize,
    /// Bytes that had been read, or had arrived.
    pub(super) bytes: usize,
}

impl Lost {
    /// Adds what is left of chunks.
    pub(super) fn add<'a>(&mut self, rests: impl Iterator<Item = &'a [u8]>) {
        for rest in rests {
            self.lines += memchr::memchr_iter(b'\n', rest).count();
            self.bytes += rest.len();
        }
    }
}
