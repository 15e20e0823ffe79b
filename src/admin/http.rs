//! The part of HTTP/1.1 (RFC 9112) that is needed to answer GET and HEAD.

use super::hosts::Hosts;
use httparse::Error;

/// Longest request head. The input buffer of a connection is never longer.
pub(crate) const HEAD_BYTES_MAX: usize = 8192;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;

/// The resources of the admin interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// `/`
    Page,
    /// `/metrics`
    Metrics,
    /// `/healthz`
    Health,
    /// `/leader`
    Leader,
    /// `/status.json`: what the status page and `fortnight top` show.
    Status,
    /// `/history.json`: the last minutes, for the page's charts.
    History,
    /// `/clients.json`: all connections, a page at a time, for `fortnight clients`.
    Clients {
        /// The place at which the page begins: `?from=NUMBER`.
        from: usize,
    },
}

impl Resource {
    fn at(path: &str, query: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Health,
            "/leader" => Self::Leader,
            "/status.json" => Self::Status,
            "/history.json" => Self::History,
            "/clients.json" => {
                let from = query.split('&').find_map(|pair| pair.strip_prefix("from="));
                Self::Clients { from: from.and_then(|from| from.parse().ok()).unwrap_or(0) }
            }
            _ => return None,
        })
    }
}

/// The status of the answer to a request, by its name in RFC 9110.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok = 200,
    BadRequest = 400,
    NotFound = 404,
    MethodNotAllowed = 405,
    ContentTooLarge = 413,
    MisdirectedRequest = 421,
    RequestHeaderFieldsTooLarge = 431,
    ServiceUnavailable = 503,
    HttpVersionNotSupported = 505,
}

impl Status {
    fn phrase(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::BadRequest => "Bad Request",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::ContentTooLarge => "Content Too Large",
            Self::MisdirectedRequest => "Misdirected Request",
            Self::RequestHeaderFieldsTooLarge => "Request Header Fields Too Large",
            Self::ServiceUnavailable => "Service Unavailable",
            Self::HttpVersionNotSupported => "HTTP Version Not Supported",
        }
    }

    /// The body of a refusal: it says what is accepted.
    #[must_use]
    pub(crate) fn sentence(self) -> String {
        let accepted = match self {
            Self::Ok => "",
            Self::BadRequest => "expected a request of HTTP/1.1, with one Host header",
            Self::NotFound => "expected /, /metrics, /healthz, /status.json, /history.json or /clients.json",
            Self::MethodNotAllowed => "expected GET or HEAD",
            Self::ContentTooLarge => "expected a request without a body",
            Self::MisdirectedRequest => {
                "expected an address, localhost or one of adminHosts as the host that is asked"
            }
            Self::RequestHeaderFieldsTooLarge => "expected at most 8192 bytes and 64 headers",
            Self::ServiceUnavailable => "too many connections; try again",
            Self::HttpVersionNotSupported => "expected HTTP/1.1 or HTTP/1.0",
        };
        format!("{} {}: {accepted}\n", self as u16, self.phrase())
    }
}

/// A request whose head has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Bytes of the head; the next request begins after them.
    pub len: usize,
    /// The requested resource, or the reason for the refusal.
    pub resource: Result<Resource, Status>,
    /// Only the head of the answer is wanted.
    pub head_only: bool,
    /// The connection ends with the answer.
    pub close: bool,
}

impl Request {
    /// A request that is refused unread.
    #[must_use]
    pub(crate) fn refused(status: Status) -> Self {
        Self { len: 0, resource: Err(status), head_only: false, close: true }
    }

