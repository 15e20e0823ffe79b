//! Connections to which something was sent are not reset because their far ends go on sending.

use super::super::{Operation, Peer, Script, ServerEnd, SimNet, World};
use crate::{
    config::Config,
    server::{Phase, Server, net::Port},
    time::Micros,
};

/// After the signal has been given, a connection sends something whenever the server writes to it.
#[derive(Debug, Default)]
struct Talker {
    who: Option<Peer>,
    words: &'static [u8],
}

impl Script for Talker {
    fn next_at(&mut self, _: &World) -> Option<Micros> {
        None
    }

    fn happen(&mut self, _: &mut World) {}

    fn meanwhile(&mut self, world: &mut World, operation: Operation) {
        if let (Operation::Write(peer, _), Some(who)) = (operation, self.who)
            && peer == who
        {
            world.send(peer, self.words);
        }
    }
}

/// Connects to a port and says something, is told something in the end while it goes on talking, and closes after a second.
#[track_caller]
fn told_in_the_end(config: Config, port: Port, first_words: &[u8], words: &'static [u8]) -> Vec<u8> {
    let net = SimNet::new(Talker::default());
    let mut server = Server::new(config, net.clone(), 0);
    let peer = net.shared().world.connect(port).unwrap();
    net.shared().world.send(peer, first_words);
    server.turn().unwrap();
    server.turn().unwrap();
    net.shared().script = Talker { who: Some(peer), words };
    net.shared().world.signal();
    let (mut turns, mut is_over) = (0, false);
    while !matches!(server.phase(), Phase::Done { .. }) {
        server.turn().unwrap();
        turns += 1;
        assert!(turns < 1000, "the server does not end");
        let is_told = net.shared().world.has_finished(peer);
        if is_told && !std::mem::replace(&mut is_over, true) {
            assert_eq!(net.shared().world.server_end(peer), ServerEnd::Open, "it is not waited for");
            net.shared().world.send(peer, words);
            net.shared().world.finish(peer);
        }
    }
    assert_eq!(net.shared().world.server_end(peer), ServerEnd::Closed);
    net.shared().world.received(peer).to_vec()
}

#[test]
fn a_source_that_goes_on_sending_gets_its_last_acknowledgement() {
    let config = Config { event_timeout_ms: -1, ..Config::default() };
    let told = told_in_the_end(config, Port::Source, b"?|ack\n1|B\n2|B\n", b"3|B\n");
    assert!(told.ends_with(b"3\n"), "{}", told.escape_ascii());
}

#[test]
fn a_client_of_the_stream_that_goes_on_sending_gets_its_last_words() {
    let config = Config { stream_port: Some(0), ..Config::default() };
    let told = told_in_the_end(config, Port::Stream, b"*|now\n", b"more\n");
    assert!(told.ends_with(b"|closed\n"), "{}", told.escape_ascii());
}
