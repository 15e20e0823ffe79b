use super::{
    Content, Expectation, Keep, Outcome, Player, Reader, Recorder, Recording, Stream, cut, replay,
    replay::{Replayed, replay_within},
};
use crate::{
    server::{Phase, Server},
    sim::SimNet,
    user_id::UserId,
};
use std::{
    cell::RefCell,
    fmt::Write as _,
    io::{self, Read, Write},
    rc::Rc,
};

/// The example of the format's documentation.
const EXAMPLE: &str = "\
fortnight trace 1
option eventTimeoutMs 500
# Times are microseconds since the start.
0 user 1 connects
0 user 1 sends
=2932
1000 source 1 connects
1200 source 1 sends
=1|F|60|2932
-2|P|60|2932
+3|P|60|29
1900 source 1 sends
=32
2000 user 1 takes 0
2500000 user 1 takes all
3000000 source 1 closes
4000000 signal
";

fn played(trace: impl AsRef<[u8]>) -> Outcome {
    let Replayed { outcome, damage, .. } = replay(trace.as_ref(), Keep::Numbers).unwrap();
    assert_eq!(damage, None);
    outcome
}

fn damage(trace: &[u8]) -> String {
    let damage = match replay(trace, Keep::Digests) {
        Ok(replayed) => replayed.damage.expect("nothing is wrong with it"),
        Err(damage) => damage,
    };
    damage.to_string()
}

/// Takes one byte at a time.
struct Dribble<'a>(&'a [u8]);

impl Read for Dribble<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let len = target.len().min(1);
        self.0.read(&mut target[..len])
    }
}

#[test]
fn the_example_plays() {
    let outcome = played(EXAMPLE);
    let [stream] = &outcome.streams[..] else { panic!("{outcome:?}") };
    assert_eq!((stream.user, stream.id, stream.end.as_str()), (1, Some(UserId::new(2932)), "closed"));
    let line = |at, text: &str| (at, text.as_bytes().to_vec());
    let lines =
        vec![line(1200, "1|F|60|2932\r\n"), line(1200, "2|P|60|2932\n"), line(1900, "3|P|60|2932\r\n")];
    assert_eq!(stream.content, Content::Lines(lines));
    assert_eq!(outcome.counter("events_received"), 3);
    assert_eq!(replay(Dribble(EXAMPLE.as_bytes()), Keep::Numbers).unwrap().outcome, outcome);
}

#[test]
fn a_block_says_the_same_as_lines() {
    let block = EXAMPLE.replace(
        "sends\n=1|F|60|2932\n-2|P|60|2932\n+3|P|60|29\n",
        "sends 34 bytes\n1|F|60|2932\r\n2|P|60|2932\n3|P|60|29\n",
    );
    assert_ne!(block, EXAMPLE);
    let outcome = played(&block);
    assert_eq!(outcome, played(EXAMPLE));
    assert_eq!(replay(Dribble(block.as_bytes()), Keep::Numbers).unwrap().outcome, outcome);
    let mut lines = Vec::new();
    cut(block.as_bytes(), 0..u64::MAX, &mut lines).unwrap().unwrap();
    let lines = String::from_utf8(lines).unwrap();
    assert!(lines.contains("sends\n=1|F|60|2932\n-2|P|60|2932\n+3|P|60|29\n"), "{lines}");
    assert_eq!(played(&lines), outcome);
    let wrong = block.replace("34 bytes", "33 bytes");
    assert!(
        damage(wrong.as_bytes()).starts_with("line 11: the block goes on"),
        "{}",
        damage(wrong.as_bytes())
    );
}

#[test]
fn wherever_it_is_cut_it_plays_up_to_there_and_says_so() {
    for trace in [EXAMPLE.to_owned(), EXAMPLE.replace("sends\n=2932", "sends 6 bytes\n2932\r\n")] {
        let head = trace.find("0 user").unwrap();
        for end in head..trace.len() {
            let part = &trace.as_bytes()[..end];
            let (events_received, damage) = match replay(part, Keep::Numbers) {
                Ok(Replayed { outcome, damage, .. }) => (outcome.counter("events_received"), damage),
                Err(damage) => (0, Some(damage)),
            };
            let lines = part.iter().filter(|&&byte| byte == b'\n').count() as u64;
            match damage {
                None => assert!(part.ends_with(b"\n")),
                Some(damage) => {
                    assert!(damage.cut, "{damage}");
                    assert_eq!(damage.line, lines + 1, "{}", part.escape_ascii());
                }
            }
            let ends = ["1|F|60|2932\n", "2|P|60|2932\n", "\n=32\n"];
            let part = str::from_utf8(part).unwrap();
            let events = ends.iter().filter(|end| part.contains(**end)).count();
            assert_eq!(events_received, events as u64, "{part}");
        }
    }
}

