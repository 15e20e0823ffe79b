//! Any stream, any split, any interleaving: each user gets exactly what the naive model says (SPEC sections 1 and 2).
//!
//! The real server runs on a simulated network, so time is the test's own. The model keeps what has arrived in a map
//! and, whenever something has happened, looks through all of it.

use std::collections::BTreeMap;

use fortnight::internals::{
    config::Config,
    server::{Server, net::Port},
    sim::{Fault, Operation, Peer, Schedule, Script, SimNet, World},
    time::{MILLISECOND, Micros},
};
use proptest::{prelude::*, sample::Index};
use support::model::{Model, in_order, number_of};

/// Time between two steps: no number of them comes to a whole number of milliseconds, so nothing happens at the
/// very moment in which holes are given up.
const STEP: Micros = MILLISECOND + 1;
const TIMEOUT_MS: i64 = 20;
const TIMEOUT: Micros = TIMEOUT_MS as Micros * MILLISECOND;

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A source sends this number of the next bytes of the stream.
    Send(usize),
    /// A connection logs in with this id.
    Login(u64),
    /// One of the connections hangs up.
    HangUp(Index),
    /// Nothing happens for this number of milliseconds.
    Wait(u64),
}

/// A whole case.
#[derive(Clone, Debug)]
struct Case {
    lines: Vec<String>,
    steps: Vec<Step>,
    cuts: Vec<usize>,
    capacity: usize,
    timeout_ms: i64,
}

/// An event that concerns few users, or a line that is none but has a number.
fn content() -> impl Strategy<Value = String> {
    let id = || prop_oneof![8 => 1..6u64, 1 => Just(u64::MAX), 1 => Just(1 << 32)];
    prop_oneof![
        3 => (id(), id()).prop_map(|(from, to)| format!("F|{from}|{to}\r\n")),
        1 => (id(), id()).prop_map(|(from, to)| format!("U|{from}|{to}\n")),
        2 => Just("B\n".to_owned()),
        2 => (id(), id()).prop_map(|(from, to)| format!("P|{from}|{to}\r\n")),
        4 => id().prop_map(|from| format!("S|{from}\n")),
        1 => id().prop_map(|from| format!("S|{from:090}\r\n")),
        1 => Just("X|1\n".to_owned()),
        1 => Just("S|-1\n".to_owned()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..200usize).prop_map(Step::Send),
        2 => (1..6u64).prop_map(Step::Login),
        1 => prop_oneof![Just(u64::MAX), Just(1 << 32)].prop_map(Step::Login),
        1 => any::<Index>().prop_map(Step::HangUp),
        1 => (1..30u64).prop_map(Step::Wait),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 5..60)
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![usize::MAX]), prop::collection::vec(1..60usize, 1..8)]
}

/// Every number once, each at most a ring away from its place.
fn complete() -> impl Strategy<Value = Case> {
    let lines = prop::collection::vec(content(), 1..200);
    (lines, prop::collection::vec(any::<Index>(), 200), 0..8u32, steps(), cuts()).prop_map(
        |(contents, swaps, log_capacity, steps, cuts)| {
            let capacity = 1 << log_capacity;
            let mut lines: Vec<String> = contents
                .iter()
                .enumerate()
                .map(|(index, content)| format!("{}|{content}", index + 1))
                .collect();
            for (batch, swaps) in lines.chunks_mut(capacity).zip(swaps.chunks(capacity)) {
                for (from, to) in swaps.iter().enumerate().take(batch.len()) {
                    batch.swap(from, to.index(batch.len()));
                }
            }
            Case { lines, steps, cuts, capacity, timeout_ms: -1 }
        },
    )
}

