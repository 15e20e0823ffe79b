//! An edge's side of the stream: when to connect, what to ask for, and what to make of the answers.
//!
//! Nothing here reads or writes. The server tells a [`Follower`] what has happened to the connection and what has been received,
//! and does what the [`Effect`]s say. One order of calls: [`due`](Follower::due) until it says nothing; when the connection
//! is up, [`connected`](Follower::connected); for each read [`received`](Follower::received), then [`next`](Follower::next) until
//! there is nothing more; [`lost`](Follower::lost) when the connection has ended or an error was returned.

use super::{
    SILENCE_MAX,
    backoff::Backoff,
    reader::{Item, Place, Reader, Refusal},
};
use crate::{
    epoch::Epoch,
    sequence::Cursor,
    time::{Micros, SECOND},
    user_id::UserId,
};
use std::ops::Range;

/// How long connecting may take, and the answer after it.
const CONNECT_MAX: Micros = 5 * SECOND;

/// The next action for the server's connection to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Open one.
    Connect,
    /// Close it, and say that it is [`lost`](Follower::lost): nothing has come for too long.
    GiveUp,
}

/// The action for the bytes that the server has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Start again, with an empty graph: edges follow. The events that users were owed before are lost, for the reason given; `None`: nothing
    /// had been received before.
    Begin(Option<Loss>),
    /// Add an edge to the graph: follower and followed.
    Edge(UserId, UserId),
    /// The stream has been reached: it goes on at this place. After [`Effect::Begin`] the graph is complete; otherwise it is the
    /// place that was asked for.
    Reached(Place),
    /// Apply these lines of the chunk; the cursor is `to` behind them.
    Apply {
        /// The range in the chunk.
        lines: Range<usize>,
        /// The cursor behind them.
        to: Cursor,
    },
    /// Every number below this one has come or was given up.
    Advance(Cursor),
    /// The stream is another one, and this edge has a journal: it ends.
    AnotherStream(Place),
}

/// Why an edge cannot go on where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The stream does not keep its place any more.
    Gone,
    /// The stream is another one.
    Epoch,
}

#[derive(Debug)]
enum Phase {
    /// Not before this time.
    Away { until: Micros },
    /// The connection must be up and answered by then.
    Connecting { until: Micros },
    /// The stream has sent something last at `heard`.
    Reading { reader: Reader, heard: Micros },
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Follower {
    phase: Phase,
    backoff: Backoff,
    /// The stream that it follows, once it has reached one.
    epoch: Option<Epoch>,
    /// It keeps a journal: another stream cannot take its place.
    has_journal: bool,
    /// It cannot continue from its place: it starts again.
    loss: Option<Loss>,
    /// The graph is being received.
    wants_graph: bool,
    /// Since when the stream has been away: it has not answered.
    away_since: Option<Micros>,
}

impl Follower {
    /// A follower of the stream `epoch`, or, without, of whichever it finds. `has_journal`: what has been received is kept.
    #[must_use]
    pub(crate) fn new(epoch: Option<Epoch>, has_journal: bool, now: Micros) -> Self {
        Self {
            phase: Phase::Away { until: now },
            backoff: Backoff::default(),
            epoch,
            has_journal,
            loss: None,
            wants_graph: epoch.is_none(),
            away_since: Some(now),
        }
    }

    /// The stream that it follows, once it has reached one.
    #[must_use]
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Since when the stream has been away, if it is.
    #[must_use]
    pub(crate) fn away_since(&self) -> Option<Micros> {
        self.away_since
    }

    /// When something was last received from the stream, if it is there.
    #[must_use]
    pub(crate) fn heard(&self) -> Option<Micros> {
        match self.phase {
            Phase::Reading { heard, .. } if self.away_since.is_none() => Some(heard),
            _ => None,
        }
    }

    /// When [`due`](Self::due) has something to say, if nothing happens before.
    #[must_use]
    pub(crate) fn deadline(&self) -> Micros {
        match self.phase {
            Phase::Away { until } | Phase::Connecting { until } => until,
            Phase::Reading { heard, .. } => heard + SILENCE_MAX,
        }
    }

    /// The next action.
    pub(crate) fn due(&mut self, now: Micros) -> Option<Due> {
        if now < self.deadline() {
            return None;
        }
        if let Phase::Away { .. } = self.phase {
            self.phase = Phase::Connecting { until: now + CONNECT_MAX };
            return Some(Due::Connect);
        }
        Some(Due::GiveUp)
    }

