//! A connection on the user port, and the user at the other end of it.

use super::{catch_up::Behind, congestion::Pace, login::Login, marks::Resume, output::Output};
use crate::time::Micros;
use std::net::SocketAddr;

/// A connection on the user port.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) socket: S,
    pub(super) peer: SocketAddr,
    /// It is on the list of those to be read.
    pub(super) queued: bool,
    /// It is on the list of those whose sockets take bytes again.
    pub(super) writable: bool,
    /// It has come to its end, and only has to be closed.
    pub(super) ended: bool,
    /// When its token runs out, if it has one.
    pub(super) token_until: Option<Micros>,
    /// It will send nothing more.
    pub(super) has_hung_up: bool,
    /// It has sent something besides its login: it may do so again.
    pub(super) is_talking: bool,
    /// What it was sent is still on its way.
    pub(super) lingers: bool,
    pub(super) role: Role,
}

impl<S> Connection<S> {
    pub(super) fn is_user(&self) -> bool {
        matches!(self.role, Role::User(_))
    }
}

/// Who is at the other end.
#[derive(Debug)]
pub(super) enum Role {
    /// Nobody knows yet.
    Login(Login),
    /// A user who has logged in.
    User(User),
}

/// A logged-in user.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: u64,
    pub(super) stage: Stage,
    /// What its socket has not taken, or has not been offered yet because it was put off.
    pub(super) output: Output,
    /// Its socket has not taken everything, and tells when it takes more.
    pub(super) blocked: bool,
    /// It is on the list of those to be written to.
    pub(super) due: bool,
    pub(super) pace: Pace,
    /// It has logged in with a place.
    pub(super) resume: Option<Box<Resume>>,
}

/// What a user is served from.
#[derive(Debug)]
pub(super) enum Stage {
    /// The engine, where this is its slot.
    Live(u32),
    /// The journal.
    Behind(Behind),
}
