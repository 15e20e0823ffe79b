//! The last warnings and errors of the log, for the admin interface.
//!
//! Whatever writes the log remembers them here. Where nothing does, there are none.

use log::Level;
use std::{cell::RefCell, collections::VecDeque};

/// Warnings that are remembered.
const REMEMBERED: usize = 32;

thread_local! {
    static WARNINGS: RefCell<VecDeque<Warning>> = const { RefCell::new(VecDeque::new()) };
}

/// A warning or an error that was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// [`Level::Warn`] or [`Level::Error`].
    pub level: Level,
    /// Message and pairs, as in the log.
    pub text: String,
}

/// The last warnings and errors of this thread, the newest first.
#[must_use]
pub fn recent() -> Vec<Warning> {
    WARNINGS.with_borrow(|warnings| warnings.iter().rev().cloned().collect())
}

/// Remembers one more.
pub(crate) fn remember(warning: Warning) {
    WARNINGS.with_borrow_mut(|warnings| {
        if warnings.len() == REMEMBERED {
            warnings.pop_front();
        }
        warnings.push_back(warning);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered() {
        for at_ms in 0..100 {
            remember(Warning { at_ms, level: Level::Warn, text: String::new() });
        }
        let times: Vec<u64> = recent().iter().map(|warning| warning.at_ms).collect();
        assert_eq!(times, (68..100).rev().collect::<Vec<_>>());
    }
}
