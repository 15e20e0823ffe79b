//! The request of a client of the stream port.

use crate::epoch::Epoch;
use crate::sequence::Cursor;

/// A request, without its line end (`docs/SPEC.md` section 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// `*|now`: events from the cursor on.
    Now,
    /// `*|oldest`: everything that is kept.
    Oldest,
    /// `*|NEXT|EPOCH`: events from NEXT on. NEXT is at most 2^64.
    From(Cursor, Epoch),
    /// `*|graph`: the follow graph, and events from there on.
    Graph,
}

impl Request {
    /// Reads a request. `None`: it is none.
    #[must_use]
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        match line.strip_prefix(b"*|")? {
            b"now" => Some(Self::Now),
            b"oldest" => Some(Self::Oldest),
            b"graph" => Some(Self::Graph),
            place => {
                let bar = memchr::memchr(b'|', place)?;
                Some(Self::From(Cursor::parse(&place[..bar])?, Epoch::parse(&place[bar + 1..])?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_known() {
        let epoch = Epoch::new(0xabc);
        for (line, request) in [
            (&b"*|now"[..], Some(Request::Now)),
            (b"*|oldest", Some(Request::Oldest)),
            (b"*|graph", Some(Request::Graph)),
            (b"*|12|0000000000000abc", Some(Request::From(Cursor::new(12), epoch))),
            (b"*|18446744073709551616|0000000000000abc", Some(Request::From(Cursor::END, epoch))),
            (b"*|0018446744073709551616|0000000000000abc", Some(Request::From(Cursor::END, epoch))),
            (b"*|18446744073709551617|0000000000000abc", None),
            (b"*|-1|0000000000000abc", None),
            (b"*||0000000000000abc", None),
            (b"*|12", None),
            (b"*|12|0000000000000abc|x", None),
            (b"*", None),
            (b"12|now", None),
            (b"*|NOW", None),
            (b"", None),
        ] {
            assert_eq!(Request::parse(line), request, "{}", line.escape_ascii());
        }
    }
}
