//! The world around one shard: sockets that take as much as they like, time, a store, publishers.
use super::output::{self, Heard};
use protocol::auth::token::{MintClaims, Verifier, mint_hs256};
use protocol::clock::Now;
use protocol::http::route::ROUTE_LABELS;
use protocol::ids::TenantId;
use protocol::json;
use protocol::limits;
use protocol::notification::{Content, Priority, Source, Target};
use protocol::rate_limit::Rate;
use protocol::store::{StoreReply, StoreTicket};
use shards::config::{RateLimitRules, ShardConfig};
use shards::effect::Effect;
use shards::guest::Submission;
use shards::host::NoPages;
use shards::key::{ConnKey, ShardId};
use shards::metrics::NodeMetrics;
use shards::shard::{Ended, Shard};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Signs the tokens of this world; opens nothing.
const SECRET: &[u8] = b"a secret of the hostile world, 32+";
/// When the world begins, in seconds since the Unix epoch.
pub(super) const NOW_S: u64 = 1_767_323_045;

/// The peer under test, and the one beside it.
const PEER: usize = 0;
const NEIGHBOUR: usize = 1;

/// A token of this world that is good for so many seconds.
pub fn token(user: &str, seconds: u64) -> String {
    let claims =
        MintClaims { sub: user.into(), exp: NOW_S + seconds, roles: vec!["admin".into()], ..Default::default() };
    mint_hs256(SECRET, &claims)
}

/// The far end of a socket.
struct Socket {
    key: ConnKey,
    /// All it took.
    taken: Vec<u8>,
    is_open: bool,
    /// The shard does not want to read it now.
    is_deaf: bool,
    /// The shard has sent its FIN.
    has_fin: bool,
    /// It was full and wants to say when it no longer is.
    is_blocked: bool,
}

/// Everything small, and nothing that is kept.
pub(super) fn config() -> ShardConfig {
    ShardConfig {
        connections_max: 10,
        sockets_max: 2,
        connections_per_user_max: 1,
        subscriptions_max: 5,
        ..ShardConfig::plain("world", Verifier::hs256(SECRET).expect("the secret is not empty"))
    }
}

pub(super) struct World {
    shard: Shard,
    node: Arc<NodeMetrics>,
    rng: fastrand::Rng,
    now_us: u64,
    sockets: [Socket; 2],
    dirty: Vec<ConnKey>,
    tickets: Vec<StoreTicket>,
    published: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let config = ShardConfig {
            api_key: (rng.u8(0..8) == 0).then(|| Box::from(&b"key"[..])),
            tenancy: rng.u8(0..8) == 0,
            connections_max: if rng.u8(0..16) == 0 { 1 } else { 10 },
            rate_limits: (rng.u8(0..4) == 0).then(|| RateLimitRules {
                requests: Rate::per_second(2, 2),
                connects: Rate::per_minute(2),
                messages: rng.bool().then(|| Rate::per_second(2, 2)),
                sweep_interval_ms: 1_000,
                is_shared: false,
            }),
            ..config()
        };
        let node = Arc::new(NodeMetrics::new(1, ROUTE_LABELS.len()));
        let mut shard = Shard::new(ShardId(0), 1, Arc::new(config), Arc::clone(&node), Arc::new(NoPages), rng.u64(..));
        let now_us = 1_000_000;
        let mut dial = || {
            let key = shard.accepted(at(now_us), IpAddr::V4(Ipv4Addr::LOCALHOST)).expect("room for two");
            Socket { key, taken: Vec::new(), is_open: true, is_deaf: false, has_fin: false, is_blocked: false }
        };
        let sockets = [dial(), dial()];
        assert!(shard.accepted(at(now_us), IpAddr::V4(Ipv4Addr::LOCALHOST)).is_none(), "room for two only");
        let mut world =
            World { shard, node, rng, now_us, sockets, dirty: Vec::new(), tickets: Vec::new(), published: 0 };
        let token = token("neighbour", 1_000_000);
        let upgrade = format!(
            "GET /ws?token={token} HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        world.receive(NEIGHBOUR, upgrade.as_bytes());
        world.flush();
        world
    }

    // --- What happens ------------------------------------------------------------------------------------------------

