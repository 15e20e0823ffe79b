//! A connection that reaches for the stream: greeted, stream found or made, messages read and published.

use super::{
    api::{self, From, Refusal, StreamInfo},
    block::BLOCK_HEADER,
    connection::{ANSWER_MAX, Connection, Credentials, Incoming, RequestId},
};
use crate::time::{Micros, SECOND};
use std::ops::Range;

/// A consumer that says nothing for so long is gone. It says something once a second.
const CONSUMER_SILENCE_MAX: Micros = 5 * SECOND;
/// A question that was not answered for so long is asked again: who had to answer it may have died. JetStream also gives
/// consumers to servers that are dead or stopped, and says nothing then: another attempt is likely to go elsewhere.
const ASK_AGAIN: Micros = SECOND;

/// The settings that are needed to reach a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The stream's name.
    pub stream: String,
    /// The credentials of this server.
    pub credentials: Credentials,
    /// TLS is spoken, and nothing else will do.
    pub over_tls: bool,
    /// Whether the stream is made if it is not there.
    pub creates: bool,
    /// Its replicas and bytes, where it is made.
    pub replicas: u64,
    /// See `replicas`.
    pub bytes: u64,
    /// The largest block that is published.
    pub block_bytes_max: usize,
}

/// An event of the session.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The stream is there.
    Ready(StreamInfo),
    /// Reading begins; at least this number of messages can be read.
    Opened {
        /// That many.
        pending: u64,
    },
    /// A message.
    Delivered {
        /// Its number.
        number: u64,
        /// How many there are behind it.
        pending: u64,
        /// The range of its payload in the chunk.
        payload: Range<usize>,
    },
    /// A message that was published is stored, under this number.
    Stored(RequestId, u64),
    /// It was not behind the message that it expected.
    Refused(RequestId),
    /// It was not stored, because the stream has no leader.
    NotTaken(RequestId),
    /// The answer to [`Session::ask`].
    Info(StreamInfo),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Greeting,
    Finding(RequestId),
    Making(RequestId),
    Ready,
}

/// What is read.
#[derive(Debug)]
struct Reading {
    /// The subscription's number.
    sid: u64,
    /// The request that opens it.
    opening: RequestId,
    /// It has not been answered; when it was made.
    asked_at: Option<Micros>,
    from: From,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    settings: Settings,
    phase: Phase,
    reading: Option<Reading>,
    /// When looking for the stream began, and when it was last asked for.
    finding: (Micros, Micros),
    /// When the consumer was last heard of.
    consumer_heard: Micros,
    asked: Option<RequestId>,
    random: u64,
}

impl Session {
    /// A session on a connection that is being opened.
    #[must_use]
    pub fn new(settings: Settings, random: u64, now: Micros) -> Self {
        Self {
            connection: Connection::new(settings.credentials.clone(), settings.over_tls, random, now),
            settings,
            phase: Phase::Greeting,
            reading: None,
            finding: (now, now),
            consumer_heard: now,
            asked: None,
            random,
        }
    }

    /// Bytes to write.
    pub fn out(&mut self) -> &mut Vec<u8> {
        self.connection.out()
    }

    /// See [`Connection::turns_to_tls`].
    pub fn turns_to_tls(&mut self) -> bool {
        self.connection.turns_to_tls()
    }

    /// The stream is there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// The server's version.
    #[must_use]
    pub fn version(&self) -> &str {
        self.connection.version()
    }

    /// When [`due`](Self::due) has something to say at the latest.
    #[must_use]
    pub fn deadline(&self) -> Micros {
        let silence = match &self.reading {
            Some(reading) => {
                let again = reading.asked_at.map_or(Micros::MAX, |at| at + ASK_AGAIN);
                again.min(self.consumer_heard + CONSUMER_SILENCE_MAX)
            }
            None => Micros::MAX,
        };
        let finding = match self.phase {
            Phase::Finding(_) => self.finding.1 + ASK_AGAIN,
            _ => Micros::MAX,
        };
        self.connection.deadline().min(silence).min(finding)
    }

    /// Something has been read.
    pub fn note_heard(&mut self, now: Micros) {
        self.connection.note_heard(now);
    }

    /// Performs the steps that are due.
    ///
    /// # Errors
    ///
    /// Why the connection counts as lost, in a clause.
    pub fn due(&mut self, now: Micros) -> Result<(), String> {
        if self.reading.is_some() && self.consumer_heard + CONSUMER_SILENCE_MAX <= now {
            return Err("the stream's messages have stopped coming".to_owned());
        }
        if let Some(Reading { asked_at: Some(at), from, .. }) = self.reading
            && at + ASK_AGAIN <= now
        {
            let heard = self.consumer_heard;
            self.open(from, now);
            // In all it may take no longer.
            self.consumer_heard = heard;
        }
        if let Phase::Finding(id) = self.phase
            && self.finding.1 + ASK_AGAIN <= now
        {
            if self.finding.0 + ANSWER_MAX <= now {
                return Err("nobody has said in time where the stream is".to_owned());
            }
            self.connection.forget(id);
            self.find(now);
        }
        self.connection.due(now)
    }

    /// Asks for the stream.
    fn find(&mut self, now: Micros) {
        self.phase = Phase::Finding(self.request_info(now));
        self.finding.1 = now;
    }

    /// Reads the stream from there on, and nothing else.
    pub fn open(&mut self, from: From, now: Micros) {
        self.close();
        let (deliver, sid) = self.connection.subscribe();
        let (subject, body) = api::consume(&self.settings.stream, &self.consumer(sid), &deliver, from);
        let opening = self.connection.request(&subject, body.as_bytes(), now);
        self.consumer_heard = now;
        self.reading = Some(Reading { sid, opening, asked_at: Some(now), from });
    }

