//! What the operating system says of this process, under the names that every exporter uses: `process_…`.

use crate::time::{MILLISECOND, Micros};
use rustix::process::{Resource, getrlimit};
use std::fs;

/// A process at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Process {
    /// User and system time so far, in seconds.
    pub cpu_seconds: f64,
    /// Bytes in memory.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// How many there may be.
    pub max_fds: u64,
    /// When it was started, in seconds since 1970.
    pub start_time: f64,
}

/// What Linux counts time in for programs, on every platform: `USER_HZ`.
const TICKS_PER_SECOND: f64 = 100.0;

/// Asking costs some system calls, so an answer holds for this long.
const HOLDS: Micros = 100 * MILLISECOND;

/// This process, as the operating system saw it of late.
#[derive(Debug, Default)]
pub struct ProcessWatch {
    last: Option<(Micros, Option<Process>)>,
}

impl ProcessWatch {
    /// The process at `now`, or a moment before.
    pub fn look(&mut self, now: Micros) -> Option<Process> {
        match self.last {
            Some((at, process)) if now < at.saturating_add(HOLDS) => process,
            _ => self.last.insert((now, Process::look())).1,
        }
    }
}

impl Process {
    /// Asks the operating system. `None`: there is no `/proc`.
    #[must_use]
    pub fn look() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let booted = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
        let max_fds = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::read(&stat, booted, rustix::param::page_size() as u64, open_fds()?, max_fds)
    }

    fn read(stat: &str, booted: f64, page_bytes: u64, open_fds: u64, max_fds: u64) -> Option<Self> {
        // The program's name is in brackets, and may have any character; the fields behind it are numbered from 3 on.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / TICKS_PER_SECOND,
            resident_bytes: field(24)? * page_bytes,
            virtual_bytes: field(23)?,
            open_fds,
            max_fds,
            start_time: booted + field(22)? as f64 / TICKS_PER_SECOND,
        })
    }
}

/// New systems say the number at once; on others the names are counted.
fn open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 1 0 12345 8192 3 18446744073709551615";
        let process = Process::read(stat, 1000.0, 4096, 5, 64).unwrap();
        let expected = Process {
            cpu_seconds: 3.0,
            resident_bytes: 3 * 4096,
            virtual_bytes: 8192,
            open_fds: 5,
            max_fds: 64,
            start_time: 1123.45,
        };
        assert_eq!(process, expected);
        assert_eq!(Process::read("7 (a) S 1", 0.0, 1, 1, 1), None);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let process = Process::look().unwrap();
        assert!(process.resident_bytes > 0 && process.resident_bytes < process.virtual_bytes);
        assert!(process.open_fds >= 3 && process.open_fds <= process.max_fds);
    }
}
