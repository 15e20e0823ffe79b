//! Users that resume: docs/SPEC.md section 10. Each login names a place that is drawn: the user's own, one in the past, at the edges
//! of segments and snapshots, too old, ahead of the cursor, of another epoch. What is answered must be what the contract says, and
//! what comes then must be what the journal has for the user from there on.

use std::collections::BTreeMap;

use fortnight::internals::{
    config::SlowUserPolicy,
    server::net::Port,
    sim::{Peer, ServerEnd, SimFolder, World},
    time::{MILLISECOND, Micros},
};
use support::model::number_of;

use super::temper::Temper;
use crate::{coverage::Coverage, dice::Dice};

/// What a server has, at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) cursor: u128,
    /// The lowest number that is kept.
    pub(crate) first: u128,
    /// Snapshots that there are or have been.
    pub(crate) snapshots: usize,
    /// For how long slow users have held up the sources in all.
    pub(crate) held_up: Micros,
}

/// What a login asks for.
#[derive(Clone, Debug)]
enum Asked {
    Now,
    Oldest,
    At(u128, String),
}

/// One login, and what came of it.
#[derive(Debug)]
pub(crate) struct Visit {
    peer: Peer,
    pub(crate) id: u64,
    asked: Asked,
    is_crlf: bool,
    /// What the server had when the login was sent.
    sent: Bounds,
    pub(crate) answer: Option<u128>,
    is_refused: bool,
    pub(crate) received: Vec<u8>,
    parsed: usize,
    was_limited: bool,
    /// Another connection has its id.
    is_replaced: bool,
    pub(crate) is_over: bool,
    /// The highest place that it was told beyond its own: that is durable.
    pub(crate) marked: u128,
    /// The number of the last whole event.
    pub(crate) highest: Option<u64>,
}

/// What is known from life to life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) epoch: Option<String>,
    /// Epochs that the journal was forked from, and where.
    pub(crate) ancestors: Vec<(String, u128)>,
    /// What each user wants next, and of which epoch.
    places: BTreeMap<u64, (String, u128)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Visits {
    pub(crate) memory: Memory,
    pub(crate) all: Vec<Visit>,
    /// The cursors between which a snapshot was made. Somebody has just come at a place from which a pass may begin with it.
    companion: Option<[u128; 2]>,
}

impl Memory {
    /// The journal is forked at a cursor.
    pub(crate) fn fork(&mut self, epoch: String, cursor: u128) {
        self.ancestors.extend(self.epoch.replace(epoch).map(|old| (old, cursor)));
    }

    fn shares(&self, epoch: &str, next: u128) -> bool {
        self.epoch.as_deref() == Some(epoch)
            || self.ancestors.iter().any(|(other, cursor)| other == epoch && next <= *cursor)
    }
}

/// The cursors between which a snapshot of this name was made.
fn cursors_of(name: &str) -> Option<[u128; 2]> {
    let (from, to) = name.strip_suffix(".fns")?.split_once('-')?;
    Some([from.parse().ok()?, to.parse().ok()?])
}

impl Visits {
    pub(crate) fn new(memory: Memory) -> Visits {
        Visits { memory, all: Vec::new(), companion: None }
    }

    pub(crate) fn is_connected(&self, id: u64) -> bool {
        self.all.iter().any(|visit| visit.id == id && !visit.is_over)
    }

    /// Whether there is a login of this id that the server has not read yet.
    pub(crate) fn has_unread(&self, id: u64, world: &World) -> bool {
        self.all.iter().any(|visit| visit.id == id && world.unread(visit.peer) > 0)
    }

    /// Connections that the server has not closed.
    pub(crate) fn open(&self) -> usize {
        self.all.iter().filter(|visit| !visit.is_over).count()
    }

