//! The log over many connections: following it, taking over, leading, and starting again.
//!
//! Nothing here reads or writes. One order of calls: [`due`](Log::due) until it says nothing; when a connection is being opened,
//! [`connect`](Log::connect); what is in [`out`](Log::out) is written; for each read [`received`](Log::received), then
//! [`next`](Log::next) until there is nothing more; [`lost`](Log::lost) when the connection has ended or an error was returned.

use super::{
    api::{self, From, StreamInfo},
    block::{BLOCK_HEADER, Header, Kind},
    connection::RequestId,
    leader::{End, Leader, SEND_AGAIN},
    reader::{Effect, Failure, Place, Reader},
    session::{Event, Session, Settings},
};
use crate::{
    epoch::Epoch,
    sequence::{Cursor, SequenceNumber},
    stream::{
        address::HostPort,
        backoff::{Backoff, PAUSE_MIN},
        follower::Loss,
    },
    time::Micros,
};
use std::{collections::VecDeque, ops::Range};

/// The role of a server at the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It reads. Another log may take the place of this one.
    Edge,
    /// It leads, or waits to lead. An empty log begins with this number.
    Sequencer {
        /// The first number.
        first_sequence: SequenceNumber,
    },
}

/// The next action for the server's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Open one to this server.
    Connect(HostPort),
    /// Close it, and say that it is [`lost`](Log::lost), for this reason.
    GiveUp(String),
}

/// The time, and random bits.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time.
    pub now: Micros,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Random bits.
    pub random: u64,
}

/// A block of the next term, on its way.
#[derive(Debug)]
struct Claim {
    id: Option<RequestId>,
    place: Place,
}

#[derive(Debug)]
enum Role {
    Edge,
    Follows(Option<Claim>),
    Leads(Box<Leader>),
}

/// See the [module](self).
#[derive(Debug)]
pub struct Log {
    settings: Settings,
    servers: Vec<HostPort>,
    /// The server that is tried next.
    next_server: usize,
    first_sequence: SequenceNumber,
    takeover: Micros,
    session: Option<Session>,
    /// Without a session: when one is tried. With one: when it began.
    at: Micros,
    backoff: Backoff,
    role: Role,
    reader: Reader,
    effects: VecDeque<Effect>,
    /// Nothing is claimed before.
    claim_again_at: Micros,
    /// Since when nothing has come although everything had been read.
    quiet_since: Option<Micros>,
    /// The log seems to end before the place that was reached: when to ask about it.
    ask_at: Option<Micros>,
    /// What was read is kept in a journal: another log cannot take the place of this one.
    has_journal: bool,
    /// The name of the sequence of events, once the end has been reached.
    epoch: Option<Epoch>,
    away_since: Option<Micros>,
    replicas: u64,
    /// What was confirmed when the last term of this server ended, until it has been found in the log.
    before_deposed: Option<Place>,
}

