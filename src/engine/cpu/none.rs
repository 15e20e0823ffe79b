//! What other processors than x86-64 do better than portable code: nothing that is known here. Portable
//! code is called as it is; there is no value of the type [`Avx512`], so nothing of that is ever called.

use super::{fanout::FanOut, run::Sorted, sequencer::Slot};
use std::ops::Range;

pub(crate) const ABREAST: usize = 1;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    pub(crate) avx512: Option<Avx512>,
}

impl Cpu {
    pub(crate) fn detect() -> Self {
        Self { avx512: None }
    }

    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        vec![Self::detect()]
    }

    pub(crate) fn scan(self, _: &[u8], _: usize, _: &mut Lines) -> Option<usize> {
        None
    }

    pub(crate) fn sort(self, _: &[Slot], _: &[[u32; 2]], _: bool, _: &mut Sorted) -> bool {
        false
    }

    pub(crate) fn turn_block(self, fanout: &mut FanOut, block: usize, events: usize) {
        fanout.turn_block(block, events);
    }

    pub(crate) fn gather(self, fanout: &FanOut, slot: usize, events: usize, out: &mut [u8]) -> usize {
        fanout.gather_in_order(slot, events, out)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Avx512 {}

#[derive(Debug, Default)]
pub(crate) struct Lines(());

#[derive(Debug, Default)]
pub(crate) struct Marks(());

#[derive(Clone, Copy, Debug)]
pub(crate) struct Insert(());

impl Insert {
    pub(crate) fn new(_: u32, _: usize, _: Range<usize>) -> Self {
        Self(())
    }

    pub(crate) fn order(&self) -> u64 {
        0
    }
}

impl Avx512 {
    pub(crate) fn mark(self, _: &[u8], _: &mut Marks) {
        match self {}
    }

    pub(crate) fn choose<'a>(
        self,
        _: impl Iterator<Item = &'a [u64; 8]>,
        _: usize,
        _: usize,
        _: &mut Marks,
    ) -> usize {
        match self {}
    }

    pub(crate) fn gather<const N: usize>(
        self,
        _: &[u8],
        _: &Marks,
        _: usize,
        _: (&[Insert], &[u8]),
        _: &mut [&mut [u8]; N],
    ) -> [usize; N] {
        match self {}
    }
}

impl Lines {
    pub(crate) fn len(&self) -> usize {
        0
    }

    pub(crate) fn seqs(&self) -> &[u64] {
        &[]
    }

    pub(crate) fn slots(&self, _: usize) -> impl Iterator<Item = Slot> {
        std::iter::empty().map(Slot::of_words)
    }
}

impl Marks {
    pub(crate) fn is_dense(&self, _: usize, _: usize) -> bool {
        false
    }
}

pub(crate) fn prefetch<T>(_: &T) {}
