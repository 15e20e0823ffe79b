//! SPEC section 1.1: a line that is not an event is rejected, and never the end of the connection.
//!
//! `eventTimeoutMs` is -1 here, so a number that was not used up would hold everything up for ever.

use std::io::Write;

use support::stream::{each, long_broadcast};
use support::{Server, server};

/// What may follow a number that can be read and make the line no event.
const BAD_REST: [&[u8]; 59] = [
    // Missing fields.
    b"",
    b"|",
    b"|F",
    b"|F|60",
    b"|U",
    b"|U|60",
    b"|P",
    b"|P|60",
    b"|S",
    // Empty fields.
    b"||",
    b"||60|50",
    b"|F||50",
    b"|F|60|",
    b"|F||",
    b"|U||5",
    b"|P|5|",
    b"|P||5",
    b"|S|",
    // Extra fields.
    b"|B|",
    b"|B|5",
    b"|S|5|5",
    b"|S|5|",
    b"|F|60|5|7",
    b"|F|60|5|",
    b"|P|60|5|",
    b"|P|60|5|hello",
    b"|U|60|5|1",
    // Unknown types.
    b"|X",
    b"|X|60|5",
    b"|b",
    b"|p|60|5",
    b"|BB",
    b"|PP|60|5",
    b"|5|P|60",
    b"|\xce\x92",
    // Signs.
    b"|P|-60|5",
    b"|P|60|-5",
    b"|P|+60|5",
    b"|P|60|+5",
    b"|S|-5",
    // Spaces.
    b"| B",
    b"|B ",
    b"|P |60|5",
    b"|P| 60|5",
    b"|P|60| 5",
    b"|P|60|5 ",
    b"|B\t",
    // Numbers that are none, or overflow.
    b"|P|60|x",
    b"|P|60|5x",
    b"|P|60|0x5",
    b"|P|60|5.0",
    b"|P|18446744073709551616|5",
    b"|P|60|18446744073709551616",
    b"|S|99999999999999999999999999999999",
    // NUL, high bytes, a carriage return in the middle.
    b"|P|60|5\0",
    b"|\0",
    b"|P|60|\xff5",
    b"|B\r\r",
    b"|\rB",
];

/// Lines whose number cannot be read.
const NO_NUMBER: [&[u8]; 29] = [
    b"|B",
    b"|",
    b"|||",
    b"||B",
    b"|P|60|5",
    b"B",
    b"P|60|5",
    b"x|B",
    b"2x|B",
    b"x2|B",
    b"-1|B",
    b"+2|B",
    b"-0|B",
    b" 2|B",
    b"2 |B",
    b"\t2|B",
    b"2.0|B",
    b"0x2|B",
    b"2e0|B",
    b"2,|B",
    b"18446744073709551616|B",
    b"18446744073709551618|B",
    b"99999999999999999999999999999999999999|B",
    b"\0|B",
    b"2\0|B",
    b"\x002|B",
    b"\xff\xfe\xfd",
    b"\xef\xbc\x92|B",
    b"GET / HTTP/1.1",
];

/// Sends each line in its own place of a sequence of private messages, and expects those and nothing else.
fn send_between_events(server: &Server, bad_lines: &[Vec<u8>], first: u64, step: u64, end: &str) {
    let mut user = server.user(5);
    let mut source = server.source();
    let mut number = first;
    for bad in bad_lines {
        source.send([bad, end.as_bytes()].concat());
        source.send(format!("{number}|P|1|5\n"));
        user.expect(format!("{number}|P|1|5\n"));
        number += step;
    }
    source.finish();
}

#[test]
fn a_rejected_line_uses_up_its_number() {
    for end in ["\n", "\r\n"] {
        let server = server!(eventTimeoutMs = -1);
        let numbered =
            |(index, rest): (usize, &&[u8])| [format!("{}", 2 * index + 1).as_bytes(), rest].concat();
        let bad_lines: Vec<_> = BAD_REST.iter().enumerate().map(numbered).collect();
        send_between_events(&server, &bad_lines, 2, 2, end);
    }
}

