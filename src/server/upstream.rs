//! An edge's connection to its stream: what takes the place of event sources (`docs/SPEC.md` section 11).
//!
//! [`Follower`] says what is to be done; this holds the socket and the bytes, and applies what comes to the engine.

use super::{
    key::StreamKey,
    net::Net,
    socket::{is_interrupted, would_block},
};
use crate::{
    engine::{Engine, Replay},
    epoch::Epoch,
    stream::{
        address::{HostPort, StreamAddress},
        first_line_from,
        follower::{Due, Effect, Follower, Loss},
        reader::Place,
    },
    time::{Micros, SECOND},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, ToSocketAddrs},
    ops::Range,
};

/// Bytes of one read.
pub(super) const READ_BYTES: usize = 256 << 10;
/// Reads before the turn is delivered, whatever is owed.
pub(super) const READS_PER_TURN: usize = 64;
/// How often the log says that the stream is still away.
pub(super) const WARN_EVERY: Micros = 60 * SECOND;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Upstream<S> {
    address: StreamAddress,
    follower: Follower,
    socket: Option<S>,
    /// The connection is not up yet: its request has not been sent.
    connecting: bool,
    readable: bool,
    writable: bool,
    chunk: Vec<u8>,
    /// What of the chunk has been received and not been applied.
    unread: Range<usize>,
    /// Lines that did not fit the turn, and the cursor behind them.
    rest: Option<(Range<usize>, u128)>,
    /// It begins anew: the follow graph is being received.
    begins: bool,
    /// A beginning that waits until everything has been delivered.
    postponed: Option<Option<Loss>>,
    /// Lines below the cursor have been warned of on this connection.
    warned_behind: bool,
    /// When it was last said in the log that the stream is away; `None`: it is there.
    warned_away: Option<Micros>,
}

/// What came of applying a part of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// There is nothing left of what has been received.
    All,
    /// The turn is full: it is to be delivered first.
    TurnFull,
    /// There may be more.
    More,
    /// The edge begins anew; its users have lost what lies between.
    Anew(Option<Loss>),
    /// The follow graph is complete, at this place: a journal begins there.
    Complete(Place),
    /// The stream is another one, and this edge has a journal.
    AnotherStream(Epoch),
}

impl<S: Read + Write> Upstream<S> {
    /// An edge's connection that is to be opened.
    pub(super) fn new(address: StreamAddress, follower: Follower) -> Self {
        Self {
            address,
            follower,
            socket: None,
            connecting: false,
            readable: false,
            writable: false,
            chunk: vec![0; 2 * READ_BYTES],
            unread: 0..0,
            rest: None,
            begins: false,
            postponed: None,
            warned_behind: false,
            warned_away: None,
        }
    }

