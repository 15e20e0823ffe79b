//! The sentence for a value that is not accepted.

use std::ffi::OsStr;

/// Longest value, in characters, that is repeated in full.
const VALUE_CHARACTERS_MAX: usize = 80;

/// The refusal of a value. `name` is what the option is called where the value was written.
pub(crate) fn refusal(name: &str, value: impl AsRef<OsStr>, expected: &str) -> String {
    format!("{name}: {} is not accepted; expected {expected}", quoted(value.as_ref()))
}

/// `value` in quotes, escaped, on one line, and shortened if it is long.
pub(crate) fn quoted(value: &OsStr) -> String {
    let escaped = format!("{value:?}");
    match escaped.char_indices().nth(VALUE_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…\"", &escaped[..end]),
        None => escaped,
    }
}
