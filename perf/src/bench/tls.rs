//! TLS: what it costs beside a limit that only encrypts and writes, what handshakes cost beside the library alone, what
//! it costs those who do not use it, and what a crowd of handshakes does to those who are connected.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rcgen::SignatureAlgorithm;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use serde::Serialize;

use super::{Bench, Contender, Prepared, Spread};
use crate::access::{Access, make_certificates, server_config};
use crate::block::Expect;
use crate::drive::{self, Failure, Progress};
use crate::process::{Addresses, Server, cpu_ns};
use crate::report::Figures;
use crate::workload::{Shape, Workload};

/// CPU time per delivery, divided by the limit's.
const LIMIT_TARGET: f64 = 1.3;
/// CPU time per delivery in clear, where another port speaks TLS, divided by that where none does: a difference that the noise
/// hides.
const CLEAR_TARGET: f64 = 1.03;
/// Handshakes per second of one core, divided by the library's own.
const HANDSHAKE_TARGET: f64 = 0.7;
/// The source is read in pieces of this size by both, so both encrypt and write the same pieces.
const READ_MAX: usize = 256 << 10;
/// Connections of a flood.
const FLOOD: usize = 5_000;
/// Handshakes side by side. One after another would make each of them pay for two sleeps of the server.
const CROWD: usize = 32;
/// Events per second during a flood.
const RATE: f64 = 10_000.0;

#[derive(Debug, Serialize)]
struct Row {
    what: String,
    own: Spread,
    other: Spread,
    unit: &'static str,
    ratio: Spread,
    target: String,
    is_met: bool,
}

#[derive(Debug, Serialize)]
struct Flood {
    what: &'static str,
    /// Connections that it made.
    connections: usize,
    /// Milliseconds.
    p50: f64,
    p99: f64,
}

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    let files = Files::new("ecdsa", &rcgen::PKCS_ECDSA_P256_SHA256)?;
    let rsa = Files::new("rsa", &rcgen::PKCS_RSA_SHA256)?;
    let mut rows = vec![over_tls(bench, &files)?, in_clear(bench, &files)?];
    rows.extend(handshakes(bench, &files, "ECDSA P-256")?);
    rows.extend(handshakes(bench, &rsa, "RSA-2048")?);
    let floods = floods(bench, &files)?;
    let mut text = String::from(
        "| | fortnight | beside | unit | quotient | target |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for Row { what, own, other, unit, ratio, target, is_met } in &rows {
        let verdict = bench.verdict(*is_met);
        let (own, other, ratio) = (own.told(), other.told(), ratio.told());
        let _ = writeln!(text, "| {what} | {own} | {other} | {unit} | {ratio} | {target}: {verdict} |");
    }
    let _ = writeln!(
        text,
        "\nTime from an event's turn to its delivery over TLS, 100 users, {RATE} events/s, while others connect. \
         The flood shares the load's core.\n\n| flood | connections | p50, ms | p99, ms |\n| --- | --- | --- | --- |"
    );
    for Flood { what, connections, p50, p99 } in &floods {
        let _ = writeln!(text, "| {what} | {connections} | {p50:.2} | {p99:.2} |");
    }
    bench.store("tls", &(&rows, &floods), &text)
}

