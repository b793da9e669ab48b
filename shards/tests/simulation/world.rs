//! The world: N shards, the lanes between them, and clients at the ends of imaginary sockets. Everything that may happen
//! next is drawn from the seed: which lane moves, how input is cut into pieces, how much a socket takes.
use crate::client::{Client, ClientId};
use crate::store::{SharedTemplates, SimStore};
use protocol::auth::token::{Algorithm, MintClaims, Verifier, VerifierConfig, mint_hs256};
use protocol::clock::Now;
use protocol::cluster::ClusterRequest;
use protocol::cluster::wire::Claim;
use protocol::http::cors::Cors;
use protocol::http::route::ROUTE_LABELS;
use protocol::ids::{NotificationId, TenantId};
use protocol::json;
use protocol::notification::{Content, Priority, Source, Target};
use protocol::stream::Places;
use shards::config::ShardConfig;
use shards::effect::Effect;
use shards::guest::Submission;
use shards::host::Host;
use shards::key::{ConnKey, ShardId};
use shards::mesh::message::Message;
use shards::metrics::{NodeMetrics, ShardMetrics};
use shards::shard::{Arrival, Ended, Shard};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const SECRET: &[u8] = b"a secret of the simulated world, 32+";
const WALL_START_NS: u64 = 1_767_323_045_000_000_000;

/// What travels between two shards.
enum Parcel {
    Message(Message),
    Socket(ClientId, Box<Arrival>),
}

/// Pages are not under test here.
struct NoPages;

impl Host for NoPages {
    fn health(&self, _: Now) -> Vec<u8> {
        b"{}".to_vec()
    }
    fn stats(&self, _: Now) -> Vec<u8> {
        b"{}".to_vec()
    }
    fn metrics(&self, _: Now) -> Vec<u8> {
        Vec::new()
    }
    fn cluster_status(&self, _: Now) -> Vec<u8> {
        b"{}".to_vec()
    }
}

/// One node and everybody who talks to it.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) rng: fastrand::Rng,
    pub(crate) shards: Vec<Shard>,
    pub(crate) metrics: Arc<NodeMetrics>,
    pub(crate) clients: Vec<Client>,
    users: Vec<(ClientId, String)>,
    /// What each shard asks of the store.
    pub(crate) stores: Vec<SimStore>,
    /// Where each notification stood that waited for a client, when something was written to it.
    pub(crate) seen: BTreeMap<ClientId, Vec<(NotificationId, Places)>>,
    lanes: Vec<Vec<VecDeque<Parcel>>>,
    sockets: HashMap<(u8, ConnKey), ClientId>,
    /// Connections that have something to write, by shard.
    dirty: Vec<VecDeque<ConnKey>>,
    /// Whether every call is followed by a look at all tables.
    pub(crate) checks: bool,
    /// Whether sockets take less than they are given, now and then.
    pub(crate) cuts: bool,
    /// Whether what waits is noted in `seen` before each write.
    pub(crate) watches: bool,
    /// Which shard has the bridge to other nodes, and what it is asked.
    pub(crate) bridge: Option<usize>,
    pub(crate) to_bridge: VecDeque<ClusterRequest>,
    pub(crate) now_us: u64,
}

impl World {
    /// A node of `shards` with everything at its defaults.
    pub(crate) fn new(seed: u64, shards: usize) -> World {
        World::with_config(seed, shards, |_| {})
    }

