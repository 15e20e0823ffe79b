//! docs/SPEC.md section 10: users that resume, and slow users that are served from the journal.

use crate::journal::Folder;
use std::{fs, os::unix::fs::FileExt, path::PathBuf};
use support::model::{Model, number_of};
use support::stream::{Random, each, long_broadcast, long_broadcasts};
use support::{Server, Signal, User, launch, raise_own_limit, server};

/// A connection that has sent a login line, which ends with LF.
#[track_caller]
fn login(server: &Server, line: &str) -> User {
    let mut user = server.stranger();
    user.send(format!("{line}\n"));
    user
}

/// A line without an event, taken apart.
#[track_caller]
fn fields(line: &[u8]) -> Vec<String> {
    let line = std::str::from_utf8(line).unwrap();
    assert!(line.starts_with(['+', '-']), "{line:?}");
    line.trim_end().split('|').map(str::to_owned).collect()
}

/// A user that has logged in with a place and been answered: its epoch and its place.
#[track_caller]
pub(crate) fn resumed(server: &Server, line: &str) -> (User, String, u128) {
    let mut user = login(server, line);
    let answer = fields(&user.read_line());
    assert_eq!((answer[0].as_str(), answer.len()), ("+", 3), "{answer:?}");
    (user, answer[1].clone(), answer[2].parse().unwrap())
}

/// What a login is refused with: number and reason. The connection is closed then.
#[track_caller]
fn refused(server: &Server, line: &str) -> (String, u128, String) {
    let mut user = login(server, line);
    let answer = fields(&user.read_line());
    assert_eq!((answer[0].as_str(), answer.len()), ("-", 4), "{answer:?}");
    user.expect_eof();
    (answer[1].clone(), answer[2].parse().unwrap(), answer[3].clone())
}

#[test]
fn without_a_journal_a_place_is_the_cursor_or_above() {
    let server = server!(adminPort = 0);
    let (mut user, epoch, next) = resumed(&server, "7|now");
    assert_eq!(next, 1);
    let mut source = server.source();
    source.send("1|B\n2|P|1|7\n");
    user.expect("1|B\n2|P|1|7\n");
    assert_eq!(refused(&server, &format!("8|2|{epoch}")), (epoch.clone(), 3, "gone".to_owned()));
    assert_eq!(refused(&server, "8|3|0123456789abcdef"), (epoch.clone(), 3, "epoch".to_owned()));
    assert_eq!(resumed(&server, "8|oldest").2, 3);
    // Events below its place are not for it.
    let (mut ahead, _, next) = resumed(&server, &format!("9|5|{epoch}"));
    assert_eq!(next, 5);
    source.send("3|B\n4|P|1|9\n5|P|1|9\n6|B\n");
    ahead.expect("5|P|1|9\n6|B\n");
    user.expect("3|B\n6|B\n");
    let metrics = server.metrics();
    assert_eq!(metrics["fortnight_resumed_total{result=\"ok\"}"], 3.0);
    assert_eq!(metrics["fortnight_resumed_total{result=\"gone\"}"], 1.0);
    assert_eq!(metrics["fortnight_resumed_total{result=\"epoch\"}"], 1.0);
    assert_eq!(metrics["fortnight_users_disconnected_total{reason=\"gone\"}"], 1.0);
    assert_eq!(metrics["fortnight_users_disconnected_total{reason=\"epoch\"}"], 1.0);
}

#[test]
fn a_place_is_at_least_the_first_number() {
    let folder = Folder::new("resume-first");
    let server = server!(firstSequence = 10, journalDirectory = folder.show());
    let (_, epoch, next) = resumed(&server, "7|now");
    assert_eq!(next, 10);
    assert_eq!(resumed(&server, &format!("7|0|{epoch}")).2, 10);
    assert_eq!(resumed(&server, &format!("7|18446744073709551616|{epoch}")).2, 1 << 64);
}

#[test]
fn answers_end_as_the_login_does_and_anything_else_is_a_bad_login() {
    let server = server!(adminPort = 0);
    let mut user = login(&server, "7|now\r");
    let answer = user.read_line();
    assert!(answer.ends_with(b"|1\r\n"), "{answer:?}");
    let bad = [
        "7|",
        "7|Now",
        "7|now|",
        "7|1",
        "7|1|",
        "7|-1|0123456789abcdef",
        "7|1|0123456789ABCDEF",
        "*|now",
        "|now",
    ];
    for line in bad {
        login(&server, line).expect_closed();
    }
    server.wait_for_metric("fortnight_users_disconnected_total{reason=\"bad_login\"}", |n| {
        n == bad.len() as f64
    });
}

