//! Pages about the node, for any shard that is asked for one: health, statistics, cluster status, metrics.
//!
//! They are made from counters and a snapshot of the link's state, and never wait for a backend (D-14).
mod pages;
pub mod stores;

use crate::bridge::{BridgeFigures, Flow};
use crate::config::Settings;
use crate::config::features::Feature;
use crate::config::settings::Backend;
use crate::exporter::Exporter;
use pages::{
    ClusterStatus, Health, HealthCluster, HealthConnections, HealthPostgres, HealthQueue, HealthRedis, Nothing,
    ReadyChecks, ReadyPage, Stats, StatsAck, StatsConnections, StatsNotifications, StatsQueue, StatsRedis, json,
};
use protocol::clock::Now;
use protocol::ids::TenantId;
use protocol::notification::TargetKind;
use shards::host::Host;
use shards::metrics::{NodeMetrics, ShardMetrics};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use storage::breaker::BreakerState;
use storage::link::state::LinkState;
use stores::StoreView;

/// How the link to Redis is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisState {
    /// There is none: `dev`.
    #[default]
    Disabled,
    /// Messages flow.
    Healthy,
    /// Trying.
    Reconnecting,
    /// Not trying: the circuit is open.
    CircuitOpen,
}

impl RedisState {
    /// The text of `redis.status` (contract §1.9).
    pub fn as_str(self) -> &'static str {
        match self {
            RedisState::Disabled => "disabled",
            RedisState::Healthy => "healthy",
            RedisState::Reconnecting => "reconnecting",
            RedisState::CircuitOpen => "circuit_open",
        }
    }
}

/// How often an operation on the link ended so: one line of `ara_redis_operations_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisOperation {
    /// `connect`, `subscribe`, `ping`, ….
    pub operation: &'static str,
    /// `ok` or `error`.
    pub result: &'static str,
    /// How often.
    pub count: u64,
}

/// What the link to Redis tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisSnapshot {
    /// How it is.
    pub state: RedisState,
    /// Its circuit breaker (contract §13.1).
    pub breaker: BreakerState,
    /// Failures in a row; stays at the threshold while the circuit is open.
    pub failures: u64,
    /// Attempts to reconnect since it last worked.
    pub attempts: u64,
    /// How often it began to work, the first time included.
    pub total_reconnections: u64,
    /// Messages that came in.
    pub messages_received: u64,
    /// Those of them that were no notification.
    pub messages_invalid: u64,
    /// What was done over it.
    pub operations: Vec<RedisOperation>,
}

/// Where snapshots come from; must not wait.
pub type RedisView = Arc<dyn Fn() -> RedisSnapshot + Send + Sync>;

/// Everything that the pages are made from.
pub struct NodeView {
    /// As loaded.
    pub settings: Arc<Settings>,
    /// `CLUSTER_SERVER_ID`, or made up at start.
    pub server_id: Box<str>,
    /// The shards' counters.
    pub metrics: Arc<NodeMetrics>,
    /// The link to Redis.
    pub redis: RedisView,
    /// What keeps mail, templates and acknowledgements behind links, each once.
    pub stores: Vec<StoreView>,
    /// Canaries of the ingest, if there is one.
    pub ingest: Option<Arc<Flow>>,
    /// The bridge to other nodes, if there is one.
    pub bridge: Option<Arc<BridgeFigures>>,
}

/// What became of mail: all of it while a backend that keeps its own books is asked, since the start otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueTotals {
    /// Kept now.
    pub messages: u64,
    /// Users with mail now.
    pub users: u64,
    /// Taken in.
    pub enqueued: u64,
    /// Delivered from mailboxes; with a backend of its own books, taken out after delivery or acknowledgement.
    pub replayed: u64,
    /// Expired.
    pub expired: u64,
    /// Let go for younger mail.
    pub dropped: u64,
    /// Skipped because nobody can read it.
    pub undecodable: u64,
}

