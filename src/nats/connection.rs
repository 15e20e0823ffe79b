//! One connection to a NATS server: greeting, requests with deadlines, subscriptions, and whether the server is still there.

use super::codec::{Encoder, Message, Received, decode};
use crate::time::{Micros, SECOND};
use serde_json::{Value, json};
use std::{collections::VecDeque, ops::Range};

/// How long connecting may take, the greeting included. A server that is stopped takes connections and says nothing.
pub const CONNECT_MAX: Micros = 3 * SECOND;
/// How long an answer may take.
pub const ANSWER_MAX: Micros = 5 * SECOND;
/// After so much silence the server is asked whether it is there.
const PING_AFTER: Micros = 3 * SECOND;
/// After so much silence the connection counts as lost.
const SILENCE_MAX: Micros = 10 * SECOND;
/// The subscription that answers to requests come on.
const ANSWERS: u64 = 1;

/// The requirements that a server announces for logins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    #[default]
    None,
    /// A user and a password.
    User(String, String),
    /// A token.
    Token(String),
}

impl Credentials {
    /// Reads the contents of a file of the option `streamCredentials`: `user:password`, or a token. `None`: they are neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() || text.contains(['\r', '\n']) {
            return None;
        }
        Some(match text.split_once(':') {
            Some(("", _)) => return None,
            Some((user, password)) => Self::User(user.to_owned(), password.to_owned()),
            None => Self::Token(text.to_owned()),
        })
    }
}

