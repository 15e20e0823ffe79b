//! How long deliveries take, under load that does not wait for the server.
//!
//! An event needs all events with smaller numbers to have been sent. So a delivery's time runs from when the last of
//! them was *due* to be sent, by the rate that was asked for, until the delivery was read. A server that stalls is
//! charged for all that should have been sent meanwhile: no coordinated omission.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::block::{Block, Expect};
use crate::book::Book;
use crate::cursor::{Place, sequence_of};

#[derive(Debug)]
struct Due {
    /// Timed lines in the blocks before.
    base: u64,
    /// By number: position of the last line that the event needs.
    order: Vec<u32>,
}

/// Collects the times.
#[derive(Debug)]
pub struct Arrivals {
    started: Instant,
    rate: f64,
    expect: Expect,
    first_block: u64,
    lines: u64,
    dues: VecDeque<Due>,
    histogram: Histogram<u64>,
}

/// The longest time that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(600);

/// An empty histogram of nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3).expect("the bounds are in order")
}

impl Arrivals {
    /// Lines are due at `rate` per second from `started` on, beginning with block `first_block`.
    pub fn new(started: Instant, rate: f64, expect: Expect, first_block: u64) -> Arrivals {
        Arrivals {
            started,
            rate,
            expect,
            first_block,
            lines: 0,
            dues: VecDeque::new(),
            histogram: histogram(),
        }
    }

    /// The times.
    pub fn into_histogram(self) -> Histogram<u64> {
        self.histogram
    }

    fn ensure(&mut self, book: &Book, block: u64) {
        while self.first_block + self.dues.len() as u64 <= block {
            let Some(next) = book.built(self.first_block + self.dues.len() as u64) else { return };
            let order = if self.expect == Expect::Forward { Vec::new() } else { needed_order(next) };
            self.dues.push_back(Due { base: self.lines, order });
            self.lines += u64::from(next.lines);
        }
    }

    /// The blocks before `block` are not needed any more.
    pub fn forget_before(&mut self, book: &Book, block: u64) {
        self.ensure(book, block);
        while self.first_block < block && self.dues.pop_front().is_some() {
            self.first_block += 1;
        }
    }

    /// A user has received, at `now`, what it was owed between two places.
    pub fn note(&mut self, book: &Book, slot: usize, from: Place, to: Place, now: Instant) {
        self.ensure(book, to.block);
        let since_start = now.saturating_duration_since(self.started).as_secs_f64();
        for index in from.block.max(self.first_block)..=to.block {
            let Some(block) = book.built(index) else { return };
            let text = &block.text(slot).bytes;
            let begin = if index == from.block { from.offset } else { 0 };
            let end = if index == to.block { to.offset } else { text.len() };
            let due = &self.dues[(index - self.first_block) as usize];
            let mut start = memchr::memrchr(b'\n', &text[..begin]).map_or(0, |at| at + 1);
            let mut mark = block.wires[0].marks.partition_point(|mark| (mark.end as usize) <= begin);
            for newline in memchr::memchr_iter(b'\n', &text[begin..end]).map(|at| begin + at) {
                let order = if self.expect == Expect::Forward {
                    mark += 1;
                    mark as u64 - 1
                } else {
                    let number = sequence_of(&text[start..newline]).unwrap_or(block.first_seq);
                    due.order[(number - block.first_seq) as usize].into()
                };
                start = newline + 1;
                let due_at = (due.base + order) as f64 / self.rate;
                let taken = ((since_start - due_at) * 1e9).clamp(1.0, LONGEST.as_nanos() as f64);
                self.histogram.saturating_record(taken as u64);
            }
        }
    }
}

/// For each number of the block: the position of the last line that has to be sent before it can be released.
fn needed_order(block: &Block) -> Vec<u32> {
    let mut order = vec![u32::MAX; (block.end_seq - block.first_seq) as usize];
    for mark in block.wires.iter().flat_map(|wire| &wire.marks) {
        let first = &mut order[mark.seq_offset as usize];
        *first = (*first).min(mark.order);
    }
    let mut latest = 0;
    for own in &mut order {
        // A hole needs nothing.
        latest = if *own == u32::MAX { latest } else { latest.max(*own) };
        *own = latest;
    }
    order
}
