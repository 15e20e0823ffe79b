//! Event sources: their sockets, their unfinished lines, and the sources that wait for room in the ring.

mod acknowledge;

use super::{
    chunk::{Chunk, READ_BYTES},
    health::Silence,
    key::SourceKey,
    linger::Lingering,
    liveness::{Liveness, LivenessRounds},
    lost::Lost,
    net::Net,
    question::Name,
    report::Reports,
    source::{HalfClosed, Outcome, Source, Verdict, read_once},
};
use crate::{
    admin::people::SourceRow,
    config::Config,
    engine::{Engine, Stop, event::Reject},
    sequence::{Cursor, SequenceNumber},
    time::{MILLISECOND, Micros},
};
use slab::Slab;
use std::{
    collections::VecDeque,
    io::{self, Read},
    net::SocketAddr,
};

/// The event sources.
#[derive(Debug)]
pub(super) struct Sources<S> {
    entries: Slab<Source<S>>,
    /// Sources that have not ended.
    connected: usize,
    /// The number of these sources that have hung up.
    hung_up: usize,
    /// Sources connected at once, and longest event line.
    places: usize,
    event_bytes_max: usize,
    /// How long a source that has closed its side still receives acknowledgements.
    half_closed_max: Micros,
    /// Whether the connected sources send anything while others are turned away.
    pub(super) silence: Silence,
    /// How long a source may be on trial.
    trial_max: Micros,
    /// A name was given that an older connection has.
    any_replaced: bool,
    /// A source that asked for acknowledgements has gone.
    any_asker_gone: bool,
    /// The end of the last source ends a run.
    ends_runs: bool,
    /// Gaps are never given up.
    gaps_stay: bool,
    /// Only bytes that had arrived at the last look are still read.
    only_what_has_arrived: bool,
    /// Sources that can be read, in the order of their turns.
    readable: VecDeque<SourceKey>,
    /// Sources whose next event is too far ahead for the ring.
    blocked: Vec<SourceKey>,
    /// The source whose chunk is being fed, and the chunk.
    current: Option<(SourceKey, Chunk)>,
    /// Unused chunk buffers.
    spare: Vec<Chunk>,
    /// Sources that have ended. Their sockets are still to be closed.
    ended: Vec<SourceKey>,
    /// Where there is a journal: the lines that sources were blocked with at the end of the server.
    left: Option<Vec<u8>>,
}

/// Whether another source may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// There is a place.
    Now,
    /// There is none, unless it takes over from a source whose name it gives.
    OnTrial,
    /// There will be one.
    Later,
    /// There are as many as are allowed.
    Never,
}

/// The result of feeding a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// The turn is full, and there is more in the chunk.
    TurnFull,
    /// The source waits for room in the ring.
    Blocked,
    /// All of it.
    Whole,
    /// The source was on trial, and is one too many.
    TurnedAway(SourceKey),
}

