//! `maze`: load generator, verifier and yardstick.

use std::process::ExitCode;

use clap::Parser;
use maze::cli::{Cli, Command};
use maze::command;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(options) => command::run(&options),
        Command::Latency(options) => command::latency(&options),
        Command::Limit(options) => command::limit(&options),
        Command::Naive(options) => command::naive(&options),
        Command::Bench(options) => maze::bench::bench(&options),
        Command::Replay(options) => maze::replay::replay(&options),
        Command::Soak(options) => maze::soak::soak(&options),
    }
}
