//! Names of shards and connections inside one process.

/// A shard of this node, `0..shards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u8);

impl ShardId {
    /// As an index into per-shard tables.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A connection of one shard: a slot and the generation that tells its tenants apart, so that a late event for a closed
/// connection never reaches the next one in the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnKey {
    /// Index into the shard's slab.
    pub slot: u32,
    /// Goes up each time the slot is given out.
    pub generation: u32,
}

impl ConnKey {
    /// Packed for epoll's user data.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// Unpacked from epoll's user data.
    pub fn from_u64(bits: u64) -> ConnKey {
        ConnKey { slot: bits as u32, generation: (bits >> 32) as u32 }
    }
}
