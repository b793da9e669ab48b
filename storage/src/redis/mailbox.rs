//! Mailboxes in Redis: what a user was sent while no connection took it, oldest first.
//!
//! Each act is one script, and so happens wholly or not at all: every script reads all its keys before it writes, so a
//! key of a wrong type changes nothing, and its first write is the one that a full server refuses. An act makes a
//! [`Command`] and gives it to whoever submits it; `read` of what it answers is beside it.
//!
//! **Removal follows delivery.** Reading takes nothing out. What was delivered, or acknowledged, is removed by its ids,
//! so mail that comes in between stays, and a reader that dies repeats rather than loses. For the same reason an
//! enqueue whose end is unknown may be repeated: a reader knows the second one by its notification id.
//!
//! **Order.** Of one mailbox, that of the enqueues; `seq` is dense within an `epoch`, so a hole is a removal.
//!
//! **Figures.** The scripts keep the depth of all mailboxes and their number; nothing is scanned. A mailbox that Redis
//! let expire, evicted, or that somebody deleted by hand keeps its place in the figures until one of the scripts looks
//! at it again: with the next enqueue, or when it is due for a sweep, which is no later than its stream's TTL. What it
//! held counts as expired then. Figures that were deleted or evicted themselves start anew, below what is there; the
//! depth is right again when a moment comes in which all mailboxes are empty.
//!
//! **Sweep.** [`Mailboxes::due`] names mailboxes in which something has expired, [`Mailboxes::sweep`] sweeps one. Any
//! number of nodes may do so at once. Streams of another writer that no script of ours ever touched are unknown to it;
//! they are read and emptied like any other when their user comes.
//!
//! Needs Redis 6.2 and nothing newer. The scripts are in `scripts/`; the keys in [`keys`].
pub mod keys;
pub mod page;

use crate::redis::commands::script::Script;
use crate::redis::commands::status::Operation;
use crate::redis::commands::{Command, Words};
use keys::{META_KEPT_SECONDS, MailboxKeys};
use page::StreamId;
use protocol::clock::{self, Now};
use protocol::ids::{NotificationId, TenantId};
use protocol::limits;

/// Entries of one page.
pub const PAGE_ENTRIES_MAX: u32 = 256;
/// Bytes of stored JSON above which a page ends; its last entry may go over.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of the stored JSON of one entry. Longer: it is not given to the submitter, or if another wrote it, read as
/// undecodable.
pub const ENTRY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Ids of one removal; more are to be removed by a second.
pub const REMOVE_IDS_MAX: usize = 1_000;

// A page and its last entry, with ids and marks, must fit a reply; a stored notification must fit an entry.
const _: () =
    assert!(PAGE_BYTES_MAX + ENTRY_BYTES_MAX + 200 * PAGE_ENTRIES_MAX as usize <= limits::REDIS_REPLY_BYTES_MAX);
const _: () = assert!(limits::REDIS_PAYLOAD_BYTES_MAX + 64 * 1024 <= ENTRY_BYTES_MAX);
const _: () = assert!(limits::RENDERED_BYTES_MAX + 64 * 1024 <= ENTRY_BYTES_MAX);

static ENQUEUE: Script = Script::new("mailbox_enqueue", include_str!("scripts/mailbox_enqueue.lua"));
static READ: Script = Script::new("mailbox_read", include_str!("scripts/mailbox_read.lua"));
static REMOVE: Script = Script::new(
    "mailbox_remove",
    concat!(include_str!("scripts/mailbox_settle.lua"), include_str!("scripts/mailbox_remove.lua")),
);
static SWEEP: Script = Script::new(
    "mailbox_sweep",
    concat!(include_str!("scripts/mailbox_settle.lua"), include_str!("scripts/mailbox_sweep.lua")),
);
static STATS: Script = Script::new("mailbox_stats", include_str!("scripts/mailbox_stats.lua"));

/// All scripts of mailboxes, for a link to load at its start.
pub static SCRIPTS: [&Script; 5] = [&ENQUEUE, &READ, &REMOVE, &SWEEP, &STATS];

