//! Who is connected where, in Redis, for whoever reads it; no delivery depends on it.
//!
//! | key (contract §12.1) | type | what | expires after |
//! |---|---|---|---|
//! | `{prefix}:conn:{connection}` | string | the session as JSON | ttl |
//! | `{prefix}:user:{scoped}` | set | nodes with a connection of the user | ttl |
//! | `{prefix}:users` | set | users with a connection | 2 × ttl |
//! | `{prefix}:server:{server_id}` | string | connections of the node | ttl |
//! | `{prefix}:channel:{scoped}` | set | nodes with a subscriber | ttl |
//!
//! `{scoped}` is the name, with its tenant before it unless that is `default`.
//!
//! Everything expires, so each node writes its own again before that. A node that died is looked for whenever a set is
//! refreshed, and a user whom no node has is found by a walk over the set of users ([`Sessions::sweep`]): what is left
//! behind is gone after the time to live, whoever else goes on.
//!
//! Each act is one command and costs the same however many connections there are. Some touch several keys: in a
//! Redis Cluster the prefix has a hash tag ([`crate::redis::partitions::meeting`]), so that all are in one slot.
use crate::redis::commands::reply::Reply;
use crate::redis::commands::script::Script;
use crate::redis::commands::status::Operation;
use crate::redis::commands::{Command, Words};
use crate::redis::mailbox::keys::scoped;
use crate::redis::mailbox::page::{UnexpectedReply, number, read_items};
use protocol::cluster::Session;
use protocol::ids::{ConnectionId, TenantId};
use protocol::limits;

static JOIN: Script = Script::new("session_join", include_str!("scripts/session_join.lua"));
static LEAVE: Script = Script::new("session_leave", include_str!("scripts/session_leave.lua"));
static SWEEP: Script = Script::new("session_sweep", include_str!("scripts/session_sweep.lua"));

/// All scripts of sessions, for a link to load at its start.
pub static SCRIPTS: [&Script; 3] = [&JOIN, &LEAVE, &SWEEP];

/// Whether a node that joins a set looks for dead ones in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// Something has just begun.
    First,
    /// It is written again; nodes that are gone leave the set.
    Again,
}

/// How far a walk over the set of all users has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Where to go on; `0` when the walk is over.
    pub cursor: u64,
    /// Users that were taken out.
    pub gone: u64,
}

impl Swept {
    /// Reads the answer to a sweep.
    ///
    /// # Errors
    /// [`UnexpectedReply`].
    pub fn read(reply: Reply<'_>) -> Result<Swept, UnexpectedReply> {
        read_items(reply, |items| Some(Swept { cursor: number(items.next()?)?, gone: number(items.next()?)? }))
    }
}

/// The keys of one node.
#[derive(Clone, Debug)]
pub struct Sessions {
    prefix: String,
    server_id: String,
    /// `{prefix}:users`
    users: Vec<u8>,
    ttl_seconds: String,
}

impl Sessions {
    /// `CLUSTER_SESSION_PREFIX`, the node's own id and `CLUSTER_SESSION_TTL_SECONDS`; 0 counts as 1.
    pub fn new(prefix: &str, server_id: &str, ttl_seconds: u64) -> Sessions {
        Sessions {
            prefix: prefix.to_owned(),
            server_id: server_id.to_owned(),
            users: format!("{prefix}:users").into_bytes(),
            ttl_seconds: ttl_seconds.max(1).to_string(),
        }
    }

