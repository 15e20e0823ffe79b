//! Decides what happens in the world: sources and users that come, go, dribble and dawdle, and what goes wrong.

use std::collections::BTreeMap;

use fortnight::internals::{
    config::Config,
    server::net::Port,
    sim::{Fault, Operation, Peer, Script, World},
    time::{MILLISECOND, Micros, SECOND},
};
use rustix::io::Errno;

use crate::{coverage::Coverage, deck::Deck, dice::Dice, options::Temper};

/// What breaks a read or a write. Not all of it is likely, but all of it is an answer that a socket can give.
const BREAKS: [Errno; 11] = [
    Errno::CONNRESET,
    Errno::PIPE,
    Errno::CONNABORTED,
    Errno::TIMEDOUT,
    Errno::NOBUFS,
    Errno::NOMEM,
    Errno::IO,
    Errno::HOSTUNREACH,
    Errno::NETDOWN,
    Errno::NETUNREACH,
    Errno::NOTCONN,
];
/// What accepting can fail with.
const NO_ACCEPT: [Errno; 9] = [
    Errno::MFILE,
    Errno::NFILE,
    Errno::NOBUFS,
    Errno::NOMEM,
    Errno::CONNABORTED,
    Errno::INTR,
    Errno::AGAIN,
    Errno::PROTO,
    Errno::PERM,
];
const NO_REGISTER: [Errno; 2] = [Errno::NOMEM, Errno::NOSPC];

/// The far end of a connection.
#[derive(Clone, Debug)]
struct End {
    peer: Peer,
    port: Port,
    /// What it is going to send.
    outbox: Vec<u8>,
    sent: u64,
    /// It has said all that it will.
    over: bool,
    /// It takes a limited number of bytes.
    slow: bool,
}

/// When what arrived, counted by [`Arrivals::clock`]: what the server can know nothing of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) clock: u64,
    /// Per source: up to which byte it had sent when.
    pub(crate) sources: BTreeMap<usize, Vec<(u64, u64)>>,
    /// Per source: up to which byte it had sent at which time. That is the time of the network: the server may have been stopped
    /// then, and may have looked at the clock before it looked at its sockets.
    pub(crate) times: BTreeMap<usize, Vec<(u64, Micros)>>,
    /// Per connection on the user port: when the end of its login line arrived.
    pub(crate) logins: BTreeMap<usize, u64>,
    /// When something last went wrong on the user port, so that a login may be noticed later than it arrived.
    pub(crate) trouble: u64,
}

/// See the module.
pub(crate) struct Chaos {
    dice: Dice,
    faults: Dice,
    temper: Temper,
    reset: bool,
    deck: Deck,
    ends: Vec<End>,
    next_at: Micros,
    /// The next thing does not wait for that, but happens in the middle of the server's turn, if it gets there.
    sneaks: bool,
    /// Things that still happen. The last ones calm everybody down.
    left: u64,
    /// The server is in the middle of a turn.
    is_amid: bool,
    signals: u64,
    calm: bool,
    /// Nothing goes wrong any more.
    faultless: bool,
    pub(crate) ended_at: Option<Micros>,
    pub(crate) arrivals: Arrivals,
    pub(crate) coverage: Coverage,
    /// What happened cannot be told in a trace.
    pub(crate) untold: bool,
}

impl Chaos {
    pub(crate) fn new(dice: &mut Dice, temper: &Temper, config: &Config) -> Chaos {
        Chaos {
            deck: Deck::new(dice.split(), temper, config),
            faults: dice.split(),
            dice: dice.split(),
            temper: temper.clone(),
            reset: config.reset_on_source_eof,
            ends: Vec::new(),
            next_at: 0,
            sneaks: false,
            left: temper.actions,
            is_amid: false,
            signals: 0,
            calm: false,
            faultless: false,
            ended_at: None,
            arrivals: Arrivals::default(),
            coverage: Coverage::default(),
            untold: false,
        }
    }

    /// How long the server oversleeps this time.
    pub(crate) fn oversleep(&mut self) -> Micros {
        if self.faultless || !self.faults.in_1000(self.temper.oversleeps) {
            return 0;
        }
        self.coverage.count("time: jump");
        self.faults.length(3 * SECOND)
    }

    /// For how long a server that never sleeps finds nothing to do, unless something happens.
    pub(crate) fn nap(&mut self) -> Micros {
        self.faults.length(SECOND)
    }

