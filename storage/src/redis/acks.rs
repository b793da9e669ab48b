//! Acknowledgements in Redis: which notifications were sent to whom and are not acknowledged.
//!
//! | key (contract §9.3) | type | what |
//! |---|---|---|
//! | `{prefix}:default:pending:{notification}` | hash | `data`: the JSON of the first recipient; TTL = timeout + 60 s |
//! | `{prefix}:default:timeout` | zset | what is pending, by when it expires, Unix seconds |
//! | `{prefix}:default:stats` | hash | `total_tracked`, `total_acked`, `total_expired`, `total_latency_ms` |
//!
//! A notification may have many recipients, and each acknowledges for itself (W-15). The first has the field and the
//! zset member that other versions know, `data` and the notification's id; beside `data` stand `user`, its scoped key,
//! and `sent`, in Unix milliseconds. Any other has the fields `data:{scoped}` and `sent:{scoped}` and the member
//! `{notification}:{scoped}`. So the size of the zset is the number of acknowledgements that are due.
//!
//! Each act is one script, so it happens wholly or not at all, and asks once. In a Redis
//! Cluster the prefix is that of a partition, whose keys are in one slot: see [`crate::redis::partitions`].
//!
//! Needs Redis 6.2 and nothing newer.
use crate::redis::commands::reply::Reply;
use crate::redis::commands::script::Script;
use crate::redis::commands::status::Operation;
use crate::redis::commands::{Command, Words};
use crate::redis::mailbox::keys::scoped;
use crate::redis::mailbox::page::{UnexpectedReply, number, read_items};
use protocol::clock::{self, Now};
use protocol::ids::{ConnectionId, NotificationId, TenantId};
use protocol::json;
use protocol::limits;
use uuid::Uuid;

static TRACK: Script = Script::new("ack_track", include_str!("scripts/ack_track.lua"));
static ACKNOWLEDGE: Script = Script::new("ack_acknowledge", include_str!("scripts/ack_acknowledge.lua"));
static EXPIRE: Script = Script::new("ack_expire", include_str!("scripts/ack_expire.lua"));
static STATS: Script = Script::new("ack_stats", include_str!("scripts/ack_stats.lua"));

/// All scripts of acknowledgements, for a link to load at its start.
pub static SCRIPTS: [&Script; 4] = [&TRACK, &ACKNOWLEDGE, &EXPIRE, &STATS];

/// What becomes of an acknowledgement that comes after its timeout and before the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// It is refused, and the notification counts as expired: mail is not kept for it.
    Refused,
    /// It counts like any other: the mail was kept.
    Taken,
}

/// What an acknowledgement came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// It was pending and is no more.
    Done {
        /// From when it was sent.
        latency_ms: u64,
    },
    /// Its time was over; it counts as expired.
    Late,
    /// It is not pending: acknowledged already, expired, never sent to this user, or nothing of ours.
    NotPending,
}

impl Acknowledged {
    /// Reads the answer to an acknowledgement.
    ///
    /// # Errors
    /// [`UnexpectedReply`].
    pub fn read(reply: Reply<'_>) -> Result<Acknowledged, UnexpectedReply> {
        read_items(reply, |items| match items.next()?.integer()? {
            0 => Some(Acknowledged::NotPending),
            1 => Some(Acknowledged::Done { latency_ms: number(items.next()?)? }),
            2 => Some(Acknowledged::Late),
            _ => None,
        })
    }
}

/// Somebody who did not acknowledge in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The notification.
    pub id: NotificationId,
    /// The scoped key of the recipient; unknown if the sweep came later than [`limits::REDIS_ACK_KEPT_SECONDS`].
    pub scoped: Option<Vec<u8>>,
}