/// An authority and a server's certificate, in a folder of their own.
struct Files {
    folder: PathBuf,
    chain: PathBuf,
    key: PathBuf,
    authority: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Files {
    fn new(name: &str, algorithm: &'static SignatureAlgorithm) -> Result<Files, String> {
        let folder = std::env::temp_dir().join(format!("maze-bench-tls-{name}-{}", std::process::id()));
        let file = |name: &str| folder.join(name);
        let files = Files {
            chain: file("server.pem"),
            key: file("server.key"),
            authority: file("ca.pem"),
            folder: folder.clone(),
        };
        make_certificates(&folder, algorithm).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(files)
    }

    fn access(&self) -> Result<Access, String> {
        Access::over_tls("127.0.0.1", &self.authority, None, "users")
    }

    /// A server with the certificate, and more options.
    fn with(&self, who: &Contender, more: &str) -> Contender {
        let quoted = |path: &PathBuf| {
            shlex::try_quote(&path.to_string_lossy()).map(std::borrow::Cow::into_owned).unwrap_or_default()
        };
        let (chain, key) = (quoted(&self.chain), quoted(&self.key));
        let command = format!("{} --tls-certificate {chain} --tls-key {key} {more}", who.command);
        Contender { command, ..who.clone() }
    }
}

fn ns(figures: &Figures) -> f64 {
    figures.cpu_ns_per_delivery().unwrap_or(f64::NAN)
}

/// Two contenders in turns: CPU time per delivery of both.
fn compare(
    bench: &Bench,
    what: &str,
    (own, own_load): (&Contender, &mut Prepared),
    (other, other_load): (&Contender, &mut Prepared),
) -> Result<(Vec<f64>, Vec<f64>), String> {
    let (mut owns, mut others) = (Vec::new(), Vec::new());
    for pair in 0..bench.pairs {
        owns.push(ns(&bench.measure(own, own_load)?));
        others.push(ns(&bench.measure(other, other_load)?));
        let (own, other) = (owns[pair], others[pair]);
        println!("tls {what} {}/{}: {own:.2} and {other:.2} ns per delivery", pair + 1, bench.pairs);
    }
    Ok((owns, others))
}

fn row(what: &str, unit: &'static str, (owns, others): (Vec<f64>, Vec<f64>), most: f64) -> Row {
    let ratio = Spread::of(owns.iter().zip(&others).map(|(own, other)| own / other));
    Row {
        what: what.to_owned(),
        own: Spread::of(owns),
        other: Spread::of(others),
        unit,
        target: format!("at most {most}"),
        is_met: ratio.median <= most,
        ratio,
    }
}

/// Broadcasts to 1,000 users over TLS, beside a limit that encrypts the same pieces with the same library, and writes them.
fn over_tls(bench: &Bench, files: &Files) -> Result<Row, String> {
    let load = Workload { connected: 1000, users: 1000, ..Workload::of_shape(Shape::Broadcast, bench.scale) };
    let mut protocol = bench.prepare(&load, Expect::Protocol, None)?;
    let mut pattern = bench.prepare(&load, Expect::Pattern, None)?;
    (protocol.settings.access, pattern.settings.access) = (files.access()?, files.access()?);
    let server = files.with(&bench.servers[0], "--tls-ports users");
    let limit = files.with(&bench.limit, &format!("--read-max {READ_MAX}"));
    let runs = compare(bench, "broadcast", (&server, &mut protocol), (&limit, &mut pattern))?;
    Ok(row(
        "broadcast to 1,000 users over TLS, beside the limit",
        "ns of CPU per delivery",
        runs,
        LIMIT_TARGET,
    ))
}

/// The same in clear: beside a server that knows no TLS at all.
fn in_clear(bench: &Bench, files: &Files) -> Result<Row, String> {
    let load = Workload { connected: 1000, users: 1000, ..Workload::of_shape(Shape::Broadcast, bench.scale) };
    let mut first = bench.prepare(&load, Expect::Protocol, None)?;
    let mut second = bench.prepare(&load, Expect::Protocol, None)?;
    let server = files.with(&bench.servers[0], "--tls-ports admin");
    let runs = compare(bench, "in clear", (&server, &mut first), (&bench.servers[0], &mut second))?;
    Ok(row(
        "broadcast to 1,000 users in clear where another port speaks TLS, beside none",
        "ns of CPU per delivery",
        runs,
        CLEAR_TARGET,
    ))
}

/// Full handshakes of a crowd, beside `maze limit`, which makes them on sockets as well, and beside the library's side of them in
/// memory.
fn handshakes(bench: &Bench, files: &Files, keys: &str) -> Result<[Row; 2], String> {
    let crowds = ((3_000.0 * bench.scale) as usize / CROWD).max(1);
    let client = client_config(files)?;
    let server = start(bench, &files.with(&bench.servers[0], "--tls-ports users"))?;
    let limit = start(bench, &files.with(&bench.limit, ""))?;
    let (mut owns, mut limits, mut libraries) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..bench.pairs {
        let own = on_sockets(&server, &client, crowds)?;
        let limit = on_sockets(&limit, &client, crowds)?;
        let library = library(files, &client, crowds * CROWD)?;
        println!(
            "tls handshakes, {keys}, {}/{}: {:.1} µs, the limit {:.1} µs, the library alone {:.1} µs",
            pair + 1,
            bench.pairs,
            own / 1e3,
            limit / 1e3,
            library / 1e3
        );
        owns.push(1e9 / own);
        limits.push(1e9 / limit);
        libraries.push(1e9 / library);
    }
    let row = |beside: &str, others: Vec<f64>| {
        let ratio = Spread::of(owns.iter().zip(&others).map(|(own, other)| own / other));
        Row {
            what: format!("full handshakes per second of one core, {keys}, {CROWD} at once, beside {beside}"),
            own: Spread::of(owns.iter().copied()),
            other: Spread::of(others),
            unit: "handshakes/s",
            target: format!("at least {HANDSHAKE_TARGET}"),
            is_met: ratio.median >= HANDSHAKE_TARGET,
            ratio,
        }
    };
    Ok([row("the limit, which has the same sockets", limits), row("the library alone, in memory", libraries)])
}

/// Nanoseconds of CPU time that a server takes for one of so many crowds of full handshakes. The connections stay until all are
/// made: closing them is no part of a handshake.
fn on_sockets(server: &Server, client: &Arc<ClientConfig>, crowds: usize) -> Result<f64, String> {
    let now = || cpu_ns(server.pid()).ok_or("the CPU time of a server cannot be read");
    let before = now()?;
    let mut open = Vec::with_capacity(crowds);
    for _ in 0..crowds {
        open.push(crowd(server.addresses.users, client).map_err(|error| format!("a handshake: {error}"))?);
    }
    let spent = now()? - before;
    drop(open);
    // The ends of the connections are not the work of the next measurement.
    std::thread::sleep(Duration::from_millis(500));
    Ok(spent as f64 / (crowds * CROWD) as f64)
}

/// Makes so many full handshakes side by side. A session ticket says that the server has come to the end of each.
fn crowd(at: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Vec<(TcpStream, ClientConnection)>> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut guests = Vec::with_capacity(CROWD);
    for _ in 0..CROWD {
        let mut socket = TcpStream::connect(at)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut tls = ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?;
        tls.write_tls(&mut socket)?;
        guests.push((socket, tls));
    }
    for (socket, tls) in &mut guests {
        while tls.is_handshaking() {
            tls.complete_io(socket)?;
        }
    }
    for (socket, tls) in &mut guests {
        while tls.tls13_tickets_received() == 0 {
            if tls.read_tls(socket)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
    Ok(guests)
}

/// Nanoseconds that the server's side of one of so many handshakes in memory takes.
fn library(files: &Files, client: &Arc<ClientConfig>, count: usize) -> Result<f64, String> {
    let server = server_config(&files.chain, &files.key)?;
    let mut spent = Duration::ZERO;
    for _ in 0..count {
        spent += one_handshake(&server, client).map_err(|error| format!("a handshake in memory: {error}"))?;
    }
    Ok(spent.as_nanos() as f64 / count as f64)
}

fn client_config(files: &Files) -> Result<Arc<ClientConfig>, String> {
    let broken = |error: &dyn std::fmt::Display| format!("{}: {error}", files.authority.display());
    let mut roots = RootCertStore::empty();
    let root =
        rustls::pki_types::CertificateDer::from_pem_file(&files.authority).map_err(|error| broken(&error))?;
    roots.add(root).map_err(|error| broken(&error))?;
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| broken(&error))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn one_handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> io::Result<Duration> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut client = ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)?;
    let begin = Instant::now();
    let mut server = ServerConnection::new(Arc::clone(server)).map_err(io::Error::other)?;
    let mut spent = begin.elapsed();
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut to_server)?;
        }
        let begin = Instant::now();
        let mut rest = &to_server[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest)?;
            server.process_new_packets().map_err(io::Error::other)?;
        }
        while server.wants_write() {
            server.write_tls(&mut to_client)?;
        }
        spent += begin.elapsed();
        let mut rest = &to_client[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest)?;
            client.process_new_packets().map_err(io::Error::other)?;
        }
        to_server.clear();
        to_client.clear();
    }
    Ok(spent)
}

