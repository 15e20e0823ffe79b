//! Users that are served from the journal: those who resume at an earlier place, and those who do not keep up with the stream
//! (`docs/SPEC.md` section 10).
//!
//! The journal is one ordered buffer with many cursors: each user has a place in it. One [`Pass`] at a time reads
//! through the journal and serves every user whose place it reaches:
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
//! | *in the pass*: the pass puts its events into its output buffer | the pass reaches the live cursor: the user is live; or its buffer is full: the user is parked |
//! | *parked*: its place is the first event that did not fit | its buffer is nearly empty: it waits |
//!
//! # The seam
//!
//! The pass works when every released event has been appended and delivered. If it reaches the cursor at that moment,
//! its users are connected to the live engine before another event is released. So no event comes twice, and none is missed.
//!
//! A snapshot is made while events go on. So the graph of a pass is exact only from the snapshot's end on. Below that, a pass takes nobody
//! along: who comes meanwhile with such a place waits for a pass that begins with an older snapshot.
//!
//! # What it may cost
//!
//! What it takes is measured, step by step. While events flow, a pass takes a sixth of the time. If it has not advanced twice as
//! fast as the journal has grown, it takes more and more after a second: sources are read less. It works in slices of 150 µs, or
//! 300 µs where it is behind; only where the sources alone fill turns of a millisecond, it has its share of each turn. Between
//! slices the server polls the sockets. The pieces of the journal that are applied at once are as small as a slice needs, and so is
//! the number of users that are handed their events at once. Users join a pass, and become live, some at a time. A user is written
//! to when enough bytes wait for it, or after half a second. Its socket holds little, and so becomes writable again and again: what is
//! written to it then is a part of the work as well.
//!
//! A share of the loop is no help where a pass waits for the disk, or where a block is always on its way there. So sources are not read
//! while a pass of five seconds has too much to make up for, or has stood before the end of the journal for 50 ms. Each is
//! read once in a second all the same, and they are always read while the pass waits for users. Time in which they are not read does not
//! count towards `eventTimeoutMs`.
//!
//! A pass waits for users whose buffers are full: without limit while no other user waits. Otherwise it waits for those only whose
//! sockets have just taken something, for [`PATIENCE`] at a time, and in all no longer than it has worked, if anybody waits who has just
//! logged in, or can be handed more. So slow users cost the others nothing, and a fast user is served in one pass. After a pass there
//! is a rest while events flow, three times as long as the pass without such waits, unless a user that has just logged in waits. Half a
//! second without an event ends it. So slow users take a quarter of the time at most, however many they are.
//!
//! Memory: the second follow graph, a megabyte and a block of the journal, and the output buffers, which hold `userBufferBytes` each
//! and a line. A crowd fills less of its buffers at first ([`FIRST_WINDOWS`]), and the system holds little of it that cannot be sent.
//!
//! # When a user, a place or the server ends
//!
//! A user that leaves or is taken over in the middle of a pass is disconnected from its engine, and keeps what is in its output
//! buffer. Events that are not kept any more cannot be sent: a user at such a place is cut off (`slow`). At shutdown no
//! pass goes on: users are sent the contents of their buffers, and resume elsewhere.

mod steps;

