//! Options: every option of the server, by name (SPEC section 4).
//!
//! `table` defines each option once: its variable, its meaning, the accepted values, and the field of the [`Config`].
//! Flag, default, help, man page, completions, the sentence for a bad value, and the option's line in a trace follow
//! from that row. `rules` has what options mean for one another. The command line is built on top, in `cli`.

mod field;
mod refusal;
mod rules;
mod spelling;
mod table;

use std::ffi::OsStr;

use crate::config::Config;
use field::Field;
pub(crate) use refusal::{quoted, refusal};
pub(crate) use rules::{Written, complete};
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

impl Config {
    /// Sets one option by the name of its variable, as in a service file: `config.set("journalSync", "always")`. `README.md` lists
    /// the options.
    ///
    /// # Errors
    ///
    /// One sentence that names the option and what is accepted. The option keeps its value.
    pub fn set(&mut self, option: &str, value: &str) -> Result<(), String> {
        if OPTIONS.iter().all(|known| known.variable != option) {
            return Err(format!("{}: there is no such option", quoted(OsStr::new(option))));
        }
        set(self, option, value).map_err(|expected| refusal(option, value, &expected))
    }
}

/// [`complete`] for a configuration that a program has put together. What differs from its default counts as given. It is read as on
/// the command line, which refuses some values and rounds others.
///
/// # Errors
///
/// As [`complete`].
pub(crate) fn complete_as_written(config: &mut Config) -> Result<(), String> {
    let written = changed(config);
    for (option, value) in &written {
        let mut read = config.clone();
        set(&mut read, option, value).map_err(|expected| refusal(option, value, &expected))?;
        // A path may not survive being shown: it stays as it is.
        let is_path = |known: &Definition| {
            known.variable == *option && matches!(known.field, Field::File(_) | Field::Folder(_))
        };
        if !OPTIONS.iter().any(is_path) {
            *config = read;
        }
    }
    let is_given = |option: &str| written.iter().any(|(name, _)| *name == option);
    complete(config, &Written { name: &str::to_owned, is_given: &is_given })
}
