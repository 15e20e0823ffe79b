//! The journal in the server: a released event is appended before a user is sent it.
//!
//! The *barrier* stands in front of every delivery. It is closed from the moment at which something was released until the journal
//! has it, durably where `journalSync` is `always`. While it is closed sources are not read and users neither come nor go. Users go on
//! being written what they are owed.
//!
//! Snapshots, marks, users that become live and clients of the stream want a turn that ends with it open. Where events never pause
//! there is such a *quiet turn*, in which nothing is read or released, every 20 ms, and after every block while a snapshot is made.

use super::{chunk::READ_BYTES, report::Reports, sizing::RECORD_BYTES};
use crate::{
    admin::JournalNumbers,
    config::{Config, ServerRole},
    disk::Disk,
    engine::{AFTER, BEFORE, Engine, EngineCounters, Released, Replay, Stop},
    epoch::Epoch,
    journal::{
        Ended, JournalError, Log, Opening, PAGE, Report, Settings, Step, Waiting, block::BLOCK_HEADER, open,
    },
    sequence::{Cursor, SequenceNumber},
    stream::reader::Place,
    time::{MILLISECOND, Micros},
    user_id::UserId,
};
use std::{collections::VecDeque, ops::Range};

/// Bytes of released lines after which the turn is full: what one block holds, give or take a run of 256 events. Where every event
/// has one recipient, this decides how many of them share a write. So it is more than a turn usually releases without a journal, which
/// is some nine million bytes of private messages.
const BLOCK_BYTES: usize = 16 << 20;
/// Bytes that a start goes through between two looks for whether it has been told to end: some milliseconds.
const LOOK_BYTES: usize = 1 << 20;
/// How long whatever waits for the end of a turn with the barrier open may have to wait. A snapshot begins, and goes on, after every
/// block.
const QUIET_TURN_EVERY: Micros = 20 * MILLISECOND;

/// In how large steps snapshots are made and users catch up. [`Default`] is what a server does; a simulation has small graphs and few users.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// [`Settings::snapshot_bytes_least`].
    pub bytes_least: u64,
    /// Steps of a snapshot's walk in one turn.
    pub steps: usize,
    /// Users that are handed their events at once, at most, while they catch up.
    pub users: u64,
    /// Nanoseconds of catching up in one turn.
    pub slice_ns: u64,
}