#[test]
fn a_rejected_line_uses_up_its_number_out_of_order_too() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    let mut source = server.source();
    source.send("4|B\n2|nonsense\n3|F|1\n");
    server.pass();
    source.send("1|B\n");
    user.expect("1|B\n4|B\n");
}

#[test]
fn a_line_without_a_readable_number_is_dropped() {
    for end in ["\n", "\r\n"] {
        let server = server!(eventTimeoutMs = -1);
        let bad_lines: Vec<_> = NO_NUMBER.iter().map(|line| line.to_vec()).collect();
        send_between_events(&server, &bad_lines, 1, 1, end);
    }
}

#[test]
fn a_used_up_number_is_used_up_for_good() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    let mut source = server.source();
    // Number 2 is used up by the rejected line, whichever comes first; number 3 keeps its event.
    source.send("2|X\n2|P|1|5\n3|P|1|5\n3|X\n");
    server.pass();
    source.send("1|B\n4|B\n");
    user.expect("1|B\n3|P|1|5\n4|B\n");
    // A rejected line below the cursor changes nothing.
    source.send("1|X\n4|\n5|B\n");
    user.expect("5|B\n");
}

#[test]
fn rejected_lines_are_logged_and_the_log_is_not_flooded() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    let mut source = server.source();
    source.send("rubbish\n");
    server.wait_for_log_of(&["reject", "not an event", "no event"]);
    source.send("more rubbish\n".repeat(100_000));
    source.send("1|B\n");
    user.expect("1|B\n");
    let log = server.log();
    assert!(log.lines().count() < 1000, "{} lines logged", log.lines().count());
}

#[test]
fn random_bytes_are_never_the_end_of_the_connection() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    let mut source = server.source();
    let mut random = support::stream::Random::new(7);
    let mut noise: Vec<u8> = (0..2_000_000).map(|_| random.next_u64().to_le_bytes()[3]).collect();
    // Random digits may make a line with a readable number: keep them all from the numbers used below.
    for byte in &mut noise {
        if byte.is_ascii_digit() {
            *byte = b'x';
        }
    }
    source.send(&noise);
    source.send("\n2|P|1|5\n1|P|1|5\n");
    user.expect("1|P|1|5\n2|P|1|5\n");
    source.finish();
}

#[test]
fn a_line_of_exactly_max_event_bytes_is_an_event() {
    let server = server!(eventTimeoutMs = -1, maxEventBytes = 32);
    let mut user = server.user(5);
    let mut source = server.source();
    let lf = long_broadcast(1, 32);
    let crlf = format!("{:028}|B\r\n", 2).into_bytes();
    assert_eq!(crlf.len(), 32);
    source.send(&lf);
    source.send(&crlf);
    user.expect([lf, crlf].concat());
}

#[test]
fn a_line_longer_than_max_event_bytes_is_rejected_and_its_number_used_up() {
    let server = server!(eventTimeoutMs = -1, maxEventBytes = 32);
    let mut user = server.user(5);
    let mut source = server.source();
    let lf = long_broadcast(1, 33);
    let crlf = format!("{:029}|B\r\n", 2).into_bytes();
    assert_eq!(crlf.len(), 33);
    source.send(&lf);
    source.send("2|P|1|5\n2|B\n");
    user.expect("2|P|1|5\n");
    source.send(format!("{:029}|B\r\n", 3));
    source.send("4|P|1|5\n");
    user.expect("4|P|1|5\n");
    source.send(format!("5|P|1|{}5\n", "0".repeat(1000)));
    source.send("6|B\n");
    user.expect("6|B\n");
}

