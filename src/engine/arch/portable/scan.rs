//! Recognising an ordinary line without looking at its bytes one by one.
//!
//! A line of up to 32 bytes is classified as a whole: three comparisons over the span give bit masks of
//! where its line ends, its non-digits and its separators are. A valid line has very few shapes, so its
//! structure is checked on the masks with arithmetic instead of branches. The type of an event is unpredictable, and a
//! branch on it costs more than all the rest. Numbers of up to eight digits are converted by three multiplications
//! (Lemire, "Quickly parsing eight digits").
//!
//! Other lines (a longer line, an id of more than eight digits, a bad line) are left to
//! [`parse_line`](crate::engine::event::parse_line), which knows the whole grammar. [`scan_line`] returns the event, or
//! that it does not read this line. A property test compares the two.

#![forbid(unsafe_code)]

use crate::engine::event::Kind;
use wide::u8x32;

/// Bytes that must be readable in front of a line: numbers are loaded by their last bytes.
pub(crate) const BEFORE: usize = 16;
/// Bytes that must be readable from the start of a line, whatever its length.
pub(crate) const AFTER: usize = 48;
const WINDOW: usize = BEFORE + AFTER;

/// An ordinary line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    pub(crate) seq: u64,
    pub(crate) kind: u8,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// Bytes of the line, terminator included.
    pub(crate) len: usize,
}

/// The type letters: the kind in the low bits; above them one bit per user id in such a line.
pub(crate) static SHAPE: [u8; 256] = {
    let mut table = [0xF0; 256];
    table[b'F' as usize] = Kind::Follow as u8 | 3 << 4;
    table[b'U' as usize] = Kind::Unfollow as u8 | 3 << 4;
    table[b'B' as usize] = Kind::Broadcast as u8;
    table[b'P' as usize] = Kind::Private as u8 | 3 << 4;
    table[b'S' as usize] = Kind::Status as u8 | 1 << 4;
    table
};

/// The bytes around the start of a line: [`BEFORE`] bytes in front of it, [`AFTER`] from it on.
#[inline(always)]
pub(crate) fn window(bytes: &[u8], start: usize) -> Option<&[u8; WINDOW]> {
    bytes.get(start.wrapping_sub(BEFORE)..start.wrapping_add(AFTER))?.first_chunk()
}

/// Reads the line in the middle of the window, if it is an ordinary one.
#[inline(always)]
pub(crate) fn scan_line(window: &[u8; WINDOW]) -> Option<Scanned> {
    let masks = Masks::of(window);
    let newline = masks.line_end.trailing_zeros() as usize;
    if newline >= 32 {
        return None;
    }
    let end = newline - usize::from(newline > 0 && window[BEFORE + newline - 1] == b'\r');
    let end_bit = 1u64 << end;
    let marks = u64::from(masks.non_digit) & (end_bit - 1);
    let separators = u64::from(masks.separator) & (end_bit - 1);

    // What is neither digit nor separator must be one letter, right after the first separator, and followed by
    // another separator or the end. No field may be empty: no line starts with a mark, and no separator
    // stands right before another one or the end.
    let letter = marks ^ separators;
    let borders = separators | end_bit;
    let stops = marks | end_bit;
    let bad = (letter ^ ((stops & stops.wrapping_neg()) << 1))
        | ((letter << 1) & !borders)
        | (borders & (borders << 1))
        | (marks & 1);

    let first = stops.trailing_zeros() as usize;
    let shape = SHAPE[usize::from(window[BEFORE + first + 1])];
    // The separators without the first one, and without the first two.
    let inner = separators & separators.wrapping_sub(1);
    let last = inner & inner.wrapping_sub(1);
    let ids = u8::from(inner != 0) | u8::from(last != 0) << 1;

    // Where a line has fewer ids, the missing ones come out as 1 byte less than nothing. A length fits if it is
    // at most 8 (an id) or 16 (the number): what sticks out of 4 or 5 bits shows that it is not.
    let from_end = (last | end_bit).trailing_zeros() as usize;
    let from_len = from_end.wrapping_sub(first + 3);
    let to_len = end.wrapping_sub(from_end + 1);
    let too_long = ((from_len.wrapping_add(7) | to_len.wrapping_add(7)) & !15) | ((first + 15) & !31);
    let misfit = too_long as u64 | u64::from(ids ^ (shape >> 4)) | (last & last.wrapping_sub(1));
    if bad | misfit != 0 {
        return None;
    }
    let mut seq = eight_digits(window, first, first.min(8));
    if first > 8 {
        seq += 100_000_000 * eight_digits(window, first - 8, first - 8);
    }
    Some(Scanned {
        seq,
        kind: shape & 15,
        from: eight_digits(window, from_end, from_len) as u32,
        to: eight_digits(window, end, to_len) as u32,
        len: newline + 1,
    })
}

