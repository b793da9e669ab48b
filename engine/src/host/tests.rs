use super::*;
use crate::config::Sources;

type Pairs = &'static [(&'static str, &'static str)];

/// A view of a node of two shards under these settings, with this link.
pub(crate) fn view(pairs: &[(&str, &str)], redis: RedisSnapshot) -> NodeView {
    let mut sources = Sources::from_environment(pairs.iter().copied());
    sources.environment.insert("JWT_SECRET".to_owned(), "0".repeat(32));
    NodeView {
        settings: Arc::new(Settings::load(&sources).unwrap().settings),
        server_id: "n1".into(),
        metrics: Arc::new(NodeMetrics::new(2, 2)),
        redis: Arc::new(move || redis.clone()),
    }
}

fn host(pairs: &[(&str, &str)], state: RedisState) -> NodeHost {
    NodeHost::new(view(pairs, RedisSnapshot { state, ..RedisSnapshot::default() }), &[("GET", "a"), ("GET", "b")])
}

fn text(page: Vec<u8>) -> String {
    String::from_utf8(page).unwrap()
}

#[test]
fn health_of_a_plain_node() {
    let host = host(&[], RedisState::Reconnecting);
    let now = Now { mono_us: 12_999_999, unix_ns: 0 };
    let expected = concat!(
        r#"{"status":"healthy","version":"1.0.0","uptime_seconds":12,"#,
        r#""redis":{"status":"disabled","connected":false},"#,
        r#""connections":{"total":0,"unique_users":0,"channels_count":0},"#,
        r#""queue":{"enabled":false,"backend":"memory","total_messages":0,"users_with_queue":0}}"#,
    );
    assert_eq!(text(host.health(now)), expected);
}

#[test]
fn a_node_is_degraded_only_by_a_redis_that_it_needs() {
    use RedisState::{CircuitOpen, Healthy, Reconnecting};
    let queue: Pairs = &[("QUEUE_ENABLED", "true"), ("QUEUE_BACKEND", "redis")];
    let rows: &[(Pairs, RedisState, &str, &str)] = &[
        (queue, Healthy, "healthy", "healthy"),
        (queue, Reconnecting, "degraded", "reconnecting"),
        (&[("ACK_ENABLED", "true"), ("ACK_BACKEND", "redis")], CircuitOpen, "degraded", "circuit_open"),
        (&[("CLUSTER_ENABLED", "true")], Reconnecting, "degraded", "reconnecting"),
        (&[("QUEUE_BACKEND", "redis")], Reconnecting, "healthy", "disabled"),
        (&[("QUEUE_ENABLED", "true")], Reconnecting, "healthy", "disabled"),
    ];
    for (pairs, state, status, redis) in rows {
        let page: serde_json::Value = serde_json::from_slice(&host(pairs, *state).health(Now::default())).unwrap();
        assert_eq!((&page["status"], &page["redis"]["status"]), (&(*status).into(), &(*redis).into()), "{pairs:?}");
        assert_eq!(page["redis"]["connected"], *redis == "healthy");
    }
}

#[test]
fn pages_do_not_claim_what_this_version_does_not_do() {
    let host = host(
        &[
            ("QUEUE_ENABLED", "1"),
            ("QUEUE_BACKEND", "redis"),
            ("ACK_ENABLED", "1"),
            ("ACK_BACKEND", "postgres"),
            ("CLUSTER_ENABLED", "1"),
        ],
        RedisState::Healthy,
    );
    let health = text(host.health(Now::default()));
    assert!(health.contains(r#""queue":{"enabled":false,"backend":"redis""#), "{health}");
    assert!(!health.contains("cluster"), "{health}");
    assert!(!text(host.stats(Now::default())).contains("ack"));
    assert!(text(host.cluster_status(Now::default())).contains("standalone"));
}

#[test]
fn statistics_are_sums_over_the_shards() {
    let redis = RedisSnapshot {
        state: RedisState::Reconnecting,
        breaker: BreakerState::HalfOpen,
        failures: 1,
        attempts: 2,
        total_reconnections: 3,
        ..RedisSnapshot::default()
    };
    let view = view(&[], redis);
    let metrics = Arc::clone(&view.metrics);
    let host = NodeHost::new(view, &[("GET", "a"), ("GET", "b")]);
    for (shard, factor) in metrics.shards.iter().zip([1, 10]) {
        shard.connections_ws.add(factor);
        shard.connections_sse.add(factor * 2);
        shard.users.add(factor);
        shard.channels.add(factor * 4);
        let factor = factor as u64;
        for (counter, count) in shard.sent.iter().zip([1, 2, 3, 4, 5]) {
            counter.add(count * factor);
        }
        shard.delivered.add(6 * factor);
        shard.failed.add(7 * factor);
    }
    let expected = concat!(
        r#"{"connections":{"total_connections":33,"unique_users":11,"channels":{}},"#,
        r#""notifications":{"total_sent":165,"total_delivered":66,"total_failed":77,"#,
        r#""user_notifications":33,"broadcast_notifications":33,"channel_notifications":99},"#,
        r#""redis":{"status":"reconnecting","connected":false,"circuit_breaker_state":"half_open","#,
        r#""circuit_breaker_failures":1,"reconnection_attempts":2,"total_reconnections":3}}"#,
    );
    assert_eq!(text(host.stats(Now::default())), expected);
    let expected = concat!(
        r#"{"enabled":false,"mode":"standalone","server_id":"n1","#,
        r#""local_connections":33,"local_users":11}"#,
    );
    assert_eq!(text(host.cluster_status(Now::default())), expected);
    assert!(text(host.health(Now::default())).contains(r#"{"total":33,"unique_users":11,"channels_count":44}"#));
}
