//! A small shard for the reactor's tests: every method of the real one that the rim calls, over a language of one-line
//! requests.
//!
//! | request | what happens |
//! |---|---|
//! | `echo ...` | the line comes back |
//! | `big N` | N bytes come back |
//! | `quit` | `bye` comes back, then FIN |
//! | `home N` | the socket is handed over to shard N, which greets with `home N` |
//! | `tell N` | shard N counts a message |
//! | `count` | the messages counted here |
//! | `store` | `stored` comes once the store has answered |
//! | `panic`, `panic-output` | as it says |
//! | `mute` | nothing is read until the deadline after it; then `heard` |
use crate::conn::outbox::Transport;
use crate::effect::{Effect, Effects};
use crate::flow::shed::Notice;
use crate::guest::Submission;
use crate::key::{ConnKey, ShardId};
use crate::mesh::message::{GatherId, Message};
use crate::shard::{Arrival, Ended};
use protocol::auth::token::Claims;
use protocol::clock::Now;
use protocol::cluster::ClusterEvent;
use protocol::http::Version;
use protocol::ids::TenantId;
use protocol::json;
use protocol::notification::{Content, Priority, Source, Target};
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

/// How long `mute` lasts.
const MUTE_US: u64 = 2_000;
/// How long a handshake may take.
const GREETING_US: u64 = 3_000_000;

/// Somebody on the way; the real arrival tells more, the rim looks at none of it.
pub(super) fn arrival() -> Box<Arrival> {
    Box::new(Arrival {
        transport: Transport::WebSocket,
        tenant: TenantId::default_tenant(),
        claims: Claims { user: "ana".into(), expires_at_unix_s: u64::MAX, ..Claims::default() },
        accept: None,
        version: Version::Http11,
        origin: None,
        channels: Vec::new(),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        quota: None,
        rest: Vec::new(),
    })
}

/// Any message.
pub(super) fn message() -> Message {
    Message::Expect { gather: GatherId { slot: 0, generation: 0 }, parts: 0, parcels: 0 }
}

/// Any publish.
pub(super) fn submission() -> Submission {
    Submission {
        tenant: TenantId::default_tenant(),
        target: Target::Broadcast,
        content: Content {
            event_type: "test".into(),
            payload: json::compact("null", 0).unwrap(),
            priority: Priority::default(),
            ttl: None,
            correlation_id: None,
            audience: None,
        },
        claim: None,
        source: Source::Http,
    }
}

#[derive(Default)]
struct Conn {
    input: Vec<u8>,
    output: Vec<u8>,
    blocked: bool,
    sealed: bool,
    closing: bool,
    panics: bool,
}

/// See the module.
pub struct Shard {
    id: ShardId,
    connections: BTreeMap<u32, (u32, Conn)>,
    connections_max: usize,
    generation: u32,
    dirty: VecDeque<ConnKey>,
    muted: Vec<(u64, ConnKey)>,
    ungreeted: Vec<(u64, ConnKey)>,
    last_arrival: Option<Box<Arrival>>,
    counted: usize,
    published: usize,
    stopping: bool,
}

impl Shard {
    pub(super) fn new(id: ShardId, connections_max: usize) -> Shard {
        Shard {
            id,
            connections: BTreeMap::new(),
            connections_max,
            generation: 0,
            dirty: VecDeque::new(),
            muted: Vec::new(),
            ungreeted: Vec::new(),
            last_arrival: None,
            counted: 0,
            published: 0,
            stopping: false,
        }
    }

    fn open(&mut self) -> ConnKey {
        let slot = (0..).find(|slot| !self.connections.contains_key(slot)).unwrap();
        self.generation += 1;
        self.connections.insert(slot, (self.generation, Conn::default()));
        ConnKey { slot, generation: self.generation }
    }

    fn find(&mut self, key: ConnKey) -> Option<&mut Conn> {
        let (generation, conn) = self.connections.get_mut(&key.slot)?;
        (*generation == key.generation).then_some(conn)
    }

    fn say(&mut self, key: ConnKey, text: &str) {
        let Some(conn) = self.find(key) else { return };
        conn.output.extend_from_slice(text.as_bytes());
        if !conn.blocked {
            self.dirty.push_back(key);
        }
    }

    fn close(&mut self, key: ConnKey, effects: &mut Effects) {
        if self.find(key).is_some() {
            self.connections.remove(&key.slot);
            effects.push(Effect::Close(key));
        }
    }

    pub(super) fn accepted(&mut self, _now: Now, _peer: IpAddr) -> Option<ConnKey> {
        (self.connections.len() < self.connections_max).then(|| self.open())
    }

    pub(super) fn await_greeting(&mut self, now: Now, key: ConnKey) {
        self.ungreeted.push((now.mono_us + GREETING_US, key));
    }

    pub(super) fn greeted(&mut self, _now: Now, key: ConnKey) {
        self.ungreeted.retain(|waiting| waiting.1 != key);
    }

    pub(super) fn sealed(&mut self, now: Now, key: ConnKey, len: usize, effects: &mut Effects) {
        let Some(conn) = self.find(key) else { return };
        conn.sealed = true;
        self.written(now, key, len, true, effects);
    }

    pub(super) fn unsealed(&mut self, now: Now, key: ConnKey, _moved: bool, is_all: bool, effects: &mut Effects) {
        let Some(conn) = self.find(key) else { return };
        conn.sealed &= !is_all;
        self.written(now, key, 0, !is_all, effects);
    }

    pub(super) fn arrived(&mut self, _now: Now, arrival: Box<Arrival>, _effects: &mut Effects) -> ConnKey {
        self.last_arrival = Some(arrival);
        let key = self.open();
        self.say(key, &format!("home {}\n", self.id.0));
        key
    }

