//! In which order a turn reads and writes, on simulated sockets: with `busyPoll` it looks at the sources in between writes, and
//! never does it read for ever.

use fortnight::internals::{
    config::{Config, SlowUserPolicy},
    server::{Phase, Server, net::Port},
    sim::{Operation, Peer, Script, SimNet, World},
    time::Micros,
};

type Meanwhile = Box<dyn FnMut(&mut World, Operation, &[Operation])>;
type AfterRead = Box<dyn FnMut(&mut World)>;

/// Nothing happens by itself; something may right before the server does something, or once it has read.
struct Meddled {
    meanwhile: Meanwhile,
    after_read: Option<AfterRead>,
    has_read: bool,
    done: Vec<Operation>,
}

impl Script for Meddled {
    fn next_at(&mut self, world: &World) -> Option<Micros> {
        (self.has_read && self.after_read.is_some()).then(|| world.now())
    }

    fn happen(&mut self, world: &mut World) {
        self.has_read = false;
        if let Some(happens) = &mut self.after_read {
            happens(world);
        }
    }

    fn meanwhile(&mut self, world: &mut World, operation: Operation) {
        (self.meanwhile)(world, operation, &self.done);
        self.has_read |= is_read(&operation);
        self.done.push(operation);
    }
}

/// A server, its source, and its users 1, 2, …
struct Run {
    net: SimNet<Meddled>,
    server: Server<SimNet<Meddled>>,
    source: Peer,
    users: Vec<Peer>,
}

impl Run {
    fn new(users: u64, config: Config) -> Run {
        let net = SimNet::new(Meddled {
            meanwhile: Box::new(|_, _, _| {}),
            after_read: None,
            has_read: false,
            done: Vec::new(),
        });
        let mut server = Server::new(config, net.clone(), 0);
        let (source, users) = {
            let world = &mut net.shared().world;
            let source = world.connect(Port::Source).unwrap();
            let log_in = |id| {
                let user = world.connect(Port::User).unwrap();
                world.send(user, format!("{id}\n").as_bytes());
                user
            };
            (source, (1..=users).map(log_in).collect())
        };
        server.turn().unwrap();
        net.shared().script.done.clear();
        Run { net, server, source, users }
    }

    fn send(&mut self, lines: &str) {
        self.net.shared().world.send(self.source, lines.as_bytes());
    }

    fn meanwhile(&mut self, happens: impl FnMut(&mut World, Operation, &[Operation]) + 'static) {
        self.net.shared().script.meanwhile = Box::new(happens);
    }

    fn after_read(&mut self, happens: impl FnMut(&mut World) + 'static) {
        self.net.shared().script.after_read = Some(Box::new(happens));
    }

    fn turn(&mut self) {
        self.server.turn().unwrap();
    }

    /// Turns until the server has done nothing in one of them.
    fn rest(&mut self) {
        loop {
            let before = self.count(|_| true);
            self.turn();
            if self.count(|_| true) == before {
                return;
            }
        }
    }

    fn received(&self, user: Peer) -> String {
        String::from_utf8_lossy(self.net.shared().world.received(user)).into_owned()
    }

    /// Users who have got something.
    fn reached(&self) -> usize {
        self.users.iter().filter(|&&user| self.net.shared().world.written(user) > 0).count()
    }

    fn count(&self, is: impl Fn(&Operation) -> bool) -> usize {
        self.net.shared().script.done.iter().filter(|operation| is(operation)).count()
    }
}

fn busy() -> Config {
    Config { busy_poll: true, ..Config::default() }
}

fn is_write(operation: &Operation) -> bool {
    matches!(operation, Operation::Write(..))
}

fn is_read(operation: &Operation) -> bool {
    matches!(operation, Operation::Read(..))
}

#[test]
fn what_arrives_between_writes_goes_along_with_those_that_follow() {
    let mut run = Run::new(100, busy());
    let source = run.source;
    run.send("1|B\n");
    run.meanwhile(move |world, operation, done| {
        if is_write(&operation) && !done.iter().any(is_write) {
            world.send(source, b"2|B\n");
        }
    });
    run.rest();
    for &user in &run.users {
        assert_eq!(run.received(user), "1|B\n2|B\n");
    }
    let writes = run.count(is_write);
    assert!((101..150).contains(&writes), "{writes} writes, but only the first few users need two");
    let first = |is: fn(&Operation) -> bool, from: usize| {
        run.net.shared().script.done.iter().skip(from).position(is).map(|at| at + from)
    };
    let write = first(is_write, 0).unwrap();
    let read = first(is_read, write).unwrap();
    assert!(
        read - write < 50,
        "the source was not looked at before {} users had been written to",
        read - write
    );
}

#[test]
fn without_busy_poll_a_turn_is_written_to_its_end() {
    let mut run = Run::new(100, Config::default());
    run.send("1|B\n");
    run.turn();
    assert_eq!((run.reached(), run.count(is_write)), (100, 100));
}

#[test]
fn everybody_comes_to_their_turn_before_anybody_comes_again() {
    let mut run = Run::new(100, busy());
    let source = run.source;
    let mut number = 2;
    // Once the source has been read, there is an event for user 1 and one for everyone.
    run.after_read(move |world| {
        if number < 500 {
            world.send(source, format!("{number}|P|9|1\n{}|B\n", number + 1).as_bytes());
            number += 2;
        }
    });
    run.send("1|B\n");
    let mut turns = 0;
    while run.reached() < 100 {
        run.turn();
        turns += 1;
        assert!(turns < 100, "{} of 100 users have been written to", run.reached());
    }
    assert!(turns > 4, "the source was not looked at in between");
    let writes = run.count(is_write);
    assert!(writes < 250, "{writes} writes for the first to each of 100 users");
    run.rest();
    let all = run.received(run.users[1]);
    assert!(all.lines().count() > 10);
    for &user in &run.users[2..] {
        assert_eq!(run.received(user), all);
    }
}