use super::{Pace, key::UserKey, pass::Pass};
use crate::{
    config::Config,
    engine::{UserSlot, event::leading_number},
    sequence::Cursor,
    time::{MILLISECOND, Micros, SECOND},
    user_id::UserId,
};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// How long logins are collected before a pass begins: as long as after each of them another one comes, but no longer than the maximum.
/// So a crowd that comes back is served in one pass, and those who came first need not be served beside those who came later.
const COLLECTING: Micros = 5 * MILLISECOND;
const COLLECTING_MAX: Micros = 500 * MILLISECOND;
/// Where much is to be read, another pass costs much: logins are collected for a hundredth of the time that reading takes, and for that
/// time at most.
const READING_PARTS: Micros = 100;
/// Reading is estimated by the numbers that the farthest user is behind and by the bytes that are kept, and is taken to be no longer than
/// this.
const NS_PER_NUMBER: u128 = 20;
const NS_PER_KEPT_BYTE: u128 = 1;
const READING_MAX: Micros = 5 * SECOND;
/// How long a pass waits for users whose buffers are full, while other users wait for the pass.
const PATIENCE: Micros = 20 * MILLISECOND;
/// Bytes that the buffers of all users may hold that are in their first passes, and of each at least. What a user has not taken when the
/// next pass comes was filled too early: it is memory that has to be provided, and events that are copied twice.
const FIRST_WINDOWS: usize = 512 << 20;
const FIRST_WINDOW_MIN: usize = 256 << 10;
/// How long a pass waits for the disk before it asks again. A ring tells earlier.
const DISK_PATIENCE: Micros = MILLISECOND;
/// Bytes of lines that are applied at once.
const PIECE_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=128 << 10;
/// Bytes for a user that are worth a write.
const WRITE_BYTES: usize = 32 << 10;
/// Work takes as long as the clock says, which tells microseconds, but no less than its estimated cost by this.
const ESTIMATES_TOO_HIGH: u64 = 4;
/// Estimated costs of work, in nanoseconds.
const NS_PER_WRITE: u64 = 2500;
/// What is read and written is copied, and the memory is seldom in a cache of the processor.
const NS_PER_BLOCK: u64 = 200;
const NS_PER_READ_BYTE: u64 = 1;
const NS_PER_WRITTEN_BYTE: u64 = 1;
const NS_PER_SCANNED_BYTE: u64 = 1;
const NS_PER_DELIVERY: u64 = 2;
/// To hand a user its events: so much, and for so many bytes a nanosecond.
const NS_PER_USER: u64 = 300;
const HANDED_BYTES_PER_NS: u64 = 4;
const NS_PER_EDGE: u64 = 50;
const NS_PER_CONNECT: u64 = 1000;
const NS_PER_PIECE: u64 = 2000;
/// Users that join a pass, or leave it for the live engine, at once.
const CONNECTS_AT_ONCE: usize = 64;
/// The share of a pass while events flow, in nanoseconds per microsecond.
const SHARE: u64 = 160;
/// The share, from an age of the pass on, while it has not advanced twice as fast as the journal has grown.
const SHARES_BEHIND: [(Micros, u64); 3] = [(SECOND, 320), (2 * SECOND, 640), (4 * SECOND, 900)];
/// Sources are not read while a pass of this age has so much to make up for: a share of the loop is no help where the pass waits for the
/// disk. What is more is forgiven. One block of the largest size is as much.
const HOLDS_FROM: Micros = 5 * SECOND;
const OWED_HOLDS: i64 = 32 << 20;
const OWED_MAX: i64 = 64 << 20;
/// Sources are not read while a pass has been at the end of the journal for so long, and the journal has always grown meanwhile.
const END_PATIENCE: Micros = 50 * MILLISECOND;
/// Sources are held up no longer than this without a turn in which they are read: whatever keeps the pass from going on.
const HOLD_MAX: Micros = SECOND;
/// What has been done above the share is made up for by a rest that is no longer than this much work.
const DEBT_NS_MAX: i64 = 16_000_000;
/// Sources and live users that need so long in a turn have far more to do than to wait for catching up.
const LONG_TURN_NS: u64 = 1_000_000;
/// A rest between two passes is no longer than this.
const REST_MAX: Micros = 60 * SECOND;
/// Events do not flow any more if none has come for so long: a rest is over then.
const IDLE: Micros = SECOND / 2;
/// A user that has less in its buffer than is worth a write is written to after this time.
const HOLDING_MAX: Micros = SECOND / 2;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct CatchUp {
    config: Config,
    limit: usize,
    timeout: Micros,
    /// Everybody who is served from the journal.
    by_id: HashMap<UserId, UserKey>,
    /// Those who wait for a pass, by their places.
    waiting: BTreeSet<(Cursor, UserKey)>,
    /// Those whose buffers are to be emptied first, by their places.
    parked: BTreeSet<(Cursor, UserKey)>,
    pass: Option<Pass>,
    /// Users of the pass by its slots.
    keys: Vec<Option<UserKey>>,
    members: usize,
    /// Those in the pass whose buffers are filled by more than half, and some that have left it.
    full: Vec<UserKey>,
    /// Those of them whose sockets have taken something within [`PATIENCE`].
    full_and_fast: usize,
    /// Since when the pass waits for them.
    stopped_since: Option<Micros>,
    /// Users to be written to.
    queue: VecDeque<UserKey>,
    /// Since when some user of the pass has less in its buffer than is worth a write, and is not in the queue.
    holds_back: Option<Micros>,
    pace: Pace,
    /// Bytes of lines to be applied at once, for a slice.
    piece_bytes: u64,
    /// Users to be handed their events at once, for a slice.
    users_at_once: u64,
    /// There is nothing that the pass can do before something else happens.
    is_idle: bool,
    /// When the next pass may begin, if no rest goes on.
    begin_at: Micros,
    /// The end of the rest after a pass. A user that has just logged in does not wait for it.
    rest_until: Micros,
    /// When events flowed last.
    live_at: Micros,
    /// Users that wait and have not been in a pass.
    newcomers: usize,
    /// Since when there are some, or the end of the last pass if that was later.
    collecting_since: Micros,
    /// How long it takes to read what the farthest of them is behind, at least.
    reading: Micros,
    began: Micros,
    /// Work of this pass in nanoseconds, and how long it has waited.
    worked_ns: u64,
    waited: Micros,
    /// Bytes that the journal had grown by when it was looked at last, and bytes that the pass has to advance for that. Below 0: it has
    /// advanced further than it has to.
    grown_to: u64,
    owed: i64,
    /// Since when the pass has been at the end of the journal, while that grows.
    at_end_since: Option<Micros>,
    /// Since when sources are held up.
    held_since: Option<Micros>,
    holds_sources: bool,
    /// They would be, but have been for long enough: each is read once.
    lets_sources_through: bool,
    /// The work that catching up may do while events flow. Below 0: it has done so much more.
    credit_ns: i64,
    /// Work since the last turn's.
    spent_ns: u64,
    /// Deliveries of the events that have been applied, and not been handed to everybody.
    uncounted: u64,
    /// It has done its share, and goes on then.
    rests_until: Micros,
    looked_at: Micros,
    /// When a user's socket may have taken nothing for too long.
    check_at: Option<Micros>,
}

