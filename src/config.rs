//! The configuration of a server: every option of SPEC section 4 as a plain, typed value.
//!
//! Nothing in here parses or prints: The options module turns flags and environment variables into a
//! [`Config`], tests and simulations write one down.

use crate::{
    engine::InstructionSet, journal::SyncMode, nats::connection::Credentials, proxy::Network,
    server::net::Port, stream::address::StreamAddress,
};
use std::{net::IpAddr, path::PathBuf};

/// What to do with a user whose output buffer is above [`Config::user_buffer_bytes`] (SPEC section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowUserPolicy {
    /// Stop reading the sources until the user has caught up or has been behind for
    /// [`Config::slow_user_timeout_ms`].
    #[default]
    Wait,
    /// Disconnect the user there and then; the sources are never held up.
    Disconnect,
    /// Serve the user from the journal, at its own pace; the sources are never held up.
    Journal,
}

/// What a server is for (`docs/SPEC.md` section 11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerRole {
    /// It has event sources and users.
    #[default]
    Standalone,
    /// It has event sources and no users, and publishes what it puts in order to a replicated log; or it waits to do so.
    Sequencer,
    /// It has users, and takes the released stream from another server in place of event sources.
    Edge,
}

/// Every option of the server, with the names, units and defaults of SPEC section 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Port for event sources; 0 picks a free one.
    pub event_source_server_port: u16,
    /// Port for users; 0 picks a free one.
    pub user_server_port: u16,
    /// Address to listen on for event sources.
    pub event_source_bind_address: IpAddr,
    /// Address to listen on for users.
    pub user_bind_address: IpAddr,
    /// Event sources connected at once; one more is accepted and closed.
    pub max_event_source_clients: u32,
    /// Users connected at once; one more is accepted and closed.
    pub max_user_clients: u32,
    /// How long an arrived event waits for missing ones before it, in milliseconds. 0: until everything that
    /// could be read has been read. Negative: for ever.
    pub event_timeout_ms: i64,
    /// Number of the first event.
    pub first_sequence: u64,
    /// How far above the cursor a number may be; `None`: as far as there are numbers.
    pub max_sequence_jump: Option<u64>,
    /// Slots of the ring: a power of two.
    pub reorder_capacity: usize,
    /// Whether a new run starts once the last source has gone.
    pub reset_on_source_eof: bool,
    /// Longest event line in bytes, terminator included.
    pub max_event_bytes: usize,
    /// Time in milliseconds in which a connection on the user port must have logged in.
    pub login_timeout_ms: u64,
    /// Bytes that may wait for one user before it is behind.
    pub user_buffer_bytes: usize,
    /// What happens to a user that is behind.
    pub slow_user_policy: SlowUserPolicy,
    /// How long a user may stay behind without a break, in milliseconds.
    pub slow_user_timeout_ms: u64,
    /// A user that resumes and has been sent nothing for so long is told its place, in milliseconds; 0: never.
    pub user_mark_ms: u64,
    /// How long output buffers are flushed for at shutdown, in milliseconds.
    pub shutdown_timeout_ms: u64,
    /// What the server is for.
    pub role: ServerRole,
    /// Where an edge takes the released stream from, and a sequencer publishes it.
    pub stream: Option<StreamAddress>,
    /// Port on which the released stream is handed out, 0 for a free one; `None`: it is not.
    pub stream_port: Option<u16>,
    /// Address to listen on for clients of the stream.
    pub stream_bind_address: IpAddr,
    /// Clients of the stream connected at once; one more is accepted and closed.
    pub max_stream_clients: u32,
    /// Replicas of the NATS stream, where this server makes it.
    pub stream_replicas: u64,
    /// Bytes that the NATS stream keeps, where this server makes it.
    pub stream_retention_bytes: u64,
    /// The file with what NATS asks for.
    pub stream_credentials: Option<PathBuf>,
    /// Who must have signed the certificate of the stream's servers. `None`: it is spoken to in clear.
    pub stream_ca: Option<PathBuf>,
    /// This server's own certificate for the stream.
    pub stream_certificate: Option<PathBuf>,
    /// The key of that certificate.
    pub stream_key: Option<PathBuf>,
    /// What that file holds.
    pub stream_login: Credentials,
    /// Silence of the leading sequencer, in milliseconds, after which another takes over.
    pub stream_takeover_ms: u64,
    /// How long no gap is given up after a source that asks for acknowledgements has gone, in milliseconds.
    pub restart_grace_ms: u64,
    /// Port of the admin interface, 0 for a free one; `None` for no admin interface.
    pub admin_port: Option<u16>,
    /// Address of the admin interface.
    pub admin_bind_address: IpAddr,
    /// File of the server's certificate and those between it and an authority; `None`: nobody speaks TLS.
    pub tls_certificate: Option<PathBuf>,
    /// File of its private key.
    pub tls_key: Option<PathBuf>,
    /// Ports that speak TLS, where there is a certificate.
    pub tls_ports: Vec<Port>,
    /// File of the authority that event sources must have a certificate of.
    pub source_client_ca: Option<PathBuf>,
    /// The same for clients of the admin interface.
    pub admin_client_ca: Option<PathBuf>,
    /// The same for clients of the stream.
    pub stream_client_ca: Option<PathBuf>,
    /// File of the keys that users' tokens are signed with; `None`: no tokens are asked for.
    pub user_token_key: Option<PathBuf>,
    /// The audience that a token must have; `None`: any.
    pub user_token_audience: Option<String>,
    /// Where connections on the user and source port begin with a PROXY header.
    pub proxy_protocol_from: Vec<Network>,
    /// Names under which the admin interface may be asked for while it listens on a loopback address.
    pub admin_hosts: Vec<String>,
    /// Most verbose level that is logged.
    pub log_level: log::LevelFilter,
    /// How often a progress line is logged while events flow, in milliseconds; 0: never.
    pub log_interval_ms: u64,
    /// Spin instead of sleeping while there is nothing to do.
    pub busy_poll: bool,
    /// Folder of the journal (docs/SPEC.md section 8); `None` for no journal.
    pub journal_directory: Option<PathBuf>,
    /// When what was appended to it is made durable.
    pub journal_sync: SyncMode,
    /// How often, with [`SyncMode::Interval`], in milliseconds.
    pub journal_sync_interval_ms: u64,
    /// Size of one segment file.
    pub journal_segment_bytes: u64,
    /// How much is kept, segments and snapshots together.
    pub journal_retention_bytes: u64,
    /// How long it is kept, in milliseconds; `None`: as long as there is room.
    pub journal_retention_ms: Option<u64>,
    /// Where to write a recorded trace (SPEC section 7), if anywhere.
    pub record_trace: Option<PathBuf>,
    /// How much of the processor may be used: the variable `FORTNIGHT_CPU`, for measuring and testing.
    pub instruction_set: InstructionSet,
}

