//! Kernels for x86-64, and the choice among them.
//!
//! Three loops take most of the engine's time: reading lines, partitioning runs of events, and putting each user's bytes
//! together. Each exists in a [portable](super::portable) version, which defines the result. Faster versions are here:
//!
//! - With AVX2, code of its own for thirty-two lines ([`avx2::scan`]) and eight events ([`avx2::partition`]) at a time. Bytes are
//!   put together by the portable code, compiled a second time.
//! - With AVX-512, code of its own for eight lines ([`avx512::scan`]), sixteen events ([`avx512::partition`]), or 64 bytes
//!   ([`avx512::gather`]) at a time.
//!
//! # Why this is sound
//!
//! Two modules need `unsafe`: [`vector`] reads and writes memory, and [`cpu`] calls code that the processor may not have. Each
//! says why that is sound. The features of an instruction set are one list, [`features`]. The processor is asked for the
//! features of this list, and the kernels are compiled for the same list. The kernels themselves forbid `unsafe`.

mod abreast;
mod avx2;
mod avx512;
mod cpu;
mod features;
mod lines;
#[cfg(test)]
mod tests;
pub(super) mod vector;

pub(crate) use abreast::Abreast;
pub(crate) use avx512::gather::ABREAST;
pub(crate) use cpu::Cpu;
pub(crate) use lines::Lines;
