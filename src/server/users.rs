//! Connections on the user port: logins, bytes that are thrown away, and the one way in which users come and go.
//!
//! Reading notes down who logs in and who leaves, in order. [`Users::come_and_go`] acts on it. It changes the audience,
//! so it is called only when nothing waits to be delivered. A connection that has ended is out of the audience from
//! then on. Its key is free for another one after [`Users::reap`], at the end of the turn.

use super::{
    catch_up::CatchUp,
    closing::{Closing, Gone, Urgency},
    congestion::Pace,
    key::UserKey,
    linger::Lingering,
    liveness::{Liveness, LivenessRounds, USERS_AT_ONCE},
    login::{Arrival, Login},
    marks::Marks,
    net::Net,
    output::{Backlog, Pool},
    rotation::Rotation,
    socket::{is_interrupted, reason_of, would_block},
    token_checks::TokenChecks,
    user::{Connection, Role, Stage, User},
};
use crate::{
    admin::people::UserRow,
    config::Config,
    counters::DisconnectReason,
    engine::{Engine, UserSlot},
    sequence::Cursor,
    time::{MILLISECOND, Micros},
    user_id::UserId,
};
use slab::Slab;
use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::SocketAddr,
};

/// Number of reads from one user before the next user is read.
const READS_PER_USER: usize = 16;
/// Users whose chatter is thrown away in a turn.
const TALKERS_PER_TURN: usize = 4;
/// Connections of one kind that are ended in a turn because their time is up: some two milliseconds of work. For more of them their
/// time stays up, and they come in the next turns.
pub(super) const ENDS_PER_TURN: usize = 128;
/// Bytes of one such read.
const SCRATCH_BYTES: usize = 4096;

/// The connections on the user port.
#[derive(Debug)]
pub(super) struct Users<S> {
    pub(super) entries: Slab<Connection<S>>,
    /// Those that have not come to their ends, logged in or not.
    pub(super) connected: usize,
    places: usize,
    login_timeout: Micros,
    /// Key of each user slot's connection.
    pub(super) slot_keys: Vec<UserKey>,
    /// Those that can be read, in the order in which they come round.
    readable: VecDeque<UserKey>,
    /// Users that send something: it is thrown away, when there is time for it.
    chatter: VecDeque<UserKey>,
    /// Those whose sockets take bytes again.
    pub(super) writable: Vec<UserKey>,
    /// When connections must have logged in, in order of time; some have, or are gone.
    pub(super) logins: VecDeque<(Micros, UserKey)>,
    /// Logins and departures, in order, that the server has not acted on yet.
    pub(super) changes: Vec<Change>,
    /// Connections that have ended in this turn.
    pub(super) ended: Vec<UserKey>,
    /// The sockets of those that ended before and are still to be closed.
    closing: Closing<S>,
    pub(super) pool: Pool,
    pub(super) rotation: Rotation,
    pub(super) marks: Marks,
    pub(super) backlog: Backlog,
    pub(super) counters: UserCounters,
    scratch: Vec<u8>,
    pub(super) tokens: TokenChecks,
}

/// The counters of connections on the user port.
#[derive(Debug, Default)]
pub(super) struct UserCounters {
    /// Bytes written to users.
    pub(super) delivered_bytes: u64,
    /// Events that the engine has handed out and no user has been sent.
    pub(super) withheld: u64,
    /// Events handed to users by passes over the journal.
    pub(super) caught_up: u64,
    /// Users gone, by [`DisconnectReason`] as a number.
    pub(super) disconnected: [u64; DisconnectReason::ALL.len()],
    /// Logins with a place that were answered with one.
    pub(super) resumed_ok: u64,
    /// Logins with a place that is not kept any more.
    pub(super) resumed_gone: u64,
    /// Logins with a place in another sequence of events.
    pub(super) resumed_epoch: u64,
}

/// A user comes or goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    LogsIn { key: UserKey, arrival: Arrival },
    Leaves { key: UserKey, reason: DisconnectReason },
}

