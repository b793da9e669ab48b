//! Settings to stores: which server keeps what, over how many links, and with what figures.
use super::desk::{self, Keeps};
use super::memory::Memory;
use super::place::RedisPlace;
use crate::config::Settings;
use crate::config::settings::Backend;
use crate::host::stores::StoreView;
use protocol::limits::RATE_LIMIT_REDIS_TIMEOUT_MS;
use protocol::rate_limit::identity::key_name;
use shards::key::ShardId;
use shards::metrics::NodeMetrics;
use shards::reactor::MakeStore;
use std::fmt;
use std::sync::Arc;
use storage::backend::{Backend as Store, Chores};
use storage::backoff::BackoffConfig;
use storage::breaker::BreakerConfig;
use storage::figures::StoreFigures;
use storage::link::tls::TlsError;
use storage::memory::mailboxes::MailboxLimits;
use storage::postgres::link::LinkConfig;
use storage::postgres::pool::POOL_LINKS_MAX;
use storage::postgres::store::{PostgresAcks, PostgresQueue, PostgresStore, PostgresStoreConfig};
use storage::postgres::url::{PostgresUrl, PostgresUrlError};
use storage::redis::commands::link::CommandConfig;
use storage::redis::counter::{RedisCounter, RedisCounterConfig};
use storage::redis::store::partitioned::{self, PartitionedStore};
use storage::redis::store::{RedisAcks, RedisQueue, RedisStore, RedisStoreConfig};

/// From asking a store to its answer. A publisher waits [`protocol::limits::GATHER_DEADLINE_MS`], and must hear of a
/// failure before.
const COMMAND_TIMEOUT_MS: u32 = 1_500;
const _: () = assert!((COMMAND_TIMEOUT_MS as u64) < protocol::limits::GATHER_DEADLINE_MS);
/// How often one shard asks for the figures.
const FIGURES_INTERVAL_MS: u64 = 1_000;
/// The shard that does what is done for all.
const CHORES_SHARD: ShardId = ShardId(0);

