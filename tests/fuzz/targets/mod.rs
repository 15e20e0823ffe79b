//! The fuzz targets: functions of arbitrary bytes that panic if something is wrong.
//!
//! | target | what it runs | what it is compared with |
//! | --- | --- | --- |
//! | [`door`] | PROXY headers, and login lines with tokens that are signed here | a second reading of headers; what a token must say of whoever is let in |
//! | [`framing`] | the real server on simulated sockets: logins and events, cut into reads as the input says | the grammar and the model of `tests/support`, which know nothing of reads |
//! | [`journal`] | the tools and the start on a folder whose files were changed | nothing is handed out that was not released |
//! | [`nats`] | what a NATS server sends: its protocol, blocks, and the chain of blocks | a second reading; the same bytes cut otherwise; the chain that is applied |
//! | [`trace`] | the trace reader, `trace show`, `trace cut`, `replay` | what was read is the same after writing and reading it again |
//! | [`options`] | command lines and environments | a table of what each option accepts, and a second reading of simple command lines |
//!
//! They are run in two ways. `make fuzz` links each with libFuzzer, which looks for inputs that reach code not reached
//! before: `tests/fuzz/run` says how. `cargo test` runs them on the inputs of `tests/fuzz/corpus`, which are
//! what is left of long runs, the fewest that reach everything that was ever reached; and those with a name of their own, each
//! of which has found a bug, or would.

pub mod door;
pub mod framing;
pub mod journal;
pub mod nats;
pub mod options;
pub mod trace;
