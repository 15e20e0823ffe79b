//! Reading the log: the chain of blocks, and where to begin.

use super::{
    api::From,
    block::{BLOCK_HEADER, Header, Kind},
};
use crate::{epoch::Epoch, sequence::Cursor, stream::follower::Loss};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// What the text of a place begins with.
const TITLE: &str = "fortnight place 1";

/// A place in the log: the message that was read or published last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The message's number.
    pub number: u64,
    /// Its block's hash.
    pub hash: u64,
    /// The cursor behind it.
    pub cursor: Cursor,
    /// Its term.
    pub term: u64,
    /// The name of the sequence of events.
    pub epoch: Epoch,
    /// When it was made, in milliseconds since 1970.
    pub time_ms: u64,
}

impl Place {
    /// The place as a line of text, with a checksum.
    #[must_use]
    pub fn to_text(self) -> String {
        let Self { number, hash, cursor, term, epoch, time_ms } = self;
        let body = format!("{TITLE} {number} {hash} {cursor} {term} {epoch} {time_ms}");
        let sum = xxh3_64(body.as_bytes());
        format!("{body} {sum:016x}\n")
    }

    /// Reads the result of [`to_text`](Self::to_text). `None`: it is damaged.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (body, sum) = text.strip_suffix('\n')?.rsplit_once(' ')?;
        if u64::from_str_radix(sum, 16).ok()? != xxh3_64(body.as_bytes()) {
            return None;
        }
        let mut fields = body.strip_prefix(TITLE)?.strip_prefix(' ')?.split(' ');
        Some(Self {
            number: fields.next()?.parse().ok()?,
            hash: fields.next()?.parse().ok()?,
            cursor: Cursor::parse(fields.next()?.as_bytes())?,
            term: fields.next()?.parse().ok()?,
            epoch: Epoch::parse(fields.next()?.as_bytes())?,
            time_ms: fields.next()?.parse().ok()?,
        })
    }
}

/// The action for the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Begin anew, with an empty graph. What users were owed before is lost, for the reason given; `None`: nothing had
    /// been read before.
    Begin(Option<Loss>),
    /// Add the edges of this payload to the graph.
    Edges(Range<usize>),
    /// Go to this number, without releasing anything.
    Cursor(Cursor),
    /// Apply these lines of the chunk; the cursor is `to` behind them.
    Apply {
        /// The range in the chunk.
        lines: Range<usize>,
        /// The cursor behind them.
        to: Cursor,
    },
    /// The end of the log has been reached for the first time since it was begun: users may be served.
    Reached(Epoch),
    /// This server leads from here on.
    Leads,
    /// It does not lead any more, for this reason. The server must drop the events that are not confirmed, and its graph.
    Deposed(String),
    /// The log is another one, or is damaged: the server ends, with this clause.
    Broken(String),
}

/// Why reading cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// On this connection: a clause.
    Connection(String),
    /// At all: the log is another one, or is damaged.
    Log(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Looks for the newest snapshot.
    Seek,
    /// Reads the edges of a snapshot, which begins and ends with these messages.
    Graph { first: u64, last: u64, next: u64 },
    /// Reads the blocks from the message `first` on; the graph is exact behind `until`.
    Settle { first: u64, until: u64 },
    /// Reads on.
    Follow { is_verified: bool },
}

/// See the [module](self).
#[derive(Debug)]
pub struct Reader {
    stage: Stage,
    place: Option<Place>,
    /// The loss of a new start.
    loss: Option<Loss>,
    /// The end of the log has been reached.
    is_at_end: bool,
    /// The last block says that its leader has gone.
    has_resigned: bool,
    /// The log has ended before the place: it may be another one.
    is_missing: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            stage: Stage::Seek,
            place: None,
            loss: None,
            is_at_end: false,
            has_resigned: false,
            is_missing: false,
        }
    }
}

impl Reader {
    /// A reader that goes on behind this place, if the log still has it.
    #[must_use]
    pub fn resumed(place: Place) -> Self {
        Self { stage: Stage::Follow { is_verified: false }, place: Some(place), ..Self::default() }
    }

    /// The message that was read last.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    /// Everything has been read that there was.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// Nobody leads: the last leader has said so, or there has never been one.
    #[must_use]
    pub fn is_vacant(&self) -> bool {
        self.is_at_end && (self.has_resigned || self.place.is_none())
    }

