//! Kernels: the loops that take most of the engine's time, for each kind of processor.
//!
//! | path | what it does |
//! | --- | --- |
//! | `scan` | reads lines |
//! | `partition` | takes a run of events apart by what they do |
//! | `transpose` | turns events' rows of recipients into users' rows of events |
//! | `gather` | puts a user's bytes together |
//!
//! [`portable`] has each of them. What a processor does better is in the folder of its architecture and instruction set. Which of
//! them is used is decided once, when the engine is made, and is known to [`Cpu`] alone; tests hold all of them against
//! each other. A kernel knows nothing of the engine but leaf types.

pub(crate) mod batch;
pub(crate) mod instruction_set;
pub(crate) mod partition;
pub(crate) mod portable;
mod prefetch;

#[cfg(not(target_arch = "x86_64"))]
mod other;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use other::{ABREAST, Abreast, Cpu, Lines};
pub(crate) use portable::{gather, scan, transpose};
pub(crate) use prefetch::prefetch;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{ABREAST, Abreast, Cpu, Lines};
