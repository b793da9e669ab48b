//! One core's state machine.
//!
//! The rim calls in this order, once a turn, and carries out the [`Effects`] after every call: `accepted`/`arrived`,
//! `received`/`ended`/`writable`, `message`, `publish`, `stored`, `tick`, `work`; then, for each key of
//! [`Shard::next_dirty`], it writes what [`Shard::output`] shows and tells [`Shard::written`], also when nothing was shown
//! or nothing went out.
//!
//! This file is the front door: what the shard is made of, and the way of each event to its flow. What a peer sends is in
//! `input`, what is written to it in `output`.
mod input;
mod output;

pub use input::Ended;
pub(crate) use input::Step;

use crate::config::ShardConfig;
use crate::conn::http::HttpState;
use crate::conn::outbox::{Assembly, Delivery, Transport};
use crate::conn::pool::OutboxPool;
use crate::conn::{Connection, Phase};
use crate::effect::{Effect, Effects};
use crate::flow::cluster::sessions::Sessions;
use crate::flow::fanout::Fanouts;
use crate::flow::limit::Limiter;
use crate::flow::publish::Origin;
use crate::flow::sealed::SealedMail;
use crate::flow::shed::Shedding;
use crate::flow::templates::TemplateWrites;
use crate::guest::Submission;
use crate::host::Host;
use crate::key::{ConnKey, ShardId};
use crate::mesh::message::Message;
use crate::metrics::{NodeMetrics, ShardMetrics};
use crate::pressure::TenantMark;
use crate::tables::admissions::Admissions;
use crate::tables::channels::Channels;
use crate::tables::claims::PendingClaims;
use crate::tables::directory::Directory;
use crate::tables::gathers::Gathers;
use crate::tables::mail::Mailroom;
use crate::tables::rendezvous::Rendezvous;
use crate::tables::revocations::Revocations;
use crate::tables::slots::Slots;
use crate::tables::streams::Streams;
use crate::tables::templates::Templates;
use crate::tables::tenants::Tenants;
use crate::tables::token_ids::TokenIds;
use crate::tables::turns::Turns;
use crate::tables::unheard::Unheard;
use crate::tables::users::Users;
use crate::tables::watches::Watches;
use crate::tables::wheel::Wheel;
use protocol::auth::token::Claims;
use protocol::clock::{self, Now};
use protocol::cluster::ClusterEvent;
use protocol::http::Version;
use protocol::ids::{self, TenantId};
use protocol::limits;
use protocol::rate_limit::Quota;
use protocol::store::{StoreReply, StoreTicket};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Somebody who has shown a good token and is brought to the home shard of the user, with the bytes that came after the
/// request head. Everything in it is plain data: it travels with the socket.
#[derive(Debug)]
pub struct Arrival {
    /// WebSocket or SSE, and which SSE.
    pub transport: Transport,
    /// Whose user.
    pub tenant: TenantId,
    /// Who, until when, in which roles.
    pub claims: Claims,
    /// The answer to the WebSocket key.
    pub accept: Option<String>,
    /// Dialect of the response head.
    pub version: Version,
    /// For CORS.
    pub origin: Option<Box<str>>,
    /// `?channels=` of an SSE request.
    pub channels: Vec<Box<str>>,
    /// The socket's peer.
    pub peer: IpAddr,
    /// What is left of its limit: a refusal says so.
    pub quota: Option<Quota>,
    /// Bytes after the request head.
    pub rest: Vec<u8>,
}

