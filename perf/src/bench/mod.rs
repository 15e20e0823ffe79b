//! `maze bench`: every figure of the project, measured the same way each time.
//!
//! Whatever is compared runs in turns, in one run on one machine (A, limit, A, limit, …), the server alone on one core
//! and the load on another. What is reported is the median of the ratios of neighbours, and how far they spread:
//! a noisy machine shows as a wide spread and not as a wrong result.

mod journal;
mod latency;
pub(crate) mod machine;
mod metrics;
mod nats;
mod resume;
mod returning;
mod scale;
mod shapes;
mod sweeps;
mod tls;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};

use crate::access::Access;
use crate::block::Expect;
use crate::book::Book;
use crate::console::{LogLevel, refuse, start_log};
use crate::drive::{self, Failure};
use crate::plan::Plan;
use crate::process::{Addresses, Server, pin, raise_open_files};
use crate::report::Figures;
use crate::settings::Settings;
use crate::workload::{Shape, Workload};

/// The benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// CPU time per delivery and wall time of every shape, divided by the limit
    Shapes,
    /// CPU time per delivery from 100 to 10,000 connected users
    Users,
    /// Peak memory against events, memory per idle user, and at the start
    Memory,
    /// CPU time per delivery against the batch size that events are shuffled in
    Batches,
    /// Latency at a fixed rate, with and without `busyPoll`, next to the limit
    Latency,
    /// Latency at 20,000 events/s, beside `maze naive`, which writes each event at once
    Calm,
    /// The journal: CPU time, throughput and latency beside a server without one, starts, and turns while snapshots are taken
    Journal,
    /// Users that come back: catching up beside delivering live, and what it takes from others
    Resume,
    /// TLS: deliveries beside a limit that encrypts, handshakes beside the library, and floods of handshakes
    Tls,
    /// Edges, a second core, and the replicated log (needs `nats-server`)
    Scale,
    /// All of them
    All,
}

impl Section {
    /// Scale and number of comparisons, unless others are asked for. Below that scale nothing is said about targets.
    fn usual(self) -> (f64, usize) {
        match self {
            Section::Users => (0.3, 5),
            Section::Memory => (1.0, 1),
            Section::Batches | Section::Resume | Section::Scale => (1.0, 3),
            Section::Journal | Section::Tls => (1.0, 5),
            Section::Latency | Section::Calm => (1.0, 11),
            Section::Shapes | Section::All => (1.0, 7),
        }
    }
}

/// Options of `maze bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchOptions {
    /// What to measure
    #[arg(value_enum, default_values = ["all"])]
    pub sections: Vec<Section>,
    /// The server to measure [default: the `fortnight` beside this program]. It must print its `listening` line
    #[arg(long, value_name = "CMD")]
    pub server: Option<String>,
    /// Any other server to measure as well; it listens on ports 9090 and 9099 or says where
    #[arg(long, value_name = "CMD")]
    pub against: Vec<String>,
    /// Shapes to run, if not all
    #[arg(long, value_enum, value_delimiter = ',')]
    pub shapes: Vec<Shape>,
    /// Shrinks all numbers of events [default: 1, for users 0.3]
    #[arg(long)]
    pub scale: Option<f64>,
    /// How many times each comparison is made; of CPU time beside a journal, three times as many [default: shapes 7, users 5, memory 1, batches 3, latency 11, calm 11, journal 5, resume 3, tls 5, scale 3]
    #[arg(long)]
    pub pairs: Option<usize>,
    /// Events per second where latency is measured
    #[arg(long, default_value_t = 100_000.0)]
    pub rate: f64,
    /// Where results go
    #[arg(long, value_name = "DIR", default_value = "perf/results")]
    pub out: PathBuf,
    /// Core for servers [default: 0 where there are two]
    #[arg(long)]
    pub server_core: Option<usize>,
    /// Core for the load [default: 1 where there are two]
    #[arg(long)]
    pub core: Option<usize>,
}

/// A server that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) expect: Expect,
}

/// Everything that the sections share.
pub(crate) struct Bench {
    pub(crate) scale: f64,
    pub(crate) pairs: usize,
    pub(crate) rate: f64,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) servers: Vec<Contender>,
    /// The first of them with defaults, but for its ports.
    pub(crate) plain: Contender,
    pub(crate) limit: Contender,
    /// It runs at the usual scale of its section or above: targets can be judged.
    is_whole: bool,
    server_core: Option<usize>,
    maze: String,
    out: PathBuf,
}

