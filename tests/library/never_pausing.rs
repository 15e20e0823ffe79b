//! Sources that never pause: whoever catches up beside them becomes live all the same (docs/SPEC.md section 10: a pass advances twice as
//! fast as the stream grows, and sources are read less if need be), and nothing else has to wait for a pause.

use fortnight::internals::{
    config::{Config, SlowUserPolicy},
    server::{Pace, Server, net::Port},
    sim::{DiskFaults, Peer, Schedule, ServerEnd, SimFolder, SimNet},
};
use std::fmt::Write;

/// Microseconds of a turn.
const TURN: u64 = 10_000;

/// A server with a journal, and a source that has sent more whenever a turn begins.
struct Life {
    net: SimNet<Schedule>,
    folder: SimFolder,
    server: Server<SimNet<Schedule>>,
    source: Peer,
    /// Events that the source sends each turn, of some 15 bytes.
    events: u64,
    number: u64,
}

impl Life {
    /// The first second of it.
    fn begin(events: u64, faults: DiskFaults) -> Life {
        let config = Config {
            journal_segment_bytes: 64 << 20,
            journal_retention_bytes: 1 << 30,
            user_mark_ms: 0,
            ..Config::default()
        };
        Life::begin_with(config, events, faults)
    }

    fn begin_with(config: Config, events: u64, faults: DiskFaults) -> Life {
        let config = Config { journal_directory: Some("journal".into()), ..config };
        let folder = SimFolder::new(1);
        folder.set_faults(faults);
        let net = SimNet::with_disk(Schedule::default(), folder.clone());
        let disk = Box::new(folder.disk());
        let server = Server::recover_at(Pace::default(), config, net.clone(), disk, || 0).expect("a start");
        let source = net.shared().world.connect(Port::Source).expect("a source");
        let mut life = Life { net, folder, server, source, events, number: 0 };
        (0..100).for_each(|_| life.turn());
        life
    }

    fn turn(&mut self) {
        let mut text = String::new();
        for _ in 0..self.events {
            self.number += 1;
            let _ = writeln!(text, "{}|P|1|2", self.number);
        }
        let now = {
            let world = &mut self.net.shared().world;
            world.send(self.source, text.as_bytes());
            let now = world.now() + TURN;
            world.advance_to(now);
            now
        };
        self.folder.set_now(now);
        self.net.shared().script.at(now, |_| ());
        self.server.turn().expect("a turn");
    }

    /// Somebody connects and sends a line.
    fn connect(&mut self, port: Port, line: &[u8]) -> Peer {
        let world = &mut self.net.shared().world;
        let peer = world.connect(port).expect("a connection");
        world.send(peer, line);
        peer
    }

    fn received(&self, peer: Peer) -> String {
        String::from_utf8_lossy(self.net.shared().world.received(peer)).into_owned()
    }

    /// A user comes that wants everything, and is live within 30 s.
    fn expect_to_catch_up(&mut self) {
        self.connect(Port::User, b"7|oldest\n");
        self.turn();
        self.turn();
        assert_eq!(self.server.snapshot().catching_up, 1);
        let live = (0..3000).position(|_| {
            self.turn();
            self.server.snapshot().catching_up == 0
        });
        let cursor = self.server.snapshot().cursor;
        assert!(live.is_some(), "the user is not live after 30 s, with the cursor at {cursor}");
    }
}

/// A block that has been handed to the disk is written by the next turn: at the end of every turn one is on its way.
fn a_turn_late() -> DiskFaults {
    DiskFaults { delay_max: TURN - 1, ..DiskFaults::default() }
}

#[test]
fn who_catches_up_becomes_live_although_the_source_never_pauses() {
    Life::begin(20_000, a_turn_late()).expect_to_catch_up();
}

/// What the source sends is some 9 MB each second. A share of the loop is no help there.
#[test]
fn who_catches_up_becomes_live_although_the_disk_reads_more_slowly_than_the_source_sends() {
    let faults = DiskFaults { read_rate: Some(6_000_000), ..DiskFaults::default() };
    let mut life = Life::begin(6_000, faults);
    assert_eq!(life.server.snapshot().counters.paused_journal, 0);
    life.expect_to_catch_up();
    // Where sources are not read, it is said.
    let paused = life.server.snapshot().counters.paused_journal;
    assert!(paused > 1_000_000, "{paused} us");
}

/// What has to be done between two blocks is done.
#[test]
fn marks_snapshots_clients_of_the_stream_and_those_who_take_nothing_have_their_time() {
    let config = Config {
        journal_segment_bytes: 1 << 20,
        journal_retention_bytes: 64 << 20,
        stream_port: Some(0),
        user_mark_ms: 1000,
        slow_user_policy: SlowUserPolicy::Journal,
        slow_user_timeout_ms: 1000,
        user_buffer_bytes: 65_536,
        ..Config::default()
    };
    let mut life = Life::begin_with(config, 20_000, a_turn_late());
    let quiet = life.connect(Port::User, b"9|now\n");
    let follower = life.connect(Port::Stream, b"*|now\n");
    let stuck = life.connect(Port::User, b"2|now\n");
    life.net.shared().world.limit_outbound(stuck, 100);
    (0..700).for_each(|_| life.turn());
    let marks = life.received(quiet).lines().count() - 1;
    assert!(marks >= 3, "{marks} marks in seven seconds");
    let lines = life.received(follower);
    assert!(lines.starts_with('+') && lines.lines().count() > 100_000, "{:?}", lines.lines().next());
    assert_ne!(
        life.net.shared().world.server_end(stuck),
        ServerEnd::Open,
        "it has taken nothing for seconds"
    );
    // What is kept is a segment and the blocks on their way above its limit at most, and begins with a snapshot.
    let names = life.folder.names();
    let kept: u64 = names.iter().map(|(_, len)| len).sum();
    assert!(kept < 70 << 20, "{kept} bytes are kept");
    assert!(names.iter().any(|(name, _)| name.ends_with(".fns")), "{names:?}");
}
