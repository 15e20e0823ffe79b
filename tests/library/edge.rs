//! An edge on simulated sockets: its stream comes in random pieces, breaks again and again, and its users are slow. What they
//! get is what a naive model says.

use fortnight::internals::{
    config::{Config, ServerRole},
    server::{Server, net::Port},
    sim::{Peer, Schedule, Script, ServerEnd, SimNet, World},
    time::{MILLISECOND, Micros, SECOND},
};
use support::{model::Model, stream::Random};

const EPOCH: &str = "0123456789abcdef";
const USERS: u64 = 12;
const LINES: usize = 3000;

/// Plays the stream port that an edge connects to, and the edge's users.
struct Stream {
    random: Random,
    /// The number and the line of each event.
    lines: Vec<(u64, String)>,
    /// The lines before this one are in the graph that the edge is sent first.
    graph_at: usize,
    edge: Option<Peer>,
    /// What the edge has asked for, until it is answered.
    request: Vec<u8>,
    /// The bytes to send on this connection, and how many of them have been sent.
    text: Vec<u8>,
    sent: usize,
    next: usize,
    users: Vec<Peer>,
    breaks_left: u32,
    at: Micros,
}

impl Stream {
    fn new(seed: u64) -> Stream {
        let mut random = Random::new(seed);
        let (mut number, mut lines) = (0, Vec::new());
        for _ in 0..LINES {
            // Numbers in between were given up.
            number += 1 + random.below(3) / 2;
            let (from, to) = (random.below(USERS), random.below(USERS));
            let end = if random.below(4) == 0 { "\r\n" } else { "\n" };
            let event = match random.below(9) {
                0 | 1 => format!("F|{from}|{to}"),
                2 => format!("U|{from}|{to}"),
                3 | 4 => format!("P|{from}|{to}"),
                5 => "B".to_owned(),
                _ => format!("S|{from}"),
            };
            lines.push((number, format!("{number}|{event}{end}")));
        }
        let graph_at = random.below(200) as usize;
        Stream {
            random,
            lines,
            graph_at,
            edge: None,
            request: Vec::new(),
            text: Vec::new(),
            sent: 0,
            next: 0,
            users: Vec::new(),
            breaks_left: 8,
            at: 0,
        }
    }

    /// The number that the line of an index comes with, or that comes after all.
    fn number(&self, index: usize) -> u64 {
        self.lines.get(index).map_or(self.lines[LINES - 1].0 + 1, |line| line.0)
    }

    fn answer(&mut self) {
        let request = String::from_utf8(std::mem::take(&mut self.request)).unwrap();
        let fields: Vec<_> = request.trim_end().split('|').collect();
        if fields == ["*", "graph"] {
            self.next = self.graph_at;
            let mut edges = std::collections::BTreeSet::new();
            for (_, line) in &self.lines[..self.graph_at] {
                let fields: Vec<_> = line.trim_end().split('|').collect();
                match fields[1] {
                    "F" => _ = edges.insert((fields[2].to_owned(), fields[3].to_owned())),
                    "U" => _ = edges.remove(&(fields[2].to_owned(), fields[3].to_owned())),
                    _ => {}
                }
            }
            let place = format!("+|{EPOCH}|{}\n", self.number(self.next));
            let edges: String = edges.iter().map(|(from, to)| format!("=|{from}|{to}\n")).collect();
            self.text = format!("{place}{edges}{place}").into_bytes();
        } else {
            assert_eq!((fields[0], fields[2]), ("*", EPOCH), "{request}");
            let next: u64 = fields[1].parse().unwrap();
            self.next = self.lines.partition_point(|line| line.0 < next);
            self.text = format!("+|{EPOCH}|{next}\n").into_bytes();
        }
        self.sent = 0;
    }

