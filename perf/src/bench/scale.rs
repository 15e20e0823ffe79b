//! More than one process: what an edge costs, what a second core brings, what the replicated log carries and how soon another
//! sequencer takes over.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::nats::{Nats, free_port};
use super::{Bench, Spread};
use crate::block::Expect;
use crate::drive::{self, Failure};
use crate::process::{Addresses, Server, cpu_ns};
use crate::report::Figures;
use crate::workload::{Shape, Workload};

/// Events per second where the stream port's share of the latency is measured.
const RATE: f64 = 20_000.0;
/// The takeover time of the sequencers that are measured.
const TAKEOVER: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    measured: Spread,
    /// `<= 1.10`, or the like.
    target: String,
    is_met: bool,
    note: String,
}

/// A process that is measured, and the folder of its journal.
struct Process {
    server: Server,
    folder: Option<PathBuf>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.server.stop();
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Process {
    fn start(bench: &Bench, options: &str, core: Option<usize>) -> Result<Process, String> {
        let command = format!("{} {options}", bench.servers[0].command);
        let fallback = Addresses::resolve("127.0.0.1", 9090, 9099)?;
        Ok(Process { server: Server::start(&command, &[], core, fallback)?, folder: None })
    }

    /// With a journal in a folder of its own.
    fn kept(bench: &Bench, name: &str, options: &str) -> Result<Process, String> {
        let folder = std::env::temp_dir().join(format!("maze-bench-scale-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let path = folder.to_string_lossy();
        let path = shlex::try_quote(&path).map_err(|error| format!("{}: {error}", folder.display()))?;
        let kept = "--journal-retention-bytes 68719476736 --user-mark-ms 0";
        let options = format!("--journal-directory {path} {kept} {options}");
        let mut process = Process::start(bench, &options, bench.server_core)?;
        process.folder = Some(folder);
        Ok(process)
    }

    fn cpu(&self) -> u64 {
        cpu_ns(self.server.pid()).unwrap_or(0)
    }
}

/// Returns when a login is answered there: an edge has reached its stream.
fn wait_for_edge(edge: &Process) -> Result<(), String> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let answer = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(edge.server.addresses.users)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"18446744073709551615|now\n")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(line)
        };
        if answer().is_ok_and(|line| line.starts_with("+|")) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("scale: an edge does not reach its stream".into())
}

/// Returns when somebody listens there, and how long that took.
fn wait_for_port(address: SocketAddr) -> Result<Duration, String> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if TcpStream::connect(address).is_ok() {
            return Ok(begin.elapsed());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("scale: nobody listens at {address}"))
}

/// Sends the events of a workload to one process, has the users at another, and gives the figures of the latter.
fn drive_between(
    bench: &Bench,
    load: &Workload,
    rate: Option<f64>,
    (first, last): (&Process, &Process),
) -> Result<Figures, String> {
    let mut prepared = bench.prepare(load, Expect::Protocol, rate)?;
    let settings = &mut prepared.settings;
    let (source, users) = (first.server.addresses.source, last.server.addresses.users);
    settings.addresses = Addresses { source, users };
    settings.pid = Some(last.server.pid());
    drive::run(settings, &mut prepared.book, &mut |_| {}).map_err(|trouble| match trouble {
        Failure::Fault(fault) => format!("scale:\n{fault}"),
        Failure::Failed(sentence) => format!("scale: {sentence}"),
    })
}

fn per_delivery(figures: &Figures) -> Result<f64, String> {
    figures.cpu_ns_per_delivery().ok_or_else(|| "scale: the server's CPU time cannot be read".to_owned())
}

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    let mut rows = vec![edge_cost(bench)?, second_core(bench)?, latency(bench)?];
    match Nats::start()? {
        Some(nats) => rows.extend([throughput(bench, &nats)?, takeover(bench, &nats)?]),
        None => eprintln!("scale: nats-server is not installed, so the replicated log is not measured"),
    }
    let mut text = String::from("| what | measured | target | | |\n| --- | --- | --- | --- | --- |\n");
    for Row { what, unit, measured, target, is_met, note } in &rows {
        let (told, verdict) = (measured.told(), bench.verdict(*is_met));
        let _ = writeln!(text, "| {what} | {told}{unit} | {target} | {verdict} | {note} |");
    }
    bench.store("scale", &rows, &text)
}

