//! The options of the server as flags and variables, and how both become a [`Config`].

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, ArgMatches, ValueHint, parser::ValueSource};

use super::{
    exit::{Exit, refuse},
    value::AnyValue,
};
use crate::{
    config::Config,
    options::{self, Definition, OPTIONS, Written},
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
    let written = Written {
        name: &|option| name(option, &lookup(option, matches, &variable).0),
        is_given: &|option| !matches!(lookup(option, matches, &variable).0, Origin::Default),
    };
    options::complete(&mut config, &written).map_err(Exit::refused)?;
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
