//! The commands: what their options say is done, and the outcome is told.

use std::io::Write as _;
use std::process::ExitCode;

use crate::access::server_config;
use crate::block::Expect;
use crate::book::Book;
use crate::console::{ALL_RECEIVED, LogLevel, refuse, start_log};
use crate::drive::{self, Failure};
use crate::fault::Fault;
use crate::limit::Limit;
use crate::naive::Naive;
use crate::options::{LatencyOptions, LimitOptions, ListenOptions, OutputOptions, RunOptions, ServerOptions};
use crate::plan::Plan;
use crate::plot;
use crate::process::{Server, pin, raise_open_files};
use crate::report::{self, Figures, distribution};
use crate::resume;
use crate::settings::Settings;
use crate::ui::Display;

fn fail(sentence: &str) -> ExitCode {
    eprintln!("maze: {sentence}");
    ExitCode::from(1)
}

/// Result of one run: figures, a fault of the server, or why there was no run.
pub type Outcome = Result<Figures, Failure>;

/// Prepares, starts the server if that is wanted, and runs.
///
/// # Errors
/// Those of [`drive::run`], and of starting the server.
pub fn prepare_and_run(settings: &mut Settings, server: &ServerOptions, output: &OutputOptions) -> Outcome {
    raise_open_files();
    if let Some(core) = server.core {
        pin(core).map_err(Failure::Failed)?;
    }
    let mut display = Display::new(settings, output);
    let mut book = drive::prepare(settings, &mut |progress| display.show(0, progress));
    log::debug!("{} MiB prepared, complete: {}", book.held() >> 20, book.is_complete());
    let started = start_server(settings, server, &book).map_err(Failure::Failed)?;
    if let Some(started) = &started {
        settings.addresses = started.addresses;
        settings.pid = Some(started.pid());
        log::debug!("server {} at {:?}", started.pid(), started.addresses);
    }
    let users = settings.load.connected;
    let show = &mut |progress| display.show(users, progress);
    let outcome = if settings.resume {
        let mut started = started;
        let mut restart = || match &mut started {
            Some(server) => server.kill_and_start_again().map(|()| (server.addresses, server.pid())),
            None => Err("kill-every: there is no server that was started here".to_owned()),
        };
        resume::run(settings, &mut book, &mut restart, show)
    } else {
        drive::run(settings, &mut book, show)
    };
    display.finish();
    outcome
}

fn start_server(settings: &Settings, server: &ServerOptions, book: &Book) -> Result<Option<Server>, String> {
    let Some(command) = &server.spawn else { return Ok(None) };
    let mut variables = Vec::new();
    let file = std::env::temp_dir().join(format!("maze-plan-{}.json", std::process::id()));
    if settings.expect == Expect::Pattern {
        let load = &settings.load;
        let plan = if book.is_complete() { Plan::of_book(load, book) } else { Plan::of_workload(load) };
        plan.store(&file)?;
        variables.push(("mazePlan".to_owned(), file.display().to_string()));
    }
    let started = Server::start(command, &variables, server.server_core, settings.addresses);
    if settings.expect == Expect::Pattern {
        // It has been read: the server listens.
        let _ = std::fs::remove_file(&file);
    }
    started.map(Some)
}

/// Tells the outcome; the exit status says whether everything was right.
pub fn tell(settings: &Settings, output: &OutputOptions, outcome: &Outcome) -> ExitCode {
    let mut out: Box<dyn std::io::Write> =
        if output.json { Box::new(std::io::stderr()) } else { Box::new(std::io::stdout()) };
    let print_json = |outcome: Result<&Figures, &Fault>| {
        if output.json {
            println!("{:#}", report::to_json(settings, outcome));
        }
    };
    match outcome {
        Ok(figures) => {
            let _ = writeln!(out, "{}{ALL_RECEIVED}", report::summary(settings, figures));
            print_json(Ok(figures));
            ExitCode::SUCCESS
        }
        Err(Failure::Fault(fault)) => {
            let _ = write!(out, "{fault}");
            print_json(Err(fault));
            ExitCode::FAILURE
        }
        Err(Failure::Failed(sentence)) => fail(sentence),
    }
}

/// `maze run`.
pub fn run(options: &RunOptions) -> ExitCode {
    start_log(options.output.log_level);
    let mut settings = match options.settings() {
        Ok(settings) => settings,
        Err(sentence) => return refuse(&sentence),
    };
    let outcome = prepare_and_run(&mut settings, &options.server, &options.output);
    tell(&settings, &options.output, &outcome)
}

/// `maze latency`.
pub fn latency(options: &LatencyOptions) -> ExitCode {
    start_log(options.output.log_level);
    let mut settings = match options.settings() {
        Ok(settings) => settings,
        Err(sentence) => return refuse(&sentence),
    };
    let outcome = prepare_and_run(&mut settings, &options.server, &options.output);
    if let (Ok(Figures { latency: Some(histogram), .. }), Some(file)) = (&outcome, &options.svg) {
        let title = format!("Time per delivery at {} events/s", options.rate);
        let curve = plot::Curve { name: "deliveries".into(), points: distribution(histogram) };
        if let Err(sentence) = plot::distributions(file, &title, &[curve]) {
            return fail(&sentence);
        }
    }
    tell(&settings, &options.output, &outcome)
}

/// `maze limit`.
pub fn limit(options: &LimitOptions) -> ExitCode {
    start_log(LogLevel::Info);
    raise_open_files();
    let plan = match (&options.plan, options.forward) {
        (_, true) => Ok(Plan::default()),
        (Some(path), false) => Plan::load(path),
        (None, false) => options.load.workload().map(|load| Plan::of_workload(&load)),
    };
    let plan = match plan {
        Ok(plan) => plan,
        Err(sentence) => return refuse(&sentence),
    };
    let at = match options.listen.addresses() {
        Ok(at) => at,
        Err(sentence) => return refuse(&sentence),
    };
    let tls = match options.tls_certificate.as_ref().zip(options.tls_key.as_ref()) {
        Some((chain, key)) => match server_config(chain, key) {
            Ok(config) => Some(config),
            Err(sentence) => return refuse(&sentence),
        },
        None => None,
    };
    let served = Limit::new(at.source, at.users, plan, options.forward, options.read_max)
        .map(|limit| limit.over_tls(tls))
        .and_then(|mut limit| {
            println!("{}", limit.listening()?);
            std::io::stdout().flush()?;
            limit.serve()
        });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("limit at {} and {}: {error}", at.source, at.users)),
    }
}

/// `maze naive`.
pub fn naive(options: &ListenOptions) -> ExitCode {
    start_log(LogLevel::Info);
    raise_open_files();
    let at = match options.addresses() {
        Ok(at) => at,
        Err(sentence) => return refuse(&sentence),
    };
    let served = Naive::new(at.source, at.users).and_then(|mut naive| {
        println!("{}", naive.listening()?);
        std::io::stdout().flush()?;
        naive.serve()
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("naive at {} and {}: {error}", at.source, at.users)),
    }
}
