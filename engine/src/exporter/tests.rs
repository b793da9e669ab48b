use super::*;
use crate::config::settings::Backend;
use crate::host::tests::{store, view};
use crate::host::{NodeView, RedisOperation, RedisSnapshot, RedisState};
use shards::metrics::{ClientMessageKind, NodeMetrics};
use std::io::Write;
use std::process::{Command, Stdio};
use storage::breaker::BreakerState;
use storage::figures::{StoreOperation, StoreResult};
use storage::link::state::LinkState;

const ROUTES: &[(&str, &str)] = &[("GET", "/health"), ("POST", "/api/v1/notifications/send")];

fn exporter(redis: RedisSnapshot) -> (Exporter, Arc<NodeMetrics>) {
    let view = view(&[], redis);
    let metrics = Arc::clone(&view.metrics);
    (Exporter::new(Arc::new(view), ROUTES), metrics)
}

fn fresh() -> String {
    String::from_utf8(exporter(RedisSnapshot::default()).0.render()).unwrap()
}

/// Family names and types, in the order of the page.
fn families(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// Names and types that the deployment guide and contract §14 promise. `g` gauge, `c` counter, `h` histogram.
const PROMISED: &[(&str, &str)] = &[
    ("ara_ack_expired_total", "counter"),
    ("ara_ack_latency_seconds", "histogram"),
    ("ara_ack_pending", "gauge"),
    ("ara_ack_received_total", "counter"),
    ("ara_ack_tracked_total", "counter"),
    ("ara_backend_errors_total", "counter"),
    ("ara_backend_operation_latency_seconds", "histogram"),
    ("ara_batch_requests_total", "counter"),
    ("ara_batch_size", "histogram"),
    ("ara_channels_active", "gauge"),
    ("ara_cluster_connections_total", "gauge"),
    ("ara_cluster_enabled", "gauge"),
    ("ara_cluster_messages_received_total", "counter"),
    ("ara_cluster_messages_routed_total", "counter"),
    ("ara_cluster_sessions_refreshed_total", "counter"),
    ("ara_cluster_users_total", "gauge"),
    ("ara_connection_manager_memory_bytes", "gauge"),
    ("ara_connections_by_transport", "gauge"),
    ("ara_connections_per_user", "histogram"),
    ("ara_connections_total", "gauge"),
    ("ara_heartbeat_duration_ms", "histogram"),
    ("ara_heartbeat_timeouts_total", "counter"),
    ("ara_http_request_latency_seconds", "histogram"),
    ("ara_http_requests_total", "counter"),
    ("ara_message_delivery_latency_seconds", "histogram"),
    ("ara_messages_delivered_total", "counter"),
    ("ara_messages_failed_total", "counter"),
    ("ara_messages_sent_total", "counter"),
    ("ara_process_memory_bytes", "gauge"),
    ("ara_queue_dropped_total", "counter"),
    ("ara_queue_redelivered_total", "counter"),
    ("ara_queue_refused_total", "counter"),
    ("ara_queue_removals_refused_total", "counter"),
    ("ara_queue_enqueued_total", "counter"),
    ("ara_queue_expired_total", "counter"),
    ("ara_queue_memory_bytes", "gauge"),
    ("ara_queue_messages", "gauge"),
    ("ara_queue_replayed_total", "counter"),
    ("ara_queue_size_total", "gauge"),
    ("ara_queue_users_total", "gauge"),
    ("ara_ratelimit_allowed_total", "counter"),
    ("ara_ratelimit_buckets", "gauge"),
    ("ara_ratelimit_denied_total", "counter"),
    ("ara_ratelimit_fallbacks_total", "counter"),
    ("ara_ratelimit_requests_total", "counter"),
    ("ara_redis_circuit_breaker_state", "gauge"),
    ("ara_redis_connection_status", "gauge"),
    ("ara_redis_messages_received_total", "counter"),
    ("ara_redis_operations_total", "counter"),
    ("ara_redis_reconnections_total", "counter"),
    ("ara_users_connected", "gauge"),
    ("ara_ws_connection_duration_seconds", "histogram"),
    ("ara_ws_connections_closed_total", "counter"),
    ("ara_ws_connections_opened_total", "counter"),
    ("ara_ws_messages_received_total", "counter"),
];

/// Names and types of our own.
const OWN: &[(&str, &str)] = &[
    ("ara_ack_unrecorded_total", "counter"),
    ("ara_build_info", "gauge"),
    ("ara_cluster_admissions_total", "counter"),
    ("ara_cluster_bundles_sent_total", "counter"),
    ("ara_cluster_canary_age_seconds", "gauge"),
    ("ara_cluster_members", "gauge"),
    ("ara_cluster_parcels_received_total", "counter"),
    ("ara_cluster_parcels_refused_total", "counter"),
    ("ara_cluster_parcels_sent_total", "counter"),
    ("ara_cluster_stalled", "gauge"),
    ("ara_cluster_topics", "gauge"),
    ("ara_connections_ended_total", "counter"),
    ("ara_connections_refused_total", "counter"),
    ("ara_heartbeats_sent_total", "counter"),
    ("ara_mesh_congested_lanes", "gauge"),
    ("ara_messages_expired_total", "counter"),
    ("ara_outboxes_shed_total", "counter"),
    ("ara_process_cpu_seconds_total", "counter"),
    ("ara_publishes_refused_total", "counter"),
    ("ara_queue_undecodable_total", "counter"),
    ("ara_redis_messages_invalid_total", "counter"),
    ("ara_shard_busy_seconds_total", "counter"),
    ("ara_shard_bytes_sent_total", "counter"),
    ("ara_shard_connections", "gauge"),
    ("ara_shard_deliveries_total", "counter"),
    ("ara_shard_handed_over_total", "counter"),
    ("ara_shard_mesh_overflow", "gauge"),
    ("ara_shard_mesh_sent_total", "counter"),
    ("ara_shard_outbox_bytes", "gauge"),
    ("ara_shard_outbox_memory_bytes", "gauge"),
    ("ara_shard_refused_total", "counter"),
    ("ara_shard_turns_total", "counter"),
    ("ara_shard_writes_total", "counter"),
    ("ara_slow_consumers_closed_total", "counter"),
    ("ara_sockets_open", "gauge"),
    ("ara_store_circuit_breaker_state", "gauge"),
    ("ara_store_connections_total", "counter"),
    ("ara_store_link_state", "gauge"),
    ("ara_store_links", "gauge"),
    ("ara_store_operation_latency_seconds", "histogram"),
    ("ara_store_operations_total", "counter"),
    ("ara_store_requests_outstanding", "gauge"),
    ("ara_store_well", "gauge"),
    ("ara_subscriptions_active", "gauge"),
    ("ara_tenants_held_back", "gauge"),
    ("ara_token_revocations", "gauge"),
    ("ara_tokens_refused_revoked_total", "counter"),
    ("ara_tls_failed_total", "counter"),
    ("ara_tls_handshakes_total", "counter"),
    ("ara_tls_resumed_total", "counter"),
];

#[test]
fn the_names_are_those_that_were_promised_and_ours_sorted() {
    let mut expected: Vec<(&str, &str)> = PROMISED.iter().chain(OWN).copied().collect();
    expected.sort_unstable();
    assert_eq!(families(&fresh()), expected);
}

#[test]
fn every_figure_of_a_fresh_node_is_zero() {
    let text = fresh();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let moves = ["ara_build_info", "ara_process_"].iter().any(|name| line.starts_with(name));
        let value: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        assert!(moves || value == 0.0, "{line}");
    }
    for (name, _) in PROMISED.iter().chain(OWN) {
        let sample = |line: &str| line.starts_with(name);
        assert!(text.lines().any(sample), "{name} has a sample from the start");
    }
}

