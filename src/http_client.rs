//! The HTTP client of the subcommands that ask a running server: `fortnight health` and `fortnight top`.

use crate::door;
use mio::net::TcpStream;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use rustls::ClientConnection;
use std::{
    collections::VecDeque,
    fmt,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

/// Longest time that an answer may take, name look-ups aside.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Where an admin interface is, written as `http://HOST:PORT`, `https://HOST:PORT`, `HOST:PORT` or one of them with a slash at the
/// end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminUrl {
    /// A name, or an address, the latter without brackets.
    host: String,
    port: u16,
    is_tls: bool,
    /// The file with the authority that is trusted for it. TLS is spoken with it only.
    tls_ca: Option<PathBuf>,
}

impl AdminUrl {
    /// The admin interface that listens on `address`, as seen from the same machine: one that listens on every
    /// address is asked on the loopback address.
    #[must_use]
    pub fn local(address: IpAddr, port: u16) -> Self {
        let address = match address {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            specific => specific,
        };
        Self { host: address.to_string(), port, is_tls: false, tls_ca: None }
    }

    /// The same interface over TLS, where the authority in this file is trusted.
    #[must_use]
    pub(crate) fn trusting(self, authority: PathBuf) -> Self {
        Self { is_tls: true, tls_ca: Some(authority), ..self }
    }

    /// Whether TLS is to be spoken, and nobody has said whom to trust.
    #[must_use]
    pub fn lacks_authority(&self) -> bool {
        self.is_tls && self.tls_ca.is_none()
    }

    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// The addresses of the host, with the port, in the order in which they are tried.
    ///
    /// # Errors
    ///
    /// If the name cannot be looked up.
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        // Not looked up: there may be no list of names at all, as in an empty image.
        if self.host == "localhost" {
            let addresses = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
            return Ok(addresses.map(|address| (address, self.port).into()).to_vec());
        }
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority())
    }
}

impl FromStr for AdminUrl {
    type Err = ();

    /// Everything but a host and a port other than 0 is an error, without further reasons.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (is_tls, text) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://").unwrap_or(text)),
        };
        let text = text.strip_suffix('/').unwrap_or(text);
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        let port = port.parse().ok().filter(|&port| port != 0).ok_or(())?;
        if let Some(bracketed) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            let address: Ipv6Addr = bracketed.parse().map_err(drop)?;
            return Ok(Self { host: address.to_string(), port, is_tls, tls_ca: None });
        }
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_name = !host.is_empty() && host.bytes().all(is_of_name);
        if is_name { Ok(Self { host: host.to_owned(), port, is_tls, tls_ca: None }) } else { Err(()) }
    }
}

/// A question to an admin interface that never waits: [`Fetch::step`] goes on as far as the socket lets it.
#[derive(Debug)]
pub struct Fetch {
    /// What is asked for.
    pub path: String,
    admin: AdminUrl,
    request: Vec<u8>,
    /// Those that have not been tried.
    addresses: VecDeque<SocketAddr>,
    connection: Option<Connection>,
    /// Why the last one failed.
    failure: String,
    deadline: Instant,
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status: 200 for all that is well.
    pub status: u16,
    /// What follows the head.
    pub body: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    tls: Option<ClientConnection>,
    sent: usize,
    answer: Vec<u8>,
}

impl Fetch {
    /// Asks for `path`. A name is looked up here and now.
    pub fn new(admin: &AdminUrl, path: &str, now: Instant) -> Self {
        let authority = admin.authority();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        let mut failure = "the name has no address".to_owned();
        let addresses = admin.addresses().unwrap_or_else(|error| {
            failure = error.to_string();
            Vec::new()
        });
        Self {
            path: path.to_owned(),
            admin: admin.clone(),
            request: request.into_bytes(),
            addresses: addresses.into(),
            connection: None,
            failure,
            deadline: now + PATIENCE,
        }
    }

    /// Goes on. Returns the answer, or the reason why there is none, once it is known.
    pub fn step(&mut self, now: Instant) -> Option<Result<Answer, String>> {
        if now >= self.deadline {
            return Some(Err(format!("no answer within {} s", PATIENCE.as_secs())));
        }
        loop {
            let Some(connection) = &mut self.connection else {
                let Some(address) = self.addresses.pop_front() else {
                    return Some(Err(std::mem::take(&mut self.failure)));
                };
                match Connection::open(address, &self.admin) {
                    Ok(connection) => self.connection = Some(connection),
                    Err(reason) => self.failure = reason,
                }
                continue;
            };
            match connection.exchange(&self.request) {
                Ok(()) => return Some(parse(&connection.answer)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A connection that is being made says one or the other.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return None;
                }
                // Another address is no better: it is the same server, and is not trusted, or makes no sense.
                Err(error) if error.kind() == ErrorKind::InvalidData => return Some(Err(error.to_string())),
                Err(error) => {
                    self.failure = error.to_string();
                    self.connection = None;
                }
            }
        }
    }

    /// Waits until [`Fetch::step`] can go on, or until it gives up.
    fn wait(&self, now: Instant) -> io::Result<()> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let sent = connection.sent == self.request.len();
        let flags = match &connection.tls {
            Some(tls) if tls.wants_write() => PollFlags::IN | PollFlags::OUT,
            Some(_) => PollFlags::IN,
            None if sent => PollFlags::IN,
            None => PollFlags::OUT,
        };
        let left = self.deadline.saturating_duration_since(now);
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&connection.stream, flags)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Asks for `path`, and waits for the answer.
///
/// # Errors
///
/// Why there is none. It takes no longer than three seconds, name look-ups aside.
pub fn ask(admin: &AdminUrl, path: &str) -> Result<Answer, String> {
    let mut fetch = Fetch::new(admin, path, Instant::now());
    loop {
        if let Some(outcome) = fetch.step(Instant::now()) {
            return outcome;
        }
        fetch.wait(Instant::now()).map_err(|error| error.to_string())?;
    }
}

