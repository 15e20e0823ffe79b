//! The `fortnight` command.

#[cfg(feature = "top")]
mod top;

use fortnight::{
    cli::{self, Invocation, journal, replay, trace},
    config::Config,
    disk::RealDisk,
    door::{Door, Rules},
    health, logging,
    reactor::{Addresses, Reactor, raise_open_files_limit},
    server::{Phase, Server, net::Net},
    time::Micros,
    trace::{Recorder, Recording},
};
use std::{
    io::{Write, stdout},
    process::ExitCode,
};

fn main() -> ExitCode {
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
        Ok(Invocation::Replay(options)) => replay::run(&options).into(),
        Ok(Invocation::Journal(options)) => journal::run(&options).into(),
        Ok(Invocation::Trace(options)) => trace::run(&options).into(),
        Err(exit) => exit.report(),
    }
}

/// Runs the server until it is told to end.
fn serve(config: Config) -> ExitCode {
    logging::init(config.log_level);
    raise_open_files_limit(&config);
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
    match Rules::new(&config) {
        // Where nobody has to show anything, there is no door, and it costs nothing.
        None => record_and_run(config, reactor, recorder, addresses, clock),
        Some(rules) => {
            let door = Door::new(reactor, rules, clock());
            record_and_run(config, door, recorder, addresses, clock)
        }
    }
}

/// Runs the server, with everything recorded that reaches it if there is a recorder.
fn record_and_run<N: Net>(
    config: Config,
    net: N,
    recorder: Option<Recorder>,
    addresses: Addresses,
    clock: impl Fn() -> Micros,
) -> ExitCode {
    match recorder {
        Some(recorder) => run(config, Recording::new(net, recorder), addresses, clock),
        None => run(config, net, addresses, clock),
    }
}

/// Recovers the journal, if there is one, and serves.
fn run<N: Net>(config: Config, net: N, addresses: Addresses, clock: impl Fn() -> Micros) -> ExitCode {
    let server = match config.journal_directory.clone() {
        None => {
            let now = clock();
            Ok(Server::new(config, net, now))
        }
        Some(folder) => RealDisk::lock(&folder)
            .map_err(|error| error.to_string())
            .and_then(|disk| {
                Server::recover(config, net, Box::new(disk), clock).map_err(|error| error.to_string())
            })
            .map_err(|reason| format!("journalDirectory: {}: {reason}", folder.display())),
    };
    let mut server = match server {
        Ok(server) => server,
        Err(sentence) => return fail(&sentence),
    };
    // Whoever reads it may have gone by now; that is no reason not to serve.
    let _ = writeln!(stdout(), "{addresses}");
    loop {
        if let Err(error) = server.turn() {
            return fail(&error.to_string());
        }
        if let Phase::Done { forced } = server.phase() {
            return if forced { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    }
}

fn fail(sentence: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "fortnight: {sentence}");
    ExitCode::FAILURE
}
