//! A publish, from acceptance to the shards that have recipients.
use crate::effect::{Effect, Effects};
use crate::key::ShardId;
use crate::mesh::message::{GatherId, Message, ReplyTo};
use crate::pressure::TenantMark;
use crate::shard::Shard;
use crate::tables::placement;
use crate::tables::shard_set::ShardSet;
use crate::tables::streams::StreamKind;
use protocol::clock::Now;
use protocol::cluster::wire::Claim;
use protocol::frame::Frame;
use protocol::ids::{NotificationId, TenantId};
use protocol::notification::{Content, Publication, Source, Target};
use protocol::stream::Places;
use std::sync::Arc;

/// Where a publish came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// At this node, perhaps as at every other.
    Here(Option<Claim>),
    /// At another node, which keeps what is to be kept.
    Elsewhere,
}

impl Shard {
    /// Identifies and encodes a publish, once. `None` when its time to live is over already: it is neither sent nor
    /// counted as sent (contract §5).
    pub(crate) fn accept(
        &mut self,
        now: Now,
        tenant: TenantId,
        target: Target,
        content: &Content,
        source: &Source,
    ) -> Option<Arc<Publication>> {
        let id = NotificationId(self.new_uuid(now));
        if content.ttl == Some(0) {
            self.metrics().expired.add(1);
            return None;
        }
        self.metrics().sent(target.kind()).add(1);
        self.tenants.count_sent(&tenant);
        Some(Arc::new(Publication {
            id,
            tenant,
            target,
            audience: content.audience.clone(),
            priority: content.priority,
            expires_at_us: content.ttl.map(|seconds| now.mono_us + u64::from(seconds) * 1_000_000),
            accepted_at_us: now.mono_us,
            frame: Frame::notification(id, now.unix_ns, source, content),
        }))
    }

    /// Sends a publication on its way. What somebody waits for came over REST, and the other nodes do not know of it.
    pub(crate) fn dispatch(
        &mut self,
        now: Now,
        publication: Arc<Publication>,
        gather: Option<GatherId>,
        effects: &mut Effects,
    ) {
        if self.config.cluster.is_some()
            && let Some(gather) = gather
        {
            self.send_on(now, &publication, gather, effects);
        }
        self.dispatch_here(now, publication, gather, Origin::Here(None), effects);
    }

    /// On this node: user mail to the users' homes, everything else along the tenant's line.
    pub(crate) fn dispatch_here(
        &mut self,
        now: Now,
        publication: Arc<Publication>,
        gather: Option<GatherId>,
        origin: Origin,
        effects: &mut Effects,
    ) {
        let reply = gather.map(|gather| ReplyTo { shard: self.me, gather });
        let (is_ours, claim) = match origin {
            Origin::Here(claim) => (true, claim.filter(|_| self.config.queue.is_some() && self.shares_mail())),
            Origin::Elsewhere => (false, None),
        };
        let tenant = publication.tenant.as_str();
        if gather.is_none() && !self.node.held_back.is_empty() {
            // Nobody can be told to come later, so whoever brought it reads on later.
            let mark = TenantMark::of(&publication.tenant);
            self.guest_waits_for = Some(mark).filter(|mark| self.node.held_back.holds_mark(*mark));
        }
        match &publication.target {
            Target::User(user) => {
                let home = placement::home(tenant, user, self.shards);
                self.expect_parts(gather, 1);
                let mail = Message::Mail { publication, users: None, is_ours, claim: claim.map(Box::new), reply };
                self.send_mail(now, home, mail, effects);
            }
            Target::Users(users) => {
                let mut homes: Vec<Vec<u32>> = vec![Vec::new(); self.shards];
                for (index, user) in users.iter().enumerate() {
                    homes[placement::home(tenant, user, self.shards).index()].push(index as u32);
                }
                self.expect_parts(gather, homes.iter().filter(|users| !users.is_empty()).count() as i64);
                for (shard, users) in homes.into_iter().enumerate().filter(|(_, users)| !users.is_empty()) {
                    let (publication, users) = (Arc::clone(&publication), Some(users.into()));
                    let claim = claim.map(Box::new);
                    let mail = Message::Mail { publication, users, is_ours, claim, reply };
                    self.send_mail(now, ShardId(shard as u8), mail, effects);
                }
            }
            Target::Broadcast | Target::Channel(_) | Target::Channels(_) => {
                let owner = placement::line(tenant, self.shards);
                if owner == self.me {
                    self.pass_on(now, publication, reply, effects);
                } else {
                    effects.push(Effect::Send { to: owner, message: Message::Line { publication, reply } });
                }
            }
        }
    }

    fn send_mail(&mut self, now: Now, home: ShardId, mail: Message, effects: &mut Effects) {
        if home == self.me {
            self.message(now, home, mail, effects);
        } else {
            effects.push(Effect::Send { to: home, message: mail });
        }
    }

    /// At the line's owner: this is where a channel or broadcast publish gets its place in the order. It goes once to
    /// every shard that has recipients.
    pub(crate) fn pass_on(
        &mut self,
        now: Now,
        publication: Arc<Publication>,
        reply: Option<ReplyTo>,
        effects: &mut Effects,
    ) {
        let places = self.places_in_line(now, &publication);
        let shards = match &publication.target {
            Target::Channel(name) => self.directory.shards(&publication.tenant, name),
            Target::Channels(names) => names.iter().fold(ShardSet::default(), |shards, name| {
                shards.union(self.directory.shards(&publication.tenant, name))
            }),
            _ => ShardSet::all(self.shards),
        };
        if let Some(reply) = reply {
            if reply.shard == self.me {
                self.gather_expects(now, reply.gather, shards.len(), 0, effects);
            } else {
                let message = Message::Expect { gather: reply.gather, parts: shards.len(), parcels: 0 };
                effects.push(Effect::Send { to: reply.shard, message });
            }
        }
        for shard in shards.iter() {
            let publication = Arc::clone(&publication);
            let places = places.clone();
            if shard == self.me {
                self.start_fanout(now, publication, places, reply, effects);
            } else {
                effects.push(Effect::Send { to: shard, message: Message::Fanout { publication, places, reply } });
            }
        }
    }

    /// Numbers what passes a line: once for each channel, or as a broadcast.
    fn places_in_line(&mut self, now: Now, publication: &Publication) -> Places {
        let Publication { tenant, target, .. } = publication;
        let streams = &mut self.streams;
        match target {
            Target::Channel(name) => Places::One(streams.next(now, StreamKind::Channel, tenant, name)),
            Target::Channels(names) => {
                Places::Each(names.iter().map(|name| streams.next(now, StreamKind::Channel, tenant, name)).collect())
            }
            _ => Places::One(streams.next(now, StreamKind::Broadcast, tenant, "")),
        }
    }
}
