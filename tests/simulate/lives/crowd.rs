//! The far ends in one life: sources that go on from what was acknowledged, users, and when the life ends.

use std::{collections::VecDeque, panic::resume_unwind, rc::Rc};

use fortnight::internals::{
    server::net::Port,
    sim::{DiskFaults, Fault, Operation, Peer, ProcessEnd, Script, ServerEnd, SimFolder, World},
    time::{MILLISECOND, Micros},
};
use rustix::io::Errno;

use super::{
    temper::{IDS_MAX, Temper},
    visit::{Bounds, Memory, Visits},
};
use crate::{coverage::Coverage, dice::Dice};

/// What a source knows, and keeps from life to life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    /// Everything below is dealt with, as it was told.
    pub(crate) acknowledged: u128,
    /// Everything below has been sent: by one that does not ask.
    sent: u128,
    epoch: Option<Vec<u8>>,
    /// Before that, it does not connect once more: it may have been turned away.
    not_before: Micros,
}

impl Lane {
    /// The journal has been forked.
    pub(crate) fn forget_epoch(&mut self) {
        self.epoch = None;
    }
}

/// A connection of a source.
#[derive(Debug)]
struct Source {
    peer: Peer,
    lane: usize,
    /// An older connection of its lane had not been read yet. If its name is read later, it takes over.
    may_be_replaced: bool,
    received: Vec<u8>,
    /// What is still to be sent. `None`: it waits for its first acknowledgement.
    left: Option<VecDeque<u64>>,
    /// The highest number that it has sent.
    highest: Option<u64>,
    last: Option<u128>,
    finished_at: Option<Micros>,
    is_over: bool,
}

/// A connection of a user.
#[derive(Debug)]
pub(crate) struct User {
    peer: Peer,
    pub(crate) id: u64,
    /// The cursor when it sent its login, and when it had surely been let in.
    pub(crate) from: u128,
    pub(crate) latest: Option<u128>,
    /// An older login of its id has not been read yet. Where that is read later, it takes over.
    may_be_replaced: bool,
    pub(crate) received: Vec<u8>,
    pub(crate) is_over: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Crowd {
    dice: Dice,
    faults: Dice,
    temper: Rc<Temper>,
    folder: SimFolder,
    pub(crate) lanes: Vec<Lane>,
    sources: Vec<Source>,
    pub(crate) users: Vec<User>,
    /// Users that resume.
    pub(crate) visits: Visits,
    /// What goes wrong with the disk while nothing special does.
    pub(crate) disk: DiskFaults,
    next_at: Micros,
    left: u64,
    /// What the server had after the last turn.
    has: Bounds,
    /// The cursor then.
    cursor: u128,
    /// Operations on the network after which the process ends.
    pub(crate) ends_after: Option<u64>,
    pub(crate) is_calm: bool,
    /// The server has been asked to end.
    pub(crate) asked_at: Option<Micros>,
    /// Everything has happened that will.
    pub(crate) is_over: bool,
    pub(crate) coverage: Coverage,
}

impl Crowd {
    pub(crate) fn new(
        dice: &mut Dice,
        temper: &Rc<Temper>,
        folder: &SimFolder,
        (lanes, memory): (Vec<Lane>, Memory),
        (now, cursor): (Micros, u128),
    ) -> Crowd {
        let left = dice.range(1..temper.actions + 1);
        Crowd {
            dice: dice.split(),
            faults: dice.split(),
            temper: Rc::clone(temper),
            folder: folder.clone(),
            lanes,
            sources: Vec::new(),
            users: Vec::new(),
            visits: Visits::new(memory),
            disk: DiskFaults::default(),
            next_at: now,
            left,
            has: Bounds::default(),
            cursor,
            ends_after: None,
            is_calm: false,
            asked_at: None,
            is_over: false,
            coverage: Coverage::default(),
        }
    }

    /// What may go wrong with the disk at any time.
    pub(crate) fn usual_faults(temper: &Temper) -> DiskFaults {
        DiskFaults {
            short_write: temper.short_write,
            write_error: temper.errors,
            sync_error: temper.errors,
            open_error: temper.errors,
            rename_error: temper.errors.saturating_mul(50),
            not_in_memory: temper.not_in_memory,
            delay_max: temper.delay_max,
            ..DiskFaults::default()
        }
    }

    fn source_of(&self, lane: usize) -> Option<usize> {
        self.sources.iter().rposition(|source| source.lane == lane && !source.is_over)
    }