/// What became of acknowledgements, likewise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AckTotals {
    /// Were awaited.
    pub tracked: u64,
    /// Came in time.
    pub acked: u64,
    /// Did not.
    pub expired: u64,
    /// Are awaited now.
    pub pending: u64,
    /// From sending to acknowledging, all of them together.
    pub latency_ms: u64,
}

impl fmt::Debug for NodeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeView").field("server_id", &self.server_id).finish_non_exhaustive()
    }
}

impl NodeView {
    /// WebSocket and SSE connections now.
    pub fn connections(&self) -> u64 {
        self.metrics.sum(|shard| shard.connections_ws.get() + shard.connections_sse.get())
    }

    /// Users with a connection now; a user lives on one shard, so the sum counts nobody twice.
    pub fn users(&self) -> u64 {
        self.metrics.sum(|shard| shard.users.get())
    }

    /// Channels with a subscriber now; each is counted by the owner of its line only.
    pub fn channels(&self) -> u64 {
        self.metrics.sum(|shard| shard.channels.get())
    }

    /// The store behind links of this kind, if one is used.
    pub fn store(&self, backend: Backend) -> Option<&StoreView> {
        self.stores.iter().find(|store| store.backend() == backend)
    }

    /// What became of mail.
    pub fn queue(&self) -> QueueTotals {
        let sum = |of: fn(&ShardMetrics) -> u64| self.metrics.sum(of);
        match self.store(self.settings.queue.backend) {
            Some(store) => QueueTotals {
                messages: store.sum(|figures| figures.mail.depth.get()),
                users: store.sum(|figures| figures.mail.users.get()),
                enqueued: store.sum(|figures| figures.mail.enqueued.get()),
                replayed: store.sum(|figures| figures.mail.delivered.get()),
                expired: store.sum(|figures| figures.mail.expired.get()),
                dropped: store.sum(|figures| figures.mail.dropped.get()),
                undecodable: store.sum(|figures| figures.mail.undecodable.get()),
            },
            None => QueueTotals {
                messages: sum(|shard| shard.queue_messages.get()),
                users: sum(|shard| shard.queue_users.get()),
                enqueued: sum(|shard| shard.queue_enqueued.get()),
                replayed: sum(|shard| shard.queue_replayed.get()),
                expired: sum(|shard| shard.queue_expired.get()),
                dropped: sum(|shard| shard.queue_dropped.get()),
                undecodable: 0,
            },
        }
    }

    /// What became of acknowledgements.
    pub fn acks(&self) -> AckTotals {
        let sum = |of: fn(&ShardMetrics) -> u64| self.metrics.sum(of);
        let ack = &self.settings.ack;
        match self.store(ack.backend).filter(|_| ack.enabled) {
            Some(store) => AckTotals {
                tracked: store.sum(|figures| figures.acks.tracked.get()),
                acked: store.sum(|figures| figures.acks.acked.get()),
                expired: store.sum(|figures| figures.acks.expired.get()),
                pending: store.sum(|figures| figures.acks.pending.get()),
                latency_ms: store.sum(|figures| figures.acks.latency_ms.get()),
            },
            None => AckTotals {
                tracked: sum(|shard| shard.ack_tracked.get()),
                acked: sum(|shard| shard.ack_received.get()),
                expired: sum(|shard| shard.ack_expired.get()),
                pending: sum(|shard| shard.ack_pending.get()),
                latency_ms: {
                    let shards = self.metrics.shards.iter();
                    (shards.map(|shard| shard.ack_latency_seconds.read().1).sum::<f64>() * 1e3) as u64
                },
            },
        }
    }

