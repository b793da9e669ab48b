//! What can go wrong with a link, in words for the log: the cause and, where it is one, the setting to look at.
use crate::link::transport::TransportError;
use crate::link::unreached::Unreached;
use crate::postgres::error::{ErrorClass, ServerError};
use crate::postgres::session::{SessionError, Step};
use crate::postgres::status::LinkErrorKind;
use std::fmt;
use std::net::SocketAddr;

/// Why an attempt failed or a link ended. No text holds a secret.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server was not reached, or was lost.
    Unreached(Unreached),
    /// The server took the connection and then did not answer.
    GreetingDeadline { address: SocketAddr, step: Step },
    /// No answer to a sign of life.
    Silent { ms: u64 },
    /// No answer to a command in time.
    Late { in_flight: usize },
    /// What the connection before was doing could not be ended in time.
    Predecessor,
    /// TLS was not agreed on, or was meddled with.
    Tls(rustls::Error),
    /// The server refused us, or said good-bye.
    Server(ServerError),
    /// What came was no conversation we understand.
    Session(SessionError),
}

impl From<Unreached> for Trouble {
    fn from(unreached: Unreached) -> Trouble {
        Trouble::Unreached(unreached)
    }
}

impl From<TransportError> for Trouble {
    fn from(error: TransportError) -> Trouble {
        match error {
            TransportError::Io(errno) => Trouble::Unreached(Unreached::Io(errno)),
            TransportError::Tls(error) => Trouble::Tls(error),
        }
    }
}

impl Trouble {
    pub(super) fn kind(&self) -> LinkErrorKind {
        match self {
            Self::Unreached(unreached) => match unreached {
                Unreached::Resolve(_) => LinkErrorKind::Resolve,
                Unreached::Connect { .. } => LinkErrorKind::Connect,
                Unreached::LookupDeadline { .. } | Unreached::ConnectDeadline { .. } => LinkErrorKind::Deadline,
                Unreached::Closed | Unreached::Io(_) => LinkErrorKind::Closed,
            },
            Self::GreetingDeadline { .. } => LinkErrorKind::Deadline,
            Self::Silent { .. } => LinkErrorKind::Silent,
            Self::Late { .. } | Self::Predecessor => LinkErrorKind::Late,
            Self::Tls(_) | Self::Session(SessionError::NoTls) => LinkErrorKind::Tls,
            Self::Server(error) => match (error.code.class(), error.class()) {
                (b"28", _) => LinkErrorKind::Auth,
                (b"3D", _) => LinkErrorKind::Database,
                (_, ErrorClass::Connection) => LinkErrorKind::Closed,
                _ => LinkErrorKind::Refused,
            },
            Self::Session(SessionError::Login(_)) => LinkErrorKind::Auth,
            Self::Session(_) => LinkErrorKind::Protocol,
        }
    }

    /// Whether the server could not be reached or was lost, as opposed to reached and not agreed with: only this counts
    /// for the breaker (W-58).
    pub(super) fn is_of_connection(&self) -> bool {
        match self {
            Self::Unreached(_) | Self::GreetingDeadline { .. } | Self::Silent { .. } | Self::Late { .. } => true,
            Self::Server(error) => error.class() == ErrorClass::Connection,
            Self::Predecessor | Self::Tls(_) | Self::Session(_) => false,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached(unreached) => unreached.write(f, "DATABASE_URL"),
            Self::GreetingDeadline { address, step } => {
                let what = match step {
                    Step::Encryption => "whether it takes TLS",
                    Step::Handshake => "the TLS handshake",
                    Step::Login | Step::Live => "the login",
                };
                write!(f, "{address} took the connection but did not answer {what} in time")
            }
            Self::Silent { ms } => write!(f, "nothing came for {ms} ms, not even a sign of life"),
            Self::Late { in_flight } => {
                write!(f, "a command was not answered in time; {in_flight} under way may or may not have happened")
            }
            Self::Predecessor => f.write_str("what the connection before was doing could not be ended in time"),
            Self::Tls(error) => {
                write!(f, "TLS was not agreed on, check sslmode and sslrootcert in DATABASE_URL: {error}")
            }
            Self::Server(error) => match self.kind() {
                LinkErrorKind::Auth => write!(f, "check the user and password in DATABASE_URL: {error}"),
                LinkErrorKind::Database => write!(f, "check the database in DATABASE_URL: {error}"),
                LinkErrorKind::Closed => write!(f, "the server ended the connection: {error}"),
                _ => write!(f, "the server refused: {error}"),
            },
            Self::Session(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::error::{Severity, SqlState};
    use crate::postgres::login::LoginError;
    use rustix::io::Errno;

    fn fatal(code: &[u8; 5]) -> Trouble {
        Trouble::Server(ServerError { severity: Severity::Fatal, code: SqlState(*code), message: "words".into() })
    }

    #[test]
    fn each_trouble_has_its_kind_its_weight_and_its_words() {
        let address = SocketAddr::from(([127, 0, 0, 1], 5432));
        let rows = [
            (Unreached::Resolve(String::new()).into(), LinkErrorKind::Resolve, true, "host of DATABASE_URL"),
            (Unreached::Connect { address, errno: Errno::CONNREFUSED }.into(), LinkErrorKind::Connect, true, "5432"),
            (Trouble::GreetingDeadline { address, step: Step::Handshake }, LinkErrorKind::Deadline, true, "TLS"),
            (Unreached::Closed.into(), LinkErrorKind::Closed, true, "closed"),
            (Trouble::Silent { ms: 1 }, LinkErrorKind::Silent, true, "1 ms"),
            (Trouble::Late { in_flight: 3 }, LinkErrorKind::Late, true, "3 under way"),
            (Trouble::Predecessor, LinkErrorKind::Late, false, "the connection before"),
            (Trouble::Tls(rustls::Error::DecryptError), LinkErrorKind::Tls, false, "sslrootcert"),
            (Trouble::Session(SessionError::NoTls), LinkErrorKind::Tls, false, "sslmode"),
            (fatal(b"28P01"), LinkErrorKind::Auth, false, "password in DATABASE_URL"),
            (fatal(b"28000"), LinkErrorKind::Auth, false, "SQLSTATE 28000"),
            (fatal(b"3D000"), LinkErrorKind::Database, false, "database in DATABASE_URL"),
            (fatal(b"53300"), LinkErrorKind::Refused, false, "refused"),
            (fatal(b"57P03"), LinkErrorKind::Refused, false, "refused"),
            (fatal(b"57P01"), LinkErrorKind::Closed, true, "ended the connection"),
            (Trouble::Session(SessionError::Login(LoginError::NoPassword)), LinkErrorKind::Auth, false, "DATABASE_URL"),
            (Trouble::Session(SessionError::TooLarge { bytes: 1 }), LinkErrorKind::Protocol, false, "1 bytes"),
        ];
        for (trouble, kind, of_connection, words) in rows {
            assert_eq!((trouble.kind(), trouble.is_of_connection()), (kind, of_connection), "{trouble}");
            assert!(trouble.to_string().contains(words), "{trouble}");
        }
    }
}
