//! Connections by the `jti` of their token, so that one that is revoked is found without a walk. A connection whose token
//! has none costs nothing here, another one some twenty bytes.
use super::tenants::TenantIndex;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// The table of one shard. It holds no text: whoever asks gets candidates and compares.
#[derive(Default)]
pub struct TokenIds {
    hasher: RandomState,
    entries: HashTable<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    hash: u64,
    slot: u32,
}

impl TokenIds {
    /// A connection has such a token now.
    pub fn enter(&mut self, tenant: TenantIndex, id: &str, slot: u32) {
        let hash = self.hash(tenant, id);
        self.entries.insert_unique(hash, Entry { hash, slot }, |entry| entry.hash);
    }

    /// It has it no longer.
    pub fn leave(&mut self, tenant: TenantIndex, id: &str, slot: u32) {
        let entry = Entry { hash: self.hash(tenant, id), slot };
        if let Ok(found) = self.entries.find_entry(entry.hash, |other| *other == entry) {
            found.remove();
        }
    }

    /// The slots of all connections whose token has this `jti`, and perhaps of a few others.
    pub fn candidates(&self, tenant: TenantIndex, id: &str) -> Vec<u32> {
        let hash = self.hash(tenant, id);
        self.entries.iter_hash(hash).filter(|entry| entry.hash == hash).map(|entry| entry.slot).collect()
    }

    /// Connections in the table.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn hash(&self, tenant: TenantIndex, id: &str) -> u64 {
        self.hasher.hash_one((tenant, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_may_have_several_connections() {
        let mut ids = TokenIds::default();
        for slot in 0..1_000 {
            ids.enter(slot % 2, &(slot / 20).to_string(), slot);
        }
        let mut found = ids.candidates(1, "3");
        found.sort_unstable();
        assert_eq!(found, [61, 63, 65, 67, 69, 71, 73, 75, 77, 79]);
        ids.leave(1, "3", 65);
        ids.leave(1, "3", 65);
        ids.leave(0, "3", 67);
        assert_eq!(ids.candidates(1, "3").len(), 9);
        assert_eq!((ids.len(), ids.candidates(2, "3").len()), (999, 0));
    }
}
