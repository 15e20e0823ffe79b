//! Fortnight: an event multiplexer.

pub mod config;
