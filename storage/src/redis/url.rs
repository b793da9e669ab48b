//! `REDIS_URL`: `redis://[[user][:password]@]host[:port][/db]`, or `rediss://` and perhaps `?ssl_ca=/file` behind it.
//!
//! Error texts and [`std::fmt::Display`] never repeat what may be part of a password, not even of a mistyped one.
use crate::link::address::{self, AddressError};
use crate::link::tls::{Tls, TlsError, Trust};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use std::fmt;
use std::path::PathBuf;

/// The port where none is named.
pub const PORT_DEFAULT: u16 = 6379;

/// A server, who we are there, and which of its databases.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// `rediss://`: the link is to be encrypted, and the server must prove that it is `host`.
    pub tls: bool,
    /// `ssl_ca`: a file with the certificates of those who vouch for the server, in PEM form; absent means those that the
    /// machine trusts.
    pub ca_file: Option<PathBuf>,
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// 1..=65535.
    pub port: u16,
    /// The ACL user, percent-decoded; absent means the server's `default` user.
    pub user: Option<Vec<u8>>,
    /// The password, percent-decoded; absent means none is sent (with a user: the empty one).
    pub password: Option<Vec<u8>>,
    /// The database; 0 needs no SELECT.
    pub database: u32,
}

/// Why a text is no Redis URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisUrlError {
    /// There is no `://`.
    NoScheme,
    /// It is another scheme; kept only if it looks like one.
    UnknownScheme(Option<String>),
    /// It has a `?`, and what follows is not `ssl_ca=` and a file, once, for `rediss://`.
    Query,
    /// It has a `#`.
    Fragment,
    /// The host is empty.
    NoHost,
    /// The host has characters that no host has, or an address in brackets is none.
    BadHost,
    /// The port is no number from 1 to 65535.
    BadPort,
    /// What follows the `/` is no database number.
    BadDatabase,
}

impl fmt::Display for RedisUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ESCAPES: &str = "in a user or password write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23, % as %25";
        match self {
            Self::NoScheme => f.write_str("it must start with redis:// or rediss://"),
            Self::UnknownScheme(Some(scheme)) => {
                write!(f, "the scheme {scheme}:// is not known; it must start with redis:// or rediss://")
            }
            Self::UnknownScheme(None) => {
                f.write_str("its scheme is not known; it must start with redis:// or rediss://")
            }
            Self::Query => write!(f, "the only option behind a ? is ssl_ca=/file, for rediss://; {ESCAPES}"),
            Self::Fragment => write!(f, "it must not have a # part; {ESCAPES}"),
            Self::NoHost => write!(f, "it names no host; the form is redis://[[user]:password@]host[:port][/db]"),
            Self::BadHost => write!(f, "its host is not valid; an IPv6 address stands in brackets; {ESCAPES}"),
            Self::BadPort => write!(f, "its port is not a number from 1 to 65535; {ESCAPES}"),
            Self::BadDatabase => write!(f, "what follows the host must be / and a database number; {ESCAPES}"),
        }
    }
}

impl std::error::Error for RedisUrlError {}

impl From<AddressError> for RedisUrlError {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::NoHost => RedisUrlError::NoHost,
            AddressError::BadHost => RedisUrlError::BadHost,
            AddressError::BadPort => RedisUrlError::BadPort,
        }
    }
}

impl RedisUrl {
    /// Takes a text apart; blanks around it are trimmed.
    ///
    /// # Errors
    /// [`RedisUrlError`], with a text that says how to write it and does not repeat it.
    pub fn parse(text: &str) -> Result<RedisUrl, RedisUrlError> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(RedisUrlError::NoScheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "redis" => false,
            "rediss" => true,
            other => return Err(RedisUrlError::UnknownScheme(printable_scheme(other))),
        };
        if rest.contains('#') {
            return Err(RedisUrlError::Fragment);
        }
        let (rest, ca_file) = match rest.split_once('?') {
            None => (rest, None),
            Some((rest, query)) => match query.strip_prefix("ssl_ca=") {
                Some(file) if tls && !file.is_empty() && !file.contains('&') => {
                    let bytes: Vec<u8> = percent_decode_str(file).collect();
                    let file = String::from_utf8(bytes).map_err(|_| RedisUrlError::Query)?;
                    (rest, Some(PathBuf::from(file)))
                }
                _ => return Err(RedisUrlError::Query),
            },
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The last `@` divides, so that a password with a raw one still works.
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, authority),
        };
        let (host, port) = address::parse(address, PORT_DEFAULT)?;
        let database = match path {
            "" => 0,
            digits => address::number(digits).ok_or(RedisUrlError::BadDatabase)?,
        };
        let (user, password) = credentials.map_or((None, None), split_credentials);
        Ok(RedisUrl { tls, ca_file, host: host.to_owned(), port, user, password, database })
    }
}

impl RedisUrl {
    /// What encryption needs, if the URL asks for it.
    pub(crate) fn encryption(&self) -> Result<Option<Tls>, TlsError> {
        let tls = || Tls::new(&self.host, Trust::AuthorityAndName, self.ca_file.as_deref());
        self.tls.then(tls).transpose()
    }
}

/// The scheme for an error text, unless it might be a secret in the wrong place.
fn printable_scheme(scheme: &str) -> Option<String> {
    let looks_like_one = scheme.len() <= 20 && scheme.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '+' | '-'));
    (looks_like_one && !scheme.is_empty()).then(|| scheme.to_owned())
}

fn split_credentials(credentials: &str) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let decoded = |text: &str| (!text.is_empty()).then(|| percent_decode_str(text).collect());
    (decoded(user), decoded(password))
}

