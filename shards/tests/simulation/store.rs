//! A store that answers late, in order, and sometimes not at all; that restarts, and that may have forgotten everything.
use protocol::cluster::wire::Claim;
use protocol::ids::{NotificationId, TenantId};
use protocol::limits;
use protocol::rate_limit::{Identity, LimitKind};
use protocol::store::{AckVerdict, Age, Entry, MailboxKey, Position, StoreReply, StoreRequest, StoreTicket};
use protocol::template::Template;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// What is kept of the templates: one table for all shards, as in one server.
pub(crate) type SharedTemplates = Rc<RefCell<BTreeMap<(TenantId, Box<str>), Arc<Template>>>>;

/// What was counted in which window: one table for all shards, as in one server.
pub(crate) type SharedCounts = Rc<RefCell<HashMap<(LimitKind, Identity, u64), u64>>>;

/// One shard's store.
#[derive(Default)]
pub(crate) struct SimStore {
    /// What is kept of mail: each shard's own, or one for all nodes.
    pub(crate) kept: Rc<RefCell<Kept>>,
    pub(crate) templates: SharedTemplates,
    pub(crate) counts: SharedCounts,
    pending: VecDeque<(StoreTicket, StoreRequest)>,
    /// Made, and not yet delivered; those of a server that went away are unknown.
    ready: VecDeque<(StoreTicket, StoreReply)>,
    /// Of a hundred requests so many fail; half of those were done all the same, and nobody knows.
    pub(crate) failures_percent: u8,
    /// Of a hundred chances to answer so many are let go.
    pub(crate) slowness_percent: u8,
    /// Of a hundred chances to answer so many are used to make an answer that comes later.
    pub(crate) early_percent: u8,
    /// Nothing is answered.
    pub(crate) is_paused: bool,
    /// The server cannot be reached, and says so.
    pub(crate) is_away: bool,
    pub(crate) entries_max: usize,
    /// Requests by kind, ever: what a shard asks while the store is down.
    pub(crate) asked: Asked,
}

/// The mailboxes of one server.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) mailboxes: HashMap<MailboxKey, BTreeMap<Position, Entry>>,
    /// What was taken out and lingers.
    gone: HashMap<MailboxKey, BTreeMap<Position, Entry>>,
    /// When each was put in, by the server's clock.
    kept_at_ns: HashMap<Position, u64>,
    now_ns: u64,
    /// Whose acknowledgement is awaited.
    awaited: BTreeSet<(String, NotificationId)>,
    /// Taken, each for its mailbox.
    claims: HashSet<(MailboxKey, Claim)>,
    last: u64,
    /// Every mail that was ever kept, as it was then.
    pub(crate) kept_ever: Vec<(MailboxKey, protocol::store::Mail)>,
}

impl Kept {
    /// The server is another, and empty. Its clock goes on.
    pub(crate) fn lose_all(&mut self) {
        (self.mailboxes, self.gone, self.awaited, self.claims) = Default::default();
    }

    /// What was kept last is gone from this server, as it is from a replica that had not got it. Its clock goes on.
    pub(crate) fn lose_last(&mut self, count: usize) {
        for mailbox in self.mailboxes.values_mut().chain(self.gone.values_mut()) {
            (0..count).for_each(|_| drop(mailbox.pop_last()));
        }
    }
}

/// How often what was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) appends: usize,
    pub(crate) reads: usize,
    pub(crate) loads: usize,
    pub(crate) notes: usize,
    pub(crate) acknowledgements: usize,
}

impl SimStore {
    /// An empty one, with the templates and counts of all shards.
    pub(crate) fn of(templates: &SharedTemplates, counts: &SharedCounts) -> SimStore {
        SimStore { templates: Rc::clone(templates), counts: Rc::clone(counts), ..SimStore::default() }
    }

