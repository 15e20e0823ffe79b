//! Fan-out: from a turn's released events to one write per user.
//!
//! The events that anyone gets are put on the *tape*, one after the other, their bytes once. Who gets an
//! event is a *row* of bits, one per user slot: the audience of a status update, all ones for a broadcast, a single
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
//! So what an event costs before the gather hardly depends on how many users get it, and a delivery is one short copy.
//! A user that gets everything is handed the tape itself. Only where a row would be almost empty (one
//! recipient among thousands of users) the event goes into the user's own chain ([`Mail`]) and is merged in by the gather.
//!
//! The gather in [`gather`](super::gather) goes from event to event. For users that get much of the tape there is another one
//! in [`cpu`](super::cpu) for processors with AVX-512, which goes over all of it.

use super::{
    cpu::{ABREAST, Cpu, Insert, Marks, prefetch},
    gather::{Block, SLACK},
    graph::Audience,
    idset::for_each_bit,
    mail::{Mail, TEXT_MAX},
    relation::Columns,
    run::RUN,
    sequencer::INLINE_BYTES,
    text::Text,
    transpose::transpose,
};

/// Words of one user that lie side by side: a cache line.
const GROUP: usize = 8;
const EVENTS_OF_GROUP: usize = GROUP * 64;
/// Memory that the transposed rows may take; with very many users it ends the turn early.
const MATRIX_BYTES_MAX: usize = 16 << 20;
/// Memory that all chains together may take in a turn.
const MAIL_BYTES_MAX: usize = 64 << 20;
/// The tape begins where a cache line does: reading it is a matter of whole ones.
const CACHE_LINE: usize = 64;
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
    /// Bit per slot: connected.
    connected: Vec<u64>,
    /// Bit per slot: connected, or not free yet.
    taken: Vec<u64>,
    users: usize,
    tape: Vec<u8>,
    /// Where in `tape` it begins and ends.
    tape_start: usize,
    tape_end: usize,
    /// Where each event on the tape ends, after where the first one begins.
    ends: Vec<u32>,
    /// The blocks that are done.
    blocks: Vec<Block>,
    /// The block that is being filled: word *w* of row *j* is at `64 * w + j`.
    rows: Vec<[u64; 64]>,
    /// Transposed blocks: `[group of blocks][slot][block in group]`.
    matrix: Vec<[u64; GROUP]>,
    mail: Mail,
    /// Bit per slot: it gets something.
    owed: Vec<u64>,
    /// Bit per slot: it gets all that is on the tape, up to the last block that is done.
    all: Vec<u64>,
    owed_bytes: usize,
    /// Bytes of the longest chain of mail.
    longest_mail: usize,
    /// From here on the turn is worth being delivered.
    owed_bytes_max: usize,
    /// A limit of what all users' rows or mail take has been reached.
    full: bool,
    scratch: Vec<u8>,
    cpu: Cpu,
    marks: Marks,
    /// Mail of the users that are gathered abreast.
    inserts: Vec<Insert>,
}

impl FanOut {
    pub(crate) fn new(limits: TurnLimits, cpu: Cpu) -> Self {
        Self {
            limits,
            connected: Vec::new(),
            taken: Vec::new(),
            users: 0,
            tape: Vec::new(),
            tape_start: 0,
            tape_end: 0,
            ends: vec![0],
            blocks: Vec::new(),
            rows: Vec::new(),
            matrix: Vec::new(),
            mail: Mail::default(),
            owed: Vec::new(),
            all: Vec::new(),
            owed_bytes: 0,
            longest_mail: 0,
            owed_bytes_max: 0,
            full: false,
            scratch: Vec::new(),
            cpu,
            marks: Marks::default(),
            inserts: Vec::new(),
        }
    }

    /// Gives a user the lowest slot that is free. The turn must be empty.
    pub(crate) fn connect(&mut self) -> u32 {
        assert!(self.is_empty(), "users come and go between turns");
        let word = self.taken.iter().position(|&word| word != u64::MAX).unwrap_or(self.taken.len());
        if word == self.taken.len() {
            self.set_words(word + 1);
        }
        let bit = self.taken[word].trailing_ones();
        self.taken[word] |= 1 << bit;
        self.connected[word] |= 1 << bit;
        self.users += 1;
        self.owed_bytes_max = self.users * self.limits.mean_bytes;
        word as u32 * 64 + bit
    }

