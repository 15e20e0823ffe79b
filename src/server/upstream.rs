//! An edge's connection to its stream: what takes the place of event sources (`docs/SPEC.md` section 11).
//!
//! [`Follower`] decides. This module holds the socket and the bytes, and applies received events to the engine.

use super::{
    link::{Link, Receiving},
    net::Net,
};
use crate::{
    engine::{Engine, Replay},
    epoch::Epoch,
    sequence::Cursor,
    stream::{
        address::StreamAddress,
        first_line_from,
        follower::{Due, Effect, Follower, Loss},
        reader::Place,
    },
    time::Micros,
};
use std::{
    io::{Read, Write},
    ops::Range,
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Upstream<S> {
    link: Link<S>,
    follower: Follower,
    /// The request that is still to be sent.
    out: Vec<u8>,
    /// It starts again: the follow graph is being received.
    begins: bool,
    /// Lines below the cursor have been warned of on this connection.
    warned_behind: bool,
    /// Lines left out because they are below the cursor.
    late: u64,
}

/// The result of applying a part of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// All received bytes have been applied.
    All,
    /// The turn is full: deliver first.
    TurnFull,
    /// There may be more.
    More,
    /// The edge starts again; its users have lost the events between.
    Anew(Option<Loss>),
    /// The follow graph is complete, at this place: a journal begins there.
    Complete(Place),
    /// The stream is another one, and this edge has a journal.
    AnotherStream(Epoch),
}

impl<S: Read + Write> Upstream<S> {
    /// An edge's connection that is not open yet.
    pub(super) fn new(address: StreamAddress, follower: Follower) -> Self {
        Self {
            link: Link::new(address),
            follower,
            out: Vec::new(),
            begins: false,
            warned_behind: false,
            late: 0,
        }
    }

    /// The connection itself.
    pub(super) fn link(&self) -> &Link<S> {
        &self.link
    }

    /// The connection itself.
    pub(super) fn link_mut(&mut self) -> &mut Link<S> {
        &mut self.link
    }

