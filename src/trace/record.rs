//! The records of a trace, and how they are written.

use crate::{config::Config, engine::event::parse_number, options, server::net::Port, time::Micros};
use std::fmt::{self, Write};

/// The first line of a trace.
pub(super) const HEADER: &str = "fortnight trace 1";

/// The options that make a difference to a replay, by the names of their variables.
pub const OPTIONS: [&str; 21] = [
    "maxEventSourceClients",
    "maxUserClients",
    "eventTimeoutMs",
    "firstSequence",
    "maxSequenceJump",
    "reorderCapacity",
    "resetOnSourceEof",
    "maxEventBytes",
    "loginTimeoutMs",
    "userBufferBytes",
    "slowUserPolicy",
    "slowUserTimeoutMs",
    "userMarkMs",
    "shutdownTimeoutMs",
    "restartGraceMs",
    "journalDirectory",
    "journalSync",
    "journalSyncIntervalMs",
    "journalSegmentBytes",
    "journalRetentionBytes",
    "journalRetentionMs",
];

/// The option with which a server keeps a journal.
pub(super) const JOURNAL_OPTION: &str = "journalDirectory";
/// What it says in a trace: a replay keeps the journal in memory, wherever the recorded server had it.
pub(super) const JOURNAL_FOLDER: &str = "journal";

/// A connection of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionId {
    /// An event source, by its number.
    Source(u64),
    /// A connection on the user port, by its number. That is not the id that it logs in with.
    User(u64),
}

impl ConnectionId {
    /// The listener that it connects to.
    #[must_use]
    pub fn port(self) -> Port {
        match self {
            Self::Source(_) => Port::Source,
            Self::User(_) => Port::User,
        }
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(number) => write!(f, "source {number}"),
            Self::User(number) => write!(f, "user {number}"),
        }
    }
}

/// An action of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It connects.
    Connects,
    /// It sends bytes, which are not part of the record.
    Sends,
    /// It will send nothing more.
    Finishes,
    /// It goes.
    Closes,
    /// It breaks.
    Resets,
    /// It takes this number of bytes from the server, counted from the beginning of the connection. `u64::MAX`: all.
    Takes(u64),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connects => "connects",
            Self::Sends => "sends",
            Self::Finishes => "finishes",
            Self::Closes => "closes",
            Self::Resets => "resets",
            Self::Takes(u64::MAX) => "takes all",
            Self::Takes(bytes) => return write!(f, "takes {bytes}"),
        })
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A connection did something.
    Connection {
        /// The number of the connection.
        id: ConnectionId,
        /// The action of the connection.
        action: Action,
    },
    /// The server was told to end.
    Signal,
    /// The server, or what it runs on, has changed. Only a server that keeps a journal goes on from there.
    Machine(Machine),
}

/// Something that happened to the server itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// The process was ended in whatever way: what it had written is there.
    Killed,
    /// The machine has ended: of what was not synced any part is there.
    PowerFails,
    /// The server starts on what is there.
    Starts,
    /// From now on the disk takes so many microseconds at most for what is submitted. 0: it is done at once.
    DiskTakes(u64),
    /// From now on nothing more fits on the disk.
    DiskIsFull,
    /// From now on everything fits.
    DiskHasRoom,
}

impl Machine {
    /// Reads what comes after the time.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"killed" => Self::Killed,
            b"power fails" => Self::PowerFails,
            b"starts" => Self::Starts,
            b"disk is full" => Self::DiskIsFull,
            b"disk has room" => Self::DiskHasRoom,
            text => Self::DiskTakes(parse_number(text.strip_prefix(b"disk takes ")?)?),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "killed",
            Self::PowerFails => "power fails",
            Self::Starts => "starts",
            Self::DiskIsFull => "disk is full",
            Self::DiskHasRoom => "disk has room",
            Self::DiskTakes(time) => return write!(f, "disk takes {time}"),
        })
    }
}

impl Record {
    /// Appends the record's line. The data lines of [`Action::Sends`] come after it: [`push_data`](super::text::push_data).
    pub(super) fn push_line(self, time: Micros, text: &mut Vec<u8>) {
        use std::io::Write as _;
        // Writing to memory does not fail.
        let _ = match self {
            Self::Connection { id, action } => writeln!(text, "{time} {id} {action}"),
            Self::Signal => writeln!(text, "{time} signal"),
            Self::Machine(what) => writeln!(text, "{time} {what}"),
        };
    }
}

/// Appends the line that begins a block. The bytes follow it unchanged, and then a line end.
pub(super) fn push_block_line(time: Micros, id: ConnectionId, len: usize, text: &mut Vec<u8>) {
    text.extend_from_slice(format!("{time} {id} {} {len} bytes\n", Action::Sends).as_bytes());
}

/// The head of a trace.
pub(super) fn head(config: &Config) -> String {
    let mut head = format!("{HEADER}\n");
    for name in OPTIONS {
        if let Some(value) = options::get(config, name) {
            let value = if name == JOURNAL_OPTION { JOURNAL_FOLDER } else { &value };
            let _ = writeln!(head, "option {name} {value}");
        }
    }
    head
}
