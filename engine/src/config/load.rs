//! From sources to settings: every value read, every rule between values checked, every problem told at once.
use super::features::unbuilt_features;
use super::glob;
use super::layers::{Origin, Values};
use super::problem::{Problem, Secret, Warning};
use super::rule;
use super::settings::*;
use super::sources::Sources;
use super::variables::Secrecy;
use crate::keeper::place;
use crate::tls;
use protocol::ids::is_server_id;
use rustls::pki_types::UnixTime;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use storage::postgres::url::PostgresUrl;

/// Settings that may be used, and what to say about them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What somebody should know.
    pub warnings: Vec<Warning>,
    /// Who said what, for `check-config`.
    pub values: Values,
}

/// A JWT secret shorter than this many bytes can be guessed (D-2).
const JWT_SECRET_BYTES_ADVISED: usize = 32;
/// An API key shorter than this many bytes can be guessed (D-4).
const API_KEY_BYTES_ADVISED: usize = 16;

impl Settings {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// All problems that were found, not just the first.
    pub fn load(sources: &Sources) -> Result<Loaded, Vec<Problem>> {
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        let values = Values::resolve(sources, &mut problems, &mut warnings);
        let settings = read(sources, &values, &mut problems);
        check(&settings, &mut problems);
        check_addresses(&settings, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        advise(&settings, &values, &mut warnings);
        Ok(Loaded { settings, warnings, values })
    }
}

/// Typed reading. Every text keeps its rule and every default does, too (there is a test), so the fallbacks below never
/// apply to a setting that has a default.
struct Reader<'a>(&'a Values);

impl Reader<'_> {
    fn optional(&self, name: &str) -> Option<String> {
        self.0.text(name).map(str::to_owned)
    }

    fn text(&self, name: &str) -> String {
        self.optional(name).unwrap_or_default()
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        self.0.text(name).map(Secret::new)
    }

    fn flag(&self, name: &str) -> bool {
        self.0.text(name).and_then(rule::flag).unwrap_or(false)
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.0.text(name).map(rule::list).unwrap_or_default()
    }

    fn number<N: TryFrom<u64> + Default>(&self, name: &str) -> N {
        self.0.text(name).and_then(|text| text.parse().ok()).and_then(|n: u64| N::try_from(n).ok()).unwrap_or_default()
    }

    fn backend(&self, name: &str) -> Backend {
        match self.text(name).to_ascii_lowercase().as_str() {
            "redis" => Backend::Redis,
            "postgres" => Backend::Postgres,
            _ => Backend::Memory,
        }
    }
}

