//! The run itself: one loop that sends, receives and checks.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::arrivals::Arrivals;
use crate::block::Builder;
use crate::book::Book;
use crate::churn::{Moment, Visitor};
use crate::cursor::{Place, sequence_of};
use crate::fault::{Class, Fault};
use crate::feed::{Feed, Pause};
use crate::process::{cpu_ns, descriptors, memory_bytes, unacknowledged};
use crate::reader::Reader;
use crate::report::{Figures, Sample};
use crate::settings::Settings;
use crate::user::{Got, Throttle, User};

/// One read of a user.
const READ_MAX: usize = 1 << 20;
/// How often waiting users, the clock and the progress are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often, at most, the system is asked whether logins have arrived.
const ASK: Duration = Duration::from_millis(50);
/// How long to wait for that at the start.
const ARRIVE: Duration = Duration::from_secs(10);

/// The progress messages of a run.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// Working out what will be sent: numbers done.
    Preparing(u64),
    /// Users connected.
    Connecting(u64),
    /// The run: events sent, deliveries checked, bytes received.
    Running {
        /// Events sent.
        events: u64,
        /// Deliveries checked.
        deliveries: u64,
        /// Bytes received.
        bytes: u64,
        /// Since the clock started.
        elapsed: Duration,
    },
}

/// Why a run ended early.
#[derive(Debug)]
pub enum Failure {
    /// The server did something wrong.
    Fault(Box<Fault>),
    /// The run could not be made.
    Failed(String),
}

impl From<Box<Fault>> for Failure {
    fn from(fault: Box<Fault>) -> Failure {
        Failure::Fault(fault)
    }
}

fn failed(what: &str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Failed(format!("{what}: {error}"))
}

/// Works out what will be sent, as far as it fits.
pub fn prepare(settings: &Settings, progress: &mut dyn FnMut(Progress)) -> Book {
    let marks =
        settings.resume || settings.rate.is_some() || settings.measure_latency || settings.load.churning > 0;
    let mut book = Book::new(Builder::new(&settings.load, settings.expect, marks));
    // A run that will not fit is not begun to be prepared: it streams through a part of the memory.
    book.prepare(1, |_| {});
    let share = book.get(0).map_or(0, |block| block.end_seq - block.first_seq).max(1);
    let whole = settings.load.events as f64 / share as f64 * book.held() as f64;
    if whole <= settings.memory as f64 {
        let first = settings.load.first_sequence;
        book.prepare(settings.memory, |seq| progress(Progress::Preparing(seq - first)));
    }
    book
}

/// Connects the users, then the sources, sends everything, and checks everything that comes. A book that is complete
/// serves any number of runs.
///
/// # Errors
/// The first fault, or why the run could not be made.
pub fn run(
    settings: &Settings,
    book: &mut Book,
    progress: &mut dyn FnMut(Progress),
) -> Result<Figures, Failure> {
    let mut drive = Drive::connect(settings, book, progress)?;
    drive.go(book, progress)?;
    drive.settle(book)?;
    Ok(drive.figures)
}

struct Drive<'a> {
    settings: &'a Settings,
    poll: Poll,
    users: Vec<User>,
    visitors: Vec<Visitor>,
    /// Those who come and go where they resume.
    readers: Vec<Reader>,
    feed: Feed,
    buffer: Vec<u8>,
    figures: Figures,
    arrivals: Option<Arrivals>,
    started: Option<Instant>,
    cpu_before: (u64, u64),
    open: usize,
    /// When anything was last sent or received.
    moved: Instant,
    /// When anything was last received.
    received: Instant,
    ticked: Instant,
    sampled: Instant,
    asked: Instant,
}

