//! Single-writer counters: one block per shard, written by its shard only, read by anybody.
use crate::pressure::HeldBack;
use protocol::notification::TargetKind;
use protocol::rate_limit::LimitKind;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// A count that only its shard writes: a plain load and store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds, on the owning shard's thread only.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value now, from any thread.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A level that only its shard writes.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// Goes up or down, on the owning shard's thread only.
    pub fn add(&self, n: i64) {
        self.0.store(self.0.load(Relaxed) + n, Relaxed);
    }

    /// Sets it, on the owning shard's thread only.
    pub fn set(&self, n: i64) {
        self.0.store(n, Relaxed);
    }

    /// The value now, from any thread; never below zero.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed).max(0) as u64
    }
}

/// A histogram over fixed upper bounds; the last bucket is `+Inf`.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    /// Upper bounds, in the unit of the observations.
    pub bounds: &'static [f64; N],
    counts: [Counter; N],
    above: Counter,
    /// In billionths of the unit, so that it is an integer.
    sum_nano: Counter,
}

impl<const N: usize> Histogram<N> {
    /// Empty.
    pub fn new(bounds: &'static [f64; N]) -> Histogram<N> {
        Histogram {
            bounds,
            counts: std::array::from_fn(|_| Counter::default()),
            above: Counter::default(),
            sum_nano: Counter::default(),
        }
    }

    /// Counts one value, on the owning shard's thread only.
    pub fn observe(&self, value: f64) {
        self.observe_many(value, 1);
    }

    /// Counts `n` values that are alike.
    pub fn observe_many(&self, value: f64, n: u64) {
        match self.bounds.iter().position(|bound| value <= *bound) {
            Some(bucket) => self.counts[bucket].add(n),
            None => self.above.add(n),
        }
        self.sum_nano.add((value.max(0.0) * 1e9) as u64 * n);
    }

    /// Counts per bucket (not cumulative; one more than `bounds`) and the sum of all values.
    pub fn read(&self) -> (Vec<u64>, f64) {
        let mut counts: Vec<u64> = self.counts.iter().map(Counter::get).collect();
        counts.push(self.above.get());
        (counts, self.sum_nano.get() as f64 / 1e9)
    }
}

/// `ara_message_delivery_latency_seconds`.
pub const DELIVERY_LATENCY_BOUNDS: [f64; 9] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];
/// `ara_http_request_latency_seconds`.
pub const HTTP_LATENCY_BOUNDS: [f64; 9] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
/// `ara_ws_connection_duration_seconds`.
pub const CONNECTION_DURATION_BOUNDS: [f64; 9] = [1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0];
/// `ara_ack_latency_seconds`.
pub const ACK_LATENCY_BOUNDS: [f64; 9] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// `ara_batch_size`.
pub const BATCH_SIZE_BOUNDS: [f64; 7] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0];
/// `ara_connections_per_user`.
pub const CONNECTIONS_PER_USER_BOUNDS: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 10.0];
/// `ara_heartbeat_duration_ms`.
pub const HEARTBEAT_DURATION_BOUNDS: [f64; 9] = [10.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0];

/// What a client said, for `ara_ws_messages_received_total{type}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMessageKind {
    /// Subscribe.
    Subscribe,
    /// Unsubscribe.
    Unsubscribe,
    /// Ping.
    Ping,
    /// Ack.
    Ack,
    /// Refresh.
    Refresh,
    /// Could not be understood.
    Invalid,
}

impl ClientMessageKind {
    /// All, in the order of their discriminants.
    pub const ALL: [ClientMessageKind; 6] =
        [Self::Subscribe, Self::Unsubscribe, Self::Ping, Self::Ack, Self::Refresh, Self::Invalid];

    /// The label text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Ping => "ping",
            Self::Ack => "ack",
            Self::Refresh => "refresh",
            Self::Invalid => "invalid",
        }
    }
}

/// What met a limit, for `ara_ratelimit_*{type}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedKind {
    /// A request.
    Http,
    /// A connect.
    Connect,
    /// A message of a WebSocket.
    Message,
}

impl LimitedKind {
    /// All, in the order of their discriminants.
    pub const ALL: [LimitedKind; 3] = [Self::Http, Self::Connect, Self::Message];