impl Bench {
    fn new(options: &BenchOptions) -> Result<Bench, String> {
        if let Some(scale) = options.scale.filter(|scale| !(*scale > 0.0 && *scale <= 10.0)) {
            return Err(format!("scale {scale}: accepted is a number above 0, up to 10"));
        }
        if options.pairs == Some(0) {
            return Err("pairs 0: accepted is 1 or more".into());
        }
        let program = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
        let quoted = |path: &Path| {
            shlex::try_quote(&path.to_string_lossy()).map(std::borrow::Cow::into_owned).unwrap_or_default()
        };
        let beside = program.with_file_name("fortnight");
        let (plain, server) = match &options.server {
            Some(command) => (command.clone(), command.clone()),
            None if beside.exists() => {
                let ports = "--event-source-server-port 0 --user-server-port 0 --log-level warn";
                let plain = format!("{} {ports}", quoted(&beside));
                (plain.clone(), format!("{plain} --max-user-clients 12000"))
            }
            None => {
                return Err(format!(
                    "server: {} is not there; build it, or say --server 'CMD'",
                    beside.display()
                ));
            }
        };
        let own = |command| Contender { name: "fortnight".into(), command, expect: Expect::Protocol };
        let (plain, mut servers) = (own(plain), vec![own(server)]);
        for command in &options.against {
            let words = shlex::split(command).unwrap_or_default();
            let mut words = words.iter().skip_while(|word| word.contains('='));
            let name = words.next().and_then(|word| Path::new(word).file_name()?.to_str()).unwrap_or("other");
            // This program can be more than one server.
            let name = match words.next() {
                Some(which) if name == "maze" => format!("maze {which}"),
                _ => name.to_owned(),
            };
            servers.push(Contender { name, command: command.clone(), expect: Expect::Protocol });
        }
        let two = std::thread::available_parallelism().is_ok_and(|cores| cores.get() >= 2);
        let server_core = options.server_core.or(two.then_some(0));
        if let Some(core) = options.core.or(two.then_some(1)) {
            pin(core)?;
        }
        let maze = quoted(&program);
        let command = format!("{maze} limit --event-source-server-port 0 --user-server-port 0");
        let shapes = if options.shapes.is_empty() { Shape::BENCH.to_vec() } else { options.shapes.clone() };
        Ok(Bench {
            scale: 1.0,
            pairs: 1,
            is_whole: true,
            plain,
            rate: options.rate,
            shapes,
            servers,
            limit: Contender { name: "limit".into(), command, expect: Expect::Pattern },
            server_core,
            maze,
            out: options.out.clone(),
        })
    }

    /// From here on a section is measured.
    fn begin(&mut self, section: Section, options: &BenchOptions) {
        let (scale, pairs) = section.usual();
        self.scale = options.scale.unwrap_or(scale);
        self.pairs = options.pairs.unwrap_or(pairs);
        self.is_whole = self.scale >= scale;
    }

