//! One turn of a shard's loop, step by step.
//!
//! ```text
//! poll (no wait) -> accept -> read -> mesh -> guests -> store replies -> tick -> work -> store links
//!       -> flush: one write per connection that has something -> ring the bells
//! ```
//! Every step has a budget, what is left waits for the next turn, and after each call of the shard its effects are
//! carried out. A shard sleeps only after a turn in which nothing at all happened; while it is busy one look at its
//! epoll set per turn is all the kernel hears of its waiting.
use super::acts::contain;
use super::guests::GuestSeat;
use super::listener::{Accepted, Listener, REFUSAL, refuse};
use super::park::{Bed, Timer};
use super::poller::{Poller, Token, read_event};
use super::sockets::{Read, Readiness, Sockets, Written};
use super::stop::{Leaving, StopSignal, Verdict};
use super::tls::{FULL_REFUSAL, Secure};
use super::{Shard, clock};
use crate::effect::Effects;
use crate::flow::shed::Notice;
use crate::guest::{Port, Submission};
use crate::host::{ClusterPort, StorePort};
use crate::key::{ConnKey, ShardId};
use crate::mesh::{Bell, Envelope, MeshPort};
use crate::metrics::{NodeMetrics, ShardMetrics};
use crate::shard::Ended;
use protocol::clock::Now;
use protocol::cluster::ClusterEvent;
use protocol::limits::{READ_BYTES_MAX, TURN_ACCEPTS_MAX, TURN_MESSAGES_MAX, TURN_WRITES_MAX, WRITES_WAITING_MAX};
use protocol::store::{StoreReply, StoreTicket};
use rustix::event::epoll::Event;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// After so much unbroken load monoio's other tasks get a chance; a shard has none of its own, so this is a courtesy
/// to what a runtime may run for itself.
const YIELD_US: u64 = 20_000;

/// A shard at work.
pub(super) struct Reactor {
    pub(super) id: ShardId,
    pub(super) shard: Shard,
    pub(super) mesh: MeshPort,
    pub(super) store: Box<dyn StorePort>,
    /// On the bridge shard of a node that is one of several.
    pub(super) cluster: Option<Box<dyn ClusterPort>>,
    /// The links of the store and the cluster have not had a turn since they were asked.
    pub(super) store_asked: bool,
    pub(super) node_metrics: Arc<NodeMetrics>,
    pub(super) stop: Arc<StopSignal>,
    pub(super) poller: Poller,
    pub(super) timer: Timer,
    pub(super) bell: Bell,
    /// `None` once the node stops.
    pub(super) listener: Option<Listener>,
    pub(super) sockets: Sockets,
    /// `None` while clients are served in plain text.
    pub(super) secure: Option<Box<Secure>>,
    pub(super) guests: Vec<GuestSeat>,
    /// The turn's reading of the clock.
    pub(super) now: Now,
    /// Whether anything happened in this turn.
    pub(super) progress: bool,
    /// What the shard asked for in the call that is being served.
    pub(super) effects: Effects,
    pub(super) scratch: Scratch,
    pub(super) leaving: Option<Leaving>,
}

/// Room that is used in every turn and empty between them.
pub(super) struct Scratch {
    events: Vec<Event>,
    pub(super) readable: Box<[u8]>,
    replies: Vec<(StoreTicket, StoreReply)>,
    cluster_events: Vec<ClusterEvent>,
    /// Connections that have something to write and that the last flush did not come to.
    unwritten: usize,
}

impl Default for Scratch {
    fn default() -> Scratch {
        let readable = vec![0; READ_BYTES_MAX].into();
        Scratch { events: Vec::new(), readable, replies: Vec::new(), cluster_events: Vec::new(), unwritten: 0 }
    }
}

