//! Sequencers and an edge on a simulated JetStream, under virtual time, with everything that can go wrong drawn from a seed.

mod replaced;

use super::{
    block::{BLOCK_HEADER, Header, Kind},
    connection::Credentials,
    leader::Leader,
    log::{Due, Log, Moment, Part},
    reader::Effect,
    session::Settings,
};
use crate::sequence::{Cursor, SequenceNumber};
use crate::time::{MILLISECOND, Micros, SECOND};
use serde_json::{Value, json};
use std::{collections::BTreeMap, ops::Range};

const TAKEOVER: Micros = 4 * SECOND;

/// What must happen in the forty seeds: every kind of fault, and what comes of it.
const REQUIRED: [&str; 16] = [
    "connection: begins at a server that lags behind",
    "connection: lost, and what was sent on it is stored later",
    "connection: lost, and what was sent on it never arrives",
    "connection: lost with bytes that were not read",
    "connection: read in pieces",
    "consumer: given to a dead server",
    "log: message not taken, because there is no leader",
    "log: message refused, because others are there",
    "log: message stored",
    "log: no leader",
    "log: question not answered",
    "log: stale answer",
    "process: killed",
    "process: stopped",
    "sequencer: its term ends",
    "sequencer: takes over",
];

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// A stream of JetStream: its stored messages.
#[derive(Default)]
struct Stream {
    exists: bool,
    /// It has no leader: questions are not answered, and nothing is taken.
    is_leaderless: bool,
    /// A server is dead or stopped, and so many of the next consumers are given to it.
    lost_consumers: u64,
    messages: Vec<(bool, Vec<u8>)>,
    /// What has happened, and how often.
    seen: BTreeMap<&'static str, u64>,
}

impl Stream {
    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }
}

/// A connection to it, seen from the server.
struct Conn {
    input: Vec<u8>,
    out: Vec<u8>,
    subscriptions: Vec<(u64, String)>,
    /// The subscription, the next message, and whether only ends of snapshots are sent.
    consumer: Option<(u64, u64, bool)>,
    /// Messages that this server does not know of yet: it lags behind.
    unknown: usize,
}

impl Conn {
    fn new(unknown: usize) -> Self {
        let out = b"INFO {\"headers\":true,\"max_payload\":1048576}\r\n".to_vec();
        Self { input: Vec::new(), out, subscriptions: Vec::new(), consumer: None, unknown }
    }

    fn answer(&mut self, reply: &str, answer: &Value) {
        let text = answer.to_string();
        self.out.extend_from_slice(format!("MSG {reply} 1 {}\r\n{text}\r\n", text.len()).as_bytes());
    }

    /// Answers whole messages of the client, up to a number of them.
    fn serve(&mut self, stream: &mut Stream, most: u64) {
        for _ in 0..most {
            let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") else { return };
            let line = String::from_utf8(self.input[..end].to_vec()).unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            let len = if line.contains("PUB ") { words.last().unwrap().parse().unwrap() } else { 0 };
            let total = end + 2 + if line.contains("PUB ") { len + 2 } else { 0 };
            if self.input.len() < total {
                return;
            }
            let body = self.input[end + 2..].iter().copied().take(len).collect::<Vec<u8>>();
            self.input.drain(..total);
            match words[0] {
                "PING" => self.out.extend_from_slice(b"PONG\r\n"),
                "SUB" => self.subscriptions.push((words[2].parse().unwrap(), words[1].to_owned())),
                "UNSUB" => {
                    let sid: u64 = words[1].parse().unwrap();
                    self.consumer = self.consumer.filter(|&(subscription, ..)| subscription != sid);
                }
                "PUB" if words.len() == 4 => self.request(words[1], words[2], &body, stream),
                "HPUB" if stream.is_leaderless => {
                    stream.saw("log: message not taken, because there is no leader");
                    let line = format!("HMSG {} 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", words[2]);
                    self.out.extend_from_slice(line.as_bytes());
                }
                "HPUB" => {
                    let headers = String::from_utf8_lossy(&body[..words[3].parse().unwrap()]).into_owned();
                    let expected = headers.split("Sequence: ").nth(1).unwrap().trim().parse::<usize>();
                    let payload = body[headers.len()..].to_vec();
                    let answer = if expected == Ok(stream.messages.len()) {
                        stream.messages.push((words[1].ends_with("graphs"), payload));
                        stream.saw("log: message stored");
                        json!({"stream": "N", "seq": stream.messages.len()})
                    } else {
                        stream.saw("log: message refused, because others are there");
                        json!({"error": {"err_code": 10071, "description": "wrong last sequence"}})
                    };
                    self.answer(words[2], &answer);
                }
                _ => {}
            }
        }
    }

