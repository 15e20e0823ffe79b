//! The lines that a client is sent and that are no events: they begin with `+` or `-`.

use crate::epoch::Epoch;
use crate::sequence::Cursor;
use smallvec::SmallVec;
use std::fmt;

/// How a client's lines end, and so those that are written to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Terminator {
    /// LF.
    #[default]
    Lf,
    /// CRLF.
    CrLf,
}

impl Terminator {
    /// The terminator of a line that ends with LF.
    #[must_use]
    pub fn of(line: &[u8]) -> Self {
        if line.ends_with(b"\r\n") { Self::CrLf } else { Self::Lf }
    }

    fn bytes(self) -> &'static str {
        match self {
            Self::Lf => "\n",
            Self::CrLf => "\r\n",
        }
    }
}

/// One line, its terminator included.
pub type Line = SmallVec<[u8; 64]>;

/// `+|EPOCH|NEXT`: the answer to a login, or a mark.
#[must_use]
pub fn place_line(epoch: Epoch, next: Cursor, terminator: Terminator) -> Line {
    line(format_args!("+|{epoch}|{next}{}", terminator.bytes()))
}

/// `-|EPOCH|NEXT|REASON`: a refusal, or the last words on a connection.
#[must_use]
pub fn end_line(epoch: Epoch, next: Cursor, reason: &str, terminator: Terminator) -> Line {
    line(format_args!("-|{epoch}|{next}|{reason}{}", terminator.bytes()))
}

fn line(text: fmt::Arguments<'_>) -> Line {
    struct Target(Line);
    impl fmt::Write for Target {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    let mut line = Target(Line::new());
    // Writing into memory cannot fail.
    let _ = fmt::Write::write_fmt(&mut line, text);
    line.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_the_contract_says() {
        let epoch = Epoch::new(255);
        assert_eq!(&place_line(epoch, Cursor::new(17), Terminator::Lf)[..], b"+|00000000000000ff|17\n");
        assert_eq!(
            &end_line(epoch, Cursor::END, "replaced", Terminator::CrLf)[..],
            b"-|00000000000000ff|18446744073709551616|replaced\r\n"
        );
    }

    #[test]
    fn a_terminator_is_recognised() {
        assert_eq!(Terminator::of(b"2932|now\r\n"), Terminator::CrLf);
        assert_eq!(Terminator::of(b"2932|now\n"), Terminator::Lf);
    }
}
