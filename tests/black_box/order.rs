//! SPEC section 2: order, lateness, and how long an event waits for those before it.

use std::time::{Duration, Instant};

use support::stream::{Random, each};
use support::{DEADLINE, server};

fn broadcast(number: u64) -> String {
    format!("{number}|B\n")
}

#[test]
fn events_are_released_strictly_in_the_order_of_their_numbers() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    let mut random = Random::new(1);
    let mut source = server.source();
    for round in 0..20 {
        let mut numbers: Vec<u64> = (round * 5000 + 1..=(round + 1) * 5000).collect();
        let wanted = each(numbers.iter().copied(), broadcast);
        random.shuffle(&mut numbers);
        source.send(each(numbers, broadcast));
        user.expect(wanted);
    }
}

#[test]
fn every_user_sees_its_own_events_in_that_order() {
    let server = server!(eventTimeoutMs = -1);
    let mut users: Vec<_> = (0..10).map(|id| server.user(id)).collect();
    let mut numbers: Vec<u64> = (1..=20_000).collect();
    Random::new(2).shuffle(&mut numbers);
    let private = |number: u64| format!("{number}|P|77|{}\n", number % 10);
    let writer = server.source().send_in_background(each(numbers, private).into_bytes());
    for (id, user) in (0..).zip(&mut users) {
        user.expect(each((1..=20_000).filter(|number| number % 10 == id), private));
    }
    writer.join().unwrap().unwrap();
}

#[test]
fn the_cursor_starts_at_first_sequence() {
    for first in [0, 1, 2, 100, 65_535, 65_536, 1 << 32, u64::MAX - 1] {
        let server = server!(eventTimeoutMs = -1, firstSequence = first);
        let mut user = server.user(1);
        let mut source = server.source();
        if first > 0 {
            source.send(broadcast(first - 1));
        }
        source.send(broadcast(first + 1) + &broadcast(first));
        user.expect(broadcast(first) + &broadcast(first + 1));
    }
}

#[test]
fn by_default_the_first_event_is_number_1() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    server.source().send("0|B\n2|B\n1|B\n");
    user.expect("1|B\n2|B\n");
}

#[test]
fn numbers_may_go_up_to_the_last_of_64_bits() {
    let first = 18_446_744_073_709_551_600;
    let server = server!(eventTimeoutMs = -1, firstSequence = first);
    let mut user = server.user(1);
    let mut source = server.source();
    let mut numbers: Vec<u64> = (first..=u64::MAX).collect();
    Random::new(3).shuffle(&mut numbers);
    source.send(each(numbers, broadcast));
    user.expect(each(first..=u64::MAX, broadcast));
    // Whatever comes now is late, or no number of 64 bits. The server stays at its post.
    source.send(each(first..=u64::MAX, broadcast) + "0|B\n1|B\n18446744073709551616|B\n");
    source.finish();
    let mut another = server.user(2);
    server.source().send("1|B\n");
    server.pass();
    server.stop();
    user.expect_eof();
    another.expect_eof();
}

#[test]
fn holes_before_the_last_number_of_64_bits_are_skipped() {
    let first = u64::MAX - 15;
    let server = server!(eventTimeoutMs = 50, firstSequence = first);
    let mut user = server.user(1);
    server.source().send(broadcast(u64::MAX) + &broadcast(first + 3));
    user.expect(broadcast(first + 3) + &broadcast(u64::MAX));
    server.stop();
    user.expect_eof();
}

#[test]
fn an_event_below_the_cursor_is_late_and_dropped() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    let mut source = server.source();
    source.send("1|B\n2|B\n3|B\n");
    user.expect("1|B\n2|B\n3|B\n");
    source.send("3|B\n1|P|1|5\n0|B\n2|F|1|5\n4|B\n");
    user.expect("4|B\n");
    // A late follow changes nothing: user 5 did not begin to follow anybody.
    source.send("2|F|5|9\n5|S|9\n6|B\n");
    user.expect("6|B\n");
}

#[test]
fn a_number_that_is_already_waiting_is_a_duplicate_and_the_first_stays() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    let mut source = server.source();
    source.send("2|P|1|5\n2|B\n2|P|2|5\n3|B\r\n");
    server.pass();
    source.send("3|P|1|5\n02|B\n1|B\n4|B\n");
    user.expect("1|B\n2|P|1|5\n3|B\r\n4|B\n");
}

#[test]
fn every_event_is_released_at_most_once() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    let mut random = Random::new(4);
    let mut numbers: Vec<u64> = (1..=10_000).chain(1..=10_000).chain(1..=10_000).collect();
    random.shuffle(&mut numbers);
    let writer = server.source().send_in_background(each(numbers, broadcast).into_bytes());
    user.expect(each(1..=10_000, broadcast));
    writer.join().unwrap().unwrap();
}

#[test]
fn an_event_waits_for_missing_ones_before_it() {
    let server = server!(eventTimeoutMs = 600_000);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("3|B\n");
    server.pass();
    source.send("2|B\n5|B\n");
    server.pass();
    source.send("1|B\n");
    user.expect("1|B\n2|B\n3|B\n");
    source.send("4|B\n");
    user.expect("4|B\n5|B\n");
}

#[test]
fn when_the_time_is_up_holes_are_skipped_and_the_event_is_released() {
    let server = server!(eventTimeoutMs = 300);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("1|B\n");
    user.expect("1|B\n");
    let sent = Instant::now();
    source.send("4|B\n");
    user.expect("4|B\n");
    let waited = sent.elapsed();
    assert!(waited >= Duration::from_millis(295), "waited only {waited:?}");
    // The missing ones are late now.
    source.send("2|B\n3|B\n5|B\n");
    user.expect("5|B\n");
    server.wait_for_log_of(&["skip", "hole", "missing", "gave up", "given up"]);
}