    /// As [`World::new`], with some settings changed.
    pub(crate) fn with_config(seed: u64, shards: usize, change: impl FnOnce(&mut ShardConfig)) -> World {
        let verifier = VerifierConfig {
            algorithm: Algorithm::Hs256,
            secret: Some(SECRET),
            public_key_pem: None,
            issuer: None,
            audience: None,
        };
        let mut config = ShardConfig {
            server_id: "world".into(),
            production: false,
            api_key: None,
            verifier: Verifier::new(&verifier).expect("the secret is not empty"),
            cors: Cors::any(),
            tenancy: false,
            heartbeat_interval_ms: 30_000,
            connection_timeout_ms: 120_000,
            connections_max: 10_000,
            sockets_max: 20_000,
            outbox_bytes_max: usize::MAX,
            connections_per_user_max: 5,
            subscriptions_max: 50,
            templates_kept: false,
            queue: None,
            ack: None,
            cluster: None,
        };
        change(&mut config);
        let config = Arc::new(config);
        let metrics = Arc::new(NodeMetrics::new(shards, ROUTE_LABELS.len()));
        let mut rng = fastrand::Rng::with_seed(seed);
        let templates = SharedTemplates::default();
        World {
            seed,
            shards: (0..shards)
                .map(|id| {
                    let (config, metrics) = (Arc::clone(&config), Arc::clone(&metrics));
                    Shard::new(ShardId(id as u8), shards, config, metrics, Arc::new(NoPages), rng.u64(..))
                })
                .collect(),
            metrics,
            clients: Vec::new(),
            users: Vec::new(),
            stores: (0..shards).map(|_| SimStore::of(&templates)).collect(),
            seen: BTreeMap::new(),
            lanes: (0..shards).map(|_| (0..shards).map(|_| VecDeque::new()).collect()).collect(),
            sockets: HashMap::new(),
            dirty: (0..shards).map(|_| VecDeque::new()).collect(),
            checks: false,
            cuts: true,
            watches: false,
            bridge: config.cluster.map(|rules| rules.bridge.index()),
            to_bridge: VecDeque::new(),
            now_us: 1_000_000,
            rng,
        }
    }

    /// The next process of a node that has ended, on the same stores.
    pub(crate) fn after(mut self, change: impl FnOnce(&mut ShardConfig)) -> World {
        let mut next = World::with_config(self.seed, self.shards.len(), change);
        let unix_ns = self.now().unix_ns;
        self.stores.iter_mut().for_each(|store| store.hang_up(&mut self.rng, unix_ns));
        (next.now_us, next.stores) = (self.now_us + 1_000_000, self.stores);
        next
    }

    /// Tells every shard to stop.
    pub(crate) fn stop(&mut self) {
        for shard in 0..self.shards.len() {
            self.call(shard, |shard, now, effects| shard.stop(now, effects));
        }
    }

    /// Whether the rim would end the process now.
    pub(crate) fn has_stopped(&self) -> bool {
        self.shards.iter().all(Shard::stopped) && self.lanes.iter().flatten().all(VecDeque::is_empty)
    }

