//! SPEC section 1.1: what event sources send, and who is told.

use support::server;
use support::stream::each;

#[test]
fn a_follow_is_told_to_the_user_who_is_followed() {
    let server = server!(eventTimeoutMs = -1);
    let (mut follower, mut followed, mut other) = (server.user(60), server.user(50), server.user(7));
    let mut source = server.source();
    source.send("1|F|60|50\n2|B\n");
    followed.expect("1|F|60|50\n2|B\n");
    follower.expect("2|B\n");
    other.expect("2|B\n");
}

#[test]
fn an_unfollow_is_sent_to_no_user() {
    let server = server!(eventTimeoutMs = -1);
    let (mut from, mut to, mut other) = (server.user(12), server.user(9), server.user(7));
    server.source().send("1|U|12|9\n2|B\n");
    for user in [&mut from, &mut to, &mut other] {
        user.expect("2|B\n");
    }
}

#[test]
fn a_broadcast_is_told_to_every_connected_user() {
    let server = server!(eventTimeoutMs = -1);
    let mut users: Vec<_> = (1..=200).map(|id| server.user(id)).collect();
    server.source().send("1|B\n2|B\n");
    for user in &mut users {
        user.expect("1|B\n2|B\n");
    }
}

#[test]
fn a_private_message_is_told_to_its_recipient_only() {
    let server = server!(eventTimeoutMs = -1);
    let (mut from, mut to, mut other) = (server.user(32), server.user(56), server.user(7));
    server.source().send("1|P|32|56\n2|B\n");
    to.expect("1|P|32|56\n2|B\n");
    from.expect("2|B\n");
    other.expect("2|B\n");
}

#[test]
fn a_status_update_is_told_to_every_follower() {
    let server = server!(eventTimeoutMs = -1);
    let (mut first, mut second) = (server.user(1), server.user(2));
    let (mut other, mut author) = (server.user(3), server.user(32));
    server.source().send("1|F|1|32\n2|F|2|32\n3|F|3|1\n4|S|32\n5|B\n");
    first.expect("3|F|3|1\n4|S|32\n5|B\n");
    second.expect("4|S|32\n5|B\n");
    other.expect("5|B\n");
    author.expect("1|F|1|32\n2|F|2|32\n5|B\n");
}

#[test]
fn followers_are_those_at_that_point_of_the_sequence() {
    let server = server!(eventTimeoutMs = -1);
    let (mut user, mut barrier) = (server.user(1), server.user(2));
    let mut source = server.source();
    // In order: S (not yet), F, S (yes), U, S (no more), F, S (yes again). Sent in another order.
    source.send("7|S|32\n5|S|32\n3|S|32\n1|S|32\n6|F|1|32\n4|U|1|32\n8|B\n");
    source.send("2|F|1|32\n");
    user.expect("3|S|32\n7|S|32\n8|B\n");
    barrier.expect("8|B\n");
}

#[test]
fn a_user_may_follow_and_write_to_itself() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    server.source().send("1|F|5|5\n2|S|5\n3|P|5|5\n4|U|5|5\n5|S|5\n6|B\n");
    user.expect("1|F|5|5\n2|S|5\n3|P|5|5\n6|B\n");
}

#[test]
fn a_source_is_sent_nothing() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 2);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("1|B\nrubbish\n2|F|2|1\n2|B\n1|B\n\n3|S|1\n4|U|2|1\n5|P|2|1\n");
    user.expect("1|B\n2|F|2|1\n5|P|2|1\n");
    // Reads to the end of the connection, and there was nothing.
    source.finish();
    server.source().finish();
}

#[test]
fn a_line_ends_with_lf_or_crlf() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    server.source().send("1|B\n2|B\r\n3|P|9|1\r\n4|P|9|1\n5|F|9|1\n6|F|8|1\r\n7|B\n");
    user.expect("1|B\n2|B\r\n3|P|9|1\r\n4|P|9|1\n5|F|9|1\n6|F|8|1\r\n7|B\n");
}

