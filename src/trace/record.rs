//! The records of a trace, and how they are written.

use crate::{config::Config, options, server::net::Port, time::Micros};
use std::fmt::{self, Write};

/// The first line of a trace.
pub(super) const HEADER: &str = "fortnight trace 1";

/// The options that make a difference to a replay, by the names of their variables.
pub const OPTIONS: [&str; 15] = [
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
];

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
    /// It takes so many bytes from the server, counted from the beginning of the connection. `u64::MAX`: all.
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
}

impl Record {
    /// Appends the record's line. The data lines of [`Action::Sends`] come after it: [`push_data`](super::text::push_data).
    pub(super) fn push_line(self, time: Micros, text: &mut Vec<u8>) {
        use std::io::Write as _;
        // Writing to memory does not fail.
        let _ = match self {
            Self::Connection { id, action } => writeln!(text, "{time} {id} {action}"),
            Self::Signal => writeln!(text, "{time} signal"),
        };
    }
}

/// Appends the line that begins a block. So many bytes follow it unchanged, and then a line end.
pub(super) fn push_block_line(time: Micros, id: ConnectionId, len: usize, text: &mut Vec<u8>) {
    text.extend_from_slice(format!("{time} {id} {} {len} bytes\n", Action::Sends).as_bytes());
}

/// The head of a trace.
pub(super) fn head(config: &Config) -> String {
    let mut head = format!("{HEADER}\n");
    for name in OPTIONS {
        if let Some(value) = options::get(config, name) {
            let _ = writeln!(head, "option {name} {value}");
        }
    }
    head
}