#[test]
fn an_overlong_line_split_anywhere_is_one_line() {
    let server = server!(eventTimeoutMs = -1, maxEventBytes = 16, resetOnSourceEof = true);
    let mut user = server.user(5);
    let stream = "1|P|0000000000000000000000001|5\r\n2|B\n0000000000000000003|B\n";
    for at in 1..stream.len() {
        let mut source = server.source();
        source.send(&stream[..at]);
        server.pass();
        source.send(&stream[at..]);
        // Whether the number in the last line could be read within 16 bytes does not matter: it is not "3".
        user.expect("2|B\n");
        source.finish();
    }
}

/// Sends a line of 100 MB and expects the server to stay small, and to go on with the next line.
fn send_100_mb(start: &str, filler: u8, after: &str, wanted: &str) {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    let mut source = server.source();
    source.send("1|B\n");
    user.expect("1|B\n");
    let before = server.peak_memory();
    source.send(start);
    let block = vec![filler; 1 << 20];
    for _ in 0..100 {
        source.send(&block);
    }
    source.send(after);
    user.expect(wanted);
    let grown = server.peak_memory() - before;
    assert!(grown < 16 << 20, "the server grew by {grown} bytes");
    source.finish();
}

#[test]
fn a_line_of_100_mb_is_rejected_and_its_number_used_up_and_not_held_in_memory() {
    send_100_mb("2|P|1|", b'7', "\n3|B\n", "3|B\n");
}

#[test]
fn a_line_of_100_mb_without_a_number_is_dropped_and_not_held_in_memory() {
    send_100_mb("", b'x', "\r\n2|B\n", "2|B\n");
}

#[test]
fn a_line_of_100_mb_of_nul_is_dropped_and_not_held_in_memory() {
    send_100_mb("|", 0, "\n2|B\n", "2|B\n");
}

#[test]
fn a_truncated_overlong_line_is_dropped() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    let mut source = server.source();
    source.send("1|B\n");
    source.send(vec![b'x'; 100_000]);
    user.expect("1|B\n");
    source.finish();
    server.source().send("2|B\n");
    user.expect("2|B\n");
}

#[test]
fn one_bad_event_in_ten_costs_nobody_a_wait() {
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(5);
    let line = |number: u64| match number % 10 {
        3 => format!("{number}|Z|nonsense\n"),
        7 => format!("garbage\n{number}|B\n"),
        _ => format!("{number}|B\n"),
    };
    let mut stream = Vec::new();
    for number in 1..=20_000 {
        stream.write_all(line(number).as_bytes()).unwrap();
    }
    let writer = server.source().send_in_background(stream);
    user.expect(each((1..=20_000).filter(|number| number % 10 != 3), |number| format!("{number}|B\n")));
    writer.join().unwrap().unwrap();
}

#[test]
fn how_much_was_left_out_of_the_log_is_said_when_the_trouble_is_over() {
    let server = server!(eventTimeoutMs = 0);
    let mut source = server.source();
    let mut user = server.user(1);
    for number in 1..=40 {
        source.send(format!("garbage\n{number}|B\n"));
        user.expect(format!("{number}|B\n"));
    }
    server.wait_for_log("more of the same was left out of the log");
    let log = server.log();
    let written = log.matches("a line that is no event was rejected").count();
    let left_out: usize = log
        .split("left_out=")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert!(written < 40, "nothing was left out:\n{log}");
    assert!(log.contains("rejected lines"), "{log}");
    assert_eq!(written + left_out, 40, "{log}");
}

#[test]
fn what_was_left_out_of_the_log_is_said_at_the_end_at_the_latest() {
    let server = server!(eventTimeoutMs = 0);
    let mut source = server.source();
    let mut user = server.user(1);
    for number in 1..=20 {
        source.send(format!("garbage\n{number}|B\n"));
        user.expect(format!("{number}|B\n"));
    }
    let log = server.stop();
    assert!(log.contains("more of the same was left out of the log"), "{log}");
}

#[test]
fn a_truncated_line_is_logged_with_whose_it_was() {
    let server = server!(eventTimeoutMs = -1);
    let mut source = server.source();
    source.send("1|B");
    source.finish();
    server.wait_for_log("truncated");
    let log = server.log();
    let line = log.lines().find(|line| line.contains("truncated")).unwrap();
    assert!(line.contains("127.0.0.1:"), "{line}");
}

