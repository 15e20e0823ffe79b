//! Connections on the user port: logins, bytes that are thrown away, and the one way in which users come and go.
//!
//! Reading notes down who logs in and who leaves, in order. [`Users::come_and_go`] acts on it. It changes the audience,
//! so it is called only when nothing waits to be delivered. A connection that has ended is out of the audience from
//! then on. [`Users::reap`] closes its socket, once a turn.

use super::{
    Context,
    catch_up::Behind,
    congestion::Pace,
    is_interrupted,
    key::UserKey,
    linger::Lingering,
    net::Net,
    output::{Backlog, Output, Pool},
    resuming::{Marks, Resume},
    rotation::Rotation,
    token_desk::TokenDesk,
    would_block,
};
use crate::{
    config::Config,
    counters::DisconnectReason,
    engine::Engine,
    resume::{self, Start, Terminator},
    time::{MILLISECOND, Micros},
};
use slab::Slab;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
};

/// What is read of one user before it is another one's turn.
const READS_PER_USER: usize = 16;
/// Users whose chatter is thrown away in a turn.
const TALKERS_PER_TURN: usize = 4;
/// Bytes of one such read.
const SCRATCH_BYTES: usize = 4096;

/// The connections on the user port.
#[derive(Debug)]
pub(super) struct Users<S> {
    pub(super) entries: Slab<Connection<S>>,
    /// Those that have not come to their ends, logged in or not.
    connected: usize,
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
    logins: VecDeque<(Micros, UserKey)>,
    /// Who has logged in and who leaves, in order, and nobody has acted on it.
    changes: Vec<Change>,
    /// Connections that have come to their ends, whose sockets are to be closed.
    ended: Vec<UserKey>,
    /// Those that are closed on this side.
    pub(super) lingering: Lingering<S>,
    pub(super) pool: Pool,
    pub(super) rotation: Rotation,
    pub(super) marks: Marks,
    pub(super) backlog: Backlog,
    scratch: Vec<u8>,
    pub(super) tokens: TokenDesk,
}

/// A connection on the user port.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) socket: S,
    peer: SocketAddr,
    /// It is on the list of those to be read.
    queued: bool,
    /// It is on the list of those whose sockets take bytes again.
    pub(super) writable: bool,
    /// It has come to its end, and only has to be closed.
    ended: bool,
    /// When its token runs out, if it has one.
    token_until: Option<Micros>,
    /// It will send nothing more.
    has_hung_up: bool,
    /// It has sent something besides its login: it may do so again.
    is_talking: bool,
    /// What it was sent is still on its way.
    lingers: bool,
    pub(super) role: Role,
}

impl<S> Connection<S> {
    fn is_user(&self) -> bool {
        matches!(self.role, Role::User(_))
    }
}

/// Who is at the other end.
#[derive(Debug)]
pub(super) enum Role {
    /// Nobody knows yet.
    Login(Login),
    /// A user who has logged in.
    User(User),
}

/// A connection that has not logged in.
#[derive(Debug)]
pub(super) struct Login {
    line: Vec<u8>,
    /// When it is closed if it has not logged in.
    deadline: Micros,
    /// The line is complete, and is worked on.
    complete: bool,
    /// It cannot be answered yet: this server has not reached its stream.
    held: bool,
}

/// A login that is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) id: u64,
    pub(super) start: Start,
    pub(super) terminator: Terminator,
}

/// A logged-in user.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: u64,
    pub(super) stage: Stage,
    /// What its socket has not taken, or has not been offered yet because it was put off.
    pub(super) output: Output,
    /// Its socket has not taken everything, and tells when it takes more.
    pub(super) blocked: bool,
    /// It is on the list of those to be written to.
    pub(super) due: bool,
    pub(super) pace: Pace,
    /// It has logged in with a place.
    pub(super) resume: Option<Box<Resume>>,
}

/// What a user is served from.
#[derive(Debug)]
pub(super) enum Stage {
    /// The engine, where this is its slot.
    Live(u32),
    /// The journal.
    Behind(Behind),
}

/// Somebody comes or goes.
#[derive(Clone, Copy, Debug)]
enum Change {
    LogsIn {
        key: UserKey,
        arrival: Arrival,
    },
    Leaves {
        key: UserKey,
        reason: DisconnectReason,
    },
    /// Its output buffer is full. It has been handed everything below this number.
    FallsBehind {
        key: UserKey,
        next: u128,
    },
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
            lingering: Lingering::new(),
            pool: Pool::default(),
            rotation: Rotation::new(config),
            marks: Marks::new(config.user_mark_ms),
            backlog: Backlog::default(),
            scratch: vec![0; SCRATCH_BYTES],
            tokens: TokenDesk::default(),
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
    pub(super) fn waiting_of(&self, key: UserKey) -> Option<(u64, usize)> {
        match &self.entries.get(key.index())?.role {
            Role::User(user) => Some((user.id, user.output.len())),
            Role::Login(_) => None,
        }
    }

