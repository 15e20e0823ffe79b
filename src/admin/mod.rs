//! The admin interface as a function: the bytes of a request in, the bytes of an answer out (SPEC section 6).
//!
//! Nothing in here has a socket, a clock or a number of its own. [`http`] reads a request head, [`answer`] writes
//! the answer from a [`Snapshot`] of the server's numbers: as [`metrics`] for Prometheus, as [`status`] for the status
//! page and for `fortnight top`, as one word for health checks. The connections themselves are the server's.

pub(crate) mod history;
pub(crate) mod hosts;
pub(crate) mod http;
mod json;
mod memory;
pub(crate) mod metrics;
pub(crate) mod people;
pub(crate) mod status;

use crate::{
    config::Config,
    counters::{Counters, DoorCounters},
    latency::Latency,
    process::Process,
    sequence::Cursor,
    time::Micros,
    user_id::UserId,
    warning::Warning,
};
use history::History;
use http::{Request, Resource, Status, respond};
use people::{Page, People};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Whether the server is well: the answer to `/healthz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Ok,
    /// The ring holds back sources, and nobody sends what is missing.
    RingFull,
    /// Sources are turned away, and those that hold every place send nothing.
    SourcesSilent,
    /// The stream that it follows is away.
    StreamAway,
    /// The disk of the journal is full.
    JournalFull,
    /// It has been told to end.
    ShuttingDown,
}

impl Health {
    /// The body of `/healthz`.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::RingFull => "waiting on a full ring",
            Self::SourcesSilent => "event sources are turned away because silent ones hold every place",
            Self::StreamAway => "the stream is away",
            Self::JournalFull => "the journal cannot be written: the disk is full",
            Self::ShuttingDown => "shutting down",
        }
    }
}

/// The server's numbers at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// Since the start.
    pub now: Micros,
    /// Everything that is counted.
    pub counters: Counters,
    /// The answer to `/healthz`.
    pub health: Health,
    /// Next number to release.
    pub cursor: Cursor,
    /// Events waiting in the ring.
    pub waiting: usize,
    /// Slots of the ring.
    pub capacity: usize,
    /// The missing event at the cursor, if anything waits for it.
    pub hole: Option<Hole>,
    /// Bytes waiting for users.
    pub buffered_bytes: usize,
    /// Logged-in users.
    pub users: usize,
    /// Those of them that are served from the journal.
    pub catching_up: usize,
    /// Numbers that the farthest of these is behind the cursor.
    pub farthest_behind: u128,
    /// Event sources.
    pub sources: usize,
    /// Edges of the follow graph.
    pub follow_edges: u64,
    /// Users that hold up the sources.
    pub slow_users: usize,
    /// Some of them.
    pub slow: Vec<SlowUser>,
    /// Why sources are not read.
    pub pauses: Vec<Pause>,
    /// The stream that it follows, if it does.
    pub stream: Option<Stream>,
    /// Counters of the door, in front of the server.
    pub door: DoorCounters,
    /// What the operating system says of this process.
    pub process: Option<Process>,
    /// How long events and turns have taken.
    pub latency: &'a Latency,
    /// The journal, if there is one.
    pub journal: Option<JournalNumbers>,
    /// The options in force.
    pub config: &'a Config,
    /// The last minutes.
    pub history: &'a History,
    /// Who is connected, where that is asked for.
    pub people: People,
    /// A part of all connections, where that is asked for.
    pub page: Page,
    /// The last warnings and errors of the log.
    pub warnings: Vec<Warning>,
}

/// The stream that an edge or a sequencer follows, or that a sequencer leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Where it is.
    pub address: String,
    /// For how long it has been away, if it is.
    pub away_for: Option<Micros>,
    /// How long ago something came from it, if it is there; with NATS: how long ago the newest block was published.
    pub lag: Option<Micros>,
    /// Whether this sequencer leads; `None`: this server is none.
    pub leads: Option<bool>,
    /// The term of the leader, if there are terms.
    pub term: Option<u64>,
    /// Everything below is confirmed (sequencer), or has come (edge).
    pub cursor: Cursor,
}

/// The journal in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalNumbers {
    /// Bytes on disk.
    pub bytes: u64,
    /// Lowest number that can still be resumed from.
    pub first_sequence: Cursor,
    /// Every number below is durable.
    pub durable_cursor: Cursor,
    /// Bytes appended since the start.
    pub appended_bytes: u64,
    /// Syncs since the start.
    pub syncs: u64,
    /// How long ago the first of what is not durable yet was appended. 0: everything is durable.
    pub sync_lag: Micros,
    /// How long the start took that found what was there.
    pub recovery: Micros,
    /// Since when it cannot be written, as a time from then to now.
    pub stalled_for: Option<Micros>,
    /// Why it cannot be written, as a sentence.
    pub stall: Option<String>,
}

/// A missing event that others wait for. Its number is the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// How long it has been waited for.
    pub waited: Micros,
    /// When it is given up, from now on; `None`: not by itself.
    pub given_up_in: Option<Micros>,
}

/// A user that holds up the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowUser {
    /// Its id.
    pub id: UserId,
    /// Bytes waiting for it.
    pub buffered_bytes: usize,
    /// For how long without a break.
    pub slow_for: Micros,
}

/// Sources that are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// `slow_user`, `ring_full`, `journal` or `stream`, as in `fortnight_source_paused_seconds_total`.
    pub reason: &'static str,
    /// How many.
    pub sources: usize,
    /// For how long.
    pub paused_for: Micros,
}

/// The whole answer to a request, as it goes over the wire.
#[must_use]
pub(crate) fn answer(request: &Request, snapshot: &Snapshot<'_>) -> Vec<u8> {
    let resource = match request.resource {
        Ok(resource) => resource,
        Err(status) => return respond(request, status, TEXT, "", &status.sentence()),
    };
    match resource {
        Resource::Metrics => {
            respond(request, Status::Ok, metrics::CONTENT_TYPE, "", &metrics::text(snapshot))
        }
        Resource::Page => {
            respond(request, Status::Ok, status::PAGE_TYPE, &status::page_headers(), status::PAGE)
        }
        Resource::Status => respond(request, Status::Ok, JSON, "", &status::json(snapshot)),
        Resource::Clients { .. } => respond(request, Status::Ok, JSON, "", &people::page(&snapshot.page)),
        Resource::History => respond(request, Status::Ok, JSON, "", &snapshot.history.json()),
        Resource::Leader => match snapshot.stream.as_ref().and_then(|stream| stream.leads) {
            Some(true) => respond(request, Status::Ok, TEXT, "", "this sequencer leads\n"),
            Some(false) => {
                respond(request, Status::ServiceUnavailable, TEXT, "", "this sequencer does not lead\n")
            }
            None => {
                respond(request, Status::NotFound, TEXT, "", &format!("{}\n", Status::NotFound.sentence()))
            }
        },
        Resource::Health => {
            let status = if snapshot.health == Health::Ok { Status::Ok } else { Status::ServiceUnavailable };
            respond(request, status, TEXT, "", &format!("{}\n", snapshot.health.sentence()))
        }
    }
}
