//! Where Redis is: one server, the master that sentinels tell of, or the masters of a cluster.
use crate::config::Settings;
use std::fmt;
use storage::redis::partitions;
use storage::redis::topology::finder::FinderConfig;
use storage::redis::topology::node::Node;
use storage::redis::topology::scout::{Located, ScoutError, Whereabouts};
use storage::redis::topology::url::{RedisAddress, RedisAddressError};
use storage::redis::url::RedisUrl;

/// Why Redis cannot be looked for as configured. One that is away is no error.
#[derive(Debug)]
pub enum PlaceError {
    /// `REDIS_URL` is no address.
    Address(RedisAddressError),
    /// Nobody can look.
    Scout(ScoutError),
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlaceError::Address(error) => error.fmt(f),
            PlaceError::Scout(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PlaceError {}

/// Where the links of a node connect to.
#[derive(Debug)]
pub(crate) struct RedisPlace {
    /// The server, or the login of what sentinels or a cluster name, at a place that is replaced by it.
    pub(crate) url: RedisUrl,
    whereabouts: Option<Whereabouts>,
    is_cluster: bool,
}

/// Takes `REDIS_URL` apart.
///
/// # Errors
/// [`PlaceError`]; the operator's to put right.
pub(crate) fn parse(text: &str) -> Result<RedisAddress, PlaceError> {
    RedisAddress::parse(text).map_err(PlaceError::Address)
}

/// What is wrong with a prefix of keys at this `REDIS_URL`, if anything is.
pub(crate) fn prefix_rule(url: &str, prefix: &str) -> Option<&'static str> {
    let is_cluster = matches!(parse(url), Ok(RedisAddress::Cluster(_)));
    (is_cluster && !partitions::is_prefix(prefix))
        .then_some("must have no braces with redis-cluster://, where the service gives its keys hash tags of its own")
}

impl RedisPlace {
    /// What the settings say; with sentinels or a cluster, the search begins.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub(crate) fn new(settings: &Settings, seed: u64) -> Result<RedisPlace, PlaceError> {
        let address = parse(settings.redis.url.expose())?;
        if let RedisAddress::Single(url) = address {
            return Ok(RedisPlace { url, whereabouts: None, is_cluster: false });
        }
        let is_cluster = matches!(address, RedisAddress::Cluster(_));
        // Nobody connects there before the sentinels, or a node of the cluster, have spoken.
        let url = address.url_of(&Node { host: "redis".to_owned(), port: 6379 });
        let whereabouts = Whereabouts::look(FinderConfig::new(address), seed).map_err(PlaceError::Scout)?;
        Ok(RedisPlace { url, whereabouts: Some(whereabouts), is_cluster })
    }

    /// Whether it is a Redis Cluster: a link then speaks of one slot only.
    pub(crate) fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// A prefix as configured, or in a cluster with a hash tag behind it, the same for every prefix: all keys below it,
    /// and below every other that was asked for, are in one slot.
    pub(crate) fn together(&self, prefix: &str) -> String {
        if self.is_cluster { partitions::meeting(prefix) } else { prefix.to_owned() }
    }

    /// For a link that is not about keys: in a cluster any master will do, and at first it is the same for all nodes.
    pub(crate) fn anywhere(&self, channel: &str) -> Option<Located> {
        self.whereabouts.as_ref().map(|whereabouts| Located::anywhere(whereabouts, channel.as_bytes()))
    }

    /// For a link that uses this key, or channel, and in a cluster others of its slot.
    pub(crate) fn located(&self, key: &str) -> Option<Located> {
        self.whereabouts.as_ref().map(|whereabouts| Located::new(whereabouts, key.as_bytes()))
    }
}
