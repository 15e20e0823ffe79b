//! The server as a child process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::line::{self, Spoken};
use crate::{Certificates, DEADLINE, Source, User};

/// A running server. It is killed when dropped, and by then it must have printed nothing on standard output
/// but its one line, and no panic.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where event sources connect; at an edge, which has none, port 0.
    pub sources: SocketAddr,
    /// Where users connect; at a sequencer, which has none, port 0.
    pub users: SocketAddr,
    /// The line that it printed when it was ready, without its end.
    pub ready: String,
    log: Arc<Log>,
    rest_of_stdout: Option<JoinHandle<String>>,
    log_reader: Option<JoinHandle<()>>,
    /// What it speaks at its addresses.
    spoken: Option<Spoken>,
    /// Where the tests run over TLS. They are gone when the last server is.
    _certificates: Option<Arc<Certificates>>,
}

#[derive(Debug, Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

impl Server {
    #[track_caller]
    pub(crate) fn new(mut child: Child, certificates: Option<Arc<Certificates>>) -> Server {
        let log = Arc::new(Log::default());
        let log_reader = follow_log(child.stderr.take().expect("standard error"), Arc::clone(&log));
        let mut stdout = BufReader::new(child.stdout.take().expect("standard output"));
        let mut ready = String::new();
        stdout.read_line(&mut ready).expect("standard output");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let sources = address(&ready, "source=").or(ready.contains("source=off").then_some(nowhere));
        let users = address(&ready, "users=").or(ready.contains("users=off").then_some(nowhere));
        let (Some(sources), Some(users)) = (sources, users) else {
            let _ = child.kill();
            log_reader.join().expect("the log's reader");
            panic!("not the line of a server that listens: {ready:?}\n{}", log.text.lock().unwrap());
        };
        let addresses: Vec<SocketAddr> = ["source=", "users=", "admin=", "stream="]
            .iter()
            .filter_map(|port| address(&ready, port))
            .collect();
        let spoken = line::note_server(&addresses, certificates.as_ref());
        let rest_of_stdout = std::thread::spawn(move || {
            let mut rest = String::new();
            stdout.read_to_string(&mut rest).expect("standard output");
            rest
        });
        Server {
            child,
            sources,
            users,
            ready: ready.trim_end_matches('\n').to_owned(),
            log,
            rest_of_stdout: Some(rest_of_stdout),
            log_reader: Some(log_reader),
            spoken: Some(spoken),
            _certificates: certificates,
        }
    }

    /// Connects an event source.
    #[track_caller]
    pub fn source(&self) -> Source {
        Source::connect(self.sources)
    }

    /// Where the clients of the stream connect.
    #[track_caller]
    pub fn stream(&self) -> SocketAddr {
        address(&self.ready, "stream=").unwrap_or_else(|| panic!("no stream port in {:?}", self.ready))
    }

    /// Connects a client of the stream and sends its request.
    #[track_caller]
    pub fn stream_client(&self, request: &str) -> User {
        let mut client = User::connect(self.stream());
        client.name = format!("stream client {request:?}");
        client.send(format!("{request}\n"));
        client
    }

    /// The same, with a client whose side of the connection takes in little.
    #[track_caller]
    pub fn narrow_stream_client(&self, request: &str) -> User {
        let mut client = User::connect_narrow(self.stream());
        client.send(format!("{request}\n"));
        client
    }

    /// Connects a user and sends its login. The server may not have seen it yet, but must have before it serves
    /// an event that is sent from now on.
    #[track_caller]
    pub fn user(&self, id: u64) -> User {
        let mut user = self.stranger();
        user.name = format!("user {id}");
        user.send(format!("{id}\r\n"));
        user
    }

