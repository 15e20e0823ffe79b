//! Users that resume where runs begin anew (`resetOnSourceEof`): docs/SPEC.md section 10. Each run has an epoch of its own. Users
//! leave, come back at their places, take themselves over and read slowly; each is told of a new run before its first event, and is
//! sent of each run what its place says.

use fortnight::internals::{
    config::{Config, SlowUserPolicy},
    server::{Server, net::Port},
    sim::{Peer, Schedule, SimNet, World},
};
use support::{
    model::{Model, number_of},
    stream::{Random, lines},
};

const IDS: u64 = 5;
const RUNS: usize = 5;
/// The user that is there all the time: it learns the epochs in their order.
const WITNESS: u64 = 1000;
const USUAL_SEEDS: u64 = 400;

/// One run: the lines, and what each user is owed who is there from its start.
struct Run {
    stream: Vec<Vec<u8>>,
    owed: Vec<Vec<u8>>,
}

/// A login, and everything that has come.
struct Visit {
    id: u64,
    peer: Peer,
    /// The place that it asked for; `None`: the cursor.
    asked: Option<(String, u128)>,
    /// It is connected to the end of the test.
    stays: bool,
    received: Vec<u8>,
}

/// What happened how often.
#[derive(Debug, Default)]
struct Counts {
    resumed: u32,
    gone: u32,
    epoch: u32,
    told_of_a_run: u32,
    last_words: u32,
    marks: u32,
}

fn draw_run(random: &mut Random) -> Run {
    let count = 1 + random.below(60);
    let mut line = |number| {
        let (from, to) = (random.below(IDS), random.below(IDS));
        let event = match random.below(10) {
            0..=2 => format!("F|{from}|{to}"),
            3 => format!("U|{from}|{to}"),
            4 => format!("P|{from}|{to}"),
            5 => "B".to_owned(),
            _ => format!("S|{from}"),
        };
        format!("{number}|{event}\n").into_bytes()
    };
    let stream: Vec<Vec<u8>> = (1..=count).map(&mut line).collect();
    let mut model = Model::new();
    (0..IDS).for_each(|id| drop(model.login(id)));
    stream.iter().for_each(|line| model.release(line));
    let owed = (0..IDS).map(|id| model.told(id).unwrap().to_vec()).collect();
    Run { stream, owed }
}

/// The server, and everybody who is connected to it.
struct Play {
    random: Random,
    net: SimNet<Schedule>,
    server: Server<SimNet<Schedule>>,
    witness: Peer,
    visits: Vec<Visit>,
}

impl Play {
    fn begin(seed: u64) -> Play {
        let mut random = Random::new(seed);
        let config = Config {
            event_timeout_ms: -1,
            reset_on_source_eof: true,
            user_buffer_bytes: [1, 100, 1 << 20][random.below(3) as usize],
            slow_user_policy: [SlowUserPolicy::Wait, SlowUserPolicy::Disconnect][random.below(2) as usize],
            slow_user_timeout_ms: 1_000_000,
            user_mark_ms: [0, 1][random.below(2) as usize],
            ..Config::default()
        };
        let net = SimNet::new(Schedule::default());
        let server = Server::new(config, net.clone(), 0);
        let witness = net.shared().world.connect(Port::User).unwrap();
        let mut play = Play { random, net, server, witness, visits: Vec::new() };
        play.world(|world| world.send(witness, format!("{WITNESS}|now\n").as_bytes()));
        play.turns(5);
        play
    }

