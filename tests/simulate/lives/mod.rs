//! A server that dies and is started again, on a simulated disk: docs/SPEC.md sections 8 and 9.
//!
//! A run is a number of lives on one folder. In each, sources that ask for acknowledgements go on from there, users come and go, and
//! the life ends: its process anywhere in a turn, its machine, by a signal, or by an error of the disk. The next start must find
//! what section 8 promises. What the truth is, [`truth`] reads from the journal as an observer sees it, and holds it against
//! what was sent. In the last life nothing goes wrong, and everything must arrive.

mod crowd;
mod temper;
mod truth;
mod visit;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
};

use fortnight::internals::{
    journal::{SyncMode, tools},
    server::{Phase, Server},
    sim::{DiskCounts, DiskFaults, ProcessEnd, Schedule, Shared, SimFolder, SimNet},
    time::{MILLISECOND, Micros, SECOND},
};

use crate::{coverage::Coverage, dice::Dice};
use crowd::{Crowd, Lane, User};
use temper::Temper;
use truth::Truth;
use visit::{Bounds, Memory};

/// Turns that a life may take.
const TURNS: u64 = 200_000;
/// Turns after which a process ends between two turns, if what was to end it has not come.
const LAST_TURNS: u64 = 20;
/// Time in which everything must have arrived, once nothing goes wrong any more.
const TIME_AFTER_END: Micros = 60 * SECOND;

/// What the coverage must have of it.
pub(crate) const REQUIRED: [&str; 51] = [
    "resume: a place of its own",
    "resume: at the edge of a segment",
    "resume: at the edge of a snapshot",
    "resume: at the end of a snapshot",
    "resume: within a snapshot with which a pass may have begun",
    "resume: ahead of the cursor",
    "resume: at the oldest, or one off",
    "resume: at the cursor, or one off",
    "resume: far off",
    "resume: in the past",
    "resume: the socket is full",
    "resume: taken over",
    "resume: cut off",
    "resume: served from the journal",
    "resume: a snapshot at the login",
    "resume: a mark",
    "resume: refused, gone",
    "resume: refused, epoch",
    "resume: in the turn of the end",
    "resume: the journal is forked",
    "lives: the process ends",
    "lives: the process ends in the middle of a turn",
    "lives: the process ends in the middle of an operation of the disk",
    "lives: the machine ends",
    "lives: an end is asked for",
    "lives: an error of the disk ends it",
    "lives: a start fails",
    "lives: a source finishes",
    "lives: a finished source is closed",
    "lives: a source takes over its name",
    "lives: what was not durable is lost",
    "lives: a snapshot is begun with",
    "lives: a snapshot is begun with that was made while the graph changed",
    "lives: segments have gone",
    "lives: a segment waits to be recycled",
    "lives: everything has arrived",
    "lives: the journal is copied beside its server",
    "disk: short write",
    "disk: full",
    "disk: EIO on write",
    "disk: EIO on sync",
    "disk: EIO on opening",
    "disk: EIO on rename",
    "disk: slow",
    "disk: read that has to wait",
    "disk: write lost",
    "disk: write torn",
    "disk: name lost",
    "disk: bit flipped, and refused",
    "disk: bit flipped, and harmless",
    "disk: bit flipped, and cut off",
];

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Asked,
    Process,
    Machine,
}

type Life = Server<SimNet<Crowd>>;

/// What is carried from life to life.
struct Run {
    dice: Dice,
    temper: Rc<Temper>,
    folder: SimFolder,
    truth: Truth,
    lanes: Vec<Lane>,
    memory: Memory,
    now: Micros,
    /// Below this the next start must be, whatever happens: what it was when the last one served.
    recovered: u128,
    /// The number of events that had been appended at the ends of turns, and when.
    appended: Vec<(Micros, u128)>,
    appended_bytes: u64,
}

