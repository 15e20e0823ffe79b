//! The replicated log: NATS JetStream, without a client library (`docs/SPEC.md` section 11).
//!
//! ```text
//!   sources ──► leading sequencer ──► NATS stream, three replicas ──► edges ──► their users
//!                                              │
//!                                              └──► other sequencers: they follow, and one of them takes over
//! ```
//!
//! Everything here is pure: bytes in, bytes out, time as an argument. The server holds the socket.
//!
//! # What is in the log
//!
//! One message is one [`block`]. Blocks make a chain: each has the hash of the one before, the cursor before and behind it, the epoch of
//! the log and the term of its leader. A number inside a block without a line was given up. Blocks without lines come at least once a second
//! while a sequencer leads. The graph is in the log as well: a snapshot begins with a block of its own kind, its edges follow between the
//! events, and its last block stands on a subject of its own. So a reader finds the newest whole snapshot by asking for the
//! last message there.
//!
//! # Publishing
//!
//! Every message is *fenced*: it says which message must be the last one (`Nats-Expected-Last-Sequence`), and the log refuses it otherwise.
//! So two leaders cannot both write, even if both take themselves for the leader. A leader has one message on its way at a time. With two,
//! the log could refuse the first, because another leader's message has its place, and then store the second behind that message.
//!
//! The state that a NATS server reports may be old, if that server has no leader. So only an accepted message proves where the stream
//! ends.
//!
//! # Terms
//!
//! A sequencer follows the log. When nothing has come for `streamTakeoverMs`, it publishes a block of the next term behind the last
//! one that it knows. If that is accepted it leads; if not, another one was faster, and it reads on. The block holds random bits, so
//! that no two sequencers can take each other's block for their own.
//!
//! A leader whose message was refused, or whose connection was lost, connects again and reads the log from the last confirmed message on. A
//! block that it finds there and has sent itself was stored though the confirmation was lost. Any other block ends its
//! term. Once it has read everything it sends the rest again, fenced as before.
//!
//! A leader whose term has ended forgets everything and starts as a follower. Events that were not confirmed were never acknowledged to a source.
//!
//! # Starting, and what a reader does when its place is gone
//!
//! A reader without a place asks for the last block of the newest snapshot, reads the edges, and reads once more from the
//! snapshot's beginning, this time the events. The edges may be newer than the events; the last event of an edge decides, so the graph is
//! exact from the end of the snapshot on. Before a reader has reached the end of the log for the first time, it sends no event to a
//! user.
//!
//! A reader with a place begins with the message that it has read last. If that has another hash, or the log ends before it, the log is
//! another one: a log went back, or was replaced. If it is gone, the reader starts with a snapshot.
//!
//! # Modules
//!
//! | module | what it is |
//! | --- | --- |
//! | [`codec`] | the protocol's messages |
//! | [`connection`] | one connection to a server |
//! | [`api`] | requests to JetStream, and their answers |
//! | [`session`] | a connection that has reached the stream |
//! | [`block`] | the contents of a message |
//! | [`reader`] | the chain, and the start from a snapshot |
//! | [`leader`] | blocks that were sent and are not confirmed |
//! | [`log`] | all of this over many connections |

pub mod api;
pub mod block;
pub mod codec;
pub mod connection;
pub mod leader;
pub mod log;
pub mod reader;
pub mod session;
#[cfg(test)]
mod tests;
