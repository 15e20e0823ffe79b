//! The server: connections in, output buffers out, logins, limits, congestion, deadlines.
//!
//! It owns every connection and the [`Engine`], and runs on whatever implements [`Net`]: sockets of the operating
//! system or simulated ones. One call of [`Server::turn`] is one turn of the loop:
//!
//! 1. wait until something is ready, or for the nearest deadline;
//! 2. users first: accept, logins, hang-ups, sockets that take bytes again ([`users`]);
//! 3. read sources, one chunk after the other, and feed the engine ([`sources`]), until there is nothing
//!    more to read or enough is owed to be worth writing;
//! 4. one write per user for everything that it is owed ([`users`]); with `busyPoll`, to a few users at a time ([`rotation`]);
//! 5. deadlines: holes, logins, slow users ([`deadlines`]); a full ring; the end ([`lifecycle`]);
//! 6. whoever asks how it is going ([`admin`]).
//!
//! Two rules shape the order. *Logins that reached the server before an event did are served before it*: after every read of a
//! source, and before its bytes are looked at, the world is asked once more what is ready, and users are
//! served. *Users come and go between turns of the engine*: whoever adds or removes one delivers first.
//!
//! Readiness is edge-triggered, so it is kept in the connection until an operation would block, and whoever
//! ran out of its budget stays on a list and comes round again.

mod accept;
mod admin;
mod congestion;
mod connection;
mod deadlines;
mod lifecycle;
pub mod net;
mod output;
mod report;
mod rotation;
mod sources;
mod users;

use crate::{
    config::Config,
    counters::{Counters, UserEnd},
    engine::{Engine, EngineConfig},
    time::{MILLISECOND, Micros},
};
use admin::Admin;
use connection::{Chunk, Connection, Role};
use net::{Net, Port, Ready};
use output::Pool;
use report::Reports;
use rotation::Rotation;
use slab::Slab;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
};

pub use lifecycle::Phase;

/// Bytes of one read of a source.
pub(crate) const READ_BYTES: usize = 256 << 10;
/// Bytes that a turn may owe one user: what limits the tape. Less where output buffers are small.
const TURN_BYTES_MAX: usize = 512 << 10;
/// Bytes per connected user that are worth a write: a turn goes on reading what is there until it has them. With this most
/// writes fit one packet of the loopback device, whose largest takes 65,483 bytes; a rest of a few in a packet of their own
/// costs as much as a full one.
const TURN_BYTES_MEAN: usize = 56 << 10;

/// See the [module](self).
#[derive(Debug)]
pub struct Server<N: Net> {
    config: Config,
    net: N,
    engine: Engine,
    connections: Slab<Connection<N::Socket>>,
    /// Key of each user slot's connection.
    slot_keys: Vec<usize>,
    listeners: [Listener; 2],
    /// Connections on the user port, logged in or not, and event sources.
    user_clients: usize,
    source_clients: usize,
    /// Sources and users that can be read, in the order in which they come round.
    readable_sources: VecDeque<usize>,
    readable_users: VecDeque<usize>,
    /// The source whose chunk is being fed, and the chunk.
    current: Option<(usize, Chunk)>,
    /// Chunk buffers that nobody uses.
    spare_chunks: Vec<Chunk>,
    /// What the net said last.
    ready: Vec<Ready>,
    /// Users to be closed as soon as the engine lets them go.
    failed: Vec<(usize, UserEnd)>,
    trash: Vec<u8>,
    pool: Pool,
    rotation: Rotation,
    output_bytes: usize,
    /// When connections on the user port must have logged in, in order of time; some have, or are gone.
    logins: VecDeque<(Micros, usize)>,
    reports: Reports,
    admin: Admin,
    /// Since when sources are not read because of slow users.
    paused_since: Option<Micros>,
    /// Users that are behind or, during a pause, more than half behind.
    slow: Vec<usize>,
    /// Sources whose next event is too far ahead for the ring.
    blocked_sources: Vec<usize>,
    /// Releasing was interrupted by a pause, and has more to do.
    release_due: bool,
    /// The last source has gone: a new run begins once everything has been released.
    reset_due: bool,
    phase: Phase,
    now: Micros,
}

/// A listener's state.
#[derive(Debug, Default)]
struct Listener {
    /// It was ready and has not said since that accepting would block.
    ready: bool,
    /// Accepting failed for want of descriptors or memory: not to be tried again before.
    retry_at: Option<Micros>,
}

impl Listener {
    fn may_try(&self, now: Micros) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }
}

