//! What a user that resumes gets is the tail of what an uninterrupted one gets (docs/SPEC.md section 10): for any stream, any user
//! and any NEXT, with follows and unfollows that come and go around NEXT.
//!
//! The real server runs twice. In one run everybody is there from the start. In the other one, which keeps a journal, users come
//! in the middle of the stream and ask for a place. The server is ended and started again meanwhile.

use std::collections::BTreeMap;

use fortnight::{
    Cursor,
    internals::{
        config::Config,
        journal::SyncMode,
        server::{Pace, Server, net::Port},
        sim::{Peer, Schedule, SimFolder, SimNet, World},
    },
};
use proptest::{prelude::*, sample::Index};
use support::model::number_of;
use support::stream::lines;

/// Users have the ids below.
const IDS: u64 = 6;
/// It only asks for the epoch.
const ASKER: u64 = 99;

/// A place that a user asks for.
#[derive(Clone, Debug)]
enum Place {
    /// Beside a follow or an unfollow: one below it, its own number, or one above.
    Around(Index, u64),
    /// Any number of the stream.
    Any(Index),
    /// The cursor of the moment, or so many above.
    Ahead(u64),
    Oldest,
}

/// Something that happens. Then the server takes so many turns.
#[derive(Clone, Debug)]
enum Step {
    /// The source sends so many more lines.
    Send(usize, usize),
    /// A user comes. Its socket takes so many bytes at first; 0: any number.
    Resume { id: u64, place: Place, takes: u64, turns: usize },
    /// All sockets take everything.
    Take(usize),
}

/// A whole case.
#[derive(Clone, Debug)]
struct Case {
    lines: Vec<String>,
    /// How far from its place a line may come.
    capacity: usize,
    swaps: Vec<Index>,
    /// What happens from one start of the server to the next.
    lives: Vec<Vec<Step>>,
    sync: SyncMode,
    buffer: usize,
    segment: u64,
    /// A quarter of it is what a snapshot is made after.
    retention: u64,
    pace: Pace,
}