#[test]
fn figures_are_summed_and_shown_by_shard() {
    let redis = RedisSnapshot {
        state: RedisState::Healthy,
        breaker: BreakerState::HalfOpen,
        total_reconnections: 3,
        messages_received: 4,
        operations: vec![
            RedisOperation { operation: "ping", result: "ok", count: 5 },
            RedisOperation { operation: "auth", result: "error", count: 6 },
        ],
        ..RedisSnapshot::default()
    };
    let (exporter, metrics) = exporter(redis);
    let [one, two] = &metrics.shards[..] else { panic!("two shards") };
    one.connections_ws.add(2);
    two.connections_sse.add(3);
    one.sent[4].add(7);
    two.client_messages[ClientMessageKind::Ack as usize].add(8);
    two.http_requests[1][2].add(9);
    one.batch_size.observe(5.0);
    two.batch_size.observe(6.0);
    two.busy_us.add(1_500_000);
    two.http_latency_seconds[0].observe(0.5);
    let text = String::from_utf8(exporter.render()).unwrap();
    for line in [
        "ara_connections_total 5",
        r#"ara_connections_by_transport{transport="ws"} 2"#,
        r#"ara_connections_by_transport{transport="sse"} 3"#,
        r#"ara_shard_connections{shard="0"} 2"#,
        r#"ara_shard_connections{shard="1"} 3"#,
        r#"ara_messages_sent_total{target="channels"} 7"#,
        r#"ara_ws_messages_received_total{type="ack"} 8"#,
        r#"ara_http_requests_total{method="POST",path="/api/v1/notifications/send",status="2xx"} 9"#,
        r#"ara_batch_size_bucket{le="5.0"} 1"#,
        r#"ara_batch_size_bucket{le="10.0"} 2"#,
        r#"ara_batch_size_bucket{le="+Inf"} 2"#,
        "ara_batch_size_sum 11.0",
        "ara_batch_size_count 2",
        r#"ara_http_request_latency_seconds_bucket{le="0.25",method="GET",path="/health"} 0"#,
        r#"ara_http_request_latency_seconds_bucket{le="0.5",method="GET",path="/health"} 1"#,
        r#"ara_shard_busy_seconds_total{shard="1"} 1.5"#,
        "ara_redis_connection_status 1",
        "ara_redis_circuit_breaker_state 2",
        "ara_redis_reconnections_total 3",
        "ara_redis_messages_received_total 4",
        r#"ara_redis_operations_total{operation="ping",result="ok"} 5"#,
        r#"ara_redis_operations_total{operation="ping",result="error"} 0"#,
        r#"ara_redis_operations_total{operation="auth",result="error"} 6"#,
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("EOF"));
}

