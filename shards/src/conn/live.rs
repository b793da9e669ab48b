//! A registered client, over WebSocket or SSE, at its user's home.
use super::outbox::Transport;
use crate::tables::channels::ChannelIndex;
use crate::tables::tenants::TenantIndex;
use crate::tables::users::UserIndex;
use protocol::auth::channels::ChannelRules;
use protocol::clock::Now;
use protocol::http::Version;
use protocol::ids::ConnectionId;
use protocol::rate_limit::{Bucket, Quota};
use protocol::store::{MailboxKey, Position};
use protocol::ws::close::CloseCode;
use protocol::ws::decoder::Decoder;
use std::sync::Arc;

/// A registered client. About 200 bytes; everything else about it is in the tables.
#[derive(Debug)]
pub struct Live {
    /// Public id.
    pub id: ConnectionId,
    /// Whose client.
    pub tenant: TenantIndex,
    /// Where in the tenant's members.
    pub tenant_position: u32,
    /// Which user.
    pub user: UserIndex,
    /// Where in the user's connections.
    pub user_position: u32,
    /// From the token.
    pub roles: Box<[Box<str>]>,
    /// Channels.
    pub subscriptions: Vec<Subscription>,
    /// From the token; the connection ends then.
    pub expires_at_unix_s: u64,
    /// From the token; 0 if it does not say, so that it is older than any that does.
    pub issued_at_unix_s: u64,
    /// What else the token says, if it does.
    pub permit: Option<Box<Permit>>,
    /// When it registered.
    pub opened_at_unix_s: u64,
    /// When it registered, on the monotonic clock.
    pub opened_at_ms: u64,
    /// When the client was last heard.
    pub heard_at_ms: u64,
    /// When the next heartbeat is due.
    pub heartbeat_at_ms: u64,
    /// Its reader of frames.
    pub decoder: Decoder,
    /// Which bytes it reads.
    pub transport: Transport,
    /// Frames wait until its first message is out (see [`Pending`]).
    pub held: bool,
    /// Whether it has all of its user's mail.
    pub intake: Intake,
    /// Something it asked for and waits for; its input waits, too.
    pub pending: Option<Box<Pending>>,
    /// What it may still say.
    pub messages: Bucket,
    /// It was told that it says too much, and nothing of it has passed since.
    pub is_told: bool,
}

/// What not every token says.
#[derive(Debug)]
pub struct Permit {
    /// What the token can be revoked by.
    pub id: Option<Box<str>>,
    /// What may be subscribed to; `None` is everything.
    pub channels: Option<ChannelRules>,
}

impl Permit {
    /// `None` when there is nothing to say.
    pub fn of(id: Option<Box<str>>, channels: Option<ChannelRules>) -> Option<Box<Permit>> {
        (id.is_some() || channels.is_some()).then(|| Box::new(Permit { id, channels }))
    }
}

impl Live {
    /// Whether its token lets it subscribe to a channel.
    pub fn permits(&self, channel: &str) -> bool {
        let rules = self.permit.as_ref().and_then(|permit| permit.channels.as_ref());
        rules.is_none_or(|rules| rules.allow(channel))
    }

    /// For how long it has been here, in milliseconds.
    pub fn here_ms(&self, now: Now) -> u64 {
        now.mono_ms().saturating_sub(self.opened_at_ms)
    }

    /// What its token can be revoked by.
    pub fn token_id(&self) -> Option<&str> {
        self.permit.as_ref()?.id.as_deref()
    }
}

/// Whether a connection has all of its user's mail (see `flow/mail.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// What is accepted from now on is delivered at once. Always so while the queue is off.
    UpToDate,
    /// It reads the mailbox; what is accepted meanwhile goes there, too.
    Behind {
        /// The last entry it has; `None` before the first.
        after: Option<Position>,
        /// A page is on its way, or the connection stands in line for one.
        reading: bool,
        /// It reads for what was not acknowledged in time.
        overdue: Option<Overdue>,
    },
}

impl Intake {
    /// It reads what stands behind an entry; all of the mailbox, if none.
    pub fn behind(after: Option<Position>) -> Intake {
        Intake::Behind { after, reading: false, overdue: None }
    }
}

/// What is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// What was last delivered at this time or before, in milliseconds on the monotonic clock. The rest is passed over.
    pub sent_until_ms: u64,
    /// The connection has had everything up to here: what is gone of that does not come again.
    pub had: Position,
}

/// One subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Which channel.
    pub channel: ChannelIndex,
    /// Where among its members.
    pub member: u32,
}

/// A reply that waits until the lines' owners know of this shard's first subscribers.
#[derive(Debug, Default)]
pub struct Pending {
    /// Joins still under way.
    pub joins: u32,
    /// Names to confirm, in the order asked.
    pub accepted: Vec<Box<str>>,
    /// What was refused, in words.
    pub refused: Vec<String>,
    /// For a new SSE stream: the reply is `connected`.
    pub connecting: bool,
    /// It was not even answered: see [`Awaits`].
    pub welcome: Option<Box<Welcome>>,
}

/// What a client of a cluster is not answered before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Awaits {
    /// The other nodes have yet to hear that its user is here.
    pub topic: bool,
    /// The cluster has yet to say whether it has room for one more.
    pub admission: bool,
}

/// What a client gets and begins with once it may.
#[derive(Debug)]
pub struct Welcome {
    /// What it waits for.
    pub awaits: Awaits,
    /// The answer to the WebSocket key.
    pub accept: Option<String>,
    /// Dialect of the response head.
    pub version: Version,
    /// For CORS.
    pub origin: Option<Box<str>>,
    /// What a refusal tells of the limit of its address.
    pub quota: Option<Quota>,
    /// `?channels=` of an SSE request.
    pub channels: Vec<Box<str>>,
}

/// A connection that ends.
#[derive(Debug)]
pub struct Closing {
    /// Which bytes it reads.
    pub transport: Transport,
    /// How far it is.
    pub stage: Stage,
    /// The socket is dropped then, unless it still takes bytes.
    pub deadline_ms: u64,
    /// How long it may take none.
    pub patience_ms: u64,
    /// The socket is dropped then, however steadily it takes bytes (see [`super::Connection::flush_by_ms`]).
    pub flush_by_ms: u64,
    /// For the client's own Close.
    pub decoder: Decoder,
    /// Where mail goes that is not written in the end.
    pub mailbox: Option<Arc<MailboxKey>>,
}

/// How far a connection's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// What waits goes out first; then a Close frame with this code (WebSocket), or the end of the body (SSE).
    Flushing(CloseCode),
    /// Our Close is queued or out; the client's is awaited.
    AwaitingClose,
    /// Only bytes are left to write; then FIN.
    Finishing,
    /// FIN is out; the peer's is awaited.
    Lingering,
}
