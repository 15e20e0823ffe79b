//! `maze`: load generator, verifier and yardstick.
fn main() {}
