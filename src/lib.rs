//! Fortnight: an event multiplexer.

pub mod config;
pub mod logging;
pub mod options;
pub mod rate_limit;
