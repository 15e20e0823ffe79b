//! Event sources that honour acknowledgements (docs/SPEC.md section 9): each sends its share of every block, keeps what is not
//! acknowledged, and goes on from the acknowledged number after its connection has ended.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::{Interest, Registry, Token};

use crate::access::{Access, Line};
use crate::book::Book;

/// Most bytes in one write, so that users are read in between.
const WRITE_MAX: usize = 256 << 10;

/// The sources together: nobody begins a block before all have sent the one before it.
#[derive(Debug)]
pub(super) struct Sources {
    each: Vec<Source>,
    /// Lines per second, and when counting began.
    rate: Option<(f64, Instant)>,
    lines: u64,
    /// Bytes sent so far, those sent again included.
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Source {
    name: String,
    token: Token,
    stream: Option<Line>,
    ready: bool,
    writable: bool,
    /// The start of an acknowledgement whose end has not come.
    begun: Vec<u8>,
    /// The epoch and the newest acknowledgement: kept over connections.
    acknowledged: Option<(String, u64)>,
    /// This connection has been answered.
    answered: bool,
    /// What is sent next.
    block: u64,
    offset: usize,
}

impl Sources {
    /// Sources that are not connected yet.
    pub(super) fn new(count: usize, rate: Option<f64>) -> Sources {
        let source = |number: usize| Source {
            name: format!("maze-{number}"),
            token: Token(number),
            stream: None,
            ready: false,
            writable: false,
            begun: Vec::new(),
            acknowledged: None,
            answered: false,
            block: 0,
            offset: 0,
        };
        let rate = rate.map(|rate| (rate, Instant::now()));
        Sources { each: (0..count).map(source).collect(), rate, lines: 0, bytes: 0 }
    }

    /// Connects those that are not connected.
    ///
    /// # Errors
    /// Those of connecting and writing.
    pub(super) fn connect(&mut self, at: (&Access, SocketAddr), registry: &Registry) -> io::Result<()> {
        self.each
            .iter_mut()
            .filter(|source| source.stream.is_none())
            .try_for_each(|s| s.connect(at, registry))
    }

    /// All connections are over.
    pub(super) fn hang_up(&mut self) {
        self.each.iter_mut().for_each(Source::hang_up);
    }

    /// The socket of `source` is ready.
    pub(super) fn wake(&mut self, source: usize, readable: bool, writable: bool) {
        let source = &mut self.each[source];
        source.ready |= readable;
        source.writable |= writable;
    }

    /// Whether every number below `end` is acknowledged.
    pub(super) fn are_done(&self, end: u64) -> bool {
        self.each.iter().any(|source| source.acknowledged.as_ref().is_some_and(|&(_, number)| number >= end))
    }

    /// The lowest acknowledgement: every number below it is dealt with and durable.
    pub(super) fn acknowledged(&self) -> u64 {
        let numbers =
            self.each.iter().map(|source| source.acknowledged.as_ref().map_or(0, |&(_, number)| number));
        numbers.max().unwrap_or(0)
    }

    /// Reads acknowledgements and sends what can be sent. True if something was done.
    ///
    /// # Errors
    /// A sentence, if the server has lost its past.
    pub(super) fn serve(&mut self, book: &Book, now: Instant) -> Result<bool, String> {
        let mut busy = false;
        for source in &mut self.each {
            busy |= source.read(book)?;
        }
        let begun = self.each.iter().map(|source| source.block).min().unwrap_or(0);
        for source in &mut self.each {
            let due = self.rate.map(|(rate, since)| {
                ((now.saturating_duration_since(since).as_secs_f64() * rate) as u64)
                    .saturating_sub(self.lines)
            });
            let (bytes, lines) = source.send(book, begun, due);
            self.bytes += bytes;
            self.lines += lines;
            busy |= bytes > 0;
        }
        Ok(busy)
    }
}

impl Source {
    fn connect(&mut self, (access, at): (&Access, SocketAddr), registry: &Registry) -> io::Result<()> {
        let mut stream = access.source(at)?;
        stream.write_all(format!("?|ack|{}\n", self.name).as_bytes())?;
        stream.register(registry, self.token, Interest::READABLE | Interest::WRITABLE)?;
        self.stream = Some(stream);
        Ok(())
    }

    fn hang_up(&mut self) {
        (self.stream, self.ready, self.writable, self.answered) = (None, false, false, false);
        self.begun.clear();
    }

    fn read(&mut self, book: &Book) -> Result<bool, String> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.ready) else { return Ok(false) };
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.ready = false,
            Ok(0) | Err(_) => self.hang_up(),
            Ok(length) => {
                self.begun.extend_from_slice(&bytes[..length]);
                while let Some(end) = memchr::memchr(b'\n', &self.begun) {
                    let line: Vec<u8> = self.begun.drain(..=end).collect();
                    self.take(&line, book)?;
                }
            }
        }
        Ok(self.ready)
    }

    fn take(&mut self, line: &[u8], book: &Book) -> Result<(), String> {
        let text = String::from_utf8_lossy(line);
        let fields: Vec<&str> = text.trim_end().split('|').collect();
        let [sign, epoch, number] = fields[..] else {
            return Err(format!("source {}: `{}` is no acknowledgement", self.name, text.trim_end()));
        };
        let (Ok(number), "+") = (number.parse::<u64>(), sign) else {
            return Err(format!("source {}: `{}` is no acknowledgement", self.name, text.trim_end()));
        };
        if let Some((mine, before)) = &self.acknowledged
            && (mine != epoch || number < *before)
        {
            return Err(format!(
                "source {}: {number} of epoch {epoch} was acknowledged after {before} of epoch {mine}: \
                 the server has lost its past",
                self.name
            ));
        }
        self.acknowledged = Some((epoch.to_owned(), number));
        if !std::mem::replace(&mut self.answered, true) {
            // Whole blocks are sent again: what lies before the acknowledged number is late, and is dropped.
            (self.block, self.offset) = (book.first_ending_above(number), 0);
        }
        Ok(())
    }

    /// Sends once, at most `due` lines; returns the bytes and lines sent.
    fn send(&mut self, book: &Book, begun: u64, due: Option<u64>) -> (u64, u64) {
        if !self.answered || !self.writable || self.block > begun {
            return (0, 0);
        }
        let Some(block) = book.built(self.block) else { return (0, 0) };
        let number = self.token.0;
        let wire = &block.wires[number];
        let sent = |offset: usize| wire.marks.partition_point(|mark| mark.end as usize <= offset);
        let before = sent(self.offset);
        let until = match due {
            None => wire.bytes.len(),
            Some(due) => match (before + due as usize).min(wire.marks.len()) {
                0 => 0,
                lines => wire.marks[lines - 1].end as usize,
            },
        };
        let mut written = 0;
        if let Some(stream) = self.stream.as_mut().filter(|_| self.offset < until) {
            match stream.write(&wire.bytes[self.offset..until.min(self.offset + WRITE_MAX)]) {
                Ok(length) => written = length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(_) => self.hang_up(),
            }
        }
        self.offset += written;
        let lines = sent(self.offset) - before;
        if self.offset == wire.bytes.len() && self.answered {
            (self.block, self.offset) = (self.block + 1, 0);
        }
        (written as u64, lines as u64)
    }
}