    fn world<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.net.shared().world)
    }

    fn turns(&mut self, turns: u64) {
        for _ in 0..turns {
            // Marks are due again and again; time is not to run away.
            let now = self.world(|world| world.now());
            self.net.shared().script.at(now + 300, |_| {});
            self.server.turn().unwrap();
        }
    }

    fn take_all(&mut self) {
        self.world(|world| self.visits.iter().for_each(|visit| world.limit_outbound(visit.peer, u64::MAX)));
    }

    fn is_connected(&self, visit: &Visit) -> bool {
        visit.stays && !self.world(|world| world.has_finished(visit.peer))
    }

    /// Somebody comes, goes, or takes a little.
    fn act(&mut self) {
        let id = self.random.below(IDS);
        let last = self.visits.iter().rposition(|visit| visit.id == id);
        let connected = last.filter(|&last| self.is_connected(&self.visits[last]));
        match (connected, self.random.below(6)) {
            (Some(index), 0) => {
                self.visits[index].stays = false;
                let peer = self.visits[index].peer;
                self.world(|world| world.close(peer));
            }
            (Some(index), 1 | 2) => {
                let (peer, room) = (self.visits[index].peer, self.random.below(150));
                self.world(|world| world.limit_outbound(peer, world.written(peer) + room));
            }
            (Some(index), 3) => {
                let peer = self.visits[index].peer;
                self.world(|world| world.limit_outbound(peer, u64::MAX));
            }
            _ => self.come(id, last),
        }
    }

    /// A user comes: at the cursor, where it was, or anywhere.
    fn come(&mut self, id: u64, last: Option<usize>) {
        let witnessed = epochs(&self.world(|world| world.received(self.witness).to_vec()));
        let asked = match (last, self.random.below(8)) {
            (_, 0) => None,
            (Some(index), 1..=5) => {
                let text = self.world(|world| world.received(self.visits[index].peer).to_vec());
                place_of(&text)
            }
            _ => {
                let epoch = witnessed[self.random.below(witnessed.len() as u64) as usize].clone();
                let cursor = self.server.snapshot().cursor.get() as u64;
                let place = (cursor + self.random.below(6)).saturating_sub(2).max(1);
                Some((epoch, place.into()))
            }
        };
        let login = match &asked {
            None => format!("{id}|now\n"),
            Some((epoch, next)) => format!("{id}|{next}|{epoch}\n"),
        };
        let peer = self.world(|world| {
            let peer = world.connect(Port::User).unwrap();
            world.send(peer, login.as_bytes());
            peer
        });
        if let Some(last) = last {
            self.visits[last].stays &= asked.is_some();
        }
        self.visits.push(Visit { id, peer, asked, stays: true, received: Vec::new() });
    }

    /// A source sends a run and hangs up, while users come and go.
    fn play(&mut self, run: &Run) {
        let source = self.world(|world| world.connect(Port::Source).unwrap());
        let mut sent = 0;
        while sent < run.stream.len() {
            let end = run.stream.len().min(sent + 1 + self.random.below(20) as usize);
            let mut piece = run.stream[sent..end].to_vec();
            self.random.shuffle(&mut piece);
            self.world(|world| world.send(source, &piece.concat()));
            sent = end;
            self.act();
            let turns = self.random.below(4);
            self.turns(turns);
        }
        self.world(|world| world.finish(source));
        let runs = epochs(&self.world(|world| world.received(self.witness).to_vec())).len();
        for turn in 0.. {
            if turn == 20 {
                // A slow user may hold up the sources, and with them the end of the run.
                self.take_all();
            }
            assert!(turn < 1000, "the run does not end");
            if turn < 10 {
                self.act();
            }
            self.turns(1);
            if epochs(&self.world(|world| world.received(self.witness).to_vec())).len() > runs {
                return;
            }
        }
    }
}

/// The fields of a line without an event.
fn fields(line: &[u8]) -> Vec<&str> {
    std::str::from_utf8(line).unwrap().trim_end().split('|').collect()
}

/// The epochs that a user has been told, in their order.
fn epochs(received: &[u8]) -> Vec<String> {
    let told = lines(received).filter(|line| line[0] == b'+').map(|line| fields(line)[1].to_owned());
    let mut all: Vec<String> = told.collect();
    all.dedup();
    all
}

/// The place that a user has reached, as docs/clients.md says; whole lines count only.
fn place_of(received: &[u8]) -> Option<(String, u128)> {
    let mut place = None;
    for line in lines(received).filter(|line| line.ends_with(b"\n")) {
        if line[0] == b'+' {
            place = Some((fields(line)[1].to_owned(), fields(line)[2].parse().unwrap()));
        } else if let Some(number) = number_of(line)
            && let Some((_, next)) = &mut place
        {
            *next = u128::from(number) + 1;
        }
    }
    place
}