impl Reactor {
    /// Turns until the node stops.
    pub(super) async fn run(&mut self, bed: &Bed) {
        self.now = clock::now();
        // Since when the time counts as work, and since when nothing else could run.
        let (mut busy_since_us, mut awake_since_us) = (self.now.mono_us, self.now.mono_us);
        while !self.is_finished() {
            self.now = clock::now();
            self.metrics().turns.add(1);
            self.metrics().busy_us.add(self.now.mono_us - busy_since_us);
            busy_since_us = self.now.mono_us;
            self.turn();
            if !self.progress && self.mesh.doze() {
                let asleep_at_us = clock::now().mono_us;
                if self.timer.arm(self.next_deadline_us(), asleep_at_us) {
                    self.metrics().busy_us.add(asleep_at_us - busy_since_us);
                    bed.sleep().await;
                    busy_since_us = clock::now().mono_us;
                    awake_since_us = busy_since_us;
                }
                self.mesh.rise();
            }
            if self.now.mono_us.saturating_sub(awake_since_us) >= YIELD_US {
                // Not a task that wakes itself: monoio puts that in front of all others.
                monoio::spawn(async {}).await;
                awake_since_us = self.now.mono_us;
            }
        }
    }

    fn turn(&mut self) {
        self.progress = false;
        let mut events = std::mem::take(&mut self.scratch.events);
        self.poller.poll(&mut events);
        self.progress |= !events.is_empty();
        if let Some(secure) = &mut self.secure {
            secure.begin_turn();
        }
        for event in &events {
            self.note_own(event);
        }
        self.heed_stop();
        self.accept();
        for event in &events {
            if let (Token::Socket(key), flags) = read_event(event) {
                let readiness = self.sockets.readiness(&self.poller, key, flags);
                self.serve(key, readiness);
            }
        }
        self.scratch.events = events;
        self.take_mesh();
        self.turn_guests(|_| true);
        self.take_store_replies();
        self.take_cluster_events();
        self.tick();
        // New deliveries only when the last ones are written: a shard that cannot write fast enough must hold its
        // publishers back, not fill the outboxes of clients that would read.
        if self.scratch.unwritten == 0 {
            self.progress |= self.shard.work(self.now, &mut self.effects);
            self.carry_out();
            self.tell();
        }
        self.turn_store();
        self.flush();
        self.mesh.ring_bells();
    }

