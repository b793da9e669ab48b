//! What nodes say to each other: parcels, and their JSON.
//!
//! A parcel is the object of contract §12.2, its six keys first and with their meaning, and behind them `ara` with what
//! a node of the original does not know. Without `ara` it is the original's own message ([`Plain`]).
//!
//! | `ara.kind` | [`ParcelKind`] | `user_id`, `tenant_id` | `payload` | further keys of `ara` |
//! |---|---|---|---|---|
//! | `user` | `Publication` | the user | the message | those of a publication |
//! | `users`, `channel`, `channels`, `broadcast` | `Publication` | `""`, its tenant | the message | those of a publication, and `users`, `channel`, `channels`, or `audience` if there is one |
//! | `hint` | `Hint` | the user | the message | those of a publication, `position`, `before`, `attempt` |
//! | `receipt` | `Receipt` | | `""` | `gather`, `delivered_to`, `failed`, `queued`, `unkept` |
//! | `hello` | `Hello` | | `""` | `connections`, `users`, `started_unix_ms`, `reading_ms`, `first_read`, `version` |
//! | `bye` | `Bye` | | `""` | |
//! | `stored` | `Stored` | | `""` | `claims` |
//! | `template` | `Template` | `""`, its tenant | `""` | `id` |
//! | `canary` | `Canary` | | `""` | `number` |
//! | `question` | `Question` | the user | `""` | `gather` |
//! | `answer` | `Answer` | the user | `""` | `gather`, `sessions` |
//! | `disconnect` | `Disconnect` | the user | `""` | `gather` |
//! | `fence` | `Fence` | | `""` | `id`, `partitions` |
//! | `bundle` | `Bundle` | | `""` | `publications` |
//! | `revoked` | `Revoked` | the user or `""`, its tenant | `""` | `jti` or `before`; `until`; `gather` |
//!
//! Those of a publication are `priority`, `expires_at_unix_ms`, `stream` (epoch and seq; absent: not numbered) and
//! `gather` (who waits: shard, slot, generation). Those of a bundle are objects, each with its `kind`, the keys of that kind,
//! `tenant_id`, `user_id` if it is for a user, and the message itself as `message`; they have no `stream` and no `gather`. What is not there is absent, never `null`. Unknown keys are ignored, so
//! that a later version may add some.
//!
//! **Nodes of the original** read `{route}` and `{route}:{server_id}` only. What they can deliver, a message for a user,
//! says `"to_server":null` there, as they do. Everything else that is for every node says `"to_server":""`: nobody is
//! called that, so they pass over it without a word in their log. Here both mean every node.
mod bundle;
mod claim;
mod read;
mod write;

use crate::auth::revocation::Revocation;
use crate::clock::Now;
use crate::cluster::GatherTicket;
use crate::frame::{EventName, Frame};
use crate::ids::{NotificationId, TenantId};
use crate::limits;
use crate::notification::{Audience, Priority, Publication, Target};
use crate::publish::receipt::{Receipt, SessionRow};
use crate::store::Position;
use crate::stream::StreamSeq;
pub use bundle::{Bundle, Bundled};
pub use claim::Claim;
use std::fmt;
use std::sync::Arc;

/// What one node says to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Who says it: a server id, but in a [`Plain`] parcel any text of at most [`limits::SERVER_ID_BYTES_MAX`].
    pub from_server: Box<str>,
    /// Whom alone it is for; `None`: every node that hears it.
    pub to_server: Option<Box<str>>,
    /// What it says.
    pub kind: ParcelKind,
}

