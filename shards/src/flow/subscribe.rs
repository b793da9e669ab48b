//! Subscriptions: local members first, then the line's owner, then the reply.
use crate::conn::Phase;
use crate::conn::live::{Pending, Subscription};
use crate::effect::{Effect, Effects};
use crate::key::{ConnKey, ShardId};
use crate::mesh::message::{Membership, Message};
use crate::shard::Shard;
use crate::tables::channels::Member;
use crate::tables::placement;
use protocol::client::event::{self, ErrorCode};
use protocol::clock::Now;
use protocol::cluster::Topic;
use protocol::ids::{self, TenantId};

impl Shard {
    /// Subscribes a connection. The reply waits until the owner of the tenant's line knows of this shard, so that a
    /// publish that follows the reply cannot miss it; until then the connection's input waits, too.
    pub(crate) fn subscribe(
        &mut self,
        now: Now,
        key: ConnKey,
        channels: Vec<Box<str>>,
        connecting: bool,
        effects: &mut Effects,
    ) {
        let mut pending = Pending { connecting, ..Pending::default() };
        for name in channels {
            if !ids::is_channel_name(&name) {
                pending.refused.push(format!("Invalid channel name: {name}"));
                continue;
            }
            if !self.live(key).is_none_or(|live| live.permits(&name)) {
                pending.refused.push(format!("Channel not permitted: {name}"));
                continue;
            }
            match self.add_subscription(now, key, &name, effects) {
                Ok(waits) => {
                    pending.joins += u32::from(waits);
                    pending.accepted.push(name);
                }
                Err(refusal) => pending.refused.push(refusal),
            }
        }
        if pending.joins == 0 {
            self.reply_subscribed(now, key, pending);
        } else if let Some(connection) = self.connections.get_mut(key)
            && let Phase::Live(live) = &mut connection.phase
        {
            live.pending = Some(Box::new(pending));
        }
    }

    /// Adds one subscription; whether the reply must wait for the line's owner. Subscribing again is accepted.
    fn add_subscription(&mut self, now: Now, key: ConnKey, name: &str, effects: &mut Effects) -> Result<bool, String> {
        let Some(live) = self.live(key) else { return Err("Connection not found".into()) };
        let tenant = live.tenant;
        let subscriptions_max =
            self.tenants.get(tenant).allowance.as_ref().map_or(0, |allowance| allowance.limits.subscriptions_max);
        let found = self.channels.find(tenant, name);
        let Some(live) = self.live(key) else { return Err("Connection not found".into()) };
        let held = live.subscriptions.len();
        let is_held = found.is_some_and(|channel| live.subscriptions.iter().any(|held| held.channel == channel));
        if !is_held && subscriptions_max != 0 && held >= subscriptions_max {
            return Err(format!("Subscription limit exceeded ({held}/{subscriptions_max})"));
        }
        let at = match found {
            Some(at) => at,
            None => {
                let at = self.channels.insert(tenant, name);
                self.join(now, at, effects);
                at
            }
        };
        if !is_held {
            self.settle_fanout(now, tenant, effects);
            let Some(channel) = self.channels.get_mut(at) else { return Err("Connection not found".into()) };
            let member = channel.members.len() as u32;
            channel.members.push(Member { slot: key.slot, subscription: held as u32 });
            if let Some(live) = self.live_mut(key) {
                live.subscriptions.push(Subscription { channel: at, member });
            }
            self.metrics().subscriptions.add(1);
            self.session_changed(key);
        }
        let Some(channel) = self.channels.get_mut(at) else { return Ok(false) };
        let waits = !channel.joined && !channel.waiting.contains(&key);
        if waits {
            channel.waiting.push(key);
        }
        Ok(waits)
    }

    /// Unsubscribes; the reply echoes every name given (contract §3.4).
    pub(crate) fn unsubscribe(&mut self, now: Now, key: ConnKey, channels: &[Box<str>], effects: &mut Effects) {
        for name in channels {
            self.end_subscription(now, key, name, effects);
        }
        if !channels.is_empty() {
            let names: Vec<&str> = channels.iter().map(|name| &**name).collect();
            self.say(now, key, |out| event::write_unsubscribed(out, &names));
        }
    }

    /// Ends a subscription, if there is one.
    pub(crate) fn end_subscription(&mut self, now: Now, key: ConnKey, name: &str, effects: &mut Effects) {
        let Some(live) = self.live(key) else { return };
        let Some(channel) = self.channels.find(live.tenant, name) else { return };
        let position = live.subscriptions.iter().position(|held| held.channel == channel);
        if let Some(position) = position {
            self.remove_subscription(now, key, position, effects);
            self.session_changed(key);
        }
    }

