//! What is wrong with a configuration, said so that a person can put it right; secrets stay secret.
use super::variables::Secrecy;
use std::fmt;

/// Something that stops the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable, or `file: key`, or a file.
    pub place: String,
    /// What it said, masked as far as it is secret; `None` when it said nothing.
    pub value: Option<String>,
    /// What it must be.
    pub rule: String,
}

impl Problem {
    /// One without a value.
    pub fn new(place: impl Into<String>, rule: impl Into<String>) -> Problem {
        Problem { place: place.into(), value: None, rule: rule.into() }
    }

    /// One with a value, masked by its secrecy.
    pub fn with_value(place: impl Into<String>, value: &str, secrecy: Secrecy, rule: impl Into<String>) -> Problem {
        Problem { place: place.into(), value: Some(mask(value, secrecy)), rule: rule.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={:?}: {}", self.place, value, self.rule),
            None => write!(f, "{}: {}", self.place, self.rule),
        }
    }
}

/// Something that does not stop the start but that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value that must not appear in logs, errors or debug output (C-17).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<Box<str>>) -> Secret {
        Secret(text.into())
    }

    /// The value, for the one who uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What of a value may be shown.
pub fn mask(value: &str, secrecy: Secrecy) -> String {
    match secrecy {
        Secrecy::Open => value.to_owned(),
        Secrecy::Secret => "***".to_owned(),
        Secrecy::Address => mask_address(value),
    }
}

/// Hides the password of `scheme://user:password@host` and of a `password=` parameter.
///
/// The user information ends at the *last* `@`: a password with an unescaped `@` or `/` in it makes a bad address, but
/// it is a password all the same. What cannot be told from a password is hidden, too.
fn mask_address(address: &str) -> String {
    const PARAMETER: &str = "password=";
    let (scheme, rest) = address.find("://").map_or(("", address), |at| address.split_at(at + 3));
    let mut out = match rest.rsplit_once('@') {
        Some((user_info, host)) => match user_info.split_once(':') {
            Some((user, _)) if !scheme.is_empty() => format!("{scheme}{user}:***@{host}"),
            _ => format!("{scheme}***@{host}"),
        },
        None => address.to_owned(),
    };
    let mut from = 0;
    while let Some(found) = out[from..].to_ascii_lowercase().find(PARAMETER) {
        let begin = from + found + PARAMETER.len();
        let end = out[begin..].find('&').map_or(out.len(), |at| begin + at);
        out.replace_range(begin..end, "***");
        from = begin;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_addresses_are_hidden() {
        let rows = [
            ("redis://localhost:6379/0", "redis://localhost:6379/0"),
            ("redis://:hunter2@host", "redis://:***@host"),
            ("redis://ara:hunter2@host:6379/1", "redis://ara:***@host:6379/1"),
            ("postgres://u:p@ss/word@db/x", "postgres://u:***@db/x"),
            ("postgres://u@db/x?password=p&sslmode=require", "postgres://***@db/x?password=***&sslmode=require"),
            ("postgres://db/x?PASSWORD=p", "postgres://db/x?PASSWORD=***"),
            ("hunter2:x@host", "***@host"),
            ("", ""),
        ];
        for (address, shown) in rows {
            assert_eq!(mask(address, Secrecy::Address), shown);
        }
    }

    #[test]
    fn a_secret_never_shows_itself() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(***)");
        let problem = Problem::with_value("API_KEY", "hunter2", Secrecy::Secret, "is too short");
        assert_eq!(problem.to_string(), r#"API_KEY="***": is too short"#);
    }
}
