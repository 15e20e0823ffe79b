//! Users that come back: they resume at a place, and read until they have everything.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mio::net::TcpStream as Stream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Socket, Type};

const READ_MAX: usize = 256 << 10;
/// As long as nothing comes for so long, something is wrong.
const SILENCE: Duration = Duration::from_secs(60);
/// Receive buffer of a user that reads slowly: small, so that the server notices.
const SLOW_RECEIVE_BUFFER: usize = 16 << 10;

/// The name of the server's sequence of events, and the next number.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) epoch: String,
    pub(super) next: u64,
}

impl Place {
    /// Asks as a source does, until nothing new becomes durable any more.
    pub(super) fn of(source: SocketAddr) -> Result<Place, String> {
        let broken = |error: io::Error| format!("the place of the server: {error}");
        let mut stream = TcpStream::connect(source).map_err(broken)?;
        stream.write_all(b"?|ack\n").map_err(broken)?;
        stream.set_read_timeout(Some(Duration::from_millis(2500))).map_err(broken)?;
        let mut told = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => told.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => return Err(broken(error)),
            }
        }
        let text = String::from_utf8_lossy(&told);
        let line = text.lines().last().unwrap_or_default();
        let mut fields = line.split('|').skip(1);
        let (epoch, next) = (fields.next(), fields.next().and_then(|number| number.parse().ok()));
        match (epoch, next) {
            (Some(epoch), Some(next)) => Ok(Place { epoch: epoch.to_owned(), next }),
            _ => Err(format!("the place of the server: `{line}` is no acknowledgement")),
        }
    }

    /// The login of a user that has everything below `next`.
    pub(super) fn login(&self, id: u64, next: u64) -> String {
        format!("{id}|{next}|{}\n", self.epoch)
    }
}

#[derive(Debug)]
struct Returning {
    stream: Stream,
    /// The end of what has come.
    tail: Vec<u8>,
    /// Bytes per second, if it reads slowly, and what it may read now.
    rate: Option<f64>,
    credit: f64,
    done: bool,
}

/// Many such users.
#[derive(Debug)]
pub(super) struct Crowd {
    poll: Poll,
    users: Vec<Returning>,
    buffer: Vec<u8>,
    /// What everybody is sent last.
    last: Vec<u8>,
    done: usize,
    /// Lines that came, those with places not counted.
    pub(super) deliveries: u64,
    pub(super) bytes: u64,
}

impl Crowd {
    /// Nobody yet. They have everything when they have received the line `last`.
    pub(super) fn new(last: &str) -> Result<Crowd, String> {
        let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        Ok(Crowd {
            poll,
            users: Vec::new(),
            buffer: vec![0; READ_MAX],
            last: last.as_bytes().to_vec(),
            done: 0,
            deliveries: 0,
            bytes: 0,
        })
    }

    /// Connects one and sends its login line.
    pub(super) fn add(&mut self, address: SocketAddr, login: &str, rate: Option<f64>) -> Result<(), String> {
        let connect = || -> io::Result<Stream> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            if rate.is_some() {
                socket.set_recv_buffer_size(SLOW_RECEIVE_BUFFER)?;
            }
            socket.connect(&address.into())?;
            let mut stream = TcpStream::from(socket);
            stream.set_nodelay(true)?;
            stream.write_all(login.as_bytes())?;
            stream.set_nonblocking(true)?;
            let mut stream = Stream::from_std(stream);
            self.poll.registry().register(&mut stream, Token(self.users.len()), Interest::READABLE)?;
            Ok(stream)
        };
        let stream = connect().map_err(|error| format!("a user could not connect to {address}: {error}"))?;
        self.users.push(Returning { stream, tail: Vec::new(), rate, credit: 0.0, done: false });
        Ok(())
    }

    /// Reads until everybody has everything.
    pub(super) fn read_all(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(4096);
        let mut moved = Instant::now();
        while self.done < self.users.len() {
            let polled = self.poll.poll(&mut events, Some(Duration::from_millis(100)));
            polled.map_err(|error| format!("epoll: {error}"))?;
            for event in &events {
                let Token(index) = event.token();
                while self.read_one(index, READ_MAX)? > 0 {
                    moved = Instant::now();
                }
            }
            if moved.elapsed() > SILENCE {
                let missing = self.users.len() - self.done;
                return Err(format!("{missing} users that came back did not get everything"));
            }
        }
        Ok(())
    }

    /// Reads for a time, each as slowly as it does.
    pub(super) fn read_slowly(&mut self, go_on: &dyn Fn() -> bool) -> Result<(), String> {
        let mut last = Instant::now();
        while go_on() {
            std::thread::sleep(Duration::from_millis(5));
            let now = Instant::now();
            let seconds = now.duration_since(last).as_secs_f64();
            last = now;
            for index in 0..self.users.len() {
                let user = &mut self.users[index];
                let rate = user.rate.unwrap_or(f64::MAX);
                user.credit = (user.credit + rate * seconds).min(rate);
                let most = user.credit as usize;
                // As large a piece as a packet: who reads slowly does not read byte by byte.
                if most >= 1400 {
                    let got = self.read_one(index, most.min(READ_MAX))?;
                    self.users[index].credit -= got as f64;
                }
            }
        }
        Ok(())
    }

    /// Takes everything for a time, and does not look at it: what is received is not even copied. So this end leaves its core to others.
    pub(super) fn discard(&mut self, go_on: &dyn Fn() -> bool) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        while go_on() {
            let polled = self.poll.poll(&mut events, Some(Duration::from_millis(5)));
            polled.or_else(interrupted).map_err(|error| format!("epoll: {error}"))?;
            for event in &events {
                let Token(index) = event.token();
                while self.discard_one(index)? == READ_MAX {}
            }
        }
        Ok(())
    }

    fn discard_one(&mut self, index: usize) -> Result<usize, String> {
        match recv(&self.users[index].stream, &mut self.buffer[..], RecvFlags::TRUNC) {
            Ok((_, 0)) => Err("a user that came back was disconnected".into()),
            Ok((_, length)) => {
                self.bytes += length as u64;
                Ok(length)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(format!("a user that came back: {error}")),
        }
    }

    fn read_one(&mut self, index: usize, most: usize) -> Result<usize, String> {
        let user = &mut self.users[index];
        match user.stream.read(&mut self.buffer[..most]) {
            Ok(0) => Err("a user that came back was disconnected".into()),
            Ok(length) => {
                let got = &self.buffer[..length];
                self.bytes += length as u64;
                self.deliveries += memchr::memchr_iter(b'\n', got).count() as u64;
                if user.tail.is_empty() {
                    // The line with its place is the first.
                    self.deliveries -= 1;
                }
                user.tail.extend_from_slice(&got[length.saturating_sub(self.last.len())..]);
                let too_much = user.tail.len().saturating_sub(self.last.len());
                user.tail.drain(..too_much);
                if !user.done && user.tail == self.last {
                    user.done = true;
                    self.done += 1;
                }
                Ok(length)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(1),
            Err(error) => Err(format!("a user that came back: {error}")),
        }
    }
}

fn interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}
