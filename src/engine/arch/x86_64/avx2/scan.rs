//! Reading thirty-two lines at a time, column by column.
//!
//! The arithmetic is that of [`scan_line`](crate::engine::arch::scan::scan_line), which reads one line. Each of its values
//! is an array here, with an entry for each of the thirty-two lines: the place of the first separator, the bits that do not
//! fit the shape of an event, the eight bytes at the end of a number. Each step is a loop over such arrays. In it no line
//! depends on another, and nothing branches.
//!
//! The compiler turns most of these loops into vector code for eight lines at once. Two steps use instructions that the
//! compiler does not find: the masks of a line, and the conversion of digits to numbers.

#![forbid(unsafe_code)]

use super::{
    super::{
        features::for_avx2,
        lines::{LINES_PER_PIECE, Lines, PIECE, WINDOW},
        vector::{load_four, load_ymm, store_ymm},
    },
    columns::{Column, Columns, SPAN},
};
use crate::engine::{
    arch::{
        batch::BATCH_LINES as LINES,
        scan::{AFTER, BEFORE, SHAPE, eight_digits, window},
    },
    packed::{FRESH, ORDINARY},
};
use std::{arch::x86_64::*, array};

/// Of the line feeds in a piece, as many are noted without a look at how many there are.
const USUALLY: usize = 6;
/// Lines whose numbers one vector takes.
const LANES: usize = 4;

/// What surrounds the start of a line, as [`window`] takes it.
type Window = [u8; BEFORE + AFTER];

for_avx2! {
    /// Reads ordinary lines from `chunk[at..]` on, until the batch is full or something else comes. Returns where that is.
    pub(crate) fn scan(chunk: &[u8], at: usize, lines: &mut Lines) -> usize {
        lines.len = 0;
        if at < BEFORE {
            return at;
        }
        let mut count = find_ends(chunk, at, lines).min(LINES);
        while count > 0 && chunk.len() < lines.ends[count - 1] as usize + 1 + AFTER {
            count -= 1;
        }
        while lines.len < count {
            let present = (count - lines.len).min(SPAN);
            let ordinary = read_span(chunk, present, lines);
            lines.len += ordinary;
            if ordinary < SPAN {
                break;
            }
        }
        lines.ends[lines.len] as usize + 1
    }

    /// Finds the line feeds; returns how many are worth being looked at.
    fn find_ends(chunk: &[u8], at: usize, lines: &mut Lines) -> usize {
        let mut count = 0;
        lines.ends[0] = at as u32 - 1;
        let pieces = chunk.get(at..).unwrap_or_default().as_chunks::<PIECE>().0;
        for (piece, base) in pieces.iter().zip((at as u32..).step_by(PIECE)) {
            let (low, high) = piece.split_at(WINDOW);
            let (Some(low), Some(high)) = (low.first_chunk(), high.first_chunk()) else { break };
            let [low, high] = [low, high].map(|half: &[u8; WINDOW]| u64::from(equal(load_ymm(half), b'\n')));
            let mut rest = low | high << 32;
            let found = rest.count_ones() as usize;
            let Some(ends) = lines.ends[1 + count..].first_chunk_mut::<LINES_PER_PIECE>() else {
                break;
            };
            let mut note = |ends: &mut [u32]| {
                for end in ends {
                    *end = base + rest.trailing_zeros();
                    rest &= rest.wrapping_sub(1);
                }
            };
            note(&mut ends[..USUALLY]);
            if found > USUALLY {
                note(&mut ends[USUALLY..]);
            }
            count += found.min(LINES_PER_PIECE);
            // Where more lines end than are ordinary, the first that is not is among those that have been noted, or the next.
            if count >= LINES || found > LINES_PER_PIECE {
                break;
            }
        }
        count
    }

    /// Reads the next `count` lines; returns how many of them, up to the first that is not, are ordinary ones.
    fn read_span(chunk: &[u8], count: usize, lines: &mut Lines) -> usize {
        let Lines { columns, ends, len: line, seqs, low, high, .. } = lines;
        let Some(ends) = ends[*line..].first_chunk() else { return 0 };
        let targets = [seqs, low, high].map(|words| words.as_flattened_mut()[*line..].first_chunk_mut::<SPAN>());
        let [Some(seqs), Some(low), Some(high)] = targets else { return 0 };
        // Lines that there are not are no ordinary ones.
        let mut windows = [&[0; BEFORE + AFTER]; SPAN];
        for (target, &before) in windows.iter_mut().zip(&ends[..count]) {
            let Some(there) = window(chunk, before as usize + 1) else { return 0 };
            *target = there;
        }
        columns.take_masks(&windows);
        columns.take_apart(ends);
        columns.take_fields(&windows);
        columns.put_together(ends, [seqs, low, high]);
        columns.add_high_digits(&windows, seqs);
        // Mostly there is none, and to ask so takes no branch for each.
        if columns.misfit.iter().fold(0, |union, misfit| union | misfit) == 0 {
            return count;
        }
        columns.misfit[..count].iter().position(|&misfit| misfit != 0).unwrap_or(count)
    }

    /// The bytes that are equal to one.
    fn equal(bytes: __m256i, byte: u8) -> u32 {
        _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, splat_byte(byte))).cast_unsigned()
    }

    /// The bytes that are digits.
    fn up_to_nine(bytes: __m256i) -> u32 {
        let value = _mm256_sub_epi8(bytes, splat_byte(b'0'));
        let digits = _mm256_cmpeq_epi8(_mm256_min_epu8(value, splat_byte(9)), value);
        _mm256_movemask_epi8(digits).cast_unsigned()
    }

    /// The numbers whose last digits are at the end of eight bytes; `len` says how many digits they have, 1 to 8.
    fn numbers(bytes: &[u64; LANES], len: &[u32; LANES]) -> __m256i {
        let dropped = _mm256_slli_epi64::<3>(_mm256_sub_epi64(splat(8), widen(len)));
        let others = _mm256_sllv_epi64(splat(u64::MAX), dropped);
        let digits = _mm256_and_si256(_mm256_xor_si256(load_ymm(bytes), splat_byte(b'0')), others);
        let pairs = _mm256_maddubs_epi16(digits, _mm256_set1_epi16(0x010A));
        let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x0001_0064));
        _mm256_add_epi64(_mm256_mul_epu32(fours, splat(10_000)), _mm256_srli_epi64::<32>(fours))
    }

    /// Four words of 32 bits as words of 64.
    fn widen(words: &[u32; LANES]) -> __m256i {
        _mm256_cvtepu32_epi64(load_four(words))
    }

    fn or(a: __m256i, b: __m256i) -> __m256i {
        _mm256_or_si256(a, b)
    }

    fn splat(word: u64) -> __m256i {
        _mm256_set1_epi64x(word.cast_signed())
    }

    fn splat_byte(byte: u8) -> __m256i {
        _mm256_set1_epi8(byte.cast_signed())
    }
}