    /// The stream that it follows, once it has reached one.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.follower.epoch().filter(|_| !self.begins)
    }

    /// It goes on in this stream, where the journal ends.
    pub(super) fn resume(&mut self, epoch: Option<Epoch>, now: Micros) {
        self.follower = Follower::new(epoch, true, now);
    }

    /// It cannot begin anew before everything has been delivered.
    pub(super) fn postpone(&mut self, loss: Option<Loss>) {
        self.postponed = Some(loss);
    }

    /// Since when the stream has been away, if it is.
    pub(super) fn away_since(&self) -> Option<Micros> {
        self.follower.away_since()
    }

    /// When the stream was last heard of, if it is there.
    pub(super) fn heard(&self) -> Option<Micros> {
        self.follower.heard()
    }

    /// Where the stream is.
    pub(super) fn address(&self) -> &StreamAddress {
        &self.address
    }

    /// When there is something to do if nothing becomes ready.
    pub(super) fn deadline(&self) -> Micros {
        let warning = self.warned_away.map_or(Micros::MAX, |at| at + WARN_EVERY);
        self.follower.deadline().min(warning)
    }

    /// Whether something has been received that has not been applied, or may be there to be read.
    pub(super) fn has_work(&self) -> bool {
        self.rest.is_some() || self.postponed.is_some() || (self.readable && !self.connecting)
    }

    /// The net says what the connection is ready for.
    pub(super) fn note_ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// Once the connection is up, sends the request. `cursor`: the next number that is wanted.
    pub(super) fn greet<N: Net<Socket = S>>(&mut self, net: &mut N, cursor: u128, now: Micros) {
        if !std::mem::take(&mut self.writable) || !std::mem::take(&mut self.connecting) {
            return;
        }
        let Some(socket) = &mut self.socket else { return };
        let request = self.follower.connected(cursor, now);
        // Nothing has been written before: a socket that does not take a line now is of no use.
        let sent = socket
            .write(request.as_bytes())
            .and_then(|len| if len < request.len() { Err(ErrorKind::WriteZero.into()) } else { Ok(()) });
        let sent = sent.and_then(|()| net.want_write(socket, StreamKey::UPSTREAM.number(), false));
        if let Err(error) = sent {
            self.lose(&error.to_string(), now);
        }
    }

    /// Opens the connection, or gives it up, when it is time.
    pub(super) fn meet_deadlines<N: Net<Socket = S>>(&mut self, net: &mut N, now: Micros) {
        while let Some(due) = self.follower.due(now) {
            match due {
                Due::Connect => {
                    if let Err(reason) = self.connect(net) {
                        self.lose(&reason, now);
                    }
                }
                Due::GiveUp => self.lose("nothing has come from it for too long", now),
            }
        }
        self.warn_away(now);
    }

    fn connect<N: Net<Socket = S>>(&mut self, net: &mut N) -> Result<(), String> {
        let StreamAddress::Tcp(server) = &self.address else {
            return Err("it is no address of a server".to_owned());
        };
        let address = resolve(server)?;
        let key = StreamKey::UPSTREAM.number();
        let mut socket = net.connect(address).map_err(|error| error.to_string())?;
        net.register(&mut socket, key).map_err(|error| error.to_string())?;
        net.want_write(&mut socket, key, true).map_err(|error| error.to_string())?;
        (self.socket, self.connecting) = (Some(socket), true);
        (self.readable, self.writable) = (false, false);
        (self.unread, self.rest, self.warned_behind) = (0..0, None, false);
        Ok(())
    }

    /// The connection has ended.
    fn lose(&mut self, reason: &str, now: Micros) {
        if self.warned_away.is_none() {
            self.warned_away = Some(now);
            log::warn!(
                stream:% = self.address, reason;
                "the connection to the stream is away; what has come from it is served, and connecting is tried again"
            );
        } else {
            log::debug!(stream:% = self.address, reason; "the stream cannot be reached");
        }
        (self.socket, self.connecting, self.readable) = (None, false, false);
        (self.unread, self.rest) = (0..0, None);
        self.follower.lost(now);
    }

    fn warn_away(&mut self, now: Micros) {
        if let Some(at) = self.warned_away
            && now >= at + WARN_EVERY
        {
            self.warned_away = Some(now);
            let seconds = self.away_since().map_or(0, |since| (now - since) / SECOND);
            log::warn!(stream:% = self.address, seconds; "the stream is still away");
        }
    }

    /// Reads once, if there is nothing left to be applied. Says whether something has come.
    pub(super) fn read(&mut self, now: Micros) -> bool {
        if self.rest.is_some() || !self.readable || self.connecting {
            return false;
        }
        let Some(socket) = &mut self.socket else { return false };
        match receive(socket, &mut self.chunk, &mut self.unread) {
            Receiving::Something => {
                self.follower.received(now);
                return true;
            }
            Receiving::Nothing => self.readable = false,
            Receiving::Ended(reason) => self.lose(&reason, now),
        }
        false
    }

    /// Applies the next part of what has been received.
    pub(super) fn apply(&mut self, engine: &mut Engine, now: Micros) -> Applied {
        if let Some(loss) = self.postponed.take() {
            return Applied::Anew(loss);
        }
        if let Some((lines, to)) = self.rest.take() {
            return self.replay(lines, to, engine, now);
        }
        match self.follower.next(&self.chunk, &mut self.unread) {
            Err(reason) => {
                self.lose(&reason, now);
                return Applied::All;
            }
            Ok(None) => return Applied::All,
            Ok(Some(Effect::Begin(loss))) => {
                self.begins = true;
                return Applied::Anew(loss);
            }
            Ok(Some(Effect::AnotherStream(place))) => return Applied::AnotherStream(place.epoch),
            Ok(Some(Effect::Edge(follower, followed))) => engine.add_edge(follower, followed),
            Ok(Some(Effect::Apply { lines, to })) => return self.replay(lines, to, engine, now),
            Ok(Some(Effect::Advance(next))) => advance(engine, next),
            Ok(Some(Effect::Reached(place))) => {
                let begins = std::mem::take(&mut self.begins);
                if begins {
                    engine.set_cursor(place.next);
                }
                advance(engine, place.next);
                self.warned_away = None;
                log::info!(
                    stream:% = self.address, epoch:% = place.epoch, cursor = engine.cursor();
                    "the stream has been reached"
                );
                if begins {
                    return Applied::Complete(place);
                }
            }
        }
        Applied::More
    }

    fn replay(&mut self, lines: Range<usize>, to: u128, engine: &mut Engine, now: Micros) -> Applied {
        let lines = self.without_late(lines, engine);
        if lines.is_empty() {
            return Applied::More;
        }
        match engine.replay(&self.chunk, lines.clone(), to) {
            Ok((_, Replay::Done)) => Applied::More,
            Ok((at, Replay::TurnFull)) => {
                self.rest = Some((at..lines.end, to));
                Applied::TurnFull
            }
            Err(damage) => {
                let line =
                    self.chunk[damage.at..lines.end].split(|&byte| byte == b'\n').next().unwrap_or_default();
                let shown = line[..line.len().min(80)].escape_ascii();
                self.lose(&format!("{damage}: {shown}"), now);
                Applied::All
            }
        }
    }

    /// Leaves out lines below the cursor: the stream has lost its past, and has come back with another one.
    fn without_late(&mut self, lines: Range<usize>, engine: &mut Engine) -> Range<usize> {
        let cursor = engine.cursor();
        let from = first_line_from(&self.chunk[lines.clone()], cursor);
        if from == 0 {
            return lines;
        }
        let late = memchr::memchr_iter(b'\n', &self.chunk[lines.start..lines.start + from]).count() as u64;
        engine.counters.events_late += late;
        if !std::mem::replace(&mut self.warned_behind, true) {
            log::warn!(
                stream:% = self.address, cursor, late;
                "the stream is behind this edge: it has lost what it had sent; what is below the cursor is ignored"
            );
        }
        lines.start + from..lines.end
    }
}

