//! Fan-out: from a turn's released events to one write per user.
//!
//! Events with at least one recipient are put on the *tape*, one after the other. Each event is there once. The recipients
//! of an event are a *row* of bits, one per user slot: the audience of a status update, all ones for a broadcast, a single
//! one for a private message. 64 rows make a block, which is transposed as soon as it is full: then each user has a
//! word per block that says which of its events are for it. At the end of the turn each user's bytes are
//! *gathered* from the tape into a scratch buffer that stays in cache, and handed over as one piece:
//!
//! ```text
//!                 users                            events
//!              0 1 2 3 …                         0 1 2 3 …
//!   event 0  [ 1 0 1 0 ]             user 0    [ 1 0 0 1 ]  → gather → write
//!   event 1  [ 0 0 1 0 ]  transpose  user 1    [ 0 0 0 1 ]  → gather → write
//!   event 2  [ 0 0 1 1 ]  ────────▶  user 2    [ 1 1 1 1 ]  → the tape itself → write
//!   event 3  [ 1 1 1 0 ]             user 3    [ 0 0 1 0 ]  → gather → write
//! ```
//!
//! So before the gather, the cost of an event hardly depends on its number of recipients. A delivery is one short copy.
//! A user that gets everything is handed the tape itself. Only where a row would be almost empty (one
//! recipient among thousands of users) the event goes into the user's own chain ([`Mail`]) and is merged in by the gather.
//!
//! The [`Gatherer`] does the gather. It knows the features of the processor.

#![forbid(unsafe_code)]

use super::{
    arch::{Cpu, gather::Owed, partition::RUN},
    bits::{for_each_bit, take_bits},
    gatherer::Gatherer,
    graph::Audience,
    mail::{Mail, TEXT_MAX},
    packed::INLINE_BYTES,
    relation::Columns,
    rows::Rows,
    tape::Tape,
    text::Text,
    user_slot::UserSlots,
};

/// Memory that all chains together may take in a turn.
const MAIL_BYTES_MAX: usize = 64 << 20;
/// A row is used if it has at most so many words per recipient.
const WORDS_PER_RECIPIENT_MAX: usize = 2;

/// Limits of one turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnLimits {
    /// Bytes that one user may be owed by one turn, give or take an event.
    pub(crate) user_bytes: usize,
    /// Bytes per connected user after which a turn is worth being written.
    pub(crate) mean_bytes: usize,
    /// Longest event.
    pub(crate) event_bytes: usize,
}

/// A turn's events and their recipients.
#[derive(Debug)]
pub(crate) struct FanOut {
    limits: TurnLimits,
    slots: UserSlots,
    tape: Tape,
    rows: Rows,
    mail: Mail,
    gatherer: Gatherer,
    cpu: Cpu,
    owed_bytes: usize,
    /// Bytes of the longest chain of mail.
    longest_mail: usize,
    /// From here on the turn is worth being delivered.
    owed_bytes_max: usize,
    /// The rows or the mail of all users have reached their limit of memory.
    full: bool,
    /// Users are being handed their bytes of this turn: that is the number of its events.
    handing_out: Option<usize>,
}

impl FanOut {
    pub(crate) fn new(limits: TurnLimits, cpu: Cpu) -> Self {
        Self {
            limits,
            slots: UserSlots::default(),
            tape: Tape::default(),
            rows: Rows::default(),
            mail: Mail::default(),
            gatherer: Gatherer::new(cpu),
            cpu,
            owed_bytes: 0,
            longest_mail: 0,
            owed_bytes_max: 0,
            full: false,
            handing_out: None,
        }
    }

    /// Gives a user the lowest slot that is free. The turn must be empty.
    pub(crate) fn connect(&mut self) -> u32 {
        let slot = self.slots.connect();
        self.slots_changed();
        slot
    }

    /// The user at a slot has gone; the slot is not free yet. The turn must be empty.
    pub(crate) fn disconnect(&mut self, slot: u32) {
        self.slots.disconnect(slot);
        self.slots_changed();
    }

    /// Takes the slot of a user that has gone back. The turn must be empty.
    pub(crate) fn free(&mut self, slot: u32) {
        self.slots.free(slot);
        self.slots_changed();
    }

    fn slots_changed(&mut self) {
        assert!(self.is_empty(), "users come and go between turns");
        self.owed_bytes_max = self.slots.users() * self.limits.mean_bytes;
        let words = self.slots.words();
        if words != self.rows.words() {
            self.rows.set_words(words);
            self.mail.set_slots(words * 64);
            if self.tape.is_unmade() {
                self.make_tape();
            }
        }
    }

    /// A tape's worth of room, once.
    fn make_tape(&mut self) {
        self.tape.make(self.limits.user_bytes + self.limits.event_bytes);
    }

    /// Whether an event of that length is not longer than the longest.
    pub(crate) fn fits(&self, event_bytes: usize) -> bool {
        event_bytes <= self.limits.event_bytes
    }

    /// Makes room for events of that length. The turn must be empty.
    pub(crate) fn make_fit(&mut self, event_bytes: usize) {
        assert!(self.is_empty(), "the tape grows between turns");
        self.limits.event_bytes = event_bytes;
        if !self.tape.is_unmade() {
            self.make_tape();
        }
    }

    /// Connected users.
    pub(crate) fn users(&self) -> usize {
        self.slots.users()
    }

