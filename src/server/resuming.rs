//! The lines that users that resume are sent beside events: their places, and last words (`docs/SPEC.md` section 10).

use super::{
    context::Context,
    key::UserKey,
    net::Net,
    user::{Role, Stage, User},
    users::Users,
};
use crate::{
    counters::DisconnectReason,
    epoch::Epoch,
    resume::{Line, end_line, place_line},
    sequence::Cursor,
    time::{MILLISECOND, Micros},
};
use std::{
    cmp::Reverse,
    io::{Read, Write},
};

/// A mark that would go behind bytes that wait is tried again after this, or later.
const RETRY: Micros = 1000 * MILLISECOND;
/// Users that are told their places in a turn: some milliseconds of work. The others are told in the next turns.
const MARKS_PER_TURN: usize = 256;

impl<S: Read + Write> Users<S> {
    /// Sends a user a line, behind everything that waits for it.
    pub(super) fn say<N: Net<Socket = S>>(
        &mut self,
        key: UserKey,
        line: &Line,
        context: &mut Context<'_, N>,
    ) {
        let Some(connection) = self.entries.get_mut(key.index()) else { return };
        let Role::User(user) = &mut connection.role else { return };
        let waiting = user.output.len();
        user.output.push(line, &mut self.pool);
        self.backlog.note(waiting, user.output.len());
        self.flush(key, context);
    }

    /// Sends those their places who have been sent nothing for long. Everything below `durable` is durable.
    pub(super) fn send_marks<N: Net<Socket = S>>(&mut self, durable: Cursor, context: &mut Context<'_, N>) {
        let (now, mut tried) = (context.now, 0);
        while tried < MARKS_PER_TURN
            && self.marks.deadline().is_some_and(|at| at <= now)
            && let Some(Reverse((_, serial, key))) = self.marks.due.pop()
        {
            let every = self.marks.every;
            tried += 1;
            let Some(user) = self.user_mut(key) else { continue };
            let place = user.place(context);
            let is_flushed = user.output.is_empty();
            let took_at = if let Stage::Behind(behind) = &user.stage { behind.took_at() } else { 0 };
            let Some(resume) = user.resume.as_deref_mut().filter(|resume| resume.serial == serial) else {
                continue;
            };
            let mut at = resume.sent_at.max(took_at) + every;
            if at <= now && is_flushed {
                resume.told = resume.told.max(place.min(durable));
                resume.sent_at = now;
                at = now + every;
                let line = place_line(resume.epoch, resume.told, resume.terminator);
                self.say(key, &line, context);
            } else if at <= now {
                at = now + RETRY.min(every);
            }
            self.marks.due.push(Reverse((at, serial, key)));
        }
    }

    /// Says why the server ends a connection, if nothing waits in front of that and the socket takes it.
    pub(super) fn say_last_words<N: Net<Socket = S>>(
        &mut self,
        key: UserKey,
        reason: DisconnectReason,
        context: &mut Context<'_, N>,
    ) {
        if matches!(reason, DisconnectReason::Left | DisconnectReason::Error) {
            return;
        }
        let Some(user) = self.user_mut(key) else { return };
        let place = user.place(context);
        let Some(resume) = user.resume.as_deref().filter(|_| user.output.is_empty()) else { return };
        let line = end_line(resume.epoch, place.max(resume.told), reason.name(), resume.terminator);
        self.write_past_the_buffer(key, &line);
    }

    pub(super) fn write_past_the_buffer(&mut self, key: UserKey, line: &Line) {
        if let Some(connection) = self.entries.get_mut(key.index()) {
            // If it fails, the user is gone anyway.
            let written = connection.socket.write(line).unwrap_or(0);
            self.counters.delivered_bytes += written as u64;
        }
    }

    /// A new run begins: who resumes is told of its epoch. Everything of the old one has been delivered.
    pub(super) fn begin_run<N: Net<Socket = S>>(&mut self, epoch: Epoch, context: &mut Context<'_, N>) {
        let next = context.engine.cursor();
        for index in 0..self.entries.capacity() {
            let key = UserKey::new(index);
            let Some(resume) = self.user_mut(key).and_then(|user| user.resume.as_deref_mut()) else {
                continue;
            };
            (resume.epoch, resume.told, resume.floor, resume.sent_at) =
                (epoch, next, Cursor::START, context.now);
            let line = place_line(epoch, next, resume.terminator);
            self.say(key, &line, context);
        }
    }
}

impl User {
    /// It has been handed everything below this number that concerns it.
    pub(super) fn place<N>(&self, context: &Context<'_, N>) -> Cursor {
        let floor = self.resume.as_deref().map_or(Cursor::START, |resume| resume.floor);
        match &self.stage {
            Stage::Live(_) => context.engine.cursor().max(floor),
            Stage::Behind(behind) => context.catch_up.place_of(behind),
        }
    }
}