impl Overdue {
    /// Reads the answer to an expiry. What is not of our form is left out; it is given up all the same.
    ///
    /// # Errors
    /// [`UnexpectedReply`].
    pub fn read(reply: Reply<'_>) -> Result<Vec<Overdue>, UnexpectedReply> {
        read_items(reply, |items| Some(items.filter_map(|item| Overdue::parse(item.bytes()?)).collect()))
    }

    fn parse(member: &[u8]) -> Option<Overdue> {
        let (id, rest) = member.split_at_checked(uuid::fmt::Hyphenated::LENGTH)?;
        let id = NotificationId(Uuid::try_parse_ascii(id).ok()?);
        match rest.split_first() {
            None => Some(Overdue { id, scoped: None }),
            Some((b':', scoped)) => Some(Overdue { id, scoped: Some(scoped.to_vec()) }),
            Some(_) => None,
        }
    }
}

/// The figures of the acknowledgements (contract §9.2); the totals count from the first use of the prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckStats {
    /// Due now.
    pub pending: u64,
    /// Ever due.
    pub tracked: u64,
    /// Ever acknowledged.
    pub acked: u64,
    /// Ever given up.
    pub expired: u64,
    /// From sending to acknowledging, all of them together.
    pub latency_ms: u64,
}

impl AckStats {
    /// Reads the answer to a question for the figures. A figure that is not there is 0.
    ///
    /// # Errors
    /// [`UnexpectedReply`].
    pub fn read(reply: Reply<'_>) -> Result<AckStats, UnexpectedReply> {
        read_items(reply, |items| {
            let mut next = || items.next().map(|item| number(item).unwrap_or(0));
            Some(AckStats { pending: next()?, tracked: next()?, acked: next()?, expired: next()?, latency_ms: next()? })
        })
    }
}

/// All acknowledgements under one prefix.
#[derive(Clone, Debug)]
pub struct Acks {
    /// What the keys of notifications begin with.
    pending: Vec<u8>,
    timeout: Vec<u8>,
    stats: Vec<u8>,
    timeout_seconds: u32,
}

impl Acks {
    /// `ACK_REDIS_PREFIX` and `ACK_TIMEOUT_SECONDS`; a timeout of 0 counts as 1.
    pub fn new(prefix: &str, timeout_seconds: u32) -> Acks {
        Acks {
            pending: format!("{prefix}:default:pending:").into_bytes(),
            timeout: format!("{prefix}:default:timeout").into_bytes(),
            stats: format!("{prefix}:default:stats").into_bytes(),
            timeout_seconds: timeout_seconds.max(1),
        }
    }

