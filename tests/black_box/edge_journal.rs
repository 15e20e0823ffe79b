//! docs/SPEC.md section 11: edges that keep a journal of their stream.

use std::net::SocketAddr;

use crate::journal::Folder;
use crate::resume::resumed;
use support::stream::{each, long_broadcasts};
use support::{Launch, Server, Signal, launch, private_address, server};

fn edge(stream: SocketAddr, folder: &Folder) -> Launch {
    launch!(
        role = "edge",
        stream = format!("tcp://{stream}"),
        streamPort = 0,
        adminPort = 0,
        journalDirectory = folder.show()
    )
}

#[track_caller]
fn reached(edge: &Server, cursor: f64) {
    // What is released may not have been appended yet, and then a killed edge may forget it.
    edge.wait_for_metric("fortnight_journal_durable_cursor", |at| at == cursor);
}

#[test]
fn an_edge_goes_on_from_its_journal_and_its_users_resume() {
    let (origin_folder, folder) = (Folder::new("edge-origin"), Folder::new("edge"));
    let origin = server!(streamPort = 0, journalDirectory = origin_folder.show());
    let mut source = origin.source();
    source.send("1|F|60|50\n2|F|61|50\n3|U|61|50\n");
    let first = edge(origin.stream(), &folder).start();
    reached(&first, 4.0);
    let (mut follower, epoch, next) = resumed(&first, "60|now");
    assert_eq!(next, 4);
    source.send("4|S|50\n5|B\n");
    follower.expect("4|S|50\n5|B\n");
    // With SIGKILL; more comes meanwhile.
    drop(first);
    source.send("6|S|50\n7|F|61|50\n8|S|50\n");
    let second = edge(origin.stream(), &folder).start();
    let (mut follower, again, next) = resumed(&second, &format!("60|5|{epoch}"));
    assert_eq!((again, next), (epoch.clone(), 5));
    follower.expect("5|B\n6|S|50\n8|S|50\n");
    let (mut other, _, next) = resumed(&second, "61|oldest");
    assert_eq!(next, 4);
    other.expect("5|B\n8|S|50\n");
    // The epoch is the stream's: a place of the edge is one of its origin.
    let (mut at_origin, _, _) = resumed(&origin, &format!("61|6|{epoch}"));
    at_origin.expect("8|S|50\n");
    // An edge of the edge finds the same.
    let chained = Folder::new("edge-of-edge");
    let last = edge(second.stream(), &chained).start();
    reached(&last, 9.0);
    let (mut user, again, _) = resumed(&last, &format!("60|9|{epoch}"));
    assert_eq!(again, epoch);
    source.send("9|B\n");
    user.expect("9|B\n");
}

#[test]
fn an_edge_serves_from_its_journal_while_its_stream_is_away() {
    let folder = Folder::new("edge-alone");
    let mut origin = server!(streamPort = 0);
    let stream = origin.stream();
    let first = edge(stream, &folder).start();
    reached(&first, 1.0);
    origin.source().send(each(1..=5, |number| format!("{number}|B\n")));
    reached(&first, 6.0);
    drop(first);
    origin.signal(Signal::TERM);
    assert_eq!(origin.exit_status(), 0);
    let second = edge(stream, &folder).start();
    let (mut user, _, next) = resumed(&second, "7|oldest");
    assert_eq!(next, 1);
    user.expect(each(1..=5, |number| format!("{number}|B\n")));
    second.wait_for_log("the connection to the stream is away");
}

#[test]
fn an_edge_whose_place_is_gone_begins_anew_in_the_same_epoch() {
    let (origin_folder, folder) = (Folder::new("edge-gone-origin"), Folder::new("edge-gone"));
    let origin = server!(
        streamPort = 0,
        adminPort = 0,
        journalDirectory = origin_folder.show(),
        journalSegmentBytes = 4096,
        journalRetentionBytes = 262_144
    );
    let mut source = origin.source();
    source.send("1|F|60|50\n2|B\n");
    let first = edge(origin.stream(), &folder).start();
    reached(&first, 3.0);
    let (_, epoch, _) = resumed(&first, "60|now");
    drop(first);
    let mut number = 2;
    while origin.metric("fortnight_journal_first_sequence") < 100.0 {
        source.send(long_broadcasts(number + 1..=number + 100, 500));
        number += 100;
        origin.wait_for_metric("fortnight_cursor", |cursor| cursor > number as f64);
    }
    let next = number + 1;
    for restart in 0..2 {
        let mut second = edge(origin.stream(), &folder).start();
        second.wait_for_metric("fortnight_cursor", |cursor| cursor >= next as f64);
        let mut user = second.stranger();
        user.send(format!("60|3|{epoch}\n"));
        user.expect(format!("-|{epoch}|{next}|gone\n"));
        let (mut user, again, _) = resumed(&second, &format!("60|{next}|{epoch}"));
        assert_eq!(again, epoch);
        if restart == 0 {
            // The graph came with the new beginning.
            source.send(format!("{next}|S|50\n"));
        }
        user.expect(format!("{next}|S|50\n"));
        second.signal(Signal::TERM);
        assert_eq!(second.exit_status(), 0);
    }
}

#[test]
fn another_stream_under_the_same_address_ends_an_edge_with_a_journal() {
    let folder = Folder::new("edge-other");
    let address = private_address();
    let mut origin = server!(streamPort = 0, streamBindAddress = address);
    let stream = origin.stream();
    let first = edge(stream, &folder).start();
    reached(&first, 1.0);
    origin.source().send("1|B\n");
    reached(&first, 2.0);
    drop(first);
    origin.signal(Signal::TERM);
    assert_eq!(origin.exit_status(), 0);
    let _other = server!(streamPort = stream.port(), streamBindAddress = address);
    let finished = edge(stream, &folder).run_role();
    assert_eq!(finished.status, 1, "{}", finished.stderr);
    assert!(finished.stderr.contains("is another stream"), "{}", finished.stderr);
}
