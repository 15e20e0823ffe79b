//! `maze`: load generator, verifier and yardstick for servers that speak the follower-maze protocol.
//!
//! It is the second opinion on Fortnight and shares no code with it. The way through:
//!
//! | module | idea |
//! | --- | --- |
//! | [`workload`] | the events and their recipients: shapes and options |
//! | [`rng`], [`script`] | the same seed gives the same events |
//! | [`graph`], [`block`] | what every user must receive, worked out beforehand |
//! | [`book`] | the blocks in memory: all, or a window |
//! | [`cursor`], [`fault`] | checking is comparing memory; what is wrong is told apart |
//! | [`feed`], [`user`], [`churn`], [`reader`] | the connections: those that stay, those that come and go, those that resume |
//! | [`access`] | in clear or over TLS, with tokens or without |
//! | [`drive`] | the loop that sends, receives and checks |
//! | [`resume`] | the loop in which everybody resumes, and the server may be killed |
//! | [`arrivals`] | latency without coordinated omission |
//! | [`plan`], [`limit`] | the physical limit, to divide by |
//! | [`naive`] | the usual design, to compare with |
//! | [`mod@bench`], [`plot`] | every figure of the project, and its picture |
//! | [`soak`] | one server for minutes, and whether it stays as small as it was |
//! | [`replay`] | recorded traces, over the wire |
//! | [`process`] | starting, pinning and measuring the server |
//! | [`settings`] | how a run is made |
//! | [`cli`], [`options`], [`command`], [`console`], [`ui`], [`report`] | the command line, and what is told |

pub mod access;
pub mod arrivals;
pub mod bench;
pub mod block;
pub mod book;
pub mod churn;
pub mod cli;
pub mod command;
pub mod console;
pub mod cursor;
pub mod drive;
pub mod fault;
pub mod feed;
pub mod graph;
pub mod limit;
pub mod naive;
pub mod options;
pub mod plan;
pub mod plot;
pub mod process;
pub mod reader;
pub mod replay;
pub mod report;
pub mod resume;
pub mod rng;
pub mod script;
pub mod settings;
pub mod soak;
pub mod ui;
pub mod user;
pub mod workload;
