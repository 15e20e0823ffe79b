//! One seed, one run.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::{self, File},
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    rc::Rc,
};

use fortnight::internals::{
    config::Config,
    counters::{Counters, DisconnectReason},
    engine::event::Reject,
    server::{
        Phase, Server,
        net::{Net, Port},
    },
    sim::{Peer, Script, ServerEnd, Shared, SimNet},
    time::{Micros, SECOND},
    trace::{Recorder, Recording},
};

use crate::{
    chaos::Chaos,
    coverage::Coverage,
    dice::Dice,
    model::{CANNOT_TELL, Model, Report},
    options,
    watch::{Log, Seen, Watch},
};

/// Time that a server gets after the last thing has happened.
const TIME_AFTER_END: Micros = 60 * SECOND;
/// Turns that the server may take without going to sleep.
const TURNS_AWAKE: u64 = 20_000;
/// Runs in which the model could not tell what the server did.
pub(crate) const GIVEN_UP: &str = "runs: given up";
/// Possibilities that are kept in mind.
const MODELS: usize = 2048;

/// Runs a seed. On a failure the run is repeated and recorded in `traces`.
pub(crate) fn run(seed: u64, traces: &Path, coverage: &mut Coverage) -> Result<(), String> {
    let outcome = catch(|| play(seed, coverage, |net| net)).map(|_| ());
    if outcome.as_ref().is_err_and(|problem| problem.contains(CANNOT_TELL)) {
        coverage.count(GIVEN_UP);
        return Ok(());
    }
    outcome.map_err(|problem| {
        let place = match record(seed, traces) {
            Ok(path) => format!("the run is in {}: fortnight replay, fortnight trace show", path.display()),
            Err(error) => format!("the run could not be recorded: {error}"),
        };
        let spins = options::config(&mut Dice::new(seed).split()).busy_poll;
        let note = if spins { " (with busyPoll, which a trace does not tell)" } else { "" };
        format!("seed {seed}: {problem}\n{place}{note}\nmake simulate SEED={seed} repeats it")
    })
}

/// Repeats a run, and records it as a trace.
pub(crate) fn record(seed: u64, traces: &Path) -> Result<PathBuf, String> {
    let path = traces.join(format!("simulate-{seed}.trace"));
    fs::create_dir_all(traces).map_err(|error| error.to_string())?;
    let config = options::config(&mut Dice::new(seed).split());
    let file = File::create(&path).map_err(|error| error.to_string())?;
    let recorder = Recorder::new(Box::new(file), &config).map_err(|error| error.to_string())?;
    let _ = catch(|| play(seed, &mut Coverage::default(), |net| Recording::new(net, recorder)));
    Ok(path)
}

/// A panic is a problem like any other.
pub(crate) fn catch<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// Runs a seed on a network that may be wrapped. Returns what the server has counted, and whether a trace can tell it.
pub(crate) fn play<N: Net>(
    seed: u64,
    coverage: &mut Coverage,
    wrap: impl FnOnce(SimNet<Chaos>) -> N,
) -> Result<(Counters, SimNet<Chaos>), String> {
    let mut dice = Dice::new(seed);
    let config = options::config(&mut dice.split());
    let temper = options::temper(&mut dice.split(), &config);
    let net = SimNet::new(Chaos::new(&mut dice, &temper, &config));
    let log: Log = Rc::new(RefCell::new(Vec::new()));
    let sleeping = net.clone();
    let before_sleep = Box::new(move || {
        let mut shared = sleeping.shared();
        let oversleep = shared.script.oversleep();
        let now = shared.world.now();
        shared.world.advance_to(now + oversleep);
    });
    let watch = Watch::new(wrap(net.clone()), Rc::clone(&log), before_sleep);
    let mut server = Server::new(config.clone(), watch, 0);
    let mut last = report(&mut server, &net);
    let mut models = vec![Model::new(config.clone(), last.clone())];
    let mut awake = 0;
    let mut broken = BTreeSet::new();
    while !is_over(&net, server.phase()) {
        server.turn().map_err(|error| error.to_string())?;
        let seen = log.take();
        awake = if matches!(seen.first(), Some(Seen::Poll { wait: Some(0), .. })) { awake + 1 } else { 0 };
        if awake > TURNS_AWAKE {
            return Err("the server never goes to sleep".to_owned());
        }
        check_resets(&seen, &mut broken, server.phase(), &net)?;
        let report = report(&mut server, &net);
        models = step(models, &seen, &report, &net, coverage)?;
        check_limits(&models[0], &net, &config)?;
        if config.busy_poll && is_idle(&seen, &last, &report) {
            coverage.count("busyPoll: nothing to do");
            models = at_rest(models)?;
            awake = 0;
            spin(&net);
        }
        last = report;
    }
    finish(&mut server, &net, &models, coverage)?;
    let counters = server.counters();
    coverage.merge(&net.shared().script.coverage);
    Ok((counters, net))
}

