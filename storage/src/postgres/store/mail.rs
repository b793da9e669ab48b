//! Mail as rows of `notification_queue`.
//!
//! | column | what it holds |
//! |---|---|
//! | `id` | the position: a running number, so a later entry has a greater one |
//! | `tenant_id`, `user_id` | whose mailbox; bare names. A NULL tenant is nobody's and goes when it expires |
//! | `event` | the event object of contract §5, byte for byte (C-2); NULL where another program wrote only `message` |
//! | `message` | the same as JSONB, for whoever looks; where JSONB cannot hold it, an object with its `id` |
//! | `created_at`, `expires_at` | when it was accepted, and when it stops being worth delivering |
//! | `attempt` | deliveries begun |
//! | `epoch`, `seq` | its place among all mail of this user; 0 from other programs |
//! | `kept_at` | when it was put in, by the server's clock; NULL if that was before the column was there |
//!
//! The notification's id is that of the event.
//!
//! **What is delivered lingers** in `notification_queue_lately`, which has the same columns but for `message`, until
//! [`limits::STORE_LINGER_MS`] after it was put in. It is not in the mailbox and in no figure; only whoever asks reads it,
//! and no delivery is counted. Another node may have been told of mail behind it already, and not yet of this.
use crate::postgres::command::{Command, Row, Statement};
use crate::postgres::store::event;
use crate::postgres::store::statements::{APPEND, READ, READ_LINGERING, READ_ONLY, REMOVE, REMOVE_LINGERING};
use protocol::clock::Now;
use protocol::cluster::wire::Claim;
use protocol::limits;
use protocol::store::{Age, Entry, Mail, MailboxKey, Position, StoreReply};
use protocol::stream::StreamSeq;
use sha1::{Digest, Sha1};
use std::sync::Arc;

/// A command about one mailbox, which it locks: its first two values are whose it is.
pub(super) fn about(statement: &'static Statement, mailbox: &MailboxKey, timeout_ms: u32) -> Command {
    plainly_about(statement, mailbox, timeout_ms).shared(lock_key(mailbox))
}

/// The same, which changes nothing.
fn plainly_about(statement: &'static Statement, mailbox: &MailboxKey, timeout_ms: u32) -> Command {
    Command::new(statement, timeout_ms).text(mailbox.tenant.as_str()).text(&mailbox.user)
}

/// The same number for the same mailbox on every node and in every build: the first eight bytes of SHA-1 over tenant,
/// `:`, which no tenant has, and user. Mailboxes that share one wait for one another and no more.
fn lock_key(mailbox: &MailboxKey) -> i64 {
    let digest =
        Sha1::new().chain_update(mailbox.tenant.as_str()).chain_update(":").chain_update(&*mailbox.user).finalize();
    digest.iter().take(8).fold(0, |key, byte| key << 8 | i64::from(*byte))
}

/// Forgetting mail that was delivered. `lingering_max` of a mailbox is at least one; none, if it does not linger.
pub(super) fn remove(
    mailbox: &MailboxKey,
    positions: &[Position],
    lingering_max: Option<usize>,
    timeout_ms: u32,
) -> Command {
    match lingering_max {
        Some(entries_max) => ids(about(&REMOVE_LINGERING, mailbox, timeout_ms), positions)
            .int8(entries_max as i64)
            .int8(limits::STORE_LINGER_MS as i64),
        None => ids(about(&REMOVE, mailbox, timeout_ms), positions),
    }
}

/// The positions of removed or unreadable mail, as ids.
pub(super) fn ids(command: Command, positions: &[Position]) -> Command {
    command.int8_array(positions.iter().map(|position| position.0 as i64))
}

/// Keeping mail, on its way.
#[derive(Debug, Default)]
pub(super) struct Appending {
    /// Mail that came with so much else that it would have to go at once.
    skipped: usize,
    dropped: u64,
    before: Option<Position>,
    positions: Vec<Position>,
}

impl Appending {
    /// `entries_max` is at least one.
    pub(super) fn begin(
        mailbox: &MailboxKey,
        mail: &[Mail],
        claim: Option<Claim>,
        entries_max: usize,
        now: Now,
        timeout_ms: u32,
    ) -> (Command, Appending) {
        let skipped = mail.len().saturating_sub(entries_max);
        let kept = &mail[skipped..];
        let messages: Vec<_> = kept.iter().map(|mail| event::message(mail.id, &mail.event)).collect();
        let command = about(&APPEND, mailbox, timeout_ms)
            .int8((entries_max - kept.len()) as i64)
            .int8(skipped as i64)
            .jsonb_array(messages.iter().map(|message| &**message))
            .timestamp_array(kept.iter().map(|mail| mail.queued_at_unix_ns))
            .timestamp_array(kept.iter().map(|mail| mail.expires_at_unix_ns))
            .int8_array(kept.iter().map(|mail| mail.stream.epoch as i64))
            .int8_array(kept.iter().map(|mail| mail.stream.seq as i64))
            .int4_array(kept.iter().map(|mail| i32::try_from(mail.attempts).unwrap_or(i32::MAX)))
            .text_array(kept.iter().map(|mail| &*mail.event));
        let command = match claim {
            Some(claim) => command.uuid(claim.hash.to_be_bytes()).int8(i64::from(claim.nth)),
            None => command.null().null(),
        };
        let most_ms = u64::from(limits::POSTGRES_CLAIM_KEPT_SECONDS) * 1_000;
        let age_ms = claim.map_or(most_ms, |claim| claim.age_ms(now, most_ms));
        let command = command.int8(age_ms as i64).timestamp(now.unix_ns).int8(limits::STORE_LINGER_MS as i64);
        (command, Appending { skipped, ..Appending::default() })
    }

