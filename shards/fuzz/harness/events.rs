//! Two shards, the lanes between them, six sockets and a store; the input is a program: each byte says what happens next
//! and what follows it is its argument. After every event the tables of the shard agree with each other, and in the end
//! nothing of anybody is left.
use super::world::{NOW_S, config, token};
use protocol::clock::Now;
use protocol::http::route::ROUTE_LABELS;
use protocol::ids::TenantId;
use protocol::json;
use protocol::limits;
use protocol::notification::{Content, Priority, Source, Target};
use protocol::rate_limit::Rate;
use protocol::store::{AckVerdict, Age, Entry, MailboxKey, Position, StoreReply, StoreRequest, StoreTicket};
use shards::config::{AckRules, QueueRules, RateLimitRules};
use shards::effect::Effect;
use shards::guest::Submission;
use shards::host::NoPages;
use shards::key::{ConnKey, ShardId};
use shards::mesh::message::Message;
use shards::metrics::NodeMetrics;
use shards::shard::{Arrival, Ended, Shard};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const SHARDS: usize = 2;
const SOCKETS_MAX: usize = 6;
const USERS: [&str; 3] = ["ana", "ben", "訊息"];
const CHANNELS: [&str; 3] = ["orders", "news", "訂單"];
/// Events of one input; a longer one ends there.
const EVENTS_MAX: usize = 600;

/// What came of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Events.
    pub events: usize,
    /// Streams that began: 101, or the head of an event stream.
    pub streams: usize,
    /// Requests of the store.
    pub asked: usize,
    /// Bytes that sockets took.
    pub written: usize,
    /// Sockets that changed shards.
    pub handed_over: usize,
}

/// Runs a program to its end, and then to the end of the node; panics when something does not hold.
pub fn shard_events(input: &[u8]) -> Happened {
    let Some((settings, program)) = input.split_first() else { return Happened::default() };
    let mut node = Node::new(*settings);
    let mut program = Program(program);
    while let Some(op) = program.byte()
        && node.happened.events < EVENTS_MAX
    {
        node.happened.events += 1;
        node.act(op, &mut program);
    }
    node.end();
    node.happened
}

/// What is left of the input.
struct Program<'a>(&'a [u8]);

impl<'a> Program<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// One of so many; the first when the input is over.
    fn one_of(&mut self, count: usize) -> usize {
        usize::from(self.byte().unwrap_or_default()) % count
    }

    /// So many bytes as the next one says.
    fn bytes(&mut self) -> &'a [u8] {
        let len = self.one_of(256).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }
}

enum Parcel {
    Message(Message),
    Socket(usize, Box<Arrival>),
}

struct Socket {
    /// Shard and key; none while it travels, or once it is closed.
    place: Option<(usize, ConnKey)>,
    is_deaf: bool,
    is_blocked: bool,
    /// The last notification it was given.
    last_id: Option<String>,
}

struct Node {
    shards: Vec<Shard>,
    metrics: Arc<NodeMetrics>,
    lanes: Vec<Vec<VecDeque<Parcel>>>,
    sockets: Vec<Socket>,
    by_key: HashMap<(usize, ConnKey), usize>,
    asked: Vec<VecDeque<(StoreTicket, StoreRequest)>>,
    mailboxes: HashMap<(String, String), (u64, Vec<Entry>)>,
    /// Requests that were counted for the limits.
    counted: u64,
    now_us: u64,
    happened: Happened,
}

impl Node {
    fn new(settings: u8) -> Node {
        let mut config = config();
        config.tenancy = settings & 1 != 0;
        config.queue = (settings & 2 != 0).then_some(QueueRules { ttl_ms: 3_600_000 });
        config.ack = (settings & 4 != 0).then_some(AckRules { timeout_ms: 10_000, is_recorded: settings & 8 != 0 });
        config.templates_kept = settings & 16 != 0;
        config.connections_per_user_max = if settings & 32 != 0 { 1 } else { 0 };
        config.rate_limits = (settings & 64 != 0).then(|| RateLimitRules {
            requests: Rate::per_second(2, 4),
            connects: Rate::per_minute(4),
            messages: Some(Rate::per_second(2, 2)),
            sweep_interval_ms: 1_000,
            is_shared: settings & 128 != 0,
        });
        config.sockets_max = SOCKETS_MAX;
        let metrics = Arc::new(NodeMetrics::new(SHARDS, ROUTE_LABELS.len()));
        let config = Arc::new(config);
        let shard = |id: usize| {
            let (config, metrics) = (Arc::clone(&config), Arc::clone(&metrics));
            Shard::new(ShardId(id as u8), SHARDS, config, metrics, Arc::new(NoPages), id as u64 + 1)
        };
        Node {
            shards: (0..SHARDS).map(shard).collect(),
            metrics,
            lanes: (0..SHARDS).map(|_| (0..SHARDS).map(|_| VecDeque::new()).collect()).collect(),
            sockets: Vec::new(),
            by_key: HashMap::new(),
            asked: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            mailboxes: HashMap::new(),
            counted: 0,
            now_us: 1_000_000,
            happened: Happened::default(),
        }
    }