#[test]
fn events_of_mixed_terminators_out_of_order_keep_each_its_own() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    let end = |number: u64| if number.is_multiple_of(3) { "\r\n" } else { "\n" };
    let line = |number: u64| format!("{number}|B{}", end(number));
    let mut source = server.source();
    source.send(each((1..=300).rev(), line));
    user.expect(each(1..=300, line));
}

#[test]
fn users_get_exactly_the_bytes_that_arrived() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(7);
    let events = [
        "0000001|B\n",
        "002|P|0032|007\r\n",
        "3|F|00000000000000000000000000000000000000000000000000009|7\n",
        "0000000000000000000000000000000000000000000000000000000000000000004|F|7|9\r\n",
        "005|S|0000009\n",
        "6|U|07|009\n",
        "7|S|9\n",
        "008|B\r\n",
    ];
    server.source().send(events.concat());
    user.expect([events[0], events[1], events[2], events[4], events[7]].concat());
}

#[test]
fn leading_zeros_may_fill_the_line() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(7);
    let zeros = |length: usize| "0".repeat(length);
    // Each line is 1,024 bytes long, the default of maxEventBytes.
    let number = format!("{}1|B\n", zeros(1020));
    let recipient = format!("2|P|1|{}7\r\n", zeros(1015));
    let sender = format!("3|P|{}1|7\n", zeros(1016));
    for line in [&number, &recipient, &sender] {
        assert_eq!(line.len(), 1024);
    }
    let events = [number, recipient, sender].concat();
    server.source().send(&events);
    user.expect(&events);
}

#[test]
fn numbers_and_user_ids_are_64_bits_wide() {
    let max = u64::MAX;
    let server = server!(eventTimeoutMs = -1, firstSequence = max - 4);
    let (mut top, mut next, mut zero) = (server.user(max), server.user(max - 1), server.user(0));
    let mut source = server.source();
    source.send(format!(
        "{}|F|{}|{max}\n{}|S|{max}\n{}|P|{max}|0\n{}|P|0|{max}\n{max}|B\n",
        max - 4,
        max - 1,
        max - 3,
        max - 2,
        max - 1
    ));
    top.expect(format!("{}|F|{}|{max}\n{}|P|0|{max}\n{max}|B\n", max - 4, max - 1, max - 1));
    next.expect(format!("{}|S|{max}\n{max}|B\n", max - 3));
    zero.expect(format!("{}|P|{max}|0\n{max}|B\n", max - 2));
}

#[test]
fn users_who_are_not_connected_are_skipped_silently() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    server.source().send("1|P|1|404\n2|F|1|404\n3|F|404|405\n4|S|405\n5|U|404|405\n6|B\n");
    user.expect("6|B\n");
}

#[test]
fn the_graph_changes_whether_or_not_either_user_is_connected() {
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    let mut barrier = server.user(99);
    // Nobody of 1, 2, 3 is connected.
    source.send("1|F|1|3\n2|F|2|3\n3|U|2|3\n4|B\n");
    barrier.expect("4|B\n");
    let (mut follower, mut former) = (server.user(1), server.user(2));
    source.send("5|S|3\n6|B\n");
    follower.expect("5|S|3\n6|B\n");
    former.expect("6|B\n");
}

#[test]
fn following_outlives_the_connection_of_the_follower() {
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    let (mut user, mut barrier) = (server.user(1), server.user(2));
    source.send("1|F|1|3\n2|S|3\n");
    user.expect("2|S|3\n");
    user.finish();
    user.expect_eof();
    source.send("3|S|3\n4|B\n");
    barrier.expect("4|B\n");
    let mut user = server.user(1);
    source.send("5|S|3\n");
    user.expect("5|S|3\n");
}

#[test]
fn following_twice_is_following_once() {
    let server = server!(eventTimeoutMs = -1);
    let (mut user, mut followed) = (server.user(1), server.user(3));
    server.source().send("1|F|1|3\n2|F|1|3\n3|S|3\n4|U|1|3\n5|S|3\n6|B\n");
    user.expect("3|S|3\n6|B\n");
    // Each of the two is an event of its own, and told.
    followed.expect("1|F|1|3\n2|F|1|3\n6|B\n");
}