    /// The label text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => LimitKind::Http.as_str(),
            Self::Connect => LimitKind::Connect.as_str(),
            Self::Message => "message",
        }
    }
}

impl From<LimitKind> for LimitedKind {
    fn from(kind: LimitKind) -> LimitedKind {
        match kind {
            LimitKind::Http => LimitedKind::Http,
            LimitKind::Connect => LimitedKind::Connect,
        }
    }
}

/// One shard's figures.
#[derive(Debug)]
pub struct ShardMetrics {
    /// Open WebSocket connections.
    pub connections_ws: Level,
    /// Open SSE connections.
    pub connections_sse: Level,
    /// Sockets of any kind on this shard.
    pub sockets: Level,
    /// Users with at least one connection; a user lives on one shard only.
    pub users: Level,
    /// Channels with at least one subscriber in the node, counted at their line's owner.
    pub channels: Level,
    /// Subscriptions of this shard's connections.
    pub subscriptions: Level,
    /// How many users have how many connections, observed when a connection registers.
    pub connections_per_user: Histogram<6>,
    /// Dispatches by target, counted at their origin.
    pub sent: [Counter; 5],
    /// Deliveries queued to connections of this shard.
    pub delivered: Counter,
    /// Deliveries that a connection could not take.
    pub failed: Counter,
    /// Notifications whose `ttl` was over before they were delivered.
    pub expired: Counter,
    /// From acceptance to the socket.
    pub delivery_latency_seconds: Histogram<9>,
    /// Connections registered.
    pub opened: Counter,
    /// Connections gone.
    pub closed: Counter,
    /// Connections refused by a limit.
    pub refused: Counter,
    /// How long they lived.
    pub connection_duration_seconds: Histogram<9>,
    /// What clients said, by [`ClientMessageKind`].
    pub client_messages: [Counter; 6],
    /// Connections closed because they did not read.
    pub slow_closed: Counter,
    /// TLS handshakes that came to their end.
    pub tls_handshakes: Counter,
    /// Of them, those that took up an earlier session.
    pub tls_resumed: Counter,
    /// TLS that failed, in the handshake or later.
    pub tls_failed: Counter,
    /// Connections closed because no pong or message came in time.
    pub heartbeat_timeouts: Counter,
    /// Connections ended with their token.
    pub token_expired: Counter,
    /// Connections ended because their token was revoked.
    pub token_revoked: Counter,
    /// Connects refused because their token was revoked.
    pub token_refused: Counter,
    /// Connections ended because somebody ended all of their user.
    pub disconnected: Counter,
    /// Revocations held now, on the shard that is asked for all of them.
    pub revocations: Level,
    /// Heartbeats sent.
    pub heartbeats: Counter,
    /// Time a turn spent on heartbeats, in milliseconds.
    pub heartbeat_duration_ms: Histogram<9>,
    /// Requests answered, by route (the order of `protocol::http::route::ROUTE_LABELS`) and status class: 1 is 1xx, 5 is
    /// 5xx.
    pub http_requests: Vec<[Counter; 6]>,
    /// From the end of the request to its answer, by route.
    pub http_latency_seconds: Vec<Histogram<9>>,
    /// Mail kept now, told by the shard's store.
    pub queue_messages: Level,
    /// Memory of mail kept in this process now, told by the shard's store.
    pub queue_bytes: Level,
    /// Users for whom mail is kept now, told by the shard's store.
    pub queue_users: Level,
    /// Mail whose time was over while it was kept, told by the shard's store.
    pub queue_expired: Level,
    /// Mail taken into mailboxes.
    pub queue_enqueued: Counter,
    /// Mail that had to go because its mailbox was full.
    pub queue_dropped: Counter,
    /// Mail that no mailbox could take.
    pub queue_refused: Counter,
    /// Mail that could not be forgotten because too much of it waits for that: it comes again.
    pub removals_refused: Counter,
    /// Mail delivered from mailboxes.
    pub queue_replayed: Counter,
    /// Of it, deliveries that were not the first.
    pub redelivered: Counter,
    /// Notifications whose acknowledgement was awaited, once per user.
    pub ack_tracked: Counter,
    /// Acknowledged in time.
    pub ack_received: Counter,
    /// Never acknowledged, or too late.
    pub ack_expired: Counter,
    /// Of what is recorded elsewhere: what could not be noted or acknowledged there.
    pub ack_unrecorded: Counter,
    /// Awaited now.
    pub ack_pending: Level,
    /// From the last delivery to the acknowledgement.
    pub ack_latency_seconds: Histogram<9>,
    /// Parcels to other nodes.
    pub parcels_sent: Counter,
    /// Parcels of other nodes.
    pub parcels_received: Counter,
    /// Hints that were delivered, at once, to whoever was up to date.
    pub hints_taken: Counter,
    /// Hints of what was there already, or of what nobody here is up to date for.
    pub hints_passed_over: Counter,
    /// Hints with a hole before them: the mailbox was read.
    pub hints_behind: Counter,
    /// Mail that every node read from Redis and that waits to be kept by another.
    pub claims_waiting: Level,
    /// Of such mail, what this node kept.
    pub claims_stored: Counter,
    /// And what another kept.
    pub claims_stored_elsewhere: Counter,
    /// Connections that the cluster had room for.
    pub admissions_granted: Counter,
    /// Connections that it had none for.
    pub admissions_refused: Counter,
    /// Connections that the node let in by its own counts, because Redis said nothing.
    pub admissions_by_own_counts: Counter,
    /// Users and channels of which the other nodes have yet to hear.
    pub watches_waiting: Level,
    /// Of them, those for which nobody waited any longer.
    pub watches_late: Counter,
    /// Batches.
    pub batch_requests: Counter,
    /// Their sizes.
    pub batch_size: Histogram<7>,
    /// Publishes refused because the node was congested.
    pub overloaded: Counter,
    /// What met a limit, by [`LimitedKind`]: what was refused, and what passed.
    pub limited: [[Counter; 2]; 3],
    /// Requests that were counted by this node alone, because the place where nodes count together did not answer.
    pub limit_fallbacks: Counter,
    /// Identities with a bucket here, as of the last sweep.
    pub limit_buckets: Level,
    /// Turns of the loop.
    pub turns: Counter,
    /// Microseconds spent working, not sleeping.
    pub busy_us: Counter,
    /// Bytes written to sockets.
    pub bytes_sent: Counter,
    /// Write system calls.
    pub writes: Counter,
    /// Connections handed over to their home.
    pub handed_over: Counter,
    /// Messages sent to other shards.
    pub mesh_sent: Counter,
    /// Messages waiting in overflows now.
    pub mesh_overflow: Level,
    /// Bytes waiting in outboxes now.
    pub outbox_bytes: Level,
    /// Memory of what waits in outboxes, a frame that waits in many counted once.
    pub outbox_room_bytes: Level,
    /// Connections that were taken from, or ended, because all outboxes together were too large.
    pub outbox_shed: Counter,
}