    fn request(&mut self, subject: &str, reply: &str, body: &[u8], stream: &mut Stream) {
        let known = stream.messages.len().saturating_sub(self.unknown) as u64;
        if subject.contains("STREAM.INFO") && stream.is_leaderless {
            stream.saw("log: question not answered");
        } else if subject.contains("STREAM.INFO") && !stream.exists {
            self.answer(reply, &json!({"error": {"err_code": 10059, "description": "stream not found"}}));
        } else if subject.contains("STREAM.") {
            stream.exists = true;
            if self.unknown > 0 && !stream.messages.is_empty() {
                stream.saw("log: stale answer");
            }
            let config = json!({
                "subjects": ["fortnight.N.*"], "storage": "file", "discard": "old", "retention": "limits", "num_replicas": 3,
            });
            // Without a leader: what it says of itself is old.
            let cluster = json!({"leader": if self.unknown > 0 { "" } else { "a" }});
            let answer = json!({"config": config, "state": {"last_seq": known}, "cluster": cluster});
            self.answer(reply, &answer);
        } else if subject.contains("CONSUMER.CREATE") && stream.lost_consumers > 0 {
            stream.lost_consumers -= 1;
            stream.saw("consumer: given to a dead server");
        } else if subject.contains("CONSUMER.CREATE") {
            let config = &serde_json::from_slice::<Value>(body).unwrap()["config"];
            let deliver = config["deliver_subject"].as_str().unwrap();
            let sid = self.subscriptions.iter().find(|(_, found)| found == deliver).unwrap().0;
            let last = (0..known as usize).rev().find(|&index| stream.messages[index].0);
            let (next, only, pending) = match config["opt_start_seq"].as_u64() {
                Some(next) => (next, false, (known + 1).saturating_sub(next)),
                None => (last.map_or(known + 1, |index| index as u64 + 1), true, u64::from(last.is_some())),
            };
            self.consumer = Some((sid, next, only));
            self.answer(reply, &json!({"num_pending": pending}));
        }
    }

