//! docs/SPEC.md section 11: edges of NATS that keep a journal. Skipped, with a message, where nats-server is not installed.

use crate::journal::Folder;
use crate::replicated::{Feed, RETENTION, events, expect_all, sequencer, wait_to_lead};
use crate::resume::resumed;
use support::nats::Nats;
use support::stream::each;
use support::{Launch, Server, Signal, User, launch, server};

fn edge(nats: &Nats, name: &str, folder: &Folder) -> Launch {
    launch!(
        role = "edge",
        stream = nats.stream(name),
        adminPort = 0,
        streamPort = 0,
        journalDirectory = folder.show()
    )
}

/// The journal has everything below this number.
fn reached(edge: &Server, cursor: f64) {
    edge.wait_for_metric("fortnight_journal_durable_cursor", |at| at == cursor);
}

fn broadcasts(numbers: std::ops::RangeInclusive<u64>) -> String {
    each(numbers, |number| format!("{number}|B\n"))
}

#[test]
fn users_resume_at_any_edge_of_nats() {
    let Some(nats) = Nats::start(1) else { return };
    let folders = [Folder::new("nats-edge-a"), Folder::new("nats-edge-b")];
    let sequencer = sequencer(&nats, "resume");
    wait_to_lead(&sequencer);
    let mut edges = [0, 1].map(|index| Some(edge(&nats, "resume", &folders[index]).start()));
    // Both are there from the first event on, or what came before is gone at one of them.
    edges.iter().flatten().for_each(|edge| edge.wait_for_log("has been reached"));
    let (lines, model) = events(60_000, 6, 11);
    let start = |edge: &Server, id: u64| resumed(edge, &format!("{id}|now"));
    let mut users: Vec<User> = Vec::new();
    let mut epoch = String::new();
    for id in 1..=6 {
        let (user, found, next) = start(edges[0].as_ref().unwrap(), id);
        assert_eq!(next, 1);
        (epoch, _) = (found, users.push(user));
    }
    let feed = Feed::start(&[&sequencer], lines);
    // Everybody has something when the edge is killed.
    let mut read: Vec<Vec<u8>> = users.iter_mut().map(|user| user.read_line()).collect();
    drop((edges[0].take(), users));
    for (id, read) in (1..).zip(&mut read) {
        let number = support::model::number_of(read).expect("an event");
        let (mut user, found, next) =
            resumed(edges[1].as_ref().unwrap(), &format!("{id}|{}|{epoch}", number + 1));
        assert_eq!((&found, next), (&epoch, u128::from(number + 1)));
        read.extend(user.read_line());
    }
    feed.finish();
    let again = edge(&nats, "resume", &folders[0]).start();
    reached(&again, 60_001.0);
    for (id, read) in (1..).zip(&read) {
        let number = read.split_inclusive(|&byte| byte == b'\n').next_back();
        let number = number.and_then(support::model::number_of).expect("an event");
        let (mut user, _, _) = resumed(&again, &format!("{id}|{}|{epoch}", number + 1));
        user.expect(&model.told(id).expect("a user")[read.len()..]);
        assert!(model.told(id).expect("a user").starts_with(read));
    }
    // It went on in its journal: nothing of it is gone.
    let mut oldest: Vec<User> = (1..=6).map(|id| resumed(&again, &format!("{id}|oldest")).0).collect();
    expect_all(&mut oldest, &model);
}

#[test]
fn an_edge_serves_from_its_journal_while_nats_is_away_and_then_goes_on() {
    let Some(mut nats) = Nats::start(1) else { return };
    let folder = Folder::new("nats-alone");
    let sequencer = sequencer(&nats, "alone");
    wait_to_lead(&sequencer);
    let first = edge(&nats, "alone", &folder).start();
    first.wait_for_log("has been reached");
    let mut source = sequencer.source();
    source.send(format!("?|ack\n{}", broadcasts(1..=5)));
    source.acknowledged(6);
    reached(&first, 6.0);
    drop(first);
    nats.kill(0);
    let second = edge(&nats, "alone", &folder).start();
    let (mut user, ..) = resumed(&second, "7|oldest");
    user.expect(broadcasts(1..=5));
    second.wait_for_log("the connection to the stream is away");
    nats.restart(0);
    // The sequencer takes one source.
    drop(source);
    let lines = (1..=9).map(|number| broadcasts(number..=number)).collect();
    // The sequencer may have given up its term meanwhile, and lead again later.
    let feed = Feed::start(&[&sequencer], lines);
    feed.finish();
    user.expect(broadcasts(6..=9));
}