    /// All logged-in users: how many bytes wait for each, and how it keeps up.
    pub(super) fn paces(&mut self) -> impl Iterator<Item = (UserKey, usize, &mut Pace)> {
        self.entries.iter_mut().filter_map(|(index, connection)| match &mut connection.role {
            Role::User(user) if !connection.ended => {
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
    }

    /// Whether somebody comes or goes as soon as everything has been delivered.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The net says what a connection is ready for.
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
            queued: false,
            writable: false,
            ended: false,
            token_until: None,
            has_hung_up: false,
            is_talking: false,
            lingers: false,
            role,
        });
        self.connected += 1;
        self.note_login_deadline(deadline, key);
        Ok(())
    }

    /// A connection is to be closed.
    pub(super) fn leaves(&mut self, key: UserKey, reason: DisconnectReason) {
        self.changes.push(Change::Leaves { key, reason });
    }

    /// Has all closed, for a reason.
    pub(super) fn end_all(&mut self, reason: DisconnectReason) {
        let open = self.entries.iter().filter(|(_, connection)| !connection.ended);
        self.changes.extend(open.map(|(index, _)| Change::Leaves { key: UserKey::new(index), reason }));
    }

    /// A user's output buffer is full: it has been handed everything below `next`.
    pub(super) fn falls_behind(&mut self, key: UserKey, next: u128) {
        self.changes.push(Change::FallsBehind { key, next });
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

/// Tokens run out.
impl<S> Users<S> {
    /// Has those closed whose tokens have run out. Says whether there are any.
    pub(super) fn end_overdue_tokens(&mut self, now: Micros) -> bool {
        let mut any = false;
        while let Some(key) = self.tokens.take_overdue(now) {
            self.leaves(key, DisconnectReason::TokenExpired);
            any = true;
        }
        any
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
        while let Some(at) = self.login_deadline()
            && at <= now
        {
            let queued =
                |key: UserKey| self.entries.get(key.index()).is_some_and(|connection| connection.queued);
            if self.logins.front().is_some_and(|&(_, key)| queued(key)) {
                // Perhaps its login has arrived: it has to be read first.
                break;
            }
            if let Some((_, key)) = self.logins.pop_front() {
                self.leaves(key, DisconnectReason::LoginTimeout);
            }
        }
    }
}

impl<S: Read + Write> Users<S> {
    /// Throws away what users have sent, as much as there is time for in a turn: nobody waits for that.
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

    /// Reads what a connection has sent.
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

    /// Those who have logged in come, and those who leave go, in the order in which it was noted. The engine must have
    /// delivered everything: what was released before is not for those who come, and is for those who go.
    pub(super) fn come_and_go<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) {
        if context.epoch.is_some() && self.marks.has_held() {
            for (key, arrival) in self.marks.take_held() {
                self.arrive(key, arrival, context);
            }
        }
        let mut changes = std::mem::take(&mut self.changes);
        for change in changes.drain(..) {
            match change {
                Change::Leaves { key, reason } => {
                    self.end(key, reason, context);
                }
                Change::LogsIn { key, arrival } => self.arrive(key, arrival, context),
                Change::FallsBehind { key, next } => self.fall_behind(key, next, context),
            }
        }
        self.changes = changes;
    }

    fn is_blocked(&self, key: UserKey) -> bool {
        let role = self.entries.get(key.index()).map(|connection| &connection.role);
        matches!(role, Some(Role::User(user)) if user.blocked)
    }

    /// A connection that has not come to its end.
    pub(super) fn is_open(&self, key: UserKey) -> bool {
        self.entries.get(key.index()).is_some_and(|connection| !connection.ended)
    }

    /// A user's login cannot be answered yet.
    pub(super) fn hold_login(&mut self, key: UserKey) {
        if let Some(Connection { role: Role::Login(login), .. }) = self.entries.get_mut(key.index()) {
            login.held = true;
            let deadline = login.deadline;
            self.logins.push_front((deadline, key));
        }
    }

    /// A logged-in user whose connection has not come to its end.
    pub(super) fn user_mut(&mut self, key: UserKey) -> Option<&mut User> {
        let connection = self.entries.get_mut(key.index()).filter(|connection| !connection.ended)?;
        match &mut connection.role {
            Role::User(user) => Some(user),
            Role::Login(_) => None,
        }
    }

    /// Lets a user in: live, or `behind`.
    pub(super) fn log_in<N: Net<Socket = S>>(
        &mut self,
        key: UserKey,
        id: u64,
        (resume, behind): (Option<Box<Resume>>, Option<Behind>),
        context: &mut Context<'_, N>,
    ) {
        let stage = match behind {
            None => Stage::Live(self.connect(key, id, context.engine)),
            Some(mut behind) => {
                context.catch_up.enter(key, id, &mut behind, true, context.now);
                Stage::Behind(behind)
            }
        };
        let Some(connection) = self.entries.get_mut(key.index()) else { return };
        log::debug!(user = id, peer:% = connection.peer; "user logged in");
        connection.role = Role::User(User {
            id,
            stage,
            output: Output::default(),
            blocked: false,
            due: false,
            pace: Pace::new(id),
            resume,
        });
    }

    /// Makes a user part of the audience. Returns its slot.
    pub(super) fn connect(&mut self, key: UserKey, id: u64, engine: &mut Engine) -> u32 {
        let slot = engine.connect(id);
        if self.slot_keys.len() <= slot as usize {
            self.slot_keys.resize(slot as usize + 1, key);
        }
        self.slot_keys[slot as usize] = key;
        slot
    }

    /// The one way in which a connection ends: what is owed is offered once more, then it is out of the audience.
    pub(super) fn end<N: Net<Socket = S>>(
        &mut self,
        key: UserKey,
        reason: DisconnectReason,
        context: &mut Context<'_, N>,
    ) {
        if self.entries.get(key.index()).is_none_or(|connection| connection.ended) {
            return;
        }
        if reason == DisconnectReason::Replaced || !self.is_blocked(key) {
            // Also what had been put off. If that fails, the user is gone anyway.
            let _ = self.write_waiting(key, context);
        }
        self.finish_line(key, context);
        self.say_last_words(key, reason, context);
        let Some(connection) = self.entries.get_mut(key.index()) else {
            return;
        };
        connection.ended = true;
        self.tokens.forget(key, connection.token_until);
        connection.lingers = !matches!(reason, DisconnectReason::Left | DisconnectReason::Error);
        self.connected -= 1;
        self.ended.push(key);
        context.engine.counters.users_disconnected[reason as usize] += 1;
        let Role::User(user) = &mut connection.role else {
            if let Role::Login(login) = &connection.role {
                let shown = self.tokens.without_token(&login.line);
                context.reports.login_ended(&login.line, shown, connection.peer, reason, context.now);
            }
            return self.marks.forget(key);
        };
        match &user.stage {
            Stage::Live(slot) => context.engine.disconnect(user.id, *slot),
            Stage::Behind(behind) => context.catch_up.forget(key, user.id, behind),
        }
        self.backlog.note(user.output.len(), 0);
        context.reports.user_ended(user.id, connection.peer, reason, user.output.len(), context.now);
        user.output.clear(&mut self.pool);
        if std::mem::take(&mut user.due) {
            self.rotation.forget(key);
        }
        context.congestion.gone(key);
    }

    /// Whether all connections that have come to their ends are closed.
    pub(super) fn nobody_lingers(&self) -> bool {
        self.ended.is_empty() && self.lingering.is_empty()
    }

    /// Closes the sockets of those that have come to their ends. Says whether there were any.
    pub(super) fn reap<N: Net<Socket = S>>(&mut self, net: &mut N, now: Micros) -> bool {
        let any = !self.ended.is_empty() | self.lingering.look(false, &mut self.scratch, now);
        for key in std::mem::take(&mut self.ended) {
            let mut connection = self.entries.remove(key.index());
            // Somebody else may get the key, and is not to be served instead.
            if connection.queued {
                self.readable.retain(|&other| other != key);
                self.chatter.retain(|&other| other != key);
            }
            if connection.writable {
                self.writable.retain(|&other| other != key);
            }
            let (has_come, end) = read_off(&mut connection.socket, &mut self.scratch);
            let is_over = matches!(end, Some(Ok(0)));
            if connection.lingers && (connection.is_talking || has_come) && !is_over {
                self.lingering.add(connection.socket, net, now);
            }
        }
        any
    }
}

impl Login {
    /// Adds bytes to the login line. Once it is complete, gives what it says, and for how long its token lasts.
    fn read(
        &mut self,
        bytes: &[u8],
        tokens: &TokenDesk,
    ) -> Result<Option<(Arrival, Option<Micros>)>, DisconnectReason> {
        if self.complete {
            return Ok(None);
        }
        let most = tokens.login_bytes_max();
        let room = most - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let Some(end) = memchr::memchr(b'\n', &self.line) else {
            return if self.line.len() < most { Ok(None) } else { Err(DisconnectReason::BadLogin) };
        };
        self.complete = true;
        // A token is not kept for longer than it takes to judge it.
        let line = std::mem::take(&mut self.line);
        let terminator = Terminator::of(&line[..=end]);
        let content = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
        let (resume::Login { id, start, .. }, token_lasts) = match tokens.judge(content) {
            Ok(judged) => judged,
            Err(reason) => {
                // For the log, which tells why and leaves out the token.
                self.line = line;
                return Err(reason);
            }
        };
        Ok(Some((Arrival { id, start, terminator }, token_lasts)))
    }
}

/// Reads and throws away what has come, up to a limit. Closing a socket with unread bytes resets the connection, and what has
/// been written but not yet received is lost to the other side. Returns whether something had come, and what the last read came
/// to; `None`: there may be more.
pub(super) fn read_off(socket: &mut impl Read, scratch: &mut [u8]) -> (bool, Option<io::Result<usize>>) {
    for reads in 0..READS_PER_USER {
        match socket.read(scratch) {
            Ok(1..) => {}
            end => return (reads > 0, Some(end)),
        }
    }
    (true, None)
}

/// What a failed read or write says about how a user went.
pub(super) fn reason_of(error: &io::Error) -> DisconnectReason {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
            DisconnectReason::Left
        }
        _ => DisconnectReason::Error,
    }
}