impl<'a> Drive<'a> {
    fn connect(
        settings: &'a Settings,
        book: &mut Book,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Drive<'a>, Failure> {
        let poll = Poll::new().map_err(failed("epoll"))?;
        let load = &settings.load;
        let ids = load.ids();
        let first_user = load.sources;
        let mut users = Vec::new();
        for (slot, id) in ids.iter().copied().enumerate().take(load.connected as usize) {
            // The slow ones are spread over all.
            let every = load.connected as usize / settings.slow_users.max(1);
            let slow = settings.slow_users > 0 && slot % every == 0 && slot / every < settings.slow_users;
            let throttle = slow.then(|| Throttle::new(settings.slow_rate, settings.slow_pulse));
            let at = settings.addresses.users;
            let (by, token) = ((&settings.access, at), Token(first_user + slot));
            let user = User::connect(by, (slot, id), throttle, poll.registry(), token);
            let user = user.map_err(failed(&format!("user {id} could not connect to {at}")))?;
            if settings.rate.is_some() {
                // How long a delivery takes is asked of the server, and is not to be a matter of this end's core.
                user.delay_acknowledgements().map_err(failed("TCP_QUICKACK"))?;
            }
            users.push(user);
            progress(Progress::Connecting(slot as u64 + 1));
        }
        wait_for_logins(&users, settings.addresses.users.port());
        let churners = ids.iter().copied().enumerate().skip(users.len());
        let (mut visitors, mut readers) = (Vec::new(), Vec::new());
        for (slot, id) in churners {
            let (user, token, stay) = ((slot, id), Token(first_user + slot), settings.churn_stay);
            if settings.churn_resumes {
                readers.push(Reader::new(user, token, load.seed, Some(stay)));
            } else {
                visitors.push(Visitor::new(user, token, load.seed, stay));
            }
        }
        let at = settings.addresses.source;
        let feed = Feed::connect((&settings.access, at), load.sources, settings.rate, poll.registry())
            .map_err(failed(&format!("the event source could not connect to {at}")))?;
        let now = Instant::now();
        let mut drive = Drive {
            settings,
            poll,
            open: users.len(),
            users,
            visitors,
            readers,
            feed,
            buffer: vec![0; READ_MAX],
            figures: Figures { prepared: book.is_complete(), ..Figures::default() },
            arrivals: None,
            started: None,
            cpu_before: (0, 0),
            moved: now,
            received: now,
            ticked: now,
            sampled: now,
            asked: now,
        };
        drive.greet(book)?;
        if book.get(0).is_none_or(|block| !block.preamble) {
            drive.start_clock();
        }
        Ok(drive)
    }

    /// Connects those who resume, and waits until the server has told each its place: nothing is sent before.
    fn greet(&mut self, book: &mut Book) -> Result<(), Failure> {
        let (mut events, begin) = (Events::with_capacity(1024), Instant::now());
        self.readers_come_and_go(begin)?;
        while !self.readers.iter().all(Reader::is_answered) {
            self.poll.poll(&mut events, Some(TICK)).or_else(interrupted).map_err(failed("epoll"))?;
            for event in &events {
                self.note(event)?;
            }
            for reader in &mut self.readers {
                reader.read(&mut self.buffer, book, &self.settings.load)?;
            }
            if begin.elapsed() > self.settings.timeout {
                let detail = "a login with a place was not answered".to_owned();
                return Err(Failure::Fault(Box::new(Fault::plain(Class::Stalled, None, 0, detail))));
            }
        }
        Ok(())
    }

    fn readers_come_and_go(&mut self, now: Instant) -> Result<(), Failure> {
        let at = (&self.settings.access, self.settings.addresses.users);
        let registry = self.poll.registry();
        self.readers
            .iter_mut()
            .try_for_each(|reader| reader.come_and_go(at, now, registry))
            .map_err(failed("a user could not come back"))
    }

    fn cpu(&self) -> (u64, u64) {
        let server = self.settings.pid.and_then(cpu_ns).unwrap_or(0);
        (server, cpu_ns(std::process::id()).unwrap_or(0))
    }

    fn start_clock(&mut self) {
        let now = Instant::now();
        self.cpu_before = self.cpu();
        self.started = Some(now);
        self.feed.start_clock(now);
        self.figures = Figures { prepared: self.figures.prepared, ..Figures::default() };
        if let (true, Some(rate)) = (self.settings.measure_latency, self.settings.rate) {
            self.arrivals = Some(Arrivals::new(now, rate, self.settings.expect, self.feed.block));
        }
    }

