//! The rules of the door: the things that a connection on each port must show.

use super::certificates::Certificates;
use crate::{
    config::Config,
    server::net::Port,
    time::{MILLISECOND, Micros},
};
use rustls::ServerConfig;
use std::{net::IpAddr, sync::Arc};

/// The configuration of the door.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    config: Config,
    /// `None`: nobody speaks TLS.
    certificates: Option<Certificates>,
    /// How long a visitor has.
    pub(super) patience: Micros,
}

impl Rules {
    /// The rules that a configuration makes. `None`: nobody has to show anything, and no door is needed.
    ///
    /// # Errors
    ///
    /// If a file of certificates or keys cannot be read or makes no sense: one sentence that names the option.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, String> {
        let certificates = Certificates::load(config)?;
        if config.proxy_protocol_from.is_empty() && certificates.is_none() {
            return Ok(None);
        }
        let patience = config.login_timeout_ms * MILLISECOND;
        Ok(Some(Self { config: config.clone(), certificates, patience }))
    }

    /// Whether a connection begins with a PROXY header.
    pub(super) fn has_header(&self, port: Port, peer: IpAddr) -> bool {
        let is_for_proxies = matches!(port, Port::User | Port::Source);
        is_for_proxies && self.config.proxy_protocol_from.iter().any(|proxy| proxy.contains(peer))
    }

    /// The TLS configuration of a port that speaks TLS.
    pub(super) fn tls(&self, port: Port) -> Option<&Arc<ServerConfig>> {
        self.certificates.as_ref()?.of(port)
    }

    /// When the server's certificate runs out, in seconds from the beginning of 1970.
    pub(super) fn certificate_expires(&self) -> Option<u64> {
        self.certificates.as_ref()?.expires
    }

    /// Reads certificates, keys and authorities anew. If one of them is no good, the old ones stay.
    pub(super) fn reload(&mut self) {
        if self.certificates.is_none() {
            return;
        }
        match Certificates::load(&self.config) {
            Ok(certificates) => {
                self.certificates = certificates;
                log::info!("certificates have been read anew");
            }
            Err(reason) => {
                log::error!(reason; "certificates stay as they were: the new ones are no good");
            }
        }
    }
}
