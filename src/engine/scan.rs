//! Recognising an ordinary line without looking at its bytes one by one.
//!
//! A line of up to 32 bytes is classified as a whole: three comparisons over the span give bit masks of
//! where its line ends, its non-digits and its separators are. A valid line has very few shapes, so its
//! structure is checked on the masks with arithmetic instead of branches: the type of an event is as good
//! as random, and a branch on it costs more than all the rest. Numbers of up to eight digits are
//! converted by three multiplications (Lemire, "Quickly parsing eight digits").
//!
//! Whatever does not fit (a longer line, an id of more than eight digits, a bad line) is left to
//! [`parse_line`](super::event::parse_line), which knows the grammar; [`scan_line`] only ever says *yes, and
//! this is what it says* or *not by me*. A property test holds the two against each other.

use super::event::Kind;
use wide::u8x16;

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

/// The type letters: kind in the low bits, number of separators and letters in such a line above them.
const SHAPE: [u8; 256] = {
    let mut table = [0; 256];
    table[b'F' as usize] = Kind::Follow as u8 | 4 << 4;
    table[b'U' as usize] = Kind::Unfollow as u8 | 4 << 4;
    table[b'B' as usize] = Kind::Broadcast as u8 | 2 << 4;
    table[b'P' as usize] = Kind::Private as u8 | 4 << 4;
    table[b'S' as usize] = Kind::Status as u8 | 3 << 4;
    table
};

/// Reads the line that starts at `start`, if it is an ordinary one.
#[inline(always)]
pub(crate) fn scan_line(bytes: &[u8], start: usize) -> Option<Scanned> {
    let window = bytes.get(start.wrapping_sub(BEFORE)..start.wrapping_add(AFTER))?;
    let window: &[u8; WINDOW] = window.try_into().ok()?;
    let masks = Masks::of(window);
    if masks.line_end == 0 {
        return None;
    }
    let newline = masks.line_end.trailing_zeros() as usize;
    let end = newline - usize::from(window[BEFORE + newline - 1] == b'\r' && newline > 0);
    let before_end = (1u64 << end) - 1;

    // The positions of everything that is no digit: separator, letter, separator, separator, end. The two
    // bits past the span stand for those that a line has not got, so that no position is ever missing.
    let marks = (u64::from(masks.non_digit) & before_end) | 1 << end | 1 << 40 | 1 << 44;
    let first = marks.trailing_zeros() as usize;
    let marks_2 = marks & (marks - 1);
    let marks_3 = marks_2 & (marks_2 - 1);
    let third = marks_3.trailing_zeros() as usize;
    let marks_4 = marks_3 & (marks_3 - 1);
    let fourth = marks_4.trailing_zeros() as usize;
    let marks_5 = marks_4 & (marks_4 - 1);
    let fifth = marks_5.trailing_zeros() as usize;

    let shape = SHAPE[usize::from(window[BEFORE + first + 1])];
    let inner = usize::from(shape >> 4);
    let end_found = [0, 0, third, fourth, fifth, 0, 0, 0][inner & 7];
    let separators = u64::from(masks.separator) & before_end;
    let expected = (u64::from(masks.non_digit) & before_end) ^ (2 << first);
    // `from` is there unless the third mark is the end; `to` unless the fourth is.
    let from_len = if inner > 2 { fourth.wrapping_sub(third + 1) } else { 1 };
    let to_len = if inner > 3 { fifth.wrapping_sub(fourth + 1) } else { 1 };
    let bad = (end_found ^ end)
        | (third ^ (first + 2))
        | usize::from(separators != expected)
        | usize::from(first.wrapping_sub(1) >= 16)
        | usize::from(from_len.wrapping_sub(1) >= 8)
        | usize::from(to_len.wrapping_sub(1) >= 8);
    if bad != 0 {
        return None;
    }
    let mut seq = eight_digits(window, first, first.min(8));
    if first > 8 {
        seq += 100_000_000 * eight_digits(window, first - 8, first - 8);
    }
    Some(Scanned {
        seq,
        kind: shape & 15,
        from: eight_digits(window, fourth, from_len) as u32,
        to: eight_digits(window, fifth, to_len) as u32,
        len: newline + 1,
    })
}

/// The number whose last digit is in front of position `end` of the line, 1 to 8 digits long.
#[inline(always)]
fn eight_digits(window: &[u8; WINDOW], end: usize, len: usize) -> u64 {
    let at = BEFORE + end - 8;
    let Some(last) = window.get(at..at + 8).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()) else {
        return 0;
    };
    let digits =
        (u64::from_le_bytes(last) ^ 0x3030_3030_3030_3030) & u64::MAX.wrapping_shl(64 - 8 * len as u32);
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
        let half = |at: usize| u8x16::new(std::array::from_fn(|byte| window[at + byte]));
        let halves = [half(BEFORE), half(BEFORE + 16)];
        let mask =
            |class: fn(u8x16) -> u8x16| class(halves[0]).to_bitmask() | class(halves[1]).to_bitmask() << 16;
        Self {
            line_end: mask(|bytes| bytes.simd_eq(u8x16::splat(b'\n'))),
            non_digit: !mask(|bytes| {
                let value = bytes - u8x16::splat(b'0');
                value.min(u8x16::splat(9)).simd_eq(value)
            }),
            separator: mask(|bytes| bytes.simd_eq(u8x16::splat(b'|'))),
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
        scan_line(&bytes, start)
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
                prop_assert_eq!(scanned.seq, event.seq);
                prop_assert_eq!(scanned.kind, event.kind as u8);
                prop_assert_eq!(scanned.len, line.len());
                if !matches!(event.kind, Kind::Broadcast) {
                    prop_assert_eq!(u64::from(scanned.from), event.from);
                }
                if !matches!(event.kind, Kind::Broadcast | Kind::Status) {
                    prop_assert_eq!(u64::from(scanned.to), event.to);
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
}
