//! A server that is held up itself, by the host of its machine or by a full disk, blames no user for that, and does not spin.

use fortnight::internals::{
    config::Config,
    server::{Pace, Server, net::Port},
    sim::{DiskFaults, Peer, Schedule, SimFolder, SimNet},
};
use std::fmt::Write;

const SECOND: u64 = 1_000_000;

/// A server with a journal, and users that have been sent a part of what is theirs.
struct Life {
    net: SimNet<Schedule>,
    folder: SimFolder,
    server: Server<SimNet<Schedule>>,
    source: Peer,
    users: Vec<Peer>,
    /// The events so far.
    text: String,
}

impl Life {
    fn begin(users: u64) -> Life {
        let config = Config {
            journal_directory: Some("journal".into()),
            slow_user_timeout_ms: 1000,
            user_buffer_bytes: 4096,
            user_mark_ms: 0,
            ..Config::default()
        };
        let folder = SimFolder::new(1);
        let net = SimNet::with_disk(Schedule::default(), folder.clone());
        let disk = Box::new(folder.disk());
        let server = Server::recover_at(Pace::default(), config, net.clone(), disk, || 0).expect("a start");
        let source = net.shared().world.connect(Port::Source).expect("a source");
        let text = (1..=2000).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "{number}|B");
            text
        });
        let mut life = Life { net, folder, server, source, users: Vec::new(), text };
        life.net.shared().world.send(source, life.text.as_bytes());
        (0..10).for_each(|_| _ = life.turn());
        for id in 1..=users {
            let world = &mut life.net.shared().world;
            let user = world.connect(Port::User).expect("a user");
            world.limit_outbound(user, 1000);
            world.send(user, format!("{id}|oldest\n").as_bytes());
            life.users.push(user);
        }
        while life.users.iter().any(|&user| life.received(user).len() < 1000) {
            life.turn();
        }
        life
    }

    fn turn(&mut self) -> u64 {
        self.server.turn().expect("a turn");
        let now = self.net.shared().world.now();
        self.folder.set_now(now);
        now
    }

    fn received(&self, user: Peer) -> Vec<u8> {
        self.net.shared().world.received(user).to_vec()
    }
}

#[test]
fn who_is_served_from_the_journal_and_reads_again_is_not_cut_off() {
    let mut life = Life::begin(1);
    let (user, now) = (life.users[0], life.net.shared().world.now());
    // The user reads, and the server is held up.
    life.net.shared().script.at(now + SECOND / 2, move |world| {
        world.limit_outbound(user, 1 << 20);
        world.advance_to(now + 3 * SECOND);
    });
    (0..5000).for_each(|_| _ = life.turn());
    let received = String::from_utf8(life.received(user)).expect("text");
    let (_, lines) = received.split_once('\n').expect("an answer");
    assert_eq!(lines, life.text);
}

#[test]
fn while_the_disk_is_full_nobody_is_cut_off_again_and_again() {
    let mut life = Life::begin(200);
    life.folder.set_faults(DiskFaults { room: Some(0), ..DiskFaults::default() });
    let more = (2001..=9000).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "{number}|B");
        text
    });
    life.net.shared().world.send(life.source, more.as_bytes());
    let began = life.net.shared().world.now();
    // Ten times the time after which somebody that reads nothing is cut off.
    let turns = (0..10_000).position(|_| life.turn() > began + 10 * SECOND);
    assert!(turns.is_some(), "the server spins");
    assert_eq!(life.server.snapshot().users, 200);
}

/// Whoever is served from the journal is cut off only if its socket has taken nothing at all (SPEC section 10), under any policy:
/// `wait` is set here.
#[test]
fn who_catches_up_and_takes_a_little_is_not_cut_off_with_a_slow_user() {
    const TICK: u64 = SECOND / 20;
    let mut life = Life::begin(1);
    let slow = life.users[0];
    let (live, began) = {
        let world = &mut life.net.shared().world;
        let live = world.connect(Port::User).expect("a user");
        world.limit_outbound(live, 0);
        world.send(live, b"2\n");
        (live, world.now())
    };
    for tick in 1..=100 {
        let so_much = 1000 + 10 * tick;
        life.net.shared().script.at(began + tick * TICK, move |world| world.limit_outbound(slow, so_much));
    }
    while life.server.snapshot().users < 2 {
        life.turn();
    }
    // The live user is behind: sources are not read until its time is up.
    for number in 2001..=4000 {
        let _ = writeln!(life.text, "{number}|B");
    }
    let more = life.text.clone();
    let more = &more[more.find("2001|").expect("the number 2001")..];
    life.net.shared().world.send(life.source, more.as_bytes());
    while life.turn() < began + 100 * TICK {}
    let snapshot = life.server.snapshot();
    assert_eq!((snapshot.users, snapshot.catching_up), (1, 1));
    assert!(snapshot.counters.paused_slow_user >= SECOND, "{}", snapshot.counters.paused_slow_user);
    drop(snapshot);
    assert_eq!(life.received(live), b"");
    life.net.shared().world.limit_outbound(slow, 1 << 20);
    (0..5000).for_each(|_| _ = life.turn());
    let received = String::from_utf8(life.received(slow)).expect("text");
    let (_, lines) = received.split_once('\n').expect("an answer");
    assert_eq!(lines, life.text);
}