#[test]
fn at_the_latest_time_everything_still_happens() {
    let at_the_end = EXAMPLE.replace("4000000 signal", "9223372036854775807 user 2 connects");
    let outcome = played(&at_the_end);
    assert_eq!(outcome.streams[0], played(EXAMPLE.replace("4000000 signal\n", "")).streams[0]);
    assert_eq!(outcome.counter("users_disconnected_login_timeout"), 1);
    let mut piece = Vec::new();
    cut(at_the_end.as_bytes(), 0..u64::MAX, &mut piece).unwrap().unwrap();
    assert!(piece.ends_with(b"\n9223372036854775807 user 2 connects\n"), "{}", piece.escape_ascii());
    let ends = replay(at_the_end.replace("user 2 connects", "signal").as_bytes(), Keep::Numbers).unwrap();
    assert_eq!((ends.time, ends.outcome.streams[0].end.as_str()), (i64::MAX as u64, "closed"));
}

#[test]
fn a_time_in_which_the_server_never_rests_is_not_played_for_ever() {
    let trace = "\
fortnight trace 1
option userMarkMs 1
0 user 1 connects
0 user 1 sends
=7|now
9000000000000000000 user 1 closes
";
    let Replayed { outcome, damage, time } = replay_within(1000, trace.as_bytes(), Keep::Digests).unwrap();
    assert_eq!(
        damage.unwrap().to_string(),
        "line 6: the server has something to do in 1000 turns and more until then; expected a record before that"
    );
    assert!((900_000..2_000_000).contains(&time), "{time}");
    assert_eq!(outcome.streams.len(), 1);

    // After the last record the replay just ends.
    let (open, _) = trace.rsplit_once("9000").unwrap();
    let Replayed { damage, time, .. } = replay_within(1000, open.as_bytes(), Keep::Digests).unwrap();
    assert_eq!(damage, None);
    assert!(time < 2_000_000, "{time}");

    // A long time with nothing to do is a turn.
    let quiet = trace.replace("userMarkMs 1", "userMarkMs 0");
    assert_eq!(replay_within(1000, quiet.as_bytes(), Keep::Digests).unwrap().damage, None);
}

#[test]
fn what_is_damaged_is_named_with_its_line() {
    let with =
        |line: &str| format!("fortnight trace 1\n0 source 1 connects\n5 source 1 sends\n=1|B\n{line}\n");
    let cases = [
        (String::new(), "line 1: this is no trace; expected \"fortnight trace 1\""),
        ("fortnight trace 2\n".to_owned(), "line 1: version \"2\" of the format is not known"),
        ("fortnight trace 1\r\n".to_owned(), "line 1: version \"1\\r\" of the format is not known"),
        (
            "fortnight trace 1\noption userBufferBytes 0\n".to_owned(),
            "line 2: userBufferBytes: \"0\" is not accepted; expected a whole number of bytes from 1",
        ),
        (
            "fortnight trace 1\n# note\n\noption logLevel off\n".to_owned(),
            "line 4: option \"logLevel\" is not known; expected one of maxEventSourceClients,",
        ),
        (with("4 source 1 closes"), "line 5: time runs backwards, from 5 to 4"),
        (with("9223372036854775808 source 1 closes"), "line 5: the time 9223372036854775808 is too late"),
        (with("18446744073709551615 signal"), "line 5: the time 18446744073709551615 is too late"),
        (with("6 source 1 jumps"), "line 5: \"6 source 1 jumps\" is no record"),
        (with("6 source 1 takes 5"), "line 5: \"6 source 1 takes 5\" is no record"),
        (with("6 source 1 closes now"), "line 5: \"6 source 1 closes now\" is no record"),
        (
            with("6 source 18446744073709551616 closes"),
            "line 5: \"6 source 18446744073709551616 closes\" is no record",
        ),
        (with("option eventTimeoutMs 5"), "line 5: \"option eventTimeoutMs 5\" is no record"),
        (with("=1|B\\q"), "line 5: \\q is no escape"),
        (with("=1|B\\x4"), "line 5: \\x is no escape; expected"),
        (with("=1|B\\x4g"), "line 5: \\x is no escape; expected"),
        (with("=1|B\r"), "line 5: the byte 0x0d cannot stand for itself; expected \\x0d"),
        (with("6 source 1 closes\n=1|B"), "line 6: \"=1|B\" is a data line in front of which nobody sends"),
        (with("6 killed"), "line 5: \"6 killed\" is for a server that keeps a journal; expected the option"),
        (with("6 disk takes 1x"), "line 5: \"6 disk takes 1x\" is no record"),
        (
            "fortnight trace 1\noption journalDirectory x\noption resetOnSourceEof true\n".to_owned(),
            "line 4: a server with a journal has one run",
        ),
        (with("6 source 2 closes"), "line 5: source 2 has not connected"),
        (with("6 source 1 connects"), "line 5: source 1 connects twice"),
        (with("6 signal\n9000000 source 2 closes"), "line 6: source 2 has not connected"),
        (with("6 source 1 closes\n7 source 1 sends\n=2|B"), "line 6: source 1 has gone already"),
        (
            with("6 source 1 sends 9 bytes\n1|B"),
            "line 7: the file ends in the middle of a block; expected 6 bytes more",
        ),
        (format!("{}x", with("")), "line 6: the file ends in the middle of this line"),
        (with(&"x".repeat(2 << 20)), "line 5: the line is too long; expected at most 1048576 bytes"),
    ];
    for (trace, sentence) in cases {
        let damage = damage(trace.as_bytes());
        assert!(damage.starts_with(sentence), "{damage}\n{sentence}");
        assert!(damage.len() < 500, "{damage}");
    }
}