#[test]
fn a_user_gets_missed_events_by_the_follow_graph_of_their_place_and_becomes_live() {
    let folder = Folder::new("resume-missed");
    let server = server!(journalDirectory = folder.show(), adminPort = 0);
    let (mut first, epoch, _) = resumed(&server, "7|now");
    let mut source = server.source();
    source.send("1|F|7|50\n2|S|50\n3|B\n");
    first.expect("2|S|50\n3|B\n");
    drop(first);
    server.wait_for_metric("fortnight_users_connected", |users| users == 0.0);
    // It follows 51 for a while, and 50 no more in the end.
    source.send(
        "4|S|50\n5|F|7|51\n6|S|51\n7|U|7|51\n8|S|51\n9|P|1|7\n10|P|1|8\n11|U|7|50\n12|S|50\n13|F|9|7\n",
    );
    source.send("14|B\n");
    server.wait_for_metric("fortnight_cursor", |cursor| cursor == 15.0);
    let (mut user, again, next) = resumed(&server, &format!("7|4|{epoch}"));
    assert_eq!((again, next), (epoch, 4));
    user.expect("4|S|50\n6|S|51\n9|P|1|7\n13|F|9|7\n14|B\n");
    source.send("15|S|50\n16|S|51\n17|B\n");
    user.expect("17|B\n");
    server.wait_for_metric("fortnight_users_catching_up", |users| users == 0.0);
}

#[test]
fn the_oldest_is_the_first_number_that_is_kept_and_a_plain_login_begins_at_the_cursor() {
    let folder = Folder::new("resume-oldest");
    let server = server!(journalDirectory = folder.show());
    let mut witness = server.user(1);
    server.source().send(each(1..=5, |number| format!("{number}|B\n")));
    witness.expect(each(1..=5, |number| format!("{number}|B\n")));
    let (mut user, _, next) = resumed(&server, "7|oldest");
    assert_eq!(next, 1);
    user.expect(each(1..=5, |number| format!("{number}|B\n")));
    let mut plain = server.user(8);
    server.pass();
    server.source().send("6|B\n");
    plain.expect("6|B\n");
    user.expect("6|B\n");
}

#[test]
fn places_hold_over_restarts_of_every_kind() {
    let folder = Folder::new("resume-restart");
    let options = || launch!(journalDirectory = folder.show(), restartGraceMs = 0);
    let mut first = options().start();
    let (mut user, epoch, _) = resumed(&first, "7|now");
    first.source().send("1|F|7|50\n2|S|50\n3|S|50\n");
    user.expect("2|S|50\n3|S|50\n");
    first.signal(Signal::TERM);
    assert_eq!(fields(&user.read_line()), ["-", &epoch, "4", "closed"]);
    user.expect_eof();
    assert_eq!(first.exit_status(), 0);
    let second = options().start();
    let (mut user, again, next) = resumed(&second, &format!("7|3|{epoch}"));
    assert_eq!((again, next), (epoch.clone(), 3));
    user.expect("3|S|50\n");
    second.source().send("4|S|50\n5|B\n");
    user.expect("4|S|50\n5|B\n");
    // With SIGKILL.
    drop(second);
    let third = options().start();
    let (mut user, _, next) = resumed(&third, &format!("7|2|{epoch}"));
    assert_eq!(next, 2);
    user.expect("2|S|50\n3|S|50\n4|S|50\n5|B\n");
}

#[test]
fn a_takeover_is_told_to_the_older_one_and_a_refused_login_takes_over_nothing() {
    let folder = Folder::new("resume-takeover");
    let server = server!(journalDirectory = folder.show());
    let (mut older, epoch, _) = resumed(&server, "7|now");
    let mut source = server.source();
    source.send("1|B\n2|B\n");
    older.expect("1|B\n2|B\n");
    assert_eq!(refused(&server, "7|1|0123456789abcdef").2, "epoch");
    let (mut newer, _, _) = resumed(&server, &format!("7|2|{epoch}"));
    assert_eq!(fields(&older.read_line()), ["-", &epoch, "3", "replaced"]);
    older.expect_eof();
    newer.expect("2|B\n");
    // A plain login takes over, too, and is told nothing.
    let mut plain = server.user(7);
    assert_eq!(fields(&newer.read_line()), ["-", &epoch, "3", "replaced"]);
    source.send("3|B\n");
    plain.expect("3|B\n");
    let (_newest, _, _) = resumed(&server, "7|now");
    plain.expect_eof();
}