/// A user that is served from the journal.
#[derive(Debug)]
pub(super) struct Behind {
    /// Events below this number have been handed to it. In a pass: those below it are not for it.
    next: Cursor,
    /// Its slot in the pass.
    slot: Option<UserSlot>,
    /// Bytes that its buffer may hold. 0: it has not been in a pass.
    window: usize,
    /// It waits for a pass.
    waits: bool,
    /// It is in the pass, and its buffer is filled by more than half.
    is_full: bool,
    /// When its socket took something last, or its buffer was empty.
    took_at: Micros,
}

impl Behind {
    pub(super) fn new(next: Cursor, now: Micros) -> Self {
        Self { next, slot: None, window: 0, waits: false, is_full: false, took_at: now }
    }
}

impl CatchUp {
    pub(super) fn new(config: &Config, pace: Pace) -> Self {
        Self {
            pace,
            limit: config.user_buffer_bytes,
            timeout: config.slow_user_timeout_ms * MILLISECOND,
            config: config.clone(),
            by_id: HashMap::new(),
            waiting: BTreeSet::new(),
            parked: BTreeSet::new(),
            pass: None,
            keys: Vec::new(),
            members: 0,
            full: Vec::new(),
            full_and_fast: 0,
            stopped_since: None,
            queue: VecDeque::new(),
            holds_back: None,
            piece_bytes: *PIECE_BYTES.start(),
            users_at_once: pace.users,
            is_idle: true,
            begin_at: 0,
            rest_until: 0,
            live_at: 0,
            newcomers: 0,
            collecting_since: 0,
            reading: 0,
            began: 0,
            worked_ns: 0,
            waited: 0,
            grown_to: 0,
            owed: 0,
            at_end_since: None,
            held_since: None,
            holds_sources: false,
            lets_sources_through: false,
            credit_ns: 0,
            spent_ns: 0,
            uncounted: 0,
            rests_until: 0,
            looked_at: 0,
            check_at: None,
        }
    }

