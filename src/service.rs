//! A server in a program of its own: everything that a configuration asks for, put together.

use crate::{
    config::Config,
    disk::RealDisk,
    door::{Door, Rules},
    identity::Tokens,
    journal::Ended,
    options,
    reactor::{Addresses, Reactor, raise_open_files_limit},
    server::{Phase, Server, net::Net},
    time::Micros,
    trace::{Recorder, Recording},
};
use std::{error, fmt, io, os::fd::OwnedFd};

/// A server that listens, with everything that its [`Config`] asks for: tokens, TLS, the journal, a trace, the stream.
///
/// It runs on the thread that calls [`Service::turn`] or [`Service::run`], and starts no other one. It writes to the log through the
/// crate `log`: without a logger of yours it is silent, and [`Config::log_level`] is for the command only. It leaves signals to
/// the program, and reads no environment variable. The one thing of the process that it changes is the limit of open files,
/// which it raises as far as the system allows.
///
/// ```
/// use fortnight::{Config, Service};
/// use std::{io::prelude::*, net::TcpStream};
///
/// let config = Config { user_server_port: 0, event_source_server_port: 0, ..Config::default() };
/// let mut service = Service::open(config)?;
/// let (addresses, stopper) = (service.addresses(), service.stopper()?);
/// let client = std::thread::spawn(move || {
///     let mut user = TcpStream::connect(addresses.users.unwrap())?;
///     user.write_all(b"7\n")?;
///     TcpStream::connect(addresses.source.unwrap())?.write_all(b"1|B\n")?;
///     let mut line = [0; 4];
///     user.read_exact(&mut line)?;
///     stopper.stop()?;
///     Ok::<_, std::io::Error>(line)
/// });
/// service.run()?;
/// assert_eq!(&client.join().unwrap()?, b"1|B\n");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Service {
    server: Box<dyn Turns>,
    addresses: Addresses,
    stop: Stopper,
}

/// Ends a [`Service`], from any thread.
#[derive(Debug)]
pub struct Stopper(OwnedFd);

/// A server cannot start. Its text is one sentence, which names the option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    sentence: String,
    is_refusal: bool,
    ended: Option<Ended>,
}

/// A [`Server`] on any net.
trait Turns {
    fn turn(&mut self) -> io::Result<()>;
    fn phase(&self) -> Phase;
}

impl<N: Net> Turns for Server<N> {
    fn turn(&mut self) -> io::Result<()> {
        self.turn()
    }

    fn phase(&self) -> Phase {
        self.phase()
    }
}

impl Service {
    /// Opens the listeners, and recovers the journal if there is one.
    ///
    /// Options that go together are checked, and get the values that follow from others, as on the command line: with a journal,
    /// say, [`Config::slow_user_policy`] is `Journal` unless it is something else than its default.
    ///
    /// # Errors
    ///
    /// If the configuration is refused, a port cannot be opened, or a file cannot be used.
    pub fn open(mut config: Config) -> Result<Self, StartError> {
        options::complete_as_written(&mut config).map_err(StartError::refused)?;
        Self::start(config, |_| Ok(()))
    }

    /// The same, and takes the signals of this process: SIGTERM and SIGINT end the server, SIGHUP has certificates and keys read
    /// again.
    ///
    /// # Errors
    ///
    /// As [`Service::open`], or if the operating system does not allow it.
    #[cfg(feature = "signals")]
    pub fn open_with_signals(mut config: Config) -> Result<Self, StartError> {
        options::complete_as_written(&mut config).map_err(StartError::refused)?;
        Self::start(config, Reactor::take_signals)
    }