/// An event. Most of them change the graph, or depend on it.
fn content() -> impl Strategy<Value = String> {
    let id = || 0..IDS;
    prop_oneof![
        4 => (id(), id()).prop_map(|(from, to)| format!("F|{from}|{to}\r\n")),
        3 => (id(), id()).prop_map(|(from, to)| format!("U|{from}|{to}\n")),
        6 => id().prop_map(|from| format!("S|{from}\n")),
        2 => (id(), id()).prop_map(|(from, to)| format!("P|{from}|{to}\r\n")),
        1 => Just("B\n".to_owned()),
        1 => id().prop_map(|from| format!("S|{from:0200}\n")),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        6 => (any::<Index>(), 0..3u64).prop_map(|(index, offset)| Place::Around(index, offset)),
        3 => any::<Index>().prop_map(Place::Any),
        1 => (0..20u64).prop_map(Place::Ahead),
        1 => Just(Place::Oldest),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let takes = prop_oneof![2 => Just(0), 1 => 0..400u64];
    prop_oneof![
        4 => (1..60usize, 0..6usize).prop_map(|(count, turns)| Step::Send(count, turns)),
        4 => (0..IDS, place(), takes, 0..6usize)
            .prop_map(|(id, place, takes, turns)| Step::Resume { id, place, takes, turns }),
        1 => (0..6usize).prop_map(Step::Take),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let contents = prop::collection::vec(content(), 20..250);
    let lives = prop::collection::vec(prop::collection::vec(step(), 1..20), 1..4);
    let options = (
        prop::sample::select(vec![SyncMode::Always, SyncMode::Interval, SyncMode::Never]),
        prop::sample::select(vec![1, 300, 1 << 20]),
        prop::sample::select(vec![1024, 4096, 1 << 20]),
        0..6u32,
    );
    // Snapshots that are made while the graph changes, and passes that take a while.
    let slow = (
        prop::sample::select(vec![4 << 10, 16 << 10, 1 << 30]),
        prop::sample::select(vec![1, 3, 20_000]),
        prop::sample::select(vec![1000, 150_000]),
    );
    let slow = slow.prop_map(|(retention, steps, slice_ns)| {
        (retention, Pace { bytes_least: 500, steps, users: 1, slice_ns })
    });
    (contents, prop::collection::vec(any::<Index>(), 250), lives, (options, slow)).prop_map(
        |(contents, swaps, lives, ((sync, buffer, segment, log_capacity), (retention, pace)))| {
            let numbered = contents.iter().enumerate();
            let lines = numbered.map(|(index, content)| format!("{}|{content}", index + 1)).collect();
            Case { lines, capacity: 1 << log_capacity, swaps, lives, sync, buffer, segment, retention, pace }
        },
    )
}

/// What everybody gets who is there from the start.
fn uninterrupted(case: &Case) -> BTreeMap<u64, Vec<u8>> {
    let stream = case.lines.concat();
    let mut schedule = Schedule::default();
    schedule.at(0, move |world| {
        for id in 0..IDS {
            let user = world.connect(Port::User).unwrap();
            world.send(user, format!("{id}\n").as_bytes());
        }
        let source = world.connect(Port::Source).unwrap();
        world.send(source, stream.as_bytes());
    });
    let net = SimNet::new(schedule);
    let mut server = Server::new(Config { event_timeout_ms: -1, ..Config::default() }, net.clone(), 0);
    while !net.shared().world.is_idle() {
        server.turn().unwrap();
    }
    let world = &net.shared().world;
    (0..IDS).zip(world.peers()).map(|(id, peer)| (id, world.received(peer).to_vec())).collect()
}

/// One user that has come, and the place that it asked for.
struct Resumed {
    id: u64,
    peer: Peer,
    /// `None`: the oldest one. The answer says which.
    next: Option<u64>,
}

/// One life of the server.
struct Life<'a> {
    case: &'a Case,
    net: SimNet<Schedule>,
    folder: SimFolder,
    server: Server<SimNet<Schedule>>,
    source: Peer,
    asker: Peer,
    /// Lines that this life's source has sent, or that were released before.
    sent: usize,
    epoch: String,
    users: Vec<Resumed>,
}

impl<'a> Life<'a> {
    fn begin(case: &'a Case, folder: &SimFolder) -> Life<'a> {
        let config = Config {
            event_timeout_ms: -1,
            reorder_capacity: 64,
            journal_directory: Some("journal".into()),
            journal_sync: case.sync,
            journal_segment_bytes: case.segment,
            journal_retention_bytes: case.retention,
            user_buffer_bytes: case.buffer,
            user_mark_ms: 0,
            slow_user_timeout_ms: 1_000_000_000,
            ..Config::default()
        };
        let net = SimNet::with_disk(Schedule::default(), folder.clone());
        let disk = Box::new(folder.disk());
        let mut server = Server::recover_at(case.pace, config, net.clone(), disk, || 0).unwrap();
        let source = net.shared().world.connect(Port::Source).unwrap();
        let sent = server.snapshot().cursor.get() as usize - 1;
        let (folder, epoch) = (folder.clone(), String::new());
        let asker = net.shared().world.connect(Port::User).unwrap();
        let mut life = Life { case, net, folder, server, source, asker, sent, epoch, users: Vec::new() };
        life.world(|world| world.send(asker, format!("{ASKER}|now\n").as_bytes()));
        life.rest();
        let answer = life.world(|world| String::from_utf8(world.received(asker).to_vec()).unwrap());
        life.epoch = answer.split('|').nth(1).unwrap().to_owned();
        life
    }

    fn world<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.net.shared().world)
    }

    fn turn(&mut self) {
        let now = self.world(|world| world.now());
        self.folder.set_now(now);
        self.server.turn().unwrap();
    }

    /// Until nothing happens any more. All sockets must take everything.
    fn rest(&mut self) {
        for _ in 0..100_000 {
            self.turn();
            if self.world(|world| world.is_idle()) {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn act(&mut self, step: &Step) {
        let turns = match step {
            Step::Send(count, turns) => {
                self.send(*count);
                *turns
            }
            Step::Resume { id, place, takes, turns } => {
                self.resume(*id, place, *takes);
                *turns
            }
            Step::Take(turns) => {
                self.take();
                *turns
            }
        };
        for _ in 0..turns {
            // Nothing is waited for for long, or a user whose socket takes nothing would be cut off.
            let (now, asker) = (self.world(|world| world.now()), self.asker);
            self.net.shared().script.at(now + 300, move |world| _ = world.send(asker, b"."));
            self.turn();
        }
    }

    fn send(&mut self, count: usize) {
        let end = self.case.lines.len().min(self.sent + count);
        let mut piece = self.case.lines[self.sent..end].to_vec();
        for (batch, swaps) in
            piece.chunks_mut(self.case.capacity).zip(self.case.swaps.chunks(self.case.capacity))
        {
            for (from, to) in swaps.iter().enumerate().take(batch.len()) {
                batch.swap(from, to.index(batch.len()));
            }
        }
        self.world(|world| world.send(self.source, piece.concat().as_bytes()));
        self.sent = end;
    }

    fn resume(&mut self, id: u64, place: &Place, takes: u64) {
        let changes = |line: &&String| line.contains("|F|") || line.contains("|U|");
        let changes: Vec<&String> = self.case.lines[..self.sent].iter().filter(changes).collect();
        let next = match place {
            Place::Around(index, offset) if !changes.is_empty() => {
                let number = number_of(index.get(&changes).as_bytes()).unwrap();
                (number + offset).saturating_sub(1).max(1)
            }
            Place::Around(index, _) | Place::Any(index) => 1 + index.index(self.sent + 1) as u64,
            Place::Ahead(numbers) => self.server.snapshot().cursor.get() as u64 + numbers,
            Place::Oldest => 1,
        };
        let login = match place {
            Place::Oldest => format!("{id}|oldest\n"),
            _ => format!("{id}|{next}|{}\n", self.epoch),
        };
        let peer = self.world(|world| {
            let peer = world.connect(Port::User).unwrap();
            if takes > 0 {
                world.limit_outbound(peer, takes);
            }
            world.send(peer, login.as_bytes());
            peer
        });
        let next = (!matches!(place, Place::Oldest)).then_some(next);
        self.users.push(Resumed { id, peer, next });
    }

    fn take(&mut self) {
        self.world(|world| self.users.iter().for_each(|user| world.limit_outbound(user.peer, u64::MAX)));
    }

    /// Everything has come that will. Everybody must have the tail of what an uninterrupted one has by now.
    fn check(&mut self, whole: &BTreeMap<u64, Vec<u8>>) -> Result<(), TestCaseError> {
        self.take();
        self.rest();
        let snapshot = self.server.snapshot();
        let (cursor, buffered) = (snapshot.cursor, snapshot.buffered_bytes);
        let first = snapshot.journal.as_ref().map_or(Cursor::START, |journal| journal.first_sequence);
        for (index, user) in self.users.iter().enumerate() {
            let is_replaced = self.users[index + 1..].iter().any(|other| other.id == user.id);
            let mut got = self.world(|world| world.received(user.peer).to_vec());
            let answered = || String::from_utf8_lossy(&got).split(['|', '\n']).nth(2)?.parse().ok();
            let next = user.next.or_else(answered).unwrap_or(1);
            let mut wanted = format!("+|{}|{next}\n", self.epoch).into_bytes();
            for line in lines(&whole[&user.id]) {
                let number = number_of(line).unwrap();
                if number >= next && u128::from(number) < cursor.get() {
                    wanted.extend_from_slice(line);
                }
            }
            // Its place was not kept any more when it came, or when it went on: its last words say so, as far as its socket took them.
            let is_gone = lines(&got).last().is_some_and(|line| line[0] == b'-');
            if is_gone && self.case.retention < 1 << 30 {
                got = lines(&got).filter(|line| line[0] != b'-').collect::<Vec<_>>().concat();
                wanted.truncate(got.len());
                // What it wants next. The journal keeps less and less, so this was gone if it is gone now.
                let place = lines(&got).filter_map(number_of).last().map_or(next, |last| last + 1);
                prop_assert!(
                    is_replaced || u128::from(place) < first.get(),
                    "user {} was refused at {place}, and the journal begins at {first}",
                    user.id
                );
            }
            if is_replaced {
                // What came before the takeover, and perhaps last words.
                let last_words = lines(&got).position(|line| line[0] == b'-');
                if let Some(at) = last_words {
                    got = lines(&got).take(at).collect::<Vec<_>>().concat();
                }
                wanted.truncate(got.len());
            }
            prop_assert_eq!(
                got.escape_ascii().to_string(),
                wanted.escape_ascii().to_string(),
                "user {} from {}, replaced: {}, {:?}, at {}, {} wait",
                user.id,
                next,
                is_replaced,
                self.world(|world| world.server_end(user.peer)),
                self.world(|world| world.now()),
                buffered
            );
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_resumes_gets_the_tail_of_what_an_uninterrupted_user_gets(case in case(), seed in any::<u64>()) {
        let whole = uninterrupted(&case);
        let folder = SimFolder::new(seed);
        for (index, steps) in case.lives.iter().enumerate() {
            let mut life = Life::begin(&case, &folder);
            steps.iter().for_each(|step| life.act(step));
            if index + 1 == case.lives.len() {
                life.send(case.lines.len());
            }
            life.check(&whole)?;
            drop(life);
            folder.end_process();
        }
    }
}
