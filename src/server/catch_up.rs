//! Users that are served from the journal: those who resume at an earlier place, and those who do not keep up with the stream
//! (`docs/SPEC.md` section 10).
//!
//! It is one ordered buffer with many cursors. The journal is the buffer; each user has its place in it. One [`Pass`] at a time goes
//! through the journal and takes along everybody whose place it comes to:
//!
//! ```text
//!  journal  ├──────────────────────────────────────────────────────────┤ cursor of the live engine
//!  places        a        b  b      c                d
//!  the pass  snapshot ───▶│a, b, b are handed their events; c and d are picked up on the way
//! ```
//!
//! A user that catches up is in one of three states:
//!
//! | state | until |
//! | --- | --- |
//! | *waiting* at its place | a pass comes to the place |
//! | *in the pass*: it is handed what the pass applies, into its output buffer | the pass comes to the live cursor: it is live; or its buffer is full: it is parked |
//! | *parked*: its place is the first event that did not fit | its buffer is nearly empty: it waits |
//!
//! # The seam
//!
//! The pass has its turn when everything that was released has been appended and delivered. If it comes to the cursor then,
//! everybody in it is connected to the live engine before anything else is released: nothing twice, nothing missed.
//!
//! # What it may cost
//!
//! Work is estimated in nanoseconds, because no clock is looked at within a turn. While events flow, a pass takes a quarter of the
//! time; otherwise it takes short slices, between which the sockets are looked at. In either case it advances at least twice as fast as
//! the journal grows, so that it ends: if need be, a turn that reads sources takes longer for it.
//!
//! A pass waits for users whose buffers are full: as long as it likes while nobody else wants anything, else for [`PATIENCE`] at a
//! time, and in all no longer than it has worked. So one slow user costs the others little, and a fast one is served in one pass. After a
//! pass there is a rest of three times its length while events flow, unless somebody waits who has just logged in. So hundreds of slow
//! users cost a quarter of the time at most.
//!
//! Memory: the second follow graph, a block of the journal, and the output buffers, which hold `userBufferBytes` each and a line.
//!
//! # What happens when something ends
//!
//! A user that leaves or is taken over in the middle of a pass is disconnected from its engine, and keeps what is in its output
//! buffer. What is not kept any more cannot be handed out: whoever is at such a place is cut off (`slow`). At the end of the server no
//! pass goes on: users are sent what their buffers have, and resume elsewhere.

use super::{
    Context, Phase, Server,
    key::UserKey,
    net::Net,
    pass::{Pass, Stepped},
    resuming::lines_of,
    users::{Connection, Role, Stage, Users},
};
use crate::{
    config::Config,
    counters::DisconnectReason,
    engine::event::leading_number,
    time::{MILLISECOND, Micros, SECOND},
};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io::{Read, Write},
};

/// How long those who log in are collected before a pass begins.
const COLLECTING: Micros = 5 * MILLISECOND;
/// How long a pass waits for users whose buffers are full, while others want it to go on.
const PATIENCE: Micros = 20 * MILLISECOND;
/// Work in one turn, in estimated nanoseconds.
const SLICE_NS: u64 = 300_000;
/// Estimates in nanoseconds of what work costs.
const NS_PER_WRITE: u64 = 2500;
const NS_PER_SCANNED_BYTE: u64 = 2;
const NS_PER_EDGE: u64 = 50;
const NS_PER_PIECE: u64 = 2000;
/// A rest between two passes is no longer than this.
const REST_MAX: Micros = SECOND;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct CatchUp {
    config: Config,
    limit: usize,
    timeout: Micros,
    /// Everybody who is served from the journal.
    by_id: HashMap<u64, UserKey>,
    /// Those who wait for a pass, by their places.
    waiting: BTreeSet<(u128, UserKey)>,
    pass: Option<Pass>,
    /// Users of the pass by its slots.
    keys: Vec<Option<UserKey>>,
    members: usize,
    /// Those in the pass whose buffers are filled by more than half, and some that have left it.
    full: Vec<UserKey>,
    /// Since when the pass waits for them.
    stopped_since: Option<Micros>,
    /// Users to be written to.
    queue: VecDeque<UserKey>,
    /// There is nothing that the pass can do before something else happens.
    is_idle: bool,
    /// When the next pass may begin.
    begin_at: Micros,
    /// Somebody waits who has not been in a pass.
    has_newcomers: bool,
    began: Micros,
    /// Estimated work of this pass in nanoseconds, and how long it has waited.
    worked_ns: u64,
    waited: Micros,
    /// Bytes that the journal had grown by when it was looked at last, and bytes that the pass has to advance for that.
    grown_to: u64,
    owed: u64,
    /// What may be worked while events flow.
    credit_ns: u64,
    looked_at: Micros,
    /// When somebody's socket may have taken nothing for too long.
    check_at: Option<Micros>,
}

