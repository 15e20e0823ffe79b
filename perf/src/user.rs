//! One connected user: its login, what it reads, and the check of it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};

use crate::access::{Access, Line};
use crate::book::Book;
use crate::cursor::{Cursor, Place, Wrong};
use crate::fault::{Class, Difference, Fault, owed_line, shown};
use crate::workload::Workload;

/// Receive buffer of a user that reads slowly: small, so that the server notices.
const SLOW_RECEIVE_BUFFER: usize = 16 * 1024;

/// Limits a user to a number of bytes per second.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: f64,
    /// It is slow for so long, and then not for as long.
    pulse: Option<(Instant, Duration)>,
    credit: f64,
    last: Instant,
}

impl Throttle {
    /// At most this many bytes per second from now on; with `pulse`, for so long, and then as many as come for as long.
    pub fn new(bytes_per_second: f64, pulse: Option<Duration>) -> Throttle {
        let now = Instant::now();
        Throttle { bytes_per_second, pulse: pulse.map(|length| (now, length)), credit: 0.0, last: now }
    }

    fn allowance(&mut self, now: Instant) -> usize {
        if let Some((begin, length)) = self.pulse
            && now.saturating_duration_since(begin).as_nanos() / length.as_nanos() % 2 == 1
        {
            self.credit = 0.0;
            self.last = now;
            return usize::MAX;
        }
        self.credit += now.saturating_duration_since(self.last).as_secs_f64() * self.bytes_per_second;
        self.credit = self.credit.min(self.bytes_per_second.max(1.0));
        self.last = now;
        self.credit as usize
    }
}

/// A connection of a user who stays.
#[derive(Debug)]
pub struct User {
    /// Its place among those who may be connected.
    pub slot: usize,
    /// Its id.
    pub id: u64,
    stream: Line,
    /// What has been checked.
    pub cursor: Cursor,
    /// There may be something to read.
    pub ready: bool,
    /// The server has closed the connection: everything is to be read up to its end.
    pub ended: bool,
    /// It has received everything, or was cut off.
    pub done: bool,
    /// Set for a user that reads slowly.
    pub throttle: Option<Throttle>,
    /// Where it stood at the last look, and since when.
    stood: (Place, Instant),
}

/// The result of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// This many bytes, all as owed.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The server closed the connection.
    Closed,
}

/// Opens a connection and logs in; it does not block afterwards.
///
/// # Errors
/// Those of connecting and writing.
pub fn log_in(
    access: &Access,
    address: SocketAddr,
    id: u64,
    receive_buffer: Option<usize>,
) -> io::Result<Line> {
    let mut line = access.user(address, receive_buffer)?;
    line.write_all(access.login(id, "").as_bytes())?;
    Ok(line)
}

