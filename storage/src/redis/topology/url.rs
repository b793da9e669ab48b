//! `REDIS_URL` in all its forms: one server, a master that sentinels watch over, a cluster.
//!
//! ```text
//! redis://[[user][:password]@]host[:port][/db]
//! redis+sentinel://[[user][:password]@]host[:26379],…/master-name[/db][?sentinel_user=…&sentinel_password=…]
//! redis-cluster://[[user][:password]@]host[:6379],…
//! ```
//! and each with `rediss` for `redis`, which encrypts every connection, those to the sentinels as well. User and password
//! are those of Redis; sentinels have their own, and often none.
//!
//! Error texts and [`fmt::Display`] never repeat what may be part of a password, not even of a mistyped one.
use crate::link::address::{self, AddressError};
use crate::redis::topology::node::Node;
use crate::redis::url::{PORT_DEFAULT, RedisUrl, RedisUrlError};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use protocol::limits;
use std::fmt;
use std::path::{Path, PathBuf};

/// The port of a sentinel where none is named.
pub const SENTINEL_PORT_DEFAULT: u16 = 26_379;

/// Who we are at a server.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The ACL user, percent-decoded; absent means the server's `default` user.
    pub user: Option<Vec<u8>>,
    /// The password, percent-decoded; absent means none is sent (with a user: the empty one).
    pub password: Option<Vec<u8>>,
}

impl Login {
    fn parse(credentials: &str) -> Login {
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let decoded = |text: &str| (!text.is_empty()).then(|| percent_decode_str(text).collect());
        Login { user: decoded(user), password: decoded(password) }
    }

    fn is_empty(&self) -> bool {
        self.user.is_none() && self.password.is_none()
    }
}

/// Never the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_deref().unwrap_or_default().escape_ascii();
        let password = if self.password.is_some() { ":***" } else { "" };
        write!(f, "Login({user}{password})")
    }
}

/// A master known by its name to sentinels.
#[derive(Clone, PartialEq, Eq)]
pub struct SentinelUrl {
    /// `rediss+sentinel://`: every connection is to be encrypted.
    pub tls: bool,
    /// 1..=[`limits::REDIS_SEEDS_MAX`], each once.
    pub sentinels: Vec<Node>,
    /// What the sentinels call the master.
    pub master_name: String,
    /// Who we are at the master.
    pub login: Login,
    /// Who we are at the sentinels.
    pub sentinel_login: Login,
    /// The database; 0 needs no SELECT.
    pub database: u32,
    /// `ssl_ca`: who vouches for the servers, if not the authorities of the machine.
    pub ca_file: Option<PathBuf>,
}

/// A Redis Cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterUrl {
    /// `rediss-cluster://`: every connection is to be encrypted.
    pub tls: bool,
    /// 1..=[`limits::REDIS_SEEDS_MAX`], each once. Any of its nodes will do, the others are learned.
    pub nodes: Vec<Node>,
    /// Who we are at every node.
    pub login: Login,
    /// `ssl_ca`, as of [`SentinelUrl`].
    pub ca_file: Option<PathBuf>,
}

/// Where Redis is, or who knows it.
#[derive(Clone, PartialEq, Eq)]
pub enum RedisAddress {
    /// One server, always the same.
    Single(RedisUrl),
    /// The master of the moment.
    Sentinel(SentinelUrl),
    /// Several masters, each with its slots.
    Cluster(ClusterUrl),
}

/// Why a text is no address of Redis. Hosts are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisAddressError {
    /// There is no scheme, or none that is known.
    Scheme,
    /// It is the URL of one server, and wrong.
    Single(RedisUrlError),
    /// It has a `#`.
    Fragment,
    /// A host is empty.
    NoHost {
        /// Which.
        nth: usize,
    },
    /// A host has characters that no host has, or an address in brackets is none.
    BadHost {
        /// Which.
        nth: usize,
    },
    /// A port is no number from 1 to 65535.
    BadPort {
        /// Which host's.
        nth: usize,
    },
    /// A host with the same port was named before.
    DuplicateHost {
        /// Which.
        nth: usize,
    },
    /// More hosts than [`limits::REDIS_SEEDS_MAX`].
    TooManyHosts,
    /// Sentinels must be told which master.
    NoMasterName,
    /// No sentinel knows a master of such a name.
    BadMasterName,
    /// What follows the master's name is no database number.
    BadDatabase,
    /// A cluster has no databases, so nothing may follow its hosts.
    ClusterPath,
    /// A cluster has no options but `ssl_ca`, with `rediss-cluster://`.
    ClusterQuery,
    /// An option that is neither `sentinel_user` nor `sentinel_password`, or has no value.
    BadOption,
    /// An option is given twice.
    DuplicateOption,
}

