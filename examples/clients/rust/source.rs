//! An event source: `source [--first N] NAME HOST:PORT [HOST:PORT...] < EVENTS`
//!
//! Standard input has one event a line, without its number: `B`, `P|32|56`. The first line gets number FIRST (1), the
//! next one FIRST + 1, and so on. Every event is kept until the server has acknowledged it. After any failure the
//! program connects again, to the next address, and goes on from the first number that is not acknowledged. Started
//! again with the same input, it goes on there as well. It ends with exit status 0 when everything is acknowledged.
//!
//! See docs/SPEC.md, section 9. It needs nothing but the standard library.

use std::{
    collections::VecDeque,
    env,
    error::Error,
    io::{self, BufRead, BufReader, Write},
    net::{Shutdown, TcpStream, ToSocketAddrs},
    process::exit,
    sync::{Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

/// Events that are kept at once; standard input is not read above.
const KEPT_MAX: usize = 100_000;
const LINES_AT_ONCE: usize = 1000;
/// Limit for connecting and for the first answer.
const ANSWER: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

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
            eprintln!(
                "The server has lost its past: epoch {known}, number {} became epoch {epoch}, number {number}. A person \
                 must decide what to send again.",
                self.acknowledged
            );
            exit(1);
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
            let read = input.read_until(b'\n', &mut line);
            let mut source = self.wait(self.lock(), |source| source.kept.len() >= KEPT_MAX);
            if line.is_empty() || read.is_err() {
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

    /// Takes acknowledgements until the connection fails.
    fn read_answers(&self, answers: &mut impl BufRead) {
        let failure = loop {
            let mut line = String::new();
            let result = match answers.read_line(&mut line) {
                Ok(0) => Err("the server has closed the connection".into()),
                Ok(_) => self.lock().acknowledge(&line),
                Err(error) => Err(error.into()),
            };
            self.changed.notify_all();
            if let Err(error) = result {
                break error.to_string();
            }
        };
        self.lock().failure = Some(failure);
        self.changed.notify_all();
    }

    /// Sends what is not acknowledged. Returns when everything is.
    fn serve(&self, stream: &TcpStream, name: &str) -> Result<(), Box<dyn Error>> {
        let mut socket = stream;
        socket.write_all(format!("?|ack|{name}\n").as_bytes())?;
        let mut answers = BufReader::new(stream);
        stream.set_read_timeout(Some(ANSWER))?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        self.lock().acknowledge(&line)?;
        stream.set_read_timeout(None)?;
        self.lock().failure = None;
        thread::scope(|scope| {
            scope.spawn(|| self.read_answers(&mut answers));
            let result = self.send(socket);
            // Ends the thread that reads.
            let _ = stream.shutdown(Shutdown::Both);
            result
        })
    }

    fn send(&self, mut socket: impl Write) -> Result<(), Box<dyn Error>> {
        let mut next = 0; // to be sent
        loop {
            let source = self.wait(self.lock(), |source| {
                source.failure.is_none() && next >= source.end() && !source.is_done()
            });
            if source.is_done() {
                return Ok(());
            }
            if let Some(failure) = &source.failure {
                return Err(failure.clone().into());
            }
            next = next.max(source.low);
            let start = usize::try_from(next - source.low)?;
            let lines: Vec<u8> =
                source.kept.iter().skip(start).take(LINES_AT_ONCE).flatten().copied().collect();
            next = source.end().min(next + LINES_AT_ONCE as u128);
            drop(source);
            socket.write_all(&lines)?;
        }
    }
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

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    let mut source = Source { low: 1, ..Source::default() };
    if arguments.len() > 1 && arguments[0] == "--first" {
        source.low = arguments[1].parse()?;
        arguments.drain(..2);
    }
    let (Some(name), Some(addresses)) =
        (arguments.first(), arguments.get(1..).filter(|rest| !rest.is_empty()))
    else {
        return Err("usage: source [--first N] NAME HOST:PORT [HOST:PORT...] < EVENTS".into());
    };
    let shared: &'static Shared =
        Box::leak(Box::new(Shared { source: Mutex::new(source), ..Shared::default() }));
    thread::spawn(|| shared.read_input());
    let mut pause = PAUSE_MIN;
    for address in addresses.iter().cycle() {
        let before = shared.lock().acknowledged;
        match connect(address).map_err(Into::into).and_then(|stream| shared.serve(&stream, name)) {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("{address}: {error}; trying again"),
        }
        let advanced = shared.lock().acknowledged > before;
        pause = if advanced { PAUSE_MIN } else { PAUSE_MAX.min(2 * pause) };
        thread::sleep(pause);
    }
    Ok(())
}