#[test]
fn by_default_an_event_waits_for_a_second() {
    let server = server!();
    let mut user = server.user(1);
    let sent = Instant::now();
    server.source().send("2|B\n");
    user.expect("2|B\n");
    let waited = sent.elapsed();
    assert!(waited >= Duration::from_millis(995), "waited only {waited:?}");
}

#[test]
fn all_holes_before_an_event_are_skipped_at_once() {
    // One after the other, a thousand timeouts would take 250 seconds, far beyond the deadline of a test.
    let server = server!(eventTimeoutMs = 250);
    let mut user = server.user(1);
    let even = || (1..=1000).map(|half| 2 * half);
    server.source().send(each(even(), broadcast));
    user.expect(each(even(), broadcast));
}

#[test]
fn holes_of_any_width_are_skipped_at_once() {
    let server = server!(eventTimeoutMs = 250);
    let mut user = server.user(1);
    let numbers = [7, 8, 9, 1000, 1001, 30_000, 65_536];
    server.source().send(each(numbers.into_iter().rev(), broadcast));
    user.expect(each(numbers, broadcast));
}

#[test]
fn a_stream_that_loses_one_in_a_hundred_is_only_one_timeout_behind() {
    // 1,000 holes: were each waited for in turn, this would take 250 seconds.
    let server = server!(eventTimeoutMs = 250);
    let mut user = server.user(1);
    let there = || (1..=100_000).filter(|number| number % 100 != 50);
    let writer = server.source().send_in_background(each(there(), broadcast).into_bytes());
    user.expect(each(there(), broadcast));
    writer.join().unwrap().unwrap();
}

#[test]
fn later_events_do_not_put_off_the_time_of_an_earlier_one() {
    let server = server!(eventTimeoutMs = 300);
    let mut user = server.user(1);
    let mut source = server.source();
    let mut next = 2;
    let started = Instant::now();
    source.send("2|B\n");
    while user.expect_until_quiet(b"2|B\n", Duration::from_millis(20)) == 0 {
        assert!(started.elapsed() < DEADLINE, "number 2 still waits");
        next += 2;
        source.send(broadcast(next));
    }
    // And each of the later ones comes in its own time.
    user.expect(each((4..=next).step_by(2), broadcast));
}

#[test]
fn an_earlier_timeout_does_not_shorten_the_time_of_a_later_event() {
    let server = server!(eventTimeoutMs = 800);
    let mut user = server.user(1);
    let mut source = server.source();
    // On a machine so slow that the later event's own time is up before its missing one has been sent, the
    // round proves nothing, and is tried again.
    for round in 0..10 {
        let first = round * 100 + 3;
        source.send(broadcast(first));
        assert_eq!(user.expect_until_quiet(broadcast(first).as_bytes(), Duration::from_millis(500)), 0);
        let sent = Instant::now();
        source.send(broadcast(first + 2));
        user.expect(broadcast(first));
        source.send(broadcast(first + 1));
        if sent.elapsed() < Duration::from_millis(700) {
            user.expect(broadcast(first + 1) + &broadcast(first + 2));
            return;
        }
        server.pass();
        source.send(broadcast(first + 3));
        while user.expect_until_quiet(broadcast(first + 3).as_bytes(), DEADLINE) == 0 {}
    }
}

#[test]
fn with_timeout_0_holes_are_skipped_as_soon_as_everything_has_been_read() {
    let server = server!(eventTimeoutMs = 0);
    let mut user = server.user(1);
    let mut source = server.source();
    // What comes in one packet is put in order first.
    source.send("3|B\n2|B\n1|B\n5|B\n");
    user.expect("1|B\n2|B\n3|B\n5|B\n");
    source.send("4|B\n9|B\n7|B\n");
    user.expect("7|B\n9|B\n");
    source.send("8|B\n1000|B\n");
    user.expect("1000|B\n");
}

#[test]
fn with_timeout_0_a_packet_of_many_events_is_put_in_order() {
    let server = server!(eventTimeoutMs = 0);
    let mut user = server.user(1);
    let mut source = server.source();
    let mut random = Random::new(5);
    for round in 0..200 {
        let mut numbers: Vec<u64> = (round * 200 + 1..=round * 200 + 190).collect();
        let wanted = each(numbers.iter().copied(), broadcast);
        random.shuffle(&mut numbers);
        source.send(each(numbers, broadcast));
        user.expect(wanted);
    }
}

#[test]
fn with_a_negative_timeout_nothing_is_ever_skipped() {
    for timeout in [-1, -1000] {
        let server = server!(eventTimeoutMs = timeout);
        let mut user = server.user(1);
        let mut source = server.source();
        source.send("2|B\n");
        // Longer than the default.
        assert_eq!(user.expect_until_quiet(b"2|B\n", Duration::from_millis(1500)), 0);
        source.send("1|B\n");
        user.expect("1|B\n2|B\n");
    }
}

#[test]
fn a_follow_that_comes_late_in_time_but_early_in_number_counts_from_its_place() {
    let server = server!(eventTimeoutMs = -1);
    let (mut user, mut other) = (server.user(1), server.user(2));
    let mut source = server.source();
    let line = |number: u64| match number {
        500 => "500|F|1|9\n".to_owned(),
        800 => "800|U|1|9\n".to_owned(),
        1001 => "1001|B\n".to_owned(),
        _ => format!("{number}|S|9\n"),
    };
    source.send(each((1..=1001).filter(|number| *number != 500), line));
    server.pass();
    source.send(line(500));
    user.expect(each((501..800).chain([1001]), line));
    other.expect("1001|B\n");
}
