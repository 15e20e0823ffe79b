//! How much memory the server may take: the table in `docs/operations.md`, with the options in force.

use crate::config::Config;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The program itself, and what it needs from the start.
const BASE: u64 = 7 * MIB / 2;
/// A slot of the ring, and half of it again while the ring grows.
const RING_SLOT: u64 = 96;
/// A source that waits for room in the ring has two chunks.
const SOURCE: u64 = MIB;
/// A user that keeps up.
const USER: u64 = 5 * KIB / 2;
/// What a turn adds to a full output buffer, at most.
const TURN: u64 = MIB / 2;
/// A follow edge in the worst case.
const EDGE: u64 = 55;
/// Rows and mail of a turn's fan-out.
const FAN_OUT: u64 = 81 * MIB;
/// A pass over the journal, beside the second follow graph.
const PASS: u64 = 64 * MIB;

/// The bound with everybody connected and nobody reading, and with the follow graph as it is. The text of waiting events and the
/// kernel's buffers are not in it.
pub(super) fn bound(config: &Config, follow_edges: u64) -> u64 {
    let buffer = config.user_buffer_bytes as u64;
    let (users, sources) = (config.max_user_clients as u64, config.max_event_source_clients as u64);
    let graphs = if config.journal_directory.is_some() { 2 } else { 1 };
    let pass = if config.journal_directory.is_some() { PASS } else { 0 };
    let parts = [
        BASE,
        RING_SLOT.saturating_mul(config.reorder_capacity as u64),
        SOURCE.saturating_mul(sources),
        users.saturating_mul(USER + buffer + TURN.min(buffer / 2)),
        EDGE.saturating_mul(follow_edges).saturating_mul(graphs),
        pass,
        if users > 1000 { FAN_OUT } else { 0 },
    ];
    parts.into_iter().fold(MIB, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_bounded_as_the_documentation_says() {
        let gib = bound(&Config::default(), 0) as f64 / (1 << 30) as f64;
        assert!((4.3..4.6).contains(&gib), "{gib}");
    }
}
