//! The memory of the ring: a slot for each number from the cursor on, as many as were needed lately.
//!
//! An event may arrive far ahead of the cursor, but most streams stay near it. A ring of the full capacity would pass all of
//! its memory through the caches, although only the few slots in front of the cursor are in use. So the ring begins small.
//! It grows when an event does not fit. It is halved when no event has come for its farther half in [`PATIENCE`] rounds.
//! (With a second-level cache of a megabyte, a megabyte of slots costs the server 6 %.)
//!
//! `near` is the distance up to which an event is put without further checks. It is half of the slots until an event has
//! come for the other half. So watching the farther half costs nothing.

#![forbid(unsafe_code)]

use super::packed::{BOXED, INLINE_BYTES, Packed};
use hashbrown::HashMap;

/// The ring is never smaller, unless its capacity is. Tests shall see it grow and shrink.
const LEN_MIN: usize = if cfg!(test) { 4 } else { 4096 };
/// Times round without an event for the farther half before the ring is halved.
const PATIENCE: u64 = 16;

/// The text of a slot, in three parts: the system gives zeroed memory for a vector of short arrays, page by page when it is touched. A
/// vector of long arrays is filled at once, which takes 0.3 s where the ring has 16 M slots.
type Inline = [[u8; INLINE_BYTES / 3]; 3];

#[derive(Debug)]
pub(crate) struct Ring {
    slots: Vec<Packed>,
    texts: Vec<Inline>,
    /// Texts that do not fit, by the low 32 bits of their numbers.
    boxed: HashMap<u32, Box<[u8]>>,
    capacity: usize,
    near: usize,
    /// Where the cursor was when it was last known that the farther half is needed, or when the ring got its size.
    needed_at: u64,
}

impl Ring {
    /// A ring that grows up to `capacity` slots, a power of two.
    pub(crate) fn new(capacity: usize) -> Self {
        assert!(capacity.is_power_of_two() && capacity <= 1 << 31, "the ring's capacity is a power of two");
        let len = capacity.min(LEN_MIN);
        Self {
            slots: vec![Packed::default(); len],
            texts: vec![Inline::default(); len],
            boxed: HashMap::new(),
            capacity,
            near: len / 2,
            needed_at: 0,
        }
    }

    /// The most slots there can be.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The slots there are. Nothing waits further ahead than that.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How far ahead of the cursor an event can be put without [`Ring::make_room`].
    #[inline(always)]
    pub(crate) fn near(&self) -> usize {
        self.near
    }

    /// Makes room for an event that is `ahead` of the cursor, less than the capacity.
    #[cold]
    pub(crate) fn make_room(&mut self, ahead: u64, cursor: u64) {
        debug_assert!(ahead < self.capacity as u64);
        if ahead >= self.len() as u64 {
            self.resize((ahead as usize + 1).next_power_of_two(), cursor);
        }
        self.near = self.len();
    }

    /// Gives up the farther half if it has not been needed for long. To be called once in a while.
    pub(crate) fn shrink(&mut self, cursor: u64) {
        let len = self.len();
        if self.near == len {
            self.needed_at = cursor;
        } else if len > LEN_MIN && cursor.wrapping_sub(self.needed_at) >= PATIENCE * len as u64 {
            // Whatever has been put there is behind the cursor by now.
            self.resize(len / 2, cursor);
            self.needed_at = cursor;
        }
        self.near = self.len() / 2;
    }

    /// Moves everything that waits to a ring of another size, which has room for it.
    fn resize(&mut self, len: usize, cursor: u64) {
        let mut slots = vec![Packed::default(); len];
        let mut texts = vec![Inline::default(); len];
        for ahead in 0..self.len() as u64 {
            let number = cursor.wrapping_add(ahead);
            let index = self.index(number);
            let slot = self.slots[index];
            if !slot.is_empty() {
                let target = number as usize & (len - 1);
                slots[target] = slot;
                texts[target] = self.texts[index];
            }
        }
        (self.slots, self.texts) = (slots, texts);
    }

    #[inline(always)]
    fn index(&self, number: u64) -> usize {
        number as usize & (self.slots.len() - 1)
    }

    /// The event that waits at a number near enough to the cursor.
    #[inline(always)]
    pub(crate) fn slot(&self, number: u64) -> Packed {
        self.slots[self.index(number)]
    }

    /// The same, to be changed.
    #[inline(always)]
    pub(crate) fn slot_mut(&mut self, number: u64) -> &mut Packed {
        let index = self.index(number);
        &mut self.slots[index]
    }

