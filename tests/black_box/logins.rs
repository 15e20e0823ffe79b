//! SPEC section 1.2: how users connect, take over, and go.

use std::time::{Duration, Instant};

use support::stream::{each, long_broadcasts};
use support::{DEADLINE, server};

#[test]
fn a_login_line_ends_with_lf_or_crlf() {
    let server = server!(eventTimeoutMs = -1);
    let (mut lf, mut crlf) = (server.stranger(), server.stranger());
    lf.send("1\n");
    crlf.send("2\r\n");
    server.source().send("1|P|9|1\n2|P|9|2\n3|B\n");
    lf.expect("1|P|9|1\n3|B\n");
    crlf.expect("2|P|9|2\n3|B\n");
}

#[test]
fn a_login_line_may_be_split_at_every_byte() {
    let login = "2932\r\n";
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    for at in 1..login.len() {
        let mut user = server.stranger();
        user.send(&login[..at]);
        server.pass();
        user.send(&login[at..]);
        source.send(format!("{at}|P|1|2932\n"));
        user.expect(format!("{at}|P|1|2932\n"));
    }
    let mut user = server.stranger();
    for byte in login.bytes() {
        user.send([byte]);
        server.pass();
    }
    source.send("6|P|1|2932\n");
    user.expect("6|P|1|2932\n");
}

#[test]
fn half_a_login_is_not_a_login() {
    let server = server!(eventTimeoutMs = -1);
    let (mut user, mut barrier) = (server.stranger(), server.user(9));
    let mut source = server.source();
    user.send("29");
    server.pass();
    source.send("1|P|1|29\n2|P|1|2932\n3|B\n");
    barrier.expect("3|B\n");
    user.send("32\n");
    source.send("4|P|1|29\n5|P|1|2932\n6|B\n");
    user.expect("5|P|1|2932\n6|B\n");
}

#[test]
fn the_same_user_id_may_be_written_with_leading_zeros() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.stranger();
    // 64 bytes, terminator included.
    let login = format!("{:062}\r\n", 7);
    assert_eq!(login.len(), 64);
    user.send(login);
    server.source().send("1|P|1|7\n2|P|1|0007\n");
    user.expect("1|P|1|7\n2|P|1|0007\n");
}

#[test]
fn everything_after_the_login_is_read_and_thrown_away() {
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    let (mut user, mut other) = (server.stranger(), server.user(8));
    // In the same packet as the login.
    user.send(b"7\r\n8\r\nand more\0\xff");
    source.send("1|B\n");
    user.expect("1|B\n");
    other.expect("1|B\n");
    // More than any buffer holds, and a line longer than a login may be.
    let block = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        user.send(&block);
    }
    user.send("\n8\n");
    server.pass();
    source.send("2|P|1|7\n3|P|1|8\n4|B\n");
    user.expect("2|P|1|7\n4|B\n");
    other.expect("3|P|1|8\n4|B\n");
}

#[test]
fn what_users_send_is_not_held_in_memory() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(7);
    let block = vec![b'x'; 1 << 20];
    user.send(&block);
    server.pass();
    let before = server.peak_memory();
    for _ in 0..100 {
        user.send(&block);
    }
    server.source().send("1|B\n");
    user.expect("1|B\n");
    let grown = server.peak_memory() - before;
    assert!(grown < 8 << 20, "the server grew by {grown} bytes");
}

#[test]
fn a_user_id_that_is_not_a_number_closes_the_connection() {
    let server = server!(eventTimeoutMs = -1, loginTimeoutMs = 600_000);
    let mut witness = server.user(1);
    let logins: [&[u8]; 20] = [
        b"\n",
        b"\r\n",
        b"x\n",
        b"abc\r\n",
        b"-1\n",
        b"+1\r\n",
        b" 1\n",
        b"1 \r\n",
        b"1\t\n",
        b"1x\n",
        b"0x1\n",
        b"1.0\n",
        b"1|2\n",
        b"1|B\n",
        b"18446744073709551616\r\n",
        b"99999999999999999999999999\n",
        b"1\0\n",
        b"\0\n",
        b"\xff\xfe\n",
        b"\xef\xbc\x91\n",
    ];
    for login in logins {
        let mut user = server.stranger();
        user.name = format!("login {}", login.escape_ascii());
        user.send(login);
        user.expect_closed();
    }
    server.source().send("1|B\n");
    witness.expect("1|B\n");
}

