//! The command line and the environment.
//!
//! An input is a list of pieces, separated by NUL, which neither can contain. A piece whose first byte is below 128 is an
//! argument as it stands. In others that byte chooses whether there is a value after an equals sign, a value in an argument of
//! its own, the value of a variable, or none; the byte after it chooses the option; the rest is the value. A rest of one byte
//! from 1 to 8 is one of the values around the ends of what the option accepts.
//!
//! - Nothing panics. What is not accepted is status 2 and one line, which names what it is about and says what is accepted.
//! - What is accepted is within the range of [`OPTIONS`], and is the same when it is written and read again.
//! - Where an input consists of options alone, the outcome is known beforehand: [`Simple`].

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    net::IpAddr,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use fortnight::internals::{
    cli::{Exit, Invocation, parse, replay::Replay, trace::Trace},
    config::Config,
    http_client::AdminUrl,
    options,
};

/// Longest refusal. Values are shortened to 80 characters.
const SENTENCE_BYTES_MAX: usize = 700;

/// What an option accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Port,
    PortOrOff,
    Address,
    Number(i128, i128),
    /// A number that is rounded up to a power of two.
    Power(i128),
    /// Of these words, in capitals or not.
    Word(&'static [&'static str]),
    /// True or false, and true where there is no value.
    Switch,
    /// A file or a folder.
    File,
    NumberOrNone,
    /// Where a stream is.
    Stream,
    /// Some of the four ports.
    Ports,
    Text,
    Hosts,
    Networks,
}

/// More than 31 years.
const MS_MAX: i128 = 1_000_000_000_000;

/// Every option, its default and what it accepts: SPEC section 4, and the ranges as `--help` and the refusals tell them.
const OPTIONS: [(&str, &str, Kind); 53] = [
    ("eventSourceServerPort", "9090", Kind::Port),
    ("userServerPort", "9099", Kind::Port),
    ("eventSourceBindAddress", "127.0.0.1", Kind::Address),
    ("userBindAddress", "127.0.0.1", Kind::Address),
    ("maxEventSourceClients", "1", Kind::Number(1, 10_000)),
    ("maxUserClients", "1000", Kind::Number(1, 1_000_000)),
    ("eventTimeoutMs", "1000", Kind::Number(-MS_MAX, MS_MAX)),
    ("firstSequence", "1", Kind::Number(0, u64::MAX as i128)),
    ("maxSequenceJump", "none", Kind::NumberOrNone),
    ("reorderCapacity", "65536", Kind::Power(67_108_864)),
    ("resetOnSourceEof", "false", Kind::Switch),
    ("maxEventBytes", "1024", Kind::Number(4, 1_048_576)),
    ("loginTimeoutMs", "10000", Kind::Number(1, MS_MAX)),
    ("userBufferBytes", "4194304", Kind::Number(1, 4_294_967_296)),
    ("slowUserPolicy", "wait", Kind::Word(&["wait", "disconnect", "journal"])),
    ("slowUserTimeoutMs", "5000", Kind::Number(0, MS_MAX)),
    ("userMarkMs", "30000", Kind::Number(0, MS_MAX)),
    ("role", "standalone", Kind::Word(&["standalone", "sequencer", "edge"])),
    ("stream", "", Kind::Stream),
    ("streamPort", "off", Kind::PortOrOff),
    ("streamBindAddress", "127.0.0.1", Kind::Address),
    ("maxStreamClients", "16", Kind::Number(1, 10_000)),
    ("streamReplicas", "3", Kind::Number(1, 5)),
    ("streamRetentionBytes", "10737418240", Kind::Number(1 << 20, 1 << 50)),
    ("streamCredentials", "", Kind::File),
    ("streamCa", "", Kind::File),
    ("streamCertificate", "", Kind::File),
    ("streamKey", "", Kind::File),
    ("streamTakeoverMs", "15000", Kind::Number(3000, MS_MAX)),
    ("shutdownTimeoutMs", "5000", Kind::Number(0, MS_MAX)),
    ("restartGraceMs", "10000", Kind::Number(0, MS_MAX)),
    ("adminPort", "off", Kind::PortOrOff),
    ("adminBindAddress", "127.0.0.1", Kind::Address),
    ("tlsCertificate", "", Kind::File),
    ("tlsKey", "", Kind::File),
    ("tlsPorts", "users", Kind::Ports),
    ("sourceClientCa", "", Kind::File),
    ("adminClientCa", "", Kind::File),
    ("streamClientCa", "", Kind::File),
    ("userTokenKey", "", Kind::File),
    ("userTokenAudience", "", Kind::Text),
    ("proxyProtocolFrom", "", Kind::Networks),
    ("adminHosts", "", Kind::Hosts),
    ("logLevel", "info", Kind::Word(&["off", "error", "warn", "info", "debug", "trace"])),
    ("logIntervalMs", "10000", Kind::Number(0, MS_MAX)),
    ("busyPoll", "false", Kind::Switch),
    ("journalDirectory", "", Kind::File),
    ("journalSync", "interval", Kind::Word(&["always", "interval", "never"])),
    ("journalSyncIntervalMs", "1000", Kind::Number(0, MS_MAX)),
    ("journalSegmentBytes", "67108864", Kind::Number(4096, 1 << 50)),
    ("journalRetentionBytes", "1073741824", Kind::Number(4096, 1 << 50)),
    ("journalRetentionMs", "none", Kind::NumberOrNone),
    ("recordTrace", "", Kind::File),
];