    /// The slots from a number on, at most `max` and up to where the ring begins anew, and the index of the first.
    #[inline(always)]
    pub(crate) fn slots(&self, number: u64, max: usize) -> (usize, &[Packed]) {
        let index = self.index(number);
        let slots = &self.slots[index..];
        (index, &slots[..slots.len().min(max)])
    }

    /// The same slots, to be changed.
    #[inline(always)]
    pub(crate) fn slots_mut(&mut self, number: u64, len: usize) -> &mut [Packed] {
        let index = self.index(number);
        &mut self.slots[index..index + len]
    }

    /// All slots, in no particular order: that of a number is at the number modulo their count, a power of two.
    #[inline(always)]
    pub(crate) fn all_slots_mut(&mut self) -> &mut [Packed] {
        &mut self.slots
    }

    /// The text of the event in the slot of an index, which is neither fresh nor boxed.
    #[inline(always)]
    pub(crate) fn text_at(&self, index: usize) -> &[u8; INLINE_BYTES] {
        whole(&self.texts[index])
    }

    /// The text of an event that is neither fresh nor boxed.
    pub(crate) fn text(&self, number: u64) -> &[u8; INLINE_BYTES] {
        whole(&self.texts[self.index(number)])
    }

    /// The line of an event that is not fresh.
    pub(crate) fn line(&self, number: u64) -> &[u8] {
        let slot = self.slot(number);
        if slot.has(BOXED) {
            self.boxed.get(&(number as u32)).map_or(&[], |text| &text[..])
        } else {
            &self.text(number)[..slot.len()]
        }
    }

    /// Keeps the text of an event that is boxed.
    pub(crate) fn put_boxed(&mut self, number: u64, text: &[u8]) {
        self.boxed.insert(number as u32, text.into());
    }

    /// Hands out the text of an event that was boxed.
    pub(crate) fn take_boxed(&mut self, number: u64) -> Box<[u8]> {
        self.boxed.remove(&(number as u32)).unwrap_or_default()
    }

    /// Moves the text of a fresh event, which came at `tick`, from the chunk into the ring.
    pub(crate) fn settle(&mut self, number: u64, chunk: &[u8], tick: u32) {
        let index = self.index(number);
        let slot = &mut self.slots[index];
        let at = slot.text();
        *slot = slot.settled(tick);
        if slot.has(BOXED) {
            return;
        }
        let text = &chunk[at..][..slot.len()];
        if text.len() <= INLINE_BYTES {
            self.texts[index].as_flattened_mut()[..text.len()].copy_from_slice(text);
        } else {
            *slot = slot.with(BOXED);
            self.put_boxed(number, text);
        }
    }
}

#[inline(always)]
fn whole(text: &Inline) -> &[u8; INLINE_BYTES] {
    text.as_flattened().first_chunk().unwrap_or(&[0; INLINE_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ahead of the cursor by so much, somebody has put an event.
    fn put(ring: &mut Ring, cursor: u64, ahead: u64) {
        if ahead >= ring.near() as u64 {
            ring.make_room(ahead, cursor);
        }
        *ring.slot_mut(cursor + ahead) = Packed::new(3, 0, 0, 0, 0, 1);
    }

    #[test]
    fn it_is_as_large_as_has_been_needed_of_late() {
        let mut ring = Ring::new(1024);
        assert_eq!((ring.len(), ring.capacity()), (LEN_MIN, 1024));
        put(&mut ring, 10, 100);
        assert_eq!(ring.len(), 128);
        put(&mut ring, 10, 1023);
        assert_eq!(ring.len(), 1024);
        assert!(!ring.slot(110).is_empty() && !ring.slot(1033).is_empty(), "what waits has been moved");
        ring.shrink(20);
        let forgotten = 20 + PATIENCE * 1024;
        ring.shrink(forgotten - 1);
        assert_eq!(ring.len(), 1024);
        ring.shrink(forgotten);
        assert_eq!(ring.len(), 512);
        ring.shrink(forgotten);
        assert_eq!(ring.len(), 512, "the next half is given up later");
        put(&mut ring, forgotten, 300);
        ring.shrink(forgotten + PATIENCE * 512);
        assert_eq!(ring.len(), 512, "it was needed");
        let mut cursor = forgotten;
        for _ in 0..20 {
            cursor += PATIENCE * 1024;
            ring.shrink(cursor);
        }
        assert_eq!(ring.len(), LEN_MIN);
    }

    #[test]
    fn it_is_not_larger_than_its_capacity() {
        let mut ring = Ring::new(1);
        put(&mut ring, 0, 0);
        assert_eq!(ring.len(), 1);
        ring.shrink(u64::MAX);
        assert_eq!(ring.len(), 1);
    }
}
