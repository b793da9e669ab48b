//! The world: N shards, the lanes between them, and clients at the ends of imaginary sockets. Everything that may happen
//! next is drawn from the seed: which lane moves, how input is cut into pieces, how much a socket takes.
mod callers;
mod rim;

use crate::client::{Client, ClientId};
use crate::store::{SharedCounts, SharedTemplates, SimStore};
use protocol::auth::token::Verifier;
use protocol::clock::Now;
use protocol::cluster::ClusterRequest;
use protocol::http::route::ROUTE_LABELS;
use protocol::ids::{NotificationId, TenantId};
use protocol::stream::Places;
use shards::config::ShardConfig;
use shards::host::Host;
use shards::key::{ConnKey, ShardId};
use shards::mesh::message::Message;
use shards::metrics::{NodeMetrics, ShardMetrics};
use shards::shard::{Arrival, Shard};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

const SECRET: &[u8] = b"a secret of the simulated world, 32+";
const WALL_START_NS: u64 = 1_767_323_045_000_000_000;

/// What travels between two shards.
enum Parcel {
    Message(Message),
    Socket(ClientId, Box<Arrival>),
}

/// Pages are not under test here; the counts that shards share are.
#[derive(Default)]
struct NoPages(Mutex<BTreeMap<TenantId, Arc<AtomicU64>>>);

impl Host for NoPages {
    fn health(&self, _: Now) -> Vec<u8> {
        b"{}".to_vec()
    }
    fn stats(&self, _: Now) -> Vec<u8> {
        b"{}".to_vec()
    }
    fn metrics(&self, _: Now) -> Vec<u8> {
        Vec::new()
    }
    fn cluster_status(&self, _: Now) -> Vec<u8> {
        b"{}".to_vec()
    }
    fn tenant_connections(&self, tenant: &TenantId) -> Arc<AtomicU64> {
        Arc::clone(self.0.lock().expect("nobody panics with it").entry(tenant.clone()).or_default())
    }
}

/// One node and everybody who talks to it.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) rng: fastrand::Rng,
    pub(crate) shards: Vec<Shard>,
    pub(crate) metrics: Arc<NodeMetrics>,
    pub(crate) clients: Vec<Client>,
    users: Vec<(ClientId, String)>,
    /// What each shard asks of the store.
    pub(crate) stores: Vec<SimStore>,
    /// Where each notification stood that waited for a client, when something was written to it.
    pub(crate) seen: BTreeMap<ClientId, Vec<(NotificationId, Places)>>,
    lanes: Vec<Vec<VecDeque<Parcel>>>,
    sockets: HashMap<(u8, ConnKey), ClientId>,
    /// Connections that have something to write, by shard.
    dirty: Vec<VecDeque<ConnKey>>,
    /// Whether every call is followed by a look at all tables.
    pub(crate) checks: bool,
    /// Whether sockets take less than they are given, now and then.
    pub(crate) cuts: bool,
    /// Whether what waits is noted in `seen` before each write.
    pub(crate) watches: bool,
    /// Whether sockets are encrypted: what a write shows goes out as it is, however long it takes.
    pub(crate) encrypts: bool,
    /// Which shard has the bridge to other nodes, and what it is asked.
    pub(crate) bridge: Option<usize>,
    pub(crate) to_bridge: VecDeque<ClusterRequest>,
    /// Since when it has read without a break what comes over its link; 0 is ever since.
    pub(crate) reads_since_us: Option<u64>,
    pub(crate) now_us: u64,
    /// How far somebody has set the wall clock forward.
    pub(crate) wall_ahead_s: u64,
}

impl World {
    /// A node of `shards` with everything at its defaults.
    pub(crate) fn new(seed: u64, shards: usize) -> World {
        World::with_config(seed, shards, |_| {})
    }

