//! A run that failed is written as a trace, which `fortnight replay` repeats without the simulator.
//!
//! A trace knows when what arrived, and not which of several polls of the same moment told of it, nor which error number a
//! read or a write ended with. So not every run comes out the same to the last counter; its seed is what repeats
//! it in any case.

use std::{fs::File, path::PathBuf};

use fortnight::internals::{
    counters::Counters,
    trace::{Keep, replay},
};

use crate::{coverage::Coverage, run};

/// Runs that are recorded and replayed.
const SEEDS: u64 = 100;

#[test]
fn nearly_every_run_that_a_trace_can_tell_is_the_same_when_it_is_replayed() {
    let traces = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("replayed");
    let (mut same, mut told) = (0, 0);
    for seed in 0..SEEDS {
        let (counters, net) = run::play(seed, &mut Coverage::default(), |net| net).unwrap();
        if net.shared().script.untold {
            continue;
        }
        let path = run::record(seed, &traces).unwrap();
        let replayed = replay(File::open(path).unwrap(), Keep::Digests).unwrap();
        assert_eq!(replayed.damage, None, "seed {seed}");
        let counter = |name| replayed.outcome.counter(name);
        let Counters { events_received, deliveries, delivered_bytes, .. } = counters;
        told += 1;
        same += u64::from(
            counter("events_received") == events_received
                && counter("deliveries") == deliveries
                && counter("delivered_bytes") == delivered_bytes,
        );
    }
    std::fs::remove_dir_all(traces).unwrap();
    assert!(told > SEEDS / 3, "a trace can tell {told} of {SEEDS} runs");
    assert!(same * 4 > told * 3, "{same} of {told} runs are the same when they are replayed");
}