    fn go(&mut self, book: &mut Book, progress: &mut dyn FnMut(Progress)) -> Result<(), Failure> {
        let mut events = Events::with_capacity(4096);
        let mut wait = Duration::ZERO;
        let begin = Instant::now();
        self.users.iter_mut().for_each(|user| user.waits_from(begin));
        while self.open > 0 || !self.feed.finished || !self.readers_have_all(book) {
            self.poll.poll(&mut events, Some(wait)).or_else(interrupted).map_err(failed("epoll"))?;
            for event in &events {
                self.note(event)?;
            }
            let busy = self.read_all(book)?;
            let pause = self.send(book)?;
            wait = match pause {
                _ if busy || self.settings.spin || pause == Pause::Ready => Duration::ZERO,
                Pause::Until(time) => time.min(TICK),
                _ => self.longest_wait(),
            };
            let now = Instant::now();
            if now - self.ticked >= self.longest_wait() {
                self.tick(book, now, progress)?;
            }
        }
        self.stop_clock(book);
        progress(self.progress());
        Ok(())
    }

    fn readers_have_all(&mut self, book: &Book) -> bool {
        let end = book.end();
        self.readers.iter_mut().all(|reader| reader.has_all(book, end))
    }

    /// Slow readers and visitors have to be looked after in between.
    fn longest_wait(&self) -> Duration {
        let often = self.settings.slow_users > 0 || self.settings.load.churning > 0;
        if often { Duration::from_millis(5) } else { TICK }
    }

    fn note(&mut self, event: &mio::event::Event) -> Result<(), Failure> {
        let Token(token) = event.token();
        let sources = self.settings.load.sources;
        if token < sources {
            let readable = event.is_readable() || event.is_read_closed() || event.is_error();
            return self
                .feed
                .ready(token, event.is_writable(), readable)
                .map_err(|error| self.source_closed(&error));
        }
        let slot = token - sources;
        let ended = event.is_read_closed() || event.is_error();
        if let Some(user) = self.users.get_mut(slot) {
            (user.ready, user.ended) = (true, user.ended || ended);
        } else if self.settings.churn_resumes {
            self.readers[slot - self.users.len()].wake();
        } else {
            let visitor = &mut self.visitors[slot - self.users.len()];
            (visitor.ready, visitor.ended) = (true, visitor.ended || ended);
        }
        Ok(())
    }

    fn source_closed(&self, error: &io::Error) -> Failure {
        let detail = format!("{error}; {} bytes had been sent", self.feed.bytes);
        Failure::Fault(Box::new(Fault::plain(Class::SourceClosed, None, self.feed.events, detail)))
    }

    /// Reads once from everybody who has something. True if somebody may have more.
    fn read_all(&mut self, book: &mut Book) -> Result<bool, Failure> {
        let mut busy = false;
        let load = &self.settings.load;
        let mut now = Instant::now();
        for user in self.users.iter_mut().filter(|user| user.ready && !user.done) {
            let (place, lines) = (user.cursor.place, user.cursor.lines);
            match user.read(&mut self.buffer, book, load, now)? {
                Got::Nothing => {}
                Got::Bytes(length) => {
                    self.figures.bytes += length as u64;
                    self.figures.deliveries += user.cursor.lines - lines;
                    (self.moved, self.received) = (now, now);
                    if let Some(arrivals) = &mut self.arrivals {
                        now = Instant::now();
                        arrivals.note(book, user.slot, place, user.cursor.place, now);
                    }
                }
                Got::Closed if user.throttle.is_some() && !self.settings.slow_must_finish => {
                    self.figures.cut_off += 1;
                    self.figures.deliveries += user.cursor.lines_so_far(book, user.slot) - user.cursor.lines;
                    user.done = true;
                    self.open -= 1;
                }
                Got::Closed => {
                    let detail = "it had not yet received everything owed".to_owned();
                    return Err(Failure::Fault(Box::new(user.missing(Class::Closed, book, detail))));
                }
            }
            busy |= user.ready && user.throttle.is_none();
            if self.feed.finished && !user.done {
                user.cursor.skip_empty(book, user.slot, book.end());
                if user.cursor.place.block >= book.end() {
                    user.done = true;
                    self.open -= 1;
                }
            }
        }
        for visitor in self.visitors.iter_mut().filter(|visitor| visitor.ready) {
            visitor.read(&mut self.buffer, book, load)?;
            busy |= visitor.ready;
        }
        for reader in &mut self.readers {
            let before = reader.bytes;
            busy |= reader.read(&mut self.buffer, book, load)?;
            if reader.bytes > before {
                (self.moved, self.received) = (now, now);
            }
        }
        Ok(busy)
    }

