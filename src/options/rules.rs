//! Rules between options: what one of them means for another, and which of them do not go together.

use super::refusal::refusal;
use crate::{
    config::{Config, ServerRole, SlowUserPolicy},
    nats::connection::Credentials,
    server::net::Port,
    stream::address::StreamAddress,
};
use std::net::IpAddr;

/// How the options were written down.
pub(crate) struct Written<'a> {
    /// The name of an option where it was written: a refusal names it so.
    pub(crate) name: &'a dyn Fn(&str) -> String,
    /// Whether somebody has given the option a value.
    pub(crate) is_given: &'a dyn Fn(&str) -> bool,
}

/// Gives options the values that follow from others, and refuses what does not go together.
///
/// # Errors
///
/// One sentence that names the option and what is accepted.
pub(crate) fn complete(config: &mut Config, written: &Written<'_>) -> Result<(), String> {
    check_ports(config, written)?;
    check_role(config, written)?;
    check_journal(config, written)?;
    check_access(config)
}

/// Largest jump of a number with a journal, where none is given (docs/SPEC.md section 2).
const JOURNAL_JUMP: u64 = 1_000_000_000;

/// How long the socket of a user may take nothing that is served from the journal, where no time is given (docs/SPEC.md section 4).
const JOURNAL_SLOW_MS: u64 = 120_000;

/// The effect of a journal on other options.
fn check_journal(config: &mut Config, written: &Written<'_>) -> Result<(), String> {
    if config.journal_directory.is_none() {
        return if config.slow_user_policy == SlowUserPolicy::Journal {
            let expected = "wait or disconnect, or journal together with journalDirectory";
            Err(refusal(&(written.name)("slowUserPolicy"), "journal", expected))
        } else {
            Ok(())
        };
    }
    if config.role == ServerRole::Sequencer {
        return Err("journalDirectory: a sequencer keeps everything in its stream; expected with role=standalone or role=edge".to_owned());
    }
    if config.reset_on_source_eof {
        let (reset, journal) = ("resetOnSourceEof", "journalDirectory");
        return Err(refusal(
            &(written.name)(reset),
            "true",
            &format!("false, because {} is set: a journal holds one run", (written.name)(journal)),
        ));
    }
    if !(written.is_given)("maxSequenceJump") {
        config.max_sequence_jump = Some(JOURNAL_JUMP);
    }
    if !(written.is_given)("slowUserPolicy") {
        config.slow_user_policy = SlowUserPolicy::Journal;
    }
    if config.slow_user_policy == SlowUserPolicy::Journal && !(written.is_given)("slowUserTimeoutMs") {
        config.slow_user_timeout_ms = JOURNAL_SLOW_MS;
    }
    Ok(())
}

/// Two listeners cannot share a port: that is known here, and said better than by a failed bind.
fn check_ports(config: &Config, written: &Written<'_>) -> Result<(), String> {
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
            let (blamed, other) = if (written.is_given)(second) { (second, first) } else { (first, second) };
            return Err(refusal(
                &(written.name)(blamed),
                port.to_string(),
                &format!("a port that {} does not use on the same address", (written.name)(other)),
            ));
        }
    }
    Ok(())
}

/// Longest event line of a sequencer: a block of them must fit a message of NATS.
const NATS_EVENT_BYTES_MAX: usize = 512 << 10;

/// The role of a server decides which options it needs, and which it refuses (`docs/SPEC.md` section 11).
fn check_role(config: &mut Config, written: &Written<'_>) -> Result<(), String> {
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
        if !(written.is_given)("maxSequenceJump") {
            config.max_sequence_jump = Some(JOURNAL_JUMP);
        }
        return read_credentials(config);
    } else {
        return Ok(());
    };
    Err(sentence.to_owned())
}

/// The checks of the options that say who may connect (`docs/SPEC.md` section 12).
fn check_access(config: &Config) -> Result<(), String> {
    match (&config.tls_certificate, &config.tls_key) {
        (Some(_), None) => {
            return Err("tlsCertificate: there is no key for it; expected with tlsKey".to_owned());
        }
        (None, Some(_)) => {
            return Err("tlsKey: there is no certificate for it; expected with tlsCertificate".to_owned());
        }
        _ => {}
    }
    for (option, authority, port, name) in [
        ("sourceClientCa", &config.source_client_ca, Port::Source, "sources"),
        ("adminClientCa", &config.admin_client_ca, Port::Admin, "admin"),
        ("streamClientCa", &config.stream_client_ca, Port::Stream, "stream"),
    ] {
        if authority.is_some() && !config.speaks_tls(port) {
            return Err(format!(
                "{option}: that port does not speak TLS; expected with tlsCertificate, and with {name} in tlsPorts"
            ));
        }
    }
    check_stream_access(config)?;
    // Tokens are secrets, and must not go over a network in clear.
    let is_private = config.speaks_tls(Port::User)
        || config.user_bind_address.is_loopback()
        || !config.proxy_protocol_from.is_empty();
    if config.user_token_key.is_some() && !is_private {
        return Err("userTokenKey: tokens would go over the network in clear; expected TLS on the user port, a loopback address \
             as userBindAddress, or proxyProtocolFrom".to_owned());
    }
    Ok(())
}

/// The checks of the options that say who may be at the other end of the connection to the stream.
fn check_stream_access(config: &Config) -> Result<(), String> {
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
    Err(sentence.to_owned())
}

/// Reads what NATS asks for from its file.
fn read_credentials(config: &mut Config) -> Result<(), String> {
    let Some(path) = &config.stream_credentials else { return Ok(()) };
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("streamCredentials: cannot read {shown}: {error}; expected a file with one line, user:password or a token"))?;
    config.stream_login = Credentials::parse(&text).ok_or_else(|| {
        format!("streamCredentials: {shown} is not accepted; expected one line, user:password or a token")
    })?;
    Ok(())
}

/// Whether the kernel would refuse to listen on one port of both addresses.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
}