    /// `redis` of `/health`: the worst of the subscription, of the store there and of the bridge to other nodes. Links
    /// that look fine while nothing comes through are `stalled`.
    fn redis_health(&self, now: Now) -> HealthRedis {
        if !self.settings.redis_is_required() {
            return HealthRedis { status: RedisState::Disabled.as_str(), connected: false };
        }
        let subscription = (self.redis)().state;
        let store = self.store(Backend::Redis).map(StoreView::state).filter(|state| !state.is_well());
        let bridge = self.bridge.as_ref().map(|bridge| bridge.link()).filter(|link| *link != LinkState::Healthy);
        let (status, connected) = match (store, bridge, subscription) {
            (Some(state), _, _) => (state.as_str(), false),
            (None, Some(link), _) => (link.as_str(), false),
            (None, None, RedisState::Healthy) => match self.ingest_flows(now) && self.cluster_flows(now) {
                true => (RedisState::Healthy.as_str(), true),
                false => ("stalled", false),
            },
            (None, None, state) => (state.as_str(), false),
        };
        HealthRedis { status, connected }
    }

    /// Whether what is published to Redis comes in. Where canaries are forbidden, the link has to answer for it.
    fn ingest_flows(&self, now: Now) -> bool {
        let Some(flow) = &self.ingest else { return true };
        (self.redis)().state == RedisState::Healthy && flow.flows(now).unwrap_or(true)
    }

    /// Whether parcels come in.
    fn cluster_flows(&self, now: Now) -> bool {
        self.bridge.as_ref().is_none_or(|bridge| bridge.flows(now))
    }

    /// What keeps mail or acknowledgements behind links of this kind is reached, and does what it is asked.
    fn store_is_well(&self, backend: Backend) -> Option<bool> {
        let (queue, ack) = (&self.settings.queue, &self.settings.ack);
        let is_used = (queue.enabled && queue.backend == backend) || (ack.enabled && ack.backend == backend);
        self.store(backend).filter(|_| is_used).map(|store| store.state().is_well())
    }

    /// `postgres` of `/health`, while something is kept there.
    fn postgres_health(&self) -> Option<HealthPostgres> {
        let store = self.store(Backend::Postgres)?;
        let state = store.state();
        let connected = state.is_well();
        Some(HealthPostgres {
            status: if connected { "connected" } else { state.as_str() },
            connected,
            pool_size: store.links(),
            idle_connections: store.links_idle(),
        })
    }

    fn sent(&self, kinds: &[TargetKind]) -> u64 {
        let of = |shard: &ShardMetrics| kinds.iter().map(|kind| shard.sent(*kind).get()).sum();
        self.metrics.sum(of)
    }
}

/// The pages of a node.
#[derive(Debug)]
pub struct NodeHost {
    view: Arc<NodeView>,
    exporter: Exporter,
    /// Connections by tenant. Locked when a shard meets a tenant for the first time, and by nobody else; it has as many
    /// as the tables of the shards: tenants of signed tokens.
    tenants: Mutex<HashMap<TenantId, Arc<AtomicU64>>>,
}

impl NodeHost {
    /// `route_labels` says method and path of the routes, in the order of [`ShardMetrics::http_requests`].
    pub fn new(view: NodeView, route_labels: &'static [(&'static str, &'static str)]) -> NodeHost {
        let view = Arc::new(view);
        let exporter = Exporter::new(Arc::clone(&view), route_labels);
        NodeHost { view, exporter, tenants: Mutex::default() }
    }
}

