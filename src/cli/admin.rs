//! `--admin URL`: the server that `fortnight health` and `fortnight top` ask.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, ValueHint};

use super::{
    exit::{Exit, refuse},
    serve,
    value::AnyValue,
};
use crate::{config::Config, http_client::AdminUrl};

const ADMIN: &str = "admin";

/// What [`ADMIN`] accepts.
pub(super) const EXPECTED_URL: &str = "http://HOST:PORT";

/// `--admin URL`, for subcommands that talk to a running server; [`url`] reads it.
pub(super) fn argument() -> Arg {
    Arg::new(ADMIN)
        .long(ADMIN)
        .value_name("URL")
        .help(
            "Where its admin interface is, as http://HOST:PORT; without, adminPort and adminBindAddress say",
        )
        .value_parser(AnyValue::FREE)
        .value_hint(ValueHint::Url)
}

/// What `--admin` says, and else the server's own variables.
pub(super) fn url(
    matches: &ArgMatches,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<AdminUrl, Exit> {
    if let Some(url) = matches.get_one::<OsString>(ADMIN) {
        let admin = url.to_str().and_then(|url| url.parse().ok());
        return admin.ok_or_else(|| refuse("--admin", url, EXPECTED_URL));
    }
    let mut config = Config::default();
    for name in ["adminPort", "adminBindAddress"] {
        serve::read_variable(name, &variable, &mut config)?;
    }
    match config.admin_port {
        Some(port) if port != 0 => Ok(AdminUrl::local(config.admin_bind_address, port)),
        _ => Err(Exit::refused(format_args!(
            "--admin: a value is missing; expected {EXPECTED_URL}, or a port in adminPort"
        ))),
    }
}
