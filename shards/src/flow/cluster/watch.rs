//! Nobody is answered before the other nodes can reach it: a client of a user whose first connection this is, and a shard
//! whose first subscriber of a channel this is.
use crate::conn::live::{Awaits, Intake, Pending, Welcome};
use crate::effect::{Effect, Effects};
use crate::key::{ConnKey, ShardId};
use crate::mesh::message::{Membership, Message};
use crate::shard::Shard;
use crate::tables::watches::Waiter;
use protocol::clock::Now;
use protocol::cluster::{ClusterRequest, Topic};

impl Shard {
    /// Whether a new client has to wait until the other nodes have heard of its user.
    pub(crate) fn awaits_others(&mut self, now: Now, key: ConnKey, is_first: bool, effects: &mut Effects) -> bool {
        let Some(live) = self.live(key) else { return false };
        let Some(user) = self.users.get(live.user) else { return false };
        let topic = Topic::User(self.tenants.get(live.tenant).name.clone(), user.name.clone());
        if is_first {
            self.watch(now, topic.clone(), effects);
        }
        self.watches.wait(&topic, Waiter::Client(key)).is_ok()
    }

    /// At the line's owner, of a channel: the membership is given back when there is nothing to wait for.
    pub(crate) fn watch_channel(
        &mut self,
        now: Now,
        from: ShardId,
        membership: Box<Membership>,
        is_first: bool,
        effects: &mut Effects,
    ) -> Option<Box<Membership>> {
        let topic = Topic::Channel(membership.tenant.clone(), membership.channel.clone());
        if is_first {
            self.watch(now, topic.clone(), effects);
        }
        match self.watches.wait(&topic, Waiter::Shard(from, membership)) {
            Err(Waiter::Shard(_, membership)) => Some(membership),
            _ => None,
        }
    }

    fn watch(&mut self, now: Now, topic: Topic, effects: &mut Effects) {
        let serial = self.watches.ask(&topic, now.mono_ms());
        self.metrics().watches_waiting.set(self.watches.len() as i64);
        self.ask_bridge(ClusterRequest::Watch { topic, shard: self.me.0, serial }, effects);
    }

    /// The last one is gone. The bridge does what it is asked in order, so a watch that follows is not undone by this.
    pub(crate) fn unwatch(&mut self, topic: Topic, effects: &mut Effects) {
        self.watches.forget(&topic);
        self.metrics().watches_waiting.set(self.watches.len() as i64);
        self.ask_bridge(ClusterRequest::Unwatch { topic }, effects);
    }

    /// The other nodes reach a topic here.
    pub(super) fn watching(&mut self, now: Now, topic: &Topic, serial: u32, effects: &mut Effects) {
        let Some(watch) = self.watches.confirm(topic, serial) else { return };
        self.metrics().watches_waiting.set(self.watches.len() as i64);
        if watch.is_late {
            self.read_all_again(now, effects);
        }
        self.go_on(now, watch.waiters, effects);
    }

    /// Who has waited long enough goes on without.
    pub(crate) fn watches_due(&mut self, now: Now, effects: &mut Effects) {
        while let Some(waiters) = self.watches.expire(now.mono_ms()) {
            self.metrics().watches_late.add(1);
            self.go_on(now, waiters, effects);
        }
    }

    fn go_on(&mut self, now: Now, waiters: Vec<Waiter>, effects: &mut Effects) {
        for waiter in waiters {
            match waiter {
                Waiter::Client(key) => self.go_on_if(now, key, |awaits| awaits.topic = false, effects),
                Waiter::Shard(shard, membership) if shard == self.me => self.joined(now, &membership, effects),
                Waiter::Shard(shard, membership) => {
                    effects.push(Effect::Send { to: shard, message: Message::Joined(membership) });
                }
            }
        }
    }

    // --- The client that waits ---------------------------------------------------------------------------------------

    /// Registered and not answered: what is delivered to it waits, and what it says.
    pub(crate) fn hold(&mut self, key: ConnKey, welcome: Welcome) {
        let keeps_mail = self.config.queue.is_some();
        let Some(live) = self.live_mut(key) else { return };
        live.pending = Some(Box::new(Pending { welcome: Some(Box::new(welcome)), ..Pending::default() }));
        live.held = true;
        if keeps_mail {
            live.intake = Intake::behind(None);
        }
    }

    /// Something that a client waits for is so; it is answered when that was the last.
    pub(super) fn go_on_if(&mut self, now: Now, key: ConnKey, settle: impl FnOnce(&mut Awaits), effects: &mut Effects) {
        let Some(welcome) = self.held_mut(key) else { return };
        settle(&mut welcome.awaits);
        if welcome.awaits == Awaits::default() {
            self.let_in(now, key, effects);
        }
    }

    /// Whether the cluster has yet to say if there is room for this one.
    pub(crate) fn is_unadmitted(&self, key: ConnKey) -> bool {
        let welcome = self.live(key).and_then(|live| live.pending.as_ref()?.welcome.as_ref());
        welcome.is_some_and(|welcome| welcome.awaits.admission)
    }

    fn held_mut(&mut self, key: ConnKey) -> Option<&mut Welcome> {
        self.live_mut(key)?.pending.as_mut()?.welcome.as_deref_mut()
    }

    /// Answers a client that waits, if it does.
    pub(crate) fn let_in(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let Some(welcome) = self.take_held(key) else { return };
        self.welcome(now, key, *welcome, effects);
        self.resume(now, key, effects);
    }

    /// It ends before it was answered: it is told both.
    pub(crate) fn write_held_head(&mut self, now: Now, key: ConnKey) {
        if let Some(welcome) = self.take_held(key) {
            self.write_head(now, key, &welcome);
        }
    }

    pub(super) fn take_held(&mut self, key: ConnKey) -> Option<Box<Welcome>> {
        let live = self.live_mut(key)?;
        let welcome = live.pending.as_mut()?.welcome.take()?;
        live.pending = None;
        live.held = live.transport.is_sse();
        Some(welcome)
    }
}
