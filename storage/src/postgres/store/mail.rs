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
//!
//! The notification's id is that of the event.
use crate::postgres::command::{Command, Row, Statement};
use crate::postgres::store::event;
use crate::postgres::store::statements::{APPEND, READ, READ_ONLY};
use protocol::clock::Now;
use protocol::cluster::wire::Claim;
use protocol::limits;
use protocol::store::{Entry, Mail, MailboxKey, Position, StoreReply};
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
        let command = command.int8(age_ms as i64).timestamp(now.unix_ns);
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
    pub(super) unix_ns: u64,
}

impl ReadMail {
    /// The command; `changes` is false for a server that takes none.
    pub(super) fn command(&self, changes: bool, timeout_ms: u32) -> Command {
        let entries_max = self.entries_max.clamp(1, i32::MAX as usize);
        let command = match changes {
            true => about(&READ, &self.mailbox, timeout_ms),
            false => plainly_about(&READ_ONLY, &self.mailbox, timeout_ms),
        };
        command
            .int8(self.after.map_or(0, |after| after.0 as i64))
            .int8(entries_max as i64)
            .timestamp(self.unix_ns)
            .int8(limits::POSTGRES_PAGE_BYTES_MAX as i64)
            .int8(limits::POSTGRES_EVENT_BYTES_MAX as i64)
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
        match mail(row) {
            Some(mail) => self.entries.push(Entry { position, mail }),
            None => self.unreadable.push(position),
        }
    }

    pub(super) fn reply(self) -> StoreReply {
        StoreReply::Mail { entries: self.entries, next: self.next }
    }
}

fn mail(row: &Row<'_>) -> Option<Mail> {
    let (id, event) = crate::event::read(row.bytes(8)?)?;
    let event = event.into();
    Some(Mail {
        id,
        event,
        queued_at_unix_ns: row.timestamp(6).unwrap_or(0),
        // `infinity`, from another program.
        expires_at_unix_ns: row.timestamp(7).unwrap_or(u64::MAX),
        attempts: row.int4(3)?.max(1) as u32,
        stream: StreamSeq { epoch: row.int8(4)? as u64, seq: row.int8(5)? as u64 },
    })
}
