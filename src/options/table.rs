//! Every option of the server, each defined once (SPEC section 4).

use super::field::{Field, Number};

/// An option: all that is known about it.
pub(crate) struct Definition {
    /// The environment variable; the flag is this in kebab-case.
    pub(crate) variable: &'static str,
    /// The heading of `--help` that it stands under.
    pub(crate) heading: &'static str,
    /// The meaning of the option.
    pub(crate) help: &'static str,
    /// The accepted values, and the field that the value goes to.
    pub(crate) field: Field,
}

/// Longest time in milliseconds that an option accepts: more than 31 years. In microseconds it is far from the
/// end of an `i64`, so that adding it to the time of day cannot overflow.
const MS_MAX: i128 = 1_000_000_000_000;

/// Largest ring in slots: 4 GiB at 64 bytes a slot.
const CAPACITY_MAX: i128 = 1 << 26;

/// `1|B` and its line end, the shortest event: below this every event would be rejected.
const EVENT_BYTES_MIN: i128 = 4;

/// Longest event line: it may be held in memory once per source.
const EVENT_BYTES_MAX: i128 = 1 << 20;

/// Largest output buffer of one user: 4 GiB.
const USER_BUFFER_BYTES_MAX: i128 = 1 << 32;

const USERS_MAX: i128 = 1_000_000;
/// A leader publishes once a second: it must be missed for longer.
const TAKEOVER_MS_MIN: i128 = 3000;
/// Smallest log: some snapshots of a small graph.
const STREAM_BYTES_MIN: i128 = 1 << 20;
const STREAM_CLIENTS_MAX: i128 = 10_000;
const SOURCES_MAX: i128 = 10_000;

const LISTENERS: &str = "Listeners";
const ORDER: &str = "Order";
const USERS: &str = "Users";
const STREAM: &str = "More than one server";
const ACCESS: &str = "Who may connect";
const OPERATION: &str = "Operation";
const JOURNAL: &str = "Journal";

/// Smallest segment, and smallest retention: a few blocks.
const JOURNAL_BYTES_MIN: i128 = 4096;
/// Largest segment and largest retention: a pebibyte.
const JOURNAL_BYTES_MAX: i128 = 1 << 50;

/// A number that is stored as it is written. The range must fit the field's type, so that `as` never cuts.
macro_rules! number {
    ($field:ident, $unit:literal, $range:expr) => {
        Field::Number(Number {
            unit: $unit,
            range: $range,
            get: |config| config.$field as i128,
            set: |config, value| config.$field = value as _,
        })
    };
}

