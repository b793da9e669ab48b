//! The one list of settings: names, file keys, defaults, rules and a sentence each.
//!
//! Reading, checking, unknown-name warnings, `check-config` and `--help` all walk this list, so a variable that is not
//! in it does not exist. Contract §15.2 and the tables of the deployment guide, and a few of our own.
use super::rule::Rule;

/// How much of a value may be shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// All of it.
    Open,
    /// An address that may hold a password: all but the password.
    Address,
    /// Nothing of it, and it is never retyped: a TOML number is refused instead of turned into text.
    Secret,
}

/// One setting.
#[derive(Debug)]
pub struct Variable {
    /// Its name in the environment and in `.env`.
    pub name: &'static str,
    /// Other names that mean the same; [`Variable::name`] wins when both are there.
    pub synonyms: &'static [&'static str],
    /// Its keys in `config/*.toml`, best first; empty when only the environment has it.
    pub paths: &'static [&'static str],
    /// What holds when nobody says anything; `None` is unset, or computed at start.
    pub default: Option<&'static str>,
    /// What its text must look like.
    pub rule: Rule,
    /// How it is shown.
    pub secrecy: Secrecy,
    /// What it is for, units included.
    pub doc: &'static str,
}

impl Variable {
    const fn new(
        name: &'static str,
        paths: &'static [&'static str],
        default: Option<&'static str>,
        rule: Rule,
        doc: &'static str,
    ) -> Variable {
        Variable { name, synonyms: &[], paths, default, rule, secrecy: Secrecy::Open, doc }
    }

    const fn also(mut self, synonyms: &'static [&'static str]) -> Variable {
        self.synonyms = synonyms;
        self
    }

    const fn shown_as(mut self, secrecy: Secrecy) -> Variable {
        self.secrecy = secrecy;
        self
    }

    /// Whether `name` is one of its names in the environment.
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name || self.synonyms.contains(&name)
    }
}

/// The variable of this name or synonym.
pub fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.is_named(name))
}

/// Beginnings of names that are ours: an unknown one among them is most likely a slip of the pen.
pub const PREFIXES: &[&str] = &[
    "WEBSOCKET_",
    "QUEUE_",
    "ACK_",
    "RATELIMIT_",
    "TENANT_",
    "CLUSTER_",
    "REDIS_",
    "OTEL_",
    "DATABASE_",
    "JWT_",
    "SERVER_",
    "TLS_",
];

const DAY_SECONDS: u64 = 86_400;
const YEAR_SECONDS: u64 = 366 * DAY_SECONDS;
const COUNT_MAX: u64 = u32::MAX as u64;
const SHARDS_MAX: u64 = protocol::limits::SHARDS_MAX as u64;
const BACKENDS: Rule = Rule::Choice(&["memory", "redis", "postgres"]);

const fn number(min: u64, max: u64) -> Rule {
    Rule::Number { min, max }
}

