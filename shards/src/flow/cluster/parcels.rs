//! Publishes between nodes: one parcel to the topic of those whom it is for, and a receipt back from every node that got it.
use crate::conn::outbox::Delivery;
use crate::effect::Effects;
use crate::flow::cluster::hints::Kept;
use crate::flow::deliver::Overflow;
use crate::flow::publish::Origin;
use crate::key::ConnKey;
use crate::mesh::message::{GatherId, ReplyTo};
use crate::shard::Shard;
use crate::tables::gathers::GatherKind;
use crate::tables::placement;
use protocol::clock::Now;
use protocol::cluster::wire::{Parcel, ParcelKind, Plain, Published};
use protocol::cluster::{ClusterEvent, ClusterRequest, Topic};
use protocol::ids::NotificationId;
use protocol::limits;
use protocol::notification::{Priority, Publication, Target};
use protocol::publish::receipt::Receipt;
use protocol::stream::{Places, StreamSeq};
use std::rc::Rc;
use std::sync::Arc;

/// Nobody here waits for what other nodes ask.
const NOBODY: ConnKey = ConnKey { slot: u32::MAX, generation: 0 };

impl Shard {
    // --- Out ---------------------------------------------------------------------------------------------------------

    /// Sends a publish that this node took to the others. Mail that is kept where they find it is sent on when it is kept.
    pub(crate) fn send_on(
        &mut self,
        now: Now,
        publication: &Arc<Publication>,
        gather: GatherId,
        effects: &mut Effects,
    ) {
        let Publication { tenant, target, audience, .. } = &**publication;
        let is_mail = matches!(target, Target::User(_) | Target::Users(_));
        if is_mail && self.config.queue.is_some() && self.shares_mail() {
            return;
        }
        if self.is_alone() {
            self.metrics().parcels_sent.add(1);
            return self.ask_bridge(ClusterRequest::Publish(Arc::clone(publication)), effects);
        }
        let audience = audience.clone().filter(|_| matches!(target, Target::Broadcast));
        let published = Published::of(publication, StreamSeq::default(), Some(self.ticket(gather)), now);
        let kind = ParcelKind::Publication { target: target.clone(), audience, published };
        self.expect_parcels(gather, 1);
        self.send_parcel_to(Topic::of(tenant, target), None, kind, effects);
    }

    /// To one node, or to all.
    pub(crate) fn send_parcel(&mut self, to_server: Option<Box<str>>, kind: ParcelKind, effects: &mut Effects) {
        let topic = to_server.clone().map_or(Topic::Everybody, Topic::Node);
        self.send_parcel_to(topic, to_server, kind, effects);
    }

    pub(super) fn send_parcel_to(
        &mut self,
        topic: Topic,
        to_server: Option<Box<str>>,
        kind: ParcelKind,
        effects: &mut Effects,
    ) {
        self.metrics().parcels_sent.add(1);
        let parcel = Arc::new(Parcel { from_server: self.config.server_id.clone(), to_server, kind });
        self.ask_bridge(ClusterRequest::Send { topic, parcel }, effects);
    }

    // --- What comes back ---------------------------------------------------------------------------------------------

    /// Parcels of a gather are under way: nobody knows yet how many nodes will answer.
    pub(crate) fn expect_parcels(&mut self, gather: GatherId, parcels: u32) {
        if let Some(gather) = self.gathers.get_mut(gather) {
            gather.unsent += i64::from(parcels);
        }
    }

    /// So many nodes got a parcel.
    pub(super) fn gather_sent(&mut self, now: Now, id: GatherId, nodes: Option<u32>, effects: &mut Effects) {
        let Some(gather) = self.gathers.get_mut(id) else { return };
        gather.unsent -= 1;
        gather.missing += i64::from(nodes.unwrap_or(0));
        if let GatherKind::Ending { is_unsure, .. } = &mut gather.kind {
            *is_unsure |= nodes.is_none();
        }
        if let GatherKind::UserSessions { is_blind, .. } = &mut gather.kind {
            *is_blind |= nodes.is_none();
        }
        self.answer_if_complete(now, id, effects);
    }

    /// Another node's counts.
    pub(super) fn gather_receipt_from_elsewhere(
        &mut self,
        now: Now,
        id: GatherId,
        receipt: Receipt,
        effects: &mut Effects,
    ) {
        if let Some(gather) = self.gathers.get_mut(id)
            && let GatherKind::Publish { elsewhere, .. }
            | GatherKind::BatchItem { elsewhere, .. }
            | GatherKind::Ending { elsewhere, .. } = &mut gather.kind
        {
            *elsewhere = elsewhere.saturating_add(receipt.delivered_to);
        }
        self.gather_receipt(now, id, receipt, effects);
    }

    // --- In ----------------------------------------------------------------------------------------------------------

