//! SPEC section 4: options, what they default to, and how bad ones are refused.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use serde_json::Value;
use support::stream::each;
use support::{Finished, Launch, OPTIONS, launch, private_address, server};

/// `eventTimeoutMs` → `--event-timeout-ms`.
fn flag_of(option: &str) -> String {
    let kebab: String = option
        .chars()
        .flat_map(|letter| {
            let dash = letter.is_ascii_uppercase().then_some('-');
            dash.into_iter().chain([letter.to_ascii_lowercase()])
        })
        .collect();
    format!("--{kebab}")
}

/// One sentence on standard error, nothing on standard output, that status, no panic.
#[track_caller]
fn assert_refused(finished: &Finished, status: i32, words: &[&str]) {
    let Finished { status: got, stdout, stderr } = finished;
    assert_eq!(*got, status, "{stderr}");
    assert_eq!(stdout, "");
    assert_eq!(stderr.trim_end().lines().count(), 1, "more than one sentence: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word} is not named: {stderr}");
    }
}

/// Whether an option is named in a sentence, by its variable or its flag.
#[track_caller]
fn assert_names(finished: &Finished, option: &str) {
    let named = finished.stderr.contains(option) || finished.stderr.contains(&flag_of(option));
    assert!(named, "{option} is not named: {}", finished.stderr);
}

/// Tries a bad value as a variable and as a flag.
#[track_caller]
fn assert_bad_value(option: &str, value: &str, accepted: &[&str]) {
    let as_variable = launch!().set(option, value).run();
    let as_flag = launch!().unset(option).flag(format!("{}={value}", flag_of(option))).run();
    for finished in [as_variable, as_flag] {
        assert_refused(&finished, 2, accepted);
        assert_names(&finished, option);
        assert!(finished.stderr.contains(value), "{value} is not named: {}", finished.stderr);
    }
}

#[test]
fn a_bad_number_is_refused_with_one_sentence() {
    let numbers = [
        "maxEventSourceClients",
        "maxUserClients",
        "eventTimeoutMs",
        "firstSequence",
        "maxSequenceJump",
        "reorderCapacity",
        "maxEventBytes",
        "loginTimeoutMs",
        "userBufferBytes",
        "slowUserTimeoutMs",
        "shutdownTimeoutMs",
        "logIntervalMs",
    ];
    for option in numbers {
        for value in ["many", "1.5", "0x10", "1 000", "10s", "99999999999999999999999999"] {
            assert_bad_value(option, value, &[]);
        }
        if option != "eventTimeoutMs" {
            assert_bad_value(option, "-1", &[]);
        }
    }
}

#[test]
fn a_number_that_makes_no_sense_is_refused_with_one_sentence() {
    assert_bad_value("firstSequence", "18446744073709551616", &["18446744073709551615"]);
    assert_bad_value("reorderCapacity", "0", &["1"]);
    assert_bad_value("reorderCapacity", "18446744073709551615", &[]);
    assert_bad_value("reorderCapacity", "9223372036854775807", &[]);
    assert_bad_value("maxEventSourceClients", "0", &["1"]);
    assert_bad_value("maxUserClients", "0", &["1"]);
    assert_bad_value("maxEventBytes", "0", &[]);
}

#[test]
fn a_bad_port_is_refused_with_one_sentence() {
    for option in ["eventSourceServerPort", "userServerPort", "adminPort"] {
        for value in ["65536", "-9090", "http", "90 90", "127.0.0.1:9090"] {
            assert_bad_value(option, value, &["65535"]);
        }
    }
    assert_bad_value("adminPort", "on", &["off"]);
}

#[test]
fn a_bad_address_is_refused_with_one_sentence() {
    for option in ["eventSourceBindAddress", "userBindAddress", "adminBindAddress"] {
        for value in ["everywhere", "127.0.0.256", "127.0.0", "127.0.0.1:9090", "[::1"] {
            assert_bad_value(option, value, &["address"]);
        }
    }
}

#[test]
fn a_bad_choice_is_refused_with_one_sentence() {
    for value in ["drop", "Wait ", "0"] {
        assert_bad_value("slowUserPolicy", value, &["wait", "disconnect"]);
    }
    for value in ["loud", "inf", "6"] {
        assert_bad_value("logLevel", value, &["off", "error", "warn", "info", "debug", "trace"]);
    }
    for option in ["resetOnSourceEof", "busyPoll"] {
        for value in ["maybe", "2", "tru"] {
            assert_bad_value(option, value, &["true", "false"]);
        }
    }
}