/// All of them, in the order in which `check-config` and `--help` show them.
pub static VARIABLES: &[Variable] = &[
    Variable::new(
        "RUN_MODE",
        &[],
        Some("development"),
        Rule::FileStem,
        "`production` (or `prod`) hides internals and wants an API key; also names the file config/{RUN_MODE}.toml",
    ),
    Variable::new(
        "RUST_LOG",
        &[],
        Some("info"),
        Rule::LogFilter,
        "what is logged: error, warn, info, debug, trace, or per module",
    ),
    Variable::new(
        "LOG_FORMAT",
        &["server.log_format"],
        Some("human"),
        Rule::Choice(&["human", "json"]),
        "how log lines look",
    ),
    Variable::new(
        "SHARDS",
        &["server.shards"],
        None,
        number(1, SHARDS_MAX),
        "shards, one thread each; default: one per available core",
    ),
    Variable::new("SERVER_HOST", &["server.host"], Some("0.0.0.0"), Rule::Text, "address to listen on"),
    Variable::new("SERVER_PORT", &["server.port"], Some("8081"), number(1, 65_535), "port to listen on"),
    Variable::new(
        "SERVER_TRUSTED_PROXIES",
        &["server.trusted_proxies"],
        Some("127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"),
        Rule::Networks,
        "peers whose X-Real-IP and X-Forwarded-For are believed, as a list of networks; `none` for nobody",
    ),
    Variable::new(
        "TLS_CERT",
        &["server.tls_cert"],
        None,
        Rule::Text,
        "PEM file with the server's certificate and those that vouch for it; with TLS_KEY, the port speaks TLS only",
    ),
    Variable::new(
        "TLS_KEY",
        &["server.tls_key"],
        None,
        Rule::Text,
        "PEM file with the certificate's private key; both files are read again on SIGHUP",
    ),
    Variable::new(
        "SERVER_OUTBOX_MEMORY_MB",
        &["server.outbox_memory_mb"],
        Some("512"),
        number(16, 1_048_576),
        "memory that output may occupy which clients do not read; above it the largest outboxes are shed",
    ),
    Variable::new(
        "CORS_ORIGINS",
        &["server.cors_origins"],
        None,
        Rule::List,
        "browser origins that may call; unset: any in development, none in production",
    ),
    Variable::new(
        "API_KEY",
        &["api.key"],
        None,
        Rule::Text,
        "key of the HTTP API; unset: open in development, closed in production",
    )
    .shown_as(Secrecy::Secret),
    Variable::new(
        "JWT_SECRET",
        &["jwt.secret"],
        None,
        Rule::Text,
        "secret of HS256, HS384 and HS512 tokens; required for them, 32 bytes or more",
    )
    .shown_as(Secrecy::Secret),
    Variable::new(
        "JWT_ALGORITHM",
        &["jwt.algorithm"],
        Some("HS256"),
        Rule::Choice(&["HS256", "HS384", "HS512", "RS256", "ES256"]),
        "the one algorithm that tokens may be signed with",
    ),
    Variable::new(
        "JWT_PUBLICKEY",
        &["jwt.publickey", "jwt.public_key"],
        None,
        Rule::Text,
        "PEM file with the public key; required for RS256 and ES256",
    )
    .also(&["JWT_PUBLIC_KEY"]),
    Variable::new("JWT_ISSUER", &["jwt.issuer"], None, Rule::Text, "when set, tokens must carry it as `iss`"),
    Variable::new("JWT_AUDIENCE", &["jwt.audience"], None, Rule::Text, "when set, tokens must carry it in `aud`"),
    Variable::new(
        "REDIS_URL",
        &["redis.url"],
        Some("redis://localhost:6379"),
        Rule::Url(&[
            "redis://",
            "rediss://",
            "redis+sentinel://",
            "rediss+sentinel://",
            "redis-cluster://",
            "rediss-cluster://",
        ]),
        "Redis to take notifications from",
    )
    .shown_as(Secrecy::Address),
    Variable::new(
        "REDIS_CHANNELS",
        &["redis.channels"],
        Some("notification:user:*,notification:broadcast,notification:channel:*"),
        Rule::List,
        "channels and patterns to subscribe to",
    ),
    Variable::new(
        "REDIS_CIRCUIT_BREAKER_FAILURE_THRESHOLD",
        &["redis.circuit_breaker_failure_threshold", "redis.circuit_breaker.failure_threshold"],
        Some("5"),
        number(1, COUNT_MAX),
        "failures in a row that open the circuit",
    ),
    Variable::new(
        "REDIS_CIRCUIT_BREAKER_SUCCESS_THRESHOLD",
        &["redis.circuit_breaker_success_threshold", "redis.circuit_breaker.success_threshold"],
        Some("2"),
        number(1, COUNT_MAX),
        "successes that close it again",
    ),
    Variable::new(
        "REDIS_CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS",
        &["redis.circuit_breaker_reset_timeout_seconds", "redis.circuit_breaker.reset_timeout_seconds"],
        Some("30"),
        number(1, DAY_SECONDS),
        "seconds an open circuit waits before it tries again",
    ),
    Variable::new(
        "REDIS_BACKOFF_INITIAL_DELAY_MS",
        &["redis.backoff_initial_delay_ms", "redis.backoff.initial_delay_ms"],
        Some("100"),
        number(1, DAY_SECONDS * 1000),
        "milliseconds before the first reconnect; doubles each time",
    ),
    Variable::new(
        "REDIS_BACKOFF_MAX_DELAY_MS",
        &["redis.backoff_max_delay_ms", "redis.backoff.max_delay_ms"],
        Some("30000"),
        number(1, DAY_SECONDS * 1000),
        "milliseconds between reconnects at most",
    ),
    Variable::new(
        "WEBSOCKET_HEARTBEAT_INTERVAL",
        &["websocket.heartbeat_interval"],
        Some("30"),
        number(1, DAY_SECONDS),
        "seconds between heartbeats",
    ),
    Variable::new(
        "WEBSOCKET_CONNECTION_TIMEOUT",
        &["websocket.connection_timeout"],
        Some("120"),
        number(1, 7 * DAY_SECONDS),
        "seconds of silence after which a connection is closed; more than the heartbeat interval",
    ),
    Variable::new(
        "WEBSOCKET_CLEANUP_INTERVAL",
        &["websocket.cleanup_interval"],
        Some("60"),
        number(1, DAY_SECONDS),
        "seconds between clean-ups; accepted for compatibility, clean-up is immediate",
    ),
    Variable::new(
        "WEBSOCKET_MAX_CONNECTIONS",
        &["websocket.max_connections"],
        Some("10000"),
        number(0, COUNT_MAX),
        "WebSocket and SSE connections of the node; 0: unlimited",
    ),
    Variable::new(
        "WEBSOCKET_MAX_CONNECTIONS_PER_USER",
        &["websocket.max_connections_per_user"],
        Some("5"),
        number(0, COUNT_MAX),
        "connections of one user; 0: unlimited",
    ),
    Variable::new(
        "WEBSOCKET_MAX_SUBSCRIPTIONS_PER_CONNECTION",
        &["websocket.max_subscriptions_per_connection"],
        Some("50"),
        number(0, COUNT_MAX),
        "channels of one connection; 0: unlimited",
    ),
    Variable::new(
        "QUEUE_ENABLED",
        &["queue.enabled"],
        Some("false"),
        Rule::Flag,
        "keep notifications for users who are offline",
    ),
    Variable::new("QUEUE_BACKEND", &["queue.backend"], Some("memory"), BACKENDS, "where they are kept"),
    Variable::new(
        "QUEUE_MAX_SIZE_PER_USER",
        &["queue.max_size_per_user"],
        Some("100"),
        number(0, COUNT_MAX),
        "notifications kept for one user",
    ),
    Variable::new(
        "QUEUE_MESSAGE_TTL_SECONDS",
        &["queue.message_ttl_seconds"],
        Some("3600"),
        number(0, YEAR_SECONDS),
        "seconds they are kept",
    ),
    Variable::new(
        "QUEUE_CLEANUP_INTERVAL_SECONDS",
        &["queue.cleanup_interval_seconds"],
        Some("300"),
        number(1, DAY_SECONDS),
        "seconds between sweeps of expired ones",
    ),
    Variable::new(
        "QUEUE_REDIS_PREFIX",
        &["queue.redis_prefix"],
        Some("ara:queue"),
        Rule::Text,
        "beginning of their Redis keys",
    ),
    Variable::new("ACK_ENABLED", &["ack.enabled"], Some("false"), Rule::Flag, "track acknowledgements"),
    Variable::new("ACK_BACKEND", &["ack.backend"], Some("memory"), BACKENDS, "where they are kept"),
    Variable::new(
        "ACK_TIMEOUT_SECONDS",
        &["ack.timeout_seconds"],
        Some("30"),
        number(0, YEAR_SECONDS),
        "seconds a client has to acknowledge",
    ),
    Variable::new(
        "ACK_CLEANUP_INTERVAL_SECONDS",
        &["ack.cleanup_interval_seconds"],
        Some("60"),
        number(1, DAY_SECONDS),
        "seconds between sweeps of expired ones",
    ),
    Variable::new(
        "ACK_REDIS_PREFIX",
        &["ack.redis_prefix"],
        Some("ara:ack"),
        Rule::Text,
        "beginning of their Redis keys",
    ),
    Variable::new(
        "RATELIMIT_ENABLED",
        &["ratelimit.enabled"],
        Some("false"),
        Rule::Flag,
        "limit requests and connects",
    ),
    Variable::new(
        "RATELIMIT_BACKEND",
        &["ratelimit.backend"],
        Some("memory"),
        Rule::Choice(&["memory", "local", "redis"]),
        "where the buckets are kept; `local` means `memory`",
    ),
    Variable::new(
        "RATELIMIT_HTTP_REQUESTS_PER_SECOND",
        &["ratelimit.http_requests_per_second"],
        Some("100"),
        number(0, COUNT_MAX),
        "HTTP requests a second",
    ),
    Variable::new(
        "RATELIMIT_HTTP_BURST_SIZE",
        &["ratelimit.http_burst_size"],
        Some("200"),
        number(0, COUNT_MAX),
        "HTTP requests at once",
    ),
    Variable::new(
        "RATELIMIT_WS_CONNECTIONS_PER_MINUTE",
        &["ratelimit.ws_connections_per_minute"],
        Some("10"),
        number(0, COUNT_MAX),
        "connects a minute and address",
    ),
    Variable::new(
        "RATELIMIT_WS_MESSAGES_PER_SECOND",
        &["ratelimit.ws_messages_per_second"],
        Some("50"),
        number(0, COUNT_MAX),
        "messages a second and connection",
    ),
    Variable::new(
        "RATELIMIT_CLEANUP_INTERVAL_SECONDS",
        &["ratelimit.cleanup_interval_seconds"],
        Some("60"),
        number(1, DAY_SECONDS),
        "seconds between sweeps of idle buckets",
    ),
    Variable::new(
        "RATELIMIT_REDIS_PREFIX",
        &["ratelimit.redis_prefix"],
        Some("ara:ratelimit"),
        Rule::Text,
        "beginning of their Redis keys",
    ),
    Variable::new(
        "TENANT_ENABLED",
        &["tenant.enabled"],
        Some("false"),
        Rule::Flag,
        "separate tenants; the API then requires X-Tenant-ID",
    ),
    Variable::new(
        "TENANT_DEFAULT_MAX_CONNECTIONS",
        &["tenant.default_limits.max_connections"],
        Some("1000"),
        number(0, COUNT_MAX),
        "connections of one tenant; 0: unlimited",
    ),
    Variable::new(
        "TENANT_DEFAULT_MAX_CONNECTIONS_PER_USER",
        &["tenant.default_limits.max_connections_per_user"],
        Some("5"),
        number(0, COUNT_MAX),
        "connections of one of its users; 0: unlimited",
    ),
    Variable::new(
        "TENANT_DEFAULT_MAX_SUBSCRIPTIONS_PER_CONNECTION",
        &["tenant.default_limits.max_subscriptions_per_connection"],
        Some("50"),
        number(0, COUNT_MAX),
        "channels of one of its connections; 0: unlimited",
    ),
    Variable::new(
        "CLUSTER_ENABLED",
        &["cluster.enabled"],
        Some("false"),
        Rule::Flag,
        "several nodes act as one, through Redis",
    ),
    Variable::new(
        "CLUSTER_SERVER_ID",
        &["cluster.server_id"],
        None,
        Rule::Text,
        "name of this node; default: made up at each start",
    ),
    Variable::new(
        "CLUSTER_SESSION_PREFIX",
        &["cluster.session_prefix"],
        Some("ara:cluster:sessions"),
        Rule::Text,
        "beginning of the Redis keys of sessions",
    ),
    Variable::new(
        "CLUSTER_SESSION_TTL_SECONDS",
        &["cluster.session_ttl_seconds"],
        Some("60"),
        number(1, YEAR_SECONDS),
        "seconds a session outlives its node; more than the heartbeat interval",
    ),
    Variable::new(
        "CLUSTER_ROUTING_CHANNEL",
        &["cluster.routing_channel"],
        Some("ara:cluster:route"),
        Rule::Text,
        "Redis channel between nodes",
    ),
    Variable::new(
        "DATABASE_URL",
        &["database.url"],
        Some("postgres://localhost:5432/ara_notification"),
        Rule::Url(&["postgres://", "postgresql://"]),
        "PostgreSQL of the `postgres` backends",
    )
    .shown_as(Secrecy::Address),
    Variable::new(
        "DATABASE_POOL_SIZE",
        &["database.pool_size"],
        Some("10"),
        number(1, 10_000),
        "connections to it at most",
    ),
    Variable::new(
        "DATABASE_CONNECT_TIMEOUT_SECONDS",
        &["database.connect_timeout_seconds"],
        Some("30"),
        number(1, DAY_SECONDS),
        "seconds a connect may take",
    ),
    Variable::new(
        "DATABASE_IDLE_TIMEOUT_SECONDS",
        &["database.idle_timeout_seconds"],
        Some("600"),
        number(0, DAY_SECONDS),
        "seconds an idle connection is kept",
    ),
    Variable::new("OTEL_ENABLED", &["otel.enabled"], Some("false"), Rule::Flag, "export traces"),
    Variable::new(
        "OTEL_ENDPOINT",
        &["otel.endpoint"],
        Some("http://localhost:4317"),
        Rule::Url(&["http://", "https://"]),
        "OTLP/gRPC collector",
    )
    .shown_as(Secrecy::Address),
    Variable::new(
        "OTEL_SERVICE_NAME",
        &["otel.service_name"],
        Some("ara-notification-service"),
        Rule::Text,
        "`service.name` of the traces",
    ),
    Variable::new(
        "OTEL_SAMPLING_RATIO",
        &["otel.sampling_ratio"],
        Some("1.0"),
        Rule::Fraction,
        "share of the traces that is kept",
    ),
];

#[cfg(test)]
mod tests;
