//! Reads a trace, record by record, in constant memory.

use super::{
    record::{Action, ConnectionId, HEADER, JOURNAL_FOLDER, JOURNAL_OPTION, Machine, OPTIONS, Record},
    text::{CRLF, LF, OPEN, escaped, read_data},
};
use crate::{config::Config, engine::event::parse_number, options, time::Micros};
use std::{error, fmt, io::Read};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Longest line.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes of one record that are handed out at once. The rest comes as another record of the same time.
const DATA_BYTES: usize = 256 << 10;
/// Latest time: more than 292,000 years, and far enough from the end of a `u64` that no timeout added to it overflows.
const TIME_MAX: Micros = i64::MAX as Micros;
/// A message quotes at most this number of bytes of a line.
const QUOTED_BYTES: usize = 60;

/// A file is no trace, or is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceError {
    /// The line, the first one being 1.
    pub line: u64,
    /// The fault of the line, and the text that was expected.
    pub reason: String,
    /// The file ends in the middle of this line. Everything before the line is a whole trace.
    pub cut: bool,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl error::Error for TraceError {}

/// Reads a trace.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    /// Lines read so far.
    lines: u64,
    record_line: u64,
    config: Config,
    time: Micros,
    /// The sender of the bytes that come next, and their number with the line end behind a block. The number is 0 where
    /// data lines may follow.
    sending: Option<(ConnectionId, u64)>,
}

impl<R: Read> Reader<R> {
    /// Begins to read a trace: its first line and its options.
    ///
    /// # Errors
    ///
    /// If it is no trace, or one of another version, or an option is not accepted.
    pub fn new(input: R) -> Result<Self, TraceError> {
        let mut reader = Self {
            input,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            ended: false,
            lines: 0,
            record_line: 0,
            config: Config::default(),
            time: 0,
            sending: None,
        };
        reader.read_header()?;
        while let Some((from, to)) = reader.peek_line()? {
            let line = &reader.buffer[from..to];
            if let Some(option) = line.strip_prefix(b"option ") {
                let set = set_option(&mut reader.config, option);
                set.map_err(|reason| reader.error_in_next(reason))?;
            } else if !is_note(line) {
                break;
            }
            reader.skip_line(to);
        }
        if reader.config.journal_directory.is_some() && reader.config.reset_on_source_eof {
            let reason = "a server with a journal has one run; expected not both of the options journalDirectory and resetOnSourceEof";
            return Err(reader.error_in_next(reason.to_owned()));
        }
        Ok(reader)
    }

    /// The configuration that the trace asks for.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The line of the record that was read last.
    pub fn record_line(&self) -> u64 {
        self.record_line
    }

    /// Reads the next record and its time. The bytes that it sends are put into `data`.
    ///
    /// # Errors
    ///
    /// If the trace is damaged.
    pub fn next(&mut self, data: &mut Vec<u8>) -> Result<Option<(Micros, Record)>, TraceError> {
        data.clear();
        if let Some((id, _)) = self.sending {
            self.read_sent(data)?;
            if !data.is_empty() {
                return Ok(Some((self.time, Record::Connection { id, action: Action::Sends })));
            }
        }
        while let Some((from, to)) = self.peek_line()? {
            let line = &self.buffer[from..to];
            if is_note(line) {
                self.skip_line(to);
                continue;
            }
            let (time, record, block) = parse_record(line).map_err(|reason| self.error_in_next(reason))?;
            if matches!(record, Record::Machine(_)) && self.config.journal_directory.is_none() {
                let reason = format!(
                    "{} is for a server that keeps a journal; expected the option {JOURNAL_OPTION} above",
                    quoted(line)
                );
                return Err(self.error_in_next(reason));
            }
            if time > TIME_MAX {
                let reason = format!("the time {time} is too late; expected at most {TIME_MAX}");
                return Err(self.error_in_next(reason));
            }
            if time < self.time {
                let reason = format!(
                    "time runs backwards, from {} to {time}; expected no less than before",
                    self.time
                );
                return Err(self.error_in_next(reason));
            }
            self.skip_line(to);
            self.time = time;
            self.record_line = self.lines;
            if let Record::Connection { id, action: Action::Sends } = record {
                self.sending = Some((id, block));
                self.read_sent(data)?;
            }
            return Ok(Some((time, record)));
        }
        Ok(None)
    }

