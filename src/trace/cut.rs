//! Takes a piece out of a trace.

use super::{
    reader::{Reader, TraceError},
    record::{Action, ConnectionId, Machine, Record, head},
    text::push_data,
};
use crate::{config::Config, time::Micros};
use hashbrown::HashMap;
use std::{
    io::{self, Read, Write},
    ops::Range,
};

/// Longest login line (SPEC section 1.2). Of the bytes that a user sent before the cut, only its login matters.
const LOGIN_BYTES_MAX: usize = 64;

/// A connection at the time of the cut.
#[derive(Debug, Default)]
struct State {
    /// How many came before it.
    place: u64,
    /// The bytes that a user has sent, up to its first line end.
    login: Vec<u8>,
    /// The source is in the middle of a line. The rest of that line is not part of the piece.
    in_line: bool,
    finished: bool,
    /// What it took at most.
    limit: Option<u64>,
}

/// Copies the records of the times in `range` into a trace of its own. Earlier connections come first, with their
/// logins. Earlier events are missing, and so are the follows that they made. The bytes that a connection takes are
/// counted from the cut.
///
/// # Errors
///
/// If `output` cannot be written to; inside, if the trace is damaged. Up to there the piece is written.
pub fn cut(
    input: impl Read,
    range: Range<Micros>,
    output: &mut impl Write,
) -> io::Result<Result<(), TraceError>> {
    let mut reader = match Reader::new(input) {
        Ok(reader) => reader,
        Err(error) => return Ok(Err(error)),
    };
    let mut piece = Piece { states: HashMap::new(), connected: 0, text: Vec::new(), begun: false };
    piece.begin(reader.config(), &range);
    let mut data = Vec::new();
    loop {
        match reader.next(&mut data) {
            Ok(Some((at, record))) if at < range.end => piece.push(&range, at, record, &data),
            outcome => {
                output.write_all(&piece.text)?;
                output.flush()?;
                return Ok(outcome.map(|_| ()));
            }
        }
        output.write_all(&piece.text)?;
        piece.text.clear();
    }
}

struct Piece {
    /// Connections from before the cut.
    states: HashMap<ConnectionId, State>,
    connected: u64,
    text: Vec<u8>,
    /// The connections from before the cut have been written.
    begun: bool,
}

impl Piece {
    fn begin(&mut self, config: &Config, range: &Range<Micros>) {
        self.text.extend_from_slice(head(config).as_bytes());
        let note = match range.end {
            Micros::MAX => format!("# A piece of a longer trace, from {}.\n", range.start),
            end => format!("# A piece of a longer trace, from {} to {end}.\n", range.start),
        };
        self.text.extend_from_slice(note.as_bytes());
    }

    fn push(&mut self, range: &Range<Micros>, at: Micros, record: Record, data: &[u8]) {
        let inside = at >= range.start;
        if inside && !std::mem::replace(&mut self.begun, true) {
            self.push_states(range.start);
        }
        match record {
            Record::Signal | Record::Machine(_) => {
                if matches!(record, Record::Machine(Machine::Killed | Machine::PowerFails | Machine::Starts))
                {
                    // Nobody is connected any more.
                    self.states.clear();
                }
                if inside {
                    record.push_line(at, &mut self.text);
                }
            }
            Record::Connection { id, action } if inside => self.push_record(at, id, action, data),
            Record::Connection { id, action } => self.note(id, action, data),
        }
    }

    /// The connections that were there before, as they were.
    fn push_states(&mut self, at: Micros) {
        let mut states: Vec<(&ConnectionId, &State)> = self.states.iter().collect();
        states.sort_unstable_by_key(|(_, state)| state.place);
        for (id, state) in states {
            let mut push = |action| Record::Connection { id: *id, action }.push_line(at, &mut self.text);
            push(Action::Connects);
            if state.limit.is_some() {
                push(Action::Takes(0));
            }
            if !state.login.is_empty() {
                push(Action::Sends);
                push_data(&state.login, &mut self.text);
            }
            if state.finished {
                Record::Connection { id: *id, action: Action::Finishes }.push_line(at, &mut self.text);
            }
        }
    }

    fn push_record(&mut self, at: Micros, id: ConnectionId, action: Action, mut data: &[u8]) {
        let mut action = action;
        if let Some(state) = self.states.get_mut(&id) {
            if action == Action::Sends && state.in_line {
                let Some(newline) = memchr::memchr(b'\n', data) else { return };
                state.in_line = false;
                data = &data[newline + 1..];
            }
            if let Action::Takes(bytes) = &mut action
                && *bytes != u64::MAX
            {
                *bytes = state.limit.map_or(0, |limit| bytes.saturating_sub(limit));
            }
        }
        Record::Connection { id, action }.push_line(at, &mut self.text);
        if action == Action::Sends {
            push_data(data, &mut self.text);
        }
    }

    fn note(&mut self, id: ConnectionId, action: Action, data: &[u8]) {
        if action == Action::Connects {
            self.states.insert(id, State { place: self.connected, ..State::default() });
            self.connected += 1;
            return;
        }
        let Some(state) = self.states.get_mut(&id) else {
            return;
        };
        match action {
            Action::Connects => {}
            Action::Sends if matches!(id, ConnectionId::Source(_)) => {
                state.in_line = data.last() != Some(&b'\n');
            }
            Action::Sends => {
                if !state.login.contains(&b'\n') {
                    let room = LOGIN_BYTES_MAX.saturating_sub(state.login.len());
                    let end = memchr::memchr(b'\n', data).map_or(data.len(), |newline| newline + 1);
                    state.login.extend_from_slice(&data[..end.min(room)]);
                }
            }
            Action::Finishes => state.finished = true,
            Action::Takes(bytes) => state.limit = Some(bytes).filter(|&bytes| bytes != u64::MAX),
            Action::Closes | Action::Resets => {
                self.states.remove(&id);
            }
        }
    }
}