    fn send(&mut self, book: &mut Book) -> Result<Pause, Failure> {
        if self.feed.finished {
            return Ok(Pause::Held);
        }
        if !self.feed.is_timed() && book.get(self.feed.block).is_some_and(|block| !block.preamble) {
            let sent = self.feed.block;
            let arrived = self.users.iter_mut().all(|user| {
                user.cursor.skip_empty(book, user.slot, sent);
                user.cursor.place.block >= sent
            });
            if !arrived {
                return Ok(Pause::Held);
            }
            self.start_clock();
        }
        let settings = self.settings;
        // Further blocks are made only while those in memory are few; two may be there for other reasons.
        let may_begin = |book: &Book, index: u64| {
            index < book.end() || book.is_finished() || book.held() < settings.memory / 4 || book.count() <= 2
        };
        let before = (self.feed.bytes, self.feed.block);
        let now = Instant::now();
        let pause = self.feed.pump(book, now, may_begin).map_err(|error| self.source_closed(&error))?;
        if self.feed.bytes != before.0 {
            self.moved = now;
        }
        if self.feed.block != before.1 || pause == Pause::Held {
            self.forget(book);
        }
        if self.feed.finished {
            self.close_finished(book);
        }
        Ok(pause)
    }

    fn close_finished(&mut self, book: &Book) {
        for user in self.users.iter_mut().filter(|user| !user.done) {
            user.cursor.skip_empty(book, user.slot, book.end());
            if user.cursor.place.block >= book.end() {
                user.done = true;
                self.open -= 1;
            }
        }
    }

