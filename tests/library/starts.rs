//! A server that is told to end while it recovers its journal (docs/SPEC.md sections 5 and 8).

use fortnight::internals::{
    config::Config,
    journal::{Ended, JournalError},
    server::{Phase, Server, net::Port},
    sim::{Schedule, SimFolder, SimNet},
};

/// Serves so many events on this folder, and has its process end.
fn fill(folder: &SimFolder, events: u64) {
    let net = SimNet::with_disk(Schedule::default(), folder.clone());
    let mut server = Server::recover(Config::default(), net.clone(), Box::new(folder.disk()), || 0).unwrap();
    let source = net.shared().world.connect(Port::Source).unwrap();
    for first in (1..=events).step_by(1000) {
        let lines: String =
            (first..first + 1000).map(|number| format!("{number}|F|{number}|{first}\n")).collect();
        net.shared().world.send(source, lines.as_bytes());
        while u64::try_from(server.snapshot().cursor.get()).unwrap() < first + 1000 {
            server.turn().unwrap();
        }
    }
    folder.end_process();
}

/// A start that has been told to end so many times.
fn start(folder: &SimFolder, signals: usize) -> Result<Server<SimNet<Schedule>>, JournalError> {
    let net = SimNet::with_disk(Schedule::default(), folder.clone());
    for _ in 0..signals {
        net.shared().world.signal();
    }
    Server::recover(Config::default(), net, Box::new(folder.disk()), || 0)
}

#[test]
fn a_start_that_is_told_to_end_ends_and_the_next_one_has_everything() {
    let folder = SimFolder::new(1);
    fill(&folder, 50_000);
    let names = folder.names();
    for (signals, forced) in [(1, false), (2, true)] {
        let Err(error) = start(&folder, signals) else { panic!("the start goes on") };
        assert_eq!(error.is_end(), Some(Ended { forced }), "{error}");
        folder.end_process();
        assert_eq!(folder.names(), names);
    }
    let mut server = start(&folder, 0).unwrap();
    assert_eq!(server.phase(), Phase::Running);
    let snapshot = server.snapshot();
    assert_eq!((snapshot.cursor.get(), snapshot.follow_edges), (50_001, 50_000));
}
