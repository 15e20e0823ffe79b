//! Processors other than x86-64: there are no faster kernels, and portable code is called directly.

#![forbid(unsafe_code)]

use super::{
    instruction_set::InstructionSet,
    partition::Partition,
    portable::{
        gather::Owed,
        transpose::{Transposed, transpose_block},
    },
};
use crate::engine::packed::Packed;

/// Users that are served in one pass over the tape.
pub(crate) const ABREAST: usize = 1;

/// Any processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu(());

impl Cpu {
    pub(crate) fn up_to(_: InstructionSet) -> Self {
        Self(())
    }

    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        vec![Self(())]
    }

    pub(crate) fn scan(self, _: &[u8], _: usize, _: &mut Lines) -> Option<usize> {
        None
    }

    pub(crate) fn partition(self, _: &[Packed], _: &[[u32; 2]], _: bool, _: &mut Partition) -> bool {
        false
    }

    pub(crate) fn transpose(self, rows: &mut [[u64; 64]], events: usize, to: &mut Transposed<'_>) {
        transpose_block(rows, events, to);
    }

    pub(crate) fn gather(self, owed: &Owed<'_>, slot: usize, out: &mut [u8]) -> usize {
        owed.gather(slot, out)
    }
}

/// No lines are read in batches.
#[derive(Debug, Default)]
pub(crate) struct Lines(());

impl Lines {
    pub(crate) fn len(&self) -> usize {
        0
    }

    pub(crate) fn seqs(&self) -> &[u64] {
        &[]
    }

    pub(crate) fn slots(&self, _: usize) -> impl Iterator<Item = Packed> {
        std::iter::empty().map(Packed::of_words)
    }
}

/// Nobody is served abreast of others.
#[derive(Debug)]
pub(crate) struct Abreast(());

impl Abreast {
    pub(crate) fn new(_: Cpu) -> Self {
        Self(())
    }

    pub(crate) fn begin(&mut self, owed: &Owed<'_>) {
        debug_assert!(owed.start + owed.len <= owed.tape.len(), "the events are on the tape");
    }

    pub(crate) fn take(&mut self, _: &Owed<'_>, _: usize) -> bool {
        false
    }

    // No user has been taken, so no user is left to serve.
    pub(crate) fn serve_if_full(&mut self, _: &Owed<'_>, _: &mut [u8], _: &mut impl FnMut(u32, &[u8])) {}

    pub(crate) fn serve_rest(&mut self, _: &Owed<'_>, _: &mut [u8], _: &mut impl FnMut(u32, &[u8])) {}
}
