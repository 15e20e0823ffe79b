//! Sources that resume (docs/SPEC.md section 9): the question in a source's first line, and the acknowledgements that answer it.
//!
//! Only the newest acknowledgement matters. A connection holds one line at a time: where the socket takes only a part of it, the
//! next line is made when the rest has been written. So a source that reads nothing costs a fixed number of bytes.

use super::{Source, Sources};
use crate::{
    engine::Engine,
    epoch::Epoch,
    resume::{Line, Terminator, place_line},
    server::{is_interrupted, key::SourceKey, net::Net, would_block},
    time::Micros,
};
use smallvec::SmallVec;
use std::io::{self, ErrorKind, Write};

/// The longest name of a source.
const NAME_BYTES_MAX: usize = 64;
const QUESTION: &[u8] = b"?|ack";
/// The longest question: a bar and a name, and the end of the line.
pub(super) const QUESTION_BYTES_MAX: usize = QUESTION.len() + 1 + NAME_BYTES_MAX + 2;

/// A source's name: 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
pub(super) type Name = SmallVec<[u8; 16]>;

/// What a source begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FirstLine {
    /// It may become a question: more bytes are needed.
    Begun,
    /// It is no question.
    Other,
    /// It asks for acknowledgements.
    Question {
        /// Bytes of the line, its end included.
        len: usize,
        /// The name that the source gave.
        name: Option<Name>,
        /// How the line ends.
        terminator: Terminator,
    },
}

/// Says what the bytes are that a source has sent first.
pub(super) fn first_line(bytes: &[u8]) -> FirstLine {
    let common = bytes.len().min(QUESTION.len());
    if bytes[..common] != QUESTION[..common] {
        return FirstLine::Other;
    }
    let window = &bytes[..bytes.len().min(QUESTION_BYTES_MAX)];
    let Some(newline) = memchr::memchr(b'\n', window) else {
        return if window.len() < QUESTION_BYTES_MAX { FirstLine::Begun } else { FirstLine::Other };
    };
    let line = &window[..newline];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let name = match line.strip_prefix(QUESTION) {
        Some(b"") => None,
        Some([b'|', name @ ..]) if is_name(name) => Some(Name::from_slice(name)),
        _ => return FirstLine::Other,
    };
    FirstLine::Question { len: newline + 1, name, terminator: Terminator::of(&window[..=newline]) }
}

