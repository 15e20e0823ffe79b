//! `fortnight health`: asks a running server's admin interface whether it is well (SPEC section 6), for health checks
//! in places that have no other program, such as the container image.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs},
    str::FromStr,
    time::{Duration, Instant},
};

/// Longest time that a check takes, name look-ups aside.
const DEADLINE: Duration = Duration::from_secs(3);

/// Longest answer that is read, head and body.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Where an admin interface is, written as `http://HOST:PORT`, `HOST:PORT` or either with a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminUrl {
    /// A name, or an address, the latter without brackets.
    host: String,
    port: u16,
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
        Self { host: address.to_string(), port }
    }

    /// Connects to the first of the host's addresses that answers before `deadline`.
    ///
    /// # Errors
    ///
    /// What the system says about the last address that was tried.
    pub fn connect(&self, deadline: Instant) -> io::Result<TcpStream> {
        let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        for address in self.addresses()? {
            outcome = TcpStream::connect_timeout(&address, left(deadline)?);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// The addresses of the host, with the port, in the order in which they are to be tried.
    ///
    /// # Errors
    ///
    /// If the name cannot be looked up.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
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
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "http://[{host}]:{port}")
        } else {
            write!(f, "http://{host}:{port}")
        }
    }
}

impl FromStr for AdminUrl {
    type Err = ();

    /// Everything but a host and a port other than 0 is an error; there is no more to say about it.
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.strip_prefix("http://").unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        let port = port.parse().ok().filter(|&port| port != 0).ok_or(())?;
        if let Some(bracketed) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            let address: Ipv6Addr = bracketed.parse().map_err(drop)?;
            return Ok(Self { host: address.to_string(), port });
        }
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_name = !host.is_empty() && host.bytes().all(is_of_name);
        if is_name { Ok(Self { host: host.to_owned(), port }) } else { Err(()) }
    }
}

/// Asks for `/healthz` once, within three seconds. `Ok` has what a server that is well answers.
///
/// # Errors
///
/// One sentence that names the address and says why the server is not well, or not known to be.
pub fn check(admin: &AdminUrl) -> Result<String, String> {
    let answer = ask(admin, Instant::now() + DEADLINE).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("{admin}/healthz: no answer within {} s", DEADLINE.as_secs())
        }
        _ => format!("{admin}/healthz: {error}"),
    })?;
    let (status, body) = parse(&answer).ok_or_else(|| format!("{admin}/healthz: not an HTTP answer"))?;
    let body = printable(body);
    if status == 200 { Ok(body) } else { Err(format!("{admin}/healthz: status {status}: {body}")) }
}

fn ask(admin: &AdminUrl, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut stream = admin.connect(deadline)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let authority = admin.to_string();
    let authority = authority.trim_start_matches("http://");
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut stream = stream.take(ANSWER_BYTES_MAX);
    let mut buffer = [0; 4096];
    loop {
        stream.get_ref().set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The time until `deadline`, never zero: the socket calls take that for no limit.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The status and the body of an answer that ends with its connection.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    match head.parse(answer) {
        Ok(httparse::Status::Complete(length)) => Some((head.code?, &answer[length..])),
        _ => None,
    }
}

/// The first line of a body, as text that is safe to show.
fn printable(body: &[u8]) -> String {
    let line = body.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let text = String::from_utf8_lossy(&line[..line.len().min(200)]);
    text.chars().filter(|character| !character.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn url(text: &str) -> Option<String> {
        text.parse().ok().map(|url: AdminUrl| url.to_string())
    }

    #[test]
    fn urls_that_are_accepted() {
        for text in ["http://127.0.0.1:9095", "http://127.0.0.1:9095/", "127.0.0.1:9095"] {
            assert_eq!(url(text).as_deref(), Some("http://127.0.0.1:9095"));
        }
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
            "https://localhost:1",
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

    /// What a check says of a server that answers `answer` and closes, and the request that it got.
    fn check_against(answer: &'static [u8]) -> (Result<String, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(answer).unwrap();
            String::from_utf8(request).unwrap()
        });
        let outcome = check(&AdminUrl { host: "localhost".to_owned(), port });
        let outcome = outcome.map_err(|sentence| sentence.replace(&format!(":{port}"), ":PORT"));
        let request = server.join().unwrap().replace(&format!(":{port}"), ":PORT");
        (outcome, request)
    }

    #[test]
    fn well_is_status_200() {
        let (outcome, request) = check_against(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
        assert_eq!(outcome, Ok("ok".to_owned()));
        assert_eq!(request, "GET /healthz HTTP/1.1\r\nHost: localhost:PORT\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn anything_else_is_an_error_with_the_reason() {
        let (outcome, _) = check_against(b"HTTP/1.1 503 Service Unavailable\r\n\r\nring_full\x1b[2J\nmore");
        assert_eq!(outcome, Err("http://localhost:PORT/healthz: status 503: ring_full[2J".to_owned()));
        for answer in [&b"SSH-2.0-nothing\r\n"[..], b"", b"HTTP/1.1 200 OK\r\nX: "] {
            let (outcome, _) = check_against(answer);
            assert_eq!(outcome, Err("http://localhost:PORT/healthz: not an HTTP answer".to_owned()));
        }
    }

    #[test]
    fn nobody_there_is_an_error() {
        // Taken, but not listening.
        let taken = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let port = taken.local_addr().unwrap().as_socket().unwrap().port();
        let sentence = check(&AdminUrl::local(Ipv4Addr::LOCALHOST.into(), port)).unwrap_err();
        assert!(
            sentence.starts_with(&format!("http://127.0.0.1:{port}/healthz: Connection refused")),
            "{sentence}"
        );
    }

    #[test]
    fn a_server_that_never_answers_is_given_up_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = AdminUrl::local(Ipv4Addr::LOCALHOST.into(), listener.local_addr().unwrap().port());
        let error = ask(&admin, Instant::now() + Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
    }
}