#[test]
fn a_bad_command_line_is_refused_with_one_sentence() {
    assert_refused(&launch!().flag("--no-such-option").run(), 2, &["--no-such-option"]);
    assert_refused(&launch!().flag("--no-such-option=5").run(), 2, &["--no-such-option"]);
    assert_refused(&launch!().flag("-z").run(), 2, &["-z"]);
    assert_refused(&launch!().flag("stray").run(), 2, &["stray"]);
    assert_refused(&launch!().flag("--first-sequence").run(), 2, &["--first-sequence"]);
    let not_text = OsString::from_vec(b"--first-sequence=\xff".to_vec());
    let finished = launch!().flag(not_text).run();
    assert_refused(&finished, 2, &[]);
    assert_names(&finished, "firstSequence");
}

#[test]
fn a_port_in_use_ends_the_start_with_status_1_and_one_sentence() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    for option in ["eventSourceServerPort", "userServerPort"] {
        let finished = launch!().set(option, &address.port()).run();
        assert_refused(&finished, 1, &[&address.to_string(), "in use"]);
        assert_names(&finished, option);
    }
}

#[test]
fn one_port_for_both_listeners_is_refused_with_one_sentence() {
    let address = private_address();
    let finished =
        launch!(eventSourceBindAddress = address, userBindAddress = address, eventSourceServerPort = 7777)
            .set("userServerPort", "7777")
            .run();
    assert_refused(&finished, 2, &["7777"]);
    assert_names(&finished, "userServerPort");
    assert_names(&finished, "eventSourceServerPort");
}

#[test]
fn an_address_that_is_not_of_this_machine_ends_the_start_with_status_1() {
    // A network for documentation: no machine has such an address.
    for option in ["eventSourceBindAddress", "userBindAddress"] {
        let finished = launch!().set(option, "192.0.2.1").run();
        assert_refused(&finished, 1, &["192.0.2.1"]);
    }
}

#[test]
fn help_documents_every_option_with_its_variable_and_default() {
    let Finished { status, stdout, stderr } = launch!().flag("--help").run();
    assert_eq!((status, stderr.as_str()), (0, ""));
    // What belongs to an option is the text from its flag to the next one.
    let mut blocks = vec![String::new()];
    for line in stdout.lines() {
        if line.trim_start().starts_with('-') {
            blocks.push(String::new());
        }
        let block = blocks.last_mut().unwrap();
        *block += line;
        block.push('\n');
    }
    for (option, default) in OPTIONS {
        let flag = flag_of(option);
        let of_the_flag = |block: &&String| block.split([' ', '=', '\n', '[', '<']).any(|word| word == flag);
        let block = blocks.iter().find(of_the_flag).unwrap_or_else(|| panic!("no {flag} in:\n{stdout}"));
        assert!(block.contains(option), "no variable {option} in:\n{block}");
        assert!(block.contains(default), "no default {default} in:\n{block}");
    }
    assert!(stdout.contains("--version"), "{stdout}");
}

