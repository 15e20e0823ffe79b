//! `maze soak`: one server for minutes, under full load with everything that can be wrong, checked byte by byte; and
//! whether it stays as small as it was.
//!
//! The load comes in *rounds*, each a whole run of its own with other events, which the server takes for a new sequence
//! (`resetOnSourceEof`; with a journal, which holds one run, there is one round). So slow users, who are cut off, are there again and again, and between rounds, when everybody has
//! gone, the server must be back to the descriptors that it had before anybody came.

mod junk;
mod verdict;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::access::Access;
use crate::bench::machine;
use crate::block::Expect;
use crate::console::{ALL_RECEIVED, LogLevel, refuse, start_log};
use crate::drive::{self, Failure, Progress};
use crate::plot::{self, Curve, Labels};
use crate::process::{Addresses, Server, descriptors, memory_bytes, raise_open_files};
use crate::report::{Figures, Sample, short};
use crate::settings::Settings;
use crate::workload::{LineEnd, Shape, Workload};
use junk::Junk;
use verdict::Trend;

const MIB: f64 = (1 << 20) as f64;
/// Growth of memory that counts as none: a few pieces that the allocator takes from the system.
const MEMORY_ALLOWANCE: f64 = 2.0 * MIB;
/// Growth of descriptors that counts as none: users and junk come and go.
const DESCRIPTORS_ALLOWANCE: f64 = 16.0;
/// Longest round; short soaks have shorter ones, so that every part of the time has some.
const ROUND_SECONDS_MAX: f64 = 60.0;
/// With a journal, for how long slow users are slow at a time: what they have not read must be kept here, and there.
const SLOW_PULSE: Duration = Duration::from_secs(2);
/// Rounds at least.
const ROUNDS_MIN: f64 = 16.0;
/// How long the server may take to let go of everybody after a round.
const REST_MAX: Duration = Duration::from_secs(20);
/// How fast slow users read in bytes per second, round by round: some are cut off, some hold everybody up a little.
const SLOW_RATES: [f64; 2] = [300_000.0, 4_000_000.0];
/// What the server is told besides its own options. Deadlines are long where a busy machine must not be mistaken for a
/// slow client, and short where junk has to go within a round.
const SERVER_OPTIONS: &str = "--event-source-server-port 0 --user-server-port 0 \
    --max-event-source-clients 8 --max-user-clients 2000 --event-timeout-ms 5000 --login-timeout-ms 1000 \
    --slow-user-timeout-ms 2000 --user-buffer-bytes 1048576 --log-level error";

/// Options of `maze soak`.
#[derive(Clone, Debug, Args)]
pub struct SoakOptions {
    /// For how long
    #[arg(long, default_value_t = 10.0)]
    pub minutes: f64,
    /// The server [default: the `fortnight` beside this program]; options that the soak needs are added. It must
    /// print its `listening` line
    #[arg(long, value_name = "CMD")]
    pub server: Option<String>,
    /// Where the picture, the figures and the table go
    #[arg(long, value_name = "DIR", default_value = "perf/out")]
    pub out: PathBuf,
    /// Memory in MiB for what is worked out
    #[arg(long, default_value_t = 512)]
    pub memory: u64,
    /// Milliseconds between looks at the server
    #[arg(long, default_value_t = 1000)]
    pub sample_every: u64,
    /// The server keeps a journal, in a folder that is removed afterwards, unless there was a fault: users who come and go
    /// resume, users who read slowly are served from it, and everybody must end with one uninterrupted stream
    #[arg(long)]
    pub journal: bool,
    /// Seed of the first round
    #[arg(long, default_value_t = 666)]
    pub random_seed: u64,
}

/// What the rounds add up to.
#[derive(Clone, Debug, Default, Serialize)]
struct Totals {
    rounds: u64,
    sending_seconds: f64,
    events: u64,
    deliveries: u64,
    source_bytes: u64,
    bytes: u64,
    visits: u64,
    visit_deliveries: u64,
    resumes: u64,
    cut_lines: u64,
    cut_off: u64,
    server_cpu_ns: u64,
    junk: Junk,
}

impl Totals {
    fn add(&mut self, figures: &Figures, junk: Junk) {
        self.rounds += 1;
        self.sending_seconds += figures.seconds;
        self.events += figures.events;
        self.deliveries += figures.deliveries;
        self.source_bytes += figures.source_bytes;
        self.bytes += figures.bytes;
        self.visits += figures.visits;
        self.visit_deliveries += figures.visit_deliveries;
        self.resumes += figures.resumes;
        self.cut_lines += figures.cut_lines;
        self.cut_off += figures.cut_off;
        self.server_cpu_ns += figures.server_cpu_ns.unwrap_or(0);
        self.junk.connections += junk.connections;
        self.junk.resets += junk.resets;
        self.junk.bytes += junk.bytes;
        self.junk.stalled += junk.stalled;
    }
}

