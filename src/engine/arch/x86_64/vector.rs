//! Memory and vectors: loads, stores and look-ups, with the proof that each is sound.
//!
//! Reading and writing through pointers needs `unsafe`. [`load`] and [`store`] and their like take references to exactly the
//! bytes that they touch. [`lookup`], [`lookup_second`] and [`lookup_second_of_eight`] compare every position with the length
//! of the slice before it is read. [`compress`] checks once, before it begins, that there is room for all that it can write.

#![expect(unsafe_code, reason = "the module's documentation says why it is sound")]

use super::{
    avx512::piece::Piece,
    features::{for_avx2, for_avx512},
};
use crate::engine::packed::Packed;
use std::arch::x86_64::*;

/// 0, 1, 2 and so on, for vectors that are to know their lanes.
pub(crate) const POSITIONS: [u8; 64] = {
    let mut positions = [0; 64];
    let mut position = 0;
    while position < positions.len() {
        positions[position] = position as u8;
        position += 1;
    }
    positions
};

/// Asks for a value to be brought into the cache, without waiting for it.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    // SAFETY: every x86-64 processor has the instruction, and it has no effect that a program can see.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) }
}

/// Up to `N` events, and behind them the empty slots of `room`.
#[inline(always)]
pub(crate) fn padded<'a, const N: usize>(events: &'a [Packed], room: &'a mut [Packed; N]) -> &'a [Packed; N] {
    if let Some(all) = events.first_chunk() {
        return all;
    }
    room[..events.len()].copy_from_slice(events);
    room
}

for_avx2! {
    pub(crate) fn load_ymm<T: Plain>(words: &T) -> __m256i {
        const { assert!(size_of::<T>() == 32) };
        // SAFETY: 32 bytes are there to be read, and no alignment is needed.
        unsafe { _mm256_loadu_si256(std::ptr::from_ref(words).cast()) }
    }

    pub(crate) fn load_four(words: &[u32; 4]) -> __m128i {
        // SAFETY: 16 bytes are there to be read, and no alignment is needed.
        unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
    }

    /// Eight bytes as words.
    pub(crate) fn widen_eight(bytes: &[u8; 8]) -> __m256i {
        // SAFETY: 8 bytes are there to be read, and no alignment is needed.
        _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) })
    }

    pub(crate) fn store_ymm<T: Plain>(words: &mut T, value: __m256i) {
        const { assert!(size_of::<T>() == 32) };
        // SAFETY: 32 bytes are there to be written, any value of them is a `T`, and no alignment is needed.
        unsafe { _mm256_storeu_si256(std::ptr::from_mut(words).cast(), value) }
    }

    /// The second words at each of eight indexes, for the lanes of `lanes`, all of whose bits are set; `otherwise` in the
    /// others, and where there is no such index.
    pub(crate) fn lookup_second_of_eight(pairs: &[[u32; 2]], indexes: __m256i, lanes: __m256i, otherwise: __m256i) -> __m256i {
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
    pub(crate) fn load<T: Plain>(words: &T) -> __m512i {
        const { assert!(size_of::<T>() == 64) };
        // SAFETY: 64 bytes are there to be read, and no alignment is needed.
        unsafe { _mm512_loadu_epi8(std::ptr::from_ref(words).cast()) }
    }

    pub(crate) fn load_half<T: Plain>(words: &T) -> __m256i {
        const { assert!(size_of::<T>() == 32) };
        // SAFETY: 32 bytes are there to be read, and no alignment is needed.
        unsafe { _mm256_loadu_epi8(std::ptr::from_ref(words).cast()) }
    }

    /// The lowest sixteen bytes, as words.
    pub(crate) fn words_of(bytes: __m512i) -> __m512i {
        _mm512_cvtepu8_epi32(_mm512_castsi512_si128(bytes))
    }

    pub(crate) fn store<T: Plain>(words: &mut T, value: __m512i) {
        const { assert!(size_of::<T>() == 64) };
        // SAFETY: 64 bytes are there to be written, any value of them is a `T`, and no alignment is needed.
        unsafe { _mm512_storeu_epi8(std::ptr::from_mut(words).cast(), value) }
    }

    /// The 8 bytes at each of eight positions of `bytes`, for the lanes of `mask`; 0 in the others, and where fewer than 8
    /// bytes are left.
    pub(crate) fn lookup(bytes: &[u8], positions: __m512i, mask: __mmask8) -> __m512i {
        let Some(last) = bytes.len().checked_sub(8) else {
            return _mm512_setzero_si512();
        };
        let inside = _mm512_mask_cmple_epu64_mask(mask, positions, _mm512_set1_epi64(last as i64));
        // SAFETY: in the lanes that are read, 8 bytes from the position on are inside the slice, whose length fits an `i64`.
        unsafe { _mm512_mask_i64gather_epi64::<1>(_mm512_setzero_si512(), inside, positions, bytes.as_ptr().cast()) }
    }

    /// The second words at each of sixteen indexes, for the lanes of `mask`; `otherwise` in the others, and where there is no
    /// such index.
    pub(crate) fn lookup_second(pairs: &[[u32; 2]], indexes: __m512i, mask: __mmask16, otherwise: __m512i) -> __m512i {
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
    pub(crate) fn compress<const N: usize>(
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
pub(crate) unsafe trait Plain: Sized {}
// SAFETY: integers have no padding, arrays add none, and every pattern of their bits is one.
unsafe impl<const N: usize> Plain for [u8; N] {}
// SAFETY: likewise.
unsafe impl<const N: usize> Plain for [u32; N] {}
// SAFETY: likewise.
unsafe impl<const N: usize> Plain for [u64; N] {}
// SAFETY: a packed event is two integers, transparently.
unsafe impl<const N: usize> Plain for [Packed; N] {}
