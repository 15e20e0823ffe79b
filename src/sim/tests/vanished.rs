//! Machines that vanish without a word while something is on its way to them.

use super::super::{Peer, Schedule, ServerEnd, World};
use super::run;
use crate::{
    config::Config,
    counters::DisconnectReason,
    server::net::Port,
    time::{Micros, SECOND},
};

/// Far behind everything that a test waits for.
const LATE: Micros = 600 * SECOND;

fn log_in(world: &mut World, id: u64) {
    let user = world.connect(Port::User).unwrap();
    world.send(user, format!("{id}\n").as_bytes());
}

#[test]
fn a_user_whose_machine_has_vanished_goes_within_two_minutes_and_one_that_only_does_not_read_stays() {
    let mut schedule = Schedule::default();
    schedule.at(0, |world| (0..3).for_each(|id| log_in(world, id)));
    schedule.at(SECOND, |world| {
        // The first one has vanished, the second one does not read, the third one reads.
        world.vanish(Peer(0), 1 << 20);
        world.limit_outbound(Peer(1), 2);
        let source = world.connect(Port::Source).unwrap();
        world.send(source, b"1|B\n");
    });
    schedule.at(75 * SECOND, |world| assert_eq!(world.server_end(Peer(0)), ServerEnd::Open));
    schedule.at(121 * SECOND, |world| assert_eq!(world.server_end(Peer(0)), ServerEnd::Closed));
    schedule.at(LATE, |world| {
        assert_eq!(world.server_end(Peer(1)), ServerEnd::Open);
        assert_eq!(world.received(Peer(2)), b"1|B\n");
    });
    let (server, _) = run(Config::default(), schedule);
    assert_eq!(server.counters().users_disconnected[DisconnectReason::Error as usize], 1);
}

#[test]
fn a_source_whose_machine_has_vanished_makes_room() {
    let mut schedule = Schedule::default();
    schedule.at(0, |world| {
        let source = world.connect(Port::Source).unwrap();
        world.send(source, b"?|ack\n");
    });
    // What it has sent is acknowledged, and nobody is there any more.
    schedule.at(SECOND, |world| {
        world.send(Peer(0), b"1|B\n");
        world.vanish(Peer(0), 1 << 20);
    });
    schedule.at(121 * SECOND, |world| {
        assert_ne!(world.server_end(Peer(0)), ServerEnd::Open);
        let next = world.connect(Port::Source).unwrap();
        world.send(next, b"2|B\n");
    });
    let (server, _) = run(Config { event_timeout_ms: -1, ..Config::default() }, schedule);
    assert_eq!(server.counters().events_received, 2);
}
