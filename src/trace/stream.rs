//! The stream that one user received.

use crate::{engine::event::leading_number, sequence::SequenceNumber, time::Micros, user_id::UserId};
use std::fmt;
use xxhash_rust::xxh3::Xxh3Default;

/// A stream of up to this number of lines is stored line by line, a longer one by its sequence numbers.
const LINES_TOLD: usize = 64;

/// The stream that a connection received: of a user, or of a source that was sent something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// It is the connection of a source, which is sent acknowledgements.
    pub is_source: bool,
    /// The number of the connection in the trace.
    pub user: u64,
    /// The user id that it asked for, if it was one.
    pub id: Option<UserId>,
    /// Whether the server had closed it by the end: `open`, `closed`, or `reset` if the server left bytes unread.
    pub end: String,
    /// Whole lines.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// XXH3 of the bytes, 64 bits, seed 0.
    pub digest: u64,
    /// The lines themselves, if they are few.
    pub content: Content,
}

/// The form of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Every line, when its last byte was written, and its bytes; the last one may have no end.
    Lines(Vec<(Micros, Vec<u8>)>),
    /// The sequence number of every whole line; of none, if they were not kept.
    Numbers(Vec<SequenceNumber>),
}

/// The parts of the streams that a replay keeps, beside digests and the first lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Digests,
    /// The sequence number of every line: a long stream can be compared event by event, at the price of eight bytes of
    /// memory per delivery.
    Numbers,
    /// Every line that these users received, to be shown, and the numbers of all.
    Lines(Shown),
}

/// The users that are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Every user.
    All,
    /// Those who have this id, or this number in the trace.
    One(u64),
}

impl Shown {
    /// Whether a user is one of them.
    #[must_use]
    pub fn includes(self, number: u64, id: Option<UserId>) -> bool {
        match self {
            Self::All => true,
            Self::One(wanted) => wanted == number || Some(UserId::new(wanted)) == id,
        }
    }
}

/// Collects what is received.
pub(super) struct Received {
    digest: Box<Xxh3Default>,
    bytes: u64,
    lines: u64,
    /// The first lines, up to the limit.
    told: Vec<(Micros, Vec<u8>)>,
    told_max: usize,
    numbers: Option<Vec<SequenceNumber>>,
    /// The beginning of a line without its end, and the time at which it came.
    rest: Vec<u8>,
    rest_at: Micros,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("lines", &self.lines)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Received {
    pub(super) fn new(keep: Keep) -> Self {
        Self {
            digest: Box::default(),
            bytes: 0,
            lines: 0,
            told: Vec::new(),
            told_max: LINES_TOLD,
            numbers: (keep != Keep::Digests).then(Vec::new),
            rest: Vec::new(),
            rest_at: 0,
        }
    }

    /// Whether nothing has been received so far.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Keeps every line from now on.
    pub(super) fn keep_all_lines(&mut self) {
        self.told_max = usize::MAX - 1;
    }

    pub(super) fn push(&mut self, now: Micros, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        let Some(last) = memchr::memrchr(b'\n', bytes) else {
            self.rest.extend_from_slice(bytes);
            self.rest_at = now;
            return;
        };
        let (whole, rest) = bytes.split_at(last + 1);
        if self.told.len() <= self.told_max || self.numbers.is_some() {
            for line in whole.split_inclusive(|&byte| byte == b'\n') {
                self.push_line(now, line);
            }
        } else {
            self.lines += memchr::memchr_iter(b'\n', whole).count() as u64;
        }
        self.rest.clear();
        self.rest.extend_from_slice(rest);
        self.rest_at = now;
    }

    fn push_line(&mut self, now: Micros, end: &[u8]) {
        self.lines += 1;
        self.rest.extend_from_slice(end);
        if let Some(numbers) = &mut self.numbers {
            numbers.push(leading_number(&self.rest).unwrap_or(SequenceNumber::MAX));
        }
        if self.told.len() <= self.told_max {
            self.told.push((now, self.rest.clone()));
        }
        self.rest.clear();
    }

    pub(super) fn finish(mut self, user: u64, id: Option<UserId>, end: &str) -> Stream {
        let content = if self.told.len() <= self.told_max {
            if !self.rest.is_empty() {
                self.told.push((self.rest_at, self.rest));
            }
            Content::Lines(self.told)
        } else {
            Content::Numbers(self.numbers.unwrap_or_default())
        };
        Stream {
            is_source: false,
            user,
            id,
            end: end.to_owned(),
            lines: self.lines,
            bytes: self.bytes,
            digest: self.digest.digest(),
            content,
        }
    }
}
