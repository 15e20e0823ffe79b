//! The engine: its parts in a row, and its operations.

#![forbid(unsafe_code)]

use super::counters::EngineCounters;
use super::{
    arch::{Cpu, Lines},
    arrivals::Arrival,
    config::EngineConfig,
    event::{Event, Reject, parse_line},
    fanout::{FanOut, TurnLimits},
    given_up::GivenUp,
    graph::{Graph, Walk},
    packed::{BOXED, FRESH, Packed},
    rejects::Rejects,
    released::{Record, Released},
    run::{Runner, apply_one},
    sequencer::Sequencer,
    text::Text,
    user_slot::{NO_SLOT, UserSlot},
};
use crate::{
    sequence::{Cursor, SequenceNumber},
    time::Micros,
    user_id::UserId,
};

/// So much is done at a time for users who follow very many others and have come or gone: less than a millisecond.
const SETTLE_STEPS: usize = if cfg!(test) { 5 } else { 4096 };

/// Lines in, *(user, bytes)* out: no sockets, no clock, no logging. See the [module](super).
///
/// ```
/// use fortnight::{Engine, EngineConfig, UserId};
///
/// let mut engine = Engine::new(&EngineConfig::default());
/// let seven = engine.connect(UserId::new(7));
/// let chunk = b"2|P|1|7\n1|F|7|1\n3|S|1\n";
/// engine.feed(chunk, 0..chunk.len());
/// let mut received = Vec::new();
/// engine.deliver(|user, bytes| received.push((user, bytes.to_vec())));
/// assert_eq!(received, [(seven, b"2|P|1|7\n3|S|1\n".to_vec())]);
/// // Events that wait for missing numbers are saved before the chunk is used again.
/// engine.settle(chunk, 0, 0);
/// ```
#[derive(Debug)]
pub struct Engine {
    pub(super) sequencer: Sequencer,
    pub(super) graph: Graph,
    pub(super) fanout: FanOut,
    pub(super) record: Record,
    /// The walk over the graph that is under way.
    pub(super) walk: Option<Walk>,
    pub(super) event_bytes_max: usize,
    pub(super) first_sequence: u64,
    /// The counters of the engine.
    pub counters: EngineCounters,
    pub(super) rejects: Rejects,
    pub(super) runner: Runner,
    pub(super) cpu: Cpu,
    pub(super) lines: Box<Lines>,
}

impl Engine {
    /// An engine with an empty graph, its cursor at the first number.
    ///
    /// # Panics
    ///
    /// If the capacity is no power of two.
    #[must_use]
    pub fn new(config: &EngineConfig) -> Self {
        Self::on(config, Cpu::up_to(config.instruction_set))
    }

    /// An engine that uses the given features of the processor.
    pub(super) fn on(config: &EngineConfig, cpu: Cpu) -> Self {
        let limits = TurnLimits {
            user_bytes: config.turn_bytes_max,
            mean_bytes: config.turn_bytes_mean,
            event_bytes: config.event_bytes_max,
        };
        Self {
            sequencer: Sequencer::new(
                config.capacity,
                config.first_sequence,
                config.timeout,
                config.max_sequence_jump.unwrap_or(u64::MAX),
            ),
            graph: Graph::default(),
            fanout: FanOut::new(limits, cpu),
            record: Record::off(),
            walk: None,
            event_bytes_max: config.event_bytes_max,
            first_sequence: config.first_sequence,
            counters: EngineCounters::default(),
            rejects: Rejects::default(),
            runner: Runner::new(cpu),
            cpu,
            lines: Box::default(),
        }
    }

    /// The user `id` has logged in; it must not be connected already. Returns its slot: a small number, free again once
    /// it has gone. Everything owed must have been delivered.
    pub fn connect(&mut self, id: UserId) -> UserSlot {
        self.settle_users();
        let slot = self.fanout.connect();
        self.graph.connect(id, slot);
        UserSlot(slot)
    }

    /// The user `id` has gone from `slot`. Everything owed must have been delivered.
    pub fn disconnect(&mut self, id: UserId, UserSlot(slot): UserSlot) {
        self.settle_users();
        self.fanout.disconnect(slot);
        if self.graph.disconnect(id) {
            self.fanout.free(slot);
        }
    }

