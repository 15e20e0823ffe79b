//! Fortnight: an event multiplexer.
//!
//! Event sources send one long stream of numbered events, out of order, over TCP. Fortnight puts them back
//! in order and sends each one to the users that it concerns. Each user has a connection of its own.
//!
//! As a program it is the command `fortnight`. This crate is the same server for a program of your own.
//!
//! ```no_run
//! use fortnight::{Config, Service};
//!
//! let mut config = Config::default();
//! config.set("userServerPort", "7000")?;
//! config.set("journalDirectory", "journal")?;
//! let mut service = Service::open(config)?;
//! println!("{}", service.addresses());
//! service.run()?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to begin
//!
//! | you want | take |
//! | --- | --- |
//! | a server in your program | [`Service`]. It does all that its [`Config`] says. |
//! | to set options | [`Config::set`], with the names that the environment variables of the command have. `fortnight --help` and `docs/SPEC.md` list them. |
//! | to stop the server from another thread | [`Service::stopper`] |
//! | other work in the same thread | [`Service::turn`] in a loop of your own, until [`Service::phase`] says [`Phase::Done`] |
//! | order and fan-out without sockets | [`Engine`]: lines in, *(user, bytes)* out |
//! | to replay a recorded trace in a test | [`replay`] |
//! | the whole command, its command line included | `run` |
//!
//! # What a server does to your program
//!
//! - It runs in the thread that calls it, and starts no other one.
//! - It speaks TCP with its clients. `docs/SPEC.md` is the contract of its ports.
//! - It writes to the log through the crate `log`. Without a logger of yours it is silent.
//! - It takes no signals, unless `Service::open_with_signals` opened it. It reads no environment variables.
//! - It raises the limit of open files as far as the system allows.
//! - A configuration that it refuses, or a port that it cannot open, is a [`StartError`]: one sentence that names the option.
//! - It runs on Linux.
//!
//! # Features
//!
//! These are on by default. `cli` is the command, with its options, its log and its signals; `top` is `fortnight top`; `signals`
//! is `Service::open_with_signals`. With `default-features = false` the library has no parser of command lines, no logger and
//! no handler of signals.
//!
//! # What is stable
//!
//! Until 1.0 a version with a new second number may change anything, and `CHANGELOG.md` says what. Of these it is not expected:
//! the names and the meanings of options ([`Config::set`]), [`Service`], [`Stopper`], [`StartError`], [`Addresses`], [`replay`],
//! and the formats on wire and disk (`docs/SPEC.md`). Of these it is: the fields of [`Config`] and [`EngineConfig`] (write
//! `..Config::default()`), the methods of [`Engine`], and [`Phase`]. Everything else is private. The project's own tests,
//! benchmarks and fuzz targets reach it through a hidden module, which changes with any version.
//!
//! `docs/architecture.md` explains the inside: the three floors, the order of a turn, and where to look for what.

// Some code of the parts below is for the command only, and would otherwise need a switch in each of them.
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]

mod admin;
#[cfg(feature = "cli")]
mod cli;
mod config;
mod counters;
mod disk;
mod door;
mod engine;
mod epoch;
#[cfg(feature = "cli")]
mod health;
mod http_client;
mod identity;
mod journal;
mod latency;
#[cfg(feature = "cli")]
mod logging;
mod nats;
#[cfg(feature = "cli")]
mod notify;
mod options;
mod process;
#[cfg(feature = "cli")]
mod program;
mod proxy;
mod rate_limit;
mod reactor;
mod resume;
mod sequence;
mod server;
mod service;
mod sim;
mod stream;
mod time;
#[cfg(feature = "top")]
mod top;
mod trace;
mod user_id;
mod warning;

pub use config::{Config, ServerRole, SlowUserPolicy};
pub use engine::{Engine, EngineConfig, InstructionSet, Stop};
#[cfg(feature = "cli")]
pub use program::run;
pub use reactor::Addresses;
pub use sequence::{Cursor, SequenceNumber};
pub use server::Phase;
#[doc(hidden)]
pub use server::Server;
pub use service::{Service, StartError, Stopper};
pub use trace::{Keep, Outcome, Replayed, TraceError, replay::replay};
pub use user_id::UserId;

/// What this project's own tests, benchmarks, fuzz targets and packaging use. It changes with any version.
#[doc(hidden)]
pub mod internals {
    #[cfg(feature = "cli")]
    pub mod cli {
        pub use crate::cli::*;
    }
    pub mod config {
        pub use crate::config::*;
    }
    pub mod counters {
        pub use crate::counters::*;
    }
    pub mod disk {
        pub use crate::disk::*;
    }
    pub mod engine {
        pub use crate::engine::*;
    }
    pub mod http_client {
        pub use crate::http_client::*;
    }
    pub mod identity {
        pub use crate::identity::*;
    }
    pub mod journal {
        pub use crate::journal::*;
    }
    pub mod nats {
        pub use crate::{epoch::Epoch, nats::*};
    }
    pub mod options {
        pub use crate::options::*;
    }
    pub mod process {
        pub use crate::process::*;
    }
    pub mod proxy {
        pub use crate::proxy::*;
    }
    pub mod rate_limit {
        pub use crate::rate_limit::*;
    }
    pub mod resume {
        pub use crate::resume::*;
    }
    pub mod server {
        pub use crate::server::*;
    }
    pub mod sim {
        pub use crate::sim::*;
    }
    pub mod time {
        pub use crate::time::*;
    }
    pub mod trace {
        pub use crate::trace::*;
    }
    pub mod warning {
        pub use crate::warning::*;
    }
}
