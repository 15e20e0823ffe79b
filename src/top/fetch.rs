//! A question to the admin interface that never waits: [`Fetch::step`] goes on as far as the socket lets it.

use fortnight::health::AdminUrl;
use mio::net::TcpStream;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Longest time that an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// See the [module](self).
pub(super) struct Fetch {
    /// What is asked for.
    pub(super) path: &'static str,
    request: Vec<u8>,
    /// Those that have not been tried.
    addresses: VecDeque<SocketAddr>,
    connection: Option<Connection>,
    /// Why the last one failed.
    failure: String,
    deadline: Instant,
}

struct Connection {
    stream: TcpStream,
    sent: usize,
    answer: Vec<u8>,
}

impl Fetch {
    /// Asks for `path`. A name is looked up here and now.
    pub(super) fn new(admin: &AdminUrl, path: &'static str, now: Instant) -> Self {
        let authority = admin.to_string();
        let authority = authority.trim_start_matches("http://");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        let mut failure = "the name has no address".to_owned();
        let addresses = admin.addresses().unwrap_or_else(|error| {
            failure = error.to_string();
            Vec::new()
        });
        Self {
            path,
            request: request.into_bytes(),
            addresses: addresses.into(),
            connection: None,
            failure,
            deadline: now + PATIENCE,
        }
    }

    /// Goes on. Gives the body of the answer, or why there is none, once that is known.
    pub(super) fn step(&mut self, now: Instant) -> Option<Result<Vec<u8>, String>> {
        if now >= self.deadline {
            return Some(Err(format!("no answer within {} s", PATIENCE.as_secs())));
        }
        loop {
            let Some(connection) = &mut self.connection else {
                let Some(address) = self.addresses.pop_front() else {
                    return Some(Err(std::mem::take(&mut self.failure)));
                };
                match TcpStream::connect(address) {
                    Ok(stream) => self.connection = Some(Connection { stream, sent: 0, answer: Vec::new() }),
                    Err(error) => self.failure = error.to_string(),
                }
                continue;
            };
            match connection.exchange(&self.request) {
                Ok(()) => return Some(body(&connection.answer)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A connection that is being made says one or the other.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return None;
                }
                Err(error) => {
                    self.failure = error.to_string();
                    self.connection = None;
                }
            }
        }
    }
}

impl Connection {
    /// Sends what has not been sent, then reads to the end.
    fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        while self.sent < request.len() {
            self.sent += self.stream.write(&request[self.sent..])?;
        }
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer)? {
                0 => return Ok(()),
                len if self.answer.len() + len > ANSWER_BYTES_MAX => {
                    return Err(io::Error::new(ErrorKind::InvalidData, "the answer is too long"));
                }
                len => self.answer.extend_from_slice(&buffer[..len]),
            }
        }
    }
}

/// The body of an answer that has all of it.
fn body(answer: &[u8]) -> Result<Vec<u8>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    match (head.parse(answer), head.code) {
        (Ok(httparse::Status::Complete(len)), Some(200)) => Ok(answer[len..].to_vec()),
        (Ok(httparse::Status::Complete(_)), Some(code)) => Err(format!("it answers with status {code}")),
        _ => Err("what answers is no HTTP server".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::BufRead, io::BufReader, net::TcpListener, thread};

    /// What comes of asking somebody who answers `answer`.
    fn outcome(answer: &'static [u8]) -> Result<Vec<u8>, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                stream.read_line(&mut line).unwrap();
            }
            stream.get_mut().write_all(answer).unwrap();
        });
        let outcome = ask(&format!("localhost:{port}"));
        server.join().unwrap();
        outcome
    }

    fn ask(url: &str) -> Result<Vec<u8>, String> {
        let mut fetch = Fetch::new(&url.parse().unwrap(), "/", Instant::now());
        loop {
            if let Some(outcome) = fetch.step(Instant::now()) {
                return outcome;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn what_is_answered_is_told() {
        assert_eq!(outcome(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody"), Ok(b"body".to_vec()));
        assert_eq!(outcome(b"HTTP/1.1 404 Not Found\r\n\r\n"), Err("it answers with status 404".to_owned()));
        assert_eq!(outcome(b"SSH-2.0\r\n"), Err("what answers is no HTTP server".to_owned()));
        assert_eq!(outcome(b""), Err("what answers is no HTTP server".to_owned()));
    }

    #[test]
    fn nobody_there_is_told() {
        // Taken, but not listening.
        let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let port = taken.local_addr().unwrap().as_socket().unwrap().port();
        assert!(ask(&format!("127.0.0.1:{port}")).unwrap_err().contains("refused"));
    }

    #[test]
    fn patience_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        let began = Instant::now();
        let mut fetch = Fetch::new(&url.parse().unwrap(), "/", began);
        assert!(fetch.step(began).is_none());
        assert_eq!(fetch.step(began + PATIENCE), Some(Err("no answer within 3 s".to_owned())));
    }
}
