//! Delivery into the outboxes of this shard. Nothing is written here: outboxes queue, the rim writes once per turn.
use crate::conn::outbox::{Delivery, Transport};
use crate::conn::{Connection, Phase};
use crate::effect::Effects;
use crate::flow::mail::PutBack;
use crate::key::ConnKey;
use crate::mesh::message::ReplyTo;
use crate::shard::Shard;
use crate::tables::streams::StreamKind;
use crate::tables::tenants::TenantIndex;
use protocol::clock::Now;
use protocol::notification::{Audience, Publication, Target};
use protocol::publish::receipt::Receipt;
use protocol::stream::Places;
use protocol::ws::close::CloseCode;
use std::rc::Rc;
use std::sync::Arc;

/// What a full outbox means to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// The connection is too slow and ends.
    Closes,
    /// The caller keeps what did not fit.
    IsKept,
}

/// Which of the queues of connections to write to is a tenant's. The first is that of connections that are nobody's yet,
/// or not any more: requests of publishers among them.
pub(crate) fn writes_of(tenant: TenantIndex) -> u32 {
    tenant + 1
}

/// Whose mail it is of those who live here: the one it is for, or those at these places of its list.
pub(crate) fn users_here<'a>(publication: &'a Publication, users: Option<&'a [u32]>) -> impl Iterator<Item = &'a str> {
    let (one, names, indices): (Option<&str>, &[Box<str>], &[u32]) = match (&publication.target, users) {
        (Target::User(name), _) => (Some(name), &[], &[]),
        (Target::Users(names), Some(indices)) => (None, names, indices),
        _ => {
            debug_assert!(false, "mail goes to users");
            (None, &[], &[])
        }
    };
    one.into_iter().chain(indices.iter().filter_map(|index| names.get(*index as usize)).map(|name| &**name))
}

impl Shard {
    /// To the connections of a user, or of the users that live here.
    pub(crate) fn deliver_mail(
        &mut self,
        now: Now,
        publication: &Arc<Publication>,
        users: Option<&[u32]>,
        is_ours: bool,
        reply: Option<ReplyTo>,
        effects: &mut Effects,
    ) {
        if self.config.queue.is_some() && (is_ours || !self.shares_mail()) {
            return self.keep_mail(now, publication, users, is_ours, reply, effects);
        }
        let receipt = self.deliver_live_mail(now, publication, users);
        self.note_deliveries(effects);
        self.report(now, reply, receipt, effects);
    }

    /// The first class: at most once, to whoever is there.
    fn deliver_live_mail(&mut self, now: Now, publication: &Arc<Publication>, users: Option<&[u32]>) -> Receipt {
        let mut tally = Receipt::default();
        let tenant = self.tenants.find(publication.tenant.as_str());
        for name in users_here(publication, users) {
            self.deliver_to_user(now, publication, tenant, name, &mut tally);
        }
        tally
    }

    fn deliver_to_user(
        &mut self,
        now: Now,
        publication: &Arc<Publication>,
        tenant: Option<TenantIndex>,
        name: &str,
        tally: &mut Receipt,
    ) {
        let place = self.streams.next(now, StreamKind::User, &publication.tenant, name);
        let Some(tenant) = tenant else { return };
        let Some(at) = self.users.find(tenant, name) else { return };
        let Some(user) = self.users.get_mut(at) else { return };
        let slots = std::mem::take(&mut user.connections);
        let publication = Arc::clone(publication);
        let delivery = Rc::new(Delivery::new(publication, Places::One(place), None));
        self.deliver_to(now, &delivery, tenant, slots.iter().copied(), None, tally, Overflow::Closes);
        if let Some(user) = self.users.get_mut(at) {
            user.connections = slots;
        }
    }

