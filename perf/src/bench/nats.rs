//! Three NATS servers on loopback, for the figures of the replicated log.

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::cpu_ns;

/// The program: what `NATS_SERVER` names, what `.ci/run` has put beside the build, or what is installed.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    let beside = std::env::current_exe().ok();
    let beside =
        beside.iter().flat_map(|own| own.ancestors().skip(1)).map(|folder| folder.join("tools/nats-server"));
    let here = Path::new("target/tools/nats-server").to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join("nats-server"));
    named.into_iter().chain(beside).chain([here]).chain(installed).find(|program| program.is_file())
}

/// A cluster of three, with a folder of its own. It ends when it is dropped.
pub(super) struct Nats {
    folder: PathBuf,
    nodes: Vec<Child>,
    ports: Vec<u16>,
}

impl Drop for Nats {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Ports that nobody uses at the moment.
fn free_ports<const N: usize>() -> Result<[u16; N], String> {
    let held = [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)));
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(held) {
        let address = listener.and_then(|listener| listener.local_addr());
        *port = address.map_err(|error| format!("a free port: {error}"))?.port();
    }
    Ok(ports)
}

/// A port that nobody uses at the moment.
pub(super) fn free_port() -> Result<u16, String> {
    free_ports::<1>().map(|[port]| port)
}

impl Nats {
    /// Starts them. `None`: `nats-server` is not installed.
    pub(super) fn start() -> Result<Option<Nats>, String> {
        let Some(program) = program() else { return Ok(None) };
        let folder = std::env::temp_dir().join(format!("maze-bench-nats-{}", std::process::id()));
        let (ports, routes) = (free_ports::<3>()?, free_ports::<3>()?);
        let mut nats = Nats { folder, nodes: Vec::new(), ports: ports.to_vec() };
        let all: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        for (index, (port, route)) in ports.into_iter().zip(routes).enumerate() {
            let store = nats.folder.join(index.to_string());
            let broken = |error: std::io::Error| format!("{}: {error}", store.display());
            std::fs::create_dir_all(&store).map_err(broken)?;
            let mut text = format!("server_name: n{index}\nlisten: \"127.0.0.1:{port}\"\n");
            let _ = writeln!(
                text,
                "jetstream {{ store_dir: {:?}, sync_interval: always }}",
                store.display().to_string()
            );
            let _ = writeln!(
                text,
                "cluster {{ name: maze, listen: \"127.0.0.1:{route}\", routes: [{}] }}",
                all.join(", ")
            );
            let config = store.join("nats.conf");
            std::fs::write(&config, text).map_err(broken)?;
            let mut command = Command::new(&program);
            command.arg("--config").arg(&config);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
            nats.nodes.push(child);
        }
        let begin = Instant::now();
        while nats.ports.iter().any(|&port| TcpStream::connect(("127.0.0.1", port)).is_err()) {
            if begin.elapsed() > Duration::from_secs(30) {
                return Err("nats-server does not listen within 30 s".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(nats))
    }

    /// The value of the option `stream` for a stream of this name.
    pub(super) fn stream(&self, name: &str) -> String {
        let servers: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("nats://{}/{name}", servers.join(","))
    }

    /// CPU time of all of them in nanoseconds.
    pub(super) fn cpu(&self) -> u64 {
        self.nodes.iter().filter_map(|node| cpu_ns(node.id())).sum()
    }
}
