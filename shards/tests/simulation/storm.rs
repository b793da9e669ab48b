//! Everything at once, and a naive model that knows who must have heard what.
//!
//! The model has one clock, which goes up with everything that a client says or hears. A subscription is certain from
//! its confirmation to the word that ends it, and possible from the word that asked for it to the confirmation of its
//! end; a publish happens somewhere between its request and its answer. So a client that was certainly subscribed all
//! that time must hear it, one that was not even possibly subscribed must not, and nobody hears anything twice or out
//! of its stream's order.
use crate::client::ClientId;
use crate::seeds::for_each_seed;
use crate::world::World;
use shards::shard::Ended;
use std::collections::HashMap;

const USERS: usize = 6;
const CHANNELS: [&str; 3] = ["a", "b", "c"];

/// Moments of the model's clock.
type Moment = u64;
const NEVER: Moment = Moment::MAX;

/// A time during which a client belonged to a channel.
struct Stay {
    channel: &'static str,
    asked: Moment,
    confirmed: Moment,
    left: Moment,
    left_confirmed: Moment,
}

struct Listener {
    client: ClientId,
    user: usize,
    is_websocket: bool,
    /// It heard that it is connected.
    open: Moment,
    /// It began to go, or was made to.
    going: Moment,
    stays: Vec<Stay>,
    /// Whether a subscribe or an unsubscribe is unanswered.
    asks: bool,
    replies_heard: usize,
}

/// Whom a stream reaches.
#[derive(Clone, Copy, Debug)]
enum To {
    Channel(&'static str),
    Channels,
    Everybody,
    User(usize),
    Users,
}

/// One stream of publishes, all on one connection, in order.
struct Stream {
    name: &'static str,
    to: To,
    batches: bool,
}

const STREAMS: [Stream; 7] = [
    Stream { name: "a", to: To::Channel("a"), batches: false },
    Stream { name: "b", to: To::Channel("b"), batches: true },
    Stream { name: "ab", to: To::Channels, batches: false },
    Stream { name: "all", to: To::Everybody, batches: false },
    Stream { name: "u1", to: To::User(1), batches: true },
    Stream { name: "us", to: To::Users, batches: false },
    Stream { name: "c", to: To::Channel("c"), batches: false },
];

struct Publish {
    stream: usize,
    number: usize,
    said: Moment,
    answered: Moment,
    /// A batch may have stopped before it.
    is_certain: bool,
    delivered_to: Option<usize>,
}

struct Backend {
    client: ClientId,
    /// Unanswered requests: which publishes each holds.
    asked: Vec<std::ops::Range<usize>>,
    answers_heard: usize,
    broken: bool,
}

struct Storm {
    world: World,
    clock: Moment,
    listeners: Vec<Listener>,
    backends: Vec<Backend>,
    publishes: Vec<Publish>,
    stopped: Moment,
}

impl Storm {
    fn new(seed: u64) -> Storm {
        let shards = 1 + seed as usize % 4;
        let mut world = World::with_config(seed, shards, |config| {
            config.heartbeat_interval_ms = 400;
            config.connections_per_user_max = 0;
        });
        if seed.is_multiple_of(3) {
            let per_turn = 1 + world.rng.usize(0..4);
            world.shards.iter_mut().for_each(|shard| shard.slice_deliveries(per_turn));
        }
        world.checks = seed.is_multiple_of(5);
        let backends = (0..STREAMS.len())
            .map(|_| Backend { client: world.dial(), asked: Vec::new(), answers_heard: 0, broken: false })
            .collect();
        Storm { world, clock: 0, listeners: Vec::new(), backends, publishes: Vec::new(), stopped: NEVER }
    }

    fn tick(&mut self) -> Moment {
        self.clock += 1;
        self.clock
    }

    fn connect(&mut self) {
        let now = self.tick();
        let user = self.world.rng.usize(0..USERS);
        let is_websocket = self.world.rng.bool();
        let stay = |channel| Stay { channel, asked: now, confirmed: NEVER, left: NEVER, left_confirmed: NEVER };
        let (client, stays) = match is_websocket {
            true => (self.world.websocket(&format!("u{user}")), Vec::new()),
            false => (self.world.sse(&format!("u{user}"), "a,c"), vec![stay("a"), stay("c")]),
        };
        let (open, going) = (NEVER, NEVER);
        let listener = Listener { client, user, is_websocket, open, going, stays, asks: false, replies_heard: 0 };
        self.listeners.push(listener);
    }

