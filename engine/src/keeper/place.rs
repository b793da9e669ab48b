//! Where Redis is: one server, or the master that sentinels tell of.
use crate::config::Settings;
use std::fmt;
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
    /// `redis-cluster://` is known and not served.
    Cluster,
    /// Nobody can look.
    Scout(ScoutError),
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlaceError::Address(error) => error.fmt(f),
            PlaceError::Cluster => {
                f.write_str("this version does not serve redis-cluster://; name one server, or sentinels")
            }
            PlaceError::Scout(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PlaceError {}

/// Where the links of a node connect to.
#[derive(Debug)]
pub(crate) struct RedisPlace {
    /// The server, or with sentinels its login at a place that is replaced by the master.
    pub(crate) url: RedisUrl,
    whereabouts: Option<Whereabouts>,
}

/// Takes `REDIS_URL` apart.
///
/// # Errors
/// [`PlaceError`]; the operator's to put right.
pub(crate) fn parse(text: &str) -> Result<RedisAddress, PlaceError> {
    match RedisAddress::parse(text).map_err(PlaceError::Address)? {
        RedisAddress::Cluster(_) => Err(PlaceError::Cluster),
        address => Ok(address),
    }
}

impl RedisPlace {
    /// What the settings say; with sentinels, the search begins.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub(crate) fn new(settings: &Settings, seed: u64) -> Result<RedisPlace, PlaceError> {
        let address = parse(settings.redis.url.expose())?;
        if let RedisAddress::Single(url) = address {
            return Ok(RedisPlace { url, whereabouts: None });
        }
        // Nobody connects there before the sentinels have spoken.
        let url = address.url_of(&Node { host: "redis".to_owned(), port: 6379 });
        let whereabouts = Whereabouts::look(FinderConfig::new(address), seed).map_err(PlaceError::Scout)?;
        Ok(RedisPlace { url, whereabouts: Some(whereabouts) })
    }

    /// For a link that uses this key, or channel.
    pub(crate) fn located(&self, key: &str) -> Option<Located> {
        self.whereabouts.as_ref().map(|whereabouts| Located::new(whereabouts, key.as_bytes()))
    }
}