/// A user that is served from the journal.
#[derive(Debug)]
pub(super) struct Behind {
    /// Events below this number have been handed to it. In a pass: those below it are not for it.
    next: u128,
    /// Its slot in the pass.
    slot: Option<u32>,
    /// It waits for a pass.
    waits: bool,
    /// It is in the pass, and its buffer is filled by more than half.
    is_full: bool,
    /// When its socket took something last, or its buffer was empty.
    took_at: Micros,
}

impl Behind {
    pub(super) fn new(next: u128, now: Micros) -> Self {
        Self { next, slot: None, waits: false, is_full: false, took_at: now }
    }
}

/// What a step of the pass comes to.
enum Step {
    Worked(u64),
    /// Nothing more can be done in this turn. True: and nothing can be done in the next one unless something happens.
    Stop(bool),
}

impl CatchUp {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            limit: config.user_buffer_bytes,
            timeout: config.slow_user_timeout_ms * MILLISECOND,
            config: config.clone(),
            by_id: HashMap::new(),
            waiting: BTreeSet::new(),
            pass: None,
            keys: Vec::new(),
            members: 0,
            full: Vec::new(),
            stopped_since: None,
            queue: VecDeque::new(),
            is_idle: true,
            begin_at: 0,
            has_newcomers: false,
            began: 0,
            worked_ns: 0,
            waited: 0,
            grown_to: 0,
            owed: 0,
            credit_ns: 0,
            looked_at: 0,
            check_at: None,
        }
    }

    /// Users that are served from the journal.
    pub(super) fn users(&self) -> usize {
        self.by_id.len()
    }

    /// The lowest place of those who wait, or of the pass.
    pub(super) fn lowest(&self) -> Option<u128> {
        let waiting = self.waiting.first().map(|&(next, _)| next);
        let pass = self.pass.as_ref().filter(|_| self.members > 0).map(Pass::cursor);
        waiting.into_iter().chain(pass).min()
    }

    pub(super) fn key_of(&self, id: u64) -> Option<UserKey> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn has_work(&self, now: Micros) -> bool {
        !self.queue.is_empty()
            || (!self.is_idle && self.pass.is_some())
            || (self.pass.is_none() && !self.waiting.is_empty() && self.begin_at <= now)
    }

    pub(super) fn deadline(&self) -> Option<Micros> {
        let begin = (self.pass.is_none() && !self.waiting.is_empty()).then_some(self.begin_at);
        let stopped = self.stopped_since.filter(|_| !self.waits_for_all()).map(|since| since + PATIENCE);
        [begin, stopped].into_iter().flatten().min()
    }

    /// When somebody may have to be cut off.
    pub(super) fn check_deadline(&self) -> Option<Micros> {
        self.check_at
    }

    /// Everything below this number has been handed to a user.
    pub(super) fn place_of(&self, behind: &Behind) -> u128 {
        match (&self.pass, behind.slot) {
            (Some(pass), Some(_)) => pass.cursor().max(behind.next),
            _ => behind.next,
        }
    }

    /// A user comes that is served from the journal. `is_new`: it has just logged in.
    pub(super) fn enter(&mut self, key: UserKey, id: u64, behind: &mut Behind, is_new: bool, now: Micros) {
        self.by_id.insert(id, key);
        self.check_at.get_or_insert(now + self.timeout);
        if is_new {
            self.wait(key, behind, true, now);
        }
    }

    fn wait(&mut self, key: UserKey, behind: &mut Behind, is_new: bool, now: Micros) {
        if self.waiting.is_empty() && self.pass.is_none() {
            self.begin_at = self.begin_at.max(now + COLLECTING);
        }
        if is_new {
            self.has_newcomers = true;
            self.begin_at = self.begin_at.min(now + COLLECTING);
        }
        behind.waits = true;
        self.waiting.insert((behind.next, key));
    }

    /// A user goes, or is live again.
    pub(super) fn forget(&mut self, key: UserKey, id: u64, behind: &Behind) {
        self.by_id.remove(&id);
        self.waiting.remove(&(behind.next, key));
        self.leave_pass(id, behind.slot);
        if self.by_id.is_empty() {
            self.check_at = None;
        }
    }

    fn leave_pass(&mut self, id: u64, slot: Option<u32>) {
        if let (Some(pass), Some(slot)) = (&mut self.pass, slot) {
            pass.disconnect(id, slot);
            if self.keys[slot as usize].take().is_some() {
                self.members -= 1;
            }
        }
    }

    /// Work of this turn, in estimated nanoseconds: a share or a slice.
    fn budget(&mut self, grown_to: u64, is_live: bool, now: Micros) -> u64 {
        let grown = grown_to.saturating_sub(std::mem::replace(&mut self.grown_to, grown_to));
        if self.stopped_since.is_none() && self.pass.as_ref().is_some_and(|pass| !pass.is_beginning()) {
            self.owed += 2 * grown;
        }
        let elapsed = now.saturating_sub(std::mem::replace(&mut self.looked_at, now));
        self.credit_ns = (self.credit_ns + elapsed.min(SECOND) * 250).min(SLICE_NS);
        if is_live { self.credit_ns } else { SLICE_NS }
    }

    fn spend(&mut self, ns: u64) {
        self.credit_ns = self.credit_ns.saturating_sub(ns);
        self.worked_ns += ns;
    }

    /// Nobody in the pass takes more, and nobody else wants anything.
    fn waits_for_all(&self) -> bool {
        self.full.len() == self.members && self.waiting.is_empty()
    }

    /// Whether the pass has to wait for users whose buffers are full.
    fn is_stopped(&mut self, now: Micros) -> bool {
        if self.full.is_empty() {
            if let Some(since) = self.stopped_since.take() {
                self.waited += now - since;
            }
            return false;
        }
        let all = self.full.len() == self.members;
        let since = *self.stopped_since.get_or_insert(now);
        let waited = self.waited + (now - since);
        if self.waits_for_all() || (now - since < PATIENCE && (all || waited * 1000 < self.worked_ns)) {
            return true;
        }
        self.waited = waited;
        self.stopped_since = None;
        false
    }
}

