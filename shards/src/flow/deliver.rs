//! Fan-out of one publication into the outboxes of this shard. Nothing is written here: outboxes queue, the rim writes
//! once per turn.
use crate::conn::outbox::{Delivery, Transport};
use crate::conn::{Connection, Phase};
use crate::effect::Effects;
use crate::flow::mail::PutBack;
use crate::key::ConnKey;
use crate::mesh::message::ReplyTo;
use crate::shard::Shard;
use crate::tables::channels::ChannelIndex;
use crate::tables::streams::StreamKind;
use crate::tables::tenants::TenantIndex;
use protocol::clock::Now;
use protocol::notification::{Audience, Publication, Target};
use protocol::publish::receipt::Receipt;
use protocol::stream::Places;
use protocol::ws::close::CloseCode;
use std::rc::Rc;
use std::sync::Arc;

/// A fan-out under way. Only the first in the queue can have begun; it goes on turn by turn, within the budget.
///
/// It holds no list and no index of one: while it waits, channels come and go, and a channel's index may be another
/// channel's by the time it begins. It looks up each channel by name when it comes to it.
#[derive(Debug)]
pub(crate) struct Fanout {
    delivery: Rc<Delivery>,
    /// Which of the target's lists of members, and how far in it.
    list: usize,
    cursor: usize,
    tally: Receipt,
    reply: Option<ReplyTo>,
    /// Marks the connections it reached, where lists may overlap.
    stamp: Option<u32>,
}

/// What a full outbox means to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// The connection is too slow and ends.
    Closes,
    /// The caller keeps what did not fit.
    IsKept,
}

/// A list of members.
#[derive(Clone, Copy, Debug)]
enum Over {
    Everybody,
    Channel(ChannelIndex),
    /// A channel without a subscriber here.
    Nobody,
}

impl Shard {
    /// Delivers to this shard's subscribers: at once if nothing is ahead of it and the budget allows, else in turn.
    pub(crate) fn start_fanout(
        &mut self,
        now: Now,
        publication: Arc<Publication>,
        places: Places,
        reply: Option<ReplyTo>,
        effects: &mut Effects,
    ) {
        let overlapping = matches!(&publication.target, Target::Channels(names) if names.len() > 1);
        let stamp = overlapping.then(|| self.next_stamp(now, effects));
        let delivery = Rc::new(Delivery { publication, places, mail: None });
        let tally = Receipt::default();
        self.fanouts.push_back(Fanout { delivery, list: 0, cursor: 0, tally, reply, stamp });
        if self.fanouts.len() == 1 {
            self.run_fanouts(now, effects);
        }
    }

    /// A mark that no connection bears. When the numbers are used up, after four billion, the marks are wiped off.
    fn next_stamp(&mut self, now: Now, effects: &mut Effects) -> u32 {
        if self.fanout_stamp == u32::MAX {
            self.settle_fanout(now, effects);
            self.connections.values_mut().for_each(|connection| connection.stamp = 0);
            self.fanout_stamp = 0;
        }
        self.fanout_stamp += 1;
        self.fanout_stamp
    }

    /// Goes on with the queue while the budget lasts.
    pub(crate) fn run_fanouts(&mut self, now: Now, effects: &mut Effects) {
        while self.budget > 0 {
            let Some(mut fanout) = self.fanouts.pop_front() else { return };
            let mut budget = self.budget;
            let done = self.fan_out(now, &mut fanout, &mut budget);
            self.budget = budget;
            if !done {
                self.fanouts.push_front(fanout);
                return self.note_deliveries(effects);
            }
            self.note_deliveries(effects);
            self.report(now, fanout.reply, fanout.tally, effects);
        }
    }

    /// Finishes a fan-out that has begun: called before any list of members changes, so that nobody is missed or reached
    /// twice because the list moved under the cursor.
    pub(crate) fn settle_fanout(&mut self, now: Now, effects: &mut Effects) {
        if self.fanouts.front().is_some_and(|fanout| fanout.cursor > 0 || fanout.list > 0)
            && let Some(mut fanout) = self.fanouts.pop_front()
        {
            self.fan_out(now, &mut fanout, &mut usize::MAX.clone());
            self.note_deliveries(effects);
            self.report(now, fanout.reply, fanout.tally, effects);
        }
    }

