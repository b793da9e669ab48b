//! Channels with a subscriber on this shard: name to slots.
use super::named::{Named, NamedTable};
use super::tenants::TenantIndex;
use crate::key::ConnKey;

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

impl Named for Channel {
    fn name(&self) -> (TenantIndex, &str) {
        (self.tenant, &self.name)
    }
}

/// The table.
#[derive(Default)]
pub struct Channels {
    table: NamedTable<Channel>,
    serials: u32,
}

impl Channels {
    /// Finds a channel that has a subscriber here.
    pub fn find(&self, tenant: TenantIndex, name: &str) -> Option<ChannelIndex> {
        self.table.find(tenant, name)
    }

    /// Adds a channel that is about to get its first subscriber here.
    pub fn insert(&mut self, tenant: TenantIndex, name: &str) -> ChannelIndex {
        self.serials = self.serials.wrapping_add(1);
        self.table.insert(Channel {
            tenant,
            name: name.into(),
            members: Vec::with_capacity(1),
            serial: self.serials,
            joined: false,
            waiting: Vec::new(),
        })
    }

    /// Forgets a channel whose last subscriber here went.
    pub fn remove(&mut self, at: ChannelIndex) -> Option<Channel> {
        self.table.remove(at)
    }

    /// By index.
    pub fn get(&self, at: ChannelIndex) -> Option<&Channel> {
        self.table.get(at)
    }

    /// By index.
    pub fn get_mut(&mut self, at: ChannelIndex) -> Option<&mut Channel> {
        self.table.get_mut(at)
    }

    /// Every channel.
    pub fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.table.iter()
    }

    /// Every channel of a tenant.
    pub fn of_tenant(&self, tenant: TenantIndex) -> impl Iterator<Item = &Channel> {
        self.iter().filter(move |channel| channel.tenant == tenant)
    }
}
