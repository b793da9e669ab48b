//! One core's state machine.
//!
//! The rim calls in this order, once a turn, and carries out the [`Effects`] after every call: `accepted`/`arrived`,
//! `received`/`ended`/`writable`, `message`, `publish`, `stored`, `tick`, `work`; then, for each key of
//! [`Shard::next_dirty`], it writes what [`Shard::output`] shows and tells [`Shard::written`], also when nothing was shown
//! or nothing went out.
//!
//! This file is the front door: it finds the connection, feeds it its input, and sends each event to its flow.
use crate::config::ShardConfig;
use crate::conn::http::{HttpStage, HttpState};
use crate::conn::outbox::{Assembly, Delivery, Transport};
use crate::conn::pool::OutboxPool;
use crate::conn::{Connection, Phase};
use crate::effect::{Effect, Effects};
use crate::flow::cluster::sessions::Sessions;
use crate::flow::deliver::writes_of;
use crate::flow::fanout::Fanouts;
use crate::flow::publish::Origin;
use crate::flow::shed::Shedding;
use crate::flow::templates::TemplateWrites;
use crate::guest::Submission;
use crate::host::Host;
use crate::key::{ConnKey, ShardId};
use crate::mesh::message::Message;
use crate::metrics::{NodeMetrics, ShardMetrics};
use crate::pressure::TenantMark;
use crate::tables::channels::Channels;
use crate::tables::claims::PendingClaims;
use crate::tables::directory::Directory;
use crate::tables::gathers::Gathers;
use crate::tables::mail::Mailroom;
use crate::tables::slots::Slots;
use crate::tables::streams::Streams;
use crate::tables::templates::Templates;
use crate::tables::tenants::Tenants;
use crate::tables::turns::Turns;
use crate::tables::users::Users;
use crate::tables::watches::Watches;
use crate::tables::wheel::Wheel;
use protocol::auth::token::Claims;
use protocol::clock::{self, Now};
use protocol::cluster::ClusterEvent;
use protocol::cluster::wire::Hello;
use protocol::http::Version;
use protocol::ids::{self, TenantId};
use protocol::limits;
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
    /// Bytes after the request head.
    pub rest: Vec<u8>,
}

/// How a peer's output ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// FIN: it sends no more, but may still read.
    Eof,
    /// Reset or any socket error: nothing can be sent either.
    Reset,
}