    /// Takes one subscription off both lists, in constant time.
    pub(crate) fn remove_subscription(&mut self, now: Now, key: ConnKey, position: usize, effects: &mut Effects) {
        let Some(tenant) = self.live(key).map(|live| live.tenant) else { return };
        self.settle_fanout(now, tenant, effects);
        let Some(live) = self.live_mut(key) else { return };
        let removed = live.subscriptions.swap_remove(position);
        let moved = live.subscriptions.get(position).copied();
        self.metrics().subscriptions.add(-1);
        if let Some(moved) = moved
            && let Some(channel) = self.channels.get_mut(moved.channel)
        {
            channel.members[moved.member as usize].subscription = position as u32;
        }
        let Some(channel) = self.channels.get_mut(removed.channel) else { return };
        channel.members.swap_remove(removed.member as usize);
        if let Some(moved) = channel.members.get(removed.member as usize).copied()
            && let Some((_, connection)) = self.connections.at_mut(moved.slot)
            && let Phase::Live(live) = &mut connection.phase
        {
            live.subscriptions[moved.subscription as usize].member = removed.member;
        }
        let is_empty = self.channels.get(removed.channel).is_some_and(|channel| channel.members.is_empty());
        if is_empty && let Some(channel) = self.channels.remove(removed.channel) {
            let tenant = self.tenants.get(channel.tenant).name.clone();
            let owner = placement::line(tenant.as_str(), self.shards);
            if owner == self.me {
                self.leave_line(self.me, &tenant, &channel.name, effects);
            } else {
                let membership = Membership { tenant, channel: channel.name, serial: channel.serial };
                effects.push(Effect::Send { to: owner, message: Message::Leave(Box::new(membership)) });
            }
        }
    }

    /// Tells the line's owner of this shard's first subscriber.
    fn join(&mut self, now: Now, at: u32, effects: &mut Effects) {
        let Some(channel) = self.channels.get(at) else { return };
        let tenant = self.tenants.get(channel.tenant).name.clone();
        let owner = placement::line(tenant.as_str(), self.shards);
        let membership = Box::new(Membership { tenant, channel: channel.name.clone(), serial: channel.serial });
        if owner != self.me {
            return effects.push(Effect::Send { to: owner, message: Message::Join(membership) });
        }
        if self.join_line(now, owner, membership, effects).is_some()
            && let Some(channel) = self.channels.get_mut(at)
        {
            channel.joined = true;
        }
    }

    /// At the line's owner: a shard has its first subscriber. The membership is given back when the shard may be told so at
    /// once; in a cluster the other nodes have to know of the first shard's.
    pub(crate) fn join_line(
        &mut self,
        now: Now,
        from: ShardId,
        membership: Box<Membership>,
        effects: &mut Effects,
    ) -> Option<Box<Membership>> {
        let is_first = self.directory.join(&membership.tenant, &membership.channel, from);
        self.metrics().channels.set(self.directory.len() as i64);
        match self.config.cluster {
            Some(_) => self.watch_channel(now, from, membership, is_first, effects),
            None => Some(membership),
        }
    }

    /// At the line's owner: a shard's last subscriber left.
    pub(crate) fn leave_line(&mut self, from: ShardId, tenant: &TenantId, channel: &str, effects: &mut Effects) {
        let is_last = self.directory.leave(tenant, channel, from);
        self.metrics().channels.set(self.directory.len() as i64);
        if is_last && self.config.cluster.is_some() {
            self.unwatch(Topic::Channel(tenant.clone(), channel.into()), effects);
        }
    }

    /// The line's owner knows.
    pub(crate) fn joined(&mut self, now: Now, membership: &Membership, effects: &mut Effects) {
        let Some(tenant) = self.tenants.find(membership.tenant.as_str()) else { return };
        let Some(channel) = self.channels.find(tenant, &membership.channel).and_then(|at| self.channels.get_mut(at))
        else {
            return;
        };
        // An answer to an earlier life of this channel: that life's Leave is still on its way behind it.
        if channel.serial != membership.serial {
            return;
        }
        channel.joined = true;
        for key in std::mem::take(&mut channel.waiting) {
            let Some(live) = self.live_mut(key) else { continue };
            let Some(pending) = live.pending.as_mut() else { continue };
            pending.joins -= 1;
            if pending.joins == 0
                && let Some(pending) = live.pending.take()
            {
                self.reply_subscribed(now, key, *pending);
                self.resume(now, key, effects);
            }
        }
    }

    fn reply_subscribed(&mut self, now: Now, key: ConnKey, pending: Pending) {
        if pending.connecting {
            return self.open_stream(now, key);
        }
        if !pending.accepted.is_empty() {
            let names: Vec<&str> = pending.accepted.iter().map(|name| &**name).collect();
            self.say(now, key, |out| event::write_subscribed(out, &names));
        }
        if !pending.refused.is_empty() {
            let message = pending.refused.join("; ");
            self.say(now, key, |out| event::write_error(out, ErrorCode::SubscriptionError, &message));
        }
    }
}