impl<N: Net> Server<N> {
    /// A server on listeners that are up. `now` is the time of the start.
    #[must_use]
    pub fn new(config: Config, net: N, now: Micros) -> Self {
        let turn_bytes_max = (config.user_buffer_bytes / 2).clamp(4096, TURN_BYTES_MAX);
        let engine = Engine::new(&EngineConfig {
            capacity: config.reorder_capacity,
            first_sequence: config.first_sequence,
            timeout: u64::try_from(config.event_timeout_ms).ok().map(|ms| ms * MILLISECOND),
            event_bytes_max: config.max_event_bytes,
            turn_bytes_max,
            turn_bytes_mean: TURN_BYTES_MEAN.min(turn_bytes_max),
            max_sequence_jump: config.max_sequence_jump,
        });
        Self {
            reports: Reports::new(&config, now),
            admin: Admin::new(config.admin_port.is_some(), now),
            rotation: Rotation::new(&config),
            config,
            net,
            engine,
            connections: Slab::new(),
            slot_keys: Vec::new(),
            listeners: Default::default(),
            user_clients: 0,
            source_clients: 0,
            readable_sources: VecDeque::new(),
            readable_users: VecDeque::new(),
            current: None,
            spare_chunks: Vec::new(),
            ready: Vec::new(),
            failed: Vec::new(),
            trash: vec![0; 4096],
            pool: Pool::default(),
            output_bytes: 0,
            logins: VecDeque::new(),
            paused_since: None,
            slow: Vec::new(),
            blocked_sources: Vec::new(),
            release_due: false,
            reset_due: false,
            phase: Phase::Running,
            now,
        }
    }

    /// One turn of the loop. [`Server::phase`] says when it was the last one.
    ///
    /// # Errors
    ///
    /// If the operating system cannot wait for readiness any more.
    pub fn turn(&mut self) -> io::Result<()> {
        self.engine.counters.loop_turns += 1;
        let wait = self.wait();
        self.poll(wait)?;
        self.serve_users()?;
        let reads = self.read_sources()?;
        self.deliver();
        self.meet_deadlines();
        self.resolve_full_ring();
        self.deliver();
        self.write_due(reads);
        self.finish_run();
        self.serve_admin();
        self.progress_shutdown();
        self.report_progress();
        Ok(())
    }

    /// How long the next poll may wait: not at all while there is work left.
    fn wait(&mut self) -> Option<Micros> {
        if self.config.busy_poll || self.has_work() {
            return Some(0);
        }
        self.nearest_deadline().map(|at| at.saturating_sub(self.now))
    }

    fn has_work(&self) -> bool {
        !self.readable_users.is_empty()
            || !self.rotation.is_empty()
            || self.can_accept()
            || (!self.is_paused() && (self.release_due || self.reset_due))
            || (self.may_read() && self.has_bytes())
    }

    /// Asks the net what is ready, and notes it down.
    fn poll(&mut self, wait: Option<Micros>) -> io::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        let polled = self.net.poll(wait, &mut ready);
        if let Ok(now) = &polled {
            self.pass_time(*now);
            for &what in &ready {
                self.note(what);
            }
        }
        self.ready = ready;
        polled.map(|_| ())
    }

    fn note(&mut self, what: Ready) {
        match what {
            Ready::Listener(Port::Admin) => self.note_admin_listener(),
            Ready::Listener(port) => self.listener(port).ready = true,
            Ready::Signal => self.on_signal(),
            Ready::Socket { key, readable, writable, hung_up } => {
                if readable || hung_up {
                    self.note_readable(key, hung_up);
                }
                if writable {
                    self.flush_user(key);
                }
            }
        }
    }

    fn note_readable(&mut self, key: usize, hung_up: bool) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.readable = true;
        match &mut connection.role {
            Role::Source(source) => {
                source.hung_up |= hung_up;
                if !connection.queued && source.blocked.is_none() {
                    connection.queued = true;
                    self.readable_sources.push_back(key);
                }
            }
            Role::Login(_) | Role::User(_) => {
                if !connection.queued {
                    connection.queued = true;
                    self.readable_users.push_back(key);
                }
            }
            Role::Admin(_) => self.queue_asker(key),
        }
    }

    fn listener(&mut self, port: Port) -> &mut Listener {
        &mut self.listeners[usize::from(port == Port::User)]
    }

    /// Everything that is counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.engine.counters
    }

    /// The world that it runs in.
    pub fn net_mut(&mut self) -> &mut N {
        &mut self.net
    }
}

/// An error that says that it may be tried again at once.
fn is_interrupted(error: &io::Error) -> bool {
    error.kind() == ErrorKind::Interrupted
}

/// An error that says that there is nothing to do now.
fn would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}
