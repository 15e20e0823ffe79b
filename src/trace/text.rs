//! Bytes as the data lines of a trace: lossless, one line of the stream per line of the trace.

/// Most bytes of a piece without a line end. A longer piece goes on in the next line.
const PIECE_BYTES_MAX: usize = 4096;

/// The piece ended with CR LF.
pub(super) const CRLF: u8 = b'=';
/// The piece ended with LF.
pub(super) const LF: u8 = b'-';
/// The piece did not end with a line end.
pub(super) const OPEN: u8 = b'+';

/// Appends `bytes` as data lines.
pub(super) fn push_data(bytes: &[u8], text: &mut Vec<u8>) {
    text.reserve(bytes.len() + bytes.len() / 4);
    let mut rest = bytes;
    while let Some(newline) = memchr::memchr(b'\n', rest) {
        let (line, later) = rest.split_at(newline + 1);
        push_line(line, text);
        rest = later;
    }
    push_open(rest, text);
}

/// Appends a line, terminator included.
fn push_line(line: &[u8], text: &mut Vec<u8>) {
    let (mark, content) = match line {
        [content @ .., b'\r', b'\n'] => (CRLF, content),
        [content @ .., b'\n'] => (LF, content),
        _ => return push_open(line, text),
    };
    let mut rest = content;
    while rest.len() > PIECE_BYTES_MAX {
        let (piece, later) = rest.split_at(PIECE_BYTES_MAX);
        push_open(piece, text);
        rest = later;
    }
    push_piece(mark, rest, text);
}

/// Appends bytes without a line end.
fn push_open(bytes: &[u8], text: &mut Vec<u8>) {
    for piece in bytes.chunks(PIECE_BYTES_MAX) {
        push_piece(OPEN, piece, text);
    }
}

fn push_piece(mark: u8, piece: &[u8], text: &mut Vec<u8>) {
    text.push(mark);
    if is_plain(piece) {
        text.extend_from_slice(piece);
    } else {
        push_escaped(piece, text);
    }
    text.push(b'\n');
}

/// Whether every byte stands for itself.
fn is_plain(bytes: &[u8]) -> bool {
    // Without an early exit the compiler looks at many bytes at a time.
    !bytes.iter().fold(false, |odd, &byte| odd | !(0x20..0x7F).contains(&byte) | (byte == b'\\'))
}

#[cold]
fn push_escaped(bytes: &[u8], text: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for &byte in bytes {
        match byte {
            b'\r' => text.extend_from_slice(b"\\r"),
            b'\n' => text.extend_from_slice(b"\\n"),
            b'\t' => text.extend_from_slice(b"\\t"),
            b'\\' => text.extend_from_slice(b"\\\\"),
            0x20..0x7F => text.push(byte),
            _ => text.extend_from_slice(&[
                b'\\',
                b'x',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
    }
}

/// `bytes` as text that can be printed.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    push_escaped(bytes, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads a data line, without its LF, and appends the bytes that it stands for.
///
/// # Errors
///
/// The fault of the text.
pub(super) fn read_data(line: &[u8], bytes: &mut Vec<u8>) -> Result<(), String> {
    let Some((&mark, piece)) = line.split_first() else {
        return Ok(());
    };
    if is_plain(piece) {
        bytes.extend_from_slice(piece);
    } else {
        read_escaped(piece, bytes)?;
    }
    match mark {
        CRLF => bytes.extend_from_slice(b"\r\n"),
        LF => bytes.push(b'\n'),
        _ => {}
    }
    Ok(())
}

#[cold]
fn read_escaped(piece: &[u8], bytes: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = piece;
    while let Some((&byte, later)) = rest.split_first() {
        rest = later;
        match (byte, rest) {
            (b'\\', &[b'x', high, low, ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |digit: u8| (digit as char).to_digit(16).unwrap_or_default();
                bytes.push((digit(high) * 16 + digit(low)) as u8);
                rest = &rest[3..];
            }
            (b'\\', &[escaped, ..]) => {
                bytes.push(match escaped {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'\\' => b'\\',
                    _ => return Err(format!("\\{} is no escape; expected \\r, \\n, \\t, \\\\ or \\x and two hexadecimal digits", escaped.escape_ascii())),
                });
                rest = &rest[1..];
            }
            (b'\\', []) => return Err("a backslash stands alone; expected \\\\".to_owned()),
            (0x20..0x7F, _) => bytes.push(byte),
            _ => {
                return Err(format!("the byte 0x{byte:02x} cannot stand for itself; expected \\x{byte:02x}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(bytes: &[u8]) -> String {
        let mut text = Vec::new();
        push_data(bytes, &mut text);
        String::from_utf8(text).unwrap()
    }

    fn decoded(text: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        text.lines().try_for_each(|line| read_data(line.as_bytes(), &mut bytes)).map(|()| bytes)
    }

    #[test]
    fn the_mark_says_how_a_line_ends() {
        assert_eq!(encoded(b"1|B\r\n2|B\n3|B"), "=1|B\n-2|B\n+3|B\n");
        assert_eq!(encoded(b"\r\n\n"), "=\n-\n");
        assert_eq!(encoded(b""), "");
    }

    #[test]
    fn what_cannot_be_printed_is_escaped() {
        assert_eq!(encoded(b"a\rb\tc\\d\0\xFF\x7F\n"), "-a\\rb\\tc\\\\d\\x00\\xff\\x7f\n");
        assert_eq!(decoded("-\\x4A\\n").unwrap(), b"J\n\n");
        for bad in ["=\\", "=\\q", "=\\x4", "=\\xzz", "=\u{e4}", "=1|B\r"] {
            // `lines` would take the CR for part of the line end.
            assert!(read_data(bad.as_bytes(), &mut Vec::new()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'\\'), any::<u8>()], 0..200), times in 1..60usize) {
            let bytes = bytes.repeat(times);
            let text = encoded(&bytes);
            prop_assert!(text.lines().all(|line| line.len() <= 4 * PIECE_BYTES_MAX + 1));
            prop_assert_eq!(decoded(&text).unwrap(), bytes);
        }
    }
}
