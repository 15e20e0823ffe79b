//! An event source: `source [OPTIONS] NAME HOST:PORT [HOST:PORT...] < EVENTS`
//!
//! Standard input has one event a line, without its number: `B`, `P|32|56`. The first line gets number FIRST (1), the
//! next one FIRST + 1, and so on. Every event is kept until the server has acknowledged it. After any failure the
//! program connects again, to the next address, and goes on from the first number that is not acknowledged. Started
//! again with the same input, it goes on there as well. It ends with exit status 0 when everything is acknowledged.
//! Options:
//!
//! - `--first N`: number of the first line;
//! - `--timeout SECONDS`: connects again when something is unacknowledged and no answer came for so long (90); 0: never.
//!
//! The standard library has no TLS: docs/clients.md says what to do where the server speaks it.
//!
//! See docs/SPEC.md, section 9. It needs nothing but the standard library.

use std::{
    collections::VecDeque,
    env,
    error::Error,
    fmt,
    hash::{BuildHasher, RandomState},
    io::{self, BufRead, BufReader, ErrorKind, Write},
    net::{Shutdown, TcpStream, ToSocketAddrs},
    process::exit,
    sync::{Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

/// Events that are kept at once; standard input is not read above.
const KEPT_MAX: usize = 100_000;
const LINES_AT_ONCE: usize = 1000;
const NO_TLS: &str = "Rust's standard library has no TLS. See docs/clients.md.";
/// Limit for connecting and for the first answer.
const ANSWER: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const USAGE: &str = "usage: source [--first N] [--timeout SECONDS] NAME HOST:PORT [HOST:PORT...] < EVENTS";

struct Options {
    first: u128,
    /// Limit for an answer while something is unacknowledged.
    timeout: Option<Duration>,
    name: String,
    addresses: Vec<String>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let (mut first, mut timeout) = (1, Some(Duration::from_secs(90)));
        let mut rest = Vec::new();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--first" => first = arguments.next().ok_or(USAGE)?.parse()?,
                "--timeout" => timeout = seconds(&arguments.next().ok_or(USAGE)?)?,
                "--tls" | "--ca" => return Err(NO_TLS.into()),
                option if option.starts_with("--") => return Err(USAGE.into()),
                _ => rest.push(argument),
            }
        }
        if rest.len() < 2 {
            return Err(USAGE.into());
        }
        Ok(Self { first, timeout, name: rest.remove(0), addresses: rest })
    }
}

/// Zero stands for no limit.
fn seconds(text: &str) -> Result<Option<Duration>, Box<dyn Error>> {
    let limit = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let limit = limit.ok_or_else(|| format!("--timeout needs a number of seconds, not {text:?}"))?;
    Ok(Some(limit).filter(|limit| !limit.is_zero()))
}

/// What outlives a connection.
#[derive(Default)]
struct Source {
    /// Lines from number `low` on.
    kept: VecDeque<Vec<u8>>,
    low: u128,
    /// Standard input has no more.
    ended: bool,
    epoch: Option<String>,
    /// Every number below is dealt with.
    acknowledged: u128,
    /// Every number below has been sent in this connection.
    sent_below: u128,
    /// The connection of now has failed.
    failure: Option<String>,
}

impl Source {
    fn end(&self) -> u128 {
        self.low + self.kept.len() as u128
    }

    fn is_done(&self) -> bool {
        self.ended && self.kept.is_empty()
    }

    /// Whether something has been sent that is not acknowledged.
    fn is_owed(&self) -> bool {
        self.sent_below > self.low
    }

    /// Drops what is acknowledged.
    fn forget(&mut self) {
        while !self.kept.is_empty() && self.low < self.acknowledged {
            self.kept.pop_front();
            self.low += 1;
        }
    }

    /// Takes a line of the server. Every answer is `+|EPOCH|N`.
    fn acknowledge(&mut self, line: &str) -> Result<(), Box<dyn Error>> {
        let mut fields = line.trim_end().split('|');
        let (Some("+"), Some(epoch), Some(number)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(format!("unexpected answer {line:?}").into());
        };
        let number: u128 = number.parse()?;
        let other = self.epoch.as_deref().is_some_and(|known| known != epoch);
        if other || number < self.acknowledged {
            let known = self.epoch.as_deref().unwrap_or("none");
            fail(&format_args!(
                "The server has lost its past: epoch {known}, number {} became epoch {epoch}, number {number}. A \
                 person must decide what to send again.",
                self.acknowledged
            ));
        }
        self.epoch = Some(epoch.to_owned());
        self.acknowledged = number;
        self.forget();
        Ok(())
    }
}

/// A source, and the bell that rings when it has changed.
#[derive(Default)]
struct Shared {
    source: Mutex<Source>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Source> {
        self.source.lock().expect("no thread panics")
    }

