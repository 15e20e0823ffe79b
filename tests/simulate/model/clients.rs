//! What the server does to the connections on the user port: what it reads of them, writes to them, owes them, and why
//! they end.

use std::io::ErrorKind;

use fortnight::internals::{
    config::SlowUserPolicy, counters::DisconnectReason, server::Phase, time::MILLISECOND,
};

use super::{Model, Report};
use crate::{chaos::Arrivals, coverage::Coverage, people::Client, watch::Seen};

/// Most that is put off for a user with `busyPoll`, although its socket might take it.
const PUT_OFF_BYTES: usize = 16 << 10;

/// Turns within which the socket of a connection that is over has to be closed. A crowd is closed little by little.
const CLOSING_TURNS: u64 = 100;

/// The end of a connection: the server does not want to hear of it any more, and closes its socket, soon or at once.
impl Model {
    pub(super) fn client_ends(&mut self, peer: usize) {
        if let Some(client) = self.people.clients.get_mut(&peer) {
            client.closed = true;
            self.ending.insert(peer, self.turn);
        }
    }

    pub(super) fn client_lingers(&mut self, peer: usize, coverage: &mut Coverage) {
        self.ending.remove(&peer);
        if let Some(client) = self.people.clients.get_mut(&peer) {
            client.closed = true;
            coverage.count("users: linger");
        }
    }

    pub(super) fn client_closes(&mut self, peer: usize, coverage: &mut Coverage) {
        if self.ending.remove(&peer) < Some(self.turn) {
            coverage.count("users: closed in a later turn");
        }
    }

    pub(super) fn check_ending(&self) -> Result<(), String> {
        match self.ending.iter().find(|&(_, since)| since + CLOSING_TURNS < self.turn) {
            Some((peer, _)) => Err(format!("connection {peer} is over, and its socket is still open")),
            None => Ok(()),
        }
    }
}

