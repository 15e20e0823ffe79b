//! Replays a trace on the real server code.

use super::{
    outcome::{Outcome, named},
    player::Player,
    reader::{Reader, TraceError},
    stream::Keep,
};
use crate::{
    server::{Phase, Server},
    sim::{ServerEnd, Shared, SimNet},
    time::{Micros, SECOND},
};
use std::io::Read;

/// Limit for the virtual time after the last record: a server may always have something to wait for.
pub const TIME_AFTER_END: Micros = 24 * 3600 * SECOND;

/// Limit for the turns of the server between two records, and after the last one. Between them may lie 300,000 years of virtual
/// time, in which a user that resumes is told its place every millisecond. So many turns take some seconds.
pub const TURNS_MAX: u64 = 20_000_000;

/// A finished replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The outcome. For a damaged trace: up to the damage.
    pub outcome: Outcome,
    /// The virtual time at its end.
    pub time: Micros,
    /// The fault of the trace, if it has one.
    pub damage: Option<TraceError>,
}

/// Replays a trace. The same trace gives the same outcome, always and everywhere.
///
/// A trace whose next record needs more than [`TURNS_MAX`] turns is damaged there.
///
/// # Errors
///
/// If `input` is no trace at all.
pub fn replay(input: impl Read, keep: Keep) -> Result<Replayed, TraceError> {
    replay_within(TURNS_MAX, input, keep)
}

/// The same, with another limit for the turns between two records.
pub(super) fn replay_within(most: u64, input: impl Read, keep: Keep) -> Result<Replayed, TraceError> {
    let reader = Reader::new(input)?;
    let mut config = reader.config().clone();
    // Nobody reads the log, and a deadline less is a turn less.
    config.log_interval_ms = 0;
    let net = SimNet::new(Player::new(reader, keep));
    let mut server = Server::new(config, net.clone(), 0);
    let (mut played, mut turns) = (0, 0);
    while !is_over(&net, server.phase()) {
        // On simulated sockets waiting never fails.
        if server.turn().is_err() {
            break;
        }
        let Shared { world, script, .. } = &mut *net.shared();
        script.receive(world);
        turns = if script.played() == played { turns + 1 } else { 0 };
        played = script.played();
        if turns >= most {
            script.give_up(most);
            break;
        }
    }
    let counters = named(server.counters());
    let Shared { world, script, .. } = &mut *net.shared();
    let (users, checked) = script.finish(world);
    let streams = users
        .into_iter()
        .map(|user| {
            let (number, id) = (user.number, user.id());
            let end = match user.end {
                ServerEnd::Open => "open",
                ServerEnd::Closed => "closed",
                ServerEnd::Reset => "reset",
            };
            user.received.finish(number, id, end)
        })
        .collect();
    Ok(Replayed { outcome: Outcome { streams, counters }, time: world.now(), damage: checked.err() })
}

fn is_over<R: Read>(net: &SimNet<Player<R>>, phase: Phase) -> bool {
    let shared = net.shared();
    let too_late = |ended_at: Micros| shared.world.now() > ended_at.saturating_add(TIME_AFTER_END);
    matches!(phase, Phase::Done { .. })
        || shared.world.is_idle()
        || shared.script.ended_at().is_some_and(too_late)
}