impl fmt::Display for RedisAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ESCAPES: &str = "in a user or password write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23, % as %25";
        match self {
            Self::Scheme => f.write_str(
                "it must start with redis:// or rediss:// (one server), redis+sentinel:// or rediss+sentinel:// (a \
                 master that sentinels know), or redis-cluster:// or rediss-cluster:// (a cluster)",
            ),
            Self::Single(error) => error.fmt(f),
            Self::Fragment => write!(f, "it must not have a # part; {ESCAPES}"),
            Self::NoHost { nth } => write!(f, "host {nth} is empty; hosts stand as host1:port,host2:port"),
            Self::BadHost { nth } => {
                write!(f, "host {nth} is not valid; an IPv6 address stands in brackets; {ESCAPES}")
            }
            Self::BadPort { nth } => write!(f, "the port of host {nth} is not a number from 1 to 65535; {ESCAPES}"),
            Self::DuplicateHost { nth } => write!(f, "host {nth} was named before with the same port"),
            Self::TooManyHosts => write!(f, "it names more than {} hosts", limits::REDIS_SEEDS_MAX),
            Self::NoMasterName => f.write_str(
                "it must name the master as the sentinels do; the form is \
                 redis+sentinel://[user:password@]host1:26379,host2:26379/master-name[/db]",
            ),
            Self::BadMasterName => write!(
                f,
                "the name of its master is not one that sentinels take: letters, digits, '.', '-' and '_', at most {} \
                 of them",
                limits::REDIS_MASTER_NAME_BYTES_MAX
            ),
            Self::BadDatabase => f.write_str("what follows the name of the master must be / and a database number"),
            Self::ClusterPath => f.write_str("a cluster has no databases: nothing may follow its hosts"),
            Self::ClusterQuery => {
                write!(f, "the only option behind the ? of a cluster is ssl_ca=/file, for rediss-cluster://; {ESCAPES}")
            }
            Self::BadOption => {
                write!(f, "the options after the ? are sentinel_user= and sentinel_password= with a value; {ESCAPES}")
            }
            Self::DuplicateOption => f.write_str("an option after the ? is given twice"),
        }
    }
}

impl std::error::Error for RedisAddressError {}

