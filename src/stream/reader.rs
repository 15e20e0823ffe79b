//! The parser for the bytes of a stream port, at the edge.
//!
//! Event lines are left in the chunk that they came in and named by their range: a chunk of them is applied to the engine
//! as it is. Lines that begin with `+`, `-` or `=` are rare. No event line contains `+` or `-`, so these are found by a search
//! for the byte.

use crate::{
    engine::event::{leading_number, parse_user_id},
    epoch::Epoch,
    sequence::Cursor,
    user_id::UserId,
};
use std::{fmt, ops::Range};

/// Longest line that is accepted, its end included: the longest that `maxEventBytes` allows.
pub(crate) const LINE_BYTES_MAX: usize = 1 << 20;

/// A place in a stream: `+|EPOCH|NEXT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Names the sequence of events.
    pub epoch: Epoch,
    /// The next number that is wanted, up to 2^64.
    pub next: Cursor,
}

/// Why the server ends the connection: the last field of a line that begins with `-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The requested place is not kept any more.
    Gone,
    /// The server has another sequence of events.
    Epoch,
    /// Anything else: the connection has been of use, and may be opened again.
    Other,
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// The answer to the request: the stream goes on from here.
    Answer(Place),
    /// The connection ends.
    Refused(Refusal, Place),
    /// An edge of the follow graph: follower and followed.
    Edge(UserId, UserId),
    /// The follow graph is complete.
    GraphComplete(Place),
    /// Whole event lines in this range of the chunk; `to` is the number after the last one.
    Events {
        /// The range in the chunk.
        lines: Range<usize>,
        /// The cursor behind them.
        to: Cursor,
    },
    /// Everything below this place has been sent.
    Mark(Place),
}

/// The received bytes are not those of a stream port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Garbage {
    what: &'static str,
    line: Vec<u8>,
}

impl Garbage {
    /// Bytes of a bad line that are shown.
    const SHOWN: usize = 80;

    fn new(what: &'static str, line: &[u8]) -> Self {
        Self { what, line: line[..line.len().min(Self::SHOWN)].to_vec() }
    }
}

impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.line.escape_ascii())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The request has not been answered.
    Asked {
        graph: bool,
    },
    Graph,
    Events,
    Over,
}

/// See the [module](self). One for each connection.
#[derive(Debug)]
pub(crate) struct Reader {
    state: State,
}

impl Reader {
    /// A reader of what comes after a request; `graph`: after `*|graph`.
    #[must_use]
    pub(crate) fn new(graph: bool) -> Self {
        Self { state: State::Asked { graph } }
    }

    /// Takes the next item from `chunk[range]`, and moves the start of the range behind it. `None`: the rest is no whole line.
    ///
    /// # Errors
    ///
    /// The line that does not belong there. The connection is of no more use.
    pub(crate) fn next(&mut self, chunk: &[u8], range: &mut Range<usize>) -> Result<Option<Item>, Garbage> {
        let bytes = &chunk[range.clone()];
        if self.state == State::Over {
            range.start = range.end;
            return Ok(None);
        }
        if self.state == State::Events && !matches!(bytes.first(), Some(b'+' | b'-') | None) {
            return events(chunk, range);
        }
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            return if bytes.len() < LINE_BYTES_MAX {
                Ok(None)
            } else {
                Err(Garbage::new("a line is too long", bytes))
            };
        };
        let line = &bytes[..end];
        range.start += end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.control(line).map(Some)
    }

    /// Takes a line that is no event.
    fn control(&mut self, line: &[u8]) -> Result<Item, Garbage> {
        let garbage = || Garbage::new("not a line of a stream port", line);
        if let Some(edge) = line.strip_prefix(b"=|").filter(|_| self.state == State::Graph) {
            return parse_edge(edge).map(|(from, to)| Item::Edge(from, to)).ok_or_else(garbage);
        }
        if let Some(rest) = line.strip_prefix(b"-|") {
            let (place, reason) = parse_place(rest).ok_or_else(garbage)?;
            self.state = State::Over;
            let refusal = match reason.ok_or_else(garbage)? {
                b"gone" => Refusal::Gone,
                b"epoch" => Refusal::Epoch,
                _ => Refusal::Other,
            };
            return Ok(Item::Refused(refusal, place));
        }
        let place = line.strip_prefix(b"+|").and_then(parse_place);
        let Some((place, None)) = place else {
            return Err(garbage());
        };
        let (item, state) = match self.state {
            State::Asked { graph: false } => (Item::Answer(place), State::Events),
            State::Asked { graph: true } => (Item::Answer(place), State::Graph),
            State::Graph => (Item::GraphComplete(place), State::Events),
            State::Events | State::Over => (Item::Mark(place), self.state),
        };
        self.state = state;
        Ok(item)
    }
}

