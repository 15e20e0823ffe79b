//! The options of the server as flags and variables, and how both become a [`Config`].

use std::{
    ffi::{OsStr, OsString},
    net::IpAddr,
};

use clap::{Arg, ArgAction, ArgMatches, ValueHint, parser::ValueSource};

use super::{
    exit::{Exit, refuse},
    value::AnyValue,
};
use crate::{
    config::{Config, ServerRole, SlowUserPolicy},
    nats::connection::Credentials,
    options::{Definition, OPTIONS},
    server::net::Port,
    stream::address::StreamAddress,
};

/// The flag of each option.
pub(super) fn arguments() -> impl Iterator<Item = Arg> {
    OPTIONS.iter().map(argument)
}

fn argument(option: &Definition) -> Arg {
    let hint = if option.field.is_file() { ValueHint::FilePath } else { ValueHint::Other };
    let argument = Arg::new(option.variable)
        .long(kebab_case(option.variable))
        .env(option.variable)
        .hide_env_values(true)
        .help(option.help)
        .help_heading(option.heading)
        .value_name(option.field.value_name())
        .value_parser(AnyValue { choices: option.field.choices() })
        .value_hint(hint)
        .action(ArgAction::Set)
        .allow_negative_numbers(true);
    let argument = match option.field.show(&mut Config::default()) {
        Some(default) => argument.default_value(default),
        None => argument,
    };
    if option.field.is_switch() { argument.num_args(0..=1).default_missing_value("true") } else { argument }
}

/// `eventTimeoutMs` becomes `event-timeout-ms`.
pub(super) fn kebab_case(variable: &str) -> String {
    let mut kebab = String::with_capacity(variable.len() + 4);
    for character in variable.chars() {
        if character.is_ascii_uppercase() {
            kebab.push('-');
        }
        kebab.push(character.to_ascii_lowercase());
    }
    kebab
}

/// The accepted values of an option's flag. `None`: there is no such option.
pub(super) fn expected(flag: &str) -> Option<String> {
    let flag = flag.strip_prefix("--")?;
    let option = OPTIONS.iter().find(|option| flag == kebab_case(option.variable))?;
    Some(option.field.expected())
}

/// The variable that says how much of the processor may be used at most. It is for measuring and testing, so it is no option.
const PROCESSOR: &str = "FORTNIGHT_CPU";

