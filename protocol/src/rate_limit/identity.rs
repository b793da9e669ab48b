//! Whom a limit counts: nobody who could choose it freely (C-6).
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who a request is counted against.
///
/// An IPv6 client is its /64: a household or a virtual machine has all 2^64 addresses of one to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Who has shown the node's API key. There is one key, so there is one of these.
    ApiKey,
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
}

impl Identity {
    /// Of a client that has shown no right key.
    pub fn of(address: IpAddr) -> Identity {
        match address.to_canonical() {
            IpAddr::V4(address) => Identity::V4(address),
            IpAddr::V6(address) => Identity::V6((address.to_bits() >> 64) as u64),
        }
    }

    /// The identifier that nodes share (contract §10.4): `key:{key_name}`, `ip:192.0.2.1`, `ip:2001:db8:1:2::/64`.
    /// `key_name` is [`key_name`] of the API key.
    pub fn write(self, out: &mut Vec<u8>, key_name: &str) {
        match self {
            Identity::ApiKey => {
                out.extend_from_slice(b"key:");
                out.extend_from_slice(key_name.as_bytes());
            }
            Identity::V4(address) => out.extend_from_slice(format!("ip:{address}").as_bytes()),
            Identity::V6(prefix) => {
                let address = Ipv6Addr::from_bits(u128::from(prefix) << 64);
                out.extend_from_slice(format!("ip:{address}/64").as_bytes());
            }
        }
    }
}

/// A name for an API key that does not tell it: the first 64 bits of a SHA-256, as 16 hexadecimal digits. Who can read the
/// keys of Redis can try guesses against it, which a key of 16 random bytes does not mind.
pub fn key_name(api_key: &[u8]) -> String {
    let digest = Sha256::new().chain_update(b"ara:ratelimit:").chain_update(api_key).finalize();
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(address: &str) -> Identity {
        Identity::of(address.parse().unwrap())
    }

    #[test]
    fn an_ipv6_client_is_its_64() {
        assert_eq!(identity("2001:db8:1:2::1"), identity("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(identity("2001:db8:1:2::1"), identity("2001:db8:1:3::1"));
        assert_ne!(identity("192.0.2.1"), identity("192.0.2.2"));
        assert_eq!(identity("::ffff:192.0.2.1"), identity("192.0.2.1"));
    }

    #[test]
    fn identifiers_tell_who_and_never_the_key() {
        let written = |identity: Identity| {
            let mut out = Vec::new();
            identity.write(&mut out, &key_name(b"0123456789abcdef"));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(identity("192.0.2.1")), "ip:192.0.2.1");
        assert_eq!(written(identity("2001:db8:1:2::1")), "ip:2001:db8:1:2::/64");
        let key = written(Identity::ApiKey);
        assert_eq!((key.len(), key.contains("0123456789")), (20, false), "{key}");
        assert_ne!(key_name(b"0123456789abcdef"), key_name(b"0123456789abcdeg"));
        assert_eq!(key_name(b"0123456789abcdef"), key_name(b"0123456789abcdef"), "all nodes agree");
    }

    #[test]
    fn an_identity_is_two_words() {
        assert!(size_of::<Identity>() <= 16);
    }
}
