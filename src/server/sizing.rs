//! How large the engine of a server is, and its turns.

use crate::{
    config::{Config, ServerRole},
    engine::EngineConfig,
    time::MILLISECOND,
};

/// Bytes that a turn may owe one user. This limits the tape. Less where output buffers are small.
const TURN_BYTES_MAX: usize = 512 << 10;
/// Bytes per connected user that are worth a write: a turn goes on reading until it has them. With this number most
/// writes fit one packet of the loopback device, whose largest takes 65,483 bytes. A second packet costs as much as a
/// full one, even for a few bytes.
const TURN_BYTES_MEAN: usize = 56 << 10;
/// Bytes of released lines that are kept until they are handed out: as much as a turn reads at once.
pub(super) const RECORD_BYTES: usize = 1 << 20;
/// Bytes of lines in a block at most. Servers take a mebibyte if nobody says otherwise.
pub(super) const BLOCK_BYTES_MAX: usize = 256 << 10;

/// The engine of a server.
pub(super) fn engine_config(config: &Config) -> EngineConfig {
    let is_edge = config.role == ServerRole::Edge;
    let turn_bytes_max = (config.user_buffer_bytes / 2).clamp(4096, TURN_BYTES_MAX);
    EngineConfig {
        // Nothing waits at an edge.
        capacity: if is_edge { 1 } else { config.reorder_capacity },
        first_sequence: if is_edge { 0 } else { config.first_sequence },
        timeout: u64::try_from(config.event_timeout_ms).ok().map(|ms| ms * MILLISECOND),
        event_bytes_max: config.max_event_bytes,
        turn_bytes_max,
        turn_bytes_mean: TURN_BYTES_MEAN.min(turn_bytes_max),
        max_sequence_jump: config.max_sequence_jump,
        instruction_set: config.instruction_set,
    }
}
