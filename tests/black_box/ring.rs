//! SPEC section 2, full ring: an event too far ahead waits in its connection.

use std::time::Duration;

use support::stream::{Random, each};
use support::{Server, server};

/// What the log may say when it speaks of the full ring.
const FULL_RING: [&str; 3] = ["ring", "full", "reorderCapacity"];

fn broadcast(number: u64) -> String {
    format!("{number}|B\n")
}

#[test]
fn when_the_only_source_is_stopped_the_hole_is_skipped_at_once() {
    for timeout in [0, 600_000] {
        let server = server!(eventTimeoutMs = timeout, reorderCapacity = 8);
        let mut user = server.user(1);
        let mut source = server.source();
        // Number 1 is missing, 2 to 8 fill the ring, 9 does not fit.
        source.send(each(2..=9, broadcast));
        user.expect(each(2..=9, broadcast));
        source.send("1|B\n10|B\n");
        user.expect("10|B\n");
    }
}

#[test]
fn an_event_far_beyond_the_ring_of_the_only_source_is_released_at_once() {
    let server = server!(eventTimeoutMs = 600_000, reorderCapacity = 8);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("1000000|B\n");
    user.expect("1000000|B\n");
    source.send("999999|B\n1000001|B\n");
    user.expect("1000001|B\n");
    source.send("18446744073709551614|B\n");
    user.expect("18446744073709551614|B\n");
}

#[test]
fn the_capacity_is_rounded_up_to_a_power_of_two() {
    for (asked, rounded) in [(5, 8), (8, 8), (9, 16), (100, 128)] {
        let server = server!(eventTimeoutMs = 600_000, reorderCapacity = asked);
        let mut user = server.user(1);
        let mut source = server.source();
        // The last number that fits waits for those before it.
        source.send(broadcast(rounded));
        server.pass();
        source.send(each(1..rounded, broadcast));
        user.expect(each(1..=rounded, broadcast));
        // The first that does not fit waits for nobody.
        source.send(broadcast(rounded * 2 + 1));
        user.expect(broadcast(rounded * 2 + 1));
    }
}

#[test]
fn by_default_the_ring_has_65536_slots() {
    let server = server!(eventTimeoutMs = 600_000);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("65536|B\n");
    server.pass();
    source.send("1|B\n");
    user.expect("1|B\n");
    // The ring reaches from 2 to 65537 now.
    source.send("65538|B\n");
    user.expect("65536|B\n");
    source.send("65537|B\n");
    user.expect("65537|B\n65538|B\n");
}

#[test]
fn a_stream_shuffled_within_the_reach_of_the_ring_loses_nothing() {
    let server = server!(eventTimeoutMs = -1, reorderCapacity = 128);
    let mut user = server.user(1);
    let mut random = Random::new(6);
    let mut stream = String::new();
    for round in 0..1000 {
        let mut numbers: Vec<u64> = (round * 128 + 1..=(round + 1) * 128).collect();
        random.shuffle(&mut numbers);
        stream += &each(numbers, broadcast);
    }
    let writer = server.source().send_in_background(stream.into_bytes());
    user.expect(each(1..=128_000, broadcast));
    writer.join().unwrap().unwrap();
}

#[test]
fn with_a_negative_timeout_a_stopped_source_waits_for_another_to_fill_the_hole() {
    let server = server!(eventTimeoutMs = -1, reorderCapacity = 8, maxEventSourceClients = 2);
    let mut user = server.user(1);
    let mut stopped = server.source();
    stopped.send(each(2..=20, broadcast));
    server.wait_for_log_of(&FULL_RING);
    assert_eq!(user.expect_until_quiet(b"2|B\n", Duration::from_millis(200)), 0);
    server.source().send("1|B\n");
    user.expect(each(1..=20, broadcast));
    // It is read again.
    stopped.send(each(21..=40, broadcast));
    user.expect(each(21..=40, broadcast));
}

#[test]
fn with_a_negative_timeout_the_log_is_not_flooded() {
    let server = server!(eventTimeoutMs = -1, reorderCapacity = 8);
    let mut source = server.source();
    source.send("9|B\n");
    server.wait_for_log_of(&FULL_RING);
    for round in 0..50 {
        source.send(broadcast(10 + round));
        server.pass();
    }
    let told = server.log().matches("the ring is full").count();
    assert!(told < 10, "{told} lines:\n{}", server.log());
}

