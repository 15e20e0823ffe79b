//! Everything that is counted, collected in one place (SPEC section 6).
//!
//! Each part of the server owns its counters. [`Server::counters`](crate::server::Server::counters) collects them. The admin
//! interface, the summary at shutdown and the tests read this collection.

use crate::{engine::event::Reject, time::Micros};

/// Why a user's connection ended: the `reason` of `fortnight_users_disconnected_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The server closed it: it was shutting down.
    Closed,
    /// The user's side closed it.
    Left,
    /// It was behind for too long.
    Slow,
    /// A newer connection took its id over.
    Replaced,
    /// It did not log in in time.
    LoginTimeout,
    /// What it sent as a login is no user id.
    BadLogin,
    /// The socket failed.
    Error,
    /// What it would need next is not kept any more.
    Gone,
    /// Another sequence of events has begun.
    Epoch,
    /// Its token does not let it log in.
    BadToken,
    /// Its token has run out.
    TokenExpired,
}

impl DisconnectReason {
    /// Every reason, in the order in which they are numbered.
    pub const ALL: [Self; 11] = [
        Self::Closed,
        Self::Left,
        Self::Slow,
        Self::Replaced,
        Self::LoginTimeout,
        Self::BadLogin,
        Self::Error,
        Self::Gone,
        Self::Epoch,
        Self::BadToken,
        Self::TokenExpired,
    ];

    /// The reason as it appears in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Left => "left",
            Self::Slow => "slow",
            Self::Replaced => "replaced",
            Self::LoginTimeout => "login_timeout",
            Self::BadLogin => "bad_login",
            Self::Error => "error",
            Self::Gone => "gone",
            Self::Epoch => "epoch",
            Self::BadToken => "bad_token",
            Self::TokenExpired => "token_expired",
        }
    }
}

/// The counters of all parts at one moment. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Event lines read.
    pub events_received: u64,
    /// Events released, by [`Kind`](crate::engine::event::Kind) as a number.
    pub events_released: [u64; 8],
    /// Dropped: below the cursor.
    pub events_late: u64,
    /// Dropped: already waiting.
    pub events_duplicate: u64,
    /// Lines that were no events, by [`Reject`] as a number.
    pub events_rejected: [u64; Reject::ALL.len()],
    /// Numbers given up on.
    pub sequence_skipped: u64,
    /// Events handed to users.
    pub deliveries: u64,
    /// Bytes written to users.
    pub delivered_bytes: u64,
    /// Event sources closed for being one too many.
    pub sources_rejected: u64,
    /// Users closed for being one too many.
    pub users_rejected: u64,
    /// Clients of the stream closed for being one too many.
    pub streams_rejected: u64,
    /// Time without the stream that this server follows.
    pub stream_away: Micros,
    /// Connections of the admin interface closed for being one too many.
    pub admin_rejected: u64,
    /// Users gone, by [`DisconnectReason`] as a number.
    pub users_disconnected: [u64; DisconnectReason::ALL.len()],
    /// Logins with a place that were answered with one.
    pub resumed_ok: u64,
    /// Logins with a place that is not kept any more.
    pub resumed_gone: u64,
    /// Logins with a place in another sequence of events.
    pub resumed_epoch: u64,
    /// Time in which sources were not read because of a slow user.
    pub paused_slow_user: Micros,
    /// Time in which a source was not read because the ring was full.
    pub paused_ring_full: Micros,
    /// Time in which sources were not read because the journal was not written.
    pub paused_journal: Micros,
    /// Time in which all sources waited for the replicated log.
    pub paused_stream: Micros,
    /// Turns of the event loop.
    pub loop_turns: u64,
}

impl Counters {
    /// Events released, of all types.
    #[must_use]
    pub fn events_released_total(&self) -> u64 {
        self.events_released[1..6].iter().sum()
    }

    /// Lines that were no events, for all reasons.
    #[must_use]
    pub fn events_rejected_total(&self) -> u64 {
        self.events_rejected.iter().sum()
    }
}

/// Why a connection was refused before the server heard of it: the `reason` of `fortnight_connections_refused_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It comes from a proxy, and has no PROXY header or a bad one.
    Proxy,
    /// Its TLS handshake has failed.
    Tls,
    /// It has not shown in time what is asked for.
    Timeout,
    /// The socket failed.
    Error,
}

impl Refusal {
    /// Every reason, in the order in which they are numbered.
    pub const ALL: [Self; 4] = [Self::Proxy, Self::Tls, Self::Timeout, Self::Error];

    /// The reason as it appears in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Error => "error",
        }
    }
}

/// What is counted in front of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorCounters {
    /// Connections refused, by [`Refusal`] as a number.
    pub refused: [u64; Refusal::ALL.len()],
    /// When the server's certificate runs out, in seconds from the beginning of 1970, if it has one.
    pub certificate_expires: Option<u64>,
}