/// Looks at everything that a connection was sent. `is_whole`: nothing is missing at its end.
fn check(visit: &Visit, runs: &[Run], order: &[String], is_whole: bool, counts: &mut Counts) {
    let shown =
        || format!("user {} asked for {:?}: {}", visit.id, visit.asked, visit.received.escape_ascii());
    let run_of =
        |epoch: &str| order.iter().position(|other| other == epoch).unwrap_or_else(|| panic!("{}", shown()));
    let mut at: Option<(usize, Vec<u8>)> = None;
    let rest = |run: usize, next: u128| -> Vec<u8> {
        let Some(run) = runs.get(run) else { return Vec::new() };
        let owed = lines(&run.owed[visit.id as usize]);
        owed.filter(|line| u128::from(number_of(line).unwrap()) >= next).collect::<Vec<_>>().concat()
    };
    for line in lines(&visit.received) {
        match (line[0], &mut at) {
            _ if !line.ends_with(b"\n") => {
                let missing = at.as_ref().is_some_and(|(_, left)| left.starts_with(line));
                assert!(!is_whole && (missing || b"+-".contains(&line[0])), "half a line: {}", shown());
            }
            (b'+', None) => {
                let (epoch, next) = (fields(line)[1], fields(line)[2].parse().unwrap());
                let is_asked =
                    visit.asked.as_ref().is_none_or(|asked| (asked.0.as_str(), asked.1) == (epoch, next));
                assert!(is_asked, "{}", shown());
                counts.resumed += 1;
                at = Some((run_of(epoch), rest(run_of(epoch), next)));
            }
            (b'+', Some((run, left))) => {
                let (epoch, next) = (fields(line)[1], fields(line)[2].parse::<u128>().unwrap());
                if run_of(epoch) == *run {
                    counts.marks += 1;
                    let number = lines(left).next().and_then(number_of);
                    assert!(number.is_none_or(|number| u128::from(number) >= next), "{}", shown());
                } else {
                    // All of the old run has come, and this is the next one.
                    assert!(left.is_empty() && run_of(epoch) == *run + 1 && next == 1, "{}", shown());
                    counts.told_of_a_run += 1;
                    at = Some((*run + 1, rest(*run + 1, 1)));
                }
            }
            (b'-', None) if fields(line)[3] == "gone" => counts.gone += 1,
            (b'-', None) => {
                assert_eq!(fields(line)[3], "epoch", "{}", shown());
                counts.epoch += 1;
            }
            (b'-', Some(_)) => counts.last_words += 1,
            (_, Some((_, left))) if left.starts_with(line) => drop(left.drain(..line.len())),
            _ => panic!("not its own: {}, {}", line.escape_ascii(), shown()),
        }
    }
    let has_all = at.is_some_and(|(run, left)| run == runs.len() && left.is_empty());
    assert!(!is_whole || has_all, "something is missing at the end: {}", shown());
}

#[test]
fn who_resumes_is_told_of_each_new_run_and_gets_all_of_it() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (first, seeds) = (number("SEED").unwrap_or(0), number("SEEDS").unwrap_or(USUAL_SEEDS));
    let mut counts = Counts::default();
    for seed in first..first + seeds {
        println!("seed {seed}");
        let mut play = Play::begin(seed);
        let runs: Vec<Run> = (0..RUNS).map(|_| draw_run(&mut play.random)).collect();
        runs.iter().for_each(|run| play.play(run));
        play.take_all();
        play.turns(50);
        let order = epochs(&play.world(|world| world.received(play.witness).to_vec()));
        assert_eq!(order.len(), RUNS + 1);
        let mut visits = std::mem::take(&mut play.visits);
        for visit in &mut visits {
            let is_whole = play.is_connected(visit);
            visit.received = play.world(|world| world.received(visit.peer).to_vec());
            check(visit, &runs, &order, is_whole, &mut counts);
        }
    }
    println!("{seeds} seeds: {counts:?}");
    let Counts { resumed, gone, epoch, told_of_a_run, last_words, marks } = counts;
    let all = [resumed, gone, epoch, told_of_a_run, last_words, marks];
    assert!(seeds < USUAL_SEEDS || all.iter().all(|count| *count > 0), "{counts:?}");
}