    /// The innermost loop: a push of a pointer per connection. No system call, no hash, no format, no atomic.
    #[expect(clippy::too_many_arguments, reason = "one delivery, spelled out")]
    pub(crate) fn deliver_to(
        &mut self,
        now: Now,
        delivery: &Rc<Delivery>,
        tenant: TenantIndex,
        slots: impl Iterator<Item = u32>,
        stamp: Option<u32>,
        tally: &mut Receipt,
        overflow: Overflow,
    ) {
        let tracks = self.config.ack.is_some() && overflow == Overflow::Closes;
        let mut tracked = Vec::new();
        let Shard { connections, outboxes, outbox_room_bytes, dirty, overflowed, users, channels, .. } = self;
        let audience = delivery.publication.audience.as_ref().filter(|audience| !matches!(audience, Audience::All));
        // The SSE bytes are only made when somebody reads them.
        let mut lens: [Option<usize>; 3] = [None; 3];
        let (mut delivered, mut failed, mut bytes) = (0, 0, 0);
        let writes = writes_of(tenant);
        let newly_dirty = dirty.queue(writes);
        let dirty_before = newly_dirty.len();
        for slot in slots {
            let Some((key, connection)) = connections.at_mut(slot) else { continue };
            let Connection { phase, outbox, stamp: last_stamp, .. } = connection;
            let Phase::Live(live) = phase else { continue };
            if let Some(stamp) = stamp
                && std::mem::replace(last_stamp, stamp) == stamp
            {
                continue;
            }
            if let Some(audience) = audience {
                let is_meant = match audience {
                    Audience::All => true,
                    Audience::Roles(roles) => roles.iter().any(|role| live.roles.contains(role)),
                    Audience::Users(names) => users.get(live.user).is_some_and(|user| names.contains(&user.name)),
                    Audience::Channels(names) => live.subscriptions.iter().any(|subscription| {
                        channels.get(subscription.channel).is_some_and(|channel| names.contains(&channel.name))
                    }),
                };
                if !is_meant {
                    continue;
                }
            }
            let transport = live.transport;
            let len = *lens[transport as usize].get_or_insert_with(|| transport.bytes(delivery).len());
            let outbox = outbox.get_or_insert_with(|| outboxes.take(now.mono_us));
            match outbox.push(delivery, len) {
                Ok(()) => {
                    delivered += 1;
                    bytes += len;
                    if tracks {
                        tracked.push(key);
                    }
                    if !connection.dirty && !connection.blocked {
                        connection.dirty = true;
                        newly_dirty.push_back(key);
                    }
                }
                Err(_) if overflow == Overflow::Closes => {
                    failed += 1;
                    overflowed.push(key);
                }
                Err(_) => {}
            }
        }
        dirty.added(writes, dirty_before);
        *outbox_room_bytes += delivery.entered(delivered as usize);
        tally.delivered_to += delivered;
        tally.failed += failed;
        self.tenants.get_mut(tenant).delivered += delivered;
        self.metrics().delivered.add(delivered);
        self.metrics().failed.add(failed);
        self.metrics().outbox_bytes.add(bytes as i64);
        for key in tracked {
            self.track(now, key, delivery.publication.id, None);
        }
    }

    /// Ends the connections whose outbox was full: they read slower than is published to them, and nobody waits for them.
    pub(crate) fn close_overflowed(&mut self, now: Now, effects: &mut Effects) {
        while let Some(key) = self.overflowed.pop() {
            if self.connections.get(key).is_some_and(|connection| matches!(connection.phase, Phase::Live(_))) {
                self.close_slow(now, key, effects);
            }
        }
    }

    /// Slow consumer: what has not begun to go out is dropped and counted, then close 4008.
    pub(crate) fn close_slow(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        self.metrics().slow_closed.add(1);
        self.rescue_mail(now, key, PutBack::Leaving, effects);
        let transport = self.connections.get(key).map_or(Transport::WebSocket, |connection| connection.reads().0);
        self.drop_frames(key, transport);
        self.close_live(now, key, CloseCode::SLOW_CONSUMER, effects);
    }

    /// Drops what waits for a connection; what a dead socket did not take counts as failed.
    pub(crate) fn drop_frames(&mut self, key: ConnKey, transport: Transport) {
        let Some(outbox) = self.connections.get_mut(key).and_then(|connection| connection.outbox.as_deref_mut()) else {
            return;
        };
        let before = outbox.frame_bytes();
        let dropped = outbox.drop_frames(transport) as u64;
        let bytes = before - outbox.frame_bytes();
        self.outbox_room_bytes -= outbox.take_freed();
        self.metrics().failed.add(dropped);
        self.metrics().outbox_bytes.add(-(bytes as i64));
    }
}
