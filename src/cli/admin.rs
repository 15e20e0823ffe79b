//! `--admin URL`: the server that `fortnight health` and `fortnight top` ask.

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgMatches, ValueHint};

use super::{
    exit::{Exit, refuse},
    serve,
    value::AnyValue,
};
use crate::{config::Config, http_client::AdminUrl, server::net::Port};

const ADMIN: &str = "admin";

const TLS_CA: &str = "tls-ca";

/// What [`ADMIN`] accepts.
pub(super) const EXPECTED_URL: &str = "http://HOST:PORT or https://HOST:PORT";
/// What [`TLS_CA`] accepts.
const EXPECTED_FILE: &str = "a PEM file with an authority";

/// `--admin URL` and `--tls-ca FILE`, for subcommands that talk to a running server; [`url`] reads them.
pub(super) fn arguments() -> [Arg; 2] {
    let admin = Arg::new(ADMIN)
        .long(ADMIN)
        .value_name("URL")
        .help(
            "Where its admin interface is, as http://HOST:PORT or https://HOST:PORT; without, adminPort and adminBindAddress say",
        )
        .value_parser(AnyValue::FREE)
        .value_hint(ValueHint::Url);
    let authority = Arg::new(TLS_CA)
        .long(TLS_CA)
        .value_name("FILE")
        .help("PEM file with the authority that the server is trusted for; it speaks TLS then")
        .value_parser(AnyValue::FREE)
        .value_hint(ValueHint::FilePath);
    [admin, authority]
}

/// The accepted values of a flag.
pub(super) fn expected(flag: &str) -> Option<&'static str> {
    (flag.strip_prefix("--")? == TLS_CA).then_some(EXPECTED_FILE)
}

/// What `--admin` says, and else the server's own variables.
pub(super) fn url(
    matches: &ArgMatches,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<AdminUrl, Exit> {
    let authority = matches.get_one::<OsString>(TLS_CA).map(PathBuf::from);
    if let Some(url) = matches.get_one::<OsString>(ADMIN) {
        let admin: AdminUrl = url
            .to_str()
            .and_then(|url| url.parse().ok())
            .ok_or_else(|| refuse("--admin", url, EXPECTED_URL))?;
        return match authority {
            None if admin.lacks_authority() => Err(missing_authority()),
            None => Ok(admin),
            Some(_) if url.to_str().is_some_and(|url| url.starts_with("http://")) => {
                Err(refuse("--admin", url, "https://HOST:PORT together with --tls-ca"))
            }
            Some(authority) => Ok(admin.trusting(authority)),
        };
    }
    let mut config = Config::default();
    for name in ["adminPort", "adminBindAddress", "tlsCertificate", "tlsPorts"] {
        serve::read_variable(name, &variable, &mut config)?;
    }
    match (config.admin_port, authority) {
        (Some(port), Some(authority)) if port != 0 => {
            Ok(AdminUrl::local(config.admin_bind_address, port).trusting(authority))
        }
        (Some(_), None) if config.speaks_tls(Port::Admin) => Err(missing_authority()),
        (Some(port), None) if port != 0 => Ok(AdminUrl::local(config.admin_bind_address, port)),
        _ => Err(Exit::refused(format_args!(
            "--admin: a value is missing; expected {EXPECTED_URL}, or a port in adminPort"
        ))),
    }
}

fn missing_authority() -> Exit {
    Exit::refused(format_args!(
        "--tls-ca: a value is missing, and the admin interface speaks TLS; expected {EXPECTED_FILE}"
    ))
}
