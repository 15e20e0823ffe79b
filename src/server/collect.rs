//! Asks the net which connections are ready, and for the time. Nothing else happens here.

use super::{
    key::{Key, StreamKey},
    net::{Net, Port, Ready},
    state::Server,
    watch::PauseReason,
};
use crate::time::Micros;
use std::io;

impl<N: Net> Server<N> {
    /// Asks the net which connections are ready, and notes them down. Nothing else happens here.
    pub(super) fn collect(&mut self, wait: Option<Micros>) -> io::Result<()> {
        self.ready.clear();
        let polled = self.net.poll(wait, &mut self.ready);
        let now = polled.map_err(|error| io::Error::other(format!("cannot wait for events: {error}")))?;
        self.pass_time(now);
        for index in 0..self.ready.len() {
            match self.ready[index] {
                Ready::Listener(Port::Admin) => self.admin.note_listener(now),
                Ready::Listener(port) => self.accepting.note_ready(port),
                Ready::Signal => self.lifecycle.note_signal(),
                Ready::Reload => self.users.tokens.reload(&self.config),
                // The next turn of the journal looks at what that is.
                Ready::Disk => {}
                Ready::Socket { key, readable, writable, hung_up, urgent } => match Key::of(key) {
                    Key::Source(key) => self.sources.note_ready(key, hung_up, urgent),
                    Key::User(key) => self.users.note_ready(key, readable, hung_up, writable),
                    Key::Admin(key) => self.admin.note_ready(key),
                    Key::Stream(StreamKey::UPSTREAM) => {
                        self.note_stream_ready(readable || hung_up, writable);
                    }
                    Key::Stream(key) => self.stream_clients.note_ready(key, readable || hung_up, writable),
                },
            }
        }
        Ok(())
    }

    pub(super) fn pass_time(&mut self, now: Micros) {
        let paused = if self.congestion.is_paused() {
            Some(PauseReason::SlowUser)
        } else if self.is_log_closed() {
            Some(PauseReason::Stream)
        } else {
            (self.is_barred() || self.catch_up.holds_sources()).then_some(PauseReason::Journal)
        };
        if !self.is_paused() && self.catch_up.holds_sources() {
            // The other reasons are counted when they end.
            self.engine.postpone(now - self.now);
        }
        let any_blocked = self.sources.blocked() > 0;
        let stream_away = self.stream_away();
        self.watch.pass_time(self.now, now, paused, any_blocked, stream_away);
        if self.watch.wants_sample(now) {
            let released = self.engine.counters.events_released_total();
            self.watch.record(self.now, now, released, self.deliveries());
        }
        let most_wait_for_nothing =
            self.users.most_have_nothing_waiting(self.engine.users() + self.catch_up.users());
        self.congestion.pass_time(most_wait_for_nothing && !self.is_barred(), now);
        self.now = now;
    }

    /// The connection to the stream has become readable or writable.
    fn note_stream_ready(&mut self, readable: bool, writable: bool) {
        if let Some(upstream) = &mut self.upstream {
            upstream.link_mut().note_ready(readable, writable);
        }
        if let Some(replicated) = &mut self.replicated {
            replicated.link_mut().note_ready(readable, writable);
        }
    }
}