/// Why the stores cannot be as configured. A server that is away is no error.
#[derive(Debug)]
pub enum StoreError {
    /// The encryption that `REDIS_URL` asks for cannot be.
    RedisTls(TlsError),
    /// `DATABASE_URL` is no URL.
    DatabaseUrl(PostgresUrlError),
    /// The encryption that `DATABASE_URL` asks for cannot be.
    DatabaseTls(TlsError),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::RedisTls(error) => write!(f, "REDIS_URL: {error}"),
            StoreError::DatabaseUrl(error) => write!(f, "DATABASE_URL: {error}"),
            StoreError::DatabaseTls(error) => write!(f, "DATABASE_URL: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// The stores of a node, made once and opened on every shard.
pub(crate) struct StorePlan {
    limits: MailboxLimits,
    sweep_interval_us: u64,
    chores: Chores,
    kept: Vec<Kept>,
    /// Where nodes count requests together, if they do.
    counter: Option<RedisCounterConfig>,
}

/// One server and what it keeps.
struct Kept {
    keeps: Keeps,
    server: Server,
    /// By shard, and of a shard by partition.
    figures: Vec<Arc<StoreFigures>>,
}

impl Kept {
    fn figures_of(&self, shard: ShardId) -> &[Arc<StoreFigures>] {
        let of_shard = self.server.partitions();
        &self.figures[shard.index() * of_shard..][..of_shard]
    }
}

#[derive(Clone)]
enum Server {
    Redis(Box<RedisStoreConfig>),
    RedisCluster(Box<RedisStoreConfig>),
    Postgres(PostgresStoreConfig),
}

impl StorePlan {
    /// What the settings ask for.
    ///
    /// # Errors
    /// [`StoreError`]; each is the operator's to put right.
    pub(crate) fn new(settings: &Settings, place: &RedisPlace) -> Result<StorePlan, StoreError> {
        let (queue, ack) = (&settings.queue, &settings.ack);
        let mut kept = Vec::new();
        for backend in [Backend::Redis, Backend::Postgres] {
            // Templates live where mail would, whether mail is kept or not.
            let keeps =
                Keeps { mail: queue.backend == backend, acks: ack.enabled && ack.backend == backend, counts: false };
            if !keeps.mail && !keeps.acks {
                continue;
            }
            let server = match backend {
                Backend::Memory => continue,
                Backend::Redis if place.is_cluster() => Server::RedisCluster(Box::new(redis(settings, place, keeps)?)),
                Backend::Redis => Server::Redis(Box::new(redis(settings, place, keeps)?)),
                Backend::Postgres => Server::Postgres(postgres(settings, keeps)?),
            };
            let figures = 0..settings.shards * server.partitions();
            let figures = figures.map(|_| Arc::new(StoreFigures::new(backend.as_str()))).collect();
            kept.push(Kept { keeps, server, figures });
        }
        Ok(StorePlan {
            limits: MailboxLimits { entries_max: queue.size_per_user_max },
            sweep_interval_us: queue.cleanup_interval_seconds.saturating_mul(1_000_000),
            chores: Chores {
                queue_interval_ms: queue.cleanup_interval_seconds.saturating_mul(1_000),
                ack_interval_ms: ack.cleanup_interval_seconds.saturating_mul(1_000),
                figures_interval_ms: FIGURES_INTERVAL_MS,
            },
            kept,
            counter: counter(settings, place)?,
        })
    }

    /// What pages may tell about them.
    pub(crate) fn views(&self) -> Vec<StoreView> {
        let view = |kept: &Kept| match &kept.server {
            Server::Redis(_) | Server::RedisCluster(_) => StoreView::new(Backend::Redis, 1, kept.figures.clone()),
            Server::Postgres(config) => StoreView::new(Backend::Postgres, config.links, kept.figures.clone()),
        };
        self.kept.iter().map(view).collect()
    }

    /// One shard's door. Its links begin to connect at the shard's first turn.
    pub(crate) fn door(&self, shard: ShardId, metrics: Arc<NodeMetrics>, seed: u64) -> MakeStore {
        let chores = (shard == CHORES_SHARD).then_some(self.chores);
        let (limits, sweep_interval_us) = (self.limits, self.sweep_interval_us);
        let kept = self.kept.iter().zip(1_u64..);
        let kept = kept.map(|(kept, number)| {
            let figures = kept.figures_of(shard).to_vec();
            // Links that come back together must not come back in step.
            (kept.keeps, kept.server.clone(), figures, seed.wrapping_add(number << 32))
        });
        let kept: Vec<_> = kept.collect();
        let counter = self.counter.clone();
        Box::new(move |bell| {
            let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || bell.ring());
            let open = |(keeps, server, figures, seed): (Keeps, Server, Vec<_>, _)| {
                (keeps, server.open(chores, &figures, seed, Arc::clone(&wake)))
            };
            let mut backends: Vec<_> = kept.into_iter().map(open).collect();
            if let Some(config) = counter {
                let counter = RedisCounter::new(config, seed.wrapping_add(3 << 32), Arc::clone(&wake));
                backends.push((Keeps { mail: false, acks: false, counts: true }, Box::new(counter)));
            }
            desk::open(Memory::new(shard, limits, sweep_interval_us, metrics), backends)
        })
    }
}

impl Server {
    /// Stores of one shard, each with figures of its own.
    fn partitions(&self) -> usize {
        match self {
            Server::RedisCluster(config) => partitioned::partitions(config),
            Server::Redis(_) | Server::Postgres(_) => 1,
        }
    }

