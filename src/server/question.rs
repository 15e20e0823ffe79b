//! The question in a source's first line, and the acknowledgements that answer it (`docs/SPEC.md` section 9).
//!
//! Only the newest acknowledgement matters. A connection holds one line at a time: where the socket takes only a part of it, the
//! next line is made when the rest has been written. So a source that reads nothing costs a fixed number of bytes.

use super::socket::{is_interrupted, would_block};
use crate::{
    epoch::Epoch,
    resume::{Line, Terminator, place_line},
    sequence::Cursor,
};
use smallvec::SmallVec;
use std::io::{self, ErrorKind, Write};

/// The longest name of a source.
const NAME_BYTES_MAX: usize = 64;
const QUESTION: &[u8] = b"?|ack";
/// The longest question: a bar and a name, and the end of the line.
pub(super) const QUESTION_BYTES_MAX: usize = QUESTION.len() + 1 + NAME_BYTES_MAX + 2;

/// A source's name: 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
pub(super) type Name = SmallVec<[u8; 16]>;

/// The kind of a source's first line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FirstLine {
    /// It may become a question: more bytes are needed.
    Begun,
    /// It is no question.
    Other,
    /// It asks for acknowledgements.
    Question {
        /// Bytes of the line, its end included.
        len: usize,
        /// The name that the source gave.
        name: Option<Name>,
        /// How the line ends.
        terminator: Terminator,
    },
}

/// Classifies the first bytes of a source.
pub(super) fn first_line(bytes: &[u8]) -> FirstLine {
    let common = bytes.len().min(QUESTION.len());
    if bytes[..common] != QUESTION[..common] {
        return FirstLine::Other;
    }
    let window = &bytes[..bytes.len().min(QUESTION_BYTES_MAX)];
    let Some(newline) = memchr::memchr(b'\n', window) else {
        return if window.len() < QUESTION_BYTES_MAX { FirstLine::Begun } else { FirstLine::Other };
    };
    let line = &window[..newline];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let name = match line.strip_prefix(QUESTION) {
        Some(b"") => None,
        Some([b'|', name @ ..]) if is_name(name) => Some(Name::from_slice(name)),
        _ => return FirstLine::Other,
    };
    FirstLine::Question { len: newline + 1, name, terminator: Terminator::of(&window[..=newline]) }
}

fn is_name(name: &[u8]) -> bool {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    fits && name.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The last acknowledgement of a source that asked for acknowledgements.
#[derive(Debug)]
pub(super) struct Acknowledgements {
    name: Option<Name>,
    terminator: Terminator,
    /// The epoch and number of the newest line, whether it has been written or not.
    told: Option<(Epoch, Cursor)>,
    /// The rest of that line, which the socket has not accepted yet.
    unwritten: Line,
}

impl Acknowledgements {
    pub(super) fn new(name: Option<Name>, terminator: Terminator) -> Self {
        Self { name, terminator, told: None, unwritten: Line::new() }
    }

    /// The name that the source gave.
    pub(super) fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// The socket has not taken all of the newest line.
    pub(super) fn waits(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Every number below `number` has been told, and written.
    pub(super) fn have_told(&self, number: Cursor) -> bool {
        !self.waits() && self.told.is_some_and(|(_, told)| told >= number)
    }

    /// Tells that every number below `number` is dealt with, unless that has been told, as far as the socket takes it.
    ///
    /// # Errors
    ///
    /// Those of writing: the connection is over.
    pub(super) fn tell(&mut self, epoch: Epoch, number: Cursor, socket: &mut impl Write) -> io::Result<()> {
        self.write(socket)?;
        if self.waits() || self.told == Some((epoch, number)) {
            return Ok(());
        }
        self.told = Some((epoch, number));
        self.unwritten = place_line(epoch, number, self.terminator);
        self.write(socket)
    }

    fn write(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while !self.unwritten.is_empty() {
            match socket.write(&self.unwritten) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.unwritten.drain(..written)),
                Err(error) if is_interrupted(&error) => {}
                Err(error) if would_block(&error) => break,
                Err(error) => {
                    // Nothing of it gets anywhere any more: it is not tried again each turn.
                    self.unwritten.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(line: &str) -> Option<(usize, Option<String>, bool)> {
        match first_line(line.as_bytes()) {
            FirstLine::Question { len, name, terminator } => {
                let crlf = terminator == Terminator::CrLf;
                Some((len, name.map(|name| String::from_utf8(name.to_vec()).unwrap()), crlf))
            }
            FirstLine::Begun | FirstLine::Other => None,
        }
    }

    #[test]
    fn a_question_is_told_from_everything_else() {
        assert_eq!(question("?|ack\n1|B\n"), Some((6, None, false)));
        assert_eq!(question("?|ack\r\n"), Some((7, None, true)));
        assert_eq!(question("?|ack|a-B_9.\n"), Some((13, Some("a-B_9.".into()), false)));
        let name = "n".repeat(64);
        assert_eq!(question(&format!("?|ack|{name}\r\n")), Some((72, Some(name.clone()), true)));
        for line in ["1|B\n", "?|ack|\n", "?|acks\n", "?|ack|a b\n", "?|ack|a|b\n", "?|ack \n", "??\n", "\n"]
        {
            assert_eq!(first_line(line.as_bytes()), FirstLine::Other, "{line:?}");
        }
        assert_eq!(first_line(format!("?|ack|{name}n\n").as_bytes()), FirstLine::Other);
        assert_eq!(first_line(format!("?|ack|{name}nnn").as_bytes()), FirstLine::Other, "it can end no more");
    }

    #[test]
    fn whatever_it_is_cut_into_it_may_become_a_question() {
        let line = b"?|ack|feed\r\n";
        for end in 0..line.len() {
            assert_eq!(first_line(&line[..end]), FirstLine::Begun, "{end} bytes");
        }
    }

    /// Takes this number of bytes, then no more.
    struct Sink(Vec<u8>, usize);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..taken]);
            self.1 -= taken;
            if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_the_newest_number_waits_behind_a_line_that_was_begun() {
        let (mut told, mut sink) = (Acknowledgements::new(None, Terminator::CrLf), Sink(Vec::new(), 5));
        let epoch = Epoch::new(0xa);
        for number in 1..1000 {
            told.tell(epoch, Cursor::new(number), &mut sink).unwrap();
            assert!(told.waits() && told.unwritten.len() < 64);
        }
        sink.1 = 1000;
        told.tell(epoch, Cursor::END, &mut sink).unwrap();
        assert!(told.have_told(Cursor::END) && !told.have_told(Cursor::new((1 << 64) + 1)));
        let expected = "+|000000000000000a|1\r\n+|000000000000000a|18446744073709551616\r\n";
        assert_eq!(String::from_utf8(sink.0).unwrap(), expected);
    }
}
