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
//! **Order.** Of one mailbox, that of the enqueues. A mail's place in its user's stream is its owner's to give; it is kept
//! and given back.
//!
//! **Deliveries.** Reading an entry begins one, and is noted beside the entry, so that a reader that comes after a restart
//! knows of it. A server that takes no writes gives mail all the same; only this is not noted then.
//!
//! **Lingering.** Nodes that share a mailbox hear of what another put in a moment later than it is there, and by then it may
//! have been delivered and removed. So what is removed as [`Removal::Lingering`] can be read for as long as
//! [`limits::STORE_LINGER_MS`] after it was put in, in its place among what stands, by a reader that asks for it; an enqueue tells
//! of it as of what stands, and gives no id before it. It is not in the mailbox: no figure counts it, no delivery of it is
//! noted, and nobody takes it out but time and the bound of the mailbox.
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
use keys::MailboxKeys;
use protocol::clock::{self, Now};
use protocol::cluster::wire::Claim;
use protocol::ids::TenantId;
use protocol::limits;
use protocol::store::{Mail, Position};

static ENQUEUE: Script = Script::new(
    "mailbox_enqueue",
    concat!(include_str!("scripts/mailbox_lately.lua"), include_str!("scripts/mailbox_enqueue.lua")),
);
static READ: Script = Script::new(
    "mailbox_read",
    concat!(include_str!("scripts/mailbox_lately.lua"), include_str!("scripts/mailbox_read.lua")),
);
static BEGIN: Script = Script::new("mailbox_begin", include_str!("scripts/mailbox_begin.lua"));
static REMOVE: Script = Script::new(
    "mailbox_remove",
    concat!(
        include_str!("scripts/mailbox_lately.lua"),
        include_str!("scripts/mailbox_settle.lua"),
        include_str!("scripts/mailbox_remove.lua")
    ),
);
static SWEEP: Script = Script::new(
    "mailbox_sweep",
    concat!(include_str!("scripts/mailbox_settle.lua"), include_str!("scripts/mailbox_sweep.lua")),
);
static STATS: Script = Script::new("mailbox_stats", include_str!("scripts/mailbox_stats.lua"));

/// All scripts of mailboxes, for a link to load at its start.
pub static SCRIPTS: [&Script; 6] = [&ENQUEUE, &READ, &BEGIN, &REMOVE, &SWEEP, &STATS];

/// Why entries leave a mailbox: under which figure they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// They were delivered, or acknowledged.
    Delivered,
    /// Likewise, and they can be read for a while yet.
    Lingering,
    /// Their time is over.
    Expired,
    /// Nobody can read them.
    Undecodable,
}

impl Removal {
    /// How many positions one removal takes.
    pub fn positions_max(self) -> usize {
        match self {
            Removal::Lingering => limits::REDIS_REMOVE_LINGERING_MAX,
            Removal::Delivered | Removal::Expired | Removal::Undecodable => limits::REDIS_REMOVE_MAX,
        }
    }

