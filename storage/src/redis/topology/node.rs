//! One server and how it is written.
use crate::link::address;
use std::fmt;
use std::net::Ipv6Addr;

/// A server: a sentinel, a master, a node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// 1..=65535.
    pub port: u16,
}

impl Node {
    /// From the words of a server; `None` if they name none.
    pub fn from_words(host: &str, port: &str) -> Option<Node> {
        let port = address::number(port).and_then(|number| u16::try_from(number).ok())?;
        Node::new(host, port)
    }

    /// `None` if nothing can have that address.
    pub(super) fn new(host: &str, port: u16) -> Option<Node> {
        if port == 0 {
            return None;
        }
        // The rules of a URL but for the brackets, which servers leave out.
        if host.parse::<Ipv6Addr>().is_err() {
            let (parsed, _) = address::parse(host, port).ok()?;
            if parsed != host {
                return None;
            }
        }
        Some(Node { host: host.to_owned(), port })
    }

    /// The same server, as far as one can tell without a lookup.
    pub(super) fn is(&self, other: &Node) -> bool {
        self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_server_become_a_node_or_none() {
        let rows = [
            ("127.0.0.1", "6379", Some("127.0.0.1:6379")),
            ("::1", "6379", Some("[::1]:6379")),
            ("redis-1.internal", "1", Some("redis-1.internal:1")),
            ("", "6379", None),
            ("?", "6379", None),
            ("[::1]", "6379", None),
            ("a:7", "6379", None),
            ("a b", "6379", None),
            ("a/b", "6379", None),
            ("h", "0", None),
            ("h", "65536", None),
            ("h", "-1", None),
            ("h", "", None),
        ];
        for (host, port, shown) in rows {
            assert_eq!(Node::from_words(host, port).map(|node| node.to_string()).as_deref(), shown, "{host} {port}");
        }
    }
}