    /// Reads the head at the start of `input`, and judges which host it asks; `None` if its end has not arrived yet.
    #[must_use]
    pub(crate) fn read(input: &[u8], accepted: &Hosts) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut headers);
        match head.parse(&input[..input.len().min(HEAD_BYTES_MAX)]) {
            Ok(httparse::Status::Complete(len)) => Some(Self::of(&head, len, accepted)),
            Ok(httparse::Status::Partial) if input.len() < HEAD_BYTES_MAX => None,
            Ok(httparse::Status::Partial) | Err(Error::TooManyHeaders) => {
                Some(Self::refused(Status::RequestHeaderFieldsTooLarge))
            }
            Err(Error::Version) if names_a_version(input) => {
                Some(Self::refused(Status::HttpVersionNotSupported))
            }
            Err(_) => Some(Self::refused(Status::BadRequest)),
        }
    }

    fn of(head: &httparse::Request<'_, '_>, len: usize, accepted: &Hosts) -> Self {
        let values = |name: &'static str| {
            let named = head.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
            named.map(|header| header.value.trim_ascii())
        };
        let old = head.version == Some(0);
        let hosts = values("host").count();
        let (authority, path, query) = parts_of(head.path.unwrap_or_default());
        // No browser leaves the header out. Of a target in absolute form, both must be right.
        let misdirected =
            !values("host").chain(authority.map(str::as_bytes)).all(|host| accepted.accept(host));
        // GET and HEAD have no use for a body, so none is ever read.
        let body = values("transfer-encoding").next().is_some()
            || values("content-length").any(|value| value.iter().any(|&byte| byte != b'0'));
        let asks_to_close = values("connection")
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
        let method = head.method.unwrap_or_default();
        let bad_length =
            values("content-length").any(|value| value.is_empty() || !value.iter().all(u8::is_ascii_digit));
        let resource = if hosts > 1 || (hosts == 0 && !old) || bad_length {
            Err(Status::BadRequest)
        } else if misdirected {
            Err(Status::MisdirectedRequest)
        } else if !["GET", "HEAD"].contains(&method) {
            Err(Status::MethodNotAllowed)
        } else if body {
            Err(Status::ContentTooLarge)
        } else {
            Resource::at(path, query).ok_or(Status::NotFound)
        };
        let close = old || asks_to_close || body || resource == Err(Status::BadRequest);
        Self { len, resource, head_only: method == "HEAD", close }
    }
}

