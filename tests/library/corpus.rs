//! Runs the fuzz targets on the inputs in `tests/fuzz/corpus`: the fewest that reach everything that was reached in long
//! runs of `make fuzz`, and some with names of their own, which have found a bug, or would.

#[path = "../fuzz/targets/mod.rs"]
pub mod targets;

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use allocation_counter::measure;

/// Most memory that one input may take at a time: a dozen of buffers of constant size.
const MEMORY_BYTES_MAX: u64 = 16 << 20;

/// Runs a target on every input that is kept for it; each that breaks something is named.
#[track_caller]
fn check(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut inputs: Vec<_> =
        fs::read_dir(&folder).expect("the corpus").map(|entry| entry.expect("an input").path()).collect();
    inputs.sort_unstable();
    assert!(inputs.len() >= 20, "hardly any inputs in {}", folder.display());
    let is_broken = |path: &&PathBuf| {
        let input = fs::read(path).expect("an input");
        let mut outcome = Ok(());
        let memory = measure(|| outcome = catch_unwind(|| run(&input)));
        outcome.is_err() || memory.bytes_max > MEMORY_BYTES_MAX
    };
    let broken: Vec<_> = inputs.iter().filter(is_broken).collect();
    assert!(broken.is_empty(), "broken by {broken:#?}");
}

#[test]
fn the_server_takes_every_stream_as_the_grammar_does() {
    check("framing", targets::framing::run);
}

#[test]
fn every_trace_is_read_written_and_replayed_the_same() {
    check("trace", targets::trace::run);
}

#[test]
fn every_command_line_is_accepted_or_refused_as_documented() {
    check("options", targets::options::run);
}