    /// One shard's share of it.
    fn open(
        self,
        chores: Option<Chores>,
        figures: &[Arc<StoreFigures>],
        seed: u64,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Box<dyn Store> {
        let first = || Arc::clone(&figures[0]);
        match self {
            Server::Redis(config) => {
                Box::new(RedisStore::new(RedisStoreConfig { chores, ..*config }, first(), seed, wake))
            }
            Server::RedisCluster(config) => {
                Box::new(PartitionedStore::new(&RedisStoreConfig { chores, ..*config }, figures, seed, &wake))
            }
            Server::Postgres(config) => {
                Box::new(PostgresStore::new(PostgresStoreConfig { chores, ..config }, first(), seed, wake))
            }
        }
    }
}

fn redis(settings: &Settings, place: &RedisPlace, keeps: Keeps) -> Result<RedisStoreConfig, StoreError> {
    let (queue, ack) = (&settings.queue, &settings.ack);
    let mut link = CommandConfig::new(place.url.clone(), &[]).map_err(StoreError::RedisTls)?;
    link.located = place.located(&queue.redis_prefix);
    (link.breaker, link.backoff) = (breaker(settings), backoff(settings));
    link.timing.command_timeout_ms = u64::from(COMMAND_TIMEOUT_MS);
    Ok(RedisStoreConfig {
        link,
        templates: keeps.mail.then(|| queue.redis_prefix.clone()),
        queue: (keeps.mail && queue.enabled).then(|| RedisQueue {
            prefix: queue.redis_prefix.clone(),
            entries_max: bounded(queue.size_per_user_max as u64),
            ttl_seconds: bounded(queue.message_ttl_seconds),
        }),
        acks: keeps
            .acks
            .then(|| RedisAcks { prefix: ack.redis_prefix.clone(), timeout_seconds: bounded(ack.timeout_seconds) }),
        chores: None,
    })
}

/// Where nodes count requests together: a link of its own for each shard, with a time of its own.
fn counter(settings: &Settings, place: &RedisPlace) -> Result<Option<RedisCounterConfig>, StoreError> {
    let limits = &settings.rate_limit;
    if !limits.enabled || limits.backend != Backend::Redis || !settings.redis.enabled {
        return Ok(None);
    }
    let mut link = CommandConfig::new(place.url.clone(), &[]).map_err(StoreError::RedisTls)?;
    // One link counts: in a Redis Cluster all windows are in one slot.
    let prefix = place.together(&limits.redis_prefix);
    link.located = place.located(&prefix);
    (link.breaker, link.backoff) = (breaker(settings), backoff(settings));
    link.timing.command_timeout_ms = RATE_LIMIT_REDIS_TIMEOUT_MS;
    Ok(Some(RedisCounterConfig {
        link,
        prefix,
        key_name: settings.api_key.as_ref().map_or_else(String::new, |key| key_name(key.expose().as_bytes())),
        outage: Arc::default(),
    }))
}

fn postgres(settings: &Settings, keeps: Keeps) -> Result<PostgresStoreConfig, StoreError> {
    let (queue, ack, database) = (&settings.queue, &settings.ack, &settings.database);
    let url = PostgresUrl::parse(database.url.expose()).map_err(StoreError::DatabaseUrl)?;
    let named_ms = url.connect_timeout_ms;
    let mut link = LinkConfig::new(url, breaker(settings), backoff(settings)).map_err(StoreError::DatabaseTls)?;
    // What the URL says itself goes before the setting.
    link.timing.connect_deadline_ms =
        named_ms.unwrap_or_else(|| database.connect_timeout_seconds.saturating_mul(1_000));
    Ok(PostgresStoreConfig {
        link: Arc::new(link),
        links: postgres_links(database.pool_size, settings.shards),
        command_timeout_ms: COMMAND_TIMEOUT_MS,
        templates: keeps.mail,
        queue: (keeps.mail && queue.enabled)
            .then(|| PostgresQueue { entries_max: bounded(queue.size_per_user_max as u64) }),
        acks: keeps.acks.then(|| PostgresAcks { timeout_seconds: bounded(ack.timeout_seconds) }),
        chores: None,
    })
}

/// Links of one shard: its share of the pool, and one at least.
fn postgres_links(pool_size: usize, shards: usize) -> usize {
    (pool_size / shards).clamp(1, POOL_LINKS_MAX)
}

/// Settings are bounded far below what a `u32` holds.
fn bounded(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// `REDIS_CIRCUIT_BREAKER_*`: for every link to every server.
pub(crate) fn breaker(settings: &Settings) -> BreakerConfig {
    let redis = &settings.redis;
    BreakerConfig {
        failure_threshold: redis.breaker_failure_threshold,
        success_threshold: redis.breaker_success_threshold,
        reset_timeout_ms: redis.breaker_reset_timeout_seconds.saturating_mul(1_000),
    }
}

/// `REDIS_BACKOFF_*`: for every link to every server.
pub(crate) fn backoff(settings: &Settings) -> BackoffConfig {
    let redis = &settings.redis;
    BackoffConfig { initial_ms: redis.backoff_initial_delay_ms, max_ms: redis.backoff_max_delay_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn plan(pairs: &[(&str, &str)]) -> Result<StorePlan, StoreError> {
        let mut sources = Sources::from_environment(pairs.iter().copied());
        sources.environment.insert("JWT_SECRET".to_owned(), "0".repeat(32));
        let settings = Settings::load(&sources).unwrap().settings;
        StorePlan::new(&settings, &RedisPlace::new(&settings, 1).unwrap())
    }

    /// Which servers there are, what they keep, and how many links a shard has there.
    fn kept(pairs: &[(&str, &str)]) -> Vec<(&'static str, bool, bool, usize)> {
        let plan = plan(pairs).unwrap();
        let views = plan.views();
        let all = plan.kept.iter().zip(&views);
        all.map(|(kept, view)| {
            let shards = kept.figures.len();
            (view.backend().as_str(), kept.keeps.mail, kept.keeps.acks, view.links() / shards)
        })
        .collect()
    }

    #[test]
    fn servers_are_used_for_what_the_settings_say() {
        const QUEUE: (&str, &str) = ("QUEUE_ENABLED", "true");
        const ACK: (&str, &str) = ("ACK_ENABLED", "true");
        assert_eq!(kept(&[QUEUE, ACK]), []);
        assert_eq!(kept(&[("QUEUE_BACKEND", "redis")]), [("redis", true, false, 1)], "templates");
        assert_eq!(kept(&[("ACK_BACKEND", "redis")]), [], "they are off");
        let both = [QUEUE, ACK, ("QUEUE_BACKEND", "postgres"), ("ACK_BACKEND", "postgres"), ("SHARDS", "3")];
        assert_eq!(kept(&both), [("postgres", true, true, 3)]);
        let apart = [QUEUE, ACK, ("QUEUE_BACKEND", "postgres"), ("ACK_BACKEND", "redis"), ("SHARDS", "20")];
        assert_eq!(kept(&apart), [("redis", false, true, 1), ("postgres", true, false, 1)]);
    }

    #[test]
    fn requests_are_counted_together_when_that_is_asked_for() {
        const LIMIT: (&str, &str) = ("RATELIMIT_ENABLED", "true");
        let counter = |pairs: &[(&str, &str)]| plan(pairs).unwrap().counter;
        assert!(counter(&[LIMIT]).is_none());
        assert!(counter(&[("RATELIMIT_BACKEND", "redis")]).is_none(), "they are off");
        let key = "0123456789abcdef";
        let pairs = [LIMIT, ("RATELIMIT_BACKEND", "redis"), ("RATELIMIT_REDIS_PREFIX", "l"), ("API_KEY", key)];
        let counter = counter(&pairs).unwrap();
        assert_eq!((&*counter.prefix, &*counter.key_name), ("l", &*key_name(key.as_bytes())));
        assert_eq!(counter.link.timing.command_timeout_ms, RATE_LIMIT_REDIS_TIMEOUT_MS);
        assert_eq!(kept(&pairs), [], "that is no store that pages tell of");
    }

    #[test]
    fn a_redis_cluster_has_a_link_for_each_partition() {
        const CLUSTER: (&str, &str) = ("REDIS_URL", "redis-cluster://127.0.0.1:1");
        const REDIS: (&str, &str) = ("QUEUE_BACKEND", "redis");
        let all = [CLUSTER, REDIS, ("QUEUE_ENABLED", "true"), ("SHARDS", "3")];
        let plan = plan(&all).unwrap();
        assert_eq!((plan.kept[0].figures.len(), plan.views()[0].links()), (48, 48));
        assert_eq!(plan.kept[0].figures_of(ShardId(2)).len(), 16);
        assert_eq!(kept(&[CLUSTER, REDIS, ("SHARDS", "2")]), [("redis", true, false, 1)], "templates are in one place");
    }

    #[test]
    fn settings_reach_the_stores() {
        let settings = [
            ("QUEUE_ENABLED", "true"),
            ("QUEUE_BACKEND", "redis"),
            ("QUEUE_MAX_SIZE_PER_USER", "7"),
            ("QUEUE_MESSAGE_TTL_SECONDS", "8"),
            ("QUEUE_REDIS_PREFIX", "q"),
            ("QUEUE_CLEANUP_INTERVAL_SECONDS", "9"),
            ("ACK_ENABLED", "true"),
            ("ACK_BACKEND", "postgres"),
            ("ACK_TIMEOUT_SECONDS", "10"),
            ("REDIS_CIRCUIT_BREAKER_FAILURE_THRESHOLD", "11"),
            ("REDIS_BACKOFF_MAX_DELAY_MS", "1200"),
            ("DATABASE_CONNECT_TIMEOUT_SECONDS", "13"),
        ];
        let plan = plan(&settings).unwrap();
        let [Kept { server: Server::Redis(redis), .. }, Kept { server: Server::Postgres(postgres), .. }] =
            &plan.kept[..]
        else {
            panic!("two servers")
        };
        let queue = redis.queue.as_ref().unwrap();
        assert_eq!((&*queue.prefix, queue.entries_max, queue.ttl_seconds), ("q", 7, 8));
        assert_eq!((redis.templates.as_deref(), redis.acks.is_none()), (Some("q"), true));
        assert_eq!((redis.link.breaker.failure_threshold, redis.link.backoff.max_ms), (11, 1_200));
        assert_eq!((postgres.templates, postgres.queue.is_none()), (false, true));
        assert_eq!(postgres.acks.as_ref().unwrap().timeout_seconds, 10);
        assert_eq!((postgres.link.breaker.failure_threshold, postgres.link.timing.connect_deadline_ms), (11, 13_000));
        assert_eq!((plan.chores.queue_interval_ms, plan.chores.ack_interval_ms), (9_000, 60_000));
    }

    #[test]
    fn the_url_has_the_last_word_on_its_connect_timeout() {
        let url = ("DATABASE_URL", "postgres://db/x?connect_timeout=3&sslmode=disable");
        let plan = plan(&[("QUEUE_BACKEND", "postgres"), url]).unwrap();
        let Server::Postgres(postgres) = &plan.kept[0].server else { panic!("PostgreSQL") };
        assert_eq!(postgres.link.timing.connect_deadline_ms, 3_000);
    }

    #[test]
    fn certificates_that_cannot_be_read_stop_the_start() {
        let url = ("DATABASE_URL", "postgres://u:hunter2@db/x?sslmode=verify-full&sslrootcert=/nowhere.pem");
        let error = plan(&[("QUEUE_BACKEND", "postgres"), url]).err().unwrap().to_string();
        assert!(error.starts_with("DATABASE_URL: ") && !error.contains("hunter2"), "{error}");
    }
}
