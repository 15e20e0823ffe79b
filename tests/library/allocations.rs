//! No allocation in the steady state of the hot path: a counting allocator looks on.
//!
//! Buffers grow to what the load needs, and the follow graph to the form that fits it; that is the warm-up,
//! and it does allocate. From then on the engine feeds and delivers, and the server reads and writes, without
//! asking for memory once, however many events come.
//!
//! The counter counts what the test's own thread does, so the tests can run side by side.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    rc::Rc,
};

use allocation_counter::measure;
use fortnight::UserId;
use fortnight::internals::{
    config::Config,
    disk::RealDisk,
    engine::{Engine, EngineConfig, InstructionSet, Stop},
    journal::SyncMode,
    server::{
        Server,
        net::{Net, Port, Ready},
    },
    time::Micros,
};
use rustix::event::{EventfdFlags, eventfd};
use support::stream::Random;

const CONNECTED: u64 = 100;
const CHUNK_BYTES: usize = 256 << 10;
/// What the engine likes to be able to read around a chunk.
const MARGIN: usize = 64;

/// Events per hundred: follow, unfollow, broadcast, private; the rest are status updates.
type Mix = [u64; 4];
const MAZE: Mix = [25, 19, 1, 30];
const PRIVATE: Mix = [0, 0, 0, 100];
/// As many come as go.
const EDGES: Mix = [45, 45, 0, 0];

/// `events` lines among `users` users, shuffled in batches of up to 100; one number in `hole` is missing. First everybody
/// and the last user follow each other, so that no set of users ever needs more bits than it has had.
fn lines(events: u64, users: u64, mix: Mix, hole: u64) -> Vec<String> {
    let mut random = Random::new(666);
    let mut lines: Vec<String> = (1..=events)
        .map(|seq| {
            let (from, to) = (random.below(users) + 1, random.below(users) + 1);
            let [follow, unfollow, broadcast, private] = mix;
            let mut drawn = random.below(100);
            let mut is = |share: u64| {
                let is = drawn < share;
                drawn = drawn.wrapping_sub(share);
                is
            };
            match () {
                () if seq <= users => format!("{seq}|F|{seq}|{users}\r\n"),
                () if seq <= 2 * users => format!("{seq}|F|{users}|{}\r\n", seq - users),
                () if is(follow) => format!("{seq}|F|{from}|{to}\r\n"),
                () if is(unfollow) => format!("{seq}|U|{from}|{to}\r\n"),
                () if is(broadcast) => format!("{seq}|B\r\n"),
                () if is(private) => format!("{seq}|P|{from}|{to}\r\n"),
                () => format!("{seq}|S|{from}\r\n"),
            }
        })
        .collect();
    let mut rest = &mut lines[..];
    while !rest.is_empty() {
        let (batch, later) = rest.split_at_mut((random.below(100) as usize + 1).min(rest.len()));
        random.shuffle(batch);
        rest = later;
    }
    if hole > 0 {
        lines.retain(|_| random.below(hole) != 0);
    }
    lines
}

/// The lines as chunks with margins, each of whole lines.
fn chunks(lines: &[String]) -> Vec<Vec<u8>> {
    let mut chunks = vec![vec![b' '; MARGIN]];
    for line in lines {
        if chunks.last().is_some_and(|chunk| chunk.len() + line.len() > CHUNK_BYTES) {
            chunks.push(vec![b' '; MARGIN]);
        }
        chunks.last_mut().expect("one").extend_from_slice(line.as_bytes());
    }
    for chunk in &mut chunks {
        chunk.extend_from_slice(&[b' '; MARGIN]);
    }
    chunks
}

/// Feeds chunks and delivers, as the server does. Returns the bytes delivered.
fn feed(engine: &mut Engine, chunks: &[Vec<u8>], now: &mut Micros) -> usize {
    let mut bytes = 0;
    for chunk in chunks {
        let mut unread = MARGIN..chunk.len() - MARGIN;
        loop {
            let (at, stop) = engine.feed(chunk, unread.clone());
            unread.start = at;
            if stop != Stop::TurnFull {
                assert_eq!(stop, Stop::Drained);
                break;
            }
            engine.deliver(|_, piece| bytes += piece.len());
        }
        *now += 1000;
        engine.settle(chunk, *now, *now);
        engine.take_arrivals(*now, |arrival| assert!(arrival.events > 0));
        assert!(engine.next_deadline().is_none_or(|deadline| deadline > *now - 1000));
        engine.expire(*now);
        while engine.release_waiting() {
            engine.deliver(|_, piece| bytes += piece.len());
        }
    }
    engine.deliver(|_, piece| bytes += piece.len());
    bytes
}

