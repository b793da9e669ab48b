//! Several nodes and the Redis between them: it keeps the order of what it sends to one receiver, is late, and loses what was
//! on its way over a link that breaks.
mod admission;
mod claims;
mod live;
mod mail;
mod sessions;
mod tokens;
mod weather;

use crate::client::ClientId;
use crate::store::{Kept, SharedTemplates};
use crate::world::World;
use protocol::auth::revocation::Revocation;
use protocol::cluster::wire::{Bundle, Hello, Parcel, ParcelKind};
use protocol::cluster::{Admission, AdmissionRequest, ClusterEvent, ClusterRequest, Session, Topic};
use protocol::ids::TenantId;
use shards::config::{ClusterRules, ShardConfig};
use shards::key::ShardId;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// One node, and its end of the links to Redis.
pub(crate) struct Node {
    pub(crate) world: World,
    id: Box<str>,
    /// What its bridge was asked to listen to.
    watched: HashSet<Topic>,
    /// What Redis sends to it: answers to commands, and what is published.
    answers: VecDeque<ClusterEvent>,
    published: VecDeque<ClusterEvent>,
    /// Its links are broken.
    pub(crate) is_cut: bool,
    /// Nothing comes to it from Redis: no messages, no answers.
    pub(crate) is_deaf: bool,
    /// Nothing that it says comes to Redis.
    pub(crate) is_mute: bool,
    /// The connections it was told of.
    pub(crate) sessions: BTreeMap<uuid::Uuid, Session>,
    pub(crate) pages: Vec<Vec<Session>>,
    /// The last hint of each user that could not be sent; the bridge sends it when the links are back.
    unsent: BTreeMap<Topic, Parcel>,
}

/// How long Redis remembers who was admitted.
const ADMITTED_US: u64 = 60_000_000;

fn admission_keys(tenant: &TenantId, user: &str) -> [String; 2] {
    [format!("{tenant}:{user}"), tenant.to_string()]
}

fn configure(config: &mut ShardConfig, id: &str, bridge: ShardId, change: impl Fn(&mut ShardConfig)) {
    config.server_id = id.into();
    config.connections_per_user_max = 0;
    config.cluster = Some(ClusterRules { bridge, shares_mail: true });
    change(config);
}

impl Node {
    fn new(id: Box<str>, world: World) -> Node {
        Node {
            world,
            id,
            watched: HashSet::new(),
            answers: VecDeque::new(),
            published: VecDeque::new(),
            is_cut: false,
            is_deaf: false,
            is_mute: false,
            unsent: BTreeMap::new(),
            sessions: BTreeMap::new(),
            pages: Vec::new(),
        }
    }
}

/// All of them.
pub(crate) struct Cluster {
    pub(crate) seed: u64,
    pub(crate) rng: fastrand::Rng,
    pub(crate) nodes: Vec<Node>,
    /// Of a hundred chances to do something Redis lets so many go.
    pub(crate) slowness_percent: u8,
    /// The revocations that Redis keeps.
    revocations: Vec<Arc<Revocation>>,
    /// Connections that Redis found room for, by user and by tenant, and until when it remembers them.
    admitted: BTreeMap<String, BTreeMap<uuid::Uuid, u64>>,
}

impl Cluster {
    /// So many nodes, each with one to three shards.
    pub(crate) fn new(seed: u64, nodes: usize, change: impl Fn(&mut ShardConfig)) -> Cluster {
        let mut rng = fastrand::Rng::with_seed(seed);
        let nodes = (0..nodes)
            .map(|n| {
                let (shards, id) = (rng.usize(1..=3), format!("n{n}"));
                let bridge = ShardId(rng.u8(0..shards as u8));
                let world = World::with_config(rng.u64(..), shards, |config| configure(config, &id, bridge, &change));
                Node::new(id.into(), world)
            })
            .collect();
        let (revocations, admitted) = (Vec::new(), BTreeMap::new());
        let mut cluster = Cluster { seed, rng, nodes, slowness_percent: 0, revocations, admitted };
        cluster.share_stores();
        cluster
    }

