//! Which figures a node has, what they are called, and where they come from.
//!
//! Every family is there from the start, at 0. Names without `shard` are sums over the shards; figures that a shard owns
//! are there once more as `ara_shard_*`, labelled with its number. Figures of features that this version does not do
//! stay at 0.
use super::families::{Families, Labels, Reading};
use crate::bridge::{BridgeFigures, REFUSALS};
use crate::config::features::Feature;
use crate::host::{NodeView, RedisSnapshot, RedisState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use protocol::notification::TargetKind;
use shards::metrics::{self, ClientMessageKind, LimitedKind, ShardMetrics};
use shards::reactor::clock;
use std::fmt::Result;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Reads the figures of a node at each scrape.
#[derive(Debug)]
pub(super) struct NodeCollector {
    /// What to read.
    pub(super) view: Arc<NodeView>,
    /// Method and path of the routes.
    pub(super) route_labels: &'static [(&'static str, &'static str)],
}

/// The status classes that an answer can have; the label of each and its place in [`ShardMetrics::http_requests`].
const STATUS_CLASSES: [(&str, usize); 5] = [("1xx", 1), ("2xx", 2), ("3xx", 3), ("4xx", 4), ("5xx", 5)];
/// What is there of `ara_redis_operations_total` before anything was done.
const REDIS_OPERATIONS: [(&str, &str); 6] = [
    ("connect", "ok"),
    ("connect", "error"),
    ("subscribe", "ok"),
    ("subscribe", "error"),
    ("ping", "ok"),
    ("ping", "error"),
];
/// Rough memory of a connection and of a subscription, for `ara_connection_manager_memory_bytes`.
const CONNECTION_BYTES: u64 = 600;
/// See [`CONNECTION_BYTES`].
const SUBSCRIPTION_BYTES: u64 = 100;

impl Collector for NodeCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> Result {
        let families = &mut Families(encoder);
        self.connections(families)?;
        self.messages(families)?;
        self.clients(families)?;
        self.http(families)?;
        self.redis(families)?;
        self.mail(families)?;
        self.acknowledgements(families)?;
        self.stores(families)?;
        self.rate_limits(families)?;
        self.cluster(families)?;
        self.process(families)?;
        self.shards(families)
    }
}

impl NodeCollector {
    pub(super) fn sum(&self, of: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.view.metrics.sum(of)
    }

    fn connections(&self, out: &mut Families) -> Result {
        let (ws, sse) = (self.sum(|shard| shard.connections_ws.get()), self.sum(|shard| shard.connections_sse.get()));
        out.gauge("ara_connections_total", "WebSocket and SSE connections now.", ws + sse)?;
        let rows: [(Labels, u64); 2] = [(&[("transport", "ws")], ws), (&[("transport", "sse")], sse)];
        out.gauges("ara_connections_by_transport", "Connections now, by transport.", rows)?;
        out.gauge("ara_users_connected", "Users with at least one connection now.", self.view.users())?;
        out.gauge("ara_channels_active", "Channels with at least one subscriber now.", self.view.channels())?;
        let subscriptions = self.sum(|shard| shard.subscriptions.get());
        out.gauge("ara_subscriptions_active", "Subscriptions of all connections now.", subscriptions)?;
        let sockets = self.view.metrics.sockets.load(Relaxed);
        out.gauge("ara_sockets_open", "Sockets of any kind now, HTTP requests included.", sockets)?;
        let per_user = self.view.metrics.shards.iter().map(|shard| &shard.connections_per_user);
        out.histogram(
            "ara_connections_per_user",
            "Connections that a user had when one more was registered, that one included.",
            &Reading::of(&metrics::CONNECTIONS_PER_USER_BOUNDS, per_user),
        )?;
        let waiting = self.sum(|shard| shard.outbox_bytes.get());
        out.gauge(
            "ara_connection_manager_memory_bytes",
            "Estimate of the memory of connections, subscriptions and waiting output.",
            (ws + sse) * CONNECTION_BYTES + subscriptions * SUBSCRIPTION_BYTES + waiting,
        )?;
        let refused = self.sum(|shard| shard.refused.get());
        out.counter("ara_connections_refused_total", "Connections refused by a limit.", refused)
    }