impl Config {
    /// Whether a port speaks TLS.
    #[must_use]
    pub fn speaks_tls(&self, port: Port) -> bool {
        self.tls_certificate.is_some() && self.tls_ports.contains(&port)
    }
}

impl Default for Config {
    fn default() -> Self {
        let localhost = IpAddr::from([127, 0, 0, 1]);
        Self {
            event_source_server_port: 9090,
            user_server_port: 9099,
            event_source_bind_address: localhost,
            user_bind_address: localhost,
            max_event_source_clients: 1,
            max_user_clients: 1000,
            event_timeout_ms: 1000,
            first_sequence: 1,
            max_sequence_jump: None,
            reorder_capacity: 65_536,
            reset_on_source_eof: false,
            max_event_bytes: 1024,
            login_timeout_ms: 10_000,
            user_buffer_bytes: 4_194_304,
            slow_user_policy: SlowUserPolicy::Wait,
            slow_user_timeout_ms: 5000,
            user_mark_ms: 30_000,
            shutdown_timeout_ms: 5000,
            role: ServerRole::Standalone,
            stream: None,
            stream_port: None,
            stream_bind_address: localhost,
            max_stream_clients: 16,
            stream_replicas: 3,
            stream_retention_bytes: 10 << 30,
            stream_credentials: None,
            stream_ca: None,
            stream_certificate: None,
            stream_key: None,
            stream_login: Credentials::None,
            stream_takeover_ms: 15_000,
            restart_grace_ms: 10_000,
            admin_port: None,
            admin_bind_address: localhost,
            admin_hosts: Vec::new(),
            tls_certificate: None,
            tls_key: None,
            tls_ports: vec![Port::User],
            source_client_ca: None,
            admin_client_ca: None,
            stream_client_ca: None,
            user_token_key: None,
            user_token_audience: None,
            proxy_protocol_from: Vec::new(),
            log_level: log::LevelFilter::Info,
            log_interval_ms: 10_000,
            busy_poll: false,
            journal_directory: None,
            journal_sync: SyncMode::Interval,
            journal_sync_interval_ms: 1000,
            journal_segment_bytes: 64 << 20,
            journal_retention_bytes: 1 << 30,
            journal_retention_ms: None,
            record_trace: None,
            instruction_set: InstructionSet::default(),
        }
    }
}
