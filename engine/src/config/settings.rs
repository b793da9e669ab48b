//! The settings as plain data, once everything has been checked. Units are in the names; see
//! [`super::variables::VARIABLES`] for what each is for.
use super::problem::Secret;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `RUN_MODE`.
    pub run_mode: RunMode,
    /// `RUST_LOG`, `LOG_FORMAT`.
    pub log: LogSettings,
    /// `SHARDS`: 1 to [`protocol::limits::SHARDS_MAX`].
    pub shards: usize,
    /// `SERVER_*`, `CORS_ORIGINS`.
    pub server: ServerSettings,
    /// `API_KEY`; never empty.
    pub api_key: Option<Secret>,
    /// `JWT_*`.
    pub jwt: JwtSettings,
    /// `REDIS_*`.
    pub redis: RedisSettings,
    /// `WEBSOCKET_*`.
    pub websocket: WebSocketSettings,
    /// `QUEUE_*`.
    pub queue: QueueSettings,
    /// `ACK_*`.
    pub ack: AckSettings,
    /// `RATELIMIT_*`.
    pub rate_limit: RateLimitSettings,
    /// `TENANT_*`.
    pub tenant: TenantSettings,
    /// `CLUSTER_*`.
    pub cluster: ClusterSettings,
    /// `DATABASE_*`.
    pub database: DatabaseSettings,
    /// `OTEL_*`.
    pub otel: OtelSettings,
}

impl Settings {
    /// Whether something that was asked for cannot work without Redis (contract §1.9): a queue or acknowledgements
    /// kept there, or a cluster. Redis that is only listened to does not count.
    pub fn redis_is_required(&self) -> bool {
        (self.queue.enabled && self.queue.backend == Backend::Redis)
            || (self.ack.enabled && self.ack.backend == Backend::Redis)
            || self.cluster.enabled
    }

    /// Whether mail or acknowledgements are kept in PostgreSQL. Templates that live there are not counted, as with
    /// Redis: nobody waits for them to be written.
    pub fn postgres_is_required(&self) -> bool {
        (self.queue.enabled && self.queue.backend == Backend::Postgres)
            || (self.ack.enabled && self.ack.backend == Backend::Postgres)
    }

    /// What is kept where, in a sentence for people.
    pub fn kept(&self) -> String {
        let place = |enabled: bool, backend: Backend, off: &str| match enabled {
            true => format!("in {}", backend.as_str()),
            false => off.to_owned(),
        };
        format!(
            "templates in {}, mail {}, acknowledgements {}",
            self.queue.backend.as_str(),
            place(self.queue.enabled, self.queue.backend, "nowhere (QUEUE_ENABLED is false)"),
            place(self.ack.enabled, self.ack.backend, "nowhere (ACK_ENABLED is false)"),
        )
    }

    /// Whether anything at all is kept in PostgreSQL, templates included.
    pub fn postgres_is_used(&self) -> bool {
        self.queue.backend == Backend::Postgres || self.postgres_is_required()
    }
}

/// How strict the node is with strangers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMode {
    /// As given; also the name of the second configuration file.
    pub name: String,
    /// `production` or `prod`, in any letter case.
    pub production: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Directives of `RUST_LOG`; known to parse.
    pub filter: String,
    /// `LOG_FORMAT`.
    pub format: LogFormat,
}

/// Where the node listens and whom it believes.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// `SERVER_HOST`: an address or a name to resolve.
    pub host: String,
    /// `SERVER_PORT`.
    pub port: u16,
    /// `CORS_ORIGINS`; empty is any in development and none in production (D-3).
    pub cors_origins: Vec<String>,
    /// `SERVER_OUTBOX_MEMORY_MB`: of the node, shared evenly among its shards.
    pub outbox_memory_mb: usize,
    /// `SERVER_TRUSTED_PROXIES` (C-10).
    pub trusted_proxies: Vec<IpNet>,
    /// `TLS_CERT`, `TLS_KEY`; absent while clients are served in plain text.
    pub tls: Option<TlsSettings>,
}

