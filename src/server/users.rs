//! Users: accepting them, logins, what they send, what they are sent, and the one way in which they go.

use super::{
    Net, Server,
    connection::{Connection, Login, Role, Source, User},
    is_interrupted,
    net::Port,
    output::Output,
    would_block,
};
use crate::{
    counters::UserEnd,
    engine::event::parse_number,
    time::{MILLISECOND, SECOND},
};
use std::io::{ErrorKind, Read, Write};

/// Longest login line, terminator included (SPEC section 1.2).
const LOGIN_BYTES_MAX: usize = 64;
/// What is read of one user before it is another one's turn.
const READS_PER_USER: usize = 16;
/// Connections accepted before something else gets a turn: no backlog is longer.
const ACCEPTS_PER_TURN: usize = 8192;
/// Where accepting has failed for want of descriptors, it is tried again after this.
const ACCEPT_RETRY: u64 = SECOND;

impl<N: Net> Server<N> {
    /// Everything that users want: connections, logins, hang-ups.
    pub(super) fn serve_users(&mut self) {
        self.accept(Port::User);
        for _ in 0..self.readable_users.len() {
            if let Some(key) = self.readable_users.pop_front() {
                self.read_user(key);
            }
        }
        self.close_failed();
    }

    pub(super) fn can_accept(&self) -> bool {
        self.listeners
            .iter()
            .any(|listener| listener.ready && listener.retry_at.is_none_or(|at| at <= self.now))
    }

    /// Accepts what is waiting on a listener.
    pub(super) fn accept(&mut self, port: Port) {
        let now = self.now;
        let listener = self.listener(port);
        if !listener.ready || listener.retry_at.is_some_and(|at| at > now) {
            return;
        }
        listener.retry_at = None;
        for _ in 0..ACCEPTS_PER_TURN {
            match self.net.accept(port) {
                Ok((socket, peer)) => self.admit(port, socket, peer),
                Err(error) if would_block(&error) => {
                    self.listener(port).ready = false;
                    return;
                }
                Err(error) if is_exhausted(&error) => {
                    self.listener(port).retry_at = Some(now + ACCEPT_RETRY);
                    self.warn_accept(&error);
                    return;
                }
                // The connection failed before it was accepted: that is its own affair.
                Err(_) => {}
            }
        }
    }

    /// A new connection: takes it in, or closes it if it is one too many.
    fn admit(&mut self, port: Port, socket: N::Socket, peer: std::net::SocketAddr) {
        let (clients, max) = match port {
            Port::Source => (self.live_sources(), self.config.max_event_source_clients),
            _ => (self.user_clients, self.config.max_user_clients),
        };
        if clients >= max as usize {
            self.reject_connection(port, peer);
            return;
        }
        let role = match port {
            Port::Source => Role::Source(Source { late_so_far: true, ..Source::default() }),
            _ => Role::Login(Login {
                line: Vec::new(),
                deadline: self.now + self.config.login_timeout_ms * MILLISECOND,
            }),
        };
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        let mut connection = Connection { socket, peer, readable: true, queued: true, role };
        if let Err(error) = self.net.register(&mut connection.socket, key) {
            log::warn!(peer:%, error:%; "connection dropped: it cannot be watched");
            return;
        }
        entry.insert(connection);
        if port == Port::Source {
            self.source_clients += 1;
            self.readable_sources.push_back(key);
            log::debug!(peer:%; "event source connected");
        } else {
            self.user_clients += 1;
            self.logins.push_back((self.now + self.config.login_timeout_ms * MILLISECOND, key));
            // Its login may be there already, and must be served before any event that came after it.
            self.read_user(key);
        }
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
            connection.role =
                Role::User(User { id, slot, output: Output::default(), slow_since: None, behind: false });
        }
    }

    /// One write per user for everything that the engine owes it. What a socket does not take goes into
    /// the user's output buffer.
    pub(super) fn deliver(&mut self) {
        if self.engine.is_delivered() {
            return;
        }
        let Self {
            engine, connections, slot_keys, net, pool, failed, config, output_bytes, slow, now, ..
        } = self;
        let mut delivered = 0;
        engine.deliver(|slot, bytes| {
            let key = slot_keys[slot as usize];
            let Some(Connection { socket, role: Role::User(user), .. }) = connections.get_mut(key) else {
                return;
            };
            let mut rest = bytes;
            if user.output.is_empty() {
                match write_once(socket, bytes) {
                    Ok(written) => {
                        delivered += written as u64;
                        rest = &bytes[written..];
                    }
                    Err(error) => {
                        failed.push((key, end_of(&error)));
                        return;
                    }
                }
                if rest.is_empty() {
                    return;
                }
                if let Err(error) = net.want_write(socket, key, true) {
                    failed.push((key, end_of(&error)));
                    return;
                }
            }
            user.output.push(rest, pool);
            *output_bytes += rest.len();
            if user.output.len() > config.user_buffer_bytes && !user.behind {
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

    /// A user's socket takes bytes again.
    pub(super) fn flush_user(&mut self, key: usize) {
        let Some(Connection { socket, role: Role::User(user), .. }) = self.connections.get_mut(key) else {
            return self.queue_asker(key);
        };
        if user.output.is_empty() {
            return;
        }
        let mut written = 0;
        let outcome = loop {
            match user.output.write_to(socket, &mut self.pool) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(len) => {
                    written += len;
                    if user.output.is_empty() {
                        break self.net.want_write(socket, key, false);
                    }
                }
                Err(error) if would_block(&error) => break Ok(()),
                Err(error) if is_interrupted(&error) => {}
                Err(error) => break Err(error),
            }
        };
        self.output_bytes -= written;
        self.engine.counters.delivered_bytes += written as u64;
        match outcome {
            Ok(()) => self.after_flush(key),
            Err(error) => self.fail(key, end_of(&error)),
        }
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
        } else {
            log::debug!(peer:% = connection.peer, reason = end.name(); "connection closed before its login");
        }
        self.slow.retain(|&slow| slow != key);
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

    /// A descriptor is free again: accepting may work.
    pub(super) fn descriptor_freed(&mut self) {
        for listener in &mut self.listeners {
            listener.retry_at = None;
        }
    }
}

/// Writes what the socket takes in one call; nothing if it would block.
fn write_once(socket: &mut impl Write, bytes: &[u8]) -> std::io::Result<usize> {
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
fn end_of(error: &std::io::Error) -> UserEnd {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => UserEnd::Left,
        _ => UserEnd::Error,
    }
}

/// Out of descriptors or memory, for this process or the whole system.
fn is_exhausted(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
