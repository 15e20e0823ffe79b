//! The `fortnight` command.

use fortnight::{
    config::Config,
    health, logging,
    options::{self, Invocation},
    reactor::{Reactor, raise_open_files_limit},
    server::{Phase, Server},
};
use std::{
    io::{Write, stdout},
    process::ExitCode,
};

fn main() -> ExitCode {
    match options::from_process() {
        Ok(Invocation::Serve(config)) => serve(config),
        Ok(Invocation::Health(admin)) => match health::check(&admin) {
            Ok(answer) => {
                let _ = writeln!(stdout(), "{answer}");
                ExitCode::SUCCESS
            }
            Err(sentence) => fail(&sentence),
        },
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
    // Whoever reads it may have gone by now; that is no reason not to serve.
    let _ = writeln!(stdout(), "{}", reactor.addresses());
    let now = reactor.now();
    let mut server = Server::new(config, reactor, now);
    loop {
        if let Err(error) = server.turn() {
            return fail(&format!("cannot wait for events: {error}"));
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