    /// The shard's own descriptors. Rings are taken back here, before anybody looks at what the ringers left.
    fn note_own(&mut self, event: &Event) {
        match read_event(event) {
            (Token::Bell, _) => {
                self.bell.hush();
                self.guests.iter_mut().for_each(GuestSeat::note_bell);
            }
            (Token::Timer, _) => self.timer.hush(),
            (Token::Listener, _) => self.listener.iter_mut().for_each(Listener::note_ready),
            (Token::Guest { index, number }, flags) => {
                // Gone guests do not exist: the index is that of a seat.
                if let Some(seat) = self.guests.get_mut(usize::from(index)) {
                    seat.note_ready(number, flags);
                }
            }
            (Token::Socket(_), _) => {}
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &mut self.listener else { return };
        if !listener.is_ready(self.now.mono_us, &self.poller) {
            return;
        }
        for _ in 0..TURN_ACCEPTS_MAX {
            let Some(listener) = &mut self.listener else { return };
            match listener.accept(self.now.mono_us, &self.poller) {
                Accepted::Socket(socket, peer) => self.seat_accepted(socket, peer),
                Accepted::Gone => {}
                Accepted::Nobody => return,
            }
            self.progress = true;
        }
    }

    fn seat_accepted(&mut self, socket: OwnedFd, peer: IpAddr) {
        let Ok(session) = self.new_session() else { return };
        match self.shard.accepted(self.now, peer) {
            Some(key) => {
                if session.is_some() {
                    self.shard.await_greeting(self.now, key);
                }
                self.seat(key, socket, session);
            }
            None => refuse(socket, if session.is_some() { FULL_REFUSAL } else { REFUSAL }),
        }
    }

    /// What an event of a connection's socket asks for: at most one read.
    fn serve(&mut self, key: ConnKey, readiness: Readiness) {
        if readiness.write {
            self.on_connection(key, |shard, now, _| shard.writable(now, key));
        }
        if !readiness.read {
            if readiness.broken {
                self.break_off(key);
            }
            return;
        }
        if self.secure.is_some() {
            return self.read_secure(key, readiness.broken);
        }
        let mut readable = std::mem::take(&mut self.scratch.readable);
        match self.sockets.read(&self.poller, key, &mut readable) {
            Some(Read::Bytes(len)) => {
                let bytes = &mut readable[..len];
                self.on_connection(key, |shard, now, effects| shard.received(now, key, bytes, effects));
            }
            read => self.heed_no_bytes(key, read, readiness.broken),
        }
        self.scratch.readable = readable;
    }

    /// A read that brought no bytes: the peer's output may be at its end, or the connection.
    pub(super) fn heed_no_bytes(&mut self, key: ConnKey, read: Option<Read>, is_broken: bool) {
        match read {
            Some(Read::Ended) => {
                self.on_connection(key, |shard, now, effects| shard.ended(now, key, Ended::Eof, effects));
            }
            Some(Read::Broken) => self.break_off(key),
            Some(Read::Nothing) if is_broken => self.break_off(key),
            Some(Read::Nothing | Read::Bytes(_)) | None => {}
        }
    }

    /// What the shard has to say about its memory, once an episode.
    fn tell(&mut self) {
        match self.shard.take_notice() {
            Some(Notice::Began { room_bytes, room_bytes_max }) => tracing::warn!(
                shard = self.id.0,
                bytes = room_bytes,
                bytes_max = room_bytes_max,
                "clients read too slowly: the largest outboxes are shed; mail goes back into its mailbox, other clients \
                 are closed with 4008 (SERVER_OUTBOX_MEMORY_MB)"
            ),
            Some(Notice::Ended { shed }) => {
                tracing::info!(shard = self.id.0, shed, "outboxes are within their bound again")
            }
            None => {}
        }
    }

    fn take_mesh(&mut self) {
        if self.shard.saturated() || self.is_behind() {
            return;
        }
        for _ in 0..TURN_MESSAGES_MAX {
            let Some((from, envelope)) = self.mesh.take() else { return };
            self.progress = true;
            match envelope {
                Envelope::Message(message) => {
                    self.shard.message(self.now, from, message, &mut self.effects);
                    self.carry_out();
                }
                Envelope::Socket { socket, session, mut arrival } => {
                    let mut rest = std::mem::take(&mut arrival.rest);
                    let key = self.shard.arrived(self.now, arrival, &mut self.effects);
                    self.seat(key, socket, session);
                    if !rest.is_empty() {
                        self.on_connection(key, |shard, now, effects| shard.received(now, key, &mut rest, effects));
                    }
                    if self.secure.is_some() {
                        self.heed_closed(key);
                    }
                }
            }
        }
    }

    fn turn_guests(&mut self, which: impl Fn(&GuestSeat) -> bool) {
        let mut guests = std::mem::take(&mut self.guests);
        for seat in guests.iter_mut().filter(|seat| which(seat)) {
            let now = self.now;
            let had_turn = seat.turn(now, &mut ShardPort(self));
            if had_turn {
                self.progress = true;
                seat.watch(&self.poller);
            }
        }
        self.guests = guests;
    }

    /// What this turn asked of the store leaves with it, in one write per link. Before the outboxes: an answer is on its
    /// way while those are written.
    fn turn_store(&mut self) {
        if std::mem::take(&mut self.store_asked) {
            self.guests.iter_mut().for_each(GuestSeat::note_asked);
            self.turn_guests(GuestSeat::is_store);
        }
    }

    /// Fires what is due, and tells how long a turn was busy with heartbeats.
    fn tick(&mut self) {
        let (heartbeats, began_us) = (self.metrics().heartbeats.get(), clock::now().mono_us);
        self.shard.tick(self.now, &mut self.effects);
        self.carry_out();
        if self.metrics().heartbeats.get() != heartbeats {
            let ms = (clock::now().mono_us - began_us) as f64 / 1e3;
            self.metrics().heartbeat_duration_ms.observe(ms);
        }
    }

    fn take_cluster_events(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        let mut events = std::mem::take(&mut self.scratch.cluster_events);
        cluster.take_events(self.now, &mut events);
        self.progress |= !events.is_empty();
        for event in events.drain(..) {
            self.shard.cluster(self.now, event, &mut self.effects);
            self.carry_out();
        }
        self.scratch.cluster_events = events;
    }

    fn take_store_replies(&mut self) {
        let mut replies = std::mem::take(&mut self.scratch.replies);
        self.store.take_replies(self.now, &mut replies);
        self.progress |= !replies.is_empty();
        for (ticket, reply) in replies.drain(..) {
            self.shard.stored(self.now, ticket, reply, &mut self.effects);
            self.carry_out();
        }
        self.scratch.replies = replies;
    }

    /// Writes once to each connection that has something to write, up to [`TURN_WRITES_MAX`] of them.
    fn flush(&mut self) {
        let dirty = self.shard.dirty_len();
        // What is written and has more comes again; the next turn looks at its input first.
        let chances = dirty.min(TURN_WRITES_MAX);
        self.scratch.unwritten = dirty - chances;
        if dirty == 0 {
            return;
        }
        self.progress = true;
        // The turn may have been long, and what is measured here is when bytes went out.
        self.now = clock::now();
        let (mut writes, mut bytes_sent) = (0, 0);
        for _ in 0..chances {
            let Some(key) = self.shard.next_dirty() else { break };
            if let Some(len) = self.write(key) {
                writes += 1;
                bytes_sent += len as u64;
            }
        }
        self.shard.flushed_all();
        self.metrics().writes.add(writes);
        self.metrics().bytes_sent.add(bytes_sent);
    }

    /// Whether so many connections wait to be written to that no more work is taken from other shards and guests.
    fn is_behind(&self) -> bool {
        self.scratch.unwritten > WRITES_WAITING_MAX
    }

    /// One write to one connection: how many bytes it took, `None` when nothing was tried.
    fn write(&mut self, key: ConnKey) -> Option<usize> {
        if self.secure.is_some() {
            return self.write_secure(key);
        }
        let now = self.now;
        let Reactor { shard, sockets, poller, effects, .. } = self;
        let written = contain(shard, now, key, effects, |shard, _| match shard.output(now, key) {
            [] => Some((Written::Bytes(0), 0)),
            bytes => sockets.write(poller, key, bytes).map(|written| (written, bytes.len())),
        });
        match written {
            Some(Some((Written::Bytes(sent), len))) => {
                let blocked = sent < len;
                self.on_connection(key, |shard, now, effects| shard.written(now, key, sent, blocked, effects));
                (len > 0).then_some(sent)
            }
            Some(Some((Written::Broken, _))) => {
                self.break_off(key);
                Some(0)
            }
            // Closed, or broken and told: the shard knows.
            Some(None) => None,
            None => {
                self.forget(key);
                None
            }
        }
    }

    fn heed_stop(&mut self) {
        if self.leaving.is_some() || !self.stop.is_raised() {
            return;
        }
        self.progress = true;
        self.leaving = Some(Leaving::new(self.now.mono_us));
        self.listener = None;
        self.guests.iter_mut().for_each(GuestSeat::stop);
        self.shard.stop(self.now, &mut self.effects);
        self.carry_out();
    }

    fn is_finished(&mut self) -> bool {
        let Some(leaving) = &mut self.leaving else { return false };
        let guests_owe = self.guests.iter().any(GuestSeat::owes);
        match leaving.look(self.now.mono_us, &self.stop, self.shard.stopped(), guests_owe) {
            Verdict::Stay => false,
            Verdict::Done => true,
            Verdict::Late => {
                tracing::warn!(shard = self.id.0, sockets = self.sockets.open(), "stopped before all had gone");
                true
            }
        }
    }

    /// When the shard must be awake at the latest.
    fn next_deadline_us(&self) -> Option<u64> {
        let guests = self.guests.iter().filter_map(GuestSeat::wake_at_us).min();
        let listener = self.listener.as_ref().and_then(Listener::wake_at_us);
        let leaving = self.leaving.as_ref().map(Leaving::next_deadline_us);
        [self.shard.next_deadline_us(), guests, listener, leaving].into_iter().flatten().min()
    }

    pub(super) fn metrics(&self) -> &ShardMetrics {
        &self.node_metrics.shards[self.id.index()]
    }
}

/// A guest's door to the shard.
struct ShardPort<'a>(&'a mut Reactor);

impl Port for ShardPort<'_> {
    fn publish(&mut self, submission: Submission) {
        let Reactor { shard, now, effects, .. } = &mut *self.0;
        shard.publish(*now, submission, effects);
        self.0.carry_out();
    }

    fn congested(&self) -> bool {
        self.0.shard.holds_guests_back() || self.0.is_behind()
    }
}