/// The configuration that the flags and the variables make.
pub(super) fn resolve(
    matches: &ArgMatches,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Config, Exit> {
    let mut config = Config::default();
    for option in OPTIONS {
        let (origin, value) = lookup(option.variable, matches, &variable);
        if let Some(value) = value {
            read(option, &origin, &value, &mut config)?;
        }
    }
    if let Some(value) = variable(PROCESSOR).filter(|value| !value.is_empty()) {
        let set = value.to_str().and_then(|name| name.parse().ok());
        config.instruction_set =
            set.ok_or_else(|| refuse(PROCESSOR, &value, "one of portable, avx2, avx512"))?;
    }
    let origin = |option: &str| lookup(option, matches, &variable).0;
    check_ports(&config, origin)?;
    check_role(&mut config, origin)?;
    check_journal(&mut config, origin)?;
    check_access(&config)?;
    Ok(config)
}

/// Sets one option, if its variable has a value.
pub(super) fn read_variable(
    name: &str,
    variable: impl Fn(&str) -> Option<OsString>,
    config: &mut Config,
) -> Result<(), Exit> {
    let option = OPTIONS.iter().find(|option| option.variable == name);
    match (option, variable(name).filter(|value| !value.is_empty())) {
        (Some(option), Some(value)) => read(option, &Origin::Variable, &value, config),
        _ => Ok(()),
    }
}

fn read(option: &Definition, origin: &Origin, value: &OsStr, config: &mut Config) -> Result<(), Exit> {
    let refused = || refuse(&name(option.variable, origin), value, &option.field.expected());
    option.field.read(config, value).ok_or_else(refused)
}

/// The origin of a value: this is how a refusal names the option.
enum Origin {
    Flag,
    Variable,
    Default,
}

fn lookup(
    option: &str,
    matches: &ArgMatches,
    variable: impl Fn(&str) -> Option<OsString>,
) -> (Origin, Option<OsString>) {
    if matches.value_source(option) == Some(ValueSource::CommandLine) {
        return (Origin::Flag, matches.get_one::<OsString>(option).cloned());
    }
    match variable(option) {
        Some(value) if !value.is_empty() => (Origin::Variable, Some(value)),
        _ => (Origin::Default, None),
    }
}

fn name(option: &str, origin: &Origin) -> String {
    match origin {
        Origin::Flag => format!("--{}", kebab_case(option)),
        Origin::Variable | Origin::Default => option.to_owned(),
    }
}

/// Largest jump of a number with a journal, where none is given (docs/SPEC.md section 2).
const JOURNAL_JUMP: u64 = 1_000_000_000;

/// How long the socket of a user may take nothing that is served from the journal, where no time is given (docs/SPEC.md section 4).
const JOURNAL_SLOW_MS: u64 = 120_000;

/// The effect of a journal on other options.
fn check_journal(config: &mut Config, origin: impl Fn(&str) -> Origin) -> Result<(), Exit> {
    if config.journal_directory.is_none() {
        return if config.slow_user_policy == SlowUserPolicy::Journal {
            let expected = "wait or disconnect, or journal together with journalDirectory";
            Err(refuse(&name("slowUserPolicy", &origin("slowUserPolicy")), OsStr::new("journal"), expected))
        } else {
            Ok(())
        };
    }
    if config.role == ServerRole::Sequencer {
        return Err(Exit::refused(
            "journalDirectory: a sequencer keeps everything in its stream; leave it out where role is sequencer",
        ));
    }
    if config.reset_on_source_eof {
        let (reset, journal) = ("resetOnSourceEof", "journalDirectory");
        return Err(refuse(
            &name(reset, &origin(reset)),
            OsStr::new("true"),
            &format!("false, because {} is set: a journal holds one run", name(journal, &origin(journal))),
        ));
    }
    if matches!(origin("maxSequenceJump"), Origin::Default) {
        config.max_sequence_jump = Some(JOURNAL_JUMP);
    }
    if matches!(origin("slowUserPolicy"), Origin::Default) {
        config.slow_user_policy = SlowUserPolicy::Journal;
    }
    if config.slow_user_policy == SlowUserPolicy::Journal
        && matches!(origin("slowUserTimeoutMs"), Origin::Default)
    {
        config.slow_user_timeout_ms = JOURNAL_SLOW_MS;
    }
    Ok(())
}

/// Two listeners cannot share a port: that is known here, and said better than by a failed bind.
fn check_ports(config: &Config, origin: impl Fn(&str) -> Origin) -> Result<(), Exit> {
    // An edge has no event sources.
    let source_port = (config.role != ServerRole::Edge).then_some(config.event_source_server_port);
    // And a sequencer no users.
    let user_port = (config.role != ServerRole::Sequencer).then_some(config.user_server_port);
    let listeners = [
        ("eventSourceServerPort", source_port, config.event_source_bind_address),
        ("userServerPort", user_port, config.user_bind_address),
        ("adminPort", config.admin_port, config.admin_bind_address),
        ("streamPort", config.stream_port, config.stream_bind_address),
    ];
    for (index, (second, port, address)) in listeners.iter().enumerate() {
        let Some(port) = port.filter(|&port| port != 0) else { continue };
        for (first, other_port, other_address) in &listeners[..index] {
            if *other_port != Some(port) || !overlap(*address, *other_address) {
                continue;
            }
            let (blamed, other) = match origin(second) {
                Origin::Default => (first, second),
                _ => (second, first),
            };
            return Err(refuse(
                &name(blamed, &origin(blamed)),
                OsStr::new(&port.to_string()),
                &format!("a port that {} does not use on the same address", name(other, &origin(other))),
            ));
        }
    }
    Ok(())
}

/// Longest event line of a sequencer: a block of them must fit a message of NATS.
const NATS_EVENT_BYTES_MAX: usize = 512 << 10;

/// The role of a server decides which options it needs, and which it refuses (`docs/SPEC.md` section 11).
fn check_role(config: &mut Config, origin: impl Fn(&str) -> Origin) -> Result<(), Exit> {
    let is_sequencer = config.role == ServerRole::Sequencer;
    let is_nats = matches!(config.stream, Some(StreamAddress::Nats { .. }));
    let has_role = config.role != ServerRole::Standalone;
    let sentence = if config.role == ServerRole::Edge && config.stream.is_none() {
        "stream: an edge needs to know where its stream is; expected tcp://HOST:PORT, tls://HOST:PORT or nats://HOST:PORT[,HOST:PORT…]/NAME"
    } else if is_sequencer && !is_nats {
        "stream: a sequencer needs a replicated log to publish to; expected nats://HOST:PORT[,HOST:PORT…]/NAME"
    } else if !has_role && config.stream.is_some() {
        "stream: a standalone server has no other stream than its own; expected with role=sequencer or role=edge"
    } else if config.reset_on_source_eof && (has_role || config.stream_port.is_some()) {
        "resetOnSourceEof: a stream has no new runs; expected false together with role or streamPort"
    } else if has_role && config.record_trace.is_some() {
        "recordTrace: what this role does depends on its stream, which a trace does not hold; expected with role=standalone"
    } else if is_sequencer && config.stream_port.is_some() {
        "streamPort: a sequencer hands out its stream through NATS; expected off where role is sequencer"
    } else if is_sequencer && config.max_event_bytes > NATS_EVENT_BYTES_MAX {
        "maxEventBytes: an event must fit a message of NATS; expected at most 524288 where role is sequencer"
    } else if is_nats {
        if matches!(origin("maxSequenceJump"), Origin::Default) {
            config.max_sequence_jump = Some(JOURNAL_JUMP);
        }
        return read_credentials(config);
    } else {
        return Ok(());
    };
    Err(Exit::refused(sentence))
}

/// The checks of the options that say who may connect (`docs/SPEC.md` section 12).
fn check_access(config: &Config) -> Result<(), Exit> {
    match (&config.tls_certificate, &config.tls_key) {
        (Some(_), None) => {
            return Err(Exit::refused("tlsCertificate: there is no key for it; expected with tlsKey"));
        }
        (None, Some(_)) => {
            return Err(Exit::refused(
                "tlsKey: there is no certificate for it; expected with tlsCertificate",
            ));
        }
        _ => {}
    }
    for (option, authority, port, name) in [
        ("sourceClientCa", &config.source_client_ca, Port::Source, "sources"),
        ("adminClientCa", &config.admin_client_ca, Port::Admin, "admin"),
        ("streamClientCa", &config.stream_client_ca, Port::Stream, "stream"),
    ] {
        if authority.is_some() && !config.speaks_tls(port) {
            return Err(Exit::refused(format_args!(
                "{option}: that port does not speak TLS; expected with tlsCertificate, and with {name} in tlsPorts"
            )));
        }
    }
    check_stream_access(config)?;
    // Tokens are secrets, and must not go over a network in clear.
    let is_private = config.speaks_tls(Port::User)
        || config.user_bind_address.is_loopback()
        || !config.proxy_protocol_from.is_empty();
    if config.user_token_key.is_some() && !is_private {
        return Err(Exit::refused(
            "userTokenKey: tokens would go over the network in clear; expected TLS on the user port, a loopback address \
             as userBindAddress, or proxyProtocolFrom",
        ));
    }
    Ok(())
}

/// The checks of the options that say who may be at the other end of the connection to the stream.
fn check_stream_access(config: &Config) -> Result<(), Exit> {
    let is_tls = matches!(config.stream, Some(StreamAddress::Tls(_)));
    let may_be_tls = is_tls || matches!(config.stream, Some(StreamAddress::Nats { .. }));
    let sentence = if is_tls && config.stream_ca.is_none() {
        "stream: nobody has said which authority is trusted there; expected with streamCa, where it is at tls://"
    } else if config.stream_ca.is_some() && !may_be_tls {
        "streamCa: no stream is spoken to over TLS; expected with a stream at tls:// or nats://"
    } else if config.stream_certificate.is_some()
        && (config.stream_key.is_none() || config.stream_ca.is_none())
    {
        "streamCertificate: it needs its key, and an authority for the other end; expected with streamKey and streamCa"
    } else if config.stream_key.is_some() && config.stream_certificate.is_none() {
        "streamKey: there is no certificate for it; expected with streamCertificate"
    } else {
        return Ok(());
    };
    Err(Exit::refused(sentence))
}

/// Reads what NATS asks for from its file.
fn read_credentials(config: &mut Config) -> Result<(), Exit> {
    let Some(path) = &config.stream_credentials else { return Ok(()) };
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Exit::refused(format!("streamCredentials: cannot read {shown}: {error}")))?;
    config.stream_login = Credentials::parse(&text).ok_or_else(|| {
        Exit::refused(format!(
            "streamCredentials: {shown} is not accepted; expected one line, user:password or a token"
        ))
    })?;
    Ok(())
}

/// Whether the kernel would refuse to listen on one port of both addresses.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
}
