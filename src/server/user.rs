//! A connection on the user port, and the user at the other end of it.

use super::{
    catch_up::Behind, congestion::Pace, liveness::Liveness, login::Login, marks::Resume, output::Output,
};
use crate::{engine::UserSlot, time::Micros, user_id::UserId};
use std::net::SocketAddr;

/// A connection on the user port.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) socket: S,
    pub(super) peer: SocketAddr,
    /// When it was accepted.
    pub(super) since: Micros,
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
    /// Bytes for this user are still on their way.
    pub(super) lingers: bool,
    pub(super) liveness: Liveness,
    pub(super) role: Role,
}

impl<S> Connection<S> {
    pub(super) fn is_user(&self) -> bool {
        matches!(self.role, Role::User(_))
    }
}

/// The peer.
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
    pub(super) id: UserId,
    pub(super) stage: Stage,
    /// Bytes that the socket has not accepted, or that the server has put off writing.
    pub(super) output: Output,
    /// Its socket has not taken everything, and tells when it takes more.
    pub(super) blocked: bool,
    /// It is on the list of those to be written to.
    pub(super) due: bool,
    pub(super) pace: Pace,
    /// It has logged in with a place.
    pub(super) resume: Option<Box<Resume>>,
}

/// The origin of a user's events: the live stream or the journal.
#[derive(Debug)]
pub(super) enum Stage {
    /// The engine, where this is its slot.
    Live(UserSlot),
    /// The journal.
    Behind(Behind),
}
