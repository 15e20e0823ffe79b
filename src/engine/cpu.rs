//! What this processor does better than portable code: the only file with `unsafe`.
//!
//! Three loops take most of the engine's time: reading lines, sorting what leaves the ring, and putting each user's bytes
//! together. Each exists in a portable version, which says what is to come out. Which of these is used instead is decided
//! once, when the engine is made; tests hold them against each other:
//!
//! - With AVX2, code of its own for thirty-two lines ([`columns`]) and eight events ([`eights`]) at a time; bytes are put
//!   together by the portable code, compiled a second time.
//! - With AVX-512, code of its own for eight lines ([`scan`]), sixteen events ([`sort`]), or 64 bytes ([`gather`]) at a time.
//!
//! # Why this is sound
//!
//! Two things need `unsafe`. All of them are in this file, and the modules below have none:
//!
//! - *Calling code that the processor may not have.* A value of type [`Avx512`] exists only where [`Avx512::detect`] has
//!   found every feature that is named here, and nothing is called without one; nor what is compiled for AVX2 without a
//!   [`Cpu`] in which [`Cpu::detect`] has noted that it found that.
//! - *Reading and writing through pointers.* [`load`] and [`store`] and their like take references to exactly the bytes that
//!   they touch; [`lookup`], [`lookup_second`] and [`lookup_second_of_eight`] compare every position with the length of the
//!   slice before it is read; [`compress`] checks once, before it begins, that there is room for all that it can write.

#![expect(unsafe_code, reason = "the module's documentation says why it is sound")]

mod columns;
mod eights;
mod gather;
mod scan;
mod sort;

pub(crate) use gather::{ABREAST, Insert, Marks};
pub(crate) use scan::Lines;

use super::{fanout::FanOut, run::Sorted, sequencer::Slot};
use gather::Piece;
use std::arch::x86_64::*;

/// Names the features that [`Avx512::detect`] looks for, for the functions that are compiled for them.
macro_rules! for_avx512 {
    ($($item:item)*) => {
        $(
            #[inline]
            #[target_feature(
                enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,avx512vpopcntdq,bmi1,bmi2,popcnt"
            )]
            $item
        )*
    };
}
use for_avx512;

/// 0, 1, 2 and so on, for vectors that are to know their lanes.
const POSITIONS: [u8; 64] = {
    let mut positions = [0; 64];
    let mut position = 0;
    while position < positions.len() {
        positions[position] = position as u8;
        position += 1;
    }
    positions
};

/// What the processor has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    /// Said by [`Cpu::detect`] only: what the macros `for_avx2` and `twice` name.
    has_avx2: bool,
    pub(crate) avx512: Option<Avx512>,
}

/// Names the features that [`Cpu::detect`] looks for, for the functions that are compiled for them.
macro_rules! for_avx2 {
    ($($item:item)*) => {
        $(
            #[inline]
            #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
            $item
        )*
    };
}
use for_avx2;

/// Defines methods that call a portable function, which is compiled a second time for processors with AVX2, and all of it
/// that is always inlined.
macro_rules! twice {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty = $portable:path;)*) => {
        $(
            $(#[$doc])*
            pub(crate) fn $name(self, $($arg: $type),*) -> $out {
                #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
                fn compiled_for_avx2($($arg: $type),*) -> $out {
                    $portable($($arg),*)
                }
                if self.has_avx2 {
                    // SAFETY: `detect` has found the features.
                    unsafe { compiled_for_avx2($($arg),*) }
                } else {
                    $portable($($arg),*)
                }
            }
        )*
    };
}

impl Cpu {
    /// Any processor.
    #[cfg(test)]
    const PORTABLE: Self = Self { has_avx2: false, avx512: None };

    /// Looks at the processor.
    pub(crate) fn detect() -> Self {
        let has_avx2 = !cfg!(feature = "portable")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        Self { has_avx2, avx512: Avx512::detect() }
    }