    pub(crate) fn submit(&mut self, ticket: StoreTicket, request: StoreRequest) {
        match &request {
            StoreRequest::AppendMail { .. } => self.asked.appends += 1,
            StoreRequest::ReadMail { .. } => self.asked.reads += 1,
            StoreRequest::LoadTemplates => self.asked.loads += 1,
            StoreRequest::TrackAck { .. } => self.asked.notes += 1,
            StoreRequest::Acknowledge { .. } => self.asked.acknowledgements += 1,
            _ => {}
        }
        self.pending.push_back((ticket, request));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.ready.is_empty() || self.is_paused
    }

    /// The server ends and begins anew: some of what was asked was done, nobody knows what. What it kept in memory only is
    /// gone.
    pub(crate) fn restart(&mut self, rng: &mut fastrand::Rng, unix_ns: u64, forgets: bool) {
        let done = rng.usize(0..=self.pending.len());
        for (at, (ticket, request)) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if at < done {
                self.handle(request, unix_ns);
            }
            self.ready.push_back((ticket, StoreReply::Unknown));
        }
        if forgets {
            let mut kept = self.kept.borrow_mut();
            (kept.mailboxes, kept.gone) = Default::default();
        }
    }

    /// Does what was asked; the answers are late.
    pub(crate) fn reads_ahead(&mut self, unix_ns: u64) {
        for (ticket, request) in std::mem::take(&mut self.pending) {
            let reply = self.handle(request, unix_ns);
            self.ready.push_back((ticket, reply));
        }
    }

    /// The node is gone: nobody waits for answers any more. What was under way may still be done.
    pub(crate) fn hang_up(&mut self, rng: &mut fastrand::Rng, unix_ns: u64) {
        self.restart(rng, unix_ns, false);
        self.ready.clear();
    }

    /// Answers the oldest request, if the seed says so.
    pub(crate) fn answer(&mut self, rng: &mut fastrand::Rng, unix_ns: u64) -> Option<(StoreTicket, StoreReply)> {
        if self.is_idle() || rng.u8(0..3) == 0 || rng.u8(0..100) < self.slowness_percent {
            return None;
        }
        if self.is_away && self.ready.is_empty() {
            return self.pending.pop_front().map(|(ticket, _)| (ticket, StoreReply::Failed));
        }
        // What is kept may change between the making of an answer and its coming.
        if self.early_percent > 0
            && !self.is_away
            && rng.u8(0..100) < self.early_percent
            && let Some((ticket, request)) = self.pending.pop_front()
        {
            let reply = self.handle(request, unix_ns);
            self.ready.push_back((ticket, reply));
            return None;
        }
        if self.ready.front().is_some() {
            return self.ready.pop_front();
        }
        let (ticket, request) = self.pending.pop_front()?;
        let fails = rng.u8(0..100) < self.failures_percent;
        if fails && rng.bool() {
            // Not done; and the store may not know that either.
            return Some((ticket, if rng.bool() { StoreReply::Failed } else { StoreReply::Unknown }));
        }
        let reply = self.handle(request, unix_ns);
        Some((ticket, if fails { StoreReply::Unknown } else { reply }))
    }

    fn handle(&mut self, request: StoreRequest, unix_ns: u64) -> StoreReply {
        let mut kept = self.kept.borrow_mut();
        let Kept { mailboxes, gone, kept_at_ns, now_ns, awaited, claims, last, kept_ever } = &mut *kept;
        // One server, whose clock does not go back though nodes' clocks differ.
        *now_ns = unix_ns.max(*now_ns);
        let age_ms = |position: &Position| (*now_ns - kept_at_ns.get(position).copied().unwrap_or(0)) / 1_000_000;
        match request {
            StoreRequest::CountRequest { kind, identity } => {
                let window = unix_ns / 1_000_000 / kind.period_ms();
                let mut counts = self.counts.borrow_mut();
                let count = counts.entry((kind, identity, window)).or_default();
                *count += 1;
                StoreReply::Counted { count: *count, ends_unix_ms: (window + 1) * kind.period_ms() }
            }
            StoreRequest::PutTemplate { tenant, template } => {
                self.templates.borrow_mut().insert((tenant, template.id.clone()), template);
                StoreReply::Done
            }
            StoreRequest::DeleteTemplate { tenant, id } => {
                self.templates.borrow_mut().remove(&(tenant, id));
                StoreReply::Done
            }
            StoreRequest::LoadTemplates => {
                let templates = self.templates.borrow();
                let rows = templates.iter().map(|((tenant, _), template)| (tenant.clone(), Arc::clone(template)));
                StoreReply::Templates(rows.collect())
            }
            StoreRequest::AppendMail { mailbox, mail, claim } => {
                let entries = mailboxes.entry((*mailbox).clone()).or_default();
                let lingering = gone.get(&mailbox).and_then(|gone| gone.keys().next_back().copied());
                let before = entries.keys().next_back().copied().max(lingering);
                if claim.is_some_and(|claim| !claims.insert((MailboxKey::clone(&mailbox), claim))) {
                    return StoreReply::Appended { positions: Vec::new(), before, dropped: 0 };
                }
                let mut positions = Vec::new();
                for mail in mail {
                    *last += 1;
                    let position = Position(*last, 0);
                    positions.push(position);
                    kept_at_ns.insert(position, *now_ns);
                    kept_ever.push(((*mailbox).clone(), mail.clone()));
                    entries.insert(position, Entry::standing(position, mail));
                }
                let mut dropped = 0;
                while self.entries_max > 0 && entries.len() > self.entries_max {
                    entries.pop_first();
                    dropped += 1;
                }
                StoreReply::Appended { positions, before, dropped }
            }
            StoreRequest::ReadMail { mailbox, after, entries_max, lingering_ms } => {
                let standing = mailboxes.entry((*mailbox).clone()).or_default();
                standing.retain(|_, entry| entry.mail.expires_at_unix_ns > unix_ns);
                let lingering = gone.entry((*mailbox).clone()).or_default();
                let from = after.map_or(Position::default(), |at| Position(at.0, at.1 + 1));
                let mut page: Vec<&mut Entry> = standing.range_mut(from..).map(|(_, entry)| entry).collect();
                let is_asked_for = |position: &Position| lingering_ms > 0 && age_ms(position) <= lingering_ms;
                page.extend(lingering.range_mut(from..).filter(|(at, _)| is_asked_for(at)).map(|(_, entry)| entry));
                page.sort_by_key(|entry| entry.position);
                let next = (page.len() > entries_max).then(|| page[entries_max - 1].position);
                let hand_out = |entry: &mut Entry| {
                    entry.mail.attempts += u32::from(!entry.is_gone);
                    Entry { age: Age::of(age_ms(&entry.position), 0), ..entry.clone() }
                };
                StoreReply::Mail { entries: page.into_iter().take(entries_max).map(hand_out).collect(), next }
            }
            StoreRequest::BeginMail { mailbox, positions } => {
                let standing = mailboxes.entry((*mailbox).clone()).or_default();
                for (_, entry) in standing.iter_mut().filter(|(position, _)| positions.contains(position)) {
                    entry.mail.attempts += 1;
                }
                StoreReply::Done
            }
            StoreRequest::RemoveMail { mailbox, positions, lingers } => {
                let standing = mailboxes.entry((*mailbox).clone()).or_default();
                let lingering = gone.entry((*mailbox).clone()).or_default();
                lingering.retain(|position, _| age_ms(position) <= limits::STORE_LINGER_MS);
                for position in positions {
                    if let Some(entry) = standing.remove(&position)
                        && lingers
                        && age_ms(&position) <= limits::STORE_LINGER_MS
                    {
                        lingering.insert(position, Entry { is_gone: true, ..entry });
                    }
                }
                StoreReply::Done
            }
            StoreRequest::TrackAck { mailbox, id, .. } => {
                awaited.insert((mailbox.user.to_string(), id));
                StoreReply::Done
            }
            StoreRequest::Acknowledge { mailbox, id, .. } => {
                let was_awaited = awaited.remove(&(mailbox.user.to_string(), id));
                StoreReply::Acknowledged(if was_awaited { AckVerdict::Done } else { AckVerdict::NotPending })
            }
        }
    }

    /// Entries kept now.
    pub(crate) fn len(&self) -> usize {
        self.kept.borrow().mailboxes.values().map(BTreeMap::len).sum()
    }
}
