//! The store in Redis: one pipelined link, over which a shard's requests become commands.
//!
//! | module | what it is |
//! |---|---|
//! | this | requests to commands, in order |
//! | `answers` | answers to replies, and what follows from them |
//! | `request` | a request that is not answered yet |
//! | `templates` | where templates are kept, and reading them all |
//! | `rounds` | what one shard does for all: sweeps and figures |
//! | [`partitioned`] | sixteen of these stores as one, in a Redis Cluster |
//!
//! **Order.** Redis executes the commands of one link in the order they were sent, so requests about one mailbox are done
//! in the order they were asked. What is found expired or undecodable is taken out by a command of its own behind the
//! reading.
//!
//! **Failed or unknown.** Each act on a mailbox or an acknowledgement is one script, which happens wholly or not at all.
//! A request that takes several commands (an append beyond [`limits::REDIS_APPEND_MAX`] or
//! [`limits::REDIS_COMMAND_BYTES_MAX`], a removal beyond [`Removal::positions_max`]) is unknown as soon as one was done
//! and another was not. Between them the server sees to others: what a slow outbox puts back keeps nobody waiting.
//!
//! **Claims** are of one notification. A claimed append that is more than one command is not done.
//!
//! **Refused.** A server that is full, a replica, or that does not let us write is told from one that is not there: see
//! [`StoreFigures::is_well`]. While it refuses, it is asked every [`limits::REDIS_PROBE_INTERVAL_MS`] whether it takes a
//! write again, so that a node whom nobody publishes to comes back by itself.
mod answers;
pub mod partitioned;
mod request;
mod rounds;
mod templates;

use crate::backend::{Backend, Chores};
use crate::figures::{StoreFigures, StoreOperation};
use crate::link::state::LinkState;
use crate::link::wants::Wants;
use crate::redis::acks::{self, Acks, Late};
use crate::redis::commands::link::{CommandConfig, CommandLink};
use crate::redis::commands::script::Script;
use crate::redis::commands::status::{CommandStatus, Operation};
use crate::redis::commands::{Command, Ticket, Words};
use crate::redis::mailbox::{self, Mailboxes, Removal, stored_bytes_max};
use answers::{Desk, Next};
use protocol::clock::Now;
use protocol::cluster::wire::Claim;
use protocol::limits;
use protocol::store::{Mail, MailboxKey, Position, StoreReply, StoreRequest, StoreTicket};
use request::{Request, What};
use rounds::Rounds;
use std::collections::HashMap;
use std::sync::Arc;
use templates::{Load, Templates};

/// All scripts that only the store itself uses.
pub static SCRIPTS: [&Script; 1] = [&templates::PAGE];

/// What a store needs to know. What it does not keep, it answers [`StoreReply::Failed`].
#[derive(Clone, Debug)]
pub struct RedisStoreConfig {
    /// The link; its scripts are the store's to set.
    pub link: CommandConfig,
    /// `QUEUE_REDIS_PREFIX`, if templates are kept here: in the hash `{prefix}:templates`.
    pub templates: Option<String>,
    /// If mail is kept here.
    pub queue: Option<RedisQueue>,
    /// If acknowledgements are kept here.
    pub acks: Option<RedisAcks>,
    /// If this shard sweeps and asks for the figures.
    pub chores: Option<Chores>,
}

/// Mailboxes in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisQueue {
    /// `QUEUE_REDIS_PREFIX`
    pub prefix: String,
    /// `QUEUE_MAX_MESSAGES_PER_USER`
    pub entries_max: u32,
    /// `QUEUE_MESSAGE_TTL_SECONDS`
    pub ttl_seconds: u32,
}

/// Acknowledgements in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAcks {
    /// `ACK_REDIS_PREFIX`
    pub prefix: String,
    /// `ACK_TIMEOUT_SECONDS`
    pub timeout_seconds: u32,
}

/// One shard's store in Redis.
pub struct RedisStore {
    line: Line,
    desk: Desk,
    rounds: Option<Rounds>,
    kept: Kept,
    status: Arc<CommandStatus>,
}

/// The link, and what was sent over it.
struct Line {
    link: CommandLink,
    asked: HashMap<u64, What>,
    last: u64,
}

impl Line {
    /// Whether it was taken; then it is answered.
    fn send(&mut self, now: Now, what: What, command: Command<'_>) -> bool {
        self.last += 1;
        let taken = self.link.submit(now, Ticket(self.last), command).is_ok();
        if taken {
            self.asked.insert(self.last, what);
        }
        taken
    }
}

/// What is kept here.
struct Kept {
    mail: Option<Mailboxes>,
    acks: Option<Acks>,
    templates: Option<Templates>,
    /// What is written to see whether anything can be.
    probe: Vec<u8>,
}