#[test]
fn a_login_line_longer_than_64_bytes_closes_the_connection() {
    let server = server!(eventTimeoutMs = -1, loginTimeoutMs = 600_000);
    let mut witness = server.user(1);
    for login in [format!("{:066}\n", 7), format!("{:0500}\r\n", 7), "x".repeat(100_000)] {
        let mut user = server.stranger();
        user.offer(login);
        user.expect_closed();
    }
    // Without any terminator: known to be too long before one comes.
    let mut user = server.stranger();
    user.send("0".repeat(40));
    server.pass();
    user.send("0".repeat(40));
    user.expect_closed();
    server.source().send("1|B\n");
    witness.expect("1|B\n");
}

#[test]
fn a_connection_that_has_not_logged_in_in_time_is_closed() {
    let server = server!(eventTimeoutMs = -1, loginTimeoutMs = 250);
    let mut user = server.user(1);
    let started = Instant::now();
    let (mut silent, mut half) = (server.stranger(), server.stranger());
    half.send("29");
    silent.expect_eof();
    half.expect_closed();
    assert!(started.elapsed() >= Duration::from_millis(245), "closed after {:?}", started.elapsed());
    // One that has logged in stays.
    server.source().send("1|B\n");
    user.expect("1|B\n");
}

#[test]
fn sending_a_login_slowly_does_not_put_off_its_deadline() {
    let server = server!(loginTimeoutMs = 250);
    let started = Instant::now();
    let mut user = server.stranger();
    // At this pace the 64 bytes that a login may have would last for over six seconds.
    while user.offer("1") {
        assert!(started.elapsed() < DEADLINE, "never closed");
        std::thread::sleep(Duration::from_millis(100));
    }
    user.expect_closed();
    assert!(started.elapsed() >= Duration::from_millis(245), "closed after {:?}", started.elapsed());
    assert!(server.log().lines().count() < 20);
}

#[test]
fn a_user_that_never_logs_in_gets_no_events() {
    let server = server!(eventTimeoutMs = -1);
    let (mut silent, mut user) = (server.stranger(), server.user(1));
    let mut source = server.source();
    source.send("1|B\n2|P|1|0\n3|B\n");
    user.expect("1|B\n3|B\n");
    silent.send("5\n");
    source.send("4|B\n");
    silent.expect("4|B\n");
}

#[test]
fn a_second_connection_with_the_same_id_takes_over() {
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    let mut first = server.user(7);
    source.send("1|P|1|7\n2|F|7|3\n");
    first.expect("1|P|1|7\n");
    let mut second = server.user(7);
    first.expect_eof();
    source.send("3|P|1|7\n4|S|3\n5|B\n");
    second.expect("3|P|1|7\n4|S|3\n5|B\n");
    // The end of the first connection does not end the second.
    drop(first);
    server.pass();
    source.send("6|B\n");
    second.expect("6|B\n");
}

#[test]
fn takeovers_may_come_in_a_row() {
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    let mut users: Vec<_> = (0..50).map(|_| server.user(7)).collect();
    source.send("1|B\n");
    let mut last = users.pop().unwrap();
    last.expect("1|B\n");
    for user in &mut users {
        user.expect_eof();
    }
    source.send("2|P|1|7\n");
    last.expect("2|P|1|7\n");
}

#[test]
fn takeovers_may_come_right_behind_the_login_that_they_replace() {
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    for number in 1..=2000 {
        let (mut first, mut second) = (server.user(7), server.user(7));
        first.expect_eof();
        source.send(format!("{number}|P|1|7\n"));
        second.expect(format!("{number}|P|1|7\n"));
    }
}

#[test]
fn what_the_first_was_still_owed_is_written_before_it_is_closed() {
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    let (mut first, mut barrier) = (server.user(7), server.user(8));
    let owed = each(1..=500, |number| format!("{number}|P|1|7\n"));
    source.send(&owed);
    source.send("501|P|1|8\n");
    barrier.expect("501|P|1|8\n");
    let mut second = server.user(7);
    source.send("502|B\n");
    second.expect("502|B\n");
    first.expect(owed);
    first.expect_eof();
}

#[test]
fn a_takeover_of_a_user_that_reads_nothing_does_not_wait_for_it() {
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 100_000_000);
    let mut source = server.source();
    let (mut first, mut barrier) = (server.narrow_user(7), server.user(8));
    let stream = long_broadcasts(1..=16_000, 1000);
    let writer = source.send_in_background(stream.clone());
    barrier.expect(&stream);
    writer.join().unwrap().unwrap();
    let mut second = server.user(7);
    source.send("16001|B\n");
    second.expect("16001|B\n");
    // What the socket took was the beginning of the stream.
    let (got, _) = first.read_to_close();
    assert!(got.len() < stream.len(), "the sockets held everything: nothing was shown");
    assert!(stream.starts_with(&got));
}