/// Whether the server did nothing in a turn. Then it will not do anything in the next ones either until time passes.
fn is_idle(seen: &[Seen], before: &Report, after: &Report) -> bool {
    let state = |report: &Report| (report.cursor, report.waiting, report.buffered_bytes, report.paused);
    seen.iter().all(|seen| matches!(seen, Seen::Poll { .. }))
        && state(before) == state(after)
        && before.phase == after.phase
        && before.counters.events_received == after.counters.events_received
}

/// A connection that is closed with bytes unread is reset, and the other side may lose what it was sent. The server may do that only
/// to those that are gone or broken, and when its time is up. It cannot know of bytes that come after it has looked.
fn check_resets(
    seen: &[Seen],
    broken: &mut BTreeSet<usize>,
    phase: Phase,
    net: &SimNet<Chaos>,
) -> Result<(), String> {
    let shared = net.shared();
    let mut looked_at = None;
    for seen in seen {
        let found_nothing = looked_at.take();
        let closed = match seen {
            Seen::Read(peer, Err(ErrorKind::WouldBlock)) => {
                looked_at = Some(*peer);
                continue;
            }
            Seen::Read(peer, Err(kind))
            | Seen::Wrote(peer, _, Err(kind))
            | Seen::WantWrite(peer, _, Err(kind)) => {
                if !matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted) {
                    broken.insert(*peer);
                }
                continue;
            }
            Seen::Closed(peer) if phase == Phase::Running && !broken.contains(peer) => *peer,
            _ => continue,
        };
        if found_nothing == Some(closed) {
            continue;
        }
        let found = shared.world.peers().find(|peer| peer.index() == closed);
        let is_gone = shared.script.ends().any(|end| end.0 == closed && end.2);
        if let Some(peer) = found
            && !is_gone
            && shared.world.written(peer) > 0
            && shared.world.server_end(peer) == ServerEnd::Reset
        {
            return Err(format!("connection {closed} was sent something and is reset"));
        }
    }
    Ok(())
}

/// Lets time pass for a server that never sleeps: up to the next thing that happens, or less.
fn spin(net: &SimNet<Chaos>) {
    let Shared { world, script, .. } = &mut *net.shared();
    let until = world.now() + script.nap();
    let until = script.next_at(world).map_or(until, |at| at.min(until));
    world.advance_to(until);
    let oversleep = script.oversleep();
    world.advance_to(world.now() + oversleep);
}

/// All that the models can have become.
fn step(
    models: Vec<Model>,
    seen: &[Seen],
    report: &Report,
    net: &SimNet<Chaos>,
    coverage: &mut Coverage,
) -> Result<Vec<Model>, String> {
    let shared = net.shared();
    let mut possible: Vec<Model> = Vec::new();
    let mut wrong = None;
    for model in models {
        match model.turn(seen, report, &shared.script.arrivals, coverage) {
            Ok(models) => {
                for model in models {
                    if !possible.iter().any(|other| model.is_like(other)) {
                        possible.push(model);
                    }
                }
            }
            Err(problem) => _ = wrong.get_or_insert(problem),
        }
    }
    if possible.len() > MODELS {
        return Err(format!("what the server does could be any of {} things", possible.len()));
    }
    match wrong {
        Some(problem) if possible.is_empty() => {
            Err(format!("at {} µs, turn {}: {problem}", shared.world.now(), report.counters.loop_turns))
        }
        _ => Ok(possible),
    }
}

/// The models of a server that finds nothing to do although it never sleeps: there must be nothing to do.
fn at_rest(models: Vec<Model>) -> Result<Vec<Model>, String> {
    let (idle, busy): (Vec<Model>, Vec<Model>) =
        models.into_iter().partition(|model| model.check_sleep().is_ok());
    match busy.first() {
        Some(model) if idle.is_empty() => model.check_sleep().map(|()| idle),
        _ => Ok(idle),
    }
}

fn is_over(net: &SimNet<Chaos>, phase: Phase) -> bool {
    let shared = net.shared();
    let too_late = |ended: Micros| shared.world.now() > ended + TIME_AFTER_END;
    matches!(phase, Phase::Done { .. })
        || shared.world.is_idle()
        || shared.script.ended_at.is_some_and(too_late)
}