/// Whose certificate clients see: PEM files, read at start and whenever SIGHUP says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// `TLS_CERT`: the server's own first, then those that vouch for it.
    pub certificate: PathBuf,
    /// `TLS_KEY`.
    pub key: PathBuf,
}

/// How tokens may be signed (C-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl JwtAlgorithm {
    /// The algorithm of this name, in any letter case.
    pub fn parse(name: &str) -> Option<JwtAlgorithm> {
        match name.to_ascii_uppercase().as_str() {
            "HS256" => Some(JwtAlgorithm::Hs256),
            "HS384" => Some(JwtAlgorithm::Hs384),
            "HS512" => Some(JwtAlgorithm::Hs512),
            "RS256" => Some(JwtAlgorithm::Rs256),
            "ES256" => Some(JwtAlgorithm::Es256),
            _ => None,
        }
    }

    /// Whether the same secret signs and checks.
    pub fn is_symmetric(self) -> bool {
        matches!(self, JwtAlgorithm::Hs256 | JwtAlgorithm::Hs384 | JwtAlgorithm::Hs512)
    }
}

/// How tokens are checked.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// `JWT_ALGORITHM`.
    pub algorithm: JwtAlgorithm,
    /// `JWT_SECRET`; always there with a symmetric algorithm.
    pub secret: Option<Secret>,
    /// What stands in the file `JWT_PUBLICKEY`; always there, and of the right kind, with RS256 and ES256.
    pub public_key_pem: Option<Vec<u8>>,
    /// `JWT_ISSUER`.
    pub issuer: Option<String>,
    /// `JWT_AUDIENCE`.
    pub audience: Option<String>,
}

/// The link to Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// False only under `dev`: no link is made at all.
    pub enabled: bool,
    /// `REDIS_URL`; may hold a password.
    pub url: Secret,
    /// `REDIS_CHANNELS`; never empty.
    pub channels: Vec<String>,
    /// `REDIS_CIRCUIT_BREAKER_FAILURE_THRESHOLD`.
    pub breaker_failure_threshold: u32,
    /// `REDIS_CIRCUIT_BREAKER_SUCCESS_THRESHOLD`.
    pub breaker_success_threshold: u32,
    /// `REDIS_CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS`.
    pub breaker_reset_timeout_seconds: u64,
    /// `REDIS_BACKOFF_INITIAL_DELAY_MS`.
    pub backoff_initial_delay_ms: u64,
    /// `REDIS_BACKOFF_MAX_DELAY_MS`; not below the initial delay.
    pub backoff_max_delay_ms: u64,
}

/// WebSocket and SSE connections.
#[derive(Clone, Debug)]
pub struct WebSocketSettings {
    /// `WEBSOCKET_HEARTBEAT_INTERVAL`.
    pub heartbeat_interval_seconds: u64,
    /// `WEBSOCKET_CONNECTION_TIMEOUT`; longer than the heartbeat interval.
    pub connection_timeout_seconds: u64,
    /// `WEBSOCKET_CLEANUP_INTERVAL`; without effect, for nothing is left lying about.
    pub cleanup_interval_seconds: u64,
    /// `WEBSOCKET_MAX_CONNECTIONS`; 0 is unlimited.
    pub connections_max: usize,
    /// `WEBSOCKET_MAX_CONNECTIONS_PER_USER`; 0 is unlimited.
    pub connections_per_user_max: usize,
    /// `WEBSOCKET_MAX_SUBSCRIPTIONS_PER_CONNECTION`; 0 is unlimited.
    pub subscriptions_max: usize,
}

/// Where something is kept that outlives a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In this process.
    Memory,
    /// In `REDIS_URL`.
    Redis,
    /// In `DATABASE_URL`.
    Postgres,
}

impl Backend {
    /// The name people write.
    pub fn as_str(self) -> &'static str {
        match self {
            Backend::Memory => "memory",
            Backend::Redis => "redis",
            Backend::Postgres => "postgres",
        }
    }
}

