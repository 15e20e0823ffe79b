//! Every option by flag and by variable, precedence, and every kind of refusal.

use std::{collections::HashMap, ffi::OsStr, ffi::OsString, net::IpAddr, os::unix::ffi::OsStrExt};

use super::{serve::kebab_case, *};
use crate::{
    config::{ServerRole, SlowUserPolicy},
    engine::InstructionSet,
    journal::SyncMode,
    options::OPTIONS,
    server::net::Port,
};

/// The outcome of `fortnight <args>` in an environment of `variables` only.
fn run(args: &[&str], variables: &[(&str, &str)]) -> Result<Invocation, Exit> {
    let variables: HashMap<&str, OsString> =
        variables.iter().map(|&(name, value)| (name, OsString::from(value))).collect();
    let args = ["fortnight"].iter().chain(args).map(OsString::from);
    parse(args, |name| variables.get(name).cloned())
}

fn config(args: &[&str], variables: &[(&str, &str)]) -> Config {
    match run(args, variables) {
        Ok(Invocation::Serve(config)) => *config,
        other => panic!("{args:?} is no start of the server: {other:?}"),
    }
}

/// The sentence that `fortnight <args>` is refused with, after checking that it is one line of status 2.
fn refusal(args: &[&str], variables: &[(&str, &str)]) -> String {
    let exit = run(args, variables).expect_err("refused");
    // Container engines reserve 2 for themselves.
    assert_eq!(exit.status, if args.first() == Some(&"health") { 1 } else { 2 });
    let sentence = exit.text.strip_prefix("fortnight: ").and_then(|text| text.strip_suffix('\n'));
    let sentence = sentence.expect("the program's name, and a line end");
    assert!(!sentence.contains(['\n', '\r', '\u{1b}']), "{sentence}");
    sentence.to_owned()
}

