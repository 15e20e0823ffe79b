//! Who has to show what.

use crate::{
    config::Config,
    proxy::Network,
    server::net::Port,
    time::{MILLISECOND, Micros},
};
use std::net::IpAddr;

/// What the door asks for.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Where proxies are.
    proxies: Vec<Network>,
    /// How long a visitor has.
    pub(super) patience: Micros,
}

/// What a connection has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    /// Nothing: it passes.
    Nothing,
    /// A PROXY header.
    Header,
}

impl Rules {
    /// The rules that a configuration makes. `None`: nobody has to show anything, and no door is needed.
    #[must_use]
    pub fn new(config: &Config) -> Option<Self> {
        let proxies = config.proxy_protocol_from.clone();
        let patience = config.login_timeout_ms * MILLISECOND;
        (!proxies.is_empty()).then_some(Self { proxies, patience })
    }

    pub(super) fn shows(&self, port: Port, peer: IpAddr) -> Shows {
        let is_for_proxies = matches!(port, Port::User | Port::Source);
        if is_for_proxies && self.proxies.iter().any(|proxy| proxy.contains(peer)) {
            Shows::Header
        } else {
            Shows::Nothing
        }
    }
}