    fn somebody(&mut self) -> Option<usize> {
        let there = |listener: &&usize| self.listeners[**listener].going == NEVER;
        let all: Vec<usize> = (0..self.listeners.len()).collect();
        let there: Vec<usize> = all.iter().filter(there).copied().collect();
        (!there.is_empty()).then(|| there[self.world.rng.usize(0..there.len())])
    }

    fn change_subscription(&mut self) {
        let now = self.tick();
        let Some(at) = self.somebody() else { return };
        let channel = CHANNELS[self.world.rng.usize(0..3)];
        let listener = &mut self.listeners[at];
        if !listener.is_websocket || listener.asks || listener.open == NEVER {
            return;
        }
        listener.asks = true;
        let verb = match listener.stays.iter_mut().find(|stay| stay.channel == channel && stay.left == NEVER) {
            Some(stay) => {
                stay.left = now;
                "Unsubscribe"
            }
            None => {
                let stay = Stay { channel, asked: now, confirmed: NEVER, left: NEVER, left_confirmed: NEVER };
                listener.stays.push(stay);
                "Subscribe"
            }
        };
        let text = format!(r#"{{"type":"{verb}","payload":{{"channels":["{channel}"]}}}}"#);
        let client = &mut self.world.clients[listener.client];
        match self.world.rng.u8(0..4) {
            0 => {
                let (begin, end) = text.split_at(9);
                client.send_frame(0x01, begin.as_bytes());
                client.send_frame(0x89, b"are you there");
                client.send_frame(0x80, end.as_bytes());
            }
            _ => client.say(&text),
        }
    }

    fn leave(&mut self) {
        let Some(at) = self.somebody() else { return };
        self.listeners[at].going = self.tick();
        let id = self.listeners[at].client;
        match self.world.rng.u8(0..5) {
            0 => self.world.clients[id].reset = true,
            1 if self.listeners[at].is_websocket => self.world.clients[id].send_frame(0x88, &1000u16.to_be_bytes()),
            2 if self.listeners[at].is_websocket => self.world.clients[id].send([0xff; 20]),
            3 => {
                if let Some((shard, key)) = self.world.clients[id].place {
                    self.world.call(shard, |shard, now, effects| shard.poisoned(now, key, effects));
                }
            }
            _ => self.world.clients[id].hang_up = true,
        }
    }

    fn publish(&mut self) {
        let at = self.world.rng.usize(0..STREAMS.len());
        if self.backends[at].broken || self.backends[at].asked.len() > 4 || self.stopped != NEVER {
            return;
        }
        let stream = &STREAMS[at];
        let first = self.publishes.len();
        let is_batch = stream.batches && self.world.rng.bool();
        let stops = is_batch && self.world.rng.bool();
        let count = if is_batch { self.world.rng.usize(1..5) } else { 1 };
        let (path, target, item) = match stream.to {
            To::Channel(name) => {
                ("channel", format!(r#""channel":"{name}""#), format!(r#""channel","value":"{name}""#))
            }
            To::Channels => ("channels", r#""channels":["a","none","b"]"#.into(), String::new()),
            To::Everybody => ("broadcast", r#""x":0"#.into(), String::new()),
            To::User(user) => {
                ("send", format!(r#""target_user_id":"u{user}""#), format!(r#""user","value":"u{user}""#))
            }
            To::Users => ("send-to-users", r#""target_user_ids":["u0","u1","nobody","u2"]"#.into(), String::new()),
        };
        let said = self.tick();
        let mut items = Vec::new();
        for _ in 0..count {
            let number = self.publishes.len();
            let content = format!(r#""event_type":"e","payload":"{}-{number}""#, stream.name);
            items.push(match is_batch {
                true => format!(r#"{{"target":{{"type":{item}}},{content}}}"#),
                false => format!(r#"{{{target},{content}}}"#),
            });
            let (answered, is_certain) = (NEVER, !stops);
            self.publishes.push(Publish { stream: at, number, said, answered, is_certain, delivered_to: None });
        }
        let (path, body) = match is_batch {
            true => {
                let options = format!(r#"{{"stop_on_error":{stops}}}"#);
                ("batch", format!(r#"{{"notifications":[{}],"options":{options}}}"#, items.join(",")))
            }
            false => (path, items.remove(0)),
        };
        let client = self.backends[at].client;
        self.world.post(client, &format!("/api/v1/notifications/{path}"), &body);
        self.backends[at].asked.push(first..self.publishes.len());
    }

    fn disturb(&mut self) {
        match self.world.rng.u8(0..8) {
            0 => {
                let ms = self.world.rng.u64(1..60);
                self.world.pass_ms_unsettled(ms);
            }
            1 => {
                if let Some(at) = self.somebody() {
                    let id = self.listeners[at].client;
                    self.world.clients[id].reads ^= true;
                }
            }
            2 => {
                if let Some(at) = self.somebody() {
                    let id = self.listeners[at].client;
                    self.world.clients[id].credit = match self.world.rng.bool() {
                        true => None,
                        false => Some(self.world.rng.usize(0..300)),
                    };
                }
            }
            3 if self.stopped == NEVER => {
                let page = ["channels", "users/u1/subscriptions", "tenants", "cluster/users/u2", "channels/a"];
                let client = self.world.dial();
                for _ in 0..self.world.rng.usize(1..9) {
                    let page = page[self.world.rng.usize(0..page.len())];
                    self.world.get(client, &format!("/api/v1/{page}"));
                }
                self.world.clients[client].hang_up = true;
                self.world.clients[client].reset = self.world.rng.u8(0..3) == 0;
            }
            4 if self.world.rng.u8(0..12) == 0 => {
                let at = self.world.rng.usize(0..self.backends.len());
                self.backends[at].broken = true;
                self.world.clients[self.backends[at].client].reset = true;
            }
            5 if self.stopped == NEVER => {
                // The end of input comes while answers are under way.
                let client = self.world.dial();
                self.world.get(client, "/api/v1/channels");
                self.world.get(client, "/health");
                self.world.feed(client);
                if let Some((shard, key)) = self.world.clients[client].place {
                    self.world.call(shard, |shard, now, effects| shard.ended(now, key, Ended::Eof, effects));
                }
            }
            _ => {}
        }
    }

    /// What the clients have heard since they were last asked.
    fn listen(&mut self) {
        let now = self.tick();
        for listener in &mut self.listeners {
            let client = &self.world.clients[listener.client];
            if listener.open == NEVER
                && client.has_heard(if listener.is_websocket { b"\r\n\r\n" } else { b"event: connected" })
            {
                listener.open = now;
                if !listener.is_websocket {
                    listener.stays.iter_mut().for_each(|stay| stay.confirmed = now);
                }
            }
            if listener.asks {
                let replies = client.count(b"subscribed\",\"payload\"");
                if replies > listener.replies_heard {
                    (listener.replies_heard, listener.asks) = (replies, false);
                    for stay in &mut listener.stays {
                        if stay.left != NEVER && stay.left_confirmed == NEVER {
                            stay.left_confirmed = now;
                        }
                        if stay.confirmed == NEVER {
                            stay.confirmed = now;
                        }
                    }
                }
            }
            if client.ended && listener.going == NEVER {
                assert!(self.stopped != NEVER, "seed {}: a client was closed: {}", self.world.seed, client.text());
                listener.going = now;
            }
        }
        for backend in &mut self.backends {
            if backend.asked.is_empty() || backend.broken {
                continue;
            }
            let text = self.world.clients[backend.client].text();
            let answers: Vec<&str> = text.split("HTTP/1.1 ").skip(1 + backend.answers_heard).collect();
            for answer in answers.into_iter().filter(|answer| answer.ends_with('}')) {
                assert!(answer.starts_with("200"), "seed {}: {answer}", self.world.seed);
                backend.answers_heard += 1;
                let range = backend.asked.remove(0);
                let is_single = range.len() == 1 && !answer.contains("batch_id");
                let delivered = answer.split(r#""delivered_to":"#).nth(1).and_then(|rest| rest.split(',').next());
                for publish in &mut self.publishes[range] {
                    publish.answered = now;
                    publish.delivered_to = delivered.filter(|_| is_single).map(|count| count.parse().unwrap());
                }
            }
        }
    }

    fn check(&self) {
        let seed = self.world.seed;
        let mut heard: HashMap<(usize, usize), usize> = HashMap::new();
        for (at, listener) in self.listeners.iter().enumerate() {
            let client = &self.world.clients[listener.client];
            if listener.is_websocket && client.has_heard(b"\r\n\r\n") && !client.reset && listener.going == NEVER {
                client.frames();
            }
            let text = client.text();
            if let Some(event) = text.find("event: ").filter(|_| !listener.is_websocket) {
                let is_first =
                    ["event: connected", "event: message"].iter().any(|name| text[event..].starts_with(name));
                assert!(is_first || event + 16 > text.len(), "seed {seed}: client {at}: {text}");
            }
            let mut last = [None; STREAMS.len()];
            for payload in client.payloads() {
                let (name, number) = payload.trim_matches('"').split_once('-').unwrap();
                let stream = STREAMS.iter().position(|stream| stream.name == name).unwrap();
                let number: usize = number.parse().unwrap();
                assert!(last[stream] < Some(number), "seed {seed}: client {at} heard {name}-{number} after {last:?}");
                last[stream] = Some(number);
                *heard.entry((at, number)).or_default() += 1;
            }
        }
        for publish in &self.publishes {
            let (mut must, mut may) = (0, 0);
            for (at, listener) in self.listeners.iter().enumerate() {
                let (certain, possible) = self.belongs(listener, publish);
                let has_heard = heard.contains_key(&(at, publish.number));
                let words =
                    || format!("seed {seed}: client {at} and {}-{}", STREAMS[publish.stream].name, publish.number);
                assert!(possible || !has_heard, "{}: heard by a stranger", words());
                let stays = listener.going == NEVER || listener.going > self.stopped;
                assert!(has_heard || !(certain && stays), "{}: not heard", words());
                must += usize::from(certain && publish.is_certain);
                may += usize::from(possible);
            }
            if let Some(delivered_to) = publish.delivered_to {
                let words = format!("{}-{}", STREAMS[publish.stream].name, publish.number);
                assert!((must..=may).contains(&delivered_to), "seed {seed}: {words}: {must}..={may}: {delivered_to}");
            }
        }
    }

    /// Whether a publish must and whether it may reach a client.
    fn belongs(&self, listener: &Listener, publish: &Publish) -> (bool, bool) {
        let answered = publish.answered;
        let there = (
            listener.open < publish.said && listener.going > answered && answered < self.stopped && publish.is_certain,
            true,
        );
        let by_channel = |name: &str| {
            let of_channel = || listener.stays.iter().filter(|stay| stay.channel == name);
            (
                of_channel().any(|stay| stay.confirmed < publish.said && stay.left > answered),
                of_channel().any(|stay| stay.asked < answered && stay.left_confirmed > publish.said),
            )
        };
        let meant = match STREAMS[publish.stream].to {
            To::Everybody => (true, true),
            To::User(user) => (listener.user == user, listener.user == user),
            To::Users => (listener.user < 3, listener.user < 3),
            To::Channel(name) => by_channel(name),
            To::Channels => {
                let (a, b) = (by_channel("a"), by_channel("b"));
                (a.0 || b.0, a.1 || b.1)
            }
        };
        (there.0 && meant.0, there.1 && meant.1)
    }

    fn rage(&mut self) {
        let stops_at = if self.world.seed % 4 == 3 { self.world.rng.usize(20..120) } else { usize::MAX };
        for round in 0..120 {
            for _ in 0..self.world.rng.usize(0..4) {
                match self.world.rng.u8(0..20) {
                    0..3 if self.stopped == NEVER => self.connect(),
                    3..7 => self.change_subscription(),
                    7 if self.stopped == NEVER => self.leave(),
                    8..16 => self.publish(),
                    _ => self.disturb(),
                }
            }
            if round == stops_at {
                self.stopped = self.tick();
                for shard in 0..self.world.shards.len() {
                    self.world.call(shard, |shard, now, effects| shard.stop(now, effects));
                    self.world.run(1);
                }
            }
            let rounds = self.world.rng.usize(0..4);
            self.world.run(rounds);
            self.listen();
        }
        for client in &mut self.world.clients {
            (client.reads, client.credit) = (true, None);
        }
        self.world.settle();
        self.listen();
    }

    /// Everybody goes, each in another way.
    fn calm_down(&mut self) {
        let seed = self.world.seed;
        for backend in self.backends.iter().filter(|backend| !backend.broken && self.stopped == NEVER) {
            assert!(backend.asked.is_empty(), "seed {seed}: an answer is missing");
        }
        for id in 0..self.world.clients.len() {
            let resets = self.world.rng.u8(0..3) == 0;
            let client = &mut self.world.clients[id];
            client.reset |= resets;
            client.hang_up = true;
        }
        self.world.settle();
        self.world.pass_ms(8_000);
        assert!(self.world.clients.iter().all(|client| client.place.is_none()), "seed {seed}: somebody is left");
        self.world.check_at_rest();
    }
}

#[test]
fn whatever_happens_everybody_hears_what_is_theirs_once_and_in_order() {
    for_each_seed(200, |seed| {
        let mut storm = Storm::new(seed);
        storm.rage();
        storm.check();
        storm.calm_down();
    });
}
