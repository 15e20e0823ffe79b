//! The `fortnight` command: what the command line asks for is done here, and the server is put together and run.

#[cfg(feature = "top")]
use crate::top;
use crate::{
    cli::{self, Exit, Invocation, clients, journal, replay, trace},
    config::Config,
    disk::RealDisk,
    door::{Door, Rules},
    health,
    identity::Tokens,
    logging,
    notify::{self, Notifier},
    options,
    reactor::{Addresses, Reactor, raise_open_files_limit},
    server::{Phase, Server, net::Net},
    time::Micros,
    trace::{Recorder, Recording},
};
use std::{
    io::{self, Write, stdout},
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
};

/// Runs the command `fortnight` with the arguments and the environment of this process.
///
/// Messages go to standard error, answers to standard output. A server runs until SIGTERM or SIGINT ends it.
#[must_use]
pub fn run() -> ExitCode {
    match cli::from_process() {
        Ok(Invocation::Serve(config)) => serve(*config),
        Ok(Invocation::Health(admin)) => match health::check(&admin) {
            Ok(answer) => {
                let _ = writeln!(stdout(), "{answer}");
                ExitCode::SUCCESS
            }
            Err(sentence) => fail(&sentence),
        },
        #[cfg(feature = "top")]
        Ok(Invocation::Top(admin)) => top::run(&admin),
        Ok(Invocation::Clients(options)) => clients::run(&options).into(),
        Ok(Invocation::Replay(options)) => replay::run(&options).into(),
        Ok(Invocation::Journal(options)) => journal::run(&options).into(),
        Ok(Invocation::Trace(options)) => trace::run(&options).into(),
        Err(exit) => exit.report(),
    }
}

/// What a server is started with.
struct Start {
    config: Config,
    tokens: Option<Tokens>,
    recorder: Option<Recorder>,
    addresses: Addresses,
    /// What a disk that works while the loop goes on signals. `None`: there is no journal.
    disk_waker: Option<io::Result<OwnedFd>>,
}

/// Runs the server until it is told to end.
fn serve(config: Config) -> ExitCode {
    logging::init(config.log_level);
    raise_open_files_limit(&config);
    let tokens = match Tokens::load(&config) {
        Ok(tokens) => tokens,
        Err(sentence) => return Exit::refused(sentence).report(),
    };
    let rules = match Rules::new(&config) {
        Ok(rules) => rules,
        Err(sentence) => return Exit::refused(sentence).report(),
    };
    let reactor = match Reactor::new(&config) {
        Ok(reactor) => reactor,
        Err(error) => return fail(&error.to_string()),
    };
    let recorder = match config.record_trace.as_ref().map(|path| (path, Recorder::create(path, &config))) {
        Some((path, Err(error))) => {
            return fail(&format!("recordTrace: cannot write {}: {error}", path.display()));
        }
        recorder => recorder.and_then(|(_, recorder)| recorder.ok()),
    };
    let (addresses, clock) = (reactor.addresses(), reactor.clock());
    let disk_waker = config.journal_directory.as_ref().map(|_| reactor.disk_waker());
    let start = Start { config, tokens, recorder, addresses, disk_waker };
    match rules {
        // Where nobody has to show anything, there is no door, and it costs nothing.
        None => start.on(reactor, clock),
        Some(rules) => start.on(Door::new(reactor, rules, clock()), clock),
    }
}

impl Start {
    /// Runs the server, with everything recorded that reaches it if there is a recorder.
    fn on<N: Net>(mut self, net: N, clock: impl Fn() -> Micros) -> ExitCode {
        match self.recorder.take() {
            Some(recorder) => recover_and_serve(self, Recording::new(net, recorder), clock),
            None => recover_and_serve(self, net, clock),
        }
    }
}

/// Recovers the journal, if there is one, and serves.
fn recover_and_serve<N: Net>(start: Start, net: N, clock: impl Fn() -> Micros) -> ExitCode {
    let Start { config, tokens, addresses, disk_waker, .. } = start;
    let options = options::changed(&config);
    let server = match config.journal_directory.clone() {
        None => {
            let now = clock();
            Ok(Server::new(config, net, now))
        }
        Some(folder) => RealDisk::lock(&folder)
            .map_err(|error| error.to_string())
            .and_then(|mut disk| {
                use_a_ring(&mut disk, disk_waker);
                Server::recover(config, net, Box::new(disk), clock).map_err(|error| error.to_string())
            })
            .map_err(|reason| format!("journalDirectory: {}: {reason}", folder.display())),
    };
    let mut server = match server {
        Ok(server) => server,
        Err(sentence) => return fail(&sentence),
    };
    if let Some(tokens) = tokens {
        server.ask_for_tokens(tokens);
    }
    say_how_it_runs(&options);
    // The reader may have gone by now. The server serves nevertheless.
    let _ = writeln!(stdout(), "{addresses}");
    let mut notifier = Notifier::new(std::env::var_os(notify::VARIABLE));
    notifier.serves();
    loop {
        if let Err(error) = server.turn() {
            return fail(&error.to_string());
        }
        if server.phase() != Phase::Running {
            notifier.ends();
        }
        if let Phase::Done { forced } = server.phase() {
            return if forced { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    }
}

/// Has the kernel do what is submitted to the disk while the loop goes on, if it can.
fn use_a_ring(disk: &mut RealDisk, waker: Option<io::Result<OwnedFd>>) {
    let Some(waker) = waker else { return };
    if let Err(error) = waker.and_then(|waker| disk.submit_to_a_ring(waker.as_fd())) {
        log::info!(reason:% = error; "io_uring cannot be used here; the journal is written and synced between turns instead");
    }
}

/// The log's first words: which options are not what they would be by themselves, and which variables may be meant to
/// be options and are not.
fn say_how_it_runs(options: &[(&'static str, String)]) {
    let version = ("version", env!("CARGO_PKG_VERSION").to_owned());
    let pairs: Vec<_> = [version].into_iter().chain(options.iter().cloned()).collect();
    let level = log::Level::Info;
    // The macros want to know the names of all pairs.
    let start = log::Record::builder()
        .level(level)
        .target(module_path!())
        .key_values(&pairs)
        .args(format_args!("started; every option that is not named here has its default"))
        .build();
    if level <= log::max_level() {
        log::logger().log(&start);
    }
    for (variable, _) in std::env::vars_os() {
        let variable = variable.to_string_lossy();
        if let Some(option) = options::meant_by(&variable) {
            log::warn!(variable, option; "this environment variable is no option and counts for nothing, but is almost the name of one");
        }
    }
}

fn fail(sentence: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "fortnight: {sentence}");
    ExitCode::FAILURE
}