impl<S> Users<S> {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            entries: Slab::new(),
            connected: 0,
            places: config.max_user_clients as usize,
            login_timeout: config.login_timeout_ms * MILLISECOND,
            slot_keys: Vec::new(),
            readable: VecDeque::new(),
            chatter: VecDeque::new(),
            writable: Vec::new(),
            logins: VecDeque::new(),
            changes: Vec::new(),
            ended: Vec::new(),
            closing: Closing::new(),
            pool: Pool::default(),
            rotation: Rotation::new(config),
            marks: Marks::new(config.user_mark_ms),
            backlog: Backlog::default(),
            counters: UserCounters::default(),
            scratch: vec![0; SCRATCH_BYTES],
            tokens: TokenChecks::default(),
        }
    }

    /// Connections that have not come to their ends, logged in or not.
    pub(super) fn connected(&self) -> usize {
        self.connected
    }

    pub(super) fn is_full(&self) -> bool {
        self.connected >= self.places
    }

    /// Bytes that wait for users.
    pub(super) fn output_bytes(&self) -> usize {
        self.backlog.bytes
    }

    /// The id of a logged-in user, and how many bytes wait for it.
    pub(super) fn waiting_of(&self, key: UserKey) -> Option<(UserId, usize)> {
        match &self.entries.get(key.index())?.role {
            Role::User(user) => Some((user.id, user.output.len())),
            Role::Login(_) => None,
        }
    }

    /// All users that are not served from the journal: how many bytes wait for each, and how it keeps up. The others are never behind.
    pub(super) fn paces(&mut self) -> impl Iterator<Item = (UserKey, usize, &mut Pace)> {
        self.entries.iter_mut().filter_map(|(index, connection)| match &mut connection.role {
            Role::User(user) if !connection.ended && matches!(user.stage, Stage::Live(_)) => {
                Some((UserKey::new(index), user.output.len(), &mut user.pace))
            }
            _ => None,
        })
    }

    /// Whether more than half of the `logged_in` users have nothing waiting.
    pub(super) fn most_have_nothing_waiting(&self, logged_in: usize) -> bool {
        2 * self.backlog.buffers < logged_in
    }

    /// Whether there is something to do without anything becoming ready.
    pub(super) fn has_work(&self, is_barred: bool) -> bool {
        !self.readable.is_empty()
            || !self.chatter.is_empty()
            || !self.writable.is_empty()
            // Nobody comes or goes before the journal has what was released.
            || (!is_barred && !self.changes.is_empty())
            || !self.rotation.is_empty()
            || !self.closing.is_empty()
    }

    /// Whether a user comes or goes as soon as everything has been delivered.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// A connection has become readable or writable.
    pub(super) fn note_ready(&mut self, key: UserKey, readable: bool, hung_up: bool, writable: bool) {
        let Some(connection) = self.entries.get_mut(key.index()).filter(|connection| !connection.ended)
        else {
            return;
        };
        let has_just_hung_up = hung_up && !std::mem::replace(&mut connection.has_hung_up, true);
        if (readable && !std::mem::replace(&mut connection.queued, true)) || has_just_hung_up {
            connection.queued = true;
            let is_urgent = connection.has_hung_up || !connection.is_user();
            let queue = if is_urgent { &mut self.readable } else { &mut self.chatter };
            queue.push_back(key);
        }
        if writable && !std::mem::replace(&mut connection.writable, true) {
            self.writable.push(key);
        }
    }

    /// Takes in a connection, which has yet to log in.
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
        let key = UserKey::new(entry.key());
        net.register(&mut socket, key.number())?;
        let deadline = now + self.login_timeout;
        let login = Login { line: Vec::new(), deadline, complete: false, held: false };
        let role = Role::Login(login);
        entry.insert(Connection {
            socket,
            peer,
            since: now,
            queued: false,
            writable: false,
            ended: false,
            token_until: None,
            has_hung_up: false,
            is_talking: false,
            lingers: false,
            liveness: Liveness::default(),
            role,
        });
        self.connected += 1;
        self.note_login_deadline(deadline, key);
        Ok(())
    }

    /// Notes that a connection must be closed.
    pub(super) fn leaves(&mut self, key: UserKey, reason: DisconnectReason) {
        self.changes.push(Change::Leaves { key, reason });
    }

    /// Has all closed, for a reason.
    pub(super) fn end_all(&mut self, reason: DisconnectReason) {
        let open = self.entries.iter().filter(|(_, connection)| !connection.ended);
        self.changes.extend(open.map(|(index, _)| Change::Leaves { key: UserKey::new(index), reason }));
    }

    /// Has those closed that are owed nothing more, or all. Returns how many of them are owed something, and how many bytes.
    pub(super) fn end_flushed(&mut self, all: bool) -> (usize, usize) {
        let mut unsent = (0, 0);
        let flushed = |connection: &Connection<S>| match &connection.role {
            Role::Login(_) => true,
            Role::User(user) => all || user.output.is_empty(),
        };
        for (index, connection) in &self.entries {
            if !connection.ended && flushed(connection) {
                if let Role::User(user) = &connection.role
                    && !user.output.is_empty()
                {
                    unsent = (unsent.0 + 1, unsent.1 + user.output.len());
                }
                let (key, reason) = (UserKey::new(index), DisconnectReason::Closed);
                self.changes.push(Change::Leaves { key, reason });
            }
        }
        unsent
    }
}

