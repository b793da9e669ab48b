//! From settings to a running node.
use crate::config::Settings;
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// What a caller wants of a run beside its settings.
#[derive(Default)]
pub struct ServeOptions {
    /// Called once, when every shard listens and the first request would be answered.
    pub on_ready: Option<Box<dyn FnOnce(SocketAddr) + Send>>,
}

impl fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeOptions").field("on_ready", &self.on_ready.is_some()).finish()
    }
}

/// Why a node does not run.
#[derive(Debug)]
pub enum ServeError {
    /// It cannot listen; the operator's to change `SERVER_HOST` or `SERVER_PORT`.
    Listen {
        /// As configured.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// There are no shards to run.
    NoShards,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Listen { address, error } => {
                write!(f, "cannot listen on {address}: {error} (SERVER_HOST and SERVER_PORT choose another)")
            }
            ServeError::NoShards => f.write_str("there are no shards to run"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServeError::Listen { error, .. } => Some(error),
            ServeError::NoShards => None,
        }
    }
}

/// Runs a node until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
/// It could not start.
pub fn serve(settings: Settings, options: ServeOptions) -> Result<(), ServeError> {
    drop((settings, options));
    Err(ServeError::NoShards)
}
