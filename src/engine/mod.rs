//! The engine: lines in, *(user, bytes)* out. Pure: no sockets, no clock, no logging.
//!
//! A turn goes through it in one direction:
//!
//! ```text
//!  chunk of bytes ── scan ──▶ sequencer ── run ──▶ graph ──▶ fan-out ── deliver ──▶ (user slot, bytes)
//!  [`feed`], [`event`]        [`sequencer`]  [`run`]  [`graph`]  [`fanout`]
//! ```
//!
//! 1. [`Engine::feed`] reads the lines of a chunk in small batches: each batch is put into the ring, then everything
//!    at the cursor leaves it in [runs](run), is applied to the graph, and noted in the fan-out. The chunk, the slots
//!    that the batch touches and the end of the tape are in the first-level cache all the time.
//! 2. When it says [`Stop::TurnFull`], or there is nothing more to feed, [`Engine::deliver`] hands out one piece of bytes
//!    per user.
//! 3. Before the chunk's buffer is used again, [`Engine::settle`] saves what waits.
//!
//! The loops that take most of the time exist several times, for different processors: see [`arch`].
//!
//! Time only ever comes in as an argument.
//!
//! `docs/performance.md`, *Engine notebook*, lists everything that was tried, and what it was worth.

mod arch;
mod arrivals;
mod bits;
mod config;
mod counters;
mod damage;
pub mod event;
mod fanout;
mod feed;
mod gatherer;
mod given_up;
mod graph;
mod idset;
mod mail;
mod packed;
mod pipeline;
pub mod rejects;
mod relation;
mod released;
mod replay;
mod ring;
mod rows;
mod run;
mod sequencer;
mod settling;
#[cfg(feature = "stages")]
#[doc(hidden)]
pub mod stages;
mod tape;
#[cfg(test)]
mod tests;
mod text;
mod user_slot;

pub use arch::instruction_set::{InstructionSet, NoSuchSet};
pub(crate) use arch::scan::{AFTER, BEFORE};
pub use arrivals::Arrival;
pub use config::{EngineConfig, Stop};
pub use counters::EngineCounters;
pub use damage::{Damage, DamageReason, Replay};
pub use given_up::GivenUp;
pub use pipeline::Engine;
pub use released::Released;
pub use user_slot::UserSlot;