/// Path and query of a request target in origin form; before them the host in absolute form, as a proxy gets it (RFC 9112, 3.2).
fn parts_of(target: &str) -> (Option<&str>, &str, &str) {
    let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"));
    let (authority, target) = match scheme {
        None => (None, target),
        Some(_) => {
            let after = &target[7..];
            let end = after.find(['/', '?']).unwrap_or(after.len());
            (Some(&after[..end]), &after[end..])
        }
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_root = path.is_empty() && (authority.is_some() || target.starts_with('?'));
    (authority, if is_root { "/" } else { path }, query)
}

/// Whether the request line ends in the name of some version of HTTP, and the request is not just garbage.
fn names_a_version(input: &[u8]) -> bool {
    let line = input.trim_ascii_start().split(|&byte| byte == b'\r' || byte == b'\n').next();
    let version = line.and_then(|line| line.rsplit(|&byte| byte == b' ').next()).unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// An answer as it goes over the wire. `headers` are lines of their own, each with its end.
#[must_use]
pub(crate) fn respond(
    request: &Request,
    status: Status,
    content_type: &str,
    headers: &str,
    body: &str,
) -> Vec<u8> {
    let allow = if status == Status::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
    let connection = if request.close { "Connection: close\r\n" } else { "" };
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n{headers}{allow}{connection}\r\n",
        status as u16,
        status.phrase(),
        body.len(),
    );
    if !request.head_only {
        answer.push_str(body);
    }
    answer.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a request of the given lines.
    fn read(lines: &[&str]) -> Request {
        let head = lines.join("\r\n") + "\r\n\r\n";
        for end in 0..head.len() - 1 {
            let early = Request::read(&head.as_bytes()[..end], &Hosts::any());
            assert!(early.is_none_or(|request| request.resource.is_err()), "{end} of {head}");
        }
        Request::read(head.as_bytes(), &Hosts::any()).unwrap()
    }

    #[test]
    fn every_resource_has_its_path() {
        for (target, resource) in [
            ("/", Resource::Page),
            ("/?a=b", Resource::Page),
            ("/metrics", Resource::Metrics),
            ("/metrics?", Resource::Metrics),
            ("/healthz?/metrics", Resource::Health),
            ("/status.json", Resource::Status),
            ("/history.json", Resource::History),
            ("/clients.json", Resource::Clients { from: 0 }),
            ("/clients.json?a=b&from=1000", Resource::Clients { from: 1000 }),
            ("/clients.json?from=x", Resource::Clients { from: 0 }),
            ("http://a:9095/metrics?x", Resource::Metrics),
            ("HTTP://a", Resource::Page),
            ("http://a?x", Resource::Page),
        ] {
            let line = format!("GET {target} HTTP/1.1");
            assert_eq!(read(&[&line, "Host: a"]).resource, Ok(resource), "{target}");
        }
        for target in ["/metrics/", "//", "/Metrics", "/%6detrics", "metrics", "*", "/healthz#a", "http:///x"]
        {
            let line = format!("GET {target} HTTP/1.1");
            assert_eq!(read(&[&line, "Host: a"]).resource, Err(Status::NotFound), "{target}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases: &[(&[&str], Status, bool)] = &[
            (&["GET / HTTP/1.1"], Status::BadRequest, true),
            (&["GET / HTTP/1.1", "Host: a", "host: b"], Status::BadRequest, true),
            (&["GET / HTTP/1.1", "Host : a"], Status::BadRequest, true),
            (&["GET / HTTP/1.1", "Host: a", "Content-Length: -1"], Status::BadRequest, true),
            (&["GET / HTTP/1.1", "Host: a", "Content-Length:"], Status::BadRequest, true),
            (&["GET  HTTP/1.1", "Host: a"], Status::BadRequest, true),
            (&["GET /"], Status::BadRequest, true),
            (&["GET / HTTP/11"], Status::BadRequest, true),
            (&["GET / HTTP/2.0", "Host: a"], Status::HttpVersionNotSupported, true),
            (&["GET / HTTP/1.2", "Host: a"], Status::HttpVersionNotSupported, true),
            (&["POST / HTTP/1.1", "Host: a"], Status::MethodNotAllowed, false),
            (&["OPTIONS * HTTP/1.1", "Host: a"], Status::MethodNotAllowed, false),
            (&["POST /x HTTP/1.1", "Host: a", "Content-Length: 3"], Status::MethodNotAllowed, true),
            (&["GET / HTTP/1.1", "Host: a", "Content-Length: 3"], Status::ContentTooLarge, true),
            (&["GET / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked"], Status::ContentTooLarge, true),
            (&["GET /x HTTP/1.1", "Host: a"], Status::NotFound, false),
        ];
        for (lines, status, close) in cases {
            let request = read(lines);
            assert_eq!((request.resource, request.close), (Err(*status), *close), "{lines:?}");
        }
    }

    #[test]
    fn the_connection_stays_open_unless_the_client_wants_it_closed() {
        assert!(!read(&["GET / HTTP/1.1", "Host: a"]).close);
        assert!(!read(&["GET / HTTP/1.1", "Host: a", "Connection: keep-alive"]).close);
        assert!(!read(&["GET / HTTP/1.1", "Host: a", "Content-Length: 0"]).close);
        assert!(read(&["GET / HTTP/1.1", "Host: a", "Connection: x,  CLOSE"]).close);
        assert!(read(&["GET / HTTP/1.0"]).close);
        assert!(read(&["GET / HTTP/1.0", "Connection: keep-alive"]).close);
    }

    #[test]
    fn a_head_ends_where_the_next_begins() {
        let one = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(Request::read(one.repeat(2).as_bytes(), &Hosts::any()).unwrap().len, one.len());
        let bare = "\nHEAD / HTTP/1.1\nHost: a\n\n";
        let request = Request::read(bare.as_bytes(), &Hosts::any()).unwrap();
        assert_eq!((request.len, request.head_only), (bare.len(), true));
    }

    #[test]
    fn heads_are_limited() {
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
        head.resize(HEAD_BYTES_MAX - 4, b'x');
        head.extend_from_slice(b"\r\n\r\n");
        assert_eq!(Request::read(&head, &Hosts::any()).unwrap().resource, Ok(Resource::Page));
        head.insert(40, b'x');
        let refused = Some(Request::refused(Status::RequestHeaderFieldsTooLarge));
        assert_eq!(Request::read(&head, &Hosts::any()), refused);
        let many = "A: b\r\n".repeat(HEADERS_MAX);
        assert_eq!(
            Request::read(format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n").as_bytes(), &Hosts::any()),
            refused
        );
        assert_eq!(Request::read(&[b'\n'; HEAD_BYTES_MAX], &Hosts::any()), refused);
    }

    #[test]
    fn an_answer_to_head_is_the_head_of_the_answer_to_get() {
        let get = read(&["GET / HTTP/1.1", "Host: a"]);
        let head = read(&["HEAD / HTTP/1.1", "Host: a"]);
        let full = respond(&get, Status::Ok, "text/plain", "", "body");
        assert_eq!(respond(&head, Status::Ok, "text/plain", "", "body"), full[..full.len() - 4]);
        assert!(full.ends_with(b"\r\n\r\nbody"));
    }
}