impl<N: Net> Server<N> {
    /// Has users that are served from the journal catch up. `is_live`: events flow.
    pub(super) fn catch_up(&mut self, is_live: bool) {
        if self.phase() == Phase::Running {
            let (users, mut context) = self.users();
            users.catch_up(is_live, &mut context);
        }
    }
}

impl<N: Net> Context<'_, N> {
    /// A pass that has come to the end of the journal is at the cursor, and everything that was released has been delivered.
    fn is_at_the_cursor(&self) -> bool {
        let log = self.log.as_deref();
        self.engine.is_delivered()
            && log.is_some_and(|log| log.is_open() && log.servable_cursor() == self.engine.cursor())
    }
}

impl<S: Read + Write> Users<S> {
    /// Has users catch up for a part of the turn. To be called with everything delivered, if the journal has it. `is_live`: events
    /// flow.
    pub(super) fn catch_up<N: Net<Socket = S>>(&mut self, is_live: bool, context: &mut Context<'_, N>) {
        let Some(log) = context.log.as_deref() else { return };
        let catch_up = &mut *context.catch_up;
        if catch_up.by_id.is_empty() && catch_up.queue.is_empty() && catch_up.pass.is_none() {
            return;
        }
        let mut budget = catch_up.budget(log.appended_bytes(), is_live, context.now) as i64;
        while budget > 0 || context.catch_up.owed > 0 {
            let cost = if let Some(key) = context.catch_up.queue.pop_front() {
                self.flush_one(key, context)
            } else {
                match self.step(is_live, context) {
                    Step::Worked(cost) => cost,
                    Step::Stop(is_idle) => {
                        context.catch_up.is_idle = is_idle;
                        return;
                    }
                }
            };
            context.catch_up.spend(cost);
            budget -= cost as i64;
        }
        context.catch_up.is_idle = false;
    }