/// Runs a seed.
pub(crate) fn run(seed: u64, coverage: &mut Coverage) -> Result<(), String> {
    let mut dice = Dice::new(seed ^ 0x006a_6f75_726e_616c);
    let temper = Rc::new(Temper::new(&mut dice.split()));
    let folder = SimFolder::new(dice.below(u64::MAX));
    let first = u128::from(temper.config.first_sequence);
    let lanes = vec![Lane::default(); temper.lanes as usize];
    let truth = Truth::default();
    let appended = Vec::new();
    let mut run = Run {
        dice,
        temper,
        folder,
        truth,
        lanes,
        memory: Memory::default(),
        now: 0,
        recovered: first,
        appended,
        appended_bytes: 0,
    };
    let mut outcome = Ok(());
    for life in 0..=run.temper.lives {
        outcome = run.live(life == run.temper.lives, coverage);
        if outcome.is_err() {
            break;
        }
    }
    count(run.folder.counts(), coverage);
    outcome.map_err(|problem| format!("{problem}\n{:?}", run.temper))
}

impl Run {
    /// From one start to the end after it.
    fn live(&mut self, is_last: bool, coverage: &mut Coverage) -> Result<(), String> {
        let mut server = self.start(is_last, coverage)?;
        let net = server.net_mut().clone();
        let (end, crowd) = if is_last {
            (self.serve_to_the_end(&mut server, &net, coverage)?, net)
        } else {
            (self.serve(&mut server, &net, coverage)?, net)
        };
        drop(server);
        self.extend()?;
        let shared = crowd.shared();
        coverage.merge(&shared.script.coverage);
        self.now = shared.world.now() + 1;
        self.end(end, &shared.script, coverage)
    }

    /// Starts a server, which may take several attempts.
    fn start(&mut self, is_last: bool, coverage: &mut Coverage) -> Result<Life, String> {
        let mut may_fail = !is_last && self.dice.in_1000(self.temper.start_errors);
        loop {
            let faults = if may_fail { self.start_faults() } else { DiskFaults::default() };
            self.folder.set_now(self.now);
            self.folder.set_faults(faults);
            let lanes = self.lanes.clone();
            let place = (self.now, self.recovered);
            let memory = self.memory.clone();
            let crowd = Crowd::new(&mut self.dice, &self.temper, &self.folder, (lanes, memory), place);
            let net = SimNet::with_disk(crowd, self.folder.clone());
            net.shared().world.advance_to(self.now);
            let now = self.now;
            let config = self.temper.config.clone();
            let disk = Box::new(self.folder.disk());
            let started = catch_unwind(AssertUnwindSafe(|| {
                Server::recover_at(self.temper.pace, config, net, disk, || now)
            }));
            match started {
                Ok(Ok(mut server)) => {
                    self.folder.set_faults(DiskFaults::default());
                    self.check_start(&mut server, coverage)?;
                    let delay_max = self.temper.delay_max;
                    let faults = if is_last {
                        DiskFaults { delay_max, ..DiskFaults::default() }
                    } else {
                        Crowd::usual_faults(&self.temper)
                    };
                    server.net_mut().shared().script.disk = faults;
                    self.folder.set_faults(faults);
                    return Ok(server);
                }
                Ok(Err(error)) if !may_fail => return Err(format!("the next start fails: {error}")),
                Ok(Err(_)) => self.folder.end_process(),
                Err(panic) if panic.is::<ProcessEnd>() => self.folder.end_process(),
                Err(panic) => resume_unwind(panic),
            }
            coverage.count("lives: a start fails");
            may_fail = false;
        }
    }

    fn start_faults(&mut self) -> DiskFaults {
        let error = 20_000;
        match self.dice.below(4) {
            0 => DiskFaults { open_error: error, ..DiskFaults::default() },
            1 => DiskFaults { sync_error: error, write_error: error, ..DiskFaults::default() },
            2 => DiskFaults { room: Some(self.dice.below(200)), ..DiskFaults::default() },
            _ => DiskFaults { ends_after: Some(self.dice.below(12)), ..DiskFaults::default() },
        }
    }