    fn read_sent(&mut self, data: &mut Vec<u8>) -> Result<(), TraceError> {
        match self.sending {
            Some((id, block)) if block > 0 => self.read_block(id, block, data),
            _ => self.read_data(data),
        }
    }

    /// Reads bytes of a block and the line end behind it, up to the limit of one record. `left` counts both.
    fn read_block(&mut self, id: ConnectionId, mut left: u64, data: &mut Vec<u8>) -> Result<(), TraceError> {
        while left > 0 && data.len() < DATA_BYTES {
            if self.start == self.end {
                self.fill()?;
            }
            let unread = &self.buffer[self.start..self.end];
            if unread.is_empty() {
                if !data.is_empty() {
                    // What is there is played first.
                    break;
                }
                let reason = format!("the file ends in the middle of a block; expected {left} bytes more");
                return Err(TraceError { cut: true, ..self.error_in_next(reason) });
            }
            let len = unread.len().min(usize::try_from(left - 1).unwrap_or(usize::MAX));
            let bytes = &unread[..len.max(1)];
            self.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
            if len > 0 {
                data.extend_from_slice(bytes);
            } else if bytes != b"\n" {
                let reason =
                    "the block goes on; expected a line end after as many bytes as its first line says";
                return Err(self.error_in_next(reason.to_owned()));
            }
            left -= bytes.len() as u64;
            self.start += bytes.len();
        }
        self.sending = Some((id, left));
        Ok(())
    }

    /// Reads data lines and the notes among them, until something else comes or the limit of one record is reached.
    fn read_data(&mut self, data: &mut Vec<u8>) -> Result<(), TraceError> {
        while data.len() < DATA_BYTES {
            let next = match self.peek_line() {
                // What is there is played first.
                Err(_) if !data.is_empty() => return Ok(()),
                next => next?,
            };
            let Some((from, to)) = next else {
                self.sending = None;
                return Ok(());
            };
            let line = &self.buffer[from..to];
            match line.first() {
                Some(&(CRLF | LF | OPEN)) => {
                    read_data(line, data).map_err(|reason| self.error_in_next(reason))?;
                }
                None | Some(b'#') => {}
                Some(_) => {
                    self.sending = None;
                    return Ok(());
                }
            }
            self.skip_line(to);
        }
        Ok(())
    }

    fn read_header(&mut self) -> Result<(), TraceError> {
        let expected = format!("expected \"{HEADER}\"");
        let line = self.peek_line().map_err(|error| TraceError {
            reason: format!("this is no trace; {expected}"),
            cut: false,
            ..error
        })?;
        let (from, to) = line.unwrap_or_default();
        let line = &self.buffer[from..to];
        if line == HEADER.as_bytes() {
            self.skip_line(to);
            return Ok(());
        }
        let reason = match line.strip_prefix(b"fortnight trace ") {
            Some(version) => {
                format!("version {} of the format is not known; {expected}", quoted(version))
            }
            None => format!("this is no trace; {expected}"),
        };
        Err(self.error_in_next(reason))
    }