#[test]
fn version_prints_the_version() {
    let Finished { status, stdout, stderr } = launch!().flag("--version").run();
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert_eq!(stdout, format!("fortnight {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_option_is_a_flag_and_a_variable() {
    let mut with_flags = launch!();
    let mut with_other_flags = launch!();
    let mut with_variables = launch!();
    for (option, default) in OPTIONS {
        let value = if option.ends_with("ServerPort") { "0" } else { default };
        with_flags = with_flags.unset(option).flag(format!("{}={value}", flag_of(option)));
        if !["true", "false"].contains(&default) {
            with_other_flags = with_other_flags.unset(option).flag(flag_of(option)).flag(value);
        }
        with_variables = with_variables.set(option, value);
    }
    for launch in [with_flags, with_other_flags, with_variables] {
        let server = launch.start();
        let mut user = server.user(1);
        server.source().send("1|B\n");
        user.expect("1|B\n");
    }
}

/// Whether the first number is `first`, shown by that event being released and no earlier one.
#[track_caller]
fn assert_first_sequence(launch: Launch, first: u64) {
    let server = launch.set("eventTimeoutMs", "-1").start();
    let mut user = server.user(1);
    let events = each(first.saturating_sub(1)..first + 2, |number| format!("{number}|B\n"));
    server.source().send(events);
    user.expect(format!("{first}|B\n{}|B\n", first + 1));
}

#[test]
fn a_flag_beats_the_variable_and_the_variable_beats_the_default() {
    assert_first_sequence(launch!(), 1);
    assert_first_sequence(launch!(firstSequence = 20), 20);
    assert_first_sequence(launch!().flag("--first-sequence=300"), 300);
    assert_first_sequence(launch!(firstSequence = 20).flag("--first-sequence=300"), 300);
    assert_first_sequence(launch!(firstSequence = 20).flag("--first-sequence").flag("1"), 1);
}

#[test]
fn a_flag_may_take_a_negative_number() {
    for flags in [vec!["--event-timeout-ms=-1"], vec!["--event-timeout-ms", "-1"]] {
        let mut launch = launch!(eventTimeoutMs = 1);
        for flag in flags {
            launch = launch.flag(flag);
        }
        let server = launch.start();
        let mut user = server.user(1);
        let mut source = server.source();
        source.send("2|B\n");
        assert_eq!(user.expect_until_quiet(b"2|B\n", Duration::from_millis(200)), 0);
        source.send("1|B\n");
        user.expect("1|B\n2|B\n");
    }
}

#[test]
fn a_switch_is_on_or_off_as_the_flag_says() {
    let resets = |launch: Launch| {
        let server = launch.set("eventTimeoutMs", "-1").start();
        let mut user = server.user(1);
        let mut source = server.source();
        source.send("1|B\n");
        user.expect("1|B\n");
        source.finish();
        server.source().send("1|P|9|1\n2|B\n");
        user.read_through("2|B\n") == b"1|P|9|1\n2|B\n"
    };
    assert!(!resets(launch!()));
    assert!(resets(launch!(resetOnSourceEof = true)));
    assert!(resets(launch!().flag("--reset-on-source-eof=true")));
    assert!(resets(launch!().flag("--reset-on-source-eof")));
    assert!(!resets(launch!(resetOnSourceEof = true).flag("--reset-on-source-eof=false")));
}

#[test]
fn by_default_the_ports_are_9090_and_9099() {
    let address = private_address();
    let server = launch!(eventSourceBindAddress = address, userBindAddress = address)
        .unset("eventSourceServerPort")
        .unset("userServerPort")
        .start();
    assert_eq!(server.ready, format!("listening source={address}:9090 users={address}:9099 admin=off"));
}

#[test]
fn port_0_picks_a_free_port() {
    let servers: Vec<_> = (0..10).map(|_| server!(eventTimeoutMs = -1)).collect();
    let mut ports: Vec<_> =
        servers.iter().flat_map(|server| [server.sources.port(), server.users.port()]).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 20);
    assert!(!ports.contains(&0));
}

#[test]
fn the_server_prints_one_line_when_it_listens_and_nothing_else_ever() {
    let server = server!(eventTimeoutMs = 0, logLevel = "trace");
    let (sources, users) = (server.sources, server.users);
    assert_eq!(server.ready, format!("listening source={sources} users={users} admin=off"));
    assert!(sources.ip() == Ipv4Addr::LOCALHOST && users.ip() == Ipv4Addr::LOCALHOST);
    // A busy life, with trouble of all kinds; that nothing more is printed is asserted at its end.
    let mut user = server.user(1);
    server.pass();
    let mut source = server.source();
    source.send("1|B\nrubbish\n1|B\n5|B\n");
    user.expect("1|B\n5|B\n");
    server.source().expect_closed();
    source.vanish();
    server.user(1).vanish();
    server.stop();
}

#[test]
fn each_listener_has_a_bind_address_of_its_own() {
    let mut addresses = vec![
        (IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 3])),
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
    ];
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        addresses.push((Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()));
        addresses.push((Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()));
    }
    for (for_sources, for_users) in addresses {
        let server =
            server!(eventTimeoutMs = -1, eventSourceBindAddress = for_sources, userBindAddress = for_users);
        assert_eq!((server.sources.ip(), server.users.ip()), (for_sources, for_users));
        let mut user = server.user(1);
        server.source().send("1|B\n");
        user.expect("1|B\n");
    }
}

#[test]
fn large_times_and_sizes_are_accepted() {
    let server = server!(
        eventTimeoutMs = 2_000_000_000,
        loginTimeoutMs = 2_000_000_000,
        slowUserTimeoutMs = 2_000_000_000,
        shutdownTimeoutMs = 2_000_000_000,
        logIntervalMs = 2_000_000_000,
        userBufferBytes = 2_000_000_000,
        maxUserClients = 1_000_000,
        maxEventSourceClients = 1000,
        maxEventBytes = 1_000_000,
        reorderCapacity = 1_000_000,
    );
    let mut user = server.user(1);
    let mut source = server.source();
    let long = support::stream::long_broadcast(2, 1_000_000);
    source.send(&long);
    source.send("1|B\n");
    user.expect("1|B\n");
    user.expect(long);
    server.stop();
}