impl ShardMetrics {
    /// All at zero.
    pub fn new(routes: usize) -> ShardMetrics {
        ShardMetrics {
            connections_ws: Level::default(),
            connections_sse: Level::default(),
            sockets: Level::default(),
            users: Level::default(),
            channels: Level::default(),
            subscriptions: Level::default(),
            connections_per_user: Histogram::new(&CONNECTIONS_PER_USER_BOUNDS),
            sent: std::array::from_fn(|_| Counter::default()),
            delivered: Counter::default(),
            failed: Counter::default(),
            expired: Counter::default(),
            delivery_latency_seconds: Histogram::new(&DELIVERY_LATENCY_BOUNDS),
            opened: Counter::default(),
            closed: Counter::default(),
            refused: Counter::default(),
            connection_duration_seconds: Histogram::new(&CONNECTION_DURATION_BOUNDS),
            client_messages: std::array::from_fn(|_| Counter::default()),
            slow_closed: Counter::default(),
            tls_handshakes: Counter::default(),
            tls_resumed: Counter::default(),
            tls_failed: Counter::default(),
            heartbeat_timeouts: Counter::default(),
            token_expired: Counter::default(),
            token_revoked: Counter::default(),
            token_refused: Counter::default(),
            disconnected: Counter::default(),
            revocations: Level::default(),
            heartbeats: Counter::default(),
            heartbeat_duration_ms: Histogram::new(&HEARTBEAT_DURATION_BOUNDS),
            http_requests: (0..routes).map(|_| std::array::from_fn(|_| Counter::default())).collect(),
            http_latency_seconds: (0..routes).map(|_| Histogram::new(&HTTP_LATENCY_BOUNDS)).collect(),
            queue_messages: Level::default(),
            queue_bytes: Level::default(),
            queue_users: Level::default(),
            queue_expired: Level::default(),
            queue_enqueued: Counter::default(),
            queue_dropped: Counter::default(),
            queue_refused: Counter::default(),
            removals_refused: Counter::default(),
            queue_replayed: Counter::default(),
            redelivered: Counter::default(),
            ack_tracked: Counter::default(),
            ack_received: Counter::default(),
            ack_expired: Counter::default(),
            ack_unrecorded: Counter::default(),
            ack_pending: Level::default(),
            ack_latency_seconds: Histogram::new(&ACK_LATENCY_BOUNDS),
            parcels_sent: Counter::default(),
            parcels_received: Counter::default(),
            hints_taken: Counter::default(),
            hints_passed_over: Counter::default(),
            hints_behind: Counter::default(),
            claims_waiting: Level::default(),
            claims_stored: Counter::default(),
            claims_stored_elsewhere: Counter::default(),
            admissions_granted: Counter::default(),
            admissions_refused: Counter::default(),
            admissions_by_own_counts: Counter::default(),
            watches_waiting: Level::default(),
            watches_late: Counter::default(),
            batch_requests: Counter::default(),
            batch_size: Histogram::new(&BATCH_SIZE_BOUNDS),
            overloaded: Counter::default(),
            limited: Default::default(),
            limit_fallbacks: Counter::default(),
            limit_buckets: Level::default(),
            turns: Counter::default(),
            busy_us: Counter::default(),
            bytes_sent: Counter::default(),
            writes: Counter::default(),
            handed_over: Counter::default(),
            mesh_sent: Counter::default(),
            mesh_overflow: Level::default(),
            outbox_bytes: Level::default(),
            outbox_room_bytes: Level::default(),
            outbox_shed: Counter::default(),
        }
    }