    fn connect_source(&mut self, lane: usize, world: &mut World) {
        let is_unread = |source: &Source| source.lane == lane && world.unread(source.peer) > 0;
        let may_be_replaced = self.temper.names && self.sources.iter().any(is_unread);
        let Some(peer) = world.connect(Port::Source) else { return };
        let mut left = None;
        if self.temper.asks {
            let line = if self.temper.names { format!("?|ack|lane-{lane}\n") } else { "?|ack\n".to_owned() };
            world.send(peer, line.as_bytes());
            if self.dice.in_1000(self.temper.eager) {
                left = Some(self.numbers(lane, self.lanes[lane].acknowledged));
            }
        } else {
            left = Some(self.numbers(lane, self.lanes[lane].sent));
        }
        let (highest, last, finished_at) = (None, None, None);
        let received = Vec::new();
        self.sources.push(Source {
            peer,
            lane,
            may_be_replaced,
            received,
            left,
            highest,
            last,
            finished_at,
            is_over: false,
        });
    }

    /// What a source has to say from a number on, a little shuffled. Who does not ask says everything in its order, or would have to
    /// know what it has left out.
    fn numbers(&mut self, lane: usize, from: u128) -> VecDeque<u64> {
        let window = if self.temper.asks { self.temper.window } else { 1 };
        let numbers = self.temper.numbers(lane as u64).filter(|&number| u128::from(number) >= from);
        let mut numbers: Vec<(u128, u64)> = numbers
            .map(|number| (u128::from(number) + u128::from(self.dice.below(window)), number))
            .collect();
        numbers.sort_unstable();
        numbers.into_iter().map(|(_, number)| number).collect()
    }

    fn send(&mut self, index: usize, most: u64, world: &mut World) {
        let source = &mut self.sources[index];
        let Some(left) = source.left.as_mut().filter(|_| source.finished_at.is_none()) else { return };
        let mut bytes = Vec::new();
        for number in left.drain(..left.len().min(most as usize)) {
            bytes.extend(self.temper.line(number));
            source.highest = source.highest.max(Some(number));
            let lane = &mut self.lanes[source.lane];
            lane.sent = lane.sent.max(u128::from(number) + 1);
        }
        world.send(source.peer, &bytes);
    }

    fn connect_user(&mut self, world: &mut World) {
        let id = self.temper.id(&mut self.dice);
        let is_connected = self.users.iter().any(|user| user.id == id && !user.is_over);
        let is_connected = is_connected || self.visits.is_connected(id);
        let Some(peer) = (!is_connected).then(|| world.connect(Port::User)).flatten() else { return };
        let is_unread = |user: &User| user.id == id && world.unread(user.peer) > 0;
        let may_be_replaced = self.users.iter().any(is_unread) || self.visits.has_unread(id, world);
        world.send(peer, format!("{id}\n").as_bytes());
        let (from, latest, received) = (self.cursor, None, Vec::new());
        self.users.push(User { peer, id, from, latest, may_be_replaced, received, is_over: false });
    }

    /// A user that resumes comes, and takes over from itself if it is there.
    pub(crate) fn visit(&mut self, id: u64, is_own: bool, world: &mut World) {
        if self.users.iter().any(|user| user.id == id && !user.is_over) {
            return;
        }
        let Crowd { visits, dice, temper, folder, has, coverage, .. } = self;
        visits.come((id, is_own), (dice, temper, folder), *has, (world, coverage));
    }

    fn act(&mut self, world: &mut World) {
        if self.temper.visitors > 0 && self.dice.in_1000(self.temper.visitors) {
            let id = self.temper.id(&mut self.dice);
            self.visit(id, false, world);
        }
        if self.temper.visitors > 0 && self.dice.in_1000(300) {
            self.visits.act(&mut self.dice, world);
        }

        let lane = self.dice.below(self.lanes.len() as u64) as usize;
        let source = self.source_of(lane);
        match (self.dice.below(20), source) {
            (0..=2, _) => self.connect_user(world),
            (3, _) => self.user_leaves(world),
            (4, Some(source)) if self.temper.asks => self.source_leaves(source, world),
            (5, Some(_)) if self.temper.names && self.temper.asks => {
                self.coverage.count("lives: a source takes over its name");
                self.connect_source(lane, world);
            }
            (_, None) => self.connect_source(lane, world),
            (_, Some(source)) => {
                let most = self.dice.length(self.temper.burst);
                self.send(source, most, world);
            }
        }
        if self.dice.in_1000(self.temper.full) {
            let room = if self.dice.in_1000(400) { Some(self.dice.below(3000)) } else { None };
            self.folder.set_faults(DiskFaults { room, ..self.disk });
        }
    }

    fn user_leaves(&mut self, world: &mut World) {
        let open = (0..self.users.len()).filter(|&index| !self.users[index].is_over).collect::<Vec<_>>();
        if !open.is_empty() {
            let index = self.dice.pick(&open);
            self.read_user(index, world);
            self.users[index].is_over = true;
            world.close(self.users[index].peer);
        }
    }

