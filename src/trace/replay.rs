//! Replays a trace on the real server code.

use super::{
    outcome::{Outcome, named},
    player::Player,
    reader::{Reader, TraceError},
    record::{ConnectionId, Machine},
    stream::{Keep, Stream},
};
use crate::{
    config::Config,
    server::{Phase, Server},
    sim::{Script, ServerEnd, Shared, SimFolder, SimNet},
    time::{Micros, SECOND},
};
use std::io::Read;

/// Limit for the virtual time after the last record: a server may always have something to wait for.
pub const TIME_AFTER_END: Micros = 24 * 3600 * SECOND;

/// Limit for the turns of the server between two records, and after the last one. Between them may lie 300,000 years of virtual
/// time, in which a user that resumes is told its place every millisecond. This number of turns takes some seconds.
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
    let player = Player::new(reader, keep);
    let folder = player.folder().cloned();
    let net = match &folder {
        Some(folder) => SimNet::with_disk(player, folder.clone()),
        None => SimNet::new(player),
    };
    let mut replay = Replay { net, folder, config, most, counters: Vec::new() };
    while replay.live() {}
    Ok(replay.finish())
}

/// A trace that is being replayed.
struct Replay<R> {
    net: SimNet<Player<R>>,
    /// Where the server keeps its journal.
    folder: Option<SimFolder>,
    config: Config,
    most: u64,
    /// Of the lives before.
    counters: Vec<(String, u64)>,
}

impl<R: Read> Replay<R> {
    /// From one start of the server to its end. Says whether there is another start.
    fn live(&mut self) -> bool {
        let mut server = match self.start() {
            Ok(server) => server,
            Err(reason) => {
                self.net.shared().script.cannot_go_on(&reason);
                return false;
            }
        };
        self.net.shared().script.has_started();
        let ended = self.serve(&mut server);
        self.add(named(&server.counters()));
        let is_killed = self.net.shared().script.ends_process();
        if !is_killed {
            // Before the sockets are dropped, which is no end that anybody sees.
            self.note_ends();
        }
        drop(server);
        if is_killed {
            self.net.shared().world.end_process();
            self.note_ends();
        }
        ended && self.is_started_again()
    }

    fn start(&self) -> Result<Server<SimNet<Player<R>>>, String> {
        let (config, net, now) = (self.config.clone(), self.net.clone(), self.net.shared().world.now());
        let Some(folder) = &self.folder else { return Ok(Server::new(config, net, now)) };
        folder.set_now(now);
        Server::recover(config, net, Box::new(folder.disk()), || now).map_err(|error| error.to_string())
    }

    /// Has the server serve. Says whether its process has ended.
    fn serve(&self, server: &mut Server<SimNet<Player<R>>>) -> bool {
        let (mut played, mut turns) = (0, 0);
        while !is_over(&self.net, server.phase()) {
            let turned = server.turn();
            let Shared { world, script, .. } = &mut *self.net.shared();
            script.receive(world);
            if let Err(error) = turned {
                // On simulated sockets waiting fails only where the trace ends the process.
                if !script.ends_process() {
                    script.cannot_go_on(&error.to_string());
                }
                return script.ends_process();
            }
            turns = if script.played() == played { turns + 1 } else { 0 };
            played = script.played();
            if turns >= self.most {
                script.give_up(self.most);
                return false;
            }
        }
        matches!(server.phase(), Phase::Done { .. })
    }

    /// What the far ends see of the server's ends now.
    fn note_ends(&self) {
        let Shared { world, script, .. } = &mut *self.net.shared();
        script.note_ends(world);
    }

    /// The server has ended. Plays on until it starts again, if it does.
    fn is_started_again(&self) -> bool {
        let Some(folder) = &self.folder else { return false };
        let Shared { world, script, .. } = &mut *self.net.shared();
        world.end_process();
        loop {
            match script.take_machine() {
                Some(Machine::Starts) => {
                    world.start_process();
                    return true;
                }
                Some(Machine::PowerFails) => folder.end_machine(),
                _ => folder.end_process(),
            }
            let Some(at) = script.next_at(world) else { return false };
            world.advance_to(at);
            folder.set_now(at);
            script.happen(world);
        }
    }

    fn add(&mut self, counters: Vec<(String, u64)>) {
        for (name, value) in counters {
            match self.counters.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += value,
                None => self.counters.push((name, value)),
            }
        }
    }

    fn finish(self) -> Replayed {
        let Shared { world, script, .. } = &mut *self.net.shared();
        let (ends, checked) = script.finish();
        let (mut streams, mut sources) = (Vec::new(), Vec::new());
        for far_end in ends {
            let id = far_end.user_id();
            let end = match far_end.end {
                ServerEnd::Open => "open",
                ServerEnd::Closed => "closed",
                ServerEnd::Reset => "reset",
            };
            match far_end.id {
                ConnectionId::User(number) => streams.push(far_end.received.finish(number, id, end)),
                ConnectionId::Source(_) if far_end.received.is_empty() => {}
                ConnectionId::Source(number) => {
                    sources.push(Stream { is_source: true, ..far_end.received.finish(number, None, end) });
                }
            }
        }
        streams.append(&mut sources);
        let outcome = Outcome { streams, counters: self.counters };
        Replayed { outcome, time: world.now(), damage: checked.err() }
    }
}

fn is_over<R: Read>(net: &SimNet<Player<R>>, phase: Phase) -> bool {
    let shared = net.shared();
    let too_late = |ended_at: Micros| shared.world.now() > ended_at.saturating_add(TIME_AFTER_END);
    matches!(phase, Phase::Done { .. })
        || shared.world.is_idle()
        || shared.script.ended_at().is_some_and(too_late)
}
