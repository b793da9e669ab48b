//! Revocations at the desk: kept in Redis before the others are told, read from it by whoever may have missed some.
use super::{Asked, Bridge, NOBODY, WALK_COMMANDS_MAX};
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
        let superseded = self.ledger.add(revocation, false);
        if self.is_there() {
            let kept = self.asks(Asked::Kept { ticket, revocation: Arc::clone(revocation) });
            let Bridge { revocations, commands, .. } = self;
            let is_taken =
                revocations.keep(std::iter::once(&**revocation), |command| commands.submit(now, kept, command).is_ok());
            if !is_taken {
                self.asked.remove(&kept.0);
            } else if self.publish(now, topic, parcel, ticket, None) {
                let Bridge { revocations, commands, .. } = self;
                // What is not taken is done by a later one, or when Redis forgets it by itself.
                let _ = revocations.outlive(|command| commands.submit(now, NOBODY, command));
                if let Some(superseded) = superseded {
                    let _ = revocations.drop(&superseded, |command| commands.submit(now, NOBODY, command));
                }
                return;
            } else if let Some(Asked::Kept { ticket, .. }) = self.asked.get_mut(&kept.0) {
                *ticket = None;
            }
        }
        self.inbox.events.extend(ticket.map(|ticket| ClusterEvent::Sent { ticket, nodes: None }));
    }

    /// Writes what is owed, and reads what may have been missed, as far as parcels leave room.
    pub(super) fn tend_revocations(&mut self, now: Now) {
        while self.commands.unanswered() < WALK_COMMANDS_MAX {
            let owed = self.ledger.take_owed(limits::REVOCATION_PAGE);
            if owed.is_empty() {
                break;
            }
            let (untold, told): (Vec<_>, Vec<_>) = owed.into_iter().partition(|(_, is_untold)| *is_untold);
            if !told.is_empty() {
                let Bridge { revocations, commands, .. } = self;
                let page = told.iter().map(|(revocation, _)| &**revocation);
                // What is not taken is written when Redis is back once more, or by another node.
                let _ = revocations.keep(page, |command| commands.submit(now, NOBODY, command));
                let _ = revocations.outlive(|command| commands.submit(now, NOBODY, command));
            }
            for (revocation, _) in untold {
                let kind = ParcelKind::Revoked { revocation: Arc::clone(&revocation), ticket: None };
                let parcel = Parcel { from_server: self.server_id.clone(), to_server: None, kind };
                self.revoke(now, &Topic::Everybody, &parcel, &revocation);
            }
        }
        if let Reading::Due(cursor) = self.ledger.reading
            && self.commands.unanswered() < WALK_COMMANDS_MAX
        {
            let asked = self.asks(Asked::Revocations);
            let Bridge { revocations, commands, .. } = self;
            if cursor == 0 {
                let _ = revocations.sweep(now.unix_seconds(), |command| commands.submit(now, NOBODY, command));
            }
            match revocations.page(cursor, |command| commands.submit(now, asked, command).is_ok()) {
                true => self.ledger.reading = Reading::Asked,
                false => _ = self.asked.remove(&asked.0),
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