    /// The stream that it follows, once it has reached one.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.follower.epoch().filter(|_| !self.begins)
    }

    /// It goes on in this stream, where the journal ends.
    pub(super) fn resume(&mut self, epoch: Option<Epoch>, now: Micros) {
        self.follower = Follower::new(epoch, true, now);
    }

    /// Since when the stream has been away, if it is.
    pub(super) fn away_since(&self) -> Option<Micros> {
        self.follower.away_since()
    }

    /// When the stream was last heard of, if it is there.
    pub(super) fn heard(&self) -> Option<Micros> {
        self.follower.heard()
    }

    /// When there is something to do if nothing becomes ready.
    pub(super) fn deadline(&self) -> Micros {
        self.follower.deadline().min(self.link.warning_at())
    }

    /// Whether something has been received that has not been applied, or may be there to be read.
    pub(super) fn has_work(&self) -> bool {
        self.link.has_rest() || self.link.is_readable()
    }

    /// Once the connection is up, sends the request. `cursor`: the next number that is wanted.
    pub(super) fn greet<N: Net<Socket = S>>(&mut self, net: &mut N, cursor: Cursor, now: Micros) {
        if self.link.comes_up() {
            self.out = self.follower.connected(cursor, now).into_bytes();
            if matches!(self.link.address(), StreamAddress::Tls(_))
                && let Err(reason) = self.link.start_tls(net)
            {
                return self.lose(&reason, now);
            }
        }
        if let Err(reason) = self.link.write(&mut self.out, net) {
            self.lose(&reason, now);
        }
    }

    /// Opens the connection, or gives it up, when it is time.
    pub(super) fn meet_deadlines<N: Net<Socket = S>>(&mut self, net: &mut N, now: Micros) {
        while let Some(due) = self.follower.due(now) {
            match due {
                Due::Connect => {
                    (self.link.unread, self.link.rest, self.warned_behind) = (0..0, None, false);
                    if let Err(reason) = self.connect(net) {
                        self.lose(&reason, now);
                    }
                }
                Due::GiveUp => self.lose("nothing has come from it for too long", now),
            }
        }
        self.link.warn_away(self.away_since(), now);
    }

    fn connect<N: Net<Socket = S>>(&mut self, net: &mut N) -> Result<(), String> {
        match self.link.address().clone() {
            StreamAddress::Tcp(server) | StreamAddress::Tls(server) => self.link.open(&server, net),
            StreamAddress::Nats { .. } => Err("it is no address of a server".to_owned()),
        }
    }

    /// The connection has ended. What is left of it comes again.
    fn lose(&mut self, reason: &str, now: Micros) {
        self.link.lose(reason, now);
        self.link.rest = None;
        self.out.clear();
        self.follower.lost(now);
    }

    /// Reads once, if there is nothing left to be applied. Says whether something has come.
    pub(super) fn read(&mut self, now: Micros) -> bool {
        if self.link.has_rest() {
            return false;
        }
        match self.link.read() {
            Receiving::Something => {
                self.follower.received(now);
                return true;
            }
            Receiving::Nothing => {}
            Receiving::Ended(reason) => self.lose(&reason, now),
        }
        false
    }

    /// Applies the next part of the received bytes.
    pub(super) fn apply(&mut self, engine: &mut Engine, now: Micros) -> Applied {
        if let Some(loss) = self.link.postponed.take() {
            return Applied::Anew(loss);
        }
        if let Some((lines, to)) = self.link.rest.take() {
            return self.replay(lines, to, engine, now);
        }
        match self.follower.next(&self.link.chunk, &mut self.link.unread) {
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
                self.link.is_back();
                log::info!(
                    stream:% = self.link.address(), epoch:% = place.epoch, cursor = engine.cursor();
                    "the stream has been reached"
                );
                if begins {
                    return Applied::Complete(place);
                }
            }
        }
        Applied::More
    }

    fn replay(&mut self, lines: Range<usize>, to: Cursor, engine: &mut Engine, now: Micros) -> Applied {
        let lines = self.without_late(lines, engine);
        if lines.is_empty() {
            return Applied::More;
        }
        match engine.replay(&self.link.chunk, lines.clone(), to) {
            Ok((_, Replay::Done)) => Applied::More,
            Ok((at, Replay::TurnFull)) => {
                self.link.rest = Some((at..lines.end, to));
                Applied::TurnFull
            }
            Err(damage) => {
                let line = self.link.chunk[damage.at..lines.end]
                    .split(|&byte| byte == b'\n')
                    .next()
                    .unwrap_or_default();
                let shown = line[..line.len().min(80)].escape_ascii();
                self.lose(&format!("{damage}: {shown}"), now);
                Applied::All
            }
        }
    }

    /// Lines left out because they are below the cursor.
    pub(super) fn late(&self) -> u64 {
        self.late
    }

    /// Leaves out lines below the cursor: the stream has lost its past, and has come back with another one.
    fn without_late(&mut self, lines: Range<usize>, engine: &mut Engine) -> Range<usize> {
        let cursor = engine.cursor();
        let from = first_line_from(&self.link.chunk[lines.clone()], cursor);
        if from == 0 {
            return lines;
        }
        let late =
            memchr::memchr_iter(b'\n', &self.link.chunk[lines.start..lines.start + from]).count() as u64;
        self.late += late;
        if !std::mem::replace(&mut self.warned_behind, true) {
            log::warn!(
                stream:% = self.link.address(), cursor, late;
                "the stream is behind this edge: it has lost what it had sent; what is below the cursor is ignored"
            );
        }
        lines.start + from..lines.end
    }
}

/// Moves the cursor on to `next`, if that is ahead. The numbers between were given up.
fn advance(engine: &mut Engine, next: Cursor) {
    if next > engine.cursor() {
        // No line can be wrong where there is none.
        let _ = engine.replay(&[], 0..0, next);
    }
}
