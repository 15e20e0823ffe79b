//! Connections on the stream port: clients that receive the whole released stream (`docs/SPEC.md` section 11).
//!
//! A client asks for a place with one line. It receives every released line from there on, or the follow graph first. The
//! bytes wait in an output buffer, as for a user. A client never holds up others: one that is more than `userBufferBytes` behind is
//! served from the journal until it has caught up. Without a journal it is cut off.
//!
//! Once a turn [`StreamClients::hand_out`] is given the released lines that may be sent.
//! [`StreamClients::serve`] does the rest, at a moment when no further line has been released. So the cursor is the
//! place at which a new client begins.

use super::{
    key::StreamKey,
    linger::Lingering,
    liveness::{Liveness, LivenessRounds},
    net::Net,
    output::{Output, Pool},
    socket::{is_interrupted, would_block},
};
use crate::{
    config::Config,
    engine::Engine,
    epoch::Epoch,
    journal::{JournalError, Log, Read as Step, Reader},
    sequence::Cursor,
    stream::{
        MARK_EVERY, first_line_from,
        graph::{GraphCopy, GraphLines},
        request::Request,
    },
    time::{MILLISECOND, Micros},
};
use slab::Slab;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
};

/// Longest request, terminator included: as long as a login line.
const REQUEST_BYTES_MAX: usize = 64;
/// Bytes of one read: clients send no more bytes after their request.
const SCRATCH_BYTES: usize = 4096;
/// Number of reads from one client before the next client is read.
const READS_PER_TURN: usize = 16;
/// Steps of the walk over the follow graph in one turn: some tenths of a millisecond.
const WALK_STEPS: usize = 16 << 10;
/// Blocks of the journal that a client is sent in one turn.
const BLOCKS_PER_TURN: usize = 4;
/// Bytes of graph lines that are made at once.
const GRAPH_BYTES: usize = 64 << 10;

/// The connections on the stream port.
#[derive(Debug)]
pub(super) struct StreamClients<S> {
    entries: Slab<Client<S>>,
    places: usize,
    request_timeout: Micros,
    buffer_bytes: usize,
    /// There is a journal: clients that are behind are served from it.
    has_journal: bool,
    readable: VecDeque<StreamKey>,
    writable: VecDeque<StreamKey>,
    /// The copy of the follow graph that is being taken.
    copy: Option<GraphCopy>,
    /// Connections that have ended, with the reason, as for users.
    ended: Vec<(StreamKey, &'static str)>,
    pool: Pool,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Client<S> {
    socket: S,
    peer: SocketAddr,
    stage: Stage,
    /// The sequence of events that it follows.
    epoch: Epoch,
    /// The line end that the client uses.
    line_end: &'static str,
    /// Events below this number are not for it.
    next: Cursor,
    /// The client's place in the journal.
    reader: Option<Reader>,
    /// The follow graph, and what follows on it, before everything else.
    graph: Option<GraphLines>,
    graph_text: Output,
    output: Output,
    /// Its socket has not taken everything, and tells when it takes more.
    blocked: bool,
    /// It is on the lists of those to be read, and to be written to.
    is_readable: bool,
    is_writable: bool,
    liveness: Liveness,
    /// It has sent something besides its request: it may do so again.
    is_talking: bool,
    /// When it must have asked for something; later, when it is sent a mark.
    deadline: Micros,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// The request is not complete.
    Asking(Vec<u8>),
    /// The request is complete.
    Asked(Request),
    /// It has asked for the graph, which is being copied.
    AwaitsGraph,
    /// It is sent everything from its place on.
    Following,
    /// It is served from the journal until it has caught up.
    CatchingUp,
    /// It has been told that it cannot be served.
    Refused,
}

/// The place of the stream that clients may know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) time: Micros,
    /// `None`: this server has not reached its own stream yet.
    pub(super) epoch: Option<Epoch>,
    /// Everything below is durable.
    pub(super) durable: Cursor,
    pub(super) first_sequence: Cursor,
}

impl<S: Read + Write> StreamClients<S> {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            entries: Slab::new(),
            places: config.max_stream_clients as usize,
            request_timeout: config.login_timeout_ms * MILLISECOND,
            buffer_bytes: config.user_buffer_bytes,
            has_journal: config.journal_directory.is_some(),
            readable: VecDeque::new(),
            writable: VecDeque::new(),
            copy: None,
            ended: Vec::new(),
            pool: Pool::default(),
            scratch: vec![0; SCRATCH_BYTES],
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.places
    }

