//! Users that resume, on simulated sockets and a simulated disk: they leave at any moment, in the middle of a line, come back with
//! what they have, take themselves over, read slowly, and the server is killed meanwhile. Each must end with the one stream that
//! a user receives that was connected all the time (docs/SPEC.md section 10).

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use fortnight::internals::{
    config::{Config, SlowUserPolicy},
    journal::SyncMode,
    server::{Phase, Server, net::Port},
    sim::{Peer, Script, SimFolder, SimNet, World},
    time::{MILLISECOND, Micros},
};
use support::{
    model::{Model, number_of},
    stream::{Random, lines},
};

const STEP: Micros = 5 * MILLISECOND;

/// How much happens in one run.
#[derive(Clone, Copy, Debug)]
struct Size {
    users: u64,
    events: u64,
    /// Steps of a life at most.
    steps: u64,
}

impl Size {
    /// Buffers fill, and journals have snapshots and many segments.
    const LONG: Size = Size { users: 20, events: 8000, steps: 500 };
    /// For many seeds: most of what happens is a login, an end, or a meeting of both.
    const SHORT: Size = Size { users: 5, events: 400, steps: 40 };
}

/// Ids of strangers, who log in at any place, besides those of the users.
const STRANGERS: u64 = 2;

/// How often each kind of thing happens.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    resumed: u32,
    taken_over: u32,
    cut_off: u32,
    marks: u32,
    restarts: u32,
    lives_with_snapshots: u32,
    /// The machine ended, and what was not durable may be lost.
    machine_ends: u32,
    /// The server ended on a signal.
    graceful_ends: u32,
    /// Strangers by the place that they asked for, and who of them was refused.
    asked_past: u32,
    asked_edge: u32,
    asked_ahead: u32,
    asked_other_epoch: u32,
    asked_by_word: u32,
    gone: u32,
    epoch_refused: u32,
}

impl Counts {
    fn all(&mut self) -> [&mut u32; 15] {
        let Counts { resumed, taken_over, cut_off, marks, restarts, lives_with_snapshots, .. } = self;
        let Counts { machine_ends, graceful_ends, asked_past, asked_edge, asked_ahead, .. } = self;
        let Counts { asked_other_epoch, asked_by_word, gone, epoch_refused, .. } = self;
        [
            resumed,
            taken_over,
            cut_off,
            marks,
            restarts,
            lives_with_snapshots,
            machine_ends,
            graceful_ends,
            asked_past,
            asked_edge,
            asked_ahead,
            asked_other_epoch,
            asked_by_word,
            gone,
            epoch_refused,
        ]
    }

    fn add(&mut self, mut other: Counts) {
        for (sum, count) in self.all().into_iter().zip(other.all()) {
            *sum += *count;
        }
    }
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
    /// It takes nothing for this number of steps.
    sleeps: u64,
}

/// Plays the source and the users.
struct Visitors {
    random: Random,
    stream: Vec<Vec<u8>>,
    /// What everybody is owed.
    owed: Rc<Vec<Vec<u8>>>,
    clients: Vec<Client>,
    strangers: Vec<Stranger>,
    folder: SimFolder,
    /// The epoch that a user was told last.
    epoch: String,
    source: Option<Peer>,
    sent: usize,
    at: Micros,
    /// Nobody leaves any more, and everybody takes everything.
    is_calm: Rc<Cell<bool>>,
    counts: Counts,
}

