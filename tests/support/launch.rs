//! How the server is started: options, variables, limits.

use std::ffi::{OsStr, OsString};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use crate::{Certificates, DEADLINE, Server, line};

/// Every option of SPEC section 4, with its default.
pub const OPTIONS: [(&str, &str); 34] = [
    ("eventSourceServerPort", "9090"),
    ("userServerPort", "9099"),
    ("eventSourceBindAddress", "127.0.0.1"),
    ("userBindAddress", "127.0.0.1"),
    ("maxEventSourceClients", "1"),
    ("maxUserClients", "1000"),
    ("eventTimeoutMs", "1000"),
    ("firstSequence", "1"),
    ("reorderCapacity", "65536"),
    ("resetOnSourceEof", "false"),
    ("maxEventBytes", "1024"),
    ("loginTimeoutMs", "10000"),
    ("userBufferBytes", "4194304"),
    ("slowUserPolicy", "wait"),
    ("slowUserTimeoutMs", "5000"),
    ("userMarkMs", "30000"),
    ("shutdownTimeoutMs", "5000"),
    ("role", "standalone"),
    ("streamPort", "off"),
    ("streamBindAddress", "127.0.0.1"),
    ("maxStreamClients", "16"),
    ("streamReplicas", "3"),
    ("streamRetentionBytes", "10737418240"),
    ("streamTakeoverMs", "15000"),
    ("journalSync", "interval"),
    ("journalSyncIntervalMs", "1000"),
    ("journalSegmentBytes", "67108864"),
    ("journalRetentionBytes", "1073741824"),
    ("restartGraceMs", "10000"),
    ("adminPort", "off"),
    ("adminBindAddress", "127.0.0.1"),
    ("logLevel", "info"),
    ("logIntervalMs", "10000"),
    ("busyPoll", "false"),
];

/// A loopback address that no other test process uses, for tests that need a port of a given number to be free.
pub fn private_address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 100 + high % 100, middle, low.clamp(1, 254))
}

/// A start of the server that is being prepared.
#[derive(Debug)]
pub struct Launch {
    binary: OsString,
    flags: Vec<OsString>,
    variables: Vec<(String, String)>,
    limit: Option<String>,
    over_tls: bool,
}

/// How a run of the program that was not kept as a server ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit status.
    pub status: i32,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Launch {
    /// A start of `binary`, or of the program that the variable `FORTNIGHT_BIN` names, which lets the suite
    /// test a program that was built or installed elsewhere. Both ports are free ones.
    pub fn new(binary: &str) -> Launch {
        let binary = std::env::var_os("FORTNIGHT_BIN").unwrap_or_else(|| binary.into());
        Launch { binary, flags: Vec::new(), variables: Vec::new(), limit: None, over_tls: false }
            .set("eventSourceServerPort", "0")
            .set("userServerPort", "0")
    }

    /// Sets an option through its environment variable.
    #[must_use]
    pub fn set(mut self, option: &str, value: &(impl ToString + ?Sized)) -> Launch {
        self.variables.retain(|(name, _)| name != option);
        self.variables.push((option.to_owned(), value.to_string()));
        self
    }

    /// Leaves an option to its default.
    #[must_use]
    pub fn unset(mut self, option: &str) -> Launch {
        self.variables.retain(|(name, _)| name != option);
        self
    }

    /// Adds an argument of the command line.
    #[must_use]
    pub fn flag(mut self, argument: impl AsRef<OsStr>) -> Launch {
        self.flags.push(argument.as_ref().to_owned());
        self
    }

    /// Limits the open files of the server, in the words of the shell's `ulimit`: `-n 64`, `-S -n 64`.
    #[must_use]
    pub fn limit(mut self, ulimit: &str) -> Launch {
        self.limit = Some(ulimit.to_owned());
        self
    }

    /// Has the server speak TLS, and all its clients here, as all do where `FORTNIGHT_TEST_TLS` is set.
    #[must_use]
    pub fn over_tls(mut self) -> Launch {
        self.over_tls = true;
        self
    }

    /// Starts the server and waits until it says that it listens.
    #[track_caller]
    pub fn start(self) -> Server {
        let (launch, certificates) = self.with_tls();
        Server::new(launch.spawn(), certificates)
    }

    /// Speaks TLS, where that is wanted, with these certificates.
    fn with_tls(mut self) -> (Launch, Option<Arc<Certificates>>) {
        let over_tls = self.over_tls || line::over_tls();
        let certificates = (over_tls && !self.knows_tls()).then(line::shared_certificates);
        if let Some(certificates) = &certificates {
            self = self
                .set("tlsCertificate", &certificates.file("server.pem"))
                .set("tlsKey", &certificates.file("server.key"))
                .set("tlsPorts", "users,sources,admin,stream");
            let stream = self.variables.iter().find(|(name, _)| name == "stream");
            if let Some(at) = stream.and_then(|(_, value)| value.strip_prefix("tcp://")).map(str::to_owned) {
                self =
                    self.set("stream", &format!("tls://{at}")).set("streamCa", &certificates.file("ca.pem"));
            }
        }
        (self, certificates)
    }

    /// Whether the test says itself what is spoken.
    fn knows_tls(&self) -> bool {
        let says = |name: &str| name.starts_with("tls") || name == "proxyProtocolFrom";
        self.variables.iter().any(|(name, _)| says(name))
    }

    /// Runs the program to its end, as an edge or a sequencer over TLS where the tests run over TLS.
    #[track_caller]
    pub fn run_role(self) -> Finished {
        let (launch, _certificates) = self.with_tls();
        launch.run()
    }

    /// Runs the program to its end.
    #[track_caller]
    pub fn run(self) -> Finished {
        self.run_beside(|_| ())
    }

    /// The same, and calls `look` with the process id, again and again.
    #[track_caller]
    pub fn run_beside(self, mut look: impl FnMut(u32)) -> Finished {
        let mut child = self.spawn();
        let deadline = Instant::now() + DEADLINE;
        while child.try_wait().expect("the child's status").is_none() {
            look(child.id());
            if Instant::now() > deadline {
                child.kill().expect("kill");
                let output = child.wait_with_output().expect("the child's output");
                panic!("still running: {}", String::from_utf8_lossy(&output.stdout));
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let output = child.wait_with_output().expect("the child's output");
        Finished {
            status: output.status.code().expect("an exit status, not a signal"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn spawn(self) -> Child {
        let mut command = match &self.limit {
            None => Command::new(&self.binary),
            Some(limit) => {
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(format!("ulimit {limit} && exec \"$0\" \"$@\"")).arg(&self.binary);
                shell
            }
        };
        for (name, _) in OPTIONS {
            command.env_remove(name);
        }
        command
            .envs(self.variables)
            .args(self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.binary.display()))
    }
}