    /// Sends messages that can be read, up to a number of them.
    fn deliver(&mut self, stream: &Stream, most: u64) {
        let known = stream.messages.len().saturating_sub(self.unknown) as u64;
        for _ in 0..most {
            let Some((sid, next, only)) = self.consumer else { return };
            if next > known {
                return;
            }
            let (ends_graph, payload) = &stream.messages[next as usize - 1];
            self.consumer = Some((sid, next + 1, only));
            if only && !ends_graph {
                continue;
            }
            let pending = if only { 0 } else { known - next };
            let head = format!("MSG s {sid} $JS.ACK.N.c.1.{next}.1.0.{pending} {}\r\n", payload.len());
            self.out.extend_from_slice(head.as_bytes());
            self.out.extend_from_slice(payload);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// A consumer says that it is there.
    fn heartbeat(&mut self) {
        if let Some((sid, ..)) = self.consumer {
            let line = format!("HMSG s {sid} 16 16\r\nNATS/1.0 100\r\n\r\n\r\n");
            self.out.extend_from_slice(line.as_bytes());
        }
    }
}

/// A sequencer or an edge.
struct Node {
    part: Part,
    log: Log,
    conn: Option<Conn>,
    chunk: Vec<u8>,
    unread: Range<usize>,
    cursor: Cursor,
    lines: Vec<u8>,
    leads: bool,
    /// It is stopped until then.
    until: Micros,
    /// Why it has ended: the log is not the one that it was.
    broken: Option<String>,
    /// How often its term has ended.
    deposed: usize,
}

impl Node {
    fn new(part: Part, now: Micros) -> Self {
        let settings = Settings {
            stream: "N".to_owned(),
            credentials: Credentials::None,
            over_tls: false,
            creates: part != Part::Edge,
            replicas: 3,
            bytes: 100_000,
            block_bytes_max: 1000,
        };
        let log = Log::new(settings, vec!["a:1".parse().unwrap()], part, TAKEOVER, now);
        let (chunk, unread) = (Vec::new(), 0..0);
        Self {
            part,
            log,
            conn: None,
            chunk,
            unread,
            cursor: Cursor::new(1),
            lines: Vec::new(),
            leads: false,
            until: 0,
            broken: None,
            deposed: 0,
        }
    }

    /// The connection is lost. What was sent on it may still arrive.
    fn lose(&mut self, now: Micros, left: &mut Vec<Conn>) {
        left.extend(self.conn.take());
        self.unread = 0..0;
        self.log.lost(now);
    }

    fn step(&mut self, moment: Moment, dice: &mut Dice, left: &mut Vec<Conn>) {
        let now = moment.now;
        while let Some(due) = self.log.due(moment, self.unread.is_empty()) {
            match due {
                Due::Connect(_) => {
                    self.log.connect(moment);
                    self.conn = Some(Conn::new(if dice.one_in(3) { dice.below(4) as usize } else { 0 }));
                }
                Due::GiveUp(_) => self.lose(now, left),
            }
        }
        let Some(conn) = &mut self.conn else { return };
        let taken = dice.below(conn.out.len() as u64 + 1) as usize;
        if taken > 0 {
            self.chunk.drain(..self.unread.start);
            self.chunk.extend(conn.out.drain(..taken));
            self.unread = 0..self.chunk.len();
            self.log.received(now);
        }
        loop {
            match self.log.next(&self.chunk, &mut self.unread, now) {
                Ok(None) => break,
                Ok(Some(effect)) => self.apply(effect),
                Err(_) => {
                    self.chunk.clear();
                    return self.lose(now, left);
                }
            }
        }
    }

    /// A step, and what is seen of it from outside.
    fn step_seen(&mut self, moment: Moment, dice: &mut Dice, left: &mut Vec<Conn>, stream: &mut Stream) {
        let (led, deposed, was_connected) = (self.leads, self.deposed, self.conn.is_some());
        self.step(moment, dice, left);
        let Self { leads, conn, .. } = self;
        let is_new = !was_connected && conn.is_some();
        let happened = [
            ("sequencer: takes over", *leads && !led),
            ("sequencer: its term ends", self.deposed > deposed),
            (
                "connection: begins at a server that lags behind",
                is_new && conn.as_ref().is_some_and(|conn| conn.unknown > 0),
            ),
            ("connection: read in pieces", conn.as_ref().is_some_and(|conn| !conn.out.is_empty())),
        ];
        happened.iter().filter(|(_, has)| *has).for_each(|(what, _)| stream.saw(what));
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Begin(_) => (self.cursor, self.lines) = (Cursor::new(1), Vec::new()),
            Effect::Cursor(cursor) => self.cursor = cursor,
            Effect::Apply { lines, to } => {
                self.lines.extend_from_slice(&self.chunk[lines]);
                self.cursor = to;
            }
            Effect::Leads => self.leads = true,
            Effect::Deposed(_) => (self.leads, self.deposed) = (false, self.deposed + 1),
            Effect::Broken(reason) => self.broken = Some(reason),
            Effect::Edges(_) | Effect::Reached(_) => {}
        }
    }

    /// Publishes something, if it leads and may.
    fn work(&mut self, moment: Moment, dice: &mut Dice) {
        if !self.log.leader().is_some_and(Leader::is_open) {
            return;
        }
        if self.log.leader().is_some_and(Leader::wants_graph) && dice.one_in(3) {
            let kind = match self.log.leader().is_some_and(Leader::is_walking) {
                false => Kind::GraphFirst,
                true if dice.one_in(2) => Kind::GraphLast,
                true => Kind::Graph,
            };
            return self.log.publish(kind, vec![0; BLOCK_HEADER], self.cursor, moment);
        }
        let mut block = vec![0; BLOCK_HEADER];
        for _ in 0..=dice.below(3) {
            block.extend_from_slice(format!("{}|P|1|{}\n", self.cursor, dice.below(1000)).as_bytes());
            self.cursor = Cursor::new(self.cursor.get() + 1);
        }
        self.log.publish(Kind::Events, block, self.cursor, moment);
    }
}

struct World {
    stream: Stream,
    nodes: Vec<Node>,
    now: Micros,
    dice: Dice,
    /// What some leader has been told is stored: number and hash.
    confirmed: Vec<(u64, u64)>,
    /// Connections that are not read any more, and the bytes sent on them.
    left: Vec<Conn>,
}

impl World {
    fn new(seed: u64) -> Self {
        let parts = [
            Part::Sequencer { first_sequence: SequenceNumber::new(1) },
            Part::Sequencer { first_sequence: SequenceNumber::new(1) },
            Part::Edge,
        ];
        let nodes = parts.map(|part| Node::new(part, 0)).into();
        Self {
            stream: Stream::default(),
            nodes,
            now: 0,
            dice: Dice(seed),
            confirmed: Vec::new(),
            left: Vec::new(),
        }
    }