    fn messages(&self, out: &mut Families) -> Result {
        let sent = TargetKind::ALL.map(|kind| ([("target", kind.as_str())], self.sum(|shard| shard.sent(kind).get())));
        out.counters(
            "ara_messages_sent_total",
            "Notifications dispatched, delivered or not, by kind of target.",
            sent.iter().map(|(labels, count)| (&labels[..], *count)),
        )?;
        let delivered = self.sum(|shard| shard.delivered.get());
        out.counter("ara_messages_delivered_total", "Deliveries to connections.", delivered)?;
        let failed = self.sum(|shard| shard.failed.get());
        out.counter("ara_messages_failed_total", "Deliveries that a connection could not take.", failed)?;
        let expired = self.sum(|shard| shard.expired.get());
        out.counter("ara_messages_expired_total", "Notifications whose ttl was over before delivery.", expired)?;
        let overloaded = self.sum(|shard| shard.overloaded.get());
        out.counter("ara_publishes_refused_total", "Publishes refused because the node was congested.", overloaded)?;
        let latency = self.view.metrics.shards.iter().map(|shard| &shard.delivery_latency_seconds);
        out.histogram(
            "ara_message_delivery_latency_seconds",
            "From the acceptance of a notification to the socket.",
            &Reading::of(&metrics::DELIVERY_LATENCY_BOUNDS, latency),
        )?;
        let batches = self.sum(|shard| shard.batch_requests.get());
        out.counter("ara_batch_requests_total", "Batches taken.", batches)?;
        let sizes = self.view.metrics.shards.iter().map(|shard| &shard.batch_size);
        out.histogram("ara_batch_size", "Notifications in a batch.", &Reading::of(&metrics::BATCH_SIZE_BOUNDS, sizes))
    }

    fn clients(&self, out: &mut Families) -> Result {
        let opened = self.sum(|shard| shard.opened.get());
        out.counter("ara_ws_connections_opened_total", "Connections registered, SSE included.", opened)?;
        let closed = self.sum(|shard| shard.closed.get());
        out.counter("ara_ws_connections_closed_total", "Connections gone, SSE included.", closed)?;
        let durations = self.view.metrics.shards.iter().map(|shard| &shard.connection_duration_seconds);
        out.histogram(
            "ara_ws_connection_duration_seconds",
            "How long connections lived, SSE included.",
            &Reading::of(&metrics::CONNECTION_DURATION_BOUNDS, durations),
        )?;
        let received = ClientMessageKind::ALL
            .map(|kind| ([("type", kind.as_str())], self.sum(|shard| shard.client_messages[kind as usize].get())));
        out.counters(
            "ara_ws_messages_received_total",
            "Messages from clients, by type.",
            received.iter().map(|(labels, count)| (&labels[..], *count)),
        )?;
        let slow = self.sum(|shard| shard.slow_closed.get());
        out.counter("ara_slow_consumers_closed_total", "Connections closed because they did not read.", slow)?;
        let [handshakes, resumed, failed] = [
            self.sum(|shard| shard.tls_handshakes.get()),
            self.sum(|shard| shard.tls_resumed.get()),
            self.sum(|shard| shard.tls_failed.get()),
        ];
        out.counter("ara_tls_handshakes_total", "TLS handshakes that came to their end.", handshakes)?;
        out.counter("ara_tls_resumed_total", "Of them, those that took up an earlier session.", resumed)?;
        out.counter("ara_tls_failed_total", "TLS connections that failed.", failed)?;
        let shed = self.sum(|shard| shard.outbox_shed.get());
        out.counter("ara_outboxes_shed_total", "Outboxes shed because all together were too large.", shed)?;
        let beats = self.sum(|shard| shard.heartbeats.get());
        out.counter("ara_heartbeats_sent_total", "Heartbeats sent.", beats)?;
        let ended: [(Labels, u64); 3] = [
            (&[("reason", "token_expired")], self.sum(|shard| shard.token_expired.get())),
            (&[("reason", "token_revoked")], self.sum(|shard| shard.token_revoked.get())),
            (&[("reason", "disconnected")], self.sum(|shard| shard.disconnected.get())),
        ];
        out.counters("ara_connections_ended_total", "Connections ended for no fault of their client.", ended)?;
        let refused = self.sum(|shard| shard.token_refused.get());
        out.counter("ara_tokens_refused_revoked_total", "Connects and refreshes with a revoked token.", refused)?;
        let held = self.sum(|shard| shard.revocations.get());
        out.gauge("ara_token_revocations", "Revocations held now.", held)?;
        let timeouts = self.sum(|shard| shard.heartbeat_timeouts.get());
        out.counter("ara_heartbeat_timeouts_total", "Connections closed for their silence.", timeouts)?;
        let durations = self.view.metrics.shards.iter().map(|shard| &shard.heartbeat_duration_ms);
        out.histogram(
            "ara_heartbeat_duration_ms",
            "Milliseconds that a turn spent on heartbeats.",
            &Reading::of(&metrics::HEARTBEAT_DURATION_BOUNDS, durations),
        )
    }

