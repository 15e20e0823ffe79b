//! The server's framing and line parser, against the grammar of SPEC section 1 byte by byte.
//!
//! The first [`HEAD`] bytes of an input say how long lines may be, how large the ring is, where numbers begin, how the streams
//! are cut, and how much of the rest is the login of each user and the stream of the second source. What is
//! left is the stream of the first. The cuts decide how the streams arrive or how they are read. Nothing else may
//! depend on them, and [`Reference`] does not know them.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, mem,
};

use fortnight::internals::{
    config::Config,
    counters::{Counters, DisconnectReason},
    engine::event::{Kind, Reject},
    server::{Server, net::Port},
    sim::{Fault, Operation, Peer, Script, ServerEnd, SimNet, World},
    time::Micros,
};
use support::{
    grammar::{Framing, Meaning, Piece, meaning, number},
    model::{Event, Model},
};

const HEAD: usize = 10;
/// Longest login line, terminator included.
const LOGIN_BYTES_MAX: usize = 64;
/// Turns after which the server does not seem to come to an end.
const TURNS_MAX: usize = 100_000;

/// Lines of fewer than 48 bytes are never scanned many bytes at a time.
const EVENT_BYTES_MAX: [usize; 8] = [4, 12, 32, 47, 48, 64, 200, 1024];
const CAPACITIES: [usize; 8] = [1, 2, 4, 8, 16, 64, 256, 1024];
const FIRST: [u64; 8] = [0, 1, 2, 90, 99_999_990, u32::MAX as u64 - 2, u64::MAX - 20, u64::MAX];

/// Runs the server and the reference on one input.
pub fn run(input: &[u8]) {
    let Some((head, rest)) = input.split_first_chunk() else {
        return;
    };
    let case = Case::new(head, rest);
    assert_eq!(case.run_server(), case.run_reference(), "the server differs from the reference: {case:#?}");
}

/// One input.
#[derive(Debug)]
struct Case {
    config: Config,
    cuts: Cuts,
    logins: Vec<Bytes>,
    streams: Vec<Bytes>,
}

/// Bytes that a failure shows as text.
#[derive(Default, PartialEq, Eq)]
struct Bytes(Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl Case {
    fn new(head: &[u8; HEAD], rest: &[u8]) -> Case {
        let [event_bytes, capacity, first, manner, cuts @ .., one, two, last] = *head;
        let pick = |choice: u8| usize::from(choice & 7);
        let config = Config {
            max_event_bytes: EVENT_BYTES_MAX[pick(event_bytes)],
            reorder_capacity: CAPACITIES[pick(capacity)],
            first_sequence: FIRST[pick(first)],
            max_event_source_clients: 2,
            log_interval_ms: 0,
            ..Config::default()
        };
        let part = |rest: &[u8], len: u8| rest.len().min(usize::from(len) % 80);
        let (one, rest) = rest.split_at(part(rest, one));
        let (two, rest) = rest.split_at(part(rest, two));
        let (first, second) = rest.split_at(rest.len() - part(rest, last));
        Case {
            config,
            cuts: Cuts { lengths: cuts, next: 0, of_reads: manner & 1 == 1 },
            logins: [b"1\n", one, two].map(|login| Bytes(login.to_vec())).into(),
            streams: [first, second].map(|stream| Bytes(stream.to_vec())).into(),
        }
    }

    /// What the clients do, one thing after the other.
    fn steps(&self) -> VecDeque<Step> {
        let mut steps = VecDeque::new();
        let mut cuts = self.cuts.clone();
        for (bytes, port) in self
            .logins
            .iter()
            .map(|login| (login, Port::User))
            .chain(self.streams.iter().map(|stream| (stream, Port::Source)))
        {
            steps.push_back(Step::Connect(port));
            let mut rest = &bytes.0[..];
            while !rest.is_empty() {
                let len = if cuts.of_reads { rest.len() } else { cuts.next().min(rest.len()) };
                let (piece, later) = rest.split_at(len);
                steps.push_back(Step::Send(piece.to_vec()));
                rest = later;
            }
            if port == Port::Source {
                steps.push_back(Step::Finish);
            }
        }
        steps
    }

    fn run_server(&self) -> Outcome {
        let clients =
            Clients { steps: self.steps(), cuts: self.cuts.clone(), at: 0, users: Vec::new(), peer: None };
        let net = SimNet::new(clients);
        let mut server = Server::new(self.config.clone(), net.clone(), 0);
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "the server does not come to an end");
            server.turn().expect("simulated sockets can be waited for");
            if net.shared().world.is_idle() {
                break;
            }
        }
        let shared = net.shared();
        let streams = shared.script.users.iter().map(|&user| {
            let closed = shared.world.server_end(user) != ServerEnd::Open;
            (Bytes(shared.world.received(user).to_vec()), closed)
        });
        Outcome::of(&server.counters(), streams.collect())
    }

    fn run_reference(&self) -> Outcome {
        let mut reference = Reference::new(&self.config);
        for login in &self.logins {
            reference.login(&login.0);
        }
        for stream in &self.streams {
            reference.stream(&stream.0, self.config.max_event_bytes);
        }
        reference.finish()
    }
}