    /// Whether there is something to do without anything becoming ready.
    pub(super) fn has_work(&self) -> bool {
        !self.readable.is_empty()
            || !self.writable.is_empty()
            || !self.ended.is_empty()
            || self.copy.is_some()
            || self.entries.iter().any(|(_, client)| client.stage == Stage::CatchingUp && client.is_flushed())
    }

    /// When there is something to do if nothing becomes ready.
    pub(super) fn deadline(&self) -> Option<Micros> {
        self.entries.iter().map(|(_, client)| client.deadline).min()
    }

    /// A connection has become readable or writable.
    pub(super) fn note_ready(&mut self, key: StreamKey, readable: bool, writable: bool) {
        let Some(client) = self.entries.get_mut(key.index()) else {
            return;
        };
        if readable && !std::mem::replace(&mut client.is_readable, true) {
            self.readable.push_back(key);
        }
        if writable && !std::mem::replace(&mut client.is_writable, true) {
            self.writable.push_back(key);
        }
    }

    /// Takes in a connection, which has yet to ask for something.
    ///
    /// # Errors
    ///
    /// If its socket cannot be watched.
    pub(super) fn admit<N: Net<Socket = S>>(
        &mut self,
        mut socket: S,
        peer: SocketAddr,
        net: &mut N,
        now: Micros,
    ) -> io::Result<()> {
        let entry = self.entries.vacant_entry();
        let key = StreamKey::new(entry.key());
        net.register(&mut socket, key.number())?;
        entry.insert(Client {
            socket,
            peer,
            stage: Stage::Asking(Vec::new()),
            epoch: Epoch::new(0),
            line_end: "\n",
            next: Cursor::START,
            reader: None,
            graph: None,
            graph_text: Output::default(),
            output: Output::default(),
            blocked: false,
            is_readable: false,
            is_writable: false,
            liveness: Liveness::default(),
            is_talking: false,
            deadline: now + self.request_timeout,
        });
        Ok(())
    }

    /// Hands out lines that have been released, up to the number `to`.
    pub(super) fn hand_out<N: Net<Socket = S>>(&mut self, lines: &[u8], to: Cursor, net: &mut N) {
        if let Some(copy) = &mut self.copy {
            copy.note(lines);
        }
        for (index, client) in &mut self.entries {
            if client.stage != Stage::Following || client.next >= to {
                continue;
            }
            let from = first_line_from(lines, client.next);
            client.next = to;
            let key = StreamKey::new(index);
            let outcome = client.send(&lines[from..], &mut self.pool).and_then(|()| client.watch(key, net));
            if outcome.is_err() {
                self.ended.push((key, "left"));
            } else if client.output.len() > self.buffer_bytes && self.has_journal {
                client.stage = Stage::CatchingUp;
            } else if client.output.len() > self.buffer_bytes {
                self.ended.push((key, "slow"));
            }
        }
    }

    /// Reads requests, answers them, sends marks and what waits, and closes what has come to its end. Everything that was
    /// released has been handed out.
    pub(super) fn serve<N: Net<Socket = S>>(
        &mut self,
        engine: &mut Engine,
        net: &mut N,
        mut log: Option<&mut Log>,
        lingering: &mut Lingering<S>,
        now: Now,
    ) {
        for _ in 0..self.readable.len() {
            if let Some(key) = self.readable.pop_front() {
                self.read(key);
            }
        }
        self.answer(engine, log.as_deref(), now);
        if let Some(log) = &mut log {
            self.catch_up(log, net, engine.cursor());
        }
        self.copy_graph(engine, now);
        self.meet_deadlines(engine.cursor(), now);
        for _ in 0..self.writable.len() {
            if let Some(key) = self.writable.pop_front() {
                self.flush(key, net);
            }
        }
        self.reap(log, lingering, net, now.time);
    }

