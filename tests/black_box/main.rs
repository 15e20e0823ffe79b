//! The real program over real sockets: one test binary, because linking one is much faster than linking twenty.

mod acknowledgements;
mod admin;
mod chaos;
mod clients;
mod crashes;
mod crowd;
mod disks;
mod edge_journal;
mod fault_sources;
mod faults;
mod floods;
mod garbage;
mod journal;
mod lifecycle;
mod limits;
mod linger;
mod logins;
mod maze;
mod metrics;
mod nats_journal;
mod options;
mod order;
mod protocol;
mod proxy;
mod replicated;
mod resume;
mod ring;
mod slow_users;
mod sources;
mod stream;
mod tls;
mod tokens;
#[cfg(feature = "top")]
mod top;
mod traces;
mod turn;
