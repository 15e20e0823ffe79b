//! From the engine to the users' sockets or, where those take no more, to their output buffers.

use super::{
    catch_up::Behind,
    congestion::Grown,
    context::Context,
    key::UserKey,
    net::Net,
    output::Pool,
    rotation::WRITES_PER_READ,
    socket::{is_interrupted, reason_of, would_block},
    user::{Connection, Role, Stage, User},
    users::Users,
};
use crate::{counters::DisconnectReason, engine::event::leading_number, sequence::Cursor};
use std::io::{self, ErrorKind, Read, Write};

impl<S: Read + Write> Users<S> {
    /// Hands the bytes of this turn's events to every user. They are written at once, as far as the socket takes them, or put
    /// off. The rest goes into the user's output buffer.
    pub(super) fn deliver<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) {
        let Context { engine, net, congestion, now, .. } = context;
        if engine.is_delivered() {
            return;
        }
        let Self { entries, slot_keys, pool, rotation, backlog, .. } = self;
        let mut failed: Vec<(UserKey, DisconnectReason)> = Vec::new();
        let mut fallen: Vec<(UserKey, Cursor)> = Vec::new();
        let (mut delivered, mut withheld) = (0, 0);
        let (cursor, limit) = (engine.cursor(), congestion.limit());
        engine.deliver(|slot, bytes| {
            let key = slot_keys[slot.index()];
            let Some(Connection { socket, role: Role::User(user), .. }) = entries.get_mut(key.index()) else {
                return;
            };
            let bytes = match &mut user.resume {
                None => bytes,
                Some(resume) => {
                    let rest = resume.receive(bytes, *now);
                    withheld += lines_of(&bytes[..bytes.len() - rest.len()]);
                    if rest.is_empty() {
                        return;
                    }
                    rest
                }
            };
            let waiting = user.output.len();
            let mut outcome = Ok(());
            if user.blocked {
                user.output.push(bytes, pool);
            } else if !rotation.put_off(key, user, bytes, pool) {
                outcome = user.write(socket, bytes, pool).and_then(|()| user.watch::<N>(socket, key, net));
                delivered += (waiting + bytes.len() - user.output.len()) as u64;
            }
            let grown = congestion.grew(key, &mut user.pace, user.output.len(), *now);
            if let (Ok(()), Grown::FallsBehind) = (&outcome, &grown) {
                let taken_back = user.take_back(bytes, limit, pool);
                withheld += taken_back.map_or(0, |(_, lines)| lines);
                fallen.push((key, taken_back.map_or(cursor, |(next, _)| next)));
            }
            backlog.note(waiting, user.output.len());
            match (outcome, grown) {
                (Err(error), _) => failed.push((key, reason_of(&error))),
                (Ok(()), Grown::IsCutOff) => failed.push((key, DisconnectReason::Slow)),
                (Ok(()), Grown::Stays | Grown::FallsBehind) => {}
            }
        });
        self.counters.delivered_bytes += delivered;
        self.counters.withheld += withheld;
        for (key, reason) in failed {
            self.leaves(key, reason);
        }
        for (key, next) in fallen {
            self.fall_behind(key, next, context);
        }
    }

    /// A user's output buffer is full, under `slowUserPolicy=journal`: from `next` on it is served from the journal. To be called
    /// before anything else happens to the user: until then it is taken for one that has everything below the cursor.
    fn fall_behind<N: Net<Socket = S>>(&mut self, key: UserKey, next: Cursor, context: &mut Context<'_, N>) {
        let Some(user) = self.user_mut(key) else { return };
        let Stage::Live(slot) = user.stage else { return };
        context.engine.disconnect(user.id, slot);
        let mut behind = Behind::new(next, context.now);
        context.catch_up.fall_behind(key, user.id, &mut behind, context.now);
        user.stage = Stage::Behind(behind);
        let id = user.id;
        if let Some(connection) = self.entries.get_mut(key.index()) {
            context.net.hold_little_unsent(&mut connection.socket, true);
        }
        let distance = context.engine.cursor().since(next);
        context.reports.served_from_the_journal(id, next, distance, context.now);
        // Its socket may have taken everything meanwhile.
        self.note_taken(key, context);
    }

    /// Writes to those whose sockets take bytes again. For those who are served from the journal that is a part of catching up, which has
    /// its share of the time: hundreds of sockets that take much at once must not hold up events.
    pub(super) fn flush_writable<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) {
        let mut writable = std::mem::take(&mut self.writable);
        for key in writable.drain(..) {
            let Some(connection) = self.entries.get_mut(key.index()) else { continue };
            if let Role::User(User { stage: Stage::Behind(_), .. }) = &connection.role {
                context.catch_up.will_write(key);
            } else {
                connection.writable = false;
                self.flush(key, context);
            }
        }
        self.writable = writable;
    }

    /// Writes to the users that have been due for longest. `reads` is the number of reads of sources before.
    pub(super) fn write_due<N: Net<Socket = S>>(&mut self, reads: usize, context: &mut Context<'_, N>) {
        let mut writes_left = WRITES_PER_READ * reads.max(1);
        while writes_left > 0
            && let Some(key) = self.rotation.next()
        {
            let Some(Connection { role: Role::User(user), .. }) = self.entries.get_mut(key.index()) else {
                continue;
            };
            user.due = false;
            // A large piece may have been written meanwhile, behind everything that was put off.
            if !user.blocked && !user.output.is_empty() {
                writes_left -= 1;
                self.flush(key, context);
            }
        }
    }

    /// Writes a user's output buffer.
    pub(super) fn flush<N: Net<Socket = S>>(&mut self, key: UserKey, context: &mut Context<'_, N>) {
        let before = self.backlog.bytes;
        match self.write_waiting(key, context) {
            Ok(()) => {
                if let Some(Connection { role: Role::User(user), .. }) = self.entries.get_mut(key.index()) {
                    context.congestion.shrank(key, &mut user.pace, user.output.len(), context.now);
                }
                if self.backlog.bytes < before {
                    self.note_taken(key, context);
                }
            }
            Err(error) => self.leaves(key, reason_of(&error)),
        }
    }

    /// A user's socket has taken bytes. If its buffer is nearly empty, it goes on.
    pub(super) fn note_taken<N>(&mut self, key: UserKey, context: &mut Context<'_, N>) {
        let Some(user) = self.user_mut(key) else { return };
        if let Stage::Behind(behind) = &mut user.stage {
            context.catch_up.took(key, behind, user.output.len(), context.now);
        }
    }

    /// Writes a user's output buffer, as far as its socket takes it.
    pub(super) fn write_waiting<N: Net<Socket = S>>(
        &mut self,
        key: UserKey,
        context: &mut Context<'_, N>,
    ) -> io::Result<()> {
        let Some(Connection { socket, role: Role::User(user), .. }) = self.entries.get_mut(key.index())
        else {
            return Ok(());
        };
        let waiting = user.output.len();
        let outcome = user.drain(socket, &mut self.pool).and_then(|()| user.watch(socket, key, context.net));
        let written = waiting - user.output.len();
        self.backlog.note(waiting, user.output.len());
        self.counters.delivered_bytes += written as u64;
        outcome
    }
}

