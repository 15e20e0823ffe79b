//! A run in which everybody resumes: sources that honour acknowledgements, users that come back with what they have, and, where
//! that is asked for, a server that is killed and started again.
//!
//! It knows the promises of docs/SPEC.md sections 8 to 10 and nothing of how they are kept. A user's stream over all of its
//! connections must be, byte for byte, what it would have received over one. The run ends when every number has been
//! acknowledged and every user has everything.

mod source;

use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::book::Book;
use crate::drive::{Failure, Progress};
use crate::fault::{Class, Fault};
use crate::process::{Addresses, cpu_ns, memory_bytes};
use crate::reader::Reader;
use crate::report::Figures;
use crate::settings::Settings;
use source::Sources;

/// One read of a user.
const READ_MAX: usize = 256 << 10;
/// How long the loop sleeps where nothing is ready.
const TICK: Duration = Duration::from_millis(2);
/// How often the progress is told.
const TOLD_EVERY: Duration = Duration::from_millis(100);

/// Kills the server and starts it again; says where it listens then, and its process id.
pub type Restart<'a> = &'a mut dyn FnMut() -> Result<(Addresses, u32), String>;

/// Makes the run. The book must be complete: what is not acknowledged is sent again.
///
/// # Errors
/// The first fault, or why the run could not be made.
pub fn run<'a>(
    settings: &'a Settings,
    book: &mut Book,
    restart: Restart<'a>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Figures, Failure> {
    if !book.is_complete() {
        return Err(Failure::Failed(
            "resume: the run does not fit into memory; accepted is a smaller totalEvents or a larger memory"
                .into(),
        ));
    }
    let mut run = Run::new(settings, restart)?;
    run.log_in(book)?;
    run.go(book, progress)?;
    Ok(run.figures)
}

struct Run<'a> {
    settings: &'a Settings,
    restart: Restart<'a>,
    addresses: Addresses,
    pid: Option<u32>,
    poll: Poll,
    events: Events,
    sources: Sources,
    readers: Vec<Reader>,
    buffer: Vec<u8>,
    figures: Figures,
    started: Instant,
    /// When anything was last received or sent.
    moved: Instant,
    killed: Instant,
    told: Instant,
    cpu_before: (u64, u64),
}