    /// Has every client closed that is owed nothing more, or all.
    pub(super) fn end_flushed(&mut self, all: bool) {
        for (index, client) in &self.entries {
            if all || client.stage != Stage::Following || client.is_flushed() {
                self.ended.push((StreamKey::new(index), "closed"));
            }
        }
    }

    /// Has every client closed, for a reason.
    pub(super) fn end_all(&mut self, reason: &'static str) {
        self.copy = None;
        self.ended.extend(self.entries.iter().map(|(index, _)| (StreamKey::new(index), reason)));
    }

    /// Closes those whose machines have vanished.
    pub(super) fn look<N: Net<Socket = S>>(&mut self, rounds: &mut LivenessRounds, net: &mut N) {
        for (index, client) in &mut self.entries {
            if rounds.note_silence(&mut client.liveness, net.silence(&mut client.socket), client.peer) {
                self.ended.push((StreamKey::new(index), "error"));
            }
        }
    }

    fn read(&mut self, key: StreamKey) {
        let Some(client) = self.entries.get_mut(key.index()) else {
            return;
        };
        client.is_readable = false;
        for _ in 0..READS_PER_TURN {
            match client.socket.read(&mut self.scratch) {
                Ok(0) => return self.ended.push((key, "left")),
                Ok(len) => {
                    client.is_talking |= !matches!(client.stage, Stage::Asking(_));
                    if !client.take(&self.scratch[..len]) {
                        return self.ended.push((key, "bad_login"));
                    }
                }
                Err(error) if is_interrupted(&error) => {}
                Err(error) if would_block(&error) => return,
                Err(_) => return self.ended.push((key, "error")),
            }
        }
        client.is_readable = true;
        self.readable.push_back(key);
    }

    /// Answers requests. Those for the graph wait for a copy of it.
    fn answer(&mut self, engine: &mut Engine, log: Option<&Log>, now: Now) {
        let Some(epoch) = now.epoch else { return };
        let cursor = engine.cursor();
        // The lowest number that is kept.
        let first = log.map_or(cursor, Log::first);
        let mut wants_graph = false;
        for (index, client) in &mut self.entries {
            let Stage::Asked(request) = &client.stage else { continue };
            let next = match *request {
                Request::Graph if self.copy.is_some() => continue,
                Request::Graph => {
                    client.stage = Stage::AwaitsGraph;
                    wants_graph = true;
                    continue;
                }
                Request::Now => cursor,
                Request::Oldest => first,
                Request::From(next, other) if !log.map_or(other == epoch, |log| log.shares(other, next)) => {
                    client.refuse(epoch, cursor, "epoch", &mut self.pool);
                    self.ended.push((StreamKey::new(index), "epoch"));
                    continue;
                }
                Request::From(next, _) if next.max(now.first_sequence) < first => {
                    client.refuse(epoch, first, "gone", &mut self.pool);
                    self.ended.push((StreamKey::new(index), "gone"));
                    continue;
                }
                Request::From(next, _) => next.max(now.first_sequence),
            };
            log::info!(peer:% = client.peer, next; "a stream client follows");
            client.begin(epoch, next, now.time, &mut self.pool);
            if next < cursor {
                client.stage = Stage::CatchingUp;
            }
            if !std::mem::replace(&mut client.is_writable, true) {
                self.writable.push_back(StreamKey::new(index));
            }
        }
        if wants_graph {
            self.copy = Some(GraphCopy::default());
            engine.begin_snapshot();
        }
    }

    /// Sends those who are behind more of the journal, which has everything below the cursor.
    fn catch_up<N: Net<Socket = S>>(&mut self, log: &mut Log, net: &mut N, cursor: Cursor) {
        for (index, client) in &mut self.entries {
            for _ in 0..BLOCKS_PER_TURN {
                if client.stage != Stage::CatchingUp || !client.is_flushed() {
                    break;
                }
                let key = StreamKey::new(index);
                match client.read_on(log, &mut self.pool) {
                    Ok((Step::Later, _)) => break,
                    Ok((Step::Part, _)) => {}
                    Ok((Step::Block, sent)) => {
                        if sent.and_then(|()| client.watch(key, net)).is_err() {
                            self.ended.push((key, "left"));
                            break;
                        }
                    }
                    Ok((Step::End, _)) => {
                        client.next = client.next.max(cursor);
                        client.stage = Stage::Following;
                    }
                    Err(error) => {
                        log::warn!(peer:% = client.peer, error:%; "a stream client cannot be served from the journal");
                        self.ended.push((key, "gone"));
                        break;
                    }
                }
            }
        }
    }

