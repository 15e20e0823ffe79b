//! Users that resume, on simulated sockets and a simulated disk: they leave at any moment, in the middle of a line, come back with
//! what they have, take themselves over, read slowly, and the server is killed meanwhile. Each must end with the one stream that
//! somebody gets who has been there all the time (docs/SPEC.md section 10).

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use fortnight::{
    config::{Config, SlowUserPolicy},
    journal::SyncMode,
    server::{Server, net::Port},
    sim::{Peer, Script, SimFolder, SimNet, World},
    time::{MILLISECOND, Micros},
};
use support::{
    model::{Model, number_of},
    stream::{Random, lines},
};

const USERS: u64 = 20;
const LINES: u64 = 8000;
const STEP: Micros = 5 * MILLISECOND;

/// What happens how often, of which kind.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    resumed: u32,
    taken_over: u32,
    cut_off: u32,
    marks: u32,
    restarts: u32,
    lives_with_snapshots: u32,
}

/// A user that keeps its place, as docs/clients.md says.
struct Client {
    id: u64,
    peer: Option<Peer>,
    epoch: String,
    /// `None`: it has never been answered.
    next: Option<u128>,
    /// The place that it has been told last on this connection.
    told: u128,
    is_answered: bool,
    partial: Vec<u8>,
    got: Vec<u8>,
    /// Bytes that it takes in one step, at most. 0: all.
    pace: u64,
    /// It takes nothing for so many steps.
    sleeps: u64,
}

/// Plays the source and the users.
struct Visitors {
    random: Random,
    stream: Vec<Vec<u8>>,
    /// What everybody is owed.
    owed: Rc<Vec<Vec<u8>>>,
    clients: Vec<Client>,
    source: Option<Peer>,
    sent: usize,
    at: Micros,
    /// Nobody leaves any more, and everybody takes everything.
    is_calm: Rc<Cell<bool>>,
    counts: Counts,
}

fn events(random: &mut Random) -> Vec<Vec<u8>> {
    let mut line = |number: u64| {
        let (from, to) = (random.below(USERS), random.below(USERS));
        let end = if random.below(4) == 0 { "\r\n" } else { "\n" };
        let event = match random.below(12) {
            0..=2 => format!("F|{from}|{to}"),
            3 | 4 => format!("U|{from}|{to}"),
            5 | 6 => format!("P|{from}|{to}"),
            7 => "B".to_owned(),
            _ => format!("S|{from}"),
        };
        let zeros = "0".repeat(random.below(12) as usize);
        format!("{zeros}{number}|{event}{end}").into_bytes()
    };
    (1..=LINES).map(&mut line).collect()
}

impl Visitors {
    fn new(seed: u64) -> Visitors {
        let mut random = Random::new(seed);
        let stream = events(&mut random);
        let mut model = Model::new();
        (0..USERS).for_each(|id| drop(model.login(id)));
        stream.iter().for_each(|line| model.release(line));
        let owed = (0..USERS).map(|id| model.told(id).unwrap().to_vec()).collect();
        let mut client = |id| Client {
            id,
            peer: None,
            epoch: String::new(),
            next: None,
            told: 0,
            is_answered: false,
            partial: Vec::new(),
            got: Vec::new(),
            pace: [0, 0, 2000, 300][random.below(4) as usize],
            sleeps: 0,
        };
        let clients = (0..USERS).map(&mut client).collect();
        Visitors {
            random,
            stream,
            owed: Rc::new(owed),
            clients,
            source: None,
            sent: 0,
            at: 0,
            is_calm: Rc::default(),
            counts: Counts::default(),
        }
    }

    /// A new life of the server, which has released everything below the cursor.
    fn begin_life(&mut self, cursor: u128) {
        self.at = 0;
        self.sent = cursor as usize - 1;
        self.source = None;
        for client in &mut self.clients {
            client.peer = None;
            client.partial.clear();
        }
    }

    fn send_events(&mut self, world: &mut World) {
        let source = *self.source.get_or_insert_with(|| world.connect(Port::Source).unwrap());
        let most = if self.is_calm.get() { 500 } else { self.random.below(60) };
        let end = self.stream.len().min(self.sent + most as usize);
        let mut piece: Vec<_> = self.stream[self.sent..end].to_vec();
        // No further out of order than the ring is large.
        piece.chunks_mut(60).for_each(|chunk| self.random.shuffle(chunk));
        world.send(source, &piece.concat());
        self.sent = end;
    }

