//! The bundled load generator: opens many clients, publishes, measures, and checks every message while it measures.
//!
//! It is a black box: it speaks the wire contract over sockets and reads `/proc` of the server, nothing else, so that
//! it cannot share the server's mistakes.
//!
//! | module | what it is |
//! |---|---|
//! | [`args`] | the command line |
//! | [`scenario`] | who connects, which streams are published, who must receive what |
//! | [`arrival`] | when the next publish is due |
//! | [`client`] | one WebSocket or SSE subscriber |
//! | [`publisher`] | one REST or Redis publisher |
//! | [`payload`], [`scan`], [`verify`], [`oracle`] | what is sent, read back cheaply, accounted, and read back fully |
//! | [`worker`] | one thread's epoll loop over its clients and publishers |
//! | [`phases`] | connect, warm-up, measured, drain |
//! | [`replay`] | storing, connect, replay, until the mailboxes are empty |
//! | [`health`] | how much mail the server says it keeps |
//! | [`report`] | the table and the JSON |
//!
//! **How latency is measured.** Each message carries `sent_us`, the monotonic clock of this machine. At a fixed rate it
//! is the *intended* time of the publish, so a server (or a generator) that falls behind shows it: coordinated
//! omission is counted. Generator and server must therefore not share a core when latency matters.
//!
//! **What is checked.** Each publisher numbers each of its streams densely from 0. A receiver knows its streams, so for
//! each (connection, stream) a hole is a loss, a repetition a duplicate, a late number a disorder, and a message of a
//! stream that is not its own a stray one.
pub mod args;
pub mod arrival;
pub mod client;
pub mod error;
pub mod health;
pub mod machine;
pub mod oracle;
pub mod payload;
pub mod phases;
pub mod poller;
pub mod process;
pub mod publisher;
pub mod replay;
pub mod report;
pub mod scan;
pub mod scenario;
pub mod socket;
pub mod token;
pub mod verify;
pub mod worker;

use args::Args;
use error::LoadError;
use report::Report;

/// Makes one run and writes the JSON report if one was asked for.
///
/// Fails when the run could not be made at all; a run that was made and went badly has `report.failures`.
pub fn run(args: &Args) -> Result<Report, LoadError> {
    let report = phases::run(args)?;
    if let Some(path) = &args.common().json {
        let text = serde_json::to_vec_pretty(&report).map_err(|error| LoadError::Report(error.to_string()))?;
        std::fs::write(path, text).map_err(|error| LoadError::Report(format!("{}: {error}", path.display())))?;
    }
    Ok(report)
}
