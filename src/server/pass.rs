//! A pass over the journal: an engine of its own, which goes through the past with those who catch up connected to it.
//!
//! The pass begins with the newest snapshot of the follow graph that is old enough, and applies block after block on top. So
//! whoever is connected is handed what concerns it by the graph at each event's place. It knows nothing of sockets.
//!
//! Events are applied piece by piece, and handed to users when enough of them have come together, some users at a time. So
//! neither takes long at once, and a user costs few cache misses for many events.

use crate::{
    config::Config,
    engine::{Engine, EngineConfig, Replay, UserSlot, event::leading_number},
    journal::{JournalError, Log, Read, Reader, SnapshotInfo, SnapshotRead, SnapshotReader, Start},
    sequence::Cursor,
    user_id::UserId,
};

/// Bytes that all users together may be owed by one piece, give or take an event for each.
const TURN_BYTES_ALL: usize = 64 << 20;
/// Bytes per user that are worth a write, and fewer that are still worth it.
const TURN_BYTES_MEAN: std::ops::RangeInclusive<usize> = 2 << 10..=56 << 10;

/// Bytes of lines that are applied before users are handed their events.
const HANDING_OUT_BYTES: u64 = 128 << 10;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Pass {
    engine: Engine,
    /// From here on the follow graph is what it was at each event's place. Below, it may have edges of later events: the snapshot was made
    /// while events went on.
    exact_from: Cursor,
    /// Everything below has been handed out.
    handed_out: Cursor,
    /// Bytes of lines that have been applied since then.
    pending_bytes: u64,
    /// No more can be applied before users are handed their events.
    is_full: bool,
    /// Some users have been handed their events, and others have not.
    is_handing_out: bool,
    /// What comes next cannot be read or applied.
    failure: Option<JournalError>,
    /// Users that have gone since the last events were handed out.
    gone: Vec<(UserId, UserSlot)>,
    /// The snapshot that is being read.
    snapshot: Option<SnapshotReader>,
    edges: Vec<(UserId, UserId)>,
    reader: Reader,
    /// The reader's block is being applied: where its next piece begins.
    at: Option<usize>,
}

/// The result of a step.
pub(super) enum Stepped {
    /// The number of edges of the snapshot that it has added.
    Edges(u64),
    /// It has read so many bytes: a part of a block, or a block. Those whose places are in it can be connected now.
    Bytes(u64),
    /// The next block is not in memory yet.
    Later,
    /// It has come to the end of the journal.
    End,
}

impl Pass {
    /// A pass that begins at this place, for this number of users.
    ///
    /// # Errors
    ///
    /// If the snapshot cannot be opened.
    pub(super) fn new(
        start: Start,
        users: usize,
        config: &Config,
        log: &mut Log,
    ) -> Result<Self, JournalError> {
        let turn_bytes_max = (config.user_buffer_bytes / 2).clamp(4096, 256 << 10);
        let mean = (TURN_BYTES_ALL / users.max(1)).clamp(*TURN_BYTES_MEAN.start(), *TURN_BYTES_MEAN.end());
        let mut engine = Engine::new(&EngineConfig {
            // Nothing waits.
            capacity: 1,
            first_sequence: 0,
            timeout: None,
            event_bytes_max: config.max_event_bytes,
            turn_bytes_max,
            turn_bytes_mean: mean.min(turn_bytes_max),
            max_sequence_jump: None,
            instruction_set: config.instruction_set,
        });
        engine.set_cursor(start.from);
        let snapshot = start.snapshot.map(|info| log.snapshot_reader(info)).transpose()?;
        let reader = Reader::new(start.from);
        Ok(Self {
            engine,
            exact_from: start.snapshot.map_or(start.from, |info| info.to),
            handed_out: start.from,
            pending_bytes: 0,
            is_full: false,
            is_handing_out: false,
            failure: None,
            gone: Vec::new(),
            snapshot,
            edges: Vec::new(),
            reader,
            at: None,
        })
    }

    /// Everything below has been applied.
    pub(super) fn cursor(&self) -> Cursor {
        self.engine.cursor()
    }

    /// The lowest place that it can still take a user along from.
    pub(super) fn takes_from(&self) -> Cursor {
        self.engine.cursor().max(self.exact_from)
    }

    /// Everything below has been handed to everybody.
    pub(super) fn handed_out(&self) -> Cursor {
        self.handed_out
    }

    /// Everything below has been handed to a user.
    pub(super) fn place_of(&self, slot: UserSlot) -> Cursor {
        let has_got_it = self.is_handing_out && !self.engine.owes(slot);
        if has_got_it { self.engine.cursor() } else { self.handed_out }
    }

    /// Everything that has been applied has been handed out. Otherwise users neither come nor go.
    pub(super) fn is_handed_out(&self) -> bool {
        self.engine.is_delivered()
    }

    /// It goes on no more: once everything that has been applied is handed out, it fails.
    pub(super) fn fail(&mut self, error: JournalError) {
        self.failure = Some(error);
    }

