//! What the shards of a node need to know; made by the engine from the settings, shared read-only.
use crate::key::ShardId;
use crate::tenant_limits::TenantRules;
use protocol::auth::token::Verifier;
use protocol::http::client_address::TrustedProxies;
use protocol::http::cors::Cors;
use protocol::rate_limit::Rate;

/// Settings of every shard of a node. Durations in milliseconds, 0 means unlimited where the seed says so.
pub struct ShardConfig {
    /// `CLUSTER_SERVER_ID`, or generated.
    pub server_id: Box<str>,
    /// `RUN_MODE` is `production` or `prod`.
    pub production: bool,
    /// `API_KEY`; absent or empty means open in development and 503 in production.
    pub api_key: Option<Box<[u8]>>,
    /// From the `JWT_*` settings.
    pub verifier: Verifier,
    /// From `CORS_ORIGINS` and the run mode.
    pub cors: Cors,
    /// `TENANT_ENABLED`.
    pub tenancy: bool,
    /// `TENANT_DEFAULT_MAX_*` and `tenant_overrides`; absent while tenancy is off.
    pub tenant_rules: Option<TenantRules>,
    /// `WEBSOCKET_HEARTBEAT_INTERVAL`.
    pub heartbeat_interval_ms: u64,
    /// `WEBSOCKET_CONNECTION_TIMEOUT`.
    pub connection_timeout_ms: u64,
    /// `WEBSOCKET_MAX_CONNECTIONS`, lowered to what the file-descriptor limit allows; 0 is unlimited.
    pub connections_max: usize,
    /// All sockets of the node, HTTP included: from the file-descriptor limit.
    pub sockets_max: usize,
    /// Memory that waiting output may occupy on each shard, in bytes: its share of `SERVER_OUTBOX_MEMORY_MB`.
    pub outbox_bytes_max: usize,
    /// `WEBSOCKET_MAX_CONNECTIONS_PER_USER`; 0 is unlimited.
    pub connections_per_user_max: usize,
    /// `WEBSOCKET_MAX_SUBSCRIPTIONS_PER_CONNECTION`; 0 is unlimited.
    pub subscriptions_max: usize,
    /// The templates are in a store that outlives the process: each shard loads them at its start, and answers 503 to what
    /// needs one until it has them.
    pub templates_kept: bool,
    /// `QUEUE_*`; absent while the queue is off.
    pub queue: Option<QueueRules>,
    /// `ACK_*`; absent while acknowledgements are off.
    pub ack: Option<AckRules>,
    /// `CLUSTER_*`; absent while the node is alone.
    pub cluster: Option<ClusterRules>,
    /// `SERVER_TRUSTED_PROXIES`.
    pub trusted_proxies: TrustedProxies,
    /// `RATELIMIT_*`; absent while nobody is limited.
    pub rate_limits: Option<RateLimitRules>,
}

impl ShardConfig {
    /// A node in development that is alone, keeps nothing and limits nobody: what a measurement or a test begins with. The
    /// intervals are those of the settings.
    pub fn plain(server_id: &str, verifier: Verifier) -> ShardConfig {
        ShardConfig {
            server_id: server_id.into(),
            production: false,
            api_key: None,
            verifier,
            cors: Cors::any(),
            tenancy: false,
            tenant_rules: None,
            heartbeat_interval_ms: 30_000,
            connection_timeout_ms: 120_000,
            connections_max: 0,
            sockets_max: usize::MAX,
            outbox_bytes_max: usize::MAX,
            connections_per_user_max: 0,
            subscriptions_max: 0,
            templates_kept: false,
            queue: None,
            ack: None,
            cluster: None,
            trusted_proxies: TrustedProxies::default(),
            rate_limits: None,
        }
    }
}

/// How often who may ask (decision 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitRules {
    /// `RATELIMIT_HTTP_*`: requests of one identity.
    pub requests: Rate,
    /// `RATELIMIT_WS_CONNECTIONS_PER_MINUTE`: connects of one address.
    pub connects: Rate,
    /// `RATELIMIT_WS_MESSAGES_PER_SECOND`: messages of one connection; absent is unlimited.
    pub messages: Option<Rate>,
    /// `RATELIMIT_CLEANUP_INTERVAL_SECONDS`.
    pub sweep_interval_ms: u64,
    /// Requests and connects are counted where all nodes do (`RATELIMIT_BACKEND` is Redis), and here while that is away.
    pub is_shared: bool,
}

/// How a node is one of several (decision 8). All nodes of a cluster have the same rules, but for the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterRules {
    /// The shard that has the bridge to the other nodes.
    pub bridge: ShardId,
    /// Mail that is kept stands where every node finds it (`QUEUE_BACKEND` is not memory).
    pub shares_mail: bool,
}

/// How mail is kept. The bound of a mailbox is the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRules {
    /// `QUEUE_MESSAGE_TTL_SECONDS`.
    pub ttl_ms: u64,
}

/// How acknowledgements are awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckRules {
    /// `ACK_TIMEOUT_SECONDS`.
    pub timeout_ms: u64,
    /// What is awaited is noted in a store that outlives the process (`ACK_BACKEND`), which also decides about
    /// acknowledgements of what this process does not await.
    pub is_recorded: bool,
}
