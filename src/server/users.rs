//! Users: accepting them, logins, what they send, what they are sent, and the one way in which they go.

use super::{
    Net, Server,
    connection::{Connection, Role, User},
    is_interrupted,
    net::Port,
    output::{Output, Pool},
    would_block,
};
use crate::{counters::UserEnd, engine::event::parse_number};
use std::io::{self, ErrorKind, Read, Write};

/// Longest login line, terminator included (SPEC section 1.2).
const LOGIN_BYTES_MAX: usize = 64;
/// What is read of one user before it is another one's turn.
const READS_PER_USER: usize = 16;
/// How often newly accepted connections are waited on before events get their turn.
const ACCEPT_ROUNDS: usize = 8;

impl<N: Net> Server<N> {
    /// Everything that users want: hang-ups, logins, connections; in the order in which they came.
    ///
    /// A new connection is not read right away, however likely its login is to be there: an older connection's may have
    /// come before it, unnoticed so far. So the net is asked again, which tells of both in their order.
    pub(super) fn serve_users(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPT_ROUNDS {
            self.read_users();
            if !self.accept(Port::User)? {
                break;
            }
            self.poll(Some(0))?;
        }
        Ok(())
    }

    /// Reads the users that can be read, each up to its budget.
    pub(super) fn read_users(&mut self) {
        for _ in 0..self.readable_users.len() {
            if let Some(key) = self.readable_users.pop_front() {
                self.read_user(key);
            }
        }
        self.close_failed();
    }

    /// Reads what a connection on the user port has sent.
    fn read_user(&mut self, key: usize) {
        for _ in 0..READS_PER_USER {
            let Some(connection) = self.connections.get_mut(key) else {
                return;
            };
            connection.queued = false;
            match connection.socket.read(&mut self.trash) {
                Ok(0) => return self.fail(key, UserEnd::Left),
                Ok(len) => {
                    if let Role::Login(login) = &mut connection.role {
                        let room = LOGIN_BYTES_MAX + 1 - login.line.len();
                        login.line.extend_from_slice(&self.trash[..len.min(room)]);
                        if let Err(end) = self.try_login(key) {
                            return self.fail(key, end);
                        }
                    }
                }
                Err(error) if is_interrupted(&error) => {}
                Err(error) if would_block(&error) => {
                    connection.readable = false;
                    return;
                }
                Err(error) => return self.fail(key, end_of(&error)),
            }
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.queued = true;
            self.readable_users.push_back(key);
        }
    }

    /// Logs a connection in if its login line is complete.
    fn try_login(&mut self, key: usize) -> Result<(), UserEnd> {
        let Some(Connection { role: Role::Login(login), .. }) = self.connections.get(key) else {
            return Ok(());
        };
        let line = &login.line[..login.line.len().min(LOGIN_BYTES_MAX)];
        let Some(end) = memchr::memchr(b'\n', line) else {
            return if line.len() < LOGIN_BYTES_MAX { Ok(()) } else { Err(UserEnd::BadLogin) };
        };
        let line = &line[..end];
        let id = parse_number(line.strip_suffix(b"\r").unwrap_or(line)).ok_or(UserEnd::BadLogin)?;
        self.log_in(key, id);
        Ok(())
    }

    fn log_in(&mut self, key: usize, id: u64) {
        // What was released before now is not for it, and for whom it replaces it is the end.
        self.deliver();
        if let Some(slot) = self.engine.slot(id) {
            let replaced = self.slot_keys[slot as usize];
            self.flush_user(replaced);
            self.close_user(replaced, UserEnd::Replaced);
        }
        let slot = self.engine.connect(id);
        if self.slot_keys.len() <= slot as usize {
            self.slot_keys.resize(slot as usize + 1, usize::MAX);
        }
        self.slot_keys[slot as usize] = key;
        if let Some(connection) = self.connections.get_mut(key) {
            log::debug!(user = id, peer:% = connection.peer; "user logged in");
            connection.role = Role::User(User {
                id,
                slot,
                output: Output::default(),
                blocked: false,
                due: false,
                slow_since: None,
                behind: false,
            });
        }
    }

    /// Hands every user what the engine owes it: written at once, as far as its socket takes it, or put off. The rest
    /// goes into the user's output buffer.
    pub(super) fn deliver(&mut self) {
        if self.engine.is_delivered() {
            return;
        }
        let Self {
            engine,
            connections,
            slot_keys,
            net,
            pool,
            rotation,
            failed,
            config,
            output_bytes,
            slow,
            now,
            ..
        } = self;
        let mut delivered = 0;
        engine.deliver(|slot, bytes| {
            let key = slot_keys[slot as usize];
            let Some(Connection { socket, role: Role::User(user), .. }) = connections.get_mut(key) else {
                return;
            };
            let waiting = user.output.len();
            let mut outcome = Ok(());
            if user.blocked {
                user.output.push(bytes, pool);
            } else if !rotation.put_off(key, user, bytes, pool) {
                outcome = user.write(socket, bytes, pool).and_then(|()| user.watch(socket, key, net));
                delivered += (waiting + bytes.len() - user.output.len()) as u64;
            }
            *output_bytes = *output_bytes - waiting + user.output.len();
            if let Err(error) = outcome {
                failed.push((key, end_of(&error)));
            } else if user.output.len() > config.user_buffer_bytes && !user.behind {
                user.behind = true;
                if user.slow_since.replace(*now).is_none() {
                    slow.push(key);
                }
            }
        });
        self.engine.counters.delivered_bytes += delivered;
        self.control_congestion();
        self.close_failed();
    }

