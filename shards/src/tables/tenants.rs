//! Tenants that ever had a connection on this shard or published through it, and the slots of their connections now.
use crate::tenant_limits::Allowance;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use protocol::ids::TenantId;
use std::hash::BuildHasher;

/// Index of a tenant in this shard's table; stays valid for the life of the shard.
pub type TenantIndex = u32;

/// One tenant on this shard.
#[derive(Debug)]
pub struct Tenant {
    /// Its name.
    pub name: TenantId,
    /// Slots of its connections: whom a broadcast reaches.
    pub members: Vec<u32>,
    /// Users with a connection here.
    pub users: u64,
    /// Connections ever registered here.
    pub connections_ever: u64,
    /// Dispatches that this shard took from publishers.
    pub sent: u64,
    /// Deliveries to its connections.
    pub delivered: u64,
    /// What it is held to; there from its first connection on.
    pub allowance: Option<Allowance>,
}

/// Entries above which a publisher's word makes no more: its dispatches are then not counted by tenant. Signed tokens
/// always make one.
const PUBLISHED_MAX: usize = 65_536;

/// The table.
#[derive(Default)]
pub struct Tenants {
    list: Vec<Tenant>,
    index: HashTable<TenantIndex>,
    hasher: RandomState,
}

impl Tenants {
    /// Finds a tenant.
    pub fn find(&self, name: &str) -> Option<TenantIndex> {
        let hash = self.hasher.hash_one(name);
        self.index.find(hash, |at| self.list[*at as usize].name.as_str() == name).copied()
    }

    /// Counts a dispatch.
    pub fn count_sent(&mut self, name: &TenantId) {
        let found = self.find(name.as_str());
        if let Some(at) = found.or_else(|| (self.list.len() < PUBLISHED_MAX).then(|| self.intern(name))) {
            self.get_mut(at).sent += 1;
        }
    }

    /// Finds or adds a tenant.
    pub fn intern(&mut self, name: &TenantId) -> TenantIndex {
        if let Some(found) = self.find(name.as_str()) {
            return found;
        }
        let at = self.list.len() as TenantIndex;
        self.list.push(Tenant {
            name: name.clone(),
            members: Vec::new(),
            users: 0,
            connections_ever: 0,
            sent: 0,
            delivered: 0,
            allowance: None,
        });
        let Tenants { list, index, hasher } = self;
        let hash = hasher.hash_one(name.as_str());
        index.insert_unique(hash, at, |at| hasher.hash_one(list[*at as usize].name.as_str()));
        at
    }

    /// By index.
    pub fn get(&self, at: TenantIndex) -> &Tenant {
        &self.list[at as usize]
    }

    /// By index.
    pub fn get_mut(&mut self, at: TenantIndex) -> &mut Tenant {
        &mut self.list[at as usize]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Tenant> {
        self.list.iter()
    }
}
