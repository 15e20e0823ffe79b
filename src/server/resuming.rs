//! Logins of users that resume, and the lines that they are sent beside events (`docs/SPEC.md` section 10).
//!
//! A login that names a place is answered when it is acted upon: between two turns of the engine, with everything delivered.
//! So the cursor is the place at which a user begins that is up to date. One that is behind is served from the journal first
//! ([`catch_up`](super::catch_up)). One that is ahead is live at once; what is below its place is left out.

use super::{
    Context, Server,
    catch_up::Behind,
    key::UserKey,
    net::Net,
    output::Pool,
    users::{Arrival, Role, Stage, User, Users},
};
use crate::{
    counters::DisconnectReason,
    engine::event::leading_number,
    epoch::Epoch,
    journal::Log,
    resume::{Answer, History, Line, Start, Terminator, end_line, place_line},
    stream::first_line_from,
    time::{MILLISECOND, Micros},
};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::{Read, Write},
};

/// A mark that would go behind bytes that wait is tried again after this, or later.
const RETRY: Micros = 1000 * MILLISECOND;

/// What a user that resumes has been told, and what it is not to be sent.
#[derive(Debug)]
pub(super) struct Resume {
    epoch: Epoch,
    terminator: Terminator,
    /// Events below this number are not for it. 0: all are.
    floor: u128,
    /// The place that it was told last.
    told: u128,
    /// When it was sent something last.
    sent_at: Micros,
    /// Tells it from others that have had its key.
    serial: u64,
}

impl Resume {
    /// It is handed bytes; returns those that are for it.
    pub(super) fn receive<'a>(&mut self, bytes: &'a [u8], now: Micros) -> &'a [u8] {
        self.sent_at = now;
        if self.floor == 0 {
            return bytes;
        }
        let rest = &bytes[first_line_from(bytes, self.floor)..];
        if !rest.is_empty() {
            self.floor = 0;
        }
        rest
    }
}

/// When users that resume are told their places.
#[derive(Debug)]
pub(super) struct Marks {
    every: Micros,
    /// When somebody may be due, and who: its serial number and its key.
    due: BinaryHeap<Reverse<(Micros, u64, UserKey)>>,
    serial: u64,
    /// Logins that wait for an epoch.
    held: Vec<(UserKey, Arrival)>,
}

impl Marks {
    pub(super) fn new(every_ms: u64) -> Self {
        Self { every: every_ms * MILLISECOND, due: BinaryHeap::new(), serial: 0, held: Vec::new() }
    }

    /// When somebody may be due.
    pub(super) fn deadline(&self) -> Option<Micros> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// A connection has ended before its login was answered.
    pub(super) fn forget(&mut self, key: UserKey) {
        self.held.retain(|&(held, _)| held != key);
    }

    /// Logins that have waited for an epoch, now that there is one.
    pub(super) fn take_held(&mut self) -> Vec<(UserKey, Arrival)> {
        std::mem::take(&mut self.held)
    }

    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    fn begin(&mut self, key: UserKey, now: Micros) -> u64 {
        self.serial += 1;
        if self.every > 0 {
            self.due.push(Reverse((now + self.every, self.serial, key)));
        }
        self.serial
    }
}

impl<N: Net> Server<N> {
    /// Tells users that resume their places, where it is time.
    pub(super) fn send_marks(&mut self) {
        if self.users.marks.deadline().is_some_and(|at| at <= self.now) && !self.is_barred() {
            let durable = self.acknowledgeable();
            let (users, mut context) = self.users();
            users.send_marks(durable, &mut context);
        }
    }

    /// A new run has begun, with an epoch of its own.
    pub(super) fn begin_epoch(&mut self) {
        self.epoch = Epoch::new(self.net.random());
        let epoch = self.epoch;
        let (users, mut context) = self.users();
        users.begin_run(epoch, &mut context);
    }
}

impl<N: Net> Context<'_, N> {
    /// What this server knows of its past, if it has an epoch.
    fn answer(&self, start: Start, epoch: Epoch) -> Answer {
        let cursor = self.engine.cursor();
        let log = self.log.as_deref();
        let first_kept = log.map_or(cursor, Log::first);
        // It counts for an empty journal only.
        let first_sequence = u64::try_from(first_kept).unwrap_or(u64::MAX).min(self.first_sequence);
        let history = History { first_kept, cursor, first_sequence };
        history.answer(start, |other, next| log.map_or(other == epoch, |log| log.shares(other, next)))
    }
}

impl<S: Read + Write> Users<S> {
    /// Answers a login, and lets the user in unless it is refused.
    pub(super) fn arrive<N: Net<Socket = S>>(
        &mut self,
        key: UserKey,
        arrival: Arrival,
        context: &mut Context<'_, N>,
    ) {
        if !self.is_open(key) {
            return;
        }
        if arrival.start == Start::Plain {
            self.take_over(arrival.id, context);
            return self.log_in(key, arrival.id, (None, None), context);
        }
        let Some(epoch) = context.epoch else {
            self.hold_login(key);
            return self.marks.held.push((key, arrival));
        };
        match context.answer(arrival.start, epoch) {
            Answer::Silent => {}
            Answer::Resumed(next) => self.resume(key, arrival, (epoch, next), context),
            Answer::Gone(first) => self.refuse(key, arrival, (epoch, first), DisconnectReason::Gone, context),
            Answer::OtherEpoch(cursor) => {
                self.refuse(key, arrival, (epoch, cursor), DisconnectReason::Epoch, context);
            }
        }
    }

