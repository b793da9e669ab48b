//! Revocations at the desk: kept in Redis before the others are told, read from it by whoever may have missed some.
use super::Bridge;
use super::answers::Asked;
use super::keys::{Keys, WALK_COMMANDS_MAX};
use crate::bridge::ledger::{Ledger, Reading};
use protocol::auth::revocation::Revocation;
use protocol::clock::Now;
use protocol::cluster::wire::{Parcel, ParcelKind};
use protocol::cluster::{ClusterEvent, Topic};
use protocol::limits;
use std::sync::Arc;
use storage::redis::commands::answer::Outcome;
use storage::redis::revocations::Page;

impl Bridge {
    /// Keeps a revocation and tells the others; both or neither is said to have been done. What was not done is owed until
    /// Redis is back.
    pub(super) fn revoke(&mut self, now: Now, topic: &Topic, parcel: &Parcel, revocation: &Arc<Revocation>) {
        let ticket = parcel.ticket();
        let superseded = self.keys.ledger.add(revocation, false);
        if self.is_there() {
            let kept = self.answers.wait_for(Asked::Kept { ticket, revocation: Arc::clone(revocation) });
            let Bridge { keys: Keys { revocations, .. }, links, .. } = self;
            if !revocations.keep(std::iter::once(&**revocation), |command| links.ask(now, kept, command)) {
                self.answers.forget(kept);
            } else if self.publish(now, topic, parcel, ticket, None) {
                let Bridge { keys: Keys { revocations, .. }, links, .. } = self;
                // What is not taken is done by a later one, or when Redis forgets it by itself.
                revocations.outlive(|command| links.tell(now, command));
                if let Some(superseded) = superseded {
                    revocations.drop(&superseded, |command| links.tell(now, command));
                }
                return;
            } else {
                self.answers.drop_ticket(kept);
            }
        }
        self.inbox.events.extend(ticket.map(|ticket| ClusterEvent::Sent { ticket, nodes: None }));
    }

    /// Writes what is owed, and reads what may have been missed, as far as parcels leave room.
    pub(super) fn tend_revocations(&mut self, now: Now) {
        while self.links.unanswered(None) < WALK_COMMANDS_MAX {
            let owed = self.keys.ledger.take_owed(limits::REVOCATION_PAGE);
            if owed.is_empty() {
                break;
            }
            let (untold, told): (Vec<_>, Vec<_>) = owed.into_iter().partition(|(_, is_untold)| *is_untold);
            if !told.is_empty() {
                let Bridge { keys: Keys { revocations, .. }, links, .. } = self;
                let page = told.iter().map(|(revocation, _)| &**revocation);
                // What is not taken is written when Redis is back once more, or by another node.
                revocations.keep(page, |command| links.tell(now, command));
                revocations.outlive(|command| links.tell(now, command));
            }
            for (revocation, _) in untold {
                let kind = ParcelKind::Revoked { revocation: Arc::clone(&revocation), ticket: None };
                let parcel = Parcel { from_server: self.server_id.clone(), to_server: None, kind };
                self.revoke(now, &Topic::Everybody, &parcel, &revocation);
            }
        }
        if let Reading::Due(cursor) = self.keys.ledger.reading
            && self.links.unanswered(None) < WALK_COMMANDS_MAX
        {
            let asked = self.answers.wait_for(Asked::Revocations);
            let Bridge { keys: Keys { revocations, ledger, .. }, links, .. } = self;
            if cursor == 0 {
                revocations.sweep(now.unix_seconds(), |command| links.tell(now, command));
            }
            match revocations.page(cursor, |command| links.ask(now, asked, command)) {
                true => ledger.reading = Reading::Asked,
                false => _ = self.answers.forget(asked),
            }
        }
    }
}

/// A page of what Redis keeps came, or did not: what the shards are to be told.
pub(super) fn read(ledger: &mut Ledger, now: Now, outcome: Outcome<'_>) -> Option<ClusterEvent> {
    let page = match outcome {
        Outcome::Done(reply) => Page::read(reply).ok(),
        _ => None,
    };
    let Some(page) = page else {
        ledger.reading = Reading::Failed;
        return None;
    };
    if page.unreadable > 0 {
        tracing::warn!(count = page.unreadable, "Redis names revocations that this version cannot read");
    }
    let read = ledger.read(page, now.unix_seconds());
    (!read.is_empty()).then_some(ClusterEvent::Revoked(read))
}
