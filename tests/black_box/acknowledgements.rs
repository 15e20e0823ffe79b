//! docs/SPEC.md section 9: sources that resume, and the grace of section 2 that waits for them.

use support::{Server, Source, server};

#[test]
fn the_answer_names_an_epoch_and_the_cursor() {
    let server = server!(firstSequence = 7);
    let mut source = server.source();
    source.send("?|ack\n");
    let (epoch, number) = source.acknowledgement("\n");
    assert_eq!(number, 7);
    source.send("7|B\n8|B\n");
    assert_eq!(source.acknowledged(9), epoch);
}

#[test]
fn the_answer_has_the_terminator_of_the_question() {
    let server = server!();
    let mut source = server.source();
    source.send("?|ack|feed-1\r\n1|B\n");
    let (_, number) = source.acknowledgement("\r\n");
    // The answer and the first event may meet in one turn.
    if number == 1 {
        assert_eq!(source.acknowledgement("\r\n").1, 2);
    }
}

#[test]
fn a_question_in_pieces_is_a_question() {
    let server = server!();
    let mut source = server.source();
    for piece in ["?", "|a", "ck|A.b_c", "-9", "\r", "\n1|", "B\n"] {
        source.send(piece);
        server.pass();
    }
    assert_eq!(source.acknowledgement("\r\n").1, 1);
    assert_eq!(source.acknowledgement("\r\n").1, 2);
}

#[test]
fn a_source_that_does_not_ask_is_sent_nothing() {
    let server = server!();
    let (mut source, mut user) = (server.source(), server.user(1));
    source.send("1|B\n");
    user.expect("1|B\n");
    source.finish();
}

#[test]
fn anywhere_but_in_the_first_line_it_is_no_event() {
    let server = server!(eventTimeoutMs = -1);
    let (mut source, mut user) = (server.source(), server.user(1));
    source.send("1|B\n?|ack\n2|B\n");
    user.expect("1|B\n2|B\n");
    source.finish();
}

#[test]
fn what_only_looks_like_a_question_is_no_event_and_no_question() {
    let long = "n".repeat(65);
    for line in [
        "?",
        "?|",
        "?|ack|",
        "?|ack|a b",
        "?|ack|ä",
        "?|nack",
        "?|ack|a|b",
        "??|ack",
        &format!("?|ack|{long}"),
    ] {
        let server = server!();
        let (mut source, mut user) = (server.source(), server.user(1));
        source.send(format!("{line}\n1|B\n"));
        user.expect("1|B\n");
        source.finish();
    }
}

#[test]
fn a_name_of_64_characters_is_a_name() {
    let server = server!();
    let mut source = server.source();
    source.send(format!("?|ack|{}\n", "n".repeat(64)));
    assert_eq!(source.acknowledgement("\n").1, 1);
}

#[test]
fn only_numbers_that_are_dealt_with_are_acknowledged() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 2);
    let (mut asker, mut other) = (server.source(), server.source());
    asker.send("?|ack\n");
    assert_eq!(asker.acknowledgement("\n").1, 1);
    asker.send("2|B\n3|B\n");
    server.pass();
    other.send("1|B\n");
    assert_eq!(asker.acknowledgement("\n").1, 4);
}

#[test]
fn numbers_given_up_are_dealt_with() {
    let server = server!(eventTimeoutMs = 1);
    let mut source = server.source();
    source.send("?|ack\n5|B\n");
    source.acknowledged(6);
}

#[test]
fn a_name_takes_over_its_old_connection_also_where_no_place_is_left() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 1);
    let mut user = server.user(1);
    let mut old = server.source();
    old.send("?|ack|feed\n1|B\n");
    old.acknowledged(2);
    // The old connection's last bytes are read before it is closed.
    old.send("2|B\n");
    let mut new = server.source();
    new.send("?|ack|feed\n3|B\n");
    new.acknowledged(4);
    user.expect("1|B\n2|B\n3|B\n");
    while old.line().is_some() {}
}

/// What becomes of the old connection while it is closed does not concern the one that has got its place.
#[test]
fn whoever_comes_after_a_takeover_is_not_taken_for_the_connection_that_was_taken_over() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 1);
    let connect = || {
        let mut source = server.source();
        source.send("?|ack|feed\n");
        assert_eq!(source.acknowledgement("\n").1, 1);
        source
    };
    let mut old = [connect(), connect()];
    let mut third = connect();
    old.iter_mut().for_each(|source| assert_eq!(source.line(), None));
    drop(old);
    server.pass();
    let mut last = connect();
    last.send("1|B\n");
    last.acknowledged(2);
    assert_eq!(third.line(), None);
}

/// One that waits for room in the ring is closed as well, once what it has sent has been taken.
#[test]
fn a_name_takes_over_a_connection_that_the_full_ring_holds_back() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 2, reorderCapacity = 16, adminPort = 0);
    let mut user = server.user(1);
    let mut old = server.source();
    old.send("?|ack|feed\n20|B\n");
    assert_eq!(old.acknowledgement("\n").1, 1);
    server.pass();
    let mut new = server.source();
    new.send("?|ack|feed\n");
    assert_eq!(new.acknowledgement("\n").1, 1);
    let events = support::stream::each(1..=19, |number| format!("{number}|B\n"));
    new.send(&events);
    user.expect(&(events + "20|B\n"));
    new.acknowledged(21);
    while old.line().is_some() {}
    server.wait_for_metric("fortnight_sources_connected", |sources| sources == 1.0);
}

/// A source of the name `feed` that a ring of 16 holds back.
fn held_back(server: &Server) -> Source {
    let mut source = server.source();
    source.send("?|ack|feed\n20|B\n");
    assert_eq!(source.acknowledgement("\n").1, 1);
    server.pass();
    source
}

