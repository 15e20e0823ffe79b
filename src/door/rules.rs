//! The rules of the door: the things that a connection on each port must show.

use super::certificates::{Certificates, Trust};
use crate::{
    config::Config,
    server::net::Port,
    time::{MILLISECOND, Micros},
};
use rustls::{ClientConfig, ServerConfig};
use std::{net::IpAddr, sync::Arc};

/// The configuration of the door.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    config: Config,
    /// `None`: nobody speaks TLS.
    certificates: Option<Certificates>,
    /// `None`: the stream, if there is one, is spoken to in clear.
    trust: Option<Trust>,
    /// The time after which a pending connection is closed.
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
        let trust = Trust::load(config)?;
        if config.proxy_protocol_from.is_empty() && certificates.is_none() && trust.is_none() {
            return Ok(None);
        }
        let patience = config.login_timeout_ms * MILLISECOND;
        Ok(Some(Self { config: config.clone(), certificates, trust, patience }))
    }

    /// Whether a connection begins with a PROXY header.
    pub(super) fn has_header(&self, port: Port, peer: IpAddr) -> bool {
        let is_for_proxies = matches!(port, Port::User | Port::Source);
        is_for_proxies && self.config.proxy_protocol_from.iter().any(|proxy| proxy.contains(peer))
    }

    /// Whether anybody has to show something on a port.
    pub(super) fn asks_something(&self, port: Port) -> bool {
        let may_be_proxies = matches!(port, Port::User | Port::Source);
        self.tls(port).is_some() || (may_be_proxies && !self.config.proxy_protocol_from.is_empty())
    }

    /// The TLS configuration of a port that speaks TLS.
    pub(super) fn tls(&self, port: Port) -> Option<&Arc<ServerConfig>> {
        self.certificates.as_ref()?.of(port)
    }

    /// When this server's certificates run out, in seconds from the beginning of 1970, and the options that name them.
    pub(super) fn expiries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let own = self.certificates.as_ref().and_then(|certificates| certificates.expires);
        let stream = self.trust.as_ref().and_then(|trust| trust.expires);
        let named = [("tlsCertificate", own), ("streamCertificate", stream)];
        named.into_iter().filter_map(|(option, at)| Some((option, at?)))
    }

    /// The TLS configuration for the stream.
    pub(super) fn stream_tls(&self) -> Option<&Arc<ClientConfig>> {
        self.trust.as_ref().map(|trust| &trust.config)
    }

    /// Reads certificates, keys and authorities again. If one of them is not valid, the old ones stay.
    pub(super) fn reload(&mut self) {
        if self.certificates.is_none() && self.trust.is_none() {
            return;
        }
        let loaded = Certificates::load(&self.config)
            .and_then(|certificates| Ok((certificates, Trust::load(&self.config)?)));
        match loaded {
            Ok((certificates, trust)) => {
                (self.certificates, self.trust) = (certificates, trust);
                log::info!("certificates have been read again");
            }
            Err(reason) => {
                log::error!(reason; "certificates stay as they were: the new ones are no good");
            }
        }
    }
}