    /// Starts with a configuration that is complete. `prepare` is called before anything that takes long.
    pub(crate) fn start(
        config: Config,
        prepare: impl FnOnce(&mut Reactor) -> io::Result<()>,
    ) -> Result<Self, StartError> {
        raise_open_files_limit(&config);
        let tokens = Tokens::load(&config).map_err(StartError::refused)?;
        let rules = Rules::new(&config).map_err(StartError::refused)?;
        let mut reactor = Reactor::new(&config).map_err(StartError::failed)?;
        let no_loop = |error| StartError::failed(format_args!("cannot set up the event loop: {error}"));
        prepare(&mut reactor).map_err(no_loop)?;
        let create = |path: &std::path::PathBuf| {
            let named = |error| format!("recordTrace: cannot write {}: {error}", path.display());
            Recorder::create(path, &config).map_err(named)
        };
        let recorder = config.record_trace.as_ref().map(create).transpose().map_err(StartError::failed)?;
        let start = Start {
            tokens,
            recorder,
            addresses: reactor.addresses(),
            stop: Stopper(reactor.stopper().map_err(no_loop)?),
            disk_waker: config.journal_directory.as_ref().map(|_| reactor.disk_waker()),
            config,
        };
        let clock = reactor.clock();
        match rules {
            // Where nobody has to show anything, there is no door, and it costs nothing.
            None => start.on(reactor, clock),
            Some(rules) => start.on(Door::new(reactor, rules, clock()), clock),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// One turn of the loop: it waits until something is to be done, and does it. [`Service::phase`] says when it was the last one.
    ///
    /// # Errors
    ///
    /// If the server cannot go on, in a sentence.
    pub fn turn(&mut self) -> io::Result<()> {
        self.server.turn()
    }

    /// Turns until the end. Says whether it came in order: what had arrived was delivered, or the time for it ran out. Otherwise it
    /// was told twice to stop.
    ///
    /// # Errors
    ///
    /// As [`Service::turn`].
    pub fn run(&mut self) -> io::Result<bool> {
        loop {
            self.turn()?;
            if let Phase::Done { forced } = self.phase() {
                return Ok(!forced);
            }
        }
    }

    /// The phase of its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.server.phase()
    }

    /// Begins the end: nobody is accepted any more, what sources have sent is delivered, for [`Config::shutdown_timeout_ms`] at most.
    /// The turns that follow do that. A second call ends it at once.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    pub fn stop(&self) -> io::Result<()> {
        self.stop.stop()
    }

    /// Something that ends it from another thread.
    ///
    /// # Errors
    ///
    /// If there are no file descriptors left.
    pub fn stopper(&self) -> io::Result<Stopper> {
        self.stop.0.try_clone().map(Stopper)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Service");
        shown.field("addresses", &self.addresses).field("phase", &self.phase()).finish_non_exhaustive()
    }
}

impl Stopper {
    /// As [`Service::stop`].
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    pub fn stop(&self) -> io::Result<()> {
        rustix::io::write(&self.0, &1_u64.to_ne_bytes())?;
        Ok(())
    }
}

impl StartError {
    fn refused(sentence: impl fmt::Display) -> Self {
        Self { sentence: sentence.to_string(), is_refusal: true, ended: None }
    }

    fn failed(sentence: impl fmt::Display) -> Self {
        Self { sentence: sentence.to_string(), is_refusal: false, ended: None }
    }

    /// The server was told to end while it recovered its journal. Whether it was told so twice. Nothing is wrong: the journal is what
    /// it was.
    #[must_use]
    pub fn is_end(&self) -> Option<bool> {
        self.ended.map(|ended| ended.forced)
    }

    /// Whether the configuration is to blame, and not the system on which it was tried.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.is_refusal
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl error::Error for StartError {}

/// What a server is started with.
struct Start {
    config: Config,
    tokens: Option<Tokens>,
    recorder: Option<Recorder>,
    addresses: Addresses,
    stop: Stopper,
    /// What a disk that works while the loop goes on signals. `None`: there is no journal.
    disk_waker: Option<io::Result<OwnedFd>>,
}

impl Start {
    /// Starts the server, with everything recorded that reaches it if there is a recorder.
    fn on<N: Net + 'static>(mut self, net: N, clock: impl Fn() -> Micros) -> Result<Service, StartError>
    where
        N::Socket: 'static,
    {
        match self.recorder.take() {
            Some(recorder) => self.recover(Recording::new(net, recorder), clock),
            None => self.recover(net, clock),
        }
    }

    /// Recovers the journal, if there is one.
    fn recover<N: Net + 'static>(self, net: N, clock: impl Fn() -> Micros) -> Result<Service, StartError>
    where
        N::Socket: 'static,
    {
        let Self { config, tokens, addresses, stop, disk_waker, .. } = self;
        let mut server = match config.journal_directory.clone() {
            None => {
                let now = clock();
                Server::new(config, net, now)
            }
            Some(folder) => {
                let failed = |reason: &dyn fmt::Display| {
                    StartError::failed(format_args!("journalDirectory: {}: {reason}", folder.display()))
                };
                let mut disk = RealDisk::lock(&folder).map_err(|error| failed(&error))?;
                use_a_ring(&mut disk, disk_waker);
                Server::recover(config, net, Box::new(disk), clock)
                    .map_err(|error| StartError { ended: error.is_end(), ..failed(&error) })?
            }
        };
        if let Some(tokens) = tokens {
            server.ask_for_tokens(tokens);
        }
        Ok(Service { server: Box::new(server), addresses, stop })
    }
}

/// Has the kernel do what is submitted to the disk while the loop goes on, if it can.
fn use_a_ring(disk: &mut RealDisk, waker: Option<io::Result<OwnedFd>>) {
    let Some(waker) = waker else { return };
    if let Err(error) = waker.and_then(|waker| disk.submit_to_a_ring(waker)) {
        log::info!(reason:% = error; "io_uring cannot be used here; the journal is written and synced between turns instead");
    }
}