/// Warms an engine up with the first half of a stream, and counts what the second half allocates.
fn check_engine(connected: u64, users: u64, mix: Mix, hole: u64, events: u64) {
    let mut engine = Engine::new(&EngineConfig {
        capacity: 65_536,
        first_sequence: 1,
        timeout: Some(2000),
        event_bytes_max: 1024,
        turn_bytes_max: 512 << 10,
        turn_bytes_mean: 56 << 10,
        max_sequence_jump: None,
        instruction_set: InstructionSet::default(),
    });
    for id in 1..=connected {
        engine.connect(UserId::new(id * (users / connected)));
    }
    let chunks = chunks(&lines(events, users, mix, hole));
    let (before, after) = chunks.split_at(chunks.len() / 2);
    let mut now = 0;
    let warm_up = measure(|| {
        feed(&mut engine, before, &mut now);
    });
    assert!(warm_up.count_total > 0, "the counter counts");
    let (released, mut bytes) = (engine.counters.events_released_total(), 0);
    let steady = measure(|| bytes = feed(&mut engine, after, &mut now));
    let released = engine.counters.events_released_total() - released;
    assert!(released > events / 4, "{released} of {events} events released");
    assert!(bytes as u64 > released, "{bytes} bytes delivered");
    engine.take_given_up();
    assert_eq!(engine.counters.sequence_skipped > 0, hole > 0);
    assert_eq!(steady.count_total, 0, "{released} events released: {steady:?}");
}

#[test]
fn the_engine_feeds_and_delivers_without_allocating() {
    check_engine(CONNECTED, 400, MAZE, 0, 1_000_000);
}

#[test]
fn the_engine_gives_up_holes_without_allocating() {
    check_engine(CONNECTED, 400, MAZE, 1000, 1_000_000);
}

#[test]
fn the_engine_serves_a_thousand_users_their_own_messages_without_allocating() {
    check_engine(1000, 1000, PRIVATE, 0, 600_000);
}

#[test]
fn the_engine_changes_a_graph_that_is_too_large_for_a_matrix_without_allocating() {
    check_engine(2100, 2100, EDGES, 0, 2_400_000);
}

/// Feeds lines that need no user.
fn feed_lines(engine: &mut Engine, next: &mut u64, lines: impl Iterator<Item = String>) {
    let mut chunk = vec![b' '; MARGIN];
    for line in lines {
        chunk.extend_from_slice(format!("{next}|{line}\n").as_bytes());
        *next += 1;
        if chunk.len() > CHUNK_BYTES {
            chunk.extend_from_slice(&[b' '; MARGIN]);
            feed(engine, std::slice::from_ref(&chunk), &mut 0);
            chunk.truncate(MARGIN);
        }
    }
    chunk.extend_from_slice(&[b' '; MARGIN]);
    feed(engine, &[chunk], &mut 0);
}

#[test]
fn a_graph_gives_back_the_memory_of_removed_edges() {
    const FOLLOWERS: u64 = 100;
    const EACH: u64 = 3000;
    let config = EngineConfig {
        capacity: 4096,
        first_sequence: 0,
        timeout: None,
        event_bytes_max: 1024,
        turn_bytes_max: 512 << 10,
        turn_bytes_mean: 56 << 10,
        max_sequence_jump: None,
        instruction_set: InstructionSet::default(),
    };
    // Ids all over the place, and ids that are looked up in an array of up to 8 MiB.
    for (spread, start, left_max) in [(1 << 33, 1u64 << 33, 1_500_000), (1, 1, 6_000_000)] {
        let mut engine = Engine::new(&config);
        let pairs = |kept: u64| {
            (0..FOLLOWERS)
                .flat_map(move |user| (kept..EACH).map(move |other| (user, user * EACH + other + 1)))
        };
        let lines = |kind: char, kept| {
            pairs(kept).map(move |(user, other)| {
                format!("{kind}|{}|{}", start + user * spread, start + 500 + other * spread)
            })
        };
        let mut next = 0;
        let all = measure(|| {
            feed_lines(&mut engine, &mut next, lines('F', 0));
            feed_lines(&mut engine, &mut next, lines('U', 9));
            // What is left to be done is done when the next turn begins.
            feed_lines(&mut engine, &mut next, std::iter::empty());
        });
        assert_eq!(engine.follow_edges(), 9 * FOLLOWERS);
        let rest = measure(|| {
            feed_lines(&mut engine, &mut next, lines('F', 9));
            feed_lines(&mut engine, &mut next, lines('U', 0));
            feed_lines(&mut engine, &mut next, std::iter::empty());
        });
        assert_eq!(engine.follow_edges(), 0);
        // 1,000 nodes are left of 300,000; the ring has its 4,096 slots.
        assert!(all.bytes_max > 20_000_000, "the graph was large: {all:?}");
        assert!(all.bytes_current < left_max, "with 900 edges left: {all:?}");
        assert!(rest.bytes_current < 0, "without edges there is less: {rest:?}");
    }
}

