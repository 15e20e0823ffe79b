//! The blocks of a run that are in memory: all of them where they fit, a moving window otherwise.

use std::collections::VecDeque;

use crate::block::{Block, Builder};

/// Blocks by index, made when they are first asked for.
pub struct Book {
    builder: Builder,
    blocks: VecDeque<Block>,
    first: u64,
    /// Of the blocks before this one only what some users are owed is left.
    shrunk: u64,
    finished: bool,
    complete: bool,
    held: u64,
}

impl Book {
    /// A book in which nothing is written yet.
    pub fn new(builder: Builder) -> Book {
        Book {
            builder,
            blocks: VecDeque::new(),
            first: 0,
            shrunk: 0,
            finished: false,
            complete: false,
            held: 0,
        }
    }

    fn build(&mut self) -> bool {
        if self.finished {
            return false;
        }
        match self.builder.next_block() {
            Some(block) => {
                self.held += block.bytes_held();
                self.blocks.push_back(block);
                true
            }
            None => {
                self.finished = true;
                false
            }
        }
    }

    /// Makes blocks until all are there or they take `budget` bytes. `progress` is told the numbers done.
    pub fn prepare(&mut self, budget: u64, mut progress: impl FnMut(u64)) {
        while self.held < budget && self.build() {
            progress(self.blocks.back().map_or(0, |b| b.end_seq));
        }
        self.complete = self.finished;
    }

    /// Whether the whole run is in memory.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Bytes held.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Block `index`, made now if it has to be. `None` past the end.
    #[inline]
    pub fn get(&mut self, index: u64) -> Option<&Block> {
        while index >= self.first + self.blocks.len() as u64 {
            if !self.build() {
                return None;
            }
        }
        self.blocks.get((index - self.first) as usize)
    }

    /// Block `index` if it is in memory.
    #[inline]
    pub fn built(&self, index: u64) -> Option<&Block> {
        self.blocks.get(index.checked_sub(self.first)? as usize)
    }

    /// Index one past the last block made so far; of all blocks once the end is known.
    pub fn end(&self) -> u64 {
        self.first + self.blocks.len() as u64
    }

    /// How many blocks are in memory.
    pub fn count(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is no block after those made so far.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Makes no more blocks: the run ends with those that there are.
    pub fn stop(&mut self) {
        self.finished = true;
    }

    /// Index of the block in memory that holds number `seq`.
    pub fn find(&self, seq: u64) -> Option<u64> {
        let at = self.blocks.partition_point(|block| block.end_seq <= seq);
        let block = self.blocks.get(at)?;
        (block.first_seq <= seq).then_some(self.first + at as u64)
    }

    /// Index of the first block in memory that holds `seq` or numbers above it; [`Book::end`] if there is none.
    pub fn first_ending_above(&self, seq: u64) -> u64 {
        self.first + self.blocks.partition_point(|block| block.end_seq <= seq) as u64
    }

    /// Gives back what only users of other slots need of the blocks before `index`.
    pub fn keep_only_before(&mut self, index: u64, slots: &[usize]) {
        if self.complete {
            return;
        }
        let from = self.shrunk.max(self.first);
        for index in from..index.min(self.end()) {
            let block = &mut self.blocks[(index - self.first) as usize];
            self.held -= block.bytes_held();
            block.keep_only(slots);
            self.held += block.bytes_held();
        }
        self.shrunk = from.max(index.min(self.end()));
    }

    /// Gives back the blocks before `index`, unless the whole run was prepared: then nothing is gained by it.
    pub fn forget_before(&mut self, index: u64) {
        while !self.complete && self.first < index {
            let Some(block) = self.blocks.pop_front() else { break };
            self.held -= block.bytes_held();
            self.first += 1;
        }
    }
}
