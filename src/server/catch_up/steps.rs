//! The steps of a pass: who is picked up, handed events, parked, and live again.

use super::{
    COLLECTING, CONNECTS_AT_ONCE, CatchUp, DISK_PATIENCE, ESTIMATES_TOO_HIGH, HANDED_BYTES_PER_NS,
    HOLDING_MAX, NS_PER_BLOCK, NS_PER_CONNECT, NS_PER_DELIVERY, NS_PER_EDGE, NS_PER_PIECE, NS_PER_READ_BYTE,
    NS_PER_SCANNED_BYTE, NS_PER_USER, NS_PER_WRITE, NS_PER_WRITTEN_BYTE, PATIENCE, REST_MAX, WRITE_BYTES,
};
use crate::{
    counters::DisconnectReason,
    journal::{JournalError, Log, SnapshotInfo},
    sequence::Cursor,
    server::{
        context::Context,
        delivery::lines_of,
        key::UserKey,
        net::Net,
        pass::{Pass, Stepped},
        user::{Connection, Role, Stage},
        users::{ENDS_PER_TURN, Users},
    },
    time::Micros,
};
use std::{
    collections::BTreeSet,
    io::{Read, Write},
};

/// The result of a step of the pass.
enum Step {
    /// With its cost in estimated nanoseconds.
    Worked(u64, Work),
    /// Nothing more can be done in this turn. True: and nothing can be done in the next one unless something happens.
    Stop(bool),
}

/// The work of a step, of which there may be more or less at once.
enum Work {
    /// A piece of the journal was applied: so many bytes.
    Piece(u64),
    /// So many users were handed their events.
    Users(u64),
    Other,
}

/// Nothing begins with this snapshot any more.
fn distrust(snapshot: SnapshotInfo, error: &JournalError, log: &mut Log) {
    log::warn!(error:%; "a snapshot of the journal cannot be used: users are served from what is older");
    log.distrust(snapshot);
}

impl<S: Read + Write> Users<S> {
    /// Has users catch up for a part of the turn, and sees whether sources have to wait for that. To be called with everything delivered,
    /// if the journal has it. `is_live`: events flow.
    pub(in crate::server) fn catch_up<N: Net<Socket = S>>(
        &mut self,
        is_live: bool,
        context: &mut Context<'_, N>,
    ) {
        self.work(is_live, context);
        context.catch_up.note_hold(context.now);
    }

    fn work<N: Net<Socket = S>>(&mut self, is_live: bool, context: &mut Context<'_, N>) {
        let Some(log) = context.log.as_deref() else { return };
        let catch_up = &mut *context.catch_up;
        if catch_up.by_id.is_empty() && catch_up.queue.is_empty() && catch_up.pass.is_none() {
            return;
        }
        if is_live || catch_up.holds_sources {
            catch_up.live_at = context.now;
        }
        let mut budget = catch_up.budget(log.appended_bytes(), is_live, context.now);
        if catch_up.holds_back.is_some_and(|since| context.now - since >= HOLDING_MAX) {
            self.hold_nothing_back(context);
        }
        let mut time = context.net.clock();
        while budget > 0 {
            let (estimate, work) = if let Some(key) = context.catch_up.queue.pop_front() {
                (self.flush_one(key, context), Work::Other)
            } else {
                match self.step(context) {
                    Step::Worked(cost, work) => (cost, work),
                    Step::Stop(is_idle) => {
                        context.catch_up.is_idle = is_idle;
                        return;
                    }
                }
            };
            let now = context.net.clock();
            let took = now.saturating_sub(std::mem::replace(&mut time, now));
            let cost = (took * 1000).max(estimate / ESTIMATES_TOO_HIGH).max(1);
            match work {
                Work::Piece(bytes) => context.catch_up.measure_piece(bytes, cost),
                Work::Users(users) => context.catch_up.measure_users(users, cost),
                Work::Other => {}
            }
            context.catch_up.spend(cost);
            budget -= cost as i64;
        }
        context.catch_up.is_idle = false;
        context.catch_up.rest(is_live, context.now);
    }