/// The number whose last digit is in front of position `end` of the line, 1 to 8 digits long.
#[inline(always)]
pub(crate) fn eight_digits(window: &[u8; WINDOW], end: usize, len: usize) -> u64 {
    let at = BEFORE + (end & 31) - 8;
    let last = std::array::from_fn(|byte| window[at + byte]);
    let digits = (u64::from_le_bytes(last) ^ 0x3030_3030_3030_3030)
        & u64::MAX.wrapping_shl((len as u32).wrapping_mul(8).wrapping_neg());
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let high = (pairs & 0x0000_00FF_0000_00FF).wrapping_mul(0x000F_4240_0000_0064);
    let low = ((pairs >> 16) & 0x0000_00FF_0000_00FF).wrapping_mul(0x0000_2710_0000_0001);
    high.wrapping_add(low) >> 32
}

/// Where, in the first 32 bytes of a line, the bytes of a class are: bit *i* for byte *i*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Masks {
    line_end: u32,
    non_digit: u32,
    separator: u32,
}

impl Masks {
    #[inline(always)]
    fn of(window: &[u8; WINDOW]) -> Self {
        let bytes = u8x32::new(std::array::from_fn(|byte| window[BEFORE + byte]));
        let value = bytes - u8x32::splat(b'0');
        Self {
            line_end: bytes.simd_eq(u8x32::splat(b'\n')).to_bitmask(),
            non_digit: !value.min(u8x32::splat(9)).simd_eq(value).to_bitmask(),
            separator: bytes.simd_eq(u8x32::splat(b'|')).to_bitmask(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::parse_line;
    use proptest::prelude::*;

    /// What `scan_line` says about a line with neighbours on both sides.
    fn scan(line: &[u8]) -> Option<Scanned> {
        let mut bytes = b"99999999|B\r\n1234".to_vec();
        let start = bytes.len();
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"12345678|P|12345678|12345678\r\n9999999999|B\r\n99999999999999");
        window(&bytes, start).and_then(scan_line)
    }

    /// Lines that are events or nearly so.
    fn nearly_an_event() -> impl Strategy<Value = Vec<u8>> {
        let number = prop_oneof!["[0-9]{1,3}", "[0-9]{7,9}", "[0-9]{15,20}"];
        let line = (number.clone(), "[FUBPSX]", number.clone(), number, 0..4usize, "\r?\n").prop_map(
            |(seq, kind, from, to, fields, end)| match fields {
                0 => format!("{seq}|{kind}{end}"),
                1 => format!("{seq}|{kind}|{from}{end}"),
                2 => format!("{seq}|{kind}|{from}|{to}{end}"),
                _ => format!("{seq}|{kind}|{from}|{to}|{end}"),
            },
        );
        let noise = prop::option::of((any::<prop::sample::Index>(), any::<u8>()));
        (line, noise).prop_map(|(line, noise)| {
            let mut line = line.into_bytes();
            if let Some((at, byte)) = noise {
                let at = at.index(line.len() - 1);
                line[at] = if byte == b'\n' { b'\r' } else { byte };
            }
            line
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn it_agrees_with_the_grammar(line in nearly_an_event()) {
            let content = line.strip_suffix(b"\n").unwrap();
            let content = content.strip_suffix(b"\r").unwrap_or(content);
            let parsed = parse_line(content);
            if let Some(scanned) = scan(&line) {
                let event = parsed.expect("scanned, but no event");
                prop_assert_eq!(scanned.seq, event.seq.get());
                prop_assert_eq!(scanned.kind, event.kind as u8);
                prop_assert_eq!(scanned.len, line.len());
                if !matches!(event.kind, Kind::Broadcast) {
                    prop_assert_eq!(u64::from(scanned.from), event.from.get());
                }
                if !matches!(event.kind, Kind::Broadcast | Kind::Status) {
                    prop_assert_eq!(u64::from(scanned.to), event.to.get());
                }
            }
        }
    }

    #[test]
    fn ordinary_lines_are_recognised() {
        for line in
            ["1|B\n", "99999999|P|99999999|1\r\n", "1234567890123456|S|0\n", "007|F|1|2\r\n", "1|U|1|2\n"]
        {
            assert!(scan(line.as_bytes()).is_some(), "{line}");
        }
    }

    #[test]
    fn what_follows_a_line_does_not_make_it_an_event() {
        for line in ["", "7", "1234", "7|"] {
            for end in ["\n", "\r\n"] {
                for next in ["B", "F", "S", "7", "\n"] {
                    let bytes = format!("1|P|12345678|1234\r\n{line}{end}{next}|1|2\n{}", "7".repeat(64));
                    assert_eq!(
                        window(bytes.as_bytes(), 19).and_then(scan_line),
                        None,
                        "{line:?} {end:?} {next}"
                    );
                }
            }
        }
    }
}
