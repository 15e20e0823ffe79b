//! The kinds of value that an option can have: how one is read, shown and described.

use std::{ffi::OsStr, net::IpAddr, net::Ipv4Addr, ops::RangeInclusive, path::PathBuf};

use crate::{
    config::{Config, ServerRole, SlowUserPolicy},
    journal::SyncMode,
    proxy::Network,
    server::net::Port,
    stream::address::StreamAddress,
};

/// One field of [`Config`] and what it accepts.
pub(crate) enum Field {
    Port(fn(&mut Config) -> &mut u16),
    PortOrOff(fn(&mut Config) -> &mut Option<u16>),
    Address(fn(&mut Config) -> &mut IpAddr),
    Number(Number),
    NumberOrNone(fn(&mut Config) -> &mut Option<u64>),
    Switch(fn(&mut Config) -> &mut bool),
    Policy(fn(&mut Config) -> &mut SlowUserPolicy),
    Role(fn(&mut Config) -> &mut ServerRole),
    Stream(fn(&mut Config) -> &mut Option<StreamAddress>),
    Sync(fn(&mut Config) -> &mut SyncMode),
    Folder(fn(&mut Config) -> &mut Option<PathBuf>),
    Level(fn(&mut Config) -> &mut log::LevelFilter),
    File(fn(&mut Config) -> &mut Option<PathBuf>),
    Ports(fn(&mut Config) -> &mut Vec<Port>),
    Text(fn(&mut Config) -> &mut Option<String>),
    Hosts(fn(&mut Config) -> &mut Vec<String>),
    Networks(fn(&mut Config) -> &mut Vec<Network>),
}

/// A whole number. `i128` holds every value of every integer field.
pub(crate) struct Number {
    /// Says what is counted, or is empty.
    pub(crate) unit: &'static str,
    pub(crate) range: RangeInclusive<i128>,
    pub(crate) get: fn(&Config) -> i128,
    /// Is called with a number within `range` only.
    pub(crate) set: fn(&mut Config, i128),
}

const POLICIES: [(&str, SlowUserPolicy); 3] = [
    ("wait", SlowUserPolicy::Wait),
    ("disconnect", SlowUserPolicy::Disconnect),
    ("journal", SlowUserPolicy::Journal),
];

const ROLES: [(&str, ServerRole); 3] = [
    ("standalone", ServerRole::Standalone),
    ("sequencer", ServerRole::Sequencer),
    ("edge", ServerRole::Edge),
];
const PORTS: [(&str, Port); 4] =
    [("users", Port::User), ("sources", Port::Source), ("admin", Port::Admin), ("stream", Port::Stream)];
const SYNC_MODES: [(&str, SyncMode); 3] =
    [("always", SyncMode::Always), ("interval", SyncMode::Interval), ("never", SyncMode::Never)];

