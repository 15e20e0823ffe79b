//! Reading thirty-two lines at a time, column by column.
//!
//! What [`scan_line`](crate::engine::scan::scan_line) knows of one line at a time is here an array with an entry for each of
//! thirty-two: where its first separator is, what sticks out of the shape of an event, the eight bytes that a number ends
//! with. Each step is a loop over such columns in which no line depends on another and nothing branches, so that the compiler
//! makes vector code of it, for eight lines at once with AVX2. There is no intrinsic in it, and the arithmetic is the same: see
//! there for what it means.
//!
//! With vectors that can't shift each lane by its own distance it is slower than reading line by line.

use super::scan::{LINES_PER_PIECE, Lines, PIECE, WINDOW};
use crate::engine::{
    BATCH_LINES as LINES,
    scan::{AFTER, BEFORE, SHAPE, eight_digits},
    sequencer::FRESH,
};
use std::array;
use wide::u8x32;

/// Lines that are read side by side: with more, their columns don't stay in the first-level cache.
const SPAN: usize = 32;
/// Of the line feeds in a piece, as many are noted without a look at how many there are.
const USUALLY: usize = 8;

type Column<T> = [T; SPAN];

/// What is known about the lines of a span.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// Bit *i*: byte *i* of the line is one of these.
    separators: Column<u32>,
    non_digits: Column<u32>,
    returns: Column<u32>,
    /// Where the number, the first id, and the last field end.
    first: Column<u32>,
    from_end: Column<u32>,
    end: Column<u32>,
    /// A bit for each id, as in the upper half of [`SHAPE`].
    ids: Column<u32>,
    /// Not zero: this is no ordinary line.
    misfit: Column<u32>,
    /// As [`SHAPE`] has it.
    shape: Column<u32>,
    /// The eight bytes in front of each of those ends.
    seq_bytes: Column<[u8; 8]>,
    from_bytes: Column<[u8; 8]>,
    to_bytes: Column<[u8; 8]>,
}

