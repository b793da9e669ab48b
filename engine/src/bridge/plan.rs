//! Settings to a bridge: its links, its keys in Redis, its figures.
use super::desk::keys::Keys;
use super::desk::links::Links;
use super::desk::partitions::Partitions;
use super::desk::{self, Bridge};
use super::figures::BridgeFigures;
use super::reading::Reading;
use crate::config::Settings;
use crate::keeper::place::RedisPlace;
use crate::keeper::plan as links;
use protocol::cluster::Topic;
use protocol::limits;
use shards::config::ShardConfig;
use shards::mesh::Bell;
use shards::metrics::NodeMetrics;
use shards::reactor::{MakeCluster, clock};
use std::fmt;
use std::sync::Arc;
use storage::link::tls::TlsError;
use storage::redis::admissions;
use storage::redis::commands::link::{CommandConfig, CommandLink};
use storage::redis::commands::script::Script;
use storage::redis::feed::{FeedConfig, FeedError, FeedTiming};
use storage::redis::partitions::PARTITIONS;
use storage::redis::router::{PartitionedRouter, PartitionedRouterConfig, Router};
use storage::redis::sessions;

/// What the link for commands has to know from its start.
static SCRIPTS: [&Script; 5] = {
    let ([join, leave, sweep], [ask, hold]) = (sessions::SCRIPTS, admissions::SCRIPTS);
    [join, leave, sweep, ask, hold]
};

/// From a command to its answer. A publisher waits [`limits::GATHER_DEADLINE_MS`], and must hear of a failure before.
const COMMAND_TIMEOUT_MS: u64 = 1_500;
const _: () = assert!(COMMAND_TIMEOUT_MS < limits::GATHER_DEADLINE_MS);
/// Silence on the subscription after which a PING is sent; after twice it the link is made anew. Canaries come twice a
/// second, so that silence means something.
const PING_INTERVAL_MS: u64 = 1_000;

/// Why there can be no bridge as configured. A Redis that is away is no error.
#[derive(Debug)]
pub enum BridgeError {
    /// The encryption that `REDIS_URL` asks for cannot be.
    Tls(TlsError),
    /// The subscription cannot be.
    Feed(FeedError),
}

impl fmt::Display for BridgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BridgeError::Tls(error) => write!(f, "REDIS_URL: {error}"),
            BridgeError::Feed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BridgeError {}

/// The bridge of a node, before it is made on its shard.
pub(crate) struct BridgePlan {
    server_id: Box<str>,
    links: LinkPlan,
    keys: Keys,
    metrics: Arc<NodeMetrics>,
    figures: Arc<BridgeFigures>,
    reading: Arc<Reading>,
}

/// Its links.
struct LinkPlan {
    route: Box<str>,
    router: FeedConfig,
    commands: CommandConfig,
    partitions: Option<PartitionedRouterConfig>,
}