    /// One slice of one fan-out. True when it is through.
    fn fan_out(&mut self, now: Now, fanout: &mut Fanout, budget: &mut usize) -> bool {
        let Some(tenant) = self.tenants.find(fanout.delivery.publication.tenant.as_str()) else { return true };
        while let Some(over) = self.members_of(tenant, &fanout.delivery.publication.target, fanout.list) {
            let through = match over {
                Over::Everybody => {
                    let members = std::mem::take(&mut self.tenants.get_mut(tenant).members);
                    let slots = members.iter().copied();
                    let through = self.deliver_slice(now, fanout, tenant, slots, budget);
                    self.tenants.get_mut(tenant).members = members;
                    through
                }
                Over::Channel(at) => {
                    let Some(channel) = self.channels.get_mut(at) else { return true };
                    let members = std::mem::take(&mut channel.members);
                    let slots = members.iter().map(|member| member.slot);
                    let through = self.deliver_slice(now, fanout, tenant, slots, budget);
                    if let Some(channel) = self.channels.get_mut(at) {
                        channel.members = members;
                    }
                    through
                }
                Over::Nobody => true,
            };
            if !through {
                return false;
            }
            (fanout.list, fanout.cursor) = (fanout.list + 1, 0);
        }
        true
    }

    /// The members that the target's list of this number has now; `None` behind the last.
    fn members_of(&self, tenant: TenantIndex, target: &Target, list: usize) -> Option<Over> {
        let name = match target {
            Target::Broadcast => return (list == 0).then_some(Over::Everybody),
            Target::Channel(name) => Some(name).filter(|_| list == 0)?,
            Target::Channels(names) => names.get(list)?,
            Target::User(_) | Target::Users(_) => return None,
        };
        Some(self.channels.find(tenant, name).map_or(Over::Nobody, Over::Channel))
    }

    /// As much of one list as the budget allows. True when that was the rest of it.
    fn deliver_slice(
        &mut self,
        now: Now,
        fanout: &mut Fanout,
        tenant: TenantIndex,
        slots: impl ExactSizeIterator<Item = u32>,
        budget: &mut usize,
    ) -> bool {
        let left = slots.len().saturating_sub(fanout.cursor);
        let taken = left.min(*budget);
        let slots = slots.skip(fanout.cursor).take(taken);
        self.deliver_to(now, &fanout.delivery, tenant, slots, fanout.stamp, &mut fanout.tally, Overflow::Closes);
        *budget -= taken;
        fanout.cursor += taken;
        taken == left
    }

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
        match (&publication.target, users) {
            (Target::User(name), _) => self.deliver_to_user(now, publication, tenant, name, &mut tally),
            (Target::Users(names), Some(indices)) => {
                for name in indices.iter().filter_map(|index| names.get(*index as usize)) {
                    self.deliver_to_user(now, publication, tenant, name, &mut tally);
                }
            }
            _ => debug_assert!(false, "mail goes to users"),
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
        let delivery = Rc::new(Delivery { publication, places: Places::One(place), mail: None });
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
        let Shard { connections, outboxes, dirty, overflowed, users, channels, .. } = self;
        let audience = delivery.publication.audience.as_ref().filter(|audience| !matches!(audience, Audience::All));
        // The SSE bytes are only made when somebody reads them.
        let mut lens: [Option<usize>; 3] = [None; 3];
        let (mut delivered, mut failed, mut bytes) = (0, 0, 0);
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
                        dirty.push(key);
                    }
                }
                Err(_) if overflow == Overflow::Closes => {
                    failed += 1;
                    overflowed.push(key);
                }
                Err(_) => {}
            }
        }
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
        self.metrics().failed.add(dropped);
        self.metrics().outbox_bytes.add(-(bytes as i64));
    }
}

#[cfg(test)]
mod tests;