    /// One server keeps the mail of all nodes.
    fn share_stores(&mut self) {
        let (kept, templates) = (Rc::new(RefCell::new(Kept::default())), SharedTemplates::default());
        for store in self.nodes.iter_mut().flat_map(|node| &mut node.world.stores) {
            (store.kept, store.templates) = (Rc::clone(&kept), Rc::clone(&templates));
            store.early_percent = 40;
        }
    }

    /// Everybody knows of everybody.
    pub(crate) fn meet(&mut self) {
        let hello = |node: &Node| Hello {
            server_id: node.id.clone(),
            connections: 0,
            users: 0,
            started_unix_ms: 0,
            reading_ms: node.world.reading_ms(),
            first_read: None,
            version: "1".into(),
        };
        let all: Arc<[Hello]> = self.nodes.iter().map(hello).collect();
        let everybody: Vec<usize> = (0..self.nodes.len()).collect();
        for at in 0..self.nodes.len() {
            let is_first = claims::is_first(self, at, &everybody);
            let reads_since_us = self.nodes[at].world.reads_since_us;
            let members = ClusterEvent::Members { all: Arc::clone(&all), reads_since_us, is_first };
            self.nodes[at].answers.push_back(members);
        }
        self.settle();
    }

    /// The bridge of a node tells it something.
    pub(crate) fn tell(&mut self, at: usize, event: ClusterEvent) {
        self.nodes[at].answers.push_back(event);
        self.settle();
    }

    /// One of the nodes.
    pub(crate) fn any(&mut self) -> usize {
        self.rng.usize(0..self.nodes.len())
    }

    /// Everything a client of a node has heard has these words in it.
    pub(crate) fn has_heard(&self, node: usize, client: ClientId, words: &str) -> bool {
        self.nodes[node].world.clients[client].has_heard(words.as_bytes())
    }

