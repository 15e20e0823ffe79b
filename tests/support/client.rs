//! The server's clients: blocking sockets that compare what arrives byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::DEADLINE;
use crate::line::Line;
use crate::stream::excerpt;

/// Bytes that a narrow user's side of the connection asks to take in ahead of its reader.
const NARROW_WINDOW_BYTES: usize = 4096;

/// A connection to the users' port.
#[derive(Debug)]
pub struct User {
    stream: Line,
    /// Its name in messages of failed tests.
    pub name: String,
}

/// A connection to the event sources' port.
#[derive(Debug)]
pub struct Source {
    stream: Line,
}

impl User {
    pub(crate) fn connect(address: SocketAddr) -> User {
        User { stream: connect(address), name: "stranger".to_owned() }
    }

    pub(crate) fn connect_narrow(address: SocketAddr) -> User {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(NARROW_WINDOW_BYTES).expect("a small window");
        socket.connect(&address.into()).expect("a connection");
        let stream = Line::new(socket.into(), address).expect("a connection");
        User { stream, name: "stranger".to_owned() }
    }

    /// Writes bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Writes bytes, unless the server has closed the connection: then false.
    #[track_caller]
    pub fn offer(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        match self.stream.write_all(bytes.as_ref()) {
            Ok(()) => true,
            Err(error) if is_closed(error.kind()) => false,
            Err(error) => panic!("{}: {error}", self.name),
        }
    }

    /// Reads exactly the `wanted` bytes; anything else in their place fails at once.
    #[track_caller]
    pub fn expect(&mut self, wanted: impl AsRef<[u8]>) {
        let wanted = wanted.as_ref();
        let mut done = 0;
        while done < wanted.len() {
            match self.read_part_of(wanted, done) {
                Some(0) => panic!("{}: closed after {}", self.name, excerpt(wanted, done)),
                Some(length) => done += length,
                None => panic!("{}: nothing more came after {}", self.name, excerpt(wanted, done)),
            }
        }
    }

    /// Reads the bytes of `wanted` until all have come or none came for the length of `quiet`. Gives how many.
    #[track_caller]
    pub fn expect_until_quiet(&mut self, wanted: &[u8], quiet: Duration) -> usize {
        self.stream.set_read_timeout(Some(quiet)).expect("a read timeout");
        let mut done = 0;
        while done < wanted.len() {
            match self.read_part_of(wanted, done) {
                Some(0) => panic!("{}: closed after {}", self.name, excerpt(wanted, done)),
                Some(length) => done += length,
                None => break,
            }
        }
        self.stream.set_read_timeout(Some(DEADLINE)).expect("a read timeout");
        done
    }

    /// Reads some bytes. Gives how many: none at an orderly end. `None`: the connection has been reset.
    #[track_caller]
    pub fn read_some(&mut self, target: &mut [u8]) -> Option<usize> {
        match self.stream.read(target) {
            Ok(length) => Some(length),
            Err(error) if is_closed(error.kind()) => None,
            Err(error) => panic!("{}: {error}", self.name),
        }
    }

    /// Reads the `wanted` bytes, or as much of them as comes before the connection ends. Gives how much that is, and whether the
    /// connection is open.
    #[track_caller]
    pub fn expect_or_close(&mut self, wanted: &[u8]) -> (usize, bool) {
        let mut got = vec![0; wanted.len()];
        let mut done = 0;
        while done < wanted.len() {
            match self.stream.read(&mut got[done..]) {
                Ok(0) => return (done, false),
                Ok(length) => done += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_closed(error.kind()) => return (done, false),
                Err(error) => panic!("{}: {error} after {}", self.name, excerpt(wanted, done)),
            }
            assert!(wanted.starts_with(&got[..done]), "{}: not what was wanted", self.name);
        }
        (done, true)
    }

    /// Reads until what came ends with `end`. Gives all that came.
    #[track_caller]
    pub fn read_through(&mut self, end: impl AsRef<[u8]>) -> Vec<u8> {
        let mut got = Vec::new();
        let mut buffer = [0; 1 << 16];
        while !got.ends_with(end.as_ref()) {
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("{}: closed after {}", self.name, excerpt(&got, got.len())),
                Ok(length) => got.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{}: {error} after {}", self.name, excerpt(&got, got.len())),
            }
        }
        got
    }

    /// Reads one line, and nothing of what comes behind it.
    #[track_caller]
    pub fn read_line(&mut self) -> Vec<u8> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\n") {
            self.stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{}: {error}", self.name));
            line.extend(byte);
        }
        line
    }

    /// Expects that the server ends the connection in an orderly way, and nothing before.
    #[track_caller]
    pub fn expect_eof(&mut self) {
        let (rest, orderly) = self.read_to_close();
        assert!(rest.is_empty(), "{}: {} before the end", self.name, excerpt(&rest, rest.len()));
        assert!(orderly, "{}: reset instead of closed", self.name);
    }

    /// Expects that the server ends the connection, in whatever way, and nothing before.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let (rest, _) = self.read_to_close();
        assert!(rest.is_empty(), "{}: {} before the end", self.name, excerpt(&rest, rest.len()));
    }

    /// Reads until the connection ends: what came, and whether the end was an orderly one, not a reset.
    #[track_caller]
    pub fn read_to_close(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => (bytes, true),
            Err(error) if is_closed(error.kind()) => (bytes, false),
            Err(error) => panic!("{}: still open after {}: {error}", self.name, excerpt(&bytes, bytes.len())),
        }
    }

    /// The same connection once more, to read from it while something is being sent.
    #[track_caller]
    pub fn another_handle(&self) -> User {
        User { stream: self.stream.try_clone().expect("a second handle"), name: self.name.clone() }
    }

    /// This side's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().expect("an address")
    }

    /// Closes this side for writing, and leaves the other open.
    #[track_caller]
    pub fn finish(&mut self) {
        self.stream.finish().expect("a half-closed connection");
    }

    /// Vanishes: the connection ends with a reset.
    pub fn vanish(self) {
        reset(self.stream);
    }

    /// One read, compared with `wanted` from `done` on. `None`: nothing came in time.
    #[track_caller]
    fn read_part_of(&mut self, wanted: &[u8], done: usize) -> Option<usize> {
        let mut buffer = [0; 1 << 16];
        let room = buffer.len().min(wanted.len() - done);
        loop {
            match self.stream.read(&mut buffer[..room]) {
                Ok(length) => {
                    self.compare(wanted, done, &buffer[..length]);
                    return Some(length);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return None;
                }
                Err(error) => panic!("{}: {error} after {}", self.name, excerpt(wanted, done)),
            }
        }
    }

    #[track_caller]
    fn compare(&self, wanted: &[u8], done: usize, got: &[u8]) {
        let differ = got.iter().zip(&wanted[done..]).position(|(got, wanted)| got != wanted);
        if let Some(at) = differ {
            let from = got[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            let shown = |bytes: &[u8]| bytes[..bytes.len().min(120)].escape_ascii().to_string();
            panic!(
                "{}: differs {} bytes in\n     got: {}\nexpected: {}",
                self.name,
                done + at,
                shown(&got[from..]),
                shown(&wanted[done + from..])
            );
        }
    }
}

