//! Release of events that need no other read, and the decision about gaps.

use crate::time::Micros;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Releasing {
    /// Releasing was interrupted by a pause, and has more to do.
    pub(super) interrupted: bool,
    /// The last source has gone: a new run begins once everything has been released.
    pub(super) run_over: bool,
    pub(super) look: Look,
}

/// The look at all sockets that decides whether gaps are given up whose time is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    #[default]
    NotDue,
    /// It began at this time. Sources that wait to be accepted come first.
    Began(Micros),
    /// It began at this time, and it is known what had arrived.
    Noted(Micros),
}
