//! The language between the shards and what outlives a connection. The engine carries it; neither side knows the other.
use crate::cluster::wire::Claim;
use crate::ids::{ConnectionId, NotificationId, TenantId};
#[cfg(doc)]
use crate::limits;
use crate::rate_limit::{Identity, LimitKind};
use crate::stream::StreamSeq;
use crate::template::Template;
use std::sync::Arc;

/// Names one request of one shard until its answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreTicket(pub u64);

/// A user's mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MailboxKey {
    /// Whose user.
    pub tenant: TenantId,
    /// The user.
    pub user: Box<str>,
}

/// Where an entry stands in its mailbox. Opaque to the shards; a later entry has a greater one. Redis: the two numbers of
/// a stream id; PostgreSQL and memory: a running number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64, pub u64);

/// A notification to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Of the notification.
    pub id: NotificationId,
    /// The event object of contract §5, byte for byte.
    pub event: Arc<[u8]>,
    /// When it was accepted, by the wall clock.
    pub queued_at_unix_ns: u64,
    /// When it stops being worth delivering, by the wall clock (C-11: the sooner of its own and the queue's).
    pub expires_at_unix_ns: u64,
    /// Deliveries begun so far. Reading an entry begins one.
    pub attempts: u32,
    /// Its place among all mail of this user; kept with it and given back.
    pub stream: StreamSeq,
}

/// A kept notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// What it is; `attempts` counts the delivery that this reading begins, unless the entry is gone.
    pub mail: Mail,
    /// How long ago it was put in, when it was read.
    pub age: Age,
    /// It was taken out of the mailbox, and lingers (see [`StoreRequest::RemoveMail`]).
    pub is_gone: bool,
}

impl Entry {
    /// An entry that stands in its mailbox and is older than anything that is asked for by its age.
    pub fn standing(position: Position, mail: Mail) -> Entry {
        Entry { position, mail, age: Age::UNKNOWN, is_gone: false }
    }
}

/// How long ago something was put in, by the store's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// Milliseconds since it can be there for others at the latest.
    pub least_ms: u64,
    /// Milliseconds since it can be there for others at the earliest.
    pub most_ms: u64,
}

impl Age {
    /// Longer ago than anybody asks for.
    pub const UNKNOWN: Age = Age { least_ms: u64::MAX, most_ms: u64::MAX };

    /// By a clock of whole milliseconds; it may have been there for others so much later than the clock says.
    pub fn of(ms: u64, commit_ms: u64) -> Age {
        Age { least_ms: ms.saturating_sub(commit_ms.saturating_add(1)), most_ms: ms.saturating_add(1) }
    }
}

/// What a shard asks of the store.
///
/// Requests about one mailbox come from one shard only, the user's home, and are done and answered in the order they were
/// asked.
#[derive(Clone, Debug)]
pub enum StoreRequest {
    /// Keep a template, new or changed; its id is the key within the tenant.
    PutTemplate {
        /// Whose it is.
        tenant: TenantId,
        /// What to keep.
        template: Arc<Template>,
    },
    /// Forget a template; forgetting an unknown one is done, too.
    DeleteTemplate {
        /// Whose it is.
        tenant: TenantId,
        /// Its bare id.
        id: Box<str>,
    },
    /// Every template kept, at start.
    LoadTemplates,
    /// Keep these behind what is there, in this order. Above the bound of the mailbox the oldest go.
    AppendMail {
        /// Whose mailbox.
        mailbox: Arc<MailboxKey>,
        /// What to keep.
        mail: Vec<Mail>,
        /// A claim that every node makes of the same mail (see [`Claim`]). The store takes a claim for a mailbox once, in the
        /// same atomic step; of one that was taken before nothing is kept, and the answer has no positions. It was taken before
        /// if one with this number or a greater one was, since the message can have been there; what was taken earlier was of
        /// another message, and the next number is put down for this one.
        claim: Option<Claim>,
    },
    /// The oldest entries behind a position. What has expired or cannot be read is dropped and counted.
    ReadMail {
        /// Whose mailbox.
        mailbox: Arc<MailboxKey>,
        /// From the oldest on, if `None`.
        after: Option<Position>,
        /// How many at most.
        entries_max: usize,
        /// What is gone but lingers, and was put in during the last so many milliseconds, is read, too, in its place. Not asked of
        /// a store that no other node writes to.
        lingering_ms: u64,
    },
    /// A delivery of these begins that nobody read from here. What is not there is passed over.
    BeginMail {
        /// Whose mailbox.
        mailbox: Arc<MailboxKey>,
        /// What is delivered.
        positions: Vec<Position>,
    },
    /// Forget these; forgetting what is not there is done, too.
    RemoveMail {
        /// Whose mailbox.
        mailbox: Arc<MailboxKey>,
        /// What to forget.
        positions: Vec<Position>,
        /// What was put in during the last [`limits::STORE_LINGER_MS`] can be read until that time is over, by who asks for it: a
        /// node that has not heard of it yet finds it there. At most as many as a mailbox holds; the oldest go.
        lingers: bool,
    },
    /// Note that a notification goes to a connection of a user, who is to acknowledge it. Asked only of a store that
    /// keeps such notes (`ACK_BACKEND`).
    TrackAck {
        /// Whose mail it is.
        mailbox: Arc<MailboxKey>,
        /// Of the notification.
        id: NotificationId,
        /// Where it goes.
        connection: ConnectionId,
    },
    /// A user acknowledges a notification. Asked only of a store that keeps such notes.
    Acknowledge {
        /// Who.
        mailbox: Arc<MailboxKey>,
        /// What.
        id: NotificationId,
        /// The mail is kept until it is acknowledged, so that it is never too late.
        is_kept: bool,
    },
    /// Count a request in the window that all nodes share (contract §10.4). Asked only of a store that counts
    /// (`RATELIMIT_BACKEND`).
    CountRequest {
        /// Against which limit.
        kind: LimitKind,
        /// Against whom.
        identity: Identity,
    },
}

/// What the store answers.
#[derive(Clone, Debug)]
pub enum StoreReply {
    /// It is kept, or forgotten.
    Done,
    /// Answer to [`StoreRequest::LoadTemplates`].
    Templates(Vec<(TenantId, Arc<Template>)>),
    /// Answer to [`StoreRequest::AppendMail`]: where each stands, and how many of the oldest had to go.
    Appended {
        /// One for each, in order; none when the claim was taken before.
        positions: Vec<Position>,
        /// The entry that was put in last before these, if it stands there or lingers.
        before: Option<Position>,
        /// The mailbox was full.
        dropped: u64,
    },
    /// Answer to [`StoreRequest::ReadMail`].
    Mail {
        /// Oldest first. May be empty though there are more: what was there had expired or could not be read.
        entries: Vec<Entry>,
        /// Behind which position to go on; `None` when nothing was behind this page.
        next: Option<Position>,
    },
    /// Answer to [`StoreRequest::Acknowledge`].
    Acknowledged(AckVerdict),
    /// Answer to [`StoreRequest::CountRequest`].
    Counted {
        /// How many there were in the window, this one included.
        count: u64,
        /// The end of the window, in milliseconds since the Unix epoch.
        ends_unix_ms: u64,
    },
    /// It was not done, and will not be.
    Failed,
    /// Nobody knows whether it was done; the caller must not pretend otherwise. It will not be done any more by the time
    /// that a later request about the same mailbox is done.
    Unknown,
}

/// What an acknowledgement came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckVerdict {
    /// It was awaited, and is no more.
    Done,
    /// Its time was over; it counts as expired.
    Late,
    /// Nobody awaits it.
    NotPending,
}