    /// A user's socket takes bytes again, or it is the user's turn.
    pub(super) fn flush_user(&mut self, key: usize) {
        if !matches!(self.connections.get(key), Some(Connection { role: Role::User(_), .. })) {
            return self.queue_asker(key);
        }
        match self.write_waiting(key) {
            Ok(()) => self.after_flush(key),
            Err(error) => self.fail(key, end_of(&error)),
        }
    }

    /// Writes what waits for a user, as far as its socket takes it.
    fn write_waiting(&mut self, key: usize) -> io::Result<()> {
        let Some(Connection { socket, role: Role::User(user), .. }) = self.connections.get_mut(key) else {
            return Ok(());
        };
        let waiting = user.output.len();
        let outcome =
            user.drain(socket, &mut self.pool).and_then(|()| user.watch(socket, key, &mut self.net));
        let written = waiting - user.output.len();
        self.output_bytes -= written;
        self.engine.counters.delivered_bytes += written as u64;
        outcome
    }

    /// A connection on the user port has come to its end, and is closed as soon as nobody works with it.
    pub(super) fn fail(&mut self, key: usize, end: UserEnd) {
        self.failed.push((key, end));
    }

    pub(super) fn close_failed(&mut self) {
        while let Some((key, end)) = self.failed.pop() {
            self.close_user(key, end);
        }
    }

    /// The one way in which a connection on the user port ends.
    pub(super) fn close_user(&mut self, key: usize, end: UserEnd) {
        if !matches!(self.connections.get(key), Some(Connection { role: Role::User(_) | Role::Login(_), .. }))
        {
            return;
        }
        // Everyone gets what was released while this user was there.
        self.deliver();
        if let Some(Connection { role: Role::User(User { blocked: false, .. }), .. }) =
            self.connections.get(key)
        {
            // Also what had been put off. If that fails, the user is gone anyway.
            let _ = self.write_waiting(key);
        }
        let Some(mut connection) = self.connections.try_remove(key) else {
            return;
        };
        self.user_clients -= 1;
        self.engine.counters.users_disconnected[end as usize] += 1;
        if let Role::User(user) = &mut connection.role {
            self.engine.disconnect(user.id, user.slot);
            self.output_bytes -= user.output.len();
            self.report_user_end(user.id, connection.peer, end, user.output.len());
            user.output.clear(&mut self.pool);
            if user.due {
                self.rotation.forget(key);
            }
        } else {
            log::debug!(peer:% = connection.peer, reason = end.name(); "connection closed before its login");
        }
        self.slow.retain(|&slow| slow != key);
        if connection.queued {
            // Somebody else may get the key, and is not to be read instead.
            self.readable_users.retain(|&queued| queued != key);
        }
        self.read_off(&mut connection.socket);
        drop(connection);
        self.descriptor_freed();
        self.control_congestion();
    }

    /// Closing a socket with unread bytes resets the connection, and what has been written but not yet
    /// received is lost to the other side.
    pub(super) fn read_off(&mut self, socket: &mut N::Socket) {
        for _ in 0..READS_PER_USER {
            if !matches!(socket.read(&mut self.trash), Ok(1..)) {
                return;
            }
        }
    }
}

impl User {
    /// Writes what waits and then `bytes`, until the socket takes no more; the rest waits.
    fn write(&mut self, socket: &mut impl Write, bytes: &[u8], pool: &mut Pool) -> io::Result<()> {
        let mut outcome = self.drain(socket, pool).map(|()| 0);
        if outcome.is_ok() && self.output.is_empty() {
            outcome = write_once(socket, bytes);
        }
        self.output.push(&bytes[*outcome.as_ref().unwrap_or(&0)..], pool);
        outcome.map(|_| ())
    }

    /// Writes what waits, until the socket takes no more.
    fn drain(&mut self, socket: &mut impl Write, pool: &mut Pool) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.output.write_to(socket, pool) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if would_block(&error) => break,
                Err(error) if is_interrupted(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Has it told when the socket takes more, for as long as something waits that it has not taken.
    fn watch<N: Net>(&mut self, socket: &mut N::Socket, key: usize, net: &mut N) -> io::Result<()> {
        let blocked = !self.output.is_empty();
        if blocked == self.blocked {
            return Ok(());
        }
        self.blocked = blocked;
        net.want_write(socket, key, blocked)
    }
}

/// Writes what the socket takes in one call; nothing if it would block.
fn write_once(socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Err(error) if is_interrupted(&error) => {}
            Err(error) if would_block(&error) => return Ok(0),
            outcome => return outcome,
        }
    }
}

/// What a failed read or write says about how a user went.
fn end_of(error: &io::Error) -> UserEnd {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => UserEnd::Left,
        _ => UserEnd::Error,
    }
}
