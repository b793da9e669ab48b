//! Parcels on their way out: to Redis. What became of them there is an answer's affair.
use super::Bridge;
use super::answers::{Asked, Hint};
use super::links::NOBODY;
use crate::bridge::figures::add;
use crate::bridge::inbox::is_notification;
use protocol::clock::Now;
use protocol::cluster::wire::{Parcel, ParcelKind, Published};
use protocol::cluster::{ClusterEvent, GatherTicket, Topic};
use protocol::limits;
use protocol::notification::{Publication, Target};
use protocol::stream::StreamSeq;
use std::sync::Arc;
use storage::redis::partitions::partition_of;

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

    /// Sends a publication of which nobody waits to hear who got it: with others, while no other node is known to be there. One that
    /// only stands still would find all of them before it, and Redis would not hold so much for it: for it, topic by topic.
    pub(super) fn send_publication(&mut self, now: Now, publication: &Publication) {
        let Publication { tenant, target, audience, .. } = publication;
        let partition = match (&self.links.partitions, target) {
            (None, _) | (_, Target::Broadcast) => Some(None),
            (_, Target::User(name) | Target::Channel(name)) => Some(Some(partition_of(tenant, name))),
            (_, Target::Users(_) | Target::Channels(_)) => None,
        };
        if let Some(partition) = partition
            && self.is_alone
            && !self.is_stopping
            && !self.inbox.members.may_return(now, self.keys.session_ttl_us)
        {
            if !self.is_there_in(partition) {
                return self.figures.not_sent();
            }
            let is_taken = self.bundles.push(now, partition, publication) || {
                self.send_bundle(now, partition);
                self.bundles.push(now, partition, publication)
            };
            if is_taken {
                return add(&self.figures.routed, 1);
            }
        }
        let audience = audience.clone().filter(|_| matches!(target, Target::Broadcast));
        let published = Published::of(publication, StreamSeq::default(), None, now);
        let kind = ParcelKind::Publication { target: target.clone(), audience, published };
        let parcel = Parcel { from_server: self.server_id.clone(), to_server: None, kind };
        self.send(now, Topic::of(tenant, target), Arc::new(parcel));
    }

    /// Sends the bundle of a place when its time has come.
    pub(super) fn send_due_bundle(&mut self, now: Now, partition: Option<usize>) {
        if self.bundles.due_us(partition).is_some_and(|due_us| due_us <= now.mono_us) {
            self.send_bundle(now, partition);
        }
    }

    /// Sends what waits anywhere.
    pub(super) fn send_bundles(&mut self, now: Now) {
        self.send_bundle(now, None);
        (0..self.figures.partitions.len()).for_each(|nth| self.send_bundle(now, Some(nth)));
    }

    /// Sends what waits in a place, to the topic that every node listens to there.
    pub(super) fn send_bundle(&mut self, now: Now, partition: Option<usize>) {
        if self.bundles.due_us(partition).is_none() {
            return;
        }
        let is_there = self.is_there_in(partition);
        self.links.write_name(partition, &Topic::Everybody, &mut self.name);
        let Bridge { bundles, links, figures, name, .. } = self;
        bundles.send(partition, |bytes, publications| {
            match is_there && links.publish(now, partition, NOBODY, name, bytes) {
                true => {
                    figures.sent();
                    add(&figures.bundles, 1);
                }
                false => (0..publications).for_each(|_| figures.not_sent()),
            }
        });
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
        self.publish_in(now, self.links.partition(topic), topic, parcel, ticket, hint)
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
            self.answers.keep(hint);
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

    /// Gives Redis the bytes of a parcel, behind what waits there.
    pub(super) fn put(
        &mut self,
        now: Now,
        partition: Option<usize>,
        topic: &Topic,
        payload: &[u8],
        ticket: Option<GatherTicket>,
        hint: Option<Hint>,
    ) -> bool {
        self.send_bundle(now, partition);
        self.links.write_name(partition, topic, &mut self.name);
        let command = match ticket.is_some() || hint.is_some() {
            true => self.answers.wait_for(Asked::Parcel { ticket, hint }),
            false => NOBODY,
        };
        let is_taken = self.links.publish(now, partition, command, &self.name, payload);
        match is_taken {
            true => self.figures.sent(),
            false => self.figures.not_sent(),
        }
        if !is_taken && let Some(Asked::Parcel { hint, .. }) = self.answers.forget(command) {
            self.answers.keep(hint);
        }
        is_taken
    }
}