/// What operators are shown of a connection.
impl<S> Users<S> {
    /// The connection of this key, if there is one. Its rate is not known here.
    pub(super) fn row(
        &self,
        key: UserKey,
        catch_up: &CatchUp,
        cursor: Cursor,
        now: Micros,
    ) -> Option<UserRow> {
        let connection = self.entries.get(key.index()).filter(|connection| !connection.ended)?;
        let mut row = UserRow {
            id: None,
            peer: connection.peer,
            age: now.saturating_sub(connection.since),
            bytes: 0,
            byte_rate: 0,
            waiting_bytes: 0,
            behind: None,
            is_slow: false,
        };
        if let Role::User(user) = &connection.role {
            row.id = Some(user.id);
            row.bytes = user.output.written();
            row.waiting_bytes = user.output.len();
            row.is_slow = user.pace.is_slow();
            if let Stage::Behind(behind) = &user.stage {
                row.behind = Some(cursor.since(catch_up.place_of(behind)));
            }
        }
        Some(row)
    }
}

/// Peers vanish.
impl<S> Users<S> {
    /// Looks at some users, those from `at` on. Those leave whose machines have vanished.
    pub(super) fn look_at<N: Net<Socket = S>>(
        &mut self,
        at: usize,
        rounds: &mut LivenessRounds,
        net: &mut N,
    ) {
        for index in at..at + USERS_AT_ONCE {
            let Some(connection) = self.entries.get_mut(index).filter(|connection| !connection.ended) else {
                continue;
            };
            if rounds.note_silence(
                &mut connection.liveness,
                net.silence(&mut connection.socket),
                connection.peer,
            ) {
                self.leaves(UserKey::new(index), DisconnectReason::Error);
            }
        }
    }

    /// Keys of connections are below this number.
    pub(super) fn keys_end(&self) -> usize {
        self.entries.capacity()
    }
}

/// Tokens run out.
impl<S> Users<S> {
    /// Has those closed whose tokens have run out. Says whether there are any.
    pub(super) fn end_overdue_tokens(&mut self, now: Micros) -> bool {
        let mut ended = 0;
        while ended < ENDS_PER_TURN
            && let Some(key) = self.tokens.take_overdue(now)
        {
            self.leaves(key, DisconnectReason::TokenExpired);
            ended += 1;
        }
        ended > 0
    }
}

/// Logins have a time limit.
impl<S> Users<S> {
    /// Notes when a new connection must have logged in.
    fn note_login_deadline(&mut self, deadline: Micros, key: UserKey) {
        self.logins.push_back((deadline, key));
        // Behind one that says nothing for long, those that have logged in are not kept for as long.
        if self.logins.len() > 2 * self.connected + 64 {
            let mut logins = std::mem::take(&mut self.logins);
            logins.retain(|&(at, key)| self.is_expected_to_log_in(at, key));
            self.logins = logins;
        }
    }

    fn is_expected_to_log_in(&self, at: Micros, key: UserKey) -> bool {
        self.entries.get(key.index()).is_some_and(|connection| {
            !connection.ended
                && matches!(&connection.role, Role::Login(login)
                    if login.deadline == at && (!login.complete || login.held))
        })
    }

    /// When the first connection that has not logged in must have.
    pub(super) fn login_deadline(&mut self) -> Option<Micros> {
        while let Some(&(at, key)) = self.logins.front() {
            if self.is_expected_to_log_in(at, key) {
                return Some(at);
            }
            self.logins.pop_front();
        }
        None
    }

    /// Has those closed that have not logged in in time.
    pub(super) fn end_overdue_logins(&mut self, now: Micros) {
        let (mut unread, mut ended) = (Vec::new(), 0);
        while ended < ENDS_PER_TURN
            && let Some(at) = self.login_deadline()
            && at <= now
            && let Some((at, key)) = self.logins.pop_front()
        {
            if self.entries.get(key.index()).is_some_and(|connection| connection.queued) {
                // Perhaps its login has arrived: it has to be read first. That is no reason to wait with others.
                unread.push((at, key));
            } else {
                self.leaves(key, DisconnectReason::LoginTimeout);
                ended += 1;
            }
        }
        unread.into_iter().rev().for_each(|login| self.logins.push_front(login));
    }
}

