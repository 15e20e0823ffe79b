//! One event source: its socket, the beginning of its next line, and the last acknowledgement.

use super::{
    chunk::Chunk,
    liveness::Liveness,
    question::{Acknowledgements, FirstLine, first_line},
    socket::{is_interrupted, would_block},
};
use crate::sequence::{Cursor, SequenceNumber};
use crate::time::Micros;
use std::{io::Read, net::SocketAddr};

/// An event source.
#[derive(Debug)]
pub(super) struct Source<S> {
    pub(super) socket: S,
    pub(super) peer: SocketAddr,
    /// When it was accepted.
    pub(super) since: Micros,
    /// Bytes that were read from it, and when that was last.
    pub(super) bytes: u64,
    pub(super) heard_at: Option<Micros>,
    /// Lines of it that were looked at.
    pub(super) lines: u64,
    /// The socket was readable and has not said since that reading would block.
    pub(super) readable: bool,
    /// It is on the list of those to be read.
    pub(super) queued: bool,
    /// The start of a line whose end has not been read.
    pub(super) carry: Vec<u8>,
    /// The number of the next line is too far ahead for the ring: it and all that came with it.
    pub(super) blocked: Option<(SequenceNumber, Chunk)>,
    /// In the middle of an overlong line, which is dropped up to its end.
    pub(super) discarding: bool,
    /// It will send nothing more.
    pub(super) hung_up: bool,
    /// It has sent urgent data: a short read does not mean that there is no more.
    pub(super) urgent: bool,
    /// Bytes that had arrived when the sockets were last looked at, and have not been read.
    pub(super) arrived: usize,
    /// It has come to its end, and only has to be closed.
    pub(super) ended: bool,
    /// Nothing of what it sent was anything but late so far.
    pub(super) late_so_far: bool,
    /// Its first line has not been seen whole.
    pub(super) is_new: bool,
    /// It has sent a whole line that is not the question.
    pub(super) has_sent_a_line: bool,
    pub(super) liveness: Liveness,
    /// It counts as connected.
    pub(super) is_counted: bool,
    /// Every place is taken: it is let in if it gives the name of a source that is connected, until then at the latest.
    pub(super) trial_until: Option<Micros>,
    /// It has asked for acknowledgements.
    pub(super) asked: Option<Acknowledgements>,
    /// Another connection has given its name.
    pub(super) is_replaced: bool,
    /// Only bytes that have arrived already are read.
    pub(super) is_retired: bool,
    /// It is not read any more, and waits for its last acknowledgement.
    pub(super) half_closed: Option<HalfClosed>,
}

/// A source that has closed its sending side, or that is not read any more: it is told what becomes of what it has sent.
#[derive(Debug)]
pub(super) struct HalfClosed {
    /// All that it has sent is below this number.
    pub(super) all_below: Cursor,
    /// When it is closed at the latest.
    pub(super) until: Micros,
}

/// The next step for the bytes that a source has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is fed to the engine.
    Feed,
    /// The first line is not whole.
    Wait,
    /// The source was let in on trial, and is one too many.
    TurnAway,
}

/// The result of reading a socket.
pub(super) enum Outcome {
    Read(usize),
    Ended,
    Failed,
    NothingYet,
}

impl<S> Source<S> {
    /// Looks for the question in what the source has sent first.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> (usize, Verdict) {
        if !self.is_new {
            return (0, Verdict::Feed);
        }
        match first_line(bytes) {
            FirstLine::Begun => (0, Verdict::Wait),
            FirstLine::Other => {
                self.is_new = false;
                (0, if self.trial_until.is_some() { Verdict::TurnAway } else { Verdict::Feed })
            }
            FirstLine::Question { len, name, terminator } => {
                self.is_new = false;
                log::info!(
                    peer:% = self.peer,
                    name = String::from_utf8_lossy(name.as_deref().unwrap_or_default());
                    "an event source asks for acknowledgements"
                );
                self.asked = Some(Acknowledgements::new(name, terminator));
                (len, Verdict::Feed)
            }
        }
    }

    pub(super) fn has_name(&self, name: &[u8]) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.name() == Some(name))
    }
}

impl<S> Source<S> {
    /// Adds `bytes` to the line that has begun, if they neither end it nor make it too long. So a long line that comes in small
    /// pieces is not copied and looked through for each of them.
    pub(super) fn goes_on_with_its_line(&mut self, bytes: &[u8], event_bytes_max: usize) -> bool {
        let goes_on = !self.is_new
            && !self.carry.is_empty()
            && self.carry.len() + bytes.len() < event_bytes_max
            && memchr::memchr(b'\n', bytes).is_none();
        if goes_on {
            self.carry.extend_from_slice(bytes);
        }
        goes_on
    }

    /// In the middle of an overlong line: drops the rest of that line.
    pub(super) fn drop_overlong(&mut self, chunk: &mut Chunk) {
        if self.discarding {
            match memchr::memchr(b'\n', chunk.rest()) {
                Some(newline) => {
                    chunk.unread.start += newline + 1;
                    self.discarding = false;
                }
                None => chunk.unread.start = chunk.unread.end,
            }
        }
    }
}

pub(super) fn read_once(socket: &mut impl Read, target: &mut [u8]) -> Outcome {
    loop {
        match socket.read(target) {
            Ok(0) => return Outcome::Ended,
            Ok(len) => return Outcome::Read(len),
            Err(error) if is_interrupted(&error) => {}
            Err(error) if would_block(&error) => return Outcome::NothingYet,
            Err(_) => return Outcome::Failed,
        }
    }
}