    /// The peer sends the stream, and meanwhile the world goes on.
    pub(super) fn feed(&mut self, mut stream: &[u8]) {
        // A peer that is not read need not get rid of all it has.
        for _ in 0..256 + 4 * stream.len() {
            if stream.is_empty() || !self.sockets[PEER].is_open {
                return;
            }
            match self.rng.u8(0..16) {
                0..=7 if !self.sockets[PEER].is_deaf => {
                    let len_max = match self.rng.u8(0..8) {
                        0 => 1,
                        1..=3 => 24,
                        _ => limits::READ_BYTES_MAX,
                    };
                    let (piece, rest) = stream.split_at(self.rng.usize(1..=len_max.min(stream.len())));
                    self.receive(PEER, piece);
                    stream = rest;
                }
                8..=10 => self.flush(),
                11 => {
                    let ms = match self.rng.u8(0..8) {
                        0 => self.rng.u64(0..40_000),
                        _ => self.rng.u64(0..500),
                    };
                    self.pass_ms(ms);
                }
                12 => self.publish_something(),
                13 => self.tell_writable(),
                14 => self.answer_store(),
                15 if self.rng.u8(0..64) == 0 => {
                    let key = self.sockets[PEER].key;
                    self.call(|shard, now, effects| shard.ended(now, key, Ended::Eof, effects));
                    return;
                }
                _ => self.work(),
            }
        }
    }

    /// Everything that is under way ends: the store answers, the peer takes its output. What it heard is whole then.
    pub(super) fn come_to_rest(&mut self) -> Heard {
        for round in 0.. {
            assert!(round < 10_000, "the world does not come to rest");
            self.answer_store();
            self.work();
            self.tell_writable();
            self.shard.take_dirty(&mut self.dirty);
            if self.dirty.is_empty() {
                break;
            }
            self.write_dirty(true);
        }
        let peer = &self.sockets[PEER];
        output::read(&peer.taken, peer.is_open)
    }

