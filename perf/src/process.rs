//! Processes: starting the server under test, pinning, CPU time and memory.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPU time that all threads of a process have used, in nanoseconds. `None` if there is no such process.
pub fn cpu_ns(pid: u32) -> Option<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut total = 0;
    for task in tasks.flatten() {
        // A thread that ended meanwhile is no error.
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        total += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Some(total)
}

/// A field of `/proc/PID/status` in bytes, like `VmHWM` or `VmRSS`.
pub fn memory_bytes(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> Option<u64> {
    fs::read_dir(format!("/proc/{pid}/fd")).ok().map(|entries| entries.count() as u64)
}

/// Binds this thread, and what it starts from now on, to one core.
///
/// # Errors
/// A sentence that names the core.
pub fn pin(core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    if core < CpuSet::MAX_CPU {
        set.set(core);
    }
    sched_setaffinity(None, &set).map_err(|e| format!("core {core} is not there or not allowed: {e}"))
}

/// Raises the limit of open files as far as is allowed.
pub fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::warn!("the open-files limit could not be raised: {error}");
    }
}

/// How many of this machine's connections from the local `ports` to the port `peer` have sent something that the other
/// side's kernel has not acknowledged. `None` where the system does not tell.
///
/// A write that returned is not a write that arrived, not even over loopback: under load its packet can wait on another
/// core while later ones on other connections overtake it.
pub fn unacknowledged(ports: &HashSet<u16>, peer: u16) -> Option<usize> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(fs::read_to_string);
    let known = tables.iter().any(Result::is_ok);
    let lines = tables.iter().flatten().flat_map(|table| table.lines().skip(1));
    let waits = |line: &&str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut port = || u16::from_str_radix(fields.next()?.rsplit(':').next()?, 16).ok();
        let (Some(local), Some(remote)) = (port(), port()) else { return false };
        let queued = fields.nth(1).and_then(|queues| u64::from_str_radix(queues.split(':').next()?, 16).ok());
        remote == peer && ports.contains(&local) && queued != Some(0)
    };
    known.then(|| lines.filter(waits).count())
}

/// The addresses of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For event sources.
    pub source: SocketAddr,
    /// For users.
    pub users: SocketAddr,
}

impl Addresses {
    /// Resolves host and ports.
    ///
    /// # Errors
    /// A sentence that names the host.
    pub fn resolve(host: &str, source: u16, users: u16) -> Result<Addresses, String> {
        let one = |port| {
            let mut found = (host, port).to_socket_addrs().map_err(|e| format!("host {host}: {e}"))?;
            found.next().ok_or_else(|| format!("host {host}: it has no address"))
        };
        Ok(Addresses { source: one(source)?, users: one(users)? })
    }

    /// Reads the line `listening source=ADDRESS users=ADDRESS …`.
    pub fn from_line(line: &str) -> Option<Addresses> {
        let mut words = line.strip_prefix("listening ")?.split(' ');
        // A sequencer has no users, and an edge has no sources.
        let address = |word: &str| match word.trim() {
            "off" => Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            address => address.parse().ok(),
        };
        let source = address(words.next()?.strip_prefix("source=")?)?;
        let users = address(words.next()?.strip_prefix("users=")?)?;
        Some(Addresses { source, users })
    }
}

/// A server that this program started, and ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    how: How,
    /// Where it listens.
    pub addresses: Addresses,
}

/// How a server is started.
#[derive(Debug)]
struct How {
    command: String,
    variables: Vec<(String, String)>,
    core: Option<usize>,
    fallback: Addresses,
}

