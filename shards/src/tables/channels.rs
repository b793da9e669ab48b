//! Channels with a subscriber on this shard: name to slots.
use super::tenants::TenantIndex;
use crate::key::ConnKey;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Index of a channel; valid while it has a subscriber here.
pub type ChannelIndex = u32;

/// One subscriber: the connection's slot, and where in the connection's own list this subscription stands, so that
/// either side can leave in constant time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The connection's slot.
    pub slot: u32,
    /// Index into the connection's subscriptions.
    pub subscription: u32,
}

/// One channel on this shard.
#[derive(Debug)]
pub struct Channel {
    /// Whose channel.
    pub tenant: TenantIndex,
    /// Bare name.
    pub name: Box<str>,
    /// Whom a publish reaches.
    pub members: Vec<Member>,
    /// Tells one life of a channel of this name from the next in messages that were on their way.
    pub serial: u32,
    /// Whether the line's owner knows that this shard has subscribers.
    pub joined: bool,
    /// Connections whose reply waits for that.
    pub waiting: Vec<ConnKey>,
}

/// The table.
#[derive(Default)]
pub struct Channels {
    list: Vec<Option<Channel>>,
    free: Vec<ChannelIndex>,
    index: HashTable<ChannelIndex>,
    hasher: RandomState,
    serials: u32,
}

impl Channels {
    /// Finds a channel that has a subscriber here.
    pub fn find(&self, tenant: TenantIndex, name: &str) -> Option<ChannelIndex> {
        let hash = self.hasher.hash_one((tenant, name));
        let is_it = |channel: &Channel| channel.tenant == tenant && &*channel.name == name;
        self.index.find(hash, |at| self.list[*at as usize].as_ref().is_some_and(is_it)).copied()
    }

    /// Adds a channel that is about to get its first subscriber here.
    pub fn insert(&mut self, tenant: TenantIndex, name: &str) -> ChannelIndex {
        let hash = self.hasher.hash_one((tenant, name));
        self.serials = self.serials.wrapping_add(1);
        let channel = Channel {
            tenant,
            name: name.into(),
            members: Vec::with_capacity(1),
            serial: self.serials,
            joined: false,
            waiting: Vec::new(),
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.list[at as usize] = Some(channel);
                at
            }
            None => {
                self.list.push(Some(channel));
                (self.list.len() - 1) as ChannelIndex
            }
        };
        let Channels { list, index, hasher, .. } = self;
        index.insert_unique(hash, at, |at| match &list[*at as usize] {
            Some(channel) => hasher.hash_one((channel.tenant, &*channel.name)),
            None => 0,
        });
        at
    }

    /// Forgets a channel whose last subscriber here went.
    pub fn remove(&mut self, at: ChannelIndex) -> Option<Channel> {
        let channel = self.list.get_mut(at as usize)?.take()?;
        let hash = self.hasher.hash_one((channel.tenant, &*channel.name));
        if let Ok(entry) = self.index.find_entry(hash, |candidate| *candidate == at) {
            entry.remove();
        }
        self.free.push(at);
        Some(channel)
    }

    /// By index.
    pub fn get(&self, at: ChannelIndex) -> Option<&Channel> {
        self.list.get(at as usize)?.as_ref()
    }

    /// By index.
    pub fn get_mut(&mut self, at: ChannelIndex) -> Option<&mut Channel> {
        self.list.get_mut(at as usize)?.as_mut()
    }

    /// Every channel.
    pub fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.list.iter().flatten()
    }

    /// Every channel of a tenant.
    pub fn of_tenant(&self, tenant: TenantIndex) -> impl Iterator<Item = &Channel> {
        self.iter().filter(move |channel| channel.tenant == tenant)
    }
}
