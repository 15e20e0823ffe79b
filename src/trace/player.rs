//! Plays a trace on a simulated network.

use super::{
    reader::{Reader, TraceError},
    record::{Action, ConnectionId, Machine, Record},
    stream::{Keep, Received},
};
use crate::{
    resume::Login,
    server::net::Port,
    sim::{DiskFaults, Peer, Script, ServerEnd, SimFolder, World},
    time::Micros,
    user_id::UserId,
};
use hashbrown::HashMap;
use std::io::Read;

/// Longest login line (SPEC section 1.2): the bytes in which a user's id is looked for.
const LOGIN_BYTES_MAX: usize = 64;

/// Plays the records of a trace, and keeps what users receive.
#[derive(Debug)]
pub struct Player<R> {
    reader: Reader<R>,
    /// The record that is played next, when, and what it sends.
    next: Option<(Micros, Record)>,
    data: Vec<u8>,
    /// Every connection so far.
    known: HashMap<ConnectionId, Connection>,
    /// The far ends, and the place of each among them by its connection.
    ends: Vec<FarEnd>,
    end_of_peer: Vec<usize>,
    keep: Keep,
    /// Where the journal is kept, and what is wrong with the disk.
    folder: Option<SimFolder>,
    faults: DiskFaults,
    /// What has happened to the server, if it has ended or is to start.
    machine: Option<Machine>,
    ended: Option<Result<(), TraceError>>,
    last_at: Micros,
    played: u64,
}

/// A connection of the trace.
#[derive(Clone, Copy, Debug)]
struct Connection {
    /// `None`: it could not connect.
    peer: Option<Peer>,
    /// Nothing may come from it any more.
    gone: bool,
}

/// The far end of a connection.
#[derive(Debug)]
pub(super) struct FarEnd {
    pub(super) id: ConnectionId,
    peer: Option<Peer>,
    /// The bytes that it has sent, up to its first line end.
    login: Vec<u8>,
    pub(super) received: Received,
    pub(super) end: ServerEnd,
}

impl FarEnd {
    /// The id that a user has asked for, if it is one.
    pub(super) fn user_id(&self) -> Option<UserId> {
        let end = memchr::memchr(b'\n', &self.login)?;
        let line = &self.login[..end];
        Some(Login::parse(line.strip_suffix(b"\r").unwrap_or(line), false)?.id)
    }

    fn sends(&mut self, bytes: &[u8]) {
        if self.login.len() < LOGIN_BYTES_MAX && !self.login.contains(&b'\n') {
            self.login.extend_from_slice(&bytes[..bytes.len().min(LOGIN_BYTES_MAX - self.login.len())]);
        }
    }
}

impl<R: Read> Player<R> {
    /// A player of the records of `reader`.
    pub fn new(reader: Reader<R>, keep: Keep) -> Self {
        // What the disk of a replay does is the same every time.
        let folder = reader.config().journal_directory.as_ref().map(|_| SimFolder::new(0));
        Self {
            reader,
            folder,
            faults: DiskFaults::default(),
            machine: None,
            next: None,
            data: Vec::new(),
            known: HashMap::new(),
            ends: Vec::new(),
            end_of_peer: Vec::new(),
            keep,
            ended: None,
            last_at: 0,
            played: 0,
        }
    }

    /// Whether everything has been played, and until when that was.
    pub(super) fn ended_at(&self) -> Option<Micros> {
        self.ended.is_some().then_some(self.last_at)
    }

    /// How many records have been played.
    pub(super) fn played(&self) -> u64 {
        self.played
    }

    /// The next record, if there is one, comes too late: the server has had too many turns until then.
    pub(super) fn give_up(&mut self, turns: u64) {
        if self.ended.is_none() {
            self.fail(format!(
                "the server has something to do in {turns} turns and more until then; expected a record before that"
            ));
        }
    }

    /// Keeps what the server has written since the last call.
    pub(super) fn receive(&mut self, world: &mut World) {
        let now = world.now();
        while let Some(peer) = world.next_written_to() {
            let end = &mut self.ends[self.end_of_peer[peer.index()]];
            // The server sends only to users that have logged in, so the id is known.
            if let (Keep::Lines(shown), ConnectionId::User(number)) = (self.keep, end.id)
                && end.received.is_empty()
                && shown.includes(number, end.user_id())
            {
                end.received.keep_all_lines();
            }
            world.take_received(peer, |bytes| end.received.push(now, bytes));
        }
    }

    /// Where the server keeps its journal.
    pub(super) fn folder(&self) -> Option<&SimFolder> {
        self.folder.as_ref()
    }

    /// What has happened to the server since the last call.
    pub(super) fn take_machine(&mut self) -> Option<Machine> {
        self.machine.take()
    }

    /// The server has started: from now on the disk is as the trace says.
    pub(super) fn has_started(&mut self) {
        self.machine = None;
        if let Some(folder) = &self.folder {
            folder.set_faults(self.faults);
        }
    }