    fn moment(&mut self) -> Moment {
        Moment { now: self.now, time_ms: self.now / MILLISECOND, random: self.dice.next() }
    }

    /// Of what was sent on connections that are lost, some is stored later, and some never arrives.
    fn serve_lost_connections(&mut self) {
        let Self { stream, dice, left, .. } = self;
        left.retain_mut(|conn| {
            let stored = stream.messages.len();
            conn.serve(stream, dice.below(2));
            if stream.messages.len() > stored {
                stream.saw("connection: lost, and what was sent on it is stored later");
            }
            let is_lost = !conn.input.is_empty() && dice.one_in(100);
            if is_lost {
                stream.saw("connection: lost, and what was sent on it never arrives");
            }
            !conn.input.is_empty() && !is_lost
        });
    }

    fn step(&mut self, faults: bool) {
        self.now += 20 * MILLISECOND;
        let Self { stream, dice, .. } = self;
        if faults {
            let was_leaderless = stream.is_leaderless;
            let stays = if stream.is_leaderless { !dice.one_in(200) } else { dice.one_in(1500) };
            stream.is_leaderless = stays;
            if stays && !was_leaderless {
                stream.saw("log: no leader");
            }
            if dice.one_in(300) {
                stream.lost_consumers = dice.below(4);
            }
        }
        self.serve_lost_connections();
        for index in 0..self.nodes.len() {
            let moment = self.moment();
            let Self { stream, nodes, now, dice, confirmed, left } = self;
            let node = &mut nodes[index];
            if faults && dice.one_in(400) {
                node.until = *now + dice.below(2 * TAKEOVER);
                stream.saw("process: stopped");
            }
            if faults && dice.one_in(800) {
                left.extend(node.conn.take());
                *node = Node::new(node.part, *now);
                stream.saw("process: killed");
            }
            if let Some(conn) = &mut node.conn {
                // It reads whatever becomes of its client.
                conn.serve(stream, dice.below(6));
                conn.deliver(stream, dice.below(20));
                if *now % SECOND == 0 {
                    conn.heartbeat();
                }
                if conn.unknown > 0 && (!faults || dice.one_in(30)) {
                    conn.unknown = 0;
                }
            }
            if node.until > *now || node.broken.is_some() {
                continue;
            }
            if faults && dice.one_in(150) {
                // Its messages are stored or not, and it is not told which.
                if node.conn.as_ref().is_some_and(|conn| !conn.out.is_empty()) {
                    stream.saw("connection: lost with bytes that were not read");
                }
                node.lose(*now, left);
            }
            node.step_seen(moment, dice, left, stream);
            if dice.one_in(2) {
                node.work(moment, dice);
            }
            if let (Some(conn), Some(out)) = (&mut node.conn, node.log.out()) {
                conn.input.append(out);
            }
            if let Some(leader) = node.log.leader() {
                let place = leader.confirmed();
                if confirmed.last() != Some(&(place.number, place.hash)) {
                    confirmed.push((place.number, place.hash));
                }
            }
        }
    }