    /// At the end of the server no pass goes on. The output buffers of users are written.
    pub(in crate::server) fn stop_catching_up<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) {
        context.catch_up.holds_sources = false;
        self.hold_nothing_back(context);
        while let Some(key) = context.catch_up.queue.pop_front() {
            self.flush_one(key, context);
        }
    }

    fn flush_one<N: Net<Socket = S>>(&mut self, key: UserKey, context: &mut Context<'_, N>) -> u64 {
        let takes_bytes = |connection: &mut Connection<S>| std::mem::take(&mut connection.writable);
        let is_writable = self.entries.get_mut(key.index()).is_some_and(takes_bytes);
        match self.user_mut(key) {
            Some(user) if (is_writable || !user.blocked) && !user.output.is_empty() => {
                let waiting = user.output.len();
                self.flush(key, context);
                let left = self.user_mut(key).map_or(0, |user| user.output.len());
                NS_PER_WRITE + (waiting - left) as u64 * NS_PER_WRITTEN_BYTE
            }
            _ => 1,
        }
    }

    /// Takes the next step of the pass, or begins one.
    fn step<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) -> Step {
        if context.catch_up.pass.is_none() {
            return self.begin_pass(context);
        }
        if context.catch_up.pass.as_ref().is_some_and(Pass::wants_to_hand_out) {
            return self.hand_out(context);
        }
        self.note_room(context);
        if context.catch_up.is_stopped(context.now) {
            return self.rest_of_the_turn(context).unwrap_or(Step::Stop(true));
        }
        let Context { catch_up, log, .. } = &mut *context;
        let (Some(log), Some(pass)) = (log.as_deref_mut(), &mut catch_up.pass) else {
            return Step::Stop(true);
        };
        if let Some(error) = pass.take_failure() {
            self.fail_pass(&error, context);
            return Step::Worked(NS_PER_PIECE, Work::Other);
        }
        if pass.is_in_a_block() {
            return self.pick_up(context).unwrap_or_else(|| self.apply_piece(context));
        }
        let ahead = catch_up.waiting.range((pass.takes_from(), UserKey::new(0))..).next();
        if catch_up.members == 0 && ahead.is_none() {
            self.end_pass(context);
            return Step::Worked(1, Work::Other);
        }
        let limit = log.servable_cursor();
        match pass.read(log, limit) {
            Ok(Stepped::Edges(edges)) => Step::Worked(NS_PER_PIECE + edges * NS_PER_EDGE, Work::Other),
            Ok(Stepped::Later | Stepped::End) if !pass.is_handed_out() => self.hand_out(context),
            Ok(Stepped::Later) => self.rest_of_the_turn(context).unwrap_or_else(|| {
                context.catch_up.rests_until = context.now + DISK_PATIENCE;
                Step::Stop(false)
            }),
            Ok(Stepped::Bytes(bytes)) => Step::Worked(NS_PER_BLOCK + bytes * NS_PER_READ_BYTE, Work::Other),
            Ok(Stepped::End) if context.is_at_the_cursor() => {
                self.hold_nothing_back(context);
                let joined = self.join(context);
                if joined < CONNECTS_AT_ONCE {
                    self.end_pass(context);
                }
                Step::Worked(1 + joined as u64 * NS_PER_CONNECT, Work::Other)
            }
            Ok(Stepped::End) => {
                context.catch_up.at_end_since.get_or_insert(context.now);
                self.rest_of_the_turn(context).unwrap_or(Step::Stop(true))
            }
            Err(error) => {
                if let Some(pass) = &mut context.catch_up.pass {
                    pass.fail(error);
                }
                Step::Worked(NS_PER_PIECE, Work::Other)
            }
        }
    }

    /// The pass cannot go on now. The output buffers of its users are written, even small ones. `None`: they are empty.
    fn rest_of_the_turn<N>(&mut self, context: &mut Context<'_, N>) -> Option<Step> {
        self.hold_nothing_back(context);
        (!context.catch_up.queue.is_empty()).then_some(Step::Worked(1, Work::Other))
    }

    /// Everybody in the pass is written to.
    fn hold_nothing_back<N>(&mut self, context: &mut Context<'_, N>) {
        let catch_up = &mut *context.catch_up;
        if catch_up.holds_back.take().is_some() {
            catch_up.queue.extend(catch_up.keys.iter().flatten());
        }
    }

    /// Begins a pass for those who wait, if it is time.
    fn begin_pass<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) -> Step {
        let Context { catch_up, log, now, .. } = &mut *context;
        let Some(log) = log.as_deref_mut() else { return Step::Stop(true) };
        if catch_up.begins_at() > *now {
            return Step::Stop(true);
        }
        while let Some(&(next, key)) = catch_up.waiting.first() {
            let start = log.start_for(next);
            let begun = start.map(|start| Pass::new(start, catch_up.waiting.len(), &catch_up.config, log));
            match begun {
                Some(Ok(pass)) => {
                    log::debug!(from = next, users = catch_up.waiting.len(); "a pass over the journal begins");
                    catch_up.pass = Some(pass);
                    (catch_up.began, catch_up.worked_ns, catch_up.waited, catch_up.owed) = (*now, 0, 0, 0);
                    return Step::Worked(NS_PER_WRITE, Work::Other);
                }
                Some(Err(error)) => {
                    if let Some(snapshot) = start.and_then(|start| start.snapshot) {
                        distrust(snapshot, &error, log);
                        continue;
                    }
                }
                None => {}
            }
            catch_up.waiting.pop_first();
            self.leaves(key, DisconnectReason::Slow);
        }
        Step::Stop(true)
    }

    fn end_pass<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) {
        let Context { catch_up, log, now, .. } = &mut *context;
        if let (Some(pass), Some(log)) = (catch_up.pass.take(), log.as_deref_mut()) {
            pass.close(log);
        }
        catch_up.keys.clear();
        catch_up.full.clear();
        (catch_up.members, catch_up.stopped_since, catch_up.owed) = (0, None, 0);
        (catch_up.holds_back, catch_up.uncounted, catch_up.at_end_since) = (None, 0, None);
        let advancing = (*now - catch_up.began).saturating_sub(catch_up.waited);
        let rest = if catch_up.is_stream_live(*now) { (3 * advancing).min(REST_MAX) } else { 0 };
        let collecting = if catch_up.newcomers > 0 { COLLECTING } else { 0 };
        (catch_up.collecting_since, catch_up.begin_at) = (*now, *now + collecting);
        catch_up.rest_until = *now + rest;
    }

    /// What the pass needs next cannot be read. If that is its snapshot, an older one does. Else whoever needs it is cut off.
    fn fail_pass<N: Net<Socket = S>>(&mut self, error: &JournalError, context: &mut Context<'_, N>) {
        let snapshot = context.catch_up.pass.as_ref().and_then(Pass::snapshot);
        if let (Some(snapshot), Some(log)) = (snapshot, context.log.as_deref_mut()) {
            distrust(snapshot, error, log);
            return self.end_pass(context);
        }
        log::warn!(error:%; "users cannot be served from the journal any more: they are cut off");
        self.cut_off_pass(context);
    }

    /// The next part of the journal is lost: for those in the pass, and for those whose passes would come through it.
    fn cut_off_pass<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) {
        let Context { catch_up, log, .. } = &mut *context;
        let handed_out = catch_up.pass.as_ref().map_or(Cursor::START, Pass::handed_out);
        let cursor = catch_up.pass.as_ref().map_or(Cursor::START, Pass::cursor);
        let members = catch_up.keys.iter().flatten().copied();
        let comes_through = |&&(next, _): &&(Cursor, UserKey)| {
            let start = log.as_deref().and_then(|log| log.start_for(next));
            start.is_none_or(|start| start.from <= cursor)
        };
        let others = catch_up.waiting.iter().filter(comes_through);
        let lost: BTreeSet<UserKey> = members.chain(others.map(|&(_, key)| key)).collect();
        for &key in &lost {
            if let Some(Stage::Behind(behind)) = self.user_mut(key).map(|user| &mut user.stage) {
                if behind.slot.take().is_some() {
                    behind.next = behind.next.max(handed_out);
                }
                context.catch_up.stop_waiting(behind);
            }
            self.leaves(key, DisconnectReason::Slow);
        }
        context.catch_up.waiting.retain(|(_, key)| !lost.contains(key));
        self.end_pass(context);
    }

    /// Forgets those of the full ones whose buffers have been emptied meanwhile, or who have left the pass.
    fn note_room<N>(&mut self, context: &mut Context<'_, N>) {
        let catch_up = &mut *context.catch_up;
        let now = context.now;
        catch_up.full_and_fast = 0;
        catch_up.full.retain(|&key| {
            let Some(user) = self.user_mut(key) else { return false };
            let Stage::Behind(behind) = &mut user.stage else { return false };
            behind.is_full &= behind.slot.is_some() && user.output.len() > behind.window / 4;
            let is_fast = now.saturating_sub(behind.took_at) < PATIENCE;
            catch_up.full_and_fast += usize::from(behind.is_full && is_fast);
            behind.is_full
        });
    }

    /// Takes those along whose places the rest of the block covers: some of them. `None`: there is nobody.
    fn pick_up<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) -> Option<Step> {
        let catch_up = &mut *context.catch_up;
        let (first_window, limit) = (catch_up.first_window(), catch_up.limit);
        let pass = catch_up.pass.as_mut()?;
        let range = (pass.takes_from(), UserKey::new(0))..(pass.block_end(), UserKey::new(0));
        // The block ends before anybody can be taken along. A tree refuses a range that ends before it begins.
        if range.is_empty() {
            return None;
        }
        if !pass.is_handed_out() && catch_up.waiting.range(range.clone()).next().is_some() {
            return Some(self.hand_out(context));
        }
        let picked: Vec<_> = catch_up.waiting.range(range).take(CONNECTS_AT_ONCE).copied().collect();
        for &place in &picked {
            catch_up.waiting.remove(&place);
            let key = place.1;
            let Some(user) = self.user_mut(key) else { continue };
            let Stage::Behind(behind) = &mut user.stage else { continue };
            catch_up.newcomers -= usize::from(behind.window == 0);
            behind.open_window(first_window, user.output.len(), limit);
            let slot = pass.connect(user.id);
            (behind.slot, behind.waits) = (Some(slot), false);
            if catch_up.keys.len() <= slot.index() {
                catch_up.keys.resize(slot.index() + 1, None);
            }
            catch_up.keys[slot.index()] = Some(key);
            catch_up.members += 1;
        }
        (!picked.is_empty()).then(|| Step::Worked(picked.len() as u64 * NS_PER_CONNECT, Work::Other))
    }

    /// Applies a piece of the block.
    fn apply_piece<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) -> Step {
        let catch_up = &mut *context.catch_up;
        let Some(pass) = &mut catch_up.pass else { return Step::Stop(true) };
        let (bytes, deliveries) = pass.apply(catch_up.piece_bytes as usize);
        catch_up.owed -= bytes as i64;
        catch_up.uncounted += deliveries;
        let cost = NS_PER_PIECE + bytes * NS_PER_SCANNED_BYTE + deliveries * NS_PER_DELIVERY;
        Step::Worked(cost, Work::Piece(bytes))
    }

    /// Puts the events that have been applied into the output buffers of some users.
    fn hand_out<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) -> Step {
        let Context { catch_up, now, .. } = &mut *context;
        let CatchUp { pass: Some(pass), keys, full, queue, holds_back, users_at_once, .. } = &mut **catch_up
        else {
            return Step::Stop(true);
        };
        let Self { entries, pool, backlog, .. } = self;
        let (mut overflowed, mut dropped) = (Vec::new(), 0);
        let (mut users, mut cost) = (0, NS_PER_PIECE);
        pass.hand_out(*users_at_once as usize, |slot, bytes| {
            users += 1;
            cost += NS_PER_USER + bytes.len() as u64 / HANDED_BYTES_PER_NS;
            let user = keys[slot.index()].and_then(|key| Some((key, entries.get_mut(key.index())?)));
            let Some((key, Connection { role: Role::User(user), .. })) = user else {
                // It has gone since the events were applied.
                dropped += lines_of(bytes);
                return;
            };
            let Stage::Behind(behind) = &mut user.stage else { return };
            let rest = behind.receive(bytes);
            dropped += lines_of(&bytes[..bytes.len() - rest.len()]);
            if rest.is_empty() {
                return;
            }
            let (waiting, window) = (user.output.len(), behind.window);
            if waiting == 0 {
                behind.took_at = *now;
            }
            user.output.push(rest, pool);
            if user.output.len() > window {
                let taken_back = user.take_back(rest, window, pool);
                dropped += taken_back.map_or(0, |(_, lines)| lines);
                overflowed.push((key, taken_back.map(|(next, _)| next)));
            } else if user.output.len() > window / 2 && !std::mem::replace(&mut behind.is_full, true) {
                full.push(key);
            }
            backlog.note(waiting, user.output.len());
            if user.output.len() >= WRITE_BYTES.min(window / 2) {
                queue.push_back(key);
            } else {
                holds_back.get_or_insert(*now);
            }
        });
        let is_done = pass.is_handed_out();
        catch_up.uncounted -= dropped;
        if is_done {
            self.counters.caught_up += std::mem::take(&mut catch_up.uncounted);
        }
        for (key, next) in overflowed {
            self.park(key, next, context);
        }
        Step::Worked(cost, Work::Users(users))
    }

    /// A user takes no more: it leaves the pass. `None`: it has been handed everything that the pass has applied.
    fn park<N>(&mut self, key: UserKey, next: Option<Cursor>, context: &mut Context<'_, N>) {
        let catch_up = &mut *context.catch_up;
        let cursor = catch_up.pass.as_ref().map_or(Cursor::START, Pass::cursor);
        let Some(user) = self.user_mut(key) else { return };
        let Stage::Behind(behind) = &mut user.stage else { return };
        let slot = behind.slot.take();
        behind.next = next.unwrap_or(cursor);
        behind.is_full = false;
        catch_up.parked.insert((behind.next, key));
        if let Some(slot) = slot {
            catch_up.leave_pass(user.id, slot);
        }
        catch_up.queue.push_back(key);
    }

    /// The pass is at the cursor, and everything has been delivered: who is in it, or waits there, is live. Returns how many have
    /// become so: fewer than [`CONNECTS_AT_ONCE`] if they were the last. The others go on in the pass.
    fn join<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) -> usize {
        let CatchUp { keys, waiting, .. } = &mut *context.catch_up;
        let there = (context.engine.cursor(), UserKey::new(0))..;
        let ahead: Vec<_> = waiting.range(there).take(CONNECTS_AT_ONCE).copied().collect();
        ahead.iter().for_each(|place| _ = waiting.remove(place));
        let mut joining: Vec<UserKey> = ahead.into_iter().map(|(_, key)| key).collect();
        // Those who have become live already.
        keys.truncate(keys.iter().rposition(Option::is_some).map_or(0, |last| last + 1));
        let room = CONNECTS_AT_ONCE - joining.len();
        joining.extend(keys.iter().rev().flatten().take(room));
        for &key in &joining {
            let Some(user) = self.user_mut(key) else { continue };
            let id = user.id;
            if let (Stage::Behind(behind), Some(resume)) = (&user.stage, &mut user.resume) {
                resume.sent_at = resume.sent_at.max(behind.took_at());
            }
            if let Stage::Behind(behind) = &mut user.stage {
                context.catch_up.stop_waiting(behind);
                if let Some(slot) = behind.slot.take() {
                    context.catch_up.leave_pass(id, slot);
                }
            }
            context.catch_up.by_id.remove(&id);
            let slot = self.connect(key, id, context.engine);
            if let Some(Connection { socket, role: Role::User(user), .. }) = self.entries.get_mut(key.index())
            {
                user.stage = Stage::Live(slot);
                context.net.hold_little_unsent(socket, false);
            }
        }
        if context.catch_up.by_id.is_empty() {
            context.catch_up.check_at = None;
        }
        joining.len()
    }

    /// Users that are served from the journal and whose sockets have taken nothing for too long.
    pub(in crate::server) fn end_stalled<N>(&mut self, now: Micros, context: &mut Context<'_, N>) {
        let catch_up = &mut *context.catch_up;
        if catch_up.check_at.is_none_or(|at| at > now) {
            return;
        }
        let mut next_check = now + catch_up.timeout;
        let mut overdue = Vec::new();
        for &key in catch_up.by_id.values() {
            let Some(Connection { role: Role::User(user), writable: is_writable, .. }) =
                self.entries.get(key.index())
            else {
                continue;
            };
            let (Stage::Behind(behind), is_writable) = (&user.stage, *is_writable) else { continue };
            let at = behind.took_at + catch_up.timeout;
            if user.output.is_empty() || !user.blocked {
                continue;
            } else if at > now || is_writable {
                // Whose socket takes bytes is written to in its turn: it may have been this server that was held up.
                let at = if is_writable { now + HOLDING_MAX } else { at };
                next_check = next_check.min(at);
            } else if overdue.len() < ENDS_PER_TURN {
                overdue.push(key);
            } else {
                next_check = now;
            }
        }
        catch_up.check_at = Some(next_check);
        for key in overdue {
            self.leaves(key, DisconnectReason::Slow);
        }
    }
}
