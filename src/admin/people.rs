//! Who is connected: what the status page, `fortnight top` and `fortnight clients` show of sources and users.

use super::json::{Object, escaped, list, or_null};
use crate::sequence::SequenceNumber;
use crate::time::Micros;
use crate::user_id::UserId;
use std::net::SocketAddr;

/// Users and sources that are named in `/status.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct People {
    /// Event sources, the first of them.
    pub sources: Vec<SourceRow>,
    /// Users that are sent most bytes a second, that have most bytes waiting, or that are farthest behind.
    pub users: Vec<UserRow>,
    /// Connections on the user port that were looked at for this. All others were looked at earlier.
    pub looked_at: usize,
}

/// Connections on the user port, some at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Event sources, on the first page only.
    pub sources: Vec<SourceRow>,
    /// Users, and connections that have not logged in.
    pub users: Vec<UserRow>,
    /// The place at which the next page begins. `None`: this is the last page.
    pub next: Option<usize>,
}

/// An event source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRow {
    /// The other end.
    pub peer: SocketAddr,
    /// The name that it has given with its question, if it has.
    pub name: Option<String>,
    /// Time since it has connected.
    pub age: Micros,
    /// Time since it has sent something. `None`: it has never.
    pub silent_for: Option<Micros>,
    /// Bytes and lines that it has sent so far.
    pub bytes: u64,
    /// Lines that were looked at.
    pub lines: u64,
    /// Bytes and lines a second.
    pub byte_rate: u64,
    /// The same for lines.
    pub line_rate: u64,
    /// The number with which it waits for room in the ring.
    pub waits_with: Option<SequenceNumber>,
    /// It has closed its side, and waits for acknowledgements.
    pub has_finished: bool,
}

/// A connection on the user port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// The id. `None`: it has not logged in.
    pub id: Option<UserId>,
    /// The other end.
    pub peer: SocketAddr,
    /// Time since it has connected.
    pub age: Micros,
    /// Bytes written to its socket so far.
    pub bytes: u64,
    /// The same, a second.
    pub byte_rate: u64,
    /// Bytes that wait for it in the server.
    pub waiting_bytes: usize,
    /// How many numbers it is behind, where it is served from the journal.
    pub behind: Option<u128>,
    /// It holds up the sources.
    pub is_slow: bool,
}

pub(super) fn people(people: &People) -> String {
    let mut json = Object::new();
    json.field("sources", list(&people.sources, source));
    json.field("users", list(&people.users, user));
    json.field("looked_at", people.looked_at);
    json.end()
}

/// `/clients.json`.
pub(super) fn page(page: &Page) -> String {
    let mut json = Object::new();
    json.field("sources", list(&page.sources, source));
    json.field("users", list(&page.users, user));
    json.field("next", or_null(page.next));
    json.end() + "\n"
}

fn source(source: &SourceRow) -> String {
    let mut json = Object::new();
    json.text("peer", source.peer);
    json.text_or_null("name", source.name.as_deref().map(escaped));
    json.field("age_us", source.age);
    json.field("silent_for_us", or_null(source.silent_for));
    json.field("bytes", source.bytes);
    json.field("lines", source.lines);
    json.field("byte_rate", source.byte_rate);
    json.field("line_rate", source.line_rate);
    json.text_or_null("waits_with", source.waits_with);
    json.field("has_finished", source.has_finished);
    json.end()
}

fn user(user: &UserRow) -> String {
    let mut json = Object::new();
    json.text_or_null("id", user.id);
    json.text("peer", user.peer);
    json.field("age_us", user.age);
    json.field("bytes", user.bytes);
    json.field("byte_rate", user.byte_rate);
    json.field("waiting_bytes", user.waiting_bytes);
    json.text_or_null("behind", user.behind);
    json.field("is_slow", user.is_slow);
    json.end()
}
