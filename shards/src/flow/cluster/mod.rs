//! What a node has to do with the others (decision 8): the bridge shard asks the bridge and is told by it; the other shards
//! reach it over the mesh, in order.
mod admission;
mod claims;
mod hints;
mod parcels;
pub(crate) mod sessions;
mod watch;

use crate::effect::{Effect, Effects};
use crate::key::ShardId;
use crate::mesh::message::{GatherId, Message};
use crate::shard::Shard;
use protocol::clock::Now;
use protocol::cluster::wire::Hello;
use protocol::cluster::{ClusterEvent, ClusterRequest, GatherTicket};
use protocol::limits;
use std::sync::atomic::Ordering::Relaxed;

impl Shard {
    /// Whether mail that is kept stands where every node finds it.
    pub(crate) fn shares_mail(&self) -> bool {
        self.config.cluster.is_some_and(|rules| rules.shares_mail)
    }

    /// No other node was heard of for a while: nobody waits for what others say.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone_since_us.is_some()
    }

    /// Whether other nodes may be reading the same mailboxes: what is forgotten lingers for them.
    pub(crate) fn is_read_elsewhere(&self) -> bool {
        self.shares_mail() && !self.is_alone()
    }

    /// Whether something may linger in them: for a while after the last other node has gone, too.
    pub(crate) fn reads_lingering(&self, now: Now) -> bool {
        let lingers = |since_us: u64| now.mono_us < since_us + limits::STORE_LINGER_MS * 1_000;
        self.shares_mail() && self.alone_since_us.is_none_or(lingers)
    }

    /// Asks the bridge, here or by way of the shard that has it.
    pub(crate) fn ask_bridge(&self, request: ClusterRequest, effects: &mut Effects) {
        let Some(rules) = self.config.cluster else { return };
        let request = Box::new(request);
        effects.push(match rules.bridge == self.me {
            true => Effect::Cluster(request),
            false => Effect::Send { to: rules.bridge, message: Message::Bridge(request) },
        });
    }

    /// On the bridge shard: what the bridge tells goes to whom it concerns.
    pub(crate) fn bridge_told(&mut self, now: Now, event: ClusterEvent, effects: &mut Effects) {
        match event {
            ClusterEvent::Parcel(parcel) => self.parcel_arrived(now, *parcel, effects),
            ClusterEvent::Watching { shard, .. } => self.tell(now, ShardId(shard), event, effects),
            ClusterEvent::Admitted { ticket, .. } => self.tell(now, ShardId(ticket.shard), event, effects),
            ClusterEvent::Sent { ticket, .. }
            | ClusterEvent::Receipt { ticket, .. }
            | ClusterEvent::Answer { ticket, .. } => self.tell(now, ShardId(ticket.shard), event, effects),
            ClusterEvent::Revoked(revocations) => self.revoked_elsewhere(now, revocations, None, effects),
            ClusterEvent::Resumed
            | ClusterEvent::Members { .. }
            | ClusterEvent::Alone(_)
            | ClusterEvent::RefreshSessions => {
                self.tell_all(now, &event, effects);
            }
        }
    }

    /// Hands an event on. Other nodes give our tickets back: they may name a shard that does not exist.
    fn tell(&mut self, now: Now, shard: ShardId, event: ClusterEvent, effects: &mut Effects) {
        if shard == self.me {
            self.cluster_told(now, event, effects);
        } else if shard.index() < self.shards {
            effects.push(Effect::Send { to: shard, message: Message::Cluster(Box::new(event)) });
        }
    }

    fn tell_all(&mut self, now: Now, event: &ClusterEvent, effects: &mut Effects) {
        for shard in 0..self.shards {
            self.tell(now, ShardId(shard as u8), event.clone(), effects);
        }
    }

    /// What concerns this shard.
    pub(crate) fn cluster_told(&mut self, now: Now, event: ClusterEvent, effects: &mut Effects) {
        match event {
            ClusterEvent::Watching { topic, serial, .. } => self.watching(now, &topic, serial, effects),
            ClusterEvent::Admitted { ticket, admission } => self.admission_told(now, ticket, admission, effects),
            ClusterEvent::Sent { ticket, nodes } => self.gather_sent(now, gather_id(ticket), nodes, effects),
            ClusterEvent::Receipt { ticket, receipt } => {
                self.gather_receipt_from_elsewhere(now, gather_id(ticket), receipt, effects);
            }
            ClusterEvent::Parcel(parcel) => self.parcel_handed_on(now, *parcel, effects),
            ClusterEvent::Resumed => self.read_all_again(now, effects),
            ClusterEvent::Members { all, reads_since_us, is_first } => {
                self.meet(&all);
                self.rendezvous.meet(now, &all, &self.config.server_id, is_first);
                self.meet_readers(now, reads_since_us, effects);
            }
            ClusterEvent::Alone(is_alone) => {
                self.alone_since_us = is_alone.then(|| self.alone_since_us.unwrap_or(now.mono_us));
            }
            ClusterEvent::Answer { ticket, sessions } => {
                self.gather_sessions(now, gather_id(ticket), sessions, effects);
            }
            ClusterEvent::RefreshSessions => self.refresh_sessions(),
            // The bridge shard's own affair; it tells in other words.
            ClusterEvent::Revoked(_) => {}
        }
    }

    /// The members as they are now; the node's figures are told by the bridge shard.
    fn meet(&mut self, members: &[Hello]) {
        if self.config.cluster.is_some_and(|rules| rules.bridge == self.me) {
            let sum = |of: fn(&Hello) -> u64| members.iter().map(of).fold(0, u64::saturating_add);
            self.node.cluster_members.store(members.len() as u64, Relaxed);
            self.node.cluster_connections.store(sum(|hello| hello.connections), Relaxed);
            self.node.cluster_users.store(sum(|hello| hello.users), Relaxed);
        }
    }

    pub(crate) fn ticket(&self, gather: GatherId) -> GatherTicket {
        GatherTicket { shard: self.me.0, slot: gather.slot, generation: gather.generation }
    }
}

fn gather_id(ticket: GatherTicket) -> GatherId {
    GatherId { slot: ticket.slot, generation: ticket.generation }
}
