//! The connection to the replicated log: what takes the place of event sources at an edge, and of the journal at a sequencer
//! (`docs/SPEC.md` section 11).
//!
//! [`Log`] says what is to be done; this holds the socket and the bytes, and applies what comes to the engine.

use super::{
    key::StreamKey,
    net::Net,
    socket::{is_interrupted, would_block},
    upstream::{READ_BYTES, Receiving, WARN_EVERY, receive, resolve},
};
use crate::{
    config::{Config, ServerRole},
    engine::{Engine, Replay},
    epoch::Epoch,
    nats::{
        block::edges,
        log::{Due, Log, Moment, Part},
        reader::Effect,
        session::Settings,
    },
    stream::{
        address::{HostPort, StreamAddress},
        follower::Loss,
    },
    time::{MILLISECOND, Micros, SECOND},
};
use std::{
    io::{ErrorKind, Read, Write},
    ops::Range,
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Replicated<S> {
    address: StreamAddress,
    log: Log,
    socket: Option<S>,
    /// The connection is not up yet.
    connecting: bool,
    readable: bool,
    writable: bool,
    /// Being writable is told.
    wants_write: bool,
    chunk: Vec<u8>,
    /// What of the chunk has been received and not been taken.
    unread: Range<usize>,
    /// Lines that did not fit the turn, and the cursor behind them.
    rest: Option<(Range<usize>, u128)>,
    /// When it was last said in the log that the stream is away; `None`: it is there.
    warned_away: Option<Micros>,
    /// Since when sources wait for the log.
    held_since: Option<Micros>,
    /// The end of the log has been reached: what comes is for users.
    serves: bool,
}

/// What came of applying a part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// There is nothing left of what has been received.
    All,
    /// The turn is full: it is to be delivered first.
    TurnFull,
    /// There may be more.
    More,
    /// The server begins anew; its users have lost what lies between.
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
            address: address.clone(),
            log: Log::new(settings, servers, part, config.stream_takeover_ms * MILLISECOND, now),
            socket: None,
            connecting: false,
            readable: false,
            writable: false,
            wants_write: false,
            chunk: vec![0; 2 * READ_BYTES],
            unread: 0..0,
            rest: None,
            warned_away: None,
            held_since: None,
            serves: false,
        })
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// The end of the log has been reached: what comes is for users.
    pub(super) fn serves(&self) -> bool {
        self.serves
    }

    /// Where the log is.
    pub(super) fn address(&self) -> &StreamAddress {
        &self.address
    }

    /// Sources have to wait: what they send could not be published.
    pub(super) fn is_closed(&self) -> bool {
        self.log.leader().is_some_and(|leader| !leader.is_open())
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
        let warning = self.warned_away.map_or(Micros::MAX, |at| at + WARN_EVERY);
        self.log.deadline().min(warning)
    }

    /// Whether something has been received that has not been applied, or may be there to be read.
    pub(super) fn has_work(&self) -> bool {
        self.rest.is_some() || self.log.has_effects() || (self.readable && !self.connecting)
    }

    /// The net says what the connection is ready for.
    pub(super) fn note_ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// Opens the connection, or gives it up, when it is time; asks and publishes what is due.
    pub(super) fn meet_deadlines<N: Net<Socket = S>>(&mut self, net: &mut N, moment: Moment) {
        let is_idle = !self.has_work() && self.unread.is_empty();
        while let Some(due) = self.log.due(moment, is_idle) {
            match due {
                Due::Connect(server) => {
                    self.log.connect(moment);
                    if let Err(reason) = self.connect(&server, net) {
                        self.lose(&reason, moment.now);
                    }
                }
                Due::GiveUp(reason) => self.lose(&reason, moment.now),
            }
        }
        self.warn_away(moment.now);
    }

    fn connect<N: Net<Socket = S>>(&mut self, server: &HostPort, net: &mut N) -> Result<(), String> {
        let key = StreamKey::UPSTREAM.number();
        let mut socket = net.connect(resolve(server)?).map_err(|error| error.to_string())?;
        net.register(&mut socket, key).map_err(|error| error.to_string())?;
        net.want_write(&mut socket, key, true).map_err(|error| error.to_string())?;
        (self.socket, self.connecting, self.wants_write) = (Some(socket), true, true);
        (self.readable, self.writable) = (false, false);
        // What is left of the last connection is applied before anything of this one is read.
        Ok(())
    }

    /// The connection has ended.
    fn lose(&mut self, reason: &str, now: Micros) {
        if self.warned_away.is_none() {
            self.warned_away = Some(now);
            log::warn!(
                stream:% = self.address, reason;
                "the connection to the stream is away; connecting is tried again"
            );
        } else {
            log::debug!(stream:% = self.address, reason; "the stream cannot be reached");
        }
        (self.socket, self.connecting, self.readable) = (None, false, false);
        self.unread = 0..0;
        self.log.lost(now);
    }

    fn warn_away(&mut self, now: Micros) {
        if self.log.away_since().is_none() {
            if self.warned_away.take().is_some() {
                log::info!(stream:% = self.address; "the stream is there again");
            }
        } else if let Some(at) = self.warned_away
            && now >= at + WARN_EVERY
        {
            self.warned_away = Some(now);
            let seconds = self.log.away_since().map_or(0, |since| (now - since) / SECOND);
            log::warn!(stream:% = self.address, seconds; "the stream is still away");
        }
    }

    /// Writes what there is to be written, as far as the socket takes it.
    pub(super) fn flush<N: Net<Socket = S>>(&mut self, net: &mut N, now: Micros) {
        if self.connecting && !std::mem::take(&mut self.writable) {
            return;
        }
        self.connecting = false;
        if let Err(reason) = self.try_to_flush(net) {
            self.lose(&reason, now);
        }
    }

    fn try_to_flush<N: Net<Socket = S>>(&mut self, net: &mut N) -> Result<(), String> {
        let (Some(socket), Some(out)) = (&mut self.socket, self.log.out()) else { return Ok(()) };
        let mut written = 0;
        while written < out.len() {
            match socket.write(&out[written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.to_string()),
                Ok(len) => written += len,
                Err(error) if is_interrupted(&error) => {}
                Err(error) if would_block(&error) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        out.drain(..written);
        let blocked = !out.is_empty();
        if blocked != self.wants_write {
            self.wants_write = blocked;
            let key = StreamKey::UPSTREAM.number();
            net.want_write(socket, key, blocked).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Reads once, if there is nothing left to be applied. Says whether something has come.
    pub(super) fn read(&mut self, now: Micros) -> bool {
        if self.rest.is_some() || self.log.has_effects() || !self.readable || self.connecting {
            return false;
        }
        let Some(socket) = &mut self.socket else { return false };
        match receive(socket, &mut self.chunk, &mut self.unread) {
            Receiving::Something => {
                self.log.received(now);
                return true;
            }
            Receiving::Nothing => self.readable = false,
            Receiving::Ended(reason) => self.lose(&reason, now),
        }
        false
    }

    /// Applies the next part of what has been received.
    pub(super) fn apply(&mut self, engine: &mut Engine, now: Micros) -> Taken {
        if let Some((lines, to)) = self.rest.take() {
            return self.replay(lines, to, engine);
        }
        match self.log.next(&self.chunk, &mut self.unread, now) {
            Err(reason) => {
                self.lose(&reason, now);
                return Taken::All;
            }
            Ok(None) => return Taken::All,
            Ok(Some(Effect::Begin(loss))) => {
                self.serves = false;
                return Taken::Anew(loss);
            }
            Ok(Some(Effect::Edges(payload))) => {
                for (follower, followed) in edges(&self.chunk[payload]) {
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

    fn replay(&mut self, lines: Range<usize>, to: u128, engine: &mut Engine) -> Taken {
        match engine.replay(&self.chunk, lines.clone(), to) {
            Ok((_, Replay::Done)) => Taken::More,
            Ok((at, Replay::TurnFull)) => {
                self.rest = Some((at..lines.end, to));
                Taken::TurnFull
            }
            // Its checksum is right: whoever has published it is not of this kind.
            Err(damage) => Taken::Broken(format!("a block of it holds lines that are no events: {damage}")),
        }
    }
}
