//! The kinds of value that an option can have: how one is read, shown and described.

use std::{ffi::OsStr, ffi::OsString, net::IpAddr, net::Ipv4Addr, ops::RangeInclusive, path::PathBuf};

use clap::{
    Arg, Command, ValueHint,
    builder::{PossibleValue, TypedValueParser},
};

use crate::config::{Config, SlowUserPolicy};

/// One field of [`Config`] and what it accepts.
pub(super) enum Field {
    Port(fn(&mut Config) -> &mut u16),
    PortOrOff(fn(&mut Config) -> &mut Option<u16>),
    Address(fn(&mut Config) -> &mut IpAddr),
    Number(Number),
    NumberOrNone(fn(&mut Config) -> &mut Option<u64>),
    Switch(fn(&mut Config) -> &mut bool),
    Policy(fn(&mut Config) -> &mut SlowUserPolicy),
    Level(fn(&mut Config) -> &mut log::LevelFilter),
    File(fn(&mut Config) -> &mut Option<PathBuf>),
}

/// A whole number. `i128` holds every value of every integer field.
pub(super) struct Number {
    /// Says what is counted, or is empty.
    pub(super) unit: &'static str,
    pub(super) range: RangeInclusive<i128>,
    pub(super) get: fn(&Config) -> i128,
    /// Is called with a number within `range` only.
    pub(super) set: fn(&mut Config, i128),
}

const POLICIES: [(&str, SlowUserPolicy); 2] =
    [("wait", SlowUserPolicy::Wait), ("disconnect", SlowUserPolicy::Disconnect)];

impl Field {
    /// Reads `value` into the field. `None`: it is not accepted, and the field is as it was.
    pub(super) fn read(&self, config: &mut Config, value: &OsStr) -> Option<()> {
        if let Self::File(field) = self {
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
            Self::Level(field) => *field(config) = text.parse().ok()?,
            Self::File(_) => {}
        }
        Some(())
    }

    /// The field's value as one would write it, if it has one. Takes the configuration mutably only because the
    /// accessors do.
    pub(super) fn show(&self, config: &mut Config) -> Option<String> {
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
            Self::Level(field) => field(config).to_string().to_ascii_lowercase(),
            Self::File(field) => field(config).as_ref()?.display().to_string(),
        })
    }

    /// What is accepted, as the end of a sentence.
    pub(super) fn expected(&self) -> String {
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
            Self::Level(_) => format!("one of {}", self.choices().join(", ")),
            Self::File(_) => "the name of a file".to_owned(),
        }
    }

    /// Every value there is, where they can be listed.
    pub(super) fn choices(&self) -> &'static [&'static str] {
        match self {
            Self::Switch(_) => &["true", "false"],
            Self::Policy(_) => &["wait", "disconnect"],
            Self::Level(_) => &["off", "error", "warn", "info", "debug", "trace"],
            _ => &[],
        }
    }

    pub(super) fn value_name(&self) -> &'static str {
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
            Self::Level(_) => "LEVEL",
            Self::File(_) => "FILE",
        }
    }

    pub(super) fn hint(&self) -> ValueHint {
        match self {
            Self::File(_) => ValueHint::FilePath,
            _ => ValueHint::Other,
        }
    }

    pub(super) fn is_switch(&self) -> bool {
        matches!(self, Self::Switch(_))
    }
}

/// `localhost` is spelled out, not looked up: what the server listens on must not depend on a resolver.
fn address(text: &str) -> Option<IpAddr> {
    if text == "localhost" { Some(Ipv4Addr::LOCALHOST.into()) } else { text.parse().ok() }
}

/// Lets any value through to [`Field::read`], which refuses it in the same words whether a flag or a variable
/// brought it; clap only learns the choices, for help and completions.
#[derive(Clone)]
pub(super) struct AnyValue {
    pub(super) choices: &'static [&'static str],
}

impl TypedValueParser for AnyValue {
    type Value = OsString;

    fn parse_ref(&self, _: &Command, _: Option<&Arg>, value: &OsStr) -> Result<OsString, clap::Error> {
        Ok(value.to_owned())
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        if self.choices.is_empty() {
            return None;
        }
        Some(Box::new(self.choices.iter().map(PossibleValue::new)))
    }
}