    fn send_some(&mut self, world: &mut World, edge: Peer) {
        for _ in 0..self.random.below(80) {
            if let Some((_, line)) = self.lines.get(self.next) {
                self.text.extend_from_slice(line.as_bytes());
                self.next += 1;
            }
        }
        if self.random.below(5) == 0 {
            self.text.extend_from_slice(format!("+|{EPOCH}|{}\n", self.number(self.next)).as_bytes());
        }
        let piece = self.random.below(1500) as usize;
        let end = self.text.len().min(self.sent + piece);
        self.sent += world.send(edge, &self.text[self.sent..end]);
        if self.breaks_left > 0 && self.random.below(15) == 0 {
            self.breaks_left -= 1;
            match self.random.below(2) {
                0 => world.reset(edge),
                _ => world.close(edge),
            }
            world.forget(edge);
            self.edge = None;
        }
    }
}

impl Script for Stream {
    fn next_at(&mut self, _: &World) -> Option<Micros> {
        // Long enough for every break to be over.
        Some(self.at).filter(|&at| at < 60 * SECOND)
    }

    fn happen(&mut self, world: &mut World) {
        if self.at == 0 {
            for id in 0..USERS {
                let user = world.connect(Port::User).unwrap();
                world.send(user, format!("{id}\n").as_bytes());
                world.limit_outbound(user, 0);
                self.users.push(user);
            }
        }
        self.at += 20 * MILLISECOND;
        // Users take a little at a time.
        for &user in &self.users {
            let room = world.written(user) + self.random.below(4000);
            world.limit_outbound(user, room);
        }
        if let Some(edge) = world.next_call() {
            self.edge = Some(edge);
        }
        if let Some(edge) = self.edge {
            let request = world.take_received(edge, <[u8]>::to_vec).unwrap_or_default();
            self.request.extend(request);
            if self.request.ends_with(b"\n") {
                self.answer();
            }
            self.send_some(world, edge);
        }
    }
}

#[test]
fn users_of_an_edge_get_the_same_bytes_as_users_of_the_server() {
    for seed in 0..20 {
        let stream = Stream::new(seed);
        let mut model = Model::new();
        for (_, line) in &stream.lines[..stream.graph_at] {
            model.release(line.as_bytes());
        }
        (0..USERS).for_each(|id| _ = model.login(id));
        for (_, line) in &stream.lines[stream.graph_at..] {
            model.release(line.as_bytes());
        }
        let net = SimNet::new(stream);
        let config = Config {
            role: ServerRole::Edge,
            stream: Some("tcp://127.0.0.1:1".parse().unwrap()),
            user_buffer_bytes: 8192,
            slow_user_timeout_ms: 1_000_000,
            ..Config::default()
        };
        let mut server = Server::new(config, net.clone(), 0);
        while net.shared().world.now() < 59 * SECOND {
            server.turn().unwrap();
        }
        let shared = net.shared();
        assert_eq!(shared.script.breaks_left, 0, "seed {seed}");
        for (id, &user) in shared.script.users.iter().enumerate() {
            let told = model.told(id as u64).unwrap();
            let received = shared.world.received(user);
            assert!(
                received == told,
                "seed {seed}: user {id} got {} bytes, not {}",
                received.len(),
                told.len()
            );
        }
    }
}

/// An edge that does not know the epoch yet cannot answer who wants to resume. Time goes on for each of them.
#[test]
fn who_cannot_be_answered_is_closed_in_time_although_others_keep_coming() {
    let net = SimNet::new(Schedule::default());
    let config = Config {
        role: ServerRole::Edge,
        stream: Some("tcp://127.0.0.1:1".parse().unwrap()),
        login_timeout_ms: 10_000,
        ..Config::default()
    };
    let mut server = Server::new(config, net.clone(), 0);
    let mut users: Vec<Peer> = Vec::new();
    for second in 1..=30 {
        {
            let world = &mut net.shared().world;
            world.advance_to(second * SECOND);
            let user = world.connect(Port::User).unwrap();
            world.send(user, format!("{second}|now\n").as_bytes());
            users.push(user);
        }
        server.turn().unwrap();
        let world = &net.shared().world;
        let closed = users.iter().filter(|&&user| world.server_end(user) != ServerEnd::Open).count() as u64;
        let expected = second.saturating_sub(11)..=second.saturating_sub(9);
        assert!(expected.contains(&closed), "{closed} are closed after {second} s");
    }
}