/// As it was written, but with `***` for the password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss://" } else { "redis://" })?;
        if let Some(user) = &self.user {
            percent_encode(user, NON_ALPHANUMERIC).fmt(f)?;
        }
        if self.password.is_some() {
            f.write_str(":***")?;
        }
        if self.user.is_some() || self.password.is_some() {
            f.write_str("@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port)?,
            false => write!(f, "{}:{}", self.host, self.port)?,
        }
        match self.database {
            0 => Ok(()),
            database => write!(f, "/{database}"),
        }
    }
}

/// The same as [`fmt::Display`]: a configuration that is printed whole must not print the password either.
impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text` becomes `shown`, with this user and password.
    fn check(text: &str, shown: &str, user: Option<&str>, password: Option<&str>) {
        let url = RedisUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(url.to_string(), shown, "{text}");
        assert_eq!(url.user.as_deref(), user.map(str::as_bytes), "{text}");
        assert_eq!(url.password.as_deref(), password.map(str::as_bytes), "{text}");
    }

    #[test]
    fn every_part_may_be_left_out_but_the_host() {
        check("redis://localhost", "redis://localhost:6379", None, None);
        check(" REDIS://localhost:6379/ ", "redis://localhost:6379", None, None);
        check("redis://redis:6380/15", "redis://redis:6380/15", None, None);
        check("redis://10.0.0.7:/2", "redis://10.0.0.7:6379/2", None, None);
        check("redis://[::1]", "redis://[::1]:6379", None, None);
        check("redis://[fe80::1]:7000/1", "redis://[fe80::1]:7000/1", None, None);
        check("rediss://cache.example.com", "rediss://cache.example.com:6379", None, None);
        assert!(RedisUrl::parse("rediss://h").unwrap().tls);
        assert!(!RedisUrl::parse("redis://h").unwrap().tls);
    }

    #[test]
    fn an_encrypted_link_may_name_who_vouches_for_the_server() {
        let url = RedisUrl::parse("rediss://:pw@h/2?ssl_ca=/etc/my%20ca.pem").unwrap();
        assert_eq!((url.ca_file, url.database), (Some(PathBuf::from("/etc/my ca.pem")), 2));
        assert_eq!(RedisUrl::parse("rediss://h").unwrap().ca_file, None);
        let rows = [
            "redis://h?ssl_ca=/f",
            "rediss://h?ssl_ca=",
            "rediss://h?ssl_ca=/f&x=1",
            "rediss://h?x",
            "rediss://h?ssl_ca=%FF",
        ];
        for text in rows {
            assert_eq!(RedisUrl::parse(text), Err(RedisUrlError::Query), "{text}");
        }
    }

    #[test]
    fn users_and_passwords_are_decoded_and_passwords_never_shown() {
        check("redis://:secret@h", "redis://:***@h:6379", None, Some("secret"));
        check("redis://ara:secret@h/3", "redis://ara:***@h:6379/3", Some("ara"), Some("secret"));
        check("redis://ara@h", "redis://ara@h:6379", Some("ara"), None);
        check("redis://:@h", "redis://h:6379", None, None);
        check("redis://@h", "redis://h:6379", None, None);
        check("redis://a%3Ab:p%40s%2Fs%25%20%C3%A9@h", "redis://a%3Ab:***@h:6379", Some("a:b"), Some("p@s/s% é"));
        check("redis://:a:b@h", "redis://:***@h:6379", None, Some("a:b"));
        check("redis://:a@b@h", "redis://:***@h:6379", None, Some("a@b"));
        assert_eq!(RedisUrl::parse("redis://:%FF@h").unwrap().password.unwrap(), [0xff], "need not be UTF-8");
        assert_eq!(format!("{:?}", RedisUrl::parse("redis://:secret@h").unwrap()), "RedisUrl(redis://:***@h:6379)");
    }

    #[test]
    fn what_is_wrong_is_said_without_repeating_secrets() {
        use RedisUrlError::*;
        let rows = [
            ("", NoScheme),
            ("localhost:6379", NoScheme),
            ("user:hunter2@localhost", NoScheme),
            ("http://h", UnknownScheme(Some("http".to_owned()))),
            ("redis+unix:///tmp/redis.sock", UnknownScheme(Some("redis+unix".to_owned()))),
            ("hunter2@x://h", UnknownScheme(None)),
            ("redis://h?db=1", Query),
            ("redis://:hunter2?x@h", Query),
            ("redis://:hunter2#x@h", Fragment),
            ("redis://", NoHost),
            ("redis:///0", NoHost),
            ("redis://:hunter2@", NoHost),
            ("redis://:6379", NoHost),
            ("redis://a b", BadHost),
            ("redis://a\nb", BadHost),
            ("redis://::1", BadHost),
            ("redis://[::1", BadHost),
            ("redis://[hunter2]", BadHost),
            ("redis://[::1]x", BadHost),
            ("redis://h:0", BadPort),
            ("redis://h:65536", BadPort),
            ("redis://h:+1", BadPort),
            ("redis://user:hunter2/x@h", BadPort),
            ("redis://h/-1", BadDatabase),
            ("redis://h/one", BadDatabase),
            ("redis://h/0/1", BadDatabase),
            ("redis://h/4294967296", BadDatabase),
        ];
        for (text, error) in rows {
            let given = RedisUrl::parse(text).unwrap_err();
            assert_eq!(given, error, "{text}");
            assert!(!given.to_string().contains("hunter2"), "{text}: {given}");
        }
    }
}