    /// Users that are served from the journal.
    pub(super) fn users(&self) -> usize {
        self.by_id.len()
    }

    /// How many numbers the farthest of them is behind the cursor.
    pub(super) fn farthest_behind(&self, cursor: Cursor) -> u128 {
        let places = self.waiting.first().into_iter().chain(self.parked.first()).map(|&(next, _)| next);
        let pass = self.pass.as_ref().filter(|_| self.members > 0).map(Pass::handed_out);
        places.chain(pass).min().map_or(0, |lowest| cursor.since(lowest))
    }

    pub(super) fn key_of(&self, id: UserId) -> Option<UserKey> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn has_work(&self, now: Micros) -> bool {
        self.rests_until <= now && self.would_work(now)
    }

    fn would_work(&self, now: Micros) -> bool {
        !self.queue.is_empty()
            || (!self.is_idle && self.pass.is_some())
            || (self.pass.is_none() && !self.waiting.is_empty() && self.begins_at() <= now)
    }

    /// When the next pass may begin.
    fn begins_at(&self) -> Micros {
        let rests = if self.newcomers == 0 { self.rest_until.min(self.live_at + IDLE) } else { 0 };
        self.begin_at.max(rests)
    }

    pub(super) fn deadline(&self, now: Micros) -> Option<Micros> {
        if self.rests_until > now && self.would_work(now) {
            return Some(self.rests_until);
        }
        let begin = (self.pass.is_none() && !self.waiting.is_empty()).then_some(self.begins_at());
        let stopped = self.stopped_since.filter(|_| !self.waits_for_all()).map(|since| since + PATIENCE);
        let held = self.held_since.map(|since| since + HOLD_MAX);
        [begin, stopped, held].into_iter().flatten().min()
    }

    /// When a user may have to be cut off.
    pub(super) fn check_deadline(&self) -> Option<Micros> {
        self.check_at
    }

    /// Everything below this number has been handed to a user.
    pub(super) fn place_of(&self, behind: &Behind) -> Cursor {
        match (&self.pass, behind.slot) {
            (Some(pass), Some(slot)) => pass.place_of(slot).max(behind.next),
            _ => behind.next,
        }
    }

    /// A user has logged in, and is served from the journal, of which so many bytes are kept. `distance`: the numbers that it is behind.
    pub(super) fn enter(
        &mut self,
        (key, id): (UserKey, UserId),
        behind: &mut Behind,
        distance: u128,
        kept_bytes: u64,
        now: Micros,
    ) {
        self.by_id.insert(id, key);
        self.check_at.get_or_insert(now + self.timeout);
        if self.newcomers == 0 {
            (self.collecting_since, self.reading) = (now, 0);
        }
        self.newcomers += 1;
        let ns = distance.saturating_mul(NS_PER_NUMBER).min(u128::from(kept_bytes) * NS_PER_KEPT_BYTE);
        let micros = Micros::try_from(ns / 1000).map_or(READING_MAX, |micros| micros.min(READING_MAX));
        self.reading = self.reading.max(micros);
        let latest = self.collecting_since + COLLECTING_MAX.max(self.reading);
        self.begin_at = (now + COLLECTING.max(self.reading / READING_PARTS)).min(latest);
        self.wait(key, behind);
    }

    /// A user that was live is served from the journal, because it is slow.
    pub(super) fn fall_behind(&mut self, key: UserKey, id: UserId, behind: &mut Behind, now: Micros) {
        self.by_id.insert(id, key);
        self.check_at.get_or_insert(now + self.timeout);
        behind.window = self.limit;
        self.parked.insert((behind.next, key));
    }

