//! Fortnight: an event multiplexer.

pub mod admin;
pub mod config;
pub mod counters;
pub mod engine;
pub mod health;
pub mod logging;
pub mod options;
pub mod rate_limit;
pub mod reactor;
pub mod server;
pub mod sim;
pub mod time;
pub mod trace;