impl<S: Read + Write> Users<S> {
    /// Discards bytes that users have sent, within the time for this in a turn.
    pub(super) fn read_chatter(&mut self, now: Micros) {
        for _ in 0..self.chatter.len().min(TALKERS_PER_TURN) {
            if let Some(key) = self.chatter.pop_front()
                && let Err(reason) = self.read_one(key, now)
            {
                self.leaves(key, reason);
            }
        }
    }

    /// Reads those that have yet to log in, or have hung up, each up to its budget.
    pub(super) fn read(&mut self, now: Micros) {
        for _ in 0..self.readable.len() {
            if let Some(key) = self.readable.pop_front()
                && let Err(reason) = self.read_one(key, now)
            {
                self.leaves(key, reason);
            }
        }
    }

    /// Reads from a connection.
    fn read_one(&mut self, key: UserKey, now: Micros) -> Result<(), DisconnectReason> {
        let Some(connection) = self.entries.get_mut(key.index()) else {
            return Ok(());
        };
        connection.queued = false;
        for _ in 0..READS_PER_USER {
            match connection.socket.read(&mut self.scratch) {
                Ok(0) => return Err(DisconnectReason::Left),
                Ok(len) => {
                    connection.is_talking |= connection.is_user();
                    if let Role::Login(login) = &mut connection.role
                        && let Some((arrival, token_lasts)) =
                            login.read(&self.scratch[..len], &self.tokens)?
                    {
                        connection.token_until = self.tokens.note(key, token_lasts, now);
                        self.changes.push(Change::LogsIn { key, arrival });
                    }
                }
                Err(error) if is_interrupted(&error) => {}
                Err(error) if would_block(&error) => return Ok(()),
                Err(error) => return Err(reason_of(&error)),
            }
        }
        connection.queued = true;
        let is_urgent = connection.has_hung_up || !connection.is_user();
        let queue = if is_urgent { &mut self.readable } else { &mut self.chatter };
        queue.push_back(key);
        Ok(())
    }

    /// A connection that has not come to its end.
    pub(super) fn is_open(&self, key: UserKey) -> bool {
        self.entries.get(key.index()).is_some_and(|connection| !connection.ended)
    }

    /// A logged-in user whose connection has not come to its end.
    pub(super) fn user_mut(&mut self, key: UserKey) -> Option<&mut User> {
        let connection = self.entries.get_mut(key.index()).filter(|connection| !connection.ended)?;
        match &mut connection.role {
            Role::User(user) => Some(user),
            Role::Login(_) => None,
        }
    }

    /// Makes a user part of the audience. Returns its slot.
    pub(super) fn connect(&mut self, key: UserKey, id: UserId, engine: &mut Engine) -> UserSlot {
        let slot = engine.connect(id);
        if self.slot_keys.len() <= slot.index() {
            self.slot_keys.resize(slot.index() + 1, key);
        }
        self.slot_keys[slot.index()] = key;
        slot
    }

    /// Whether all connections that have come to their ends are closed, on this side at least.
    pub(super) fn have_all_been_closed(&self) -> bool {
        self.ended.is_empty() && self.closing.is_empty()
    }

    /// Frees the keys of those that have come to their ends, and closes sockets, as many as this turn has time for. Says whether it
    /// closed any.
    pub(super) fn reap<N: Net<Socket = S>>(
        &mut self,
        urgency: Urgency,
        lingering: &mut Lingering<S>,
        context: (&mut N, Micros),
    ) -> bool {
        let gone: Vec<_> = std::mem::take(&mut self.ended).into_iter().map(|key| self.remove(key)).collect();
        self.closing.close(gone.into_iter(), urgency, lingering, context)
    }

    fn remove(&mut self, key: UserKey) -> Gone<S> {
        let connection = self.entries.remove(key.index());
        // Another connection may get the key. It must not be served in place of this one.
        if connection.queued {
            self.readable.retain(|&other| other != key);
            self.chatter.retain(|&other| other != key);
        }
        if connection.writable {
            self.writable.retain(|&other| other != key);
        }
        let Connection { socket, lingers, is_talking, .. } = connection;
        Gone { socket, lingers, is_talking }
    }
}
