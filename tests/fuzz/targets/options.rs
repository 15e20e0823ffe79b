//! The command line and the environment.
//!
//! An input is a list of pieces, separated by NUL, which neither can contain. A piece whose first byte is below 128 is an
//! argument as it stands. In others that byte chooses an option, and whether the rest is its value after an equals sign, its
//! value in an argument of its own, or that of its variable, or whether there is none. A rest of one byte from 1 to 8 is
//! one of the values around the ends of what the option accepts.
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
    File,
}

/// More than 31 years.
const MS_MAX: i128 = 1_000_000_000_000;

/// Every option, its default and what it accepts: SPEC section 4, and the ranges as `--help` and the refusals tell them.
const OPTIONS: [(&str, &str, Kind); 30] = [
    ("eventSourceServerPort", "9090", Kind::Port),
    ("userServerPort", "9099", Kind::Port),
    ("eventSourceBindAddress", "127.0.0.1", Kind::Address),
    ("userBindAddress", "127.0.0.1", Kind::Address),
    ("maxEventSourceClients", "1", Kind::Number(1, 10_000)),
    ("maxUserClients", "1000", Kind::Number(1, 1_000_000)),
    ("eventTimeoutMs", "1000", Kind::Number(-MS_MAX, MS_MAX)),
    ("firstSequence", "1", Kind::Number(0, u64::MAX as i128)),
    ("reorderCapacity", "65536", Kind::Power(67_108_864)),
    ("resetOnSourceEof", "false", Kind::Switch),
    ("maxEventBytes", "1024", Kind::Number(4, 1_048_576)),
    ("loginTimeoutMs", "10000", Kind::Number(1, MS_MAX)),
    ("userBufferBytes", "4194304", Kind::Number(1, 4_294_967_296)),
    ("slowUserPolicy", "wait", Kind::Word(&["wait", "disconnect", "journal"])),
    ("slowUserTimeoutMs", "5000", Kind::Number(0, MS_MAX)),
    ("userMarkMs", "30000", Kind::Number(0, MS_MAX)),
    ("shutdownTimeoutMs", "5000", Kind::Number(0, MS_MAX)),
    ("streamPort", "off", Kind::PortOrOff),
    ("streamBindAddress", "127.0.0.1", Kind::Address),
    ("maxStreamClients", "16", Kind::Number(1, 10_000)),
    ("streamReplicas", "3", Kind::Number(1, 5)),
    ("streamRetentionBytes", "10737418240", Kind::Number(1 << 20, 1 << 50)),
    ("streamTakeoverMs", "15000", Kind::Number(3000, MS_MAX)),
    ("restartGraceMs", "10000", Kind::Number(0, MS_MAX)),
    ("adminPort", "off", Kind::PortOrOff),
    ("adminBindAddress", "127.0.0.1", Kind::Address),
    ("logLevel", "info", Kind::Word(&["off", "error", "warn", "info", "debug", "trace"])),
    ("logIntervalMs", "10000", Kind::Number(0, MS_MAX)),
    ("busyPoll", "false", Kind::Switch),
    ("recordTrace", "", Kind::File),
];

/// What else a refusal may be about.
const OTHER_SUBJECTS: [&str; 22] = [
    "role",
    "--role",
    "stream",
    "--stream",
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
            match piece.split_first() {
                Some((&first, value)) if first >= 128 => line.push(first, value),
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

    fn push(&mut self, choice: u8, value: &[u8]) {
        let place = usize::from(choice & 31) % OPTIONS.len();
        let (variable, _, kind) = OPTIONS[place];
        let flag = flag_of(variable);
        let value = match *value {
            [choice @ 1..=8] => kind.edge(choice - 1),
            _ => OsStr::from_bytes(value).to_owned(),
        };
        let mut value = Some(value);
        match choice >> 5 & 3 {
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
    fn expected(&self) -> Result<HashMap<&'static str, String>, String> {
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
        if values["streamPort"] != "off" && values["resetOnSourceEof"] == "true" {
            return Err("resetOnSourceEof: ".to_owned());
        }
        Ok(values)
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
            Kind::Address | Kind::Word(_) | Kind::Switch | Kind::File => (0, 1),
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
            Kind::Port | Kind::PortOrOff if text.starts_with('-') => None,
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
            Kind::File => None,
        }
    }
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
            ["-h", "--help", "-V", "--version"]
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
    assert!(is_named(subject) || sentence.starts_with('"'), "{sentence}: {line:?}");
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
            assert_eq!(kind, Kind::File, "{variable} has no value");
            continue;
        };
        assert_eq!(kind.read(OsStr::new(&value)).as_ref(), Some(&value), "{variable}");
        let mut again = Config::default();
        assert_eq!(options::set(&mut again, variable, &value), Ok(()), "{variable} {value}");
        assert_eq!(options::get(&again, variable), Some(value), "{variable}");
    }
}
