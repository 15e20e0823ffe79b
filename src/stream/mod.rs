//! The released stream between servers (`docs/SPEC.md` section 11), as text over TCP: everything of it that needs no socket.
//!
//! ```text
//!   sources ──► server ──► its users
//!                 │ streamPort: every released line, verbatim, in order
//!                 ├──────► edge ──► its users
//!                 │          └────► edge of an edge …
//!                 └──────► an archive: nc
//! ```
//!
//! A server with a `streamPort` hands out all that it releases. An edge is a server that takes this stream in place of event
//! sources. It applies the lines to its own follow graph and serves its own users. Nothing is decided twice: which
//! numbers were given up is seen from what does not come.
//!
//! # Protocol
//!
//! The client sends one line with `*` for the user, and is answered as a user that resumes is (section 10):
//!
//! | line | answer, then |
//! | --- | --- |
//! | `*\|now` | `+\|EPOCH\|NEXT`, every event from the cursor on |
//! | `*\|oldest` | the same from the oldest number that is kept |
//! | `*\|NEXT\|EPOCH` | the same from NEXT; `-\|EPOCH\|FIRST\|gone` or `-\|EPOCH\|CURSOR\|epoch`, and the end |
//! | `*\|graph` | `+\|EPOCH\|NEXT`, `=\|60\|50` for each edge of the graph at NEXT, `+\|EPOCH\|NEXT`, events from NEXT on |
//!
//! A mark, `+|EPOCH|NEXT`, comes at least once a second ([`MARK_EVERY`]): everything below NEXT has been sent.
//!
//! # What an edge does when something ends
//!
//! | what | the edge |
//! | --- | --- |
//! | the stream's server, or the way to it | serves what it has; connects again with a pause that grows ([`backoff`]); asks for its own cursor, in its epoch; goes on without loss |
//! | nothing ends, but nothing comes either | after [`SILENCE_MAX`] without a byte the connection counts as lost |
//! | the edge, with a journal | starts from it and asks for its cursor |
//! | the edge, without one | asks for the graph and begins at its place |
//! | its place is not kept any more (`gone`) | begins again with the graph |
//! | the stream is another one (`epoch`) | ends; without a journal it closes its users and begins with the new one |
//! | the stream is behind the edge | ignores what is below its cursor, warns and counts |
//!
//! # Modules
//!
//! [`address`]: what `stream=` says. [`reader`]: what a server sends, taken apart at the edge. [`backoff`]: when to connect
//! again. [`graph`]: the follow graph at one place, exact, while events go on.

pub(crate) mod address;
pub(crate) mod backoff;
pub(crate) mod follower;
pub(crate) mod graph;
pub(crate) mod reader;
pub(crate) mod request;

use crate::{
    engine::event::leading_number,
    sequence::Cursor,
    time::{MILLISECOND, Micros, SECOND},
};

/// How often a client of the stream port is sent a mark: at least once a second, with some time for the way.
pub(crate) const MARK_EVERY: Micros = 900 * MILLISECOND;

/// An edge whose stream has sent nothing for so long takes the connection for lost.
pub(crate) const SILENCE_MAX: Micros = 10 * SECOND;

/// The offset at which the first line with a number of at least `next` begins.
#[must_use]
pub(crate) fn first_line_from(lines: &[u8], next: Cursor) -> usize {
    let mut at = 0;
    while let Some(number) = leading_number(&lines[at..])
        && Cursor::before(number) < next
    {
        at += memchr::memchr(b'\n', &lines[at..]).map_or(lines.len() - at, |end| end + 1);
    }
    at
}