/// Lengths of the pieces, again and again; 0: no cut.
#[derive(Clone, Debug)]
struct Cuts {
    lengths: [u8; 3],
    next: usize,
    /// Reads are cut short. Otherwise the pieces arrive one after the other.
    of_reads: bool,
}

impl Cuts {
    fn next(&mut self) -> usize {
        let length = self.lengths[self.next];
        self.next = (self.next + 1) % self.lengths.len();
        if length == 0 { usize::MAX } else { usize::from(length) }
    }
}

#[derive(Debug)]
enum Step {
    Connect(Port),
    Send(Vec<u8>),
    Finish,
}

/// The far ends of all connections.
#[derive(Debug)]
struct Clients {
    steps: VecDeque<Step>,
    cuts: Cuts,
    at: Micros,
    users: Vec<Peer>,
    /// Who does the next thing.
    peer: Option<Peer>,
}

impl Script for Clients {
    fn next_at(&mut self, _: &World) -> Option<Micros> {
        (!self.steps.is_empty()).then_some(self.at)
    }

    fn happen(&mut self, world: &mut World) {
        self.at += 1;
        match (self.steps.pop_front(), self.peer) {
            (Some(Step::Connect(port)), _) => {
                self.peer = world.connect(port);
                if port == Port::User {
                    self.users.extend(self.peer);
                }
            }
            (Some(Step::Send(bytes)), Some(peer)) => {
                world.send(peer, &bytes);
            }
            (Some(Step::Finish), Some(peer)) => world.finish(peer),
            _ => {}
        }
    }

    fn fault(&mut self, operation: Operation) -> Option<Fault> {
        match operation {
            Operation::Read(..) if self.cuts.of_reads => Some(Fault::Cut(self.cuts.next())),
            _ => None,
        }
    }
}

/// What can be seen from outside.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    received: u64,
    /// By reason.
    rejected: BTreeMap<&'static str, u64>,
    /// Late ones and duplicates. An event that comes again is one or the other, as the first one has been released by
    /// then or has not.
    dropped: u64,
    /// By type.
    released: BTreeMap<char, u64>,
    skipped: u64,
    deliveries: u64,
    delivered_bytes: u64,
    /// By reason.
    disconnected: BTreeMap<&'static str, u64>,
    /// What each user received, and whether the server has closed the connection.
    streams: Vec<(Bytes, bool)>,
}

impl Outcome {
    fn of(counters: &Counters, streams: Vec<(Bytes, bool)>) -> Outcome {
        let rejected = Reject::ALL.map(|reason| (reason.name(), counters.events_rejected[reason as usize]));
        let released = Kind::EVENTS.map(|(kind, letter)| (letter, counters.events_released[kind as usize]));
        let disconnected =
            DisconnectReason::ALL.map(|end| (end.name(), counters.users_disconnected[end as usize]));
        Outcome {
            received: counters.events_received,
            rejected: rejected.into_iter().filter(|&(_, count)| count > 0).collect(),
            dropped: counters.events_late + counters.events_duplicate,
            released: released.into_iter().filter(|&(_, count)| count > 0).collect(),
            skipped: counters.sequence_skipped,
            deliveries: counters.deliveries,
            delivered_bytes: counters.delivered_bytes,
            disconnected: disconnected.into_iter().filter(|&(_, count)| count > 0).collect(),
            streams,
        }
    }
}

/// SPEC sections 1 and 2 for streams that come one after the other, without reads and without time.
struct Reference {
    cursor: u128,
    capacity: u128,
    /// What waits, by number: an event and its line, or a number that is used up.
    waiting: BTreeMap<u64, Option<(Event, Vec<u8>)>>,
    model: Model,
    /// The connections on the user port, by the ids they have logged in with.
    users: Vec<Option<u64>>,
    outcome: Outcome,
}