    /// A store's server ends and begins anew.
    pub(crate) fn restart_store(&mut self, at: usize, forgets: bool) {
        let unix_ns = self.now().unix_ns;
        let World { stores, rng, .. } = self;
        stores[at].restart(rng, unix_ns, forgets);
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono_us: self.now_us, unix_ns: WALL_START_NS + self.now_us * 1_000 }
    }

    /// A token for a user that is good for an hour from now.
    pub(crate) fn token(&self, user: &str, roles: &[&str], tenant: Option<&str>) -> String {
        let claims = MintClaims {
            sub: user.into(),
            exp: self.now().unix_seconds() + 3_600,
            iat: self.now().unix_seconds(),
            roles: roles.iter().map(|role| (*role).into()).collect(),
            tenant_id: tenant.map(Into::into),
            ..MintClaims::default()
        };
        mint_hs256(SECRET, &claims)
    }

    /// Opens a socket to a shard drawn from the seed.
    pub(crate) fn dial(&mut self) -> ClientId {
        let shard = self.rng.usize(0..self.shards.len());
        self.dial_to(shard)
    }

    /// Opens a socket to this shard.
    pub(crate) fn dial_to(&mut self, shard: usize) -> ClientId {
        let now = self.now();
        let id = self.clients.len();
        let key = self.shards[shard].accepted(now, IpAddr::V4(Ipv4Addr::LOCALHOST)).expect("the node has room");
        self.clients.push(Client::new(shard, key));
        self.sockets.insert((shard as u8, key), id);
        id
    }

    /// Dials and asks for a WebSocket.
    pub(crate) fn websocket(&mut self, user: &str) -> ClientId {
        let token = self.token(user, &[], None);
        let id = self.websocket_as(&token);
        self.users.push((id, user.to_owned()));
        id
    }

    pub(crate) fn websocket_as(&mut self, token: &str) -> ClientId {
        let id = self.dial();
        self.clients[id].send(format!(
            "GET /ws?token={token} HTTP/1.1\r\nhost: world\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        id
    }

    /// Dials and asks for an SSE stream.
    pub(crate) fn sse(&mut self, user: &str, channels: &str) -> ClientId {
        let token = self.token(user, &[], None);
        let id = self.dial();
        self.users.push((id, user.to_owned()));
        self.clients[id].send(format!(
            "GET /sse?channels={channels} HTTP/1.1\r\nhost: world\r\nauthorization: Bearer {token}\r\n\r\n"
        ));
        id
    }

    /// Sends a POST on a connection that is kept.
    pub(crate) fn post(&mut self, client: ClientId, path: &str, body: &str) {
        let len = body.len();
        self.clients[client].send(format!(
            "POST {path} HTTP/1.1\r\nhost: world\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
        ));
    }

    pub(crate) fn get(&mut self, client: ClientId, path: &str) {
        self.clients[client].send(format!("GET {path} HTTP/1.1\r\nhost: world\r\n\r\n"));
    }

    /// Lets time pass; timers fire.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(25) {
            self.now_us += 25_000;
            for shard in 0..self.shards.len() {
                self.call(shard, |shard, now, effects| shard.tick(now, effects));
            }
            self.come_to_rest();
        }
        self.shards.iter().for_each(Shard::check);
    }

    /// Sends a POST of a tenant.
    pub(crate) fn post_as(&mut self, client: ClientId, tenant: &str, path: &str, body: &str) {
        let len = body.len();
        self.clients[client].send(format!(
            "POST {path} HTTP/1.1\r\nhost: world\r\nx-tenant-id: {tenant}\r\ncontent-type: application/json\r\n\
             content-length: {len}\r\n\r\n{body}"
        ));
    }

    /// One shard's turn at its fan-outs; nothing else moves.
    pub(crate) fn turn(&mut self, shard: usize) {
        self.call(shard, |shard, now, effects| {
            shard.work(now, effects);
        });
    }

    /// One write to every connection of a shard that has something; nothing else moves.
    pub(crate) fn flush_all(&mut self, at: usize) {
        self.has_output(at);
        for key in std::mem::take(&mut self.dirty[at]) {
            self.write_whole(at, key);
        }
    }

    /// A publish to a user that comes over a link: nobody is answered.
    pub(crate) fn submit(&mut self, user: &str, n: usize) {
        self.submit_to(TenantId::default_tenant().as_str(), Target::User(user.into()), n);
    }

    /// A publish that comes over a link.
    pub(crate) fn submit_to(&mut self, tenant: &str, target: Target, n: usize) {
        let claimed = match &target {
            Target::User(user) => user.clone(),
            _ => "".into(),
        };
        let submission = Submission {
            tenant: TenantId::parse(tenant).expect("a tenant's name"),
            target,
            content: Content {
                event_type: "e".into(),
                payload: json::compact(&n.to_string(), 0).expect("a number is flat"),
                priority: Priority::Normal,
                ttl: None,
                correlation_id: None,
                audience: None,
            },
            source: Source::Redis("c".into()),
            claim: self.bridge.map(|_| Claim::of(b"c", claimed.as_bytes(), n as u32)),
        };
        self.call(0, |shard, now, effects| shard.publish(now, submission, effects));
    }

    /// One round of whatever may happen.
    pub(crate) fn step_once(&mut self) -> bool {
        self.step()
    }

    /// Every client that ever connected as this user.
    pub(crate) fn user_clients(&self, user: &str) -> Vec<ClientId> {
        self.users.iter().filter(|(_, of)| of == user).map(|(id, _)| *id).collect()
    }

    /// Lets time pass while everything is under way.
    pub(crate) fn pass_ms_unsettled(&mut self, ms: u64) {
        self.now_us += ms * 1_000;
        for shard in 0..self.shards.len() {
            self.call(shard, |shard, now, effects| shard.tick(now, effects));
        }
    }

    /// Runs until nothing moves any more, in an order drawn from the seed.
    pub(crate) fn settle(&mut self) {
        self.come_to_rest();
        self.shards.iter().for_each(Shard::check);
    }

    fn come_to_rest(&mut self) {
        for round in 0.. {
            assert!(round < 1_000_000, "seed {}: the world does not come to rest", self.seed);
            if !self.step() {
                break;
            }
        }
    }

    /// So many rounds, or until nothing moves.
    pub(crate) fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            if !self.step() {
                return;
            }
        }
    }

    /// One round: every source of events gets a chance, in random order. False when nothing was left to do.
    fn step(&mut self) -> bool {
        let mut moved = false;
        self.now_us += self.rng.u64(0..200);
        let is_there = |id: &ClientId| self.clients[*id].place.is_some();
        let mut clients: Vec<ClientId> = (0..self.clients.len()).filter(is_there).collect();
        self.rng.shuffle(&mut clients);
        for id in clients {
            moved |= self.move_input(id);
        }
        let count = self.shards.len();
        let mut lanes: Vec<(usize, usize)> = (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).collect();
        self.rng.shuffle(&mut lanes);
        for (from, to) in lanes {
            // A lane may stand still for a while, but keeps its order.
            let parcels = self.rng.usize(0..4);
            for _ in 0..parcels {
                let Some(parcel) = self.lanes[from][to].pop_front() else { break };
                moved = true;
                self.deliver(from, to, parcel);
            }
        }
        for shard in 0..count {
            if self.dirty[shard].is_empty() {
                self.call(shard, |shard, now, effects| moved |= shard.work(now, effects));
            }
            moved |= self.flush(shard);
            let unix_ns = self.now().unix_ns;
            if let Some((ticket, reply)) = self.stores[shard].answer(&mut self.rng, unix_ns) {
                self.call(shard, |shard, now, effects| shard.stored(now, ticket, reply, effects));
                moved = true;
            }
            moved |= !self.stores[shard].is_idle();
        }
        moved || self.lanes.iter().flatten().any(|lane| !lane.is_empty())
    }

    /// Brings everything a client has said to its shard in one read; nothing else moves.
    pub(crate) fn feed(&mut self, id: ClientId) {
        let (shard, key) = self.clients[id].place.expect("a client that is there");
        let mut bytes = std::mem::take(&mut self.clients[id].to_server);
        self.call(shard, |shard, now, effects| shard.received(now, key, &mut bytes, effects));
    }

    /// Takes the next parcel of one lane; nothing else moves.
    pub(crate) fn carry(&mut self, from: usize, to: usize) {
        let parcel = self.lanes[from][to].pop_front().expect("a parcel on the lane");
        self.deliver(from, to, parcel);
    }

    /// Whether a shard has something to write.
    pub(crate) fn has_output(&mut self, at: usize) -> bool {
        let mut newly_dirty = Vec::new();
        self.shards[at].take_dirty(&mut newly_dirty);
        self.dirty[at].extend(newly_dirty);
        !self.dirty[at].is_empty()
    }

    fn move_input(&mut self, id: ClientId) -> bool {
        let client = &mut self.clients[id];
        let Some((shard, key)) = client.place else { return false };
        if client.reset {
            self.call(shard, |shard, now, effects| shard.ended(now, key, Ended::Reset, effects));
            return true;
        }
        if client.is_deaf {
            return false;
        }
        if client.to_server.is_empty() {
            if client.hang_up && !client.said_eof {
                client.said_eof = true;
                self.call(shard, |shard, now, effects| shard.ended(now, key, Ended::Eof, effects));
                return true;
            }
            return false;
        }
        let len = self.rng.usize(1..=client.to_server.len());
        let mut bytes: Vec<u8> = client.to_server.drain(..len).collect();
        self.call(shard, |shard, now, effects| shard.received(now, key, &mut bytes, effects));
        true
    }

    fn deliver(&mut self, from: usize, to: usize, parcel: Parcel) {
        match parcel {
            Parcel::Message(message) => {
                self.call(to, |shard, now, effects| shard.message(now, ShardId(from as u8), message, effects));
            }
            Parcel::Socket(id, mut arrival) => {
                let mut effects = Vec::new();
                let (now, mut rest) = (self.now(), std::mem::take(&mut arrival.rest));
                let key = self.shards[to].arrived(now, arrival, &mut effects);
                self.sockets.insert((to as u8, key), id);
                self.clients[id].place = Some((to, key));
                self.carry_out(to, effects);
                if !rest.is_empty() {
                    self.call(to, |shard, now, effects| shard.received(now, key, &mut rest, effects));
                }
            }
        }
    }

    /// Writes what is dirty; sockets take as much as the seed says, and not every turn comes to all of them.
    fn flush(&mut self, at: usize) -> bool {
        // Sockets that were full take bytes again at some later time.
        let takes = |client: &Client| client.blocked && client.reads && client.credit != Some(0);
        for id in 0..self.clients.len() {
            let client = &mut self.clients[id];
            if let Some((shard, key)) = client.place
                && shard == at
                && takes(client)
            {
                client.blocked = false;
                self.call(at, |shard, now, _| shard.writable(now, key));
            }
        }
        let moved = self.has_output(at);
        let writes = if self.rng.u8(0..4) == 0 { self.rng.usize(1..4) } else { self.dirty[at].len() };
        for _ in 0..writes {
            let Some(key) = self.dirty[at].pop_front() else { break };
            self.write(at, key);
        }
        moved
    }

    fn write(&mut self, at: usize, key: ConnKey) {
        let now = self.now();
        let shown = self.shards[at].output(now, key).to_vec();
        let Some(id) = self.sockets.get(&(at as u8, key)).copied() else { return };
        if self.watches {
            let waiting = self.shards[at].waiting(key);
            let seen = self.seen.entry(id).or_default();
            waiting.into_iter().for_each(|place| {
                if !seen.contains(&place) {
                    seen.push(place)
                }
            });
        }
        let picks_little = self.cuts && self.rng.u8(0..8) == 0;
        let little = self.rng.usize(0..=shown.len());
        let client = &mut self.clients[id];
        if client.reset && !shown.is_empty() {
            return self.call(at, |shard, now, effects| shard.ended(now, key, Ended::Reset, effects));
        }
        let mut takes = if picks_little { little } else { shown.len() };
        takes = takes.min(client.credit.unwrap_or(usize::MAX)).min(if client.reads { usize::MAX } else { 0 });
        client.credit = client.credit.map(|credit| credit - takes);
        client.from_server.extend_from_slice(&shown[..takes]);
        let blocked = takes < shown.len();
        client.blocked = blocked;
        self.call(at, |shard, now, effects| shard.written(now, key, takes, blocked, effects));
    }

    /// As [`World::write`], to a socket that takes all it may.
    fn write_whole(&mut self, at: usize, key: ConnKey) {
        self.cuts = false;
        self.write(at, key);
        self.cuts = true;
    }

    pub(crate) fn call(&mut self, at: usize, act: impl FnOnce(&mut Shard, Now, &mut Vec<Effect>)) {
        let (mut effects, now) = (Vec::new(), self.now());
        act(&mut self.shards[at], now, &mut effects);
        if self.checks {
            self.shards[at].check();
        }
        self.carry_out(at, effects);
    }

    fn carry_out(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    assert_ne!(to.index(), at, "seed {}: a shard does not write to itself", self.seed);
                    self.lanes[at][to.index()].push_back(Parcel::Message(message));
                }
                Effect::HandOver { key, to, arrival } => {
                    let id = self.sockets.remove(&(at as u8, key)).expect("a socket that exists");
                    self.clients[id].place = None;
                    self.lanes[at][to.index()].push_back(Parcel::Socket(id, arrival));
                }
                Effect::Shutdown(key) => {
                    if let Some(id) = self.sockets.get(&(at as u8, key)) {
                        self.clients[*id].ended = true;
                    }
                }
                Effect::Close(key) => {
                    let id = self.sockets.remove(&(at as u8, key)).expect("a socket that exists");
                    self.clients[id].place = None;
                    self.clients[id].ended = true;
                }
                Effect::Read { key, on } => {
                    if let Some(id) = self.sockets.get(&(at as u8, key)) {
                        self.clients[*id].is_deaf = !on;
                    }
                }
                Effect::Store { ticket, request } => self.stores[at].submit(ticket, request),
                Effect::Cluster(request) => {
                    assert_eq!(self.bridge, Some(at), "seed {}: only the bridge shard says {request:?}", self.seed);
                    self.to_bridge.push_back(*request);
                }
            }
        }
    }

    /// The tables of all shards agree with the clients that are still there.
    pub(crate) fn check_at_rest(&self) {
        let open = self.clients.iter().filter(|client| client.place.is_some()).count() as u64;
        let sockets = self.metrics.sockets.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(sockets, open, "seed {}: sockets counted and sockets there", self.seed);
        let admitted = self.metrics.admitted.load(std::sync::atomic::Ordering::Relaxed);
        let live = self.metrics.sum(|shard| shard.connections_ws.get() + shard.connections_sse.get());
        assert_eq!(admitted, live, "seed {}: admitted and registered", self.seed);
        self.shards.iter().for_each(Shard::check);
        if open == 0 {
            let left = |of: fn(&ShardMetrics) -> u64| self.metrics.sum(of);
            let figures: [fn(&ShardMetrics) -> u64; 4] =
                [|m| m.users.get(), |m| m.channels.get(), |m| m.subscriptions.get(), |m| m.outbox_bytes.get()];
            assert_eq!(figures.map(left), [0; 4], "seed {}: figures after everybody left", self.seed);
        }
    }
}
