//! What the server's answers mean to the shard, and what follows from them.
use crate::figures::{StoreFigures, StoreOperation, StoreResult};
use crate::redis::acks::{AckStats, Acknowledged, Overdue};
use crate::redis::commands::answer::Outcome;
use crate::redis::commands::reply::Reply;
use crate::redis::mailbox::Removal;
use crate::redis::mailbox::page::{Enqueued, MailboxStats, Page, UnexpectedReply};
use crate::redis::store::request::{Request, What};
use protocol::clock::Now;
use protocol::limits;
use protocol::store::{AckVerdict, MailboxKey, Position, StoreReply, StoreTicket};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Between two lines of the log about what is at fault in the server's data, in microseconds.
const LOG_INTERVAL_US: u64 = 1_000_000;

/// What follows from an answer.
#[derive(Debug)]
pub(super) enum Next {
    /// These are taken out of a mailbox.
    Tidy(Arc<MailboxKey>, Vec<Position>, Removal),
    /// Templates are read from a cursor on.
    Templates(StoreTicket, Vec<u8>),
    /// One template is read by its field.
    Template(StoreTicket, Vec<u8>),
    /// A mailbox is swept.
    Sweep(Vec<u8>),
    /// One command of a sweep is over.
    Swept { more: bool },
    /// An expiry is over.
    Expired { more: bool },
}

/// Where answers come in.
pub(super) struct Desk {
    pub(super) figures: Arc<StoreFigures>,
    ttl_seconds: u32,
    requests: HashMap<StoreTicket, Request>,
    pub(super) replies: Vec<(StoreTicket, StoreReply)>,
    pub(super) next: VecDeque<Next>,
    /// While the server refuses to write: when it is asked again, in microseconds.
    pub(super) probe_us: Option<u64>,
    log_us: u64,
}

impl Desk {
    pub(super) fn new(figures: Arc<StoreFigures>, ttl_seconds: u32) -> Desk {
        Desk {
            figures,
            ttl_seconds,
            requests: HashMap::new(),
            replies: Vec::new(),
            next: VecDeque::new(),
            probe_us: None,
            log_us: 0,
        }
    }

    pub(super) fn owes(&self) -> bool {
        !self.requests.is_empty() || !self.replies.is_empty()
    }

    // --- Requests ----------------------------------------------------------------------------------------------------

    /// A request that cannot be made at all.
    pub(super) fn refuse(&mut self, now: Now, ticket: StoreTicket, operation: StoreOperation) {
        self.open(ticket, Request { failed: true, ..Request::new(operation, now) });
        self.submitted(now, ticket);
    }

    /// A request begins.
    pub(super) fn open(&mut self, ticket: StoreTicket, request: Request) {
        self.requests.insert(ticket, request);
        self.figures.outstanding.set(self.requests.len() as u64);
    }

    /// A command of it is on its way.
    pub(super) fn taken(&mut self, ticket: StoreTicket) {
        if let Some(request) = self.requests.get_mut(&ticket) {
            request.left += 1;
        }
    }

    /// A command of it was not taken.
    pub(super) fn not_taken(&mut self, ticket: StoreTicket) {
        if let Some(request) = self.requests.get_mut(&ticket) {
            request.failed = true;
        }
    }

    /// All of its commands are on their way, or none.
    pub(super) fn submitted(&mut self, now: Now, ticket: StoreTicket) {
        if self.requests.get(&ticket).is_some_and(|request| request.left == 0)
            && let Some(request) = self.requests.remove(&ticket)
        {
            self.figures.outstanding.set(self.requests.len() as u64);
            let (operation, asked_us) = (request.operation, request.asked_us);
            let (result, reply) = request.reply();
            self.figures.ended(operation, result, now.mono_us.saturating_sub(asked_us));
            self.replies.push((ticket, reply));
        }
    }

    /// A command that was announced was not taken.
    pub(super) fn not_done(&mut self, now: Now, ticket: StoreTicket) {
        self.part_ended(now, ticket, |request| {
            request.failed = true;
            Ok(())
        });
    }

    fn part_ended(
        &mut self,
        now: Now,
        ticket: StoreTicket,
        note: impl FnOnce(&mut Request) -> Result<(), UnexpectedReply>,
    ) {
        let Some(request) = self.requests.get_mut(&ticket) else { return };
        request.left -= 1;
        if note(request).is_err() {
            // It did something, but what?
            request.unknown = true;
            self.complain(now, "an answer of an unexpected shape", "");
        }
        self.submitted(now, ticket);
    }

