//! Sources that never pause: whoever catches up beside them becomes live all the same (docs/SPEC.md section 10: a pass advances twice as
//! fast as the stream grows, and sources are read less if need be).

use fortnight::internals::{
    config::Config,
    server::{Pace, Server, net::Port},
    sim::{DiskFaults, Schedule, SimFolder, SimNet},
};
use std::fmt::Write;

/// Events that the source sends each turn: about 300 KB.
const EVENTS: u64 = 20_000;
/// Microseconds of a turn.
const TURN: u64 = 10_000;

#[test]
fn who_catches_up_becomes_live_although_the_source_never_pauses() {
    let config = Config {
        journal_directory: Some("journal".into()),
        journal_segment_bytes: 64 << 20,
        journal_retention_bytes: 1 << 30,
        user_mark_ms: 0,
        ..Config::default()
    };
    // A block that has been handed to the disk is written by the next turn.
    let folder = SimFolder::new(1);
    folder.set_faults(DiskFaults { delay_max: TURN - 1, ..DiskFaults::default() });
    let net = SimNet::with_disk(Schedule::default(), folder.clone());
    let disk = Box::new(folder.disk());
    let mut server = Server::recover_at(Pace::default(), config, net.clone(), disk, || 0).expect("a start");
    let source = net.shared().world.connect(Port::Source).expect("a source");
    let mut number = 0;
    let mut turn = |server: &mut Server<_>| {
        let mut text = String::new();
        for _ in 0..EVENTS {
            number += 1;
            let _ = writeln!(text, "{number}|P|1|2");
        }
        let now = {
            let world = &mut net.shared().world;
            world.send(source, text.as_bytes());
            let now = world.now() + TURN;
            world.advance_to(now);
            now
        };
        folder.set_now(now);
        net.shared().script.at(now, |_| ());
        server.turn().expect("a turn");
    };
    for _ in 0..100 {
        turn(&mut server);
    }
    let user = net.shared().world.connect(Port::User).expect("a user");
    net.shared().world.send(user, b"7|oldest\n");
    turn(&mut server);
    turn(&mut server);
    assert_eq!(server.snapshot().catching_up, 1);
    let live = (0..3000).position(|_| {
        turn(&mut server);
        server.snapshot().catching_up == 0
    });
    let cursor = server.snapshot().cursor;
    assert!(live.is_some(), "the user is not live after 30 s, with the cursor at {cursor}");
}