    /// Every connection that there ever was: its index, port, and whether the far end takes everything and is still there.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (usize, Port, bool, bool)> {
        self.ends.iter().map(|end| (end.peer.index(), end.port, end.over, end.slow))
    }

    fn act(&mut self, world: &mut World) {
        let sources = self.alive(Port::Source).count() as u64;
        let users = self.alive(Port::User).count() as u64;
        match self.dice.below(100) {
            0..=3 => self.connect_source(world),
            4..=14 => (0..self.temper.crowd).for_each(|_| self.connect_user(world)),
            15..=17 => self.part(Port::Source, world),
            18..=23 => self.part(Port::User, world),
            24..=34 => self.user_sends(world),
            35..=44 => self.user_takes(world),
            45..=46 => self.spurious(world),
            47..=53 if sources == 0 => self.connect_source(world),
            47..=53 if users < 3 => self.connect_user(world),
            _ => self.source_sends(world),
        }
    }

    fn alive(&self, port: Port) -> impl Iterator<Item = usize> {
        self.ends
            .iter()
            .enumerate()
            .filter(move |(_, end)| end.port == port && !end.over)
            .map(|(index, _)| index)
    }

    fn pick(&mut self, port: Port) -> Option<usize> {
        let alive: Vec<usize> = self.alive(port).collect();
        (!alive.is_empty()).then(|| self.dice.pick(&alive))
    }

    fn connect(&mut self, port: Port, world: &mut World) -> Option<usize> {
        let peer = world.connect(port)?;
        self.arrivals.clock += 1;
        self.ends.push(End { peer, port, outbox: Vec::new(), sent: 0, over: false, slow: false });
        Some(self.ends.len() - 1)
    }

    fn connect_source(&mut self, world: &mut World) {
        if self.reset && self.alive(Port::Source).next().is_none() && self.dice.in_1000(800) {
            self.deck.restart();
        }
        if self.connect(Port::Source, world).is_some() && self.dice.in_1000(500) {
            self.source_sends(world);
        }
    }

    fn connect_user(&mut self, world: &mut World) {
        let Some(index) = self.connect(Port::User, world) else {
            return;
        };
        let end = self.dice.pick(&["\n", "\r\n"]);
        let id = match self.dice.below(40) {
            0 => u64::MAX,
            1 => 1 << 32,
            2 => 1 << 20,
            _ => self.dice.below(self.temper.ids),
        };
        let mut login = format!("{id}{end}").into_bytes();
        if self.dice.in_1000(self.temper.strangers) {
            login = match self.dice.below(6) {
                0 => format!("{id:070}{end}").into_bytes(),
                1 => format!("{id:062}{end}").into_bytes(),
                2 => b"\n".to_vec(),
                3 => b"seven\r\n".to_vec(),
                4 => vec![b'1'; 200],
                _ => Vec::new(),
            };
        }
        if self.dice.in_1000(50) {
            // More than is read of one user at once.
            login.resize(login.len() + self.dice.length(150_000) as usize, b'x');
        }
        self.ends[index].outbox = login;
        self.ends[index].slow = self.dice.in_1000(self.temper.slow);
        if self.ends[index].slow {
            let limit = self.dice.below(200);
            world.limit_outbound(self.ends[index].peer, limit);
        }
        if self.dice.in_1000(800) {
            let all = self.ends[index].outbox.len();
            self.send(index, all, world);
        }
    }

    /// Sends up to `most` bytes of what a connection has to say.
    fn send(&mut self, index: usize, most: usize, world: &mut World) {
        let end = &mut self.ends[index];
        let len = end.outbox.len().min(most);
        let bytes: Vec<u8> = end.outbox.drain(..len).collect();
        if world.send(end.peer, &bytes) == 0 {
            return;
        }
        end.sent += len as u64;
        self.arrivals.clock += 1;
        let (peer, clock) = (end.peer.index(), self.arrivals.clock);
        if end.port == Port::Source {
            let at = if self.is_amid { world.now() } else { self.next_at.min(world.now()) };
            self.arrivals.times.entry(peer).or_default().push((end.sent, at));
            self.arrivals.sources.entry(peer).or_default().push((end.sent, clock));
        } else if bytes.contains(&b'\n') {
            self.arrivals.logins.entry(peer).or_insert(clock);
        }
    }

    fn source_sends(&mut self, world: &mut World) {
        let Some(index) = self.pick(Port::Source) else {
            return;
        };
        let len = self.dice.length(self.temper.burst) as usize;
        while self.ends[index].outbox.len() < len {
            let line = self.deck.line();
            self.ends[index].outbox.extend(line);
        }
        self.send(index, len, world);
    }

    fn user_sends(&mut self, world: &mut World) {
        let Some(index) = self.pick(Port::User) else {
            return;
        };
        if self.ends[index].outbox.is_empty() {
            self.ends[index].outbox = vec![b'x'; self.dice.length(30) as usize];
        }
        let len = if self.dice.in_1000(500) { usize::MAX } else { self.dice.length(8) as usize };
        self.send(index, len, world);
    }

    fn user_takes(&mut self, world: &mut World) {
        let Some(index) = self.pick(Port::User) else {
            return;
        };
        let peer = self.ends[index].peer;
        let all = self.dice.in_1000(if self.temper.slow == 0 { 900 } else { 300 });
        self.ends[index].slow = !all;
        let limit = if all { u64::MAX } else { world.written(peer) + self.dice.length(5000) };
        world.limit_outbound(peer, limit);
    }

    fn part(&mut self, port: Port, world: &mut World) {
        let Some(index) = self.pick(port) else {
            return;
        };
        if port == Port::Source && self.dice.in_1000(500) {
            self.send(index, usize::MAX, world);
        }
        self.ends[index].over = true;
        self.arrivals.clock += 1;
        let peer = self.ends[index].peer;
        let how = self.dice.below(3);
        self.coverage.count(["far end: finishes", "far end: closes", "far end: resets"][how as usize]);
        match how {
            0 => world.finish(peer),
            1 => world.close(peer),
            _ => world.reset(peer),
        }
    }

    /// An edge that nothing has caused.
    fn spurious(&mut self, world: &mut World) {
        let port = self.dice.pick(&[Port::Source, Port::User]);
        if let Some(index) = self.pick(port) {
            self.coverage.count("far end: nothing, and yet an edge");
            world.edge(self.ends[index].peer);
        }
    }

    /// From here on nothing goes wrong, and nearly everybody reads.
    fn calm_down(&mut self, world: &mut World) {
        self.calm = true;
        self.faultless = true;
        for index in 0..self.ends.len() {
            let everything = self.dice.in_1000(700);
            let takes = self.dice.in_1000(850);
            let End { peer, port, over, .. } = self.ends[index];
            if over {
                continue;
            }
            if port == Port::Source && everything {
                self.send(index, usize::MAX, world);
                self.ends[index].over = true;
                world.finish(peer);
            } else if port == Port::User && takes {
                self.ends[index].slow = false;
                world.limit_outbound(peer, u64::MAX);
            }
        }
        if self.dice.in_1000(self.temper.signal) {
            self.signals = if self.dice.in_1000(200) { 2 } else { 1 };
        }
    }

    fn signal(&mut self, world: &mut World) {
        self.signals -= 1;
        self.coverage.count("signal");
        world.signal();
    }

    fn schedule(&mut self, now: Micros) {
        let calm_gap = self.dice.pick(&[1, MILLISECOND, SECOND, 3 * SECOND]);
        let gap = if self.calm { calm_gap } else { self.temper.gap };
        self.sneaks = false;
        if self.calm || !self.dice.in_1000(self.temper.together) {
            self.next_at = now + self.dice.length(gap);
        } else if self.dice.in_1000(200) {
            self.next_at = now + 1;
            self.sneaks = true;
        }
    }
}

