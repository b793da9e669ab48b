//! How the link does: written by the thread that turns it, read by any.
use crate::breaker::{Breaker, BreakerState};
pub use crate::link::state::LinkState;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// What ended the link, or kept it from being made, the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FeedErrorKind {
    /// The name of the host was not resolved.
    Resolve = 1,
    /// No address took the connection.
    Connect = 2,
    /// Connecting, authenticating and subscribing took too long.
    Deadline = 3,
    /// The connection was closed or reset.
    Closed = 4,
    /// The server did not answer a PING.
    Silent = 5,
    /// The server refused the user, the password or the right to subscribe.
    Auth = 6,
    /// The server has no such database.
    Database = 7,
    /// The server refused for another reason.
    Refused = 8,
    /// What came was not Redis' protocol, or a reply was too large.
    Protocol = 9,
    /// No encryption could be agreed on, or the server did not prove who it is.
    Tls = 10,
}

impl FeedErrorKind {
    /// All of them.
    pub const ALL: [FeedErrorKind; 10] = [
        Self::Resolve,
        Self::Connect,
        Self::Deadline,
        Self::Closed,
        Self::Silent,
        Self::Auth,
        Self::Database,
        Self::Refused,
        Self::Protocol,
        Self::Tls,
    ];

    /// A word for a metric or a page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Deadline => "deadline",
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Auth => "auth",
            Self::Database => "database",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
            Self::Tls => "tls",
        }
    }
}

/// Figures of one link. Only its feed writes; a reader may see one figure newer than another.
#[derive(Debug, Default)]
pub struct FeedStatus {
    link: AtomicU8,
    breaker: AtomicU8,
    failures: AtomicU32,
    attempts: AtomicU64,
    reconnections: AtomicU64,
    messages: AtomicU64,
    ends: AtomicU64,
    last_error: AtomicU8,
    /// 0 while it is not healthy.
    healthy_since_us: AtomicU64,
}

/// The figures at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedSnapshot {
    /// The state of the link.
    pub link: LinkState,
    /// The state of its breaker.
    pub breaker: BreakerState,
    /// Failures of the connection in a row; stays at the threshold while the breaker is not closed.
    pub failures: u32,
    /// Attempts since the link was last healthy; 0 while it is.
    pub attempts: u64,
    /// How often the link became healthy, the first time included (contract §1.10).
    pub reconnections: u64,
    /// Messages handed out.
    pub messages: u64,
    /// How often a link, or the attempt to make one, came to an end.
    pub ends: u64,
    /// What went wrong last; kept when it is well again.
    pub last_error: Option<FeedErrorKind>,
}

impl FeedStatus {
    /// Not connected, nothing tried, the breaker closed.
    pub fn new() -> FeedStatus {
        FeedStatus::default()
    }

    /// The same of a link that has been healthy since then, on the monotonic clock: for tests of who reads it.
    pub fn up_since(now_us: u64) -> FeedStatus {
        let status = FeedStatus::new();
        status.connected(now_us);
        status
    }

    /// The figures now, from any thread.
    pub fn snapshot(&self) -> FeedSnapshot {
        let last_error = self.last_error.load(Relaxed);
        FeedSnapshot {
            link: LinkState::from_number(self.link.load(Relaxed)),
            breaker: match self.breaker.load(Relaxed) {
                1 => BreakerState::Open,
                2 => BreakerState::HalfOpen,
                _ => BreakerState::Closed,
            },
            failures: self.failures.load(Relaxed),
            attempts: self.attempts.load(Relaxed),
            reconnections: self.reconnections.load(Relaxed),
            messages: self.messages.load(Relaxed),
            ends: self.ends.load(Relaxed),
            last_error: FeedErrorKind::ALL.into_iter().find(|kind| *kind as u8 == last_error),
        }
    }

    /// Since when the link has been healthy, on [`protocol::clock::Now::mono_us`]: nothing that was published since then was
    /// missed. None while it is not.
    pub fn healthy_since_us(&self) -> Option<u64> {
        Some(self.healthy_since_us.load(Relaxed)).filter(|since_us| *since_us != 0)
    }

    pub(crate) fn set_link(&self, link: LinkState) {
        if link != LinkState::Healthy {
            self.healthy_since_us.store(0, Relaxed);
        }
        self.link.store(link as u8, Relaxed);
    }

    pub(crate) fn set_breaker(&self, breaker: &Breaker) {
        self.breaker.store(breaker.state() as u8, Relaxed);
        self.failures.store(breaker.failures(), Relaxed);
    }

    pub(crate) fn attempted(&self) {
        self.attempts.store(self.attempts.load(Relaxed) + 1, Relaxed);
    }

    pub(crate) fn connected(&self, now_us: u64) {
        self.healthy_since_us.store(now_us.max(1), Relaxed);
        self.attempts.store(0, Relaxed);
        self.reconnections.store(self.reconnections.load(Relaxed) + 1, Relaxed);
        self.set_link(LinkState::Healthy);
    }

    pub(crate) fn received(&self, messages: u64) {
        self.messages.store(self.messages.load(Relaxed) + messages, Relaxed);
    }

    pub(crate) fn ended(&self, kind: FeedErrorKind) {
        self.last_error.store(kind as u8, Relaxed);
        self.ends.store(self.ends.load(Relaxed) + 1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_and_numbers_are_those_of_the_contract() {
        let breakers = [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen];
        assert_eq!(breakers.map(|state| state as u8), [0, 1, 2]);
        assert_eq!(breakers.map(BreakerState::as_str), ["closed", "open", "half_open"]);
    }

    #[test]
    fn what_is_written_is_read() {
        let status = FeedStatus::new();
        assert_eq!(status.snapshot().link, LinkState::Reconnecting);
        assert_eq!(status.snapshot().last_error, None);
        for kind in FeedErrorKind::ALL {
            status.ended(kind);
            assert_eq!(status.snapshot().last_error, Some(kind));
        }
        for link in [LinkState::Healthy, LinkState::CircuitOpen, LinkState::Reconnecting] {
            status.set_link(link);
            assert_eq!(status.snapshot().link, link);
        }
    }
}
