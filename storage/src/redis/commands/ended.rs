//! Why a command link, or the attempt to make one, ended, in words for the log.
use crate::link::transport::TransportError;
use crate::link::unreached::Unreached;
use crate::redis::commands::answer::RefusalCode;
use crate::redis::commands::event::SessionError;
use crate::redis::status::FeedErrorKind;
use crate::redis::trouble::Trouble;
use std::fmt;
use std::net::SocketAddr;

/// Why an attempt failed or a link ended. No text holds a secret.
pub(super) enum Ended {
    /// As any link to Redis may end.
    Link(Trouble),
    /// A command, or a PING, was not answered in time.
    Late { ms: u64 },
    /// The server took the connection and did not answer the greeting.
    GreetingLate { address: SocketAddr },
    /// The first PING was refused.
    Hello { text: String },
    /// The server is no master.
    ReadOnly { text: String },
    /// The server does not have the slot of what it is asked, or not now.
    Elsewhere { text: String },
    /// What came was no answer.
    Session(SessionError),
}

impl Ended {
    pub(super) fn kind(&self) -> FeedErrorKind {
        match self {
            Self::Link(trouble) => trouble.kind(),
            Self::Late { .. } => FeedErrorKind::Silent,
            Self::GreetingLate { .. } => FeedErrorKind::Deadline,
            Self::Hello { text } => match RefusalCode::of(text.as_bytes()) {
                Some(RefusalCode::NoAuth | RefusalCode::WrongPass | RefusalCode::NoPerm) => FeedErrorKind::Auth,
                _ => FeedErrorKind::Refused,
            },
            Self::ReadOnly { .. } | Self::Elsewhere { .. } => FeedErrorKind::Refused,
            Self::Session(_) => FeedErrorKind::Protocol,
        }
    }

    /// Whether the server could not be reached, as opposed to reached and not agreed with: only this counts for the
    /// breaker (W-58).
    pub(super) fn is_of_connection(&self) -> bool {
        match self {
            Self::Link(trouble) => trouble.is_of_connection(),
            Self::Late { .. } | Self::GreetingLate { .. } => true,
            Self::Hello { .. } | Self::ReadOnly { .. } | Self::Elsewhere { .. } | Self::Session(_) => false,
        }
    }
}

impl From<Unreached> for Ended {
    fn from(unreached: Unreached) -> Ended {
        Ended::Link(unreached.into())
    }
}

impl From<TransportError> for Ended {
    fn from(error: TransportError) -> Ended {
        Ended::Link(error.into())
    }
}

impl From<Trouble> for Ended {
    fn from(trouble: Trouble) -> Ended {
        Ended::Link(trouble)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(trouble) => trouble.fmt(f),
            Self::Late { ms } => write!(f, "a command was not answered within {ms} ms"),
            Self::GreetingLate { address } => {
                write!(f, "{address} took the connection but did not answer the greeting in time")
            }
            Self::Hello { text } if self.kind() == FeedErrorKind::Auth => {
                write!(f, "check the user and password in REDIS_URL: {text}")
            }
            Self::Hello { text } => write!(f, "the server refused: {text}"),
            Self::ReadOnly { text } => write!(f, "the server of REDIS_URL is no master: {text}"),
            Self::Elsewhere { text } => write!(f, "the server does not have what it is asked for: {text}"),
            Self::Session(error) => error.fmt(f),
        }
    }
}