impl Model {
    pub(super) fn client_read(
        &mut self,
        peer: usize,
        outcome: &Result<Vec<u8>, ErrorKind>,
        rest: &[Seen],
        report: &Report,
        arrivals: &Arrivals,
        coverage: &mut Coverage,
    ) -> Result<(), String> {
        let is_over = self.people.clients.get(&peer).is_some_and(|client| {
            !client.is_user() && (client.deadline <= self.now.now || report.phase != Phase::Running)
        });
        if is_over && is_read_off(peer, rest) {
            // Nobody looks at it any more; but perhaps it was that which ended it.
            if let Some(client) = self.people.clients.get_mut(&peer) {
                note_end(client, outcome);
                client.hear(outcome.as_deref().unwrap_or_default());
            }
            return Ok(());
        }
        let Ok(bytes) = outcome else {
            if let Some(client) = self.people.clients.get_mut(&peer) {
                note_end(client, outcome);
            }
            return Ok(());
        };
        if bytes.is_empty() {
            if let Some(client) = self.people.clients.get_mut(&peer) {
                client.cause(DisconnectReason::Left);
            }
            return Ok(());
        }
        if is_budget_used_up(peer, rest) {
            coverage.count("users: budget used up");
        }
        let connected = self.people.users();
        if self.people.read(peer, bytes) {
            if self.people.users() == connected {
                coverage.count("users: takes over an id");
            }
            let arrived = arrivals.logins.get(&peer).copied().unwrap_or(u64::MAX);
            let known = arrivals.trouble.max(self.accepting_since);
            if arrived < self.people.latest && known < arrived {
                return Err(format!(
                    "an event that arrived after the login of connection {peer} was served before it"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn wrote(
        &mut self,
        peer: usize,
        offered: usize,
        outcome: &Result<Vec<u8>, ErrorKind>,
    ) -> Result<(), String> {
        self.people.is_late = true;
        let client = self.people.clients.get_mut(&peer).filter(|client| client.is_user());
        let client = client.ok_or(format!("connection {peer} was written to, and has not logged in"))?;
        match outcome {
            Ok(bytes) => {
                client.written.extend_from_slice(bytes);
                // Of one that does not take all, the server offers the rest of a line that is partly written.
                client.short = bytes.len() < offered || (client.short && offered < client.refused);
                client.refused = offered - bytes.len();
                self.written += bytes.len() as u64;
                if client.level() <= self.config.user_buffer_bytes {
                    client.behind_since = None;
                }
            }
            Err(ErrorKind::WouldBlock) => (client.short, client.refused) = (true, offered),
            Err(ErrorKind::Interrupted) => {}
            Err(kind) => client.cause(end_of(*kind)),
        }
        Ok(())
    }

    pub(super) fn check_clients(&mut self, report: &Report, coverage: &mut Coverage) -> Result<(), String> {
        let before: u64 = self.closed.iter().sum();
        let after: u64 = report.counters.users_disconnected.iter().sum();
        let mut causes = Vec::new();
        let mut buffered = 0;
        self.people.split_turn(self.config.busy_poll);
        let peers: Vec<usize> = self.people.clients.keys().copied().collect();
        for peer in peers {
            self.check_stream(peer)?;
            if let Some(found) = self.check_end(peer, report, coverage)? {
                causes.push(found);
                self.people.forget(peer);
            } else {
                buffered += self.check_buffer(peer, report, coverage)?;
            }
        }
        if buffered != report.buffered_bytes {
            return Err(format!(
                "{} bytes are said to wait for users, but it is {buffered}",
                report.buffered_bytes
            ));
        }
        if after - before != causes.len() as u64 {
            return Err(format!(
                "{} users are said to have gone, but it is {}",
                after - before,
                causes.len()
            ));
        }
        for end in DisconnectReason::ALL {
            let said =
                (report.counters.users_disconnected[end as usize] - self.closed[end as usize]) as usize;
            let surely = causes.iter().filter(|causes| **causes == [end as usize]).count();
            let perhaps = causes.iter().filter(|causes| causes.contains(&(end as usize))).count();
            if said < surely || said > perhaps {
                return Err(format!(
                    "{said} users are said to have gone as \"{}\", but it is {surely} to {perhaps}",
                    end.name()
                ));
            }
            self.closed[end as usize] = report.counters.users_disconnected[end as usize];
        }
        Ok(())
    }

    /// What was written must be the beginning of what was owed.
    fn check_stream(&mut self, peer: usize) -> Result<(), String> {
        let Some(client) = self.people.clients.get_mut(&peer) else {
            return Ok(());
        };
        if !client.owed.starts_with(&client.written) {
            let same =
                client.owed.iter().zip(&client.written).take_while(|(owed, written)| owed == written).count();
            let from = same.saturating_sub(20);
            let part = |bytes: &[u8]| {
                bytes[from.min(bytes.len())..bytes.len().min(same + 60)].escape_ascii().to_string()
            };
            return Err(format!(
                "connection {peer} was sent \"{}\" where it was owed \"{}\"",
                part(&client.written),
                part(&client.owed)
            ));
        }
        client.owed.drain(..client.written.len());
        client.written.clear();
        Ok(())
    }

    /// Nobody holds up the others for longer in all than a share of the time.
    pub(super) fn check_share(&mut self, report: &Report) -> Result<(), String> {
        let timeout = self.config.slow_user_timeout_ms * MILLISECOND;
        let paused = report.counters.paused_slow_user - self.last.counters.paused_slow_user;
        let half = self.config.user_buffer_bytes / 2;
        let clients = self.people.clients.values();
        match self.held_up.turn(clients, report.paused, paused, half, timeout, self.now.now) {
            Some(id) => {
                Err(format!("user {id} has held up the others for longer than its share of the time"))
            }
            None => Ok(()),
        }
    }

    /// If a connection is closed: what for it may be. Nobody is closed without a reason, and nobody who has to be stays.
    fn check_end(
        &mut self,
        peer: usize,
        report: &Report,
        coverage: &mut Coverage,
    ) -> Result<Option<Vec<usize>>, String> {
        let now = self.now.now;
        let timeout = self.config.slow_user_timeout_ms * MILLISECOND;
        let (turn, turn_began) = (self.turn, self.turn_began);
        let client = self.people.clients.get_mut(&peer).expect("it has been looked up");
        let level = client.owed.len();
        let (half, most) = (self.config.user_buffer_bytes / 2, self.config.user_buffer_bytes);
        // What is closed may have been sent the rest of a line before.
        let rest = if client.closed { self.config.max_event_bytes } else { 0 };
        if level + rest > half {
            client.above_half_since.get_or_insert(now);
        } else {
            client.above_half_since = None;
        }
        if level <= most {
            client.behind_since = None;
        } else {
            client.behind_since.get_or_insert((now, turn));
        }
        if !client.closed {
            if !client.causes.is_empty() {
                return Err(format!("connection {peer} should have been closed"));
            }
            if !client.is_user() && client.deadline <= turn_began && report.phase == Phase::Running {
                return Err(format!("connection {peer} should have logged in by now"));
            }
            let waits = self.config.slow_user_policy == SlowUserPolicy::Wait;
            if waits
                && client
                    .behind_since
                    .is_some_and(|(since, began)| began < turn && since + timeout <= turn_began)
            {
                return Err(format!("connection {peer} has been behind for longer than slowUserTimeoutMs"));
            }
            return Ok(None);
        }
        if !client.is_user() && client.deadline <= now {
            client.cause(DisconnectReason::LoginTimeout);
            coverage.count("deadline: login");
        }
        match self.config.slow_user_policy {
            SlowUserPolicy::Disconnect if level + self.config.max_event_bytes > most => {
                client.cause(DisconnectReason::Slow);
                coverage.count("users: cut off by policy");
            }
            SlowUserPolicy::Wait if client.above_half_since.is_some_and(|since| since + timeout <= now) => {
                client.cause(DisconnectReason::Slow);
                coverage.count("deadline: slow user");
            }
            // Users may have held up the others for longer than their share by now.
            SlowUserPolicy::Wait if client.above_half_since.is_some() && self.now.paused > timeout => {
                client.cause(DisconnectReason::Slow);
                coverage.count("users: share used up");
            }
            _ => {}
        }
        if report.phase != Phase::Running {
            let due = self.shutdown_at.unwrap_or(now + self.config.shutdown_timeout_ms * MILLISECOND) <= now;
            if level == 0 || due {
                client.cause(DisconnectReason::Closed);
            }
            if level > 0 && due {
                coverage.count("deadline: shutdown");
            }
        }
        if client.causes.is_empty() {
            return Err(format!(
                "connection {peer} was closed without a reason, {level} bytes being owed to it"
            ));
        }
        if client.causes.iter().all(|&cause| cause == DisconnectReason::Replaced as usize)
            && level > 0
            && !client.short
        {
            return Err(format!("connection {peer} was replaced before it had what it was owed"));
        }
        Ok(Some(client.causes.iter().copied().collect()))
    }

    /// Checks what waits for a connection, and returns how much that is.
    fn check_buffer(&self, peer: usize, report: &Report, coverage: &mut Coverage) -> Result<usize, String> {
        let client = &self.people.clients[&peer];
        let level = client.owed.len();
        let most = self.config.user_buffer_bytes;
        let is_put_off = client.is_put_off() && self.config.busy_poll && level <= PUT_OFF_BYTES.min(most / 2);
        coverage.add("busyPoll: put off", u64::from(is_put_off));
        if level > 0 && !client.short && !is_put_off {
            return Err(format!(
                "{level} bytes wait for connection {peer}, whose socket has not refused them"
            ));
        }
        if client.wants_write != (level > 0) && !is_put_off {
            return Err(format!(
                "{level} bytes wait for connection {peer}, and whether being writable is told is {}",
                client.wants_write
            ));
        }
        let turn = (most / 2).clamp(4096, 512 << 10) + self.config.max_event_bytes;
        if level > most + 2 * turn {
            return Err(format!(
                "{level} bytes wait for connection {peer}, more than {most} and what two turns may add"
            ));
        }
        if level > most && !report.paused && report.phase == Phase::Running {
            return Err(format!("{level} bytes wait for connection {peer}, and nothing is done about it"));
        }
        Ok(level)
    }
}

/// Whether a read of a connection is one of those right before it is closed.
fn is_read_off(peer: usize, rest: &[Seen]) -> bool {
    let next = rest.iter().find(|seen| !matches!(seen, Seen::Read(other, _) if *other == peer));
    matches!(next, Some(Seen::Forgotten(other) | Seen::Closed(other) | Seen::Finished(other)) if *other == peer)
}

/// Whether a connection has been read as often as is allowed at once.
fn is_budget_used_up(peer: usize, rest: &[Seen]) -> bool {
    let read =
        |seen: &&Seen| matches!(seen, Seen::Read(other, Ok(bytes)) if *other == peer && !bytes.is_empty());
    rest.iter().take_while(read).count() == 16
}

fn note_end(client: &mut Client, outcome: &Result<Vec<u8>, ErrorKind>) {
    match outcome {
        Ok(bytes) if bytes.is_empty() => client.cause(DisconnectReason::Left),
        Ok(_) | Err(ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        Err(kind) => client.cause(end_of(*kind)),
    }
}

/// What an error says about how a user went.
pub(super) fn end_of(kind: ErrorKind) -> DisconnectReason {
    match kind {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
            DisconnectReason::Left
        }
        _ => DisconnectReason::Error,
    }
}