impl RedisAddress {
    /// Takes a text apart; blanks around it are trimmed.
    ///
    /// # Errors
    /// [`RedisAddressError`], with a text that says how to write it and does not repeat it.
    pub fn parse(text: &str) -> Result<RedisAddress, RedisAddressError> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or(RedisAddressError::Scheme)?;
        let (tls, sentinel) = match scheme.to_ascii_lowercase().as_str() {
            "redis" | "rediss" => {
                return RedisUrl::parse(text).map(RedisAddress::Single).map_err(RedisAddressError::Single);
            }
            "redis+sentinel" => (false, true),
            "rediss+sentinel" => (true, true),
            "redis-cluster" => (false, false),
            "rediss-cluster" => (true, false),
            _ => return Err(RedisAddressError::Scheme),
        };
        if rest.contains('#') {
            return Err(RedisAddressError::Fragment);
        }
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The last `@` divides, so that a password with a raw one still works.
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Login::parse(credentials), hosts),
            None => (Login::default(), authority),
        };
        if sentinel {
            let sentinels = parse_hosts(hosts, SENTINEL_PORT_DEFAULT)?;
            let (master_name, database) = parse_path(path)?;
            let (sentinel_login, ca_file) = parse_options(query.unwrap_or_default(), tls)?;
            let url = SentinelUrl { tls, sentinels, master_name, login, sentinel_login, database, ca_file };
            return Ok(RedisAddress::Sentinel(url));
        }
        let (sentinel_login, ca_file) =
            parse_options(query.unwrap_or_default(), tls).map_err(|_| RedisAddressError::ClusterQuery)?;
        if !sentinel_login.is_empty() {
            return Err(RedisAddressError::ClusterQuery);
        }
        let nodes = parse_hosts(hosts, PORT_DEFAULT)?;
        match path {
            "" => Ok(RedisAddress::Cluster(ClusterUrl { tls, nodes, login, ca_file })),
            _ => Err(RedisAddressError::ClusterPath),
        }
    }

    /// Whether connections are to be encrypted.
    pub fn tls(&self) -> bool {
        match self {
            Self::Single(url) => url.tls,
            Self::Sentinel(url) => url.tls,
            Self::Cluster(url) => url.tls,
        }
    }

    /// Who vouches for the servers, if the address says so.
    pub fn ca_file(&self) -> Option<&Path> {
        match self {
            Self::Single(url) => url.ca_file.as_deref(),
            Self::Sentinel(url) => url.ca_file.as_deref(),
            Self::Cluster(url) => url.ca_file.as_deref(),
        }
    }

    /// What a link needs to connect to a master that was found.
    pub fn url_of(&self, node: &Node) -> RedisUrl {
        let url = |tls, login: &Login, database| RedisUrl {
            tls,
            ca_file: None,
            host: node.host.clone(),
            port: node.port,
            user: login.user.clone(),
            password: login.password.clone(),
            database,
        };
        match self {
            Self::Single(single) => RedisUrl { host: node.host.clone(), port: node.port, ..single.clone() },
            Self::Sentinel(sentinel) => {
                RedisUrl { ca_file: sentinel.ca_file.clone(), ..url(sentinel.tls, &sentinel.login, sentinel.database) }
            }
            Self::Cluster(cluster) => {
                RedisUrl { ca_file: cluster.ca_file.clone(), ..url(cluster.tls, &cluster.login, 0) }
            }
        }
    }
}

fn parse_hosts(hosts: &str, port_default: u16) -> Result<Vec<Node>, RedisAddressError> {
    let mut nodes: Vec<Node> = Vec::new();
    for (nth, text) in (1..).zip(hosts.split(',')) {
        if nth > limits::REDIS_SEEDS_MAX {
            return Err(RedisAddressError::TooManyHosts);
        }
        let (host, port) = address::parse(text, port_default).map_err(|error| match error {
            AddressError::NoHost => RedisAddressError::NoHost { nth },
            AddressError::BadHost => RedisAddressError::BadHost { nth },
            AddressError::BadPort => RedisAddressError::BadPort { nth },
        })?;
        let node = Node { host: host.to_owned(), port };
        if nodes.iter().any(|known| known.is(&node)) {
            return Err(RedisAddressError::DuplicateHost { nth });
        }
        nodes.push(node);
    }
    Ok(nodes)
}

fn parse_path(path: &str) -> Result<(String, u32), RedisAddressError> {
    let (name, database) = path.split_once('/').unwrap_or((path, ""));
    if name.is_empty() {
        return Err(RedisAddressError::NoMasterName);
    }
    let name: Vec<u8> = percent_decode_str(name).collect();
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.len() > limits::REDIS_MASTER_NAME_BYTES_MAX || !name.iter().all(fits) {
        return Err(RedisAddressError::BadMasterName);
    }
    let name = String::from_utf8(name).map_err(|_| RedisAddressError::BadMasterName)?;
    match database {
        "" => Ok((name, 0)),
        digits => Ok((name, address::number(digits).ok_or(RedisAddressError::BadDatabase)?)),
    }
}

fn parse_options(query: &str, tls: bool) -> Result<(Login, Option<PathBuf>), RedisAddressError> {
    let mut login = Login::default();
    let mut ca_file = None;
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').ok_or(RedisAddressError::BadOption)?;
        let place = match name {
            "sentinel_user" => &mut login.user,
            "sentinel_password" => &mut login.password,
            "ssl_ca" if tls => &mut ca_file,
            _ => return Err(RedisAddressError::BadOption),
        };
        if value.is_empty() {
            return Err(RedisAddressError::BadOption);
        }
        if place.replace(percent_decode_str(value).collect()).is_some() {
            return Err(RedisAddressError::DuplicateOption);
        }
    }
    let ca_file = ca_file.map(String::from_utf8).transpose().map_err(|_| RedisAddressError::BadOption)?;
    Ok((login, ca_file.map(PathBuf::from)))
}

