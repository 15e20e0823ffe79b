//! A user that resumes (docs/SPEC.md section 10): it leaves at any moment, also in the middle of a line, comes back with the
//! number that it wants next, and must end up with one uninterrupted stream.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};

use crate::access::{Access, Line};
use crate::book::Book;
use crate::cursor::{Cursor, Place, Wrong, lines_of, sequence_of};
use crate::fault::{Class, Difference, Fault, owed_line, shown};
use crate::rng::Rng;
use crate::workload::Workload;

/// Most bytes that a user reads at a time who comes and goes.
const PIECE_MAX: u64 = 64 << 10;

/// One user.
#[derive(Debug)]
pub struct Reader {
    slot: usize,
    id: u64,
    token: Token,
    stream: Option<Line>,
    ready: bool,
    /// What has been checked: whole lines only.
    cursor: Cursor,
    /// The start of a line whose end has not come.
    begun: Vec<u8>,
    /// The epoch, once the server has told it, and the next number that is wanted in it.
    place: Option<(String, u64)>,
    /// This login has been answered.
    answered: bool,
    /// Set for a user that comes and goes.
    visits: Option<Visits>,
    /// Logins so far.
    pub logins: u64,
    /// Bytes received so far.
    pub bytes: u64,
    /// Visits that it ended in the middle of a line.
    pub cut_lines: u64,
}

/// When a user that comes and goes does so.
#[derive(Debug)]
struct Visits {
    rng: Rng,
    /// How long it stays at most, in microseconds.
    longest: u64,
    /// When it leaves, or comes back.
    next: Instant,
}

impl Reader {
    /// A user that is not connected yet. With `stay`, it comes and goes, and stays for so long on average.
    pub fn new((slot, id): (usize, u64), token: Token, seed: u64, stay: Option<Duration>) -> Reader {
        let visits = stay.map(|stay| Visits {
            rng: Rng::new(seed, 2000 + slot as u64),
            longest: 2 * stay.as_micros() as u64 + 1,
            next: Instant::now(),
        });
        Reader {
            slot,
            id,
            token,
            stream: None,
            ready: false,
            cursor: Cursor::default(),
            begun: Vec::new(),
            place: None,
            answered: false,
            visits,
            logins: 0,
            bytes: 0,
            cut_lines: 0,
        }
    }

    /// The first byte that it has not received.
    pub fn at(&self) -> Place {
        self.cursor.place
    }

    /// The server has told it the epoch.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// There may be something to read.
    pub fn wake(&mut self) {
        self.ready = true;
    }

    /// Events that it has received.
    pub fn deliveries(&self, book: &Book) -> u64 {
        self.cursor.lines_so_far(book, self.slot)
    }

    /// Whether it has everything that it is owed in the blocks before `end`.
    pub fn has_all(&mut self, book: &Book, end: u64) -> bool {
        self.cursor.skip_empty(book, self.slot, end);
        self.cursor.place.block >= end
    }

    /// Comes or goes, if it is time to.
    ///
    /// # Errors
    /// Those of connecting and writing.
    pub fn come_and_go(
        &mut self,
        at: (&Access, SocketAddr),
        now: Instant,
        registry: &Registry,
    ) -> io::Result<()> {
        // It has to know the epoch of the run before it can come back to it: it leaves once something has come.
        let (is_there, may_leave) = (self.stream.is_some(), self.answered && self.cursor.bytes > 0);
        if let Some(visits) = &mut self.visits {
            if now < visits.next || (is_there && !may_leave) {
                return Ok(());
            }
            let stay = Duration::from_micros(visits.rng.below(visits.longest));
            visits.next = now + if is_there { stay / 8 } else { stay };
            if is_there {
                self.cut_lines += u64::from(!self.begun.is_empty());
                self.hang_up();
            }
        }
        if is_there {
            return Ok(());
        }
        self.log_in(at, registry)
    }

    /// The connection is over: what has come of a line without its end is forgotten.
    pub fn hang_up(&mut self) {
        (self.stream, self.ready, self.answered) = (None, false, false);
        self.begun.clear();
    }

    fn log_in(&mut self, (access, at): (&Access, SocketAddr), registry: &Registry) -> io::Result<()> {
        let place = match &self.place {
            None => "|now".to_owned(),
            Some((epoch, next)) => format!("|{next}|{epoch}"),
        };
        let mut stream = access.user(at, None)?;
        stream.write_all(access.login(self.id, &place).as_bytes())?;
        stream.register(registry, self.token, Interest::READABLE)?;
        self.stream = Some(stream);
        self.logins += 1;
        Ok(())
    }

