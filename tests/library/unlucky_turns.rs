//! What meets the server at the worst moment of a turn, on simulated sockets: found by the simulator, kept as they are.

use std::collections::VecDeque;

use fortnight::{
    config::Config,
    server::{Phase, Server, net::Port},
    sim::{Fault, Operation, Peer, Schedule, Script, ServerEnd, SimNet, World},
    time::{MILLISECOND, Micros, SECOND},
    trace::{Recorder, Recording},
};
use rustix::io::Errno;

/// A [`Schedule`], and errors that operations end with from some time on.
#[derive(Default)]
struct Unlucky {
    schedule: Schedule,
    accepts: (Micros, VecDeque<Errno>),
    writes: (Micros, VecDeque<Errno>),
    now: Micros,
}

impl Script for Unlucky {
    fn next_at(&mut self, world: &World) -> Option<Micros> {
        self.schedule.next_at(world)
    }

    fn happen(&mut self, world: &mut World) {
        self.now = world.now();
        self.schedule.happen(world);
    }

    fn fault(&mut self, operation: Operation) -> Option<Fault> {
        let (from, errors) = match operation {
            Operation::Accept(Port::Source) => &mut self.accepts,
            Operation::Write(..) => &mut self.writes,
            _ => return None,
        };
        let error = if self.now >= *from { errors.pop_front() } else { None };
        error.map(|errno| Fault::Errno(errno.raw_os_error()))
    }
}

impl Unlucky {
    fn at(&mut self, time: Micros, action: impl FnOnce(&mut World) + 'static) {
        self.schedule.at(time, action);
    }
}

/// A world and the server in it.
struct Run {
    net: SimNet<Unlucky>,
    server: Server<SimNet<Unlucky>>,
}

impl Run {
    fn new(config: Config, script: Unlucky) -> Run {
        let net = SimNet::new(script);
        Run { server: Server::new(config, net.clone(), 0), net }
    }

    /// Lets the server run until nothing will ever happen again, it has ended, or time is up.
    fn until(&mut self, time: Micros) {
        let is_over = |net: &SimNet<Unlucky>| {
            let world = &net.shared().world;
            world.is_idle() || world.now() >= time
        };
        while !is_over(&self.net) && !matches!(self.server.phase(), Phase::Done { .. }) {
            self.server.turn().unwrap();
            assert!(self.server.counters().loop_turns < 1000, "the server does not sleep");
        }
    }

    fn end_of(&self, peer: Peer) -> ServerEnd {
        self.net.shared().world.server_end(peer)
    }

    fn received(&self, peer: Peer) -> String {
        String::from_utf8_lossy(self.net.shared().world.received(peer)).into_owned()
    }

    fn peer(&self, index: usize) -> Peer {
        self.net.shared().world.peers().nth(index).unwrap()
    }
}

fn find(world: &World, index: usize) -> Peer {
    world.peers().nth(index).unwrap()
}

fn connect(world: &mut World, port: Port, bytes: &[u8]) -> Peer {
    let peer = world.connect(port).unwrap();
    world.send(peer, bytes);
    peer
}

#[test]
fn whoever_gets_the_key_of_a_user_that_was_still_to_be_read_is_not_read_instead() {
    let mut script = Unlucky::default();
    script.at(0, |world| _ = connect(world, Port::User, b"7\n"));
    script.at(SECOND, |world| {
        // More than is read of it before it is replaced.
        world.send(find(world, 0), &[b'x'; 1 << 20]);
        connect(world, Port::User, b"7\n");
        connect(world, Port::Source, b"1|P|9|7\n");
    });
    let mut run = Run::new(Config::default(), script);
    run.until(Micros::MAX);
    assert_eq!(run.received(run.peer(1)), "1|P|9|7\n");
}

/// A slow user holds a source up that has hung up, and another one waits to be accepted, which connected at this time.
fn held_up(second_source_at: Micros) -> (Config, Unlucky) {
    let config = Config {
        max_event_source_clients: 2,
        user_buffer_bytes: 10,
        slow_user_timeout_ms: 60_000,
        ..Config::default()
    };
    let mut script = Unlucky::default();
    script.at(0, |world| {
        connect(world, Port::Source, b"");
        let user = connect(world, Port::User, b"7\n");
        world.limit_outbound(user, 0);
    });
    script.at(second_source_at, |world| _ = connect(world, Port::Source, b"6|B\n"));
    script.at(2 * MILLISECOND, |world| _ = world.send(find(world, 0), b"1|B\n2|B\n3|B\n4|B\n"));
    script.at(3 * MILLISECOND, |world| {
        world.send(find(world, 0), b"5|B\n");
        world.finish(find(world, 0));
    });
    (config, script)
}