    fn visit(&mut self, index: usize, world: &mut World) {
        let is_calm = self.is_calm.get();
        let chance = self.random.below(100);
        let client = &mut self.clients[index];
        let Some(peer) = client.peer else {
            if is_calm || chance < 10 {
                client.log_in(world);
                self.counts.resumed += 1;
            }
            return;
        };
        if !is_calm && client.sleeps > 0 {
            client.sleeps -= 1;
        } else if !is_calm && client.pace > 0 && chance == 4 {
            client.sleeps = 50;
        } else if is_calm || client.pace == 0 {
            world.limit_outbound(peer, u64::MAX);
        } else {
            let room = world.written(peer) + self.random.below(client.pace);
            world.limit_outbound(peer, room);
        }
        let client = &mut self.clients[index];
        let came = world.take_received(peer, <[u8]>::to_vec).unwrap_or_default();
        self.counts.marks += client.take(&came, &self.owed[index]);
        if world.has_finished(peer) {
            self.counts.cut_off += 1;
            client.drop_connection(world);
        } else if !is_calm && chance < 2 {
            // What has been taken is kept, half a line is not.
            client.drop_connection(world);
        } else if !is_calm && chance == 3 {
            self.counts.taken_over += 1;
            world.forget(peer);
            client.log_in(world);
        }
    }
}

impl Client {
    /// For a person: what it waits for.
    fn progress(&self, owed: &[Vec<u8>]) -> String {
        let missing = owed[self.id as usize].len() - self.got.len();
        format!("{}: {:?}, {missing} bytes missing, connected {}", self.id, self.next, self.peer.is_some())
    }

    fn log_in(&mut self, world: &mut World) {
        let peer = world.connect(Port::User).unwrap();
        let login = match self.next {
            None => format!("{}|oldest\n", self.id),
            Some(next) => format!("{}|{next}|{}\n", self.id, self.epoch),
        };
        world.send(peer, login.as_bytes());
        if self.pace > 0 {
            world.limit_outbound(peer, 64);
        }
        self.peer = Some(peer);
        self.is_answered = false;
        self.partial.clear();
    }

    fn drop_connection(&mut self, world: &mut World) {
        if let Some(peer) = self.peer.take() {
            world.close(peer);
            world.forget(peer);
        }
    }

    /// Takes what has come. Returns how many marks there were.
    fn take(&mut self, bytes: &[u8], owed: &[u8]) -> u32 {
        self.partial.extend_from_slice(bytes);
        let whole = self.partial.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let text: Vec<u8> = self.partial.drain(..whole).collect();
        let mut marks = 0;
        for line in lines(&text) {
            match line[0] {
                b'+' => marks += u32::from(self.take_place(line, owed)),
                b'-' => {
                    let reason = std::str::from_utf8(line).unwrap().trim_end().rsplit('|').next().unwrap();
                    assert!(["replaced", "slow", "closed"].contains(&reason), "{reason}");
                }
                _ => self.take_event(line),
            }
        }
        marks
    }

    /// Whether the line is a mark, and not the answer.
    fn take_place(&mut self, line: &[u8], owed: &[u8]) -> bool {
        let text = std::str::from_utf8(line).unwrap().trim_end();
        let fields: Vec<_> = text.split('|').collect();
        let place: u128 = fields[2].parse().unwrap();
        if self.is_answered {
            assert!(place >= self.told, "user {}: a mark below {}: {text}", self.id, self.told);
            assert_eq!(fields[1], self.epoch);
            // Everything below the mark has come.
            let missing = lines(&owed[self.got.len()..]).next();
            assert!(
                missing.is_none_or(|line| u128::from(number_of(line).unwrap()) >= place),
                "user {}: the mark {place} is above what has come",
                self.id
            );
            self.next = self.next.max(Some(place));
        } else {
            assert!(self.next.is_none_or(|next| next == place), "user {}: {text}", self.id);
            (self.epoch, self.next) = (fields[1].to_owned(), Some(place));
        }
        self.told = place;
        std::mem::replace(&mut self.is_answered, true)
    }

    fn take_event(&mut self, line: &[u8]) {
        assert!(self.is_answered, "the answer comes before anything else");
        let number = u128::from(number_of(line).unwrap());
        assert!(self.next <= Some(number), "user {}: {number} came after {:?}", self.id, self.next);
        self.next = Some(number + 1);
        self.got.extend_from_slice(line);
    }
}

/// The visitors outlive the servers.
struct Visit(Rc<RefCell<Visitors>>);

impl Script for Visit {
    fn next_at(&mut self, _: &World) -> Option<Micros> {
        Some(self.0.borrow().at)
    }

