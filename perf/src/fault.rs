//! Faults of the server under test, and how they are told apart.

use std::fmt;

use serde::Serialize;

use crate::book::Book;
use crate::cursor::{Place, lines_of, sequence_of};
use crate::graph::Graph;
use crate::script::{Fate, Kind, Script};
use crate::workload::Workload;

/// The kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// An event came before one that it should follow.
    WrongOrder,
    /// An event never came, those after it did.
    Lost,
    /// An event came again.
    Repeated,
    /// The line is right, its terminator is not.
    Terminator,
    /// An event for another user.
    WrongUser,
    /// A status update of a user that the recipient no longer follows.
    Unfollowed,
    /// A number that no event of this run has, or that must not be delivered.
    Unknown,
    /// The event's bytes were changed.
    Altered,
    /// More came after everything owed had come.
    TooMuch,
    /// The server closed the user's connection.
    Closed,
    /// The server closed the event source's connection.
    SourceClosed,
    /// Nothing more came within the timeout.
    Stalled,
    /// A user who came while events flowed missed events sent after its login.
    MissedAfterLogin,
}

impl Class {
    fn sentence(self) -> &'static str {
        match self {
            Class::WrongOrder => "wrong order: an event came before one that it should follow",
            Class::Lost => "lost: an event did not come, later ones did",
            Class::Repeated => "repeated: an event came again",
            Class::Terminator => "changed terminator: the line is right, its end is not",
            Class::WrongUser => "wrong user: the event is for another user",
            Class::Unfollowed => "unfollowed: a status update of somebody whom the user no longer follows",
            Class::Unknown => "unknown: not an event of this run",
            Class::Altered => "altered: the bytes of the event were changed",
            Class::TooMuch => "too much: more came after everything owed",
            Class::Closed => "closed: the server closed the user's connection",
            Class::SourceClosed => "closed: the server closed the event source's connection",
            Class::Stalled => "stalled: nothing more came within the timeout",
            Class::MissedAfterLogin => "missed: events sent after the user's login did not come",
        }
    }
}

/// The first fault of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// What it is.
    pub class: Class,
    /// The user's id.
    pub user: Option<u64>,
    /// The line that was owed, terminator included and escaped.
    pub expected: Option<String>,
    /// The line that came, likewise.
    pub got: Option<String>,
    /// Events that this user had received before.
    pub events_in: u64,
    /// What else is known.
    pub detail: String,
}

impl Fault {
    /// A fault without lines.
    pub fn plain(class: Class, user: Option<u64>, events_in: u64, detail: impl Into<String>) -> Fault {
        Fault { class, user, expected: None, got: None, events_in, detail: detail.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "FAULT: {}", self.class.sentence())?;
        if let Some(user) = self.user {
            writeln!(f, "  user      {user}, after {} events", self.events_in)?;
        }
        if let Some(line) = &self.expected {
            writeln!(f, "  expected  {line}")?;
        }
        if let Some(line) = &self.got {
            writeln!(f, "  got       {line}")?;
        }
        if !self.detail.is_empty() {
            writeln!(f, "  note      {}", self.detail)?;
        }
        Ok(())
    }
}

/// A line as it can be shown: at most 120 bytes, terminator and odd bytes escaped.
pub fn shown(line: &[u8]) -> String {
    let cut = line.len().min(120);
    format!("{}{}", line[..cut].escape_ascii(), if cut < line.len() { "…" } else { "" })
}

/// The line that the user of `slot` is owed at `place`, which is the start of one; none past the end.
pub fn owed_line(book: &Book, slot: usize, place: Place) -> Option<&[u8]> {
    owed_lines(book, slot, place).next()
}

fn owed_lines(book: &Book, slot: usize, place: Place) -> impl Iterator<Item = &[u8]> {
    let blocks = (place.block..book.end()).filter_map(|index| book.built(index).map(|block| (index, block)));
    blocks.flat_map(move |(index, block)| {
        let skip = if index == place.block { place.offset } else { 0 };
        lines_of(&block.text(slot).bytes[skip..]).map(|(_, line)| line)
    })
}

/// A difference between what a user was owed and what it got.
pub struct Difference<'a> {
    /// The run.
    pub load: &'a Workload,
    /// What was owed.
    pub book: &'a Book,
    /// The user's slot.
    pub slot: usize,
    /// Start of the first line that differs.
    pub place: Place,
    /// What came from there on; as many lines as could be had.
    pub got: &'a [u8],
    /// Events received before.
    pub events_in: u64,
}