/// One core's world.
pub struct Shard {
    pub(crate) me: ShardId,
    pub(crate) shards: usize,
    pub(crate) config: Arc<ShardConfig>,
    pub(crate) node: Arc<NodeMetrics>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) connections: Slots<Connection>,
    pub(crate) tenants: Tenants,
    pub(crate) users: Users,
    pub(crate) channels: Channels,
    pub(crate) token_ids: TokenIds,
    pub(crate) revocations: Revocations,
    /// How many of this node's own may be held.
    pub(crate) revocations_max: usize,
    pub(crate) directory: Directory,
    pub(crate) streams: Streams,
    pub(crate) templates: Templates,
    pub(crate) template_writes: TemplateWrites,
    pub(crate) mailroom: Mailroom,
    pub(crate) watches: Watches,
    pub(crate) admissions: Admissions,
    pub(crate) claims: PendingClaims,
    pub(crate) unheard: Unheard,
    pub(crate) sessions: Sessions,
    pub(crate) rendezvous: Rendezvous,
    /// Since when no other node was heard of; see [`Shard::is_alone`].
    pub(crate) alone_since_us: Option<u64>,
    pub(crate) gathers: Gathers,
    /// Absent while nobody is limited.
    pub(crate) limiter: Option<Box<Limiter>>,
    pub(crate) fanouts: Fanouts,
    /// Deliveries this turn may still make.
    pub(crate) budget: usize,
    /// Deliveries it may make beside it, for tenants of whom nothing waits.
    pub(crate) budget_aside: usize,
    /// Deliveries a turn may make.
    pub(crate) budget_per_turn: usize,
    pub(crate) fanout_stamp: u32,
    /// Connections whose outbox overflowed; closed at the end of the turn, outside of any fan-out.
    pub(crate) overflowed: Vec<ConnKey>,
    pub(crate) wheel: Wheel,
    pub(crate) dirty: Turns<ConnKey>,
    pub(crate) assembly: Assembly,
    /// Mail that the write at hand took; empty between calls.
    mail_out: Vec<Rc<Delivery>>,
    /// Mail that was encrypted and has not left yet.
    pub(crate) sealed_mail: SealedMail,
    /// Empty outboxes, kept so that a busy turn allocates nothing.
    pub(crate) outboxes: OutboxPool,
    /// Memory of what waits in outboxes: each frame once, its places in queues, control.
    pub(crate) outbox_room_bytes: usize,
    /// What was shed of it.
    pub(crate) shedding: Shedding,
    /// The tenant for whom guests do not read on.
    pub(crate) guest_waits_for: Option<TenantMark>,
    pub(crate) stopping: bool,
    date: (u64, Vec<u8>),
}

impl Shard {
    /// An empty shard. `seed` feeds ids and jitter.
    pub fn new(
        me: ShardId,
        shards: usize,
        config: Arc<ShardConfig>,
        node: Arc<NodeMetrics>,
        host: Arc<dyn Host>,
        seed: u64,
    ) -> Shard {
        assert!((1..=limits::SHARDS_MAX).contains(&shards), "{shards} shards");
        let templates = Templates::new(!config.templates_kept);
        let limiter = config.rate_limits.as_ref().map(|rules| Box::new(Limiter::new(rules)));
        Shard {
            me,
            shards,
            config,
            node,
            host,
            rng: fastrand::Rng::with_seed(seed),
            connections: Slots::default(),
            tenants: Tenants::default(),
            users: Users::default(),
            channels: Channels::default(),
            token_ids: TokenIds::default(),
            revocations: Revocations::default(),
            revocations_max: limits::REVOCATIONS_MAX,
            directory: Directory::default(),
            streams: Streams::default(),
            templates,
            template_writes: TemplateWrites::default(),
            mailroom: Mailroom::default(),
            watches: Watches::default(),
            admissions: Admissions::default(),
            claims: PendingClaims::default(),
            unheard: Unheard::default(),
            sessions: Sessions::default(),
            rendezvous: Rendezvous::default(),
            alone_since_us: None,
            gathers: Gathers::default(),
            limiter,
            fanouts: Fanouts::default(),
            budget: limits::TURN_DELIVERIES_MAX,
            budget_aside: limits::FANOUT_QUANTUM_DELIVERIES,
            budget_per_turn: limits::TURN_DELIVERIES_MAX,
            fanout_stamp: 0,
            overflowed: Vec::new(),
            wheel: Wheel::default(),
            dirty: Turns::new(limits::WRITE_QUANTUM, usize::MAX),
            assembly: Assembly::default(),
            mail_out: Vec::new(),
            sealed_mail: SealedMail::default(),
            outboxes: OutboxPool::default(),
            outbox_room_bytes: 0,
            shedding: Shedding::default(),
            guest_waits_for: None,
            stopping: false,
            date: (u64::MAX, Vec::new()),
        }
    }

