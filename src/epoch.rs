//! The name of a sequence of events (docs/SPEC.md section 8).

use std::fmt;

/// An epoch: 64 bits drawn at random. Two servers, and two lives of one server without a journal, have different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch with these bits, which are random or have been read from a journal.
    #[must_use]
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Reads the 16 lower-case hexadecimal digits that it is written in.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != 16 {
            return None;
        }
        text.iter()
            .try_fold(0, |bits, &byte| {
                let digit = match byte {
                    b'0'..=b'9' => byte - b'0',
                    b'a'..=b'f' => byte - b'a' + 10,
                    _ => return None,
                };
                Some(bits << 4 | u64::from(digit))
            })
            .map(Self)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for bits in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            let text = Epoch::new(bits).to_string();
            assert_eq!(text.len(), 16);
            assert_eq!(Epoch::parse(text.as_bytes()), Some(Epoch::new(bits)));
        }
        assert_eq!(Epoch::new(0xabc).to_string(), "0000000000000abc");
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789ABCDEF",
            "0123456789abcdeg",
            "+123456789abcdef",
        ] {
            assert_eq!(Epoch::parse(text.as_bytes()), None, "{text}");
        }
    }
}
