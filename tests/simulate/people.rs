//! The model's users: who follows whom, who is connected, and what each connection is owed.

use std::collections::{BTreeMap, BTreeSet};

use fortnight::internals::{counters::DisconnectReason, engine::event::Kind, time::Micros};
use support::{grammar::number, model::Event};

use crate::ring::Line;

/// Longest login line, terminator included.
const LOGIN_BYTES_MAX: usize = 64;

/// How far a connection on the user port has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not logged in: what it has sent so far.
    Login(Vec<u8>),
    /// It has, with this id.
    User(u64),
}

/// A connection on the user port.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) stage: Stage,
    /// When it must have logged in.
    pub(crate) deadline: Micros,
    /// Told, and not written at the end of the last turn.
    pub(crate) owed: Vec<u8>,
    /// Written since then.
    pub(crate) written: Vec<u8>,
    /// The last write was cut short.
    pub(crate) short: bool,
    /// Bytes that it was offered last and did not take.
    pub(crate) refused: usize,
    /// Being writable is told.
    pub(crate) wants_write: bool,
    /// Reasons for its end.
    pub(crate) causes: BTreeSet<usize>,
    pub(crate) closed: bool,
    /// Since when it has been above half of its buffer, without a break as far as one can tell.
    pub(crate) above_half_since: Option<Micros>,
    /// Since when it has surely been above its buffer without a break, and the turn in which that began.
    pub(crate) behind_since: Option<(Micros, u64)>,
}

impl Client {
    /// What is owed to it and has not been written yet.
    pub(crate) fn level(&self) -> usize {
        self.owed.len().saturating_sub(self.written.len())
    }

    /// Something waits for it that its socket has not been offered, as far as one can tell.
    pub(crate) fn is_put_off(&self) -> bool {
        !self.closed && self.level() > 0 && !self.wants_write
    }

    /// Whether what was written to it agrees with what it is owed.
    fn may_be_owed_that(&self, may_put_off: bool) -> bool {
        let is_ended = self.causes.iter().any(|&cause| cause != DisconnectReason::Replaced as usize);
        let may_wait = self.short || is_ended || (may_put_off && self.is_put_off());
        self.owed.starts_with(&self.written) && (self.level() == 0 || may_wait)
    }

    /// Bytes that were written to it and of which one does not know yet that it is owed them.
    fn written_beyond_owed(&self) -> usize {
        self.written.len().saturating_sub(self.owed.len())
    }

    pub(crate) fn is_user(&self) -> bool {
        matches!(self.stage, Stage::User(_))
    }

    /// The id of a user who is there.
    pub(crate) fn id(&self) -> Option<u64> {
        match self.stage {
            Stage::User(id) if !self.closed => Some(id),
            _ => None,
        }
    }

    pub(crate) fn cause(&mut self, end: DisconnectReason) {
        self.causes.insert(end as usize);
    }

    /// Listens to what it says until it has logged in: the id as which it does, if that is complete now. A bad login is
    /// a reason for its end.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Option<u64> {
        let Stage::Login(line) = &mut self.stage else {
            return None;
        };
        line.extend_from_slice(bytes);
        let Some(end) = line.iter().take(LOGIN_BYTES_MAX).position(|&byte| byte == b'\n') else {
            if line.len() >= LOGIN_BYTES_MAX {
                self.cause(DisconnectReason::BadLogin);
            }
            return None;
        };
        let line = &line[..end];
        let id = number(line.strip_suffix(b"\r").unwrap_or(line));
        if id.is_none() {
            self.cause(DisconnectReason::BadLogin);
        }
        id
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct People {
    followers: BTreeMap<u64, BTreeSet<u64>>,
    connected: BTreeMap<u64, usize>,
    pub(crate) clients: BTreeMap<usize, Client>,
    /// By kind, numbered as the server does.
    pub(crate) released: [u64; 8],
    pub(crate) deliveries: u64,
    /// Bytes told to anybody in this turn.
    pub(crate) told_bytes: usize,
    /// The latest arrival among the events released.
    pub(crate) latest: u64,
    /// Some of what is released in this turn was released before logins that were read late.
    pub(crate) splits_turns: bool,
    /// A source has been read in this turn, or a user was written to: a login that is read now is late.
    pub(crate) is_late: bool,
    /// Those logins, and whom each has taken over from.
    late: Vec<(usize, Option<usize>)>,
}

impl People {
    pub(crate) fn begin_turn(&mut self) {
        (self.told_bytes, self.is_late) = (0, false);
        self.late.clear();
    }

