//! Real NATS servers, for the tests of the replicated log: one or three of them on loopback, each with a folder of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{DEADLINE, private_address};

/// The program, if there is one: what the variable `NATS_SERVER` names, what `.ci/run` has put beside the build, or what is installed.
pub fn program() -> Option<PathBuf> {
    let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"));
    let cached = target.join("tools/nats-server");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join("nats-server"));
    named.into_iter().chain([cached]).chain(installed).find(|program| program.is_file())
}

/// A port of this address that nobody uses.
fn free_port(address: Ipv4Addr) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(21_000);
    loop {
        let port = u16::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).expect("a port that is free");
        if TcpListener::bind((address, port)).is_ok() {
            return port;
        }
    }
}

/// Servers of NATS with JetStream. They are killed, and their folders are removed, when it is dropped.
#[derive(Debug)]
pub struct Nats {
    folder: PathBuf,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    program: PathBuf,
    config: PathBuf,
    address: SocketAddr,
    /// Where it says how it is.
    monitor: SocketAddr,
    child: Option<Child>,
}

impl Nats {
    /// Starts this number of servers, as one cluster where there are several. `None`, and a message that no harness holds back, where the
    /// program is not installed.
    pub fn start(count: usize) -> Option<Nats> {
        Nats::start_with(count, "")
    }

    /// The same, with more lines in each configuration.
    pub fn start_with(count: usize, more: &str) -> Option<Nats> {
        let Some(program) = program() else {
            crate::skipped("nats-server is not installed; .ci/run installs it, or set NATS_SERVER");
            return None;
        };
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("fortnight-nats-{}-{number}", std::process::id()));
        let address = private_address();
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(address), free_port(address))).collect();
        let routes: Vec<String> =
            ports.iter().map(|(_, route)| format!("nats://{address}:{route}")).collect();
        let nodes = ports.iter().enumerate().map(|(index, &(port, route))| {
            let store = folder.join(format!("n{index}"));
            std::fs::create_dir_all(&store).expect("a folder");
            let config = store.join("nats.conf");
            let monitor = free_port(address);
            let mut text = format!(
                "server_name: n{index}\nlisten: \"{address}:{port}\"\nhttp: \"{address}:{monitor}\"\n\
                 jetstream {{ store_dir: {:?}, sync_interval: always, max_file_store: 2GB }}\n{more}\n",
                store.display().to_string(),
            );
            if count > 1 {
                let routes = routes.join(", ");
                text += &format!(
                    "cluster {{ name: fortnight, listen: \"{address}:{route}\", routes: [{routes}] }}\n"
                );
            }
            std::fs::write(&config, text).expect("a configuration");
            Node {
                program: program.clone(),
                config,
                address: (address, port).into(),
                monitor: (address, monitor).into(),
                child: None,
            }
        });
        let mut nats = Nats { nodes: nodes.collect(), folder };
        (0..count).for_each(|index| nats.restart(index));
        (0..count).for_each(|index| nats.wait_for(index));
        Some(nats)
    }

    /// The value of the option `stream` for a stream of that name.
    pub fn stream(&self, name: &str) -> String {
        let servers: Vec<String> = self.nodes.iter().map(|node| node.address.to_string()).collect();
        format!("nats://{}/{name}", servers.join(","))
    }

    /// How many servers there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Kills a server.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.nodes[index].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a server a signal.
    pub fn signal(&self, index: usize, signal: Signal) {
        if let Some(child) = &self.nodes[index].child {
            let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("a process id");
            kill_process(pid, signal).expect("a signal sent");
        }
    }

    /// Starts a server that has been killed.
    pub fn restart(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(node.config.with_extension("log"))
            .expect("a log");
        let child = Command::new(&node.program)
            .arg("--config")
            .arg(&node.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server");
        node.child = Some(child);
    }

    /// Forgets everything that a server has stored. It must have been killed.
    pub fn wipe(&mut self, index: usize) {
        let store = self.nodes[index].config.with_file_name("jetstream");
        let _ = std::fs::remove_dir_all(store);
    }

    /// What a server says of itself under this path.
    fn ask(&self, index: usize, path: &str, patience: Duration) -> std::io::Result<String> {
        let mut socket = TcpStream::connect_timeout(&self.nodes[index].monitor, patience)?;
        socket.set_read_timeout(Some(patience))?;
        socket.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Which server leads a stream, if one does and says so soon.
    pub fn leader(&self, stream: &str) -> Option<usize> {
        let path = "/jsz?accounts=true&streams=true";
        (0..self.nodes.len()).find_map(|index| {
            let answer = self.ask(index, path, Duration::from_millis(200)).ok()?;
            let (_, streams) = answer.split_once("\"stream_detail\"")?;
            let (_, found) = streams.split_once(&format!("\"name\": \"{stream}\""))?;
            let (_, leader) = found.split_once("\"leader\": \"n")?;
            leader.split('"').next()?.parse().ok().filter(|&leader| leader < self.nodes.len())
        })
    }

    /// Waits until a server has everything that the others have.
    pub fn wait_until_well(&self, index: usize) {
        let deadline = Instant::now() + 3 * DEADLINE;
        let is_well = || {
            Ok::<_, std::io::Error>(self.ask(index, "/healthz", Duration::from_secs(5))?.contains(" 200 "))
        };
        while !is_well().unwrap_or(false) {
            assert!(Instant::now() < deadline, "nats-server {index} does not get well");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a server answers.
    fn wait_for(&self, index: usize) {
        let deadline = Instant::now() + DEADLINE;
        let mut greeting = [0; 4];
        loop {
            let answered = TcpStream::connect(self.nodes[index].address).is_ok_and(|mut socket| {
                socket.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
                    && socket.read_exact(&mut greeting).is_ok()
            });
            if answered && greeting == *b"INFO" {
                return;
            }
            assert!(Instant::now() < deadline, "nats-server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|index| self.kill(index));
        if std::thread::panicking() {
            for node in &self.nodes {
                let log = std::fs::read_to_string(node.config.with_extension("log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("--- {}", node.config.display());
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
