//! How a link to PostgreSQL does: written by the thread that turns it, read by any.
use crate::breaker::{Breaker, BreakerState};
use crate::link::state::LinkState;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// What ended a link, or kept it from being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LinkErrorKind {
    /// The name of the host was not resolved.
    Resolve = 1,
    /// No address took the connection.
    Connect = 2,
    /// Connecting and being let in took too long.
    Deadline = 3,
    /// The connection was closed or reset, or the server said that it ends it.
    Closed = 4,
    /// The server did not answer a sign of life.
    Silent = 5,
    /// The server did not answer a command in time; what comes later could not be matched any more.
    Late = 6,
    /// TLS was not agreed on.
    Tls = 7,
    /// The server does not know the user, or the password is wrong, or it asks for a proof we do not have.
    Auth = 8,
    /// The server has no such database.
    Database = 9,
    /// The server refused for another reason: it is starting up, or has too many connections.
    Refused = 10,
    /// What came was not PostgreSQL's protocol, or a message was too large.
    Protocol = 11,
}

impl LinkErrorKind {
    /// All of them.
    pub const ALL: [LinkErrorKind; 11] = [
        Self::Resolve,
        Self::Connect,
        Self::Deadline,
        Self::Closed,
        Self::Silent,
        Self::Late,
        Self::Tls,
        Self::Auth,
        Self::Database,
        Self::Refused,
        Self::Protocol,
    ];

    /// A word for a metric or a page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Deadline => "deadline",
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Late => "late",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Database => "database",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandEnd {
    Done,
    Failed,
    Unknown,
    NotSent,
}

/// Figures of one link. Only its link writes; a reader may see one figure newer than another.
#[derive(Debug, Default)]
pub struct LinkStatus {
    link: AtomicU8,
    breaker: AtomicU8,
    failures: AtomicU32,
    attempts: AtomicU64,
    connections: AtomicU64,
    ends: AtomicU64,
    last_error: AtomicU8,
    encrypted: AtomicU8,
    done: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    not_sent: AtomicU64,
    outstanding: AtomicU64,
}

/// The figures at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSnapshot {
    /// The state of the link.
    pub link: LinkState,
    /// The state of its breaker.
    pub breaker: BreakerState,
    /// Failures of the connection in a row; stays at the threshold while the breaker is not closed.
    pub failures: u32,
    /// Attempts since the link was last healthy; 0 while it is.
    pub attempts: u64,
    /// How often the link became healthy.
    pub connections: u64,
    /// How often a link, or the attempt to make one, came to an end.
    pub ends: u64,
    /// What went wrong last; kept when it is well again.
    pub last_error: Option<LinkErrorKind>,
    /// The connection is, or the last one was, encrypted.
    pub encrypted: bool,
    /// Commands that were done.
    pub done: u64,
    /// Commands that the server refused.
    pub failed: u64,
    /// Commands that were sent and whose answer never came.
    pub unknown: u64,
    /// Commands that were given up before they were sent.
    pub not_sent: u64,
    /// Commands that are not answered now.
    pub outstanding: u64,
}

impl LinkStatus {
    /// Not connected, nothing tried, the breaker closed.
    pub fn new() -> LinkStatus {
        LinkStatus::default()
    }

    /// The figures now, from any thread.
    pub fn snapshot(&self) -> LinkSnapshot {
        let last_error = self.last_error.load(Relaxed);
        LinkSnapshot {
            link: LinkState::from_number(self.link.load(Relaxed)),
            breaker: match self.breaker.load(Relaxed) {
                1 => BreakerState::Open,
                2 => BreakerState::HalfOpen,
                _ => BreakerState::Closed,
            },
            failures: self.failures.load(Relaxed),
            attempts: self.attempts.load(Relaxed),
            connections: self.connections.load(Relaxed),
            ends: self.ends.load(Relaxed),
            last_error: LinkErrorKind::ALL.into_iter().find(|kind| *kind as u8 == last_error),
            encrypted: self.encrypted.load(Relaxed) != 0,
            done: self.done.load(Relaxed),
            failed: self.failed.load(Relaxed),
            unknown: self.unknown.load(Relaxed),
            not_sent: self.not_sent.load(Relaxed),
            outstanding: self.outstanding.load(Relaxed),
        }
    }

    pub(super) fn set_link(&self, link: LinkState) {
        self.link.store(link as u8, Relaxed);
    }

    pub(super) fn set_breaker(&self, breaker: &Breaker) {
        self.breaker.store(breaker.state() as u8, Relaxed);
        self.failures.store(breaker.failures(), Relaxed);
    }

    pub(super) fn attempted(&self) {
        add(&self.attempts, 1);
    }

    pub(super) fn connected(&self, encrypted: bool) {
        self.attempts.store(0, Relaxed);
        self.encrypted.store(u8::from(encrypted), Relaxed);
        add(&self.connections, 1);
        self.set_link(LinkState::Healthy);
    }

    pub(super) fn ended(&self, kind: LinkErrorKind) {
        self.last_error.store(kind as u8, Relaxed);
        add(&self.ends, 1);
    }

    pub(super) fn submitted(&self) {
        add(&self.outstanding, 1);
    }

    pub(super) fn answered(&self, end: CommandEnd) {
        let count = match end {
            CommandEnd::Done => &self.done,
            CommandEnd::Failed => &self.failed,
            CommandEnd::Unknown => &self.unknown,
            CommandEnd::NotSent => &self.not_sent,
        };
        add(count, 1);
        self.outstanding.store(self.outstanding.load(Relaxed).saturating_sub(1), Relaxed);
    }
}

/// There is one writer: no need for a locked addition.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Relaxed) + more, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let status = LinkStatus::new();
        assert_eq!((status.snapshot().link, status.snapshot().last_error), (LinkState::Reconnecting, None));
        for kind in LinkErrorKind::ALL {
            status.ended(kind);
            assert_eq!(status.snapshot().last_error, Some(kind));
        }
        for _ in 0..5 {
            status.submitted();
        }
        for end in [CommandEnd::Done, CommandEnd::Failed, CommandEnd::Unknown, CommandEnd::NotSent] {
            status.answered(end);
        }
        let now = status.snapshot();
        assert_eq!([now.done, now.failed, now.unknown, now.not_sent, now.outstanding], [1; 5]);
    }
}
