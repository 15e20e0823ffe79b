//! A small correct server, with faults that can be switched on, and a way to run `maze` against it.
//!
//! It is written for clarity: one thread, maps and sets, a line at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// What the server does wrong. Faults of one user concern user `VICTIM`'s `NTH` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misdeed {
    Nothing,
    Swap,
    Lose,
    Repeat,
    CrlfToLf,
    AddCarriageReturn,
    Alter,
    WrongUser,
    ForgetUnfollow,
    CloseUser,
    StallUser,
    ExtraAtEnd,
    CloseSource,
    StopReading,
    SecondDuplicateWins,
    KeepBrokenLinesNumber,
    LateLogin,
    GapForVisitors,
    ReplayToVisitors,
    GapAtResume,
    RepeatAtResume,
    MarkTooFar,
    AcknowledgementGoesBack,
}

pub(crate) const VICTIM: u64 = 3;
pub(crate) const NTH: u64 = 50;
/// Events in a run of these tests.
pub(crate) const EVENTS: u64 = 5000;
/// How long the server waits for missing events.
const HOLE_TIMEOUT: Duration = Duration::from_millis(1000);

pub(crate) struct Server {
    pub(crate) source: SocketAddr,
    pub(crate) users: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(misdeed: Misdeed) -> Server {
        let listen = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        let (source_listener, user_listener) = (listen(), listen());
        let stop = Arc::new(AtomicBool::new(false));
        let (source, users) = (source_listener.local_addr().unwrap(), user_listener.local_addr().unwrap());
        let state = State {
            misdeed,
            source_listener,
            user_listener,
            sources: Vec::new(),
            arriving: Vec::new(),
            users: HashMap::new(),
            follows: HashSet::new(),
            waiting: BTreeMap::new(),
            cursor: 1,
            moved: Instant::now(),
            history: Vec::new(),
            released: 0,
        };
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || state.serve(&stopped));
        Server { source, users, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

struct User {
    stream: TcpStream,
    due: Vec<u8>,
    held: Vec<u8>,
    count: u64,
    deaf_until: u64,
    stalled: bool,
    visitor: bool,
}

struct State {
    misdeed: Misdeed,
    source_listener: TcpListener,
    user_listener: TcpListener,
    sources: Vec<Source>,
    arriving: Vec<(TcpStream, Vec<u8>)>,
    users: HashMap<u64, User>,
    follows: HashSet<(u64, u64)>,
    waiting: BTreeMap<u64, Option<Vec<u8>>>,
    cursor: u64,
    moved: Instant,
    /// Every event that was released, and whom it concerned: `None` is everybody.
    history: Vec<(u64, Vec<u8>, Option<HashSet<u64>>)>,
    released: u64,
}

struct Source {
    stream: TcpStream,
    rest: Vec<u8>,
    /// The last acknowledgement, for a source that asked for them.
    acknowledged: Option<u64>,
}

/// The name of this server's sequence of events.
const EPOCH: &str = "00000000000000e0";

impl State {
    fn serve(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            while let Ok((stream, _)) = self.source_listener.accept() {
                stream.set_nonblocking(true).unwrap();
                self.sources.push(Source { stream, rest: Vec::new(), acknowledged: None });
            }
            // Bytes are taken first and users accepted then, so whoever logged in before they were sent is there.
            let lines = self.read_sources();
            if self.misdeed == Misdeed::StopReading && self.released > NTH {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            self.accept_users();
            let idle = lines.is_empty();
            for line in lines {
                self.receive(line);
            }
            self.release();
            if !self.waiting.is_empty() && self.moved.elapsed() > HOLE_TIMEOUT {
                self.cursor = *self.waiting.keys().next().unwrap();
                self.release();
            }
            if self.misdeed == Misdeed::ExtraAtEnd && self.cursor > EVENTS {
                self.misdeed = Misdeed::Nothing;
                self.users.get_mut(&VICTIM).unwrap().due.extend_from_slice(b"5001|B\r\n");
            }
            self.flush();
            self.acknowledge();
            if idle {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn read_sources(&mut self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        if self.misdeed == Misdeed::CloseSource && self.released > NTH {
            self.sources.clear();
        }
        let mut chunk = vec![0; 16 * 1024];
        self.sources.retain_mut(|source| match source.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(length) => {
                source.rest.extend_from_slice(&chunk[..length]);
                while let Some(end) = source.rest.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = source.rest.drain(..=end).collect();
                    if line.starts_with(b"?|ack") {
                        source.acknowledged = Some(0);
                    }
                    lines.push(line);
                }
                true
            }
            Err(e) => matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        });
        lines
    }

    fn accept_users(&mut self) {
        while let Ok((stream, _)) = self.user_listener.accept() {
            stream.set_nonblocking(true).unwrap();
            self.arriving.push((stream, Vec::new()));
        }
        for (mut stream, mut said) in std::mem::take(&mut self.arriving) {
            let mut chunk = [0; 64];
            match stream.read(&mut chunk) {
                Ok(0) => continue,
                Ok(length) => said.extend_from_slice(&chunk[..length]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => continue,
            }
            if !said.ends_with(b"\n") {
                self.arriving.push((stream, said));
                continue;
            }
            let said = String::from_utf8(said).unwrap();
            let words: Vec<&str> = said.trim_end().split('|').collect();
            let id: u64 = words[0].parse().unwrap();
            let visitor = self.released > 0;
            let deaf_until =
                if self.misdeed == Misdeed::LateLogin && visitor { self.cursor + 2000 } else { 0 };
            let due = match (&words[1..], self.history.len().checked_sub(2000)) {
                (["now"], _) => format!("+|{EPOCH}|{}\r\n", self.cursor).into_bytes(),
                ([next, EPOCH], _) => self.resume(id, next.parse().unwrap()),
                (_, Some(old)) if self.misdeed == Misdeed::ReplayToVisitors && visitor => {
                    self.history[old].1.clone()
                }
                _ => Vec::new(),
            };
            let user = User { stream, due, held: Vec::new(), count: 0, deaf_until, stalled: false, visitor };
            self.users.insert(id, user);
        }
    }

    /// What a user is told that comes back and wants `next`.
    fn resume(&self, id: u64, next: u64) -> Vec<u8> {
        let mut due = format!("+|{EPOCH}|{next}\r\n").into_bytes();
        let missed = self.history.iter().filter(|(number, _, told)| {
            *number >= next && told.as_ref().is_none_or(|told| told.contains(&id))
        });
        let missed: Vec<&[u8]> = missed.map(|(_, line, _)| &line[..]).collect();
        let skip = usize::from(self.misdeed == Misdeed::GapAtResume && missed.len() > 1);
        missed[skip..].iter().for_each(|line| due.extend_from_slice(line));
        if self.misdeed == Misdeed::RepeatAtResume {
            missed.iter().take(1).for_each(|line| due.extend_from_slice(line));
        }
        if self.misdeed == Misdeed::MarkTooFar {
            due.extend_from_slice(format!("+|{EPOCH}|{}\r\n", self.cursor + 100).as_bytes());
        }
        due
    }

    fn acknowledge(&mut self) {
        let back = self.misdeed == Misdeed::AcknowledgementGoesBack && self.cursor > 1000;
        let number = if back { self.cursor - 1000 } else { self.cursor };
        for source in &mut self.sources {
            if source.acknowledged.is_some_and(|last| last != number) {
                source.acknowledged = Some(number);
                let _ = source.stream.write_all(format!("+|{EPOCH}|{number}\n").as_bytes());
            }
        }
    }

    fn receive(&mut self, line: Vec<u8>) {
        let digits = line.iter().take_while(|b| b.is_ascii_digit()).count();
        let Ok(number) = std::str::from_utf8(&line[..digits]).unwrap().parse::<u64>() else { return };
        if line[digits] != b'|' || number < self.cursor {
            return;
        }
        let valid = line.len() <= 1024 && fields(&line).is_some();
        if !valid && self.misdeed == Misdeed::KeepBrokenLinesNumber {
            return;
        }
        if self.waiting.is_empty() {
            self.moved = Instant::now();
        }
        if !self.waiting.contains_key(&number) || self.misdeed == Misdeed::SecondDuplicateWins {
            self.waiting.insert(number, valid.then_some(line));
        }
    }

    fn release(&mut self) {
        while let Some(line) = self.waiting.remove(&self.cursor) {
            self.cursor += 1;
            self.released += 1;
            self.moved = Instant::now();
            if let Some(line) = line {
                self.apply(line);
            }
        }
    }

    fn apply(&mut self, line: Vec<u8>) {
        let (kind, from, to) = fields(&line).unwrap();
        let concerned: Option<HashSet<u64>> = match kind {
            'B' => None,
            'F' => {
                self.follows.insert((from, to));
                Some(HashSet::from([to]))
            }
            'P' if self.misdeed == Misdeed::WrongUser && to > 100 && self.cursor > 500 => {
                Some(HashSet::from([VICTIM]))
            }
            'P' => Some(HashSet::from([to])),
            'S' => Some(self.follows.iter().filter(|edge| edge.1 == from).map(|edge| edge.0).collect()),
            _ => {
                if self.misdeed != Misdeed::ForgetUnfollow {
                    self.follows.remove(&(from, to));
                }
                Some(HashSet::new())
            }
        };
        let (misdeed, cursor) = (self.misdeed, self.cursor);
        for (&id, user) in &mut self.users {
            if concerned.as_ref().is_none_or(|told| told.contains(&id)) {
                user.give(&line, id, misdeed, cursor);
            }
        }
        self.history.push((self.cursor - 1, line, concerned));
    }

    fn flush(&mut self) {
        self.users.retain(|_, user| {
            user.stream.set_nonblocking(false).unwrap();
            let fine = user.stream.write_all(&user.due).is_ok();
            user.due.clear();
            user.stream.set_nonblocking(true).unwrap();
            fine
        });
    }
}

impl User {
    fn give(&mut self, line: &[u8], id: u64, misdeed: Misdeed, cursor: u64) {
        if cursor <= self.deaf_until || self.stalled {
            return;
        }
        self.count += 1;
        let now = id == VICTIM && self.count == NTH;
        match misdeed {
            Misdeed::Swap if now => {
                self.held = line.to_vec();
                return;
            }
            Misdeed::Lose if now => return,
            Misdeed::GapForVisitors if self.visitor && self.count == 20 => return,
            Misdeed::Repeat if now => self.due.extend_from_slice(line),
            Misdeed::CrlfToLf if now => {
                self.due.extend_from_slice(&line[..line.len() - 2]);
                self.due.push(b'\n');
                return;
            }
            Misdeed::AddCarriageReturn if now => {
                self.due.extend_from_slice(&line[..line.len() - 1]);
                self.due.extend_from_slice(b"\r\n");
                return;
            }
            Misdeed::Alter if now => {
                let mut line = line.to_vec();
                let last = line.len() - 3;
                line[last] = if line[last] == b'7' { b'8' } else { b'7' };
                self.due.extend_from_slice(&line);
                return;
            }
            Misdeed::CloseUser if now => {
                let _ = self.stream.write_all(&std::mem::take(&mut self.due));
                let _ = self.stream.shutdown(Shutdown::Both);
                self.stalled = true;
                return;
            }
            Misdeed::StallUser if now => {
                self.stalled = true;
                return;
            }
            _ => {}
        }
        self.due.extend_from_slice(line);
        self.due.append(&mut self.held);
    }
}

fn fields(line: &[u8]) -> Option<(char, u64, u64)> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let parts: Vec<&str> = text.strip_suffix('\r').unwrap_or(text).split('|').collect();
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    match parts[..] {
        [_, "B"] => Some(('B', 0, 0)),
        [_, "S", from] => Some(('S', number(from)?, 0)),
        [_, kind @ ("F" | "U" | "P"), from, to] => Some((kind.chars().next()?, number(from)?, number(to)?)),
        _ => None,
    }
}

/// Runs `maze run` against a server with `extra` options, 5000 events and 200 users, 100 of them connected, unless they
/// say otherwise.
pub(crate) fn maze(server: &Server, extra: &[&str]) -> (Output, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maze"));
    command.args(["run", "--json", "--log-level", "off"]);
    command.args(["--event-listener-port", &server.source.port().to_string()]);
    command.args(["--client-listener-port", &server.users.port().to_string()]);
    if !extra.contains(&"--total-events") && !extra.contains(&"--duration") {
        command.args(["--total-events", &EVENTS.to_string()]);
    }
    // Few enough that everybody gets something often.
    if !extra.contains(&"--number-of-users") {
        command.args(["--number-of-users", "200"]);
    }
    let output = command.args(extra).output().unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("no JSON: {}", String::from_utf8_lossy(&output.stderr));
    });
    (output, json)
}