    /// A user comes back. `is_own`: at its own place, if it has one, else anywhere.
    pub(crate) fn come(
        &mut self,
        (id, is_own): (u64, bool),
        (dice, temper, folder): (&mut Dice, &Temper, &SimFolder),
        sent: Bounds,
        (world, coverage): (&mut World, &mut Coverage),
    ) {
        let Some(peer) = world.connect(Port::User) else { return };
        let asked = self.draw((id, is_own), (dice, temper, folder), sent, coverage);
        let is_crlf = dice.in_1000(300);
        let end = if is_crlf { "\r\n" } else { "\n" };
        let line = match &asked {
            Asked::Now => format!("{id}|now{end}"),
            Asked::Oldest => format!("{id}|oldest{end}"),
            Asked::At(next, epoch) => format!("{id}|{next}|{epoch}{end}"),
        };
        let was_limited = !is_own && dice.in_1000(300);
        if was_limited {
            coverage.count("resume: the socket is full");
            world.limit_outbound(peer, dice.below(200));
        }
        if self.is_connected(id) {
            coverage.count("resume: somebody has the id");
        }
        world.send(peer, line.as_bytes());
        self.all.push(Visit {
            peer,
            id,
            asked,
            is_crlf,
            sent,
            answer: None,
            is_refused: false,
            received: Vec::new(),
            parsed: 0,
            was_limited,
            is_replaced: false,
            is_over: false,
            marked: 0,
            highest: None,
        });
    }

    fn draw(
        &mut self,
        (id, is_own): (u64, bool),
        (dice, temper, folder): (&mut Dice, &Temper, &SimFolder),
        sent: Bounds,
        coverage: &mut Coverage,
    ) -> Asked {
        let own = self.memory.places.get(&id);
        let Some(epoch) = self.memory.epoch.clone() else {
            return if is_own || dice.in_1000(500) { Asked::Oldest } else { Asked::Now };
        };
        if let Some([from, to]) = self.companion.take().filter(|_| !is_own) {
            coverage.count("resume: within a snapshot with which a pass may have begun");
            let within = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
            return Asked::At(from + u128::from(dice.below(within.max(1))), epoch);
        }
        if let Some((epoch, next)) = own.filter(|_| is_own || dice.in_1000(300)) {
            coverage.count("resume: a place of its own");
            return Asked::At(*next, epoch.clone());
        }
        let around = |place: u128, dice: &mut Dice| (place + u128::from(dice.below(3))).saturating_sub(1);
        let edges = |suffix: &str, dice: &mut Dice| {
            let names = folder.names();
            let of = names.iter().filter(|(name, _)| name.ends_with(suffix));
            let numbers: Vec<u128> = of
                .flat_map(|(name, _)| name.split(|c: char| !c.is_ascii_digit()))
                .filter_map(|digits| digits.parse().ok())
                .collect();
            if numbers.is_empty() { sent.first } else { around(dice.pick(&numbers), dice) }
        };
        let (what, next) = match dice.below(10) {
            0 if is_own => return Asked::Oldest,
            0 => return Asked::Now,
            1 => return Asked::Oldest,
            2 => ("resume: at the edge of a segment", edges(".fnj", dice)),
            3 => ("resume: at the edge of a snapshot", edges(".fns", dice)),
            4 => ("resume: ahead of the cursor", sent.cursor + 1 + u128::from(dice.below(20))),
            5 => ("resume: at the oldest, or one off", around(sent.first, dice)),
            6 => ("resume: at the cursor, or one off", around(sent.cursor, dice)),
            7 => ("resume: far off", dice.pick(&[0, 1, 1 << 64])),
            8 => ("resume: at the end of a snapshot", self.at_the_end_of_a_snapshot(dice, folder, sent)),
            _ => {
                let past = u64::try_from(sent.cursor.saturating_sub(temper.config.first_sequence.into()));
                (
                    "resume: in the past",
                    u128::from(temper.config.first_sequence + dice.below(past.unwrap_or(0).max(1))),
                )
            }
        };
        coverage.count(what);
        let epoch = match self.memory.ancestors.last() {
            _ if dice.in_1000(80) => "00000000000000aa".to_owned(),
            Some((ancestor, _)) if dice.in_1000(300) => ancestor.clone(),
            _ => epoch,
        };
        Asked::At(next.min(1 << 64), epoch)
    }

    /// Whoever comes next comes within this snapshot.
    fn at_the_end_of_a_snapshot(&mut self, dice: &mut Dice, folder: &SimFolder, sent: Bounds) -> u128 {
        let names = folder.names();
        let snapshots = names.iter().filter_map(|(name, _)| cursors_of(name));
        let snapshots: Vec<[u128; 2]> = snapshots.filter(|[from, to]| from < to).collect();
        self.companion = (!snapshots.is_empty()).then(|| dice.pick(&snapshots));
        self.companion.map_or(sent.first, |[_, to]| to)
    }