impl Default for Pace {
    /// So many steps take a tenth of a millisecond. Other connections may have to wait for a slice.
    fn default() -> Self {
        let bytes_least = Settings::SNAPSHOT_BYTES_LEAST;
        Self { bytes_least, steps: 5_000, users: 256, slice_ns: 150_000 }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Journal {
    log: Log,
    /// The buffer that released lines are taken with.
    released: Released,
    /// Where the stream is handed out: what has been appended and not been handed out yet, up to this cursor.
    copied: Option<(Vec<u8>, Cursor)>,
    /// Since when the barrier is closed.
    closed_since: Option<Micros>,
    /// Since when it has been closed at the end of every turn.
    turns_end_closed_since: Option<Micros>,
    /// A write or a sync has failed: the server ends.
    failed: Option<JournalError>,
    /// Lines that were kept at the last graceful end and do not fit the ring yet.
    kept: VecDeque<(Vec<u8>, Range<usize>)>,
    /// The number that the first of them waits with.
    kept_blocked: Option<SequenceNumber>,
    /// How long the start took.
    recovery: Micros,
    /// Steps of a snapshot's walk in one turn.
    snapshot_steps: usize,
}

/// A journal and its contents at the start.
pub(super) struct Opened {
    pub(super) journal: Journal,
    pub(super) report: Report,
}

/// Logs the report of the recovery.
pub(super) fn report_recovery(journal: &Journal, report: &Report, took: Micros) {
    for name in &report.damaged_snapshots {
        log::warn!(name; "a snapshot of the journal is damaged; the state was made from an older one, exactly");
    }
    for name in &report.foreign_snapshots {
        log::info!(name; "a snapshot was removed that a new beginning of the journal had left, which was not finished");
    }
    if report.cut_bytes > 0 {
        log::warn!(bytes = report.cut_bytes; "the torn tail of the journal was cut: what the machine had not made durable when it ended");
    }
    if report.is_identity_unknown {
        log::warn!(
            "this file system does not tell a file from its copy: whether the journal is a copy is not checked"
        );
    }
    let log = journal.log();
    log::info!(
        cursor = log.appended_cursor(),
        epoch:% = log.epoch(),
        read_bytes = report.bytes,
        waiting = report.waiting,
        took_ms = took / MILLISECOND,
        disk = log.description();
        "{}", if report.is_new { "a journal was made" } else { "the journal was recovered" }
    );
}

/// How the journal is kept.
fn settings(config: &Config, pace: Pace) -> Settings {
    Settings {
        sync: config.journal_sync,
        interval: config.journal_sync_interval_ms * MILLISECOND,
        segment_bytes: config.journal_segment_bytes,
        retention_bytes: config.journal_retention_bytes,
        retention_ms: config.journal_retention_ms,
        snapshot_bytes_least: pace.bytes_least,
    }
}

impl Journal {
    /// Opens the journal and brings the engine to where it ends.
    pub(super) fn open(
        disk: Box<dyn Disk>,
        config: &Config,
        engine: &mut Engine,
        (now, pace): (Micros, Pace),
        told_to_end: &mut dyn FnMut() -> usize,
    ) -> Result<Opened, JournalError> {
        let opening = Opening {
            settings: settings(config, pace),
            // An edge begins where its stream says.
            first_sequence: if config.role == ServerRole::Edge {
                Cursor::START
            } else {
                Cursor::before(SequenceNumber::new(config.first_sequence))
            },
            epoch: None,
            now,
        };
        let mut kept = Kept::default();
        let (mut end, mut unlooked) = (None, LOOK_BYTES);
        let recovered = open(disk, &opening, &mut |step| {
            unlooked += step.bytes();
            if unlooked >= LOOK_BYTES {
                unlooked = 0;
                let times = told_to_end();
                end = (times > 0).then_some(Ended { forced: times > 1 });
            }
            match end {
                Some(_) => Err("it was ended".to_owned()),
                None => restore(engine, &mut kept, step),
            }
        });
        let recovered = match (recovered, end) {
            (Err(_), Some(end)) => return Err(JournalError::ended(end)),
            (recovered, _) => recovered?,
        };
        // Events that an earlier process released do not count in this one.
        engine.counters = EngineCounters::default();
        // Clients of the stream are handed whole blocks.
        let block_bytes = if config.stream_port.is_some() { RECORD_BYTES } else { BLOCK_BYTES };
        engine.record_aligned(block_bytes, BLOCK_HEADER, PAGE as usize);
        for number in kept.used_up {
            if engine.takes(number) {
                engine.use_up(number);
            }
        }
        let journal = Self {
            log: recovered.log,
            released: Released::default(),
            copied: config.stream_port.map(|_| (Vec::new(), Cursor::START)),
            closed_since: None,
            turns_end_closed_since: None,
            failed: None,
            kept: kept.chunks,
            kept_blocked: None,
            recovery: 0,
            snapshot_steps: pace.steps,
        };
        Ok(Opened { journal, report: recovered.report })
    }

    /// The start took this long.
    pub(super) fn note_recovery(&mut self, took: Micros) {
        self.recovery = took;
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// The journal itself, to be read.
    pub(super) fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// The state of the journal for operators.
    pub(super) fn numbers(&self, now: Micros) -> JournalNumbers {
        let stalled_for = self.closed_since.filter(|_| self.is_stalled()).map(|since| now - since);
        JournalNumbers {
            bytes: self.log.bytes(),
            first_sequence: self.log.first(),
            durable_cursor: self.log.durable_cursor(),
            appended_bytes: self.log.appended_bytes(),
            syncs: self.log.syncs(),
            sync_lag: self.log.sync_lag(now),
            recovery: self.recovery,
            stalled_for,
            stall: self.log.stalled().map(str::to_owned),
        }
    }

    /// The disk is full.
    pub(super) fn is_stalled(&self) -> bool {
        self.log.stalled().is_some()
    }

    /// Appends the released events, and continues the writes and syncs that are under way. Returns whether the engine may deliver.
    pub(super) fn pass(&mut self, engine: &mut Engine, now: Micros) -> bool {
        if self.failed.is_some() {
            return false;
        }
        if let Err(error) = self.try_to_pass(engine, now) {
            self.failed = Some(error);
            return false;
        }
        let is_open = self.log.is_open();
        if !is_open {
            self.closed_since.get_or_insert(now);
        }
        is_open
    }

    fn try_to_pass(&mut self, engine: &mut Engine, now: Micros) -> Result<(), JournalError> {
        self.log.proceed(now)?;
        if self.log.is_open() && self.released.with_headroom().capacity() == 0 {
            // What comes next is kept where the block before was: there are two such buffers.
            *self.released.with_headroom() = self.log.take_spare();
        }
        if self.log.is_open() && engine.take_released(&mut self.released) {
            let Released { from, to, events, .. } = self.released;
            if let Some((copied, end)) = &mut self.copied {
                copied.extend_from_slice(self.released.lines());
                *end = to;
            }
            let headroom = self.released.headroom();
            let bytes = std::mem::take(self.released.with_headroom());
            self.log.append((bytes, headroom), (from, to), events, now)?;
        }
        Ok(())
    }

    /// The journal does not have everything below this cursor.
    pub(super) fn is_behind(&self, cursor: Cursor) -> bool {
        self.is_closed() || self.log.appended_cursor() < cursor
    }

    /// Hands out the lines that were appended since the last call. To be called with the barrier open.
    pub(super) fn hand_out(&mut self, take: impl FnOnce(&[u8], Cursor)) {
        if self.is_closed() {
            return;
        }
        if let Some((lines, to)) = self.copied.as_mut().filter(|(_, to)| *to > Cursor::START) {
            take(lines, *to);
            lines.clear();
            *to = Cursor::START;
        }
    }

    /// The barrier has opened: how long it was closed.
    pub(super) fn reopened(&mut self, now: Micros) -> Option<Micros> {
        if self.is_closed() { None } else { self.closed_since.take().map(|since| now - since) }
    }

    /// A turn is over.
    pub(super) fn note_end_of_turn(&mut self, now: Micros) {
        self.turns_end_closed_since =
            if self.is_closed() { self.turns_end_closed_since.or(Some(now)) } else { None };
    }

    /// Whether a turn is due that ends with the barrier open: nothing is read or released in it. Where events never pause, a block is on
    /// its way at the end of every other turn. Whatever must not come between that block and its deliveries would never be done.
    pub(super) fn wants_quiet_turn(&self, now: Micros) -> bool {
        let Some(since) = self.turns_end_closed_since else { return false };
        let is_snapshot_due = self.log.is_walking() || self.log.is_snapshot_due();
        is_snapshot_due || now.saturating_sub(since) >= QUIET_TURN_EVERY
    }

    pub(super) fn is_closed(&self) -> bool {
        self.failed.is_some() || !self.log.is_open()
    }

    /// Why the server must end.
    pub(super) fn take_failure(&mut self) -> Option<JournalError> {
        self.failed.take()
    }

    pub(super) fn next_deadline(&self) -> Option<Micros> {
        self.log.next_deadline()
    }

    /// There is more to do at once.
    pub(super) fn has_work(&self, engine: &Engine) -> bool {
        !self.is_closed() && (self.log.is_walking() || self.can_feed(engine))
    }

    fn can_feed(&self, engine: &Engine) -> bool {
        !self.kept.is_empty() && self.kept_blocked.is_none_or(|number| engine.takes(number))
    }

    /// Hands the engine the lines that the last graceful end kept, as far as they fit. Returns whether there is something to release.
    pub(super) fn feed_kept(&mut self, engine: &mut Engine, now: Micros) -> bool {
        if !self.can_feed(engine) {
            return false;
        }
        let Some((bytes, unread)) = self.kept.front_mut() else { return false };
        let (at, stop) = engine.feed(bytes, unread.clone());
        unread.start = at;
        engine.settle(bytes, now, now);
        engine.take_rejects();
        self.kept_blocked = None;
        match stop {
            Stop::TurnFull => {}
            Stop::Blocked(number) => {
                engine.set_deadline(number, now);
                self.kept_blocked = Some(number);
            }
            Stop::Drained | Stop::Overlong => {
                self.kept.pop_front();
            }
        }
        true
    }

    /// Walks a slice of a snapshot, if there is one to be made. To be called with everything appended and delivered.
    pub(super) fn snapshot(&mut self, engine: &mut Engine) {
        if self.is_closed() || engine.cursor() != self.log.appended_cursor() {
            return;
        }
        if let Err(error) = self.try_to_snapshot(engine) {
            self.failed = Some(error);
        }
    }

    fn try_to_snapshot(&mut self, engine: &mut Engine) -> Result<(), JournalError> {
        if self.log.wants_snapshot() && self.log.begin_snapshot()? {
            engine.begin_snapshot();
        }
        if self.log.is_walking() {
            let log = &mut self.log;
            let is_whole = engine
                .walk_snapshot(self.snapshot_steps, |follower, followed| log.push_edge(follower, followed));
            self.log.write_snapshot(is_whole)?;
        }
        Ok(())
    }

    /// Starts again at a place, with the engine's follow graph: for an edge whose place is not kept any more.
    pub(super) fn found(&mut self, place: Place, engine: &mut Engine) {
        let walk = |push: &mut dyn FnMut(UserId, UserId)| {
            engine.begin_snapshot();
            while !engine.walk_snapshot(usize::MAX, &mut *push) {}
        };
        if let Err(error) = self.log.found(place.epoch, place.next, walk) {
            self.failed = Some(error);
        }
    }

    /// The stream that it was kept of. `None`: of none yet.
    pub(super) fn stream(&self) -> Option<Epoch> {
        Some(self.log.epoch()).filter(|_| self.log.is_founded() || !self.log.is_fresh())
    }

    /// Keeps the waiting lines for the next start, and makes everything durable. `blocked` are the lines of blocked sources.
    pub(super) fn end(&mut self, engine: &Engine, blocked: &[u8], now: Micros) {
        let mut waiting = Waiting::default();
        for (number, line) in engine.waiting_lines() {
            waiting.push(number, line);
        }
        let kept = self.kept.iter().map(|(bytes, unread)| &bytes[unread.clone()]);
        for line in kept.chain([blocked]).flat_map(|lines| lines.split_inclusive(|&byte| byte == b'\n')) {
            // A line without its end is a truncated event.
            if line.ends_with(b"\n") {
                waiting.push(SequenceNumber::default(), line);
            }
        }
        if !waiting.is_empty() {
            log::info!(events = waiting.len(); "events that wait for missing ones are kept for the next start");
        }
        self.log.end(waiting);
        if let Err(error) = self.log.proceed(now) {
            self.failed = Some(error);
        }
    }

    /// What waits has been handed over.
    pub(super) fn is_ending(&self) -> bool {
        self.log.is_ending()
    }

    /// Everything is durable.
    pub(super) fn has_ended(&self) -> bool {
        self.log.has_ended()
    }

    /// Says that the disk is full, if it is.
    pub(super) fn report(&self, reports: &mut Reports, now: Micros) {
        reports.journal_stalled(self.log.stalled(), now);
    }
}

/// The waiting events that a graceful end kept.
#[derive(Default)]
struct Kept {
    /// What recovery has released, to be dropped.
    released: Released,
    chunks: VecDeque<(Vec<u8>, Range<usize>)>,
    /// Numbers that rejected lines have used up.
    used_up: Vec<SequenceNumber>,
}

impl Kept {
    fn push(&mut self, number: SequenceNumber, line: &[u8]) {
        if line.is_empty() {
            self.used_up.push(number);
            return;
        }
        if self.chunks.back().is_none_or(|(_, unread)| unread.len() + line.len() > READ_BYTES) {
            self.chunks.push_back((vec![0; BEFORE + AFTER], BEFORE..BEFORE));
        }
        let Some((bytes, unread)) = self.chunks.back_mut() else { return };
        bytes.truncate(unread.end);
        bytes.extend_from_slice(line);
        unread.end = bytes.len();
        bytes.resize(unread.end + AFTER, 0);
    }
}

/// Takes one step of recovery.
fn restore(engine: &mut Engine, kept: &mut Kept, step: Step<'_>) -> Result<(), String> {
    match step {
        Step::Edges(edges) => {
            for &(follower, followed) in edges {
                engine.add_edge(follower, followed);
            }
        }
        Step::Cursor(cursor) => engine.set_cursor(cursor),
        Step::Lines { to, lines, .. } => {
            let mut at = 0;
            loop {
                let (next, replay) =
                    engine.replay(lines, at..lines.len(), to).map_err(|damage| damage.to_string())?;
                if replay == Replay::Done {
                    break;
                }
                // Nobody is connected, to the stream port neither: what is released is of use to nobody.
                engine.deliver(|_, _| {});
                engine.take_released(&mut kept.released);
                at = next;
            }
        }
        Step::Waiting(number, line) => kept.push(number, line),
    }
    Ok(())
}