impl Script for Chaos {
    fn next_at(&mut self, _: &World) -> Option<Micros> {
        self.ended_at.is_none().then_some(self.next_at)
    }

    fn happen(&mut self, world: &mut World) {
        if self.calm && self.signals == 0 {
            self.ended_at = Some(world.now());
            return;
        }
        if self.calm {
            self.signal(world);
        } else if self.left == 0 {
            self.calm_down(world);
        } else {
            self.left -= 1;
            self.act(world);
            // Now and then in the middle of everything.
            if self.dice.in_1000(1) {
                self.left = 0;
                self.signals = self.dice.range(1..3);
                self.calm = true;
            }
        }
        self.schedule(world.now());
    }

    fn meanwhile(&mut self, world: &mut World, operation: Operation) {
        if operation == Operation::Accept(Port::User)
            && !self.faultless
            && self.faults.in_1000(self.temper.slow_logins)
        {
            // Letting users in takes its time, and more than a turn has for it.
            self.coverage.count("time: passes while users are let in");
            self.untold = true;
            let took = self.faults.length(20 * MILLISECOND);
            world.advance_to(world.now() + took);
        }
        if self.sneaks && !self.calm && matches!(operation, Operation::Read(..)) {
            self.coverage.count("far end: in the middle of a turn");
            self.is_amid = true;
            self.happen(world);
            self.is_amid = false;
        }
    }

    fn stall(&mut self) -> Micros {
        self.oversleep()
    }