#[test]
fn stores_behind_links_tell_what_they_were_asked_and_how_they_are() {
    let settings = [("QUEUE_ENABLED", "1"), ("QUEUE_BACKEND", "redis"), ("ACK_ENABLED", "1")];
    let (store, [one, two]) = store(Backend::Redis);
    let view = NodeView { stores: vec![store], ..view(&settings, RedisSnapshot::default()) };
    view.metrics.shards[0].queue_enqueued.add(4);
    let exporter = Exporter::new(Arc::new(view), ROUTES);
    one.ended(StoreOperation::Append, StoreResult::Ok, 300);
    two.ended(StoreOperation::Append, StoreResult::Ok, 2_000_000);
    two.ended(StoreOperation::Append, StoreResult::Unknown, 1);
    two.ended(StoreOperation::Sweep, StoreResult::Failed, 1);
    one.mail.depth.set(7);
    one.mail.enqueued.set(900);
    one.mail.expired.set(8);
    two.outstanding.set(3);
    two.connections.add(1);
    two.set_link(LinkState::Reconnecting, BreakerState::HalfOpen);
    let text = String::from_utf8(exporter.render()).unwrap();
    for line in [
        "ara_queue_messages 7",
        "ara_queue_expired_total 8",
        "ara_queue_enqueued_total 4",
        r#"ara_store_operations_total{backend="redis",operation="append",result="ok"} 2"#,
        r#"ara_store_operations_total{backend="redis",operation="append",result="unknown"} 1"#,
        r#"ara_store_operations_total{backend="redis",operation="sweep",result="failed"} 1"#,
        r#"ara_store_operation_latency_seconds_bucket{le="0.0005",backend="redis",operation="append"} 1"#,
        r#"ara_store_operation_latency_seconds_bucket{le="1.0",backend="redis",operation="append"} 1"#,
        r#"ara_store_operation_latency_seconds_count{backend="redis",operation="append"} 2"#,
        r#"ara_store_operation_latency_seconds_sum{backend="redis",operation="append"} 2.0003"#,
        r#"ara_backend_operation_latency_seconds_count{backend="redis",operation="enqueue"} 2"#,
        r#"ara_backend_errors_total{backend="redis",operation="enqueue"} 1"#,
        r#"ara_backend_errors_total{backend="memory",operation="track"} 0"#,
        r#"ara_store_link_state{backend="redis"} 0"#,
        r#"ara_store_circuit_breaker_state{backend="redis"} 2"#,
        r#"ara_store_well{backend="redis"} 0"#,
        r#"ara_store_links{backend="redis"} 6"#,
        r#"ara_store_requests_outstanding{backend="redis"} 3"#,
        r#"ara_store_connections_total{backend="redis"} 1"#,
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains(r#"ara_store_well{backend="memory"}"#));
}

/// Prometheus' own tool reads the page and finds nothing to blame but names that were given to us.
#[test]
fn promtool_accepts_the_page() {
    const GIVEN: &[&str] = &[
        "ara_cluster_connections_total",
        "ara_cluster_users_total",
        "ara_connections_total",
        "ara_heartbeat_duration_ms",
        "ara_queue_size_total",
        "ara_queue_users_total",
    ];
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool must be installed (it comes with Prometheus)");
    promtool.stdin.take().unwrap().write_all(fresh().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    for line in said.lines() {
        assert!(GIVEN.iter().any(|name| line.starts_with(&format!("{name} "))), "{said}");
    }
    // 3 says that it had remarks; 1 would say that it could not read the page.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{:?}: {said}", output.status);
}
