//! Who lives where: the same answer on every shard, without asking.
use crate::key::ShardId;
use foldhash::fast::FixedState;
use protocol::rate_limit::Identity;
use std::hash::BuildHasher;

/// The home of a user: every connection of the user lives there, and its mail is put in order there.
pub fn home(tenant: &str, user: &str, shards: usize) -> ShardId {
    pick(FixedState::with_seed(0x686f_6d65).hash_one((tenant, user)), shards)
}

/// The owner of a tenant's line: every channel and broadcast publish of the tenant passes it and gets its place in the
/// order. One owner for all channels of a tenant is what lets a publish to several channels reach each connection once.
pub fn line(tenant: &str, shards: usize) -> ShardId {
    pick(FixedState::with_seed(0x6c69_6e65).hash_one(tenant), shards)
}

/// The home of the buckets of an identity.
pub fn buckets(identity: Identity, shards: usize) -> ShardId {
    pick(FixedState::with_seed(0x6c69_6d69).hash_one(identity), shards)
}

/// Multiply-shift: the high bits decide, no division.
fn pick(hash: u64, shards: usize) -> ShardId {
    ShardId(((u128::from(hash) * shards as u128) >> 64) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_spread_evenly_and_stay_put() {
        let mut counts = [0u32; 8];
        for n in 0..8_000 {
            let user = format!("user-{n}");
            let shard = home("default", &user, 8);
            assert_eq!(shard, home("default", &user, 8));
            counts[shard.index()] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert_eq!(home("default", "ana", 1), ShardId(0));
    }
}