/// The whole event lines at the start of the range.
fn events(chunk: &[u8], range: &mut Range<usize>) -> Result<Option<Item>, Garbage> {
    let bytes = &chunk[range.clone()];
    let end = memchr::memchr2(b'+', b'-', bytes).unwrap_or(bytes.len());
    let Some(last) = memchr::memrchr(b'\n', &bytes[..end]) else {
        return if end < bytes.len() || bytes.len() >= LINE_BYTES_MAX {
            Err(Garbage::new("not an event", bytes))
        } else {
            Ok(None)
        };
    };
    let start = memchr::memrchr(b'\n', &bytes[..last]).map_or(0, |before| before + 1);
    let line = &bytes[start..=last];
    let number = leading_number(line).ok_or_else(|| Garbage::new("not an event", line))?;
    let lines = range.start..range.start + last + 1;
    range.start = lines.end;
    Ok(Some(Item::Events { lines, to: Cursor::behind(number) }))
}

/// `60|50`.
fn parse_edge(fields: &[u8]) -> Option<(UserId, UserId)> {
    let bar = memchr::memchr(b'|', fields)?;
    Some((parse_user_id(&fields[..bar])?, parse_user_id(&fields[bar + 1..])?))
}

/// `EPOCH|NEXT` or `EPOCH|NEXT|REASON`.
fn parse_place(fields: &[u8]) -> Option<(Place, Option<&[u8]>)> {
    let mut fields = fields.splitn(3, |&byte| byte == b'|');
    let epoch = Epoch::parse(fields.next()?)?;
    let next = Cursor::parse(fields.next()?)?;
    Some((Place { epoch, next }, fields.next()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::SequenceNumber;
    use proptest::prelude::*;

    fn place(next: Cursor) -> Place {
        Place { epoch: Epoch::new(0x0123_4567_89ab_cdef), next }
    }

    /// All items of `bytes`, which come in pieces of `piece` bytes. Events are given as their lines.
    fn read(graph: bool, bytes: &[u8], piece: usize) -> Result<Vec<(Item, Vec<u8>)>, Garbage> {
        let mut reader = Reader::new(graph);
        let (mut chunk, mut items) = (Vec::new(), Vec::new());
        for bytes in bytes.chunks(piece) {
            chunk.extend_from_slice(bytes);
            let mut range = 0..chunk.len();
            while let Some(item) = reader.next(&chunk, &mut range)? {
                let lines = match &item {
                    Item::Events { lines, .. } => chunk[lines.clone()].to_vec(),
                    _ => Vec::new(),
                };
                items.push((item, lines));
            }
            chunk.drain(..range.start);
        }
        Ok(items)
    }

    #[test]
    fn an_answer_then_events_then_a_mark() {
        let bytes = b"+|0123456789abcdef|7\n7|B\n9|S|1\r\n+|0123456789abcdef|12\r\n12|B\n";
        let items = read(false, bytes, usize::MAX).unwrap();
        let lines = [&b""[..], b"7|B\n9|S|1\r\n", b"", b"12|B\n"];
        assert_eq!(items.iter().map(|(_, lines)| &lines[..]).collect::<Vec<_>>(), lines);
        assert_eq!(items[0].0, Item::Answer(place(Cursor::new(7))));
        assert!(matches!(items[1].0, Item::Events { to, .. } if to == Cursor::new(10)));
        assert_eq!(items[2].0, Item::Mark(place(Cursor::new(12))));
        assert!(matches!(items[3].0, Item::Events { to, .. } if to == Cursor::new(13)));
    }

    #[test]
    fn a_graph_comes_between_two_places() {
        let bytes = b"+|0123456789abcdef|3\n=|60|50\n=|1|18446744073709551615\n+|0123456789abcdef|3\n3|B\n";
        let items: Vec<Item> = read(true, bytes, 5).unwrap().into_iter().map(|(item, _)| item).collect();
        let graph =
            [(60, 50), (1, u64::MAX)].map(|(from, to)| Item::Edge(UserId::new(from), UserId::new(to)));
        assert_eq!(items[0], Item::Answer(place(Cursor::new(3))));
        assert_eq!(items[1..3], graph);
        assert_eq!(items[3], Item::GraphComplete(place(Cursor::new(3))));
        assert!(matches!(items[4], Item::Events { to, .. } if to == Cursor::new(4)));
    }

    #[test]
    fn refusals_name_their_reason() {
        for (line, refusal) in [
            (&b"-|0123456789abcdef|5|gone\n"[..], Refusal::Gone),
            (b"-|0123456789abcdef|5|epoch\n", Refusal::Epoch),
            (b"-|0123456789abcdef|5|slow\n7|B\n", Refusal::Other),
        ] {
            let items = read(false, line, usize::MAX).unwrap();
            assert_eq!(items, [(Item::Refused(refusal, place(Cursor::new(5))), Vec::new())]);
        }
    }

    #[test]
    fn positions_end_at_two_to_the_64() {
        let items = read(false, b"+|0123456789abcdef|18446744073709551616\n", 3).unwrap();
        assert_eq!(items[0].0, Item::Answer(place(Cursor::END)));
        read(false, b"+|0123456789abcdef|18446744073709551617\n", 3).unwrap_err();
        let items = read(false, b"+|0123456789abcdef|0\n18446744073709551615|B\n", 64).unwrap();
        assert!(matches!(items[1].0, Item::Events { to, .. } if to == Cursor::END));
    }

    #[test]
    fn what_does_not_belong_there_is_garbage() {
        for bytes in [
            &b"7|B\n"[..],
            b"+|0123456789ABCDEF|7\n",
            b"+|0123456789abcdef|7|x\n",
            b"+|0123456789abcdef|\n",
            b"-|0123456789abcdef|7\n",
            b"HTTP/1.1 400 Bad Request\n",
            b"+|0123456789abcdef|7\n=|1|2\n",
            b"+|0123456789abcdef|7\n8|P|1|-2\n",
            b"+|0123456789abcdef|7\nB\n",
        ] {
            let garbage = read(false, bytes, usize::MAX).unwrap_err();
            assert!(!garbage.to_string().is_empty());
        }
        read(false, &[b'1'; LINE_BYTES_MAX], usize::MAX).unwrap_err();
        read(true, b"+|0123456789abcdef|7\n8|B\n", 64).unwrap_err();
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            steps in prop::collection::vec((0..4u8, 1..40u64), 0..60),
            piece in 1..90usize,
        ) {
            let mut bytes = b"+|0123456789abcdef|0\n".to_vec();
            let (mut events, mut next) = (Vec::new(), 0);
            for (kind, jump) in steps {
                let before = bytes.len();
                match kind {
                    0 => {
                        next += jump;
                        bytes.extend_from_slice(format!("+|0123456789abcdef|{next}\n").as_bytes());
                        continue;
                    }
                    1 => bytes.extend_from_slice(format!("{}|S|{jump}\r\n", next + jump).as_bytes()),
                    _ => bytes.extend_from_slice(format!("{}|B\n", next + jump).as_bytes()),
                }
                next += jump + 1;
                events.extend_from_slice(&bytes[before..]);
            }
            let items = read(false, &bytes, piece).unwrap();
            let read: Vec<u8> = items.iter().flat_map(|(_, lines)| lines.clone()).collect();
            prop_assert_eq!(read, events);
            let end = items.iter().rev().find_map(|(item, _)| match item {
                Item::Events { to, .. } => Some(*to),
                Item::Mark(place) | Item::Answer(place) => Some(place.next),
                _ => None,
            });
            prop_assert_eq!(end, Some(Cursor::before(SequenceNumber::new(next))));
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(prop::sample::select(b"+-=|0129abcdefPB\r\n".to_vec()), 0..300), graph: bool) {
            let mut all = b"+|0123456789abcdef|0\n".to_vec();
            all.extend(bytes);
            let _ = read(graph, &all, 7);
        }
    }
}
