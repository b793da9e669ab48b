//! Why a server could not be reached, or was lost, in words for the log: the cause and the setting to look at.
use rustix::io::Errno;
use std::fmt;
use std::net::SocketAddr;

/// Trouble on the way to a server, as opposed to trouble with what it says: only this counts for a breaker (W-58).
#[derive(Debug)]
pub(crate) enum Unreached {
    /// The name lookup failed.
    Resolve(String),
    /// The name lookup did not answer.
    LookupDeadline { ms: u64 },
    /// An address did not take the connection.
    Connect { address: SocketAddr, errno: Errno },
    /// An address did not answer.
    ConnectDeadline { address: SocketAddr },
    /// The server closed the connection.
    Closed,
    /// Reading or writing failed.
    Io(Errno),
}

impl Unreached {
    /// The text; `setting` is the name of the variable that says where the server is.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>, setting: &str) -> fmt::Result {
        match self {
            Self::Resolve(error) => write!(f, "the host of {setting} was not resolved: {error}"),
            Self::LookupDeadline { ms } => write!(f, "the host of {setting} was not resolved within {ms} ms"),
            Self::Connect { address, errno } => write!(f, "no connection to {address}: {errno}"),
            Self::ConnectDeadline { address } => write!(f, "no connection to {address} in time"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Io(errno) => write!(f, "the connection broke: {errno}"),
        }
    }
}
