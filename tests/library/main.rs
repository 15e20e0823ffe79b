//! The library on simulated sockets, or without any: one test binary, because linking one is much faster than linking five.

mod allocations;
pub mod corpus;
mod direct;
mod edge;
mod embedding;
mod habits;
mod held_up;
mod last_words;
mod meanwhile;
mod never_pausing;
mod property;
mod resume;
mod rotation;
mod runs;
mod starts;
mod tail;
mod unlucky_turns;