    // --- What may happen ---------------------------------------------------------------------------------------------

    fn act(&mut self, op: u8, program: &mut Program<'_>) {
        match op % 24 {
            0 | 1 => self.accept(program.one_of(SHARDS)),
            2..=5 => {
                let said = self.words(program);
                self.receive(program, &said);
            }
            6 => {
                let said = program.bytes();
                self.receive(program, said);
            }
            7..=9 => self.write(program),
            10 => self.with_socket(program, |node, (shard, key), _| {
                node.call(shard, |shard, now, effects| shard.ended(now, key, Ended::Eof, effects));
            }),
            11 => self.with_socket(program, |node, (shard, key), _| {
                node.call(shard, |shard, now, effects| shard.ended(now, key, Ended::Reset, effects));
            }),
            12 => self.with_socket(program, |node, (shard, key), _| {
                node.call(shard, |shard, now, effects| shard.poisoned(now, key, effects));
            }),
            13 => self.with_socket(program, |node, (shard, key), at| {
                if std::mem::take(&mut node.sockets[at].is_blocked) {
                    node.call(shard, |shard, now, _| shard.writable(now, key));
                }
            }),
            14 | 15 => self.pass([1, 50, 500, 5_000, 31_000, 130_000][program.one_of(6)]),
            16 | 17 => self.publish(program),
            18 | 19 => {
                let (from, to) = (program.one_of(SHARDS), program.one_of(SHARDS));
                self.carry(from, to);
            }
            20 | 21 => {
                let (at, how) = (program.one_of(SHARDS), program.one_of(8));
                self.answer(at, how);
            }
            22 => {
                let at = program.one_of(SHARDS);
                self.work(at);
            }
            _ => self.settle(false),
        }
    }

    fn accept(&mut self, at: usize) {
        let mut accepted = None;
        self.call(at, |shard, now, _| accepted = shard.accepted(now, IpAddr::V4(Ipv4Addr::LOCALHOST)));
        if let Some(key) = accepted {
            self.by_key.insert((at, key), self.sockets.len());
            self.sockets.push(Socket { place: Some((at, key)), is_deaf: false, is_blocked: false, last_id: None });
        }
    }

