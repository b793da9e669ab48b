//! What the tests speak with: processes, an HTTP client, a WebSocket client, an SSE reader, a Redis server, a PostgreSQL
//! server.

pub(crate) mod backend;
pub(crate) mod cable;
pub(crate) mod crowd;
pub(crate) mod http;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod redis_cluster;
pub(crate) mod sentinel;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod sse;
pub(crate) mod tls;
pub(crate) mod token;
pub(crate) mod ws;

use std::time::Duration;

/// How long anything may take before a test calls it a failure. Never a pace: what arrives sooner goes on sooner.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Whether `text` is a hyphenated lower-case UUID of version 7 (contract C-3).
pub(crate) fn is_uuid_v7(text: &str) -> bool {
    uuid::Uuid::parse_str(text).is_ok_and(|id| id.get_version_num() == 7 && id.hyphenated().to_string() == text)
}

/// Whether `text` looks like `2026-01-02T03:04:05[.fraction]Z` (contract §1.7).
pub(crate) fn is_rfc3339_utc(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else { return false };
    let Some(fraction) = rest.strip_suffix('Z') else { return false };
    fraction.is_empty() || matches!(fraction, ".000" | ".000000" | ".000000000")
}

/// Raises this process's soft limit of open files to the hard one, for tests with many clients.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("raising the soft limit to the hard one is allowed to everybody");
}
