//! From settings to a running node: listeners, mesh, links, one thread per shard; and back.
use crate::bridge::canary::Sender;
use crate::bridge::plan::BridgePlan;
use crate::bridge::reading::Reading;
use crate::bridge::{BridgeError, Flow};
use crate::config::Settings;
use crate::config::features::Feature;
use crate::config::settings::{Backend, JwtAlgorithm, TlsSettings};
use crate::host::{NodeHost, NodeView, RedisOperation, RedisSnapshot, RedisState, RedisView};
use crate::ingress::Ingress;
use crate::keeper::place::{PlaceError, RedisPlace};
use crate::keeper::plan::{self, StoreError, StorePlan};
use crate::random;
use crate::signals;
use crate::tls::{self, TlsFault};
use protocol::auth::token::{Algorithm, KeyError, Verifier, VerifierConfig};
use protocol::http::client_address::TrustedProxies;
use protocol::http::cors::Cors;
use protocol::http::route::ROUTE_LABELS;
use protocol::ids::DEFAULT_TENANT;
use protocol::rate_limit::Rate;
use rustls::pki_types::UnixTime;
use shards::config::{AckRules, ClusterRules, QueueRules, RateLimitRules, ShardConfig};
use shards::key::ShardId;
use shards::mesh::Mesh;
use shards::metrics::NodeMetrics;
use shards::reactor::{
    self, DriverKind, ListenerFd, MakeGuest, ReactorError, ShardSeat, StopSignal, TlsSource, clock, nofile,
};
use shards::shard::Shard;
use shards::tables::placement;
use shards::tenant_limits::{TenantLimits, TenantRules};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use storage::redis::commands::link::CommandConfig;
use storage::redis::feed::{Feed, FeedConfig, FeedError, FeedTiming};
use storage::redis::status::{FeedStatus, LinkState};

/// What a caller wants of a run beside its settings.
#[derive(Default)]
pub struct ServeOptions {
    /// Called once, when every shard listens and the first request would be answered.
    pub on_ready: Option<Box<dyn FnOnce(SocketAddr) + Send>>,
    /// It belongs to a terminal: SIGHUP ends it, and reads nothing again.
    pub ends_with_terminal: bool,
}

impl fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeOptions").field("on_ready", &self.on_ready.is_some()).finish()
    }
}

