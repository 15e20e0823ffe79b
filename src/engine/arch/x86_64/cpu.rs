//! The choice of kernels.
//!
//! To call code that the processor may not have needs `unsafe`. A value of type [`Avx512`] exists only where the processor has
//! every feature of that set, and nothing is called without one. What is compiled for AVX2 is called only by a [`Cpu`] that
//! has noted that the processor has that set.

#![expect(unsafe_code, reason = "the module's documentation says why it is sound")]

use super::{
    avx2,
    avx512::{
        self,
        gather::{Insert, Marks},
    },
    features::{for_avx2, is_avx2_there, is_avx512_there},
    lines::Lines,
};
use crate::engine::arch::{
    gather::Owed, instruction_set::InstructionSet, partition::Partition, transpose::Transposed,
};
use crate::engine::packed::Packed;

/// The features that the processor has and that may be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    /// The processor has the set that `for_avx2` names.
    pub(super) has_avx2: bool,
    pub(super) avx512: Option<Avx512>,
}

/// Proof that the processor has the set that `for_avx512` names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

/// Defines methods that call a portable function, which is compiled a second time for processors with AVX2, and all of it
/// that is always inlined.
macro_rules! twice {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty = $portable:path;)*) => {
        $(
            $(#[$doc])*
            pub(crate) fn $name(self, $($arg: $type),*) -> $out {
                for_avx2! {
                    fn compiled_for_avx2($($arg: $type),*) -> $out {
                        $portable($($arg),*)
                    }
                }
                if self.has_avx2 {
                    // SAFETY: the processor has the features.
                    unsafe { compiled_for_avx2($($arg),*) }
                } else {
                    $portable($($arg),*)
                }
            }
        )*
    };
}

impl Cpu {
    /// Looks at the processor; uses no more of it than a set.
    pub(crate) fn up_to(set: InstructionSet) -> Self {
        Self {
            has_avx2: set >= InstructionSet::Avx2 && is_avx2_there(),
            avx512: (set >= InstructionSet::Avx512 && is_avx512_there()).then_some(Avx512(())),
        }
    }

    /// All that this processor can be used as, with as little as possible first.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut all: Vec<Self> = InstructionSet::ALL.map(Self::up_to).into();
        all.dedup_by_key(|cpu| (cpu.has_avx2, cpu.avx512.is_some()));
        all
    }

    pub(crate) fn avx512(self) -> Option<Avx512> {
        self.avx512
    }

    /// Reads ordinary lines from `chunk[at..]` on, until the batch is full or something else comes, and says where that is.
    /// `None`: reading them one by one is faster.
    pub(crate) fn scan(self, chunk: &[u8], at: usize, lines: &mut Lines) -> Option<usize> {
        match self.avx512 {
            Some(avx512) => Some(avx512.scan(chunk, at, lines)),
            None => self.scan_by_columns(chunk, at, lines),
        }
    }

    /// See [`avx2::scan::scan`].
    pub(super) fn scan_by_columns(self, chunk: &[u8], at: usize, lines: &mut Lines) -> Option<usize> {
        // SAFETY: the processor has the features.
        self.has_avx2.then(|| unsafe { avx2::scan::scan(chunk, at, lines) })
    }

    /// Takes a run apart; see [`avx2::partition::partition`] and [`avx512::partition::partition`]. False: it has not been done.
    pub(crate) fn partition(
        self,
        run: &[Packed],
        users: &[[u32; 2]],
        is_all: bool,
        partition: &mut Partition,
    ) -> bool {
        if let Some(avx512) = self.avx512 {
            return avx512.partition(run, users, is_all, partition);
        }
        // SAFETY: the processor has the features.
        self.has_avx2 && unsafe { avx2::partition::partition(run, users, is_all, partition) }
    }

    twice! {
        /// See [`transpose_block`](crate::engine::arch::transpose::transpose_block).
        fn transpose(rows: &mut [[u64; 64]], events: usize, to: &mut Transposed<'_>) -> () = crate::engine::arch::transpose::transpose_block;
        /// See [`Owed::gather`].
        fn gather(owed: &Owed<'_>, slot: usize, out: &mut [u8]) -> usize = Owed::gather;
    }
}

impl Avx512 {
    /// See [`avx512::scan::scan`].
    fn scan(self, chunk: &[u8], at: usize, lines: &mut Lines) -> usize {
        // SAFETY: the processor has the features.
        unsafe { avx512::scan::scan(chunk, at, lines) }
    }

    /// See [`avx512::partition::partition`].
    fn partition(self, run: &[Packed], users: &[[u32; 2]], is_all: bool, partition: &mut Partition) -> bool {
        // SAFETY: the processor has the features.
        unsafe { avx512::partition::partition(run, users, is_all, partition) }
    }

    /// See [`avx512::gather::mark`].
    pub(crate) fn mark(self, tape: &[u8], marks: &mut Marks) {
        // SAFETY: the processor has the features.
        unsafe { avx512::gather::mark(tape, marks) }
    }

    /// See [`avx512::gather::choose`].
    pub(crate) fn choose<'a>(
        self,
        words: impl Iterator<Item = &'a [u64; 8]>,
        count: usize,
        place: usize,
        marks: &mut Marks,
    ) -> usize {
        // SAFETY: the processor has the features.
        unsafe { avx512::gather::choose(words, count, place, marks) }
    }

    /// See [`avx512::gather::gather`].
    pub(crate) fn gather<const N: usize>(
        self,
        tape: &[u8],
        marks: &Marks,
        first: usize,
        inserts: (&[Insert], &[u8]),
        outs: &mut [&mut [u8]; N],
    ) -> [usize; N] {
        // SAFETY: the processor has the features.
        unsafe { avx512::gather::gather(tape, marks, first, inserts, outs) }
    }
}