    fn http(&self, out: &mut Families) -> Result {
        let mut requests = Vec::new();
        for (route, (method, path)) in self.route_labels.iter().enumerate() {
            for (status, class) in STATUS_CLASSES {
                let count = self.sum(|shard| shard.http_requests.get(route).map_or(0, |classes| classes[class].get()));
                requests.push(([("method", *method), ("path", *path), ("status", status)], count));
            }
        }
        out.counters(
            "ara_http_requests_total",
            "HTTP requests answered, by route and class of status.",
            requests.iter().map(|(labels, count)| (&labels[..], *count)),
        )?;
        let routes: Vec<[(&str, &str); 2]> =
            self.route_labels.iter().map(|(method, path)| [("method", *method), ("path", *path)]).collect();
        let latencies = routes.iter().enumerate().map(|(route, labels)| {
            let shards = self.view.metrics.shards.iter();
            let histograms = shards.filter_map(|shard| shard.http_latency_seconds.get(route));
            (&labels[..], Reading::of(&metrics::HTTP_LATENCY_BOUNDS, histograms))
        });
        out.histograms("ara_http_request_latency_seconds", "From the end of a request to its answer.", latencies)
    }

    fn redis(&self, out: &mut Families) -> Result {
        let RedisSnapshot {
            state, breaker, total_reconnections, messages_received, messages_invalid, operations, ..
        } = (self.view.redis)();
        let connected = u64::from(state == RedisState::Healthy);
        out.gauge("ara_redis_connection_status", "1 while the link to Redis works, else 0.", connected)?;
        out.gauge("ara_redis_circuit_breaker_state", "0 closed, 1 open, 2 half open.", breaker as u64)?;
        out.counter(
            "ara_redis_reconnections_total",
            "How often the link to Redis began to work, the first time included.",
            total_reconnections,
        )?;
        out.counter("ara_redis_messages_received_total", "Messages that came in from Redis.", messages_received)?;
        out.counter(
            "ara_redis_messages_invalid_total",
            "Messages from Redis that were no notification.",
            messages_invalid,
        )?;
        let mut rows: Vec<([(&str, &str); 2], u64)> = REDIS_OPERATIONS
            .iter()
            .map(|(operation, result)| ([("operation", *operation), ("result", *result)], 0))
            .collect();
        for done in &operations {
            let labels = [("operation", done.operation), ("result", done.result)];
            match rows.iter_mut().find(|(known, _)| *known == labels) {
                Some((_, count)) => *count += done.count,
                None => rows.push((labels, done.count)),
            }
        }
        out.counters(
            "ara_redis_operations_total",
            "Operations on the link to Redis, by how they ended.",
            rows.iter().map(|(labels, count)| (&labels[..], *count)),
        )
    }