    /// A connection is there, as it is now.
    pub fn open<R>(&self, session: &Session, submit: impl FnOnce(Command<'_>) -> R) -> R {
        let mut json = Vec::with_capacity(256);
        session.write(&mut json, &self.server_id);
        plain(&[b"SET", &self.connection(session.connection), &json, b"EX", self.ttl_seconds.as_bytes()], submit)
    }

    /// A connection is gone.
    pub fn close<R>(&self, connection: ConnectionId, submit: impl FnOnce(Command<'_>) -> R) -> R {
        plain(&[b"DEL", &self.connection(connection)], submit)
    }

    /// The node has a connection of the user.
    pub fn join_user<R>(
        &self,
        tenant: &TenantId,
        user: &str,
        joining: Joining,
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> R {
        let user = scoped(tenant, user);
        self.join(&[&self.key("user", &user), &self.users], &user, joining, submit)
    }

    /// The node has none any more.
    pub fn leave_user<R>(&self, tenant: &TenantId, user: &str, submit: impl FnOnce(Command<'_>) -> R) -> R {
        let user = scoped(tenant, user);
        script(&LEAVE, &[&self.key("user", &user), &self.users], &[self.server_id.as_bytes(), &user], submit)
    }

    /// The node has a subscriber of the channel.
    pub fn join_channel<R>(
        &self,
        tenant: &TenantId,
        channel: &str,
        joining: Joining,
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> R {
        self.join(&[&self.key("channel", &scoped(tenant, channel))], b"", joining, submit)
    }

    /// The node has none any more.
    pub fn leave_channel<R>(&self, tenant: &TenantId, channel: &str, submit: impl FnOnce(Command<'_>) -> R) -> R {
        let key = self.key("channel", &scoped(tenant, channel));
        plain(&[b"SREM", &key, self.server_id.as_bytes()], submit)
    }

    /// The node is there and has so many connections.
    pub fn count<R>(&self, connections: u64, submit: impl FnOnce(Command<'_>) -> R) -> R {
        let connections = connections.to_string();
        plain(&[b"SET", &self.server(), connections.as_bytes(), b"EX", self.ttl_seconds.as_bytes()], submit)
    }

    /// The node leaves.
    pub fn leave<R>(&self, submit: impl FnOnce(Command<'_>) -> R) -> R {
        plain(&[b"DEL", &self.server()], submit)
    }

    /// Asks how many users there are in the cluster; answered with a number.
    pub fn users<R>(&self, submit: impl FnOnce(Command<'_>) -> R) -> R {
        plain(&[b"SCARD", &self.users], submit)
    }

    /// Looks at about [`limits::CLUSTER_SWEEP_USERS`] users from a cursor on; answered with [`Swept`].
    pub fn sweep<R>(&self, cursor: u64, submit: impl FnOnce(Command<'_>) -> R) -> R {
        let (cursor, count) = (cursor.to_string(), limits::CLUSTER_SWEEP_USERS.to_string());
        let prefix = self.key("user", b"");
        script(&SWEEP, &[&self.users], &[cursor.as_bytes(), count.as_bytes(), &prefix], submit)
    }

    fn join<R>(&self, keys: &[&[u8]], user: &[u8], joining: Joining, submit: impl FnOnce(Command<'_>) -> R) -> R {
        let servers = match joining {
            Joining::First => Vec::new(),
            Joining::Again => self.key("server", b""),
        };
        script(&JOIN, keys, &[self.ttl_seconds.as_bytes(), self.server_id.as_bytes(), &servers, user], submit)
    }

    fn connection(&self, connection: ConnectionId) -> Vec<u8> {
        let mut key = self.key("conn", b"");
        connection.write(&mut key);
        key
    }

    fn server(&self) -> Vec<u8> {
        self.key("server", self.server_id.as_bytes())
    }

    fn key(&self, kind: &str, name: &[u8]) -> Vec<u8> {
        [self.prefix.as_bytes(), b":", kind.as_bytes(), b":", name].concat()
    }
}

fn plain<R>(words: &[&[u8]], submit: impl FnOnce(Command<'_>) -> R) -> R {
    submit(Command { operation: Operation::ClusterSession, words: Words::Plain(words) })
}

fn script<R>(script: &'static Script, keys: &[&[u8]], arguments: &[&[u8]], submit: impl FnOnce(Command<'_>) -> R) -> R {
    submit(Command { operation: Operation::ClusterSession, words: Words::Script { script, keys, arguments } })
}
