//! Puts events back in order: a ring of slots indexed by sequence number modulo capacity (SPEC section 2).
//!
//! A slot has two parts. 16 hot bytes have the type and the ids of the event. 48 cold bytes have its text. So an ordinary
//! waiting event takes exactly one cache line, and needs no allocation. Most events never use the cold part: while the chunk
//! of input in which they arrived is worked on, a slot only refers to the chunk. Such a slot is *fresh*. Events that are
//! released before the chunk is given up are never copied into the ring. [`Sequencer::settle`] copies the text of the
//! other events. Texts of more than 48 bytes are boxed. [`Ring`] manages the memory: it has as many slots as are needed,
//! up to the capacity.
//!
//! # Bounded delay
//!
//! All events that one turn leaves waiting share a deadline: the turn's time plus the timeout. A deadline is a pair
//! *(time, number)*: at that time every hole below that number is given up. Only the highest waiting number of a turn
//! matters. It matters only if it is higher than the numbers of all earlier deadlines: an earlier deadline with a higher
//! number covers it already. So there is at most one deadline per turn, deadlines are sorted by time and by number, and a
//! thousand holes cost as much as one.

#![forbid(unsafe_code)]

use super::{
    arrivals::Arrivals,
    given_up::GivenUp,
    packed::{BOXED, FRESH, INLINE_BYTES, Packed},
    ring::Ring,
};
use crate::time::Micros;
use std::collections::VecDeque;

/// The place where an event can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insertion {
    /// It has been put into the ring.
    Waiting,
    /// Its number is already waiting.
    Duplicate,
    /// Its number is below the cursor.
    Late,
    /// Its number is too far ahead of the cursor: for the ring, or for any ring.
    TooFar,
}

/// The number behind the last one.
const END: u128 = 1 << 64;

#[derive(Debug)]
pub(crate) struct Sequencer {
    ring: Ring,
    cursor: u64,
    /// How many numbers from the cursor on the ring takes: its capacity, or fewer near the highest number.
    reach: u64,
    /// Those that can be taken without another look: see [`Ring::near`].
    near: u64,
    /// The last number there is has been released.
    exhausted: bool,
    waiting: usize,
    /// All numbers from the cursor up to this one are known to wait.
    known_full: u64,
    /// How many of those are not fresh.
    settled: usize,
    /// The numbers (their low 32 bits) that were put in since the last settling.
    fresh: Vec<u32>,
    /// Holes below this number are given up.
    skip_before: u128,
    given_up: GivenUp,
    deadlines: VecDeque<(Micros, u64)>,
    timeout: Option<Micros>,
    /// No number may be farther above the cursor.
    jump_max: u64,
    /// No rule gives up a hole: see [`Sequencer::hold_gaps`].
    holds_gaps: bool,
    /// The highest number that has arrived and waits, of those that have no deadline because holes are held.
    highest_held: Option<u64>,
    pub(super) arrivals: Arrivals,
}

impl Sequencer {
    /// A ring of `capacity` slots, a power of two. `timeout` `None`: nothing is ever given up on its own.
    /// `jump_max`: how far above the cursor a number may be.
    pub(crate) fn new(capacity: usize, first: u64, timeout: Option<Micros>, jump_max: u64) -> Self {
        let mut sequencer = Self {
            ring: Ring::new(capacity),
            cursor: 0,
            reach: 0,
            near: 0,
            exhausted: false,
            waiting: 0,
            known_full: 0,
            settled: 0,
            fresh: Vec::new(),
            skip_before: 0,
            given_up: GivenUp::default(),
            deadlines: VecDeque::new(),
            timeout,
            jump_max,
            holds_gaps: false,
            highest_held: None,
            arrivals: Arrivals::default(),
        };
        sequencer.set_cursor(first.into());
        sequencer
    }

    /// Goes to a number, up to 2^64, without releasing anything or giving up a number. Nothing may be waiting.
    pub(crate) fn set_cursor(&mut self, cursor: u128) {
        assert_eq!(self.waiting, 0, "the cursor is set while the ring is empty");
        assert!(cursor <= END, "there are no numbers behind 2^64");
        self.go_to(cursor);
        self.skip_before = cursor;
        self.known_full = self.cursor;
        self.deadlines.clear();
        self.highest_held = None;
        self.update_reach();
    }