impl Columns {
    for_avx2! {
        fn take_masks(&mut self, windows: &Column<&Window>) {
            let masks = self.separators.iter_mut().zip(&mut self.digits).zip(&mut self.returns);
            for (((separators, digits), returns), window) in masks.zip(windows) {
                let Some(line) = window[BEFORE..].first_chunk::<WINDOW>() else { return };
                let bytes = load_ymm(line);
                *separators = equal(bytes, b'|');
                *digits = up_to_nine(bytes);
                *returns = equal(bytes, b'\r');
            }
        }

        /// Finds the fields, and whether there is something that no ordinary line has.
        fn take_apart(&mut self, ends: &[u32; SPAN + 1]) {
            for at in 0..SPAN {
                let newline = ends[at + 1].wrapping_sub(ends[at]).wrapping_sub(1);
                let has_return = self.returns[at] >> (newline.wrapping_sub(1) & 31) & 1;
                let end = newline.wrapping_sub(has_return) & 31;
                let end_bit = 1 << end;
                let marks = !self.digits[at] & (end_bit - 1);
                let separators = self.separators[at] & (end_bit - 1);

                let letter = marks ^ separators;
                let borders = separators | end_bit;
                let stops = marks | end_bit;
                let bad = (letter ^ (lowest(stops) << 1))
                    | ((letter << 1) & !borders)
                    | (borders & (borders << 1))
                    | (marks & 1);

                let first = position(lowest(stops));
                let inner = without_lowest(separators);
                let last = without_lowest(inner);
                let from_end = position(lowest(last | end_bit));
                let from_len = from_end.wrapping_sub(first.wrapping_add(3));
                let to_len = end.wrapping_sub(from_end.wrapping_add(1));
                let too_long = ((from_len.wrapping_add(7) | to_len.wrapping_add(7)) & !15)
                    | ((first.wrapping_add(15) | newline) & !31);

                (self.first[at], self.from_end[at], self.end[at]) = (first, from_end, end);
                (self.seq_len[at], self.from_len[at], self.to_len[at]) = (first.min(8), from_len, to_len);
                self.ids[at] = u32::from(inner != 0) | u32::from(last != 0) << 1;
                self.misfit[at] = bad | too_long | without_lowest(last);
            }
        }

        /// Takes the bytes of the fields out of the lines.
        fn take_fields(&mut self, windows: &Column<&Window>) {
            for (at, window) in windows.iter().enumerate() {
                let letter = window[BEFORE + (self.first[at] & 31) as usize + 1];
                self.shape[at] = u32::from(SHAPE[usize::from(letter)]);
                self.seq_bytes[at] = bytes_before(window, self.first[at]);
                self.from_bytes[at] = bytes_before(window, self.from_end[at]);
                self.to_bytes[at] = bytes_before(window, self.end[at]);
            }
            for at in 0..SPAN {
                self.misfit[at] |= self.ids[at] ^ self.shape[at] >> 4;
            }
        }

        /// Puts the lines' numbers, of each the last eight digits only, and the words of their slots, as `Packed::new` does,
        /// into `targets`. Fields that a line has not are anything.
        fn put_together(&self, ends: &[u32; SPAN + 1], targets: [&mut Column<u64>; 3]) {
            let [seqs, low, high] = targets.map(|words| words.as_chunks_mut::<LANES>().0);
            let (befores, newlines) = (ends.as_chunks().0, ends[1..].as_chunks().0);
            let flags = splat(u64::from(FRESH | ORDINARY) << 56);
            for group in 0..SPAN / LANES {
                let before = widen(&befores[group]);
                let start = _mm256_add_epi64(before, splat(1));
                let len = _mm256_sub_epi64(widen(&newlines[group]), before);
                let kind = _mm256_and_si256(widen(four(&self.shape, group)), splat(15));
                let seq = numbers(four(&self.seq_bytes, group), four(&self.seq_len, group));
                let from = numbers(four(&self.from_bytes, group), four(&self.from_len, group));
                let to = numbers(four(&self.to_bytes, group), four(&self.to_len, group));
                store_ymm(&mut seqs[group], seq);
                store_ymm(&mut low[group], or(start, _mm256_slli_epi64::<32>(from)));
                let what = or(flags, _mm256_slli_epi64::<48>(kind));
                store_ymm(&mut high[group], or(or(what, _mm256_slli_epi64::<32>(len)), to));
            }
        }

        /// Adds the value of the first eight digits of longer sequence numbers.
        fn add_high_digits(&self, windows: &Column<&Window>, seqs: &mut Column<u64>) {
            if self.first.iter().copied().fold(0, u32::max) <= 8 {
                return;
            }
            for ((window, &first), seq) in windows.iter().zip(&self.first).zip(seqs) {
                let len = first.saturating_sub(8).min(8) as usize;
                if len > 0 {
                    *seq = seq.wrapping_add(eight_digits(window, len, len).wrapping_mul(100_000_000));
                }
            }
        }
    }
}

/// Four lines' part of a column.
#[inline(always)]
fn four<T>(column: &Column<T>, group: usize) -> &[T; LANES] {
    &column.as_chunks().0[group]
}

/// The eight bytes in front of a position of a line.
#[inline(always)]
fn bytes_before(window: &Window, end: u32) -> u64 {
    let at = BEFORE + (end & 31) as usize - 8;
    u64::from_le_bytes(array::from_fn(|byte| window[at + byte]))
}

#[inline(always)]
fn lowest(bits: u32) -> u32 {
    bits & bits.wrapping_neg()
}

#[inline(always)]
fn without_lowest(bits: u32) -> u32 {
    bits & bits.wrapping_sub(1)
}

/// The position of the only bit that is set: the exponent of the number, which vector instructions can convert.
#[inline(always)]
fn position(bit: u32) -> u32 {
    ((bit.cast_signed() as f32).to_bits() >> 23 & 255).wrapping_sub(127)
}
