//! Fan-outs on their way: each tenant's in order, the tenants in turn, all of them within the turn's budget.
//!
//! A tenant that publishes faster than this shard delivers fills its own queue. At its bound the whole node refuses that
//! tenant's publishes (503; what comes by Redis waits), and everybody else goes on: a publish of a tenant that has nothing
//! waiting is delivered at once, whatever the others have.
use crate::conn::outbox::Delivery;
use crate::effect::Effects;
use crate::flow::deliver::Overflow;
use crate::mesh::message::ReplyTo;
use crate::pressure::TenantMark;
use crate::shard::Shard;
use crate::tables::channels::ChannelIndex;
use crate::tables::tenants::TenantIndex;
use crate::tables::turns::Turns;
use protocol::clock::Now;
use protocol::limits;
use protocol::notification::{Publication, Target};
use protocol::publish::receipt::Receipt;
use protocol::stream::Places;
use std::rc::Rc;
use std::sync::Arc;

/// A fan-out under way. Only the first of a tenant's can have begun; it goes on turn by turn, within the budget.
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

impl Fanout {
    fn has_begun(&self) -> bool {
        self.cursor > 0 || self.list > 0
    }

    fn bytes(&self) -> usize {
        self.delivery.room_bytes()
    }
}

/// The fan-outs that wait on one shard.
#[derive(Debug)]
pub(crate) struct Fanouts {
    turns: Turns<Fanout>,
    /// Bytes of what waits, by tenant; and whether it is held back.
    backlogs: Vec<Backlog>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Backlog {
    bytes: usize,
    is_held_back: bool,
}

impl Default for Fanouts {
    fn default() -> Fanouts {
        Fanouts { turns: Turns::new(limits::FANOUT_QUANTUM_DELIVERIES, 64), backlogs: Vec::new(), bytes: 0 }
    }
}

impl Fanouts {
    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whether so many wait that the lanes are left alone.
    pub(crate) fn is_full(&self) -> bool {
        self.turns.len() >= limits::FANOUTS_WAITING_MAX || self.bytes >= limits::FANOUT_BYTES_WAITING_MAX
    }

    /// Lowers [`limits::FANOUT_QUANTUM_DELIVERIES`], while nothing waits.
    pub(crate) fn turn_after(&mut self, deliveries: usize) {
        debug_assert!(self.is_empty(), "something waits");
        self.turns = Turns::new(deliveries, 64);
    }

    pub(crate) fn len(&self) -> usize {
        self.turns.len()
    }

    pub(crate) fn waiting(&self, tenant: TenantIndex) -> usize {
        self.turns.waiting(tenant)
    }

    /// Panics when the sums are not those of what waits.
    pub(crate) fn check(&self) {
        self.turns.check();
        assert_eq!(self.bytes, self.backlogs.iter().map(|backlog| backlog.bytes).sum::<usize>());
        assert!(!self.is_empty() || self.bytes == 0, "{} bytes of nothing", self.bytes);
    }
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
    /// Delivers to this shard's subscribers: at once if nothing of its tenant is ahead of it and the budget allows, else in
    /// turn.
    pub(crate) fn start_fanout(
        &mut self,
        now: Now,
        publication: Arc<Publication>,
        places: Places,
        reply: Option<ReplyTo>,
        effects: &mut Effects,
    ) {
        // Nobody of a tenant that was never here can be waiting for it.
        let Some(tenant) = self.tenants.find(publication.tenant.as_str()) else {
            return self.report(now, reply, Receipt::default(), effects);
        };
        let overlapping = matches!(&publication.target, Target::Channels(names) if names.len() > 1);
        let stamp = overlapping.then(|| self.next_stamp(now, effects));
        let delivery = Rc::new(Delivery::new(publication, places, None));
        let mut fanout = Fanout { delivery, list: 0, cursor: 0, tally: Receipt::default(), reply, stamp };
        if self.fanouts.waiting(tenant) > 0 {
            return self.fanout_waits(tenant, fanout);
        }
        let is_alone = self.fanouts.is_empty();
        let mut budget = if is_alone { self.budget } else { self.budget_aside };
        if budget == 0 {
            return self.fanout_waits(tenant, fanout);
        }
        let done = self.fan_out(now, tenant, &mut fanout, &mut budget);
        *if is_alone { &mut self.budget } else { &mut self.budget_aside } = budget;
        self.fanout_had_its_turn(now, tenant, fanout, done, effects);
    }

    /// A mark that no connection bears. When the numbers are used up, after four billion, the marks are wiped off.
    fn next_stamp(&mut self, now: Now, effects: &mut Effects) -> u32 {
        if self.fanout_stamp == u32::MAX {
            for tenant in self.fanouts.turns.queues().collect::<Vec<_>>() {
                self.settle_fanout(now, tenant, effects);
            }
            self.connections.values_mut().for_each(|connection| connection.stamp = 0);
            self.fanout_stamp = 0;
        }
        self.fanout_stamp += 1;
        self.fanout_stamp
    }

