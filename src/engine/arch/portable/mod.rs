//! The kernels in portable code: they run on every processor, and say what is to come out.

#![forbid(unsafe_code)]

pub(crate) mod gather;
pub(crate) mod partition;
pub(crate) mod scan;
pub(crate) mod transpose;
