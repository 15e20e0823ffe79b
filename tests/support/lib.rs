//! What the black-box tests share.
//!
//! - [`launch!`] and [`server!`] start the real binary; [`Server`] knows its ports, log, signals and exit status.
//! - [`User`] and [`Source`] are its clients: blocking sockets that compare what arrives byte by byte. [`Line`] is what they speak on,
//!   in clear or, with `FORTNIGHT_TEST_TLS=1`, over TLS.
//! - [`grammar`] says what a line is, the slow way.
//! - [`model`] is what the server is compared with: sort, then loop over plain sets.
//! - [`stream`] makes byte streams and repeatable random numbers.
//!
//! No test sleeps to be safe. Every wait is for a condition and ends after [`DEADLINE`] with a report of what
//! was missing. That everything before has been served is known from a *barrier*: an event that comes later in
//! the sequence and is told to the user who is asked, or [`Server::pass`].
//!
//! ```text
//! let server = support::server!(eventTimeoutMs = -1, reorderCapacity = 16);
//! let (mut source, mut user) = (server.source(), server.user(7));
//! source.send("2|P|1|7\n1|B\n");
//! user.expect("1|B\n2|P|1|7\n");
//! ```

pub mod certificates;
mod client;
pub mod grammar;
pub mod http;
mod launch;
pub mod line;
pub mod model;
pub mod nats;
mod server;
pub mod stream;

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use certificates::Certificates;
pub use client::{Source, User};
pub use launch::{Finished, Launch, OPTIONS, private_address};
pub use line::{Line, only_in_clear, over_tls};
pub use rustix::process::Signal;
pub use server::Server;

/// How long anything may take before a test gives up. It is only ever reached by a test that fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Says that a test does nothing here, and why: at once, and in the list that `make test` prints at its end.
///
/// The name is that of the thread, which the test harness gives it.
pub fn skipped(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    // Not by `eprintln!`, which the harness shows only where a test fails.
    let _ = std::io::stderr().write_all(format!("skipped: {line}").as_bytes());
    if let Some(file) = std::env::var_os(SKIPPED).filter(|file| !file.is_empty()) {
        let list = OpenOptions::new().append(true).create(true).open(&file);
        let written = list.and_then(|mut list| list.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("{SKIPPED}: {}: {error}", file.display()));
    }
}

/// The variable that names the file with the list of skipped tests.
const SKIPPED: &str = "FORTNIGHT_SKIPPED_TESTS";

/// Raises this process's own limit of open files as far as the system allows, and gives what it is then.
pub fn raise_own_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // If that fails, the limit is what it was.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Prepares a start of the server with the given options: `launch!(eventTimeoutMs = -1)`.
///
/// Gives a [`Launch`]. Both ports are free ones unless they are set.
#[macro_export]
macro_rules! launch {
    ($($option:ident = $value:expr),* $(,)?) => {
        $crate::Launch::new(env!("CARGO_BIN_EXE_fortnight"))$(.set(stringify!($option), &$value))*
    };
}

/// Starts the server with the given options and waits until it listens: `server!(eventTimeoutMs = -1)`.
///
/// Gives a [`Server`].
#[macro_export]
macro_rules! server {
    ($($options:tt)*) => {
        $crate::launch!($($options)*).start()
    };
}