    /// Reads once and checks what came. `Ok(true)`: there may be more.
    ///
    /// # Errors
    /// The fault, if what came is not what was owed.
    pub fn read(&mut self, buffer: &mut [u8], book: &mut Book, load: &Workload) -> Result<bool, Box<Fault>> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.ready) else { return Ok(false) };
        // Those who come and go read pieces of any size, so that they leave in the middle of lines.
        let room =
            self.visits.as_mut().map_or(buffer.len(), |visits| 1 + visits.rng.below(PIECE_MAX) as usize);
        let room = room.min(buffer.len());
        match stream.read(&mut buffer[..room]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.ready = false;
                Ok(false)
            }
            // The server has closed the connection or is gone: the user comes back with what it has.
            Ok(0) | Err(_) => {
                self.hang_up();
                Ok(false)
            }
            Ok(length) => {
                self.bytes += length as u64;
                let mut got = std::mem::take(&mut self.begun);
                got.extend_from_slice(&buffer[..length]);
                let whole = memchr::memrchr(b'\n', &got).map_or(0, |end| end + 1);
                self.take(&got[..whole], book, load)?;
                // A line that told the end of the connection has nothing behind it.
                if self.stream.is_some() {
                    self.begun = got.split_off(whole);
                }
                Ok(self.ready)
            }
        }
    }

    /// Checks whole lines: pieces of events at once, lines from the server itself one by one.
    fn take(&mut self, lines: &[u8], book: &mut Book, load: &Workload) -> Result<(), Box<Fault>> {
        let mut from = 0;
        for (at, line) in lines_of(lines) {
            if !matches!(line[0], b'+' | b'-') {
                continue;
            }
            self.take_events(&lines[from..at], book, load)?;
            self.take_word(line, book)?;
            from = at + line.len();
        }
        self.take_events(&lines[from..], book, load)
    }

    fn take_events(&mut self, events: &[u8], book: &mut Book, load: &Workload) -> Result<(), Box<Fault>> {
        let Some(end) = events.len().checked_sub(1) else { return Ok(()) };
        let start = memchr::memrchr(b'\n', &events[..end]).map_or(0, |end| end + 1);
        if !self.answered {
            return Err(self.wrong(
                Class::Unknown,
                events,
                book,
                "an event came before the answer to the login",
            ));
        }
        if let Err(Wrong::Differs(at) | Wrong::TooMuch(at)) = self.cursor.check(book, self.slot, events) {
            let line = memchr::memrchr(b'\n', &events[..at]).map_or(0, |end| end + 1);
            let mut place = self.cursor.place;
            place.offset -= at - line;
            let events_in = self.deliveries(book);
            let difference =
                Difference { load, book, slot: self.slot, place, got: &events[line..], events_in };
            return Err(Box::new(difference.diagnose()));
        }
        if let (Some((_, next)), Some(number)) = (&mut self.place, sequence_of(&events[start..])) {
            *next = number.saturating_add(1);
        }
        Ok(())
    }

    /// An answer, a mark, a refusal or the last words.
    fn take_word(&mut self, line: &[u8], book: &Book) -> Result<(), Box<Fault>> {
        let text = String::from_utf8_lossy(line);
        let mut fields = text.trim_end().split('|');
        let (sign, epoch) = (fields.next(), fields.next());
        let number = fields.next().and_then(|number| number.parse::<u64>().ok());
        let (Some(epoch), Some(number)) = (epoch, number) else {
            return Err(self.wrong(
                Class::Unknown,
                line,
                book,
                "a line from the server that is none of the protocol",
            ));
        };
        if sign == Some("-") {
            return match fields.next() {
                Some("gone" | "epoch") => Err(self.wrong(Class::Closed, line, book, "the login was refused")),
                _ => {
                    self.hang_up();
                    Ok(())
                }
            };
        }
        let is_new_run = self.place.as_ref().is_some_and(|(mine, _)| mine != epoch);
        if is_new_run && self.answered && self.cursor.bytes == 0 {
            // A run begins (`resetOnSourceEof`), and this user was there before it.
            self.place = Some((epoch.to_owned(), number));
            return Ok(());
        }
        let next = self.place.as_ref().map_or(0, |(_, next)| *next);
        if is_new_run {
            return Err(self.wrong(Class::Unknown, line, book, "the epoch is another one"));
        }
        if number < next {
            return Err(self.wrong(
                Class::Repeated,
                line,
                book,
                "the number is below the one that was wanted",
            ));
        }
        let first = owed_line(book, self.slot, self.cursor.place).and_then(sequence_of);
        if self.place.is_some() && first.is_some_and(|first| first < number) {
            return Err(self.wrong(Class::Lost, line, book, "an event below this number has not come"));
        }
        self.place = Some((epoch.to_owned(), number));
        self.answered = true;
        Ok(())
    }

    fn wrong(&self, class: Class, line: &[u8], book: &Book, detail: &str) -> Box<Fault> {
        Box::new(Fault {
            class,
            user: Some(self.id),
            expected: owed_line(book, self.slot, self.cursor.place).map(shown),
            got: Some(shown(line)),
            events_in: self.deliveries(book),
            detail: format!("{detail}; login {}", self.logins),
        })
    }

    /// Nothing came for too long.
    pub fn stalled(&self, book: &Book, detail: String) -> Fault {
        Fault {
            class: Class::Stalled,
            user: Some(self.id),
            expected: owed_line(book, self.slot, self.cursor.place).map(shown),
            got: (!self.begun.is_empty()).then(|| shown(&self.begun)),
            events_in: self.deliveries(book),
            detail,
        }
    }
}
