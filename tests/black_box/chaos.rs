//! docs/SPEC.md section 11 on the real thing, while every process is killed and stopped at random: `make chaos MINUTES=N`, and a
//! short one in `make test`. Two sequencers, three NATS servers, two edges with journals, two sources that honour acknowledgements,
//! and users that resume at any edge. At the end everybody has exactly what the model says, and both edges have every number once.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::journal::Folder;
use crate::replicated::RETENTION;
use support::model::{Model, number_of};
use support::nats::Nats;
use support::stream::Random;
use support::{Server, Signal, launch, only_in_clear, private_address};

const USERS: u64 = 8;
const SOURCES: u64 = 2;
/// Events a second.
const RATE: u64 = 1500;
/// Unacknowledged events of a source.
const AHEAD: u64 = 8000;
/// How long it is raged where nobody says for how many minutes.
const SHORT: Duration = Duration::from_secs(12);
const NAMES: [&str; 7] = ["nats 0", "nats 1", "nats 2", "sequencer 0", "sequencer 1", "edge 0", "edge 1"];
const FIRST_SEQUENCER: usize = 3;
const FIRST_EDGE: usize = 5;

/// What a thread does.
type Work = Box<dyn FnOnce(&World) -> Vec<u8> + Send>;

/// What all threads know.
struct World {
    seed: u64,
    addresses: Mutex<[SocketAddr; 7]>,
    /// The last number that may be sent by now, and the last one of all.
    allowed: AtomicU64,
    last: AtomicU64,
    /// Everything below is acknowledged.
    acknowledged: AtomicU64,
    epoch: Mutex<Option<String>>,
    /// Users that have a place.
    placed: AtomicUsize,
    resumes: AtomicUsize,
    refused: AtomicUsize,
    deadline: Mutex<Option<Instant>>,
}

impl World {
    fn address(&self, index: usize) -> SocketAddr {
        self.addresses.lock().unwrap()[index]
    }

    /// The event with this number.
    fn line(&self, number: u64) -> String {
        let mut random = Random::new(self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (a, b) = (1 + random.below(USERS), 1 + random.below(USERS));
        match random.below(10) {
            0 | 1 => format!("{number}|F|{a}|{b}\n"),
            2 => format!("{number}|U|{a}|{b}\r\n"),
            3 => format!("{number}|B\n"),
            4 | 5 => format!("{number}|P|{a}|{b}\n"),
            _ => format!("{number}|S|{a}\n"),
        }
    }

    /// The one epoch that there is.
    fn see_epoch(&self, epoch: &str) {
        let mut known = self.epoch.lock().unwrap();
        let known = known.get_or_insert_with(|| epoch.to_owned());
        assert_eq!(known, epoch, "the stream has become another one");
    }

    #[track_caller]
    fn check_time(&self, what: impl Fn() -> String) {
        let deadline = *self.deadline.lock().unwrap();
        assert!(deadline.is_none_or(|at| Instant::now() < at), "not finished: {}", what());
    }
}

/// A connection whose lines are read with patience.
struct Lines {
    reader: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Lines {
    fn connect(address: SocketAddr, patience: Duration, request: &str) -> std::io::Result<Lines> {
        let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(Duration::from_secs(2)))?;
        socket.set_nodelay(true)?;
        socket.write_all(request.as_bytes())?;
        Ok(Lines { reader: BufReader::new(socket), line: Vec::new() })
    }

