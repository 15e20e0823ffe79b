//! `maze limit`: the physical limit, to divide by.
//!
//! A server without logic. It accepts the same users and the same sources as a real one and, as the sources' bytes come
//! in, moves the same number of bytes to each user, in proportion. It reads up to 1 MiB at a time and makes one write
//! per user and turn, as large as what is due, from a small pattern that stays in the first-level cache. What it costs
//! is what the kernel costs; no server that delivers the same bytes in the same turns can cost less.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::ServerConfig;

use crate::access::Line;
use crate::block::pattern;
use crate::plan::Plan;

const SOURCES: Token = Token(0);
const USERS: Token = Token(1);
const FIRST: usize = 2;
/// Slices in one write: 64 of 16 KiB are 1 MiB.
const SLICES: usize = 64;

enum Peer {
    Source(Line),
    /// A user who has not said its id, and what it has said.
    Arriving(Line, Vec<u8>),
    User(User),
}

struct User {
    stream: Line,
    position: usize,
    sent: u64,
    writable: bool,
    backlog: Vec<u8>,
}

/// The limit server.
pub struct Limit {
    poll: Poll,
    sources: TcpListener,
    users: TcpListener,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    readable: Vec<usize>,
    plan: Plan,
    positions: HashMap<u64, usize>,
    forward: bool,
    pattern: Box<[u8]>,
    buffer: Vec<u8>,
    received: u64,
    /// What users are spoken to over TLS with.
    tls: Option<Arc<ServerConfig>>,
}

impl Limit {
    /// Listens. Without `forward` it sends what `plan` says, with it the source's own bytes.
    ///
    /// # Errors
    /// Those of opening the ports.
    pub fn new(
        source: SocketAddr,
        users: SocketAddr,
        plan: Plan,
        forward: bool,
        read_max: usize,
    ) -> io::Result<Limit> {
        let poll = Poll::new()?;
        let mut sources = TcpListener::bind(source)?;
        let mut users = TcpListener::bind(users)?;
        poll.registry().register(&mut sources, SOURCES, Interest::READABLE)?;
        poll.registry().register(&mut users, USERS, Interest::READABLE)?;
        Ok(Limit {
            poll,
            sources,
            users,
            peers: Vec::new(),
            free: Vec::new(),
            readable: Vec::new(),
            positions: plan.positions(),
            plan,
            forward,
            pattern: pattern(),
            buffer: vec![0; read_max.max(1)],
            received: 0,
            tls: None,
        })
    }

    /// Speaks TLS with users from now on.
    #[must_use]
    pub fn over_tls(self, tls: Option<Arc<ServerConfig>>) -> Limit {
        Limit { tls, ..self }
    }