    /// The other connection hears what is published, as if nothing had happened beside it.
    pub(super) fn check_neighbour(&mut self) {
        assert!(self.sockets[NEIGHBOUR].is_open, "the neighbour was closed");
        self.publish(Target::User("neighbour".into()), r#""to the neighbour""#.to_owned());
        self.flush();
        let taken = &self.sockets[NEIGHBOUR].taken;
        let heard = output::read(taken, true);
        assert!(heard.is_websocket && heard.close_code.is_none() && heard.answers == 0, "{heard:?}");
        let text = String::from_utf8_lossy(&taken[taken.len().saturating_sub(200)..]).into_owned();
        assert!(text.contains(r#""payload":"to the neighbour""#), "{text}");
    }

    /// Both connections end, in one of the ways there are, and nothing of them is left.
    pub(super) fn empty(&mut self) {
        match self.rng.u8(0..4) {
            0 => {
                // They are told, and say nothing.
                self.call(|shard, now, effects| shard.stop(now, effects));
                for _ in 0..80 {
                    self.flush_all();
                    self.pass_ms(500);
                }
            }
            1 => {
                // Nobody says anything any more: requests and handshakes run into their deadlines.
                for _ in 0..20 {
                    self.flush_all();
                    self.now_us += 10_000_000;
                    self.call(|shard, now, effects| shard.tick(now, effects));
                }
                self.end(Ended::Reset);
            }
            2 => {
                for key in self.sockets.each_ref().map(|socket| socket.key) {
                    self.call(|shard, now, effects| shard.poisoned(now, key, effects));
                }
            }
            _ => self.end(Ended::Reset),
        }
        let figures = &self.node.shards[0];
        assert!(self.sockets.iter().all(|socket| !socket.is_open), "a socket stayed open");
        assert!(self.shard.stopped(), "a connection is left");
        assert_eq!(self.node.sockets.load(Relaxed), 0, "sockets");
        assert_eq!(self.node.admitted.load(Relaxed), 0, "admitted");
        assert_eq!((figures.connections_ws.get(), figures.connections_sse.get()), (0, 0), "connections");
        assert_eq!((figures.users.get(), figures.channels.get()), (0, 0), "users and channels");
    }

    fn end(&mut self, how: Ended) {
        for key in self.sockets.each_ref().map(|socket| socket.key) {
            self.call(|shard, now, effects| shard.ended(now, key, how, effects));
        }
    }

    // --- The rim -----------------------------------------------------------------------------------------------------

    fn call<T>(&mut self, act: impl FnOnce(&mut Shard, Now, &mut Vec<Effect>) -> T) -> T {
        let mut effects = Vec::new();
        let result = act(&mut self.shard, at(self.now_us), &mut effects);
        for effect in effects {
            self.carry_out(effect);
        }
        result
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send { .. } | Effect::HandOver { .. } => {
                panic!("a lonely shard wants to reach another: {effect:?}")
            }
            Effect::Shutdown(key) => {
                let socket = self.socket(key);
                assert!(!socket.has_fin, "a second FIN");
                socket.has_fin = true;
                // What is not out by now never will be.
                output::read(&socket.taken, true);
            }
            Effect::Close(key) => self.socket(key).is_open = false,
            Effect::Read { key, on } => self.socket(key).is_deaf = !on,
            Effect::Store { ticket, .. } => self.tickets.push(ticket),
            Effect::Cluster(_) => panic!("a shard of a lonely node speaks to others: {effect:?}"),
        }
    }

    #[track_caller]
    fn socket(&mut self, key: ConnKey) -> &mut Socket {
        let socket = self.sockets.iter_mut().find(|socket| socket.key == key).expect("one of the two");
        assert!(socket.is_open, "an effect for a socket that was closed");
        socket
    }

    fn receive(&mut self, socket: usize, bytes: &[u8]) {
        let (key, mut bytes) = (self.sockets[socket].key, bytes.to_vec());
        self.call(|shard, now, effects| shard.received(now, key, &mut bytes, effects));
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now_us += ms * 1_000;
        // A pong, so that the neighbour is known to be there.
        self.receive(NEIGHBOUR, &[0x8a, 0x80, 0, 0, 0, 0]);
        self.call(|shard, now, effects| shard.tick(now, effects));
    }

    fn work(&mut self) {
        while self.call(|shard, now, effects| shard.work(now, effects)) {}
    }

    fn answer_store(&mut self) {
        for ticket in std::mem::take(&mut self.tickets) {
            let reply = if self.rng.u8(0..4) == 0 { StoreReply::Failed } else { StoreReply::Done };
            self.call(|shard, now, effects| shard.stored(now, ticket, reply, effects));
        }
    }

    fn tell_writable(&mut self) {
        for at_socket in [PEER, NEIGHBOUR] {
            let socket = &mut self.sockets[at_socket];
            if std::mem::take(&mut socket.is_blocked) && socket.is_open {
                let key = socket.key;
                self.call(|shard, now, _| shard.writable(now, key));
            }
        }
    }

    fn flush(&mut self) {
        self.work();
        self.shard.take_dirty(&mut self.dirty);
        self.write_dirty(false);
    }

    fn flush_all(&mut self) {
        self.answer_store();
        self.work();
        self.tell_writable();
        self.shard.take_dirty(&mut self.dirty);
        self.write_dirty(true);
    }

    /// One write to each that has something. The neighbour takes everything, the peer only when `willing`.
    fn write_dirty(&mut self, willing: bool) {
        for key in std::mem::take(&mut self.dirty) {
            let now = at(self.now_us);
            let shown = self.shard.output(now, key);
            let Some(socket) = self.sockets.iter_mut().find(|socket| socket.key == key && socket.is_open) else {
                assert!(shown.is_empty(), "output for a socket that was closed");
                continue;
            };
            assert!(!socket.has_fin || shown.is_empty(), "output after FIN");
            let is_peer = key == self.sockets[PEER].key;
            let taken = match self.rng.u8(0..8) {
                0 if is_peer && !willing => 0,
                1 if is_peer && !willing => self.rng.usize(0..=shown.len()),
                _ => shown.len(),
            };
            let socket = &mut self.sockets[if is_peer { PEER } else { NEIGHBOUR }];
            socket.taken.extend_from_slice(&shown[..taken]);
            let is_blocked = taken < shown.len();
            socket.is_blocked = is_blocked;
            self.call(|shard, now, effects| shard.written(now, key, taken, is_blocked, effects));
        }
        self.shard.flushed_all();
    }

    // --- Publishers --------------------------------------------------------------------------------------------------

    fn publish_something(&mut self) {
        let target = match self.rng.u8(0..5) {
            0 => Target::User("u".into()),
            1 => Target::Users(["neighbour".into(), "u".into()].into()),
            2 => Target::Channel("orders".into()),
            3 => Target::Channels(["orders".into(), "訂單".into()].into()),
            _ => Target::Broadcast,
        };
        let (len, times) = match self.rng.u8(0..64) {
            0 => (100_000, 50),
            1..=4 => (70_000, 1),
            5..=15 => (300, 3),
            _ => (10, 1),
        };
        for _ in 0..times {
            self.publish(target.clone(), format!("\"{}\"", "x".repeat(len)));
        }
    }

    /// Publishes; the neighbour takes what it gets at once, so that it is never too slow.
    fn publish(&mut self, target: Target, payload: String) {
        self.published += 1;
        let content = Content {
            event_type: "e".into(),
            payload: json::compact(&payload, 0).expect("a string"),
            priority: Priority::Normal,
            ttl: self.published.is_multiple_of(3).then_some(20),
            correlation_id: None,
            audience: None,
        };
        let tenant = TenantId::default_tenant();
        let submission = Submission { tenant, target, content, source: Source::Redis("world".into()), claim: None };
        self.call(|shard, now, effects| shard.publish(now, submission, effects));
        self.work();
        self.shard.take_dirty(&mut self.dirty);
        let neighbour = self.sockets[NEIGHBOUR].key;
        let (of_neighbour, of_peer) = std::mem::take(&mut self.dirty).into_iter().partition(|key| *key == neighbour);
        self.dirty = of_neighbour;
        self.write_dirty(true);
        self.dirty.extend::<Vec<ConnKey>>(of_peer);
    }
}

fn at(now_us: u64) -> Now {
    Now { mono_us: now_us, unix_ns: NOW_S * 1_000_000_000 + now_us * 1_000 }
}
