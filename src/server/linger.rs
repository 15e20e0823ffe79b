//! Connections that are closed without losing bytes that were written to them.
//!
//! A socket that is closed with bytes unread, or to which bytes come afterwards, is reset, and then the system throws away what it
//! has not delivered yet: the end of what a user was sent, a source's last acknowledgement. So the connection of somebody who may
//! send something is closed on this side only at first. What still comes is read and thrown away, until the other side closes too, for a limited time.

use super::{net::Net, socket::read_off};
use crate::time::{MILLISECOND, Micros, SECOND};
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read},
};

/// For how long the other side may go on sending.
const LINGER: Micros = 2 * SECOND;
/// How often the sockets are read.
const LOOK_INTERVAL: Micros = 10 * MILLISECOND;
/// Bytes that are thrown away at once.
const SCRATCH_BYTES: usize = 4096;
/// Connections at once. For one more, the oldest one is closed.
const LINGERING_MAX: usize = 1024;

/// Connections that are closed on this side.
#[derive(Debug)]
pub(super) struct Lingering<S> {
    /// Until when, in order of time, and the socket.
    sockets: VecDeque<(Micros, S)>,
    look_at: Micros,
    scratch: Vec<u8>,
}

impl<S> Lingering<S> {
    pub(super) fn new() -> Self {
        Self { sockets: VecDeque::new(), look_at: 0, scratch: vec![0; SCRATCH_BYTES] }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Option<Micros> {
        (!self.is_empty()).then_some(self.look_at)
    }
}

impl<S: Read> Lingering<S> {
    /// Closes a connection. Where the other side `may_send` something, or has done so, it is closed on this side only at first.
    pub(super) fn close<N: Net<Socket = S>>(
        &mut self,
        mut socket: S,
        may_send: bool,
        net: &mut N,
        now: Micros,
    ) {
        let (has_come, end) = read_off(&mut socket, &mut self.scratch);
        if (!may_send && !has_come) || is_last(end) {
            return;
        }
        // Somebody else gets the key: what becomes of this connection is not told of that one.
        net.forget(&mut socket);
        net.finish(&mut socket);
        if self.is_empty() {
            self.look_at = now + LOOK_INTERVAL;
        }
        if self.sockets.len() >= LINGERING_MAX {
            self.sockets.pop_front();
        }
        self.sockets.push_back((now + LINGER, socket));
    }

    /// Discards received bytes, and closes connections that are done. Returns whether there were any.
    pub(super) fn look(&mut self, now: Micros) -> bool {
        if self.is_empty() || self.look_at > now {
            return false;
        }
        self.look_at = now + LOOK_INTERVAL;
        let before = self.sockets.len();
        // Each is closed right after it has been read: what comes between the two resets it.
        for _ in 0..before {
            let Some((until, mut socket)) = self.sockets.pop_front() else { break };
            if !is_over(&mut socket, &mut self.scratch) && until > now {
                self.sockets.push_back((until, socket));
            }
        }
        self.sockets.len() < before
    }
}

/// Whether the other side has closed as well, or is gone.
fn is_over(socket: &mut impl Read, scratch: &mut [u8]) -> bool {
    is_last(read_off(socket, scratch).1)
}

/// Whether nothing more can come after a read.
fn is_last(read: Option<io::Result<usize>>) -> bool {
    read.is_some_and(|outcome| match outcome {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    })
}