fn told(row: Row) -> Row {
    println!("{}: {}{} (target {}) {}", row.what, row.measured.told(), row.unit, row.target, row.note);
    row
}

/// CPU time per delivery of an edge with a journal, beside that of a single server with a journal.
fn edge_cost(bench: &Bench) -> Result<Row, String> {
    let load = Workload::of_shape(Shape::Maze, 0.5 * bench.scale);
    let mut ratios = Vec::new();
    for _ in 0..bench.pairs {
        let single = Process::kept(bench, "single", "")?;
        let alone = per_delivery(&drive_between(bench, &load, None, (&single, &single))?)?;
        drop(single);
        let (first, edge) = with_edge(bench, true)?;
        ratios.push(per_delivery(&drive_between(bench, &load, None, (&first, &edge))?)? / alone);
    }
    let measured = Spread::of(ratios);
    Ok(told(Row {
        what: "an edge with a journal: CPU per delivery × a single server with a journal".into(),
        unit: "",
        measured,
        target: "≤ 1.10".into(),
        is_met: measured.median <= 1.10,
        note: String::new(),
    }))
}

/// A server with a stream port, and an edge that has reached it.
fn with_edge(bench: &Bench, is_kept: bool) -> Result<(Process, Process), String> {
    let port = free_port()?;
    // It runs beside the load: what is measured is the other one. It is faster than an edge with users, and it has no journal
    // from which an edge could be served that is behind: so it keeps what the edge has not taken yet.
    let first = Process::start(bench, &format!("--stream-port {port} --user-buffer-bytes 1073741824"), None)?;
    let edge = format!("--role edge --stream tcp://127.0.0.1:{port}");
    let edge = if is_kept {
        Process::kept(bench, "edge", &edge)?
    } else {
        Process::start(bench, &edge, bench.server_core)?
    };
    wait_for_edge(&edge)?;
    Ok((first, edge))
}