    /// What to say about a target. With fewer events nothing: what they begin with weighs more, and a graph is smaller.
    pub(crate) fn verdict(&self, is_met: bool) -> &'static str {
        match is_met {
            _ if !self.is_whole => "not judged at this scale",
            true => "met",
            false => "missed",
        }
    }

    /// `maze limit --forward`, for latency.
    pub(crate) fn forwarding_limit(&self) -> Contender {
        let ports = "--event-source-server-port 0 --user-server-port 0";
        let command = format!("{} limit --forward {ports}", self.maze);
        Contender { name: "limit".into(), command, expect: Expect::Forward }
    }

    /// `maze naive`.
    pub(crate) fn naive(&self) -> Contender {
        let command = format!("{} naive --event-source-server-port 0 --user-server-port 0", self.maze);
        Contender { name: "maze naive".into(), command, expect: Expect::Protocol }
    }

    /// A workload ready to be run many times.
    pub(crate) fn prepare(
        &self,
        load: &Workload,
        expect: Expect,
        rate: Option<f64>,
    ) -> Result<Prepared, String> {
        load.check()?;
        let settings = Settings {
            load: load.clone(),
            expect,
            addresses: Addresses::resolve("127.0.0.1", 9090, 9099)?,
            access: Access::default(),
            pid: None,
            timeout: Duration::from_secs(20),
            settle: Duration::from_millis(50),
            rate,
            spin: rate.is_some(),
            slow_users: 0,
            slow_rate: 0.0,
            slow_must_finish: false,
            slow_pulse: None,
            churn_resumes: false,
            churn_stay: Duration::ZERO,
            duration: None,
            memory: 6 << 30,
            measure_latency: rate.is_some(),
            sample_every: None,
            resume: false,
            kill_every: None,
        };
        let book = drive::prepare(&settings, &mut |_| {});
        let mut plan = None;
        if expect == Expect::Pattern {
            let file = std::env::temp_dir().join(format!(
                "maze-bench-plan-{}-{}.json",
                std::process::id(),
                load.shape.name()
            ));
            let made = if book.is_complete() { Plan::of_book(load, &book) } else { Plan::of_workload(load) };
            made.store(&file)?;
            plan = Some(PlanFile(file));
        }
        Ok(Prepared { settings, book, plan })
    }

    /// Starts the server, runs, ends the server.
    pub(crate) fn measure(&self, who: &Contender, prepared: &mut Prepared) -> Result<Figures, String> {
        let plan = prepared.plan.iter().map(|plan| ("mazePlan".to_owned(), plan.0.display().to_string()));
        let variables: Vec<(String, String)> = plan.collect();
        let server = Server::start(&who.command, &variables, self.server_core, prepared.settings.addresses)?;
        self.run_on(&server, prepared).map_err(|sentence| format!("{}: {sentence}", who.name))
    }

    /// Runs a workload on a server that has been started.
    pub(crate) fn run_on(&self, server: &Server, prepared: &mut Prepared) -> Result<Figures, String> {
        let settings = &mut prepared.settings;
        settings.addresses = server.addresses;
        settings.pid = Some(server.pid());
        let outcome = drive::run(settings, &mut prepared.book, &mut |_| {});
        if !prepared.book.is_complete() {
            // It did not fit, and its beginning has been given back.
            prepared.book = drive::prepare(settings, &mut |_| {});
        }
        outcome.map_err(|trouble| match trouble {
            Failure::Fault(fault) => format!("in shape {}:\n{fault}", settings.load.shape.name()),
            Failure::Failed(sentence) => sentence,
        })
    }

    /// Starts a server and leaves it idle.
    pub(crate) fn idle(&self, who: &Contender) -> Result<Server, String> {
        Server::start(&who.command, &[], self.server_core, Addresses::resolve("127.0.0.1", 9090, 9099)?)
    }

    /// The file of a result.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// Writes the JSON and the table of a section.
    pub(crate) fn store(
        &self,
        section: &str,
        figures: &impl Serialize,
        markdown: &str,
    ) -> Result<(), String> {
        let about = machine::describe();
        let value: Value = json!({
            "section": section,
            "machine": about,
            "scale": self.scale,
            "pairs": self.pairs,
            "figures": figures,
        });
        let write = |name: String, text: String| {
            let file = self.file(&name);
            std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
            println!("wrote {}", file.display());
            Ok::<(), String>(())
        };
        write(format!("{section}.json"), format!("{value:#}\n"))?;
        let pairs = if self.pairs == 1 { "once each".to_owned() } else { format!("{} pairs", self.pairs) };
        let how = format!("{about}; scale {}, {pairs}.", self.scale);
        write(format!("{section}.md"), format!("# {section}\n\n{how}\n\n{markdown}"))?;
        println!("\n{markdown}");
        Ok(())
    }
}

/// A workload, what is expected of it, and the plan for the limit server.
pub(crate) struct Prepared {
    pub(crate) settings: Settings,
    pub(crate) book: Book,
    plan: Option<PlanFile>,
}

struct PlanFile(PathBuf);

impl Drop for PlanFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Middle, least and most of a row of numbers.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        let ends = (values.first().copied(), values.last().copied());
        Spread { median, least: ends.0.unwrap_or(f64::NAN), most: ends.1.unwrap_or(f64::NAN) }
    }

    /// `1.23 (1.20 to 1.31)`.
    pub(crate) fn told(&self) -> String {
        format!("{:.2} ({:.2} to {:.2})", self.median, self.least, self.most)
    }
}

/// `maze bench`.
pub fn bench(options: &BenchOptions) -> ExitCode {
    start_log(LogLevel::Info);
    raise_open_files();
    let mut bench = match Bench::new(options) {
        Ok(bench) => bench,
        Err(sentence) => return refuse(&sentence),
    };
    if let Err(error) = std::fs::create_dir_all(&bench.out) {
        return refuse(&format!("out {}: {error}", bench.out.display()));
    }
    let wanted = |section| options.sections.iter().any(|s| *s == section || *s == Section::All);
    type Run = fn(&Bench) -> Result<(), String>;
    let all: [(Section, Run); 10] = [
        (Section::Shapes, shapes::run),
        (Section::Users, sweeps::users),
        (Section::Memory, sweeps::memory),
        (Section::Batches, sweeps::batches),
        (Section::Latency, latency::run),
        (Section::Calm, latency::calm),
        (Section::Journal, journal::run),
        (Section::Resume, resume::run),
        (Section::Tls, tls::run),
        (Section::Scale, scale::run),
    ];
    for (section, run) in all.into_iter().filter(|(section, _)| wanted(*section)) {
        bench.begin(section, options);
        if let Err(sentence) = run(&bench) {
            eprintln!("maze: {sentence}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn medians() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).told(), "2.00 (1.00 to 3.00)");
        assert_eq!(Spread::of([4.0, 1.0]).median, 2.5);
        assert!(Spread::of([]).median.is_nan());
    }
}
