//! Where mailboxes are kept.
//!
//! | key | type | what |
//! |---|---|---|
//! | `{prefix}:default:{scoped}` | stream | the entries, one field `data` (contract §8.3); TTL = that of messages |
//! | `{prefix}:meta:{` key of the stream `}` | hash | `depth`, `due`, `until`, and a mark for each entry |
//! | `{prefix}:gone:{` key of the stream `}` | zset | what was removed and lingers, all with score 0; TTL = [`limits::STORE_LINGER_MS`] from the last removal on |
//! | `{prefix}:claim:{` key of the stream `}:` hash | string | the greatest number that was claimed, `:`, and when, in ms; TTL = [`limits::REDIS_CLAIM_KEPT_SECONDS`] |
//! | `{prefix}:users` | zset | scoped keys of all mailboxes, by when the next entry expires, Unix milliseconds |
//! | `{prefix}:stats` | hash | `depth`, `enqueued`, `dropped`, `expired`, `delivered`, `undecodable` |
//!
//! The scoped key is the user's id, with `tenant:` before it for any tenant but `default` (contract §8.2). That form is
//! given; it does not tell the user `acme:u1` of the tenant `default` from the user `u1` of `acme`.
//!
//! **The sibling.** The meta hash keeps what the stream cannot: its braces make the stream's key its hash tag, so both
//! lie in one slot of a Redis Cluster. A stream whose own key has a hash tag, by its prefix or its user's id, has the
//! sibling `{prefix}:meta-tagged:{tag}:` and the key of the stream; claims and what lingers likewise. (A user id with `}` and without a whole tag has no
//! key that shares its slot; the sibling is in another then.) Marks are fields named by the entry's id, with the value
//! `epoch:seq:expires:deliveries`: the place in the user's stream, when it expires in Unix nanoseconds, and how many
//! deliveries have begun. `depth` is how many entries there were when a script last looked; `due` is not later than when
//! the first of them expires, and `until` when the TTL of the stream was to end, both in Unix milliseconds. The hash goes with the last entry. A stream that expires by itself leaves it behind for
//! [`limits::REDIS_META_KEPT_SECONDS`] at most, until a sweep has counted what is gone.
//!
//! **What lingers** are members of the form `ms-n mark data`: the id with both its numbers in 20 digits, the mark or nothing, and the
//! entry's `data`. Their order as texts is that of their ids, so ranges of them are found as ranges of a stream are, whatever
//! the order they were removed in. At most as many as a mailbox holds.
//!
//! The scripts also touch `users` and `stats`. In a Redis Cluster the prefix is that of a partition, with a hash tag that
//! puts all of them into one slot: see [`crate::redis::partitions`].
use protocol::ids::TenantId;
#[cfg(doc)]
use protocol::limits;

/// The keys of one mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxKeys {
    /// What the mailbox is called in `users`.
    pub scoped: Vec<u8>,
    /// The stream.
    pub stream: Vec<u8>,
    /// Its sibling.
    pub meta: Vec<u8>,
    /// What lingers of it.
    pub gone: Vec<u8>,
}

impl MailboxKeys {
    /// Those of a user.
    pub fn of_user(prefix: &str, tenant: &TenantId, user: &str) -> MailboxKeys {
        MailboxKeys::of_scoped(prefix, &scoped(tenant, user))
    }

    /// Those of a scoped key, as `users` holds it.
    pub fn of_scoped(prefix: &str, scoped: &[u8]) -> MailboxKeys {
        let stream = [prefix.as_bytes(), b":default:", scoped].concat();
        let meta = sibling(prefix, "meta", &stream);
        let gone = sibling(prefix, "gone", &stream);
        MailboxKeys { scoped: scoped.to_vec(), stream, meta, gone }
    }

    /// Where it stands which of equal messages were claimed for this mailbox; `hash` is theirs.
    pub fn claim(&self, prefix: &str, hash: u128) -> Vec<u8> {
        let mut key = sibling(prefix, "claim", &self.stream);
        key.extend_from_slice(format!(":{hash:032x}").as_bytes());
        key
    }
}