/// Every option and its default, which is empty where there is none.
pub fn known() -> [(&'static str, &'static str); OPTIONS.len()] {
    OPTIONS.map(|(variable, default, _)| (variable, default))
}

/// Commands, which a refusal may be about.
const COMMANDS: [&str; 6] = ["health", "top", "clients", "journal", "replay", "trace"];

/// What else a refusal may be about.
const OTHER_SUBJECTS: [&str; 18] = [
    "--admin",
    "--tls-ca",
    "--expect",
    "--bless",
    "--show",
    "--junit",
    "--from",
    "--to",
    "--help",
    "--version",
    "TRACE",
    "FILE",
    "help",
    "health",
    "top",
    "replay",
    "trace",
    "an argument that is not UTF-8 is not accepted",
];

/// Reads one command line and holds against it what the module says.
pub fn run(input: &[u8]) {
    let line = Line::of(input);
    let arguments = [OsString::from("fortnight")].into_iter().chain(line.arguments.iter().cloned());
    let outcome = parse(arguments, |name| line.variables.get(name).cloned());
    match &outcome {
        Err(exit) => check_exit(exit, &line),
        Ok(invocation) => check_invocation(invocation),
    }
    if let Some(simple) = &line.simple {
        simple.check(&outcome);
    }
}

/// The one option whose file is read together with the command line.
const CREDENTIALS: &str = "streamCredentials";

/// A file that is not there.
const NO_FILE: &str = "/no/such/file";

/// Whether an argument may be the flag of [`CREDENTIALS`], with any file.
fn names_credentials(argument: &[u8]) -> bool {
    argument.starts_with(flag_of(CREDENTIALS).as_bytes())
}

fn flag_of(variable: &str) -> String {
    let mut flag = "--".to_owned();
    for letter in variable.chars() {
        if letter.is_ascii_uppercase() {
            flag.push('-');
        }
        flag.push(letter.to_ascii_lowercase());
    }
    flag
}

/// A command line and its environment.
#[derive(Debug)]
struct Line {
    arguments: Vec<OsString>,
    variables: HashMap<&'static str, OsString>,
    /// `None`: there is more in it than options.
    simple: Option<Simple>,
}

impl Line {
    fn of(input: &[u8]) -> Line {
        let mut line =
            Line { arguments: Vec::new(), variables: HashMap::new(), simple: Some(Simple::default()) };
        for piece in input.split(|&byte| byte == 0) {
            match piece {
                [way, option, value @ ..] if *way >= 128 => line.push(*way, *option, value),
                // It would be read, whatever it is.
                _ if names_credentials(piece) => {}
                _ => {
                    line.simple = None;
                    line.arguments.push(OsStr::from_bytes(piece).to_owned());
                }
            }
        }
        if let Some(simple) = &mut line.simple {
            simple.variables = line.variables.clone();
        }
        line
    }

