//! `maze naive`: the usual design, to compare with.
//!
//! What solutions of the challenge usually do: one thread, a map of waiting events by number, a map of follower sets, a
//! map of users, and one write call for each event and recipient. It is right and not made slow: it reads 64 KiB at a
//! time, parses each line once, and copies it only into the map. It does not set `TCP_NODELAY`: a write then costs less
//! than half, because the kernel puts small ones together while an acknowledgement is missing.
//!
//! It takes any number of sources, and users who come and go. It does not handle what the challenge does not have: a
//! missing event is waited for, for ever; a user that does not read holds up everybody, because writes block; lines that
//! are no events are ignored, also if their number can be read; and nothing bounds its memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::limit::accept;

const SOURCES: Token = Token(0);
const USERS: Token = Token(1);
const FIRST: usize = 2;
/// Bytes in one read from a source. A line that is longer is no event.
const READ: usize = 64 << 10;
/// Enough for all users at once: none that has logged in is left for the next turn.
const EVENTS: usize = 1 << 14;

enum Event {
    Follow { from: u64, to: u64 },
    Unfollow { from: u64, to: u64 },
    Broadcast,
    Private { to: u64 },
    Status { from: u64 },
}

struct User {
    token: usize,
    /// Writes to it block.
    stream: std::net::TcpStream,
}

/// Everything that belongs to one run.
#[derive(Default)]
struct Run {
    /// The number of the last event that was delivered.
    delivered: u64,
    waiting: BTreeMap<u64, (Box<[u8]>, Event)>,
    followers: HashMap<u64, HashSet<u64>>,
    users: HashMap<u64, User>,
}

struct Source {
    stream: TcpStream,
    buffer: Box<[u8]>,
    filled: usize,
}

enum Peer {
    Source(Source),
    /// A user who has not said its id, and what it has said.
    Arriving(TcpStream, Vec<u8>),
    /// The user with this id.
    User(u64),
}

/// The naive server.
pub struct Naive {
    poll: Poll,
    sources: TcpListener,
    users: TcpListener,
    peers: HashMap<usize, Peer>,
    /// The next peer's token.
    token: usize,
    /// Sources that have been read from, or can be.
    readable: Vec<usize>,
    run: Run,
}

impl Naive {
    /// Listens.
    ///
    /// # Errors
    /// Those of opening the ports.
    pub fn new(source: SocketAddr, users: SocketAddr) -> io::Result<Naive> {
        let poll = Poll::new()?;
        let mut sources = TcpListener::bind(source)?;
        let mut users = TcpListener::bind(users)?;
        poll.registry().register(&mut sources, SOURCES, Interest::READABLE)?;
        poll.registry().register(&mut users, USERS, Interest::READABLE)?;
        let (peers, run) = (HashMap::new(), Run::default());
        Ok(Naive { poll, sources, users, peers, token: FIRST, readable: Vec::new(), run })
    }

