//! `maze replay`: plays a recorded trace against a running server over real sockets, and checks what every user
//! receives against the expectation that the server's own replay has stored.
//!
//! What reached the recorded server in one order must reach this one in the same: before a user does something, the
//! server has read what sources sent; before a source sends, what users did has arrived; and a user that leaves has
//! received by then all that it is owed. Steps of one time are played users first, as the server serves them. How much a user that does not read receives is up to the kernel's buffers: what
//! it has must be right as far as it goes.

pub mod expected;
mod player;
pub mod trace;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::console::{ALL_RECEIVED, LogLevel, refuse, start_log};
use crate::process::{Addresses, Server, raise_open_files};
use expected::Expected;
use player::Player;
use trace::{Step, Trace};

/// Time between two steps that is kept even if the first was late.
const GAP_KEPT: Duration = Duration::from_millis(1);

/// Options of `maze replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayOptions {
    /// The trace
    pub trace: PathBuf,
    /// As fast as possible rather than at the recorded speed; what depends on time may come out differently
    #[arg(long)]
    pub fast: bool,
    /// Compare with what is stored in this folder, NAME.expected for NAME.trace
    #[arg(long, value_name = "DIR")]
    pub expect: Option<PathBuf>,
    /// Host of the server
    #[arg(long, env = "mazeHost", default_value = "127.0.0.1")]
    pub host: String,
    /// Its port for event sources
    #[arg(long, env = "eventListenerPort", default_value_t = 9090)]
    pub event_listener_port: u16,
    /// Its port for users
    #[arg(long, env = "clientListenerPort", default_value_t = 9099)]
    pub client_listener_port: u16,
    /// Start the server with this command and the trace's options as variables, and end it afterwards
    #[arg(long, value_name = "CMD", env = "mazeSpawn")]
    pub spawn: Option<String>,
    /// Milliseconds that a user may wait for its events
    #[arg(long, env = "timeout", default_value_t = 20_000)]
    pub timeout: u64,
    /// Milliseconds to wait at the end for anything that is too much
    #[arg(long, env = "mazeSettle", default_value_t = 100)]
    pub settle: u64,
    /// How much is said
    #[arg(long, value_enum, env = "logLevel", default_value = "info")]
    pub log_level: LogLevel,
}

/// Runs the command. Exit status 0; 1 if something is not as expected or there is no server; 2 if the trace or the
/// expectation is damaged.
pub fn replay(options: &ReplayOptions) -> ExitCode {
    start_log(options.log_level);
    let name = options.trace.display();
    let expected = match options.expect.as_deref().map(|folder| read_expected(folder, &options.trace)) {
        Some(Err(sentence)) => return refuse(&sentence),
        expected => expected.and_then(Result::ok),
    };
    let trace = File::open(&options.trace).map_err(|e| format!("cannot be read: {e}"));
    let mut trace = match trace.and_then(|file| Trace::new(BufReader::new(file))) {
        Ok(trace) => trace,
        Err(sentence) => return refuse(&format!("{name}: {sentence}")),
    };
    match play(options, &mut trace, expected.as_ref()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(Failure::Trace(sentence)) => refuse(&format!("{name}: {sentence}")),
        Err(Failure::Other(sentence)) => {
            eprintln!("maze: {sentence}");
            ExitCode::from(1)
        }
    }
}

/// Why a replay came to nothing.
pub(crate) enum Failure {
    /// The trace is damaged.
    Trace(String),
    /// There is no server, or it cannot be reached.
    Other(String),
}

fn read_expected(folder: &Path, trace: &Path) -> Result<HashMap<u64, Expected>, String> {
    let file = folder.join(trace.file_name().unwrap_or_default()).with_extension("expected");
    let text =
        fs::read_to_string(&file).map_err(|e| format!("expect: cannot read {}: {e}", file.display()))?;
    expected::parse(&text).map_err(|sentence| format!("{}: {sentence}", file.display()))
}

fn play(
    options: &ReplayOptions,
    trace: &mut Trace<BufReader<File>>,
    expected: Option<&HashMap<u64, Expected>>,
) -> Result<bool, Failure> {
    raise_open_files();
    let given = Addresses::resolve(&options.host, options.event_listener_port, options.client_listener_port)
        .map_err(Failure::Other)?;
    let server = options.spawn.as_ref().map(|command| Server::start(command, &trace.options, None, given));
    let server = server.transpose().map_err(Failure::Other)?;
    let addresses = server.as_ref().map_or(given, |server| server.addresses);
    let pid = server.as_ref().map(Server::pid);
    let timeout = Duration::from_millis(options.timeout);
    let mut player =
        Player::new(addresses, pid, expected, timeout).map_err(|e| Failure::Other(e.to_string()))?;
    let begin = Instant::now();
    let mut steps = Vec::new();
    let mut last = (0, begin);
    while next_steps(trace, &mut steps).map_err(Failure::Trace)? {
        let at = steps[0].at;
        if !options.fast {
            // A step that is late does not take the time from the next one that the server needs to do its work.
            let gap = Duration::from_micros(at - last.0).min(GAP_KEPT);
            player.pump_until((begin + Duration::from_micros(at)).max(last.1 + gap));
        }
        for step in steps.drain(..) {
            player.perform(step.action).map_err(Failure::Trace)?;
        }
        last = (at, Instant::now());
    }
    player.finish(Duration::from_millis(options.settle));
    let seconds = begin.elapsed().as_secs_f64();
    Ok(tell(&player, expected, seconds))
}

/// Reads the steps of the next time there is. They have reached the server together: it serves users first.
fn next_steps(trace: &mut Trace<BufReader<File>>, steps: &mut Vec<Step>) -> Result<bool, String> {
    while let Some(step) = trace.peek_step()? {
        if steps.first().is_some_and(|first| first.at != step.at) {
            break;
        }
        steps.extend(trace.next_step()?);
    }
    steps.sort_by_key(|step| step.action.as_ref().is_none_or(|(id, _)| id.source));
    Ok(!steps.is_empty())
}

/// Prints what came of it; says whether that is as expected.
fn tell(player: &Player, expected: Option<&HashMap<u64, Expected>>, seconds: f64) -> bool {
    let mut wrong = 0;
    for user in player.users() {
        println!("user {} {} bytes digest {:016x}", user.number, user.received.bytes, user.received.digest());
        let Some(expected) = expected else { continue };
        let difference = match expected.get(&user.number) {
            None => Some(("all of it".to_owned(), "no such user".to_owned(), "a user".to_owned())),
            Some(expected) => expected.compare(user.received, user.exact).or_else(|| {
                let tell = |closed| if closed { "closed by the server" } else { "open" }.to_owned();
                let differs = user.exact && !user.left && expected.closed != user.closed;
                differs.then(|| ("its end".to_owned(), tell(expected.closed), tell(user.closed)))
            }),
        };
        if let Some((place, expected, got)) = difference {
            println!("user {}, {place}\n    expected {expected}\n    got      {got}", user.number);
            wrong += 1;
        }
    }
    eprintln!("{} users in {seconds:.3} s", player.users().count());
    match (expected, wrong) {
        (None, _) => true,
        (Some(_), 0) => {
            eprintln!("{ALL_RECEIVED}");
            true
        }
        (Some(_), wrong) => {
            eprintln!("maze: {wrong} users did not receive what is expected");
            false
        }
    }
}