    fn go_to(&mut self, cursor: u128) {
        self.cursor = cursor as u64;
        self.exhausted = cursor == END;
    }

    /// The next number to release; 2^64 after the last one.
    pub(crate) fn cursor(&self) -> u128 {
        if self.exhausted { END } else { u128::from(self.cursor) }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// Events in the ring.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Numbers given up on since the last call.
    pub(crate) fn take_given_up(&mut self) -> GivenUp {
        std::mem::take(&mut self.given_up)
    }

    /// Whether a number is farther above the cursor than any may be.
    pub(crate) fn is_beyond_jump(&self, seq: u64) -> bool {
        !self.exhausted && seq.checked_sub(self.cursor).is_some_and(|ahead| ahead > self.jump_max)
    }

    /// Whether a number that was too far ahead has come within reach, or is late by now.
    pub(crate) fn takes(&self, seq: u64) -> bool {
        seq.wrapping_sub(self.cursor) < self.reach || self.exhausted || seq < self.cursor
    }

    /// Puts an event into the ring.
    #[inline(always)]
    pub(crate) fn put(&mut self, seq: u64, slot: Packed) -> Insertion {
        if seq.wrapping_sub(self.cursor) >= self.near
            && let Some(place) = self.look_further(seq)
        {
            return place;
        }
        let place = self.ring.slot_mut(seq);
        if !place.is_empty() {
            return self.seen(seq);
        }
        *place = slot;
        self.waiting += 1;
        self.fresh.push(seq as u32);
        Insertion::Waiting
    }

    /// Puts events into the ring, as long as each is near and the first of its number. Returns how many those are; what
    /// becomes of the next one is for [`Sequencer::put`] to say. In this loop nothing but the ring is written to.
    #[inline(always)]
    pub(crate) fn put_many(&mut self, seqs: &[u64], events: impl Iterator<Item = Packed>) -> usize {
        let (cursor, near) = (self.cursor, self.near);
        let slots = self.ring.all_slots_mut();
        let mask = slots.len() - 1;
        let mut count = 0;
        for (&seq, event) in seqs.iter().zip(events) {
            let place = &mut slots[seq as usize & mask];
            if seq.wrapping_sub(cursor) >= near || !place.is_empty() {
                break;
            }
            *place = event;
            count += 1;
        }
        self.waiting += count;
        self.fresh.extend(seqs[..count].iter().map(|&seq| seq as u32));
        count
    }

    /// Where a number goes that is not near. Makes room for it, if it can be taken.
    #[cold]
    fn look_further(&mut self, seq: u64) -> Option<Insertion> {
        let ahead = seq.wrapping_sub(self.cursor);
        if ahead >= self.reach {
            return Some(if self.exhausted || seq < self.cursor {
                Insertion::Late
            } else {
                Insertion::TooFar
            });
        }
        self.ring.make_room(ahead, self.cursor);
        self.update_reach();
        None
    }

    /// Classifies an occupied number. If nothing is missing before it, its event counts as released, and the number as
    /// late: counters must not depend on how many lines are read at a time.
    /// However many duplicates come, no slot is looked at twice before it is released.
    #[cold]
    fn seen(&mut self, seq: u64) -> Insertion {
        // Once the cursor has passed it, it says nothing.
        let known = self.known_full.wrapping_sub(self.cursor);
        let mut full = if known <= self.ring.len() as u64 { self.known_full } else { self.cursor };
        while full < seq && !self.ring.slot(full).is_empty() {
            full += 1;
        }
        self.known_full = full;
        if full >= seq { Insertion::Late } else { Insertion::Duplicate }
    }

    /// Puts an event into the ring whose text is too long for a slot to refer to it.
    pub(crate) fn put_boxed(&mut self, seq: u64, slot: Packed, text: &[u8]) -> Insertion {
        let place = self.put(seq, slot.with(FRESH | BOXED));
        if place == Insertion::Waiting {
            self.ring.put_boxed(seq, text);
        }
        place
    }

    /// The ordinary events at the cursor, one after the other, at most `max`, and the index of the first. They are still
    /// there: see [`Sequencer::take`].
    #[inline(always)]
    pub(crate) fn run(&self, max: usize) -> (usize, &[Packed]) {
        let (index, slots) = self.ring.slots(self.cursor, max);
        let all_are = |eight: &[Packed; 8]| eight.iter().fold(true, |all, slot| all & slot.is_ordinary());
        let eights = slots.as_chunks().0.iter().take_while(|eight| all_are(eight)).count();
        let (sure, rest) = slots.split_at(8 * eights);
        let more = rest.iter().take_while(|slot| slot.is_ordinary()).count();
        (index, &slots[..sure.len() + more])
    }

    /// Takes the `len` events at the cursor.
    #[inline(always)]
    pub(crate) fn take(&mut self, len: usize) {
        let slots = self.ring.slots_mut(self.cursor, len);
        if self.settled != 0 {
            let settled = slots.iter().filter(|slot| !slot.has(FRESH)).count();
            if settled != 0 {
                self.settled -= settled;
                self.arrivals.release(slots.iter().copied().filter(|slot| !slot.has(FRESH)));
            }
        }
        slots.fill(Packed::default());
        self.waiting -= len;
        self.advance(len as u64);
    }

    /// Whether nothing is there for the number at the cursor.
    pub(crate) fn misses_cursor(&self) -> bool {
        self.ring.slot(self.cursor).is_empty()
    }

    /// Takes the event at the cursor, if it is there, and its number.
    pub(crate) fn pop(&mut self) -> Option<(u64, Packed)> {
        let number = self.cursor;
        let slot = self.ring.slot(number);
        if slot.is_empty() {
            return None;
        }
        self.take(1);
        Some((number, slot))
    }

    /// Goes on to the next number that is there or that has not been given up. Says whether that is another one.
    pub(crate) fn pass_holes(&mut self) -> bool {
        let before = self.cursor;
        if self.cursor() >= self.skip_before || !self.ring.slot(before).is_empty() {
            return false;
        }
        if self.waiting == 0 {
            self.go_to(self.skip_before);
        } else {
            // Something that waits ends the hole, at the latest.
            while u128::from(self.cursor) < self.skip_before && self.ring.slot(self.cursor).is_empty() {
                self.cursor += 1;
            }
        }
        self.given_up.add(before, self.cursor.wrapping_sub(1));
        true
    }

    /// The text of the event in a slot of a run, which is not fresh.
    #[inline(always)]
    pub(crate) fn text_at(&self, index: usize) -> &[u8; INLINE_BYTES] {
        self.ring.text_at(index)
    }

    /// The text of an event that has been taken, and was neither fresh nor boxed.
    pub(crate) fn text(&self, number: u64) -> &[u8; INLINE_BYTES] {
        self.ring.text(number)
    }

    /// Hands out the text of a boxed event.
    pub(crate) fn take_boxed(&mut self, number: u64) -> Box<[u8]> {
        self.ring.take_boxed(number)
    }

    /// Must be called after events have been taken or holes passed, before the next `put`: the reach follows the cursor.
    #[inline]
    pub(crate) fn update_reach(&mut self) {
        let left = if self.exhausted { 0 } else { (u64::MAX - self.cursor).saturating_add(1) };
        self.reach = left.min(self.ring.capacity() as u64).min(self.jump_max.saturating_add(1));
        self.near = self.reach.min(self.ring.near() as u64);
    }

    #[inline(always)]
    fn advance(&mut self, by: u64) {
        let (cursor, overflow) = self.cursor.overflowing_add(by);
        self.cursor = cursor;
        self.exhausted |= overflow;
    }

    /// The chunk that fresh events refer to, which was read at `read_at`, is about to be given up: moves their texts into the
    /// ring, and sets the deadline of everything that has been put in since the last time and is still waiting.
    pub(crate) fn settle(&mut self, chunk: &[u8], read_at: Micros, now: Micros) {
        let mut left = self.waiting - self.settled;
        if left != 0 {
            let tick = self.arrivals.tick(read_at);
            self.arrivals.settle(left);
            let mut highest = 0;
            // The youngest are the likeliest to be waiting still.
            while left != 0
                && let Some(low) = self.fresh.pop()
            {
                let ahead = u64::from(low.wrapping_sub(self.cursor as u32));
                let seq = self.cursor.wrapping_add(ahead);
                if ahead < self.ring.len() as u64 && self.ring.slot(seq).has(FRESH) {
                    self.ring.settle(seq, chunk, tick);
                    highest = highest.max(ahead);
                    left -= 1;
                }
            }
            debug_assert_eq!(left, 0, "every fresh event is on the list");
            self.settled = self.waiting;
            self.set_deadline(self.cursor + highest, now);
        }
        self.fresh.clear();
        self.ring.shrink(self.cursor);
        self.update_reach();
    }

    /// The event `seq` has arrived and waits: gives it its deadline.
    pub(crate) fn set_deadline(&mut self, seq: u64, now: Micros) {
        if self.holds_gaps {
            self.highest_held = self.highest_held.max(Some(seq));
            return;
        }
        let Some(timeout) = self.timeout else {
            return;
        };
        if self.deadlines.back().is_none_or(|&(_, last)| last < seq) {
            self.deadlines.push_back((now.saturating_add(timeout), seq));
        }
    }

    /// When the next hole is given up, if nothing fills it before.
    pub(crate) fn next_deadline(&mut self) -> Option<Micros> {
        while let Some(&(at, seq)) = self.deadlines.front() {
            if u128::from(seq) >= self.cursor().max(self.skip_before) {
                return Some(at);
            }
            self.deadlines.pop_front();
        }
        None
    }

    /// Gives up the holes whose time has come: they can be passed.
    pub(crate) fn expire(&mut self, now: Micros) {
        while let Some(&(at, seq)) = self.deadlines.front()
            && at <= now
        {
            self.skip_before = self.skip_before.max(seq.into());
            self.deadlines.pop_front();
        }
    }

    /// While holes are held, no rule gives one up. Once they are not held any more, everything that has arrived counts as
    /// arriving then.
    pub(crate) fn hold_gaps(&mut self, hold: bool, now: Micros) {
        if hold && !self.holds_gaps {
            self.highest_held = self.deadlines.back().map(|&(_, seq)| seq);
            self.deadlines.clear();
        }
        self.holds_gaps = hold;
        if !hold && let Some(seq) = self.highest_held.take() {
            self.set_deadline(seq, now);
        }
    }

    pub(crate) fn holds_gaps(&self) -> bool {
        self.holds_gaps
    }

    /// Gives up every number below this one that has not come.
    pub(crate) fn skip_to(&mut self, number: u128) {
        self.skip_before = self.skip_before.max(number.min(END));
    }

    /// Nothing was read for `by`. Missing numbers get that much more time.
    pub(crate) fn postpone(&mut self, by: Micros) {
        for (at, _) in &mut self.deadlines {
            *at = at.saturating_add(by);
        }
    }

    /// The numbers that there are slots for.
    fn reachable(&self) -> impl DoubleEndedIterator<Item = u64> {
        (0..self.reach.min(self.ring.len() as u64)).map(|ahead| self.cursor + ahead)
    }

    /// Gives up the hole at the cursor: all numbers below the lowest waiting one or, where none is waiting,
    /// below `otherwise`. Says whether it did.
    pub(crate) fn skip_hole(&mut self, otherwise: Option<u64>) -> bool {
        if self.exhausted || self.holds_gaps {
            return false;
        }
        let lowest = if self.waiting == 0 {
            otherwise
        } else {
            self.reachable().find(|&seq| !self.ring.slot(seq).is_empty())
        };
        self.skip_before = self.skip_before.max(lowest.unwrap_or(0).into());
        self.skip_before > self.cursor()
    }

    /// Gives up every hole below a waiting event.
    pub(crate) fn skip_all_holes(&mut self) {
        if self.waiting == 0 || self.exhausted || self.holds_gaps {
            return;
        }
        let highest = self.reachable().rev().find(|&seq| !self.ring.slot(seq).is_empty());
        self.skip_before = self.skip_before.max(highest.unwrap_or(0).into());
    }

    /// Waiting events, in the order of the numbers: each number and its line, which is empty for a rejected one. Everything
    /// must have been settled.
    pub(crate) fn waiting_lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        debug_assert_eq!(self.settled, self.waiting, "texts are in the ring");
        self.reachable().filter(|&seq| !self.ring.slot(seq).is_empty()).map(|seq| (seq, self.ring.line(seq)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::packed::LONG;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, btree_map::Entry};

    fn event(sequencer: &mut Sequencer, seq: u64) -> Insertion {
        sequencer.put(seq, Packed::new(3, FRESH, 0, 0, 0, 1))
    }

    /// Releases everything that can be and returns the cursor.
    fn release(sequencer: &mut Sequencer) -> u128 {
        while sequencer.pop().is_some() || sequencer.pass_holes() {}
        sequencer.update_reach();
        sequencer.cursor()
    }

    #[test]
    fn a_slot_takes_one_cache_line() {
        assert_eq!(size_of::<Packed>() + INLINE_BYTES, 64);
    }

    #[test]
    fn events_leave_in_order_each_once() {
        let mut ring = Sequencer::new(8, 1, Some(1000), u64::MAX);
        for seq in [3, 2, 8] {
            assert_eq!(event(&mut ring, seq), Insertion::Waiting);
        }
        assert_eq!(event(&mut ring, 2), Insertion::Duplicate);
        assert_eq!(release(&mut ring), 1);
        assert_eq!(event(&mut ring, 3), Insertion::Duplicate);
        assert_eq!(event(&mut ring, 9), Insertion::TooFar);
        assert_eq!(event(&mut ring, 0), Insertion::Late);
        assert_eq!(event(&mut ring, 1), Insertion::Waiting);
        for seq in [1, 2, 3] {
            assert_eq!(event(&mut ring, seq), Insertion::Late, "it can be released");
        }
        assert_eq!(event(&mut ring, 8), Insertion::Duplicate);
        assert_eq!(release(&mut ring), 4);
        assert_eq!(event(&mut ring, 3), Insertion::Late);
        assert_eq!(event(&mut ring, 11), Insertion::Waiting);
        assert_eq!(event(&mut ring, 12), Insertion::TooFar);
    }

    #[test]
    fn no_slot_is_looked_at_twice_for_duplicates() {
        let mut ring = Sequencer::new(1024, 1, None, u64::MAX);
        for seq in (2..=1000).chain([1]) {
            event(&mut ring, seq);
        }
        for seq in [900, 5, 950, 900] {
            assert_eq!(event(&mut ring, seq), Insertion::Late);
        }
        assert_eq!(ring.known_full, 950, "it goes on from where it stopped");
        assert_eq!(release(&mut ring), 1001);
        event(&mut ring, 1003);
        assert_eq!(event(&mut ring, 1003), Insertion::Duplicate);
        event(&mut ring, 1001);
        event(&mut ring, 1002);
        assert_eq!(event(&mut ring, 1003), Insertion::Late);
    }

    #[test]
    fn a_deadline_covers_every_hole_below_it_and_no_more() {
        let mut ring = Sequencer::new(64, 1, Some(1000), u64::MAX);
        for seq in [3, 5, 7] {
            event(&mut ring, seq);
        }
        ring.settle(&[b'x'; 10], 0, 0);
        event(&mut ring, 6);
        ring.settle(&[b'x'; 10], 400, 400);
        event(&mut ring, 9);
        ring.settle(&[b'x'; 10], 500, 500);
        assert_eq!(ring.next_deadline(), Some(1000));
        ring.expire(999);
        assert_eq!(release(&mut ring), 1);
        ring.expire(1000);
        assert_eq!(release(&mut ring), 8);
        assert_eq!(ring.take_given_up().numbers, 3);
        assert_eq!(ring.next_deadline(), Some(1500), "6 was covered by the deadline of 7");
        ring.expire(1500);
        assert_eq!(release(&mut ring), 10);
        assert_eq!(ring.next_deadline(), None);
    }

    #[test]
    fn numbers_end_at_the_largest() {
        let mut ring = Sequencer::new(8, u64::MAX - 3, Some(0), u64::MAX);
        assert_eq!(event(&mut ring, 2), Insertion::Late);
        for seq in (u64::MAX - 3)..=u64::MAX {
            assert_eq!(event(&mut ring, seq), Insertion::Waiting);
        }
        assert_eq!(release(&mut ring), 1 << 64);
        assert_eq!(event(&mut ring, 0), Insertion::Late);
        assert_eq!(event(&mut ring, u64::MAX), Insertion::Late);
    }

    #[test]
    fn the_hole_in_front_is_skipped_alone() {
        let mut ring = Sequencer::new(8, 0, None, u64::MAX);
        event(&mut ring, 2);
        event(&mut ring, 5);
        ring.skip_hole(Some(1_000_000));
        assert_eq!(release(&mut ring), 3);
        ring.skip_all_holes();
        assert_eq!(release(&mut ring), 6);
        ring.skip_hole(Some(1_000_000));
        assert_eq!(release(&mut ring), 1_000_000);
        assert_eq!(ring.take_given_up().to_string(), "0-1, 3-4, 6-999999");
    }

    /// One byte that can be told from its neighbours, or a text that must be boxed.
    fn text(seq: u64) -> Vec<u8> {
        let len = if seq.is_multiple_of(7) { INLINE_BYTES + 1 } else { 1 };
        vec![seq as u8; len]
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// So far ahead of the cursor.
        Put(u64),
        /// So many at the cursor, one after the other.
        PutInOrder(u64),
        Settle,
        SkipHole,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            10 => prop_oneof![8 => 0..10u64, 2 => 0..100u64, 2 => 0..300u64].prop_map(Step::Put),
            4 => (1..400u64).prop_map(Step::PutInOrder),
            4 => Just(Step::Settle),
            1 => Just(Step::SkipHole),
        ]
    }

    proptest! {
        #[test]
        fn whatever_size_the_ring_has_it_keeps_what_waits(
            first in prop_oneof![Just(1), any::<u64>()],
            steps in prop::collection::vec(step(), 0..300),
        ) {
            const CAPACITY: u64 = 256;
            let mut ring = Sequencer::new(CAPACITY as usize, first, Some(1), u64::MAX);
            let mut waiting: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
            let mut chunk = Vec::new();
            for step in steps {
                let Ok(cursor) = u64::try_from(ring.cursor()) else { break };
                let (from, count) = match step {
                    Step::Put(ahead) => (cursor.checked_add(ahead), 1),
                    Step::PutInOrder(count) => (Some(cursor), count),
                    Step::Settle => {
                        ring.settle(&chunk, 0, 0);
                        chunk.clear();
                        (None, 0)
                    }
                    Step::SkipHole => {
                        ring.skip_hole(None);
                        (None, 0)
                    }
                };
                for seq in from.into_iter().flat_map(|from| from..=from.saturating_add(count.saturating_sub(1))) {
                    let text = text(seq);
                    let long = if text.len() > INLINE_BYTES { LONG } else { 0 };
                    let slot = Packed::new(3, FRESH | long, 0, 0, chunk.len() as u32, text.len() as u16);
                    chunk.extend_from_slice(&text);
                    let Ok(at) = u64::try_from(ring.cursor()) else { break };
                    let place = ring.put(seq, slot);
                    if seq < at {
                        prop_assert_eq!(place, Insertion::Late);
                    } else if seq - at >= CAPACITY {
                        prop_assert_eq!(place, Insertion::TooFar);
                    } else if let Entry::Vacant(entry) = waiting.entry(seq) {
                        prop_assert_eq!(place, Insertion::Waiting);
                        entry.insert(text);
                    } else {
                        prop_assert!(matches!(place, Insertion::Duplicate | Insertion::Late));
                    }
                    prop_assert_eq!(ring.waiting(), waiting.len());
                    if count > 1 {
                        take_all(&mut ring, &mut waiting, &chunk)?;
                    }
                }
                take_all(&mut ring, &mut waiting, &chunk)?;
            }
        }
    }

    /// Takes all events that can be taken, and compares them with the events that were put there.
    fn take_all(
        ring: &mut Sequencer,
        waiting: &mut BTreeMap<u64, Vec<u8>>,
        chunk: &[u8],
    ) -> Result<(), TestCaseError> {
        loop {
            while let Some((seq, slot)) = ring.pop() {
                let boxed;
                let text = if slot.has(BOXED) {
                    boxed = ring.take_boxed(seq);
                    &boxed[..]
                } else if slot.has(FRESH) {
                    &chunk[slot.text()..][..slot.len()]
                } else {
                    &ring.text(seq)[..slot.len()]
                };
                let expected = waiting.remove(&seq);
                prop_assert_eq!(Some(text), expected.as_deref(), "the event {}", seq);
            }
            if !ring.pass_holes() {
                break;
            }
        }
        ring.update_reach();
        let cursor = ring.cursor();
        prop_assert!(
            waiting.first_key_value().is_none_or(|(&seq, _)| u128::from(seq) > cursor),
            "none is left"
        );
        Ok(())
    }
}