fn read(sources: &Sources, values: &Values, problems: &mut Vec<Problem>) -> Settings {
    let reader = Reader(values);
    let run_mode = reader.text("RUN_MODE");
    let production = ["production", "prod"].iter().any(|name| name.eq_ignore_ascii_case(&run_mode));
    let default_limits = TenantLimits {
        connections_max: reader.number("TENANT_DEFAULT_MAX_CONNECTIONS"),
        connections_per_user_max: reader.number("TENANT_DEFAULT_MAX_CONNECTIONS_PER_USER"),
        subscriptions_max: reader.number("TENANT_DEFAULT_MAX_SUBSCRIPTIONS_PER_CONNECTION"),
    };
    let shards = match values.text("SHARDS") {
        Some(_) => reader.number("SHARDS"),
        None => sources.cores.clamp(1, protocol::limits::SHARDS_MAX),
    };
    Settings {
        run_mode: RunMode { name: run_mode, production },
        log: LogSettings {
            filter: reader.text("RUST_LOG"),
            format: match reader.text("LOG_FORMAT").eq_ignore_ascii_case("json") {
                true => LogFormat::Json,
                false => LogFormat::Human,
            },
        },
        shards,
        server: ServerSettings {
            host: reader.text("SERVER_HOST"),
            port: reader.number("SERVER_PORT"),
            cors_origins: reader.list("CORS_ORIGINS"),
            outbox_memory_mb: reader.number("SERVER_OUTBOX_MEMORY_MB"),
            trusted_proxies: rule::networks(&reader.text("SERVER_TRUSTED_PROXIES")).unwrap_or_default(),
            tls: read_tls(sources, values, problems),
        },
        api_key: reader.secret("API_KEY"),
        jwt: read_jwt(sources, values, problems),
        redis: RedisSettings {
            enabled: true,
            url: Secret::new(reader.text("REDIS_URL")),
            channels: reader.list("REDIS_CHANNELS"),
            breaker_failure_threshold: reader.number("REDIS_CIRCUIT_BREAKER_FAILURE_THRESHOLD"),
            breaker_success_threshold: reader.number("REDIS_CIRCUIT_BREAKER_SUCCESS_THRESHOLD"),
            breaker_reset_timeout_seconds: reader.number("REDIS_CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS"),
            backoff_initial_delay_ms: reader.number("REDIS_BACKOFF_INITIAL_DELAY_MS"),
            backoff_max_delay_ms: reader.number("REDIS_BACKOFF_MAX_DELAY_MS"),
        },
        websocket: WebSocketSettings {
            heartbeat_interval_seconds: reader.number("WEBSOCKET_HEARTBEAT_INTERVAL"),
            connection_timeout_seconds: reader.number("WEBSOCKET_CONNECTION_TIMEOUT"),
            cleanup_interval_seconds: reader.number("WEBSOCKET_CLEANUP_INTERVAL"),
            connections_max: reader.number("WEBSOCKET_MAX_CONNECTIONS"),
            connections_per_user_max: reader.number("WEBSOCKET_MAX_CONNECTIONS_PER_USER"),
            subscriptions_max: reader.number("WEBSOCKET_MAX_SUBSCRIPTIONS_PER_CONNECTION"),
        },
        queue: QueueSettings {
            enabled: reader.flag("QUEUE_ENABLED"),
            backend: reader.backend("QUEUE_BACKEND"),
            size_per_user_max: reader.number("QUEUE_MAX_SIZE_PER_USER"),
            message_ttl_seconds: reader.number("QUEUE_MESSAGE_TTL_SECONDS"),
            cleanup_interval_seconds: reader.number("QUEUE_CLEANUP_INTERVAL_SECONDS"),
            redis_prefix: reader.text("QUEUE_REDIS_PREFIX"),
        },
        ack: AckSettings {
            enabled: reader.flag("ACK_ENABLED"),
            backend: reader.backend("ACK_BACKEND"),
            timeout_seconds: reader.number("ACK_TIMEOUT_SECONDS"),
            cleanup_interval_seconds: reader.number("ACK_CLEANUP_INTERVAL_SECONDS"),
            redis_prefix: reader.text("ACK_REDIS_PREFIX"),
        },
        rate_limit: RateLimitSettings {
            enabled: reader.flag("RATELIMIT_ENABLED"),
            backend: reader.backend("RATELIMIT_BACKEND"),
            http_requests_per_second: reader.number("RATELIMIT_HTTP_REQUESTS_PER_SECOND"),
            http_burst_size: reader.number("RATELIMIT_HTTP_BURST_SIZE"),
            ws_connections_per_minute: reader.number("RATELIMIT_WS_CONNECTIONS_PER_MINUTE"),
            ws_messages_per_second: reader.number("RATELIMIT_WS_MESSAGES_PER_SECOND"),
            cleanup_interval_seconds: reader.number("RATELIMIT_CLEANUP_INTERVAL_SECONDS"),
            redis_prefix: reader.text("RATELIMIT_REDIS_PREFIX"),
        },
        tenant: TenantSettings {
            enabled: reader.flag("TENANT_ENABLED"),
            default_limits,
            overrides: read_overrides(values, default_limits),
        },
        cluster: ClusterSettings {
            enabled: reader.flag("CLUSTER_ENABLED"),
            server_id: reader.optional("CLUSTER_SERVER_ID"),
            session_prefix: reader.text("CLUSTER_SESSION_PREFIX"),
            session_ttl_seconds: reader.number("CLUSTER_SESSION_TTL_SECONDS"),
            routing_channel: reader.text("CLUSTER_ROUTING_CHANNEL"),
        },
        database: DatabaseSettings {
            url: Secret::new(reader.text("DATABASE_URL")),
            pool_size: reader.number("DATABASE_POOL_SIZE"),
            connect_timeout_seconds: reader.number("DATABASE_CONNECT_TIMEOUT_SECONDS"),
            idle_timeout_seconds: reader.number("DATABASE_IDLE_TIMEOUT_SECONDS"),
        },
        otel: OtelSettings {
            enabled: reader.flag("OTEL_ENABLED"),
            endpoint: Secret::new(reader.text("OTEL_ENDPOINT")),
            service_name: reader.text("OTEL_SERVICE_NAME"),
            sampling_ratio: values.text("OTEL_SAMPLING_RATIO").and_then(rule::fraction).unwrap_or(1.0),
        },
    }
}

