//! One sentence for whatever clap refuses, in the words of the other refusals.

use std::ffi::OsStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::exit::missing_sentence;
use crate::options::quoted;

/// The sentence for `error`. `expected` says what a flag accepts, and `is_subcommand` what a word is.
pub(super) fn sentence(
    error: &clap::Error,
    expected: impl Fn(&str) -> String,
    is_subcommand: impl Fn(&str) -> bool,
) -> String {
    let argument = context(error, ContextKind::InvalidArg);
    let value = context(error, ContextKind::InvalidValue);
    // Clap describes an option with the name of its value: `--event-timeout-ms <MS>`.
    let flag = argument.split([' ', '=']).next().unwrap_or_default();
    match error.kind() {
        // Values themselves are never refused by clap: one is missing.
        ErrorKind::InvalidValue | ErrorKind::NoEquals | ErrorKind::TooFewValues => {
            missing_sentence(flag, &expected(flag))
        }
        ErrorKind::TooManyValues => {
            format!("{flag}: {} is not accepted; expected no value", quoted(OsStr::new(&value)))
        }
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => unknown(error, &argument),
        ErrorKind::InvalidUtf8 => {
            "an argument that is not UTF-8 is not accepted; expected what fortnight --help lists".to_owned()
        }
        // A flag given twice is none: what is left is a word after options of the server.
        ErrorKind::ArgumentConflict => {
            let word = context(error, ContextKind::InvalidSubcommand);
            if is_subcommand(&word) {
                format!("{word}: not accepted after options of the server; expected fortnight {word}")
            } else {
                unknown(error, &argument)
            }
        }
        _ => first_line(error),
    }
}

fn unknown(error: &clap::Error, argument: &str) -> String {
    let subcommand = context(error, ContextKind::InvalidSubcommand);
    let written = OsStr::new(if argument.is_empty() { subcommand.as_str() } else { argument });
    let similar = match context(error, ContextKind::SuggestedArg) {
        similar if similar.is_empty() => context(error, ContextKind::SuggestedSubcommand),
        similar => similar,
    };
    let expected = match similar.as_str() {
        "" => String::new(),
        similar => format!(" (perhaps {similar})"),
    };
    format!("{}: not known; expected what fortnight --help lists{expected}", quoted(written))
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.first().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