    /// The user at a slot has gone; the slot is not free yet. The turn must be empty.
    pub(crate) fn disconnect(&mut self, slot: u32) {
        assert!(self.is_empty(), "users come and go between turns");
        self.connected[slot as usize / 64] &= !(1 << (slot % 64));
        self.users -= 1;
        self.owed_bytes_max = self.users * self.limits.mean_bytes;
    }

    /// Takes the slot of a user that has gone back. The turn must be empty.
    pub(crate) fn free(&mut self, slot: u32) {
        assert!(self.is_empty(), "users come and go between turns");
        self.taken[slot as usize / 64] &= !(1 << (slot % 64));
        let used = self.taken.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1);
        self.set_words(used);
    }

    fn set_words(&mut self, words: usize) {
        if words == self.rows.len() {
            return;
        }
        self.connected.resize(words, 0);
        self.taken.resize(words, 0);
        self.owed.resize(words, 0);
        self.all.resize(words, u64::MAX);
        self.rows.resize(words, [0; 64]);
        self.mail.set_slots(words * 64);
        self.matrix.clear();
        if self.tape.is_empty() {
            self.make_tape();
        }
    }

    /// A tape's worth of room, once.
    fn make_tape(&mut self) {
        self.tape.resize(self.limits.user_bytes + self.limits.event_bytes + SLACK + CACHE_LINE, 0);
        self.tape_start = self.tape.as_ptr().align_offset(CACHE_LINE).min(CACHE_LINE);
        self.tape_end = self.tape_start;
        self.ends[0] = self.tape_start as u32;
    }

    /// Whether an event of that length is not longer than the longest.
    pub(crate) fn fits(&self, event_bytes: usize) -> bool {
        event_bytes <= self.limits.event_bytes
    }

    /// Makes room for events of that length. The turn must be empty.
    pub(crate) fn make_fit(&mut self, event_bytes: usize) {
        assert!(self.is_empty(), "the tape grows between turns");
        self.limits.event_bytes = event_bytes;
        if !self.tape.is_empty() {
            self.make_tape();
        }
    }

    /// Connected users.
    pub(crate) fn users(&self) -> usize {
        self.users
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
        let used = (self.tape_end - self.tape_start).max(self.longest_mail);
        (self.limits.user_bytes.saturating_sub(used) / INLINE_BYTES).min(RUN)
    }

    /// An event for everyone. Returns how many that is.
    pub(crate) fn broadcast(&mut self, text: Text<'_>) -> usize {
        if self.users > 0 {
            let place = self.push_text(text, self.users);
            for (row, &word) in self.rows.iter_mut().zip(&self.connected) {
                row[place % 64] = word;
            }
            self.row_done(place);
        }
        self.users
    }

    /// An event for an audience. Returns how many that is.
    #[inline(always)]
    pub(crate) fn multicast(&mut self, audience: Audience<'_>, text: Text<'_>) -> usize {
        let recipients = audience.len;
        let Columns::Bits(words) = audience.slots else {
            return self.multicast_few(audience, text);
        };
        if self.rows.len() > WORDS_PER_RECIPIENT_MAX * recipients || recipients == 0 {
            return self.multicast_few(audience, text);
        }
        let place = self.push_text(text, recipients);
        let mut words = words.iter();
        for row in &mut self.rows {
            row[place % 64] = words.next().copied().unwrap_or(0);
        }
        self.row_done(place);
        recipients
    }

    /// Where a row would have little in it, or has to be made.
    fn multicast_few(&mut self, audience: Audience<'_>, text: Text<'_>) -> usize {
        let recipients = audience.len;
        if self.rows.len() > WORDS_PER_RECIPIENT_MAX * recipients && text.len <= TEXT_MAX {
            audience.slots.for_each(|slot| self.push_mail(slot as usize, text));
        } else if recipients > 0 {
            let place = self.push_text(text, recipients);
            for row in &mut self.rows {
                row[place % 64] = 0;
            }
            audience.slots.for_each(|slot| self.rows[slot as usize / 64][place % 64] |= 1 << (slot % 64));
            self.row_done(place);
        }
        recipients
    }

    /// An event for one user. Returns that it is one.
    #[inline(always)]
    pub(crate) fn unicast(&mut self, slot: u32, text: Text<'_>) -> usize {
        let slot = slot as usize;
        if self.rows.len() > WORDS_PER_RECIPIENT_MAX && text.len <= TEXT_MAX {
            self.push_mail(slot, text);
        } else {
            let place = self.push_text(text, 1);
            for row in &mut self.rows {
                row[place % 64] = 0;
            }
            self.rows[slot / 64][place % 64] = 1 << (slot % 64);
            self.row_done(place);
        }
        1
    }

    #[inline(always)]
    fn push_mail(&mut self, slot: usize, text: Text<'_>) {
        let place = self.ends.len() as u32 - 1;
        self.mail.push(slot, place, text);
        self.owed[slot / 64] |= 1 << (slot % 64);
        self.owed_bytes += text.len;
        self.full |= self.mail.bytes() >= MAIL_BYTES_MAX;
        self.longest_mail = self.longest_mail.max(self.mail.bytes_of(slot));
    }

    /// Puts an event on the tape and returns its place there. Its row must be written next.
    #[inline(always)]
    fn push_text(&mut self, text: Text<'_>, recipients: usize) -> usize {
        let place = self.ends.len() - 1;
        text.copy_to(&mut self.tape, self.tape_end);
        self.tape_end += text.len;
        self.ends.push(self.tape_end as u32);
        self.owed_bytes += text.len * recipients;
        place
    }

    #[inline(always)]
    fn row_done(&mut self, place: usize) {
        if place % 64 == 63 {
            self.block_done(place / 64, 64);
        }
    }

    /// The block has its `events`.
    fn block_done(&mut self, block: usize, events: usize) {
        if let Some(ends) = self.ends[block * 64..].first_chunk() {
            self.blocks.push(Block::new(block * 64, ends));
        }
        self.cpu.turn_block(self, block, events);
    }

    /// Gives everyone its word of the block.
    #[inline(always)]
    pub(crate) fn turn_block(&mut self, block: usize, events: usize) {
        let slots = self.rows.len() * 64;
        let group = block / GROUP * slots;
        if self.matrix.len() < group + slots {
            self.matrix.resize(group + slots, [0; GROUP]);
        }
        let users = self.matrix[group..group + slots].as_chunks_mut::<64>().0;
        let sums = self.owed.iter_mut().zip(&mut self.all);
        for ((row, users), (owed, all)) in self.rows.iter_mut().zip(users).zip(sums) {
            // The rows that the last block has not got belong to nobody.
            row[events..].fill(0);
            *owed |= row.iter().fold(0, |union, word| union | word);
            *all &= row[..events].iter().fold(u64::MAX, |common, word| common & word);
            transpose(row);
            for (user, &word) in users.iter_mut().zip(row.iter()) {
                user[block % GROUP] = word;
            }
        }
        self.full |=
            block % GROUP == GROUP - 1 && (group + 2 * slots) * size_of::<[u64; GROUP]>() > MATRIX_BYTES_MAX;
    }

    /// Hands every user what the turn owes it, as one piece, and ends the turn.
    pub(crate) fn deliver(&mut self, mut write: impl FnMut(u32, &[u8])) {
        let events = self.ends.len() - 1;
        if !events.is_multiple_of(64) {
            self.ends.resize(events.next_multiple_of(64) + 1, self.tape_end as u32);
            self.block_done(events / 64, events % 64);
        }
        if let Some(avx512) = self.cpu.avx512 {
            let pieces = (self.tape_end - self.tape_start).next_multiple_of(CACHE_LINE);
            avx512.mark(&self.tape[self.tape_start..][..pieces], &mut self.marks);
        }
        // Not a power of two, so that the users' parts of it are not at odds over the same lines of the cache.
        let part =
            2 * (self.limits.user_bytes + self.limits.event_bytes + TEXT_MAX) + SLACK + 17 * CACHE_LINE;
        if self.scratch.len() < ABREAST * part {
            // Memory that is all zeros is not there until it is written to.
            self.scratch = vec![0; ABREAST * part];
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let owed = std::mem::take(&mut self.owed);
        let (mut dense, mut dense_count) = ([0; ABREAST], 0);
        for_each_bit(&owed, |slot| {
            if self.mail.is_empty(slot) && self.all[slot / 64] >> (slot % 64) & 1 != 0 {
                write(slot as u32, &self.tape[self.tape_start..self.tape_end]);
            } else if self.is_dense(slot, events, dense_count) {
                dense[dense_count] = slot as u32;
                dense_count += 1;
                if dense_count == ABREAST {
                    self.gather_abreast(dense, 0, &mut scratch, &mut write);
                    dense_count = 0;
                }
            } else {
                let len = self.cpu.gather(self, slot, events, &mut scratch);
                write(slot as u32, &scratch[..len]);
                self.mail.clear(slot);
            }
        });
        for (place, &slot) in dense[..dense_count].iter().enumerate() {
            self.gather_abreast([slot], place, &mut scratch, &mut write);
        }
        self.scratch = scratch;
        self.owed = owed;
        self.reset();
    }

    fn reset(&mut self) {
        self.owed.fill(0);
        self.all.fill(u64::MAX);
        self.mail.reset();
        self.tape_end = self.tape_start;
        self.ends.truncate(1);
        self.blocks.clear();
        self.owed_bytes = 0;
        self.longest_mail = 0;
        self.full = false;
    }

    /// Whether what a user gets of the tape is to be gathered abreast; if so, its bits are taken for that.
    fn is_dense(&mut self, slot: usize, events: usize, place: usize) -> bool {
        let mail = self.mail.bytes_of(slot);
        // Where even all of the tape would not be worth it, there is no need to look.
        let Some(avx512) = self.cpu.avx512.filter(|_| self.marks.is_dense(events, mail)) else {
            return false;
        };
        let words = self.matrix.chunks(self.rows.len() * 64).map(|group| &group[slot]);
        let count = avx512.choose(words, events.div_ceil(64), place, &mut self.marks);
        self.marks.is_dense(count, mail)
    }

    /// Hands users what they get of the tape, and their mail in between; their bits have been taken as those from the place
    /// `first` on.
    fn gather_abreast<const N: usize>(
        &mut self,
        slots: [u32; N],
        first: usize,
        scratch: &mut [u8],
        write: &mut impl FnMut(u32, &[u8]),
    ) {
        let Some(avx512) = self.cpu.avx512 else { return };
        let Self { tape, tape_start, ends, mail, marks, inserts, .. } = self;
        inserts.clear();
        for (user, &slot) in slots.iter().enumerate() {
            for (before, run) in mail.runs(slot as usize) {
                inserts.push(Insert::new(ends[before as usize] - *tape_start as u32, user, run));
            }
        }
        inserts.sort_unstable_by_key(Insert::order);
        let mut parts = scratch.chunks_exact_mut(scratch.len() / ABREAST);
        let mut outs = slots.map(|_| parts.next().unwrap_or_default());
        let lens = avx512.gather(&tape[*tape_start..], marks, first, (inserts, mail.all_bytes()), &mut outs);
        for ((slot, out), len) in slots.into_iter().zip(outs).zip(lens) {
            write(slot, &out[..len]);
            mail.clear(slot as usize);
        }
    }

    /// Merges a user's mail with what it gets of the tape.
    #[inline(always)]
    pub(crate) fn gather_in_order(&self, slot: usize, events: usize, out: &mut [u8]) -> usize {
        let mut len = 0;
        let mut place = 0;
        let rest = (events as u32, 0..0);
        for (before, run) in self.mail.runs(slot).chain([rest]) {
            let run = &self.mail.all_bytes()[run];
            len = self.gather_tape(slot, place, before as usize, out, len);
            place = before as usize;
            out[len..len + run.len()].copy_from_slice(run);
            len += run.len();
        }
        len
    }

    /// Copies what a user gets of the events `from..to` on the tape to `out[len..]`; returns where that ends.
    #[inline(always)]
    fn gather_tape(&self, slot: usize, from: usize, to: usize, out: &mut [u8], mut len: usize) -> usize {
        let slots = self.rows.len() * 64;
        let groups = self.blocks.chunks(GROUP).zip(self.matrix.chunks(slots)).enumerate();
        let wanted = from / EVENTS_OF_GROUP..to.div_ceil(EVENTS_OF_GROUP);
        for (group, (blocks, words)) in groups.skip(wanted.start).take(wanted.len()) {
            if let Some(next) = self.matrix.get((group + 1) * slots + slot) {
                prefetch(next);
            }
            let mut words = words[slot];
            let first = group * EVENTS_OF_GROUP;
            if first < from || first + EVENTS_OF_GROUP > to {
                for (word, first) in words.iter_mut().zip((first..).step_by(64)) {
                    *word &= bits_from(from.saturating_sub(first)) & !bits_from(to.saturating_sub(first));
                }
            }
            for (block, &word) in blocks.iter().zip(&words) {
                if word != 0 {
                    len = block.gather(&self.tape, &self.ends, word, out, len);
                }
            }
        }
        len
    }
}

/// The bits from one on.
#[inline(always)]
fn bits_from(bit: usize) -> u64 {
    if bit < 64 { u64::MAX << bit } else { 0 }
}