/// A world whose own part allocates nothing: what is sent lies there from the beginning, what is received is counted.
struct World {
    /// What the event source sends, and how much of it has been read.
    stream: Vec<u8>,
    read: usize,
    /// Bytes that may be read by now.
    sent: usize,
    /// Users that have not been accepted yet, and whether the source has.
    users_left: u64,
    source_left: bool,
    received: u64,
    /// How often a socket was filled up.
    filled: u64,
    /// Bytes of every delivery that a user's socket leaves, to take them after the next poll.
    left: usize,
    /// The source's socket, and those that were filled up, by their keys.
    source_key: Option<usize>,
    full: Vec<usize>,
    /// Users that have sent their login line.
    logging_in: Vec<usize>,
    keys: HashMap<u64, usize>,
    now: Micros,
}

/// The only `Net` that there is room for here: one source, many users.
#[derive(Clone)]
struct Wire(Rc<RefCell<World>>);

enum Socket {
    Source(Wire),
    /// A user, and the login line that it has not sent yet.
    User(Wire, u64, bool),
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Source(wire) => {
                let mut world = wire.0.borrow_mut();
                let (from, to) = (world.read, world.sent);
                let len = buffer.len().min(to - from);
                if len == 0 {
                    return Err(ErrorKind::WouldBlock.into());
                }
                buffer[..len].copy_from_slice(&world.stream[from..from + len]);
                world.read += len;
                Ok(len)
            }
            Self::User(_, id, login) if *login => {
                *login = false;
                let mut rest = &mut buffer[..];
                writeln!(rest, "{id}")?;
                let left = rest.len();
                Ok(buffer.len() - left)
            }
            Self::User(..) => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self::User(wire, id, _) = self else {
            return Err(ErrorKind::WouldBlock.into());
        };
        let mut world = wire.0.borrow_mut();
        let left = if bytes.len() > 2 * world.left { world.left } else { 0 };
        let taken = bytes.len() - left;
        if left > 0 {
            let key = world.keys[id];
            world.full.push(key);
            world.filled += 1;
        }
        world.received += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn readable(key: usize) -> Ready {
    Ready::Socket { key, readable: true, writable: false, hung_up: false, urgent: false }
}

impl Net for Wire {
    type Socket = Socket;

    fn poll(&mut self, wait: Option<Micros>, ready: &mut Vec<Ready>) -> io::Result<Micros> {
        let mut world = self.0.borrow_mut();
        if wait != Some(0) {
            // Waiting: the next piece of the stream arrives, and full sockets take bytes again.
            world.now += 100;
            world.sent = (world.sent + CHUNK_BYTES).min(world.stream.len());
            ready.extend(world.source_key.map(readable));
            let writable =
                |key| Ready::Socket { key, readable: false, writable: true, hung_up: false, urgent: false };
            ready.extend(world.full.drain(..).map(writable));
        }
        ready.extend(world.logging_in.drain(..).map(readable));
        if world.users_left > 0 {
            ready.push(Ready::Listener(Port::User));
        } else if world.source_left {
            ready.push(Ready::Listener(Port::Source));
        }
        Ok(world.now)
    }

    fn told_to_end(&mut self) -> usize {
        0
    }

    fn accept(&mut self, port: Port) -> io::Result<(Socket, SocketAddr)> {
        let mut world = self.0.borrow_mut();
        let socket = match port {
            Port::User if world.users_left > 0 => {
                world.users_left -= 1;
                Socket::User(self.clone(), (world.users_left + 1) * 4, true)
            }
            Port::Source if world.source_left && world.users_left == 0 => {
                world.source_left = false;
                Socket::Source(self.clone())
            }
            _ => return Err(ErrorKind::WouldBlock.into()),
        };
        Ok((socket, SocketAddr::from((Ipv4Addr::LOCALHOST, 1))))
    }

    fn backlog(&mut self, _: Port) -> usize {
        usize::MAX
    }

    fn random(&mut self) -> u64 {
        0
    }

    fn door(&self) -> fortnight::internals::counters::DoorCounters {
        fortnight::internals::counters::DoorCounters::default()
    }

    fn connect(&mut self, _: SocketAddr) -> io::Result<Socket> {
        Err(ErrorKind::ConnectionRefused.into())
    }

