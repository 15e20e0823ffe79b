//! The client's side of the NATS protocol: ten verbs in text, payloads of a given length.
//!
//! [`decode`] takes one message off the front of the received bytes; the functions of [`Encoder`] append one to what is to
//! be sent. Nothing here waits, copies a payload, or keeps a state.
//!
//! The crate `watermelon-proto` does the same without I/O. It is not used because it brings `url` with its tables of Unicode
//! names, copies each payload, and limits neither the length of a line nor that of a payload.

use std::{fmt, io::Write};

/// Longest control line, its end included: `INFO` of a large cluster is the longest.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Largest message, headers and payload together: eight times the default of servers.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// A message from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// The server's description of itself, as JSON.
    Info(&'a [u8]),
    /// A message of a subscription.
    Message(Message<'a>),
    /// It wants to know whether the client is there.
    Ping,
    /// The answer to the client's ping.
    Pong,
    /// Something was accepted.
    Ok,
    /// Something was not, or the connection ends: its words, without quotes.
    Error(&'a [u8]),
}

/// A message of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The subject of the message.
    pub subject: &'a [u8],
    /// The subscription's number.
    pub sid: u64,
    /// The subject for an answer.
    pub reply: Option<&'a [u8]>,
    /// The block of headers with its first line; empty without.
    pub headers: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.split(|&byte| byte == b'\n').skip(1).find_map(|line| {
            let (field, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":").filter(|_| field.eq_ignore_ascii_case(name.as_bytes()))?;
            Some(value.trim_ascii())
        })
    }

    /// The status code in the first line of the headers. A server sends it in place of a message.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        let line = self.headers.strip_prefix(b"NATS/1.0")?;
        let line = &line[..memchr::memchr(b'\r', line)?];
        let code = line.trim_ascii().split(|&byte| byte == b' ').next()?;
        number(code).and_then(|code| u16::try_from(code).ok())
    }
}

/// The received bytes break the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    what: &'static str,
    line: Vec<u8>,
}

impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.line.escape_ascii())
    }
}

/// Takes the first message off `bytes`: the message, and how long it is. `None`: it has not been received as a whole.
///
/// # Errors
///
/// The line that is not the protocol. The connection is of no more use.
pub fn decode(bytes: &[u8]) -> Result<Option<(Received<'_>, usize)>, Garbage> {
    let garbage = |what| Garbage { what, line: bytes[..bytes.len().min(80)].to_vec() };
    let head = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', head) else {
        return if head.len() < LINE_BYTES_MAX { Ok(None) } else { Err(garbage("a line is too long")) };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let verb_end = line.iter().position(|byte| b" \t".contains(byte)).unwrap_or(line.len());
    let (verb, rest) = line.split_at(verb_end);
    let rest = rest.trim_ascii();
    let is = |name: &str| verb.eq_ignore_ascii_case(name.as_bytes());
    let received = match verb.len() {
        3 if is("MSG") => {
            return message(bytes, rest, end + 1, false).ok_or_else(|| garbage("a bad message"));
        }
        4 if is("HMSG") => {
            return message(bytes, rest, end + 1, true).ok_or_else(|| garbage("a bad message"));
        }
        4 if is("INFO") => Received::Info(rest),
        4 if is("PING") => Received::Ping,
        4 if is("PONG") => Received::Pong,
        3 if is("+OK") => Received::Ok,
        4 if is("-ERR") => {
            let words = rest.strip_prefix(b"'").unwrap_or(rest);
            Received::Error(words.strip_suffix(b"'").unwrap_or(words))
        }
        _ => return Err(garbage("not the NATS protocol")),
    };
    Ok(Some((received, end + 1)))
}

