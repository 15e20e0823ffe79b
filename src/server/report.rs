//! The lines of the log: progress while events flow, trouble (rate-limited), and a summary at the end.

use super::{lost::Lost, net::Port, takeovers::Takeovers};
use crate::{
    config::Config,
    counters::{Counters, DisconnectReason},
    engine::{Engine, event::Reject, rejects::RejectedLine},
    rate_limit::RateLimit,
    sequence::Cursor,
    time::{MILLISECOND, Micros, SECOND},
    user_id::UserId,
};
use std::{io, net::SocketAddr};

/// How often the log says that the journal's disk is full.
const STALLED_INTERVAL: Micros = 60 * SECOND;
/// How often the log says that a full ring waits for a hole that nobody can fill.
const STUCK_INTERVAL: Micros = 60 * SECOND;

/// Most characters of a client's text in the log.
const TEXT_CHARACTERS_MAX: usize = 120;
/// Bytes of a login line in the log: so few that no secret is whole.
const LOGIN_BYTES: usize = 32;

/// Kinds of lines, each rate-limited for itself.
#[derive(Clone, Copy, Debug)]
enum Warning {
    Skipped,
    Late,
    Slow,
    Full,
    NotAccepted,
    NotWatched,
    SourceComes,
    SourceGoes,
    LoginRefused,
    TakenOver,
    Behind,
}

impl Warning {
    const ALL: [Warning; 11] = [
        Warning::SourceComes,
        Warning::SourceGoes,
        Warning::LoginRefused,
        Warning::TakenOver,
        Warning::Behind,
        Warning::Skipped,
        Warning::Late,
        Warning::Slow,
        Warning::Full,
        Warning::NotAccepted,
        Warning::NotWatched,
    ];

    fn level(self) -> log::Level {
        match self {
            Warning::SourceComes | Warning::SourceGoes | Warning::LoginRefused | Warning::Behind => {
                log::Level::Info
            }
            _ => log::Level::Warn,
        }
    }

    /// In the words of the log.
    fn name(self) -> &'static str {
        match self {
            Warning::SourceComes => "event sources that connected",
            Warning::SourceGoes => "event sources that are gone",
            Warning::LoginRefused => "refused logins",
            Warning::TakenOver => "ids that are taken over again and again",
            Warning::Behind => "users that are served from the journal",
            Warning::Skipped => "missing events",
            Warning::Late => "event sources that begin below the cursor",
            Warning::Slow => "users that did not keep up",
            Warning::Full => "connections that were too many",
            Warning::NotAccepted => "failures to accept connections",
            Warning::NotWatched => "connections that cannot be watched",
        }
    }
}

/// When each message was last logged.
#[derive(Debug)]
pub(super) struct Reports {
    interval: Micros,
    /// When the next progress line is due; only while there has been progress.
    progress_at: Option<Micros>,
    last_at: Micros,
    last_released: u64,
    last_deliveries: u64,
    /// When the log will next say that every source waits for a full ring.
    stuck_at: Option<Micros>,
    /// And not before this.
    not_stuck_before: Micros,
    /// When the log will next say that the journal's disk is full.
    stalled_at: Option<Micros>,
    /// The losses at the end: lines and bytes of sources, sources that were not read at all, users and their bytes.
    lost: Lost,
    unread_sources: usize,
    unsent: (usize, usize),
    /// By [`Warning`].
    limits: [RateLimit; Warning::ALL.len()],
    /// For rejected lines, by [`Reject`].
    reject_limits: [RateLimit; Reject::ALL.len()],
    takeovers: Takeovers,
}

impl Reports {
    pub(super) fn new(config: &Config, now: Micros) -> Self {
        Self {
            interval: config.log_interval_ms * MILLISECOND,
            progress_at: None,
            last_at: now,
            last_released: 0,
            last_deliveries: 0,
            stuck_at: None,
            not_stuck_before: now,
            stalled_at: None,
            lost: Lost::default(),
            unread_sources: 0,
            unsent: (0, 0),
            limits: Default::default(),
            reject_limits: Default::default(),
            takeovers: Takeovers::default(),
        }
    }