    /// A user leaves, or its socket takes more.
    pub(crate) fn act(&mut self, dice: &mut Dice, world: &mut World) {
        let open: Vec<usize> = (0..self.all.len()).filter(|&index| !self.all[index].is_over).collect();
        if open.is_empty() {
            return;
        }
        let visit = &mut self.all[dice.pick(&open)];
        match dice.below(3) {
            0 => {
                visit.is_over = true;
                world.close(visit.peer);
            }
            1 => {
                visit.was_limited = true;
                world.limit_outbound(visit.peer, world.written(visit.peer) + dice.below(2000));
            }
            _ => world.limit_outbound(visit.peer, u64::MAX),
        }
    }

    /// Everybody takes everything.
    pub(crate) fn take_all(&mut self, world: &mut World) {
        self.all.iter().for_each(|visit| world.limit_outbound(visit.peer, u64::MAX));
    }

    /// Reads what has come. `is_served`: nothing but the server itself may end a connection now, and it must have a reason.
    pub(crate) fn receive(
        &mut self,
        world: &mut World,
        now: Bounds,
        (is_served, temper): (bool, &Temper),
        coverage: &mut Coverage,
    ) -> Result<(), String> {
        for index in 0..self.all.len() {
            let visit = &mut self.all[index];
            if !visit.is_over {
                let bytes = world.take_received(visit.peer, <[u8]>::to_vec).unwrap_or_default();
                visit.received.extend(bytes);
                visit.take(&mut self.memory, now, temper, coverage)?;
            }
        }
        for index in (0..self.all.len()).rev() {
            if self.all[index].is_over {
                continue;
            }
            // A connection may be closed some time after that, and whoever has taken over may have gone by then.
            self.all[index].is_replaced |= self.takes_over(index, world, Visit::is_answered);
            if world.server_end(self.all[index].peer) == ServerEnd::Open {
                continue;
            }
            self.all[index].is_replaced |= self.takes_over(index, world, |_| true);
            // The socket may have taken nothing of a refusal, or a part.
            self.all[index].is_refused |= self.all[index].is_to_be_refused(&self.memory, now, temper);
            let visit = &self.all[index];
            // When slow users together have used up their share of the time, whoever gets behind is cut off at once.
            let timeout = temper.config.slow_user_timeout_ms * MILLISECOND;
            let is_share_used_up =
                temper.config.slow_user_policy == SlowUserPolicy::Wait && now.held_up > timeout;
            let may_be_cut_off =
                visit.was_limited || is_share_used_up || now.first > visit.sent.first || temper.errors > 0;
            if is_served && !visit.is_refused && !visit.is_replaced && !may_be_cut_off {
                return Err(format!(
                    "the connection of user {}, which asked for {:?} and was sent {:?}, is closed for nothing, between {:?} and {now:?}",
                    visit.id,
                    visit.asked,
                    visit.received.escape_ascii().to_string(),
                    visit.sent
                ));
            }
            coverage.add("resume: taken over", u64::from(visit.is_replaced));
            coverage.add("resume: cut off", u64::from(is_served && !visit.is_refused && !visit.is_replaced));
            self.all[index].is_over = true;
        }
        Ok(())
    }

    /// Whether another connection of this kind has, or may have, taken over the id of this one.
    fn takes_over(&self, index: usize, world: &World, is_one: impl Fn(&Visit) -> bool) -> bool {
        let visit = &self.all[index];
        // Whoever came before it may have logged in after it, where its login line came in pieces: it has been answered, or its
        // socket took no answer, or it had hung up before that.
        let may_be_later = |other: &Visit| match (other.answer, other.is_over) {
            (Some(_), is_over) => !is_over,
            (None, is_over) => is_over || world.unread(other.peer) == 0,
        };
        self.all.iter().enumerate().any(|(at, other)| {
            let is_later = at > index || (at < index && may_be_later(other));
            is_later && other.id == visit.id && !other.is_refused && is_one(other)
        })
    }
}

impl Visit {
    fn is_answered(&self) -> bool {
        self.answer.is_some()
    }

