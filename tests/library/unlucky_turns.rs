//! What meets the server at the worst moment of a turn, on simulated sockets: found by the simulator, kept as they are.

use std::collections::VecDeque;

use fortnight::internals::{
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
    /// For how long the process is stopped at the ends of waits.
    stalls: VecDeque<Micros>,
    /// The connection that sends rubbish whenever something is read of it.
    rubbish: Option<usize>,
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

    fn stall(&mut self) -> Micros {
        self.stalls.pop_front().unwrap_or(0)
    }

    fn meanwhile(&mut self, world: &mut World, operation: Operation) {
        if let (Operation::Read(peer, _), Some(index)) = (operation, self.rubbish)
            && world.peers().nth(index) == Some(peer)
        {
            world.send(peer, b"rubbish\n");
        }
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
fn at_the_end_arrived_events_are_released_even_during_a_pause_and_no_hole_is_given_up() {
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
        world.finish(find(world, 2));
        world.signal();
    });
    script.at(2 * MILLISECOND, |world| world.limit_outbound(find(world, 0), u64::MAX));
    let mut run = Run::new(config, script);
    run.until(Micros::MAX);
    assert_eq!(run.received(run.peer(0)), "1|B\n2|B\n3|B\n4|B\n5|B\n");
    assert_eq!(run.server.counters().sequence_skipped, 0);
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

#[test]
fn a_hole_is_not_given_up_for_time_in_which_the_process_was_stopped() {
    let mut script = Unlucky::default();
    script.at(0, |world| {
        connect(world, Port::User, b"7\n");
        connect(world, Port::Source, b"2|B\n");
    });
    // The wait for the hole is over after a second. Then the process is stopped, and meanwhile the event comes.
    script.stalls = [SECOND].into();
    script.at(SECOND + MILLISECOND, |world| _ = world.send(find(world, 1), b"1|B\n"));
    let mut run = Run::new(Config::default(), script);
    run.until(5 * SECOND);
    assert_eq!(run.received(run.peer(0)), "1|B\n2|B\n");
    assert_eq!(run.server.counters().sequence_skipped, 0);
}

#[test]
fn nobody_is_late_to_log_in_because_the_process_was_stopped() {
    let mut script = Unlucky::default();
    script.at(0, |world| _ = connect(world, Port::User, b"7"));
    script.stalls = [SECOND].into();
    script.at(10 * SECOND + MILLISECOND, |world| _ = world.send(find(world, 0), b"\n"));
    let mut run = Run::new(Config::default(), script);
    run.until(15 * SECOND);
    assert_eq!(run.end_of(run.peer(0)), ServerEnd::Open);
}

#[test]
fn with_a_timeout_of_0_rubbish_of_another_source_does_not_put_off_a_hole() {
    let config = Config { event_timeout_ms: 0, max_event_source_clients: 2, ..Config::default() };
    let mut script = Unlucky::default();
    script.at(0, |world| {
        connect(world, Port::User, b"7\n");
        connect(world, Port::Source, b"");
        connect(world, Port::Source, b"");
    });
    script.at(MILLISECOND, |world| {
        world.send(find(world, 1), b"2|B\n");
        world.send(find(world, 2), b"rubbish\n");
    });
    // As soon as it has been read, there is more.
    script.rubbish = Some(2);
    let mut run = Run::new(config, script);
    for _ in 0..20 {
        run.server.turn().unwrap();
    }
    assert_eq!(run.received(run.peer(0)), "2|B\n");
}

#[test]
fn what_comes_after_urgent_data_is_read() {
    let mut script = Unlucky::default();
    script.at(0, |world| {
        connect(world, Port::User, b"7\n");
        connect(world, Port::Source, b"");
    });
    script.at(MILLISECOND, |world| {
        let source = find(world, 1);
        world.send(source, b"1|B\n");
        world.send_urgent(source);
        world.send(source, b"2|B\n");
    });
    let mut run = Run::new(Config::default(), script);
    run.until(Micros::MAX);
    assert_eq!(run.received(run.peer(0)), "1|B\n2|B\n");
}

#[test]
fn sources_that_come_one_after_the_other_all_have_their_turn() {
    for (places, stays, resets) in [(1, 0, false), (2, 1, false), (10, 0, false), (10, 0, true)] {
        let config = Config {
            max_event_source_clients: places,
            reset_on_source_eof: resets,
            max_user_clients: 1,
            ..Config::default()
        };
        let mut script = Unlucky::default();
        script.at(0, move |world| {
            connect(world, Port::User, b"7\n");
            (0..stays).for_each(|_| _ = connect(world, Port::Source, b""));
        });
        script.at(MILLISECOND, move |world| {
            for number in 1..=100 {
                let number = if resets { 1 } else { number };
                let source = connect(world, Port::Source, format!("{number}|B\n").as_bytes());
                world.close(source);
            }
        });
        let mut run = Run::new(config, script);
        run.until(Micros::MAX);
        let counters = run.server.counters();
        assert_eq!(counters.sources_rejected, 0, "{places} places");
        assert_eq!(counters.events_released_total(), 100, "{places} places");
    }
}

#[test]
fn at_the_end_all_that_has_arrived_is_read_and_no_more() {
    let config = Config { max_event_source_clients: 1, ..Config::default() };
    let mut script = Unlucky::default();
    script.at(0, |world| {
        connect(world, Port::User, b"7\n");
    });
    script.at(MILLISECOND, |world| {
        let first = connect(world, Port::Source, b"1|B\n");
        world.close(first);
        connect(world, Port::Source, b"2|B\n");
        world.signal();
    });
    // There is always more of the second source.
    script.rubbish = Some(2);
    let mut run = Run::new(config, script);
    for _ in 0..20 {
        run.server.turn().unwrap();
    }
    assert_eq!(run.received(run.peer(0)), "1|B\n2|B\n");
    assert_eq!(run.server.phase(), Phase::Done { forced: false });
}

#[test]
fn a_stream_that_is_cut_off_ends_with_a_line() {
    let mut script = Unlucky::default();
    script.at(0, |world| {
        let user = connect(world, Port::User, b"7\n");
        world.limit_outbound(user, 6);
        connect(world, Port::Source, b"1|B\n2|B\n3|B\n");
    });
    script.at(MILLISECOND, World::signal);
    // There is room again, and nobody is told of it.
    script.at(5 * SECOND, |world| world.limit_outbound_quietly(find(world, 0), 11));
    let mut run = Run::new(Config::default(), script);
    run.until(Micros::MAX);
    assert_eq!(run.received(run.peer(0)), "1|B\n2|B\n");
    assert_eq!(run.server.phase(), Phase::Done { forced: false });
}

#[test]
fn those_whose_time_is_up_at_once_are_closed_in_several_turns() {
    let mut script = Unlucky::default();
    script.at(0, |world| {
        for _ in 0..300 {
            connect(world, Port::User, b"");
        }
    });
    let mut run = Run::new(Config { login_timeout_ms: 1000, ..Config::default() }, script);
    let closed = |run: &Run| {
        let ends: Vec<_> = run.net.shared().world.peers().collect();
        ends.into_iter().filter(|&peer| run.end_of(peer) != ServerEnd::Open).count()
    };
    let mut steps = vec![0];
    while *steps.last().unwrap() < 300 {
        run.server.turn().unwrap();
        assert!(run.server.counters().loop_turns < 1000, "they are not closed");
        if closed(&run) > *steps.last().unwrap() {
            steps.push(closed(&run));
        }
    }
    assert_eq!(steps, [0, 64, 128, 192, 256, 300]);
}