/// Reads ordinary lines from `chunk[at..]` on, until the batch is full or something else comes. Returns where that is.
#[inline(always)]
pub(super) fn scan(chunk: &[u8], at: usize, lines: &mut Lines) -> usize {
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
#[inline(always)]
fn find_ends(chunk: &[u8], at: usize, lines: &mut Lines) -> usize {
    let mut count = 0;
    lines.ends[0] = at as u32 - 1;
    let pieces = chunk.get(at..).unwrap_or_default().as_chunks::<PIECE>().0;
    for (piece, base) in pieces.iter().zip((at as u32..).step_by(PIECE)) {
        let [low, high] = [0, 1].map(|half| u64::from(equal(&piece.as_chunks().0[half], b'\n')));
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
#[inline(always)]
fn read_span(chunk: &[u8], count: usize, lines: &mut Lines) -> usize {
    let Lines { columns, ends, len: line, seqs, low, high, .. } = lines;
    let Some(ends) = ends[*line..].first_chunk() else { return 0 };
    columns.take_masks(chunk, &ends[..count]);
    columns.take_apart(ends);
    columns.take_fields(chunk, &ends[..count]);

    let [seq, from, to] = columns.numbers();
    let targets = [seqs, low, high].map(|words| words.as_flattened_mut()[*line..].first_chunk_mut::<SPAN>());
    let [Some(seqs), Some(low), Some(high)] = targets else { return 0 };
    *seqs = seq;
    for at in 0..SPAN {
        let (start, len) = (ends[at].wrapping_add(1), ends[at + 1].wrapping_sub(ends[at]));
        let kind = u64::from(columns.shape[at] & 15);
        // As `Slot::new` does.
        low[at] = u64::from(start) | from[at] << 32;
        high[at] = to[at] & 0xFFFF_FFFF | u64::from(len & 0xFFFF) << 32 | kind << 48 | u64::from(FRESH) << 56;
    }
    columns.add_high_digits(chunk, &ends[..count], seqs);
    columns.misfit[..count].iter().position(|&misfit| misfit != 0).unwrap_or(count)
}

impl Columns {
    #[inline(always)]
    fn take_masks(&mut self, chunk: &[u8], ends: &[u32]) {
        let masks = self.separators.iter_mut().zip(&mut self.non_digits).zip(&mut self.returns);
        for (((separators, non_digits), returns), &before) in masks.zip(ends) {
            let Some(window) = chunk[before as usize + 1..].first_chunk() else { return };
            *separators = equal(window, b'|');
            *non_digits = above_nine(window);
            *returns = equal(window, b'\r');
        }
    }

    /// Finds the fields, and whether there is something that no ordinary line has.
    #[inline(always)]
    fn take_apart(&mut self, ends: &[u32; SPAN + 1]) {
        for at in 0..SPAN {
            let newline = ends[at + 1].wrapping_sub(ends[at]).wrapping_sub(1);
            let has_return = self.returns[at] >> (newline.wrapping_sub(1) & 31) & 1;
            let end = newline.wrapping_sub(has_return) & 31;
            let end_bit = 1 << end;
            let marks = self.non_digits[at] & (end_bit - 1);
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
            self.ids[at] = u32::from(inner != 0) | u32::from(last != 0) << 1;
            self.misfit[at] = bad | too_long | without_lowest(last);
        }
    }

    /// Takes the bytes of the fields out of the lines.
    #[inline(always)]
    fn take_fields(&mut self, chunk: &[u8], ends: &[u32]) {
        for (at, &before) in ends.iter().enumerate() {
            let Some(window) = window(chunk, before) else { return };
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

    /// The numbers, of each of the first ones the last eight digits only. Fields that a line has not are anything.
    #[inline(always)]
    fn numbers(&self) -> [Column<u64>; 3] {
        let Self { first, from_end, end, .. } = self;
        [
            numbers(&self.seq_bytes, |at| first[at].min(8)),
            numbers(&self.from_bytes, |at| from_end[at].wrapping_sub(first[at].wrapping_add(3))),
            numbers(&self.to_bytes, |at| end[at].wrapping_sub(from_end[at].wrapping_add(1))),
        ]
    }

    /// Adds what the first eight digits of longer sequence numbers are worth.
    #[inline(always)]
    fn add_high_digits(&self, chunk: &[u8], ends: &[u32], seqs: &mut Column<u64>) {
        if self.first.iter().copied().fold(0, u32::max) <= 8 {
            return;
        }
        for (at, &before) in ends.iter().enumerate() {
            let len = self.first[at].saturating_sub(8).min(8) as usize;
            if let Some(window) = window(chunk, before).filter(|_| len > 0) {
                let high = eight_digits(window, len, len);
                seqs[at] = seqs[at].wrapping_add(high.wrapping_mul(100_000_000));
            }
        }
    }
}

/// What surrounds the start of the line behind a byte.
#[inline(always)]
fn window(chunk: &[u8], before: u32) -> Option<&[u8; BEFORE + AFTER]> {
    crate::engine::scan::window(chunk, before as usize + 1)
}

/// The eight bytes in front of a position of a line.
#[inline(always)]
fn bytes_before(window: &[u8; BEFORE + AFTER], end: u32) -> [u8; 8] {
    let at = BEFORE + (end & 31) as usize - 8;
    array::from_fn(|byte| window[at + byte])
}

/// The numbers whose last digits are at the end of eight bytes; `len` says how many digits they have, 1 to 8.
#[inline(always)]
fn numbers(bytes: &Column<[u8; 8]>, len: impl Fn(usize) -> u32) -> Column<u64> {
    let mut parts = [[0; 8]; SPAN];
    for (at, (part, &bytes)) in parts.iter_mut().zip(bytes).enumerate() {
        let others = u64::MAX.wrapping_shl(len(at).wrapping_mul(8).wrapping_neg());
        *part = ((u64::from_le_bytes(bytes) ^ 0x3030_3030_3030_3030) & others).to_le_bytes();
    }
    // Four digits at a time: 32 bits are the most that vectors multiply.
    for four in parts.as_flattened_mut().as_chunks_mut().0 {
        let digits = u32::from_le_bytes(*four);
        let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00FF_00FF;
        *four = (pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0xFFFF).to_le_bytes();
    }
    let mut numbers = [0; SPAN];
    for (number, &part) in numbers.iter_mut().zip(&parts) {
        let fours = u64::from_le_bytes(part);
        *number = (fours & 0xFFFF_FFFF) * 10_000 + (fours >> 32);
    }
    numbers
}

/// The bytes that are equal to one.
#[inline(always)]
fn equal(bytes: &[u8; WINDOW], byte: u8) -> u32 {
    u8x32::new(*bytes).simd_eq(u8x32::splat(byte)).to_bitmask()
}

/// The bytes that are no digits.
#[inline(always)]
fn above_nine(bytes: &[u8; WINDOW]) -> u32 {
    let value = u8x32::new(*bytes) - u8x32::splat(b'0');
    !value.min(u8x32::splat(9)).simd_eq(value).to_bitmask()
}

#[inline(always)]
fn lowest(bits: u32) -> u32 {
    bits & bits.wrapping_neg()
}

#[inline(always)]
fn without_lowest(bits: u32) -> u32 {
    bits & bits.wrapping_sub(1)
}

/// The position of the only bit that is set: the exponent of the number that it is, which vectors know how to convert.
#[inline(always)]
fn position(bit: u32) -> u32 {
    ((bit.cast_signed() as f32).to_bits() >> 23 & 255).wrapping_sub(127)
}
