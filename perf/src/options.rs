//! The options of all commands. Each is a flag and an environment variable.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::access::Access;
use crate::block::Expect;
use crate::console::LogLevel;
use crate::process::Addresses;
use crate::settings::Settings;
use crate::workload::{LineEnd, Mix, Shape, Workload};

/// What is sent.
#[derive(Clone, Debug, Args)]
pub struct LoadOptions {
    /// Named workload; the options below change it
    #[arg(long, value_enum, env = "mazeShape", default_value = "maze")]
    pub shape: Shape,
    /// Shrink or stretch the shape's number of events
    #[arg(long, env = "mazeScale", default_value_t = 1.0)]
    pub scale: f64,
    /// Events to send [default: by shape, 10000000 in `maze`]
    #[arg(long, env = "totalEvents")]
    pub total_events: Option<u64>,
    /// Connected users [default: by shape, 100 in `maze`]
    #[arg(long, env = "concurrencyLevel")]
    pub concurrency_level: Option<u64>,
    /// Users, connected or not [default: concurrencyLevel * 10, or by shape]
    #[arg(long, env = "numberOfUsers")]
    pub number_of_users: Option<u64>,
    /// Seed: same seed, same bytes
    #[arg(long, env = "randomSeed", default_value_t = 666)]
    pub random_seed: u64,
    /// Events are sent in batches of random size up to this, shuffled inside the batch; 1: in order
    #[arg(long, env = "maxEventSourceBatchSize", default_value_t = 100)]
    pub max_event_source_batch_size: u64,
    /// Frequencies of the event types [default: by shape, F25,U19,B1,P30,S25 in `maze`]
    #[arg(long, env = "mazeMix")]
    pub mix: Option<Mix>,
    /// How lines end
    #[arg(long, value_enum, env = "mazeLineEnd", default_value = "crlf")]
    pub line_end: LineEnd,
    /// Share of numbers that are never sent
    #[arg(long, env = "mazeHoles", default_value_t = 0.0)]
    pub holes: f64,
    /// Share of events that are sent again, changed: the first one must stay
    #[arg(long, env = "mazeDuplicates", default_value_t = 0.0)]
    pub duplicates: f64,
    /// Share of lines that are no events, half of them with a readable number, which is used up
    #[arg(long, env = "mazeGarbage", default_value_t = 0.0)]
    pub garbage: f64,
    /// Event source connections
    #[arg(long, env = "mazeSources", default_value_t = 1)]
    pub sources: usize,
    /// Number of the first event
    #[arg(long, env = "firstSequence", default_value_t = 1)]
    pub first_sequence: u64,
    /// Users, besides those connected throughout, who come and go while events flow
    #[arg(long, env = "mazeChurn", default_value_t = 0)]
    pub churn: u64,
}

impl LoadOptions {
    /// The workload that the options describe.
    ///
    /// # Errors
    /// One sentence that names the option.
    pub fn workload(&self) -> Result<Workload, String> {
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return Err(format!("scale {}: accepted is a number above 0", self.scale));
        }
        let of_shape = Workload::of_shape(self.shape, self.scale);
        let connected = self.concurrency_level.unwrap_or(of_shape.connected);
        let users = match (self.number_of_users, self.concurrency_level) {
            (Some(users), _) => users,
            (None, Some(level)) if self.shape == Shape::Maze => level.saturating_mul(10),
            (None, Some(level)) => of_shape.users.max(level),
            (None, None) => of_shape.users,
        };
        if self.sources == 0 || self.sources > 1000 {
            return Err(format!("sources {}: accepted is 1 to 1000", self.sources));
        }
        let load = Workload {
            events: self.total_events.unwrap_or(of_shape.events),
            users,
            connected,
            churning: self.churn,
            mix: self.mix.unwrap_or(of_shape.mix),
            seed: self.random_seed,
            batch_max: self.max_event_source_batch_size.clamp(1, 1 << 24),
            line_end: self.line_end,
            holes: self.holes,
            duplicates: self.duplicates,
            garbage: self.garbage,
            sources: self.sources,
            first_sequence: self.first_sequence,
            ..of_shape
        };
        load.check()?;
        Ok(load)
    }
}