#[test]
fn while_another_source_is_not_stopped_the_hole_is_not_skipped() {
    for timeout in [-1, 600_000] {
        let server = two_sources(timeout);
        let mut user = server.user(1);
        let (mut stopped, mut other) = (server.source(), server.source());
        // The other one is known to be connected, because it has been heard of.
        other.send("1|B\n");
        user.expect("1|B\n");
        stopped.send(each(3..=30, broadcast));
        server.pass();
        other.send("2|B\n");
        user.expect(each(2..=30, broadcast));
        // The stopped source is read again, the other one still is.
        stopped.send("32|B\n");
        other.send("31|B\n");
        user.expect("31|B\n32|B\n");
    }
}

#[test]
fn when_both_sources_are_stopped_the_hole_is_skipped_at_once() {
    let server = two_sources(600_000);
    let mut user = server.user(1);
    let (mut first, mut second) = (server.source(), server.source());
    first.send("1|B\n");
    second.send("2|B\n");
    user.expect("1|B\n2|B\n");
    // Number 3 is missing; the ring reaches up to 10.
    first.send(each(4..=11, broadcast));
    server.pass();
    second.send("12|B\n");
    user.expect(each(4..=12, broadcast));
}

#[test]
fn when_both_sources_are_stopped_and_the_timeout_is_negative_a_third_may_fill_the_hole() {
    let server = server!(eventTimeoutMs = -1, reorderCapacity = 8, maxEventSourceClients = 3);
    let mut user = server.user(1);
    let (mut first, mut second) = (server.source(), server.source());
    first.send(each(2..=9, broadcast));
    second.send(each(10..=12, broadcast));
    server.wait_for_log_of(&FULL_RING);
    let mut third = server.source();
    third.send("1|B\n");
    user.expect(each(1..=12, broadcast));
    first.send("15|B\n");
    second.send("14|B\n");
    third.send("13|B\n");
    user.expect(each(13..=15, broadcast));
}

#[test]
fn when_the_only_source_that_is_not_stopped_leaves_the_hole_is_skipped_at_once() {
    let server = two_sources(600_000);
    let mut user = server.user(1);
    let (mut stopped, mut other) = (server.source(), server.source());
    other.send("1|B\n");
    user.expect("1|B\n");
    stopped.send(each(3..=10, broadcast));
    server.pass();
    other.finish();
    user.expect(each(3..=10, broadcast));
}

#[test]
fn a_stopped_source_does_not_lengthen_the_wait_of_those_in_the_ring() {
    let server = two_sources(250);
    let mut user = server.user(1);
    let (mut stopped, mut other) = (server.source(), server.source());
    other.send("1|B\n");
    user.expect("1|B\n");
    stopped.send(each(3..=20, broadcast));
    // The other one could still fill the hole but does not: the time of number 3 ends it.
    user.expect(each(3..=20, broadcast));
    other.send("2|B\n21|B\n");
    user.expect("21|B\n");
}

#[test]
fn a_source_that_is_stopped_over_and_over_loses_nothing() {
    let server = two_sources(-1);
    let mut user = server.user(1);
    let (leader, follower) = (server.source(), server.source());
    // The even numbers run ahead as far as they can, and wait for the odd ones.
    let even = leader.send_in_background(each((1..=50_000).map(|half| half * 2), broadcast).into_bytes());
    let odd =
        follower.send_in_background(each((1..=50_000).map(|half| half * 2 - 1), broadcast).into_bytes());
    user.expect(each(1..=100_000, broadcast));
    even.join().unwrap().unwrap();
    odd.join().unwrap().unwrap();
}

#[test]
fn a_stopped_source_is_not_read_any_further() {
    let server = two_sources(-1);
    let mut user = server.user(1);
    let stopped = server.source();
    let stream = each(2..=2_000_000, broadcast).into_bytes();
    let before = server.peak_memory();
    let writer = stopped.send_in_background(stream.clone());
    server.wait_for_log_of(&FULL_RING);
    server.pass();
    let grown = server.peak_memory() - before;
    assert!(grown < 8 << 20, "the server grew by {grown} bytes");
    assert!(!writer.is_finished(), "the sockets took all {} bytes: nothing was shown", stream.len());
    server.source().send("1|B\n");
    user.expect("1|B\n");
    user.expect(&stream);
    writer.join().unwrap().unwrap();
}

/// A server with a ring of 8 that takes two sources.
fn two_sources(timeout: i64) -> Server {
    server!(eventTimeoutMs = timeout, reorderCapacity = 8, maxEventSourceClients = 2)
}