impl<S> Sources<S> {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            entries: Slab::new(),
            connected: 0,
            hung_up: 0,
            places: config.max_event_source_clients as usize,
            event_bytes_max: config.max_event_bytes,
            half_closed_max: config.shutdown_timeout_ms * MILLISECOND,
            silence: Silence::default(),
            trial_max: config.login_timeout_ms * MILLISECOND,
            any_replaced: false,
            any_asker_gone: false,
            ends_runs: config.reset_on_source_eof,
            gaps_stay: config.event_timeout_ms < 0,
            only_what_has_arrived: false,
            readable: VecDeque::new(),
            blocked: Vec::new(),
            current: None,
            spare: Vec::new(),
            ended: Vec::new(),
            left: config.journal_directory.is_some().then(Vec::new),
        }
    }

    /// The lines that blocked sources held when they were ended.
    pub(super) fn left(&self) -> &[u8] {
        self.left.as_deref().unwrap_or_default()
    }

    /// Sources that have not come to their ends.
    pub(super) fn connected(&self) -> usize {
        self.connected
    }

    /// Sources that wait for room in the ring.
    pub(super) fn blocked(&self) -> usize {
        self.blocked.len()
    }

    /// Sources that can be read.
    pub(super) fn readable(&self) -> usize {
        self.readable.len()
    }

    /// Some chunk has been read and not been fed to its end.
    pub(super) fn has_chunk(&self) -> bool {
        self.current.is_some()
    }

    /// Some source has bytes to be looked at.
    pub(super) fn has_bytes(&self, engine: &Engine) -> bool {
        self.current.is_some() || !self.readable.is_empty() || self.unblockable(engine).is_some()
    }

    /// Whether another source may come. One that has hung up keeps its place until it has been read to its end: the next one
    /// waits for that, and is neither let in before nor turned away. But where a full ring waits for ever, somebody has to
    /// bring what is missing: those that it holds back keep nobody out, as many of them as there may be sources.
    pub(super) fn admission(&self) -> Admission {
        let (stuck, stuck_and_hung_up) = self.stuck();
        let (connected, hung_up) = (self.connected - stuck, self.hung_up - stuck_and_hung_up);
        let next_run = self.ends_runs && connected > 0 && hung_up == connected;
        if next_run || (connected >= self.places && hung_up > 0) {
            Admission::Later
        } else if connected < self.places {
            Admission::Now
        } else if self.may_try() {
            Admission::OnTrial
        } else {
            Admission::Never
        }
    }

    /// Whether one more source would be too many.
    pub(super) fn are_all_places_taken(&self) -> bool {
        matches!(self.admission(), Admission::OnTrial | Admission::Never)
    }

    /// Sources that wait for room in the ring, have hung up or have been replaced, and so take no place from those that may fill the
    /// gap: how many, and how many of them have hung up. Where gaps are given up, it is only a matter of time.
    fn stuck(&self) -> (usize, usize) {
        let most = if self.gaps_stay { self.places } else { 0 };
        let blocked = self.blocked.iter().filter_map(|key| self.entries.get(key.index()));
        let stuck = blocked.filter(|source| source.hung_up || source.is_replaced).take(most);
        stuck.fold((0, 0), |(all, hung_up), source| (all + 1, hung_up + usize::from(source.hung_up)))
    }

    /// What operators are shown of each source, with its key. Rates are not known here.
    pub(super) fn rows(&self, now: Micros) -> impl Iterator<Item = (usize, SourceRow)> {
        let open = self.entries.iter().filter(|(_, source)| !source.ended && source.trial_until.is_none());
        open.map(move |(index, source)| {
            let name = source.asked.as_ref().and_then(|asked| asked.name());
            let row = SourceRow {
                peer: source.peer,
                name: name.map(|name| String::from_utf8_lossy(name).into_owned()),
                age: now.saturating_sub(source.since),
                silent_for: source.heard_at.map(|at| now.saturating_sub(at)),
                bytes: source.bytes,
                lines: source.lines,
                byte_rate: 0,
                line_rate: 0,
                waits_with: source.blocked.as_ref().map(|&(number, _)| number),
                has_finished: source.half_closed.is_some(),
            };
            (index, row)
        })
    }

    /// Whether a source that asked for acknowledgements has gone since the last call.
    pub(super) fn take_asker_gone(&mut self) -> bool {
        std::mem::take(&mut self.any_asker_gone)
    }

    /// Notes for all sockets how many bytes have arrived and are not read yet.
    pub(super) fn look<N: Net<Socket = S>>(&mut self, net: &mut N) {
        for (index, source) in &mut self.entries {
            if source.ended {
                continue;
            }
            source.arrived = net.unread(&mut source.socket);
            if source.arrived > 0 && source.blocked.is_none() && !std::mem::replace(&mut source.queued, true)
            {
                source.readable = true;
                self.readable.push_back(SourceKey::new(index));
            }
        }
    }

    /// Whether all bytes that had arrived at the last look have been taken, except those that wait for room in the ring.
    pub(super) fn has_taken_what_had_arrived(&self, engine: &Engine) -> bool {
        let taken = |source: &Source<S>| source.ended || source.blocked.is_some() || source.arrived == 0;
        self.current.is_none()
            && self.unblockable(engine).is_none()
            && self.entries.iter().all(|(_, source)| taken(source))
    }

    /// From now on only bytes that have arrived already are read. Call [`Sources::look`] right after it.
    pub(super) fn read_only_what_has_arrived(&mut self) {
        self.only_what_has_arrived = true;
    }

    /// The net says that a source can be read.
    pub(super) fn note_ready(&mut self, key: SourceKey, hung_up: bool, urgent: bool) {
        let is_read = |source: &&mut Source<S>| !source.ended && source.half_closed.is_none();
        let Some(source) = self.entries.get_mut(key.index()).filter(is_read) else {
            return;
        };
        source.readable = true;
        source.urgent |= urgent;
        if hung_up && !std::mem::replace(&mut source.hung_up, true) {
            self.hung_up += usize::from(source.is_counted);
        }
        if source.blocked.is_none() && !std::mem::replace(&mut source.queued, true) {
            self.readable.push_back(key);
        }
    }

    /// Takes in a source.
    ///
    /// # Errors
    ///
    /// If its socket cannot be watched.
    pub(super) fn admit<N: Net<Socket = S>>(
        &mut self,
        mut socket: S,
        peer: SocketAddr,
        net: &mut N,
        now: Micros,
    ) -> io::Result<()> {
        let on_trial = self.admission() == Admission::OnTrial;
        let entry = self.entries.vacant_entry();
        net.register(&mut socket, SourceKey::new(entry.key()).number())?;
        let arrived = if self.only_what_has_arrived { net.unread(&mut socket) } else { 0 };
        entry.insert(Source {
            socket,
            peer,
            since: now,
            bytes: 0,
            heard_at: None,
            lines: 0,
            readable: false,
            queued: false,
            carry: Vec::new(),
            blocked: None,
            discarding: false,
            hung_up: false,
            urgent: false,
            arrived,
            ended: false,
            late_so_far: true,
            is_new: true,
            has_sent_a_line: false,
            liveness: Liveness::default(),
            is_counted: !on_trial,
            trial_until: on_trial.then(|| now.saturating_add(self.trial_max)),
            asked: None,
            is_replaced: false,
            is_retired: false,
            half_closed: None,
        });
        if !on_trial {
            self.connected += 1;
            self.silence.heard(now);
        }
        Ok(())
    }

    /// A source has come to its end.
    fn end(&mut self, key: SourceKey, engine: &mut Engine, reports: &mut Reports, now: Micros) {
        let Some(source) = self.entries.get_mut(key.index()).filter(|source| !source.ended) else {
            return;
        };
        if !source.carry.is_empty() {
            engine.count_rejected(Reject::Truncated, None, &source.carry);
            reports.rejected(engine, source.peer, now);
        }
        reports.source_gone(source.peer, now);
        self.close(key);
    }

    /// It is not read any more, and does not count as connected.
    fn uncount(&mut self, key: SourceKey) {
        let Some(source) = self.entries.get_mut(key.index()) else { return };
        if std::mem::take(&mut source.is_counted) {
            self.connected -= 1;
            self.hung_up -= usize::from(source.hung_up);
            self.any_asker_gone |= source.asked.is_some();
        }
        (source.readable, source.queued) = (false, false);
        if let (Some(left), Some((_, chunk))) = (&mut self.left, source.blocked.take()) {
            let lines = memchr::memrchr(b'\n', chunk.rest()).map_or(0, |newline| newline + 1);
            left.extend_from_slice(&chunk.rest()[..lines]);
        }
        self.readable.retain(|&other| other != key);
        self.blocked.retain(|&other| other != key);
    }

    /// Its socket is closed when all are.
    fn close(&mut self, key: SourceKey) {
        self.uncount(key);
        if let Some(source) = self.entries.get_mut(key.index())
            && !std::mem::replace(&mut source.ended, true)
        {
            self.ended.push(key);
        }
    }

    /// All sources are closed, whatever they have sent: it is for another server to put it in order.
    pub(super) fn close_all(&mut self) {
        self.current = None;
        let keys: Vec<SourceKey> = self.entries.iter().map(|(index, _)| SourceKey::new(index)).collect();
        keys.into_iter().for_each(|key| self.close(key));
        self.any_asker_gone = false;
    }

    /// A source has sent its last byte. One that asked goes on being told.
    fn finish(&mut self, key: SourceKey, engine: &mut Engine, reports: &mut Reports, now: Micros) {
        let Some(source) = self.entries.get_mut(key.index()).filter(|source| !source.ended) else {
            return;
        };
        if source.asked.is_none() || source.is_replaced {
            return self.end(key, engine, reports, now);
        }
        let rest = std::mem::take(&mut source.carry);
        if !rest.is_empty() {
            engine.count_rejected(Reject::Truncated, None, &rest);
            reports.rejected(engine, source.peer, now);
        }
        log::debug!(peer:% = source.peer; "event source has closed its side");
        self.uncount(key);
        self.half_close(key, engine, now);
    }

    /// Turns away a source that was let in on trial, and says who it was.
    pub(super) fn turn_away(&mut self, key: SourceKey) -> Option<SocketAddr> {
        let peer = self.entries.get(key.index()).map(|source| source.peer);
        self.close(key);
        peer
    }

    /// At shutdown: ends the sources that need no more reading. What has been read of one and fits the ring is
    /// waited for, unless there is `no_more_time`. Returns what is lost.
    pub(super) fn end_drained(
        &mut self,
        no_more_time: bool,
        engine: &mut Engine,
        reports: &mut Reports,
        now: Micros,
    ) -> Lost {
        let mut lost = Lost::default();
        let current = self.current.take_if(|_| no_more_time);
        lost.add(current.iter().map(|(_, chunk)| chunk.rest()));
        let kept = self.current.as_ref().map(|&(key, _)| key);
        let drained = |(index, source): (usize, &Source<S>)| {
            let key = SourceKey::new(index);
            let is_drained = match &source.blocked {
                Some((seq, _)) => !engine.takes(*seq),
                None => source.arrived == 0 && !source.hung_up,
            };
            let is_read = !source.ended && source.half_closed.is_none();
            (is_read && (is_drained || no_more_time) && kept != Some(key)).then_some(key)
        };
        let drained: Vec<SourceKey> = self.entries.iter().filter_map(drained).collect();
        for key in drained {
            if let Some(source) = self.entries.get(key.index()) {
                lost.add(source.blocked.iter().map(|(_, chunk)| chunk.rest()));
                lost.bytes += source.arrived;
            }
            self.finish(key, engine, reports, now);
        }
        lost
    }
}