/// Where the server is, and how it is watched.
#[derive(Clone, Debug, Args)]
pub struct ServerOptions {
    /// Host of the server
    #[arg(long, env = "mazeHost", default_value = "127.0.0.1")]
    pub host: String,
    /// Its port for event sources
    #[arg(long, env = "eventListenerPort", default_value_t = 9090)]
    pub event_listener_port: u16,
    /// Its port for users
    #[arg(long, env = "clientListenerPort", default_value_t = 9099)]
    pub client_listener_port: u16,
    /// Start the server with this command, and end it afterwards. If it prints `listening source=ADDRESS
    /// users=ADDRESS`, those are used, otherwise the ports above
    #[arg(long, value_name = "CMD", env = "mazeSpawn")]
    pub spawn: Option<String>,
    /// Speak TLS with the server; PEM file with the authority that its certificate must be of. `host` is its name
    #[arg(long, value_name = "FILE", env = "mazeTlsCa")]
    pub tls_ca: Option<PathBuf>,
    /// PEM file with this tool's own certificate
    #[arg(long, value_name = "FILE", requires = "tls_ca", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Which ports speak TLS: users, sources, or both, separated by commas [default: those that the started command
    /// names, else users]
    #[arg(long, value_name = "PORTS", requires = "tls_ca")]
    pub tls_ports: Option<String>,
    /// PEM file with the Ed25519 key that signs a token for each user, as `make certs` makes it
    #[arg(long, value_name = "FILE", env = "mazeTokenKey")]
    pub token_key: Option<PathBuf>,
    /// Process id of the server: its CPU time and peak memory are measured
    #[arg(long, conflicts_with = "spawn")]
    pub pid: Option<u32>,
    /// Core for the server that is started
    #[arg(long, requires = "spawn")]
    pub server_core: Option<usize>,
    /// Core for this tool
    #[arg(long)]
    pub core: Option<usize>,
    /// Milliseconds that a user may wait for its events
    #[arg(long, env = "timeout", default_value_t = 20_000)]
    pub timeout: u64,
    /// Milliseconds to wait at the end for anything that is too much
    #[arg(long, env = "mazeSettle", default_value_t = 100)]
    pub settle: u64,
    /// Memory in MiB for what is worked out beforehand; a run that needs more streams
    #[arg(long, env = "mazeMemory", default_value_t = 6144)]
    pub memory: u64,
    /// The server is `maze limit`: expect its pattern, as many bytes as the protocol says [default: on when
    /// the started command is `maze limit`]
    #[arg(long)]
    pub expect_pattern: bool,
    /// The server forwards the source's bytes to each user, as `maze limit --forward` does
    #[arg(long, conflicts_with = "expect_pattern")]
    pub expect_forward: bool,
}

/// How it is told.
#[derive(Clone, Debug, Args)]
pub struct OutputOptions {
    /// How much is said
    #[arg(long, value_enum, env = "logLevel", default_value = "info")]
    pub log_level: LogLevel,
    /// Milliseconds between progress lines where there is no terminal
    #[arg(long, env = "logInterval", default_value_t = 1000)]
    pub log_interval: u64,
    /// Print the result as JSON on standard output, everything else on standard error
    #[arg(long)]
    pub json: bool,
}

/// Options of `maze run`.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub load: LoadOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: ServerOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputOptions,
    /// Events per second to send; as fast as the server takes them if not given
    #[arg(long, env = "mazeRate")]
    pub rate: Option<f64>,
    /// Send for this many seconds instead of a number of events; streams
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<f64>,
    /// How many of the users read slowly
    #[arg(long, env = "mazeSlow", default_value_t = 0)]
    pub slow: usize,
    /// How slowly they read, in bytes per second
    #[arg(long, env = "mazeSlowRate", default_value_t = 100_000.0)]
    pub slow_rate: f64,
    /// It is a fault if the server disconnects a user that reads slowly
    #[arg(long)]
    pub slow_must_finish: bool,
    /// Milliseconds that users who come and go stay, on average
    #[arg(long, env = "mazeChurnStay", default_value_t = 200)]
    pub churn_stay: u64,
    /// Milliseconds between looks at the server's memory and descriptors, which end up in the JSON
    #[arg(long)]
    pub sample_every: Option<u64>,
    /// Never sleep: keeps a core busy
    #[arg(long)]
    pub spin: bool,
    /// Sources ask for acknowledgements and send again what is not acknowledged; users resume after every end of their
    /// connection, those of `churn` leave at any moment. Everybody must end with one uninterrupted stream
    #[arg(long)]
    pub resume: bool,
    /// The server keeps a journal: users of `churn` resume, and each must end with one uninterrupted stream; users of
    /// `slow` must receive everything [default: on when the command of `spawn` names a folder for a journal; for `slow`
    /// unless it names another policy than `journal`]
    #[arg(long)]
    pub journal: bool,
    /// Kill the server that `spawn` started (SIGKILL) and start it again after this number of milliseconds, again and again;
    /// implies `resume`, and needs a server with a journal
    #[arg(long, value_name = "MS", requires = "spawn")]
    pub kill_every: Option<u64>,
}

