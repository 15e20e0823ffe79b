//! The connection to the replicated log: what takes the place of event sources at an edge, and of the journal at a sequencer
//! (`docs/SPEC.md` section 11).
//!
//! [`Log`] decides. This module holds the socket and the bytes, and applies received events to the engine.

use super::{
    link::{Link, Receiving},
    net::Net,
};
use crate::{
    config::{Config, ServerRole},
    engine::{Engine, Replay},
    epoch::Epoch,
    nats::{
        block::edges,
        log::{Due, Log, Moment, Part},
        reader::{Effect, Place},
        session::Settings,
    },
    sequence::Cursor,
    stream::{
        address::{HostPort, StreamAddress},
        first_line_from,
        follower::Loss,
    },
    time::{MILLISECOND, Micros, SECOND},
};
use std::{
    io::{Read, Write},
    ops::Range,
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Replicated<S> {
    link: Link<S>,
    log: Log,
    /// Since when sources wait for the log.
    held_since: Option<Micros>,
    /// The end of the log has been reached. Later events are for users.
    serves: bool,
    keeping: Keeping,
}

/// The place that stands beside the journal of an edge, so that a restart finds it.
#[derive(Debug, Default)]
struct Keeping {
    /// The place to write as soon as the journal has everything below it.
    next: Option<Place>,
    /// The number of the last one that was written.
    last: u64,
    /// When the next one may be written.
    due: Micros,
}

/// The result of applying a part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// All received bytes have been applied.
    All,
    /// The turn is full: deliver first.
    TurnFull,
    /// There may be more.
    More,
    /// The server starts again; its users have lost the events between.
    Anew(Option<Loss>),
    /// The end of the log has been reached: users may be served.
    Reached(Epoch),
    /// This server leads.
    Leads,
    /// It does not lead any more.
    Deposed(String),
    /// It is another log.
    Broken(String),
}

/// How the log of a configuration is reached, and its servers.
fn settings(
    config: &Config,
    servers: &[HostPort],
    name: &str,
    block_bytes_max: usize,
) -> (Settings, Vec<HostPort>) {
    let settings = Settings {
        stream: name.to_owned(),
        credentials: config.stream_login.clone(),
        over_tls: config.stream_ca.is_some(),
        creates: config.role == ServerRole::Sequencer,
        replicas: config.stream_replicas,
        bytes: config.stream_retention_bytes,
        block_bytes_max,
    };
    (settings, servers.to_vec())
}