/// Reading and feeding.
impl<S: Read> Sources<S> {
    /// Ends those whose machines have vanished.
    pub(super) fn look_for_vanished<N: Net<Socket = S>>(
        &mut self,
        rounds: &mut LivenessRounds,
        net: &mut N,
        (engine, reports, now): (&mut Engine, &mut Reports, Micros),
    ) {
        let mut vanished = Vec::new();
        for (index, source) in self.entries.iter_mut().filter(|(_, source)| !source.ended) {
            if rounds.note_silence(&mut source.liveness, net.silence(&mut source.socket), source.peer) {
                vanished.push(SourceKey::new(index));
            }
        }
        vanished.into_iter().for_each(|key| self.end(key, engine, reports, now));
    }

    /// Closes the sockets of those that have come to their ends. Says whether there were any.
    pub(super) fn reap<N: Net<Socket = S>>(
        &mut self,
        lingering: &mut Lingering<S>,
        net: &mut N,
        now: Micros,
    ) -> bool {
        let any = !self.ended.is_empty();
        for key in self.ended.drain(..) {
            let source = self.entries.remove(key.index());
            if source.asked.is_some() {
                // Its last acknowledgement is on its way, and it may go on sending.
                lingering.close(source.socket, true, net, now);
            }
        }
        any
    }

