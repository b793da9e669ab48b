use super::*;
use crate::config::Sources;
use storage::figures::StoreFigures;
use storage::link::state::LinkState;

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
        stores: Vec::new(),
        ingest: None,
        bridge: None,
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

/// A store behind links on two shards, both of which reach it, with these words to put it otherwise.
pub(crate) fn store(backend: Backend) -> (StoreView, [Arc<StoreFigures>; 2]) {
    let figures = [(); 2].map(|()| Arc::new(StoreFigures::new(backend.as_str())));
    figures.iter().for_each(|figures| figures.set_link(LinkState::Healthy, BreakerState::Closed));
    (StoreView::new(backend, 3, figures.to_vec()), figures)
}

#[test]
fn a_store_that_is_away_or_refuses_is_named_at_once() {
    const QUEUE_REDIS: Pairs = &[("QUEUE_ENABLED", "true"), ("QUEUE_BACKEND", "redis")];
    const ACK_REDIS: Pairs = &[("ACK_ENABLED", "true"), ("ACK_BACKEND", "redis")];
    const QUEUE_POSTGRES: Pairs = &[("QUEUE_ENABLED", "true"), ("QUEUE_BACKEND", "postgres")];
    const TEMPLATES_POSTGRES: Pairs = &[("QUEUE_BACKEND", "postgres")];
    type Trouble = fn(&StoreFigures);
    let well: Trouble = |_| ();
    let away: Trouble = |figures| figures.set_link(LinkState::Reconnecting, BreakerState::Closed);
    let open: Trouble = |figures| figures.set_link(LinkState::CircuitOpen, BreakerState::Open);
    let refuses: Trouble = |figures| figures.set_refused(true);
    let rows: &[(Pairs, Backend, Trouble, &str, &str)] = &[
        (QUEUE_REDIS, Backend::Redis, well, "healthy", "healthy"),
        (QUEUE_REDIS, Backend::Redis, away, "degraded", "reconnecting"),
        (QUEUE_REDIS, Backend::Redis, open, "degraded", "circuit_open"),
        (ACK_REDIS, Backend::Redis, refuses, "degraded", "refusing"),
        (QUEUE_POSTGRES, Backend::Postgres, well, "healthy", "connected"),
        (QUEUE_POSTGRES, Backend::Postgres, away, "degraded", "reconnecting"),
        (QUEUE_POSTGRES, Backend::Postgres, refuses, "degraded", "refusing"),
        (TEMPLATES_POSTGRES, Backend::Postgres, refuses, "healthy", "refusing"),
    ];
    for (pairs, backend, trouble, status, said) in rows {
        let (store, figures) = store(*backend);
        let snapshot = RedisSnapshot { state: RedisState::Healthy, ..RedisSnapshot::default() };
        let view = NodeView { stores: vec![store], ..view(pairs, snapshot) };
        let host = NodeHost::new(view, &[("GET", "a"), ("GET", "b")]);
        trouble(&figures[1]);
        let page: serde_json::Value = serde_json::from_slice(&host.health(Now::default())).unwrap();
        assert_eq!((&page["status"], &page[backend.as_str()]["status"]), (&(*status).into(), &(*said).into()));
        assert_eq!(page[backend.as_str()]["connected"], ["healthy", "connected"].contains(said));
        assert_eq!(page.get("postgres").is_some(), *backend == Backend::Postgres);
    }
}

#[test]
fn a_store_that_keeps_its_own_books_is_quoted() {
    let (store, [one, two]) = store(Backend::Postgres);
    let pairs: Pairs =
        &[("QUEUE_ENABLED", "1"), ("QUEUE_BACKEND", "postgres"), ("ACK_ENABLED", "1"), ("ACK_BACKEND", "postgres")];
    let view = NodeView { stores: vec![store], ..view(pairs, RedisSnapshot::default()) };
    view.metrics.shards[0].queue_enqueued.add(1);
    view.metrics.shards[0].ack_tracked.add(1);
    let host = NodeHost::new(view, &[("GET", "a"), ("GET", "b")]);
    one.outstanding.set(1);
    two.outstanding.set(9);
    let mail = &one.mail;
    let figures = [&mail.users, &mail.depth, &mail.enqueued, &mail.dropped, &mail.expired, &mail.delivered];
    for (figure, value) in figures.into_iter().zip([2, 3, 40, 5, 6, 7]) {
        figure.set(value);
    }
    let acks = &one.acks;
    let figures = [&acks.pending, &acks.tracked, &acks.acked, &acks.expired, &acks.latency_ms];
    for (figure, value) in figures.into_iter().zip([1, 5, 3, 1, 900]) {
        figure.set(value);
    }
    let health = text(host.health(Now::default()));
    for part in [
        r#""postgres":{"status":"connected","connected":true,"pool_size":6,"idle_connections":2}"#,
        r#""queue":{"enabled":true,"backend":"postgres","total_messages":3,"users_with_queue":2}"#,
    ] {
        assert!(health.contains(part), "{part} is not in {health}");
    }
    let stats = text(host.stats(Now::default()));
    let expected = concat!(
        r#""queue":{"backend":"postgres","messages":3,"users":2,"total_enqueued":40,"total_replayed":7,"#,
        r#""total_expired":6,"total_dropped":5},"#,
        r#""ack":{"enabled":true,"total_tracked":5,"total_acked":3,"total_expired":1,"pending_count":1,"#,
        r#""ack_rate":0.75,"avg_latency_ms":300}}"#,
    );
    assert!(stats.ends_with(expected), "{stats}");
}

#[test]
fn a_node_of_a_cluster_says_so_and_counts_only_what_it_knows() {
    let figures = Arc::new(BridgeFigures::new(0));
    let view = view(&[("CLUSTER_ENABLED", "1")], RedisSnapshot { state: RedisState::Healthy, ..Default::default() });
    let host = NodeHost::new(NodeView { bridge: Some(Arc::clone(&figures)), ..view }, &[("GET", "a"), ("GET", "b")]);
    let now = Now { mono_us: 5_000_000, unix_ns: 0 };
    let health = text(host.health(now));
    assert!(health.contains(r#""cluster":{"enabled":true,"server_id":"n1"}"#), "{health}");
    assert!(health.contains(r#""status":"degraded""#), "its links are not up: {health}");
    let expected = r#"{"enabled":true,"mode":"distributed","server_id":"n1","local_connections":0,"local_users":0"#;
    assert_eq!(text(host.cluster_status(now)), format!("{expected}}}"));
    assert_eq!(host.ready(now), (false, br#"{"status":"not_ready","checks":{"cluster":false}}"#.to_vec()));
    figures.flow.came_back(now);
    let known = format!(r#"{expected},"cluster_connections":0,"cluster_users":0}}"#);
    assert_eq!(text(host.cluster_status(now)), known);
    assert_eq!(host.ready(now), (true, br#"{"status":"ready","checks":{"cluster":true}}"#.to_vec()));
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