/// Why a node does not run.
#[derive(Debug)]
pub enum ServeError {
    /// It cannot listen; the operator's to change `SERVER_HOST` or `SERVER_PORT`.
    Listen {
        /// As configured.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// The key that tokens are checked with; the operator's to change.
    Key(KeyError),
    /// `REDIS_URL` says nothing that can be; the operator's to change.
    RedisUrl(PlaceError),
    /// The subscription cannot be made as configured.
    Feed(FeedError),
    /// What is to be kept cannot be kept as configured.
    Store(StoreError),
    /// The bridge to other nodes cannot be made as configured.
    Bridge(BridgeError),
    /// Clients cannot be served with the certificate and key that are configured.
    Tls(TlsFault),
    /// The system refused something every node needs.
    System {
        /// What was being made.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// A shard could not begin.
    Shard(ReactorError),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Listen { address, error } => {
                write!(f, "cannot listen on {address}: {error} (SERVER_HOST and SERVER_PORT choose another)")
            }
            ServeError::Key(error) => write!(f, "tokens cannot be checked: {error}"),
            ServeError::RedisUrl(error) => write!(f, "REDIS_URL: {error}"),
            ServeError::Feed(error) => error.fmt(f),
            ServeError::Store(error) => error.fmt(f),
            ServeError::Bridge(error) => error.fmt(f),
            ServeError::Tls(fault) => fault.fmt(f),
            ServeError::System { what, error } => write!(f, "cannot make {what}: {error}"),
            ServeError::Shard(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServeError {}

/// Runs a node until it is told to stop (SIGTERM, SIGINT) and everybody has been told.
///
/// # Errors
/// It could not start.
pub fn serve(settings: Settings, options: ServeOptions) -> Result<(), ServeError> {
    clock::now();
    let limit = nofile::raise();
    let address = resolve(&settings.server.host, settings.server.port)?;
    let shards = settings.shards;
    let config = Arc::new(shard_config(&settings, limit.sockets_max())?);
    let metrics = Arc::new(NodeMetrics::new(shards, ROUTE_LABELS.len()));
    let seed =
        u64::from_ne_bytes(random::bytes::<8>().map_err(|error| ServeError::System { what: "randomness", error })?);
    let tls = tls_source(&settings).map_err(ServeError::Tls)?;
    let place = RedisPlace::new(&settings, seed).map_err(ServeError::RedisUrl)?;
    let (feed, redis) = redis_link(&settings, &place, &config.server_id)?;
    let reading =
        feed.as_ref().map_or_else(|| Arc::new(Reading::new(Arc::default(), false)), |feed| Arc::clone(&feed.reading));
    let bridge_plan = Feature::Cluster
        .is_on(&settings)
        .then(|| BridgePlan::new(&settings, &place, Arc::clone(&config), Arc::clone(&metrics), reading))
        .transpose()
        .map_err(ServeError::Bridge)?;
    let stores = StorePlan::new(&settings, &place).map_err(ServeError::Store)?;
    let kept = settings.kept();
    let view = NodeView {
        settings: Arc::new(settings),
        server_id: config.server_id.clone(),
        metrics: Arc::clone(&metrics),
        redis,
        stores: stores.views(),
        ingest: feed.as_ref().map(|feed| Arc::clone(&feed.flow)),
        bridge: bridge_plan.as_ref().map(BridgePlan::figures),
    };
    let host = Arc::new(NodeHost::new(view, &ROUTE_LABELS));

    let listen = |error| ServeError::Listen { address: address.to_string(), error };
    let first = ListenerFd::bind(address).map_err(listen)?;
    // With port 0 the first listener decides for all of them.
    let address = first.local_address().map_err(listen)?;
    let mut listeners = vec![first];
    for _ in 1..shards {
        listeners.push(ListenerFd::bind(address).map_err(listen)?);
    }
    let ports = Mesh::new(shards, &metrics).map_err(|error| ServeError::System { what: "the mesh", error })?;
    let stop = Arc::new(StopSignal::new(ports.iter().map(|port| port.bell()).collect()));
    let reload = (!options.ends_with_terminal).then(|| reload(tls.clone()));
    signals::watch(Arc::clone(&stop), reload)
        .map_err(|error| ServeError::System { what: "the signal watch", error })?;
    let cpus = cpus(shards);
    let bridge = bridge_shard(shards);
    tracing::info!(
        %address,
        shards,
        server_id = &*config.server_id,
        nofile_soft = limit.soft,
        nofile_hard = limit.hard,
        connections_max = config.connections_max,
        sockets_max = config.sockets_max,
        tls = tls.is_some(),
        kept,
        "starting"
    );

    let (ready, is_ready) = crossbeam_channel::bounded(shards);
    let (mut feed, mut bridge_plan) = (feed, bridge_plan);
    let mut threads = Vec::with_capacity(shards);
    for (index, (listener, mesh)) in listeners.into_iter().zip(ports).enumerate() {
        let id = ShardId(index as u8);
        let guests = if id == bridge { feed.take().map(|feed| guests(feed, seed)).unwrap_or_default() } else { vec![] };
        let ready = ready.clone();
        let seed = seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let seat = ShardSeat {
            id,
            cpu: cpus.as_ref().map(|cpus| cpus[index]),
            listener,
            tls: tls.as_ref().map(|(source, _)| Arc::clone(source)),
            mesh,
            guests,
            store: stores.door(id, Arc::clone(&metrics), seed),
            cluster: bridge_plan.take_if(|_| id == bridge).map(|plan| plan.make(seed.rotate_left(32))),
            stop: Arc::clone(&stop),
            metrics: Arc::clone(&metrics),
            ready: Box::new(move |driver| _ = ready.send(driver)),
        };
        let (config, metrics, host) = (Arc::clone(&config), Arc::clone(&metrics), Arc::clone(&host));
        let make = move || Shard::new(id, shards, config, metrics, host, seed);
        let run = move || reactor::run(seat, make);
        let thread = thread::Builder::new().name(format!("shard-{index}")).spawn(run);
        threads.push(thread.map_err(|error| ServeError::System { what: "a shard's thread", error })?);
    }
    drop(ready);
    // A shard that cannot begin drops its end without a word.
    match (0..shards).map(|_| is_ready.recv()).collect::<Result<Vec<DriverKind>, _>>() {
        Ok(drivers) => {
            tracing::info!(driver = drivers[0].as_str(), "every shard listens");
            if let Some(on_ready) = options.on_ready {
                on_ready(address);
            }
        }
        Err(_) => stop.raise(),
    }
    let mut failed = None;
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed = Some(error),
            Err(_) => std::process::abort(),
        }
    }
    tracing::info!("stopped");
    failed.map_or(Ok(()), |error| Err(ServeError::Shard(error)))
}

/// The address to listen on: the first that the host has.
///
/// # Errors
/// The host has none.
pub(crate) fn resolve(host: &str, port: u16) -> Result<SocketAddr, ServeError> {
    let listen = |error| ServeError::Listen { address: format!("{host}:{port}"), error };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let mut found = (bare, port).to_socket_addrs().map_err(listen)?;
    found.next().ok_or_else(|| listen(io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

fn shard_config(settings: &Settings, sockets_max: usize) -> Result<ShardConfig, ServeError> {
    let jwt = &settings.jwt;
    let algorithm = match jwt.algorithm {
        JwtAlgorithm::Hs256 => Algorithm::Hs256,
        JwtAlgorithm::Hs384 => Algorithm::Hs384,
        JwtAlgorithm::Hs512 => Algorithm::Hs512,
        JwtAlgorithm::Rs256 => Algorithm::Rs256,
        JwtAlgorithm::Es256 => Algorithm::Es256,
    };
    let verifier = Verifier::new(&VerifierConfig {
        algorithm,
        secret: jwt.secret.as_ref().map(|secret| secret.expose().as_bytes()),
        public_key_pem: jwt.public_key_pem.as_deref(),
        issuer: jwt.issuer.as_deref(),
        audience: jwt.audience.as_deref(),
    })
    .map_err(ServeError::Key)?;
    let production = settings.run_mode.production;
    let cors = match (&*settings.server.cors_origins, production) {
        ([], true) => Cors::none(),
        ([], false) => Cors::any(),
        (origins, _) => Cors::listed(origins.to_vec()),
    };
    let server_id = match &settings.cluster.server_id {
        Some(id) => id.clone(),
        None => random::server_id().map_err(|error| ServeError::System { what: "randomness", error })?,
    };
    let websocket = &settings.websocket;
    let connections_max = match websocket.connections_max {
        0 => sockets_max,
        wanted if wanted > sockets_max => {
            tracing::warn!(
                wanted,
                possible = sockets_max,
                "WEBSOCKET_MAX_CONNECTIONS is more than the file-descriptor limit allows; raise LimitNOFILE or ulimit -n"
            );
            sockets_max
        }
        wanted => wanted,
    };
    Ok(ShardConfig {
        server_id: server_id.into(),
        production,
        api_key: settings.api_key.as_ref().map(|key| key.expose().as_bytes().into()),
        verifier,
        cors,
        tenancy: settings.tenant.enabled,
        tenant_rules: Feature::TenantLimits.is_on(settings).then(|| tenant_rules(settings)),
        heartbeat_interval_ms: websocket.heartbeat_interval_seconds.saturating_mul(1_000),
        connection_timeout_ms: websocket.connection_timeout_seconds.saturating_mul(1_000),
        connections_max,
        sockets_max,
        outbox_bytes_max: (settings.server.outbox_memory_mb * 1_048_576 / settings.shards)
            .max(protocol::limits::SHARD_OUTBOX_BYTES_MIN),
        connections_per_user_max: websocket.connections_per_user_max,
        subscriptions_max: websocket.subscriptions_max,
        templates_kept: settings.queue.backend != Backend::Memory,
        queue: Feature::Queue
            .is_on(settings)
            .then(|| QueueRules { ttl_ms: settings.queue.message_ttl_seconds.saturating_mul(1_000) }),
        ack: Feature::Ack.is_on(settings).then(|| AckRules {
            timeout_ms: settings.ack.timeout_seconds.saturating_mul(1_000),
            is_recorded: settings.ack.backend != Backend::Memory,
        }),
        cluster: Feature::Cluster.is_on(settings).then(|| ClusterRules {
            bridge: bridge_shard(settings.shards),
            shares_mail: settings.queue.backend != Backend::Memory,
        }),
        trusted_proxies: TrustedProxies::new(&settings.server.trusted_proxies),
        rate_limits: Feature::RateLimit.is_on(settings).then(|| rate_limits(settings)),
    })
}

fn rate_limits(settings: &Settings) -> RateLimitRules {
    let limits = &settings.rate_limit;
    let messages = limits.ws_messages_per_second;
    RateLimitRules {
        requests: Rate::per_second(limits.http_requests_per_second, limits.http_burst_size),
        connects: Rate::per_minute(limits.ws_connections_per_minute),
        messages: (messages > 0).then(|| Rate::per_second(messages, messages)),
        sweep_interval_ms: limits.cleanup_interval_seconds.saturating_mul(1_000),
        is_shared: limits.backend == Backend::Redis && settings.redis.enabled,
    }
}

fn tenant_rules(settings: &Settings) -> TenantRules {
    let limits = |given: &crate::config::settings::TenantLimits| TenantLimits {
        connections_max: given.connections_max,
        connections_per_user_max: given.connections_per_user_max,
        subscriptions_max: given.subscriptions_max,
    };
    let tenant = &settings.tenant;
    TenantRules {
        default_limits: limits(&tenant.default_limits),
        overrides: tenant.overrides.iter().map(|(name, given)| (name.as_str().into(), limits(given))).collect(),
    }
}

/// What clients are encrypted with, and where that is read again.
type Tls = Option<(Arc<TlsSource>, TlsSettings)>;

fn tls_source(settings: &Settings) -> Result<Tls, TlsFault> {
    let Some(files) = &settings.server.tls else { return Ok(None) };
    let config = tls::server_config(files, UnixTime::now())?;
    Ok(Some((Arc::new(TlsSource::new(Arc::new(config))), files.clone())))
}

/// What SIGHUP does.
fn reload(tls: Tls) -> Box<dyn Fn() + Send> {
    Box::new(move || match &tls {
        Some((source, files)) => tls::reload(files, source),
        None => tracing::info!("SIGHUP: there is nothing to read again, TLS_CERT is not set"),
    })
}

/// The shard with the links to Redis: where the default tenant's line is, so that most of what comes in is there already.
fn bridge_shard(shards: usize) -> ShardId {
    placement::line(DEFAULT_TENANT, shards)
}

/// The subscription's configuration and status; made into a feed on its shard.
struct Subscription {
    config: FeedConfig,
    /// The link over which canaries go out.
    canaries: CommandConfig,
    server_id: Box<str>,
    flow: Arc<Flow>,
    reading: Arc<Reading>,
    invalid: Arc<AtomicU64>,
    tenancy: bool,
}

fn redis_link(
    settings: &Settings,
    place: &RedisPlace,
    server_id: &str,
) -> Result<(Option<Subscription>, RedisView), ServeError> {
    let redis = &settings.redis;
    if !redis.enabled {
        return Ok((None, Arc::new(RedisSnapshot::default)));
    }
    let config = FeedConfig {
        url: place.url.clone(),
        purpose: "publishes",
        channels: redis.channels.clone(),
        breaker: plan::breaker(settings),
        backoff: plan::backoff(settings),
        timing: FeedTiming::default(),
        located: place.anywhere(redis.channels.first().map_or("", String::as_str)),
        sharded: false,
    };
    let status = Arc::new(FeedStatus::new());
    // What a feed would refuse is refused here, before anything runs.
    Feed::new(config.clone(), Arc::clone(&status), 0, Box::new(|| {})).map_err(ServeError::Feed)?;
    let tls = |error| ServeError::Feed(FeedError::Tls(error));
    let mut canaries = CommandConfig::new(config.url.clone(), &[]).map_err(tls)?;
    canaries.located = config.located.clone();
    (canaries.breaker, canaries.backoff) = (plan::breaker(settings), plan::backoff(settings));
    let (invalid, flow) = (Arc::new(AtomicU64::new(0)), Arc::new(Flow::default()));
    let view = {
        let (status, invalid, flow) = (Arc::clone(&status), Arc::clone(&invalid), Arc::clone(&flow));
        Arc::new(move || snapshot(&status, invalid.load(Relaxed), flow.heard()))
    };
    let (server_id, tenancy) = (server_id.into(), settings.tenant.enabled);
    let is_one_of_many =
        Feature::Cluster.is_on(settings) && Feature::Queue.is_on(settings) && settings.queue.backend != Backend::Memory;
    let reading = Arc::new(Reading::new(status, is_one_of_many));
    Ok((Some(Subscription { config, canaries, server_id, flow, reading, invalid, tenancy }), view))
}

/// Canaries are no messages.
fn snapshot(status: &FeedStatus, invalid: u64, canaries: u64) -> RedisSnapshot {
    let link = status.snapshot();
    let messages = link.messages.saturating_sub(canaries);
    let operation = |operation, result, count| RedisOperation { operation, result, count };
    RedisSnapshot {
        state: match link.link {
            LinkState::Healthy => RedisState::Healthy,
            LinkState::Reconnecting => RedisState::Reconnecting,
            LinkState::CircuitOpen => RedisState::CircuitOpen,
        },
        breaker: link.breaker,
        failures: u64::from(link.failures),
        attempts: link.attempts,
        total_reconnections: link.reconnections,
        messages_received: messages,
        messages_invalid: invalid,
        operations: vec![
            operation("subscribe", "ok", link.reconnections),
            operation("subscribe", "error", link.ends),
            operation("message", "ok", messages.saturating_sub(invalid)),
            operation("message", "error", invalid),
        ],
    }
}

/// The subscription, and who sends the canaries that it is to hear.
fn guests(subscription: Subscription, seed: u64) -> Vec<MakeGuest> {
    let Subscription { config, canaries, server_id, flow, reading, invalid, tenancy } = subscription;
    let sender: MakeGuest = {
        let (server_id, flow) = (server_id.clone(), Arc::clone(&flow));
        Box::new(move |bell| {
            Box::new(Sender::new(canaries, &server_id, flow, seed.wrapping_add(1), Arc::new(move || bell.ring())))
        })
    };
    let ingress: MakeGuest = Box::new(move |bell| {
        match Feed::new(config, Arc::clone(reading.status()), seed, Box::new(move || bell.ring())) {
            Ok(feed) => Box::new(Ingress::new(feed, reading, &server_id, flow, tenancy, invalid)),
            Err(error) => unreachable!("the same settings made a feed before: {error}"),
        }
    });
    vec![ingress, sender]
}

/// One core per shard, from those this process may run on; none when there are more shards than cores.
fn cpus(shards: usize) -> Option<Vec<usize>> {
    let allowed = rustix::thread::sched_getaffinity(None).ok()?;
    let cpus: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).take(shards).collect();
    if cpus.len() < shards {
        tracing::warn!(shards, cores = cpus.len(), "more shards than cores: they are not pinned");
        return None;
    }
    Some(cpus)
}