/// A stream that is cut off ends with a line, where the socket allows it.
impl<S: Read + Write> Users<S> {
    /// Writes the rest of a line that is partly written.
    pub(super) fn finish_line(&mut self, key: UserKey) {
        let Some(Connection { socket, role: Role::User(user), .. }) = self.entries.get_mut(key.index())
        else {
            return;
        };
        if !user.output.is_empty() && user.output.is_inside_a_line() {
            // If it fails, the user is gone anyway.
            let waiting = user.output.len();
            let written = user.output.write_line_to(socket, &mut self.pool).unwrap_or(0);
            self.backlog.note(waiting, user.output.len());
            self.counters.delivered_bytes += written as u64;
        }
    }
}

impl User {
    /// Takes back what its output buffer has too much of: whole lines at the end of `bytes`, which it was handed last. Returns the
    /// number of the first of them, and how many they are.
    pub(super) fn take_back(&mut self, bytes: &[u8], limit: usize, pool: &mut Pool) -> Option<(Cursor, u64)> {
        let waiting = self.output.len().min(bytes.len());
        let (sent, part) = bytes.split_at(bytes.len() - waiting);
        let most = waiting.saturating_sub(self.output.len().saturating_sub(limit));
        let begins_a_line = sent.last().is_none_or(|&byte| byte == b'\n');
        let mut kept = memchr::memrchr(b'\n', &part[..most]).map_or(0, |end| end + 1);
        if kept == 0 && (!begins_a_line || waiting == self.output.len()) {
            // A part of this line has been written, or it does not even fit an empty buffer.
            kept = memchr::memchr(b'\n', part).map_or(part.len(), |end| end + 1);
        }
        let rest = &part[kept..];
        let number = leading_number(rest)?;
        self.output.truncate(self.output.len() - rest.len(), pool);
        Some((Cursor::before(number), lines_of(rest)))
    }

    /// Writes the output buffer and then `bytes`, until the socket takes no more. The rest goes into the output buffer.
    fn write(&mut self, socket: &mut impl Write, bytes: &[u8], pool: &mut Pool) -> io::Result<()> {
        let mut outcome = self.drain(socket, pool).map(|()| 0);
        if outcome.is_ok() && self.output.is_empty() {
            outcome = write_once(socket, bytes);
            if let Ok(written @ 1..) = outcome {
                self.output.note_written(&bytes[..written]);
            }
        }
        self.output.push(&bytes[*outcome.as_ref().unwrap_or(&0)..], pool);
        outcome.map(|_| ())
    }

    /// Writes the output buffer, until the socket takes no more.
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

    /// Asks to be told when the socket takes more, while something waits.
    fn watch<N: Net>(&mut self, socket: &mut N::Socket, key: UserKey, net: &mut N) -> io::Result<()> {
        let blocked = !self.output.is_empty();
        if blocked == self.blocked {
            return Ok(());
        }
        self.blocked = blocked;
        net.want_write(socket, key.number(), blocked)
    }
}

/// Lines of these bytes.
pub(super) fn lines_of(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Writes as many bytes as the socket takes in one call. Writes none if it would block.
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
