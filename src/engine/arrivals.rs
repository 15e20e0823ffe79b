//! When events came: events that wait in the ring, and released events that have not been handed out yet.
//!
//! Most events are released while their chunk is worked on. Nothing is noted for each of them. The other events are
//! *settled*: their slot does not refer to the text in the chunk any more. In its place the slot names a [`Tick`], which is
//! the time at which the chunk was read. So the waiting time of an event costs a few instructions for each event that
//! waits, and no memory in the ring.

#![forbid(unsafe_code)]

use super::counters::EngineCounters;
use super::{event::Kind, packed::Packed};
use crate::time::Micros;
use std::collections::VecDeque;

/// Events that came together.
#[derive(Clone, Copy, Debug)]
struct Tick {
    at: Micros,
    /// How many of them wait in the ring.
    waiting: u32,
    /// How many have been released since the last look.
    released: u32,
}

/// Events that were released: how many, when they came, and whether they had to wait for missing ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When they were read from their source.
    pub at: Micros,
    /// How many.
    pub events: u64,
    /// They came with an earlier chunk than the event that they waited for.
    pub waited: bool,
}

/// See the [module](self). There are at most as many ticks as numbers that have been in the ring since the oldest that waits.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// The number of the first tick; those behind it count on.
    first: u32,
    ticks: VecDeque<Tick>,
    /// Numbers of the ticks of which events have been released.
    touched: Vec<u32>,
    /// Events that did not wait, by chunk.
    fresh: Vec<Arrival>,
    /// Events released, of all that there have been, that are accounted for here or have been taken.
    accounted: u64,
}

impl Arrivals {
    /// The tick for events that came at `at` and are settled now.
    pub(crate) fn tick(&mut self, at: Micros) -> u32 {
        if self.ticks.back().is_none_or(|last| last.at != at) {
            self.ticks.push_back(Tick { at, waiting: 0, released: 0 });
        }
        self.first.wrapping_add(self.ticks.len() as u32 - 1)
    }

    /// So many events of the last tick have been settled.
    pub(crate) fn settle(&mut self, events: usize) {
        if let Some(last) = self.ticks.back_mut() {
            last.waiting += events as u32;
        }
    }

    /// Settled events leave the ring.
    pub(crate) fn release(&mut self, settled: impl Iterator<Item = Packed>) {
        for slot in settled {
            let number = slot.tick();
            let Some(tick) = self.ticks.get_mut(number.wrapping_sub(self.first) as usize) else { continue };
            tick.waiting = tick.waiting.saturating_sub(1);
            // What only uses up its number is nobody's delay.
            if Kind::is_event(slot.kind()) {
                if tick.released == 0 {
                    self.touched.push(number);
                }
                tick.released += 1;
                self.accounted += 1;
            }
        }
    }

    /// Whatever else has been released by now came at `at`.
    pub(crate) fn account(&mut self, counters: &EngineCounters, at: Micros) {
        let released = counters.events_released_total();
        let events = released.saturating_sub(self.accounted);
        self.accounted = released;
        if events > 0 {
            match self.fresh.last_mut() {
                Some(last) if last.at == at => last.events += events,
                _ => self.fresh.push(Arrival { at, events, waited: false }),
            }
        }
    }

    /// Whether events have been released since they were taken last.
    pub(crate) fn has_any(&self, counters: &EngineCounters) -> bool {
        !self.fresh.is_empty()
            || !self.touched.is_empty()
            || counters.events_released_total() != self.accounted
    }

    /// Hands out everything that was released since the last call.
    pub(crate) fn take(&mut self, mut arrival: impl FnMut(Arrival)) {
        for fresh in self.fresh.drain(..) {
            arrival(fresh);
        }
        for number in self.touched.drain(..) {
            if let Some(tick) = self.ticks.get_mut(number.wrapping_sub(self.first) as usize) {
                let events = u64::from(std::mem::take(&mut tick.released));
                arrival(Arrival { at: tick.at, events, waited: true });
            }
        }
        while self.ticks.front().is_some_and(|tick| tick.waiting == 0) {
            self.ticks.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }
}
