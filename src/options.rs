//! Options: every option of the server, by name (SPEC section 4).
//!
//! `table` defines each option once: its variable, its meaning, the accepted values, and the field of the [`Config`].
//! Flag, default, help, man page, completions, the sentence for a bad value, and the option's line in a trace follow
//! from that row. The command line is built on top, in [`cli`](crate::cli).

mod field;
mod spelling;
mod table;

use std::ffi::OsStr;

use crate::config::Config;
pub use spelling::meant_by;
pub(crate) use table::{Definition, OPTIONS};

/// Sets one option, by the name of its variable.
///
/// # Errors
///
/// Says what is accepted. The option keeps its value.
pub fn set(config: &mut Config, variable: &str, value: &str) -> Result<(), String> {
    let option = OPTIONS.iter().find(|option| option.variable == variable);
    let option = option.ok_or_else(|| "the name of an option".to_owned())?;
    option.field.read(config, OsStr::new(value)).ok_or_else(|| option.field.expected())
}

/// The value of an option, as one would write it. `None`: it has none, or there is no such option.
#[must_use]
pub fn get(config: &Config, variable: &str) -> Option<String> {
    OPTIONS.iter().find(|option| option.variable == variable)?.field.show(&mut config.clone())
}

/// Every option with its value, as one would write it. `None`: it has none.
pub fn all(config: &Config) -> impl Iterator<Item = (&'static str, Option<String>)> + use<> {
    let mut config = config.clone();
    OPTIONS.iter().map(move |option| (option.variable, option.field.show(&mut config)))
}

/// The options that have not their defaults, with their values.
#[must_use]
pub fn changed(config: &Config) -> Vec<(&'static str, String)> {
    let defaults = Config::default();
    let defaults = all(&defaults).map(|(_, value)| value);
    let changed = all(config).zip(defaults).filter(|((_, value), default)| value != default);
    changed.map(|((name, value), _)| (name, value.unwrap_or_else(|| "none".to_owned()))).collect()
}
