//! Yardsticks: what the machine can do without us, and what our hot functions cost.
//!
//! | subcommand | module | figure |
//! |---|---|---|
//! | `ceiling` | [`ceiling`] (its receiving process: [`drain`]) | raw loopback sockets: messages a second and CPU for each, by how many go into one write |
//! | `codec` | [`codec`] | nanoseconds of the pure functions of `protocol` |
//! | `fanout` | [`fanout`] | nanoseconds of a delivery in one shard of `shards`, without sockets |
//!
//! A new yardstick is a module with its own `Args` and `run`, a line in [`Command`] and one in `main`. A new micro-figure
//! is a line in its module's list of [`sampler::Row`]s. Every subcommand returns a [`table::Table`], which is what people
//! read and what `--json` writes.
pub mod ceiling;
pub mod codec;
pub mod drain;
pub mod fanout;
pub mod machine;
pub mod sampler;
pub mod table;

use clap::{Parser, Subcommand};
use std::fmt;
use std::path::PathBuf;

/// Measures the machine and the engine's hot functions.
#[derive(Clone, Debug, Parser)]
#[command(name = "ara-bench", version, about, arg_required_else_help = true)]
pub struct Args {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
    /// Also writes the figures as JSON.
    #[arg(long, global = true, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The yardsticks.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Raw loopback sockets: the most any server on this machine can deliver.
    Ceiling(ceiling::Args),
    /// The pure functions of the hot path, in nanoseconds.
    Codec(sampler::Args),
    /// One shard's deliveries without sockets, in nanoseconds.
    Fanout(sampler::Args),
    /// The receiving side of `ceiling`, which starts it.
    #[command(hide = true)]
    Drain(drain::Args),
}

/// Why a figure could not be had.
#[derive(Debug)]
pub struct BenchError(pub String);

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BenchError {}

/// For `map_err`: says what was tried in front of the error.
pub(crate) fn trying<E: fmt::Display>(what: &str) -> impl Fn(E) -> BenchError {
    move |error| BenchError(format!("{what}: {error}"))
}