fn read_overrides(values: &Values, default_limits: TenantLimits) -> BTreeMap<String, TenantLimits> {
    let limits = |given: &BTreeMap<String, u64>| {
        let limit = |key: &str, default: usize| {
            given.get(key).and_then(|limit| usize::try_from(*limit).ok()).unwrap_or(default)
        };
        TenantLimits {
            connections_max: limit("max_connections", default_limits.connections_max),
            connections_per_user_max: limit("max_connections_per_user", default_limits.connections_per_user_max),
            subscriptions_max: limit("max_subscriptions_per_connection", default_limits.subscriptions_max),
        }
    };
    values.overrides.iter().map(|(tenant, given)| (tenant.clone(), limits(given))).collect()
}

fn read_tls(sources: &Sources, values: &Values, problems: &mut Vec<Problem>) -> Option<TlsSettings> {
    let (certificate, key) = match (values.text("TLS_CERT"), values.text("TLS_KEY")) {
        (Some(certificate), Some(key)) => (PathBuf::from(certificate), PathBuf::from(key)),
        (None, None) => return None,
        (Some(_), None) => {
            problems.push(Problem::new("TLS_KEY", "is required with TLS_CERT: the path of its private key (PEM)"));
            return None;
        }
        (None, Some(_)) => {
            problems.push(Problem::new("TLS_CERT", "is required with TLS_KEY: the path of its certificate (PEM)"));
            return None;
        }
    };
    if let Err(fault) = tls::server_config_from(&certificate, &key, UnixTime::now(), &sources.read_file) {
        problems.push(Problem::with_value(fault.setting, &fault.file, Secrecy::Open, fault.cause));
    }
    Some(TlsSettings { certificate, key })
}

fn read_jwt(sources: &Sources, values: &Values, problems: &mut Vec<Problem>) -> JwtSettings {
    let reader = Reader(values);
    // The rule allows no other names.
    let algorithm = JwtAlgorithm::parse(&reader.text("JWT_ALGORITHM")).unwrap_or(JwtAlgorithm::Hs256);
    let secret = reader.secret("JWT_SECRET");
    let mut public_key_pem = None;
    if algorithm.is_symmetric() {
        // Said once: a secret that was refused for its form is already among the problems.
        if secret.is_none() && !problems.iter().any(|problem| problem.place.contains("JWT_SECRET")) {
            problems.push(Problem::new("JWT_SECRET", "is required, 32 bytes or more; try: openssl rand -hex 32"));
        }
    } else {
        match values.text("JWT_PUBLICKEY") {
            None => problems.push(Problem::new(
                "JWT_PUBLICKEY",
                "is required with RS256 and ES256: the path of a PEM file with the public key",
            )),
            Some(path) => match read_public_key(sources, path, algorithm) {
                Ok(pem) => public_key_pem = Some(pem),
                Err(rule) => problems.push(Problem::with_value("JWT_PUBLICKEY", path, Secrecy::Open, rule)),
            },
        }
    }
    JwtSettings {
        algorithm,
        secret,
        public_key_pem,
        issuer: reader.optional("JWT_ISSUER"),
        audience: reader.optional("JWT_AUDIENCE"),
    }
}

fn read_public_key(sources: &Sources, path: &str, algorithm: JwtAlgorithm) -> Result<Vec<u8>, String> {
    let pem = (sources.read_file)(Path::new(path)).map_err(|error| format!("cannot be read: {error}"))?;
    let (parsed, kind) = match algorithm {
        JwtAlgorithm::Es256 => (jsonwebtoken::DecodingKey::from_ec_pem(&pem), "a P-256 public key"),
        _ => (jsonwebtoken::DecodingKey::from_rsa_pem(&pem), "an RSA public key"),
    };
    match parsed {
        Ok(_) => Ok(pem),
        Err(_) => Err(format!("must be {kind} in PEM form")),
    }
}

