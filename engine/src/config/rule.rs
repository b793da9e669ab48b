//! What a setting's text must look like, and how to read it.
use ipnet::IpNet;
use std::net::IpAddr;
use tracing_subscriber::EnvFilter;

/// The form of one setting.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// Anything without control characters.
    Text,
    /// A name that can stand in a file name.
    FileStem,
    /// Yes or no.
    Flag,
    /// A whole number, both ends included.
    Number {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// A number from 0 to 1.
    Fraction,
    /// Comma-separated texts; blanks around them and empty ones go.
    List,
    /// One of these, in any letter case.
    Choice(&'static [&'static str]),
    /// An address that begins with one of these and goes on.
    Url(&'static [&'static str]),
    /// Comma-separated networks or addresses, or `none`.
    Networks,
    /// Directives of `RUST_LOG`.
    LogFilter,
}

impl Rule {
    /// Whether `text` has this form; if not, what it must be. The answer never repeats the text, which may be secret.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let fits = match self {
            Rule::Text => !text.contains(char::is_control),
            Rule::FileStem => {
                !text.starts_with('.') && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
            }
            Rule::Flag => flag(text).is_some(),
            Rule::Number { min, max } => text.parse::<u64>().is_ok_and(|n| (*min..=*max).contains(&n)),
            Rule::Fraction => fraction(text).is_some(),
            Rule::List => !text.contains(char::is_control),
            Rule::Choice(choices) => choice(text, choices).is_some(),
            Rule::Url(schemes) => {
                !text.contains(|c: char| c.is_control() || c.is_whitespace())
                    && schemes.iter().any(|scheme| {
                        text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
                    })
            }
            Rule::Networks => networks(text).is_some(),
            Rule::LogFilter => EnvFilter::try_new(text).is_ok(),
        };
        if fits { Ok(()) } else { Err(self.describe()) }
    }

    fn describe(&self) -> String {
        match self {
            Rule::Text | Rule::List => "must not hold control characters".to_owned(),
            Rule::FileStem => "must be made of letters, digits, `-`, `_` and `.`, for it names a file".to_owned(),
            Rule::Flag => "must be true, false, 1, 0, yes, no, on or off".to_owned(),
            Rule::Number { min, max } => format!("must be a whole number from {min} to {max}"),
            Rule::Fraction => "must be a number from 0 to 1".to_owned(),
            Rule::Choice(choices) => format!("must be one of {}", choices.join(", ")),
            Rule::Url(schemes) => format!("must be an address that starts with {}", schemes.join(" or ")),
            Rule::Networks => "must be `none`, or a comma-separated list like 10.0.0.0/8,192.168.1.7,::1".to_owned(),
            Rule::LogFilter => "must be a level (error, warn, info, debug, trace, off) or directives like \
                                info,shards=debug"
                .to_owned(),
        }
    }
}

/// Reads a [`Rule::Flag`].
pub fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Reads a [`Rule::Fraction`].
pub fn fraction(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|n| (0.0..=1.0).contains(n))
}

/// Reads a [`Rule::Choice`]: the choice as we spell it.
pub fn choice(text: &str, choices: &'static [&'static str]) -> Option<&'static str> {
    choices.iter().find(|choice| choice.eq_ignore_ascii_case(text)).copied()
}

/// Reads a [`Rule::List`].
pub fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Reads [`Rule::Networks`]; a bare address is a network of one.
pub fn networks(text: &str) -> Option<Vec<IpNet>> {
    if text.eq_ignore_ascii_case("none") {
        return Some(Vec::new());
    }
    list(text)
        .iter()
        .map(|part| part.parse::<IpNet>().ok().or_else(|| part.parse::<IpAddr>().ok().map(IpNet::from)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_checked() {
        let port = Rule::Number { min: 1, max: 65_535 };
        let redis = Rule::Url(&["redis://", "rediss://"]);
        let backend = Rule::Choice(&["memory", "redis"]);
        let rows: &[(Rule, &str, bool)] = &[
            (port, "8081", true),
            (port, "0", false),
            (port, "65536", false),
            (port, "-1", false),
            (port, "1.0", false),
            (Rule::Flag, "ON", true),
            (Rule::Flag, "No", true),
            (Rule::Flag, "enabled", false),
            (Rule::Fraction, "0.1", true),
            (Rule::Fraction, "1.1", false),
            (Rule::Fraction, "NaN", false),
            (redis, "redis://localhost", true),
            (redis, "redis://", false),
            (redis, "redis:///0", false),
            (redis, "http://localhost", false),
            (redis, "redis://a b", false),
            (backend, "Redis", true),
            (backend, "etcd", false),
            (Rule::Networks, "10.0.0.0/8, ::1 ,192.168.0.1", true),
            (Rule::Networks, "none", true),
            (Rule::Networks, "10.0.0.0/33", false),
            (Rule::Networks, "proxy.internal", false),
            (Rule::LogFilter, "info,shards=debug", true),
            (Rule::LogFilter, "shards=loud", false),
            (Rule::FileStem, "staging-2", true),
            (Rule::FileStem, "../secrets", false),
            (Rule::Text, "line\nbreak", false),
        ];
        for (rule, text, fits) in rows {
            assert_eq!(rule.check(text).is_ok(), *fits, "{rule:?} {text:?}");
        }
    }

    #[test]
    fn lists_lose_blanks_and_empty_parts() {
        assert_eq!(list(" a ,, b:* ,"), ["a", "b:*"]);
        assert!(list(" , ").is_empty());
    }

    #[test]
    fn a_bare_address_is_a_network_of_one() {
        assert_eq!(networks("192.168.0.1").unwrap(), ["192.168.0.1/32".parse::<IpNet>().unwrap()]);
        assert_eq!(networks("None").unwrap(), []);
    }
}