    /// A whole line; `None`: there is none yet.
    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        match self.reader.read_until(b'\n', &mut self.line) {
            Ok(_) if self.line.ends_with(b"\n") => Ok(Some(std::mem::take(&mut self.line))),
            Ok(_) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The first line, which must come within some seconds.
    fn answer(&mut self) -> std::io::Result<Vec<u8>> {
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            if let Some(line) = self.next()? {
                return Ok(line);
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}

/// Epoch and number of a line `+|EPOCH|NUMBER`.
fn place(line: &[u8]) -> Option<(String, u64)> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    let (epoch, number) = text.strip_prefix("+|")?.split_once('|')?;
    Some((epoch.to_owned(), number.parse().ok()?))
}

/// A source of the numbers that leave this rest, until all of them are acknowledged.
fn source(world: &World, rest: u64) {
    let mut told = 0;
    for turn in 0.. {
        if told > world.last.load(SeqCst) {
            return;
        }
        world.check_time(|| format!("source {rest} is acknowledged {told}"));
        let address = world.address(FIRST_SEQUENCER + turn % 2);
        let _ = feed(world, address, rest, &mut told);
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn feed(world: &World, address: SocketAddr, rest: u64, told: &mut u64) -> std::io::Result<()> {
    let request = format!("?|ack|source{rest}\n");
    let mut lines = Lines::connect(address, Duration::from_millis(20), &request)?;
    let mut heard = Instant::now();
    let take = |line: &[u8], told: &mut u64| {
        let (epoch, number) = place(line).expect("an acknowledgement");
        world.see_epoch(&epoch);
        assert!(number >= *told, "{told} was acknowledged, and now {number} is");
        if number > *told {
            *told = number;
            world.acknowledged.fetch_max(number, SeqCst);
        }
    };
    take(&lines.answer()?, told);
    let mut next = *told;
    loop {
        if *told > world.last.load(SeqCst) {
            return Ok(());
        }
        world.check_time(|| format!("source {rest} is acknowledged {told}, has sent {next}"));
        let most = world.allowed.load(SeqCst).min(*told + AHEAD);
        let chunk: String = (next..=most).filter(|n| n % SOURCES == rest).map(|n| world.line(n)).collect();
        next = next.max(most + 1);
        lines.reader.get_mut().write_all(chunk.as_bytes())?;
        match lines.next()? {
            Some(line) => {
                take(&line, told);
                heard = Instant::now();
            }
            // Perhaps it is stopped: the other one may lead.
            None if heard.elapsed() > Duration::from_secs(6) && *told < next => return Ok(()),
            None => {}
        }
    }
}

/// A user: everything that it has been sent, over all its connections.
fn user(world: &World, id: u64) -> Vec<u8> {
    let (mut got, mut next) = (Vec::new(), 0);
    let mut random = Random::new(world.seed + id);
    loop {
        if next > world.last.load(SeqCst) {
            return got;
        }
        world.check_time(|| format!("user {id} is at {next}"));
        let address = world.address(FIRST_EDGE + random.below(2) as usize);
        let _ = listen(world, address, id, &mut random, &mut next, &mut got);
        std::thread::sleep(Duration::from_millis(20 + random.below(100)));
    }
}

fn listen(
    world: &World,
    address: SocketAddr,
    id: u64,
    random: &mut Random,
    next: &mut u64,
    got: &mut Vec<u8>,
) -> std::io::Result<()> {
    let epoch = world.epoch.lock().unwrap().clone();
    let request = match epoch {
        Some(epoch) if *next > 0 => format!("{id}|{next}|{epoch}\n"),
        _ => format!("{id}|now\n"),
    };
    let mut lines = Lines::connect(address, Duration::from_millis(250), &request)?;
    let answer = lines.answer()?;
    let Some((epoch, from)) = place(&answer) else {
        world.refused.fetch_add(1, SeqCst);
        assert!(
            !answer.ends_with(b"|gone\n"),
            "an edge has lost what user {id} wants: {}",
            answer.escape_ascii()
        );
        return Ok(());
    };
    world.see_epoch(&epoch);
    if *next == 0 {
        (*next, _) = (from, world.placed.fetch_add(1, SeqCst));
    }
    assert_eq!(from, *next, "user {id}");
    world.resumes.fetch_add(1, SeqCst);
    let mut heard = Instant::now();
    let stay = Duration::from_millis(200 + random.below(20_000));
    let since = Instant::now();
    while since.elapsed() < stay && heard.elapsed() < Duration::from_secs(3) {
        if *next > world.last.load(SeqCst) {
            return Ok(());
        }
        world.check_time(|| format!("user {id} is at {next}"));
        let Some(line) = lines.next()? else { continue };
        heard = Instant::now();
        if let Some((_, mark)) = place(&line) {
            // It names what is durable only, which may be less than what has been sent.
            *next = mark.max(*next);
        } else if line.starts_with(b"-") {
            return Ok(());
        } else {
            let number = number_of(&line).expect("an event");
            assert!(number >= *next, "user {id} has everything below {next}, and is sent {number} again");
            *next = number + 1;
            got.extend(line);
        }
    }
    Ok(())
}

/// The servers, and what has been done to them.
struct Machines {
    world: Arc<World>,
    nats: Nats,
    folders: [Folder; 2],
    servers: [Option<Server>; 4],
    /// The processes to start or continue, and when.
    down: Vec<(usize, bool, Instant)>,
    kills: [usize; 7],
    stops: [usize; 7],
    leaders: usize,
}

impl Machines {
    fn start(&mut self, index: usize) {
        if index < FIRST_SEQUENCER {
            return self.nats.restart(index);
        }
        let common = launch!(
            stream = self.nats.stream("chaos"),
            adminPort = 0,
            streamTakeoverMs = 4000,
            eventTimeoutMs = -1
        );
        let launch = if index < FIRST_EDGE {
            common
                .set("role", "sequencer")
                // It listens there again when it leads again: nobody else may have been given the port meanwhile.
                .set("eventSourceBindAddress", &private_address())
                .set("streamRetentionBytes", &(4 * RETENTION))
                .set("maxEventSourceClients", &4)
                .set("restartGraceMs", &1000)
        } else {
            common
                .set("role", "edge")
                .set("journalDirectory", &self.folders[index - FIRST_EDGE].show())
                .set("streamPort", &0)
                .set("userMarkMs", &200)
        };
        let server = launch.start();
        let address = if index < FIRST_EDGE { server.sources } else { server.users };
        self.world.addresses.lock().unwrap()[index] = address;
        self.servers[index - FIRST_SEQUENCER] = Some(server);
    }

    fn signal(&self, index: usize, signal: Signal) {
        match index.checked_sub(FIRST_SEQUENCER) {
            None => self.nats.signal(index, signal),
            Some(server) => self.servers[server].iter().for_each(|server| server.signal(signal)),
        }
    }

    fn hit(&mut self, index: usize, random: &mut Random) {
        let long = if random.below(4) == 0 { 8000 } else { 1500 };
        let until = Instant::now() + Duration::from_millis(20 + random.below(long));
        let killed = random.below(2) == 0;
        if killed {
            self.kills[index] += 1;
            match index.checked_sub(FIRST_SEQUENCER) {
                None => self.nats.kill(index),
                Some(server) => drop(self.servers[server].take()),
            }
        } else {
            self.stops[index] += 1;
            self.signal(index, Signal::STOP);
        }
        self.down.push((index, killed, until));
    }

    fn revive(&mut self, all: bool) {
        let due = |&(_, _, until): &(usize, bool, Instant)| all || until <= Instant::now();
        let (due, down): (Vec<_>, Vec<_>) = self.down.drain(..).partition(due);
        self.down = down;
        for (index, killed, _) in due {
            if killed { self.start(index) } else { self.signal(index, Signal::CONT) }
        }
    }

    fn is_down(&self, index: usize) -> bool {
        self.down.iter().any(|&(down, ..)| down == index)
    }

    /// The sequencer that listens.
    fn leader(&self) -> Option<usize> {
        (FIRST_SEQUENCER..FIRST_EDGE).find(|&index| {
            let timeout = Duration::from_millis(200);
            !self.is_down(index) && TcpStream::connect_timeout(&self.world.address(index), timeout).is_ok()
        })
    }

    /// The process to hit: leaders more often.
    fn choose(&mut self, random: &mut Random) -> usize {
        let mut weights = [1; 7];
        if let Some(leader) = self.nats.leader("chaos") {
            weights[leader] = 4;
        }
        if let Some(leader) = self.leader() {
            weights[leader] = 4;
        }
        let mut drawn = random.below(weights.iter().sum());
        for (index, weight) in weights.into_iter().enumerate() {
            if drawn < weight {
                self.leaders += usize::from(weight > 1);
                return index;
            }
            drawn -= weight;
        }
        0
    }

    /// Nobody has ended by itself.
    fn check(&mut self) {
        for (server, name) in self.servers.iter_mut().zip(&NAMES[FIRST_SEQUENCER..]) {
            if let Some(server) = server {
                assert!(server.is_running(), "{name} has ended:\n{}", server.log());
            }
        }
    }

    fn show(&self) {
        for (server, name) in self.servers.iter().zip(&NAMES[FIRST_SEQUENCER..]) {
            let log = server.as_ref().map(Server::log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- {name}\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
        }
    }
}

/// Kills and stops for so long. Gives how long nothing was acknowledged, each time that it was longer than a second.
fn rage(
    machines: &mut Machines,
    random: &mut Random,
    time: Duration,
    threads: &[JoinHandle<Vec<u8>>],
) -> Vec<Duration> {
    let (begun, world) = (Instant::now(), machines.world.clone());
    let (mut pauses, mut grown, mut seen, mut next) = (Vec::new(), Instant::now(), 0, Instant::now());
    let mut sent = 0.0;
    let mut last_turn = Instant::now();
    while begun.elapsed() < time {
        std::thread::sleep(Duration::from_millis(20));
        // What is not acknowledged for long is not made more: a source sends no faster after a pause.
        sent += last_turn.elapsed().as_secs_f64() * RATE as f64;
        last_turn = Instant::now();
        let acknowledged = world.acknowledged.load(SeqCst);
        sent = sent.min((acknowledged + AHEAD) as f64);
        world.allowed.store(sent as u64, SeqCst);
        if acknowledged > seen {
            if grown.elapsed() > Duration::from_secs(1) && seen > 0 {
                pauses.push(grown.elapsed());
            }
            (seen, grown) = (acknowledged, Instant::now());
        }
        machines.revive(false);
        machines.check();
        if threads.iter().any(JoinHandle::is_finished) {
            break;
        }
        if next <= Instant::now() && machines.down.len() < 3 {
            let index = machines.choose(random);
            if !machines.is_down(index) {
                machines.hit(index, random);
            }
            next = Instant::now() + Duration::from_millis(200 + random.below(2500));
        }
    }
    pauses
}

/// Every line that an edge has, from the first one on.
fn everything(edge: &Server, epoch: &str, last: u64) -> Vec<u8> {
    let request = format!("*|1|{epoch}\n");
    let mut lines = Lines::connect(edge.stream(), Duration::from_secs(30), &request).expect("a stream");
    let (mut got, mut next) = (Vec::new(), 0);
    while next <= last {
        let line = lines.next().expect("a line").expect("a line in time");
        match place(&line) {
            Some((_, mark)) => next = mark,
            None => got.extend(line),
        }
    }
    got
}

#[test]
fn whatever_is_killed_nothing_is_lost_and_nothing_is_repeated() {
    if only_in_clear("its sources and users speak in clear") {
        return;
    }
    let minutes =
        std::env::var("CHAOS_MINUTES").ok().map(|text| text.parse::<f64>().expect("CHAOS_MINUTES: a number"));
    // A short one is part of every run of the tests.
    let time = minutes.map_or(SHORT, |minutes| Duration::from_secs_f64(60.0 * minutes));
    let seed = std::env::var("CHAOS_SEED").ok().map(|text| text.parse().expect("CHAOS_SEED: a number"));
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    let Some(nats) = Nats::start(3) else { return };
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let world = Arc::new(World {
        seed,
        addresses: Mutex::new([nowhere; 7]),
        allowed: AtomicU64::new(0),
        last: AtomicU64::new(u64::MAX - 1),
        acknowledged: AtomicU64::new(0),
        epoch: Mutex::new(None),
        placed: AtomicUsize::new(0),
        resumes: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        deadline: Mutex::new(None),
    });
    let mut machines = Machines {
        world: world.clone(),
        nats,
        folders: [Folder::new("chaos-0"), Folder::new("chaos-1")],
        servers: [None, None, None, None],
        down: Vec::new(),
        kills: [0; 7],
        stops: [0; 7],
        leaders: 0,
    };
    (FIRST_SEQUENCER..7).for_each(|index| machines.start(index));
    for edge in machines.servers.iter().flatten().skip(2) {
        edge.wait_for_log("has been reached");
    }
    let spawn = |work: Work| {
        let world = world.clone();
        std::thread::spawn(move || work(&world))
    };
    let mut threads: Vec<JoinHandle<Vec<u8>>> =
        (1..=USERS).map(|id| spawn(Box::new(move |world| user(world, id)))).collect();
    let until = Instant::now() + support::DEADLINE;
    while world.placed.load(SeqCst) < USERS as usize {
        assert!(Instant::now() < until, "users are not let in");
        std::thread::sleep(Duration::from_millis(10));
    }
    threads.extend((0..SOURCES).map(|rest| {
        spawn(Box::new(move |world: &World| {
            source(world, rest);
            Vec::new()
        }))
    }));
    let pauses = rage(&mut machines, &mut Random::new(seed), time, &threads);
    machines.revive(true);
    let last = world.allowed.load(SeqCst);
    world.last.store(last, SeqCst);
    *world.deadline.lock().unwrap() = Some(Instant::now() + Duration::from_secs(120));
    let ended: Vec<_> = threads.into_iter().map(JoinHandle::join).collect();
    report(&machines, time, last, &pauses);
    if ended.iter().any(Result::is_err) {
        machines.show();
        panic!("a source or a user has failed (seed {seed})");
    }
    machines.check();
    let lines: Vec<String> = (1..=last).map(|number| world.line(number)).collect();
    let mut model = Model::new();
    (1..=USERS).for_each(|id| assert!(model.login(id).is_none()));
    lines.iter().for_each(|line| model.release(line.as_bytes()));
    for (id, got) in (1..=USERS).zip(&ended) {
        let got = got.as_ref().expect("a user");
        assert!(
            got == model.told(id).expect("a user"),
            "user {id} has something else than it was owed (seed {seed})"
        );
    }
    let epoch = world.epoch.lock().unwrap().clone().expect("an epoch");
    for edge in machines.servers.iter().flatten().skip(2) {
        assert!(
            everything(edge, &epoch, last) == lines.concat().as_bytes(),
            "an edge has other lines (seed {seed})"
        );
    }
}

fn report(machines: &Machines, time: Duration, last: u64, pauses: &[Duration]) {
    let world = &machines.world;
    println!(
        "chaos: {} s, seed {}: {last} events, {USERS} users with {} logins ({} refused)",
        time.as_secs(),
        world.seed,
        world.resumes.load(SeqCst),
        world.refused.load(SeqCst),
    );
    for (index, name) in NAMES.iter().enumerate() {
        println!(
            "  {name:12} killed {:4} times, stopped {:4} times",
            machines.kills[index], machines.stops[index]
        );
    }
    let longest = pauses.iter().max().copied().unwrap_or_default().as_secs_f64();
    let total: f64 = pauses.iter().map(Duration::as_secs_f64).sum();
    println!(
        "  {} of these were leaders. Writing paused {} times for more than a second, {total:.1} s in all, {longest:.1} s at most",
        machines.leaders,
        pauses.len(),
    );
}