    fn wait<'a>(
        &self,
        source: MutexGuard<'a, Source>,
        on: impl FnMut(&mut Source) -> bool,
    ) -> MutexGuard<'a, Source> {
        self.changed.wait_while(source, on).expect("no thread panics")
    }

    /// Numbers the lines of standard input.
    fn read_input(&self) {
        let mut input = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            if let Err(error) = input.read_until(b'\n', &mut line) {
                fail(&format_args!("Standard input cannot be read: {error}."));
            }
            let mut source = self.wait(self.lock(), |source| source.kept.len() >= KEPT_MAX);
            if line.is_empty() {
                source.ended = true;
                self.changed.notify_all();
                return;
            }
            while line.last().is_some_and(|byte| b"\r\n".contains(byte)) {
                line.pop();
            }
            let mut event = format!("{}|", source.end()).into_bytes();
            event.extend_from_slice(&line);
            event.push(b'\n');
            source.kept.push_back(event);
            source.forget();
            self.changed.notify_all();
        }
    }

    /// Reads one line. Where something is unacknowledged, it waits for no longer than the limit of the socket. As the
    /// limit holds for each wait from its beginning, it takes up to twice as long to notice a peer that is gone.
    fn read_line(&self, answers: &mut impl BufRead) -> Result<String, Box<dyn Error>> {
        let mut line = Vec::new();
        loop {
            let was_owed = self.lock().is_owed();
            match answers.read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => return Ok(String::from_utf8(line)?),
                Ok(_) => return Err("the server has closed the connection".into()),
                Err(error) if is_timeout(&error) && was_owed => return Err("no answer".into()),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes acknowledgements until the connection fails.
    fn read_answers(&self, answers: &mut BufReader<&TcpStream>) {
        let failure = loop {
            let result = self.read_line(answers).and_then(|line| self.lock().acknowledge(&line));
            self.changed.notify_all();
            if let Err(error) = result {
                break error.to_string();
            }
        };
        self.lock().failure = Some(failure);
        self.changed.notify_all();
        // Ends a write that waits.
        let _ = answers.get_ref().shutdown(Shutdown::Both);
    }

    /// Sends what is not acknowledged. Returns when everything is.
    fn serve(&self, stream: &TcpStream, options: &Options) -> Result<(), Box<dyn Error>> {
        let mut socket = stream;
        socket.write_all(format!("?|ack|{}\n", options.name).as_bytes())?;
        let mut answers = BufReader::new(stream);
        stream.set_read_timeout(Some(ANSWER))?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        {
            let mut source = self.lock();
            source.acknowledge(&line)?;
            source.sent_below = 0;
            source.failure = None;
        }
        stream.set_read_timeout(options.timeout)?;
        thread::scope(|scope| {
            scope.spawn(|| self.read_answers(&mut answers));
            let result = self.send(socket);
            // Ends the thread that reads.
            let _ = stream.shutdown(Shutdown::Both);
            result
        })
    }

    fn send(&self, mut socket: impl Write) -> Result<(), Box<dyn Error>> {
        loop {
            let mut source = self.wait(self.lock(), |source| {
                source.failure.is_none() && source.sent_below >= source.end() && !source.is_done()
            });
            if source.is_done() {
                return Ok(());
            }
            if let Some(failure) = &source.failure {
                return Err(failure.clone().into());
            }
            let next = source.sent_below.max(source.low);
            let start = usize::try_from(next - source.low)?;
            let lines: Vec<u8> =
                source.kept.iter().skip(start).take(LINES_AT_ONCE).flatten().copied().collect();
            source.sent_below = source.end().min(next + LINES_AT_ONCE as u128);
            drop(source);
            if let Err(error) = socket.write_all(&lines) {
                // Where the reader has ended the connection, it says why.
                return Err(self.lock().failure.clone().map_or(error.into(), Into::into));
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn fail(sentence: &dyn fmt::Display) -> ! {
    eprintln!("{sentence}");
    exit(1)
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, ANSWER) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Between a half and the whole of it, so that not all clients come back in one moment.
fn with_jitter(pause: Duration) -> Duration {
    // The standard library has no random numbers, but random keys for its hash tables.
    let random = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    pause.mul_f64(0.5 + random / 2.0)
}

fn main() {
    let options = Options::parse(env::args().skip(1)).unwrap_or_else(|error| fail(&error));
    let source = Source { low: options.first, ..Source::default() };
    let shared: &'static Shared =
        Box::leak(Box::new(Shared { source: Mutex::new(source), ..Shared::default() }));
    thread::spawn(|| shared.read_input());
    let mut pause = PAUSE_MIN;
    for address in options.addresses.iter().cycle() {
        let before = shared.lock().acknowledged;
        match connect(address).map_err(Into::into).and_then(|stream| shared.serve(&stream, &options)) {
            Ok(()) => return,
            Err(error) => eprintln!("{address}: {error}; trying again"),
        }
        let advanced = shared.lock().acknowledged > before;
        pause = if advanced { PAUSE_MIN } else { PAUSE_MAX.min(2 * pause) };
        thread::sleep(with_jitter(pause));
    }
}