    /// The reason why it goes on no more. Everything that has been applied has been handed out.
    pub(super) fn take_failure(&mut self) -> Option<JournalError> {
        self.failure.take_if(|_| self.engine.is_delivered())
    }

    /// Enough has been applied for users to be handed their events.
    pub(super) fn wants_to_hand_out(&self) -> bool {
        let is_last = self.failure.is_some() && !self.engine.is_delivered();
        is_last || self.is_full || self.is_handing_out || self.pending_bytes >= HANDING_OUT_BYTES
    }

    /// The place behind the block that is being applied.
    pub(super) fn block_end(&self) -> Cursor {
        self.reader.cursor().max(self.engine.cursor())
    }

    /// The snapshot that is being read, and has not been read to its end.
    pub(super) fn snapshot(&self) -> Option<SnapshotInfo> {
        self.snapshot.as_ref().map(SnapshotReader::info)
    }

    /// A block has been read and not been applied to its end.
    pub(super) fn is_in_a_block(&self) -> bool {
        self.at.is_some()
    }

    /// Goes on with the snapshot, or reads the next block. Not to be called in a block. Nothing is read at `limit` or above.
    ///
    /// # Errors
    ///
    /// If the next block is not kept any more, cannot be read, or is damaged.
    pub(super) fn read(&mut self, log: &mut Log, limit: Cursor) -> Result<Stepped, JournalError> {
        if let Some(snapshot) = &mut self.snapshot {
            return match snapshot.next(log.disk(), false, &mut self.edges)? {
                SnapshotRead::Later => Ok(Stepped::Later),
                SnapshotRead::Edges => {
                    for &(follower, followed) in &self.edges {
                        self.engine.add_edge(follower, followed);
                    }
                    Ok(Stepped::Edges(self.edges.len() as u64))
                }
                SnapshotRead::Done(_) => {
                    if let Some(snapshot) = self.snapshot.take() {
                        snapshot.close(log.disk());
                    }
                    Ok(Stepped::Edges(0))
                }
            };
        }
        if self.engine.cursor() >= limit {
            return Ok(Stepped::End);
        }
        match self.reader.next(log)? {
            Read::Block => {
                self.at = Some(0);
                Ok(Stepped::Bytes(self.reader.take_bytes_read()))
            }
            Read::Part => Ok(Stepped::Bytes(self.reader.take_bytes_read())),
            Read::Later => Ok(Stepped::Later),
            Read::End => Ok(Stepped::End),
        }
    }

    /// Connects a user. To be called when everything is handed out.
    pub(super) fn connect(&mut self, id: UserId) -> UserSlot {
        self.engine.connect(id)
    }

    /// Disconnects a user, now or when everything is handed out. Until then its slot is not used again.
    pub(super) fn disconnect(&mut self, id: UserId, slot: UserSlot) {
        self.gone.push((id, slot));
        self.note_handed_out();
    }

    fn note_handed_out(&mut self) {
        if self.engine.is_delivered() {
            for (id, slot) in self.gone.drain(..) {
                self.engine.disconnect(id, slot);
            }
            (self.handed_out, self.pending_bytes) = (self.engine.cursor(), 0);
            (self.is_full, self.is_handing_out) = (false, false);
        }
    }

    /// Applies the next piece of the block, of about this number of bytes. Not to be called while it wants to hand out. Returns how many
    /// bytes and deliveries that was. If the block has something that is no event, the pass fails behind what comes before it.
    pub(super) fn apply(&mut self, piece_bytes: usize) -> (u64, u64) {
        let lines = self.reader.lines();
        let start = self.at.unwrap_or(lines.len());
        let mut end = lines.len().min(start + piece_bytes);
        end += memchr::memchr(b'\n', &lines[end..]).map_or(lines.len() - end, |newline| newline + 1);
        // The cursor must not pass lines that still come.
        let to = leading_number(&lines[end..]).map_or(self.reader.cursor(), Cursor::before);
        let bytes = match self.engine.replay(lines, start..end, to) {
            Ok((at, replay)) => {
                let at = if replay == Replay::Done { end } else { at };
                self.at = Some(at).filter(|_| replay == Replay::TurnFull || at < lines.len());
                self.is_full = replay == Replay::TurnFull;
                (at - start) as u64
            }
            Err(damage) => {
                let what = format!("a block of the journal cannot be applied: {damage}");
                self.fail(JournalError::new(what));
                0
            }
        };
        self.pending_bytes += bytes;
        self.note_handed_out();
        (bytes, std::mem::take(&mut self.engine.counters.deliveries))
    }

    /// Hands the bytes of its events to each user: to at most this number of users.
    pub(super) fn hand_out(&mut self, users: usize, write: impl FnMut(UserSlot, &[u8])) {
        self.is_handing_out = true;
        self.engine.deliver_some(users, write);
        self.note_handed_out();
    }

    /// Closes its files.
    pub(super) fn close(self, log: &mut Log) {
        self.reader.close(log);
        if let Some(snapshot) = self.snapshot {
            snapshot.close(log.disk());
        }
    }
}
