//! `DATABASE_URL`: `postgres://[user[:password]@]host[:port][/database][?name=value&…]`.
//!
//! Error texts and [`std::fmt::Display`] never repeat what may be part of a password, not even of a mistyped one.
use crate::link::address::{self, AddressError};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode};
use std::fmt;
use std::path::PathBuf;

/// The port where none is named.
pub const PORT_DEFAULT: u16 = 5432;
/// The user where none is named.
pub const USER_DEFAULT: &str = "postgres";
/// What the server shows in `pg_stat_activity` where the URL does not say otherwise.
pub const APPLICATION_NAME_DEFAULT: &str = "ara-notification-service";
/// The longest `connect_timeout`, in seconds.
pub const CONNECT_TIMEOUT_SECONDS_MAX: u32 = 3_600;

/// A server, who we are there, and which of its databases.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// 1..=65535.
    pub port: u16,
    /// The role, percent-decoded; [`USER_DEFAULT`] if none is named. Without a zero byte.
    pub user: String,
    /// The password, percent-decoded; absent means that a server that asks for one is refused. Without a zero byte.
    pub password: Option<Vec<u8>>,
    /// The database; that of the user's name if none is named. Without a zero byte.
    pub database: String,
    /// `sslmode`; [`SslMode::Prefer`] if it is not named.
    pub ssl_mode: SslMode,
    /// `sslrootcert`: who may vouch for the server. A file given with `prefer` or `require` makes them check as
    /// `verify-ca` does, as it does with libpq.
    pub ssl_root_cert: SslRootCert,
    /// `connect_timeout` in milliseconds, if it is named.
    pub connect_timeout_ms: Option<u64>,
    /// `application_name`; [`APPLICATION_NAME_DEFAULT`] if it is not named. Without a zero byte.
    pub application_name: String,
}

/// How much encryption the link needs: libpq's words, libpq's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// None.
    Disable,
    /// If the server takes it, with whoever it is; plain otherwise.
    Prefer,
    /// Yes, with whoever it is.
    Require,
    /// Yes, with a server for whom a trusted authority vouches, whatever its name.
    VerifyCa,
    /// Yes, with a server for whom a trusted authority vouches, and by the name that the URL gives.
    VerifyFull,
}

impl SslMode {
    const ALL: [SslMode; 5] = [Self::Disable, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// The word of the URL.
    pub fn as_str(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

/// Who may vouch for the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SslRootCert {
    /// The machine's store of authorities; also `sslrootcert=system`.
    System,
    /// The certificates in this PEM file.
    File(PathBuf),
}

/// Why a text is no PostgreSQL URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostgresUrlError {
    /// There is no `://`.
    NoScheme,
    /// It is another scheme.
    UnknownScheme,
    /// It has a `#`.
    Fragment,
    /// The host is empty.
    NoHost,
    /// The host has characters that no host has, or an address in brackets is none.
    BadHost,
    /// The port is no number from 1 to 65535.
    BadPort,
    /// User, password, database or name hold a zero byte, or (but for the password) are not UTF-8.
    BadText,
    /// The database has a `/` that is not escaped.
    BadDatabase,
    /// What follows the `?` is no list of names and values.
    BadQuery,
    /// A parameter this version does not know.
    UnknownParameter(String),
    /// A parameter that is named twice.
    RepeatedParameter(&'static str),
    /// A parameter whose value cannot be.
    BadParameter(&'static str),
}

impl fmt::Display for PostgresUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ESCAPES: &str = "in a user or password write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23, % as %25";
        const KNOWN: &str = "sslmode, sslrootcert, connect_timeout and application_name are known";
        match self {
            Self::NoScheme => f.write_str("it must start with postgres:// or postgresql://"),
            Self::UnknownScheme => {
                f.write_str("its scheme is not known; it must start with postgres:// or postgresql://")
            }
            Self::Fragment => write!(f, "it must not have a # part; {ESCAPES}"),
            Self::NoHost => {
                f.write_str("it names no host; the form is postgres://[user[:password]@]host[:port][/database]")
            }
            Self::BadHost => write!(f, "its host is not valid; an IPv6 address stands in brackets; {ESCAPES}"),
            Self::BadPort => write!(f, "its port is not a number from 1 to 65535; {ESCAPES}"),
            Self::BadText => f.write_str("user, password, database and names must be text without a zero byte"),
            Self::BadDatabase => write!(f, "what follows the host must be / and a database name; {ESCAPES}"),
            Self::BadQuery => write!(f, "what follows the ? must be name=value, joined by &; {ESCAPES}"),
            Self::UnknownParameter(name) => write!(f, "its parameter {name} is not known; {KNOWN}"),
            Self::RepeatedParameter(name) => write!(f, "its parameter {name} is there twice"),
            Self::BadParameter("sslmode") => {
                f.write_str("its sslmode must be disable, prefer, require, verify-ca or verify-full")
            }
            Self::BadParameter("connect_timeout") => {
                write!(f, "its connect_timeout must be a number of seconds from 1 to {CONNECT_TIMEOUT_SECONDS_MAX}")
            }
            Self::BadParameter("sslrootcert") => f.write_str(
                "its sslrootcert must name a PEM file, or be `system` together with sslmode=verify-ca or verify-full",
            ),
            Self::BadParameter(name) => write!(f, "its {name} must not be empty"),
        }
    }
}

impl std::error::Error for PostgresUrlError {}

impl From<AddressError> for PostgresUrlError {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::NoHost => PostgresUrlError::NoHost,
            AddressError::BadHost => PostgresUrlError::BadHost,
            AddressError::BadPort => PostgresUrlError::BadPort,
        }
    }
}