impl How {
    fn spawn(&self) -> Result<Child, String> {
        let command = &self.command;
        let words =
            shlex::split(command).ok_or_else(|| format!("spawn `{command}`: a quote is not closed"))?;
        let is_variable = |word: &&String| word.contains('=') && !word.starts_with(['/', '.', '=']);
        let assigned = words.iter().take_while(is_variable).count();
        let program =
            words.get(assigned).ok_or_else(|| format!("spawn `{command}`: there is no program in it"))?;
        let mut start = Command::new(program);
        start.args(&words[assigned + 1..]).stdin(Stdio::null()).stdout(Stdio::piped());
        start.envs(self.variables.iter().map(|(name, value)| (name, value)));
        start.envs(words[..assigned].iter().filter_map(|word| word.split_once('=')));
        let before = sched_getaffinity(None).map_err(|e| format!("affinity: {e}"))?;
        if let Some(core) = self.core {
            pin(core)?;
        }
        let started = start.spawn().map_err(|e| format!("spawn `{command}`: {e}"));
        sched_setaffinity(None, &before).map_err(|e| format!("affinity: {e}"))?;
        started
    }
}

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a server may take to print its `listening` line before the given ports are tried.
const SILENT_AFTER: Duration = Duration::from_millis(500);

impl Server {
    /// Starts `command` (words as in a shell, `NAME=value` before the program) with `variables` set, on `core` if
    /// one is given, and waits until it listens: it prints the `listening` line, or `fallback` can be connected to.
    ///
    /// # Errors
    /// A sentence that names the command and the reason.
    pub fn start(
        command: &str,
        variables: &[(String, String)],
        core: Option<usize>,
        fallback: Addresses,
    ) -> Result<Server, String> {
        let how = How { command: command.to_owned(), variables: variables.to_vec(), core, fallback };
        let mut server = Server { child: how.spawn()?, addresses: fallback, how };
        server.wait_until_listening()?;
        Ok(server)
    }

    /// Kills it (SIGKILL), and starts it again with the same command.
    ///
    /// # Errors
    /// A sentence that names the command and the reason.
    pub fn kill_and_start_again(&mut self) -> Result<(), String> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.child = self.how.spawn()?;
        self.wait_until_listening()
    }

    fn wait_until_listening(&mut self) -> Result<(), String> {
        let How { command, fallback, .. } = &self.how;
        let (found, lines) = mpsc::channel();
        let stdout = self.child.stdout.take();
        // Reads to the end, so that a server that prints a lot is never held up.
        std::thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|pipe| BufReader::new(pipe).lines()).map_while(Result::ok)
            {
                let _ = Addresses::from_line(&line).map(|addresses| found.send(addresses));
            }
        });
        let begin = Instant::now();
        loop {
            if let Ok(addresses) = lines.recv_timeout(Duration::from_millis(10)) {
                self.addresses = addresses;
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("spawn `{command}`: it ended at once with {status}"));
            }
            if begin.elapsed() > SILENT_AFTER && TcpStream::connect(fallback.users).is_ok() {
                return Ok(());
            }
            if begin.elapsed() > START_TIMEOUT {
                return Err(format!(
                    "spawn `{command}`: it did not listen within {} s",
                    START_TIMEOUT.as_secs()
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and ends it for good when it does not within five seconds.
    pub fn stop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
                let _ = kill_process(pid, Signal::TERM);
            }
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(5) && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(2));
            }
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_listening_line() {
        let got =
            Addresses::from_line("listening source=127.0.0.1:9090 users=127.0.0.1:9099 admin=off").unwrap();
        assert_eq!((got.source.port(), got.users.port()), (9090, 9099));
        assert_eq!(Addresses::from_line("listening"), None);
        assert_eq!(Addresses::from_line("listening source=x users=y"), None);
    }

    #[test]
    fn own_figures_can_be_read() {
        let pid = std::process::id();
        assert!(
            cpu_ns(pid).is_some() && memory_bytes(pid, "VmHWM").unwrap() > 0 && descriptors(pid).unwrap() > 0
        );
        assert!(cpu_ns(u32::MAX).is_none());
    }

    #[test]
    fn a_server_that_cannot_start_is_named() {
        let nowhere = Addresses::resolve("127.0.0.1", 1, 1).unwrap();
        for command in ["/nonexistent/server", "A=b", "'open", "true"] {
            let error = Server::start(command, &[], None, nowhere).unwrap_err();
            assert!(error.contains(command), "{error}");
        }
    }
}
