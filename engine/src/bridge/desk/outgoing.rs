//! Parcels on their way out: to Redis, and what became of them there.
use super::{Asked, Bridge, Hint, NOBODY};
use crate::bridge::figures::{BridgeFigures, add};
use crate::bridge::inbox::{Inbox, is_notification};
use protocol::clock::Now;
use protocol::cluster::wire::{Parcel, ParcelKind};
use protocol::cluster::{ClusterEvent, GatherTicket, Topic};
use protocol::limits;
use std::collections::HashMap;
use std::sync::Arc;
use storage::redis::commands::answer::Outcome;
use storage::redis::commands::status::Operation;
use storage::redis::commands::{Command, Words};

impl Bridge {
    pub(super) fn send(&mut self, now: Now, topic: Topic, parcel: Arc<Parcel>) {
        if let ParcelKind::Revoked { revocation, .. } = &parcel.kind {
            return self.revoke(now, &topic, &parcel, revocation);
        }
        let ticket = parcel.ticket();
        let hint = matches!(parcel.kind, ParcelKind::Hint { .. }).then(|| (topic.clone(), Arc::clone(&parcel)));
        let is_sent = match self.several(&parcel) {
            Some(partitions) => self.publish_to_several(now, partitions, &parcel, ticket),
            None => self.publish(now, &topic, &parcel, ticket, hint),
        };
        if is_sent {
            if is_notification(&parcel.kind) {
                add(&self.figures.routed, 1);
            }
        } else if let Some(ticket) = ticket {
            self.inbox.events.push(ClusterEvent::Sent { ticket, nodes: None });
        }
    }

    /// Gives Redis a parcel. Whether it is on its way; with a ticket its answer is told, and a hint that does not arrive
    /// is kept until it can be sent.
    pub(super) fn publish(
        &mut self,
        now: Now,
        topic: &Topic,
        parcel: &Parcel,
        ticket: Option<GatherTicket>,
        hint: Option<Hint>,
    ) -> bool {
        self.publish_in(now, self.partition(topic), topic, parcel, ticket, hint)
    }

    /// The same in a partition, or where nodes meet.
    pub(super) fn publish_in(
        &mut self,
        now: Now,
        partition: Option<usize>,
        topic: &Topic,
        parcel: &Parcel,
        ticket: Option<GatherTicket>,
        hint: Option<Hint>,
    ) -> bool {
        if !self.is_there_in(partition) {
            self.figures.not_sent();
            keep(&mut self.unsent, hint);
            return false;
        }
        let Some(payload) = self.encode(parcel) else { return false };
        let is_sent = self.put(now, partition, topic, &payload, ticket, hint);
        self.give_back(payload);
        is_sent
    }

    /// The bytes of a parcel, in room that is given back. `None`: no node would take it.
    pub(super) fn encode(&mut self, parcel: &Parcel) -> Option<Vec<u8>> {
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        if let Err(error) = parcel.encode(&mut payload) {
            self.figures.refuse(&error);
            tracing::warn!(cause = %error, "a notification cannot be sent to other nodes");
            self.give_back(payload);
            return None;
        }
        Some(payload)
    }

    /// A parcel may have megabytes; nobody keeps room for the longest one there ever was.
    pub(super) fn give_back(&mut self, payload: Vec<u8>) {
        if payload.capacity() <= limits::READ_BYTES_MAX {
            self.payload = payload;
        }
    }

    /// Gives Redis the bytes of a parcel.
    pub(super) fn put(
        &mut self,
        now: Now,
        partition: Option<usize>,
        topic: &Topic,
        payload: &[u8],
        ticket: Option<GatherTicket>,
        hint: Option<Hint>,
    ) -> bool {
        let mut name = std::mem::take(&mut self.name);
        name.clear();
        self.write_name(partition, topic, &mut name);
        let name_of_command = match ticket.is_some() || hint.is_some() {
            true => self.asks(Asked::Parcel { ticket, hint }),
            false => NOBODY,
        };
        let is_taken = match (&mut self.partitions, partition) {
            (Some(partitions), Some(nth)) => partitions.router.publish(now, nth, name_of_command, &name, payload),
            _ => {
                let words: [&[u8]; 3] = [b"PUBLISH", &name, payload];
                let command = Command { operation: Operation::ClusterPublish, words: Words::Plain(&words) };
                self.commands.submit(now, name_of_command, command).is_ok()
            }
        };
        match is_taken {
            true => add(&self.figures.sent, 1),
            false => self.figures.not_sent(),
        }
        if !is_taken && let Some(Asked::Parcel { hint, .. }) = self.asked.remove(&name_of_command.0) {
            keep(&mut self.unsent, hint);
        }
        self.name = name;
        is_taken
    }
}

/// Keeps a hint until it can be sent: the last one of a user is enough, whoever gets it reads what is before.
pub(super) fn keep(unsent: &mut HashMap<Topic, Arc<Parcel>>, hint: Option<Hint>) {
    if let Some((topic, parcel)) = hint
        && (unsent.len() < limits::CLUSTER_HINTS_UNSENT_MAX || unsent.contains_key(&topic))
    {
        unsent.insert(topic, parcel);
    }
}

/// Redis said what became of a parcel, or nobody knows.
pub(super) fn parcel_answered(
    inbox: &mut Inbox,
    figures: &BridgeFigures,
    unsent: &mut HashMap<Topic, Arc<Parcel>>,
    unkept: &mut Vec<GatherTicket>,
    ticket: Option<GatherTicket>,
    hint: Option<Hint>,
    outcome: Outcome<'_>,
) {
    let count = match outcome {
        Outcome::Done(reply) => reply.unsigned(),
        _ => {
            figures.not_sent();
            keep(unsent, hint);
            None
        }
    };
    let mut nodes = count.and_then(|count| u32::try_from(count).ok());
    if let Some(at) = unkept.iter().position(|unkept| Some(*unkept) == ticket) {
        unkept.swap_remove(at);
        nodes = None;
    }
    inbox.events.extend(ticket.map(|ticket| ClusterEvent::Sent { ticket, nodes }));
}
