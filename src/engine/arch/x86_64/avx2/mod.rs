//! Kernels for AVX2.

#![forbid(unsafe_code)]

pub(super) mod columns;
pub(super) mod partition;
pub(super) mod scan;
