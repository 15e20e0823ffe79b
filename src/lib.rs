//! Fortnight: an event multiplexer.
//!
//! Event sources send one long stream of numbered events, out of order, over TCP. Fortnight puts them back
//! in order and sends each one to the users that it concerns. Each user has a connection of its own.
//!
//! # Three floors
//!
//! ```text
//!  reactor   mio: poll, listeners, signals, clock.        The only place that waits.
//!     │  readiness, now
//!  server    connections in a slab: lines in, output buffers out, logins, limits, congestion, deadlines.
//!     │  chunks of lines in · (user, bytes) out           Generic over the sockets.
//!  engine    sequencer (ring) → follow graph → fan-out.   Pure: no sockets, no clock, no logging.
//! ```
//!
//! A floor knows only the one below. Time comes from the top as a number: [`server::Server`] runs unchanged on
//! the operating system's sockets ([`reactor`]) and on simulated ones under virtual time ([`sim`]), which is what
//! traces replay on and what the tests break. One thread, no locks, no atomics, and
//! `unsafe` in four places only: `engine::arch::x86_64`, `disk::ring`, `disk::writeback` and `reactor::tcp_info`.
//!
//! # Where to look
//!
//! | question | module |
//! | --- | --- |
//! | How is a line read, put in order, and routed? | [`engine`] and its parts: `feed`, `sequencer`, `run`, `graph`, `fanout` |
//! | What happens in a turn of the loop, and in which order? | [`server`] |
//! | What happens to a slow user? | [`server`], `congestion` |
//! | What does `busyPoll` change? | [`server`], `rotation` |
//! | When does the server give up a missing event? | `server::release` (decision), `engine::sequencer` (effect) |
//! | What is counted? | [`counters`] |
//! | Which options are there? | [`config`] (values), [`options`] (names and ranges), [`cli`] (flags and variables) |
//! | How do I see what it does? | [`admin`] (metrics, health, status page), [`logging`] |
//! | What is a trace? | [`trace`] |

pub mod admin;
pub mod cli;
pub mod config;
pub mod counters;
pub mod disk;
pub mod door;
pub mod engine;
pub mod epoch;
pub mod health;
pub mod http_client;
pub mod identity;
pub mod journal;
pub mod latency;
pub mod logging;
pub mod nats;
pub mod notify;
pub mod options;
pub mod process;
pub mod proxy;
pub mod rate_limit;
pub mod reactor;
pub mod resume;
pub mod server;
pub mod sim;
pub mod stream;
pub mod time;
pub mod trace;