    fn source_leaves(&mut self, index: usize, world: &mut World) {
        let now = world.now();
        let source = &mut self.sources[index];
        match self.dice.below(3) {
            0 if source.finished_at.is_none() => {
                self.coverage.count("lives: a source finishes");
                source.finished_at = Some(now);
                world.finish(source.peer);
            }
            1 => {
                source.is_over = true;
                world.reset(source.peer);
            }
            _ => {
                source.is_over = true;
                world.close(source.peer);
            }
        }
    }

    fn read_user(&mut self, index: usize, world: &mut World) {
        let user = &mut self.users[index];
        let bytes = world.take_received(user.peer, <[u8]>::to_vec).unwrap_or_default();
        user.received.extend(bytes);
    }

    /// The server has started with this cursor.
    pub(crate) fn receive_start(&mut self, has: Bounds) {
        (self.cursor, self.has) = (has.cursor, has);
    }

    /// This number of further things happens.
    pub(crate) fn go_on(&mut self, actions: u64) {
        self.left = actions;
        self.is_over = false;
    }

    /// Reads everything that has come. `cursor` and `users` are what the server says after a turn.
    pub(crate) fn receive(&mut self, world: &mut World, has: Bounds, users: usize) -> Result<(), String> {
        let cursor = has.cursor;
        (self.cursor, self.has) = (cursor, has);
        let is_served = self.asked_at.is_none() && cursor < u128::MAX;
        self.visits.receive(world, has, (is_served, &self.temper), &mut self.coverage)?;
        for index in 0..self.users.len() {
            if !self.users[index].is_over {
                self.read_user(index, world);
                let user = &mut self.users[index];
                // With so small a buffer it may be taken for slow.
                let may_be_cut_off = user.may_be_replaced || self.temper.config.user_buffer_bytes < 1 << 20;
                user.is_over = is_served && may_be_cut_off && world.server_end(user.peer) != ServerEnd::Open;
            }
        }
        if self.users.iter().filter(|user| !user.is_over).count() + self.visits.open() == users {
            for user in self.users.iter_mut().filter(|user| !user.is_over) {
                user.latest.get_or_insert(cursor);
            }
        }
        for index in 0..self.sources.len() {
            self.receive_source(index, world)?;
        }
        Ok(())
    }

    /// In the end, lanes without a source.
    fn missing_lanes(&self) -> impl Iterator<Item = usize> + '_ {
        let lanes = if self.is_calm && self.asked_at.is_none() { self.lanes.len() } else { 0 };
        (0..lanes).filter(|&lane| self.source_of(lane).is_none())
    }

    /// Connects those that have been missing for long enough. Without a pause no time would pass while all places are taken, by
    /// sources that have finished, and so nothing else would happen.
    fn connect_missing(&mut self, world: &mut World) {
        let now = world.now();
        let is_due = |&lane: &usize| self.lanes[lane].not_before <= now;
        for lane in self.missing_lanes().filter(is_due).collect::<Vec<_>>() {
            self.lanes[lane].not_before = now + MILLISECOND;
            self.connect_source(lane, world);
        }
    }