/// Rules between settings.
fn check(settings: &Settings, problems: &mut Vec<Problem>) {
    let mut require = |holds: bool, name: &str, value: u64, rule: String| {
        if !holds {
            problems.push(Problem::with_value(name, &value.to_string(), Secrecy::Open, rule));
        }
    };
    let websocket = &settings.websocket;
    let heartbeat = websocket.heartbeat_interval_seconds;
    require(
        websocket.connection_timeout_seconds > heartbeat,
        "WEBSOCKET_CONNECTION_TIMEOUT",
        websocket.connection_timeout_seconds,
        format!("must be greater than WEBSOCKET_HEARTBEAT_INTERVAL ({heartbeat})"),
    );
    let redis = &settings.redis;
    require(
        redis.backoff_max_delay_ms >= redis.backoff_initial_delay_ms,
        "REDIS_BACKOFF_MAX_DELAY_MS",
        redis.backoff_max_delay_ms,
        format!("must not be less than REDIS_BACKOFF_INITIAL_DELAY_MS ({})", redis.backoff_initial_delay_ms),
    );
    let channels = redis.channels.len();
    require(
        (1..=protocol::limits::REDIS_CHANNELS_MAX).contains(&channels),
        "REDIS_CHANNELS",
        channels as u64,
        format!("must name 1 to {} channels", protocol::limits::REDIS_CHANNELS_MAX),
    );
    let above_zero: &[(bool, &str, &str, u64)] = &[
        (settings.queue.enabled, "QUEUE", "QUEUE_MAX_SIZE_PER_USER", settings.queue.size_per_user_max as u64),
        (settings.queue.enabled, "QUEUE", "QUEUE_MESSAGE_TTL_SECONDS", settings.queue.message_ttl_seconds),
        (settings.ack.enabled, "ACK", "ACK_TIMEOUT_SECONDS", settings.ack.timeout_seconds),
        (
            settings.rate_limit.enabled,
            "RATELIMIT",
            "RATELIMIT_HTTP_REQUESTS_PER_SECOND",
            settings.rate_limit.http_requests_per_second.into(),
        ),
        (
            settings.rate_limit.enabled,
            "RATELIMIT",
            "RATELIMIT_HTTP_BURST_SIZE",
            settings.rate_limit.http_burst_size.into(),
        ),
        (
            settings.rate_limit.enabled,
            "RATELIMIT",
            "RATELIMIT_WS_CONNECTIONS_PER_MINUTE",
            settings.rate_limit.ws_connections_per_minute.into(),
        ),
    ];
    for (enabled, feature, name, value) in above_zero {
        require(!enabled || *value > 0, name, *value, format!("must be greater than 0 with {feature}_ENABLED"));
    }
    let cluster = &settings.cluster;
    require(
        !cluster.enabled || cluster.session_ttl_seconds > heartbeat,
        "CLUSTER_SESSION_TTL_SECONDS",
        cluster.session_ttl_seconds,
        format!("must be greater than WEBSOCKET_HEARTBEAT_INTERVAL ({heartbeat}) with CLUSTER_ENABLED"),
    );
    if let Some(server_id) = cluster.server_id.as_ref().filter(|server_id| !is_server_id(server_id)) {
        let bytes_max = protocol::limits::SERVER_ID_BYTES_MAX;
        let rule = format!("must have 1 to {bytes_max} bytes, and neither a colon nor blanks");
        problems.push(Problem::with_value("CLUSTER_SERVER_ID", server_id, Secrecy::Open, rule));
    }
    let prefixes = [
        ("QUEUE_REDIS_PREFIX", &settings.queue.redis_prefix),
        ("ACK_REDIS_PREFIX", &settings.ack.redis_prefix),
        ("RATELIMIT_REDIS_PREFIX", &settings.rate_limit.redis_prefix),
        ("CLUSTER_SESSION_PREFIX", &cluster.session_prefix),
        ("CLUSTER_ROUTING_CHANNEL", &cluster.routing_channel),
    ];
    for (name, prefix) in prefixes {
        if let Some(rule) = place::prefix_rule(settings.redis.url.expose(), prefix) {
            problems.push(Problem::with_value(name, prefix, Secrecy::Open, rule.to_owned()));
        }
    }
}