    /// Nobody is owed anything.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.owed_bytes == 0
    }

    /// How many ordinary events the turn has room for, whomever they concern, up to [`RUN`]. If there is none, it must be
    /// delivered before the next event is pushed.
    #[inline(always)]
    pub(crate) fn room(&self) -> usize {
        if self.full || (self.owed_bytes >= self.owed_bytes_max && !self.is_empty()) {
            return 0;
        }
        let used = self.tape.len().max(self.longest_mail);
        (self.limits.user_bytes.saturating_sub(used) / INLINE_BYTES).min(RUN)
    }

    /// An event for everyone. Returns how many that is.
    pub(crate) fn broadcast(&mut self, text: Text<'_>) -> usize {
        let users = self.slots.users();
        if users > 0 {
            let place = self.push_text(text, users);
            self.rows.set(place, self.slots.connected());
            self.row_done(place);
        }
        users
    }

    /// An event for an audience. Returns how many that is.
    #[inline(always)]
    pub(crate) fn multicast(&mut self, audience: Audience<'_>, text: Text<'_>) -> usize {
        let recipients = audience.len;
        let Columns::Bits(words) = audience.slots else {
            return self.multicast_few(audience, text);
        };
        if self.rows.words() > WORDS_PER_RECIPIENT_MAX * recipients || recipients == 0 {
            return self.multicast_few(audience, text);
        }
        let place = self.push_text(text, recipients);
        self.rows.set(place, words);
        self.row_done(place);
        recipients
    }

    /// Where a row would have little in it, or has to be made.
    fn multicast_few(&mut self, audience: Audience<'_>, text: Text<'_>) -> usize {
        let recipients = audience.len;
        if self.rows.words() > WORDS_PER_RECIPIENT_MAX * recipients && text.len <= TEXT_MAX {
            audience.slots.for_each(|slot| self.push_mail(slot as usize, text));
        } else if recipients > 0 {
            let place = self.push_text(text, recipients);
            self.rows.set(place, &[]);
            audience.slots.for_each(|slot| self.rows.add(place, slot as usize));
            self.row_done(place);
        }
        recipients
    }

    /// An event for one user. Returns that it is one.
    #[inline(always)]
    pub(crate) fn unicast(&mut self, slot: u32, text: Text<'_>) -> usize {
        let slot = slot as usize;
        if self.rows.words() > WORDS_PER_RECIPIENT_MAX && text.len <= TEXT_MAX {
            self.push_mail(slot, text);
        } else {
            let place = self.push_text(text, 1);
            self.rows.set(place, &[]);
            self.rows.add(place, slot);
            self.row_done(place);
        }
        1
    }

    #[inline(always)]
    fn push_mail(&mut self, slot: usize, text: Text<'_>) {
        self.mail.push(slot, self.tape.events() as u32, text);
        self.rows.owe(slot);
        self.owed_bytes += text.len;
        self.full |= self.mail.bytes() >= MAIL_BYTES_MAX;
        self.longest_mail = self.longest_mail.max(self.mail.bytes_of(slot));
    }

    /// Puts an event on the tape and returns its place there. Its row must be written next.
    #[inline(always)]
    fn push_text(&mut self, text: Text<'_>, recipients: usize) -> usize {
        self.owed_bytes += text.len * recipients;
        self.tape.push(text)
    }

    #[inline(always)]
    fn row_done(&mut self, place: usize) {
        if place % 64 == 63 {
            self.block_done(place / 64, 64);
        }
    }

    /// The block has its `events`.
    fn block_done(&mut self, block: usize, events: usize) {
        self.tape.block_done(block);
        self.full |= self.rows.block_done(self.cpu, block, events);
    }

    /// Hands users the bytes of their events in one piece each: at most this number of users at once. Says whether those were the last.
    /// Then the turn has ended; before, nothing may be pushed.
    pub(crate) fn deliver(&mut self, users: usize, mut write: impl FnMut(u32, &[u8])) -> bool {
        let events = self.handing_out.unwrap_or(self.tape.events());
        if self.handing_out.replace(events).is_none()
            && let Some((block, events)) = self.tape.pad()
        {
            self.block_done(block, events);
        }
        let user_bytes = 2 * (self.limits.user_bytes + self.limits.event_bytes + TEXT_MAX);
        let mut left = self.rows.take_owed();
        let slots = take_bits(&mut left, users);
        let Self { tape, rows, mail, gatherer, .. } = self;
        let (matrix, slots_of_group) = rows.matrix();
        let owed = Owed {
            tape: tape.bytes(),
            start: tape.start(),
            len: tape.len(),
            events,
            ends: tape.ends(),
            blocks: tape.blocks(),
            matrix,
            slots: slots_of_group,
            mail,
        };
        gatherer.begin(&owed, user_bytes);
        for_each_bit(&slots, |slot| {
            if mail.is_empty(slot) && rows.gets_all(slot) {
                write(slot as u32, tape.events_bytes());
            } else {
                gatherer.gather(&owed, slot, &mut write);
            }
        });
        gatherer.finish(&owed, &mut write);
        for_each_bit(&slots, |slot| mail.clear(slot));
        let is_done = left.iter().all(|&word| word == 0);
        if is_done {
            self.reset(slots);
        } else {
            self.rows.give_back(left);
        }
        is_done
    }

    /// Whether a slot will be handed something, once users have begun to be handed their bytes.
    pub(crate) fn owes(&self, slot: u32) -> bool {
        self.rows.owes(slot as usize)
    }

    fn reset(&mut self, owed: Vec<u64>) {
        self.rows.reset(owed);
        self.mail.reset();
        self.tape.reset();
        self.owed_bytes = 0;
        self.longest_mail = 0;
        self.full = false;
        self.handing_out = None;
    }
}
