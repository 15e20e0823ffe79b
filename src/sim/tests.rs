mod flood;
mod lingering;
mod vanished;

use super::{Fault, Operation, Peer, Schedule, Script, ServerEnd, SimNet, World};
use crate::{
    config::Config,
    counters::DisconnectReason,
    server::{
        Phase, Server,
        net::{Net, Port, Ready},
    },
    time::Micros,
};
use std::io::{ErrorKind, Read, Write};

/// A network without a script: the test does what happens itself.
fn quiet() -> SimNet<Schedule> {
    SimNet::new(Schedule::default())
}

fn poll<S: Script>(net: &mut SimNet<S>, wait: Option<Micros>) -> Vec<Ready> {
    let mut ready = Vec::new();
    net.poll(wait, &mut ready).unwrap();
    ready
}

/// A connection that the server has accepted and registered with key 7, and its two ends.
fn connected(net: &mut SimNet<Schedule>) -> (super::SimSocket<Schedule>, Peer) {
    let peer = net.shared().world.connect(Port::User).unwrap();
    assert_eq!(poll(net, Some(0)), [Ready::Listener(Port::User)]);
    let (mut socket, _) = net.accept(Port::User).unwrap();
    net.register(&mut socket, 7).unwrap();
    assert_eq!(net.accept(Port::User).unwrap_err().kind(), ErrorKind::WouldBlock);
    (socket, peer)
}

fn ready(readable: bool, writable: bool, hung_up: bool) -> Ready {
    Ready::Socket { key: 7, readable, writable, hung_up, urgent: false }
}

#[test]
fn readiness_is_told_once_per_edge() {
    let mut net = quiet();
    let (mut socket, peer) = connected(&mut net);
    net.shared().world.send(peer, b"abc");
    assert_eq!(poll(&mut net, Some(0)), [ready(true, false, false)]);
    assert_eq!(poll(&mut net, Some(0)), []);
    net.shared().world.send(peer, b"def");
    net.shared().world.finish(peer);
    assert_eq!(poll(&mut net, Some(0)), [ready(true, false, true)]);
    let mut bytes = [0; 4];
    assert_eq!(socket.read(&mut bytes).unwrap(), 4);
    assert_eq!(&bytes, b"abcd");
    assert_eq!(socket.read(&mut bytes).unwrap(), 2);
    assert_eq!(socket.read(&mut bytes).unwrap(), 0);
}

#[test]
fn a_full_socket_takes_bytes_again_and_says_so() {
    let mut net = quiet();
    let (mut socket, peer) = connected(&mut net);
    net.shared().world.limit_outbound(peer, 4);
    assert_eq!(socket.write(b"abcdef").unwrap(), 4);
    assert_eq!(socket.write(b"ef").unwrap_err().kind(), ErrorKind::WouldBlock);
    net.want_write(&mut socket, 7, true).unwrap();
    assert_eq!(poll(&mut net, Some(0)), []);
    net.shared().world.limit_outbound(peer, 5);
    assert_eq!(poll(&mut net, Some(0)), [ready(false, true, false)]);
    assert_eq!(poll(&mut net, Some(0)), []);
    assert_eq!(socket.write(b"ef").unwrap(), 1);
    assert_eq!(net.shared().world.received(peer), b"abcde");
}