    pub(super) fn received(&mut self, now: Now, key: ConnKey, bytes: &mut [u8], effects: &mut Effects) {
        let Some(conn) = self.find(key) else { return };
        conn.input.extend_from_slice(bytes);
        while let Some(conn) = self.find(key)
            && let Some(end) = conn.input.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = conn.input.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap();
            self.request(now, key, line.trim_end(), effects);
        }
    }

    fn request(&mut self, now: Now, key: ConnKey, line: &str, effects: &mut Effects) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "echo" => self.say(key, &format!("{rest}\n")),
            "big" => self.say(key, &"x".repeat(rest.parse().unwrap())),
            "quit" => {
                self.say(key, "bye\n");
                self.find(key).unwrap().closing = true;
            }
            "home" => {
                let mut arrival = arrival();
                arrival.rest = self.connections.remove(&key.slot).unwrap().1.input;
                effects.push(Effect::HandOver { key, to: ShardId(rest.parse().unwrap()), arrival });
            }
            "tell" => effects.push(Effect::Send { to: ShardId(rest.parse().unwrap()), message: message() }),
            "count" => self.say(key, &format!("{} {}\n", self.counted, self.published)),
            "store" => {
                effects.push(Effect::Store { ticket: StoreTicket(key.to_u64()), request: StoreRequest::LoadTemplates });
            }
            "panic" => panic!("as told"),
            "panic-output" => {
                self.say(key, "never");
                self.find(key).unwrap().panics = true;
            }
            "mute" => {
                self.muted.push((now.mono_us + MUTE_US, key));
                effects.push(Effect::Read { key, on: false });
            }
            _ => self.say(key, "what?\n"),
        }
    }

    pub(super) fn ended(&mut self, _now: Now, key: ConnKey, how: Ended, effects: &mut Effects) {
        let Some(conn) = self.find(key) else { return };
        if how == Ended::Reset || conn.output.is_empty() {
            self.close(key, effects);
        } else {
            conn.closing = true;
        }
    }

    pub(super) fn message(&mut self, _now: Now, _from: ShardId, _message: Message, _effects: &mut Effects) {
        self.counted += 1;
    }

    pub(super) fn stored(&mut self, _now: Now, ticket: StoreTicket, _reply: StoreReply, _effects: &mut Effects) {
        self.say(ConnKey::from_u64(ticket.0), "stored\n");
    }

    pub(super) fn cluster(&mut self, _now: Now, _event: ClusterEvent, _effects: &mut Effects) {}

    pub(super) fn publish(&mut self, _now: Now, _submission: Submission, _effects: &mut Effects) {
        self.published += 1;
    }

    pub(super) fn holds_guests_back(&self) -> bool {
        false
    }

    pub(super) fn saturated(&self) -> bool {
        false
    }

    pub(super) fn tick(&mut self, now: Now, effects: &mut Effects) {
        let due: Vec<ConnKey> =
            self.muted.extract_if(.., |muted| muted.0 <= now.mono_us).map(|muted| muted.1).collect();
        for key in due {
            self.say(key, "heard\n");
            effects.push(Effect::Read { key, on: true });
        }
        let due: Vec<ConnKey> =
            self.ungreeted.extract_if(.., |waiting| waiting.0 <= now.mono_us).map(|waiting| waiting.1).collect();
        for key in due {
            effects.push(Effect::Shutdown(key));
            self.close(key, effects);
        }
    }

    pub(super) fn work(&mut self, _now: Now, _effects: &mut Effects) -> bool {
        false
    }

    pub(super) fn take_notice(&mut self) -> Option<Notice> {
        None
    }

    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        self.muted.iter().chain(&self.ungreeted).map(|due| due.0).min()
    }

    pub(super) fn next_dirty(&mut self) -> Option<ConnKey> {
        self.dirty.pop_front()
    }

    pub(super) fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    pub(super) fn output(&mut self, _now: Now, key: ConnKey) -> &[u8] {
        let Some(conn) = self.find(key) else { return &[] };
        assert!(!conn.panics, "as told");
        &conn.output[..conn.output.len().min(64 * 1024)]
    }

    pub(super) fn flushed_all(&mut self) {}

    pub(super) fn written(&mut self, _now: Now, key: ConnKey, len: usize, blocked: bool, effects: &mut Effects) {
        let Some(conn) = self.find(key) else { return };
        conn.output.drain(..len);
        conn.blocked = blocked;
        if !conn.output.is_empty() && !blocked {
            self.dirty.push_back(key);
        } else if conn.output.is_empty() && conn.closing && !conn.sealed {
            effects.push(Effect::Shutdown(key));
            self.close(key, effects);
        }
    }

    pub(super) fn writable(&mut self, _now: Now, key: ConnKey) {
        self.find(key).expect("a stranger is writable").blocked = false;
        self.dirty.push_back(key);
    }

    pub(super) fn poisoned(&mut self, _now: Now, key: ConnKey, _effects: &mut Effects) {
        self.connections.remove(&key.slot);
    }

    pub(super) fn stop(&mut self, _now: Now, _effects: &mut Effects) {
        self.stopping = true;
        let keys: Vec<ConnKey> = self
            .connections
            .iter()
            .map(|(slot, (generation, _))| ConnKey { slot: *slot, generation: *generation })
            .collect();
        for key in keys {
            self.say(key, "stop\n");
            self.find(key).unwrap().closing = true;
        }
    }

    pub(super) fn stopped(&self) -> bool {
        self.stopping && self.connections.is_empty()
    }
}