    /// What a server says when it has started.
    fn check_start(&mut self, server: &mut Life, coverage: &mut Coverage) -> Result<(), String> {
        self.extend()?;
        let snapshot = server.snapshot();
        let (cursor, edges) = (snapshot.cursor.get(), snapshot.follow_edges);
        if cursor < self.recovered || cursor < self.truth.cursor() {
            return Err(format!(
                "the cursor is {cursor} after the start, but {} is in the journal, and it must not be below {}",
                self.truth.cursor(),
                self.recovered
            ));
        }
        if edges != self.truth.edges() {
            return Err(format!("the graph has {edges} edges after the start, but {}", self.truth.edges()));
        }
        self.truth.check_journal(&self.folder)?;
        let names = self.folder.names();
        let has = |suffix: &str| names.iter().any(|(name, _)| name.ends_with(suffix));
        coverage.add("lives: a snapshot is begun with", u64::from(has(".fns")));
        let ends_elsewhere = |name: &str| {
            let cursors = name.strip_suffix(".fns").and_then(|cursors| cursors.split_once('-'));
            cursors.is_some_and(|(from, to)| from != to)
        };
        let newest = names.iter().rev().find(|(name, _)| name.ends_with(".fns"));
        let made_meanwhile = newest.is_some_and(|(name, _)| ends_elsewhere(name));
        coverage.add(
            "lives: a snapshot is begun with that was made while the graph changed",
            u64::from(made_meanwhile),
        );
        let first = format!("{:020}.fnj", self.temper.config.first_sequence);
        coverage.add("lives: segments have gone", u64::from(!has(&first)));
        self.recovered = cursor;
        self.appended = vec![(self.now, cursor)];
        self.appended_bytes = 0;
        let has = self.bounds(server);
        server.net_mut().shared().script.receive_start(has);
        Ok(())
    }

    /// What the server has now.
    fn bounds(&self, server: &mut Life) -> Bounds {
        let snapshot = server.snapshot();
        let snapshots = self.folder.names().iter().filter(|(name, _)| name.ends_with(".fns")).count();
        let first = snapshot.journal.as_ref().map_or(0, |journal| journal.first_sequence.get());
        let held_up = snapshot.counters.paused_slow_user;
        Bounds { cursor: snapshot.cursor.get(), first, snapshots, held_up }
    }

    fn extend(&mut self) -> Result<(), String> {
        self.truth.extend(u128::MAX, &self.folder, &self.temper)
    }

    /// Serves until the life ends.
    fn serve(
        &mut self,
        server: &mut Life,
        net: &SimNet<Crowd>,
        coverage: &mut Coverage,
    ) -> Result<End, String> {
        let end = match self.dice.below(10) {
            _ if !self.temper.asks => End::Asked,
            0 | 1 => End::Asked,
            2..=5 => End::Process,
            _ => End::Machine,
        };
        let mut last_turns = LAST_TURNS;
        let mut is_armed = false;
        for _ in 0..TURNS {
            if let Some(found) = self.turn(server, net, coverage)? {
                return Ok(if found == End::Process { self.process_or_machine(end) } else { found });
            }
            if matches!(server.phase(), Phase::Done { .. }) {
                coverage.count("lives: an end is asked for");
                return Ok(End::Asked);
            }
            if !net.shared().script.is_over || !(self.temper.asks || self.has_let_in(server, net)) {
                continue;
            }
            if !is_armed {
                is_armed = true;
                self.arm(end, net, coverage);
            } else if end != End::Asked {
                last_turns -= 1;
                if last_turns == 0 || net.shared().world.is_idle() {
                    return Ok(end);
                }
            }
        }
        Err("the server never comes to its end".to_owned())
    }

    /// Every source has been let in: none that asks for nothing is lost with the listener.
    fn has_let_in(&self, server: &mut Life, net: &SimNet<Crowd>) -> bool {
        server.snapshot().sources == net.shared().script.sources()
    }

    fn process_or_machine(&mut self, end: End) -> End {
        if end == End::Machine { End::Machine } else { End::Process }
    }

    /// Everything has happened that will: the end comes soon.
    fn arm(&mut self, end: End, net: &SimNet<Crowd>, coverage: &mut Coverage) {
        let mut faults = Crowd::usual_faults(&self.temper);
        match end {
            End::Asked => {
                faults = DiskFaults { delay_max: self.temper.delay_max, ..DiskFaults::default() };
                let shared = &mut *net.shared();
                if self.temper.visitors > 0 {
                    coverage.count("resume: in the turn of the end");
                    shared.script.visit(0, false, &mut shared.world);
                }
                ask(shared);
            }
            _ if self.dice.in_1000(500) => faults.ends_after = Some(self.dice.below(8)),
            _ => net.shared().script.ends_after = Some(self.dice.below(12)),
        }
        // Something more happens, or nothing would end it.
        if end != End::Asked {
            net.shared().script.go_on(20);
        }
        self.folder.set_faults(faults);
    }