#[test]
fn a_reset_fails_one_read_and_every_write() {
    let mut net = quiet();
    let (mut socket, peer) = connected(&mut net);
    net.shared().world.send(peer, b"a");
    net.shared().world.reset(peer);
    assert_eq!(poll(&mut net, Some(0)), [ready(true, false, true)]);
    let mut bytes = [0; 4];
    assert_eq!(socket.read(&mut bytes).unwrap(), 1);
    assert_eq!(socket.read(&mut bytes).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(socket.read(&mut bytes).unwrap(), 0);
    assert_eq!(socket.write(b"a").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn writing_to_who_has_left_breaks_the_connection() {
    let mut net = quiet();
    let (mut socket, peer) = connected(&mut net);
    net.shared().world.close(peer);
    assert_eq!(poll(&mut net, Some(0)), [ready(true, false, true)]);
    assert_eq!(socket.write(b"abc").unwrap(), 3);
    assert_eq!(poll(&mut net, Some(0)), [ready(true, false, true)]);
    assert_eq!(socket.write(b"abc").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(net.shared().world.received(peer), b"");
}

#[test]
fn closing_with_bytes_unread_is_seen_as_a_reset() {
    let mut net = quiet();
    let (socket, peer) = connected(&mut net);
    assert_eq!(net.shared().world.server_end(peer), ServerEnd::Open);
    net.shared().world.send(peer, b"a");
    drop(socket);
    assert_eq!(net.shared().world.server_end(peer), ServerEnd::Reset);
    assert_eq!(net.shared().world.send(peer, b"b"), 0);
    net.shared().world.forget(peer);
    assert_eq!(net.shared().world.peers().count(), 0);
}

#[test]
fn a_closed_listener_takes_nobody() {
    let mut net = quiet();
    let waiting = net.shared().world.connect(Port::Source).unwrap();
    net.close_listener(Port::Source);
    assert_eq!(poll(&mut net, Some(0)), []);
    assert_eq!(net.shared().world.server_end(waiting), ServerEnd::Reset);
    assert_eq!(net.shared().world.connect(Port::Source), None);
    assert!(net.shared().world.connect(Port::User).is_some());
}

#[test]
fn simulated_time_moves_only_while_the_server_waits() {
    let mut schedule = Schedule::default();
    schedule.at(50, World::signal);
    let mut net = SimNet::new(schedule);
    let mut ready = Vec::new();
    assert_eq!(net.poll(Some(0), &mut ready).unwrap(), 0);
    assert_eq!(net.poll(Some(20), &mut ready).unwrap(), 20);
    assert_eq!(ready, []);
    assert_eq!(net.poll(None, &mut ready).unwrap(), 50);
    assert_eq!(ready, [Ready::Signal]);
    assert!(!net.shared().world.is_idle());
    ready.clear();
    assert_eq!(net.poll(None, &mut ready).unwrap(), 50);
    assert!(net.shared().world.is_idle());
}

/// Faults from a list, and otherwise a schedule.
#[derive(Debug)]
struct Faulty(Schedule, Vec<Fault>);

impl Script for Faulty {
    fn next_at(&mut self, world: &World) -> Option<Micros> {
        self.0.next_at(world)
    }

    fn happen(&mut self, world: &mut World) {
        self.0.happen(world);
    }

    fn fault(&mut self, operation: Operation) -> Option<Fault> {
        match operation {
            Operation::Read(..) | Operation::Write(..) | Operation::Accept(_) => self.1.pop(),
            _ => None,
        }
    }
}

#[test]
fn after_a_fault_that_leaves_a_socket_ready_there_is_another_edge() {
    const AGAIN: i32 = rustix::io::Errno::AGAIN.raw_os_error();
    const IO: i32 = rustix::io::Errno::IO.raw_os_error();
    let mut net = SimNet::new(Faulty(Schedule::default(), Vec::new()));
    let peer = net.shared().world.connect(Port::User).unwrap();
    poll(&mut net, Some(0));
    net.shared().script.1 = vec![Fault::Errno(AGAIN)];
    assert_eq!(net.accept(Port::User).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(poll(&mut net, Some(0)), [Ready::Listener(Port::User)]);
    let (mut socket, _) = net.accept(Port::User).unwrap();
    net.register(&mut socket, 7).unwrap();
    net.shared().world.send(peer, b"abc");
    poll(&mut net, Some(0));

    let mut bytes = [0; 4];
    net.shared().script.1 = vec![Fault::Errno(AGAIN)];
    assert_eq!(socket.read(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(poll(&mut net, Some(0)), [ready(true, false, false)]);
    net.shared().script.1 = vec![Fault::Cut(2)];
    assert_eq!(socket.read(&mut bytes).unwrap(), 2);
    assert_eq!(poll(&mut net, Some(0)), [ready(true, false, false)]);

    net.want_write(&mut socket, 7, true).unwrap();
    poll(&mut net, Some(0));
    net.shared().script.1 = vec![Fault::Errno(IO), Fault::Cut(0)];
    assert_eq!(socket.write(b"abc").unwrap(), 1);
    assert_eq!(poll(&mut net, Some(0)), [ready(true, true, false)]);
    assert_eq!(socket.write(b"bc").unwrap_err().raw_os_error(), Some(IO));
    assert_eq!(net.shared().world.received(peer), b"a");
}

/// Runs a server until nothing is left that could happen.
fn run(config: Config, schedule: Schedule) -> (Server<SimNet<Schedule>>, SimNet<Schedule>) {
    let net = SimNet::new(schedule);
    let mut server = Server::new(config, net.clone(), 0);
    while !net.shared().world.is_idle() && !matches!(server.phase(), Phase::Done { .. }) {
        server.turn().unwrap();
    }
    (server, net)
}

#[test]
fn a_hole_is_given_up_when_its_time_has_come() {
    let mut schedule = Schedule::default();
    schedule.at(10, |world| {
        let user = world.connect(Port::User).unwrap();
        world.send(user, b"1\r\n");
    });
    schedule.at(20, |world| {
        let source = world.connect(Port::Source).unwrap();
        world.send(source, b"2|B\r\n");
        world.finish(source);
    });
    schedule.at(1_000_019, |world| assert_eq!(world.received(Peer(0)), b""));
    schedule.at(1_000_021, |world| assert_eq!(world.received(Peer(0)), b"2|B\r\n"));
    let (server, net) = run(Config::default(), schedule);
    assert_eq!(server.counters().sequence_skipped, 1);
    assert_eq!(net.shared().world.received(Peer(0)), b"2|B\r\n");
}

#[test]
fn a_user_that_stops_reading_is_cut_off_on_time() {
    let mut schedule = Schedule::default();
    schedule.at(0, |world| {
        for _ in 0..2 {
            let user = world.connect(Port::User).unwrap();
            world.send(user, format!("{}\r\n", user.index()).as_bytes());
        }
        world.limit_outbound(Peer(0), 10);
        let source = world.connect(Port::Source).unwrap();
        let events: String = (1..=100).map(|seq| format!("{seq}|B\n")).collect();
        world.send(source, events.as_bytes());
    });
    schedule.at(4_999_999, |world| assert_eq!(world.server_end(Peer(0)), ServerEnd::Open));
    schedule.at(5_000_001, |world| assert_eq!(world.server_end(Peer(0)), ServerEnd::Closed));
    schedule.at(9_000_000, World::signal);
    let config = Config { user_buffer_bytes: 64, ..Config::default() };
    let (server, net) = run(config, schedule);
    assert_eq!(server.phase(), Phase::Done { forced: false });
    assert_eq!(server.counters().users_disconnected[DisconnectReason::Slow as usize], 1);
    assert_eq!(net.shared().world.received(Peer(0)), b"1|B\n2|B\n3|");
    assert_eq!(net.shared().world.written(Peer(1)), 9 * 4 + 90 * 5 + 6);
}

#[test]
fn shutting_down_does_not_wait_where_a_run_ends_with_its_source() {
    let mut schedule = Schedule::default();
    schedule.at(0, |world| {
        let user = world.connect(Port::User).unwrap();
        world.send(user, b"1\n");
        let source = world.connect(Port::Source).unwrap();
        world.send(source, b"1|B\n3|B\n");
    });
    schedule.at(1000, World::signal);
    let config = Config { reset_on_source_eof: true, event_timeout_ms: -1, ..Config::default() };
    let (server, net) = run(config, schedule);
    assert_eq!(server.phase(), Phase::Done { forced: false });
    // At the end no gap is given up.
    assert_eq!(net.shared().world.received(Peer(0)), b"1|B\n");
    assert_eq!(net.shared().world.now(), 1000);
}