    /// Between turns: continues the work that logins, logouts and a smaller graph have left over.
    pub(super) fn begin_turn(&mut self) {
        if self.fanout.is_empty() {
            self.settle_users();
            if self.walk.is_none() {
                self.graph.shrink();
            }
        }
    }

    fn settle_users(&mut self) {
        if self.graph.is_settling() {
            let Self { graph, fanout, .. } = self;
            graph.settle(SETTLE_STEPS, |slot| fanout.free(slot));
        }
    }

    /// Whether a user of that id is connected, and its slot.
    #[must_use]
    pub fn slot(&self, id: UserId) -> Option<UserSlot> {
        Some(self.graph.slot(id)).filter(|&slot| slot != NO_SLOT).map(UserSlot)
    }

    /// Releases the events that need no new line. Returns whether the turn is full. Then there may be more events to release:
    /// deliver, and call this again.
    pub fn release_waiting(&mut self) -> bool {
        self.begin_turn();
        self.release(&[])
    }

    /// Counts a line that was no event. `line` may be only the beginning of the line.
    pub fn count_rejected(&mut self, reason: Reject, seq: Option<SequenceNumber>, line: &[u8]) {
        self.counters.events_rejected[reason as usize] += 1;
        self.rejects.add(reason, seq, line);
    }

    /// The lines that were rejected since the last call, for the log.
    pub fn take_rejects(&mut self) -> Rejects {
        std::mem::take(&mut self.rejects)
    }

    /// Releases events while the one at the cursor is there and the turn has room. Says whether room is what
    /// ended it.
    #[inline(always)]
    pub(super) fn release(&mut self, chunk: &[u8]) -> bool {
        let full = loop {
            let room = self.room();
            if room == 0 {
                break true;
            }
            let Self { sequencer, graph, fanout, record, counters, runner, .. } = self;
            let (index, run) = sequencer.run(room);
            let len = run.len();
            if len > 0 {
                let text = |place, slot: Packed| Text {
                    bytes: if slot.has(FRESH) {
                        &chunk[slot.text()..]
                    } else {
                        sequencer.text_at(index + place)
                    },
                    len: slot.len(),
                };
                if record.is_on() {
                    record.push_run(run, text);
                }
                runner.apply(run, graph, fanout, counters, text);
                sequencer.take(len);
            } else if let Some((number, slot)) = self.sequencer.pop() {
                self.apply_unusual(number, slot, chunk);
            } else if !self.sequencer.pass_holes() {
                break false;
            }
        };
        self.sequencer.update_reach();
        full
    }

    /// The number of events that may be released before the turn is full for a listener.
    #[inline(always)]
    pub(super) fn room(&self) -> usize {
        if self.record.is_full() {
            0
        } else if self.graph.is_settling() {
            self.fanout.room().min(1)
        } else {
            self.fanout.room()
        }
    }

    /// An event whose ids or text do not fit a slot.
    #[cold]
    fn apply_unusual(&mut self, number: u64, slot: Packed, chunk: &[u8]) {
        let len = slot.len();
        let (boxed, settled);
        let text = if slot.has(BOXED) {
            boxed = self.sequencer.take_boxed(number);
            &boxed[..]
        } else if slot.has(FRESH) {
            &chunk[slot.text()..][..len]
        } else {
            settled = *self.sequencer.text(number);
            &settled[..len]
        };
        let content = text.strip_suffix(b"\n").unwrap_or(text);
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        let event = parse_line(content);
        debug_assert!(event.is_ok(), "it was an event when it arrived");
        if let Ok(event) = event {
            self.apply_event(&event, text);
        }
    }

    /// Releases an event by itself.
    pub(super) fn apply_event(&mut self, event: &Event, text: &[u8]) {
        if self.record.is_on() {
            self.record.push(text);
        }
        let Self { graph, fanout, counters, .. } = self;
        let text = Text { bytes: text, len: text.len() };
        apply_one(event.kind as u8, (event.from, event.to), text, graph, fanout, counters);
    }

    /// Turns the record of what is released on. After `bytes_max` bytes of lines, give or take a run of 256, the turn is full until
    /// [`Engine::take_released`] has been called. The lines are kept behind `headroom` zero bytes: a header may be
    /// written there in place.
    pub fn record(&mut self, bytes_max: usize, headroom: usize) {
        self.record_aligned(bytes_max, headroom, 1);
    }