    /// The line that says where it listens.
    ///
    /// # Errors
    /// Those of asking the system.
    pub fn listening(&self) -> io::Result<String> {
        Ok(format!(
            "listening source={} users={} admin=off",
            self.sources.local_addr()?,
            self.users.local_addr()?
        ))
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// Those of polling and accepting.
    pub fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(4096);
        loop {
            let wait = if self.readable.is_empty() { None } else { Some(std::time::Duration::ZERO) };
            match self.poll.poll(&mut events, wait) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    SOURCES => self.accept(true)?,
                    USERS => self.accept(false)?,
                    Token(token) => self.ready(token - FIRST, event.is_writable(), event.is_readable()),
                }
            }
            // One source's readiness per turn: its bytes go out before more are read.
            if let Some(source) = self.readable.pop() {
                self.read_source(source);
            }
        }
    }

    fn accept(&mut self, source: bool) -> io::Result<()> {
        while let Some(stream) = accept(if source { &self.sources } else { &self.users })? {
            stream.set_nodelay(true)?;
            let mut stream = Line::accepted(stream, self.tls.as_ref().filter(|_| !source))?;
            let at = self.free.pop().unwrap_or(self.peers.len());
            let interest = if source { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            stream.register(self.poll.registry(), Token(FIRST + at), interest)?;
            let peer = if source { Peer::Source(stream) } else { Peer::Arriving(stream, Vec::new()) };
            if at == self.peers.len() {
                self.peers.push(Some(peer));
            } else {
                self.peers[at] = Some(peer);
            }
        }
        Ok(())
    }

    fn ready(&mut self, at: usize, writable: bool, readable: bool) {
        match &mut self.peers[at] {
            Some(Peer::Source(_)) if readable && !self.readable.contains(&at) => self.readable.push(at),
            Some(Peer::Arriving(..)) => self.log_in(at),
            Some(Peer::User(user)) => {
                user.writable |= writable;
                if readable && !user.is_there() {
                    self.close(at);
                } else if writable {
                    self.write(at, 0);
                }
            }
            _ => {}
        }
    }

    fn close(&mut self, at: usize) {
        self.peers[at] = None;
        self.free.push(at);
        // When the last user has gone, the next run begins.
        if !self.peers.iter().any(|peer| matches!(peer, Some(Peer::User(_)))) {
            self.received = 0;
        }
    }

    fn log_in(&mut self, at: usize) {
        let Some(Peer::Arriving(mut stream, mut said)) = self.peers[at].take() else { return };
        let mut chunk = [0; 64];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => return self.close(at),
                Ok(length) => said.extend_from_slice(&chunk[..length]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.close(at),
            }
        }
        let Some(end) = memchr::memchr(b'\n', &said) else {
            self.peers[at] = Some(Peer::Arriving(stream, said));
            return;
        };
        let id = std::str::from_utf8(&said[..end]).ok().and_then(|id| id.trim_end().parse::<u64>().ok());
        let position =
            if self.forward { Some(0) } else { id.and_then(|id| self.positions.get(&id).copied()) };
        if let Some(position) = position {
            let user = User { stream, position, sent: 0, writable: true, backlog: Vec::new() };
            self.peers[at] = Some(Peer::User(user));
        } else {
            self.close(at);
            eprintln!("maze limit: closed a user who is not in the plan: {}", said.escape_ascii());
        }
    }

    fn read_source(&mut self, at: usize) {
        let mut length = 0;
        let mut more = true;
        while more && length < self.buffer.len() {
            let Some(Peer::Source(stream)) = &mut self.peers[at] else { return };
            match stream.read(&mut self.buffer[length..]) {
                Ok(0) => {
                    self.close(at);
                    more = false;
                }
                Ok(read) => length += read,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => more = false,
                Err(_) => {
                    self.close(at);
                    more = false;
                }
            }
        }
        self.received += length as u64;
        if more {
            self.readable.insert(0, at);
        }
        if length > 0 {
            (0..self.peers.len()).for_each(|peer| self.write(peer, length));
        }
    }

    /// Writes to a user what is due; `fresh` bytes of the buffer have just been read.
    fn write(&mut self, at: usize, fresh: usize) {
        let Some(Some(Peer::User(user))) = self.peers.get_mut(at) else { return };
        let fine = if self.forward {
            user.forward(&self.buffer[..fresh])
        } else {
            user.send(self.plan.due(user.position, self.received), &self.pattern)
        };
        if !fine {
            self.close(at);
        }
    }
}

/// The next connection, if there is one.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

impl User {
    /// Throws away what the user says. False when it has gone.
    fn is_there(&mut self) -> bool {
        let mut ignored = [0; 256];
        loop {
            match self.stream.read(&mut ignored) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return e.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// Sends of the pattern what is missing to `due` bytes. False when the user has gone.
    fn send(&mut self, due: u64, pattern: &[u8]) -> bool {
        while self.writable && self.sent < due {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut left = (due - self.sent) as usize;
            let mut offset = (self.sent % pattern.len() as u64) as usize;
            let mut count = 0;
            while left > 0 && count < SLICES {
                let length = left.min(pattern.len() - offset);
                slices[count] = IoSlice::new(&pattern[offset..offset + length]);
                (left, offset, count) = (left - length, 0, count + 1);
            }
            match self.stream.write_vectored(&slices[..count]) {
                Ok(length) => {
                    let wanted: usize = slices[..count].iter().map(|slice| slice.len()).sum();
                    self.sent += length as u64;
                    // A write that took less than it was given filled the socket.
                    self.writable = length == wanted;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(_) => return false,
            }
        }
        true
    }

    /// Sends the source's bytes as they are. False when the user has gone.
    fn forward(&mut self, fresh: &[u8]) -> bool {
        if !self.writable || !self.backlog.is_empty() {
            self.backlog.extend_from_slice(fresh);
        }
        let from_backlog = !self.backlog.is_empty();
        let mut sent = 0;
        let owed = if from_backlog { &self.backlog[..] } else { fresh };
        while self.writable && sent < owed.len() {
            match self.stream.write(&owed[sent..]) {
                Ok(length) => sent += length,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(_) => return false,
            }
        }
        if from_backlog {
            self.backlog.drain(..sent);
        } else {
            self.backlog.extend_from_slice(&fresh[sent..]);
        }
        true
    }
}