    fn push(&mut self, way: u8, option: u8, value: &[u8]) {
        let (variable, _, kind) = OPTIONS[(usize::from(option) + OPTIONS.len() - 1) % OPTIONS.len()];
        let flag = flag_of(variable);
        let value = match *value {
            [choice @ 1..=8] => kind.edge(choice - 1),
            _ if variable == CREDENTIALS => NO_FILE.into(),
            _ => OsStr::from_bytes(value).to_owned(),
        };
        let mut value = Some(value);
        match way >> 5 & 3 {
            0 => {
                let argument =
                    [flag.as_bytes(), b"=", value.as_deref().unwrap_or_default().as_bytes()].concat();
                self.arguments.push(OsString::from_vec(argument));
            }
            1 => {
                // It may be taken for another option.
                if value.as_ref().is_some_and(|value| value.as_bytes().starts_with(b"-")) {
                    self.simple = None;
                }
                self.arguments.push(flag.into());
                self.arguments.extend(value.clone());
            }
            2 => {
                self.variables.insert(variable, value.unwrap_or_default());
                return;
            }
            _ => {
                self.arguments.push(flag.into());
                value = (kind == Kind::Switch).then(|| "true".into());
            }
        }
        if let Some(simple) = &mut self.simple {
            match value {
                Some(value) => {
                    simple.flags.insert(variable, value);
                }
                None => {
                    simple.without_value.get_or_insert(variable);
                }
            }
        }
    }
}

/// Every option's value.
type Values = HashMap<&'static str, String>;

/// A command line of options alone.
#[derive(Debug, Default)]
struct Simple {
    /// The last value that each flag was given.
    flags: HashMap<&'static str, OsString>,
    variables: HashMap<&'static str, OsString>,
    /// The first flag that lacks its value.
    without_value: Option<&'static str>,
}

impl Simple {
    fn check(&self, outcome: &Result<Invocation, Exit>) {
        match (outcome, self.expected()) {
            (Ok(Invocation::Serve(config)), Ok(expected)) => {
                for (variable, _, kind) in OPTIONS {
                    let value = options::get(config, variable).unwrap_or_default();
                    assert_eq!(value, expected[variable], "{variable} of {kind:?}: {self:?}");
                }
            }
            (Err(exit), Err(start)) => {
                assert!(
                    exit.text.starts_with(&format!("fortnight: {start}")),
                    "{exit:?}, but {start}: {self:?}"
                );
            }
            (outcome, expected) => panic!("{outcome:?}, but {expected:?}: {self:?}"),
        }
    }

    /// Every option's value, or how the refusal begins.
    fn expected(&self) -> Result<Values, String> {
        if let Some(variable) = self.without_value {
            return Err(format!("{}: a value is missing; expected ", flag_of(variable)));
        }
        let mut values = HashMap::new();
        for (variable, default, kind) in OPTIONS {
            let (name, value) = self.given(variable);
            let value = match &value {
                Some(value) => kind.read(value).ok_or_else(|| format!("{name}: \""))?,
                None => default.to_owned(),
            };
            values.insert(variable, value);
        }
        self.check_ports(&values)?;
        self.check_role(&mut values)?;
        self.check_journal(&mut values)?;
        check_access(&values)?;
        Ok(values)
    }

    fn is_given(&self, variable: &str) -> bool {
        self.given(variable).1.is_some()
    }

    /// What a role and a stream go together with: SPEC section 11.
    fn check_role(&self, values: &mut Values) -> Result<(), String> {
        let has = |variable: &str| !["", "off", "false"].contains(&values[variable].as_str());
        let role = values["role"].as_str();
        let is_nats = values["stream"].starts_with("nats:");
        let blamed = match role {
            "edge" if !has("stream") => "stream",
            "sequencer" if !is_nats => "stream",
            "standalone" if has("stream") => "stream",
            _ if has("resetOnSourceEof") && (role != "standalone" || has("streamPort")) => "resetOnSourceEof",
            "edge" | "sequencer" if has("recordTrace") => "recordTrace",
            "sequencer" if has("streamPort") => "streamPort",
            "sequencer" if values["maxEventBytes"].parse::<u32>().expect("a number") > 524_288 => {
                "maxEventBytes"
            }
            _ if is_nats && has(CREDENTIALS) => CREDENTIALS,
            _ => "",
        };
        if !blamed.is_empty() {
            return Err(format!("{blamed}: "));
        }
        if is_nats && !self.is_given("maxSequenceJump") {
            values.insert("maxSequenceJump", "1000000000".to_owned());
        }
        Ok(())
    }

