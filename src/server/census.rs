//! Who is connected, and what each connection has taken or sent of late: for the status page, `fortnight top` and
//! `fortnight clients`.
//!
//! Nothing is done while nobody asks. A request looks at [`LOOKED_AT`] connections of the user port at most, and goes on
//! where the last one stopped; those that stood out are looked at each time. So a request costs the same however many users
//! there are, and with many users it takes a few requests until every one has been looked at. A rate is what has been
//! sent or taken since a connection was looked at last, over the time since then.

use super::{catch_up::CatchUp, key::UserKey, sources::Sources, users::Users};
use crate::{
    admin::people::{Page, People, SourceRow, UserRow},
    sequence::Cursor,
    time::{MILLISECOND, Micros, SECOND},
};
use std::cmp::Reverse;

/// Connections that one request looks at.
const LOOKED_AT: usize = 8192;
/// Connections on one page of all.
const PAGE_ROWS: usize = 1000;
/// Users that are named for each reason to stand out.
const NAMED: usize = 12;
/// Sources that are named.
const SOURCES_NAMED: usize = 64;
/// A rate is not taken anew before this time has passed: several people may be looking.
const RATE_TIME: Micros = 500 * MILLISECOND;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Census {
    users: Tallies,
    source_bytes: Tallies,
    source_lines: Tallies,
    /// The key that the next look begins with.
    at: usize,
    /// Those that stood out.
    outstanding: Vec<UserKey>,
}

impl Census {
    /// Looks at some of the users, and names those that stand out.
    pub(super) fn people<S>(
        &mut self,
        sources: &Sources<S>,
        users: &Users<S>,
        catch_up: &CatchUp,
        (cursor, now): (Cursor, Micros),
    ) -> People {
        let end = users.keys_end();
        let looked_at = end.min(LOOKED_AT);
        let fresh = (0..looked_at).map(|step| UserKey::new((self.at + step) % end.max(1)));
        let mut keys: Vec<UserKey> = self.outstanding.drain(..).chain(fresh).collect();
        keys.sort_unstable();
        keys.dedup();
        self.at = (self.at + looked_at) % end.max(1);
        let mut rows = Vec::new();
        for key in keys {
            if let Some(row) = users.row(key, catch_up, cursor, now).filter(|row| row.id.is_some()) {
                let byte_rate = self.users.rate(key.index(), row.age, row.bytes, now);
                rows.push((key, UserRow { byte_rate, ..row }));
            }
        }
        let measures: [fn(&UserRow) -> u128; 4] = [
            |row| row.byte_rate.into(),
            |row| row.waiting_bytes as u128,
            |row| row.behind.unwrap_or(0),
            |row| row.bytes.into(),
        ];
        let mut named: Vec<usize> = Vec::new();
        for measure in measures {
            let mut most: Vec<usize> = (0..rows.len()).filter(|&at| measure(&rows[at].1) > 0).collect();
            if most.len() > NAMED {
                most.select_nth_unstable_by_key(NAMED, |&at| Reverse(measure(&rows[at].1)));
                most.truncate(NAMED);
            }
            named.extend(most);
        }
        named.sort_unstable();
        named.dedup();
        if named.len() < NAMED {
            // There is room for some that do not stand out.
            named.extend(0..rows.len().min(NAMED));
            named.sort_unstable();
            named.dedup();
        }
        self.outstanding.extend(named.iter().map(|&at| rows[at].0));
        let users = named.into_iter().map(|at| rows[at].1.clone()).collect();
        People { sources: self.sources(sources, now), users, looked_at }
    }

    /// All connections with keys from `from` on, as many as fit a page.
    pub(super) fn page<S>(
        &mut self,
        from: usize,
        sources: &Sources<S>,
        users: &Users<S>,
        catch_up: &CatchUp,
        (cursor, now): (Cursor, Micros),
    ) -> Page {
        let end = users.keys_end();
        let mut page = Page::default();
        if from == 0 {
            page.sources = self.sources(sources, now);
        }
        let most = from.saturating_add(LOOKED_AT);
        for index in from..end {
            if page.users.len() == PAGE_ROWS || index == most {
                page.next = Some(index);
                break;
            }
            if let Some(row) = users.row(UserKey::new(index), catch_up, cursor, now) {
                let byte_rate = self.users.rate(index, row.age, row.bytes, now);
                page.users.push(UserRow { byte_rate, ..row });
            }
        }
        page
    }

    fn sources<S>(&mut self, sources: &Sources<S>, now: Micros) -> Vec<SourceRow> {
        let mut rows: Vec<SourceRow> = Vec::new();
        for (index, row) in sources.rows(now).take(SOURCES_NAMED) {
            let byte_rate = self.source_bytes.rate(index, row.age, row.bytes, now);
            let line_rate = self.source_lines.rate(index, row.age, row.lines, now);
            rows.push(SourceRow { byte_rate, line_rate, ..row });
        }
        rows
    }
}

/// What connections had taken or sent when they were looked at last, by their keys.
#[derive(Debug, Default)]
struct Tallies(Vec<Tally>);

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// When the connection came that this is about: keys are given to others later.
    since: Micros,
    at: Micros,
    total: u64,
    rate: u64,
}

impl Tallies {
    /// The rate a second of a connection that came `age` ago and has had `total` in all.
    fn rate(&mut self, index: usize, age: Micros, total: u64, now: Micros) -> u64 {
        if self.0.len() <= index {
            self.0.resize(index + 1, Tally::default());
        }
        let since = now - age.min(now);
        let last = &mut self.0[index];
        if last.since != since || last.at < since || last.total > total {
            *last = Tally { since, at: since, total: 0, rate: 0 };
        }
        let time = now - last.at.min(now);
        if time >= RATE_TIME {
            let rate = u128::from(total - last.total) * u128::from(SECOND) / u128::from(time);
            *last = Tally { since, at: now, total, rate: u64::try_from(rate).unwrap_or(u64::MAX) };
        }
        last.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_counts_the_bytes_since_the_last_look() {
        let mut tallies = Tallies::default();
        let at = |tallies: &mut Tallies, now: Micros, total| tallies.rate(3, now - SECOND, total, now);
        assert_eq!(at(&mut tallies, 3 * SECOND, 100), 50);
        assert_eq!(at(&mut tallies, 3 * SECOND + 1, 900), 50, "too early to say");
        assert_eq!(at(&mut tallies, 4 * SECOND, 1100), 1000);
        assert_eq!(at(&mut tallies, 14 * SECOND, 1100), 0);
        // Another connection has the key.
        assert_eq!(tallies.rate(3, 2 * SECOND, 10, 15 * SECOND), 5);
    }
}
