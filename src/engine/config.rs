//! The configuration of the engine, and the results of its calls.

#![forbid(unsafe_code)]

use super::arch::instruction_set::InstructionSet;
use crate::{
    sequence::SequenceNumber,
    time::{Micros, SECOND},
};

/// The configuration of the engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Slots of the ring, a power of two.
    pub capacity: usize,
    /// Number of the first event.
    pub first_sequence: u64,
    /// How long an event waits for missing ones; `None`: for ever.
    pub timeout: Option<Micros>,
    /// Longest line in bytes, terminator included.
    pub event_bytes_max: usize,
    /// Bytes that one user may be owed by one turn, give or take an event.
    pub turn_bytes_max: usize,
    /// Bytes per connected user after which a turn is worth being delivered.
    pub turn_bytes_mean: usize,
    /// How far above the cursor a number may be; `None`: as far as there are numbers (SPEC section 2).
    pub max_sequence_jump: Option<u64>,
    /// How much of the processor may be used.
    pub instruction_set: InstructionSet,
}

impl Default for EngineConfig {
    /// As in a server without options.
    fn default() -> Self {
        Self {
            capacity: 65_536,
            first_sequence: 1,
            timeout: Some(SECOND),
            event_bytes_max: 1024,
            turn_bytes_max: 512 << 10,
            turn_bytes_mean: 56 << 10,
            max_sequence_jump: None,
            instruction_set: InstructionSet::default(),
        }
    }
}

/// Why [`Engine::feed`](super::Engine::feed) stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Every whole line has been read.
    Drained,
    /// What is left has no end in sight and is too long for an event already: it is rejected, and everything
    /// up to the next line end is to be dropped.
    Overlong,
    /// The turn has reached its limits: deliver, then go on.
    TurnFull,
    /// The next line's number is too far ahead for the ring.
    Blocked(SequenceNumber),
}
