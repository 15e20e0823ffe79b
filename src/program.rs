//! The `fortnight` command: what the command line asks for is done here.

#[cfg(feature = "top")]
use crate::top;
use crate::{
    cli::{self, Exit, Invocation, clients, journal, replay, trace},
    config::Config,
    health, logging,
    notify::{self, Notifier},
    options,
    reactor::Reactor,
    server::Phase,
    service::Service,
};
use std::{
    io::{Write, stdout},
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

/// Runs the server until it is told to end.
fn serve(config: Config) -> ExitCode {
    logging::init(config.log_level);
    let options = options::changed(&config);
    let mut service = match Service::start(config, Reactor::take_signals) {
        Ok(service) => service,
        Err(error) if error.is_refusal() => return Exit::refused(error).report(),
        Err(error) => match error.is_end() {
            Some(forced) => {
                log::info!("shutting down: the journal had not been read to its end, and is what it was");
                return if forced { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            }
            None => return fail(&error.to_string()),
        },
    };
    say_how_it_runs(&options);
    // The reader may have gone by now. The server serves nevertheless.
    let _ = writeln!(stdout(), "{}", service.addresses());
    let mut notifier = Notifier::new(std::env::var_os(notify::VARIABLE));
    notifier.serves();
    loop {
        if let Err(error) = service.turn() {
            return fail(&error.to_string());
        }
        if service.phase() != Phase::Running {
            notifier.ends();
        }
        if let Phase::Done { forced } = service.phase() {
            return if forced { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
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
