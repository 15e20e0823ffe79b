//! The signals of this process.

use crate::server::net::Ready;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use std::io;

/// Signals that end the server. The first signal ends it gracefully, the second one at once.
const ENDING: [i32; 2] = [SIGTERM, SIGINT];
/// Signals that would kill the server without need: a terminal that has gone, which has certificates and keys read again,
/// and a file at its size limit, which the write reports itself.
const HARMLESS: [i32; 2] = [SIGHUP, SIGXFSZ];

/// Signals as readiness of the loop.
pub(super) struct Signals(signal_hook_mio::v1_0::Signals);

impl Signals {
    /// Takes them from the process. The poll tells of them under `token`.
    pub(super) fn take(registry: &Registry, token: Token) -> io::Result<Self> {
        let mut signals = signal_hook_mio::v1_0::Signals::new(ENDING.into_iter().chain(HARMLESS))?;
        registry.register(&mut signals, token, Interest::READABLE)?;
        Ok(Self(signals))
    }

    /// Those that have come since.
    pub(super) fn pending(&mut self) -> impl Iterator<Item = Ready> + use<'_> {
        self.0.pending().filter_map(|signal| match signal {
            SIGHUP => Some(Ready::Reload),
            signal => ENDING.contains(&signal).then_some(Ready::Signal),
        })
    }
}