impl Source {
    pub(crate) fn connect(address: SocketAddr) -> Source {
        Source { stream: connect(address) }
    }

    /// Writes bytes: one packet if they are few.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("bytes sent by a source");
    }

    /// Writes bytes, unless the server has closed the connection: then false.
    #[track_caller]
    pub fn offer(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        match self.stream.write_all(bytes.as_ref()) {
            Ok(()) => true,
            Err(error) if is_closed(error.kind()) => false,
            Err(error) => panic!("a source: {error}"),
        }
    }

    /// Writes bytes from a thread of its own, for as long as the server takes to read them.
    ///
    /// The thread ends with an error if the server closes the connection.
    pub fn send_in_background(&self, bytes: Vec<u8>) -> JoinHandle<std::io::Result<()>> {
        let mut stream = self.stream.try_clone().expect("a second handle");
        std::thread::spawn(move || stream.write_all(&bytes))
    }

    /// Reads one acknowledgement, ended by `end`: the epoch and the number (docs/SPEC.md section 9).
    #[track_caller]
    pub fn acknowledgement(&mut self, end: &str) -> (String, u128) {
        let line = self.line().expect("an acknowledgement, not the end of the connection");
        let words: Vec<&str> =
            line.strip_suffix(end).unwrap_or_else(|| panic!("end of {line:?}")).split('|').collect();
        let ["+", epoch, number] = words[..] else { panic!("{line:?} is no acknowledgement") };
        assert!(
            epoch.len() == 16 && epoch.bytes().all(|byte| b"0123456789abcdef".contains(&byte)),
            "{line:?}"
        );
        (epoch.to_owned(), number.parse().unwrap_or_else(|_| panic!("{line:?} has no number")))
    }

    /// Reads acknowledgements, each ended by LF, until one names `number`; they must grow. Gives the epoch.
    #[track_caller]
    pub fn acknowledged(&mut self, number: u128) -> String {
        let mut last = None;
        loop {
            let (epoch, at) = self.acknowledgement("\n");
            assert!(last.replace(at).is_none_or(|last| last < at) && at <= number, "{at} after {last:?}");
            if at == number {
                return epoch;
            }
        }
    }

    /// Reads one line, its end included; `None` where the connection ends instead.
    #[track_caller]
    pub fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while line.last() != Some(&b'\n') {
            match self.stream.read(&mut byte) {
                Ok(0) => return None,
                Ok(_) => line.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_closed(error.kind()) => return None,
                Err(error) => panic!("a source: {error} after {:?}", String::from_utf8_lossy(&line)),
            }
        }
        Some(String::from_utf8(line).expect("a line of text"))
    }

    /// Closes this side for writing, and leaves the other open.
    #[track_caller]
    pub fn half_close(&mut self) {
        self.stream.finish().expect("a half-closed connection");
    }

    /// Disconnects, and returns when the server has closed its side too. It must have sent nothing ever.
    #[track_caller]
    pub fn finish(self) {
        self.stream.finish().expect("a half-closed connection");
        self.expect_eof();
    }

    /// Expects that the server ends the connection in an orderly way, and has sent nothing ever.
    #[track_caller]
    pub fn expect_eof(mut self) {
        let mut got = Vec::new();
        self.stream.read_to_end(&mut got).expect("the end of the connection");
        assert!(got.is_empty(), "a source was sent {}", excerpt(&got, got.len()));
    }

    /// Expects that the server ends the connection, in whatever way, and has sent nothing ever.
    #[track_caller]
    pub fn expect_closed(mut self) {
        let mut got = Vec::new();
        match self.stream.read_to_end(&mut got) {
            Ok(_) => {}
            Err(error) => assert!(is_closed(error.kind()), "a source that should be closed: {error}"),
        }
        assert!(got.is_empty(), "a source was sent {}", excerpt(&got, got.len()));
    }

    /// Vanishes: the connection ends with a reset.
    pub fn vanish(self) {
        reset(self.stream);
    }
}

#[track_caller]
fn connect(address: SocketAddr) -> Line {
    Line::connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
}

/// Has the kernel send a reset.
fn reset(line: Line) {
    SockRef::from(&line.into_socket()).set_linger(Some(Duration::ZERO)).expect("a reset on close");
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}
