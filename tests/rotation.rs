//! In which order a turn reads and writes, on simulated sockets: never does it read for ever.

use fortnight::{
    config::Config,
    server::{Server, net::Port},
    sim::{Operation, Peer, Script, SimNet, World},
    time::Micros,
};

type AfterRead = Box<dyn FnMut(&mut World)>;

/// Nothing happens by itself; something may once the server has read.
struct Meddled {
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

    fn meanwhile(&mut self, _: &mut World, operation: Operation) {
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
        let net = SimNet::new(Meddled { after_read: None, has_read: false, done: Vec::new() });
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

    fn after_read(&mut self, happens: impl FnMut(&mut World) + 'static) {
        self.net.shared().script.after_read = Some(Box::new(happens));
    }

    fn turn(&mut self) {
        self.server.turn().unwrap();
    }

    fn received(&self, user: Peer) -> String {
        String::from_utf8_lossy(self.net.shared().world.received(user)).into_owned()
    }

    fn count(&self, is: impl Fn(&Operation) -> bool) -> usize {
        self.net.shared().script.done.iter().filter(|operation| is(operation)).count()
    }
}

fn is_read(operation: &Operation) -> bool {
    matches!(operation, Operation::Read(..))
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