#[test]
fn unfollowing_someone_not_followed_is_nothing() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    server.source().send("1|U|1|3\n2|U|3|1\n3|U|1|1\n4|F|1|3\n5|U|1|4\n6|S|3\n7|S|4\n8|B\n");
    user.expect("6|S|3\n8|B\n");
}

#[test]
fn a_user_who_follows_many_and_is_followed_by_many_unfollows_one() {
    let server = server!(eventTimeoutMs = -1);
    let mut followers: Vec<_> = (1..=100).map(|id| server.user(id)).collect();
    let mut source = server.source();
    let mut events = each(1..=100, |id| format!("{id}|F|{id}|1000\n"));
    events += &each(1..=100, |id| format!("{}|F|50|{}\n", 100 + id, 1000 + id));
    events += "201|U|50|1000\n202|S|1000\n203|S|1007\n204|B\n";
    source.send(events);
    for (id, follower) in (1..).zip(&mut followers) {
        follower.expect(if id == 50 { "203|S|1007\n204|B\n" } else { "202|S|1000\n204|B\n" });
    }
}

#[test]
fn two_events_in_one_packet_are_two_events() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("1|B\n2|B\n");
    user.expect("1|B\n2|B\n");
    source.send("4|P|2|1\r\n3|P|2|1\n");
    user.expect("3|P|2|1\n4|P|2|1\r\n");
}

#[test]
fn a_stream_may_be_split_at_every_byte() {
    let stream = "1|F|60|5\r\n2|U|60|5\n\n3|B\r\n004|P|32|5\n5|S|32\r\nx\r\n6|B\n";
    let wanted = "1|F|60|5\r\n3|B\r\n004|P|32|5\n6|B\n";
    let server = server!(eventTimeoutMs = -1, resetOnSourceEof = true);
    let mut user = server.user(5);
    for at in 1..stream.len() {
        let mut source = server.source();
        source.send(&stream[..at]);
        server.pass();
        source.send(&stream[at..]);
        user.expect(wanted);
        source.finish();
    }
}

#[test]
fn a_stream_may_come_byte_by_byte() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    let mut source = server.source();
    for byte in "1|F|60|5\r\n2|U|60|5\n\r\n3|B\r\n004|P|32|5\n5|S|32\r\n6|B\n".bytes() {
        source.send([byte]);
        server.pass();
    }
    user.expect("1|F|60|5\r\n3|B\r\n004|P|32|5\n6|B\n");
}

#[test]
fn a_line_is_not_an_event_before_its_terminator_has_come() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    let mut source = server.source();
    source.send("1|B\n2|P|1|5");
    user.expect("1|B\n");
    server.pass();
    // Had the line been taken for an event already, this would be another one.
    source.send("5\n3|B\r");
    server.pass();
    source.send("\n");
    user.expect("3|B\r\n");
}

#[test]
fn an_empty_line_is_ignored() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    let mut source = server.source();
    source.send("\n\r\n\n\n1|B\n\n\r\n3|B\r\n\r\n2|B\n\n");
    user.expect("1|B\n2|B\n3|B\r\n");
    source.send("\n".repeat(100_000));
    source.send("4|B\n");
    user.expect("4|B\n");
}

#[test]
fn a_truncated_event_is_dropped_when_the_source_disconnects() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    for (number, cut) in (1..).zip(["2|B", "2|B\r", "2|", "2", "2|P|1|5", "3|B", "\r", "not an event"]) {
        let mut source = server.source();
        source.send(format!("{number}|B\n{cut}"));
        user.expect(format!("{number}|B\n"));
        source.finish();
    }
    // And with a reset rather than an orderly end.
    let mut source = server.source();
    source.send("9|B\n10|B");
    user.expect("9|B\n");
    source.vanish();
    server.pass();
    // What was cut off has used up no number and has not been glued to what comes next.
    server.source().send("10|P|1|5\n");
    user.expect("10|P|1|5\n");
}

#[test]
fn many_large_writes_arrive_whole() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    let source = server.source();
    let stream = each(1..=300_000, |number| format!("{number}|P|{}|1\n", number % 977)).into_bytes();
    let writer = source.send_in_background(stream.clone());
    user.expect(&stream);
    writer.join().unwrap().unwrap();
}