/// Numbers at random: some are missing, some come late, some twice.
fn ragged() -> impl Strategy<Value = Case> {
    let line = (0..12u64, content()).prop_map(|(ahead, content)| (ahead, content));
    (prop::collection::vec(line, 1..150), steps(), cuts()).prop_map(|(contents, steps, cuts)| {
        let numbered = contents.iter().enumerate();
        let lines = numbered.map(|(index, (ahead, content))| format!("{}|{content}", index as u64 + ahead));
        Case { lines: lines.collect(), steps, cuts, capacity: 256, timeout_ms: TIMEOUT_MS }
    })
}

/// What connections receive, in the order in which they came: the naive way.
fn expected(case: &Case) -> Vec<Vec<u8>> {
    let stream = case.lines.concat().into_bytes();
    let mut naive = Naive { cursor: 1, gives_up: case.timeout_ms >= 0, ..Naive::default() };
    let mut now = 0;
    let mut sent = 0;
    for step in &case.steps {
        now += STEP;
        if let Step::Wait(ms) = step {
            now += ms * MILLISECOND;
        }
        naive.expire(now);
        match step {
            Step::Send(len) => {
                let end = stream.len().min(sent + len);
                naive.arrive(&stream[sent..end], now);
                sent = end;
            }
            Step::Login(id) => naive.login(*id),
            Step::HangUp(index) => naive.hang_up(index),
            Step::Wait(_) => {}
        }
    }
    naive.expire(now + STEP);
    naive.arrive(&stream[sent..], now + STEP);
    naive.expire(Micros::MAX);
    for (connection, id) in std::mem::take(&mut naive.connected) {
        naive.received[connection] = naive.model.logout(id).unwrap();
    }
    naive.received
}

#[derive(Default)]
struct Naive {
    model: Model,
    cursor: u64,
    /// Missing events are not waited for for ever.
    gives_up: bool,
    carry: Vec<u8>,
    /// By number: when it arrived, and the line.
    waiting: BTreeMap<u64, (Micros, Vec<u8>)>,
    /// The connections that are there, and their ids.
    connected: Vec<(usize, u64)>,
    received: Vec<Vec<u8>>,
}

impl Naive {
    fn arrive(&mut self, bytes: &[u8], now: Micros) {
        self.carry.extend_from_slice(bytes);
        while let Some(newline) = self.carry.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.carry.drain(..=newline).collect();
            let number = number_of(&line).unwrap();
            if number >= self.cursor {
                self.waiting.entry(number).or_insert((now, line));
            }
            self.release();
        }
    }

    fn release(&mut self) {
        while let Some((_, line)) = self.waiting.remove(&self.cursor) {
            self.model.release(&line);
            self.cursor += 1;
        }
    }

    /// Gives up what has been waited for too long, the oldest first.
    fn expire(&mut self, now: Micros) {
        while self.gives_up {
            let overdue =
                |&(_, (arrived, _)): &(&u64, &(Micros, Vec<u8>))| arrived.saturating_add(TIMEOUT) <= now;
            let Some(oldest) = self.waiting.iter().filter(overdue).map(|(_, (arrived, _))| *arrived).min()
            else {
                return;
            };
            let last = self
                .waiting
                .iter()
                .filter(|(_, (arrived, _))| *arrived == oldest)
                .map(|(&number, _)| number)
                .max();
            while let Some(entry) = self.waiting.first_entry().filter(|entry| Some(*entry.key()) <= last) {
                self.cursor = entry.key() + 1;
                self.model.release(&entry.remove().1);
            }
            self.release();
        }
    }

    fn login(&mut self, id: u64) {
        if let Some(at) = self.connected.iter().position(|&(_, other)| other == id) {
            let (replaced, _) = self.connected.remove(at);
            self.received[replaced] = self.model.logout(id).unwrap();
        }
        self.model.login(id);
        self.connected.push((self.received.len(), id));
        self.received.push(Vec::new());
    }

    fn hang_up(&mut self, index: &Index) {
        // Of all connections, as the test does not know which ones have been replaced.
        let Some(gone) = (!self.received.is_empty()).then(|| index.index(self.received.len())) else {
            return;
        };
        if let Some(at) = self.connected.iter().position(|&(connection, _)| connection == gone) {
            let (_, id) = self.connected.remove(at);
            self.received[gone] = self.model.logout(id).unwrap();
        }
    }
}