fn write_authority(f: &mut fmt::Formatter<'_>, login: &Login, nodes: &[Node]) -> fmt::Result {
    if let Some(user) = &login.user {
        write!(f, "{}", percent_encode(user, NON_ALPHANUMERIC))?;
    }
    if login.password.is_some() {
        f.write_str(":***")?;
    }
    if !login.is_empty() {
        f.write_str("@")?;
    }
    for (at, node) in nodes.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(f, "{comma}{node}")?;
    }
    Ok(())
}

/// As it was written, but with `***` for the passwords.
impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(url) => url.fmt(f),
            Self::Cluster(url) => {
                f.write_str(if url.tls { "rediss-cluster://" } else { "redis-cluster://" })?;
                write_authority(f, &url.login, &url.nodes)
            }
            Self::Sentinel(url) => {
                f.write_str(if url.tls { "rediss+sentinel://" } else { "redis+sentinel://" })?;
                write_authority(f, &url.login, &url.sentinels)?;
                write!(f, "/{}", url.master_name)?;
                if url.database != 0 {
                    write!(f, "/{}", url.database)?;
                }
                let login = &url.sentinel_login;
                if let Some(user) = &login.user {
                    write!(f, "?sentinel_user={}", percent_encode(user, NON_ALPHANUMERIC))?;
                }
                match (&login.user, &login.password) {
                    (_, None) => Ok(()),
                    (None, Some(_)) => f.write_str("?sentinel_password=***"),
                    (Some(_), Some(_)) => f.write_str("&sentinel_password=***"),
                }
            }
        }
    }
}

/// The same as [`fmt::Display`]: a configuration that is printed whole must not print passwords either.
impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisAddress({self})")
    }
}

/// See [`RedisAddress`].
impl fmt::Debug for SentinelUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SentinelUrl({})", RedisAddress::Sentinel(self.clone()))
    }
}

