//! Answers that wait for other shards: each is given exactly once, when everything came or its deadline passed.
use crate::key::ConnKey;
use crate::mesh::message::{GatherId, TemplateVerdict, TenantRow};
use crate::tables::slots::Slots;
use crate::tables::wheel::Tick;
use protocol::cluster::GatherTicket;
use protocol::ids::{NotificationId, TenantId};
use protocol::publish::receipt::{Receipt, SessionRow};
use std::collections::BTreeMap;

/// One waiting answer.
#[derive(Debug)]
pub struct Gather {
    /// The HTTP connection that waits.
    pub connection: ConnKey,
    /// Parts that are still to come. Goes below zero while a line's owner has not yet said how many it will be.
    pub missing: i64,
    /// Parcels to other nodes of which the bridge has not yet said how many nodes got them, and so how many more parts.
    /// Below zero when the bridge was quicker than the home that sent them.
    pub unsent: i64,
    /// Whether that is still open.
    pub open_ended: bool,
    /// When it answers with what it has.
    pub deadline_us: u64,
    /// Where it stands in the wheel.
    pub tick: Tick,
    /// What it collects.
    pub kind: GatherKind,
}

/// What a gather collects.
#[derive(Debug)]
pub enum GatherKind {
    /// Counts of a single send.
    Publish {
        /// Of the notification.
        id: NotificationId,
        /// Of the answer.
        unix_ns: u64,
        /// It is mail that is kept, so that a part that does not come is a mailbox nobody knows about.
        is_kept: bool,
        /// So far.
        tally: Receipt,
        /// Of it, what other nodes delivered.
        elsewhere: u64,
    },
    /// Counts of one item of a batch.
    BatchItem {
        /// Which item.
        index: usize,
        /// Of the notification.
        id: NotificationId,
        /// So far.
        tally: Receipt,
        /// Of it, what other nodes delivered.
        elsewhere: u64,
    },
    /// Counts of what another node took, on the bridge shard: nobody here waits for them.
    Parcel {
        /// That node.
        from: Box<str>,
        /// Its own gather.
        ticket: GatherTicket,
        /// So far.
        tally: Receipt,
    },
    /// Connections that a caller has ended.
    Ending {
        /// Which.
        which: Ending,
        /// So far: what was delivered to stands for those that ended.
        tally: Receipt,
        /// Of them, those of other nodes.
        elsewhere: u64,
        /// Somebody may not have been told.
        is_unsure: bool,
        /// Who was told, and has not answered in time.
        unconfirmed: u64,
    },
    /// All channels of a tenant.
    Channels(BTreeMap<Box<str>, u64>),
    /// One channel.
    Channel(Box<str>, u64),
    /// A user's subscriptions.
    UserSubscriptions(Box<str>, u64, Vec<Box<str>>),
    /// A user's connections.
    UserSessions {
        /// Who is asked for.
        user: Box<str>,
        /// So far.
        rows: Vec<SessionRow>,
        /// The other nodes could not be asked.
        is_blind: bool,
    },
    /// Tenants.
    Tenants(BTreeMap<TenantId, TenantRow>),
    /// One tenant.
    Tenant(TenantId, Option<TenantRow>),
    /// What a tenant may know of the node.
    TenantStatus(TenantId, Option<TenantRow>),
    /// A template write.
    Template {
        /// As the caller names it.
        id: Box<str>,
        /// 201, 200 or 204.
        status: u16,
        /// The owner's word; `None` until it came.
        verdict: Option<TemplateVerdict>,
    },
}

/// Whose connections end.
#[derive(Debug)]
pub enum Ending {
    /// All of a user.
    User(Box<str>),
    /// Those of tokens.
    Tokens {
        /// How long they are refused, in seconds since the Unix epoch.
        until_unix_s: u64,
        /// They are not: there is no room to remember it.
        is_full: bool,
    },
}

impl GatherKind {
    /// Nobody has ended yet.
    pub fn ending(which: Ending) -> GatherKind {
        GatherKind::Ending { which, tally: Receipt::default(), elsewhere: 0, is_unsure: false, unconfirmed: 0 }
    }
}

impl Gather {
    /// Whether everything came.
    pub fn is_complete(&self) -> bool {
        !self.open_ended && self.unsent == 0 && self.missing <= 0
    }
}

/// The table.
#[derive(Default)]
pub struct Gathers(Slots<Gather>);

impl Gathers {
    /// Opens one.
    pub fn insert(&mut self, gather: Gather) -> GatherId {
        let ConnKey { slot, generation } = self.0.insert(gather);
        GatherId { slot, generation }
    }

    /// By id, unless it was answered.
    pub fn get_mut(&mut self, id: GatherId) -> Option<&mut Gather> {
        self.0.get_mut(ConnKey { slot: id.slot, generation: id.generation })
    }

    /// By id, unless it was answered.
    pub fn get(&self, id: GatherId) -> Option<&Gather> {
        self.0.get(ConnKey { slot: id.slot, generation: id.generation })
    }

    /// Ends one.
    pub fn remove(&mut self, id: GatherId) -> Option<Gather> {
        self.0.remove(ConnKey { slot: id.slot, generation: id.generation })
    }

    /// Whether a connection's answer depends on one.
    pub fn waits_for(&self, connection: ConnKey) -> bool {
        self.0.keys().into_iter().any(|key| self.0.get(key).is_some_and(|gather| gather.connection == connection))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
