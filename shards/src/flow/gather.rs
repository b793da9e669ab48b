//! Counts and answers that come back from other shards, and the answer that is given once they are all there.
use crate::effect::{Effect, Effects};
use crate::key::ConnKey;
use crate::mesh::message::{Answer, GatherId, Message, ReplyTo, TemplateVerdict};
use crate::shard::Shard;
use crate::tables::gathers::{Ending, Gather, GatherKind};
use protocol::clock::Now;
use protocol::limits;
use protocol::publish::receipt::Receipt;

/// Marks a gather's key among the connections' in the wheel.
pub(crate) const GATHER_SLOT_BIT: u32 = 1 << 31;

impl Shard {
    /// Opens a gather for a connection whose answer waits. It counts `parts` when they are known, else it stays open
    /// until somebody says how many there will be.
    pub(crate) fn open_gather(
        &mut self,
        now: Now,
        connection: ConnKey,
        parts: Option<u32>,
        kind: GatherKind,
    ) -> GatherId {
        let deadline_us = now.mono_us + limits::GATHER_DEADLINE_MS * 1_000;
        let id = self.gathers.insert(Gather {
            connection,
            missing: i64::from(parts.unwrap_or(0)),
            unsent: 0,
            open_ended: parts.is_none(),
            deadline_us,
            tick: 0,
            kind,
        });
        let key = ConnKey { slot: id.slot | GATHER_SLOT_BIT, generation: id.generation };
        let tick = self.wheel.enter(key, deadline_us / 1_000);
        if let Some(gather) = self.gathers.get_mut(id) {
            gather.tick = tick;
        }
        id
    }

    /// Says how many parts a gather of this shard waits for, before any of them is under way.
    pub(crate) fn expect_parts(&mut self, gather: Option<GatherId>, parts: i64) {
        if let Some(gather) = gather.and_then(|id| self.gathers.get_mut(id)) {
            gather.open_ended = false;
            gather.missing += parts;
        }
    }

    /// A line's owner says how many receipts will come.
    pub(crate) fn gather_expects(&mut self, now: Now, id: GatherId, parts: u32, parcels: u32, effects: &mut Effects) {
        self.expect_parts(Some(id), i64::from(parts));
        self.expect_parcels(id, parcels);
        self.answer_if_complete(now, id, effects);
    }

    /// Tells whoever counts what this shard did.
    pub(crate) fn report(&mut self, now: Now, reply: Option<ReplyTo>, receipt: Receipt, effects: &mut Effects) {
        let Some(reply) = reply else { return };
        if reply.shard == self.me {
            self.gather_receipt(now, reply.gather, receipt, effects);
        } else {
            let message = Message::Receipt { gather: reply.gather, receipt };
            effects.push(Effect::Send { to: reply.shard, message });
        }
    }

    /// One shard's counts.
    pub(crate) fn gather_receipt(&mut self, now: Now, id: GatherId, receipt: Receipt, effects: &mut Effects) {
        let Some(gather) = self.gathers.get_mut(id) else { return };
        gather.missing -= 1;
        if let GatherKind::Publish { tally, .. }
        | GatherKind::BatchItem { tally, .. }
        | GatherKind::Ending { tally, .. }
        | GatherKind::Parcel { tally, .. } = &mut gather.kind
        {
            *tally += receipt;
        }
        self.answer_if_complete(now, id, effects);
    }

    /// One shard's answer to a question.
    pub(crate) fn gather_answer(&mut self, now: Now, id: GatherId, answer: Answer, effects: &mut Effects) {
        let Some(gather) = self.gathers.get_mut(id) else { return };
        gather.missing -= 1;
        match (&mut gather.kind, answer) {
            (GatherKind::Channels(rows), Answer::Channels(found)) => {
                for (name, subscribers) in found {
                    *rows.entry(name).or_default() += subscribers;
                }
            }
            (GatherKind::Channel(_, subscribers), Answer::Channel(found)) => *subscribers += found,
            (GatherKind::UserSubscriptions(_, connections, names), Answer::UserSubscriptions(found, found_names)) => {
                (*connections, *names) = (found, found_names);
            }
            (GatherKind::Ending { which: Ending::Tokens { is_full, .. }, .. }, Answer::RevocationsFull) => {
                (*is_full, gather.open_ended, gather.missing) = (true, false, 0);
            }
            (GatherKind::UserSessions { rows, .. }, Answer::UserSessions(found)) => rows.extend(found),
            (GatherKind::Tenants(rows), Answer::Tenants(found)) => {
                for row in found {
                    match rows.get_mut(&row.tenant) {
                        Some(sum) => sum.add(&row),
                        None => drop(rows.insert(row.tenant.clone(), row)),
                    }
                }
            }
            (GatherKind::Tenant(_, sum) | GatherKind::TenantStatus(_, sum), Answer::Tenants(found)) => {
                for row in found {
                    match sum {
                        Some(sum) => sum.add(&row),
                        None => *sum = Some(row),
                    }
                }
            }
            (GatherKind::Template { verdict, .. }, Answer::Template(found)) => {
                // Other shards may have said that they have it before the owner's word came: it was open until now.
                gather.open_ended = false;
                gather.missing += 1;
                if let TemplateVerdict::Done { parts, .. } = &found {
                    gather.missing += i64::from(*parts);
                }
                *verdict = Some(found);
            }
            _ => debug_assert!(false, "an answer to another question"),
        }
        self.answer_if_complete(now, id, effects);
    }

    pub(crate) fn answer_if_complete(&mut self, now: Now, id: GatherId, effects: &mut Effects) {
        if self.gathers.get(id).is_some_and(Gather::is_complete) {
            self.answer(now, id, effects);
        }
    }

    /// Answers with what is known: everything, or what came before the deadline.
    pub(crate) fn answer(&mut self, now: Now, id: GatherId, effects: &mut Effects) {
        let Some(mut gather) = self.gathers.remove(id) else { return };
        let is_late = !gather.is_complete();
        if let GatherKind::Ending { is_unsure, unconfirmed, .. } = &mut gather.kind {
            *is_unsure |= gather.open_ended || gather.unsent != 0;
            *unconfirmed = u64::try_from(gather.missing).unwrap_or(0);
        }
        self.answer_request(now, gather.connection, gather.kind, is_late, effects);
    }
}