impl<'a> Run<'a> {
    fn new(settings: &'a Settings, restart: Restart<'a>) -> Result<Run<'a>, Failure> {
        let load = &settings.load;
        let poll = Poll::new().map_err(|error| Failure::Failed(format!("epoll: {error}")))?;
        let readers = load.ids().into_iter().enumerate().map(|(slot, id)| {
            let comes_and_goes = slot as u64 >= load.connected;
            let stay = comes_and_goes.then_some(settings.churn_stay);
            Reader::new((slot, id), Token(load.sources + slot), load.seed, stay)
        });
        let now = Instant::now();
        Ok(Run {
            settings,
            restart,
            addresses: settings.addresses,
            pid: settings.pid,
            poll,
            events: Events::with_capacity(4096),
            sources: Sources::new(load.sources, settings.rate),
            readers: readers.collect(),
            buffer: vec![0; READ_MAX],
            figures: Figures { prepared: true, ..Figures::default() },
            started: now,
            moved: now,
            killed: now,
            told: now,
            cpu_before: (settings.pid.and_then(cpu_ns).unwrap_or(0), cpu_ns(std::process::id()).unwrap_or(0)),
        })
    }

    /// Connects all users and waits until the server has answered each: nothing is sent before.
    fn log_in(&mut self, book: &mut Book) -> Result<(), Failure> {
        self.come_and_go(Instant::now())?;
        while !self.readers.iter().all(Reader::is_answered) {
            self.wait()?;
            self.read(book)?;
            self.give_up_on_silence(book)?;
        }
        self.started = Instant::now();
        self.killed = self.started;
        Ok(())
    }

    fn go(&mut self, book: &mut Book, progress: &mut dyn FnMut(Progress)) -> Result<(), Failure> {
        let end = book.end();
        let last = end.checked_sub(1).and_then(|last| book.built(last)).map_or(0, |block| block.end_seq);
        loop {
            let now = Instant::now();
            self.kill_if_due(now)?;
            self.sources
                .connect((&self.settings.access, self.addresses.source), self.poll.registry())
                .or_else(unreachable("source"))?;
            self.come_and_go(now)?;
            self.wait()?;
            let sent = self
                .sources
                .serve(book, Instant::now())
                .map_err(|detail| Failure::Fault(Box::new(Fault::plain(Class::Lost, None, 0, detail))))?;
            if self.read(book)? || sent {
                self.moved = Instant::now();
            }
            if self.sources.are_done(last) && self.readers.iter_mut().all(|reader| reader.has_all(book, end))
            {
                self.stop_clock(book);
                progress(self.progress(book));
                return Ok(());
            }
            self.give_up_on_silence(book)?;
            if now - self.told >= TOLD_EVERY {
                self.told = now;
                progress(self.progress(book));
            }
        }
    }

    fn kill_if_due(&mut self, now: Instant) -> Result<(), Failure> {
        let Some(every) = self.settings.kill_every else { return Ok(()) };
        if now - self.killed < every {
            return Ok(());
        }
        self.figures.server_cpu_ns =
            Some(self.figures.server_cpu_ns.unwrap_or(0) + self.pid.and_then(cpu_ns).unwrap_or(0));
        let (addresses, pid) = (self.restart)().map_err(Failure::Failed)?;
        (self.addresses, self.pid) = (addresses, Some(pid));
        self.cpu_before.0 = 0;
        self.figures.kills += 1;
        self.sources.hang_up();
        // What the server had sent before it was killed is read, as any client would.
        self.killed = Instant::now();
        self.moved = self.killed;
        Ok(())
    }

    fn come_and_go(&mut self, now: Instant) -> Result<(), Failure> {
        let at = (&self.settings.access, self.addresses.users);
        let registry = self.poll.registry();
        self.readers
            .iter_mut()
            .try_for_each(|reader| reader.come_and_go(at, now, registry))
            .or_else(unreachable("user"))
    }

    fn wait(&mut self) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, Some(TICK)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(Failure::Failed(format!("epoll: {error}")));
            }
            _ => {}
        }
        let sources = self.settings.load.sources;
        for event in &self.events {
            let Token(token) = event.token();
            let readable = event.is_readable() || event.is_read_closed() || event.is_error();
            match token.checked_sub(sources) {
                None => self.sources.wake(token, readable, event.is_writable()),
                Some(slot) => self.readers[slot].wake(),
            }
        }
        Ok(())
    }

    /// Reads from everybody what is there. True if that was anything.
    fn read(&mut self, book: &mut Book) -> Result<bool, Failure> {
        let before: u64 = self.readers.iter().map(|reader| reader.bytes).sum();
        for reader in &mut self.readers {
            while reader.read(&mut self.buffer, book, &self.settings.load)? {}
        }
        let after: u64 = self.readers.iter().map(|reader| reader.bytes).sum();
        if after != before {
            self.moved = Instant::now();
        }
        Ok(after != before)
    }

    fn give_up_on_silence(&self, book: &Book) -> Result<(), Failure> {
        if self.moved.elapsed() <= self.settings.timeout {
            return Ok(());
        }
        let detail = format!(
            "nothing was sent or received for {} ms; {} is the newest acknowledgement",
            self.settings.timeout.as_millis(),
            self.sources.acknowledged()
        );
        let fault = match self.readers.iter().min_by_key(|reader| reader.at()) {
            Some(reader) => reader.stalled(book, detail),
            None => Fault::plain(Class::Stalled, None, 0, detail),
        };
        Err(Failure::Fault(Box::new(fault)))
    }

    fn progress(&self, book: &Book) -> Progress {
        Progress::Running {
            events: self.sources.acknowledged().saturating_sub(self.settings.load.first_sequence),
            deliveries: self.readers.iter().map(|reader| reader.deliveries(book)).sum(),
            bytes: self.readers.iter().map(|reader| reader.bytes).sum(),
            elapsed: self.started.elapsed(),
        }
    }

    fn stop_clock(&mut self, book: &Book) {
        let users = self.readers.len() as u64;
        let figures = &mut self.figures;
        figures.seconds = self.started.elapsed().as_secs_f64();
        figures.events =
            (0..book.end()).filter_map(|block| book.built(block)).map(|block| u64::from(block.events)).sum();
        figures.source_bytes = self.sources.bytes;
        figures.deliveries = self.readers.iter().map(|reader| reader.deliveries(book)).sum();
        figures.bytes = self.readers.iter().map(|reader| reader.bytes).sum();
        figures.cut_lines = self.readers.iter().map(|reader| reader.cut_lines).sum();
        figures.resumes = self.readers.iter().map(|reader| reader.logins).sum::<u64>() - users;
        if let Some(cpu) = self.pid.and_then(cpu_ns) {
            figures.server_cpu_ns = Some(figures.server_cpu_ns.unwrap_or(0) + cpu - self.cpu_before.0);
        }
        figures.server_peak_bytes = self.pid.and_then(|pid| memory_bytes(pid, "VmHWM"));
        figures.tool_cpu_ns = cpu_ns(std::process::id()).unwrap_or(0) - self.cpu_before.1;
        figures.tool_peak_bytes = memory_bytes(std::process::id(), "VmHWM").unwrap_or(0);
    }
}

fn unreachable(who: &'static str) -> impl Fn(io::Error) -> Result<(), Failure> {
    move |error| Err(Failure::Failed(format!("a {who} could not connect to the server: {error}")))
}
