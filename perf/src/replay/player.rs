//! The connections of a trace, as real ones.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Pid, Signal, kill_process};
use socket2::SockRef;

use super::expected::{Expected, Received};
use super::trace::{Action, ConnectionId};
use crate::process::{Addresses, unacknowledged};

/// Unsent bytes of a source that are kept: a server that is waiting for a slow user reads nothing for a while.
const UNSENT_MAX: usize = 64 << 20;
/// How long is waited for a server that does not read: it may be told not to.
const BARRIER: Duration = Duration::from_secs(1);
/// A look at the kernel's tables costs about as much.
const LOOK: Duration = Duration::from_micros(300);

/// A connection, as long as it is there.
struct Connection {
    id: ConnectionId,
    stream: Option<TcpStream>,
    local_port: u16,
    /// There may be something to read.
    readable: bool,
    /// Bytes that it reads in all, and whether that was ever limited.
    limit: u64,
    limited: bool,
    received: Received,
    unsent: Vec<u8>,
    /// It has left, or the server has closed it.
    left: bool,
    closed: bool,
}

/// The bytes that a user received.
pub(super) struct User<'a> {
    pub(super) number: u64,
    pub(super) received: &'a Received,
    /// It read whatever there was.
    pub(super) exact: bool,
    pub(super) left: bool,
    pub(super) closed: bool,
}

/// Plays steps.
pub(super) struct Player<'a> {
    poll: Poll,
    events: Events,
    addresses: Addresses,
    pid: Option<u32>,
    expected: Option<&'a HashMap<u64, Expected>>,
    timeout: Duration,
    connections: Vec<Connection>,
    places: HashMap<ConnectionId, usize>,
    /// Sources have done something that the server may not have seen, and users something that may not have arrived.
    sources_stirred: bool,
    users_stirred: bool,
    buffer: Vec<u8>,
}

