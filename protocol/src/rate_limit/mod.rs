//! Rate limits (contract §10): who is counted, in which bucket, and what an answer tells of it.
pub mod bucket;
pub mod identity;
pub mod quota;

pub use bucket::{Bucket, Rate};
pub use identity::Identity;
pub use quota::Quota;

/// Which limit a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// `RATELIMIT_HTTP_*`: `/stats` and all of `/api/v1`.
    Http,
    /// `RATELIMIT_WS_CONNECTIONS_PER_MINUTE`: `/ws` and `/sse`.
    Connect,
}

impl LimitKind {
    /// What the number of the limit refers to; also how long a fixed window is, and what `retry-after` says
    /// (contract §10.1, §10.2).
    pub fn period_seconds(self) -> u32 {
        match self {
            LimitKind::Http => 1,
            LimitKind::Connect => 60,
        }
    }

    /// [`LimitKind::period_seconds`] in milliseconds.
    pub fn period_ms(self) -> u64 {
        u64::from(self.period_seconds()) * 1_000
    }

    /// The label `type` of `ara_ratelimit_*`.
    pub fn as_str(self) -> &'static str {
        match self {
            LimitKind::Http => "http",
            LimitKind::Connect => "ws",
        }
    }
}