    /// What a journal means for other options: SPEC sections 2, 4 and 8.
    fn check_journal(&self, values: &mut Values) -> Result<(), String> {
        if values["journalDirectory"].is_empty() {
            return match values["slowUserPolicy"].as_str() {
                "journal" => Err(format!("{}: \"journal\" is not accepted", self.given("slowUserPolicy").0)),
                _ => Ok(()),
            };
        }
        if values["role"] == "sequencer" {
            return Err("journalDirectory: ".to_owned());
        }
        if values["resetOnSourceEof"] == "true" {
            return Err(format!("{}: \"true\" is not accepted", self.given("resetOnSourceEof").0));
        }
        if !self.is_given("maxSequenceJump") {
            values.insert("maxSequenceJump", "1000000000".to_owned());
        }
        if !self.is_given("slowUserPolicy") {
            values.insert("slowUserPolicy", "journal".to_owned());
        }
        if values["slowUserPolicy"] == "journal" && !self.is_given("slowUserTimeoutMs") {
            values.insert("slowUserTimeoutMs", "120000".to_owned());
        }
        Ok(())
    }

    /// What gives an option its value, and the value.
    fn given(&self, variable: &str) -> (String, Option<OsString>) {
        match self.flags.get(variable) {
            Some(value) => (flag_of(variable), Some(value.clone())),
            None => {
                (variable.to_owned(), self.variables.get(variable).filter(|value| !value.is_empty()).cloned())
            }
        }
    }

    /// The refusal of a port that two listeners would have on one address names the later one that was set.
    fn check_ports(&self, values: &HashMap<&str, String>) -> Result<(), String> {
        let listeners = [
            ("eventSourceServerPort", "eventSourceBindAddress"),
            ("userServerPort", "userBindAddress"),
            ("adminPort", "adminBindAddress"),
            ("streamPort", "streamBindAddress"),
        ];
        for (place, (second, second_address)) in listeners.iter().enumerate() {
            for (first, first_address) in &listeners[..place] {
                // An edge has no event sources, and a sequencer no users.
                let without = match values["role"].as_str() {
                    "edge" => "eventSourceServerPort",
                    "sequencer" => "userServerPort",
                    _ => "",
                };
                if [*first, *second].contains(&without) {
                    continue;
                }
                let port = &values[second];
                let distinct = ["0", "off"].contains(&port.as_str()) || *port != values[first];
                if distinct || !meet(&values[first_address], &values[second_address]) {
                    continue;
                }
                let blamed = if self.given(second).1.is_some() { second } else { first };
                return Err(format!("{}: \"{port}\" is not accepted", self.given(blamed).0));
            }
        }
        Ok(())
    }
}

/// What must come with what: SPEC section 12.
fn check_access(values: &Values) -> Result<(), String> {
    let has = |variable: &str| !values[variable].is_empty();
    let speaks_tls =
        |port: &str| has("tlsCertificate") && values["tlsPorts"].split(',').any(|name| name == port);
    let is_tls = values["stream"].starts_with("tls:");
    let may_be_tls = is_tls || values["stream"].starts_with("nats:");
    let is_private = speaks_tls("users")
        || values["userBindAddress"].parse::<IpAddr>().expect("an address").is_loopback()
        || has("proxyProtocolFrom");
    let refused = [
        ("tlsCertificate", has("tlsCertificate") && !has("tlsKey")),
        ("tlsKey", has("tlsKey") && !has("tlsCertificate")),
        ("sourceClientCa", has("sourceClientCa") && !speaks_tls("sources")),
        ("adminClientCa", has("adminClientCa") && !speaks_tls("admin")),
        ("streamClientCa", has("streamClientCa") && !speaks_tls("stream")),
        ("stream", is_tls && !has("streamCa")),
        ("streamCa", has("streamCa") && !may_be_tls),
        ("streamCertificate", has("streamCertificate") && !(has("streamKey") && has("streamCa"))),
        ("streamKey", has("streamKey") && !has("streamCertificate")),
        ("userTokenKey", has("userTokenKey") && !is_private),
    ];
    match refused.iter().find(|(_, is_refused)| *is_refused) {
        Some((variable, _)) => Err(format!("{variable}: ")),
        None => Ok(()),
    }
}

