//! Kernels: the loops that take most of the engine's time, for each kind of processor.
//!
//! | path | what it does |
//! | --- | --- |
//! | `scan` | reads lines |
//! | `partition` | partitions a run of events by their effect |
//! | `transpose` | turns events' rows of recipients into users' rows of events |
//! | `gather` | puts a user's bytes together |
//!
//! [`portable`] has each of them. Faster ones are in the folder of their architecture and instruction set. The choice
//! is made once, when the engine is made, and [`Cpu`] alone knows it. Tests compare all of them with each other. A
//! kernel knows only leaf types of the engine.

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
