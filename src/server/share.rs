//! How much of the others' time slow users have used up (SPEC section 3).
//!
//! A user may hold up the sources in many short pauses, none of which is too long for itself. So the time is summed up, for
//! each id and for all slow users together, over a *stretch* of ten times `slowUserTimeoutMs`.

use crate::time::{MILLISECOND, Micros};
use crate::user_id::UserId;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// How many times `slowUserTimeoutMs` the stretch is.
const STRETCH: u64 = 10;
/// Parts of the stretch that are counted for themselves.
const PARTS: u64 = 100;
/// The shortest time between two checks during a pause.
const LOOK_INTERVAL: Micros = 100 * MILLISECOND;
/// The number of checks within `slowUserTimeoutMs`, where that gives a longer time.
const LOOKS: u64 = 20;
/// Empty accounts are dropped when there are twice as many accounts as after the last time, and this many.
const ACCOUNTS_KEPT: usize = 64;

/// The time that slow users have used up.
#[derive(Debug)]
pub(super) struct Shares {
    /// The time that one user may use up within the stretch. All users together have the same limit.
    most: Micros,
    /// By the user's id.
    accounts: HashMap<UserId, Account>,
    together: Account,
    /// The number of accounts that were left when empty ones were last dropped.
    kept: usize,
    /// The time of the last check.
    looked_at: Micros,
}

impl Shares {
    pub(super) fn new(most: Micros) -> Self {
        Self { most, accounts: HashMap::new(), together: Account::default(), kept: 0, looked_at: 0 }
    }

    /// A pause begins.
    pub(super) fn begin(&mut self, now: Micros) {
        self.looked_at = now;
    }

    /// The pause has gone on up to `now`, because of the users with these ids. `counts`: it is charged.
    pub(super) fn pass_time(&mut self, ids: impl Iterator<Item = UserId>, counts: bool, now: Micros) {
        // If two checks are farther apart, this process was held up, which is no user's fault.
        let elapsed = (now - self.looked_at).min(2 * self.look_interval());
        self.looked_at = now;
        if !counts || elapsed == 0 {
            return;
        }
        let part = self.part(now);
        self.together.charge(elapsed, part);
        for id in ids {
            self.accounts.entry(id).or_default().charge(elapsed, part);
        }
        if self.accounts.len() > 2 * self.kept + ACCOUNTS_KEPT {
            self.accounts.retain(|_, account| account.used(part) > 0);
            self.kept = self.accounts.len();
        }
    }

    /// Whether a user has used up more than it may.
    pub(super) fn is_used_up(&self, id: UserId, now: Micros) -> bool {
        self.accounts.get(&id).is_some_and(|account| account.used(self.part(now)) > self.most)
    }

    /// Whether all of them together have.
    pub(super) fn is_all_used_up(&self, now: Micros) -> bool {
        self.together.used(self.part(now)) > self.most
    }

    /// When to check next, during a pause, whether the user with this id has used up more than its limit.
    pub(super) fn look_at(&self, id: UserId) -> Micros {
        let used = self.accounts.get(&id).map_or(0, |account| account.used(self.part(self.looked_at)));
        let left = (self.most + 1).saturating_sub(used);
        self.looked_at + left.min(self.look_interval())
    }

    fn look_interval(&self) -> Micros {
        LOOK_INTERVAL.max(self.most / LOOKS)
    }

    /// The number of the part of the stretch that a time falls into.
    fn part(&self, at: Micros) -> u64 {
        at / (self.most * STRETCH / PARTS).max(1)
    }
}

/// Time used up within the stretch that ends now. It is kept in a hundred parts, so that it takes the same memory however
/// often something begins and ends.
#[derive(Clone, Debug, Default)]
struct Account {
    /// The number of each part, and the time that was used up in it.
    parts: VecDeque<(u64, Micros)>,
    /// The sum.
    sum: Micros,
}

impl Account {
    fn charge(&mut self, elapsed: Micros, part: u64) {
        while let Some(&(first, used)) = self.parts.front()
            && first + PARTS < part
        {
            self.sum -= used;
            self.parts.pop_front();
        }
        self.sum += elapsed;
        match self.parts.back_mut() {
            Some((last, used)) if *last == part => *used += elapsed,
            _ => self.parts.push_back((part, elapsed)),
        }
    }

    /// The time that has been used up, as seen from a part.
    fn used(&self, part: u64) -> Micros {
        let past = self.parts.iter().take_while(|&&(first, _)| first + PARTS < part);
        self.sum - past.map(|&(_, used)| used).sum::<Micros>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: UserId = UserId::new(7);

    #[test]
    fn what_is_long_past_is_forgotten() {
        let mut shares = Shares::new(1000);
        for at in 1..=10 {
            shares.begin(at * 1000 - 150);
            shares.pass_time([SLOW].into_iter(), true, at * 1000);
        }
        assert!(shares.is_used_up(SLOW, 10_000));
        assert!(shares.is_all_used_up(10_000));
        assert!(!shares.is_used_up(UserId::new(8), 10_000));
        assert!(!shares.is_used_up(SLOW, 15_000));
        assert!(!shares.is_all_used_up(15_000));
        assert_eq!(shares.look_at(SLOW), 10_000);
        shares.begin(50_000);
        shares.pass_time([SLOW].into_iter(), true, 50_010);
        assert_eq!(shares.look_at(SLOW), 50_010 + 991);
        assert_eq!(shares.accounts[&SLOW].parts.len(), 1);
    }

    #[test]
    fn nobody_is_charged_while_the_process_was_stopped_or_others_wait_too() {
        let mut shares = Shares::new(1_000_000);
        shares.begin(0);
        shares.pass_time([SLOW].into_iter(), true, 60_000_000);
        assert!(!shares.is_used_up(SLOW, 60_000_000));
        for step in 1..100 {
            shares.pass_time([SLOW].into_iter(), false, 60_000_000 + step * LOOK_INTERVAL);
        }
        assert!(!shares.is_used_up(SLOW, 70_000_000));
    }

    #[test]
    fn accounts_of_those_who_are_slow_no_more_are_dropped() {
        let mut shares = Shares::new(1000);
        for id in 0..10_000 {
            shares.begin(id * 1000);
            shares.pass_time([UserId::new(id)].into_iter(), true, id * 1000 + 1);
        }
        assert!(shares.accounts.len() < 200, "{}", shares.accounts.len());
    }
}
