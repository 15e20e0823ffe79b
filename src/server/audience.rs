//! Logins and departures: the one way in which the audience of the engine changes.
//!
//! A login that names a place is answered when it is acted upon: between two turns of the engine, with everything delivered.
//! So the cursor is the place at which a user begins that is up to date. One that is behind is served from the journal first
//! ([`catch_up`](super::catch_up)). One that is ahead is live at once; what is below its place is left out.

use super::{
    catch_up::Behind,
    congestion::Pace,
    context::Context,
    key::UserKey,
    login::Arrival,
    marks::Resume,
    net::Net,
    output::Output,
    user::{Connection, Role, Stage, User},
    users::{Change, Users},
};
use crate::{
    counters::DisconnectReason,
    epoch::Epoch,
    journal::Log,
    resume::{Answer, Start, end_line, place_line},
    sequence::Cursor,
    user_id::UserId,
};
use std::io::{Read, Write};

impl<S: Read + Write> Users<S> {
    /// Those who have logged in come, and those who leave go, in the order in which it was noted. The engine must have
    /// delivered everything: what was released before is not for those who come, and is for those who go.
    pub(super) fn come_and_go<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) {
        if context.epoch.is_some() && self.marks.has_held() {
            for (key, arrival) in self.marks.take_held() {
                self.arrive(key, arrival, context);
            }
        }
        let mut changes = std::mem::take(&mut self.changes);
        let mut coming = changes.drain(..).peekable();
        while let Some(change) = coming.next() {
            match change {
                Change::LogsIn { key, arrival: Arrival { id, start: Start::Plain, .. } } if matches!(coming.peek(), Some(Change::Leaves { key: gone, .. }) if *gone == key) =>
                {
                    // It has logged in and hung up before it could be served: for a moment it has been the user of that id. It
                    // does not join the audiences, which may be many, to leave them at once.
                    self.take_over(id, context);
                }
                Change::Leaves { key, reason } => {
                    self.end(key, reason, context);
                }
                Change::LogsIn { key, arrival } => self.arrive(key, arrival, context),
            }
        }
        drop(coming);
        // Who could not be answered leaves.
        changes.append(&mut self.changes);
        self.changes = changes;
    }

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
        (epoch, next): (Epoch, Cursor),
        context: &mut Context<'_, N>,
    ) {
        self.counters.resumed_ok += 1;
        self.take_over(arrival.id, context);
        let cursor = context.engine.cursor();
        let resume = Resume {
            epoch,
            terminator: arrival.terminator,
            floor: if next > cursor { next } else { Cursor::START },
            told: next,
            sent_at: context.now,
            serial: self.marks.begin(key, context.now),
        };
        let behind = (next < cursor).then(|| Behind::new(next, context.now));
        if behind.is_some() {
            context.reports.served_from_the_journal(arrival.id, next, cursor.since(next), context.now);
        }
        self.log_in(key, arrival.id, (Some(Box::new(resume)), behind), context);
        self.say(key, &place_line(epoch, next, arrival.terminator), context);
    }

    /// A refused login takes over nothing.
    fn refuse<N: Net<Socket = S>>(
        &mut self,
        key: UserKey,
        arrival: Arrival,
        (epoch, place): (Epoch, Cursor),
        reason: DisconnectReason,
        context: &mut Context<'_, N>,
    ) {
        let counters = &mut self.counters;
        *(if reason == DisconnectReason::Gone {
            &mut counters.resumed_gone
        } else {
            &mut counters.resumed_epoch
        }) += 1;
        self.write_past_the_buffer(key, &end_line(epoch, place, reason.name(), arrival.terminator));
        self.end(key, reason, context);
    }

    fn take_over<N: Net<Socket = S>>(&mut self, id: UserId, context: &mut Context<'_, N>) {
        let older = match context.engine.slot(id) {
            Some(slot) => Some(self.slot_keys[slot.index()]),
            None => context.catch_up.key_of(id),
        };
        if let Some(older) = older {
            self.end(older, DisconnectReason::Replaced, context);
        }
    }

    /// Lets a user in: live, or `behind`.
    pub(super) fn log_in<N: Net<Socket = S>>(
        &mut self,
        key: UserKey,
        id: UserId,
        (resume, behind): (Option<Box<Resume>>, Option<Behind>),
        context: &mut Context<'_, N>,
    ) {
        let stage = match behind {
            None => Stage::Live(self.connect(key, id, context.engine)),
            Some(mut behind) => {
                let distance = context.engine.cursor().since(behind.place());
                let kept = context.log.as_deref().map_or(0, Log::bytes);
                context.catch_up.enter((key, id), &mut behind, distance, kept, context.now);
                Stage::Behind(behind)
            }
        };
        let Some(connection) = self.entries.get_mut(key.index()) else { return };
        if matches!(stage, Stage::Behind(_)) {
            context.net.hold_little_unsent(&mut connection.socket, true);
        }
        log::debug!(user = id.get(), peer:% = connection.peer; "user logged in");
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
        self.finish_line(key);
        self.say_last_words(key, reason, context);
        let Some(connection) = self.entries.get_mut(key.index()) else {
            return;
        };
        connection.ended = true;
        self.tokens.forget(key, connection.token_until);
        connection.lingers = !matches!(reason, DisconnectReason::Left | DisconnectReason::Error);
        self.connected -= 1;
        self.ended.push(key);
        self.counters.disconnected[reason as usize] += 1;
        let Role::User(user) = &mut connection.role else {
            if let Role::Login(login) = &connection.role {
                let shown = self.tokens.without_token(&login.line);
                context.reports.login_ended(&login.line, shown, connection.peer, reason, context.now);
            }
            return self.marks.forget(key);
        };
        match &mut user.stage {
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

    fn is_blocked(&self, key: UserKey) -> bool {
        let role = self.entries.get(key.index()).map(|connection| &connection.role);
        matches!(role, Some(Role::User(user)) if user.blocked)
    }

    /// A user's login cannot be answered yet.
    pub(super) fn hold_login(&mut self, key: UserKey) {
        if let Some(Connection { role: Role::Login(login), .. }) = self.entries.get_mut(key.index()) {
            login.held = true;
            let deadline = login.deadline;
            let place = self.logins.partition_point(|&(at, _)| at < deadline);
            self.logins.insert(place, (deadline, key));
        }
    }
}