    fn happen(&mut self, world: &mut World) {
        let mut visitors = self.0.borrow_mut();
        visitors.at += STEP;
        assert!(
            visitors.at < 100_000 * STEP,
            "it does not come to an end: {:?}",
            visitors.clients.iter().map(|client| client.progress(&visitors.owed)).collect::<Vec<_>>()
        );
        let Visitors { is_calm, clients, owed, .. } = &*visitors;
        if is_calm.get() && clients.iter().all(|client| client.got.len() == owed[client.id as usize].len()) {
            // So that the server wakes up.
            world.signal();
        }
        visitors.send_events(world);
        for index in 0..visitors.clients.len() {
            visitors.visit(index, world);
        }
    }
}

/// One run. Returns what has happened.
fn run(seed: u64) -> Counts {
    let mut dice = Random::new(seed ^ 0x5eed);
    let timeout = [200, 1_000_000][dice.below(2) as usize];
    let config = Config {
        event_timeout_ms: -1,
        reorder_capacity: 128,
        user_buffer_bytes: [1, 300, 4096, 1 << 20][dice.below(4) as usize],
        slow_user_policy: [SlowUserPolicy::Journal, SlowUserPolicy::Journal, SlowUserPolicy::Wait]
            [dice.below(3) as usize],
        slow_user_timeout_ms: timeout,
        user_mark_ms: [7, 50, 0][dice.below(3) as usize],
        journal_directory: Some("journal".into()),
        journal_sync: [SyncMode::Always, SyncMode::Interval, SyncMode::Never][dice.below(3) as usize],
        journal_sync_interval_ms: 20,
        journal_segment_bytes: 4096 << dice.below(5),
        journal_retention_bytes: 1 << 19,
        ..Config::default()
    };
    let folder = SimFolder::new(seed);
    let visitors = Rc::new(RefCell::new(Visitors::new(seed)));
    let owed = Rc::clone(&visitors.borrow().owed);
    let is_calm = Rc::clone(&visitors.borrow().is_calm);
    let lives = 1 + dice.below(4);
    for life in 0..=lives {
        is_calm.set(life == lives);
        let length = (100 + dice.below(400)) * STEP;
        let net = SimNet::with_disk(Visit(Rc::clone(&visitors)), folder.clone());
        let mut server = Server::recover(config.clone(), net.clone(), Box::new(folder.disk()), || 0).unwrap();
        let cursor = server.snapshot().cursor;
        visitors.borrow_mut().begin_life(cursor);
        let mut turns = 0;
        loop {
            let now = net.shared().world.now();
            folder.set_now(now);
            let everything_came = {
                let clients = &visitors.borrow().clients;
                clients.iter().all(|client| client.got.len() == owed[client.id as usize].len())
            };
            if (!is_calm.get() && now >= length) || (is_calm.get() && everything_came) {
                break;
            }
            turns += 1;
            assert!(
                turns < 40_000,
                "seed {seed}: it does not come to an end: {config:?}, now {now}, {} sent, cursor {}, {:?}",
                visitors.borrow().sent,
                server.snapshot().cursor,
                visitors.borrow().clients.iter().map(|client| client.progress(&owed)).collect::<Vec<_>>()
            );
            server.turn().unwrap();
        }
        // SIGKILL.
        drop(server);
        folder.end_process();
        let counts = &mut visitors.borrow_mut().counts;
        counts.restarts += u32::from(life > 0);
        let has_snapshot = folder.names().iter().any(|(name, _)| name.ends_with(".fns"));
        counts.lives_with_snapshots += u32::from(has_snapshot);
    }
    let visitors = visitors.borrow();
    for client in &visitors.clients {
        assert!(client.got == owed[client.id as usize], "seed {seed}: user {}", client.id);
    }
    visitors.counts
}

#[test]
fn who_resumes_ends_with_one_uninterrupted_stream() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (first, seeds) = (number("SEED").unwrap_or(0), number("SEEDS").unwrap_or(8));
    let mut all = Counts::default();
    for seed in first..first + seeds {
        let counts = run(seed);
        all.resumed += counts.resumed;
        all.taken_over += counts.taken_over;
        all.cut_off += counts.cut_off;
        all.marks += counts.marks;
        all.restarts += counts.restarts;
        all.lives_with_snapshots += counts.lives_with_snapshots;
    }
    println!("{all:?}");
    let Counts { resumed, taken_over, cut_off, marks, restarts, lives_with_snapshots } = all;
    assert!(
        [resumed, taken_over, cut_off, marks, restarts, lives_with_snapshots].iter().all(|&n| n > 0),
        "{all:?}"
    );
}