    pub(crate) fn connect(&mut self, peer: usize, deadline: Micros) {
        self.clients.insert(
            peer,
            Client {
                stage: Stage::Login(Vec::new()),
                deadline,
                owed: Vec::new(),
                written: Vec::new(),
                short: false,
                refused: 0,
                wants_write: false,
                causes: BTreeSet::new(),
                closed: false,
                above_half_since: None,
                behind_since: None,
            },
        );
    }

    /// Reads what a connection has sent. Says whether it has logged in with that.
    pub(crate) fn read(&mut self, peer: usize, bytes: &[u8]) -> bool {
        let client = self.clients.get_mut(&peer).filter(|client| client.causes.is_empty());
        let Some((client, id)) = client.and_then(|client| client.hear(bytes).map(|id| (client, id))) else {
            return false;
        };
        client.stage = Stage::User(id);
        let old = self.connected.insert(id, peer);
        if self.is_late {
            self.late.push((peer, old));
        }
        if let Some(replaced) = old.and_then(|old| self.clients.get_mut(&old)) {
            replaced.cause(DisconnectReason::Replaced);
        }
        true
    }

    /// At the end of a turn that is split: whoever logged in late was told only what came after that. What came before was told to the
    /// connection that it has taken over from. What was written says how much that is.
    pub(crate) fn split_turn(&mut self, may_put_off: bool) {
        if !self.splits_turns {
            return;
        }
        let late = std::mem::take(&mut self.late);
        // What was written to those before it in its id.
        let mut written: BTreeMap<usize, usize> = BTreeMap::new();
        for &(peer, old) in &late {
            let old_written = old.and_then(|old| self.clients.get(&old)).map(Client::written_beyond_owed);
            let earlier = old.and_then(|old| written.get(&old)).copied();
            written.insert(peer, old_written.unwrap_or(0) + earlier.unwrap_or(0));
        }
        for (peer, old) in late.into_iter().rev() {
            let Some(client) = self.clients.get_mut(&peer) else { continue };
            let mut before = Vec::new();
            while !client.may_be_owed_that(may_put_off) || before.len() < written[&peer] {
                let Some(end) = client.owed.iter().position(|&byte| byte == b'\n') else { break };
                before.extend(client.owed.drain(..=end));
            }
            if let Some(old) = old.and_then(|old| self.clients.get_mut(&old)) {
                old.owed.extend(before);
            }
        }
    }

    /// Forgets a connection that is closed.
    pub(crate) fn forget(&mut self, peer: usize) {
        if let Some(Client { stage: Stage::User(id), .. }) = self.clients.remove(&peer)
            && self.connected.get(&id) == Some(&peer)
        {
            self.connected.remove(&id);
        }
    }

    pub(crate) fn users(&self) -> usize {
        self.connected.len()
    }

    pub(crate) fn edges(&self) -> u64 {
        self.followers.values().map(|followers| followers.len() as u64).sum()
    }

    /// A new run begins.
    pub(crate) fn forget_graph(&mut self) {
        self.followers.clear();
    }

    /// Releases an event, or uses up the number of a line that is none.
    pub(crate) fn release(&mut self, line: &Line) {
        self.latest = self.latest.max(line.arrived);
        let Ok(event) = line.event else {
            return;
        };
        let kind = match event {
            Event::Follow(from, to) => {
                self.followers.entry(to).or_default().insert(from);
                self.tell(to, line);
                Kind::Follow
            }
            Event::Unfollow(from, to) => {
                self.followers.entry(to).or_default().remove(&from);
                Kind::Unfollow
            }
            Event::Broadcast => {
                for id in self.connected.keys().copied().collect::<Vec<u64>>() {
                    self.tell(id, line);
                }
                Kind::Broadcast
            }
            Event::Private(_, to) => {
                self.tell(to, line);
                Kind::Private
            }
            Event::Status(from) => {
                for id in self.followers.get(&from).cloned().unwrap_or_default() {
                    self.tell(id, line);
                }
                Kind::Status
            }
        };
        self.released[kind as usize] += 1;
    }

    fn tell(&mut self, id: u64, line: &Line) {
        if let Some(client) = self.connected.get(&id).and_then(|peer| self.clients.get_mut(peer)) {
            client.owed.extend_from_slice(&line.text);
            self.deliveries += 1;
            self.told_bytes += line.text.len();
        }
    }
}