    fn receive_source(&mut self, index: usize, world: &mut World) -> Result<(), String> {
        let source = &mut self.sources[index];
        if source.is_over {
            return Ok(());
        }
        let bytes = world.take_received(source.peer, <[u8]>::to_vec).unwrap_or_default();
        source.received.extend(bytes);
        while let Some(end) = source.received.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = source.received.drain(..=end).collect();
            let (epoch, number) = parse(&line)
                .ok_or_else(|| format!("a source was sent {:?}", String::from_utf8_lossy(&line)))?;
            let lane = &mut self.lanes[source.lane];
            if lane.epoch.get_or_insert_with(|| epoch.clone()) != &epoch {
                return Err("the epoch is another one than before".to_owned());
            }
            if number > self.cursor {
                return Err(format!("{number} is acknowledged, but the cursor is {}", self.cursor));
            }
            if source.last.is_some_and(|last| number <= last) {
                return Err(format!("{number} is acknowledged after {:?}", source.last));
            }
            source.last = Some(number);
            lane.acknowledged = number;
        }
        let (lane, waits) = (source.lane, source.left.is_none() && source.last.is_some());
        if world.has_finished(source.peer) {
            world.close(source.peer);
            self.check_closed(index, world.now())?;
            self.sources[index].is_over = true;
        } else if waits {
            let from = self.lanes[lane].acknowledged;
            self.sources[index].left = Some(self.numbers(lane, from));
        }
        let all = self.is_calm && self.sources[index].left.is_some() && !self.sources[index].is_over;
        if all {
            self.send(index, u64::MAX, world);
        }
        Ok(())
    }

    /// One that has finished is closed when all that it sent is dealt with, or when its time is up.
    fn check_closed(&mut self, index: usize, now: Micros) -> Result<(), String> {
        let source = &self.sources[index];
        let (Some(finished), Some(highest)) = (source.finished_at, source.highest) else { return Ok(()) };
        let in_time = now < finished + self.temper.config.shutdown_timeout_ms * MILLISECOND;
        let is_taken_over =
            source.may_be_replaced || self.sources[index + 1..].iter().any(|other| other.lane == source.lane);
        // Never answered, and there may have been no place: it was turned away.
        let places = self.temper.config.max_event_source_clients as usize;
        let others = self.sources[..index].iter().filter(|other| !other.is_over).count();
        let is_turned_away = source.last.is_none() && others >= places;
        if in_time
            && !is_taken_over
            && !is_turned_away
            && self.asked_at.is_none()
            && source.last.is_none_or(|last| last <= u128::from(highest))
        {
            return Err(format!(
                "a source that had finished was closed with {:?} acknowledged and {highest} sent",
                source.last
            ));
        }
        self.coverage.count("lives: a finished source is closed");
        Ok(())
    }

    /// From here on nothing goes wrong, and everything is sent.
    pub(crate) fn calm_down(&mut self, world: &mut World) {
        self.is_calm = true;
        for lane in 0..self.lanes.len() {
            let usable = self.source_of(lane).filter(|&index| self.sources[index].finished_at.is_none());
            match usable {
                Some(index) => self.send(index, u64::MAX, world),
                None => self.connect_source(lane, world),
            }
        }
        for index in 0..self.sources.len() {
            if !self.sources[index].is_over {
                self.send(index, u64::MAX, world);
            }
        }
        self.connect_user(world);
        self.visits.take_all(world);
        if self.temper.visitors > 0 {
            (0..IDS_MAX).for_each(|id| self.visit(id, true, world));
        }
    }

    /// The highest place that any user was told that is durable.
    pub(crate) fn marked(&self) -> u128 {
        self.visits.all.iter().map(|visit| visit.marked).max().unwrap_or(0)
    }

    /// Sources that have not gone.
    pub(crate) fn sources(&self) -> usize {
        self.sources.iter().filter(|source| !source.is_over).count()
    }

    /// Every source that asked has been told that everything is dealt with.
    pub(crate) fn is_acknowledged(&self, cursor: u128) -> bool {
        let asks = self.temper.asks;
        (0..self.lanes.len()).all(|lane| {
            let source = self.source_of(lane).map(|index| &self.sources[index]);
            source.is_some_and(|source| {
                source.left.as_ref().is_some_and(VecDeque::is_empty) && (!asks || source.last == Some(cursor))
            })
        })
    }

    /// The highest number that any source was told.
    pub(crate) fn acknowledged(&self) -> u128 {
        self.lanes.iter().map(|lane| lane.acknowledged).max().unwrap_or(0)
    }
}

/// `+|EPOCH|N`.
fn parse(line: &[u8]) -> Option<(Vec<u8>, u128)> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.strip_prefix("+|")?;
    let (epoch, number) = text.split_once('|')?;
    Some((epoch.as_bytes().to_vec(), number.parse().ok()?))
}

impl Script for Crowd {
    fn next_at(&mut self, _: &World) -> Option<Micros> {
        if self.is_calm {
            return self.missing_lanes().map(|lane| self.lanes[lane].not_before).min();
        }
        (!self.is_over).then_some(self.next_at)
    }

    fn happen(&mut self, world: &mut World) {
        if self.is_calm {
            return self.connect_missing(world);
        }
        if self.left == 0 {
            self.is_over = true;
            return;
        }
        self.left -= 1;
        self.act(world);
        self.next_at = world.now() + self.dice.below(self.temper.gap);
    }

    fn meanwhile(&mut self, _: &mut World, operation: Operation) {
        if let Some(left) = &mut self.ends_after {
            if *left == 0 && matches!(operation, Operation::Write(..) | Operation::Read(..)) {
                self.coverage.count("lives: the process ends in the middle of a turn");
                resume_unwind(Box::new(ProcessEnd));
            }
            *left = left.saturating_sub(1);
        }
    }

    fn fault(&mut self, operation: Operation) -> Option<Fault> {
        let (Operation::Read(_, len) | Operation::Write(_, len)) = operation else { return None };
        if self.is_calm || self.asked_at.is_some() || !self.faults.in_1000(self.temper.cuts) {
            return None;
        }
        Some(match self.faults.below(3) {
            0 => Fault::Errno(Errno::INTR.raw_os_error()),
            1 => Fault::Errno(Errno::AGAIN.raw_os_error()),
            _ => Fault::Cut(self.faults.length(len.min(3000) as u64) as usize),
        })
    }
}