    /// One turn, and whether it was the last: by the end of the process, or by an error, after which the machine ends.
    fn turn(
        &mut self,
        server: &mut Life,
        net: &SimNet<Crowd>,
        coverage: &mut Coverage,
    ) -> Result<Option<End>, String> {
        let turned = catch_unwind(AssertUnwindSafe(|| server.turn()));
        match turned {
            Ok(Ok(())) => {}
            Ok(Err(error)) if self.temper.errors == 0 => {
                return Err(format!("the server ends without a reason: {error}"));
            }
            Ok(Err(_)) => {
                coverage.count("lives: an error of the disk ends it");
                // What the failed operation has left is as unknown as after the end of a machine.
                self.note_sent(net)?;
                return Ok(Some(End::Machine));
            }
            Err(panic) if panic.is::<ProcessEnd>() => {
                self.note_sent(net)?;
                return Ok(Some(End::Process));
            }
            Err(panic) => resume_unwind(panic),
        }
        let snapshot = server.snapshot();
        let users = snapshot.users;
        let bytes = snapshot.journal.map_or(0, |journal| journal.appended_bytes);
        if bytes != self.appended_bytes {
            self.appended_bytes = bytes;
            self.extend()?;
        }
        let has = self.bounds(server);
        if self.temper.tools > 0 && self.dice.in_1000(self.temper.tools) {
            self.use_tools(has.cursor, coverage)?;
        }
        let shared = &mut *net.shared();
        // What happens meanwhile happens before the next turn, even if the server waits for nothing.
        let now = shared.world.now();
        shared.world.advance_to(now + self.temper.work);
        self.appended.push((shared.world.now(), self.truth.cursor().max(self.recovered)));
        shared.script.receive(&mut shared.world, has, users)?;
        Ok(None)
    }

    /// The process has ended in the middle of a turn: what it had sent before is on its way.
    fn note_sent(&mut self, net: &SimNet<Crowd>) -> Result<(), String> {
        let shared = &mut *net.shared();
        let has = Bounds { cursor: u128::MAX, ..Bounds::default() };
        shared.script.receive(&mut shared.world, has, usize::MAX)
    }

    /// The last life: nothing goes wrong, and everything arrives. Then the server is asked to end.
    fn serve_to_the_end(
        &mut self,
        server: &mut Life,
        net: &SimNet<Crowd>,
        coverage: &mut Coverage,
    ) -> Result<End, String> {
        let mut calm_since = None;
        for _ in 0..TURNS {
            if self.turn(server, net, coverage)?.is_some() {
                return Err("the server ends without a reason".to_owned());
            }
            if matches!(server.phase(), Phase::Done { forced: false }) {
                coverage.count("lives: everything has arrived");
                return Ok(End::Asked);
            }
            let shared = &mut *net.shared();
            let now = shared.world.now();
            if calm_since.is_none() && shared.script.is_over {
                calm_since = Some(now);
                let faults = DiskFaults { delay_max: self.temper.delay_max, ..DiskFaults::default() };
                self.folder.set_faults(faults);
                shared.script.calm_down(&mut shared.world);
            } else if let Some(since) = calm_since {
                let cursor = self.truth.cursor();
                let is_whole = cursor == self.temper.end() && shared.script.is_acknowledged(cursor);
                let is_whole = is_whole && self.visitors_have_all(&shared.script)?;
                if is_whole && server.phase() == Phase::Running {
                    ask(shared);
                } else if shared.world.is_idle() || now > since + TIME_AFTER_END {
                    return Err(format!(
                        "everything has been sent up to {}, but {cursor} is the cursor, and {} is acknowledged",
                        self.temper.end(),
                        shared.script.acknowledged()
                    ));
                }
            }
        }
        Err("the server never comes to rest".to_owned())
    }