    /// Goes on with the copy of the graph; hands it to those who wait for it once it is complete.
    fn copy_graph(&mut self, engine: &mut Engine, now: Now) {
        let Some(copy) = &mut self.copy else { return };
        let complete = engine.walk_snapshot(WALK_STEPS, |follower, followed| copy.add(follower, followed));
        let Some(epoch) = now.epoch.filter(|_| complete) else { return };
        let Some(graph) = self.copy.take().map(GraphCopy::complete) else { return };
        let next = engine.cursor();
        for (index, client) in &mut self.entries {
            if client.stage != Stage::AwaitsGraph {
                continue;
            }
            log::info!(peer:% = client.peer, next, edges = graph.left(); "a stream client begins with the follow graph");
            // The answer comes twice: before the graph, and between it and the events.
            client.begin(epoch, next, now.time, &mut self.pool);
            client.graph_text.push(format!("+|{epoch}|{next}{}", client.line_end).as_bytes(), &mut self.pool);
            client.graph = Some(graph.clone());
            if !std::mem::replace(&mut client.is_writable, true) {
                self.writable.push_back(StreamKey::new(index));
            }
        }
    }

    /// Marks, and those who ask for nothing.
    fn meet_deadlines(&mut self, cursor: Cursor, now: Now) {
        for (index, client) in &mut self.entries {
            if client.deadline > now.time {
                continue;
            }
            client.deadline = now.time + MARK_EVERY;
            let key = StreamKey::new(index);
            match client.stage {
                Stage::Asking(_) | Stage::Asked(_) => self.ended.push((key, "login_timeout")),
                // A client that has not taken all earlier bytes gets no mark with a later place.
                Stage::Following if client.is_flushed() => {
                    let place = client.next.max(cursor.min(now.durable));
                    // The numbers between were given up, so their events do not come any more.
                    client.next = place;
                    let epoch = client.epoch;
                    client.say(format_args!("+|{epoch}|{place}"), &mut self.pool);
                    if !std::mem::replace(&mut client.is_writable, true) {
                        self.writable.push_back(key);
                    }
                }
                _ => {}
            }
        }
    }

    fn flush<N: Net<Socket = S>>(&mut self, key: StreamKey, net: &mut N) {
        let Some(client) = self.entries.get_mut(key.index()) else {
            return;
        };
        client.is_writable = false;
        if client.drain(&mut self.pool).and_then(|()| client.watch(key, net)).is_err() {
            self.ended.push((key, "left"));
        }
    }

    /// Closes the connections that have come to their ends, and says why if the socket takes it.
    fn reap<N: Net<Socket = S>>(
        &mut self,
        mut log: Option<&mut Log>,
        lingering: &mut Lingering<S>,
        net: &mut N,
        now: Micros,
    ) {
        for (key, reason) in std::mem::take(&mut self.ended) {
            let Some(client) = self.entries.get_mut(key.index()) else { continue };
            let next = client.next;
            if matches!(client.stage, Stage::Following | Stage::CatchingUp) && reason != "left" {
                let epoch = client.epoch;
                client.say(format_args!("-|{epoch}|{next}|{reason}"), &mut self.pool);
            }
            // If that fails, the client is gone anyway.
            let _ = client.drain(&mut self.pool);
            let mut client = self.entries.remove(key.index());
            if let (Some(reader), Some(log)) = (client.reader.take(), &mut log) {
                reader.close(log);
            }
            log::info!(peer:% = client.peer, reason, next; "a stream client has gone");
            client.output.clear(&mut self.pool);
            client.graph_text.clear(&mut self.pool);
            // Another connection may get the key.
            self.readable.retain(|&other| other != key);
            self.writable.retain(|&other| other != key);
            if !matches!(reason, "left" | "error") {
                lingering.close(client.socket, client.is_talking, net, now);
            }
        }
    }
}

