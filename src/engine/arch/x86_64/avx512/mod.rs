//! Kernels for AVX-512.

#![forbid(unsafe_code)]

pub(super) mod gather;
pub(super) mod partition;
pub(super) mod piece;
pub(super) mod scan;