impl Log {
    /// A log that is not connected yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        servers: Vec<HostPort>,
        part: Part,
        takeover: Micros,
        now: Micros,
    ) -> Self {
        let (role, first_sequence) = match part {
            Part::Edge => (Role::Edge, SequenceNumber::default()),
            Part::Sequencer { first_sequence } => (Role::Follows(None), first_sequence),
        };
        Self {
            settings,
            servers,
            next_server: 0,
            first_sequence,
            takeover,
            session: None,
            at: now,
            backoff: Backoff::default(),
            role,
            reader: Reader::default(),
            effects: VecDeque::new(),
            claim_again_at: now,
            quiet_since: None,
            ask_at: None,
            has_journal: false,
            epoch: None,
            away_since: Some(now),
            replicas: 0,
            before_deposed: None,
        }
    }

    /// The name of the sequence of events, once it is known.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// What is read is kept, in a journal of this epoch, which goes on behind this place or a later one. Without an epoch
    /// the journal is empty.
    pub fn resume(&mut self, epoch: Option<Epoch>, place: Option<Place>) {
        (self.has_journal, self.epoch) = (true, epoch);
        match place {
            Some(place) => self.reader = Reader::resumed(place),
            // Where the journal ends in the log is not known.
            None if epoch.is_some() => self.reader.reset(Some(Loss::Gone)),
            None => {}
        }
    }

    /// Another log may take the place of this one.
    fn may_be_replaced(&self) -> bool {
        matches!(self.role, Role::Edge) && !self.has_journal
    }

    /// Since when the log has been away, if it is.
    #[must_use]
    pub fn away_since(&self) -> Option<Micros> {
        self.away_since
    }

    /// The last place that is known to be in the log.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        match &self.role {
            Role::Leads(leader) => Some(leader.confirmed()),
            _ => self.reader.place(),
        }
    }

    /// The last place that was known to be in the log. It does not go back while a server whose term has ended reads all of it again.
    #[must_use]
    pub fn known_place(&self) -> Option<Place> {
        [self.place(), self.before_deposed].into_iter().flatten().max_by_key(|place| place.number)
    }

    /// The leader, if this server is it.
    #[must_use]
    pub fn leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leads(leader) => Some(leader),
            _ => None,
        }
    }

    /// Replicas of the stream; 0 before it was reached.
    #[must_use]
    pub fn replicas(&self) -> u64 {
        self.replicas
    }

    /// The version of the connected server, if a server of this version can lose confirmed messages in a crash.
    #[must_use]
    pub fn unsafe_version(&self) -> Option<&str> {
        self.session.as_ref().map(Session::version).filter(|version| !api::is_safe(version))
    }

    /// Something is left to be done by the server.
    #[must_use]
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// Bytes to write.
    pub fn out(&mut self) -> Option<&mut Vec<u8>> {
        self.session.as_mut().map(Session::out)
    }

    /// Returns true once, after the server's greeting in clear, if TLS is wanted. All further bytes go over TLS.
    pub fn turns_to_tls(&mut self) -> bool {
        self.session.as_mut().is_some_and(Session::turns_to_tls)
    }

    /// When [`due`](Self::due) has something to do, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Micros {
        let session = self.session.as_ref().map_or(self.at, Session::deadline);
        let role = match &self.role {
            Role::Edge => Micros::MAX,
            Role::Follows(_) => self.claim_at(),
            Role::Leads(leader) => leader.mark_at().min(leader.over_at(self.takeover)).min(leader.send_at()),
        };
        session.min(role).min(self.ask_at.unwrap_or(Micros::MAX))
    }

    fn claim_at(&self) -> Micros {
        let is_claiming = matches!(&self.role, Role::Follows(Some(Claim { id: Some(_), .. })));
        match self.quiet_since {
            // Whoever was told of more than there is does not lead: what is missing may come yet, or the log went back.
            Some(since) if !is_claiming && self.before_deposed.is_none() => {
                let silence = if self.reader.is_vacant() { 0 } else { self.takeover };
                since.saturating_add(silence).max(self.claim_again_at)
            }
            _ => Micros::MAX,
        }
    }

    /// The next action. `is_idle`: everything that has come has been taken and applied.
    pub fn due(&mut self, moment: Moment, is_idle: bool) -> Option<Due> {
        let now = moment.now;
        let Some(session) = &mut self.session else {
            self.keep_leading(moment);
            if now < self.at {
                return None;
            }
            let server = self.servers[self.next_server % self.servers.len()].clone();
            self.next_server = (self.next_server + 1) % self.servers.len();
            return Some(Due::Connect(server));
        };
        if let Err(reason) = session.due(now) {
            return Some(Due::GiveUp(reason));
        }
        if self.ask_at.is_some_and(|at| at <= now) {
            self.ask_at = Some(now + self.takeover);
            session.ask(now);
        }
        self.keep_leading(moment);
        if is_idle && matches!(self.role, Role::Follows(_)) && self.claim_at() <= now {
            self.claim(moment);
        }
        None
    }

    /// A leader lets itself be heard, and gives up when nobody hears it.
    fn keep_leading(&mut self, Moment { now, time_ms, .. }: Moment) {
        let Role::Leads(leader) = &mut self.role else { return };
        if leader.over_at(self.takeover) <= now {
            return self.depose("the log has confirmed nothing for too long".to_owned(), now);
        }
        if leader.mark_at() <= now {
            let cursor = leader.tail().cursor;
            leader.push(Kind::Mark, vec![0; BLOCK_HEADER], cursor, time_ms, now);
        }
        if let Some(session) = &mut self.session {
            leader.send(session, now);
        }
    }

    /// Publishes a block of the next term.
    fn claim(&mut self, Moment { now, time_ms, random }: Moment) {
        let Some(session) = self.session.as_mut().filter(|session| session.is_ready()) else { return };
        let last = self.reader.place();
        let (cursor, epoch, term) = match last {
            Some(place) => (place.cursor, place.epoch, place.term + 1),
            None => (Cursor::before(self.first_sequence), Epoch::new(random.rotate_left(17) ^ time_ms), 1),
        };
        let previous = last.map_or(0, |place| place.hash);
        let number = last.map_or(0, |place| place.number);
        let mut block = vec![0; BLOCK_HEADER];
        block.extend_from_slice(&random.to_le_bytes());
        let header = Header { kind: Kind::Mark, term, epoch, from: cursor, to: cursor, time_ms, previous };
        let hash = header.seal(&mut block);
        let id = Some(session.publish(false, number, &block, now));
        let place = Place { number: number + 1, hash, cursor, term, epoch, time_ms };
        self.role = Role::Follows(Some(Claim { id, place }));
    }

    /// A connection is being opened.
    pub fn connect(&mut self, Moment { now, random, .. }: Moment) {
        self.session = Some(Session::new(self.settings.clone(), random, now));
        self.at = now;
    }

    /// The connection has ended, or could not be opened.
    pub fn lost(&mut self, now: Micros) {
        self.away_since.get_or_insert(now);
        self.session = None;
        // The pause grows when all servers have been tried.
        self.at = now + if self.next_server == 0 { self.backoff.fail() } else { PAUSE_MIN };
        (self.quiet_since, self.ask_at) = (None, None);
        match &mut self.role {
            Role::Leads(leader) => leader.lost(),
            Role::Follows(Some(claim)) => claim.id = None,
            _ => {}
        }
    }

    /// Something has been read.
    pub fn received(&mut self, now: Micros) {
        if let Some(session) = &mut self.session {
            session.note_heard(now);
        }
    }

    /// Takes the next part of `chunk[range]`, and moves the start of the range behind it. `None`: there is nothing to do, and no
    /// whole message.
    ///
    /// # Errors
    ///
    /// Why the connection cannot be used any more, in a clause. The caller must close it and call [`lost`](Self::lost).
    pub fn next(
        &mut self,
        chunk: &[u8],
        range: &mut Range<usize>,
        now: Micros,
    ) -> Result<Option<Effect>, String> {
        loop {
            if let Some(effect) = self.effects.pop_front() {
                return Ok(Some(effect));
            }
            let Some(session) = &mut self.session else { return Ok(None) };
            let Some(event) = session.next(chunk, range, now)? else { return Ok(None) };
            self.happened(event, chunk, now)?;
        }
    }

    fn happened(&mut self, event: Event, chunk: &[u8], now: Micros) -> Result<(), String> {
        match event {
            Event::Ready(info) => {
                self.replicas = info.replicas;
                let from = match &mut self.role {
                    Role::Leads(leader) => From::Message(leader.confirmed().number),
                    _ => self.reader.start(),
                };
                self.open(from, now);
            }
            Event::Opened { pending } => self.opened(pending, now),
            Event::Delivered { number, pending, payload } => {
                self.delivered((number, pending), chunk, payload, now)?;
            }
            Event::Stored(id, number) => return self.stored(id, number, now),
            Event::Refused(id) => return self.refused(id, now),
            Event::NotTaken(id) => self.not_taken(id, now),
            Event::Info(info) => self.informed(&info, now),
        }
        Ok(())
    }

    fn open(&mut self, from: From, now: Micros) {
        if let Some(session) = &mut self.session {
            session.open(from, now);
        }
    }

    fn opened(&mut self, pending: u64, now: Micros) {
        let is_missing = match &self.role {
            Role::Leads(_) => pending == 0,
            _ => {
                if let Some(from) = self.reader.opened(pending, &mut self.effects) {
                    self.open(from, now);
                }
                self.reader.is_missing()
            }
        };
        self.ask_at = is_missing.then_some(now + self.takeover);
        self.note_progress(now);
    }

    /// What is known has grown.
    fn note_progress(&mut self, now: Micros) {
        if matches!(self.role, Role::Leads(_)) {
            return;
        }
        if self.reader.is_at_end() {
            self.quiet_since = Some(now);
        }
        if self.before_deposed.is_some() {
            let asks = self.reader.is_at_end();
            self.ask_at = self.ask_at.or(asks.then_some(now + self.takeover));
            return;
        }
        // An empty log is a log, too: a sequencer may begin it.
        let is_empty = self.reader.is_at_end() && self.reader.place().is_none();
        if self.reader.is_verified() || (is_empty && !matches!(self.role, Role::Edge)) {
            self.away_since = None;
            self.ask_at = None;
            self.backoff.succeed();
        }
    }

    fn delivered(
        &mut self,
        (number, pending): (u64, u64),
        chunk: &[u8],
        payload: Range<usize>,
        now: Micros,
    ) -> Result<(), String> {
        match &mut self.role {
            Role::Leads(leader) if leader.is_verifying() => {
                let Ok((_, hash)) = Header::open(&chunk[payload]) else {
                    self.effects.push_back(Effect::Broken("a block of it is damaged".to_owned()));
                    return Ok(());
                };
                match leader.found(number, pending, hash, now) {
                    Err(End::OfTerm(reason)) => self.depose(reason, now),
                    Err(End::OfLog(reason)) => self.effects.push_back(Effect::Broken(reason)),
                    Ok(()) if !leader.is_verifying() => self.go_on_leading(now),
                    Ok(()) => {}
                }
                return Ok(());
            }
            Role::Leads(_) => return Ok(()),
            Role::Follows(claim @ Some(_)) => {
                let place = claim.as_ref().map(|claim| claim.place);
                let hash = Header::open(&chunk[payload.clone()]).map(|(_, hash)| hash).ok();
                let is_own = place.is_some_and(|place| place.number == number && Some(place.hash) == hash);
                if is_own && pending == 0 && self.reader.place().map_or(0, |last| last.number) + 1 == number {
                    self.lead(now);
                    return Ok(());
                }
                if place.is_none_or(|place| place.number <= number) {
                    *claim = None;
                }
            }
            _ => {}
        }
        match self.reader.take((number, pending), (chunk, payload), &mut self.effects) {
            Ok(None) => {}
            Ok(Some(from)) => self.open(from, now),
            Err(Failure::Connection(reason)) => return Err(reason),
            Err(Failure::Log(reason)) => {
                if self.may_be_replaced() {
                    self.reader.reset(Some(Loss::Epoch));
                    return Err(format!("it is another stream: {reason}"));
                }
                self.effects.push_back(Effect::Broken(reason));
            }
        }
        if let Some(&Effect::Reached(epoch)) = self.effects.back() {
            self.epoch = Some(epoch);
        }
        self.find_what_was_confirmed();
        self.note_progress(now);
        Ok(())
    }

    /// A server whose term has ended reads all of the log again. What had been confirmed to it must be there.
    fn find_what_was_confirmed(&mut self) {
        let (Some(known), Some(place)) = (self.before_deposed, self.reader.place()) else { return };
        if place.number == known.number && place.hash != known.hash {
            let reason = "what it had confirmed is not there any more".to_owned();
            self.effects.push_back(Effect::Broken(reason));
        }
        if place.number >= known.number {
            self.before_deposed = None;
            self.ask_at = None;
        }
    }

    /// The whole log has been read. Blocks that it does not have are sent again.
    fn go_on_leading(&mut self, now: Micros) {
        let (Role::Leads(leader), Some(session)) = (&mut self.role, &mut self.session) else { return };
        session.close();
        leader.send(session, now);
        (self.away_since, self.ask_at) = (None, None);
    }

    fn stored(&mut self, id: RequestId, number: u64, now: Micros) -> Result<(), String> {
        match &mut self.role {
            Role::Follows(Some(claim)) if claim.id == Some(id) => {
                if claim.place.number != number {
                    return Err("the log has stored a message at another place than expected".to_owned());
                }
                self.lead(now);
            }
            Role::Leads(leader) => {
                leader.stored(id, number, now)?;
                self.backoff.succeed();
                if let Some(session) = &mut self.session {
                    leader.send(session, now);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn refused(&mut self, id: RequestId, now: Micros) -> Result<(), String> {
        match &mut self.role {
            Role::Follows(Some(claim)) if claim.id == Some(id) => {
                self.role = Role::Follows(None);
                self.quiet_since = Some(now);
                Ok(())
            }
            Role::Leads(_) => Err("it has refused a message: others are there".to_owned()),
            _ => Ok(()),
        }
    }

    /// The stream has no leader. The published blocks are sent again.
    fn not_taken(&mut self, id: RequestId, now: Micros) {
        match &mut self.role {
            Role::Follows(Some(claim)) if claim.id == Some(id) => {
                self.role = Role::Follows(None);
                self.claim_again_at = now + SEND_AGAIN;
            }
            Role::Leads(leader) => leader.not_taken(id, now),
            _ => {}
        }
    }

    fn informed(&mut self, info: &StreamInfo, now: Micros) {
        let known = self.known_place().map_or(0, |place| place.number);
        if self.ask_at.is_some() && info.has_leader && info.last < known {
            if self.may_be_replaced() {
                self.reader.reset(Some(Loss::Epoch));
                self.ask_at = None;
                return self.open(From::LastGraph, now);
            }
            let reason =
                format!("it ends at message {}, before message {known} that was confirmed", info.last);
            self.effects.push_back(Effect::Broken(reason));
        }
    }

    /// The claim is in the log: this server leads.
    fn lead(&mut self, now: Micros) {
        let Role::Follows(Some(claim)) = &self.role else { return };
        let place = claim.place;
        self.before_deposed = None;
        self.role = Role::Leads(Box::new(Leader::new(place, self.settings.bytes, now)));
        self.epoch = Some(place.epoch);
        (self.quiet_since, self.away_since) = (None, None);
        if let Some(session) = &mut self.session {
            session.close();
        }
        self.effects.push_back(Effect::Leads);
    }

    /// The term of this server is over.
    fn depose(&mut self, reason: String, now: Micros) {
        self.before_deposed = self.known_place();
        self.role = Role::Follows(None);
        self.reader.reset(None);
        self.effects.push_back(Effect::Deposed(reason));
        if let Some(session) = self.session.as_mut().filter(|session| session.is_ready()) {
            session.open(self.reader.start(), now);
        }
    }

    /// Publishes a block, which has room for its header in front. `to`: the cursor behind it. Does nothing where this server does not
    /// lead.
    pub fn publish(&mut self, kind: Kind, block: Vec<u8>, to: Cursor, Moment { now, time_ms, .. }: Moment) {
        let Role::Leads(leader) = &mut self.role else { return };
        leader.push(kind, block, to, time_ms, now);
        if let Some(session) = &mut self.session {
            leader.send(session, now);
        }
    }
}
