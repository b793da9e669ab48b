//! Who a request is from: the socket's peer, or whom a trusted proxy names (C-10).
use crate::limits;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// The peers whose word about a client is believed: `SERVER_TRUSTED_PROXIES`. Empty: nobody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Box<[IpNet]>);

impl TrustedProxies {
    /// These networks; an IPv4 address that comes as `::ffff:a.b.c.d` counts as IPv4.
    pub fn new(networks: &[IpNet]) -> TrustedProxies {
        TrustedProxies(networks.into())
    }

    /// Whether the word of this address is believed.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The client's address, never IPv4-mapped.
///
/// Of an untrusted peer it is the peer's own, whatever the headers say. A trusted one is believed: `real_ip`, which a proxy
/// in front must set itself and never pass on; else the last hop of `forwarded_for` that is not trusted, going from the
/// nearest to the farthest over all lines, [`limits::FORWARDED_HOPS_MAX`] at most. A hop that is no address ends the way:
/// what stands before it was written by who knows whom, so the hop behind it is the client. Where all hops are trusted the
/// farthest is the client.
pub fn client_address(peer: IpAddr, trusted: &TrustedProxies, real_ip: Option<&str>, forwarded_for: &[&str]) -> IpAddr {
    let mut client = peer.to_canonical();
    if !trusted.contains(client) {
        return client;
    }
    if let Some(address) = real_ip.and_then(parse) {
        return address;
    }
    let hops = forwarded_for.iter().rev().flat_map(|line| line.rsplit(','));
    for hop in hops.take(limits::FORWARDED_HOPS_MAX) {
        let Some(address) = parse(hop) else { break };
        client = address;
        if !trusted.contains(client) {
            break;
        }
    }
    client
}

/// An address, perhaps with a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).filter(|text| text.contains(':'));
    let address = bare.unwrap_or(text).parse::<IpAddr>().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default of `SERVER_TRUSTED_PROXIES`.
    fn private() -> TrustedProxies {
        let networks = ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];
        TrustedProxies::new(&networks.map(|network| network.parse().unwrap()))
    }

    #[track_caller]
    fn assert_client(peer: &str, real_ip: Option<&str>, forwarded_for: &[&str], expected: &str) {
        let client = client_address(peer.parse().unwrap(), &private(), real_ip, forwarded_for);
        assert_eq!(client.to_string(), expected, "{peer} {real_ip:?} {forwarded_for:?}");
    }

    #[test]
    fn a_stranger_is_who_he_is_whatever_he_says() {
        for peer in ["203.0.113.9", "2001:db8::9"] {
            assert_client(peer, Some("198.51.100.1"), &["198.51.100.2"], peer);
        }
        assert_client("::ffff:203.0.113.9", Some("198.51.100.1"), &[], "203.0.113.9");
    }

    #[test]
    fn a_proxy_names_the_client() {
        let rows: &[(Option<&str>, &[&str], &str)] = &[
            (Some("198.51.100.1"), &[], "198.51.100.1"),
            (Some("198.51.100.1"), &["198.51.100.2"], "198.51.100.1"),
            (Some(" 2001:db8::1\t"), &[], "2001:db8::1"),
            (Some("::ffff:198.51.100.1"), &[], "198.51.100.1"),
            (Some("198.51.100.1:4711"), &[], "198.51.100.1"),
            (Some("[2001:db8::1]:4711"), &[], "2001:db8::1"),
            (Some("[2001:db8::1]"), &[], "2001:db8::1"),
            // A client of the proxy's own network is one, too.
            (Some("10.1.2.3"), &["198.51.100.2"], "10.1.2.3"),
            (None, &["198.51.100.2"], "198.51.100.2"),
            (None, &[], "10.0.0.1"),
        ];
        for (real_ip, forwarded_for, expected) in rows {
            assert_client("10.0.0.1", *real_ip, forwarded_for, expected);
            assert_client("::ffff:10.0.0.1", *real_ip, forwarded_for, expected);
        }
    }

    #[test]
    fn of_many_hops_the_last_that_is_not_trusted_counts() {
        let rows: &[(&[&str], &str)] = &[
            (&["1.1.1.1, 2.2.2.2"], "2.2.2.2"),
            (&["1.1.1.1, 2.2.2.2, 10.0.0.2, 192.168.0.1"], "2.2.2.2"),
            (&["1.1.1.1", "2.2.2.2,10.0.0.2", "10.0.0.3"], "2.2.2.2"),
            (&["1.1.1.1,\t[2001:db8::2]:9 , 127.0.0.1:80"], "2001:db8::2"),
            (&["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
            // What stands before something that is no address is nobody's word.
            (&["1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["1.1.1.1,,"], "10.0.0.1"),
            (&["1.1.1.1", ""], "10.0.0.1"),
            (&["1.1.1.1, 2.2.2.2.2"], "10.0.0.1"),
            (&["1.1.1.1, [2.2.2.2]"], "10.0.0.1"),
            (&["1.1.1.1, _hidden, 2.2.2.2"], "2.2.2.2"),
        ];
        for (forwarded_for, expected) in rows {
            assert_client("10.0.0.1", None, forwarded_for, expected);
        }
    }

    #[test]
    fn an_address_that_is_none_is_as_if_it_were_not_there() {
        for garbage in ["", "unknown", "1.2.3", "1.2.3.4, 5.6.7.8", "1.2.3.4:99999", "[::1", "fe80::1%eth0"] {
            assert_client("10.0.0.1", Some(garbage), &["198.51.100.2"], "198.51.100.2");
            assert_client("10.0.0.1", Some(garbage), &[], "10.0.0.1");
        }
    }

    #[test]
    fn the_way_back_is_bounded() {
        let hops = vec!["10.9.9.9"; limits::FORWARDED_HOPS_MAX].join(",");
        assert_client("10.0.0.1", None, &["1.1.1.1", &hops], "10.9.9.9");
        let hops = vec!["10.9.9.9"; limits::FORWARDED_HOPS_MAX - 1].join(",");
        assert_client("10.0.0.1", None, &["1.1.1.1", &hops], "1.1.1.1");
    }

    #[test]
    fn nobody_may_be_trusted() {
        let loopback = "127.0.0.1".parse().unwrap();
        let client = client_address(loopback, &TrustedProxies::default(), Some("198.51.100.1"), &["198.51.100.2"]);
        assert_eq!(client, loopback);
    }
}
