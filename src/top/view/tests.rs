//! Screens as text, for states of a server that are made up.

use super::super::{model::HISTORY, order::Order};
use super::*;
use crate::{
    admin::{
        Hole, JournalNumbers, Pause, SlowUser, Snapshot, history::History, history::Sample, people::UserRow,
        status::json,
    },
    config::Config,
    counters::Counters,
    latency::Latency,
    sequence::Cursor,
    user_id::UserId,
};
use ratatui::{Terminal, backend::TestBackend};

/// The screen as text.
fn screen(model: &Model, now: Instant, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, now)).unwrap();
    terminal.backend().to_string()
}

/// A model of a server with the numbers that `change` leaves, as the server itself writes them down.
fn model(change: impl Fn(&mut Snapshot<'_>)) -> Model {
    let mut counters = Counters { events_late: 41, deliveries: 2_000_000, ..Counters::default() };
    counters.events_released[Kind::Status as usize] = 1_234_567;
    counters.users_disconnected[DisconnectReason::Replaced as usize] = 17;
    counters.events_rejected[Reject::TooLong as usize] = 99;
    let mut history = History::new(true, 0);
    for second in 0..=60 {
        let sample = Sample {
            at: second * 1_000_000,
            released: second * 20_000,
            deliveries: second * 30_000,
            median: Some(300),
            p99: Some(900),
        };
        history.record(sample.at, sample);
    }
    let config = Config::default();
    let mut snapshot = Snapshot {
        now: 61_000_000,
        counters,
        health: Health::Ok,
        cursor: Cursor::new(1_234_568),
        waiting: 0,
        capacity: 65_536,
        hole: None,
        buffered_bytes: 0,
        users: 250,
        catching_up: 0,
        farthest_behind: 0,
        sources: 1,
        follow_edges: 777,
        slow_users: 0,
        slow: Vec::new(),
        pauses: Vec::new(),
        stream: None,
        door: Default::default(),
        process: None,
        latency: &Default::default(),
        journal: None,
        config: &config,
        history: &history,
        people: Default::default(),
        page: Default::default(),
        warnings: Vec::new(),
    };
    change(&mut snapshot);
    let mut model = Model::new("http://127.0.0.1:9095".to_owned());
    model.take(HISTORY, Ok(history.json().into_bytes()), Instant::now());
    hear(&mut model, json(&snapshot));
    model
}

/// The server says how it is going.
fn hear(model: &mut Model, status: String) {
    model.take("/status.json", Ok(status.into_bytes()), Instant::now());
    assert_eq!(model.failure, None);
}

#[test]
fn it_shows_how_fast_totals_grow() {
    let (said, before) = (std::cell::RefCell::new(String::new()), Instant::now());
    let mut model = model(|snapshot| drop(said.replace(json(snapshot))));
    let calm = screen(&model, before, 160, 40);
    // The two charts have rates.
    assert_eq!(calm.matches("/s").count(), 2, "nothing else is known yet:\n{calm}");
    let later = said
        .into_inner()
        .replace("\"now_us\":61000000", "\"now_us\":63000000")
        .replace("\"late\":41", "\"late\":46")
        .replace("\"too_long\":99", "\"too_long\":10099");
    hear(&mut model, later.clone());
    expect(&screen(&model, before, 160, 40), &["46 2.5/s", "10,099 5,000/s"]);
    assert!(!screen(&model, before, 160, 40).contains("17 "), "nobody is replaced now");
    // It has stopped. Where there is no room, the total alone is shown.
    hear(&mut model, later.replace("63000000", "64000000"));
    assert_eq!(screen(&model, before, 160, 40).matches("/s").count(), 2);
}

#[track_caller]
fn expect(screen: &str, parts: &[&str]) {
    for part in parts {
        assert!(screen.contains(part), "no {part:?} in\n{screen}");
    }
}

#[test]
fn it_shows_who_catches_up() {
    let screen = screen(
        &model(|snapshot| {
            snapshot.catching_up = 1200;
            snapshot.farthest_behind = 1_200_000;
        }),
        Instant::now(),
        110,
        30,
    );
    expect(&screen, &["1,200 catch up", "farthest 1,200,000"]);
}

#[test]
fn it_shows_how_durable_the_journal_is_and_that_the_disk_is_full() {
    let journal = |stall: Option<&str>| JournalNumbers {
        bytes: 5 << 20,
        first_sequence: Cursor::new(1),
        durable_cursor: Cursor::new(1_234_000),
        appended_bytes: 77,
        syncs: 3,
        sync_lag: 400_000,
        recovery: 2_000,
        stalled_for: None,
        stall: stall.map(str::to_owned),
    };
    let fine = model(|snapshot| snapshot.journal = Some(journal(None)));
    expect(&screen(&fine, Instant::now(), 120, 40), &["Durable", "1,234,000", "0.4 s", "Late"]);
    let full = model(|snapshot| snapshot.journal = Some(journal(Some("cannot write \"x\": no space"))));
    expect(
        &screen(&full, Instant::now(), 120, 40),
        &[
            "1,234,000",
            "full disk",
            "The journal cannot be written.",
            "cannot write \"x\": no space. Sources are not read until there is room",
            "What to do: Make room on the disk of journalDirectory",
        ],
    );
}

#[test]
fn it_shows_the_role_of_a_server_that_is_one_of_several() {
    let stream = |leads, lag, away_for| crate::admin::Stream {
        address: "nats://a:1/x".to_owned(),
        away_for,
        lag,
        leads,
        term: Some(7),
        cursor: Cursor::new(5),
    };
    for (stream, wanted) in [
        (stream(Some(true), None, None), "  leader, term 7  up"),
        (stream(Some(false), None, Some(2_000_000)), "  standby, term 7, stream away for 2.0 s"),
        (stream(None, Some(300_000), None), "  edge, term 7, lag 0.3 s"),
    ] {
        let model = model(|snapshot| snapshot.stream = Some(stream.clone()));
        expect(&screen(&model, Instant::now(), 120, 30), &[wanted]);
    }
}

#[test]
fn it_shows_the_numbers() {
    let screen = screen(&model(|_| {}), Instant::now(), 110, 30);
    let parts = [
        "Fortnight http://127.0.0.1:9095 ● healthy  up 1 min 01 s",
        "All is well. Events flow.",
        "Events 34,567/s",
        "Deliveries 200,000/s",
        "1 min 20,243, 5 min 20,239",
        "Delay, 99 % 900 µs",
        "at most 900 µs",
        "q quit  c connections  o options, warnings",
        "1,234,568",
        "Nothing is missing.",
        "0 of 65,536",
        "All keep up.",
        "1,234,567",
        "2,000,000",
        "777",
        "█",
    ];
    expect(&screen, &parts);
    let row = |name: &str, value: &str| {
        screen.lines().any(|line| {
            line.split('│')
                .any(|cell| cell.trim().strip_prefix(name).is_some_and(|rest| rest.trim() == value))
        })
    };
    for (name, value) in [
        ("Late", "41"),
        ("replaced", "17"),
        ("too long", "99"),
        ("Status", "1,234,567"),
        ("Connected", "250"),
    ] {
        assert!(row(name, value), "no {name} {value} in\n{screen}");
    }
}

#[test]
fn it_shows_percentiles_and_who_is_connected() {
    let user = |id, byte_rate, waiting_bytes| UserRow {
        id: Some(UserId::new(id)),
        peer: "192.0.2.1:5".parse().unwrap(),
        age: 61_000_000,
        bytes: 5000,
        byte_rate,
        waiting_bytes,
        behind: None,
        is_slow: waiting_bytes > 0,
    };
    let mut latency = Latency::default();
    latency.delivery.observe(1500, 100);
    let mut model = model(|snapshot| {
        snapshot.people.users = vec![user(7, 10, 5 << 20), user(50, 4096, 0)];
        // It lives as long as the test.
        snapshot.latency = Box::leak(Box::new(latency.clone()));
    });
    let now = Instant::now();
    expect(&screen(&model, now, 110, 30), &["Delivery 1.5 ms 99% 2.0 ms", "c connections"]);
    model.show(Shown::People);
    let place = |screen: &str, id: &str| {
        screen.lines().position(|line| line.split('│').any(|cell| cell.starts_with(id))).unwrap()
    };
    let by_rate = screen(&model, now, 110, 30);
    expect(&by_rate, &["bytes/s ▾", "4.0 KiB", "5.0 MiB", "192.0.2.1:5", "Users: 2 of 250", "1 min 01 s"]);
    assert!(place(&by_rate, "50 ") < place(&by_rate, "7 "), "{by_rate}");
    model.sort_by(Order::of_key('w').unwrap());
    let by_waiting = screen(&model, now, 110, 30);
    expect(&by_waiting, &["waiting ▾", "sort (again: reverse)"]);
    assert!(place(&by_waiting, "7 ") < place(&by_waiting, "50 "), "{by_waiting}");
    // The same key again: the other way round.
    model.sort_by(Order::of_key('w').unwrap());
    let reversed = screen(&model, now, 110, 30);
    expect(&reversed, &["waiting ▴"]);
    assert!(place(&reversed, "50 ") < place(&reversed, "7 "), "{reversed}");
    model.show(Shown::People);
    assert_eq!(model.shown, Shown::Numbers);
    for width in [1, 10, 60, 200] {
        screen(&model, now, width, 12);
    }
}

#[test]
fn it_shows_trouble() {
    let now = Instant::now();
    let hole = model(|snapshot| {
        snapshot.waiting = 60_000;
        snapshot.hole = Some(Hole { waited: 2_500_000, given_up_in: Some(700_000) });
    });
    expect(
        &screen(&hole, now, 110, 30),
        &["Events wait for a missing one.", "2.5 s, 0.7 s left", "60,000 of 65,536"],
    );
    let slow = model(|snapshot| {
        snapshot.slow_users = 3;
        snapshot.slow =
            vec![SlowUser { id: UserId::new(4711), buffered_bytes: 5 << 20, slow_for: 1_200_000 }];
        snapshot.pauses = vec![Pause { reason: "slow_user", sources: 2, paused_for: 1_100_000 }];
    });
    let parts =
        ["Sources are held up by slow users.", "User 4711", "5.0 MiB for 1.2 s", "2 paused: slow users"];
    expect(&screen(&slow, now, 110, 30), &parts);
    let full = model(|snapshot| snapshot.health = Health::RingFull);
    let parts = [
        "The ring is full, and every source waits for a missing event.",
        "Number 1,234,568 is missing; sources have no room for more.",
        "What to do: Have a source send number 1,234,568. With eventTimeoutMs=1000 it is not given up.",
        "● waiting on a full ring",
    ];
    expect(&screen(&full, now, 110, 30), &parts);
    let silent = model(|snapshot| snapshot.health = Health::SourcesSilent);
    expect(
        &screen(&silent, now, 110, 30),
        &[
            "The server cannot do all of its work.",
            "Its health check says: event sources are turned away",
            "raise maxEventSourceClients",
        ],
    );
    let ending = model(|snapshot| snapshot.health = Health::ShuttingDown);
    expect(&screen(&ending, now, 110, 30), &["The server is shutting down."]);
}

#[test]
fn it_says_that_the_server_cannot_be_reached() {
    let mut lost = model(|_| {});
    lost.take("/status.json", Err("Connection refused".to_owned()), Instant::now());
    let later = lost.heard_at.unwrap() + Duration::from_secs(12);
    let parts = [
        "The server cannot be reached: Connection refused.",
        "It is asked again every second. It was heard of 12 s ago.",
        "● no answer",
        "1,234,568",
    ];
    expect(&screen(&lost, later, 110, 30), &parts);
    let mut never = Model::new("http://127.0.0.1:9095".to_owned());
    expect(&screen(&never, later, 110, 30), &["Asking the server."]);
    never.take(HISTORY, Err("Connection refused".to_owned()), later);
    expect(
        &screen(&never, later, 110, 30),
        &["The server cannot be reached: Connection refused.", "It is asked again every second."],
    );
}

#[test]
fn it_fits_any_screen() {
    let model = model(|snapshot| snapshot.cursor = Cursor::END);
    for width in [1, 2, 10, 40, 75, 76, 80, 200] {
        for height in [1, 2, 3, 10, 24, 60] {
            screen(&model, Instant::now(), width, height);
        }
    }
    let parts = ["Events 34,567/s", "Deliveries", "Cursor", "18,446,744,073,709,551,616", "Waiting"];
    expect(&screen(&model, Instant::now(), 40, 24), &parts);
    let parts = ["Cursor", "Event sources", "Rejected lines", "too long", "Delay", "Connected"];
    expect(&screen(&model, Instant::now(), 80, 24), &parts);
}

#[test]
fn what_is_ordinary_is_no_trouble() {
    let waits = |waited, paused_for, reason| {
        model(|snapshot| {
            snapshot.waiting = 7;
            snapshot.hole = Some(Hole { waited, given_up_in: None });
            snapshot.pauses = vec![Pause { reason, sources: 1, paused_for }];
        })
    };
    let what = |model: &Model| Verdict::of(model, Instant::now()).what;
    for reason in ["slow_user", "ring_full", "journal", "stream"] {
        assert_eq!(what(&waits(400_000, 400_000, reason)), "All is well. Events flow.");
        assert_ne!(what(&waits(400_000, 600_000, reason)), "All is well. Events flow.", "{reason}");
    }
    let waiting = waits(600_000, 0, "ring_full");
    assert_eq!(what(&waiting), "Events wait for a missing one.");
    assert_eq!(Verdict::of(&waiting, Instant::now()).colour, Color::Reset);
    let for_long = Verdict::of(&waits(2_100_000, 0, "ring_full"), Instant::now());
    assert_eq!(for_long.colour, Color::Yellow);
    assert!(
        for_long.cause.contains("7 events wait behind it. It is not given up by itself."),
        "{for_long:?}"
    );
    assert!(for_long.remedy.contains("set eventTimeoutMs to 0 or more"), "{for_long:?}");
}

#[test]
fn lines_that_are_rejected_are_trouble_for_some_seconds() {
    let said = std::cell::RefCell::new(String::new());
    let mut model = model(|snapshot| drop(said.replace(json(snapshot))));
    let what = |model: &Model| Verdict::of(model, Instant::now()).what;
    assert_eq!(what(&model), "All is well. Events flow.", "those of before count no more");
    let (said, flows) = (said.into_inner(), "\"S\":1234567");
    let mut later = |second: u64, rejected: u64, late: u64| {
        let status = said
            .replace("\"now_us\":61000000", &format!("\"now_us\":{second}000000"))
            .replace(flows, &format!("\"S\":{}", 1_234_567 + second))
            .replace("\"late\":41", &format!("\"late\":{late}"))
            .replace("\"too_long\":99", &format!("\"too_long\":{rejected}"));
        hear(&mut model, status);
        let verdict = Verdict::of(&model, Instant::now());
        (verdict.what, verdict.cause)
    };
    let (what, cause) = later(62, 102, 41);
    assert_eq!((&*what, &*cause), ("Lines that are no events are rejected.", "Of late: 3 too long."));
    assert_eq!(later(71, 102, 41).0, "Lines that are no events are rejected.");
    assert_eq!(later(73, 102, 41).0, "All is well. Events flow.");
    assert_eq!(later(74, 102, 42).0, "Events come too late and are dropped.");
}

#[test]
fn zeros_are_hidden() {
    let quiet = model(|snapshot| {
        snapshot.counters = Counters::default();
        (snapshot.users, snapshot.sources, snapshot.follow_edges) = (0, 0, 0);
    });
    let screen = screen(&quiet, Instant::now(), 110, 30);
    expect(&screen, &["nobody", "Nothing yet.", "Nobody.", "None.", "No event source is connected."]);
    for zero in ["Late", "Skipped", "Slow", "too long", "replaced", "Follow edges", "in all"] {
        assert!(!screen.contains(zero), "{zero} in\n{screen}");
    }
}

#[test]
fn it_shows_the_options_in_force_and_recent_warnings() {
    let config = Config { max_user_clients: 77, ..Config::default() };
    let warning =
        |text: &str| crate::warning::Warning { at_ms: 1_000, level: log::Level::Warn, text: text.to_owned() };
    let mut model = model(|snapshot| {
        snapshot.config = Box::leak(Box::new(config.clone()));
        snapshot.warnings = vec![warning("the newer"), warning("the older")];
    });
    model.show(Shown::Options);
    let screen = screen(&model, Instant::now(), 110, 40);
    expect(&screen, &["ago warn the newer", "maxUserClients=77", "eventTimeoutMs=1000", "Recent warnings"]);
    let place = |text: &str| screen.find(text).unwrap();
    assert!(place("the newer") < place("the older"), "{screen}");
    assert!(place("maxUserClients=77") < place("eventTimeoutMs"), "{screen}");
}

#[test]
fn rows_are_those_of_whole_words() {
    let wanted =
        [("", 10, 0), ("a", 10, 1), ("0123456789", 10, 1), ("01234 6789", 10, 1), ("01234 67890", 10, 2)];
    for (text, width, count) in wanted {
        assert_eq!(rows(text, width), count, "{text:?}");
    }
    assert_eq!(rows("0123456789a b", 10), 3);
}