    fn flush_one<N: Net<Socket = S>>(&mut self, key: UserKey, context: &mut Context<'_, N>) -> u64 {
        match self.user_mut(key) {
            Some(user) if !user.blocked && !user.output.is_empty() => {
                self.flush(key, context);
                NS_PER_WRITE
            }
            _ => 1,
        }
    }

    /// Takes the next step of the pass, or begins one.
    fn step<N: Net<Socket = S>>(&mut self, is_live: bool, context: &mut Context<'_, N>) -> Step {
        if context.catch_up.pass.is_none() {
            return self.begin_pass(context);
        }
        self.note_room(context);
        if context.catch_up.is_stopped(context.now) {
            return Step::Stop(true);
        }
        let Context { catch_up, log, .. } = &mut *context;
        let (Some(log), Some(pass)) = (log.as_deref_mut(), &mut catch_up.pass) else {
            return Step::Stop(true);
        };
        if pass.is_in_a_block() {
            return self.apply_piece(context);
        }
        let ahead = catch_up.waiting.range((pass.cursor(), UserKey::new(0))..).next();
        if catch_up.members == 0 && ahead.is_none() {
            self.end_pass(is_live, context);
            return Step::Worked(1);
        }
        let limit = log.servable_cursor();
        match pass.read(log, limit) {
            Ok(Stepped::Edges(edges)) => Step::Worked(NS_PER_PIECE + edges * NS_PER_EDGE),
            Ok(Stepped::Later) => Step::Stop(false),
            Ok(Stepped::Block) => {
                self.pick_up(context);
                Step::Worked(1)
            }
            Ok(Stepped::End) if context.is_at_the_cursor() => {
                self.join(context);
                self.end_pass(is_live, context);
                Step::Stop(true)
            }
            Ok(Stepped::End) => Step::Stop(true),
            Err(error) => {
                log::warn!(error:%; "users cannot be served from the journal any more: they are cut off");
                self.cut_off_pass(context);
                Step::Worked(1)
            }
        }
    }