    // --- Answers -----------------------------------------------------------------------------------------------------

    /// A command has come to its end.
    pub(super) fn answered(&mut self, now: Now, what: What, outcome: Outcome<'_>) {
        self.judge(now, &what, &outcome);
        if let Some((operation, asked_us)) = what.chore() {
            let result = match &outcome {
                Outcome::Done(_) => StoreResult::Ok,
                Outcome::Unknown => StoreResult::Unknown,
                Outcome::Refused(_) | Outcome::Failed(_) | Outcome::NotSent => StoreResult::Failed,
            };
            self.figures.ended(operation, result, now.mono_us.saturating_sub(asked_us));
        }
        match outcome {
            Outcome::Done(reply) => self.done(now, what, reply),
            Outcome::Unknown => self.not_answered(now, what, true),
            Outcome::Refused(_) | Outcome::Failed(_) | Outcome::NotSent => self.not_answered(now, what, false),
        }
    }

    fn done(&mut self, now: Now, what: What, reply: Reply<'_>) {
        match what {
            What::Part(ticket) => self.part_ended(now, ticket, |request| {
                let is_first = !std::mem::replace(&mut request.done, true);
                match request.operation {
                    StoreOperation::Append => {
                        let Enqueued { positions, before, dropped, .. } = Enqueued::read(reply)?;
                        if is_first {
                            request.before = before;
                        }
                        request.positions.extend(positions);
                        request.dropped += dropped;
                    }
                    StoreOperation::Acknowledge => {
                        request.verdict = Some(match Acknowledged::read(reply)? {
                            Acknowledged::Done { .. } => AckVerdict::Done,
                            Acknowledged::Late => AckVerdict::Late,
                            Acknowledged::NotPending => AckVerdict::NotPending,
                        });
                    }
                    _ => {}
                }
                Ok(())
            }),
            What::Page(ticket, mailbox) => {
                let page = Page::read(reply, now, self.ttl_seconds).map(Page::fit_for_clients);
                if let Ok(page) = &page {
                    self.tidy(now, &mailbox, page);
                }
                self.part_ended(now, ticket, |request| {
                    let Page { entries, next, .. } = page?;
                    request.page = Some(StoreReply::Mail { entries, next });
                    Ok(())
                });
            }
            What::Templates(ticket) => self.templates(now, ticket, reply),
            What::Template(ticket, field) => self.part_ended(now, ticket, |request| {
                // It may be gone by now.
                if let (Some(load), Some(text)) = (&mut request.load, reply.bytes()) {
                    load.add(&field, text);
                }
                Ok(())
            }),
            What::Tidy | What::Probe => {}
            What::Due(_) => {
                let due = reply.items().into_iter().flatten().filter_map(|item| Some(item.bytes()?.to_vec()));
                let before = self.next.len();
                self.next.extend(due.map(Next::Sweep));
                let more = self.next.len() - before == limits::REDIS_SWEEP_MAILBOXES_MAX as usize;
                self.next.push_back(Next::Swept { more });
            }
            What::Sweep(_) => self.next.push_back(Next::Swept { more: false }),
            What::Expire(_) => {
                let given_up = Overdue::read(reply).map_or(0, |overdue| overdue.len());
                self.next.push_back(Next::Expired { more: given_up == limits::REDIS_ACK_EXPIRE_MAX as usize });
            }
            What::MailFigures(_) => {
                if let Ok(stats) = MailboxStats::read(reply) {
                    let mail = &self.figures.mail;
                    mail.users.set(stats.users);
                    mail.depth.set(stats.depth);
                    mail.enqueued.set(stats.enqueued);
                    mail.dropped.set(stats.dropped);
                    mail.expired.set(stats.expired);
                    mail.delivered.set(stats.delivered);
                    mail.undecodable.set(stats.undecodable);
                }
            }
            What::AckFigures(_) => {
                if let Ok(stats) = AckStats::read(reply) {
                    let acks = &self.figures.acks;
                    acks.pending.set(stats.pending);
                    acks.tracked.set(stats.tracked);
                    acks.acked.set(stats.acked);
                    acks.expired.set(stats.expired);
                    acks.latency_ms.set(stats.latency_ms);
                }
            }
        }
    }