    /// All that this processor can be used as.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let best = Self::detect();
        let without_avx512 = best.has_avx2.then_some(Self { avx512: None, ..best });
        let with_avx512 = best.avx512.map(|_| best);
        [Some(Self::PORTABLE), without_avx512, with_avx512].into_iter().flatten().collect()
    }

    /// Reads ordinary lines from `chunk[at..]` on, until the batch is full or something else comes, and says where that is.
    /// `None`: reading them one by one is faster.
    pub(crate) fn scan(self, chunk: &[u8], at: usize, lines: &mut Lines) -> Option<usize> {
        match self.avx512 {
            Some(avx512) => Some(avx512.scan(chunk, at, lines)),
            None => self.scan_columns(chunk, at, lines),
        }
    }

    /// See [`columns::scan`].
    fn scan_columns(self, chunk: &[u8], at: usize, lines: &mut Lines) -> Option<usize> {
        // SAFETY: `detect` has found the features.
        self.has_avx2.then(|| unsafe { columns::scan(chunk, at, lines) })
    }

    /// Sorts a run; see [`eights::sort`] and [`sort::sort`]. False: it has not been done.
    pub(crate) fn sort(self, run: &[Slot], users: &[[u32; 2]], is_all: bool, sorted: &mut Sorted) -> bool {
        if let Some(avx512) = self.avx512 {
            return avx512.sort(run, users, is_all, sorted);
        }
        // SAFETY: `detect` has found the features.
        self.has_avx2 && unsafe { eights::sort(run, users, is_all, sorted) }
    }

    twice! {
        /// See [`FanOut::turn_block`].
        fn turn_block(fanout: &mut FanOut, block: usize, events: usize) -> () = FanOut::turn_block;
        /// See [`FanOut::gather_in_order`].
        fn gather(fanout: &FanOut, slot: usize, events: usize, out: &mut [u8]) -> usize = FanOut::gather_in_order;
    }
}

/// Proof that the processor has what is needed here: Intel's Ice Lake, AMD's Zen 4, and later ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// Looks at the processor.
    fn detect() -> Option<Self> {
        let has_all = !cfg!(any(feature = "portable", feature = "no-avx512"))
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("avx512vpopcntdq")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt");
        has_all.then_some(Self(()))
    }

    /// See [`scan::scan`].
    fn scan(self, chunk: &[u8], at: usize, lines: &mut Lines) -> usize {
        // SAFETY: `detect` has found the features.
        unsafe { scan::scan(chunk, at, lines) }
    }

    /// See [`sort::sort`].
    fn sort(self, run: &[Slot], users: &[[u32; 2]], is_all: bool, sorted: &mut Sorted) -> bool {
        // SAFETY: `detect` has found the features.
        unsafe { sort::sort(run, users, is_all, sorted) }
    }

    /// See [`gather::mark`].
    pub(crate) fn mark(self, tape: &[u8], marks: &mut Marks) {
        // SAFETY: `detect` has found the features.
        unsafe { gather::mark(tape, marks) }
    }

    /// See [`gather::choose`].
    pub(crate) fn choose<'a>(
        self,
        words: impl Iterator<Item = &'a [u64; 8]>,
        count: usize,
        place: usize,
        marks: &mut Marks,
    ) -> usize {
        // SAFETY: `detect` has found the features.
        unsafe { gather::choose(words, count, place, marks) }
    }

    /// See [`gather::gather`].
    pub(crate) fn gather<const N: usize>(
        self,
        tape: &[u8],
        marks: &Marks,
        first: usize,
        inserts: (&[Insert], &[u8]),
        outs: &mut [&mut [u8]; N],
    ) -> [usize; N] {
        // SAFETY: `detect` has found the features.
        unsafe { gather::gather(tape, marks, first, inserts, outs) }
    }
}

/// Asks for a value to be brought into the cache, without waiting for it.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    // SAFETY: every x86-64 processor has the instruction, and it has no effect that a program can see.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) }
}