/// The options in the order in which `--help` lists them.
pub(crate) const OPTIONS: &[Definition] = &[
    Definition {
        variable: "eventSourceServerPort",
        heading: LISTENERS,
        help: "Port for event sources; 0 picks a free one",
        field: Field::Port(|config| &mut config.event_source_server_port),
    },
    Definition {
        variable: "userServerPort",
        heading: LISTENERS,
        help: "Port for users; 0 picks a free one",
        field: Field::Port(|config| &mut config.user_server_port),
    },
    Definition {
        variable: "eventSourceBindAddress",
        heading: LISTENERS,
        help: "Address to listen on for event sources: IPv4, IPv6 or localhost (127.0.0.1)",
        field: Field::Address(|config| &mut config.event_source_bind_address),
    },
    Definition {
        variable: "userBindAddress",
        heading: LISTENERS,
        help: "Address to listen on for users",
        field: Field::Address(|config| &mut config.user_bind_address),
    },
    Definition {
        variable: "maxEventSourceClients",
        heading: LISTENERS,
        help: "Event sources connected at once, 1 to 10000; one more is accepted and closed",
        field: number!(max_event_source_clients, "event sources", 1..=SOURCES_MAX),
    },
    Definition {
        variable: "maxUserClients",
        heading: LISTENERS,
        help: "Users connected at once, 1 to 1000000; one more is accepted and closed",
        field: number!(max_user_clients, "users", 1..=USERS_MAX),
    },
    Definition {
        variable: "eventTimeoutMs",
        heading: ORDER,
        help: "How long an event that has arrived waits for missing ones before it; 0: until everything that \
               could be read has been read; negative: for ever",
        field: number!(event_timeout_ms, "milliseconds", -MS_MAX..=MS_MAX),
    },
    Definition {
        variable: "firstSequence",
        heading: ORDER,
        help: "Number of the first event",
        field: Field::Number(Number {
            unit: "",
            range: 0..=u64::MAX as i128,
            get: |config| i128::from(config.first_sequence),
            set: |config, value| config.first_sequence = value as u64,
        }),
    },
    Definition {
        variable: "maxSequenceJump",
        heading: ORDER,
        help: "How far above the next number an event's number may be; a line with a farther one is rejected, and its \
               number is not used up; none: any distance",
        field: Field::NumberOrNone(|config| &mut config.max_sequence_jump),
    },
    Definition {
        variable: "reorderCapacity",
        heading: ORDER,
        help: "Slots of the ring in which events wait, 1 to 67108864; rounded up to a power of two",
        field: Field::Number(Number {
            unit: "slots",
            range: 1..=CAPACITY_MAX,
            get: |config| config.reorder_capacity as i128,
            set: |config, value| config.reorder_capacity = (value as usize).next_power_of_two(),
        }),
    },
    Definition {
        variable: "resetOnSourceEof",
        heading: ORDER,
        help: "Start a new run once the last source has gone: back to firstSequence, with an empty follow graph",
        field: Field::Switch(|config| &mut config.reset_on_source_eof),
    },
    Definition {
        variable: "maxEventBytes",
        heading: ORDER,
        help: "Longest event line, line end included, 4 to 1048576",
        field: number!(max_event_bytes, "bytes", EVENT_BYTES_MIN..=EVENT_BYTES_MAX),
    },
    Definition {
        variable: "loginTimeoutMs",
        heading: USERS,
        help: "Time in which a connection on the user port must have logged in, at least 1",
        field: number!(login_timeout_ms, "milliseconds", 1..=MS_MAX),
    },
    Definition {
        variable: "userBufferBytes",
        heading: USERS,
        help: "Bytes that may wait for one user before it is behind, 1 to 4294967296",
        field: number!(user_buffer_bytes, "bytes", 1..=USER_BUFFER_BYTES_MAX),
    },
    Definition {
        variable: "slowUserPolicy",
        heading: USERS,
        help: "What a user that is behind brings about: sources wait for it; it is disconnected at once; or (journal) it \
               is served from the journal, which is the default where there is one",
        field: Field::Policy(|config| &mut config.slow_user_policy),
    },
    Definition {
        variable: "slowUserTimeoutMs",
        heading: USERS,
        help: "How long a user may stay behind without a break before it is disconnected; with policy journal, how long its \
               socket may take nothing (then 120000)",
        field: number!(slow_user_timeout_ms, "milliseconds", 0..=MS_MAX),
    },
    Definition {
        variable: "userMarkMs",
        heading: USERS,
        help: "A user that resumes and has been sent nothing for so long is told its place; 0: never",
        field: number!(user_mark_ms, "milliseconds", 0..=MS_MAX),
    },
    Definition {
        variable: "role",
        heading: STREAM,
        help: "What this server is for: standalone has event sources and users; a sequencer has event sources, and publishes \
               the released stream; an edge has users, and takes the stream",
        field: Field::Role(|config| &mut config.role),
    },
    Definition {
        variable: "stream",
        heading: STREAM,
        help: "Where the released stream is: another server's streamPort (edge), or a stream of NATS JetStream (sequencer, edge)",
        field: Field::Stream(|config| &mut config.stream),
    },
    Definition {
        variable: "streamPort",
        heading: STREAM,
        help: "Port on which the whole released stream is handed out, to edges and archives; 0 picks a free one",
        field: Field::PortOrOff(|config| &mut config.stream_port),
    },
    Definition {
        variable: "streamBindAddress",
        heading: STREAM,
        help: "Address to listen on for clients of the stream",
        field: Field::Address(|config| &mut config.stream_bind_address),
    },
    Definition {
        variable: "maxStreamClients",
        heading: STREAM,
        help: "Clients of the stream connected at once, 1 to 10000; one more is accepted and closed",
        field: number!(max_stream_clients, "clients of the stream", 1..=STREAM_CLIENTS_MAX),
    },
    Definition {
        variable: "streamReplicas",
        heading: STREAM,
        help: "Replicas of the NATS stream, 1 to 5, where the sequencer makes it",
        field: number!(stream_replicas, "replicas", 1..=5),
    },
    Definition {
        variable: "streamRetentionBytes",
        heading: STREAM,
        help: "Bytes that the NATS stream keeps, where the sequencer makes it; oldest go first",
        field: number!(stream_retention_bytes, "bytes", STREAM_BYTES_MIN..=JOURNAL_BYTES_MAX),
    },
    Definition {
        variable: "streamCredentials",
        heading: STREAM,
        help: "File with what NATS asks for: user:password, or a token",
        field: Field::File(|config| &mut config.stream_credentials),
    },
    Definition {
        variable: "streamCa",
        heading: STREAM,
        help: "PEM file with the authority that the servers of the stream are trusted for; needs a stream at tls:// or nats://",
        field: Field::File(|config| &mut config.stream_ca),
    },
    Definition {
        variable: "streamCertificate",
        heading: STREAM,
        help: "PEM file with this server's own certificate for the stream; needs streamKey and streamCa",
        field: Field::File(|config| &mut config.stream_certificate),
    },
    Definition {
        variable: "streamKey",
        heading: STREAM,
        help: "PEM file with the private key of that certificate",
        field: Field::File(|config| &mut config.stream_key),
    },
    Definition {
        variable: "streamTakeoverMs",
        heading: STREAM,
        help: "Silence of the leading sequencer after which another takes over, at least 3000; longer than NATS needs to choose \
               a leader of its own",
        field: number!(stream_takeover_ms, "milliseconds", TAKEOVER_MS_MIN..=MS_MAX),
    },
    Definition {
        variable: "shutdownTimeoutMs",
        heading: OPERATION,
        help: "How long output buffers are flushed for at shutdown",
        field: number!(shutdown_timeout_ms, "milliseconds", 0..=MS_MAX),
    },
    Definition {
        variable: "restartGraceMs",
        heading: OPERATION,
        help: "How long no missing event is given up after a source that asks for acknowledgements has gone",
        field: number!(restart_grace_ms, "milliseconds", 0..=MS_MAX),
    },
    Definition {
        variable: "adminPort",
        heading: OPERATION,
        help: "Port of the admin interface: metrics, health, status page; 0 picks a free one",
        field: Field::PortOrOff(|config| &mut config.admin_port),
    },
    Definition {
        variable: "adminBindAddress",
        heading: OPERATION,
        help: "Address of the admin interface",
        field: Field::Address(|config| &mut config.admin_bind_address),
    },
    Definition {
        variable: "tlsCertificate",
        heading: ACCESS,
        help: "PEM file with the certificate of this server, followed by those between it and an authority; needs tlsKey",
        field: Field::File(|config| &mut config.tls_certificate),
    },
    Definition {
        variable: "tlsKey",
        heading: ACCESS,
        help: "PEM file with the private key of that certificate",
        field: Field::File(|config| &mut config.tls_key),
    },
    Definition {
        variable: "tlsPorts",
        heading: ACCESS,
        help: "Which ports speak TLS, where there is a certificate: any of users, sources, admin and stream, separated by commas",
        field: Field::Ports(|config| &mut config.tls_ports),
    },
    Definition {
        variable: "sourceClientCa",
        heading: ACCESS,
        help: "PEM file with an authority: only event sources with a certificate of it are let in",
        field: Field::File(|config| &mut config.source_client_ca),
    },
    Definition {
        variable: "adminClientCa",
        heading: ACCESS,
        help: "PEM file with an authority: only clients of the admin interface with a certificate of it are let in",
        field: Field::File(|config| &mut config.admin_client_ca),
    },
    Definition {
        variable: "streamClientCa",
        heading: ACCESS,
        help: "PEM file with an authority: only clients of the stream with a certificate of it are let in",
        field: Field::File(|config| &mut config.stream_client_ca),
    },
    Definition {
        variable: "userTokenKey",
        heading: ACCESS,
        help: "File with the keys that users' tokens are signed with; one that fits is enough: PEM public keys (EdDSA, ES256, \
               RS256), or hs256: and base64, one a line; the last field of every login line is then such a token",
        field: Field::File(|config| &mut config.user_token_key),
    },
    Definition {
        variable: "userTokenAudience",
        heading: ACCESS,
        help: "The audience of users' tokens: aud must contain this",
        field: Field::Text(|config| &mut config.user_token_audience),
    },
    Definition {
        variable: "proxyProtocolFrom",
        heading: ACCESS,
        help: "Addresses or networks, separated by commas, from which every connection on the user or source port begins \
               with a PROXY protocol header, version 1 or 2, that names the real peer",
        field: Field::Networks(|config| &mut config.proxy_protocol_from),
    },
    Definition {
        variable: "adminHosts",
        heading: ACCESS,
        help: "Names, separated by commas, under which the admin interface may be asked for while it listens on a \
               loopback address; addresses and localhost always are",
        field: Field::Hosts(|config| &mut config.admin_hosts),
    },
    Definition {
        variable: "logLevel",
        heading: OPERATION,
        help: "Most verbose level that is logged",
        field: Field::Level(|config| &mut config.log_level),
    },
    Definition {
        variable: "logIntervalMs",
        heading: OPERATION,
        help: "How often a progress line is logged while events flow; 0: never",
        field: number!(log_interval_ms, "milliseconds", 0..=MS_MAX),
    },
    Definition {
        variable: "busyPoll",
        heading: OPERATION,
        help: "Spin instead of sleeping: lowest latency, one core kept busy",
        field: Field::Switch(|config| &mut config.busy_poll),
    },
    Definition {
        variable: "journalDirectory",
        heading: JOURNAL,
        help: "Folder of the journal, made if it is not there: everything that is released is on disk before anybody is sent it, and a restart goes on from there",
        field: Field::Folder(|config| &mut config.journal_directory),
    },
    Definition {
        variable: "journalSync",
        heading: JOURNAL,
        help: "When what was appended is made durable: before anybody is sent it, every journalSyncIntervalMs, or when the operating system sees fit",
        field: Field::Sync(|config| &mut config.journal_sync),
    },
    Definition {
        variable: "journalSyncIntervalMs",
        heading: JOURNAL,
        help: "How often what was appended is made durable, with journalSync=interval",
        field: number!(journal_sync_interval_ms, "milliseconds", 0..=MS_MAX),
    },
    Definition {
        variable: "journalSegmentBytes",
        heading: JOURNAL,
        help: "Size of one segment file",
        field: number!(journal_segment_bytes, "bytes", JOURNAL_BYTES_MIN..=JOURNAL_BYTES_MAX),
    },
    Definition {
        variable: "journalRetentionBytes",
        heading: JOURNAL,
        help: "How much is kept for those who resume, segments and snapshots together; oldest go first",
        field: number!(journal_retention_bytes, "bytes", JOURNAL_BYTES_MIN..=JOURNAL_BYTES_MAX),
    },
    Definition {
        variable: "journalRetentionMs",
        heading: JOURNAL,
        help: "How long it is kept; none: no limit but journalRetentionBytes",
        field: Field::NumberOrNone(|config| &mut config.journal_retention_ms),
    },
    Definition {
        variable: "recordTrace",
        heading: OPERATION,
        help: "Write a trace of everything that reaches the server to this file",
        field: Field::File(|config| &mut config.record_trace),
    },
];
