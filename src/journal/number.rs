//! Numbers of events: the one behind the last, and how one is written in the name of a file.

/// The cursor behind the highest number.
pub(crate) const END: u128 = 1 << 64;

/// Reads a cursor of exactly 20 digits.
pub(super) fn parse_number(digits: &str) -> Option<u128> {
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|&number| is_number && number <= END)
}
