//! One simulated connection: two streams of bytes, and what each end has done to them.

use crate::time::Micros;
use std::{
    io::{self, ErrorKind, IoSlice},
    net::SocketAddr,
};

/// How the far end has finished sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It will send nothing more: after its bytes, reads return 0.
    Finished,
    /// The connection has broken: after its bytes, one read fails, the others return 0.
    Reset,
}

/// The state of the server's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerSide {
    /// It has not accepted the connection yet.
    Waiting,
    /// It uses it.
    Open,
    /// It has closed it; with bytes unread, which the far end sees as a reset.
    Closed { unread: bool },
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) address: SocketAddr,
    pub(super) server: ServerSide,
    /// The server will write nothing more.
    pub(super) server_finished: bool,
    /// The bytes that the far end has sent, and how many of them have been read.
    inbound: Vec<u8>,
    read: usize,
    /// Where urgent data was sent: a read stops there.
    mark: Option<usize>,
    /// Unread bytes that there is room for.
    pub(super) inbound_limit: usize,
    pub(super) end: Option<End>,
    /// Nothing that is written gets anywhere any more: writing fails.
    broken: bool,
    /// The far end has closed its socket for good: the first write breaks the connection.
    away: bool,
    /// The far end's machine is gone, without a word: nothing that is sent from now on arrives.
    pub(super) vanished: bool,
    /// When the first bytes were written that did not arrive.
    pub(super) unanswered_since: Option<Micros>,
    /// What the server has written and nobody has looked at, and how much it was in all.
    pub(super) outbound: Vec<u8>,
    pub(super) written: u64,
    /// How much it may be in all.
    limit: u64,
    /// A write was short, and the server waits for room.
    pub(super) starved: bool,
    /// The key that the server has registered it with.
    pub(super) key: Option<usize>,
    pub(super) want_write: bool,
    /// It is on the list of what the next poll tells.
    pub(super) edge: bool,
    /// It is on the list of those that have been written to.
    pub(super) noted: bool,
    /// The far end is not interested any more.
    pub(super) forgotten: bool,
}

impl Connection {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            server: ServerSide::Waiting,
            server_finished: false,
            inbound: Vec::new(),
            read: 0,
            mark: None,
            inbound_limit: usize::MAX,
            end: None,
            broken: false,
            away: false,
            vanished: false,
            unanswered_since: None,
            outbound: Vec::new(),
            written: 0,
            limit: u64::MAX,
            starved: false,
            key: None,
            want_write: false,
            edge: false,
            noted: false,
            forgotten: false,
        }
    }

    /// Bytes that the server has not read.
    pub(super) fn unread(&self) -> usize {
        self.inbound.len() - self.read
    }

    pub(super) fn is_readable(&self) -> bool {
        self.unread() > 0 || self.end.is_some()
    }

    pub(super) fn is_writable(&self) -> bool {
        self.broken || self.away || self.written < self.limit
    }

    /// The far end sends urgent data.
    pub(super) fn mark(&mut self) {
        self.mark = Some(self.inbound.len());
    }

    /// Urgent data lies unread.
    pub(super) fn has_mark(&self) -> bool {
        self.mark.is_some()
    }

    /// The far end sends; returns how much there was room for.
    pub(super) fn send(&mut self, bytes: &[u8]) -> usize {
        if self.end.is_some() || self.vanished || matches!(self.server, ServerSide::Closed { .. }) {
            return 0;
        }
        if self.read == self.inbound.len() && self.mark.is_none() {
            self.inbound.clear();
            self.read = 0;
        }
        let len = bytes.len().min(self.inbound_limit.saturating_sub(self.unread()));
        self.inbound.extend_from_slice(&bytes[..len]);
        len
    }

    /// The far end closes its socket: nothing more comes from it, and nothing reaches it.
    pub(super) fn close(&mut self) {
        self.end.get_or_insert(End::Finished);
        self.away = true;
    }

    pub(super) fn reset(&mut self) {
        self.end = Some(End::Reset);
        self.broken = true;
    }

    /// Sets how much may be written in all. Returns whether the server was waiting for that.
    pub(super) fn set_limit(&mut self, limit: u64) -> bool {
        self.limit = limit;
        self.written < limit && std::mem::take(&mut self.starved)
    }

    pub(super) fn read(&mut self, target: &mut [u8], most: usize) -> io::Result<usize> {
        let mut len = self.unread().min(target.len()).min(most);
        if let Some(mark) = self.mark {
            if mark > self.read {
                len = len.min(mark - self.read);
            } else {
                self.mark = None;
            }
        }
        if len > 0 {
            target[..len].copy_from_slice(&self.inbound[self.read..][..len]);
            self.read += len;
            return Ok(len);
        }
        match self.end {
            None => Err(ErrorKind::WouldBlock.into()),
            Some(End::Finished) => Ok(0),
            Some(End::Reset) => {
                self.end = Some(End::Finished);
                Err(ErrorKind::ConnectionReset.into())
            }
        }
    }

    /// Takes up to `most` bytes; `len` is how many there are.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], len: usize, most: usize) -> io::Result<usize> {
        if self.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if self.away {
            self.reset();
            return Ok(len);
        }
        let room = usize::try_from(self.limit.saturating_sub(self.written)).unwrap_or(usize::MAX);
        self.starved |= room < len;
        if room == 0 && len > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut left = len.min(room).min(most);
        let taken = left;
        for slice in slices {
            let part = &slice[..left.min(slice.len())];
            self.outbound.extend_from_slice(part);
            left -= part.len();
        }
        self.written += taken as u64;
        Ok(taken)
    }
}
