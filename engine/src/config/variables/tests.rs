use super::*;
use std::collections::BTreeSet;

/// Every name in the tables and examples of the deployment guide and in contract §15.2.
const PROMISED: &str = "
    RUN_MODE RUST_LOG SERVER_HOST SERVER_PORT CORS_ORIGINS API_KEY JWT_SECRET JWT_ALGORITHM JWT_PUBLICKEY
    JWT_PUBLIC_KEY JWT_ISSUER JWT_AUDIENCE REDIS_URL REDIS_CHANNELS REDIS_CIRCUIT_BREAKER_FAILURE_THRESHOLD
    REDIS_CIRCUIT_BREAKER_SUCCESS_THRESHOLD REDIS_CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS
    REDIS_BACKOFF_INITIAL_DELAY_MS REDIS_BACKOFF_MAX_DELAY_MS WEBSOCKET_HEARTBEAT_INTERVAL
    WEBSOCKET_CONNECTION_TIMEOUT WEBSOCKET_CLEANUP_INTERVAL WEBSOCKET_MAX_CONNECTIONS
    WEBSOCKET_MAX_CONNECTIONS_PER_USER WEBSOCKET_MAX_SUBSCRIPTIONS_PER_CONNECTION QUEUE_ENABLED QUEUE_BACKEND
    QUEUE_MAX_SIZE_PER_USER QUEUE_MESSAGE_TTL_SECONDS QUEUE_CLEANUP_INTERVAL_SECONDS QUEUE_REDIS_PREFIX
    ACK_ENABLED ACK_BACKEND ACK_TIMEOUT_SECONDS ACK_CLEANUP_INTERVAL_SECONDS ACK_REDIS_PREFIX
    RATELIMIT_ENABLED RATELIMIT_BACKEND RATELIMIT_HTTP_REQUESTS_PER_SECOND RATELIMIT_HTTP_BURST_SIZE
    RATELIMIT_WS_CONNECTIONS_PER_MINUTE RATELIMIT_WS_MESSAGES_PER_SECOND RATELIMIT_CLEANUP_INTERVAL_SECONDS
    RATELIMIT_REDIS_PREFIX TENANT_ENABLED TENANT_DEFAULT_MAX_CONNECTIONS
    TENANT_DEFAULT_MAX_CONNECTIONS_PER_USER TENANT_DEFAULT_MAX_SUBSCRIPTIONS_PER_CONNECTION CLUSTER_ENABLED
    CLUSTER_SERVER_ID CLUSTER_SESSION_PREFIX CLUSTER_SESSION_TTL_SECONDS CLUSTER_ROUTING_CHANNEL DATABASE_URL
    DATABASE_POOL_SIZE DATABASE_CONNECT_TIMEOUT_SECONDS DATABASE_IDLE_TIMEOUT_SECONDS OTEL_ENABLED
    OTEL_ENDPOINT OTEL_SERVICE_NAME OTEL_SAMPLING_RATIO SERVER_TRUSTED_PROXIES SHARDS LOG_FORMAT
    TLS_CERT TLS_KEY SERVER_OUTBOX_MEMORY_MB";

#[test]
fn every_promised_variable_is_known() {
    for name in PROMISED.split_whitespace() {
        assert!(find(name).is_some(), "{name}");
    }
}

#[test]
fn every_known_variable_is_promised() {
    for variable in VARIABLES {
        for name in [variable.name].iter().chain(variable.synonyms) {
            assert!(PROMISED.split_whitespace().any(|promised| promised == *name), "{name}");
        }
    }
}

#[test]
fn every_default_keeps_its_own_rule() {
    for variable in VARIABLES {
        if let Some(default) = variable.default {
            assert_eq!(variable.rule.check(default), Ok(()), "{}", variable.name);
        }
    }
}

#[test]
fn no_name_and_no_key_is_given_twice() {
    let mut seen = BTreeSet::new();
    for variable in VARIABLES {
        let names = [variable.name].into_iter().chain(variable.synonyms.iter().copied());
        for key in names.chain(variable.paths.iter().copied()) {
            assert!(seen.insert(key), "{key}");
        }
    }
}
