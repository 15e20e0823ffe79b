//! Blocks that a leader has published and the log has not confirmed.

use super::{
    block::{BLOCK_HEADER, Header, Kind},
    connection::RequestId,
    reader::Place,
    session::Session,
};
use crate::sequence::Cursor;
use crate::time::{MILLISECOND, Micros, SECOND};
use std::collections::VecDeque;

/// Blocks that are on their way or wait for it. While there are this many, sources are not read.
const QUEUE: usize = 4;
/// How often a leader publishes at least.
const MARK_EVERY: Micros = SECOND;
/// How long to wait before a message is sent again that a stream without a leader did not take.
pub const SEND_AGAIN: Micros = 250 * MILLISECOND;
/// The overhead of a message in the log, besides its block.
const MESSAGE_OVERHEAD: u64 = 200;
/// After this number of bytes another snapshot is made, even if the log keeps more.
const GRAPH_EVERY_MAX: u64 = 512 << 20;
/// A snapshot is made so often for each time that the log's bytes are replaced.
const GRAPHS_PER_RETENTION: u64 = 8;

/// Why a leader cannot go on, in a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Others lead, or will.
    OfTerm(String),
    /// The log is another one.
    OfLog(String),
}

/// A block on its way.
#[derive(Debug)]
struct Flight {
    /// Its request on the present connection, if it has been sent there.
    id: Option<RequestId>,
    place: Place,
    ends_graph: bool,
    block: Vec<u8>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Leader {
    confirmed: Place,
    /// The last block that was published.
    tail: Place,
    flights: VecDeque<Flight>,
    /// When something was last confirmed, and last published.
    confirmed_at: Micros,
    published_at: Micros,
    /// Nothing is sent before.
    send_at: Micros,
    /// The connection was lost, and the log is read again. `true`: the last confirmed message has been read.
    verifying: Option<bool>,
    /// Bytes published since the newest snapshot; `None`: there is none of this term.
    since_graph: Option<u64>,
    graph_every: u64,
    /// The message that the snapshot began with which is under way.
    graph_first: Option<u64>,
    has_resigned: bool,
}

impl Leader {
    /// A leader whose first block is confirmed. `retention`: bytes that the log keeps.
    #[must_use]
    pub fn new(first: Place, retention: u64, now: Micros) -> Self {
        Self {
            confirmed: first,
            tail: first,
            flights: VecDeque::new(),
            confirmed_at: now,
            published_at: now,
            send_at: now,
            verifying: None,
            since_graph: None,
            graph_every: (retention / GRAPHS_PER_RETENTION).min(GRAPH_EVERY_MAX),
            graph_first: None,
            has_resigned: false,
        }
    }

    /// The last message that the log has confirmed.
    #[must_use]
    pub fn confirmed(&self) -> Place {
        self.confirmed
    }

    /// The last message that was published.
    #[must_use]
    pub fn tail(&self) -> Place {
        self.tail
    }

    /// More may be published: the log is there, and does not lag behind.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.verifying.is_none() && self.flights.len() < QUEUE
    }