    fn rate_limits(&self, out: &mut Families) -> Result {
        let count = |kind, passed| self.sum(|shard| shard.limited(kind, passed).get());
        let rows = |passed: bool| LimitedKind::ALL.map(|kind| ([("type", kind.as_str())], count(kind, passed)));
        let families = [
            ("ara_ratelimit_allowed_total", "Requests, connects and messages that passed a limit.", true),
            ("ara_ratelimit_denied_total", "Requests, connects and messages that a limit refused.", false),
        ];
        for (name, help, passed) in families {
            let rows = rows(passed);
            out.counters(name, help, rows.iter().map(|(labels, count)| (&labels[..], *count)))?;
        }
        let results = LimitedKind::ALL.into_iter().flat_map(|kind| {
            [("allowed", true), ("denied", false)]
                .map(|(result, passed)| ([("type", kind.as_str()), ("result", result)], count(kind, passed)))
        });
        let results: Vec<_> = results.collect();
        out.counters(
            "ara_ratelimit_requests_total",
            "Requests, connects and messages that met a limit.",
            results.iter().map(|(labels, count)| (&labels[..], *count)),
        )?;
        out.counter(
            "ara_ratelimit_fallbacks_total",
            "Requests and connects that this node counted alone, because Redis did not.",
            self.sum(|shard| shard.limit_fallbacks.get()),
        )?;
        let buckets = self.sum(|shard| shard.limit_buckets.get());
        out.gauge("ara_ratelimit_buckets", "Clients and keys whose requests this node remembers.", buckets)
    }

    fn cluster(&self, out: &mut Families) -> Result {
        let enabled = u64::from(Feature::Cluster.is_on(&self.view.settings));
        out.gauge("ara_cluster_enabled", "1 while this node is part of a cluster, else 0.", enabled)?;
        let bridge = self.view.bridge.as_deref();
        let of = |figure: fn(&BridgeFigures) -> &AtomicU64| bridge.map_or(0, |bridge| figure(bridge).load(Relaxed));
        let connections = of(|bridge| &bridge.connections);
        out.gauge("ara_cluster_connections_total", "Connections of the whole cluster; 0 outside of one.", connections)?;
        let users = of(|bridge| &bridge.users);
        out.gauge("ara_cluster_users_total", "Users of the whole cluster; 0 outside of one.", users)?;
        let members = of(|bridge| &bridge.members);
        out.gauge("ara_cluster_members", "Nodes that are alive, this one included; 0 outside of a cluster.", members)?;
        let topics = of(|bridge| &bridge.topics);
        out.gauge("ara_cluster_topics", "Users and channels that this node listens to for others.", topics)?;
        let age_ms = bridge.and_then(|bridge| bridge.canary_age_ms(clock::now())).unwrap_or(0);
        out.gauge(
            "ara_cluster_canary_age_seconds",
            "Since the last canary came back through Redis; 0 before the first, and outside of a cluster.",
            age_ms as f64 / 1e3,
        )?;
        out.gauge(
            "ara_cluster_stalled",
            "Places where nodes meet, of seventeen in a Redis Cluster and else of one, from which no canary comes back.",
            bridge.map_or(0, |bridge| bridge.stalled(clock::now()) as u64),
        )?;
        let admissions = [
            ([("result", "granted")], self.sum(|shard| shard.admissions_granted.get())),
            ([("result", "refused")], self.sum(|shard| shard.admissions_refused.get())),
            ([("result", "alone")], self.sum(|shard| shard.admissions_by_own_counts.get())),
        ];
        out.counters(
            "ara_cluster_admissions_total",
            "Connections by what the cluster's limits said; alone: Redis said nothing, and the node let them in.",
            admissions.iter().map(|(labels, count)| (&labels[..], *count)),
        )?;
        let refreshed = of(|bridge| &bridge.refreshed);
        out.counter("ara_cluster_sessions_refreshed_total", "Sessions refreshed in Redis.", refreshed)?;
        let routed = of(|bridge| &bridge.routed);
        out.counter("ara_cluster_messages_routed_total", "Notifications sent to other nodes.", routed)?;
        let received = of(|bridge| &bridge.received_notifications);
        out.counter("ara_cluster_messages_received_total", "Notifications received from other nodes.", received)?;
        let sent = of(|bridge| &bridge.sent);
        out.counter("ara_cluster_parcels_sent_total", "Parcels of any kind that Redis was given.", sent)?;
        let bundles = of(|bridge| &bridge.bundles);
        out.counter("ara_cluster_bundles_sent_total", "Parcels among them that carry several notifications.", bundles)?;
        let received = of(|bridge| &bridge.received);
        out.counter("ara_cluster_parcels_received_total", "Parcels of any kind from other nodes.", received)?;
        let reasons = REFUSALS.map(|reason| [("reason", reason)]);
        let counts = (0..REFUSALS.len()).map(|at| bridge.map_or(0, |bridge| bridge.refused[at].load(Relaxed)));
        out.counters(
            "ara_cluster_parcels_refused_total",
            "Parcels that could not be read, or not be sent.",
            reasons.iter().map(|labels| &labels[..]).zip(counts),
        )
    }