    fn take(
        &mut self,
        memory: &mut Memory,
        now: Bounds,
        temper: &Temper,
        coverage: &mut Coverage,
    ) -> Result<(), String> {
        while let Some(end) = self.received[self.parsed..].iter().position(|&byte| byte == b'\n') {
            let line = self.received[self.parsed..=self.parsed + end].to_vec();
            self.parsed += end + 1;
            if let Some(number) = number_of(&line) {
                self.highest = Some(number);
                let epoch = memory.epoch.clone().unwrap_or_default();
                memory.places.insert(self.id, (epoch, u128::from(number) + 1));
                continue;
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            let wrong =
                |what: &str| format!("user {} asked for {:?}, and {what}: {text:?}", self.id, self.asked);
            if line.ends_with(b"\r\n") != self.is_crlf {
                return Err(wrong("is not told so with its own line end"));
            }
            let fields: Vec<&str> = text.trim_end().split('|').collect();
            let place: u128 = fields.get(2).and_then(|place| place.parse().ok()).ok_or(wrong("was sent"))?;
            let epoch = fields[1].to_owned();
            if memory.epoch.get_or_insert_with(|| epoch.clone()) != &epoch {
                return Err(wrong("is told another epoch"));
            }
            match (fields[0], self.answer) {
                ("+", None) => {
                    if !self.may_be(place, memory, now, temper) {
                        return Err(wrong(&format!("is answered, between {:?} and {now:?}", self.sent)));
                    }
                    self.answer = Some(place);
                    coverage.add("resume: served from the journal", u64::from(place < self.sent.cursor));
                    coverage.add(
                        "resume: a snapshot at the login",
                        u64::from(now.snapshots != self.sent.snapshots),
                    );
                    memory.places.insert(self.id, (epoch, place));
                }
                ("+", Some(answer)) => {
                    coverage.count("resume: a mark");
                    if place > answer {
                        self.marked = self.marked.max(place);
                    }
                    memory.places.insert(self.id, (epoch, place));
                }
                ("-", None) => {
                    self.is_refused = true;
                    let reason = fields.get(3).copied().unwrap_or_default();
                    if !self.may_be_refused(place, reason, memory, now, temper) {
                        return Err(wrong(&format!("is refused, between {:?} and {now:?}", self.sent)));
                    }
                    coverage.count(&format!("resume: refused, {reason}"));
                    if reason == "gone" {
                        memory.places.remove(&self.id);
                    }
                }
                ("-", Some(_)) => coverage.count("resume: last words"),
                _ => return Err(wrong("was sent")),
            }
        }
        Ok(())
    }

    fn may_be(&self, place: u128, memory: &Memory, now: Bounds, temper: &Temper) -> bool {
        let least = u128::from(temper.config.first_sequence);
        let (sent, is_known) = (self.sent, now.cursor < u128::MAX);
        match &self.asked {
            Asked::Now => (sent.cursor..=now.cursor).contains(&place),
            Asked::Oldest => place >= sent.first.max(least) && (!is_known || place <= now.first.max(least)),
            Asked::At(next, epoch) => {
                place == (*next).max(least) && place >= sent.first && memory.shares(epoch, *next)
            }
        }
    }

    /// It has not been answered, and its place is gone or of another epoch.
    fn is_to_be_refused(&self, memory: &Memory, now: Bounds, temper: &Temper) -> bool {
        let Asked::At(next, epoch) = &self.asked else { return false };
        let is_gone = (*next).max(temper.config.first_sequence.into()) < now.first;
        self.answer.is_none() && (is_gone || !memory.shares(epoch, *next))
    }

    fn may_be_refused(
        &self,
        place: u128,
        reason: &str,
        memory: &Memory,
        now: Bounds,
        temper: &Temper,
    ) -> bool {
        let Asked::At(next, epoch) = &self.asked else { return false };
        let wanted = (*next).max(temper.config.first_sequence.into());
        match reason {
            "gone" => {
                memory.shares(epoch, *next)
                    && wanted < place
                    && place >= self.sent.first
                    && (now.cursor == u128::MAX || place <= now.first)
            }
            "epoch" => !memory.shares(epoch, *next) && (self.sent.cursor..=now.cursor).contains(&place),
            _ => false,
        }
    }
}