    /// The same, with the headroom at a multiple of `alignment`, a power of two, in memory: more zero bytes stand before it then. It is a
    /// wish. A buffer that has to grow does not fulfil it, the next use of the same buffer does.
    pub fn record_aligned(&mut self, bytes_max: usize, headroom: usize, alignment: usize) {
        self.record.turn_on(self.cursor(), bytes_max, headroom, alignment);
    }

    /// Swaps out the events that were released since the last call. The engine goes on with the buffer of `block`. If the
    /// cursor has not moved, or if there is no record, `block` stays as it is, and the result is false.
    pub fn take_released(&mut self, block: &mut Released) -> bool {
        self.record.take(self.cursor(), block)
    }

    /// Hands every user that is owed something its bytes, in one piece each, and ends the turn.
    pub fn deliver(&mut self, mut write: impl FnMut(UserSlot, &[u8])) {
        if !self.fanout.is_empty() {
            self.fanout.deliver(usize::MAX, |slot, bytes| write(UserSlot(slot), bytes));
        }
    }

    /// As [`Engine::deliver`], but for at most this number of users. Says whether the turn has ended. Before, nothing else may be
    /// released, and nobody may come or go.
    pub fn deliver_some(&mut self, users: usize, mut write: impl FnMut(UserSlot, &[u8])) -> bool {
        self.fanout.is_empty() || self.fanout.deliver(users, |slot, bytes| write(UserSlot(slot), bytes))
    }

    /// Whether a user will still be handed something by [`Engine::deliver_some`], of which there was a first call.
    #[must_use]
    pub fn owes(&self, slot: UserSlot) -> bool {
        self.fanout.owes(slot.0)
    }