impl RedisStore {
    /// A store that begins to connect at its first turn. `wake` is called on the name lookup's thread and must make the
    /// owner turn the link soon.
    pub fn new(
        config: RedisStoreConfig,
        figures: Arc<StoreFigures>,
        seed: u64,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> RedisStore {
        let RedisStoreConfig { mut link, templates, queue, acks: acknowledgements, chores } = config;
        let prefixes = [queue.as_ref().map(|queue| &queue.prefix), acknowledgements.as_ref().map(|acks| &acks.prefix)];
        let prefix = prefixes.into_iter().flatten().chain(&templates).next();
        let probe = format!("{}:probe", prefix.map_or("ara", String::as_str)).into_bytes();
        let mail = queue.map(|queue| Mailboxes::new(&queue.prefix, queue.entries_max, queue.ttl_seconds));
        let acks = acknowledgements.map(|acks| Acks::new(&acks.prefix, acks.timeout_seconds));
        let templates = templates.map(|prefix| Templates::new(&prefix));
        link.scripts.clear();
        link.scripts.extend(mail.iter().flat_map(|_| mailbox::SCRIPTS));
        link.scripts.extend(acks.iter().flat_map(|_| acks::SCRIPTS));
        link.scripts.extend(templates.iter().flat_map(|_| SCRIPTS));
        let status = Arc::new(CommandStatus::new());
        let link = CommandLink::new(link, Arc::clone(&status), seed, wake);
        RedisStore {
            line: Line { link, asked: HashMap::new(), last: 0 },
            desk: Desk::new(figures, mail.as_ref().map_or(0, Mailboxes::ttl_seconds)),
            rounds: chores.map(Rounds::new),
            kept: Kept { mail, acks, templates, probe },
            status,
        }
    }

    fn append(&mut self, now: Now, ticket: StoreTicket, mailbox: &MailboxKey, mail: &[Mail], claim: Option<Claim>) {
        let Some(mailboxes) = &self.kept.mail else { return self.desk.refuse(now, ticket, StoreOperation::Append) };
        if mail.iter().any(|mail| stored_bytes_max(mail) > limits::REDIS_ENTRY_BYTES_MAX)
            || claim.is_some() && parts(mail).nth(1).is_some()
        {
            return self.desk.refuse(now, ticket, StoreOperation::Append);
        }
        self.desk.open(ticket, Request::new(StoreOperation::Append, now));
        for part in parts(mail) {
            let submitted = mailboxes.enqueue(&mailbox.tenant, &mailbox.user, part, claim, now, |command| {
                self.line.send(now, What::Part(ticket), command)
            });
            if submitted == Some(false) {
                self.desk.not_taken(ticket);
                break;
            }
            self.desk.taken(ticket);
        }
        self.desk.submitted(now, ticket);
    }

    fn read(
        &mut self,
        now: Now,
        ticket: StoreTicket,
        mailbox: Arc<MailboxKey>,
        after: Option<Position>,
        count: usize,
        lingering_ms: u64,
    ) {
        let Some(mailboxes) = &self.kept.mail else { return self.desk.refuse(now, ticket, StoreOperation::Read) };
        self.desk.open(ticket, Request::new(StoreOperation::Read, now));
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let what = What::Page(ticket, Arc::clone(&mailbox));
        let submit = |command: Command<'_>| self.line.send(now, what, command);
        match mailboxes.read(&mailbox.tenant, &mailbox.user, after, count, lingering_ms, submit) {
            true => self.desk.taken(ticket),
            false => self.desk.not_taken(ticket),
        }
        self.desk.submitted(now, ticket);
    }

    fn begin(&mut self, now: Now, ticket: StoreTicket, mailbox: &MailboxKey, positions: &[Position]) {
        let Some(mailboxes) = &self.kept.mail else { return self.desk.refuse(now, ticket, StoreOperation::Begin) };
        self.desk.open(ticket, Request::new(StoreOperation::Begin, now));
        let MailboxKey { tenant, user } = mailbox;
        for part in positions.chunks(limits::REDIS_REMOVE_MAX) {
            let submit = |command: Command<'_>| self.line.send(now, What::Part(ticket), command);
            if mailboxes.begin(tenant, user, part, submit) == Some(false) {
                self.desk.not_taken(ticket);
                break;
            }
            self.desk.taken(ticket);
        }
        self.desk.submitted(now, ticket);
    }

    fn remove(&mut self, now: Now, ticket: StoreTicket, mailbox: &MailboxKey, positions: &[Position], why: Removal) {
        let Some(mailboxes) = &self.kept.mail else { return self.desk.refuse(now, ticket, StoreOperation::Remove) };
        self.desk.open(ticket, Request::new(StoreOperation::Remove, now));
        let MailboxKey { tenant, user } = mailbox;
        for part in positions.chunks(why.positions_max()) {
            let submit = |command: Command<'_>| self.line.send(now, What::Part(ticket), command);
            if mailboxes.remove(tenant, user, part, why, submit) == Some(false) {
                self.desk.not_taken(ticket);
                break;
            }
            self.desk.taken(ticket);
        }
        self.desk.submitted(now, ticket);
    }

    /// A request that is one command, if there is anybody to make it.
    fn ask<T>(
        &mut self,
        now: Now,
        ticket: StoreTicket,
        operation: StoreOperation,
        of: impl FnOnce(&Kept) -> Option<&T>,
        make: impl FnOnce(&T, &mut dyn FnMut(Command<'_>) -> bool) -> bool,
    ) {
        let Some(maker) = of(&self.kept) else { return self.desk.refuse(now, ticket, operation) };
        self.desk.open(ticket, Request::new(operation, now));
        let line = &mut self.line;
        match make(maker, &mut |command| line.send(now, What::Part(ticket), command)) {
            true => self.desk.taken(ticket),
            false => self.desk.not_taken(ticket),
        }
        self.desk.submitted(now, ticket);
    }

    fn load(&mut self, now: Now, ticket: StoreTicket) {
        if self.kept.templates.is_none() {
            return self.desk.refuse(now, ticket, StoreOperation::Template);
        }
        self.desk.open(ticket, Request { load: Some(Load::default()), ..Request::new(StoreOperation::Template, now) });
        self.desk.taken(ticket);
        self.desk.next.push_back(Next::Templates(ticket, b"0".to_vec()));
        self.go_on(now);
        self.desk.submitted(now, ticket);
    }

    /// Sends what follows from answers.
    fn go_on(&mut self, now: Now) {
        let RedisStore { line, desk, kept, rounds, .. } = self;
        while let Some(next) = desk.next.pop_front() {
            match next {
                Next::Tidy(mailbox, positions, why) => {
                    let Some(mailboxes) = &kept.mail else { continue };
                    let MailboxKey { tenant, user } = &*mailbox;
                    // If it is not taken, the next reader finds them again.
                    mailboxes.remove(tenant, user, &positions, why, |command| line.send(now, What::Tidy, command));
                }
                Next::Templates(ticket, cursor) => {
                    let Some(templates) = &kept.templates else { continue };
                    if !templates.page(&cursor, |command| line.send(now, What::Templates(ticket), command)) {
                        desk.not_done(now, ticket);
                    }
                }
                Next::Template(ticket, field) => {
                    let Some(templates) = &kept.templates else { continue };
                    let what = What::Template(ticket, field.clone());
                    if !templates.one(&field, |command| line.send(now, what, command)) {
                        desk.not_done(now, ticket);
                    }
                }
                Next::Sweep(scoped) => {
                    let (Some(mailboxes), Some(rounds)) = (&kept.mail, rounds.as_mut()) else { continue };
                    let what = What::Sweep(now.mono_us);
                    if mailboxes.sweep(&scoped, now, |command| line.send(now, what, command)) {
                        rounds.sweeping += 1;
                    }
                }
                Next::Swept { more } => {
                    if let Some(rounds) = rounds {
                        rounds.swept(now, more);
                    }
                }
                Next::Expired { more } => {
                    if let Some(rounds) = rounds {
                        rounds.expired(now, more);
                    }
                }
            }
        }
    }

    /// Begins what is due, while there is a server.
    fn do_rounds(&mut self, now: Now) {
        let RedisStore { line, desk, kept, rounds, .. } = self;
        if desk.probe_due(now) {
            let words: [&[u8]; 5] = [b"SET", &kept.probe, b"", b"PX", b"1000"];
            let command = Command { operation: Operation::Other, words: Words::Plain(&words) };
            line.send(now, What::Probe, command);
        }
        let Some(rounds) = rounds else { return };
        if let Some(mailboxes) = &kept.mail
            && rounds.begin_sweep(now)
        {
            let max = limits::REDIS_SWEEP_MAILBOXES_MAX;
            let what = What::Due(now.mono_us);
            rounds.sweeping = usize::from(mailboxes.due(now, max, |command| line.send(now, what, command)));
        }
        if let Some(acks) = &kept.acks
            && rounds.begin_expiry(now)
        {
            let what = What::Expire(now.mono_us);
            rounds.expiring = acks.expire(now, limits::REDIS_ACK_EXPIRE_MAX, |command| line.send(now, what, command));
        }
        if rounds.begin_figures(now) {
            if let Some(mailboxes) = &kept.mail {
                mailboxes.stats(|command| line.send(now, What::MailFigures(now.mono_us), command));
            }
            if let Some(acks) = &kept.acks {
                acks.stats(|command| line.send(now, What::AckFigures(now.mono_us), command));
            }
        }
    }
}

/// Cuts mail into pieces that each fit a command, and keep the server from others for a few milliseconds at most: nearly
/// always one.
fn parts(mail: &[Mail]) -> impl Iterator<Item = &[Mail]> {
    // Keys, figures and the words around them; then the marks and lengths of each.
    const COMMAND_BYTES: usize = limits::REDIS_COMMAND_BYTES_MAX - 16 * 1024;
    const MAIL_BYTES: usize = 130;
    let mut rest = mail;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |mail: &&Mail| {
            bytes += stored_bytes_max(mail) + MAIL_BYTES;
            bytes <= COMMAND_BYTES
        };
        let count = rest.iter().take(limits::REDIS_APPEND_MAX).take_while(fits).count();
        let (part, behind) = rest.split_at(count);
        rest = behind;
        (!part.is_empty()).then_some(part)
    })
}

impl Backend for RedisStore {
    fn submit(&mut self, now: Now, ticket: StoreTicket, request: StoreRequest) {
        match request {
            StoreRequest::AppendMail { mailbox, mail, claim } => self.append(now, ticket, &mailbox, &mail, claim),
            StoreRequest::ReadMail { mailbox, after, entries_max, lingering_ms } => {
                self.read(now, ticket, mailbox, after, entries_max, lingering_ms);
            }
            StoreRequest::RemoveMail { mailbox, positions, lingers } => {
                let why = if lingers { Removal::Lingering } else { Removal::Delivered };
                self.remove(now, ticket, &mailbox, &positions, why);
            }
            StoreRequest::TrackAck { mailbox, id, connection } => {
                let MailboxKey { tenant, user } = &*mailbox;
                self.ask(
                    now,
                    ticket,
                    StoreOperation::Track,
                    |kept| kept.acks.as_ref(),
                    |acks, submit| acks.track(id, tenant, user, connection, now, submit),
                );
            }
            StoreRequest::Acknowledge { mailbox, id, is_kept } => {
                let MailboxKey { tenant, user } = &*mailbox;
                let late = if is_kept { Late::Taken } else { Late::Refused };
                self.ask(
                    now,
                    ticket,
                    StoreOperation::Acknowledge,
                    |kept| kept.acks.as_ref(),
                    |acks, submit| acks.acknowledge(id, tenant, user, now, late, submit),
                );
            }
            StoreRequest::PutTemplate { tenant, template } => {
                self.ask(
                    now,
                    ticket,
                    StoreOperation::Template,
                    |kept| kept.templates.as_ref(),
                    |templates, submit| templates.put(&tenant, &template, submit),
                );
            }
            StoreRequest::DeleteTemplate { tenant, id } => {
                self.ask(
                    now,
                    ticket,
                    StoreOperation::Template,
                    |kept| kept.templates.as_ref(),
                    |templates, submit| templates.delete(&tenant, &id, submit),
                );
            }
            StoreRequest::LoadTemplates => self.load(now, ticket),
            StoreRequest::BeginMail { mailbox, positions } => self.begin(now, ticket, &mailbox, &positions),
            // A counter has a link of its own.
            StoreRequest::CountRequest { .. } => self.desk.replies.push((ticket, StoreReply::Failed)),
        }
    }