/// Addresses that are used must be ones; what the words of a scheme's rule let through is looked at here.
fn check_addresses(settings: &Settings, problems: &mut Vec<Problem>) {
    let mut require = |name: &str, url: &Secret, wrong: Option<String>| {
        if let Some(rule) = wrong {
            problems.push(Problem::with_value(name, url.expose(), Secrecy::Address, rule));
        }
    };
    let (redis, database) = (&settings.redis.url, &settings.database.url);
    require("REDIS_URL", redis, place::parse(redis.expose()).err().map(|error| error.to_string()));
    if settings.postgres_is_used() {
        let wrong = PostgresUrl::parse(database.expose()).err().map(|error| error.to_string());
        require("DATABASE_URL", database, wrong);
    }
}

/// What is allowed but perhaps not meant.
fn advise(settings: &Settings, values: &Values, warnings: &mut Vec<Warning>) {
    let mut warn = |text: String| warnings.push(Warning(text));
    if let Some(secret) = settings.jwt.secret.as_ref().filter(|_| settings.jwt.algorithm.is_symmetric()) {
        let bytes = secret.expose().len();
        if bytes < JWT_SECRET_BYTES_ADVISED {
            warn(format!("JWT_SECRET: {bytes} bytes can be guessed, use {JWT_SECRET_BYTES_ADVISED} or more"));
        }
    }
    match &settings.api_key {
        None if settings.run_mode.production => {
            warn("API_KEY: not set, so the HTTP API answers 503 in production".to_owned());
        }
        None => warn("API_KEY: not set, so anybody who reaches the port may publish".to_owned()),
        Some(key) => {
            let bytes = key.expose().trim().len();
            if bytes < API_KEY_BYTES_ADVISED {
                warn(format!("API_KEY: {bytes} bytes can be guessed, use {API_KEY_BYTES_ADVISED} or more"));
            }
            if key.expose().trim().len() != key.expose().len() {
                warn("API_KEY: has blanks around it, which a header cannot carry; no request will match".to_owned());
            }
        }
    }
    let origins = &settings.server.cors_origins;
    if origins.is_empty() && settings.run_mode.production {
        warn("CORS_ORIGINS: not set, so browsers of other origins are not let in".to_owned());
    }
    for origin in origins {
        if origin == "*" || origin.ends_with('/') || !origin.contains("://") {
            warn(format!(
                "CORS_ORIGINS: {origin:?} will match no browser; an origin is scheme://host or scheme://host:port, \
                 without wildcards and without a slash at its end"
            ));
        }
    }
    if settings.postgres_is_used() {
        if *values.origin("DATABASE_URL") == Origin::Default {
            let url = settings.database.url.expose();
            warn(format!("DATABASE_URL: not set though something is kept in PostgreSQL, so {url} is used"));
        }
        let (pool_size, shards) = (settings.database.pool_size, settings.shards);
        if pool_size < shards {
            warn(format!(
                "DATABASE_POOL_SIZE: {pool_size} is less than the number of shards, each of which needs a connection; \
                 there will be {shards}"
            ));
        }
    }
    if settings.cluster.enabled {
        advise_cluster(settings, &mut warn);
    }
    for text in unbuilt_features(settings) {
        warn(text.to_owned());
    }
}

/// What is allowed of a node by itself and is hardly meant of one of several.
fn advise_cluster(settings: &Settings, warn: &mut impl FnMut(String)) {
    if settings.queue.backend == Backend::Memory {
        let what = if settings.queue.enabled { "mail and templates stay" } else { "templates stay" };
        warn(format!(
            "QUEUE_BACKEND: with memory and CLUSTER_ENABLED {what} on the node that took them, where the others do not find \
             them; use redis or postgres"
        ));
    }
    let route = &settings.cluster.routing_channel;
    let topics = ["", ":n", ":user:default:u", ":channel:default:c"].map(|topic| format!("{route}{topic}"));
    for channel in &settings.redis.channels {
        if topics.iter().any(|topic| glob::matches(channel.as_bytes(), topic.as_bytes())) {
            warn(format!(
                "REDIS_CHANNELS: {channel:?} matches what nodes say to each other under CLUSTER_ROUTING_CHANNEL {route:?}, \
                 which would be read as bad notifications; name the channels of publishers alone"
            ));
        }
    }
}

#[cfg(test)]
mod tests;