    /// Gives back the blocks that nobody needs any more.
    fn forget(&mut self, book: &mut Book) {
        if book.is_complete() {
            return;
        }
        let sent = self.feed.block;
        // Those who read slowly may be far behind: what only they need is kept, and not the rest.
        let (mut needed, mut slow_need, mut slow) = (sent, sent, Vec::new());
        for user in self.users.iter_mut().filter(|user| !user.done) {
            user.cursor.skip_empty(book, user.slot, sent);
            if user.throttle.is_some() && self.settings.slow_must_finish {
                slow_need = slow_need.min(user.cursor.place.block);
                slow.push(user.slot);
            } else {
                needed = needed.min(user.cursor.place.block);
            }
        }
        let visitors = self.visitors.iter().map(Visitor::needs_from).min().unwrap_or(u64::MAX);
        for reader in &mut self.readers {
            reader.has_all(book, sent);
            needed = needed.min(reader.at().block);
        }
        // One block more is kept: a difference may begin in a line that ended there.
        let needed = needed.min(visitors).saturating_sub(1);
        if !slow.is_empty() && self.arrivals.is_none() {
            book.keep_only_before(needed, &slow);
        }
        let needed = needed.min(slow_need.saturating_sub(1));
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.forget_before(book, needed);
        }
        book.forget_before(needed);
    }

    fn tick(
        &mut self,
        book: &mut Book,
        now: Instant,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Failure> {
        let since_progress = now - self.ticked;
        self.ticked = now;
        if self.settings.slow_users > 0 {
            self.users.iter_mut().filter(|user| user.throttle.is_some()).for_each(|user| user.ready = true);
        }
        self.visit(book, now)?;
        let ends = self.settings.duration.zip(self.started).map(|(duration, started)| started + duration);
        if ends.is_some_and(|end| now >= end) {
            book.stop();
        }
        let due_later =
            self.settings.rate.is_some_and(|rate| 1.0 / rate > self.settings.timeout.as_secs_f64());
        if now - self.moved > self.settings.timeout && !due_later {
            return Err(Failure::Fault(Box::new(self.stalled(book))));
        }
        let (sent, timeout) = (self.feed.block, self.settings.timeout);
        for user in &mut self.users {
            if user.throttle.is_none() && user.waits_since(book, sent, now) > timeout {
                // Nobody getting anything is the server standing still, not one user being forgotten.
                let detail = format!("owed for more than {} ms", timeout.as_millis());
                let alone = now - self.received < timeout / 2;
                let fault =
                    if alone { user.missing(Class::Stalled, book, detail) } else { self.stalled(book) };
                return Err(Failure::Fault(Box::new(fault)));
            }
        }
        self.sample(now);
        if since_progress > Duration::ZERO {
            progress(self.progress());
        }
        Ok(())
    }

    fn stalled(&self, book: &Book) -> Fault {
        let behind = self.users.iter().filter(|user| !user.done).min_by_key(|user| user.cursor.place);
        let took =
            if self.feed.finished { "everything was sent" } else { "the server stopped reading the source" };
        let detail = format!("nobody got anything for {} ms; {took}", self.received.elapsed().as_millis());
        match behind {
            Some(user) => user.missing(Class::Stalled, book, detail),
            None if !self.readers.is_empty() => {
                let behind = self.readers.iter().min_by_key(|reader| reader.at());
                behind.expect("there is one").stalled(book, detail)
            }
            None => Fault::plain(Class::Stalled, None, self.feed.events, detail),
        }
    }

    /// Lets visitors come and go.
    fn visit(&mut self, book: &mut Book, now: Instant) -> Result<(), Failure> {
        self.readers_come_and_go(now)?;
        if self.visitors.is_empty() {
            return Ok(());
        }
        let at = self.settings.addresses.users;
        let target = (&self.settings.access, at);
        let unsure: HashSet<u16> = self.visitors.iter().filter_map(Visitor::unsure_port).collect();
        if !unsure.is_empty() && now - self.asked >= ASK {
            self.asked = now;
            if unacknowledged(&unsure, at.port()) == Some(0) {
                let unsent_from = self.feed.unsent_from(book);
                self.visitors.iter_mut().for_each(|visitor| visitor.has_arrived(unsent_from));
            }
        }
        let mut moment = None;
        for visitor in &mut self.visitors {
            visitor.leave(now, false, book);
            if visitor.wants_in(now) {
                let moment =
                    *moment.get_or_insert_with(|| released(places(&self.users), book, self.feed.block));
                visitor
                    .come(target, moment, self.poll.registry())
                    .map_err(failed("a user could not come back"))?;
            }
        }
        Ok(())
    }

    fn progress(&self) -> Progress {
        Progress::Running {
            events: self.feed.events,
            deliveries: self.figures.deliveries,
            bytes: self.figures.bytes,
            elapsed: self.started.map(|started| started.elapsed()).unwrap_or_default(),
        }
    }

    fn sample(&mut self, now: Instant) {
        if let (Some(pid), Some(every)) = (self.settings.pid, self.settings.sample_every)
            && now - self.sampled >= every
        {
            self.sampled = now;
            self.figures.samples.push(Sample {
                seconds: self.started.map_or(0.0, |started| (now - started).as_secs_f64()),
                events: self.feed.events,
                resident_bytes: memory_bytes(pid, "VmRSS").unwrap_or(0),
                descriptors: descriptors(pid).unwrap_or(0),
            });
        }
    }

    fn stop_clock(&mut self, book: &Book) {
        let (server, tool) = self.cpu();
        let figures = &mut self.figures;
        figures.seconds = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        figures.events = self.feed.events;
        figures.source_bytes = self.feed.bytes;
        figures.server_cpu_ns = self.settings.pid.map(|_| server - self.cpu_before.0);
        figures.server_peak_bytes = self.settings.pid.and_then(|pid| memory_bytes(pid, "VmHWM"));
        figures.tool_cpu_ns = tool - self.cpu_before.1;
        figures.tool_peak_bytes = memory_bytes(std::process::id(), "VmHWM").unwrap_or(0);
        figures.latency = self.arrivals.take().map(Arrivals::into_histogram);
        for visitor in &mut self.visitors {
            visitor.leave(Instant::now(), true, book);
            figures.visits += visitor.visits;
            figures.visit_deliveries += visitor.deliveries;
            figures.bytes += visitor.bytes;
        }
        for reader in &self.readers {
            figures.visits += reader.logins;
            figures.resumes += reader.logins - 1;
            figures.cut_lines += reader.cut_lines;
            figures.visit_deliveries += reader.deliveries(book);
            figures.bytes += reader.bytes;
        }
        figures.deliveries += figures.visit_deliveries;
    }

    /// Waits whether anybody is sent more than was owed.
    fn settle(&mut self, book: &mut Book) -> Result<(), Failure> {
        let end = Instant::now() + self.settings.settle;
        let mut events = Events::with_capacity(1024);
        loop {
            let now = Instant::now();
            for user in self.users.iter_mut().filter(|user| user.ready) {
                match user.read(&mut self.buffer, book, &self.settings.load, now)? {
                    Got::Closed => user.ready = false,
                    Got::Bytes(_) | Got::Nothing => {}
                }
            }
            if now >= end {
                return Ok(());
            }
            self.poll.poll(&mut events, Some(end - now)).or_else(interrupted).map_err(failed("epoll"))?;
            let sources = self.settings.load.sources;
            for event in &events {
                if let Some(user) =
                    event.token().0.checked_sub(sources).and_then(|slot| self.users.get_mut(slot))
                {
                    user.ready = true;
                }
            }
        }
    }
}

