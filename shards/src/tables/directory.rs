//! The line owner's directory: which shards have subscribers of which channel. A publish goes to those and no others.
use super::shard_set::ShardSet;
use crate::key::ShardId;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use protocol::ids::TenantId;

/// The table: kept only for the tenants whose line this shard owns.
#[derive(Default)]
pub struct Directory {
    tenants: HashMap<TenantId, HashMap<Box<str>, ShardSet, RandomState>, RandomState>,
    len: usize,
}

impl Directory {
    /// A shard got its first subscriber. True when it is the first shard.
    pub fn join(&mut self, tenant: &TenantId, channel: &str, shard: ShardId) -> bool {
        let channels = self.tenants.entry_ref(tenant).or_default();
        if let Some(set) = channels.get_mut(channel) {
            set.insert(shard);
            return false;
        }
        let mut set = ShardSet::default();
        set.insert(shard);
        channels.insert(channel.into(), set);
        self.len += 1;
        true
    }

    /// A shard lost its last subscriber. True when it was the last shard.
    pub fn leave(&mut self, tenant: &TenantId, channel: &str, shard: ShardId) -> bool {
        let Some(channels) = self.tenants.get_mut(tenant) else { return false };
        let Some(set) = channels.get_mut(channel) else { return false };
        set.remove(shard);
        if !set.is_empty() {
            return false;
        }
        channels.remove(channel);
        self.len -= 1;
        if channels.is_empty() {
            self.tenants.remove(tenant);
        }
        true
    }

    /// Whom a publish must reach.
    pub fn shards(&self, tenant: &TenantId, channel: &str) -> ShardSet {
        self.tenants.get(tenant).and_then(|channels| channels.get(channel)).copied().unwrap_or_default()
    }

    /// Channels with a subscriber anywhere on the node.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no channel has a subscriber.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_known_from_the_first_join_to_the_last_leave() {
        let (mut directory, acme) = (Directory::default(), TenantId::parse("acme").unwrap());
        directory.join(&acme, "orders", ShardId(0));
        directory.join(&acme, "orders", ShardId(5));
        assert_eq!(directory.shards(&acme, "orders").len(), 2);
        assert!(directory.shards(&TenantId::default_tenant(), "orders").is_empty(), "another tenant's channel");
        directory.leave(&acme, "orders", ShardId(0));
        directory.leave(&acme, "orders", ShardId(0));
        directory.leave(&acme, "orders", ShardId(5));
        assert!(directory.is_empty());
    }
}