    fn figure(self) -> &'static str {
        match self {
            Removal::Delivered | Removal::Lingering => "delivered",
            Removal::Expired => "expired",
            Removal::Undecodable => "undecodable",
        }
    }
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

    /// Puts mail into a user's mailbox, all of it or none; answered with [`page::Enqueued`]. `None` if there is no mail:
    /// then there is nothing to submit.
    ///
    /// With a claim the mail is put in if the claim's number is greater than every one that was claimed with this hash for
    /// this mailbox since the message may be there, at most in the last [`limits::REDIS_CLAIM_KEPT_SECONDS`]; the claim is taken
    /// in the same step.
    pub fn enqueue<R>(
        &self,
        tenant: &TenantId,
        user: &str,
        mail: &[Mail],
        claim: Option<Claim>,
        now: Now,
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> Option<R> {
        let first_ns = mail.iter().map(|mail| mail.expires_at_unix_ns).min()?;
        let keys = MailboxKeys::of_user(&self.prefix, tenant, user);
        // All texts in one piece of memory: a put-back has thousands of them.
        let mut texts = Vec::with_capacity(mail.iter().map(|mail| mail.event.len() + 260).sum());
        let mut ends = Vec::with_capacity(mail.len() * 2);
        for mail in mail {
            write_stored(&mut texts, mail);
            ends.push(texts.len());
            write_mark(&mut texts, mail);
            ends.push(texts.len());
        }
        let (now_ms, ttl) = (now.unix_ms().to_string(), self.ttl_seconds.to_string());
        let (meta, first) = (self.meta_seconds().to_string(), first_ns.div_ceil(1_000_000).to_string());
        let claim_key = claim.map(|claim| keys.claim(&self.prefix, claim.hash));
        let most_ms = limits::REDIS_CLAIM_KEPT_SECONDS * 1_000;
        let claimed = claim.map_or(String::new(), |claim| format!("{}:{}", claim.nth, claim.age_ms(now, most_ms)));
        let claim_kept = limits::REDIS_CLAIM_KEPT_SECONDS.to_string();
        let lingers_ms = limits::STORE_LINGER_MS.to_string();
        let mut arguments = Vec::with_capacity(9 + ends.len());
        arguments.extend([&keys.scoped[..], self.max.as_bytes(), now_ms.as_bytes()]);
        arguments.extend([
            ttl.as_bytes(),
            meta.as_bytes(),
            first.as_bytes(),
            claimed.as_bytes(),
            claim_kept.as_bytes(),
            lingers_ms.as_bytes(),
        ]);
        let mut from = 0;
        for to in ends {
            arguments.push(&texts[from..to]);
            from = to;
        }
        let keys: Vec<&[u8]> = self.keys(&keys).into_iter().chain(claim_key.as_deref()).collect();
        let words = Words::Script { script: &ENQUEUE, keys: &keys, arguments: &arguments };
        Some(submit(Command { operation: Operation::QueueEnqueue, words }))
    }

    /// Reads a page of a user's mailbox, from its oldest entry or from behind one; answered with [`page::Page`]. At
    /// most [`limits::REDIS_PAGE_ENTRIES_MAX`] entries, those among them that linger and were put in during the last `lingering_ms`.
    pub fn read<R>(
        &self,
        tenant: &TenantId,
        user: &str,
        behind: Option<Position>,
        entries_max: u32,
        lingering_ms: u64,
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> R {
        let keys = MailboxKeys::of_user(&self.prefix, tenant, user);
        let from = behind.map_or("-".to_owned(), |id| format!("({}", page::stream_id(id)));
        submit(Command {
            operation: Operation::QueueRead,
            words: Words::Script {
                script: &READ,
                // Not all of them are read; see the script.
                keys: &self.keys(&keys),
                arguments: &[
                    from.as_bytes(),
                    entries_max.clamp(1, limits::REDIS_PAGE_ENTRIES_MAX).to_string().as_bytes(),
                    limits::REDIS_PAGE_BYTES_MAX.to_string().as_bytes(),
                    limits::REDIS_ENTRY_BYTES_MAX.to_string().as_bytes(),
                    lingering_ms.min(limits::STORE_LINGER_MS).to_string().as_bytes(),
                ],
            },
        })
    }

    /// Notes that a delivery of entries begins that were not read from here, of the first [`limits::REDIS_REMOVE_MAX`] of `positions`;
    /// answered with how many were noted. `None` if there are none: then there is nothing to submit.
    pub fn begin<R>(
        &self,
        tenant: &TenantId,
        user: &str,
        positions: &[Position],
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> Option<R> {
        if positions.is_empty() {
            return None;
        }
        let keys = MailboxKeys::of_user(&self.prefix, tenant, user);
        let ids: Vec<String> =
            positions.iter().take(limits::REDIS_REMOVE_MAX).map(|position| page::stream_id(*position)).collect();
        let arguments: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes()).collect();
        Some(self.submit_on(&keys, Operation::QueueBegin, &BEGIN, &arguments, submit))
    }

    /// Takes entries out of a user's mailbox, the first [`Removal::positions_max`] of `positions`; answered with [`page::Removed`].
    /// `None` if there are none: then there is nothing to submit.
    pub fn remove<R>(
        &self,
        tenant: &TenantId,
        user: &str,
        positions: &[Position],
        why: Removal,
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> Option<R> {
        if positions.is_empty() {
            return None;
        }
        let keys = MailboxKeys::of_user(&self.prefix, tenant, user);
        let ids: Vec<String> =
            positions.iter().take(why.positions_max()).map(|position| page::stream_id(*position)).collect();
        let meta_seconds = self.meta_seconds().to_string();
        let lingers_ms = match why {
            Removal::Lingering => limits::STORE_LINGER_MS.to_string(),
            Removal::Delivered | Removal::Expired | Removal::Undecodable => String::new(),
        };
        let mut arguments = vec![&keys.scoped[..], why.figure().as_bytes(), meta_seconds.as_bytes()];
        arguments.extend([lingers_ms.as_bytes(), self.max.as_bytes()]);
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
        submit(Command { operation, words: Words::Script { script, keys: &self.keys(keys), arguments } })
    }

    /// What every script about one mailbox names, in this order, whether it uses all of it or not: while the keys of a Redis
    /// Cluster move, none of them is done before another for having fewer.
    fn keys<'k>(&'k self, of: &'k MailboxKeys) -> [&'k [u8]; 5] {
        [&of.stream, &of.meta, &self.users, &self.stats, &of.gone]
    }

    fn meta_seconds(&self) -> u64 {
        u64::from(self.ttl_seconds) + limits::REDIS_META_KEPT_SECONDS
    }
}

/// How many bytes of stored JSON a piece of mail becomes, at most.
pub(crate) fn stored_bytes_max(mail: &Mail) -> usize {
    mail.event.len() + 140
}

/// Appends the JSON of contract §8.3.
fn write_stored(out: &mut Vec<u8>, mail: &Mail) {
    out.extend_from_slice(br#"{"id":""#);
    mail.id.write(out);
    out.extend_from_slice(br#"","event":"#);
    out.extend_from_slice(&mail.event);
    out.extend_from_slice(br#","queued_at":""#);
    clock::write_rfc3339(out, mail.queued_at_unix_ns);
    out.extend_from_slice(br#"","attempts":"#);
    out.extend_from_slice(mail.attempts.to_string().as_bytes());
    out.push(b'}');
}

/// Appends what stands beside the entry: see [`keys`].
fn write_mark(out: &mut Vec<u8>, mail: &Mail) {
    use std::io::Write as _;
    let Mail { stream, expires_at_unix_ns, attempts, .. } = mail;
    // Writing to a list of bytes does not fail.
    let _ = write!(out, "{}:{}:{expires_at_unix_ns}:{attempts}", stream.epoch, stream.seq);
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::{NotificationId, uuid_v7};
    use protocol::stream::StreamSeq;
    use std::sync::Arc;

    fn mail() -> Mail {
        Mail {
            id: NotificationId(uuid_v7(1, [0; 10])),
            event: Arc::from(&br#"{"payload":1.0}"#[..]),
            queued_at_unix_ns: 1_767_323_045_123_456_789,
            expires_at_unix_ns: u64::MAX,
            attempts: u32::MAX,
            stream: StreamSeq { epoch: u64::MAX, seq: u64::MAX },
        }
    }

    #[test]
    fn the_stored_json_is_that_of_the_contract() {
        let mut text = Vec::new();
        write_stored(&mut text, &mail());
        assert!(text.len() <= stored_bytes_max(&mail()));
        let expected = "{\"id\":\"00000000-0001-7000-8000-000000000000\",\"event\":{\"payload\":1.0},\
                        \"queued_at\":\"2026-01-02T03:04:05.123456789Z\",\"attempts\":4294967295}";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn nothing_is_submitted_for_no_mail_and_no_removals() {
        let mailboxes = Mailboxes::new("q", 10, 60);
        let tenant = TenantId::default_tenant();
        let submitted = |_: Command<'_>| panic!("nothing is to be submitted");
        assert!(mailboxes.enqueue(&tenant, "u", &[], None, Now::default(), submitted).is_none());
        assert!(mailboxes.remove(&tenant, "u", &[], Removal::Delivered, submitted).is_none());
    }

    #[test]
    fn scripts_use_what_redis_6_2_has() {
        // Every one of these, with the options the scripts give it, is in Redis 6.2.
        const COMMANDS: [&str; 33] = [
            "DEL",
            "EXISTS",
            "EXPIRE",
            "PEXPIRE",
            "TTL",
            "TIME",
            "HDEL",
            "HEXISTS",
            "HGET",
            "HGETALL",
            "HINCRBY",
            "HLEN",
            "HMGET",
            "HSCAN",
            "HSET",
            "XADD",
            "XDEL",
            "XLEN",
            "XRANGE",
            "XREVRANGE",
            "XTRIM",
            "ZADD",
            "ZCARD",
            "ZRANGEBYLEX",
            "ZRANGEBYSCORE",
            "ZREM",
            "ZREMRANGEBYLEX",
            "ZREMRANGEBYRANK",
            "ZREVRANGE",
            "ZSCORE",
            "GET",
            "SET",
            "INCR",
        ];
        for script in SCRIPTS.into_iter().chain(crate::redis::acks::SCRIPTS).chain(crate::redis::store::SCRIPTS) {
            for call in script.body().split("call('").skip(1) {
                let (command, options) = call.split_once('\'').unwrap();
                assert!(COMMANDS.contains(&command), "{} in {}", command, script.name());
                let options = options.lines().next().unwrap();
                assert!(
                    !matches!(command, "EXPIRE" | "PEXPIRE") || !options.contains("'"),
                    "{options} in {}",
                    script.name()
                );
            }
        }
    }
}
