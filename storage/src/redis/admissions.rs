//! Who was admitted in the whole cluster, so that limits of users and tenants hold for all nodes together.
//!
//! | key | type | what | expires after |
//! |---|---|---|---|
//! | `{prefix}:admitted:{tenant}` in braces | sorted set | the tenant's connections, by when they expire | ttl |
//! | the same, `:` and the user | sorted set | the user's connections, likewise | ttl |
//!
//! The prefix and the ttl are those of the keys of sessions. An entry lasts a ttl from when it was last written; nodes write
//! theirs again each third of it, so what a dead node leaves is gone after that time. All is counted by the clock of Redis.
//! Keys exist only where there is a limit.
//!
//! The tenant's name, which has no brace, stands in braces: both keys of a connection lie in one slot of a Redis Cluster,
//! under any prefix.
use crate::redis::commands::reply::Reply;
use crate::redis::commands::script::Script;
use crate::redis::commands::status::Operation;
use crate::redis::commands::{Command, Words};
use crate::redis::mailbox::page::{UnexpectedReply, number, read_items};
use protocol::cluster::{Admission, AdmissionRequest};
use protocol::ids::{ConnectionId, TenantId};

static ASK: Script = Script::new("admission_ask", include_str!("scripts/admission_ask.lua"));
static HOLD: Script = Script::new("admission_hold", include_str!("scripts/admission_hold.lua"));

/// All scripts of admissions, for a link to load at its start.
pub static SCRIPTS: [&Script; 2] = [&ASK, &HOLD];

/// Whether connections of a tenant are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Those of each user.
    pub by_user: bool,
    /// All of them.
    pub by_tenant: bool,
}

/// Reads the answer to [`Admissions::ask`].
///
/// # Errors
/// [`UnexpectedReply`].
pub fn read(reply: Reply<'_>) -> Result<Admission, UnexpectedReply> {
    read_items(reply, |items| match (number(items.next()?)?, number(items.next()?)?) {
        (0, _) => Some(Admission::Granted),
        (1, there) => Some(Admission::UserIsFull(there)),
        (2, there) => Some(Admission::TenantIsFull(there)),
        _ => None,
    })
}

/// The keys of all nodes.
#[derive(Clone, Debug)]
pub struct Admissions {
    prefix: String,
    ttl_ms: String,
}

impl Admissions {
    /// `CLUSTER_SESSION_PREFIX` and `CLUSTER_SESSION_TTL_SECONDS`; 0 counts as 1.
    pub fn new(prefix: &str, ttl_seconds: u64) -> Admissions {
        Admissions { prefix: prefix.to_owned(), ttl_ms: ttl_seconds.max(1).saturating_mul(1_000).to_string() }
    }

    /// Asks for room for a connection, and takes it if there is; answered with what [`read`] reads.
    pub fn ask<R>(&self, request: &AdmissionRequest, submit: impl FnOnce(Command<'_>) -> R) -> R {
        let AdmissionRequest { connection, tenant, user, connections_max, connections_per_user_max, .. } = request;
        let (user_max, tenant_max) = (connections_per_user_max.to_string(), connections_max.to_string());
        let of_tenant = self.of_tenant(tenant);
        script(
            &ASK,
            &[&of_user(&of_tenant, user), &of_tenant],
            &[&named(*connection), self.ttl_ms.as_bytes(), user_max.as_bytes(), tenant_max.as_bytes()],
            submit,
        )
    }

    /// These connections of one tenant, each with its user, are still there: they are written again, even above a limit.
    pub fn hold<R>(
        &self,
        tenant: &TenantId,
        counted: Counted,
        connections: &[(ConnectionId, &str)],
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> R {
        let of_tenant = self.of_tenant(tenant);
        let of_users: Vec<Vec<u8>> = connections.iter().map(|(_, user)| of_user(&of_tenant, user)).collect();
        let names: Vec<Vec<u8>> = connections.iter().map(|(connection, _)| named(*connection)).collect();
        let flag = |is_so: bool| if is_so { &b"1"[..] } else { b"0" };
        let keys: Vec<&[u8]> = [&of_tenant].into_iter().chain(&of_users).map(Vec::as_slice).collect();
        let mut arguments = vec![self.ttl_ms.as_bytes(), flag(counted.by_user), flag(counted.by_tenant)];
        arguments.extend(names.iter().map(Vec::as_slice));
        script(&HOLD, &keys, &arguments, submit)
    }

    /// A connection is gone: its room is another's. `submit` is called once for each key; what is not taken expires.
    pub fn give_back<R>(
        &self,
        connection: ConnectionId,
        tenant: &TenantId,
        user: &str,
        counted: Counted,
        mut submit: impl FnMut(Command<'_>) -> R,
    ) {
        let (of_tenant, name) = (self.of_tenant(tenant), named(connection));
        let mut forget = |key: &[u8]| {
            let words: [&[u8]; 3] = [b"ZREM", key, &name];
            submit(Command { operation: Operation::ClusterSession, words: Words::Plain(&words) });
        };
        if counted.by_user {
            forget(&of_user(&of_tenant, user));
        }
        if counted.by_tenant {
            forget(&of_tenant);
        }
    }

    fn of_tenant(&self, tenant: &TenantId) -> Vec<u8> {
        format!("{}:admitted:{{{tenant}}}", self.prefix).into_bytes()
    }
}

fn of_user(of_tenant: &[u8], user: &str) -> Vec<u8> {
    [of_tenant, b":", user.as_bytes()].concat()
}

fn named(connection: ConnectionId) -> Vec<u8> {
    let mut name = Vec::with_capacity(36);
    connection.write(&mut name);
    name
}

fn script<R>(script: &'static Script, keys: &[&[u8]], arguments: &[&[u8]], submit: impl FnOnce(Command<'_>) -> R) -> R {
    submit(Command { operation: Operation::ClusterSession, words: Words::Script { script, keys, arguments } })
}
