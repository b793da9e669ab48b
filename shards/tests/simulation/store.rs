//! A store that answers late, in order, and sometimes not at all.
use protocol::store::{Entry, MailboxKey, Position, StoreReply, StoreRequest, StoreTicket};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// One shard's store.
#[derive(Default)]
pub(crate) struct SimStore {
    pub(crate) mailboxes: HashMap<MailboxKey, BTreeMap<Position, Entry>>,
    pending: VecDeque<(StoreTicket, StoreRequest)>,
    last: u64,
    /// Of a hundred requests so many fail; half of those were done all the same, and nobody knows.
    pub(crate) failures_percent: u8,
    /// Nothing is answered.
    pub(crate) is_paused: bool,
    pub(crate) entries_max: usize,
}

impl SimStore {
    pub(crate) fn submit(&mut self, ticket: StoreTicket, request: StoreRequest) {
        self.pending.push_back((ticket, request));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() || self.is_paused
    }

    /// Answers the oldest request, if the seed says so.
    pub(crate) fn answer(&mut self, rng: &mut fastrand::Rng, unix_ns: u64) -> Option<(StoreTicket, StoreReply)> {
        if self.is_paused || self.pending.is_empty() || rng.u8(0..3) == 0 {
            return None;
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
        match request {
            StoreRequest::PutTemplate { .. } | StoreRequest::DeleteTemplate { .. } => StoreReply::Done,
            StoreRequest::LoadTemplates => StoreReply::Templates(Vec::new()),
            StoreRequest::AppendMail { mailbox, mail } => {
                let entries = self.mailboxes.entry((*mailbox).clone()).or_default();
                let mut positions = Vec::new();
                for mail in mail {
                    self.last += 1;
                    let position = Position(self.last, 0);
                    positions.push(position);
                    entries.insert(position, Entry { position, mail });
                }
                let mut dropped = 0;
                while self.entries_max > 0 && entries.len() > self.entries_max {
                    entries.pop_first();
                    dropped += 1;
                }
                StoreReply::Appended { positions, dropped }
            }
            StoreRequest::ReadMail { mailbox, after, entries_max } => {
                let Some(kept) = self.mailboxes.get_mut(&mailbox) else {
                    return StoreReply::Mail { entries: Vec::new(), next: None };
                };
                kept.retain(|_, entry| entry.mail.expires_at_unix_ns > unix_ns);
                let behind = kept.range_mut(after.map_or(Position::default(), |at| Position(at.0, at.1 + 1))..);
                let mut entries = Vec::new();
                let mut next = None;
                for (_, entry) in behind {
                    if entries.len() == entries_max {
                        next = entries.last().map(|entry: &Entry| entry.position);
                        break;
                    }
                    entry.mail.attempts += 1;
                    entries.push(entry.clone());
                }
                StoreReply::Mail { entries, next }
            }
            StoreRequest::RemoveMail { mailbox, positions } => {
                if let Some(kept) = self.mailboxes.get_mut(&mailbox) {
                    kept.retain(|position, _| !positions.contains(position));
                }
                StoreReply::Done
            }
            StoreRequest::TrackAck { .. } | StoreRequest::Acknowledge { .. } => StoreReply::Failed,
        }
    }

    /// Entries kept now.
    pub(crate) fn len(&self) -> usize {
        self.mailboxes.values().map(BTreeMap::len).sum()
    }
}