#[test]
fn an_edge_that_does_not_know_its_place_in_the_log_begins_its_journal_anew() {
    let Some(nats) = Nats::start(1) else { return };
    let folder = Folder::new("nats-place");
    let sequencer = sequencer(&nats, "place");
    wait_to_lead(&sequencer);
    let first = edge(&nats, "place", &folder).start();
    first.wait_for_log("has been reached");
    let mut source = sequencer.source();
    source.send("?|ack\n1|F|60|50\n2|B\n");
    source.acknowledged(3);
    reached(&first, 3.0);
    let (_, epoch, _) = resumed(&first, "60|now");
    drop(first);
    let _ = std::fs::remove_file(std::path::Path::new(&folder.show()).join("stream.place"));
    let second = edge(&nats, "place", &folder).start();
    second.wait_for_log("has been reached");
    let mut user = second.stranger();
    user.send(format!("60|2|{epoch}\n"));
    user.expect(format!("-|{epoch}|3|gone\n"));
    let (mut user, again, _) = resumed(&second, &format!("60|3|{epoch}"));
    assert_eq!(again, epoch);
    source.send("3|S|50\n");
    user.expect("3|S|50\n");
}

#[test]
fn an_edge_with_a_journal_ends_when_the_log_is_another_one() {
    let Some(mut nats) = Nats::start(1) else { return };
    let folder = Folder::new("nats-other");
    let mut sequencer = sequencer(&nats, "other");
    wait_to_lead(&sequencer);
    let first = edge(&nats, "other", &folder).start();
    first.wait_for_log("has been reached");
    let mut source = sequencer.source();
    source.send("?|ack\n1|B\n");
    source.acknowledged(2);
    reached(&first, 2.0);
    drop(first);
    sequencer.signal(Signal::KILL);
    while sequencer.is_running() {
        std::thread::yield_now();
    }
    nats.kill(0);
    nats.wipe(0);
    nats.restart(0);
    let next = self::sequencer(&nats, "other");
    wait_to_lead(&next);
    let finished = edge(&nats, "other", &folder).run();
    assert_eq!(finished.status, 1, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("is another stream") || finished.stderr.contains("is not the stream"),
        "{}",
        finished.stderr
    );
}

#[test]
fn the_journal_of_an_edge_makes_a_single_server() {
    let Some(nats) = Nats::start(1) else { return };
    let folder = Folder::new("nats-back");
    let sequencer = sequencer(&nats, "back");
    wait_to_lead(&sequencer);
    let first = edge(&nats, "back", &folder).start();
    first.wait_for_log("has been reached");
    let mut source = sequencer.source();
    source.send("?|ack\n1|F|60|50\n2|S|50\n");
    source.acknowledged(3);
    reached(&first, 3.0);
    let (_, epoch, _) = resumed(&first, "60|now");
    drop((first, sequencer));
    let single = server!(journalDirectory = folder.show());
    let (mut user, again, _) = resumed(&single, &format!("60|2|{epoch}"));
    assert_eq!(again, epoch);
    let mut source = single.source();
    source.send("?|ack\n");
    assert_eq!(source.acknowledged(3), epoch);
    source.send("3|S|50\n");
    user.expect("2|S|50\n3|S|50\n");
}

#[test]
fn a_sequencer_keeps_no_journal() {
    let launch =
        launch!(role = "sequencer", stream = "nats://127.0.0.1:1/a", streamRetentionBytes = RETENTION);
    let finished = launch.set("journalDirectory", "/tmp/never-made").run();
    assert_eq!(finished.status, 2, "{}", finished.stderr);
}