    /// When the next line of the log is due.
    pub(super) fn next_due(&self) -> Option<Micros> {
        if !log::log_enabled!(log::Level::Warn) {
            // Nobody reads it: a replay need not wake up once a minute until the end of time.
            return None;
        }
        let left_out = self.limits.iter().chain(&self.reject_limits).filter_map(RateLimit::due_us);
        self.progress_at.into_iter().chain(self.stuck_at).chain(self.stalled_at).chain(left_out).min()
    }
}

/// The reports of the parts.
impl Reports {
    /// A progress line every interval in which there was progress, and what was left out of the log. `catching_up`: users that are
    /// served from the journal, and how far behind the farthest is.
    pub(super) fn progress(
        &mut self,
        engine: &Engine,
        (sources, deliveries): (usize, u64),
        (catching_up, farthest_behind): (usize, u128),
        now: Micros,
    ) {
        self.left_out(now);
        let released = engine.counters.events_released_total();
        if self.interval == 0 || released == self.last_released {
            return;
        }
        let Some(due) = self.progress_at else {
            // The first progress after a silence: the interval begins here.
            self.progress_at = Some(now + self.interval);
            self.last_at = now;
            return;
        };
        if now < due {
            return;
        }
        let elapsed = (now - self.last_at).max(1);
        let per_second = |count: u64| u128::from(count) * u128::from(SECOND) / u128::from(elapsed);
        log::info!(
            events_per_s = per_second(released - self.last_released),
            deliveries_per_s = per_second(deliveries - self.last_deliveries),
            cursor = engine.cursor(),
            waiting = engine.waiting(),
            users = engine.users() + catching_up,
            catching_up,
            farthest_behind,
            sources;
            "progress"
        );
        self.last_released = released;
        self.last_deliveries = deliveries;
        self.last_at = now;
        self.progress_at = None;
    }

    /// Whether a warning may be written now; if so, how many like it were left out since the last one.
    fn may_warn(&mut self, warning: Warning, now: Micros) -> Option<u64> {
        self.limits[warning as usize].allow(now)
    }

    /// Says how many lines were left out of the log, once the trouble has stopped or, at the end, at once.
    fn left_out(&mut self, now: Micros) {
        for warning in Warning::ALL {
            if let Some(left_out) = self.limits[warning as usize].overdue(now) {
                log::log!(warning.level(), what = warning.name(), left_out; "more of the same was left out of the log");
            }
        }
        for reason in Reject::ALL {
            if let Some(left_out) = self.reject_limits[reason as usize].overdue(now) {
                log::warn!(
                    what = "rejected lines", reason = reason.name(), left_out;
                    "more of the same was left out of the log"
                );
            }
        }
    }

    /// At the end: events of sources are lost, because they were not released.
    pub(super) fn note_lost(&mut self, lost: Lost) {
        self.lost.lines += lost.lines;
        self.lost.bytes += lost.bytes;
    }

    /// At the end: sources that were never read.
    pub(super) fn note_unread_sources(&mut self, sources: usize) {
        self.unread_sources += sources;
    }

    /// At shutdown: the number of users with unsent bytes, and the number of these bytes.
    pub(super) fn note_unsent(&mut self, (users, bytes): (usize, usize)) {
        self.unsent.0 += users;
        self.unsent.1 += bytes;
    }

    /// The summary at the end.
    pub(super) fn summary(&mut self, engine: &Engine, counters: &Counters) {
        self.left_out(Micros::MAX);
        let waiting = engine.waiting();
        if waiting > 0 {
            log::warn!(waiting, cursor = engine.cursor(); "events still waited for missing ones and are lost");
        }
        if self.lost != Lost::default() || self.unread_sources > 0 {
            let (lines, bytes, sources) = (self.lost.lines, self.lost.bytes, self.unread_sources);
            log::warn!(
                lines, bytes, unread_sources = sources;
                "what event sources had sent was not released and is lost: the ring was full, or shutdownTimeoutMs over"
            );
        }
        if self.unsent.0 > 0 {
            let (users, bytes) = self.unsent;
            log::warn!(users, bytes; "users were not sent everything within shutdownTimeoutMs");
        }
        log::info!(
            received = counters.events_received,
            released = counters.events_released_total(),
            late = counters.events_late,
            duplicate = counters.events_duplicate,
            rejected = counters.events_rejected_total(),
            skipped = counters.sequence_skipped,
            deliveries = counters.deliveries,
            delivered_bytes = counters.delivered_bytes,
            cursor = engine.cursor();
            "summary"
        );
    }