    /// Reads the source that has waited for longest, once; what was read becomes the current chunk. Says whether there was
    /// one to be read.
    pub(super) fn read_next(&mut self, engine: &mut Engine, reports: &mut Reports, now: Micros) -> bool {
        let Some(key) = self.readable.pop_front() else {
            return false;
        };
        let Some(source) = self.entries.get_mut(key.index()) else {
            return true;
        };
        source.queued = false;
        // Everything from a source that has hung up has arrived.
        let all = (!self.only_what_has_arrived && !source.is_retired) || source.hung_up;
        let most = if all { READ_BYTES } else { source.arrived.min(READ_BYTES) };
        if most == 0 {
            if source.is_retired {
                self.end(key, engine, reports, now);
            }
            return true;
        }
        let mut chunk = self.spare.pop().unwrap_or_else(|| Chunk::new(self.event_bytes_max));
        let target = chunk.start_after(source.carry.len());
        let outcome = read_once(&mut source.socket, &mut target[..most]);
        if let Outcome::Read(len) = outcome {
            if source.is_counted {
                self.silence.heard(now);
            }
            chunk.unread.end += len;
            source.bytes += len as u64;
            source.heard_at = Some(now);
            chunk.read_at = now;
            // A short read has emptied the socket, unless there is an end behind it that has been told already, or it has
            // stopped in front of urgent data.
            source.readable = len == most || source.hung_up || source.urgent;
            source.arrived = if source.readable { source.arrived.saturating_sub(len) } else { 0 };
            // Once more: then it is found that all has been read.
            source.readable |= source.is_retired;
            if source.readable {
                source.queued = true;
                self.readable.push_back(key);
            }
            if source.goes_on_with_its_line(chunk.rest(), self.event_bytes_max) {
                self.spare.push(chunk);
                return true;
            }
            chunk.put_in_front(&source.carry);
            source.carry.clear();
            source.drop_overlong(&mut chunk);
            self.current = Some((key, chunk));
            return true;
        }
        source.readable = false;
        source.arrived = 0;
        let source_is_retired = source.is_retired;
        self.spare.push(chunk);
        match outcome {
            Outcome::Ended => self.finish(key, engine, reports, now),
            Outcome::NothingYet if !source_is_retired => {}
            _ => self.end(key, engine, reports, now),
        }
        true
    }