    /// The stored blocks make one chain, every number is in it once, and it has everything that was confirmed.
    fn check(&self) -> (Vec<u8>, Cursor) {
        let (mut lines, mut cursor, mut previous, mut term) = (Vec::new(), Cursor::new(1), 0, 0);
        let mut hashes = Vec::new();
        for (_, block) in &self.stream.messages {
            let (header, hash) = Header::open(block).unwrap();
            assert_eq!((header.from, header.previous), (cursor, previous));
            assert!(header.term >= term);
            if header.kind == Kind::Events {
                lines.extend_from_slice(&block[BLOCK_HEADER..]);
            }
            (cursor, previous, term) = (header.to, hash, header.term);
            hashes.push(hash);
        }
        for &(number, hash) in &self.confirmed {
            assert_eq!(hashes[number as usize - 1], hash, "message {number} was confirmed");
        }
        (lines, cursor)
    }
}

fn run(seed: u64) -> (u64, World) {
    let mut world = World::new(seed);
    for _ in 0..3000 {
        world.step(true);
    }
    world.check();
    let broken: Vec<_> = world.nodes.iter().filter_map(|node| node.broken.as_ref()).collect();
    assert!(broken.is_empty(), "seed {seed}: {broken:?}");
    // Everything is well again, and goes on.
    world.nodes.iter_mut().for_each(|node| node.until = 0);
    world.stream.is_leaderless = false;
    let stored = world.stream.messages.len();
    for _ in 0..2000 {
        world.step(false);
    }
    world.nodes.iter_mut().for_each(|node| node.leads &= node.log.leader().is_some());
    assert_eq!(world.nodes.iter().filter(|node| node.leads).count(), 1, "seed {seed}: one leads");
    assert!(world.stream.messages.len() > stored, "seed {seed}: it goes on");
    let (lines, cursor) = world.check();
    let edge = &world.nodes[2];
    assert!(
        edge.cursor.get() + 200 > cursor.get() && edge.cursor <= cursor,
        "seed {seed}: {} of {cursor}",
        edge.cursor
    );
    assert!(
        lines.windows(edge.lines.len().max(1)).any(|window| window == &edge.lines[..])
            || edge.lines.is_empty(),
        "seed {seed}: an edge has other lines than the log"
    );
    let term = Header::open(&world.stream.messages.last().unwrap().1).unwrap().0.term;
    (term, world)
}

#[test]
fn whatever_goes_wrong_there_is_one_log_and_it_has_what_was_confirmed() {
    let (mut takeovers, mut messages) = (0, 0);
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40);
    for seed in 0..seeds {
        let (term, world) = run(seed);
        takeovers += term - 1;
        messages += world.stream.messages.len();
        world.stream.seen.iter().for_each(|(what, times)| *seen.entry(*what).or_default() += times);
    }
    for (what, times) in &seen {
        println!("  {what:<60}{times:>12}");
    }
    let missing: Vec<_> = REQUIRED.iter().filter(|what| !seen.contains_key(*what)).collect();
    assert!(missing.is_empty(), "never happened: {missing:?}");
    assert!(
        takeovers > seeds && messages > 375 * seeds as usize,
        "{takeovers} takeovers, {messages} messages"
    );
}

/// A world in which the first sequencer leads and goes on.
fn leading(seed: u64) -> World {
    let mut world = World::new(seed);
    while !world.nodes[0].leads && !world.nodes[1].leads || world.stream.messages.len() < 50 {
        world.step(false);
        assert!(world.now < 60 * SECOND, "nobody leads");
    }
    world
}

/// How long it takes until something is stored again.
fn pause(world: &mut World) -> Micros {
    let (stored, since) = (world.stream.messages.len(), world.now);
    while world.stream.messages.len() < stored + 5 {
        world.step(false);
        assert!(world.now < since + 60 * SECOND, "writing does not go on");
    }
    world.now - since
}

#[test]
fn writing_goes_on_soon_although_consumers_are_given_to_a_dead_server() {
    for seed in 0..20 {
        let mut world = leading(seed);
        let leaders: Vec<usize> = (0..2).filter(|&index| world.nodes[index].leads).collect();
        // What it asks for next is given to a server that is dead, twice.
        world.stream.lost_consumers = 2;
        let now = world.now;
        leaders.iter().for_each(|&index| world.nodes[index].lose(now, &mut Vec::new()));
        let term = world.nodes[leaders[0]].log.place().map(|place| place.term);
        let paused = pause(&mut world) / MILLISECOND;
        assert!(paused < 5000, "seed {seed}: {paused} ms");
        assert!(world.nodes[leaders[0]].leads, "seed {seed}");
        assert_eq!(world.nodes[leaders[0]].log.place().map(|place| place.term), term);
    }
}

#[test]
fn writing_goes_on_at_once_when_the_stream_has_a_leader_again() {
    for seed in 0..20 {
        let mut world = leading(seed);
        let until = world.now + TAKEOVER / 2;
        world.stream.is_leaderless = true;
        while world.now < until {
            world.step(false);
        }
        world.stream.is_leaderless = false;
        let paused = pause(&mut world) / MILLISECOND;
        assert!(paused < 2000, "seed {seed}: {paused} ms");
    }
}
