//! The JSON of the pages: fields in the order in which clients know them.
use serde::Serialize;

/// A page as compact JSON.
pub(super) fn json(page: &impl Serialize) -> Vec<u8> {
    // The pages are structs of numbers, flags and texts; writing those to a `Vec` cannot fail.
    serde_json::to_vec(page).unwrap_or_default()
}

/// `GET /health` (contract §1.9).
#[derive(Serialize)]
pub(super) struct Health<'a> {
    pub(super) status: &'static str,
    pub(super) version: &'static str,
    pub(super) uptime_seconds: u64,
    pub(super) redis: HealthRedis,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) postgres: Option<HealthPostgres>,
    pub(super) connections: HealthConnections,
    pub(super) queue: HealthQueue,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<HealthCluster<'a>>,
}

#[derive(Serialize)]
pub(super) struct HealthRedis {
    pub(super) status: &'static str,
    pub(super) connected: bool,
}

#[derive(Serialize)]
pub(super) struct HealthPostgres {
    pub(super) status: &'static str,
    pub(super) connected: bool,
    pub(super) pool_size: usize,
    pub(super) idle_connections: usize,
}

#[derive(Serialize)]
pub(super) struct HealthConnections {
    pub(super) total: u64,
    pub(super) unique_users: u64,
    pub(super) channels_count: u64,
}

#[derive(Serialize)]
pub(super) struct HealthQueue {
    pub(super) enabled: bool,
    pub(super) backend: &'static str,
    pub(super) total_messages: u64,
    pub(super) users_with_queue: u64,
}

#[derive(Serialize)]
pub(super) struct HealthCluster<'a> {
    pub(super) enabled: bool,
    pub(super) server_id: &'a str,
}

/// `GET /health/ready`.
#[derive(Serialize)]
pub(super) struct ReadyPage {
    pub(super) status: &'static str,
    pub(super) checks: ReadyChecks,
}

/// What a message may need, and whether it flows; what is not configured is left out.
#[derive(Serialize)]
pub(super) struct ReadyChecks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) redis_ingest: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) redis_store: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) postgres_store: Option<bool>,
}

/// `GET /stats` (contract §1.10).
#[derive(Serialize)]
pub(super) struct Stats {
    pub(super) connections: StatsConnections,
    pub(super) notifications: StatsNotifications,
    pub(super) redis: StatsRedis,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) queue: Option<StatsQueue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ack: Option<StatsAck>,
}

#[derive(Serialize)]
pub(super) struct StatsConnections {
    pub(super) total_connections: u64,
    pub(super) unique_users: u64,
    /// Always empty: anybody may read this page, and channel names may tell something.
    pub(super) channels: Nothing,
}

/// `{}`.
#[derive(Serialize)]
pub(super) struct Nothing {}

#[derive(Serialize)]
pub(super) struct StatsNotifications {
    pub(super) total_sent: u64,
    pub(super) total_delivered: u64,
    pub(super) total_failed: u64,
    pub(super) user_notifications: u64,
    pub(super) broadcast_notifications: u64,
    pub(super) channel_notifications: u64,
}

#[derive(Serialize)]
pub(super) struct StatsRedis {
    pub(super) status: &'static str,
    pub(super) connected: bool,
    pub(super) circuit_breaker_state: &'static str,
    pub(super) circuit_breaker_failures: u64,
    pub(super) reconnection_attempts: u64,
    pub(super) total_reconnections: u64,
}

#[derive(Serialize)]
pub(super) struct StatsQueue {
    pub(super) backend: &'static str,
    pub(super) messages: u64,
    pub(super) users: u64,
    pub(super) total_enqueued: u64,
    pub(super) total_replayed: u64,
    pub(super) total_expired: u64,
    pub(super) total_dropped: u64,
}

#[derive(Serialize)]
pub(super) struct StatsAck {
    pub(super) enabled: bool,
    pub(super) total_tracked: u64,
    pub(super) total_acked: u64,
    pub(super) total_expired: u64,
    pub(super) pending_count: u64,
    pub(super) ack_rate: f64,
    pub(super) avg_latency_ms: u64,
}

/// `GET /api/v1/cluster/status` (contract §1.8).
#[derive(Serialize)]
pub(super) struct ClusterStatus<'a> {
    pub(super) enabled: bool,
    pub(super) mode: &'static str,
    pub(super) server_id: &'a str,
    pub(super) local_connections: u64,
    pub(super) local_users: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster_connections: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster_users: Option<u64>,
}
