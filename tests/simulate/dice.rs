//! Chances of all kinds, from one seed.

use std::ops::Range;

use support::stream::Random;

/// Whatever is random in a run comes from here.
#[derive(Clone, Debug)]
pub(crate) struct Dice(Random);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(Random::new(seed))
    }

    /// Dice of their own, so that what one part of a run draws does not change what the others do.
    pub(crate) fn split(&mut self) -> Dice {
        Dice::new(self.0.next_u64())
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    pub(crate) fn range(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// True this number of times in a thousand.
    pub(crate) fn in_1000(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }

    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }

    /// A length up to `most`: short ones are the likelier, all are possible.
    pub(crate) fn length(&mut self, most: u64) -> u64 {
        let bound = self.range(1..most.max(1) + 1);
        self.range(1..bound + 1)
    }
}