impl Connection {
    /// Begins to connect.
    fn open(address: SocketAddr, admin: &AdminUrl) -> Result<Self, String> {
        let tls = match &admin.tls_ca {
            None => None,
            Some(authority) => {
                let config = door::client_config("--tls-ca", authority)?;
                let name = door::server_name(&admin.host).map_err(|error| error.to_string())?;
                Some(ClientConnection::new(config, name).map_err(|error| error.to_string())?)
            }
        };
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        Ok(Self { stream, tls, sent: 0, answer: Vec::new() })
    }

    /// Sends what has not been sent, then reads to the end.
    fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        let Self { stream, tls, sent, answer } = self;
        match tls {
            None => exchange(stream, request, sent, answer),
            Some(tls) => exchange(&mut rustls::Stream::new(tls, stream), request, sent, answer),
        }
    }
}

/// Sends what of the request has not been sent, then reads to the end.
fn exchange(
    stream: &mut (impl Read + Write),
    request: &[u8],
    sent: &mut usize,
    answer: &mut Vec<u8>,
) -> io::Result<()> {
    while *sent < request.len() {
        *sent += stream.write(&request[*sent..])?;
    }
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            len if answer.len() + len > ANSWER_BYTES_MAX => {
                return Err(io::Error::new(ErrorKind::InvalidData, "the answer is too long"));
            }
            len => answer.extend_from_slice(&buffer[..len]),
        }
    }
}

/// An answer that ends with its connection.
fn parse(answer: &[u8]) -> Result<Answer, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    match (head.parse(answer), head.code) {
        (Ok(httparse::Status::Complete(len)), Some(status)) => {
            Ok(Answer { status, body: answer[len..].to_vec() })
        }
        _ => Err("not an HTTP answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead, BufReader},
        net::TcpListener,
        thread,
    };

    fn url(text: &str) -> Option<String> {
        text.parse().ok().map(|url: AdminUrl| url.to_string())
    }

    #[test]
    fn urls_that_are_accepted() {
        for text in ["http://127.0.0.1:9095", "http://127.0.0.1:9095/", "127.0.0.1:9095"] {
            assert_eq!(url(text).as_deref(), Some("http://127.0.0.1:9095"));
        }
        assert_eq!(url("https://localhost:1/").as_deref(), Some("https://localhost:1"));
        assert_eq!(url("[0::1]:80").as_deref(), Some("http://[::1]:80"));
        assert_eq!(
            url("http://fortnight-1.example:9095").as_deref(),
            Some("http://fortnight-1.example:9095")
        );
    }

    #[test]
    fn urls_that_are_refused() {
        for text in [
            "",
            "http://",
            "localhost",
            "https:/localhost:1",
            "localhost:0",
            "localhost:65536",
            "localhost:1/healthz",
            ":9095",
            "::1:9095",
            "[::1:9095",
            "[nine]:9095",
            "a\r\nb:1",
            "user@host:1",
        ] {
            assert_eq!(url(text), None, "{text}");
        }
    }

    #[test]
    fn an_interface_that_listens_everywhere_is_asked_on_loopback() {
        let local = |address: &str| AdminUrl::local(address.parse().unwrap(), 7).to_string();
        assert_eq!(local("0.0.0.0"), "http://127.0.0.1:7");
        assert_eq!(local("::"), "http://[::1]:7");
        assert_eq!(local("192.0.2.7"), "http://192.0.2.7:7");
    }

    fn at(listener: &TcpListener) -> AdminUrl {
        format!("localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap()
    }

    /// The result of asking a server that answers `answer`, and the request that it receives.
    fn outcome(answer: &'static [u8]) -> (Result<Answer, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = at(&listener);
        let server = thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                stream.read_line(&mut request).unwrap();
            }
            stream.get_mut().write_all(answer).unwrap();
            request
        });
        let outcome = ask(&admin, "/path");
        let request = server.join().unwrap().replace(&admin.port.to_string(), "PORT");
        (outcome, request)
    }

    #[test]
    fn answers_are_told() {
        let (answer, request) = outcome(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody");
        assert_eq!(answer, Ok(Answer { status: 200, body: b"body".to_vec() }));
        assert_eq!(request, "GET /path HTTP/1.1\r\nHost: localhost:PORT\r\nConnection: close\r\n\r\n");
        let (answer, _) = outcome(b"HTTP/1.1 404 Not Found\r\n\r\n");
        assert_eq!(answer, Ok(Answer { status: 404, body: Vec::new() }));
        for answer in [&b"SSH-2.0-nothing\r\n"[..], b"", b"HTTP/1.1 200 OK\r\nX: "] {
            assert_eq!(outcome(answer).0, Err("not an HTTP answer".to_owned()));
        }
    }

    #[test]
    fn a_refused_connection_is_named() {
        // Taken, but not listening.
        let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let port = taken.local_addr().unwrap().as_socket().unwrap().port();
        let sentence = ask(&AdminUrl::local(Ipv4Addr::LOCALHOST.into(), port), "/").unwrap_err();
        assert!(sentence.starts_with("Connection refused"), "{sentence}");
    }

    #[test]
    fn patience_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let began = Instant::now();
        let mut fetch = Fetch::new(&at(&listener), "/", began);
        assert!(fetch.step(began).is_none());
        assert_eq!(fetch.step(began + PATIENCE), Some(Err("no answer within 3 s".to_owned())));
    }
}