impl Field {
    /// Reads `value` into the field. `None`: the value is not accepted, and the field keeps its value.
    pub(crate) fn read(&self, config: &mut Config, value: &OsStr) -> Option<()> {
        if let Self::File(field) | Self::Folder(field) = self {
            *field(config) = Some(PathBuf::from(value)).filter(|path| !path.as_os_str().is_empty());
            return field(config).is_some().then_some(());
        }
        let text = value.to_str()?;
        match self {
            Self::Port(field) => *field(config) = text.parse().ok()?,
            Self::PortOrOff(field) => {
                *field(config) = if text == "off" { None } else { Some(text.parse().ok()?) };
            }
            Self::Address(field) => *field(config) = address(text)?,
            Self::Number(number) => {
                let value = text.parse().ok().filter(|value| number.range.contains(value))?;
                (number.set)(config, value);
            }
            Self::NumberOrNone(field) => {
                *field(config) = if text == "none" { None } else { Some(text.parse().ok()?) };
            }
            Self::Switch(field) => *field(config) = text.to_ascii_lowercase().parse().ok()?,
            Self::Policy(field) => {
                *field(config) = POLICIES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name))?.1;
            }
            Self::Role(field) => {
                *field(config) = ROLES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name))?.1;
            }
            Self::Stream(field) => *field(config) = Some(text.parse().ok()?),
            Self::Ports(field) => *field(config) = ports(text)?,
            Self::Text(field) => {
                *field(config) = Some(Some(text.to_owned()).filter(|text| !text.is_empty())?);
            }
            Self::Hosts(field) => *field(config) = hosts(text)?,
            Self::Networks(field) => {
                let networks = text.split(',').map(|network| network.trim().parse().ok());
                *field(config) = networks.collect::<Option<_>>()?;
            }
            Self::Level(field) => *field(config) = text.parse().ok()?,
            Self::Sync(field) => {
                *field(config) = SYNC_MODES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name))?.1;
            }
            Self::File(_) | Self::Folder(_) => {}
        }
        Some(())
    }

    /// The field's value as one would write it, if it has one. Takes the configuration mutably only because the
    /// accessors do.
    pub(crate) fn show(&self, config: &mut Config) -> Option<String> {
        Some(match self {
            Self::Port(field) => field(config).to_string(),
            Self::PortOrOff(field) => field(config).map_or_else(|| "off".to_owned(), |port| port.to_string()),
            Self::Address(field) => field(config).to_string(),
            Self::Number(number) => (number.get)(config).to_string(),
            Self::NumberOrNone(field) => {
                field(config).map_or_else(|| "none".to_owned(), |number| number.to_string())
            }
            Self::Switch(field) => field(config).to_string(),
            Self::Policy(field) => {
                let value = *field(config);
                POLICIES.iter().find(|(_, policy)| *policy == value)?.0.to_owned()
            }
            Self::Role(field) => {
                let value = *field(config);
                ROLES.iter().find(|(_, role)| *role == value)?.0.to_owned()
            }
            Self::Stream(field) => field(config).as_ref()?.to_string(),
            Self::Networks(field) => {
                let networks: Vec<String> = field(config).iter().map(ToString::to_string).collect();
                Some(networks.join(",")).filter(|networks| !networks.is_empty())?
            }
            Self::Ports(field) => {
                let name = |port: &Port| PORTS.iter().find(|(_, known)| known == port).map(|(name, _)| *name);
                field(config).iter().filter_map(name).collect::<Vec<_>>().join(",")
            }
            Self::Text(field) => field(config).clone()?,
            Self::Hosts(field) => Some(field(config).join(",")).filter(|names| !names.is_empty())?,
            Self::Level(field) => field(config).to_string().to_ascii_lowercase(),
            Self::Sync(field) => {
                let value = *field(config);
                SYNC_MODES.iter().find(|(_, mode)| *mode == value)?.0.to_owned()
            }
            Self::File(field) | Self::Folder(field) => field(config).as_ref()?.display().to_string(),
        })
    }

    /// The accepted values, as the end of a sentence.
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Port(_) => "a port from 0 to 65535".to_owned(),
            Self::PortOrOff(_) => "a port from 0 to 65535, or off".to_owned(),
            Self::Address(_) => "an IPv4 or IPv6 address, or localhost".to_owned(),
            Self::Number(Number { unit, range, .. }) => {
                let of = if unit.is_empty() { "" } else { " of " };
                format!("a whole number{of}{unit} from {} to {}", range.start(), range.end())
            }
            Self::NumberOrNone(_) => format!("a whole number from 0 to {}, or none", u64::MAX),
            Self::Switch(_) | Self::Policy(_) => self.choices().join(" or "),
            Self::Sync(_) | Self::Level(_) | Self::Role(_) => format!("one of {}", self.choices().join(", ")),
            Self::Stream(_) => "tcp://HOST:PORT or nats://HOST:PORT[,HOST:PORT…]/NAME".to_owned(),
            Self::Networks(_) => "addresses or networks such as 10.0.0.0/8, separated by commas".to_owned(),
            Self::Ports(_) => {
                "users, sources, admin or stream, or several of them, separated by commas".to_owned()
            }
            Self::Text(_) => "a text".to_owned(),
            Self::Hosts(_) => "names of hosts, separated by commas".to_owned(),
            Self::File(_) => "the name of a file".to_owned(),
            Self::Folder(_) => "the name of a folder".to_owned(),
        }
    }

    /// Every value there is, where they can be listed.
    pub(crate) fn choices(&self) -> &'static [&'static str] {
        match self {
            Self::Switch(_) => &["true", "false"],
            Self::Policy(_) => &["wait", "disconnect", "journal"],
            Self::Role(_) => &["standalone", "sequencer", "edge"],
            Self::Sync(_) => &["always", "interval", "never"],
            Self::Level(_) => &["off", "error", "warn", "info", "debug", "trace"],
            _ => &[],
        }
    }

    pub(crate) fn value_name(&self) -> &'static str {
        match self {
            Self::Port(_) => "PORT",
            Self::PortOrOff(_) => "PORT|off",
            Self::Address(_) => "ADDRESS",
            Self::Number(Number { unit: "milliseconds", .. }) => "MS",
            Self::Number(Number { unit: "bytes", .. }) => "BYTES",
            Self::Number(_) => "N",
            Self::NumberOrNone(_) => "N|none",
            Self::Switch(_) => "true|false",
            Self::Policy(_) => "POLICY",
            Self::Role(_) => "ROLE",
            Self::Stream(_) => "URL",
            Self::Ports(_) => "PORT,…",
            Self::Text(_) => "TEXT",
            Self::Hosts(_) => "NAME,…",
            Self::Networks(_) => "NETWORK,…",
            Self::Level(_) => "LEVEL",
            Self::File(_) => "FILE",
            Self::Folder(_) => "FOLDER",
            Self::Sync(_) => "MODE",
        }
    }

    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    pub(crate) fn is_switch(&self) -> bool {
        matches!(self, Self::Switch(_))
    }
}

/// Ports, each at most once.
fn ports(text: &str) -> Option<Vec<Port>> {
    let mut ports = Vec::new();
    for name in text.split(',') {
        let port = PORTS.iter().find(|(known, _)| name.trim().eq_ignore_ascii_case(known))?.1;
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    Some(ports)
}

/// Names of hosts, without ports.
fn hosts(text: &str) -> Option<Vec<String>> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    text.split(',').map(str::trim).map(|name| is_name(name).then(|| name.to_owned())).collect()
}

/// `localhost` is spelled out, not looked up: the address of a listener must not depend on a resolver.
fn address(text: &str) -> Option<IpAddr> {
    if text == "localhost" { Some(Ipv4Addr::LOCALHOST.into()) } else { text.parse().ok() }
}