    /// It has said that it ends, and the log has everything.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_resigned && self.flights.is_empty()
    }

    /// Everything is confirmed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// When it must publish something to be heard.
    #[must_use]
    pub fn mark_at(&self) -> Micros {
        let has_to = self.flights.is_empty() && !self.has_resigned;
        if has_to { self.published_at + MARK_EVERY } else { Micros::MAX }
    }

    /// When its term is over if nothing is confirmed before.
    #[must_use]
    pub fn over_at(&self, patience: Micros) -> Micros {
        if self.flights.is_empty() { Micros::MAX } else { self.confirmed_at + patience }
    }

    /// It is time for a snapshot, or one is under way.
    #[must_use]
    pub fn wants_graph(&self) -> bool {
        self.graph_first.is_some() || self.since_graph.is_none_or(|bytes| bytes >= self.graph_every)
    }

    /// A snapshot is under way.
    #[must_use]
    pub fn is_walking(&self) -> bool {
        self.graph_first.is_some()
    }

    /// Publishes a block, which has room for its header in front. `to`: the cursor behind it.
    pub fn push(&mut self, kind: Kind, mut block: Vec<u8>, to: Cursor, time_ms: u64, now: Micros) {
        if kind == Kind::GraphLast {
            let first = self.graph_first.take().unwrap_or(self.tail.number);
            block.truncate(BLOCK_HEADER);
            block.extend_from_slice(&first.to_le_bytes());
            self.since_graph = Some(0);
        }
        let Place { hash: previous, cursor: from, term, epoch, number, .. } = self.tail;
        let header = Header { kind, term, epoch, from, to, time_ms, previous };
        let hash = header.seal(&mut block);
        self.tail = Place { number: number + 1, hash, cursor: to, time_ms, ..self.tail };
        if kind == Kind::GraphFirst {
            self.graph_first = Some(self.tail.number);
        }
        self.has_resigned |= kind == Kind::Resigned;
        if let Some(bytes) = &mut self.since_graph {
            *bytes += block.len() as u64 + MESSAGE_OVERHEAD;
        }
        if self.flights.is_empty() {
            self.confirmed_at = now;
        }
        self.published_at = now;
        let ends_graph = kind == Kind::GraphLast;
        self.flights.push_back(Flight { id: None, place: self.tail, ends_graph, block });
    }

    /// Sends the next block, if none is on its way.
    ///
    /// Only one is: a message says how long the log must be, and not which message must be the last one. Of two on their way
    /// the first could be refused because another sequencer has taken its place, and the second be stored behind that.
    pub fn send(&mut self, session: &mut Session, now: Micros) {
        if self.verifying.is_some() || !session.is_ready() || now < self.send_at {
            return;
        }
        if let Some(flight) = self.flights.front_mut().filter(|flight| flight.id.is_none()) {
            let expected = flight.place.number - 1;
            flight.id = Some(session.publish(flight.ends_graph, expected, &flight.block, now));
        }
    }

    /// When a waiting message must be sent.
    #[must_use]
    pub fn send_at(&self) -> Micros {
        let waits =
            self.verifying.is_none() && self.flights.front().is_some_and(|flight| flight.id.is_none());
        if waits { self.send_at } else { Micros::MAX }
    }

    /// The log has not taken a message, because it has no leader now. It has not stored it.
    pub fn not_taken(&mut self, id: RequestId, now: Micros) {
        if let Some(flight) = self.flights.front_mut().filter(|flight| flight.id == Some(id)) {
            flight.id = None;
            self.send_at = now + SEND_AGAIN;
        }
    }

    /// The log has stored a message under this number.
    ///
    /// # Errors
    ///
    /// If that is not the number that it must have.
    pub fn stored(&mut self, id: RequestId, number: u64, now: Micros) -> Result<(), String> {
        let Some(flight) = self.flights.front().filter(|flight| flight.id == Some(id)) else {
            // The claim that this term began with, which had been read before it was confirmed.
            return Ok(());
        };
        if flight.place.number != number {
            return Err(format!("the log has stored message {} as {number}", flight.place.number));
        }
        self.confirm(now);
        Ok(())
    }

    fn confirm(&mut self, now: Micros) {
        if let Some(flight) = self.flights.pop_front() {
            self.confirmed = flight.place;
            self.confirmed_at = now;
        }
    }

    /// The connection is lost: which of the messages on their way were stored is not known.
    pub fn lost(&mut self) {
        self.verifying = Some(false);
        for flight in &mut self.flights {
            flight.id = None;
        }
    }

    /// Reading the log after that.
    #[must_use]
    pub fn is_verifying(&self) -> bool {
        self.verifying.is_some()
    }

    /// A message that was found there, and how many there are behind it.
    ///
    /// # Errors
    ///
    /// Why the term is over, or that it is another log.
    pub fn found(&mut self, number: u64, pending: u64, hash: u64, now: Micros) -> Result<(), End> {
        match self.verifying {
            None => return Ok(()),
            Some(false) if (number, hash) == (self.confirmed.number, self.confirmed.hash) => {
                self.verifying = Some(true);
            }
            Some(false) if number == self.confirmed.number => {
                return Err(End::OfLog("what it had confirmed is not there any more".to_owned()));
            }
            Some(false) => {
                return Err(End::OfTerm("what it had confirmed is not kept any more".to_owned()));
            }
            Some(true) => match self.flights.front().map(|flight| flight.place) {
                Some(place) if (place.number, place.hash) == (number, hash) => self.confirm(now),
                _ => return Err(End::OfTerm("another sequencer leads".to_owned())),
            },
        }
        if pending == 0 {
            self.verifying = None;
        }
        Ok(())
    }
}