#[test]
fn a_mark_names_a_durable_place_when_nothing_else_is_sent() {
    let folder = Folder::new("resume-marks");
    let server = server!(journalDirectory = folder.show(), journalSync = "always", userMarkMs = 50);
    let (mut user, epoch, _) = resumed(&server, "7|now");
    let mut other = server.user(8);
    server.source().send("1|P|1|8\n2|P|1|8\n");
    other.expect("1|P|1|8\n2|P|1|8\n");
    loop {
        let mark = fields(&user.read_line());
        assert_eq!(mark[..2], ["+".to_owned(), epoch.clone()]);
        if mark[2] == "3" {
            break;
        }
        assert_eq!(mark[2], "1");
    }
    let never = server!(userMarkMs = 0);
    let (mut user, _, _) = resumed(&never, "7|now");
    never.source().send("1|B\n");
    user.expect("1|B\n");
}

#[test]
fn a_new_run_is_told_before_its_first_event() {
    let server = server!(resetOnSourceEof = true);
    let (mut user, epoch, _) = resumed(&server, "7|now");
    let mut plain = server.user(8);
    server.pass();
    let mut source = server.source();
    source.send("1|B\n2|B\n");
    source.finish();
    user.expect("1|B\n2|B\n");
    let told = fields(&user.read_line());
    assert_eq!((told[0].as_str(), told[2].as_str()), ("+", "1"));
    assert_ne!(told[1], epoch);
    server.source().send("1|B\n");
    user.expect("1|B\n");
    plain.expect("1|B\n2|B\n1|B\n");
    assert_eq!(refused(&server, &format!("9|2|{epoch}")).2, "epoch");
}

#[test]
fn what_is_not_kept_any_more_is_gone() {
    let folder = Folder::new("resume-gone");
    let server = server!(
        journalDirectory = folder.show(),
        journalSegmentBytes = 4096,
        journalRetentionBytes = 262_144,
        journalSync = "always",
        adminPort = 0
    );
    let (user, epoch, _) = resumed(&server, "7|now");
    drop(user);
    let mut source = server.source();
    let mut number = 0;
    while server.metric("fortnight_journal_first_sequence") < 100.0 {
        source.send(long_broadcasts(number + 1..=number + 100, 500));
        number += 100;
        server.wait_for_metric("fortnight_cursor", |cursor| cursor > number as f64);
    }
    let (again, first, reason) = refused(&server, &format!("7|1|{epoch}"));
    assert_eq!((again, reason.as_str()), (epoch.clone(), "gone"));
    // A snapshot may still be on its way, and take some more segments with it when it is there.
    let mut first = first;
    loop {
        if first > u128::from(number) {
            // Nothing is kept but a snapshot.
            source.send(long_broadcasts(number + 1..=number + 100, 500));
            number += 100;
        }
        let mut user = login(&server, &format!("7|{first}|{epoch}"));
        let answer = fields(&user.read_line());
        let line = if answer[0] == "+" { user.read_line() } else { Vec::new() };
        if line == long_broadcast(first as u64, 500) {
            user.expect(long_broadcasts(first as u64 + 1..=number, 500));
            break;
        }
        first = refused(&server, &format!("7|1|{epoch}")).1;
    }
    // Unless one has come meanwhile, this is the lowest number.
    let (mut user, _, next) = resumed(&server, "8|oldest");
    assert!(next >= first, "{next}, not {first}");
    user.expect(long_broadcasts(next as u64..=number, 500));
}