/// Waits until the server's side has all logins: those that reach it before an event are served before it.
fn wait_for_logins(users: &[User], port: u16) {
    let ports: HashSet<u16> = users.iter().filter_map(User::local_port).collect();
    let end = Instant::now() + ARRIVE;
    while unacknowledged(&ports, port).is_some_and(|missing| missing > 0) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn places(users: &[User]) -> impl Iterator<Item = (usize, Place)> + Clone {
    users.iter().map(|user| (user.slot, user.cursor.place))
}

/// What the server has surely released: what some user has received, and everything before it. Events behind the last
/// that concerned anyone may still be on their way, also where a block has ended for those users.
fn released(places: impl Iterator<Item = (usize, Place)> + Clone, book: &Book, sending: u64) -> Moment {
    let block = places.clone().map(|(_, place)| place.block).max().unwrap_or(0).min(sending);
    let last_of = |index: u64, slot: usize, end: Option<usize>| {
        let text = &book.built(index)?.text(slot).bytes;
        let text = &text[..end.unwrap_or(text.len())];
        let end = memchr::memrchr(b'\n', text)?;
        let start = memchr::memrchr(b'\n', &text[..end]).map_or(0, |at| at + 1);
        sequence_of(&text[start..])
    };
    let received = |(slot, place): (usize, Place)| {
        let here = last_of(place.block, slot, Some(place.offset));
        here.or_else(|| last_of(place.block.checked_sub(1)?, slot, None))
    };
    let latest = places.filter_map(received).max();
    Moment { earliest: latest.map_or(0, |number| number + 1), block }
}

fn interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::block::Expect;
    use crate::workload::{Shape, Workload};

    #[test]
    fn an_event_counts_as_released_only_after_a_user_has_received_it() {
        let load = Workload { events: 300_000, ..Workload::of_shape(Shape::Maze, 1.0) };
        let mut book = Book::new(Builder::new(&load, Expect::Protocol, false));
        book.prepare(u64::MAX, |_| {});
        assert!(book.end() > 2, "{} blocks", book.end());
        let mut silent_ends = 0;
        for block in 1..book.end() {
            for slot in 0..load.connected as usize {
                let place = Place { block, offset: 0 };
                let earliest = released([(slot, place)].into_iter(), &book, u64::MAX).earliest;
                let text = &book.built(block - 1).unwrap().text(slot).bytes;
                let last = text.split_inclusive(|&byte| byte == b'\n').next_back().and_then(sequence_of);
                assert_eq!(earliest, last.map_or(0, |number| number + 1), "block {block}, slot {slot}");
                silent_ends += u64::from(earliest < book.built(block).unwrap().first_seq);
            }
        }
        assert!(silent_ends > 0, "no block ends with events for nobody");
    }
}