    /// Lines that were no events, if the engine has met any.
    pub(super) fn rejected(&mut self, engine: &mut Engine, peer: SocketAddr, now: Micros) {
        let rejects = engine.take_rejects();
        for RejectedLine { reason, seq, text, is_cut } in &rejects.lines {
            if let Some(left_out) = self.reject_limits[*reason as usize].allow(now) {
                let rejected = engine.counters.events_rejected[*reason as usize];
                let seq = seq.map_or_else(|| "unreadable".to_owned(), |seq| seq.to_string());
                let (reason, text) = (reason.name(), text_of(text, *is_cut));
                log::warn!(peer:%, reason, seq, text, rejected, left_out; "a line that is no event was rejected");
            }
        }
        for reason in Reject::ALL {
            self.reject_limits[reason as usize].leave_out(rejects.not_kept(reason));
        }
    }

    /// An event source has come.
    pub(super) fn source_connected(&mut self, peer: SocketAddr, now: Micros) {
        if let Some(left_out) = self.may_warn(Warning::SourceComes, now) {
            log::info!(peer:%, left_out; "event source connected");
        }
    }

    /// An event source has gone.
    pub(super) fn source_gone(&mut self, peer: SocketAddr, now: Micros) {
        if let Some(left_out) = self.may_warn(Warning::SourceGoes, now) {
            log::info!(peer:%, left_out; "event source gone");
        }
    }

    /// A connection on the user port has ended before it was a user's. `line` is what it sent as its login, and
    /// `shown` is what of that may be told.
    pub(super) fn login_ended(
        &mut self,
        line: &[u8],
        shown: &[u8],
        peer: SocketAddr,
        reason: DisconnectReason,
        now: Micros,
    ) {
        let name = reason.name();
        let why = match reason {
            DisconnectReason::LoginTimeout => "no login line came within loginTimeoutMs",
            DisconnectReason::BadToken => "its token is missing, is not accepted, or has run out",
            DisconnectReason::BadLogin if !line.contains(&b'\n') => "the login line is too long",
            DisconnectReason::BadLogin if line.contains(&b'|') => {
                "the login line is none of ID, ID|now, ID|oldest and ID|NEXT|EPOCH"
            }
            DisconnectReason::BadLogin => "the login line is no user id, which is a whole number below 2^64",
            _ => {
                log::debug!(peer:%, reason = name; "connection closed before it was served");
                return;
            }
        };
        if let Some(left_out) = self.may_warn(Warning::LoginRefused, now) {
            let shown = shown.split(|&byte| byte == b'\n').next().unwrap_or_default();
            let shown = shown.strip_suffix(b"\r").unwrap_or(shown);
            let text = text_of(&shown[..shown.len().min(LOGIN_BYTES)], shown.len() > LOGIN_BYTES);
            log::info!(peer:%, reason = name, why, text, left_out; "login refused");
        }
    }

    /// A new source's first events are all late: its operator has probably expected a new run.
    pub(super) fn all_late(&mut self, cursor: Cursor, peer: SocketAddr, now: Micros) {
        if let Some(left_out) = self.may_warn(Warning::Late, now) {
            log::warn!(
                peer:%, cursor, left_out;
                "the first events of this event source are all below the cursor and are dropped as late; \
                 if every source is meant to start a new run, set resetOnSourceEof=true"
            );
        }
    }

    /// Numbers that were given up on, if there were any.
    pub(super) fn given_up(&mut self, engine: &mut Engine, now: Micros) {
        let given_up = engine.take_given_up();
        let skipped = given_up.numbers;
        if skipped > 0
            && let Some(left_out) = self.may_warn(Warning::Skipped, now)
        {
            log::warn!(skipped, numbers:% = given_up, cursor = engine.cursor(), left_out; "missing events were given up on");
        }
    }