impl Reference {
    fn new(config: &Config) -> Reference {
        Reference {
            cursor: config.first_sequence.into(),
            capacity: config.reorder_capacity as u128,
            waiting: BTreeMap::new(),
            model: Model::new(),
            users: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    fn login(&mut self, sent: &[u8]) {
        let id = match sent.iter().position(|&byte| byte == b'\n') {
            Some(end) if end < LOGIN_BYTES_MAX => {
                let line = &sent[..end];
                number(line.strip_suffix(b"\r").unwrap_or(line)).ok_or("bad_login")
            }
            None if sent.len() < LOGIN_BYTES_MAX => Err("login_timeout"),
            _ => Err("bad_login"),
        };
        match id {
            Ok(id) => {
                if let Some(told) = self.model.login(id) {
                    let replaced =
                        self.users.iter().rposition(|&user| user == Some(id)).expect("it was connected");
                    self.users[replaced] = None;
                    self.outcome.streams[replaced] = (Bytes(told), true);
                    *self.outcome.disconnected.entry("replaced").or_default() += 1;
                }
                self.outcome.streams.push((Bytes::default(), false));
            }
            Err(reason) => {
                self.outcome.streams.push((Bytes::default(), true));
                *self.outcome.disconnected.entry(reason).or_default() += 1;
            }
        }
        self.users.push(id.ok());
    }

    fn stream(&mut self, stream: &[u8], event_bytes_max: usize) {
        let mut framing = Framing::new(event_bytes_max);
        for piece in stream.iter().filter_map(|&byte| framing.push(byte)) {
            match meaning(&piece) {
                Meaning::Empty => {}
                Meaning::Event { number, event } => {
                    self.outcome.received += 1;
                    let (Piece::Line(line) | Piece::Overlong(line)) = piece;
                    self.outcome.dropped += u64::from(!self.put(number, Some((event, line))));
                }
                Meaning::Rejected { number, reason } => {
                    self.outcome.received += 1;
                    *self.outcome.rejected.entry(reason).or_default() += 1;
                    if let Some(number) = number {
                        self.put(number, None);
                    }
                }
            }
        }
        if framing.is_inside_a_line() {
            *self.outcome.rejected.entry("truncated").or_default() += 1;
        }
    }

    /// Says whether the number was free. If it is too far ahead, holes are skipped until it is not: no other source
    /// can fill them.
    fn put(&mut self, number: u64, event: Option<(Event, Vec<u8>)>) -> bool {
        while u128::from(number) >= self.cursor + self.capacity {
            let lowest = self.waiting.keys().next().copied();
            self.skip_to(lowest.unwrap_or(number));
        }
        if u128::from(number) < self.cursor || self.waiting.contains_key(&number) {
            return false;
        }
        self.waiting.insert(number, event);
        self.release();
        true
    }

    fn skip_to(&mut self, number: u64) {
        self.outcome.skipped += u64::try_from(u128::from(number) - self.cursor).expect("less than there are");
        self.cursor = number.into();
        self.release();
    }

    fn release(&mut self) {
        while let Ok(next) = u64::try_from(self.cursor)
            && let Some(event) = self.waiting.remove(&next)
        {
            self.cursor += 1;
            if let Some((event, line)) = event {
                *self.outcome.released.entry(letter(event)).or_default() += 1;
                self.model.release(&line);
            }
        }
    }

    /// The time of everything that waits comes.
    fn finish(mut self) -> Outcome {
        while let Some(&lowest) = self.waiting.keys().next() {
            self.skip_to(lowest);
        }
        for (user, stream) in self.users.iter().zip(&mut self.outcome.streams) {
            if let Some(told) = user.and_then(|id| self.model.told(id)) {
                stream.0 = Bytes(told.to_vec());
            }
            self.outcome.deliveries += stream.0.0.iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.outcome.delivered_bytes += stream.0.0.len() as u64;
        }
        mem::take(&mut self.outcome)
    }
}

fn letter(event: Event) -> char {
    match event {
        Event::Follow(..) => 'F',
        Event::Unfollow(..) => 'U',
        Event::Broadcast => 'B',
        Event::Private(..) => 'P',
        Event::Status(..) => 'S',
    }
}