#[test]
fn the_server_sleeps_while_a_source_that_has_hung_up_keeps_the_next_one_from_being_accepted() {
    let (config, mut script) = held_up(MILLISECOND);
    script.accepts = (MILLISECOND, [Errno::MFILE].into());
    script.at(30 * SECOND, |world| world.limit_outbound(find(world, 1), u64::MAX));
    let mut run = Run::new(config, script);
    run.until(29 * SECOND);
    run.until(Micros::MAX);
    assert_eq!(run.received(run.peer(1)), "1|B\n2|B\n3|B\n4|B\n5|B\n6|B\n");
}

#[test]
fn a_slow_user_that_is_gone_does_not_hold_the_others_up_any_longer_whenever_that_is_noticed() {
    let (config, mut script) = held_up(4 * MILLISECOND);
    // It can be written to, then it cannot, and when it is asked again in the same turn, it is gone.
    script.writes = (5 * MILLISECOND, [Errno::AGAIN, Errno::PIPE].into());
    script.at(5 * MILLISECOND, |world| world.limit_outbound(find(world, 1), u64::MAX));
    let mut run = Run::new(config, script);
    run.until(5 * MILLISECOND);
    // What is noticed in the middle of a turn may be acted upon in the next one, which does not wait.
    run.server.turn().unwrap();
    assert_eq!(run.end_of(run.peer(1)), ServerEnd::Closed);
    assert_eq!(run.net.shared().world.now(), 5 * MILLISECOND);
    run.until(Micros::MAX);
    assert_eq!(run.server.counters().events_received, 6);
}

#[test]
fn at_the_end_everything_that_has_arrived_is_released_also_behind_holes_and_a_pause() {
    let config = Config {
        max_event_source_clients: 2,
        event_timeout_ms: 0,
        reorder_capacity: 4,
        user_buffer_bytes: 10,
        ..Config::default()
    };
    let mut script = Unlucky::default();
    script.at(0, |world| {
        let user = connect(world, Port::User, b"7\n");
        world.limit_outbound(user, 0);
        connect(world, Port::Source, b"1|B\n2|B\n3|B\n4|B\n");
        connect(world, Port::Source, b"");
    });
    script.at(MILLISECOND, |world| {
        world.send(find(world, 1), b"5|B\n10|B\n11|B\n20|B\n21|B\n30|B\n31|B\n40|B\n50|B\n");
        // The other one is read, and has its turn, before it becomes clear that nobody else can fill the hole.
        world.finish(find(world, 2));
        world.signal();
    });
    script.at(2 * MILLISECOND, |world| world.limit_outbound(find(world, 0), u64::MAX));
    let mut run = Run::new(config, script);
    run.until(Micros::MAX);
    let lines: Vec<String> = [1, 2, 3, 4, 5, 10, 11, 20, 21, 30, 31, 40, 50]
        .iter()
        .map(|number| format!("{number}|B\n"))
        .collect();
    assert_eq!(run.received(run.peer(0)), lines.concat());
    assert_eq!(run.server.phase(), Phase::Done { forced: false });
}

#[test]
fn a_source_that_has_hung_up_makes_room_for_one_other() {
    let mut script = Unlucky::default();
    script.at(0, |world| {
        connect(world, Port::User, b"7\n");
        let first = connect(world, Port::Source, b"1|B\n");
        world.finish(first);
        connect(world, Port::Source, b"2|B\n");
        connect(world, Port::Source, b"3|B\n");
    });
    let mut run = Run::new(Config { max_event_source_clients: 1, ..Config::default() }, script);
    run.until(Micros::MAX);
    assert_eq!(run.received(run.peer(0)), "1|B\n2|B\n");
    assert_eq!(run.server.counters().sources_rejected, 1);
}

#[test]
fn the_last_answer_of_the_admin_interface_is_finished_also_while_a_trace_is_recorded() {
    let mut script = Schedule::default();
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    script.at(0, |world| _ = connect(world, Port::Admin, request));
    script.at(20 * MILLISECOND, |world| {
        let client = find(world, 0);
        assert!(world.received(client).ends_with(b"ok\n"));
        // The client waits for the end of the answer, and the server for the client's.
        assert!(world.has_finished(client));
        assert_eq!(world.server_end(client), ServerEnd::Open);
        world.close(client);
    });
    let config = Config { admin_port: Some(0), ..Config::default() };
    let net = SimNet::new(script);
    let recorder = Recorder::new(Box::new(std::io::sink()), &config).unwrap();
    let mut server = Server::new(config, Recording::new(net.clone(), recorder), 0);
    while net.shared().world.now() < 20 * MILLISECOND {
        server.turn().unwrap();
    }
    server.turn().unwrap();
    let client = find(&net.shared().world, 0);
    assert_eq!(net.shared().world.server_end(client), ServerEnd::Closed);
}
