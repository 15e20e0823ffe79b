//! When things happen in a turn that the log of what the server does to its network does not show.

use std::collections::BTreeSet;

use fortnight::internals::server::net::Port;

use super::Model;
use crate::{people::Client, watch::Seen};

/// Is in the sentence of what may be wrong, or not. With `busyPoll` a user that logs in while a turn releases events may be owed nothing, or
/// something that was put off: not every turn shows which. Such a run is given up. There must be few of them.
pub(crate) const CANNOT_TELL: &str = "the log does not tell";

/// When they happen: after so many things that the log shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// What has been read is taken, and released as far as nothing is missing. Else with the next read of a source, or at the end.
    pub(super) taken_at: Option<usize>,
    /// What is released is released.
    pub(super) released_at: usize,
    /// Some was released before a login that was read late, and some after it.
    pub(super) is_in_between: bool,
}

/// What there is in the log of a turn.
struct Kinds<'a> {
    model: &'a Model,
    new_sources: BTreeSet<usize>,
}

impl Kinds<'_> {
    fn is_source(&self, peer: &usize) -> bool {
        self.model.ring.sources.contains_key(peer) || self.new_sources.contains(peer)
    }

    fn reads_source(&self, seen: &Seen) -> bool {
        matches!(seen, Seen::Read(peer, _) if self.is_source(peer))
    }

    fn is_login(&self, seen: &Seen) -> bool {
        let is_user = |peer| self.model.people.clients.get(peer).is_some_and(Client::is_user);
        matches!(seen, Seen::Read(peer, Ok(bytes)) if !bytes.is_empty()
            && !self.model.ending.contains_key(peer)
            && !self.is_source(peer)
            && !is_user(peer))
    }
}

impl Model {
    fn kinds(&self, log: &[Seen]) -> Kinds<'_> {
        let is_new_source = |seen: &Seen| match seen {
            Seen::Accepted(Port::Source, peer) => Some(*peer),
            _ => None,
        };
        Kinds { model: self, new_sources: log.iter().filter_map(is_new_source).collect() }
    }

    /// What is possible: what is usual, and what else there may be.
    pub(super) fn orders(&self, log: &[Seen]) -> (Vec<Order>, Vec<Order>) {
        let kinds = self.kinds(log);
        let is_login = |seen: &Seen| kinds.is_login(seen);
        let reads_source = |seen: &Seen| kinds.reads_source(seen);
        let first_login_from = |from: usize| log[from..].iter().position(is_login).map(|at| from + at);
        let last = Order { taken_at: None, released_at: log.len(), is_in_between: false };
        let (mut usual, mut others) = (vec![last], Vec::new());
        // What a source sent may have been released before a login was read that came later.
        let read = log.iter().rposition(reads_source);
        let login = read.and_then(first_login_from);
        others.extend(login.map(|at| Order { taken_at: Some(at), ..last }));
        // What was written may have been: before any login that was read after a write.
        let mut has_written = false;
        for (at, seen) in log.iter().enumerate() {
            has_written |= matches!(seen, Seen::Wrote(..));
            if Some(at) > read && is_login(seen) && std::mem::take(&mut has_written) {
                let orders = if usual.len() == 1 { &mut usual } else { &mut others };
                orders.push(Order { released_at: at, ..last });
            }
        }
        (usual, others)
    }

    /// The order for a turn with a late login that none of those explains. Then what was written says what was released before it.
    pub(super) fn in_between(&self, log: &[Seen]) -> Option<Order> {
        let kinds = self.kinds(log);
        let first =
            log.iter().position(|seen| matches!(seen, Seen::Wrote(..)) || kinds.reads_source(seen))?;
        let is_late = log[first..].iter().any(|seen| kinds.is_login(seen));
        is_late.then_some(Order { taken_at: None, released_at: log.len(), is_in_between: true })
    }
}

/// What is possible of several possibilities; else what is wrong with the first.
pub(super) fn any(models: impl Iterator<Item = Result<Vec<Model>, String>>) -> Result<Vec<Model>, String> {
    let (mut possible, mut wrong) = (Vec::new(), None);
    for models in models {
        match models {
            Ok(models) => possible.extend(models),
            Err(problem) => _ = wrong.get_or_insert(problem),
        }
    }
    match wrong {
        Some(problem) if possible.is_empty() => Err(problem),
        _ => Ok(possible),
    }
}
