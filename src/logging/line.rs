//! One record as one line of text, whatever it contains.

use std::{
    fmt::{self, Write},
    time::SystemTime,
};

use ::time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};
use log::{
    Level, Record,
    kv::{self, Key, Value, VisitSource},
};

/// RFC 3339 in UTC, with microseconds.
const TIME: &[BorrowedFormatItem] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// The same with milliseconds, for people.
const TIME_FOR_PEOPLE: &[BorrowedFormatItem] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Longest message or value in bytes, before and after escaping: with a few values a line stays below the 4096
/// bytes that a pipe takes in one piece.
const VALUE_BYTES_MAX: usize = 1024;

/// `time=… level=… msg=… key=value …` and a line end.
pub(super) fn key_value(time: SystemTime, record: &Record) -> String {
    let time = OffsetDateTime::from(time).format(TIME).unwrap_or_default();
    let level = record.level().as_str().to_ascii_lowercase();
    let mut line = format!("time={time} level={level}");
    push_pair(&mut line, "msg", &cut(record.args()));
    push_pairs(&mut line, record);
    line.push('\n');
    line
}

/// `TIME LEVEL [target] message key=value …` and a line end.
pub(super) fn for_people(time: SystemTime, record: &Record, colours: bool) -> String {
    let time = OffsetDateTime::from(time).format(TIME_FOR_PEOPLE).unwrap_or_default();
    let level = record.level();
    let mut line = match colours {
        true => format!("{time} \u{1b}[{}m{level:<5}\u{1b}[0m [{}] ", colour(level), record.target()),
        false => format!("{time} {level:<5} [{}] ", record.target()),
    };
    push_text(&mut line, &cut(record.args()), false);
    push_pairs(&mut line, record);
    line.push('\n');
    line
}

/// `message key=value …`.
pub(super) fn text(record: &Record) -> String {
    let mut line = String::new();
    push_text(&mut line, &cut(record.args()), false);
    push_pairs(&mut line, record);
    line
}

/// The colour's number in a terminal's escape sequence.
fn colour(level: Level) -> u8 {
    match level {
        Level::Error => 31,
        Level::Warn => 33,
        Level::Info => 36,
        Level::Debug => 35,
        Level::Trace => 0,
    }
}

fn push_pairs(line: &mut String, record: &Record) {
    struct Pairs<'a>(&'a mut String);
    impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
            push_pair(self.0, key.as_str(), &cut(&value));
            Ok(())
        }
    }
    // Only the visitor could fail.
    let _ = record.key_values().visit(&mut Pairs(line));
}

fn push_pair(line: &mut String, key: &str, value: &str) {
    line.push(' ');
    line.push_str(key);
    line.push('=');
    if !value.is_empty() && value.bytes().all(is_plain) {
        line.push_str(value);
        return;
    }
    line.push('"');
    push_text(line, value, true);
    line.push('"');
}

/// Whether a byte needs no quotes around it.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-+.,:;/@%|*()[]<>{}#!?&~^$'".contains(&byte)
}

/// Escapes, as JSON does, every character that would end the line, command a terminal or reorder the text. In quotes it
/// escapes quotes too.
fn push_text(line: &mut String, text: &str, in_quotes: bool) {
    let start = line.len();
    for character in text.chars() {
        let before = line.len();
        match character {
            '"' | '\\' if in_quotes => line.extend(['\\', character]),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            _ if is_unprintable(character) => line.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => line.push(character),
        }
        if line.len() - start > VALUE_BYTES_MAX + '…'.len_utf8() {
            line.truncate(before);
            line.push('…');
            return;
        }
    }
}