#[test]
fn a_user_whose_side_closes_is_gone() {
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    let (mut half_closed, closed, reset) = (server.user(1), server.user(2), server.user(3));
    let mut witness = server.user(4);
    half_closed.finish();
    half_closed.expect_eof();
    drop(closed);
    reset.vanish();
    source.send("1|B\n2|P|9|1\n3|P|9|2\n4|P|9|3\n5|B\n");
    witness.expect("1|B\n5|B\n");
    // Back again, they are not told what they missed meanwhile.
    let mut back: Vec<_> = (1..=3).map(|id| server.user(id)).collect();
    source.send("6|B\n");
    for user in &mut back {
        user.expect("6|B\n");
    }
    witness.expect("6|B\n");
}

#[test]
fn a_user_that_closes_in_the_packet_of_its_login_is_gone() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(7);
    user.finish();
    user.expect_eof();
    let mut user = server.stranger();
    user.finish();
    user.expect_eof();
    let mut user = server.user(7);
    server.source().send("1|B\n");
    user.expect("1|B\n");
}

#[test]
fn a_login_that_reached_the_server_before_an_event_is_served_before_it() {
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    for number in 1..=2000 {
        let mut user = server.user(number);
        source.send(format!("{number}|P|1|{number}\n"));
        user.expect(format!("{number}|P|1|{number}\n"));
    }
}

#[test]
fn many_logins_that_reached_the_server_before_an_event_are_served_before_it() {
    let server = server!(eventTimeoutMs = -1, maxUserClients = 2000);
    let mut source = server.source();
    for round in 1..=10_u64 {
        let first = round * 1000;
        let mut users: Vec<_> = (first..first + 200).map(|id| server.user(id)).collect();
        source.send(format!("{round}|B\n"));
        for user in &mut users {
            user.expect(format!("{round}|B\n"));
        }
    }
}

#[test]
fn a_login_is_served_before_an_event_of_a_source_that_never_pauses() {
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 1_000_000);
    let mut busy = server.source();
    // Every login comes right behind a burst of events that keeps the server at work, and before its own event.
    let mut next = 1;
    for id in 1..=200_u64 {
        busy.send(each(next..next + 2000, |number| format!("{number}|P|1|0\n")));
        let mut user = server.user(id);
        busy.send(format!("{}|P|1|{id}\n", next + 2000));
        user.expect(format!("{}|P|1|{id}\n", next + 2000));
        next += 2001;
    }
}

#[test]
fn the_log_says_why_a_login_was_refused() {
    let server = server!(loginTimeoutMs = 1000);
    for login in ["GET / HTTP/1.1\r\n\r\n", "7|5\n", &"9".repeat(65)] {
        let mut stranger = server.stranger();
        stranger.offer(login);
        stranger.expect_closed();
    }
    server.stranger().expect_closed();
    let log = server.stop();
    for wanted in [
        "reason=bad_login why=\"the login line is no user id, which is a whole number below 2^64\" text=\"GET / HTTP/1.1\" left_out=0",
        "reason=bad_login why=\"the login line is none of ID, ID|now, ID|oldest and ID|NEXT|EPOCH\" text=7|5 left_out=0",
        "reason=bad_login why=\"the login line is too long\" text=\"99999999999999999999999999999999…\" left_out=0",
        "reason=login_timeout why=\"no login line came within loginTimeoutMs\" text=\"\" left_out=0",
    ] {
        let told = |line: &&str| {
            line.contains(" level=info msg=\"login refused\" peer=127.0.0.1:") && line.ends_with(wanted)
        };
        assert_eq!(log.lines().filter(told).count(), 1, "{wanted}:\n{log}");
    }
}

#[test]
fn two_clients_that_fight_for_one_id_are_told_in_the_log() {
    let server = server!(eventTimeoutMs = -1);
    // Coming back once is everyday life.
    for id in 1..=20 {
        let _ = [server.user(id), server.user(id)];
    }
    let mut last = server.user(77);
    for _ in 0..6 {
        let next = server.user(77);
        last.expect_eof();
        last = next;
    }
    server.wait_for_log("taken over again and again");
    let log = server.stop();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("again and again")).collect();
    assert!(warnings.iter().all(|line| line.contains(" level=warn ") && line.contains(" user=77 ")), "{log}");
}

#[test]
fn sources_that_come_and_go_are_logged_and_a_crowd_of_them_does_not_flood_the_log() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    for number in 1..=100 {
        let mut source = server.source();
        source.send(format!("{number}|B\n"));
        user.expect(format!("{number}|B\n"));
        source.finish();
    }
    server.wait_for_log("what=\"event sources that connected\"");
    let log = server.stop();
    for what in ["event source connected", "event source gone"] {
        let told =
            log.lines().filter(|line| line.contains(&format!(" level=info msg=\"{what}\" peer=127.0.0.1:")));
        let count = told.count();
        assert!((5..=60).contains(&count), "{what}: {count} times\n{log}");
    }
}