fn start(bench: &Bench, who: &Contender) -> Result<Server, String> {
    Server::start(&who.command, &[], bench.server_core, Addresses::resolve("127.0.0.1", 9090, 9099)?)
}

/// Delivery while others shake hands, or begin to.
fn floods(bench: &Bench, files: &Files) -> Result<Vec<Flood>, String> {
    type Attack = fn(SocketAddr, &Files, &AtomicBool) -> usize;
    let attacks: [(&'static str, Attack); 3] =
        [("none", |_, _, _| 0), ("half handshakes", half), ("full handshakes", full)];
    let seconds = (5.0 * bench.scale).max(1.0);
    let load = Workload { events: (RATE * seconds).ceil() as u64, ..Workload::of_shape(Shape::Maze, 1.0) };
    let who = files.with(&bench.servers[0], "--tls-ports users");
    let mut floods = Vec::new();
    for (what, attack) in attacks {
        let mut prepared = bench.prepare(&load, Expect::Protocol, Some(RATE))?;
        let server = start(bench, &who)?;
        let settings = &mut prepared.settings;
        (settings.addresses, settings.pid) = (server.addresses, Some(server.pid()));
        (settings.access, settings.spin) = (files.access()?, false);
        let (users, done) = (server.addresses.users, AtomicBool::new(false));
        // Events flow: the users are connected.
        let flows = AtomicBool::new(false);
        let (connections, outcome) = std::thread::scope(|scope| {
            let attacker = scope.spawn(|| {
                while !flows.load(Ordering::Relaxed) && !done.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                attack(users, files, &done)
            });
            let outcome = drive::run(settings, &mut prepared.book, &mut |progress| {
                flows.fetch_or(matches!(progress, Progress::Running { .. }), Ordering::Relaxed);
            });
            done.store(true, Ordering::Relaxed);
            (attacker.join().unwrap_or(0), outcome)
        });
        let figures = outcome.map_err(|trouble| match trouble {
            Failure::Fault(fault) => format!("{what}:\n{fault}"),
            Failure::Failed(sentence) => format!("{what}: {sentence}"),
        })?;
        let times: Histogram<u64> = figures.latency.ok_or("latency: it was not measured")?;
        let ms = |share| times.value_at_quantile(share) as f64 / 1e6;
        let (p50, p99) = (ms(0.5), ms(0.99));
        println!("tls flood of {what}: {connections} connections, p50 {p50:.2} ms, p99 {p99:.2} ms");
        floods.push(Flood { what, connections, p50, p99 });
    }
    Ok(floods)
}

/// Opens connections that begin a handshake and say nothing more.
fn half(users: SocketAddr, files: &Files, done: &AtomicBool) -> usize {
    let hello = client_config(files).ok().and_then(|config| {
        let name = ServerName::try_from("localhost").ok()?;
        let mut hello = Vec::new();
        ClientConnection::new(config, name).ok()?.write_tls(&mut hello).ok()?;
        hello.truncate(hello.len() / 2);
        Some(hello)
    });
    let Some(hello) = hello else { return 0 };
    let mut open = Vec::new();
    while !done.load(Ordering::Relaxed) && open.len() < FLOOD {
        let Ok(mut stream) = TcpStream::connect_timeout(&users, Duration::from_millis(100)) else { continue };
        let _ = stream.write_all(&hello);
        open.push(stream);
    }
    stay(&open, done)
}

/// Shakes hands to the end, and says nothing more.
fn full(users: SocketAddr, files: &Files, done: &AtomicBool) -> usize {
    let Ok(access) = files.access() else { return 0 };
    let mut open = Vec::new();
    while !done.load(Ordering::Relaxed) && open.len() < FLOOD {
        open.extend(access.user(users, None));
    }
    stay(&open, done)
}

/// Keeps the connections of a flood open until it is over, and counts them.
fn stay<T>(open: &[T], done: &AtomicBool) -> usize {
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
    }
    open.len()
}
