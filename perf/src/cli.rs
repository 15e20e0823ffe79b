//! The command line.

use clap::{Parser, Subcommand};

use crate::bench::BenchOptions;
use crate::options::{LatencyOptions, LimitOptions, ListenOptions, RunOptions};
use crate::replay::ReplayOptions;
use crate::soak::SoakOptions;

/// Load generator, verifier and yardstick for servers that speak the follower-maze protocol.
#[derive(Debug, Parser)]
#[command(name = "maze", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send events, check every byte that every user receives
    Run(Box<RunOptions>),
    /// Measure how long deliveries take at a fixed rate
    Latency(Box<LatencyOptions>),
    /// Be the physical limit: a server without logic that moves the same number of bytes
    Limit(Box<LimitOptions>),
    /// Be the usual design: one write call for each event and recipient
    Naive(Box<ListenOptions>),
    /// Measure servers against the limit, in pairs, and write tables and plots
    Bench(Box<BenchOptions>),
    /// Play a recorded trace against a server, check what every user receives
    Replay(Box<ReplayOptions>),
    /// Load one server for minutes, with everything that can be wrong, and see that it stays as small as it was
    Soak(Box<SoakOptions>),
}