/// What two cores deliver with half of the users at each of two processes, by the CPU time of the busier one.
///
/// The load takes a core of its own, so two servers at full speed would share one on a machine with two. CPU time says what
/// each needs a core for.
fn second_core(bench: &Bench) -> Result<Row, String> {
    let whole = Workload::of_shape(Shape::Dense, bench.scale);
    let half = Workload { connected: whole.connected / 2, ..whole.clone() };
    let (mut ratios, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..bench.pairs {
        let single = Process::start(bench, "", bench.server_core)?;
        drive_between(bench, &whole, None, (&single, &single))?;
        let alone = single.cpu();
        drop(single);
        // One of two servers that know nothing of each other, each with all events and half of the users.
        let independent = Process::start(bench, "", bench.server_core)?;
        drive_between(bench, &half, None, (&independent, &independent))?;
        limits.push(alone as f64 / independent.cpu() as f64);
        drop(independent);
        let (first, edge) = with_edge(bench, false)?;
        drive_between(bench, &half, None, (&first, &first))?;
        let first_cpu = first.cpu();
        drop((first, edge));
        let (first, edge) = with_edge(bench, false)?;
        drive_between(bench, &half, None, (&first, &edge))?;
        ratios.push(alone as f64 / first_cpu.max(edge.cpu()) as f64);
    }
    let (measured, limit) = (Spread::of(ratios), Spread::of(limits));
    Ok(told(Row {
        what: "a second core: deliveries per CPU time of the busier process × one process, users halved"
            .into(),
        unit: "",
        measured,
        target: "≥ 1.7".into(),
        is_met: measured.median >= 1.7,
        note: format!("two independent servers: {}", limit.told()),
    }))
}

/// What the stream port adds to the way from source to user.
fn latency(bench: &Bench) -> Result<Row, String> {
    let events = (RATE * (10.0 * bench.scale).max(0.5)) as u64;
    let load = Workload { events, ..Workload::of_shape(Shape::Maze, 1.0) };
    let p50 = |figures: &Figures| -> Result<f64, String> {
        let times = figures.latency.as_ref().ok_or("scale: latency was not measured")?;
        Ok(times.value_at_quantile(0.5) as f64 / 1e3)
    };
    let mut added = Vec::new();
    for _ in 0..bench.pairs {
        let single = Process::start(bench, "", bench.server_core)?;
        let without = p50(&drive_between(bench, &load, Some(RATE), (&single, &single))?)?;
        drop(single);
        let (first, edge) = with_edge(bench, false)?;
        added.push(p50(&drive_between(bench, &load, Some(RATE), (&first, &edge))?)? - without);
    }
    let measured = Spread::of(added);
    Ok(told(Row {
        what: format!("p50 through the stream port at {RATE} events/s, more than without"),
        unit: " µs",
        measured,
        target: "≤ 150 µs".into(),
        is_met: measured.median <= 150.0,
        note: String::new(),
    }))
}

fn sequencer(bench: &Bench, stream: &str) -> Result<Process, String> {
    let takeover = TAKEOVER.as_millis();
    let port = free_port()?;
    let options = format!(
        "--role sequencer --stream {stream} --stream-retention-bytes 1073741824 --stream-takeover-ms {takeover} \
         --event-source-server-port {port}"
    );
    Process::start(bench, &options, None)
}

/// Events per second from a source over a sequencer and three NATS servers to an edge with one user.
fn throughput(bench: &Bench, nats: &Nats) -> Result<Row, String> {
    let load = Workload { connected: 1, ..Workload::of_shape(Shape::Maze, 0.5 * bench.scale) };
    let (mut rates, mut notes) = (Vec::new(), Vec::new());
    for pair in 0..bench.pairs {
        let stream = nats.stream(&format!("bench{pair}"));
        let sequencer = sequencer(bench, &stream)?;
        wait_for_port(sequencer.server.addresses.source)?;
        let edge = Process::start(bench, &format!("--role edge --stream {stream}"), None)?;
        wait_for_edge(&edge)?;
        let before = [nats.cpu(), sequencer.cpu(), edge.cpu()];
        let figures = drive_between(bench, &load, None, (&sequencer, &edge))?;
        let after = [nats.cpu(), sequencer.cpu(), edge.cpu()];
        let busy = |index: usize| (after[index] - before[index]) as f64 / 1e9 / figures.seconds;
        rates.push(figures.events as f64 / figures.seconds / 1e6);
        notes.push(format!(
            "cores busy: NATS {:.2}, sequencer {:.2}, edge {:.2}, load {:.2}",
            busy(0),
            busy(1),
            busy(2),
            figures.tool_busy()
        ));
    }
    let measured = Spread::of(rates);
    Ok(told(Row {
        what: "events through a sequencer, three NATS servers and an edge".into(),
        unit: " M/s",
        measured,
        target: "≥ 1 M/s".into(),
        is_met: measured.median >= 1.0,
        note: notes.pop().unwrap_or_default(),
    }))
}

/// From the death of the leader until the other sequencer listens.
fn takeover(bench: &Bench, nats: &Nats) -> Result<Row, String> {
    let mut times = Vec::new();
    for pair in 0..bench.pairs {
        let stream = nats.stream(&format!("takeover{pair}"));
        let mut first = sequencer(bench, &stream)?;
        wait_for_port(first.server.addresses.source)?;
        let second = sequencer(bench, &stream)?;
        // It has read the log, and hears the leader.
        std::thread::sleep(Duration::from_secs(3));
        first.server.kill();
        times.push(wait_for_port(second.server.addresses.source)?.as_secs_f64());
    }
    let measured = Spread::of(times);
    let most = TAKEOVER.as_secs_f64() + 1.0;
    Ok(told(Row {
        what: format!("takeover after the leader was killed, with streamTakeoverMs={}", TAKEOVER.as_millis()),
        unit: " s",
        measured,
        target: format!("≤ {most:.1} s"),
        is_met: measured.most <= most,
        note: String::new(),
    }))
}