#[test]
fn a_large_piece_is_written_at_once_behind_bytes_that_were_put_off() {
    let mut run = Run::new(100, Config { event_timeout_ms: -1, ..busy() });
    run.send("1|B\n");
    run.turn();
    let reached = run.reached();
    assert!(reached < 100);
    let large = (2..5000).fold(String::new(), |text, number| text + &format!("{number}|B\n"));
    run.send(&large);
    run.turn();
    for &user in &run.users {
        assert_eq!(run.received(user), format!("1|B\n{large}"));
    }
}

#[test]
fn a_user_that_leaves_gets_the_bytes_that_were_put_off() {
    let mut run = Run::new(100, busy());
    run.send("1|B\n");
    run.turn();
    let put_off: Vec<Peer> =
        run.users.iter().copied().filter(|&user| run.received(user).is_empty()).take(3).collect();
    let [leaver, replaced, closer] = put_off[..] else { panic!("everybody has been written to") };
    let id = run.users.iter().position(|&user| user == replaced).unwrap() + 1;
    let other = {
        let world = &mut run.net.shared().world;
        world.finish(leaver);
        world.close(closer);
        let other = world.connect(Port::User).unwrap();
        world.send(other, format!("{id}\n").as_bytes());
        other
    };
    run.rest();
    assert_eq!(run.received(leaver), "1|B\n");
    assert_eq!(run.received(replaced), "1|B\n");
    assert_eq!(run.received(other), "");
    let counters = run.server.counters();
    assert_eq!(counters.delivered_bytes, 400);
    assert_eq!(counters.users_disconnected.iter().sum::<u64>(), 3);
}

#[test]
fn at_the_end_writes_that_were_put_off_are_done() {
    let mut run = Run::new(100, Config { shutdown_timeout_ms: 5000, ..busy() });
    run.send("1|B\n");
    run.turn();
    assert!(run.reached() < 100);
    run.net.shared().world.signal();
    while !matches!(run.server.phase(), Phase::Done { .. }) {
        run.turn();
    }
    assert_eq!(run.server.phase(), Phase::Done { forced: false });
    for &user in &run.users {
        assert_eq!(run.received(user), "1|B\n");
    }
}

#[test]
fn what_had_arrived_before_the_signal_is_released_however_much_it_is() {
    for busy_poll in [false, true] {
        let mut run = Run::new(1, Config { busy_poll, ..Config::default() });
        // To nobody who is there: no turn is ever full.
        run.send(&(1..200_000).fold(String::new(), |text, number| text + &format!("{number}|P|1|2\n")));
        run.net.shared().world.signal();
        while !matches!(run.server.phase(), Phase::Done { .. }) {
            run.turn();
        }
        assert_eq!(run.server.counters().events_released_total(), 199_999, "busyPoll={busy_poll}");
    }
}

#[test]
fn visitors_do_not_delay_those_who_stay() {
    let mut run = Run::new(20, busy());
    let mut visitors: Vec<Peer> = Vec::new();
    for number in 1..300 {
        run.send(&format!("{number}|B\n"));
        {
            let world = &mut run.net.shared().world;
            visitors.drain(..).for_each(|visitor| world.finish(visitor));
            for id in 1000..1040 {
                let visitor = world.connect(Port::User).unwrap();
                world.send(visitor, format!("{id}\n").as_bytes());
                visitors.push(visitor);
            }
        }
        run.turn();
        for &user in &run.users {
            let behind = number - run.received(user).lines().count();
            // 20 users who stay and 40 who do not, 16 at a time.
            assert!(behind < 5, "one is {behind} broadcasts behind after {number} turns");
        }
    }
}

#[test]
fn being_put_off_makes_nobody_slow() {
    for user_buffer_bytes in [1, 3, 4, 7, 8, 9, 15, 100] {
        let config = Config { user_buffer_bytes, slow_user_policy: SlowUserPolicy::Disconnect, ..busy() };
        let mut run = Run::new(100, config);
        let mut sent = String::new();
        for number in 1..50 {
            let line = format!("{number}|B\n");
            run.send(&line);
            run.turn();
            sent += &line;
        }
        run.rest();
        for &user in &run.users {
            assert_eq!(run.received(user), sent, "with a buffer of {user_buffer_bytes}");
        }
    }
}

#[test]
fn a_source_that_never_stops_sending_little_pieces_does_not_keep_anybody_waiting() {
    for busy_poll in [false, true] {
        let mut run = Run::new(1, Config { busy_poll, ..Config::default() });
        let source = run.source;
        let mut number = 1;
        // The next piece is there as soon as the last one has been read.
        run.after_read(move |world| {
            number += 1;
            world.send(source, format!("{number}|B\n").as_bytes());
        });
        run.send("1|B\n");
        run.turn();
        let user = run.users[0];
        assert!(!run.received(user).is_empty(), "busyPoll={busy_poll}");
        assert!(run.count(is_read) < 200, "busyPoll={busy_poll}: {} reads", run.count(is_read));
    }
}