    /// Until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 1_000_000, "seed {}: the cluster does not come to rest", self.seed);
            if !self.step() {
                break;
            }
        }
        for node in &self.nodes {
            node.world.shards.iter().for_each(shards::shard::Shard::check);
        }
    }

    /// Until something is so.
    pub(crate) fn run_until(&mut self, what: &str, is_so: impl Fn(&Cluster) -> bool) {
        for round in 0.. {
            assert!(round < 20_000, "seed {}: never {what}", self.seed);
            if is_so(self) {
                return;
            }
            self.step();
        }
    }

    /// Lets time pass, settled at every moment.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(250) {
            self.nodes.iter_mut().for_each(|node| node.world.pass_ms_unsettled(250));
            self.settle();
        }
    }

    /// A node's process dies and another begins under its name: its clients are gone, and what was on its way. What it had
    /// asked of the store may still be done.
    pub(crate) fn replace(&mut self, at: usize, change: impl Fn(&mut ShardConfig)) {
        let node = self.nodes.remove(at);
        let (id, bridge) = (node.id.clone(), node.world.bridge.expect("a node of a cluster"));
        let world = node.world.after(|config| configure(config, &id, ShardId(bridge as u8), &change));
        self.nodes.insert(at, Node::new(id, world));
    }

    /// A node's links break, and what was on its way is lost.
    pub(crate) fn cut(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.is_cut = true;
        node.published.clear();
    }

    /// They are back: the bridge listens to everything again, and says so.
    pub(crate) fn heal(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if std::mem::take(&mut node.is_cut) {
            node.answers.push_back(ClusterEvent::Resumed);
            node.answers.push_back(ClusterEvent::Revoked(self.revocations.clone()));
            for (topic, parcel) in std::mem::take(&mut node.unsent) {
                self.publish(at, &topic, &parcel);
            }
        }
    }

    /// Most often it stays as it is; now and then everything turns slow, or a node's links break or are back.
    pub(crate) fn change_weather(&mut self) {
        match self.rng.u8(0..8) {
            0 => self.slowness_percent = self.rng.u8(0..90),
            1 => {
                let node = self.any();
                self.cut(node);
            }
            2 | 3 => {
                let node = self.any();
                self.heal(node);
            }
            _ => {}
        }
    }

    /// Nothing is slow, no store fails, all links are back.
    pub(crate) fn clear_weather(&mut self) {
        self.slowness_percent = 0;
        for store in self.nodes.iter_mut().flat_map(|node| &mut node.world.stores) {
            store.failures_percent = 0;
        }
        self.settle();
        (0..self.nodes.len()).for_each(|node| self.heal(node));
    }

    /// One round on every node and of Redis. False when nothing was left to do.
    pub(crate) fn step(&mut self) -> bool {
        let mut moved = false;
        for at in 0..self.nodes.len() {
            moved |= self.nodes[at].world.step();
            let requests = if self.rng.u8(0..100) < self.slowness_percent { 0 } else { self.rng.usize(0..6) };
            for _ in 0..requests {
                let Some(request) = self.nodes[at].world.to_bridge.pop_front() else { break };
                moved = true;
                self.obey(at, request);
            }
            for _ in 0..self.rng.usize(0..6) {
                if self.rng.u8(0..100) < self.slowness_percent {
                    break;
                }
                let node = &mut self.nodes[at];
                let queue = if self.rng.bool() { &mut node.answers } else { &mut node.published };
                let Some(event) = queue.pop_front() else { continue };
                moved = true;
                let bridge = node.world.bridge.expect("a node of a cluster");
                node.world.call(bridge, |shard, now, effects| shard.cluster(now, event, effects));
            }
            let node = &self.nodes[at];
            moved |= !(node.world.to_bridge.is_empty() && node.answers.is_empty() && node.published.is_empty());
        }
        // One clock for all.
        let now_us = self.nodes.iter().map(|node| node.world.now_us).max().unwrap_or(0);
        self.nodes.iter_mut().for_each(|node| node.world.now_us = now_us);
        moved
    }

    fn obey(&mut self, at: usize, request: ClusterRequest) {
        match request {
            ClusterRequest::Watch { topic, shard, serial } => {
                let node = &mut self.nodes[at];
                assert!(node.watched.insert(topic.clone()), "seed {}: {topic:?} is watched twice", self.seed);
                node.answers.push_back(ClusterEvent::Watching { topic, shard, serial });
            }
            ClusterRequest::Unwatch { topic } => {
                assert!(self.nodes[at].watched.remove(&topic), "seed {}: {topic:?} is not watched", self.seed);
            }
            ClusterRequest::Send { topic, parcel } => self.publish(at, &topic, &parcel),
            ClusterRequest::Publish(publication) => {
                let (from_server, now) = (self.nodes[at].id.clone(), self.nodes[at].world.now());
                let mut bundle = Bundle::new(&from_server);
                assert!(bundle.push(now, &publication), "seed {}: what is published here is short", self.seed);
                let Ok(ParcelKind::Bundle(all)) = bundle.send(Parcel::decode).map(|parcel| parcel.kind) else {
                    panic!("seed {}: a bundle is read as one", self.seed);
                };
                for one in all {
                    let topic = Topic::of(&one.published.tenant, &one.target);
                    let parcel = Parcel { from_server: from_server.clone(), to_server: None, kind: one.into() };
                    self.publish(at, &topic, &parcel);
                }
            }
            ClusterRequest::SessionChanged(session) => {
                self.nodes[at].sessions.insert(session.connection.0, *session);
            }
            ClusterRequest::Admit(request) => self.admit(at, &request),
            ClusterRequest::SessionEnded { session, is_last } => {
                if !self.nodes[at].is_cut {
                    for key in admission_keys(&session.tenant, &session.user) {
                        self.admitted.entry(key).or_default().remove(&session.connection.0);
                    }
                }
                let sessions = &mut self.nodes[at].sessions;
                sessions.remove(&session.connection.0);
                let is_there = sessions.values().any(|other| other.user == session.user);
                // Who has just come may not be told yet, who has is.
                assert!(!(is_last && is_there), "seed {}: {session:?} is not the last", self.seed);
            }
            ClusterRequest::SessionPage(page) => {
                for session in page.iter().filter(|_| !self.nodes[at].is_cut) {
                    let until_us = self.nodes[at].world.now_us + ADMITTED_US;
                    for key in admission_keys(&session.tenant, &session.user) {
                        self.admitted.entry(key).or_default().insert(session.connection.0, until_us);
                    }
                }
                self.nodes[at].pages.push(page);
            }
        }
    }

    /// What the script does.
    fn admit(&mut self, at: usize, request: &AdmissionRequest) {
        let AdmissionRequest { ticket, connection, tenant, user, connections_max, connections_per_user_max } = request;
        let now_us = self.nodes[at].world.now_us;
        let [of_user, of_tenant] = admission_keys(tenant, user);
        let mut admission = if self.nodes[at].is_cut { Admission::Unknown } else { Admission::Granted };
        for (key, max, full) in [
            (&of_tenant, *connections_max, Admission::TenantIsFull as fn(u64) -> Admission),
            (&of_user, *connections_per_user_max, Admission::UserIsFull),
        ] {
            let admitted = self.admitted.entry(key.clone()).or_default();
            admitted.retain(|_, until_us| *until_us > now_us);
            if max != 0 && admitted.len() >= max && admission != Admission::Unknown {
                admission = full(admitted.len() as u64);
            }
        }
        if admission == Admission::Granted {
            for key in [of_user, of_tenant] {
                self.admitted.entry(key).or_default().insert(connection.0, now_us + ADMITTED_US);
            }
        }
        self.nodes[at].answers.push_back(ClusterEvent::Admitted { ticket: *ticket, admission });
    }

    fn publish(&mut self, at: usize, topic: &Topic, parcel: &Parcel) {
        let mut bytes = Vec::new();
        parcel.encode(&mut bytes).expect("a parcel that may be sent");
        let parcel = Parcel::decode(&bytes).expect("what was sent can be read");
        let (ticket, mut nodes) = (parcel.ticket(), 0);
        let Node { is_cut, is_deaf, is_mute, .. } = self.nodes[at];
        // Of what was not answered nobody knows whether it is there.
        if (is_cut || is_deaf || is_mute) && matches!(parcel.kind, ParcelKind::Hint { .. }) {
            self.nodes[at].unsent.insert(topic.clone(), parcel.clone());
        }
        if !is_cut && !is_mute {
            if let ParcelKind::Revoked { revocation, .. } = &parcel.kind {
                self.revocations.push(Arc::clone(revocation));
            }
            for other in 0..self.nodes.len() {
                let node = &mut self.nodes[other];
                let listens = match topic {
                    Topic::Everybody => true,
                    Topic::Node(id) => *id == node.id,
                    topic => node.watched.contains(topic),
                };
                if listens && !node.is_cut {
                    nodes += 1;
                    if node.is_deaf {
                        continue;
                    }
                    if other == at {
                        // What comes back to who has sent it is the receipt of the node itself.
                        node.published.extend(ticket.map(|ticket| match parcel.kind {
                            ParcelKind::Question { .. } => ClusterEvent::Answer { ticket, sessions: Vec::new() },
                            _ => ClusterEvent::Receipt { ticket, receipt: Default::default() },
                        }));
                        continue;
                    }
                    assert!(parcel.is_for(&node.id), "seed {}: {parcel:?} at {}", self.seed, node.id);
                    node.published.push_back(match parcel.kind.clone() {
                        ParcelKind::Receipt { ticket, receipt } => ClusterEvent::Receipt { ticket, receipt },
                        ParcelKind::Answer { ticket, sessions, .. } => ClusterEvent::Answer { ticket, sessions },
                        _ => ClusterEvent::Parcel(Box::new(parcel.clone())),
                    });
                }
            }
        }
        if let Some(ticket) = ticket {
            let nodes = (!is_cut && !is_deaf && !is_mute).then_some(nodes);
            self.nodes[at].answers.push_back(ClusterEvent::Sent { ticket, nodes });
        }
    }
}