    /// Begins a pass for those who wait, if it is time.
    fn begin_pass<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) -> Step {
        let Context { catch_up, log, now, .. } = &mut *context;
        let Some(log) = log.as_deref_mut() else { return Step::Stop(true) };
        if catch_up.begin_at > *now {
            return Step::Stop(true);
        }
        while let Some(&(next, key)) = catch_up.waiting.first() {
            let begun = log
                .start_for(next)
                .map(|start| Pass::new(start, catch_up.waiting.len(), &catch_up.config, log));
            match begun {
                Some(Ok(pass)) => {
                    log::debug!(from = next, users = catch_up.waiting.len(); "a pass over the journal begins");
                    catch_up.pass = Some(pass);
                    catch_up.has_newcomers = false;
                    (catch_up.began, catch_up.worked_ns, catch_up.waited, catch_up.owed) = (*now, 0, 0, 0);
                    return Step::Worked(NS_PER_WRITE);
                }
                Some(Err(error)) => {
                    log::warn!(error:%; "a user cannot be served from the journal any more: it is cut off");
                }
                None => {}
            }
            catch_up.waiting.pop_first();
            self.leaves(key, DisconnectReason::Slow);
        }
        Step::Stop(true)
    }

    fn end_pass<N: Net<Socket = S>>(&mut self, is_live: bool, context: &mut Context<'_, N>) {
        let Context { catch_up, log, now, .. } = &mut *context;
        if let (Some(pass), Some(log)) = (catch_up.pass.take(), log.as_deref_mut()) {
            pass.close(log);
        }
        catch_up.keys.clear();
        catch_up.full.clear();
        (catch_up.members, catch_up.stopped_since, catch_up.owed) = (0, None, 0);
        let rest = if is_live && !catch_up.has_newcomers { 3 * (*now - catch_up.began) } else { 0 };
        catch_up.begin_at = *now + rest.min(REST_MAX);
    }

    /// What the pass comes to next is lost.
    fn cut_off_pass<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) {
        let catch_up = &mut *context.catch_up;
        let cursor = catch_up.pass.as_ref().map_or(0, Pass::cursor);
        let members = catch_up.keys.iter().flatten().copied();
        let others = catch_up.waiting.range((cursor, UserKey::new(0))..=(cursor, UserKey::LAST));
        let lost: Vec<UserKey> = members.chain(others.map(|&(_, key)| key)).collect();
        for &key in &lost {
            if let Some(Stage::Behind(behind)) = self.user_mut(key).map(|user| &mut user.stage) {
                behind.next = behind.next.max(cursor);
                behind.slot = None;
                behind.waits = false;
            }
            self.leaves(key, DisconnectReason::Slow);
        }
        context.catch_up.waiting.retain(|(_, key)| !lost.contains(key));
        self.end_pass(false, context);
    }

    /// Forgets those of the full ones whose buffers have been emptied meanwhile, or who have left the pass.
    fn note_room<N>(&mut self, context: &mut Context<'_, N>) {
        let catch_up = &mut *context.catch_up;
        let limit = catch_up.limit;
        catch_up.full.retain(|&key| {
            let Some(user) = self.user_mut(key) else { return false };
            let Stage::Behind(behind) = &mut user.stage else { return false };
            behind.is_full &= behind.slot.is_some() && user.output.len() > limit / 4;
            behind.is_full
        });
    }

    /// Takes those along whose places the block covers.
    fn pick_up<N>(&mut self, context: &mut Context<'_, N>) {
        let catch_up = &mut *context.catch_up;
        let Some(pass) = &mut catch_up.pass else { return };
        let (from, to) = (pass.cursor(), pass.block_end());
        let range = (from, UserKey::new(0))..(to, UserKey::new(0));
        let picked: Vec<_> = catch_up.waiting.range(range).copied().collect();
        for place in picked {
            catch_up.waiting.remove(&place);
            let key = place.1;
            let Some(user) = self.user_mut(key) else { continue };
            let Stage::Behind(behind) = &mut user.stage else { continue };
            let slot = pass.connect(user.id);
            (behind.slot, behind.waits) = (Some(slot), false);
            if catch_up.keys.len() <= slot as usize {
                catch_up.keys.resize(slot as usize + 1, None);
            }
            catch_up.keys[slot as usize] = Some(key);
            catch_up.members += 1;
        }
    }

    /// Applies a piece of the block, and puts what it owes into the output buffers.
    fn apply_piece<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) -> Step {
        let Context { catch_up, engine, now, .. } = &mut *context;
        let CatchUp { pass: Some(pass), keys, full, queue, limit, owed, .. } = &mut **catch_up else {
            return Step::Stop(true);
        };
        let mut cost = match pass.apply() {
            Ok(bytes) => {
                *owed = owed.saturating_sub(bytes);
                NS_PER_PIECE + bytes * NS_PER_SCANNED_BYTE
            }
            Err(error) => {
                log::warn!(error:%; "users cannot be served from the journal any more: they are cut off");
                self.cut_off_pass(context);
                return Step::Worked(1);
            }
        };
        let Self { entries, pool, backlog, .. } = self;
        let (mut overflowed, mut dropped) = (Vec::new(), 0);
        pass.deliver(&mut engine.counters, |slot, bytes| {
            let Some(key) = keys[slot as usize] else { return };
            let Some(Connection { role: Role::User(user), .. }) = entries.get_mut(key.index()) else {
                return;
            };
            let Stage::Behind(behind) = &mut user.stage else { return };
            cost += NS_PER_WRITE / 8 + bytes.len() as u64 / 4;
            let rest = behind.receive(bytes);
            dropped += lines_of(&bytes[..bytes.len() - rest.len()]);
            if rest.is_empty() {
                return;
            }
            if let Some(resume) = &mut user.resume {
                resume.receive(&[], *now);
            }
            let waiting = user.output.len();
            if waiting == 0 {
                behind.took_at = *now;
            }
            user.output.push(rest, pool);
            if user.output.len() > *limit {
                let taken_back = user.take_back(rest, *limit, pool);
                dropped += taken_back.map_or(0, |(_, lines)| lines);
                overflowed.push((key, taken_back.map(|(next, _)| next)));
            } else if user.output.len() > *limit / 2 && !std::mem::replace(&mut behind.is_full, true) {
                full.push(key);
            }
            backlog.note(waiting, user.output.len());
            queue.push_back(key);
        });
        engine.counters.deliveries -= dropped;
        for (key, next) in overflowed {
            self.park(key, next, context);
        }
        Step::Worked(cost)
    }

    /// A user takes no more: it leaves the pass. `None`: it has been handed everything that the pass has applied.
    fn park<N>(&mut self, key: UserKey, next: Option<u128>, context: &mut Context<'_, N>) {
        let catch_up = &mut *context.catch_up;
        let cursor = catch_up.pass.as_ref().map_or(0, Pass::cursor);
        let Some(user) = self.user_mut(key) else { return };
        let Stage::Behind(behind) = &mut user.stage else { return };
        let slot = behind.slot.take();
        behind.next = next.unwrap_or(cursor);
        behind.is_full = false;
        catch_up.leave_pass(user.id, slot);
    }

    /// A user's socket has taken bytes. If its buffer is nearly empty, it goes on.
    pub(super) fn note_taken<N>(&mut self, key: UserKey, context: &mut Context<'_, N>) {
        let Some(user) = self.user_mut(key) else { return };
        let Stage::Behind(behind) = &mut user.stage else { return };
        behind.took_at = context.now;
        if behind.slot.is_none() && !behind.waits && user.output.len() <= context.catch_up.limit / 4 {
            context.catch_up.wait(key, behind, false, context.now);
        }
    }

    /// The pass is at the cursor, and everything has been delivered: who is in it, or waits there, is live.
    fn join<N: Net<Socket = S>>(&mut self, context: &mut Context<'_, N>) {
        let catch_up = &mut *context.catch_up;
        let cursor = context.engine.cursor();
        let waiting = catch_up.waiting.split_off(&(cursor, UserKey::new(0)));
        let joining: Vec<_> =
            catch_up.keys.drain(..).flatten().chain(waiting.into_iter().map(|(_, key)| key)).collect();
        catch_up.members = 0;
        for key in joining {
            let Some(id) = self.user_mut(key).map(|user| user.id) else { continue };
            context.catch_up.by_id.remove(&id);
            let slot = self.connect(key, id, context.engine);
            if let Some(user) = self.user_mut(key) {
                user.stage = Stage::Live(slot);
            }
        }
        if context.catch_up.by_id.is_empty() {
            context.catch_up.check_at = None;
        }
    }

    /// A user's output buffer is full, under `slowUserPolicy=journal`: from `next` on it is served from the journal.
    pub(super) fn fall_behind<N: Net<Socket = S>>(
        &mut self,
        key: UserKey,
        next: u128,
        context: &mut Context<'_, N>,
    ) {
        let Some(user) = self.user_mut(key) else { return };
        let Stage::Live(slot) = user.stage else { return };
        context.engine.disconnect(user.id, slot);
        let mut behind = Behind::new(next, context.now);
        context.catch_up.enter(key, user.id, &mut behind, false, context.now);
        user.stage = Stage::Behind(behind);
        log::debug!(user = user.id, next; "a user does not keep up: it is served from the journal");
        // Its socket may have taken everything meanwhile.
        self.note_taken(key, context);
    }

    /// Users that are served from the journal and whose sockets have taken nothing for too long.
    pub(super) fn end_stalled<N>(&mut self, now: Micros, context: &mut Context<'_, N>) {
        let catch_up = &mut *context.catch_up;
        if catch_up.check_at.is_none_or(|at| at > now) {
            return;
        }
        let mut next_check = now + catch_up.timeout;
        let mut overdue = Vec::new();
        for &key in catch_up.by_id.values() {
            let role = self.entries.get(key.index()).map(|connection| &connection.role);
            let Some(Role::User(user)) = role else { continue };
            let Stage::Behind(behind) = &user.stage else { continue };
            let at = behind.took_at + catch_up.timeout;
            if user.output.is_empty() {
                continue;
            } else if at <= now {
                overdue.push(key);
            } else {
                next_check = next_check.min(at);
            }
        }
        catch_up.check_at = Some(next_check);
        for key in overdue {
            self.leaves(key, DisconnectReason::Slow);
        }
    }
}

impl Behind {
    /// The part of what it is handed that is at its place or above.
    fn receive<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        if leading_number(bytes).is_none_or(|number| u128::from(number) >= self.next) {
            return bytes;
        }
        &bytes[crate::stream::first_line_from(bytes, self.next)..]
    }
}