#[test]
fn noise_is_refused() {
    let mut seed = 1u64;
    for len in 0..300 {
        let mut noise: Vec<u8> = Vec::new();
        for _ in 0..len {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            noise.push((seed >> 56) as u8);
        }
        assert!(damage(&noise).starts_with("line 1: this is no trace"));
        let late = [b"fortnight trace 1\n0 user 1 connects\n", &noise[..], b"\n"].concat();
        if len > 20 {
            assert!(damage(&late).starts_with("line "), "{}", late.escape_ascii());
        }
    }
}

/// Memory that a recorder writes to.
#[derive(Clone, Default)]
struct Paper(Rc<RefCell<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Short, as a file's may be.
        let len = bytes.len().min(1000);
        self.0.borrow_mut().extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A trace of everything at once: users that come and go, users that read slowly or not at all, a source that sends in
/// bursts, holes, garbage.
fn busy_trace() -> String {
    let mut seed = 7u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut trace = "fortnight trace 1\noption userBufferBytes 600\noption eventTimeoutMs 20\n".to_owned();
    trace.push_str("0 source 1 connects\n");
    let (mut seq, mut users, mut taken) = (1, 0, 0);
    for step in 1..2000 {
        let time = step * 700;
        match random(10) {
            0 if users < 90 => {
                users += 1;
                let _ = write!(
                    trace,
                    "{time} user {users} connects\n{time} user {users} sends\n={}\n",
                    users % 20
                );
            }
            1 if users > 0 => {
                taken += random(300);
                let user = users;
                let _ = match random(3) {
                    0 => writeln!(trace, "{time} user {user} takes {taken}"),
                    _ => writeln!(trace, "{time} user {user} takes all"),
                };
            }
            _ => {
                let _ = writeln!(trace, "{time} source 1 sends");
                for _ in 0..random(30) {
                    seq += 1 + u64::from(random(40) == 0);
                    let line = match random(6) {
                        0 => format!("={seq}|B\n"),
                        1 => format!("-{seq}|F|{}|{}\n", random(30), random(20)),
                        2 => format!("+{seq}|S|{}\n=\n", random(20)),
                        3 => format!("={seq}|X\\xff\n"),
                        _ => format!("={seq}|P|1|{}\n", random(20)),
                    };
                    trace.push_str(&line);
                }
            }
        }
    }
    let _ = writeln!(trace, "1400000 source 1 closes");
    trace
}

/// The part of an outcome that does not depend on exact times.
fn timeless(outcome: Outcome) -> (Vec<Stream>, Vec<(String, u64)>) {
    let nothing = || Content::Numbers(Vec::new());
    let streams = outcome.streams.into_iter().map(|stream| Stream { content: nothing(), ..stream });
    let counters = outcome.counters.into_iter().filter(|(name, _)| !name.starts_with("paused_us"));
    (streams.collect(), counters.collect())
}

#[test]
fn recording_a_replay_gives_a_trace_that_replays_the_same() {
    for trace in [EXAMPLE.to_owned(), busy_trace()] {
        let paper = Paper::default();
        let reader = Reader::new(trace.as_bytes()).unwrap();
        let config = reader.config().clone();
        let recorder = Recorder::new(Box::new(paper.clone()), &config).unwrap();
        let net = SimNet::new(Player::new(reader, Keep::Digests));
        let mut server = Server::new(config, Recording::new(net.clone(), recorder), 0);
        while !net.shared().world.is_idle() && server.phase() == Phase::Running {
            server.turn().unwrap();
        }
        while !matches!(server.phase(), Phase::Running | Phase::Done { .. }) {
            server.turn().unwrap();
        }
        drop(server);
        let recorded = paper.0.take();
        let (first, second) = (played(&trace), played(&recorded));
        assert!(first.streams.iter().any(|stream| stream.lines > 0));
        assert_eq!(timeless(first), timeless(second));
    }
}

#[test]
fn a_busy_trace_is_the_same_every_time() {
    let trace = busy_trace();
    let first = played(&trace);
    assert!(first.counter("users_disconnected_slow") > 0, "{first:?}");
    assert!(first.counter("users_disconnected_replaced") > 0, "{first:?}");
    assert!(first.counter("paused_us_slow_user") > 0, "{first:?}");
    assert_eq!(first, played(&trace));
}

#[test]
fn an_expectation_is_read_as_it_was_written() {
    for trace in [EXAMPLE.to_owned(), busy_trace()] {
        let outcome = played(&trace);
        let expectation = Expectation::from(outcome.clone());
        let text = expectation.to_text();
        assert_eq!(Expectation::parse(&text).unwrap().to_text(), text);
        assert_eq!(Expectation::parse(&text).unwrap().compare(&outcome), []);
    }
}

#[test]
fn a_difference_is_the_first_line_that_differs() {
    let expectation = Expectation::from(played(EXAMPLE));
    let differences = |from: &str, to: &str| {
        let trace = EXAMPLE.replace(from, to);
        assert_ne!(trace, EXAMPLE);
        let differences = expectation.compare(&played(&trace));
        differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        differences("2|P|60|2932", "2|P|61|2932"),
        "user 1 (id 2932), line 2\n    expected 2|P|60|2932\\n at 1200\n    got      2|P|61|2932\\n at 1200"
    );
    assert_eq!(
        differences("1900 source", "1901 source"),
        "user 1 (id 2932), line 3\n    expected 3|P|60|2932\\r\\n at 1900\n    got      3|P|60|2932\\r\\n at 1901"
    );
    let shorter = differences("-2|P|60|2932\n", "");
    assert!(shorter.contains("line 2\n    expected 2|P|60|2932\\n at 1200"), "{shorter}");
    assert!(shorter.contains("counter deliveries\n    expected 3\n    got      2"), "{shorter}");
    assert!(differences("=2932", "=2933").contains("expected user 1 (id 2932)"));
}

#[test]
fn a_difference_in_a_long_stream_is_an_event() {
    let trace = |missing: u64| {
        let mut trace = EXAMPLE[..EXAMPLE.find("1200").unwrap()].to_owned();
        trace.push_str("1200 source 1 sends\n");
        for seq in (1..=200).filter(|&seq| seq != missing) {
            let _ = writeln!(trace, "={seq}|B");
        }
        trace
    };
    let expectation = Expectation::from(played(trace(0)));
    assert!(expectation.to_text().contains("\nevents 1-200\n"));
    let differences = expectation.compare(&played(trace(150)));
    assert_eq!(
        differences[0].to_string(),
        "user 1 (id 2932), line 150\n    expected event 150\n    got      event 151"
    );
}

#[test]
fn whoever_resumes_is_known_by_its_id_and_every_first_line_is_explained() {
    let trace = "\
fortnight trace 1
0 user 1 connects
0 user 1 sends
=7|oldest
0 user 2 connects
0 user 2 sends
=8|now
0 user 3 connects
0 user 3 sends
=9|12|00c0ffee00c0ffee
0 user 4 connects
0 user 4 sends
=9|twelve
0 source 1 connects
0 source 1 sends
=?|ack|feed
1000 source 1 sends
=1|B
2000 source 1 sends
=?|ack
3000 signal
";
    let ids: Vec<_> =
        played(trace).streams.iter().filter(|stream| !stream.is_source).map(|user| user.id).collect();
    assert_eq!(ids, [Some(7), Some(8), Some(9), None].map(|id| id.map(UserId::new)));
    let mut shown = Vec::new();
    super::show(trace.as_bytes(), &mut shown).unwrap().unwrap();
    let shown = String::from_utf8(shown).unwrap();
    for explained in [
        "logs in as 7, from the oldest event that is kept on",
        "logs in as 8, from now on",
        "logs in as 9, from number 12 of epoch 00c0ffee00c0ffee on",
        "no login",
        "asks for acknowledgements",
        "no event: ",
    ] {
        assert!(shown.contains(explained), "no {explained:?} in\n{shown}");
    }
}
