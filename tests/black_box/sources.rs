//! SPEC sections 1.1, 2 and 4: sources that come, go, come back, and are one too many; `resetOnSourceEof`.

use support::server;
use support::stream::each;

fn broadcast(number: u64) -> String {
    format!("{number}|B\n")
}

#[test]
fn by_default_there_is_one_source_and_one_more_is_accepted_and_closed() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("1|B\n");
    user.expect("1|B\n");
    for _ in 0..10 {
        let mut extra = server.source();
        extra.offer("2|P|1|1\n");
        extra.expect_closed();
    }
    source.send("2|B\n");
    user.expect("2|B\n");
    // Once it has gone, there is room for another.
    source.finish();
    server.source().send("3|B\n");
    user.expect("3|B\n");
}

#[test]
fn as_many_sources_as_allowed_are_put_into_one_order() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 3);
    let mut user = server.user(1);
    let mut sources: Vec<_> = (0..3).map(|_| server.source()).collect();
    for (number, source) in (1..).zip(&mut sources) {
        source.send(broadcast(number));
    }
    user.expect("1|B\n2|B\n3|B\n");
    server.source().expect_closed();
    let writers: Vec<_> = (0..3)
        .zip(&sources)
        .map(|(share, source)| {
            let numbers = (4..=30_000).filter(|number| number % 3 == share);
            source.send_in_background(each(numbers, broadcast).into_bytes())
        })
        .collect();
    user.expect(each(4..=30_000, broadcast));
    for writer in writers {
        writer.join().unwrap().unwrap();
    }
}

#[test]
fn a_source_that_disconnects_changes_nothing_about_cursor_or_graph() {
    let server = server!(eventTimeoutMs = -1);
    let (mut user, mut other) = (server.user(1), server.user(2));
    let mut source = server.source();
    source.send("1|F|1|9\n2|F|2|9\n3|U|2|9\n5|S|9\n");
    source.finish();
    server.wait_for_hang_ups(server.sources);
    // Number 5 still waits for 4; the numbers before are late; 9 still has its follower.
    let mut source = server.source();
    source.send("1|B\n3|B\n6|B\n4|B\n");
    user.expect("4|B\n5|S|9\n6|B\n");
    other.expect("4|B\n6|B\n");
}

#[test]
fn a_source_may_come_back_at_once() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    for number in 1..=200 {
        let mut source = server.source();
        source.send(broadcast(number));
        user.expect(broadcast(number));
        if number % 2 == 0 {
            source.vanish();
        } else {
            source.finish();
        }
        server.wait_for_hang_ups(server.sources);
    }
}

#[test]
fn what_a_source_sent_before_it_left_is_served() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    let mut source = server.source();
    let stream = each((1..=1000).rev(), broadcast) + &each(1001..=100_000, broadcast);
    source.send(stream);
    drop(source);
    user.expect(each(1..=100_000, broadcast));
}

#[test]
fn what_waits_for_a_hole_when_its_source_leaves_is_released_in_its_time() {
    let server = server!(eventTimeoutMs = 250);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("2|B\n4|B\n");
    source.finish();
    user.expect("2|B\n4|B\n");
}

#[test]
fn a_new_source_whose_first_events_are_all_late_is_explained_in_the_log() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send(each(1..=1000, broadcast));
    user.expect(each(1..=1000, broadcast));
    source.finish();
    assert!(!server.log().contains("resetOnSourceEof"), "explained before it happened:\n{}", server.log());
    let mut source = server.source();
    source.send(each(1..=1000, broadcast));
    server.wait_for_log("resetOnSourceEof");
    source.send("1001|B\n");
    user.expect("1001|B\n");
}

#[test]
fn by_default_the_next_source_goes_on_where_the_last_one_ended() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    for number in 1..=20 {
        let mut source = server.source();
        source.send(broadcast(number) + "1|P|9|1\n" + &broadcast(number));
        source.finish();
    }
    user.expect(each(1..=20, broadcast));
}

