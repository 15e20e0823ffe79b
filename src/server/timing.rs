//! How long events and turns take, as operators are told ([`crate::latency`]).
//!
//! The clock is read once for each delivery that hands something out, and once at the end of a turn.

use super::{net::Net, state::Server};
use crate::time::Micros;

impl<N: Net> Server<N> {
    /// What has been released has just been handed to the sockets of its users, or put into their buffers.
    pub(super) fn note_delivery(&mut self) {
        let Self { engine, net, watch, now, .. } = self;
        if !engine.has_arrivals() {
            return;
        }
        let handed_out = net.clock();
        engine.take_arrivals(*now, |arrival| {
            let latency = &mut watch.latency;
            latency.delivery.observe(handed_out.saturating_sub(arrival.at), arrival.events);
            if arrival.waited {
                latency.reorder.observe(now.saturating_sub(arrival.at), arrival.events);
            }
        });
    }

    /// The turn that began at `began`, when something was ready, is over.
    pub(super) fn note_turn(&mut self, began: Micros) {
        self.watch.latency.turn.observe(self.net.clock().saturating_sub(began), 1);
    }
}
