//! The trace reader and what is built on it: `trace show`, `trace cut` and `replay`.
//!
//! An input is a file. Whether it is a trace or not, and wherever it is damaged:
//!
//! - it is read the same however the reads are cut, and what is wrong is one sentence that names a line of the file;
//! - `trace cut` of everything is a trace with the same options and records, and cutting that again gives the same bytes;
//! - `trace cut` of a piece is a trace whose records are those of that time, after those that bring in the connections;
//! - `trace show` says the same about the damage, in text that a terminal can take;
//! - `replay` gives the same outcome for the file, in short reads, and for what `trace cut` has written; the
//!   outcome is the same after it was stored and read again; and a piece of a trace that can be replayed can be, too.

use std::io::{self, Read};

use fortnight::internals::{
    config::Config,
    options,
    time::Micros,
    trace::{
        Action, Expectation, Keep, OPTIONS, Reader, Record, TraceError, cut, replay, replay::Replayed, show,
    },
};

/// Longest message about a damaged file.
const SENTENCE_BYTES_MAX: usize = 500;
/// Largest ring with which a trace is replayed: larger ones only take longer.
const REPLAY_CAPACITY_MAX: usize = 1 << 12;
/// What a file that does not speak of the ring's capacity says.
const SMALL_RING: &[u8] = b"option reorderCapacity 64\n";

/// Holds on one file what the module says.
pub fn run(file: &[u8]) {
    let file = &with_small_ring(file)[..];
    let read = ReadTrace::of(file);
    let small = Pieces { rest: file, len: 1 + usize::from(file.last().copied().unwrap_or_default() % 13) };
    assert_eq!(ReadTrace::of(small.clone()), read, "the reads make a difference");
    read.check_damage(file);
    check_show(file, &read);
    let Some(config) = &read.config else {
        let mut piece = Vec::new();
        let cut = cut(file, 0..Micros::MAX, &mut piece).expect("memory can be written to");
        assert_eq!((cut.err(), &piece[..]), (read.damage, &b""[..]));
        return;
    };
    let whole = check_whole(file, &read);
    let range = read.some_range();
    let piece = piece_of(file, range.clone(), &read);
    check_piece(&piece, range, &read);
    if config.reorder_capacity <= REPLAY_CAPACITY_MAX {
        check_replay(small, &whole, &piece, &read);
    }
}

fn with_small_ring(file: &[u8]) -> Vec<u8> {
    let speaks_of_it = file.windows(15).any(|name| name == b"reorderCapacity");
    match file.iter().position(|&byte| byte == b'\n') {
        Some(end) if !speaks_of_it => [&file[..=end], SMALL_RING, &file[end + 1..]].concat(),
        _ => file.to_vec(),
    }
}

/// A file in short reads.
#[derive(Clone)]
struct Pieces<'a> {
    rest: &'a [u8],
    len: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let len = target.len().min(self.len);
        self.rest.read(&mut target[..len])
    }
}

/// All that a reader says about a file.
#[derive(Debug, PartialEq, Eq)]
struct ReadTrace {
    /// `None`: it is no trace.
    config: Option<Config>,
    /// When, what, and what was sent.
    records: Vec<(Micros, Record, Vec<u8>)>,
    damage: Option<TraceError>,
}

impl ReadTrace {
    fn of(file: impl Read) -> ReadTrace {
        let mut reader = match Reader::new(file) {
            Ok(reader) => reader,
            Err(damage) => return ReadTrace { config: None, records: Vec::new(), damage: Some(damage) },
        };
        let config = Some(reader.config().clone());
        let (mut records, mut data) = (Vec::new(), Vec::new());
        let damage = loop {
            match reader.next(&mut data) {
                Ok(Some((at, record))) => records.push((at, record, data.clone())),
                Ok(None) => break None,
                Err(damage) => break Some(damage),
            }
        };
        ReadTrace { config, records, damage }
    }

    fn check_damage(&self, file: &[u8]) {
        let Some(damage) = &self.damage else { return };
        let sentence = damage.to_string();
        assert!(sentence.starts_with(&format!("line {}: ", damage.line)), "{sentence}");
        assert!(sentence.len() < SENTENCE_BYTES_MAX, "{sentence}");
        assert!(!sentence.contains(char::is_control), "{sentence:?}");
        assert!(sentence.contains("expected"), "{sentence}");
        let lines = file.split(|&byte| byte == b'\n').count() as u64;
        assert!((1..=lines).contains(&damage.line), "{sentence}: of {lines} lines");
        assert!(!damage.cut || !file.ends_with(b"\n") || sentence.contains("block"), "{sentence}");
    }

