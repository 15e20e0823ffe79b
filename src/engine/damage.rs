//! How replaying ends.

#![forbid(unsafe_code)]

use super::event::Reject;
use crate::sequence::{Cursor, SequenceNumber};
use std::fmt;

/// How a call of [`Engine::replay`](super::Engine::replay) ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Every line has been applied; the cursor is behind the block.
    Done,
    /// The turn is full: take the record, deliver, and continue at the returned offset.
    TurnFull,
}

/// Lines that cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The offset of the damaged line in the chunk. The lines before it have been applied.
    pub at: usize,
    /// The fault.
    pub reason: DamageReason,
}

/// Why a line cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageReason {
    /// It is no event.
    NoEvent(Reject),
    /// It has no end.
    Truncated,
    /// Its number is below the cursor, or not above that of the line before it.
    OutOfOrder(SequenceNumber),
    /// Its number is not below the end of the block.
    BehindTheEnd(SequenceNumber),
    /// The end of the block is below the cursor, or above 2^64.
    WrongEnd(Cursor),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.reason {
            DamageReason::NoEvent(reason) => {
                write!(f, "the line at byte {at} is no event ({})", reason.name())
            }
            DamageReason::Truncated => write!(f, "the line at byte {at} has no end"),
            DamageReason::OutOfOrder(seq) => {
                write!(f, "the number {seq} of the line at byte {at} is not above the one before it")
            }
            DamageReason::BehindTheEnd(seq) => {
                write!(f, "the number {seq} of the line at byte {at} is not below the end of its block")
            }
            DamageReason::WrongEnd(end) => write!(f, "no block can end at {end} here"),
        }
    }
}

impl std::error::Error for Damage {}