    fn fault(&mut self, operation: Operation) -> Option<Fault> {
        if self.faultless {
            return None;
        }
        let (fault, name) = self.draw_fault(operation)?;
        self.coverage.count(name);
        let is_told = name.ends_with("cut") || name.ends_with("EINTR") || name.ends_with("EAGAIN");
        self.untold |= !is_told || matches!(operation, Operation::Accept(_));
        let on_users = match operation {
            Operation::Accept(port) => port == Port::User,
            Operation::Register(peer)
            | Operation::WantWrite(peer)
            | Operation::Read(peer, _)
            | Operation::Write(peer, _) => {
                self.ends.iter().any(|end| end.peer == peer && end.port == Port::User)
            }
        };
        if let Operation::Read(peer, _) = operation {
            // A socket that would block, or that gives less than was asked for, has nothing more: whatever the network has brought.
            self.arrivals.times.remove(&peer.index());
        }
        if on_users {
            self.arrivals.clock += 1;
            self.arrivals.trouble = self.arrivals.clock;
        }
        Some(fault)
    }
}

impl Chaos {
    fn draw_fault(&mut self, operation: Operation) -> Option<(Fault, &'static str)> {
        let Temper { cuts, retries, breaks, refusals, .. } = self.temper;
        let dice = &mut self.faults;
        let errno = |errno: Errno| Fault::Errno(errno.raw_os_error());
        let (len, is_read) = match operation {
            Operation::Accept(_) => {
                let failure = dice.in_1000(refusals).then(|| dice.pick(&NO_ACCEPT))?;
                let name = accept_name(failure);
                return Some((errno(failure), name));
            }
            Operation::Register(_) => {
                let failure = dice.in_1000(refusals).then(|| dice.pick(&NO_REGISTER))?;
                return Some((errno(failure), "register: ENOMEM or ENOSPC"));
            }
            Operation::WantWrite(_) => {
                let failure = dice.in_1000(refusals / 4).then(|| dice.pick(&NO_REGISTER))?;
                return Some((errno(failure), "change of interest: ENOMEM or ENOSPC"));
            }
            Operation::Read(_, len) => (len, true),
            Operation::Write(_, len) => (len, false),
        };
        let side = |read: &'static str, write: &'static str| if is_read { read } else { write };
        if dice.in_1000(cuts) {
            return Some((
                Fault::Cut(dice.length(len.min(3000) as u64) as usize),
                side("read: cut", "write: cut"),
            ));
        }
        if dice.in_1000(retries) {
            return Some(if dice.in_1000(500) {
                (errno(Errno::INTR), side("read: EINTR", "write: EINTR"))
            } else {
                (errno(Errno::AGAIN), side("read: EAGAIN", "write: EAGAIN"))
            });
        }
        if dice.in_1000(breaks) {
            let which = dice.below(BREAKS.len() as u64) as usize;
            let names = if is_read { READ_BREAKS } else { WRITE_BREAKS };
            return Some((errno(BREAKS[which]), names[which]));
        }
        None
    }
}

/// As [`BREAKS`].
pub(crate) const READ_BREAKS: [&str; 11] = [
    "read: ECONNRESET",
    "read: EPIPE",
    "read: ECONNABORTED",
    "read: ETIMEDOUT",
    "read: ENOBUFS",
    "read: ENOMEM",
    "read: EIO",
    "read: EHOSTUNREACH",
    "read: ENETDOWN",
    "read: ENETUNREACH",
    "read: ENOTCONN",
];
/// As [`BREAKS`].
pub(crate) const WRITE_BREAKS: [&str; 11] = [
    "write: ECONNRESET",
    "write: EPIPE",
    "write: ECONNABORTED",
    "write: ETIMEDOUT",
    "write: ENOBUFS",
    "write: ENOMEM",
    "write: EIO",
    "write: EHOSTUNREACH",
    "write: ENETDOWN",
    "write: ENETUNREACH",
    "write: ENOTCONN",
];
/// As [`NO_ACCEPT`].
pub(crate) const ACCEPT_FAILURES: [&str; 9] = [
    "accept: EMFILE",
    "accept: ENFILE",
    "accept: ENOBUFS",
    "accept: ENOMEM",
    "accept: ECONNABORTED",
    "accept: EINTR",
    "accept: EAGAIN",
    "accept: EPROTO",
    "accept: EPERM",
];

fn accept_name(failure: Errno) -> &'static str {
    let which = NO_ACCEPT.iter().position(|&errno| errno == failure);
    ACCEPT_FAILURES[which.unwrap_or_default()]
}