    fn register(&mut self, socket: &mut Socket, key: usize) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        match socket {
            Socket::Source(_) => world.source_key = Some(key),
            Socket::User(_, id, _) => {
                world.keys.insert(*id, key);
                world.logging_in.push(key);
            }
        }
        Ok(())
    }

    fn want_write(&mut self, _socket: &mut Socket, _key: usize, _on: bool) -> io::Result<()> {
        Ok(())
    }

    fn forget(&mut self, _: &mut Self::Socket) {}

    fn finish(&mut self, _: &mut Self::Socket) {}

    fn peers_may_vanish(&self) -> bool {
        false
    }

    fn silence(&mut self, _: &mut Self::Socket) -> Option<Micros> {
        None
    }

    fn unread(&mut self, _: &mut Self::Socket) -> usize {
        0
    }

    fn clock(&self) -> Micros {
        self.0.borrow().now
    }

    fn warnings(&self) -> Vec<fortnight::internals::warning::Warning> {
        Vec::new()
    }

    fn process(&mut self) -> Option<fortnight::internals::process::Process> {
        None
    }

    fn time_ms(&mut self) -> u64 {
        0
    }

    fn listen(&mut self, _port: Port, _on: bool) -> io::Result<()> {
        Ok(())
    }

    fn close_listener(&mut self, _port: Port) {}
}

/// Runs the server until `share` of the stream has been read and everything released.
fn run(server: &mut Server<Wire>, world: &Rc<RefCell<World>>, events: u64, share: f64) {
    let done = |world: &World| world.read as f64 >= world.stream.len() as f64 * share;
    let mut turns = 0;
    while !done(&world.borrow()) {
        server.turn().expect("a turn");
        turns += 1;
        assert!(turns < events, "the stream is read");
    }
}

fn check_server(left: usize) {
    let events = 1_000_000;
    let world = world(events, left);
    let server = Server::new(Config::default(), Wire(world.clone()), 0);
    check_steady(server, &world, events, 0);
}

fn world(events: u64, left: usize) -> Rc<RefCell<World>> {
    Rc::new(RefCell::new(World {
        stream: lines(events, 400, MAZE, 0).concat().into_bytes(),
        read: 0,
        sent: 0,
        users_left: CONNECTED,
        source_left: true,
        received: 0,
        filled: 0,
        left,
        source_key: None,
        full: Vec::with_capacity(1000),
        logging_in: Vec::new(),
        keys: HashMap::new(),
        now: 0,
    }))
}

/// `most` small pieces of memory may be asked for, however many events there are.
fn check_steady(mut server: Server<Wire>, world: &Rc<RefCell<World>>, events: u64, most: u64) {
    let left = world.borrow().left;
    let warm_up = measure(|| run(&mut server, world, events, 0.5));
    assert!(warm_up.count_total > 0, "the counter counts");
    let (released, received) = (server.counters().events_released_total(), world.borrow().received);
    let steady = measure(|| run(&mut server, world, events, 1.0));
    let released = server.counters().events_released_total() - released;
    let received = world.borrow().received - received;
    assert!(released > events / 4, "{released} of {events} events released");
    assert!(received > released, "{received} bytes received");
    assert_eq!(world.borrow().filled > CONNECTED, left > 0, "output buffers are used or not");
    let told = format!("{released} events released, {received} bytes received: {steady:?}");
    assert!(steady.count_total <= most && steady.bytes_total <= 64 * most, "{told}");
}

#[test]
fn the_server_reads_and_writes_without_allocating() {
    check_server(0);
}

#[test]
fn output_buffers_fill_and_drain_without_allocating() {
    check_server(5000);
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Within one segment: a new one costs a few names. The journal's first mark may come then, for which there is no buffer yet.
#[test]
fn the_server_appends_to_its_journal_without_allocating() {
    for sync in [SyncMode::Always, SyncMode::Interval, SyncMode::Never] {
        for has_ring in [false, true] {
            let name = format!("fortnight-allocations-{}-{sync:?}-{has_ring}", std::process::id());
            let folder = Folder(std::env::temp_dir().join(name));
            let mut disk = RealDisk::lock(&folder.0).expect("a folder");
            let waker = eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd");
            if has_ring && disk.submit_to_a_ring(waker).is_err() {
                support::skipped(
                    "io_uring cannot be used here: the journal's allocations are counted without it",
                );
                continue;
            }
            let events = 400_000;
            let world = world(events, 0);
            let config = Config { journal_sync: sync, ..Config::default() };
            let server =
                Server::recover(config, Wire(world.clone()), Box::new(disk), || 0).expect("a journal");
            check_steady(server, &world, events, 4);
        }
    }
}