    fn process(&self, out: &mut Families) -> Result {
        let build: [(Labels, u64); 1] = [(&[("version", env!("CARGO_PKG_VERSION"))], 1)];
        out.gauges("ara_build_info", "Always 1; the label tells the version.", build)?;
        out.gauge("ara_process_memory_bytes", "Resident memory of the process.", resident_bytes())?;
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        out.counter("ara_process_cpu_seconds_total", "Processor time of the process, user and system.", cpu_seconds)
    }

    fn shards(&self, out: &mut Families) -> Result {
        let names: Vec<String> = (0..self.view.metrics.shards.len()).map(|shard| shard.to_string()).collect();
        let labels: Vec<[(&str, &str); 1]> = names.iter().map(|name| [("shard", name.as_str())]).collect();
        let congested = self.view.metrics.congested_lanes.load(Relaxed);
        out.gauge("ara_mesh_congested_lanes", "Lanes between shards above their bound now.", congested)?;

        type Figure = fn(&ShardMetrics) -> u64;
        let held_back = self.view.metrics.held_back.len();
        out.gauge(
            "ara_tenants_held_back",
            "Tenants whose publishes are refused until more of them are delivered, by shard that says so.",
            held_back,
        )?;
        let levels: [(&str, &str, Figure); 4] = [
            ("ara_shard_connections", "WebSocket and SSE connections now.", |shard| {
                shard.connections_ws.get() + shard.connections_sse.get()
            }),
            ("ara_shard_mesh_overflow", "Messages waiting for other shards beside their lanes now.", |shard| {
                shard.mesh_overflow.get()
            }),
            ("ara_shard_outbox_bytes", "Bytes waiting for sockets now.", |shard| shard.outbox_bytes.get()),
            ("ara_shard_outbox_memory_bytes", "Memory of what waits for sockets now, each frame once.", |shard| {
                shard.outbox_room_bytes.get()
            }),
        ];
        for (name, help, figure) in levels {
            let values = self.view.metrics.shards.iter().map(figure);
            out.gauges(name, help, labels.iter().map(|labels| &labels[..]).zip(values))?;
        }
        let counts: [(&str, &str, Figure); 7] = [
            ("ara_shard_deliveries_total", "Deliveries to connections.", |shard| shard.delivered.get()),
            ("ara_shard_turns_total", "Turns of the loop.", |shard| shard.turns.get()),
            ("ara_shard_writes_total", "System calls that wrote to sockets.", |shard| shard.writes.get()),
            ("ara_shard_bytes_sent_total", "Bytes written to sockets.", |shard| shard.bytes_sent.get()),
            ("ara_shard_mesh_sent_total", "Messages sent to other shards.", |shard| shard.mesh_sent.get()),
            ("ara_shard_handed_over_total", "Connections handed over to their home.", |shard| shard.handed_over.get()),
            ("ara_shard_refused_total", "Connections refused by a limit.", |shard| shard.refused.get()),
        ];
        for (name, help, figure) in counts {
            let values = self.view.metrics.shards.iter().map(figure);
            out.counters(name, help, labels.iter().map(|labels| &labels[..]).zip(values))?;
        }
        let busy = self.view.metrics.shards.iter().map(|shard| shard.busy_us.get() as f64 / 1e6);
        out.counters(
            "ara_shard_busy_seconds_total",
            "Time spent working, not sleeping.",
            labels.iter().map(|labels| &labels[..]).zip(busy),
        )
    }
}

/// `VmRSS` of this process; 0 where there is no `/proc`.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    read_resident_kib(&status).unwrap_or(0) * 1024
}

fn read_resident_kib(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_kernels_text() {
        assert_eq!(read_resident_kib("Name:\tara\nVmRSS:\t    5344 kB\nRssAnon: 1 kB\n"), Some(5344));
        assert_eq!(read_resident_kib("Name:\tara\n"), None);
        assert!(resident_bytes() > 0);
    }
}