impl Host for NodeHost {
    fn tenant_connections(&self, tenant: &TenantId) -> Arc<AtomicU64> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tenants.entry(tenant.clone()).or_default())
    }

    fn health(&self, now: Now) -> Vec<u8> {
        let view = &*self.view;
        let settings = &*view.settings;
        let (redis, postgres) = (view.redis_health(now), view.postgres_health());
        let postgres_is_missed =
            settings.postgres_is_required() && postgres.as_ref().is_some_and(|postgres| !postgres.connected);
        let degraded = (settings.redis_is_required() && !redis.connected) || postgres_is_missed;
        let queue = view.queue();
        json(&Health {
            status: if degraded { "degraded" } else { "healthy" },
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: now.mono_us / 1_000_000,
            redis,
            postgres,
            connections: HealthConnections {
                total: view.connections(),
                unique_users: view.users(),
                channels_count: view.channels(),
            },
            queue: HealthQueue {
                enabled: Feature::Queue.is_on(settings),
                backend: settings.queue.backend.as_str(),
                total_messages: queue.messages,
                users_with_queue: queue.users,
            },
            cluster: Feature::Cluster
                .is_on(settings)
                .then_some(HealthCluster { enabled: true, server_id: &view.server_id }),
        })
    }

    fn ready(&self, now: Now) -> (bool, Vec<u8>) {
        let view = &*self.view;
        let checks = ReadyChecks {
            redis_ingest: view.ingest.as_ref().map(|_| view.ingest_flows(now)),
            cluster: view.bridge.as_ref().map(|_| view.cluster_flows(now)),
            redis_store: view.store_is_well(Backend::Redis),
            postgres_store: view.store_is_well(Backend::Postgres),
        };
        let is_ready = [checks.redis_ingest, checks.cluster, checks.redis_store, checks.postgres_store]
            .into_iter()
            .all(|check| check.unwrap_or(true));
        (is_ready, json(&ReadyPage { status: if is_ready { "ready" } else { "not_ready" }, checks }))
    }

    fn stats(&self, _now: Now) -> Vec<u8> {
        use TargetKind::{Broadcast, Channel, Channels, User, Users};
        let view = &*self.view;
        let redis = (view.redis)();
        json(&Stats {
            connections: StatsConnections {
                total_connections: view.connections(),
                unique_users: view.users(),
                channels: Nothing {},
            },
            notifications: StatsNotifications {
                total_sent: view.sent(&TargetKind::ALL),
                total_delivered: view.metrics.sum(|shard| shard.delivered.get()),
                total_failed: view.metrics.sum(|shard| shard.failed.get()),
                user_notifications: view.sent(&[User, Users]),
                broadcast_notifications: view.sent(&[Broadcast]),
                channel_notifications: view.sent(&[Channel, Channels]),
            },
            redis: StatsRedis {
                status: redis.state.as_str(),
                connected: redis.state == RedisState::Healthy,
                circuit_breaker_state: redis.breaker.as_str(),
                circuit_breaker_failures: redis.failures,
                reconnection_attempts: redis.attempts,
                total_reconnections: redis.total_reconnections,
            },
            queue: Feature::Queue.is_on(&view.settings).then(|| {
                let queue = view.queue();
                StatsQueue {
                    backend: view.settings.queue.backend.as_str(),
                    messages: queue.messages,
                    users: queue.users,
                    total_enqueued: queue.enqueued,
                    total_replayed: queue.replayed,
                    total_expired: queue.expired,
                    total_dropped: queue.dropped,
                }
            }),
            ack: Feature::Ack.is_on(&view.settings).then(|| {
                let acks = view.acks();
                let finished = acks.acked + acks.expired;
                StatsAck {
                    enabled: true,
                    total_tracked: acks.tracked,
                    total_acked: acks.acked,
                    total_expired: acks.expired,
                    pending_count: acks.pending,
                    ack_rate: if finished == 0 { 1.0 } else { acks.acked as f64 / finished as f64 },
                    avg_latency_ms: acks.latency_ms / acks.acked.max(1),
                }
            }),
        })
    }

    fn metrics(&self, _now: Now) -> Vec<u8> {
        self.exporter.render()
    }

    fn cluster_status(&self, now: Now) -> Vec<u8> {
        let view = &*self.view;
        // What nobody can know is left out.
        let known = view.bridge.as_ref().filter(|bridge| bridge.flows(now));
        json(&ClusterStatus {
            enabled: view.bridge.is_some(),
            mode: if view.bridge.is_some() { "distributed" } else { "standalone" },
            server_id: &view.server_id,
            local_connections: view.connections(),
            local_users: view.users(),
            cluster_connections: known.map(|bridge| bridge.connections.load(Relaxed)),
            cluster_users: known.map(|bridge| bridge.users.load(Relaxed)),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