/// A source that comes again and again while the full ring holds it back: the server keeps as many of its connections as there are
/// places.
#[test]
fn a_name_that_is_taken_over_again_and_again_does_not_pile_up() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 2, reorderCapacity = 16, adminPort = 0);
    let mut user = server.user(1);
    let mut sources: Vec<_> = (0..8).map(|_| held_back(&server)).collect();
    server.wait_for_metric("fortnight_sources_connected", |sources| sources <= 3.0);
    let mut other = server.source();
    let events = support::stream::each(1..=19, |number| format!("{number}|B\n"));
    other.send(format!("?|ack|feed\n{events}"));
    user.expect(&(events + "20|B\n"));
    other.acknowledged(21);
    sources.iter_mut().for_each(|source| while source.line().is_some() {});
}

/// Connections that were taken over and wait for room in the ring keep no place from the source that has the missing event.
#[test]
fn whoever_fills_the_gap_is_let_in_beside_connections_that_were_taken_over() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 2, reorderCapacity = 16, adminPort = 0);
    let mut user = server.user(1);
    let mut sources: Vec<_> = (0..2).map(|_| held_back(&server)).collect();
    let mut other = server.source();
    let events = support::stream::each(1..=19, |number| format!("{number}|B\n"));
    other.send(format!("?|ack|other\n{events}"));
    user.expect(&(events + "20|B\n"));
    other.acknowledged(21);
    while sources[0].line().is_some() {}
    server.wait_for_metric("fortnight_sources_connected", |sources| sources == 2.0);
    sources[1].send("21|B\n");
    user.expect("21|B\n");
}

#[test]
fn another_name_is_one_too_many() {
    let server = server!(maxEventSourceClients = 1);
    let mut first = server.source();
    first.send("?|ack|feed\n");
    first.acknowledged(1);
    let mut second = server.source();
    second.send("?|ack|other\n");
    assert_eq!(second.line(), None);
    first.send("1|B\n");
    first.acknowledged(2);
}

#[test]
fn a_source_that_has_closed_its_side_is_told_until_all_is_dealt_with() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 2);
    let mut half = server.source();
    half.send("?|ack\n2|B\n");
    assert_eq!(half.acknowledgement("\n").1, 1);
    half.half_close();
    server.pass();
    let mut other = server.source();
    other.send("1|B\n");
    half.acknowledged(3);
    assert_eq!(half.line(), None);
}

#[test]
fn a_source_that_has_closed_its_side_holds_no_place() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 1);
    let mut half = server.source();
    half.send("?|ack\n2|B\n");
    assert_eq!(half.acknowledgement("\n").1, 1);
    half.half_close();
    server.pass();
    let mut next = server.source();
    next.send("?|ack\n1|B\n");
    next.acknowledged(3);
    half.acknowledged(3);
}

#[test]
fn a_source_that_has_closed_its_side_is_closed_in_time() {
    let server = server!(eventTimeoutMs = -1, shutdownTimeoutMs = 50);
    let mut half = server.source();
    half.send("?|ack\n2|B\n");
    assert_eq!(half.acknowledgement("\n").1, 1);
    half.half_close();
    assert_eq!(half.line(), None);
}

#[test]
fn the_last_acknowledgement_comes_before_the_end() {
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    source.send("?|ack\n");
    assert_eq!(source.acknowledgement("\n").1, 1);
    server.while_frozen(|| {
        source.send("1|B\n2|B\n");
        server.signal(support::Signal::TERM);
    });
    source.acknowledged(3);
    assert_eq!(source.line(), None);
}

#[test]
fn after_a_source_that_asked_has_gone_nothing_is_given_up_until_it_is_back() {
    let server = server!(eventTimeoutMs = 1, maxEventSourceClients = 2);
    let (mut asker, mut other, mut user) = (server.source(), server.source(), server.user(1));
    asker.send("?|ack|feed\n1|B\n");
    asker.acknowledged(2);
    user.expect("1|B\n");
    asker.vanish();
    server.pass();
    other.send("3|B\n");
    server.pass();
    let mut asker = server.source();
    asker.send("?|ack|feed\n");
    assert_eq!(asker.acknowledgement("\n").1, 2);
    asker.send("2|B\n");
    user.expect("2|B\n3|B\n");
}

#[test]
fn the_grace_ends_in_time() {
    let server = server!(eventTimeoutMs = 1, restartGraceMs = 100, maxEventSourceClients = 2);
    let (mut asker, mut other, mut user) = (server.source(), server.source(), server.user(1));
    asker.send("?|ack\n1|B\n");
    asker.acknowledged(2);
    asker.vanish();
    server.pass();
    other.send("3|B\n");
    user.expect("1|B\n3|B\n");
}

#[test]
fn a_source_that_never_reads_its_acknowledgements_is_not_cut_off() {
    let server = server!(maxUserClients = 2);
    let (mut source, mut user) = (server.source(), server.user(1));
    source.send("?|ack\n");
    // Each event is a turn of its own: some thousand acknowledgements, more than the connection holds in small buffers.
    for number in 1..=3000 {
        let event = format!("{number}|P|2|1\n");
        source.send(&event);
        user.expect(&event);
    }
    let memory = server.status("VmRSS");
    assert!(memory < 64 * 1024, "{memory} KiB");
    source.acknowledged(3001);
}

#[test]
fn a_source_that_stays_does_not_hold_up_the_end() {
    let mut server = server!(shutdownTimeoutMs = 600_000);
    let mut source = server.source();
    source.send("?|ack\n1|B\n");
    source.acknowledged(2);
    // So much as a turn later, with nothing left to do.
    server.pass();
    server.signal(support::Signal::TERM);
    assert_eq!(server.exit_status(), 0);
}