    /// A user's socket has taken bytes, and `waiting` bytes are left. If that is little, it waits for a pass.
    pub(super) fn took(&mut self, key: UserKey, behind: &mut Behind, waiting: usize, now: Micros) {
        behind.took_at = now;
        if behind.slot.is_none() && !behind.waits && waiting <= behind.window / 4 {
            if self.waiting.is_empty() && self.pass.is_none() {
                self.begin_at = self.begin_at.max(now + COLLECTING);
            }
            self.wait(key, behind);
        }
    }

    /// A user's socket takes bytes again: it is written to in its turn.
    pub(super) fn will_write(&mut self, key: UserKey) {
        self.queue.push_back(key);
    }

    fn wait(&mut self, key: UserKey, behind: &mut Behind) {
        behind.waits = true;
        self.parked.remove(&(behind.next, key));
        self.waiting.insert((behind.next, key));
    }

    /// A user that waited does so no more.
    fn stop_waiting(&mut self, behind: &mut Behind) {
        self.newcomers -= usize::from(behind.waits && behind.window == 0);
        behind.waits = false;
    }

    /// A user goes, or is live again.
    pub(super) fn forget(&mut self, key: UserKey, id: UserId, behind: &mut Behind) {
        self.by_id.remove(&id);
        self.stop_waiting(behind);
        self.waiting.remove(&(behind.next, key));
        self.parked.remove(&(behind.next, key));
        if let Some(slot) = behind.slot {
            self.leave_pass(id, slot);
        }
        if self.by_id.is_empty() {
            self.check_at = None;
        }
    }

    fn leave_pass(&mut self, id: UserId, slot: UserSlot) {
        if let Some(pass) = &mut self.pass {
            pass.disconnect(id, slot);
            if self.keys[slot.index()].take().is_some() {
                self.members -= 1;
            }
        }
    }

    /// Work of this turn, in nanoseconds: what the share allows by now, but no more than a slice at once, or a few where a pass falls
    /// behind. So an event waits for a slice, whatever the share. Only where turns are long without catching up, it gets its share of each.
    fn budget(&mut self, grown_to: u64, is_live: bool, now: Micros) -> i64 {
        let grown = grown_to.saturating_sub(std::mem::replace(&mut self.grown_to, grown_to));
        if self.pass.is_some() && self.stopped_since.is_none() {
            self.owed = (self.owed + 2 * grown as i64).min(OWED_MAX);
        }
        let elapsed = now.saturating_sub(std::mem::replace(&mut self.looked_at, now));
        // While there is work, nothing is waited for: the time has gone into the last turn. Of a wait, a slice is left.
        let worked = if self.is_idle { 0 } else { elapsed.min(SECOND) };
        let (share, slice) = (self.share(now), self.pace.slice_ns);
        let earned = (worked * share) as i64;
        let others = (worked * 1000).saturating_sub(std::mem::take(&mut self.spent_ns));
        let part = if others >= LONG_TURN_NS { others / (1000 - share) * share } else { 0 };
        let slices = (slice * (share / SHARES_BEHIND[0].1).max(1)) as i64;
        self.credit_ns = (self.credit_ns + earned).min(earned.max(2 * slices));
        if !is_live {
            self.credit_ns = slice as i64;
        } else if self.is_idle {
            self.credit_ns = self.credit_ns.min(slice as i64);
        }
        self.credit_ns.min(slices.max(part as i64))
    }

    /// Whether sources must not be read now: a pass does not keep up, or stands before the end of the journal and cannot reach it. A pass
    /// that waits for users holds up nobody.
    pub(super) fn holds_sources(&self) -> bool {
        self.holds_sources
    }

    /// Whether each source is read once in this turn, and no more, although a pass does not keep up.
    pub(super) fn lets_sources_through(&self) -> bool {
        self.lets_sources_through
    }

    /// Events have flowed lately, or would have if no pass held them up.
    fn is_stream_live(&self, now: Micros) -> bool {
        now.saturating_sub(self.live_at) < IDLE
    }

    /// Sees whether sources are to be held up until the next turn.
    fn note_hold(&mut self, now: Micros) {
        self.hold(self.pass.is_some(), now);
    }