#[test]
fn log_level_off_logs_nothing() {
    let server = server!(eventTimeoutMs = 0, logLevel = "off");
    let mut user = server.user(1);
    server.pass();
    server.source().send("rubbish\n5|B\n");
    user.expect("5|B\n");
    assert_eq!(server.stop(), "");
}

#[test]
fn connections_are_logged_at_debug_and_not_at_info() {
    for (level, logged) in [("debug", true), ("info", false)] {
        let server = server!(logLevel = level, eventTimeoutMs = -1);
        server.wait_for_log("started");
        let lines = server.log().lines().count();
        let mut users: Vec<_> = (1..=50).map(|id| server.user(id)).collect();
        server.source().send("1|B\n");
        for user in &mut users {
            user.expect("1|B\n");
        }
        let more = server.stop().lines().count() - lines;
        assert_eq!(more >= 50, logged, "{more} lines at level {level}");
    }
}

#[test]
fn progress_is_logged_while_events_flow() {
    let server = server!(eventTimeoutMs = -1, logIntervalMs = 50);
    let mut user = server.user(1);
    let mut source = server.source();
    for number in 1.. {
        source.send(format!("{number}|B\n"));
        user.expect(format!("{number}|B\n"));
        if server.log().contains("cursor") {
            break;
        }
        assert!(number < 10_000_000, "no progress is logged:\n{}", server.log());
    }
}

#[test]
fn progress_is_never_logged_with_interval_0() {
    let server = server!(eventTimeoutMs = -1, logIntervalMs = 0);
    let mut user = server.user(1);
    let mut source = server.source();
    for number in 1..=20_000 {
        source.send(format!("{number}|B\n"));
        user.expect(format!("{number}|B\n"));
    }
    let log = server.stop();
    assert!(!log.contains("progress"), "{log}");
}

#[test]
fn busy_poll_serves_and_ends_like_the_ordinary_loop() {
    let server = server!(busyPoll = true, eventTimeoutMs = 100);
    let mut users: Vec<_> = (1..=100).map(|id| server.user(id)).collect();
    let mut source = server.source();
    for first in (2..300).step_by(3) {
        // Little pieces, and sometimes a hole that is given up.
        source.send(format!("{}|B\n{first}|B\n", first + 1));
    }
    let all = (2..300).step_by(3).map(|first| format!("{first}|B\n{}|B\n", first + 1)).collect::<String>();
    for user in &mut users {
        user.expect(&all);
    }
    source.finish();
    server.stop();
}

#[test]
fn the_log_begins_with_the_options_that_are_not_defaults() {
    if support::only_in_clear("it compares all options that are set") {
        return;
    }
    let server = launch!(eventTimeoutMs = 700, adminPort = 0)
        .flag("--first-sequence=7")
        .set("maxUserClients", "1000")
        .set("EVENT_TIMEOUT_MS", "5")
        .set("userBufferByte", "5")
        .start();
    server.wait_for_log("option=userBufferBytes");
    server.wait_for_log("option=eventTimeoutMs");
    let log = server.log();
    let first = log.lines().next().unwrap();
    assert!(
        first.contains(" level=info msg=\"started; every option that is not named here has its default\" "),
        "{log}"
    );
    let pairs: Vec<&str> = first.split("default\" ").nth(1).unwrap().split(' ').collect();
    let version = format!("version={}", env!("CARGO_PKG_VERSION"));
    let wanted = [
        &version,
        "eventSourceServerPort=0",
        "userServerPort=0",
        "firstSequence=7",
        "eventTimeoutMs=700",
        "adminPort=0",
    ];
    assert_eq!(BTreeSet::from_iter(pairs), BTreeSet::from_iter(wanted), "{first}");
    for pair in
        ["variable=EVENT_TIMEOUT_MS option=eventTimeoutMs", "variable=userBufferByte option=userBufferBytes"]
    {
        let warned = |line: &&str| line.contains(" level=warn ") && line.ends_with(pair);
        assert_eq!(log.lines().filter(warned).count(), 1, "{pair} in {log}");
    }
    // With their values, those of the others too.
    let status: Value = serde_json::from_str(&server.get("/status.json").body).unwrap();
    let options = status["options"].as_object().unwrap();
    for (name, default) in OPTIONS {
        let set = wanted.iter().find_map(|pair| pair.strip_prefix(&format!("{name}=")));
        assert_eq!(options[name], set.unwrap_or(default), "{name}");
    }
    assert_eq!(options["recordTrace"], Value::Null);
}