/// Up to `N` events, and behind them the empty slots of `room`.
#[inline(always)]
fn padded<'a, const N: usize>(events: &'a [Slot], room: &'a mut [Slot; N]) -> &'a [Slot; N] {
    if let Some(all) = events.first_chunk() {
        return all;
    }
    room[..events.len()].copy_from_slice(events);
    room
}

for_avx2! {
    fn load_ymm<T: Plain>(words: &T) -> __m256i {
        const { assert!(size_of::<T>() == 32) };
        // SAFETY: 32 bytes are there to be read, and no alignment is needed.
        unsafe { _mm256_loadu_si256(std::ptr::from_ref(words).cast()) }
    }

    fn load_four(words: &[u32; 4]) -> __m128i {
        // SAFETY: 16 bytes are there to be read, and no alignment is needed.
        unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
    }

    /// Eight bytes as words.
    fn widen_eight(bytes: &[u8; 8]) -> __m256i {
        // SAFETY: 8 bytes are there to be read, and no alignment is needed.
        _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) })
    }

    fn store_ymm<T: Plain>(words: &mut T, value: __m256i) {
        const { assert!(size_of::<T>() == 32) };
        // SAFETY: 32 bytes are there to be written, any value of them is a `T`, and no alignment is needed.
        unsafe { _mm256_storeu_si256(std::ptr::from_mut(words).cast(), value) }
    }

    /// The second words at each of eight indexes, for the lanes of `lanes`, all of whose bits are set; `otherwise` in the
    /// others, and where there is no such index.
    fn lookup_second_of_eight(pairs: &[[u32; 2]], indexes: __m256i, lanes: __m256i, otherwise: __m256i) -> __m256i {
        let Some(last) = i32::try_from(pairs.len()).unwrap_or(i32::MAX).checked_sub(1).filter(|&last| last >= 0) else {
            return otherwise;
        };
        let inside = _mm256_cmpeq_epi32(_mm256_min_epu32(indexes, _mm256_set1_epi32(last)), indexes);
        // SAFETY: in the lanes that are read, the index is below the length of the slice, and below 2^31, so that its sign
        // is no matter; 4 bytes behind the pair's address there is its second word.
        unsafe {
            let second_words = pairs.as_ptr().cast::<i32>().wrapping_add(1);
            _mm256_mask_i32gather_epi32::<8>(otherwise, second_words, indexes, _mm256_and_si256(lanes, inside))
        }
    }
}

