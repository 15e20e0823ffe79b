//! Values of flags, as clap sees them: it accepts any.

use std::ffi::{OsStr, OsString};

use clap::{
    Arg, Command, ValueHint,
    builder::{PossibleValue, TypedValueParser},
};

/// Lets any value through. A bad value is refused later, in the same words for flags and variables. Clap learns the
/// choices for help and completions only.
#[derive(Clone)]
pub(super) struct AnyValue {
    pub(super) choices: &'static [&'static str],
}

impl AnyValue {
    /// A value whose choices cannot be listed.
    pub(super) const FREE: Self = Self { choices: &[] };
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

/// An argument that is the name of a file.
pub(super) fn file_argument(name: &'static str) -> Arg {
    Arg::new(name).value_name(name).value_parser(AnyValue::FREE).value_hint(ValueHint::FilePath)
}

/// A flag with any value.
pub(super) fn flag(name: &'static str) -> Arg {
    Arg::new(name).long(name).value_parser(AnyValue::FREE)
}