/// See [`RedisAddress`].
impl fmt::Debug for ClusterUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterUrl({})", RedisAddress::Cluster(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_shown_without_passwords() {
        let rows = [
            ("redis://:hunter2@h/3", "redis://:***@h:6379/3"),
            (" redis+sentinel://a/m ", "redis+sentinel://a:26379/m"),
            ("REDISS+SENTINEL://a:1,b:2,[::1]/m/0", "rediss+sentinel://a:1,b:2,[::1]:26379/m"),
            (
                "redis+sentinel://u:hunter2@a,b/my-master.1_x/7",
                "redis+sentinel://u:***@a:26379,b:26379/my-master.1_x/7",
            ),
            ("redis+sentinel://a/m/", "redis+sentinel://a:26379/m"),
            ("redis+sentinel://a/%6dy?", "redis+sentinel://a:26379/my"),
            (
                "redis+sentinel://a/m?sentinel_password=hunter2&sentinel_user=w%40tch",
                "redis+sentinel://a:26379/m?sentinel_user=w%40tch&sentinel_password=***",
            ),
            ("redis+sentinel://a/m/1?sentinel_password=hunter2", "redis+sentinel://a:26379/m/1?sentinel_password=***"),
            ("redis-cluster://a,b:7001", "redis-cluster://a:6379,b:7001"),
            ("rediss-cluster://u:hunt%40er2@[fe80::1]:7000,a/", "rediss-cluster://u:***@[fe80::1]:7000,a:6379"),
            ("redis-cluster://:hunter2@a:1,a:2", "redis-cluster://:***@a:1,a:2"),
        ];
        for (text, shown) in rows {
            let address = RedisAddress::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(address.to_string(), shown, "{text}");
            assert!(!format!("{address:?}").contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn users_and_passwords_are_decoded_and_do_not_mix() {
        let text = "redis+sentinel://ara:p%40ss@word@a/m/2?sentinel_user=s%2Bu&sentinel_password=%00%ff";
        let address = RedisAddress::parse(text).unwrap();
        let RedisAddress::Sentinel(url) = &address else { panic!("it is one of sentinels") };
        let login =
            |user: &[u8], password: &[u8]| Login { user: Some(user.to_vec()), password: Some(password.to_vec()) };
        assert_eq!(url.login, login(b"ara", b"p@ss@word"));
        assert_eq!(url.sentinel_login, login(b"s+u", b"\x00\xff"));
        let found = address.url_of(&Node { host: "::1".to_owned(), port: 7 });
        assert_eq!(found.to_string(), "redis://ara:***@[::1]:7/2");
        assert_eq!(found.password.as_deref(), Some(&b"p@ss@word"[..]));
        assert!(!format!("{url:?} {:?}", url.login).contains("ss@word"));
        let address = RedisAddress::parse("rediss-cluster://a?ssl_ca=/etc/my%20ca.pem").unwrap();
        assert_eq!(address.ca_file(), Some(Path::new("/etc/my ca.pem")));
        assert_eq!(address.url_of(&Node { host: "b".to_owned(), port: 7 }).ca_file.as_deref(), address.ca_file());
    }

    #[test]
    fn what_is_wrong_is_said_without_passwords() {
        use RedisAddressError::*;
        let many = format!(
            "redis-cluster://u:hunter2@{}",
            ["a:"; 17]
                .iter()
                .enumerate()
                .fold(String::new(), |all, (n, a)| { format!("{all}{}{a}{}", if n == 0 { "" } else { "," }, n + 1) })
        );
        let long = format!("redis+sentinel://a/{}", "m".repeat(256));
        let rows = [
            ("hunter2", Scheme),
            ("hunter2://h", Scheme),
            ("redis+cluster://h", Scheme),
            ("redis://:hunter2@", Single(RedisUrlError::NoHost)),
            ("redis+sentinel://:hunt#er2@h/m", Fragment),
            ("redis+sentinel://:hunter2@/m", NoHost { nth: 1 }),
            ("redis+sentinel://a,,b/m", NoHost { nth: 2 }),
            ("redis-cluster://a,", NoHost { nth: 2 }),
            ("redis-cluster://a,h unter2", BadHost { nth: 2 }),
            ("redis-cluster://a,::1", BadHost { nth: 2 }),
            ("redis-cluster://[::x]:1", BadHost { nth: 1 }),
            ("redis+sentinel://u:hunter2,a/m", BadPort { nth: 1 }),
            ("redis+sentinel://a:1,b:0/m", BadPort { nth: 2 }),
            ("redis-cluster://a:65536", BadPort { nth: 1 }),
            ("redis+sentinel://a,b,A:26379/m", DuplicateHost { nth: 3 }),
            ("redis-cluster://[::1]:7,b,[::1]:7", DuplicateHost { nth: 3 }),
            (&many, TooManyHosts),
            ("redis+sentinel://u:hunter2@a", NoMasterName),
            ("redis+sentinel://a//1", NoMasterName),
            ("redis+sentinel://a/?sentinel_user=u", NoMasterName),
            ("redis+sentinel://a/my%20master", BadMasterName),
            ("redis+sentinel://a/m%0d%0a", BadMasterName),
            (&long, BadMasterName),
            ("redis+sentinel://a/m/x", BadDatabase),
            ("redis+sentinel://a/m/1/2", BadDatabase),
            ("redis+sentinel://a/m/-1", BadDatabase),
            ("redis+sentinel://a/m/4294967296", BadDatabase),
            ("redis-cluster://a/0", ClusterPath),
            ("redis-cluster://a/m", ClusterPath),
            ("redis-cluster://a?x=hunter2", ClusterQuery),
            ("redis-cluster://a?ssl_ca=/f", ClusterQuery),
            ("rediss-cluster://a?sentinel_user=hunter2", ClusterQuery),
            ("redis+sentinel://a/m?hunter2", BadOption),
            ("redis+sentinel://a/m?hunter2=1", BadOption),
            ("redis+sentinel://a/m?sentinel_user=", BadOption),
            ("redis+sentinel://a/m?sentinel_user=a&sentinel_user=hunter2", DuplicateOption),
        ];
        for (text, error) in rows {
            let given = RedisAddress::parse(text).unwrap_err();
            assert_eq!(given, error, "{text}");
            assert!(!given.to_string().contains("hunter2"), "{text}: {given}");
        }
    }
}
