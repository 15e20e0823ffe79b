//! A client of the admin interface.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use crate::line::Line;
use crate::{DEADLINE, Server};

/// A connection to the admin interface.
#[derive(Debug)]
pub struct AdminClient {
    stream: Line,
    /// What has been read and belongs to the next answer.
    rest: Vec<u8>,
}

/// An answer of the admin interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header lines, joined by line ends.
    pub headers: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The value of a header, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &str| line.split_once(": ").is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.headers.lines().find(|line| named(line))?.split_once(": ").map(|(_, value)| value)
    }
}

impl AdminClient {
    /// Connects to an admin interface.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> AdminClient {
        let stream = Line::connect(address).expect("a connection to the admin interface");
        AdminClient { stream, rest: Vec::new() }
    }

    /// Writes bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("a request sent");
    }

    /// Writes bytes, unless the server has closed the connection: then false.
    pub fn offer(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Closes this side for writing.
    pub fn finish(&mut self) {
        self.stream.finish().expect("a half-closed connection");
    }

    /// Reads one answer, to a request that was not HEAD.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.read_answer(true)
    }

    /// Reads one answer to HEAD.
    #[track_caller]
    pub fn head(&mut self) -> Answer {
        self.read_answer(false)
    }

    #[track_caller]
    fn read_answer(&mut self, with_body: bool) -> Answer {
        let end = loop {
            match self.rest.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end,
                None => assert!(self.read(), "closed within a head: {}", self.rest.escape_ascii()),
            }
        };
        let head = String::from_utf8(self.rest.drain(..end + 4).collect()).expect("a head of text");
        let (line, headers) = head.split_once("\r\n").expect("a status line");
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect("HTTP/1.1");
        let mut answer = Answer {
            status: status.parse().expect("a status"),
            headers: headers.trim_end().replace("\r\n", "\n"),
            body: String::new(),
        };
        let length = answer.header("Content-Length").expect("a length").parse::<usize>().expect("a number");
        if with_body {
            while self.rest.len() < length {
                assert!(self.read(), "closed within a body");
            }
            answer.body = String::from_utf8(self.rest.drain(..length).collect()).expect("a body of text");
        }
        answer
    }

    /// Expects that the server ends the connection, in an orderly way, and sends nothing before.
    #[track_caller]
    pub fn expect_eof(&mut self) {
        while self.read() {}
        assert!(self.rest.is_empty(), "{} before the end", self.rest.escape_ascii());
    }

    #[track_caller]
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let length = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                length => break length.expect("bytes from the admin interface"),
            }
        };
        self.rest.extend_from_slice(&buffer[..length]);
        length > 0
    }
}

impl Server {
    /// Where the admin interface is.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[track_caller]
    pub fn admin(&self) -> SocketAddr {
        let mut words = self.ready.split_whitespace();
        let admin = words.find_map(|word| word.strip_prefix("admin="));
        admin.expect("a line that says where the server listens").parse().expect("a server with adminPort")
    }

    /// Asks the admin interface, on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        let mut client = AdminClient::connect(self.admin());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        let answer = client.answer();
        client.expect_eof();
        answer
    }

    /// All metrics, by name and labels as they are written.
    #[track_caller]
    pub fn metrics(&self) -> HashMap<String, f64> {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200);
        let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
        let parse = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        };
        lines.map(parse).collect()
    }

    /// One metric.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        *self.metrics().get(name).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Waits until a metric is what is wanted.
    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let value = self.metric(name);
            if wanted(value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{name} stays at {value}");
        }
    }
}