for_avx512! {
    fn load<T: Plain>(words: &T) -> __m512i {
        const { assert!(size_of::<T>() == 64) };
        // SAFETY: 64 bytes are there to be read, and no alignment is needed.
        unsafe { _mm512_loadu_epi8(std::ptr::from_ref(words).cast()) }
    }

    fn load_half<T: Plain>(words: &T) -> __m256i {
        const { assert!(size_of::<T>() == 32) };
        // SAFETY: 32 bytes are there to be read, and no alignment is needed.
        unsafe { _mm256_loadu_epi8(std::ptr::from_ref(words).cast()) }
    }

    /// The lowest sixteen bytes, as words.
    fn words_of(bytes: __m512i) -> __m512i {
        _mm512_cvtepu8_epi32(_mm512_castsi512_si128(bytes))
    }

    fn store<T: Plain>(words: &mut T, value: __m512i) {
        const { assert!(size_of::<T>() == 64) };
        // SAFETY: 64 bytes are there to be written, any value of them is a `T`, and no alignment is needed.
        unsafe { _mm512_storeu_epi8(std::ptr::from_mut(words).cast(), value) }
    }

    /// The 8 bytes at each of eight positions of `bytes`, for the lanes of `mask`; 0 in the others, and where fewer than 8
    /// bytes are left.
    fn lookup(bytes: &[u8], positions: __m512i, mask: __mmask8) -> __m512i {
        let Some(last) = bytes.len().checked_sub(8) else {
            return _mm512_setzero_si512();
        };
        let inside = _mm512_mask_cmple_epu64_mask(mask, positions, _mm512_set1_epi64(last as i64));
        // SAFETY: in the lanes that are read, 8 bytes from the position on are inside the slice, whose length fits an `i64`.
        unsafe { _mm512_mask_i64gather_epi64::<1>(_mm512_setzero_si512(), inside, positions, bytes.as_ptr().cast()) }
    }

    /// The second words at each of sixteen indexes, for the lanes of `mask`; `otherwise` in the others, and where there is no
    /// such index.
    fn lookup_second(pairs: &[[u32; 2]], indexes: __m512i, mask: __mmask16, otherwise: __m512i) -> __m512i {
        let len = i32::try_from(pairs.len()).unwrap_or(i32::MAX);
        let inside = _mm512_mask_cmplt_epu32_mask(mask, indexes, _mm512_set1_epi32(len));
        // SAFETY: in the lanes that are read, the index is below the length of the slice, and below 2^31, so that its sign
        // is no matter; 4 bytes behind the pair's address there is its second word.
        unsafe { _mm512_mask_i32gather_epi32::<8>(otherwise, inside, indexes, pairs.as_ptr().cast::<i32>().wrapping_add(1)) }
    }

    /// For each of several users, writes the bytes of each piece of the tape that `choose` has a one for, without gaps, to one
    /// of `outs`, from the length in `lens` on, which grows by that. `choose` is asked with the piece and with the user's
    /// bits of `events` from the piece's first event on, 57 at least.
    ///
    /// # Panics
    ///
    /// If one of `outs` has not room for all pieces.
    fn compress<const N: usize>(
        tape: &[[u8; 64]],
        pieces: &[Piece],
        events: [&[u64]; N],
        outs: &mut [&mut [u8]; N],
        lens: &mut [usize; N],
        choose: impl Fn(Piece, u64) -> u64,
    ) {
        let mut rooms = outs.iter().zip(&*lens).map(|(out, &len)| out.len().checked_sub(len));
        assert!(rooms.all(|room| room >= Some(64 * pieces.len())), "there is room for every byte");
        let Some(last) = events.iter().map(|events| size_of_val(*events)).min().unwrap_or(0).checked_sub(8) else {
            return;
        };
        let events = events.map(|events| events.as_ptr().cast::<u8>());
        let starts: [*mut u8; N] = std::array::from_fn(|user| outs[user][lens[user]..].as_mut_ptr());
        let mut targets = starts;
        for (bytes, &piece) in tape.iter().zip(pieces) {
            let bytes = load(bytes);
            let at = (piece.first as usize / 8).min(last);
            for user in 0..N {
                // SAFETY: 8 bytes from this one on are inside the slice.
                let bits = unsafe { events[user].add(at).cast::<u64>().read_unaligned() };
                let chosen = choose(piece, u64::from_le(bits) >> (piece.first % 8));
                // SAFETY: before this piece at most 64 bytes have been kept of each, so that there is room for 64 more.
                unsafe {
                    _mm512_storeu_epi8(targets[user].cast(), _mm512_maskz_compress_epi8(chosen, bytes));
                    targets[user] = targets[user].add(chosen.count_ones() as usize);
                }
            }
        }
        for user in 0..N {
            lens[user] += targets[user].addr() - starts[user].addr();
        }
    }
}

/// Types of which every bit pattern is a value, and that have no padding.
///
/// # Safety
///
/// That must be so.
unsafe trait Plain: Sized {}
// SAFETY: integers have no padding, arrays add none, and every pattern of their bits is one.
unsafe impl<const N: usize> Plain for [u8; N] {}
// SAFETY: likewise.
unsafe impl<const N: usize> Plain for [u32; N] {}
// SAFETY: likewise.
unsafe impl<const N: usize> Plain for [u64; N] {}
// SAFETY: a slot is two integers, transparently.
unsafe impl<const N: usize> Plain for [Slot; N] {}