    /// The line that says where it listens.
    ///
    /// # Errors
    /// Those of asking the system.
    pub fn listening(&self) -> io::Result<String> {
        let (source, users) = (self.sources.local_addr()?, self.users.local_addr()?);
        Ok(format!("listening source={source} users={users} admin=off"))
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// Those of polling and accepting.
    pub fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.poll.poll(&mut events, (!self.readable.is_empty()).then_some(Duration::ZERO)) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            // Users leave before the next ones come.
            for event in events.iter().filter(|event| event.token().0 >= FIRST) {
                self.ready(event.token().0, event.is_read_closed());
            }
            // So do their sources: the next run begins before its users come.
            if self.run.users.is_empty() && self.run.delivered > 0 {
                for token in std::mem::take(&mut self.readable) {
                    while self.advance(token) {}
                }
            }
            for event in events.iter().filter(|event| event.token().0 < FIRST) {
                self.accept(event.token() == SOURCES)?;
            }
            let mut readable = std::mem::take(&mut self.readable);
            readable.retain(|&token| self.advance(token));
            self.readable = readable;
        }
    }

    fn accept(&mut self, source: bool) -> io::Result<()> {
        while let Some(mut stream) = accept(if source { &self.sources } else { &self.users })? {
            let token = self.token;
            self.token += 1;
            self.poll.registry().register(&mut stream, Token(token), Interest::READABLE)?;
            if source {
                let source = Source { stream, buffer: vec![0; READ].into(), filled: 0 };
                self.peers.insert(token, Peer::Source(source));
            } else {
                self.peers.insert(token, Peer::Arriving(stream, Vec::new()));
                // What it has said may be older than events that have been read.
                self.log_in(token);
            }
        }
        Ok(())
    }

    fn ready(&mut self, token: usize, closed: bool) {
        match self.peers.get(&token) {
            Some(Peer::Source(_)) if !self.readable.contains(&token) => self.readable.push(token),
            Some(Peer::Arriving(..)) => self.log_in(token),
            Some(Peer::User(_)) if closed => self.close(token),
            _ => {}
        }
    }

    fn close(&mut self, token: usize) {
        if let Some(Peer::User(id)) = self.peers.remove(&token) {
            self.run.users.remove(&id);
        }
        // When the sources and the last user have gone, the next run begins.
        if self.run.users.is_empty() && !self.peers.values().any(|peer| matches!(peer, Peer::Source(_))) {
            self.run = Run::default();
        }
    }

    fn log_in(&mut self, token: usize) {
        let Some(Peer::Arriving(stream, said)) = self.peers.get_mut(&token) else { return };
        let heard = stream.read_to_end(said);
        if !heard.is_err_and(|e| e.kind() == ErrorKind::WouldBlock) {
            return self.close(token);
        }
        let Some(end) = memchr::memchr(b'\n', said) else { return };
        let id = std::str::from_utf8(&said[..end]).ok().and_then(|id| id.trim_end().parse().ok());
        let (Some(Peer::Arriving(stream, _)), Some(id)) = (self.peers.remove(&token), id) else { return };
        let stream = std::net::TcpStream::from(stream);
        if stream.set_nonblocking(false).is_ok() {
            self.peers.insert(token, Peer::User(id));
            if let Some(replaced) = self.run.users.insert(id, User { token, stream }) {
                self.peers.remove(&replaced.token);
            }
        }
    }

    /// Delivers what has been read from a source, and reads on. In between it was looked for users who came before.
    /// False when there is no more.
    fn advance(&mut self, token: usize) -> bool {
        let Some(Peer::Source(source)) = self.peers.get_mut(&token) else { return false };
        source.hand_over(&mut self.run);
        match source.stream.read(&mut source.buffer[source.filled..]) {
            Ok(length) if length > 0 => source.filled += length,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
            _ => {
                self.close(token);
                return false;
            }
        }
        true
    }
}

impl Source {
    /// Hands over all whole lines.
    fn hand_over(&mut self, run: &mut Run) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &self.buffer[..self.filled]) {
            run.take(&self.buffer[start..=end]);
            start = end + 1;
        }
        if start == 0 && self.filled == self.buffer.len() {
            start = self.filled;
        }
        self.buffer.copy_within(start..self.filled, 0);
        self.filled -= start;
    }
}

impl Run {
    /// Takes a line, and delivers what it was that was missing.
    fn take(&mut self, line: &[u8]) {
        if let Some((number, event)) = parse(line)
            && number > self.delivered
        {
            self.waiting.entry(number).or_insert_with(|| (line.into(), event));
        }
        while let Some(first) = self.waiting.first_entry()
            && *first.key() == self.delivered + 1
        {
            let (line, event) = first.remove();
            self.delivered += 1;
            self.deliver(&line, &event);
        }
    }

    fn deliver(&mut self, line: &[u8], event: &Event) {
        match *event {
            Event::Follow { from, to } => {
                self.followers.entry(to).or_default().insert(from);
                self.tell(to, line);
            }
            Event::Unfollow { from, to } => {
                self.followers.entry(to).and_modify(|followers| _ = followers.remove(&from));
            }
            Event::Broadcast => self.users.values().for_each(|user| user.tell(line)),
            Event::Private { to } => self.tell(to, line),
            Event::Status { from } => {
                self.followers.get(&from).into_iter().flatten().for_each(|&id| self.tell(id, line));
            }
        }
    }

    fn tell(&self, id: u64, line: &[u8]) {
        if let Some(user) = self.users.get(&id) {
            user.tell(line);
        }
    }
}

impl User {
    /// A user that has gone is told nothing, and noticed in the next turn.
    fn tell(&self, line: &[u8]) {
        let _ = (&self.stream).write_all(line);
    }
}

fn parse(line: &[u8]) -> Option<(u64, Event)> {
    let mut fields = std::str::from_utf8(line).ok()?.trim_end().split('|');
    let number = fields.next()?.parse().ok()?;
    let kind = fields.next()?;
    let mut id = || fields.next()?.parse().ok();
    let event = match kind {
        "F" => Event::Follow { from: id()?, to: id()? },
        "U" => Event::Unfollow { from: id()?, to: id()? },
        "B" => Event::Broadcast,
        "P" => {
            id()?;
            Event::Private { to: id()? }
        }
        "S" => Event::Status { from: id()? },
        _ => return None,
    };
    fields.next().is_none().then_some((number, event))
}