    /// Feeds the current chunk to the engine, up to its end or until the turn is full.
    pub(super) fn feed(&mut self, engine: &mut Engine, reports: &mut Reports, now: Micros) -> Fed {
        let Some((key, mut chunk)) = self.current.take() else {
            return Fed::Whole;
        };
        let Some(source) = self.entries.get_mut(key.index()) else {
            self.spare.push(chunk);
            return Fed::Whole;
        };
        let (question, verdict) = source.hear(chunk.rest());
        chunk.unread.start += question;
        match verdict {
            Verdict::Feed if question > 0 => {
                if !self.take_in(key) {
                    self.spare.push(chunk);
                    return Fed::TurnedAway(key);
                }
            }
            Verdict::Feed => {}
            Verdict::Wait => {
                source.carry.extend_from_slice(chunk.rest());
                self.spare.push(chunk);
                return Fed::Whole;
            }
            Verdict::TurnAway => {
                self.spare.push(chunk);
                return Fed::TurnedAway(key);
            }
        }
        let Some(source) = self.entries.get_mut(key.index()) else {
            return Fed::Whole;
        };
        let (received, late) = (engine.counters.events_received, engine.counters.events_late);
        let (at, stop) = engine.feed(&chunk.bytes, chunk.unread.clone());
        chunk.unread.start = at;
        engine.settle(&chunk.bytes, chunk.read_at, now);
        reports.rejected(engine, source.peer, now);
        let received = engine.counters.events_received - received;
        source.has_sent_a_line |= received > 0;
        source.lines += received;
        if received > 0 && std::mem::take(&mut source.late_so_far) {
            let all_late = engine.counters.events_late - late >= received;
            if all_late {
                reports.all_late(engine.cursor(), source.peer, now);
            }
        }
        match stop {
            Stop::TurnFull => {
                self.current = Some((key, chunk));
                Fed::TurnFull
            }
            Stop::Blocked(seq) => {
                engine.set_deadline(seq, now);
                self.block(key, seq, chunk);
                Fed::Blocked
            }
            Stop::Drained | Stop::Overlong => {
                source.discarding |= stop == Stop::Overlong;
                source.carry.extend_from_slice(chunk.rest());
                self.spare.push(chunk);
                Fed::Whole
            }
        }
    }
}

/// Full rings.
/// Names of sources, and acknowledgements.
impl<S> Sources<S> {
    /// Whether a source on trial could take over the place of one with a name.
    fn may_try(&self) -> bool {
        let named = |source: &Source<S>| source.asked.as_ref().is_some_and(|asked| asked.name().is_some());
        let on_trial = self.entries.iter().filter(|(_, source)| source.trial_until.is_some()).count();
        on_trial < self.places && self.entries.iter().any(|(_, source)| !source.ended && named(source))
    }