impl User {
    /// Connects and logs in.
    ///
    /// # Errors
    /// Those of connecting and writing.
    pub fn connect(
        (access, address): (&Access, SocketAddr),
        (slot, id): (usize, u64),
        throttle: Option<Throttle>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<User> {
        let mut stream = log_in(access, address, id, throttle.as_ref().map(|_| SLOW_RECEIVE_BUFFER))?;
        stream.register(registry, token, Interest::READABLE)?;
        let stood = (Place::default(), Instant::now());
        Ok(User {
            slot,
            id,
            stream,
            cursor: Cursor::default(),
            ready: false,
            ended: false,
            done: false,
            throttle,
            stood,
        })
    }

    /// Acknowledges every other small segment rather than each as soon as it is read (RFC 9293, section 3.8.6.3). Where pieces
    /// are small, that is half of what reading them costs.
    ///
    /// # Errors
    /// Those of setting a socket option.
    pub fn delay_acknowledgements(&self) -> io::Result<()> {
        Ok(rustix::net::sockopt::set_tcp_quickack(self.stream.socket(), false)?)
    }

    /// The port of this side.
    pub fn local_port(&self) -> Option<u16> {
        self.stream.local_port()
    }

    /// Reads once and checks what came. Leaves `ready` set if there may be more.
    ///
    /// # Errors
    /// The fault, if what came is not what was owed.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        book: &mut Book,
        load: &Workload,
        now: Instant,
    ) -> Result<Got, Box<Fault>> {
        let mut room = buffer.len();
        if let Some(throttle) = &mut self.throttle {
            room = room.min(throttle.allowance(now));
            if room == 0 {
                return Ok(Got::Nothing);
            }
        }
        let length = match self.stream.read(&mut buffer[..room]) {
            Ok(0) => return Ok(Got::Closed),
            Ok(length) => length,
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(Got::Nothing),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.ready = false;
                return Ok(Got::Nothing);
            }
            Err(_) => return Ok(Got::Closed),
        };
        // A read that did not fill the buffer emptied the socket; what comes later is announced again. An end that
        // was announced together with the last bytes is not.
        self.ready = length == room || self.ended;
        if let Some(throttle) = &mut self.throttle {
            throttle.credit -= length as f64;
        }
        match self.cursor.check(book, self.slot, &buffer[..length]) {
            Ok(()) => Ok(Got::Bytes(length)),
            Err(wrong) => Err(Box::new(self.difference(wrong, &buffer[..length], book, load))),
        }
    }

    fn difference(&mut self, wrong: Wrong, got: &[u8], book: &Book, load: &Workload) -> Fault {
        let (Wrong::Differs(at) | Wrong::TooMuch(at)) = wrong;
        let mut place = self.cursor.place;
        let mut line = Vec::new();
        if let Some(block) = book.built(place.block) {
            let right = &block.text(self.slot).bytes[..place.offset];
            let start = memchr::memrchr(b'\n', right).map_or(0, |end| end + 1);
            line.extend_from_slice(&right[start..]);
            place.offset = start;
        }
        line.extend_from_slice(&got[at..]);
        self.read_on(&mut line);
        let events_in = self.cursor.lines_so_far(book, self.slot);
        Difference { load, book, slot: self.slot, place, got: &line, events_in }.diagnose()
    }

    /// Reads some lines more, as far as they come soon: they tell a lost event from one that comes late.
    fn read_on(&mut self, line: &mut Vec<u8>) {
        let begin = Instant::now();
        let mut more = [0; 4096];
        while line.len() < 64 * 1024 && begin.elapsed() < Duration::from_millis(300) {
            match self.stream.read(&mut more) {
                Ok(0) => break,
                Ok(length) => line.extend_from_slice(&more[..length]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }

    /// A fault that shows as nothing coming, or nothing coming any more.
    pub fn missing(&self, class: Class, book: &Book, detail: String) -> Fault {
        let mut place = self.cursor.place;
        while book.built(place.block).is_some_and(|b| place.offset == b.text(self.slot).bytes.len()) {
            place = Place { block: place.block + 1, offset: 0 };
        }
        let begun = book.built(place.block).map_or(&[][..], |b| &b.text(self.slot).bytes[..place.offset]);
        let start = memchr::memrchr(b'\n', begun).map_or(0, |end| end + 1);
        let got = (start < begun.len()).then(|| shown(&begun[start..]));
        place.offset = start;
        Fault {
            class,
            user: Some(self.id),
            expected: owed_line(book, self.slot, place).map(shown),
            got,
            events_in: self.cursor.lines_so_far(book, self.slot),
            detail,
        }
    }

    /// Nothing has been sent before this: the time that everybody's login took is no wait of this user.
    pub fn waits_from(&mut self, now: Instant) {
        self.stood.1 = now;
    }

    /// For how long the user has been owed something, among the blocks before `sent`, and got nothing.
    pub fn waits_since(&mut self, book: &Book, sent: u64, now: Instant) -> Duration {
        self.cursor.skip_empty(book, self.slot, sent);
        let place = self.cursor.place;
        if self.done || place.block >= sent || place != self.stood.0 {
            self.stood = (place, now);
        }
        now.saturating_duration_since(self.stood.1)
    }
}