    /// The consumer's name of a subscription.
    fn consumer(&self, sid: u64) -> String {
        format!("fn{:016x}{sid}", self.random)
    }

    /// Reads no more.
    pub fn close(&mut self) {
        if let Some(Reading { sid, opening, .. }) = self.reading.take() {
            self.connection.forget(opening);
            self.connection.unsubscribe(sid);
            self.connection.tell(&api::consume_no_more(&self.settings.stream, &self.consumer(sid)));
        }
    }

    /// Asks for the state of the stream.
    pub fn ask(&mut self, now: Micros) {
        self.asked = Some(self.request_info(now));
    }

    fn request_info(&mut self, now: Micros) -> RequestId {
        self.connection.request(&api::info(&self.settings.stream), b"", now)
    }

    /// Publishes a block behind the message `expected`.
    pub fn publish(&mut self, ends_graph: bool, expected: u64, block: &[u8], now: Micros) -> RequestId {
        debug_assert!(block.len() >= BLOCK_HEADER);
        let stream = &self.settings.stream;
        let subject = if ends_graph { api::graphs(stream) } else { api::blocks(stream) };
        self.connection.publish(&subject, expected, block, now)
    }

    /// Takes the next part of `chunk[range]`, and moves the start of the range behind it. `None`: there is no whole message.
    ///
    /// # Errors
    ///
    /// Why the connection is of no more use, in a clause.
    pub fn next(
        &mut self,
        chunk: &[u8],
        range: &mut Range<usize>,
        now: Micros,
    ) -> Result<Option<Event>, String> {
        while let Some(incoming) = self.connection.next(chunk, range)? {
            let event = match incoming {
                Incoming::Up => {
                    self.greeted(now)?;
                    None
                }
                Incoming::Answer(id, message) => self.answered(id, api::answer(&message), now)?,
                Incoming::Delivered(message, payload) => {
                    if self.reading.as_ref().is_none_or(|reading| reading.sid != message.sid) {
                        continue;
                    }
                    self.consumer_heard = now;
                    match message.status() {
                        None => {
                            let place = message.reply.and_then(api::place);
                            let (number, pending) = place.ok_or("a message does not say where it stands")?;
                            Some(Event::Delivered { number, pending, payload })
                        }
                        // Flow control names the subject of its answer. A heartbeat names who waits for such an answer.
                        Some(100) => {
                            let stalled = message.header("Nats-Consumer-Stalled");
                            if let Some(subject) = message.reply.or(stalled) {
                                self.connection.answer(subject);
                            }
                            None
                        }
                        Some(status) => {
                            return Err(format!("the stream's messages have ended with status {status}"));
                        }
                    }
                }
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn greeted(&mut self, now: Micros) -> Result<(), String> {
        // A header of the protocol comes with it.
        let needed = self.settings.block_bytes_max as u64 + 256;
        let most = self.connection.payload_max();
        if self.settings.creates && most < needed {
            return Err(format!("the server's max_payload is {most}; expected at least {needed}"));
        }
        self.finding.0 = now;
        self.find(now);
        Ok(())
    }

    fn answered(
        &mut self,
        id: RequestId,
        answer: Result<serde_json::Value, Refusal>,
        now: Micros,
    ) -> Result<Option<Event>, String> {
        let words = |refusal| match refusal {
            Refusal::Other(words) => words,
            Refusal::WrongLast => "a request was refused".to_owned(),
            Refusal::NoStream => "the stream is not there".to_owned(),
            Refusal::NameInUse => "the stream is being made".to_owned(),
            Refusal::Nobody => "JetStream does not answer: it is off, or has no leader".to_owned(),
        };
        if self.phase == Phase::Finding(id) {
            return match answer {
                Err(Refusal::NoStream) if self.settings.creates => {
                    let Settings { stream, replicas, bytes, .. } = &self.settings;
                    let (subject, body) = api::create(stream, *replicas, *bytes);
                    self.phase = Phase::Making(self.connection.request(&subject, body.as_bytes(), now));
                    Ok(None)
                }
                Err(Refusal::NoStream) => {
                    Err("there is no such stream yet: its sequencer makes it".to_owned())
                }
                Err(refusal) => Err(words(refusal)),
                Ok(answer) => {
                    let info = api::stream_info(&answer, &self.settings.stream)?;
                    self.phase = Phase::Ready;
                    Ok(Some(Event::Ready(info)))
                }
            };
        }
        if self.phase == Phase::Making(id) {
            match answer {
                Ok(_) | Err(Refusal::NameInUse) => self.find(now),
                Err(refusal) => return Err(words(refusal)),
            }
            return Ok(None);
        }
        if self.asked == Some(id) {
            let info = api::stream_info(&answer.map_err(words)?, &self.settings.stream)?;
            return Ok(Some(Event::Info(info)));
        }
        if let Some(reading) = &mut self.reading
            && reading.opening == id
        {
            reading.asked_at = None;
            let pending = answer.map_err(words)?["num_pending"].as_u64().unwrap_or(0);
            return Ok(Some(Event::Opened { pending }));
        }
        match answer {
            Err(Refusal::WrongLast) => Ok(Some(Event::Refused(id))),
            Err(Refusal::Nobody) => Ok(Some(Event::NotTaken(id))),
            Err(refusal) => Err(words(refusal)),
            Ok(answer) => Ok(answer["seq"].as_u64().map(|number| Event::Stored(id, number))),
        }
    }
}
