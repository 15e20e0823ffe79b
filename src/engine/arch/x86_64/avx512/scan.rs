//! Reading eight lines at a time.
//!
//! First the line feeds of a batch are found. For each line the three masks of its first 32 bytes are computed, as in
//! [`scan_line`]. Then eight lines are read side by side, each in 64 bits of its own, by the arithmetic of [`scan_line`] on
//! these masks. One permutation for two lines picks the digits out of the 32 bytes, so that nothing is fetched from memory
//! position by position. Two kinds of lines end the batch: a line that is not ordinary, and a line with a user id of more
//! than eight digits.
//!
//! [`scan_line`]: crate::engine::arch::scan::scan_line

#![forbid(unsafe_code)]

use super::super::{
    features::for_avx512,
    lines::{LANES, LINES_PER_PIECE, Lines, PAIR, PAIRS, PIECE, SPAN, WINDOW},
    vector::{POSITIONS, Plain, load, load_half, lookup, store, words_of},
};
use crate::engine::{
    arch::{batch::BATCH_LINES as LINES, scan::BEFORE},
    event::Kind,
    packed::{FRESH, ORDINARY},
};
use std::{arch::x86_64::*, array, ops::Range};

/// The type letters, by their low 6 bits: the kind in the low half; in the high half the separators of such a line.
const SHAPES: [u8; 64] = {
    let mut table = [0; 64];
    table[b'F' as usize & 63] = Kind::Follow as u8 | 3 << 4;
    table[b'U' as usize & 63] = Kind::Unfollow as u8 | 3 << 4;
    table[b'B' as usize & 63] = Kind::Broadcast as u8 | 1 << 4;
    table[b'P' as usize & 63] = Kind::Private as u8 | 3 << 4;
    table[b'S' as usize & 63] = Kind::Status as u8 | 2 << 4;
    table
};

/// For each pair of a group and each byte of its fields, where among all lines' positions that one is from which
/// the byte is counted.
const POSITION_OF: [[u8; PAIR * WINDOW]; PAIRS] = {
    let mut table = [[0; PAIR * WINDOW]; PAIRS];
    let mut at = 0;
    while at < LANES * WINDOW {
        let (line, field) = (at / WINDOW, at % WINDOW / 8);
        table[line / PAIR][at % (PAIR * WINDOW)] = 8 * line as u8 + [0, 0, 1, 2][field];
        at += 1;
    }
    table
};

/// For each byte of a pair's fields, how far it is from there, and in whose window.
const BYTE_FROM: [u8; PAIR * WINDOW] = {
    let mut table = [0; PAIR * WINDOW];
    let mut at = 0;
    while at < PAIR * WINDOW {
        let (line, field) = (at / WINDOW, at % WINDOW / 8);
        table[at] = ((line * WINDOW + at % 8) as u8).wrapping_sub(if field == 1 { 0 } else { 8 });
        at += 1;
    }
    table
};

