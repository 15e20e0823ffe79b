//! How a cursor is written in the name of a file.

use crate::sequence::Cursor;

/// Reads a cursor of exactly 20 digits.
pub(super) fn parse_cursor(digits: &str) -> Option<Cursor> {
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    Cursor::parse(digits.as_bytes()).filter(|_| is_number)
}