impl PostgresUrl {
    /// Takes a text apart; blanks around it are trimmed.
    ///
    /// # Errors
    /// [`PostgresUrlError`], with a text that says how to write it and does not repeat it.
    pub fn parse(text: &str) -> Result<PostgresUrl, PostgresUrlError> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(PostgresUrlError::NoScheme)?;
        if !["postgres", "postgresql"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(PostgresUrlError::UnknownScheme);
        }
        if rest.contains('#') {
            return Err(PostgresUrlError::Fragment);
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        if query.contains('@') {
            // The ? belongs to a password: what seems to be a parameter's name is a part of it.
            return Err(PostgresUrlError::BadQuery);
        }
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        // The last `@` divides, so that a password with a raw one still works.
        let (credentials, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (host, port) = address::parse(address, PORT_DEFAULT)?;
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let user = if user.is_empty() { USER_DEFAULT.to_owned() } else { decoded(user)? };
        let password: Vec<u8> = percent_decode_str(password).collect();
        if password.contains(&0) {
            return Err(PostgresUrlError::BadText);
        }
        let database = match path {
            "" => user.clone(),
            path if path.contains('/') => return Err(PostgresUrlError::BadDatabase),
            path => decoded(path)?,
        };
        let mut url = PostgresUrl {
            host: host.to_owned(),
            port,
            user,
            password: Some(password).filter(|password| !password.is_empty()),
            database,
            ssl_mode: SslMode::Prefer,
            ssl_root_cert: SslRootCert::System,
            connect_timeout_ms: None,
            application_name: APPLICATION_NAME_DEFAULT.to_owned(),
        };
        url.take_query(query)?;
        Ok(url)
    }

    fn take_query(&mut self, query: &str) -> Result<(), PostgresUrlError> {
        const NAMES: [&str; 4] = ["sslmode", "sslrootcert", "connect_timeout", "application_name"];
        let mut seen: Vec<&str> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(PostgresUrlError::BadQuery)?;
            let Some(name) = NAMES.into_iter().find(|known| *known == name) else {
                return Err(unknown(name));
            };
            if seen.contains(&name) {
                return Err(PostgresUrlError::RepeatedParameter(name));
            }
            seen.push(name);
            let value = decoded(value)?;
            let bad = PostgresUrlError::BadParameter(name);
            match name {
                "sslmode" => {
                    self.ssl_mode = SslMode::ALL.into_iter().find(|mode| mode.as_str() == value).ok_or(bad)?;
                }
                "connect_timeout" => {
                    let seconds = address::number(&value).filter(|s| (1..=CONNECT_TIMEOUT_SECONDS_MAX).contains(s));
                    self.connect_timeout_ms = Some(u64::from(seconds.ok_or(bad)?) * 1_000);
                }
                _ if value.is_empty() => return Err(bad),
                "sslrootcert" if value == "system" => self.ssl_root_cert = SslRootCert::System,
                "sslrootcert" => self.ssl_root_cert = SslRootCert::File(PathBuf::from(value)),
                _ => self.application_name = value,
            }
        }
        // Whoever names the machine's store wants it to be asked.
        let verifies = matches!(self.ssl_mode, SslMode::VerifyCa | SslMode::VerifyFull);
        if seen.contains(&"sslrootcert") && self.ssl_root_cert == SslRootCert::System && !verifies {
            return Err(PostgresUrlError::BadParameter("sslrootcert"));
        }
        Ok(())
    }
}