    /// Whether nothing waits to be delivered.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        self.fanout.is_empty()
    }

    /// Must be called at time `now` before the chunk last fed, which was read at `read_at`, is changed: what waits in the ring
    /// is saved and gets its deadline.
    pub fn settle(&mut self, chunk: &[u8], read_at: Micros, now: Micros) {
        self.sequencer.arrivals.account(&self.counters, read_at);
        self.sequencer.settle(chunk, read_at, now);
    }

    /// Whether [`Engine::take_arrivals`] has something to hand out.
    #[must_use]
    pub fn has_arrivals(&self) -> bool {
        self.sequencer.arrivals.has_any(&self.counters)
    }

    /// Hands out when the events came that have been released since the last call. Those that are not known of from
    /// [`Engine::settle`] came at `now`: they were replayed.
    pub fn take_arrivals(&mut self, now: Micros, arrival: impl FnMut(Arrival)) {
        self.sequencer.arrivals.account(&self.counters, now);
        self.sequencer.arrivals.take(arrival);
    }

    /// Tells that an event which does not fit the ring has arrived, so that it does not wait for ever either.
    pub fn set_deadline(&mut self, seq: SequenceNumber, now: Micros) {
        self.sequencer.set_deadline(seq.get(), now);
    }

    /// When [`Engine::expire`] has something to do next.
    pub fn next_deadline(&mut self) -> Option<Micros> {
        self.sequencer.next_deadline()
    }

    /// Gives up the holes whose time has come. [`Engine::release_waiting`] releases the events behind them.
    pub fn expire(&mut self, now: Micros) {
        self.sequencer.expire(now);
    }

    /// Nothing was read for `by`: holes get that much more time.
    pub fn postpone(&mut self, by: Micros) {
        self.sequencer.postpone(by);
    }

    /// Gives up the hole at the cursor, up to the lowest waiting number or, if none is waiting, to `otherwise`. Returns
    /// whether there was one to give up; while holes are held there is none.
    pub fn skip_hole(&mut self, otherwise: Option<SequenceNumber>) -> bool {
        self.sequencer.skip_hole(otherwise.map(SequenceNumber::get))
    }

    /// Gives up every number below `number` that has not come, even while holes are held.
    pub fn skip_to(&mut self, number: Cursor) {
        self.sequencer.skip_to(number.get());
    }

    /// While holes are held, no rule gives one up (SPEC section 2, *Grace*). When that ends, at time `now`, everything that
    /// waits counts as arriving then.
    pub fn hold_gaps(&mut self, hold: bool, now: Micros) {
        self.sequencer.hold_gaps(hold, now);
    }

    /// Whether holes are held.
    #[must_use]
    pub fn holds_gaps(&self) -> bool {
        self.sequencer.holds_gaps()
    }

    /// Gives up all holes below the highest waiting number.
    pub fn skip_all_holes(&mut self) {
        self.sequencer.skip_all_holes();
    }

    /// Whether the line that `Stop::Blocked` named can be fed by now.
    #[must_use]
    pub fn takes(&self, seq: SequenceNumber) -> bool {
        self.sequencer.takes(seq.get())
    }

    /// Begins a new run: cursor at the first number, no edges. Nothing may be waiting, and what the record has must have been
    /// taken. A walk over the graph ends.
    ///
    /// # Panics
    ///
    /// If events are waiting, or in the record.
    pub fn restart(&mut self) {
        assert!(self.record.is_empty(self.cursor()), "what was released has been taken");
        self.sequencer.set_cursor(self.first_sequence.into());
        self.record.restart(Cursor::before(SequenceNumber::new(self.first_sequence)));
        let Self { graph, fanout, .. } = self;
        graph.clear_edges(|slot| fanout.free(slot));
        self.walk = None;
    }

    /// Goes to a number, up to 2^64, without releasing anything or giving up a number: for what was released before, by
    /// another engine. Nothing may be waiting, and what the record has must have been taken.
    ///
    /// # Panics
    ///
    /// If the number is above 2^64, if events are waiting, or in the record.
    pub fn set_cursor(&mut self, cursor: Cursor) {
        assert!(self.record.is_empty(self.cursor()), "what was released has been taken");
        self.sequencer.set_cursor(cursor.get());
        self.record.move_to(cursor);
    }

    /// Adds an edge to the follow graph without an event: for edges of a snapshot.
    pub fn add_edge(&mut self, follower: UserId, followed: UserId) {
        self.graph.change(follower, followed, true);
    }

    /// Begins a walk over the follow graph, which [`Engine::walk_snapshot`] goes on with; one that is under way is dropped.
    /// Returns the cursor. The edges that the walk hands out are those at this cursor, except that the events released
    /// until its end may or may not be taken into account. Replaying these events on top makes it exact, because the
    /// last event of an edge decides whether it is there.
    pub fn begin_snapshot(&mut self) -> Cursor {
        self.walk = Some(Walk::default());
        self.cursor()
    }

    /// Goes on with the walk: hands out up to `budget` edges as *(follower, followed)*, some of them perhaps twice. A user
    /// and 64 bits of a user's set count as much as an edge. Returns whether the walk is over; so it is if there is none.
    pub fn walk_snapshot(&mut self, budget: usize, edge: impl FnMut(UserId, UserId)) -> bool {
        let done = self.walk.as_mut().is_none_or(|walk| self.graph.walk(walk, budget, edge));
        if done {
            self.walk = None;
        }
        done
    }

    /// The next number to release; 2^64 after the last one.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self.sequencer.cursor())
    }

    /// Whether the event at the cursor has not come.
    #[must_use]
    pub fn misses_cursor(&self) -> bool {
        self.sequencer.misses_cursor()
    }

    /// Events that wait in the ring.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.sequencer.waiting()
    }

    /// The waiting events, in the order of their numbers: each number and its line. An empty line stands for a rejected
    /// line that only uses up its number. The chunks must have been [settled](Engine::settle).
    pub fn waiting_lines(&self) -> impl Iterator<Item = (SequenceNumber, &[u8])> {
        self.sequencer.waiting_lines().map(|(number, line)| (SequenceNumber::new(number), line))
    }

    /// Uses up a number, as a rejected line does, if the ring takes it.
    pub fn use_up(&mut self, number: SequenceNumber) {
        self.put_void(number);
    }

    /// Slots of the ring.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.sequencer.capacity()
    }

    /// Edges of the follow graph.
    #[must_use]
    pub fn follow_edges(&self) -> u64 {
        self.graph.edges()
    }

    /// Connected users.
    #[must_use]
    pub fn users(&self) -> usize {
        self.fanout.users()
    }

    /// The numbers given up since the last call. Adds them to the counters.
    pub fn take_given_up(&mut self) -> GivenUp {
        let given_up = self.sequencer.take_given_up();
        self.counters.sequence_skipped = self.counters.sequence_skipped.saturating_add(given_up.numbers);
        given_up
    }
}
