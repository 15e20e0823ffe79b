//! What an event line is, the slow way: SPEC section 1.1 word by word, one byte after the other.
//!
//! [`Framing`] cuts a stream into lines, [`meaning`] says what a line is. Nothing in here is fast, and nothing of it is
//! taken from the server.

use crate::model::Event;

/// A piece of a source's stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// A line, its terminator included.
    Line(Vec<u8>),
    /// The start of a line that is longer than is allowed: as much as is allowed.
    Overlong(Vec<u8>),
}

/// What a line is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Meaning {
    /// Nothing at all.
    Empty,
    /// An event.
    Event {
        /// Its sequence number.
        number: u64,
        /// What it says.
        event: Event,
    },
    /// No event.
    Rejected {
        /// The number that is used up, if it could be read.
        number: Option<u64>,
        /// Why, as in `fortnight_events_rejected_total`.
        reason: &'static str,
    },
}

/// Cuts a stream of bytes into lines.
#[derive(Clone, Debug)]
pub struct Framing {
    /// Longest line, terminator included.
    max: usize,
    line: Vec<u8>,
    /// In the middle of an overlong line.
    dropping: bool,
}

impl Framing {
    /// The start of a stream whose lines may be up to `max` bytes long.
    pub fn new(max: usize) -> Framing {
        Framing { max, line: Vec::new(), dropping: false }
    }

    /// The next byte of the stream.
    pub fn push(&mut self, byte: u8) -> Option<Piece> {
        if self.dropping {
            self.dropping = byte != b'\n';
            return None;
        }
        self.line.push(byte);
        if byte == b'\n' {
            return Some(Piece::Line(std::mem::take(&mut self.line)));
        }
        if self.line.len() < self.max {
            return None;
        }
        self.dropping = true;
        Some(Piece::Overlong(std::mem::take(&mut self.line)))
    }

    /// If the stream ends here, an event is truncated.
    pub fn is_inside_a_line(&self) -> bool {
        !self.line.is_empty()
    }
}

/// What a piece of a stream means.
pub fn meaning(piece: &Piece) -> Meaning {
    let line = match piece {
        Piece::Line(line) => line,
        Piece::Overlong(start) => {
            // Without a separator nobody knows whether the number ends there.
            let field = start.iter().position(|&byte| byte == b'|').map(|end| &start[..end]);
            return Meaning::Rejected { number: field.and_then(number), reason: "too_long" };
        }
    };
    let mut content = &line[..line.len() - 1];
    if content.ends_with(b"\r") {
        content = &content[..content.len() - 1];
    }
    if content.is_empty() {
        return Meaning::Empty;
    }
    let fields: Vec<&[u8]> = content.split(|&byte| byte == b'|').collect();
    let Some(seq) = number(fields[0]) else {
        return Meaning::Rejected { number: None, reason: "sequence" };
    };
    let rejected = |reason| Meaning::Rejected { number: Some(seq), reason };
    let ids = match fields.get(1) {
        None => return rejected("fields"),
        Some(&(b"F" | b"U" | b"P")) => 2,
        Some(&b"S") => 1,
        Some(&b"B") => 0,
        Some(_) => return rejected("type"),
    };
    for place in 2..2 + ids {
        match fields.get(place) {
            None => return rejected("fields"),
            Some(field) if number(field).is_none() => return rejected("user_id"),
            Some(_) => {}
        }
    }
    if fields.len() > 2 + ids {
        return rejected("fields");
    }
    let id = |place: usize| number(fields[place]).unwrap_or_default();
    let event = match fields[1] {
        b"F" => Event::Follow(id(2), id(3)),
        b"U" => Event::Unfollow(id(2), id(3)),
        b"B" => Event::Broadcast,
        b"P" => Event::Private(id(2), id(3)),
        _ => Event::Status(id(2)),
    };
    Meaning::Event { number: seq, event }
}

/// A decimal unsigned 64-bit integer: digits, at least one, and nothing else.
pub fn number(field: &[u8]) -> Option<u64> {
    if field.is_empty() {
        return None;
    }
    let mut number: u128 = 0;
    for &byte in field {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = (number * 10 + u128::from(byte - b'0')).min(1 << 64);
    }
    u64::try_from(number).ok()
}
