//! How a run is made.

use std::time::Duration;

use crate::access::Access;
use crate::block::Expect;
use crate::process::Addresses;
use crate::workload::Workload;

/// How a run is made, besides what is sent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is sent.
    pub load: Workload,
    /// What users must receive.
    pub expect: Expect,
    /// Where the server is.
    pub addresses: Addresses,
    /// How it is reached.
    pub access: Access,
    /// The server's process, to read its CPU time and memory.
    pub pid: Option<u32>,
    /// How long a user may wait for its events.
    pub timeout: Duration,
    /// For how long to wait at the end for anything that is too much.
    pub settle: Duration,
    /// Lines per second to send; as fast as they are taken if not given.
    pub rate: Option<f64>,
    /// Never sleep.
    pub spin: bool,
    /// How many of the users read slowly.
    pub slow_users: usize,
    /// How slowly, in bytes per second.
    pub slow_rate: f64,
    /// Whether it is a fault to cut off a user that reads slowly.
    pub slow_must_finish: bool,
    /// For how long users who read slowly do so, and then for as long as fast as they can; for ever if not given.
    pub slow_pulse: Option<Duration>,
    /// Whether users who come and go resume: each must end with one uninterrupted stream.
    pub churn_resumes: bool,
    /// How long a user who comes and goes stays, on average.
    pub churn_stay: Duration,
    /// Send for this long; as many events as the workload says if not given.
    pub duration: Option<Duration>,
    /// Memory for what is prepared, in bytes.
    pub memory: u64,
    /// Measure how long each delivery takes.
    pub measure_latency: bool,
    /// How often the server's memory is noted, if at all.
    pub sample_every: Option<Duration>,
    /// Sources honour acknowledgements and users resume: [`crate::resume`] makes the run.
    pub resume: bool,
    /// How often the server is killed and started again, if at all.
    pub kill_every: Option<Duration>,
}