    /// On the bridge shard: another node says something.
    pub(super) fn parcel_arrived(&mut self, now: Now, parcel: Parcel, effects: &mut Effects) {
        self.metrics().parcels_received.add(1);
        match parcel.kind {
            ParcelKind::Publication { target, audience, published } => {
                let gather = published.ticket.map(|ticket| {
                    let kind = GatherKind::Parcel { from: parcel.from_server, ticket, tally: Receipt::default() };
                    self.open_gather(now, NOBODY, None, kind)
                });
                let publication = Arc::new(published.into_publication(target, audience, now));
                self.dispatch_here(now, publication, gather, Origin::Elsewhere, effects);
                if let Some(gather) = gather {
                    self.answer_if_complete(now, gather, effects);
                }
            }
            ParcelKind::Hint { ref user, published: Published { ref tenant, .. }, .. }
            | ParcelKind::Question { ref tenant, ref user, .. }
            | ParcelKind::Disconnect { ref tenant, ref user, .. }
            | ParcelKind::Plain(Plain { ref tenant, ref user, .. }) => {
                let home = placement::home(tenant.as_str(), user, self.shards);
                self.tell(now, home, ClusterEvent::Parcel(Box::new(parcel)), effects);
            }
            ParcelKind::Revoked { revocation, ticket } => {
                let reply = ticket.map(|ticket| {
                    let kind = GatherKind::Parcel { from: parcel.from_server, ticket, tally: Receipt::default() };
                    let gather = self.open_gather(now, NOBODY, Some(self.shards as u32), kind);
                    ReplyTo { shard: self.me, gather }
                });
                self.revoked_elsewhere(now, vec![revocation], reply, effects);
            }
            ParcelKind::Stored(_) | ParcelKind::Template { .. } => {
                self.tell_all(now, &ClusterEvent::Parcel(Box::new(parcel)), effects)
            }
            // The bridge's own, and what it tells in other words.
            _ => {}
        }
    }

    /// What a parcel means at the shard whom it concerns.
    pub(super) fn parcel_handed_on(&mut self, now: Now, parcel: Parcel, effects: &mut Effects) {
        let from = parcel.from_server;
        match parcel.kind {
            ParcelKind::Hint { user, published, position, before, attempt } => {
                let ticket = published.ticket;
                let kept = Kept { position, before, may_repeat: attempt > 1 };
                let delivered_to = self.hinted(now, user, published, kept, effects);
                if let Some(ticket) = ticket {
                    let receipt = Receipt { delivered_to, ..Receipt::default() };
                    self.send_parcel(Some(from), ParcelKind::Receipt { ticket, receipt }, effects);
                }
            }
            ParcelKind::Plain(plain) => self.deliver_plain(now, &plain),
            ParcelKind::Stored(claims) => self.stored_elsewhere(now, &claims, effects),
            ParcelKind::Question { ticket, tenant, user } => {
                let mut sessions = self.sessions_of(&tenant, &user);
                sessions.truncate(limits::CLUSTER_SESSIONS_MAX);
                self.send_parcel(Some(from), ParcelKind::Answer { ticket, tenant, user, sessions }, effects);
            }
            ParcelKind::Disconnect { ticket, tenant, user } => {
                let receipt = self.disconnect(now, &tenant, &user, effects);
                self.send_parcel(Some(from), ParcelKind::Receipt { ticket, receipt }, effects);
            }
            ParcelKind::Template { .. } if self.config.templates_kept => {
                self.templates.outdated(now.mono_ms() + limits::CLUSTER_TEMPLATES_WAIT_MS);
            }
            _ => {}
        }
    }

    /// The original's own message: to all connections of the user, live only.
    fn deliver_plain(&mut self, now: Now, plain: &Plain) {
        let Some(tenant) = self.tenants.find(plain.tenant.as_str()) else { return };
        let Some(at) = self.users.find(tenant, &plain.user) else { return };
        let publication = Arc::new(Publication {
            id: plain.id.unwrap_or(NotificationId::NIL),
            tenant: plain.tenant.clone(),
            target: Target::User(plain.user.clone()),
            audience: None,
            priority: Priority::Normal,
            expires_at_us: None,
            accepted_at_us: now.mono_us,
            frame: plain.to_frame(),
        });
        let places = Places::One(StreamSeq::default());
        let delivery = Rc::new(Delivery::new(publication, places, None));
        // Not a notification: nobody acknowledges it, and a connection that is too slow goes without.
        let overflow = if plain.id.is_some() { Overflow::Closes } else { Overflow::IsKept };
        let Some(user) = self.users.get_mut(at) else { return };
        let slots = std::mem::take(&mut user.connections);
        let mut tally = Receipt::default();
        self.deliver_to(now, &delivery, tenant, slots.iter().copied(), None, &mut tally, overflow);
        if let Some(user) = self.users.get_mut(at) {
            user.connections = slots;
        }
    }
}