/// The kinds of parcels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParcelKind {
    /// A notification to hand to the recipients one has. The audience narrows a broadcast, and is absent otherwise.
    Publication {
        /// For whom.
        target: Target,
        /// Narrows a broadcast.
        audience: Option<Audience>,
        /// What.
        published: Published,
    },
    /// A notification that the mailbox of a user keeps.
    Hint {
        /// For whom.
        user: Box<str>,
        /// What.
        published: Published,
        /// Where it stands in the mailbox.
        position: Position,
        /// Where the entry before it stands; `None`: there is none, or nobody knows which.
        before: Option<Position>,
        /// Which delivery of it this is, from 1.
        attempt: u32,
    },
    /// What became of a publication at the sender.
    Receipt {
        /// Of the publication.
        ticket: GatherTicket,
        /// The sender's counts.
        receipt: Receipt,
    },
    /// The sender is alive. Its server id is the parcel's `from_server`.
    Hello(Hello),
    /// The sender leaves on purpose.
    Bye,
    /// The sender has stored what these claim; at most [`limits::CLUSTER_CLAIMS_MAX`].
    Stored(Vec<Claim>),
    /// A template was written or deleted; the store says what it is now.
    Template {
        /// Whose.
        tenant: TenantId,
        /// Its bare id.
        id: Box<str>,
    },
    /// Goes out and should come back.
    Canary(u64),
    /// Which sessions of a user the receiver has.
    Question {
        /// Comes back in the answer.
        ticket: GatherTicket,
        /// Whose user.
        tenant: TenantId,
        /// The user.
        user: Box<str>,
    },
    /// The sender's sessions of a user. Each row's server id is the parcel's `from_server`.
    Answer {
        /// Of the question.
        ticket: GatherTicket,
        /// Whose user.
        tenant: TenantId,
        /// The user.
        user: Box<str>,
        /// At most [`limits::CLUSTER_SESSIONS_MAX`].
        sessions: Vec<SessionRow>,
    },
    /// The receiver is to end its connections of a user, and to say how many in a receipt.
    Disconnect {
        /// Comes back in the receipt.
        ticket: GatherTicket,
        /// Whose user.
        tenant: TenantId,
        /// The user.
        user: Box<str>,
    },
    /// Tokens hold no longer.
    Revoked {
        /// Which.
        revocation: Arc<Revocation>,
        /// Who waits for receipts of how many connections ended.
        ticket: Option<GatherTicket>,
    },
    /// A publication of the sender reaches users or channels of several partitions of a Redis Cluster
    /// (`docs/decisions/0009-redis-cluster.md`): what the sender said before, in each of these, comes before it, and what it
    /// says there afterwards comes after it.
    Fence {
        /// Of the publication. It follows in the first of the partitions.
        id: NotificationId,
        /// Where this fence is put, at most [`limits::CLUSTER_PARTITIONS_MAX`].
        partitions: Vec<u8>,
    },
    /// Publications of the sender, in its order: those that it takes while it hears of no other node, for whoever begins
    /// meanwhile. At most [`limits::CLUSTER_BUNDLE_PUBLICATIONS_MAX`].
    Bundle(Vec<Bundled>),
    /// The original's own message.
    Plain(Plain),
}

/// What another node needs to make a [`Publication`] of, beside its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Given at acceptance. It stands in the message, so the wire does not say it twice.
    pub id: NotificationId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Urgency.
    pub priority: Priority,
    /// When it stops being worth delivering, by the wall clock, in milliseconds: monotonic clocks differ.
    pub expires_at_unix_ms: Option<u64>,
    /// Its place in its stream; [`StreamSeq::default`] if it has none.
    pub stream: StreamSeq,
    /// Who waits for receipts.
    pub ticket: Option<GatherTicket>,
    /// The notification message of contract §3.5: JSON without line breaks, with `type` and `id` first and the metadata
    /// last.
    pub message: Box<str>,
}

impl Published {
    /// What to tell other nodes of a publication.
    pub fn of(publication: &Publication, stream: StreamSeq, ticket: Option<GatherTicket>, now: Now) -> Published {
        Published {
            id: publication.id,
            tenant: publication.tenant.clone(),
            priority: publication.priority,
            expires_at_unix_ms: expires_at_unix_ms(publication, now),
            stream,
            ticket,
            message: std::str::from_utf8(publication.frame.json()).unwrap_or_default().into(),
        }
    }

    /// The publication again, on the clock of this process and accepted now. One whose time is over has expired.
    pub fn into_publication(self, target: Target, audience: Option<Audience>, now: Now) -> Publication {
        let expires_at_us = self.expires_at_unix_ms.map(|at_unix_ms| {
            let left_us = at_unix_ms.saturating_mul(1_000).saturating_sub(now.unix_ns / 1_000);
            now.mono_us.saturating_add(left_us)
        });
        Publication {
            id: self.id,
            tenant: self.tenant,
            target,
            audience,
            priority: self.priority,
            expires_at_us,
            accepted_at_us: now.mono_us,
            frame: Frame::new(EventName::Notification, Some(self.id), self.message.as_bytes()),
        }
    }
}

/// By the wall clock.
fn expires_at_unix_ms(publication: &Publication, now: Now) -> Option<u64> {
    publication.expires_at_us.map(|at_us| {
        let left_us = at_us.saturating_sub(now.mono_us);
        (now.unix_ns / 1_000).saturating_add(left_us).div_ceil(1_000)
    })
}