/// Options of `maze latency`.
#[derive(Clone, Debug, Args)]
pub struct LatencyOptions {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub load: LoadOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: ServerOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputOptions,
    /// Events per second to send
    #[arg(long, env = "mazeRate", default_value_t = 100_000.0)]
    pub rate: f64,
    /// Seconds to send; decides the number of events unless totalEvents is given
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Write the distribution as an SVG picture
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Sleep between events rather than spin; adds this tool's own wake-ups to what is measured
    #[arg(long)]
    pub sleep: bool,
}

/// Where `maze limit` and `maze naive` listen.
#[derive(Clone, Debug, Args)]
pub struct ListenOptions {
    /// Port for event sources; 0 picks a free one
    #[arg(long, default_value_t = 9090)]
    pub event_source_server_port: u16,
    /// Port for users; 0 picks a free one
    #[arg(long, default_value_t = 9099)]
    pub user_server_port: u16,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub bind_address: String,
}

/// Options of `maze limit`.
#[derive(Clone, Debug, Args)]
pub struct LimitOptions {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub load: LoadOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub listen: ListenOptions,
    /// File that says how many bytes each user gets, as `maze` writes it for servers that it starts; worked out
    /// from the options above if not given
    #[arg(long, value_name = "FILE", env = "mazePlan")]
    pub plan: Option<PathBuf>,
    /// Forward what the source sends to each user as it is
    #[arg(long)]
    pub forward: bool,
    /// PEM file with a certificate: users are spoken to over TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Most bytes to read from the source at a time
    #[arg(long, default_value_t = 1 << 20)]
    pub read_max: usize,
}

impl ListenOptions {
    /// The addresses.
    ///
    /// # Errors
    /// A sentence that names the host.
    pub fn addresses(&self) -> Result<Addresses, String> {
        Addresses::resolve(&self.bind_address, self.event_source_server_port, self.user_server_port)
    }
}

impl ServerOptions {
    /// What users are expected to receive.
    pub fn expect(&self) -> Expect {
        let spawn = self.spawn.as_deref().unwrap_or("");
        let words = shlex::split(spawn).unwrap_or_default();
        let is_limit = words.windows(2).any(|w| w[0].rsplit('/').next() == Some("maze") && w[1] == "limit");
        let forwards = words.iter().any(|word| word == "--forward");
        match () {
            () if self.expect_forward || (is_limit && forwards) => Expect::Forward,
            () if self.expect_pattern || is_limit => Expect::Pattern,
            () => Expect::Protocol,
        }
    }

    /// How the server is reached.
    fn access(&self) -> Result<Access, String> {
        let spawn = self.spawn.as_deref().unwrap_or("");
        let ports = self.tls_ports.clone().or_else(|| names(spawn, "--tls-ports", "tlsPorts"));
        let own = self.tls_certificate.as_deref().zip(self.tls_key.as_deref());
        let access = match &self.tls_ca {
            Some(ca) => Access::over_tls(&self.host, ca, own, ports.as_deref().unwrap_or("users"))?,
            None => Access::default(),
        };
        match &self.token_key {
            Some(key) => access.with_tokens(key),
            None => Ok(access),
        }
    }

    /// The settings of a run.
    ///
    /// # Errors
    /// One sentence that names the option.
    pub fn settings(&self, load: Workload) -> Result<Settings, String> {
        let expect = self.expect();
        if expect == Expect::Forward && load.sources != 1 {
            return Err(format!(
                "sources {}: accepted is 1 where the source's bytes are forwarded",
                load.sources
            ));
        }
        Ok(Settings {
            load,
            expect,
            addresses: Addresses::resolve(&self.host, self.event_listener_port, self.client_listener_port)?,
            access: self.access()?,
            pid: self.pid,
            timeout: Duration::from_millis(self.timeout),
            settle: Duration::from_millis(self.settle),
            rate: None,
            spin: false,
            slow_users: 0,
            slow_rate: 0.0,
            slow_must_finish: false,
            slow_pulse: None,
            churn_resumes: false,
            churn_stay: Duration::ZERO,
            duration: None,
            memory: self.memory << 20,
            measure_latency: false,
            sample_every: None,
            resume: false,
            kill_every: None,
        })
    }
}

