//! The `fortnight` command.

fn main() {}