#[test]
fn a_slow_user_holds_up_nobody_misses_nothing_and_joins_the_others_again() {
    let folder = Folder::new("resume-slow");
    let server = server!(journalDirectory = folder.show(), userBufferBytes = 65_536, adminPort = 0);
    let mut slow = server.narrow_user(7);
    let (mut resuming, _, _) = resumed(&server, "8|now");
    let mut quick = server.user(9);
    server.pass();
    let stream = long_broadcasts(1..=20_000, 500);
    let sending = server.source().send_in_background(stream.clone());
    quick.expect(&stream);
    sending.join().unwrap().unwrap();
    resuming.expect(&stream);
    assert_eq!(server.metric("fortnight_users_catching_up"), 1.0);
    let farthest = server.metric("fortnight_users_farthest_behind");
    assert!(farthest > 1000.0 && farthest < 20_000.0, "{farthest}");
    server.wait_for_log("a user is served from the journal");
    let log = server.log();
    let told = log.lines().find(|line| line.contains("a user is served from the journal")).unwrap();
    assert!(told.contains(" user=7 ") && told.contains(" behind="), "{told}");
    let of_user = "\"id\":\"7\",";
    for resource in ["/status.json", "/clients.json"] {
        let text = server.get(resource).body;
        assert!(text.contains(of_user) && text.contains(&format!("\"behind\":\"{farthest}\"")), "{text}");
    }
    assert_eq!(server.metric("fortnight_source_paused_seconds_total{reason=\"slow_user\"}"), 0.0);
    assert!(server.metric("fortnight_output_buffered_bytes") <= 66_100.0);
    slow.expect(&stream);
    server.wait_for_metric("fortnight_users_catching_up", |users| users == 0.0);
    server.source().send("20001|B\n");
    for user in [&mut slow, &mut resuming, &mut quick] {
        user.expect("20001|B\n");
    }
    assert_eq!(server.metric("fortnight_deliveries_total"), 3.0 * 20_001.0);
}

/// The server's memory does not grow with how far behind a user is.
#[test]
fn a_user_that_is_far_behind_takes_no_more_memory_than_one_that_is_not() {
    let folder = Folder::new("resume-memory");
    let server = server!(journalDirectory = folder.show(), userBufferBytes = 65_536, adminPort = 0);
    let mut slow = server.narrow_user(7);
    let mut quick = server.user(9);
    server.pass();
    let mut number = 0;
    let mut advance = |rounds: u64| {
        for _ in 0..rounds {
            let stream = long_broadcasts(number + 1..=number + 20_000, 500);
            number += 20_000;
            let sending = server.source().send_in_background(stream.clone());
            quick.expect(&stream);
            sending.join().unwrap().unwrap();
        }
        server.peak_memory()
    };
    let (before, after) = (advance(1), advance(4));
    let behind = server.metric("fortnight_users_farthest_behind");
    assert!(behind > 70_000.0, "{behind}");
    // What it is behind are 40 MB.
    assert!(after < before + (16 << 20), "{before} bytes, and then {after}");
    slow.expect(long_broadcasts(1..=100_000, 500));
}

#[test]
fn whoever_takes_nothing_is_cut_off_and_misses_nothing_when_it_comes_back() {
    let folder = Folder::new("resume-cut-off");
    let server = server!(
        journalDirectory = folder.show(),
        userBufferBytes = 65_536,
        slowUserTimeoutMs = 200,
        adminPort = 0
    );
    let mut slow = server.narrow_user(7);
    let mut quick = server.user(9);
    server.pass();
    let stream = long_broadcasts(1..=20_000, 500);
    let sending = server.source().send_in_background(stream.clone());
    quick.expect(&stream);
    sending.join().unwrap().unwrap();
    server.wait_for_metric("fortnight_users_disconnected_total{reason=\"slow\"}", |users| users == 1.0);
    let (mut got, _) = slow.read_to_close();
    let (_, epoch, _) = resumed(&server, "1|now");
    // It comes back as often as need be: on a busy machine it may be too slow once more.
    while got.len() < stream.len() {
        got.truncate(got.len() / 500 * 500);
        assert_eq!(got, stream[..got.len()]);
        let (mut again, _, _) = resumed(&server, &format!("7|{}|{epoch}", got.len() / 500 + 1));
        let mut piece = [0; 1 << 16];
        while got.len() < stream.len()
            && let Some(length @ 1..) = again.read_some(&mut piece)
        {
            got.extend_from_slice(&piece[..length]);
        }
        // Last words are no part of the stream.
        let last_words = got.iter().rposition(|&byte| byte == b'-');
        got.truncate(last_words.unwrap_or(got.len()));
    }
    assert_eq!(got, stream);
}

/// Bytes that the system holds on the server's side of a user's connection.
fn held_for(server: &Server, user: &User) -> u64 {
    let ends = format!(":{:04X} 0100007F:{:04X} ", server.users.port(), user.address().port());
    let table = fs::read_to_string("/proc/net/tcp").expect("the table of sockets");
    let line = table.lines().find(|line| line.contains(&ends)).expect("the server's side of the connection");
    let queues = line.split_whitespace().nth(4).expect("tx_queue:rx_queue");
    u64::from_str_radix(&queues[..8], 16).expect("a number")
}