impl BridgePlan {
    /// What the settings ask for; `reading` is what the node reads of what is published.
    ///
    /// # Errors
    /// [`BridgeError`]; each is the operator's to put right.
    pub(crate) fn new(
        settings: &Settings,
        place: &RedisPlace,
        rules: Arc<ShardConfig>,
        metrics: Arc<NodeMetrics>,
        reading: Arc<Reading>,
    ) -> Result<BridgePlan, BridgeError> {
        let (cluster, server_id) = (&settings.cluster, &*rules.server_id);
        // In a Redis Cluster this is at one master: a PUBLISH counts who listens there, and no more. Users and channels are not.
        let sessions = place.together(&cluster.session_prefix);
        let name = |topic: Topic| {
            let mut name = Vec::new();
            topic.write(&mut name, &cluster.routing_channel);
            String::from_utf8_lossy(&name).into_owned()
        };
        let router = FeedConfig {
            url: place.url.clone(),
            purpose: "cluster",
            channels: vec![name(Topic::Everybody), name(Topic::Node(server_id.into()))],
            breaker: links::breaker(settings),
            backoff: links::backoff(settings),
            timing: FeedTiming { ping_interval_ms: PING_INTERVAL_MS, ..FeedTiming::default() },
            located: place.located(&sessions),
            sharded: false,
        };
        let mut commands = CommandConfig::new(place.url.clone(), &SCRIPTS).map_err(BridgeError::Tls)?;
        commands.located = place.located(&sessions);
        (commands.breaker, commands.backoff) = (links::breaker(settings), links::backoff(settings));
        commands.timing.command_timeout_ms = COMMAND_TIMEOUT_MS;
        let partitions = place.is_cluster().then(|| {
            let located = place.located(&cluster.routing_channel);
            let mut commands = commands.clone();
            // It speaks of topics alone.
            commands.scripts.clear();
            commands.located = located.clone();
            let feed = FeedConfig { purpose: "a partition of the cluster", located, sharded: true, ..router.clone() };
            let (route, topics_max) = (cluster.routing_channel.clone(), limits::CLUSTER_TOPICS_MAX);
            PartitionedRouterConfig { feed, commands, route, topics_max }
        });
        let figures = Arc::new(BridgeFigures::new(partitions.as_ref().map_or(0, |_| PARTITIONS)));
        // What a router would refuse is refused here, before anything runs.
        make_router(router.clone(), &figures, 0, Box::new(|| ())).map_err(BridgeError::Feed)?;
        if let Some(config) = &partitions {
            let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(|| ());
            make_partitions(config, server_id, &figures, 0, &wake).map_err(BridgeError::Feed)?;
        }
        Ok(BridgePlan {
            server_id: server_id.into(),
            links: LinkPlan { route: cluster.routing_channel.as_str().into(), router, commands, partitions },
            keys: Keys::new(&sessions, cluster.session_ttl_seconds, Arc::clone(&rules)),
            metrics,
            figures,
            reading,
        })
    }

    /// What pages may tell about it.
    pub(crate) fn figures(&self) -> Arc<BridgeFigures> {
        Arc::clone(&self.figures)
    }

    /// The bridge on its shard. Its links begin to connect at the shard's first turn.
    pub(crate) fn make(self, seed: u64) -> MakeCluster {
        Box::new(move |bell| {
            let BridgePlan { server_id, links, keys, metrics, figures, reading } = self;
            let links = links.make(&server_id, &figures, seed, bell);
            desk::open(Bridge::new(server_id, links, keys, metrics, figures, reading, clock::now()))
        })
    }
}

impl LinkPlan {
    fn make(self, server_id: &str, figures: &BridgeFigures, seed: u64, bell: Bell) -> Links {
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || bell.ring());
        let ring = Arc::clone(&wake);
        let router = match make_router(self.router, figures, seed, Box::new(move || ring())) {
            Ok(router) => router,
            Err(error) => unreachable!("the same settings made a router before: {error}"),
        };
        let partitions = self.partitions.map(|config| {
            match make_partitions(&config, server_id, figures, seed.wrapping_add(2), &wake) {
                Ok(partitions) => partitions,
                Err(error) => unreachable!("the same settings made partitions before: {error}"),
            }
        });
        // Links that come back together must not come back in step.
        let commands = CommandLink::new(self.commands, Arc::clone(&figures.commands), seed.wrapping_add(1), wake);
        Links { route: self.route, router, commands, partitions }
    }
}

/// In each partition nodes listen to all that is said to the partition as a whole, and to their own canaries.
fn make_partitions(
    config: &PartitionedRouterConfig,
    server_id: &str,
    figures: &BridgeFigures,
    seed: u64,
    wake: &Arc<dyn Fn() + Send + Sync>,
) -> Result<Partitions, FeedError> {
    let fixed = [String::new(), format!(":{server_id}")];
    let router = PartitionedRouter::new(config, &fixed, &figures.partitions, seed, wake)?;
    Ok(Partitions::new(router, &config.route))
}

fn make_router(
    config: FeedConfig,
    figures: &BridgeFigures,
    seed: u64,
    wake: Box<dyn Fn() + Send + Sync>,
) -> Result<Router, FeedError> {
    Router::new(config, limits::CLUSTER_TOPICS_MAX, Arc::clone(&figures.router), seed, wake)
}
