//! A set of shards, as bits.
use crate::key::ShardId;
use protocol::limits;

const _: () = assert!(limits::SHARDS_MAX == 128, "the set is 128 bits wide");

/// Which shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet(u128);

impl ShardSet {
    /// The first `shards`.
    pub fn all(shards: usize) -> ShardSet {
        if shards >= limits::SHARDS_MAX { ShardSet(u128::MAX) } else { ShardSet((1 << shards) - 1) }
    }

    /// Adds one.
    pub fn insert(&mut self, shard: ShardId) {
        self.0 |= 1 << shard.0;
    }

    /// Takes one out.
    pub fn remove(&mut self, shard: ShardId) {
        self.0 &= !(1 << shard.0);
    }

    /// Both together.
    pub fn union(self, other: ShardSet) -> ShardSet {
        ShardSet(self.0 | other.0)
    }

    /// Whether nobody is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// In ascending order.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        let mut bits = self.0;
        std::iter::from_fn(move || {
            (bits != 0).then(|| {
                let lowest = bits.trailing_zeros();
                bits &= bits - 1;
                ShardId(lowest as u8)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_come_out_in_order_and_once() {
        let mut set = ShardSet::default();
        for shard in [127, 3, 0, 3] {
            set.insert(ShardId(shard));
        }
        set.remove(ShardId(0));
        assert_eq!(set.iter().map(|s| s.0).collect::<Vec<_>>(), [3, 127]);
        assert_eq!((set.len(), ShardSet::all(128).len(), ShardSet::all(2).len()), (2, 128, 2));
    }
}
