//! The bytes of an event, and the way in which they are copied.

#![forbid(unsafe_code)]

/// Copied at once, whatever the length: nearly every event is shorter, and an unpredictable length costs
/// more than the bytes do.
const BLOCK: usize = 32;

/// An event's line in a larger buffer: `bytes` starts with it and may go on after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) len: usize,
}

impl Text<'_> {
    /// As many bytes behind a text may be overwritten by [`Text::copy_to`].
    pub(crate) const OVERCOPY: usize = BLOCK;

    /// Writes the text to `target[at..]`, and perhaps some more behind it, which the next text will overwrite.
    #[inline(always)]
    pub(crate) fn copy_to(self, target: &mut [u8], at: usize) {
        if self.len <= BLOCK
            && let Some(from) = self.bytes.first_chunk::<BLOCK>()
            && let Some(to) = target.get_mut(at..at + BLOCK)
        {
            to.copy_from_slice(from);
        } else {
            self.copy_exactly(target, at);
        }
    }

    #[cold]
    fn copy_exactly(self, target: &mut [u8], at: usize) {
        target[at..at + self.len].copy_from_slice(&self.bytes[..self.len]);
    }
}