    /// Goes on with the tenants' queues, in turn, while the budget lasts.
    pub(crate) fn run_fanouts(&mut self, now: Now, effects: &mut Effects) {
        while self.budget > 0 {
            let Some((tenant, mut fanout, may_cost)) = self.fanouts.turns.take() else { return };
            let given = self.budget.min(may_cost);
            let mut left = given;
            let done = self.fan_out(now, tenant, &mut fanout, &mut left);
            // One that reaches nobody is not for nothing, or a queue of such would be one turn.
            let cost = (given - left).max(1);
            self.budget -= cost;
            self.fanout_left(tenant, fanout.bytes());
            if done {
                self.fanouts.turns.spend(tenant, cost);
                self.fanout_done(now, fanout, effects);
            } else {
                self.fanout_stays(tenant, fanout.bytes());
                self.fanouts.turns.put_back(tenant, fanout);
                self.fanouts.turns.spend(tenant, cost);
                self.note_deliveries(effects);
            }
        }
    }

    /// Finishes a tenant's fan-out that has begun: called before any list of its members changes, so that nobody is missed
    /// or reached twice because the list moved under the cursor.
    pub(crate) fn settle_fanout(&mut self, now: Now, tenant: TenantIndex, effects: &mut Effects) {
        if let Some(mut fanout) = self.fanouts.turns.take_from(tenant, Fanout::has_begun) {
            self.fanout_left(tenant, fanout.bytes());
            self.fan_out(now, tenant, &mut fanout, &mut usize::MAX.clone());
            self.fanout_done(now, fanout, effects);
        }
    }

    fn fanout_had_its_turn(
        &mut self,
        now: Now,
        tenant: TenantIndex,
        fanout: Fanout,
        done: bool,
        effects: &mut Effects,
    ) {
        if done {
            return self.fanout_done(now, fanout, effects);
        }
        self.fanout_waits(tenant, fanout);
        self.note_deliveries(effects);
    }

    fn fanout_done(&mut self, now: Now, fanout: Fanout, effects: &mut Effects) {
        self.note_deliveries(effects);
        self.report(now, fanout.reply, fanout.tally, effects);
    }

    // --- What waits --------------------------------------------------------------------------------------------------

    fn fanout_waits(&mut self, tenant: TenantIndex, fanout: Fanout) {
        let bytes = fanout.bytes();
        self.fanouts.turns.push(tenant, fanout);
        self.fanout_stays(tenant, bytes);
        let Fanouts { turns, backlogs, .. } = &mut self.fanouts;
        let backlog = &mut backlogs[tenant as usize];
        let is_over = turns.waiting(tenant) > limits::FANOUTS_PER_TENANT_MAX
            || backlog.bytes > limits::FANOUT_BYTES_PER_TENANT_MAX;
        if is_over && !backlog.is_held_back {
            let mark = TenantMark::of(&self.tenants.get(tenant).name);
            backlog.is_held_back = self.node.held_back.hold(self.me.index(), mark);
        }
    }

    fn fanout_stays(&mut self, tenant: TenantIndex, bytes: usize) {
        let Fanouts { backlogs, bytes: all_bytes, .. } = &mut self.fanouts;
        if tenant as usize >= backlogs.len() {
            backlogs.resize(tenant as usize + 1, Backlog::default());
        }
        backlogs[tenant as usize].bytes += bytes;
        *all_bytes += bytes;
    }

    fn fanout_left(&mut self, tenant: TenantIndex, bytes: usize) {
        let Fanouts { turns, backlogs, bytes: all_bytes } = &mut self.fanouts;
        *all_bytes -= bytes;
        let Some(backlog) = backlogs.get_mut(tenant as usize) else { return };
        backlog.bytes -= bytes;
        let is_relieved = turns.waiting(tenant) <= limits::FANOUTS_PER_TENANT_MAX / 2
            && backlog.bytes <= limits::FANOUT_BYTES_PER_TENANT_MAX / 2;
        if is_relieved && std::mem::take(&mut backlog.is_held_back) {
            self.node.held_back.let_go(self.me.index(), TenantMark::of(&self.tenants.get(tenant).name));
        }
    }

    // --- One of them -------------------------------------------------------------------------------------------------

    /// One slice of one fan-out. True when it is through.
    fn fan_out(&mut self, now: Now, tenant: TenantIndex, fanout: &mut Fanout, budget: &mut usize) -> bool {
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
}

#[cfg(test)]
mod tests;