    fn not_answered(&mut self, now: Now, what: What, is_unknown: bool) {
        match what {
            What::Part(ticket) | What::Page(ticket, _) | What::Templates(ticket) | What::Template(ticket, _) => {
                self.part_ended(now, ticket, |request| {
                    request.failed |= !is_unknown;
                    request.unknown |= is_unknown;
                    Ok(())
                });
            }
            What::Due(_) | What::Sweep(_) => self.next.push_back(Next::Swept { more: false }),
            What::Expire(_) => self.next.push_back(Next::Expired { more: false }),
            What::Tidy | What::Probe | What::MailFigures(_) | What::AckFigures(_) => {}
        }
    }

    /// What has expired, or nobody can read, goes.
    fn tidy(&mut self, now: Now, mailbox: &Arc<MailboxKey>, page: &Page) {
        if !page.undecodable.is_empty() {
            self.complain(now, "mail that nobody can read, which is removed", "");
        }
        for (positions, why) in [(&page.expired, Removal::Expired), (&page.undecodable, Removal::Undecodable)] {
            for part in positions.chunks(limits::REDIS_REMOVE_MAX) {
                self.next.push_back(Next::Tidy(Arc::clone(mailbox), part.to_vec(), why));
            }
        }
    }

    /// Some of all templates have come.
    fn templates(&mut self, now: Now, ticket: StoreTicket, reply: Reply<'_>) {
        let mut next = Vec::new();
        self.part_ended(now, ticket, |request| {
            let Some(load) = &mut request.load else { return Ok(()) };
            let mut items = reply.items().ok_or(UnexpectedReply)?;
            let cursor = items.next().and_then(Reply::bytes).ok_or(UnexpectedReply)?;
            while let (Some(field), Some(text)) = (items.next(), items.next()) {
                let field = field.bytes().ok_or(UnexpectedReply)?;
                match text.bytes() {
                    Some(text) => load.add(field, text),
                    None => next.push(Next::Template(ticket, field.to_vec())),
                }
            }
            // A load that has failed already is not gone on with.
            if request.failed || request.unknown {
                next.clear();
            } else if cursor != b"0" {
                next.push(Next::Templates(ticket, cursor.to_vec()));
            }
            request.left += next.len();
            Ok(())
        });
        self.next.extend(next);
    }

    // --- Refusals ----------------------------------------------------------------------------------------------------

    /// Notes whether the server writes.
    fn judge(&mut self, now: Now, what: &What, outcome: &Outcome<'_>) {
        let operation = match what {
            What::Part(ticket) => self.requests.get(ticket).map(|request| request.operation),
            _ => None,
        };
        match outcome {
            Outcome::Refused(refusal) => {
                if self.probe_us.is_none() {
                    tracing::warn!(cause = %refusal, "Redis refuses what is asked of the store");
                }
                self.probe_us.get_or_insert(now.mono_us.saturating_add(limits::REDIS_PROBE_INTERVAL_MS * 1_000));
                self.figures.set_refused(true);
            }
            Outcome::Failed(failure) => self.complain(now, "a command failed", &failure.text),
            // Of what takes room only: a full server takes deletions.
            Outcome::Done(_)
                if self.probe_us.is_some()
                    && (matches!(what, What::Probe)
                        || matches!(operation, Some(StoreOperation::Append | StoreOperation::Track))) =>
            {
                self.probe_us = None;
                self.figures.set_refused(false);
                tracing::info!("Redis does what is asked of the store again");
            }
            Outcome::Done(_) | Outcome::Unknown | Outcome::NotSent => {}
        }
    }

    /// Whether the server is to be asked whether it writes again.
    pub(super) fn probe_due(&mut self, now: Now) -> bool {
        let due = self.probe_us.is_some_and(|at_us| now.mono_us >= at_us);
        if due {
            self.probe_us = Some(now.mono_us.saturating_add(limits::REDIS_PROBE_INTERVAL_MS * 1_000));
        }
        due
    }

    /// Says in the log what is wrong with the data, not too often, and never what the data is.
    fn complain(&mut self, now: Now, what: &str, cause: &str) {
        if now.mono_us >= self.log_us {
            self.log_us = now.mono_us.saturating_add(LOG_INTERVAL_US);
            tracing::warn!(what, cause, "the store in Redis holds something that is not ours");
        }
    }
}