    fn take_replies(&mut self, out: &mut Vec<(StoreTicket, StoreReply)>) {
        out.append(&mut self.desk.replies);
    }

    fn links(&self) -> usize {
        1
    }

    fn turn(&mut self, _link: usize, now: Now, readable: bool, writable: bool) -> Wants {
        if self.status.link() == LinkState::Healthy {
            self.do_rounds(now);
        }
        let (mut readable, mut writable) = (readable, writable);
        let mut wants = loop {
            let RedisStore { line, desk, .. } = self;
            let wants = line.link.turn(now, readable, writable, &mut |ticket, outcome| {
                if let Some(what) = line.asked.remove(&ticket.0) {
                    desk.answered(now, what, outcome);
                }
            });
            if self.desk.next.is_empty() {
                break wants;
            }
            // What follows leaves at once. Nothing new is read for it, so that nothing follows from that again.
            self.go_on(now);
            (readable, writable) = (false, false);
        };
        let figures = &self.desk.figures;
        figures.set_link(self.status.link(), self.status.breaker());
        figures.connections.set(self.status.connections());
        if self.status.link() == LinkState::Healthy {
            let rounds = self.rounds.as_ref().and_then(|rounds| rounds.due_us(&self.kept));
            let due = rounds.into_iter().chain(self.desk.probe_us).chain(wants.wake_at_us);
            wants.wake_at_us = due.min();
        }
        wants
    }

    fn owes(&self) -> bool {
        self.desk.owes()
    }
}