    /// Sources wait for a full ring, and nothing is ever skipped: says so once a minute.
    pub(super) fn stuck(&mut self, is_stuck: bool, sources: usize, engine: &Engine, now: Micros) {
        if !is_stuck {
            self.stuck_at = None;
            return;
        }
        self.stuck_at = Some(self.not_stuck_before.max(now));
        if self.not_stuck_before <= now {
            self.not_stuck_before = now + STUCK_INTERVAL;
            self.stuck_at = Some(self.not_stuck_before);
            log::warn!(
                sources, cursor = engine.cursor(), waiting = engine.waiting();
                "the ring is full, and event sources wait for the event at the cursor; \
                 as eventTimeoutMs is negative it is not skipped, and only another source can send it"
            );
        }
    }

    /// The journal cannot be written because the disk is full. The log says so at once, and then once a minute.
    pub(super) fn journal_stalled(&mut self, reason: Option<&str>, now: Micros) {
        let Some(reason) = reason else {
            if self.stalled_at.take().is_some() {
                log::info!("there is room for the journal again: going on");
            }
            return;
        };
        if self.stalled_at.is_none_or(|at| at <= now) {
            self.stalled_at = Some(now + STALLED_INTERVAL);
            log::error!(reason; "the disk of the journal is full: sources are not read until there is room, which is tried every second");
        }
    }

    /// A user's connection has ended.
    pub(super) fn user_ended(
        &mut self,
        user: UserId,
        peer: SocketAddr,
        reason: DisconnectReason,
        unsent_bytes: usize,
        now: Micros,
    ) {
        let reason_name = reason.name();
        if reason == DisconnectReason::Replaced
            && let Some((times, since)) = self.takeovers.note(user, now)
            && let Some(left_out) = self.may_warn(Warning::TakenOver, now)
        {
            let seconds = (now - since) / SECOND;
            log::warn!(
                user = user.get(), peer:%, times, seconds, left_out;
                "this id is taken over again and again: two clients log in with it, and each closes the other's connection"
            );
        }
        if reason != DisconnectReason::Slow {
            log::debug!(user = user.get(), peer:%, reason = reason_name, unsent_bytes; "user disconnected");
        } else if let Some(left_out) = self.may_warn(Warning::Slow, now) {
            log::warn!(user = user.get(), peer:%, reason = reason_name, unsent_bytes, left_out; "user disconnected: it did not keep up");
        }
    }

    /// A user has come back, or does not keep up: it is served from the journal, so many numbers behind.
    pub(super) fn served_from_the_journal(&mut self, user: UserId, next: Cursor, behind: u128, now: Micros) {
        if let Some(left_out) = self.may_warn(Warning::Behind, now) {
            log::info!(user = user.get(), next, behind, left_out; "a user is served from the journal");
        }
    }

    /// A connection is closed because it is one too many.
    pub(super) fn turned_away(&mut self, port: Port, peer: SocketAddr, now: Micros) {
        let limit = match port {
            Port::Source => "maxEventSourceClients",
            Port::Stream => "maxStreamClients",
            _ => "maxUserClients",
        };
        if let Some(left_out) = self.may_warn(Warning::Full, now) {
            log::warn!(peer:%, limit, left_out; "connection closed: there are as many as are allowed");
        }
    }

    /// The operating system does not watch a connection.
    pub(super) fn not_watched(&mut self, peer: SocketAddr, error: &io::Error, now: Micros) {
        if let Some(left_out) = self.may_warn(Warning::NotWatched, now) {
            log::warn!(peer:%, error:%, left_out; "connection dropped: it cannot be watched");
        }
    }

    /// No connection can be accepted for now.
    pub(super) fn not_accepted(&mut self, error: &io::Error, now: Micros) {
        if let Some(left_out) = self.may_warn(Warning::NotAccepted, now) {
            log::warn!(error:%, left_out; "accepting is paused for a second, or until a descriptor is free: connections wait");
        }
    }
}

/// A client's text for the log, which escapes characters that cannot be printed. Bytes that are no UTF-8 are `\xNN`.
fn text_of(bytes: &[u8], is_cut: bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    let short = text.char_indices().nth(TEXT_CHARACTERS_MAX).map(|(end, _)| end);
    text.truncate(short.unwrap_or(text.len()));
    if is_cut || short.is_some() {
        text.push('…');
    }
    text
}
