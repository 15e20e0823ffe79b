//! The kernels in portable code. They run on every processor. The other versions must give the same results.

#![forbid(unsafe_code)]

pub(crate) mod gather;
pub(crate) mod partition;
pub(crate) mod scan;
pub(crate) mod transpose;