fn changed(change: impl Fn(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

/// A value other than the default for each option, and the configuration that it makes.
fn examples() -> Vec<(&'static str, &'static str, Config)> {
    let any = IpAddr::from([0, 0, 0, 0]);
    vec![
        ("eventSourceServerPort", "1234", changed(|c| c.event_source_server_port = 1234)),
        ("userServerPort", "0", changed(|c| c.user_server_port = 0)),
        ("eventSourceBindAddress", "0.0.0.0", changed(|c| c.event_source_bind_address = any)),
        ("userBindAddress", "::1", changed(|c| c.user_bind_address = "::1".parse().unwrap())),
        ("maxEventSourceClients", "10000", changed(|c| c.max_event_source_clients = 10_000)),
        ("maxUserClients", "1000000", changed(|c| c.max_user_clients = 1_000_000)),
        ("eventTimeoutMs", "-1", changed(|c| c.event_timeout_ms = -1)),
        ("firstSequence", "18446744073709551615", changed(|c| c.first_sequence = u64::MAX)),
        ("maxSequenceJump", "1000000000", changed(|c| c.max_sequence_jump = Some(1_000_000_000))),
        ("reorderCapacity", "1000", changed(|c| c.reorder_capacity = 1024)),
        ("resetOnSourceEof", "true", changed(|c| c.reset_on_source_eof = true)),
        ("maxEventBytes", "4", changed(|c| c.max_event_bytes = 4)),
        ("loginTimeoutMs", "1", changed(|c| c.login_timeout_ms = 1)),
        ("userBufferBytes", "4294967296", changed(|c| c.user_buffer_bytes = 1 << 32)),
        ("slowUserPolicy", "Disconnect", changed(|c| c.slow_user_policy = SlowUserPolicy::Disconnect)),
        ("slowUserTimeoutMs", "0", changed(|c| c.slow_user_timeout_ms = 0)),
        ("userMarkMs", "0", changed(|c| c.user_mark_ms = 0)),
        ("role", "edge", changed(|c| c.role = ServerRole::Edge)),
        ("stream", "tcp://a:1", changed(|c| c.stream = Some("tcp://a:1".parse().unwrap()))),
        ("streamPort", "9097", changed(|c| c.stream_port = Some(9097))),
        ("streamBindAddress", "::1", changed(|c| c.stream_bind_address = "::1".parse().unwrap())),
        ("maxStreamClients", "17", changed(|c| c.max_stream_clients = 17)),
        ("streamReplicas", "1", changed(|c| c.stream_replicas = 1)),
        ("streamRetentionBytes", "1048576", changed(|c| c.stream_retention_bytes = 1 << 20)),
        ("streamCredentials", "file", changed(|c| c.stream_credentials = Some("file".into()))),
        ("streamCa", "a.pem", changed(|c| c.stream_ca = Some("a.pem".into()))),
        ("streamCertificate", "a.pem", changed(|c| c.stream_certificate = Some("a.pem".into()))),
        ("streamKey", "a.pem", changed(|c| c.stream_key = Some("a.pem".into()))),
        ("streamTakeoverMs", "3000", changed(|c| c.stream_takeover_ms = 3000)),
        ("shutdownTimeoutMs", "1000000000000", changed(|c| c.shutdown_timeout_ms = 1_000_000_000_000)),
        ("restartGraceMs", "0", changed(|c| c.restart_grace_ms = 0)),
        ("adminPort", "9095", changed(|c| c.admin_port = Some(9095))),
        ("adminBindAddress", "::", changed(|c| c.admin_bind_address = "::".parse().unwrap())),
        ("tlsCertificate", "a.pem", changed(|c| c.tls_certificate = Some("a.pem".into()))),
        ("tlsKey", "a.pem", changed(|c| c.tls_key = Some("a.pem".into()))),
        ("tlsPorts", "stream, USERS", changed(|c| c.tls_ports = vec![Port::Stream, Port::User])),
        ("sourceClientCa", "a.pem", changed(|c| c.source_client_ca = Some("a.pem".into()))),
        ("adminClientCa", "a.pem", changed(|c| c.admin_client_ca = Some("a.pem".into()))),
        ("streamClientCa", "a.pem", changed(|c| c.stream_client_ca = Some("a.pem".into()))),
        ("userTokenKey", "keys.pem", changed(|c| c.user_token_key = Some("keys.pem".into()))),
        ("userTokenAudience", "fortnight", changed(|c| c.user_token_audience = Some("fortnight".into()))),
        ("proxyProtocolFrom", "::1", changed(|c| c.proxy_protocol_from = vec!["::1".parse().unwrap()])),
        ("adminHosts", "a.example, b", changed(|c| c.admin_hosts = vec!["a.example".into(), "b".into()])),
        ("logLevel", "TRACE", changed(|c| c.log_level = log::LevelFilter::Trace)),
        ("logIntervalMs", "0", changed(|c| c.log_interval_ms = 0)),
        ("busyPoll", "TRUE", changed(|c| c.busy_poll = true)),
        (
            "journalDirectory",
            "journal",
            changed(|c| {
                c.journal_directory = Some("journal".into());
                c.max_sequence_jump = Some(1_000_000_000);
                c.slow_user_policy = SlowUserPolicy::Journal;
                c.slow_user_timeout_ms = 120_000;
            }),
        ),
        ("journalSync", "Always", changed(|c| c.journal_sync = SyncMode::Always)),
        ("journalSyncIntervalMs", "5", changed(|c| c.journal_sync_interval_ms = 5)),
        ("journalSegmentBytes", "4096", changed(|c| c.journal_segment_bytes = 4096)),
        ("journalRetentionBytes", "8192", changed(|c| c.journal_retention_bytes = 8192)),
        ("journalRetentionMs", "7", changed(|c| c.journal_retention_ms = Some(7))),
        ("recordTrace", "run.trace", changed(|c| c.record_trace = Some("run.trace".into()))),
    ]
}

/// These are accepted only together with others.
const NOT_ALONE: [&str; 10] = [
    "role",
    "stream",
    "tlsCertificate",
    "tlsKey",
    "sourceClientCa",
    "adminClientCa",
    "streamClientCa",
    "streamCa",
    "streamCertificate",
    "streamKey",
];

#[test]
fn tls_needs_a_certificate_and_its_key() {
    let both =
        ["--tls-certificate=a.pem", "--tls-key=b.pem", "--tls-ports=sources", "--source-client-ca=c.pem"];
    let config = config(&both, &[]);
    assert!(config.speaks_tls(Port::Source) && !config.speaks_tls(Port::User));
    assert_eq!(config.source_client_ca, Some("c.pem".into()));
    assert!(refusal(&both[..1], &[]).starts_with("tlsCertificate: there is no key for it"));
    assert!(refusal(&both[1..2], &[]).starts_with("tlsKey: there is no certificate for it"));
    for (flag, option) in [
        ("--source-client-ca=a", "sourceClientCa"),
        ("--admin-client-ca=a", "adminClientCa"),
        ("--stream-client-ca=a", "streamClientCa"),
    ] {
        let with_users_only = ["--tls-certificate=a.pem", "--tls-key=b.pem", flag];
        assert!(
            refusal(&with_users_only, &[]).starts_with(&format!("{option}: that port does not speak TLS"))
        );
        assert!(refusal(&[flag], &[]).starts_with(&format!("{option}: that port does not speak TLS")));
    }
    let in_clear = [("userTokenKey", "k"), ("userBindAddress", "0.0.0.0")];
    assert!(refusal(&[], &in_clear).starts_with("userTokenKey: tokens would go over the network in clear"));
    assert!(run(&both[..2], &in_clear).is_ok());
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(config(&[], &[]), Config::default());
}

#[test]
fn every_option_by_variable_by_flag_and_by_flag_with_equals_sign() {
    let examples = examples();
    let tried: Vec<&str> = examples.iter().map(|example| example.0).collect();
    let defined: Vec<&str> = OPTIONS.iter().map(|option| option.variable).collect();
    assert_eq!(tried, defined, "each option has its example");
    let alone = examples.into_iter().filter(|example| !NOT_ALONE.contains(&example.0));
    for (variable, value, expected) in alone {
        let flag = format!("--{}", kebab_case(variable));
        assert_ne!(expected, Config::default(), "{variable}");
        assert_eq!(config(&[], &[(variable, value)]), expected, "{variable}");
        assert_eq!(config(&[&flag, value], &[]), expected, "{flag}");
        assert_eq!(config(&[&format!("{flag}={value}")], &[]), expected, "{flag}=");
    }
}

#[test]
fn an_edge_and_its_stream_come_together() {
    let edge = config(&["--role=edge"], &[("stream", "tcp://a:1")]);
    assert_eq!(edge.role, ServerRole::Edge);
    assert_eq!(edge.stream.map(|stream| stream.to_string()).as_deref(), Some("tcp://a:1"));
    for (args, subject) in [
        (&["--role", "edge"][..], "stream: "),
        (&["--stream=tcp://a:1"], "stream: "),
        (&["--role=sequencer"], "stream: "),
        (&["--role=sequencer", "--stream=tcp://a:1"], "stream: "),
        (&["--role=edge", "--stream=nats://a:1/b", "--stream-credentials=/no/such"], "streamCredentials: "),
        (&["--stream-port=0", "--reset-on-source-eof"], "resetOnSourceEof: "),
        (&["--role=edge", "--stream=tcp://a:1", "--record-trace=x"], "recordTrace: "),
    ] {
        assert!(refusal(args, &[]).starts_with(subject), "{args:?}");
    }
}

#[test]
fn a_stream_over_tls_needs_an_authority() {
    let all = [
        "--role=edge",
        "--stream=tls://a:1",
        "--stream-ca=c.pem",
        "--stream-certificate=a.pem",
        "--stream-key=b.pem",
    ];
    let edge = config(&all, &[]);
    assert_eq!(edge.stream.map(|stream| stream.to_string()).as_deref(), Some("tls://a:1"));
    assert_eq!((edge.stream_ca, edge.stream_key), (Some("c.pem".into()), Some("b.pem".into())));
    config(&["--role=edge", "--stream=nats://a:1/b", "--stream-ca=c.pem"], &[]);
    for (args, subject) in [
        (&all[..2], "stream: "),
        (&["--role=edge", "--stream=tcp://a:1", "--stream-ca=c.pem"], "streamCa: "),
        (&["--stream-ca=c.pem"], "streamCa: "),
        (&all[..4], "streamCertificate: "),
        (
            &["--role=edge", "--stream=nats://a:1/b", "--stream-certificate=a", "--stream-key=b"],
            "streamCertificate: ",
        ),
        (&["--role=edge", "--stream=tls://a:1", "--stream-ca=c.pem", "--stream-key=b"], "streamKey: "),
    ] {
        assert!(refusal(args, &[]).starts_with(subject), "{args:?}");
    }
}

#[test]
fn names_are_those_of_the_specification() {
    assert_eq!(kebab_case("eventTimeoutMs"), "event-timeout-ms");
    assert_eq!(kebab_case("resetOnSourceEof"), "reset-on-source-eof");
    command().debug_assert();
}

#[test]
fn a_flag_beats_the_variable_and_the_last_flag_counts() {
    let variables = [("eventTimeoutMs", "7"), ("userServerPort", "7")];
    let both = config(&["--event-timeout-ms", "8"], &variables);
    assert_eq!((both.event_timeout_ms, both.user_server_port), (8, 7));
    assert_eq!(config(&["--event-timeout-ms=8", "--event-timeout-ms=-9"], &[]).event_timeout_ms, -9);
    assert_eq!(
        config(&["--log-level", "warn"], &[("logLevel", "loud")]).log_level,
        log::LevelFilter::Warn,
        "a variable that is not used is not read"
    );
}

#[test]
fn an_empty_variable_is_unset_and_an_empty_flag_refused() {
    for option in OPTIONS {
        assert_eq!(config(&[], &[(option.variable, "")]), Config::default(), "{}", option.variable);
        let flag = format!("--{}", kebab_case(option.variable));
        assert_eq!(
            refusal(&[&format!("{flag}=")], &[]),
            format!("{flag}: \"\" is not accepted; expected {}", option.field.expected())
        );
    }
}

#[test]
fn how_much_of_the_processor_is_used_is_a_variable() {
    for set in InstructionSet::ALL {
        assert_eq!(config(&[], &[("FORTNIGHT_CPU", set.name())]).instruction_set, set);
    }
    let sentence = refusal(&[], &[("FORTNIGHT_CPU", "sse2")]);
    assert_eq!(sentence, "FORTNIGHT_CPU: \"sse2\" is not accepted; expected one of portable, avx2, avx512");
}

#[test]
fn a_switch_alone_is_true() {
    for args in [["--busy-poll", "--log-level=warn"], ["--log-level=warn", "--busy-poll"]] {
        assert!(config(&args, &[]).busy_poll);
    }
    assert!(!config(&["--busy-poll=false"], &[("busyPoll", "true")]).busy_poll);
    assert!(!config(&["--busy-poll", "false"], &[("busyPoll", "true")]).busy_poll);
    assert!(config(&["--reset-on-source-eof"], &[("resetOnSourceEof", "false")]).reset_on_source_eof);
}

#[test]
fn a_ring_is_rounded_up_to_a_power_of_two() {
    for (written, slots) in [("1", 1), ("3", 4), ("65536", 65_536), ("65537", 131_072), ("67108864", 1 << 26)]
    {
        assert_eq!(config(&["--reorder-capacity", written], &[]).reorder_capacity, slots);
    }
}

#[test]
fn addresses() {
    assert_eq!(config(&["--user-bind-address", "localhost"], &[]).user_bind_address.to_string(), "127.0.0.1");
    assert_eq!(config(&["--admin-port", "off"], &[("adminPort", "9095")]).admin_port, None);
    assert_eq!(config(&["--admin-port", "0"], &[]).admin_port, Some(0));
}

#[test]
fn a_bad_value_names_option_value_and_what_is_accepted() {
    assert_eq!(
        refusal(&[], &[("eventTimeoutMs", "abc")]),
        "eventTimeoutMs: \"abc\" is not accepted; \
         expected a whole number of milliseconds from -1000000000000 to 1000000000000"
    );
    assert_eq!(
        refusal(&["--event-timeout-ms", "abc"], &[("eventTimeoutMs", "1")]),
        "--event-timeout-ms: \"abc\" is not accepted; \
         expected a whole number of milliseconds from -1000000000000 to 1000000000000"
    );
    assert_eq!(
        refusal(&["--slow-user-policy=drop"], &[]),
        "--slow-user-policy: \"drop\" is not accepted; expected wait or disconnect or journal"
    );
    assert_eq!(
        refusal(&[], &[("logLevel", "loud")]),
        "logLevel: \"loud\" is not accepted; expected one of off, error, warn, info, debug, trace"
    );
    assert_eq!(
        refusal(&[], &[("adminPort", "65536")]),
        "adminPort: \"65536\" is not accepted; expected a port from 0 to 65535, or off"
    );
    assert_eq!(
        refusal(&["--first-sequence", "18446744073709551616"], &[]),
        "--first-sequence: \"18446744073709551616\" is not accepted; \
         expected a whole number from 0 to 18446744073709551615"
    );
}

#[test]
fn every_bad_value_is_refused_by_flag_and_by_variable() {
    let beyond_time = "1000000000001";
    let bad: [(&str, &[&str]); 30] = [
        ("eventSourceServerPort", &["-1", "65536", "off", "9090x", " 9090", "http"]),
        ("userServerPort", &["-1", "65536", "0x10", "1.5"]),
        ("eventSourceBindAddress", &["example.org", "127.0.0.1:9090", "127.0.0", "[::1]"]),
        ("userBindAddress", &["*", "256.0.0.1", "::1%lo"]),
        ("maxEventSourceClients", &["0", "-1", "10001", "many"]),
        ("maxUserClients", &["0", "-1", "1000001", "4294967297"]),
        (
            "eventTimeoutMs",
            &["1.5", "1s", beyond_time, "-1000000000001", "99999999999999999999999999999999999999999"],
        ),
        ("firstSequence", &["-1", "18446744073709551616", "first"]),
        ("maxSequenceJump", &["-1", "18446744073709551616", "off"]),
        ("reorderCapacity", &["0", "-1", "67108865", "18446744073709551615", "64k"]),
        ("resetOnSourceEof", &["1", "0", "yes", "on", "truee"]),
        ("maxEventBytes", &["0", "3", "1048577", "-4"]),
        ("loginTimeoutMs", &["0", "-1", beyond_time]),
        ("userBufferBytes", &["0", "-1", "4294967297", "4M"]),
        ("slowUserPolicy", &["drop", "wait "]),
        ("slowUserTimeoutMs", &["-1", beyond_time, "18446744073709551616"]),
        ("shutdownTimeoutMs", &["-1", beyond_time]),
        ("restartGraceMs", &["-1", beyond_time]),
        ("adminPort", &["-1", "65536", "on", "none"]),
        ("adminBindAddress", &["admin", "127.0.0.1/8"]),
        ("tlsPorts", &["user", "users,", "9099", "all"]),
        ("proxyProtocolFrom", &["10.0.0.0/33", "any", "10.0.0.1:80", "10.0.0.1,"]),
        ("adminHosts", &["a,", ",", "a b", "a:80", "[::1]", "*.example"]),
        ("role", &["leader", "sequencers"]),
        ("streamReplicas", &["0", "6"]),
        ("streamRetentionBytes", &["1048575", "10G"]),
        ("streamTakeoverMs", &["2999", beyond_time]),
        ("logLevel", &["loud", "2", "information"]),
        ("logIntervalMs", &["-1", beyond_time, "never"]),
        ("busyPoll", &["2", "maybe"]),
    ];
    for (variable, values) in bad {
        for value in values {
            let flag = format!("--{}", kebab_case(variable));
            let option = OPTIONS.iter().find(|option| option.variable == variable).expect("an option");
            let rest = format!(": {value:?} is not accepted; expected {}", option.field.expected());
            assert_eq!(refusal(&[], &[(variable, value)]), format!("{variable}{rest}"));
            assert_eq!(refusal(&[&flag, value], &[]), format!("{flag}{rest}"));
            assert_eq!(refusal(&[&format!("{flag}={value}")], &[]), format!("{flag}{rest}"));
        }
    }
}

#[test]
fn a_long_or_strange_value_stays_one_short_line() {
    let sentence = refusal(&[], &[("logLevel", &"x".repeat(10_000))]);
    assert!(sentence.len() < 250 && sentence.contains("xxx…\" is not accepted"), "{sentence}");
    let sentence = refusal(&[], &[("logLevel", "a\nb\u{1b}[31m\"é")]);
    assert!(sentence.starts_with(r#"logLevel: "a\nb\u{1b}[31m\"é" is not accepted"#), "{sentence}");
}

#[test]
fn values_that_are_not_utf8_are_refused_or_taken_as_a_file_name() {
    let bytes = OsStr::from_bytes(b"\xff\xfe");
    for option in OPTIONS.iter().filter(|option| !NOT_ALONE.contains(&option.variable)) {
        let flag = OsString::from(format!("--{}", kebab_case(option.variable)));
        let by_flag = parse([OsString::from("fortnight"), flag, bytes.to_owned()], |_| None);
        let by_variable =
            parse([OsString::from("fortnight")], |name| (name == option.variable).then(|| bytes.to_owned()));
        for outcome in [by_flag, by_variable] {
            match outcome {
                Ok(Invocation::Serve(config)) => {
                    let Config {
                        record_trace, journal_directory, user_token_key, stream_credentials, ..
                    } = *config;
                    let path = record_trace.or(journal_directory).or(user_token_key).or(stream_credentials);
                    assert_eq!(path, Some(bytes.into()), "{}", option.variable);
                }
                Ok(other) => panic!("{other:?}"),
                Err(exit) => assert!(exit.text.contains(r#": "\xFF\xFE" is not accepted"#), "{}", exit.text),
            }
        }
    }
    let exit = parse([OsString::from("fortnight"), OsStr::from_bytes(b"--\xff").to_owned()], |_| None);
    assert_eq!(exit.expect_err("refused").status, 2);
}

#[test]
fn what_clap_refuses_is_one_sentence_too() {
    assert_eq!(
        refusal(&["--event-timeout-ms"], &[]),
        "--event-timeout-ms: a value is missing; \
         expected a whole number of milliseconds from -1000000000000 to 1000000000000"
    );
    assert_eq!(
        refusal(&["--user-server-port", "--busy-poll"], &[]),
        "--user-server-port: a value is missing; expected a port from 0 to 65535"
    );
    assert_eq!(
        refusal(&["--event-timeout", "5"], &[]),
        "\"--event-timeout\": not known; expected what fortnight --help lists (perhaps --event-timeout-ms)"
    );
    assert_eq!(refusal(&["--zzz"], &[]), "\"--zzz\": not known; expected what fortnight --help lists");
    assert_eq!(refusal(&["serve"], &[]), "\"serve\": not known; expected what fortnight --help lists");
    for stray in ["stray", "hea", "", "a\nb"] {
        assert_eq!(
            refusal(&["--busy-poll=true", stray], &[]),
            format!("{stray:?}: not known; expected what fortnight --help lists"),
            "not taken for a subcommand"
        );
    }
    assert_eq!(refusal(&["-x"], &[]), "\"-x\": not known; expected what fortnight --help lists");
    assert_eq!(refusal(&["--version=3"], &[]), "--version: \"3\" is not accepted; expected no value");
}

#[test]
fn two_listeners_cannot_have_the_same_port() {
    let other = |option: &str| format!("a port that {option} does not use on the same address");
    assert_eq!(
        refusal(&["--user-server-port", "9090"], &[]),
        format!("--user-server-port: \"9090\" is not accepted; expected {}", other("eventSourceServerPort"))
    );
    assert_eq!(
        refusal(&[], &[("eventSourceServerPort", "9099")]),
        format!("eventSourceServerPort: \"9099\" is not accepted; expected {}", other("userServerPort")),
        "the one that was set is named first"
    );
    assert_eq!(
        refusal(&["--admin-port=7"], &[("userServerPort", "7"), ("userBindAddress", "0.0.0.0")]),
        format!("--admin-port: \"7\" is not accepted; expected {}", other("userServerPort")),
        "0.0.0.0 takes the port on every address"
    );
    config(&["--user-server-port=0", "--event-source-server-port=0", "--admin-port=0"], &[]);
    config(&["--user-server-port=9090", "--user-bind-address=127.0.0.2"], &[]);
    config(&["--user-server-port=9090", "--user-bind-address=::1"], &[]);
}

#[test]
fn help_documents_every_option_with_variable_and_default() {
    for flag in ["--help", "-h"] {
        let exit = run(&[flag], &[]).expect_err("ends here");
        assert_eq!(exit.status, 0);
        let text = exit.text.split_whitespace().collect::<Vec<_>>().join(" ");
        for option in OPTIONS {
            let variable = option.variable;
            assert!(text.contains(&format!(" --{} ", kebab_case(variable))), "{variable}");
            assert!(text.contains(&format!("[env: {variable}]")), "{variable}");
            if let Some(default) = option.field.show(&mut Config::default()) {
                assert!(text.contains(&format!("[env: {variable}] [default: {default}]")), "{variable}");
            }
        }
    }
}

#[test]
fn help_can_be_asked_for_as_a_subcommand() {
    let help = |args: &[&str]| run(args, &[]).expect_err("ends here");
    assert_eq!(help(&["help"]), help(&["--help"]));
    for subcommand in ["health", "clients", "journal", "replay", "trace"] {
        let exit = help(&["help", subcommand]);
        assert_eq!((exit.status, &exit), (0, &help(&[subcommand, "--help"])), "{subcommand}");
    }
    assert_eq!(help(&["help", "trace", "cut"]).status, 0);
    assert_eq!(
        refusal(&["help", "nonsense"], &[]),
        "\"nonsense\": not known; expected what fortnight --help lists"
    );
}

#[test]
fn replay_refuses_what_it_cannot_do() {
    let expected = "expected a user's id, its number in the trace, or all";
    for bad in ["", "ALL", "-1", "18446744073709551616"] {
        let user = format!("--show={bad}");
        assert_eq!(
            refusal(&["replay", "a.trace", &user], &[]),
            format!("--show: {bad:?} is not accepted; {expected}")
        );
    }
    assert_eq!(
        refusal(&["replay", "a.trace", "--expect", "a", "--bless", "--show=all"], &[]),
        "--bless: not accepted with --show; expected one of them"
    );
    assert_eq!(
        refusal(&["replay", "a.trace", "--junit="], &[]),
        "--junit: \"\" is not accepted; expected the name of a file"
    );
}

#[test]
fn version_prints_the_version() {
    let exit = run(&["--version"], &[]).expect_err("ends here");
    assert_eq!(
        exit,
        Exit { status: 0, text: concat!("fortnight ", env!("CARGO_PKG_VERSION"), "\n").to_owned() }
    );
}

#[test]
fn health_asks_the_server_that_the_flag_or_the_variables_name() {
    let url = |args: &[&str], variables: &[(&str, &str)]| match run(&[&["health"], args].concat(), variables)
    {
        Ok(Invocation::Health(admin)) => admin.to_string(),
        other => panic!("{args:?} is no check: {other:?}"),
    };
    assert_eq!(url(&["--admin", "127.0.0.2:9095"], &[("adminPort", "7")]), "http://127.0.0.2:9095");
    assert_eq!(url(&["--admin=http://[::1]:9095/"], &[]), "http://[::1]:9095");
    assert_eq!(url(&[], &[("adminPort", "7"), ("adminBindAddress", "0.0.0.0")]), "http://127.0.0.1:7");
    assert_eq!(
        url(&[], &[("adminPort", "7"), ("eventTimeoutMs", "abc")]),
        "http://127.0.0.1:7",
        "not its option"
    );
}

#[test]
fn health_speaks_tls_and_trusts_the_given_authority() {
    let url = |args: &[&str], variables: &[(&str, &str)]| match run(&[&["health"], args].concat(), variables)
    {
        Ok(Invocation::Health(admin)) => admin.to_string(),
        other => panic!("{args:?} is no check: {other:?}"),
    };
    let tls = [("adminPort", "7"), ("tlsCertificate", "a.pem"), ("tlsPorts", "admin")];
    assert_eq!(url(&["--admin=https://a:1", "--tls-ca=ca.pem"], &[]), "https://a:1");
    assert_eq!(url(&["--admin=a:1", "--tls-ca=ca.pem"], &[]), "https://a:1");
    assert_eq!(url(&["--tls-ca", "ca.pem"], &tls), "https://127.0.0.1:7");
    assert_eq!(url(&[], &tls[..2]), "http://127.0.0.1:7", "only the user port speaks TLS");
    let missing = "--tls-ca: a value is missing, and the admin interface speaks TLS; expected a PEM file with an authority";
    assert_eq!(refusal(&["health", "--admin=https://a:1"], &[]), missing);
    assert_eq!(refusal(&["health"], &tls), missing);
    assert_eq!(
        refusal(&["health", "--admin=http://a:1", "--tls-ca=b"], &[]),
        "--admin: \"http://a:1\" is not accepted; expected https://HOST:PORT together with --tls-ca"
    );
}

#[test]
fn health_refuses_a_missing_or_bad_address() {
    let missing =
        "--admin: a value is missing; expected http://HOST:PORT or https://HOST:PORT, or a port in adminPort";
    for port in ["off", "0", ""] {
        assert_eq!(refusal(&["health"], &[("adminPort", port)]), missing);
    }
    assert_eq!(
        refusal(&["health", "--admin", "nowhere"], &[("adminPort", "7")]),
        "--admin: \"nowhere\" is not accepted; expected http://HOST:PORT or https://HOST:PORT"
    );
    assert_eq!(
        refusal(&["health", "--admin"], &[]),
        "--admin: a value is missing; expected http://HOST:PORT or https://HOST:PORT"
    );
    assert_eq!(
        refusal(&["health"], &[("adminPort", "x")]),
        "adminPort: \"x\" is not accepted; expected a port from 0 to 65535, or off"
    );
    assert_eq!(
        refusal(&["--busy-poll=true", "health"], &[]),
        "health: not accepted after options of the server; expected fortnight health"
    );
    assert_eq!(
        refusal(&["health", "--busy-poll"], &[]),
        "\"--busy-poll\": not known; expected what fortnight --help lists"
    );
}
