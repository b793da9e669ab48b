//! Why a run could not be made.
use std::fmt;

/// Each variant is the operator's to mend; a server that misbehaves is a finding in the report, not an error.
#[derive(Debug)]
pub enum LoadError {
    /// The flags contradict each other or ask for what the contract forbids.
    Plan(String),
    /// A target that is not on this machine, without `--allow-remote`.
    Remote(String),
    /// The machine refuses something: descriptors, affinity, sockets.
    Machine(String),
    /// Some clients did not get as far as receiving.
    Connect {
        /// How many were open when we gave up.
        open: u64,
        /// How many were asked for.
        wanted: u64,
        /// The first few reasons.
        reasons: Vec<String>,
    },
    /// A publisher could not connect or log in.
    Publish(String),
    /// The server's `/health` could not be read, or does not tell how much mail it keeps.
    Health(String),
    /// A token could not be signed.
    Token(String),
    /// The JSON report could not be written.
    Report(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Plan(text) => write!(f, "{text}"),
            LoadError::Remote(target) => {
                write!(f, "{target} is not a loopback address; --allow-remote says that loading it is meant")
            }
            LoadError::Machine(text) => write!(f, "this machine: {text}"),
            LoadError::Connect { open, wanted, reasons } => {
                write!(f, "{open} of {wanted} clients connected")?;
                for reason in reasons {
                    write!(f, "\n  {reason}")?;
                }
                Ok(())
            }
            LoadError::Publish(text) => write!(f, "publisher: {text}"),
            LoadError::Health(text) => write!(f, "/health: {text}"),
            LoadError::Token(text) => write!(f, "token: {text}"),
            LoadError::Report(text) => write!(f, "report: {text}"),
        }
    }
}

impl std::error::Error for LoadError {}