/// A schedule, on a network that reads a few bytes at a time.
struct Cutting(Schedule, std::iter::Cycle<std::vec::IntoIter<usize>>);

impl Script for Cutting {
    fn next_at(&mut self, world: &World) -> Option<Micros> {
        self.0.next_at(world)
    }

    fn happen(&mut self, world: &mut World) {
        self.0.happen(world);
    }

    fn fault(&mut self, operation: Operation) -> Option<Fault> {
        match operation {
            Operation::Read(..) => self.1.next().map(Fault::Cut),
            _ => None,
        }
    }
}

/// What connections receive from the real server. Peer 0 is the source, the others are users.
fn received(case: &Case) -> Vec<Vec<u8>> {
    let stream = case.lines.concat().into_bytes();
    let mut schedule = Schedule::default();
    schedule.at(0, |world| {
        world.connect(Port::Source).unwrap();
    });

    let mut users = 0;
    let mut now = 0;
    let mut sent = 0;
    for step in &case.steps {
        now += STEP;
        match step {
            Step::Send(len) => {
                let end = stream.len().min(sent + len);
                let bytes = stream[sent..end].to_vec();
                schedule.at(now, move |world| _ = world.send(peer(0)(world), &bytes));
                sent = end;
            }
            Step::Login(id) => {
                let line = format!("{id}\r\n");
                schedule.at(now, move |world| {
                    let user = world.connect(Port::User).unwrap();
                    world.send(user, line.as_bytes());
                });
                users += 1;
            }
            Step::HangUp(index) if users > 0 => {
                let gone = 1 + index.index(users);
                schedule.at(now, move |world| {
                    let user = peer(gone)(world);
                    world.close(user);
                });
            }
            Step::HangUp(_) => {}
            Step::Wait(ms) => now += ms * MILLISECOND,
        }
    }
    let rest = stream[sent..].to_vec();
    schedule.at(now + STEP, move |world| _ = world.send(peer(0)(world), &rest));
    let config =
        Config { event_timeout_ms: case.timeout_ms, reorder_capacity: case.capacity, ..Config::default() };
    let net = SimNet::new(Cutting(schedule, case.cuts.clone().into_iter().cycle()));
    let mut server = Server::new(config, net.clone(), 0);
    while !net.shared().world.is_idle() {
        server.turn().unwrap();
    }
    let shared = net.shared();
    shared.world.peers().skip(1).map(|peer| shared.world.received(peer).to_vec()).collect()
}

/// The connection that came as number `index`.
fn peer(index: usize) -> impl Fn(&World) -> Peer {
    move |world| world.peers().nth(index).unwrap()
}

fn text(streams: &[Vec<u8>]) -> Vec<String> {
    streams.iter().map(|stream| stream.escape_ascii().to_string()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_complete_is_put_in_order(case in complete()) {
        let expected = expected(&case);
        prop_assert_eq!(text(&received(&case)), text(&expected));
    }

    #[test]
    fn holes_lates_and_duplicates_cost_nobody_anything(case in ragged()) {
        let expected = expected(&case);
        prop_assert_eq!(text(&received(&case)), text(&expected));
    }

    #[test]
    fn a_user_from_the_start_gets_its_part_of_the_sorted_stream(case in complete(), id in 1..6u64) {
        let lines: Vec<&[u8]> = case.lines.iter().map(String::as_bytes).collect();
        let mut model = Model::new();
        model.login(id);
        in_order(lines).into_iter().for_each(|line| model.release(line));
        let steps = case.steps.into_iter().filter(|step| matches!(step, Step::Send(_) | Step::Wait(_)));
        let case = Case { steps: std::iter::once(Step::Login(id)).chain(steps).collect(), ..case };
        prop_assert_eq!(text(&received(&case)), text(&[model.logout(id).unwrap()]));
    }
}