/// A number that tells a request from others of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(u64);

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// The server has let this client in.
    Up,
    /// The answer to a request.
    Answer(RequestId, Message<'a>),
    /// A message of a subscription, and where its payload lies in the chunk.
    Delivered(Message<'a>, Range<usize>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    /// The server introduces itself first.
    Info,
    /// It has been told who this is.
    Pong,
    Over,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Connection {
    greeting: Greeting,
    credentials: Credentials,
    /// TLS is spoken behind the server's greeting, and nothing else will do.
    over_tls: bool,
    /// The server has greeted, and TLS has not begun.
    turns_to_tls: bool,
    /// A part of subjects that nobody else uses.
    inbox: String,
    out: Encoder,
    /// Requests that have not been answered: number and deadline. The deadlines ascend.
    requests: VecDeque<(u64, Micros)>,
    next_request: u64,
    next_subscription: u64,
    /// When something was last received.
    heard: Micros,
    pinged: bool,
    /// The largest message that the server takes.
    payload_max: u64,
    /// The server's version.
    version: String,
}

impl Connection {
    /// A connection that is being opened. `random` bits make its subjects its own.
    #[must_use]
    pub fn new(credentials: Credentials, over_tls: bool, random: u64, now: Micros) -> Self {
        Self {
            greeting: Greeting::Info,
            credentials,
            over_tls,
            turns_to_tls: false,
            inbox: format!("_INBOX.{random:016x}"),
            out: Encoder::default(),
            requests: VecDeque::new(),
            next_request: 0,
            next_subscription: ANSWERS + 1,
            heard: now,
            pinged: false,
            payload_max: 0,
            version: String::new(),
        }
    }

    /// Bytes to write. The writer removes them from the front.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out.bytes
    }

    /// Returns true once, after the server's greeting in clear, if TLS is wanted. All further bytes go over TLS.
    pub fn turns_to_tls(&mut self) -> bool {
        std::mem::take(&mut self.turns_to_tls)
    }

    /// The largest message that the server takes.
    #[must_use]
    pub fn payload_max(&self) -> u64 {
        self.payload_max
    }

    /// The server's version, as it says in its greeting.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// When [`due`](Self::due) has something to say at the latest.
    #[must_use]
    pub fn deadline(&self) -> Micros {
        let silence = match (self.greeting, self.pinged) {
            (Greeting::Over, false) => self.heard + PING_AFTER,
            (Greeting::Over, true) => self.heard + SILENCE_MAX,
            _ => self.heard + CONNECT_MAX,
        };
        self.requests.front().map_or(silence, |&(_, at)| at.min(silence))
    }

    /// Asks whether the server is there, when it is time.
    ///
    /// # Errors
    ///
    /// Why the connection counts as lost, in a clause.
    pub fn due(&mut self, now: Micros) -> Result<(), String> {
        if self.requests.front().is_some_and(|&(_, at)| at <= now) {
            return Err("a request has not been answered in time".to_owned());
        }
        if now < self.deadline() {
            return Ok(());
        }
        if self.greeting != Greeting::Over {
            return Err("the server has not let this client in in time".to_owned());
        }
        if self.pinged {
            return Err("nothing has come from the server for too long".to_owned());
        }
        self.pinged = true;
        self.out.ping();
        Ok(())
    }

    /// Something has been read.
    pub fn note_heard(&mut self, now: Micros) {
        self.heard = now;
        self.pinged = false;
    }

    fn ask(&mut self, now: Micros) -> (RequestId, String) {
        let id = self.next_request;
        self.next_request += 1;
        self.requests.push_back((id, now + ANSWER_MAX));
        (RequestId(id), format!("{}.{id}", self.inbox))
    }

    /// Sends a request.
    pub fn request(&mut self, subject: &str, payload: &[u8], now: Micros) -> RequestId {
        let (id, reply) = self.ask(now);
        self.out.publish(subject, &reply, payload);
        id
    }

    /// Publishes a message, which is accepted only behind the message `expected`. The answer says whether it was.
    pub fn publish(&mut self, subject: &str, expected: u64, payload: &[u8], now: Micros) -> RequestId {
        let (id, reply) = self.ask(now);
        self.out.publish_with_header(subject, &reply, ("Nats-Expected-Last-Sequence", expected), payload);
        id
    }

    /// The answer to this request is of no interest any more, and is passed over.
    pub fn forget(&mut self, RequestId(id): RequestId) {
        self.requests.retain(|&(asked, _)| asked != id);
    }

    /// Sends a request whose answer is of no interest.
    pub fn tell(&mut self, subject: &str) {
        self.out.publish(subject, "", b"");
    }

    /// Answers a message of the server.
    pub fn answer(&mut self, subject: &[u8]) {
        if let Ok(subject) = std::str::from_utf8(subject) {
            self.out.publish(subject, "", b"");
        }
    }

    /// A subject of this connection's own that is listened to from now on, and the number of the subscription.
    pub fn subscribe(&mut self) -> (String, u64) {
        let sid = self.next_subscription;
        self.next_subscription += 1;
        let subject = format!("{}.d{sid}", self.inbox);
        self.out.subscribe(&subject, sid);
        (subject, sid)
    }

    /// Nothing of this subscription is of interest any more.
    pub fn unsubscribe(&mut self, sid: u64) {
        self.out.unsubscribe(sid);
    }

    /// Takes the next part of `chunk[range]`, and moves the start of the range behind it. `None`: there is no whole message.
    ///
    /// # Errors
    ///
    /// Why the connection is of no more use, in a clause.
    pub fn next<'a>(
        &mut self,
        chunk: &'a [u8],
        range: &mut Range<usize>,
    ) -> Result<Option<Incoming<'a>>, String> {
        loop {
            if self.turns_to_tls && range.start < range.end {
                // Whoever sits in between could have put it there.
                return Err("something has come in clear behind the server's greeting".to_owned());
            }
            let decoded = decode(&chunk[range.clone()]).map_err(|garbage| garbage.to_string())?;
            let Some((received, len)) = decoded else { return Ok(None) };
            range.start += len;
            match received {
                Received::Info(info) if self.greeting == Greeting::Info => self.greet(info)?,
                Received::Pong if self.greeting == Greeting::Pong => {
                    self.greeting = Greeting::Over;
                    return Ok(Some(Incoming::Up));
                }
                Received::Ping => self.out.pong(),
                Received::Error(words) => {
                    return Err(format!("the server says: {}", words.escape_ascii()));
                }
                Received::Message(message) if message.sid == ANSWERS => {
                    let id = message.subject.rsplit(|&byte| byte == b'.').next();
                    let id = id.and_then(|id| std::str::from_utf8(id).ok()?.parse::<u64>().ok());
                    let Some(place) =
                        id.and_then(|id| self.requests.iter().position(|&(asked, _)| asked == id))
                    else {
                        continue;
                    };
                    let Some((id, _)) = self.requests.remove(place) else { continue };
                    return Ok(Some(Incoming::Answer(RequestId(id), message)));
                }
                Received::Message(message) => {
                    let end = range.start - 2;
                    let payload = end - message.payload.len()..end;
                    return Ok(Some(Incoming::Delivered(message, payload)));
                }
                Received::Info(_) | Received::Pong | Received::Ok => {}
            }
        }
    }

    /// The server has introduced itself: logs in.
    fn greet(&mut self, info: &[u8]) -> Result<(), String> {
        let info: Value = serde_json::from_slice(info).map_err(|_| "its greeting is no JSON".to_owned())?;
        let offers_tls = info["tls_required"] == true || info["tls_available"] == true;
        if self.over_tls && !offers_tls {
            return Err("the server speaks no TLS, and streamCa is set".to_owned());
        }
        if info["tls_required"] == true && !self.over_tls {
            return Err(
                "the server asks for TLS; set streamCa to the authority that it is trusted for".to_owned()
            );
        }
        self.turns_to_tls = self.over_tls;
        if info["headers"] != true {
            return Err("the server is too old: it knows no headers".to_owned());
        }
        self.payload_max = info["max_payload"].as_u64().unwrap_or(0);
        info["version"].as_str().unwrap_or_default().clone_into(&mut self.version);
        let mut options = json!({
            "verbose": false,
            "pedantic": false,
            "headers": true,
            "no_responders": true,
            "protocol": 1,
            "lang": "rust",
            "name": "fortnight",
            "version": env!("CARGO_PKG_VERSION"),
        });
        match &self.credentials {
            Credentials::None => {}
            Credentials::User(user, password) => {
                (options["user"], options["pass"]) = (user.as_str().into(), password.as_str().into());
            }
            Credentials::Token(token) => options["auth_token"] = token.as_str().into(),
        }
        self.out.connect(&options.to_string());
        self.out.subscribe(&format!("{}.*", self.inbox), ANSWERS);
        self.out.ping();
        self.greeting = Greeting::Pong;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "INFO {\"headers\":true,\"max_payload\":1048576}\r\n";

    /// Everything that comes of these bytes: whether it is up, answers and deliveries.
    fn take(connection: &mut Connection, bytes: &str) -> Result<Vec<String>, String> {
        let (mut range, mut all) = (0..bytes.len(), Vec::new());
        while let Some(incoming) = connection.next(bytes.as_bytes(), &mut range)? {
            all.push(match incoming {
                Incoming::Up => "up".to_owned(),
                Incoming::Answer(id, message) => {
                    format!("{} {}", id.0, String::from_utf8_lossy(message.payload))
                }
                Incoming::Delivered(_, payload) => bytes[payload].to_owned(),
            });
        }
        Ok(all)
    }

    fn up(credentials: Credentials) -> (Connection, String) {
        let mut connection = Connection::new(credentials, false, 7, 0);
        assert_eq!(take(&mut connection, &format!("{INFO}PONG\r\n")).unwrap(), ["up"]);
        let sent = String::from_utf8(std::mem::take(connection.out())).unwrap();
        (connection, sent)
    }

    #[test]
    fn the_greeting_says_who_this_is() {
        let (connection, sent) = up(Credentials::parse("us\"er:pass:word\n").unwrap());
        assert_eq!(connection.payload_max(), 1 << 20);
        let line = sent.lines().next().unwrap().strip_prefix("CONNECT ").unwrap();
        let options: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&options["user"], &options["pass"]), (&json!("us\"er"), &json!("pass:word")));
        assert!(sent.ends_with("SUB _INBOX.0000000000000007.* 1\r\nPING\r\n"), "{sent}");
        let (_, sent) = up(Credentials::parse("secret").unwrap());
        assert!(sent.contains("\"auth_token\":\"secret\""));
        assert_eq!(Credentials::parse("\n"), None);
        assert_eq!(Credentials::parse("a:b\nc:d\n"), None);
    }

    #[test]
    fn a_server_that_does_not_let_it_in_is_of_no_use() {
        for bytes in [
            "INFO {\"headers\":true,\"tls_required\":true}\r\n",
            "INFO {}\r\n",
            "INFO {\r\n",
            "-ERR 'Authorization Violation'\r\n",
        ] {
            take(&mut Connection::new(Credentials::None, false, 7, 0), bytes).unwrap_err();
        }
    }

    #[test]
    fn a_server_speaks_tls_behind_its_greeting_or_is_of_no_use() {
        let tls = || Connection::new(Credentials::None, true, 7, 0);
        let info = "INFO {\"headers\":true,\"tls_available\":true}\r\n";
        let mut connection = tls();
        assert_eq!(take(&mut connection, info), Ok(Vec::new()));
        assert!(connection.turns_to_tls() && !connection.turns_to_tls(), "it says so once");
        assert_eq!(take(&mut connection, "PONG\r\n").unwrap(), ["up"]);
        take(&mut tls(), INFO).unwrap_err();
        // Somebody in between has put a part of his own behind the greeting.
        take(&mut tls(), &format!("{info}PONG\r\n")).unwrap_err();
        let mut connection = tls();
        take(&mut connection, info).unwrap();
        take(&mut connection, "+").unwrap_err();
    }

    #[test]
    fn answers_find_their_requests_and_others_are_passed_over() {
        let (mut connection, _) = up(Credentials::None);
        let first = connection.request("a", b"x", 0);
        let second = connection.publish("b", 9, b"y", 0);
        let sent = String::from_utf8(std::mem::take(connection.out())).unwrap();
        assert!(sent.starts_with("PUB a _INBOX.0000000000000007.0 1\r\nx\r\nHPUB b "), "{sent}");
        assert!(sent.contains("Nats-Expected-Last-Sequence: 9\r\n"), "{sent}");
        assert_eq!((first, second), (RequestId(0), RequestId(1)));
        let bytes = "MSG _INBOX.0000000000000007.1 1 2\r\nok\r\nMSG _INBOX.0000000000000007.1 1 2\r\nno\r\n\
                     MSG _INBOX.0000000000000007.x 1 2\r\nno\r\nMSG _INBOX.0000000000000007.d2 2 3\r\nyes\r\n";
        assert_eq!(take(&mut connection, bytes).unwrap(), ["1 ok", "yes"]);
        assert_eq!(connection.due(ANSWER_MAX - 1), Ok(()));
        connection.due(ANSWER_MAX).unwrap_err();
    }

    #[test]
    fn a_silent_server_is_asked_once_and_then_given_up() {
        let (mut connection, _) = up(Credentials::None);
        assert_eq!(connection.due(PING_AFTER), Ok(()));
        assert_eq!(connection.out(), b"PING\r\n");
        assert_eq!(connection.deadline(), SILENCE_MAX);
        connection.due(SILENCE_MAX).unwrap_err();
        connection.note_heard(SILENCE_MAX);
        assert_eq!(connection.due(SILENCE_MAX), Ok(()));
    }
}
