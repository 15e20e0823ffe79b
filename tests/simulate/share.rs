//! How long each user has held up the others for sure, in all (SPEC section 3).

use std::collections::{BTreeMap, VecDeque};

use fortnight::internals::time::{MILLISECOND, Micros};

use crate::people::Client;

/// The server looks this often at least. What is between two looks that are farther apart may be its own fault.
const LOOK_INTERVAL: Micros = 100 * MILLISECOND;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldUp {
    /// By id: up to when, and for how long.
    times: BTreeMap<u64, VecDeque<(Micros, Micros)>>,
    /// Those who held up the others at the end of the last turn, while most users had nothing waiting.
    slow: Vec<u64>,
}

impl HeldUp {
    /// A turn has ended at `now`, which has seen a pause for `paused`. Says who has held up the others for longer than
    /// `timeout` and still does.
    pub(crate) fn turn<'a>(
        &mut self,
        clients: impl Iterator<Item = &'a Client> + Clone,
        is_paused: bool,
        paused: Micros,
        half: usize,
        timeout: Micros,
        now: Micros,
    ) -> Option<u64> {
        let users = clients.filter_map(|client| Some((client.id()?, client.owed.len())));
        let slow: Vec<u64> = users.clone().filter(|&(_, level)| level > half).map(|(id, _)| id).collect();
        for id in self.slow.iter().filter(|id| is_paused && slow.contains(id)) {
            self.times.entry(*id).or_default().push_back((now, paused.min(LOOK_INTERVAL)));
        }
        let idle = users.clone().filter(|&(_, level)| level == 0).count();
        let counts = is_paused && 2 * idle > users.count();
        self.slow = if counts { slow } else { Vec::new() };
        self.times.retain(|_, times| {
            // The server counts by parts of the stretch: a little less than the stretch is in it for sure.
            while times.front().is_some_and(|&(at, _)| at + 9 * timeout < now) {
                times.pop_front();
            }
            !times.is_empty()
        });
        let sum =
            |id: &u64| self.times.get(id).map_or(0, |times| times.iter().map(|&(_, length)| length).sum());
        self.slow.iter().find(|id| sum(id) > timeout).copied()
    }
}
