//! Request targets and authorities (RFC 9112 §3.2, RFC 3986 §3.2): what may stand after the method, and in `Host`.
use super::Method;

/// A request target, split and not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// Before the `?`; `*` for `OPTIONS *`.
    pub(super) path: &'a str,
    /// After the first `?`, when there is one.
    pub(super) query: Option<&'a str>,
}

/// Splits a target of origin-form, absolute-form, or the asterisk-form of `OPTIONS`. `None` for every other form, for
/// a fragment, and for anything but visible ASCII: what a target means must not depend on who reads it.
pub(super) fn split(method: Method, target: &str) -> Option<Target<'_>> {
    if target.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return None;
    }
    if target == "*" {
        return (method == Method::Options).then_some(Target { path: target, query: None });
    }
    if target.starts_with('/') {
        return Some(split_query(target));
    }
    let rest = strip_scheme(target)?;
    let authority_len = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(authority_len);
    // An empty authority is lawful in `Host`, never in an `http` URI (RFC 9110 §4.2.1).
    if authority.is_empty() || !is_authority(authority.as_bytes()) {
        return None;
    }
    let target = split_query(rest);
    Some(Target { path: if target.path.is_empty() { "/" } else { target.path }, ..target })
}

fn split_query(target: &str) -> Target<'_> {
    match target.split_once('?') {
        Some((path, query)) => Target { path, query: Some(query) },
        None => Target { path: target, query: None },
    }
}

fn strip_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Whether a value is `uri-host [ ":" port ]`, the grammar of `Host`: no userinfo, no spaces, no path. The empty
/// value is in the grammar.
pub(super) fn is_authority(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    let (host_fits, port) = match value.strip_prefix('[') {
        Some(rest) => {
            let Some((address, rest)) = rest.split_once(']') else { return false };
            (address.parse::<std::net::Ipv6Addr>().is_ok(), rest)
        }
        None => {
            let (host, port) = value.split_at(value.find(':').unwrap_or(value.len()));
            (is_registered_name(host.as_bytes()), port)
        }
    };
    let port_fits = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.len() <= 5,
        None => port.is_empty(),
    };
    host_fits && port_fits
}

/// `reg-name` of RFC 3986 §3.2.2; an IPv4 address is one, too.
fn is_registered_name(mut name: &[u8]) -> bool {
    loop {
        name = match name {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            [byte, rest @ ..] if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) => rest,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_split_and_not_decoded() {
        let rows = [
            (Method::Get, "/", "/", None),
            (Method::Get, "/ws?token=a%20b?c", "/ws", Some("token=a%20b?c")),
            (Method::Get, "/ws?", "/ws", Some("")),
            (Method::Get, "//health", "//health", None),
            (Method::Get, "/a%2Fb", "/a%2Fb", None),
            (Method::Get, "/x?q={\"a\":[1|2]}", "/x", Some("q={\"a\":[1|2]}")),
            (Method::Get, "http://ara.example/stats?a=1", "/stats", Some("a=1")),
            (Method::Get, "HTTP://ara.example:8081", "/", None),
            (Method::Get, "https://[::1]:8081?a=1", "/", Some("a=1")),
            (Method::Options, "*", "*", None),
        ];
        for (method, text, path, query) in rows {
            assert_eq!(split(method, text), Some(Target { path, query }), "{text}");
        }
    }

    #[test]
    fn other_targets_are_refused() {
        let rows = [
            (Method::Get, "*"),
            (Method::Other, "ara.example:443"),
            (Method::Get, "ara.example"),
            (Method::Get, "health"),
            (Method::Get, "?a=1"),
            (Method::Get, "/a#b"),
            (Method::Get, "/é"),
            (Method::Get, "/a\u{7f}"),
            (Method::Get, "ftp://ara.example/"),
            (Method::Get, "http:/ara.example/"),
            (Method::Get, "http:///health"),
            (Method::Get, "http://root@ara.example/"),
            (Method::Get, "http://ara.example:port/"),
            (Method::Get, "http://"),
        ];
        for (method, text) in rows {
            assert_eq!(split(method, text), None, "{text}");
        }
    }

    #[test]
    fn authorities_follow_the_grammar() {
        let fits =
            ["", "localhost", "notification_cluster", "127.0.0.1:8081", "[::1]", "[2001:db8::1]:80", "a%2Db", "ara:"];
        for value in fits {
            assert!(is_authority(value.as_bytes()), "{value}");
        }
        let refused = [
            "a b",
            "a/b",
            "user@host",
            "user:pw@host",
            "host:80:80",
            "host:+80",
            "host:123456",
            "::1",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "[]",
            "a%2",
            "a%zz",
            "a?b",
            "a\\b",
            "a\"b",
            "<a>",
            "é",
        ];
        for value in refused {
            assert!(!is_authority(value.as_bytes()), "{value}");
        }
        assert!(!is_authority(b"a\xff"));
    }
}
