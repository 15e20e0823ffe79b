//! A stored outcome: how it is written, read, and compared with.
//!
//! ```text
//! fortnight expectation 1
//! user 1 id 2932 open lines 2 bytes 28 digest 93b7c1f0e3a4d25c
//! at 1200
//! =1|F|60|2932
//! at 501200
//! -3|P|60|2932
//! user 2 id none closed lines 0 bytes 0 digest 2d06800538d394c2
//! user 3 id 17 open lines 212 bytes 3391 digest 0b6e0a5d5e1c7f11
//! events 2-9 12 15
//! events 17 20-23
//! counters
//! events_received 240
//! ```
//!
//! A source that was sent something has a stream as well, behind those of the users: `source 1 open lines …`.
//!
//! A short stream is stored line by line, as data lines of a trace, with the time of each; a long one by the sequence
//! numbers of its events. The digest covers every byte in both cases.

use super::{
    outcome::{Outcome, StreamHead},
    reader::TraceError,
    stream::{Content, Stream},
    text::{escaped, push_data, read_data},
};
use crate::sequence::SequenceNumber;
use crate::time::Micros;
use crate::user_id::UserId;
use std::fmt::{self, Write};

const HEADER: &str = "fortnight expectation 1";

/// Events of one user that are compared by their numbers: a gigabyte of them.
const NUMBERS_MAX: u64 = 1 << 27;

/// An outcome to compare another one with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation(Outcome);

/// The first thing that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The subject of the difference: a user and a line, or a counter.
    pub place: String,
    /// The expected text.
    pub expected: String,
    /// The text that the replay gave.
    pub got: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, expected, got } = self;
        write!(f, "{place}\n    expected {expected}\n    got      {got}")
    }
}

fn difference(
    place: impl Into<String>,
    expected: impl Into<String>,
    got: impl Into<String>,
) -> Option<Difference> {
    Some(Difference { place: place.into(), expected: expected.into(), got: got.into() })
}

impl From<Outcome> for Expectation {
    fn from(outcome: Outcome) -> Self {
        Self(outcome)
    }
}

impl Expectation {
    /// The file's content.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n").into_bytes();
        for stream in &self.0.streams {
            text.extend_from_slice(format!("{}\n", StreamHead(stream)).as_bytes());
            match &stream.content {
                Content::Lines(lines) => push_lines(lines, &mut text),
                Content::Numbers(numbers) => {
                    for row in Content::rows(numbers) {
                        text.extend_from_slice(format!("events{row}\n").as_bytes());
                    }
                }
            }
        }
        let mut text = String::from_utf8_lossy(&text).into_owned();
        text.push_str("counters\n");
        for (name, value) in &self.0.counters {
            let _ = writeln!(text, "{name} {value}");
        }
        text
    }

    /// Reads a file's content.
    ///
    /// # Errors
    ///
    /// Names the first line that is not understood.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut parser = Parser::default();
        let mut line = 0;
        for text in text.lines() {
            line += 1;
            parser.line(text).map_err(|reason| TraceError { line, reason, cut: false })?;
        }
        match parser.part {
            Part::Counters => Ok(Self(parser.outcome)),
            _ => Err(TraceError {
                line: line + 1,
                reason: "the file ends too early; expected counters".to_owned(),
                cut: true,
            }),
        }
    }

    /// The first difference of each user, and every counter that differs.
    #[must_use]
    pub fn compare(&self, got: &Outcome) -> Vec<Difference> {
        let mut differences = Vec::new();
        let places = self.0.streams.len().max(got.streams.len());
        for index in 0..places {
            differences.extend(match (self.0.streams.get(index), got.streams.get(index)) {
                (Some(expected), Some(got)) => compare_streams(expected, got),
                (Some(expected), None) => {
                    difference(name(expected), StreamHead(expected).to_string(), "no such stream")
                }
                (None, Some(got)) => difference(name(got), "no such stream", StreamHead(got).to_string()),
                (None, None) => None,
            });
        }
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.0.counters.iter().chain(&got.counters) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        for name in names {
            let (expected, got) = (self.0.counter(name), got.counter(name));
            if expected != got {
                differences.extend(difference(
                    format!("counter {name}"),
                    expected.to_string(),
                    got.to_string(),
                ));
            }
        }
        differences
    }
}

fn push_lines(lines: &[(Micros, Vec<u8>)], text: &mut Vec<u8>) {
    let mut last_at = None;
    for (at, line) in lines {
        if last_at != Some(at) {
            text.extend_from_slice(format!("at {at}\n").as_bytes());
            last_at = Some(at);
        }
        push_data(line, text);
    }
}

fn name(stream: &Stream) -> String {
    match stream.id {
        _ if stream.is_source => format!("source {}", stream.user),
        Some(id) => format!("user {} (id {id})", stream.user),
        None => format!("user {} (no id)", stream.user),
    }
}