    fn hold(&mut self, has_pass: bool, now: Micros) {
        let is_late = self.owed >= OWED_HOLDS && now.saturating_sub(self.began) >= HOLDS_FROM;
        let stands = self.at_end_since.is_some_and(|since| now.saturating_sub(since) >= END_PATIENCE);
        let wants = has_pass && self.stopped_since.is_none() && (is_late || stands);
        let since = self.held_since.take().filter(|_| wants).unwrap_or(now);
        self.holds_sources = wants && now - since < HOLD_MAX;
        self.lets_sources_through = wants && !self.holds_sources;
        self.held_since = self.holds_sources.then_some(since);
    }

    /// Nanoseconds of work per microsecond, while events flow.
    fn share(&self, now: Micros) -> u64 {
        let age = now.saturating_sub(self.began);
        let behind = SHARES_BEHIND.iter().rev().find(|&&(from, _)| self.owed > 0 && age >= from);
        behind.map_or(SHARE, |&(_, share)| share)
    }

    /// The turn's work is done. If the share is used up, catching up rests until there is some again.
    fn rest(&mut self, is_live: bool, now: Micros) {
        let debt = if is_live { (1 - self.credit_ns).max(0).unsigned_abs() } else { 0 };
        self.rests_until = now + debt.div_ceil(self.share(now));
    }

    /// So much work has been done in one step. As much of it fits a part of a slice as this says, if it does not change too fast.
    fn fitting(&self, done: u64, cost: u64, before: u64) -> u64 {
        let fits = done * (self.pace.slice_ns / 2) / cost.max(1);
        fits.clamp(before / 4, 2 * before)
    }

    /// A piece of that many bytes has been applied.
    fn measure_piece(&mut self, bytes: u64, cost: u64) {
        let fits = self.fitting(bytes, cost, self.piece_bytes);
        self.piece_bytes = fits.clamp(*PIECE_BYTES.start(), *PIECE_BYTES.end());
    }

    /// Events have been handed to that many users.
    fn measure_users(&mut self, users: u64, cost: u64) {
        self.users_at_once = self.fitting(users, cost, self.users_at_once).clamp(1, self.pace.users);
    }

    fn spend(&mut self, ns: u64) {
        self.spent_ns += ns;
        self.credit_ns = self.credit_ns.saturating_sub_unsigned(ns).max(-DEBT_NS_MAX);
        self.worked_ns += ns;
    }

    /// The window of a user in its first pass.
    fn first_window(&self) -> usize {
        (FIRST_WINDOWS / self.by_id.len().max(1)).max(FIRST_WINDOW_MIN).min(self.limit)
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
        let all = self.full.len() == self.members && self.newcomers == 0;
        let since = *self.stopped_since.get_or_insert(now);
        let waited = self.waited + (now - since);
        let is_patient = self.full_and_fast > 0 && now - since < PATIENCE;
        if self.waits_for_all() || (is_patient && (all || waited * 1000 < self.worked_ns)) {
            // The journal grows meanwhile: the pass is not at its end any more.
            self.at_end_since = None;
            return true;
        }
        self.waited = waited;
        self.stopped_since = None;
        false
    }
}

impl Behind {
    /// It has everything below, as far as it is not in a pass.
    pub(super) fn place(&self) -> Cursor {
        self.next
    }

    /// When it was sent something last.
    pub(super) fn took_at(&self) -> Micros {
        self.took_at
    }

    /// It joins a pass, with this window if it is its first one. Who has taken everything since the last pass may take more.
    fn open_window(&mut self, first: usize, waiting: usize, limit: usize) {
        self.window = match self.window {
            0 => first,
            window if waiting == 0 => (2 * window).min(limit),
            window => window,
        };
    }

    /// The part of the bytes that is at its place or above.
    fn receive<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        if leading_number(bytes).is_none_or(|number| Cursor::before(number) >= self.next) {
            return bytes;
        }
        &bytes[crate::stream::first_line_from(bytes, self.next)..]
    }
}

#[cfg(test)]
mod tests;