/// Whether one socket on each of the addresses would have to share a port.
fn meet(one: &str, other: &str) -> bool {
    let [one, other]: [IpAddr; 2] = [one, other].map(|address| address.parse().expect("an address"));
    let any = one.is_unspecified() || other.is_unspecified();
    one == other || (any && one.is_ipv4() == other.is_ipv4())
}

impl Kind {
    /// A number next to the least or the largest that is accepted.
    fn edge(self, choice: u8) -> OsString {
        let (least, most) = match self {
            Kind::Port | Kind::PortOrOff => (0, 65_535),
            Kind::Number(least, most) => (least, most),
            Kind::Power(most) => (1, most),
            Kind::NumberOrNone => (0, u64::MAX.into()),
            _ => (0, 1),
        };
        let edges = [least - 1, least, least + 1, most / 2 + 1, most - 1, most, most + 1, -least];
        edges[usize::from(choice)].to_string().into()
    }

    /// The value as [`options::get`] says it; `None`: it is not accepted.
    fn read(self, value: &OsStr) -> Option<String> {
        if self == Kind::File {
            return Some(value.to_string_lossy().into_owned()).filter(|name| !name.is_empty());
        }
        let text = value.to_str()?;
        let number = |least, most| whole_number(text).filter(|number| (least..=most).contains(number));
        match self {
            Kind::Port | Kind::PortOrOff | Kind::NumberOrNone if text.starts_with('-') => None,
            Kind::PortOrOff if text == "off" => Some("off".to_owned()),
            Kind::Port | Kind::PortOrOff => number(0, 65_535).map(|port| port.to_string()),
            Kind::Address if text == "localhost" => Some("127.0.0.1".to_owned()),
            Kind::Address => Some(text.parse::<IpAddr>().ok()?.to_string()),
            Kind::Number(least, most) => number(least, most).map(|number| number.to_string()),
            Kind::Power(most) => {
                let mut power: i128 = 1;
                let least = number(1, most)?;
                while power < least {
                    power *= 2;
                }
                Some(power.to_string())
            }
            Kind::Word(words) => one_of(words, text),
            Kind::Switch => one_of(&["true", "false"], text),
            Kind::NumberOrNone if text == "none" => Some(text.to_owned()),
            Kind::NumberOrNone => number(0, u64::MAX.into()).map(|number| number.to_string()),
            Kind::Stream => stream(text),
            Kind::Text => Some(text.to_owned()).filter(|text| !text.is_empty()),
            Kind::Ports => {
                let ports = list(text, |name| one_of(&["users", "sources", "admin", "stream"], name))?;
                let mut distinct: Vec<&str> = Vec::new();
                for name in ports.split(',') {
                    if !distinct.contains(&name) {
                        distinct.push(name);
                    }
                }
                Some(distinct.join(","))
            }
            Kind::Hosts => {
                let known = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
                list(text, |name| (!name.is_empty() && name.chars().all(known)).then(|| name.to_owned()))
            }
            Kind::Networks => list(text, network),
            Kind::File => None,
        }
    }
}

/// A list with commas, whose members are read one by one.
fn list(text: &str, read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let members: Option<Vec<String>> = text.split(',').map(|member| read(member.trim())).collect();
    Some(members?.join(","))
}

/// An address, or a network.
fn network(text: &str) -> Option<String> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let Some(bits) = bits else { return Kind::Address.read(OsStr::new(address)) };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = whole_number(bits)
        .filter(|&number| number <= most && bits.chars().all(|digit| digit.is_ascii_digit()))?;
    Some(if bits == most { address.to_string() } else { format!("{address}/{bits}") })
}

/// Where a stream is.
fn stream(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    match scheme {
        "tcp" | "tls" => Some(format!("{scheme}://{}", host_and_port(rest)?)),
        "nats" => {
            let (servers, name) = rest.split_once('/')?;
            let servers: Option<Vec<String>> = servers.split(',').map(host_and_port).collect();
            let known = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
            let is_name = (1..=64).contains(&name.len()) && name.chars().all(known);
            is_name.then_some(format!("nats://{}/{name}", servers?.join(",")))
        }
        _ => None,
    }
}