    /// Two times of the trace, or just before or after such, that depend on nothing but the trace.
    fn some_range(&self) -> std::ops::Range<Micros> {
        let Some((last, _, _)) = self.records.last() else {
            return 0..0;
        };
        let near = |place: usize| {
            let (at, _, data) = &self.records[place % self.records.len()];
            at.saturating_add(data.len() as u64 % 3).saturating_sub(1)
        };
        let place = (*last % 1009) as usize;
        let (one, other) = (near(place), near(place / 32));
        one.min(other)..one.max(other)
    }
}

fn check_show(file: &[u8], read: &ReadTrace) {
    let mut shown = Vec::new();
    let damage = show(file, &mut shown).expect("memory can be written to").err();
    assert_eq!(damage, read.damage);
    let shown = String::from_utf8(shown).expect("text");
    assert!(!shown.contains(|character: char| character.is_control() && character != '\n'), "{shown:?}");
    assert!(shown.lines().count() >= read.records.len(), "{shown}");
}

fn piece_of(file: &[u8], range: std::ops::Range<Micros>, read: &ReadTrace) -> Vec<u8> {
    let mut piece = Vec::new();
    let outcome = cut(file, range.clone(), &mut piece).expect("memory can be written to");
    // What is behind the piece is not looked at.
    let is_read_to_end = read.records.iter().all(|(at, ..)| *at < range.end);
    assert_eq!(outcome.err().as_ref(), read.damage.as_ref().filter(|_| is_read_to_end));
    piece
}

/// The options that a trace can have.
fn values(config: &Config) -> Vec<Option<String>> {
    OPTIONS.iter().map(|name| options::get(config, name)).collect()
}

/// Cuts everything out, and gives that.
fn check_whole(file: &[u8], read: &ReadTrace) -> Vec<u8> {
    let whole = piece_of(file, 0..Micros::MAX, read);
    let again = ReadTrace::of(&whole[..]);
    assert_eq!(again.damage, None, "{}", whole.escape_ascii());
    assert_eq!(again.config.as_ref().map(values), read.config.as_ref().map(values));
    assert_eq!(again.records, read.records, "{}", whole.escape_ascii());
    let twice = piece_of(&whole, 0..Micros::MAX, &again);
    assert_eq!(twice.escape_ascii().to_string(), whole.escape_ascii().to_string());
    whole
}

fn check_piece(piece: &[u8], range: std::ops::Range<Micros>, read: &ReadTrace) {
    let again = ReadTrace::of(piece);
    assert_eq!(again.damage, None, "{}", piece.escape_ascii());
    assert_eq!(again.config.as_ref().map(values), read.config.as_ref().map(values));
    assert!(again.records.iter().all(|(at, ..)| range.contains(at)), "{range:?}: {}", piece.escape_ascii());
    // The rest of a line that began before, and how much a connection took then, are missing in the piece.
    let same = |&&(at, record, _): &&(Micros, Record, Vec<u8>)| {
        let action = if let Record::Connection { action, .. } = record { Some(action) } else { None };
        range.contains(&at) && !matches!(action, Some(Action::Sends | Action::Takes(_)))
    };
    let expected: Vec<_> = read.records.iter().filter(same).collect();
    let got: Vec<_> = again.records.iter().filter(same).collect();
    assert!(got.ends_with(&expected), "{range:?}: {}", piece.escape_ascii());
}

fn check_replay(small: Pieces<'_>, whole: &[u8], piece: &[u8], read: &ReadTrace) {
    let replayed = replay(small, Keep::Numbers).expect("a trace");
    let Replayed { outcome, damage, .. } = &replayed;
    if damage.is_none() {
        assert_eq!(read.damage, None);
    }
    let again = replay(whole, Keep::Numbers).expect("a trace");
    assert_eq!((&again.outcome, again.time), (outcome, replayed.time), "{}", whole.escape_ascii());
    let expectation = Expectation::from(outcome.clone());
    let stored = expectation.to_text();
    let parsed = Expectation::parse(&stored).expect("it has just been stored");
    assert_eq!((parsed.to_text(), parsed.compare(outcome)), (stored, Vec::new()));
    let of_piece = replay(piece, Keep::Digests).expect("a trace");
    assert!(of_piece.damage.is_none() || damage.is_some(), "{:?}: {}", of_piece.damage, piece.escape_ascii());
}