    fn resume<N: Net<Socket = S>>(
        &mut self,
        key: UserKey,
        arrival: Arrival,
        (epoch, next): (Epoch, u128),
        context: &mut Context<'_, N>,
    ) {
        context.engine.counters.resumed_ok += 1;
        self.take_over(arrival.id, context);
        let cursor = context.engine.cursor();
        let resume = Resume {
            epoch,
            terminator: arrival.terminator,
            floor: if next > cursor { next } else { 0 },
            told: next,
            sent_at: context.now,
            serial: self.marks.begin(key, context.now),
        };
        let behind = (next < cursor).then(|| Behind::new(next, context.now));
        self.log_in(key, arrival.id, (Some(Box::new(resume)), behind), context);
        self.say(key, &place_line(epoch, next, arrival.terminator), context);
    }

    /// A refused login takes over nothing.
    fn refuse<N: Net<Socket = S>>(
        &mut self,
        key: UserKey,
        arrival: Arrival,
        (epoch, place): (Epoch, u128),
        reason: DisconnectReason,
        context: &mut Context<'_, N>,
    ) {
        let counters = &mut context.engine.counters;
        *(if reason == DisconnectReason::Gone {
            &mut counters.resumed_gone
        } else {
            &mut counters.resumed_epoch
        }) += 1;
        self.write_past_the_buffer(key, &end_line(epoch, place, reason.name(), arrival.terminator), context);
        self.end(key, reason, context);
    }

    fn take_over<N: Net<Socket = S>>(&mut self, id: u64, context: &mut Context<'_, N>) {
        let older = match context.engine.slot(id) {
            Some(slot) => Some(self.slot_keys[slot as usize]),
            None => context.catch_up.key_of(id),
        };
        if let Some(older) = older {
            self.end(older, DisconnectReason::Replaced, context);
        }
    }

    /// Sends a user a line, behind everything that waits for it.
    fn say<N: Net<Socket = S>>(&mut self, key: UserKey, line: &Line, context: &mut Context<'_, N>) {
        let Some(connection) = self.entries.get_mut(key.index()) else { return };
        let Role::User(user) = &mut connection.role else { return };
        let waiting = user.output.len();
        user.output.push(line, &mut self.pool);
        self.backlog.note(waiting, user.output.len());
        self.flush(key, context);
    }

    /// Sends those their places who have been sent nothing for long. Everything below `durable` is durable.
    pub(super) fn send_marks<N: Net<Socket = S>>(&mut self, durable: u128, context: &mut Context<'_, N>) {
        let now = context.now;
        while self.marks.deadline().is_some_and(|at| at <= now)
            && let Some(Reverse((_, serial, key))) = self.marks.due.pop()
        {
            let every = self.marks.every;
            let Some(user) = self.user_mut(key) else { continue };
            let place = user.place(context);
            let is_flushed = user.output.is_empty();
            let Some(resume) = user.resume.as_deref_mut().filter(|resume| resume.serial == serial) else {
                continue;
            };
            let mut at = resume.sent_at + every;
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
        self.write_past_the_buffer(key, &line, context);
    }

    fn write_past_the_buffer<N: Net<Socket = S>>(
        &mut self,
        key: UserKey,
        line: &Line,
        context: &mut Context<'_, N>,
    ) {
        if let Some(connection) = self.entries.get_mut(key.index()) {
            // If it fails, the user is gone anyway.
            let written = connection.socket.write(line).unwrap_or(0);
            context.engine.counters.delivered_bytes += written as u64;
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
            (resume.epoch, resume.told, resume.floor, resume.sent_at) = (epoch, next, 0, context.now);
            let line = place_line(epoch, next, resume.terminator);
            self.say(key, &line, context);
        }
    }
}

impl User {
    /// It has been handed everything below this number that concerns it.
    pub(super) fn place<N>(&self, context: &Context<'_, N>) -> u128 {
        let floor = self.resume.as_deref().map_or(0, |resume| resume.floor);
        match &self.stage {
            Stage::Live(_) => context.engine.cursor().max(floor),
            Stage::Behind(behind) => context.catch_up.place_of(behind),
        }
    }

    /// Takes back what its output buffer has too much of: whole lines at the end of `bytes`, which it was handed last. Returns the
    /// number of the first of them, and how many they are.
    pub(super) fn take_back(&mut self, bytes: &[u8], limit: usize, pool: &mut Pool) -> Option<(u128, u64)> {
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
        Some((number.into(), lines_of(rest)))
    }
}

/// Lines of these bytes.
pub(super) fn lines_of(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