fn compare_streams(expected: &Stream, got: &Stream) -> Option<Difference> {
    if (expected.is_source, expected.user, expected.id) != (got.is_source, got.user, got.id) {
        return difference(name(expected), name(expected), name(got));
    }
    let lines = match (&expected.content, &got.content) {
        (Content::Lines(expected), Content::Lines(got)) => first_difference(expected, got, tell_line),
        (expected, got) => {
            first_difference(&expected.numbers(), &got.numbers(), |seq| format!("event {seq}"))
        }
    };
    if let Some((line, expected_line, got_line)) = lines {
        return difference(format!("{}, line {line}", name(expected)), expected_line, got_line);
    }
    let heads = (StreamHead(expected).to_string(), StreamHead(got).to_string());
    if heads.0 == heads.1 { None } else { difference(name(expected), heads.0, heads.1) }
}

/// The first place, from 1, where two lists differ, and what stands there in each.
fn first_difference<T: PartialEq>(
    expected: &[T],
    got: &[T],
    tell: impl Fn(&T) -> String,
) -> Option<(usize, String, String)> {
    let same = expected.iter().zip(got).take_while(|(expected, got)| expected == got).count();
    if same == expected.len().max(got.len()) {
        return None;
    }
    let tell = |list: &[T]| list.get(same).map_or_else(|| "nothing more".to_owned(), &tell);
    Some((same + 1, tell(expected), tell(got)))
}

fn tell_line((at, line): &(Micros, Vec<u8>)) -> String {
    format!("{} at {at}", escaped(line))
}

impl Content {
    /// The sequence numbers of all whole lines.
    fn numbers(&self) -> Vec<SequenceNumber> {
        match self {
            Self::Numbers(numbers) => numbers.clone(),
            Self::Lines(lines) => lines
                .iter()
                .filter(|(_, line)| line.ends_with(b"\n"))
                .map(|(_, line)| crate::engine::event::leading_number(line).unwrap_or(SequenceNumber::MAX))
                .collect(),
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Header,
    Streams,
    Counters,
}

#[derive(Debug)]
struct Parser {
    part: Part,
    at: Micros,
    outcome: Outcome,
}

impl Default for Parser {
    fn default() -> Self {
        Self { part: Part::Header, at: 0, outcome: Outcome { streams: Vec::new(), counters: Vec::new() } }
    }
}

impl Parser {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let unknown =
            || format!("{line:?} is not understood; see the crate documentation, trace::expectation");
        match self.part {
            Part::Header if line == HEADER => self.part = Part::Streams,
            Part::Header => return Err(format!("this is no expectation; expected {HEADER:?}")),
            Part::Streams if line == "counters" => self.part = Part::Counters,
            Part::Streams if line.starts_with("user ") || line.starts_with("source ") => {
                self.outcome.streams.push(parse_head(line).ok_or_else(unknown)?);
            }
            Part::Streams => self.content(line).ok_or_else(unknown)?,
            Part::Counters => {
                let (name, value) = line.split_once(' ').ok_or_else(unknown)?;
                let value = value.parse().map_err(|_| unknown())?;
                self.outcome.counters.push((name.to_owned(), value));
            }
        }
        Ok(())
    }

    fn content(&mut self, line: &str) -> Option<()> {
        let stream = self.outcome.streams.last_mut()?;
        if let Some(at) = line.strip_prefix("at ") {
            self.at = at.parse().ok()?;
            return Some(());
        }
        if let Some(rows) = line.strip_prefix("events ") {
            if stream.content == Content::Lines(Vec::new()) {
                stream.content = Content::Numbers(Vec::new());
            }
            let Content::Numbers(numbers) = &mut stream.content else { return None };
            for item in rows.split(' ') {
                let (first, last) = item.split_once('-').unwrap_or((item, item));
                let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
                let room = NUMBERS_MAX.min(stream.lines).saturating_sub(numbers.len() as u64);
                last.checked_sub(first).filter(|&further| further < room)?;
                numbers.extend((first..=last).map(SequenceNumber::new));
            }
            return Some(());
        }
        let Content::Lines(lines) = &mut stream.content else { return None };
        if !line.starts_with(['=', '-', '+']) {
            return None;
        }
        // A line that was too long for one data line goes on.
        let mut bytes = match lines.pop() {
            Some((_, open)) if !open.ends_with(b"\n") => open,
            Some(whole) => {
                lines.push(whole);
                Vec::new()
            }
            None => Vec::new(),
        };
        read_data(line.as_bytes(), &mut bytes).ok()?;
        lines.push((self.at, bytes));
        Some(())
    }
}

fn parse_head(line: &str) -> Option<Stream> {
    let words: Vec<&str> = line.split(' ').collect();
    let (is_source, user, id, rest) = match &words[..] {
        ["user", user, "id", id, rest @ ..] => (false, user, *id, rest),
        ["source", source, rest @ ..] => (true, source, "none", rest),
        _ => return None,
    };
    let &[end, "lines", lines, "bytes", bytes, "digest", digest] = rest else { return None };
    Some(Stream {
        is_source,
        user: user.parse().ok()?,
        id: if id == "none" { None } else { Some(UserId::new(id.parse().ok()?)) },
        end: end.to_owned(),
        lines: lines.parse().ok()?,
        bytes: bytes.parse().ok()?,
        digest: u64::from_str_radix(digest, 16).ok()?,
        content: Content::Lines(Vec::new()),
    })
}