fn report<N: Net>(server: &mut Server<N>, net: &SimNet<Chaos>) -> Report {
    let (unread, lying) = {
        let shared = net.shared();
        let lies = |&peer: &Peer| shared.world.unread(peer) > 0;
        let is_known = |&peer: &Peer| shared.world.unread(peer) > 0 && !shared.world.has_edge(peer);
        let with =
            |which: &dyn Fn(&Peer) -> bool| shared.world.peers().filter(which).map(Peer::index).collect();
        (with(&is_known), with(&lies))
    };
    let phase = server.phase();
    let snapshot = server.snapshot();
    Report {
        counters: snapshot.counters.clone(),
        cursor: snapshot.cursor.get(),
        waiting: snapshot.waiting,
        paused: snapshot.pauses.iter().any(|pause| pause.reason == "slow_user"),
        buffered_bytes: snapshot.buffered_bytes,
        users: snapshot.users,
        sources: snapshot.sources,
        edges: snapshot.follow_edges,
        phase,
        unread,
        lying,
    }
}

/// Checks what must hold in the end.
fn finish<N: Net>(
    server: &mut Server<N>,
    net: &SimNet<Chaos>,
    models: &[Model],
    coverage: &mut Coverage,
) -> Result<(), String> {
    let model = models.first().ok_or("no model is left")?;
    let open: Vec<(usize, usize)> = model.open().collect();
    match server.phase() {
        Phase::Done { forced: true } => coverage.count("end: asked to, twice"),
        Phase::Done { forced: false } => {
            if let Some((peer, _)) = open.first() {
                return Err(format!("the server has ended, but connection {peer} is still open"));
            }
            coverage.count("end: asked to, in time");
        }
        _ => {
            if net.shared().world.is_idle() {
                model.check_rest()?;
            }
            check_ends(net, model, &open)?;
            coverage.count("end: nothing left to do");
        }
    }
    count(&server.counters(), coverage);
    Ok(())
}

/// Nobody is let in who is one too many. Sources that have hung up make room.
fn check_limits(model: &Model, net: &SimNet<Chaos>, config: &Config) -> Result<(), String> {
    let (sources, users) = model.connected();
    let shared = net.shared();
    let over: BTreeSet<usize> = shared.script.ends().filter(|end| end.2).map(|end| end.0).collect();
    let sources = sources.filter(|peer| !over.contains(peer)).count();
    for (what, connected, most) in [
        ("event sources", sources, config.max_event_source_clients),
        ("users", users, config.max_user_clients),
    ] {
        if connected > most as usize {
            return Err(format!("{connected} {what} are connected, but only {most} may be"));
        }
    }
    Ok(())
}

/// Everybody who reads has everything, everybody who has gone is gone, and nobody waits to be accepted.
fn check_ends(net: &SimNet<Chaos>, model: &Model, open: &[(usize, usize)]) -> Result<(), String> {
    let shared = net.shared();
    for (peer, port, over, slow) in shared.script.ends() {
        let found = open.iter().find(|&&(other, _)| other == peer);
        let end = shared
            .world
            .peers()
            .find(|other| other.index() == peer)
            .map(|peer| shared.world.server_end(peer));
        let is_finished = shared.world.peers().any(|at| at.index() == peer && shared.world.has_finished(at));
        match found {
            // Where a ring is full, sources that have hung up keep their places.
            None if port == Port::Source && model.holds_any() => {}
            None if end == Some(ServerEnd::Open) && !is_finished => {
                return Err(format!("connection {peer} was never accepted"));
            }
            Some(_) if over && !model.holds(peer) => {
                return Err(format!("connection {peer} has ended, and nobody has noticed"));
            }
            Some(&(_, owed)) if owed > 0 && !slow => {
                return Err(format!("connection {peer} takes everything, but is still owed {owed} bytes"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn count(counters: &Counters, coverage: &mut Coverage) {
    for end in DisconnectReason::ALL {
        coverage.add(&format!("users: {}", end.name()), counters.users_disconnected[end as usize]);
    }
    for reason in Reject::ALL {
        coverage.add(&format!("lines: {}", reason.name()), counters.events_rejected[reason as usize]);
    }
    coverage.add("lines: late", counters.events_late);
    coverage.add("lines: duplicate", counters.events_duplicate);
    coverage.add("lines: in all", counters.events_received);
    coverage.add("events: delivered", counters.deliveries);
    coverage.add("server: turns", counters.loop_turns);
    coverage.add("ring full: source held back", u64::from(counters.paused_ring_full > 0));
}