    /// The server cannot go on.
    pub(super) fn cannot_go_on(&mut self, reason: &str) {
        if self.ended.is_none() {
            self.fail(format!("the server ends here: {reason}; expected that it goes on"));
        }
    }

    fn machine(&mut self, what: Machine) {
        match what {
            Machine::Killed | Machine::PowerFails | Machine::Starts => {
                self.machine = Some(what);
                return;
            }
            Machine::DiskTakes(time) => self.faults.delay_max = time,
            Machine::DiskIsFull => self.faults.room = Some(0),
            Machine::DiskHasRoom => self.faults.room = None,
        }
        if let Some(folder) = &self.folder {
            folder.set_faults(self.faults);
        }
    }

    /// Notes what the far ends see of the server's ends now.
    pub(super) fn note_ends(&mut self, world: &World) {
        for end in &mut self.ends {
            if let Some(peer) = end.peer {
                end.end = world.server_end(peer);
            }
        }
    }

    /// Checks the rest of the trace. Returns what the far ends have received, and the trace's damage if there is any.
    pub(super) fn finish(&mut self) -> (Vec<FarEnd>, Result<(), TraceError>) {
        while self.ended.is_none() {
            self.load();
            if let Some((_, Record::Connection { id, action })) = self.next.take()
                && let Err(reason) = self.admit(id, action)
            {
                self.fail(reason);
            }
        }
        (std::mem::take(&mut self.ends), self.ended.take().unwrap_or(Ok(())))
    }

    /// Reads the next record unless it is there already.
    fn load(&mut self) {
        if self.next.is_some() || self.ended.is_some() {
            return;
        }
        match self.reader.next(&mut self.data) {
            Ok(None) => self.ended = Some(Ok(())),
            Err(error) => self.ended = Some(Err(error)),
            Ok(next) => self.next = next,
        }
    }

    fn fail(&mut self, reason: String) {
        self.next = None;
        self.ended = Some(Err(TraceError { line: self.reader.record_line(), reason, cut: false }));
    }

    /// Checks that a connection can do that by now, and returns it.
    fn admit(&mut self, id: ConnectionId, action: Action) -> Result<Option<Peer>, String> {
        if action == Action::Connects {
            let connection = Connection { peer: None, gone: false };
            return match self.known.insert(id, connection) {
                None => Ok(None),
                Some(_) => Err(format!("{id} connects twice; expected a number that has not been used")),
            };
        }
        match self.known.get_mut(&id) {
            None => Err(format!("{id} has not connected; expected that first")),
            Some(Connection { gone: true, .. }) => {
                Err(format!("{id} has gone already; expected nothing more of it"))
            }
            Some(connection) => {
                connection.gone = matches!(action, Action::Closes | Action::Resets);
                Ok(connection.peer)
            }
        }
    }

    fn connect(&mut self, id: ConnectionId, world: &mut World) {
        let peer = world.connect(id.port());
        if let Some(connection) = self.known.get_mut(&id) {
            connection.peer = peer;
        }
        if let Some(peer) = peer {
            let places = self.end_of_peer.len().max(peer.index() + 1);
            self.end_of_peer.resize(places, usize::MAX);
            self.end_of_peer[peer.index()] = self.ends.len();
        }
        let mut received = Received::new(self.keep);
        if matches!(id, ConnectionId::Source(_)) {
            // Acknowledgements have no number in front.
            received.keep_all_lines();
        }
        self.ends.push(FarEnd { id, peer, login: Vec::new(), received, end: ServerEnd::Closed });
    }

    fn play(&mut self, id: ConnectionId, action: Action, world: &mut World) -> Result<(), String> {
        let peer = self.admit(id, action)?;
        if action == Action::Connects {
            self.connect(id, world);
        }
        let Some(peer) = peer else {
            return Ok(());
        };
        match action {
            Action::Connects => {}
            Action::Sends => {
                world.send(peer, &self.data);
                if id.port() == Port::User {
                    self.ends[self.end_of_peer[peer.index()]].sends(&self.data);
                }
            }
            Action::Finishes => world.finish(peer),
            Action::Closes => world.close(peer),
            Action::Resets => world.reset(peer),
            Action::Takes(bytes) => world.limit_outbound(peer, bytes),
        }
        Ok(())
    }
}

impl<R: Read> Script for Player<R> {
    fn next_at(&mut self, _: &World) -> Option<Micros> {
        self.load();
        self.next.map(|(at, _)| at)
    }

    fn happen(&mut self, world: &mut World) {
        let Some((at, record)) = self.next.take() else {
            return;
        };
        self.last_at = at;
        self.played += 1;
        let played = match record {
            Record::Signal => {
                world.signal();
                Ok(())
            }
            Record::Machine(what) => {
                self.machine(what);
                Ok(())
            }
            Record::Connection { id, action } => self.play(id, action, world),
        };
        if let Err(reason) = played {
            self.fail(reason);
        }
    }

    fn ends_process(&self) -> bool {
        matches!(self.machine, Some(Machine::Killed | Machine::PowerFails))
    }
}