/// A key in the slot of a stream.
fn sibling(prefix: &str, name: &str, stream: &[u8]) -> Vec<u8> {
    let start = format!("{prefix}:{name}").into_bytes();
    match hash_tag(stream) {
        Some(tag) => [&start, &b"-tagged:{"[..], tag, b"}:", stream].concat(),
        None => [&start, &b":{"[..], stream, b"}"].concat(),
    }
}

/// The scoped key of contract §8.2.
pub fn scoped(tenant: &TenantId, user: &str) -> Vec<u8> {
    match tenant.is_default() {
        true => user.as_bytes().to_vec(),
        false => [tenant.as_str().as_bytes(), b":", user.as_bytes()].concat(),
    }
}

/// What a Redis Cluster hashes instead of the whole key: what stands between the first `{` and the next `}`, if anything
/// does.
fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')? + 1;
    let tag_bytes = key[open..].iter().position(|byte| *byte == b'}')?;
    (tag_bytes > 0).then(|| &key[open..open + tag_bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-16/XMODEM of what is hashed, as in the Redis Cluster specification.
    fn slot(key: &[u8]) -> u16 {
        let mut crc = 0_u16;
        for byte in hash_tag(key).unwrap_or(key) {
            crc ^= u16::from(*byte) << 8;
            for _ in 0..8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            }
        }
        crc % 16_384
    }

    #[test]
    fn the_slot_is_that_of_the_specification() {
        assert_eq!((slot(b"123456789"), slot(b"{user1000}.following")), (0x31c3, slot(b"user1000")));
        assert_eq!(hash_tag(b"foo{}{bar}"), None);
        assert_eq!(hash_tag(b"foo{{bar}}zap"), Some(&b"{bar"[..]));
        assert_eq!(hash_tag(b"foo{bar}{zap}"), Some(&b"bar"[..]));
    }

    #[test]
    fn keys_are_those_of_the_contract_and_the_sibling_is_beside_the_stream() {
        let acme = TenantId::parse("acme").unwrap();
        let default = TenantId::default_tenant();
        let rows = [
            ("ara:queue", &default, "u1", "ara:queue:default:u1", "ara:queue:meta:{ara:queue:default:u1}"),
            ("ara:queue", &acme, "u1", "ara:queue:default:acme:u1", "ara:queue:meta:{ara:queue:default:acme:u1}"),
            ("ara:queue", &default, "", "ara:queue:default:", "ara:queue:meta:{ara:queue:default:}"),
            ("q", &default, "a{b}c", "q:default:a{b}c", "q:meta-tagged:{b}:q:default:a{b}c"),
            ("{ara}:q", &default, "u1", "{ara}:q:default:u1", "{ara}:q:meta-tagged:{ara}:{ara}:q:default:u1"),
            ("q", &default, "é", "q:default:é", "q:meta:{q:default:é}"),
        ];
        for (prefix, tenant, user, stream, meta) in rows {
            let keys = MailboxKeys::of_user(prefix, tenant, user);
            assert_eq!(String::from_utf8(keys.stream.clone()).unwrap(), stream);
            assert_eq!(String::from_utf8(keys.meta.clone()).unwrap(), meta);
            let claim = keys.claim(prefix, 0xa1);
            assert_eq!(
                String::from_utf8(claim.clone()).unwrap(),
                format!("{}:{:032x}", meta.replacen("meta", "claim", 1), 0xa1)
            );
            assert_eq!(String::from_utf8(keys.gone.clone()).unwrap(), meta.replacen("meta", "gone", 1));
            assert_eq!([slot(&keys.meta), slot(&keys.gone), slot(&claim)], [slot(&keys.stream); 3], "{stream}");
            assert_eq!(MailboxKeys::of_scoped(prefix, &keys.scoped), keys);
        }
    }

    #[test]
    fn no_users_keys_are_anothers() {
        let users = [
            "u",
            "u:meta",
            "{u}",
            "{u}:q",
            "u}",
            "{",
            "{}",
            "meta:{u}",
            "gone:{u}",
            "default:u",
            "q:default:u",
            "a{b}c",
        ];
        let mut all = Vec::new();
        for user in users {
            let keys = MailboxKeys::of_user("q", &TenantId::default_tenant(), user);
            all.extend([keys.claim("q", 1), keys.stream, keys.meta, keys.gone]);
        }
        all.extend([b"q:users".to_vec(), b"q:stats".to_vec()]);
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