/// A name is repeated only if it looks like one.
fn unknown(name: &str) -> PostgresUrlError {
    let looks_like_one =
        !name.is_empty() && name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    match looks_like_one {
        true => PostgresUrlError::UnknownParameter(name.to_owned()),
        false => PostgresUrlError::BadQuery,
    }
}

fn decoded(text: &str) -> Result<String, PostgresUrlError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) if !text.contains('\0') => Ok(text.into_owned()),
        _ => Err(PostgresUrlError::BadText),
    }
}

/// What a value in a query may not hold as it is.
const QUERY: AsciiSet = CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'&').add(b'+').add(b'=').add(b'@');

/// In its normal form, with `***` for the password.
impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = if self.password.is_some() { ":***" } else { "" };
        write!(f, "postgres://{}{password}@", percent_encode(self.user.as_bytes(), NON_ALPHANUMERIC))?;
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port)?,
            false => write!(f, "{}:{}", self.host, self.port)?,
        }
        const NAME: AsciiSet = NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');
        write!(f, "/{}?sslmode={}", utf8_percent_encode(&self.database, &NAME), self.ssl_mode.as_str())?;
        if let SslRootCert::File(file) = &self.ssl_root_cert {
            write!(f, "&sslrootcert={}", utf8_percent_encode(&file.to_string_lossy(), &QUERY))?;
        }
        if let Some(ms) = self.connect_timeout_ms {
            write!(f, "&connect_timeout={}", ms / 1_000)?;
        }
        match self.application_name == APPLICATION_NAME_DEFAULT {
            true => Ok(()),
            false => write!(f, "&application_name={}", utf8_percent_encode(&self.application_name, &QUERY)),
        }
    }
}