/// A line may come in pieces of any size, the first one of a source too.
#[test]
fn a_long_line_in_small_pieces_is_one_line() {
    let server = server!(eventTimeoutMs = -1, maxEventBytes = 65_536);
    let (mut source, mut user) = (server.source(), server.user(1));
    for (number, piece) in [(1, 61), (2, 997), (3, 20_000)] {
        let line = format!("{number:065520}|B\n");
        for part in line.as_bytes().chunks(piece) {
            source.send(part);
        }
        user.expect(&line);
    }
    // One byte too many: its number is used up, and the next line is whole again.
    let overlong = format!("{:065535}|B\n", 4);
    for part in overlong.as_bytes().chunks(997) {
        source.send(part);
    }
    source.send("5|B\n");
    user.expect("5|B\n");
}

/// Users that send without end are read when there is time for it. They are served, and noticed when they go.
#[test]
fn users_that_send_rubbish_without_end_are_served_and_keep_nobody_waiting() {
    let server = server!(eventTimeoutMs = -1, maxUserClients = 12);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (mut source, mut quiet) = (server.source(), server.user(99));
        for id in 1..=8 {
            let mut talker = server.user(id);
            let (done, last) = (&done, b"2001|B\n");
            scope.spawn(move || {
                let mut reader = talker.another_handle();
                let reading = std::thread::spawn(move || reader.read_through(last));
                let rubbish = vec![b'x'; 1 << 16];
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    talker.send(&rubbish);
                }
                assert!(reading.join().unwrap().ends_with(b"2000|B\n2001|B\n"));
            });
        }
        for number in 1..=2000 {
            let event = format!("{number}|B\n");
            source.send(&event);
            quiet.expect(&event);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        source.send("2001|B\n");
    });
    // All of them have gone: there is room for as many others.
    server.wait_for_hang_ups(server.users);
    let mut users: Vec<_> = (1..=12).map(|id| server.user(id)).collect();
    server.source().send("2002|B\n");
    users.iter_mut().for_each(|user| user.expect("2002|B\n"));
}

#[test]
fn the_log_has_the_text_of_rejected_lines_each_reason_for_itself() {
    let server = server!(eventTimeoutMs = -1, maxEventBytes = 64, maxSequenceJump = 1000);
    let mut source = server.source();
    let mut user = server.user(1);
    // One reason as often as it takes to be left out, before each of the others has its line.
    source.send("1|X|\u{1b}[2J\u{202e}\r\n".repeat(50));
    source.send(b"no number \xff\"\n2|P|1\n3|P|1|me\n".as_slice());
    source.send(format!("4|{}\n999999|B\n5|B\n", "long".repeat(100)));
    user.expect("5|B\n");
    source.send("half");
    drop(source);
    server.wait_for_log("reason=truncated");
    let log = server.stop();
    for wanted in [
        r#"reason=type seq=1 text="1|X|\u001b[2J\u202e" rejected="#,
        r#"reason=sequence seq=unreadable text="no number \\xff\"" rejected=1 left_out=0"#,
        "reason=fields seq=2 text=2|P|1 rejected=1 left_out=0",
        "reason=user_id seq=3 text=3|P|1|me rejected=1 left_out=0",
        "reason=too_long seq=4 text=4|longlonglong",
        "reason=too_far seq=999999 text=999999|B rejected=1 left_out=0",
        "reason=truncated seq=unreadable text=half rejected=1 left_out=0",
    ] {
        assert!(log.contains(wanted), "{wanted} is missing in:\n{log}");
    }
    let types = log.lines().filter(|line| line.contains("reason=type"));
    let written = types.clone().filter(|line| line.contains("text=")).count();
    let left_out = |line: &str| line.rsplit("left_out=").next().unwrap().parse::<usize>().unwrap();
    assert_eq!(written + types.map(left_out).sum::<usize>(), 50, "{log}");
}