/// A server, and the looks at it.
struct Watched {
    pid: u32,
    started: Instant,
    events: AtomicU64,
    over: AtomicBool,
    samples: Mutex<Vec<Sample>>,
}

impl Watched {
    fn look(&self) -> Sample {
        Sample {
            seconds: self.started.elapsed().as_secs_f64(),
            events: self.events.load(Ordering::Relaxed),
            resident_bytes: memory_bytes(self.pid, "VmRSS").unwrap_or(0),
            descriptors: descriptors(self.pid).unwrap_or(0),
        }
    }

    fn watch(&self, every: Duration) {
        while !self.over.load(Ordering::Relaxed) {
            let sample = self.look();
            self.samples.lock().expect("no look has panicked").push(sample);
            std::thread::sleep(every);
        }
    }

    /// Waits until the server holds only what it held at the start.
    fn rest(&self, before: u64) -> Result<Sample, String> {
        let begin = Instant::now();
        loop {
            let look = self.look();
            if look.descriptors <= before {
                return Ok(look);
            }
            if begin.elapsed() > REST_MAX {
                let held = look.descriptors;
                return Err(format!(
                    "the server still holds {held} descriptors after everybody has gone, at the start {before}"
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What came of it.
struct Soaked {
    totals: Totals,
    at_start: Sample,
    samples: Vec<Sample>,
    /// One look after each round, when everybody has gone.
    rests: Vec<Sample>,
    peak_bytes: u64,
    /// What ended it before its time.
    trouble: Option<String>,
}

impl Soaked {
    fn trends(&self) -> Vec<Trend> {
        let memory = |sample: &Sample| sample.resident_bytes as f64;
        [
            Trend::of("memory", MEMORY_ALLOWANCE, &self.samples, memory),
            Trend::of("memory between rounds", MEMORY_ALLOWANCE, &self.rests, memory),
            Trend::of("descriptors", DESCRIPTORS_ALLOWANCE, &self.samples, |sample| {
                sample.descriptors as f64
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn table(&self) -> String {
        let totals = &self.totals;
        let mut text = String::from("| what | how much |\n| --- | --- |\n");
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "| {name} | {value} |");
        };
        let seconds = self.samples.last().map_or(0.0, |sample| sample.seconds);
        row("time", format!("{:.1} minutes, {} rounds", seconds / 60.0, totals.rounds));
        row("events", format!("{}, {}/s", totals.events, rate(totals.events, totals.sending_seconds)));
        row(
            "deliveries, all checked",
            format!("{}, {}/s", totals.deliveries, rate(totals.deliveries, totals.sending_seconds)),
        );
        row("bytes received", format!("{}B", short(totals.bytes as f64)));
        row(
            "visits of users who come and go",
            format!("{}, with {} deliveries", totals.visits, totals.visit_deliveries),
        );
        if totals.resumes > 0 {
            let (resumes, cut) = (totals.resumes, totals.cut_lines);
            row(
                "of these, they resumed",
                format!("{resumes} times, {cut} times after half a line; each stream whole"),
            );
        }
        row("slow readers cut off, each after an exact prefix", totals.cut_off.to_string());
        let junk = totals.junk;
        row(
            "junk",
            format!(
                "{} connections, {} of them reset, {}B",
                junk.connections,
                junk.resets,
                short(junk.bytes as f64)
            ),
        );
        row("users who read nothing", junk.stalled.to_string());
        row("CPU time of the server", format!("{:.0} s", totals.server_cpu_ns as f64 / 1e9));
        let ends = [Some(&self.at_start), self.rests.first(), self.rests.last()].into_iter().flatten();
        let ends: Vec<String> = ends
            .map(|look| {
                format!("{:.1} MiB, {} descriptors", look.resident_bytes as f64 / MIB, look.descriptors)
            })
            .collect();
        row("before anybody came; after the first round; after the last", ends.join("; "));
        row("peak memory", format!("{:.1} MiB", self.peak_bytes as f64 / MIB));
        for trend in self.trends() {
            let (unit, scale) = if trend.name == "descriptors" { ("", 1.0) } else { (" MiB", MIB) };
            row(
                &format!("{}, after the warm-up; at the end", trend.name),
                format!(
                    "{:.1}{unit}; {:.1}{unit}: {:+.1} %",
                    trend.after_warm_up / scale,
                    trend.at_the_end / scale,
                    trend.growth() * 100.0
                ),
            );
        }
        text
    }

    fn draw(&self, file: &Path) -> Result<(), String> {
        let curve = |name: &str, samples: &[Sample], pick: &dyn Fn(&Sample) -> f64| Curve {
            name: name.to_owned(),
            points: samples.iter().map(|sample| (sample.seconds / 60.0, pick(sample))).collect(),
        };
        let memory = |sample: &Sample| sample.resident_bytes as f64 / MIB;
        let open = |sample: &Sample| sample.descriptors as f64;
        let labels = |title, y| Labels { title, x: "minutes", y };
        plot::over_time(
            file,
            &[
                (
                    labels("Memory of the server", "MiB"),
                    vec![
                        curve("under load", &self.samples, &memory),
                        curve("between rounds", &self.rests, &memory),
                    ],
                ),
                (
                    labels("Open descriptors of the server", "descriptors"),
                    vec![
                        curve("under load", &self.samples, &open),
                        curve("between rounds", &self.rests, &open),
                    ],
                ),
            ],
        )
    }
}

fn rate(count: u64, seconds: f64) -> String {
    short(if seconds > 0.0 { count as f64 / seconds } else { 0.0 }).trim_end().to_owned()
}

/// The load of one round.
fn settings(
    options: &SoakOptions,
    round: u64,
    seconds: f64,
    at: Addresses,
    pid: u32,
) -> Result<Settings, String> {
    let load = Workload {
        events: u64::MAX,
        churning: 20,
        seed: options.random_seed.wrapping_add(round),
        line_end: LineEnd::Mixed,
        holes: 0.000_01,
        duplicates: 0.01,
        garbage: 0.01,
        sources: 2,
        ..Workload::of_shape(Shape::Maze, 1.0)
    };
    load.check()?;
    Ok(Settings {
        access: Access::default(),
        load,
        expect: Expect::Protocol,
        addresses: at,
        pid: Some(pid),
        timeout: Duration::from_secs(30),
        settle: Duration::from_millis(100),
        rate: None,
        spin: false,
        slow_users: 3,
        slow_rate: SLOW_RATES[round as usize % SLOW_RATES.len()],
        slow_must_finish: options.journal,
        slow_pulse: options.journal.then_some(SLOW_PULSE),
        churn_resumes: options.journal,
        churn_stay: Duration::from_millis(200),
        duration: Some(Duration::from_secs_f64(seconds)),
        memory: options.memory << 20,
        measure_latency: false,
        sample_every: None,
        resume: false,
        kill_every: None,
    })
}

/// One round: everybody comes, is served, and goes.
fn round(settings: &Settings, watched: &Watched) -> Result<(Figures, Junk), String> {
    let mut book = drive::prepare(settings, &mut |_| {});
    let (flowing, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let before = watched.events.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let thrower = scope.spawn(|| {
            while !flowing.load(Ordering::Relaxed) && !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            junk::throw(settings.addresses, settings.load.seed, &over)
        });
        let outcome = drive::run(settings, &mut book, &mut |progress| {
            if let Progress::Running { events, .. } = progress {
                flowing.store(true, Ordering::Relaxed);
                watched.events.store(before + events, Ordering::Relaxed);
            }
        });
        over.store(true, Ordering::Relaxed);
        let junk = thrower.join().map_err(|_| "the thrower of junk has panicked".to_owned())?;
        match outcome {
            Ok(figures) => Ok((figures, junk)),
            Err(Failure::Fault(fault)) => Err(format!("round with seed {}:\n{fault}", settings.load.seed)),
            Err(Failure::Failed(sentence)) => Err(sentence),
        }
    })
}

fn rounds(
    options: &SoakOptions,
    at: Addresses,
    watched: &Watched,
    soaked: &mut Soaked,
) -> Result<(), String> {
    let seconds = options.minutes * 60.0;
    // A journal holds one run.
    let each = if options.journal { seconds } else { (seconds / ROUNDS_MIN).min(ROUND_SECONDS_MAX) };
    while watched.started.elapsed().as_secs_f64() < seconds {
        let settings = settings(options, soaked.totals.rounds, each, at, watched.pid)?;
        let (figures, junk) = round(&settings, watched)?;
        soaked.totals.add(&figures, junk);
        // A journal has the segment that it writes to open twice once it has written a large block: once without a copy.
        let at_rest = soaked.at_start.descriptors + u64::from(options.journal);
        let rest = watched.rest(at_rest)?;
        soaked.rests.push(rest);
        println!(
            "round {}: {}events, {}deliveries so far, {:.1} of {} min; {:.1} MiB and {} descriptors at rest",
            soaked.totals.rounds,
            short(soaked.totals.events as f64),
            short(soaked.totals.deliveries as f64),
            rest.seconds / 60.0,
            options.minutes,
            rest.resident_bytes as f64 / MIB,
            rest.descriptors,
        );
    }
    Ok(())
}

fn run(options: &SoakOptions, command: &str) -> Result<Soaked, String> {
    let server = Server::start(command, &[], None, Addresses::resolve("127.0.0.1", 9090, 9099)?)?;
    let watched = Watched {
        pid: server.pid(),
        started: Instant::now(),
        events: AtomicU64::new(0),
        over: AtomicBool::new(false),
        samples: Mutex::new(Vec::new()),
    };
    let mut soaked = Soaked {
        totals: Totals::default(),
        at_start: watched.look(),
        samples: Vec::new(),
        rests: Vec::new(),
        peak_bytes: 0,
        trouble: None,
    };
    let every = Duration::from_millis(options.sample_every.max(1));
    std::thread::scope(|scope| {
        scope.spawn(|| watched.watch(every));
        soaked.trouble = rounds(options, server.addresses, &watched, &mut soaked).err();
        watched.over.store(true, Ordering::Relaxed);
    });
    soaked.peak_bytes = memory_bytes(watched.pid, "VmHWM").unwrap_or(0);
    soaked.samples = watched.samples.into_inner().expect("no look has panicked");
    Ok(soaked)
}

/// Where the journal is, if there is one.
fn journal(options: &SoakOptions) -> Option<PathBuf> {
    options.journal.then(|| std::env::temp_dir().join(format!("maze-soak-journal-{}", std::process::id())))
}

fn command(options: &SoakOptions) -> Result<String, String> {
    if !(options.minutes > 0.0 && options.minutes.is_finite()) {
        return Err(format!("minutes {}: accepted is a number above 0", options.minutes));
    }
    let server = match &options.server {
        Some(command) => command.clone(),
        None => {
            let own = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
            let beside = own.with_file_name("fortnight");
            if !beside.exists() {
                return Err(format!(
                    "server: {} is not there; build it, or say --server 'CMD'",
                    beside.display()
                ));
            }
            shlex::try_quote(&beside.to_string_lossy()).map(std::borrow::Cow::into_owned).unwrap_or_default()
        }
    };
    let journal = journal(options).map(|folder| format!("--journal-directory {}", folder.display()));
    let more = journal.unwrap_or_else(|| "--reset-on-source-eof true".to_owned());
    Ok(format!("{server} {SERVER_OPTIONS} {more}"))
}

fn store(options: &SoakOptions, about: &machine::Machine, soaked: &Soaked) -> Result<(), String> {
    let write = |name: &str, text: String| {
        let file = options.out.join(name);
        std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))
    };
    let value = json!({
        "section": "soak",
        "machine": about,
        "totals": soaked.totals,
        "at_start": soaked.at_start,
        "peak_bytes": soaked.peak_bytes,
        "trends": soaked.trends(),
        "trouble": soaked.trouble,
        "rests": soaked.rests,
        "samples": soaked.samples,
    });
    write("soak.json", format!("{value:#}\n"))?;
    write("soak.md", format!("# soak\n\n{about}.\n\n{}", soaked.table()))?;
    soaked.draw(&options.out.join("soak.svg"))
}

/// `maze soak`.
pub fn soak(options: &SoakOptions) -> ExitCode {
    start_log(LogLevel::Info);
    raise_open_files();
    let command = match command(options) {
        Ok(command) => command,
        Err(sentence) => return refuse(&sentence),
    };
    if let Err(error) = std::fs::create_dir_all(&options.out) {
        return refuse(&format!("out {}: {error}", options.out.display()));
    }
    let about = machine::describe();
    let outcome = run(options, &command).and_then(|soaked| store(options, &about, &soaked).map(|()| soaked));
    if let Some(folder) = journal(options) {
        match &outcome {
            Ok(Soaked { trouble: Some(_), .. }) => println!("the journal stays in {}", folder.display()),
            Ok(_) | Err(_) => _ = std::fs::remove_dir_all(folder),
        }
    }
    match outcome {
        Ok(soaked) => tell(options, &soaked),
        Err(sentence) => {
            eprintln!("maze: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn tell(options: &SoakOptions, soaked: &Soaked) -> ExitCode {
    println!("\n{}\nwrote {}", soaked.table(), options.out.join("soak.svg").display());
    if let Some(trouble) = &soaked.trouble {
        println!("{trouble}");
        return ExitCode::FAILURE;
    }
    let trends = soaked.trends();
    let growing: Vec<&Trend> = trends.iter().filter(|trend| !trend.is_flat()).collect();
    for trend in &growing {
        println!("NOT FLAT: {} grew by {:.1} % after the warm-up", trend.name, trend.growth() * 100.0);
    }
    if !growing.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("flat: memory and descriptors\n{ALL_RECEIVED}");
    ExitCode::SUCCESS
}
