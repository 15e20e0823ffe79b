//! A snapshot that was made while the graph changed, and users that come while a pass goes through that time: each is sent what
//! concerned it by the graph at each event's place (docs/SPEC.md section 10).

use fortnight::internals::{
    config::Config,
    server::{Pace, Server, net::Port},
    sim::{Peer, Schedule, SimFolder, SimNet, World},
};
use support::{
    model::{Model, number_of},
    stream::lines,
};

/// Whom user 1 follows, now and then.
const FOLLOWED: std::ops::Range<u64> = 1000..1040;

struct Life {
    net: SimNet<Schedule>,
    folder: SimFolder,
    server: Server<SimNet<Schedule>>,
    source: Peer,
    epoch: String,
    sent: Vec<Vec<u8>>,
    /// What user 1 is owed.
    model: Model,
}

impl Life {
    /// A server that makes a snapshot after a few events, a few edges at a time, and catches up in small steps.
    fn begin() -> Life {
        let config = Config {
            event_timeout_ms: -1,
            journal_directory: Some("journal".into()),
            journal_segment_bytes: 1 << 20,
            journal_retention_bytes: 64 << 10,
            user_mark_ms: 0,
            ..Config::default()
        };
        let pace = Pace { bytes_least: 500, steps: 1, users: 1, slice_ns: 1000 };
        let folder = SimFolder::new(1);
        let net = SimNet::with_disk(Schedule::default(), folder.clone());
        let disk = Box::new(folder.disk());
        let server = Server::recover_at(pace, config, net.clone(), disk, || 0).expect("a start");
        let source = net.shared().world.connect(Port::Source).expect("a source");
        let mut model = Model::new();
        model.login(1);
        let mut life = Life { net, folder, server, source, epoch: String::new(), sent: Vec::new(), model };
        let asker = life.log_in("9|now");
        life.turns(10);
        let answer = life.world(|world| String::from_utf8_lossy(world.received(asker)).into_owned());
        life.epoch = answer.split('|').nth(1).expect("an answer").to_owned();
        life
    }

    fn world<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.net.shared().world)
    }

    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            let now = self.world(|world| {
                let now = world.now() + 300;
                world.advance_to(now);
                now
            });
            self.folder.set_now(now);
            // Nothing is waited for.
            self.net.shared().script.at(now, |_| ());
            self.server.turn().expect("a turn");
        }
    }

    fn log_in(&self, login: &str) -> Peer {
        self.world(|world| {
            let peer = world.connect(Port::User).expect("a user");
            world.send(peer, format!("{login}\n").as_bytes());
            peer
        })
    }

    fn send(&mut self, event: &str) {
        let line = format!("{}|{event}\n", self.sent.len() + 1).into_bytes();
        self.model.release(&line);
        self.world(|world| world.send(self.source, &line));
        self.sent.push(line);
    }

    /// The cursors between which the newest snapshot was made.
    fn snapshot(&self) -> Option<(u64, u64)> {
        let names = self.folder.names();
        let cursors = names.iter().rev().find_map(|(name, _)| name.strip_suffix(".fns"))?;
        let (from, to) = cursors.split_once('-')?;
        Some((from.parse().ok()?, to.parse().ok()?))
    }

    /// What a user that has answered is owed from a place on.
    fn owed(&self, next: u64) -> Vec<u8> {
        let mut owed = format!("+|{}|{next}\n", self.epoch).into_bytes();
        for line in lines(self.model.told(1).expect("user 1 is there")) {
            if number_of(line).is_some_and(|number| number >= next) {
                owed.extend_from_slice(line);
            }
        }
        owed
    }
}

#[test]
fn who_comes_while_a_pass_is_in_the_time_of_its_snapshot_gets_nothing_by_a_later_graph() {
    let mut life = Life::begin();
    for followed in FOLLOWED {
        life.send(&format!("F|2|{followed}"));
    }
    // User 1 begins to follow while a snapshot is made. Each has written something before that, and writes something after that.
    let snapshot = (0..100).find_map(|round| {
        for followed in FOLLOWED {
            let change = if round % 2 == 0 { "F" } else { "U" };
            for event in [format!("S|{followed}"), format!("{change}|1|{followed}"), format!("S|{followed}")]
            {
                life.send(&event);
            }
            life.turns(1);
        }
        life.snapshot().filter(|(from, to)| from + 30 < *to)
    });
    let (from, to) = snapshot.expect("a snapshot that took a while");
    life.turns(1000);
    let mut came_in_between = 0;
    for turns in 0..20 {
        for next in (from..to).step_by(7) {
            // A pass begins with that snapshot, for somebody else.
            let other = life.log_in(&format!("2|{to}|{}", life.epoch));
            life.turns(10 + turns);
            let user = life.log_in(&format!("1|{next}|{}", life.epoch));
            life.turns(1);
            came_in_between += u32::from(life.server.snapshot().catching_up == 2);
            life.turns(2000);
            let received = life.world(|world| world.received(user).to_vec());
            let [received, owed] = [received, life.owed(next)].map(|bytes| bytes.escape_ascii().to_string());
            assert_eq!(
                received, owed,
                "from {next} on, after {turns} turns; the snapshot is of {from} to {to}"
            );
            life.world(|world| [user, other].map(|peer| world.close(peer)));
            life.turns(10);
        }
    }
    assert!(came_in_between > 0, "nobody came while a pass was under way");
}
