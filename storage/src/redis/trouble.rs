//! What can go wrong with a link, in words for the log: the cause and, where it is one, the setting to look at.
use crate::link::transport::TransportError;
use crate::link::unreached::Unreached;
use crate::redis::session::{SessionError, Step};
use crate::redis::status::FeedErrorKind;
use std::fmt;
use std::net::SocketAddr;

/// Why an attempt failed or a link ended. No text holds a secret.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The server was not reached, or was lost.
    Unreached(Unreached),
    /// The encryption failed.
    Tls(rustls::Error),
    /// The server took the connection and then did not answer.
    GreetingDeadline { address: SocketAddr, step: Step },
    /// No answer to a PING.
    Silent { ms: u64 },
    /// The server refused.
    Server { step: Step, text: String },
    /// What came was no subscription.
    Session(SessionError),
    /// The master is another server now.
    Moved,
    /// The slot of what is listened to is another server's now, as this one says.
    SlotLost,
}

impl From<Unreached> for Trouble {
    fn from(unreached: Unreached) -> Trouble {
        Trouble::Unreached(unreached)
    }
}

impl From<TransportError> for Trouble {
    fn from(error: TransportError) -> Trouble {
        match error {
            TransportError::Io(errno) => Unreached::Io(errno).into(),
            TransportError::Tls(error) => Trouble::Tls(error),
        }
    }
}

impl Trouble {
    pub(crate) fn kind(&self) -> FeedErrorKind {
        match self {
            Self::Unreached(unreached) => match unreached {
                Unreached::Resolve(_) => FeedErrorKind::Resolve,
                Unreached::Connect { .. } => FeedErrorKind::Connect,
                Unreached::LookupDeadline { .. } | Unreached::ConnectDeadline { .. } => FeedErrorKind::Deadline,
                Unreached::Closed | Unreached::Io(_) => FeedErrorKind::Closed,
            },
            Self::Tls(_) => FeedErrorKind::Tls,
            Self::GreetingDeadline { .. } => FeedErrorKind::Deadline,
            Self::Silent { .. } => FeedErrorKind::Silent,
            Self::Server { step, text } => refusal(*step, text),
            Self::Session(_) => FeedErrorKind::Protocol,
            Self::Moved | Self::SlotLost => FeedErrorKind::Closed,
        }
    }

    /// Whether the server could not be reached, as opposed to reached and not agreed with: only this counts for the
    /// breaker (W-58).
    pub(crate) fn is_of_connection(&self) -> bool {
        !matches!(self, Self::Tls(_) | Self::Server { .. } | Self::Session(_) | Self::Moved | Self::SlotLost)
    }
}

/// Whether a refusal says that the slot is elsewhere, or that nobody has it.
pub(crate) fn is_of_slot(text: &str) -> bool {
    matches!(text.split(' ').next(), Some("MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN"))
}

/// Sorts a refusal by its code, where Redis gives one, and by what it was the answer to.
fn refusal(step: Step, text: &str) -> FeedErrorKind {
    match text.split(' ').next() {
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => FeedErrorKind::Auth,
        // These come before any command was read.
        _ if text.starts_with("ERR max number of clients") => FeedErrorKind::Refused,
        Some("DENIED" | "LOADING" | "MASTERDOWN" | "BUSY") => FeedErrorKind::Refused,
        _ => match step {
            Step::Auth => FeedErrorKind::Auth,
            Step::Select => FeedErrorKind::Database,
            Step::Subscribe | Step::Listen => FeedErrorKind::Refused,
        },
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached(unreached) => unreached.write(f, "REDIS_URL"),
            Self::Tls(error) => write!(
                f,
                "no encryption with the server: {error}; rediss:// in REDIS_URL needs a server that speaks TLS, whose \
                 certificate names its host and comes from an authority that this machine, or the file ssl_ca, trusts"
            ),
            Self::GreetingDeadline { address, step } => {
                let command = match step {
                    Step::Auth => "AUTH",
                    Step::Select => "SELECT",
                    Step::Subscribe | Step::Listen => "SUBSCRIBE",
                };
                write!(f, "{address} took the connection but did not answer {command} in time")
            }
            Self::Silent { ms } => write!(f, "nothing came for {ms} ms, not even the answer to a PING"),
            Self::Server { text, .. } => match self.kind() {
                FeedErrorKind::Auth if text.starts_with("NOPERM") => {
                    write!(f, "the user of REDIS_URL may not subscribe to REDIS_CHANNELS: {text}")
                }
                FeedErrorKind::Auth => write!(f, "check the user and password in REDIS_URL: {text}"),
                FeedErrorKind::Database => write!(f, "check the database number in REDIS_URL: {text}"),
                _ => write!(f, "the server refused: {text}"),
            },
            Self::Session(error) => error.fmt(f),
            Self::Moved => f.write_str("the master is another server now"),
            Self::SlotLost => {
                f.write_str("the server says that the slot of what is listened to is not its own any more")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn refusals_name_the_setting_to_look_at() {
        let rows = [
            (Step::Auth, "WRONGPASS invalid username-password pair", FeedErrorKind::Auth, "REDIS_URL"),
            (Step::Auth, "ERR AUTH <password> called without any password", FeedErrorKind::Auth, "REDIS_URL"),
            (Step::Select, "NOAUTH Authentication required.", FeedErrorKind::Auth, "password in REDIS_URL"),
            (Step::Subscribe, "NOAUTH Authentication required.", FeedErrorKind::Auth, "password in REDIS_URL"),
            (Step::Subscribe, "NOPERM this user has no permissions", FeedErrorKind::Auth, "REDIS_CHANNELS"),
            (Step::Select, "ERR DB index is out of range", FeedErrorKind::Database, "database number in REDIS_URL"),
            (Step::Auth, "ERR max number of clients reached", FeedErrorKind::Refused, "max number of clients"),
            (Step::Auth, "LOADING Redis is loading the dataset in memory", FeedErrorKind::Refused, "LOADING"),
            (Step::Listen, "ERR something", FeedErrorKind::Refused, "ERR something"),
        ];
        for (step, text, kind, shown) in rows {
            let trouble = Trouble::Server { step, text: text.to_owned() };
            assert_eq!(trouble.kind(), kind, "{text}");
            assert!(trouble.to_string().contains(shown), "{trouble}");
            assert!(!trouble.is_of_connection(), "{text}");
        }
    }

    #[test]
    fn only_what_did_not_get_through_is_trouble_of_the_connection() {
        let address = SocketAddr::from(([127, 0, 0, 1], 6379));
        let rows = [
            (Unreached::Resolve(String::new()).into(), true),
            (Unreached::Connect { address, errno: Errno::CONNREFUSED }.into(), true),
            (Trouble::GreetingDeadline { address, step: Step::Auth }, true),
            (Unreached::Closed.into(), true),
            (Trouble::Silent { ms: 1 }, true),
            (Trouble::Session(SessionError::TooLarge { bytes: 1 }), false),
            (TransportError::Tls(rustls::Error::DecryptError).into(), false),
            (TransportError::Io(Errno::CONNRESET).into(), true),
        ];
        for (trouble, of_connection) in rows {
            assert_eq!(trouble.is_of_connection(), of_connection, "{trouble}");
        }
    }
}
