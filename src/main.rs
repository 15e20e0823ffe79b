//! The `fortnight` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    fortnight::run()
}