/// Moves the cursor on to `next`, if that is ahead: what lies between was given up.
fn advance(engine: &mut Engine, next: u128) {
    if next > engine.cursor() {
        // No line can be wrong where there is none.
        let _ = engine.replay(&[], 0..0, next);
    }
}

/// What came of a read.
pub(super) enum Receiving {
    Something,
    Nothing,
    /// The connection is of no more use, for this reason.
    Ended(String),
}

/// Reads once, behind what has been received and not been applied, `chunk[unread]`, which is moved to the front.
pub(super) fn receive(socket: &mut impl Read, chunk: &mut Vec<u8>, unread: &mut Range<usize>) -> Receiving {
    chunk.copy_within(unread.clone(), 0);
    let kept = unread.len();
    if chunk.len() < kept + READ_BYTES {
        chunk.resize(kept + READ_BYTES, 0);
    }
    *unread = 0..kept;
    loop {
        match socket.read(&mut chunk[kept..kept + READ_BYTES]) {
            Ok(0) => return Receiving::Ended("its server has closed the connection".to_owned()),
            Ok(len) => {
                unread.end += len;
                return Receiving::Something;
            }
            Err(error) if is_interrupted(&error) => {}
            Err(error) if would_block(&error) => return Receiving::Nothing,
            Err(error) => return Receiving::Ended(error.to_string()),
        }
    }
}

/// Finds the address of a server. A name is looked up anew for every attempt, since it may lead elsewhere by then.
pub(super) fn resolve(server: &HostPort) -> Result<SocketAddr, String> {
    let addresses = (&server.host[..], server.port).to_socket_addrs();
    let mut addresses = addresses.map_err(|error| format!("cannot find {}: {error}", server.host))?;
    addresses.next().ok_or_else(|| format!("{} has no address", server.host))
}