    /// The place that was reached is found in the log.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.stage == Stage::Follow { is_verified: true }
    }

    /// The log has ended before the place. Servers without a leader say so as well.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.is_missing
    }

    /// Starts again.
    pub fn reset(&mut self, loss: Option<Loss>) {
        *self = Self { loss: loss.or(self.loss), ..Self::default() };
    }

    /// A connection has reached the stream: where to read from.
    pub fn start(&mut self) -> From {
        (self.is_at_end, self.has_resigned, self.is_missing) = (false, false, false);
        match (self.stage, self.place) {
            (Stage::Follow { .. }, Some(place)) => {
                self.stage = Stage::Follow { is_verified: false };
                From::Message(place.number)
            }
            _ => {
                self.reset(None);
                From::LastGraph
            }
        }
    }

    /// Reading has begun, and there are so many messages. Says from where to read instead.
    pub fn opened(&mut self, pending: u64, effects: &mut impl Extend<Effect>) -> Option<From> {
        if pending > 0 {
            return None;
        }
        match self.stage {
            Stage::Seek => {
                self.stage = Stage::Settle { first: 1, until: 0 };
                return Some(From::Message(1));
            }
            // There has never been a block.
            Stage::Settle { .. } => {
                self.is_at_end = true;
                effects.extend([Effect::Begin(self.loss.take())]);
            }
            Stage::Follow { .. } => self.is_missing = true,
            Stage::Graph { .. } => {}
        }
        None
    }

    /// Takes a message; `payload` is where it lies in the chunk. Says from where to read instead.
    ///
    /// # Errors
    ///
    /// Why reading cannot go on.
    pub fn take(
        &mut self,
        (number, pending): (u64, u64),
        (chunk, payload): (&[u8], Range<usize>),
        effects: &mut impl Extend<Effect>,
    ) -> Result<Option<From>, Failure> {
        let (header, hash) =
            Header::open(&chunk[payload.clone()]).map_err(|no_block| Failure::Log(no_block.to_string()))?;
        let body = payload.start + BLOCK_HEADER..payload.end;
        match self.stage {
            Stage::Seek => {
                let first = chunk[body].try_into().map(u64::from_le_bytes).ok();
                let first = first.filter(|&first| header.kind == Kind::GraphLast && first <= number);
                let first = first.ok_or_else(|| Failure::Log("a snapshot of it is damaged".to_owned()))?;
                self.stage = Stage::Graph { first, last: number, next: first };
                Ok(Some(From::Message(first)))
            }
            Stage::Graph { first, last, next } => {
                if number != next {
                    return Err(Failure::Connection(
                        "a part of the snapshot is not kept any more".to_owned(),
                    ));
                }
                if number == first {
                    effects.extend([Effect::Begin(self.loss.take())]);
                }
                if header.kind == Kind::Graph {
                    effects.extend([Effect::Edges(body)]);
                }
                if number == last {
                    self.stage = Stage::Settle { first, until: last };
                    return Ok(Some(From::Message(first)));
                }
                self.stage = Stage::Graph { first, last, next: number + 1 };
                Ok(None)
            }
            Stage::Settle { first, until } if self.place.is_none() => {
                if number != first || (first == 1 && header.previous != 0) {
                    let words = "it does not hold a whole snapshot of the follow graph yet";
                    return Err(Failure::Connection(words.to_owned()));
                }
                if until == 0 {
                    effects.extend([Effect::Begin(self.loss.take())]);
                }
                effects.extend([Effect::Cursor(header.from)]);
                self.advance((number, pending), (&header, hash), body, effects);
                Ok(None)
            }
            Stage::Follow { is_verified: false } => self.verify(number, pending, hash),
            Stage::Settle { .. } | Stage::Follow { .. } => {
                self.check(number, &header)?;
                self.advance((number, pending), (&header, hash), body, effects);
                Ok(None)
            }
        }
    }

    /// The first message of a connection is the one that was read last.
    fn verify(&mut self, number: u64, pending: u64, hash: u64) -> Result<Option<From>, Failure> {
        let Some(place) = self.place else { return Ok(None) };
        if number > place.number {
            self.reset(Some(Loss::Gone));
            return Ok(Some(From::LastGraph));
        }
        if (number, hash) != (place.number, place.hash) {
            return Err(Failure::Log("what was read from it before is not there any more".to_owned()));
        }
        self.stage = Stage::Follow { is_verified: true };
        self.is_missing = false;
        self.is_at_end = pending == 0;
        Ok(None)
    }

    /// The next message continues the chain.
    fn check(&self, number: u64, header: &Header) -> Result<(), Failure> {
        let Some(place) = self.place else { return Ok(()) };
        if number != place.number + 1 {
            return Err(Failure::Connection("messages have been left out".to_owned()));
        }
        if header.epoch != place.epoch {
            return Err(Failure::Log(format!("its epoch has become {}", header.epoch)));
        }
        if header.previous != place.hash || header.from != place.cursor || header.term < place.term {
            return Err(Failure::Log(format!(
                "its chain of checksums does not continue at message {number}"
            )));
        }
        Ok(())
    }

    fn advance(
        &mut self,
        (number, pending): (u64, u64),
        (header, hash): (&Header, u64),
        body: Range<usize>,
        effects: &mut impl Extend<Effect>,
    ) {
        let Header { epoch, term, time_ms, .. } = *header;
        self.place = Some(Place { number, hash, cursor: header.to, term, epoch, time_ms });
        self.has_resigned = header.kind == Kind::Resigned;
        self.is_at_end = pending == 0;
        if header.kind == Kind::Events {
            effects.extend([Effect::Apply { lines: body, to: header.to }]);
        }
        if let Stage::Settle { until, .. } = self.stage
            && number >= until
            && self.is_at_end
        {
            self.stage = Stage::Follow { is_verified: true };
            effects.extend([Effect::Reached(epoch)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written_and_every_changed_byte_is_noticed() {
        let place = Place {
            number: 7,
            hash: u64::MAX,
            cursor: Cursor::END,
            term: 3,
            epoch: Epoch::new(0xabc),
            time_ms: 99,
        };
        let text = place.to_text();
        assert_eq!(Place::parse(&text), Some(place));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(String::from_utf8(bytes).ok().and_then(|text| Place::parse(&text)), None);
            assert_eq!(Place::parse(&text[..at]), None);
        }
    }
}