    /// What met a limit of this kind and passed, or not.
    pub fn limited(&self, kind: LimitedKind, passed: bool) -> &Counter {
        &self.limited[kind as usize][usize::from(passed)]
    }

    /// Dispatches of one kind.
    pub fn sent(&self, kind: TargetKind) -> &Counter {
        &self.sent[kind as usize]
    }
}

/// Every shard's block, and the few figures that belong to the node. Shared by all shards and the engine.
#[derive(Debug)]
pub struct NodeMetrics {
    /// One block per shard.
    pub shards: Vec<ShardMetrics>,
    /// Lanes above their bound right now; while not 0 the node refuses publishes.
    pub congested_lanes: AtomicU64,
    /// Tenants that publish faster than some shard delivers; their publishes are refused.
    pub held_back: HeldBack,
    /// WebSocket and SSE connections admitted: the one count a limit of the whole node needs. Touched at connect and
    /// disconnect, never by a delivery.
    pub admitted: AtomicU64,
    /// Sockets open on the node.
    pub sockets: AtomicU64,
    /// Nodes that are alive, this one included, as the bridge last said; 0 while the node is alone.
    pub cluster_members: AtomicU64,
    /// Connections of all of them.
    pub cluster_connections: AtomicU64,
    /// Users of all of them; who is on two nodes counts twice.
    pub cluster_users: AtomicU64,
}

impl NodeMetrics {
    /// All at zero.
    pub fn new(shards: usize, routes: usize) -> NodeMetrics {
        NodeMetrics {
            shards: (0..shards).map(|_| ShardMetrics::new(routes)).collect(),
            congested_lanes: AtomicU64::new(0),
            held_back: HeldBack::new(shards),
            admitted: AtomicU64::new(0),
            sockets: AtomicU64::new(0),
            cluster_members: AtomicU64::new(0),
            cluster_connections: AtomicU64::new(0),
            cluster_users: AtomicU64::new(0),
        }
    }

    /// A sum over all shards.
    pub fn sum(&self, of: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.shards.iter().map(of).sum()
    }
}