    /// As [`World::new`], with some settings changed.
    pub(crate) fn with_config(seed: u64, shards: usize, change: impl FnOnce(&mut ShardConfig)) -> World {
        let mut config = ShardConfig {
            connections_max: 10_000,
            sockets_max: 20_000,
            connections_per_user_max: 5,
            subscriptions_max: 50,
            ..ShardConfig::plain("world", Verifier::hs256(SECRET).expect("the secret is not empty"))
        };
        change(&mut config);
        let config = Arc::new(config);
        let metrics = Arc::new(NodeMetrics::new(shards, ROUTE_LABELS.len()));
        let mut rng = fastrand::Rng::with_seed(seed);
        let (templates, counts) = (SharedTemplates::default(), SharedCounts::default());
        let host = Arc::new(NoPages::default());
        World {
            seed,
            shards: (0..shards)
                .map(|id| {
                    let (config, metrics, host) = (Arc::clone(&config), Arc::clone(&metrics), Arc::clone(&host));
                    Shard::new(ShardId(id as u8), shards, config, metrics, host, rng.u64(..))
                })
                .collect(),
            metrics,
            clients: Vec::new(),
            users: Vec::new(),
            stores: (0..shards).map(|_| SimStore::of(&templates, &counts)).collect(),
            seen: BTreeMap::new(),
            lanes: (0..shards).map(|_| (0..shards).map(|_| VecDeque::new()).collect()).collect(),
            sockets: HashMap::new(),
            dirty: (0..shards).map(|_| VecDeque::new()).collect(),
            checks: false,
            cuts: true,
            watches: false,
            // Every other seed, whatever else it draws.
            encrypts: seed.count_ones() % 2 == 1,
            bridge: config.cluster.map(|rules| rules.bridge.index()),
            to_bridge: VecDeque::new(),
            reads_since_us: Some(0),
            now_us: 1_000_000,
            wall_ahead_s: 0,
            rng,
        }
    }

    /// The next process of a node that has ended, on the same stores.
    pub(crate) fn after(mut self, change: impl FnOnce(&mut ShardConfig)) -> World {
        let mut next = World::with_config(self.seed, self.shards.len(), change);
        let unix_ns = self.now().unix_ns;
        self.stores.iter_mut().for_each(|store| store.hang_up(&mut self.rng, unix_ns));
        (next.now_us, next.stores) = (self.now_us + 1_000_000, self.stores);
        next
    }

    /// Tells every shard to stop.
    pub(crate) fn stop(&mut self) {
        for shard in 0..self.shards.len() {
            self.call(shard, |shard, now, effects| shard.stop(now, effects));
        }
    }

    /// Whether the rim would end the process now.
    pub(crate) fn has_stopped(&self) -> bool {
        self.shards.iter().all(Shard::stopped) && self.lanes.iter().flatten().all(VecDeque::is_empty)
    }

    /// A store's server ends and begins anew.
    pub(crate) fn restart_store(&mut self, at: usize, forgets: bool) {
        let unix_ns = self.now().unix_ns;
        let World { stores, rng, .. } = self;
        stores[at].restart(rng, unix_ns, forgets);
    }

    pub(crate) fn now(&self) -> Now {
        let unix_ns = WALL_START_NS + self.now_us * 1_000 + self.wall_ahead_s * 1_000_000_000;
        Now { mono_us: self.now_us, unix_ns }
    }

    /// Lets time pass; timers fire.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(25) {
            self.now_us += 25_000;
            for shard in 0..self.shards.len() {
                self.call(shard, |shard, now, effects| shard.tick(now, effects));
            }
            self.come_to_rest();
        }
        self.shards.iter().for_each(Shard::check);
    }

    /// Lets time pass while everything is under way.
    pub(crate) fn pass_ms_unsettled(&mut self, ms: u64) {
        self.now_us += ms * 1_000;
        for shard in 0..self.shards.len() {
            self.call(shard, |shard, now, effects| shard.tick(now, effects));
        }
    }

    /// Runs until nothing moves any more, in an order drawn from the seed.
    pub(crate) fn settle(&mut self) {
        self.come_to_rest();
        self.shards.iter().for_each(Shard::check);
    }

    fn come_to_rest(&mut self) {
        for round in 0.. {
            assert!(round < 1_000_000, "seed {}: the world does not come to rest", self.seed);
            if !self.step() {
                break;
            }
        }
    }

    /// So many rounds, or until nothing moves.
    pub(crate) fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            if !self.step() {
                return;
            }
        }
    }

    /// The tables of all shards agree with the clients that are still there.
    pub(crate) fn check_at_rest(&self) {
        let open = self.clients.iter().filter(|client| client.place.is_some()).count() as u64;
        let sockets = self.metrics.sockets.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(sockets, open, "seed {}: sockets counted and sockets there", self.seed);
        let admitted = self.metrics.admitted.load(std::sync::atomic::Ordering::Relaxed);
        let live = self.metrics.sum(|shard| shard.connections_ws.get() + shard.connections_sse.get());
        assert_eq!(admitted, live, "seed {}: admitted and registered", self.seed);
        self.shards.iter().for_each(Shard::check);
        if open == 0 {
            let left = |of: fn(&ShardMetrics) -> u64| self.metrics.sum(of);
            let figures: [fn(&ShardMetrics) -> u64; 4] =
                [|m| m.users.get(), |m| m.channels.get(), |m| m.subscriptions.get(), |m| m.outbox_bytes.get()];
            assert_eq!(figures.map(left), [0; 4], "seed {}: figures after everybody left", self.seed);
        }
    }
}