#[test]
fn who_catches_up_and_reads_nothing_leaves_the_system_s_memory_to_others() {
    let folder = Folder::new("resume-unsent");
    let server = server!(journalDirectory = folder.show(), adminPort = 0);
    let stream = long_broadcasts(1..=20_000, 1000);
    let mut live = server.user(9);
    server.pass();
    let sending = server.source().send_in_background(stream.clone());
    live.expect(&stream);
    sending.join().unwrap().unwrap();
    let (_, epoch, _) = resumed(&server, "1|now");
    let mut users: Vec<User> = (0..5).map(|id| login(&server, &format!("7{id}|1|{epoch}"))).collect();
    // Their sockets are full, and half of their buffers: each has the default of 4 MiB.
    server.wait_for_metric("fortnight_output_buffered_bytes", |bytes| bytes > 10e6);
    for user in &mut users {
        let held = held_for(&server, user);
        assert!(held < 1 << 20, "the system holds {held} bytes of a user that reads nothing");
        // All the same it gets everything, and is live again.
        user.read_line();
        user.expect(&stream);
    }
    server.wait_for_metric("fortnight_users_catching_up", |users| users == 0.0);
    server.source().send("20001|B\n");
    for user in &mut users {
        user.expect("20001|B\n");
    }
}

#[test]
fn the_policy_journal_needs_a_journal() {
    let finished = launch!(slowUserPolicy = "journal").run();
    assert_eq!(finished.status, 2);
    assert!(finished.stderr.contains("slowUserPolicy") && finished.stderr.contains("journalDirectory"));
}

#[test]
fn a_slow_user_whose_place_is_not_kept_any_more_is_cut_off_and_told_so_when_it_comes_back() {
    let folder = Folder::new("resume-slow-gone");
    let server = server!(
        journalDirectory = folder.show(),
        journalSegmentBytes = 65_536,
        journalRetentionBytes = 1 << 20,
        userBufferBytes = 65_536,
        adminPort = 0
    );
    let mut slow = server.narrow_user(7);
    let mut quick = server.user(9);
    server.pass();
    // Until the journal does not keep any more what does not fit the slow user's socket and its buffer.
    let mut number = 0;
    let behind = |server: &Server| {
        server.metric("fortnight_users_farthest_behind")
            > server.metric("fortnight_cursor") - server.metric("fortnight_journal_first_sequence")
    };
    while server.metric("fortnight_users_catching_up") == 0.0 || !behind(&server) {
        let stream = long_broadcasts(number + 1..=number + 2000, 500);
        number += 2000;
        let sending = server.source().send_in_background(stream.clone());
        quick.expect(&stream);
        sending.join().unwrap().unwrap();
        assert!(number < 1_000_000, "the slow user never gets behind");
    }
    let stream = |from: u128| long_broadcasts(from as u64..=number, 500);
    // It reads on, and is cut off where its place was.
    let (got, _) = slow.read_to_close();
    let whole = got.len() / 500 * 500;
    assert_eq!(got[..whole], stream(1)[..whole]);
    let next = (whole / 500 + 1) as u128;
    server.wait_for_metric("fortnight_users_disconnected_total{reason=\"slow\"}", |users| users == 1.0);
    let (_, epoch, _) = resumed(&server, "1|now");
    let (_, first, reason) = refused(&server, &format!("7|{next}|{epoch}"));
    assert!(first > next && reason == "gone", "{first} {reason}");
    let (mut again, _, _) = resumed(&server, &format!("7|{first}|{epoch}"));
    again.expect(stream(first));
}

/// The files of a journal whose names end like that.
fn files(folder: &Folder, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.show()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect()
}

/// Flips a bit in the middle of each of these files, while the server runs.
fn damage(paths: &[PathBuf]) {
    for path in paths {
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let middle = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle).unwrap();
        file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    }
}

/// A server whose journal has snapshots and everything from number 1 on: user 7 follows user 50.
fn server_with_snapshots(folder: &Folder) -> (Server, u64) {
    let server = server!(
        journalDirectory = folder.show(),
        journalSegmentBytes = 65_536,
        journalRetentionBytes = 1 << 20,
        journalSync = "always",
        adminPort = 0
    );
    let mut witness = server.user(1);
    server.pass();
    let mut source = server.source();
    source.send("1|F|7|50\n");
    let mut number = 1;
    while files(folder, ".fns").len() < 2 {
        let stream = long_broadcasts(number + 1..=number + 100, 500);
        source.send(&stream);
        witness.expect(&stream);
        number += 100;
        assert!(number < 1500, "there are never two snapshots");
    }
    source.send(format!("{}|S|50\n{}|B\n", number + 1, number + 2));
    witness.expect(format!("{}|B\n", number + 2));
    assert_eq!(server.metric("fortnight_journal_first_sequence"), 1.0);
    (server, number)
}

