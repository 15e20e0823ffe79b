//! Kernels for x86-64, and the choice among them.
//!
//! Three loops take most of the engine's time: reading lines, taking apart what leaves the ring, and putting each user's bytes
//! together. Each exists in a [portable](super::portable) version, which defines the result. Here are others:
//!
//! - With AVX2, code of its own for thirty-two lines ([`avx2::scan`]) and eight events ([`avx2::partition`]) at a time. Bytes are
//!   put together by the portable code, compiled a second time.
//! - With AVX-512, code of its own for eight lines ([`avx512::scan`]), sixteen events ([`avx512::partition`]), or 64 bytes
//!   ([`avx512::gather`]) at a time.
//!
//! # Why this is sound
//!
//! Two things need `unsafe`, and only this module has it: [`vector`] reads and writes memory, and [`cpu`] calls code that the
//! processor may not have. Each says why that is sound. The [`features`] of a set are one list, which is both asked for and
//! compiled for. The kernels themselves forbid `unsafe`.

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