/// What a step of a connection did with its input.
pub(crate) enum Step {
    /// Used this many bytes; go on with the rest.
    Used(usize),
    /// Needs more, or may not go on now: keep the rest.
    Wait,
    /// The connection is no longer here: the rest went with it.
    Gone,
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
    pub(crate) directory: Directory,
    pub(crate) streams: Streams,
    pub(crate) templates: Templates,
    pub(crate) template_writes: TemplateWrites,
    pub(crate) mailroom: Mailroom,
    pub(crate) watches: Watches,
    pub(crate) claims: PendingClaims,
    pub(crate) sessions: Sessions,
    /// The nodes that are alive, this one included; empty until that is known.
    pub(crate) members: Arc<[Hello]>,
    pub(crate) gathers: Gathers,
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

/// Room for waiting input that is not worth giving back.
const TAIL_ROOM_BYTES: usize = 1_024;

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
            directory: Directory::default(),
            streams: Streams::default(),
            templates,
            template_writes: TemplateWrites::default(),
            mailroom: Mailroom::default(),
            watches: Watches::default(),
            claims: PendingClaims::default(),
            sessions: Sessions::default(),
            members: Arc::new([]),
            gathers: Gathers::default(),
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
        let state = HttpState { peer, stage: HttpStage::Head, head_begun: false, deadline_ms };
        let key = self.connections.insert(Connection::new(Phase::Http(Box::new(state))));
        self.schedule(key, deadline_ms);
        Some(key)
    }

    /// A socket was handed over by the shard that accepted it. The rim puts the socket under the key, carries out the
    /// effects, and then feeds the bytes that came along (`Arrival::rest`, which it took out before) as received.
    pub fn arrived(&mut self, now: Now, arrival: Box<Arrival>, effects: &mut Effects) -> ConnKey {
        let state = HttpState { peer: arrival.peer, stage: HttpStage::Head, head_begun: false, deadline_ms: 0 };
        let key = self.connections.insert(Connection::new(Phase::Http(Box::new(state))));
        self.register(now, key, arrival, effects);
        key
    }

    /// Bytes from the peer; the shard may scribble on them (WebSocket payloads are unmasked in place).
    pub fn received(&mut self, now: Now, key: ConnKey, bytes: &mut [u8], effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.tail.is_empty() {
            let used = self.consume(now, key, bytes, effects);
            if used < bytes.len()
                && let Some(connection) = self.connections.get_mut(key)
            {
                connection.tail.extend_from_slice(&bytes[used..]);
            }
        } else {
            let mut tail = std::mem::take(&mut connection.tail);
            // A head that is not whole is looked at again only when a line has ended.
            let is_head = matches!(&connection.phase, Phase::Http(http) if matches!(http.stage, HttpStage::Head));
            let may_end = !is_head || bytes.contains(&b'\n') || tail.len() + bytes.len() > limits::HTTP_HEAD_BYTES_MAX;
            tail.extend_from_slice(bytes);
            if may_end {
                self.consume_tail(now, key, tail, effects);
            } else {
                connection.tail = tail;
            }
        }
        self.settle_reading(key, effects);
    }

    /// The peer's output ended.
    pub fn ended(&mut self, now: Now, key: ConnKey, how: Ended, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.eof = true;
        match &connection.phase {
            _ if how == Ended::Reset => self.drop_connection(now, key, effects),
            // Who only listens and sends its FIN is gone.
            Phase::Live(_) => self.drop_connection(now, key, effects),
            Phase::Closing(_) if connection.is_flushed() => self.drop_connection(now, key, effects),
            Phase::Closing(_) => {}
            Phase::Http(_) => self.end_if_silent(now, key, effects),
        }
    }

    /// A client that has sent its FIN and has all its answers: nothing more can come of it.
    fn end_if_silent(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.eof && matches!(connection.phase, Phase::Http(_)) && connection.wants_input() {
            self.finish(now, key, effects);
        }
    }

    /// A panic while this connection was served: it ends, the others go on.
    pub fn poisoned(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        self.drop_connection(now, key, effects);
    }

    /// Feeds input to whatever is spoken on the connection; how much of it was used.
    fn consume(&mut self, now: Now, key: ConnKey, bytes: &mut [u8], effects: &mut Effects) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let Some(connection) = self.connections.get_mut(key) else { return bytes.len() };
            connection.busy = true;
            let step = match &connection.phase {
                Phase::Http(_) => self.http_step(now, key, &mut bytes[at..], effects),
                Phase::Live(live) if live.transport.is_sse() => Step::Used(bytes.len() - at),
                Phase::Live(_) => self.websocket_step(now, key, &mut bytes[at..], effects),
                Phase::Closing(_) => self.closing_step(now, key, &mut bytes[at..], effects),
            };
            match step {
                Step::Used(used) => at += used,
                Step::Wait => break,
                Step::Gone => return bytes.len(),
            }
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.busy = false;
        }
        at
    }

    fn consume_tail(&mut self, now: Now, key: ConnKey, mut tail: Vec<u8>, effects: &mut Effects) {
        let used = self.consume(now, key, &mut tail, effects);
        if used < tail.len()
            && let Some(connection) = self.connections.get_mut(key)
        {
            tail.drain(..used);
            // A burst that ended in the middle of something leaves that, not its room.
            if tail.capacity() > (4 * tail.len()).max(TAIL_ROOM_BYTES) {
                tail.shrink_to(2 * tail.len());
            }
            connection.tail = tail;
        }
    }

    /// Goes on with input that had to wait.
    pub(crate) fn resume(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.busy {
            return;
        }
        if !connection.tail.is_empty() && connection.wants_input() {
            let tail = std::mem::take(&mut connection.tail);
            self.consume_tail(now, key, tail, effects);
        }
        self.end_if_silent(now, key, effects);
        self.settle_reading(key, effects);
    }

    /// Tells the rim to read, or not to: a peer that does not take its answers, or waits for one, is not read.
    pub(crate) fn settle_reading(&mut self, key: ConnKey, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let on = connection.wants_input();
        if on == connection.deaf {
            connection.deaf = !on;
            effects.push(Effect::Read { key, on });
        }
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
        if let Some(reply) = self.mail_stored(now, ticket, reply, effects) {
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

    // --- Output ------------------------------------------------------------------------------------------------------

    /// Moves the connections that have something to write into `out`; each stands there once.
    pub fn take_dirty(&mut self, out: &mut Vec<ConnKey>) {
        self.dirty.pop_all(out);
    }

    /// The next connection that has something to write; tenants take turns.
    pub fn next_dirty(&mut self) -> Option<ConnKey> {
        self.dirty.pop().map(|(_, key)| key)
    }

    /// How many connections have something to write.
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// What to write to this connection now: at most [`limits::WRITE_BYTES_MAX`] assembled bytes, or one larger piece.
    pub fn output(&mut self, now: Now, key: ConnKey) -> &[u8] {
        let me = self.me.index();
        let Some(connection) = self.connections.get_mut(key) else { return &[] };
        connection.dirty = false;
        let (transport, held) = connection.reads();
        let Some(outbox) = connection.outbox.as_deref_mut() else { return &[] };
        let before = outbox.frame_bytes();
        let expired = outbox.drop_expired(now.mono_us, transport);
        if expired > 0 {
            self.outbox_room_bytes -= outbox.take_freed();
            self.node.shards[me].expired.add(expired as u64);
            self.node.shards[me].outbox_bytes.add(outbox.frame_bytes() as i64 - before as i64);
        }
        outbox.assemble(transport, held, &mut self.assembly)
    }

    /// `len` bytes of the last [`Shard::output`] went out. A connection that has more is dirty again, unless `blocked`:
    /// then the rim waits until the socket is writable and calls [`Shard::writable`].
    pub fn written(&mut self, now: Now, key: ConnKey, len: usize, blocked: bool, effects: &mut Effects) {
        let me = self.me.index();
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (transport, held) = connection.reads();
        if let Some(outbox) = connection.outbox.as_deref_mut() {
            let before = outbox.frames_len();
            let oldest_us = outbox.first_accepted_us();
            outbox.advance(len, transport, &mut self.mail_out);
            self.outbox_room_bytes -= outbox.take_freed();
            self.node.shards[me].outbox_bytes.add(-(len as i64));
            let frames = before - outbox.frames_len();
            if frames > 0
                && let Some(oldest_us) = oldest_us
            {
                let seconds = now.mono_us.saturating_sub(oldest_us) as f64 / 1e6;
                self.node.shards[me].delivery_latency_seconds.observe_many(seconds, frames as u64);
            }
            if len > 0 {
                outbox.waiting_since_us = now.mono_us;
            }
        }
        let newly_blocked = blocked && !connection.blocked;
        connection.blocked = blocked;
        if connection.is_flushed() {
            if let Some(outbox) = connection.outbox.take() {
                self.outboxes.give(outbox);
            }
            self.flushed(now, key, effects);
        } else if !blocked && held {
            if connection.control_bytes() > 0 {
                self.mark_dirty(key);
            }
        } else {
            // More than the socket, or one write, takes.
            if let Some(outbox) = &mut connection.outbox {
                outbox.note_backlog();
            }
            if !blocked {
                self.mark_dirty(key);
            } else if newly_blocked {
                self.schedule(key, now.mono_ms() + limits::OUTBOX_STALL_MS);
            }
        }
        if self.config.queue.is_some() {
            let mail = std::mem::take(&mut self.mail_out);
            self.mail_written(now, key, &mail, effects);
        }
        self.resume_if_relieved(now, key, effects);
    }

    /// A blocked socket takes bytes again.
    pub fn writable(&mut self, _now: Now, key: ConnKey) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.blocked = false;
            self.mark_dirty(key);
        }
    }

    /// End of the flush: lets go of shared frames.
    pub fn flushed_all(&mut self) {
        self.assembly.forget_run();
    }

    pub(crate) fn mark_dirty(&mut self, key: ConnKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.dirty
            && !connection.blocked
        {
            connection.dirty = true;
            self.dirty.push(connection.live().map_or(0, |live| writes_of(live.tenant)), key);
        }
    }

    /// Appends to a connection's control lane.
    pub(crate) fn write_control(&mut self, now: Now, key: ConnKey, write: impl FnOnce(&mut Vec<u8>)) {
        let Shard { connections, outboxes, .. } = self;
        let Some(connection) = connections.get_mut(key) else { return };
        let outbox = connection.outbox.get_or_insert_with(|| outboxes.take(now.mono_us));
        let before = outbox.control_bytes();
        write(outbox.control());
        let written = outbox.control_bytes() - before;
        self.outbox_room_bytes += written;
        self.metrics().outbox_bytes.add(written as i64);
        self.mark_dirty(key);
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