impl Difference<'_> {
    /// Says what the difference is.
    pub fn diagnose(&self) -> Fault {
        let user = self.load.ids()[self.slot];
        let expected = owed_line(self.book, self.slot, self.place);
        let first_end = memchr::memchr(b'\n', self.got).map_or(self.got.len(), |end| end + 1);
        let line = &self.got[..first_end];
        let (class, detail) = self.classify(expected, line, &self.got[first_end..]);
        Fault {
            class,
            user: Some(user),
            expected: expected.map(shown),
            got: Some(shown(line)),
            events_in: self.events_in,
            detail,
        }
    }

    fn classify(&self, expected: Option<&[u8]>, line: &[u8], rest: &[u8]) -> (Class, String) {
        let bare =
            |line: &[u8]| line.strip_suffix(b"\n").map(|l| l.strip_suffix(b"\r").unwrap_or(l).to_vec());
        if expected.is_some_and(|e| bare(e).is_some() && bare(e) == bare(line)) {
            return (Class::Terminator, String::new());
        }
        if expected.is_none() {
            return (Class::TooMuch, String::new());
        }
        let Some(number) = sequence_of(line) else {
            return (Class::Altered, "what came does not start with a number".into());
        };
        let due = expected.and_then(sequence_of);
        if due == Some(number) {
            return (Class::Altered, String::new());
        }
        let told = Told::about(self.load, self.slot, number);
        if !told.owed {
            return told.not_owed();
        }
        if due.is_some_and(|due| number > due) {
            let comes_later = expected.is_some_and(|e| lines_of(rest).any(|(_, l)| l == e));
            let missing = owed_lines(self.book, self.slot, self.place)
                .take_while(|l| sequence_of(l).is_some_and(|n| n < number))
                .count();
            return if comes_later {
                (Class::WrongOrder, format!("the expected event came after event {number}"))
            } else {
                (Class::Lost, format!("{missing} event{} missing here", if missing == 1 { "" } else { "s" }))
            };
        }
        // Owed, and its turn was earlier: everything before this place was right, so it has come already.
        (Class::Repeated, String::new())
    }
}

/// What the protocol says about one number and one user, found by going through the run again.
struct Told {
    owed: bool,
    kind: Option<Kind>,
    unfollowed_at: Option<u64>,
}

impl Told {
    fn about(load: &Workload, slot: usize, number: u64) -> Told {
        let ids = load.ids();
        let id = ids[slot];
        let mut graph = Graph::new(load.users, &ids);
        let mut unfollowed = std::collections::HashMap::new();
        for item in Script::new(load).take_while(|item| item.seq <= number) {
            let Fate::Event(kind) = item.fate else { continue };
            match kind {
                Kind::Follow { from, to } => graph.follow(from, to),
                Kind::Unfollow { from, to } => {
                    if from == id && graph.follows(slot, to) {
                        unfollowed.insert(to, item.seq);
                    }
                    graph.unfollow(from, to);
                }
                _ => {}
            }
            if item.seq == number {
                let (owed, unfollowed_at) = match kind {
                    Kind::Follow { to, .. } | Kind::Private { to, .. } => (to == id, None),
                    Kind::Broadcast => (true, None),
                    Kind::Unfollow { .. } => (false, None),
                    Kind::Status { from } => (graph.follows(slot, from), unfollowed.get(&from).copied()),
                };
                return Told { owed, kind: Some(kind), unfollowed_at };
            }
        }
        Told { owed: false, kind: None, unfollowed_at: None }
    }

    fn not_owed(&self) -> (Class, String) {
        match (self.kind, self.unfollowed_at) {
            (Some(Kind::Status { from }), Some(at)) => {
                (Class::Unfollowed, format!("the user unfollowed {from} with event {at}"))
            }
            (Some(Kind::Status { from }), None) => {
                (Class::WrongUser, format!("the user does not follow {from}"))
            }
            (Some(Kind::Follow { to, .. } | Kind::Private { to, .. }), _) => {
                (Class::WrongUser, format!("the event is for user {to}"))
            }
            (Some(_), _) => (Class::WrongUser, "the event is for nobody".into()),
            (None, _) => (Class::Unknown, "no event with this number is to be delivered".into()),
        }
    }
}