    /// Notes that a notification is sent to a connection of a user; answered with 1, or 0 if this user had it pending
    /// already, whose time then starts anew. To be submitted before the notification leaves, so that no acknowledgement
    /// overtakes it (W-16).
    pub fn track<R>(
        &self,
        id: NotificationId,
        tenant: &TenantId,
        user: &str,
        connection: ConnectionId,
        now: Now,
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> R {
        let timeout_seconds = u64::from(self.timeout_seconds);
        // Whole seconds, and not one too early.
        let expires = now.unix_ms().div_ceil(1_000).saturating_add(timeout_seconds);
        self.submit_on(
            id,
            Operation::AckTrack,
            &TRACK,
            &[
                id.to_string().as_bytes(),
                &scoped(tenant, user),
                &pending(id, user, connection, now),
                now.unix_ms().to_string().as_bytes(),
                expires.to_string().as_bytes(),
                (timeout_seconds + limits::REDIS_ACK_KEPT_SECONDS).to_string().as_bytes(),
            ],
            submit,
        )
    }

    /// A user acknowledges a notification; answered with [`Acknowledged`].
    pub fn acknowledge<R>(
        &self,
        id: NotificationId,
        tenant: &TenantId,
        user: &str,
        now: Now,
        late: Late,
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> R {
        self.submit_on(
            id,
            Operation::AckAcknowledge,
            &ACKNOWLEDGE,
            &[
                id.to_string().as_bytes(),
                &scoped(tenant, user),
                now.unix_ms().to_string().as_bytes(),
                if late == Late::Taken { b"1" } else { b"0" },
            ],
            submit,
        )
    }

    /// Gives up what was not acknowledged in time, at most [`limits::REDIS_ACK_EXPIRE_MAX`] of it; answered with a list of [`Overdue`].
    /// Each is given to one asker only, however many ask.
    pub fn expire<R>(&self, now: Now, count_max: u32, submit: impl FnOnce(Command<'_>) -> R) -> R {
        let (now_seconds, count) =
            (now.unix_seconds().to_string(), count_max.clamp(1, limits::REDIS_ACK_EXPIRE_MAX).to_string());
        submit(Command {
            operation: Operation::AckExpire,
            words: Words::Script {
                script: &EXPIRE,
                keys: &[&self.timeout, &self.stats],
                arguments: &[&self.pending[..], now_seconds.as_bytes(), count.as_bytes()],
            },
        })
    }

    /// Asks for the figures; answered with [`AckStats`].
    pub fn stats<R>(&self, submit: impl FnOnce(Command<'_>) -> R) -> R {
        submit(Command {
            operation: Operation::AckStats,
            words: Words::Script { script: &STATS, keys: &[&self.timeout, &self.stats], arguments: &[] },
        })
    }

    fn submit_on<R>(
        &self,
        id: NotificationId,
        operation: Operation,
        script: &'static Script,
        arguments: &[&[u8]],
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> R {
        let mut hash = self.pending.clone();
        id.write(&mut hash);
        let keys: [&[u8]; 3] = [&hash, &self.timeout, &self.stats];
        submit(Command { operation, words: Words::Script { script, keys: &keys, arguments } })
    }
}

/// The JSON of contract §9.3.
fn pending(id: NotificationId, user: &str, connection: ConnectionId, now: Now) -> Vec<u8> {
    let mut out = Vec::with_capacity(220);
    out.extend_from_slice(br#"{"notification_id":""#);
    id.write(&mut out);
    out.extend_from_slice(br#"","user_id":"#);
    json::write_string(&mut out, user);
    out.extend_from_slice(br#","connection_id":""#);
    connection.write(&mut out);
    out.extend_from_slice(br#"","sent_at":""#);
    clock::write_rfc3339(&mut out, now.unix_ns);
    out.extend_from_slice(br#""}"#);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::uuid_v7;

    #[test]
    fn the_json_of_what_is_pending_is_that_of_the_contract() {
        let id = NotificationId(uuid_v7(1, [0; 10]));
        let connection = ConnectionId(uuid_v7(2, [0; 10]));
        let now = Now { mono_us: 0, unix_ns: 1_767_323_045_123_456_789 };
        let text = String::from_utf8(pending(id, "a\"b", connection, now)).unwrap();
        let expected = "{\"notification_id\":\"00000000-0001-7000-8000-000000000000\",\"user_id\":\"a\\\"b\",\
                        \"connection_id\":\"00000000-0002-7000-8000-000000000000\",\
                        \"sent_at\":\"2026-01-02T03:04:05.123456789Z\"}";
        assert_eq!(text, expected);
    }

    #[test]
    fn members_name_a_notification_and_perhaps_a_recipient() {
        let id = NotificationId(uuid_v7(1, [0; 10]));
        let rows = [
            (format!("{id}"), Some(None)),
            (format!("{id}:acme:u:1"), Some(Some("acme:u:1"))),
            (format!("{id}:"), Some(Some(""))),
            (format!("{id}x"), None),
            ("x".repeat(36), None),
            (String::new(), None),
        ];
        for (member, user) in rows {
            let expected = user.map(|user| Overdue { id, scoped: user.map(|user| user.as_bytes().to_vec()) });
            assert_eq!(Overdue::parse(member.as_bytes()), expected, "{member}");
        }
    }
}