/// Control characters, and those that are invisible or change the direction of what follows. All are below U+10000.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `value` as text, at most [`VALUE_BYTES_MAX`] of it: the rest is not even formatted.
fn cut(value: &impl fmt::Display) -> String {
    struct Room(String);
    impl Write for Room {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = VALUE_BYTES_MAX - self.0.len();
            if text.len() <= room {
                self.0.push_str(text);
                return Ok(());
            }
            self.0.push_str(&text[..text.floor_char_boundary(room)]);
            Err(fmt::Error)
        }
    }
    let mut room = Room(String::new());
    let whole = write!(room, "{value}").is_ok();
    if !whole {
        room.0.push('…');
    }
    room.0
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use log::Level;

    use super::*;

    /// 981173106 s after the epoch.
    const THEN: Duration = Duration::from_micros(981_173_106_789_012);

    /// The two lines of a record: as `key=value`, and for people, from the message on.
    fn lines(message: &str, pairs: &[(&str, Value)]) -> [String; 2] {
        let pairs = pairs.to_vec();
        let line = |build: &dyn Fn(&Record) -> String| {
            build(
                &Record::builder()
                    .level(Level::Warn)
                    .args(format_args!("{message}"))
                    .key_values(&pairs.as_slice())
                    .build(),
            )
        };
        let people = line(&|record| for_people(UNIX_EPOCH + THEN, record, false));
        let people = people.strip_prefix("2001-02-03T04:05:06.789Z WARN  [] ").unwrap();
        let people = people.strip_suffix('\n').unwrap().to_owned();
        [line(&|record| key_value(UNIX_EPOCH + THEN, record)), people]
    }

    #[test]
    fn time_level_message_and_pairs() {
        let [line, people] = lines(
            "user disconnected",
            &[("user", Value::from(7_u64)), ("reason", Value::from("slow")), ("share", Value::from(0.5))],
        );
        assert_eq!(
            line,
            "time=2001-02-03T04:05:06.789012Z level=warn msg=\"user disconnected\" user=7 reason=slow share=0.5\n"
        );
        assert_eq!(people, "user disconnected user=7 reason=slow share=0.5");
    }

    #[test]
    fn time_at_the_epoch_and_before_it_has_all_its_digits() {
        let record = Record::builder().args(format_args!("x")).build();
        assert!(key_value(UNIX_EPOCH, &record).starts_with("time=1970-01-01T00:00:00.000000Z "));
        let before = UNIX_EPOCH - Duration::from_micros(1);
        assert!(key_value(before, &record).starts_with("time=1969-12-31T23:59:59.999999Z "));
    }

    #[test]
    fn values_are_quoted_where_they_need_it() {
        for (value, written) in [
            ("", r#""""#),
            ("slow", "slow"),
            ("127.0.0.1:9090", "127.0.0.1:9090"),
            ("[::1]:9090", "[::1]:9090"),
            ("1|B", "1|B"),
            ("a b", r#""a b""#),
            ("a=b", r#""a=b""#),
            (r#"say "x""#, r#""say \"x\"""#),
            (r"a\b", r#""a\\b""#),
            ("a\r\nlevel=error", r#""a\r\nlevel=error""#),
            ("\u{1b}[31m\t\0\u{7f}\u{85}", r#""\u001b[31m\t\u0000\u007f\u0085""#),
            ("\u{202e}abc\u{2028}", r#""\u202eabc\u2028""#),
            ("größer 🦀", r#""größer 🦀""#),
        ] {
            let [line, people] = lines("m", &[("key", Value::from(value))]);
            assert!(line.ends_with(&format!(" msg=m key={written}\n")), "{line}");
            assert_eq!(people, format!("m key={written}"));
        }
    }

    #[test]
    fn one_record_is_one_line_with_any_contents() {
        let all: String = ('\0'..'\u{3000}').collect();
        for chunk in all.chars().collect::<Vec<_>>().chunks(100) {
            let text: String = chunk.iter().collect();
            let [line, people] = lines(&text, &[("key", Value::from(text.as_str()))]);
            let line = line.strip_suffix('\n').expect("a line end");
            for line in [line, &people] {
                assert!(!line.chars().any(char::is_control), "{line:?}");
                assert_eq!(line.lines().count(), 1);
            }
        }
    }

    #[test]
    fn a_message_for_people_keeps_its_quotes() {
        let [_, people] = lines("cannot open \"x\"\nnow\u{1b}[2J", &[]);
        assert_eq!(people, r#"cannot open "x"\nnow\u001b[2J"#);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let long = "é".repeat(10_000);
        let [line, people] = lines(&long, &[("key", Value::from(long.as_str()))]);
        let cut = format!("{}…", "é".repeat(VALUE_BYTES_MAX / 2));
        assert!(line.ends_with(&format!(" msg=\"{cut}\" key=\"{cut}\"\n")));
        assert_eq!(people, format!("{cut} key=\"{cut}\""));
        let exact = "x".repeat(VALUE_BYTES_MAX);
        assert_eq!(lines(&exact, &[])[1], exact);
        let escapes = "\u{1b}".repeat(VALUE_BYTES_MAX);
        let [line, _] = lines(&escapes, &[("key", Value::from(escapes.as_str()))]);
        assert!(line.len() < 4096 && line.ends_with("\\u001b…\"\n"), "{line}");
    }
}