/// A node that is alive, as it says every second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who.
    pub server_id: Box<str>,
    /// Its connections now.
    pub connections: u64,
    /// Its users with a connection now.
    pub users: u64,
    /// When it started, by its wall clock, in milliseconds: tells a node from the one of the same name before it.
    pub started_unix_ms: u64,
    /// For how long it has read without a break what is published to Redis, in milliseconds. None while it does not.
    pub reading_ms: Option<u64>,
    /// The first mail that it has read since then: who has not read it began later.
    pub first_read: Option<Claim>,
    /// What it runs; at most [`limits::CLUSTER_VERSION_BYTES_MAX`], without control characters.
    pub version: Box<str>,
}

/// The original's own message: any server message of contract §3.5, for all connections of a user. Its `connection_id`
/// means nothing to a receiver, there as here, and is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Whose user.
    pub tenant: TenantId,
    /// The user.
    pub user: Box<str>,
    /// What SSE calls the message; follows from its `type`.
    pub event: EventName,
    /// The id of a notification; stands in the message.
    pub id: Option<NotificationId>,
    /// The message as it came, but for insignificant white space.
    pub message: Box<str>,
}

impl Plain {
    /// What the connections get.
    pub fn to_frame(&self) -> Frame {
        Frame::new(self.event, self.id, self.message.as_bytes())
    }
}

/// Why a parcel is skipped, or not sent. Ends in a counter and a log line, and neither may hold a piece of it (C-17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParcelError {
    /// Longer than [`limits::CLUSTER_PARCEL_BYTES_MAX`].
    TooLong {
        /// Bytes it has.
        bytes: usize,
    },
    /// Not one JSON value in UTF-8.
    NotJson,
    /// Nested deeper than [`limits::JSON_DEPTH_MAX`].
    TooDeep,
    /// A key is missing, ill-typed, doubled, or has a value that nothing of its kind can have; its name.
    BadShape(&'static str),
    /// A list is longer than its bound; its name.
    TooMany(&'static str),
    /// `ara.kind` is none of ours: a later version, perhaps.
    UnknownKind,
    /// `payload` is no server message.
    BadMessage,
}

impl ParcelError {
    /// The label of metrics and log lines.
    pub fn label(&self) -> &'static str {
        match self {
            ParcelError::TooLong { .. } => "too_long",
            ParcelError::NotJson => "not_json",
            ParcelError::TooDeep => "too_deep",
            ParcelError::BadShape(_) => "bad_shape",
            ParcelError::TooMany(_) => "too_many",
            ParcelError::UnknownKind => "unknown_kind",
            ParcelError::BadMessage => "bad_message",
        }
    }
}

impl fmt::Display for ParcelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParcelError::TooLong { bytes } => {
                write!(f, "parcel of {bytes} bytes exceeds the maximum of {}", limits::CLUSTER_PARCEL_BYTES_MAX)
            }
            ParcelError::NotJson => f.write_str("parcel is not JSON"),
            ParcelError::TooDeep => write!(f, "parcel is nested deeper than {} levels", limits::JSON_DEPTH_MAX),
            ParcelError::BadShape(key) => write!(f, "parcel lacks `{key}`, or has it doubled or ill-formed"),
            ParcelError::TooMany(key) => write!(f, "`{key}` of the parcel has too many values"),
            ParcelError::UnknownKind => f.write_str("`ara.kind` of the parcel is unknown to this version"),
            ParcelError::BadMessage => f.write_str("`payload` of the parcel is no server message"),
        }
    }
}

impl std::error::Error for ParcelError {}

impl Parcel {
    /// Appends the parcel. One that no receiver would take, by its bytes or the length of a list, is refused, and `out`
    /// is as it was.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), ParcelError> {
        write::check_lists(&self.kind)?;
        let start = out.len();
        write::parcel(out, self);
        let bytes = out.len() - start;
        if bytes > limits::CLUSTER_PARCEL_BYTES_MAX {
            out.truncate(start);
            return Err(ParcelError::TooLong { bytes });
        }
        Ok(())
    }

    /// Reads a parcel. Whether it is meant for the reader is another question: see [`Parcel::is_for`].
    pub fn decode(bytes: &[u8]) -> Result<Parcel, ParcelError> {
        read::parcel(bytes)
    }

    /// Whether a node should look at it: not its own, and not for another alone.
    pub fn is_for(&self, server_id: &str) -> bool {
        &*self.from_server != server_id && self.to_server.as_deref().is_none_or(|to_server| to_server == server_id)
    }

    /// Who waits for what the receivers say to it.
    pub fn ticket(&self) -> Option<GatherTicket> {
        match &self.kind {
            ParcelKind::Publication { published, .. } | ParcelKind::Hint { published, .. } => published.ticket,
            ParcelKind::Question { ticket, .. } | ParcelKind::Disconnect { ticket, .. } => Some(*ticket),
            ParcelKind::Revoked { ticket, .. } => *ticket,
            _ => None,
        }
    }
}