    /// Lowers [`limits::TURN_DELIVERIES_MAX`], for a world that is too small to reach it.
    pub fn slice_deliveries(&mut self, per_turn: usize) {
        (self.budget, self.budget_per_turn) = (per_turn, per_turn);
        self.budget_aside = per_turn.min(limits::FANOUT_QUANTUM_DELIVERIES);
        self.fanouts.turn_after((per_turn / 32).max(1));
    }

    /// Fan-outs that wait for their turn.
    pub fn fanouts_waiting(&self) -> usize {
        self.fanouts.len()
    }

    /// Lowers [`limits::REVOCATIONS_MAX`], for a world that is too small to reach it.
    pub fn bound_revocations(&mut self, held_max: usize) {
        self.revocations_max = held_max;
    }

    // --- Sockets -----------------------------------------------------------------------------------------------------

    /// A socket was accepted. `None` when the node is full or stopping: the rim answers 503 and closes it.
    pub fn accepted(&mut self, now: Now, peer: IpAddr) -> Option<ConnKey> {
        if self.stopping || self.node.sockets.fetch_add(1, Relaxed) >= self.config.sockets_max as u64 {
            if !self.stopping {
                self.node.sockets.fetch_sub(1, Relaxed);
            }
            self.metrics().refused.add(1);
            return None;
        }
        let deadline_ms = now.mono_ms() + limits::HTTP_IDLE_DEADLINE_MS;
        let state = HttpState::new(peer, deadline_ms);
        let key = self.connections.insert(Connection::new(Phase::Http(Box::new(state))));
        self.schedule(key, deadline_ms);
        Some(key)
    }

    /// A socket was handed over by the shard that accepted it. The rim puts the socket under the key, carries out the
    /// effects, and then feeds the bytes that came along (`Arrival::rest`, which it took out before) as received.
    pub fn arrived(&mut self, now: Now, arrival: Box<Arrival>, effects: &mut Effects) -> ConnKey {
        let state = HttpState::new(arrival.peer, 0);
        let key = self.connections.insert(Connection::new(Phase::Http(Box::new(state))));
        self.register(now, key, arrival, effects);
        key
    }

    /// A panic while this connection was served: it ends, the others go on.
    pub fn poisoned(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        self.drop_connection(now, key, effects);
    }

    // --- Everybody else ----------------------------------------------------------------------------------------------

    /// From another shard.
    pub fn message(&mut self, now: Now, from: ShardId, message: Message, effects: &mut Effects) {
        match message {
            Message::Mail { publication, users, claim: Some(claim), .. } => {
                self.keep_claimed(now, &publication, users.as_deref(), *claim, effects);
            }
            Message::Mail { publication, users, is_ours, claim: None, reply } => {
                self.deliver_mail(now, &publication, users.as_deref(), is_ours, reply, effects);
            }
            Message::Line { publication, reply } => self.pass_on(now, publication, reply, effects),
            Message::Fanout { publication, places, reply } => {
                self.start_fanout(now, publication, places, reply, effects);
            }
            Message::Expect { gather, parts, parcels } => self.gather_expects(now, gather, parts, parcels, effects),
            Message::Receipt { gather, receipt } => self.gather_receipt(now, gather, receipt, effects),
            Message::Join(membership) => {
                if let Some(membership) = self.join_line(now, from, membership, effects) {
                    effects.push(Effect::Send { to: from, message: Message::Joined(membership) });
                }
            }
            Message::Joined(membership) => self.joined(now, &membership, effects),
            Message::Leave(membership) => {
                self.leave_line(from, &membership.tenant, &membership.channel, effects);
            }
            Message::Bridge(request) => effects.push(Effect::Cluster(request)),
            Message::Cluster(event) => self.cluster_told(now, *event, effects),
            Message::Ask { reply, question } => self.asked(now, reply, *question, effects),
            Message::Answer { gather, answer } => self.gather_answer(now, gather, *answer, effects),
            Message::Count { connection, kind, identity } => {
                self.count_for(now, from, connection, kind, identity, effects);
            }
            Message::Counted { connection, verdict } => self.counted(now, connection, verdict, effects),
            Message::Revoke { page, reply } => self.revoked(now, &page, reply, effects),
            Message::Template { change, reply } => self.template_changed(now, &change, reply, effects),
        }
    }