    /// Everybody who resumes and is there has everything.
    fn visitors_have_all(&self, crowd: &Crowd) -> Result<bool, String> {
        for visit in crowd.visits.all.iter().filter(|visit| !visit.is_over) {
            if !self.truth.check_visit(visit.id, &visit.received)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is left after the end must be what section 8 says.
    fn end(&mut self, end: End, crowd: &Crowd, coverage: &mut Coverage) -> Result<(), String> {
        let before = std::mem::take(&mut self.truth);
        let time = self.temper.config.shutdown_timeout_ms * MILLISECOND;
        let is_in_time = crowd.asked_at.is_some_and(|at| self.now < at + time);
        let end = if end == End::Asked && !is_in_time { End::Process } else { end };
        for user in &crowd.users {
            // Who is served from the journal goes on elsewhere: no pass goes on after the signal.
            let is_live = self.temper.config.user_buffer_bytes >= 1 << 20;
            let is_complete = end == End::Asked && !user.is_over && is_live;
            before.check_stream(user.id, (user.from, user.latest), &user.received, is_complete)?;
        }
        for visit in &crowd.visits.all {
            before.check_visit(visit.id, &visit.received)?;
        }
        self.memory = crowd.visits.memory.clone();
        coverage.count(match end {
            End::Machine => "lives: the machine ends",
            End::Process | End::Asked => "lives: the process ends",
        });
        let has_spare = self.folder.names().iter().any(|(name, _)| name == "spare.fnj");
        coverage.add("lives: a segment waits to be recycled", u64::from(has_spare));
        if end == End::Machine {
            self.folder.end_machine();
        } else {
            self.folder.end_process();
        }
        let left = self
            .recover_a_copy(&self.folder.copy())
            .map_err(|error| format!("the next start fails: {error}"))?;
        let least = self.least(end, &before, crowd);
        if left.cursor < least {
            return Err(format!("{least} is the least that may be left, but it is {}", left.cursor));
        }
        coverage.add("lives: what was not durable is lost", u64::from(left.cursor < before.cursor()));
        self.truth = before.before(left.cursor);
        // Behind that there may be blocks of which the one before is lost: the next start cuts them off.
        self.truth.extend(left.cursor, &self.folder, &self.temper)?;
        if left.edges != self.truth.edges() {
            return Err(format!(
                "the graph has {} edges, but should have {}",
                left.edges,
                self.truth.edges()
            ));
        }
        self.lanes.clone_from(&crowd.lanes);
        if self.temper.mode == SyncMode::Never {
            // The next start says a lower number than before.
            for lane in &mut self.lanes {
                lane.acknowledged = lane.acknowledged.min(left.cursor);
            }
        }
        self.recovered = left.cursor;
        for _ in 0..self.dice.below(3) {
            self.flip(end, &left, coverage)?;
        }
        if self.temper.visitors > 0 && self.dice.in_1000(150) {
            self.fork(coverage)?;
        }
        Ok(())
    }

    /// Somebody forks the journal: what comes from here on is another sequence of events.
    fn fork(&mut self, coverage: &mut Coverage) -> Result<(), String> {
        let (epoch, cursor) =
            tools::fork(&mut self.folder.disk()).map_err(|error| format!("it cannot be forked: {error}"))?;
        coverage.count("resume: the journal is forked");
        self.memory.fork(epoch.to_string(), cursor.get());
        self.lanes.iter_mut().for_each(Lane::forget_epoch);
        Ok(())
    }

    /// The tools work beside the server: they find no damage, and a copy is a journal of its own, which has a prefix.
    fn use_tools(&self, released: u128, coverage: &mut Coverage) -> Result<(), String> {
        tools::check(&mut self.folder.observer())
            .map_err(|error| format!("beside its server the journal is not whole: {error}"))?;
        let copy = SimFolder::new(0);
        let (_, cursor) = tools::copy(&mut self.folder.observer(), &mut copy.disk())
            .map_err(|error| format!("beside its server the journal cannot be copied: {error}"))?;
        let found = self.recover_a_copy(&copy)?;
        // A block may be in the file that the server does not count yet.
        let mut truth = self.truth.clone();
        truth.extend(cursor.get(), &self.folder, &self.temper)?;
        let wanted = Left { cursor: cursor.get(), edges: truth.before(cursor.get()).edges() };
        if cursor.get() > released || found != wanted {
            return Err(format!(
                "a copy was made at {cursor}, and a start on it finds {found:?}, not {wanted:?}"
            ));
        }
        coverage.count("lives: the journal is copied beside its server");
        Ok(())
    }

    /// The least cursor that the next start may have.
    fn least(&self, end: End, before: &Truth, crowd: &Crowd) -> u128 {
        let (mode, temper) = (self.temper.mode, &self.temper);
        let acknowledged = crowd.acknowledged().max(crowd.marked());
        let sent = crowd.users.iter().filter_map(|user: &User| Truth::sent_up_to(&user.received)).max();
        let resumed = crowd.visits.all.iter().filter_map(|visit| visit.highest).max();
        let sent = sent.max(resumed).map_or(0, |number| u128::from(number) + 1);
        if end != End::Machine {
            return before.cursor().max(acknowledged).max(sent);
        }
        let interval =
            temper.config.journal_sync_interval_ms * MILLISECOND + 100 * (temper.delay_max + temper.work);
        let ended = self.now;
        let is_old = |&&(at, _): &&(Micros, u128)| at + interval + 10 < ended;
        let old = self.appended.iter().rev().find(is_old).map_or(0, |&(_, cursor)| cursor);
        match mode {
            SyncMode::Always => acknowledged.max(sent),
            SyncMode::Interval if temper.full == 0 => acknowledged.max(old),
            SyncMode::Interval => acknowledged,
            SyncMode::Never => 0,
        }
    }

    /// A start on a folder of its own, with nothing but that.
    fn recover_a_copy(&self, folder: &SimFolder) -> Result<Left, String> {
        let net = SimNet::with_disk(Schedule::default(), folder.clone());
        let config = self.temper.config.clone();
        let mut server =
            Server::recover(config, net, Box::new(folder.disk()), || 0).map_err(|error| error.to_string())?;
        let snapshot = server.snapshot();
        Ok(Left { cursor: snapshot.cursor.get(), edges: snapshot.follow_edges })
    }

    /// A bit flips. It is noticed, or it does not matter. After a graceful end everything is known to have been durable.
    fn flip(&mut self, end: End, left: &Left, coverage: &mut Coverage) -> Result<(), String> {
        let folder = self.folder.copy();
        let files: Vec<(String, u64)> = folder.names().into_iter().filter(|&(_, len)| len > 0).collect();
        let (name, len) = &files[self.dice.below(files.len() as u64) as usize];
        let bit = self.dice.below(len * 8);
        folder.flip(name, bit);
        let Ok(found) = self.recover_a_copy(&folder) else {
            coverage.count("disk: bit flipped, and refused");
            return Ok(());
        };
        let place = format!("with bit {bit} of {name} flipped, the next start");
        if found.cursor == left.cursor && found.edges == left.edges {
            coverage.count("disk: bit flipped, and harmless");
            return Ok(());
        }
        if end == End::Asked || found.cursor > left.cursor {
            return Err(format!("{place} finds {found:?} in place of {left:?}"));
        }
        if found.edges != self.truth.before(found.cursor).edges() {
            return Err(format!("{place} finds {found:?}, which is no graph that there ever was"));
        }
        coverage.count("disk: bit flipped, and cut off");
        Ok(())
    }
}

/// Asks the server to end.
fn ask(shared: &mut Shared<Crowd>) {
    shared.script.asked_at = Some(shared.world.now());
    shared.script.visits.take_all(&mut shared.world);
    shared.world.signal();
}

/// What a start has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    cursor: u128,
    edges: u64,
}

fn count(counts: DiskCounts, coverage: &mut Coverage) {
    coverage.add("disk: short write", counts.short_writes);
    coverage.add("disk: full", counts.full);
    coverage.add("disk: EIO on write", counts.write_errors);
    coverage.add("disk: EIO on sync", counts.sync_errors);
    coverage.add("disk: EIO on opening", counts.open_errors);
    coverage.add("disk: EIO on rename", counts.rename_errors);
    coverage.add("disk: slow", counts.slow);
    coverage.add("disk: read that has to wait", counts.not_in_memory);
    coverage.add("disk: write lost", counts.lost);
    coverage.add("disk: write torn", counts.torn);
    coverage.add("disk: name lost", counts.lost_names);
    coverage.add("lives: the process ends in the middle of an operation of the disk", counts.ends);
}