    /// The source has given its name: older connections of that name are not read any more but for what has arrived. Says
    /// whether there was one.
    fn take_over(&mut self, key: SourceKey) -> bool {
        let Some(asked) = self.entries.get(key.index()).and_then(|source| source.asked.as_ref()) else {
            return false;
        };
        let Some(name) = asked.name().map(Name::from_slice) else {
            return false;
        };
        let mut any = false;
        for (index, source) in &mut self.entries {
            if index != key.index() && !source.ended && source.has_name(&name) {
                source.is_replaced = true;
                any = true;
            }
        }
        self.any_replaced |= any;
        any
    }

    /// A source that asked has sent its last byte: it goes on being told, for a limited time.
    fn half_close(&mut self, key: SourceKey, engine: &Engine, now: Micros) {
        let Some(source) = self.entries.get_mut(key.index()) else { return };
        let highest =
            engine.waiting_lines().last().map_or(Cursor::START, |(number, _)| Cursor::behind(number));
        let all_below = highest.max(engine.cursor());
        source.half_closed = Some(HalfClosed { all_below, until: now.saturating_add(self.half_closed_max) });
        // Those that wait like this are no more than there are places.
        let waiting = self.entries.iter().filter(|(_, source)| !source.ended && source.half_closed.is_some());
        let since = |source: &Source<S>| source.half_closed.as_ref().map_or(0, |half| half.until);
        let oldest = waiting.clone().min_by_key(|(_, source)| since(source)).map(|(index, _)| index);
        if waiting.count() > self.places
            && let Some(index) = oldest
        {
            self.close(SourceKey::new(index));
        }
    }
}

impl<S> Sources<S> {
    /// A source has asked. It takes over from those of its name, and ends its own trial by that. False: it is one too many.
    fn take_in(&mut self, key: SourceKey) -> bool {
        let takes_over = self.take_over(key);
        let Some(source) = self.entries.get_mut(key.index()) else { return false };
        if source.trial_until.is_none() {
            return true;
        }
        if takes_over {
            source.trial_until = None;
            source.is_counted = true;
            self.connected += 1;
            self.hung_up += usize::from(source.hung_up);
        }
        takes_over
    }

    /// The source's next event does not fit the ring: it is not read any further until it does.
    fn block(&mut self, key: SourceKey, seq: SequenceNumber, chunk: Chunk) {
        if let Some(source) = self.entries.get_mut(key.index()).filter(|source| !source.ended) {
            source.blocked = Some((seq, chunk));
            source.queued = false;
            self.readable.retain(|&other| other != key);
            self.blocked.push(key);
        } else {
            self.spare.push(chunk);
        }
    }

    /// A blocked source whose event fits the ring by now, by its index among the blocked ones.
    fn unblockable(&self, engine: &Engine) -> Option<usize> {
        self.blocked.iter().position(|&key| self.blocked_at(key).is_some_and(|seq| engine.takes(seq)))
    }

    /// Goes on with a source whose event fits the ring by now, unless there is a chunk already: of several, with the one that
    /// has waited longest. Says whether there is a chunk to feed.
    pub(super) fn unblock(&mut self, engine: &Engine) -> bool {
        if self.current.is_none()
            && let Some(index) = self.unblockable(engine)
        {
            let key = self.blocked.remove(index);
            if let Some(source) = self.entries.get_mut(key.index()) {
                self.current = source.blocked.take().map(|(_, chunk)| (key, chunk));
                if source.readable && !std::mem::replace(&mut source.queued, true) {
                    self.readable.push_back(key);
                }
            }
        }
        self.current.is_some()
    }

    /// Whether every connected source waits for room in the ring: the hole cannot be filled by any of them.
    pub(super) fn is_stuck(&self) -> bool {
        self.connected > 0 && self.blocked.len() >= self.connected
    }

    /// The lowest number that a source waits with.
    pub(super) fn lowest_blocked(&self) -> Option<SequenceNumber> {
        self.blocked.iter().filter_map(|&key| self.blocked_at(key)).min()
    }

    fn blocked_at(&self, key: SourceKey) -> Option<SequenceNumber> {
        self.entries.get(key.index())?.blocked.as_ref().map(|&(seq, _)| seq)
    }
}
