//! The place in the last words to a user: nothing below it is missing, whatever else happens in the turn of the end (docs/SPEC.md
//! section 10).

use std::rc::Rc;

use fortnight::internals::{
    config::{Config, SlowUserPolicy},
    server::{Server, net::Port},
    sim::{DiskFaults, Operation, Peer, Schedule, Script, SimFolder, SimNet, World},
    time::{MILLISECOND, Micros, SECOND},
};
use support::model::number_of;

type Meanwhile = Box<dyn FnMut(&mut World, Operation)>;

/// A [`Schedule`], and what happens in the middle of turns.
struct Meddled {
    schedule: Schedule,
    meanwhile: Meanwhile,
}

impl Script for Meddled {
    fn next_at(&mut self, world: &World) -> Option<Micros> {
        self.schedule.next_at(world)
    }

    fn happen(&mut self, world: &mut World) {
        self.schedule.happen(world);
    }

    fn meanwhile(&mut self, world: &mut World, operation: Operation) {
        (self.meanwhile)(world, operation);
    }
}

fn config() -> Config {
    Config {
        user_buffer_bytes: 100,
        slow_user_policy: SlowUserPolicy::Journal,
        user_mark_ms: 0,
        journal_directory: Some("journal".into()),
        journal_segment_bytes: 1024,
        ..Config::default()
    }
}

/// Serves for ten seconds.
fn serve(schedule: Schedule, meanwhile: Meanwhile, folder: &SimFolder) -> SimNet<Meddled> {
    let net = SimNet::with_disk(Meddled { schedule, meanwhile }, folder.clone());
    let mut server = Server::recover(config(), net.clone(), Box::new(folder.disk()), || 0).unwrap();
    while net.shared().world.now() < 10 * SECOND && !net.shared().world.is_idle() {
        server.turn().unwrap();
        folder.set_now(net.shared().world.now());
    }
    net
}

fn find(world: &World, index: usize) -> Peer {
    world.peers().nth(index).unwrap()
}

fn connect(world: &mut World, port: Port, bytes: &[u8]) -> Peer {
    let peer = world.connect(port).unwrap();
    world.send(peer, bytes);
    peer
}

fn broadcasts(numbers: std::ops::RangeInclusive<u64>) -> Vec<u8> {
    numbers.flat_map(|number| format!("{number}|B\n").into_bytes()).collect()
}

/// The lines that a user was sent, of which the last are its last words with this reason: these must name the number behind the last
/// event. To be called where every event is for it.
fn assert_nothing_is_missing(net: &SimNet<Meddled>, index: usize, reason: &str) {
    let shared = net.shared();
    let received = String::from_utf8_lossy(shared.world.received(find(&shared.world, index))).into_owned();
    let last = received.lines().last().unwrap();
    let fields: Vec<_> = last.split('|').collect();
    assert!(fields.len() == 4 && fields[0] == "-" && fields[3] == reason, "{received}");
    let highest = received.lines().rev().find_map(|line| number_of(line.as_bytes())).unwrap();
    assert_eq!(fields[2], (highest + 1).to_string(), "{received}");
}

#[test]
fn whoever_falls_behind_and_is_taken_over_in_one_turn_is_told_its_own_place() {
    let folder = SimFolder::new(1);
    let mut schedule = Schedule::default();
    schedule.at(0, |world| {
        connect(world, Port::Source, b"");
        let slow = connect(world, Port::User, b"7|now\n");
        world.limit_outbound(slow, 40);
        connect(world, Port::User, b"8|now\n");
    });
    // The disk is slow: the next connection logs in when the events have been read, and before they are delivered.
    folder.set_faults(DiskFaults { delay_max: 100 * MILLISECOND, ..DiskFaults::default() });
    schedule.at(SECOND, |world| _ = world.send(find(world, 0), &broadcasts(1..=60)));
    schedule.at(SECOND + 1, |world| _ = connect(world, Port::User, b"7|now\n"));
    // The slow one takes everything again while user 8 is written to: after its buffer has overflowed, and before it is replaced.
    let meanwhile = |world: &mut World, operation| {
        if matches!(operation, Operation::Write(peer, _) if world.now() > SECOND && peer == find(world, 2)) {
            world.limit_outbound(find(world, 1), u64::MAX);
        }
    };
    let net = serve(schedule, Box::new(meanwhile), &folder);
    assert_nothing_is_missing(&net, 1, "replaced");
}

#[test]
fn when_the_journal_cannot_be_read_everybody_is_told_their_own_place() {
    let folder = SimFolder::new(1);
    let damaged = Rc::new(folder.clone());
    let mut schedule = Schedule::default();
    schedule.at(0, |world| _ = connect(world, Port::Source, b""));
    for batch in 0..40 {
        let numbers = batch * 20 + 1..=batch * 20 + 20;
        let at = (1 + batch) * 10 * MILLISECOND;
        schedule.at(at, |world| _ = world.send(find(world, 0), &broadcasts(numbers)));
    }
    schedule.at(SECOND, move |world| {
        let names = damaged.names();
        let segments: Vec<_> = names.iter().filter(|(name, _)| name.ends_with(".fnj")).collect();
        assert!(segments.len() > 4, "{names:?}");
        segments[2..].iter().for_each(|(name, bytes)| damaged.flip(name, 8 * (bytes / 2)));
        for login in ["7|oldest\n", "8|oldest\n"] {
            let user = connect(world, Port::User, login.as_bytes());
            world.limit_outbound(user, if login.starts_with('7') { 40 } else { 600 });
        }
    });
    // The pass waits for user 8. User 7, which has left it, waits for the next one.
    schedule.at(2 * SECOND, |world| world.limit_outbound(find(world, 1), u64::MAX));
    schedule.at(2 * SECOND + MILLISECOND, |world| world.limit_outbound(find(world, 2), u64::MAX));
    let net = serve(schedule, Box::new(|_, _| {}), &folder);
    assert_nothing_is_missing(&net, 1, "slow");
    assert_nothing_is_missing(&net, 2, "slow");
}