/// A host and a port that is not 0, separated by the last colon.
fn host_and_port(text: &str) -> Option<String> {
    let colon = text.rfind(':')?;
    let port = Kind::Port.read(OsStr::new(&text[colon + 1..])).filter(|port| port != "0")?;
    let host = &text[..colon];
    let is_bracketed = host.starts_with('[');
    let bare = if is_bracketed { host.get(1..host.len() - 1).filter(|_| host.ends_with(']'))? } else { host };
    let is_known = |letter: char| {
        letter.is_ascii_alphanumeric() || "-_.%".contains(letter) || (is_bracketed && letter == ':')
    };
    let is_host = !bare.is_empty() && bare.chars().all(is_known);
    is_host.then(|| if bare.contains(':') { format!("[{bare}]:{port}") } else { format!("{bare}:{port}") })
}

fn one_of(words: &[&str], text: &str) -> Option<String> {
    words.iter().find(|word| word.eq_ignore_ascii_case(text)).map(|&word| word.to_owned())
}

/// Digits with or without a sign. What is too large for any option stays too large.
fn whole_number(text: &str) -> Option<i128> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    let mut number: i128 = 0;
    for digit in digits.chars() {
        number = (number * 10 + i128::from(digit.to_digit(10)?)).min(1 << 80);
    }
    Some(if text.starts_with('-') { -number } else { number })
}

fn check_exit(exit: &Exit, line: &Line) {
    let Exit { status, text } = exit;
    if *status == 0 {
        let asks = |argument: &OsString| {
            ["-h", "--help", "-V", "--version", "help"]
                .iter()
                .any(|flag| argument.as_bytes().starts_with(flag.as_bytes()))
        };
        assert!(line.arguments.iter().any(asks), "{line:?}");
        assert!(text.contains("fortnight") && text.ends_with('\n'), "{text}");
        return;
    }
    let is_check = line.arguments.first().is_some_and(|word| word == "health");
    assert_eq!(*status, if is_check { 1 } else { 2 }, "{line:?}");
    let sentence = text.strip_prefix("fortnight: ").and_then(|text| text.strip_suffix('\n'));
    let sentence = sentence.unwrap_or_else(|| panic!("{text:?}"));
    assert!(!sentence.contains(char::is_control), "{sentence:?}");
    assert!(sentence.len() < SENTENCE_BYTES_MAX, "{sentence}");
    assert!(sentence.contains("expected "), "{sentence}: {line:?}");
    let is_named = |subject: &str| {
        OPTIONS.iter().any(|(variable, ..)| subject == *variable || subject == flag_of(variable))
            || OTHER_SUBJECTS.contains(&subject)
    };
    let subject = sentence.split([':', ';']).next().unwrap_or_default();
    let is_command = COMMANDS.contains(&subject);
    assert!(is_named(subject) || is_command || sentence.starts_with('"'), "{sentence}: {line:?}");
}

fn check_invocation(invocation: &Invocation) {
    if let Invocation::Serve(config) = invocation {
        check_config(config);
    }
    if let Invocation::Health(admin) = invocation {
        let url = admin.to_string();
        assert_eq!(url.parse::<AdminUrl>().map(|admin| admin.to_string()), Ok(url));
        assert!(!admin.lacks_authority(), "{admin}");
    }
    if let Invocation::Replay(Replay { traces, expect, bless, quiet: _, show, junit: _ }) = invocation {
        assert!(!traces.is_empty() && (expect.is_some() && show.is_none() || !bless), "{invocation:?}");
    }
    if let Invocation::Trace(Trace::Cut { range, .. }) = invocation {
        assert!(range.start <= range.end, "{invocation:?}");
    }
}

fn check_config(config: &Config) {
    for (variable, _, kind) in OPTIONS {
        let Some(value) = options::get(config, variable) else {
            let may_lack = [Kind::File, Kind::Stream, Kind::Text, Kind::Hosts, Kind::Networks];
            assert!(may_lack.contains(&kind), "{variable} has no value");
            continue;
        };
        assert_eq!(kind.read(OsStr::new(&value)).as_ref(), Some(&value), "{variable}");
        let mut again = Config::default();
        assert_eq!(options::set(&mut again, variable, &value), Ok(()), "{variable} {value}");
        assert_eq!(options::get(&again, variable), Some(value), "{variable}");
    }
}