impl<S: Read + Write> Replicated<S> {
    /// The log that a configuration names, if it names one.
    pub(super) fn new(config: &Config, block_bytes_max: usize, part: Part, now: Micros) -> Option<Self> {
        let Some(address @ StreamAddress::Nats { servers, name }) = &config.stream else { return None };
        let (settings, servers) = settings(config, servers, name, block_bytes_max);
        Some(Self {
            link: Link::new(address.clone()),
            log: Log::new(settings, servers, part, config.stream_takeover_ms * MILLISECOND, now),
            held_since: None,
            serves: false,
            keeping: Keeping::default(),
        })
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// The end of the log has been reached. Later events are for users.
    pub(super) fn serves(&self) -> bool {
        self.serves
    }

    /// It goes on behind a journal that ends at `cursor`; `note` is the place that was kept beside it.
    pub(super) fn resume(&mut self, epoch: Option<Epoch>, note: Option<&str>, cursor: Cursor) {
        let place = note.and_then(Place::parse);
        let place = place.filter(|place| Some(place.epoch) == epoch && place.cursor <= cursor);
        self.keeping.last = place.map_or(0, |place| place.number);
        self.log.resume(epoch, place);
        self.serves = epoch.is_some();
    }

    /// The place that is to be written beside the journal, which has everything below `kept`: about once a second a newer one.
    pub(super) fn place_to_keep(&mut self, kept: Cursor, now: Micros) -> Option<String> {
        let is_applied = self.serves && !self.link.has_rest() && !self.log.has_effects();
        let keeping = &mut self.keeping;
        if keeping.next.is_none() && is_applied {
            keeping.next = self.log.place().filter(|place| place.number != keeping.last);
        }
        let place = keeping.next.filter(|place| place.cursor <= kept && keeping.due <= now)?;
        *keeping = Keeping { next: None, last: place.number, due: now + SECOND };
        Some(place.to_text())
    }

    /// The connection itself.
    pub(super) fn link(&self) -> &Link<S> {
        &self.link
    }

    /// The connection itself.
    pub(super) fn link_mut(&mut self) -> &mut Link<S> {
        &mut self.link
    }

    /// Sources have to wait, because their events could not be published.
    pub(super) fn is_closed(&self) -> bool {
        self.log.leader().is_some_and(|leader| !leader.is_open())
    }

    /// For how long sources have waited, if they do.
    pub(super) fn held_for(&self, now: Micros) -> Option<Micros> {
        self.held_since.filter(|_| self.is_closed()).map(|since| now.saturating_sub(since))
    }

    /// Sources have waited, and need not any longer: for how long they have.
    pub(super) fn reopened(&mut self, now: Micros) -> Option<Micros> {
        if self.is_closed() {
            self.held_since.get_or_insert(now);
            return None;
        }
        self.held_since.take().map(|since| now - since)
    }

    /// When there is something to do if nothing becomes ready.
    pub(super) fn deadline(&self) -> Micros {
        self.log.deadline().min(self.link.warning_at())
    }

    /// Whether something has been received that has not been applied, or may be there to be read.
    pub(super) fn has_work(&self) -> bool {
        self.link.has_rest() || self.log.has_effects() || self.link.is_readable()
    }

    /// Opens the connection, or gives it up, when it is time. Sends the requests and blocks that are due.
    pub(super) fn meet_deadlines<N: Net<Socket = S>>(&mut self, net: &mut N, moment: Moment) {
        let is_idle = !self.has_work() && self.link.unread.is_empty();
        while let Some(due) = self.log.due(moment, is_idle) {
            match due {
                Due::Connect(server) => {
                    self.log.connect(moment);
                    if let Err(reason) = self.link.open(&server, net) {
                        self.lose(&reason, moment.now);
                    }
                }
                Due::GiveUp(reason) => self.lose(&reason, moment.now),
            }
        }
        self.warn_away(moment.now);
    }

    /// The connection has ended. Lines that did not fit the turn are not sent again: they are applied.
    fn lose(&mut self, reason: &str, now: Micros) {
        self.link.lose(reason, now);
        self.log.lost(now);
    }

    fn warn_away(&mut self, now: Micros) {
        if self.log.away_since().is_some() {
            self.link.warn_away(self.log.away_since(), now);
        } else if self.link.is_back() {
            log::info!(stream:% = self.link.address(); "the stream is there again");
        }
    }

    /// Writes the waiting bytes, as far as the socket takes them.
    pub(super) fn flush<N: Net<Socket = S>>(&mut self, net: &mut N, now: Micros) {
        self.link.comes_up();
        if self.log.turns_to_tls()
            && let Err(reason) = self.link.start_tls(net)
        {
            return self.lose(&reason, now);
        }
        let Some(out) = self.log.out() else { return };
        if let Err(reason) = self.link.write(out, net) {
            self.lose(&reason, now);
        }
    }

    /// Reads once, if there is nothing left to be applied. Says whether something has come.
    pub(super) fn read(&mut self, now: Micros) -> bool {
        if self.link.has_rest() || self.log.has_effects() {
            return false;
        }
        match self.link.read() {
            Receiving::Something => {
                self.log.received(now);
                return true;
            }
            Receiving::Nothing => {}
            Receiving::Ended(reason) => self.lose(&reason, now),
        }
        false
    }

    /// Applies the next part of the received bytes.
    pub(super) fn apply(&mut self, engine: &mut Engine, now: Micros) -> Taken {
        if let Some(loss) = self.link.postponed.take() {
            return Taken::Anew(loss);
        }
        if let Some((lines, to)) = self.link.rest.take() {
            return self.replay(lines, to, engine);
        }
        match self.log.next(&self.link.chunk, &mut self.link.unread, now) {
            Err(reason) => {
                self.lose(&reason, now);
                return Taken::All;
            }
            Ok(None) => return Taken::All,
            Ok(Some(Effect::Begin(loss))) => {
                self.serves = false;
                self.keeping.next = None;
                return Taken::Anew(loss);
            }
            Ok(Some(Effect::Edges(payload))) => {
                for (follower, followed) in edges(&self.link.chunk[payload]) {
                    engine.add_edge(follower, followed);
                }
            }
            Ok(Some(Effect::Cursor(cursor))) => engine.set_cursor(cursor),
            Ok(Some(Effect::Apply { lines, to })) => return self.replay(lines, to, engine),
            Ok(Some(Effect::Reached(epoch))) => {
                self.serves = true;
                return Taken::Reached(epoch);
            }
            Ok(Some(Effect::Leads)) => return Taken::Leads,
            Ok(Some(Effect::Deposed(reason))) => return Taken::Deposed(reason),
            Ok(Some(Effect::Broken(reason))) => return Taken::Broken(reason),
        }
        Taken::More
    }

    fn replay(&mut self, mut lines: Range<usize>, to: Cursor, engine: &mut Engine) -> Taken {
        let cursor = engine.cursor();
        if to <= cursor {
            // The journal was ahead of the place that was kept beside it.
            return Taken::More;
        }
        lines.start += first_line_from(&self.link.chunk[lines.clone()], cursor);
        match engine.replay(&self.link.chunk, lines.clone(), to) {
            Ok((_, Replay::Done)) => Taken::More,
            Ok((at, Replay::TurnFull)) => {
                self.link.rest = Some((at..lines.end, to));
                Taken::TurnFull
            }
            // Its checksum is right: its publisher is not a sequencer of this kind.
            Err(damage) => Taken::Broken(format!("a block of it holds lines that are no events: {damage}")),
        }
    }
}