/// A notification to be put into a mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Mail<'a> {
    /// The notification.
    pub id: NotificationId,
    /// The event object of contract §5: valid JSON without raw newlines.
    pub event: &'a [u8],
    /// When it occurred, in nanoseconds since the Unix epoch.
    pub occurred_unix_ns: u64,
    /// Its own `ttl` in seconds, counted from when it occurred (C-11).
    pub ttl_seconds: Option<u32>,
    /// How often it was sent already.
    pub attempts: u32,
}

/// Why entries leave a mailbox: under which figure they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// They were delivered, or acknowledged.
    Delivered,
    /// Their time is over.
    Expired,
    /// Nobody can read them.
    Undecodable,
}

impl Removal {
    fn figure(self) -> &'static str {
        match self {
            Removal::Delivered => "delivered",
            Removal::Expired => "expired",
            Removal::Undecodable => "undecodable",
        }
    }
}

/// The mail is longer than [`ENTRY_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailTooLarge {
    /// So long.
    pub bytes: usize,
}

/// All mailboxes under one prefix.
#[derive(Clone, Debug)]
pub struct Mailboxes {
    prefix: String,
    users: Vec<u8>,
    stats: Vec<u8>,
    max: String,
    ttl_seconds: u32,
}

impl Mailboxes {
    /// `QUEUE_REDIS_PREFIX`, `QUEUE_MAX_MESSAGES_PER_USER` and `QUEUE_MESSAGE_TTL_SECONDS`. A bound or a TTL of 0 counts
    /// as 1.
    pub fn new(prefix: &str, entries_max: u32, ttl_seconds: u32) -> Mailboxes {
        Mailboxes {
            prefix: prefix.to_owned(),
            users: format!("{prefix}:users").into_bytes(),
            stats: format!("{prefix}:stats").into_bytes(),
            max: entries_max.max(1).to_string(),
            ttl_seconds: ttl_seconds.max(1),
        }
    }

    /// How long mail is kept at most.
    pub fn ttl_seconds(&self) -> u32 {
        self.ttl_seconds
    }