    /// What was heard does not count.
    pub(super) fn again(&mut self) {
        *self = Appending { skipped: self.skipped, ..Appending::default() };
    }

    pub(super) fn heard_row(&mut self, row: &Row<'_>) {
        self.before = row.int8(2).map(|id| Position(id as u64, 0));
        // None if the claim was taken before.
        let Some(id) = row.int8(0) else { return };
        if self.positions.is_empty() {
            // What was not kept stands before everything.
            self.positions.resize(self.skipped, Position::default());
        }
        self.positions.push(Position(id as u64, 0));
        self.dropped = row.int8(1).unwrap_or(0) as u64;
    }

    pub(super) fn reply(self) -> StoreReply {
        StoreReply::Appended { positions: self.positions, before: self.before, dropped: self.dropped }
    }
}

/// What is asked of a mailbox when it is read.
#[derive(Clone, Debug)]
pub(super) struct ReadMail {
    pub(super) mailbox: Arc<MailboxKey>,
    pub(super) after: Option<Position>,
    pub(super) entries_max: usize,
    pub(super) lingering_ms: u64,
    pub(super) unix_ns: u64,
}

impl ReadMail {
    /// The command; `changes` is false for a server that takes none. What lingers is not looked at there.
    pub(super) fn command(&self, changes: bool, timeout_ms: u32) -> Command {
        let entries_max = self.entries_max.clamp(1, i32::MAX as usize);
        let lingering_ms = self.lingering_ms.min(limits::STORE_LINGER_MS);
        let reads_lingering = changes && lingering_ms > 0;
        let command = match changes {
            true if reads_lingering => about(&READ_LINGERING, &self.mailbox, timeout_ms),
            true => about(&READ, &self.mailbox, timeout_ms),
            false => plainly_about(&READ_ONLY, &self.mailbox, timeout_ms),
        };
        let command = command
            .int8(self.after.map_or(0, |after| after.0 as i64))
            .int8(entries_max as i64)
            .timestamp(self.unix_ns)
            .int8(limits::POSTGRES_PAGE_BYTES_MAX as i64)
            .int8(limits::POSTGRES_EVENT_BYTES_MAX as i64);
        if reads_lingering { command.int8(lingering_ms as i64) } else { command }
    }
}

/// A page on its way.
#[derive(Debug, Default)]
pub(super) struct Page {
    entries: Vec<Entry>,
    /// What nobody can read.
    pub(super) unreadable: Vec<Position>,
    next: Option<Position>,
}

impl Page {
    pub(super) fn heard_row(&mut self, row: &Row<'_>) {
        if row.boolean(0) == Some(true) {
            self.next = row.int8(1).map(|id| Position(id as u64, 0));
        }
        let Some(id) = row.int8(2) else { return };
        let position = Position(id as u64, 0);
        let is_gone = row.boolean(11) == Some(true);
        match mail(row, is_gone) {
            Some(mail) => self.entries.push(Entry { position, mail, age: age(row), is_gone }),
            // It goes by itself.
            None if is_gone => {}
            None => self.unreadable.push(position),
        }
    }

    pub(super) fn reply(self) -> StoreReply {
        StoreReply::Mail { entries: self.entries, next: self.next }
    }
}

/// Old rows do not say when they were put in. Clocks may be set back in between.
fn age(row: &Row<'_>) -> Age {
    match (row.timestamp(9), row.timestamp(10)) {
        (Some(kept_ns), Some(read_ns)) => {
            Age::of(read_ns.saturating_sub(kept_ns) / 1_000_000, limits::POSTGRES_COMMIT_MS)
        }
        _ => Age::UNKNOWN,
    }
}

fn mail(row: &Row<'_>, is_gone: bool) -> Option<Mail> {
    let (id, event) = crate::event::read(row.bytes(8)?)?;
    let event = event.into();
    Some(Mail {
        id,
        event,
        queued_at_unix_ns: row.timestamp(6).unwrap_or(0),
        // `infinity`, from another program.
        expires_at_unix_ns: row.timestamp(7).unwrap_or(u64::MAX),
        // This reading begins a delivery of what stands.
        attempts: row.int4(3)?.max(i32::from(!is_gone)) as u32,
        stream: StreamSeq { epoch: row.int8(4)? as u64, seq: row.int8(5)? as u64 },
    })
}
