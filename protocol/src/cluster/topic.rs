//! Where nodes talk: topics, and what the Redis channels of topics are called.
//!
//! | topic | Redis channel under the routing prefix |
//! |---|---|
//! | everybody | `{route}` |
//! | a node | `{route}:{server_id}` |
//! | a user | `{route}:user:{tenant}:{user}` |
//! | a channel | `{route}:channel:{tenant}:{channel}` |
//!
//! No two topics share a name. A server id has no colon ([`ids::is_server_id`]) and the other two kinds have one behind
//! their first word. Neither has a tenant a colon (C-8), and every tenant is spelled out, `default` too: the user
//! `acme:u1` of `default` is `default:acme:u1`, and not the user `u1` of `acme`, as in the keys of mailboxes.
//!
//! In a Redis Cluster users and channels have a hash tag behind the prefix, `{route}:{tag}:user:…`, and each partition is listened to as a
//! whole as `{route}:{tag}` (`docs/decisions/0009-redis-cluster.md`); the other names stay.
use crate::ids::{self, TenantId};
use crate::notification::Target;

/// Something that nodes listen to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// A user with a connection.
    User(TenantId, Box<str>),
    /// A channel with a subscriber.
    Channel(TenantId, Box<str>),
    /// Every node.
    Everybody,
    /// One node, by its server id.
    Node(Box<str>),
}

impl Topic {
    /// Where a publish for this target is said.
    pub fn of(tenant: &TenantId, target: &Target) -> Topic {
        match target {
            Target::User(user) => Topic::User(tenant.clone(), user.clone()),
            Target::Channel(channel) => Topic::Channel(tenant.clone(), channel.clone()),
            Target::Users(_) | Target::Channels(_) | Target::Broadcast => Topic::Everybody,
        }
    }

    /// Appends the name of its Redis channel under the routing prefix.
    pub fn write(&self, out: &mut Vec<u8>, route: &str) {
        let mut write = |pieces: &[&str]| pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
        match self {
            Topic::User(tenant, user) => write(&[route, ":user:", tenant.as_str(), ":", user]),
            Topic::Channel(tenant, channel) => write(&[route, ":channel:", tenant.as_str(), ":", channel]),
            Topic::Everybody => write(&[route]),
            Topic::Node(server_id) => write(&[route, ":", server_id]),
        }
    }

    /// The topic of a Redis channel under the routing prefix. `None` when it is not the channel of any: of another
    /// prefix, or with a name that no tenant, user, channel or node can have.
    pub fn parse(route: &str, channel: &[u8]) -> Option<Topic> {
        let rest = std::str::from_utf8(channel).ok()?.strip_prefix(route)?;
        if rest.is_empty() {
            return Some(Topic::Everybody);
        }
        match rest.strip_prefix(':')?.split_once(':') {
            None => ids::is_server_id(&rest[1..]).then(|| Topic::Node(rest[1..].into())),
            Some(("user", scoped)) => {
                let (tenant, user) = split_scoped(scoped)?;
                ids::is_user_id(user).then(|| Topic::User(tenant, user.into()))
            }
            Some(("channel", scoped)) => {
                let (tenant, channel) = split_scoped(scoped)?;
                ids::is_channel_name(channel).then(|| Topic::Channel(tenant, channel.into()))
            }
            Some(_) => None,
        }
    }
}

fn split_scoped(scoped: &str) -> Option<(TenantId, &str)> {
    let (tenant, name) = scoped.split_once(':')?;
    let parsed = TenantId::parse(tenant)?;
    (parsed.as_str() == tenant).then_some((parsed, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const ROUTE: &str = "ara:cluster:route";

    fn name(topic: &Topic) -> String {
        let mut out = Vec::new();
        topic.write(&mut out, ROUTE);
        String::from_utf8(out).unwrap()
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    #[test]
    fn topics_have_their_names_and_come_back() {
        let rows = [
            (Topic::Everybody, "ara:cluster:route"),
            (Topic::Node("n2".into()), "ara:cluster:route:n2"),
            (Topic::User(tenant("default"), "u1".into()), "ara:cluster:route:user:default:u1"),
            (Topic::User(tenant("acme"), "u:1 é\n".into()), "ara:cluster:route:user:acme:u:1 é\n"),
            (Topic::User(tenant("acme"), "".into()), "ara:cluster:route:user:acme:"),
            (Topic::Channel(tenant("acme"), "訂單".into()), "ara:cluster:route:channel:acme:訂單"),
        ];
        for (topic, expected) in rows {
            assert_eq!(name(&topic), expected);
            assert_eq!(Topic::parse(ROUTE, expected.as_bytes()), Some(topic));
        }
    }

    #[test]
    fn no_two_topics_share_a_name() {
        let names =
            ["", "u", "user", "channel", "acme", "acme:u", "default:u", "user:acme:u", "channel:acme:u", ":", "::u"];
        let mut topics = vec![Topic::Everybody];
        for name in names {
            for tenant in ["default", "acme", "user", "channel"].map(tenant) {
                topics.push(Topic::User(tenant.clone(), name.into()));
                if ids::is_channel_name(name) {
                    topics.push(Topic::Channel(tenant, name.into()));
                }
            }
            if ids::is_server_id(name) {
                topics.push(Topic::Node(name.into()));
            }
        }
        let written: BTreeSet<String> = topics.iter().map(name).collect();
        assert_eq!(written.len(), topics.len());
        for topic in topics {
            assert_eq!(Topic::parse(ROUTE, name(&topic).as_bytes()), Some(topic));
        }
    }

    #[test]
    fn other_channels_are_no_topics() {
        let long = format!("ara:cluster:route:user:acme:{}", "u".repeat(256));
        let rows = [
            "",
            "ara:cluster",
            "ara:cluster:routes",
            "other:n2",
            "ara:cluster:route:",
            "ara:cluster:route:n 2",
            "ara:cluster:route:n2:x",
            "ara:cluster:route:users:acme:u1",
            "ara:cluster:route:user:u1",
            "ara:cluster:route:user::u1",
            "ara:cluster:route:user: acme:u1",
            "ara:cluster:route:user:ac me:u1",
            "ara:cluster:route:channel:acme:",
            "ara:cluster:route:channel:acme:a b",
            "ara:cluster:route:channel:acme:a:b",
            &long,
        ];
        for channel in rows {
            assert_eq!(Topic::parse(ROUTE, channel.as_bytes()), None, "{channel}");
        }
        assert_eq!(Topic::parse(ROUTE, b"ara:cluster:route:user:acme:\xff"), None);
    }
}