    /// Puts mail into a user's mailbox; answered with [`page::Enqueued`]. `epoch` names the mailbox's stream if it
    /// begins with this one; it should differ from any that the mailbox had before.
    ///
    /// # Errors
    /// [`MailTooLarge`]; nothing was submitted then.
    pub fn enqueue<R>(
        &self,
        tenant: &TenantId,
        user: &str,
        mail: &Mail<'_>,
        now: Now,
        epoch: u64,
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> Result<R, MailTooLarge> {
        let data = stored(mail, now);
        if data.len() > ENTRY_BYTES_MAX {
            return Err(MailTooLarge { bytes: data.len() });
        }
        let keys = MailboxKeys::of_user(&self.prefix, tenant, user);
        Ok(self.submit_on(
            &keys,
            Operation::QueueEnqueue,
            &ENQUEUE,
            &[
                &keys.scoped[..],
                &data,
                self.max.as_bytes(),
                now.unix_ms().to_string().as_bytes(),
                self.expires_unix_ms(mail, now).to_string().as_bytes(),
                self.ttl_seconds.to_string().as_bytes(),
                self.meta_seconds().to_string().as_bytes(),
                epoch.to_string().as_bytes(),
            ],
            submit,
        ))
    }

    /// Reads a page of a user's mailbox, from its oldest entry or from behind one; answered with [`page::Page`]. At
    /// most [`PAGE_ENTRIES_MAX`] entries.
    pub fn read<R>(
        &self,
        tenant: &TenantId,
        user: &str,
        behind: Option<StreamId>,
        entries_max: u32,
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> R {
        let keys = MailboxKeys::of_user(&self.prefix, tenant, user);
        let from = behind.map_or("-".to_owned(), |id| format!("({id}"));
        submit(Command {
            operation: Operation::QueueRead,
            words: Words::Script {
                script: &READ,
                keys: &[&keys.stream, &keys.meta],
                arguments: &[
                    from.as_bytes(),
                    entries_max.clamp(1, PAGE_ENTRIES_MAX).to_string().as_bytes(),
                    PAGE_BYTES_MAX.to_string().as_bytes(),
                    ENTRY_BYTES_MAX.to_string().as_bytes(),
                ],
            },
        })
    }

    /// Takes entries out of a user's mailbox, the first [`REMOVE_IDS_MAX`] of `ids`; answered with [`page::Removed`].
    /// `None` if there are no ids: then there is nothing to submit.
    pub fn remove<R>(
        &self,
        tenant: &TenantId,
        user: &str,
        ids: &[StreamId],
        why: Removal,
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> Option<R> {
        if ids.is_empty() {
            return None;
        }
        let keys = MailboxKeys::of_user(&self.prefix, tenant, user);
        let ids: Vec<String> = ids.iter().take(REMOVE_IDS_MAX).map(StreamId::to_string).collect();
        let meta_seconds = self.meta_seconds().to_string();
        let mut arguments = vec![&keys.scoped[..], why.figure().as_bytes(), meta_seconds.as_bytes()];
        arguments.extend(ids.iter().map(|id| id.as_bytes()));
        Some(self.submit_on(&keys, Operation::QueueRemove, &REMOVE, &arguments, submit))
    }

    /// Asks which mailboxes have something expired, the longest overdue first; answered with an array of scoped keys.
    pub fn due<R>(&self, now: Now, mailboxes_max: u32, submit: impl FnOnce(Command<'_>) -> R) -> R {
        let (now_ms, max) = (now.unix_ms().to_string(), mailboxes_max.to_string());
        let words: [&[u8]; 7] =
            [b"ZRANGEBYSCORE", &self.users, b"-inf", now_ms.as_bytes(), b"LIMIT", b"0", max.as_bytes()];
        submit(Command { operation: Operation::QueueDue, words: Words::Plain(&words) })
    }

    /// Takes what has expired out of a mailbox that [`Mailboxes::due`] named; answered with [`page::Removed`]. Looks at
    /// every entry of the mailbox.
    pub fn sweep<R>(&self, scoped: &[u8], now: Now, submit: impl FnOnce(Command<'_>) -> R) -> R {
        let keys = MailboxKeys::of_scoped(&self.prefix, scoped);
        self.submit_on(
            &keys,
            Operation::QueueSweep,
            &SWEEP,
            &[
                scoped,
                now.unix_ms().to_string().as_bytes(),
                (u64::from(self.ttl_seconds) * 1_000).to_string().as_bytes(),
                self.meta_seconds().to_string().as_bytes(),
            ],
            submit,
        )
    }

    /// Asks for the figures of all mailboxes; answered with [`page::MailboxStats`].
    pub fn stats<R>(&self, submit: impl FnOnce(Command<'_>) -> R) -> R {
        submit(Command {
            operation: Operation::QueueStats,
            words: Words::Script { script: &STATS, keys: &[&self.users, &self.stats], arguments: &[] },
        })
    }

    fn submit_on<R>(
        &self,
        keys: &MailboxKeys,
        operation: Operation,
        script: &'static Script,
        arguments: &[&[u8]],
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> R {
        let keys: [&[u8]; 4] = [&keys.stream, &keys.meta, &self.users, &self.stats];
        submit(Command { operation, words: Words::Script { script, keys: &keys, arguments } })
    }

    /// The sooner of the message's own end and that of all mail (C-11).
    fn expires_unix_ms(&self, mail: &Mail<'_>, now: Now) -> u64 {
        let kept = now.unix_ms().saturating_add(u64::from(self.ttl_seconds) * 1_000);
        let own =
            mail.ttl_seconds.map(|ttl| (mail.occurred_unix_ns / 1_000_000).saturating_add(u64::from(ttl) * 1_000));
        own.map_or(kept, |own| own.min(kept))
    }

    fn meta_seconds(&self) -> u64 {
        u64::from(self.ttl_seconds) + META_KEPT_SECONDS
    }
}

/// The JSON of contract §8.3.
fn stored(mail: &Mail<'_>, now: Now) -> Vec<u8> {
    let mut out = Vec::with_capacity(mail.event.len() + 140);
    out.extend_from_slice(br#"{"id":""#);
    mail.id.write(&mut out);
    out.extend_from_slice(br#"","event":"#);
    out.extend_from_slice(mail.event);
    out.extend_from_slice(br#","queued_at":""#);
    clock::write_rfc3339(&mut out, now.unix_ns);
    out.extend_from_slice(br#"","attempts":"#);
    out.extend_from_slice(mail.attempts.to_string().as_bytes());
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::uuid_v7;

    fn mail(ttl_seconds: Option<u32>) -> Mail<'static> {
        let id = NotificationId(uuid_v7(1, [0; 10]));
        Mail { id, event: br#"{"payload":1.0}"#, occurred_unix_ns: 5_000_000_000, ttl_seconds, attempts: 0 }
    }

    #[test]
    fn the_stored_json_is_that_of_the_contract() {
        let now = Now { mono_us: 0, unix_ns: 1_767_323_045_123_456_789 };
        let text = String::from_utf8(stored(&mail(None), now)).unwrap();
        let expected = "{\"id\":\"00000000-0001-7000-8000-000000000000\",\"event\":{\"payload\":1.0},\
                        \"queued_at\":\"2026-01-02T03:04:05.123456789Z\",\"attempts\":0}";
        assert_eq!(text, expected);
    }

    #[test]
    fn mail_ends_with_its_own_ttl_or_that_of_all_mail() {
        let mailboxes = Mailboxes::new("q", 0, 60);
        let now = Now { mono_us: 0, unix_ns: 10_000_000_000 };
        let rows = [(None, 70_000), (Some(1), 6_000), (Some(0), 5_000), (Some(64), 69_000), (Some(u32::MAX), 70_000)];
        for (ttl, expires) in rows {
            assert_eq!(mailboxes.expires_unix_ms(&mail(ttl), now), expires, "{ttl:?}");
        }
    }

    #[test]
    fn too_large_mail_and_empty_removals_are_not_submitted() {
        let mailboxes = Mailboxes::new("q", 10, 60);
        let event = vec![b'1'; ENTRY_BYTES_MAX];
        let large = Mail { event: &event, ..mail(None) };
        let tenant = TenantId::default_tenant();
        let submitted = |_: Command<'_>| panic!("nothing is to be submitted");
        let refused = mailboxes.enqueue(&tenant, "u", &large, Now::default(), 1, submitted);
        assert!(matches!(refused, Err(MailTooLarge { bytes }) if bytes > ENTRY_BYTES_MAX));
        assert!(mailboxes.remove(&tenant, "u", &[], Removal::Delivered, submitted).is_none());
    }

    #[test]
    fn scripts_use_what_redis_6_2_has() {
        // Every one of these, with the options the scripts give it, is in Redis 6.2.
        const COMMANDS: [&str; 26] = [
            "DEL",
            "EXISTS",
            "EXPIRE",
            "TTL",
            "TIME",
            "HDEL",
            "HEXISTS",
            "HGET",
            "HGETALL",
            "HINCRBY",
            "HLEN",
            "HMGET",
            "HSET",
            "XADD",
            "XDEL",
            "XLEN",
            "XRANGE",
            "XTRIM",
            "ZADD",
            "ZCARD",
            "ZRANGEBYSCORE",
            "ZREM",
            "ZSCORE",
            "GET",
            "SET",
            "INCR",
        ];
        for script in SCRIPTS.into_iter().chain(crate::redis::acks::SCRIPTS) {
            for call in script.body().split("call('").skip(1) {
                let (command, options) = call.split_once('\'').unwrap();
                assert!(COMMANDS.contains(&command), "{} in {}", command, script.name());
                let options = options.lines().next().unwrap();
                assert!(command != "EXPIRE" || !options.contains("'"), "{options} in {}", script.name());
            }
        }
    }
}
