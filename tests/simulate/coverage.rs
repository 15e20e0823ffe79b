//! What the runs have come across.

use std::{collections::BTreeMap, fmt};

use fortnight::internals::{counters::DisconnectReason, engine::event::Reject};

use crate::{
    chaos::{ACCEPT_FAILURES, READ_BREAKS, WRITE_BREAKS},
    lives,
};

/// How often what happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(BTreeMap<String, u64>);

/// What must happen in any large number of runs, besides what the counters name.
const REQUIRED: [&str; 45] = [
    "far end: finishes",
    "far end: closes",
    "far end: resets",
    "far end: nothing, and yet an edge",
    "far end: in the middle of a turn",
    "read: cut",
    "read: EINTR",
    "read: EAGAIN",
    "write: cut",
    "write: EINTR",
    "write: EAGAIN",
    "register: ENOMEM or ENOSPC",
    "change of interest: ENOMEM or ENOSPC",
    "signal",
    "time: jump",
    "time: passes while users are let in",
    "deadline: hole",
    "deadline: hole, timeout 0",
    "deadline: login",
    "deadline: slow user",
    "deadline: accepting again",
    "deadline: shutdown",
    "ring full: hole given up",
    "ring full: waits for ever",
    "ring full: source held back",
    "run: new one begins",
    "run: there are no more numbers",
    "users: pause begins",
    "users: pause ends",
    "users: takes over an id",
    "users: closed in a later turn",
    "users: linger",
    "users: cut off by policy",
    "users: share used up",
    "busyPoll: put off",
    "busyPoll: nothing to do",
    "connections: source too many",
    "connections: user too many",
    "lines: late",
    "lines: duplicate",
    "sources: budget used up",
    "users: budget used up",
    "end: asked to, in time",
    "end: asked to, twice",
    "end: nothing left to do",
];

impl Coverage {
    pub(crate) fn count(&mut self, what: &str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&mut self, what: &str, times: u64) {
        match self.0.get_mut(what) {
            Some(count) => *count += times,
            None if times > 0 => _ = self.0.insert(what.to_owned(), times),
            None => {}
        }
    }

    pub(crate) fn times(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn merge(&mut self, other: &Coverage) {
        for (what, &times) in &other.0 {
            self.add(what, times);
        }
    }

    /// What has never happened, though it should have. Edges, tokens and `maxSequenceJump` are not simulated.
    pub(crate) fn missing(&self) -> Vec<String> {
        let ends = DisconnectReason::ALL.iter().map(|end| format!("users: {}", end.name()));
        let rejects = Reject::ALL.iter().map(|reason| format!("lines: {}", reason.name()));
        let faults = [READ_BREAKS.as_slice(), &WRITE_BREAKS, &ACCEPT_FAILURES].concat();
        let required = REQUIRED.iter().chain(&lives::REQUIRED).copied();
        let others = required.chain(faults).map(str::to_owned);
        let is_simulated = |what: &String| {
            !["users: gone", "users: epoch", "users: bad_token", "users: token_expired", "lines: too_far"]
                .contains(&what.as_str())
        };
        let all = ends.chain(rejects).chain(others);
        all.filter(is_simulated).filter(|what| !self.0.contains_key(what)).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, times) in &self.0 {
            writeln!(f, "  {what:<42}{times:>12}")?;
        }
        Ok(())
    }
}