#[test]
fn a_damaged_snapshot_costs_nobody_anything() {
    let folder = Folder::new("resume-damaged-snapshot");
    let (server, number) = server_with_snapshots(&folder);
    damage(&files(&folder, ".fns"));
    let (_, epoch, _) = resumed(&server, "1|now");
    let (mut user, _, _) = resumed(&server, &format!("7|{}|{epoch}", number + 1));
    user.expect(format!("{}|S|50\n{}|B\n", number + 1, number + 2));
    server.wait_for_log("a snapshot of the journal cannot be used");
    server.wait_for_metric("fortnight_users_catching_up", |users| users == 0.0);
}

#[test]
fn who_needs_a_damaged_part_of_the_journal_is_cut_off_and_nobody_else() {
    let folder = Folder::new("resume-damaged-block");
    let (server, number) = server_with_snapshots(&folder);
    damage(&files(&folder, "/00000000000000000001.fnj"));
    let (_, epoch, _) = resumed(&server, "1|now");
    // The first one's place is before the damage, the next one's behind it, in the same segment or not.
    for place in [1, 125, 140] {
        let (mut user, _, _) = resumed(&server, &format!("8|{place}|{epoch}"));
        user.read_to_close();
    }
    server.wait_for_metric("fortnight_users_disconnected_total{reason=\"slow\"}", |users| users == 3.0);
    let (mut user, _, _) = resumed(&server, &format!("7|{}|{epoch}", number + 1));
    user.expect(format!("{}|S|50\n{}|B\n", number + 1, number + 2));
}

/// Users that come back in the test below: few, or as many as `RESUME_USERS` says.
fn users_that_return() -> u64 {
    let asked = std::env::var("RESUME_USERS").ok().filter(|text| !text.is_empty());
    asked.map_or(500, |text| text.parse().expect("RESUME_USERS: a number"))
}

#[test]
fn many_come_back_at_once_at_any_place() {
    let users = users_that_return();
    let limit = raise_own_limit();
    if limit < users + 200 {
        support::skipped(&format!("it needs {} open files, and {limit} are allowed", users + 200));
        return;
    }
    let events = 20_000 + 4 * users;
    let folder = Folder::new("resume-many");
    let server = server!(
        journalDirectory = folder.show(),
        journalSegmentBytes = 65_536,
        maxUserClients = users + 1,
        adminPort = 0
    );
    let mut random = Random::new(11);
    let mut line = |number: u64| {
        let (one, other) = (random.below(users), random.below(users));
        match random.below(10) {
            0..=3 => format!("{number}|F|{one}|{other}\n"),
            4 => format!("{number}|U|{one}|{other}\n"),
            5..=7 => format!("{number}|S|{one}\n"),
            8 => format!("{number}|P|{one}|{other}\n"),
            _ if number.is_multiple_of(100) => format!("{number}|B\n"),
            _ => format!("{number}|S|{other}\n"),
        }
    };
    let stream: String = (1..=events).map(&mut line).collect();
    let (_, epoch, _) = resumed(&server, "1|now");
    server.source().send(&stream);
    server.wait_for_metric("fortnight_cursor", |cursor| cursor == (events + 1) as f64);
    // What somebody who has been there all the time is told.
    let mut model = Model::new();
    (0..users).for_each(|id| drop(model.login(id)));
    support::stream::lines(stream.as_bytes()).for_each(|line| model.release(line));
    let mut returned: Vec<_> = (0..users)
        .map(|id| {
            let next = 1 + random.below(events);
            (login(&server, &format!("{id}|{next}|{epoch}")), id, next)
        })
        .collect();
    for (user, id, next) in &mut returned {
        user.expect(format!("+|{epoch}|{next}\n"));
        let missed = support::stream::lines(model.told(*id).unwrap());
        let missed: Vec<_> = missed.filter(|line| number_of(line).unwrap() >= *next).collect();
        user.expect(missed.concat());
    }
    server.source().send(format!("{}|B\n", events + 1));
    for (user, ..) in &mut returned {
        user.expect(format!("{}|B\n", events + 1));
    }
    println!("{users} users came back");
}
