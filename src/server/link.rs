//! The one connection that a server opens itself: to the stream that it follows, or to the log that it publishes to
//! (`docs/SPEC.md` section 11).
//!
//! Its protocol is in [`upstream`](super::upstream) and [`replicated`](super::replicated). Here are the
//! socket, what has come and has not been applied, and what the log says of a stream that is away.

use super::{
    key::StreamKey,
    net::Net,
    socket::{is_interrupted, would_block},
};
use crate::{
    sequence::Cursor,
    stream::{
        address::{HostPort, StreamAddress},
        follower::Loss,
    },
    time::{Micros, SECOND},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, ToSocketAddrs},
    ops::Range,
};

/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;
/// How often the log says that the stream is still away.
const WARN_EVERY: Micros = 60 * SECOND;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Link<S> {
    address: StreamAddress,
    socket: Option<S>,
    /// The name of the server that the connection leads to.
    name: String,
    /// How often a connection was opened. A name may have several addresses: each has its turn.
    attempts: usize,
    /// The connection is not up yet.
    connecting: bool,
    readable: bool,
    writable: bool,
    /// Being writable is told.
    wants_write: bool,
    pub(super) chunk: Vec<u8>,
    /// The range of the chunk that has been received and not been taken.
    pub(super) unread: Range<usize>,
    /// Lines that did not fit the turn, and the cursor behind them.
    pub(super) rest: Option<(Range<usize>, Cursor)>,
    /// A beginning that waits until everything has been delivered.
    pub(super) postponed: Option<Option<Loss>>,
    /// When it was last said in the log that the stream is away; `None`: it is there.
    warned_away: Option<Micros>,
}

/// The result of a read.
#[derive(Debug)]
pub(super) enum Receiving {
    Something,
    Nothing,
    /// The connection is of no more use, for this reason.
    Ended(String),
}

impl<S: Read + Write> Link<S> {
    /// A connection that is not open yet.
    pub(super) fn new(address: StreamAddress) -> Self {
        Self {
            address,
            socket: None,
            name: String::new(),
            attempts: 0,
            connecting: false,
            readable: false,
            writable: false,
            wants_write: false,
            chunk: vec![0; 2 * READ_BYTES],
            unread: 0..0,
            rest: None,
            postponed: None,
            warned_away: None,
        }
    }

    /// The address of the stream.
    pub(super) fn address(&self) -> &StreamAddress {
        &self.address
    }

    /// The connection has become readable or writable.
    pub(super) fn note_ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// Something has been received that has not been applied.
    pub(super) fn has_rest(&self) -> bool {
        self.rest.is_some() || self.postponed.is_some()
    }

    /// There may be something to be read.
    pub(super) fn is_readable(&self) -> bool {
        self.readable && !self.connecting
    }

    /// When to say again that the stream is away.
    pub(super) fn warning_at(&self) -> Micros {
        self.warned_away.map_or(Micros::MAX, |at| at + WARN_EVERY)
    }

    /// Opens a connection. What is left of the last one is not touched: it is applied before anything of this one is read.
    pub(super) fn open<N: Net<Socket = S>>(&mut self, server: &HostPort, net: &mut N) -> Result<(), String> {
        let key = StreamKey::UPSTREAM.number();
        let address = resolve(server, self.attempts)?;
        self.attempts = self.attempts.wrapping_add(1);
        let mut socket = net.connect(address).map_err(|error| error.to_string())?;
        net.register(&mut socket, key).map_err(|error| error.to_string())?;
        net.want_write(&mut socket, key, true).map_err(|error| error.to_string())?;
        (self.socket, self.connecting, self.wants_write) = (Some(socket), true, true);
        (self.readable, self.writable) = (false, false);
        self.name.clone_from(&server.host);
        Ok(())
    }

    /// Speaks TLS from now on. What is written waits for the end of the handshake.
    pub(super) fn start_tls<N: Net<Socket = S>>(&mut self, net: &mut N) -> Result<(), String> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        let key = StreamKey::UPSTREAM.number();
        net.start_tls(socket, key, &self.name).map_err(|error| error.to_string())
    }

    /// Says once that a connection which was being opened has come up.
    pub(super) fn comes_up(&mut self) -> bool {
        let is_up = self.connecting && std::mem::take(&mut self.writable);
        self.connecting &= !is_up;
        is_up
    }

    /// The connection has ended. What has been received is dropped, but for [`rest`](Self::rest).
    pub(super) fn lose(&mut self, reason: &str, now: Micros) {
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
        self.unread = 0..0;
    }

    /// The stream is there. Says whether the log has called it away.
    pub(super) fn is_back(&mut self) -> bool {
        self.warned_away.take().is_some()
    }

    /// Says again in the log that the stream is away, when it is time.
    pub(super) fn warn_away(&mut self, since: Option<Micros>, now: Micros) {
        if self.warning_at() <= now {
            self.warned_away = Some(now);
            let seconds = since.map_or(0, |since| (now - since) / SECOND);
            log::warn!(stream:% = self.address, seconds; "the stream is still away");
        }
    }

    /// Writes the waiting bytes, as far as the socket takes them. If some are left, it asks to be told when the socket is writable.
    pub(super) fn write<N: Net<Socket = S>>(&mut self, out: &mut Vec<u8>, net: &mut N) -> Result<(), String> {
        let Some(socket) = self.socket.as_mut().filter(|_| !self.connecting) else { return Ok(()) };
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

    /// Reads once, behind what has been received and not been taken, which is moved to the front.
    pub(super) fn read(&mut self) -> Receiving {
        let Some(socket) = self.socket.as_mut().filter(|_| self.readable && !self.connecting) else {
            return Receiving::Nothing;
        };
        let Self { chunk, unread, .. } = self;
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
                Err(error) if would_block(&error) => {
                    self.readable = false;
                    return Receiving::Nothing;
                }
                Err(error) => return Receiving::Ended(error.to_string()),
            }
        }
    }
}

/// Finds an address of a server for this attempt. A name is looked up for every attempt, because its addresses may have changed.
/// If it has several, attempts take them in turn: the first may be one where nobody listens, such as `::1` of `localhost`.
fn resolve(server: &HostPort, attempt: usize) -> Result<SocketAddr, String> {
    let addresses = (&server.host[..], server.port).to_socket_addrs();
    let addresses: Vec<_> =
        addresses.map_err(|error| format!("cannot find {}: {error}", server.host))?.collect();
    let count = addresses.len().max(1);
    addresses.get(attempt % count).copied().ok_or_else(|| format!("{} has no address", server.host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_name_has_its_turn() {
        let server = HostPort { host: "localhost".to_owned(), port: 9 };
        let known: Vec<SocketAddr> = ("localhost", 9).to_socket_addrs().unwrap().collect();
        let tried: Vec<SocketAddr> =
            (0..known.len()).map(|attempt| resolve(&server, attempt).unwrap()).collect();
        assert_eq!(tried, known);
        assert_eq!(resolve(&server, known.len()).unwrap(), known[0]);
    }
}