    /// Something that a client may say, mostly right.
    fn words(&self, program: &mut Program<'_>) -> Vec<u8> {
        let user = USERS[program.one_of(USERS.len())];
        let channel = CHANNELS[program.one_of(CHANNELS.len())];
        let api = "host: h\r\nx-api-key: key\r\nx-tenant-id: default\r\ncontent-type: application/json\r\n";
        let post = |path: &str, body: String| {
            format!("POST /api/v1/{path} HTTP/1.1\r\n{api}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
        };
        let event = r#""event_type":"e","payload":1"#;
        let last_id = self.sockets.iter().rev().find_map(|socket| socket.last_id.as_deref());
        let id = last_id.unwrap_or("01890000-0000-7000-8000-000000000001");
        match program.one_of(16) {
            0..=2 => {
                let seconds = if program.one_of(8) == 0 { 2 } else { 100_000 };
                let token = token(user, seconds + self.now_us / 1_000_000);
                format!(
                    "GET /ws?token={token} HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                .into_bytes()
            }
            3 => {
                let (token, version) = (token(user, 100_000), program.one_of(2));
                format!("GET /sse?channels={channel}&token={token} HTTP/1.{version}\r\nhost: h\r\n\r\n").into_bytes()
            }
            4 | 5 => text(&format!(r#"{{"type":"Subscribe","payload":{{"channels":["{channel}","a","b"]}}}}"#)),
            6 => text(&format!(r#"{{"type":"Unsubscribe","payload":{{"channels":["{channel}","b"]}}}}"#)),
            7 => text(&format!(r#"{{"type":"Ack","payload":{{"notification_id":"{id}"}}}}"#)),
            8 => frame(0x88, &[0x03, 0xe8]),
            9 => [frame(0x01, b"{\"type\":"), frame(0x89, b"?"), frame(0x80, b"\"Ping\"}")].concat(),
            10 => post("notifications/send", format!(r#"{{"target_user_id":"{user}",{event}}}"#)),
            11 => post("notifications/channel", format!(r#"{{"channel":"{channel}",{event}}}"#)),
            12 => {
                let item = format!(r#"{{"target":{{"type":"user","value":"{user}"}},{event}}}"#);
                post("notifications/batch", format!(r#"{{"notifications":[{item},{item}]}}"#))
            }
            13 => post("templates", r#"{"id":"t","name":"n","event_type":"e","payload_template":"{{a}}"}"#.to_owned()),
            14 => format!("DELETE /api/v1/templates/t HTTP/1.1\r\n{api}\r\n").into_bytes(),
            _ => {
                let path = ["channels", "tenants", "users/ana/subscriptions", "cluster/users/ana", "templates"];
                format!("GET /api/v1/{} HTTP/1.1\r\n{api}\r\n", path[program.one_of(5)]).into_bytes()
            }
        }
    }

    fn with_socket(&mut self, program: &mut Program<'_>, act: impl FnOnce(&mut Node, (usize, ConnKey), usize)) {
        let there: Vec<usize> = (0..self.sockets.len()).filter(|at| self.sockets[*at].place.is_some()).collect();
        if there.is_empty() {
            return;
        }
        let at = there[program.one_of(there.len())];
        if let Some(place) = self.sockets[at].place {
            act(self, place, at);
        }
    }

    fn receive(&mut self, program: &mut Program<'_>, said: &[u8]) {
        let cut = program.one_of(256);
        self.with_socket(program, |node, _, at| {
            // In two reads, cut where the program says; who is not read keeps it to itself.
            let (first, second) = said.split_at((said.len() * cut / 255).min(said.len()));
            for piece in [first, second] {
                if let Some((shard, key)) = node.sockets[at].place
                    && !node.sockets[at].is_deaf
                    && !piece.is_empty()
                {
                    let mut bytes = piece.to_vec();
                    node.call(shard, |shard, now, effects| shard.received(now, key, &mut bytes, effects));
                }
            }
        });
    }

    fn write(&mut self, program: &mut Program<'_>) {
        let (at, share) = (program.one_of(SHARDS), program.one_of(5));
        self.flush(at, share);
    }

    /// Sockets of a shard take so many quarters of what there is.
    fn flush(&mut self, at: usize, quarters: usize) {
        let mut dirty = Vec::new();
        self.shards[at].take_dirty(&mut dirty);
        for key in dirty {
            let now = self.now();
            let shown = self.shards[at].output(now, key).to_vec();
            let socket = self.by_key.get(&(at, key)).copied();
            assert!(socket.is_some() || shown.is_empty(), "output for a socket that is closed");
            let taken = shown.len() * quarters.min(4) / 4;
            if let Some(socket) = socket {
                self.happened.written += taken;
                self.happened.streams += usize::from(shown.starts_with(b"HTTP/1.1 101 ") && taken > 0);
                self.sockets[socket].is_blocked = taken < shown.len();
                let text = String::from_utf8_lossy(&shown);
                let id = text.rsplit_once(r#""type":"notification","id":""#).and_then(|(_, rest)| rest.get(..36));
                self.sockets[socket].last_id = id.map(str::to_owned).or_else(|| self.sockets[socket].last_id.take());
            }
            let blocked = taken < shown.len();
            self.call(at, |shard, now, effects| shard.written(now, key, taken, blocked, effects));
        }
        self.shards[at].flushed_all();
    }

    fn publish(&mut self, program: &mut Program<'_>) {
        let at = program.one_of(SHARDS);
        let target = match program.one_of(5) {
            0 => Target::User(USERS[program.one_of(3)].into()),
            1 => Target::Users(USERS.map(Box::from).into()),
            2 => Target::Channel(CHANNELS[program.one_of(3)].into()),
            3 => Target::Channels(CHANNELS.map(Box::from).into()),
            _ => Target::Broadcast,
        };
        let payload = format!("\"{}\"", "x".repeat([1, 300, 70_000][program.one_of(3)]));
        let content = Content {
            event_type: "e".into(),
            payload: json::compact(&payload, 0).expect("a string"),
            priority: Priority::Normal,
            ttl: (program.one_of(4) == 0).then_some(3),
            correlation_id: None,
            audience: None,
        };
        let tenant = TenantId::default_tenant();
        let submission = Submission { tenant, target, content, source: Source::Redis("fuzz".into()), claim: None };
        self.call(at, |shard, now, effects| shard.publish(now, submission, effects));
    }

    fn pass(&mut self, ms: u64) {
        self.now_us += ms * 1_000;
        for at in 0..SHARDS {
            self.call(at, |shard, now, effects| shard.tick(now, effects));
        }
    }

    fn work(&mut self, at: usize) {
        self.call(at, |shard, now, effects| {
            shard.work(now, effects);
        });
    }

    fn carry(&mut self, from: usize, to: usize) -> bool {
        let Some(parcel) = self.lanes[from][to].pop_front() else { return false };
        match parcel {
            Parcel::Message(message) => {
                self.call(to, |shard, now, effects| shard.message(now, ShardId(from as u8), message, effects));
            }
            Parcel::Socket(socket, mut arrival) => {
                let mut rest = std::mem::take(&mut arrival.rest);
                let (now, mut effects) = (self.now(), Vec::new());
                let key = self.shards[to].arrived(now, arrival, &mut effects);
                self.by_key.insert((to, key), socket);
                self.sockets[socket].place = Some((to, key));
                self.carry_out(to, effects);
                self.happened.handed_over += 1;
                if !rest.is_empty() {
                    self.call(to, |shard, now, effects| shard.received(now, key, &mut rest, effects));
                }
            }
        }
        true
    }

    // --- The store ---------------------------------------------------------------------------------------------------

    /// One request is answered; 6 fails it, and after 7 nobody knows.
    fn answer(&mut self, at: usize, how: usize) -> bool {
        let Some((ticket, request)) = self.asked[at].pop_front() else { return false };
        let reply = match how {
            6 => StoreReply::Failed,
            7 => StoreReply::Unknown,
            _ => self.done(request),
        };
        self.call(at, |shard, now, effects| shard.stored(now, ticket, reply, effects));
        true
    }

    fn mailbox(&mut self, key: &MailboxKey) -> &mut (u64, Vec<Entry>) {
        self.mailboxes.entry((key.tenant.as_str().to_owned(), key.user.to_string())).or_default()
    }

    fn done(&mut self, request: StoreRequest) -> StoreReply {
        match request {
            StoreRequest::LoadTemplates => StoreReply::Templates(Vec::new()),
            StoreRequest::AppendMail { mailbox, mail, .. } => {
                let (last, entries) = self.mailbox(&mailbox);
                let before = entries.last().map(|entry| entry.position);
                let mut positions = Vec::new();
                for mail in mail {
                    *last += 1;
                    positions.push(Position(*last, 0));
                    entries.push(Entry::standing(Position(*last, 0), mail));
                }
                StoreReply::Appended { positions, before, dropped: 0 }
            }
            StoreRequest::ReadMail { mailbox, after, entries_max, lingering_ms } => {
                let (_, entries) = self.mailbox(&mailbox);
                let is_asked_for = |entry: &&mut Entry| {
                    after.is_none_or(|after| entry.position > after) && (!entry.is_gone || lingering_ms > 0)
                };
                let mut behind = entries.iter_mut().filter(is_asked_for);
                let page: Vec<Entry> = behind
                    .by_ref()
                    .take(entries_max)
                    .map(|entry| {
                        entry.mail.attempts += u32::from(!entry.is_gone);
                        // As long ago as anything that lingers can be.
                        let age = Age::of(entry.position.0 * 97 % limits::STORE_LINGER_MS, 0);
                        Entry { age, ..entry.clone() }
                    })
                    .collect();
                let next = behind.next().and(page.last()).map(|entry| entry.position);
                StoreReply::Mail { entries: page, next }
            }
            StoreRequest::BeginMail { mailbox, positions } => {
                let entries = self.mailbox(&mailbox).1.iter_mut();
                entries
                    .filter(|entry| positions.contains(&entry.position))
                    .for_each(|entry| entry.mail.attempts = entry.mail.attempts.saturating_add(1));
                StoreReply::Done
            }
            StoreRequest::RemoveMail { mailbox, positions, lingers } => {
                let entries = &mut self.mailbox(&mailbox).1;
                let is_meant = |entry: &Entry| positions.contains(&entry.position);
                entries.iter_mut().filter(|entry| is_meant(entry)).for_each(|entry| entry.is_gone = true);
                entries.retain(|entry| lingers || !entry.is_gone);
                StoreReply::Done
            }
            StoreRequest::Acknowledge { .. } => StoreReply::Acknowledged(AckVerdict::Done),
            StoreRequest::CountRequest { .. } => {
                self.counted += 1;
                StoreReply::Counted { count: self.counted % 4, ends_unix_ms: self.now().unix_ms() + 1_000 }
            }
            StoreRequest::PutTemplate { .. } | StoreRequest::DeleteTemplate { .. } | StoreRequest::TrackAck { .. } => {
                StoreReply::Done
            }
        }
    }

    // --- The rim -----------------------------------------------------------------------------------------------------

    fn now(&self) -> Now {
        Now { mono_us: self.now_us, unix_ns: NOW_S * 1_000_000_000 + self.now_us * 1_000 }
    }

    fn call(&mut self, at: usize, act: impl FnOnce(&mut Shard, Now, &mut Vec<Effect>)) {
        let (now, mut effects) = (self.now(), Vec::new());
        act(&mut self.shards[at], now, &mut effects);
        self.carry_out(at, effects);
        self.shards[at].check();
    }

    fn carry_out(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.lanes[at][to.index()].push_back(Parcel::Message(message)),
                Effect::HandOver { key, to, arrival } => {
                    let socket = self.by_key.remove(&(at, key)).expect("a socket that is there");
                    self.sockets[socket].place = None;
                    self.lanes[at][to.index()].push_back(Parcel::Socket(socket, arrival));
                }
                Effect::Shutdown(key) => assert!(self.by_key.contains_key(&(at, key)), "FIN for nobody"),
                Effect::Close(key) => {
                    let socket = self.by_key.remove(&(at, key)).expect("a socket that is there");
                    self.sockets[socket].place = None;
                }
                Effect::Read { key, on } => {
                    if let Some(socket) = self.by_key.get(&(at, key)) {
                        self.sockets[*socket].is_deaf = !on;
                    }
                }
                Effect::Store { ticket, request } => {
                    self.happened.asked += 1;
                    self.asked[at].push_back((ticket, request));
                }
                Effect::Cluster(_) => panic!("a lonely node speaks to others: {effect:?}"),
            }
        }
    }

    /// Everything that is under way comes to its end; with `all`, sockets take everything.
    fn settle(&mut self, all: bool) {
        for round in 0.. {
            assert!(round < 20_000, "the node does not come to rest");
            let mut moved = false;
            for from in 0..SHARDS {
                for to in 0..SHARDS {
                    moved |= self.carry(from, to);
                }
                moved |= self.answer(from, 0);
                let (now, mut effects) = (self.now(), Vec::new());
                moved |= self.shards[from].work(now, &mut effects);
                self.carry_out(from, effects);
                self.shards[from].check();
                if all {
                    let before = self.happened.written;
                    for at in 0..self.sockets.len() {
                        if let Some((shard, key)) = self.sockets[at].place
                            && std::mem::take(&mut self.sockets[at].is_blocked)
                        {
                            self.call(shard, |shard, now, _| shard.writable(now, key));
                        }
                    }
                    self.flush(from, 4);
                    moved |= self.happened.written > before;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// The node stops and everybody leaves: nothing is left.
    fn end(&mut self) {
        for at in 0..SHARDS {
            self.call(at, |shard, now, effects| shard.stop(now, effects));
        }
        // Retries of a store that failed, closing handshakes, lingering.
        for _ in 0..40 {
            self.settle(true);
            self.pass(500);
        }
        self.settle(true);
        let rest: Vec<_> = self.sockets.iter().filter_map(|socket| socket.place).collect();
        for (at, key) in rest {
            self.call(at, |shard, now, effects| shard.ended(now, key, Ended::Reset, effects));
        }
        self.settle(true);
        assert!(self.shards.iter().all(Shard::stopped), "a shard owes something");
        assert_eq!(self.metrics.sockets.load(Relaxed), 0, "sockets");
        assert_eq!(self.metrics.admitted.load(Relaxed), 0, "admitted");
        for figures in &self.metrics.shards {
            assert_eq!((figures.connections_ws.get(), figures.connections_sse.get()), (0, 0), "connections");
            assert_eq!((figures.users.get(), figures.subscriptions.get()), (0, 0), "users and subscriptions");
            assert_eq!(figures.outbox_bytes.get(), 0, "bytes that wait");
        }
    }
}

fn text(json: &str) -> Vec<u8> {
    frame(0x81, json.as_bytes())
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x21, 0x43, 0x65, 0x87];
    let mut out = vec![first, 0x80 | 126];
    if payload.len() < 126 {
        out[1] = 0x80 | payload.len() as u8;
    } else {
        out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}