    /// From a guest.
    pub fn publish(&mut self, now: Now, submission: Submission, effects: &mut Effects) {
        let Submission { tenant, target, content, source, claim } = submission;
        if let Some(publication) = self.accept(now, tenant, target, &content, &source) {
            self.dispatch_here(now, publication, None, Origin::Here(claim), effects);
        }
    }

    /// From the store.
    pub fn stored(&mut self, now: Now, ticket: StoreTicket, reply: StoreReply, effects: &mut Effects) {
        if let Some(reply) = self.limit_stored(now, ticket, reply, effects)
            && let Some(reply) = self.mail_stored(now, ticket, reply, effects)
        {
            self.template_stored(now, ticket, reply, effects);
        }
    }

    /// From the bridge to other nodes; on the bridge shard only.
    pub fn cluster(&mut self, now: Now, event: ClusterEvent, effects: &mut Effects) {
        self.bridge_told(now, event, effects);
    }

    /// Whether new publishes are refused right now.
    pub fn congested(&self) -> bool {
        self.node.congested_lanes.load(Relaxed) > 0 || self.saturated()
    }

    /// Whether a guest that nobody waits for should take in no more: the node is congested, or the tenant of what it took
    /// last is held back.
    pub fn holds_guests_back(&self) -> bool {
        self.guest_waits_for.is_some_and(|mark| self.node.held_back.holds_mark(mark)) || self.congested()
    }

    /// Whether the shard has so many fan-outs waiting that the rim should leave the lanes alone this turn.
    pub fn saturated(&self) -> bool {
        self.fanouts.is_full()
    }

    /// Goes on with fan-outs, within the turn's budget, and ends connections that overflowed. True when more remains.
    pub fn work(&mut self, now: Now, effects: &mut Effects) -> bool {
        self.budget = self.budget_per_turn;
        self.budget_aside = self.budget_per_turn.min(limits::FANOUT_QUANTUM_DELIVERIES);
        self.run_fanouts(now, effects);
        self.close_overflowed(now, effects);
        self.shed_output(now, effects);
        if self.config.cluster.is_some() {
            self.tell_stored(effects);
            self.tell_sessions(effects);
        }
        !self.fanouts.is_empty() || self.sessions.is_refreshing()
    }

    // --- Small things the flows share --------------------------------------------------------------------------------

    pub(crate) fn metrics(&self) -> &ShardMetrics {
        &self.node.shards[self.me.index()]
    }

    /// The `date` header, formatted once a second.
    pub(crate) fn date(&mut self, now: Now) -> Vec<u8> {
        let second = now.unix_seconds();
        if self.date.0 != second {
            self.date.0 = second;
            self.date.1.clear();
            clock::write_http_date(&mut self.date.1, second);
        }
        self.date.1.clone()
    }

    pub(crate) fn new_uuid(&mut self, now: Now) -> uuid::Uuid {
        let mut random = [0; 10];
        self.rng.fill(&mut random);
        ids::uuid_v7(now.unix_ms(), random)
    }

    /// Enters a connection into the wheel, unless it stands there for an earlier time anyway.
    pub(crate) fn schedule(&mut self, key: ConnKey, at_ms: u64) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.tick == 0 || connection.tick > self.wheel.tick_of(at_ms) {
            connection.tick = self.wheel.enter(key, at_ms);
        }
    }
}
