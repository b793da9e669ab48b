//! What shards say to each other. Small values; what is large is shared by `Arc` or boxed.
use crate::key::{ConnKey, ShardId};
use crate::tables::buckets::Verdict;
use protocol::auth::revocation::Revocation;
use protocol::cluster::wire::Claim;
use protocol::cluster::{ClusterEvent, ClusterRequest};
use protocol::ids::TenantId;
use protocol::notification::Publication;
use protocol::publish::receipt::{Receipt, SessionRow};
use protocol::rate_limit::{Identity, LimitKind};
use protocol::stream::Places;
use protocol::template::Template;
use std::sync::Arc;

/// Where counts go: a gather of the shard that took the publish. Redis publishes have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The shard that answers the publisher.
    pub shard: ShardId,
    /// Its gather.
    pub gather: GatherId,
}

/// A gather of one shard; stale ids find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GatherId {
    /// Slot in the gather table.
    pub slot: u32,
    /// Generation of the slot.
    pub generation: u32,
}

/// One message of the mesh. Between two shards messages arrive in the order they were sent.
#[derive(Debug)]
pub enum Message {
    /// To a user's home: deliver to the user's connections.
    Mail {
        /// Target is a user, or users of which this home serves some.
        publication: Arc<Publication>,
        /// For `Users`: indices into the target list that live here.
        users: Option<Box<[u32]>>,
        /// This node took it. What another node took is for connections only.
        is_ours: bool,
        /// Every node keeps it, and only one may.
        claim: Option<Box<Claim>>,
        /// Who counts.
        reply: Option<ReplyTo>,
    },
    /// To the line's owner: give it its place in the order and pass it to every shard that has recipients.
    Line {
        /// Target is a channel, channels, or everybody.
        publication: Arc<Publication>,
        /// Who counts.
        reply: Option<ReplyTo>,
    },
    /// From the line's owner: deliver to your subscribers.
    Fanout {
        /// What.
        publication: Arc<Publication>,
        /// Where it stands in the streams that the line's owner numbers.
        places: Places,
        /// Who counts.
        reply: Option<ReplyTo>,
    },
    /// From the line's owner to the origin: how many receipts will come.
    Expect {
        /// Which gather.
        gather: GatherId,
        /// How many shards got the publication.
        parts: u32,
        /// Parcels to other nodes that are on their way, each to be answered by the bridge.
        parcels: u32,
    },
    /// To the origin: what one shard did.
    Receipt {
        /// Which gather.
        gather: GatherId,
        /// Its counts.
        receipt: Receipt,
    },
    /// To the line's owner: this shard has its first subscriber.
    Join(Box<Membership>),
    /// The answer to [`Message::Join`].
    Joined(Box<Membership>),
    /// To the line's owner: this shard's last subscriber left.
    Leave(Box<Membership>),
    /// A question about what only the asked shard knows.
    Ask {
        /// Where the answer goes.
        reply: ReplyTo,
        /// What is asked.
        question: Box<Question>,
    },
    /// Its answer.
    Answer {
        /// Which gather.
        gather: GatherId,
        /// What is known here.
        answer: Box<Answer>,
    },
    /// To the bridge shard: what is asked of the bridge to other nodes.
    Bridge(Box<ClusterRequest>),
    /// From the bridge shard: what the bridge tells.
    Cluster(Box<ClusterEvent>),
    /// To the home of a bucket: count a request.
    Count {
        /// The HTTP connection that waits, on the asking shard.
        connection: ConnKey,
        /// Against which limit.
        kind: LimitKind,
        /// Against whom.
        identity: Identity,
    },
    /// Its answer.
    Counted {
        /// Who waits.
        connection: ConnKey,
        /// What became of it.
        verdict: Verdict,
    },
    /// From the keeper of revocations: these tokens hold no longer.
    Revoke {
        /// Which.
        page: Arc<[Arc<Revocation>]>,
        /// Who counts the connections that end.
        reply: Option<ReplyTo>,
    },
    /// From the line's owner: keep this template, or forget it.
    Template {
        /// What to keep or forget.
        change: Arc<TemplateChange>,
        /// Who waits until every shard has it.
        reply: Option<ReplyTo>,
    },
}

const _: () = assert!(size_of::<Message>() <= 64, "a message is one cache line");

