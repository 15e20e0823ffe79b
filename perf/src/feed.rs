//! The event sources: sends the blocks, each spread over all source connections, at the pace that is wanted.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};

use crate::access::{Access, Line};
use crate::block::{Block, Wire};
use crate::book::Book;

/// Most bytes in one write, so that users are read in between.
const WRITE_MAX: usize = 1 << 20;

#[derive(Debug)]
struct Source {
    stream: Line,
    writable: bool,
    /// How much of the current block's wire has been sent.
    offset: usize,
}

/// All source connections and how far they are.
#[derive(Debug)]
pub struct Feed {
    sources: Vec<Source>,
    rate: Option<f64>,
    started: Option<Instant>,
    /// The block that is being sent.
    pub block: u64,
    /// Lines of the timed blocks before it.
    pub lines_before: u64,
    /// Bytes sent since the clock started.
    pub bytes: u64,
    /// Events in the timed blocks that have been sent whole.
    pub events: u64,
    /// Whether everything has been sent.
    pub finished: bool,
}

/// Why the feed did not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// It can go on at once.
    Ready,
    /// The sockets take no more.
    Full,
    /// The next line is due in this time.
    Until(Duration),
    /// It was told not to begin the next block yet, or there is none.
    Held,
}

impl Feed {
    /// Connects `count` sources, with the tokens 0, 1, …, to send at `rate` lines a second or as fast as they are taken.
    ///
    /// # Errors
    /// Those of connecting.
    pub fn connect(
        (access, address): (&Access, SocketAddr),
        count: usize,
        rate: Option<f64>,
        registry: &Registry,
    ) -> io::Result<Feed> {
        let mut sources = Vec::new();
        for token in 0..count {
            let mut stream = access.source(address)?;
            stream.register(registry, Token(token), Interest::WRITABLE | Interest::READABLE)?;
            sources.push(Source { stream, writable: true, offset: 0 });
        }
        Ok(Feed {
            sources,
            rate,
            started: None,
            block: 0,
            lines_before: 0,
            bytes: 0,
            events: 0,
            finished: false,
        })
    }

    /// Starts the clock: what is due is counted from now.
    pub fn start_clock(&mut self, now: Instant) {
        self.started = Some(now);
        self.bytes = 0;
        self.events = 0;
        self.lines_before = 0;
    }

    /// Whether the clock has started.
    pub fn is_timed(&self) -> bool {
        self.started.is_some()
    }

    /// The socket of `source` is ready.
    ///
    /// # Errors
    /// The server has closed it.
    pub fn ready(&mut self, source: usize, writable: bool, readable: bool) -> io::Result<()> {
        let source = &mut self.sources[source];
        source.writable |= writable;
        if !readable {
            return Ok(());
        }
        let mut ignored = [0; 4096];
        loop {
            match source.stream.read(&mut ignored) {
                Ok(0) => return Err(ErrorKind::ConnectionAborted.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends what can be sent: at most one write per source. `may_begin` says whether block `.0` may be begun.
    ///
    /// # Errors
    /// Those of writing: the server has closed the connection.
    pub fn pump(
        &mut self,
        book: &mut Book,
        now: Instant,
        may_begin: impl Fn(&Book, u64) -> bool,
    ) -> io::Result<Pause> {
        let untouched = self.sources.iter().all(|s| s.offset == 0);
        if untouched && !may_begin(book, self.block) {
            return Ok(Pause::Held);
        }
        let Some(block) = book.get(self.block) else {
            self.finished = true;
            return Ok(Pause::Held);
        };
        if !block.preamble && self.started.is_none() {
            return Ok(Pause::Held);
        }
        let due = self.due_in(block, now);
        let mut pause = Pause::Full;
        for (source, wire) in self.sources.iter_mut().zip(&block.wires) {
            let until = due.map_or(wire.bytes.len(), |due| wire.end_of(due));
            if source.offset < until && source.writable {
                let end = until.min(source.offset + WRITE_MAX);
                match source.stream.write(&wire.bytes[source.offset..end]) {
                    Ok(length) => {
                        source.offset += length;
                        self.bytes += length as u64;
                        pause = Pause::Ready;
                    }
                    Err(e) if e.kind() == ErrorKind::Interrupted => pause = Pause::Ready,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => source.writable = false,
                    Err(e) => return Err(e),
                }
            }
        }
        if self.sources.iter().zip(&block.wires).all(|(source, wire)| source.offset == wire.bytes.len()) {
            self.block += 1;
            self.events += u64::from(block.events);
            self.lines_before += u64::from(block.lines);
            self.sources.iter_mut().for_each(|source| source.offset = 0);
            return Ok(Pause::Ready);
        }
        match due {
            Some(due) if pause == Pause::Full && self.behind(block, due).is_none() => {
                Ok(self.wait_for(due, now))
            }
            _ => Ok(pause),
        }
    }

    /// How many lines of `block` are due; `None` without a rate.
    fn due_in(&self, block: &Block, now: Instant) -> Option<u32> {
        let (rate, started) = (self.rate?, self.started?);
        let due = 1 + (now.saturating_duration_since(started).as_secs_f64() * rate) as u64;
        Some(due.saturating_sub(self.lines_before).min(block.lines.into()) as u32)
    }

    /// A source that has not yet sent what is due, because its socket is full.
    fn behind(&self, block: &Block, due: u32) -> Option<usize> {
        let late = |(source, wire): (&Source, &Wire)| source.offset < wire.end_of(due);
        self.sources.iter().zip(&block.wires).position(late)
    }

    fn wait_for(&self, due: u32, now: Instant) -> Pause {
        let (Some(rate), Some(started)) = (self.rate, self.started) else { return Pause::Ready };
        let next = started + Duration::from_secs_f64((self.lines_before + u64::from(due)) as f64 / rate);
        Pause::Until(next.saturating_duration_since(now))
    }

    /// A number such that it and all above it have not been sent, not even in part. Needs marks.
    pub fn unsent_from(&self, book: &mut Book) -> u64 {
        let end = book.end();
        let Some(block) = book.get(self.block) else {
            return end
                .checked_sub(1)
                .and_then(|last| book.built(last))
                .map_or(u64::MAX, |last| last.end_seq);
        };
        let mut from = block.first_seq;
        for (source, wire) in self.sources.iter().zip(&block.wires) {
            let begun = wire.marks.partition_point(|mark| (mark.end as usize) < source.offset);
            let begun = if source.offset == 0 { 0 } else { (begun + 1).min(wire.marks.len()) };
            let highest =
                wire.marks[..begun].iter().map(|mark| block.first_seq + u64::from(mark.seq_offset) + 1).max();
            from = from.max(highest.unwrap_or(from));
        }
        from
    }
}

impl Wire {
    /// Offset up to which the lines with an `order` below `due` go.
    fn end_of(&self, due: u32) -> usize {
        match self.marks.partition_point(|mark| mark.order < due) {
            0 => 0,
            lines => self.marks[lines - 1].end as usize,
        }
    }
}
