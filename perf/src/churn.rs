//! Users who come and go while events flow.
//!
//! **What such a user must receive.** Let its *due stream* be what it would receive if it were connected all the
//! time. What it does receive in one visit must be a contiguous part of it, byte for byte, that
//!
//! - begins with a whole event;
//! - begins no later than the first event that it is owed among those of which nothing had been sent when the server's
//!   side had acknowledged its login (a login that reached the server before an event did is served before it);
//! - begins no earlier than what some other user had received already when it logged in;
//! - goes on without a gap until the user leaves, which it does at a random moment, in the middle of anything.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};

use crate::access::{Access, Line};
use crate::book::Book;
use crate::cursor::{Cursor, Place, Wrong, count_lines, find_line, first_owed_from, sequence_of};
use crate::fault::{Class, Difference, Fault, owed_line, shown};
use crate::rng::Rng;
use crate::user::log_in;
use crate::workload::Workload;

#[derive(Debug)]
enum Stage {
    /// Nothing whole has come yet: what has, and the bounds on where it may begin.
    Arriving { begun: Vec<u8>, earliest: u64, unsent_from: Option<u64> },
    /// The place in its due stream is known.
    Following,
}

#[derive(Debug)]
struct Visit {
    stream: Line,
    stage: Stage,
    cursor: Cursor,
    /// Lines of the cursor's first block that are before the start.
    skipped: u64,
    pinned: u64,
    leaves: Instant,
}

/// One user who comes and goes.
#[derive(Debug)]
pub struct Visitor {
    slot: usize,
    id: u64,
    token: Token,
    rng: Rng,
    stay: Duration,
    visit: Option<Visit>,
    comes: Instant,
    /// There may be something to read.
    pub ready: bool,
    /// The server has closed the connection: everything is to be read up to its end.
    pub ended: bool,
    /// How often it has come.
    pub visits: u64,
    /// Events that it received.
    pub deliveries: u64,
    /// Bytes that it received.
    pub bytes: u64,
}

/// The state at the moment of a login.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// A number such that all below it were released before.
    pub earliest: u64,
    /// The block in memory from which on blocks have to be kept.
    pub block: u64,
}

impl Visitor {
    /// A user who will come soon, and stays for twice `stay` at most.
    pub fn new((slot, id): (usize, u64), token: Token, seed: u64, stay: Duration) -> Visitor {
        Visitor {
            slot,
            id,
            token,
            rng: Rng::new(seed, 1000 + slot as u64),
            stay,
            visit: None,
            comes: Instant::now(),
            ready: false,
            ended: false,
            visits: 0,
            deliveries: 0,
            bytes: 0,
        }
    }

    /// Whether it is time to come.
    pub fn wants_in(&self, now: Instant) -> bool {
        self.visit.is_none() && now >= self.comes
    }

    /// The first block that it may still need.
    pub fn needs_from(&self) -> u64 {
        self.visit.as_ref().map_or(u64::MAX, |visit| visit.pinned)
    }

    fn some_time(&mut self) -> Duration {
        Duration::from_micros(self.rng.below(2 * self.stay.as_micros() as u64 + 1))
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// Those of connecting and writing.
    pub fn come(
        &mut self,
        (access, address): (&Access, SocketAddr),
        moment: Moment,
        registry: &Registry,
    ) -> std::io::Result<()> {
        let mut stream = log_in(access, address, self.id, None)?;
        stream.register(registry, self.token, Interest::READABLE)?;
        let Moment { earliest, block } = moment;
        let stage = Stage::Arriving { begun: Vec::new(), earliest, unsent_from: None };
        let leaves = Instant::now() + self.some_time();
        self.visit =
            Some(Visit { stream, stage, cursor: Cursor::default(), skipped: 0, pinned: block, leaves });
        self.visits += 1;
        (self.ready, self.ended) = (false, false);
        Ok(())
    }

    /// The port of this side, while it is not known whether the login has arrived.
    pub fn unsure_port(&self) -> Option<u16> {
        let visit = self.visit.as_ref()?;
        let unsure = matches!(visit.stage, Stage::Arriving { unsent_from: None, .. });
        visit.stream.local_port().filter(|_| unsure)
    }

    /// Its login has arrived, and `number` and all above it have not been sent.
    pub fn has_arrived(&mut self, number: u64) {
        if let Some(Visit { stage: Stage::Arriving { unsent_from, .. }, .. }) = &mut self.visit {
            unsent_from.get_or_insert(number);
        }
    }

    /// Leaves if it is time to, or if `now_or_never`.
    pub fn leave(&mut self, now: Instant, now_or_never: bool, book: &Book) {
        if self.visit.as_ref().is_some_and(|visit| now_or_never || now >= visit.leaves)
            && let Some(visit) = self.visit.take()
        {
            if matches!(visit.stage, Stage::Following) {
                self.deliveries += visit.cursor.lines_so_far(book, self.slot) - visit.skipped;
            }
            self.comes = now + self.some_time() / 8;
            self.ready = false;
        }
    }

    /// Reads once and checks what came.
    ///
    /// # Errors
    /// The fault, if what came is not what was owed, or the server closed the connection.
    pub fn read(&mut self, buffer: &mut [u8], book: &mut Book, load: &Workload) -> Result<usize, Box<Fault>> {
        let Some(visit) = &mut self.visit else {
            self.ready = false;
            return Ok(0);
        };
        let length = match visit.stream.read(buffer) {
            Ok(length) if length > 0 => length,
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(0),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.ready = false;
                return Ok(0);
            }
            Ok(_) | Err(_) => {
                let detail = format!("it came while events flowed; visit {}", self.visits);
                return Err(Box::new(Fault::plain(Class::Closed, Some(self.id), visit.cursor.lines, detail)));
            }
        };
        self.ready = length == buffer.len() || self.ended;
        self.bytes += length as u64;
        visit.take(self.slot, &buffer[..length], book, load).map_err(Box::new)?;
        Ok(length)
    }
}