for_avx512! {
    /// Reads ordinary lines from `chunk[at..]` on, until the batch is full or something else comes. Returns where that is.
    pub(crate) fn scan(chunk: &[u8], at: usize, lines: &mut Lines) -> usize {
        lines.len = 0;
        if at < BEFORE {
            return at;
        }
        let mut count = find_ends(chunk, at, lines).min(LINES);
        // The window of the line behind the last one is looked at as well where they are looked at in pairs.
        while count > 0 && chunk.len() < lines.ends[count] as usize + 1 + WINDOW {
            count -= 1;
        }
        for group in 0..count.div_ceil(LANES) {
            if group % SPAN == 0 {
                take_masks(chunk, group * LANES..count.min((group + SPAN) * LANES), lines);
            }
            let present = (count - group * LANES).min(LANES);
            let ordinary = (read(chunk, group, lines).trailing_ones() as usize).min(present);
            lines.len += ordinary;
            if ordinary < LANES {
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
            let found = _mm512_cmpeq_epi8_mask(load(piece), splat_byte(b'\n'));
            let positions = words_of(_mm512_maskz_compress_epi8(found, load(&POSITIONS)));
            let positions = _mm512_add_epi32(positions, _mm512_set1_epi32(base.cast_signed()));
            let Some(ends) = lines.ends[1 + count..].first_chunk_mut::<LINES_PER_PIECE>() else {
                break;
            };
            store(ends, positions);
            let found = found.count_ones() as usize;
            count += found.min(LINES_PER_PIECE);
            // Where more lines end than are ordinary, the first that is not is among those that have been noted.
            if count >= LINES || found > LINES_PER_PIECE {
                break;
            }
        }
        count
    }

    /// Takes the windows and masks of the lines of a span.
    fn take_masks(chunk: &[u8], span: Range<usize>, lines: &mut Lines) {
        let separators = lines.separators.as_flattened_mut().iter_mut();
        let non_digits = lines.non_digits.as_flattened_mut().iter_mut();
        let returns = lines.returns.as_flattened_mut().iter_mut();
        let masks = separators.zip(non_digits).zip(returns).zip(lines.windows.as_flattened_mut());
        let starts = lines.ends[span.start..].as_chunks::<PAIR>().0.iter().take(span.len().div_ceil(PAIR));
        for (&[first, second], (((separators, non_digits), returns), windows)) in starts.zip(masks) {
            let (Some(first), Some(second)) = (
                chunk[first as usize + 1..].first_chunk::<WINDOW>(),
                chunk[second as usize + 1..].first_chunk::<WINDOW>(),
            ) else {
                return;
            };
            let bytes = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(load_half(first)), load_half(second));
            let digits = _mm512_sub_epi8(bytes, splat_byte(b'0'));
            *separators = _mm512_cmpeq_epi8_mask(bytes, splat_byte(b'|'));
            *non_digits = _mm512_cmpgt_epu8_mask(digits, splat_byte(9));
            *returns = _mm512_cmpeq_epi8_mask(bytes, splat_byte(b'\r'));
            store(windows, bytes);
        }
    }

    /// Reads eight lines; returns which of them are ordinary ones.
    fn read(chunk: &[u8], group: usize, lines: &mut Lines) -> u8 {
        let ends = &lines.ends[group * LANES..];
        let (Some(before), Some(newlines)) = (ends.first_chunk(), ends[1..].first_chunk()) else {
            return 0;
        };
        let start = add(widen::<[u32; LANES]>(before), splat(1));
        let newline = sub(widen::<[u32; LANES]>(newlines), start);
        let separators = widen(&lines.separators[group % SPAN]);
        let non_digits = widen(&lines.non_digits[group % SPAN]);
        let returns = widen(&lines.returns[group % SPAN]);

        let end = sub(newline, and(_mm512_srlv_epi64(returns, sub(newline, splat(1))), splat(1)));
        let end_bit = _mm512_sllv_epi64(splat(1), end);
        let inside = sub(end_bit, splat(1));
        let marks = and(non_digits, inside);
        let separators = and(separators, inside);

        let letter = xor(marks, separators);
        let borders = or(separators, end_bit);
        let stops = or(marks, end_bit);
        let bad = or(
            or(xor(letter, twice(lowest(stops))), _mm512_andnot_si512(borders, twice(letter))),
            or(and(borders, twice(borders)), and(marks, splat(1))),
        );

        let first = position(stops);
        let last = without_lowest(without_lowest(separators));
        let from_end = position(or(last, end_bit));
        let from_len = sub(from_end, add(first, splat(3)));
        let to_len = sub(end, add(from_end, splat(1)));
        let too_long = or(
            _mm512_andnot_si512(splat(15), or(add(from_len, splat(7)), add(to_len, splat(7)))),
            _mm512_andnot_si512(splat(31), or(add(first, splat(15)), newline)),
        );
        let fitting = _mm512_testn_epi64_mask(or(bad, too_long), splat(u64::MAX));

        let [seq, letter, from, to] = fields(&lines.windows[group % SPAN], first, from_end, end);
        let letter = _mm512_srli_epi64::<8>(letter);
        let shape = _mm512_maskz_permutexvar_epi8(0x0101_0101_0101_0101, letter, load(&SHAPES));
        let misfit = or(
            xor(and(letter, splat(0xC0)), splat(u64::from(b'A' & 0xC0))),
            xor(_mm512_srli_epi64::<4>(shape), _mm512_popcnt_epi64(separators)),
        );
        let ordinary = _mm512_mask_testn_epi64_mask(fitting, misfit, misfit);

        let eight = splat(8);
        let mut seq = number(seq, _mm512_min_epu64(first, eight));
        if _mm512_mask_cmpgt_epu64_mask(ordinary, first, eight) != 0 {
            let high = lookup(chunk, sub(add(start, first), splat(16)), ordinary);
            seq = add(seq, _mm512_mul_epu32(number(high, sub(first, eight)), splat(100_000_000)));
        }
        let (from, to) = (number(from, from_len), number(to, to_len));

        // As `Packed::new` does.
        let len = add(newline, splat(1));
        let kind = and(shape, splat(15));
        let flags = splat(u64::from(FRESH | ORDINARY) << 56);
        let high = or(or(to, _mm512_slli_epi64::<32>(len)), or(_mm512_slli_epi64::<48>(kind), flags));
        store(&mut lines.seqs[group], seq);
        store(&mut lines.low[group], or(start, _mm512_slli_epi64::<32>(from)));
        store(&mut lines.high[group], high);
        ordinary
    }

    /// Of each of eight lines, the 8 bytes in front of its first separator, the 8 from there on, and the 8 in front of
    /// either other position. Where they are not all in its window, there is something else.
    fn fields(windows: &[[u8; PAIR * WINDOW]; PAIRS], first: __m512i, from_end: __m512i, end: __m512i) -> [__m512i; 4] {
        let positions = or(first, or(_mm512_slli_epi64::<8>(from_end), _mm512_slli_epi64::<16>(end)));
        let [a, b, c, d] = array::from_fn(|pair| {
            let which = _mm512_permutexvar_epi8(load(&POSITION_OF[pair]), positions);
            _mm512_permutexvar_epi8(_mm512_add_epi8(which, load(&BYTE_FROM)), load(&windows[pair]))
        });
        let (ab_low, ab_high) = (_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi64(c, d), _mm512_unpackhi_epi64(c, d));
        let first_half = _mm512_setr_epi64(0, 4, 1, 5, 8, 12, 9, 13);
        let second_half = _mm512_setr_epi64(2, 6, 3, 7, 10, 14, 11, 15);
        [
            _mm512_permutex2var_epi64(ab_low, first_half, cd_low),
            _mm512_permutex2var_epi64(ab_high, first_half, cd_high),
            _mm512_permutex2var_epi64(ab_low, second_half, cd_low),
            _mm512_permutex2var_epi64(ab_high, second_half, cd_high),
        ]
    }

    /// The number that the last `len` of eight bytes are, 1 to 8; 0 for fewer.
    fn number(bytes: __m512i, len: __m512i) -> __m512i {
        let dropped = _mm512_slli_epi64::<3>(sub(splat(8), len));
        let digits = and(xor(bytes, splat_byte(b'0')), _mm512_sllv_epi64(splat(u64::MAX), dropped));
        let pairs = _mm512_maddubs_epi16(digits, _mm512_set1_epi16(0x010A));
        let fours = _mm512_madd_epi16(pairs, _mm512_set1_epi32(0x0001_0064));
        add(_mm512_mul_epu32(fours, splat(10_000)), _mm512_srli_epi64::<32>(fours))
    }

    /// Eight words of 32 bits as words of 64.
    fn widen<T: Plain>(words: &T) -> __m512i {
        _mm512_cvtepu32_epi64(load_half(words))
    }

    /// The position of the lowest one; 64 if there is none.
    fn position(bits: __m512i) -> __m512i {
        _mm512_popcnt_epi64(sub(lowest(bits), splat(1)))
    }

    fn lowest(bits: __m512i) -> __m512i {
        and(bits, sub(_mm512_setzero_si512(), bits))
    }

    fn without_lowest(bits: __m512i) -> __m512i {
        and(bits, sub(bits, splat(1)))
    }

    fn twice(value: __m512i) -> __m512i {
        add(value, value)
    }

    fn add(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi64(a, b)
    }

    fn sub(a: __m512i, b: __m512i) -> __m512i {
        _mm512_sub_epi64(a, b)
    }

    fn and(a: __m512i, b: __m512i) -> __m512i {
        _mm512_and_si512(a, b)
    }

    fn or(a: __m512i, b: __m512i) -> __m512i {
        _mm512_or_si512(a, b)
    }

    fn xor(a: __m512i, b: __m512i) -> __m512i {
        _mm512_xor_si512(a, b)
    }

    fn splat(value: u64) -> __m512i {
        _mm512_set1_epi64(value.cast_signed())
    }

    fn splat_byte(value: u8) -> __m512i {
        _mm512_set1_epi8(value.cast_signed())
    }
}
