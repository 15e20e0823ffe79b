//! Variables that are options but for a slip: `eventTimeoutMS`, `EVENT_TIMEOUT_MS`, `eventTimoutMs`.

use super::OPTIONS;

/// In a shorter name one letter more or less is a word of its own.
const LENGTH_MIN: usize = 8;

/// The option that a variable is but for its case, for underscores or dashes, or for one letter. `None`: it is one, or
/// is too different from all.
#[must_use]
pub fn meant_by(variable: &str) -> Option<&'static str> {
    if OPTIONS.iter().any(|option| option.variable == variable) {
        return None;
    }
    let plain = plain(variable);
    let is_meant = |option: &&str| {
        let option = self::plain(option);
        plain == option || (option.len() >= LENGTH_MIN && is_one_letter_off(&plain, &option))
    };
    OPTIONS.iter().map(|option| option.variable).find(is_meant)
}

fn plain(name: &str) -> Vec<u8> {
    let letters = name.bytes().filter(|letter| !matches!(letter, b'_' | b'-'));
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Whether one letter is missing, too many or another one, or two neighbours have changed places.
fn is_one_letter_off(a: &[u8], b: &[u8]) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let same = short.iter().zip(long).take_while(|(a, b)| a == b).count();
    let (short, long) = (&short[same..], &long[same..]);
    match long.len() - short.len() {
        0 => match (short, long) {
            ([a, c, left @ ..], [b, d, right @ ..]) => {
                short[1..] == long[1..] || ((a, c) == (d, b) && left == right)
            }
            _ => true,
        },
        1 => *short == long[1..],
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::meant_by;

    #[test]
    fn a_slip_is_seen() {
        for (variable, option) in [
            ("EVENTTIMEOUTMS", "eventTimeoutMs"),
            ("eventTimeoutMS", "eventTimeoutMs"),
            ("EVENT_TIMEOUT_MS", "eventTimeoutMs"),
            ("event-timeout-ms", "eventTimeoutMs"),
            ("eventTimoutMs", "eventTimeoutMs"),
            ("eventTimeoutsMs", "eventTimeoutMs"),
            ("eventTimeautMs", "eventTimeoutMs"),
            ("evnetTimeoutMs", "eventTimeoutMs"),
            ("eventTimeoutM", "eventTimeoutMs"),
            ("adminPorts", "adminPort"),
            ("ADMINPORT", "adminPort"),
            ("ROLE", "role"),
        ] {
            assert_eq!(meant_by(variable), Some(option), "{variable}");
        }
    }

    #[test]
    fn other_variables_get_no_warning() {
        for variable in
            ["eventTimeoutMs", "role", "PATH", "", "ROLES", "pole", "streams", "eventTimeout", "PORT"]
        {
            assert_eq!(meant_by(variable), None, "{variable}");
        }
    }
}