/// `subject sid [reply] [headers] length`, and the bytes after it, at `start`. `None`: it is malformed.
fn message<'a>(
    bytes: &'a [u8],
    arguments: &'a [u8],
    start: usize,
    has_headers: bool,
) -> Option<Option<(Received<'a>, usize)>> {
    let mut fields = [&b""[..]; 5];
    let mut count = 0;
    for field in arguments.split(|byte| b" \t".contains(byte)).filter(|field| !field.is_empty()) {
        *fields.get_mut(count)? = field;
        count += 1;
    }
    let sizes = 1 + usize::from(has_headers);
    let reply = match count.checked_sub(sizes)? {
        2 => None,
        3 => Some(fields[2]),
        _ => return None,
    };
    let length =
        |field: &[u8]| number(field).map(|length| length as usize).filter(|&n| n <= MESSAGE_BYTES_MAX);
    let total = length(fields[count - 1])?;
    let header = if has_headers { length(fields[count - 2])? } else { 0 };
    if header > total {
        return None;
    }
    let sid = number(fields[1])?;
    let Some(body) = bytes.get(start..start + total + 2) else {
        return Some(None);
    };
    if !body.ends_with(b"\r\n") {
        return None;
    }
    let (headers, payload) = body[..total].split_at(header);
    let message = Message { subject: fields[0], sid, reply, headers, payload };
    Some(Some((Received::Message(message), start + total + 2)))
}

/// A decimal number without a sign.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Bytes to be sent. Subjects and header values come from this program, and hold neither spaces nor line ends.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Bytes to send.
    pub bytes: Vec<u8>,
}

impl Encoder {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a vector cannot fail.
        let _ = self.bytes.write_fmt(line);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// `options` is JSON.
    pub fn connect(&mut self, options: &str) {
        self.line(format_args!("CONNECT {options}"));
    }

    /// Asks for a [`Received::Pong`].
    pub fn ping(&mut self) {
        self.line(format_args!("PING"));
    }

    /// Answers a [`Received::Ping`].
    pub fn pong(&mut self) {
        self.line(format_args!("PONG"));
    }

    /// Messages to `subject` come from now on, under the number `sid`.
    pub fn subscribe(&mut self, subject: &str, sid: u64) {
        self.line(format_args!("SUB {subject} {sid}"));
    }

    /// No more of them.
    pub fn unsubscribe(&mut self, sid: u64) {
        self.line(format_args!("UNSUB {sid}"));
    }

    /// Publishes a payload.
    pub fn publish(&mut self, subject: &str, reply: &str, payload: &[u8]) {
        let space = if reply.is_empty() { "" } else { " " };
        self.line(format_args!("PUB {subject} {reply}{space}{}", payload.len()));
        self.bytes.extend_from_slice(payload);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Publishes a payload with one header.
    pub fn publish_with_header(
        &mut self,
        subject: &str,
        reply: &str,
        (name, value): (&str, impl fmt::Display),
        payload: &[u8],
    ) {
        let headers = format!("NATS/1.0\r\n{name}: {value}\r\n\r\n");
        let total = headers.len() + payload.len();
        self.line(format_args!("HPUB {subject} {reply} {} {total}", headers.len()));
        self.bytes.extend_from_slice(headers.as_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first message, which is all of `bytes`.
    fn whole(bytes: &[u8]) -> Received<'_> {
        let (received, len) = decode(bytes).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        received
    }

    #[test]
    fn every_verb_is_known() {
        assert_eq!(whole(b"PING\r\n"), Received::Ping);
        assert_eq!(whole(b"pong\r\n"), Received::Pong);
        assert_eq!(whole(b"+OK\r\n"), Received::Ok);
        assert_eq!(whole(b"INFO {\"a\":1} \r\n"), Received::Info(b"{\"a\":1}"));
        assert_eq!(whole(b"-ERR 'Stale Connection'\r\n"), Received::Error(b"Stale Connection"));
    }

    #[test]
    fn messages_with_and_without_headers_and_replies() {
        let message = Message { subject: b"a.b", sid: 9, reply: None, headers: b"", payload: b"PING\r\n" };
        assert_eq!(whole(b"MSG a.b 9 6\r\nPING\r\n\r\n"), Received::Message(message));
        let message = Message { reply: Some(b"x.y"), ..message };
        assert_eq!(whole(b"MSG a.b  9\tx.y 6\r\nPING\r\n\r\n"), Received::Message(message));
        let headers = b"NATS/1.0 503 No Responders\r\nNats-Sequence: 12\r\n\r\n";
        let bytes = [b"HMSG a.b 9 54 56\r\n", &headers[..], b"hi\r\n"].concat();
        let bytes = String::from_utf8(bytes)
            .unwrap()
            .replace("54 56", &format!("{} {}", headers.len(), headers.len() + 2));
        let Received::Message(message) = whole(bytes.as_bytes()) else { panic!("{bytes}") };
        assert_eq!((message.payload, message.status()), (&b"hi"[..], Some(503)));
        assert_eq!(message.header("nats-sequence"), Some(&b"12"[..]));
        assert_eq!(message.header("Nats"), None);
    }

    #[test]
    fn what_is_not_the_protocol_is_refused() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\n"[..],
            b"\r\n",
            b"MSG a 1\r\n",
            b"MSG a x 1\r\nx\r\n",
            b"MSG a 1 -1\r\n",
            b"MSG a 1 b c 1\r\n",
            b"MSG a 1 1\r\nxyz",
            b"MSG a 1 8388609\r\n",
            b"MSG a 1 99999999999999999999999\r\n",
            b"HMSG a 1 3 2\r\nxyz\r\n",
            b"HMSG a 1 2\r\nxy\r\n",
        ] {
            decode(bytes).expect_err(&bytes.escape_ascii().to_string());
        }
        decode(&[b'x'; LINE_BYTES_MAX]).unwrap_err();
    }