fn is_name(name: &[u8]) -> bool {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    fits && name.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// What a source that asked has been told.
#[derive(Debug)]
pub(super) struct Acknowledgements {
    name: Option<Name>,
    terminator: Terminator,
    /// The epoch and number of the newest line, whether it has been written or not.
    told: Option<(Epoch, u128)>,
    /// What the socket has not taken of that line.
    unwritten: Line,
}

impl Acknowledgements {
    fn new(name: Option<Name>, terminator: Terminator) -> Self {
        Self { name, terminator, told: None, unwritten: Line::new() }
    }

    /// The name that the source gave.
    pub(super) fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// The socket has not taken all of the newest line.
    pub(super) fn waits(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Every number below `number` has been told, and written.
    pub(super) fn have_told(&self, number: u128) -> bool {
        !self.waits() && self.told.is_some_and(|(_, told)| told >= number)
    }

    /// Tells that every number below `number` is dealt with, unless that has been told, as far as the socket takes it.
    ///
    /// # Errors
    ///
    /// Those of writing: the connection is over.
    pub(super) fn tell(&mut self, epoch: Epoch, number: u128, socket: &mut impl Write) -> io::Result<()> {
        self.write(socket)?;
        if self.waits() || self.told == Some((epoch, number)) {
            return Ok(());
        }
        self.told = Some((epoch, number));
        self.unwritten = place_line(epoch, number, self.terminator);
        self.write(socket)
    }

    fn write(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while !self.unwritten.is_empty() {
            match socket.write(&self.unwritten) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.unwritten.drain(..written)),
                Err(error) if is_interrupted(&error) => {}
                Err(error) if would_block(&error) => break,
                Err(error) => {
                    // Nothing of it gets anywhere any more: it is not tried again each turn.
                    self.unwritten.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// A source that has closed its sending side, or that is not read any more: it is told what becomes of what it has sent.
#[derive(Debug)]
pub(super) struct HalfClosed {
    /// All that it has sent is below this number.
    all_below: u128,
    /// When it is closed at the latest.
    until: Micros,
}

/// What is to be done with what a source has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is fed to the engine.
    Feed,
    /// The first line is not whole.
    Wait,
    /// The source was let in on trial, and is one too many.
    TurnAway,
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

    fn has_name(&self, name: &[u8]) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.name() == Some(name))
    }
}

impl<S> Sources<S> {
    /// Whether a source on trial could take over the place of one with a name.
    pub(super) fn may_try(&self) -> bool {
        let named = |source: &Source<S>| source.asked.as_ref().is_some_and(|asked| asked.name().is_some());
        let on_trial = self.entries.iter().filter(|(_, source)| source.trial_until.is_some()).count();
        on_trial < self.places && self.entries.iter().any(|(_, source)| !source.ended && named(source))
    }

    /// The source has given its name: older connections of that name are not read any more but for what has arrived. Says
    /// whether there was one.
    pub(super) fn take_over(&mut self, key: SourceKey) -> bool {
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
    pub(super) fn half_close(&mut self, key: SourceKey, engine: &Engine, now: Micros) {
        let Some(source) = self.entries.get_mut(key.index()) else { return };
        let highest = engine.waiting_lines().last().map_or(0, |(number, _)| u128::from(number) + 1);
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

    /// When the first connection is closed that waits for its last acknowledgement, or is on trial.
    pub(in crate::server) fn acknowledgement_deadline(&self) -> Option<Micros> {
        let deadline = |source: &Source<S>| {
            let half_closed = source.half_closed.as_ref().map(|half| half.until);
            half_closed.into_iter().chain(source.trial_until).min()
        };
        self.entries
            .iter()
            .filter(|(_, source)| !source.ended)
            .filter_map(|(_, source)| deadline(source))
            .min()
    }

    /// A source on trial whose time is up.
    pub(in crate::server) fn overdue_trial(&self, now: Micros) -> Option<SourceKey> {
        let is_overdue = |source: &Source<S>| source.trial_until.is_some_and(|until| until <= now);
        let mut entries = self.entries.iter();
        entries
            .find(|(_, source)| !source.ended && is_overdue(source))
            .map(|(index, _)| SourceKey::new(index))
    }

    /// Whether any source only waits for its last acknowledgement.
    pub(in crate::server) fn wait_for_acknowledgements(&self) -> bool {
        self.entries.iter().any(|(_, source)| !source.ended && source.half_closed.is_some())
    }

    /// Sources that have each sent a whole line other than the question.
    pub(in crate::server) fn heard(&self) -> usize {
        let heard = |source: &Source<S>| source.is_counted && source.has_sent_a_line;
        self.entries.iter().filter(|(_, source)| heard(source)).count()
    }
}

impl<S: Write> Sources<S> {
    /// Tells those who asked that every number below `number` is dealt with; closes those who have been told all.
    /// `is_last`: this number is the last one.
    pub(in crate::server) fn acknowledge<N: Net<Socket = S>>(
        &mut self,
        (epoch, number): (Epoch, u128),
        is_last: bool,
        net: &mut N,
        now: Micros,
    ) {
        let mut closed: SmallVec<[SourceKey; 4]> = SmallVec::new();
        for (index, source) in &mut self.entries {
            let Some(asked) = source.asked.as_mut().filter(|_| !source.ended) else { continue };
            let key = SourceKey::new(index);
            let waited = asked.waits();
            let outcome = asked.tell(epoch, number, &mut source.socket).and_then(|()| {
                if asked.waits() == waited {
                    return Ok(());
                }
                net.want_write(&mut source.socket, key.number(), asked.waits())
            });
            let is_over = source.half_closed.as_ref().is_some_and(|half| {
                let all = is_last || number >= half.all_below;
                half.until <= now || source.is_replaced || (all && asked.have_told(number))
            });
            // A socket that fails while it is still read is found to have failed by reading it.
            if is_over || (outcome.is_err() && source.half_closed.is_some()) {
                net.finish(&mut source.socket);
                closed.push(key);
            }
        }
        closed.into_iter().for_each(|key| self.close(key));
    }

    /// Older connections whose name another one has given: what has arrived of them is read, and no more.
    pub(in crate::server) fn retire_replaced<N: Net<Socket = S>>(&mut self, net: &mut N) {
        if !std::mem::take(&mut self.any_replaced) {
            return;
        }
        for (index, source) in &mut self.entries {
            if source.is_replaced && !source.ended && !std::mem::replace(&mut source.is_retired, true) {
                source.arrived = net.unread(&mut source.socket);
                if source.blocked.is_none() && !std::mem::replace(&mut source.queued, true) {
                    source.readable = true;
                    self.readable.push_back(SourceKey::new(index));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(line: &str) -> Option<(usize, Option<String>, bool)> {
        match first_line(line.as_bytes()) {
            FirstLine::Question { len, name, terminator } => {
                let crlf = terminator == Terminator::CrLf;
                Some((len, name.map(|name| String::from_utf8(name.to_vec()).unwrap()), crlf))
            }
            FirstLine::Begun | FirstLine::Other => None,
        }
    }

    #[test]
    fn a_question_is_told_from_everything_else() {
        assert_eq!(question("?|ack\n1|B\n"), Some((6, None, false)));
        assert_eq!(question("?|ack\r\n"), Some((7, None, true)));
        assert_eq!(question("?|ack|a-B_9.\n"), Some((13, Some("a-B_9.".into()), false)));
        let name = "n".repeat(64);
        assert_eq!(question(&format!("?|ack|{name}\r\n")), Some((72, Some(name.clone()), true)));
        for line in ["1|B\n", "?|ack|\n", "?|acks\n", "?|ack|a b\n", "?|ack|a|b\n", "?|ack \n", "??\n", "\n"]
        {
            assert_eq!(first_line(line.as_bytes()), FirstLine::Other, "{line:?}");
        }
        assert_eq!(first_line(format!("?|ack|{name}n\n").as_bytes()), FirstLine::Other);
        assert_eq!(first_line(format!("?|ack|{name}nnn").as_bytes()), FirstLine::Other, "it can end no more");
    }

    #[test]
    fn whatever_it_is_cut_into_it_may_become_a_question() {
        let line = b"?|ack|feed\r\n";
        for end in 0..line.len() {
            assert_eq!(first_line(&line[..end]), FirstLine::Begun, "{end} bytes");
        }
    }

    /// Takes so many bytes, then no more.
    struct Sink(Vec<u8>, usize);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..taken]);
            self.1 -= taken;
            if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_the_newest_number_waits_behind_a_line_that_was_begun() {
        let (mut told, mut sink) = (Acknowledgements::new(None, Terminator::CrLf), Sink(Vec::new(), 5));
        let epoch = Epoch::new(0xa);
        for number in 1..1000 {
            told.tell(epoch, number, &mut sink).unwrap();
            assert!(told.waits() && told.unwritten.len() < 64);
        }
        sink.1 = 1000;
        told.tell(epoch, 1 << 64, &mut sink).unwrap();
        assert!(told.have_told(1 << 64) && !told.have_told((1 << 64) + 1));
        let expected = "+|000000000000000a|1\r\n+|000000000000000a|18446744073709551616\r\n";
        assert_eq!(String::from_utf8(sink.0).unwrap(), expected);
    }
}
