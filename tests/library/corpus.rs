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
use fortnight::internals::options;

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
fn proxy_headers_and_tokens_agree_with_a_second_reader() {
    check("door", targets::door::run);
}

#[test]
fn nothing_that_a_nats_server_sends_breaks_its_reader() {
    check("nats", targets::nats::run);
}

/// More of them than are kept: chains with something wrong in them, and the inputs that are kept with bytes changed.
#[test]
fn mutated_and_random_messages_do_not_break_the_reader_of_the_log() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/nats");
    let kept: Vec<Vec<u8>> = fs::read_dir(folder)
        .expect("the corpus")
        .map(|entry| fs::read(entry.expect("an input").path()).expect("an input"))
        .filter(|input| !input.is_empty())
        .collect();
    let mut random = support::stream::Random::new(1);
    for _ in 0..5000 {
        let mut input = kept[random.below(kept.len() as u64) as usize].clone();
        for _ in 0..random.below(4) {
            let at = random.below(input.len() as u64) as usize;
            input[at] ^= 1 << random.below(8);
        }
        if input[0] & 7 == 5 {
            input.extend((0..random.below(40)).map(|_| random.below(12) as u8));
        }
        assert!(catch_unwind(|| targets::nats::run(&input)).is_ok(), "broken by {input:?}");
    }
}

#[test]
fn every_trace_is_read_written_and_replayed_the_same() {
    check("trace", targets::trace::run);
}

#[test]
fn no_folder_breaks_the_readers_of_a_journal() {
    check("journal", targets::journal::run);
}

/// More of them than are kept, each one drawn anew: mutated files and random ones.
#[test]
fn mutated_and_random_files_do_not_break_the_readers_of_a_journal() {
    let mut dice: u64 = 1;
    let mut roll = || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as u8
    };
    for round in 0..2000 {
        let len =
            5 * (1 + usize::from(roll()) % 8) + if round % 4 == 0 { usize::from(roll()) * 4 } else { 0 };
        let input: Vec<u8> = (0..len).map(|_| roll()).collect();
        assert!(catch_unwind(|| targets::journal::run(&input)).is_ok(), "broken by {input:?}");
    }
}

#[test]
fn every_command_line_is_accepted_or_refused_as_documented() {
    check("options", targets::options::run);
}

/// An option that the target does not know would not be fuzzed.
#[test]
fn the_target_knows_every_option_and_its_default() {
    let config = fortnight::internals::config::Config::default();
    let all: Vec<_> =
        options::all(&config).map(|(variable, value)| (variable, value.unwrap_or_default())).collect();
    assert_eq!(
        targets::options::known().map(|(variable, default)| (variable, default.to_owned())).as_slice(),
        all
    );
}