    /// The connection is up: the request to send. `cursor`: the next number that is wanted.
    pub(crate) fn connected(&mut self, cursor: Cursor, now: Micros) -> String {
        // Without an answer the connection is given up as one that cannot be opened.
        let heard = now.saturating_sub(SILENCE_MAX - CONNECT_MAX);
        self.phase = Phase::Reading { reader: Reader::new(self.wants_graph), heard };
        match self.epoch {
            Some(epoch) if !self.wants_graph => format!("*|{cursor}|{epoch}\n"),
            _ => "*|graph\n".to_owned(),
        }
    }

    /// The connection has ended, or could not be opened.
    pub(crate) fn lost(&mut self, now: Micros) {
        self.away_since.get_or_insert(now);
        self.phase = Phase::Away { until: now + self.backoff.fail() };
    }

    /// Something has been received.
    pub(crate) fn received(&mut self, now: Micros) {
        if let Phase::Reading { heard, .. } = &mut self.phase {
            *heard = now;
        }
    }

    /// Takes the next part of what has been received, `chunk[range]`, and moves the start of the range behind it. `None`: the
    /// rest is no whole line.
    ///
    /// # Errors
    ///
    /// Why the connection cannot be used any more, in a clause. The caller must close it and call [`lost`](Self::lost).
    pub(crate) fn next(&mut self, chunk: &[u8], range: &mut Range<usize>) -> Result<Option<Effect>, String> {
        let Phase::Reading { reader, .. } = &mut self.phase else {
            return Ok(None);
        };
        let Some(item) = reader.next(chunk, range).map_err(|garbage| garbage.to_string())? else {
            return Ok(None);
        };
        match item {
            Item::Answer(place) | Item::GraphComplete(place) => self.answered(place, &item).map(Some),
            Item::Edge(follower, followed) => Ok(Some(Effect::Edge(follower, followed))),
            Item::Events { lines, to } => Ok(Some(Effect::Apply { lines, to })),
            Item::Mark(place) if self.epoch == Some(place.epoch) => Ok(Some(Effect::Advance(place.next))),
            Item::Mark(_) => Err("the stream has begun a new run".to_owned()),
            Item::Refused(refusal, place) => self.refused(refusal, place),
        }
    }

    /// The stream says where it goes on.
    fn answered(&mut self, place: Place, item: &Item) -> Result<Effect, String> {
        if self.wants_graph && matches!(item, Item::Answer(_)) {
            if self.has_journal && self.epoch.is_some_and(|epoch| epoch != place.epoch) {
                return Ok(Effect::AnotherStream(place));
            }
            let loss = self.loss.or((self.epoch.is_some()).then_some(Loss::Epoch));
            self.epoch = Some(place.epoch);
            return Ok(Effect::Begin(loss));
        }
        if self.epoch != Some(place.epoch) {
            return Err("the answer names another epoch than the request".to_owned());
        }
        self.wants_graph = false;
        self.loss = None;
        self.away_since = None;
        self.backoff.succeed();
        Ok(Effect::Reached(place))
    }