/// A channel on its way into or out of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Whose channel.
    pub tenant: TenantId,
    /// Bare name.
    pub channel: Box<str>,
    /// Which life of the channel on the joining shard.
    pub serial: u32,
}

/// A template, or the end of one.
#[derive(Clone, Debug)]
pub struct TemplateChange {
    /// Whose.
    pub tenant: TenantId,
    /// Bare id.
    pub id: Box<str>,
    /// What to keep; `None` forgets.
    pub template: Option<Arc<Template>>,
}

/// What an API route needs from other shards.
#[derive(Clone, Debug)]
pub enum Question {
    /// Every channel of a tenant with its subscribers on the shard.
    Channels(TenantId),
    /// Subscribers of one channel on the shard.
    Channel(TenantId, Box<str>),
    /// A user's subscriptions; asked at home.
    UserSubscriptions(TenantId, Box<str>),
    /// A user's connections; asked at home.
    UserSessions(TenantId, Box<str>),
    /// Tenants with figures; all, or one.
    Tenants(Option<TenantId>),
    /// End a user's connections; asked at home, and answered by a receipt.
    Disconnect(TenantId, Box<str>),
    /// Revoke tokens; asked of their keeper, and answered by receipts, or [`Answer::RevocationsFull`].
    Revoke(Arc<Revocation>),
    /// Create, change or delete a template; asked of the line's owner.
    Template(Box<TemplateWrite>),
}

/// A write to the templates, at the line's owner.
#[derive(Clone, Debug)]
pub struct TemplateWrite {
    /// Whose.
    pub tenant: TenantId,
    /// Bare id.
    pub id: Box<str>,
    /// What to do.
    pub act: TemplateAct,
    /// The writer's clock, for the template's times.
    pub unix_ns: u64,
}

/// What to do with a template.
#[derive(Clone, Debug)]
pub enum TemplateAct {
    /// Must not exist.
    Create(Arc<Template>),
    /// Must exist.
    Update(Arc<protocol::template::TemplateUpdate>),
    /// Must exist.
    Delete,
}

/// What a shard knows.
#[derive(Debug)]
pub enum Answer {
    /// To [`Question::Channels`].
    Channels(Vec<(Box<str>, u64)>),
    /// To [`Question::Channel`].
    Channel(u64),
    /// To [`Question::UserSubscriptions`]: connections, and the union of their channels.
    UserSubscriptions(u64, Vec<Box<str>>),
    /// To [`Question::UserSessions`].
    UserSessions(Vec<SessionRow>),
    /// To [`Question::Revoke`]: there is no room for one more.
    RevocationsFull,
    /// To [`Question::Tenants`].
    Tenants(Vec<TenantRow>),
    /// To [`Question::Template`]: the owner's verdict. On success `parts` more receipts follow from the other shards.
    Template(TemplateVerdict),
}

/// One tenant on one shard.
#[derive(Clone, Debug)]
pub struct TenantRow {
    /// Its name.
    pub tenant: TenantId,
    /// Connections now.
    pub connections: u64,
    /// Users now.
    pub users: u64,
    /// Connections ever.
    pub connections_ever: u64,
    /// Dispatches; counted by the shard that took them.
    pub sent: u64,
    /// Deliveries.
    pub delivered: u64,
}

/// How a template write ended.
#[derive(Clone, Debug)]
pub enum TemplateVerdict {
    /// Kept, or forgotten; every other shard will say so, too.
    Done {
        /// As it is now; `None` after a delete.
        template: Option<Arc<Template>>,
        /// Receipts that follow.
        parts: u32,
    },
    /// Create: there is one already.
    Exists,
    /// Update, delete: there is none.
    NotFound,
    /// Update: the merged result is not valid.
    Invalid(protocol::template::TemplateError),
    /// The tenant has as many as it may.
    Full,
    /// The owner does not have the templates yet.
    Loading,
    /// Another write to the same template is on its way, or the store failed.
    Unavailable,
}

impl TenantRow {
    /// Adds another shard's figures of the same tenant.
    pub fn add(&mut self, other: &TenantRow) {
        self.connections += other.connections;
        self.users += other.users;
        self.connections_ever += other.connections_ever;
        self.sent += other.sent;
        self.delivered += other.delivered;
    }
}