/// Notifications for users who are offline.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// `QUEUE_ENABLED`.
    pub enabled: bool,
    /// `QUEUE_BACKEND`.
    pub backend: Backend,
    /// `QUEUE_MAX_SIZE_PER_USER`.
    pub size_per_user_max: usize,
    /// `QUEUE_MESSAGE_TTL_SECONDS`.
    pub message_ttl_seconds: u64,
    /// `QUEUE_CLEANUP_INTERVAL_SECONDS`.
    pub cleanup_interval_seconds: u64,
    /// `QUEUE_REDIS_PREFIX`.
    pub redis_prefix: String,
}

/// Acknowledgements.
#[derive(Clone, Debug)]
pub struct AckSettings {
    /// `ACK_ENABLED`.
    pub enabled: bool,
    /// `ACK_BACKEND`.
    pub backend: Backend,
    /// `ACK_TIMEOUT_SECONDS`.
    pub timeout_seconds: u64,
    /// `ACK_CLEANUP_INTERVAL_SECONDS`.
    pub cleanup_interval_seconds: u64,
    /// `ACK_REDIS_PREFIX`.
    pub redis_prefix: String,
}

/// Limits on requests and connects.
#[derive(Clone, Debug)]
pub struct RateLimitSettings {
    /// `RATELIMIT_ENABLED`.
    pub enabled: bool,
    /// `RATELIMIT_BACKEND`: memory or Redis (D-5).
    pub backend: Backend,
    /// `RATELIMIT_HTTP_REQUESTS_PER_SECOND`.
    pub http_requests_per_second: u32,
    /// `RATELIMIT_HTTP_BURST_SIZE`.
    pub http_burst_size: u32,
    /// `RATELIMIT_WS_CONNECTIONS_PER_MINUTE`.
    pub ws_connections_per_minute: u32,
    /// `RATELIMIT_WS_MESSAGES_PER_SECOND`.
    pub ws_messages_per_second: u32,
    /// `RATELIMIT_CLEANUP_INTERVAL_SECONDS`.
    pub cleanup_interval_seconds: u64,
    /// `RATELIMIT_REDIS_PREFIX`.
    pub redis_prefix: String,
}

/// What one tenant may have; 0 is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantLimits {
    /// Connections of the tenant.
    pub connections_max: usize,
    /// Connections of one of its users.
    pub connections_per_user_max: usize,
    /// Subscriptions of one of its connections.
    pub subscriptions_max: usize,
}

/// Separation of tenants.
#[derive(Clone, Debug)]
pub struct TenantSettings {
    /// `TENANT_ENABLED`.
    pub enabled: bool,
    /// `TENANT_DEFAULT_MAX_*`.
    pub default_limits: TenantLimits,
    /// `[tenant.tenant_overrides.<id>]` of the files; what one leaves out it takes from the default.
    pub overrides: BTreeMap<String, TenantLimits>,
}

/// Several nodes as one.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// `CLUSTER_ENABLED`.
    pub enabled: bool,
    /// `CLUSTER_SERVER_ID`; unset means made up at start, see [`crate::random::server_id`].
    pub server_id: Option<String>,
    /// `CLUSTER_SESSION_PREFIX`.
    pub session_prefix: String,
    /// `CLUSTER_SESSION_TTL_SECONDS`.
    pub session_ttl_seconds: u64,
    /// `CLUSTER_ROUTING_CHANNEL`.
    pub routing_channel: String,
}

/// The link to PostgreSQL.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// `DATABASE_URL`; may hold a password.
    pub url: Secret,
    /// `DATABASE_POOL_SIZE`.
    pub pool_size: usize,
    /// `DATABASE_CONNECT_TIMEOUT_SECONDS`.
    pub connect_timeout_seconds: u64,
    /// `DATABASE_IDLE_TIMEOUT_SECONDS`.
    pub idle_timeout_seconds: u64,
}

/// Traces.
#[derive(Clone, Debug)]
pub struct OtelSettings {
    /// `OTEL_ENABLED`.
    pub enabled: bool,
    /// `OTEL_ENDPOINT`.
    pub endpoint: Secret,
    /// `OTEL_SERVICE_NAME`.
    pub service_name: String,
    /// `OTEL_SAMPLING_RATIO`: 0 to 1.
    pub sampling_ratio: f64,
}
