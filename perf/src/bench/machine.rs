//! The machine on which a figure was measured.

use std::fmt;
use std::fs;
use std::process::Command;

use serde::Serialize;

/// The machine and the commit.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// Its name says little in a virtual machine; family and model say which it is.
    processor: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    /// With `+` if there were changes that are not committed.
    commit: String,
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub(crate) fn describe() -> Machine {
    let unknown = || "unknown".to_owned();
    let kib = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        "src",
        "perf/src",
        "*Cargo.toml",
        "*Cargo.lock",
    ]);
    let mark = if changed.is_some_and(|changed| !changed.is_empty()) { "+" } else { "" };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned());
    // Builders append their own name to the version.
    let kernel = release.map(|text| text.split('-').next().unwrap_or_default().to_owned());
    Machine {
        processor: processor().unwrap_or_else(unknown),
        cores: std::thread::available_parallelism().map_or(0, Into::into).max(online()),
        memory_gib: kib.unwrap_or(0) >> 20,
        kernel: kernel.unwrap_or_else(|_| unknown()),
        commit: git(&["rev-parse", "--short=10", "HEAD"]).map_or_else(unknown, |commit| commit + mark),
    }
}

/// Name, family, model, and what of its vector instructions the server would use.
fn processor() -> Option<String> {
    let of = |name| field("/proc/cpuinfo", name);
    let name = of("model name")?;
    let (Some(family), Some(model), Some(flags)) = (of("cpu family"), of("model\t"), of("flags")) else {
        return Some(name);
    };
    let has = |wanted| flags.split(' ').any(|flag| flag == wanted);
    let vectors = match () {
        () if has("avx512_vbmi2") => "AVX-512",
        () if has("avx2") => "AVX2",
        () => "no AVX2",
    };
    Some(format!("{name} (family {family}, model {model}, {vectors})"))
}

/// This program may be bound to one core: all are counted.
fn online() -> usize {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpuinfo.lines().filter(|line| line.starts_with("processor")).count()
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, memory_gib, kernel, commit } = self;
        write!(f, "{processor}, {cores} cores, {memory_gib} GiB, Linux {kernel}; commit {commit}")
    }
}