#[test]
fn with_reset_on_source_eof_the_next_source_starts_a_new_run() {
    let server = server!(eventTimeoutMs = -1, resetOnSourceEof = true, firstSequence = 10);
    let mut user = server.user(1);
    for _ in 0..20 {
        let mut source = server.source();
        source.send("9|B\n10|B\n12|P|1|1\n11|B\n");
        user.expect("10|B\n11|B\n12|P|1|1\n");
        source.finish();
    }
    assert!(!server.log().contains("late"), "{}", server.log());
}

#[test]
fn with_reset_on_source_eof_all_that_the_source_sent_is_released_first_and_holes_are_skipped() {
    for timeout in [-1, 0, 600_000] {
        let server = server!(eventTimeoutMs = timeout, resetOnSourceEof = true);
        let mut user = server.user(1);
        for _ in 0..5 {
            let mut source = server.source();
            source.send("7|B\n1|B\n3|B\n5|B");
            source.finish();
            user.expect("1|B\n3|B\n7|B\n");
        }
    }
}

#[test]
fn with_reset_on_source_eof_the_graph_is_emptied() {
    let server = server!(eventTimeoutMs = -1, resetOnSourceEof = true);
    let (mut user, mut other) = (server.user(1), server.user(2));
    let mut source = server.source();
    source.send("1|F|1|9\n2|F|2|9\n3|S|9\n");
    user.expect("3|S|9\n");
    other.expect("3|S|9\n");
    source.finish();
    let mut source = server.source();
    source.send("1|S|9\n2|F|2|9\n3|S|9\n4|B\n");
    user.expect("4|B\n");
    other.expect("3|S|9\n4|B\n");
}

#[test]
fn with_reset_on_source_eof_users_stay_connected_and_are_told_of_both_runs() {
    let server = server!(eventTimeoutMs = -1, resetOnSourceEof = true);
    let mut users: Vec<_> = (1..=50).map(|id| server.user(id)).collect();
    for _ in 0..3 {
        let mut source = server.source();
        source.send(each(1..=500, broadcast));
        source.finish();
    }
    for user in &mut users {
        user.expect(each((1..=500).chain(1..=500).chain(1..=500), broadcast));
    }
}

#[test]
fn with_reset_on_source_eof_only_the_last_source_to_go_ends_the_run() {
    let server = server!(eventTimeoutMs = -1, resetOnSourceEof = true, maxEventSourceClients = 2);
    let mut user = server.user(1);
    let (mut first, mut second) = (server.source(), server.source());
    first.send("1|F|1|9\n2|B\n");
    second.send("3|B\n");
    user.expect("2|B\n3|B\n");
    first.finish();
    second.send("1|B\n4|S|9\n");
    user.expect("4|S|9\n");
    second.finish();
    server.source().send("1|B\n2|S|9\n3|B\n");
    user.expect("1|B\n3|B\n");
}

#[test]
fn with_reset_on_source_eof_a_source_that_vanishes_ends_its_run_too() {
    let server = server!(eventTimeoutMs = -1, resetOnSourceEof = true);
    let mut user = server.user(1);
    for _ in 0..20 {
        let mut source = server.source();
        source.send("1|B\n2|B\n");
        user.expect("1|B\n2|B\n");
        source.vanish();
        // Or the next connection may come before that, and is one too many.
        server.wait_for_hang_ups(server.sources);
        server.pass();
    }
}

#[test]
fn a_source_that_vanishes_in_the_middle_of_a_line_ends_only_its_own_connection() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 2);
    let mut user = server.user(1);
    let (mut first, mut second) = (server.source(), server.source());
    first.send("1|B\n2|P|1|");
    user.expect("1|B\n");
    server.pass();
    first.vanish();
    server.pass();
    second.send("2|B\n");
    user.expect("2|B\n");
}
