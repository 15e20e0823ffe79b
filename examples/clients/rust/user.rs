//! A user: `user [OPTIONS] ID HOST:PORT [HOST:PORT...]`
//!
//! Writes the user's events to standard output, each exactly once. After any failure it connects again, to the next
//! address, and goes on behind the last whole event. Options:
//!
//! - `--plain` logs in with the id alone: events from now on, and what comes while it is away is missed;
//! - `--state FILE` keeps the place in FILE, so that the next start goes on there;
//! - `--from now` (default) or `--from oldest`, which is everything that is kept: where to begin without a place;
//! - `--continue`: when the server no longer has what is missing, say so and go on, instead of ending with status 1;
//! - `--timeout SECONDS`: connects again when nothing came for so long (90); above `userMarkMs` of the server; 0: never;
//! - `--token TOKEN`: JSON Web Token, where the server asks for one.
//!
//! The standard library has no TLS: docs/clients.md says what to do where the server speaks it.
//!
//! See docs/SPEC.md, section 10. It needs nothing but the standard library.

use std::{
    env,
    error::Error,
    fmt, fs,
    hash::{BuildHasher, RandomState},
    io::{self, BufRead, BufReader, ErrorKind, Write},
    net::{TcpStream, ToSocketAddrs},
    process::exit,
    thread,
    time::Duration,
};

/// Limit for connecting and for the answer to the login.
const ANSWER: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const USAGE: &str = "usage: user [--plain | --from now|oldest] [--state FILE] [--continue] [--timeout SECONDS] \
                     [--token TOKEN] ID HOST:PORT...";
const NO_TLS: &str = "Rust's standard library has no TLS. See docs/clients.md.";

#[derive(Default)]
struct Options {
    plain: bool,
    state: Option<String>,
    from: Option<String>,
    go_on: bool,
    /// Limit for the next line.
    timeout: Option<Duration>,
    token: Option<String>,
    id: String,
    addresses: Vec<String>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self { timeout: Some(Duration::from_secs(90)), ..Self::default() };
        let mut rest = Vec::new();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--state" => options.state = Some(arguments.next().ok_or(USAGE)?),
                "--from" => options.from = Some(arguments.next().ok_or(USAGE)?),
                "--token" => options.token = Some(arguments.next().ok_or(USAGE)?),
                "--timeout" => options.timeout = seconds(&arguments.next().ok_or(USAGE)?)?,
                "--plain" => options.plain = true,
                "--continue" => options.go_on = true,
                "--tls" | "--ca" => return Err(NO_TLS.into()),
                option if option.starts_with("--") => return Err(USAGE.into()),
                _ => rest.push(argument),
            }
        }
        if rest.len() < 2 {
            return Err(USAGE.into());
        }
        options.id = rest.remove(0);
        options.addresses = rest;
        Ok(options)
    }
}

/// Zero stands for no limit.
fn seconds(text: &str) -> Result<Option<Duration>, Box<dyn Error>> {
    let limit = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let limit = limit.ok_or_else(|| format!("--timeout needs a number of seconds, not {text:?}"))?;
    Ok(Some(limit).filter(|limit| !limit.is_zero()))
}

/// The next number that is wanted, and the epoch that it belongs to. Numbers go up to 2^64.
#[derive(Clone, Default, PartialEq)]
struct Place {
    next: u128,
    epoch: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "number {} of epoch {}", self.next, self.epoch.as_deref().unwrap_or("none"))
    }
}

impl Place {
    /// Only a file that is not there means that there is no place. What else fails must not be taken for that.
    fn load(file: &str) -> Self {
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::default(),
            Err(error) => fail(&format_args!("The state file {file} cannot be read: {error}.")),
        };
        Self::parse(&text).unwrap_or_else(|| {
            fail(&format_args!("The state file {file} is damaged: it does not hold a number and an epoch."))
        })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (next, epoch) = str::from_utf8(text).ok()?.trim_end_matches('\n').split_once(' ')?;
        let is_word =
            |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '|');
        is_word(epoch).then_some(Self { next: next.parse().ok()?, epoch: Some(epoch.to_owned()) })
    }
}

/// A line of the server that is no event: `+|EPOCH|NUMBER` or `-|EPOCH|NUMBER|REASON`.
fn answer(line: &[u8]) -> Result<(Place, String), Box<dyn Error>> {
    let line = String::from_utf8_lossy(line).into_owned();
    let mut fields = line.trim_end().split('|').skip(1);
    let (Some(epoch), Some(number)) = (fields.next(), fields.next()) else {
        return Err(format!("unexpected answer {line:?}").into());
    };
    let place = Place { next: number.parse()?, epoch: Some(epoch.to_owned()) };
    Ok((place, fields.next().unwrap_or_default().to_owned()))
}