/// The same as [`fmt::Display`]: a configuration that is printed whole must not print the password either.
impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text` becomes `shown`, and what is shown reads as the same but for the password.
    fn check(text: &str, shown: &str) -> PostgresUrl {
        let url = PostgresUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(url.to_string(), shown, "{text}");
        let mut again = PostgresUrl::parse(shown).unwrap_or_else(|error| panic!("{shown}: {error}"));
        again.password = url.password.clone();
        assert_eq!(again, url, "{text}");
        url
    }

    #[test]
    fn every_part_may_be_left_out_but_the_host() {
        check(
            "postgres://localhost:5432/ara_notification",
            "postgres://postgres@localhost:5432/ara_notification?sslmode=prefer",
        );
        check(" POSTGRESQL://localhost ", "postgres://postgres@localhost:5432/postgres?sslmode=prefer");
        check("postgres://ara@db/", "postgres://ara@db:5432/ara?sslmode=prefer");
        check("postgres://[::1]/a%2Fb%20c", "postgres://postgres@[::1]:5432/a%2Fb%20c?sslmode=prefer");
        check("postgres://[fe80::1]:7000", "postgres://postgres@[fe80::1]:7000/postgres?sslmode=prefer");
        check("postgres://10.0.0.7:/x?", "postgres://postgres@10.0.0.7:5432/x?sslmode=prefer");
    }

    #[test]
    fn users_and_passwords_are_decoded_and_passwords_never_shown() {
        let rows = [
            ("postgres://ara:secret@h/d", "ara", Some(&b"secret"[..])),
            ("postgres://ara@h/d", "ara", None),
            ("postgres://:secret@h/d", "postgres", Some(b"secret")),
            ("postgres://:@h/d", "postgres", None),
            ("postgres://a%3Ab:p%40s%2Fs%25%20%C3%A9@h/d", "a:b", Some("p@s/s% é".as_bytes())),
            ("postgres://ara:a:b@h/d", "ara", Some(b"a:b")),
            ("postgres://ara:a@b@h/d", "ara", Some(b"a@b")),
            ("postgres://ara:%FF@h/d", "ara", Some(b"\xff")),
        ];
        for (text, user, password) in rows {
            let url = PostgresUrl::parse(text).unwrap();
            assert_eq!((url.user.as_str(), url.password.as_deref()), (user, password), "{text}");
            assert_eq!(url.to_string().contains(":***@"), password.is_some(), "{text}: {url}");
        }
        let url = PostgresUrl::parse("postgres://ara:hunter2@h/d").unwrap();
        assert_eq!(format!("{url:?}"), "PostgresUrl(postgres://ara:***@h:5432/d?sslmode=prefer)");
    }

    #[test]
    fn parameters_are_those_of_libpq() {
        for mode in SslMode::ALL {
            let shown = format!("postgres://u@h:5432/d?sslmode={}", mode.as_str());
            assert_eq!(check(&shown, &shown).ssl_mode, mode);
        }
        let text = "postgres://u@h/d?sslmode=verify-full&sslrootcert=/etc/ssl/a%20b.pem&connect_timeout=7&application_name=x%26y";
        let shown = "postgres://u@h:5432/d?sslmode=verify-full&sslrootcert=/etc/ssl/a%20b.pem&connect_timeout=7&application_name=x%26y";
        let url = check(text, shown);
        assert_eq!(url.ssl_root_cert, SslRootCert::File("/etc/ssl/a b.pem".into()));
        assert_eq!((url.connect_timeout_ms, url.application_name.as_str()), (Some(7_000), "x&y"));
        let url = PostgresUrl::parse("postgres://u@h/d?sslrootcert=system&sslmode=verify-full").unwrap();
        assert_eq!(url.ssl_root_cert, SslRootCert::System);
    }

    #[test]
    fn what_is_wrong_is_said_without_repeating_secrets() {
        use PostgresUrlError::*;
        let rows = [
            ("", NoScheme),
            ("localhost:5432", NoScheme),
            ("user:hunter2@localhost", NoScheme),
            ("mysql://h", UnknownScheme),
            ("hunter2@x://h", UnknownScheme),
            ("postgres://u:hunter2#x@h", Fragment),
            ("postgres://u:p?hunter2=x@h", BadQuery),
            ("postgres://u:p?hunter2@h", BadQuery),
            ("postgres://", NoHost),
            ("postgres:///d", NoHost),
            ("postgres://u:hunter2@", NoHost),
            ("postgres://:5432", NoHost),
            ("postgres://a b", BadHost),
            ("postgres://a,b", BadHost),
            ("postgres://::1", BadHost),
            ("postgres://[::1", BadHost),
            ("postgres://[hunter2]", BadHost),
            ("postgres://h:0", BadPort),
            ("postgres://h:65536", BadPort),
            ("postgres://h:+1", BadPort),
            ("postgres://user:hunter2/x@h", BadPort),
            ("postgres://h/a/b", BadDatabase),
            ("postgres://h/a%00b", BadText),
            ("postgres://%FF@h", BadText),
            ("postgres://u:%00hunter2@h", BadText),
            ("postgres://h/d?sslmode", BadQuery),
            ("postgres://h/d?Hunter2=1", BadQuery),
            ("postgres://h/d?sslcert=x", UnknownParameter("sslcert".to_owned())),
            ("postgres://h/d?sslmode=allow", BadParameter("sslmode")),
            ("postgres://h/d?sslmode=", BadParameter("sslmode")),
            ("postgres://h/d?sslmode=require&sslmode=disable", RepeatedParameter("sslmode")),
            ("postgres://h/d?connect_timeout=0", BadParameter("connect_timeout")),
            ("postgres://h/d?connect_timeout=-1", BadParameter("connect_timeout")),
            ("postgres://h/d?connect_timeout=3601", BadParameter("connect_timeout")),
            ("postgres://h/d?sslrootcert=", BadParameter("sslrootcert")),
            ("postgres://h/d?sslrootcert=system", BadParameter("sslrootcert")),
            ("postgres://h/d?application_name=", BadParameter("application_name")),
        ];
        for (text, error) in rows {
            let given = PostgresUrl::parse(text).unwrap_err();
            assert_eq!(given, error, "{text}");
            assert!(!given.to_string().contains("hunter2"), "{text}: {given}");
        }
        let named = PostgresUrl::parse("postgres://h/d?sslcert=x").unwrap_err().to_string();
        assert!(named.contains("sslcert") && named.contains("sslrootcert"), "{named}");
    }
}