    /// Where the next line is in the buffer, without its LF. It stays the next one until it is skipped.
    fn peek_line(&mut self) -> Result<Option<(usize, usize)>, TraceError> {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(newline) = memchr::memchr(b'\n', &unread[searched..]) {
                return Ok(Some((self.start, self.start + searched + newline)));
            }
            searched = unread.len();
            if searched > LINE_BYTES_MAX {
                let reason = format!("the line is too long; expected at most {LINE_BYTES_MAX} bytes");
                return Err(self.error_in_next(reason));
            }
            if self.ended {
                if searched == 0 {
                    return Ok(None);
                }
                let reason = "the file ends in the middle of this line; expected a line end".to_owned();
                return Err(TraceError { cut: true, ..self.error_in_next(reason) });
            }
            self.fill()?;
        }
    }

    /// Goes on after the line that [`Reader::peek_line`] found to end at `to`.
    fn skip_line(&mut self, to: usize) {
        self.start = to + 1;
        self.lines += 1;
    }

    fn fill(&mut self) -> Result<(), TraceError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.buffer.len(), 0);
        }
        loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(len) => {
                    self.ended = len == 0;
                    self.end += len;
                    return Ok(());
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error_in_next(format!("cannot be read: {error}"))),
            }
        }
    }

    fn error_in_next(&self, reason: String) -> TraceError {
        TraceError { line: self.lines + 1, reason, cut: false }
    }
}

fn is_note(line: &[u8]) -> bool {
    matches!(line.first(), None | Some(b'#'))
}

fn set_option(config: &mut Config, option: &[u8]) -> Result<(), String> {
    let mut words = option.splitn(2, |&byte| byte == b' ');
    let (name, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Some(name) = OPTIONS.iter().find(|known| known.as_bytes() == name) else {
        return Err(format!("option {} is not known; expected one of {}", quoted(name), OPTIONS.join(", ")));
    };
    let refused = |expected| format!("{name}: {} is not accepted; expected {expected}", quoted(value));
    let mut text = str::from_utf8(value).unwrap_or_default();
    if *name == JOURNAL_OPTION && !text.is_empty() {
        text = JOURNAL_FOLDER;
    }
    options::set(config, name, text).map_err(refused)
}

/// A record, its time, and the length of the block and the line end that follow it.
fn parse_record(line: &[u8]) -> Result<(Micros, Record, u64), String> {
    parse_known_record(line).ok_or_else(|| unknown(line))
}

fn parse_known_record(line: &[u8]) -> Option<(Micros, Record, u64)> {
    let (time, record) = split_word(line);
    let time = parse_number(time)?;
    if record == b"signal" {
        return Some((time, Record::Signal, 0));
    }
    if let Some(what) = Machine::parse(record) {
        return Some((time, Record::Machine(what), 0));
    }
    let (kind, rest) = split_word(record);
    let (number, action) = split_word(rest);
    let number = parse_number(number)?;
    let id = match kind {
        b"source" => ConnectionId::Source(number),
        b"user" => ConnectionId::User(number),
        _ => return None,
    };
    let mut block = 0;
    let action = match action {
        b"connects" => Action::Connects,
        b"sends" => Action::Sends,
        b"finishes" => Action::Finishes,
        b"closes" => Action::Closes,
        b"resets" => Action::Resets,
        b"takes all" => Action::Takes(u64::MAX),
        action => match action.strip_prefix(b"takes ") {
            Some(bytes) => Action::Takes(parse_number(bytes)?),
            None => {
                let len = action.strip_prefix(b"sends ")?.strip_suffix(b" bytes")?;
                block = parse_number(len)?.checked_add(1)?;
                Action::Sends
            }
        },
    };
    if matches!((id, action), (ConnectionId::Source(_), Action::Takes(_))) {
        return None;
    }
    Some((time, Record::Connection { id, action }, block))
}

fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b' ', text) {
        Some(space) => (&text[..space], &text[space + 1..]),
        None => (text, b""),
    }
}

fn unknown(line: &[u8]) -> String {
    let expected = match line.first() {
        Some(&(CRLF | LF | OPEN)) => "a data line in front of which nobody sends; expected a record",
        _ => "no record; expected a time, a connection and an action, such as 1200 source 1 sends",
    };
    format!("{} is {expected}", quoted(line))
}

/// A piece of the trace in quotes, escaped and shortened.
fn quoted(bytes: &[u8]) -> String {
    let mut text = format!("\"{}", escaped(&bytes[..bytes.len().min(QUOTED_BYTES)]));
    text.push_str(if bytes.len() > QUOTED_BYTES { "…\"" } else { "\"" });
    text
}