impl<S: Write> Client<S> {
    /// Takes received bytes. False: they are no request.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let Stage::Asking(line) = &mut self.stage else {
            return true;
        };
        line.extend_from_slice(&bytes[..bytes.len().min(REQUEST_BYTES_MAX + 1 - line.len())]);
        let Some(end) = memchr::memchr(b'\n', &line[..line.len().min(REQUEST_BYTES_MAX)]) else {
            return line.len() <= REQUEST_BYTES_MAX;
        };
        let text = &line[..end];
        let request = Request::parse(text.strip_suffix(b"\r").unwrap_or(text));
        self.line_end = if text.ends_with(b"\r") { "\r\n" } else { "\n" };
        request.map(|request| self.stage = Stage::Asked(request)).is_some()
    }

    /// Answers that the stream goes on at `next`.
    fn begin(&mut self, epoch: Epoch, next: Cursor, now: Micros, pool: &mut Pool) {
        self.stage = Stage::Following;
        (self.epoch, self.next) = (epoch, next);
        self.deadline = now + MARK_EVERY;
        self.say(format_args!("+|{epoch}|{next}"), pool);
    }

    fn refuse(&mut self, epoch: Epoch, number: Cursor, reason: &str, pool: &mut Pool) {
        self.say(format_args!("-|{epoch}|{number}|{reason}"), pool);
        self.stage = Stage::Refused;
    }

    fn say(&mut self, line: std::fmt::Arguments<'_>, pool: &mut Pool) {
        self.output.push(format!("{line}{}", self.line_end).as_bytes(), pool);
    }

    fn is_flushed(&self) -> bool {
        self.graph.is_none() && self.graph_text.is_empty() && self.output.is_empty()
    }

    /// Reads the next block of the journal, and sends what stands at its place and above.
    fn read_on(&mut self, log: &mut Log, pool: &mut Pool) -> Result<(Step, io::Result<()>), JournalError> {
        let mut reader = self.reader.take().unwrap_or_else(|| Reader::new(self.next));
        let step = reader.next(log);
        let mut sent = Ok(());
        if let Ok(Step::Block) = step {
            let lines = reader.lines();
            let from = first_line_from(lines, self.next);
            self.next = self.next.max(reader.cursor());
            sent = self.send(&lines[from..], pool);
        }
        if let Ok(Step::End) = step {
            reader.close(log);
        } else {
            self.reader = Some(reader);
        }
        step.map(|step| (step, sent))
    }

    /// Sends bytes, as far as the socket takes them; the rest waits.
    fn send(&mut self, bytes: &[u8], pool: &mut Pool) -> io::Result<()> {
        let mut written = 0;
        while self.is_flushed() && written < bytes.len() {
            match self.socket.write(&bytes[written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => written += len,
                Err(error) if is_interrupted(&error) => {}
                Err(error) if would_block(&error) => break,
                Err(error) => return Err(error),
            }
        }
        self.output.push(&bytes[written..], pool);
        Ok(())
    }

    /// Writes the output buffer, until the socket takes no more.
    fn drain(&mut self, pool: &mut Pool) -> io::Result<()> {
        loop {
            self.continue_graph(pool);
            let from = if self.graph_text.is_empty() { &mut self.output } else { &mut self.graph_text };
            if from.is_empty() {
                return Ok(());
            }
            match from.write_to(&mut self.socket, pool) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if is_interrupted(&error) => {}
                Err(error) if would_block(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes more lines of the graph once those before have been written.
    fn continue_graph(&mut self, pool: &mut Pool) {
        if !self.graph_text.is_empty() {
            return;
        }
        if let Some(graph) = &mut self.graph {
            let mut text = Vec::with_capacity(GRAPH_BYTES + 64);
            if graph.write(&mut text, self.line_end, GRAPH_BYTES) {
                self.graph = None;
            }
            self.graph_text.push(&text, pool);
        }
    }

    /// Has it told when the socket takes more, for as long as something waits.
    fn watch<N: Net<Socket = S>>(&mut self, key: StreamKey, net: &mut N) -> io::Result<()> {
        let blocked = !self.is_flushed();
        if blocked == self.blocked {
            return Ok(());
        }
        self.blocked = blocked;
        net.want_write(&mut self.socket, key.number(), blocked)
    }
}