struct User {
    options: Options,
    place: Place,
    /// Events that have come and are not written out yet.
    out: Vec<u8>,
}

impl User {
    fn new(options: Options) -> Self {
        let place = options.state.as_deref().map(Place::load).unwrap_or_default();
        Self { options, place, out: Vec::new() }
    }

    /// Writes out what has come, and then the place behind it.
    fn save(&mut self) {
        let written = io::stdout().write_all(&self.out).and_then(|()| io::stdout().flush());
        self.out.clear();
        written.and_then(|()| self.save_place()).unwrap_or_else(|error| fail(&error));
    }

    fn save_place(&self) -> io::Result<()> {
        let (Some(file), Some(epoch)) = (&self.options.state, &self.place.epoch) else {
            return Ok(());
        };
        let new = format!("{file}.new");
        fs::write(&new, format!("{} {epoch}\n", self.place.next))?;
        fs::rename(new, file)
    }

    fn login(&self) -> String {
        let mut line = self.options.id.clone();
        match &self.place.epoch {
            _ if self.options.plain => {}
            Some(epoch) => line += &format!("|{}|{epoch}", self.place.next),
            None => line += &format!("|{}", self.options.from.as_deref().unwrap_or("now")),
        }
        if let Some(token) = &self.options.token {
            line += &format!("|{token}");
        }
        line + "\n"
    }

    /// Reads events until the connection ends, and says why it did.
    fn serve(&mut self, mut stream: &TcpStream) -> Result<(), Box<dyn Error>> {
        stream.write_all(self.login().as_bytes())?;
        // A plain login is not answered, and sent no marks.
        stream.set_read_timeout(if self.options.plain { None } else { Some(ANSWER) })?;
        let mut input = BufReader::with_capacity(1 << 16, stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            if let Err(error) = input.read_until(b'\n', &mut line) {
                let is_timeout = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                return Err(if is_timeout { "nothing has come".into() } else { error.into() });
            }
            if !line.ends_with(b"\n") {
                // Half a line is dropped with the connection, and sent again whole.
                return Err("the server has closed the connection".into());
            }
            match line[0] {
                b'+' => {
                    self.start(answer(&line)?.0);
                    stream.set_read_timeout(self.options.timeout)?;
                }
                b'-' => return self.refused(answer(&line)?),
                _ => self.take(&line)?,
            }
            if !input.buffer().contains(&b'\n') {
                // Before waiting for more.
                self.save();
            }
        }
    }

    fn take(&mut self, event: &[u8]) -> Result<(), Box<dyn Error>> {
        let number = event.split(|&byte| byte == b'|').next().unwrap_or_default();
        self.place.next = str::from_utf8(number)?.parse::<u128>()? + 1;
        self.out.extend_from_slice(event);
        Ok(())
    }

    /// The answer to a login, a mark, or a new run. A mark may lie below what has come: it names durable places.
    fn start(&mut self, place: Place) {
        if place.epoch != self.place.epoch || place.next > self.place.next {
            self.place = place;
        }
    }

    /// The server ends this connection. `gone` and `epoch` refuse a login.
    fn refused(&mut self, (offer, reason): (Place, String)) -> Result<(), Box<dyn Error>> {
        self.save();
        match reason.as_str() {
            "gone" | "epoch" => {
                let place = &self.place;
                if !self.options.go_on {
                    fail(&format!("The server cannot go on at {place}. It offers {offer} ({reason})."));
                }
                eprintln!("Going on at {offer} instead of {place} ({reason}).");
                self.place = offer;
            }
            // Another client has this id, and to come back would start a fight. Or the token is over.
            "replaced" | "token_expired" => {
                fail(&format_args!("The server has ended this connection for good: {reason}."))
            }
            _ => {}
        }
        Err(format!("the server has ended the connection: {reason}").into())
    }
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
    let addresses = options.addresses.clone();
    let mut user = User::new(options);
    let mut pause = PAUSE_MIN;
    for address in addresses.iter().cycle() {
        let before = user.place.clone();
        let ended = connect(address).map_err(Into::into).and_then(|stream| user.serve(&stream));
        user.save();
        if let Err(error) = ended {
            eprintln!("{address}: {error}; trying again");
        }
        pause = if user.place == before { PAUSE_MAX.min(2 * pause) } else { PAUSE_MIN };
        thread::sleep(with_jitter(pause));
    }
}