impl<'a> Player<'a> {
    pub(super) fn new(
        addresses: Addresses,
        pid: Option<u32>,
        expected: Option<&'a HashMap<u64, Expected>>,
        timeout: Duration,
    ) -> io::Result<Player<'a>> {
        Ok(Player {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            addresses,
            pid,
            expected,
            timeout,
            connections: Vec::new(),
            places: HashMap::new(),
            sources_stirred: false,
            users_stirred: false,
            buffer: vec![0; 256 << 10],
        })
    }

    pub(super) fn users(&self) -> impl Iterator<Item = User<'_>> {
        self.connections.iter().filter(|connection| !connection.id.source).map(|connection| User {
            number: connection.id.number,
            received: &connection.received,
            exact: !connection.limited,
            left: connection.left,
            closed: connection.closed,
        })
    }

    /// Lets a step happen.
    ///
    /// # Errors
    /// A sentence about a trace that makes no sense.
    pub(super) fn perform(&mut self, action: Option<(ConnectionId, Action)>) -> Result<(), String> {
        let Some((id, action)) = action else {
            self.wait_for_sources();
            self.signal();
            return Ok(());
        };
        self.keep_order(id, &action);
        let name = if id.source { "source" } else { "user" };
        if action == Action::Connects {
            let place = self.connections.len();
            if self.places.insert(id, place).is_some() {
                return Err(format!("{name} {} connects twice", id.number));
            }
            self.connect(id);
            return Ok(());
        }
        let &place = self.places.get(&id).ok_or_else(|| format!("{name} {} has not connected", id.number))?;
        match action {
            Action::Connects => {}
            Action::Sends(bytes) => {
                let connection = &mut self.connections[place];
                connection.unsent.extend_from_slice(&bytes);
                connection.write();
                self.pump_while(self.timeout, |player| player.connections[place].unsent.len() > UNSENT_MAX);
            }
            Action::Takes(bytes) => {
                let connection = &mut self.connections[place];
                connection.limit = bytes;
                connection.limited |= bytes != u64::MAX;
                connection.readable = true;
                self.read_all();
            }
            Action::Finishes | Action::Closes | Action::Resets => {
                self.pump_while(self.timeout, |player| player.is_owed_or_owes(place));
                self.leave(place, &action);
            }
        }
        Ok(())
    }

    /// Waits until the server has seen what happened before.
    fn keep_order(&mut self, id: ConnectionId, action: &Action) {
        if !id.source && !matches!(action, Action::Takes(_)) {
            self.wait_for_sources();
            self.users_stirred = true;
        } else if id.source && *action == Action::Connects {
            self.wait_for_sources();
        } else if id.source {
            self.sources_stirred = true;
            if std::mem::take(&mut self.users_stirred) {
                let peer = self.addresses.users.port();
                self.barrier(false, |ports| unacknowledged(ports, peer).unwrap_or(0) > 0);
            }
        }
    }

    /// Waits until the server has read what sources have sent, and noticed who has gone.
    fn wait_for_sources(&mut self) {
        if std::mem::take(&mut self.sources_stirred) {
            let peer = self.addresses.source.port();
            self.barrier(true, |ports| {
                unacknowledged(ports, peer).unwrap_or(0) > 0 || is_unread(ports, peer)
            });
            self.pump_until(Instant::now() + LOOK);
        }
    }

    /// Waits while `pending` is true of the local ports of all sources, or all users.
    fn barrier(&mut self, sources: bool, pending: impl Fn(&HashSet<u16>) -> bool) {
        let there = |connection: &&Connection| connection.id.source == sources && connection.stream.is_some();
        let ports = self.connections.iter().filter(there).map(|connection| connection.local_port).collect();
        let end = Instant::now() + BARRIER;
        while Instant::now() < end && pending(&ports) {
            self.pump_until(Instant::now() + LOOK);
        }
    }

    /// A user has not received what is expected, or a source's bytes are not on their way.
    fn is_owed_or_owes(&self, place: usize) -> bool {
        let connection = &self.connections[place];
        if connection.stream.is_none() {
            return false;
        }
        let expected = self.expected.and_then(|expected| expected.get(&connection.id.number));
        let owed = expected.map_or(0, |expected| expected.bytes);
        let is_owed = !connection.id.source && !connection.limited && connection.received.bytes < owed;
        is_owed || !connection.unsent.is_empty()
    }

    fn connect(&mut self, id: ConnectionId) {
        let address = if id.source { self.addresses.source } else { self.addresses.users };
        let place = self.connections.len();
        let opened = std::net::TcpStream::connect(address).and_then(|stream| {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let local_port = stream.local_addr()?.port();
            let mut stream = TcpStream::from_std(stream);
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(place), interest)?;
            Ok((stream, local_port))
        });
        if let Err(error) = &opened {
            log::info!("connection {} to {address}: {error}", id.number);
        }
        let (stream, local_port) = opened.ok().unzip();
        self.connections.push(Connection {
            id,
            closed: stream.is_none(),
            stream,
            local_port: local_port.unwrap_or(0),
            readable: false,
            limit: u64::MAX,
            limited: false,
            received: Received::default(),
            unsent: Vec::new(),
            left: false,
        });
    }

    fn leave(&mut self, place: usize, how: &Action) {
        let connection = &mut self.connections[place];
        connection.left = true;
        let Some(stream) = &connection.stream else { return };
        match how {
            Action::Finishes => {
                let _ = stream.shutdown(std::net::Shutdown::Write);
                return;
            }
            Action::Resets => {
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            _ => {}
        }
        connection.stream = None;
    }

    fn signal(&self) {
        match self.pid.and_then(|pid| Pid::from_raw(pid as i32)) {
            Some(pid) => {
                let _ = kill_process(pid, Signal::TERM);
            }
            None => log::warn!(
                "the trace tells the server to end: that is left out for one that maze did not start"
            ),
        }
    }

    /// Reads what comes and writes what is left until `end`.
    pub(super) fn pump_until(&mut self, end: Instant) {
        loop {
            let wait = end.saturating_duration_since(Instant::now());
            self.pump(wait);
            if wait.is_zero() {
                return;
            }
        }
    }

    fn pump_while(&mut self, most: Duration, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + most;
        while condition(self) && Instant::now() < end {
            self.pump(Duration::from_millis(1));
        }
    }

    fn pump(&mut self, wait: Duration) {
        if self.poll.poll(&mut self.events, Some(wait)).is_err() {
            return;
        }
        for event in &self.events {
            let connection = &mut self.connections[event.token().0];
            connection.readable |= event.is_readable() || event.is_error();
            if event.is_writable() {
                connection.write();
            }
        }
        self.read_all();
    }

    fn read_all(&mut self) {
        for connection in &mut self.connections {
            connection.read(&mut self.buffer);
        }
    }

    /// Waits until everyone has what is expected, and for as long as `settle` for anything more.
    pub(super) fn finish(&mut self, settle: Duration) {
        self.pump_while(self.timeout, |player| {
            (0..player.connections.len())
                .any(|place| player.is_owed_or_owes(place) || player.is_to_end(place))
        });
        loop {
            let before: u64 = self.connections.iter().map(|connection| connection.received.bytes).sum();
            self.pump_until(Instant::now() + settle);
            let after: u64 = self.connections.iter().map(|connection| connection.received.bytes).sum();
            if before == after {
                return;
            }
        }
    }

    /// The server is expected to close it, and has not.
    fn is_to_end(&self, place: usize) -> bool {
        let connection = &self.connections[place];
        let expected = self.expected.and_then(|expected| expected.get(&connection.id.number));
        !connection.id.source
            && !connection.left
            && !connection.closed
            && !connection.limited
            && expected.is_some_and(|expected| expected.closed)
    }
}

impl Connection {
    fn read(&mut self, buffer: &mut [u8]) {
        while self.readable
            && self.received.bytes < self.limit
            && let Some(stream) = &mut self.stream
        {
            let room = (self.limit - self.received.bytes).min(buffer.len() as u64) as usize;
            match stream.read(&mut buffer[..room]) {
                Ok(0) => self.end(),
                Ok(len) => self.received.push(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end(),
            }
        }
    }

    fn end(&mut self) {
        self.closed = true;
        self.stream = None;
        self.unsent.clear();
    }

    fn write(&mut self) {
        let Some(stream) = &mut self.stream else {
            self.unsent.clear();
            return;
        };
        let mut sent = 0;
        while sent < self.unsent.len() {
            match stream.write(&self.unsent[sent..]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // What it was sent before is still there to be read.
                Err(_) => sent = self.unsent.len(),
            }
        }
        self.unsent.drain(..sent);
    }
}

/// Whether the other ends of this machine's connections from `ports` to `peer`, if they are on this machine too, have
/// bytes that nobody has read, or an end that nobody has noticed.
fn is_unread(ports: &HashSet<u16>, peer: u16) -> bool {
    const CLOSE_WAIT: u8 = 8;
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    let unread = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut port = || u16::from_str_radix(fields.next()?.rsplit(':').next()?, 16).ok();
        let (local, remote) = (port()?, port()?);
        let state = u8::from_str_radix(fields.next()?, 16).ok()?;
        let queued = u64::from_str_radix(fields.next()?.split(':').nth(1)?, 16).ok()?;
        Some(local == peer && ports.contains(&remote) && (queued != 0 || state == CLOSE_WAIT))
    };
    tables.iter().flat_map(|table| table.lines().skip(1)).any(|line| unread(line) == Some(true))
}