/// The value that a command gives to an option, as a flag or as a variable.
pub fn names(command: &str, flag: &str, variable: &str) -> Option<String> {
    let words = shlex::split(command).unwrap_or_default();
    words.iter().enumerate().find_map(|(at, word)| {
        let (name, value) =
            word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        match value {
            Some(value) if name == flag || name == variable => Some(value.to_owned()),
            None if name == flag => words.get(at + 1).cloned(),
            _ => None,
        }
    })
}

impl RunOptions {
    /// Whether the server keeps a journal, as far as its command or `journal` says.
    pub fn has_journal(&self) -> bool {
        let spawn = self.server.spawn.as_deref().unwrap_or("");
        self.journal || names(spawn, "--journal-directory", "journalDirectory").is_some()
    }

    /// Whether the server serves users that do not keep up from its journal.
    pub fn serves_slow_users_from_journal(&self) -> bool {
        let spawn = self.server.spawn.as_deref().unwrap_or("");
        let policy = names(spawn, "--slow-user-policy", "slowUserPolicy");
        self.has_journal() && policy.is_none_or(|policy| policy == "journal")
    }

    /// The settings of the run.
    ///
    /// # Errors
    /// One sentence that names the option.
    pub fn settings(&self) -> Result<Settings, String> {
        let mut load = self.load.workload()?;
        let positive = |name: &str, value: Option<f64>| match value {
            Some(value) if !(value > 0.0 && value.is_finite()) => {
                Err(format!("{name} {value}: accepted is a number above 0"))
            }
            _ => Ok(()),
        };
        positive("rate", self.rate)?;
        positive("duration", self.duration)?;
        positive("slow-rate", Some(self.slow_rate))?;
        if self.slow as u64 > load.connected {
            return Err(format!(
                "slow {}: accepted is at most the {} connected users",
                self.slow, load.connected
            ));
        }
        if self.duration.is_some() {
            load.events = u64::MAX;
        }
        let resume = self.resume || self.kill_every.is_some();
        if resume && (self.duration.is_some() || self.slow > 0) {
            return Err("duration and slow: not accepted where users resume".into());
        }
        if self.kill_every == Some(0) {
            return Err("kill-every 0: accepted is a number of milliseconds above 0".into());
        }
        Ok(Settings {
            resume,
            kill_every: self.kill_every.map(Duration::from_millis),
            rate: self.rate,
            spin: self.spin,
            slow_users: self.slow,
            slow_rate: self.slow_rate,
            slow_must_finish: self.slow_must_finish || self.serves_slow_users_from_journal(),
            churn_resumes: self.has_journal(),
            churn_stay: Duration::from_millis(self.churn_stay.max(1)),
            duration: self.duration.map(Duration::from_secs_f64),
            sample_every: self.sample_every.map(|ms| Duration::from_millis(ms.max(1))),
            ..self.server.settings(load)?
        })
    }
}

impl LatencyOptions {
    /// The settings of the run.
    ///
    /// # Errors
    /// One sentence that names the option.
    pub fn settings(&self) -> Result<Settings, String> {
        let mut load = self.load.workload()?;
        for (name, value) in [("rate", self.rate), ("seconds", self.seconds)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(format!("{name} {value}: accepted is a number above 0"));
            }
        }
        if load.garbage > 0.0 || load.churning > 0 {
            return Err("garbage and churn: not accepted where latency is measured".into());
        }
        if self.load.total_events.is_none() {
            load.events = (self.rate * self.seconds).ceil().max(1.0) as u64;
        }
        let settings = self.server.settings(load)?;
        if settings.expect == Expect::Pattern {
            return Err(
                "spawn: latency needs `maze limit --forward`, whose bytes say which event they are".into()
            );
        }
        Ok(Settings { rate: Some(self.rate), measure_latency: true, spin: !self.sleep, ..settings })
    }
}
