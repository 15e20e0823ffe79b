//! Clients that connect faster than they can be let in.

use super::super::{Operation, Peer, Schedule, Script, SimNet, World};
use crate::{
    config::Config,
    server::{Server, net::Port},
    time::{MILLISECOND, Micros},
};

/// What letting a user in takes.
const LOGIN: Micros = 100;

/// For each user that is let in another one connects, logs in and hangs up. The time passes meanwhile.
#[derive(Debug, Default)]
struct Flood {
    schedule: Schedule,
    is_on: bool,
}

impl Script for Flood {
    fn next_at(&mut self, world: &World) -> Option<Micros> {
        self.schedule.next_at(world)
    }

    fn happen(&mut self, world: &mut World) {
        self.schedule.happen(world);
    }

    fn meanwhile(&mut self, world: &mut World, operation: Operation) {
        if self.is_on && operation == Operation::Accept(Port::User) {
            world.advance_to(world.now() + LOGIN);
            let user = log_in(world, 7);
            world.finish(user);
            world.forget(user);
        }
    }
}

fn log_in(world: &mut World, id: u64) -> Peer {
    let user = world.connect(Port::User).unwrap();
    world.send(user, format!("{id}\n").as_bytes());
    user
}

#[test]
fn who_logs_in_again_and_again_puts_off_no_event_and_who_was_there_before_it_gets_it() {
    const USERS: u64 = 300;
    let net = SimNet::new(Flood::default());
    let config = Config { event_timeout_ms: -1, ..Config::default() };
    let mut server = Server::new(config, net.clone(), 0);
    let source = net.shared().world.connect(Port::Source).unwrap();
    server.turn().unwrap();
    let users: Vec<Peer> = {
        let shared = &mut *net.shared();
        shared.script.is_on = true;
        let users = (100..100 + USERS).map(|id| log_in(&mut shared.world, id)).collect();
        shared.world.send(source, b"1|B\n");
        users
    };
    let (mut turns, mut longest) = (0, 0);
    while net.shared().world.received(users[0]).is_empty() {
        let began = net.shared().world.now();
        server.turn().unwrap();
        turns += 1;
        longest = longest.max(net.shared().world.now() - began);
        assert!(turns < 1000, "the event never comes");
    }
    for &user in &users {
        assert_eq!(net.shared().world.received(user), b"1|B\n");
    }
    // Not all of them in one turn, which would keep everybody else waiting.
    assert!(turns > 3, "{turns} turns");
    assert!(longest <= 15 * MILLISECOND, "a turn took {longest} µs");
    // Those who were there when the event came, and a turn's worth of others.
    let took = net.shared().world.now();
    assert!(took <= LOGIN * (2 * USERS + 128), "the event took {took} µs");
}