impl Visit {
    fn take(&mut self, slot: usize, got: &[u8], book: &mut Book, load: &Workload) -> Result<(), Fault> {
        let mut got = got.to_vec();
        if let Stage::Arriving { begun, earliest, unsent_from } = &mut self.stage {
            begun.append(&mut got);
            if count_lines(begun) == 0 {
                return Ok(());
            }
            got = std::mem::take(begun);
            let (earliest, unsent_from) = (*earliest, *unsent_from);
            self.cursor.place = find_start(book, load, slot, &got, earliest, unsent_from)?;
            let text = &book.built(self.cursor.place.block).expect("just found").text(slot).bytes;
            self.skipped = count_lines(&text[..self.cursor.place.offset]);
            self.stage = Stage::Following;
        }
        let checked = self.cursor.check(book, slot, &got);
        self.pinned = self.cursor.place.block;
        let Err(Wrong::Differs(at) | Wrong::TooMuch(at)) = checked else { return Ok(()) };
        let mut place = self.cursor.place;
        let mut line = Vec::new();
        if let Some(block) = book.built(place.block) {
            let right = &block.text(slot).bytes[..place.offset];
            place.offset = memchr::memrchr(b'\n', right).map_or(0, |end| end + 1);
            line.extend_from_slice(&right[place.offset..]);
        }
        line.extend_from_slice(&got[at..]);
        let events_in = self.cursor.lines_so_far(book, slot) - self.skipped;
        Err(Difference { load, book, slot, place, got: &line, events_in }.diagnose())
    }
}

/// Where in its due stream the visitor's first line is, if it may begin there.
fn find_start(
    book: &Book,
    load: &Workload,
    slot: usize,
    got: &[u8],
    earliest: u64,
    unsent_from: Option<u64>,
) -> Result<Place, Fault> {
    let user = load.ids()[slot];
    let line = &got[..=memchr::memchr(b'\n', got).unwrap_or(got.len() - 1)];
    let number = sequence_of(line);
    let due = unsent_from.and_then(|number| first_owed_from(book, slot, number));
    let place = number.and_then(|number| {
        let index = book.find(number)?;
        Some(Place { block: index, offset: find_line(book.built(index)?, slot, |n| n == number)? })
    });
    let Some(place) = place else {
        let place = due.unwrap_or(Place { block: book.end(), offset: 0 });
        let mut fault = Difference { load, book, slot, place, got, events_in: 0 }.diagnose();
        fault.detail += "; first event of a user who came while events flowed: ";
        fault.detail += &shown(got);
        return Err(fault);
    };
    let fault = |class, detail: String| Fault {
        class,
        user: Some(user),
        expected: due.and_then(|due| owed_line(book, slot, due)).map(shown),
        got: Some(shown(line)),
        events_in: 0,
        detail,
    };
    if number.is_some_and(|number| number < earliest) {
        return Err(fault(
            Class::Repeated,
            format!("others had all events below {earliest} before this user logged in"),
        ));
    }
    if due.is_some_and(|due| place > due) {
        return Err(fault(
            Class::MissedAfterLogin,
            format!("nothing from {} on was sent before the login arrived", unsent_from.unwrap_or_default()),
        ));
    }
    Ok(place)
}