    /// The stream does not go on, or ends.
    fn refused(&mut self, refusal: Refusal, place: Place) -> Result<Option<Effect>, String> {
        let loss = match refusal {
            Refusal::Other => return Err("the server has ended the connection".to_owned()),
            Refusal::Epoch if self.has_journal => return Ok(Some(Effect::AnotherStream(place))),
            Refusal::Epoch => Loss::Epoch,
            Refusal::Gone => Loss::Gone,
        };
        self.loss = Some(loss);
        self.wants_graph = true;
        // It has been reached and has answered: what is asked next is asked at once.
        self.backoff.succeed();
        Err(match loss {
            Loss::Gone => {
                "the place of this edge is not kept there any more: it begins again with the graph".to_owned()
            }
            Loss::Epoch => "it is another stream: this edge begins with the new one".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MILLISECOND;

    fn effects(follower: &mut Follower, bytes: &str) -> Result<Vec<Effect>, String> {
        let (mut range, mut effects) = (0..bytes.len(), Vec::new());
        while let Some(effect) = follower.next(bytes.as_bytes(), &mut range)? {
            effects.push(effect);
        }
        Ok(effects)
    }

    fn place(next: Cursor) -> Place {
        Place { epoch: Epoch::new(0xabc), next }
    }

    /// A follower without a journal that has reached its stream at number 5.
    fn reached() -> Follower {
        let mut follower = Follower::new(None, false, 0);
        assert_eq!(follower.due(0), Some(Due::Connect));
        assert_eq!(follower.connected(Cursor::new(1), 0), "*|graph\n");
        let bytes = "+|0000000000000abc|5\n=|1|2\n+|0000000000000abc|5\n";
        let all = [
            Effect::Begin(None),
            Effect::Edge(UserId::new(1), UserId::new(2)),
            Effect::Reached(place(Cursor::new(5))),
        ];
        assert_eq!(effects(&mut follower, bytes).unwrap(), all);
        assert_eq!((follower.epoch(), follower.away_since()), (Some(Epoch::new(0xabc)), None));
        follower
    }

    #[test]
    fn the_first_time_it_asks_for_the_graph_and_then_for_its_place() {
        let mut follower = reached();
        let got = effects(&mut follower, "5|B\n6|B\n+|0000000000000abc|9\n").unwrap();
        assert_eq!(got, [Effect::Apply { lines: 0..8, to: Cursor::new(7) }, Effect::Advance(Cursor::new(9))]);
        follower.lost(SECOND);
        assert_eq!(follower.away_since(), Some(SECOND));
        assert_eq!(follower.due(SECOND), None);
        assert_eq!(follower.due(follower.deadline()), Some(Due::Connect));
        assert_eq!(follower.connected(Cursor::new(9), SECOND), "*|9|0000000000000abc\n");
        let got = effects(&mut follower, "+|0000000000000abc|9\n").unwrap();
        assert_eq!(got, [Effect::Reached(place(Cursor::new(9)))]);
        assert_eq!(follower.away_since(), None);
    }

    #[test]
    fn a_place_that_is_gone_is_begun_anew_in_the_same_epoch() {
        let mut follower = reached();
        follower.lost(0);
        follower.connected(Cursor::new(9), 0);
        effects(&mut follower, "-|0000000000000abc|20|gone\n").unwrap_err();
        follower.lost(0);
        assert_eq!(follower.connected(Cursor::new(9), 0), "*|graph\n");
        let got = effects(&mut follower, "+|0000000000000abc|20\n+|0000000000000abc|20\n").unwrap();
        assert_eq!(got, [Effect::Begin(Some(Loss::Gone)), Effect::Reached(place(Cursor::new(20)))]);
    }

    #[test]
    fn another_stream_takes_over_only_where_there_is_no_journal() {
        let mut follower = reached();
        follower.lost(0);
        follower.connected(Cursor::new(9), 0);
        effects(&mut follower, "-|0000000000000def|1|epoch\n").unwrap_err();
        follower.lost(0);
        assert_eq!(follower.connected(Cursor::new(9), 0), "*|graph\n");
        let got = effects(&mut follower, "+|0000000000000def|1\n+|0000000000000def|1\n").unwrap();
        let new = Place { epoch: Epoch::new(0xdef), next: Cursor::new(1) };
        assert_eq!(got, [Effect::Begin(Some(Loss::Epoch)), Effect::Reached(new)]);
        assert_eq!(follower.epoch(), Some(Epoch::new(0xdef)));

        let mut follower = Follower::new(Some(Epoch::new(0xabc)), true, 0);
        assert_eq!(follower.connected(Cursor::new(9), 0), "*|9|0000000000000abc\n");
        let got = effects(&mut follower, "-|0000000000000def|1|epoch\n").unwrap();
        assert_eq!(got, [Effect::AnotherStream(new)]);
    }

    #[test]
    fn silence_ends_a_connection_and_pauses_grow() {
        let mut follower = Follower::new(None, false, 0);
        let mut now = 0;
        for pause in [50, 100, 200] {
            assert_eq!(follower.due(now), Some(Due::Connect));
            now += CONNECT_MAX;
            assert_eq!(follower.due(now), Some(Due::GiveUp));
            follower.lost(now);
            assert_eq!(follower.deadline(), now + pause * MILLISECOND);
            now = follower.deadline();
        }
        let mut follower = reached();
        follower.received(3 * SECOND);
        assert_eq!(follower.due(3 * SECOND + SILENCE_MAX - 1), None);
        assert_eq!(follower.due(3 * SECOND + SILENCE_MAX), Some(Due::GiveUp));
    }

    #[test]
    fn an_answer_must_come_soon() {
        let mut follower = Follower::new(None, false, 0);
        let mut late = 100 * SECOND;
        follower.connected(Cursor::new(1), late);
        late += CONNECT_MAX;
        assert_eq!(follower.due(late), Some(Due::GiveUp));
    }
}