    /// Returns when the kernel has told the server's side of every connection to `listener` that the other side is
    /// closed. Each processor delivers packets on its own, so a connection that is made right after another was
    /// closed may come first.
    #[track_caller]
    pub fn wait_for_hang_ups(&self, listener: SocketAddr) {
        let port = format!(":{:04X}", listener.port());
        let is_open = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, state) = (fields.next(), fields.nth(1));
            local.is_some_and(|local| local.ends_with(&port)) && state == Some("01")
        };
        let deadline = Instant::now() + DEADLINE;
        while std::fs::read_to_string("/proc/net/tcp").expect("the table of sockets").lines().any(is_open) {
            assert!(Instant::now() < deadline, "connections to {listener} stay open");
            std::thread::yield_now();
        }
    }

    /// Connects to the users' port, and sends nothing yet.
    #[track_caller]
    pub fn stranger(&self) -> User {
        User::connect(self.users)
    }

    /// Connects a user whose side of the connection takes in little: it gets behind soon.
    #[track_caller]
    pub fn narrow_user(&self, id: u64) -> User {
        let mut user = User::connect_narrow(self.users);
        user.name = format!("user {id}");
        user.send(format!("{id}\r\n"));
        user
    }

    /// Returns when the server has taken notice of everything that had reached it before.
    ///
    /// Two connections wait without a word until one that came after them has been accepted, logged in with
    /// garbage and been closed for it. From then on it takes a new look at the sockets to notice what they say.
    /// They log in with garbage too, one after the other: when the second is closed, the turn of the loop that
    /// closed the first, and saw everything from before, is over.
    #[track_caller]
    pub fn pass(&self) {
        let mut strangers = [self.stranger(), self.stranger(), self.stranger()];
        for stranger in strangers.iter_mut().rev() {
            // With one user too many it is closed unheard.
            stranger.offer("barrier\n");
            stranger.expect_closed();
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A figure of `/proc/PID/status`, such as `VmHWM` (KiB) or `voluntary_ctxt_switches`.
    #[track_caller]
    pub fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("/proc");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let line = line.unwrap_or_else(|| panic!("no {name} in:\n{status}"));
        line.trim().trim_end_matches(" kB").parse().expect("a figure")
    }

    /// The most memory that the server has held so far, in bytes.
    #[track_caller]
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM") * 1024
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        // A test that has failed while it waited for a line has poisoned it.
        self.log.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the log holds `text`, in capitals or not.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        self.wait_for_log_of(&[text]);
    }

    /// Waits until the log holds one of `texts`, in capitals or not.
    #[track_caller]
    pub fn wait_for_log_of(&self, texts: &[&str]) {
        let missing = |log: &mut String| {
            let log = log.to_lowercase();
            !texts.iter().any(|text| log.contains(&text.to_lowercase()))
        };
        let (log, timed_out) = {
            let log = self.log.text.lock().unwrap();
            let (log, wait) = self.log.grown.wait_timeout_while(log, DEADLINE, missing).unwrap();
            (log.clone(), wait.timed_out())
        };
        assert!(!timed_out, "the log never spoke of {texts:?}; it says:\n{log}");
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).expect("a signal sent");
    }

    /// Stops the process in its tracks while `arrange` runs, so that everything arranged meets it in one turn.
    #[track_caller]
    pub fn while_frozen<T>(&self, arrange: impl FnOnce() -> T) -> T {
        self.signal(Signal::STOP);
        let deadline = Instant::now() + DEADLINE;
        while !self.is_frozen() {
            assert!(Instant::now() < deadline, "the process does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
        let arranged = arrange();
        self.signal(Signal::CONT);
        arranged
    }

    fn is_frozen(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("/proc");
        status.lines().any(|line| line.starts_with("State:") && line.contains('T'))
    }

    /// True while the server runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child's status").is_none()
    }

    /// Waits until the server has ended, and gives its exit status.
    #[track_caller]
    pub fn exit_status(&mut self) -> i32 {
        let status = self.ended().expect("the server to have ended");
        status.code().unwrap_or_else(|| panic!("ended by a signal: {status}"))
    }

    /// Ends the server with SIGTERM, which must succeed, and gives the whole log.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        assert_eq!(self.exit_status(), 0, "exit status after SIGTERM; the log:\n{}", self.log());
        self.join_log();
        self.log()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("the child's status") {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    fn join_log(&mut self) {
        if let Some(reader) = self.log_reader.take() {
            reader.join().expect("the log's reader");
        }
    }
}

/// The lines of a log that a failed test shows at most: the harness cuts longer output.
const SHOWN_LINES: usize = 60;

impl Drop for Server {
    fn drop(&mut self) {
        // Before its ports are free.
        drop(self.spoken.take());
        // Whether it had ended by itself, and how: of more use than anything in its log.
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join_log();
        let rest = self.rest_of_stdout.take().map(|reader| reader.join().expect("standard output's reader"));
        if std::thread::panicking() {
            let how = match ended {
                Ok(Some(status)) => format!("had ended: {status}"),
                Ok(None) => "was running".to_owned(),
                Err(error) => error.to_string(),
            };
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let left_out = lines.len().saturating_sub(SHOWN_LINES);
            eprintln!("--- server {:?} {how}; its log, without the first {left_out} lines:", self.ready);
            eprintln!("{}\n---", lines[left_out..].join("\n"));
            return;
        }
        assert_eq!(rest.as_deref(), Some(""), "standard output is one line and nothing else");
        assert!(!self.log().contains("panicked"), "the server panicked:\n{}", self.log());
    }
}

fn follow_log(stderr: impl Read + Send + 'static, log: Arc<Log>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while stderr.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            log.text.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            log.grown.notify_all();
            line.clear();
        }
    })
}

fn address(ready: &str, key: &str) -> Option<SocketAddr> {
    ready.strip_prefix("listening ")?.split_whitespace().find_map(|word| word.strip_prefix(key))?.parse().ok()
}