    #[test]
    fn what_is_sent_is_what_servers_read() {
        let mut encoder = Encoder::default();
        encoder.connect("{}");
        encoder.ping();
        encoder.pong();
        encoder.subscribe("a.*", 2);
        encoder.unsubscribe(2);
        encoder.publish("a", "b", b"xyz");
        encoder.publish_with_header("a", "b", ("N", 7), b"xyz");
        let sent = "CONNECT {}\r\nPING\r\nPONG\r\nSUB a.* 2\r\nUNSUB 2\r\nPUB a b 3\r\nxyz\r\n\
                    HPUB a b 18 21\r\nNATS/1.0\r\nN: 7\r\n\r\nxyz\r\n";
        assert_eq!(String::from_utf8(encoder.bytes).unwrap(), sent);
    }

    proptest! {
        #[test]
        fn a_part_of_a_message_is_waited_for(payload in prop::collection::vec(any::<u8>(), 0..50), headers: bool) {
            let (head, headers) = match headers {
                true => (format!("HMSG s 1 r 12 {}\r\n", payload.len() + 12), &b"NATS/1.0\r\n\r\n"[..]),
                false => (format!("MSG s 1 {}\r\n", payload.len()), &b""[..]),
            };
            let bytes = [head.as_bytes(), headers, &payload, b"\r\n"].concat();
            for len in 0..bytes.len() {
                prop_assert_eq!(decode(&bytes[..len]), Ok(None));
            }
            let Received::Message(message) = whole(&bytes) else { panic!() };
            prop_assert_eq!((message.payload, message.headers), (&payload[..], headers));
        }

        #[test]
        fn nothing_makes_it_panic(
            verb in prop::sample::select(vec!["MSG ", "HMSG ", "INFO", "-ERR '", "+OK", ""]),
            bytes in prop::collection::vec(prop::sample::select(b"0123 ab.\t\r\n'NATS/1.0:".to_vec()), 0..80),
        ) {
            let bytes = [verb.as_bytes(), &bytes].concat();
            if let Ok(Some((received, len))) = decode(&bytes) {
                prop_assert!(len <= bytes.len());
                if let Received::Message(message) = received {
                    let _ = (message.status(), message.header("a"));
                }
            }
        }
    }
}