fn events(size: Size, random: &mut Random) -> Vec<Vec<u8>> {
    let ids = size.users + STRANGERS;
    let mut line = |number: u64| {
        let (from, to) = (random.below(ids), random.below(ids));
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
    (1..=size.events).map(&mut line).collect()
}

impl Visitors {
    fn new(size: Size, seed: u64, folder: SimFolder) -> Visitors {
        let mut random = Random::new(seed);
        let stream = events(size, &mut random);
        let mut model = Model::new();
        let ids = 0..size.users + STRANGERS;
        ids.clone().for_each(|id| drop(model.login(id)));
        stream.iter().for_each(|line| model.release(line));
        let owed = ids.map(|id| model.told(id).unwrap().to_vec()).collect();
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
        let clients = (0..size.users).map(&mut client).collect();
        let stranger =
            |id| Stranger { id, peer: None, asked: Asked::Word, answer: None, partial: Vec::new(), rest: 0 };
        let strangers = (size.users..size.users + STRANGERS).map(stranger).collect();
        Visitors {
            random,
            stream,
            owed: Rc::new(owed),
            clients,
            strangers,
            folder,
            epoch: String::new(),
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
        for stranger in &mut self.strangers {
            stranger.peer = None;
        }
    }

    fn send_events(&mut self, world: &mut World) {
        let Some(source) = self.source.or_else(|| world.connect(Port::Source)) else { return };
        self.source = Some(source);
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
            if (is_calm || chance < 10) && client.log_in(world) {
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
        self.counts.marks += client.take(&came, &self.owed[index], &mut self.counts.gone);
        self.epoch.clone_from(&client.epoch);
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

    /// A stranger comes, at a place that is drawn, or goes.
    fn meet(&mut self, index: usize, world: &mut World) {
        let chance = self.random.below(100);
        if self.strangers[index].peer.is_none() {
            // Where all is calm, nobody new comes.
            if !self.is_calm.get() && chance < 15 {
                let (asked, login) = self.draw_place(self.strangers[index].id);
                self.strangers[index].come(asked, &login, world);
            }
            return;
        }
        let (stranger, owed) = (&mut self.strangers[index], &self.owed);
        let owed = &owed[stranger.id as usize];
        stranger.read(owed, world, &mut self.counts);
        if chance < 5 && !self.is_calm.get() {
            stranger.go(world);
        }
    }

    fn draw_place(&mut self, id: u64) -> (Asked, String) {
        let kind = if self.epoch.is_empty() { 6 } else { self.random.below(7) };
        let sent = self.sent as u64 + 1;
        let place = match kind {
            0 | 1 => {
                self.counts.asked_past += 1;
                1 + self.random.below(sent)
            }
            2 | 3 => {
                self.counts.asked_edge += 1;
                // Files of the journal are named by numbers.
                let names = self.folder.names();
                let edges: Vec<u64> = names
                    .iter()
                    .flat_map(|(name, _)| name.split(['-', '.']))
                    .filter_map(|part| part.parse().ok())
                    .collect();
                let edge = edges.get(self.random.below(edges.len().max(1) as u64) as usize).copied();
                (edge.unwrap_or(1) + self.random.below(3)).saturating_sub(1).max(1)
            }
            4 => {
                self.counts.asked_ahead += 1;
                sent + self.random.below(6)
            }
            5 => {
                self.counts.asked_other_epoch += 1;
                let place = 1 + self.random.below(sent);
                return (Asked::OtherEpoch, format!("{id}|{place}|0123456789abcdef\n"));
            }
            _ => {
                self.counts.asked_by_word += 1;
                let word = ["now", "oldest"][self.random.below(2) as usize];
                return (Asked::Word, format!("{id}|{word}\n"));
            }
        };
        (Asked::Place(place.into()), format!("{id}|{place}|{}\n", self.epoch))
    }
}

/// What a stranger has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Place(u128),
    OtherEpoch,
    Word,
}

/// A stranger that asks for some place.
struct Stranger {
    id: u64,
    peer: Option<Peer>,
    asked: Asked,
    /// The place that it was given.
    answer: Option<u128>,
    partial: Vec<u8>,
    /// Where the next line begins in the bytes that it is owed.
    rest: usize,
}

impl Stranger {
    fn come(&mut self, asked: Asked, login: &str, world: &mut World) {
        let Some(peer) = world.connect(Port::User) else { return };
        world.send(peer, login.as_bytes());
        (self.peer, self.asked, self.answer) = (Some(peer), asked, None);
        self.partial.clear();
    }

    fn go(&mut self, world: &mut World) {
        if let Some(peer) = self.peer.take() {
            world.close(peer);
            world.forget(peer);
        }
    }

    fn read(&mut self, owed: &[u8], world: &mut World, counts: &mut Counts) {
        let Some(peer) = self.peer else { return };
        let came = world.take_received(peer, <[u8]>::to_vec).unwrap_or_default();
        self.partial.extend_from_slice(&came);
        let whole = self.partial.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let text: Vec<u8> = self.partial.drain(..whole).collect();
        for line in lines(&text) {
            let shown = String::from_utf8_lossy(line).trim_end().to_owned();
            let fields: Vec<_> = shown.split('|').collect();
            match (line[0], self.answer) {
                (b'+', None) => {
                    let place: u128 = fields[2].parse().unwrap();
                    assert!(self.asked != Asked::OtherEpoch, "{shown}");
                    assert!(
                        matches!(self.asked, Asked::Word) || self.asked == Asked::Place(place),
                        "{shown}"
                    );
                    self.answer = Some(place);
                    self.rest = below(owed, place);
                }
                (b'+', Some(place)) => assert!(fields[2].parse::<u128>().unwrap() >= place, "{shown}"),
                (b'-', None) if fields[3] == "gone" => {
                    let first: u128 = fields[2].parse().unwrap();
                    assert!(matches!(self.asked, Asked::Place(place) if place < first), "{shown}");
                    counts.gone += 1;
                }
                (b'-', None) if fields[3] == "epoch" => counts.epoch_refused += 1,
                (b'-', _) => assert!(["slow", "closed"].contains(&fields[3]), "{shown}"),
                (_, None) => panic!("the answer comes before anything else: {shown}"),
                (_, Some(_)) => {
                    assert!(owed[self.rest..].starts_with(line), "stranger {}: {shown}", self.id);
                    self.rest += line.len();
                }
            }
        }
        if world.has_finished(peer) {
            self.go(world);
        }
    }

    /// It has everything that it was promised, or is not there.
    fn has_all(&self, owed: &[u8]) -> bool {
        self.peer.is_none() || (self.answer.is_some() && self.rest == owed.len())
    }
}

/// Bytes of the lines below a number.
fn below(owed: &[u8], place: u128) -> usize {
    let is_below = |line: &&[u8]| u128::from(number_of(line).unwrap()) < place;
    lines(owed).take_while(is_below).map(<[u8]>::len).sum()
}

impl Client {
    /// For a person: what it waits for.
    fn progress(&self, owed: &[Vec<u8>]) -> String {
        let missing = owed[self.id as usize].len() - self.got.len();
        format!("{}: {:?}, {missing} bytes missing, connected {}", self.id, self.next, self.peer.is_some())
    }

    /// False: nobody is let in any more.
    fn log_in(&mut self, world: &mut World) -> bool {
        let Some(peer) = world.connect(Port::User) else { return false };
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
        true
    }

    fn drop_connection(&mut self, world: &mut World) {
        if let Some(peer) = self.peer.take() {
            world.close(peer);
            world.forget(peer);
        }
    }

    /// Takes what has come. Returns how many marks there were.
    fn take(&mut self, bytes: &[u8], owed: &[u8], gone: &mut u32) -> u32 {
        self.partial.extend_from_slice(bytes);
        let whole = self.partial.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let text: Vec<u8> = self.partial.drain(..whole).collect();
        let mut marks = 0;
        for line in lines(&text) {
            match line[0] {
                b'+' => marks += u32::from(self.take_place(line, owed)),
                b'-' => {
                    let text = std::str::from_utf8(line).unwrap().trim_end();
                    let fields: Vec<_> = text.split('|').collect();
                    if fields[3] == "gone" {
                        // It goes on with what is kept.
                        let first: u128 = fields[2].parse().unwrap();
                        assert!(self.next.is_some_and(|next| next < first), "{text}");
                        (self.next, self.epoch) = (Some(first), fields[1].to_owned());
                        self.got = owed[..below(owed, first)].to_vec();
                        *gone += 1;
                    } else {
                        assert!(["replaced", "slow", "closed"].contains(&fields[3]), "{text}");
                    }
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
        for index in 0..visitors.strangers.len() {
            visitors.meet(index, world);
        }
    }
}

/// What a run's server is told.
fn config_of(size: Size, dice: &mut Random) -> Config {
    Config {
        event_timeout_ms: -1,
        reorder_capacity: 128,
        user_buffer_bytes: [1, 300, 4096, 1 << 20][dice.below(4) as usize],
        slow_user_policy: [SlowUserPolicy::Journal, SlowUserPolicy::Journal, SlowUserPolicy::Wait]
            [dice.below(3) as usize],
        slow_user_timeout_ms: [200, 1_000_000][dice.below(2) as usize],
        user_mark_ms: [7, 50, 0][dice.below(3) as usize],
        journal_directory: Some("journal".into()),
        journal_sync: [SyncMode::Always, SyncMode::Interval, SyncMode::Never][dice.below(3) as usize],
        journal_sync_interval_ms: 20,
        journal_segment_bytes: if size.events > 1000 { 4096 << dice.below(5) } else { 1024 << dice.below(3) },
        journal_retention_bytes: [1 << 19, 1 << 19, 6 << 10][dice.below(3) as usize],
        ..Config::default()
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Kill,
    Machine,
    Signal,
}

/// One run. Returns what has happened.
fn run(size: Size, seed: u64) -> Counts {
    let mut dice = Random::new(seed ^ 0x5eed);
    let config = config_of(size, &mut dice);
    let folder = SimFolder::new(seed);
    let visitors = Rc::new(RefCell::new(Visitors::new(size, seed, folder.clone())));
    let owed = Rc::clone(&visitors.borrow().owed);
    let is_calm = Rc::clone(&visitors.borrow().is_calm);
    let lives = 1 + dice.below(4);
    for life in 0..=lives {
        is_calm.set(life == lives);
        let length = (size.steps / 5 + dice.below(4 * size.steps / 5)) * STEP;
        let end = [End::Kill, End::Machine, End::Signal][dice.below(3) as usize];
        let net = SimNet::with_disk(Visit(Rc::clone(&visitors)), folder.clone());
        let mut server = Server::recover(config.clone(), net.clone(), Box::new(folder.disk()), || 0).unwrap();
        let cursor = server.snapshot().cursor;
        visitors.borrow_mut().begin_life(cursor.get());
        let (mut turns, mut is_told) = (0, false);
        loop {
            let now = net.shared().world.now();
            folder.set_now(now);
            let everything_came = {
                let Visitors { clients, strangers, .. } = &*visitors.borrow();
                clients.iter().all(|client| client.got.len() == owed[client.id as usize].len())
                    && strangers.iter().all(|stranger| stranger.has_all(&owed[stranger.id as usize]))
            };
            let is_over = if is_calm.get() { everything_came } else { now >= length };
            if is_over && (is_calm.get() || end != End::Signal) {
                break;
            }
            if is_over && !std::mem::replace(&mut is_told, true) {
                net.shared().world.signal();
            }
            if matches!(server.phase(), Phase::Done { .. }) {
                break;
            }
            turns += 1;
            assert!(
                turns < 400_000,
                "seed {seed}: it does not come to an end: {config:?}, now {now}, {} sent, cursor {}, {:?}",
                visitors.borrow().sent,
                server.snapshot().cursor,
                visitors.borrow().clients.iter().map(|client| client.progress(&owed)).collect::<Vec<_>>()
            );
            server.turn().unwrap();
        }
        drop(server);
        if end == End::Machine {
            folder.end_machine();
        } else {
            folder.end_process();
        }
        let counts = &mut visitors.borrow_mut().counts;
        counts.restarts += u32::from(life > 0);
        counts.machine_ends += u32::from(end == End::Machine);
        counts.graceful_ends += u32::from(is_told);
        let has_snapshot = folder.names().iter().any(|(name, _)| name.ends_with(".fns"));
        counts.lives_with_snapshots += u32::from(has_snapshot);
    }
    let visitors = visitors.borrow();
    for client in &visitors.clients {
        assert!(client.got == owed[client.id as usize], "seed {seed}: user {}", client.id);
    }
    visitors.counts
}

/// `SEED`, `SEEDS`: other ones, and how many. Returns what has happened, if that is enough to be judged.
fn run_many(size: Size, usual: u64) -> Option<Counts> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (first, seeds) = (number("SEED").unwrap_or(0), number("SEEDS").unwrap_or(usual));
    let mut all = Counts::default();
    for seed in first..first + seeds {
        // A seed that fails is named by the output of the test.
        println!("seed {seed}");
        all.add(run(size, seed));
    }
    println!("{seeds} seeds: {all:?}");
    (seeds >= usual).then_some(all)
}

#[test]
fn who_resumes_ends_with_one_uninterrupted_stream() {
    if let Some(mut counts) = run_many(Size::LONG, 8) {
        assert!(counts.all().iter().all(|count| **count > 0), "{counts:?}");
    }
}

#[test]
fn who_resumes_in_short_lives_ends_with_one_uninterrupted_stream() {
    if let Some(mut counts) = run_many(Size::SHORT, 200) {
        // Such a journal is too small for a snapshot, and nothing of it goes.
        (counts.lives_with_snapshots, counts.gone) = (1, 1);
        assert!(counts.all().iter().all(|count| **count > 0), "{counts:?}");
    }
}
